"""What we ask of MongoDB, asked of the embedded server and of a real mongod alike, so that nothing leans on a quirk of one.

Where the machine has no mongod its half is skipped with the reason.
"""

import base64
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier, Event
from typing import Any, TypeVar

import pytest
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError, WriteError

from content import bookings, courses, lessons, records, registrations, sealed, sessions, store
from content.bookings import Booking, Place
from content.failures import Conflict
from content.lessons import Lesson
from content.published import ANY, Item, PublishedRow, Reader, release
from content.settings import Settings
from notifications import outbox
from notifications.notices import Notice
from tests.test_courses import published_session
from tests.test_publishing import EN, FACTS

T = TypeVar("T")
Made = tuple[Settings, list[str], list[str]]
OLDER = {"$jsonSchema": {"bsonType": "object", "required": ["gone"], "properties": {"gone": {"bsonType": "int"}}}}


@pytest.fixture(scope="module", params=["embedded", "mongod"])
def made(request: pytest.FixtureRequest, database: str) -> Iterator[Made]:
    """Settings of a database that an older version had left, and what `ensure_indexes` said the first and second time."""
    uri = request.getfixturevalue("mongod" if request.param == "mongod" else "mongo_uri")
    name = f"{database}_broker"  # the embedded server's user may go nowhere else
    settings = Settings(mongodb_uri=uri, database=name, data_key=base64.b64encode(os.urandom(96)).decode())
    with MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(name)
        client[name].create_collection("lessons", validator=OLDER)
        client[name]["lessons"].insert_one({"_id": "kept", "gone": 1})
        client[name]["bookings"].create_index("expires_at", name="expires_at_1", expireAfterSeconds=bookings.DAY)
        store.connect(settings)
        first, second = store.ensure_indexes(), store.ensure_indexes()
        yield settings, first, second
        store.disconnect()
        client.drop_database(name)


@pytest.fixture
def there(made: Made) -> Iterator[Settings]:
    """Connected to it, emptied."""
    store.connect(made[0])
    sealed.configure(made[0])
    for cls in store.collections():
        cls.rows().delete_many({})
    yield made[0]
    store.disconnect()


def at_once(number: int, work: Callable[[int], T]) -> list[T]:
    """`work(0)` … `work(number - 1)` in as many threads, let go at one moment."""
    gate = Barrier(number)

    def run(n: int) -> T:
        gate.wait()
        return work(n)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def test_an_older_database_is_mended_once(made: Made) -> None:
    settings, first, second = made
    store.connect(settings)
    assert {"lessons: validator", "lessons: index slug_1", "bookings: validator", "audit: collection"} <= set(first)
    assert not {"lessons: collection", "bookings: index expires_at_1"} & set(first)
    assert second == [] == store.missing_indexes()


def test_bookings_erase_themselves(there: Settings) -> None:
    found = {index["name"]: index for index in Booking.rows().list_indexes()}
    assert found["expires_at_1"]["expireAfterSeconds"] == bookings.DAY


@pytest.mark.parametrize("bad", [{"seats": "two"}, {"seats": None}, {"extra": 1}, {"series": 5}, {"contact": "13800138000"}])
def test_the_validator_refuses(there: Settings, bad: dict[str, Any]) -> None:
    at = store.now()
    good = {"_id": "b", "series": "s", "seats": 2, "feed": "f", "created_at": at, "seen_at": at, "expires_at": at}
    with pytest.raises(WriteError) as refused:
        Booking.rows().insert_one({**good, **bad})
    assert refused.value.code == 121
    Booking.rows().insert_one(good)
    with pytest.raises(WriteError):
        Booking.rows().update_one({"_id": "b"}, {"$set": bad})
    assert Booking.rows().find_one({"_id": "b"}) == good


def test_a_taken_slug_is_a_conflict_that_names_it(there: Settings) -> None:
    lessons.create("exam-week", FACTS, {"en": EN}, "ann")
    row = Lesson.rows().find_one({})
    with pytest.raises(DuplicateKeyError) as caught:
        records.create(Lesson.of({**row, "_id": "other"}), "ann")
    failure = store.failure_of(caught.value)
    assert isinstance(failure, Conflict) and failure.code == "exists" and failure.params == {"what": "exam-week"}
    assert Lesson.rows().count_documents({}) == records.Audit.rows().count_documents({}) == 1


def test_a_transaction_is_whole_or_nothing(there: Settings) -> None:
    def work(session: ClientSession) -> None:
        release(session, [Item("lesson", "a", "en", {"n": 1})])
        assert PublishedRow.rows().find_one({"key": "a"}, session=session)
        assert PublishedRow.rows().find_one({"key": "a"}) is None  # nobody else sees it
        raise Conflict("full")

    with pytest.raises(Conflict):
        store.transaction(work)
    assert PublishedRow.rows().count_documents({}) == 0
    assert store.transaction(lambda session: release(session, [])) == 1  # the number it had taken went back


def test_who_has_seen_a_number_has_all_up_to_it(there: Settings) -> None:
    done, gaps = Event(), []

    def read() -> int:
        looks = 0
        while not done.is_set():
            reader = Reader()
            reader.refresh()
            if sum(map(len, reader.current.kinds.values())) != reader.current.seq:
                gaps.append(reader.current)
            looks += 1
        return looks

    def write(thread: int) -> list[int]:
        def one(n: int) -> int:
            item = Item("lesson", f"{thread}-{n}", ANY, {"n": n})
            return store.transaction(lambda session: release(session, [item]))

        return [one(n) for n in range(5)]

    with ThreadPoolExecutor(1) as pool:
        looks = pool.submit(read)
        try:
            numbers = at_once(8, write)
        finally:
            done.set()
        assert looks.result() > 0 and gaps == []
    assert sorted(n for row in numbers for n in row) == list(range(1, 41))
    assert all(row == sorted(row) for row in numbers)


def test_five_seats_for_twenty_families(there: Settings) -> None:
    sealed.seal("")
    records.create(courses.staff.Organisation(id="org1", name="妇联", kind="federation", division="150603"), records.SYSTEM)
    session = published_session(capacity=5)

    def book(n: int) -> str:
        try:
            wish = registrations.Wish(1, "王", f"138001380{n:02}", session)
            return registrations.book(there, wish).places[0].state
        except Conflict as full:
            return full.code

    assert sorted(at_once(20, book)) == ["confirmed"] * 5 + ["full"] * 15
    assert sessions.session(session).seats_taken == 5
    assert Place.rows().count_documents({"state": "confirmed"}) == 5


def test_of_two_workers_one_has_the_notice(there: Settings) -> None:
    now = datetime(2027, 6, 6, 1, 4, tzinfo=UTC)  # 09:04 in Shanghai

    def take(_: int) -> Notice | None:
        lease = outbox.enter(now)
        return outbox.claim(lease, now, there, []) if lease else None

    for n in range(10):
        notice = Notice(
            id=f"n{n}", created_by="ann", audiences=["parent"], texts={"en": {"title": "June", "body": "Small ideas."}},
            state="due", next_try=now, expires_at=now + timedelta(days=1), listed=True,
        )  # fmt: skip
        Notice.rows().insert_one(notice.to_mongo().to_dict())
        claims = [claim for claim in at_once(2, take) if claim]
        assert len(claims) == 1 and claims[0].attempts == 1 and claims[0].state == "claimed"
        outbox.leave(claims[0].lease, now)


def test_what_is_sealed_opens_and_two_first_uses_make_one_key(there: Settings) -> None:
    store.database()[sealed.VAULT].drop()
    sealed.configure(there)
    blinds = at_once(4, lambda _: sealed.blind("+8613800138000"))
    assert len(set(blinds)) == store.database()[sealed.VAULT].count_documents({}) == 1
    first, second = sealed.seal("王"), sealed.seal("王")
    assert first != second and "王".encode() not in first
    Booking.rows().insert_one({
        "_id": "b", "series": "s", "seats": 1, "phone_blind": blinds[0], "contact": first, "feed": "f",
        "created_at": store.now(), "seen_at": store.now(), "expires_at": store.now() + timedelta(days=1),
    })  # fmt: skip
    row = Booking.rows().find_one({"phone_blind": blinds[0]})
    assert sealed.unseal(row["contact"]) == sealed.unseal(second) == "王"
    assert sealed.unseal(row["phone_blind"]) == "+8613800138000"

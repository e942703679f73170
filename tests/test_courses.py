"""Courses: a series is written, seen by a second person and published; families book without an account; no seat is sold
twice; and the telephone stands nowhere in clear."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from bson import encode

from content import courses, records, registrations, sealed, staff, store
from content.failures import Conflict, Failure, Forbidden, Invalid, NotFound, Stale
from content.published import ANY, Reader
from content.settings import Settings

LIBRARY = Path(courses.__file__).parent / "library"
KEY = "3f0c1c1e-7c1f-4a58-9d0b-2f6f8a1f0001"
SERIES = {
    "texts": {"zh-Hans": {"title": "家长学校", "summary": "四次晚间小课"}, "en": {"title": "Parent school", "summary": ""}},
    "topics": ["parenting"], "audiences": ["parent"], "stages": ["junior.9"], "format": "salon", "organisation": "org1",
    "division": "150603",
}  # fmt: skip


@pytest.fixture
def ready(clean: None, settings: Settings) -> None:
    """A clean database, and the key that seals."""
    sealed.configure(settings)
    sealed.seal("")  # makes the data key, as the service's start does


def session_values(**more: Any) -> dict[str, Any]:
    """A session next week with ten seats."""
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    values = {"starts_at": start, "ends_at": start + timedelta(hours=2), "zone": "Asia/Shanghai", "place": "community"}
    return {**values, "venue": {"name": {"zh-Hans": "社区活动室"}}, "capacity": 10, **more}


def published_session(**more: Any) -> str:
    """Id of a session open for booking."""
    made = courses.create_series(SERIES, "ann")
    courses.publish_series(made.id, "ann", second_person=False)
    session = courses.create_session(made.id, session_values(**more), "ann")
    return str(courses.publish_session(session.id, "ann").id)


def public(kind: str, key: str) -> dict[str, Any] | None:
    """What readers see now."""
    reader = Reader()
    reader.refresh()
    item = reader.current.get(kind, key).get(ANY)
    return dict(item.content) if item and item.content else None


def test_a_series_needs_a_second_person_and_an_edit_waits_for_publication(ready: None) -> None:
    ann = staff.create_account("ann", "Ann", "correct horse battery", records.SYSTEM, [staff.Grant("organiser")]).id
    bob = staff.create_account("bob", "Bob", "correct horse battery", records.SYSTEM, [staff.Grant("reviewer")]).id
    made = courses.create_series(SERIES, ann)
    with pytest.raises(Forbidden):
        courses.publish_series(made.id, ann, second_person=True)
    with pytest.raises(Forbidden):
        courses.approve_series(made.id, ann)
    courses.approve_series(made.id, bob)
    edited = courses.edit_series(made.id, {"topics": ["parenting", "emotion"]}, ann)
    with pytest.raises(Forbidden):  # what was approved is not what it is now
        courses.publish_series(made.id, ann, second_person=True, revision=edited.revision)
    courses.approve_series(made.id, bob)
    assert public("series", made.id) is None
    first = courses.publish_series(made.id, ann, second_person=True)
    assert courses.publish_series(made.id, ann, second_person=True).revision == first.revision
    with pytest.raises(Conflict):
        courses.approve_series(made.id, bob)
    courses.edit_series(made.id, {"format": "lecture"}, ann)
    seen = public("series", made.id)
    assert seen and seen["format"] == "salon" and seen["topics"] == ["parenting", "emotion"]
    with pytest.raises(Stale):
        courses.edit_series(made.id, {"format": "activity"}, bob, revision=first.revision)
    with pytest.raises(Conflict):
        courses.edit_series(made.id, {"division": "420100"}, ann)
    courses.publish_series(made.id, bob, second_person=True)
    seen = public("series", made.id)
    assert seen and seen["format"] == "lecture"


def test_every_mistake_is_named_at_once(ready: None) -> None:
    with pytest.raises(Invalid) as caught:
        courses.create_series({"texts": {"zh-Hans": {}}, "topics": ["x"], "stages": ["y"], "format": "z", "division": "1"}, "ann")
    assert {e.field for e in caught.value.errors} == {"texts.zh-Hans.title", "topics", "stages", "format", "division"}
    made = courses.create_series(SERIES, "ann")
    with pytest.raises(Invalid) as caught:
        courses.create_session(made.id, {"starts_at": "never", "zone": "Mars", "place": "moon", "online_link": "http://x"}, "ann")
    assert {e.field for e in caught.value.errors} == {"starts_at", "ends_at", "zone", "place", "capacity", "online_link"}
    with pytest.raises(NotFound):
        courses.create_session("nothing", session_values(), "ann")


def test_a_session_from_draft_to_cancelled(ready: None) -> None:
    made = courses.create_series(SERIES, "ann")
    draft = courses.create_session(made.id, session_values(online_link="https://meet.example/secret-room"), "ann")
    with pytest.raises(Conflict):  # not before its series
        courses.publish_session(draft.id, "ann")
    with pytest.raises(NotFound):  # a draft is not there for families
        registrations.book(draft.id, 1, "王", "13800138000")
    courses.publish_series(made.id, "ann", second_person=False)
    courses.publish_session(draft.id, "ann")
    seen = public("session", draft.id)
    assert seen and seen["seats"] == "open" and seen["starts_at"].endswith("+08:00") and "secret-room" not in str(seen)
    booked = registrations.book(draft.id, 2, "王", "13800138000")
    later = draft.starts_at + timedelta(days=1)
    moved = courses.edit_session(draft.id, {"starts_at": later, "ends_at": later + timedelta(hours=1)}, "ann")
    assert moved.booking_closes_at == later and moved.seats_taken == 2
    raw = courses.Booking.rows().find_one({})
    assert raw["expires_at"] - moved.ends_at <= timedelta(days=30)
    seen = public("session", draft.id)
    assert seen and datetime.fromisoformat(seen["starts_at"]) == later.replace(second=0)
    with pytest.raises(Invalid):
        courses.edit_session(draft.id, {"capacity": 1}, "ann")  # two are booked
    with pytest.raises(Conflict):
        courses.cancel_series(made.id, "ann")
    courses.cancel_session(draft.id, "ann")
    seen = public("session", draft.id)
    assert seen and seen["state"] == "cancelled"
    assert registrations.see(booked.code).session.state == "cancelled"
    with pytest.raises(Conflict) as caught:
        registrations.book(draft.id, 1, "李", "13900139000")
    assert caught.value.code == "closed"
    courses.cancel_series(made.id, "ann")
    assert "secret-room" not in str(list(records.Audit.rows().find({})))


def test_readers_learn_of_seats_only_when_the_word_changes(ready: None) -> None:
    session = published_session(capacity=10)
    phones = iter(range(13800138000, 13800138020))
    words, sequences = [], []
    reader = Reader()
    for _ in range(10):
        registrations.book(session, 1, "王", str(next(phones)))
        reader.refresh()
        content = reader.current.get("session", session)[ANY].content
        assert content
        words.append(content["seats"])
        sequences.append(reader.current.seq)
    assert words == ["open"] * 7 + ["few"] * 2 + ["full"]
    assert len(set(sequences)) == 3  # ten bookings, two releases
    with pytest.raises(Conflict) as caught:
        registrations.book(session, 1, "王", str(next(phones)))
    assert caught.value.code == "full"


def test_sixty_families_at_once_for_ten_seats(ready: None) -> None:
    for turn in range(3):
        session = published_session(capacity=10)
        start = Barrier(60)

        def family(n: int, session: str = session, start: Barrier = start) -> str:
            start.wait()
            try:
                return registrations.book(session, 1, "王", f"138{n:08d}").state
            except Conflict as failure:
                return failure.code

        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(family, range(60)))
        assert (answers.count("confirmed"), answers.count("full")) == (10, 50), turn
        assert courses.session(session).seats_taken == 10
        assert courses.Booking.rows().count_documents({"session": session}) == 10
        seen = public("session", session)
        assert seen and seen["seats"] == "full"


def test_cancelling_gives_the_seats_back_once_and_erases_the_family(ready: None) -> None:
    session = published_session(capacity=4)
    booked = registrations.book(session, 3, "欧阳", "138 0013 8000")
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{5}-){2}[0-9A-HJKMNP-TV-Z]{5}", booked.code)
    sloppy = booked.code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert registrations.see(sloppy)[:2] == ("confirmed", 3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(registrations.cancel, [booked.code] * 8))
    assert {answer.state for answer in answers} == {"cancelled"}
    assert courses.session(session).seats_taken == 0
    raw = courses.Booking.rows().find_one({})
    assert not {"phone", "phone_blind", "family_name"} & raw.keys()
    assert registrations.see(booked.code).state == "cancelled"
    for wrong in ("", "00000-00000-00000", "x" * 4000, "\ud800", "$ne"):
        with pytest.raises(NotFound):
            registrations.see(wrong)


def test_one_key_is_one_booking(ready: None) -> None:
    session = published_session(capacity=10)
    start = Barrier(8)

    def press(_: int) -> registrations.Booked:
        start.wait()
        return registrations.book(session, 2, "王", "13800138000", KEY)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(press, range(8)))
    assert len({(b.code, b.state, b.seats) for b in answers}) == 1
    assert courses.session(session).seats_taken == 2
    code = answers[0].code
    with pytest.raises(Failure) as caught:
        registrations.book(session, 1, "王", "13800138000", KEY)
    assert caught.value.code == "duplicate_key_body"
    assert registrations.book(session, 2, "李", "13900139000", KEY).code != code  # another's key opens nothing of mine
    registrations.cancel(code)
    assert registrations.book(session, 2, "王", "13800138000", KEY)[:2] == (code, "cancelled")
    assert courses.session(session).seats_taken == 2
    with pytest.raises(Invalid):
        registrations.book(session, 2, "王", "13800138000", "short")


def test_a_phone_holds_four_seats_and_its_refusal_looks_like_a_full_session(ready: None) -> None:
    session = published_session(capacity=10)
    registrations.book(session, 3, "王", "13800138000")
    with pytest.raises(Conflict) as limit:
        registrations.book(session, 2, "王", "+86 138-0013-8000")
    courses.edit_session(session, {"capacity": 4}, "ann")
    with pytest.raises(Conflict) as full:
        registrations.book(session, 2, "李", "13900139000")
    assert (limit.value.code, limit.value.messages, limit.value.params) == (
        full.value.code,
        full.value.messages,
        full.value.params,
    )
    registrations.book(session, 1, "王", "13800138000")
    other = published_session()
    start = Barrier(6)

    def press(_: int) -> str:
        start.wait()
        try:
            return registrations.book(other, 2, "王", "13800138000").state
        except Conflict as failure:
            return failure.code

    with ThreadPoolExecutor(6) as pool:  # two of one phone at one moment do not both miss the other
        assert sorted(pool.map(press, range(6))) == ["confirmed"] * 2 + ["full"] * 4


def test_past_the_deadline_it_is_closed(ready: None) -> None:
    session = published_session()
    courses.CourseSession.rows().update_one({"_id": session}, {"$set": {"booking_closes_at": store.now()}})
    with pytest.raises(Conflict) as caught:
        registrations.book(session, 1, "王", "13800138000")
    assert caught.value.code == "closed"
    for phone in ("12", "not a phone", "99999999999999", ""):
        with pytest.raises(Invalid):
            registrations.book(session, 1, "王", phone)


def test_no_phone_no_name_no_code_in_the_whole_database_and_reading_leaves_a_line(ready: None) -> None:
    session = published_session()
    booked = registrations.book(session, 1, "欧阳娜娜", "13912345678", KEY)
    registrations.book(session, 1, "王", "13912345679")
    entries = registrations.register(session, "ann")
    assert [(e.family_name, e.phone) for e in entries] == [("欧阳娜娜", "+8613912345678"), ("王", "+8613912345679")]
    (line,) = [row for row in records.history(kind="session", key=session) if row.action == "session.read_bookings"]
    assert line.actor == "ann" and line.note == "2 bookings"
    db = store.database()
    dump = b"".join(encode(row, codec_options=db.codec_options) for name in db.list_collection_names() for row in db[name].find({}))
    assert session.encode() in dump
    for secret in ("1391234567", "欧阳", booked.code, booked.code.replace("-", ""), KEY):
        assert secret.encode() not in dump, secret
    with pytest.raises(NotFound):
        registrations.register("nothing", "ann")


def test_the_starter_series_loads_once(ready: None) -> None:
    assert courses.load_library(LIBRARY, Settings()) == 1
    assert courses.load_library(LIBRARY, Settings()) == 1
    assert courses.CourseSession.rows().count_documents({"state": "published"}) == 4
    seen = public("session", "sample-parent-school-1")
    assert seen and seen["starts_at"].endswith("T19:00+08:00") and seen["lecturer"]["name"]["zh-Hans"]

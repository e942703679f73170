"""Courses: a series is written, seen by a second person and published; families book without an account; no seat is sold
twice; and the telephone stands nowhere in clear."""

import logging
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from bson import encode

from content import (
    batches,
    bookings,
    courses,
    lessons,
    media,
    planning,
    records,
    registrations,
    sealed,
    sessions,
    staff,
    store,
    waiting,
)
from content.failures import Conflict, Failure, Forbidden, Invalid, NotFound, Stale
from content.published import ANY, Reader
from content.settings import Settings
from tests.site import Site

LIBRARY = Path(courses.__file__).parent / "library"
HERE = Settings(var=Path(tempfile.mkdtemp()))
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
    federation()


def federation(key: str = "org1") -> str:
    """An organisation that holds courses."""
    office = staff.Organisation(id=key, name=f"妇联 {key}", kind="federation", division="150603")
    return str(records.create(office, records.SYSTEM).id)


def session_values(**more: Any) -> dict[str, Any]:
    """A session next week with ten seats."""
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    values = {"starts_at": start, "ends_at": start + timedelta(hours=2), "zone": "Asia/Shanghai", "place": "community"}
    return {**values, "venue": {"name": {"zh-Hans": "社区活动室"}}, "capacity": 10, **more}


def published_session(**more: Any) -> str:
    """Id of a session open for booking."""
    made = courses.create_series(SERIES, "ann")
    courses.publish_series(made.id, "ann", second_person=False)
    session = sessions.create_session(made.id, session_values(**more), "ann")
    return str(sessions.publish_session(session.id, "ann").id)


def book(session: str, seats: int, name: str, phone: str, key: str | None = None, **more: Any) -> bookings.Booked:
    """Book as a family does."""
    return registrations.book(HERE, registrations.Wish(seats, name, phone, session, **more), key)


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
        wrong = {"starts_at": "never", "zone": "Mars", "place": "moon", "online_link": "http://x"}
        sessions.create_session(made.id, wrong, "ann")
    assert {e.field for e in caught.value.errors} == {"starts_at", "ends_at", "zone", "place", "capacity", "online_link"}
    with pytest.raises(NotFound):
        sessions.create_session("nothing", session_values(), "ann")


def test_a_session_from_draft_to_cancelled(ready: None) -> None:
    made = courses.create_series(SERIES, "ann")
    draft = sessions.create_session(made.id, session_values(online_link="https://meet.example/secret-room"), "ann")
    with pytest.raises(Conflict):  # not before its series
        sessions.publish_session(draft.id, "ann")
    with pytest.raises(NotFound):  # a draft is not there for families
        book(draft.id, 1, "王", "13800138000")
    courses.publish_series(made.id, "ann", second_person=False)
    sessions.publish_session(draft.id, "ann")
    seen = public("session", draft.id)
    assert seen and seen["seats"] == "open" and seen["starts_at"].endswith("+08:00") and "secret-room" not in str(seen)
    booked = book(draft.id, 2, "王", "13800138000")
    later = draft.starts_at + timedelta(days=1)
    moved = sessions.edit_session(draft.id, {"starts_at": later, "ends_at": later + timedelta(hours=1)}, "ann")
    assert moved.booking_closes_at == later and moved.seats_taken == 2
    raw = bookings.Booking.rows().find_one({})
    assert raw["expires_at"] - moved.ends_at <= timedelta(days=30)
    seen = public("session", draft.id)
    assert seen and datetime.fromisoformat(seen["starts_at"]) == later.replace(microsecond=0)
    with pytest.raises(Invalid):
        sessions.edit_session(draft.id, {"capacity": 1}, "ann")  # two are booked
    with pytest.raises(Conflict):
        courses.cancel_series(made.id, "ann")
    sessions.cancel_session(draft.id, "ann")
    seen = public("session", draft.id)
    assert seen and seen["state"] == "cancelled"
    assert bookings.see(booked.code).places[0].session.state == "cancelled"
    with pytest.raises(Conflict) as caught:
        book(draft.id, 1, "李", "13900139000")
    assert caught.value.code == "closed"
    courses.cancel_series(made.id, "ann")
    assert "secret-room" not in str(list(records.Audit.rows().find({})))


def test_readers_learn_of_seats_only_when_the_word_changes(ready: None) -> None:
    session = published_session(capacity=10)
    phones = iter(range(13800138000, 13800138020))
    words, sequences = [], []
    reader = Reader()
    for _ in range(10):
        book(session, 1, "王", str(next(phones)))
        reader.refresh()
        content = reader.current.get("session", session)[ANY].content
        assert content
        words.append(content["seats"])
        sequences.append(reader.current.seq)
    assert words == ["open"] * 7 + ["few"] * 2 + ["full"]
    assert len(set(sequences)) == 3  # ten bookings, two releases
    with pytest.raises(Conflict) as caught:
        book(session, 1, "王", str(next(phones)))
    assert caught.value.code == "full"


def test_sixty_families_at_once_for_ten_seats(ready: None) -> None:
    for turn in range(3):
        session = published_session(capacity=10)
        start = Barrier(60)

        def family(n: int, session: str = session, start: Barrier = start) -> str:
            start.wait()
            try:
                return book(session, 1, "王", f"138{n:08d}").places[0].state
            except Conflict as failure:
                return failure.code

        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(family, range(60)))
        assert (answers.count("confirmed"), answers.count("full")) == (10, 50), turn
        assert sessions.session(session).seats_taken == 10
        assert bookings.Place.rows().count_documents({"session": session}) == 10
        seen = public("session", session)
        assert seen and seen["seats"] == "full"


def test_cancelling_gives_the_seats_back_once_and_erases_the_family(ready: None) -> None:
    session = published_session(capacity=4)
    booked = book(session, 3, "欧阳", "138 0013 8000")
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{5}-){2}[0-9A-HJKMNP-TV-Z]{5}", booked.code)
    sloppy = booked.code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    (place,) = bookings.see(sloppy).places
    assert (place.state, place.seats) == ("confirmed", 3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(waiting.cancel, [booked.code] * 8))
    assert {answer.places[0].state for answer in answers} == {"cancelled"}
    assert sessions.session(session).seats_taken == 0
    raw = bookings.Booking.rows().find_one({})
    assert not {"contact", "phone_blind", "push"} & raw.keys()
    assert bookings.see(booked.code).places[0].state == "cancelled"
    for wrong in ("", "00000-00000-00000", "x" * 4000, "\ud800", "$ne"):
        with pytest.raises(NotFound):
            bookings.see(wrong)


def test_one_key_is_one_booking(ready: None) -> None:
    session = published_session(capacity=10)
    start = Barrier(8)

    def press(_: int) -> bookings.Booked:
        start.wait()
        return book(session, 2, "王", "13800138000", KEY)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(press, range(8)))
    assert len({(b.code, b.places[0].state, b.seats) for b in answers}) == 1
    assert sessions.session(session).seats_taken == 2
    code = answers[0].code
    with pytest.raises(Failure) as caught:
        book(session, 1, "王", "13800138000", KEY)
    assert caught.value.code == "duplicate_key_body"
    assert book(session, 2, "李", "13900139000", KEY).code != code  # another's key opens nothing of mine
    waiting.cancel(code)
    again = book(session, 2, "王", "13800138000", KEY)
    assert (again.code, again.places[0].state) == (code, "cancelled")
    assert sessions.session(session).seats_taken == 2
    with pytest.raises(Invalid):
        book(session, 2, "王", "13800138000", "short")


def test_a_phone_holds_four_seats_and_its_refusal_looks_like_a_full_session(ready: None) -> None:
    session = published_session(capacity=10)
    book(session, 3, "王", "13800138000")
    with pytest.raises(Conflict) as limit:
        book(session, 2, "王", "+86 138-0013-8000")
    sessions.edit_session(session, {"capacity": 4}, "ann")
    with pytest.raises(Conflict) as full:
        book(session, 2, "李", "13900139000")
    assert (limit.value.code, limit.value.messages, limit.value.params) == (
        full.value.code,
        full.value.messages,
        full.value.params,
    )
    book(session, 1, "王", "13800138000")
    other = published_session()
    start = Barrier(6)

    def press(_: int) -> str:
        start.wait()
        try:
            return book(other, 2, "王", "13800138000").places[0].state
        except Conflict as failure:
            return failure.code

    with ThreadPoolExecutor(6) as pool:  # two of one phone at one moment do not both miss the other
        assert sorted(pool.map(press, range(6))) == ["confirmed"] * 2 + ["full"] * 4


def test_past_the_deadline_it_is_closed(ready: None) -> None:
    session = published_session()
    courses.CourseSession.rows().update_one({"_id": session}, {"$set": {"booking_closes_at": store.now()}})
    with pytest.raises(Conflict) as caught:
        book(session, 1, "王", "13800138000")
    assert caught.value.code == "closed"
    for phone in ("12", "not a phone", "99999999999999", ""):
        with pytest.raises(Invalid):
            book(session, 1, "王", phone)


def test_no_phone_no_name_no_code_in_the_whole_database_and_reading_leaves_a_line(ready: None) -> None:
    session = published_session()
    booked = book(session, 1, "欧阳娜娜", "13912345678", KEY)
    book(session, 1, "王", "13912345679")
    entries = bookings.register(session, "ann")
    assert [(e.family_name, e.phone) for e in entries] == [("欧阳娜娜", "+8613912345678"), ("王", "+8613912345679")]
    (line,) = [row for row in records.history(kind="session", key=session) if row.action == "session.read_bookings"]
    assert line.actor == "ann" and line.note == "2 places"
    db = store.database()
    dump = b"".join(
        encode(row, codec_options=db.codec_options) for name in db.list_collection_names() for row in db[name].find({})
    )
    assert session.encode() in dump
    for secret in ("1391234567", "欧阳", booked.code, booked.code.replace("-", ""), KEY):
        assert secret.encode() not in dump, secret
    with pytest.raises(NotFound):
        bookings.register("nothing", "ann")


def test_the_starter_series_loads_once(ready: None) -> None:
    assert sessions.load_library(LIBRARY, Settings()) == 1
    assert sessions.load_library(LIBRARY, Settings()) == 1
    assert courses.CourseSession.rows().count_documents({"state": "published"}) == 4
    seen = public("session", "sample-parent-school-1")
    assert seen and seen["starts_at"].endswith("T19:00:00+08:00") and seen["lecturer"]["name"]["zh-Hans"]


def body(key: str) -> dict[str, Any]:
    """A series as staff send it."""
    texts = [
        {"language": "zh-Hans", "title": "家长学校", "summary": "四次晚间小课"},
        {"language": "en", "title": "Parent school"},
    ]
    return {**SERIES, "texts": texts, "organisation": key}


def test_the_whole_way_over_http(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)  # the level of the service; below it the test's own client writes addresses
    sealed.seal("")
    own, other = federation("org1"), federation("org2")
    site.person("ann", "organiser", organisation=own)
    site.person("rev", "reviewer", division="150600")
    site.person("eve", "organiser", organisation=other)

    # Ann writes a series; a reviewer approves; Ann publishes
    assert site.post("/v1/staff/courses", body(other), by="ann").status_code == 403
    made = site.post("/v1/staff/courses", body(own), by="ann")
    assert made.status_code == 201, made.text
    path = made.headers["Location"]
    assert site.post(f"{path}/publish", by="ann").status_code == 428
    alone = site.post(f"{path}/publish", by="ann", match=made.headers["ETag"])
    assert (alone.status_code, alone.json()["code"]) == (403, "second_person")
    assert site.get("/v1/courses").json()["items"] == []
    approved = site.post(f"{path}/approve", by="rev", match=made.headers["ETag"])
    assert approved.status_code == 200, approved.text
    assert site.post(f"{path}/publish", by="ann", match=made.headers["ETag"]).status_code == 412
    done = site.post(f"{path}/publish", by="ann", match=approved.headers["ETag"])
    assert done.status_code == 200 and done.json()["state"] == "published"

    # a session in the evening, local time
    day = (datetime.now(UTC) + timedelta(days=9)).date()
    values = {
        "series": made.json()["id"], "starts_at": f"{day}T19:00", "ends_at": f"{day}T20:30", "place": "online", "capacity": 5,
        "venue": {"name": [{"language": "zh-Hans", "text": "线上"}]}, "online_link": "https://meet.example/room",
    }  # fmt: skip
    session = site.post("/v1/staff/sessions", values, by="ann")
    assert session.status_code == 201, session.text
    at = session.headers["Location"]
    key = session.json()["id"]
    assert site.get(f"/v1/sessions/{key}").status_code == 404
    assert site.post(f"{at}/publish", by="ann", match=session.headers["ETag"]).status_code == 200

    # what families see
    (course,) = site.get("/v1/courses?division=150603&audience=parent&stage=junior.9&topic=parenting").json()["items"]
    assert (course["title"], course["languages"]) == ("家长学校", ["en", "zh-Hans"])
    assert site.get("/v1/courses", headers={"Accept-Language": "en"}).json()["items"][0]["title"] == "Parent school"
    for nothing in ("division=420100", "audience=student", "stage=junior.7", "topic=fraud"):
        assert site.get(f"/v1/courses?{nothing}").json()["items"] == []
    (listed,) = site.get(f"/v1/sessions?division=150600&from={day}&to={day}&place=online").json()["items"]
    assert listed["starts_at"] == f"{day}T19:00:00+08:00" and listed["series"]["title"] == "家长学校"
    for nothing in (
        "division=420100",
        f"from={day + timedelta(days=1)}",
        f"to={day - timedelta(days=1)}",
        "place=home",
        "series=x",
    ):
        assert site.get(f"/v1/sessions?{nothing}").json()["items"] == []
    whole = site.get(f"/v1/courses/{course['id']}")
    assert [one["id"] for one in whole.json()["sessions"]] == [key]
    assert "meet.example" not in whole.text + site.get(f"/v1/sessions/{key}").text
    assert site.get(f"/v1/sessions/{key}", headers={"If-None-Match": whole.headers["ETag"]}).status_code == 200
    etag = site.get(f"/v1/sessions/{key}").headers["ETag"]
    assert site.get(f"/v1/sessions/{key}", headers={"If-None-Match": etag}).status_code == 304

    # a parent books, twice by one press, and looks
    family = {"seats": 2, "family_name": "欧阳", "phone": "139 1234 5678"}
    first = site.post(f"/v1/sessions/{key}/bookings", family, headers={"Idempotency-Key": KEY})
    again = site.post(f"/v1/sessions/{key}/bookings", family, headers={"Idempotency-Key": KEY})
    assert first.status_code == again.status_code == 201 and first.json() == again.json()
    assert first.headers["Cache-Control"] == "no-store"
    code = first.json()["code"]
    seen = site.get(f"/v1/bookings/{code.lower()}").json()
    (place,) = seen["places"]
    assert (place["state"], place["seats"], place["online_link"]) == ("confirmed", 2, "https://meet.example/room")
    assert "欧阳" not in str(seen) and "1391234" not in str(seen)
    full = site.post(f"/v1/sessions/{key}/bookings", {**family, "seats": 4, "phone": "13800138000"})
    assert (full.status_code, full.json()["code"]) == (409, "full")
    wrong = site.post(f"/v1/sessions/{key}/bookings", {**family, "phone": "13x", "seats": 9, "oops": {"$gt": ""}})
    assert wrong.status_code == 422 and {e["field"] for e in wrong.json()["errors"]} >= {"phone", "seats", "oops"}

    # what staff will read is one line, and holds nobody's number
    for field, said in (("family_name", "欧阳13912345678"), ("needs", "身份证 150603199001011234")):
        refused = site.post(f"/v1/sessions/{key}/bookings", {**family, field: said})
        assert [(e["field"], e["code"]) for e in refused.json()["errors"]] == [(field, "personal_number")]
    wish = registrations.Wish(1, "欧\u202e阳\n娜", "13912345678", needs="轮\u2066椅\x07")
    assert [registrations._contact(wish)[name] for name in ("family_name", "needs")] == ["欧阳 娜", "轮椅"]

    # who sees the names
    entries = site.get(f"{at}/bookings", by="ann").json()["items"]
    assert [(one["family_name"], one["phone"], one["seats"]) for one in entries] == [("欧阳", "+8613912345678", 2)]
    assert site.get(f"{at}/bookings", by="eve").status_code == 404
    assert site.get(f"{at}/bookings", by="rev").status_code == 403
    assert site.get(at, by="eve").status_code == 404
    assert site.call("PATCH", at, by="eve", match='"2"', json={"capacity": 9}).status_code == 404
    assert site.get("/v1/staff/sessions", by="eve").json()["items"] == []
    assert [one["seats_taken"] for one in site.get("/v1/staff/sessions", by="ann").json()["items"]] == [2]
    assert records.history(kind="session", key=key)[0].action == "session.read_bookings"

    # the session moves, and is cancelled after all
    now = site.get(at, by="ann")
    patch = {"starts_at": f"{day}T20:00", "ends_at": f"{day}T21:00"}
    moved = site.call("PATCH", at, by="ann", match=now.headers["ETag"], json=patch)
    assert moved.status_code == 200 and moved.json()["booking_closes_at"] == f"{day}T20:00:00+08:00"
    assert site.get(f"/v1/sessions/{key}").json()["starts_at"] == f"{day}T20:00:00+08:00"
    gone = site.call("DELETE", f"/v1/bookings/{code}")
    (place,) = gone.json()["places"]
    assert (gone.status_code, place["state"], place["online_link"]) == (200, "cancelled", None)
    assert site.call("DELETE", f"/v1/bookings/{code}").json() == gone.json()
    assert site.get(at, by="ann").json()["seats_taken"] == 0
    assert site.post(f"{at}/cancel", by="ann", match=moved.headers["ETag"]).status_code == 200
    assert site.get(f"/v1/sessions/{key}").json()["state"] == "cancelled"
    assert site.post(f"/v1/sessions/{key}/bookings", family).json()["code"] == "closed"
    assert not [one for one in caplog.messages if code in one or "1391234" in one or "欧阳" in one]


def test_what_staff_read_they_can_send_back(site: Site) -> None:
    site.person("ann", "organiser", organisation=federation())
    made = site.post("/v1/staff/courses", body("org1"), by="ann")
    path, extra = made.headers["Location"], {"id", "state", "revision", "approved", "public", "unpublished_changes", "invitation"}
    extra |= {"created_at", "updated_at"}
    same = {name: value for name, value in site.get(path, by="ann").json().items() if name not in extra}
    kept = site.call("PATCH", path, by="ann", match=made.headers["ETag"], json=same)
    assert kept.status_code == 200 and kept.headers["ETag"] == made.headers["ETag"]
    assert site.call("DELETE", path, by="ann", match=made.headers["ETag"]).status_code == 204
    assert site.get(path, by="ann").status_code == 404


# --- what a plan may name ------------------------------------------------------------------------------------------------


def station(key: str, division: str) -> str:
    """An organisation that is no organiser here."""
    return str(records.create(staff.Organisation(id=key, name=f"指导站 {key}", kind="station", division=division), "system").id)


def faults_of(verb: Any, *args: Any, **more: Any) -> list[tuple[str, str]]:
    """(field, code) of what a verb refuses."""
    with pytest.raises(Invalid) as caught:
        verb(*args, **more)
    return [(error.field, error.code) for error in caught.value.errors]


def test_a_session_is_held_at_home_or_near_by(ready: None) -> None:
    near, above, far, beside = (station(*one) for one in (("s1", "150603"), ("s2", "150600"), ("s3", "420100"), ("s4", "150602")))
    made = courses.create_series(SERIES, "ann")
    session = sessions.create_session(made.id, session_values(host=near), "ann")
    for host in (above, "org1", ""):
        assert (sessions.edit_session(session.id, {"host": host}, "ann").host or "") == host
    for host in (far, beside):
        assert faults_of(sessions.create_session, made.id, session_values(host=host), "ann") == [("host", "out_of_range")]
        assert faults_of(sessions.edit_session, session.id, {"host": host}, "ann") == [("host", "out_of_range")]
        common = {**session_values(host=host), "place": "online"}
        days = {"first": f"{datetime.now(UTC).date() + timedelta(9)}T19:00", "minutes": 60, "zone": "Asia/Shanghai"}
        assert faults_of(planning.plan, made.id, days, common, "ann") == [("host", "out_of_range")]
    city = courses.create_series({**SERIES, "division": "150600"}, "ann")
    for host in (near, beside):
        assert sessions.create_session(city.id, session_values(host=host), "ann").host == host
    # what stands is not asked again: the station has moved house
    sessions.edit_session(session.id, {"host": near}, "ann")
    records.change(staff.Organisation, near, "ann", "edit", lambda now: {"division": "420100"})
    assert sessions.edit_session(session.id, {"host": near, "capacity": 11}, "ann").capacity == 11
    assert faults_of(sessions.create_session, made.id, session_values(host=near), "ann") == [("host", "out_of_range")]


def test_what_is_handed_out_is_there(ready: None) -> None:
    facts = {"audiences": ["parent"], "stages": ["junior.9"], "topics": ["emotion"], "kind": "tip"}
    lessons.create("talk", facts, {"zh-Hans": {"title": "听孩子说", "body": "慢慢听。"}}, "ann")
    file = media.Media(id="m1", kind="image", content_type="image/png", bytes=1, state="accepted", sha256="a" * 64)
    records.create(file, "ann")
    good = ["lesson:talk", f"media:{'a' * 64}"]
    bad = {"materials": [*good, "lesson:none", f"media:{'b' * 64}"]}
    made = courses.create_series({**SERIES, "materials": good[1:]}, "ann")
    missing = [("materials", "unknown_reference")] * 2
    assert faults_of(courses.create_series, {**SERIES, **bad}, "ann") == missing
    assert faults_of(courses.edit_series, made.id, bad, "ann") == missing
    assert faults_of(sessions.create_session, made.id, session_values(**bad), "ann") == missing
    courses.publish_series(made.id, "ann", second_person=False)
    draft = sessions.create_session(made.id, session_values(materials=good), "ann")
    other = sessions.publish_session(sessions.create_session(made.id, session_values(), "ann").id, "ann")
    courses.edit_series(made.id, {"materials": good}, "ann")

    # a lesson that is still being written may be planned with; families get none
    closed = [("materials", "incomplete")]
    assert faults_of(sessions.publish_session, draft.id, "ann") == closed
    assert faults_of(sessions.edit_session, other.id, {"materials": good}, "ann") == closed
    assert faults_of(courses.publish_series, made.id, "ann", second_person=False) == closed
    rows = batches.preview([sessions.session(draft.id)], lambda one: True, despite_clashes=True)
    assert [(fault.field, fault.code) for fault in rows[0].faults] == closed
    assert "lesson:talk" in rows[0].faults[0].messages["en"]
    lessons.Lesson.rows().update_one({"slug": "talk"}, {"$set": {"stands.zh-Hans.version": "v"}})
    courses.publish_series(made.id, "ann", second_person=False)
    sessions.publish_session(draft.id, "ann")
    assert sessions.edit_session(other.id, {"materials": good}, "ann").materials == good


def test_one_session_is_published_by_the_rules_of_many(ready: None) -> None:
    made = courses.create_series(SERIES, "ann")
    courses.publish_series(made.id, "ann", second_person=False)
    for values, field in (({"venue": {}}, "venue"), ({"place": "online"}, "online_link")):
        draft = sessions.create_session(made.id, session_values(**values), "ann")
        rows = batches.preview([draft], lambda one: True)
        assert [(fault.field, fault.code) for fault in rows[0].faults] == [(field, "incomplete")]
        assert faults_of(sessions.publish_session, draft.id, "ann") == [(field, "incomplete")]
    good = sessions.publish_session(sessions.create_session(made.id, session_values(), "ann").id, "ann")
    assert faults_of(sessions.edit_session, good.id, {"venue": {}}, "ann") == [("venue", "incomplete")]
    assert faults_of(sessions.edit_session, good.id, {"place": "online"}, "ann") == [("online_link", "incomplete")]
    assert sessions.edit_session(good.id, {"venue": {}, "place": "home"}, "ann").place == "home"

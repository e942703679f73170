"""At the door: several devices, some without a network, check the same families in, and each is counted once."""

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
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from content import attendance, bookings, codes, courses, records, registrations, sealed, sessions, store, waiting
from content.attendance import CheckIn, Item, WalkIn
from content.bookings import Booked, Place
from content.failures import Conflict, Invalid, NotFound, Stale
from content.settings import Settings
from tests.promises.report import Measured
from tests.site import PASSWORD, Clock, Site
from tests.test_courses import SERIES, federation, public, published_session, session_values

HERE = Settings(var=Path(tempfile.mkdtemp()))
HOUR, DAY = 3600, 86400


@pytest.fixture
def ready(clean: None, settings: Settings) -> None:
    """A clean database, and the key that seals."""
    sealed.configure(settings)
    sealed.seal("")
    federation()


def tonight(**more: Any) -> str:
    """Id of a session that starts in two hours: its door is open."""
    start = store.now() + timedelta(hours=2)
    return published_session(starts_at=start, ends_at=start + timedelta(hours=2), **more)


def book(session: str, seats: int = 1, n: int = 0, **more: Any) -> Booked:
    """Book as the n-th family does."""
    return registrations.book(HERE, registrations.Wish(seats, f"王{n}", f"138{n:08d}", session, **more))


def many(session: str, number: int, seats: int = 1) -> list[str]:
    """Ids of the bookings of so many families, put there at once."""
    now, there = store.now(), sessions.session(session)
    owners = [
        {
            "_id": codes.name(codes.new()), "series": there.series, "session": there.id, "seats": seats, "feed": store.new_id(),
            "created_at": now, "seen_at": now, "expires_at": there.ends_at,
        }
        for _ in range(number)
    ]  # fmt: skip
    places = [
        {
            "_id": store.new_id(), "booking": one["_id"], "session": session, "seats": seats, "number": n, "state": "confirmed",
            "history": [], "told": 0, "expires_at": there.ends_at,
        }
        for n, one in enumerate(owners, 1)
    ]  # fmt: skip
    bookings.Booking.rows().insert_many(owners)
    Place.rows().insert_many(places)
    courses.CourseSession.rows().update_one({"_id": session}, {"$inc": {"seats_taken": number * seats, "arrivals": number}})
    return [one["_id"] for one in owners]


def nonce() -> str:
    """As a device makes it."""
    return store.new_id()


def item(booked: Booked, **more: Any) -> Item:
    """One scan of a family's QR code."""
    return Item(more.pop("nonce", "") or nonce(), attendance.booking_of(attendance.token(booked.code)), **more)


def sums(session: str) -> tuple[int, int]:
    """(attended, walk-ins) of the session, found equal to what its places and its rows add up to."""
    there, places = sessions.session(session), list(Place.rows().find({"session": session}))
    rows = list(CheckIn.rows().find({"session": session, "outcome": "in"}))
    assert there.attended == sum(row.get("attended") or 0 for row in places)
    assert there.walk_ins == sum(row["people"] for row in rows if "place" not in row)
    counted = [row["place"] for row in rows if "place" in row]
    assert len(counted) == len(set(counted)) and set(counted) <= {row["_id"] for row in places if row.get("attended")}
    return there.attended, there.walk_ins


def outcomes(results: list[attendance.Result]) -> list[str]:
    """What became of each."""
    return [one.outcome for one in results]


# --- one device ------------------------------------------------------------------------------------------------------


def test_a_token_lets_in_and_opens_nothing(ready: None) -> None:
    session = tonight()
    booked = book(session, 3)
    token = attendance.token(booked.code)
    assert re.fullmatch(r"XQ1:[0-9A-F]{64}", token) and attendance.token(booked.code.lower().replace("-", "")) == token
    for text in (token, token[4:], token.lower()):
        with pytest.raises(NotFound):
            bookings.see(text)
        with pytest.raises(NotFound):
            bookings.feed(text)
    assert attendance.booking_of(f" {token.lower()} ") == attendance.booking_of(token) != ""
    for wrong in ("", "XQ1:", token[:-1], token + "0", token.replace("XQ1", "XQ2"), "https://example.org/b#7K3QX", "\ud800"):
        assert attendance.booking_of(wrong) == ""
    # of its other QR codes the family need know nothing
    loose = f" {booked.code.lower().replace('-', ' ')} ".replace("0", "o")
    for shown in (booked.code, loose, f"https://example.org/b#{booked.code}", f"http://127.0.0.1:8000/b#{loose}\n"):
        assert attendance.booking_of(shown) == attendance.booking_of(token)
    for wrong in (booked.code[:-1], booked.code + "0", f"https://example.org/b#{booked.code}?x", "#"):
        assert attendance.booking_of(wrong) == ""
    done = attendance.upload(session, "ann", [item(booked)])
    assert outcomes(done.items) == ["in"] and (done.items[0].seats, done.items[0].people) == (3, 3)
    assert bookings.see(booked.code).places[0].attended == 3 and sums(session) == (3, 0)


def test_each_reason_is_told_and_none_of_them_counts(ready: None, clock: Clock) -> None:
    session, tomorrow = tonight(capacity=2), published_session()
    here, gone, there = book(session), book(session, n=1), book(tomorrow, n=2)
    waiting.cancel(gone.code)
    book(session, n=3)
    waits = book(session, n=4, wait=True)
    federation("org2")
    series = courses.create_series({**SERIES, "organisation": "org2"}, "eve")
    courses.publish_series(series.id, "eve", second_person=False)
    foreign = sessions.create_session(series.id, session_values(), "eve")
    sessions.publish_session(foreign.id, "eve")
    other = book(foreign.id, n=5)
    asked = [
        item(gone),
        item(there),
        item(other),
        item(waits),
        Item(nonce(), "0" * 64),
        Item(nonce(), place="nothing"),
        Item(nonce()),
    ]
    asked.append(Item(nonce(), place=there.places[0].id))
    done = attendance.upload(session, "ann", asked).items
    told = ["cancelled", "wrong_session", "wrong_session", "not_confirmed", "unknown", "unknown", "unknown", "wrong_session"]
    assert outcomes(done) == told
    assert done[3].state == "waiting" and done[0].state == "cancelled"
    assert [one.elsewhere and one.elsewhere.id for one in done[1:3]] == [tomorrow, None]  # of the other organisation nothing
    assert done[7].elsewhere and done[7].elsewhere.id == tomorrow
    assert sums(session) == (0, 0) and CheckIn.rows().count_documents({}) == 0

    now = store.now()
    early, late = now - timedelta(hours=2), now + timedelta(minutes=6)
    timed = attendance.upload(session, "ann", [item(here, at=early), item(here, at=late)], [WalkIn(nonce(), 2, early)])
    assert outcomes(timed.items) == ["not_yet", "wrong_time"] and outcomes(timed.walk_ins) == ["not_yet"]
    assert outcomes(attendance.upload(tomorrow, "ann", [item(there)], [WalkIn(nonce(), 1)]).items) == ["not_yet"]
    fine = item(here, at=now + timedelta(minutes=4))  # a clock that is a little fast
    assert outcomes(attendance.upload(session, "ann", [fine]).items) == ["in"]

    clock(4 * HOUR + 7 * DAY - 60)  # over since seven days, but for a minute
    sessions.finish(store.now())
    assert sessions.session(session).state == "finished"
    second = Item(nonce(), place=Place.rows().find_one({"session": session, "state": "confirmed", "attended": None})["_id"])
    late_ones = attendance.upload(session, "ann", [second], [WalkIn(nonce(), 3)])
    assert outcomes(late_ones.items + late_ones.walk_ins) == ["in", "in"] and sums(session) == (2, 3)
    clock(120)
    too_late = attendance.upload(session, "ann", [item(waits), fine], [WalkIn(nonce(), 3)], [second.nonce])
    assert outcomes(too_late.items + too_late.walk_ins + too_late.undo) == ["too_late", "in", "too_late", "too_late"]
    assert sums(session) == (2, 3)
    with pytest.raises(NotFound):
        attendance.upload("nothing", "ann")


def test_of_a_cancelled_session_and_of_a_draft_nothing_is_taken(ready: None) -> None:
    session = tonight()
    booked, kept = book(session), nonce()
    assert outcomes(attendance.upload(session, "ann", [item(booked, nonce=kept)]).items) == ["in"]
    sessions.cancel_session(session, "ann")
    done = attendance.upload(session, "ann", [item(booked), item(booked, nonce=kept)], [WalkIn(nonce(), 1)])
    assert outcomes(done.items) == ["session_cancelled", "in"]  # what was answered once is answered again
    assert outcomes(done.walk_ins) == ["session_cancelled"] and sums(session) == (1, 0)
    draft = sessions.create_session(sessions.session(session).series, session_values(), "ann")
    for call in (lambda: attendance.upload(draft.id, "ann"), lambda: attendance.door(draft.id, "ann")):
        with pytest.raises(Conflict):
            call()


def test_a_nonce_counts_once_and_what_it_was_used_for_stays(ready: None) -> None:
    session = tonight()
    one, two, walk = book(session, 2), book(session, 1, 1), WalkIn(nonce(), 5)
    first = item(one, seats=1)
    for _ in range(3):
        done = attendance.upload(session, "ann", [first, first], [walk, walk])
        assert outcomes(done.items + done.walk_ins) == ["in"] * 4 and (done.attended, done.people) == (1, 5)
    done = attendance.upload(
        session, "ann", [item(two, nonce=first.nonce), item(two, nonce=walk.nonce), Item(walk.nonce, "0" * 64)],
        [WalkIn(first.nonce, 2), WalkIn(walk.nonce, 9)],
    )  # fmt: skip
    assert outcomes(done.items + done.walk_ins) == ["nonce_used"] * 4 + ["in"] and done.walk_ins[1].people == 5
    assert sums(session) == (1, 5)
    other = tonight()  # another session's nonces are others
    assert outcomes(attendance.upload(other, "ann", [], [walk]).walk_ins) == ["in"] and sums(other) == (0, 5)
    assert attendance.upload(session, "ann", [item(two, seats=4)]).items[0].people == 1  # more than are booked: those booked
    assert sums(session) == (2, 5)


def test_a_mistake_is_undone_before_or_after_it_arrives(ready: None) -> None:
    session = tonight()
    one, two = book(session, 3), book(session, 2, 1)
    wrong, right, walk, never = item(one), item(one, seats=2), WalkIn(nonce(), 4), item(two)
    attendance.upload(session, "ann", [wrong], [walk])
    assert outcomes(attendance.upload(session, "bob", [right]).items) == ["already_in"] and sums(session) == (3, 4)
    for _ in range(2):
        done = attendance.upload(session, "ann", [wrong, never], [walk], [wrong.nonce, walk.nonce, never.nonce])
        assert outcomes(done.undo + done.items + done.walk_ins) == ["undone"] * 6
        assert sums(session) == (2, 0)  # Bob has them in all the same, and said two
    assert outcomes(attendance.upload(session, "bob", [right]).items) == ["in"]
    done = attendance.upload(session, "bob", [item(one, seats=1)], undo=[right.nonce])  # a correction without a network
    assert outcomes(done.items) == ["in"] and sums(session) == (1, 0)
    assert Place.rows().count_documents({"booking": attendance.booking_of(attendance.token(two.code)), "attended": None}) == 1


def test_staff_set_how_many_of_a_family_came(ready: None, clock: Clock) -> None:
    session = tonight()
    booked = book(session, 3)
    place, first, again = booked.places[0].id, item(booked, seats=1), item(booked)
    attendance.upload(session, "ann", [first, again])
    for seats, outcome in ((3, "in"), (3, "in"), (2, "in"), (0, "undone"), (0, "undone")):  # late ones, a repeat, a mistake
        done = attendance.attend(session, place, seats, "bob")
        assert (done.outcome, done.people) == (outcome, seats or None) and sums(session) == (seats, 0)
    assert outcomes(attendance.upload(session, "ann", [first, again]).items) == ["undone"] * 2
    attendance.attend(session, place, 2, "bob")
    assert outcomes(attendance.upload(session, "ann", [item(booked)]).items) == ["already_in"] and sums(session) == (2, 0)
    lines = [row for row in records.history(kind="session", key=session) if row.action == "session.correct_attendance"]
    assert [(row.actor, row.before, row.after, row.note) for row in lines][1:] == [
        ("bob", {"attended": 2}, {"attended": 0}, "place 1"),
        ("bob", {"attended": 3}, {"attended": 2}, "place 1"),
        ("bob", {"attended": 1}, {"attended": 3}, "place 1"),
    ]
    with pytest.raises(Invalid):
        attendance.attend(session, place, 4, "bob")
    with pytest.raises(NotFound):
        attendance.attend(tonight(), place, 1, "bob")
    clock(12 * DAY)
    with pytest.raises(Conflict):
        attendance.attend(session, place, 1, "bob")


def test_the_organisers_own_count(ready: None, clock: Clock) -> None:
    session = tonight()
    with pytest.raises(Conflict):  # nobody is there yet
        attendance.put_headcount(session, 7, "ann")
    before = public("session", session)
    clock(3 * HOUR)
    present = sessions.session(session)
    done = attendance.put_headcount(session, 7, "ann", present.revision)
    assert done.headcount == 7 and done.revision == present.revision + 1
    with pytest.raises(Stale):
        attendance.put_headcount(session, 8, "bob", present.revision)
    assert attendance.put_headcount(session, 7, "bob", done.revision).revision == done.revision
    clock(2 * HOUR)
    sessions.finish(store.now())
    assert attendance.put_headcount(session, None, "ann").headcount is None
    after = public("session", session)
    moved = {"state", "sequence", "updated_at"}  # by its end, and by the organiser's count along with it; nothing else is public
    assert (
        before
        and after
        and {k: v for k, v in after.items() if k not in moved} == {k: v for k, v in before.items() if k not in moved}
    )
    with pytest.raises(Invalid):
        attendance.put_headcount(session, -1, "ann")
    clock(8 * DAY)
    with pytest.raises(Conflict):
        attendance.put_headcount(session, 3, "ann")


def test_the_list_names_whom_it_must_and_nobody_else(ready: None) -> None:
    start = store.now() + timedelta(hours=2)
    session = tonight()
    parent = sessions.session(session).series
    next_one = sessions.create_session(parent, session_values(starts_at=start, ends_at=start + timedelta(hours=1)), "ann").id
    sessions.publish_session(next_one, "ann")
    whole = registrations.book(HERE, registrations.Wish(2, "欧阳", "13912345678", series=parent))
    waiting.leave(whole.code, session)
    for key, name, state in ((session, "", "cancelled"), (next_one, "欧阳", "confirmed")):
        found = attendance.door(key, "ann")
        assert [(one.family_name, one.state, one.token) for one in found.guests] == [(name, state, attendance.token(whole.code))]
        assert "13912345678" not in str(found.guests)
        (line,) = [row for row in records.history(kind="session", key=key) if row.action == "session.read_door"]
        assert (line.actor, line.note) == ("ann", "1 places")


# --- several devices -------------------------------------------------------------------------------------------------


def test_four_devices_send_the_same_hundred_at_once(ready: None) -> None:
    session = tonight(capacity=300)
    families = many(session, 100, 2)
    same = [Item(nonce(), one) for one in families]  # a list that was copied from device to device
    own = [Item(nonce(), one) for one in families]  # and what one of them scanned itself
    walks = [WalkIn(nonce(), 3) for _ in range(10)]
    start = Barrier(4)

    def device(n: int) -> list[str]:
        start.wait()
        return outcomes(attendance.upload(session, f"staff{n}", same if n else own, walks).items)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(device, range(4)))
    assert sums(session) == (200, 30)
    assert CheckIn.rows().count_documents({"session": session, "outcome": "in", "place": {"$exists": True}}) == 100
    assert answers[1] == answers[2] == answers[3]  # one nonce, one answer, whoever sent it
    assert {*zip(answers[0], answers[1], strict=True)} <= {("in", "already_in"), ("already_in", "in")}


def test_undone_at_the_moment_when_another_scans_it(ready: None) -> None:
    session = tonight(capacity=100)
    families = many(session, 6)
    firsts = [Item(nonce(), one) for one in families]
    attendance.upload(session, "ann", firsts)
    start = Barrier(4)

    def device(n: int) -> None:
        for k, one in enumerate(families):
            start.wait()
            if n == 0:
                attendance.upload(session, "ann", undo=[firsts[k].nonce])
            else:
                attendance.upload(session, "bob", [Item(nonce(), one)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(device, range(4)))
    assert sums(session) == (6, 0)  # Ann took hers back, the others stand


NOTES = st.lists(
    st.tuples(st.sampled_from(["scan", "undo", "walk", "cut"]), st.integers(0, 8)), min_size=4, max_size=30
)  # what is noted, the nonce; a cut begins another upload


@given(NOTES)
@hypothesis(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_counts_follows_from_what_was_noted_and_not_from_its_order(ready: None, notes: list[tuple[str, int]]) -> None:
    session = tonight()
    families = many(session, 3, 2)
    kept = [nonce() for _ in range(9)]
    scans = [Item(kept[n], families[n % 3]) for n in range(9)]  # three devices scan three families each
    walks = [WalkIn(nonce(), n + 1) for n in range(9)]

    def send(some: list[tuple[str, int]]) -> None:
        attendance.upload(
            session, "ann", [scans[n] for what, n in some if what == "scan"], [walks[n] for what, n in some if what == "walk"],
            [(kept if n < 6 else [w.nonce for w in walks])[n] for what, n in some if what == "undo"],
        )  # fmt: skip
        sums(session)

    uploads: list[list[tuple[str, int]]] = [[]]
    for note in notes:
        if note[0] == "cut":
            uploads.append([])
        else:
            uploads[-1].append(note)
    for some in (*uploads, *uploads[::-1], [note for note in notes if note[0] != "cut"]):  # twice, the other way round, at once
        send(some)
    undone = {n for what, n in notes if what == "undo"}
    came = {n % 3 for what, n in notes if what == "scan" and (n not in undone or n >= 6)}
    walked = {n for what, n in notes if what == "walk" and (n not in undone or n < 6)}
    assert sums(session) == (2 * len(came), sum(n + 1 for n in walked))


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_an_evening_at_the_door_with_three_devices(site: Site, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sealed.seal("")
    own, other = federation("org1"), federation("org2")
    site.person("ann", "organiser", organisation=own)
    site.person("bob", "organiser", organisation=own)
    site.person("rev", "reviewer", division="150600")
    site.person("eve", "organiser", organisation=other)
    session, later = tonight(capacity=9), published_session()
    at = f"/v1/staff/sessions/{session}"
    site.refresh()
    families = []
    for n, seats in enumerate((2, 3, 4, 1)):
        wish = {"seats": seats, "family_name": f"欧阳{n}", "phone": f"1391234567{n}", "wait": True}
        families.append(site.post(f"/v1/sessions/{session}/bookings", wish).json())
    there = site.post(f"/v1/sessions/{later}/bookings", {"family_name": "李", "phone": "13800138000"}).json()
    assert [one["places"][0]["state"] for one in families] == ["confirmed"] * 3 + ["waiting"]

    # what the family shows
    qr = site.get(f"/v1/bookings/{families[0]['code']}/check-in.svg")
    assert (qr.status_code, qr.headers["Content-Type"], qr.headers["Cache-Control"]) == (
        200,
        "image/svg+xml",
        "no-store",
    )
    assert qr.text.startswith("<svg") and families[0]["code"] not in qr.text
    assert site.get("/v1/bookings/00000-00000-00000/check-in.svg").status_code == 404
    tokens = [one["check_in"] for one in families]
    assert site.get(f"/v1/bookings/{tokens[0]}").status_code == 404

    # what a device takes along
    door = site.get(f"{at}/door", by="ann")
    assert door.status_code == 200, door.text
    listed = door.json()["items"]
    assert [(one["family_name"], one["seats"], one["state"]) for one in listed[2:]] == [
        ("欧阳2", 4, "confirmed"),
        ("欧阳3", 1, "waiting"),
    ]
    assert [one["token"] for one in listed] == tokens and "1391234" not in door.text
    opens, starts = (datetime.fromisoformat(door.json()[name]) for name in ("opens_at", "starts_at"))
    assert starts - opens == timedelta(hours=3) and door.json()["state"] == "published"

    # device A has a network, B and C have none until the session is over; B scanned what A did, C sends twice, out of order
    def send(by: str, **body: Any) -> Any:
        reply = site.post(f"{at}/check-ins", body, by=by)
        assert reply.status_code == 200, reply.text
        return reply.json()

    moment = store.now().astimezone().isoformat()
    a = send("ann", items=[{"nonce": "a" * 16, "token": tokens[0]}], walk_ins=[{"nonce": "w" * 16, "people": 2}])
    assert (a["items"][0]["outcome"], a["items"][0]["people"], a["totals"]) == (
        "in",
        2,
        {"attended": 2, "walk_ins": 2, "came": 4},
    )
    assert a["items"][0]["text"].startswith("已签到")
    clock(5 * HOUR)
    assert sessions.finish(store.now()) == 1
    for name in ("ann", "bob", "rev", "eve"):
        signed = site.post("/v1/staff/session", {"name": name, "password": PASSWORD})
        site.tokens[name] = signed.json()["access_token"]
    b = [
        {"nonce": "b" * 16, "token": tokens[0], "at": moment},
        {"nonce": "c" * 16, "code": families[1]["code"].lower(), "seats": 2, "at": moment},
        {"nonce": "d" * 16, "token": tokens[3], "at": moment},
        {"nonce": "e" * 16, "token": there["check_in"], "at": moment},
        {"nonce": "f" * 16, "token": "https://example.org/some-other-qr"},
    ]
    done = send("bob", items=b)
    assert outcomes_of(done) == ["already_in", "in", "not_confirmed", "wrong_session", "unknown"]
    assert done["items"][3]["elsewhere"]["id"] == later and done["items"][3]["elsewhere"]["title"] == "家长学校"
    assert done["items"][0]["elsewhere"] is None and done["items"][4]["place"] is None
    c = [{"nonce": "h" * 16, "place": listed[2]["place"], "at": moment}, {"nonce": "g" * 16, "token": tokens[1], "at": moment}]
    for order in (c, c[::-1]):
        done = send("bob", items=order, walk_ins=[{"nonce": "v" * 16, "people": 1}])
        assert sorted(outcomes_of(done)) == ["already_in", "in"] and done["totals"] == {"attended": 8, "walk_ins": 3, "came": 11}
    assert send("bob", items=b)["totals"]["attended"] == 8
    english = site.post(f"{at}/check-ins", {"items": b[4:]}, by="bob", headers={"Accept-Language": "en"}).json()
    assert english["items"][0]["text"].startswith("No such booking")

    # put right
    place = f"{at}/bookings/{listed[1]['place']}/attended"
    assert site.call("PUT", place, by="ann", json={"seats": 3}).json()["people"] == 3
    assert site.call("PUT", place, by="ann", json={"seats": 4}).status_code == 422
    assert send("ann", undo=["w" * 16])["totals"]["walk_ins"] == 1
    shown = site.get(at, by="ann")
    assert (shown.json()["attended"], shown.json()["walk_ins"], shown.json()["headcount"]) == (9, 1, None)
    assert site.call("PUT", f"{at}/headcount", by="ann", json={"headcount": 11}).status_code == 428
    counted = site.call("PUT", f"{at}/headcount", by="ann", match=shown.headers["ETag"], json={"headcount": 11})
    assert (counted.status_code, counted.json()["headcount"]) == (200, 11)
    assert site.call("PUT", f"{at}/headcount", by="bob", match=shown.headers["ETag"], json={"headcount": 12}).status_code == 412

    # what the family sees; who may; what stays out of sight
    assert site.get(f"/v1/bookings/{families[1]['code']}").json()["places"][0]["attended"] == 3
    for path, method, body in (
        ("door", "GET", None), ("check-ins", "POST", {}), ("headcount", "PUT", {"headcount": 1}),
        (f"bookings/{listed[1]['place']}/attended", "PUT", {"seats": 1}),
    ):  # fmt: skip
        told = [site.call(method, f"{at}/{path}", by=by, match='"1"', json=body).status_code for by in ("eve", "rev")]
        assert told == [404, 403], path
        assert site.call(method, f"{at}/{path}", match='"1"', json=body).status_code == 401
    trail = [row for row in records.history(kind="session", key=session) if row.action != "session.create"]
    assert {"session.read_door", "session.check_in", "session.headcount"} <= {row.action for row in trail}
    db = store.database()
    dump = b"".join(
        encode(row, codec_options=db.codec_options) for name in db.list_collection_names() for row in db[name].find({})
    )
    for secret in (*(one["code"] for one in families), "1391234567", "欧阳", "a" * 16, tokens[0]):
        assert secret.encode() not in dump and not [one for one in caplog.messages if secret in one], secret
    assert not [
        name for row in CheckIn.rows().find({}) for name in row if isinstance(row[name], datetime) and name != "expires_at"
    ]


def outcomes_of(answer: dict[str, Any]) -> list[str]:
    """Of the items."""
    return [one["outcome"] for one in answer["items"]]


def test_one_malformed_note_keeps_no_other_back(site: Site) -> None:
    sealed.seal("")
    site.person("ann", "organiser", organisation=federation())
    session = tonight()
    path, good = f"/v1/staff/sessions/{session}/check-ins", {"nonce": "n" * 16, "token": "x"}
    items: list[tuple[Any, str]] = [
        ({**good, "nonce": "short"}, "nonce"),
        ({**good, "nonce": None}, "nonce"),
        ({"nonce": "n" * 16}, "token, place, code"),
        ({**good, "place": "x"}, "token, place, code"),
        ({**good, "seats": 5}, "seats"),
        ({**good, "at": "tonight"}, "at"),
        ({**good, "phone": "x", "seats": 0}, "phone, seats"),
        ("text", "nonce"),
    ]
    counted, booked = {"nonce": "w" * 16, "people": 3}, book(session, 2)
    rows = [one for pair in items for one in (pair[0], {"nonce": nonce(), "code": booked.code})]
    body = {"items": rows, "walk_ins": [{"nonce": "v" * 16, "people": 0}, counted, 7], "undo": ["$" * 16, "u" * 16]}
    reply = site.post(path, body, by="ann", headers={"Accept-Language": "en"})
    assert reply.status_code == 200, reply.text
    told = reply.json()
    assert outcomes_of(told) == ["malformed", "in"] + ["malformed", "already_in"] * 7
    for (_, fields), row in zip(items, told["items"][::2], strict=True):
        assert row["text"].endswith(f": {fields}."), row
    assert [row["nonce"] for row in told["items"][:4:2]] == ["short", ""] and sums(session) == (2, 3)
    assert [row["outcome"] for row in told["walk_ins"] + told["undo"]] == ["malformed", "in", "malformed", "malformed", "undone"]
    assert told["totals"] == {"attended": 2, "walk_ins": 3, "came": 5}


def test_the_host_has_the_door_and_no_telephone(site: Site) -> None:
    sealed.seal("")
    federation()
    federation("school")
    for name, home in (("ann", "org1"), ("door", "school")):
        site.person(name, "organiser", organisation=home)
    session = tonight(host="school")
    place = book(session, 2).places[0].id
    at = f"/v1/staff/sessions/{session}"
    seen = site.get(f"{at}/door", by="door")
    assert seen.json()["items"][0]["family_name"] == "王0" and "13800000000" not in seen.text
    [scanned] = site.post(f"{at}/check-ins", {"items": [{"nonce": "n" * 16, "place": place}]}, by="door").json()["items"]
    assert scanned["outcome"] == "in"
    assert site.call("PUT", f"{at}/bookings/{place}/attended", by="door", json={"seats": 1}).json()["people"] == 1
    early = site.call("PUT", f"{at}/headcount", by="door", match=seen.headers["ETag"], json={"headcount": 1})
    assert early.json()["code"] == "wrong_state"  # let in, and it has not begun
    # whom it is hosting stays the organiser's: no list, no calls, nothing to decide
    for method, path in (("GET", "bookings"), ("GET", "calls"), ("POST", f"calls/{place}"), ("POST", f"bookings/{place}/approve"),
                         ("POST", f"bookings/{place}/give")):  # fmt: skip
        told = site.call(method, f"{at}/{path}", by="door", json={"outcome": "reached"} if path.startswith("calls/") else None)
        assert told.status_code == 404, (path, told.text)
    elsewhere = book(published_session(), n=1)  # the organiser's other session
    [row] = site.post(f"{at}/check-ins", {"items": [{"nonce": "m" * 16, "code": elsewhere.code}]}, by="door").json()["items"]
    assert (row["outcome"], row["elsewhere"]) == ("wrong_session", None)
    assert site.get(f"/v1/staff/sessions/{tonight()}/door", by="door").status_code == 404  # hosted by nobody


def test_an_upload_that_is_no_upload_is_refused_by_field(site: Site) -> None:
    sealed.seal("")
    site.person("ann", "organiser", organisation=federation())
    path, good = f"/v1/staff/sessions/{tonight()}/check-ins", {"nonce": "n" * 16, "token": "x"}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"items": [good] * 501}, "items"),
        ({"items": "text"}, "items"),
        ({"phone": "13800138000"}, "phone"),
    ]
    for body, field in bad:
        reply = site.post(path, body, by="ann")
        assert (reply.status_code, [one["field"] for one in reply.json()["errors"]]) == (422, [field]), reply.text
    whole = {"items": [{**good, "nonce": f"nonce-{n:011d}"} for n in range(500)]}
    assert {one["outcome"] for one in site.post(path, whole, by="ann").json()["items"]} == {"unknown"}


@pytest.mark.slow
def test_five_hundred_at_once_stay_within_a_requests_patience(
    ready: None, mongo_uri: str, database: str, measured: Measured
) -> None:
    session = tonight(capacity=3000)
    families = many(session, 500, 2)
    store.connect(Settings(mongodb_uri=mongo_uri, database=database), store.REQUEST_PATIENCE)  # as the service does
    items, walks = [Item(nonce(), one) for one in families], [WalkIn(nonce(), 1) for _ in range(500)]
    assert attendance.upload(session, "ann", items[:200]).attended == 400  # as far as one came that was cut
    began = datetime.now(UTC)
    done = attendance.upload(session, "ann", items, walks)
    took = (datetime.now(UTC) - began).total_seconds()
    assert (done.attended, done.people) == sums(session) == (1000, 500)
    measured(8, f"500 check-ins, 200 of them known, and 500 walk-ins in one upload: {took:.2f} s")
    assert took < 15

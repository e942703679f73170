"""The waiting list: arrival decides, offers end in waking hours, and what a family holds is never more than there are seats.

`World` walks through everything that can happen to the places of one session and holds it against a small model of its own."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from api import bookings as bookings_api
from content import bookings, courses, reaching, records, registrations, sealed, sessions, store, waiting, waking
from content.bookings import ACTIVE, HELD, Booked, Place
from content.failures import Conflict, Invalid, NotFound
from content.settings import Settings
from tests.site import Clock, Site
from tests.test_courses import federation, published_session, session_values

HERE = Settings(var=Path(tempfile.mkdtemp()))
DAY = 86400


@pytest.fixture
def ready(clean: None, settings: Settings) -> None:
    """A clean database, and the key that seals."""
    sealed.configure(settings)
    sealed.seal("")
    federation()


def book(session: str, seats: int = 1, phone: str = "13800138000", **more: Any) -> Booked:
    """Book as a family does, willing to wait."""
    return registrations.book(HERE, registrations.Wish(seats, "王", phone, **{"wait": True, "session": session, **more}))


def phones() -> Iterator[str]:
    """Telephone numbers of many families."""
    return (f"139{n:08d}" for n in range(10**8))


def state(booked: Booked) -> str:
    """The state of a booking's one place, as it now is."""
    (place,) = bookings.see(booked.code).places
    return place.state


def counters(session: str) -> tuple[int, int]:
    """Seats taken and places that wait, counted from the places, and found equal to what stands on the session."""
    rows = list(Place.rows().find({"session": session}))
    taken = sum(row["seats"] for row in rows if row["state"] in HELD)
    waits = sum(row["state"] == "waiting" for row in rows)
    there = sessions.session(session)
    assert (there.seats_taken, there.waiting, there.arrivals) == (taken, waits, len(rows))
    assert sorted(row["number"] for row in rows) == list(range(1, len(rows) + 1))
    assert taken <= there.capacity
    return taken, waits


def test_who_comes_late_waits_and_is_offered_in_the_order_of_arrival(ready: None, clock: Clock) -> None:
    session, family = published_session(capacity=3), phones()
    first = book(session, 3, next(family))
    second, third, fourth = (book(session, n, next(family)) for n in (2, 1, 1))
    assert [state(one) for one in (first, second, third, fourth)] == ["confirmed", "waiting", "waiting", "waiting"]
    assert [one.places[0].ahead for one in (second, third, fourth)] == [0, 1, 2]
    with pytest.raises(Conflict) as caught:  # a seat that is free is not for who comes later
        book(session, 1, next(family), wait=False)
    assert caught.value.code == "full"
    waiting.change(first.code, seats=2)  # one seat is free, the first in line wants two: nobody is passed over
    assert [state(one) for one in (second, third, fourth)] == ["waiting"] * 3 and counters(session) == (2, 3)
    waiting.cancel(first.code)
    assert [state(one) for one in (second, third, fourth)] == ["offered", "offered", "waiting"] and counters(session) == (3, 1)
    waiting.accept(second.code, session)
    assert waiting.accept(second.code, session).places[0].state == "confirmed"
    waiting.decline(third.code, session)
    assert [state(one) for one in (second, third, fourth)] == ["confirmed", "declined", "offered"]
    with pytest.raises(Conflict) as caught:
        waiting.accept(third.code, session)
    assert caught.value.code == "offer_over"
    assert not reaching.Booking.rows().find_one({"_id": bookings.opened(third.code)["_id"]}).keys() & {"contact", "phone_blind"}


def test_an_offer_lasts_twelve_waking_hours_and_then_goes_to_the_next(ready: None, clock: Clock) -> None:
    session, family = published_session(capacity=1), phones()
    first, second, third = (book(session, 1, next(family)) for _ in range(3))
    waiting.cancel(first.code)
    (offer,) = bookings.see(second.code).places
    assert offer.offered_until == waking.after(offer.history[-1]["at"], 12, "Asia/Shanghai")
    assert waiting.expire(store.now()) == 0 and offer.offered_until
    clock((offer.offered_until - store.now()).total_seconds() + 1)
    with pytest.raises(Conflict):  # also before the worker has come round
        waiting.accept(second.code, session)
    assert (waiting.expire(store.now()), waiting.expire(store.now())) == (1, 0)
    assert [state(one) for one in (second, third)] == ["expired", "offered"] and counters(session) == (1, 0)


SPAN = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31))  # noqa: DTZ001  (read as UTC)


@given(SPAN, st.integers(1, 30 * 12), st.sampled_from(["Asia/Shanghai", "Asia/Urumqi", "Europe/Berlin"]))
@settings(max_examples=60, deadline=None)
def test_waking_hours_are_counted_step_by_step(start: datetime, steps: int, zone: str) -> None:
    at, left = start.replace(minute=start.minute // 5 * 5, second=0, microsecond=0, tzinfo=UTC), steps
    end = waking.after(at, steps / 12, zone)
    while left:  # five minutes a step
        left -= waking.quiet_until(at, zone) is None
        at += timedelta(minutes=5)
    assert end == at


def test_on_the_last_day_staff_call_down_the_list(ready: None, clock: Clock) -> None:
    session, family = published_session(capacity=2), phones()
    first = book(session, 2, next(family))
    second, third = book(session, 1, next(family)), book(session, 2, next(family))
    place = bookings.see(third.code).places[0].id
    with pytest.raises(Conflict) as caught:
        waiting.give(session, place, "ann")
    assert caught.value.code == "too_early" and reaching.calls(session, "ann") == []
    clock(6 * DAY + 3600)
    waiting.cancel(first.code)
    assert [state(one) for one in (second, third)] == ["waiting", "waiting"]
    calls = reaching.calls(session, "ann")
    assert [(one.number, one.seats, one.why, one.phone) for one in calls] == [
        (2, 1, "waiting", "+8613900000001"), (3, 2, "waiting", "+8613900000002"),
    ]  # fmt: skip
    reaching.called(session, calls[0].place, "no_answer", "ann")
    waiting.give(session, place, "ann")
    assert state(third) == "confirmed" and counters(session) == (2, 1)
    with pytest.raises(Conflict) as caught:
        waiting.give(session, calls[0].place, "ann")
    assert caught.value.code == "full"
    told = [
        message.kind for held in bookings.see(third.code).places for message in reaching.messages(held, store.now(), {"en": "A"})
    ]
    assert told == ["given"]
    lines = [(row.action, row.note) for row in records.history(kind="session", key=session) if row.actor == "ann"]
    assert ("session.called", "place 2: no_answer") in lines and ("session.give_seats", "place 3") in lines
    assert "1390000000" not in str(list(records.Audit.rows().find({})))


def test_a_series_is_booked_as_a_whole(ready: None) -> None:
    one = published_session(capacity=1)
    series = sessions.session(one).series
    keys = [one]
    for n in (1, 2):
        later = session_values(capacity=5)
        moved = {name: later[name] + timedelta(days=7 * n) for name in ("starts_at", "ends_at")}
        made = sessions.create_session(series, {**later, **moved}, "ann")
        keys.append(sessions.publish_session(made.id, "ann").id)
    family = phones()
    book(one, 1, next(family))
    waits = book("", 2, next(family), series=series, wait=False)
    assert [(held.session.id, held.state) for held in waits.places] == [(keys[1], "confirmed"), (keys[2], "confirmed")]
    whole = book("", 1, next(family), series=series)
    assert [held.state for held in whole.places] == ["waiting", "confirmed", "confirmed"]
    raw = bookings.opened(whole.code)
    assert raw["expires_at"] == sessions.session(keys[2]).ends_at + bookings.KEEP
    left = waiting.leave(whole.code, keys[1])
    assert [held.state for held in left.places] == ["waiting", "cancelled", "confirmed"] and bookings.opened(whole.code)[
        "contact"
    ]
    sessions.cancel_session(keys[2], "ann")
    assert waiting.cancel(whole.code).places[0].state == "cancelled" and "contact" not in bookings.opened(whole.code)
    with pytest.raises(Conflict):
        sessions.cancel_session(keys[2], "ann")
    with pytest.raises(NotFound):
        book("", 1, next(family), series="nothing")


def test_questions_and_approval(ready: None) -> None:
    session = published_session(capacity=2)
    question = {
        "code": "grade", "text": {"zh-Hans": "孩子几年级？"}, "required": True,
        "options": [{"code": "g9", "text": {"zh-Hans": "初三"}}, {"code": "g8", "text": {"zh-Hans": "初二"}}],
    }  # fmt: skip
    series = sessions.session(session).series
    courses.edit_series(series, {"approval": True, "questions": [question]}, "ann")
    courses.publish_series(series, "ann", second_person=False)
    family = phones()
    for answers, code in (({}, "required"), ({"grade": "g7"}, "not_one_of"), ({"grade": "g9", "more": "x"}, "unknown_field")):
        with pytest.raises(Exception) as caught:
            book(session, 1, next(family), answers=answers)
        assert [error.code for error in caught.value.errors] == [code]  # type: ignore[attr-defined]
    asked = [book(session, 1, next(family), answers={"grade": "g9"}, needs="轮椅") for _ in range(2)]
    waits = book(session, 1, next(family), answers={"grade": "g8"})
    assert [state(one) for one in (*asked, waits)] == ["requested", "requested", "waiting"]
    yes, no = (bookings.see(one.code).places[0].id for one in asked)
    entry = bookings.register(session, "ann")[0]
    assert (entry.needs, entry.answers, entry.state) == ("轮椅", {"grade": "g9"}, "requested")
    waiting.approve(session, yes, "ann")
    waiting.refuse(session, no, "ann", "名额留给本校家庭")
    assert [state(one) for one in (*asked, waits)] == ["confirmed", "refused", "offered"] and counters(session) == (2, 0)
    for verb in (waiting.approve, waiting.refuse):
        with pytest.raises(Conflict):
            verb(session, no, "ann")


def test_what_is_booked_is_what_readers_were_told(ready: None) -> None:
    session, family = published_session(capacity=1), phones()
    series = sessions.session(session).series
    courses.edit_series(series, {"approval": True}, "ann")
    first = book(session, 1, next(family))
    assert state(first) == "confirmed"  # nobody has published the edit yet
    courses.publish_series(series, "ann", second_person=False)
    second = book(session, 1, next(family))
    waiting.cancel(first.code)
    assert waiting.accept(second.code, session).places[0].state == "requested" and counters(session) == (1, 0)


def test_more_seats_and_very_many_seats_want_the_organisers_word(ready: None, site: Site) -> None:
    session, family = published_session(capacity=200), phones()
    series = sessions.session(session).series
    courses.edit_series(series, {"approval": True}, "ann")
    courses.publish_series(series, "ann", second_person=False)
    asked = book(session, 1, next(family))
    waiting.approve(session, asked.places[0].id, "ann")
    assert waiting.change(asked.code, seats=3).places[0].state == "requested" and counters(session) == (3, 0)
    courses.edit_series(series, {"approval": False}, "ann")
    courses.publish_series(series, "ann", second_person=False)
    site.refresh()
    states = []
    for _ in range(30):  # one address, made-up telephones
        sent = {"family_name": "王", "phone": next(family), "seats": 4}
        states += [place["state"] for place in site.post(f"/v1/sessions/{session}/bookings", sent).json()["places"]]
    sure = bookings_api.MOST_OF_AN_ADDRESS // site.settings.workers // 4
    assert states == ["confirmed"] * sure + ["requested"] * (30 - sure)
    made_up = bookings.register(session, "ann")[1]
    waiting.refuse(session, made_up.place, "ann")
    assert counters(session) == (3 + 116, 0)


def test_a_published_session_is_not_moved_into_the_past(ready: None) -> None:
    session = published_session()
    book(session)
    past = store.now() - timedelta(days=300)
    with pytest.raises(Invalid):
        sessions.edit_session(session, {"starts_at": past}, "ann")
    assert (sessions.finish(store.now()), bookings.purge(store.now())) == (0, 0)


def test_a_whole_booking_is_kept_for_its_own_sessions_only(ready: None, clock: Clock) -> None:
    first = published_session(capacity=5)
    series, values = sessions.session(first).series, session_values(capacity=5)
    later = [values["starts_at"] + timedelta(days=30 * n) for n in (1, 2)]
    ends = {"ends_at": later[0] + timedelta(hours=1)}
    second = sessions.publish_session(
        sessions.create_session(series, {**values, "starts_at": later[0], **ends}, "ann").id, "ann"
    ).id
    booked = book("", 1, series=series)
    ends = {"ends_at": later[1] + timedelta(hours=1)}
    sessions.publish_session(sessions.create_session(series, {**values, "starts_at": later[1], **ends}, "ann").id, "ann")
    sessions.edit_session(second, {"starts_at": later[0] + timedelta(days=1)}, "ann")
    assert bookings.opened(booked.code)["expires_at"] == sessions.session(second).ends_at + bookings.KEEP
    waiting.leave(booked.code, second)
    assert bookings.opened(booked.code)["expires_at"] == sessions.session(first).ends_at + bookings.KEEP
    assert {row["expires_at"] for row in Place.rows().find({})} == {sessions.session(first).ends_at + bookings.KEEP}


def test_who_was_not_reached_is_called_again(ready: None, clock: Clock) -> None:
    session, family = published_session(capacity=1), phones()
    first, second, third = (book(session, 1, next(family)) for _ in range(3))
    clock(60)
    waiting.cancel(first.code)
    (call,) = reaching.calls(session, "ann")
    reaching.called(session, call.place, "no_answer", "ann")
    assert [one.why for one in reaching.calls(session, "ann")] == ["offered"]
    clock(60)
    sessions.cancel_session(session, "ann")
    clock(10 * DAY)
    waiting.expire(store.now())
    with pytest.raises(Conflict) as caught:
        waiting.accept(second.code, session)
    assert caught.value.code == "offer_over"
    for one in (second, third):
        (held,) = reaching.look(one.code).places
        assert [m.kind for m in reaching.messages(held, store.now(), {"en": "A"})] == ["cancelled"]


def test_events_are_numbered_on(ready: None) -> None:
    session = published_session()
    for n in range(25):
        sessions.edit_session(session, {"venue": {"name": {"zh-Hans": f"{n} 号教室"}}}, "ann")
    assert [event["n"] for event in sessions.session(session).events] == list(range(6, 26))


def test_nobody_waits_for_more_seats_than_there_are(ready: None) -> None:
    session, family = published_session(capacity=4), phones()
    first = book(session, 2, next(family))
    waits = [book(session, n, next(family)) for n in (4, 2)]
    with pytest.raises(Conflict):
        waiting.change(first.code, seats=4)
    assert sessions.courses.seats_word(sessions.session(session)) == "full"  # two are free, and somebody waits for them
    sessions.edit_session(session, {"capacity": 3}, "ann")
    assert [state(one) for one in waits] == ["refused", "waiting"]
    waiting.change(first.code, seats=1)
    assert [state(one) for one in waits] == ["refused", "offered"] and counters(session) == (3, 0)


def test_a_session_of_many_can_be_moved_and_listed(ready: None) -> None:
    session, family = published_session(capacity=500), phones()
    start = sessions.session(session).starts_at
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda phone: book(session, 1, phone), [next(family) for _ in range(120)]))
    sessions.edit_session(session, {"starts_at": start + timedelta(days=1)}, "ann")
    assert len(bookings.register(session, "ann")) == len(reaching.calls(session, "ann")) == 120
    assert {row["expires_at"] for row in Place.rows().find({})} == {sessions.session(session).ends_at + bookings.KEEP}


def test_seats_that_staff_add_go_to_who_waits(ready: None) -> None:
    session, family = published_session(capacity=2), phones()
    book(session, 2, next(family))
    second = book(session, 2, next(family))
    sessions.edit_session(session, {"capacity": 4}, "ann")
    assert state(second) == "offered" and counters(session) == (4, 0)


def test_who_has_not_looked_is_called(ready: None, clock: Clock) -> None:
    session, family = published_session(capacity=5), phones()
    looks, sleeps = book(session, 1, next(family)), book(session, 1, next(family))
    clock(60)
    later = session_values()["starts_at"] + timedelta(days=1)
    sessions.edit_session(session, {"starts_at": later, "ends_at": later + timedelta(hours=2)}, "ann")
    after = book(session, 1, next(family))  # booked the new time
    clock(60)
    (place,) = reaching.look(looks.code).places
    (told,) = reaching.messages(place, store.now(), {"zh-Hans": "家长学校"})
    assert told.kind == "moved" and "家长学校" in told.texts["zh-Hans"] and told.texts["en"]
    (call,) = reaching.calls(session, "ann")
    assert (call.number, call.why) == (2, "moved")
    reaching.called(session, call.place, "reached", "ann")
    assert reaching.calls(session, "ann") == []
    clock(60)
    sessions.cancel_session(session, "ann")
    assert [(one.number, one.why) for one in reaching.calls(session, "ann")] == [
        (1, "cancelled"),
        (2, "cancelled"),
        (3, "cancelled"),
    ]
    for one in (looks, sleeps, after):
        reaching.look(one.code)
    assert reaching.calls(session, "ann") == []


def test_bookings_are_erased_thirty_days_after_and_leave_a_line(ready: None, clock: Clock) -> None:
    session, family = published_session(capacity=5), phones()
    booked = [book(session, 1, next(family)) for _ in range(3)]
    end = sessions.session(session).ends_at
    clock((end - store.now()).total_seconds() + 60)
    assert (sessions.finish(store.now()), sessions.finish(store.now())) == (1, 0)
    assert sessions.session(session).state == "finished"
    clock(28.9 * DAY)
    assert bookings.purge(store.now()) == 0
    clock(0.2 * DAY)
    assert (bookings.purge(store.now()), bookings.purge(store.now())) == (3, 0)
    assert not Place.rows().find_one({}) and not bookings.Booking.rows().find_one({})
    there = sessions.session(session)
    assert there.seats_taken == 3
    (line,) = records.history(kind="series", key=there.series, limit=1)
    assert (line.action, line.note, line.actor) == ("series.erase_bookings", "3 bookings", records.SYSTEM)
    with pytest.raises(NotFound):
        bookings.see(booked[0].code)


def test_two_cancel_and_one_books_at_one_moment(ready: None) -> None:
    session, family = published_session(capacity=4), phones()
    held = [book(session, 1, next(family)) for _ in range(4)]
    waits = [book(session, 1, next(family)) for _ in range(4)]
    with ThreadPoolExecutor(9) as pool:
        done = [pool.submit(waiting.cancel, one.code) for one in held[:3]]
        done += [pool.submit(waiting.leave, waits[0].code, session), pool.submit(book, session, 2, next(family))]
        for one in done:
            one.result()
    assert counters(session) == (4, 1)
    assert [state(one) for one in waits] == ["cancelled", "offered", "offered", "offered"]


def test_over_http_a_family_waits_is_offered_and_accepts(site: Site) -> None:
    sealed.seal("")
    site.person("ann", "organiser", organisation=federation())
    session = published_session(capacity=1)
    site.refresh()
    path = f"/v1/sessions/{session}/bookings"
    family = {"family_name": "王", "phone": "13800138000", "seats": 1, "wait": True}
    first = site.post(path, family).json()
    second = site.post(path, {**family, "phone": "13800138001", "push": {"kind": "token", "value": "a" * 40}}).json()
    assert (first["places"][0]["state"], second["places"][0]["state"], second["push"]) == ("confirmed", "waiting", True)
    assert site.post(path, {**family, "phone": "13800138002", "wait": False}).json()["code"] == "full"
    assert site.call("DELETE", f"/v1/bookings/{first['code']}/places/{session}").status_code == 200
    mine = f"/v1/bookings/{second['code']}"
    (call,) = site.get(f"/v1/staff/sessions/{session}/calls", by="ann").json()["items"]
    assert (call["why"], call["phone"]) == ("offered", "+8613800138001")
    called = f"/v1/staff/sessions/{session}/calls/{call['place']}"
    after = site.post(called, {"outcome": "no_answer"}, by="ann")
    assert after.status_code == 200 and [one["calls"][-1]["outcome"] for one in after.json()["items"]] == ["no_answer"]
    offered = site.get(mine).json()
    assert offered["places"][0]["offered_until"].endswith("+08:00") and [m["kind"] for m in offered["messages"]] == ["offered"]
    assert site.get(mine, headers={"Accept-Language": "en"}).json()["messages"][0]["text"].startswith("Seats are free")
    assert site.get(f"/v1/staff/sessions/{session}/calls", by="ann").json()["items"] == []
    assert site.post(f"{mine}/places/{session}/accept").json()["places"][0]["state"] == "confirmed"
    assert site.post(f"{mine}/places/{session}/decline").json()["code"] == "offer_over"
    assert site.call("PATCH", mine, json={"push": None, "needs": "手语"}).json()["push"] is False
    assert site.call("PATCH", mine, json={}).status_code == 422
    assert site.call("PATCH", mine, json={"seats": 2}).json()["code"] == "full"
    entries = site.get(f"/v1/staff/sessions/{session}/bookings", by="ann").json()["items"]
    assert [(one["state"], one["needs"]) for one in entries] == [("cancelled", ""), ("confirmed", "手语")]
    assert site.post(f"/v1/staff/sessions/{session}/bookings/{entries[1]['place']}/approve", {}, by="ann").status_code == 409


class World(RuleBasedStateMachine):
    """One session of a few seats and whoever comes."""

    families: Bundle[Booked] = Bundle("families")

    def __init__(self) -> None:
        super().__init__()
        for name in ("places", "bookings", "course_sessions", "series"):
            rows = store.database()[name]
            for raw in list(rows.find({}, {"_id": 1})):
                rows.delete_one({"_id": raw["_id"]})
        self.session = published_session(capacity=4)
        self.phone = phones()
        self.order: list[str] = []
        """Places that wait, as they came."""

    @rule(target=families, seats=st.integers(1, 3), wait=st.booleans())
    def comes(self, seats: int, wait: bool) -> Any:
        there = sessions.session(self.session)
        fits = not there.waiting and there.seats_taken + seats <= there.capacity
        try:
            booked = book(self.session, seats, next(self.phone), wait=wait)
        except Conflict as failure:
            assert failure.code == "full" and not fits and not (wait and seats <= there.capacity)
            return multiple()
        assert booked.places[0].state == ("confirmed" if fits else "waiting")
        return booked

    @rule(one=families)
    def leaves(self, one: Booked) -> None:
        waiting.leave(one.code, self.session)

    @rule(one=consumes(families))
    def cancels(self, one: Booked) -> None:
        waiting.cancel(one.code)

    @rule(one=families, seats=st.integers(1, 4))
    def resizes(self, one: Booked, seats: int) -> None:
        try:
            waiting.change(one.code, seats=seats)
        except Conflict as failure:
            assert failure.code in {"full", "wrong_state"}

    @rule(one=families, yes=st.booleans())
    def answers(self, one: Booked, yes: bool) -> None:
        before = state(one)
        try:
            (waiting.accept if yes else waiting.decline)(one.code, self.session)
        except Conflict:
            assert before not in {"offered"}
        else:
            assert before in {"offered", "confirmed" if yes else "declined"}

    @rule(more=st.integers(0, 2))
    def grows(self, more: int) -> None:
        there = sessions.session(self.session)
        sessions.edit_session(self.session, {"capacity": min(8, there.capacity + more)}, "ann")

    @precondition(lambda self: Place.rows().find_one({"state": "offered"}) is not None)
    @rule()
    def time_passes(self) -> None:
        waiting.expire(max(row["offered_until"] for row in Place.rows().find({"state": "offered"})))

    @invariant()
    def holds(self) -> None:
        taken, waits = counters(self.session)
        there = sessions.session(self.session)
        rows = sorted(Place.rows().find({"session": self.session}), key=lambda row: row["number"])
        line = [row for row in rows if row["state"] == "waiting"]
        # whoever waits first does so for want of seats, and nobody behind was served before it since both waited
        assert not line or taken + line[0]["seats"] > there.capacity or line[0]["seats"] > there.capacity
        offers = [(step["at"], row["number"]) for row in rows for step in row["history"] if step["state"] == "offered"]
        for at, number in offers:
            for row in rows:
                if row["number"] < number and row["history"][0]["state"] == "waiting":
                    left = [step["at"] for step in row["history"][1:]]
                    assert left and left[0] <= at, (row["number"], number)
        assert {row["state"] for row in rows} <= {*ACTIVE, "cancelled", "declined", "expired"}


def test_whatever_happens_the_seats_add_up(ready: None) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    limits = settings(max_examples=5, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(World, settings=limits)


@pytest.mark.slow
def test_whatever_happens_the_seats_add_up_at_length(ready: None) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    limits = settings(max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(World, settings=limits)

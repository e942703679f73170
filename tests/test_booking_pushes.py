"""Pushes to bookings: the real database, a local FCM over HTTP, and a clock in the hand."""

import json
import multiprocessing
import threading
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from firebase_admin import messaging

from content import bookings, courses, published, reaching, registrations, sealed, sessions, store, waiting
from content.bookings import Booked, Booking, Place
from content.settings import Settings
from notifications import bookings as pushes
from notifications import fcm, outcomes
from notifications.bookings import PushRound, PushSweep
from tests.bench.pushes import change, fill, sweeping
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm
from tests.promises.report import Measured
from tests.site import Clock
from tests.test_courses import SERIES, federation, session_values

DAY = 86400
NOON = datetime(2027, 3, 3, 4, tzinfo=UTC)  # a Wednesday, 12:00 in Shanghai


@pytest.fixture
def phone() -> Iterator[FakeFcm]:
    """A local FCM."""
    with FakeFcm() as running:
        yield running


@pytest.fixture
def near(clean: None, settings: Settings, phone: FakeFcm, clock: Clock) -> Settings:
    """Settings that push to it, and the clock at noon."""
    sealed.configure(settings)
    sealed.seal("")
    federation()
    clock((NOON - store.now()).total_seconds())
    return replace(settings, fcm_url=phone.url)


def course(*days: float, **more: Any) -> tuple[str, list[str]]:
    """A published series with sessions so many days from now."""
    approval = more.pop("approval", False)
    made = courses.create_series({**SERIES, "approval": approval}, "ann")
    courses.publish_series(made.id, "ann", second_person=False)
    keys = []
    for ahead in days:
        start = store.now() + timedelta(days=ahead)
        values = session_values(starts_at=start, ends_at=start + timedelta(hours=2), title={"zh-Hans": "青春期谈心"}, **more)
        keys.append(str(sessions.publish_session(sessions.create_session(made.id, values, "ann").id, "ann").id))
    return made.id, keys


def book(settings: Settings, phone: str, target: str = "fid", **wish: Any) -> Booked:
    """Book, and ask to be told at `target`."""
    push = {"kind": "fid", "value": target} if target else None
    return registrations.book(settings, registrations.Wish(1, "欧阳", phone, wait=True, push=push, **wish))


def row(booked: Booked) -> dict[str, Any]:
    """The booking as stored."""
    return bookings.opened(booked.code)


def shift(session: str, **by: float) -> None:
    """Move a session."""
    there = sessions.session(session)
    delta = timedelta(**by)
    sessions.edit_session(session, {"starts_at": there.starts_at + delta, "ends_at": there.ends_at + delta}, "ann")


def test_each_kind_is_told_once_and_tells_nothing(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (first, second) = course(4, 6)
    booked = book(near, "13800138000", series=series)
    assert pushes.sweep(near) == {}  # the booking's own answer told it
    for happen in (
        lambda: shift(first, hours=1),
        lambda: sessions.edit_session(second, {"place": "school"}, "ann"),
        lambda: clock((sessions.session(first).starts_at - store.now()).total_seconds() - DAY),
        lambda: clock(DAY - 7200),
        lambda: sessions.cancel_session(second, "ann"),
    ):
        pushes.sweep(near)
        phone.clear()
        clock(31)
        happen()
        clock(1)
        assert pushes.sweep(near) == {"pushed": 1}
        assert pushes.sweep(near) == {}
        clock(61)
        assert pushes.sweep(near) == {}
        (seen,) = phone.sends()
        assert (seen.target, seen.message["data"]) == ("fid", {"kind": "booking"})
        assert seen.message["notification"] == {"title": "心桥", "body": "心桥有一条新消息"}
        (key,) = seen.collapse_keys
        assert len(key) == 32 and key not in row(booked)["_id"]
        told = str(seen.body) + str(seen.headers)
        assert not any(word in told for word in ("青春期", "谈心", "欧阳", "13800138000", first, second, series, booked.code))
    assert "pushed" not in row(booked) and len(list(PushRound.rows().find({"over": True}))) == 5, "the rounds know it"


def test_seats_offered_and_the_organisers_word(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (asked, other) = course(4, 6, approval=True, capacity=1)
    holder = book(near, "13800138000", "holder", series=series)
    waits = book(near, "13800138001", "waits", series=series)
    pushes.sweep(near)
    clock(61)
    (place,) = (one.id for one in holder.places if one.session.id == asked)
    waiting.approve(asked, place, "ann")
    assert pushes.sweep(near) == {"pushed": 1} and [seen.target for seen in phone.sends()] == ["holder"]
    clock(61)
    (place,) = (one.id for one in holder.places if one.session.id == other)
    waiting.refuse(other, place, "ann")  # goes on to who waits: two bookings have news
    assert pushes.sweep(near) == {"pushed": 2} and {seen.target for seen in phone.sends()[1:]} == {"holder", "waits"}
    clock((bookings.see(waits.code).places[1].offered_until - store.now()).total_seconds() + 1)  # type: ignore[operator]
    waiting.expire(store.now())
    assert pushes.sweep(near)["pushed"] == 1 and phone.sends()[-1].target == "waits"
    clock(2 * DAY - 12 * 3600)  # the last day of `asked`: by hand
    waiting.leave(holder.code, asked)
    (place,) = (one.id for one in waits.places if one.session.id == asked)
    waiting.give(asked, place, "ann") if bookings.see(waits.code).places[0].state == "waiting" else None
    clock(61)
    pushes.sweep(near)
    assert phone.sends()[-1].target == "waits"


def test_of_two_workers_one_pushes(near: Settings, phone: FakeFcm) -> None:
    series, (session,) = course(4)
    for n in range(6):
        book(near, f"1380013800{n}", f"p{n}", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        pushes.sweep(near)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert Counter(seen.target for seen in phone.sends()) == {f"p{n}": 1 for n in range(6)}


def test_who_stands_on_two_pages_is_told_once(near: Settings, phone: FakeFcm) -> None:
    series, keys = course(4, 6, 8)
    for n in range(3):
        book(near, f"1380013800{n}", f"p{n}", series=series)
    pushes.sweep(near)
    for key in keys:
        shift(key, hours=1)
    assert pushes.sweep(near) == {"pushed": 3}
    assert Counter(seen.target for seen in phone.sends()) == {f"p{n}": 1 for n in range(3)}
    assert pushes.sweep(near) == {}


def test_a_night_that_begins_between_a_page_and_its_posts_holds_them(
    near: Settings, phone: FakeFcm, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, (session,) = course(4)
    book(near, "13800138000", series=series)
    pushes.sweep(near)
    clock(9.5 * 3600 - 30)  # half a minute before 21:30
    shift(session, hours=1)
    kept = pushes._ready

    def slowly(*given: Any) -> Any:
        found = kept(*given)
        if found:
            clock(31)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(pushes, "_ready", slowly)
        assert pushes.sweep(near) == {"put_off": 1} and phone.sends() == []
    clock(9.5 * 3600 + 1)
    assert pushes.sweep(near) == {"pushed": 1}


class Killed(BaseException):
    """What kill -9 would be."""


WRITES = ("_claim", "_follow", "_carry", "_turns", "_renew", "_send", "_write", "written", "_advance", "settled")


@pytest.mark.parametrize("line", WRITES)
def test_a_worker_that_dies_anywhere_loses_nothing(
    near: Settings, phone: FakeFcm, clock: Clock, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    series, (session,) = course(4)
    book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    owner, name = {"settled": (pushes._Turn, "settle"), "written": (pushes, "_write")}.get(line, (pushes, line))

    def dies(*given: Any, **named: Any) -> Any:
        found = kept(*given, **named) if line != "settled" else None  # there: FCM has answered, nothing is written yet
        if line != "written" or phone.sends():  # there: the bookings are, and not how far the round has come
            raise Killed
        return found

    kept = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(Killed):
            pushes.sweep(near)
    sent = len(phone.sends())
    assert sent == (line in {"_carry", "written", "_advance", "settled"})
    assert pushes.sweep(near) == {}, "the dead one's lease"
    clock(61)
    pushes.sweep(near)
    assert len(phone.sends()) == (2 if line in {"written", "settled"} else 1)
    assert len({key for seen in phone.sends() for key in seen.collapse_keys}) == 1
    clock(61)
    assert pushes.sweep(near) == {}


@pytest.mark.parametrize("reply", [fake_fcm.UNREGISTERED, fake_fcm.SENDER_ID])
def test_an_address_that_is_gone_is_forgotten_and_the_booking_kept(near: Settings, phone: FakeFcm, reply: Any) -> None:
    series, (session,) = course(4)
    booked = book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    phone.script("*", reply)
    assert pushes.sweep(near) == {"gone": 1}
    assert not row(booked).keys() & {"push", "push_at", "push_try"} and row(booked)["contact"]
    assert bookings.see(booked.code).places[0].state == "confirmed"
    shift(session, hours=1)
    assert pushes.sweep(near) == {} and len(phone.sends()) == 1
    waiting.change(booked.code, push={"kind": "fid", "value": "another"})  # and one that is left later is told
    assert pushes.sweep(near) == {"pushed": 1} and phone.sends()[-1].target == "another"


@pytest.mark.parametrize("reply", [fake_fcm.INVALID, fake_fcm.THIRD_PARTY, fake_fcm.FORBIDDEN])
@pytest.mark.slow
def test_what_is_our_fault_drops_no_address(near: Settings, phone: FakeFcm, reply: Any) -> None:
    series, (session,) = course(4)
    booked = book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    phone.script("*", reply)
    assert pushes.sweep(near) == {"refused": 1} and row(booked)["push"]
    assert pushes.sweep(near) == {} and len(phone.sends()) == 1


@pytest.mark.parametrize(
    ("reply", "wait"), [(fake_fcm.retry_after(fake_fcm.QUOTA, "90"), 90), (fake_fcm.QUOTA, 60), (fake_fcm.UNAVAILABLE, 10)]
)
@pytest.mark.slow
def test_a_retry_comes_not_before_its_time(near: Settings, phone: FakeFcm, clock: Clock, reply: Any, wait: int) -> None:
    series, (session,) = course(4)
    book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    phone.script("*", reply)
    assert pushes.sweep(near) == {"put_off": 1}
    clock(wait - 3)
    shift(session, hours=1)  # news that is newer does not go before it either
    assert pushes.sweep(near)["pushed"] == 0 and len(phone.sends()) == 1
    clock(wait / 4 + 4)
    assert pushes.sweep(near) == {"pushed": 1} and len(phone.sends()) == 2
    assert pushes.sweep(near) == {}


@pytest.mark.slow
def test_tries_end_after_an_hour_and_the_next_news_is_tried_again(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (session,) = course(4)
    booked = book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    phone.script("*", *[fake_fcm.UNAVAILABLE] * 40)
    began, found = store.now(), Counter[str]()
    while "failed" not in found and store.now() < began + timedelta(hours=3):
        last = store.now()
        found += pushes.sweep(near)
        if "failed" not in found:
            clock((row(booked)["push_at"] - store.now()).total_seconds())
    assert (
        8 <= len(phone.sends()) <= 16
        and timedelta(minutes=45) < last - began <= timedelta(minutes=60)
        and "push_try" not in row(booked)
    )
    phone.clear()
    shift(session, hours=1)
    assert pushes.sweep(near) == {"pushed": 1}


@pytest.mark.slow
def test_many_that_do_not_pass_end_a_sweep(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (session,) = course(4)
    for n in range(8):
        book(near, f"1380013800{n}", f"p{n}", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    phone.script("*", *[fake_fcm.UNAVAILABLE] * 5)
    assert pushes.sweep(near) == {"put_off": 5}
    assert pushes.sweep(near) == {"pushed": 3}
    clock(20)
    assert pushes.sweep(near) == {"pushed": 5}


def test_quiet_hours_hold_and_what_is_over_in_the_morning_is_dropped(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    eight, six = 20 / 24 + 1, 18.5 / 24 + 1  # tomorrow 08:00 and 06:30 are within a day: only "soon" is to come
    (_, (early,)), (_, (late,)) = course(six - 1), course(eight - 1)
    book(near, "13800138000", "early", session=early)
    book(near, "13800138001", "late", session=late)
    assert pushes.sweep(near) == {}
    clock(10 * 3600)  # 22:00
    shift(late, minutes=5)
    assert pushes.sweep(near) == {}
    clock(6.75 * 3600)  # 04:45
    assert pushes.sweep(near) == {"expired": 1}  # "soon" of 06:30 could not be told before 07:00
    clock(2.2 * 3600)  # 06:57
    assert pushes.sweep(near) == {} and phone.sends() == []
    clock(600)
    assert pushes.sweep(near) == {"pushed": 1}  # moved and soon: one push
    assert [seen.target for seen in phone.sends()] == ["late"]
    clock(60)
    assert pushes.sweep(near) == {}


@pytest.mark.slow
def test_a_night_begins_while_it_is_tried(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (session,) = course(4)
    book(near, "13800138000", series=series)
    pushes.sweep(near)
    clock(9.5 * 3600 - 5)  # five seconds before 21:30
    shift(session, hours=1)
    phone.script("*", fake_fcm.UNAVAILABLE)
    assert pushes.sweep(near) == {"put_off": 1}
    for hour in range(9):
        clock(3600)
        assert pushes.sweep(near) == {}, hour
    clock(1860)
    assert pushes.sweep(near) == {"pushed": 1}


def test_what_is_two_days_old_is_no_news(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (session,) = course(9)
    book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(session, hours=1)
    clock(2 * DAY + 1)  # no worker ran
    assert pushes.sweep(near)["pushed"] == 0 and phone.sends() == []


def test_who_has_looked_needs_no_push_and_who_has_gone_gets_none(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, (session, _) = course(4, 6)
    looks, quiet, leaves, silent = (
        book(near, f"1380013800{n}", name, series=series) for n, name in enumerate(("looks", "quiet", "leaves", ""))
    )
    pushes.sweep(near)
    shift(session, hours=1)
    clock(1)
    reaching.look(looks.code)
    waiting.change(quiet.code, quiet=True)
    waiting.cancel(leaves.code)
    assert pushes.sweep(near) == {} and phone.sends() == []
    assert "push_at" not in row(silent)
    clock(60 * DAY)
    assert bookings.purge(store.now()) == 4
    assert pushes.sweep(near) == {} and Booking.rows().find_one({}) is None and phone.sends() == []


@pytest.mark.slow
def test_a_whole_series_reminds_of_each_session_once(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    series, keys = course(*(7 * n for n in range(1, 11)))
    book(near, "13800138000", series=series)
    pushes.sweep(near)
    shift(keys[2], days=1)
    pushes.sweep(near)
    for key in keys:
        for lead in (DAY, 7200):
            clock((sessions.session(key).starts_at - store.now()).total_seconds() - lead + 1)
            assert pushes.sweep(near) == {"pushed": 1}
    assert len(phone.sends()) == 1 + 10 * 2
    assert pushes.sweep(near) == {}


def test_a_reminder_that_was_told_is_told_again_for_the_new_day(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    _, (session,) = course(3)
    book(near, "13800138000", session=session)
    pushes.sweep(near)
    clock(2 * DAY + 60)
    assert pushes.sweep(near) == {"pushed": 1}
    shift(session, days=5)
    assert pushes.sweep(near) == {"pushed": 1}
    clock(5 * DAY)
    assert pushes.sweep(near) == {"pushed": 1}


@pytest.mark.slow
def test_a_clock_that_jumps_loses_no_reminder(near: Settings, phone: FakeFcm, clock: Clock) -> None:
    _, (session,) = course(3)
    booked = book(near, "13800138000", session=session)
    pushes.sweep(near)
    clock(5 * DAY)
    PushSweep.rows().update_one({}, {"$set": {"lease_until": store.now() + timedelta(seconds=60)}})  # it died there
    clock(61)
    pushes.sweep(near)
    assert row(booked)["push_at"] > NOON + timedelta(days=5)
    clock(-5 * DAY)
    assert pushes.sweep(near) == {}
    clock(2 * DAY + 60)
    assert pushes.sweep(near) == {"pushed": 1}
    clock(22 * 3600)
    assert pushes.sweep(near) == {"pushed": 1} and len(phone.sends()) == 2


def test_without_credentials_nothing_is_sent_and_nothing_breaks(near: Settings, phone: FakeFcm, caplog: Any) -> None:
    series, (session,) = course(4)
    booked = book(near, "13800138000", "a-phone", series=series)
    shift(session, hours=1)
    assert pushes.sweep(replace(near, fcm_url="")) == {}
    assert PushSweep.rows().find_one({}) is None and "push_at" not in row(booked) and "a-phone" not in caplog.text
    assert pushes.sweep(near) == {"pushed": 1}  # set up since: what is fresh is told


@pytest.mark.slow
def test_two_thousand_bookings_of_one_session(near: Settings, monkeypatch: pytest.MonkeyPatch, measured: Measured) -> None:
    series, (session,) = course(4, capacity=4000)
    seal = sealed.seal('{"kind": "fid", "value": "x"}')
    first = row(book(near, "13800138000", session=session))
    place = Place.rows().find_one({"booking": first["_id"]})
    for n in range(2, 2001, 100):
        many = range(n, min(n + 100, 2001))
        fresh = {"push": seal, "contact": first["contact"], "phone_blind": first["phone_blind"]}
        Booking.rows().insert_many([{**first, **fresh, "_id": f"{i:064x}", "feed": f"{i:064x}"} for i in many])
        Place.rows().insert_many([{**place, "_id": f"p{i}", "booking": f"{i:064x}", "number": i} for i in many])
    courses.CourseSession.rows().update_one({"_id": session}, {"$set": {"arrivals": 2000}})
    to = Counter[str]()

    def each(messages: Any, settings: Settings, width: Any) -> Any:
        for index, message in enumerate(messages):
            if not width():
                return
            to.update([message.key])
            yield index, outcomes.Sent("x")

    monkeypatch.setattr(fcm, "each", each)
    began = time.monotonic()
    while Booking.rows().find_one({"push_at": None, "push": {"$gt": b""}}):
        pushes.sweep(near)
    looked = time.monotonic() - began
    sessions.cancel_session(session, "ann")
    tracemalloc.start()
    try:
        began = time.monotonic()
        while sum(to.values()) < 2000:
            pushes.sweep(near)
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()  # left on, it makes every later test eight times slower
    assert set(to.values()) == {1} and len(to) == 2000 and pushes.sweep(near) == {}
    began = time.monotonic()
    pushes.sweep(near)
    idle = time.monotonic() - began
    measured(
        8, f"2,000 bookings of a cancelled session: looked at in {looked:.1f} s, pushed in {took:.1f} s, {peak / 2**20:.1f} MiB"
    )
    measured(8, f"a sweep with nothing to tell: {idle * 1000:.0f} ms")
    assert peak < 16 * 2**20
    assert published.mark().seq == PushSweep.rows().find_one({})["seq"]


@pytest.mark.slow
def test_a_killed_sweep_repeats_only_what_was_not_written_down(
    clean: None, settings: Settings, phone: FakeFcm, measured: Measured
) -> None:
    sealed.configure(settings)
    near, kills = replace(settings, fcm_url=phone.url), 4
    many = fill(2000, 500)
    pushes.sweep(near)
    change(many)
    for _ in range(kills):
        worker = multiprocessing.get_context("spawn").Process(target=sweeping, args=(near,), daemon=True)
        worker.start()
        until = len(phone.log) + 330
        while len(phone.log) < until and worker.is_alive():
            time.sleep(0.01)
        worker.kill()  # -9
        worker.join()
        PushSweep.rows().update_one({}, {"$set": {"lease_until": store.now()}})  # a minute later
    killed = len(phone.log)
    while not all(one["over"] for one in PushRound.rows().find({})):
        pushes.sweep(near)
    keys: dict[str, set[str]] = defaultdict(set)
    posts = [seen for seen in phone.sends() if seen.body]  # one that was cut in the middle arrived as nothing
    for seen in posts:
        keys[seen.target] |= seen.collapse_keys
    twice = len(posts) - 2000
    measured(
        8, f"kill -9 of the sweep, {kills} times in 2,000 pushes ({killed} posted before the last): {twice} sent twice, none lost"
    )
    assert len(keys) == 2000 and all(len(names) == 1 for names in keys.values())
    assert len({name for names in keys.values() for name in names}) == 2000
    assert twice <= kills * 2 * pushes.PAGE
    assert pushes.sweep(near) == {}


def test_of_many_posts_one_that_hangs_holds_up_no_other(phone: FakeFcm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcm, "DEADLINE", 3.0)
    phone.script("p3", fake_fcm.DRIP)
    messages = [fcm.Message(f"n{n}", f"p{n}", "心桥", "你好", 60, "fid") for n in range(20)]
    found = dict(fcm.each(messages, Settings(fcm_url=phone.url), lambda: 4))
    assert isinstance(found.pop(3), outcomes.Unknown)
    assert len(found) == 19 and all(isinstance(one, outcomes.Sent) for one in found.values())
    assert len(phone.sends()) == 20
    left = iter([1, 1, 0])
    assert list(dict(fcm.each(messages, Settings(fcm_url=phone.url), lambda: next(left)))) == [0]


@pytest.mark.filterwarnings("ignore:Message.token is deprecated")  # phones that registered before fid
@pytest.mark.parametrize("kind", ["fid", "token", "topic", "condition"])
def test_the_body_is_what_the_sdk_would_post(kind: Any) -> None:
    values = ("d150603.parent",) if kind == "topic" else ("'a' in topics", 'q"\\u\n心987654321s')
    for value, ttl in product(values, (0, 90, -5)):
        message = fcm.Message('k"心', value, "题", '"x"', ttl, kind, {"kind": "booking", "n": "1"})
        made = json.loads(fcm.body(message))["message"]
        theirs = messaging._MessagingService.encode_message(fcm.encode(message))
        for one in (made, theirs):
            assert abs(int(one["apns"]["headers"].pop("apns-expiration")) - time.time() - max(0, ttl)) < 5
        assert made == theirs
    with pytest.raises(ValueError, match="string"):
        fcm.body(fcm.Message("k", "v", "t", "b", 1, kind, {"n": 3}))  # type: ignore[dict-item]

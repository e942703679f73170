"""Pushes to those who booked: something happened to a booking, or its session is tomorrow, or in two hours.

The booking's own inbox (`content.reaching.messages`) is the truth; a push only says that there is something to read. It goes to
the one address that the family left with its booking and names neither title nor people nor subject. An address that FCM calls
gone is forgotten with the same step; nothing else ever makes us drop one.

What is told to all who booked a session (it moved, it is tomorrow) is one `PushRound`, which goes through the session's places
in the order of their numbers, a page at a time, and keeps how far it came: a page costs one small write, where a write for each
booking would take longer than its push (the embedded server writes 400 a second). What concerns one booking stands with it:

    Booking.push_at   when the booking is looked at next; absent: at once
    Booking.pushed    ids of the messages that are done with and that no round counts
    Booking.push_try  {"first", "tries", "not_before", "owed": ids of the messages} while they wait

`sweep` is the only writer of all these, and a lease in the database lets one worker sweep at a time. It reads which sessions were
released since the last sweep (`published`, whose sequence no clock can disturb) and which begin within a day, and makes their
rounds; then goes on with what is due, a page at a time: reads the bookings and what happened to them, sends at most one push to
each, SENDERS at a time, and writes down what came of them. While a page is sent, the next is read and the one before it is
written down, so that the posts wait for neither. A place that waits for an answer is looked at each minute, since no session is
released when it gets one.

Whatever line a worker dies at, the next sweep finds the same work. Pushes that were not written down go out twice, under the
same collapse key: those of two pages at most, since none is begun before the second before it is written.
"""

import hashlib
import json
import logging
import threading
import time
from collections import Counter as Counts
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, count, islice
from typing import Any, ClassVar

import mongoengine as me
from pymongo import UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from content import sealed, store
from content.bookings import ACTIVE, Booking, Held, Place
from content.courses import CourseSession
from content.published import Counter, PublishedRow
from content.reaching import REMINDERS, happened
from content.settings import Settings, SettingsError
from content.waking import quiet_until
from notifications import fcm, outcomes, quiet
from notifications.notices import TTL_LIMIT
from notifications.outbox import LEASE
from notifications.outcomes import GIVE_UP

log = logging.getLogger("xinqiao.pushes")

NEWS = timedelta(hours=48)  # what happened longer ago is no news
AGAIN = timedelta(seconds=60)  # until a place that waits for an answer is looked at again
BUDGET = 27.0  # seconds of one sweep, of the thirty from one to the next
SENDERS = 8  # posts under way; sixteen were no faster
IN_A_ROW = 5  # pushes that did not pass end a sweep: it is not the phones' fault
DUE = 500  # names of bookings read at a time, where the embedded server walks through all that are due
PAGE = 250  # bookings looked at between two writes; a killed worker may send two pages twice
WALK = (
    3 * PAGE
)  # all bookings of a session up to this size are read for one page: a third of the time of naming those of the page
BATCH = 25  # the embedded server's `$in` grows with its square: 25 names 5 ms, 100 names 32 ms, 1,000 names 5 s
LONGEST = timedelta(minutes=75)  # the longest that a retry waits; more was written by a clock that ran ahead
EVER = datetime(1970, 1, 1, tzinfo=UTC)  # dates only: without a lower bound the embedded server walks through all nulls
KINDS = ("session", "invited_session")
OPEN = ("requested", "waiting", "offered")
KEY = "bookings"
LEADS = dict(REMINDERS)
FIELDS = dict.fromkeys(("session", "push", "push_at", "pushed", "push_try", "seen_at", "expires_at"), 1)
HELD = dict.fromkeys(("booking", "session", "seats", "number", "state", "history", "offered_until"), 1)


class PushSweep(store.Row):
    """Who sweeps, and how far it came; one row."""

    lease = me.StringField(required=True)
    lease_until = me.DateTimeField(required=True)
    seq = me.IntField(required=True)
    """Of the published set: sessions up to here have been followed."""
    at = me.DateTimeField(required=True)
    """When that was."""

    meta: ClassVar[dict[str, Any]] = {"collection": "push_sweeps"}


class PushRound(store.Row):
    """One thing told to all who booked a session; `_id` is SESSION.NAME, with the name that a message has (`_name`)."""

    session = me.StringField(required=True)
    until = me.DateTimeField(required=True)
    """When it is news no more."""
    after = me.IntField(required=True, default=0)
    """Places up to this number have been looked at."""
    over = me.BooleanField(required=True, default=False)
    """No place is left."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "push_rounds",
        "indexes": [{"fields": ["until"], "expireAfterSeconds": 86400}],
    }


Rounds = Mapping[str, dict[str, Any]]
"""All rounds that are still news, by `_id`."""


def sweep(settings: Settings) -> Counts[str]:
    """Bring the pushes to bookings up to now. Returns how many bookings were pushed, put_off, or lost their phone's address
    (gone), how many messages are refused or failed, and how many messages or whole rounds expired. Nothing while another sweeps,
    and nothing at all without push credentials. Needs `sealed.configure`. Raises driver errors; the next sweep goes on."""
    counts: Counts[str] = Counts()
    if not settings.fcm_url and not settings.firebase_credentials:
        return counts
    if state := _claim():
        _carry(_Sweep(state["lease"], settings, counts, _follow(state)))
        _renew(state["lease"], timedelta(0))
    return counts


def _claim() -> dict[str, Any] | None:
    """The state under a new lease; None while another has it."""
    now, rows = store.now(), PushSweep.rows()
    mine = {"lease": store.new_id(), "lease_until": now + LEASE}
    found: dict[str, Any] | None = rows.find_one({"_id": KEY})
    if found is None:  # what happened up to here is found with the bookings that were never looked at
        made = {"_id": KEY, **mine, "seq": _sequence(), "at": now}
        try:
            rows.insert_one(made)
        except DuplicateKeyError:
            return None
        return made
    if now < found["lease_until"] <= now + LEASE:  # one that ends later was written by a clock that ran ahead
        return None
    taken = rows.update_one({"_id": KEY, "lease": found["lease"]}, {"$set": mine})
    return {**found, **mine} if taken.matched_count else None


def _renew(lease: str, length: timedelta = LEASE, **fields: Any) -> bool:
    """Whether the lease is still ours."""
    put = {"lease_until": store.now() + length, **fields}
    return bool(PushSweep.rows().update_one({"_id": KEY, "lease": lease}, {"$set": put}).matched_count)


def _sequence() -> int:
    found = Counter.rows().find_one({"_id": "published"})
    return int(found["value"]) if found else 0


# --- what is to be told ----------------------------------------------------------------------------------------------


def _follow(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Make the rounds of sessions with fresh events and of those that begin soon; all that are news. The sequence is written
    after them: a crash between the two has the same ones made once more."""
    now, top = store.now(), _sequence()
    if state["at"] > now + AGAIN:
        log.warning("the clock went back: every booking is looked at again")
        _wake(state["lease"], Booking.rows().find({"push_at": {"$gt": now}}, {"_id": 1}))
    rounds = {row["_id"]: row for row in PushRound.rows().find({"until": {"$gt": now}})}
    since = state["seq"] if state["seq"] <= top else 0  # it ran backwards: another set was put in its place
    released = PublishedRow.rows().find({"seq": {"$gt": since, "$lte": top}}, {"kind": 1, "key": 1})
    changed = sorted({row["key"] for row in released if row["kind"] in KINDS})
    told = list(_events(changed, now)) + list(_reminders(now))
    for session, name, until in told:
        key = f"{session}.{name}"
        if key not in rounds:
            row = {"session": session, "until": until, "after": 0, "over": False}
            PushRound.rows().update_one({"_id": key}, {"$setOnInsert": row}, upsert=True)
            rounds[key] = {"_id": key, **row}
    _renew(state["lease"], seq=top, at=now)
    return rounds


def _events(sessions: Iterable[str], now: datetime) -> Iterator[tuple[str, str, datetime]]:
    """(session, name, until) of what happened to these sessions and is news."""
    for key in sessions:
        raw = CourseSession.rows().find_one({"_id": key}, {"events": 1})
        for event in raw.get("events", ()) if raw else ():
            if event["at"] > now - NEWS:
                yield key, _named(f"s{event['n']}", event["at"]), event["at"] + NEWS


def _reminders(now: datetime) -> Iterator[tuple[str, str, datetime]]:
    """The same of the reminders that are due."""
    soon = {"starts_at": {"$gt": now, "$lte": now + max(lead for _, lead in REMINDERS)}}
    for row in CourseSession.rows().find(soon, {"starts_at": 1, "state": 1}):
        for kind, lead in REMINDERS:
            if row["state"] == "published" and row["starts_at"] - lead <= now:
                yield row["_id"], _named(kind, row["starts_at"] - lead), row["starts_at"]


@lru_cache(maxsize=256)
def _named(what: str, at: datetime) -> str:
    return f"{what}.{at:%y%m%d%H%M}"  # a session that is moved has reminders of its own again


def _wake(lease: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Have these bookings looked at now, as long as the lease is ours; those without a phone to push to have no `push_at`."""
    now, left = store.now(), iter(rows)
    while (names := [row["_id"] for row in islice(left, BATCH)]) and _renew(lease):
        match, update = {"_id": {"$in": names}, "push_at": {"$gt": now}}, {"$set": {"push_at": now}}

        def work(tx: ClientSession, match: Any = match, update: Any = update) -> None:
            Booking.rows().update_many(match, update, session=tx)

        store.transaction(work)


# --- whom to look at -------------------------------------------------------------------------------------------------


class _Sweep:
    """One sweep: what it goes by, and when it stops."""

    def __init__(self, lease: str, settings: Settings, counts: Counts[str], rounds: Rounds) -> None:
        self.lease, self.settings, self.counts, self.rounds = lease, settings, counts, rounds
        self.lock = threading.Lock()
        self.ends = time.monotonic() + BUDGET
        self.renewed = 0.0
        self.in_a_row = 0
        self.wide = False
        self.words = quiet.words(settings.language)
        self.series: Counts[str] = Counts()
        """How often a booking of a whole series stands on pages that were read and are not written; the page thread's alone."""

    def stopped(self) -> bool:
        """Whether nothing more may begin: the budget is used up, the lease lost, or too many in a row did not pass."""
        now = time.monotonic()
        if now > self.renewed + LEASE.total_seconds() / 6:
            self.renewed = now
            if not _renew(self.lease):
                self.ends = 0.0
        return now > self.ends or self.in_a_row >= IN_A_ROW

    def count(self, what: str, number: int = 1) -> None:
        """Add to what `sweep` returns."""
        with self.lock:  # a page is looked at while another is sent
            self.counts[what] += number

    def width(self) -> int:
        """How many posts may be under way: one until one has passed, and again after one that did not."""
        return 0 if self.stopped() else SENDERS if self.wide else 1

    def note(self, passed: bool) -> None:
        """What came of a post."""
        self.wide, self.in_a_row = passed, 0 if passed else self.in_a_row + 1
        if self.in_a_row == IN_A_ROW:
            log.warning("%s pushes in a row did not pass: the rest waits for the next sweep", IN_A_ROW)


def _carry(run: _Sweep) -> None:
    """Look at what is due, and go on with the rounds: some bookings first, so that none waits for all the rounds."""
    more = _look_at_due(run)
    open_: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in run.rounds.values():
        if not row["over"]:
            open_[row["session"]].append(row)
    _send(run, chain.from_iterable(_pages(run, session, rows) for session, rows in sorted(open_.items())))
    while more and not run.stopped():
        more = _look_at_due(run)


def _look_at_due(run: _Sweep) -> bool:
    """Look at bookings whose time has come, longest due first, then at those never looked at; whether there may be more."""
    rows = Booking.rows()
    due = rows.find({"push_at": {"$gt": EVER, "$lte": store.now()}}, {"_id": 1}).sort("push_at", 1).limit(DUE)
    names = [row["_id"] for row in due] or [
        row["_id"] for row in rows.find({"push_at": None, "push": {"$gt": b""}}, {"_id": 1}).limit(DUE)
    ]

    def pages() -> Iterator[_Page]:
        for part in _parts(names, PAGE):
            raws = _bookings(part)
            yield _Page(_ready(run, _turns(run, [raws[name] for name in part if name in raws], {}, {}, set())))

    _send(run, pages())
    return bool(names) and not run.stopped()


@dataclass
class _Page:
    """Some bookings: those whose time has come, or those of a session for its open rounds."""

    ready: list[tuple["_Turn", fcm.Message]]
    """To be pushed, in the order of the places' numbers."""
    rounds: Sequence[dict[str, Any]] = ()
    known: Mapping[str, CourseSession] = field(default_factory=dict)
    places: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """By booking."""
    series: Sequence[str] = ()
    """Bookings of a whole series."""
    late: Sequence[str] = ()
    """Those of them that also stand on a page before, and are looked at when that is written."""
    last: int = 0
    """The highest number."""
    end: bool = True
    """None come after them."""
    sent: list["_Turn"] = field(default_factory=list)
    """Of `ready`, those whose outcome is known."""


def _pages(run: _Sweep, session: str, rows: list[dict[str, Any]]) -> Iterator[_Page]:
    """The places of a session that one of its open rounds has not come to. None in the quiet hours."""
    raw = CourseSession.rows().find_one({"_id": session})
    if raw is None:
        return
    if held := quiet_until(store.now(), raw["zone"]):
        for row in rows:
            if row["until"] <= held:  # it is no news any more when it may be told
                run.count("expired")
                _advance(row, row["after"], over=True)
        return
    known, names = {session: CourseSession.of(raw)}, {row["_id"] for row in rows}
    last, top = min(row["after"] for row in rows), raw.get("arrivals", 0)  # whoever arrives from now on knows it
    while True:
        # without an upper bound the embedded server walks through all that come after the page
        match = {"session": session, "number": {"$gt": last, "$lte": last + PAGE}}
        found = Place.rows().find(match, HELD).sort("number", 1)
        places = {place["booking"]: place for place in found if place["state"] in ACTIVE}
        raws = _bookings(list(places), {"session": session} if places and top <= WALK else None)
        # whoever was never looked at will be, with all that is news then
        look = [raws[name] for name in places if name in raws and raws[name].get("push") and raws[name].get("push_at")]
        series = [row["_id"] for row in look if not row.get("session")]
        late = {name for name in series if run.series[name]}
        run.series.update(series)
        ready = _ready(run, _turns(run, [row for row in look if row["_id"] not in late], known, places, names))
        last = min(last + PAGE, max(top, last))
        yield _Page(ready, rows, known, places, series, sorted(late), last, last >= top)
        if last >= top:
            return


def _advance(row: dict[str, Any], after: int, over: bool) -> None:
    row.update(after=after, over=over)
    PushRound.rows().update_one({"_id": row["_id"]}, {"$set": {"after": after, "over": over}})


def _parts(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _bookings(names: Sequence[str], match: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """These bookings as they now are. `match`: finds them quicker, but for some that it leaves out."""
    found = {row["_id"]: row for row in Booking.rows().find(match, FIELDS)} if match else {}
    for part in _parts([name for name in names if name not in found], BATCH):
        found |= {row["_id"]: row for row in Booking.rows().find({"_id": {"$in": list(part)}}, FIELDS)}
    return found


def _with_places(
    rows: list[dict[str, Any]], known: Mapping[str, CourseSession], page: Mapping[str, dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], list[Held]]]:
    """Each booking with its places and their sessions as they now are. `page`: by booking, a place that has been read; whoever
    booked one session has no other."""
    places = defaultdict(list, {raw["_id"]: [page[raw["_id"]]] for raw in rows if raw.get("session") and raw["_id"] in page})
    for part in _parts([raw["_id"] for raw in rows if raw["_id"] not in places], BATCH):
        for place in Place.rows().find({"booking": {"$in": list(part)}}, HELD):
            places[place["booking"]].append(place)
    there = dict(known)
    for part in _parts(sorted({place["session"] for many in places.values() for place in many} - there.keys()), BATCH):
        there |= {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find({"_id": {"$in": list(part)}})}
    for raw in rows:
        yield raw, [_held(one, there[one["session"]]) for one in places[raw["_id"]]]


def _held(row: Mapping[str, Any], session: CourseSession) -> Held:
    """As the holder sees it, but for how many wait before it: a count for each place, and no message says it."""
    until = row.get("offered_until") if row["state"] == "offered" else None
    return Held(
        row["_id"], session, row["state"], row["seats"], row["number"], 0, until, row.get("attended"), row["history"],
        feedback=False,
    )  # fmt: skip


# --- one look at one booking -----------------------------------------------------------------------------------------


def _turns(
    run: _Sweep,
    rows: list[dict[str, Any]],
    known: Mapping[str, CourseSession],
    page: Mapping[str, dict[str, Any]],
    names: set[str],
) -> list["_Turn"]:
    """Look at each of these bookings, for the rounds of these names or since its time has come; those to be pushed now."""
    now = store.now()
    turns = [_look(raw, places, run, names, now) for raw, places in _with_places(rows, known, page)]
    _write(turns)
    return [turn for turn in turns if turn.update is None and turn.news]


def _look(raw: Mapping[str, Any], places: list[Held], run: _Sweep, names: set[str], now: datetime) -> "_Turn":
    """What there is to tell. With an `update` when that, or nothing, is not for now."""
    attempt = raw.get("push_try") or {}
    done, owed = set(raw.get("pushed") or ()), set(attempt.get("owed") or ())
    news, zones, counted = {}, set(), set()
    for one in places:
        for at, kind, what, offer in happened(one, now):
            name, key = f"{one.id}.{_named(what, at)}", f"{one.session.id}.{_named(what, at)}"
            passed = key in run.rounds and run.rounds[key]["after"] >= one.number and name not in owed and raw.get("push_at")
            until = one.session.starts_at if kind in LEADS else offer or at + NEWS
            if name not in done and not passed and at > raw["seen_at"] and (until > now or name in owed):
                news[name] = until
                zones.add(one.session.zone)
                if key in names:
                    counted.add(name)
    turn = _Turn(raw, news, run.count, zones, counted if names else None, _later(raw, places, now))
    if not raw.get("push") or raw["expires_at"] <= now:  # nothing will be told any more; `purge` is on its way
        turn.news, turn.update = {}, UpdateOne({"_id": raw["_id"]}, {"$unset": {"push_at": "", "push_try": ""}})
    elif not turn.drop(now):
        turn.end()
    elif now < attempt.get("not_before", now) <= now + LONGEST:
        turn.hold(attempt["not_before"], attempt)
    elif held := _quiet(now, zones):
        turn.hold(held)  # the hour of tries begins anew in the morning: held is not tried
    return turn


def _quiet(now: datetime, zones: Iterable[str]) -> datetime | None:
    """The end of the quiet hours, where it is latest."""
    return max(filter(None, (_quiet_in(now, zone) for zone in zones)), default=None)


@lru_cache(maxsize=64)
def _quiet_in(now: datetime, zone: str) -> datetime | None:
    return quiet_until(now, zone)  # a page's bookings are looked at as of one moment


def _later(raw: Mapping[str, Any], places: Iterable[Held], now: datetime) -> datetime:
    """When a booking is looked at again, if nothing is released before."""
    asks = any(one.state in OPEN and one.session.state == "published" and one.session.ends_at > now for one in places)
    return now + AGAIN if asks else raw["expires_at"]


class _Turn:
    """One look at one booking: what there is to tell, until when, and what is written down in the end."""

    def __init__(
        self,
        raw: Mapping[str, Any],
        news: dict[str, datetime],
        count: Callable[..., None],
        zones: set[str],
        counted: set[str] | None,
        later: datetime,
    ) -> None:
        self.raw, self.news, self.count, self.zones, self.later = raw, news, count, zones, later
        self.counted = counted
        """What a round counts as told when it goes on; None when it was looked at since its time had come."""
        self.over: list[str] = []
        self.update: UpdateOne | None = None

    def drop(self, now: datetime) -> bool:
        """Leave out what will be no news any more at `now`; whether anything is left."""
        late = [name for name, until in self.news.items() if until <= now]
        if late:
            self.over += late
            self.count("expired", len(late))
        self.news = {name: until for name, until in self.news.items() if until > now}
        return bool(self.news)

    def hold(self, until: datetime, attempt: Mapping[str, Any] | None = None) -> None:
        """Look again at `until`, if anything is news then."""
        if self.drop(until):
            self.count("put_off")
            self._put(until, {**(attempt or {}), "owed": sorted(self.news)})
        else:
            self.end()

    def end(self) -> None:
        """Nothing more to tell for now."""
        if self.counted is not None:
            self.over = [name for name in self.over if name not in self.counted]
        if self.counted is None or self.over or self.raw.get("push_try"):
            self._put(self.later)

    def message(self, words: tuple[str, str]) -> fcm.Message:
        """The push. Raises `SettingsError` when its address does not open."""
        key = hashlib.sha256(b"push of " + self.raw["_id"].encode()).hexdigest()[:32]  # APNs takes 64 bytes; opens nothing here
        target = json.loads(sealed.unseal(self.raw["push"]))
        ttl = min(TTL_LIMIT, int((max(self.news.values()) - store.now()).total_seconds()))
        return fcm.Message(key, target["value"], *words, ttl, target["kind"], {"kind": "booking"})

    def settle(self, outcome: outcomes.Outcome, now: datetime) -> bool:
        """Say what came of a push; whether it passed."""
        if isinstance(outcome, outcomes.Retry | outcomes.Unknown):
            self._again(outcome, now)
            return False
        if isinstance(outcome, outcomes.Refused) and outcome.drop_target:
            mine = {"_id": self.raw["_id"], "push": self.raw["push"]}  # not the one that the family may just have left
            self.update = UpdateOne(mine, {"$unset": {"push": "", "push_at": "", "push_try": ""}})
            self.count("gone")
            return True
        refused = isinstance(outcome, outcomes.Refused)
        self.count("refused" if refused else "pushed", len(self.news) if refused else 1)
        self.over += self.news
        self.end()
        return not (isinstance(outcome, outcomes.Refused) and outcome.stop)

    def _again(self, outcome: outcomes.Retry | outcomes.Unknown, now: datetime) -> None:
        attempt = self.raw.get("push_try") or {}
        tries = attempt.get("tries", 0) + 1
        then = now + outcomes.backoff(tries, outcome.after if isinstance(outcome, outcomes.Retry) else 0.0)
        first = min(attempt.get("first", now), now)
        if held := _quiet(then, self.zones):
            self.hold(held)
        elif then > first + GIVE_UP:
            self.count("failed", len(self.news))
            self.over += self.news
            self.end()
        else:
            self.hold(then, {"first": first, "tries": tries, "not_before": then})

    def _put(self, later: datetime, attempt: Mapping[str, Any] | None = None) -> None:
        update: dict[str, Any] = {"$set": {"push_at": later}}
        if attempt:
            update["$set"]["push_try"] = dict(attempt)
        elif self.raw.get("push_try"):
            update["$unset"] = {"push_try": ""}
        if self.over:
            update["$addToSet"] = {"pushed": {"$each": self.over}}
        self.update = UpdateOne({"_id": self.raw["_id"]}, update)


def _ready(run: _Sweep, turns: list[_Turn]) -> list[tuple[_Turn, fcm.Message]]:
    """Each with its push. Those whose address does not open are tried again later."""
    ready, closed = [], []
    for turn in turns:
        try:
            ready.append((turn, turn.message(run.words)))
        except SettingsError as error:
            log.error("a push address does not open: %s", error)
            turn.settle(outcomes.Retry(outcomes.QUOTA_WAIT, "sealed"), store.now())
            closed.append(turn)
    _write(closed)
    return ready


def _send(run: _Sweep, pages: Iterator[_Page]) -> None:
    """Push page after page, and write down what came of them."""
    with ThreadPoolExecutor(1, "page") as desk:
        line = _Line(run, pages, desk)
        while not run.stopped() and line.page():
            line.push()


class _Line:
    """Pages on their way. `desk`, one thread, reads and writes them, in their order."""

    def __init__(self, run: _Sweep, pages: Iterator[_Page], desk: ThreadPoolExecutor) -> None:
        self.run, self.pages, self.desk = run, pages, desk
        self.coming: Future[_Page | None] | None = None
        self.begun: deque[_Page] = deque()
        self.writing: deque[Future[None]] = deque()
        self.turns: dict[int, tuple[_Page, _Turn]] = {}
        """By the number of the post, while it is under way."""

    def page(self) -> _Page | None:
        """The next page; None after the last."""
        self.coming = self.coming or self.desk.submit(next, self.pages, None)
        return self.coming.result()

    def push(self) -> None:
        """Push up to a page that has to wait for those before it, or until no more may begin; all is written down then."""
        for index, outcome in fcm.each(self._messages(), self.run.settings, self.run.width):
            page, turn = self.turns.pop(index)
            self.run.note(turn.settle(outcome, store.now()))
            page.sent.append(turn)
            self._settle()
        self._settle(stopped=True)
        while self.writing:
            self.writing.popleft().result()

    def _messages(self) -> Iterator[fcm.Message]:
        self.turns, numbers = {}, count()
        while (self.coming or len(self.begun) < 2) and (page := self.page()):
            while len(self.begun) + len(self.writing) > (0 if page.late else 1):
                if not self.writing:
                    return
                self.writing.popleft().result()
            if page.late:
                _look_again(self.run, page)
            _hush(page)
            self.coming = None
            self.begun.append(page)
            self._settle()  # there may be nothing to push
            for turn, message in page.ready:
                self.turns[next(numbers)] = page, turn
                yield message

    def _settle(self, *, stopped: bool = False) -> None:
        """Have the pages written that are done, in their order; when `stopped`, the one that is not, as far as it came."""
        while self.begun and (stopped or len(self.begun[0].sent) == len(self.begun[0].ready)):
            self.writing.append(self.desk.submit(_settle, self.run, self.begun.popleft()))
        if self.coming is None and len(self.begun) < 2 and not stopped:  # not before: the writing would wait for it
            self.coming = self.desk.submit(next, self.pages, None)


def _look_again(run: _Sweep, page: _Page) -> None:
    """Look at those that had to wait for the pages before this one."""
    late = _turns(run, list(_bookings(page.late).values()), page.known, page.places, {row["_id"] for row in page.rounds})
    page.ready = sorted(page.ready + _ready(run, late), key=lambda one: page.places[one[0].raw["_id"]]["number"])


def _hush(page: _Page) -> None:
    """Hold those for whom the quiet hours have begun since the page was read."""
    now, ready, held = store.now(), [], []
    for turn, message in page.ready:
        if until := _quiet(now, turn.zones):
            turn.hold(until)
            held.append(turn)
        else:
            ready.append((turn, message))
    page.ready = ready
    _write(held)


def _settle(run: _Sweep, page: _Page) -> None:
    """Write down what came of a page, then how far its rounds have come: up to the first that was not begun with."""
    _write(page.sent)
    done = len(page.sent) == len(page.ready)  # they are begun with in their order, and all that were have an outcome
    last = page.last if done else page.places[page.ready[len(page.sent)][0].raw["_id"]]["number"] - 1 if page.places else 0
    for row in page.rounds:
        _advance(row, max(row["after"], last), over=page.end and done)
    run.series.subtract(page.series)
    run.series += Counts()  # forget those at none


def _write(turns: Iterable[_Turn]) -> None:
    if updates := [turn.update for turn in turns if turn.update is not None]:
        Booking.rows().bulk_write(updates, ordered=False)

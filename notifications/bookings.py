"""Pushes to those who booked: something happened to a booking, or its session is tomorrow, or in two hours.

The booking's own inbox (`content.reaching.messages`) is the truth; a push only says that there is something to read. It goes to
the one address that the family left with its booking and names neither title nor people nor subject. An address that FCM calls
gone is forgotten with the same step; nothing else ever makes us drop one.

    Booking.push_at   when the booking is looked at next; absent: at once
    Booking.pushed    ids of the messages that are done with: pushed, refused, given up or past their time
    Booking.push_try  {"first", "tries", "not_before"} while FCM did not take it

`sweep` is the only writer of the three, and a lease in the database lets one worker sweep at a time. It reads which sessions
were released since the last sweep (`published`, whose sequence no clock can disturb) and brings their bookings' `push_at`
forward; then looks at what is due: computes the inbox, sends at most one push, and writes down the messages it stood for. A
place that waits for an answer is looked at each minute, since no session is released when it gets one.

Whatever line a worker dies at, the next sweep finds the same work; between FCM's answer and the write that is one push twice,
under the same collapse key.
"""

import hashlib
import json
import logging
import random
import time
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, ClassVar

import mongoengine as me
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from content import sealed, store
from content.bookings import ACTIVE, Booking, Held, Place
from content.courses import CourseSession
from content.published import Counter, PublishedRow
from content.reaching import REMINDERS, messages
from content.settings import Settings, SettingsError
from content.waking import quiet_until
from notifications import fcm, outcomes
from notifications.notices import BACKOFF_LIMIT, GIVE_UP, LEASE, TTL_LIMIT

log = logging.getLogger("xinqiao.pushes")

NEWS = timedelta(hours=48)  # what happened longer ago is no news
AGAIN = timedelta(seconds=60)  # until a place that waits for an answer is looked at again
BUDGET = 20.0  # seconds of one sweep: a worker that is told to stop need not wait for two thousand phones
IN_A_ROW = 5  # pushes that did not pass end a sweep: it is not the phones' fault
DUE = 500  # bookings read at a time, where the embedded server walks through all that are due
BATCH = 50  # the embedded server's `$in` grows with its square: 100 names 0.03 s, 1,000 names 5 s
LONGEST = timedelta(minutes=75)  # the longest that a retry waits; more was written by a clock that ran ahead
EVER = datetime(1970, 1, 1, tzinfo=UTC)  # dates only: without a lower bound the embedded server walks through all nulls
KINDS = ("session", "invited_session")
OPEN = ("requested", "waiting", "offered")
KEY = "bookings"
TEXTS = {"zh-Hans": ("心桥", "心桥有一条新消息"), "en": ("Xinqiao", "A new message in Xinqiao")}
FIELDS = dict.fromkeys(("push", "push_at", "pushed", "push_try", "seen_at", "expires_at"), 1)


class PushSweep(store.Row):
    """Who sweeps, and how far it came; one row."""

    lease = me.StringField(required=True)
    lease_until = me.DateTimeField(required=True)
    seq = me.IntField(required=True)
    """Of the published set: sessions up to here have been followed."""
    at = me.DateTimeField(required=True)
    """When that was."""

    meta: ClassVar[dict[str, Any]] = {"collection": "push_sweeps"}


def sweep(settings: Settings) -> Counts[str]:
    """Bring the pushes to bookings up to now. Returns how many bookings were pushed, put_off, or lost their phone's address
    (gone), and how many messages are expired, refused or failed. Nothing while another sweeps, and nothing at all without
    push credentials. Needs `sealed.configure`. Raises driver errors; the next sweep goes on."""
    counts: Counts[str] = Counts()
    if not settings.fcm_url and not settings.firebase_credentials:
        return counts
    if state := _claim():
        _follow(state)
        _carry(state["lease"], settings, counts)
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


# --- who is to be looked at ------------------------------------------------------------------------------------------


def _follow(state: Mapping[str, Any]) -> None:
    """Have the bookings of sessions with fresh events looked at. The sequence is written after the bookings: a crash between
    the two has them looked at once more."""
    now, top = store.now(), _sequence()
    if state["at"] > now + AGAIN:
        log.warning("the clock went back: every booking is looked at again")
        _wake(state["lease"], Booking.rows().find({"push_at": {"$gt": now}}, {"_id": 1}), "_id")
    since = state["seq"] if state["seq"] <= top else 0  # it ran backwards: another set was put in its place
    released = PublishedRow.rows().find({"seq": {"$gt": since, "$lte": top}}, {"kind": 1, "key": 1})
    for name in sorted({row["key"] for row in released if row["kind"] in KINDS}):
        raw = CourseSession.rows().find_one({"_id": name}, {"events": 1})
        if raw and raw.get("events") and raw["events"][-1]["at"] > now - NEWS:
            _wake(state["lease"], Place.rows().find({"session": name, "state": {"$in": ACTIVE}}, {"booking": 1}), "booking")
    _renew(state["lease"], seq=top, at=now)


def _wake(lease: str, rows: Iterable[Mapping[str, Any]], field: str) -> None:
    """Have these bookings looked at now, as long as the lease is ours; those without a phone to push to have no `push_at`."""
    now, left = store.now(), iter(rows)
    while (names := [row[field] for row in islice(left, BATCH)]) and _renew(lease):
        match, update = {"_id": {"$in": names}, "push_at": {"$gt": now}}, {"$set": {"push_at": now}}

        def work(tx: ClientSession, match: Any = match, update: Any = update) -> None:
            Booking.rows().update_many(match, update, session=tx)

        store.transaction(work)


# --- what is due -----------------------------------------------------------------------------------------------------


def _carry(lease: str, settings: Settings, counts: Counts[str]) -> None:
    """Look at what is due, a batch at a time, until nothing is, the budget is used up, or too many in a row did not pass."""
    ends, row = time.monotonic() + BUDGET, 0
    while due := _due():
        for start in range(0, len(due), BATCH):
            rows = due[start : start + BATCH]
            for raw, places in _with_places(rows):
                passed = _look(raw, places, lease, settings, counts)
                row = row if passed is None else 0 if passed else row + 1
                if row >= IN_A_ROW:
                    log.warning("%s pushes in a row did not pass: the rest waits for the next sweep", row)
                    return
                if time.monotonic() > ends:
                    return
            if not _renew(lease):
                return


def _due() -> list[dict[str, Any]]:
    """What is to be looked at now, longest due first; then what never was."""
    rows = Booking.rows()
    due = rows.find({"push_at": {"$gt": EVER, "$lte": store.now()}}, FIELDS).sort("push_at", 1).limit(DUE)
    return list(due) or list(rows.find({"push_at": None, "push": {"$gt": b""}}, FIELDS).limit(DUE))


def _with_places(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list[Held]]]:
    """Each booking with its places and their sessions as they now are."""
    places: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for place in Place.rows().find({"booking": {"$in": [raw["_id"] for raw in rows]}}):
        places[place["booking"]].append(place)
    wanted = sorted({place["session"] for many in places.values() for place in many})
    there = {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find({"_id": {"$in": wanted}})}
    for raw in rows:
        yield raw, [_held(one, there[one["session"]]) for one in places[raw["_id"]]]


def _held(row: Mapping[str, Any], session: CourseSession) -> Held:
    """As the holder sees it, but for how many wait before it: a count for each place, and no message says it."""
    until = row.get("offered_until") if row["state"] == "offered" else None
    return Held(
        row["_id"], session, row["state"], row["seats"], row["number"], 0, until, row.get("attended"), row["history"],
        feedback=False,
    )  # fmt: skip


def _look(raw: Mapping[str, Any], places: list[Held], lease: str, settings: Settings, counts: Counts[str]) -> bool | None:
    """Send what there is to tell, or say when to look again. True when a push passed (or its address is gone), False when none
    did, None when none was due."""
    now = store.now()
    if not raw.get("push") or raw["expires_at"] <= now:  # nothing will be told any more; `purge` is on its way
        Booking.rows().update_one({"_id": raw["_id"]}, {"$unset": {"push_at": "", "push_try": ""}})
        return None
    done, news, zones = set(raw.get("pushed") or ()), {}, set()
    for one in places:
        for message in messages(one, now, {}):
            name = f"{message.id}.{message.at:%y%m%d%H%M}"  # a session that is moved has reminders of its own again
            if name not in done and message.at > raw["seen_at"]:
                news[name] = _until(message.kind, message.at, one)
                zones.add(one.session.zone)
    attempt = raw.get("push_try") or {}
    turn = _Turn(raw, news, min((at for one in places for at in _moments(one, now)), default=raw["expires_at"]), counts)
    if not turn.drop(now):
        turn.end()
        return None
    if now < attempt.get("not_before", now) <= now + LONGEST:
        turn.hold(attempt["not_before"], attempt)
        return None
    if held := max(filter(None, (quiet_until(now, zone) for zone in zones)), default=None):
        turn.hold(held)  # the hour of tries begins anew in the morning: held is not tried
        return None
    # what was read with the batch may be some seconds old; who has looked, or left, since then is not disturbed
    present = Booking.rows().find_one({"_id": raw["_id"]}, FIELDS)
    if not _renew(lease) or present is None or any(present.get(name) != raw.get(name) for name in ("push", "seen_at")):
        return None
    outcome = _send(raw, int((max(turn.news.values()) - now).total_seconds()), settings)
    return turn.settle(outcome, store.now(), attempt, zones)


def _until(kind: str, at: datetime, held: Held) -> datetime:
    """When a message is news no more."""
    if kind in dict(REMINDERS):
        return held.session.starts_at  # type: ignore[no-any-return]
    return held.offered_until if kind == "offered" and held.offered_until else at + NEWS


def _moments(held: Held, now: datetime) -> Iterable[datetime]:
    """When a place is to be looked at again, if nothing is released before."""
    session = held.session
    if session.state != "published" or session.ends_at <= now:
        return
    if held.state in OPEN:
        yield now + AGAIN
    if held.state == "confirmed":
        yield from (session.starts_at - lead for _, lead in REMINDERS if session.starts_at - lead > now)


def _send(raw: Mapping[str, Any], ttl: int, settings: Settings) -> outcomes.Outcome:
    title, body = TEXTS.get(settings.language, TEXTS["en"])
    key = hashlib.sha256(b"push of " + raw["_id"].encode()).hexdigest()[:32]  # APNs takes 64 bytes; opens nothing here
    try:
        target = json.loads(sealed.unseal(raw["push"]))
    except SettingsError as error:
        log.error("a push address does not open: %s", error)
        return outcomes.Retry(outcomes.QUOTA_WAIT, "sealed")
    message = fcm.Message(key, target["value"], title, body, min(ttl, TTL_LIMIT), target["kind"], {"kind": "booking"})
    return fcm.send(message, settings)


class _Turn:
    """One look at one booking: what there is to tell, until when, and what is written down in the end."""

    def __init__(self, raw: Mapping[str, Any], news: dict[str, datetime], later: datetime, counts: Counts[str]) -> None:
        self.raw, self.news, self.later, self.counts = raw, news, later, counts
        self.over: list[str] = []

    def drop(self, now: datetime) -> bool:
        """Leave out what will be no news any more at `now`; whether anything is left."""
        late = [name for name, until in self.news.items() if until <= now]
        if late:
            self.over += late
            self.counts["expired"] += len(late)
        self.news = {name: until for name, until in self.news.items() if until > now}
        return bool(self.news)

    def hold(self, until: datetime, attempt: Mapping[str, Any] | None = None) -> None:
        """Look again at `until`, if anything is news then."""
        if self.drop(until):
            self.counts["put_off"] += 1
            self._write(until, attempt)
        else:
            self.end()

    def end(self) -> None:
        """Nothing more to tell for now."""
        self._write(self.later)

    def settle(self, outcome: outcomes.Outcome, now: datetime, attempt: Mapping[str, Any], zones: Iterable[str]) -> bool:
        """Write down what came of a push; whether it passed. A second worker's write of the same adds nothing."""
        if isinstance(outcome, outcomes.Retry | outcomes.Unknown):
            self._again(outcome, now, attempt, zones)
            return False
        if isinstance(outcome, outcomes.Refused) and outcome.drop_target:
            mine = {"_id": self.raw["_id"], "push": self.raw["push"]}  # not the one that the family may just have left
            Booking.rows().update_one(mine, {"$unset": {"push": "", "push_at": "", "push_try": ""}})
            self.counts["gone"] += 1
            return True
        refused = isinstance(outcome, outcomes.Refused)
        self.counts["refused" if refused else "pushed"] += len(self.news) if refused else 1
        self.over += self.news
        self.end()
        return not (isinstance(outcome, outcomes.Refused) and outcome.stop)

    def _again(
        self, outcome: outcomes.Retry | outcomes.Unknown, now: datetime, attempt: Mapping[str, Any], zones: Iterable[str]
    ) -> None:
        tries = attempt.get("tries", 0) + 1
        wait = outcome.after if isinstance(outcome, outcomes.Retry) else 0.0
        delay = max(wait, min(BACKOFF_LIMIT, outcomes.FLOOR * 2 ** min(tries - 1, 10)))
        then = now + timedelta(seconds=delay * (1 + random.random() / 4))  # noqa: S311  (jitter, no secret)
        first = min(attempt.get("first", now), now)
        if held := max(filter(None, (quiet_until(then, zone) for zone in zones)), default=None):
            self.hold(held)
        elif then > first + GIVE_UP:
            self.counts["failed"] += len(self.news)
            self.over += self.news
            self.end()
        else:
            self.hold(then, {"first": first, "tries": tries, "not_before": then})

    def _write(self, later: datetime, attempt: Mapping[str, Any] | None = None) -> None:
        update: dict[str, Any] = {"$set": {"push_at": later}}
        if attempt:
            update["$set"]["push_try"] = dict(attempt)
        elif self.raw.get("push_try"):
            update["$unset"] = {"push_try": ""}
        if self.over:
            update["$addToSet"] = {"pushed": {"$each": self.over}}
        Booking.rows().update_one({"_id": self.raw["_id"]}, update)

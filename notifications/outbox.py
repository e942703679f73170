"""How notices leave: `sweep` brings each to where it should be, `fan_out` hands the due ones to their channels.

One fan-out at a time, wherever it runs: a gate in the database has a lease, and whoever holds it claims one due notice after the
other, urgent ones first, sends one message at a time, writes each outcome down (`note`) and ends with `settle`. After a crash the
lease runs out, `sweep` makes the notice due again, and only what has no outcome is sent again, under the same collapse key.

Inbox first: in the transaction that makes a notice due it enters the published set. Quiet hours, exams and crowded minutes
(`hours`) hold a push and never drop it. Whatever line a worker dies at, the next sweep finds the same work.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from content import records, store
from content.failures import Failure
from content.records import SYSTEM
from content.settings import Settings
from notifications import channels, drafting, hours, notices, seasons, told, topics
from notifications.channels import WHOLE, Work
from notifications.notices import OPEN, Notice
from notifications.outcomes import GIVE_UP, Outcome, Refused, Retry, Sent, Skipped, Unknown, backoff

log = logging.getLogger("xinqiao.outbox")

LEASE = timedelta(seconds=60)  # a send ends within 10 s, and each one renews it
ADULTS_FIRST = timedelta(minutes=30)  # between an emergency's word to adults and its word to students
PACE = 1.0  # seconds between two messages of a fan-out: FCM fans each out to a district
IN_A_ROW = 3  # messages that did not pass end a turn: it is not the topics' fault
TURN = 60.0  # seconds of one fan-out; the next sweep goes on
RECALL_AGAIN = timedelta(minutes=5)
QUOTA_MOST = timedelta(hours=1)  # what FCM asks to wait is never longer (`outcomes.retry_after`)
LOOK = timedelta(seconds=30)  # until a notice that something keeps back is looked at again
# How far ahead a next try can be; what is later was set by a clock that ran ahead.
MOST: tuple[tuple[dict[str, Any], timedelta], ...] = (
    ({"state": "due"}, timedelta(hours=26)),  # a night or an exam ends within a day
    ({"state": "due", "urgent": True}, timedelta(hours=2)),  # waits for nothing but an hour that was asked for, and its spread
    ({"state": "scheduled"}, LOOK),
    ({"recall": True}, RECALL_AGAIN),
)
RELEASING = 3.0  # seconds of one sweep, a transaction each: when hundreds fall due at once, the first need not wait for the last
GATE, HELD = "gate", "held"
EVER = datetime(1970, 1, 1, tzinfo=UTC)  # without a lower bound the embedded server walks through all nulls

Clock = Callable[[], datetime]


def _now() -> datetime:
    """The clock that `store` shows at the moment of asking."""
    return store.now()


class Gate(store.Row):
    """Who sends now; one row."""

    lease = me.StringField(required=True)
    lease_until = me.DateTimeField(required=True)
    quota_until = me.DateTimeField()
    """Nothing is posted to FCM before: its last word was 429, and the quota is the project's, not the notice's."""

    meta: ClassVar[dict[str, Any]] = {"collection": "push_gate"}


# --- bringing the outbox up to now -----------------------------------------------------------------------------------


def sweep(now: datetime, settings: Settings) -> bool:
    """Bring every notice to where it should be at `now`; whether one is due and nobody is at it. Safe to run often, twice and in
    two places: each step acts only on the state it expects. Raises driver errors; the next sweep goes on."""
    rows = Notice.rows()
    for lapsed in ({"$lte": now}, {"$gt": now + LEASE}):  # the second was given by a clock that ran ahead
        _each(
            {"state": "claimed", "lease_until": lapsed},
            {"$set": {"state": "due", "next_try": now}, "$unset": {"lease": "", "lease_until": ""}},
        )
    for match, most in MOST:
        _each({**match, "next_try": {"$gt": now + most}}, {"$set": {"next_try": now}})
    for raw in list(rows.find({"state": {"$in": list(OPEN)}, "expires_at": {"$lte": now}}, {"_id": 1})):
        _step(raw["_id"], "expire", lambda notice: _expired(notice, now), notices.unlist)
    for raw in list(rows.find({"state": "drafted", "approve_by": {"$gt": EVER, "$lte": now}}, {"_id": 1})):
        _step(raw["_id"], "expire", lambda notice: _expired(notice, now), None)
    for raw in list(rows.find({"listed": True, "expires_at": {"$lte": now}}, {"_id": 1})):
        _step(raw["_id"], "unlist", lambda notice: {"listed": False} if notice.listed else {}, notices.unlist)
    for raw in list(rows.find({"state": "approved", "kind": {"$in": ["season", "emergency"]}}, {"_id": 1})):
        _step(raw["_id"], "schedule", lambda notice: _scheduled(notice, now), None)
    _release(now, settings)
    if not any(rows.find_one(match, {"_id": 1}) for match in (_due(now), _recalls(now))):
        return False
    gate = Gate.rows().find_one({"_id": GATE})
    return gate is None or _lapsed(gate, now)


def _due(now: datetime) -> dict[str, Any]:
    return {"state": "due", "next_try": {"$lte": now}}


def _recalls(now: datetime) -> dict[str, Any]:
    return {"recall": True, "next_try": {"$gt": EVER, "$lte": now}}


def _release(now: datetime, settings: Settings) -> None:
    """Make due what is scheduled until `now`, urgent ones first, for RELEASING seconds: the rest waits for the next sweep, so
    that sending begins. What something keeps back is looked at again after LOOK and takes nobody's turn."""
    rows = Notice.rows()
    ready = rows.find({"state": "scheduled", "send_at": {"$lte": now}}).sort([("urgent", -1), ("send_at", 1)])
    left = [raw for raw in ready if not raw.get("next_try") or raw["next_try"] <= now]
    if not left:
        return
    overrides, served, ends = seasons.stored(), list[str](), time.monotonic() + RELEASING
    for number, raw in enumerate(left):
        if number and time.monotonic() > ends:
            break
        try:
            why = _not_yet(Notice.of(raw), now, overrides, settings)
        except PyMongoError:
            raise
        except Exception:  # a row that cannot be judged keeps nobody else's back
            log.exception("notice %s cannot be judged", raw["_id"])
            why = "fault"
        if why:
            held = {"$set": {"reason": why, "next_try": now + LOOK}}
            rows.update_one({"_id": raw["_id"], "state": "scheduled"}, held)
            continue
        served = served or notices.push_languages(settings)
        tags = sorted({*served, *raw["texts"]})
        _step(raw["_id"], "release", lambda notice, tags=tags: _falls_due(notice, now, tags), notices.relist)


def _each(match: dict[str, Any], update: dict[str, Any]) -> None:
    """Update all that match, one by one. A bare `update_many` that meets a row which an open transaction has written hangs
    the embedded server for good (a bare `update_one` waits its turn), and a notice is written by transactions too."""
    rows = Notice.rows()
    for raw in list(rows.find(match, {"_id": 1})):
        rows.update_one({**match, "_id": raw["_id"]}, update)


def _step(key: str, action: str, decide: Any, also: Any) -> None:
    """One audited step of the clock; one that fails is left for the next sweep and hinders no other notice."""
    try:
        records.change(Notice, key, SYSTEM, action, decide, also=also)
    except Failure as failure:
        log.warning("notice %s: %s put off: %s", key, action, failure)


def _scheduled(notice: Notice, now: datetime) -> dict[str, Any]:
    return {"state": "scheduled", "send_at": notice.send_at or now} if notice.state == "approved" else {}


def _expired(notice: Notice, now: datetime) -> dict[str, Any]:
    drafted = notice.state == "drafted"  # one that was approved in time goes, however late the sweep comes to it
    end = min(notice.expires_at, notice.approve_by or notice.expires_at) if drafted else notice.expires_at
    if notice.state not in OPEN or end > now:
        return {}
    why = {"drafted": "not_approved", "approved": "not_scheduled"}
    return {"state": "expired", "listed": False, "reason": why.get(notice.state, notice.reason or "time_passed")}


def _not_yet(notice: Notice, now: datetime, overrides: list[seasons.Override], settings: Settings) -> str:
    """Why a notice whose moment has come stays scheduled; "" when nothing keeps it."""
    if notice.season and not notices.dated(notice, overrides, settings):
        return "unconfirmed"
    if notice.kind == "season" and drafting.moved(notice, overrides, settings):
        return "date_moved"  # the next tick drafts it anew
    return "" if _adults_know(notice, now) else "adults_first"


def _adults_know(notice: Notice, now: datetime) -> bool:
    return not notice.after or (students_from(notice) or now + ADULTS_FIRST) <= now


def students_from(notice: Notice) -> datetime | None:
    """When an emergency notice to students may leave: half an hour after the last of its adults were told; None until they were,
    and when their notice was taken back."""
    raw = Notice.rows().find_one({"_id": notice.after})
    if raw is None or raw["state"] in {"due", "claimed"} or not notices.covers_first(raw, notice.divisions, notice.stages):
        return None
    told_at = [row["at"] for row in raw.get("results") or ()]
    return max(told_at) + ADULTS_FIRST if told_at else None


def _falls_due(notice: Notice, now: datetime, tags: list[str]) -> dict[str, Any]:
    if notice.state != "scheduled":
        return {}
    return {"state": "due", "listed": True, "next_try": now, "push_languages": tags, "reason": None}


# --- the gate --------------------------------------------------------------------------------------------------------


def _lapsed(gate: dict[str, Any], now: datetime) -> bool:
    """Its lease is over, or was given by a clock that ran ahead."""
    return not now < gate["lease_until"] <= now + LEASE


def enter(now: datetime) -> str | None:
    """The lease of the gate; None while another has it."""
    rows, lease = Gate.rows(), store.new_id()
    mine = {"lease": lease, "lease_until": now + LEASE}
    found = rows.find_one({"_id": GATE})
    if found is None:
        try:
            rows.insert_one({"_id": GATE, **mine})
        except DuplicateKeyError:
            return None
        return lease
    if not _lapsed(found, now):
        return None
    same = {"_id": GATE, "lease": found["lease"], "lease_until": found["lease_until"]}  # not renewed since it was read
    return lease if rows.update_one(same, {"$set": mine}).matched_count else None


def leave(lease: str, now: datetime) -> None:
    """Give the gate back; one that is another's by now stays that one's."""
    Gate.rows().update_one({"_id": GATE, "lease": lease}, {"$set": {"lease_until": now}})


def _renew(lease: str, now: datetime) -> bool:
    return bool(Gate.rows().update_one({"_id": GATE, "lease": lease}, {"$set": {"lease_until": now + LEASE}}).matched_count)


# --- one notice ------------------------------------------------------------------------------------------------------


def fan_out(settings: Settings, clock: Clock = _now, pause: Callable[[float], None] = time.sleep) -> Counter[str]:
    """Send what is due, one notice after the other, until nothing is or TURN is over. Returns how many came to which state.
    Nothing while another is at it. Raises driver errors: the leases then run out and the sweep heals."""
    found: Counter[str] = Counter()
    if (lease := enter(clock())) is None:
        return found
    overrides, ends = seasons.stored(), time.monotonic() + TURN
    while time.monotonic() < ends and (notice := claim(lease, clock(), settings, overrides)):
        found[carry(notice, settings, overrides, clock, pause)] += 1
    _recall(settings, clock)
    leave(lease, clock())
    return found


def _recall(settings: Settings, clock: Clock) -> None:
    """Tell the district's own system of one notice that was cancelled after it may have had it; again later when it does not
    answer, until the notice would have expired."""
    now = clock()
    if raw := Notice.rows().find_one(_recalls(now), {"expires_at": 1}):
        outcome = channels.recall(raw["_id"], settings)
        over = not isinstance(outcome, Retry | Unknown) or raw["expires_at"] <= now
        update = {"$unset": {"recall": "", "next_try": ""}} if over else {"$set": {"next_try": now + RECALL_AGAIN}}
        Notice.rows().update_one({"_id": raw["_id"], "recall": True}, update)


def claim(lease: str, now: datetime, settings: Settings, overrides: Sequence[seasons.Override]) -> Notice | None:
    """The next due notice under the gate's lease: urgent ones first, then the longest due. What may not leave now is held on the
    way. None when nothing is due, or the gate is another's."""
    rows = Notice.rows()
    if not _renew(lease, now):
        return None
    due = {**_due(now), "expires_at": {"$gt": now}}
    needed = dict.fromkeys(("urgent", "divisions", "season", "after"), 1)
    for raw in list(rows.find(due, needed).sort([("urgent", -1), ("next_try", 1)])):
        match = {**due, "_id": raw["_id"]}
        if not raw["urgent"] and (free := hours.free_from(now, raw.get("divisions") or [], settings, overrides)) > now:
            rows.update_one(match, _held(free, now, raw.get("divisions") or [], settings, overrides))
            continue
        if raw.get("season") or raw.get("after"):
            notice = notices.get(raw["_id"])
            if notice.kind == "season" and drafting.moved(notice, overrides, settings):
                drafting.call_off(notice.id)
                continue
            if why := _no_longer(notice, now, overrides, settings):
                rows.update_one(match, {"$set": {"next_try": now + LOOK, "reason": why}, "$unset": {"first_try": ""}})
                continue
        update = {
            "$set": {"state": "claimed", "lease": lease, "lease_until": now + LEASE},
            "$inc": {"attempts": 1},
            "$min": {"first_try": now, "push_day": f"{_day(now, settings)}"},
        }
        taken = rows.find_one_and_update(match, update, return_document=ReturnDocument.AFTER)
        if taken:
            return Notice.of(taken)
    return None


def _no_longer(notice: Notice, now: datetime, overrides: Sequence[seasons.Override], settings: Settings) -> str:
    """Why a due notice is kept back after all: its date was taken back before anybody was told, or its adults' word was."""
    if notice.season and not notice.results and not notices.dated(notice, list(overrides), settings):
        return "unconfirmed"
    return "" if _adults_know(notice, now) else "adults_first"


def _held(
    free: datetime, now: datetime, codes: Sequence[str], settings: Settings, overrides: Sequence[seasons.Override]
) -> dict[str, Any]:
    """The update that holds a due notice until `free`. Held is not tried: the hour of tries begins anew, unless it only waits for
    a less crowded minute."""
    update: dict[str, Any] = {"$set": {"next_try": free, "reason": f"held_until: {notices.iso(free)}"}}
    if hours.held_until(now, codes, settings, overrides):
        update["$unset"] = {"first_try": ""}
    return update


def carry(
    notice: Notice,
    settings: Settings,
    overrides: Sequence[seasons.Override],
    clock: Clock = _now,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Send what is open of a claimed notice and settle it. Returns the state it left it in, or "not ours" when the claim was lost
    on the way. Raises driver errors."""
    wait, reason, until, held = 0.0, "", None, set[str]()
    for step in channels.steps(settings):
        while todo := channels.work(notice, step):
            if todo.channel == "webhook":
                turn = _hook(notice, settings, overrides, clock)
            else:
                turn = _push(notice, todo, settings, overrides, clock, pause)
            if turn is None:
                return "not ours"
            if turn.reason:
                until = turn.until or until
                held |= {todo.channel} if turn.reason == HELD else set()
                wait, reason = max(wait, turn.wait), turn.reason if reason in {"", HELD} else reason
                break
    return settle(notice, clock(), settings, overrides, wait=wait, reason=reason, until=until, held=held) or "not ours"


class _Turn:
    """What is to be waited for after a channel's turn."""

    def __init__(self) -> None:
        self.wait, self.reason, self.row = 0.0, "", 0
        self.until: datetime | None = None

    def heed(self, outcome: Outcome) -> bool:
        """Whether the turn may go on after this outcome."""
        passed = not isinstance(outcome, Retry | Unknown)
        self.row = 0 if passed else self.row + 1
        if isinstance(outcome, Retry):
            self.wait = max(self.wait, outcome.after)
        if isinstance(outcome, Retry | Unknown):
            self.reason = self.reason or outcome.reason or "no outcome"
        return self.row < IN_A_ROW and not _quota(outcome)


def _quota(outcome: Outcome) -> bool:
    return isinstance(outcome, Retry) and outcome.reason.startswith("429")


def _hook(notice: Notice, settings: Settings, overrides: Sequence[seasons.Override], clock: Clock) -> _Turn | None:
    """Hand a notice to the district's own system, which rings its families as soon as it has it. None when the claim is lost."""
    turn = _Turn()
    if not may_go_on(notice, clock(), settings, overrides):  # a fan-out before it may have come into the night
        turn.reason = HELD
        return turn
    outcome = channels.hook(notice, settings)
    if not note(notice, "webhook", [WHOLE], outcome, clock()):
        return None
    turn.heed(outcome)
    return turn


def _push(
    notice: Notice,
    todo: Work,
    settings: Settings,
    overrides: Sequence[seasons.Override],
    clock: Clock,
    pause: Callable[[float], None],
) -> _Turn | None:
    """Hand a notice's open topics to FCM, a condition at a time. None when the claim is lost."""
    turn, now = _Turn(), clock()
    day = _day(now, settings)
    gate = Gate.rows().find_one({"_id": GATE}) or {}
    if now < (gate.get("quota_until") or EVER) <= now + QUOTA_MOST:
        turn.until, turn.reason = gate["quota_until"], HELD  # another message met it
        return turn
    known = [] if notice.urgent else told.on(day, notice.id)
    pushes, rest = topics.plan(todo.keys, known, notice.left_by_done)
    if rest and not note(notice, todo.channel, rest, None, clock()):
        return None
    if notice.attempts > 1:  # else the same ones would fail first each time, and the others never be tried
        random.shuffle(pushes)
    for number, one in enumerate(pushes):
        if number:
            pause(PACE)
        at = clock()
        if not may_go_on(notice, at, settings, overrides) or _day(at, settings) != day or _urgent_waits(notice, at):
            turn.reason = turn.reason or HELD
            break
        if not note(notice, todo.channel, [], None, at):  # cancelled in the pause: whoever did it was told that nothing follows
            return None
        new = told.put(day, one.topics, notice.id, at)
        outcome = channels.push(notice, one, settings, at)
        if isinstance(outcome, Refused | Skipped | Retry):  # it was not taken; an Unknown may have been
            told.take_back(day, new, notice.id)  # but for those that an earlier attempt may have told
        if not note(notice, todo.channel, one.topics, outcome, clock()):
            return None
        if isinstance(outcome, Refused) and outcome.stop:
            left = [topic for other in pushes[number + 1 :] for topic in other.topics]
            return turn if not left or note(notice, todo.channel, left, outcome, clock()) else None
        if isinstance(outcome, Retry) and _quota(outcome):
            Gate.rows().update_one({"_id": GATE}, {"$set": {"quota_until": clock() + timedelta(seconds=outcome.after)}})
        if not turn.heed(outcome):
            break
    return turn


def _urgent_waits(notice: Notice, now: datetime) -> bool:
    """Whether an urgent notice waits behind this one, which is not: a fan-out to a city takes minutes."""
    match = {"state": "due", "next_try": {"$lte": now}, "urgent": True}
    return not notice.urgent and Notice.rows().find_one(match, {"_id": 1}) is not None


def _day(now: datetime, settings: Settings) -> date:
    return now.astimezone(ZoneInfo(settings.zone)).date()


def may_go_on(notice: Notice, now: datetime, settings: Settings, overrides: Sequence[seasons.Override]) -> bool:
    """Whether a claimed notice's next message may leave at this moment: not expired, not held, its adults not taken back."""
    if notice.expires_at <= now or not _adults_know(notice, now):
        return False
    return bool(notice.urgent or hours.free_from(now, notice.divisions, settings, overrides) <= now)


ROWS: dict[type, str] = {Sent: "sent", Skipped: "skipped", Refused: "refused"}


def note(notice: Notice, channel: str, keys: Sequence[str], outcome: Outcome | None, now: datetime) -> bool:
    """Write down what came of these topics (None: their phones were told of something else today) and renew the leases. False
    when the claim is lost (cancelled, or the lease ran out and another has it): then stop at once. A Retry or Unknown leaves
    the topics open, and no topics at all only ask whether it is ours."""
    update: dict[str, Any] = {"$set": {"lease_until": now + LEASE}}
    kind = "inbox_only" if outcome is None else ROWS.get(type(outcome), "")
    detail = outcome.name if isinstance(outcome, Sent) else getattr(outcome, "reason", "")
    made = [{"channel": channel, "topic": key, "outcome": kind, "detail": detail, "at": now} for key in keys if kind]
    if made:  # a set: the driver repeats a write whose answer was lost, and a database that was killed may not know it again
        update["$addToSet"] = {"results": {"$each": made}}
    match = {"_id": notice.id, "state": "claimed", "lease": notice.lease}
    if not Notice.rows().update_one(match, update).matched_count:
        return False
    notice.results.extend(notices.Result(**row) for row in made)
    return _renew(notice.lease, now)


def settle(
    notice: Notice,
    now: datetime,
    settings: Settings,
    overrides: Sequence[seasons.Override],
    *,
    wait: float = 0.0,
    reason: str = "",
    until: datetime | None = None,
    held: Collection[str] = (),
) -> str | None:
    """End a claim: at its end when every channel has come to its end, else due again after at least `wait` seconds, or, when it
    was only HELD, at `until`. What has not passed for an hour is given up, but for the channels that were `held`: the next one
    takes over, or the notice has failed.
    Returns the new state; None when the claim was lost, and then nothing is written."""
    match = {"_id": notice.id, "state": "claimed", "lease": notice.lease}
    raw = Notice.rows().find_one(match)
    if raw is None:
        return None
    there = Notice.of(raw)
    update: dict[str, Any] = {"$unset": {"lease": "", "lease_until": ""}}
    left = _left(there, settings)
    if not left:
        update["$set"] = _end(there, settings)
    else:
        only_held = reason == HELD
        later = max(now, until or now)
        then = later if only_held else now + backoff(there.attempts, wait)
        free = then if there.urgent else hours.free_from(then, there.divisions, settings, overrides)
        night = not there.urgent and hours.held_until(then, there.divisions, settings, overrides) is not None
        # what a channel asks to wait may be longer than the hour: then it is tried once more
        if not only_held and not night and there.first_try and now + backoff(there.attempts) > there.first_try + GIVE_UP:
            why = f"gave_up: {reason}"
            rows = [
                {"channel": todo.channel, "topic": key, "outcome": "failed", "detail": why, "at": now}
                for todo in left
                if todo.channel not in held
                for key in todo.keys
            ]
            there.results = Notice.of({**raw, "results": [*(raw.get("results") or []), *rows]}).results
            update["$push"] = {"results": {"$each": rows}}
            more = {"state": "due", "next_try": later if held else now}
            update["$set"] = more if _left(there, settings) else _end(there, settings)
            update["$unset"]["first_try"] = ""
        else:
            why = f"held_until: {notices.iso(free)}" if only_held or night else f"trying: {reason}"
            update["$set"] = {"state": "due", "next_try": free, "reason": why}
            if only_held or night:  # held is not tried: the hour of tries begins anew
                update["$unset"]["first_try"] = ""
            if only_held:
                update["$inc"] = {"attempts": -1}
    done = Notice.rows().update_one(match, update)
    return str(update["$set"]["state"]) if done.matched_count else None


def _left(notice: Notice, settings: Settings) -> list[Work]:
    return [todo for step in channels.steps(settings) if (todo := channels.work(notice, step))]


def _end(notice: Notice, settings: Settings) -> dict[str, Any]:
    """The state of a notice of which nothing is open: what its channels came to, those left out from which another took over."""
    last: list[notices.Result] = []
    for step in channels.steps(settings):
        tried = [[row for row in notice.results if row.channel == channel] for channel in step]
        last += next((rows for rows in reversed(tried) if rows), [])
    found = {row.outcome for row in last}
    state = "failed" if "failed" in found else "refused" if found == {"refused"} else "sent"
    details = sorted({row.detail.removeprefix("gave_up: ") for row in last if row.outcome in {"refused", "failed"}})
    why = f"{'gave_up' if state == 'failed' else 'refused'}: {'; '.join(details)}" if details else None
    if found == {"skipped"}:
        why = "no_credentials"
    elif found == {"inbox_only"}:
        why = "told_today"
    return {"state": state, "reason": why}

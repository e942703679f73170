"""Slots: times at which a service of the help directory is there for one person, by telephone, online or in person.

Whoever keeps the service's entry lays them out by a weekly rule; they are open at once, because they are working hours and no
words that a second person should read. Who takes one: `content.appointments`.

Readers get a service's open slots to come as ONE published item, {"slots": […]}, each with the word free or taken. It is released
again with each booking, which costs that booking the published counter; an item a slot would cost a tombstone a slot, kept
in every reader's memory for 400 days. The counter has a use here: bookings with one service come one after the other.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo.client_session import ClientSession

from content import directory, records, recurrence, store
from content.checking import Check
from content.courses import local
from content.failures import Conflict, NotFound, Text, invalid
from content.published import ANY, Item, release

MODES = ("phone", "online", "in_person")
STATES = ("open", "closed", "cancelled")
"""Closed: nobody can book it; who has it keeps it. Cancelled: it does not take place. Both may be opened again."""
MOST = 200  # at once
MOST_AHEAD = 500  # open ones of a service that are to come: 150 KB in the published set
CLOSES_BEFORE = 120  # minutes before the start, unless said otherwise
MOST_DESKS = 20
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)


class Slot(records.Record):
    """One time for one person; `_id` is service~YYYYMMDD-HHMM~mode by the local clock, ~desk behind it from the second on."""

    service = me.StringField(required=True)
    starts_at = me.DateTimeField(required=True)
    ends_at = me.DateTimeField(required=True)
    booking_closes_at = me.DateTimeField(required=True)
    zone = me.StringField(required=True)
    mode = me.StringField(required=True, choices=MODES)
    desk = me.IntField(required=True, default=1)
    """1, 2 …: how many people are there for someone at one time."""
    place = me.DictField()
    """Language tag -> where to come, of one in person."""
    online_link = me.StringField()
    """Never published; only who has the slot gets it."""
    state = me.StringField(required=True, choices=STATES, default="open")
    taken = me.BooleanField(required=True, default=False)
    """Set by one conditional update of a booking, which leaves the revision alone: it is no edit."""
    outcome = me.StringField(choices=("done", "no_show"))
    """What staff noted afterwards. It stays, as a count, when who it was is erased."""

    NAME = "slot"
    PERSONAL = frozenset({"online_link"})
    meta: ClassVar[dict[str, Any]] = {"collection": "slots", "indexes": [{"fields": ["service", "starts_at"]}]}


class Laid(NamedTuple):
    """What a rule gives."""

    made: list[Slot]
    there: list[Slot]
    """Those of the same time that were there before, as they now are."""
    left_out: list[tuple[str, str]]
    """(local start, why): "past" (its booking would be closed already), "clocks" (the clocks skip that time)."""


class Counts(NamedTuple):
    """Slots of some days; nobody's name is needed for it."""

    offered: int
    taken: int
    done: int
    no_show: int
    cancelled: int


def slot(key: str, tx: ClientSession | None = None) -> Slot:
    """Raises `NotFound`."""
    raw = Slot.rows().find_one({"_id": key}, session=tx)
    if raw is None:
        raise NotFound(what=key)
    return Slot.of(raw)


# --- laying out ------------------------------------------------------------------------------------------------------


def _minute(check: Check, field: str, value: Any) -> int:
    """Minutes of the day of "14:00"."""
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        check.fail(field, "bad_format", reason=Text("例：14:00", "e.g. 14:00"))
        return 0
    return int(value[:2]) * 60 + int(value[3:])


def link(check: Check, value: Any) -> str | None:
    """The address of an online room."""
    found = check.text("online_link", value, 1000)
    if found and not found.startswith("https://"):
        check.fail("online_link", "bad_format", reason="https://…")
    return found


def _lay(service: directory.Service, values: Mapping[str, Any]) -> tuple[list[Slot], list[tuple[str, str]]]:
    """The slots that a rule gives, in order of time, and what of it cannot be. Raises `Invalid` with every fault.

    Slots follow one another by the clock on the wall. On a day on which the clocks change, a time that is skipped is left out,
    one that comes twice is the earlier, and none begins before the one ahead of it is over."""
    check = Check()
    zone_name = check.zone("zone", values.get("zone"))
    opens, closes = (_minute(check, name, values.get(name)) for name in ("opens_at", "closes_at"))
    minutes, pause = check.whole("minutes", values.get("minutes"), 5, 240), check.whole("pause", values.get("pause"), 0, 240) or 0
    lead = check.whole("closes_before", values.get("closes_before"), 0, 7 * 24 * 60)
    desk = check.whole("desk", values.get("desk"), 1, MOST_DESKS) or 1
    mode = check.coded("mode", values.get("mode"), MODES)
    place = check.texts("place", values.get("place"), 300) or (dict(service.address or {}) if mode == "in_person" else {})
    online = link(check, values.get("online_link"))
    if minutes is None and not any(error.field == "minutes" for error in check.errors):
        check.fail("minutes", "required")
    if mode == "in_person" and not place:
        check.fail("place", "required")
    if minutes and not check.errors and opens + minutes > closes:
        check.fail(
            "closes_at",
            "out_of_range",
            reason=Text(f"要比 opens_at 晚 {minutes} 分钟以上", f"at least {minutes} minutes after opens_at"),
        )
    check.done()
    assert minutes
    zone = ZoneInfo(zone_name)
    lead = CLOSES_BEFORE if lead is None else lead
    first = f"{values.get('first')}T{values.get('opens_at')}"
    days = recurrence.occurrences(first, minutes, zone_name, str(values.get("rule") or ""), values.get("excluded") or ())
    made: list[Slot] = []
    left_out: list[tuple[str, str]] = []
    for day in (one.recurrence_id.date() for one in days):
        over = datetime.min.replace(tzinfo=UTC)
        for minute in range(opens, closes - minutes + 1, minutes + pause):
            clock = datetime.combine(day, time(*divmod(minute, 60)))
            starts = clock.replace(tzinfo=zone, fold=0).astimezone(UTC)
            if starts < over or starts.astimezone(zone).replace(tzinfo=None) != clock:
                left_out.append((f"{clock:%Y-%m-%dT%H:%M}", "clocks"))
                continue
            over = starts + timedelta(minutes=minutes)
            if starts - timedelta(minutes=lead) <= store.now():
                left_out.append((f"{clock:%Y-%m-%dT%H:%M}", "past"))
                continue
            key = f"{service.id}~{clock:%Y%m%d-%H%M}~{mode}" + (f"~{desk}" if desk > 1 else "")
            made.append(
                Slot(
                    id=key,
                    service=service.id,
                    starts_at=starts,
                    ends_at=over,
                    booking_closes_at=starts - timedelta(minutes=lead),
                    zone=zone_name,
                    mode=mode,
                    desk=desk,
                    place=place if mode == "in_person" else {},
                    online_link=online if mode == "online" else None,
                )
            )
            if max(len(made), len(left_out)) > MOST:
                raise invalid("rule", "out_of_range", reason=Text(f"一次最多 {MOST} 个时段", f"at most {MOST} times at once"))
    return made, left_out


def lay_out(service_id: str, values: Mapping[str, Any], by: str, *, dry_run: bool = False) -> Laid:
    """Open the slots of a weekly rule, all of them or none; they are public at once. `values`: first (local date), rule (RRULE,
    "" for that day alone), excluded (local dates), opens_at, closes_at ("14:00"), minutes, pause (minutes between), zone, mode,
    place {language: text} (of one in person; the service's address when not given), online_link, closes_before (minutes), desk.

    Ids follow from service, local start, mode and desk, so a second call makes nothing and finds them `there`. With `dry_run`
    nothing is written. Raises `NotFound`, `Invalid`, `Conflict("exists")` naming the slot of that desk that is in the way,
    `Conflict("nothing_to_do")` when the rule gives none."""
    wanted, left_out = _lay(directory.get(service_id), values)
    if not wanted:
        raise Conflict("nothing_to_do", action=Text("开放", "open"))

    def work(tx: ClientSession) -> Laid:
        span = {"starts_at": {"$lt": wanted[-1].ends_at}, "ends_at": {"$gt": wanted[0].starts_at}}
        known = {raw["_id"]: Slot.of(raw) for raw in Slot.rows().find({"service": service_id, **span}, session=tx)}
        new = [one for one in wanted if one.id not in known]
        for one in wanted:
            for other in known.values():
                same = other.id == one.id and other.ends_at == one.ends_at
                in_the_way = other.state != "cancelled" and other.desk == one.desk
                if not same and in_the_way and other.starts_at < one.ends_at and one.starts_at < other.ends_at:
                    raise Conflict("exists", what=other.id)
        ahead = {"service": service_id, "state": "open", "ends_at": {"$gt": store.now()}}
        if Slot.rows().count_documents(ahead, session=tx) + len(new) > MOST_AHEAD:
            raise invalid(
                "rule",
                "out_of_range",
                reason=Text(f"一个服务最多 {MOST_AHEAD} 个以后的时段", f"one service has at most {MOST_AHEAD} times to come"),
            )
        if new and not dry_run:
            records.create_many(tx, new, by)
            show(tx, service_id)
        return Laid(new, [known[one.id] for one in wanted if one.id in known], left_out)

    return store.transaction(work)


# --- what readers get ------------------------------------------------------------------------------------------------


def show(tx: ClientSession, service: str) -> None:
    """Release a service's open slots to come, as part of every write that changes one."""
    match = {"service": service, "state": "open", "ends_at": {"$gt": store.now()}}
    rows = Slot.rows().find(match, session=tx).sort([("starts_at", 1), ("_id", 1)])
    found = [content(Slot.of(raw)) for raw in rows]
    release(tx, [Item("slots", service, ANY, {"slots": found} if found else None)])


def content(one: Slot) -> dict[str, Any]:
    """A slot as readers may see it; never its link."""
    return {
        "id": one.id,
        "service": one.service,
        **{name: local(getattr(one, name), one.zone) for name in ("starts_at", "ends_at", "booking_closes_at")},
        "zone": one.zone,
        "mode": one.mode,
        "place": dict(one.place or {}),
        "state": "taken" if one.taken else "free",
    }


# --- for staff -------------------------------------------------------------------------------------------------------


def between(service: str, first: datetime, last: datetime) -> Sequence[Slot]:
    """A service's slots that begin from `first` to before `last`, in order of time."""
    match = {"service": service, "starts_at": {"$gte": first, "$lt": last}}
    return [Slot.of(raw) for raw in Slot.rows().find(match).sort([("starts_at", 1), ("_id", 1)])]


def counted(found: Sequence[Slot]) -> Counts:
    """How many were offered, taken, and what became of them; those cancelled stand apart."""
    held = [one for one in found if one.state != "cancelled"]
    return Counts(
        len(held), sum(one.taken for one in held), sum(one.outcome == "done" for one in held),
        sum(one.outcome == "no_show" for one in held), len(found) - len(held),
    )  # fmt: skip

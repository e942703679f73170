"""Appointments: a slot of a service (`content.slots`) taken by one person, without an account, opened by a code alone.

Nobody is asked why they come, nor how old they are, nor who their parents are: what is asked is what to call them by (a nickname
will do), and a telephone where they are to be called or to be told when the slot is cancelled. Online, none is needed.

A slot is taken by ONE conditional update, in one transaction with the appointment, so that of fifty who press at once one has
it and a process that is killed leaves nothing half. Nothing is refused for its telephone: a slot listed as free that is refused
to one number would tell whoever tries it that this number comes here. Staff see on the day's list how many are to come of one
telephone; what stops somebody who takes all slots is a limit for each address (`api.appointments`).

What is personal is sealed, stands nowhere else, and is erased at once when its holder cancels, else within 30 days after the slot
(`purge`, which leaves a line that says how many; by the index a day later if it could not run). The slot's own outcome stays.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
from pymongo.client_session import ClientSession

from content import codes, languages, phones, records, sealed, slots, store
from content.bookings import DAY, KEEP
from content.checking import Check
from content.directory import Service
from content.failures import Conflict, Failure, NotFound, Text, invalid
from content.slots import Slot

CANCEL_BEFORE = timedelta(hours=1)  # until then its holder cancels it by the code; after it, by a call


class Appointment(store.Row):
    """Who took a slot. No record and no line in the trail has any of it."""

    code = me.StringField(required=True)
    """SHA-256 of the code."""
    service = me.StringField(required=True)
    slot = me.StringField(required=True)
    starts_at = me.DateTimeField(required=True)
    """As the slot's."""
    state = me.StringField(required=True, choices=("booked", "cancelled", "called_off"))
    """Cancelled by its holder; called off by the service."""
    contact = me.BinaryField()
    """Sealed JSON {"name", "phone" (E.164 or ""), "note"}; absent once cancelled."""
    phone_blind = me.BinaryField()
    to_tell = me.StringField(choices=("changed", "cancelled"))
    """What its holder does not know yet: on the call list until the code is opened, or the call marked."""
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "appointments",
        "indexes": [
            {"fields": ["code"], "unique": True},
            {"fields": ["slot"]},
            {"fields": ["phone_blind"]},
            {"fields": ["service", "to_tell"]},
            {"fields": ["expires_at"], "expireAfterSeconds": DAY},
        ],
    }


class Held(NamedTuple):
    """An appointment as its holder sees it."""

    code: str
    state: str
    """booked, cancelled, called_off, over."""
    slot: Slot


class Entry(NamedTuple):
    """An appointment as staff see it."""

    id: str
    state: str
    slot: Slot
    to_tell: str
    same_phone: int
    """How many booked ones of its telephone are to come with this service, this one among them."""
    name: str
    phone: str
    note: str


# --- the holder's side -----------------------------------------------------------------------------------------------


def book(
    slot_id: str,
    name: str,
    phone: str = "",
    note: str = "",
    key: str | None = None,
    taking: Callable[[str], None] = lambda service: None,
) -> Held:
    """Take a free slot. `taking` is called once with its service, not for a repeat, and may raise to leave it free. Raises
    `NotFound` (also while its service is not published), `Invalid` (no telephone where one is
    needed), `Conflict("closed")` past its deadline or once closed, `Conflict("slot_taken")`.

    With `key` a repeat gives the same code and the appointment as it now is; the same key with another name or note raises
    `Failure("duplicate_key_body")`. Without one, a repeat finds the slot taken."""
    contact = _contact(name, phone, note)
    code = codes.repeatable("appointment code", key, slot_id, contact["phone"] or contact["name"])
    row: dict[str, Any] = {
        "_id": store.new_id(), "code": codes.name(code), "slot": slot_id, "state": "booked",
        "contact": sealed.seal(json.dumps(contact)),
    }  # fmt: skip
    if contact["phone"]:
        row["phone_blind"] = sealed.blind(contact["phone"])
    taking = functools.cache(taking)  # a transaction may run more than once

    def work(tx: ClientSession) -> Held:
        if raw := Appointment.rows().find_one({"code": row["code"]}, session=tx):
            if raw.get("contact") and _opened(raw) != contact:
                raise Failure("duplicate_key_body")
            return _held(code, raw, tx)
        return _take(tx, code, row, taking)

    return store.transaction_or_again(work)  # the same key may come twice at one moment


def _contact(name: str, phone: str, note: str) -> dict[str, str]:
    name, note = languages.one_line(name), languages.one_line(note)
    if not 0 < len(name) <= 40:
        raise invalid("name", "out_of_range", reason=Text("长度 1–40 个字符", "1 to 40 characters"))
    if len(note) > 200:
        raise invalid("note", "out_of_range", reason=Text("最多 200 个字符", "200 characters at most"))
    return {"name": name, "phone": phones.number(phone) if phone.strip() else "", "note": note}


def _take(tx: ClientSession, code: str, row: dict[str, Any], taking: Callable[[str], None]) -> Held:
    now, wanted = store.now(), slots.slot(row["slot"], tx)
    if not Service.rows().count_documents({"_id": wanted.service, "published_revision": {"$ne": None}}, session=tx):
        raise NotFound(what=row["slot"])
    if wanted.mode != "online" and "phone_blind" not in row:
        raise invalid("phone", "required")
    if wanted.state != "open" or wanted.booking_closes_at <= now:
        raise Conflict("closed")
    free = {"_id": wanted.id, "state": "open", "taken": False}
    if not Slot.rows().update_one(free, {"$set": {"taken": True}}, session=tx).matched_count:
        raise Conflict("slot_taken")
    taking(wanted.service)
    raw = {**row, "service": wanted.service, "starts_at": wanted.starts_at, "expires_at": wanted.ends_at + KEEP}
    Appointment.rows().insert_one(raw, session=tx)
    slots.show(tx, wanted.service)
    return _held(code, raw, tx)


def _held(code: str, raw: Mapping[str, Any], tx: ClientSession | None = None) -> Held:
    there = slots.slot(raw["slot"], tx)
    over = raw["state"] == "booked" and there.ends_at <= store.now()
    return Held(code, "over" if over else raw["state"], there)


def _by_code(code: str, tx: ClientSession | None = None) -> dict[str, Any]:
    raw: dict[str, Any] | None = Appointment.rows().find_one({"code": codes.name(code)}, session=tx)
    if raw is None:
        raise NotFound(what="appointment")
    return raw


def look(code: str) -> Held:
    """The appointment of a code; who opens it knows what has happened so far and need not be called. Raises `NotFound`, also
    for a text that is no code."""
    raw = _by_code(code)
    if raw.get("to_tell"):
        Appointment.rows().update_one({"_id": raw["_id"], "to_tell": raw["to_tell"]}, {"$unset": {"to_tell": ""}})
    return _held(code, raw)


def cancel(code: str) -> Held:
    """Give the slot back and erase name, telephone and note at once. A second call changes nothing and answers the same; of one
    that the service called off it erases only. Raises `NotFound`, `Conflict("too_late")` within an hour of the start."""

    def work(tx: ClientSession) -> Held:
        raw = _by_code(code, tx)
        if raw["state"] == "booked":
            if raw["starts_at"] - CANCEL_BEFORE <= store.now():
                raise Conflict("too_late")
            _leave(tx, raw)
        else:
            _forget(tx, raw, raw["state"])
        return _held(code, _by_code(code, tx), tx)

    return store.transaction(work)


def _leave(tx: ClientSession, raw: Mapping[str, Any]) -> None:
    Slot.rows().update_one({"_id": raw["slot"]}, {"$set": {"taken": False}}, session=tx)
    _forget(tx, raw, "cancelled")
    slots.show(tx, raw["service"])


def _forget(tx: ClientSession, raw: Mapping[str, Any], state: str) -> None:
    gone = {"contact": "", "phone_blind": "", "to_tell": ""}
    Appointment.rows().update_one({"_id": raw["_id"]}, {"$set": {"state": state}, "$unset": gone}, session=tx)


# --- the side of staff -----------------------------------------------------------------------------------------------


def edit(key: str, values: Mapping[str, Any], by: str, revision: int | None = None) -> Slot:
    """Set parts of a slot that is to come: `open` (false: nobody can book it any more, who has it keeps it; true also opens one
    that was cancelled), `place`, `online_link`. Public at once; whoever has it goes on the call list when place or link change.
    Raises `NotFound`, `Stale`, `Invalid`, `Conflict`."""
    check = Check()
    check.fields(values, ("open", "place", "online_link"))
    fields: dict[str, Any] = {}
    if "open" in values:
        fields["state"] = "open" if values["open"] else "closed"
    if "place" in values:
        fields["place"] = check.texts("place", values["place"], 300)
    if "online_link" in values:
        fields["online_link"] = slots.link(check, values["online_link"])
    check.done()
    moved = False

    def decide(present: Slot) -> dict[str, Any]:
        nonlocal moved
        if present.starts_at <= store.now():
            raise Conflict("wrong_state", state="begun", action="edit")
        if present.state == "cancelled" and not values.get("open"):
            raise Conflict("wrong_state", state=present.state, action="edit")
        if "place" in fields and (present.mode == "in_person") != bool(fields["place"]):
            raise invalid("place", "required" if present.mode == "in_person" else "unknown_field")
        if fields.get("online_link") and present.mode != "online":
            raise invalid("online_link", "unknown_field")
        if fields.get("state") == "open" and present.state == "cancelled":
            _no_other(present)
        changes = {name: value for name, value in fields.items() if value != getattr(present, name)}
        moved = bool(changes.keys() & {"place", "online_link"})
        return changes

    def also(tx: ClientSession, changed: Slot) -> None:
        if changed.taken and moved:
            held = {"slot": key, "state": "booked"}
            Appointment.rows().update_one(held, {"$set": {"to_tell": "changed"}}, session=tx)
        slots.show(tx, changed.service)

    return records.change(Slot, key, by, "edit", decide, revision=revision, also=also)


def _no_other(present: Slot) -> None:
    """Raises `Conflict` when the desk has been given to another slot since this one was cancelled."""
    span = {"starts_at": {"$lt": present.ends_at}, "ends_at": {"$gt": present.starts_at}, "desk": present.desk}
    others = {"service": present.service, "state": {"$ne": "cancelled"}, "_id": {"$ne": present.id}, **span}
    if other := Slot.rows().find_one(others, {"_id": 1}):
        raise Conflict("exists", what=other["_id"])


def call_off(key: str, by: str, revision: int | None = None) -> Slot:
    """Cancel a slot that is not over: whoever has it sees that, and goes on the call list. A second call raises `Conflict`; also
    `NotFound`, `Stale`."""

    def decide(present: Slot) -> dict[str, Any]:
        if present.state == "cancelled" or present.ends_at <= store.now():
            state = present.state if present.state == "cancelled" else "over"
            raise Conflict("wrong_state", state=state, action="cancel")
        return {"state": "cancelled", "taken": False}

    def also(tx: ClientSession, changed: Slot) -> None:
        told = {"state": "called_off", "to_tell": "cancelled"}
        Appointment.rows().update_one({"slot": key, "state": "booked"}, {"$set": told}, session=tx)
        slots.show(tx, changed.service)

    return records.change(Slot, key, by, "cancel", decide, revision=revision, also=also)


def note_outcome(key: str, outcome: str | None, by: str) -> Slot:
    """Whether the person was met: done, no_show, or None to take that back. A repeat changes nothing. Raises `NotFound`,
    `Conflict` before the start and of a slot that nobody has."""

    def decide(present: Slot) -> dict[str, Any]:
        if present.starts_at > store.now() or not present.taken:
            state = "free" if not present.taken else "to come"
            raise Conflict("wrong_state", state=state, action=Text("登记", "note an outcome"))
        return {} if present.outcome == outcome else {"outcome": outcome}

    return records.change(Slot, key, by, "outcome", decide)


def appointment(key: str) -> dict[str, Any]:
    """The row, still sealed. Raises `NotFound`."""
    raw: dict[str, Any] | None = Appointment.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return raw


def give_back(key: str, by: str) -> None:
    """Cancel an appointment for its holder, who telephoned: as `cancel`, until it is over. A second call changes nothing.
    Raises `NotFound`, `Conflict` once it is over."""

    def work(tx: ClientSession) -> None:
        raw = Appointment.rows().find_one({"_id": key}, session=tx)
        if raw is None:
            raise NotFound(what=key)
        if raw["state"] != "booked":
            return
        if slots.slot(raw["slot"], tx).ends_at <= store.now():
            raise Conflict("wrong_state", state="over", action="cancel")
        _leave(tx, raw)
        records.trail(tx, Slot, raw["slot"], by, "give_back", {}, {}, note="1 appointment erased")

    store.transaction(work)


def mark_called(key: str, by: str) -> None:
    """Take an appointment from the call list. A second call changes nothing. Raises `NotFound`."""

    def work(tx: ClientSession) -> None:
        raw = Appointment.rows().find_one_and_update({"_id": key}, {"$unset": {"to_tell": ""}}, session=tx)
        if raw is None:
            raise NotFound(what=key)
        if raw.get("to_tell"):
            records.trail(tx, Slot, raw["slot"], by, "called", {}, {})

    store.transaction(work)


def register(service: str, first: datetime, last: datetime, by: str) -> list[Entry]:
    """A service's appointments that begin from `first` to before `last`, with names and telephones, in order of time. The reading
    leaves a line in the trail, with their number and nothing of their content."""
    match = {"service": service, "starts_at": {"$gte": first, "$lt": last}, "state": {"$ne": "cancelled"}}
    return _read(service, match, "read_appointments", by)


def calls(service: str, by: str) -> list[Entry]:
    """Those with a telephone who do not know yet that their slot was cancelled or has changed. The reading leaves a line too."""
    match = {"service": service, "to_tell": {"$in": ["changed", "cancelled"]}, "phone_blind": {"$ne": None}}
    return _read(service, match, "read_calls", by)


def _read(service: str, match: dict[str, Any], action: str, by: str) -> list[Entry]:
    def work(tx: ClientSession) -> list[Entry]:
        rows = list(Appointment.rows().find(match, session=tx).sort([("starts_at", 1), ("_id", 1)]))
        wanted = sorted({raw["slot"] for raw in rows})
        there = {raw["_id"]: Slot.of(raw) for raw in Slot.rows().find({"_id": {"$in": wanted}}, session=tx)}
        phones = [raw["phone_blind"] for raw in rows if raw.get("phone_blind")]
        coming = {"phone_blind": {"$in": phones}, "service": service, "state": "booked", "starts_at": {"$gt": store.now()}}
        same = Counter(raw["phone_blind"] for raw in Appointment.rows().find(coming, {"phone_blind": 1}, session=tx))
        records.trail(tx, Service, service, by, action, {}, {}, note=f"{len(rows)} appointments")
        return [
            Entry(
                raw["_id"], raw["state"], there[raw["slot"]], raw.get("to_tell") or "", same[raw.get("phone_blind")],
                **_opened(raw),
            )
            for raw in rows
        ]  # fmt: skip

    return store.transaction(work)


def _opened(raw: Mapping[str, Any]) -> dict[str, str]:
    empty = {"name": "", "phone": "", "note": ""}
    return {**empty, **json.loads(sealed.unseal(raw["contact"]))} if raw.get("contact") else empty


# --- the end ---------------------------------------------------------------------------------------------------------


def purge(now: datetime) -> int:
    """Erase the appointments whose time is over; each service gets a line in the trail that says how many. Returns how many; a
    second call finds none. Raises driver errors."""
    return records.purge(Appointment, now, Service, "service")

"""The desk of a help service's appointments: lay out slots, see who comes, call, note who came.

For whoever keeps the service's entry (`service.write` in all of its divisions). Every reading of names and telephones leaves a
line in the trail.
"""

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify, make_response
from marshmallow import validate

from api.appointments import TimeOut
from api.auth import actor
from api.guard import Blueprint, if_match, tagged
from api.shapes import Word, by_language, listed, reader, settings, words
from api.support import own
from content import appointments, slots
from content.appointments import Entry
from content.failures import invalid
from content.slots import MODES, STATES, Slot

staff = Blueprint(
    "staff_appointments", __name__, url_prefix="/v1/staff", description="Slots of a help service, and who takes them"
)

CLOCK = {"description": "local clock", "example": "14:00"}
LONGEST = timedelta(days=400)  # of one listing


class LayIn(ma.Schema):
    first = ma.fields.Date(format="iso", required=True, metadata={"description": "local date; it must fit the rule"})
    rule = ma.fields.String(
        load_default="",
        validate=validate.Length(max=500),
        metadata={
            "description": "RFC 5545 RRULE with COUNT or UNTIL; empty: the first date alone",
            "example": "FREQ=WEEKLY;BYDAY=TU,TH;UNTIL=20270115",
        },
    )
    excluded = ma.fields.List(
        ma.fields.Date(format="iso"),
        load_default=list,
        validate=validate.Length(max=400),
        metadata={"description": "dates without"},
    )
    opens_at = ma.fields.String(required=True, validate=validate.Length(5, 5), metadata=CLOCK)
    closes_at = ma.fields.String(required=True, validate=validate.Length(5, 5), metadata=CLOCK)
    minutes = ma.fields.Integer(strict=True, required=True, validate=validate.Range(5, 240))
    pause = ma.fields.Integer(strict=True, validate=validate.Range(0, 240), metadata={"description": "minutes between two"})
    zone = ma.fields.String(validate=validate.Length(1, 60), metadata={"example": "Asia/Shanghai"})
    mode = ma.fields.String(required=True, validate=validate.OneOf(MODES))
    place = words()
    online_link = ma.fields.String(validate=validate.Length(max=1000), allow_none=True)
    closes_before = ma.fields.Integer(
        strict=True,
        validate=validate.Range(0, 7 * 24 * 60),
        metadata={"description": "minutes before the start at which booking closes; default 120"},
    )
    desk = ma.fields.Integer(
        strict=True,
        validate=validate.Range(1, slots.MOST_DESKS),
        metadata={"description": "1, 2 … where several people are there for someone at one time"},
    )
    dry_run = ma.fields.Boolean(load_default=True)


class StaffSlot(TimeOut):
    place = ma.fields.List(ma.fields.Nested(Word))  # type: ignore[assignment]
    online_link = ma.fields.String(allow_none=True)
    desk = ma.fields.Integer()
    state = ma.fields.String(validate=validate.OneOf(STATES))
    taken = ma.fields.Boolean()
    outcome = ma.fields.String(allow_none=True, validate=validate.OneOf(["done", "no_show"]))
    revision = ma.fields.Integer()


class LeftOut(ma.Schema):
    starts_at = ma.fields.String(metadata={"description": "local clock"})
    why = ma.fields.String(
        validate=validate.OneOf(["past", "clocks"]),
        metadata={"description": "past: its booking would be closed already; clocks: they skip that time on that day"},
    )


class LaidOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(StaffSlot), metadata={"description": "new ones"})
    there = ma.fields.List(ma.fields.Nested(StaffSlot), metadata={"description": "made by an earlier call; as they now are"})
    left_out = ma.fields.List(ma.fields.Nested(LeftOut))
    written = ma.fields.Boolean()


class CountsOut(ma.Schema):
    offered = ma.fields.Integer()
    taken = ma.fields.Integer()
    done = ma.fields.Integer()
    no_show = ma.fields.Integer()
    cancelled = ma.fields.Integer()


class StaffSlots(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(StaffSlot))
    counts = ma.fields.Nested(CountsOut)


class SlotPatch(ma.Schema):
    open = ma.fields.Boolean(metadata={"description": "false: nobody can book it any more, who has it keeps it"})
    place = words()
    online_link = ma.fields.String(validate=validate.Length(max=1000), allow_none=True)


class OutcomeIn(ma.Schema):
    outcome = ma.fields.String(required=True, allow_none=True, validate=validate.OneOf(["done", "no_show"]))


class WhoOut(ma.Schema):
    id = ma.fields.String()
    state = ma.fields.String(validate=validate.OneOf(["booked", "called_off"]))
    slot = ma.fields.Nested(StaffSlot)
    to_tell = ma.fields.String(metadata={"description": "what its holder does not know yet: changed, cancelled; else empty"})
    same_phone = ma.fields.Integer(
        metadata={"description": "how many are to come of this telephone with this service, this one among them"}
    )
    name = ma.fields.String(metadata={"description": "what they want to be called by; empty once erased, as the next two"})
    phone = ma.fields.String()
    note = ma.fields.String()


class WhoPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(WhoOut))


class DaysQuery(ma.Schema):
    first = ma.fields.Date(format="iso", required=True, data_key="from", metadata={"description": "local date"})
    last = ma.fields.Date(format="iso", data_key="to", metadata={"description": "local date, included; default the same day"})


class DayQuery(ma.Schema):
    day = ma.fields.Date(format="iso", required=True, metadata={"description": "local date"})


def slot_out(slot: Slot) -> dict[str, Any]:
    """`StaffSlot`."""
    shown = slots.content(slot)
    told = ("online_link", "desk", "state", "taken", "outcome", "revision")
    return {**shown, "place": listed(slot.place or {}), **{name: getattr(slot, name) for name in told}}


def who_out(entry: Entry) -> dict[str, Any]:
    """`WhoOut`."""
    return {**entry._asdict(), "slot": slot_out(entry.slot)}


def own_slot(key: str) -> Slot:
    """The slot, when the asker keeps its service's entry. Raises `NotFound`, `Forbidden`."""
    found = slots.slot(key)
    own(found.service, "service.write")
    return found


def span(first: date, last: date) -> tuple[datetime, datetime]:
    """The moments from which and before which those local days are. Raises `Invalid`."""
    if not 2000 <= first.year <= 2200 or not first <= last <= first + LONGEST:
        raise invalid("to", "out_of_range", reason=f"from … from + {LONGEST.days} d")
    zone = ZoneInfo(settings().zone)
    return datetime.combine(first, time(), zone), datetime.combine(last + timedelta(days=1), time(), zone)


@staff.post("/services/<string:service_id>/slots")
@staff.arguments(LayIn)
@staff.alt_response(200, schema=LaidOut, description="What there is; with `dry_run` nothing was written")
def create(payload: dict[str, Any], service_id: str) -> Response:
    """Lay out slots by a weekly rule

    All of them, at most 200, or none; they can be booked at once. `dry_run` (true unless said otherwise) only shows them. Ids
    follow from service, local start, mode and desk, so a second call makes nothing twice.
    """
    own(service_id, "service.write")
    dry_run = payload.pop("dry_run")
    values = {"zone": settings().zone, **payload, "first": payload["first"].isoformat()}
    if "place" in values:
        values["place"] = by_language(values["place"])
    laid = slots.lay_out(service_id, values, actor().id, dry_run=dry_run)
    if not dry_run:
        reader().refresh()
    return jsonify(
        {
            "items": [slot_out(one) for one in laid.made],
            "there": [slot_out(one) for one in laid.there],
            "left_out": [{"starts_at": clock, "why": why} for clock, why in laid.left_out],
            "written": not dry_run,
        }
    )


@staff.get("/services/<string:service_id>/slots")
@staff.arguments(DaysQuery, location="query")
@staff.alt_response(200, schema=StaffSlots)
def index_staff(query: dict[str, Any], service_id: str) -> Response:
    """A service's slots of some days, and how many were taken and kept; nobody's name"""
    own(service_id, "service.write")
    found = slots.between(service_id, *span(query["first"], query.get("last") or query["first"]))
    return jsonify({"items": [slot_out(one) for one in found], "counts": slots.counted(found)._asdict()})


@staff.get("/slots/<string:slot_id>")
@staff.alt_response(200, schema=StaffSlot, description="The slot; ETag is its revision")
def show_staff(slot_id: str) -> Response:
    """A slot"""
    found = own_slot(slot_id)
    return tagged(slot_out(found), found.revision)


@staff.patch("/slots/<string:slot_id>")
@staff.arguments(SlotPatch)
@staff.alt_response(200, schema=StaffSlot, description="The changed slot")
def edit(payload: dict[str, Any], slot_id: str) -> Response:
    """Close or open a slot, change its place or link; needs If-Match

    Public at once. Who has it stands on the call list when place or link change.
    """
    revision = if_match()
    own_slot(slot_id)
    if "place" in payload:
        payload["place"] = by_language(payload["place"])
    changed = appointments.edit(slot_id, payload, actor().id, revision)
    reader().refresh()
    return tagged(slot_out(changed), changed.revision)


@staff.post("/slots/<string:slot_id>/cancel")
@staff.alt_response(200, schema=StaffSlot, description="Cancelled")
def cancel(slot_id: str) -> Response:
    """Cancel a slot; needs If-Match

    Who has it sees so by the code, and stands on the call list until then.
    """
    revision = if_match()
    own_slot(slot_id)
    changed = appointments.call_off(slot_id, actor().id, revision)
    reader().refresh()
    return tagged(slot_out(changed), changed.revision)


@staff.put("/slots/<string:slot_id>/outcome")
@staff.arguments(OutcomeIn)
@staff.alt_response(200, schema=StaffSlot, description="The slot")
def outcome(payload: dict[str, Any], slot_id: str) -> Response:
    """Note whether the person was met, after the start; null takes it back

    Repeats by itself. It stays as a count when the person is erased, and is never shown to who held the slot.
    """
    own_slot(slot_id)
    changed = appointments.note_outcome(slot_id, payload["outcome"], actor().id)
    return tagged(slot_out(changed), changed.revision)


@staff.get("/services/<string:service_id>/appointments")
@staff.arguments(DayQuery, location="query")
@staff.alt_response(200, schema=WhoPage)
def register(query: dict[str, Any], service_id: str) -> Response:
    """Who comes on a day, with names and telephones, in order of time"""
    own(service_id, "service.write")
    found = appointments.register(service_id, *span(query["day"], query["day"]), actor().id)
    return jsonify({"items": [who_out(one) for one in found]})


@staff.get("/services/<string:service_id>/appointments/calls")
@staff.alt_response(200, schema=WhoPage)
def calls(service_id: str) -> Response:
    """Whom to call: they have not seen yet that their slot was cancelled or has changed"""
    own(service_id, "service.write")
    return jsonify({"items": [who_out(one) for one in appointments.calls(service_id, actor().id)]})


@staff.post("/appointments/<string:appointment_id>/called")
@staff.alt_response(204, description="Not on the call list any more")
def called(appointment_id: str) -> Response:
    """Mark that they were told; a second call changes nothing"""
    own(appointments.appointment(appointment_id)["service"], "service.write")
    appointments.mark_called(appointment_id, actor().id)
    return make_response("", 204)


@staff.post("/appointments/<string:appointment_id>/give-back")
@staff.alt_response(204, description="Cancelled and erased; the slot is free")
def give_back(appointment_id: str) -> Response:
    """Cancel an appointment for its holder, who telephoned

    Name, telephone and note are erased at once. A second call changes nothing.
    """
    own(appointments.appointment(appointment_id)["service"], "service.write")
    appointments.give_back(appointment_id, actor().id)
    reader().refresh()
    return make_response("", 204)

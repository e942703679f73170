"""At the door: the QR code that a family shows, the list that a device takes along, what it noted, and the organiser's own count.

**For whoever writes the device's part.** Fetch `…/door` while there is a network. A family's QR code has the text `XQ1:` and 64
hex digits in capitals: compare it with `token` in the list. Of a booking code that is read out the token is `XQ1:` and the
SHA-256, in hex digits, of its letters and digits in capitals (O is 0, I and L are 1). Let people in by the list, note each with a
fresh random nonce, and send the notes to `…/check-ins` when there is a network, in any order, again whenever an answer was lost:
a nonce counts once. A note made by mistake goes into `undo`, whether or not it was sent before. `in`, `already_in` and `undone`
are final; with any other outcome the same note may be sent again once things have changed. A note that is not written as it
should be is `malformed` and keeps no other back.

The host of a session has the door too: the list with family names, check-ins, corrections and the headcount, and no telephone.
"""

from typing import Any, NamedTuple

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed
from api.guard import Blueprint, if_match, tagged
from api.posters import square
from api.sessions import STATES as SESSION_STATES
from api.sessions import WorkingSession, own, session_out, working_copy
from api.shapes import Moment, Regexp, reader, text
from content import attendance, bookings, codes, courses, sessions
from content import staff as people
from content.attendance import Item, Result, WalkIn
from content.bookings import STATES
from content.failures import NotFound
from content.registrations import PER_PHONE
from content.sessions import MOST_SEATS

blp = Blueprint("attendance", __name__, url_prefix="/v1", description="What a family shows at the door")
staff = Blueprint("staff_attendance", __name__, url_prefix="/v1/staff", description="Check people in, also without a network")

NONCE = [validate.Length(16, 64), Regexp("^[A-Za-z0-9_-]+$")]
MOST = validate.Length(max=attendance.MOST)


@blp.get("/bookings/<string:code>/check-in.svg")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def check_in_qr(code: str) -> Response:
    """The QR code that is shown at the door

    It lets the family in and does not open the booking: nothing can be read, changed or cancelled with it.
    """
    bookings.opened(code)
    return Response(square(attendance.token(code)), content_type="image/svg+xml")


def at_door(session_id: str, permission: str) -> None:
    """Let pass who may do this at the session's door: the organiser's people, and those of its host. Raises `NotFound`,
    `Forbidden`."""
    session = sessions.session(session_id)
    try:
        host = people.organisation(session.host) if session.host else None
    except NotFound:
        host = None
    if host is None or not actor().may(permission, host.id, host.division):
        own(session, permission)


# --- the list --------------------------------------------------------------------------------------------------------


class GuestOut(ma.Schema):
    place = ma.fields.String()
    token = ma.fields.String(metadata={"description": "the text of the family's QR code"})
    number = ma.fields.Integer(metadata={"description": "of arrival among the bookings"})
    seats = ma.fields.Integer()
    state = ma.fields.String(validate=validate.OneOf(STATES), metadata={"description": "confirmed ones are let in"})
    family_name = ma.fields.String(metadata={"description": "empty when the booking is over or was erased"})
    attended = ma.fields.Integer(allow_none=True, metadata={"description": "seats checked in"})


class DoorOut(ma.Schema):
    session = ma.fields.String()
    state = ma.fields.String(validate=validate.OneOf(SESSION_STATES))
    starts_at = ma.fields.String()
    ends_at = ma.fields.String()
    opens_at = ma.fields.String(metadata={"description": "check-in opens, three hours before the start"})
    closes_at = ma.fields.String(metadata={"description": "nothing is taken any more, seven days after the end"})
    capacity = ma.fields.Integer()
    attended = ma.fields.Integer(metadata={"description": "seats checked in"})
    walk_ins = ma.fields.Integer()
    headcount = ma.fields.Integer(allow_none=True, metadata={"description": "the organiser's own count"})
    items = ma.fields.List(ma.fields.Nested(GuestOut))


@staff.get("/sessions/<string:session_id>/door")
@staff.alt_response(200, schema=DoorOut, description="ETag is the session's revision")
def door(session_id: str) -> Response:
    """What a device takes along to the door

    Family names and no telephones; each reading leaves a line in the trail. Places that are cancelled, expired or waiting are in
    it, so that they can be told from unknown ones.
    """
    at_door(session_id, "booking.read")
    found = attendance.door(session_id, actor().id)
    session = found.session
    moments = {"starts_at": session.starts_at, "ends_at": session.ends_at}
    moments |= {"opens_at": found.opens_at, "closes_at": found.closes_at}
    told = {
        "session": session.id,
        "state": session.state,
        **{name: courses.local(moment, session.zone) for name, moment in moments.items()},
        **{name: getattr(session, name) for name in ("capacity", "attended", "walk_ins", "headcount")},
        "items": [guest._asdict() for guest in found.guests],
    }
    return tagged(told, session.revision)


# --- what was noted --------------------------------------------------------------------------------------------------


AT = {"description": "by the device's clock, 2027-05-15T18:40+08:00; left out: now. It is judged and not kept"}


class Malformed(NamedTuple):
    """A note that is none."""

    nonce: str
    """As it was sent; "" when there was none."""
    fields: list[str]
    """What is wrong in it."""


class Notes(ma.fields.List[Any]):
    """A list in which each note stands for itself: one that is none becomes `Malformed`, and keeps no other back."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        return [self._one(one, **kwargs) for one in value]

    def _one(self, one: Any, **kwargs: Any) -> Any:
        try:
            return self.inner.deserialize(one, **kwargs)
        except ma.ValidationError as failure:
            nonce = one.get("nonce") if isinstance(one, dict) else one
            faults = failure.messages if isinstance(failure.messages, dict) and isinstance(one, dict) else {"nonce": ""}
            return Malformed(nonce[:64] if isinstance(nonce, str) else "", sorted(str(name)[:40] for name in faults)[:5])


class ItemIn(ma.Schema):
    nonce = ma.fields.String(required=True, validate=NONCE, metadata={"description": "made by the device at random"})
    token = ma.fields.String(
        validate=validate.Length(1, 200),
        metadata={"description": "what was read from a QR code: of the family's check-in, of its booking, or its bare code"},
    )
    place = ma.fields.String(validate=validate.Length(1, 64), metadata={"description": "or chosen from the list"})
    code = ma.fields.String(validate=validate.Length(1, 40), metadata={"description": "or a booking code that was read out"})
    seats = ma.fields.Integer(
        load_default=None, allow_none=True, strict=True, validate=validate.Range(1, PER_PHONE),
        metadata={"description": "how many came; left out: all. More than are booked count as those booked"},
    )  # fmt: skip
    at = Moment(load_default=None, allow_none=True, metadata=AT)

    @ma.validates_schema
    def one_way(self, data: dict[str, Any], **_: Any) -> None:
        """Each names one booking, in one way."""
        if len({"token", "place", "code"} & data.keys()) != 1:
            raise ma.ValidationError("token, place, code 选其一 just one of them", "token, place, code")


class WalkInIn(ma.Schema):
    nonce = ma.fields.String(required=True, validate=NONCE)
    people = ma.fields.Integer(required=True, strict=True, validate=validate.Range(1, attendance.MOST_WALK_INS))
    at = Moment(load_default=None, allow_none=True, metadata=AT)


class CheckInsIn(ma.Schema):
    undo = Notes(
        ma.fields.String(validate=NONCE), load_default=list, validate=MOST,
        metadata={"description": "nonces whose check-ins or walk-ins were a mistake; looked at first"},
    )  # fmt: skip
    items = Notes(ma.fields.Nested(ItemIn), load_default=list, validate=MOST)
    walk_ins = Notes(ma.fields.Nested(WalkInIn), load_default=list, validate=MOST)


class ElsewhereOut(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()
    starts_at = ma.fields.String()


class AttendanceOut(ma.Schema):
    outcome = ma.fields.String(validate=validate.OneOf(list(attendance.OUTCOMES)))
    text = ma.fields.String(metadata={"description": "the outcome in words, for the device's screen"})
    place = ma.fields.String(allow_none=True)
    seats = ma.fields.Integer(allow_none=True, metadata={"description": "booked"})
    people = ma.fields.Integer(allow_none=True, metadata={"description": "now in, of this booking or under this nonce"})
    state = ma.fields.String(allow_none=True, metadata={"description": "of the place"})


class ResultOut(AttendanceOut):
    nonce = ma.fields.String()
    elsewhere = ma.fields.Nested(
        ElsewhereOut, allow_none=True, metadata={"description": "the organisation's own session that it is booked for"}
    )


class TotalsOut(ma.Schema):
    attended = ma.fields.Integer(metadata={"description": "seats checked in"})
    walk_ins = ma.fields.Integer(metadata={"description": "people without a booking"})
    came = ma.fields.Integer(metadata={"description": "both"})


class CheckInsOut(ma.Schema):
    undo = ma.fields.List(ma.fields.Nested(ResultOut))
    items = ma.fields.List(ma.fields.Nested(ResultOut), metadata={"description": "in the order sent, as the others"})
    walk_ins = ma.fields.List(ma.fields.Nested(ResultOut))
    totals = ma.fields.Nested(TotalsOut, metadata={"description": "of the whole session, as they now are"})


def _attended(result: Result, **params: str) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "text": text(attendance.OUTCOMES[result.outcome].fill(params), front.wanted()),
        "place": result.place or None,
        "seats": result.seats,
        "people": result.people,
        "state": result.state or None,
    }


def _result(result: Result) -> dict[str, Any]:
    there = result.elsewhere
    if there is not None and not allowed("booking.read", there.organisation, [there.division]):
        there = None  # the host knows of the organiser's other sessions what families know
    if there is not None:
        shown = session_out(reader().current, courses.session_item(there).content or {}, front.wanted())
    elsewhere = {name: shown[name] for name in ("id", "title", "starts_at")} if there is not None else None
    return {"nonce": result.nonce, **_attended(result), "elsewhere": elsewhere}


def _malformed(one: Malformed) -> dict[str, Any]:
    result = Result(one.nonce, "malformed")
    return {"nonce": one.nonce, **_attended(result, fields=", ".join(one.fields)), "elsewhere": None}


def _item(row: dict[str, Any]) -> Item:
    code = row.get("code")
    booking = codes.name(code) if code else attendance.booking_of(row.get("token", ""))
    return Item(row["nonce"], booking, row.get("place", ""), row["seats"], row["at"])


@staff.post("/sessions/<string:session_id>/check-ins")
@staff.arguments(CheckInsIn)
@staff.alt_response(200, schema=CheckInsOut)
def check_in(payload: dict[str, Any], session_id: str) -> Response:
    """Send what a device noted at the door

    Up to 500 of each kind at once. Each gets an outcome of its own; sent again, it counts once and gets the same. What was noted
    without a network is taken until seven days after the end.
    """
    at_door(session_id, "booking.write")
    good = {name: [row for row in rows if not isinstance(row, Malformed)] for name, rows in payload.items()}
    walk_ins = [WalkIn(**row) for row in good["walk_ins"]]
    done = attendance.upload(session_id, actor().id, [_item(row) for row in good["items"]], walk_ins, good["undo"])
    told = {}
    for name, judged in (("undo", iter(done.undo)), ("items", iter(done.items)), ("walk_ins", iter(done.walk_ins))):
        told[name] = [_malformed(row) if isinstance(row, Malformed) else _result(next(judged)) for row in payload[name]]
    sums = {"attended": done.attended, "walk_ins": done.people, "came": done.attended + done.people}
    return jsonify({**told, "totals": sums})


# --- corrections -----------------------------------------------------------------------------------------------------


class AttendedIn(ma.Schema):
    seats = ma.fields.Integer(
        required=True, strict=True, validate=validate.Range(0, PER_PHONE), metadata={"description": "of this booking; 0: nobody"}
    )


@staff.put("/sessions/<string:session_id>/bookings/<string:place_id>/attended")
@staff.arguments(AttendedIn)
@staff.alt_response(200, schema=AttendanceOut)
def attend(payload: dict[str, Any], session_id: str, place_id: str) -> Response:
    """Set how many of one booking came, whoever let them in

    For those of a family who come later, and to put a mistake right; a second call changes nothing.
    """
    at_door(session_id, "booking.write")
    return jsonify(_attended(attendance.attend(session_id, place_id, payload["seats"], actor().id)))


class HeadcountIn(ma.Schema):
    headcount = ma.fields.Integer(
        required=True, allow_none=True, strict=True, validate=validate.Range(0, MOST_SEATS),
        metadata={"description": "all who were there; null: those checked in and the walk-ins count again"},
    )  # fmt: skip


@staff.put("/sessions/<string:session_id>/headcount")
@staff.arguments(HeadcountIn)
@staff.alt_response(200, schema=WorkingSession, description="The session; ETag is its revision")
def headcount(payload: dict[str, Any], session_id: str) -> Response:
    """Set the organiser's own count of who was there

    It then stands for those checked in and the walk-ins. From the start until seven days after the end. Needs If-Match.
    """
    revision = if_match()
    at_door(session_id, "booking.write")
    record = attendance.put_headcount(session_id, payload["headcount"], actor().id, revision)
    return tagged(working_copy(record), record.revision)

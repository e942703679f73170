"""Booking a session without an account, and the organiser's list of who comes.

A booking is opened by its code alone: the code is in the address, so no log of ours keeps addresses, and no answer here is
cached. All of it needs the database.
"""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify, request
from marshmallow import validate

from api import front
from api.auth import actor
from api.courses import SessionOut, own_session, session_out
from api.guard import Blueprint
from api.shapes import reader
from content import courses, registrations
from content.registrations import Booked, Seen

blp = Blueprint("bookings", __name__, url_prefix="/v1", description="Book seats in a session")
staff = Blueprint("staff_bookings", __name__, url_prefix="/v1/staff", description="Who has booked")


class BookingIn(ma.Schema):
    seats = ma.fields.Integer(load_default=1, strict=True, validate=validate.Range(1, registrations.PER_PHONE))
    family_name = ma.fields.String(required=True, validate=validate.Length(1, 40), metadata={"example": "王"})
    phone = ma.fields.String(required=True, validate=validate.Length(5, 25), metadata={"example": "13800138000"})


class BookingOut(ma.Schema):
    state = ma.fields.String(metadata={"description": "confirmed or cancelled"})
    seats = ma.fields.Integer()
    session = ma.fields.Nested(SessionOut)
    online_link = ma.fields.String(allow_none=True, metadata={"description": "of an online session, for those booked"})


class NewBookingOut(BookingOut):
    code = ma.fields.String(metadata={"description": "opens the booking; shown this once", "example": "7K3QX-0M9TD-W2E5R"})


def booking_out(booking: Booked | Seen) -> dict[str, Any]:
    """A booking as its holder sees it: no name and no telephone, which the holder knows and a finder should not."""
    present = booking.session
    content = courses.session_item(present).content or {}
    shown = booking.state == "confirmed" and present.state == "published"
    return {
        "state": booking.state,
        "seats": booking.seats,
        "session": session_out(reader().current, content, front.wanted()),
        "online_link": present.online_link if shown else None,
    }


@blp.post("/sessions/<string:session_id>/bookings")
@blp.arguments(BookingIn)
@blp.alt_response(201, schema=NewBookingOut)
def create(payload: dict[str, Any], session_id: str) -> Response:
    """Book seats without an account

    The answer's `code` opens the booking; write it down, it is kept nowhere here. With an `Idempotency-Key` (16 characters or
    more) a repeat gets the same booking and code. Phone and family name are encrypted, seen by the organiser only, and erased
    on cancelling or within 30 days after the session.
    """
    key = request.headers.get("Idempotency-Key")
    booked = registrations.book(session_id, payload["seats"], payload["family_name"], payload["phone"], key)
    response = jsonify({"code": booked.code, **booking_out(booked)})
    response.status_code = 201
    return response


@blp.get("/bookings/<string:code>")
@blp.alt_response(200, schema=BookingOut)
def show(code: str) -> Response:
    """A booking, by its code"""
    return jsonify(booking_out(registrations.see(code)))


@blp.delete("/bookings/<string:code>")
@blp.alt_response(200, schema=BookingOut)
def cancel(code: str) -> Response:
    """Cancel a booking

    The seats are given back and name and telephone erased at once. A second call changes nothing and answers the same.
    """
    return jsonify(booking_out(registrations.cancel(code)))


@staff.get("/sessions/<string:session_id>/bookings")
@staff.response(200)
def index_staff(session_id: str) -> dict[str, Any]:
    """Who has booked, in order of arrival, with family names and telephones

    Only for the own organisation; every reading leaves a line in the trail.
    """
    own_session(session_id, "booking.read")
    rows = registrations.register(session_id, actor().id)
    return {"items": [{**row._asdict(), "created_at": row.created_at.isoformat()} for row in rows]}

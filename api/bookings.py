"""Booking without an account: one session or a whole series, its places, waiting list, offers and small inbox.

A booking is opened by its code alone: the code is in the address, so no log of ours keeps addresses, and no answer here is
cached. All of it needs the database.
"""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, request
from marshmallow import validate

from api import front, guard
from api.afterwards import FeedbackOut, feedback_out
from api.guard import Blueprint
from api.sessions import SessionOut, session_out
from api.shapes import Regexp, reader, settings, text
from content import attendance, courses, reaching, registrations, store, waiting
from content.bookings import STATES, Booked, Held
from content.courses import CourseSession
from content.failures import invalid
from content.published import ANY
from content.registrations import Wish

blp = Blueprint("bookings", __name__, url_prefix="/v1", description="Book seats in a session or a series")

SEATS = validate.Range(1, registrations.PER_PHONE)
CODE = Regexp("^[a-z][a-z0-9_]*$")


class AnswerIn(ma.Schema):
    question = ma.fields.String(required=True, validate=[validate.Length(1, 32), CODE])
    answer = ma.fields.String(
        required=True, validate=validate.Length(1, 500), metadata={"description": "an option's code, or words"}
    )


class PushIn(ma.Schema):
    kind = ma.fields.String(required=True, validate=validate.OneOf(["fid", "token"]))
    value = ma.fields.String(required=True, validate=[validate.Length(10, 400), Regexp("^[A-Za-z0-9_:.-]+$")])


MOST_OF_AN_ADDRESS = 40  # seats of one session or series in a day; beyond it the organiser says yes to each: schools share one

PUSH = {"description": "where Firebase finds this phone; sealed, and erased with the booking. Left out: its inbox only"}


class BookingIn(ma.Schema):
    seats = ma.fields.Integer(load_default=1, strict=True, validate=SEATS)
    family_name = ma.fields.String(required=True, validate=validate.Length(1, 40), metadata={"example": "王"})
    phone = ma.fields.String(required=True, validate=validate.Length(5, 25), metadata={"example": "13800138000"})
    needs = ma.fields.String(load_default="", validate=validate.Length(max=200), metadata={"example": "需要轮椅通道"})
    answers = ma.fields.List(ma.fields.Nested(AnswerIn), load_default=list, validate=validate.Length(max=10))
    wait = ma.fields.Boolean(load_default=False, metadata={"description": "go on the waiting list where there is no seat"})
    invitation = ma.fields.String(load_default="", validate=validate.Length(max=40))
    push = ma.fields.Nested(PushIn, load_default=None, metadata=PUSH)


class ChangeIn(ma.Schema):
    seats = ma.fields.Integer(strict=True, validate=SEATS)
    needs = ma.fields.String(validate=validate.Length(max=200))
    push = ma.fields.Nested(PushIn, allow_none=True, metadata={"description": "null: no push any more"})


class PlaceOut(ma.Schema):
    session = ma.fields.Nested(SessionOut)
    state = ma.fields.String(validate=validate.OneOf(STATES))
    seats = ma.fields.Integer()
    ahead = ma.fields.Integer(metadata={"description": "families that wait before you; 0 unless you wait"})
    offered_until = ma.fields.String(allow_none=True, metadata={"description": "accept or decline by then; local time"})
    attended = ma.fields.Integer(allow_none=True, metadata={"description": "seats checked in"})
    online_link = ma.fields.String(allow_none=True, metadata={"description": "of an online session, for those confirmed"})
    feedback = ma.fields.Nested(FeedbackOut)


class MessageOut(ma.Schema):
    id = ma.fields.String()
    kind = ma.fields.String(validate=validate.OneOf(list(reaching.MESSAGES)))
    session = ma.fields.String()
    at = ma.fields.String()
    text = ma.fields.String()


class BookingOut(ma.Schema):
    series = ma.fields.String()
    whole = ma.fields.Boolean(metadata={"description": "a place in every session of the series that could be booked"})
    seats = ma.fields.Integer()
    places = ma.fields.List(ma.fields.Nested(PlaceOut), metadata={"description": "in order of time"})
    messages = ma.fields.List(ma.fields.Nested(MessageOut), metadata={"description": "the booking's inbox, newest first"})
    push = ma.fields.Boolean(metadata={"description": "whether this phone asked to be told by push"})
    organiser = ma.fields.String(metadata={"description": "the name that the series gives; may be empty"})
    contact = ma.fields.String(metadata={"description": "whom to ask; may be empty"})
    calendar = ma.fields.String(metadata={"description": "secret address of its calendar; it shows and changes nothing"})
    check_in = ma.fields.String(
        metadata={"description": "text of the QR code shown at the door (`…/check-in.svg`); it opens nothing"}
    )


class NewBookingOut(BookingOut):
    left_out = ma.fields.List(
        ma.fields.String(), metadata={"description": "of a whole series: sessions in which there was no room; `wait` waits there"}
    )
    code = ma.fields.String(metadata={"description": "opens the booking; shown this once", "example": "7K3QX-0M9TD-W2E5R"})


def booking_out(booked: Booked) -> dict[str, Any]:
    """A booking as its holder sees it: no name and no telephone, which the holder knows and a finder should not."""
    now, wanted = store.now(), front.wanted()
    found = [
        (message, text(message.texts, wanted))
        for held in booked.places
        for message in reaching.messages(held, now, _titles(held.session))
    ]
    found.sort(key=lambda pair: (pair[0].at, pair[0].id), reverse=True)
    inbox = [
        {"id": m.id, "kind": m.kind, "session": m.session, "at": m.at.isoformat(timespec="seconds"), "text": said}
        for m, said in found
    ]
    series = _series(booked.series)
    return {
        "series": booked.series,
        "whole": booked.whole,
        "seats": booked.seats,
        "places": [_place(held) for held in booked.places],
        "messages": inbox,
        "push": booked.pushed,
        "organiser": text(series.get("organiser_name", {}), wanted),
        "contact": text(series.get("contact", {}), wanted),
        "calendar": f"/v1/calendars/bookings/{booked.feed}.ics",
        "check_in": attendance.token(booked.code),
    }


def _place(held: Held) -> dict[str, Any]:
    session, until = held.session, held.offered_until
    content = courses.session_item(session).content or {}
    shown = held.state == "confirmed" and session.state == "published"
    return {
        "session": session_out(reader().current, content, front.wanted()),
        "state": held.state,
        "seats": held.seats,
        "ahead": held.ahead,
        "offered_until": courses.local(until, session.zone) if until else None,
        "attended": held.attended,
        "online_link": session.online_link if shown else None,
        "feedback": feedback_out(held),
    }


def _titles(session: CourseSession) -> dict[str, str]:
    """A session's name by language: its own, or its series'."""
    if session.title:
        return dict(session.title)
    return {tag: row["title"] for tag, row in _series(session.series).get("texts", {}).items()}


def _series(key: str) -> Mapping[str, Any]:
    """A published series, also one by invitation: who booked in it may know; {} when there is none."""
    kinds = (reader().current.get(kind, key).get(ANY) for kind in ("series", "invited_series"))
    return next((item.content for item in kinds if item and item.content), {})


def _book(payload: dict[str, Any], **target: Any) -> Response:
    answers = {row["question"]: row["answer"] for row in payload.pop("answers")}
    asked = f"{request.remote_addr} {'/'.join(target.values())}"
    doubtful = guard.beyond("bookings.seats", asked, payload["seats"], MOST_OF_AN_ADDRESS)
    wish = Wish(**payload, answers=answers, doubtful=doubtful, **target)
    booked = registrations.book(settings(), wish, request.headers.get("Idempotency-Key"))
    response = jsonify({"code": booked.code, "left_out": list(booked.left_out), **booking_out(booked)})
    response.status_code = 201
    return response


@blp.post("/sessions/<string:session_id>/bookings")
@blp.arguments(BookingIn)
@blp.alt_response(201, schema=NewBookingOut)
def create(payload: dict[str, Any], session_id: str) -> Response:
    """Book seats without an account

    The answer's `code` opens the booking; write it down, it is kept nowhere here. With an `Idempotency-Key` (16 characters or
    more) a repeat gets the same booking and code. What you send is encrypted, seen by the organiser only (at the door the
    family name by the host too), and erased on cancelling or within 30 days after the session. With `wait` you go on the
    waiting list where there is no seat: what comes free is offered in the order of arrival, for twelve waking hours. Who asks
    for very many seats from one address gets places that wait for the organiser's word.
    """
    return _book(payload, session=session_id)


@blp.post("/courses/<string:course_id>/bookings")
@blp.arguments(BookingIn)
@blp.alt_response(201, schema=NewBookingOut)
def create_whole(payload: dict[str, Any], course_id: str) -> Response:
    """Book every session of a series that can be booked now

    As for one session; sessions without a seat are waited for with `wait`, and left out without.
    """
    return _book(payload, series=course_id)


@blp.get("/bookings/<string:code>")
@blp.alt_response(200, schema=BookingOut)
def show(code: str) -> Response:
    """A booking, by its code, with its inbox

    Opening it tells the organiser that you know of what has happened so far: nobody will call you about that.
    """
    return jsonify(booking_out(reaching.look(code)))


@blp.patch("/bookings/<string:code>")
@blp.arguments(ChangeIn)
@blp.alt_response(200, schema=BookingOut)
def change(payload: dict[str, Any], code: str) -> Response:
    """Change seats, needs or push

    The number of seats changes in every place that is still to come. More are to be had where they are free and nobody waits.
    """
    if not payload:
        raise invalid("seats", "required")
    quiet = "push" in payload and payload["push"] is None
    booked = waiting.change(code, seats=payload.get("seats"), needs=payload.get("needs"), push=payload.get("push"), quiet=quiet)
    return jsonify(booking_out(booked))


@blp.delete("/bookings/<string:code>")
@blp.alt_response(200, schema=BookingOut)
def cancel(code: str) -> Response:
    """Cancel a booking, with all its places that are still to come

    The seats go to who waits first; name and telephone are erased at once. A second call changes nothing and answers the same.
    """
    return jsonify(booking_out(waiting.cancel(code)))


@blp.delete("/bookings/<string:code>/places/<string:session_id>")
@blp.alt_response(200, schema=BookingOut)
def leave(code: str, session_id: str) -> Response:
    """Cancel one place, or leave its waiting list"""
    return jsonify(booking_out(waiting.leave(code, session_id)))


@blp.post("/bookings/<string:code>/places/<string:session_id>/accept")
@blp.alt_response(200, schema=BookingOut)
def accept(code: str, session_id: str) -> Response:
    """Accept the seats offered; a second call changes nothing"""
    return jsonify(booking_out(waiting.accept(code, session_id)))


@blp.post("/bookings/<string:code>/places/<string:session_id>/decline")
@blp.alt_response(200, schema=BookingOut)
def decline(code: str, session_id: str) -> Response:
    """Decline the seats offered: they go to the next family at once; a second call changes nothing"""
    return jsonify(booking_out(waiting.decline(code, session_id)))

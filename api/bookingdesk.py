"""The organiser's desk of a session's bookings: who comes, whom to approve, whom to call.

Only for the own organisation. Every reading of names and telephones leaves a line in the trail.
"""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor
from api.guard import Blueprint
from api.sessions import own_session
from content import courses, reaching, sessions, waiting
from content.bookings import STATES, register

staff = Blueprint("staff_bookings", __name__, url_prefix="/v1/staff", description="Who has booked, whom to call")


class Answer(ma.Schema):
    question = ma.fields.String()
    answer = ma.fields.String()


class EntryOut(ma.Schema):
    place = ma.fields.String()
    number = ma.fields.Integer(metadata={"description": "of arrival"})
    state = ma.fields.String(validate=validate.OneOf(STATES))
    seats = ma.fields.Integer()
    attended = ma.fields.Integer(allow_none=True)
    offered_until = ma.fields.String(allow_none=True)
    whole = ma.fields.Boolean(metadata={"description": "booked with the whole series"})
    family_name = ma.fields.String(metadata={"description": "empty once erased, as the next four"})
    phone = ma.fields.String()
    needs = ma.fields.String()
    answers = ma.fields.List(ma.fields.Nested(Answer))
    created_at = ma.fields.String()


class EntriesOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(EntryOut))


class CallMade(ma.Schema):
    at = ma.fields.String()
    outcome = ma.fields.String(validate=validate.OneOf(reaching.OUTCOMES))


class CallOut(ma.Schema):
    place = ma.fields.String()
    number = ma.fields.Integer()
    seats = ma.fields.Integer()
    state = ma.fields.String()
    why = ma.fields.String(metadata={"description": "offered, moved, changed, cancelled, or waiting: the last day's list"})
    family_name = ma.fields.String()
    phone = ma.fields.String()
    calls = ma.fields.List(ma.fields.Nested(CallMade), metadata={"description": "made so far"})


class CallsOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(CallOut))


@staff.get("/sessions/<string:session_id>/bookings")
@staff.alt_response(200, schema=EntriesOut)
def index_staff(session_id: str) -> Response:
    """Who has booked, in order of arrival, with family names and telephones"""
    own_session(session_id, "booking.read")
    return _entries(session_id)


def _entries(session_id: str) -> Response:
    zone = sessions.session(session_id).zone
    rows = [
        {
            **row._asdict(),
            "answers": [{"question": question, "answer": answer} for question, answer in row.answers.items()],
            "offered_until": courses.local(row.offered_until, zone) if row.offered_until else None,
            "created_at": row.created_at.isoformat(),
        }
        for row in register(session_id, actor().id)
    ]
    return jsonify({"items": rows})


class NoteIn(ma.Schema):
    note = ma.fields.String(
        load_default="", validate=validate.Length(max=200), metadata={"description": "for the trail; no names"}
    )


@staff.post("/sessions/<string:session_id>/bookings/<string:place_id>/approve")
@staff.alt_response(200, schema=EntriesOut, description="The list as it now is")
def approve(session_id: str, place_id: str) -> Response:
    """Say yes to a requested place"""
    own_session(session_id, "booking.write")
    waiting.approve(session_id, place_id, actor().id)
    return _entries(session_id)


@staff.post("/sessions/<string:session_id>/bookings/<string:place_id>/refuse")
@staff.arguments(NoteIn)
@staff.alt_response(200, schema=EntriesOut, description="The list as it now is")
def refuse(payload: dict[str, Any], session_id: str, place_id: str) -> Response:
    """Say no to a place that is still to come, also a confirmed one; its seats go to who waits first"""
    own_session(session_id, "booking.write")
    waiting.refuse(session_id, place_id, actor().id, payload["note"])
    return _entries(session_id)


@staff.post("/sessions/<string:session_id>/bookings/<string:place_id>/give")
@staff.alt_response(200, schema=EntriesOut, description="The list as it now is")
def give(session_id: str, place_id: str) -> Response:
    """Give a waiting family its seats after a call

    In the last 24 hours before the start, when there is no time for offers; an offered place at any time.
    """
    own_session(session_id, "booking.write")
    waiting.give(session_id, place_id, actor().id)
    return _entries(session_id)


@staff.get("/sessions/<string:session_id>/calls")
@staff.alt_response(200, schema=CallsOut)
def calls(session_id: str) -> Response:
    """Whom to call: families who were not reached by their booking's inbox

    They have not opened their booking since the session was moved, changed or cancelled, or since seats were offered; and, in the
    last 24 hours, those who wait.
    """
    own_session(session_id, "booking.read")
    return _calls(session_id)


def _calls(session_id: str) -> Response:
    rows = [
        {**row._asdict(), "calls": [{"at": one["at"].isoformat(), "outcome": one["outcome"]} for one in row.calls]}
        for row in reaching.calls(session_id, actor().id)
    ]
    return jsonify({"items": rows})


class CalledIn(ma.Schema):
    outcome = ma.fields.String(required=True, validate=validate.OneOf(reaching.OUTCOMES))


@staff.post("/sessions/<string:session_id>/calls/<string:place_id>")
@staff.arguments(CalledIn)
@staff.alt_response(200, schema=CallsOut, description="The list as it now is")
def called(payload: dict[str, Any], session_id: str, place_id: str) -> Response:
    """Mark a call; a family that was reached leaves the list"""
    own_session(session_id, "booking.write")
    reaching.called(session_id, place_id, payload["outcome"], actor().id)
    return _calls(session_id)

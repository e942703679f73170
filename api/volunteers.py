"""Volunteers: offer oneself as a lecturer or helper without an account, and the staff who answer.

A sign-up is opened by its code alone, which stands in the address: no log of ours keeps addresses, and no answer here is cached.
All of it needs the database.
"""

from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify, request
from marshmallow import validate

from api import guard
from api.auth import actor, allowed
from api.courses import ID
from api.errors import Messages
from api.guard import Blueprint, cursor_of, if_match, make_cursor, tagged
from api.lecturers import LecturerStaff
from api.lecturers import working_copy as lecturer_copy
from api.shapes import DIVISION, Paging, Real, Tag, codes, reader, settings
from content import divisions, store, volunteers
from content import staff as people
from content.courses import CourseSession
from content.failures import Forbidden, NotFound, invalid
from content.published import ANY
from content.vocabulary import TOPICS, VOLUNTEERS
from content.volunteers import Entry, Volunteer

blp = Blueprint("volunteers", __name__, url_prefix="/v1", description="Offer to help: lecturers and helpers")
staff = Blueprint("staff_volunteers", __name__, url_prefix="/v1/staff", description="Who offers to help, and hours given")


# --- the volunteer's side --------------------------------------------------------------------------------------------

MOST_A_DAY = 5  # sign-ups of one address
NOTES = {  # the same whether this telephone has signed up before or not
    False: {
        "zh-Hans": "同一个号码只算一份报名。如果这个号码更早报过名，以最早的那一份为准，修改和撤回都用那一份的编号；那一份"
        "撤回后，就轮到下一份。",
        "en": "One telephone is one offer. If this one was used before, the earliest sign-up counts; its own code changes and "
        "withdraws it, and once it is withdrawn the next one counts.",
    },
    True: {
        "zh-Hans": "这一份报名已撤回，谢谢您曾经愿意来帮忙。如果这个号码更早还报过名，那一份要用它自己的编号撤回。",
        "en": "This sign-up is withdrawn; thank you for having offered. If there is an earlier one of this telephone, it is "
        "withdrawn with its own code.",
    },
}


class OfferIn(ma.Schema):
    name = ma.fields.String(validate=validate.Length(1, volunteers.NAME), metadata={"example": "王秀英"})
    field = ma.fields.String(
        validate=validate.Length(max=volunteers.FIELD),
        metadata={"description": "what one can teach or do", "example": "亲子阅读"},
    )
    topics = codes(TOPICS)
    languages = ma.fields.List(Tag(), validate=validate.Length(max=20))
    hours_a_month = ma.fields.Integer(strict=True, validate=validate.Range(1, 200), metadata={"example": 4})
    message = ma.fields.String(validate=validate.Length(max=volunteers.MESSAGE))


class VolunteerIn(OfferIn):
    name = ma.fields.String(required=True, validate=validate.Length(1, volunteers.NAME), metadata={"example": "王秀英"})
    phone = ma.fields.String(required=True, validate=validate.Length(5, 25), metadata={"example": "13800138000"})
    kind = ma.fields.String(
        required=True, validate=validate.OneOf(list(VOLUNTEERS)), metadata={"description": "`volunteers` in /v1/vocabularies"}
    )
    division = ma.fields.String(required=True, validate=DIVISION, metadata={"example": "150603"})
    organisation = ma.fields.String(
        validate=ID, metadata={"description": "whom to help; without it the division's own staff see the offer"}
    )
    hours_a_month = ma.fields.Integer(required=True, strict=True, validate=validate.Range(1, 200), metadata={"example": 4})


class GivenOut(ma.Schema):
    date = ma.fields.String()
    hours = ma.fields.Float()


class VolunteerOut(ma.Schema):
    state = ma.fields.String(metadata={"description": "received, approved, declined or withdrawn"})
    reason = ma.fields.String(metadata={"description": "why it was declined; else empty"})
    kind = ma.fields.String()
    division = ma.fields.String()
    organisation = ma.fields.String()
    topics = ma.fields.List(ma.fields.String())
    languages = ma.fields.List(ma.fields.String())
    hours_a_month = ma.fields.Integer()
    given = ma.fields.List(ma.fields.Nested(GivenOut))
    hours_given = ma.fields.Float(metadata={"description": "the sum of `given`"})
    note = ma.fields.Nested(Messages, metadata={"description": "of several sign-ups of one telephone; always the same words"})


class NewVolunteerOut(VolunteerOut):
    code = ma.fields.String(metadata={"description": "opens the sign-up; shown this once", "example": "7K3QX-0M9TD-W2E5R"})


def volunteer_out(record: Volunteer, reason: str = "") -> dict[str, Any]:
    """A sign-up as its code shows it: no name and no telephone, which its holder knows and a finder should not."""
    return {
        **{name: getattr(record, name) for name in ("state", "kind", "division", "organisation", "hours_a_month")},
        "reason": reason,
        "topics": list(record.topics),
        "languages": list(record.languages),
        "given": [{"date": one["date"], "hours": one["hours"]} for one in record.given],
        "hours_given": record.hours(),
        "note": NOTES[record.state == "withdrawn"],
    }


@blp.post("/volunteers")
@blp.arguments(VolunteerIn)
@blp.alt_response(201, schema=NewVolunteerOut)
def create(payload: dict[str, Any]) -> Response:
    """Offer to teach or to help, without an account

    The answer's `code` opens the sign-up; write it down, it is kept nowhere here. Name, telephone and what is written freely are
    encrypted, seen by those asked only, and erased on withdrawing, within 30 days of a decline, and after a year in which nothing
    happened. With an `Idempotency-Key` (16 characters or more) a repeat gets the same code. A telephone that has signed up
    already gets an answer like any other. One address signs up five times a day at most.
    """
    guard.daily("volunteers.create", request.remote_addr or "", MOST_A_DAY)
    code, record = volunteers.sign_up(payload, request.headers.get("Idempotency-Key"))
    response = jsonify({"code": code, **volunteer_out(record)})
    response.status_code = 201
    return response


@blp.get("/volunteers/<string:code>")
@blp.alt_response(200, schema=VolunteerOut)
def show(code: str) -> Response:
    """A sign-up, by its code: how it stands, and the hours given"""
    return jsonify(volunteer_out(*volunteers.see(code)))


@blp.patch("/volunteers/<string:code>")
@blp.arguments(OfferIn)
@blp.alt_response(200, schema=VolunteerOut)
def edit(payload: dict[str, Any], code: str) -> Response:
    """Change what is offered

    Another telephone, kind or addressee is another sign-up: withdraw this one and sign up anew.
    """
    return jsonify(volunteer_out(volunteers.change(code, payload)))


@blp.delete("/volunteers/<string:code>")
@blp.alt_response(200, schema=VolunteerOut)
def withdraw(code: str) -> Response:
    """Withdraw a sign-up

    Name, telephone and words are erased at once, and the entry in the expert library that was made of it. An earlier sign-up of
    the same telephone, if there is one, is withdrawn with its own code. A second call changes nothing and answers the same.
    """
    return jsonify(volunteer_out(volunteers.withdraw(code)))


# --- staff -----------------------------------------------------------------------------------------------------------


class GivenStaff(GivenOut):
    id = ma.fields.String()
    session = ma.fields.String(metadata={"description": "id, or empty"})


class Standing(ma.Schema):
    """A sign-up without its person."""

    id = ma.fields.String()
    revision = ma.fields.Integer()
    state = ma.fields.String()
    kind = ma.fields.String()
    division = ma.fields.String()
    organisation = ma.fields.String()
    topics = ma.fields.List(ma.fields.String())
    languages = ma.fields.List(ma.fields.String())
    hours_a_month = ma.fields.Integer()
    given = ma.fields.List(ma.fields.Nested(GivenStaff))
    hours_given = ma.fields.Float()
    repeats = ma.fields.Integer(metadata={"description": "how often the same telephone has signed up again"})
    lecturer = ma.fields.String(allow_none=True, metadata={"description": "id of its entry in the expert library"})
    created_at = ma.fields.String()
    updated_at = ma.fields.String()


class EntryOut(Standing):
    name = ma.fields.String(metadata={"description": "this and the next three are empty once erased"})
    phone = ma.fields.String()
    field = ma.fields.String()
    message = ma.fields.String()
    reason = ma.fields.String(metadata={"description": "why it was declined"})


class EntryPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(EntryOut))
    next_cursor = ma.fields.String(allow_none=True)


def standing(record: Volunteer) -> dict[str, Any]:
    """A sign-up as staff see it, without its person."""
    names = ("id", "revision", "state", "kind", "division", "organisation", "hours_a_month", "repeats", "lecturer")
    return {
        **{name: getattr(record, name) for name in names},
        "topics": list(record.topics),
        "languages": list(record.languages),
        "given": [dict(one) for one in record.given],
        "hours_given": record.hours(),
        "created_at": record.created_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
    }


def entry_out(entry: Entry) -> dict[str, Any]:
    """A sign-up with its person."""
    return {**standing(entry.record), **entry.person._asdict(), "reason": entry.reason}


def may(permission: str, organisation: str, division: str) -> bool:
    """Whether the asker may do this to a sign-up for that organisation, or, of one that names none, for that division."""
    return actor().may(permission, organisation, division) or (
        not organisation and people.acts_for(actor(), permission, division)
    )


def own(key: str, permission: str) -> Volunteer:
    """The sign-up, when the asker may do this to it. Another organisation's is not there (404)."""
    record = volunteers.volunteer(key)
    if not may(permission, record.organisation, record.division):
        raise Forbidden() if may("booking.read", record.organisation, record.division) else NotFound(what=key)
    return record


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(["received", "approved", "declined", "withdrawn"]))
    kind = ma.fields.String(validate=validate.OneOf(list(VOLUNTEERS)))
    division = ma.fields.String(validate=DIVISION, metadata={"description": "of exactly this one"})


@staff.get("/volunteers")
@staff.arguments(StaffQuery, location="query")
@staff.response(200, EntryPage)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Who offers to help, with names and telephones, by id

    To the own organisation; and, for an office and for whoever has a grant for all organisations, to the division without naming
    an organisation. Every reading leaves a line in the trail.
    """
    match: dict[str, str] = {name: query[name] for name in ("state", "kind", "division") if name in query}
    areas = people.areas(actor(), "booking.read")

    def readable(organisation: str, division: str) -> bool:
        mine = actor().may("booking.read", organisation, division)
        return mine or (not organisation and any(divisions.within(division, area) for area in areas))

    found, more = volunteers.register(match, readable, cursor_of(query, 1)[0], query["limit"], actor().id)
    return {"items": [entry_out(one) for one in found], "next_cursor": make_cursor([found[-1].record.id]) if more else None}


@staff.get("/volunteers/<string:volunteer_id>")
@staff.alt_response(200, schema=EntryOut, description="ETag is its revision")
def show_staff(volunteer_id: str) -> Response:
    """One sign-up with name and telephone; every reading leaves a line in the trail"""
    own(volunteer_id, "booking.read")
    entry = volunteers.read(volunteer_id, actor().id)
    return tagged(entry_out(entry), entry.record.revision)


@staff.post("/volunteers/<string:volunteer_id>/approve")
@staff.alt_response(200, schema=Standing, description="Approved")
def approve(volunteer_id: str) -> Response:
    """Accept an offer; needs If-Match"""
    revision = if_match()
    own(volunteer_id, "booking.write")
    record = volunteers.approve(volunteer_id, actor().id, revision)
    return tagged(standing(record), record.revision)


class DeclineIn(ma.Schema):
    reason = ma.fields.String(
        required=True,
        validate=validate.Length(1, volunteers.REASON),
        metadata={"description": "each code of this telephone shows it: no name in it", "example": "本学期人手已满。"},
    )


@staff.post("/volunteers/<string:volunteer_id>/decline")
@staff.arguments(DeclineIn)
@staff.alt_response(200, schema=Standing, description="Declined; it is erased within 30 days")
def decline(payload: dict[str, Any], volunteer_id: str) -> Response:
    """Decline an offer with a reason; needs If-Match"""
    revision = if_match()
    own(volunteer_id, "booking.write")
    record = volunteers.decline(volunteer_id, payload["reason"], actor().id, revision)
    return tagged(standing(record), record.revision)


def known(session_id: str) -> None:
    """Raises `Invalid` unless a session is public or the asker may read it: no other answer tells that there is one."""
    item = reader().current.get("session", session_id).get(ANY)
    if item is None or item.content is None:
        raw = CourseSession.rows().find_one({"_id": session_id}, {"organisation": 1, "division": 1})
        if raw is None or not allowed("course.read", raw["organisation"], [raw["division"]]):
            raise invalid("session", "unknown_reference", value=session_id)


class HoursIn(ma.Schema):
    date = ma.fields.Date(format="iso", required=True, metadata={"description": "local date, not before last year"})
    hours = Real(required=True, validate=validate.Range(0.5, 24), metadata={"description": "in halves", "example": 1.5})
    session = ma.fields.String(load_default="", validate=validate.Length(max=64), metadata={"description": "id, if in one"})


@staff.post("/volunteers/<string:volunteer_id>/hours")
@staff.arguments(HoursIn)
@staff.alt_response(201, schema=Standing, description="Noted; the volunteer sees the sum")
def give(payload: dict[str, Any], volunteer_id: str) -> Response:
    """Note hours that an approved volunteer gave"""
    own(volunteer_id, "booking.write")
    if payload["session"]:
        known(payload["session"])
    today = store.now().astimezone(ZoneInfo(settings().zone)).date()
    record = volunteers.give(volunteer_id, payload["date"], payload["hours"], actor().id, today, payload["session"])
    return tagged(standing(record), record.revision, 201)


@staff.delete("/volunteers/<string:volunteer_id>/hours/<string:line_id>")
@staff.alt_response(200, schema=Standing, description="Struck out")
def take_back(volunteer_id: str, line_id: str) -> Response:
    """Strike out hours that were noted wrongly; needs If-Match"""
    revision = if_match()
    own(volunteer_id, "booking.write")
    record = volunteers.take_back(volunteer_id, line_id, actor().id, revision)
    return tagged(standing(record), record.revision)


class LibraryIn(ma.Schema):
    organisation = ma.fields.String(validate=ID, metadata={"description": "who keeps the entry; default: whom it was offered to"})
    language = Tag(load_default="zh-Hans", metadata={"description": "in which the name and the field are written"})


@staff.post("/volunteers/<string:volunteer_id>/lecturer")
@staff.arguments(LibraryIn)
@staff.alt_response(200, schema=LecturerStaff, description="The draft in the expert library, also at a second call")
def into_library(payload: dict[str, Any], volunteer_id: str) -> Response:
    """Make a draft in the expert library of an approved lecturer

    A second person reads it before it is published. It goes when the volunteer withdraws, is declined or is erased.
    """
    record = own(volunteer_id, "booking.write")
    organisation = payload.get("organisation") or record.organisation
    if not organisation:
        raise invalid("organisation", "required")
    if not actor().may("course.write", organisation, record.division):
        raise Forbidden()
    made = volunteers.into_library(volunteer_id, organisation, payload["language"], actor().id)
    return tagged(lecturer_copy(made), made.revision)


class HoursOut(ma.Schema):
    organisation = ma.fields.String()
    division = ma.fields.String()
    kind = ma.fields.String()
    year = ma.fields.Integer()
    hours = ma.fields.Float()
    times = ma.fields.Integer(metadata={"description": "how often hours were noted"})


class HoursPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(HoursOut))


@staff.get("/volunteer-hours")
@staff.response(200, HoursPage)
def tallies() -> dict[str, Any]:
    """Hours given by year, also by those who have left since; no names"""
    names = ("organisation", "division", "kind", "year", "hours", "times")
    found = [one for one in volunteers.tallies() if may("booking.read", one.organisation, one.division)]
    return {"items": [{name: getattr(one, name) for name in names} for one in found]}

"""Sessions of courses: when and where. The public schedule, and the desk where sessions are planned and published.

The schedule comes from the published set and is read while the database is away. Sessions of an invited series are in no list;
each is shown to whoever brings the series' `invitation`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front, guard
from api.auth import actor, allowed, demand
from api.clashes import FlagOut, demand_no_clash, exam_days, flag_out
from api.guard import Blueprint, created, cursor_of, if_match, next_page, page, tagged
from api.shapes import DIVISION, Paging, Real, by_language, listed, near, parts, reader, settings, text, words
from content import courses, planning, records, sessions
from content.courses import CourseSession
from content.failures import NotFound
from content.published import ANY, Snapshot
from content.vocabulary import PLACES, STEPS

blp = Blueprint("sessions", __name__, url_prefix="/v1", description="Sessions of courses")
staff = Blueprint("staff_sessions", __name__, url_prefix="/v1/staff", description="Plan, publish and cancel sessions")

ID = validate.Length(1, 64)
STATES = ("draft", "published", "finished", "cancelled")


# --- what readers get ------------------------------------------------------------------------------------------------


class Titled(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()


class Person(ma.Schema):
    name = ma.fields.String()
    field = ma.fields.String(metadata={"example": "家庭教育指导"})


class Venue(ma.Schema):
    name = ma.fields.String()
    address = ma.fields.String()
    access = ma.fields.String(metadata={"description": "how to get in: steps, lifts, where to ring"})


class SessionOut(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()
    series = ma.fields.Nested(Titled)
    organisation = ma.fields.String()
    host = ma.fields.String(metadata={"description": "the station or school it is held at; empty: its organisation"})
    division = ma.fields.String()
    starts_at = ma.fields.String(metadata={"description": "local time with offset", "example": "2027-05-15T19:00+08:00"})
    ends_at = ma.fields.String()
    moved_from = ma.fields.String(allow_none=True, metadata={"description": "its start before it was last moved"})
    booking_closes_at = ma.fields.String()
    zone = ma.fields.String(metadata={"example": "Asia/Shanghai"})
    place = ma.fields.String()
    venue = ma.fields.Nested(Venue, allow_none=True)
    latitude = ma.fields.Float(allow_none=True)
    longitude = ma.fields.Float(allow_none=True)
    lecturer = ma.fields.Nested(Person, allow_none=True)
    lecturer_id = ma.fields.String(metadata={"description": "in /v1/lecturers; may be empty"})
    step = ma.fields.String(metadata={"description": "know, use, can, well (知、用、会、好); may be empty"})
    class_hours = ma.fields.Integer()
    materials = ma.fields.List(ma.fields.String(), metadata={"description": "lesson:SLUG, media:SHA256; the series' first"})
    capacity = ma.fields.Integer()
    seats = ma.fields.String(metadata={"description": "open, few (at most a fifth left) or full"})
    waiting_list = ma.fields.Boolean(metadata={"description": "whether one can wait once it is full"})
    online = ma.fields.Boolean(metadata={"description": "its link is shown to those booked"})
    provisional = ma.fields.Boolean(metadata={"description": "that year's public holidays are not known yet: it may move"})
    state = ma.fields.String(metadata={"description": "published, finished or cancelled"})
    sequence = ma.fields.Integer(metadata={"description": "raised with every change"})
    updated_at = ma.fields.String()


class SessionPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SessionOut))
    next_cursor = ma.fields.String(allow_none=True)


def session_out(snapshot: Snapshot, content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A published session as it is answered, with the name of its series."""
    key = content["series"]
    parent = snapshot.get("series", key).get(ANY) or snapshot.get("invited_series", key).get(ANY)
    known = parent.content if parent and parent.content else {"texts": {}, "materials": []}
    title = text({tag: row["title"] for tag, row in known["texts"].items()}, wanted)
    return {
        **{name: value for name, value in content.items() if name != "media"},
        "series": {"id": key, "title": title},
        "title": text(content["title"], wanted) or title,
        "venue": parts(content["venue"], wanted),
        "lecturer": parts(content["lecturer"], wanted),
        "materials": list(dict.fromkeys([*known.get("materials", ()), *content["materials"]])),
    }


def sorted_sessions(snapshot: Snapshot) -> list[tuple[list[str], Mapping[str, Any]]]:
    """All sessions published to all with their sort key (start in UTC, id), sorted once a snapshot."""
    if "sorted" not in snapshot.memo("session"):
        found = [item.content for rows in snapshot.entries("session").values() for item in rows.values() if item.content]
        keyed = [([in_utc(one["starts_at"]), one["id"]], one) for one in found]
        snapshot.memo("session")["sorted"] = sorted(keyed, key=lambda pair: pair[0])
    return snapshot.memo("session")["sorted"]  # type: ignore[no-any-return]


def in_utc(moment: str) -> str:
    """A local moment with offset, comparable as text with `store.now().isoformat()`."""
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat()


def published_series(snapshot: Snapshot, key: str, invitation: str = "") -> Mapping[str, Any]:
    """What readers see of a series. Raises `NotFound`, also for an invited one without its invitation."""
    item = snapshot.get("series", key).get(ANY)
    if item is None or item.content is None:
        item = snapshot.get("invited_series", key).get(ANY)
        if item is None or item.content is None or not courses.invited(item.content, invitation):
            raise NotFound(what=key)
    return item.content


def published_session(snapshot: Snapshot, key: str, invitation: str = "") -> Mapping[str, Any]:
    """What readers see of a session. Raises `NotFound`, also for one of an invited series without its invitation."""
    item = snapshot.get("session", key).get(ANY)
    if item is None or item.content is None:
        item = snapshot.get("invited_session", key).get(ANY)
        if item is None or item.content is None:
            raise NotFound(what=key)
        try:
            published_series(snapshot, item.content["series"], invitation)
        except NotFound:
            raise NotFound(what=key) from None
    return item.content


class SessionsQuery(Paging):
    division = ma.fields.String(validate=DIVISION, metadata={"example": "150603"})
    series = ma.fields.String(validate=ID)
    place = ma.fields.String(validate=validate.OneOf(list(PLACES)))
    first = ma.fields.Date(format="iso", data_key="from", metadata={"description": "local date; default today"})
    last = ma.fields.Date(format="iso", data_key="to", metadata={"description": "local date, included"})


class InvitationQuery(ma.Schema):
    invitation = ma.fields.String(
        load_default="", validate=validate.Length(max=40), metadata={"description": "of an invited series"}
    )


@blp.get("/sessions")
@blp.arguments(SessionsQuery, location="query")
@blp.alt_response(200, schema=SessionPage)
def index(query: dict[str, Any]) -> Response:
    """Published sessions in order of time, cancelled ones marked

    `division` finds those for a division: of itself, of those above it and of those below it.
    """
    snapshot, wanted = reader().current, front.wanted()
    first = str(query.get("first") or datetime.now(ZoneInfo(settings().zone)).date())
    last = str(query.get("last") or "9999-12-31")
    found = [
        (key, one)
        for key, one in sorted_sessions(snapshot)
        if first <= one["starts_at"][:10] <= last
        and query.get("series", one["series"]) == one["series"]
        and query.get("place", one["place"]) == one["place"]
        and near(one["division"], query.get("division"))
    ]
    result = page(found, query.get("cursor"), query["limit"], lambda pair: pair[0])
    result["items"] = [session_out(snapshot, one, wanted) for _, one in result["items"]]
    front.keep(60)
    return jsonify(result)


@blp.get("/sessions/<string:session_id>")
@blp.arguments(InvitationQuery, location="query")
@blp.alt_response(200, schema=SessionOut)
def show(query: dict[str, Any], session_id: str) -> Response:
    """One session"""
    snapshot = reader().current
    guard.tried(query["invitation"])
    content = published_session(snapshot, session_id, query["invitation"])
    if not query["invitation"]:
        front.keep()
    return jsonify(session_out(snapshot, content, front.wanted()))


# --- staff -----------------------------------------------------------------------------------------------------------


class PersonIn(ma.Schema):
    name = words()
    field = words()


class VenueIn(ma.Schema):
    name = words()
    address = words()
    access = words()


class SessionIn(ma.Schema):
    starts_at = ma.fields.String(validate=validate.Length(10, 40), metadata={"example": "2027-05-15T19:00"})
    ends_at = ma.fields.String(validate=validate.Length(10, 40), metadata={"example": "2027-05-15T20:30"})
    booking_closes_at = ma.fields.String(
        validate=validate.Length(10, 40), allow_none=True, metadata={"example": "2027-05-15T18:00"}
    )
    zone = ma.fields.String(validate=validate.Length(1, 60), metadata={"example": "Asia/Shanghai"})
    place = ma.fields.String(validate=validate.OneOf(list(PLACES)))
    title = words()
    venue = ma.fields.Nested(VenueIn)
    latitude = Real(allow_none=True, validate=validate.Range(-90, 90))
    longitude = Real(allow_none=True, validate=validate.Range(-180, 180))
    lecturer = ma.fields.Nested(PersonIn)
    lecturer_id = ma.fields.String(allow_none=True, validate=validate.Length(max=64))
    host = ma.fields.String(allow_none=True, validate=validate.Length(max=64))
    step = ma.fields.String(allow_none=True, validate=validate.OneOf(list(STEPS)))
    class_hours = ma.fields.Integer(strict=True, allow_none=True, validate=validate.Range(0, 24))
    materials = ma.fields.List(ma.fields.String(validate=validate.Length(max=120)), validate=validate.Length(max=30))
    capacity = ma.fields.Integer(strict=True, validate=validate.Range(1, sessions.MOST_SEATS))
    waiting_list = ma.fields.Boolean()
    online_link = ma.fields.String(validate=validate.Length(max=1000), allow_none=True)


class NewSession(SessionIn):
    series = ma.fields.String(required=True, validate=ID)


class EditIn(SessionIn):
    despite_clashes = ma.fields.Boolean(
        load_default=False, metadata={"description": "true: its lecturer or room is taken then, and you know; of a published one"}
    )


class TextOut(ma.Schema):
    language = ma.fields.String()
    text = ma.fields.String()


class PersonParts(ma.Schema):
    name = ma.fields.List(ma.fields.Nested(TextOut))
    field = ma.fields.List(ma.fields.Nested(TextOut))


class VenueParts(ma.Schema):
    name = ma.fields.List(ma.fields.Nested(TextOut))
    address = ma.fields.List(ma.fields.Nested(TextOut))
    access = ma.fields.List(ma.fields.Nested(TextOut))


class WorkingSession(ma.Schema):
    """A session as staff see it, in the shape that they send."""

    id = ma.fields.String()
    series = ma.fields.String()
    organisation = ma.fields.String()
    division = ma.fields.String()
    invited = ma.fields.Boolean()
    state = ma.fields.String(validate=validate.OneOf(STATES))
    revision = ma.fields.Integer()
    starts_at = ma.fields.String()
    ends_at = ma.fields.String()
    booking_closes_at = ma.fields.String()
    zone = ma.fields.String()
    place = ma.fields.String()
    title = ma.fields.List(ma.fields.Nested(TextOut))
    venue = ma.fields.Nested(VenueParts)
    latitude = ma.fields.Float(allow_none=True)
    longitude = ma.fields.Float(allow_none=True)
    lecturer = ma.fields.Nested(PersonParts)
    lecturer_id = ma.fields.String(allow_none=True)
    host = ma.fields.String(allow_none=True)
    step = ma.fields.String(allow_none=True)
    class_hours = ma.fields.Integer()
    materials = ma.fields.List(ma.fields.String())
    capacity = ma.fields.Integer()
    waiting_list = ma.fields.Boolean()
    online_link = ma.fields.String(allow_none=True, metadata={"description": "for those who may change it"})
    seats_taken = ma.fields.Integer(metadata={"description": "of places confirmed, requested or offered"})
    waiting = ma.fields.Integer(metadata={"description": "places that wait"})
    attended = ma.fields.Integer(metadata={"description": "seats checked in"})
    walk_ins = ma.fields.Integer()
    headcount = ma.fields.Integer(allow_none=True, metadata={"description": "the organiser's own count"})
    flags = ma.fields.List(
        ma.fields.Nested(FlagOut), metadata={"description": "of its local date, as it looks today: no clash stands here"}
    )
    created_at = ma.fields.String()
    updated_at = ma.fields.String()


class WorkingSessions(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(WorkingSession))
    next_cursor = ma.fields.String(allow_none=True)


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that the verbs take."""
    values = dict(payload)
    if "title" in values:
        values["title"] = by_language(values["title"])
    for name in {"venue", "lecturer"} & values.keys():
        values[name] = {part: by_language(rows) for part, rows in values[name].items()}
    return values


def working_copy(record: CourseSession) -> dict[str, Any]:
    """`WorkingSession`."""
    values = records.values_of(record, sessions.SESSION_FIELDS)
    values["title"] = listed(values["title"])
    day = record.starts_at.astimezone(ZoneInfo(record.zone)).date()
    values["flags"] = [flag_out(flag) for flag in planning.day_flags(day, exam_days(record.division))]
    for name in ("venue", "lecturer"):
        values[name] = {part: listed(texts) for part, texts in values[name].items()}
    for name in ("starts_at", "ends_at", "booking_closes_at"):
        values[name] = courses.local(values[name], record.zone)
    if not allowed("course.write", record.organisation, [record.division]):
        values["online_link"] = None
    told = ("id", "state", "revision", "series", "organisation", "division", "invited")
    counts = ("seats_taken", "waiting", "attended", "walk_ins", "headcount")
    stamps = {"created_at": record.created_at.isoformat(), "updated_at": record.updated_at.isoformat()}
    return {**{name: getattr(record, name) for name in told + counts}, **values, **stamps}


def own(record: Any, permission: str) -> Any:
    """The record, when the asker may do this to it. Another organisation's is not there (404) unless it may be read."""
    noun = permission.partition(".")[0]
    read = f"{noun}.read" if noun == "booking" else "course.read"
    demand(permission, record.organisation, [record.division], read=read, what=record.id)
    return record


def own_session(key: str, permission: str) -> CourseSession:
    """A session the asker may do this to."""
    return own(sessions.session(key), permission)  # type: ignore[no-any-return]


class StaffSessionsQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))
    organisation = ma.fields.String(validate=ID)
    series = ma.fields.String(validate=ID)


def mine(cls: Any, query: dict[str, Any], show: Any) -> dict[str, Any]:
    """One page of the records that the asker may read, by id. Costs a walk over what lies between, which is small: one
    district has some hundreds of series and some thousands of sessions."""
    match: dict[str, Any] = {name: query[name] for name in ("state", "organisation", "series") if name in query}
    match["_id"] = {"$gt": cursor_of(query, 1)[0]}
    found: Iterator[Any] = map(cls.of, cls.rows().find(match).sort("_id", 1))
    readable = (record for record in found if allowed("course.read", record.organisation, [record.division]))
    return next_page(readable, query["limit"], lambda record: [record.id], show)


@staff.get("/sessions")
@staff.arguments(StaffSessionsQuery, location="query")
@staff.alt_response(200, schema=WorkingSessions)
def index_staff(query: dict[str, Any]) -> Response:
    """Sessions the asker may read, by id, with exact seats"""
    return jsonify(mine(CourseSession, query, working_copy))


@staff.post("/sessions")
@staff.arguments(NewSession)
@staff.alt_response(201, schema=WorkingSession, description="The new draft")
def create(payload: dict[str, Any]) -> Response:
    """Add a session to a series

    A time without an offset is local time of `zone`.
    """
    parent = own(courses.series(payload.pop("series")), "course.write")
    made = sessions.create_session(parent.id, {"zone": settings().zone, **stored(payload)}, actor().id)
    return created(working_copy(made), made.revision, f"/v1/staff/sessions/{made.id}")


@staff.get("/sessions/<string:session_id>")
@staff.alt_response(200, schema=WorkingSession, description="The session; ETag is its revision")
def show_staff(session_id: str) -> Response:
    """A session with exact seats and its online link"""
    record = own_session(session_id, "course.read")
    return tagged(working_copy(record), record.revision)


@staff.patch("/sessions/<string:session_id>")
@staff.arguments(EditIn)
@staff.alt_response(200, schema=WorkingSession, description="The changed session")
def edit(payload: dict[str, Any], session_id: str) -> Response:
    """Change a session

    Of a published session this is public at once and needs the permission to publish; those booked are told (`…/calls`). A start
    sent alone takes the end and the end of booking with it. Seats that are added go to who waits first. 409 `clash` when it would
    take a lecturer or a room that is taken then. Needs If-Match.
    """
    revision, present = if_match(), own_session(session_id, "course.write")
    if present.state == "published":
        own(present, "course.publish")
    despite = payload.pop("despite_clashes")
    look = functools.partial(demand_no_clash, despite=despite)
    record = sessions.edit_session(session_id, stored(payload), actor().id, revision, look)
    reader().refresh()
    return tagged(working_copy(sessions.session(record.id)), record.revision)


@staff.delete("/sessions/<string:session_id>")
@staff.response(204)
def remove(session_id: str) -> None:
    """Delete a draft session; needs If-Match"""
    revision = if_match()
    own_session(session_id, "course.write")
    sessions.remove_session(session_id, actor().id, revision)


class PublishIn(ma.Schema):
    despite_clashes = ma.fields.Boolean(
        load_default=False, metadata={"description": "true: its lecturer or room is taken at that time, and you know"}
    )


@staff.post("/sessions/<string:session_id>/publish")
@staff.arguments(PublishIn)
@staff.alt_response(200, schema=WorkingSession, description="Published and open for booking")
def publish(payload: dict[str, Any], session_id: str) -> Response:
    """Publish a session of a published series

    409 `clash` while its lecturer or its room is taken at that time (`…/clashes` tells by what), 422 without a venue's name or an
    online link, or with materials that readers cannot open. Needs If-Match.
    """
    revision, present = if_match(), own_session(session_id, "course.publish")
    demand_no_clash(present, payload["despite_clashes"])
    record = sessions.publish_session(session_id, actor().id, revision)
    reader().refresh()
    return tagged(working_copy(record), record.revision)


class CancelIn(ma.Schema):
    note = ma.fields.String(load_default="", validate=validate.Length(max=500), metadata={"description": "for the trail"})


@staff.post("/sessions/<string:session_id>/cancel")
@staff.arguments(CancelIn)
@staff.alt_response(200, schema=WorkingSession, description="Cancelled for good")
def cancel(payload: dict[str, Any], session_id: str) -> Response:
    """Cancel a published session, or within a week one that did not take place

    Readers and those booked see it as cancelled. Needs If-Match.
    """
    revision = if_match()
    own_session(session_id, "course.publish")
    record = sessions.cancel_session(session_id, actor().id, revision, payload["note"])
    reader().refresh()
    return tagged(working_copy(record), record.revision)

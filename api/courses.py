"""Family-education courses: the public schedule and the organiser's desk.

The schedule comes from the published set and is read while the database is away.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed, demand
from api.guard import Blueprint, created, cursor_of, if_match, next_page, page, tagged
from api.shapes import Paging, Regexp, StageField, Tag, by_language, codes, listed, reader, settings, words
from content import courses, divisions, languages, store
from content.courses import CourseSession, Series
from content.failures import Forbidden, NotFound
from content.published import ANY, Snapshot
from content.vocabulary import AUDIENCES, FORMATS, PLACES, TOPICS, Stage

blp = Blueprint("courses", __name__, url_prefix="/v1", description="Courses and their sessions")
staff = Blueprint("staff_courses", __name__, url_prefix="/v1/staff", description="Plan, publish and cancel courses")

DIVISION = Regexp("^[0-9]{6}$")
ID = validate.Length(1, 64)


# --- what readers get ------------------------------------------------------------------------------------------------


def text(texts: Mapping[str, str] | None, wanted: Sequence[str]) -> str:
    """The text of the reader's best language; "" when there is none."""
    return texts[languages.pick(texts, wanted, settings().language)] if texts else ""


def person(parts: Mapping[str, Mapping[str, str]] | None, wanted: Sequence[str]) -> dict[str, str] | None:
    """A lecturer or a venue: each part in the reader's language; None when there is none."""
    return {name: text(texts, wanted) for name, texts in parts.items()} if parts else None


def series_out(content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A published series as it is answered."""
    language = languages.pick(content["texts"], wanted, settings().language)
    return {
        "id": content["id"],
        **content["texts"][language],
        "language": language,
        "languages": sorted(content["texts"]),
        "organiser": text(content["organiser_name"], wanted),
        "organisation": content["organisation"],
        "held_in": content["languages"],
        "lecturers": [person(one, wanted) for one in content["lecturers"]],
        **{name: content[name] for name in ("topics", "audiences", "stages", "format", "division", "state")},
    }


def session_out(snapshot: Snapshot, content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A published session as it is answered, with the name of its series."""
    parent = snapshot.get("series", content["series"]).get(ANY)
    known = series_out(parent.content, wanted) if parent and parent.content else {"id": content["series"], "title": ""}
    return {
        **content,
        "series": {"id": known["id"], "title": known["title"]},
        "title": text(content["title"], wanted) or known["title"],
        "venue": person(content["venue"], wanted),
        "lecturer": person(content["lecturer"], wanted),
    }


def near(division: str, asked: str | None) -> bool:
    """Whether families of the division asked for may come: it lies under this one, or this one lies under it."""
    return asked is None or divisions.within(asked, division) or divisions.within(division, asked)


def sorted_sessions(snapshot: Snapshot) -> list[tuple[list[str], Mapping[str, Any]]]:
    """All published sessions with their sort key (start in UTC, id), sorted once a snapshot."""
    if "sorted" not in snapshot.memo("session"):
        found = [item.content for rows in snapshot.entries("session").values() for item in rows.values() if item.content]
        keyed = [([datetime.fromisoformat(one["starts_at"]).astimezone(UTC).isoformat(), one["id"]], one) for one in found]
        snapshot.memo("session")["sorted"] = sorted(keyed, key=lambda pair: pair[0])
    return snapshot.memo("session")["sorted"]  # type: ignore[no-any-return]


class CoursesQuery(Paging):
    division = ma.fields.String(validate=DIVISION, metadata={"example": "150603"})
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = StageField()
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)))


class Person(ma.Schema):
    name = ma.fields.String()
    field = ma.fields.String(metadata={"example": "家庭教育指导"})


class Venue(ma.Schema):
    name = ma.fields.String()
    address = ma.fields.String()


class Course(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()
    summary = ma.fields.String()
    language = ma.fields.String(metadata={"description": "of title and summary"})
    languages = ma.fields.List(ma.fields.String())
    organiser = ma.fields.String()
    organisation = ma.fields.String()
    held_in = ma.fields.List(ma.fields.String(), metadata={"description": "languages in which it is held"})
    lecturers = ma.fields.List(ma.fields.Nested(Person))
    topics = ma.fields.List(ma.fields.String())
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String(), metadata={"description": "empty: every stage"})
    format = ma.fields.String()
    division = ma.fields.String()
    state = ma.fields.String(metadata={"description": "published or cancelled"})


class CoursePage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Course))
    next_cursor = ma.fields.String(allow_none=True)


class Titled(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()


class SessionOut(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()
    series = ma.fields.Nested(Titled)
    organisation = ma.fields.String()
    division = ma.fields.String()
    starts_at = ma.fields.String(metadata={"description": "local time with offset", "example": "2027-05-15T19:00+08:00"})
    ends_at = ma.fields.String()
    booking_closes_at = ma.fields.String()
    zone = ma.fields.String(metadata={"example": "Asia/Shanghai"})
    place = ma.fields.String()
    venue = ma.fields.Nested(Venue, allow_none=True)
    lecturer = ma.fields.Nested(Person, allow_none=True)
    capacity = ma.fields.Integer()
    seats = ma.fields.String(metadata={"description": "open, few (at most a fifth left) or full"})
    state = ma.fields.String(metadata={"description": "published or cancelled"})


class SessionPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SessionOut))
    next_cursor = ma.fields.String(allow_none=True)


@blp.get("/courses")
@blp.arguments(CoursesQuery, location="query")
@blp.alt_response(200, schema=CoursePage, description="Newest first")
def index(query: dict[str, Any]) -> Response:
    """Published course series

    `division` finds those of a division, of those above it and of those below it.
    """
    snapshot, wanted = reader().current, front.wanted()
    found = []
    for rows in snapshot.entries("series").values():
        for item in rows.values():
            one = item.content or {}
            if (
                near(one["division"], query.get("division"))
                and ("audience" not in query or query["audience"] in one["audiences"])
                and ("topic" not in query or query["topic"] in one["topics"])
                and (
                    "stage" not in query or not one["stages"] or any(Stage.parse(s).covers(query["stage"]) for s in one["stages"])
                )
            ):
                found.append(item)
    result = page(sorted(found, key=lambda i: (-i.seq, i.key)), query.get("cursor"), query["limit"], lambda i: [-i.seq, i.key])
    result["items"] = [series_out(item.content, wanted) for item in result["items"]]
    front.keep()
    return jsonify(result)


class CourseDetail(Course):
    sessions = ma.fields.List(ma.fields.Nested(SessionOut))


@blp.get("/courses/<string:course_id>")
@blp.alt_response(200, schema=CourseDetail)
def show(course_id: str) -> Response:
    """One series with its sessions that are not over, in order of time (at most 100)"""
    snapshot, wanted = reader().current, front.wanted()
    item = snapshot.get("series", course_id).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=course_id)
    now = store.now().isoformat()
    ahead = [one for _, one in sorted_sessions(snapshot) if one["series"] == course_id and in_utc(one["ends_at"]) > now]
    front.keep(60)
    return jsonify({**series_out(item.content, wanted), "sessions": [session_out(snapshot, one, wanted) for one in ahead[:100]]})


def in_utc(moment: str) -> str:
    """A local moment with offset, comparable as text with `store.now().isoformat()`."""
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat()


class SessionsQuery(Paging):
    division = ma.fields.String(validate=DIVISION, metadata={"example": "150603"})
    series = ma.fields.String(validate=ID)
    place = ma.fields.String(validate=validate.OneOf(list(PLACES)))
    first = ma.fields.Date(format="iso", data_key="from", metadata={"description": "local date; default today"})
    last = ma.fields.Date(format="iso", data_key="to", metadata={"description": "local date, included"})


@blp.get("/sessions")
@blp.arguments(SessionsQuery, location="query")
@blp.alt_response(200, schema=SessionPage)
def sessions(query: dict[str, Any]) -> Response:
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
@blp.alt_response(200, schema=SessionOut)
def session(session_id: str) -> Response:
    """One session"""
    snapshot = reader().current
    item = snapshot.get("session", session_id).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=session_id)
    front.keep()
    return jsonify(session_out(snapshot, item.content, front.wanted()))


# --- staff -----------------------------------------------------------------------------------------------------------


class TitleIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(required=True, validate=validate.Length(1, 120))
    summary = ma.fields.String(load_default="", validate=validate.Length(max=2000))


class PersonIn(ma.Schema):
    name = words()
    field = words()


class VenueIn(ma.Schema):
    name = words()
    address = words()


class SeriesIn(ma.Schema):
    texts = ma.fields.List(ma.fields.Nested(TitleIn), validate=validate.Length(1, 20))
    organiser_name = words()
    topics = codes(TOPICS)
    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    languages = ma.fields.List(Tag(), validate=validate.Length(max=20))
    format = ma.fields.String(validate=validate.OneOf(list(FORMATS)))
    organisation = ma.fields.String(validate=ID)
    division = ma.fields.String(validate=DIVISION)
    lecturers = ma.fields.List(ma.fields.Nested(PersonIn), validate=validate.Length(max=50))


class NewSeries(SeriesIn):
    texts = ma.fields.List(ma.fields.Nested(TitleIn), required=True, validate=validate.Length(1, 20))
    format = ma.fields.String(required=True, validate=validate.OneOf(list(FORMATS)))
    organisation = ma.fields.String(required=True, validate=ID)
    division = ma.fields.String(required=True, validate=DIVISION)


class SessionIn(ma.Schema):
    starts_at = ma.fields.String(validate=validate.Length(10, 40), metadata={"example": "2027-05-15T19:00"})
    ends_at = ma.fields.String(validate=validate.Length(10, 40), metadata={"example": "2027-05-15T20:30"})
    booking_closes_at = ma.fields.String(validate=validate.Length(10, 40), allow_none=True)
    zone = ma.fields.String(validate=validate.Length(1, 60), metadata={"example": "Asia/Shanghai"})
    place = ma.fields.String(validate=validate.OneOf(list(PLACES)))
    title = words()
    venue = ma.fields.Nested(VenueIn)
    lecturer = ma.fields.Nested(PersonIn)
    capacity = ma.fields.Integer(strict=True, validate=validate.Range(1, courses.MOST_SEATS))
    online_link = ma.fields.String(validate=validate.Length(max=1000), allow_none=True)


class NewSession(SessionIn):
    series = ma.fields.String(required=True, validate=ID)


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that the verbs take."""
    values = dict(payload)
    for name in {"organiser_name", "title"} & values.keys():
        values[name] = by_language(values[name])
    for name in {"venue", "lecturer"} & values.keys():
        values[name] = {part: by_language(rows) for part, rows in values[name].items()}
    if "lecturers" in values:
        values["lecturers"] = [{part: by_language(rows) for part, rows in one.items()} for one in values["lecturers"]]
    if "texts" in values:
        values["texts"] = {row["language"]: {"title": row["title"], "summary": row["summary"]} for row in values["texts"]}
    return values


def working_copy(record: Series | CourseSession) -> dict[str, Any]:
    """A record as staff see it, in the shape that they send."""
    fields = courses.SERIES_FIELDS if isinstance(record, Series) else courses.SESSION_FIELDS
    values = courses.values_of(record, fields)
    for name in {"organiser_name", "title"} & values.keys():
        values[name] = listed(values[name])
    for name in {"venue", "lecturer"} & values.keys():
        values[name] = {part: listed(texts) for part, texts in values[name].items()}
    if isinstance(record, Series):
        values["lecturers"] = [{part: listed(texts) for part, texts in one.items()} for one in values["lecturers"]]
        values["texts"] = [{"language": code, **row} for code, row in sorted(values["texts"].items())]
        more: dict[str, Any] = {
            "approved": bool(record.approved_by),
            "public": record.published_revision is not None,
            "unpublished_changes": record.published_revision != record.revision,
        }
    else:
        for name in ("starts_at", "ends_at", "booking_closes_at"):
            values[name] = courses.local(values[name], record.zone)
        more = {"series": record.series, "organisation": record.organisation, "division": record.division}
        more["seats_taken"] = record.seats_taken
    stamps = {"created_at": record.created_at.isoformat(), "updated_at": record.updated_at.isoformat()}
    return {"id": record.id, "state": record.state, "revision": record.revision, **values, **more, **stamps}


def own(record: Any, permission: str) -> Any:
    """The record, when the asker may do this to it. Another organisation's is not there (404) unless it may be read."""
    read = "course.read" if permission != "booking.read" else permission
    demand(permission, record.organisation, [record.division], read=read, what=record.id)
    return record


def own_series(key: str, permission: str) -> Series:
    """A series the asker may do this to."""
    return own(courses.series(key), permission)  # type: ignore[no-any-return]


def own_session(key: str, permission: str) -> CourseSession:
    """A session the asker may do this to."""
    return own(courses.session(key), permission)  # type: ignore[no-any-return]


class StaffCoursesQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(["draft", "published", "cancelled"]))
    organisation = ma.fields.String(validate=ID)


class StaffSessionsQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(["draft", "published", "cancelled", "finished"]))
    organisation = ma.fields.String(validate=ID)
    series = ma.fields.String(validate=ID)


def mine(cls: type[Series] | type[CourseSession], query: dict[str, Any]) -> dict[str, Any]:
    """One page of the records that the asker may read, by id. Costs a walk over what lies between, which is small: one
    district has some hundreds of series and some thousands of sessions."""
    match: dict[str, Any] = {name: query[name] for name in ("state", "organisation", "series") if name in query}
    match["_id"] = {"$gt": cursor_of(query, 1)[0]}
    found: Iterator[Series | CourseSession] = map(cls.of, cls.rows().find(match).sort("_id", 1))
    readable = (record for record in found if allowed("course.read", record.organisation, [record.division]))
    return next_page(readable, query["limit"], lambda record: [record.id], working_copy)


@staff.get("/courses")
@staff.arguments(StaffCoursesQuery, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Series the asker may read, by id"""
    return mine(Series, query)


@staff.post("/courses")
@staff.arguments(NewSeries)
@staff.alt_response(201, description="The new draft")
def create(payload: dict[str, Any]) -> Response:
    """Start a course series"""
    who = actor()
    if not who.may("course.write", payload["organisation"], payload["division"]):
        raise Forbidden()
    made = courses.create_series(stored(payload), who.id)
    return created(working_copy(made), made.revision, f"/v1/staff/courses/{made.id}")


@staff.get("/courses/<string:course_id>")
@staff.alt_response(200, description="The working copy; ETag is its revision")
def show_staff(course_id: str) -> Response:
    """A series as it is being edited"""
    record = own_series(course_id, "course.read")
    return tagged(working_copy(record), record.revision)


@staff.patch("/courses/<string:course_id>")
@staff.arguments(SeriesIn)
@staff.alt_response(200, description="The changed working copy")
def edit(payload: dict[str, Any], course_id: str) -> Response:
    """Change a series

    Readers keep the published one until it is published again. Needs If-Match.
    """
    revision, present = if_match(), own_series(course_id, "course.write")
    organisation, division = payload.get("organisation", present.organisation), payload.get("division", present.division)
    if not actor().may("course.write", organisation, division):
        raise Forbidden()
    record = courses.edit_series(course_id, stored(payload), actor().id, revision)
    return tagged(working_copy(record), record.revision)


@staff.delete("/courses/<string:course_id>")
@staff.response(204)
def remove(course_id: str) -> None:
    """Delete a draft series that has no sessions; needs If-Match"""
    revision = if_match()
    own_series(course_id, "course.write")
    courses.remove_series(course_id, actor().id, revision)


@staff.post("/courses/<string:course_id>/approve")
@staff.alt_response(200, description="Approved")
def approve(course_id: str) -> Response:
    """Approve a series as a second person; needs If-Match"""
    revision = if_match()
    own_series(course_id, "course.approve")
    record = courses.approve_series(course_id, actor().id, revision)
    return tagged(working_copy(record), record.revision)


@staff.post("/courses/<string:course_id>/publish")
@staff.alt_response(200, description="Published")
def publish(course_id: str) -> Response:
    """Publish a series as it now is; needs If-Match, and a second person where the district wants one"""
    revision = if_match()
    own_series(course_id, "course.publish")
    record = courses.publish_series(course_id, actor().id, second_person=settings().second_person, revision=revision)
    reader().refresh()
    return tagged(working_copy(record), record.revision)


@staff.post("/courses/<string:course_id>/cancel")
@staff.alt_response(200, description="Cancelled")
def cancel(course_id: str) -> Response:
    """Cancel a series whose sessions are cancelled or over; needs If-Match"""
    revision = if_match()
    own_series(course_id, "course.publish")
    record = courses.cancel_series(course_id, actor().id, revision)
    reader().refresh()
    return tagged(working_copy(record), record.revision)


@staff.get("/sessions")
@staff.arguments(StaffSessionsQuery, location="query")
@staff.response(200)
def sessions_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Sessions the asker may read, by id, with exact seats"""
    return mine(CourseSession, query)


@staff.post("/sessions")
@staff.arguments(NewSession)
@staff.alt_response(201, description="The new draft")
def create_session(payload: dict[str, Any]) -> Response:
    """Add a session to a series

    A time without an offset is local time of `zone`.
    """
    parent = own_series(payload.pop("series"), "course.write")
    made = courses.create_session(parent.id, {"zone": settings().zone, **stored(payload)}, actor().id)
    return created(working_copy(made), made.revision, f"/v1/staff/sessions/{made.id}")


@staff.get("/sessions/<string:session_id>")
@staff.alt_response(200, description="The session; ETag is its revision")
def session_staff(session_id: str) -> Response:
    """A session with exact seats and its online link"""
    record = own_session(session_id, "course.read")
    return tagged(working_copy(record), record.revision)


@staff.patch("/sessions/<string:session_id>")
@staff.arguments(SessionIn)
@staff.alt_response(200, description="The changed session")
def edit_session(payload: dict[str, Any], session_id: str) -> Response:
    """Change a session

    Of a published session this is public at once and needs the permission to publish. Needs If-Match.
    """
    revision, present = if_match(), own_session(session_id, "course.write")
    if present.state == "published":
        own(present, "course.publish")
    record = courses.edit_session(session_id, stored(payload), actor().id, revision)
    reader().refresh()
    return tagged(working_copy(record), record.revision)


@staff.delete("/sessions/<string:session_id>")
@staff.response(204)
def remove_session(session_id: str) -> None:
    """Delete a draft session; needs If-Match"""
    revision = if_match()
    own_session(session_id, "course.write")
    courses.remove_session(session_id, actor().id, revision)


@staff.post("/sessions/<string:session_id>/publish")
@staff.alt_response(200, description="Published and open for booking")
def publish_session(session_id: str) -> Response:
    """Publish a session of a published series; needs If-Match"""
    revision = if_match()
    own_session(session_id, "course.publish")
    record = courses.publish_session(session_id, actor().id, revision)
    reader().refresh()
    return tagged(working_copy(record), record.revision)


class CancelIn(ma.Schema):
    note = ma.fields.String(load_default="", validate=validate.Length(max=500), metadata={"description": "for the trail"})


@staff.post("/sessions/<string:session_id>/cancel")
@staff.arguments(CancelIn)
@staff.alt_response(200, description="Cancelled for good")
def cancel_session(payload: dict[str, Any], session_id: str) -> Response:
    """Cancel a published session

    Readers and those booked see it as cancelled. Needs If-Match.
    """
    revision = if_match()
    own_session(session_id, "course.publish")
    record = courses.cancel_session(session_id, actor().id, revision, payload["note"])
    reader().refresh()
    return tagged(working_copy(record), record.revision)

"""Family-education courses: what is offered, and the desk where it is written. Their sessions: `api.sessions`.

What readers get comes from the published set and is read while the database is away.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front, guard
from api.auth import actor, allowed
from api.guard import Blueprint, created, if_match, page, tagged
from api.sessions import (
    InvitationQuery,
    Person,
    PersonIn,
    SessionOut,
    in_utc,
    mine,
    own,
    published_series,
    session_out,
    sorted_sessions,
)
from api.shapes import (
    DIVISION,
    Paging,
    StageField,
    Tag,
    by_language,
    codes,
    listed,
    near,
    parts,
    reader,
    settings,
    text,
    words,
)
from content import courses, languages, records, store
from content.courses import Series
from content.failures import Forbidden
from content.vocabulary import AUDIENCES, FORMATS, TOPICS, Stage

blp = Blueprint("courses", __name__, url_prefix="/v1", description="Courses and their sessions")
staff = Blueprint("staff_courses", __name__, url_prefix="/v1/staff", description="Plan, publish and cancel courses")

ID = validate.Length(1, 64)


# --- what readers get ------------------------------------------------------------------------------------------------


def series_out(content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A published series as it is answered."""
    language = languages.pick(content["texts"], wanted, settings().language)
    return {
        "id": content["id"],
        **content["texts"][language],
        "language": language,
        "languages": sorted(content["texts"]),
        "organiser": text(content["organiser_name"], wanted),
        "contact": text(content["contact"], wanted),
        "organisation": content["organisation"],
        "held_in": content["languages"],
        "lecturers": [parts(one, wanted) for one in content["lecturers"]],
        **{name: content[name] for name in ("topics", "audiences", "stages", "format", "division", "state")},
        "materials": content["materials"],
        "approval": content["approval"],
        "questions": [
            {**asked(one, wanted), "options": [asked(option, wanted) for option in one["options"]]}
            for one in content["questions"]
        ],
        "visibility": content["visibility"],
    }


def asked(one: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A question or an option in the reader's language."""
    return {**one, "text": text(one["text"], wanted)}


class CoursesQuery(Paging):
    division = ma.fields.String(validate=DIVISION, metadata={"example": "150603"})
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = StageField()
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)))


class Option(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String()


class Question(Option):
    required = ma.fields.Boolean()
    options = ma.fields.List(ma.fields.Nested(Option), metadata={"description": "none: answered in words"})


class Course(ma.Schema):
    id = ma.fields.String()
    title = ma.fields.String()
    summary = ma.fields.String()
    language = ma.fields.String(metadata={"description": "of title and summary"})
    languages = ma.fields.List(ma.fields.String())
    organiser = ma.fields.String()
    contact = ma.fields.String(metadata={"description": "whom to ask; may be empty", "example": "0477-8500000，工作日"})
    organisation = ma.fields.String()
    held_in = ma.fields.List(ma.fields.String(), metadata={"description": "languages in which it is held"})
    lecturers = ma.fields.List(ma.fields.Nested(Person))
    topics = ma.fields.List(ma.fields.String())
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String(), metadata={"description": "empty: every stage"})
    format = ma.fields.String()
    division = ma.fields.String()
    state = ma.fields.String(metadata={"description": "published or cancelled"})
    materials = ma.fields.List(ma.fields.String(), metadata={"description": "lesson:SLUG, media:SHA256"})
    approval = ma.fields.Boolean(metadata={"description": "a booking waits for the organiser's word"})
    questions = ma.fields.List(ma.fields.Nested(Question), metadata={"description": "asked at booking"})
    visibility = ma.fields.String(metadata={"description": "all or invited"})


class CoursePage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Course))
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
@blp.arguments(InvitationQuery, location="query")
@blp.alt_response(200, schema=CourseDetail)
def show(query: dict[str, Any], course_id: str) -> Response:
    """One series with its sessions that are not over, in order of time (at most 100)"""
    snapshot, wanted = reader().current, front.wanted()
    guard.tried(query["invitation"])
    content = published_series(snapshot, course_id, query["invitation"])
    now = store.now().isoformat()
    if content["visibility"] == "all":
        found = [one for _, one in sorted_sessions(snapshot)]
        front.keep(60)
    else:
        rows = snapshot.entries("invited_session").values()
        found = sorted(
            (item.content for row in rows for item in row.values() if item.content), key=lambda one: in_utc(one["starts_at"])
        )
    ahead = [one for one in found if one["series"] == course_id and in_utc(one["ends_at"]) > now]
    return jsonify({**series_out(content, wanted), "sessions": [session_out(snapshot, one, wanted) for one in ahead[:100]]})


# --- staff -----------------------------------------------------------------------------------------------------------


class TitleIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(required=True, validate=validate.Length(1, 120))
    summary = ma.fields.String(load_default="", validate=validate.Length(max=2000))


class OptionIn(ma.Schema):
    code = ma.fields.String(required=True, validate=validate.Length(1, 32))
    text = words(required=True)


class QuestionIn(OptionIn):
    required = ma.fields.Boolean(load_default=False)
    options = ma.fields.List(ma.fields.Nested(OptionIn), load_default=list, validate=validate.Length(max=20))


class SeriesIn(ma.Schema):
    texts = ma.fields.List(ma.fields.Nested(TitleIn), validate=validate.Length(1, 20))
    organiser_name = words()
    contact = words()
    topics = codes(TOPICS)
    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    languages = ma.fields.List(Tag(), validate=validate.Length(max=20))
    format = ma.fields.String(validate=validate.OneOf(list(FORMATS)))
    organisation = ma.fields.String(validate=ID)
    division = ma.fields.String(validate=DIVISION)
    lecturers = ma.fields.List(ma.fields.Nested(PersonIn), validate=validate.Length(max=50))
    materials = ma.fields.List(ma.fields.String(validate=validate.Length(max=120)), validate=validate.Length(max=30))
    visibility = ma.fields.String(
        validate=validate.OneOf(courses.VISIBILITY), metadata={"description": "invited: only for whom you give its invitation to"}
    )
    approval = ma.fields.Boolean(metadata={"description": "each booking waits for your word"})
    questions = ma.fields.List(ma.fields.Nested(QuestionIn), validate=validate.Length(max=courses.MOST_QUESTIONS))


class NewSeries(SeriesIn):
    texts = ma.fields.List(ma.fields.Nested(TitleIn), required=True, validate=validate.Length(1, 20))
    format = ma.fields.String(required=True, validate=validate.OneOf(list(FORMATS)))
    organisation = ma.fields.String(required=True, validate=ID)
    division = ma.fields.String(required=True, validate=DIVISION)


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that the verbs take."""
    values = dict(payload)
    for name in {"organiser_name", "contact"} & values.keys():
        values[name] = by_language(values[name])
    if "lecturers" in values:
        values["lecturers"] = [{part: by_language(rows) for part, rows in one.items()} for one in values["lecturers"]]
    if "texts" in values:
        values["texts"] = {row["language"]: {"title": row["title"], "summary": row["summary"]} for row in values["texts"]}
    if "questions" in values:
        values["questions"] = [
            {**one, "text": by_language(one["text"]), "options": [{**o, "text": by_language(o["text"])} for o in one["options"]]}
            for one in values["questions"]
        ]
    return values


def working_copy(record: Series) -> dict[str, Any]:
    """A record as staff see it, in the shape that they send."""
    values = records.values_of(record, courses.SERIES_FIELDS)
    for name in ("organiser_name", "contact"):
        values[name] = listed(values[name])
    values["lecturers"] = [{part: listed(texts) for part, texts in one.items()} for one in values["lecturers"]]
    values["texts"] = [{"language": code, **row} for code, row in sorted(values["texts"].items())]
    values["questions"] = [
        {**one, "text": listed(one["text"]), "options": [{**o, "text": listed(o["text"])} for o in one["options"]]}
        for one in values["questions"]
    ]
    more = {
        "invitation": record.invitation if allowed("course.write", record.organisation, [record.division]) else None,
        "approved": bool(record.approved_by),
        "public": record.published_revision is not None,
        "unpublished_changes": record.published_revision != record.revision,
    }
    stamps = {"created_at": record.created_at.isoformat(), "updated_at": record.updated_at.isoformat()}
    return {"id": record.id, "state": record.state, "revision": record.revision, **values, **more, **stamps}


def own_series(key: str, permission: str) -> Series:
    """A series the asker may do this to."""
    return own(courses.series(key), permission)  # type: ignore[no-any-return]


class StaffCoursesQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(["draft", "published", "cancelled"]))
    organisation = ma.fields.String(validate=ID)


@staff.get("/courses")
@staff.arguments(StaffCoursesQuery, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Series the asker may read, by id"""
    return mine(Series, query, working_copy)


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

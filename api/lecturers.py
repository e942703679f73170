"""The expert library: who gives courses, for readers and for its keepers.

Readers get it from the published set, also while the database is away.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed, demand
from api.courses import ID
from api.guard import Blueprint, created, cursor_of, if_match, next_page, page, tagged
from api.shapes import DIVISION, Paging, Tag, Word, by_language, codes, listed, near, reader, text, words
from content import languages, lecturers, records
from content.failures import Forbidden, NotFound
from content.lecturers import Lecturer
from content.published import ANY, Item, Snapshot
from content.vocabulary import LECTURERS, TOPICS

blp = Blueprint("lecturers", __name__, url_prefix="/v1", description="Who gives courses: the expert library")
staff = Blueprint("staff_lecturers", __name__, url_prefix="/v1/staff", description="Keep the expert library")

KIND = "a code of `lecturers` in /v1/vocabularies"


# --- what readers get ------------------------------------------------------------------------------------------------


class LecturersQuery(Paging):
    division = ma.fields.String(validate=DIVISION, metadata={"example": "150603"})
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)))
    kind = ma.fields.String(validate=validate.OneOf(list(LECTURERS)), metadata={"description": KIND})
    school = ma.fields.String(validate=ID, metadata={"description": "those paired with this organisation"})


class School(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String(metadata={"description": "as it was when the entry was published"})


class LecturerOut(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String(metadata={"example": "王老师"})
    language = ma.fields.String(metadata={"description": "of the name; each text comes in the reader's best language"})
    profile = ma.fields.String()
    field = ma.fields.String(metadata={"example": "青春期亲子沟通"})
    workplace = ma.fields.String(metadata={"description": "hospital, university, school … where the lecturer works"})
    kind = ma.fields.String(metadata={"description": KIND})
    topics = ma.fields.List(ma.fields.String())
    teaches_in = ma.fields.List(ma.fields.String())
    organisation = ma.fields.String(metadata={"description": "who keeps the entry, and can be asked"})
    division = ma.fields.String()
    paired_schools = ma.fields.List(ma.fields.Nested(School))


class LecturerPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(LecturerOut))
    next_cursor = ma.fields.String(allow_none=True)


def lecturer_out(content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A published entry as it is answered."""
    shown = {**content, "language": languages.pick(content["name"], wanted, "zh-Hans")}
    return shown | {name: text(content[name], wanted) for name in lecturers.TEXTS}


def newest(snapshot: Snapshot) -> list[tuple[Item, Mapping[str, Any]]]:
    """All published entries, newest first, sorted once a snapshot."""
    if "sorted" not in snapshot.memo("lecturer"):
        found = [(item, item.content) for rows in snapshot.entries("lecturer").values() for item in rows.values() if item.content]
        snapshot.memo("lecturer")["sorted"] = sorted(found, key=lambda pair: (-pair[0].seq, pair[0].key))
    return snapshot.memo("lecturer")["sorted"]  # type: ignore[no-any-return]


@blp.get("/lecturers")
@blp.arguments(LecturersQuery, location="query")
@blp.alt_response(200, schema=LecturerPage, description="Newest first")
def index(query: dict[str, Any]) -> Response:
    """The expert library

    Each entry was read by a second person before it was published. `division` finds those of a division, of those above it and
    of those below it.
    """
    snapshot, wanted = reader().current, front.wanted()

    def fits(pair: tuple[Item, Mapping[str, Any]]) -> bool:
        one = pair[1]
        return (
            near(one["division"], query.get("division"))
            and ("topic" not in query or query["topic"] in one["topics"])
            and query.get("kind", one["kind"]) == one["kind"]
            and ("school" not in query or query["school"] in [school["id"] for school in one["paired_schools"]])
        )

    result = page(newest(snapshot), query.get("cursor"), query["limit"], lambda pair: [-pair[0].seq, pair[0].key], fits)
    result["items"] = [lecturer_out(content, wanted) for _, content in result["items"]]
    front.keep()
    return jsonify(result)


@blp.get("/lecturers/<string:lecturer_id>")
@blp.alt_response(200, schema=LecturerOut)
def show(lecturer_id: str) -> Response:
    """One lecturer"""
    item = reader().current.get("lecturer", lecturer_id).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=lecturer_id)
    front.keep()
    return jsonify(lecturer_out(item.content, front.wanted()))


# --- staff -----------------------------------------------------------------------------------------------------------


class ProfileWord(ma.Schema):
    language = Tag(required=True)
    text = ma.fields.String(required=True, validate=validate.Length(1, lecturers.PROFILE))


class LecturerIn(ma.Schema):
    name = words()
    profile = ma.fields.List(ma.fields.Nested(ProfileWord), validate=validate.Length(max=20))
    field = words()
    workplace = words()
    kind = ma.fields.String(validate=validate.OneOf(list(LECTURERS)), metadata={"description": KIND})
    topics = codes(TOPICS)
    teaches_in = ma.fields.List(Tag(), validate=validate.Length(max=20))
    organisation = ma.fields.String(validate=ID, metadata={"description": "who keeps the entry"})
    division = ma.fields.String(validate=DIVISION)
    paired_schools = ma.fields.List(ma.fields.String(validate=ID), validate=validate.Length(max=200))


class NewLecturer(LecturerIn):
    name = ma.fields.List(ma.fields.Nested(Word), required=True, validate=validate.Length(1, 20))
    kind = ma.fields.String(required=True, validate=validate.OneOf(list(LECTURERS)), metadata={"description": KIND})
    organisation = ma.fields.String(required=True, validate=ID, metadata={"description": "who keeps the entry"})
    division = ma.fields.String(required=True, validate=DIVISION)


class LecturerStaff(ma.Schema):
    """An entry as it is being edited."""

    id = ma.fields.String()
    revision = ma.fields.Integer()
    state = ma.fields.String(metadata={"description": "draft, published or withdrawn"})
    name = ma.fields.List(ma.fields.Nested(Word))
    profile = ma.fields.List(ma.fields.Nested(ProfileWord))
    field = ma.fields.List(ma.fields.Nested(Word))
    workplace = ma.fields.List(ma.fields.Nested(Word))
    kind = ma.fields.String()
    topics = ma.fields.List(ma.fields.String())
    teaches_in = ma.fields.List(ma.fields.String())
    organisation = ma.fields.String()
    division = ma.fields.String()
    paired_schools = ma.fields.List(ma.fields.String())
    has_contact = ma.fields.Boolean(metadata={"description": "whether …/contact has something to read"})
    authors = ma.fields.List(ma.fields.String(), metadata={"description": "ids of accounts: who wrote what it says now"})
    approved = ma.fields.Boolean(metadata={"description": "a second person has read it as it now is"})
    public = ma.fields.Boolean()
    unpublished_changes = ma.fields.Boolean()
    reviewed_by = ma.fields.String(allow_none=True, metadata={"description": "id: the second person of the last publication"})
    reviewed_at = ma.fields.String(allow_none=True)
    created_at = ma.fields.String()
    updated_at = ma.fields.String()


class LecturerStaffPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(LecturerStaff))
    next_cursor = ma.fields.String(allow_none=True)


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that the verbs take."""
    return {name: by_language(value) if name in lecturers.TEXTS else value for name, value in payload.items()}


def working_copy(record: Lecturer) -> dict[str, Any]:
    """An entry as staff see it, in the shape that they send."""
    values = records.values_of(record, lecturers.FIELDS)
    return {
        "id": record.id,
        "revision": record.revision,
        "state": record.state,
        **values,
        **{name: listed(values[name]) for name in lecturers.TEXTS},
        "has_contact": bool(record.contact),
        "authors": list(record.authors),
        "approved": bool(record.approved_by),
        "public": record.published_revision is not None,
        "unpublished_changes": record.published_revision != record.revision,
        "reviewed_by": record.reviewed_by,
        "reviewed_at": record.reviewed_at and record.reviewed_at.isoformat(),
        "created_at": record.created_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
    }


def own(key: str, permission: str) -> Lecturer:
    """The entry, when the asker may do this to it. Another organisation's is not there (404) unless it may be read."""
    record = lecturers.lecturer(key)
    demand(permission, record.organisation, [record.division], read="course.read", what=key)
    return record


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(["draft", "published", "withdrawn"]))
    organisation = ma.fields.String(validate=ID)


@staff.get("/lecturers")
@staff.arguments(StaffQuery, location="query")
@staff.response(200, LecturerStaffPage)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Entries the asker may read, by id"""
    match: dict[str, Any] = {name: query[name] for name in ("state", "organisation") if name in query}
    match["_id"] = {"$gt": cursor_of(query, 1)[0]}
    found: Iterator[Lecturer] = map(Lecturer.of, Lecturer.rows().find(match).sort("_id", 1))
    readable = (one for one in found if allowed("course.read", one.organisation, [one.division]))
    return next_page(readable, query["limit"], lambda one: [one.id], working_copy)


@staff.post("/lecturers")
@staff.arguments(NewLecturer)
@staff.alt_response(201, schema=LecturerStaff, description="The new draft")
def create(payload: dict[str, Any]) -> Response:
    """Start an entry; how the lecturer is reached is put by itself (…/contact)"""
    if not actor().may("course.write", payload["organisation"], payload["division"]):
        raise Forbidden()
    made = lecturers.create(stored(payload), actor().id)
    return created(working_copy(made), made.revision, f"/v1/staff/lecturers/{made.id}")


@staff.get("/lecturers/<string:lecturer_id>")
@staff.alt_response(200, schema=LecturerStaff, description="The working copy; ETag is its revision")
def show_staff(lecturer_id: str) -> Response:
    """An entry as it is being edited"""
    record = own(lecturer_id, "course.read")
    return tagged(working_copy(record), record.revision)


@staff.patch("/lecturers/<string:lecturer_id>")
@staff.arguments(LecturerIn)
@staff.alt_response(200, schema=LecturerStaff, description="The changed working copy")
def edit(payload: dict[str, Any], lecturer_id: str) -> Response:
    """Change an entry

    Readers keep the published one until it is published again. Needs If-Match.
    """
    revision, present = if_match(), own(lecturer_id, "course.write")
    organisation, division = payload.get("organisation", present.organisation), payload.get("division", present.division)
    if not actor().may("course.write", organisation, division):
        raise Forbidden()
    record = lecturers.edit(lecturer_id, stored(payload), actor().id, revision)
    return tagged(working_copy(record), record.revision)


@staff.delete("/lecturers/<string:lecturer_id>")
@staff.response(204)
def remove(lecturer_id: str) -> None:
    """Delete a draft or a withdrawn entry; needs If-Match"""
    revision = if_match()
    own(lecturer_id, "course.write")
    lecturers.remove(lecturer_id, actor().id, revision)


@staff.post("/lecturers/<string:lecturer_id>/approve")
@staff.alt_response(200, schema=LecturerStaff, description="Approved")
def approve(lecturer_id: str) -> Response:
    """Approve an entry as a second person; needs If-Match"""
    revision = if_match()
    own(lecturer_id, "course.approve")
    record = lecturers.approve(lecturer_id, actor().id, revision)
    return tagged(working_copy(record), record.revision)


@staff.post("/lecturers/<string:lecturer_id>/publish")
@staff.alt_response(200, schema=LecturerStaff, description="Published")
def publish(lecturer_id: str) -> Response:
    """Publish an entry that a second person approved, or as that second person; needs If-Match"""
    revision = if_match()
    own(lecturer_id, "course.publish")
    record = lecturers.publish(lecturer_id, actor().id, revision)
    reader().refresh()
    return tagged(working_copy(record), record.revision)


class WithdrawIn(ma.Schema):
    note = ma.fields.String(load_default="", validate=validate.Length(max=500), metadata={"description": "for the trail"})


@staff.post("/lecturers/<string:lecturer_id>/withdraw")
@staff.arguments(WithdrawIn)
@staff.alt_response(200, schema=LecturerStaff, description="Readers see it no more")
def withdraw(payload: dict[str, Any], lecturer_id: str) -> Response:
    """Take an entry from readers; needs If-Match"""
    revision = if_match()
    own(lecturer_id, "course.publish")
    record = lecturers.withdraw(lecturer_id, actor().id, revision, payload["note"])
    reader().refresh()
    return tagged(working_copy(record), record.revision)


class Contact(ma.Schema):
    contact = ma.fields.String(
        required=True,
        validate=validate.Length(max=lecturers.CONTACT),
        metadata={"description": "telephone or another way; empty: none is known", "example": "138 0013 8000"},
    )


@staff.get("/lecturers/<string:lecturer_id>/contact")
@staff.alt_response(200, schema=Contact, description="ETag is the entry's revision")
def contact(lecturer_id: str) -> Response:
    """How a lecturer is reached; every reading leaves a line in the trail"""
    record = own(lecturer_id, "course.write")
    return tagged({"contact": lecturers.read_contact(lecturer_id, actor().id)}, record.revision)


@staff.put("/lecturers/<string:lecturer_id>/contact")
@staff.arguments(Contact)
@staff.alt_response(200, schema=LecturerStaff, description="Kept encrypted; never published")
def put_contact(payload: dict[str, Any], lecturer_id: str) -> Response:
    """Set how a lecturer is reached; empty erases it. Needs If-Match"""
    revision = if_match()
    own(lecturer_id, "course.write")
    record = lecturers.put_contact(lecturer_id, payload["contact"], actor().id, revision)
    return tagged(working_copy(record), record.revision)

"""Lessons: the public catalogue, and the desk where they are written, reviewed and published."""

from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed, demand
from api.guard import Blueprint, created, cursor_of, if_match, next_page, page, tagged
from api.shapes import Paging, Regexp, StageField, Tag, codes, each_once, reader, settings
from content import lessons, publishing
from content.failures import Failure, FieldError, Forbidden, Invalid
from content.lessons import Lesson
from content.vocabulary import AUDIENCES, KINDS, SEASONS, TOPICS

blp = Blueprint("lessons", __name__, url_prefix="/v1", description="Guides for parents and students")
staff = Blueprint("staff_lessons", __name__, url_prefix="/v1/staff", description="Write, review, publish, withdraw lessons")


class CatalogueQuery(Paging):
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = StageField()
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)))
    kind = ma.fields.String(validate=validate.OneOf(list(KINDS)))
    season = ma.fields.String(validate=validate.OneOf(list(SEASONS)), metadata={"example": "gaokao"})
    division = ma.fields.String(validate=Regexp("^[0-9]{6}$"), metadata={"example": "150603"})
    language = Tag(metadata={"description": "only lessons that exist in this language", "example": "zh-Hans"})


class Brief(ma.Schema):
    """A lesson in a list."""

    slug = ma.fields.String()
    title = ma.fields.String()
    summary = ma.fields.String()
    try_this = ma.fields.String()
    minutes = ma.fields.Integer(metadata={"description": "reading time in minutes"})
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    topics = ma.fields.List(ma.fields.String())
    kind = ma.fields.String()
    seasons = ma.fields.List(ma.fields.String())
    language = ma.fields.String()
    script = ma.fields.String(metadata={"example": "Hans"})
    direction = ma.fields.String(metadata={"description": "ltr, rtl, or ttb (columns from left to right)"})
    languages = ma.fields.List(ma.fields.String())
    help = ma.fields.Boolean(metadata={"description": "show the help card beside it"})
    version = ma.fields.String()
    number = ma.fields.Integer()
    published_at = ma.fields.String()


class Page(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Brief))
    next_cursor = ma.fields.String(allow_none=True)


@blp.get("/lessons")
@blp.arguments(CatalogueQuery, location="query")
@blp.alt_response(200, schema=Page, description="A page of the catalogue, newest first")
def index(query: dict[str, Any]) -> Response:
    """Published lessons

    Filtered by audience, stage (with grade, entering and final year), topic, kind, season, division and language; each
    lesson once, in the reader's best language.
    """
    filters = {k: query.get(k) for k in ("audience", "topic", "kind", "season", "division", "language")}
    snapshot = reader().current
    found, fits = lessons.catalogue(snapshot, front.wanted(), stage=query.get("stage"), last=settings().language, **filters)
    result = page(found, query.get("cursor"), query["limit"], lessons.order, fits)
    result["items"] = [lessons.brief(snapshot, item) for item in result["items"]]
    front.keep(*lessons.holds(snapshot))
    return jsonify(result)


class Detail(Brief):
    """A lesson whole."""

    body = ma.fields.String(metadata={"description": "Markdown source"})
    html = ma.fields.String(metadata={"description": "sanitised HTML"})
    plain = ma.fields.String(metadata={"description": "text without marks"})
    sources = ma.fields.List(ma.fields.Dict())
    reviewed_by = ma.fields.String(allow_none=True, metadata={"description": "null: reviewed by nobody yet"})
    behind_source = ma.fields.Boolean(metadata={"description": "the text it was translated from has changed since"})


@blp.get("/lessons/<string:slug>")
@blp.alt_response(200, schema=Detail)
def show(slug: str) -> Response:
    """One lesson

    In the reader's best language (`Accept-Language`); `languages` lists the others.
    """
    snapshot = reader().current
    result = lessons.detail(snapshot, slug, front.wanted(), settings().language)
    front.keep(*lessons.holds(snapshot))
    return jsonify(result)


# --- staff -----------------------------------------------------------------------------------------------------------


class SourceIn(ma.Schema):
    title = ma.fields.String(required=True, validate=validate.Length(1, 200))
    url = ma.fields.Url(schemes={"http", "https"}, allow_none=True)


class TextIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(validate=validate.Length(1, 120))
    summary = ma.fields.String(validate=validate.Length(max=300))
    body = ma.fields.String(validate=validate.Length(1, 200_000))
    try_this = ma.fields.String(validate=validate.Length(max=300))
    minutes = ma.fields.Integer(validate=validate.Range(1, 600))
    made_from = Tag(allow_none=True)
    made_from_version = ma.fields.String(validate=Regexp("^[0-9a-f]{64}$"), allow_none=True)


MEDIA_ID = ma.fields.String(validate=Regexp("^[0-9a-f]{64}$"), metadata={"description": "SHA-256 of an accepted file"})


class FactsIn(ma.Schema):
    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    topics = codes(TOPICS)
    kind = ma.fields.String(validate=validate.OneOf(list(KINDS)))
    seasons = codes(SEASONS)
    divisions = ma.fields.List(ma.fields.String(validate=Regexp("^[0-9]{6}$")), validate=validate.Length(max=200))
    media = ma.fields.List(MEDIA_ID, validate=validate.Length(max=100))
    sources = ma.fields.List(ma.fields.Nested(SourceIn), validate=validate.Length(max=50))
    help = ma.fields.Boolean()
    reviewed_by = ma.fields.String(validate=validate.Length(max=100), allow_none=True)
    review_due = ma.fields.Date(format="iso")
    texts = ma.fields.List(ma.fields.Nested(TextIn), validate=validate.Length(max=20))


class NewLesson(FactsIn):
    slug = ma.fields.String(required=True, validate=validate.Length(1, 80), metadata={"example": "exam-week-sleep"})
    organisation = ma.fields.String(load_default="", validate=Regexp("^([0-9a-f]{32})?$"))
    kind = ma.fields.String(required=True, validate=validate.OneOf(list(KINDS)))
    texts = ma.fields.List(ma.fields.Nested(TextIn), required=True, validate=validate.Length(1, 20))


class Move(ma.Schema):
    language = Tag(required=True)
    note = ma.fields.String(load_default="", validate=validate.Length(max=1000))


class PublishIn(Move):
    at = ma.fields.AwareDateTime(allow_none=True, load_default=None, metadata={"description": "a future moment, with zone"})
    expires_at = ma.fields.AwareDateTime(allow_none=True, load_default=None)


class RollBackIn(Move):
    version = ma.fields.String(required=True, validate=Regexp("^[0-9a-f]{64}$"))


class BatchItem(ma.Schema):
    slug = ma.fields.String(required=True, validate=validate.Length(1, 80))
    revision = ma.fields.Integer(
        validate=validate.Range(1, 2**31), metadata={"description": "what the dry run answered; needed when it is no dry run"}
    )


class BatchIn(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(BatchItem), required=True, validate=validate.Length(1, 500))
    language = Tag(required=True)
    action = ma.fields.String(required=True, validate=validate.OneOf(["submit", "approve", "publish", "withdraw"]))
    dry_run = ma.fields.Boolean(load_default=True)


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(publishing.STATES))


def split(payload: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Facts and texts of a body, as plain stored values."""
    facts = {k: v for k, v in payload.items() if k not in {"texts", "slug", "organisation"}}
    if "review_due" in facts:
        facts["review_due"] = facts["review_due"].isoformat()
    found = each_once(payload.get("texts", []))
    texts = {language: {k: v for k, v in text.items() if k != "language"} for language, text in found.items()}
    return facts, texts


def working_copy(lesson: Lesson) -> dict[str, Any]:
    """A lesson as staff see it."""
    raw = lesson.to_mongo().to_dict()
    moments = {"created_at", "updated_at"}
    result = {k: v.isoformat() if k in moments else v for k, v in raw.items() if k not in {"_id", "texts", "stands"}}
    return {
        "id": raw["_id"],
        **result,
        "texts": [{"language": code, **dict(text)} for code, text in sorted(raw.get("texts", {}).items())],
        "stands": {
            code: {k: v.isoformat() if isinstance(v, datetime) else v for k, v in stand.items()}
            for code, stand in raw.get("stands", {}).items()
        },
    }


def own(slug: str, permission: str) -> Lesson:
    """The lesson, when the asker may do this to it. One that he may not even read is not there at all (404), so that a slug
    says nothing of another organisation's draft."""
    lesson = lessons.by_slug(slug)
    demand(permission, lesson.organisation, lesson.divisions, read="lesson.read", what=slug)
    return lesson


@staff.get("/lessons")
@staff.arguments(StaffQuery, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Working copies the asker may read, by slug"""

    def wanted(raw: dict[str, Any]) -> bool:
        stands = raw.get("stands", {}).values()
        asked = "state" not in query or any(stand["state"] == query["state"] for stand in stands)
        return asked and allowed("lesson.read", raw.get("organisation", ""), raw.get("divisions", []))

    def line(raw: dict[str, Any]) -> dict[str, Any]:
        texts = (Lesson.rows().find_one({"_id": raw["_id"]}, {"texts": 1}) or {}).get("texts", {})
        states = {code: stand["state"] for code, stand in raw.get("stands", {}).items()}
        title = next((text.get("title", "") for text in texts.values()), "")
        return {"slug": raw["slug"], "title": title, "kind": raw["kind"], "states": states, "revision": raw["revision"]}

    # without the texts: a long catalogue is walked in memory, the titles are fetched for this page alone
    facts = {"slug": 1, "kind": 1, "organisation": 1, "divisions": 1, "stands": 1, "revision": 1}
    found = Lesson.rows().find({"slug": {"$gt": cursor_of(query, 1)[0]}}, facts).sort("slug", 1)
    return next_page(filter(wanted, found), query["limit"], lambda raw: [raw["slug"]], line)


@staff.post("/lessons")
@staff.arguments(NewLesson)
@staff.alt_response(201, description="The new draft")
def create(payload: dict[str, Any]) -> Response:
    """Start a lesson

    It is a draft in each language given, owned by `organisation`.
    """
    facts, texts = split(payload)
    if not allowed("lesson.write", payload["organisation"], facts.get("divisions", [])):
        raise Forbidden()
    lesson = lessons.create(payload["slug"], facts, texts, actor().id, payload["organisation"])
    return created(working_copy(lesson), lesson.revision, f"/v1/staff/lessons/{lesson.slug}")


@staff.get("/lessons/<string:slug>")
@staff.alt_response(200, description="The working copy; ETag is its revision")
def show_staff(slug: str) -> Response:
    """The working copy with where each language stands"""
    lesson = own(slug, "lesson.read")
    return tagged(working_copy(lesson), lesson.revision)


@staff.patch("/lessons/<string:slug>")
@staff.arguments(FactsIn)
@staff.alt_response(200, description="The changed working copy")
def edit(payload: dict[str, Any], slug: str) -> Response:
    """Change facts or texts

    Readers keep the published version until the edit is published. Needs If-Match.
    """
    revision = if_match()
    lesson = own(slug, "lesson.write")
    facts, texts = split(payload)
    if "divisions" in facts and not allowed("lesson.write", lesson.organisation, facts["divisions"]):
        raise Forbidden()
    lesson = lessons.edit(lesson.id, actor().id, facts, texts, revision)
    return tagged(working_copy(lesson), lesson.revision)


@staff.post("/lessons/<string:slug>/submit")
@staff.arguments(Move)
@staff.alt_response(200, description="In review")
def submit(payload: dict[str, Any], slug: str) -> Response:
    """Send one language to review"""
    lesson = own(slug, "lesson.write")
    lesson = publishing.submit(Lesson, lesson.id, payload["language"], actor().id, if_match())
    return tagged(working_copy(lesson), lesson.revision)


@staff.post("/lessons/<string:slug>/send-back")
@staff.arguments(Move)
@staff.alt_response(200, description="Draft again")
def send_back(payload: dict[str, Any], slug: str) -> Response:
    """Send one language back to its author with a word"""
    lesson = own(slug, "lesson.approve")
    lesson = publishing.send_back(Lesson, lesson.id, payload["language"], actor().id, payload["note"], if_match())
    return tagged(working_copy(lesson), lesson.revision)


@staff.post("/lessons/<string:slug>/approve")
@staff.arguments(Move)
@staff.alt_response(200, description="Approved")
def approve(payload: dict[str, Any], slug: str) -> Response:
    """Approve one language as a second person"""
    lesson = own(slug, "lesson.approve")
    lesson = publishing.approve(
        Lesson, lesson.id, payload["language"], actor().id, if_match(), second_person=settings().second_person
    )
    return tagged(working_copy(lesson), lesson.revision)


@staff.post("/lessons/<string:slug>/publish")
@staff.arguments(PublishIn)
@staff.alt_response(200, description="Published, or waiting for `at`")
def publish(payload: dict[str, Any], slug: str) -> Response:
    """Publish one approved language, now or at a moment

    No other language is touched.
    """
    lesson = own(slug, "lesson.publish")
    lesson = publishing.publish(
        Lesson, lesson.id, payload["language"], actor().id, if_match(), at=payload["at"], expires_at=payload["expires_at"]
    )
    reader().refresh()
    return tagged(working_copy(lesson), lesson.revision)


@staff.post("/lessons/<string:slug>/withdraw")
@staff.arguments(Move)
@staff.alt_response(200, description="Withdrawn")
def withdraw(payload: dict[str, Any], slug: str) -> Response:
    """Take one language away from readers"""
    lesson = own(slug, "lesson.publish")
    lesson = publishing.withdraw(Lesson, lesson.id, payload["language"], actor().id, if_match(), note=payload["note"])
    reader().refresh()
    return tagged(working_copy(lesson), lesson.revision)


@staff.post("/lessons/<string:slug>/roll-back")
@staff.arguments(RollBackIn)
@staff.alt_response(200, description="The old version is public again")
def roll_back(payload: dict[str, Any], slug: str) -> Response:
    """Publish an old version again"""
    lesson = own(slug, "lesson.publish")
    lesson = publishing.roll_back(Lesson, lesson.id, payload["language"], payload["version"], actor().id, if_match())
    reader().refresh()
    return tagged(working_copy(lesson), lesson.revision)


class VersionsQuery(ma.Schema):
    language = Tag(required=True)
    old = ma.fields.String(validate=Regexp("^[0-9a-f]{64}$"))
    new = ma.fields.String(validate=Regexp("^[0-9a-f]{64}$"))


@staff.get("/lessons/<string:slug>/versions")
@staff.arguments(VersionsQuery, location="query")
@staff.response(200)
def versions(query: dict[str, Any], slug: str) -> dict[str, Any]:
    """Published versions of one language, newest first; with `old` and `new`, what differs between the two"""
    lesson = own(slug, "lesson.read")
    if "old" in query and "new" in query:
        changes = publishing.compare(Lesson, lesson.slug, query["language"], query["old"], query["new"])
        return {"changes": [{"field": k, "old": a, "new": b} for k, (a, b) in changes.items()]}
    rows = publishing.versions(Lesson, lesson.slug, query["language"])
    return {"items": [{"version": v.id, "number": v.number, "at": v.at.isoformat(), "by": v.by} for v in rows]}


@staff.post("/lessons/batch")
@staff.arguments(BatchIn)
@staff.response(200)
def batch(payload: dict[str, Any]) -> dict[str, Any]:
    """Move many lessons at once, previewed

    `dry_run` (the default) says what would happen to each, with its revision, and writes nothing. The real run takes these
    revisions back: what was changed after it was looked at is refused as `stale`.
    """
    language, action, dry_run = payload["language"], payload["action"], payload["dry_run"]
    permission = {"submit": "lesson.write", "approve": "lesson.approve"}.get(action, "lesson.publish")
    if not actor().may(permission):
        raise Forbidden()
    missing = [FieldError(f"items.{n}.revision", "required") for n, row in enumerate(payload["items"]) if "revision" not in row]
    if missing and not dry_run:
        raise Invalid(missing)
    options = {"second_person": settings().second_person} if action == "approve" else {}
    rows = []
    for item in payload["items"]:
        row: dict[str, Any] = {"slug": item["slug"], "ok": True}
        try:
            lesson = own(item["slug"], permission)
            moved = getattr(publishing, action)(
                Lesson, lesson.id, language, actor().id, item.get("revision"), dry_run=dry_run, **options
            )
            row["revision"] = moved.revision
        except Failure as failure:
            row |= {"ok": False, "code": failure.code, "messages": failure.messages}
        rows.append(row)
    if not dry_run:
        reader().refresh()
    return {"dry_run": dry_run, "items": rows}

"""Lessons: the public catalogue, and the desk where they are written, reviewed and published."""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front, moves
from api.auth import actor, allowed, own
from api.guard import Blueprint, created, cursor_of, if_match, next_page, page, tagged
from api.shapes import Edition, Moment, Paging, Regexp, StageField, Stand, Tag, codes, each_once, reader, settings, stood
from content import catalogue, lessons, publishing, reviewing
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


class SourceIn(ma.Schema):
    title = ma.fields.String(required=True, validate=validate.Length(1, 200))
    url = ma.fields.Url(schemes={"http", "https"}, allow_none=True)


class Both(ma.Schema):
    """A word in the service's two languages."""

    zh = ma.fields.String(data_key="zh-Hans")
    en = ma.fields.String()


class Fallback(ma.Schema):
    """Why a text comes in another language than the one asked for."""

    asked = ma.fields.String(metadata={"example": "mn-Mong"})
    chain = ma.fields.List(ma.fields.String(), metadata={"description": "what was looked for, in order"})
    text = ma.fields.Nested(Both, metadata={"description": "“shown in …”, for the reader"})


class CheckIn(ma.Schema):
    """What to ask the next day about `try_this`, and what helps after each answer. The answer stays on the phone."""

    question = ma.fields.String(required=True, validate=validate.Length(1, 200))
    did = ma.fields.String(required=True, validate=validate.Length(1, 200))
    partly = ma.fields.String(required=True, validate=validate.Length(1, 200))
    not_yet = ma.fields.String(required=True, validate=validate.Length(1, 200))


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
    voice = ma.fields.String(metadata={"description": "student, parent or staff; empty: for all its audiences"})
    language = ma.fields.String()
    name = ma.fields.String(metadata={"description": "of the language, in itself"})
    script = ma.fields.String(metadata={"example": "Hans"})
    direction = ma.fields.String(metadata={"description": "ltr, rtl, or ttb (columns from left to right)"})
    fallback = ma.fields.Nested(Fallback, allow_none=True, metadata={"description": "when it is not the language asked for"})
    languages = ma.fields.List(ma.fields.String())
    voices = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String())
    media = ma.fields.List(ma.fields.String())
    help = ma.fields.Boolean(metadata={"description": "show the help card beside it"})
    version = ma.fields.String()
    number = ma.fields.Integer(metadata={"description": "how many versions of this edition have been published"})
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
    result = page(found, query.get("cursor"), query["limit"], catalogue.order, fits)
    result["items"] = [lessons.brief(snapshot, item, front.wanted()) for item in result["items"]]
    front.keep(*catalogue.holds(snapshot, "lesson"))
    return jsonify(result)


class Detail(Brief):
    """A lesson whole."""

    body = ma.fields.String(metadata={"description": "Markdown source"})
    html = ma.fields.String(metadata={"description": "sanitised HTML"})
    plain = ma.fields.String(metadata={"description": "text without marks"})
    check_in = ma.fields.Nested(CheckIn, allow_none=True)
    sources = ma.fields.List(ma.fields.Nested(SourceIn))
    made_from = ma.fields.String(metadata={"description": "edition that this one was made from; absent for an original"})
    made_from_version = ma.fields.String(metadata={"description": "that edition's version at the time; absent when not known"})
    licence = ma.fields.String(metadata={"description": "terms of a text that came from elsewhere; absent for our own"})
    reviewed_by = ma.fields.String(allow_none=True, metadata={"description": "null: reviewed by nobody yet"})
    review_due = ma.fields.String(allow_none=True, metadata={"description": "local date on which staff look at it again"})
    expires_at = ma.fields.String(allow_none=True, metadata={"description": "not shown from this moment on"})
    behind_source = ma.fields.Boolean(metadata={"description": "the text it was made from has changed since"})


class DetailQuery(ma.Schema):
    audience = ma.fields.String(
        validate=validate.OneOf(list(AUDIENCES)), metadata={"description": "whose voice, where there are several"}
    )


@blp.get("/lessons/<string:slug>")
@blp.arguments(DetailQuery, location="query")
@blp.alt_response(200, schema=Detail)
def show(query: dict[str, Any], slug: str) -> Response:
    """One lesson

    In the reader's best language (`Accept-Language`) and, with `audience`, in the voice meant for them; `languages` and `voices`
    list the others, `fallback` says when it is not the language asked for.
    """
    snapshot = reader().current
    result = lessons.detail(snapshot, slug, front.wanted(), settings().language, query.get("audience"))
    front.keep(*catalogue.holds(snapshot, "lesson"))
    response = jsonify(result)
    response.headers["Content-Language"] = result["language"]
    return response


# --- staff -----------------------------------------------------------------------------------------------------------


class TextIn(ma.Schema):
    language = Edition(required=True)
    title = ma.fields.String(validate=validate.Length(1, 120))
    summary = ma.fields.String(validate=validate.Length(max=300))
    body = ma.fields.String(validate=validate.Length(1, 200_000))
    try_this = ma.fields.String(validate=validate.Length(max=300))
    minutes = ma.fields.Integer(validate=validate.Range(1, 600))
    check_in = ma.fields.Nested(CheckIn, allow_none=True)
    made_from = Edition(allow_none=True, metadata={"description": "saying it again says: made from what is there now"})
    made_from_version = ma.fields.String(validate=Regexp("^[0-9a-f]{64}$"), allow_none=True)
    needs_translator = ma.fields.Boolean(
        allow_none=True, metadata={"description": "a draft that cannot be submitted until a translator has taken this off"}
    )


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


class BatchItem(ma.Schema):
    slug = ma.fields.String(required=True, validate=validate.Length(1, 80))
    revision = ma.fields.Integer(
        validate=validate.Range(1, 2**31), metadata={"description": "what the dry run answered; needed when it is no dry run"}
    )


class BatchIn(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(BatchItem), required=True, validate=validate.Length(1, 500))
    language = Edition(required=True)
    action = ma.fields.String(required=True, validate=validate.OneOf(["submit", "send_back", "approve", "publish", "withdraw"]))
    note = ma.fields.String(validate=validate.Length(1, 1000), metadata={"description": "needed to send back"})
    at = Moment(metadata={"description": "to publish: a future moment"})
    expires_at = Moment(metadata={"description": "to publish"})
    dry_run = ma.fields.Boolean(load_default=True)

    @ma.validates_schema
    def fitting(self, data: dict[str, Any], **kwargs: Any) -> None:
        """A word with what takes one, moments with a publication."""
        if data["action"] == "send_back" and "note" not in data:
            raise ma.ValidationError("Missing data for required field.", "note")
        takes = {"send_back": {"note"}, "withdraw": {"note"}, "publish": {"at", "expires_at"}}.get(data["action"], set())
        for name in sorted({"note", "at", "expires_at"} & set(data) - takes):
            raise ma.ValidationError("Unknown field.", name)


class TextOut(ma.Schema):
    """The text of one edition; what was never said is absent."""

    language = ma.fields.String(metadata={"description": "edition"})
    title = ma.fields.String()
    summary = ma.fields.String()
    body = ma.fields.String()
    try_this = ma.fields.String()
    check_in = ma.fields.Nested(CheckIn)
    minutes = ma.fields.Integer()
    made_from = ma.fields.String(metadata={"description": "edition"})
    made_from_version = ma.fields.String()
    licence = ma.fields.String(metadata={"description": "terms of a text that came from elsewhere"})
    needs_translator = ma.fields.Boolean()


class Copy(ma.Schema):
    """A working copy; what was never said is absent."""

    id = ma.fields.String()
    slug = ma.fields.String()
    organisation = ma.fields.String(metadata={"description": "id; empty: of none"})
    revision = ma.fields.Integer()
    created_at = ma.fields.String()
    created_by = ma.fields.String(metadata={"description": "id"})
    updated_at = ma.fields.String()
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    topics = ma.fields.List(ma.fields.String())
    kind = ma.fields.String()
    seasons = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String())
    media = ma.fields.List(ma.fields.String())
    sources = ma.fields.List(ma.fields.Nested(SourceIn))
    help = ma.fields.Boolean()
    reviewed_by = ma.fields.String()
    review_due = ma.fields.String(metadata={"description": "local date"})
    uses = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "media of the facts and texts, and as `lesson:SLUG` the lessons they lead to"},
    )
    texts = ma.fields.List(ma.fields.Nested(TextOut))
    stands = ma.fields.Dict(
        keys=ma.fields.String(), values=ma.fields.Nested(Stand), metadata={"description": "edition → where it stands"}
    )


class Line(ma.Schema):
    """A working copy in a list."""

    slug = ma.fields.String()
    title = ma.fields.String()
    kind = ma.fields.String()
    states = ma.fields.Dict(
        keys=ma.fields.String(), values=ma.fields.String(), metadata={"description": "edition → state of its working copy"}
    )
    revision = ma.fields.Integer()
    open_comments = ma.fields.Integer(metadata={"description": "threads that wait for an answer"})


class Lines(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Line))
    next_cursor = ma.fields.String(allow_none=True)


class Moved(ma.Schema):
    slug = ma.fields.String()
    ok = ma.fields.Boolean()
    revision = ma.fields.Integer(metadata={"description": "when ok: what the real run takes back, or the new one"})
    code = ma.fields.String(metadata={"description": "when not ok"})
    messages = ma.fields.Nested(Both, metadata={"description": "when not ok"})


class BatchOut(ma.Schema):
    dry_run = ma.fields.Boolean()
    items = ma.fields.List(ma.fields.Nested(Moved))


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
    result = {
        k: v.isoformat() if k in moments else v for k, v in raw.items() if k not in {"_id", "texts", "stands", *Lesson.DERIVED}
    }
    return {
        "id": raw["_id"],
        **result,
        "texts": [{"language": code, **dict(text)} for code, text in sorted(raw.get("texts", {}).items())],
        "stands": stood(raw.get("stands", {})),
    }


@staff.get("/lessons")
@staff.arguments(StaffQuery, location="query")
@staff.response(200, Lines)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Working copies the asker may read, by slug

    `open_comments` counts the comments that wait for an answer.
    """

    def wanted(raw: dict[str, Any]) -> bool:
        stands = raw.get("stands", {}).values()
        asked = "state" not in query or any(stand["state"] == query["state"] for stand in stands)
        return asked and allowed("lesson.read", raw.get("organisation", ""), raw.get("divisions", []))

    def line(raw: dict[str, Any]) -> dict[str, Any]:
        states = {code: stand["state"] for code, stand in raw.get("stands", {}).items()}
        title = next((text["title"] for text in texts.get(raw["_id"], {}).values() if text.get("title")), "")
        facts = {"slug": raw["slug"], "title": title, "kind": raw["kind"], "states": states, "revision": raw["revision"]}
        return {**facts, "open_comments": waiting.get(raw["_id"], 0)}

    # without the texts: a long catalogue is walked in memory, the titles are fetched for this page alone
    facts = {"slug": 1, "kind": 1, "organisation": 1, "divisions": 1, "stands": 1, "revision": 1}
    found = Lesson.rows().find({"slug": {"$gt": cursor_of(query, 1)[0]}}, facts).sort("slug", 1)
    result = next_page(filter(wanted, found), query["limit"], lambda raw: [raw["slug"]], lambda raw: raw)
    ids = [raw["_id"] for raw in result["items"]]
    titles = {f"texts.{code}.title": 1 for raw in result["items"] for code in raw.get("stands", {})}
    named = Lesson.rows().find({"_id": {"$in": ids}}, titles or {"_id": 1})
    texts, waiting = {raw["_id"]: raw.get("texts", {}) for raw in named}, reviewing.open_comments(ids)
    return {**result, "items": [line(raw) for raw in result["items"]]}


@staff.post("/lessons")
@staff.arguments(NewLesson)
@staff.alt_response(201, schema=Copy, description="The new draft")
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
@staff.alt_response(200, schema=Copy, description="The working copy; ETag is its revision")
def show_staff(slug: str) -> Response:
    """The working copy with where each language stands"""
    lesson = own(Lesson, slug, "lesson.read")
    return tagged(working_copy(lesson), lesson.revision)


@staff.patch("/lessons/<string:slug>")
@staff.arguments(FactsIn)
@staff.alt_response(200, schema=Copy, description="The changed working copy")
def edit(payload: dict[str, Any], slug: str) -> Response:
    """Change facts or texts

    Readers keep the published version until the edit is published. Needs If-Match.
    """
    revision = if_match()
    lesson = own(Lesson, slug, "lesson.write")
    facts, texts = split(payload)
    if "divisions" in facts and not allowed("lesson.write", lesson.organisation, facts["divisions"]):
        raise Forbidden()
    lesson = lessons.edit(lesson.id, actor().id, facts, texts, revision)
    return tagged(working_copy(lesson), lesson.revision)


moves.add(staff, "/lessons/<string:slug>", Lesson, working_copy, Copy)


@staff.post("/lessons/batch")
@staff.arguments(BatchIn)
@staff.response(200, BatchOut)
def batch(payload: dict[str, Any]) -> dict[str, Any]:
    """Move many lessons at once, previewed

    `dry_run` (the default) says what would happen to each, with its revision, and writes nothing. The real run takes these
    revisions back: what was changed after it was looked at is refused as `stale`.
    """
    language, action, dry_run = payload["language"], payload["action"], payload["dry_run"]
    approve = "lesson.approve"
    permission = {"submit": "lesson.write", "approve": approve, "send_back": approve}.get(action, "lesson.publish")
    if not actor().may(permission):
        raise Forbidden()
    missing = [FieldError(f"items.{n}.revision", "required") for n, row in enumerate(payload["items"]) if "revision" not in row]
    if missing and not dry_run:
        raise Invalid(missing)
    options: dict[str, Any] = {k: payload[k] for k in ("note", "at", "expires_at") if k in payload}
    if action == "approve":
        options["second_person"] = settings().second_person
    rows = []
    for item in payload["items"]:
        row: dict[str, Any] = {"slug": item["slug"], "ok": True}
        try:
            lesson = own(Lesson, item["slug"], permission)
            who, given = actor().id, item.get("revision")
            moved = getattr(publishing, action)(Lesson, lesson.id, language, who, revision=given, dry_run=dry_run, **options)
            row["revision"] = moved.revision
        except Failure as failure:
            row |= {"ok": False, "code": failure.code, "messages": failure.messages}
        rows.append(row)
    if not dry_run:
        reader().refresh()
    return {"dry_run": dry_run, "items": rows}

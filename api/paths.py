"""Paths: lessons in an order with a pace, for families to follow on their own calendar; and the desk where they are made.

The calendar stays on the phone. The date of a step is the phone's own date (the day it began, the due date or the birthday, as
`pace.from` says) plus `at` × `pace.unit`, a day or seven days. The step of today is the last one whose date has come; who joins
late begins there, and what lies before stays readable. The day after a step was opened the phone asks `check_in.question`, shows
the text for the answer (`did`, `partly`, `not_yet`) and keeps the answer to itself. No route here takes a date, a birthday, how
far someone is, an answer or a band, and a path comes whole: asking for a part would tell a child's age.
"""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front, moves
from api import lessons as api_lessons
from api.auth import actor, allowed, own
from api.guard import Blueprint, created, cursor_of, if_match, next_page, page, tagged
from api.shapes import SLUG, Paging, Regexp, StageField, Stand, Tag, codes, each_once, reader, settings, stood
from content import catalogue, lessons, paths, reviewing
from content.failures import Forbidden
from content.paths import Path
from content.publishing import STATES
from content.vocabulary import AUDIENCES, TOPICS

blp = Blueprint(
    "paths", __name__, url_prefix="/v1", description="Lessons in an order with a pace; the calendar stays on the phone"
)
staff = Blueprint("staff_paths", __name__, url_prefix="/v1/staff", description="Write, review, publish, withdraw paths")


class CatalogueQuery(Paging):
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = StageField()
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)), metadata={"example": "first_1000_days"})
    division = ma.fields.String(validate=Regexp("^[0-9]{6}$"), metadata={"example": "150603"})
    check = ma.fields.String(validate=SLUG, metadata={"description": "only paths that begin with this self-check"})


class Pace(ma.Schema):
    """What `at` counts from and in what. The phone knows the date and tells nobody."""

    unit = ma.fields.String(required=True, validate=validate.OneOf(list(paths.SPAN)))
    from_ = ma.fields.String(required=True, validate=validate.OneOf(paths.FROM), data_key="from", attribute="from")


class BeginsWith(ma.Schema):
    """The self-check that a path may begin with: offer the path when the phone's own score falls into one of these bands."""

    check = ma.fields.String(required=True, validate=SLUG)
    bands = ma.fields.List(ma.fields.String(validate=validate.Length(1, 40)), required=True, validate=validate.Length(1, 20))


class Brief(ma.Schema):
    """A path in a list."""

    slug = ma.fields.String()
    title = ma.fields.String()
    summary = ma.fields.String()
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    topics = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String())
    pace = ma.fields.Nested(Pace)
    length = ma.fields.Integer(metadata={"description": "how many steps"})
    begins_with = ma.fields.Nested(
        BeginsWith, allow_none=True, metadata={"description": "null: nothing is asked first, or that check was recalled"}
    )
    language = ma.fields.String()
    name = ma.fields.String(metadata={"description": "of the language, in itself"})
    script = ma.fields.String(metadata={"example": "Hans"})
    direction = ma.fields.String(metadata={"description": "ltr, rtl, or ttb (columns from left to right)"})
    fallback = ma.fields.Nested(
        api_lessons.Fallback, allow_none=True, metadata={"description": "when it is not the language asked for"}
    )
    languages = ma.fields.List(ma.fields.String())
    version = ma.fields.String()
    number = ma.fields.Integer(metadata={"description": "how many versions in this language have been published"})
    published_at = ma.fields.String()


class Page(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Brief))
    next_cursor = ma.fields.String(allow_none=True)


class Lesson(api_lessons.Brief):
    """A step's lesson as in a list; what to try stands beside it."""

    class Meta:
        exclude = ("try_this",)


class Step(ma.Schema):
    """One step: a lesson, one small thing to try, and the question of the next day."""

    slug = ma.fields.String(metadata={"description": "of the lesson; keep progress under it, steps may be moved"})
    at = ma.fields.Integer(metadata={"description": "whole units after `pace.from`; negative only before a due date"})
    available = ma.fields.Boolean(metadata={"description": "false: readers cannot see this lesson now; pass over it"})
    lesson = ma.fields.Nested(Lesson, allow_none=True, metadata={"description": "null when not available"})
    try_this = ma.fields.String(allow_none=True, metadata={"description": "one small thing to do"})
    check_in = ma.fields.Nested(api_lessons.CheckIn, allow_none=True, metadata={"description": "ask it the day after"})


class Detail(Brief):
    """A path whole."""

    steps = ma.fields.List(ma.fields.Nested(Step))


@blp.get("/paths")
@blp.arguments(CatalogueQuery, location="query")
@blp.alt_response(200, schema=Page, description="A page of the paths, last published first")
def index(query: dict[str, Any]) -> Response:
    """Published paths

    Filtered by audience, stage, topic, division and the self-check that they begin with; each once, in the reader's best
    language.
    """
    filters = {name: query.get(name) for name in ("audience", "stage", "topic", "division", "check")}
    snapshot = reader().current
    found, fits = paths.catalogue(snapshot, front.wanted(), last=settings().language, **filters)
    result = page(found, query.get("cursor"), query["limit"], catalogue.order, fits)
    result["items"] = [paths.brief(snapshot, item, front.wanted()) for item in result["items"]]
    front.keep(*catalogue.holds(snapshot, "path", "lesson"))
    return jsonify(result)


@blp.get("/paths/<string:slug>")
@blp.arguments(api_lessons.DetailQuery, location="query")
@blp.alt_response(200, schema=Detail)
def show(query: dict[str, Any], slug: str) -> Response:
    """One path, whole

    Each step with its lesson in the reader's best language and voice (`audience`, else the path's own when it has one). The date
    of a step is the phone's own date (`pace.from`: start, due_date, birthday) + `at` × `pace.unit`; today's step is the last
    whose date has come. The day after, ask `check_in.question` and show the text for the answer. Dates, progress and answers stay
    on the phone: nothing here takes them.
    """
    snapshot = reader().current
    result = paths.detail(snapshot, slug, query.get("audience"), front.wanted(), settings().language)
    front.keep(*catalogue.holds(snapshot, "path", "lesson"))
    response = jsonify(result)
    response.headers["Content-Language"] = result["language"]
    return response


# --- staff -----------------------------------------------------------------------------------------------------------


class TextIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(validate=validate.Length(1, lessons.LIMITS["title"]))
    summary = ma.fields.String(validate=validate.Length(1, lessons.LIMITS["summary"]))


class StepIn(ma.Schema):
    lesson = ma.fields.String(required=True, validate=SLUG, metadata={"description": "slug"})
    at = ma.fields.Integer(required=True, strict=True, validate=validate.Range(-300, 6600))


class FactsIn(ma.Schema):
    """Only what is given is changed."""

    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    topics = codes(TOPICS)
    divisions = ma.fields.List(ma.fields.String(validate=Regexp("^[0-9]{6}$")), validate=validate.Length(max=200))
    pace = ma.fields.Nested(Pace)
    steps = ma.fields.List(
        ma.fields.Nested(StepIn),
        validate=validate.Length(paths.FEWEST, paths.MOST),
        metadata={"description": "`at` ascends; each lesson once"},
    )
    begins_with = ma.fields.Nested(BeginsWith, allow_none=True)
    texts = ma.fields.List(ma.fields.Nested(TextIn), validate=validate.Length(max=20))


class NewPath(FactsIn):
    slug = ma.fields.String(required=True, validate=validate.Length(1, 80), metadata={"example": "first-1000-days"})
    organisation = ma.fields.String(load_default="", validate=Regexp("^([0-9a-f]{32})?$"))
    pace = ma.fields.Nested(Pace, required=True)
    steps = ma.fields.List(ma.fields.Nested(StepIn), required=True, validate=validate.Length(paths.FEWEST, paths.MOST))
    texts = ma.fields.List(ma.fields.Nested(TextIn), required=True, validate=validate.Length(1, 20))


class TextOut(TextIn):
    missing = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "what keeps it from review", "example": ["steps.3 exam-week zh-Hans: check_in"]},
    )


class Copy(ma.Schema):
    """A working copy."""

    id = ma.fields.String()
    slug = ma.fields.String()
    organisation = ma.fields.String()
    revision = ma.fields.Integer()
    created_at = ma.fields.String()
    created_by = ma.fields.String()
    updated_at = ma.fields.String()
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    topics = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String())
    pace = ma.fields.Nested(Pace)
    steps = ma.fields.List(ma.fields.Nested(StepIn))
    begins_with = ma.fields.Nested(BeginsWith, allow_none=True)
    texts = ma.fields.List(ma.fields.Nested(TextOut))
    stands = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Nested(Stand))


class Line(ma.Schema):
    """A working copy in a list."""

    slug = ma.fields.String()
    title = ma.fields.String()
    length = ma.fields.Integer()
    states = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.String())
    revision = ma.fields.Integer()
    open_comments = ma.fields.Integer(metadata={"description": "threads that wait for an answer"})


class Lines(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Line))
    next_cursor = ma.fields.String(allow_none=True)


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))


def split(payload: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Facts and texts of a body."""
    facts = {name: value for name, value in payload.items() if name in paths.FACTS}
    found = each_once(payload.get("texts", []))
    return facts, {language: {k: v for k, v in text.items() if k != "language"} for language, text in found.items()}


def working_copy(path: Path) -> dict[str, Any]:
    """A path as staff see it, with what each language lacks."""
    raw = path.to_mongo().to_dict()
    return {
        "id": path.id,
        **{name: raw.get(name, "") for name in ("slug", "organisation", "revision", "created_by")},
        **{name: raw[name].isoformat() for name in ("created_at", "updated_at")},
        **path.facts(),
        "texts": [
            {"language": code, **text, "missing": path.missing(code)} for code, text in sorted(raw.get("texts", {}).items())
        ],
        "stands": stood(raw.get("stands", {})),
    }


@staff.get("/paths")
@staff.arguments(StaffQuery, location="query")
@staff.response(200, Lines)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Working copies the asker may read, by slug"""

    def mine(path: Path) -> bool:
        asked = "state" not in query or any(stand.state == query["state"] for stand in path.stands.values())
        return asked and allowed("lesson.read", path.organisation, path.divisions)

    def line(path: Path) -> dict[str, Any]:
        states = {code: stand.state for code, stand in path.stands.items()}
        title = next((text.title for text in path.texts.values() if text.title), "")
        facts = {"slug": path.slug, "title": title, "length": len(path.steps), "states": states, "revision": path.revision}
        return {**facts, "open_comments": waiting.get(path.id, 0)}

    found = map(Path.of, Path.rows().find({"slug": {"$gt": cursor_of(query, 1)[0]}}).sort("slug", 1))
    result = next_page(filter(mine, found), query["limit"], lambda path: [path.slug], lambda path: path)
    waiting = reviewing.open_comments([path.id for path in result["items"]])
    return {**result, "items": [line(path) for path in result["items"]]}


@staff.post("/paths")
@staff.arguments(NewPath)
@staff.alt_response(201, schema=Copy, description="The new draft")
def create(payload: dict[str, Any]) -> Response:
    """Start a path

    It is a draft in each language given, owned by `organisation`. Lessons, check and bands must exist; lessons may be published
    later than the path, which shows them once they are.
    """
    facts, texts = split(payload)
    if not allowed("lesson.write", payload["organisation"], facts.get("divisions", [])):
        raise Forbidden()
    path = paths.create(payload["slug"], facts, texts, actor().id, payload["organisation"])
    return created(working_copy(path), path.revision, f"/v1/staff/paths/{path.slug}")


@staff.get("/paths/<string:slug>")
@staff.alt_response(200, schema=Copy, description="The working copy; ETag is its revision")
def show_staff(slug: str) -> Response:
    """The working copy with where each language stands and what it lacks"""
    path = own(Path, slug, "lesson.read")
    return tagged(working_copy(path), path.revision)


@staff.patch("/paths/<string:slug>")
@staff.arguments(FactsIn)
@staff.alt_response(200, schema=Copy, description="The changed working copy")
def edit(payload: dict[str, Any], slug: str) -> Response:
    """Change facts or texts

    New facts send every language back to draft, a new text its own; readers keep what is published. Needs If-Match.
    """
    revision = if_match()
    path = own(Path, slug, "lesson.write")
    facts, texts = split(payload)
    if "divisions" in facts and not allowed("lesson.write", path.organisation, facts["divisions"]):
        raise Forbidden()
    path = paths.edit(path.id, actor().id, facts, texts, revision)
    return tagged(working_copy(path), path.revision)


moves.add(staff, "/paths/<string:slug>", Path, working_copy, Copy)

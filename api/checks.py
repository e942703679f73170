"""Self-checks: ask, score, and the desk where they are reviewed, approved and recalled.

`POST /v1/checks/{slug}/score` stores nothing and logs nothing. Whatever it answers, a failure too, the help card is in it:
an error in one field must not hide the help that another asks for.
"""

from typing import Any

import marshmallow as ma
from flask import Response, g, jsonify, request
from marshmallow import validate

from api import front
from api.auth import actor, allowed, own
from api.guard import Blueprint, cursor_of, if_match, next_page, page, tagged
from api.shapes import Paging, Regexp, reader, settings
from content import catalogue, checks, directory, languages, paths, scoring, store
from content.checks import PURPOSES, RIGHTS, Check
from content.failures import Conflict, FieldError, Invalid
from content.published import ANY, Item
from content.publishing import STATES
from content.vocabulary import AUDIENCES, STAGES, Stage

blp = Blueprint("checks", __name__, url_prefix="/v1", description="Self-checks, scored without a trace")
staff = Blueprint("staff_checks", __name__, url_prefix="/v1/staff", description="Review, approve, publish, recall self-checks")

MOST = 500  # answers in one request; a definition has no more items


def language_of(item: Item) -> str:
    """The check's language for this reader."""
    available = (item.content or {})["register"]["languages"]
    return languages.pick(available, front.wanted(), settings().language)


# --- readers ---------------------------------------------------------------------------------------------------------


class ListQuery(Paging):
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "student"})
    stage = ma.fields.String(validate=validate.OneOf(list(STAGES)), metadata={"example": "junior"})


class Brief(ma.Schema):
    """A check in a list."""

    slug = ma.fields.String()
    name = ma.fields.String()
    language = ma.fields.String()
    languages = ma.fields.List(ma.fields.String())
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    purpose = ma.fields.String(metadata={"description": ", ".join(PURPOSES)})
    validated = ma.fields.Boolean(metadata={"description": "false must be shown as “not validated”"})
    version = ma.fields.String(metadata={"description": "names this exact content; send it with the answers"})
    number = ma.fields.Integer()
    published_at = ma.fields.String()


class Page(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Brief))
    next_cursor = ma.fields.String(allow_none=True)


class OptionOut(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String()
    score = ma.fields.Float(allow_none=True)


class BandOut(ma.Schema):
    code = ma.fields.String()
    minimum = ma.fields.Float()
    maximum = ma.fields.Float()
    text = ma.fields.String()
    next_steps = ma.fields.List(ma.fields.String())


class CriticalOut(ma.Schema):
    item = ma.fields.String()
    codes = ma.fields.List(ma.fields.String())


class ItemOut(ma.Schema):
    """One line of a questionnaire."""

    link_id = ma.fields.String()
    kind = ma.fields.String(validate=validate.OneOf(sorted(scoring.KINDS)))
    text = ma.fields.String()
    required = ma.fields.Boolean()
    counts = ma.fields.Boolean(metadata={"description": "whether its scores enter the total"})
    minimum = ma.fields.Float(allow_none=True)
    maximum = ma.fields.Float(allow_none=True)
    unit = ma.fields.String()
    options = ma.fields.List(ma.fields.Nested(OptionOut))
    enable_when = ma.fields.Dict(allow_none=True, metadata={"description": "any, clauses of question, operator, value"})
    items = ma.fields.List(ma.fields.Nested(lambda: ItemOut()))


class Detail(Brief):
    """A check whole: enough to ask, score and show help on a phone without a network."""

    source = ma.fields.String()
    rights = ma.fields.String()
    approver = ma.fields.String(allow_none=True)
    evidence = ma.fields.String()
    parental_notice = ma.fields.String()
    items = ma.fields.List(ma.fields.Nested(ItemOut))
    total = ma.fields.String(allow_none=True, metadata={"description": "sum, sum_if_complete, or null for none"})
    bands = ma.fields.List(ma.fields.Nested(BandOut))
    critical = ma.fields.List(ma.fields.Nested(CriticalOut), metadata={"description": "show the help card at once on these"})
    lessons = ma.fields.List(ma.fields.String())
    expires_days = ma.fields.Integer(metadata={"description": "ask again before using a copy older than this"})


@blp.get("/checks")
@blp.arguments(ListQuery, location="query")
@blp.alt_response(200, schema=Page, description="Published checks by slug")
def index(query: dict[str, Any]) -> Response:
    """Published self-checks

    Filtered by audience and stage; each once, in the reader's best language.
    """
    stage = Stage(query["stage"]) if "stage" in query else None
    found = checks.catalogue(reader().current, query.get("audience"), stage)
    result = page(found, query.get("cursor"), query["limit"], lambda item: [item.key])
    result["items"] = [checks.brief(item, language_of(item)) for item in result["items"]]
    front.keep()
    return jsonify(result)


@blp.get("/checks/<string:slug>")
@blp.alt_response(200, schema=Detail)
def show(slug: str) -> Response:
    """One self-check

    All of it in the reader's best language: items, options with scores, bands, critical answers. 404 once recalled.
    """
    item, definition = checks.published_check(reader().current, slug)
    front.keep()
    return jsonify(checks.detail(item, definition, language_of(item)))


class Real(ma.fields.Float):
    """A JSON number; the stock field also takes "3" and true."""

    def _validated(self, value: Any) -> Any:
        if isinstance(value, bool | str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class AnswerIn(ma.Schema):
    """One answer: a code, several codes, a number, or yes (true) and no (false)."""

    item = ma.fields.String(required=True, validate=validate.Length(1, 255))
    code = ma.fields.String(validate=validate.Length(1, 500))
    codes = ma.fields.List(ma.fields.String(validate=validate.Length(1, 500)), validate=validate.Length(max=100))
    number = Real()
    yes = ma.fields.Boolean(truthy={True}, falsy={False})

    @ma.validates_schema
    def one(self, data: dict[str, Any], **_: Any) -> None:
        """Exactly one of the four."""
        if len(data.keys() & {"code", "codes", "number", "yes"}) != 1:
            raise ma.ValidationError([FieldError("", "required", {"field": "code / codes / number / yes"})])


class ScoreIn(ma.Schema):
    version = ma.fields.String(
        validate=Regexp("^[0-9a-f]{64}$"), metadata={"description": "`version` of the definition answered"}
    )
    division = ma.fields.String(validate=Regexp("^[0-9]{6}$"), metadata={"description": "for the help card", "example": "150603"})
    answers = ma.fields.List(ma.fields.Nested(AnswerIn), required=True, validate=validate.Length(max=MOST))

    class Meta:
        unknown = ma.RAISE


class LessonOut(ma.Schema):
    slug = ma.fields.String()
    title = ma.fields.String()


class PathOut(ma.Schema):
    slug = ma.fields.String()
    title = ma.fields.String()


class ScoreOut(ma.Schema):
    slug = ma.fields.String()
    version = ma.fields.String()
    language = ma.fields.String()
    validated = ma.fields.Boolean()
    total = ma.fields.Float(allow_none=True)
    maximum = ma.fields.Float(allow_none=True)
    band = ma.fields.Nested(
        BandOut, allow_none=True, metadata={"description": "null while a counted answer is missing, and when `critical`"}
    )
    message = ma.fields.String(allow_none=True, metadata={"description": "when `critical`: show it first, with the help card"})
    critical = ma.fields.Boolean(metadata={"description": "an answer calls for help at once"})
    missing = ma.fields.List(ma.fields.String(), metadata={"description": "items asked and not answered"})
    lessons = ma.fields.List(ma.fields.Nested(LessonOut))
    paths = ma.fields.List(
        ma.fields.Nested(PathOut), metadata={"description": "paths that begin with this band; none when `critical`"}
    )
    help = ma.fields.Dict(metadata={"description": "the help card"})


CRITICAL = {
    "zh-Hans": "谢谢你愿意说出来。现在最要紧的，是有人陪着你。请先看看下面的电话，或者告诉身边一位让你安心的大人。",
    "en": "Thank you for telling us. What matters now is that someone is with you. Please look at the numbers below first, "
    "or tell an adult you feel safe with.",
}
# a parent who is afraid of hurting someone needs another hand beside the child, first of all
CRITICAL_PARENT = {
    "zh-Hans": "谢谢您愿意说出来，这很不容易。现在最要紧的，是有人来搭把手：请一位家人或邻居来接手，您先离开几步，缓一缓，再看看"
    "下面的电话。如果有人正有危险，请马上打 110 或 120。",
    "en": "Thank you for telling us; that is not easy. What matters now is another pair of hands: ask someone in the family or a "
    "neighbour to take over, step away for a moment, then look at the numbers below. If anyone is in danger, call 110 or 120.",
}


def card(division: str | None = None, language: str = "") -> dict[str, Any]:
    """The help card for this reader, now."""
    tag = language or next(iter(front.wanted()), "zh-Hans")
    return directory.help_card(reader().current, division, store.now(), tag)


@blp.before_request
def help_beside() -> None:
    """Every failure of a scoring request carries the card, one of the body's shape included."""
    if request.endpoint == "checks.score":
        g.beside_failure = {"help": card()}


@blp.post("/checks/<string:slug>/score")
@blp.arguments(ScoreIn)
@blp.alt_response(200, schema=ScoreOut, description="The score with the help card; nothing of it is kept")
def score(payload: dict[str, Any], slug: str) -> Response:
    """Score answers

    Pure: nothing is stored, nothing is logged, and the same answers give the same result in every language. The help card
    comes with every answer, with every error too. An answer to an older version is refused as `old_version` (409): fetch
    the check again.
    """
    g.beside_failure = {"help": card(payload.get("division"))}
    snapshot = reader().current
    item, definition = checks.published_check(snapshot, slug)
    language = language_of(item)
    answers: dict[str, Any] = {}
    twice = []
    for row in payload["answers"]:
        if row["item"] in answers:
            twice.append(FieldError(f"answers.{row['item'][:80]}", "exists", {"what": row["item"][:80]}))
        answers[row["item"]] = next(row[key] for key in ("code", "codes", "number", "yes") if key in row)
    help_card = card(payload.get("division"), language)
    g.beside_failure = {"help": help_card, "critical": scoring.is_critical(definition, answers)}
    if payload.get("version", definition.version) != definition.version:
        raise Conflict("old_version")
    if twice:
        raise Invalid(twice)
    result = scoring.score(definition, answers)
    content = dict(item.content or {})
    ears, last = content["register"]["audiences"], settings().language
    said = CRITICAL_PARENT if ears == ["parent"] else CRITICAL
    offered = []
    for name in content["lessons"]:
        texts, audience = snapshot.get("lesson", name), ears[0] if len(ears) == 1 else None
        one = catalogue.choose(texts, audience, (language,), last, store.now())
        if one:
            offered.append({"slug": name, "title": (one.content or {})["title"]})
    # whoever says "now" is not told beside it how well things are going, and is offered help and nothing to work on
    band, near = None if result.critical else result.band, payload.get("division")
    return jsonify(
        {
            "slug": slug,
            "version": definition.version,
            "language": language,
            "validated": content["register"]["validated"],
            "total": result.total,
            "maximum": result.maximum,
            "critical": result.critical,
            "message": said["en" if language == "en" else "zh-Hans"] if result.critical else None,
            "help": help_card,
            "band": checks.band(band, language) if band else None,
            "missing": list(result.missing),
            "lessons": offered,
            "paths": paths.offered(snapshot, slug, band.code, (language,), near, last) if band else [],
        }
    )


# --- staff -----------------------------------------------------------------------------------------------------------


class SpokenIn(ma.Schema):
    language = ma.fields.String(required=True, validate=validate.Length(1, 35))
    text = ma.fields.String(required=True, validate=validate.Length(1, 2000))


class StepsIn(ma.Schema):
    language = ma.fields.String(required=True, validate=validate.Length(1, 35))
    steps = ma.fields.List(ma.fields.String(validate=validate.Length(1, 500)), required=True, validate=validate.Length(1, 10))


class BandIn(ma.Schema):
    code = ma.fields.String(required=True, validate=validate.Length(1, 40))
    minimum = Real(required=True)
    maximum = Real(required=True)
    text = ma.fields.List(ma.fields.Nested(SpokenIn), required=True, validate=validate.Length(1, 20))
    next_steps = ma.fields.List(ma.fields.Nested(StepsIn), load_default=list, validate=validate.Length(max=20))


class CriticalIn(ma.Schema):
    item = ma.fields.String(required=True, validate=validate.Length(1, 255))
    codes = ma.fields.List(ma.fields.String(validate=validate.Length(1, 500)), required=True, validate=validate.Length(1, 50))


class EditIn(ma.Schema):
    """Only what is given is changed. Questions come by import; here is what stands around them."""

    name = ma.fields.List(ma.fields.Nested(SpokenIn), validate=validate.Length(max=20))
    source = ma.fields.String(validate=validate.Length(max=500), allow_none=True)
    rights = ma.fields.String(validate=validate.OneOf(list(RIGHTS)), allow_none=True)
    audiences = ma.fields.List(ma.fields.String(validate=validate.OneOf(list(AUDIENCES))), validate=validate.Length(max=10))
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    languages = ma.fields.List(ma.fields.String(validate=validate.Length(1, 35)), validate=validate.Length(max=20))
    validated = ma.fields.Boolean(truthy={True}, falsy={False}, allow_none=True)
    purpose = ma.fields.String(validate=validate.OneOf(list(PURPOSES)), allow_none=True)
    approver = ma.fields.String(validate=validate.Length(max=120), allow_none=True)
    approval_number = ma.fields.String(validate=validate.Length(max=120), allow_none=True)
    parental_notice = ma.fields.List(ma.fields.Nested(SpokenIn), validate=validate.Length(max=20))
    evidence = ma.fields.String(validate=validate.Length(max=2000), allow_none=True)
    lessons = ma.fields.List(ma.fields.String(validate=validate.Length(1, 80)), validate=validate.Length(max=20))
    expires_days = ma.fields.Integer(strict=True, validate=validate.Range(1, checks.EXPIRES_DAYS))
    bands = ma.fields.List(ma.fields.Nested(BandIn), validate=validate.Length(max=20))
    critical = ma.fields.List(ma.fields.Nested(CriticalIn), validate=validate.Length(max=100))

    class Meta:
        unknown = ma.RAISE


class NoteIn(ma.Schema):
    note = ma.fields.String(load_default="", validate=validate.Length(max=500), metadata={"description": "why, for the trail"})

    class Meta:
        unknown = ma.RAISE


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))


def working_copy(check: Check) -> dict[str, Any]:
    """A check as staff see it."""
    definition = scoring.to_json(check.parsed())
    return {
        "id": check.id,
        "slug": check.slug,
        "organisation": check.organisation,
        "revision": check.revision,
        **checks.stood(check),
        **check.values(),
        "definition_version": check.parsed().version,
        "complete_languages": list(check.parsed().languages),
        "definition": definition,
    }


def answered(check: Check) -> Response:
    """The working copy with its ETag."""
    reader().refresh()
    return tagged(working_copy(check), check.revision)


@staff.get("/checks")
@staff.arguments(StaffQuery, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Working copies the asker may read, by slug"""
    match: dict[str, Any] = {"slug": {"$gt": cursor_of(query, 1)[0]}}
    if "state" in query:
        match[f"stands.{ANY}.state"] = query["state"]

    def line(check: Check) -> dict[str, Any]:
        return {"slug": check.slug, "name": check.values()["name"] or {}, "revision": check.revision, **checks.stood(check)}

    found = map(Check.of, Check.rows().find(match).sort("slug", 1))
    mine = (check for check in found if allowed("check.read", check.organisation))
    return next_page(mine, query["limit"], lambda check: [check.slug], line)


@staff.get("/checks/<string:slug>")
@staff.alt_response(200, description="The working copy; ETag is its revision")
def show_staff(slug: str) -> Response:
    """The working copy: questions, register entry, what is still missing"""
    check = own(Check, slug, "check.read")
    return tagged(working_copy(check), check.revision)


@staff.patch("/checks/<string:slug>")
@staff.arguments(EditIn)
@staff.alt_response(200, description="The changed working copy")
def edit(payload: dict[str, Any], slug: str) -> Response:
    """Change the register entry, bands, critical answers, lessons

    Back to draft; readers keep the published version. Needs If-Match.
    """
    revision = if_match()
    check = own(Check, slug, "check.write")
    for name in ("name", "parental_notice"):
        if name in payload:
            payload[name] = {row["language"]: row["text"] for row in payload[name]}
    bands = critical = None
    if "bands" in payload:
        bands = checks.bands_of([
            {
                "code": row["code"], "min": row["minimum"], "max": row["maximum"],
                "text": {one["language"]: one["text"] for one in row["text"]},
                "next_steps": {one["language"]: one["steps"] for one in row["next_steps"]},
            }
            for row in payload.pop("bands")
        ])  # fmt: skip
    if "critical" in payload:
        critical = checks.critical_of(payload.pop("critical"))
    changed = checks.edit(check.id, actor().id, payload, bands=bands, critical=critical, revision=revision)
    return tagged(working_copy(changed), changed.revision)


@staff.post("/checks/<string:slug>/submit")
@staff.alt_response(200, description="In review")
def submit(slug: str) -> Response:
    """Send to review; refused as `incomplete` while the register entry has a gap"""
    revision = if_match()
    return answered(checks.submit(own(Check, slug, "check.write").id, actor().id, revision))


@staff.post("/checks/<string:slug>/approve")
@staff.alt_response(200, description="Approved")
def approve(slug: str) -> Response:
    """Approve as a second person: never an author, nor an account an author made"""
    revision = if_match()
    return answered(checks.approve(own(Check, slug, "check.approve").id, actor().id, revision))


@staff.post("/checks/<string:slug>/publish")
@staff.alt_response(200, description="Published")
def publish(slug: str) -> Response:
    """Publish what was approved"""
    revision = if_match()
    return answered(checks.publish(own(Check, slug, "check.publish").id, actor().id, revision))


@staff.post("/checks/<string:slug>/withdraw")
@staff.arguments(NoteIn)
@staff.alt_response(200, description="Recalled")
def withdraw(payload: dict[str, Any], slug: str) -> Response:
    """Recall: no phone gets it from its next request on"""
    revision = if_match()
    return answered(checks.withdraw(own(Check, slug, "check.publish").id, actor().id, revision, payload["note"]))

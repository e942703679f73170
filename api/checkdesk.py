"""The desk of self-checks: import, review, approve, publish and recall them, and what lies over their questions.

Questions come from questionnaire files (here, or with `xinqiao import checks`); the register entry, scales, bands, norms,
critical answers, ages and explanations are edited here. A second person always approves.
"""

from collections.abc import Callable
from typing import Any

import marshmallow as ma
from flask import Response, request
from marshmallow import validate
from werkzeug.exceptions import UnsupportedMediaType

from api import desk
from api.auth import actor, allowed, own
from api.guard import Blueprint, cursor_of, if_match, next_page, tagged
from api.shapes import Paging, Real, Regexp, Tag, by_language, listed, reader
from content import checking, checks, fhir, publishing, reviewing, rules, upkeep
from content.checks import PURPOSES, RIGHTS, Check
from content.definition import CONTROLS, KINDS, METHODS, OLDEST, SEXES, Band, Definition, Item, Norm, Scale, Validity
from content.failures import Forbidden
from content.published import ANY
from content.publishing import STATES
from content.vocabulary import AUDIENCES

TEXTS = ("name", "parental_notice", "critical_message")
MOST_LANGUAGES = 100

blp = Blueprint("staff_checks", __name__, url_prefix="/v1/staff", description="Review, approve, publish, recall self-checks")


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


class CutIn(ma.Schema):
    band = ma.fields.String(required=True, validate=validate.Length(1, 40))
    minimum = Real(required=True)
    maximum = Real(required=True)


class NormIn(ma.Schema):
    """How a scale reads in one group: ages in months, both included."""

    minimum_age = ma.fields.Integer(required=True, strict=True, validate=validate.Range(0, OLDEST))
    maximum_age = ma.fields.Integer(required=True, strict=True, validate=validate.Range(0, OLDEST))
    sex = ma.fields.String(load_default=None, allow_none=True, validate=validate.OneOf(SEXES))
    mean = Real(load_default=None, allow_none=True)
    sd = Real(load_default=None, allow_none=True)
    cuts = ma.fields.List(ma.fields.Nested(CutIn), load_default=list, validate=validate.Length(max=20))


NAMED = ma.fields.String(validate=validate.Length(1, 255))


class TotalIn(ma.Schema):
    """What the whole is made of; only what is given is changed."""

    name = ma.fields.List(ma.fields.Nested(SpokenIn), validate=validate.Length(max=20))
    of = ma.fields.List(NAMED, validate=validate.Length(1, 500))
    method = ma.fields.String(validate=validate.OneOf(METHODS))
    reverse = ma.fields.List(NAMED, validate=validate.Length(max=500))


class SubscaleIn(TotalIn):
    code = ma.fields.String(required=True, validate=validate.Length(1, 40))
    bands = ma.fields.List(ma.fields.Nested(BandIn), load_default=list, validate=validate.Length(max=20))
    norms = ma.fields.List(ma.fields.Nested(NormIn), load_default=list, validate=validate.Length(max=100))


class CriticalIn(ma.Schema):
    item = ma.fields.String(required=True, validate=validate.Length(1, 255))
    codes = ma.fields.List(
        ma.fields.String(validate=validate.Length(1, 500)), load_default=list, validate=validate.Length(max=50)
    )
    at_least = Real(load_default=None, allow_none=True)


class ValidityIn(ma.Schema):
    kind = ma.fields.String(required=True, validate=validate.OneOf(rules.DOUBTS))
    seconds = ma.fields.Integer(strict=True, validate=validate.Range(1, 3600))
    items = ma.fields.List(NAMED, validate=validate.Length(3, 500))


class WordedIn(ma.Schema):
    """A question's or an option's words in one language."""

    language = ma.fields.String(required=True, validate=validate.Length(1, 35))
    text = ma.fields.String(required=True, validate=validate.Length(1, rules.WORDS))


class OptionIn(ma.Schema):
    code = ma.fields.String(required=True, validate=validate.Length(1, 500))
    text = ma.fields.List(ma.fields.Nested(WordedIn), required=True, validate=validate.Length(max=MOST_LANGUAGES))


class ItemIn(ma.Schema):
    """What lies over one question. Words are added or replaced by language; which answers there are and what they are worth is
    the questionnaire's. Null, "" or an empty list takes ages, explanation or control away."""

    item = ma.fields.String(required=True, validate=validate.Length(1, 255), metadata={"description": "link id"})
    text = ma.fields.List(ma.fields.Nested(WordedIn), validate=validate.Length(max=MOST_LANGUAGES))
    options = ma.fields.List(ma.fields.Nested(OptionIn), validate=validate.Length(max=500))
    ages = ma.fields.List(ma.fields.Integer(strict=True), allow_none=True, validate=validate.Length(2, 2))
    explanation = ma.fields.List(ma.fields.Nested(SpokenIn), validate=validate.Length(max=20))
    control = ma.fields.String(validate=validate.OneOf(sorted(CONTROLS)))


class EditIn(ma.Schema):
    """Only what is given is changed. Questions come by import; here is what stands around them."""

    name = ma.fields.List(ma.fields.Nested(SpokenIn), validate=validate.Length(max=20))
    source = ma.fields.String(validate=validate.Length(max=500), allow_none=True)
    rights = ma.fields.String(validate=validate.OneOf(list(RIGHTS)), allow_none=True)
    audiences = ma.fields.List(ma.fields.String(validate=validate.OneOf(list(AUDIENCES))), validate=validate.Length(max=10))
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    ages = ma.fields.List(ma.fields.Integer(strict=True), validate=validate.Length(max=2), metadata={"description": "months"})
    languages = ma.fields.List(ma.fields.String(validate=validate.Length(1, 35)), validate=validate.Length(max=20))
    validated = ma.fields.Boolean(truthy={True}, falsy={False}, allow_none=True)
    purpose = ma.fields.String(validate=validate.OneOf(list(PURPOSES)), allow_none=True)
    approver = ma.fields.String(validate=validate.Length(max=120), allow_none=True)
    approval_number = ma.fields.String(validate=validate.Length(max=120), allow_none=True)
    parental_notice = ma.fields.List(ma.fields.Nested(SpokenIn), validate=validate.Length(max=20))
    critical_message = ma.fields.List(
        ma.fields.Nested(SpokenIn),
        validate=validate.Length(max=20),
        metadata={"description": "said first beside a critical answer; else general words"},
    )
    no_critical = ma.fields.String(
        validate=validate.Length(max=500), allow_none=True, metadata={"description": "why no answer calls for help at once"}
    )
    evidence = ma.fields.String(validate=validate.Length(max=2000), allow_none=True)
    lessons = ma.fields.List(ma.fields.String(validate=validate.Length(1, 80)), validate=validate.Length(max=20))
    expires_days = ma.fields.Integer(strict=True, validate=validate.Range(1, checks.EXPIRES_DAYS))
    total = ma.fields.Nested(TotalIn)
    bands = ma.fields.List(ma.fields.Nested(BandIn), validate=validate.Length(max=20), metadata={"description": "of the total"})
    norms = ma.fields.List(ma.fields.Nested(NormIn), validate=validate.Length(max=100), metadata={"description": "of the total"})
    subscales = ma.fields.List(ma.fields.Nested(SubscaleIn), validate=validate.Length(max=30))
    critical = ma.fields.List(ma.fields.Nested(CriticalIn), validate=validate.Length(max=100))
    validity = ma.fields.List(ma.fields.Nested(ValidityIn), validate=validate.Length(max=10))
    items = ma.fields.List(ma.fields.Nested(ItemIn), validate=validate.Length(max=500))

    class Meta:
        unknown = ma.RAISE


class NoteIn(ma.Schema):
    note = ma.fields.String(
        required=True,
        validate=[validate.Length(max=500), validate.Regexp(r"\s*\S")],
        metadata={"description": "why; staff read it"},
    )

    class Meta:
        unknown = ma.RAISE


class ClauseOut(ma.Schema):
    question = ma.fields.String()
    operator = ma.fields.String()
    value = ma.fields.Raw(metadata={"type": ["string", "number", "boolean"]})


class EnableOut(ma.Schema):
    any = ma.fields.Boolean(metadata={"description": "one of the clauses is enough"})
    clauses = ma.fields.List(ma.fields.Nested(ClauseOut))


class OptionOut(OptionIn):
    score = ma.fields.Float(allow_none=True)


class QuestionOut(ma.Schema):
    """A question as the questionnaire has it; the next import may change it, an edit does not."""

    link_id = ma.fields.String()
    kind = ma.fields.String(validate=validate.OneOf(sorted(KINDS)))
    text = ma.fields.List(ma.fields.Nested(WordedIn))
    required = ma.fields.Boolean()
    minimum = ma.fields.Float(allow_none=True)
    maximum = ma.fields.Float(allow_none=True)
    unit = ma.fields.String()
    options = ma.fields.List(ma.fields.Nested(OptionOut))
    enable_when = ma.fields.Nested(EnableOut, allow_none=True)
    items = ma.fields.List(ma.fields.Nested(lambda: QuestionOut()))


class Standing(ma.Schema):
    """Where a check stands."""

    slug = ma.fields.String()
    revision = ma.fields.Integer(metadata={"description": "the ETag"})
    state = ma.fields.String(validate=validate.OneOf(STATES))
    note = ma.fields.String(metadata={"description": "the word of whoever sent it back or recalled it"})
    approved_by = ma.fields.String(allow_none=True, metadata={"description": "id"})
    version = ma.fields.String(allow_none=True, metadata={"description": "that readers see; null when they see none"})
    number = ma.fields.Integer(metadata={"description": "how many versions have been published"})
    published_at = ma.fields.String(allow_none=True)
    missing = ma.fields.List(ma.fields.String(), metadata={"description": "what keeps it from review"})


class Line(Standing):
    """A check in the list of working copies."""

    name = ma.fields.List(ma.fields.Nested(SpokenIn))


class Lines(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Line))
    next_cursor = ma.fields.String(allow_none=True)


class CheckOut(EditIn, Standing):
    """A working copy. What an edit takes stands in the shape in which it is sent; without a total `total` is absent."""

    id = ma.fields.String()
    organisation = ma.fields.String(metadata={"description": "owner's id; empty: of none"})
    definition_version = ma.fields.String(metadata={"description": "names questions and rules"})
    complete_languages = ma.fields.List(ma.fields.String(), metadata={"description": "in which every text is there"})
    questions = ma.fields.List(ma.fields.Nested(QuestionOut))


class WithdrawnOut(CheckOut):
    """The working copy, and what the recall leaves behind."""

    paths = ma.fields.List(
        ma.fields.Nested(desk.UseOut), metadata={"description": "that begin with it; nobody is asked it there"}
    )
    seasons = ma.fields.List(ma.fields.String(), metadata={"description": "codes of seasons that name it"})
    hidden = ma.fields.Integer(metadata={"description": "drafts of paths that are not the asker's to read"})


class ImportOut(ma.Schema):
    outcome = ma.fields.String(validate=validate.OneOf(("new", "changed", "unchanged")))
    slug = ma.fields.String()
    messages = ma.fields.List(ma.fields.String(), metadata={"description": "what was missing and harmless: path: reason"})


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))


def working_copy(check: Check) -> dict[str, Any]:
    """A check as staff see it."""
    definition, values = check.parsed(), check.values()
    return {
        "id": check.id,
        "slug": check.slug,
        "organisation": check.organisation,
        "revision": check.revision,
        **checks.stood(check),
        **values,
        **{name: listed(values[name] or {}) for name in TEXTS},
        **{name: values[name] or [] for name in ("audiences", "stages", "ages", "languages")},
        "definition_version": definition.version,
        "complete_languages": list(definition.languages),
        **lying(definition),
        "questions": [question(item) for item in definition.items],
    }


def question(item: Item) -> dict[str, Any]:
    """A question with all its languages."""
    return {
        "link_id": item.link_id, "kind": item.kind, "text": listed(item.text), "required": item.required,
        "minimum": item.minimum, "maximum": item.maximum, "unit": item.unit,
        "options": [{"code": o.code, "text": listed(o.text), "score": o.score} for o in item.options],
        "enable_when": item.enable_when and item.enable_when.plain(),
        "items": [question(below) for below in item.items],
    }  # fmt: skip


def lying(definition: Definition) -> dict[str, Any]:
    """What lies over the questions, in the shape in which it is sent: the way back of `laid_of`."""

    def band(one: Band) -> dict[str, Any]:
        steps = [{"language": tag, "steps": list(lines)} for tag, lines in sorted(one.next_steps.items())]
        row = {"code": one.code, "minimum": one.minimum, "maximum": one.maximum}
        return {**row, "text": listed(one.text), "next_steps": steps}

    def norm(one: Norm) -> dict[str, Any]:
        cuts = [
            {"band": code, "minimum": low, "maximum": high}
            for code, (low, high) in sorted(one.cuts.items(), key=lambda cut: cut[1])
        ]
        row = {"minimum_age": one.minimum_age, "maximum_age": one.maximum_age, "sex": one.sex}
        return {**row, "mean": one.mean, "sd": one.sd, "cuts": cuts}

    def counted(one: Scale) -> dict[str, Any]:
        return {"name": listed(one.name), "of": list(one.of), "method": one.method, "reverse": list(one.reverse)}

    def ends(one: Scale | None) -> dict[str, Any]:
        return {"bands": list(map(band, one.bands if one else ())), "norms": list(map(norm, one.norms if one else ()))}

    def doubt(one: Validity) -> dict[str, Any]:
        return {"kind": one.kind, **({"seconds": one.seconds} if one.kind == "too_fast" else {"items": list(one.items)})}

    def item(one: Item) -> dict[str, Any]:
        options = [{"code": o.code, "text": listed(o.text)} for o in one.options]
        row = {"ages": list(one.ages or ()), "explanation": listed(one.explanation), "control": one.control}
        return {k: v for k, v in {"text": listed(one.text), "options": options, **row}.items() if v}

    total = definition.total
    return {
        **({"total": counted(total)} if total else {}),
        **ends(total),
        "subscales": [{"code": s.code, **counted(s), **ends(s)} for s in definition.scales if s is not total],
        "critical": [{"item": c.item, "codes": list(c.codes), "at_least": c.at_least} for c in definition.critical],
        "validity": list(map(doubt, definition.validity)),
        "items": [{"item": link_id, **row} for link_id, one in definition.index.items() if (row := item(one))],
    }


def answered(check: Check) -> Response:
    """The working copy with its ETag."""
    reader().refresh()
    return tagged(working_copy(check), check.revision)


@blp.get("/checks")
@blp.arguments(StaffQuery, location="query")
@blp.response(200, Lines)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Working copies the asker may read, by slug"""
    match: dict[str, Any] = {"slug": {"$gt": cursor_of(query, 1)[0]}}
    if "state" in query:
        match[f"stands.{ANY}.state"] = query["state"]

    def line(check: Check) -> dict[str, Any]:
        name = listed(check.values()["name"] or {})
        return {"slug": check.slug, "name": name, "revision": check.revision, **checks.stood(check)}

    found = map(Check.of, Check.rows().find(match).sort("slug", 1))
    mine = (check for check in found if allowed("check.read", check.organisation))
    return next_page(mine, query["limit"], lambda check: [check.slug], line)


@blp.get("/checks/<string:slug>")
@blp.alt_response(200, schema=CheckOut, description="The working copy; ETag is its revision")
def show_staff(slug: str) -> Response:
    """The working copy: questions, register entry, rules, what is still missing

    What `PATCH` takes stands here in the shape that it takes.
    """
    check = own(Check, slug, "check.read")
    return tagged(working_copy(check), check.revision)


class ImportQuery(ma.Schema):
    organisation = ma.fields.String(
        load_default="", validate=Regexp("^([0-9a-f]{32})?$"), metadata={"description": "owner of a new check; empty: of none"}
    )
    language = Tag(metadata={"description": "of texts where the file does not say"})

    class Meta:
        unknown = ma.RAISE


@blp.put("/checks/<string:slug>/questionnaire")
@blp.arguments(ImportQuery, location="query")
@blp.doc(requestBody={"required": True, "content": {"application/fhir+json": {"schema": {"type": "object"}}}})
@blp.alt_response(200, schema=ImportOut, description="Laid over the working copy, or unchanged")
@blp.alt_response(201, schema=ImportOut, description="A new draft")
def put_questionnaire(query: dict[str, Any], slug: str) -> Response:
    """Import an R4 Questionnaire as a draft

    Over a check that is there its register entry and rules stay, readers keep the published version, and If-Match is needed.
    What decides a score is read or refused with its path; what is merely missing is told in `messages`.
    """
    if request.mimetype not in ("application/fhir+json", "application/json"):
        raise UnsupportedMediaType("application/fhir+json, application/json")
    checking.slug(slug)
    there = Check.rows().find_one({"slug": slug}, {"_id": 1})
    revision = None
    if there:
        revision = if_match()
        own(Check, slug, "check.write")
    elif not allowed("check.write", query["organisation"]):
        raise Forbidden()
    raw = request.get_data(cache=True)
    definition, messages = fhir.read_questionnaire(raw, slug=slug, language=query.get("language", ""))
    outcome = checks.put_draft(slug, definition, None, actor().id, query["organisation"], revision=revision)
    check = checks.by_slug(slug)
    told = [*messages, *checks.no_help(check.parsed(), check.values())]
    return tagged({"outcome": outcome, "messages": told, "slug": slug}, check.revision, 200 if there else 201)


def laid_of(payload: dict[str, Any]) -> dict[str, Any]:
    """What the body lays over the questions, in the plain shape of `content.rules`; taken out of the body."""

    def named(row: dict[str, Any], key: str) -> dict[str, Any]:
        return row | ({key: by_language(row[key])} if key in row else {})

    def band(row: dict[str, Any]) -> dict[str, Any]:
        steps = {one["language"]: one["steps"] for one in row["next_steps"]}
        return {
            "code": row["code"],
            "min": row["minimum"],
            "max": row["maximum"],
            "text": by_language(row["text"]),
            "next_steps": steps,
        }

    def norm(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"cuts": {cut["band"]: [cut["minimum"], cut["maximum"]] for cut in row["cuts"]}}

    def scale(row: dict[str, Any]) -> dict[str, Any]:
        return named(row, "name") | {"bands": [band(one) for one in row["bands"]], "norms": [norm(one) for one in row["norms"]]}

    def item(row: dict[str, Any]) -> dict[str, Any]:
        options = {"options": [named(one, "text") for one in row["options"]]} if "options" in row else {}
        return named(named(row, "text"), "explanation") | options

    def same(row: dict[str, Any]) -> dict[str, Any]:
        return row

    shapes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "bands": band, "norms": norm, "subscales": scale, "critical": same, "validity": same,
        "items": item,
    }  # fmt: skip
    laid: dict[str, Any] = {name: [shape(row) for row in payload.pop(name)] for name, shape in shapes.items() if name in payload}
    if "total" in payload:
        laid["total"] = named(payload.pop("total"), "name")
    return laid


@blp.patch("/checks/<string:slug>")
@blp.arguments(EditIn)
@blp.alt_response(200, schema=CheckOut, description="The changed working copy")
def edit(payload: dict[str, Any], slug: str) -> Response:
    """Change the register entry, rules, translations, lessons

    Back to draft; readers keep the published version. Needs If-Match.
    """
    revision = if_match()
    check = own(Check, slug, "check.write")
    for name in TEXTS:
        if name in payload:
            payload[name] = by_language(payload[name])
    changed = checks.edit(check.id, actor().id, payload, laid=laid_of(payload), revision=revision)
    return tagged(working_copy(changed), changed.revision)


@blp.post("/checks/<string:slug>/submit")
@blp.alt_response(200, schema=CheckOut, description="In review")
def submit(slug: str) -> Response:
    """Send to review; refused as `incomplete` while the register entry has a gap"""
    revision = if_match()
    return answered(checks.submit(own(Check, slug, "check.write").id, actor().id, revision))


@blp.post("/checks/<string:slug>/approve")
@blp.alt_response(200, schema=CheckOut, description="Approved")
def approve(slug: str) -> Response:
    """Approve as a second person: never an author, nor an account an author made"""
    revision = if_match()
    return answered(checks.approve(own(Check, slug, "check.approve").id, actor().id, revision))


@blp.post("/checks/<string:slug>/send-back")
@blp.arguments(NoteIn)
@blp.alt_response(200, schema=CheckOut, description="A draft again")
def send_back(payload: dict[str, Any], slug: str) -> Response:
    """Send back to its authors, with a word on why"""
    revision = if_match()
    check = own(Check, slug, "check.approve")
    return answered(publishing.send_back(Check, check.id, ANY, actor().id, payload["note"], revision))


@blp.post("/checks/<string:slug>/publish")
@blp.alt_response(200, schema=CheckOut, description="Published")
def publish(slug: str) -> Response:
    """Publish what was approved"""
    revision = if_match()
    return answered(checks.publish(own(Check, slug, "check.publish").id, actor().id, revision))


@blp.post("/checks/<string:slug>/withdraw")
@blp.arguments(NoteIn)
@blp.alt_response(200, schema=WithdrawnOut, description="Recalled")
def withdraw(payload: dict[str, Any], slug: str) -> Response:
    """Recall: no phone gets it from its next request on

    Never blocked. The answer says what still leads to it, as the list of recalls does.
    """
    revision = if_match()
    check = checks.withdraw(own(Check, slug, "check.publish").id, actor().id, revision, payload["note"].strip())
    reader().refresh()
    return tagged({**working_copy(check), **desk.left_behind(reader().current, check)}, check.revision)


@blp.delete("/checks/<string:slug>")
@blp.response(204)
def discard(slug: str) -> None:
    """Delete a draft of which nothing was ever published

    409 once there is a version, and while a path begins with it. Needs If-Match.
    """
    revision = if_match()
    check = own(Check, slug, "check.write")
    desk.unused(slug, upkeep.uses_of_check(reader().current, slug))
    reviewing.discard(Check, check.id, actor().id, revision)

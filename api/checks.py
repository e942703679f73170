"""Self-checks: find, ask and score them. The desk where they are reviewed, approved and recalled is `checkdesk`.

`POST /v1/checks/{slug}/score` stores nothing and logs nothing. Whatever it answers, a failure too, the help card is in it:
an error in one field must not hide the help that another asks for.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import beside, front
from api.guard import Blueprint, page
from api.shapes import Paging, Real, Regexp, reader, settings
from api.support import Card
from content import catalogue, checks, paths, rules, scoring, store
from content.checks import PURPOSES
from content.definition import KINDS, METHODS, OLDEST, SEXES, TOTAL, Definition
from content.failures import Conflict, FieldError, Invalid
from content.published import Item
from content.vocabulary import AUDIENCES, STAGES, Stage

blp = Blueprint("checks", __name__, url_prefix="/v1", description="Self-checks, scored without a trace")

MOST = 500  # answers in one request; a definition has no more items


# --- readers ---------------------------------------------------------------------------------------------------------


class ListQuery(Paging):
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "student"})
    stage = ma.fields.String(validate=validate.OneOf(list(STAGES)), metadata={"example": "junior"})
    age_months = ma.fields.Integer(
        validate=validate.Range(0, OLDEST), metadata={"description": "of whoever it is about", "example": 30}
    )


class Brief(ma.Schema):
    """A check in a list."""

    slug = ma.fields.String()
    name = ma.fields.String()
    language = ma.fields.String()
    languages = ma.fields.List(ma.fields.String())
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    ages = ma.fields.List(ma.fields.Integer(), allow_none=True, metadata={"description": "[least, most] in months, or null"})
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


class CutOut(ma.Schema):
    band = ma.fields.String()
    minimum = ma.fields.Float()
    maximum = ma.fields.Float()


class NormOut(ma.Schema):
    """How a scale reads in one group: ages in months, both included; T score from mean and sd; other ends for bands."""

    minimum_age = ma.fields.Integer()
    maximum_age = ma.fields.Integer()
    sex = ma.fields.String(allow_none=True)
    mean = ma.fields.Float(allow_none=True)
    sd = ma.fields.Float(allow_none=True)
    cuts = ma.fields.List(ma.fields.Nested(CutOut))


class ScaleOut(ma.Schema):
    """A value computed from items and other scales; `total` is the code of the whole."""

    code = ma.fields.String()
    name = ma.fields.String()
    of = ma.fields.List(ma.fields.String(), metadata={"description": "link ids and codes of scales"})
    method = ma.fields.String(validate=validate.OneOf(METHODS))
    reverse = ma.fields.List(ma.fields.String(), metadata={"description": "items that count least + most - score"})
    minimum = ma.fields.Float()
    maximum = ma.fields.Float()
    bands = ma.fields.List(ma.fields.Nested(BandOut))
    norms = ma.fields.List(ma.fields.Nested(NormOut))


class CriticalOut(ma.Schema):
    item = ma.fields.String()
    codes = ma.fields.List(ma.fields.String())
    at_least = ma.fields.Float(allow_none=True, metadata={"description": "an option's score or a number from here on"})


class ValidityOut(ma.Schema):
    kind = ma.fields.String(validate=validate.OneOf(rules.DOUBTS))
    seconds = ma.fields.Integer(allow_none=True)
    items = ma.fields.List(ma.fields.String())
    text = ma.fields.String(metadata={"description": "say it beside the result, never instead of it"})


class ItemOut(ma.Schema):
    """One line of a questionnaire."""

    link_id = ma.fields.String()
    kind = ma.fields.String(validate=validate.OneOf(sorted(KINDS)))
    text = ma.fields.String()
    required = ma.fields.Boolean()
    minimum = ma.fields.Float(allow_none=True)
    maximum = ma.fields.Float(allow_none=True)
    unit = ma.fields.String()
    control = ma.fields.String(metadata={"description": "page, table, slider, or empty"})
    ages = ma.fields.List(ma.fields.Integer(), allow_none=True, metadata={"description": "asked at these months only"})
    explanation = ma.fields.String(metadata={"description": "shown once it is answered"})
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
    critical_message = ma.fields.String(
        metadata={"description": "say it first when an answer is critical, in the reader's language"}
    )
    items = ma.fields.List(ma.fields.Nested(ItemOut))
    scales = ma.fields.List(ma.fields.Nested(ScaleOut))
    critical = ma.fields.List(ma.fields.Nested(CriticalOut), metadata={"description": "show the help card at once on these"})
    validity = ma.fields.List(ma.fields.Nested(ValidityOut))
    lessons = ma.fields.List(ma.fields.String())
    expires_days = ma.fields.Integer(metadata={"description": "ask again before using a copy older than this"})


@blp.get("/checks")
@blp.arguments(ListQuery, location="query")
@blp.alt_response(200, schema=Page, description="Published checks by slug")
def index(query: dict[str, Any]) -> Response:
    """Published self-checks

    Filtered by audience, stage and age; each once, in the reader's best language.
    """
    stage = Stage(query["stage"]) if "stage" in query else None
    found = checks.catalogue(reader().current, query.get("audience"), stage, query.get("age_months"))
    result = page(found, query.get("cursor"), query["limit"], lambda item: [item.key])
    result["items"] = [checks.brief(item, beside.language_of(item)) for item in result["items"]]
    front.keep()
    return jsonify(result)


@blp.get("/checks/<string:slug>")
@blp.alt_response(200, schema=Detail)
def show(slug: str) -> Response:
    """One self-check

    All of it in the reader's best language: items, options with scores, scales with bands, critical answers. 404 once recalled.
    """
    item, definition = checks.published_check(reader().current, slug)
    front.keep()
    language = beside.language_of(item)
    return jsonify(checks.detail(item, definition, language, beside.own_language(language)))


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
        required=True, validate=Regexp("^[0-9a-f]{64}$"), metadata={"description": "`version` of the definition answered"}
    )
    division = ma.fields.String(validate=Regexp("^[0-9]{6}$"), metadata={"description": "for the help card", "example": "150603"})
    age_months = ma.fields.Integer(
        strict=True, validate=validate.Range(0, OLDEST), metadata={"description": "where norms or ages need it; not kept"}
    )
    sex = ma.fields.String(validate=validate.OneOf(SEXES), metadata={"description": "where norms need it; not kept"})
    seconds = ma.fields.Integer(
        strict=True, validate=validate.Range(min=0), metadata={"description": "how long the answering took; not kept"}
    )
    answers = ma.fields.List(ma.fields.Nested(AnswerIn), required=True, validate=validate.Length(max=MOST))

    class Meta:
        unknown = ma.RAISE


class LessonOut(ma.Schema):
    slug = ma.fields.String()
    title = ma.fields.String()


class PathOut(ma.Schema):
    slug = ma.fields.String()
    title = ma.fields.String()


class ReadingOut(ma.Schema):
    """What one scale amounts to."""

    code = ma.fields.String()
    name = ma.fields.String()
    value = ma.fields.Float(allow_none=True)
    minimum = ma.fields.Float(metadata={"description": "the least of what was asked"})
    maximum = ma.fields.Float(metadata={"description": "the most of what was asked"})
    standard = ma.fields.Float(allow_none=True, metadata={"description": "T score, where a norm with mean and sd fits"})
    band = ma.fields.Nested(BandOut, allow_none=True)


class DoubtOut(ma.Schema):
    kind = ma.fields.String(validate=validate.OneOf(rules.DOUBTS))
    text = ma.fields.String()


class ContributionOut(ma.Schema):
    scale = ma.fields.String()
    band = ma.fields.String(allow_none=True)


class ScoreOut(ma.Schema):
    slug = ma.fields.String()
    version = ma.fields.String()
    language = ma.fields.String()
    validated = ma.fields.Boolean()
    total = ma.fields.Float(allow_none=True, metadata={"description": "of the scale `total`"})
    maximum = ma.fields.Float(allow_none=True)
    band = ma.fields.Nested(
        BandOut, allow_none=True, metadata={"description": "null while a counted answer is missing, and when `critical`"}
    )
    scales = ma.fields.List(ma.fields.Nested(ReadingOut), metadata={"description": "all of them; no bands when `critical`"})
    contribution = ma.fields.List(
        ma.fields.Nested(ContributionOut), metadata={"description": "`bands` of a contribution, should it be wanted"}
    )
    validity = ma.fields.List(ma.fields.Nested(DoubtOut))
    message = ma.fields.String(allow_none=True, metadata={"description": "when `critical`: show it first, with the help card"})
    critical = ma.fields.Boolean(metadata={"description": "an answer calls for help at once"})
    missing = ma.fields.List(ma.fields.String(), metadata={"description": "items asked and not answered"})
    lessons = ma.fields.List(ma.fields.Nested(LessonOut))
    paths = ma.fields.List(
        ma.fields.Nested(PathOut), metadata={"description": "paths that begin with this band; none when `critical`"}
    )
    help = ma.fields.Nested(Card)


@blp.post("/checks/<string:slug>/score")
@blp.arguments(ScoreIn)
@blp.alt_response(200, schema=ScoreOut, description="The score with the help card; nothing of it is kept")
def score(payload: dict[str, Any], slug: str) -> Response:
    """Score answers

    Pure: nothing is stored, nothing is logged, and the same answers give the same result in every language. The help card
    comes with every answer, with every error too. An answer to an older version is refused as `old_version` (409): fetch
    the check again.
    """
    return jsonify(scored(payload, slug).answer)


class Scored(NamedTuple):
    """A scoring request, done."""

    answer: dict[str, Any]
    """What is sent back, as `ScoreOut` says."""
    result: scoring.Result
    definition: Definition
    item: Item
    language: str


def answers_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The body's answers by link id. Raises `Invalid` where an item is answered twice."""
    answers: dict[str, Any] = {}
    twice = []
    for row in payload["answers"]:
        if row["item"] in answers:
            twice.append(FieldError(f"answers.{row['item'][:80]}", "exists", {"what": row["item"][:80]}))
        answers[row["item"]] = next(row[key] for key in ("code", "codes", "number", "yes") if key in row)
    if twice:
        raise Invalid(twice)
    return answers


def scored(payload: Mapping[str, Any], slug: str) -> Scored:
    """Score a `ScoreIn` against the published check; help stands beside the answer as beside each failure (`beside`). Raises
    `NotFound`, `Conflict("old_version")`, `Invalid`."""
    item, definition = checks.published_check(reader().current, slug)
    if payload["version"] != definition.version:
        raise Conflict("old_version")
    answers, language = answers_of(payload), beside.language_of(item)
    about = scoring.About(**{name: payload.get(name) for name in ("age_months", "sex", "seconds")})
    result = scoring.score(definition, answers, about)
    alarm = beside.alarm(definition, item, answers, payload.get("division"))
    answer = _answer(result, definition, item, language, payload.get("division"), alarm)
    return Scored(answer, result, definition, item, language)


def _answer(
    result: scoring.Result, definition: Definition, item: Item, language: str, near: str | None, alarm: dict[str, Any]
) -> dict[str, Any]:
    """A result in the reader's language, with what to read and where help is."""
    snapshot, content = reader().current, dict(item.content or {})
    ears, last = content["register"]["audiences"], settings().language
    offered = []
    for name in content["lessons"]:
        texts, audience = snapshot.get("lesson", name), ears[0] if len(ears) == 1 else None
        one = catalogue.choose(texts, audience, (language,), last, store.now())
        if one:
            offered.append({"slug": name, "title": (one.content or {})["title"]})
    whole, band = result.reading(TOTAL), result.band
    return {
        "slug": item.key,
        "version": definition.version,
        "language": language,
        "validated": content["register"]["validated"],
        "total": result.total,
        "maximum": whole.maximum if whole else None,
        **alarm,
        "band": checks.band(band, language) if band else None,
        "scales": [
            {
                "code": r.scale.code,
                "name": checks.spoken(r.scale.name, language),
                "value": r.value,
                "minimum": r.minimum,
                "maximum": r.maximum,
                "standard": r.standard,
                "band": checks.band(r.band, language) if r.band else None,
            }
            for r in result.readings
        ],
        "contribution": [
            {"scale": r.scale.code, "band": r.counts_as.code if r.counts_as else None} for r in result.readings if r.scale.bands
        ],
        "validity": [{"kind": kind, "text": checks.doubt(kind, language)} for kind in result.validity],
        "missing": list(result.missing),
        "lessons": offered,  # beside a critical answer too: how to ask for help may be one of them
        "paths": paths.offered(snapshot, item.key, band.code, (language,), near, last) if band else [],
    }

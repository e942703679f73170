"""Keep a result under a receipt, look at what was kept, erase it.

A receipt stands in bodies only, never in an address, and no line of any log has it. Whatever is answered here, a failure too,
the help card is in it (`beside`).
"""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, make_response
from marshmallow import validate

from api import beside, front
from api import checks as asking
from api.guard import Blueprint
from api.shapes import Regexp, reader, settings
from api.support import Card
from content import checks, languages, results
from content.definition import Definition
from content.failures import NotFound
from content.results import Kept, Value

blp = Blueprint("results", __name__, url_prefix="/v1", description="Results that a student keeps, opened by a receipt alone")


# a neutral note: whoever finds it in the album sees that somebody has written a number down
TITLES = {"zh-Hans": "备忘", "en": "Note"}


def receipt_field(required: bool) -> ma.fields.String:
    """A receipt as typed; the verb reads it."""
    told = {"description": "28 digits; blanks, dashes and full-width digits do not matter", "example": "4821 0937 …"}
    return ma.fields.String(required=required, validate=validate.Length(1, 100), metadata=told)


class KeepIn(asking.ScoreIn):
    receipt = receipt_field(False)

    class Meta:
        unknown = ma.RAISE


class ReceiptIn(ma.Schema):
    receipt = receipt_field(True)
    division = ma.fields.String(validate=Regexp("^[0-9]{6}$"), metadata={"description": "for the help card", "example": "150603"})

    class Meta:
        unknown = ma.RAISE


class CardOut(ma.Schema):
    """A note to save, without a word of what it is for."""

    title = ma.fields.String(metadata={"example": "备忘"})
    lines = ma.fields.List(ma.fields.String())
    svg = ma.fields.String(metadata={"description": "the same as a picture, 600 x 320"})


class KeptOut(asking.ScoreOut):
    receipt = ma.fields.String(
        allow_none=True,
        metadata={"description": "opens it; told this once. Null when the body brought one", "example": "4821 0937 …"},
    )
    card = ma.fields.Nested(CardOut, allow_none=True, metadata={"description": "with a new receipt only"})
    expires_on = ma.fields.String(metadata={"description": "the day on which all under this receipt goes"})


class BandOut(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String(
        allow_none=True, metadata={"description": "null once that version of the check is not the published one any more"}
    )


class ValueOut(ma.Schema):
    code = ma.fields.String()
    name = ma.fields.String(metadata={"description": "may be empty"})
    value = ma.fields.Float(allow_none=True)
    minimum = ma.fields.Float()
    maximum = ma.fields.Float()
    band = ma.fields.Nested(BandOut, allow_none=True)


class ResultOut(ma.Schema):
    slug = ma.fields.String()
    name = ma.fields.String(metadata={"description": "in the reader's language; the slug once it is not published any more"})
    date = ma.fields.String()
    version = ma.fields.String()
    scales = ma.fields.List(ma.fields.Nested(ValueOut))


class PointOut(ma.Schema):
    date = ma.fields.String()
    value = ma.fields.Float()


class LineOut(ma.Schema):
    """One scale over time. Another version of a check has a line of its own, since it asks something else."""

    slug = ma.fields.String()
    version = ma.fields.String()
    code = ma.fields.String()
    points = ma.fields.List(ma.fields.Nested(PointOut))


class ResultsOut(ma.Schema):
    results = ma.fields.List(ma.fields.Nested(ResultOut), metadata={"description": "oldest first"})
    trend = ma.fields.List(ma.fields.Nested(LineOut))
    expires_on = ma.fields.String(metadata={"description": "the day on which all of it goes"})
    help = ma.fields.Nested(Card)


@blp.post("/checks/<string:slug>/keep")
@blp.arguments(KeepIn)
@blp.alt_response(201, schema=KeptOut, description="Scored and kept; the receipt, when it is new")
def keep(payload: dict[str, Any], slug: str) -> Response:
    """Score answers and keep the result

    As *score*, and the values and bands (never the answers) are sealed under a receipt: a new one, or the one in the body, to
    which the result is added. Only the receipt opens them. They go after 180 days without another result, or when told to; fifty
    are kept, the oldest makes way. The very same result twice on a day counts once.
    """
    scored = asking.scored(payload, slug)
    kept = results.of(settings(), slug, scored.definition, scored.result)
    receipt, expires_on = results.keep(settings(), kept, payload.get("receipt"))
    new = "receipt" not in payload
    told = {"receipt": receipt if new else None, "card": note(receipt) if new else None, "expires_on": expires_on.isoformat()}
    return make_response(jsonify({**scored.answer, **told}), 201)


@blp.post("/results")
@blp.arguments(ReceiptIn)
@blp.alt_response(200, schema=ResultsOut)
def show(payload: dict[str, Any]) -> Response:
    """What a receipt opens

    With the course of each scale. A receipt that was never given, was erased or has expired: 404 `unknown_receipt`, all alike.
    """
    found, expires_on = results.opened(settings(), payload["receipt"])
    shown = [result_out(kept) for kept in found]
    lines = [
        {**line._asdict(), "points": [{"date": on.isoformat(), "value": value} for on, value in line.points]}
        for line in results.trend(found)
    ]
    card = beside.card(payload.get("division"))
    return jsonify({"results": shown, "trend": lines, "expires_on": expires_on.isoformat(), "help": card})


@blp.post("/results/erase")
@blp.arguments(ReceiptIn)
@blp.alt_response(204, description="Erased")
def erase(payload: dict[str, Any]) -> Response:
    """Erase what a receipt opens

    All of it, at once. A second call answers 404 `unknown_receipt`.
    """
    results.erase(settings(), payload["receipt"])
    return make_response("", 204)


def result_out(kept: Kept) -> dict[str, Any]:
    """One result in the reader's language, as far as the check is still published. What bands say is told of the very version
    only: another may mean something else by the same code."""
    definition: Definition | None = None
    name, language = kept.slug, ""
    try:
        item, definition = checks.published_check(reader().current, kept.slug)
        language = beside.language_of(item)
        name = checks.spoken((item.content or {})["register"]["name"], language)
    except NotFound:
        pass
    return {
        "slug": kept.slug,
        "name": name,
        "date": kept.on.isoformat(),
        "version": kept.version,
        "scales": [value_out(value, definition, language, kept.version) for value in kept.scales],
    }


def value_out(value: Value, definition: Definition | None, language: str, version: str) -> dict[str, Any]:
    """One scale of a kept result."""
    scale = definition.scale.get(value.code) if definition else None
    texts: Mapping[str, Any] = {}
    if scale and definition and definition.version == version:
        texts = next((band.text for band in scale.bands if band.code == value.band), {})
    return {
        **value._asdict(),
        "name": checks.spoken(scale.name, language) if scale else "",
        "band": {"code": value.band, "text": checks.spoken(texts, language) or None} if value.band else None,
    }


def note(receipt: str) -> dict[str, Any]:
    """The note to save with a receipt."""
    title = TITLES[languages.pick(TITLES, front.wanted())]
    groups = receipt.split()
    lines = [" ".join(groups[:4]), " ".join(groups[4:])]
    rules = "".join(f'<path d="M48 {y}H552" stroke="#d5dbe3"/>' for y in (104, 164, 224, 284))
    written = "".join(f'<text x="48" y="{y}" font-size="38">{line}</text>' for y, line in zip((152, 212), lines, strict=True))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="320" viewBox="0 0 600 320">'
        '<rect width="600" height="320" rx="18" fill="#fdf9ec"/>'
        f'{rules}<g fill="#3b4252" font-family="ui-monospace, Menlo, Consolas, monospace">{written}</g>'
        f'<text x="48" y="80" font-size="30" fill="#6b7280" font-family="sans-serif">{title}</text></svg>'
    )
    return {"title": title, "lines": lines, "svg": svg}

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

from api.auth import actor, allowed, own
from api.guard import Blueprint, cursor_of, if_match, next_page, tagged
from api.shapes import Paging, Real, Regexp, Tag, by_language, reader
from content import checking, checks, fhir, rules
from content.checks import PURPOSES, RIGHTS, Check
from content.definition import CONTROLS, METHODS, OLDEST, SEXES, to_json
from content.failures import Forbidden
from content.published import ANY
from content.publishing import STATES
from content.vocabulary import AUDIENCES

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


class ItemIn(ma.Schema):
    """What stands around one question."""

    item = ma.fields.String(required=True, validate=validate.Length(1, 255))
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
    note = ma.fields.String(load_default="", validate=validate.Length(max=500), metadata={"description": "why, for the trail"})

    class Meta:
        unknown = ma.RAISE


class ImportOut(ma.Schema):
    outcome = ma.fields.String(validate=validate.OneOf(("new", "changed", "unchanged")))
    slug = ma.fields.String()
    messages = ma.fields.List(ma.fields.String(), metadata={"description": "what was missing and harmless: path: reason"})


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))


def working_copy(check: Check) -> dict[str, Any]:
    """A check as staff see it."""
    definition = check.parsed()
    return {
        "id": check.id,
        "slug": check.slug,
        "organisation": check.organisation,
        "revision": check.revision,
        **checks.stood(check),
        **check.values(),
        "definition_version": definition.version,
        "complete_languages": list(definition.languages),
        "definition": to_json(definition),
    }


def answered(check: Check) -> Response:
    """The working copy with its ETag."""
    reader().refresh()
    return tagged(working_copy(check), check.revision)


@blp.get("/checks")
@blp.arguments(StaffQuery, location="query")
@blp.response(200)
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


@blp.get("/checks/<string:slug>")
@blp.alt_response(200, description="The working copy; ETag is its revision")
def show_staff(slug: str) -> Response:
    """The working copy: questions, register entry, what is still missing"""
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
        raise UnsupportedMediaType()
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
    return tagged({"outcome": outcome, "messages": list(messages), "slug": slug}, check.revision, 200 if there else 201)


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

    def same(row: dict[str, Any]) -> dict[str, Any]:
        return row

    shapes: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "bands": band, "norms": norm, "subscales": scale, "critical": same, "validity": same,
        "items": lambda row: named(row, "explanation"),
    }  # fmt: skip
    laid: dict[str, Any] = {name: [shape(row) for row in payload.pop(name)] for name, shape in shapes.items() if name in payload}
    if "total" in payload:
        laid["total"] = named(payload.pop("total"), "name")
    return laid


@blp.patch("/checks/<string:slug>")
@blp.arguments(EditIn)
@blp.alt_response(200, description="The changed working copy")
def edit(payload: dict[str, Any], slug: str) -> Response:
    """Change the register entry, bands, critical answers, lessons

    Back to draft; readers keep the published version. Needs If-Match.
    """
    revision = if_match()
    check = own(Check, slug, "check.write")
    for name in ("name", "parental_notice"):
        if name in payload:
            payload[name] = by_language(payload[name])
    changed = checks.edit(check.id, actor().id, payload, laid=laid_of(payload), revision=revision)
    return tagged(working_copy(changed), changed.revision)


@blp.post("/checks/<string:slug>/submit")
@blp.alt_response(200, description="In review")
def submit(slug: str) -> Response:
    """Send to review; refused as `incomplete` while the register entry has a gap"""
    revision = if_match()
    return answered(checks.submit(own(Check, slug, "check.write").id, actor().id, revision))


@blp.post("/checks/<string:slug>/approve")
@blp.alt_response(200, description="Approved")
def approve(slug: str) -> Response:
    """Approve as a second person: never an author, nor an account an author made"""
    revision = if_match()
    return answered(checks.approve(own(Check, slug, "check.approve").id, actor().id, revision))


@blp.post("/checks/<string:slug>/publish")
@blp.alt_response(200, description="Published")
def publish(slug: str) -> Response:
    """Publish what was approved"""
    revision = if_match()
    return answered(checks.publish(own(Check, slug, "check.publish").id, actor().id, revision))


@blp.post("/checks/<string:slug>/withdraw")
@blp.arguments(NoteIn)
@blp.alt_response(200, description="Recalled")
def withdraw(payload: dict[str, Any], slug: str) -> Response:
    """Recall: no phone gets it from its next request on"""
    revision = if_match()
    return answered(checks.withdraw(own(Check, slug, "check.publish").id, actor().id, revision, payload["note"]))

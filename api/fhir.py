"""Self-checks for other systems, in FHIR R4: the published questionnaire out, a response in, scored, and out again.

As with `POST /v1/checks/{slug}/score` nothing is stored or logged, and the help card is in every answer, failures included.
"""

import json
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, request
from werkzeug.exceptions import UnsupportedMediaType

from api import beside, front
from api import checks as asking
from api.guard import Blueprint, strict_json
from api.shapes import reader
from content import checks, fhirout, fhirresponse
from content.definition import OLDEST
from content.failures import invalid

blp = Blueprint("fhir", __name__, url_prefix="/v1", description="Self-checks in FHIR R4")

MEDIA = "application/fhir+json"
BODY = {
    "required": True,
    "content": {MEDIA: {"schema": {"type": "object", "description": "an R4 QuestionnaireResponse"}}},
}


class ClaimOut(ma.Schema):
    scale = ma.fields.String()
    claimed = ma.fields.Float(metadata={"description": "what the response says"})
    computed = ma.fields.Float(allow_none=True, metadata={"description": "what its answers amount to"})
    agrees = ma.fields.Boolean()


class ResponseScoreOut(asking.ScoreOut):
    claims = ma.fields.List(ma.fields.Nested(ClaimOut), metadata={"description": "totals that the response brought"})
    response = ma.fields.Dict(metadata={"description": "the completed QuestionnaireResponse, with totals as computed"})


class AboutIn(ma.Schema):
    """What a score may need beside the answers; none of it is kept."""

    division = asking.ScoreIn._declared_fields["division"]
    age_months = ma.fields.Integer(validate=ma.validate.Range(0, OLDEST))
    sex = asking.ScoreIn._declared_fields["sex"]

    class Meta:
        unknown = ma.RAISE


@blp.get("/checks/<string:slug>/fhir")
@blp.alt_response(200, schema={"type": "object"}, content_type=MEDIA, description="An R4 Questionnaire")
def show(slug: str) -> Response:
    """A published self-check as an R4 Questionnaire

    Options carry `ordinalValue`, totals SDC's calculatedExpression. What R4 has no place for (bands, norms, critical answers)
    is JSON in the extension `urn:xinqiao:fhir:rules`; read again, it is the same version.
    """
    item, definition = checks.published_check(reader().current, slug)
    content = item.content or {}
    register = {**content["register"], "published_at": content["published_at"]}
    made = fhirout.write_questionnaire(definition, register, beside.language_of(item))
    front.keep()
    return Response(json.dumps(made, ensure_ascii=False), content_type=MEDIA)


@blp.post("/checks/<string:slug>/fhir/score")
@blp.arguments(AboutIn, location="query")
@blp.doc(requestBody=BODY)
@blp.alt_response(200, schema=ResponseScoreOut, description="The score with the help card; nothing of it is kept")
def score(query: dict[str, Any], slug: str) -> Response:
    """Score a QuestionnaireResponse

    A total in it is never taken: it is compared with what the answers amount to (`claims`). Free text in it is dropped.
    """
    if request.mimetype not in (MEDIA, "application/json"):
        raise UnsupportedMediaType(f"{MEDIA}, application/json")
    resource = strict_json(request.get_data(cache=True))
    if not isinstance(resource, dict):
        raise invalid("body", "wrong_type", reason="QuestionnaireResponse")
    _, definition = checks.published_check(reader().current, slug)
    found = fhirresponse.read_response(definition, resource)
    rows = [{"item": link_id, **_row(value)} for link_id, value in found.answers.items()]
    done = asking.scored({**query, "version": definition.version, "answers": rows}, slug)
    values = {reading.scale.code: reading.value for reading in done.result.readings}
    claims = [
        {"scale": code, "claimed": claim, "computed": values[code], "agrees": claim == values[code]}
        for code, claim in found.claims.items()
    ]
    completed = fhirresponse.write_response(definition, found.answers, done.result, done.language)
    return jsonify({**done.answer, "claims": claims, "response": completed})


def _row(value: Any) -> dict[str, Any]:
    """An answer as `ScoreIn` has it."""
    if isinstance(value, bool):
        return {"yes": value}
    if isinstance(value, str):
        return {"code": value}
    return {"codes": value} if isinstance(value, list) else {"number": value}

"""Released tables, and sampled rounds of a quiz.

`content.statistics` says how a table is protected. Whoever has `indicator.read` for a division reads its tables, of whatever
organisation they are: they single out nobody. What is not released yet has no route.
"""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor, own
from api.errors import Messages
from api.guard import Blueprint, cursor_of, next_page
from api.shapes import DIVISION, SLUG, Paging, codes, reader, settings
from content import rounds, statistics
from content.checks import Check
from content.failures import Forbidden, NotFound
from content.rounds import RoundRow
from content.statistics import Release
from content.vocabulary import STAGES

staff = Blueprint("staff_statistics", __name__, url_prefix="/v1/staff", description="Released numbers, and rounds of a quiz")
NOTE = {  # the same whether nobody or 29 persons are there
    "zh-Hans": "一周结束后，并且满 30 人时，才会生成统计表；不足 30 人的，并入下一周。少于 10 人的数字从不单独显示。",
    "en": "A table is made once a week has ended and 30 people are in it, else together with the next; "
    "no number of fewer than 10 is ever shown.",
}


class GroupOut(ma.Schema):
    groups = ma.fields.List(ma.fields.String(), metadata={"description": "codes of groups told as one", "example": ["junior"]})
    n = ma.fields.Integer(metadata={"description": "persons, 10 or more"})


class ScaleRowOut(ma.Schema):
    groups = ma.fields.List(ma.fields.String(), metadata={"description": "codes of groups told as one"})
    counts = ma.fields.List(ma.fields.Integer(), metadata={"description": "persons by `columns`, each 10 or more"})


class ScaleOut(ma.Schema):
    scale = ma.fields.String()
    columns = ma.fields.List(ma.fields.List(ma.fields.String()), metadata={"description": "codes of bands told as one"})
    rows = ma.fields.List(ma.fields.Nested(ScaleRowOut))


class ShareOut(GroupOut):
    least = ma.fields.Integer(metadata={"description": "right of the core questions asked, in percent, at least"})
    most = ma.fields.Integer(
        metadata={"description": "at most; of fewer than 100 persons 5 above or more, of more often the same as `least`"}
    )


class ReturnedOut(ma.Schema):
    bucket = ma.fields.String(metadata={"description": "age of the installation in days", "example": "30"})
    percent = ma.fields.Integer(metadata={"description": "of those of bucket 0"})


class ReleaseOut(ma.Schema):
    id = ma.fields.String()
    subject = ma.fields.String(
        metadata={
            "description": "check:SLUG@VERSION, quiz:… (open to all), round:ID (sampled), habit:…, lesson:SLUG, "
            "notice:ID:opened, notice:ID:acted, return",
            "example": "habit:talk_15",
        }
    )
    division = ma.fields.String()
    number = ma.fields.Integer(metadata={"description": "1, 2, … of this subject and division; nobody is in two"})
    from_week = ma.fields.String(metadata={"description": "ISO week of the first answer in it", "example": "2026-W47"})
    to_week = ma.fields.String(metadata={"description": "ISO week of the last"})
    made_week = ma.fields.String()
    n = ma.fields.Integer(metadata={"description": "persons, 30 or more"})
    groups = ma.fields.List(ma.fields.Nested(GroupOut))
    scales = ma.fields.List(ma.fields.Nested(ScaleOut))
    shares = ma.fields.List(ma.fields.Nested(ShareOut), metadata={"description": "awareness, of a quiz or a round"})
    returned = ma.fields.List(ma.fields.Nested(ReturnedOut), metadata={"description": "of `return`"})


class ReleasesOut(ma.Schema):
    note = ma.fields.Nested(Messages, metadata={"description": "when tables are made, always the same words"})
    items = ma.fields.List(ma.fields.Nested(ReleaseOut))
    next_cursor = ma.fields.String(allow_none=True)


class ReleaseQuery(Paging):
    subject = ma.fields.String(validate=validate.Length(1, 120))
    division = ma.fields.String(validate=DIVISION)


class RoundIn(ma.Schema):
    slug = ma.fields.String(required=True, validate=SLUG, metadata={"description": "a published quiz"})
    division = ma.fields.String(required=True, validate=DIVISION, metadata={"description": "a county", "example": "150603"})
    stages = codes(STAGES)
    size = ma.fields.Integer(required=True, strict=True, validate=validate.Range(*rounds.SIZE))
    closes_on = ma.fields.Date(
        required=True, metadata={"description": "last day to answer, in the district; at most 12 weeks from today"}
    )

    class Meta:
        unknown = ma.RAISE


class RoundOut(ma.Schema):
    id = ma.fields.String()
    subject = ma.fields.String(metadata={"description": "its tables stand under this"})
    slug = ma.fields.String()
    version = ma.fields.String(metadata={"description": "of the definition"})
    division = ma.fields.String()
    groups = ma.fields.List(ma.fields.String())
    size = ma.fields.Integer()
    unused = ma.fields.Integer(allow_none=True, metadata={"description": "codes, at most: told in tens; null once it has closed"})
    closes_on = ma.fields.String(metadata={"description": "local date"})


class NewRoundOut(RoundOut):
    codes = ma.fields.List(ma.fields.String(), metadata={"description": "one for each person; shown this once"})


class RoundsOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(RoundOut))
    next_cursor = ma.fields.String(allow_none=True)


@staff.get("/statistics")
@staff.arguments(ReleaseQuery, location="query")
@staff.alt_response(200, schema=ReleasesOut)
def index(query: dict[str, Any]) -> Response:
    """Released tables, the latest weeks first

    A table never changes. Groups and bands that stand together in one list are told as one, since alone they would be fewer than
    ten persons, or would let such a number be found. Of scales over the same items only one is told, the total first:
    give bands to the subscales alone to have theirs. Of divisions that the asker may not see there is nothing.
    """
    week, key = cursor_of(query, 2)
    found = statistics.tables(query.get("subject", ""), query.get("division", ""), (week, key))
    mine = (one for one in found if actor().may("indicator.read", None, one.division))
    return jsonify({"note": NOTE, **next_page(mine, query["limit"], lambda one: [one.to_week, one.id], shown)})


def shown(found: Release) -> dict[str, Any]:
    """A release as it is answered."""
    plain = {name: getattr(found, name) for name in ReleaseOut._declared_fields if name != "returned"}
    rows = {name: [dict(row) for row in plain[name]] for name in ("groups", "scales", "shares")}
    returned = [{"bucket": bucket, "percent": percent} for bucket, percent in statistics.returned(found)]
    return {**plain, **rows, "returned": returned}


@staff.post("/rounds")
@staff.arguments(RoundIn)
@staff.alt_response(201, schema=NewRoundOut)
def create(payload: dict[str, Any]) -> Response:
    """Make a sampled round of a quiz and its one-time codes

    The codes are shown this once and kept nowhere here. Give each person of the sample one; it works once, until `closes_on`.
    """
    division, closes_on = payload["division"], payload["closes_on"]
    own(Check, payload["slug"], "check.publish")
    if not actor().may("check.publish", None, division):
        raise Forbidden()
    made, secrets = rounds.make(
        settings(),
        reader().current,
        payload["slug"],
        division,
        payload["size"],
        closes_on,
        actor().id,
        payload.get("stages", ()),
    )
    response = jsonify({**round_out(made), "codes": secrets})
    response.status_code = 201
    response.headers["Location"] = f"/v1/staff/rounds/{made.id}"
    return response


def round_out(found: RoundRow) -> dict[str, Any]:
    """A round as staff see it."""
    return {
        "id": found.id,
        "subject": f"round:{found.id}",
        "slug": found.slug,
        "version": found.version,
        "division": found.division,
        "groups": list(found.groups),
        "size": found.size,
        "unused": rounds.unused(settings(), found),
        "closes_on": found.closes_on,
    }


@staff.get("/rounds")
@staff.arguments(Paging, location="query")
@staff.alt_response(200, schema=RoundsOut)
def rounds_index(query: dict[str, Any]) -> Response:
    """Rounds of the divisions that the asker may see, the last to close first"""
    day, key = cursor_of(query, 2)
    mine = (one for one in rounds.listed((day, key)) if actor().may("check.read", None, one.division))
    return jsonify(next_page(mine, query["limit"], lambda one: [one.closes_on, one.id], round_out))


@staff.get("/rounds/<string:round_id>")
@staff.alt_response(200, schema=RoundOut)
def show(round_id: str) -> Response:
    """One round, and about how many of its codes are unused"""
    found = rounds.find(round_id)
    if found is None or not actor().may("check.read", None, found.division):
        raise NotFound(what=round_id)
    return jsonify(round_out(found))

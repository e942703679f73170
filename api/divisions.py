"""Divisions: codes and names, from the table in this process."""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.guard import Blueprint, page
from api.shapes import Paging
from content import divisions
from content.divisions import Division
from content.failures import invalid

blp = Blueprint("divisions", __name__, url_prefix="/v1", description="Administrative divisions (GB/T 2260)")
DAY = 86400


class DivisionOut(ma.Schema):
    code = ma.fields.String(metadata={"example": "500114"})
    name = ma.fields.String(metadata={"example": "黔江区"})
    type = ma.fields.String(metadata={"example": "市辖区", "description": "empty for a retired code"})
    level = ma.fields.String(metadata={"description": "province, prefecture or county"})
    parent = ma.fields.String(metadata={"example": "500000", "description": "empty for a province; never cut it from digits"})
    retired = ma.fields.Boolean()
    replaced_by = ma.fields.String(allow_none=True, metadata={"description": "the code that took over, where it is certain"})


class Above(ma.Schema):
    code = ma.fields.String()
    name = ma.fields.String()


class DivisionDetail(DivisionOut):
    lineage = ma.fields.List(
        ma.fields.Nested(Above), metadata={"description": "the division in force, its parent, …, its province"}
    )


class DivisionPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(DivisionOut))
    next_cursor = ma.fields.String(allow_none=True)


class DivisionsQuery(Paging):
    parent = ma.fields.String(validate=validate.Length(max=6), load_default="", metadata={"example": "500000"})
    name = ma.fields.String(
        validate=validate.Length(1, 40), metadata={"description": "part of a name, at any depth under `parent`"}
    )
    limit = ma.fields.Integer(load_default=100, validate=validate.Range(1, 500))


@blp.get("/divisions")
@blp.arguments(DivisionsQuery, location="query")
@blp.alt_response(200, schema=DivisionPage)
def index(query: dict[str, Any]) -> Response:
    """Divisions directly under `parent`, by code; without it the provinces; with `name`, those found by name"""
    parent = query["parent"]
    if parent not in {"", divisions.COUNTRY} and not divisions.known(parent):
        raise invalid("parent", "unknown_reference", value=parent)
    found = divisions.search(query["name"], parent, 500) if "name" in query else divisions.children(parent)
    result = page(sorted(found), query.get("cursor"), query["limit"], lambda row: [row.code])
    result["items"] = [shown(row) for row in result["items"]]
    front.keep(max_age=DAY)
    return jsonify(result)


@blp.get("/divisions/<string:code>")
@blp.alt_response(200, schema=DivisionDetail)
def show(code: str) -> Response:
    """One division, retired ones too, with the line up to its province"""
    row = divisions.get(code)
    line = [{"code": above, "name": divisions.get(above).name} for above in divisions.lineage(code)]
    front.keep(max_age=DAY)
    return jsonify({**shown(row), "lineage": line})


def shown(row: Division) -> dict[str, Any]:
    """A division as it is answered."""
    return dict(row._asdict())

"""QR codes and posters of courses: what hangs on a wall leads to the share page (`api.sharing`), by its public address.

A poster is the page's facts that still hold when the paper hangs. What is by invitation needs `?invitation=CODE`, which its QR
code and poster then carry. A booking's own QR code opens the booking and is for its holder alone; the one for the door, which
opens nothing, is `api.attendance`'s.
"""

import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
import segno
from flask import Response
from markupsafe import Markup
from marshmallow import validate

from api.guard import Blueprint
from api.shapes import Tag, settings
from api.sharewords import Reading, reading_of
from api.sharing import Found, about, facts, found, keep, row, written
from content import printing
from content.failures import NotFound

blp = Blueprint("posters", __name__, url_prefix="/v1", description="QR codes and posters of courses")

CODE = re.compile("[0-9A-Za-z]{5}-[0-9A-Za-z]{5}-[0-9A-Za-z]{5}")


class Invited(ma.Schema):
    invitation = ma.fields.String(
        load_default="", validate=validate.Length(max=40), metadata={"description": "the code of a course by invitation"}
    )


class PosterQuery(Invited):
    language = Tag(load_default="", metadata={"description": "instead of Accept-Language", "example": "zh-Hans"})


def square(address: str) -> str:
    """A QR code of level M with its quiet zone, as SVG without a size of its own."""
    out = io.BytesIO()
    segno.make_qr(address, error="m").save(
        out, kind="svg", border=printing.QUIET, xmldecl=False, omitsize=True, dark="#000", light="#fff", nl=False
    )
    return out.getvalue().decode()


def qr(noun: str, key: str, query: Mapping[str, Any]) -> Response:
    """The QR code of a page's address."""
    one = found(noun, key, query["invitation"])
    keep(one)
    return Response(square(one.page), content_type="image/svg+xml")


def poster(noun: str, key: str, query: Mapping[str, Any]) -> Response:
    """A poster as a page of A4."""
    one = found(noun, key, query["invitation"])
    reading = reading_of(query["language"])
    keep(one)
    values = {**about(one, reading), "quiet": True}
    values["rows"] = posted(one, values, reading)
    return written("poster.html", "poster", {**values, "code": Markup(square(one.page))})  # noqa: S704  segno's own


def posted(one: Found, values: Mapping[str, Any], reading: Reading) -> list[dict[str, Any]]:
    """The facts that still hold when the paper hangs: no seats; of a series its coming sessions."""
    rows = facts(one, reading)
    dates = [reading.own(f"{s['when']} {s['name']['text']}") for s in values["sessions"] if not s["off"]]
    return row(reading.say("when"), *dates) + rows


def poster_pdf(noun: str, key: str, query: Mapping[str, Any]) -> Response:
    """A poster as a PDF, its font inside."""
    one = found(noun, key, query["invitation"])
    reading = reading_of(query["language"])
    values, say = about(one, reading), reading.say
    lines = [printing.Line(values["above"]["text"], 17, colour=printing.MARK)] if values["above"] else []
    lines.append(printing.Line(values["name"]["text"], 36, bold=True))
    lines += [printing.Line(head, 24, bold=True, colour=printing.WARN) for kind, head, _ in values["notes"] if kind]
    lines.append(printing.Line(values["summary"]["text"], 14, gap=4))
    for fact in posted(one, values, reading):
        lines.append(printing.Line(fact["label"], 11, colour=printing.GREY, gap=5))
        lines += [printing.Line(part["text"], 20 if fact["strong"] else 16, bold=fact["strong"], gap=0) for part in fact["parts"]]
    keep(one)
    at = max(one.item.at, datetime(2000, 1, 1, tzinfo=UTC))
    under = (say("scan"), say("no_account"), say("may_change"))
    made = printing.pdf(lines, title=values["title"], at=at, qr=one.page, under_qr=under, language=reading.ui)
    response = Response(made, content_type="application/pdf")
    response.headers["Content-Disposition"] = f'inline; filename="poster-{key}.pdf"' if key.isascii() else "inline"
    return response


@blp.get("/bookings/<string:code>/qr.svg")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def booking_qr(code: str) -> Response:
    """A booking's code as a QR code

    It leads to the page that opens the booking; the code follows after `#`, which browsers send to nobody. Of any code that could
    be one: whether it is one is not told.
    """
    if not CODE.fullmatch(code):
        raise NotFound(what="booking")
    return Response(square(settings().public(f"/b#{code.upper()}")), content_type="image/svg+xml")


@blp.get("/sessions/<string:session_id>/qr.svg")
@blp.arguments(Invited, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def session_qr(query: dict[str, Any], session_id: str) -> Response:
    """The QR code of a session's share page"""
    return qr("session", session_id, query)


@blp.get("/courses/<string:course_id>/qr.svg")
@blp.arguments(Invited, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def course_qr(query: dict[str, Any], course_id: str) -> Response:
    """The QR code of a series' share page"""
    return qr("series", course_id, query)


@blp.get("/sessions/<string:session_id>/poster")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="text/html", description="A page of A4 to print")
def session_poster(query: dict[str, Any], session_id: str) -> Response:
    """A session's poster as a page, in any script that the browser has"""
    return poster("session", session_id, query)


@blp.get("/courses/<string:course_id>/poster")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="text/html", description="A page of A4 to print")
def course_poster(query: dict[str, Any], course_id: str) -> Response:
    """A series' poster as a page, with its coming sessions"""
    return poster("series", course_id, query)


@blp.get("/sessions/<string:session_id>/poster.pdf")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string", "format": "binary"}, content_type="application/pdf", description="A4")
def session_poster_pdf(query: dict[str, Any], session_id: str) -> Response:
    """A session's poster as a PDF

    Set in Noto Sans SC: Chinese, Latin and Cyrillic. For a poster in traditional Mongolian print the page.
    """
    return poster_pdf("session", session_id, query)


@blp.get("/courses/<string:course_id>/poster.pdf")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string", "format": "binary"}, content_type="application/pdf", description="A4")
def course_poster_pdf(query: dict[str, Any], course_id: str) -> Response:
    """A series' poster as a PDF, with its coming sessions"""
    return poster_pdf("series", course_id, query)

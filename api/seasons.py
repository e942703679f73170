"""Seasons: which one a reader is in and what to show first; and the desk where their local dates are confirmed."""

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import acting, actor
from api.guard import Blueprint, if_match, tagged
from api.notices import Segment, place, preferred
from api.shapes import DAYS, DIVISION, reader, settings, text
from api.support import CardLine
from content import catalogue, divisions, helpcard, languages, store
from content.checks import catalogue as catalogue_of_checks
from content.failures import Forbidden, NotFound, invalid
from content.vocabulary import SEASONS, Stage
from notifications import seasons
from notifications.seasons import SeasonDate

blp = Blueprint("seasons", __name__, url_prefix="/v1", description="What season it is, and what to show first")
staff = Blueprint("staff_seasons", __name__, url_prefix="/v1/staff", description="Confirmed local dates of seasons")

LINES = 3
UNUSUAL = timedelta(days=62)


class SeasonsQuery(Segment):
    on = ma.fields.Date(format="iso", validate=DAYS, metadata={"description": "a local day; today when left out"})


class SeasonOut(ma.Schema):
    code = ma.fields.String()
    name = ma.fields.String()
    title = ma.fields.String()
    text = ma.fields.String()
    first = ma.fields.String(metadata={"example": "2027-06-07"})
    last = ma.fields.String()
    provisional = ma.fields.Boolean(metadata={"description": "nobody has confirmed the local date yet"})
    starts_in = ma.fields.Integer(metadata={"description": "days; 0 or less while it runs"})
    lessons = ma.fields.List(ma.fields.String(), metadata={"description": "slugs of those published for these readers"})
    checks = ma.fields.List(ma.fields.String(), metadata={"description": "slugs of those published for these readers"})
    lines = ma.fields.List(
        ma.fields.Nested(CardLine), metadata={"description": "at most three help lines that go with it, open ones first"}
    )
    grades = ma.fields.List(ma.fields.String(), metadata={"description": "stages that it is for; empty: every one"})


class SeasonsOut(ma.Schema):
    on = ma.fields.String()
    known_until = ma.fields.String()
    items = ma.fields.List(ma.fields.Nested(SeasonOut))


@blp.get("/seasons")
@blp.arguments(SeasonsQuery, location="query")
@blp.alt_response(200, schema=SeasonsOut)
def index(query: dict[str, Any]) -> Response:
    """The seasons a reader is in or about to enter, and what to show first

    Its lessons, its self-checks and up to three help lines, as they are open now (of another day than today: at the time of the
    season's push).
    """
    zone, now = ZoneInfo(settings().zone), store.now()
    today = now.astimezone(zone).date()
    on = query.get("on") or today
    snapshot, wanted, where = reader().current, preferred(query), place(query)
    stage = Stage.parse(query["stage"], "stage") if query["stage"] else None
    found = [
        one
        for one in seasons.current(on, where, query["stage"], seasons.of_snapshot(snapshot))
        if query["audience"] in {"", "staff", *one.season.audiences}
    ]
    checks = {item.key for item in catalogue_of_checks(snapshot, query["audience"], stage)}
    language = languages.pick(("zh-Hans", "en"), wanted, settings().language)

    @functools.cache
    def lines(at: datetime) -> list[dict[str, Any]]:
        return helpcard.card(snapshot, where, at, language)["lines"]  # type: ignore[no-any-return]

    def shown(one: seasons.Current) -> dict[str, Any]:
        at = now if on == today else datetime.combine(on, one.season.at, zone)
        return {
            "code": one.season.code,
            "name": getattr(SEASONS[one.season.code], "en" if language == "en" else "zh"),
            "title": text(one.season.title, wanted),
            "text": text(one.season.text, wanted),
            "first": one.span.first.isoformat(),
            "last": one.span.last.isoformat(),
            "provisional": one.span.provisional,
            "starts_in": one.starts_in,
            "lessons": catalogue.readable(snapshot, one.season.lessons, query["audience"], stage),
            "checks": [slug for slug in one.season.checks if slug in checks],
            "lines": [line for line in lines(at) if line["kind"] in one.season.help][:LINES],
            "grades": list(one.season.stages),
        }

    soon = abs((on - today).days) <= 1  # what is open now changes by the minute, and tomorrow is today in a while
    front.keep(*catalogue.holds(snapshot, "lesson", most=60 if soon else 3600))
    items = [shown(one) for one in found]
    return jsonify({"on": on.isoformat(), "known_until": seasons.known_until().isoformat(), "items": items})


# --- staff -----------------------------------------------------------------------------------------------------------


class SeasonDateIn(ma.Schema):
    first = ma.fields.Date(format="iso", required=True, validate=DAYS)
    last = ma.fields.Date(format="iso", required=True, validate=DAYS)
    despite_unusual = ma.fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "the first day is more than two months from the usual one, and that is right"},
    )


class SeasonDateOut(ma.Schema):
    """A confirmed date as staff see it."""

    id = ma.fields.String()
    revision = ma.fields.Integer()
    division = ma.fields.String(metadata={"description": "empty: the whole country"})
    code = ma.fields.String()
    year = ma.fields.Integer()
    first = ma.fields.String(metadata={"example": "2027-06-20"})
    last = ma.fields.String()
    confirmed_by = ma.fields.String(metadata={"description": "id"})


class SeasonDatesOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SeasonDateOut))
    next_cursor = ma.fields.String(allow_none=True)


class NewSeasonDate(SeasonDateIn):
    code = ma.fields.String(required=True, validate=validate.OneOf(list(SEASONS)))
    year = ma.fields.Integer(
        strict=True,
        validate=validate.Range(2000, 2100),
        metadata={"description": "of the season; that of `first` when left out. One of January may begin in the December before"},
    )
    division = ma.fields.String(required=True, validate=DIVISION, metadata={"description": "000000: the whole country"})


def dated(record: SeasonDate) -> dict[str, Any]:
    """A confirmed date as staff see it."""
    names = ("id", "revision", "division", "code", "year", "first", "last", "confirmed_by")
    return {name: getattr(record, name) for name in names}


@staff.get("/seasons")
@staff.alt_response(200, schema=SeasonDatesOut)
def index_staff() -> Response:
    """Confirmed season dates"""
    rows = [SeasonDate.of(raw) for raw in SeasonDate.rows().find({}).sort([("year", -1), ("code", 1)]).limit(1000)]
    return jsonify({"items": [dated(row) for row in rows], "next_cursor": None})


@staff.post("/seasons")
@staff.arguments(NewSeasonDate)
@staff.alt_response(201, schema=SeasonDateOut, description="The date is confirmed and public")
def confirm(payload: dict[str, Any]) -> Response:
    """Confirm when a season is in a division, in the year of its first day"""
    where = "" if payload["division"] == divisions.COUNTRY else payload["division"]
    if not acting("notice.write")(where):
        raise Forbidden()
    look_again(payload, payload["code"], payload.get("year"))
    record = seasons.confirm(where, payload["code"], payload["first"], payload["last"], actor().id, payload.get("year"))
    reader().refresh()
    return tagged(dated(record), record.revision, 201)


@staff.patch("/seasons/<string:key>")
@staff.arguments(SeasonDateIn)
@staff.alt_response(200, schema=SeasonDateOut, description="The date is corrected")
def correct(payload: dict[str, Any], key: str) -> Response:
    """Correct a confirmed date within its year. Needs If-Match."""
    revision = if_match()
    known = own(key)
    look_again(payload, known.code, known.year)
    record = seasons.correct(key, payload["first"], payload["last"], actor().id, revision)
    reader().refresh()
    return tagged(dated(record), record.revision)


@staff.delete("/seasons/<string:key>")
@staff.alt_response(204, description="The date is taken back")
def withdraw(key: str) -> Response:
    """Take back a date that was confirmed wrongly

    What the city, the province or the country has confirmed counts again; without that the season is provisional, and none of its
    notices is sent. Needs If-Match.
    """
    revision = if_match()
    own(key)
    seasons.withdraw(key, actor().id, revision)
    reader().refresh()
    return Response(status=204)


def look_again(payload: Mapping[str, Any], code: str, year: int | None) -> None:
    """Raises `Invalid("unusual_date")` for a first day far from the usual one, unless it was said that it is: a mistyped month
    would move a whole campaign, and one person is enough to confirm it."""
    first = payload["first"]
    usual = [seasons.season(code, one).first for one in ([year] if year else [first.year, first.year + 1])]
    nearest = min(usual, key=lambda day: abs(day - first))
    if abs(nearest - first) > UNUSUAL and not payload["despite_unusual"]:
        raise invalid("first", "unusual_date", usual=nearest.isoformat())


def own(key: str) -> SeasonDate:
    """The confirmed date, for who may confirm dates where it holds. Raises `NotFound`, `Forbidden`."""
    raw = SeasonDate.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    if not acting("notice.write")(raw["division"]):
        raise Forbidden()
    return SeasonDate.of(raw)

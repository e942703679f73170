"""Coverage of family education: shares against the plan, what each station and school has held, and what is still missing.

Whoever may read courses for a division as a whole (`staff.areas`), or has `indicator.read` for it, sees all its places: they are
counts of events, and name no person. The staff of a station or school see their own row. A year's answer is counted when it is
asked for.
"""

from collections.abc import Collection, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor
from api.errors import Messages
from api.guard import Blueprint, if_match, page, tagged
from api.shapes import Paging, Regexp, settings
from content import coverage, coveragepages, coveragetargets, divisions, store
from content import staff as people
from content.coverage import Coverage, Row, Sums, Total
from content.coveragepages import RULES, SOURCES, WORDS, place_name
from content.coveragetargets import FIELDS, RANGES, TERMS, YEARS, CoverageTarget, Target
from content.failures import Forbidden, NotFound, invalid
from content.vocabulary import Label

staff = Blueprint("staff_coverage", __name__, url_prefix="/v1/staff", description="Coverage of family education")
DAY = Regexp("^(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")


class CoverageQuery(ma.Schema):
    division = ma.fields.String(
        load_default=str,
        validate=Regexp("^[0-9]{6}$"),
        metadata={"description": "with all below it; left out: the asker's own. 000000: the country", "example": "150603"},
    )
    year = ma.fields.Integer(validate=validate.Range(*YEARS), metadata={"description": "left out: this year"})
    term = ma.fields.String(
        load_default=str,
        validate=validate.OneOf(TERMS),
        metadata={"description": "that begins in the year; left out: the one that began last"},
    )


class CoverageList(CoverageQuery, Paging):
    lacking = ma.fields.Boolean(
        load_default=False, metadata={"description": "only places that lack something; `items` alone is filtered"}
    )


class TableQuery(CoverageQuery):
    table = ma.fields.String(
        load_default="places",
        validate=validate.OneOf(["places", "shares"]),
        metadata={"description": "a row for each place, or for each indicator of the division and of those below it"},
    )


class SumsOut(ma.Schema):
    sessions = ma.fields.Integer()
    class_hours = ma.fields.Integer()
    people = ma.fields.Integer()


class ShareOut(ma.Schema):
    code = ma.fields.String(metadata={"example": "mental_health"})
    numerator = ma.fields.Integer()
    denominator = ma.fields.Integer()
    percent = ma.fields.Float(allow_none=True, metadata={"description": "rounded down to a tenth; null: of nothing"})
    target = ma.fields.Integer(metadata={"description": "percent"})
    missing = ma.fields.Integer(metadata={"description": "how many more the numerator takes to meet the target"})


class TotalShareOut(ShareOut):
    label = ma.fields.Nested(Messages)
    numerator_is = ma.fields.Nested(Messages)
    denominator_is = ma.fields.Nested(Messages)


class HeldOut(ma.Schema):
    kind = ma.fields.String(metadata={"description": "station, school, kindergarten; other: held by none of them"})
    places = ma.fields.Integer(metadata={"description": "how many there are; 0 for other"})
    year = ma.fields.Nested(SumsOut)
    term = ma.fields.Nested(SumsOut)


class BelowOut(ma.Schema):
    division = ma.fields.String(metadata={"description": "the division's own code: what belongs to none below it"})
    name = ma.fields.String()
    held = ma.fields.List(ma.fields.Nested(HeldOut))
    shares = ma.fields.List(ma.fields.Nested(ShareOut))


class ShortOut(ma.Schema):
    sessions = ma.fields.Integer(metadata={"description": "of a place marked as able: sessions of the year"})
    trainings = ma.fields.Integer(metadata={"description": "of a school or kindergarten: sessions for parents"})
    families = ma.fields.Integer(metadata={"description": "of one that says how many it has: not reached, at least"})
    class_hours = ma.fields.Integer(metadata={"description": "of a school: class-hours of the term"})
    classes = ma.fields.Integer(metadata={"description": "of a school: spells of weeks, over by today, without a class"})


class CoverageRow(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String()
    kind = ma.fields.String()
    division = ma.fields.String()
    division_name = ma.fields.String()
    able = ma.fields.Boolean()
    parents = ma.fields.Integer(allow_none=True, metadata={"description": "families; null: not known"})
    year = ma.fields.Nested(SumsOut)
    term = ma.fields.Nested(SumsOut)
    mental_sessions = ma.fields.Integer(metadata={"description": "of the year, on a mental-health topic"})
    trainings = ma.fields.Integer(metadata={"description": "sessions of the year for parents"})
    trained = ma.fields.Integer(metadata={"description": "people at them"})
    planned = ma.fields.Integer(metadata={"description": "sessions of the year that are published and not over"})
    planned_class_hours = ma.fields.Integer(metadata={"description": "class-hours of the term that are published and not over"})
    short = ma.fields.Nested(ShortOut, metadata={"description": "what it lacks; 0 where nothing is asked"})


class TermOut(ma.Schema):
    code = ma.fields.String()
    first = ma.fields.String(metadata={"example": "2026-09-01"})
    last = ma.fields.String()


class DaysOut(ma.Schema):
    year = ma.fields.Integer()
    term = ma.fields.Integer()


def number(name: str, **options: Any) -> ma.fields.Integer:
    """One figure of a target."""
    told = {
        "station_sessions": "sessions a year of each place marked as able",
        "school_trainings": "sessions for parents a year of each school and kindergarten",
        "mental_share": "percent of the stations that hold mental-health education",
        "term_class_hours": "class-hours a term of each school",
        "weeks_per_class": "each school holds a class in every so many weeks of the term",
    }[name]
    return ma.fields.Integer(
        strict=True, validate=validate.Range(0, RANGES[name]), metadata={"description": f"{told}; 0: nothing is asked"}, **options
    )


class TargetIn(ma.Schema):
    station_sessions = number("station_sessions", required=True)
    school_trainings = number("school_trainings", required=True)
    mental_share = number("mental_share", required=True)
    term_class_hours = number("term_class_hours", required=True)
    weeks_per_class = number("weeks_per_class", required=True)
    spring_first = ma.fields.String(validate=DAY, metadata={"example": "03-01"})
    spring_last = ma.fields.String(validate=DAY, metadata={"example": "07-10"})
    autumn_first = ma.fields.String(validate=DAY, metadata={"example": "09-01"})
    autumn_last = ma.fields.String(
        validate=DAY, metadata={"description": "of the next year, when before `autumn_first`", "example": "01-20"}
    )


class TargetOut(ma.Schema):
    station_sessions = number("station_sessions")
    school_trainings = number("school_trainings")
    mental_share = number("mental_share")
    term_class_hours = number("term_class_hours")
    weeks_per_class = number("weeks_per_class")
    spring_first = ma.fields.String()
    spring_last = ma.fields.String()
    autumn_first = ma.fields.String()
    autumn_last = ma.fields.String()
    source = ma.fields.String(metadata={"description": "K, J, P (a plan), default, staff"})
    source_is = ma.fields.Nested(Messages)
    division = ma.fields.String(metadata={"description": "for which division it was set; 000000: the country"})
    year = ma.fields.Integer(allow_none=True, metadata={"description": "from which year it was set; null of a plan"})


class CoverageOut(ma.Schema):
    division = ma.fields.String()
    name = ma.fields.String()
    own_only = ma.fields.Boolean(
        metadata={"description": "all of it is of the asker's own places alone, for want of a right to the whole division"}
    )
    year = ma.fields.Integer()
    term = ma.fields.Nested(TermOut)
    as_of = ma.fields.String(metadata={"description": "today, in the service's zone"})
    days_left = ma.fields.Nested(DaysOut, metadata={"description": "after today, to the end of each"})
    rules = ma.fields.Nested(Messages, metadata={"description": "what is counted, in words"})
    target = ma.fields.Nested(
        TargetOut, metadata={"description": "of this division; one below may have its own and counts by it"}
    )
    held = ma.fields.List(ma.fields.Nested(HeldOut))
    shares = ma.fields.List(ma.fields.Nested(TotalShareOut))
    below = ma.fields.List(ma.fields.Nested(BelowOut), metadata={"description": "those directly below that hold anything"})
    items = ma.fields.List(ma.fields.Nested(CoverageRow), metadata={"description": "places by division, kind and name"})
    next_cursor = ma.fields.String(allow_none=True)


def both(label: Label) -> dict[str, str]:
    """A label as it is answered."""
    return {"zh-Hans": label.zh, "en": label.en}


def sums(found: Sums) -> dict[str, int]:
    """Sums as they are answered."""
    return dict(vars(found))


def target_out(found: Target) -> dict[str, Any]:
    """A target with who says so."""
    return {
        **{name: getattr(found, name) for name in FIELDS},
        "source": found.source,
        "source_is": both(SOURCES[found.source]),
        "division": found.division or divisions.COUNTRY,
        "year": found.year,
    }


def total_out(found: Total) -> dict[str, Any]:
    """A division's sums and shares."""
    return {
        "held": [
            {"kind": kind, "places": places, "year": sums(year), "term": sums(term)}
            for kind, (places, year, term) in found.held.items()
        ],
        "shares": [{**one._asdict(), "percent": one.percent, "missing": one.missing} for one in found.shares],
    }


def row_out(row: Row, found: Coverage) -> dict[str, Any]:
    """One place."""
    place = row.place
    return {
        "id": place.id,
        "name": place.name,
        "kind": place.kind,
        "division": place.division,
        "division_name": place_name(place.division),
        "able": place.able,
        "parents": place.families,
        "year": sums(row.year),
        "term": sums(row.term),
        **{name: getattr(row, name) for name in ("mental_sessions", "trainings", "trained", "planned", "planned_class_hours")},
        "short": row.short(found.today),
    }


def own_places() -> dict[str, str]:
    """The stations and schools that the asker works for -> their divisions, in force."""
    who, mine = actor(), sorted({grant.organisation for grant in actor().grants if grant.organisation})
    found = people.Organisation.rows().find({"_id": {"$in": mine}, "kind": {"$in": coverage.KINDS}}, {"division": 1})
    return {
        raw["_id"]: divisions.current(raw["division"]) for raw in found if who.may("course.read", raw["_id"], raw["division"])
    }


def where(code: str, areas: Collection[str], places: Mapping[str, str]) -> str:
    """The division asked for, in force; "" for the country. None is asked for: the asker's own, when there is just one; of a
    grant for the whole country the service's. Raises `NotFound`, and `Invalid` when there are several."""
    if not code:
        own = {area or settings().division or divisions.COUNTRY for area in areas} or set(places.values())
        if len(own) != 1:
            raise invalid("division", "required")
        code = own.pop()
    if code == divisions.COUNTRY:
        return ""
    if not divisions.known(code):
        raise NotFound(what=code)
    return divisions.current(code)


def counted(query: dict[str, Any], whole: bool = True) -> tuple[Coverage, bool]:
    """Coverage as the query asks for it, and whether it is of the asker's own places alone, for want of a right to the `whole`
    division. Raises `Forbidden`, `NotFound`, `Invalid`."""
    told = {grant.division for grant in actor().grants if "indicator.read" in people.ROLES.get(grant.role, frozenset())}
    areas = told | set(people.areas(actor(), "course.read"))
    places = {} if whole else own_places()
    if not areas and not places:
        raise Forbidden()
    division = where(query["division"], areas, places)
    only = None
    if not any(divisions.within(division, area) for area in areas):
        only = [key for key, lies in places.items() if divisions.within(lies, division)]
        if not only:
            raise Forbidden()
    today = store.now().astimezone(ZoneInfo(settings().zone)).date()
    return coverage.coverage(division, query.get("year", today.year), query["term"], today, only), only is not None


@staff.get("/coverage")
@staff.arguments(CoverageList, location="query")
@staff.alt_response(200, schema=CoverageOut)
def show(query: dict[str, Any]) -> Response:
    """How far family education reaches, against the plan

    Of a division with all below it: sessions, class-hours and people by kind of place, each share with its numerator and
    denominator in words, the divisions below, and each station, school and kindergarten with what it still lacks. Takes a role
    for all organisations of the division, or in an office (federation, education, health) whose own division it lies in; staff
    of a station or school see their own row.
    """
    found, own_only = counted(query, whole=False)
    total = total_out(found.total)
    for share in total["shares"]:
        words = WORDS[share["code"]]
        names = (("label", words.label), ("numerator_is", words.numerator), ("denominator_is", words.denominator))
        share |= {name: both(label) for name, label in names}
    rows = [row for row in found.rows if not query["lacking"] or any(row.short(found.today).values())]
    listed = page(rows, query.get("cursor"), query["limit"], coverage.order)
    return jsonify(
        {
            "division": found.division or divisions.COUNTRY,
            "name": place_name(found.division),
            "own_only": own_only,
            "year": found.year,
            "term": {"code": found.term, "first": found.first.isoformat(), "last": found.last.isoformat()},
            "as_of": found.today.isoformat(),
            "days_left": {"year": found.days_left(found.end), "term": found.days_left(found.last)},
            "rules": both(RULES),
            "target": target_out(found.target),
            **total,
            "below": [
                {"division": one.division or divisions.COUNTRY, "name": place_name(one.division), **total_out(one)}
                for one in found.below
            ],
            "items": [row_out(row, found) for row in listed["items"]],
            "next_cursor": listed["next_cursor"],
        }
    )


def named(body: bytes, found: Coverage, ending: str, content_type: str) -> Response:
    """A file to be saved."""
    response = Response(body, content_type=content_type)
    name = f"coverage-{found.division or divisions.COUNTRY}-{found.year}.{ending}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@staff.get("/coverage.csv")
@staff.arguments(TableQuery, location="query")
@staff.alt_response(200, schema={"type": "string"}, content_type="text/csv", description="UTF-8 with a byte order mark")
def table(query: dict[str, Any]) -> Response:
    """The same as a table for spreadsheets"""
    found, _ = counted(query)
    body = coveragepages.table(found) if query["table"] == "places" else coveragepages.share_table(found)
    return named(body, found, "csv", "text/csv; charset=utf-8")


@staff.get("/coverage.svg")
@staff.arguments(CoverageQuery, location="query")
@staff.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="For a printed report")
def picture(query: dict[str, Any]) -> Response:
    """The same as bars with the plan's target, in Chinese"""
    found, _ = counted(query)
    return named(coveragepages.picture(found), found, "svg", "image/svg+xml")


def own_target(code: str, year: int, permission: str) -> str:
    """The division whose target is meant, when the asker may do this to it. Raises `Invalid`, `Forbidden`, `NotFound`."""
    if not YEARS[0] <= year <= YEARS[1]:
        raise invalid("year", "out_of_range", reason=f"{YEARS[0]}-{YEARS[1]}")
    division = "" if code == divisions.COUNTRY else divisions.check(code, "division")
    if not people.acts_for(actor(), permission, division):
        raise Forbidden()
    return division


def present(division: str, year: int) -> CoverageTarget | None:
    """What staff set for just this division and year."""
    try:
        return coveragetargets.target_record(division, year)
    except NotFound:
        return None


@staff.get("/coverage/targets/<string:division>/<int:year>")
@staff.alt_response(200, schema=TargetOut, description="ETag is the revision, 0 while nothing was set for just this year")
def show_target(division: str, year: int) -> Response:
    """What is asked in a division and year: of the nearest division that has a target, its latest up to that year"""
    code = own_target(division, year, "course.read")
    own = present(code, year)
    return tagged(target_out(coveragetargets.targets(year)(code)), own.revision if own else 0)


@staff.put("/coverage/targets/<string:division>/<int:year>")
@staff.arguments(TargetIn)
@staff.alt_response(200, schema=TargetOut)
@staff.alt_response(201, schema=TargetOut, description="It is the first for this division and year")
def put_target(payload: dict[str, Any], division: str, year: int) -> Response:
    """Set what the plan asks of a division from a year on, whole; term dates left out are the usual ones

    One that exists needs If-Match. Takes the right to publish courses for the whole division: `organiser` for all organisations
    there, or in an office (federation, education, health) of the division or above it.
    """
    code = own_target(division, year, "course.publish")
    revision = if_match() if present(code, year) else None
    record = coveragetargets.set_target(code, year, payload, actor().id, revision)
    return tagged(target_out(record.target()), record.revision, 200 if revision else 201)

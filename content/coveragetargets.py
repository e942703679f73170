"""What the plans ask of family education in a division and year: of the nearest division, set by staff or taken from PLANS."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import mongoengine as me

from content import divisions, records
from content.checking import Check
from content.failures import NotFound, Text, invalid

YEARS = (2000, 2100)
TERMS = ("spring", "autumn")


class Target(NamedTuple):
    """What is asked in a division. Of numbers 0 asks nothing. Terms are "MM-DD"; a last day before the first is of the next
    year."""

    station_sessions: int
    """Sessions a year of each place marked as able."""
    school_trainings: int
    """Sessions for parents a year of each school and kindergarten."""
    mental_share: int
    """Percent of the stations that hold mental-health education in the year."""
    term_class_hours: int
    """Class-hours a term of each school."""
    weeks_per_class: int
    """Each school holds a class in every so many weeks of the term."""
    spring_first: str = "02-01"
    spring_last: str = "07-31"
    autumn_first: str = "09-01"
    autumn_last: str = "01-31"
    source: str = "default"
    """Who says so: K, J, P (a plan), default (nobody for this division), staff."""
    division: str = ""
    """Of which division; "": the country."""
    year: int | None = None
    """Of which year, when staff set it; it stands until a later year's is set."""

    def term(self, year: int, code: str) -> tuple[date, date]:
        """First and last day of the term that begins in this year."""
        first, last = (date.fromisoformat(f"{year}-{getattr(self, f'{code}_{end}')}") for end in ("first", "last"))
        return first, last if last >= first else last.replace(year=year + 1)


FIELDS = Target._fields[:9]
RANGES = {"station_sessions": 50, "school_trainings": 50, "mental_share": 100, "term_class_hours": 500, "weeks_per_class": 26}
# Sources by plan: K Kangbashi (a session a year of stations able to do so; all parents trained once a year; half of the stations
# hold mental-health education), P Pingliang (60 % of stations; a class every two weeks), J Qianjiang (ten class-hours a term).
# Where no plan is known the lowest figures hold that any of them asks.
PLANS: Mapping[str, Target] = {
    "150603": Target(1, 1, 50, 0, 0, source="K", division="150603"),
    "500114": Target(1, 1, 50, 10, 0, source="J", division="500114"),
    "620800": Target(1, 1, 60, 0, 2, source="P", division="620800"),
}
COMMON = Target(1, 1, 50, 10, 0)


class CoverageTarget(records.Record):
    """What staff of a division ("" the country) say its plan asks, from a year on. `_id` is "DIVISION:YEAR"."""

    division = me.StringField(default="")
    year = me.IntField(required=True, min_value=YEARS[0], max_value=YEARS[1])
    station_sessions = me.IntField(required=True)
    school_trainings = me.IntField(required=True)
    mental_share = me.IntField(required=True)
    term_class_hours = me.IntField(required=True)
    weeks_per_class = me.IntField(required=True)
    spring_first = me.StringField(required=True)
    spring_last = me.StringField(required=True)
    autumn_first = me.StringField(required=True)
    autumn_last = me.StringField(required=True)

    NAME = "coverage_target"
    meta: ClassVar[dict[str, Any]] = {"collection": "coverage_targets", "indexes": []}

    def target(self) -> Target:
        """Its plain value."""
        return Target(**{n: getattr(self, n) for n in FIELDS}, source="staff", division=self.division or "", year=self.year)


def _key(division: str, year: int) -> str:
    return f"{division or divisions.COUNTRY}:{year}"


def check_place(key: str, division: str, year: int) -> None:
    """Raises `Invalid` for an id, a division or a year that no target has."""
    if division and not divisions.known(division):
        raise invalid("division", "unknown_reference", value=division[:40])
    if key != _key(division, year) or not YEARS[0] <= year <= YEARS[1]:
        raise invalid("year", "out_of_range", reason=f"{YEARS[0]}-{YEARS[1]}")


def checked_target(values: Mapping[str, Any]) -> dict[str, Any]:
    """A target's fields in their stored form; term dates left out are the usual ones. Raises `Invalid` with every fault."""
    check = Check()
    check.fields(values, FIELDS)
    found: dict[str, Any] = {}
    for name, most in RANGES.items():
        found[name] = check.whole(name, values.get(name), 0, most)
        if values.get(name) in (None, ""):
            check.fail(name, "required")
    for name in FIELDS[len(RANGES) :]:
        found[name] = values.get(name) or Target._field_defaults[name]
        try:
            if not isinstance(found[name], str) or not re.fullmatch("[0-9]{2}-[0-9]{2}", found[name]):
                raise ValueError
            date.fromisoformat(f"2001-{found[name]}")  # no leap year: 02-29 is not there every year
        except ValueError:
            check.fail(name, "bad_format", reason=Text("例：09-01", "e.g. 09-01"))
    check.done()
    if found["spring_last"] < found["spring_first"]:  # it would run on into the next year's
        check.fail("spring_last", "out_of_range", reason="≥ spring_first")
    if found["spring_first"] <= found["autumn_last"] < found["autumn_first"]:
        check.fail(
            "autumn_last",
            "out_of_range",
            reason=Text("要在 autumn_first 之后、次年 spring_first 之前", "after autumn_first and before the next spring_first"),
        )
    if found["autumn_first"] <= found["spring_last"]:
        check.fail("autumn_first", "out_of_range", reason="> spring_last")
    check.done()
    return found


def target_record(division: str, year: int) -> CoverageTarget:
    """What staff set for just this division ("" the country) and year. Raises `NotFound`."""
    raw = CoverageTarget.rows().find_one({"_id": _key(division, year)})
    if raw is None:
        raise NotFound(what=_key(division, year))
    return CoverageTarget.of(raw)


def set_target(division: str, year: int, values: Mapping[str, Any], by: str, revision: int | None = None) -> CoverageTarget:
    """Set what is asked in a division in force ("" the country) from `year` on, whole. `revision` None: there is none yet.

    The same values again change nothing. Raises `Invalid`, `Stale` and `NotFound` with a revision, `Conflict("exists")` (by
    `store.failure_of`) without one when somebody was faster.
    """
    fields = checked_target(values)
    if revision is None:
        return records.create(CoverageTarget(id=_key(division, year), division=division, year=year, **fields), by)

    def decide(present: CoverageTarget) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if getattr(present, name) != value}

    return records.change(CoverageTarget, _key(division, year), by, "edit", decide, revision=revision)


def targets(year: int) -> Callable[[str], Target]:
    """division -> what is asked there in this year: of the nearest division that has a target, its latest of this year or
    before; what staff set goes before a plan of the same division."""
    found: dict[str, Target] = dict(PLANS)
    for raw in CoverageTarget.rows().find({"year": {"$lte": year}}).sort("year", 1):
        one = CoverageTarget.of(raw).target()
        found[divisions.current(one.division) if one.division else ""] = one

    @lru_cache(None)
    def nearest(division: str) -> Target:
        line = divisions.lineage(division) if divisions.known(division) else []
        return next((found[code] for code in [*line, ""] if code in found), COMMON)

    return nearest

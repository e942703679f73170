"""The year's seasons: pure functions of a date, a district and a school stage over `content/library/seasons.yaml`.

A season is national (a fixed date, or the week that holds one) or local: then the file's dates are only usual ones and a
district confirms its own, each year, with a `SeasonDate`. The nearest confirmed date wins: district, city, province,
country. All dates are local dates of the district, never instants.

A date is **provisional** while it is a usual one, or lies past the file's known-until date; a dated notice is never sent on
a provisional date (`notifications.notices` asks `confirmed`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
import yaml
from pymongo.client_session import ClientSession

import content
from content import divisions, published, records
from content.failures import Failure, NotFound, Text, invalid
from content.published import Item, Snapshot
from content.vocabulary import Stage

FILE = Path(content.__file__).parent / "library" / "seasons.yaml"


@dataclass(frozen=True)
class Season:
    """One season of the file. `texts` is language -> {"title", "text"}."""

    code: str
    month: int
    day: int
    days: int
    week_of: bool
    """The Monday-to-Sunday week that holds month-day, instead of `days` days from it."""
    local: bool
    """Month-day is only usual: a district confirms its own."""
    audiences: tuple[str, ...]
    stages: tuple[str, ...]
    lead_days: tuple[int, ...]
    """Days from the first day on which a notice is due: -7 is a week before it."""
    lessons: tuple[str, ...]
    checks: tuple[str, ...]
    title: Mapping[str, str] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)

    def meant_for(self, stage: str) -> bool:
        """Whether it concerns a reader of this stage; "" is anyone."""
        if not stage or not self.stages:
            return True
        reader = Stage.parse(stage, "stage")
        return any(Stage.parse(one).covers(reader) for one in self.stages)


class Calendar(NamedTuple):
    """The file."""

    seasons: Mapping[str, Season]
    known_until: date
    sources: tuple[Any, ...]


class Span(NamedTuple):
    """First and last local day, and whether nobody has confirmed them."""

    first: date
    last: date
    provisional: bool


class Override(NamedTuple):
    """A confirmed date. `division` "" is the whole country."""

    division: str
    code: str
    year: int
    first: date
    last: date


class Due(NamedTuple):
    """A day on which a season's notice is due, `lead` days from its first day (negative: before)."""

    on: date
    lead: int
    provisional: bool


class Current(NamedTuple):
    """A season that a reader is in or about to enter; `starts_in` days, 0 or less once it runs."""

    season: Season
    span: Span
    starts_in: int


@lru_cache(maxsize=1)
def calendar() -> Calendar:
    """The file, read once. Raises `ValueError` that names the season when the file is wrong: a test loads it."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found = {row["code"]: _season(row) for row in data["seasons"]}
    return Calendar(found, _day(data["known_until"]), tuple(data.get("sources", ())))


def known_until() -> date:
    """The last day that the calendar vouches for."""
    return calendar().known_until


def _day(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(str(value))


def _season(row: Mapping[str, Any]) -> Season:
    rule = row["rule"]
    try:
        if set(rule) - {"date", "days", "week_of", "local", "usual"} or len({"date", "week_of", "usual"} & set(rule)) != 1:
            raise ValueError("the rule needs one of date, week_of, usual")
        begins, _, ends = str(rule.get("date") or rule.get("week_of") or rule["usual"]).partition("..")
        first = date.fromisoformat(f"2001-{begins}")
        days = int(rule.get("days", 1))
        if ends:
            last = date.fromisoformat(f"2001-{ends}")
            days = ((last if last >= first else last.replace(year=2002)) - first).days + 1
        return Season(
            code=row["code"],
            month=first.month,
            day=first.day,
            days=7 if "week_of" in rule else days,
            week_of="week_of" in rule,
            local=bool(rule.get("local")),
            audiences=tuple(row.get("audiences") or ()),
            stages=tuple(str(Stage.parse(one)) for one in row.get("stages") or ()),
            lead_days=tuple(int(lead) for lead in row.get("lead_days") or ()),
            lessons=tuple(row.get("lessons") or ()),
            checks=tuple(row.get("checks") or ()),
            title=dict(row.get("title") or {}),
            text=dict(row.get("text") or {}),
        )
    except (ValueError, KeyError, TypeError, Failure) as error:
        raise ValueError(f"seasons.yaml, {row.get('code')}: {error}") from error


def season(code: str, year: int, overrides: Iterable[Override] = (), division: str = "") -> Span:
    """When a season is in the year it begins in, for a district. Raises `NotFound` for an unknown code or division."""
    found = calendar().seasons.get(code)
    if found is None:
        raise NotFound(what=code)
    return _span(found, year, _line(division), {(o.division, o.code, o.year): o for o in overrides})


def _line(division: str) -> list[str]:
    return [*(divisions.lineage(division) if division not in {"", divisions.COUNTRY} else []), ""]


def _span(found: Season, year: int, line: list[str], known: Mapping[tuple[str, str, int], Override]) -> Span:
    for code in line:
        if (one := known.get((code, found.code, year))) is not None:
            return Span(one.first, one.last, False)
    first = date(year, found.month, found.day)
    if found.week_of:
        first -= timedelta(days=first.weekday())
    last = first + timedelta(days=found.days - 1)
    return Span(first, last, found.local or last > calendar().known_until)


def due(code: str, year: int, overrides: Iterable[Override] = (), division: str = "") -> list[Due]:
    """The days of a season's notices, earliest first. On the provisional ones nothing is sent."""
    span = season(code, year, overrides, division)
    return [Due(span.first + timedelta(days=lead), lead, span.provisional) for lead in sorted(calendar().seasons[code].lead_days)]


def current(on: date, division: str = "", stage: str = "", overrides: Iterable[Override] = ()) -> list[Current]:
    """The seasons of a day for a reader: those that run and those whose first notice day has come; running ones first, then
    the nearest. Raises `NotFound` for an unknown division, `Invalid` for a stage that is none."""
    known = {(o.division, o.code, o.year): o for o in overrides}
    line = _line(division)
    found = []
    for one in calendar().seasons.values():
        if not one.meant_for(stage):
            continue
        early = timedelta(days=min((*one.lead_days, 0)))
        for year in (on.year - 1, on.year, on.year + 1):
            span = _span(one, year, line, known)
            if span.first + early <= on <= span.last:
                found.append(Current(one, span, (span.first - on).days))
    return sorted(found, key=lambda c: (c.starts_in > 0, abs(c.starts_in), c.season.code))


def confirmed(code: str, on: date, codes: Iterable[str], overrides: Iterable[Override]) -> bool:
    """Whether the season that a notice of local day `on` belongs to (the nearest one) has a confirmed date in every one of the
    divisions `codes` ("" or none: the country). Raises `NotFound` for an unknown season."""
    overrides = list(overrides)

    def nearest(division: str) -> Span:
        spans = [season(code, year, overrides, division) for year in (on.year - 1, on.year, on.year + 1)]
        return min(spans, key=lambda s: max((s.first - on).days, (on - s.last).days, 0))

    return not any(nearest(division).provisional for division in list(codes) or [""])


# --- confirmed dates --------------------------------------------------------------------------------------------------


class SeasonDate(records.Record):
    """A district's (city's, province's, country's "") confirmed date of one season in one year."""

    division = me.StringField(required=True)
    code = me.StringField(required=True)
    year = me.IntField(required=True)
    first = me.StringField(required=True)
    """YYYY-MM-DD: a local date, so it is kept as text and never becomes an instant."""
    last = me.StringField(required=True)
    confirmed_by = me.StringField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "season_dates",
        "indexes": [{"fields": ["division", "code", "year"], "unique": True}],
    }
    NAME = "season_date"

    def override(self) -> Override:
        """Its plain value."""
        return Override(self.division, self.code, self.year, date.fromisoformat(self.first), date.fromisoformat(self.last))

    def item(self) -> Item:
        """What readers get."""
        content = {"division": self.division, "code": self.code, "year": self.year, "first": self.first, "last": self.last}
        return Item("season", f"{self.code}:{self.division or divisions.COUNTRY}:{self.year}", published.ANY, content)


def confirm(division: str, code: str, first: date, last: date, by: str) -> SeasonDate:
    """Confirm a season's date for the year of its first day, and publish it. Raises `Invalid`, and `Conflict("exists")` when
    it is confirmed already (`correct` changes it)."""
    _check(code, first, last)
    where = divisions.check(division, "division") if division not in {"", divisions.COUNTRY} else ""
    record = SeasonDate(
        division=where, code=code, year=first.year, first=first.isoformat(), last=last.isoformat(), confirmed_by=by
    )
    return records.create(record, by, also=lambda session, raw: _publish(session, SeasonDate.of(raw)))


def correct(key: str, first: date, last: date, by: str, revision: int | None = None) -> SeasonDate:
    """Change a confirmed date within its year, and publish it. Raises `NotFound`, `Stale`, `Invalid`."""

    def decide(record: SeasonDate) -> dict[str, Any]:
        _check(record.code, first, last)
        if first.year != record.year:
            raise invalid("first", "out_of_range", reason=str(record.year))
        return {"first": first.isoformat(), "last": last.isoformat(), "confirmed_by": by}

    return records.change(SeasonDate, key, by, "correct", decide, revision=revision, also=_publish)


def _check(code: str, first: date, last: date) -> None:
    if code not in calendar().seasons:
        raise invalid("code", "unknown_reference", value=code)
    if not 0 <= (last - first).days <= 100:
        raise invalid("last", "out_of_range", reason=Text("要在 first 之后 0–100 天", "0 to 100 days after first"))


def _publish(session: ClientSession, record: SeasonDate) -> None:
    published.release(session, [record.item()])


def stored() -> list[Override]:
    """All confirmed dates, from the database; for the sweep."""
    return [SeasonDate.of(raw).override() for raw in SeasonDate.rows().find({})]


def of_snapshot(snapshot: Snapshot) -> list[Override]:
    """All confirmed dates, from the published set; for readers. Computed once a snapshot."""
    if "dates" not in snapshot.memo("season"):
        rows = [item.content for one in snapshot.entries("season").values() for item in one.values() if item.content]
        snapshot.memo("season")["dates"] = [
            Override(r["division"], r["code"], r["year"], date.fromisoformat(r["first"]), date.fromisoformat(r["last"]))
            for r in rows
            if "year" in r
        ]
    found: list[Override] = snapshot.memo("season")["dates"]
    return found

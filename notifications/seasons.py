"""The year's seasons: pure functions of a date, a division and a school stage over `content/library/seasons.yaml`.

A season is national (a date, a week, a month, the nth weekday of one) or local: then the file's dates are only usual ones and a
district confirms its own, each year, with a `SeasonDate`. The nearest confirmed date wins: district, city, province, country.
That is also the setting for a national season that is held otherwise somewhere: the gaokao of Shanghai in 2022, a district that
keeps sleep day on the Friday before the equinox. All dates are local dates of the division, never instants.

A date is **provisional** while it is a usual one, or lies past the file's known-until date; a dated notice is never sent on
a provisional date (`notifications.notices` asks `confirmed`), and `asks` says what has to be confirmed by when.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
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
AT = "18:37"  # school is out, and no sharp quarter, when everybody's jobs and pushes run
FRESH = timedelta(days=2)  # what a season's last notice says is worth something so long
PREPARE = timedelta(days=7)  # to draft a notice, edit it and have a second person approve it
ASK, ASK_AGAIN = 60, 30  # days before the first notice that staff are asked for a date

Rule = Callable[[int], tuple[date, date]]
"""First and last usual day of the season of a year."""


@dataclass(frozen=True)
class Season:
    """One season of the file. `title`, `text` and `official` are language -> text."""

    code: str
    usual: Rule
    local: bool
    """The usual dates are a guess: a district confirms its own."""
    audiences: tuple[str, ...]
    stages: tuple[str, ...]
    lead_days: tuple[int, ...]
    """When notices are due: days from the first day (-7 is a week before it, 0 is that day), or, above 0, from the last."""
    at: time
    """Local time of its pushes."""
    sitting: tuple[time, time] | None
    """The part of each of its days in which an exam sits."""
    sitting_days: int
    """On how many days from the first it may sit where nobody has confirmed its own: provinces differ. 0: on its own days."""
    lessons: tuple[str, ...]
    checks: tuple[str, ...]
    help: tuple[str, ...]
    """Kinds of the directory's entries that go with it."""
    title: Mapping[str, str] = field(default_factory=dict)
    """May stand on a lock screen and in a family's calendar: it names no trouble."""
    text: Mapping[str, str] = field(default_factory=dict)
    official: Mapping[str, str] = field(default_factory=dict)
    """What staff call it where that is not for families; {}: as the vocabulary does."""

    def meant_for(self, stage: str) -> bool:
        """Whether it concerns a reader of this stage; "" is anyone."""
        if not stage or not self.stages:
            return True
        reader = Stage.parse(stage, "stage")
        return any(Stage.parse(one).covers(reader) for one in self.stages)

    def notice_day(self, span: "Span", lead: int) -> date:
        """The local day of the notice of this lead."""
        return (span.last if lead > 0 else span.first) + timedelta(days=lead)


LONGEST, EXAM = 100, 10  # days that a season may last, and one in which an exam sits


class Calendar(NamedTuple):
    """The file."""

    seasons: Mapping[str, Season]
    known_until: date
    revised: date
    """When it was changed last: what calendar feeds say of dates that nobody has confirmed."""
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


class Occasion(NamedTuple):
    """One notice of a season that is due in a division."""

    code: str
    year: int
    """Of the season: "gaokao.2027" is its campaign."""
    lead: int
    division: str
    """Whose date it follows: the division asked for; "" the whole country."""
    on: date
    """Local day of the notice."""
    at: time
    """Local time of its push."""
    span: Span
    until: date
    """The first local day on which it is worth nothing."""


class Dated(NamedTuple):
    """A season of one year, and by whom it is dated."""

    season: Season
    year: int
    span: Span
    dated_by: str | None
    """Division whose confirmed date it is ("" the country); None: the file's."""


class Ask(NamedTuple):
    """A date that has to be confirmed, or the season's notices stay unsent."""

    code: str
    year: int
    division: str
    usual: Span
    first_notice: date
    days_left: int
    """From today to the first notice; below 0 once it should have gone."""

    @property
    def stage(self) -> int:
        """60 or 30: which of the two times of asking it is."""
        return ASK_AGAIN if self.days_left <= ASK_AGAIN else ASK

    @property
    def confirm_by(self) -> date:
        """The last day on which there is still time to draft and approve the first notice."""
        return self.first_notice - PREPARE


class Current(NamedTuple):
    """A season that a reader is in or about to enter; `starts_in` days, 0 or less once it runs."""

    season: Season
    span: Span
    starts_in: int


# --- the file ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def calendar() -> Calendar:
    """The file, read once. Raises `ValueError` that names the season when the file is wrong: a test loads it."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found = {row["code"]: _season(row) for row in data["seasons"]}
    return Calendar(found, _day(data["known_until"]), _day(data["revised"]), tuple(data.get("sources", ())))


def known_until() -> date:
    """The last day that the calendar vouches for."""
    return calendar().known_until


def _day(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(str(value))


def _season(row: Mapping[str, Any]) -> Season:
    try:
        sitting = str(row.get("sitting") or "").partition("..")
        made = Season(
            code=row["code"],
            usual=_rule(row["rule"]),
            local=bool(row["rule"].get("local")),
            audiences=tuple(row.get("audiences") or ()),
            stages=tuple(str(Stage.parse(one)) for one in row.get("stages") or ()),
            lead_days=tuple(sorted(int(lead) for lead in row["lead_days"])),
            at=time.fromisoformat(row.get("at", AT)),
            sitting_days=int(row.get("sitting_days") or 0),
            sitting=(time.fromisoformat(sitting[0]), time.fromisoformat(sitting[2])) if sitting[1] else None,
            lessons=tuple(row.get("lessons") or ()),
            checks=tuple(row.get("checks") or ()),
            help=tuple(row.get("help") or ()),
            title=dict(row.get("title") or {}),
            text=dict(row.get("text") or {}),
            official=dict(row.get("official") or {}),
        )
        if not 3 <= made.at.minute % 15 <= 12:
            raise ValueError(f"at {made.at}: within two minutes of a quarter of an hour")
        if made.sitting and made.sitting[0] <= made.at < made.sitting[1]:
            raise ValueError(f"at {made.at}: while the exam sits")
        return made
    except (ValueError, KeyError, TypeError, Failure) as error:
        raise ValueError(f"seasons.yaml, {row.get('code')}: {error}") from error


def _rule(rule: Mapping[str, Any]) -> Rule:
    """One of the forms that the file's head names. Raises `ValueError` for any other."""

    def parsed(text: str) -> tuple[int, int]:
        found = date.fromisoformat(f"2001-{text}")
        return found.month, found.day

    match rule:
        case {"date": str(text), **rest} if set(rest) <= {"days"}:
            begins, days = parsed(text), int(rest.get("days", 1))
            return lambda year: _long(date(year, *begins), days)
        case {"week_of": str(text), **rest} if not rest:
            holds = parsed(text)
            return lambda year: _long(date(year, *holds) - timedelta(days=date(year, *holds).weekday()), 7)
        case {"month": int(month), "weekday": int(weekday), "nth": int(nth), **rest} if (
            not rest and 1 <= weekday <= 7 and nth in (1, 2, 3, 4, -1) and 1 <= month <= 12
        ):
            return lambda year: _long(_nth(year, month, weekday, nth), 1)
        case {"month": int(month), **rest} if not rest and 1 <= month <= 12:
            return lambda year: (date(year, month, 1), _end(year, month))
        case {"local": True, "usual": str(text), **rest} if not rest:
            usual = [parsed(one) for one in text.split("..")]
            return lambda year: (date(year, *usual[0]), date(year + (usual[-1] < usual[0]), *usual[-1]))
    raise ValueError(f"no such rule: {dict(rule)}")


def _long(first: date, days: int) -> tuple[date, date]:
    return first, first + timedelta(days=days - 1)


def _end(year: int, month: int) -> date:
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    """The nth (-1: last) weekday (1 Monday to 7 Sunday) of a month."""
    if nth < 0:
        end = _end(year, month)
        return end - timedelta(days=(end.isoweekday() - weekday) % 7)
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.isoweekday()) % 7 + 7 * (nth - 1))


# --- when -------------------------------------------------------------------------------------------------------------

Known = Mapping[tuple[str, str, int], Override]  # by division, code, year


def season(code: str, year: int, overrides: Iterable[Override] = (), division: str = "") -> Span:
    """When the season of a year is, for a division. Raises `NotFound` for an unknown code or division."""
    found = calendar().seasons.get(code)
    if found is None:
        raise NotFound(what=code)
    return _dated(found, year, _line(division), _known(overrides)).span


def _known(overrides: Iterable[Override]) -> Known:
    return {(o.division, o.code, o.year): o for o in overrides}


def _line(division: str) -> list[str]:
    return [*(divisions.lineage(division) if division not in {"", divisions.COUNTRY} else []), ""]


def where(division: str) -> str:
    """Its code in force; "" the whole country. Raises `NotFound` for an unknown division."""
    return _line(division)[0]


def _dated(found: Season, year: int, line: list[str], known: Known) -> Dated:
    for code in line:
        if (one := known.get((code, found.code, year))) is not None:
            return Dated(found, year, Span(one.first, one.last, False), code)
    first, last = found.usual(year)
    return Dated(found, year, Span(first, last, found.local or last > calendar().known_until), None)


def within(division: str, first_day: date, last_day: date, overrides: Iterable[Override] = ()) -> list[Dated]:
    """The seasons of a division that run on any of the local days first_day..last_day, by first day and code. Raises `NotFound`
    for an unknown division."""
    found = [one for one in _around(division, first_day, last_day, overrides)
             if one.span.first <= last_day and one.span.last >= first_day]  # fmt: skip
    return sorted(found, key=lambda one: (one.span.first, one.season.code))


def _around(division: str, first_day: date, last_day: date, overrides: Iterable[Override]) -> list[Dated]:
    """Every season of the years that may have a day or a notice within these days: one lasts at most 101 days, may begin in the
    December before its year, and its first notice is a month ahead."""
    line, known = _line(division), _known(overrides)
    years = range(first_day.year - 1, last_day.year + 2)
    return [_dated(one, year, line, known) for one in calendar().seasons.values() for year in years]


def occasions(division: str, first_day: date, last_day: date, overrides: Iterable[Override] = ()) -> list[Occasion]:
    """All seasons' notices that are due in a division on the local days first_day..last_day, both included, by (on, code, lead).
    Those of provisional dates are among them (`span.provisional`): they are asked for and never sent. Whatever way a range is
    split, its parts have together what the whole has. Raises `NotFound` for an unknown division."""
    code, found = where(division), []
    for one in _around(division, first_day, last_day, overrides):
        found += [occasion for occasion in occasions_of(one, code) if first_day <= occasion.on <= last_day]
    return sorted(found, key=lambda o: (o.on, o.code, o.lead, o.year))


def occasions_of(one: Dated, division: str) -> list[Occasion]:
    """All notices of one season of one year, earliest first. Each is worth something until the next one, the last until the
    season is over, but two days at least."""
    days = [one.season.notice_day(one.span, lead) for lead in one.season.lead_days]
    over = [max(one.span.last, day + FRESH) + timedelta(days=1) for day in days[-1:]]
    return [
        Occasion(one.season.code, one.year, lead, division, on, one.season.at, one.span, until)
        for lead, on, until in zip(one.season.lead_days, days, days[1:] + over, strict=True)
    ]


def sittings(division: str, day: date, overrides: Iterable[Override] = ()) -> list[tuple[time, time]]:
    """The local times within which an exam sits on that day for families of the division, its own date or one from above, or in
    a division below it: who writes to a city writes to its districts. A local season's usual dates count for none, since
    nobody has confirmed them; the gaokao's do, by law. Raises `NotFound` for an unknown division."""
    overrides, line = list(overrides), _line(division)
    known, found = _known(overrides), set()
    for one in calendar().seasons.values():
        if one.sitting is None:
            continue
        dated = [_dated(one, year, line, known) for year in (day.year - 1, day.year, day.year + 1)]
        spans = [(d.span.first, d.span.last) for d in dated if d.dated_by is not None]
        if not one.local:  # the law's own days, and those on which some provinces go on
            longest = timedelta(days=max(one.sitting_days, 1) - 1)
            spans += [(d.span.first, max(d.span.last, d.span.first + longest)) for d in dated if d.dated_by is None]
        spans += [(o.first, o.last) for o in overrides if o.code == one.code and divisions.within(o.division, line[0])]
        if any(first <= day <= last for first, last in spans):
            found.add(one.sitting)
    return sorted(found)


def current(on: date, division: str = "", stage: str = "", overrides: Iterable[Override] = ()) -> list[Current]:
    """The seasons of a day for a reader: those that run or had a notice that is still fresh, and those whose first notice day has
    come; running ones first, then the nearest. Raises `NotFound` for an unknown division, `Invalid` for a stage that is none."""
    found = []
    for one in _around(division, on, on, overrides):
        leads = (*one.season.lead_days, 0)
        early, late = timedelta(days=min(leads)), timedelta(days=max(leads))
        if one.season.meant_for(stage) and one.span.first + early <= on <= one.span.last + late:
            found.append(Current(one.season, one.span, (one.span.first - on).days))
    return sorted(found, key=lambda c: (c.starts_in > 0, abs(c.starts_in), c.season.code))


def confirmed(code: str, on: date, codes: Iterable[str], overrides: Iterable[Override]) -> bool:
    """Whether the season that a notice of local day `on` belongs to (the nearest one) has a confirmed date in every one of the
    divisions `codes` ("" or none: the country). Raises `NotFound` for an unknown season."""
    overrides = list(overrides)

    def nearest(division: str) -> Span:
        spans = [season(code, year, overrides, division) for year in (on.year - 1, on.year, on.year + 1)]
        return min(spans, key=lambda s: max((s.first - on).days, (on - s.last).days, 0))

    return not any(nearest(division).provisional for division in list(codes) or [""])


def asks(division: str, today: date, overrides: Iterable[Override] = ()) -> list[Ask]:
    """The dates that a division has to confirm: of every season whose notices would fall on a provisional date, from 60 days
    before the first of them until the season is over, the most urgent first. Raises `NotFound` for an unknown division."""
    code, found = where(division), []
    for one in _around(division, today, today + timedelta(days=ASK), overrides):
        if one.span.provisional and one.season.lead_days and one.span.last >= today:
            first = one.season.notice_day(one.span, one.season.lead_days[0])
            if (left := (first - today).days) <= ASK:
                found.append(Ask(one.season.code, one.year, code, one.span, first, left))
    return sorted(found, key=lambda ask: (ask.first_notice, ask.code))


# --- confirmed dates --------------------------------------------------------------------------------------------------


class SeasonDate(records.Record):
    """A district's (city's, province's, country's "") confirmed date of one season in one year. Its year is that of its first
    day, but a season of January may begin in the December before: the winter holiday of 2028 on 2027-12-30."""

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
        return Item("season", item_key(self.division, self.code, self.year), published.ANY, content)


def item_key(division: str, code: str, year: int) -> str:
    """The key of a confirmed date in the published set."""
    return f"{code}:{division or divisions.COUNTRY}:{year}"


def confirm(division: str, code: str, first: date, last: date, by: str, year: int | None = None) -> SeasonDate:
    """Confirm a season's date for a year, by itself the one whose usual date is nearest to its first day, and publish it. Raises
    `Invalid`, and `Conflict("exists")` when it is confirmed already (`correct` changes it)."""
    if code not in calendar().seasons:
        raise invalid("code", "unknown_reference", value=code)
    if year is None:
        year = min((first.year, first.year + 1), key=lambda one: abs((season(code, one).first - first).days))
    where = divisions.check(division, "division") if division not in {"", divisions.COUNTRY} else ""
    _check(code, where, year, first, last)
    record = SeasonDate(division=where, code=code, year=year, first=first.isoformat(), last=last.isoformat(), confirmed_by=by)
    return records.create(record, by, also=lambda session, raw: _publish(session, SeasonDate.of(raw)))


def correct(key: str, first: date, last: date, by: str, revision: int | None = None) -> SeasonDate:
    """Change a confirmed date within its year, and publish it. Raises `NotFound`, `Stale`, `Invalid`."""

    def decide(record: SeasonDate) -> dict[str, Any]:
        _check(record.code, record.division or "", record.year, first, last)
        return {"first": first.isoformat(), "last": last.isoformat(), "confirmed_by": by}

    return records.change(SeasonDate, key, by, "correct", decide, revision=revision, also=_publish)


def withdraw(key: str, by: str, revision: int | None = None) -> None:
    """Take back a date that was confirmed wrongly: what is above it counts again, and without that the season is provisional and
    nothing of it is sent. Raises `NotFound`, also the second time, and `Stale`."""
    records.remove(SeasonDate, key, by, lambda record: None, revision=revision, also=_unpublish)


def _check(code: str, division: str, year: int, first: date, last: date) -> None:
    """An exam that was given a quarter of a year would silence whoever has families there for as long (`sittings`)."""
    most = EXAM if calendar().seasons[code].sitting else LONGEST
    if not date(year - 1, 12, 1) <= first <= date(year, 12, 31):
        raise invalid("first", "out_of_range", reason=f"{year - 1}-12-01 – {year}-12-31")
    if not 0 <= (last - first).days <= most:
        raise invalid("last", "out_of_range", reason=Text(f"要在 first 之后 0–{most} 天", f"0 to {most} days after first"))
    for raw in SeasonDate.rows().find({"division": division, "code": code, "year": {"$in": [year - 1, year + 1]}}):
        other = SeasonDate.of(raw).override()
        if first <= other.last and other.first <= last:
            raise invalid("first", "other_year", year=other.year)


def _publish(session: ClientSession, record: SeasonDate) -> None:
    published.release(session, [record.item()])


def _unpublish(session: ClientSession, record: SeasonDate) -> None:
    published.release(session, [replace(record.item(), content=None)])


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

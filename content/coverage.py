"""Coverage of family education: what each station and school has held, against what the plans ask.

What is counted stands in words in `content.coveragepages` (RULES, and for each share what it is a share of) and goes into the
answer, so that a figure is never without its meaning. What a plan asks is a `Target` of `content.coveragetargets`.

The mark "able to do so" and the number of families are the organisation's own (`content.staff`), as they stand when asked: the
trail says since when and by whom. Nothing here is kept: every answer is counted afresh, from one read of the year's sessions.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from content import divisions
from content.courses import CourseSession, Series
from content.coveragetargets import Target, targets
from content.staff import SCHOOLS, Organisation

KINDS = ("station", *SCHOOLS)
OTHER = "other"  # held by none of them: a federation, a hospital, an enterprise
# J's seven, which are what the Ministry's outline of mental-health education in schools (2012) lists as its content; getting
# help; what has a diagnosis of its own (gaming); the months around birth. Not the safety topics: whoever teaches the feelings
# that go with bullying or abuse adds that topic. Not guidance in general (parenting, two_ones): it may hold nothing of it.
MENTAL = frozenset({
    "self", "life", "learning", "relationships", "emotion", "career", "adaptation", "help_seeking", "gaming", "first_1000_days",
    "perinatal",
})  # fmt: skip
FIELDS = (
    "series", "organisation", "host", "division", "starts_at", "zone", "class_hours", "attended", "walk_ins", "headcount",
    "state",
)  # fmt: skip


# --- counting --------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A station, school or kindergarten."""

    id: str
    name: str
    kind: str
    division: str
    """In force."""
    able: bool
    families: int | None
    """How many families it has; None: not known."""


class Held(NamedTuple):
    """One session as it counts."""

    place: str
    """Id of the organisation that it counts for."""
    division: str
    """That organisation's, in force; of one without, the session's own."""
    on: date
    """Local."""
    class_hours: int
    people: int
    parents: bool
    """For parents (too)."""
    mental: bool
    planned: bool = False
    """Published and not over: counted apart."""


@dataclass
class Sums:
    """What was held in one span."""

    sessions: int = 0
    class_hours: int = 0
    people: int = 0

    def add(self, one: "Held | Sums") -> None:
        """Add a session, or another sum."""
        self.sessions += one.sessions if isinstance(one, Sums) else 1
        self.class_hours += one.class_hours
        self.people += one.people


@dataclass
class Row:
    """One place with what it has held in the year and the term, and what it still lacks."""

    place: Place
    target: Target
    first: date
    """Of the term, as the last day."""
    last: date
    year: Sums = field(default_factory=Sums)
    term: Sums = field(default_factory=Sums)
    mental_sessions: int = 0
    trainings: int = 0
    """Sessions of the year for parents."""
    trained: int = 0
    """People at them."""
    planned: int = 0
    """Sessions of the year still to come."""
    planned_class_hours: int = 0
    """Class-hours of the term still to come."""
    spells: set[int] = field(default_factory=set)
    """Numbers of the term's spells of `weeks_per_class` in which a class was held."""

    def asked(self, name: str) -> int:
        """What the target asks of this place; 0 for nothing."""
        kind = self.place.kind
        of = {
            "station_sessions": self.place.able,
            "school_trainings": kind in SCHOOLS,
            "mental_share": kind == "station",
            "term_class_hours": kind == "school",
            "weeks_per_class": kind == "school",
        }
        return int(getattr(self.target, name)) if of[name] else 0

    def due(self, today: date) -> int:
        """How many whole spells of the term are over, in each of which a class was asked."""
        weeks = self.asked("weeks_per_class")
        days = (min(self.last, today - timedelta(days=1)) - self.first).days + 1
        return max(0, days) // (7 * weeks) if weeks else 0

    def short(self, today: date) -> dict[str, int]:
        """What it lacks; 0 where nothing is asked."""
        missed = self.due(today) - sum(n < self.due(today) for n in self.spells)
        return {
            "sessions": max(0, self.asked("station_sessions") - self.year.sessions),
            "trainings": max(0, self.asked("school_trainings") - self.trainings),
            "families": max(0, (self.place.families or 0) - self.trained) if self.asked("school_trainings") else 0,
            "class_hours": max(0, self.asked("term_class_hours") - self.term.class_hours),
            "classes": missed,
        }


def count(
    places: Iterable[Place], held: Iterable[Held], asked: Callable[[str], Target], year: int, term: str
) -> tuple[list[Row], dict[str, tuple[Sums, Sums]]]:
    """(a row for each place, what others held: division -> its year and term). Of sessions outside both spans nothing."""
    rows = {}
    for place in places:
        target = asked(place.division)
        rows[place.id] = Row(place, target, *target.term(year, term))
    others: dict[str, tuple[Sums, Sums]] = defaultdict(lambda: (Sums(), Sums()))
    for one in held:
        row = rows.get(one.place)
        first, last = (row.first, row.last) if row else asked(one.division).term(year, term)
        this_year, this_term = one.on.year == year, first <= one.on <= last
        if row is None:
            for counted, sums in zip((this_year, this_term), others[one.division], strict=True):
                if counted and not one.planned:
                    sums.add(one)
        elif one.planned:
            row.planned += this_year
            row.planned_class_hours += one.class_hours * this_term
        else:
            if this_year:
                row.year.add(one)
                row.mental_sessions += one.mental
                row.trainings += one.parents
                row.trained += one.people * one.parents
            if this_term:
                row.term.add(one)
                if weeks := row.asked("weeks_per_class"):
                    row.spells.add((one.on - first).days // (7 * weeks))
    return list(rows.values()), dict(others)


class Share(NamedTuple):
    """One indicator of a division. What the two numbers are stands in WORDS."""

    code: str
    numerator: int
    denominator: int
    target: int
    """Percent."""

    @property
    def percent(self) -> float | None:
        """To a tenth, rounded down, so that 99.96 is not told as all; None of nothing."""
        return self.numerator * 1000 // self.denominator / 10 if self.denominator else None

    @property
    def missing(self) -> int:
        """How many more the numerator takes to meet the target."""
        return max(0, -(-self.target * self.denominator // 100) - self.numerator)


def shares(rows: Iterable[Row], target: Target, today: date) -> list[Share]:
    """The indicators of some places together; each place against its own division's target."""
    rows = list(rows)
    lacks = [row.short(today) for row in rows]

    def of(name: str, lack: str) -> tuple[int, int]:
        found = [short[lack] == 0 for row, short in zip(rows, lacks, strict=True) if row.asked(name)]
        return sum(found), len(found)

    mental = [row.mental_sessions > 0 for row in rows if row.asked("mental_share")]
    known = [row for row in rows if row.asked("school_trainings") and row.place.families is not None]
    families = [(min(row.trained, row.place.families or 0), row.place.families or 0) for row in known]
    return [
        Share("able", *of("station_sessions", "sessions"), 100),
        Share("mental_health", sum(mental), len(mental), target.mental_share),
        Share("schools", *of("school_trainings", "trainings"), 100),
        Share("families", sum(one for one, _ in families), sum(all_ for _, all_ in families), 100),
        Share("class_hours", *of("term_class_hours", "class_hours"), 100),
        Share("classes", *of("weeks_per_class", "classes"), 100),
    ]


class Total(NamedTuple):
    """A division with all below it."""

    division: str
    held: dict[str, tuple[int, Sums, Sums]]
    """Kind -> how many places, and what they held in the year and in the term."""
    shares: list[Share]


class Coverage(NamedTuple):
    """The whole answer."""

    division: str
    """"": the country."""
    year: int
    term: str
    first: date
    """Of the term in this division, as the last day; districts with dates of their own count by theirs."""
    last: date
    today: date
    target: Target
    total: Total
    below: list[Total]
    """The divisions directly under it that have places or sessions; its own code stands for what belongs to none of them."""
    rows: list[Row]
    """By division, kind and name."""

    @property
    def end(self) -> date:
        """Last day of the year."""
        return date(self.year, 12, 31)

    def days_left(self, last: date) -> int:
        """Days after today up to `last`."""
        return max(0, (last - self.today).days)


def summed(division: str, rows: Iterable[Row], others: Iterable[tuple[Sums, Sums]], target: Target, today: date) -> Total:
    """Rows and the sessions of others as one total."""
    rows = list(rows)
    held = {kind: (sum(row.place.kind == kind for row in rows), Sums(), Sums()) for kind in (*KINDS, OTHER)}
    for kind, spans in [*((row.place.kind, (row.year, row.term)) for row in rows), *((OTHER, both) for both in others)]:
        for sums, one in zip(held[kind][1:], spans, strict=True):
            sums.add(one)
    return Total(division, held, shares(rows, target, today))


def order(row: Row) -> list[str]:
    """By what rows are sorted: division, kind, name, id."""
    return [row.place.division, str(KINDS.index(row.place.kind)), row.place.name, row.place.id]


def rolled(
    rows: list[Row],
    others: Mapping[str, tuple[Sums, Sums]],
    asked: Callable[[str], Target],
    division: str,
    year: int,
    term: str,
    today: date,
) -> Coverage:
    """Rows added up for a division and for each directly under it."""

    def below(code: str) -> str:
        if not division:
            return divisions.lineage(code)[-1] if divisions.known(code) else ""
        line = divisions.lineage(code)
        return line[max(0, line.index(division) - 1)]

    rows = sorted(rows, key=order)
    parts: dict[str, tuple[list[Row], list[tuple[Sums, Sums]]]] = defaultdict(lambda: ([], []))
    for row in rows:
        parts[below(row.place.division)][0].append(row)
    for code, sums in others.items():
        parts[below(code)][1].append(sums)
    total = summed(division, rows, others.values(), asked(division), today)
    each = [summed(code, *part, asked(code), today) for code, part in sorted(parts.items())]
    first, last = asked(division).term(year, term)
    return Coverage(division, year, term, first, last, today, asked(division), total, each, rows)


# --- reading ---------------------------------------------------------------------------------------------------------


def usual_term(year: int, today: date, target: Target) -> str:
    """The term to tell of when none is asked for: the one that began last, in this year."""
    return "autumn" if today >= target.term(year, "autumn")[0] else "spring"


def coverage(division: str, year: int, term: str, today: date, only: Collection[str] | None = None) -> Coverage:
    """Coverage of a division in force ("" the country) with all below it; `term` "" is `usual_term`. With `only` just of these
    organisations, as if nothing else were there.

    One read of the year's sessions by their index on `starts_at`, with the few fields that count, one of organisations, one of
    series: the embedded server decodes slowly.
    """
    asked = targets(year)
    term = term or usual_term(year, today, asked(division))
    inside = lru_cache(None)(lambda code: divisions.within(code, division))
    current = lru_cache(None)(lambda code: divisions.current(code) if divisions.known(code) else "")
    offices = {
        raw["_id"]: raw
        for raw in Organisation.rows().find({}, {"name": 1, "kind": 1, "division": 1, "able": 1, "parents": 1})
        if inside(raw["division"]) and (only is None or raw["_id"] in only)
    }
    places = [
        Place(key, raw["name"], raw["kind"], current(raw["division"]), bool(raw.get("able")), raw.get("parents"))
        for key, raw in offices.items()
        if raw["kind"] in KINDS
    ]
    codes = {place.division for place in places} | {division}
    # clocks stand 12 hours behind UTC at most and 14 before it
    begin = datetime.combine(date(year, 1, 1), time(), UTC) - timedelta(hours=14)
    last = max([date(year, 12, 31), *(asked(code).term(year, term)[1] for code in codes)])
    end = datetime.combine(last + timedelta(days=1), time(), UTC) + timedelta(hours=12)
    # the state is looked at here: asked for beside the range, the embedded server takes half as long again
    match = {"starts_at": {"$gte": begin, "$lt": end}}
    found = CourseSession.rows().find(match, dict.fromkeys(FIELDS, 1))
    sessions = [raw for raw in found if raw["state"] in {"finished", "published"}]
    ids = sorted({raw["series"] for raw in sessions})
    series = {raw["_id"]: raw for raw in Series.rows().find({"_id": {"$in": ids}}, {"topics": 1, "audiences": 1})}
    zone = lru_cache(None)(ZoneInfo)
    held = []
    for raw in sessions:
        taught = series.get(raw["series"], {})
        audiences = taught.get("audiences") or ["parent", "student"]
        key = raw.get("host") or raw["organisation"]
        code = offices[key]["division"] if key in offices else raw["division"] if not key else ""
        if (key not in offices and (key or only is not None or not inside(code))) or not {"parent", "student"} & set(audiences):
            continue  # of another division, or for teachers and staff only
        people = raw.get("headcount")
        held.append(
            Held(
                key,
                current(code),
                raw["starts_at"].astimezone(zone(raw["zone"])).date(),
                raw.get("class_hours") or 0,
                raw.get("attended", 0) + raw.get("walk_ins", 0) if people is None else people,
                "parent" in audiences,
                not MENTAL.isdisjoint(taught.get("topics") or ()),
                raw["state"] == "published",
            )
        )
    rows, others = count(places, held, asked, year, term)
    return rolled(rows, others, asked, division, year, term, today)

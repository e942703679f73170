"""Promise 11, its pure part: every season's notices stand in the calendar once, on the right local day, for twenty years.

The days are worked out a second time here, from the file's rules as text and month by month, and compared.
"""

import calendar as months
import functools
from datetime import date, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from content import divisions
from notifications import seasons
from notifications.seasons import Override
from tests.promises.report import Measured

FIRST, LAST = date(2021, 1, 1), date(2040, 12, 31)
DAYS = (LAST - FIRST).days
HOMES = ["", "150603", "150600", "150000", "500114", "420100", "370200", "620800", "419001"]
FILE: dict[str, Any] = {row["code"]: row for row in yaml.safe_load(seasons.FILE.read_text(encoding="utf-8"))["seasons"]}


@functools.cache
def usual(code: str, year: int) -> tuple[date, date]:
    """The file's days of a season, by the look of a wall calendar."""
    rule = FILE[code]["rule"]
    if "nth" in rule:
        column = [week[rule["weekday"] - 1] for week in months.monthcalendar(year, rule["month"])]
        days = [day for day in column if day]
        at = date(year, rule["month"], days[rule["nth"] if rule["nth"] < 0 else rule["nth"] - 1])
        return at, at
    if "month" in rule:
        return date(year, rule["month"], 1), date(year, rule["month"], months.monthrange(year, rule["month"])[1])
    begins, _, ends = (rule.get("usual") or rule.get("date") or rule["week_of"]).partition("..")
    first = date.fromisoformat(f"{year}-{begins}")
    if "week_of" in rule:
        while first.weekday():
            first -= timedelta(days=1)
        return first, first + timedelta(days=6)
    return first, date.fromisoformat(f"{year}-{ends}") if ends else first + timedelta(days=rule.get("days", 1) - 1)


@st.composite
def told(draw: st.DrawFn) -> tuple[str, list[Override]]:
    """A division, and dates confirmed by it, by those above it and by others."""
    home = draw(st.sampled_from(HOMES))
    where = st.sampled_from([*(divisions.lineage(home) if home else []), "", "110101", "150602"])
    found = {}
    for key in draw(st.lists(st.tuples(where, st.sampled_from(list(FILE)), st.integers(2021, 2040)), max_size=40, unique=True)):
        first = date(key[2] - 1, 12, 1) + timedelta(days=draw(st.integers(0, 395)))
        found[key] = Override(*key, first, first + timedelta(days=draw(st.integers(0, 100))))
    return home, list(found.values())


@pytest.mark.parametrize("examples", [8, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_notice_stands_in_the_calendar_once(examples: int, measured: Measured) -> None:
    counts = {"occasions": 0, "overrides": 0}

    @settings(max_examples=examples, deadline=None, database=None)
    @given(told(), st.lists(st.integers(1, DAYS), max_size=6, unique=True))
    def holds(one: tuple[str, list[Override]], cuts: list[int]) -> None:
        home, overrides = one
        whole = seasons.occasions(home, FIRST, LAST, overrides)
        assert {(o.code, o.year, o.lead): (o.on, o.span.provisional) for o in whole} == wanted(home, overrides)
        assert len({(o.code, o.year, o.lead) for o in whole}) == len(whole)
        # a range may be asked for in parts, a day or ten years at a time
        edges = [FIRST, *(FIRST + timedelta(days=cut) for cut in sorted(cuts)), LAST + timedelta(days=1)]
        parts = [
            seasons.occasions(home, begin, end - timedelta(days=1), overrides)
            for begin, end in zip(edges, edges[1:], strict=False)
        ]
        assert [o for part in parts for o in part] == whole
        for o in whole:
            assert o.on < o.until
            assert o.until <= max(o.span.last, o.on + timedelta(days=2)) + timedelta(days=1)
            assert not any(begins <= o.at < ends for begins, ends in sat(home, o.on, overrides))
        counts["occasions"] += len(whole)
        counts["overrides"] += len(overrides)

    def sat(home: str, on: date, overrides: list[Override]) -> list[Any]:
        """Asked in June and July alone: it is the slow part, and exams are then."""
        return seasons.sittings(home, on, overrides) if on.month == 6 and on.year in {2026, 2028} else []

    holds()
    figures = f"{counts['occasions']:,} due days of 20 years × {len(FILE)} seasons under {counts['overrides']:,} confirmed dates"
    measured(11, f"{figures}, each once, in any split of the years ({examples:,} examples)")


def wanted(home: str, overrides: list[Override]) -> dict[tuple[str, int, int], tuple[date, bool]]:
    """(season, year, lead) -> (day, provisional) of every notice within the twenty years."""
    line = [*(divisions.lineage(home) if home else []), ""]
    result = {}
    for code, row in FILE.items():
        for year in range(2019, 2043):
            mine = [o for o in overrides if (o.code, o.year) == (code, year) and o.division in line]
            best = min(mine, key=lambda o: line.index(o.division), default=None)
            first, last = (best.first, best.last) if best else usual(code, year)
            provisional = not best and (bool(row["rule"].get("local")) or last > date(2027, 12, 31))
            for lead in row["lead_days"]:
                on = (last if lead > 0 else first) + timedelta(days=lead)
                if FIRST <= on <= LAST:
                    result[code, year, lead] = (on, provisional)
    return result

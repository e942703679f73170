"""Promise 16: statistics single out nobody.

Two proofs that know nothing of how `content.statistics` works. Small tables are counted out: every table there can be is
protected (with a smaller least number), and whoever sees the outcome and knows the method is given all tables that have it.
Tables of real size go to a linear solver that is given all that was told, of all scales at once, and looks for the least and the
most that an untold number can be.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from content import statistics
from content.counting import Menu
from content.statistics import ANSWERS, CELL, Table, Week, due, protect
from tests.promises.report import Measured

# --- counting out ----------------------------------------------------------------------------------------------------


def parts(total: int, into: int) -> Iterator[tuple[int, ...]]:
    """Every way to put `total` persons into so many cells."""
    if into == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in parts(total - first, into - 1):
            yield (first, *rest)


def some(of: int) -> Iterator[list[int]]:
    """Every choice of at least one."""
    for size in range(1, of + 1):
        yield from map(list, itertools.combinations(range(of), size))


Protect = Callable[..., Table]


def faults(
    groups: int, kinds: Sequence[Any], persons: int, cell: int, row: Callable[..., Any], told: Callable[[Any], Any]
) -> int:
    """Over every table of so many persons: how many numbers, of any groups and any kinds of person, that are below `cell` can be
    known, or be told down to fewer than `cell` values, from `told` of it. `row` makes a group's row of how many there are of each
    kind."""
    names, size = "ABCD"[:groups], len(kinds)
    seen: dict[Any, list[tuple[int, ...]]] = defaultdict(list)
    for cells in parts(persons, groups * size):
        rows = {name: row(cells[at * size : (at + 1) * size]) for at, name in enumerate(names)}
        seen[told(rows)].append(cells)
    found = 0
    for tables in seen.values():
        for chosen in some(groups):
            for these in some(size):
                values = {sum(cells[at * size + kind] for at in chosen for kind in these) for cells in tables}
                found += min(values) < cell if len(values) == 1 else len(values) < cell
    return found


def counted_out(groups: int, columns: int, persons: int, cell: int, method: Protect = protect) -> int:
    """Faults of one scale's tables."""
    menu = Menu(tuple("ABCD"[:groups]), {"s": tuple("wxyz"[:columns])})

    def row(cells: Sequence[int]) -> Any:
        return {"n": sum(cells), "cells": {f"s|{name}": n for name, n in zip("wxyz", cells, strict=False)}, "sums": {}}

    return faults(groups, range(columns), persons, cell, row, lambda rows: method(menu, rows, cell=cell))


def quiz_counted_out(groups: int, questions: int, persons: int, cell: int) -> int:
    """Faults of a quiz's shares: persons by how many they had right and how many they answered."""
    kinds = [(right, answered) for answered in range(questions + 1) for right in range(answered + 1)]
    menu = Menu(tuple("ABCD"[:groups]), {"core": tuple(map(str, range(questions + 1)))})

    def row(cells: Sequence[int]) -> Any:
        sums = {
            name: sum(n * kind[at] for n, kind in zip(cells, kinds, strict=True))
            for at, name in enumerate(("correct", "answered"))
        }
        return {"n": sum(cells), "cells": {}, "sums": sums}

    return faults(groups, kinds, persons, cell, row, lambda rows: protect(menu, rows, quiz=True, cell=cell))


def two_scales_counted_out(persons: int, cell: int) -> int:
    """Faults of two scales over the same persons, of two groups. Who is in which band of both at once is in no table, so a kind
    is asked for by one scale at a time: the others of it together."""
    menu = Menu(("A", "B"), {"s": ("w", "x"), "t": ("y", "z")})
    seen: dict[Any, list[tuple[int, ...]]] = defaultdict(list)
    for cells in parts(persons, 8):  # by group, then s, then t
        rows = {
            name: {
                "n": sum(part),
                "cells": {"s|w": part[0] + part[1], "s|x": part[2] + part[3], "t|y": part[0] + part[2], "t|z": part[1] + part[3]},
                "sums": {},
            }
            for name, part in (("A", cells[:4]), ("B", cells[4:]))
        }
        seen[protect(menu, rows, cell=cell)].append(cells)
    found = 0
    for tables in seen.values():
        for chosen in some(2):
            for these in ((0, 1), (2, 3), (0, 2), (1, 3), (0, 1, 2, 3)):
                values = {sum(cells[at * 4 + kind] for at in chosen for kind in these) for cells in tables}
                found += min(values) < cell if len(values) == 1 else len(values) < cell
    return found


SMALL = [(2, 2, 6, 2), (3, 2, 6, 2), (2, 2, 9, 3)]
LARGE = [
    *SMALL,
    (3, 2, 7, 2),
    (2, 3, 8, 2),
    (3, 2, 9, 3),
    (3, 2, 8, 2),
    (4, 2, 6, 2),
    (3, 3, 6, 2),
    (2, 3, 9, 3),
    (3, 2, 10, 3),
    (2, 2, 16, 4),
    (3, 3, 8, 2),
    (2, 4, 8, 2),
    (4, 2, 8, 2),
]
QUIZ = [(1, 1, 6, 2), (2, 1, 6, 2), (1, 2, 9, 3)]
QUIZ_LARGE = [*QUIZ, (1, 3, 6, 2), (2, 1, 9, 3), (1, 2, 15, 3), (1, 2, 8, 2)]


def test_who_knows_the_method_and_all_that_is_told_finds_no_small_number() -> None:
    assert [counted_out(*size) for size in SMALL] == [0] * len(SMALL)
    assert [quiz_counted_out(*size) for size in QUIZ] == [0] * len(QUIZ)
    assert two_scales_counted_out(6, 2) == 0


@pytest.mark.slow
def test_who_knows_the_method_finds_none_in_larger_ones(measured: Measured) -> None:
    found = [counted_out(*size) for size in LARGE] + [quiz_counted_out(*size) for size in QUIZ_LARGE]
    found += [two_scales_counted_out(persons, cell) for persons, cell in ((6, 2), (8, 2), (9, 3))]
    measured(16, f"every table of {len(found)} small sizes counted out by who knows the method: {sum(found)} small numbers found")
    assert not any(found)


def test_the_counting_out_finds_the_hole_of_a_method_that_looks_at_sizes() -> None:
    # a small group joined by the smallest of the others
    def naive(menu: Menu, rows: Any, cell: int) -> Any:
        order = sorted(menu.groups, key=lambda group: rows[group]["n"])
        return frozenset(statistics._runs(order, {group: rows[group]["n"] for group in order}, cell)), tuple(
            sum(rows[group]["n"] for group in run)
            for run in statistics._runs(order, {group: rows[group]["n"] for group in order}, cell)
        )

    assert counted_out(3, 1, 9, 2, naive)
    # the columns of a quiz beside the sum of its right answers
    assert counted_out(
        1,
        3,
        8,
        2,
        lambda menu, rows, cell: (protect(menu, rows, cell=cell), rows["A"]["cells"]["s|x"] + 2 * rows["A"]["cells"]["s|y"]),
    )


# --- histories of real size ------------------------------------------------------------------------------------------


class Person(NamedTuple):
    group: str
    bands: tuple[str, ...]
    """By scale."""


History = list[list[Person]]
"""Persons by week."""


def released(history: History, menu: Menu) -> list[tuple[range, Table]]:
    """What the weeks of a history release, each with the weeks it is of."""
    found, waiting, first = [], list[Week](), 0
    for week, persons in enumerate(history):
        rows: dict[str, Any] = {}
        for person in persons:
            row = rows.setdefault(person.group, {"n": 0, "cells": {}, "sums": {}})
            row["n"] += 1
            for scale, band in zip(menu.scales, person.bands, strict=True):
                row["cells"][f"{scale}|{band}"] = row["cells"].get(f"{scale}|{band}", 0) + 1
        waiting.append(Week(f"{week:02}", menu, rows))
        if table := due(waiting):
            found.append((range(first, week + 1), table))
            waiting, first = [], week + 1
    return found


def numbers(table: Table) -> Iterator[int]:
    """Every count that it tells."""
    yield from (group.n for group in table.groups)
    for scale in table.scales:
        for row in scale.rows:
            yield from row.counts


def history_of(seed: int, shape: str) -> tuple[Menu, History]:
    """A history that is hard in one way."""
    rng = random.Random(seed)
    groups = tuple("ABCD"[: rng.randint(1, 4)])
    scales = {name: (*"wxyz"[: rng.randint(1, 4)], "none") for name in "st"[: rng.randint(1, 2)]}
    menu = Menu(groups, scales)

    def person(group: str | None = None, band: int | None = None) -> Person:
        bands = (columns[min(band, len(columns) - 1)] if band is not None else rng.choice(columns) for columns in scales.values())
        return Person(group or rng.choice(groups), tuple(bands))

    history: History = []
    for _ in range(rng.randint(1, 4)):
        size = rng.choice([0, 1, 9, 10, 11, 20, 29, 30, 31, 40, 60, 100, 150])
        if shape == "one group":
            week = [person(groups[0]) for _ in range(size)] + [person(groups[-1]) for _ in range(rng.randint(0, 2))]
        elif shape == "one band":
            week = [person(band=0) for _ in range(size)] + [person() for _ in range(rng.randint(0, 1))]
        elif shape == "tens":  # exactly at the edges
            week = [
                person(group, band) for group in groups for band in range(4) for _ in range(rng.choice([0, 5, 9, 10, 10, 10, 11]))
            ]
        elif shape == "thirty":
            week = [person() for _ in range(rng.choice([15, 29, 30, 30, 30, 31]))]
        else:
            weights = [rng.random() ** 4 + 0.001 for _ in groups]
            week = [person(rng.choices(groups, weights)[0], min(int(rng.expovariate(1)), 4)) for _ in range(size)]
        history.append(week)
    return menu, history


def least_and_most(table: Table, menu: Menu, of: Callable[[str, tuple[str, ...]], bool]) -> tuple[float, float]:
    """What the number of persons `of` some kind can be, given every number of the table, of all scales together."""
    kinds = list(itertools.product(menu.groups, *menu.scales.values()))
    scales = list(menu.scales)
    sums, right = [[1.0] * len(kinds)], [float(table.n)]
    for group in table.groups:
        sums.append([float(kind[0] in group.groups) for kind in kinds])
        right.append(group.n)
    for scale in table.scales:
        at = scales.index(scale.scale) + 1
        for row in scale.rows:
            for columns, count in zip(scale.columns, row.counts, strict=True):
                sums.append([float(kind[0] in row.groups and kind[at] in columns) for kind in kinds])
                right.append(count)
    goal = [float(of(kind[0], kind[1:])) for kind in kinds]
    ends = []
    for sign in (1, -1):
        solved = linprog([sign * one for one in goal], A_eq=sums, b_eq=right, method="highs")
        assert solved.status == 0, solved.message
        ends.append(sign * solved.fun)
    return ends[0], ends[1]


SHAPES = ("any", "one group", "one band", "tens", "thirty")
cases = st.tuples(st.integers(0, 2**32), st.sampled_from(SHAPES))


def neighbours(seed: int, shape: str, solve: int) -> tuple[int, int]:
    """Check a history and one that has one answer more; returns how many releases were looked at and how many numbers tried
    (one in each `solve`-th history)."""
    menu, history = history_of(seed, shape)
    rng = random.Random(seed + 1)
    more = rng.randrange(len(history))
    other = [list(week) for week in history]
    other[more].append(Person(rng.choice(menu.groups), tuple(rng.choice(columns) for columns in menu.scales.values())))
    both = released(history, menu), released(other, menu)
    # what was told before the answer came is what it was
    before = [[(weeks, table) for weeks, table in found if weeks[-1] < more] for found in both]
    assert before[0] == before[1]
    tried = 0
    for found, persons in zip(both, (history, other), strict=True):
        last = -1
        for weeks, table in found:
            assert weeks[0] == last + 1, "an answer in two releases, or in none"
            last = weeks[-1]
            assert table.n == sum(len(persons[week]) for week in weeks) >= ANSWERS
            assert all(number >= CELL for number in numbers(table))
            assert len(table.scales) == len(menu.scales)
        if sum(map(len, persons[last + 1 :])) >= ANSWERS:
            raise AssertionError("waits with enough answers")
    if not seed % solve and (found := rng.choice(both)):
        weeks, table = rng.choice(found)
        at, some_groups = rng.randrange(len(menu.scales)), rng.sample(menu.groups, rng.randint(1, len(menu.groups)))
        columns = list(menu.scales.values())[at]
        bands = rng.sample(columns, rng.choice([1, 1, 1, 2, len(columns)]) if len(columns) > 1 else 1)
        least, most = least_and_most(table, menu, lambda group, kind: group in some_groups and kind[at] in bands)
        tried = 1
        if most - least < 1e-6:
            assert least > CELL - 1e-6, f"{some_groups} {bands}: {least} is known from {table}"
        else:
            assert most - least > CELL - 1e-6, f"{some_groups} {bands}: {least}-{most} is known from {table}"
    return sum(map(len, both)), tried


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases)
def test_neighbouring_histories(case: tuple[int, str]) -> None:
    neighbours(*case, 4)


@pytest.mark.slow
def test_neighbouring_histories_at_full_size(measured: Measured) -> None:
    looked = tried = histories = 0

    @settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(cases)
    def each(case: tuple[int, str]) -> None:
        nonlocal looked, tried, histories
        found, solved = neighbours(*case, 2)
        looked, tried, histories = looked + found, tried + solved, histories + 1

    try:
        each()
        outcome = "none changed, none below 10, none solvable"
    except AssertionError as error:
        outcome = str(error)
        raise
    finally:
        measured(16, f"{histories} neighbouring histories, {looked} releases, {tried} untold numbers for the solver: {outcome}")
    assert histories >= 20_000

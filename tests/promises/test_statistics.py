"""Promise 16: statistics single out nobody.

Two proofs that know nothing of how `content.statistics` works. Small tables are counted out: every table there can be is
protected (with a smaller least number), and whoever sees the outcome and knows the method is given all tables that have it.
Tables of real size go to a linear solver that is given all that was told, of all scales at once, and looks for the least and the
most that an untold number can be.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from content import statistics
from content.definition import Band, Definition, Item, Option, Scale
from content.menu import NONE, Menu, told
from content.scoring import score
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
    groups: int,
    kinds: Sequence[Any],
    persons: int,
    cell: int,
    row: Callable[..., Any],
    seen_of: Callable[[Any], Any],
    asked: Sequence[Sequence[int]] | None = None,
) -> int:
    """Over every table of so many persons: how many numbers, of any groups and any kinds of person (or those `asked` for), that
    are below `cell` can be known, or be told down to fewer than `cell` values, from what is seen of it. `row` makes a group's row
    of how many there are of each kind."""
    names, size = "ABCD"[:groups], len(kinds)
    seen: dict[Any, list[tuple[int, ...]]] = defaultdict(list)
    for cells in parts(persons, groups * size):
        rows = {name: row(cells[at * size : (at + 1) * size]) for at, name in enumerate(names)}
        seen[seen_of(rows)].append(cells)
    found = 0
    for tables in seen.values():
        for chosen in some(groups):
            for these in asked or list(some(size)):
                values = {sum(cells[at * size + kind] for at in chosen for kind in these) for cells in tables}
                found += min(values) < cell if len(values) == 1 else len(values) < cell
    return found


def counted_out(groups: int, columns: int, persons: int, cell: int, method: Protect = protect) -> int:
    """Faults of one scale's tables."""
    menu = Menu(tuple("ABCD"[:groups]), {"s": tuple("wxyz"[:columns])})

    def row(cells: Sequence[int]) -> Any:
        return {"n": sum(cells), "cells": {f"s|{name}": n for name, n in zip("wxyz", cells, strict=False)}, "sums": {}}

    return faults(groups, range(columns), persons, cell, row, lambda rows: method(menu, rows, cell=cell))


def quiz_counted_out(groups: int, questions: int, persons: int, cell: int, coarse: int = 0) -> int:
    """Faults of a quiz's shares: persons by how many they had right and how many they answered."""
    kinds = [(right, answered) for answered in range(questions + 1) for right in range(answered + 1)]
    menu = Menu(tuple("ABCD"[:groups]), {"core": tuple(map(str, range(questions + 1)))})

    def row(cells: Sequence[int]) -> Any:
        sums = {
            name: sum(n * kind[at] for n, kind in zip(cells, kinds, strict=True))
            for at, name in enumerate(("correct", "answered"))
        }
        return {"n": sum(cells), "cells": {}, "sums": sums}

    return faults(groups, kinds, persons, cell, row, lambda rows: protect(menu, rows, quiz=True, cell=cell, coarse=coarse))


# --- what scales share -----------------------------------------------------------------------------------------------


def of_items(most: Sequence[int], scales: Mapping[str, tuple[str, str | list[int]]]) -> Definition:
    """A check of items "abc…" worth 0 to `most`, and scales: over which items, and cut where (at each value for "")."""
    text = {"zh-Hans": "问"}
    items = tuple(
        Item(name, "choice", text, options=tuple(Option(str(n), text, n) for n in range(top + 1)))
        for name, top in zip("abcd", most, strict=False)
    )

    def bands(over: str, cuts: str | list[int]) -> tuple[Band, ...]:
        top = sum(most["abcd".index(name)] for name in over)
        starts = [0, *(cuts or range(1, top + 1))]
        ends = [*(start - 1 for start in starts[1:]), top]  # type: ignore[operator]
        return tuple(Band(f"{low}-{high}", low, high, text, {}) for low, high in zip(starts, ends, strict=True))  # type: ignore[arg-type]

    made = (Scale(name, tuple(over), "sum_if_complete", bands=bands(over, cuts)) for name, (over, cuts) in scales.items())
    return Definition("made", text, items, tuple(made))


CHECKS = {
    "disjoint": of_items([1, 1], {"s": ("a", ""), "t": ("b", ""), "both": ("ab", "")}),
    "same": of_items([2, 1], {"screen": ("ab", [2]), "total": ("ab", "")}),
    "overlapping": of_items([1, 1, 1], {"s": ("ab", ""), "t": ("bc", ""), "u": ("abc", "")}),
    "ladder": of_items([3], {f"s{cut}": ("a", [cut]) for cut in (1, 2, 3)} | {"s": ("a", "")}),
}

Told = Callable[[Definition], Mapping[str, tuple[str, ...]]]


def all_scales(definition: Definition) -> dict[str, tuple[str, ...]]:
    """As it was before: every scale with bands was told."""
    return {scale.code: (*(band.code for band in scale.bands), NONE) for scale in definition.scales}


@cache
def kinds_of(check: str, skipped: bool) -> list[dict[str, str]]:
    """The column of every scale for each way to answer the items, with questions left out or without."""
    found, definition = [], CHECKS[check]
    choices = [[*(option.code for option in item.options), *([None] if skipped else [])] for item in definition.items]
    for codes in itertools.product(*choices):
        answers = {item.link_id: code for item, code in zip(definition.items, codes, strict=True) if code is not None}
        readings = score(definition, answers).readings
        found.append({reading.scale.code: reading.counts_as.code if reading.counts_as else NONE for reading in readings})
    return found


def items_counted_out(check: str, groups: int, persons: int, cell: int, of: Told = told) -> int:
    """Faults of a check's tables, over all the answers that so many persons can have given to its items. Asked for is how many
    have any bands of any scale, of those that are told and of the others."""
    menu, kinds = Menu(tuple("ABCD"[:groups]), of(CHECKS[check])), kinds_of(check, False)
    asked = set()
    for scale, columns in all_scales(CHECKS[check]).items():
        for chosen in some(len(columns) - 1):
            asked.add(tuple(at for at, kind in enumerate(kinds) if kind[scale] in {columns[one] for one in chosen}))

    def row(cells: Sequence[int]) -> Any:
        counts: dict[str, int] = defaultdict(int)
        for kind, n in zip(kinds, cells, strict=True):
            for scale in menu.scales:
                counts[f"{scale}|{kind[scale]}"] += n
        return {"n": sum(cells), "cells": counts, "sums": {}}

    return faults(groups, kinds, persons, cell, row, lambda rows: protect(menu, rows, cell=cell), sorted(asked))


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
ITEMS = [("disjoint", 2, 6, 2), ("same", 1, 6, 2), ("overlapping", 1, 6, 2), ("ladder", 1, 8, 2)]
ITEMS_LARGE = [*ITEMS, ("disjoint", 2, 8, 2), ("disjoint", 2, 9, 3), ("same", 1, 9, 3), ("same", 2, 5, 2), ("ladder", 2, 9, 3)]
QUIZ_LARGE = [*QUIZ, (1, 3, 6, 2), (2, 1, 9, 3), (1, 2, 15, 3), (1, 2, 8, 2)]


def test_who_knows_the_method_and_all_that_is_told_finds_no_small_number() -> None:
    assert [counted_out(*size) for size in SMALL] == [0] * len(SMALL)
    assert [quiz_counted_out(*size, coarse) for size in QUIZ for coarse in (0, 100)] == [0] * 2 * len(QUIZ)
    assert [items_counted_out(*size) for size in ITEMS] == [0] * len(ITEMS)


@pytest.mark.slow
def test_who_knows_the_method_finds_none_in_larger_ones(measured: Measured) -> None:
    found = [counted_out(*size) for size in LARGE] + [quiz_counted_out(*size) for size in QUIZ_LARGE]
    found += [items_counted_out(*size) for size in ITEMS_LARGE]
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


def test_the_counting_out_finds_the_hole_of_scales_over_the_same_items() -> None:
    assert all(items_counted_out(*size, of=all_scales) for size in ITEMS if size[0] != "disjoint")


# --- histories of real size ------------------------------------------------------------------------------------------


Kind = Mapping[str, str]
"""A way to answer: by scale its column, of the scales that are told and of the others."""


class Person(NamedTuple):
    group: str
    kind: Kind


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
            for scale in menu.scales:
                name = f"{scale}|{person.kind[scale]}"
                row["cells"][name] = row["cells"].get(name, 0) + 1
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


def history_of(seed: int, shape: str, of: Told = told) -> tuple[Menu, Sequence[Kind], History]:
    """A history that is hard in one way, of scales without items or of a check of CHECKS; its menu, and the ways to answer."""
    rng = random.Random(seed)
    groups = tuple("ABCD"[: rng.randint(1, 4)])
    scales: Mapping[str, tuple[str, ...]] = {name: (*"wxyz"[: rng.randint(1, 4)], NONE) for name in "st"[: rng.randint(1, 2)]}
    kinds: Sequence[Kind] = [dict(zip(scales, columns, strict=True)) for columns in itertools.product(*scales.values())]
    if check := rng.choice(["", *CHECKS]):
        scales, kinds = of(CHECKS[check]), kinds_of(check, True)
    menu = Menu(groups, scales)

    def person(group: str | None = None, band: int | None = None) -> Person:
        return Person(group or rng.choice(groups), rng.choice(kinds) if band is None else kinds[min(band, len(kinds) - 1)])

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
    return menu, kinds, history


def least_and_most(
    table: Table, groups: Sequence[str], kinds: Sequence[Kind], of: Callable[[Person], bool]
) -> tuple[float, float]:
    """What the number of persons `of` some kind can be, given every number of the table, of all scales together, and which
    answers there can be."""
    persons = [Person(group, kind) for group in groups for kind in kinds]
    sums, right = [[1.0] * len(persons)], [float(table.n)]
    for group in table.groups:
        sums.append([float(person.group in group.groups) for person in persons])
        right.append(group.n)
    for scale in table.scales:
        for row in scale.rows:
            for columns, count in zip(scale.columns, row.counts, strict=True):
                sums.append([float(one.group in row.groups and one.kind[scale.scale] in columns) for one in persons])
                right.append(count)
    goal = [float(of(person)) for person in persons]
    ends = []
    for sign in (1, -1):
        solved = linprog([sign * one for one in goal], A_eq=sums, b_eq=right, method="highs")
        assert solved.status == 0, solved.message
        ends.append(sign * solved.fun)
    return ends[0], ends[1]


SHAPES = ("any", "one group", "one band", "tens", "thirty")
cases = st.tuples(st.integers(0, 2**32), st.sampled_from(SHAPES))


def neighbours(seed: int, shape: str, solve: int, of: Told = told) -> tuple[int, int]:
    """Check a history and one that has one answer more; returns how many releases were looked at and how many numbers tried
    (one in each `solve`-th history)."""
    menu, kinds, history = history_of(seed, shape, of)
    rng = random.Random(seed + 1)
    more = rng.randrange(len(history))
    other = [list(week) for week in history]
    other[more].append(Person(rng.choice(menu.groups), rng.choice(kinds)))
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
        scale, some_groups = rng.choice(list(kinds[0])), rng.sample(menu.groups, rng.randint(1, len(menu.groups)))
        columns = sorted({kind[scale] for kind in kinds})
        bands = rng.sample(columns, rng.choice([1, 1, 1, 2, len(columns)]) if len(columns) > 1 else 1)
        least, most = least_and_most(table, menu.groups, kinds, lambda one: one.group in some_groups and one.kind[scale] in bands)
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


def test_a_total_and_a_cut_over_the_same_items() -> None:
    # 30, 8, 7, 4 and 2 persons with 0, 1, 2, 3 and 4 points, and a second scale that says who has 2 and more
    kinds = [{"total": f"{n}-{n}", "screen": "0-1" if n < 2 else "2-4"} for n in range(5)]
    persons = [Person("A", kind) for kind, n in zip(kinds, (30, 8, 7, 4, 2), strict=True) for _ in range(n)]
    definition = of_items([4], {"screen": ("a", [2]), "total": ("a", "")})
    ends = []
    for of in (all_scales, told):
        [(_, table)] = released([persons], Menu(("A",), of(definition)))
        ends.append(least_and_most(table, ("A",), kinds, lambda one: one.kind["total"] == "1-1"))
    assert ends[0] == (8, 8), "as it was"
    assert ends[1] == (0, 21)


def test_the_solver_finds_the_hole_of_scales_over_the_same_items() -> None:
    with pytest.raises(AssertionError, match="is known from"):
        for seed in range(400):
            neighbours(seed, "thirty", 1, all_scales)


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

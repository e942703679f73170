"""What leaves of what was counted: released tables, made once, never changed. Nothing else reads the tallies.

The menu is fixed: subject, division, groups by the columns of each scale. A release takes what was counted of one subject in one
division in weeks that have ended: at least ANSWERS, else they wait for the next week. It takes them out of the tallies in the
same transaction, so no answer is in two releases and no two can be subtracted from each other.

**How a table is protected.** Nothing is blacked out, for a gap can be computed from its margins. Neighbours are merged until
every number that stands there is at least CELL:

1. Groups, in the menu's order, are gathered until a run has CELL persons; what is left over at the end joins the last run.
   Columns of a scale likewise, "none" first. Whether somebody or nobody was in a small one does not show.
2. A scale's table begins as one row of its columns. It is cut into halves of the groups' runs, and those again, as long as every
   cell of both halves is at least CELL. A cut that is not made leaves the sum of both.
3. Of a quiz no columns are told but the share of right answers: one column and the sum of right answers would give the other. It
   is cut likewise, and told as a range where fewer right or wrong answers than CELL persons could give would make it extreme. Of
   fewer than COARSE persons it is told in steps of 5 percent, of more in whole ones: a step is wider than what one person adds.

Which neighbours meet is fixed by the menu and never chosen by their size. That matters to a reader who knows this method: were a
small group joined by the smallest of the others, it could be found (A+B = 24, C = 15: only A is small, so B is 15 and A is 9).
As it stands, every number that is not told, of any groups and columns, can have CELL values or more; and the tables of several
scales, which share their persons, tell no more than each alone, for they share no item (`menu.told`): of a total and a subscale
below it only the total is told. tests/promises/test_statistics.py counts that out.

What it does not do. **It is a threshold and no noise.** Who sends contributions of their own knows those and can subtract them:
ten in each band show a single other person in that county, stage and week as the eleventh. They learn a band and no name, and
only who knows that nobody else took part there knows whose. Against it stand the limits on sending, and that no place below a
county is told. Who holds all codes of a round but one and answers those learns on which side of one step the last share lies.
Rounding by chance was weighed and left: an eleventh still shows whenever it is rounded up, the tables of one release no longer
add up or give the chance away by their margins, and the smallest true numbers would be off by up to 4 in 10.
Who knows of a questionnaire that a group cannot have a band (norms of other ages) can subtract that group from a sum it is in.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from content import counting, rounds, store
from content.counting import TallyRow, week_of
from content.menu import CORE, NONE, Menu
from content.settings import Settings

log = logging.getLogger("xinqiao.statistics")
CELL = 10  # persons; the least that any number told is about
ANSWERS = 30  # persons; the least of a release
COARSE = 100  # persons; the share of fewer is told in steps of 5 percent
KEEP = timedelta(weeks=26)  # what has not become ANSWERS by then is thrown away
PART = 50  # names in one query: the embedded server takes the square of them
QUIZZES = ("quiz:", "round:")  # subjects of which the share of right answers is told, and no columns

Block = tuple[str, ...]
"""Codes that are told as one."""
Row = Mapping[str, Any]
"""A group of a tally: {"n": persons, "cells": {"scale|column": persons}, "sums": {name: number}}."""


class Group(NamedTuple):
    groups: Block
    n: int


class ScaleRow(NamedTuple):
    groups: Block
    counts: tuple[int, ...]
    """By the scale's columns."""


class ScaleTable(NamedTuple):
    scale: str
    columns: tuple[Block, ...]
    rows: tuple[ScaleRow, ...]


class Share(NamedTuple):
    groups: Block
    n: int
    least: int
    """Right answers in percent; the same as `most` where it is known."""
    most: int


class Table(NamedTuple):
    """What is released of one subject and division. Of each list the groups make up the menu's groups."""

    n: int
    groups: tuple[Group, ...]
    scales: tuple[ScaleTable, ...]
    shares: tuple[Share, ...]


# --- protecting: plain values in, plain values out -------------------------------------------------------------------


def protect(menu: Menu, rows: Mapping[str, Row], *, quiz: bool = False, cell: int = CELL, coarse: int = COARSE) -> Table:
    """The table that may leave, of rows by group with at least `cell` persons together. The same input gives the same table.

    The menu's scales must share no item, as those of `content.menu`. A scale in which some person has no column is left out.
    Another `cell` or `coarse` is for tests that count out every case.
    """
    groups = (*menu.groups, *sorted(set(rows) - set(menu.groups)))
    persons = {group: rows[group]["n"] if group in rows else 0 for group in groups}
    n = sum(persons.values())
    if n < cell:
        raise ValueError(f"{n} < {cell}")
    runs = _runs(groups, persons, cell)
    told = tuple(Group(run, sum(persons[group] for group in run)) for run in runs)
    if quiz:
        questions = len(menu.scales.get(CORE, ())) - 1
        return Table(n, told, (), _shares(runs, rows, questions, cell, coarse))
    scales = []
    for name, columns in menu.scales.items():
        table = {
            group: {column: rows[group]["cells"].get(f"{name}|{column}", 0) if group in rows else 0 for column in columns}
            for group in groups
        }
        if all(sum(table[group].values()) == persons[group] for group in groups):
            scales.append(_scale(name, columns, runs, table, cell))
    return Table(n, told, tuple(scales), ())


def _runs(names: Sequence[str], sizes: Mapping[str, int], cell: int) -> list[Block]:
    """The names in their order, in runs of `cell` and more."""
    runs: list[Block] = []
    run: Block = ()
    for name in names:
        run = (*run, name)
        if sum(sizes[one] for one in run) >= cell:
            runs.append(run)
            run = ()
    if run:
        runs[-1:] = [(*(runs[-1] if runs else ()), *run)]
    return runs


def _cut(runs: Sequence[Block], fits: Callable[[Block], bool]) -> Iterator[Block]:
    """Halves of the runs, and halves of those, as long as both fit."""
    middle = len(runs) // 2
    halves = runs[:middle], runs[middle:]
    if middle and all(fits(_joined(half)) for half in halves):
        for half in halves:
            yield from _cut(half, fits)
    else:
        yield _joined(runs)


def _joined(runs: Sequence[Block]) -> Block:
    return tuple(name for run in runs for name in run)


def _scale(
    scale: str, columns: Sequence[str], runs: Sequence[Block], table: Mapping[str, Mapping[str, int]], cell: int
) -> ScaleTable:
    # "none" meets the mildest band and not the gravest
    order = sorted(columns, key=lambda column: column != NONE)
    blocks = _runs(order, {column: sum(row[column] for row in table.values()) for column in order}, cell)

    def counts(groups: Block) -> tuple[int, ...]:
        return tuple(sum(table[group][column] for group in groups for column in block) for block in blocks)

    cuts = _cut(runs, lambda groups: min(counts(groups)) >= cell)
    return ScaleTable(scale, tuple(blocks), tuple(ScaleRow(groups, counts(groups)) for groups in cuts))


def _shares(runs: Sequence[Block], rows: Mapping[str, Row], questions: int, cell: int, coarse: int) -> tuple[Share, ...]:
    """Right answers in percent of all that were asked for, `questions` of each person: one left unanswered is not right. A share
    of the answered alone would tell how many were left, and among few persons by whom."""
    if questions < 1:
        return ()
    extreme = cell * questions  # answers that fewer than `cell` persons cannot have given

    def answers(groups: Block) -> tuple[int, int, int]:
        found = [rows[group] for group in groups if group in rows]
        n, right = sum(row["n"] for row in found), sum(row["sums"].get("correct", 0) for row in found)
        return n, right, n * questions - right

    def share(groups: Block) -> Share:
        n, right, _ = answers(groups)
        step = 5 if n < coarse else 1
        # the ends of what is extreme lie on steps, too, else one person's answers could pass two borders
        low, high = -(-100 * cell // (n * step)) * step, 100 * (n - cell) // (n * step) * step
        if step == 1:  # to the nearest
            at, low, high = (200 * right // (n * questions) + 1) // 2, low + 1, high - 1
            if low <= at <= high:
                return Share(groups, n, at, at)
            return Share(groups, n, high if at > high else 0, low if at < low else 100)
        at = 100 * right // (n * questions * step) * step
        if low <= at < high:
            return Share(groups, n, at, at + step)
        return Share(groups, n, high if at >= high else 0, low if at < low else 100)

    return tuple(share(groups) for groups in _cut(runs, lambda groups: min(answers(groups)[1:]) >= extreme))


# --- releasing -------------------------------------------------------------------------------------------------------


class Release(store.Row):
    """A released table. Written once by `release`; nothing here changes or deletes one."""

    subject = me.StringField(required=True)
    division = me.StringField(required=True)
    number = me.IntField(required=True)
    """1, 2, … of this subject and division."""
    from_week = me.StringField(required=True)
    to_week = me.StringField(required=True)
    """ISO weeks ("2026-W47") of the first and the last answer in it."""
    made_week = me.StringField(required=True)
    n = me.IntField(required=True)
    groups = me.ListField(me.DictField())
    """[{groups, n}]"""
    scales = me.ListField(me.DictField())
    """[{scale, columns: [[code]], rows: [{groups, counts}]}]"""
    shares = me.ListField(me.DictField())
    """[{groups, n, least, most}]"""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "releases",
        "indexes": [{"fields": ["subject", "division", "number"], "unique": True}, {"fields": ["-to_week", "_id"]}],
    }


def _plain(value: Any) -> Any:
    """Named tuples as maps, other tuples as lists: how a table is stored."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


class Week(NamedTuple):
    """What one closed week holds of a division."""

    week: str
    menu: Menu
    rows: Mapping[str, Row]
    """By group."""


def due(weeks: Sequence[Week], *, quiz: bool = False, answers: int = ANSWERS, cell: int = CELL) -> Table | None:
    """The table of these weeks of one subject and division together; None while they are fewer than `answers` persons."""
    if sum(row["n"] for week in weeks for row in week.rows.values()) < answers:
        return None
    groups: dict[str, None] = {}
    scales: dict[str, dict[str, None]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for week in weeks:
        groups.update(dict.fromkeys(week.menu.groups))
        for scale, columns in week.menu.scales.items():
            scales.setdefault(scale, {}).update(dict.fromkeys(columns))
        for group, row in week.rows.items():
            into = rows.setdefault(group, {"n": 0, "cells": {}, "sums": {}})
            into["n"] += row["n"]
            for part in ("cells", "sums"):
                for name, number in row[part].items():
                    into[part][name] = into[part].get(name, 0) + number
    menu = Menu(tuple(groups), {scale: tuple(columns) for scale, columns in scales.items()})
    return protect(menu, rows, quiz=quiz, cell=cell)


def release(settings: Settings, now: datetime) -> list[tuple[str, str, int]]:
    """Release what is due: (subject, division, number) of each new table. A second call, or one beside it, finds nothing left.

    One transaction a subject: its tables, and its tallies without what is in them. What is older than KEEP goes unreleased.
    A subject that fails (a killed transaction locks it for a minute, its tally cannot be opened) keeps no other waiting: the
    first such error is raised at the end; with the database away at once. What was released stays and the next call goes on.
    """
    today = now.astimezone(ZoneInfo(settings.zone)).date()
    subjects = sorted({raw["subject"] for raw in TallyRow.rows().find({}, {"subject": 1})})
    done: list[tuple[str, str, int]] = []
    failed: list[Exception] = []
    for subject in subjects:
        before = week_of(today)
        if subject.startswith("round:"):
            found = rounds.find(subject.removeprefix("round:"))
            if found is not None and found.closes_on >= today.isoformat():
                continue
            before = week_of(today + timedelta(weeks=1))  # closed: nothing more comes this week
        try:
            done += store.transaction(partial(_release, subject, before, today))
        except Exception as error:
            if isinstance(error, PyMongoError) and not store.ping():
                raise
            log.warning("release of %s put off: %s", subject, type(error).__name__)
            failed.append(error)
    if failed:
        raise failed[0]
    return done


def _release(subject: str, before: str, today: date, session: ClientSession) -> list[tuple[str, str, int]]:
    """Inside the transaction."""
    tallies = counting.tallies(before, subject, session)
    places: dict[str, list[Week]] = {}
    for tally in tallies:
        for place in dict.fromkeys(name.partition("|")[0] for name in tally.rows):
            rows = {name.partition("|")[2]: row for name, row in tally.rows.items() if name.partition("|")[0] == place}
            places.setdefault(place, []).append(Week(tally.week, tally.menu, rows))
    done = []
    for place, weeks in sorted(places.items()):
        table = due(weeks, quiz=subject.startswith(QUIZZES))
        if table is None:
            continue
        match = {"subject": subject, "division": place}
        last = Release.rows().find_one(match, {"number": 1}, sort=[("number", -1)], session=session)
        number = last["number"] + 1 if last else 1
        about = {"from_week": weeks[0].week, "to_week": weeks[-1].week, "made_week": week_of(today)}
        Release.rows().insert_one({"_id": store.new_id(), **match, "number": number, **about, **_plain(table)}, session=session)
        done.append((subject, place, number))
    gone, released = week_of(today - KEEP), {place for _, place, _ in done}
    for tally in tallies:
        left = {name: row for name, row in tally.rows.items() if name.partition("|")[0] not in released}
        if len(left) < len(tally.rows) or tally.week < gone:
            counting.leave(session, tally, left if tally.week >= gone else {})
    return done


# --- reading ---------------------------------------------------------------------------------------------------------


def tables(subject: str = "", division: str = "", after: tuple[str, str] = ("", "")) -> Iterator[Release]:
    """Released tables, the latest weeks first, those after (to_week, id); "" does not filter. Numbers of a wider area are
    not made here: whoever adds up what its divisions were told learns nothing more."""
    match: dict[str, Any] = {name: value for name, value in (("subject", subject), ("division", division)) if value}
    if after[0]:
        match["$or"] = [{"to_week": {"$lt": after[0]}}, {"to_week": after[0], "_id": {"$gt": after[1]}}]
    return map(Release.of, Release.rows().find(match).sort([("to_week", -1), ("_id", 1)]))


def persons(subjects: Sequence[str]) -> dict[str, int]:
    """Of each subject that has any released table, the persons in all of them, of all divisions and weeks."""
    found: dict[str, int] = {}
    for start in range(0, len(subjects), PART):
        match = {"subject": {"$in": list(subjects[start : start + PART])}}
        for raw in Release.rows().find(match, {"subject": 1, "n": 1}):
            found[raw["subject"]] = found.get(raw["subject"], 0) + raw["n"]
    return found


def returned(found: Release) -> list[tuple[str, int]]:
    """Of "return": (age bucket, its phones in percent of those of bucket 0), from released numbers that stand alone."""
    told = {
        block[0]: sum(row["counts"][at] for row in table["rows"])
        for table in found.scales
        for at, block in enumerate(table["columns"])
        if len(block) == 1
    }
    if found.subject != "return" or "0" not in told:
        return []
    return [(bucket, round(100 * count / told["0"])) for bucket, count in told.items()]

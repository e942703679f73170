"""Administrative divisions: GB/T 2260 codes, each with its parent and, when retired, its successor.

The table is `data/divisions.csv` (3,212 rows) and `data/changes.csv` (retired codes); data/SOURCES.md says from where.
It is read once, at first use, and never changes. A parent is never cut from digits: counties of the four municipalities
and 419001, 4290xx, 4690xx, 6590xx sit directly under a province, and 441900 has no counties at all.

An empty code or `COUNTRY` means the whole country. Retired codes stay known, so that what was stored under them is still
found: every function looks at a code's successor when it has one. Development zones and Corps cities that run schools
without an ordinary code would join as one more source of rows in `_table` (a code of their own, any row as parent).
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from content.failures import NotFound, Text, invalid

DATA = Path(__file__).parent / "data"
COUNTRY = "000000"


class Division(NamedTuple):
    """One division. `parent` is empty for a province; `level` is province, prefecture or county."""

    code: str
    name: str
    type: str
    """As the table says: 县级市, 自治县, … ; empty for a retired code."""
    level: str
    parent: str
    retired: bool = False
    replaced_by: str | None = None
    """The code that took over; None when it is not retired, or when the tables alone do not say."""


def _row(row: dict[str, str]) -> Division:
    return Division(row["code"], row["name"], row["type"], row["level"], row["parent"])


@lru_cache(maxsize=1)
def _table() -> dict[str, Division]:
    with (DATA / "divisions.csv").open(encoding="utf-8", newline="") as file:
        table = {row["code"]: _row(row) for row in csv.DictReader(file)}
    with (DATA / "changes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            replaced_by = row["replaced_by"] or None
            table[row["code"]] = Division(row["code"], row["name"], "", row["level"], row["parent"], True, replaced_by)
    return table


@lru_cache(maxsize=1)
def _children() -> dict[str, list[Division]]:
    children: dict[str, list[Division]] = {}
    for row in _table().values():
        if not row.retired:
            children.setdefault(row.parent, []).append(row)
    for rows in children.values():
        rows.sort()
    return children


def get(code: str) -> Division:
    """The division of a code, retired or not. Raises `NotFound`."""
    found = _table().get(code)
    if found is None:
        raise NotFound(what=code)
    return found


def known(code: str) -> bool:
    """Whether it is a division's code, retired or not. The whole country is not a division."""
    return code in _table()


def current(code: str) -> str:
    """The code in force: itself, or the last of its successors. A retired code without one stays. Raises `NotFound`."""
    while (successor := get(code).replaced_by) is not None:
        code = successor
    return code


def lineage(code: str) -> list[str]:
    """[code in force, its parent, …, its province]. Raises `NotFound`."""
    line = [current(code)]
    while parent := get(line[-1]).parent:
        line.append(current(parent))
    return line


def within(code: str, ancestor: str) -> bool:
    """Whether `code` is `ancestor` or lies under it. Everything lies in the whole country; the whole country and an
    unknown code lie in nothing else."""
    if ancestor in {"", COUNTRY}:
        return True
    return known(code) and known(ancestor) and current(ancestor) in lineage(code)


def overlap(one: str, other: str) -> bool:
    """Whether a family can be in both: one of them lies in the other. "" is the whole country."""
    return within(one, other) or within(other, one)


def children(code: str = "") -> list[Division]:
    """Divisions directly under `code`, by code; of the whole country, the provinces. Raises `NotFound`."""
    return list(_children().get("" if code in {"", COUNTRY} else current(code), []))


def search(name: str, parent: str = "", limit: int = 50) -> list[Division]:
    """Divisions in force under `parent` (at any depth) whose name holds `name`; full matches first, then by code."""
    found = [row for row in _table().values() if name in row.name and not row.retired and within(row.code, parent)]
    return sorted(found, key=lambda row: (row.name != name, row.code))[:limit]


def check(code: str, field: str) -> str:
    """The code in force to store for `code`. Raises `Invalid` on `field` when it is unknown, or retired without a successor."""
    if not known(code):
        raise invalid(field, "unknown_reference", value=code)
    row = get(current(code))
    if row.retired:
        raise invalid(field, "unknown_reference", value=Text(f"{code} {row.name}（已撤销）", f"{code} {row.name} (retired)"))
    return row.code

"""Sampled rounds: a quiz answered by those to whom a one-time code was given, so that its share of right answers is of a sample.

The codes are shown once, when the round is made, and kept as keyed hashes only, until the round has closed. A code is used up in
the transaction that counts its answer, and nothing says which answer came with which.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import mongoengine as me

from content import checks, counting, menu, records, store
from content.codes import ALPHABET, READ_AS
from content.failures import NotFound, invalid
from content.published import Snapshot
from content.settings import Settings

SIZE = (30, 5000)  # codes; of fewer answers than 30 no table is released
LENGTH = 10  # characters of 5 bits
LONGEST = timedelta(weeks=12)  # what is counted first must not be thrown away before the round closes
STEP = 10  # codes; who watches an open round sees ten used at a time and not the moment of each


class Round(NamedTuple):
    """What a code leads to."""

    id: str
    slug: str
    version: str
    """Of the definition."""
    division: str
    groups: tuple[str, ...]
    closes_on: str
    """Local date, the last day it can be answered on: "2026-12-01"."""


class RoundRow(records.Record):
    """One round. Nothing changes it after it was made."""

    slug = me.StringField(required=True)
    version = me.StringField(required=True)
    division = me.StringField(required=True)
    groups = me.ListField(me.StringField())
    size = me.IntField(required=True)
    closes_on = me.StringField(required=True)

    NAME = "round"
    meta: ClassVar[dict[str, Any]] = {"collection": "rounds", "indexes": [{"fields": ["-closes_on", "_id"]}]}

    def plain(self) -> Round:
        """Without its trail."""
        return Round(self.id, self.slug, self.version, self.division, tuple(self.groups), self.closes_on)


class Codes(store.Row):
    """Unused codes of a round: those whose keyed hashes begin alike. A row for each of 5,000 took 5 s to write."""

    round = me.StringField(required=True)
    begin = me.StringField(required=True)
    """The hashes' first `counting.BEGIN` digits."""
    unused = me.ListField(me.StringField())
    """Keyed hashes, in their own order."""
    expires_at = me.DateTimeField(required=True)
    """The midnight after the round's last day."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": counting.CODES,
        "indexes": [{"fields": ["round"]}, {"fields": ["begin"]}, {"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


def read(code: str) -> str:
    """A code as it was made: case, blanks and dashes do not matter, O is 0, I and L are 1. What `counting.count` is given."""
    return code.upper().translate(READ_AS)


def today(settings: Settings) -> date:
    """On the clocks of the district."""
    return store.now().astimezone(ZoneInfo(settings.zone)).date()


def make(
    settings: Settings,
    snapshot: Snapshot,
    slug: str,
    division: str,
    size: int,
    closes_on: date,
    by: str,
    stages: Sequence[str] = (),
) -> tuple[RoundRow, list[str]]:
    """A new round of the published quiz, and its codes, which are kept nowhere here. `stages`: the groups to tell apart, those of
    the quiz when empty. Raises `Invalid`. What a crash leaves is a few codes that lead nowhere and expire."""
    try:
        item, definition = checks.published_check(snapshot, slug)
        register = (item.content or {})["register"]
    except NotFound:
        raise invalid("slug", "unknown_reference", value=slug) from None
    if register["purpose"] != "knowledge":
        raise invalid("slug", "not_a_quiz", value=slug, purpose=register["purpose"])
    place, first = menu.place(settings, division), today(settings)
    if not first <= closes_on <= first + LONGEST:
        raise invalid("closes_on", "out_of_range", reason=f"{first} – {first + LONGEST}")
    low, high = SIZE
    if not low <= size <= high:
        raise invalid("size", "out_of_range", reason=f"{low}–{high}")
    groups = list(menu.groups_of(stages or register["stages"]))
    found = RoundRow(
        slug=slug, version=definition.version, division=place, groups=groups, size=size, closes_on=closes_on.isoformat()
    )
    codes: set[str] = set()
    while len(codes) < size:
        codes.add("".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))
    midnight = datetime.combine(closes_on + timedelta(days=1), time(), ZoneInfo(settings.zone)).astimezone(UTC)
    names = sorted(counting.blind(settings, "code", code) for code in codes)
    rows = [
        {"_id": store.new_id(), "round": found.id, "begin": begin, "unused": list(alike), "expires_at": midnight}
        for begin, alike in groupby(names, key=lambda name: name[: counting.BEGIN])
    ]
    Codes.rows().insert_many(rows, ordered=False)
    return records.create(found, by), sorted(codes)


def find(round_id: str) -> RoundRow | None:
    """A round by its id."""
    raw = RoundRow.rows().find_one({"_id": round_id})
    return RoundRow.of(raw) if raw else None


def lookup(settings: Settings, code: str) -> Round | None:
    """The round of an unused code (as typed); None for another, for a used one, and once the round has closed."""
    raw = Codes.rows().find_one(counting.having([counting.blind(settings, "code", read(code))]))
    found = find(raw["round"]) if raw else None
    return found.plain() if found and found.closes_on >= today(settings).isoformat() else None


def unused(settings: Settings, found: RoundRow) -> int | None:
    """How many of its codes are unused, at most: counted down in steps; None once it has closed, when they are gone."""
    if found.closes_on < today(settings).isoformat():
        return None
    used = found.size - sum(len(raw["unused"]) for raw in Codes.rows().find({"round": found.id}, {"unused": 1}))
    return int(found.size - used // STEP * STEP)


def listed(after: tuple[str, str] = ("", "")) -> list[RoundRow]:
    """Rounds, the last to close first; those after (closes_on, id)."""
    match: dict[str, Any] = {}
    if after[0]:
        match["$or"] = [{"closes_on": {"$lt": after[0]}}, {"closes_on": after[0], "_id": {"$gt": after[1]}}]
    return [RoundRow.of(raw) for raw in RoundRow.rows().find(match).sort([("closes_on", -1), ("_id", 1)])]

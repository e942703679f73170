"""Counting without knowing who: a contribution is counted once and becomes part of a sum.

A phone makes a nonce for one contribution: the local day and 128 random bits. Here stay, until the next local midnight, a keyed
hash of it (`nonces`: no answer, no division) and, until it is released, one sealed tally a subject and week (`tallies`). A tally
is one blob, padded, so whoever holds the store without the data key sees that some of a subject were counted that week.

**Groups** (`content.groups`). A process commits what has arrived in one transaction: nonces in, codes out, tallies read and
written again. See tests/bench/contributions.py for what it reaches.

**Crash.** An answer goes out after a majority commit: what was acknowledged is counted, whatever dies afterwards. What was not
acknowledged may be counted or not; the phone sends the same nonce again, and it counts once.

**The oplog** (as a change stream tells it; measured): each group is one transaction at one moment, in milliseconds: its nonces'
hashes, in their own order, and of each subject that it touches the whole new tally, always a multiple of STEP and all its bytes
others. So it tells when how many were counted together and of which subjects, not which band, division or group, nor which nonce
went with which subject, unless a group holds one contribution alone: then its subject and moment show, and nothing else.
"""

import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo import InsertOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern

from content import sealed, store
from content.failures import NotFound, Unavailable, invalid
from content.groups import Groups, Part
from content.menu import Contribution, Menu
from content.settings import Settings

TRIES = 8  # of one group, when others keep bringing the same nonces
STEP = 2048  # bytes; a sealed tally is a multiple of it, so that its size tells little
NONCE = re.compile("([0-9]{8})-[0-9a-f]{32}")
DUPLICATE = 11000  # MongoDB's code


class Tally(NamedTuple):
    """A week's sums of one subject."""

    id: str
    subject: str
    week: str
    menu: Menu
    rows: Mapping[str, Mapping[str, Any]]
    """"division|group" -> {"n": persons, "cells": {"scale|column": n}, "sums": {name: n}}."""


class Nonce(store.Row):
    """`_id` is the keyed hash of a nonce that was counted. Written by `count` only."""

    expires_at = me.DateTimeField(required=True)
    """The next local midnight, the same for all of a day."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "nonces",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


class TallyRow(store.Row):
    """A tally as stored."""

    subject = me.StringField(required=True)
    week = me.StringField(required=True)
    """ISO week of the nonces' local day: "2026-W47"."""
    sealed = me.BinaryField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "tallies",
        "indexes": [{"fields": ["subject", "week"], "unique": True}],
    }


# --- names -----------------------------------------------------------------------------------------------------------


def blind(settings: Settings, purpose: str, text: str) -> str:
    """128 bits of a keyed hash as hex: without the data key nobody can try texts against it. Each purpose has its own key."""
    return hmac.digest(sealed.derived(settings, purpose), text.encode(), "sha256")[:16].hex()


def day_of(settings: Settings, nonce: str) -> date:
    """The local day that a nonce names. Raises `Invalid` for another form and another day than today's."""
    found = NONCE.fullmatch(nonce)
    today = store.now().astimezone(ZoneInfo(settings.zone)).date()
    if not found:
        raise invalid("nonce", "bad_format", reason=f"{today:%Y%m%d}-0123456789abcdef0123456789abcdef")
    if found[1] != f"{today:%Y%m%d}":
        raise invalid("nonce", "other_day", today=f"{today:%Y%m%d}")
    return today


def week_of(day: date) -> str:
    """ "2026-W47"."""
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02}"


# --- one contribution ------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Part(Part):
    """A contribution on its way; its outcome says whether it was counted now."""

    nonce: str
    expires_at: datetime
    week: str
    what: Contribution
    code: str | None


def count(settings: Settings, nonce: str, contribution: Contribution, code: str | None = None) -> bool:
    """Count it. True: now; False: this nonce was counted before, so a repeat after a lost answer is safe, whatever else it says.

    `code` is the one-time code of a sampled round, used up in the same transaction. Raises `Invalid` (the nonce's form, not
    today's), `NotFound("unknown_code")`, `Unavailable`: then it may have been counted or not, and the same nonce may come again.
    """
    day = day_of(settings, nonce)
    midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(settings.zone)).astimezone(UTC)
    name = blind(settings, "nonce", nonce)
    part = _Part(name, midnight, week_of(day), contribution, blind(settings, "code", code) if code else None)
    return bool(_groups.join(settings, part))


def _settle(group: list[_Part]) -> None:
    """Give each part its outcome. What is wrong with one of them is told to that one; the others count."""
    first: dict[str, _Part] = {}
    again = [part for part in group if first.setdefault(part.nonce, part) is not part]
    try:
        _commit(list(first.values()))
    except Exception as error:
        failure = store.failure_of(error) if isinstance(error, PyMongoError) else None
        if isinstance(failure, Unavailable) or len(first) == 1:
            for part in first.values():
                part.outcome = part.outcome or failure or error
        else:
            for part in first.values():
                if part.outcome is None:
                    _settle([part])
    for part in again:  # the same nonce twice in one group
        outcome = first[part.nonce].outcome
        part.outcome = False if isinstance(outcome, bool) else outcome


def _commit(parts: list[_Part]) -> None:
    """All of them in one transaction; those counted before or with an unknown code are told so and left out."""
    # in the order of their hashes, so that what is written does not tell who came before whom
    left = sorted(parts, key=lambda part: part.nonce)
    for _ in range(TRIES):
        if not left:
            return
        try:
            unknown = store.transaction(partial(_write, parts=left))
        except (BulkWriteError, DuplicateKeyError) as error:
            if not _duplicate(error):
                raise
            # one of the nonces, or another process made the same tally: a failed write ends the transaction, so we look outside
            known = _known([part.nonce for part in left])
            for part in left:
                part.outcome = False if part.nonce in known else None
            left = [part for part in left if part.nonce not in known]
            continue
        known = _known([part.nonce for part in unknown])  # whose code was used by themselves, before the answer was lost
        for part in left:
            part.outcome = True
        for part in unknown:
            part.outcome = False if part.nonce in known else NotFound("unknown_code")
        return
    if left:
        raise Unavailable()


def _known(names: list[str]) -> set[str]:
    """Those that were counted, by a majority."""
    rows = Nonce.rows().with_options(read_concern=ReadConcern("majority"))
    return {raw["_id"] for raw in rows.find({"_id": {"$in": names}}, {"_id": 1})} if names else set()


def counted(settings: Settings, nonce: str) -> bool:
    """Whether this nonce was counted."""
    return bool(_known([blind(settings, "nonce", nonce)]))


_groups = Groups("counting", _settle)


def _duplicate(error: PyMongoError) -> bool:
    rows = (getattr(error, "details", None) or {}).get("writeErrors") or [{"code": getattr(error, "code", None)}]
    return all(row["code"] == DUPLICATE for row in rows)


def _write(session: ClientSession, *, parts: Sequence[_Part]) -> list[_Part]:
    """Inside the transaction; returns the parts whose code is unknown, of which nothing was written."""
    unknown: list[_Part] = []
    if codes := {part.code for part in parts if part.code}:
        rows = store.database()[CODES]
        free = {name for raw in rows.find(having(codes), {"unused": 1}, session=session) for name in raw["unused"]}
        used: set[str] = set()
        for part in parts:
            if part.code and (part.code not in free or part.code in used):
                unknown.append(part)
            elif part.code:
                used.add(part.code)
        if used:
            rows.update_many(having(used), {"$pull": {"unused": {"$in": sorted(used)}}}, session=session)
    counted = [part for part in parts if part not in unknown]
    if not counted:
        return unknown
    Nonce.rows().bulk_write([InsertOne({"_id": p.nonce, "expires_at": p.expires_at}) for p in counted], session=session)
    touched: dict[tuple[str, str], list[Contribution]] = {}
    for part in counted:
        touched.setdefault((part.what.subject, part.week), []).append(part.what)
    writes: list[Any] = []
    for (subject, week), found in touched.items():
        match = {"subject": subject, "week": week}
        raw = TallyRow.rows().find_one(match, session=session)
        put = _seal(_added(_open(raw["sealed"]) if raw else {}, found))
        writes.append(
            UpdateOne({"_id": raw["_id"]}, {"$set": {"sealed": put}})
            if raw
            else InsertOne({"_id": store.new_id(), **match, "sealed": put})
        )
    TallyRow.rows().bulk_write(writes, session=session)
    return unknown


CODES = "codes"
BEGIN = 2  # digits by which the hashes of codes are looked up; see `rounds.Codes`


def having(codes: Iterable[str]) -> dict[str, Any]:
    """The rows of unused codes with any of these hashes."""
    names = sorted(codes)
    return {"begin": {"$in": sorted({name[:BEGIN] for name in names})}, "unused": {"$in": names}}


def _added(tally: dict[str, Any], found: Iterable[Contribution]) -> dict[str, Any]:
    """The sealed JSON's value with these added."""
    menu = tally.setdefault("menu", {"groups": [], "scales": {}})
    rows = tally.setdefault("rows", {})
    for one in found:
        # a menu may grow within a version: stages belong to the register, which is not hashed
        menu["groups"] = list(dict.fromkeys([*menu["groups"], *one.menu.groups]))
        for scale, columns in one.menu.scales.items():
            menu["scales"][scale] = list(dict.fromkeys([*menu["scales"].get(scale, ()), *columns]))
        row = rows.setdefault(f"{one.division}|{one.group}", {"n": 0, "cells": {}, "sums": {}})
        row["n"] += 1
        for part, added in (
            ("cells", {f"{scale}|{column}": 1 for scale, column in one.columns.items()}),
            ("sums", one.sums),
        ):
            for name, number in added.items():
                row[part][name] = row[part].get(name, 0) + number
    return tally


def _seal(tally: Mapping[str, Any]) -> bytes:
    text = json.dumps(tally, separators=(",", ":"))
    return sealed.seal(text.ljust(-(-len(text) // STEP) * STEP))


def _open(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sealed.unseal(data))
    return found


# --- what was counted ------------------------------------------------------------------------------------------------


def tallies(before_week: str, subject: str = "", session: ClientSession | None = None) -> list[Tally]:
    """Tallies of the weeks before this one, of one subject or of all, oldest first; for `statistics` alone, which reads them
    inside the transaction that takes what it releases."""
    match: dict[str, Any] = {"week": {"$lt": before_week}} | ({"subject": subject} if subject else {})
    found = []
    for raw in TallyRow.rows().find(match, session=session).sort([("week", 1), ("subject", 1)]):
        value = _open(raw["sealed"])
        scales = {scale: tuple(columns) for scale, columns in value["menu"]["scales"].items()}
        menu = Menu(tuple(value["menu"]["groups"]), scales)
        found.append(Tally(raw["_id"], raw["subject"], raw["week"], menu, value["rows"]))
    return found


def leave(session: ClientSession, tally: Tally, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep only these rows of a tally, inside the caller's transaction; without any the tally is deleted."""
    match = {"_id": tally.id}
    if rows:
        menu = {"groups": tally.menu.groups, "scales": tally.menu.scales}
        TallyRow.rows().update_one(match, {"$set": {"sealed": _seal({"menu": menu, "rows": rows})}}, session=session)
    else:
        TallyRow.rows().delete_one(match, session=session)

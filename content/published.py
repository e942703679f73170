"""The published set: what readers may see, in one collection and in one snapshot a process.

Everything public (a lesson in one language, a check, a course, a session, a help-line, a season, a notice) is an `Item`.
Verbs that publish call `release` inside their own transaction; it stamps the items with the next sequence number. A
withdrawn item stays as a tombstone with no content, so that a reader who has it can be told.

`Reader` is the process's copy: one thread asks for the sequence every 0.4 s, reads only rows with a higher one, swaps in
a new immutable `Snapshot`, and knows whether the database is up. Reading never touches the database. The last snapshot is
kept as a file, so that a process born while the database is away still serves it.

A sequence number means something only within its `epoch`, a random name of this history of the set. A restored backup is
another history: whoever sees the sequence run backwards gives it a new epoch, so that no phone goes on from a number that now
stands for something else. Tombstones go after KEEP_TOMBSTONES; `floor` is the highest sequence that one of those had, and
whoever was there last before it must start over.
"""

import bisect
import gzip
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
import pymongo
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from content import store

log = logging.getLogger("xinqiao.published")
POLL = 0.4  # seconds between two questions for the sequence
AWAY = 1.0  # seconds; a database that has not answered that small question by then is away, be it dead or hanging
LOAD = 10.0  # seconds a read of the rows themselves may take; 10,000 lessons at a first start take most of one
SAVE = 30.0  # seconds between two writings of the kept file; a process born in an outage is that much behind at most
KEEP_TOMBSTONES = timedelta(days=400)  # a phone that was away for longer than a school year starts over
ANY = "*"  # language of an item that has none of its own


class PublishedRow(store.Row):
    """One item as stored; `_id` is kind:key:language."""

    kind = me.StringField(required=True)
    key = me.StringField(required=True)
    language = me.StringField(required=True)
    seq = me.IntField(required=True)
    at = me.DateTimeField(required=True)
    content = me.StringField()
    """Canonical JSON, so that no key of it is ever read as an operator; null when withdrawn."""

    meta: ClassVar[dict[str, Any]] = {"collection": "published", "indexes": [{"fields": ["seq"]}]}


class Counter(store.Row):
    """A named sequence."""

    value = me.IntField(required=True)
    epoch = me.StringField()
    """Of "published": the random name of this history."""
    floor = me.IntField()
    """Of "published": the highest sequence of a purged tombstone; absent while none was purged."""

    meta: ClassVar[dict[str, Any]] = {"collection": "counters"}


@dataclass(frozen=True, slots=True)
class Item:
    """One published thing in one language. `content` is plain JSON values; None marks a tombstone."""

    kind: str
    key: str
    language: str
    content: Mapping[str, Any] | None
    seq: int = 0
    at: datetime = datetime.min.replace(tzinfo=UTC)


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no blanks, text as it is. Hash this, store this."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def release(session: ClientSession, items: Iterable[Item]) -> int:
    """Write items into the published set inside the caller's transaction; returns their sequence number.

    The counter's write conflict orders concurrent releases, so a reader that has seen sequence n has all rows up to n.
    """
    counter = Counter.rows().find_one_and_update(
        {"_id": "published"},
        {"$inc": {"value": 1}, "$setOnInsert": {"epoch": new_epoch()}},
        upsert=True,
        session=session,
        return_document=ReturnDocument.AFTER,
    )
    seq, at = int(counter["value"]), store.now()
    for item in items:
        row = {
            "kind": item.kind, "key": item.key, "language": item.language, "seq": seq, "at": at,
            "content": None if item.content is None else canonical(item.content),
        }  # fmt: skip
        name = f"{item.kind}:{item.key}:{item.language}"
        PublishedRow.rows().replace_one({"_id": name}, row, upsert=True, session=session)
    return seq


def new_epoch() -> str:
    """A random name for a history of the set."""
    return store.new_id()[:16]


class Mark(NamedTuple):
    """Where the published set in the database stands."""

    seq: int = 0
    epoch: str = ""
    """Empty while nothing was ever published."""
    floor: int = 0


def mark() -> Mark:
    """Ask the database where it stands. Raises driver errors."""
    with pymongo.timeout(AWAY):
        row = Counter.rows().find_one({"_id": "published"}) or {}
    return Mark(int(row.get("value") or 0), row.get("epoch") or "", int(row.get("floor") or 0))


def step_epoch(old: str | None = None) -> bool:
    """Give the published set a new epoch: every phone is told to start over at its next sync. For whatever puts an older set
    in the place of a newer one. With `old` only when that is the present one ("": none yet), so that of several processes that
    see the same restore one steps. Returns whether this call did; without anything published a no-op."""
    match: dict[str, Any] = {"_id": "published"}
    if old is not None:
        match["epoch"] = old or None
    return bool(Counter.rows().update_one(match, {"$set": {"epoch": new_epoch()}}).modified_count)


def purge_tombstones(before: datetime) -> int:
    """Delete tombstones released before `before` and raise `floor` to the highest sequence among them, in one transaction.
    Returns how many; a second call deletes nothing. Raises driver errors."""

    def work(session: ClientSession) -> int:
        rows = list(PublishedRow.rows().find({"content": None, "at": {"$lt": before}}, {"seq": 1}, session=session))
        if rows:
            match = {"_id": {"$in": [row["_id"] for row in rows]}, "content": None}
            PublishedRow.rows().delete_many(match, session=session)
            floor = {"$max": {"floor": max(row["seq"] for row in rows)}}
            Counter.rows().update_one({"_id": "published"}, floor, session=session)
        return len(rows)

    return store.transaction(work)


Name = tuple[str, str, str]  # kind, key, language


def _uses(item: Item | None) -> Iterable[str]:
    """Hashes of the media that an item shows."""
    named = (item.content or {}).get("media") if item and item.kind != "media" else None
    return named if isinstance(named, list) else ()


@dataclass(frozen=True)
class Snapshot:
    """All published items at one sequence number. Immutable: `after` gives the next one."""

    seq: int = 0
    kinds: Mapping[str, Mapping[str, Mapping[str, Item]]] = field(default_factory=dict)
    """kind -> key -> language -> item, tombstones left out."""
    gone: Mapping[Name, Item] = field(default_factory=dict)
    """Tombstones by (kind, key, language)."""
    epoch: str = ""
    floor: int = 0
    log: Sequence[Item] = ()
    """Items and tombstones by their sequence. Those that another has replaced may still stand in it: see `since`."""
    uses: Mapping[str, frozenset[Name]] = field(default_factory=dict)
    """Media hash -> the items whose content names it in `media`."""
    _superseded: int = 0
    """How many entries of `log` are."""
    _memos: dict[str, dict[Any, Any]] = field(default_factory=dict, compare=False, repr=False)

    def memo(self, kind: str) -> dict[Any, Any]:
        """What readers compute from the items of this kind and want again (sorted lists, parsed definitions). It lives until
        an item of this kind changes: a session's last seat does not have ten thousand lessons sorted anew. That of `ANY` lives
        until anything does."""
        return self._memos.setdefault(kind, {})

    def entries(self, kind: str) -> Mapping[str, Mapping[str, Item]]:
        """key -> language -> item of one kind; empty when there is none."""
        return self.kinds.get(kind, MappingProxyType({}))

    def get(self, kind: str, key: str) -> Mapping[str, Item]:
        """language -> item; empty when not published."""
        return self.entries(kind).get(key, MappingProxyType({}))

    def at(self, name: Name) -> Item | None:
        """The item or tombstone of this name."""
        return self.get(name[0], name[1]).get(name[2]) or self.gone.get(name)

    def since(self, seq: int) -> Iterator[Item]:
        """Items and tombstones released after `seq`, in order. Costs as much as what changed, not as what there is."""
        for at in range(bisect.bisect_right(self.log, seq, key=lambda item: item.seq), len(self.log)):
            item = self.log[at]
            if self._stands(item):
                yield item

    def _stands(self, item: Item) -> bool:
        return self.at((item.kind, item.key, item.language)) is item

    def after(self, seq: int, rows: Iterable[Item], floor: int = 0) -> "Snapshot":
        """The snapshot with these rows laid over it, and without the tombstones up to `floor`."""
        kinds, gone, uses = dict(self.kinds), dict(self.gone), dict(self.uses)
        fresh: set[str] = set()
        added = sorted(rows, key=lambda item: item.seq)
        superseded = self._superseded
        for item in added:
            if item.kind not in fresh:
                kinds[item.kind] = dict(kinds.get(item.kind, {}))
                fresh.add(item.kind)
            name = (item.kind, item.key, item.language)
            keys: dict[str, Mapping[str, Item]] = kinds[item.kind]  # type: ignore[assignment]
            before = keys.get(item.key, {})
            old = before.get(item.language)
            superseded += old is not None or name in gone
            for sha256 in _uses(old):
                uses[sha256] = uses[sha256] - {name}
                if not uses[sha256]:
                    del uses[sha256]
            languages = {k: v for k, v in before.items() if k != item.language}
            if item.content is None:
                gone[name] = item
            else:
                gone.pop(name, None)
                languages[item.language] = item
                for sha256 in set(_uses(item)):
                    uses[sha256] = uses.get(sha256, frozenset()) | {name}
            if languages:
                keys[item.key] = languages
            else:
                keys.pop(item.key, None)
        floor = max(self.floor, floor)
        if floor > self.floor:
            purged = [name for name, item in gone.items() if item.seq <= floor]
            for name in purged:
                del gone[name]
            superseded += len(purged)
        log = [*self.log, *added]
        if added and self.log and added[0].seq < self.log[-1].seq:
            log.sort(key=lambda item: item.seq)
        memos = {kind: memo for kind, memo in self._memos.items() if kind not in fresh and kind != ANY}
        result = Snapshot(seq, kinds, gone, self.epoch, floor, log, uses, superseded, memos)
        if superseded * 2 > len(log):  # a walk, once in as many releases as there are entries
            return replace(result, log=[item for item in log if result._stands(item)], _superseded=0)
        return result


def _item(raw: Mapping[str, Any]) -> Item:
    content = raw["content"]
    return Item(raw["kind"], raw["key"], raw["language"], None if content is None else json.loads(content), raw["seq"], raw["at"])


def _rows(since: int, to: int) -> Iterator[Item]:
    """All rows stamped after `since` up to `to`, oldest first. Raises driver errors."""
    return map(_item, PublishedRow.rows().find({"seq": {"$gt": since, "$lte": to}}).sort("seq", 1))


def read(known: Snapshot | None = None) -> Snapshot:
    """The published set as the database has it now: `known` itself when nothing has changed, else what has changed laid over
    it, else (another epoch) all of it anew. A sequence or floor that has run backwards gets a new epoch here. Raises driver
    errors."""
    known, there = known or Snapshot(), mark()
    backwards = there.epoch == known.epoch and (there.seq < known.seq or there.floor < known.floor)
    if backwards or (there.seq and not there.epoch):
        if backwards:
            log.warning("the sequence went from %s to %s, back: an older backup was restored", known.seq, there.seq)
        step_epoch(there.epoch)
        there = mark()
    if there == (known.seq, known.epoch, known.floor):
        return known
    with pymongo.timeout(LOAD):
        if there.epoch == known.epoch and not backwards:
            return known.after(there.seq, _rows(known.seq, there.seq), there.floor)
        made = Snapshot(epoch=there.epoch).after(there.seq, _rows(0, there.seq), there.floor)
        for _ in range(5):  # a row released again meanwhile lies beyond the bound: without it the set would not be whole
            later = mark()
            if later.epoch != there.epoch or later.seq <= there.seq:
                break
            made = made.after(later.seq, _rows(there.seq, later.seq), later.floor)
            there = later
        return made


class Reader:
    """The process's published snapshot, kept fresh by one daemon thread.

    `current` is swapped whole, so a request reads one consistent state. `up` says whether the database answered last
    time. `watch(call)` is told of every new snapshot, in the thread.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.current = Snapshot()
        self.up = False
        self._file = file
        self._watchers: list[Callable[[Snapshot], None]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._keeping = threading.Lock()
        self._saved = self.current

    def watch(self, call: Callable[[Snapshot], None]) -> None:
        """Call `call(snapshot)` after each swap."""
        self._watchers.append(call)

    def start(self) -> None:
        """Load what there is (database, else file) and start the thread. A second call is a no-op."""
        if self._thread:
            return
        kept = _header(self._file) if self._file else None  # before the database is read: a sibling may save a later state
        if self.refresh():
            self._compare(kept)
        elif self._file:
            self._swap(_load(self._file))
            self._saved = self.current
        self._thread = threading.Thread(target=self._run, name="published", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        if self._thread:
            self._thread.join(5)
            self.keep()

    def refresh(self) -> bool:
        """Ask the database once; True when it answered. Safe from any thread."""
        with self._lock:
            try:
                fresh = read(self.current)
            except PyMongoError as error:
                if self.up:
                    log.warning("database away: %s", type(error).__name__)
                self.up = False
                return False
            if fresh is not self.current:
                self._swap(fresh)
            if not self.up:
                log.info("database up")
            self.up = True
            store.end_abandoned()
            return True

    def _compare(self, kept: dict[str, Any] | None) -> None:
        """At a start: a database that is not a later state of what this machine kept from the same epoch was restored from an
        older backup while nobody looked."""
        now = self.current
        if kept is None or kept["epoch"] != now.epoch:
            return
        kind, key, language, seq, at = kept["newest"]
        there = now.at((kind, key, language))
        if kept["seq"] > now.seq or (
            seq > now.floor and (there is None or there.seq < seq or (there.seq == seq and there.at.isoformat() != at))
        ):
            log.warning("the database is older than what was kept here: a backup was restored")
            try:
                step_epoch(now.epoch)
            except PyMongoError as error:
                log.warning("database away: %s", type(error).__name__)
            self.refresh()

    def keep(self) -> None:
        """Write the snapshot into its file when it has changed since. At most every SAVE seconds, in a thread of its own: with
        10,000 lessons it takes two seconds and more, for which neither a request nor a withdrawal should wait."""
        with self._keeping:
            snapshot = self.current
            if self._file and snapshot is not self._saved:
                _save(self._file, snapshot)
                self._saved = snapshot

    def _swap(self, snapshot: Snapshot) -> None:
        self.current = snapshot
        for call in self._watchers:
            call(snapshot)

    def _run(self) -> None:
        next_save = 0.0
        while not self._stop.wait(POLL):
            try:
                self.refresh()
                if time.monotonic() >= next_save and self.current is not self._saved:
                    threading.Thread(target=self.keep, name="keep", daemon=True).start()
                    next_save = time.monotonic() + SAVE
            except Exception:  # the thread must outlive any surprise, or readers would go stale in silence
                log.exception("refreshing the published snapshot failed")


def _save(file: Path, snapshot: Snapshot) -> None:
    """Write the snapshot beside itself and rename, so that a reader never sees half a file: the sequence, then an item a line,
    one by one, so that other threads have their turn between."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(part, "wt", compresslevel=1, encoding="utf-8") as out:
            newest = snapshot.log[-1] if snapshot.log else Item("", "", "", None)
            head = {"seq": snapshot.seq, "epoch": snapshot.epoch, "floor": snapshot.floor, "newest": _row(newest, False)}
            out.write(json.dumps(head, ensure_ascii=False) + "\n")
            for item in snapshot.since(-1):
                out.write(json.dumps(_row(item), ensure_ascii=False) + "\n")
        part.replace(file)
    except OSError as error:
        log.warning("the published snapshot could not be kept in %s: %s", file.name, error.strerror)
        part.unlink(missing_ok=True)


def _row(i: Item, whole: bool = True) -> list[Any]:
    return [i.kind, i.key, i.language, *([i.content] if whole else []), i.seq, i.at.isoformat()]


def _header(file: Path) -> dict[str, Any] | None:
    """The first line of the kept file; None when there is none, it is damaged, or of a version that knew no epochs."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            head = json.loads(next(lines))
    except (OSError, EOFError, StopIteration, ValueError, zlib.error):
        return None
    return head if isinstance(head, dict) and len(head.get("newest", ())) == 5 else None


def _load(file: Path) -> Snapshot:
    """The snapshot from its file; an empty one when there is none or it is damaged."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            head = json.loads(next(lines))
            if isinstance(head, int):  # a version that knew no epochs: readable, and every cursor starts over
                head = {"seq": head, "epoch": "", "floor": 0}
            rows = [Item(k, n, la, c, s, datetime.fromisoformat(at)) for k, n, la, c, s, at in map(json.loads, lines)]
        return Snapshot(epoch=head["epoch"]).after(head["seq"], rows, head["floor"])
    except FileNotFoundError:
        return Snapshot()
    except (OSError, EOFError, StopIteration, ValueError, TypeError, KeyError, zlib.error) as error:
        log.warning("the kept snapshot %s cannot be read (%s): starting empty", file.name, type(error).__name__)
        return Snapshot()

"""The published set: what readers may see, in one collection and in one snapshot a process.

Everything public (a lesson in one language, a check, a course, a session, a help-line, a season, a notice) is an `Item`.
Verbs that publish call `release` inside their own transaction; it stamps the items with the next sequence number. A
withdrawn item stays as a tombstone with no content, so that a reader who has it can be told.

`Reader` is the process's copy: one thread asks for the sequence every 0.4 s, reads only rows with a higher one, swaps in
a new immutable `Snapshot`, and knows whether the database is up. Reading never touches the database. The last snapshot is
kept as a file, so that a process born while the database is away still serves it.
"""

import gzip
import itertools
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

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
        {"_id": "published"}, {"$inc": {"value": 1}}, upsert=True, session=session, return_document=ReturnDocument.AFTER
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


@dataclass(frozen=True)
class Snapshot:
    """All published items at one sequence number. Immutable: `after` gives the next one."""

    seq: int = 0
    kinds: Mapping[str, Mapping[str, Mapping[str, Item]]] = field(default_factory=dict)
    """kind -> key -> language -> item, tombstones left out."""
    gone: Mapping[tuple[str, str, str], Item] = field(default_factory=dict)
    """Tombstones by (kind, key, language)."""
    _memos: dict[str, dict[Any, Any]] = field(default_factory=dict, compare=False, repr=False)

    def memo(self, kind: str) -> dict[Any, Any]:
        """What readers compute from the items of this kind and want again (sorted lists, parsed definitions). It lives until
        an item of this kind changes: a session's last seat does not have ten thousand lessons sorted anew."""
        return self._memos.setdefault(kind, {})

    def entries(self, kind: str) -> Mapping[str, Mapping[str, Item]]:
        """key -> language -> item of one kind; empty when there is none."""
        return self.kinds.get(kind, MappingProxyType({}))

    def get(self, kind: str, key: str) -> Mapping[str, Item]:
        """language -> item; empty when not published."""
        return self.entries(kind).get(key, MappingProxyType({}))

    def after(self, seq: int, rows: Iterable[Item]) -> "Snapshot":
        """The snapshot with these rows laid over it."""
        kinds = dict(self.kinds)
        gone = dict(self.gone)
        fresh: set[str] = set()
        for item in rows:
            if item.kind not in fresh:
                kinds[item.kind] = dict(kinds.get(item.kind, {}))
                fresh.add(item.kind)
            keys: dict[str, Mapping[str, Item]] = kinds[item.kind]  # type: ignore[assignment]
            languages = {k: v for k, v in keys.get(item.key, {}).items() if k != item.language}
            if item.content is None:
                gone[item.kind, item.key, item.language] = item
            else:
                gone.pop((item.kind, item.key, item.language), None)
                languages[item.language] = item
            if languages:
                keys[item.key] = languages
            else:
                keys.pop(item.key, None)
        return Snapshot(seq, kinds, gone, {kind: memo for kind, memo in self._memos.items() if kind not in fresh})


def _item(raw: Mapping[str, Any]) -> Item:
    content = raw["content"]
    return Item(raw["kind"], raw["key"], raw["language"], None if content is None else json.loads(content), raw["seq"], raw["at"])


def changes(since: int) -> tuple[int, Iterator[Item]]:
    """The present sequence and all rows stamped after `since`, oldest first. Raises driver errors."""
    with pymongo.timeout(AWAY):
        counter = Counter.rows().find_one({"_id": "published"})
    seq = int(counter["value"]) if counter else 0
    if seq == since:
        return seq, iter(())
    match = {"seq": {"$gt": since, "$lte": seq}} if seq > since else {}
    return seq, map(_item, PublishedRow.rows().find(match).sort("seq", 1))


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
        self._saved = self.current

    def watch(self, call: Callable[[Snapshot], None]) -> None:
        """Call `call(snapshot)` after each swap."""
        self._watchers.append(call)

    def start(self) -> None:
        """Load what there is (database, else file) and start the thread. A second call is a no-op."""
        if self._thread:
            return
        if not self.refresh() and self._file:
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
                seq, rows = changes(self.current.seq)
                fresh = None
                with pymongo.timeout(LOAD):
                    if seq > self.current.seq:
                        fresh = self.current.after(seq, rows)
                    elif seq < self.current.seq:  # restored from an older backup: start over
                        fresh = Snapshot().after(seq, rows)
            except PyMongoError as error:
                if self.up:
                    log.warning("database away: %s", type(error).__name__)
                self.up = False
                return False
            if not self.up:
                log.info("database up")
            self.up = True
            store.end_abandoned()
            if fresh is not None:
                self._swap(fresh)
            return True

    def keep(self) -> None:
        """Write the snapshot into its file when it has changed since. Called by the thread, at most every SAVE seconds: with
        10,000 lessons it takes two seconds of this process, which no request should wait for."""
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
                    self.keep()
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
            out.write(f"{snapshot.seq}\n")
            items = (i for keys in snapshot.kinds.values() for languages in keys.values() for i in languages.values())
            for i in itertools.chain(items, snapshot.gone.values()):
                row = [i.kind, i.key, i.language, i.content, i.seq, i.at.isoformat()]
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        part.replace(file)
    except OSError as error:
        log.warning("the published snapshot could not be kept in %s: %s", file.name, error.strerror)
        part.unlink(missing_ok=True)


def _load(file: Path) -> Snapshot:
    """The snapshot from its file; an empty one when there is none or it is damaged."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            seq = int(next(lines))
            rows = [Item(k, n, la, c, s, datetime.fromisoformat(at)) for k, n, la, c, s, at in map(json.loads, lines)]
        return Snapshot().after(seq, rows)
    except FileNotFoundError:
        return Snapshot()
    except (OSError, EOFError, StopIteration, ValueError, TypeError, zlib.error) as error:
        log.warning("the kept snapshot %s cannot be read (%s): starting empty", file.name, type(error).__name__)
        return Snapshot()

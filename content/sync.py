"""Delta sync: what a phone fetches and drops so that it holds what it may read without a network.

A phone names its `Selection` (for whom, which stage, which language) and gives back the cursor of last time. The unit is the
key (one lesson, whatever its languages): for each key that anything happened to since then, the edition that is best for the
selection is sent whole, or that it is gone. So a phone holds one item a key and never has to choose.

Keys come in the order of the last thing that happened to them. A cursor says up to where a round has come and at which
sequence the phone was complete before it (`since`): a key that changes between two pages moves to the end and is sent there, so
nothing is missed and nothing of the older state is sent. What is looked at is what changed since then, not the corpus; only a
first sync walks it, once a snapshot.

A cursor that leads nowhere any more raises `start_over`: another epoch (a restored backup), before purged tombstones, another
selection, another shape of items.
"""

import base64
import bisect
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from content import catalogue, checks, directory, helpcard, languages, paths
from content.failures import Failure, Unavailable
from content.published import ANY, Item, Snapshot, canonical
from content.vocabulary import Stage

KINDS = ("card", "check", "lesson", "path", "service")
SHAPE = 3  # raised when what an item holds changes: every phone then starts over
CARD = Item("card", "help", ANY, {})  # the help card's own words, which no release changes: sent to who holds nothing
MOST = 200  # keys in a page
AHEAD = 10_000  # releases; no worker is so far behind another, so a cursor that is comes from no history of ours
LEFT_OUT = {"body", "plain", "media", "review_due", "made_from_version"}  # phones show `html`
PLANS, SIZES = 8, 40_000  # plans kept for a snapshot, sizes kept for the process (20 MB)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a phone is for."""

    audience: str
    """Code of vocabulary.AUDIENCES."""
    stage: str
    """Name of vocabulary.STAGES; "": all of them."""
    language: str
    """Tag in its one spelling."""
    last: str = "zh-Hans"
    """The service's own language, the last of every fallback."""

    @property
    def digest(self) -> str:
        """Eight hex digits that stand for it in a cursor."""
        text = canonical([SHAPE, self.audience, self.stage, self.language, self.last])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


# --- which item, and how it is written -------------------------------------------------------------------------------


def best(texts: Mapping[str, Item], selection: Selection, now: datetime) -> Item | None:
    """The edition of one key for this selection, as the catalogue chooses it; None when all have expired. Whether it fits is
    asked afterwards: an edition for others must not be replaced by a worse one for all."""
    if ANY in texts:
        return texts[ANY] if catalogue.shown(texts[ANY], now) else None
    return catalogue.choose(texts, selection.audience, (selection.language,), selection.last, now) if texts else None


def fits(item: Item, selection: Selection) -> bool:
    """Whether it is for this audience and stage. Help is for everybody."""
    if item.kind in ("service", "card"):
        return True
    content = item.content or {}
    facts = content["register"] if item.kind == "check" else content
    return selection.audience in facts["audiences"] and (
        not selection.stage or any(Stage.parse(s).covers(Stage(selection.stage)) for s in facts["stages"])
    )


def line(snapshot: Snapshot, selection: Selection, item: Item) -> bytes:
    """The item as phones get it, as canonical JSON: {"kind", "key", "language" (edition), "content", "media", "expires_at"?}."""
    content, language = dict(item.content or {}), selection.language
    if item.kind == "check":
        _, definition = checks.published_check(snapshot, item.key)
        tag = languages.pick(content["register"]["languages"], (language,), selection.last)
        shown = checks.detail(item, definition, tag, language)
    elif item.kind == "service":
        shown = directory.spoken(content, language)
    elif item.kind == "card":
        shown = helpcard.words(language)
    else:
        language = languages.parts(item.language)[0]
        written = languages.written(language)
        shown = {k: v for k, v in content.items() if k not in LEFT_OUT} | {k: written[k] for k in ("script", "direction")}
        if item.kind == "path":
            shown["steps"] = [{"slug": step["lesson"], "at": step["at"]} for step in content["steps"]]
            shown["begins_with"] = paths.begins_with(snapshot, content)
    value: dict[str, Any] = {"kind": item.kind, "key": item.key, "language": item.language, "content": shown}
    value["media"] = [_file(medium.content or {}, language, selection.last) for medium in _media(snapshot, item)]
    if content.get("expires_at"):
        value["expires_at"] = content["expires_at"]
    return canonical(value).encode()


def _variant(snapshot: Snapshot, item: Item, selection: Selection) -> str:
    """What beside the item and its media `line` depends on: of a lesson nothing, since its media speak the language of its
    text; of a path whether its self-check is there."""
    if item.kind == "check":
        return selection.language  # the words of help are the reader's own
    if item.kind == "path":
        return canonical(paths.begins_with(snapshot, item.content or {}))
    return selection.language if item.kind in ("service", "card") else ""


def _media(snapshot: Snapshot, item: Item) -> list[Item]:
    """Published media that an item shows."""
    names = (item.content or {}).get("media") or ()
    found = (snapshot.get("media", name).get(ANY) for name in names if isinstance(name, str))
    return [one for one in found if one and one.content]


def _file(content: Mapping[str, Any], language: str, last: str) -> dict[str, Any]:
    """A medium described whole, so that a phone fetches by hash what suits it; its words in the language of the text."""
    described = {k: v for k, v in content.items() if k not in {"id", "title"}}
    for name in ("alt", "transcript"):
        texts = content.get(name) or {}
        described[name] = str(texts[languages.pick(texts, (language,), last)]) if texts else ""
    return described


def gone(kind: str, key: str) -> bytes:
    """What is sent of a key of which nothing is left for the selection."""
    return canonical({"kind": kind, "key": key, "gone": True}).encode()


class Size(NamedTuple):
    """What fetching an item costs."""

    bytes: int
    """Length of its `line`."""
    media: tuple[tuple[str, int], ...]
    """(hash, bytes) of each original."""


_sizes: dict[tuple[Any, ...], Size] = {}


def size(snapshot: Snapshot, selection: Selection, item: Item) -> Size:
    """Its size; written once to know it, and remembered."""
    media = _media(snapshot, item)
    name = (snapshot.epoch, item.kind, item.key, item.language, item.seq, _variant(snapshot, item, selection), selection.last,
            *(one.seq for one in media))  # fmt: skip
    found = _sizes.get(name)
    if found is None:
        files = tuple((one.key, int((one.content or {}).get("bytes") or 0)) for one in media)
        found = Size(len(line(snapshot, selection, item)), files)
        if len(_sizes) >= SIZES:
            _sizes.clear()
        _sizes[name] = found
    return found


# --- what changed ----------------------------------------------------------------------------------------------------

At = tuple[int, str, str]  # sequence of the last thing that happened to a key, kind, key


class Entry(NamedTuple):
    """One key to be sent."""

    at: At
    item: Item | None
    """None: gone."""
    size: Size


class Plan(NamedTuple):
    """All keys to be sent to who was complete at some sequence, in order."""

    entries: list[Entry]
    until: datetime
    """The first expiry of an item in it: from then on another edition may be the best."""


def plan(snapshot: Snapshot, selection: Selection, since: int, now: datetime) -> Plan:
    """What happened to a selection after `since`. Costs as much as what was released since; kept until the snapshot changes."""
    kept: dict[Any, Plan] = snapshot.memo(ANY).setdefault("sync", {})
    found = kept.get((selection, since))
    if found is None or found.until <= now:
        entries, until = [], datetime.max.replace(tzinfo=now.tzinfo)
        for kind, key, at, item in _changed(snapshot, selection, since, now):
            moment = (item.content or {}).get("expires_at") if item else None
            until = min(until, datetime.fromisoformat(moment)) if moment else until
            if item is not None and fits(item, selection):
                entries.append(Entry((at, kind, key), item, size(snapshot, selection, item)))
            else:
                entries.append(Entry((at, kind, key), None, Size(len(gone(kind, key)), ())))
        if not since:
            entries.append(Entry((0, CARD.kind, CARD.key), CARD, size(snapshot, selection, CARD)))
        entries.sort(key=lambda entry: entry.at)
        found = Plan(entries, until)
        if len(kept) >= PLANS:
            kept.clear()
        kept[selection, since] = found
    return found


def _changed(snapshot: Snapshot, selection: Selection, since: int, now: datetime) -> Iterator[tuple[str, str, int, Item | None]]:
    """(kind, key, last sequence, best item) of each key for which something may have changed for this selection."""
    touched: dict[tuple[str, str], int] = {}
    lost: set[tuple[str, str]] = set()  # an edition was withdrawn, or put away by its date: the next best must come back
    files: set[str] = set()
    for row in snapshot.since(since):
        name = (row.kind, row.key)
        if row.kind == "check":  # what begins with it says so only while it is there
            for key, texts in snapshot.entries("path").items():
                if any(((one.content or {}).get("begins_with") or {}).get("check") == row.key for one in texts.values()):
                    touched["path", key] = row.seq
                    lost.add(("path", key))
        if row.kind in KINDS:
            touched[name] = row.seq
            if row.content is None or not catalogue.shown(row, now):
                lost.add(name)
        elif row.kind == "media":
            files.add(row.key)
            for kind, key, _ in snapshot.uses.get(row.key, ()):
                if kind in KINDS:
                    touched[kind, key] = row.seq
    for name, at in touched.items():
        item = best(snapshot.get(*name), selection, now)
        # which edition is best depends on their names alone, so an unchanged one was the best before: the phone has it
        if item is None or item.seq > since or name in lost or not files.isdisjoint((item.content or {}).get("media") or ()):
            yield (*name, at, item)


# --- cursors ---------------------------------------------------------------------------------------------------------


class Cursor(NamedTuple):
    """Where a phone stands."""

    epoch: str
    digest: str
    since: int
    """It was complete at this sequence; 0: it held nothing."""
    base: int = 0
    """Within a round: the sequence of the snapshot that the round began with."""
    seen: int = 0
    """The newest snapshot that a page of the round was made from."""
    seq: int = 0
    """With `kind` and `key` the last entry that was sent."""
    kind: str = ""
    key: str = ""


def write(cursor: Cursor) -> str:
    """The cursor as text, url-safe. Not secret and not signed: who alters it cheats the own phone."""
    parts = list(cursor) if cursor.seen else list(cursor)[:3]
    return base64.urlsafe_b64encode(canonical(parts).encode()).decode().rstrip("=")


def complete(snapshot: Snapshot, selection: Selection) -> str:
    """The cursor of a phone that holds all that this snapshot has for the selection."""
    return write(Cursor(snapshot.epoch, selection.digest, snapshot.seq))


def read(text: str) -> Cursor:
    """The cursor of a text. Raises `bad_cursor` when it is none."""
    try:
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        cursor = Cursor(*parts)
        words, numbers = (cursor.epoch, cursor.digest, cursor.kind, cursor.key), cursor[2:6]
        if not all(type(n) is int and 0 <= n < 2**53 for n in numbers) or not all(type(w) is str for w in words):
            raise ValueError
        if not all(word.isascii() and word.isprintable() for word in words):
            raise ValueError
        if cursor.seen and not cursor.since <= cursor.base <= cursor.seen >= cursor.seq or len(parts) not in (3, 8):
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise Failure("bad_cursor") from None
    return cursor


def _opened(text: str, snapshot: Snapshot, selection: Selection) -> Cursor:
    """The round that a phone begins or goes on with. Raises `bad_cursor`, `start_over`."""
    begin = Cursor(snapshot.epoch, selection.digest, 0, snapshot.seq, snapshot.seq)
    if not text:
        return begin
    cursor = read(text)
    newest = max(cursor.since, cursor.seen)
    if (
        cursor.epoch != snapshot.epoch
        or cursor.digest != selection.digest
        or (cursor.since or cursor.base) < snapshot.floor
        or newest > snapshot.seq + AHEAD
    ):
        raise Failure("start_over")
    if cursor.seen or newest > snapshot.seq:
        return cursor
    return begin._replace(since=cursor.since)


# --- pages -----------------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """One answer to a phone."""

    lines: list[bytes]
    """Items, each as JSON."""
    next_cursor: str
    more: bool
    remaining: tuple[int, int]
    """(items, bytes) after this page."""
    media: tuple[int, int]
    """(files, bytes) that the items of this page and after it show, each file once, originals."""
    until: datetime
    """Until when the answer holds, the snapshot given."""

    @property
    def bytes(self) -> int:
        """Length of the items' JSON."""
        return sum(map(len, self.lines))


def changes(snapshot: Snapshot, selection: Selection, cursor: str, limit: int, now: datetime) -> Page:
    """What a phone with this cursor ("": none) must fetch next, at most `limit` keys (0: sizes alone).

    A cursor from a worker that is fresher than this one is answered with nothing and itself; within a round `more` stands, for
    the phone to ask again. Raises `bad_cursor`, `start_over`, and `Unavailable` when this process does not know of whose history
    its snapshot is: to tell a phone then that there is nothing would have it drop all. A store in which nothing was ever
    published has no epoch yet; its phones start over at the first release.
    """
    if not snapshot.epoch and (snapshot.seq or (cursor and read(cursor).epoch)):
        raise Unavailable()
    began = _opened(cursor, snapshot, selection)
    if max(began.since, began.seen) > snapshot.seq:
        return Page([], cursor, bool(began.seen), (0, 0), (0, 0), now)
    planned = plan(snapshot, selection, began.since, now)
    start = bisect.bisect_right(planned.entries, (began.seq, began.kind, began.key), key=lambda entry: entry.at)
    # who held nothing when the round began need not be told what had gone by then
    rest = [e for e in planned.entries[start:] if e.item is not None or began.since or e.at[0] > began.base]
    sent, left = rest[:limit], rest[limit:]
    at: At = sent[-1].at if sent else (began.seq, began.kind, began.key)
    going = began._replace(seen=snapshot.seq, seq=at[0], kind=at[1], key=at[2])
    media = dict(file for entry in rest for file in entry.size.media)
    return Page(
        [line(snapshot, selection, entry.item) if entry.item else gone(*entry.at[1:]) for entry in sent],
        write(going) if left else complete(snapshot, selection),
        bool(left),
        (len(left), sum(entry.size.bytes for entry in left)),
        (len(media), sum(media.values())),
        planned.until,
    )

"""Offline packs: what a first start would sync, as one file that a cache may keep for ever.

A pack is exactly the items that a sync from zero gives a selection, one a line, in order of kind and key, gzip without a date:
the same content is the same bytes, named by their SHA-256, at `packs/<sha256>` in S3. Its manifest says what it is and from
which cursor a sync goes on, and is signed (JWS compact, RFC 7515, with Ed25519, RFC 8037), so that a phone that has the public
key in its app takes no forged one, whoever holds the cache, the bucket or the line. Manifests are published items of kind
"pack", so they are served while the database is away.

`build` is run by beat and by `xinqiao packs`. Two at a time do the same work twice and nothing else: what they write is named
by its content, and a manifest is replaced only when it is still the one that was looked at.
"""

import base64
import gzip
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import IO, Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWS
from pymongo.client_session import ClientSession

from content import languages, objects, published, store, sync
from content.published import Item, PublishedRow, Snapshot, canonical
from content.settings import Settings
from content.sync import Selection
from content.vocabulary import Stage

log = logging.getLogger("xinqiao.packs")

FORMAT = 1
TYPE = "xinqiao-pack+jws"  # so that nothing else this key may ever sign can be taken for a manifest (RFC 8725, 3.11)
EVERY = timedelta(days=1)  # a pack with any change is at most so old
SHARE = 10  # and is built anew when what changed exceeds this part (one tenth) of its bytes
KEPT = timedelta(days=7)  # a phone that has read a manifest can still fetch its pack

# --- the key ---------------------------------------------------------------------------------------------------------


def _private(settings: Settings) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(settings.needed("signing_key").signing_key))


def public_key(settings: Settings) -> dict[str, str]:
    """The public key as a JWK (RFC 7517, RFC 8037), `kid` its thumbprint (RFC 7638)."""
    raw = _private(settings).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = {"crv": "Ed25519", "kty": "OKP", "x": _url(raw)}
    return {**key, "kid": _url(hashlib.sha256(canonical(key).encode()).digest()), "alg": "EdDSA", "use": "sig"}


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def sign(settings: Settings, facts: Mapping[str, Any]) -> str:
    """A manifest: these facts as signed text."""
    headers = {"typ": TYPE, "kid": public_key(settings)["kid"]}
    return PyJWS().encode(canonical(facts).encode(), _private(settings), algorithm="EdDSA", headers=headers)


# --- a pack ----------------------------------------------------------------------------------------------------------


def selections(snapshot: Snapshot, last: str = "zh-Hans") -> set[Selection]:
    """All that have a lesson in their own language. Who reads another syncs without a pack."""
    found = set()
    for texts in snapshot.entries("lesson").values():
        for item in texts.values():
            content, language = item.content or {}, languages.parts(item.language)[0]
            stages = {"", *(Stage.parse(stage).stage for stage in content["stages"])}
            found |= {Selection(audience, stage, language, last) for audience in content["audiences"] for stage in stages}
    return found


class Written(NamedTuple):
    """A pack as it was written to a file."""

    sha256: str
    bytes: int
    bytes_unpacked: int
    items: int
    media: tuple[int, int]
    """(files, bytes) that its items show."""
    marks: str
    """What it holds, a mark a key: see `_mark`."""


MARK = 4  # bytes; of 10,000 keys one in 400,000 others is taken for one of them, and a pack is built once too often


def _mark(kind: str, key: str) -> bytes:
    """Stands for a key in the list of what a pack holds, so that what was never in it does not have it built anew."""
    return hashlib.sha256(f"{kind}:{key}".encode()).digest()[:MARK]


def lines(snapshot: Snapshot, selection: Selection, now: datetime) -> Iterator[bytes]:
    """The items of a pack, in order of kind and key."""
    for entry in _entries(snapshot, selection, now):
        yield sync.line(snapshot, selection, entry.item)  # type: ignore[arg-type]


def _entries(snapshot: Snapshot, selection: Selection, now: datetime) -> list[sync.Entry]:
    entries = sync.plan(snapshot, selection, 0, now).entries
    return sorted((entry for entry in entries if entry.item), key=lambda entry: entry.at[1:])


def write(snapshot: Snapshot, selection: Selection, now: datetime, file: IO[bytes]) -> Written:
    """Write a selection's pack into a file that can be read again."""
    unpacked = items = 0
    with gzip.GzipFile("", "wb", 6, file, mtime=0) as out:
        for line in lines(snapshot, selection, now):
            out.write(line + b"\n")
            unpacked, items = unpacked + len(line) + 1, items + 1
    size = file.tell()
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    entries = _entries(snapshot, selection, now)
    media = dict(found for entry in entries for found in entry.size.media)
    marks = base64.b64encode(b"".join(sorted(_mark(*entry.at[1:]) for entry in entries))).decode()
    return Written(sha256, size, unpacked, items, (len(media), sum(media.values())), marks)


# --- building --------------------------------------------------------------------------------------------------------


def key_of(selection: Selection) -> str:
    """Key of the published manifest; its language is the selection's."""
    return f"{selection.audience}.{selection.stage or 'all'}"


def due(snapshot: Snapshot, selection: Selection, content: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether a selection's pack is to be built anew: there is none, its cursor leads nowhere, or it has changed and something
    was withdrawn, or much has changed, or it is a day old."""
    facts = content["facts"] if content else None
    if (
        content is None
        or facts is None
        or (facts["format"], facts["epoch"]) != (FORMAT, snapshot.epoch)
        or facts["seq"] < snapshot.floor
    ):
        return True
    if sync.read(facts["cursor"]).digest != selection.digest:
        return True
    marks = base64.b64decode(content["marks"])
    held = {marks[at : at + MARK] for at in range(0, len(marks), MARK)}
    entries = sync.plan(snapshot, selection, facts["seq"], now).entries
    changed = [entry for entry in entries if entry.item or _mark(*entry.at[1:]) in held]
    return bool(changed) and (
        any(entry.item is None for entry in changed)
        or sum(entry.size.bytes for entry in changed) * SHARE > facts["bytes_unpacked"]
        or datetime.fromisoformat(facts["built_at"]) <= now - EVERY
    )


def build(settings: Settings, now: datetime) -> dict[str, int]:
    """Build what is due, publish the manifests, withdraw those of selections without lessons, clear old packs out of S3.

    Returns {"built", "same" (due, and the same bytes as before), "kept", "withdrawn", "cleared"}. A second call builds nothing.
    Reads the published set once. Raises `Unavailable`, and driver errors: what was not finished is due again.
    """
    snapshot = published.read()
    counts = dict.fromkeys(("built", "same", "kept", "withdrawn", "cleared"), 0)
    wanted = {(key_of(one), one.language): one for one in selections(snapshot, settings.language)}
    there = {(item.key, item.language): item for texts in snapshot.entries("pack").values() for item in texts.values()}
    rows: list[tuple[Item, int]] = []  # with the sequence of the manifest that each replaces
    for name, selection in sorted(wanted.items()):
        old = there.get(name)
        content = old.content if old else None
        if not due(snapshot, selection, content, now):
            counts["kept"] += 1
            continue
        facts, marks = _make(settings, snapshot, selection, now)
        before = content["facts"]["sha256"] if content else ""
        counts["same" if before == facts["sha256"] else "built"] += 1
        retired = {name: until for name, until in (content or {}).get("retired", {}).items() if until > now.isoformat()}
        retired |= {before: (now + KEPT).isoformat()} if before else {}
        retired.pop(facts["sha256"], None)
        made = {"facts": facts, "manifest": sign(settings, facts), "marks": marks, "retired": retired}
        rows.append((Item("pack", *name, made), old.seq if old else 0))
    for name in sorted(there.keys() - wanted.keys()):
        rows.append((Item("pack", *name, None), there[name].seq))
        counts["withdrawn"] += 1
    if rows:
        store.transaction(lambda session: _replace(session, rows))
    counts["cleared"] = _clear(settings, now)
    return counts


def _make(settings: Settings, snapshot: Snapshot, selection: Selection, now: datetime) -> tuple[dict[str, Any], str]:
    """Write a pack into S3; returns the facts of its manifest, and its marks."""
    with tempfile.TemporaryFile(prefix="xinqiao-pack-") as file:
        pack = write(snapshot, selection, now, file)
        # also when an object of this name is there: it may be an old one that is about to be cleared
        digest = bytes.fromhex(pack.sha256)
        objects.put(settings, f"packs/{pack.sha256}", file, "application/x-ndjson+gzip", sha256=digest)
    facts = {
        "format": FORMAT, "audience": selection.audience, "stage": selection.stage, "language": selection.language,
        "sha256": pack.sha256, "bytes": pack.bytes, "bytes_unpacked": pack.bytes_unpacked, "items": pack.items,
        "media": {"count": pack.media[0], "bytes": pack.media[1]}, "cursor": sync.complete(snapshot, selection),
        "epoch": snapshot.epoch, "seq": snapshot.seq, "built_at": now.isoformat(),
    }  # fmt: skip
    return facts, pack.marks


def _replace(session: ClientSession, rows: list[tuple[Item, int]]) -> None:
    """Release those that nobody has replaced meanwhile: a slower builder must not put an older pack over a newer one."""
    names = {f"pack:{item.key}:{item.language}": item for item, _ in rows}
    found = PublishedRow.rows().find({"_id": {"$in": list(names)}, "content": {"$ne": None}}, {"seq": 1}, session=session)
    now = {row["_id"]: row["seq"] for row in found}
    fresh = [item for (name, item), (_, seq) in zip(names.items(), rows, strict=True) if now.get(name, 0) == seq]
    if fresh:
        published.release(session, fresh)


def _clear(settings: Settings, now: datetime) -> int:
    """Delete packs older than KEPT that no manifest names, now or within KEPT; returns how many."""
    match = {"_id": {"$gt": "pack:", "$lt": "pack;"}, "content": {"$ne": None}}
    known: set[str] = set()
    for row in PublishedRow.rows().find(match, {"content": 1}):
        content = json.loads(row["content"])
        known |= {content["facts"]["sha256"], *(s for s, until in content["retired"].items() if until > now.isoformat())}
    done = 0
    for found in objects.listing(settings, "packs/"):
        if found.key.removeprefix("packs/") not in known and found.last_modified <= now - KEPT:
            objects.delete(settings, found.key)
            done += 1
    return done


# --- reading ---------------------------------------------------------------------------------------------------------


def listing(snapshot: Snapshot) -> list[Item]:
    """Published manifests, by key and language."""
    items = (item for texts in snapshot.entries("pack").values() for item in texts.values())
    return sorted(items, key=order)


def order(item: Item) -> list[str]:
    """The sort key of `listing`."""
    return [item.key, item.language]


def fetchable(snapshot: Snapshot, now: datetime) -> set[str]:
    """SHA-256 of all packs that a phone may still ask for."""
    found: set[str] = set()
    for item in listing(snapshot):
        content = item.content or {}
        found |= {content["facts"]["sha256"], *(s for s, until in content["retired"].items() if until > now.isoformat())}
    return found

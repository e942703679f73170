"""Results that a student keeps: sealed with a key that follows from a receipt of 28 digits, which only the student has.

The receipt is 26 random digits (86 bits) and 2 check digits (ISO 7064 MOD 97-10), in groups of four. Argon2id makes 48 bytes of
it: 16 are the row's id, 32 the key of AES-256-GCM. Its salt follows from XINQIAO_DATA_KEY, so a copy of the database opens
nothing and cannot even be searched by someone who knows a receipt; whoever has both needs 2^85 guesses. Losing the data key
loses every kept result.

A row is (id, sealed bytes, expiry), nothing else. Every row has the same size, whether it holds one result or fifty, and all that
were written in one week have the same expiry. What the database's own log tells besides, until it turns over: the second in
which some row was written, added to or erased.
"""

import json
import secrets
import threading
import unicodedata
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import mongoengine as me
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from content import store
from content.definition import Definition, Number
from content.failures import Failure, NotFound, Unavailable, invalid
from content.scoring import Result
from content.sealed import derived
from content.settings import Settings

DAYS = 180  # a row lives so long after it was last added to, and to the end of that week
MOST = 50  # results under one receipt; the oldest makes way
SIZE = 8192  # bytes of a row's content, always: fifty results of thirty scales each take 5,400, compressed
DIGITS = 28
GROUP = 4
# OWASP's least for Argon2id. 86 random bits need no stretching; it is what makes guesses dear should receipts ever be shorter.
MEMORY, ROUNDS, LANES = 19 * 1024, 2, 1  # KiB, passes, threads: 40-50 ms of one core a call, measured
WAIT = 3.0  # seconds that a phone waits for its turn; a class that presses "keep" at once is some forty calls
TRIES = 20

# One call at a time in a process, so that a crowd leaves the other cores to those who read; and always on the same thread, since
# the allocator keeps the 19 MiB of each thread that has once asked for them.
_turn = threading.BoundedSemaphore()
_hashing = ThreadPoolExecutor(1, "receipts")


class SealedResults(store.Row):
    """What one receipt opens."""

    sealed = me.BinaryField(required=True)
    """12 bytes of nonce, then AES-256-GCM over SIZE bytes with the id as associated data."""
    expires_at = me.DateTimeField(required=True)
    """The start of a week in the district's zone."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "results",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


class Value(NamedTuple):
    """One scale's value, in codes that mean the same in every language."""

    code: str
    value: Number | None
    minimum: Number
    maximum: Number
    band: str | None


class Kept(NamedTuple):
    """One result: no answers and no words. `on` is the day in the district's zone."""

    slug: str
    version: str
    on: date
    scales: tuple[Value, ...]


class Line(NamedTuple):
    """One scale of one version of a check over time; another version asks something else and has a line of its own."""

    slug: str
    version: str
    code: str
    points: tuple[tuple[date, Number], ...]


def of(settings: Settings, slug: str, definition: Definition, result: Result) -> Kept:
    """What is kept of a result, today."""
    scales = tuple(Value(r.scale.code, r.value, r.minimum, r.maximum, r.band.code if r.band else None) for r in result.readings)
    return Kept(slug, definition.version, store.now().astimezone(ZoneInfo(settings.zone)).date(), scales)


def keep(settings: Settings, kept: Kept, receipt: str | None = None) -> tuple[str, date]:
    """Seal a result under a new receipt, or add it to what `receipt` opens; the expiry begins anew either way. Returns the
    receipt in its one spelling and the day on which all of it goes.

    The very same result twice on one day is kept once, so a repeat after a lost answer to an addition is safe (one without a
    receipt leaves a row that nobody can open, until it expires). Raises `Invalid` (receipt_mistyped), `NotFound`
    (unknown_receipt), `Unavailable`, `Failure` (too_large) for one result beyond SIZE.
    """
    expires = _expiry(settings, store.now())
    rows, on = SealedResults.rows(), expires.date()
    if receipt is None:
        receipt = new_receipt()
        name, key = _opens(settings, receipt)
        rows.insert_one({"_id": name, "sealed": _seal(name, key, [kept]), "expires_at": expires})
        return _grouped(receipt), on
    receipt = read(receipt)
    name, key = _opens(settings, receipt)
    for _ in range(TRIES):
        old = _row(name)
        held = _unseal(name, key, old["sealed"])
        new = _seal(name, key, held if kept in held else [*held, kept])
        # another phone may have added to it since: then what it wrote is read first
        if rows.replace_one({"_id": name, "sealed": old["sealed"]}, {"sealed": new, "expires_at": expires}).matched_count:
            return _grouped(receipt), on
    raise Unavailable("overloaded")


def opened(settings: Settings, receipt: str) -> tuple[list[Kept], date]:
    """The results of a receipt, oldest first, and the day on which they go. Raises `Invalid` (receipt_mistyped), `NotFound`
    (unknown_receipt: never given, erased or expired, which take the same work), `Unavailable`."""
    name, key = _opens(settings, read(receipt))
    row = _row(name)
    return _unseal(name, key, row["sealed"]), row["expires_at"].astimezone(ZoneInfo(settings.zone)).date()


def erase(settings: Settings, receipt: str) -> None:
    """Erase what a receipt opens. A second call raises `NotFound` (unknown_receipt); `Invalid`, `Unavailable` as `opened`."""
    name, _ = _opens(settings, read(receipt))
    if not SealedResults.rows().delete_one({"_id": name}).deleted_count:
        raise NotFound("unknown_receipt")


def trend(results: Sequence[Kept]) -> list[Line]:
    """The values of each scale in the order of their days, a line for each version of a check."""
    lines: dict[tuple[str, str, str], list[tuple[date, Number]]] = {}
    for kept in results:
        for scale in kept.scales:
            if scale.value is not None:
                lines.setdefault((kept.slug, kept.version, scale.code), []).append((kept.on, scale.value))
    return [Line(*name, tuple(points)) for name, points in lines.items()]


# --- receipts --------------------------------------------------------------------------------------------------------


def new_receipt() -> str:
    """28 digits that nobody else has."""
    payload = "".join(secrets.choice("0123456789") for _ in range(DIGITS - 2))
    return f"{payload}{98 - int(payload) * 100 % 97:02}"


def read(text: str) -> str:
    """The 28 digits of a receipt as someone typed it: blanks, dashes and full-width digits do not matter. Raises `Invalid`
    (receipt_mistyped) when it is none: its check digits tell any one wrong digit and any two that changed places."""
    digits = "".join(
        c for c in unicodedata.normalize("NFKC", text) if not c.isspace() and c != "−" and unicodedata.category(c) != "Pd"
    )
    if len(digits) != DIGITS or not (digits.isascii() and digits.isdigit()) or int(digits) % 97 != 1:
        raise invalid("receipt", "receipt_mistyped")
    return digits


def _grouped(receipt: str) -> str:
    return " ".join(receipt[n : n + GROUP] for n in range(0, DIGITS, GROUP))


def _opens(settings: Settings, receipt: str) -> tuple[str, bytes]:
    """The row's id and key. Raises `Unavailable` when too many wait for their turn."""
    salt = derived(settings, "receipts of kept results")
    if not _turn.acquire(timeout=WAIT):
        raise Unavailable("overloaded")
    try:
        raw = _hashing.submit(hash_secret_raw, receipt.encode(), salt, ROUNDS, MEMORY, LANES, 48, Type.ID).result()
    finally:
        _turn.release()
    return raw[:16].hex(), raw[16:]


# --- rows ------------------------------------------------------------------------------------------------------------


def _row(name: str) -> dict[str, Any]:
    # the TTL index may take a minute to see what has expired
    found: dict[str, Any] | None = SealedResults.rows().find_one({"_id": name})
    if found is None or found["expires_at"] <= store.now():
        raise NotFound("unknown_receipt")
    return found


def _expiry(settings: Settings, now: datetime) -> datetime:
    """The first start of a week (Monday 00:00 in the district's zone) at least DAYS from now."""
    zone = ZoneInfo(settings.zone)
    day = (now + timedelta(days=DAYS)).astimezone(zone).date()
    return datetime.combine(day + timedelta(days=7 - day.weekday()), time(), zone)


def _seal(name: str, key: bytes, results: list[Kept]) -> bytes:
    """The newest MOST results, or as many of them as fit."""
    results = results[-MOST:]
    plain = _plain(results)
    while len(plain) > SIZE and len(results) > 1:
        results = results[1:]
        plain = _plain(results)
    if len(plain) > SIZE:
        raise Failure("too_large", limit=f"{SIZE} B")
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(key).encrypt(nonce, plain.ljust(SIZE, b"\0"), name.encode())


def _plain(results: list[Kept]) -> bytes:
    rows = [(kept.slug, kept.version, kept.on.isoformat(), kept.scales) for kept in results]
    return zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 9)


def _unseal(name: str, key: bytes, sealed: bytes) -> list[Kept]:
    plain = AESGCM(key).decrypt(sealed[:12], sealed[12:], name.encode())
    rows = json.loads(zlib.decompressobj().decompress(plain))  # what follows the stream is padding
    return [Kept(slug, version, date.fromisoformat(on), tuple(Value(*v) for v in scales)) for slug, version, on, scales in rows]

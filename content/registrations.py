"""Bookings without an account: a phone, a family name, some seats, and a code that alone opens the booking.

The seats are taken by ONE conditional update on the session, in one transaction with the booking, so they are never
oversold and none is lost between the two. Concurrent bookings of one session meet on its document: the loser's transaction
is run again by the driver (bounded by the driver's two minutes), which costs time under a rush and never a seat.

Personal data: phone and family name are sealed (`content.sealed`), never logged, never in the trail; cancelling erases them,
and the whole booking goes within 30 days after the session. The code is 75 random bits, kept only as SHA-256.
"""

import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import phonenumbers
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from content import languages, records, sealed, store
from content.courses import KEEP, Booking, CourseSession, seats_word, session_item
from content.failures import Conflict, Failure, NotFound, invalid
from content.published import release

log = logging.getLogger("xinqiao.registrations")

PER_PHONE = 4  # seats of one phone in one session
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_READ_AS = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})
_KEY = re.compile(r"[\x21-\x7e]{16,200}")


class Booked(NamedTuple):
    """What the booker gets, once: `code` is kept nowhere here."""

    code: str
    state: str
    seats: int
    session: CourseSession


class Seen(NamedTuple):
    """A booking as its code shows it, with the session as it now is."""

    state: str
    seats: int
    session: CourseSession


class Entry(NamedTuple):
    """One booking as the organiser sees it."""

    id: str
    state: str
    seats: int
    family_name: str
    phone: str
    created_at: datetime


_turns = [threading.Lock() for _ in range(64)]


@contextmanager
def _turn(session_id: str) -> Iterator[None]:
    """Bookings of one session go one after another within this process: 60 at once took 4 s when each fought for the document
    in the database, and 0.5 s in turn. Nothing rests on it: between processes, and after 0.3 s here, the database decides."""
    lock = _turns[hash(session_id) % len(_turns)]
    held = lock.acquire(timeout=0.3)
    try:
        yield
    finally:
        if held:
            lock.release()


def phone_number(text: str) -> str:
    """E.164 of a telephone number, read as one of mainland China unless it begins with +. Raises `Invalid`."""
    try:
        number = phonenumbers.parse(text, "CN")
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    except phonenumbers.NumberParseException:
        pass
    raise invalid("phone", "bad_format", reason="请填写能接通的号码，例 e.g. 138 0013 8000")


def _written(number: int) -> str:
    """75 bits as three groups of five: 7K3QX-0M9TD-W2E5R."""
    digits = "".join(ALPHABET[number >> shift & 31] for shift in range(70, -5, -5))
    return "-".join(digits[n : n + 5] for n in (0, 5, 10))


def _name(code: str) -> str:
    """`_id` of the booking with this code. Case, blanks and dashes do not matter, O is 0, I and L are 1."""
    return hashlib.sha256(code.upper().translate(_READ_AS).encode("utf-8", "replace")).hexdigest()


def _code(session_id: str, phone: str, key: str | None) -> str:
    """A random code, or with an Idempotency-Key the one that follows from it under the data key, so that a repeat gives the
    same code and we need not keep it. Session and phone go in too: someone else's key alone leads nowhere."""
    if key is None:
        return _written(secrets.randbits(75))
    if not _KEY.fullmatch(key):
        raise invalid("Idempotency-Key", "bad_format", reason="16-200 ASCII，例 e.g. UUID")
    # deterministic AEAD is a keyed function of its text: its tag is an HMAC under the data key
    derived = hashlib.sha256(b"booking code" + sealed.blind(f"{session_id}\n{phone}\n{key}")).digest()
    return _written(int.from_bytes(derived, "big") >> (256 - 75))


def book(session_id: str, seats: int, family_name: str, phone: str, key: str | None = None) -> Booked:
    """Take seats in a published session.

    Raises `NotFound`, `Invalid`, `Conflict("closed")` past the deadline or once cancelled, `Conflict("full")` when fewer seats
    are left. More than PER_PHONE seats of one phone in one session are refused with the very same `full`, so no answer says
    whether a phone is booked. (While the session publicly says "open", a prober can still draw a conclusion from a `full`;
    only an answer sent to the phone itself could hide that.)

    With `key` a repeat returns the same booking and code, in the state it now has, and takes nothing; the same key with
    another name or number of seats raises `Failure("duplicate_key_body")`. Without one, a repeat is a second booking.
    """
    number, name = phone_number(phone), languages.clean(family_name)
    if not 0 < len(name) <= 40:
        raise invalid("family_name", "out_of_range", reason="1-40")
    if not 1 <= seats <= PER_PHONE:
        raise invalid("seats", "out_of_range", reason=f"1-{PER_PHONE}")
    code = _code(session_id, number, key)
    if key is not None and (again := _again(code, seats, name)):
        return again
    row = {
        "_id": _name(code), "session": session_id, "seats": seats, "state": "confirmed",
        "phone": sealed.seal(number), "phone_blind": sealed.blind(number), "family_name": sealed.seal(name),
    }  # fmt: skip

    def work(tx: ClientSession) -> CourseSession:
        at = store.now()
        before = CourseSession.rows().find_one({"_id": session_id}, session=tx)
        if before is None or before["state"] == "draft":
            raise NotFound(what=session_id)
        if before["state"] != "published" or before["booking_closes_at"] <= at:
            raise Conflict("closed")
        fits = {
            "_id": session_id, "state": "published", "booking_closes_at": {"$gt": at},
            "capacity": before["capacity"], "seats_taken": {"$lte": before["capacity"] - seats},
        }  # fmt: skip
        if not CourseSession.rows().update_one(fits, {"$inc": {"seats_taken": seats}}, session=tx).matched_count:
            raise Conflict("full")
        # after the update on the shared document, so that two bookings of one phone cannot both see the other missing
        same = {"session": session_id, "phone_blind": row["phone_blind"], "state": "confirmed"}
        if sum(one["seats"] for one in Booking.rows().find(same, {"seats": 1}, session=tx)) + seats > PER_PHONE:
            raise Conflict("full")
        stamped = {**row, "created_at": at, "expires_at": before["ends_at"] + KEEP}
        Booking.rows().insert_one(stamped, session=tx)
        return _counted(tx, before, seats)

    try:
        with _turn(session_id):
            session = store.transaction(work)
    except DuplicateKeyError:
        if again := _again(code, seats, name):  # the same key, twice at one moment
            return again
        raise
    return Booked(code, "confirmed", seats, session)


def _counted(tx: ClientSession, before: dict[str, object], seats: int) -> CourseSession:
    """The session after `seats` were added to its count, released again when its public word changed."""
    present = CourseSession.of({**before, "seats_taken": int(str(before["seats_taken"])) + seats})
    word = seats_word(present.capacity, present.seats_taken)
    if present.state == "published" and word != seats_word(present.capacity, present.seats_taken - seats):
        release(tx, [session_item(present)])
    return present


def _again(code: str, seats: int, name: str) -> Booked | None:
    """The booking that this code already opens, when it is the same one."""
    raw = Booking.rows().find_one({"_id": _name(code)})
    if raw is None:
        return None
    if raw["seats"] != seats or ("family_name" in raw and sealed.unseal(raw["family_name"]) != name):
        raise Failure("duplicate_key_body")
    return Booked(code, raw["state"], seats, _session(raw["session"]))


def _session(key: str) -> CourseSession:
    raw = CourseSession.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return CourseSession.of(raw)


def see(code: str) -> Seen:
    """The booking of a code. Raises `NotFound`, also for a text that is no code."""
    raw = Booking.rows().find_one({"_id": _name(code)})
    if raw is None:
        raise NotFound(what="booking")
    return Seen(raw["state"], raw["seats"], _session(raw["session"]))


def cancel(code: str) -> Seen:
    """Give the seats back and erase phone and name at once. A second call, or one after a cancelled session, changes nothing
    and answers the same. Raises `NotFound`, and `Conflict` once the session has begun."""
    name = _name(code)

    def work(tx: ClientSession) -> Seen:
        raw = Booking.rows().find_one({"_id": name}, session=tx)
        if raw is None:
            raise NotFound(what="booking")
        before = CourseSession.rows().find_one({"_id": raw["session"]}, session=tx)
        if before is None:
            raise NotFound(what="booking")
        if raw["state"] == "cancelled":
            return Seen("cancelled", raw["seats"], CourseSession.of(before))
        if before["state"] != "cancelled" and before["starts_at"] <= store.now():
            raise Conflict("wrong_state", state="begun", action="取消报名 cancel the booking")
        Booking.rows().update_one(
            {"_id": name, "state": "confirmed"},
            {"$set": {"state": "cancelled"}, "$unset": {"phone": "", "phone_blind": "", "family_name": ""}},
            session=tx,
        )
        CourseSession.rows().update_one({"_id": raw["session"]}, {"$inc": {"seats_taken": -raw["seats"]}}, session=tx)
        return Seen("cancelled", raw["seats"], _counted(tx, before, -raw["seats"]))

    return store.transaction(work)


def register(session_id: str, by: str) -> list[Entry]:
    """All bookings of a session with names and phones, in order of arrival. The reading itself leaves a line in the trail,
    in the same transaction, with the number of bookings and nothing of their content. Raises `NotFound`."""

    def work(tx: ClientSession) -> list[dict[str, object]]:
        if CourseSession.rows().find_one({"_id": session_id}, {"_id": 1}, session=tx) is None:
            raise NotFound(what=session_id)
        rows = list(Booking.rows().find({"session": session_id}, session=tx).sort("created_at", 1))
        records.trail(tx, CourseSession, session_id, by, "read_bookings", {}, {}, note=f"{len(rows)} bookings")
        return rows

    def opened(data: object) -> str:
        return sealed.unseal(data) if isinstance(data, bytes) else ""

    return [
        Entry(str(r["_id"])[:12], r["state"], r["seats"], opened(r.get("family_name")), opened(r.get("phone")), r["created_at"])  # type: ignore[arg-type]
        for r in store.transaction(work)
    ]

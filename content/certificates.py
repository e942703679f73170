"""Certificates of attendance: proved by their number alone, and kept nowhere.

A certificate says that a seat which was booked and checked in attended a session, or the sessions of a series. The name on it is
typed by whoever holds the booking when it is made; it goes onto the paper and nowhere else, and nobody here has compared it with
anything, which the paper says.

Its number is the session's or series' id, a full stop, and 32 letters and digits (Crockford's base 32): what the certificate says
(kind, class-hours, number of sessions, first and last date), a keyed hash of the place and the seat that tells one certificate
from another, and an HMAC over all of it under a key that follows from XINQIAO_DATA_KEY. So anybody can check it for as long as
that key and that session are here, also after the booking's erasure, and nobody can lead it back to a booking. A check-in that is
taken back later does not reach a paper that is out; a session cancelled afterwards does: it did not take place.
"""

import hmac
import struct
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from content import bookings, codes, languages, printing, sealed
from content.bookings import Booked, Held
from content.courses import CourseSession
from content.failures import Conflict, NotFound, Text, invalid
from content.settings import Settings

LONGEST = 40  # characters of a name
KINDS = ("session", "series")
EPOCH = date(2000, 1, 1)
FORM = struct.Struct(">4sBHBHH")  # serial, kind, class-hours, sessions, first and last day since EPOCH
MAC = 8  # bytes; a forger has to guess one of 2^64 over the network
DIGITS = (FORM.size + MAC) * 8 // 5


class Facts(NamedTuple):
    """What a certificate says of what was attended."""

    kind: str
    """One of KINDS."""
    key: str
    """Id of the session or series."""
    class_hours: int
    sessions: int
    first: date
    """Local dates."""
    last: date


class Certificate(NamedTuple):
    """A certificate that can be made out."""

    number: str
    facts: Facts
    attended: list[CourseSession]
    """In order of time."""


# --- numbers ---------------------------------------------------------------------------------------------------------


def _hash(settings: Settings, *parts: bytes) -> bytes:
    return hmac.digest(sealed.derived(settings, "certificates"), b"\n".join(parts), "sha256")


def number_of(settings: Settings, facts: Facts, holder: str, seat: int) -> str:
    """The number of a certificate. `holder`: id of the place or booking; the same seat of it always gets the same number."""
    serial = _hash(settings, b"serial", holder.encode(), str(seat).encode())[:4]
    days = ((day - EPOCH).days for day in (facts.first, facts.last))
    body = FORM.pack(serial, KINDS.index(facts.kind), facts.class_hours, facts.sessions, *days)
    bits = int.from_bytes(body + _hash(settings, b"number", facts.key.encode(), body)[:MAC], "big")
    digits = "".join(codes.ALPHABET[bits >> shift & 31] for shift in range((DIGITS - 1) * 5, -5, -5))
    return f"{facts.key}.{'-'.join(digits[n : n + 4] for n in range(0, DIGITS, 4))}"


def read(settings: Settings, number: str) -> Facts | None:
    """What a number proves; None for one that was not given out here. Case and dashes after the full stop do not count."""
    key, _, digits = number.rpartition(".")
    digits = digits.upper().translate(codes.READ_AS)
    if len(digits) != DIGITS or not set(digits) <= set(codes.ALPHABET):
        return None
    bits = 0
    for digit in digits:
        bits = bits << 5 | codes.ALPHABET.index(digit)
    data = bits.to_bytes(FORM.size + MAC, "big")
    body, mac = data[: FORM.size], data[FORM.size :]
    if not hmac.compare_digest(mac, _hash(settings, b"number", key.encode("utf-8", "replace"), body)[:MAC]):
        return None
    _, kind, class_hours, sessions, first, last = FORM.unpack(body)
    return Facts(KINDS[kind], key, class_hours, sessions, EPOCH + timedelta(days=first), EPOCH + timedelta(days=last))


# --- who gets one ----------------------------------------------------------------------------------------------------


def of_place(settings: Settings, code: str, session_id: str, seat: int, now: datetime) -> Certificate:
    """For the `seat`-th of those checked in with one place. Raises `NotFound`, `Invalid` for more seats than attended, and
    `Conflict("no_certificate")` before the session is over, without a check-in, or when it was cancelled."""
    booked = bookings.see(code)
    held = [one for one in booked.places if one.session.id == session_id]
    if not held:
        raise NotFound(what=session_id)
    return _made(settings, "session", session_id, held[0].id, held, seat, now)


def of_booking(settings: Settings, code: str, seat: int, now: datetime) -> Certificate:
    """One for all sessions of its series that the `seat`-th of a booking attended, with the sum of their class-hours. Raises as
    `of_place`."""
    booked: Booked = bookings.see(code)
    return _made(settings, "series", booked.series, codes.name(code), booked.places, seat, now)


def _made(settings: Settings, kind: str, key: str, holder: str, held: Sequence[Held], seat: int, now: datetime) -> Certificate:
    over = [
        one
        for one in held
        if one.attended and one.state == "confirmed" and one.session.state != "cancelled" and one.session.ends_at <= now
    ]
    if not over:
        raise Conflict("no_certificate", reason=_why_none(held, now))
    if not 1 <= seat <= (most := max(one.attended or 0 for one in over)):
        raise invalid("seat", "out_of_range", reason=Text(f"请填 1–{most}", f"1 to {most}"))
    there = [one.session for one in over if (one.attended or 0) >= seat]
    days = [one.starts_at.astimezone(ZoneInfo(one.zone)).date() for one in there]
    facts = Facts(kind, key, sum(one.class_hours for one in there), len(there), min(days), max(days))
    return Certificate(number_of(settings, facts, holder, seat), facts, there)


def _why_none(held: Sequence[Held], now: datetime) -> Text:
    """Which reason holds, said of the place that is nearest to a certificate."""
    standing = [one for one in held if one.session.state != "cancelled"]
    kept = [one for one in standing if one.state == "confirmed"]
    if not standing:
        return Text("课程已取消", "the session was cancelled")
    if not kept:
        return Text("这次报名没有确认的名额", "this booking has no confirmed seat")
    if all(one.session.ends_at > now for one in kept):
        return Text("课程还没有结束，请结束后再来", "the session is not over; come back when it is")
    return Text(
        "没有签到记录。如已到场，请在结束后 7 天内联系主办方补签",
        "you were not checked in. If you were there, ask the organiser within seven days of the end",
    )


def checked_name(name: str) -> str:
    """A name as it is printed; "" leaves a line to write it by hand. Raises `Invalid`, also for characters that cannot be
    printed (a traditional Mongolian name is written by hand)."""
    name = " ".join(languages.one_line(name).split())
    if len(name) > LONGEST:
        raise invalid("name", "out_of_range", reason=Text(f"最多 {LONGEST} 个字符", f"{LONGEST} characters at most"))
    if lacking := printing.missing(name):
        which = "".join(sorted(lacking))[:10]
        why = Text(f"印不出“{which}”，请留空后手写", f"“{which}” cannot be printed: leave it empty and write it by hand")
        raise invalid("name", "bad_format", reason=why)
    return name

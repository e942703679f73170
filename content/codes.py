"""Codes that alone open something: 75 random bits as three groups of five, 7K3QX-0M9TD-W2E5R.

Whoever reads one out or types it need not care about case, blanks or dashes, nor about O and 0, I, L and 1. Here only its
SHA-256 is kept.
"""

import hashlib
import re
import secrets

from content import sealed
from content.failures import Text, invalid

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
READ_AS = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})
_CODE = re.compile(f"[{ALPHABET}]{{15}}")
_KEY = re.compile(r"[\x21-\x7e]{16,200}")


def new() -> str:
    """A code that nobody else has."""
    return written(secrets.randbits(75))


def written(number: int) -> str:
    """75 bits as a code."""
    digits = "".join(ALPHABET[number >> shift & 31] for shift in range(70, -5, -5))
    return "-".join(digits[n : n + 5] for n in (0, 5, 10))


def name(code: str) -> str:
    """The id under which a code is kept, 64 hex digits; of any text, so that one that is no code simply opens nothing."""
    return hashlib.sha256(code.upper().translate(READ_AS).encode("utf-8", "replace")).hexdigest()


def bare(text: str) -> str:
    """The letters and digits of a code as they are counted, however it is written; "" of what is no code."""
    digits = text.upper().translate(READ_AS)
    return digits if _CODE.fullmatch(digits) else ""


def following(purpose: str, *parts: str) -> str:
    """The code that follows from these parts under the data key: the same each time, and nothing without the key."""
    # deterministic AEAD is a keyed function of its text: its tag is an HMAC under the data key
    derived = hashlib.sha256(purpose.encode() + sealed.blind("\n".join(parts))).digest()
    return written(int.from_bytes(derived, "big") >> (256 - 75))


def repeatable(purpose: str, key: str | None, *parts: str) -> str:
    """A new code; or, with an Idempotency-Key, the one that follows from it and from `parts` (someone else's key alone leads
    nowhere), so that a repeat gives the same code and it need not be kept. Raises `Invalid` for a key that is none."""
    if key is None:
        return new()
    if not _KEY.fullmatch(key):
        raise invalid(
            "Idempotency-Key",
            "bad_format",
            reason=Text("16–200 个 ASCII 字符，例如一个 UUID", "16 to 200 ASCII characters, a UUID for example"),
        )
    return following(purpose, *parts, key)

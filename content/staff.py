"""Staff: accounts, organisations, who may what, and signing in.

A person's rights are grants: a role, in one organisation or in all, in one division's subtree or in the whole country.
ROLES says what a role may. Nobody changes the own grants, and whoever administers accounts neither writes nor approves.

Tokens are 256 random bits and stored as SHA-256 only. An access token lives 30 minutes. A refresh token is used once; the
14 days of its family count from the sign-in. One used again was copied: its whole family ends. `epoch` on the account is
stamped into its tokens, so that raising it ends all of them at once, also one that a sign-in writes at that moment.

Failed sign-ins are counted by name, whether or not such an account exists, or a wait would tell which names do.
"""

import hashlib
import math
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, ClassVar

import mongoengine as me
import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from content import divisions, records, sealed, store
from content.failures import FieldError, Forbidden, Invalid, NotFound, NotSignedIn, Text, TooMany, Unavailable, invalid
from content.records import SYSTEM
from content.vocabulary import ORGANISATIONS

# What a role may. "notice.approve" reads: approve notices. Kept small on purpose: a district has few people and they change.
_READ = frozenset({"lesson.read", "check.read", "course.read", "notice.read", "media.read", "service.read", "organisation.read"})
ROLES: Mapping[str, frozenset[str]] = {
    # accounts and organisations; never content, or one person could make the second person
    "admin": frozenset({"staff.read", "staff.write", "organisation.read", "organisation.write", "audit.read"}),
    # writes lessons and questionnaires, keeps the help directory
    "editor": _READ | {"lesson.write", "check.write", "media.write", "service.write"},
    # the second person: approves, publishes, withdraws
    "reviewer": _READ
    | {"lesson.approve", "lesson.publish", "check.approve", "check.publish", "course.approve", "notice.approve"}
    | {"service.publish"},
    # women's federation: courses, sessions, bookings, season notices
    "organiser": _READ | {"course.write", "course.publish", "booking.read", "booking.write", "media.write", "notice.write"},
    # these read until the care rooms give them their own work
    "counsellor": _READ,
    "commission": _READ | {"indicator.read"},
    "hospital": _READ,
    "plan_office": _READ | {"indicator.read"},
    "auditor": frozenset({"audit.read", "organisation.read"}),
}
PERMISSIONS = frozenset[str]().union(*ROLES.values())

NAME = re.compile(r"[a-z][a-z0-9._-]{2,31}")
ACCESS = timedelta(minutes=30)
REFRESH = timedelta(days=14)
FREE_FAILURES = 4  # then a wait of 2, 4, 8 … s
LONGEST_WAIT = timedelta(minutes=15)
SCHOOLS = ("school", "kindergarten")
OFFICES = frozenset({"federation", "education", "health"})  # kinds of organisations that act for their division
MOST_FAMILIES = 100_000
PASSWORD = (10, 256)  # characters
COMMON = (  # ten characters and more that everybody tries
    "1234567890 0123456789 0987654321 12345678910 123456789a a123456789 q1w2e3r4t5 1q2w3e4r5t 1qaz2wsx3edc qwertyuiop"
    " qwerty12345 asdfghjkl1 password12 password123 password1234 passw0rd123 iloveyou12 woaini1314 woaini5201314 5201314520"
    " admin12345 admin123456 administrator xinqiao123 xinqiao1234 xinqiao2026 welcome123 letmein123 abcdefghij abc1234567"
    " changeme123 default123 12356123561 0000000000 1111111111"
)


@dataclass(frozen=True)
class Grant:
    """A role within an organisation ("" = any) and a division's subtree ("" = the whole country)."""

    role: str
    organisation: str = ""
    division: str = ""


@dataclass(frozen=True)
class Actor:
    """Who asks, with the grants held at this moment."""

    id: str
    name: str
    grants: tuple[Grant, ...]
    must_change_password: bool = False
    """True: may do nothing until the password given by someone else was changed."""

    def may(self, permission: str, organisation: str | None = None, division: str | None = None) -> bool:
        """Whether some grant's role has `permission` for that organisation and division together.

        None leaves that side unasked (may it anywhere?); "" asks for all organisations, or for the whole country.
        """
        return not self.must_change_password and any(
            permission in ROLES.get(grant.role, frozenset())
            and (organisation is None or grant.organisation in {"", organisation})
            and (division is None or divisions.within(division, grant.division))
            for grant in self.grants
        )


class GrantField(me.EmbeddedDocument):  # type: ignore[misc]
    """`Grant` as stored."""

    role = me.StringField(required=True)
    organisation = me.StringField(default="")
    division = me.StringField(default="")


class Account(records.Record):
    """One person who works here."""

    name = me.StringField(required=True)
    """Login name; unique, never changed."""
    display_name = me.StringField(required=True)
    password_hash = me.StringField(required=True)
    """Argon2id in its own string form, parameters included."""
    password_set_by = me.StringField(required=True)
    must_change_password = me.BooleanField(required=True, default=True)
    totp_secret = me.BinaryField()
    """Sealed; present once a code has confirmed it."""
    totp_pending = me.BinaryField()
    """Sealed; shown to its owner, not confirmed yet."""
    grants = me.EmbeddedDocumentListField(GrantField)
    state = me.StringField(required=True, default="active")
    """active or disabled."""
    epoch = me.IntField(required=True, default=0)
    """Tokens of another epoch are dead."""

    meta: ClassVar[dict[str, Any]] = {"collection": "accounts", "indexes": [{"fields": ["name"], "unique": True}]}
    NAME = "staff"
    PERSONAL = frozenset({"name", "display_name", "password_hash", "totp_secret", "totp_pending"})

    def held(self) -> tuple[Grant, ...]:
        """Its grants as plain values."""
        return tuple(Grant(g.role, g.organisation or "", g.division or "") for g in self.grants)

    def actor(self) -> Actor:
        """The account as one who asks."""
        return Actor(self.id, self.name, self.held(), self.must_change_password)


class Organisation(records.Record):
    """A body whose people work here: federation, school, hospital, station, …"""

    name = me.StringField(required=True)
    """Unique within its division."""
    kind = me.StringField(required=True)
    division = me.StringField(required=True)
    parent = me.StringField(default="")
    able = me.BooleanField(default=False)
    """Of a station, school or kindergarten: marked as able to hold family education (`content.coverage`)."""
    parents = me.IntField(min_value=0, max_value=MOST_FAMILIES)
    """Of a school or kindergarten: how many families it has; absent: not known."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "organisations",
        "indexes": [{"fields": ["division", "name"], "unique": True}],
    }
    NAME = "organisation"


class Session(store.Row):
    """One token; `_id` is its SHA-256. A spent one-time code is a row too (kind `code`), so that it works once."""

    account = me.StringField(required=True)
    family = me.StringField(required=True)
    """One sign-in and all that was refreshed from it."""
    kind = me.StringField(required=True)
    """access, refresh or code."""
    epoch = me.IntField(required=True)
    used = me.BooleanField(required=True, default=False)
    ends_at = me.DateTimeField(required=True)
    """End of the family: the last moment of its refresh tokens."""
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "staff_sessions",
        "indexes": [{"fields": ["family"]}, {"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


class Failures(store.Row):
    """Failed sign-ins in a row under one name; `_id` is the name's SHA-256. Forgotten a day after the last."""

    count = me.IntField(required=True)
    wait_until = me.DateTimeField(required=True)
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "staff_failures",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


# --- passwords -------------------------------------------------------------------------------------------------------

_hasher = PasswordHasher()  # Argon2id, RFC 9106's low-memory choice: 64 MiB, 3 passes, about 50 ms
_hashing = threading.BoundedSemaphore(2)  # a crowd at sign-in would otherwise take 64 MiB each


@contextmanager
def _turn() -> Iterator[None]:
    """One of the two places to hash. Raises `Unavailable("overloaded")` when none is free within 4 s."""
    if not _hashing.acquire(timeout=4):
        raise Unavailable("overloaded", retry_after=4)
    try:
        yield
    finally:
        _hashing.release()


def _bytes(password: str) -> bytes:
    # one form for what keyboards compose differently (NIST SP 800-63B); "" is nobody's password
    return unicodedata.normalize("NFKC", password if len(password) <= PASSWORD[1] else "").encode("utf-8", "replace")


def _hash(password: str) -> str:
    with _turn():
        return _hasher.hash(_bytes(password))


@lru_cache(maxsize=1)
def _nobody() -> str:
    """A hash that no password fits, checked when there is no such account, so that both take the same time."""
    return _hash(secrets.token_hex(16))


def _fits(password: str, password_hash: str) -> bool:
    try:
        with _turn():
            return _hasher.verify(password_hash, _bytes(password))
    except (VerificationError, InvalidHashError):
        return False


def check_password(password: str, name: str, field: str = "password") -> None:
    """Raise `Invalid` on `field` unless it has 10 to 256 characters, is not the login name and is not one everybody tries."""
    low, high = PASSWORD
    if not low <= len(password) <= high:
        raise invalid(field, "out_of_range", reason=Text(f"长度 {low}–{high} 个字符", f"{low} to {high} characters"))
    plain = password.casefold().strip()
    if plain in COMMON.split() or len(set(plain)) < 4 or plain == name or plain.strip("0123456789!.@#") == name:
        raise invalid(field, "weak_password")


# --- signing in ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """What a sign-in or a refresh gives. Times in UTC."""

    access_token: str
    refresh_token: str
    access_expires_at: datetime
    refresh_expires_at: datetime
    must_change_password: bool


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _issue(account: Account, family: str, ends_at: datetime, session: ClientSession | None = None) -> Tokens:
    """Write a new pair of tokens of this family."""
    access, refresh, now = secrets.token_urlsafe(32), secrets.token_urlsafe(32), store.now()
    until = min(now + ACCESS, ends_at)
    row = {"account": account.id, "family": family, "epoch": account.epoch, "used": False, "ends_at": ends_at}
    Session.rows().insert_many(
        [
            {**row, "_id": _sha(access), "kind": "access", "expires_at": until},
            {**row, "_id": _sha(refresh), "kind": "refresh", "expires_at": ends_at},
        ],
        session=session,
    )
    return Tokens(access, refresh, until, ends_at, account.must_change_password)


def _attempt(name: str) -> str:
    """Count one attempt as failed before it is tried, so that a crowd of guesses at once gains nothing; success takes it
    back. Raises `TooMany("slow_down")` while the name has to wait: nobody waits longer than 15 minutes."""
    key, rows = _sha(name), Failures.rows()
    for _ in range(20):  # another attempt on the same name came between: look again
        now = store.now()
        seen = rows.find_one({"_id": key}) or {"count": 0, "wait_until": now}
        if seen["wait_until"] > now:
            raise TooMany("slow_down", retry_after=math.ceil((seen["wait_until"] - now).total_seconds()))
        count = seen["count"] + 1
        wait = timedelta(seconds=2 ** min(count - FREE_FAILURES, 12)) if count > FREE_FAILURES else timedelta(0)
        row = {"count": count, "wait_until": now + min(wait, LONGEST_WAIT), "expires_at": now + timedelta(days=1)}
        try:
            if count == 1:
                rows.insert_one({"_id": key, **row})
                return key
            if rows.update_one({"_id": key, "count": seen["count"]}, {"$set": row}).matched_count:
                return key
        except DuplicateKeyError:
            continue
    raise TooMany("slow_down", retry_after=1)


def _proved(name: str, password: str, code: str = "", *, need_code: bool = True) -> Account:
    """The account whose name, password and (when set up) one-time code these are. Raises `NotSignedIn("wrong_credentials")`,
    after the same work whichever of them is wrong, and `TooMany("slow_down")`."""
    key = _attempt(name)
    raw = Account.rows().find_one({"name": name}) if NAME.fullmatch(name) else None
    account = Account.of(raw) if raw else None
    right = _fits(password, account.password_hash if account else _nobody())
    if account is None or not right or account.state != "active":
        raise NotSignedIn("wrong_credentials")
    if need_code and account.totp_secret and not _spend(account, bytes(account.totp_secret), code):
        raise NotSignedIn("wrong_credentials")
    Failures.rows().delete_one({"_id": key})
    return account


def sign_in(name: str, password: str, code: str = "") -> Tokens:
    """Begin a session. `code` is the six digits of the second factor, looked at only when the account has one.

    Raises `NotSignedIn("wrong_credentials")` for an unknown name, a disabled account, a wrong password and a wrong code
    alike, `TooMany("slow_down")` from the fifth failure on (2, 4, 8 … s, at most 15 min; right credentials wait too),
    `Unavailable("overloaded")` when too many sign in at once.
    """
    account = _proved(name, password, code)
    if _hasher.check_needs_rehash(account.password_hash):
        fresh = _hash(password)
        account = records.change(Account, account.id, account.id, "rehash", lambda _: {"password_hash": fresh})
    return _issue(account, store.new_id(), store.now() + REFRESH)


def refresh(token: str) -> Tokens:
    """A new pair for a refresh token, which is thereby used up. Raises `NotSignedIn("session_ended")`; when the token had
    been used before, its family ends, because two people hold it."""

    def work(session: ClientSession) -> Tokens | None:
        raw = Session.rows().find_one({"_id": _sha(token), "kind": "refresh"}, session=session)
        if raw is None or raw["expires_at"] <= store.now():
            return None
        if raw["used"]:
            Session.rows().delete_many({"family": raw["family"]}, session=session)
            return None
        found = Account.rows().find_one({"_id": raw["account"]}, session=session)
        if found is None or found["state"] != "active" or found["epoch"] != raw["epoch"]:
            return None
        Session.rows().update_one({"_id": raw["_id"]}, {"$set": {"used": True}}, session=session)
        return _issue(Account.of(found), raw["family"], raw["ends_at"], session)

    tokens = store.transaction(work)
    if tokens is None:
        raise NotSignedIn("session_ended")
    return tokens


def _live(token: str) -> tuple[dict[str, Any], Account]:
    raw = Session.rows().find_one({"_id": _sha(token), "kind": "access"})
    if raw is None or raw["expires_at"] <= store.now():
        raise NotSignedIn("session_ended")
    found = Account.rows().find_one({"_id": raw["account"]})
    if found is None or found["state"] != "active" or found["epoch"] != raw["epoch"]:
        raise NotSignedIn("session_ended")
    return raw, Account.of(found)


def who(token: str) -> Actor:
    """The holder of an access token, with the grants of this moment. Raises `NotSignedIn("session_ended")`."""
    return _live(token)[1].actor()


def sign_out(token: str) -> None:
    """End the session of this access token, its refresh token included. For a dead token a no-op."""

    def work(session: ClientSession) -> None:
        raw = Session.rows().find_one({"_id": _sha(token), "kind": "access"}, session=session)
        if raw is not None:
            Session.rows().delete_many({"family": raw["family"]}, session=session)

    store.transaction(work)


def sign_out_everywhere(account_id: str, by: str) -> None:
    """End every session of an account; the own one, or one that `by` administers. Raises `NotFound`, `Forbidden`."""

    def decide(account: Account) -> dict[str, Any]:
        if by != account_id:
            _must_manage(by, account)
        return {"epoch": account.epoch + 1}

    records.change(Account, account_id, by, "sign_out_everywhere", decide)


# --- second factor (RFC 6238) ----------------------------------------------------------------------------------------


def _spend(account: Account, secret: bytes, code: str) -> bool:
    """Whether `code` is right now (30 s either side) and has not been used before; it is used up thereby."""
    totp, now = pyotp.TOTP(sealed.unseal(secret)), store.now()
    code = code.replace(" ", "")
    if not (code.isascii() and code.isdigit()) or not totp.verify(code, for_time=now, valid_window=1):
        return False
    row = {"account": account.id, "family": "", "kind": "code", "epoch": account.epoch, "used": True}
    end = now + timedelta(minutes=3)
    try:
        Session.rows().insert_one({**row, "_id": _sha(f"{account.id} {code}"), "ends_at": end, "expires_at": end})
    except DuplicateKeyError:
        return False
    return True


def begin_totp(account_id: str, password: str) -> str:
    """A new secret as an `otpauth://` address for the owner's app; it counts once `confirm_totp` has seen a code of it, and
    an older one works until then. Raises `NotSignedIn("wrong_credentials")` for a wrong password."""
    account = _proved(get(account_id).name, password, need_code=False)
    secret = pyotp.random_base32()
    pending = sealed.seal(secret)
    records.change(Account, account.id, account.id, "begin_totp", lambda _: {"totp_pending": pending})
    return pyotp.TOTP(secret).provisioning_uri(name=account.name, issuer_name="Xinqiao")


def confirm_totp(account_id: str, code: str) -> None:
    """From now on signing in needs a code. Raises `Invalid` on `code` when it is not the pending secret's."""
    account = get(account_id)
    pending = account.totp_pending
    if pending is None or not _spend(account, bytes(pending), code):
        raise invalid(
            "code",
            "bad_format",
            reason=Text("验证码不对或已过期，请用现在显示的", "it is not the present code; use the one shown now"),
        )
    put = {"totp_secret": bytes(pending), "totp_pending": None}
    records.change(Account, account_id, account_id, "confirm_totp", lambda _: put)


def drop_totp(account_id: str, by: str) -> None:
    """Take the second factor away, for someone who lost the phone; by an administrator, never by oneself (a stolen session
    could). Ends every session. Raises `Forbidden`, `NotFound`."""

    def decide(account: Account) -> dict[str, Any]:
        _must_manage(by, account, not_self=True)
        return {"totp_secret": None, "totp_pending": None, "epoch": account.epoch + 1}

    records.change(Account, account_id, by, "drop_totp", decide)


# --- accounts --------------------------------------------------------------------------------------------------------


def get(account_id: str) -> Account:
    """An account by id. Raises `NotFound`."""
    raw = Account.rows().find_one({"_id": account_id})
    if raw is None:
        raise NotFound(what=account_id)
    return Account.of(raw)


def by_name(name: str) -> Account:
    """An account by login name. Raises `NotFound`."""
    raw = Account.rows().find_one({"name": name})
    if raw is None:
        raise NotFound(what=name)
    return Account.of(raw)


def accounts(after: str = "", limit: int = 50) -> list[Account]:
    """Accounts by login name, those after `after`."""
    return [Account.of(raw) for raw in Account.rows().find({"name": {"$gt": after}}).sort("name", 1).limit(limit)]


def names(ids: Collection[str]) -> dict[str, str]:
    """Account id → display name, in one query, for colleagues who see each other's work. `SYSTEM` and unknown ids have none."""
    rows = Account.rows().find({"_id": {"$in": sorted(set(ids))}}, {"display_name": 1})
    return {raw["_id"]: raw["display_name"] for raw in rows}


def manages(actor: Actor, account: Account) -> bool:
    """Whether `actor` administers this account: every grant it has lies where the actor may write accounts. One without
    grants is its maker's, and whoever's may write accounts everywhere."""
    if not account.held():
        return actor.may("staff.write", "", "") or (actor.may("staff.write") and account.created_by == actor.id)
    return actor.may("staff.write") and all(_covers(actor, grant) for grant in account.held())


def _covers(actor: Actor, grant: Grant) -> bool:
    return actor.may("staff.write", grant.organisation, grant.division)


def _asker(by: str) -> Actor | None:
    """The account behind a staff id as it is now; None for the system, which may everything."""
    return None if by == SYSTEM else get(by).actor()


def _must_manage(by: str, account: Account, *, not_self: bool = False) -> None:
    if not_self and by == account.id:
        raise Forbidden("own_account")
    asker = _asker(by)
    if asker is not None and not manages(asker, account):
        raise Forbidden()


def _grants(wanted: Sequence[Grant], by: str) -> list[dict[str, str]]:
    """Grants checked and as stored. Raises `Invalid` on `grants`, `Forbidden` for what `by` cannot give."""
    asker, rows, errors = _asker(by), [], []
    for at, grant in enumerate(dict.fromkeys(wanted)):
        where = f"grants.{at}"
        if grant.role not in ROLES:
            errors.append(FieldError(f"{where}.role", "not_one_of", {"choices": ", ".join(ROLES)}))
        if grant.organisation and Organisation.rows().find_one({"_id": grant.organisation}, {"_id": 1}) is None:
            errors.append(FieldError(f"{where}.organisation", "unknown_reference", {"value": grant.organisation}))
        division = "" if grant.division in {"", divisions.COUNTRY} else grant.division
        if division and not divisions.known(division):
            errors.append(FieldError(f"{where}.division", "unknown_reference", {"value": division}))
        elif division:
            division = divisions.current(division)
        rows.append({"role": grant.role, "organisation": grant.organisation, "division": division})
    if errors:
        raise Invalid(errors)
    roles = {row["role"] for row in rows}
    if "admin" in roles and roles - {"admin", "auditor"}:
        raise invalid("grants", "separate_duties")
    if asker is not None and not all(_covers(asker, Grant(**row)) for row in rows):
        raise Forbidden()
    return rows


def create_account(
    name: str, display_name: str, password: str, by: str, grants: Sequence[Grant] = (), *, must_change: bool = True
) -> Account:
    """A new account with its first password, to be changed at the first sign-in unless `must_change` is False.

    Raises `Invalid` (name, password, grants), `Conflict("exists")` (a driver's error until `store.failure_of`) for a taken
    name, `Forbidden` for grants that `by` cannot give.
    """
    if not NAME.fullmatch(name):
        raise invalid(
            "name",
            "bad_format",
            reason=Text("3–32 个字符：a-z、0-9 和 . _ -，以字母开头", "3 to 32 of a-z, 0-9 and . _ -, beginning with a letter"),
        )
    check_password(password, name)
    asker = _asker(by)
    if asker is not None and not asker.may("staff.write"):
        raise Forbidden()
    account = Account(
        name=name,
        display_name=display_name,
        password_hash=_hash(password),
        password_set_by=by,
        must_change_password=must_change,
        grants=[GrantField(**row) for row in _grants(grants, by)],
    )
    return records.create(account, by)


def edit_account(
    account_id: str,
    by: str,
    *,
    revision: int | None = None,
    display_name: str | None = None,
    state: str | None = None,
    grants: Sequence[Grant] | None = None,
    action: str = "edit",
) -> Account:
    """Change what is given and leave the rest. Disabling ends every session; grants act from the next request on.

    Raises `Forbidden` when `by` does not administer the account as it was and as it would be, `Forbidden("own_account")`
    for the own state or grants, `Invalid`, `Stale`, `NotFound`.
    """
    if state not in {None, "active", "disabled"}:
        raise invalid("state", "not_one_of", choices="active, disabled")
    rows = None if grants is None else _grants(grants, by)

    def decide(account: Account) -> dict[str, Any]:
        _must_manage(by, account, not_self=state is not None or rows is not None)
        put: dict[str, Any] = {}
        if display_name is not None and display_name != account.display_name:
            put["display_name"] = display_name
        if state is not None and state != account.state:
            put |= {"state": state, "epoch": account.epoch + 1}
        if rows is not None and rows != [vars(grant) for grant in account.held()]:
            put["grants"] = rows
        return put

    return records.change(Account, account_id, by, action, decide, revision=revision)


def disable(account_id: str, by: str) -> Account:
    """Nobody signs in to it any more and its sessions end; what it wrote stays. A second call is a no-op."""
    return edit_account(account_id, by, state="disabled", action="disable")


def change_password(account_id: str, old: str, new: str) -> Tokens:
    """Change the own password. Every session ends and a new one begins. Raises `NotSignedIn("wrong_credentials")` for a
    wrong `old`, `TooMany("slow_down")`, `Invalid` on `new`."""
    name = get(account_id).name
    check_password(new, name, "new")
    if old == new:
        raise invalid("new", "weak_password")
    _proved(name, old, need_code=False)
    account = _put_password(account_id, new, account_id, False, lambda account: None)
    return _issue(account, store.new_id(), store.now() + REFRESH)


def set_password(account_id: str, new: str, by: str, *, must_change: bool = True) -> Account:
    """Give someone a new password, to be changed at the next sign-in; every session ends, a wait after failures too.
    Raises `Forbidden` (`own_account` for the own one: that takes the old password), `Invalid`, `NotFound`."""
    name = get(account_id).name
    check_password(new, name)
    account = _put_password(account_id, new, by, must_change, lambda account: _must_manage(by, account, not_self=True))
    Failures.rows().delete_one({"_id": _sha(name)})
    return account


def _put_password(account_id: str, new: str, by: str, must_change: bool, check: Callable[[Account], None]) -> Account:
    fresh = _hash(new)

    def decide(account: Account) -> dict[str, Any]:
        check(account)
        return {
            "password_hash": fresh,
            "password_set_by": by,
            "must_change_password": must_change,
            "epoch": account.epoch + 1,
        }

    return records.change(Account, account_id, by, "set_password", decide)


def independent(author: str, other: str) -> bool:
    """Whether `other` counts as a second person beside `author` (staff ids): an active account, not the same, and neither
    stands in the line of those who made the other's account or set its password last.

    What no person wrote (`system`) may be approved by anyone. What this cannot see: one person who was handed two accounts;
    that is what the trail is for.
    """
    if author == other or Account.rows().find_one({"_id": other, "state": "active"}, {"_id": 1}) is None:
        return False
    return author == SYSTEM or (author not in _makers(other) and other not in _makers(author))


def second(authors: Collection[str], by: str) -> bool:
    """Whether `by` counts as a second person beside everyone who wrote something; the service itself always does."""
    return by == SYSTEM or all(independent(author, by) for author in authors)


def _makers(account_id: str) -> set[str]:
    """Who made this account or set its password last, who did so for those, and so on."""
    todo, seen = [account_id], set[str]()
    while todo:
        raw = Account.rows().find_one({"_id": todo.pop()}, {"created_by": 1, "password_set_by": 1}) or {}
        fresh = {raw.get("created_by", SYSTEM), raw.get("password_set_by", SYSTEM)} - seen - {account_id, SYSTEM}
        seen |= fresh
        todo += fresh
    return seen


# --- organisations ---------------------------------------------------------------------------------------------------


def areas(actor: Actor, permission: str) -> list[str]:
    """The divisions, "" the country, for which the actor may do this as a whole, with all below them: that of a grant for all
    organisations; of a grant for an office (OFFICES) as much of the office's own as the grant covers. So a city acts for its
    districts, and a school's staff for nobody but the school."""
    found = set[str]()
    for grant in () if actor.must_change_password else actor.grants:
        if permission not in ROLES.get(grant.role, frozenset()):
            continue
        if not grant.organisation:
            found.add(grant.division)
            continue
        match = {"_id": grant.organisation, "kind": {"$in": sorted(OFFICES)}}
        own = (Organisation.rows().find_one(match, {"division": 1}) or {}).get("division")
        if own and divisions.within(own, grant.division):
            found.add(own)
        elif own and divisions.within(grant.division, own):
            found.add(grant.division)
    return sorted(found)


def acts_for(actor: Actor, permission: str, division: str) -> bool:
    """Whether the actor may do this for a division ("" the country) as a whole: it lies in one of `areas`."""
    return any(divisions.within(division, area) for area in areas(actor, permission))


def organisation(organisation_id: str) -> Organisation:
    """An organisation by id. Raises `NotFound`."""
    raw = Organisation.rows().find_one({"_id": organisation_id})
    if raw is None:
        raise NotFound(what=organisation_id)
    return Organisation.of(raw)


def must_exist(organisation_id: str, field: str = "organisation") -> str:
    """The organisation's name; "" is none and has none. Raises `Invalid` on `field` for one that is not there."""
    raw = Organisation.rows().find_one({"_id": organisation_id}, {"name": 1}) if organisation_id else {"name": ""}
    if raw is None:
        raise invalid(field, "unknown_reference", value=organisation_id)
    return str(raw["name"])


def organisations(after: tuple[str, str] = ("", ""), limit: int = 50) -> list[Organisation]:
    """Organisations by (division, name), those after `after`."""
    division, name = after
    match = {"$or": [{"division": {"$gt": division}}, {"division": division, "name": {"$gt": name}}]}
    return [Organisation.of(raw) for raw in Organisation.rows().find(match).sort([("division", 1), ("name", 1)]).limit(limit)]


def _must_keep(by: str, division: str, organisation_id: str | None = None) -> None:
    asker = _asker(by)
    if asker is not None and not asker.may("organisation.write", organisation_id, division):
        raise Forbidden()


def _check_organisation(values: dict[str, Any], own_id: str = "") -> dict[str, Any]:
    if "kind" in values and values["kind"] not in ORGANISATIONS:
        raise invalid("kind", "not_one_of", choices=", ".join(ORGANISATIONS))
    if "division" in values:
        values["division"] = divisions.check(values["division"], "division")
    above, seen = values.get("parent") or "", {own_id}
    while above:
        raw = Organisation.rows().find_one({"_id": above}, {"parent": 1})
        if raw is None or above in seen:  # unknown, or above itself
            raise invalid("parent", "unknown_reference", value=values["parent"])
        seen.add(above)
        above = raw.get("parent") or ""
    return values


def check_marks(kind: str, able: bool, parents: int | None) -> None:
    """Raise `Invalid` for marks that an organisation of this kind cannot have, since nothing would count them."""
    if able and kind not in {"station", *SCHOOLS}:
        raise invalid("able", "not_one_of", choices="false")
    if parents is not None and kind not in SCHOOLS:
        raise invalid("parents", "not_one_of", choices="null")


def create_organisation(
    name: str, kind: str, division: str, by: str, parent: str = "", able: bool = False, parents: int | None = None
) -> Organisation:
    """A new organisation. Raises `Invalid`, `Forbidden`, and `Conflict("exists")` (by `store.failure_of`) when its division
    has one of this name."""
    values = _check_organisation({"name": name, "kind": kind, "division": division, "parent": parent})
    check_marks(kind, able, parents)
    values |= {"able": able, "parents": parents}
    _must_keep(by, values["division"], "")
    return records.create(Organisation(**values), by)


def edit_organisation(organisation_id: str, by: str, revision: int | None = None, **values: Any) -> Organisation:
    """Change name, kind, division, parent or marks (`parents` None: not known). Raises as `create_organisation`, `Stale`,
    `NotFound`."""
    checked = _check_organisation(dict(values), organisation_id)

    def decide(found: Organisation) -> dict[str, Any]:
        _must_keep(by, found.division, organisation_id)
        _must_keep(by, checked.get("division", found.division), organisation_id)
        check_marks(*(checked.get(name, getattr(found, name)) for name in ("kind", "able", "parents")))
        return {k: v for k, v in checked.items() if getattr(found, k) != v}

    return records.change(Organisation, organisation_id, by, "edit", decide, revision=revision)

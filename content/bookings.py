"""What is booked: bookings, the places that they hold, and a session's seats while they change hands.

A booking is one family's, opened by its code alone. It holds a place in one session, or in each session of a series; each place
has a state of its own (STATES) and the number of its arrival in that session. How they come to be: `content.registrations`; what
becomes of them: `content.waiting`; who came: `content.attendance`.

Personal data (telephone, family name, needs, answers to the organiser's questions) is sealed, stands nowhere else, and goes when
no place is left that is to come; the whole booking within 30 days after its last session, by `purge`, which leaves a line that
says how many. The session's own numbers stay.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
from pymongo.client_session import ClientSession

from content import codes, courses, records, sealed, store
from content.courses import CourseSession, Series
from content.failures import Conflict, NotFound
from content.published import release

KEEP = timedelta(days=29)  # a booking's personal data after its last session; promise 18 says 30 days, one is left for the purge
STATES = ("requested", "confirmed", "waiting", "offered", "cancelled", "declined", "expired", "refused")
HELD = ("requested", "confirmed", "offered")  # these take their seats
ACTIVE = (*HELD, "waiting")
DAY = 86400


class Booking(store.Row):
    """What one family booked; `_id` is the SHA-256 of its code. No record and no line in the trail has any of it."""

    series = me.StringField(required=True)
    session = me.StringField()
    """The one session that was booked; absent for a whole series, of which every session bookable then has a place."""
    seats = me.IntField(required=True)
    contact = me.BinaryField()
    """Sealed JSON {"phone": E.164, "family_name", "needs", "answers": {question: option or text}}; this and the next go when no
    place is left that is to come."""
    phone_blind = me.BinaryField()
    push = me.BinaryField()
    """Sealed JSON {"kind": fid|token, "value"}: where the phone wants to be told, when it asked for that."""
    push_at = me.DateTimeField()
    pushed = me.ListField()
    push_try = me.DictField()
    """These three are `notifications.bookings`', which says what they mean. `pushed` is not all that was told: what all who
    booked a session are told is counted by the places' numbers, and stands with no booking."""
    feed = me.StringField(required=True)
    """SHA-256 of the secret in its calendar's address. The secret follows from the code and does not lead back to it."""
    created_at = me.DateTimeField(required=True)
    seen_at = me.DateTimeField(required=True)
    """When its holder last looked, after something had happened."""
    expires_at = me.DateTimeField(required=True)
    """To be erased by `purge`; by the index a day later if that could not run."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "bookings",
        "indexes": [
            {"fields": ["phone_blind"]},
            {"fields": ["session"]},
            {"fields": ["series", "session"]},
            {"fields": ["feed"], "unique": True},
            {"fields": ["push_at", "push"]},
            {"fields": ["expires_at"], "expireAfterSeconds": DAY},
        ],
    }


class Place(store.Row):
    """One booking's claim in one session."""

    booking = me.StringField(required=True)
    session = me.StringField(required=True)
    series = me.StringField()
    """Of a booking of the whole series only: its id."""
    seats = me.IntField(required=True)
    number = me.IntField(required=True)
    """Of its arrival in the session: 1, 2, 3 … without a gap."""
    state = me.StringField(required=True, choices=STATES)
    history = me.ListField()
    """[{"state", "at"}], oldest first."""
    offered_until = me.DateTimeField()
    attended = me.IntField()
    """Seats checked in; absent before."""
    feedback = me.BooleanField()
    """True once the family has said how it was (`content.feedback`): that, and not what."""
    told = me.IntField(required=True, default=0)
    """The session's last event that this family knew when it booked, or was told by telephone (`content.reaching`)."""
    calls = me.ListField()
    """[{"at", "outcome"}] of the calls that staff made."""
    expires_at = me.DateTimeField(required=True)
    """As the booking's."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "places",
        "indexes": [
            {"fields": ["session", "state", "number"]},
            {"fields": ["session", "number"], "unique": True},
            {"fields": ["booking"]},
            {"fields": ["series"]},
            {"fields": ["state", "offered_until"]},
            {"fields": ["expires_at"], "expireAfterSeconds": DAY},
        ],
    }


class Held(NamedTuple):
    """A place as its holder sees it, with the session as it now is."""

    id: str
    session: CourseSession
    state: str
    seats: int
    number: int
    ahead: int
    """Places that wait before it; 0 unless it waits."""
    offered_until: datetime | None
    attended: int | None
    history: Sequence[Mapping[str, Any]]
    feedback: bool
    """Whether this family has said how it was."""


class Booked(NamedTuple):
    """A booking as its holder sees it."""

    code: str
    feed: str
    """The secret of its calendar's address."""
    series: str
    whole: bool
    seats: int
    places: list[Held]
    created_at: datetime
    pushed: bool
    """Whether the phone asked to be told by push."""
    left_out: tuple[str, ...] = ()
    """Of a series, told at booking only: the sessions in which there was no room."""


# --- seats, inside a transaction -------------------------------------------------------------------------------------


class Desk:
    """One session inside a transaction: its counters as they are changed step by step, written once by `write`.

    Reading it here and writing it there makes any two transactions on one session meet: the database runs the loser again.
    """

    def __init__(self, tx: ClientSession, raw: Mapping[str, Any]) -> None:
        self.tx = tx
        self.before = CourseSession.of(dict(raw))
        self.now = store.now()
        self.taken: int = raw["seats_taken"]
        self.waiting: int = raw.get("waiting", 0)
        self.arrivals: int = raw.get("arrivals", 0)

    @classmethod
    def open(cls, tx: ClientSession, session: str) -> "Desk":
        """Raises `NotFound`."""
        raw = CourseSession.rows().find_one({"_id": session}, session=tx)
        if raw is None:
            raise NotFound(what=session)
        return cls(tx, raw)

    @property
    def bookable(self) -> bool:
        """Published, and not past its deadline."""
        return bool(self.before.state == "published" and self.before.booking_closes_at > self.now)

    def fits(self, seats: int) -> bool:
        """Whether so many more seats can be held."""
        return bool(self.taken + seats <= self.before.capacity)

    def write(self) -> CourseSession:
        """Write the counters; released again when the public word changed. Returns the session as it now is."""
        counters = {"seats_taken": self.taken, "waiting": self.waiting, "arrivals": self.arrivals}
        old = {name: getattr(self.before, name) for name in counters}
        present = CourseSession.of({**self.before.to_mongo().to_dict(), **counters})
        if counters == old:
            return present
        match: dict[str, Any] = {"_id": self.before.id}
        if self.taken > old["seats_taken"]:
            match["capacity"] = {"$gte": self.taken}
        added = {name: value - old[name] for name, value in counters.items()}
        if not CourseSession.rows().update_one(match, {"$inc": added}, session=self.tx).matched_count:
            raise Conflict("full")
        word = courses.seats_word(present)
        if present.state == "published" and word != courses.seats_word(self.before):
            release(self.tx, [courses.session_item(present)])
        return present


# --- what is booked --------------------------------------------------------------------------------------------------


def booked_of(
    code: str,
    raw: Mapping[str, Any],
    places: Iterable[Mapping[str, Any]],
    tx: ClientSession | None = None,
    known: Mapping[str, CourseSession] | None = None,
    ahead: Mapping[str, int] | None = None,
) -> Booked:
    """A booking and its places as their holder sees them, in order of time. `ahead`: by place, how many wait before it, where
    that is known already (the embedded database takes 20 ms to count some hundreds)."""
    rows = list(places)
    there = {**(known or {})}
    if missing := {row["session"] for row in rows} - there.keys():
        for found in CourseSession.rows().find({"_id": {"$in": sorted(missing)}}, session=tx):
            there[found["_id"]] = CourseSession.of(found)
    held = [_held(row, there[row["session"]], tx, (ahead or {}).get(row["_id"])) for row in rows]
    held.sort(key=lambda one: (one.session.starts_at, one.id))
    pushed = raw.get("push") is not None
    return Booked(code, feed_of(code), raw["series"], not raw.get("session"), raw["seats"], held, raw["created_at"], pushed)


def _held(row: Mapping[str, Any], session: CourseSession, tx: ClientSession | None, ahead: int | None) -> Held:
    if row["state"] != "waiting":
        ahead = 0
    elif ahead is None:
        match = {"session": row["session"], "state": "waiting", "number": {"$lt": row["number"]}}
        ahead = Place.rows().count_documents(match, session=tx)
    until = row.get("offered_until") if row["state"] == "offered" else None
    shown = row["_id"], session, row["state"], row["seats"], row["number"], ahead, until, row.get("attended"), row["history"]
    return Held(*shown, feedback=bool(row.get("feedback")))


def opened(code: str, tx: ClientSession | None = None) -> dict[str, Any]:
    """The booking's row. Raises `NotFound`, also for a text that is no code."""
    raw: dict[str, Any] | None = Booking.rows().find_one({"_id": codes.name(code)}, session=tx)
    if raw is None:
        raise NotFound(what="booking")
    return raw


def see(code: str) -> Booked:
    """The booking of a code. Raises `NotFound`."""
    raw = opened(code)
    return booked_of(code, raw, Place.rows().find({"booking": raw["_id"]}))


def feed(secret: str) -> list[Held]:
    """The places that a calendar's address shows. Raises `NotFound`."""
    raw = Booking.rows().find_one({"feed": codes.name(secret)})
    if raw is None:
        raise NotFound(what="calendar")
    return booked_of("", raw, Place.rows().find({"booking": raw["_id"]})).places


def contact_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """{"phone", "family_name", "needs", "answers"} of a booking's row; empty once erased."""
    found: dict[str, Any] = json.loads(sealed.unseal(raw["contact"])) if raw.get("contact") else {}
    return found


def feed_of(code: str) -> str:
    """The secret in the address of a booking's calendar. It is given to calendar services, which keep addresses: nobody can
    change or cancel anything with it."""
    return hashlib.sha256(b"calendar of " + codes.name(code).encode()).hexdigest()[:40]


def of_session(session: Mapping[str, Any], tx: ClientSession | None = None) -> Iterator[dict[str, Any]]:
    """The bookings that may hold a place in this session (a row): its own, and those of its whole series. Not by the ids that its
    places name: the embedded database takes a thousand of those for five seconds, and these for a fraction of one."""
    for match in ({"session": session["_id"]}, {"series": session["series"], "session": None}):
        yield from Booking.rows().find(match, session=tx)


# --- for the organiser -----------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One place as the organiser sees it; texts are empty once they were erased."""

    place: str
    number: int
    state: str
    seats: int
    attended: int | None
    offered_until: datetime | None
    whole: bool
    family_name: str
    phone: str
    needs: str
    answers: Mapping[str, str]
    created_at: datetime


def register(session_id: str, by: str) -> list[Entry]:
    """All places of a session with names and telephones, in order of arrival. The reading itself leaves a line in the trail, in
    the same transaction, with the number of places and nothing of their content. Raises `NotFound`."""

    def work(tx: ClientSession) -> list[Entry]:
        raw_session = CourseSession.rows().find_one({"_id": session_id}, session=tx)
        if raw_session is None:
            raise NotFound(what=session_id)
        rows = list(Place.rows().find({"session": session_id}, session=tx).sort("number", 1))
        owners = {raw["_id"]: raw for raw in of_session(raw_session, tx)}
        records.trail(tx, CourseSession, session_id, by, "read_bookings", {}, {}, note=f"{len(rows)} places")
        return [_entry(row, owners[row["booking"]]) for row in rows if row["booking"] in owners]

    return store.transaction(work)


def _entry(row: Mapping[str, Any], owner: Mapping[str, Any]) -> Entry:
    contact = {"family_name": "", "phone": "", "needs": "", "answers": {}, **contact_of(owner)}
    return Entry(
        row["_id"], row["number"], row["state"], row["seats"], row.get("attended"), row.get("offered_until"),
        not owner.get("session"),
        contact["family_name"], contact["phone"], contact["needs"], contact["answers"], owner["created_at"],
    )  # fmt: skip


# --- the end ---------------------------------------------------------------------------------------------------------


def purge(now: datetime) -> int:
    """Erase the bookings whose time is over, with their places; each series gets a line in the trail that says how many. Returns
    how many bookings; a second call finds none. Raises driver errors."""

    def places(tx: ClientSession, names: list[str]) -> None:
        Place.rows().delete_many({"booking": {"$in": names}}, session=tx)

    return records.purge(Booking, now, Series, "series", places)


def follow_end(tx: ClientSession, session: CourseSession) -> None:
    """The bookings of a session that was moved are kept as long as its new end says; part of `sessions.edit_session`."""
    put = {"$set": {"expires_at": session.ends_at + KEEP}}
    if Booking.rows().update_many({"session": session.id}, put, session=tx).matched_count:
        Place.rows().update_many({"session": session.id, "series": None}, put, session=tx)
    if rows := list(Place.rows().find({"series": session.series, "state": {"$in": ACTIVE}}, session=tx)):
        ends = {one["_id"]: one["ends_at"] for one in CourseSession.rows().find({"series": session.series}, session=tx)}
        last: dict[str, datetime] = {}
        for row in rows:
            last[row["booking"]] = max(ends[row["session"]], last.get(row["booking"], ends[row["session"]]))
        for booking in {row["booking"] for row in rows if row["session"] == session.id}:
            _keep(tx, booking, last[booking])


def keep_as_needed(tx: ClientSession, booking: str) -> None:
    """After a place was left: a booking is kept until KEEP after the last session in which it still has a place."""
    names = [row["session"] for row in Place.rows().find({"booking": booking, "state": {"$in": ACTIVE}}, session=tx)]
    if ends := [row["ends_at"] for row in CourseSession.rows().find({"_id": {"$in": names}}, {"ends_at": 1}, session=tx)]:
        _keep(tx, booking, max(ends))


def _keep(tx: ClientSession, booking: str, end: datetime) -> None:
    put = {"$set": {"expires_at": end + KEEP}}
    if Booking.rows().update_one({"_id": booking, "expires_at": {"$ne": end + KEEP}}, put, session=tx).modified_count:
        Place.rows().update_many({"booking": booking}, put, session=tx)

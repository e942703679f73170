"""Booking without an account: a phone, a family name, some seats, and a code that alone opens the booking.

Seats are taken by ONE conditional update on the session, in one transaction with bookings and places, so they are never oversold
and none is lost between the two. Those who press at one moment are written together (`content.groups`), in the order of their
coming; other transactions that meet on the session are run again by the driver. Once a session is full, or somebody waits, who
comes then waits too (`content.waiting`), if they want to.

No answer says whether a phone is booked: one that holds PER_PHONE seats is refused with the very same `full`. (While the session
publicly says "open", or where others may still wait, a prober who is refused can draw a conclusion; only an answer sent to the
phone itself could hide that.)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from content import codes, courses, languages, phones, publicwords, sealed, store
from content.bookings import ACTIVE, KEEP, Booked, Booking, Desk, Place, booked_of, contact_of, feed_of
from content.checking import Check
from content.courses import CourseSession
from content.failures import Conflict, Failure, FieldError, Invalid, NotFound, Text, Unavailable, invalid
from content.groups import Groups, Part
from content.settings import Settings

PER_PHONE = 4  # seats of one phone in one session
MOST_WAITING = 500  # places that wait for one session
MOST_SESSIONS = 40  # of a series that is booked as a whole
WHOLE = 30  # what such a booking weighs in a group: its places take most of a second on the embedded database


class Wish(NamedTuple):
    """What a family sends. `session` or `series` names what is booked."""

    seats: int
    family_name: str
    phone: str
    session: str = ""
    series: str = ""
    needs: str = ""
    answers: Mapping[str, str] = {}
    wait: bool = False
    """Whether to wait where there is no seat."""
    invitation: str = ""
    push: Mapping[str, str] | None = None
    doubtful: bool = False
    """More was asked for from one address than families do: the organiser says yes to each."""


# --- what is sent ----------------------------------------------------------------------------------------------------


def _contact(wish: Wish) -> dict[str, Any]:
    """The checked contact. Raises `Invalid`."""
    name = languages.one_line(wish.family_name)
    if not 0 < len(name) <= 40:
        raise invalid("family_name", "out_of_range", reason=Text("长度 1–40 个字符", "1 to 40 characters"))
    if not 1 <= wish.seats <= PER_PHONE:
        raise invalid("seats", "out_of_range", reason=Text(f"请填 1–{PER_PHONE}", f"1 to {PER_PHONE}"))
    needs = checked_needs(wish.needs)
    check = publicwords.Check()
    check.numberless("family_name", name)
    check.done()
    answers = {code: languages.one_line(text)[:500] for code, text in wish.answers.items()}
    return {"phone": phones.number(wish.phone), "family_name": name, "needs": needs, "answers": answers}


def checked_needs(text: str) -> str:
    """What staff read before a family comes, in one line, without a telephone or identity number. Raises `Invalid`."""
    needs, check = languages.one_line(text), publicwords.Check()
    if len(needs) > 200:
        raise invalid("needs", "out_of_range", reason=Text("最多 200 个字符", "200 characters at most"))
    check.numberless("needs", needs)
    check.done()
    return needs


def _answered(questions: Sequence[Mapping[str, Any]], answers: Mapping[str, str]) -> list[FieldError]:
    """What is wrong with the answers to an organiser's questions."""
    check, known = Check(), {str(one["code"]): one for one in questions}
    check.fields({f"answers.{code}": None for code in answers}, {f"answers.{code}" for code in known})
    for code, question in known.items():
        given, options = answers.get(code), [option["code"] for option in question["options"]]
        if not given and question["required"]:
            check.fail(f"answers.{code}", "required")
        elif given and options and given not in options:
            check.fail(f"answers.{code}", "not_one_of", choices=", ".join(options))
    return check.errors


# --- booking ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Part(Part):
    """One booking on its way; its outcome is the `Booked`."""

    wish: Wish
    contact: Mapping[str, Any]
    code: str
    row: dict[str, Any]


def book(settings: Settings, wish: Wish, key: str | None = None) -> Booked:
    """Take seats in a published session, or in every session of a series that can be booked.

    A place is `confirmed`, or `requested` where the series wants the organiser's word or the wish is doubtful, or, with
    `wish.wait`, `waiting` once there are too few seats or others wait already. Raises `NotFound` (also without the right
    invitation), `Invalid`, `Conflict("closed")` past the deadline or once cancelled, `Conflict("full")` (of a series: when no
    session has room; otherwise the sessions without room are left out).

    With `key` a repeat returns the same booking and code, in the state it now has, and takes nothing; the same key, session and
    phone with another wish raises `Failure("duplicate_key_body")`. Without one, a repeat is a second booking.
    """
    contact = _contact(wish)
    target = wish.session or wish.series
    code = codes.repeatable("booking code", key, target, contact["phone"])
    row = {
        "_id": codes.name(code), "session": wish.session or None, "seats": wish.seats,
        "contact": sealed.seal(json.dumps(contact)), "phone_blind": sealed.blind(contact["phone"]),
        "feed": codes.name(feed_of(code)),
    }  # fmt: skip
    if wish.push:
        row["push"] = sealed.seal(json.dumps(dict(wish.push)))
    booked: Booked = _groups.join(settings, _Part(wish, contact, code, row, weight=1 if wish.session else WHOLE))
    return booked


def _settle(parts: list[_Part]) -> None:
    """Give each part its outcome. What is wrong with one of them is told to that one; the others are booked."""
    try:
        outcomes = store.transaction(partial(_write, parts=parts))
    except Exception as error:
        failure = store.failure_of(error) if isinstance(error, PyMongoError) else None
        if isinstance(error, DuplicateKeyError | BulkWriteError) or not (isinstance(failure, Unavailable) or len(parts) == 1):
            for part in parts:  # one at a time; who has met the same key at another process finds its booking there
                _settle_one(part)
        else:
            for part in parts:
                part.outcome = failure or error
        return
    for part, outcome in zip(parts, outcomes, strict=True):
        part.outcome = outcome


def _settle_one(part: _Part) -> None:
    for last in (False, True):
        try:
            [part.outcome] = store.transaction(partial(_write, parts=[part]))
            return
        except (DuplicateKeyError, BulkWriteError) as error:
            part.outcome = error if last else None
        except Exception as error:
            part.outcome = (store.failure_of(error) if isinstance(error, PyMongoError) else None) or error
            return


_groups = Groups("bookings", _settle)


def _write(tx: ClientSession, *, parts: Sequence[_Part]) -> list[Booked | Failure]:
    """Inside the transaction: each part's outcome, in the order of their coming."""
    room = _Room(tx, parts)
    outcomes: list[Booked | Failure] = []
    for part in parts:
        try:
            outcomes.append(room.again(part) or room.take(part))
        except Failure as failure:
            outcomes.append(failure)
    room.write()
    return outcomes


class _Room:
    """What a group of bookings needs to know, read once, and what it adds, written once."""

    def __init__(self, tx: ClientSession, parts: Sequence[_Part]) -> None:
        self.tx = tx
        names = [part.row["_id"] for part in parts]
        self.known: dict[str, dict[str, Any]] = {r["_id"]: r for r in Booking.rows().find({"_id": {"$in": names}}, session=tx)}
        self.series: dict[str, dict[str, Any]] = {}
        """What readers were told of each."""
        self.desks: dict[str, Desk] = {}
        self.held: dict[tuple[bytes, str], int] = {}
        """(phone, session) -> seats."""
        phones = [part.row["phone_blind"] for part in parts]
        owners = {r["_id"]: bytes(r["phone_blind"]) for r in Booking.rows().find({"phone_blind": {"$in": phones}}, session=tx)}
        if owners:
            match = {"booking": {"$in": sorted(owners)}, "state": {"$in": ACTIVE}}
            for place in Place.rows().find(match, session=tx):
                self._hold(owners[place["booking"]], place["session"], place["seats"])
        self.bookings: list[dict[str, Any]] = []
        self.places: list[dict[str, Any]] = []

    def _hold(self, phone: bytes, session: str, seats: int) -> None:
        key = (phone, session)
        self.held[key] = self.held.get(key, 0) + seats

    def again(self, part: _Part) -> Booked | None:
        """The booking that this code already opens, when it is the same wish."""
        raw = self.known.get(part.row["_id"])
        if raw is None:
            return None
        target = part.wish.series or part.wish.session
        mine = [p for p in self.places if p["booking"] == raw["_id"]] or list(
            Place.rows().find({"booking": raw["_id"]}, session=self.tx)
        )
        there = raw.get("session") or raw["series"]
        contact = contact_of(raw) or part.contact
        same = bool(raw.get("session")) == bool(part.wish.session) and raw["seats"] == part.wish.seats
        if not same or there != target or contact != part.contact:
            raise Failure("duplicate_key_body")
        return booked_of(part.code, raw, mine, self.tx, {key: desk.before for key, desk in self.desks.items()})

    def _parent(self, key: str, wish: Wish) -> dict[str, Any]:
        if key not in self.series:
            self.series[key] = courses.told(key, self.tx)
        parent = self.series[key]
        if parent["visibility"] == "invited" and not courses.invited(parent, wish.invitation):
            raise NotFound(what=wish.session or wish.series)
        return parent

    def _desks(self, wish: Wish) -> list[Desk]:
        """The sessions asked for that can be booked."""
        if wish.session:
            found = [self._desk(wish.session)]
            self._parent(found[0].before.series, wish)
            if found[0].before.state == "draft":
                raise NotFound(what=wish.session)
        else:
            self._parent(wish.series, wish)
            match = {"series": wish.series, "state": "published", "booking_closes_at": {"$gt": store.now()}}
            rows = CourseSession.rows().find(match, session=self.tx).sort("starts_at", 1).limit(MOST_SESSIONS)
            found = [self.desks.setdefault(raw["_id"], Desk(self.tx, raw)) for raw in rows]
        found = [desk for desk in found if desk.bookable]
        if not found:
            raise Conflict("closed")
        return found

    def _desk(self, key: str) -> Desk:
        if key not in self.desks:
            self.desks[key] = Desk.open(self.tx, key)
        return self.desks[key]

    def take(self, part: _Part) -> Booked:
        """A place in each session asked for that has room. Raises `NotFound`, `Invalid`, `Conflict`."""
        desks, wish = self._desks(part.wish), part.wish
        parent = self.series[desks[0].before.series]
        if errors := _answered(parent["questions"], part.contact["answers"]):
            raise Invalid(errors)
        phone, places, out, ahead = bytes(part.row["phone_blind"]), [], [], {}
        expires = max(desk.before.ends_at for desk in desks) + KEEP
        for desk in desks:
            if self.held.get((phone, desk.before.id), 0) + wish.seats > PER_PHONE:
                out.append(desk.before.id)
                continue
            if not desk.waiting and desk.fits(wish.seats):
                state = "requested" if parent["approval"] or wish.doubtful else "confirmed"
                desk.taken += wish.seats
            elif wish.wait and desk.before.waiting_list and desk.waiting < MOST_WAITING and wish.seats <= desk.before.capacity:
                state = "waiting"
                ahead[desk.before.id] = desk.waiting
                desk.waiting += 1
            else:
                out.append(desk.before.id)
                continue
            desk.arrivals += 1
            self._hold(phone, desk.before.id, wish.seats)
            places.append({
                "_id": store.new_id(), "booking": part.row["_id"], "session": desk.before.id, "series": wish.series or None,
                "seats": wish.seats, "number": desk.arrivals, "state": state, "history": [{"state": state, "at": desk.now}],
                "told": desk.before.events[-1]["n"] if desk.before.events else 0, "expires_at": expires,
            })  # fmt: skip
        if not places:
            raise Conflict("full")
        stamped = {**part.row, "series": parent["id"], "created_at": desks[0].now, "seen_at": desks[0].now, "expires_at": expires}
        self.bookings.append(stamped)
        self.places += places
        self.known[stamped["_id"]] = stamped
        known = {desk.before.id: desk.before for desk in desks}
        before = {place["_id"]: ahead.get(place["session"], 0) for place in places}
        return booked_of(part.code, stamped, places, self.tx, known, before)._replace(left_out=tuple(out))

    def write(self) -> None:
        """All of it. The session first: two transactions meet there before either has written anything else."""
        for desk in self.desks.values():
            desk.write()
        if self.bookings:
            Booking.rows().insert_many(self.bookings, session=self.tx)
            Place.rows().insert_many(self.places, session=self.tx)

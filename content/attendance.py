"""At the door: who of those booked came, how many came without a booking, and the organiser's own count.

Several devices work at one door, also without a network: each takes the list along (`door`) and sends what it noted later, in any
order and as often as it likes (`upload`). What a device notes carries a nonce that it made; the same nonce counts once, and of
different nonces for one booking the first counts. So that no two uploads can both miss the other, they meet at the session's
document, and a repeat of one booking at the row that counted.

`Place.attended` is what holds; a row of `checkins` remembers what became of a nonce. The sums on the session follow in the same
transaction and leave its revision alone: nothing of it is published.

What a family shows is a QR code with the text `XQ1:` and the 64 hex digits of its booking's id, in capitals. They follow from the
booking's code (SHA-256 of its letters and digits, `codes.name`) and do not lead back to it: who sees the QR can be let in, and
can neither read, change nor cancel anything. No row says who came when, or by which device.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
from pymongo.client_session import ClientSession

from content import bookings, codes, records, store
from content.bookings import ACTIVE, KEEP, Place
from content.courses import CourseSession
from content.failures import Conflict, NotFound, Text, invalid
from content.sessions import MOST_SEATS, STAYS_OPEN

MARK = "XQ1:"  # of a check-in token; another form would get another mark
OPENS = timedelta(hours=3)  # before the start
AHEAD = timedelta(minutes=5)  # that a device's clock may be fast
MOST = 500  # of each kind in one upload
PART = 100  # of them in one transaction: with the embedded database 0.2 s, where 500 would be at the end of a request's patience
FEW = 20  # are looked up one by one; for more the session's rows are read, 0.05 ms each, where one of many costs 1 ms
MOST_WALK_INS = 1000  # people under one nonce
_TOKEN = re.compile(r"XQ1:([0-9A-F]{64})")

OUTCOMES: Mapping[str, Text] = {
    "in": Text("已签到，欢迎。", "Checked in. Welcome."),
    "already_in": Text("已经签到过了，没有重复计入。", "Already checked in; nothing is counted twice."),
    "wrong_session": Text("这是另一场的报名。", "This booking is for another session."),
    "cancelled": Text("这个报名已取消或已过期。", "This booking was cancelled or has expired."),
    "not_confirmed": Text(
        "这个报名还没有名额（待审核或候补）。有空位时请先在报名名单里给位或同意，再签到。",
        "This booking has no seat yet (to be approved, or waiting). If there is room, approve it or give it a seat in the list "
        "of bookings, then check it in.",
    ),
    "session_cancelled": Text("这一场已取消。", "This session has been cancelled."),
    "not_yet": Text("开始前 3 小时起才能签到。", "Check-in opens three hours before the start."),
    "too_late": Text("结束满 7 天，不能再补签到。", "Check-ins are taken until seven days after the end."),
    "wrong_time": Text(
        "设备的时间比现在晚。请校准后重发，或不带时间重发。",
        "The device's clock is ahead. Set it, or send this again without a time.",
    ),
    "nonce_used": Text(
        "这个 nonce 已用于另一次签到。请换一个重发。", "This nonce was used for another check-in. Send this again with a new one."
    ),
    "undone": Text("已撤销。", "Undone."),
    "malformed": Text(
        "这一条写得不对，没有计入：{fields}。", "This one is not written as it should be and is not counted: {fields}."
    ),
    "unknown": Text("没有这个报名。请核对，或计入现场人数。", "No such booking. Look again, or count them as walk-ins."),
}
"""What becomes of one item; in, already_in and undone are kept under their nonce, the others are judged anew when sent again."""
OVER = ("cancelled", "declined", "expired", "refused")


class CheckIn(store.Row):
    """What became of one nonce in one session."""

    session = me.StringField(required=True)
    place = me.StringField()
    """Absent: people without a booking; or undone before it arrived."""
    people = me.IntField(required=True)
    """As the device said; what counts of a booking is `Place.attended`."""
    outcome = me.StringField(required=True, choices=("in", "already_in", "undone"))
    again = me.IntField(required=True, default=0)
    """How often others were told already_in because of this one; an undoing at that moment meets them here."""
    expires_at = me.DateTimeField(required=True)
    """As the bookings of the session."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "checkins",
        "indexes": [
            {"fields": ["session"]},
            {"fields": ["place"]},
            {"fields": ["expires_at"], "expireAfterSeconds": bookings.DAY},
        ],
    }


class Item(NamedTuple):
    """One booking at the door: `booking` (its id, see `booking_of`) or `place` names it."""

    nonce: str
    booking: str = ""
    place: str = ""
    seats: int | None = None
    """How many came of those booked; None: all."""
    at: datetime | None = None
    """By the device's clock; None: now. Judged, and kept nowhere."""


class WalkIn(NamedTuple):
    """People who came without a booking."""

    nonce: str
    people: int
    at: datetime | None = None


class Undo(NamedTuple):
    """A nonce that was a mistake."""

    nonce: str


class Result(NamedTuple):
    """What became of one item."""

    nonce: str
    outcome: str
    """A key of OUTCOMES."""
    place: str = ""
    seats: int | None = None
    """Booked."""
    people: int | None = None
    """Now in, of this booking or under this nonce."""
    state: str = ""
    """Of the place."""
    elsewhere: CourseSession | None = None
    """The session that it is booked for, when that is of the same organisation."""


class Uploaded(NamedTuple):
    """An upload's outcomes, in its order, and the sums of the whole session as they now are."""

    items: list[Result]
    walk_ins: list[Result]
    undo: list[Result]
    attended: int
    """Seats checked in."""
    people: int
    """Walk-ins."""


# --- tokens ----------------------------------------------------------------------------------------------------------


def token(code: str) -> str:
    """What the family with this booking code shows at the door."""
    return token_of(codes.name(code))


def token_of(booking: str) -> str:
    """The token of a booking's id."""
    return MARK + booking.upper()


def booking_of(text: str) -> str:
    """The booking's id that a QR code of the family leads to: its token, or the booking's code, bare or after the `#` of an
    address; "" for any other text."""
    found = _TOKEN.fullmatch(text.strip().upper())
    if found:
        return found[1].lower()
    code = codes.bare(text.rpartition("#")[2].strip())
    return codes.name(code) if code else ""


# --- the list that a device takes along ------------------------------------------------------------------------------


class Guest(NamedTuple):
    """One place as the door sees it: no telephone, and no name of a booking that is over."""

    place: str
    token: str
    number: int
    seats: int
    state: str
    family_name: str
    attended: int | None


class Door(NamedTuple):
    """All that a device needs to work without a network."""

    session: CourseSession
    opens_at: datetime
    closes_at: datetime
    guests: list[Guest]


def opens_at(session: CourseSession) -> datetime:
    """From when people are let in."""
    return session.starts_at - OPENS  # type: ignore[no-any-return]


def closes_at(session: CourseSession) -> datetime:
    """Until when uploads and corrections are taken."""
    return session.ends_at + STAYS_OPEN  # type: ignore[no-any-return]


def door(session_id: str, by: str) -> Door:
    """The places of a session for its door, in order of arrival, those that are over too, so that a device can tell them from
    unknown ones. Reading it leaves a line in the trail with the number of places. Raises `NotFound`."""

    def work(tx: ClientSession) -> Door:
        session = _session(tx, session_id)
        rows = list(Place.rows().find({"session": session_id}, session=tx).sort("number", 1))
        owners = {raw["_id"]: raw for raw in bookings.of_session({"_id": session.id, "series": session.series}, tx)}
        records.trail(tx, CourseSession, session_id, by, "read_door", {}, {}, note=f"{len(rows)} places")
        return Door(
            session,
            opens_at(session),
            closes_at(session),
            [_guest(row, owners.get(row["booking"]) if row["state"] in ACTIVE else None) for row in rows],
        )

    return store.transaction(work)


def _guest(row: Mapping[str, Any], owner: Mapping[str, Any] | None) -> Guest:
    name = bookings.contact_of(owner).get("family_name", "") if owner and row["state"] in ACTIVE else ""
    return Guest(row["_id"], token_of(row["booking"]), row["number"], row["seats"], row["state"], name, row.get("attended"))


def _session(tx: ClientSession, key: str) -> CourseSession:
    raw = CourseSession.rows().find_one({"_id": key}, session=tx)
    if raw is None:
        raise NotFound(what=key)
    if raw["state"] == "draft":
        raise Conflict("wrong_state", state="draft", action="check in")
    return CourseSession.of(raw)


# --- uploads ---------------------------------------------------------------------------------------------------------


def upload(
    session_id: str, by: str, items: Sequence[Item] = (), walk_ins: Sequence[WalkIn] = (), undo: Sequence[str] = ()
) -> Uploaded:
    """Take what a device noted. Each item gets an outcome; one that is refused keeps no other back. A second call changes nothing
    and answers the same, so what was cut (only parts of PART were written) is sent again whole.

    `undo` (nonces) comes first: what was in by that nonce is in no more, unless another device has checked the same booking in,
    whose word then counts. A nonce that has not arrived yet will not count when it does. To correct a number: undo, and a new
    nonce. More seats than booked count as those booked; the others are walk-ins. Raises `NotFound`, `Conflict` (a draft).
    """
    notes: list[Item | WalkIn | Undo] = [*(Undo(nonce) for nonce in undo), *items, *walk_ins]
    results: list[Result] = []
    sums = _part(session_id, by, notes[:PART], results)
    for start in range(PART, len(notes), PART):
        sums = _part(session_id, by, notes[start : start + PART], results)
    came = len(undo) + len(items)
    return Uploaded(results[len(undo) : came], results[came:], results[: len(undo)], sums["attended"], sums["walk_ins"])


def _part(session: str, by: str, notes: Sequence[Item | WalkIn | Undo], results: list[Result]) -> Mapping[str, int]:
    """One transaction: its outcomes are added to `results`; returns the session's sums."""

    def work(tx: ClientSession) -> tuple[list[Result], Mapping[str, int]]:
        room = _Part(tx, _session(tx, session), notes)
        told = [room.judge(note) for note in notes]
        room.write(by)
        return told, room.sums

    told, sums = store.transaction_or_again(work)  # two devices may send the same nonce at one moment
    results += told
    return sums


def _name(session: str, nonce: str) -> str:
    """The id of a nonce's row: it says nothing of how a device makes its nonces."""
    return hashlib.sha256(f"{session}\n{nonce}".encode()).hexdigest()[:32]


class _Part:
    """A part of an upload inside its transaction: read at once, judged one by one, written at once."""

    def __init__(self, tx: ClientSession, session: CourseSession, notes: Sequence[Item | WalkIn | Undo]) -> None:
        self.tx, self.session, self.now = tx, session, store.now()
        self.before = {"attended": session.attended, "walk_ins": session.walk_ins}
        self.sums = dict(self.before)
        self.few = len(notes) <= FEW
        self.read: dict[type[store.Row], list[dict[str, Any]]] = {}
        names = {_name(session.id, note.nonce) for note in notes}
        self.rows: dict[str, dict[str, Any]] = {row["_id"]: row for row in self._those(CheckIn, "_id", names)}
        self._read_places([note for note in notes if isinstance(note, Item)])
        self.live: dict[str, list[dict[str, Any]]] = {}
        """By place: the rows that say that it is in."""
        for row in self._those(CheckIn, "place", {key for key, place in self.places.items() if "attended" in place}):
            if row["outcome"] in {"in", "already_in"}:
                self.live.setdefault(row["place"], []).append(self.rows.setdefault(row["_id"], row))
        self.was = {key: row["outcome"] for key, row in self.rows.items()}
        self.again: set[str] = set()
        self.moved: set[str] = set()

    def _those(self, cls: type[store.Row], field: str, names: set[str]) -> list[dict[str, Any]]:
        """The session's rows with these values. The embedded database takes many values of `$in` one by one, and longer for each
        the more there are."""
        if not names:
            return []
        if self.few:
            found = cls.rows().find({field: {"$in": sorted(names)}}, session=self.tx)
            return [row for row in found if row["session"] == self.session.id]
        return [row for row in self._all(cls) if row.get(field) in names]

    def _all(self, cls: type[store.Row]) -> list[dict[str, Any]]:
        if cls not in self.read:
            self.read[cls] = list(cls.rows().find({"session": self.session.id}, session=self.tx))
        return self.read[cls]

    def _read_places(self, items: Sequence[Item]) -> None:
        booked = {item.booking for item in items if item.booking}
        named = {item.place for item in items if item.place}
        found = self._those(Place, "booking", booked)
        found += self._those(Place, "_id", named | {row["place"] for row in self.rows.values() if "place" in row})
        self.places = {row["_id"]: row for row in found}
        self.of_booking = {row["booking"]: row for row in self.places.values()}
        other: list[dict[str, Any]] = []
        for field, lost in (("booking", booked - self.of_booking.keys()), ("_id", named - self.places.keys())):
            if lost:
                other += Place.rows().find({field: {"$in": sorted(lost)}}, session=self.tx)
        self._read_elsewhere(other)

    def _read_elsewhere(self, other: Sequence[Mapping[str, Any]]) -> None:
        """By place and by booking: the session that each is for, of a booking the one nearest in time."""
        self.elsewhere: dict[str, CourseSession] = {}
        if not other:
            return
        match = {"_id": {"$in": sorted({row["session"] for row in other})}}
        there = {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find(match, session=self.tx)}
        away = {key: (abs(one.starts_at - self.now), key) for key, one in there.items()}
        for row in sorted(other, key=lambda row: (row["state"] in OVER, away[row["session"]])):
            for key in (row["_id"], row["booking"]):
                self.elsewhere.setdefault(key, there[row["session"]])

    # one by one

    def judge(self, note: Item | WalkIn | Undo) -> Result:
        """The outcome of one note."""
        if isinstance(note, Item):
            return self.check_in(note)
        return self.walk_in(note) if isinstance(note, WalkIn) else self.undo(note.nonce)

    def check_in(self, item: Item) -> Result:
        """Judge one booking; it is in, or there is a reason why not."""
        place = self.places.get(item.place) if item.place else self.of_booking.get(item.booking)
        known = self.rows.get(_name(self.session.id, item.nonce))
        if known is not None:
            same = known["outcome"] == "undone" or (place is not None and known.get("place") == place["_id"])
            return self._result(item.nonce, known["outcome"] if same else "nonce_used", place)
        if place is None:
            there = self.elsewhere.get(item.place or item.booking)
            if there is None:
                return Result(item.nonce, "unknown")
            return Result(
                item.nonce, "wrong_session", elsewhere=there if there.organisation == self.session.organisation else None
            )
        if refused := self._closed(item.at):
            return self._result(item.nonce, refused, place)
        if place["state"] != "confirmed":
            return self._result(item.nonce, "cancelled" if place["state"] in OVER else "not_confirmed", place)
        people = min(item.seats or place["seats"], place["seats"])
        if place.get("attended") is not None:
            self.again |= {row["_id"] for row in self.live.get(place["_id"], ()) if row["outcome"] == "in"}
            self._remember(item.nonce, "already_in", people, place["_id"])
            return self._result(item.nonce, "already_in", place)
        self._attend(place, people)
        self._remember(item.nonce, "in", people, place["_id"])
        return self._result(item.nonce, "in", place)

    def walk_in(self, one: WalkIn) -> Result:
        """Count people without a booking."""
        known = self.rows.get(_name(self.session.id, one.nonce))
        if known is not None:
            outcome = "nonce_used" if "place" in known else known["outcome"]
            return Result(one.nonce, outcome, people=known["people"] if outcome == "in" else None)
        if refused := self._closed(one.at):
            return Result(one.nonce, refused)
        self.sums["walk_ins"] += one.people
        self._remember(one.nonce, "in", one.people)
        return Result(one.nonce, "in", people=one.people)

    def undo(self, nonce: str) -> Result:
        """Take back what is in by this nonce."""
        if self.now > closes_at(self.session):
            return Result(nonce, "too_late")
        name = _name(self.session.id, nonce)
        row = self.rows.get(name)
        if row is None:
            self._remember(nonce, "undone", 0)
            return Result(nonce, "undone")
        counted, row["outcome"] = row["outcome"] == "in", "undone"
        place = self.places.get(row.get("place", ""))
        if counted and "place" not in row:
            self.sums["walk_ins"] -= row["people"]
        elif counted and place:
            others = (other for other in self.live.get(place["_id"], ()) if other["outcome"] == "already_in")
            heir = min(others, key=lambda other: str(other["_id"]), default=None)
            if heir:
                heir["outcome"] = "in"
            self._attend(place, min(heir["people"], place["seats"]) if heir else None)
        return self._result(nonce, "undone", place)

    def _closed(self, at: datetime | None) -> str:
        """Why nobody is let in at that moment; "" when they are."""
        if self.session.state == "cancelled":
            return "session_cancelled"
        if self.now > closes_at(self.session):
            return "too_late"
        if at is not None and at > self.now + AHEAD:
            return "wrong_time"
        return "not_yet" if min(at or self.now, self.now) < opens_at(self.session) else ""

    def _attend(self, place: dict[str, Any], people: int | None) -> None:
        self.sums["attended"] += (people or 0) - (place.get("attended") or 0)
        place["attended"] = people
        self.moved.add(place["_id"])

    def _remember(self, nonce: str, outcome: str, people: int, place: str = "") -> None:
        name = _name(self.session.id, nonce)
        row = {"_id": name, "session": self.session.id, "people": people, "outcome": outcome, "again": 0}
        self.rows[name] = {**row, "expires_at": self.session.ends_at + KEEP}
        if place:
            self.rows[name]["place"] = place
            self.live.setdefault(place, []).append(self.rows[name])

    @staticmethod
    def _result(nonce: str, outcome: str, place: Mapping[str, Any] | None) -> Result:
        if place is None or outcome == "nonce_used":
            return Result(nonce, outcome)
        return Result(nonce, outcome, place["_id"], place["seats"], place.get("attended"), place["state"])

    # at once

    def write(self, by: str) -> None:
        """The session first: two uploads that count meet there before either has written anything else."""
        tx, session = self.tx, self.session
        fresh = [row for key, row in self.rows.items() if key not in self.was]
        changed = {key: row["outcome"] for key, row in self.rows.items() if row["outcome"] != self.was.get(key, row["outcome"])}
        if not fresh and not changed:
            return
        _count(tx, session, {name: value - self.before[name] for name, value in self.sums.items()})
        for people in {self.places[key]["attended"] for key in self.moved}:
            _put_attended(tx, sorted(key for key in self.moved if self.places[key]["attended"] == people), people)
        for outcome in set(changed.values()):
            names = sorted(key for key, value in changed.items() if value == outcome)
            CheckIn.rows().update_many({"_id": {"$in": names}}, {"$set": {"outcome": outcome}}, session=tx)
        if told := sorted(self.again & self.was.keys()):
            CheckIn.rows().update_many({"_id": {"$in": told}}, {"$inc": {"again": 1}}, session=tx)
        if fresh:
            CheckIn.rows().insert_many(fresh, session=tx)
        said = [row["outcome"] for row in fresh] + list(changed.values())
        note = ", ".join(f"{said.count(outcome)} {outcome}" for outcome in ("in", "already_in", "undone") if outcome in said)
        records.trail(tx, CourseSession, session.id, by, "check_in", self.before, self.sums, note=note)


def _count(tx: ClientSession, session: CourseSession, more: Mapping[str, int]) -> None:
    if any(more.values()):
        CourseSession.rows().update_one({"_id": session.id}, {"$inc": dict(more)}, session=tx)


def _put_attended(tx: ClientSession, names: Sequence[str], people: int | None) -> None:
    update = {"$unset": {"attended": ""}} if people is None else {"$set": {"attended": people}}
    Place.rows().update_many({"_id": {"$in": list(names)}}, update, session=tx)


# --- corrections -----------------------------------------------------------------------------------------------------


def attend(session_id: str, place_id: str, seats: int, by: str) -> Result:
    """Set how many of one booking came, whoever let them in: for those of a family who come later, or to put a mistake right. 0
    takes every check-in of it back; what a device noted and has not sent yet can still let them in. A second call changes
    nothing. Raises `NotFound`, `Invalid` for more than are booked, `Conflict` for a place that is not confirmed, and when the
    door is not open."""

    def work(tx: ClientSession) -> Result:
        session, place = _session(tx, session_id), Place.rows().find_one({"_id": place_id, "session": session_id}, session=tx)
        if place is None:
            raise NotFound(what=place_id)
        now = store.now()
        if session.state == "cancelled" or place["state"] != "confirmed":
            state = Text("本场已取消", "the session is cancelled") if session.state == "cancelled" else place["state"]
            raise Conflict("wrong_state", state=state, action="check in")
        if not opens_at(session) <= now <= closes_at(session):
            raise Conflict("wrong_state", state=Text("签到未开放", "check-in is not open"), action="check in")
        if not 0 <= seats <= place["seats"]:
            raise invalid("seats", "out_of_range", reason=f"0-{place['seats']}")
        before, people = place.get("attended"), seats or None
        if before != people:
            more = seats - (before or 0)
            _count(tx, session, {"attended": more})
            _put_attended(tx, [place_id], people)
            if people is None:
                match = {"place": place_id, "outcome": {"$in": ["in", "already_in"]}}
                CheckIn.rows().update_many(match, {"$set": {"outcome": "undone"}}, session=tx)
            sums = {"attended": session.attended}, {"attended": session.attended + more}
            records.trail(tx, CourseSession, session_id, by, "correct_attendance", *sums, note=f"place {place['number']}")
        return Result("", "in" if people else "undone", place_id, place["seats"], people, place["state"])

    return store.transaction(work)


def put_headcount(session_id: str, headcount: int | None, by: str, revision: int | None = None) -> CourseSession:
    """Set the organiser's own count, which then stands for those checked in and the walk-ins; None: theirs hold again. From the
    start until seven days after the end. Raises `NotFound`, `Stale`, `Invalid`, `Conflict` outside that, or once cancelled."""
    if headcount is not None and not 0 <= headcount <= MOST_SEATS:
        raise invalid(
            "headcount", "out_of_range", reason=Text(f"请填 0–{MOST_SEATS} 的整数", f"a whole number from 0 to {MOST_SEATS}")
        )

    def decide(present: CourseSession) -> dict[str, Any]:
        begun = present.starts_at <= store.now() <= closes_at(present)
        if present.state not in {"published", "finished"} or not begun:
            state = (
                Text("未开始或已满 7 天", "not begun, or a week over")
                if present.state in {"published", "finished"}
                else present.state
            )
            raise Conflict("wrong_state", state=state, action=Text("填写到场人数", "set the headcount"))
        return {} if headcount == present.headcount else {"headcount": headcount}

    return records.change(CourseSession, session_id, by, "headcount", decide, revision=revision)

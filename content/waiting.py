"""What becomes of a place: left, changed, waited for, offered, accepted, declined, expired, approved, refused.

**The waiting list** is in the order of arrival and nobody is passed over: when seats come free, the place with the lowest number
that waits is offered them, in the same transaction that freed them; while it wants more than are free, the seats wait with it. An
offer holds its seats for OFFER waking hours (never into the night), then it expires and the next is offered. Less than a day
before the start there is no time for that: staff get the list with telephones instead (`reaching.calls`) and give the seats by
hand (`give`). Each place keeps its history, so the order can be shown afterwards.

An organiser may want to say yes to each booking (`Series.approval`): it holds its seats as `requested` until then.

Every verb is one transaction that meets all others of that session at its document (`bookings.Desk`). What a staff member does
leaves a line in the trail without the family's name.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from content import bookings, courses, records, sealed, store, waking
from content.bookings import ACTIVE, HELD, Booked, Booking, Desk, Place
from content.courses import CourseSession
from content.failures import Conflict, Failure, NotFound, Text, invalid
from content.registrations import PER_PHONE, checked_needs

Move = Callable[[Desk, dict[str, Any]], None]
log = logging.getLogger("xinqiao.waiting")
OFFER = 12.0  # waking hours
BY_HAND = timedelta(hours=24)  # before the start, no offers any more
LONG = 10.0  # seconds for what touches all of a booking's places: forty take most of two on the embedded database


# --- the steps, inside a transaction ---------------------------------------------------------------------------------


def _put(tx: ClientSession, place: Mapping[str, Any], state: str, at: datetime, **fields: Any) -> None:
    """Move a place on; the state it had is part of the filter."""
    drop = {"$unset": {"offered_until": ""}} if state != "offered" else {}
    update = {"$set": {"state": state, **fields}, "$push": {"history": {"state": state, "at": at}}, **drop}
    if not Place.rows().update_one({"_id": place["_id"], "state": place["state"]}, update, session=tx).matched_count:
        raise Conflict("wrong_state", state=place["state"], action=state)


def _leave(desk: Desk, place: Mapping[str, Any], state: str) -> None:
    """A place gives up what it held or waited for."""
    if place["state"] in HELD:
        desk.taken -= place["seats"]
    elif place["state"] == "waiting":
        desk.waiting -= 1
    _put(desk.tx, place, state, desk.now)


def _promote(desk: Desk) -> None:
    """Offer what is free to those who wait first."""
    session = desk.before
    if not desk.waiting or session.state != "published" or session.starts_at - desk.now < BY_HAND:
        return
    until = min(waking.after(desk.now, OFFER, session.zone), session.starts_at)
    match = {"session": session.id, "state": "waiting"}
    while desk.waiting and (head := Place.rows().find_one(match, sort=[("number", 1)], session=desk.tx)):
        if not desk.fits(head["seats"]):
            return
        desk.taken += head["seats"]
        desk.waiting -= 1
        _put(desk.tx, head, "offered", desk.now, offered_until=until)


def _forget(tx: ClientSession, booking: str, now: datetime, told: bool = True) -> None:
    """Erase name and telephone when no place of the booking is left that is to come; where the phone wants to be told by push
    stays for what it has not been `told`, and goes with the booking."""
    rows = Place.rows().find({"booking": booking, "state": {"$in": ACTIVE}}, {"session": 1}, session=tx)
    names = [row["session"] for row in rows]
    coming = {"_id": {"$in": names}, "state": "published", "ends_at": {"$gt": now}}
    if not names or CourseSession.rows().find_one(coming, {"_id": 1}, session=tx) is None:
        gone = ("contact", "phone_blind", "push") if told else ("contact", "phone_blind")
        Booking.rows().update_one({"_id": booking}, {"$unset": dict.fromkeys(gone, "")}, session=tx)


# --- by the family ---------------------------------------------------------------------------------------------------


def _own(code: str, session: str, work: Callable[[ClientSession, Desk, dict[str, Any], dict[str, Any]], None]) -> Booked:
    """`work` on one place of the booking with this code. Raises `NotFound`."""

    def whole(tx: ClientSession) -> Booked:
        raw = bookings.opened(code, tx)
        place = Place.rows().find_one({"booking": raw["_id"], "session": session}, session=tx)
        if place is None:
            raise NotFound(what=session)
        desk = Desk.open(tx, session)
        work(tx, desk, place, raw)
        desk.write()
        return _shown(code, tx)

    return store.transaction(whole)


def _shown(code: str, tx: ClientSession) -> Booked:
    raw = bookings.opened(code, tx)
    return bookings.booked_of(code, raw, Place.rows().find({"booking": raw["_id"]}, session=tx), tx)


def accept(code: str, session: str) -> Booked:
    """Take the seats offered: they are yours, or wait for the organiser's word where the series wants that. A second call changes
    nothing. Raises `NotFound`, `Conflict("offer_over")` past its end, once the session is cancelled, or when nothing is
    offered."""

    def work(tx: ClientSession, desk: Desk, place: dict[str, Any], raw: dict[str, Any]) -> None:
        if place["state"] in {"confirmed", "requested"}:
            return
        # an offer of a cancelled session has no end any more (`expire`)
        if place["state"] != "offered" or desk.before.state != "published" or place["offered_until"] <= desk.now:
            raise Conflict("offer_over")
        _put(tx, place, "requested" if courses.told(desk.before.series, tx)["approval"] else "confirmed", desk.now)

    return _own(code, session, work)


def decline(code: str, session: str) -> Booked:
    """Give back what is offered; it goes to the next at once. A second call changes nothing. Raises as `accept`."""

    def work(tx: ClientSession, desk: Desk, place: dict[str, Any], raw: dict[str, Any]) -> None:
        if place["state"] == "declined":
            return
        if place["state"] != "offered":
            raise Conflict("offer_over")
        _leave(desk, place, "declined")
        _promote(desk)
        bookings.keep_as_needed(tx, raw["_id"])
        _forget(tx, raw["_id"], desk.now)

    return _own(code, session, work)


def leave(code: str, session: str) -> Booked:
    """Cancel one place, whatever it is: booked, asked for, offered or waited for. Its seats go to who waits first. A second call,
    or one after the session was cancelled, changes no seats. Raises `NotFound`, and `Conflict` once the session has begun."""

    def work(tx: ClientSession, desk: Desk, place: dict[str, Any], raw: dict[str, Any]) -> None:
        if place["state"] in ACTIVE:
            _begun(desk, place)
            _leave(desk, place, "cancelled")
            _promote(desk)
            bookings.keep_as_needed(tx, raw["_id"])
        _forget(tx, raw["_id"], desk.now)

    return _own(code, session, work)


def _begun(desk: Desk, place: Mapping[str, Any]) -> None:
    if desk.before.state != "cancelled" and (desk.before.starts_at <= desk.now or place.get("attended")):
        raise Conflict("wrong_state", state="begun", action=Text("取消报名", "cancel the booking"))


def cancel(code: str) -> Booked:
    """Cancel every place that is still to come, and erase name and telephone at once. A second call changes nothing and answers
    the same. Raises `NotFound`, and `Conflict` when all of it has begun."""

    def work(tx: ClientSession) -> Booked:
        raw = bookings.opened(code, tx)
        rows = list(Place.rows().find({"booking": raw["_id"], "state": {"$in": ACTIVE}}, session=tx))
        desks = {row["session"]: Desk.open(tx, row["session"]) for row in rows}
        coming = [row for row in rows if desks[row["session"]].before.state == "cancelled" or _ahead(desks[row["session"]], row)]
        if rows and not coming:
            _begun(desks[rows[0]["session"]], rows[0])
        for row in coming:
            desk = desks[row["session"]]
            _leave(desk, row, "cancelled")
            _promote(desk)
            desk.write()
        bookings.keep_as_needed(tx, raw["_id"])
        _forget(tx, raw["_id"], store.now())
        return _shown(code, tx)

    return store.transaction(work, LONG)


def _ahead(desk: Desk, place: Mapping[str, Any]) -> bool:
    """Whether a place can still be changed: not begun, and nobody let in already."""
    return bool(desk.before.starts_at > desk.now and not place.get("attended"))


def change(
    code: str,
    *,
    seats: int | None = None,
    needs: str | None = None,
    push: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> Booked:
    """Change the number of seats in every place that is still to come, the needs, or where the phone wants to be told (`quiet`:
    nowhere any more). More seats are to be had only where they are free and nobody waits, and wait for the organiser's word where
    the series wants that; fewer go to who waits first.

    All or nothing. Raises `Invalid`, `NotFound`, `Conflict("full")`, `Conflict("closed")` for more seats past the deadline, and
    `Conflict("wrong_state")` when nothing of it is to come.
    """
    if seats is not None and not 1 <= seats <= PER_PHONE:
        raise invalid("seats", "out_of_range", reason=Text(f"请填 1–{PER_PHONE}", f"1 to {PER_PHONE}"))
    if needs is not None:
        needs = checked_needs(needs)

    def work(tx: ClientSession) -> Booked:
        raw = bookings.opened(code, tx)
        rows = list(Place.rows().find({"booking": raw["_id"], "state": {"$in": ACTIVE}}, session=tx))
        desks = {row["session"]: Desk.open(tx, row["session"]) for row in rows}
        coming = [row for row in rows if desks[row["session"]].before.state == "published" and _ahead(desks[row["session"]], row)]
        if not coming or not raw.get("contact"):
            raise Conflict("wrong_state", state="over", action=Text("修改报名", "change the booking"))
        put: dict[str, Any] = {}
        contact = bookings.contact_of(raw)
        if needs is not None and needs != contact["needs"]:
            put["contact"] = sealed.seal(json.dumps({**contact, "needs": needs}))
        if push is not None:
            put["push"] = sealed.seal(json.dumps(dict(push)))
        if seats is not None and seats != raw["seats"]:
            put["seats"] = seats
        for row in coming:
            desk = desks[row["session"]]
            if seats is not None and seats != row["seats"]:
                _resize(desk, row, seats, bytes(raw["phone_blind"]))
                desk.write()
        drop = {"$unset": {"push": ""}} if quiet and push is None else {}
        if put or drop:
            Booking.rows().update_one({"_id": raw["_id"]}, {**({"$set": put} if put else {}), **drop}, session=tx)
        return _shown(code, tx)

    return store.transaction(work, LONG)


def _resize(desk: Desk, place: Mapping[str, Any], seats: int, phone: bytes) -> None:
    more = seats - place["seats"]
    if seats > desk.before.capacity:
        raise Conflict("full")
    if more > 0 and not desk.bookable:
        raise Conflict("closed")
    if more > 0 and _of_phone(desk, phone) + more > PER_PHONE:
        raise Conflict("full")
    if place["state"] in HELD:
        if more > 0 and (desk.waiting or not desk.fits(more) or place["state"] == "offered"):
            raise Conflict("full")
        desk.taken += more
        if more > 0 and courses.told(desk.before.series, desk.tx)["approval"]:
            _put(desk.tx, place, "requested", desk.now)
    Place.rows().update_one({"_id": place["_id"]}, {"$set": {"seats": seats}}, session=desk.tx)
    if more < 0:
        _promote(desk)


def _of_phone(desk: Desk, phone: bytes) -> int:
    """Seats that this phone has in the session."""
    names = [row["_id"] for row in Booking.rows().find({"phone_blind": phone}, {"_id": 1}, session=desk.tx)]
    match = {"session": desk.before.id, "booking": {"$in": names}, "state": {"$in": ACTIVE}}
    return sum(row["seats"] for row in Place.rows().find(match, {"seats": 1}, session=desk.tx))


# --- by staff --------------------------------------------------------------------------------------------------------


def _by_staff(session: str, place: str, by: str, action: str, work: Move, note: str = "") -> None:
    def whole(tx: ClientSession) -> None:
        row = Place.rows().find_one({"_id": place, "session": session}, session=tx)
        if row is None:
            raise NotFound(what=place)
        desk = Desk.open(tx, session)
        work(desk, row)
        desk.write()
        records.trail(tx, CourseSession, session, by, action, {}, {}, note=f"place {row['number']} {note}".strip())

    store.transaction(whole)


def approve(session: str, place: str, by: str) -> None:
    """Say yes to a requested place. Raises `NotFound`, `Conflict` for a place in another state."""

    def work(desk: Desk, row: dict[str, Any]) -> None:
        if row["state"] != "requested":
            raise Conflict("wrong_state", state=row["state"], action=Text("同意", "approve"))
        _put(desk.tx, row, "confirmed", desk.now)

    _by_staff(session, place, by, "approve_place", work)


def refuse(session: str, place: str, by: str, note: str = "") -> None:
    """Say no to a place that is still to come, whatever it is: requested, booked with a made-up number, waiting; its seats go to
    who waits first. Raises `NotFound`, `Conflict` for a place that is over."""

    def work(desk: Desk, row: dict[str, Any]) -> None:
        if row["state"] not in ACTIVE or not _ahead(desk, row):
            raise Conflict("wrong_state", state=row["state"], action="refuse")
        _leave(desk, row, "refused")
        _promote(desk)
        _forget(desk.tx, row["booking"], desk.now, told=False)

    _by_staff(session, place, by, "refuse_place", work, note)


def give(session: str, place: str, by: str) -> None:
    """Give a waiting family its seats by hand, after a call in the last day before the start; of an offered place: confirm it for
    a family that said yes on the telephone. Raises `NotFound`, `Conflict("full")`, `Conflict("wrong_state")`; earlier than that
    the list is promoted by itself, in its order: `Conflict("too_early")`."""

    def work(desk: Desk, row: dict[str, Any]) -> None:
        if desk.before.state != "published" or row["state"] not in {"waiting", "offered"}:
            raise Conflict("wrong_state", state=row["state"], action=Text("给位", "give the seats"))
        if row["state"] == "waiting":
            if desk.before.starts_at - desk.now >= BY_HAND:
                raise Conflict("too_early")
            if not desk.fits(row["seats"]):
                raise Conflict("full")
            desk.taken += row["seats"]
            desk.waiting -= 1
        _put(desk.tx, row, "confirmed", desk.now)

    _by_staff(session, place, by, "give_seats", work)


# --- by the clock ----------------------------------------------------------------------------------------------------


def expire(now: datetime) -> int:
    """End the offers whose time is over and offer their seats to the next; returns how many. A second call finds none. What
    fails for one session is logged and tried again by the next run."""
    done = 0
    rows = list(Place.rows().find({"state": "offered", "offered_until": {"$lte": now}}, {"session": 1}).limit(500))

    def work(tx: ClientSession, key: str) -> int:
        desk = Desk.open(tx, key)
        if desk.before.state == "cancelled":  # they are told of that, and of nothing else
            Place.rows().update_many({"session": key, "state": "offered"}, {"$unset": {"offered_until": ""}}, session=tx)
            return 0
        match = {"session": key, "state": "offered", "offered_until": {"$lte": now}}
        over = list(Place.rows().find(match, session=tx).sort("number", 1))
        for place in over:
            _leave(desk, place, "expired")
            _forget(tx, place["booking"], desk.now, told=False)
        _promote(desk)
        desk.write()
        return len(over)

    for key in sorted({row["session"] for row in rows}):
        try:
            done += store.transaction(lambda tx, key=key: work(tx, key))  # type: ignore[misc]
        except (Failure, PyMongoError) as error:
            log.warning("offers of %s put off: %s", key, type(error).__name__)
    return done


def more_seats(tx: ClientSession, session: CourseSession) -> None:
    """Seats that staff added go to those who wait; who waits for more seats than there are now waits for nothing, and is told so.
    Part of `sessions.edit_session`."""
    if session.waiting and session.state == "published":
        desk = Desk.open(tx, session.id)
        beyond = {"session": session.id, "state": "waiting", "seats": {"$gt": session.capacity}}
        for place in list(Place.rows().find(beyond, session=tx)):
            _leave(desk, place, "refused")
            _forget(tx, place["booking"], desk.now, told=False)
        _promote(desk)
        desk.write()

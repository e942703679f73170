"""Reaching those who booked: the small inbox of a booking, and the list of families that staff have to call.

Nothing is sent out row by row when a session moves: what happened stands once, on the session (`events`) and in each place's
history, and a booking's inbox is read from there. Whoever opens the booking has been reached (`look`); who has not, stands on the
call list of the session (`calls`) with name and telephone until a call is marked. Reading that list leaves a line in the trail.

Pushes and reminders are handed over to `notifications`, which reads what `happened`, as the inbox does.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pymongo.client_session import ClientSession

from content import bookings, courses, records, store
from content.bookings import ACTIVE, Booked, Booking, Held, Place
from content.courses import CourseSession
from content.failures import NotFound, Text
from content.waiting import BY_HAND

MESSAGES: Mapping[str, Text] = {
    "offered": Text(
        "有名额了：“{title}”（{when}）。已为您保留到 {until}，请在此之前确认或放弃。",
        "Seats are free for “{title}” ({when}). They are kept for you until {until}: please accept or decline by then.",
    ),
    "expired": Text(
        "“{title}”为您保留的名额已过期，已让给下一位。", "The seats kept for you in “{title}” have gone to the next family."
    ),
    "approved": Text("“{title}”（{when}）的报名已通过。", "Your booking of “{title}” ({when}) has been confirmed."),
    "refused": Text(
        "很抱歉，“{title}”这次没能安排上。可以看看其他场次，或联系主办方。",
        "We are sorry: “{title}” could not be arranged this time. Please look at other dates, or ask the organiser.",
    ),
    "given": Text("您已获得“{title}”（{when}）的名额。", "You now have seats in “{title}” ({when})."),
    "moved": Text(
        "“{title}”改到 {when}。如不能参加，请取消，名额会让给别的家庭。",
        "“{title}” is now on {when}. If you cannot come, please cancel, so that another family can.",
    ),
    "changed": Text(
        "“{title}”（{when}）的地点、讲师或链接有变动，请查看。",
        "The place, lecturer or link of “{title}” ({when}) has changed: please look.",
    ),
    "cancelled": Text("很抱歉，“{title}”（{when}）已取消。", "We are sorry: “{title}” ({when}) has been cancelled."),
    "tomorrow": Text("明天：“{title}”，{when}。", "Tomorrow: “{title}”, {when}."),
    "soon": Text("两小时内开始：“{title}”，{when}。", "Within two hours: “{title}”, {when}."),
}
"""What a family is told."""
REMINDERS = (("tomorrow", timedelta(hours=24)), ("soon", timedelta(hours=2)))
GRAVEST = ("cancelled", "moved", "changed")  # what is said on the telephone first, whatever came last
OUTCOMES = ("reached", "no_answer", "wrong_number")


class Message(NamedTuple):
    """One line of a booking's inbox. `id` stays the same; `texts` by language."""

    id: str
    kind: str
    session: str
    at: datetime
    texts: Mapping[str, str]


class Call(NamedTuple):
    """One family to be called. `why`: offered, moved, changed, cancelled or waiting (the last day's list)."""

    place: str
    number: int
    seats: int
    state: str
    why: str
    family_name: str
    phone: str
    calls: Sequence[Mapping[str, Any]]


def _when(session: CourseSession) -> str:
    return courses.local(session.starts_at, session.zone)[:16].replace("T", " ")


class Happened(NamedTuple):
    """What one message is about. `name`: the message's, within its place; `until`: an offer's."""

    at: datetime
    kind: str
    name: str
    until: datetime | None


def happened(held: Held, now: datetime) -> list[Happened]:
    """What happened to one place since it was booked, and the reminders that are due, oldest first."""
    session, came, last = held.session, held.history[0]["at"], len(held.history) - 1
    found: list[Happened] = []
    before = held.history[0]["state"]
    for n, step in enumerate(held.history[1:], 1):
        state, kind = step["state"], step["state"]
        if state == "confirmed":
            kind = {"requested": "approved", "waiting": "given", "offered": "given"}.get(before, "")
        until = held.offered_until if state == "offered" and n == last else None
        if kind in MESSAGES and kind != "cancelled" and (kind != "offered" or until):
            found.append(
                Happened(step["at"], kind, f"p{n}", until)
            )  # what became of an offer that is over is told, not the offer
        before = state
    found += [Happened(e["at"], e["kind"], f"s{e['n']}", None) for e in session.events if e["at"] > came and _concerns(held, e)]
    if held.state == "confirmed" and session.state == "published":
        since = held.history[-1]["at"]
        for kind, lead in REMINDERS:
            if since < session.starts_at - lead <= now < session.starts_at:
                found.append(Happened(session.starts_at - lead, kind, kind, None))
    found.sort(key=lambda one: one.at)
    return found


def messages(held: Held, now: datetime, titles: Mapping[str, str]) -> Iterator[Message]:
    """The same in words. `titles`: the session's name by language."""
    session, some = held.session, next(iter(titles.values()), "")
    for at, kind, name, until in happened(held, now):
        told = courses.local(until, session.zone)[:16].replace("T", " ") if until else ""
        texts = {
            tag: MESSAGES[kind].fill({"title": titles.get(tag, some), "when": _when(session), "until": told})[tag]
            for tag in ("zh-Hans", "en")
        }
        yield Message(f"{held.id}.{name}", kind, session.id, at, texts)


def _concerns(held: Held, event: Mapping[str, Any]) -> bool:
    """A cancellation concerns whoever had a place then, a move whoever still has one."""
    then = [step["state"] for step in held.history if step["at"] <= event["at"]][-1]
    return held.state in ACTIVE or (event["kind"] == "cancelled" and then in ACTIVE)


def look(code: str) -> Booked:
    """The booking of a code, opened by its holder: what has happened up to now has reached them. Raises `NotFound`."""
    raw = bookings.opened(code)
    booked = bookings.booked_of(code, raw, Place.rows().find({"booking": raw["_id"]}))
    now = store.now()
    latest = [at for held in booked.places for at in _happened(held) if at <= now]
    if latest and max(latest) > raw["seen_at"]:
        Booking.rows().update_one({"_id": raw["_id"]}, {"$max": {"seen_at": now}})
    return booked


def _happened(held: Held) -> Iterator[datetime]:
    yield held.history[-1]["at"]
    if held.session.events:
        yield held.session.events[-1]["at"]
    for _, lead in REMINDERS:
        yield held.session.starts_at - lead


# --- by telephone ----------------------------------------------------------------------------------------------------


def _why(place: Mapping[str, Any], session: CourseSession, seen_at: datetime, now: datetime) -> str:
    """Why this family has to be called; "" when it need not be."""
    news = {e["kind"] for e in session.events if e["n"] > place["told"] and e["at"] > seen_at}
    if news:
        return next((kind for kind in GRAVEST if kind in news), "")
    offered = place["history"][-1]["at"]
    reached = max((c["at"] for c in place.get("calls", ()) if c["outcome"] == "reached"), default=offered)
    if session.state != "published" or now >= session.starts_at:
        return ""
    if place["state"] == "offered" and max(seen_at, reached) <= offered:
        return "offered"
    by_hand = session.starts_at - BY_HAND
    return "waiting" if place["state"] == "waiting" and now > by_hand and reached <= by_hand else ""


def calls(session_id: str, by: str) -> list[Call]:
    """The families of a session who have to be called and have not been reached, in the order of their arrival. The reading
    itself leaves a line in the trail, with their number and nothing of their content. Raises `NotFound`."""

    def work(tx: ClientSession) -> list[Call]:
        raw = CourseSession.rows().find_one({"_id": session_id}, session=tx)
        if raw is None:
            raise NotFound(what=session_id)
        session, now = CourseSession.of(raw), store.now()
        rows = list(Place.rows().find({"session": session_id, "state": {"$in": ACTIVE}}, session=tx).sort("number", 1))
        owners = {row["_id"]: row for row in bookings.of_session(raw, tx)}
        found = []
        for row in rows:
            owner = owners.get(row["booking"])
            if owner and (why := _why(row, session, owner["seen_at"], now)):
                contact = bookings.contact_of(owner)
                who = contact.get("family_name", ""), contact.get("phone", "")
                found.append(Call(row["_id"], row["number"], row["seats"], row["state"], why, *who, row.get("calls", [])))
        records.trail(tx, CourseSession, session_id, by, "read_calls", {}, {}, note=f"{len(found)} families")
        return found

    return store.transaction(work)


def called(session_id: str, place: str, outcome: str, by: str) -> None:
    """Mark a call. Whoever was reached leaves the list, until something new happens. Raises `NotFound`."""

    def work(tx: ClientSession) -> None:
        raw = CourseSession.rows().find_one({"_id": session_id}, session=tx)
        row = Place.rows().find_one({"_id": place, "session": session_id}, session=tx)
        if raw is None or row is None:
            raise NotFound(what=place)
        update: dict[str, Any] = {"$push": {"calls": {"at": store.now(), "outcome": outcome}}}
        if outcome == "reached":
            update["$set"] = {"told": len(raw.get("events", ())) and raw["events"][-1]["n"]}
        Place.rows().update_one({"_id": place}, update, session=tx)
        records.trail(tx, CourseSession, session_id, by, "called", {}, {}, note=f"place {row['number']}: {outcome}")

    store.transaction(work)

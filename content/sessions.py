"""Sessions of a course: planned as drafts, published, held, finished or cancelled.

An edit of a published session is public at once, because families act on its time and place. A cancelled session stays
published as cancelled, so that a phone that kept it learns of it; a move, a change and a cancellation are also noted in
`events`, for those who booked (`content.reaching`). `revision` is the SEQUENCE of its calendar entry (RFC 5545).

Seats are counted live on the session, in `seats_taken`, by one conditional update (`content.registrations`). Readers get
the word `seats` only: open, few or full. It is released again when the word changes, inside the booking's transaction: two
extra releases while a session fills, where a public count would cost one a booking (each release takes the published
counter, for which all publishing queues, and wakes every reader). The price is that a reader sees "open" up to 0.4 s after
the last seat went, which the conditional update makes harmless.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from content import bookings, courses, divisions, lecturers, materials, records, staff, store, waiting
from content.checking import Check
from content.courses import SERIES_FIELDS, CourseSession, Series
from content.failures import WORDS, Conflict, Failure, FieldError, Invalid, NotFound, Stale, Text, invalid
from content.published import PublishedRow
from content.settings import Settings
from content.vocabulary import PLACES, STEPS

log = logging.getLogger("xinqiao.sessions")
MOST_SEATS = 100_000
CLASS_HOUR = 45  # minutes of a class-hour (课时) where staff do not say how many it was
LONG = 20.0  # seconds: five hundred bookings whose time to be erased moves along take three on the embedded database
PATIENCE = 60  # seconds for writing many drafts: 2,000 new ones take a few, as many changed ones 20 in the embedded database
ELSEWHERE = {"online", "home"}  # places where there is no room to name
STAYS_OPEN = timedelta(days=7)  # after its end a session's numbers can be corrected, or that it did not take place

SESSION_FIELDS = (
    "starts_at", "ends_at", "zone", "place", "title", "venue", "latitude", "longitude", "lecturer", "lecturer_id", "host", "step",
    "class_hours", "materials", "capacity", "waiting_list", "booking_closes_at", "online_link",
)  # fmt: skip


TOLD = {"starts_at": "moved", "ends_at": "moved"} | dict.fromkeys(("place", "venue", "lecturer", "online_link"), "changed")
"""What those booked are told of, and as what."""
TAKING = ("starts_at", "ends_at", "place", "venue", "host", "lecturer", "lecturer_id")
"""What says which lecturer and room a session takes, and when."""


def session(key: str) -> CourseSession:
    """The session as it now is, seats taken included. Raises `NotFound`."""
    raw = CourseSession.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return CourseSession.of(raw)


def checked_session(values: Mapping[str, Any]) -> dict[str, Any]:
    """A session's fields in their stored form. Raises `Invalid` with every fault."""
    check = Check()
    check.fields(values, SESSION_FIELDS)
    zone = check.zone("zone", values.get("zone"))
    starts = check.moment("starts_at", values.get("starts_at"), zone)
    ends = check.moment("ends_at", values.get("ends_at"), zone)
    closes = check.moment("booking_closes_at", values.get("booking_closes_at"), zone) or starts
    for name, value in (("starts_at", starts), ("ends_at", ends), ("capacity", values.get("capacity"))):
        if value is None and not any(error.field == name for error in check.errors):
            check.fail(name, "required")
    if starts and ends and not starts < ends <= starts + timedelta(days=3):
        check.fail(
            "ends_at", "out_of_range", reason=Text("要在开始之后，最多 3 天", "after the start, and at most three days after it")
        )
    if starts and closes and closes > starts:
        check.fail("booking_closes_at", "out_of_range", reason=Text("不能晚于开始时间", "not after the start"))
    hours = check.whole("class_hours", values.get("class_hours"), 0, 24)
    spot = {name: _degrees(check, name, values.get(name), most) for name, most in (("latitude", 90), ("longitude", 180))}
    if (spot["latitude"] is None) != (spot["longitude"] is None):
        check.fail("longitude" if spot["longitude"] is None else "latitude", "required")
    waits = values.get("waiting_list")
    if not isinstance(waits, bool | None):
        check.fail("waiting_list", "wrong_type", reason="true / false")
    link = check.text("online_link", values.get("online_link"), 1000)
    if link and not link.startswith("https://"):
        check.fail("online_link", "bad_format", reason="https://…")
    fields = {
        "starts_at": starts,
        "ends_at": ends,
        "zone": zone,
        "place": check.coded("place", values.get("place"), PLACES),
        "title": check.texts("title", values.get("title"), 120),
        "venue": courses.parts(check, "venue", values.get("venue"), "name", "address", "access"),
        **spot,
        "lecturer": courses.parts(check, "lecturer", values.get("lecturer"), "name", "field"),
        "lecturer_id": check.text("lecturer_id", values.get("lecturer_id"), 64),
        "host": check.text("host", values.get("host"), 64),
        "step": check.coded("step", values["step"], STEPS) if values.get("step") else None,
        "class_hours": hours if hours is not None else usual_hours(starts, ends) if starts and ends else 1,
        "materials": courses.checked_materials(check, values.get("materials")),
        "capacity": check.whole("capacity", values.get("capacity"), 1, MOST_SEATS),
        "waiting_list": waits is not False,
        "booking_closes_at": closes,
        "online_link": link,
    }
    check.done()
    return fields


def _degrees(check: Check, field: str, value: Any, most: int) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:  # NaN is in no range
        check.fail(field, "out_of_range", reason=f"-{most} … {most}")
        return None
    return float(value)


def may_host(host: staff.Organisation, organisation: str, division: str) -> bool:
    """Whether a series of this organisation and division can be held at `host` and count for it: the organiser itself, who lies
    within the division, or within whose division that lies. Else one could credit any station of the country."""
    return host.id == organisation or divisions.overlap(host.division, division)


def known(values: Mapping[str, Any], of: Series | CourseSession) -> dict[str, Any]:
    """The values, with what the expert library says of the lecturer where nothing else is said. `of` is the session they are
    for, or of a new one its series; what stands in a session is not asked again. Raises `Invalid` for a host that does not exist
    or is none of theirs (`may_host`), a lecturer who is not published, and materials that do not exist."""
    standing = of if isinstance(of, CourseSession) else CourseSession()
    for name, look in (("host", staff.organisation), ("lecturer_id", lecturers.named)):
        try:
            found = look(values[name]) if values.get(name) else None
        except NotFound:
            raise invalid(name, "unknown_reference", value=values[name]) from None
        if name == "lecturer_id" and found and not values.get("lecturer"):
            values = {**values, "lecturer": found}
        new_host = isinstance(found, staff.Organisation) and found.id != standing.host and found
        if new_host and not may_host(new_host, of.organisation, of.division):
            reason = Text(
                f"要在课程的区域 {of.division} 之内，或管辖它",
                f"it has to lie in the course's division {of.division} or above it",
            )
            raise invalid(name, "out_of_range", reason=reason)
    if faults := materials.absent(_added(values, standing)):
        raise Invalid(faults)
    return dict(values)


def _added(values: Mapping[str, Any], standing: CourseSession) -> list[Any]:
    """The materials among values that do not stand in the session yet."""
    names = values.get("materials")
    return [name for name in names if name not in standing.materials] if isinstance(names, list) else []


def draft(parent: Series, values: Mapping[str, Any], key: str = "") -> CourseSession:
    """A draft session of a series, not written yet. Raises `Invalid`, `Conflict` (the series is cancelled)."""
    fields = checked_session(values)
    if parent.state == "cancelled":
        raise Conflict("wrong_state", state=parent.state, action=Text("排课", "add a session"))
    fields |= {
        "series": parent.id,
        "organisation": parent.organisation,
        "division": parent.division,
        "invited": parent.visibility == "invited",
    }
    return CourseSession(id=key or store.new_id(), **{k: v for k, v in fields.items() if v is not None})


def create_session(series_id: str, values: Mapping[str, Any], by: str, key: str = "") -> CourseSession:
    """A draft session of a series. Times are ISO 8601 texts or datetimes; one without an offset is local time of `zone`.
    `booking_closes_at` is the start when not given. Raises `Invalid`, `NotFound` (no such series), `Conflict` (cancelled)."""
    parent = courses.series(series_id)
    return records.create(draft(parent, known(values, parent), key), by)


def edit_session(
    key: str,
    values: Mapping[str, Any],
    by: str,
    revision: int | None = None,
    look: Callable[[CourseSession], None] = lambda changed: None,
) -> CourseSession:
    """Set the fields given. Of a published session this is public at once, so the caller asks for the permission to
    publish. A start that moves takes `ends_at` and `booking_closes_at` with it unless they are given too. The moment at which
    bookings are erased follows `ends_at`, and class-hours that nobody gave follow its length. `look` gets a published session as
    it will be, when that takes another lecturer, room or time, and raises what is to keep it so.
    Raises `Invalid`, `NotFound`, `Stale`, `Conflict` (cancelled, finished, begun, or people are checked in)."""
    ended: datetime | None = None

    def decide(present: CourseSession) -> dict[str, Any]:
        nonlocal ended
        ended = present.ends_at
        if present.state not in {"draft", "published"}:
            raise Conflict("wrong_state", state=present.state, action="edit")
        before = records.values_of(present, SESSION_FIELDS)
        merged = {**before, **values}
        if "starts_at" in values:
            zone = str(merged["zone"] or "Asia/Shanghai")
            check = Check()
            moved = check.moment("starts_at", values["starts_at"], check.zone("zone", zone))
            check.done()
            for name in {"ends_at", "booking_closes_at"} - values.keys():
                merged[name] = moved and moved + (before[name] - present.starts_at)
        if present.class_hours == usual_hours(present.starts_at, present.ends_at) and "class_hours" not in values:
            merged["class_hours"] = None
        fields = checked_session(merged)
        times = {name: fields[name] for name in ("starts_at", "ends_at")}
        if present.state == "published" and present.starts_at <= store.now() and times != {n: before[n] for n in times}:
            # it has taken place: moving it would keep the bookings' personal data longer than was promised
            raise Conflict("wrong_state", state="begun", action="move")
        if present.state == "published" and times != {n: before[n] for n in times} and fields["starts_at"] <= store.now():
            raise invalid(
                "starts_at", "out_of_range", reason=Text("已经过去，请填以后的时间", "it is in the past; give a time to come")
            )
        if present.attended and times != {n: before[n] for n in times}:
            raise Conflict("wrong_state", state=Text("已有人签到", "people are checked in"), action="move")
        if fields["capacity"] < present.seats_taken:
            raise invalid(
                "capacity",
                "out_of_range",
                reason=Text(
                    f"已报名 {present.seats_taken} 个，不能再少", f"{present.seats_taken} are booked, it cannot be fewer"
                ),
            )
        changed = {name: value for name, value in fields.items() if value != before[name]}
        kinds = {TOLD[name] for name in changed.keys() & TOLD.keys()}
        if present.state == "published" and kinds:
            kind = "moved" if "moved" in kinds else "changed"
            changed["events"] = _event(present, kind, {name: before[name] for name in changed.keys() & TOLD.keys()})
        if present.state == "published":
            would = CourseSession.of(records.laid(present.to_mongo().to_dict(), changed))
            found = _gaps(would) if changed.keys() & {"place", "venue", "online_link"} else []
            if found := [*found, *materials.closed(_added(changed, present)).values()]:
                raise Invalid(found)
            if changed.keys() & set(TAKING):
                look(would)
        return changed

    values = known(values, session(key))

    def also(tx: ClientSession, changed: CourseSession) -> None:
        if changed.ends_at != ended:
            bookings.follow_end(tx, changed)
        waiting.more_seats(tx, changed)
        if changed.state == "published":
            courses.show(tx, changed.id)

    return records.change(CourseSession, key, by, "edit", decide, revision=revision, also=also, patience=LONG)


def _event(present: CourseSession, kind: str, before: dict[str, Any]) -> list[dict[str, Any]]:
    """The session's events with one more; the online link is not among what was before."""
    before = {name: value for name, value in before.items() if name != "online_link"}
    n = present.events[-1]["n"] + 1 if present.events else 1
    return [*present.events, {"n": n, "kind": kind, "at": store.now(), "before": before}][-20:]


def usual_hours(starts: datetime, ends: datetime) -> int:
    """The class-hours of a session that nobody gave any."""
    return min(24, max(1, round((ends - starts) / timedelta(minutes=CLASS_HOUR))))


def publish_session(key: str, by: str, revision: int | None = None) -> CourseSession:
    """Draft → published, open for booking. Of a published session a no-op. Raises `Conflict` when its series is not
    published, or from another state; `Invalid` for the other `faults`; `NotFound`, `Stale`."""

    def decide(present: CourseSession) -> dict[str, Any]:
        if present.state == "published":
            return {}
        found = faults(present, courses.series(present.series))
        for fault in found:
            if fault.code == "wrong_state":
                raise Conflict("wrong_state", **fault.params)
        if found := [*found, *materials.closed(present.materials).values()]:
            raise Invalid(found)
        return {"state": "published"}

    def also(tx: ClientSession, changed: CourseSession) -> None:
        open_in(tx, changed.series)
        courses.show(tx, changed.id)

    return records.change(CourseSession, key, by, "publish", decide, revision=revision, also=also)


def faults(present: CourseSession, parent: Series | None) -> list[FieldError]:
    """What keeps a session from being published; what it hands out is asked of `content.materials`, for many at once."""
    state = parent.state if parent else "gone"
    found = []
    if present.state != "draft":
        found.append(FieldError("state", "wrong_state", {"state": present.state, "action": "publish"}))
    if state != "published":
        found.append(
            FieldError(
                "series",
                "wrong_state",
                {
                    "state": Text(f"课程{WORDS.get(state, state)}", f"series {state}"),
                    "action": Text("发布场次", "publish a session"),
                },
            )
        )
    if present.starts_at <= store.now():
        found.append(FieldError("starts_at", "out_of_range", {"reason": Text("已过去", "in the past")}))
    return found + _gaps(present)


def _gaps(present: CourseSession) -> list[FieldError]:
    """What families need to get there, and has not been said."""
    if present.place not in ELSEWHERE and not (present.venue or {}).get("name"):
        return [FieldError("venue", "incomplete", {"missing": Text("场地名称", "the venue's name")})]
    if present.place == "online" and not present.online_link:
        return [FieldError("online_link", "incomplete", {"missing": Text("线上链接", "the online link")})]
    return []


def write(
    parents: Collection[Series],
    made: Sequence[CourseSession],
    changes: Sequence[tuple[CourseSession, dict[str, Any]]],
    by: str,
) -> None:
    """Write many drafts of these series in one transaction: new ones, and changes of those as they were read. Raises `Stale`
    when a series was cancelled or moved meanwhile or a session changed, `Conflict("exists")`, `NotFound`; nothing is written
    then. Without any a no-op."""
    if not made and not changes:
        return

    def work(tx: ClientSession) -> None:
        for parent in parents:
            now = courses.series(parent.id, tx)
            if now.state == "cancelled" or (now.organisation, now.division) != (parent.organisation, parent.division):
                raise Stale()
        records.create_many(tx, made, by)
        records.change_many(tx, changes, by, "edit")  # a draft that was published has another revision

    store.transaction(work, PATIENCE)


def open_in(tx: ClientSession, series_id: str) -> None:
    """Inside a publication of sessions: hold the series, so that it is not cancelled at this moment. Raises `Conflict`."""
    match = {"_id": series_id, "state": "published"}
    if not Series.rows().update_one(match, {"$inc": {"sessions_published": 1}}, session=tx).matched_count:
        raise Conflict(
            "wrong_state", state=Text("课程未发布", "the series is not published"), action=Text("发布场次", "publish a session")
        )


def cancel_session(key: str, by: str, revision: int | None = None, note: str = "") -> CourseSession:
    """Published → cancelled for good: readers and those booked see it as cancelled, and no one can book. A draft is
    removed instead (`remove_session`). One that is over can be cancelled for a week: it did not take place, and counts nowhere.
    A second call raises `Conflict`; also `NotFound`, `Stale`."""

    def decide(present: CourseSession) -> dict[str, Any]:
        over = present.state == "finished" and store.now() < present.ends_at + STAYS_OPEN
        if present.state != "published" and not over:
            raise Conflict("wrong_state", state=present.state, action="cancel")
        return {"state": "cancelled", "events": _event(present, "cancelled", {})}

    def also(tx: ClientSession, changed: CourseSession) -> None:
        courses.show(tx, changed.id)

    return records.change(CourseSession, key, by, "cancel", decide, revision=revision, note=note, also=also)


def finish(now: datetime) -> int:
    """Finish the published sessions that are over; returns how many. A second call finds none. Raises driver errors."""
    over = CourseSession.rows().find({"state": "published", "ends_at": {"$lte": now}}, {"_id": 1}).limit(500)

    def decide(present: CourseSession) -> dict[str, Any]:
        return {"state": "finished"} if present.state == "published" and present.ends_at <= now else {}

    return sum(_finish(raw["_id"], decide) for raw in over)


def _finish(key: str, decide: Callable[[CourseSession], dict[str, Any]]) -> bool:
    try:
        return bool(
            records.change(
                CourseSession, key, records.SYSTEM, "finish", decide, also=lambda tx, changed: courses.show(tx, changed.id)
            ).state
            == "finished"
        )
    except (Failure, PyMongoError) as error:  # mostly staff, who were faster; the next run looks again
        log.warning("end of %s put off: %s", key, type(error).__name__)
        return False


def confirm_dates(now: datetime) -> int:
    """Show readers anew what is to come and was published as provisional, where that year's holidays are known by now: they come
    with an upgrade of the library. Returns how many; a second call finds none. Raises driver errors."""
    coming = CourseSession.rows().find({"state": "published", "starts_at": {"$gt": now}}, {"starts_at": 1, "zone": 1})
    known = {raw["_id"] for raw in coming if not courses.is_provisional(raw["starts_at"], raw["zone"])}
    shown = PublishedRow.rows().find(
        {"kind": {"$in": ["session", "invited_session"]}, "content": {"$regex": '"provisional":true'}}, {"content": 1}
    )
    late = known & {str(json.loads(row["content"])["id"]) for row in shown}
    for key in sorted(late):
        store.transaction(partial(courses.show, key=key))
    return len(late)


def remove_session(key: str, by: str, revision: int | None = None) -> None:
    """Delete a draft. Raises `NotFound`, `Stale`, `Conflict` from another state."""

    def check(present: CourseSession) -> None:
        if present.state != "draft":
            raise Conflict("wrong_state", state=present.state, action="delete")

    records.remove(CourseSession, key, by, check, revision=revision)


# --- the starter library ---------------------------------------------------------------------------------------------


def load_library(folder: Path, settings: Settings) -> int:
    """Make and publish the starter library's series with its sessions; returns how many series. Sessions are counted in
    days from today. What is there already is left as it is, and a load that was cut is finished. Raises `Invalid`."""
    data = yaml.safe_load((folder / "courses.yaml").read_text(encoding="utf-8"))["series"]
    today = datetime.now(ZoneInfo(settings.zone)).date()
    for one in data:
        known = {name: one[name] for name in SERIES_FIELDS if name in one}
        texts = {tag: {"title": title, "summary": one["summary"].get(tag, "")} for tag, title in one["title"].items()}
        if Series.rows().find_one({"_id": one["id"]}, {"_id": 1}) is None:
            courses.create_series({**known, "texts": texts}, records.SYSTEM, one["id"])
        if courses.series(one["id"]).state == "draft":
            courses.publish_series(one["id"], records.SYSTEM, second_person=False)
        for n, row in enumerate(one["sessions"], 1):
            key = f"{one['id']}-{n}"
            starts = datetime.combine(
                today + timedelta(days=row["in_days"]), time.fromisoformat(row["at"]), ZoneInfo(settings.zone)
            )
            made = {name: row[name] for name in SESSION_FIELDS if name in row} | {
                "starts_at": starts,
                "ends_at": starts + timedelta(minutes=row["minutes"]),
                "zone": settings.zone,
                "booking_closes_at": starts - timedelta(hours=row.get("booking_closes_hours_before", 0)),
            }
            if CourseSession.rows().find_one({"_id": key}, {"_id": 1}) is None:
                create_session(one["id"], made, records.SYSTEM, key)
            if session(key).state == "draft":
                publish_session(key, records.SYSTEM)
    return len(data)

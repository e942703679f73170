"""Publishing a term's sessions at once: first a preview, then exactly what was previewed, all of it or nothing.

The preview's token is a digest of what was looked at: each session's id and revision, and what would happen to it and why. The
second call brings it; when anything of that is different by then nothing is published (412). All sessions become public in one
transaction with one release: readers wake once for a term of forty sessions, and never see half of it.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pymongo.client_session import ClientSession

from content import courses, materials, planning, records, sessions, store
from content.courses import CourseSession, Series
from content.failures import Conflict, FieldError, Text, invalid
from content.planning import ExamsOf, no_exams
from content.published import canonical, release

MOST = 500  # sessions in one batch
PATIENCE = 30  # seconds; 500 sessions take about three


class Row(NamedTuple):
    """What a batch does with one session."""

    session: CourseSession
    outcome: str
    """publish, unchanged (published already) or refused"""
    faults: list[FieldError]
    """Why it is refused; each alone would keep the whole batch back."""
    warnings: list[dict[str, str]]
    """What to know of it: texts by language tag."""


def within(series_id: str, first: date | None, last: date | None, zone: str) -> list[str]:
    """Ids of a series' drafts that begin on these local days, both included; MOST + 1 of them at most."""
    match: dict[str, Any] = {"series": series_id, "state": "draft"}
    if days := span(first, last, zone):
        match["starts_at"] = days
    rows = CourseSession.rows().find(match, {"_id": 1}).sort("starts_at", 1).limit(MOST + 1)
    return [str(raw["_id"]) for raw in rows]


def span(first: date | None, last: date | None, zone: str) -> dict[str, datetime]:
    """A filter for moments on these local days, both included; empty for all. Raises `Invalid` naming `from` or `to` for a day
    outside of 2000-2200: what is near either end of the calendar has no moment in other zones."""
    for name, day in (("from", first), ("to", last)):
        if day and not 2000 <= day.year <= 2200:
            raise invalid(name, "out_of_range", reason="2000-2200")
    found = {"$gte": datetime.combine(first, time(), ZoneInfo(zone))} if first else {}
    if last:
        found["$lt"] = datetime.combine(last + timedelta(days=1), time(), ZoneInfo(zone))
    return found


def preview(
    found: Sequence[CourseSession],
    readable: Callable[[CourseSession], bool],
    despite_clashes: bool = False,
    exams: ExamsOf = no_exams,
) -> list[Row]:
    """What publishing each of these would do, in order of time; nothing is written. A lecturer or room that is taken refuses,
    unless it is said that it shall not; of a session that is neither public nor `readable` nothing but that is told."""
    parents = {raw["_id"]: Series.of(raw) for raw in Series.rows().find({"_id": {"$in": sorted({one.series for one in found})}})}
    taken = planning.clashes([one for one in found if one.state == "draft"])
    lost = materials.closed({name for one in found for name in one.materials})
    rows = []
    for one in sorted(found, key=lambda one: (one.starts_at, one.id)):
        if one.state == "published":
            rows.append(Row(one, "unchanged", [], []))
            continue
        faults = sessions.faults(one, parents.get(one.series))
        faults += [fault for name, fault in lost.items() if name in one.materials]
        day = one.starts_at.astimezone(ZoneInfo(one.zone)).date()
        warnings = [flag.text for flag in planning.day_flags(day, exams(one.division))]
        for clash in taken.get(one.id, ()):
            told = planning.told(clash, readable(clash.session))
            if despite_clashes:
                warnings.append(told.text)
            else:
                faults.append(FieldError(clash.kind, "clash", {"what": planning.said(told)}))
        rows.append(Row(one, "refused" if faults else "publish", faults, warnings))
    return rows


def token(rows: Sequence[Row]) -> str:
    """The digest of a preview: equal as long as it would look the same."""
    seen = [[row.session.id, row.session.revision, row.outcome, [fault.messages["en"] for fault in row.faults]] for row in rows]
    return hashlib.sha256(canonical(seen).encode()).hexdigest()


def publish_many(rows: Sequence[Row], by: str) -> int:
    """Publish what a preview found fit, each with its line in the trail, in one transaction and one release; returns how many.
    Raises `Conflict` when one of them is refused, `Stale` when a session was changed since it was looked at, `Conflict` when a
    series is not published any more; nothing is published then."""
    if any(row.outcome == "refused" for row in rows):
        raise Conflict("nothing_to_do", action=Text("发布（有场次未通过）", "publish while some are refused"))
    wanted = [row.session for row in rows if row.outcome == "publish"]
    if not wanted:
        return 0

    def work(tx: ClientSession) -> None:
        for key in sorted({one.series for one in wanted}):
            sessions.open_in(tx, key)
        changed = records.change_many(tx, [(one, {"state": "published"}) for one in wanted], by, "publish")
        release(tx, [courses.session_item(one) for one in changed])

    store.transaction(work, PATIENCE)
    return len(wanted)

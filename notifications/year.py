"""A division's year: its seasons with their days, for staff as a list with what became of each notice, for families as a feed.

Families' feeds name no trouble (a season's `title` stands in somebody's calendar, open to whoever looks over a shoulder) and
remind by themselves, so that a phone that no push reaches still rings in the evening. Nothing rings for a date that nobody has
confirmed. The staff feed has official names, and the days by which dates have to be confirmed.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from icalendar import Alarm, Calendar, Event, vDuration

from content import divisions
from content.calendars import AT, FRESH, WORDS, Reading, timezone
from content.published import ANY, Snapshot
from content.vocabulary import SEASONS, Label
from notifications import seasons
from notifications.drafting import MOVED
from notifications.notices import Notice, goes_to
from notifications.seasons import Occasion, Override, Season, Span

SAID: Mapping[str, Label] = {
    "families": Label("心桥时节", "Xinqiao through the year"),
    "staff": Label("心桥时节（工作人员）", "Xinqiao through the year (staff)"),
    "confirm": Label("请确认日期：", "Please confirm the date: "),
}
OFFICIAL = frozenset({"staff"})  # audiences that get official names and what is to be confirmed


class Row(NamedTuple):
    """One season of one year, with all its notices' days."""

    season: Season
    year: int
    span: Span
    dated_by: str | None
    """Division whose confirmed date it is ("" the country); None: the file's."""
    occasions: tuple[Occasion, ...]
    confirm_by: date | None
    """Of a provisional date whose notices would otherwise stay unsent."""


def rows(
    division: str, first: date, last: date, overrides: Iterable[Override] = (), audience: str = "", stage: str = ""
) -> list[Row]:
    """The seasons that run on any of these local days, for a reader, by first day; "" and staff get all. Raises `NotFound` for
    an unknown division, `Invalid` for a stage that is none."""
    where, found = seasons.where(division), []
    for one in seasons.within(division, first, last, overrides):
        if (audience in {"", *OFFICIAL} or audience in one.season.audiences) and one.season.meant_for(stage):
            occasions = tuple(seasons.occasions_of(one, where))
            by = occasions[0].on - seasons.PREPARE if one.span.provisional and occasions else None
            found.append(Row(*one, occasions, by))
    return found


def name(season: Season, to: Reading) -> str:
    """What staff call it."""
    return to.text(season.official) or to.word(season.code, SEASONS)


def notices_of(found: Sequence[Row], division: str) -> dict[tuple[str, int, int], list[Notice]]:
    """(season, year, lead) -> the notices of it that go to the division, or to a part of it, newest first. One that was called
    off because its date moved is left out: the calendar drafts another in its place. Reads the database."""
    result: dict[tuple[str, int, int], list[Notice]] = {}
    if not found:
        return result
    years = {"$gte": min(row.year for row in found), "$lte": max(row.year for row in found)}
    match = {"kind": "season", "year": years, "reason": {"$ne": MOVED}}
    for raw in Notice.rows().find(match).sort([("created_at", -1), ("_id", -1)]):
        notice = Notice.of(raw)
        if goes_to(notice.divisions, division):
            result.setdefault((notice.season, notice.year, notice.lead), []).append(notice)
    return result


# --- as iCalendar -----------------------------------------------------------------------------------------------------


def written(division: str, found: Sequence[Row], snapshot: Snapshot, to: Reading, official: bool) -> bytes:
    """The feed: whole-day events. Its UIDs stay when a date is moved or confirmed. DTSTAMP is the confirmation's moment, or the
    day on which the calendar was last revised, never the present; so the same year gives the same bytes."""
    made = Calendar()
    made.add("version", "2.0")
    made.add("prodid", "-//Xinqiao//Seasons//ZH")
    made.add("calscale", "GREGORIAN")
    made.add("method", "PUBLISH")
    title = to.word("staff" if official else "families", SAID)
    if division:
        title += f" · {divisions.get(division).name}"
    for field in ("name", "x-wr-calname"):
        made.add(field, title)
    made.add("refresh-interval", vDuration(FRESH * 24), {"VALUE": "DURATION"})
    made.add("x-published-ttl", vDuration(FRESH * 24))
    years = [row.year for row in found] or [seasons.calendar().revised.year]
    made.add_component(timezone(to.zone, min(years), max(years) + 1))  # a calendar without any component is none
    for row in found:
        made.add_component(_event(division, row, snapshot, to, official))
        if official and row.confirm_by:
            told = to.word("confirm", SAID) + name(row.season, to)
            uid = f"confirm-{row.season.code}-{row.year}-{division or divisions.COUNTRY}@{AT}"
            made.add_component(_whole_days(uid, told, row.confirm_by, row.confirm_by, _stamp(row, snapshot)))
    return bytes(made.to_ical(sorted=False))


def _event(division: str, row: Row, snapshot: Snapshot, to: Reading, official: bool) -> Event:
    season, span = row.season, row.span
    title = name(season, to) if official else to.text(season.title)
    mark = to.word("provisional", WORDS) if span.provisional else ""
    uid = f"season-{season.code}-{row.year}-{division or divisions.COUNTRY}@{AT}"
    event = _whole_days(uid, mark + title, span.first, span.last, _stamp(row, snapshot))
    event.add("status", "TENTATIVE" if span.provisional else "CONFIRMED")
    if not official:
        event.add("description", to.text(season.text))
    for occasion in row.occasions if to.alarms and not span.provisional else ():
        alarm = Alarm()
        alarm.add("action", "DISPLAY")
        # from the first moment of the first day, since a whole day has no other start
        alarm.add("trigger", occasion.on - span.first + (datetime.combine(span.first, occasion.at) - _midnight(span.first)))
        alarm.add("description", title)
        event.add_component(alarm)
    return event


def _whole_days(uid: str, summary: str, first: date, last: date, stamp: datetime) -> Event:
    event = Event()
    event.add("uid", uid)
    event.add("dtstamp", stamp)
    event.add("last-modified", stamp)
    event.add("dtstart", first)
    event.add("dtend", last + timedelta(days=1))  # the first day that is no more of it (RFC 5545, 3.6.1)
    event.add("summary", summary)
    event.add("transp", "TRANSPARENT")
    return event


def _stamp(row: Row, snapshot: Snapshot) -> datetime:
    if row.dated_by is not None:
        item = snapshot.get("season", seasons.item_key(row.dated_by, row.season.code, row.year)).get(ANY)
        if item is not None:
            return item.at.replace(microsecond=0)
    return _midnight(seasons.calendar().revised).replace(tzinfo=UTC)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())

"""Calendar feeds (RFC 5545, RFC 7986): sessions as a phone's own calendar reads them.

A session is one VEVENT, never a rule: a moved date is then a date like any other, in every client. Its UID is the same in every
feed, so that who follows a station and has booked sees it once. The same sessions give the same bytes: DTSTAMP and LAST-MODIFIED
are the session's last change and nothing is the present moment's, so a client that asks again gets 304.

A client that was told of a session has to be told that it is off: a cancelled one stays for CANCELLED, with STATUS and, because
many clients show STATUS nowhere, in words before its title.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from icalendar import Alarm, Calendar, Component, Event, Timezone, TimezoneDaylight, TimezoneStandard, vDuration, vUri

from content import languages
from content.bookings import ACTIVE, Held
from content.published import ANY, Snapshot
from content.vocabulary import FORMATS, PLACES, TOPICS, Label

PAST, CANCELLED = timedelta(days=90), timedelta(days=60)  # how long a session stays after its start
FRESH = timedelta(hours=1)  # how often a client is asked to look again
AT = "xinqiao"  # after the @ of every UID; session ids are random, so they are told apart without it
ALARMS = (timedelta(days=-1), timedelta(hours=-2))
TENTATIVE = frozenset({"requested", "waiting", "offered"})
WORDS: Mapping[str, Label] = {
    "cancelled": Label("【已取消】", "[Cancelled] "),
    "provisional": Label("【暂定】", "[Provisional] "),
    "requested": Label("【待确认】", "[Awaiting confirmation] "),
    "waiting": Label("【候补中】", "[On the waiting list] "),
    "offered": Label("【有名额，请回复】", "[A seat is offered: please answer] "),
    "lecturer": Label("主讲：", "Lecturer: "),
    "place": Label("形式：", "Where: "),
    "access": Label("怎么到、是否方便：", "Getting there: "),
    "seats": Label("您的名额：", "Your seats: "),
    "link": Label("线上入口：", "Join online: "),
    "open": Label("详情：", "Details: "),
    "alarm": Label("课程提醒", "Course reminder"),
    "courses": Label("家庭教育课程", "Family-education courses"),
    "mine": Label("我预约的课程", "The courses I have booked"),
}


class Reading(NamedTuple):
    """For whom a feed is written."""

    wanted: Sequence[str]
    """Language tags, best first."""
    language: str
    """The service's own."""
    zone: str
    """IANA name of the district's, for a feed without sessions."""
    alarms: bool = False
    """Whether the calendar rings a day and two hours before."""
    address: str = ""
    """What a session's id is put after to make the address of its page; "": none is known."""

    def text(self, texts: Mapping[str, str] | None) -> str:
        """The text in the best language there is; "" for none."""
        return texts[languages.pick(texts, self.wanted, self.language)] if texts else ""

    def word(self, code: str, table: Mapping[str, Label] = WORDS) -> str:
        """A label in the nearer of its two languages; a code that the table has not as it is."""
        label = table.get(code)
        return self.text({"zh-Hans": label.zh, "en": label.en}) if label else code


class Entry(NamedTuple):
    """One session in a feed; what follows `series` is of a booking's feed alone."""

    session: Mapping[str, Any]
    """Published content."""
    series: Mapping[str, Any]
    """Published content; {} when there is none."""
    place: str = ""
    """State of the booking's place."""
    seats: int = 0
    link: str = ""
    steps: int = 0
    """How often the place has changed; SEQUENCE rises with it."""
    changed: str = ""
    """When it changed last; ISO 8601 in UTC."""
    shared: bool = True
    """Whether the session has a page that everyone may open."""


# --- which sessions --------------------------------------------------------------------------------------------------


def of_public(snapshot: Snapshot, fits: Callable[[Mapping[str, Any]], bool], now: datetime) -> list[Entry]:
    """The sessions that fit and are not too long over, in order of start. "Now" counts by whole days of UTC, so that a feed's
    bytes change once a day by time alone."""
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    for rows in snapshot.entries("session").values():
        one = rows[ANY].content or {}
        if fits(one) and datetime.fromisoformat(one["starts_at"]) >= day - (CANCELLED if one["state"] == "cancelled" else PAST):
            found.append(Entry(one, _series(snapshot, "series", one)))
    return in_order(found)


def of_booking(snapshot: Snapshot, places: Iterable[Held]) -> list[Entry]:
    """What one booking holds or held, also in sessions by invitation. Of several places in one session the one that counts: an
    UID may stand in a feed but once."""
    by_session: dict[str, list[Held]] = {}
    for place in places:
        by_session.setdefault(place.session.id, []).append(place)
    found = []
    for key, held in by_session.items():
        present = max(held, key=lambda one: (one.state in ACTIVE, one.number))
        steps = [step["at"] for one in held for step in one.history]
        changed = max(steps).astimezone(UTC).isoformat(timespec="seconds") if steps else ""
        for kind in ("session", "invited_session"):
            if (item := snapshot.get(kind, key).get(ANY)) and item.content:
                series = _series(snapshot, kind.replace("session", "series"), item.content)
                of = present.state, present.seats, present.session.online_link or "", len(steps), changed, kind == "session"
                found.append(Entry(item.content, series, *of))
    return in_order(found)


def _series(snapshot: Snapshot, kind: str, session: Mapping[str, Any]) -> Mapping[str, Any]:
    item = snapshot.get(kind, session["series"]).get(ANY)
    return (item.content if item else None) or {}


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """By start and id."""
    return sorted(entries, key=lambda one: (datetime.fromisoformat(one.session["starts_at"]), one.session["id"]))


# --- as iCalendar ----------------------------------------------------------------------------------------------------


def written(name: str, entries: Sequence[Entry], reading: Reading) -> bytes:
    """The feed, UTF-8, lines of at most 75 octets ending with CRLF. Its first part is a time zone, since a calendar without any
    component is none (RFC 5545, 3.6) and a feed without sessions must be read too."""
    made = Calendar()
    made.add("version", "2.0")
    made.add("prodid", "-//Xinqiao//Family education courses//ZH")
    made.add("calscale", "GREGORIAN")
    made.add("method", "PUBLISH")
    for field in ("name", "x-wr-calname"):
        made.add(field, _line(name))
    made.add("refresh-interval", vDuration(FRESH), {"VALUE": "DURATION"})
    made.add("x-published-ttl", vDuration(FRESH))
    moments: dict[str, list[datetime]] = {}
    for entry in entries:
        both = [datetime.fromisoformat(entry.session[end]) for end in ("starts_at", "ends_at")]
        moments.setdefault(entry.session["zone"], []).extend(both)
    for zone, found in sorted((moments or {reading.zone: [datetime(2026, 1, 1, tzinfo=UTC)]}).items()):
        years = [one.astimezone(UTC).year for one in found]
        made.add_component(timezone(zone, min(years), max(years)))
    head, end, _ = made.to_ical(sorted=False).partition(b"END:VCALENDAR")
    return b"".join([head, *(vevent(shown(entry, reading)) for entry in entries), end, b"\r\n"])


class Shown(NamedTuple):
    """One session as plain values: what its VEVENT says, word for word."""

    id: str
    changed: str
    sequence: int
    starts: str
    ends: str
    """Local times with offset."""
    zone: str
    summary: str
    status: str
    busy: bool
    location: str
    geo: tuple[float, float] | None
    categories: tuple[str, ...]
    description: str
    url: str
    conference: str
    alarm: str
    """What an alarm says; "": none rings."""


def shown(entry: Entry, reading: Reading) -> Shown:
    """A session in the reader's words."""
    session, texts = entry.session, entry.series.get("texts")
    told: Mapping[str, str] = texts[languages.pick(texts, reading.wanted, reading.language)] if texts else {}
    tentative = entry.place in TENTATIVE
    off = session["state"] == "cancelled" or not (tentative or entry.place in {"", "confirmed"})
    mark = "cancelled" if off else entry.place if tentative else "provisional" if session["provisional"] else ""
    venue = {part: reading.text(of) for part, of in session["venue"].items()}
    where = ", ".join(filter(None, (venue.get("name"), venue.get("address"))))
    lecturer = "，".join(filter(None, (reading.text(session["lecturer"].get(part)) for part in ("name", "field"))))
    link = entry.link if entry.place == "confirmed" and session["state"] == "published" else ""
    address = f"{reading.address}{session['id']}" if reading.address and entry.shared else ""
    rows = {
        "": told.get("summary", ""), "lecturer": lecturer, "place": reading.word(session["place"], PLACES),
        "access": venue.get("access", ""), "seats": str(entry.seats or ""), "link": link, "open": address,
    }  # fmt: skip
    topics = [reading.word(code, TOPICS) for code in entry.series.get("topics", ())]
    return Shown(
        id=session["id"],
        changed=max(session["updated_at"], entry.changed),
        sequence=session["sequence"] + entry.steps,
        starts=session["starts_at"],
        ends=session["ends_at"],
        zone=session["zone"],
        summary=_line((reading.word(mark) if mark else "") + (reading.text(session["title"]) or told.get("title", ""))),
        status="CANCELLED" if off else "TENTATIVE" if tentative else "CONFIRMED",
        # what one may go to does not make one busy; what one has booked does
        busy=entry.place == "confirmed" and not off,
        location=_line(where or (reading.word("online", PLACES) if session["online"] else "")),
        geo=(session["latitude"], session["longitude"]) if session["latitude"] is not None else None,
        categories=(*topics, reading.word(entry.series["format"], FORMATS)) if topics else (),
        description=_plain("\n".join((reading.word(name) if name else "") + text for name, text in rows.items() if text)),
        url=address,
        conference=_line(link),
        alarm=reading.word("alarm") if reading.alarms and not off else "",
    )


@functools.lru_cache(8192)
def vevent(one: Shown) -> bytes:
    """A session's VEVENT. icalendar takes 0.9 ms for it, a second for a feed of a thousand, and every seat that changes makes
    all feeds anew: so what was written is remembered, at most some 20 MB of it."""
    made = Event()
    made.add("uid", f"{one.id}@{AT}")
    changed = datetime.fromisoformat(one.changed).astimezone(UTC)
    made.add("dtstamp", changed)
    made.add("last-modified", changed)
    made.add("sequence", one.sequence)
    for field, moment in (("dtstart", one.starts), ("dtend", one.ends)):
        local = datetime.fromisoformat(moment).astimezone(ZoneInfo(one.zone))
        # a local time that comes twice means its first coming (RFC 5545, 3.3.5): the second can only be said in UTC
        made.add(field, local.astimezone(UTC) if local.fold else local)
    made.add("summary", one.summary)
    made.add("status", one.status)
    made.add("transp", "OPAQUE" if one.busy else "TRANSPARENT")
    for field, text in (("location", one.location), ("description", one.description)):
        if text:
            made.add(field, text)
    if one.geo:
        made.add("geo", one.geo)
    if one.categories:
        made.add("categories", list(one.categories))
    if one.url:
        made.add("url", vUri(one.url))
    if one.conference:
        made.add("conference", vUri(one.conference), {"VALUE": "URI", "FEATURE": "VIDEO"})
    for before in ALARMS if one.alarm else ():
        alarm = Alarm()
        alarm.add("action", "DISPLAY")
        alarm.add("trigger", before)
        alarm.add("description", one.alarm)
        made.add_component(alarm)
    return bytes(made.to_ical(sorted=False))


_BREAKS = dict.fromkeys(map(ord, "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"), "\n")
_CONTROLS = {code: None for code in (*range(32), 127) if chr(code) not in "\t\n"}


def _plain(text: str) -> str:
    """A text of several lines without control characters (RFC 5545, 3.3.11). Whatever some reader takes for the end of a line
    (Python's splitlines knows ten) is a line feed, which is then escaped: nobody's title can begin a property."""
    text = text.replace("\r\n", "\n").translate(_BREAKS).translate(_CONTROLS)
    return text.replace("\\N", "＼N")  # icalendar writes it as a line feed, and reads it as one


def _line(text: str) -> str:
    """A text of one line."""
    return _plain(text).replace("\n", " ").strip()


# --- time zones ------------------------------------------------------------------------------------------------------


def timezone(name: str, first: int, last: int) -> Timezone:
    """The zone's VTIMEZONE for these years, both included."""
    found = Timezone()
    found.add("tzid", name)
    for start, before, after, abbreviation, daylight in _changes(name, first, last):
        part: Component = TimezoneDaylight() if daylight else TimezoneStandard()
        part.add("dtstart", start)
        part.add("tzoffsetfrom", before)
        part.add("tzoffsetto", after)
        part.add("tzname", abbreviation)
        found.add_component(part)
    return found


Change = tuple[datetime, timedelta, timedelta, str, bool]


@functools.lru_cache(256)
def _changes(name: str, first: int, last: int) -> tuple[Change, ...]:
    """What holds on the first of January of `first`, then every change of the clocks: (local start on the clocks as they were
    before, offset before, offset after, abbreviation, whether it is summer time).

    icalendar's own `Timezone.from_tzid` (7.3) tells the spring change an hour late and steps over a change that is taken back
    within 64 days (Morocco's Ramadan). Here every day is looked at: 0.4 ms a year, once a process.
    """
    zone, day = ZoneInfo(name), datetime(first - 1, 12, 31, tzinfo=UTC)
    start = _offset(day, zone)
    found = [((day + start).replace(tzinfo=None), start, start, *_called(day, zone))]
    while day.year <= last:
        following = day + timedelta(days=1)
        if _offset(day, zone) != _offset(following, zone) or _called(day, zone) != _called(following, zone):
            low, high = day, following  # the change lies in (low, high]
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                same = (_offset(middle, zone), _called(middle, zone)) == (_offset(day, zone), _called(day, zone))
                low, high = (middle, high) if same else (low, middle)
            at = high.replace(microsecond=0)
            before, after = _offset(day, zone), _offset(following, zone)
            found.append(((at + before).replace(tzinfo=None), before, after, *_called(following, zone)))
        day = following
    return tuple(found)


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def _called(at: datetime, zone: ZoneInfo) -> tuple[str, bool]:
    local = at.astimezone(zone)
    return local.tzname() or "", (local.dst() or timedelta()) > timedelta()

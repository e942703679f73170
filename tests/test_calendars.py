"""Calendar feeds, read back by real clients: vdirsyncer fetches them as a phone would, khal shows what it fetched, and
recurring_ical_events and icalendar read the bytes themselves. All have to say what the API's own list says.
"""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
import recurring_ical_events  # type: ignore[import-untyped]
from dateutil import tz
from icalendar import Calendar

from content import batches, bookings, calendars, courses, records, recurrence, registrations, sessions, staff, store, waiting
from content.bookings import Booked
from content.calendars import Entry, Reading
from content.courses import CourseSession
from content.published import ANY, Item, PublishedRow, Snapshot, release
from tests.promises.report import Measured
from tests.site import Site

HOME = ZoneInfo("Asia/Shanghai")
ZH = Reading(("zh-Hans",), "zh-Hans", "Asia/Shanghai")
SERIES: dict[str, Any] = {
    "texts": {"zh-Hans": {"title": "家长学校", "summary": "四次晚间小课"}, "en": {"title": "Parent school", "summary": ""}},
    "topics": ["parenting", "emotion"], "audiences": ["parent"], "stages": ["junior.9"], "format": "salon",
    "organisation": "org1", "division": "150603", "organiser_name": {"zh-Hans": "康巴什区妇联"},
}  # fmt: skip
VENUE = {"name": "社区活动室", "address": "鄂尔多斯大街1号", "access": "东门有坡道"}
HOSTILE = [
    '讲座, 沙龙; 互动\\讨论: "家长" 100%',
    "很长的题目" * 24,
    "👨‍👩‍👧‍👦" * 14,
    "\u202e‏שלום مرحبا\u202c 家长",
    "题目\nEND:VEVENT\nBEGIN:VEVENT\nSUMMARY:假",
    "题目\u2028END:VEVENT\u2029BEGIN:VEVENT\u0085\x0b\x0c\x1c\x1d\x1e\x07\x7f末",
    "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ\u202fᠶᠢᠨ" * 5,
    "C:\\New \\n \\, \\\\;",
]


# Twenty schedules of a term: (weekday, hour, minute) of the first date, minutes, zone, rule, what is left out, added and moved
# (in days after the first).
MO, TU, WE, TH, FR, SA, SU = range(7)
SCHEDULES: list[tuple[tuple[int, int, int], int, str, str, dict[str, Any]]] = [
    ((TU, 19, 0), 90, "Asia/Shanghai", "", {}),
    ((TU, 19, 0), 90, "Asia/Shanghai", "FREQ=WEEKLY;COUNT=6", {}),
    ((WE, 19, 30), 120, "Asia/Shanghai", "FREQ=WEEKLY;INTERVAL=2;COUNT=6", {"excluded": [28]}),
    ((FR, 18, 15), 45, "Asia/Shanghai", "FREQ=WEEKLY;INTERVAL=2;COUNT=5", {"excluded": [14], "moved": [(28, 30)]}),
    ((SA, 9, 0), 180, "Asia/Shanghai", "FREQ=WEEKLY;COUNT=4", {"added": [3, 10]}),
    ((MO, 8, 0), 45, "Asia/Shanghai", "FREQ=DAILY;COUNT=5", {}),
    ((MO, 14, 0), 60, "Asia/Shanghai", "FREQ=WEEKLY;BYDAY=MO,WE,FR;COUNT=6", {"moved": [(2, 3)]}),
    ((TH, 20, 0), 60, "Asia/Shanghai", "FREQ=DAILY;INTERVAL=3;COUNT=5", {}),
    ((SU, 10, 0), 90, "Asia/Urumqi", "FREQ=WEEKLY;COUNT=4", {}),
    ((SA, 23, 0), 120, "Asia/Shanghai", "FREQ=WEEKLY;COUNT=3", {}),
    ((SU, 0, 0), 30, "Asia/Shanghai", "FREQ=WEEKLY;COUNT=3", {}),
    ((FR, 22, 0), 120, "Asia/Shanghai", "FREQ=WEEKLY;COUNT=3", {}),
    ((SA, 9, 0), 33 * 60, "Asia/Shanghai", "FREQ=WEEKLY;INTERVAL=4;COUNT=2", {}),
    ((SU, 10, 0), 90, "Europe/Berlin", "FREQ=WEEKLY;INTERVAL=4;COUNT=9", {}),
    ((SA, 19, 0), 60, "America/New_York", "FREQ=WEEKLY;INTERVAL=4;COUNT=9", {"excluded": [56]}),
    ((MO, 18, 0), 60, "Australia/Lord_Howe", "FREQ=WEEKLY;INTERVAL=5;COUNT=7", {}),
    ((TU, 17, 45), 75, "Asia/Kathmandu", "FREQ=WEEKLY;COUNT=3", {}),
    ((WE, 12, 0), 40, "UTC", "FREQ=WEEKLY;COUNT=3", {}),
    ((TH, 16, 30), 1, "Asia/Shanghai", "FREQ=WEEKLY;COUNT=3", {"moved": [(7, 13)]}),
    ((FR, 16, 30), 90, "Asia/Shanghai", "FREQ=DAILY;INTERVAL=10;COUNT=4", {"excluded": [10], "added": [11]}),
]
DST = {"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"}


class Seen(NamedTuple):
    """One occurrence as a client shows it."""

    starts: datetime
    ends: datetime
    title: str


# --- the clients -----------------------------------------------------------------------------------------------------


class Phone:
    """vdirsyncer and khal with a home of their own."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.feed = home, home / "feed"
        self.feed.mkdir(parents=True)
        (home / "vdirsyncer").write_text(
            f'[general]\nstatus_path = "{home}/status/"\n'
            '[pair feed]\na = "here"\nb = "there"\ncollections = null\nconflict_resolution = "b wins"\n'
            f'[storage here]\ntype = "filesystem"\npath = "{self.feed}/"\nfileext = ".ics"\n'
            f'[storage there]\ntype = "http"\nurl = "{address}"\n'
        )
        forms = "".join(
            f"{name} = {form}\n"
            for name, form in {
                "timeformat": "%H:%M", "dateformat": "%Y-%m-%d", "longdateformat": "%Y-%m-%d",
                "datetimeformat": "%Y-%m-%d %H:%M", "longdatetimeformat": "%Y-%m-%d %H:%M",
                "local_timezone": "Asia/Shanghai", "default_timezone": "Asia/Shanghai",
            }.items()
        )  # fmt: skip
        where = f"[calendars]\n[[feed]]\npath = {self.feed}/\n[sqlite]\npath = {home}/khal.db\n"
        (home / "khal").write_text(f"{where}[locale]\n{forms}")
        self._run("vdirsyncer", "discover")

    def _run(self, program: str, *arguments: str) -> str:
        folders = {name: str(self.home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
        done = subprocess.run(
            [Path(sys.executable).parent / program, "-c", self.home / program, *arguments],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "no_proxy": "*", **folders},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sync(self) -> None:
        """Fetch the feed: one file an entry."""
        self._run("vdirsyncer", "sync")

    def shows(self, first: date, last: date) -> list[tuple[Seen, str]]:
        """What khal lists, with STATUS, in its own order."""
        names = ("start-long", "end-long", "title", "status")
        fields = [part for name in names for part in ("--json", name)]
        found = []
        for line in self._run("khal", "list", "--once", *fields, str(first), str(last)).splitlines():
            for row in json.loads(line):
                starts, ends = (datetime.fromisoformat(row[name]).replace(tzinfo=HOME) for name in names[:2])
                found.append((Seen(starts, ends, row["title"]), row["status"]))
        return found


def parsed(feed: bytes) -> list[Seen]:
    """As icalendar reads it."""
    return sorted(
        Seen(one.decoded("DTSTART"), one.decoded("DTEND"), str(one["SUMMARY"])) for one in Calendar.from_ical(feed).events
    )


def expanded(feed: bytes, first: date, last: date) -> list[Seen]:
    """As recurring_ical_events lays it out between two dates."""
    found = recurring_ical_events.of(Calendar.from_ical(feed)).between(first, last)
    return sorted(Seen(one.start, one.end, str(one["SUMMARY"])) for one in found)


def listed(site: Site, query: str = "") -> list[dict[str, Any]]:
    """All of `/v1/sessions`."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = site.get(f"/v1/sessions?limit=100{query}{cursor and '&cursor=' + cursor}").json()
        found += page["items"]
        if not page["next_cursor"]:
            return found
        cursor = page["next_cursor"]


def told(row: Mapping[str, Any]) -> Seen:
    """A session of the API's list as a calendar has to show it."""
    mark = "【已取消】" if row["state"] == "cancelled" else "【暂定】" if row["provisional"] else ""
    return Seen(datetime.fromisoformat(row["starts_at"]), datetime.fromisoformat(row["ends_at"]), mark + row["title"])


LINE = re.compile(
    r"([A-Za-z0-9-]+)"
    r'((?:;[A-Za-z0-9-]+=(?:"[^"\x00-\x1f\x7f]*"|[^";:,\x00-\x1f\x7f]*))*)'
    r":([^\x00-\x08\x0a-\x1f\x7f]*)"
)
ONCE = {"UID", "DTSTAMP", "DTSTART", "DTEND", "SEQUENCE", "SUMMARY", "STATUS", "TRANSP", "LOCATION", "GEO", "DESCRIPTION", "URL"}


def strictly(feed: bytes) -> list[dict[str, str]]:
    """The VEVENTs of a feed that keeps RFC 5545 to the letter: line ends, folding, grammar, what must be there and how often."""
    assert feed.endswith(b"\r\n") and b"\n" not in feed.replace(b"\r\n", b"") and b"\r" not in feed.replace(b"\r\n", b"")
    for folded in feed.split(b"\r\n"):
        assert len(folded) <= 75, folded
        folded.decode("utf-8")  # no character is cut in two
    text = feed.decode("utf-8").replace("\r\n ", "")
    assert len(text.splitlines()) == text.count("\r\n")  # nothing else that some reader takes for the end of a line
    stack: list[tuple[str, dict[str, list[str]]]] = []
    found: list[dict[str, str]] = []
    for line in text.split("\r\n")[:-1]:
        match = LINE.fullmatch(line)
        assert match, line
        name, parameters, value = match[1].upper(), match[2], match[3]
        if name == "BEGIN":
            stack.append((value, {}))
        elif name == "END":
            kind, has = stack.pop()
            assert kind == value
            needs = {
                "VCALENDAR": {"PRODID", "VERSION"}, "VEVENT": {"UID", "DTSTAMP", "DTSTART"}, "VTIMEZONE": {"TZID"},
                "STANDARD": {"DTSTART", "TZOFFSETFROM", "TZOFFSETTO"}, "DAYLIGHT": {"DTSTART", "TZOFFSETFROM", "TZOFFSETTO"},
                "VALARM": {"ACTION", "TRIGGER", "DESCRIPTION"},
            }[kind]  # fmt: skip
            assert needs <= has.keys(), (kind, has)
            assert all(len(has.get(one, ())) <= 1 for one in ONCE)
            if kind == "VEVENT":
                found.append({one: rows[0] for one, rows in has.items()})
        else:
            stack[-1][1].setdefault(name, []).append(value)
            if "TZID=" in parameters:
                assert f"TZID:{parameters.rpartition('TZID=')[2]}\r\n" in text, line
    assert not stack
    assert not [one for part in Calendar.from_ical(feed).walk() for one in part.errors]
    return found


# --- what is published -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def holidays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session of the coming weeks is provisional, not even when the library does not know the new year's holidays yet."""
    monkeypatch.setattr(courses, "provisional", lambda day: False)


def federation(key: str = "org1") -> None:
    """An organisation that holds courses."""
    records.create(staff.Organisation(id=key, name=f"妇联 {key}", kind="federation", division="150603"), records.SYSTEM)


def series(**more: Any) -> str:
    """Id of a published series."""
    made = courses.create_series({**SERIES, **more}, "ann")
    courses.publish_series(made.id, "ann", second_person=False)
    return str(made.id)


def values(starts: datetime, ends: datetime | None = None, **more: Any) -> dict[str, Any]:
    """What staff say of a session, of an hour when not said otherwise; `starts` is local time of its zone."""
    times = {"starts_at": starts, "ends_at": ends or starts + timedelta(hours=1), "zone": "Asia/Shanghai"}
    return {**times, "place": "community", "capacity": 10, "venue": {"name": {"zh-Hans": "社区活动室"}}, **more}


def session(of: str, starts: datetime, ends: datetime | None = None, **more: Any) -> str:
    """Id of a published session."""
    expert = more.pop("lecturer_id", None)  # whether the library has it is asked elsewhere
    made = sessions.create_session(of, values(starts, ends, **more), "ann")
    if expert:
        CourseSession.rows().update_one({"_id": made.id}, {"$set": {"lecturer_id": expert}})
    return str(sessions.publish_session(made.id, "ann").id)


def coming(weekday: int, hour: int, minute: int = 0) -> datetime:
    """Local time of the next such weekday that is at least two days off."""
    found = datetime.now(HOME).replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None) + timedelta(days=2)
    return found + timedelta(days=(weekday - found.weekday()) % 7)


def content(n: int, **more: Any) -> dict[str, Any]:
    """Published content of a session, without a database."""
    starts = datetime(2027, 3, 1, 19, tzinfo=HOME) + timedelta(days=n % 200)
    return {
        "id": f"s{n}", "series": "course", "organisation": "org1", "host": "", "division": "150603", "zone": "Asia/Shanghai",
        "starts_at": starts.isoformat(), "ends_at": (starts + timedelta(hours=2)).isoformat(), "place": "community",
        "title": {}, "latitude": 39.6, "longitude": 109.8, "lecturer_id": "", "online": False, "provisional": False,
        "venue": {part: {"zh-Hans": text} for part, text in VENUE.items()},
        "lecturer": {"name": {"zh-Hans": "王老师"}, "field": {"zh-Hans": "家庭教育指导"}}, "state": "published", "sequence": 3,
        "updated_at": "2027-01-05T08:00:00+00:00", **more,
    }  # fmt: skip


def snapshot(*contents: Mapping[str, Any]) -> Snapshot:
    """These sessions as published."""
    items = [Item("session", one["id"], ANY, one, 1) for one in contents]
    return Snapshot().after(1, [Item("series", "course", ANY, SERIES, 1), *items])


def entries(contents: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """These sessions in a feed."""
    return [Entry(one, SERIES) for one in contents]


# --- what a feed says ------------------------------------------------------------------------------------------------


def test_titles_cannot_break_a_feed_and_lines_are_folded_between_characters() -> None:
    held = entries(content(n, title={"zh-Hans": text}, venue={"name": {"zh-Hans": text}}) for n, text in enumerate(HOSTILE))
    feed = calendars.written("康巴什区" * 20, held, ZH)
    rows = strictly(feed)
    assert [row["UID"] for row in rows] == [f"s{n}@xinqiao" for n in range(len(HOSTILE))]
    read = [str(one["SUMMARY"]) for one in Calendar.from_ical(feed).events]
    plain = (0, 1, 2, 3, 6)
    assert [read[n] for n in plain] == [HOSTILE[n] for n in plain]
    assert read[4] == "题目 END:VEVENT BEGIN:VEVENT SUMMARY:假"
    assert read[5] == "题目 END:VEVENT BEGIN:VEVENT" + " " * 6 + "末"
    assert read[7] == HOSTILE[7].replace("\\N", "＼N")  # which the library itself would read as a line feed
    assert feed == calendars.written("康巴什区" * 20, held, ZH)


def test_an_entry_says_what_a_family_needs_in_its_language() -> None:
    one = entries([content(1)])
    (row,) = strictly(calendars.written("x", one, ZH._replace(address="https://a.example/s/")))
    assert row["DTSTAMP"] == row["LAST-MODIFIED"] == "20270105T080000Z"
    assert (row["SEQUENCE"], row["STATUS"], row["TRANSP"], row["GEO"]) == ("3", "CONFIRMED", "TRANSPARENT", "39.6;109.8")
    assert (row["SUMMARY"], row["LOCATION"]) == ("家长学校", "社区活动室\\, 鄂尔多斯大街1号")
    assert row["CATEGORIES"] == "家庭教育指导,情绪调适,沙龙"
    assert row["URL"] == "https://a.example/s/s1"
    told = ["四次晚间小课", "主讲：王老师，家庭教育指导", "形式：进社区", "怎么到、是否方便：东门有坡道"]
    assert row["DESCRIPTION"] == "\\n".join([*told, "详情：https://a.example/s/s1"])
    english = calendars.written("x", one, ZH._replace(wanted=("en",), alarms=True)).decode()
    assert "SUMMARY:Parent school\r\n" in english and "CATEGORIES:parent guidance,handling feelings,salon" in english
    assert re.findall("TRIGGER:(.*)\r", english) == ["-P1D", "-PT2H"]
    (online,) = strictly(calendars.written("x", entries([content(1, venue={}, latitude=None, online=True)]), ZH))
    assert online["LOCATION"] == "进网络" and "GEO" not in online
    (none,) = strictly(calendars.written("x", [Entry(content(1, lecturer={}, venue={}, latitude=None), {})], ZH))
    assert "LOCATION" not in none and none["SUMMARY"] == ""


def test_how_long_a_session_stays_and_how_it_is_marked() -> None:
    now = datetime(2027, 3, 1, 12, tzinfo=UTC)

    def at(days: int, **more: Any) -> dict[str, Any]:
        return content(days + 500, starts_at=(now + timedelta(days=days)).isoformat(), **more)

    rows = [at(-91), at(-90, state="finished"), at(-61, state="cancelled"), at(-60, state="cancelled"), at(-1)]
    rows += [at(300, provisional=True), at(400, provisional=True, state="cancelled")]
    found = calendars.of_public(snapshot(*rows), lambda one: True, now)
    assert [entry.session["id"] for entry in found] == ["s410", "s440", "s499", "s800", "s900"]
    marks = [(row["STATUS"], row["SUMMARY"]) for row in strictly(calendars.written("x", found, ZH._replace(alarms=True)))]
    off, on = ("CANCELLED", "【已取消】家长学校"), ("CONFIRMED", "家长学校")
    assert marks == [on, off, on, ("CONFIRMED", "【暂定】家长学校"), off]
    assert calendars.of_public(snapshot(*rows), lambda one: True, now + timedelta(hours=11)) == found  # by whole days
    assert b"VALARM" not in calendars.written("x", found[1:2], ZH._replace(alarms=True))


ZONES = ["Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_is_told_as_it_is(zone: str) -> None:
    # dateutil reads a VTIMEZONE by its own rules and knows nothing of the name
    first, last = (2024, 2026) if zone == "Africa/Casablanca" else (2026, 2027)  # Ramadan: two changes within five weeks
    text = calendars.timezone(zone, first, last).to_ical().decode()
    read, known = tz.tzical(io.StringIO(text)).get(), ZoneInfo(zone)
    assert read is not None
    day, looked, wrong = datetime(first, 1, 1, tzinfo=UTC), 0, []
    while day.year <= last:
        changes = day.astimezone(known).utcoffset() != (day + timedelta(days=1)).astimezone(known).utcoffset()
        looked += changes
        for moment in [day + timedelta(minutes=15 * n) for n in range(96)] if changes else [day]:
            local = moment.astimezone(known)
            if not local.fold and read.utcoffset(local.replace(tzinfo=None)) != local.utcoffset():
                wrong.append(local)
        day += timedelta(days=1)
    assert looked == {"Asia/Shanghai": 0, "Africa/Casablanca": 6}.get(zone, 4)
    assert not wrong


def test_a_local_time_that_comes_twice_is_told_in_utc() -> None:
    night = datetime(2027, 10, 31, 0, 30, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))  # 02:30 for the first time
    rows = [
        content(n, zone="Europe/Berlin", starts_at=start.isoformat(), ends_at=(start + timedelta(minutes=20)).isoformat())
        for n, start in enumerate([night, (night.astimezone(UTC) + timedelta(hours=1)).astimezone(ZoneInfo("Europe/Berlin"))])
    ]
    feed = calendars.written("x", entries(rows), ZH)
    strictly(feed)
    assert [one.starts.astimezone(UTC).hour for one in parsed(feed)] == [0, 1]
    assert b"DTSTART;TZID=Europe/Berlin:20271031T023000" in feed and b"DTSTART:20271031T013000Z" in feed


@pytest.mark.slow
def test_a_thousand_sessions(measured: Measured) -> None:
    """What a busy prefecture's feed weighs and costs."""
    held = entries(content(n, title={"zh-Hans": f"第{n}场：怎么听孩子说话"}) for n in range(1000))
    calendars.vevent.cache_clear()
    began = time.perf_counter()
    feed = calendars.written("x", held, ZH)
    cold = time.perf_counter() - began
    held[500] = Entry({**held[500].session, "sequence": 4}, SERIES)
    began = time.perf_counter()
    calendars.written("x", held, ZH)
    warm = time.perf_counter() - began
    packed = len(gzip.compress(feed, 6))
    sizes, times = f"{len(feed) // 1000} kB, {packed // 1000} kB packed", f"{cold:.2f} s new, {warm:.3f} s after one changed"
    measured(15, f"calendar feed of 1,000 sessions: {sizes}; {times}")
    assert len(strictly(feed)) == 1000 and warm < cold / 3


# --- over HTTP, with real clients ------------------------------------------------------------------------------------


def planned(first: datetime, minutes: int, zone: str, rule: str, more: dict[str, Any]) -> list[recurrence.Occurrence]:
    """The dates of one of SCHEDULES."""

    def day(n: int) -> str:
        return (first + timedelta(days=n)).date().isoformat()

    moves = [{"from": day(a), "to": (first + timedelta(days=b, hours=1)).isoformat()[:16]} for a, b in more.get("moved", ())]
    excluded, added = ([day(n) for n in more.get(name, ())] for name in ("excluded", "added"))
    return recurrence.occurrences(first.isoformat()[:16], minutes, zone, rule, excluded, added, moves)


@pytest.mark.parametrize("chosen", [pytest.param(SCHEDULES, marks=pytest.mark.slow, id="twenty"), [SCHEDULES[3], SCHEDULES[13]]])
def test_three_clients_agree_on_every_occurrence(site: Site, tmp_path: Path, measured: Measured, chosen: list[Any]) -> None:
    """Twenty schedules with the slow tests; two of them, with a moved date, a left-out one and a change of clocks, always."""
    federation()
    drafts = []
    for n, ((weekday, hour, minute), minutes, zone, rule, more) in enumerate(chosen):
        course = series(texts={"zh-Hans": {"title": f"{n:02} {HOSTILE[n % 4][:100]}", "summary": "小课"}})
        parent = courses.series(course)
        dates = planned(coming(weekday, hour, minute), minutes, zone, rule, more)
        drafts += [sessions.draft(parent, values(one.starts_at, one.ends_at, zone=zone)) for one in dates]
    store.transaction(lambda tx: records.create_many(tx, drafts, "ann"))
    batches.publish_many(batches.preview(drafts, lambda one: True, despite_clashes=True), "ann")
    ids = [str(one.id) for one in drafts]
    site.refresh()
    rows = listed(site)
    assert len(rows) == len(ids) and {row["id"] for row in rows} == set(ids)
    offsets = {row["zone"]: {one["starts_at"][-6:] for one in rows if one["zone"] == row["zone"]} for row in rows}
    assert all(len(offsets[zone]) == 2 for zone in DST & offsets.keys())

    address = "/v1/calendars/divisions/150603.ics"
    phone = Phone(tmp_path / "phone", site.base + address)
    first, last = (
        datetime.now(HOME).date() - timedelta(days=2),
        max(date.fromisoformat(row["ends_at"][:10]) for row in rows) + timedelta(days=4),
    )

    def compare() -> tuple[list[Seen], dict[str, str], int]:
        """What all four say now: occurrences, STATUS by title and start, entries."""
        site.refresh()
        feed = site.get(address).content
        strictly(feed)
        phone.sync()
        expected = sorted(map(told, listed(site)))
        shown = phone.shows(first, last)
        assert parsed(feed) == expected
        assert expanded(feed, first, last) == expected
        assert sorted(one for one, _ in shown) == expected
        return expected, {f"{one.starts}{one.title}": status for one, status in shown}, len(list(phone.feed.iterdir()))

    expected, _, files = compare()
    assert files == len(ids)

    # one moves, one is cancelled, one changes its place
    moved, cancelled, changed = ids[1], ids[3], ids[5]
    before = next(row for row in rows if row["id"] == moved)
    was = sequences(site, address)
    to = datetime.fromisoformat(before["starts_at"]) + timedelta(days=1, hours=2)
    until = datetime.fromisoformat(before["ends_at"]) + timedelta(days=1, hours=3)
    sessions.edit_session(moved, {"starts_at": to, "ends_at": until}, "ann")
    sessions.cancel_session(cancelled, "ann")
    sessions.edit_session(changed, {"venue": {"name": {"zh-Hans": "二楼大厅"}}}, "ann")
    now, statuses, files = compare()
    assert files == len(ids)  # what was there before is not there any more
    assert told(before) in expected and told(before) not in now
    assert Seen(to, until, before["title"]) in now
    raised = {key.partition("@")[0] for key, number in sequences(site, address).items() if number > was[key]}
    assert raised == {moved, cancelled, changed}
    assert sum(status == "CANCELLED" for status in statuses.values()) == 1
    agreed = f"all {len(now)} occurrences agree with the API, before and after changes"
    measured(8, f"{len(chosen)} schedules × 3 calendar clients (khal by vdirsyncer, icalendar, recurring_ical_events): {agreed}")


def sequences(site: Site, address: str) -> dict[str, int]:
    """UID -> SEQUENCE."""
    return {row["UID"]: int(row["SEQUENCE"]) for row in strictly(site.get(address).content)}


def test_feeds_of_a_division_a_station_a_course_and_a_lecturer(site: Site) -> None:
    federation()
    federation("station1")
    begins = coming(SA, 9)
    ours, theirs = series(), series(division="150000", texts={"zh-Hans": {"title": "全区大讲堂", "summary": ""}})
    invited = series(visibility="invited")
    far = series(division="330100")
    one = session(ours, begins)
    two = session(ours, begins + timedelta(days=7), host="station1", venue={"name": {"zh-Hans": "哈巴格希站"}})
    three = session(theirs, begins, lecturer_id="wang", lecturer={"name": {"zh-Hans": "王老师"}})
    session(invited, begins, host="station1", lecturer_id="wang")
    four = session(far, begins)
    li = Item("lecturer", "li", ANY, {"id": "li", "name": {"zh-Hans": "李老师"}})
    store.transaction(lambda tx: release(tx, [li]))
    site.refresh()
    site.reader.up = False  # the database is away: calendars go on
    feeds = {
        "divisions/150603": ({one, two, three}, "家庭教育课程 · 康巴什区"),
        "divisions/150000": ({one, two, three}, "家庭教育课程 · 内蒙古自治区"),
        "divisions/330102": ({four}, "家庭教育课程 · 上城区"),
        "divisions/110101": (set(), "家庭教育课程 · 东城区"),
        "stations/org1": ({one, three, four}, "家庭教育课程 · 康巴什区妇联"),
        "stations/station1": ({two}, "家庭教育课程 · 哈巴格希站"),
        f"courses/{ours}": ({one, two}, "家庭教育课程 · 家长学校"),
        f"courses/{far}": ({four}, "家庭教育课程 · 家长学校"),
        "lecturers/wang": ({three}, "家庭教育课程 · 王老师"),
        "lecturers/li": (set(), "家庭教育课程 · 李老师"),  # of the expert library, and nothing planned yet
    }
    try:
        said: dict[str, dict[str, str]] = {}
        for path, (there, name) in feeds.items():
            reply = site.get(f"/v1/calendars/{path}.ics")
            assert reply.status_code == 200, reply.text
            assert reply.headers["Content-Type"] == "text/calendar; charset=utf-8"
            rows = strictly(reply.content)
            assert {row["UID"] for row in rows} == {f"{key}@xinqiao" for key in there}, path
            calendar = Calendar.from_ical(reply.content)
            assert (calendar["NAME"], calendar["X-WR-CALNAME"], calendar["METHOD"]) == (name, name, "PUBLISH")
            assert calendar.decoded("REFRESH-INTERVAL") == timedelta(hours=1) and len(calendar.timezones) == 1
            again = site.get(f"/v1/calendars/{path}.ics", headers={"If-None-Match": reply.headers["ETag"]})
            assert again.status_code == 304
            assert all(said.setdefault(row["UID"], row) == row for row in rows)  # one and the same in every feed
        unknown = ("divisions/999999", "stations/nobody", f"courses/{invited}", "courses/nothing", "lecturers/nobody")
        assert [site.get(f"/v1/calendars/{path}.ics").status_code for path in unknown] == [404] * 5
        english = site.get(f"/v1/calendars/courses/{ours}.ics?language=en&alarms=true", headers={"Accept-Language": "zh-Hans"})
        assert {row["SUMMARY"] for row in strictly(english.content)} == {"Parent school"} and b"TRIGGER:-PT2H" in english.content
        assert Calendar.from_ical(english.content)["NAME"] == "Family-education courses · Parent school"
        assert b"VALARM" not in site.get(f"/v1/calendars/courses/{ours}.ics").content
        assert site.get(f"/v1/calendars/courses/{ours}.ics?colour=red").status_code == 422
        head = site.call("HEAD", f"/v1/calendars/courses/{ours}.ics", headers={"Accept-Encoding": "identity"})
        assert head.status_code == 200 and int(head.headers["Content-Length"]) > 500 and not head.content
    finally:
        site.reader.up = True


def test_a_provisional_date_loses_its_mark_once_the_years_holidays_are_known(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    federation()
    ours = series()
    monkeypatch.setattr(courses, "provisional", lambda day: True)
    begins = coming(SA, 9)
    session(ours, begins)
    hidden = session(series(visibility="invited"), begins)
    path = f"/v1/calendars/courses/{ours}.ics"

    def titles() -> set[str]:
        site.refresh()
        return {row["SUMMARY"] for row in strictly(site.get(path).content)}

    assert titles() == {"【暂定】家长学校"} and sessions.confirm_dates(store.now()) == 0
    was = sequences(site, path)
    monkeypatch.setattr(courses, "provisional", lambda day: False)  # as after an upgrade
    assert sessions.confirm_dates(store.now()) == 2
    assert titles() == {"家长学校"} and sequences(site, path) == was  # it has not moved: nobody is told again
    row = PublishedRow.rows().find_one({"_id": f"invited_session:{hidden}:{ANY}"})
    assert row and not json.loads(row["content"])["provisional"]
    assert not site.get("/v1/sessions?division=150603").json()["items"][0]["provisional"]
    assert sessions.confirm_dates(store.now()) == 0


def test_a_bookings_feed_says_what_became_of_its_places(site: Site) -> None:
    federation()
    begins = coming(SA, 9)
    course, asked = series(), series(approval=True, visibility="invited")
    online = session(course, begins, capacity=2, online_link="https://meet.example/a?b=1,2;c", place="online", venue={})
    other = session(course, begins + timedelta(days=7))
    third = session(asked, begins + timedelta(days=14))
    site.refresh()

    def book(phone: str = "13800138000", **wish: Any) -> Booked:
        return registrations.book(site.settings, registrations.Wish(2, "欧阳", phone, **wish))

    def read(booked: Booked, query: str = "") -> dict[str, dict[str, str]]:
        site.refresh()
        reply = site.get(f"/v1/calendars/bookings/{booked.feed}.ics{query}")
        assert reply.status_code == 200, reply.text
        assert reply.headers["Cache-Control"] == "no-store" and "ETag" not in reply.headers
        assert reply.headers["X-Robots-Tag"] == "noindex, nofollow" and reply.headers["Referrer-Policy"] == "no-referrer"
        for secret in ("欧阳", "13800138", booked.code, booked.code.replace("-", "")):
            assert secret not in reply.text
        return {row["UID"].partition("@")[0]: row for row in strictly(reply.content)}

    first = book(series=course)
    row = read(first)[online]
    assert (row["STATUS"], row["TRANSP"], row["SUMMARY"]) == ("CONFIRMED", "OPAQUE", "家长学校")
    assert "线上入口：https://meet.example/a?b=1\\,2\\;c" in row["DESCRIPTION"] and "您的名额：2" in row["DESCRIPTION"]
    assert row["CONFERENCE"] == "https://meet.example/a?b=1,2;c" and row["LOCATION"] == "进网络"
    assert set(read(first)) == {online, other}
    assert b"VALARM" in site.get(f"/v1/calendars/bookings/{first.feed}.ics").content
    assert b"VALARM" not in site.get(f"/v1/calendars/bookings/{first.feed}.ics?alarms=false").content
    public = strictly(site.get(f"/v1/calendars/courses/{course}.ics").content)
    assert {one["UID"] for one in public} == {f"{online}@xinqiao", f"{other}@xinqiao"}
    assert all("meet.example" not in str(one) for one in public)

    second = book("13800138001", session=online, wait=True)
    states, numbers = [], []

    def note() -> None:
        row = read(second)[online]
        states.append((row["STATUS"], row["SUMMARY"], "CONFERENCE" in row))
        numbers.append(int(row["SEQUENCE"]))

    note()
    waiting.leave(first.code, online)
    note()
    waiting.accept(second.code, online)
    note()
    waiting.leave(second.code, online)
    note()
    assert states == [
        ("TENTATIVE", "【候补中】家长学校", False),
        ("TENTATIVE", "【有名额，请回复】家长学校", False),
        ("CONFIRMED", "家长学校", True),
        ("CANCELLED", "【已取消】家长学校", False),
    ]
    assert numbers == sorted(set(numbers))
    assert read(first)[online]["STATUS"] == "CANCELLED" and read(first)[other]["STATUS"] == "CONFIRMED"

    invitation = courses.series(asked).invitation or ""
    wish = book(session=third, invitation=invitation)
    row = read(wish)[third]
    assert (row["STATUS"], row["SUMMARY"]) == ("TENTATIVE", "【待确认】家长学校") and "URL" not in row
    sessions.cancel_session(third, "ann")
    assert read(wish)[third]["STATUS"] == "CANCELLED"

    unknown = site.get(f"/v1/calendars/bookings/{'0' * 40}.ics")
    assert unknown.status_code == 404 and unknown.json()["code"] == "not_found"
    assert site.get(f"/v1/calendars/bookings/{first.code}.ics").status_code == 404  # the code is not the secret
    bookings.purge(begins.astimezone(UTC) + timedelta(days=60))
    assert site.get(f"/v1/calendars/bookings/{first.feed}.ics").status_code == 404  # erased: as if it had never been
    site.reader.up = False
    assert site.get(f"/v1/calendars/bookings/{wish.feed}.ics").status_code == 503
    site.reader.up = True

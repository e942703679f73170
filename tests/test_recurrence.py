"""Recurrence by RFC 5545: twenty schedules on which three calendar programs agree with us, and every rule against dateutil."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import icalendar
import pytest
import recurring_ical_events
from dateutil.rrule import rruleset, rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from content.checking import Check
from content.failures import Invalid
from content.recurrence import DAYS, MOST, _days, occurrences, parse

SHANGHAI, URUMQI, BERLIN = "Asia/Shanghai", "Asia/Urumqi", "Europe/Berlin"


def schedule(first: str, rule: str = "", zone: str = SHANGHAI, minutes: int = 90, **more: Any) -> dict[str, Any]:
    """Arguments of `occurrences`."""
    return {"first": first, "minutes": minutes, "zone": zone, "rule": rule, **more}


# name -> (schedule, how many occurrences, some local dates that are in it)
SCHEDULES: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "every second Friday of a term": (
        schedule("2026-09-04T19:00", "FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;UNTIL=20270115"), 10, ["2026-09-18", "2027-01-08"],
    ),
    "first Saturday of a month": (
        schedule("2026-09-05T14:00", "FREQ=MONTHLY;BYDAY=1SA;COUNT=10"), 10, ["2026-10-03", "2027-06-05"],
    ),
    "last working day of a month": (
        schedule("2026-09-30T16:30", "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1;COUNT=8"), 8, ["2026-10-30", "2027-04-30"],
    ),
    "weekly on two days without the holidays": (
        schedule("2026-09-01T19:00", "FREQ=WEEKLY;BYDAY=TU,TH;UNTIL=20261231",
                 excluded=["2026-10-01", "2026-10-06", "2026-10-08T19:00"]), 33, ["2026-09-03", "2026-12-31"],
    ),
    "two moved dates": (
        schedule("2026-09-02T19:00", "FREQ=WEEKLY;COUNT=8",
                 moved=[{"from": "2026-09-23", "to": "2026-09-24T18:30", "duration_minutes": 60},
                        {"from": "2026-10-07", "to": "2026-10-11"}]),
        8, ["2026-09-24", "2026-10-11"],
    ),
    "a moved date that passes its neighbour": (
        schedule("2026-09-02T19:00", "FREQ=WEEKLY;COUNT=4", moved=[{"from": "2026-09-09", "to": "2026-09-26"}]),
        4, ["2026-09-26"],
    ),
    "across New Year": (
        schedule("2026-12-18T23:30", "FREQ=WEEKLY;COUNT=5"), 5, ["2027-01-01", "2027-01-15"],
    ),
    "until that moment and no later": (
        schedule("2026-09-07T19:00", "FREQ=DAILY;UNTIL=20260911T110000Z"), 5, ["2026-09-11"],
    ),
    "until a second before it": (
        schedule("2026-09-07T19:00", "FREQ=DAILY;UNTIL=20260911T105959Z"), 4, ["2026-09-10"],
    ),
    "the count counts what is excluded": (
        schedule("2026-09-07T19:00", "FREQ=WEEKLY;COUNT=6", excluded=["2026-09-07", "2026-10-05"]), 4, ["2026-10-12"],
    ),
    "added dates": (
        schedule("2026-09-07T19:00", "FREQ=WEEKLY;COUNT=4", added=["2026-09-12", "2026-09-13T09:30"]), 6, ["2026-09-13"],
    ),
    "dates by hand": (
        schedule("2026-09-07T19:00", added=["2026-09-20", "2026-11-08T10:00"]), 3, ["2026-11-08"],
    ),
    "two hours later in the west": (
        schedule("2026-09-04T00:30", "FREQ=WEEKLY;BYDAY=FR;UNTIL=20261001T183000Z", URUMQI), 5, ["2026-10-02"],
    ),
    "over both changes of clocks": (
        schedule("2026-10-21T19:00", "FREQ=WEEKLY;INTERVAL=1;COUNT=25", BERLIN), 25, ["2026-10-28", "2027-04-07"],
    ),
    "weeks that begin on Monday": (
        schedule("2026-09-01T19:00", "FREQ=WEEKLY;INTERVAL=2;COUNT=6;BYDAY=TU,SU;WKST=MO"), 6, ["2026-09-06", "2026-09-20"],
    ),
    "weeks that begin on Sunday": (
        schedule("2026-09-01T19:00", "FREQ=WEEKLY;INTERVAL=2;COUNT=6;BYDAY=TU,SU;WKST=SU"), 6, ["2026-09-13", "2026-09-15"],
    ),
    "the last day of a month": (
        schedule("2026-09-30T19:00", "FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=7"), 7, ["2027-02-28", "2027-03-31"],
    ),
    "the 31st, where there is one": (
        schedule("2026-10-31T10:00", "FREQ=MONTHLY;COUNT=6"), 6, ["2027-05-31", "2026-12-31"],
    ),
    "the 13th when it is a Friday": (
        schedule("2026-11-13T10:00", "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13;COUNT=2"), 2, ["2027-08-13"],
    ),
    "every school day of two months": (
        schedule("2027-03-01T17:30", "FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR;BYMONTH=3,4;UNTIL=20270430"), 45, ["2027-04-30"],
    ),
    "the week of family education": (
        schedule("2027-05-10T19:00", "FREQ=YEARLY;BYMONTH=5;BYDAY=MO,TU;BYSETPOS=3,4;COUNT=4"), 4, ["2028-05-08"],
    ),
    "second and last Sunday": (
        schedule("2026-09-13T09:00", "FREQ=MONTHLY;BYDAY=2SU,-1SU;UNTIL=20270131"), 10, ["2026-09-27", "2027-01-31"],
    ),
    "a night of the year": (
        schedule("2026-12-31T23:00", "FREQ=YEARLY;COUNT=2", minutes=150), 2, ["2027-12-31"],
    ),
}  # fmt: skip

# where programs differ, and why: `test_where_a_program_is_wrong`
NIGHT = "a time that comes twice"
DISPUTED = {NIGHT: schedule("2026-10-24T02:30", "FREQ=DAILY;COUNT=3", BERLIN)}


def as_ics(name: str, one: dict[str, Any]) -> icalendar.Calendar:
    """The same schedule as a calendar file: what the RFC makes of our arguments, without our expansion."""
    zone, first = ZoneInfo(one["zone"]), datetime.fromisoformat(one["first"])
    lasts = timedelta(minutes=one["minutes"])

    def clock(text: str) -> datetime:
        day = datetime.fromisoformat(text)
        return (datetime.combine(day, first.time()) if len(text) == 10 else day).replace(tzinfo=zone)

    event = icalendar.Event()
    event.add("uid", name.replace(" ", "-"))
    event.add("summary", name)
    event.add("dtstamp", datetime(2026, 8, 1, tzinfo=UTC))
    event.add("dtstart", first.replace(tzinfo=zone))
    event.add("duration", lasts)
    if one["rule"]:
        parts = dict(piece.split("=") for piece in one["rule"].split(";"))
        if len(parts.get("UNTIL", "")) == 8:  # the RFC wants a moment in UTC
            last = datetime.strptime(parts["UNTIL"] + "235959", "%Y%m%d%H%M%S").replace(tzinfo=zone)
            parts["UNTIL"] = last.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        event.add("rrule", icalendar.vRecur.from_ical(";".join(f"{k}={v}" for k, v in parts.items())))
    for part, names in (("exdate", "excluded"), ("rdate", "added")):
        for text in one.get(names, ()):
            event.add(part, clock(text))
    calendar = icalendar.Calendar()
    calendar.add("prodid", "-//test//")
    calendar.add("version", "2.0")
    calendar.add_component(event)
    for row in one.get("moved", ()):
        override = icalendar.Event()
        for field in ("uid", "summary", "dtstamp"):
            override.add(field, event[field] if field != "dtstamp" else datetime(2026, 8, 1, tzinfo=UTC))
        override.add("recurrence-id", clock(row["from"]))
        override.add("dtstart", clock(row["to"]))
        override.add("duration", timedelta(minutes=row.get("duration_minutes", one["minutes"])))
        calendar.add_component(override)
    calendar.add_missing_timezones()
    return calendar


Times = list[tuple[str, str]]


def moments(pairs: Any) -> Times:
    """Starts and ends in UTC, in order."""
    return sorted(tuple(moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") for moment in pair) for pair in pairs)


def ours(one: dict[str, Any]) -> Times:
    return moments((o.starts_at, o.ends_at) for o in occurrences(**one))


def by_recurring_ical_events(ics: bytes) -> Times:
    found = recurring_ical_events.of(icalendar.Calendar.from_ical(ics)).between((2026, 1, 1), (2030, 1, 1))
    return moments((event.start, event.end) for event in found)


def by_dateutil(ics: bytes) -> Times:
    """dateutil's set of rules over the file's text, read line by line."""
    head, *overrides = icalendar.Calendar.from_ical(ics).walk("VEVENT")
    start, lasts, zone = head.start, head.duration, head.start.tzinfo
    dates = rruleset()
    if "RRULE" in head:
        dates.rrule(rrulestr(head["RRULE"].to_ical().decode(), dtstart=start))  # type: ignore[arg-type]
    else:
        dates.rdate(start)
    for day in head.rdates:
        dates.rdate(day[0])
    for day in head.exdates:
        dates.exdate(day)
    spans = dict.fromkeys(dates, lasts)
    for event in overrides:
        del spans[event["RECURRENCE-ID"].dt]
        spans[event.start] = event.duration
    return moments((when.astimezone(UTC), when.astimezone(UTC) + length) for when, length in spans.items() if zone)


@pytest.fixture(scope="module")
def khal(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Times]:
    """What khal lists of all schedules, by name: one process over a folder of its own, all times in UTC."""
    folder = tmp_path_factory.mktemp("khal")
    (folder / "vdir").mkdir()
    everything = {name: one for name, (one, _, _) in SCHEDULES.items()} | DISPUTED
    for n, (name, one) in enumerate(everything.items()):
        (folder / "vdir" / f"{n}.ics").write_bytes(as_ics(name, one).to_ical())
    (folder / "config").write_text(
        f"[calendars]\n[[term]]\npath = {folder}/vdir\n[sqlite]\npath = {folder}/khal.db\n[locale]\n"
        "local_timezone = UTC\ndefault_timezone = UTC\ntimeformat = %H:%M\ndateformat = %m-%d\nlongdateformat = %Y-%m-%d\n"
        "datetimeformat = %m-%d %H:%M\nlongdatetimeformat = %Y-%m-%dT%H:%M\n"
    )
    line = "{start-long-full}\t{end-long-full}\t{title}"
    asked = ["list", "--notstarted", "--day-format", "", "--format", line, "2026-08-25", "640d"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    run = subprocess.run(
        [sys.executable, "-m", "khal", "-c", str(folder / "config"), *asked],
        env={**os.environ, **home}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found: dict[str, Times] = {name: [] for name in everything}
    for row in run.stdout.splitlines():
        if row.strip():
            start, end, name = row.split("\t")
            found[name].append((start, end))
    return {name: sorted(times) for name, times in found.items()}


@pytest.mark.parametrize("name", SCHEDULES)
def test_three_calendar_programs_see_every_occurrence_as_we_do(name: str, khal: dict[str, Times]) -> None:
    one, count, some = SCHEDULES[name]
    found, ics = ours(one), as_ics(name, one).to_ical()
    assert len(found) == count
    local = {str(o.starts_at.date()) for o in occurrences(**one)}
    assert set(some) <= local
    assert by_recurring_ical_events(ics) == found
    assert by_dateutil(ics) == found
    assert khal[name] == found


def test_where_a_program_is_wrong(khal: dict[str, Times]) -> None:
    """A local time that comes twice is the first (RFC 5545, 3.3.5): khal takes the second, which is what pytz's `localize` does
    when nobody says. Minutes are elapsed time (3.3.6): recurring_ical_events adds them to the hands of the clock. BYDAY is one
    set (3.3.10): dateutil, and what is built on it, wants a day to be in both halves of "every Monday and the first Friday"."""
    night = DISPUTED[NIGHT]
    ics = as_ics(NIGHT, night).to_ical()
    assert ours(night)[1] == ("2026-10-25T00:30", "2026-10-25T02:00") == by_dateutil(ics)[1]
    assert by_recurring_ical_events(ics)[1] == ("2026-10-25T00:30", "2026-10-25T03:00")
    assert khal[NIGHT][1] == ("2026-10-25T01:30", "2026-10-25T03:00")
    both = occurrences("2027-03-01T19:00", 60, SHANGHAI, "FREQ=MONTHLY;BYDAY=MO,1FR;COUNT=7")
    assert [f"{one.recurrence_id:%m-%d}" for one in both] == ["03-01", "03-05", "03-08", "03-15", "03-22", "03-29", "04-02"]
    assert not list(rrulestr("FREQ=MONTHLY;BYDAY=MO,1FR", dtstart=datetime(9990, 1, 1)))  # noqa: DTZ001


def test_a_time_that_the_clocks_skip() -> None:
    """02:30 on the last Sunday of March is read with the offset before the gap: 03:30 summer time (3.3.5)."""
    found = occurrences("2027-03-27T02:30", 60, BERLIN, "FREQ=DAILY;COUNT=3")
    assert [one.starts_at.isoformat() for one in found] == [
        "2027-03-27T02:30:00+01:00", "2027-03-28T03:30:00+02:00", "2027-03-29T02:30:00+02:00",
    ]  # fmt: skip
    assert [one.recurrence_id.hour for one in found] == [2, 2, 2]
    assert {one.ends_at - one.starts_at for one in found} == {timedelta(hours=1)}
    over = occurrences("2027-03-28T01:30", 60, BERLIN)[0]
    assert over.ends_at.isoformat() == "2027-03-28T03:30:00+02:00"


@pytest.mark.parametrize(
    ("more", "field", "told"),
    [
        ({"rule": "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=31;COUNT=2"}, "rule", "no day within 2 years"),
        ({"rule": "FREQ=YEARLY;INTERVAL=9999;COUNT=2"}, "rule.COUNT", "only 1 until 2029-03-05"),
        ({"rule": "FREQ=YEARLY;INTERVAL=99999;COUNT=1"}, "rule.INTERVAL", "1-9999"),
        ({"rule": "FREQ=WEEKLY"}, "rule.COUNT", "Add COUNT=number or UNTIL=date"),
        ({"rule": "FREQ=WEEKLY;COUNT=3;UNTIL=20270401"}, "rule.UNTIL", "keep one"),
        ({"rule": "FREQ=WEEKLY;COUNT=3;COUNT=4"}, "rule.COUNT", "twice"),
        ({"rule": "FREQ=WEEKLY;UNTIL=20270230"}, "rule.UNTIL", "UNTIL=20270116"),
        ({"rule": "FREQ=WEEKLY;UNTIL=20270401T190000"}, "rule.UNTIL", "in UTC"),
        ({"rule": "FREQ=WEEKLY;UNTIL=20270304"}, "rule.UNTIL", "before the first"),
        ({"rule": "FREQ=WEEKLY;UNTIL=20300101"}, "rule.UNTIL", "2029-03-05 at the latest"),
        ({"rule": "FREQ=DAILY;UNTIL=20271231"}, "rule", "at most 200"),
        ({"rule": "FREQ=DAILY;COUNT=201"}, "rule.COUNT", "1-200"),
        ({"rule": "FREQ=HOURLY;COUNT=2"}, "rule.FREQ", "DAILY"),
        ({"rule": "COUNT=2"}, "rule.FREQ", "DAILY"),
        ({"rule": "FREQ=WEEKLY;COUNT=2;BYHOUR=3"}, "rule", "“BYHOUR=3” is not known"),
        ({"rule": "FREQ=WEEKLY;COUNT=2;BYDAY=2FR"}, "rule.BYDAY", "MONTHLY"),
        ({"rule": "FREQ=MONTHLY;COUNT=2;BYDAY=6FR"}, "rule.BYDAY", "±5"),
        ({"rule": "FREQ=MONTHLY;COUNT=2;BYDAY=FRI"}, "rule.BYDAY", "“FRI” is no weekday"),
        ({"rule": "FREQ=WEEKLY;COUNT=2;BYMONTHDAY=5"}, "rule.BYMONTHDAY", "FREQ=MONTHLY"),
        ({"rule": "FREQ=MONTHLY;COUNT=2;BYMONTHDAY=0"}, "rule.BYMONTHDAY", "1-31"),
        ({"rule": "FREQ=MONTHLY;COUNT=2;BYMONTH=13"}, "rule.BYMONTH", "1-12"),
        ({"rule": "FREQ=MONTHLY;COUNT=2;BYSETPOS=1"}, "rule.BYSETPOS", "BYDAY"),
        ({"rule": "FREQ=WEEKLY;COUNT=2;WKST=MONDAY"}, "rule.WKST", "MO"),
        ({"rule": "FREQ=WEEKLY;COUNT=2;BYDAY=SA"}, "first", "(FR) does not fit the rule; the next that does is 2027-03-06"),
        ({"rule": "x" * 501}, "rule", "500"),
        ({"rule": "每周五"}, "rule", "FREQ"),
        ({"first": "2027-03-05"}, "first", "2027-03-05T19:00"),
        ({"first": "2027-03-05T19:00+08:00"}, "first", "without an offset"),
        ({"first": "2027-02-30T19:00"}, "first", "2027-03-05T19:00"),
        ({"minutes": 0}, "duration_minutes", "1-4320"),
        ({"zone": "Mars/Base"}, "zone", "Asia/Shanghai"),
        ({"excluded": ["2027-03-13"]}, "excluded.0", "“2027-03-13” is no occurrence; the nearest is 2027-03-12 19:00"),
        ({"excluded": ["2027-03-12T18:00"]}, "excluded.0", "is no occurrence"),
        ({"excluded": ["2027-03-05", "2027-03-12", "2027-03-19"]}, "excluded", "nothing is left"),
        ({"added": ["2027-03-12"]}, "added.0", "an occurrence already"),
        ({"added": ["2027-03-01"]}, "added.0", "before the first"),
        ({"moved": [{"from": "2027-03-13", "to": "2027-03-14"}]}, "moved.0.from", "is no occurrence"),
        ({"moved": [{"from": "2027-03-12", "to": "2027-03-19"}]}, "moved", "both begin at 2027-03-19 19:00"),
        ({"moved": [{"from": "2027-03-12", "to": "2031-03-19"}]}, "moved.0.to", "too far"),
        ({"moved": [{"from": "2027-03-12", "to": "2027-03-13"}] * 2}, "moved.1.from", "moved twice"),
        ({"moved": [{"from": "2027-03-12", "to": "2027-03-13", "why": ""}]}, "moved.0.why", "not known"),
        ({"moved": [{"from": "2027-03-12", "to": "soon"}]}, "moved.0.to", "without an offset"),
        ({"excluded": ["2027-03-12"], "moved": [{"from": "2027-03-12", "to": "2027-03-13"}]}, "moved.0.from", "is no occurrence"),
        ({"added": ["2027-03-12T09:00"], "moved": [{"from": "2027-03-12", "to": "2027-03-13"}]}, "moved.0.from", "give the time"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_mend(more: dict[str, Any], field: str, told: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(Invalid) as failure:
        occurrences(**schedule("2027-03-05T19:00", "FREQ=WEEKLY;COUNT=3") | more)
    assert time.perf_counter() - begun < 1
    found = {error.field: error.messages for error in failure.value.errors}
    assert field in found and told in found[field]["en"], found
    assert found[field]["zh-Hans"] != found[field]["en"]


def test_all_faults_of_a_rule_come_at_once() -> None:
    check = Check()
    parse(check, "FREQ=WEEKLY;INTERVAL=0;BYDAY=XX,1MO;BYMONTH=0;WKST=1;COUNT=x;UNTIL=y")
    assert [error.field for error in check.errors] == [
        "rule.WKST", "rule.BYMONTH", "rule.INTERVAL", "rule.COUNT", "rule.UNTIL", "rule.BYDAY", "rule.BYDAY", "rule.UNTIL",
    ]  # fmt: skip


@st.composite
def rules(draw: st.DrawFn) -> tuple[datetime, str]:
    """A first start and a rule that may or may not fit it; ordinals and plain weekdays not mixed, for dateutil's sake."""
    first = draw(st.datetimes(datetime(2026, 1, 1), datetime(2028, 12, 31))).replace(second=0, microsecond=0)  # noqa: DTZ001
    freq = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = [f"FREQ={freq}", f"INTERVAL={draw(st.integers(1, 4))}", f"WKST={draw(st.sampled_from(DAYS))}"]
    if draw(st.booleans()):
        days = draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=4, unique=True))
        if freq in {"MONTHLY", "YEARLY"} and draw(st.booleans()):
            days = [f"{draw(st.sampled_from([1, 2, 5, -1, -2, -5]))}{day}" for day in days]
        parts.append("BYDAY=" + ",".join(dict.fromkeys(days)))
    if freq != "WEEKLY" and draw(st.booleans()):
        days = draw(st.lists(st.sampled_from([first.day, 1, 13, 29, 31, -1, -3]), min_size=1, max_size=3, unique=True))
        parts.append("BYMONTHDAY=" + ",".join(map(str, days)))
    if draw(st.integers(0, 3)) == 0:
        parts.append("BYMONTH=" + ",".join(map(str, draw(st.lists(st.integers(1, 12), min_size=1, max_size=5, unique=True)))))
    # dateutil counts the positions of a first week from the first start on, the RFC from the week's
    if len(parts) > 3 and freq in {"MONTHLY", "YEARLY"} and draw(st.integers(0, 2)) == 0:
        parts.append(
            "BYSETPOS="
            + ",".join(map(str, draw(st.lists(st.sampled_from([1, 2, 3, -1, -2]), min_size=1, max_size=2, unique=True))))
        )
    return first, ";".join(parts)


def fitting(rule: str, first: datetime) -> datetime | None:
    """The first start from `first` on that fits, if there is one within twelve years: dateutil walks to the year 9999."""
    parsed = parse(Check(), f"{rule};COUNT=1")
    assert parsed
    day = next(_days(parsed, first.date(), first.date() + timedelta(days=366 * 12)), None)
    return day and datetime.combine(day, first.time())


@given(rules(), st.integers(1, 60), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_rule_gives_what_dateutil_gives(drawn: tuple[datetime, str], days: int, moved: bool) -> None:
    """Also which first dates do not fit: those are refused."""
    first, rule = drawn
    if moved:
        first = fitting(rule, first) or first
    assume(fitting(rule, first))
    last = first + timedelta(days=days * 10)
    theirs = list(rrulestr(f"{rule};UNTIL={last:%Y%m%dT%H%M%S}", dtstart=first))
    try:
        found = occurrences(f"{first:%Y-%m-%dT%H:%M}", 60, "UTC", f"{rule};UNTIL={last:%Y%m%dT%H%M%SZ}")
    except Invalid as failure:
        told = str(failure)
        assert len(theirs) > MOST if "at most" in told else "fit" in told and first not in theirs
    else:
        assert [one.recurrence_id for one in found] == theirs


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_left_out_added_and_moved(data: st.DataObject) -> None:
    """Nothing comes or goes but what was named, and what is moved keeps its name."""
    plain = [one.recurrence_id for one in occurrences("2027-03-01T19:00", 60, BERLIN, "FREQ=DAILY;INTERVAL=2;COUNT=20")]
    gone = data.draw(st.lists(st.sampled_from(plain[1:]), max_size=5, unique=True))
    more = [plain[0] + timedelta(days=n) for n in data.draw(st.lists(st.sampled_from(range(1, 39, 2)), max_size=5, unique=True))]
    kept = sorted({*plain, *more} - set(gone))
    moves = {old: old.replace(hour=9) for old in data.draw(st.lists(st.sampled_from(kept), max_size=5, unique=True))}
    found = occurrences(
        "2027-03-01T19:00", 60, BERLIN, "FREQ=DAILY;INTERVAL=2;COUNT=20",
        [str(one.date()) for one in gone], [f"{one:%Y-%m-%d}" for one in more],
        [{"from": f"{old:%Y-%m-%d}", "to": f"{new:%Y-%m-%dT%H:%M}"} for old, new in moves.items()],
    )  # fmt: skip
    assert sorted(one.recurrence_id for one in found) == kept
    assert {one.recurrence_id: one.starts_at.replace(tzinfo=None) for one in found} == {old: moves.get(old, old) for old in kept}
    assert [one.starts_at for one in found] == sorted(one.starts_at for one in found)

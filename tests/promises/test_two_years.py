"""Promise 11 as a calendar: five districts, two years, and what their families were told on which day.

Five services run from 2026-09-01 to 2028-08-31 with everything that happens: dates confirmed early, late, moved and never, a
district of a city that keeps its own, drafts nobody approves, evenings without a worker, two notices on one day. What should have
gone out is worked out here once more, from the list of confirmed dates and in another way than the service does it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from content import divisions, staff, waking
from content.records import SYSTEM
from content.settings import Settings
from notifications import drafting, notices, seasons, told, topics
from notifications.notices import Notice
from tests.doubles.fake_fcm import FakeFcm
from tests.promises.report import Measured
from tests.promises.years import DAY, LATE, NOON, ZONE, Phone, Step, Year, calendar, fate, phones

BEGIN, END = date(2026, 9, 1), date(2028, 8, 31)
GENERAL = {"zh-Hans": {"title": "一件小事", "body": "周末有一场家长课堂。"}}
Span = tuple[date, date]


def step(day: str, code: str, year: int, span: str, division: str) -> Step:
    """ "2027-06-20..2027-06-22" confirmed (or corrected) on a day; "" takes it back."""
    first, _, last = span.partition("..")
    days = (date.fromisoformat(first), date.fromisoformat(last)) if span else None
    return Step(date.fromisoformat(day), division, code, year, days)


Row = tuple[str, str, int, str] | tuple[str, str, int, str, str]
"""On which day, season, year, its span ("" taken back); and of which division, when it is not the home."""


def steps(home: str, *others: Row, but: Sequence[tuple[str, int]] = ()) -> list[Step]:
    """What every district does in two years, but for some that it forgets, and what it does besides."""
    usual = [
        ("2026-11-10", "finals", 2027, "2027-01-11..2027-01-14"),
        ("2026-12-20", "winter_break", 2027, "2027-01-16..2027-02-27"),
        ("2027-03-08", "zhongkao", 2027, "2027-06-20..2027-06-22"),
        ("2027-05-10", "graduation", 2027, "2027-06-26..2027-06-28"),
        ("2027-06-01", "results", 2027, "2027-06-24..2027-07-05"),
        ("2027-06-10", "summer_break", 2027, "2027-07-08..2027-08-31"),
        ("2027-06-25", "enrolment", 2027, "2027-08-31..2027-09-02"),
        ("2027-06-25", "term_start", 2027, "2027-09-01..2027-09-03"),
        ("2027-11-20", "finals", 2028, "2028-01-10..2028-01-13"),
        ("2027-12-01", "winter_break", 2028, "2028-01-16..2028-02-27"),
        ("2028-03-06", "zhongkao", 2028, "2028-06-16..2028-06-18"),
        ("2028-05-08", "graduation", 2028, "2028-06-27..2028-06-29"),
        ("2028-06-05", "results", 2028, "2028-06-25..2028-07-05"),
        ("2028-06-12", "summer_break", 2028, "2028-07-08..2028-08-31"),
        ("2028-07-01", "enrolment", 2028, "2028-08-31..2028-09-02"),
        ("2028-07-01", "term_start", 2028, "2028-09-01..2028-09-03"),
    ]
    country = [  # past the known-until day; the sleep day and the school-safety day of 2028 are forgotten
        ("2028-03-15", "gaokao", 2028, "2028-06-07..2028-06-09"),
        ("2028-04-10", "mental_health_month", 2028, "2028-05-01..2028-05-31"),
        ("2028-04-10", "families_week", 2028, "2028-05-15..2028-05-21"),
        ("2028-05-22", "student_day", 2028, "2028-05-25..2028-05-25"),
        ("2028-05-22", "children_day", 2028, "2028-06-01..2028-06-01"),
    ]
    there = [step(*row, home) for row in usual if (row[1], row[2]) not in but]
    extra = [step(*row) if len(row) == 5 else step(*row, home) for row in others]
    return sorted([*there, *extra, *(step(*row, "") for row in country)], key=lambda one: one.day)


class District(NamedTuple):
    """One of the five."""

    home: str
    steps: list[Step]
    quiet: str = waking.USUAL
    served: tuple[str, ...] = ()
    forgetful: bool = False
    """Its worker is down on some evenings."""


FIVE = {
    "kangbashi": District("150603", steps(
        "150603", ("2027-06-05", "zhongkao", 2027, "2027-06-25..2027-06-27"),  # moved when the drafts are there
        ("2027-03-01", "sleep_day", 2027, "2027-03-19..2027-03-19"),  # as the World Sleep Society has it
        ("2027-10-20", "finals", 2028, "2027-12-21..2027-12-24"), ("2027-11-20", "winter_break", 2028, "2027-12-30..2028-02-25"),
        but=[("finals", 2028), ("winter_break", 2028)],
    ), served=("mn-Mong",)),
    "qianjiang": District("500114", steps(
        "500114", ("2027-05-25", "zhongkao", 2027, "2027-06-12..2027-06-14"),
        ("2027-05-28", "zhongkao", 2027, "2027-06-20..2027-06-22"),  # there and back
        ("2027-05-29", "gaokao", 2027, "2027-06-07..2027-06-08"), but=[("results", 2027), ("graduation", 2028)],
    ), forgetful=True),
    "wuhan": District("420100", steps(
        "420100", ("2027-05-25", "zhongkao", 2027, "2027-06-22..2027-06-23", "420111"),  # after the city's first notice
        ("2028-04-20", "zhongkao", 2028, "2028-06-19..2028-06-20", "420111"), ("2028-06-03", "zhongkao", 2028, "", "420111"),
        ("2027-06-20", "summer_break", 2027, "2027-07-01..2027-08-31", "420106"),
        ("2027-06-26", "summer_break", 2027, "2027-07-08..2027-08-31", "420106"),  # as the city's again
        ("2027-12-10", "finals", 2028, "2028-01-12..2028-01-15", "420112"),
    ), served=("en",)),
    "qingdao": District("370200", steps(
        "370200", ("2027-04-20", "zhongkao", 2027, "2027-06-13..2027-06-15"),
        ("2028-05-21", "zhongkao", 2028, "2028-06-13..2028-06-15"),  # too late for its first notice
        ("2027-08-20", "term_start", 2027, "2027-08-30..2027-09-01"),
        but=[("zhongkao", 2027), ("zhongkao", 2028), ("results", 2028), ("finals", 2028)],
    )),
    "pingliang": District("620800", steps(
        "620800", ("2027-06-10", "graduation", 2027, ""), ("2027-06-14", "graduation", 2027, "2027-06-29..2027-06-30"),
        but=[("winter_break", 2028), ("enrolment", 2027)],
    ), quiet="20:00-07:30", forgetful=True),
}  # fmt: skip


# --- what should happen, from the dates alone -------------------------------------------------------------------------

Known = dict[tuple[str, str, int], Span]
Told = tuple[str, int, int, str, frozenset[str]]
"""Season, year, lead, audience, and the smallest divisions that it covers."""


def leaves(code: str) -> frozenset[str]:
    """The smallest divisions of one."""
    below = divisions.children(code)
    return frozenset().union(*(leaves(one.code) for one in below)) if below else frozenset([code])


def known(plan: Sequence[Step], day: date) -> Known:
    """The confirmed dates on the evening of a day."""
    found: Known = {}
    for one in plan:
        if one.day <= day:
            found.pop((one.division, one.code, one.year), None)
            if one.span:
                found[one.division, one.code, one.year] = one.span
    return found


def dates(there: Known, code: str, year: int, place: str) -> Span | None:
    """A season's date for a place, when it is certain."""
    for where in (*divisions.lineage(place), ""):
        if (where, code, year) in there:
            return there[where, code, year]
    one = seasons.calendar().seasons[code]
    span = one.usual(year)
    return None if one.local or span[1] > date(2027, 12, 31) else span


def areas(there: Known, code: str, year: int, home: str) -> dict[frozenset[str], tuple[str, Span]]:
    """Who has which date: smallest divisions -> (whose date, span)."""
    own = {where for where, season, of in there if (season, of) == (code, year) and where not in ("", home)}
    rest = set(leaves(home))
    parts: dict[frozenset[str], tuple[str, Span]] = {}
    for place in own:
        if dates(there, code, year, place) != dates(there, code, year, home):
            parts[leaves(place)] = (place, there[place, code, year])
            rest -= leaves(place)
    if (span := dates(there, code, year, home)) is not None:
        parts[frozenset(rest)] = (home, span)
    return parts


def day_of(span: Span, lead: int) -> date:
    """Of a notice."""
    return span[lead > 0] + timedelta(days=lead)


class Wanted(NamedTuple):
    """A notice that the calendar asks for."""

    what: Told
    day: date
    goes: date | None
    """The local day on which it goes out; None: nobody approves it in time, or it is worth nothing by then."""
    unapproved: bool
    """Nobody approves it, ever."""


def expected(district: District, away: dict[date, time], begin: date, end: date) -> Iterator[Wanted]:
    """All that should have happened, in the order of days."""
    days = [begin + timedelta(days=n) for n in range((end - begin).days + 1)]
    there = {day: known(district.steps, day) for day in [begin - DAY, *days]}
    heard: dict[tuple[str, int, int, str], set[str]] = defaultdict(set)
    for day in days:
        for code, season in seasons.calendar().seasons.items():
            for year, lead in ((y, n) for y in (day.year - 1, day.year, day.year + 1) for n in season.lead_days):
                for who, (place, span) in areas(there[day], code, year, district.home).items():
                    if day_of(span, lead) != day:
                        continue
                    since, earliest = day, max(begin, day - drafting.AHEAD)  # since when the draft is there, as it is on its day
                    while since > earliest and areas(there[since - DAY], code, year, district.home).get(who) == (place, span):
                        since -= DAY
                    later = [n for n in season.lead_days if n > lead]
                    until = day_of(span, later[0]) if later else max(span[1], day + 2 * DAY) + DAY
                    for audience in season.audiences:
                        left = who - heard[code, year, lead, audience]
                        what = fate(code, year, lead, audience, place)
                        goes = day if day not in away else day + DAY
                        ready = what.approved is not None and since + timedelta(days=what.approved) <= day and goes < until
                        if left:
                            told_now = (code, year, lead, audience, frozenset(left))
                            yield Wanted(told_now, day, goes if ready else None, what.approved is None)
                        if ready:
                            heard[code, year, lead, audience] |= left


def expected_asks(district: District, begin: date, end: date) -> dict[tuple[str, int, int], date]:
    """(season, year, 60 or 30) -> the local day on which staff are asked."""
    found: dict[tuple[str, int, int], date] = {}
    for day in (begin + timedelta(days=n) for n in range((end - begin).days + 1)):
        for there in (known(district.steps, day - DAY), known(district.steps, day)):
            for code, season in seasons.calendar().seasons.items():
                for year in (day.year - 1, day.year, day.year + 1):
                    usual = season.usual(year)
                    if season.lead_days and dates(there, code, year, district.home) is None and usual[1] >= day:
                        left = (day_of(usual, season.lead_days[0]) - day).days
                        if left <= 60:
                            found.setdefault((code, year, 60 if left > 30 else 30), day)
    return found


# --- the run and its checks -------------------------------------------------------------------------------------------


def two() -> tuple[str, str]:
    """Two independent colleagues."""
    made = [staff.create_account(name, name, "correct horse battery", SYSTEM, must_change=False) for name in ("anna", "bold")]
    return made[0].id, made[1].id


def away(district: District, begin: date, end: date) -> dict[date, time]:
    """Evenings without a worker, never before a day on which a date is changed."""
    busy = {one.day - DAY for one in district.steps}
    days = [begin + timedelta(days=n) for n in range(3, (end - begin).days, 11)] if district.forgetful else []
    return {day: (LATE, NOON)[number % 2] for number, day in enumerate(days) if day not in busy}


def general(year: Year, send_at: datetime) -> None:
    """A notice that staff set for a bad moment."""
    anna, bold = year.people
    began = datetime.combine(BEGIN, time(), ZONE)
    fields = {
        "audiences": ["parent"],
        "divisions": [year.settings.division],
        "texts": GENERAL,
        "send_at": send_at.astimezone(UTC),
    }
    made = notices.draft({**fields, "expires_at": send_at.astimezone(UTC) + 3 * DAY}, anna, year.settings, began)
    notices.approve(made.id, bold, began)
    notices.schedule(made.id, anna, year.settings, began)


def check(year: Year, district: District, families: list[Phone], begin: date, end: date) -> str:
    """Everything that the promise says; returns the figures."""
    wanted = list(expected(district, year.away, begin, end))
    rows = [Notice.of(raw) for raw in Notice.rows().find({"kind": "season"})]
    named = {notice.id: notice for notice in map(Notice.of, Notice.rows().find({}))}
    home, tags = district.home, {"zh-Hans", "en", *district.served}

    # every one that should have gone out did so once, to exactly its topics, on its day; and nothing else did
    def told_as(notice: Notice) -> Told:
        who = frozenset().union(*(leaves(code) for code in notice.divisions))
        return notice.season, notice.year, notice.lead, notice.audiences[0], who

    sent = [notice for notice in rows if notice.state == "sent"]
    assert Counter(map(told_as, sent)) == Counter(one.what for one in wanted if one.goes and one.goes <= end)
    goes_on = {one.what: one.goes for one in wanted}
    for notice in sent:
        what = told_as(notice)
        codes = [home] if what[4] == leaves(home) else sorted(what[4])
        stages = seasons.calendar().seasons[notice.season].stages or ("",)
        to = [topics.Segment(code, notice.audiences[0], stage, tag) for code in codes for stage in stages for tag in tags]
        assert sorted(row.topic for row in notice.results) == sorted(map(topics.name, to)), what
        assert {row.outcome for row in notice.results} <= {"sent", "inbox_only"}
        assert {row.at.astimezone(ZONE).date() for row in notice.results} == {goes_on[what]}, what

    # those that nobody approved in time say so, and whatever was not sent has ended with its reason
    ended = [(notice, notice.send_at.astimezone(ZONE).date()) for notice in rows if notice.state != "sent"]
    assert all(notice.state in ("expired", "cancelled") and notice.reason for notice, day in ended if day < end)
    said = {(told_as(notice), day) for notice, day in ended if notice.reason == "not_approved"}
    assert {(one.what, one.day) for one in wanted if one.unapproved and one.day < end} <= said

    # no push in the quiet hours, within a sitting or in a crowded minute; FCM was asked once for each target of a notice
    quiet_from, quiet_to = waking.parsed(district.quiet)
    for at, message in year.pushes:
        local = at.astimezone(ZONE)
        assert not (local.time() >= quiet_from or local.time() < quiet_to), local
        assert 2 < local.minute % 15 < 13, local
        there = known(district.steps, local.date() - DAY)
        exams = [dates(there, "zhongkao", local.year, where) for where in (home, *(leaves(home) & {"420111"}))]
        exams += [dates(there, "gaokao", local.year, home) or (date(local.year, 6, 7), date(local.year, 6, 9))]  # by law
        sits = any(span and span[0] <= local.date() <= span[1] for span in exams)
        assert not (sits and time(8, 30) <= local.time() < time(18)), (local, message)
    asked_of_fcm = Counter((m["data"]["notice"], m.get("topic") or m["condition"]) for _, m in year.pushes)
    assert set(asked_of_fcm.values()) == {1}

    # staff were asked at 60 and at 30 days, once
    asks = {(r["code"], r["year"], r["stage"]): r["at"].astimezone(ZONE).date() for r in drafting.SeasonAsk.rows().find({})}
    assert asks == expected_asks(district, begin, end)

    # no phone was called twice on a day, nor by a campaign that it was done with
    silent = 0
    for phone in families:
        a_day: dict[date, set[str]] = defaultdict(set)
        for at, key in phone.heard:
            a_day[at.astimezone(ZONE).date()].add(key)
            campaign = named[key].left_by_done
            assert not (campaign in phone.done and at > phone.done[campaign]), (phone.name, campaign)
        assert max(map(len, a_day.values()), default=0) <= 1, phone.name
        for notice in sent:
            on = notice.results[0].at.astimezone(ZONE).date()
            if phone.topics & set(notice.topics()) and notice.left_by_done not in phone.done:
                silent += not a_day[on]
    states = Counter(notice.state for notice in rows)
    pushed = sum(any(row.outcome == "sent" for row in notice.results) for notice in sent)
    heard = sum(len({key for _, key in phone.heard}) for phone in families)
    return (
        f"{divisions.get(home).name}: {states['sent']} season notices sent, each once on its day ({pushed} pushed, "
        f"{len(sent) - pushed} only in the inbox), {states['expired']} expired and said why, {states['cancelled']} called off, "
        f"{len(asks)} asks; {len(year.pushes)} pushes, 0 in quiet hours, 0 in a sitting; {len(families)} phones heard {heard}, "
        f"at most one a day; {silent} times an inbox alone though the phone was quiet that day"
    )


def simulate(district: District, settings: Settings, begin: date, end: date, families: int) -> tuple[Year, list[Phone]]:
    """Run it in the empty database."""
    here = replace(settings, division=district.home, quiet=district.quiet, zone="Asia/Shanghai")
    waking.configure(district.quiet)
    homes = phones(sorted(leaves(district.home)), ["zh-Hans", "zh-Hans", "en", *district.served], families)
    with FakeFcm() as fcm:
        near, down = replace(here, fcm_url=fcm.url), away(district, begin, end)
        year = Year(near, fcm, two(), district.steps, homes, down, district.served)
        for day, at in (("2027-06-08", time(9, 20)), ("2027-06-17", time(22, 10)), ("2028-03-03", time(22, 10))):
            if begin <= date.fromisoformat(day) <= end:
                general(year, datetime.combine(date.fromisoformat(day), at, ZONE))
        year.run(begin, end)
    return year, homes


@pytest.fixture(autouse=True)
def _as_usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The database deletes by its own clock what the hand's clock still needs; and the quiet hours are a fact of the process."""
    monkeypatch.setattr(told, "KEEP", timedelta(days=3650))
    yield
    waking.configure(waking.USUAL)


def test_the_exam_weeks_of_a_district(clean: None, settings: Settings, measured: Measured) -> None:
    begin, end = date(2027, 6, 4), date(2027, 6, 10)
    year, families = simulate(FIVE["kangbashi"], settings, begin, end, 20)
    figures = check(year, FIVE["kangbashi"], families, begin, end)
    measured(11, f"{begin}..{end}, {figures}")


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
def test_two_years_of_a_district(name: str, clean: None, settings: Settings, measured: Measured, tmp_path: Path) -> None:
    district = FIVE[name]
    year, families = simulate(district, settings, BEGIN, END, 60)
    page = tmp_path / f"{name}.txt"
    page.write_text("\n".join(calendar(district.home)) + "\n", encoding="utf-8")
    measured(11, f"two years, {check(year, district, families, BEGIN, END)}; calendar in {page}")

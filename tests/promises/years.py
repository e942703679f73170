"""A district's years on a clock in the hand: its staff, its worker, the phones of its families, and the calendar that comes out.

`Year.run` walks the local days: at each moment the calendar drafts, people act, the outbox sweeps and sends to a local FCM over
HTTP. What reached which phone is read from the conditions of the messages, as FCM reads them. Nothing here knows what should
have happened: that is `test_two_years`.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from content import divisions, published, store
from content.published import Item
from content.settings import Settings
from content.vocabulary import SEASONS
from notifications import conditions, drafting, notices, outbox, seasons, topics
from notifications.notices import Notice
from tests.doubles.fake_fcm import FakeFcm

ZONE = ZoneInfo("Asia/Shanghai")
NIGHT, NOON, STAFF, MEND, EVENING, LATE = time(0, 10), time(12, 4), time(12, 6), time(12, 5), time(18, 37), time(21, 40)
MOMENTS = (NIGHT, time(7, 3), time(8, 3), NOON, time(18, 4), EVENING, time(19, 3), LATE)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Step:
    """What staff do with a season's date, at noon of `day`; without a span they take it back."""

    day: date
    division: str
    code: str
    year: int
    span: tuple[date, date] | None


@dataclass(frozen=True)
class Fate:
    """How soon after a draft is there somebody saves it and another approves it, in days; None: never."""

    saved: int | None
    approved: int | None


def fate(code: str, year: int, lead: int, audience: str, division: str) -> Fate:
    """Always the same for the same notice: one in nine is not even saved, one in nine saved and not approved."""
    number = zlib.crc32(f"{code}.{year}.{lead}.{audience}.{division}".encode())
    days = number // 9 % 4
    return {0: Fate(None, None), 1: Fate(days, None)}.get(number % 9, Fate(days // 2, days))


@dataclass
class Phone:
    """One family's phone: what it has subscribed to, and what it heard, as (when, notice)."""

    name: str
    topics: frozenset[str]
    quick: bool
    """Does at once what a notice asks for."""
    heard: list[tuple[datetime, str]] = field(default_factory=list)
    done: dict[str, datetime] = field(default_factory=dict)
    """Campaigns that it is done with, since when."""


def phones(places: Sequence[str], tags: Sequence[str], many: int) -> list[Phone]:
    """Families and their children: one child or two, in any of the places and languages; some teachers."""
    stages = ["junior.9.final", "senior.12.final", "primary.3", "junior.7.entering", "senior.10", "preschool", "primary.6.final",
              "vocational.final", "primary.1.entering", "junior.8", "university.entering"]  # fmt: skip
    found = []
    for number in range(many):
        place, tag = places[number % len(places)], tags[number % len(tags)]
        children = [stages[number % len(stages)], *([stages[(number * 7 + 3) % len(stages)]] if number % 3 == 0 else [])]
        audience = "teacher" if number % 15 == 14 else "student" if number % 4 == 1 else "parent"
        own = children[:1] if audience == "student" else children
        names = [name for stage in own for name in topics.for_phone(place, audience, stage, tag)]
        found.append(Phone(f"{audience} {place} {'+'.join(own)} {tag}", frozenset(names), number % 8 == 5))
    return found


class Year:
    """A service of one district, its database empty at the start."""

    def __init__(
        self,
        settings: Settings,
        fcm: FakeFcm,
        people: tuple[str, str],
        steps: Sequence[Step],
        families: Sequence[Phone] = (),
        away: dict[date, time] | None = None,
        served: Sequence[str] = (),
    ) -> None:
        self.settings, self.fcm, self.people, self.steps, self.families = settings, fcm, people, steps, families
        self.away = away or {}
        """Evenings on which no worker runs: until LATE of that day, or NOON of the next one."""
        self.now = datetime(2000, 1, 1, tzinfo=UTC)
        self.first_seen: dict[str, date] = {}
        self.pushes: list[tuple[datetime, dict[str, Any]]] = []
        """(moment, message) of all that FCM took."""
        self.ticks = self.sweeps = 0
        self.open = self.drafted = False
        """Whether anything may leave on this day, and whether there is anything to read."""
        if served:  # a lesson in a language: phones can be subscribed in it
            lessons = [Item("lesson", f"in-{tag}", tag, {"slug": f"in-{tag}"}) for tag in served]
            store.transaction(lambda session: published.release(session, lessons))

    def clock(self) -> datetime:
        """The moment in the hand."""
        return self.now

    def pause(self, seconds: float) -> None:
        """Time passes between two messages, and nobody waits for it."""
        self.now += timedelta(seconds=seconds)

    def run(self, first: date, last: date) -> None:
        """Every local day from first to last, both included; what staff did with dates before is done."""
        for step in (one for one in self.steps if one.day < first):
            self._confirm(step)
        day, asleep_until = first, datetime.combine(first, time(), ZONE)
        while day <= last:
            if day in self.away:
                until = self.away[day]
                asleep_until = datetime.combine(day if until == LATE else day + DAY, until, ZONE)
                asleep_from = datetime.combine(day, time(18, 30), ZONE)
            todo = [step for step in self.steps if step.day == day]
            for at in sorted({*MOMENTS, *([MEND] if todo or day - DAY in self.away else []), STAFF}):
                moment = datetime.combine(day, at, ZONE)
                if self.away and moment < asleep_until and moment >= asleep_from:
                    continue
                self.now = moment.astimezone(UTC)
                self._at(day, at, todo)
            day += DAY

    def _at(self, day: date, at: time, todo: Sequence[Step]) -> None:
        if at == NOON:
            for step in todo:
                self._confirm(step)
        if at in (NIGHT, MEND):
            self.ticks += 1
            drafting.tick(self.now, self.settings)
        if at == STAFF:
            if self.drafted:
                self._staff(day)
            return
        waits: list[Notice] = []
        if at in (NIGHT, MEND):
            waits = [Notice.of(raw) for raw in Notice.rows().find({"state": {"$in": list(notices.OPEN)}})]
            self.open = any(one.state in ("scheduled", "due") and one.send_at < self.now + DAY for one in waits)
            self.drafted = any(one.state == "drafted" for one in waits)
        if self.open or (waits and at == NIGHT):  # a sweep that finds nothing is not worth its time
            self.sweeps += 1
            if outbox.sweep(self.now, self.settings):
                outbox.fan_out(self.settings, self.clock, self.pause)
                self._deliver()

    def _confirm(self, step: Step) -> None:
        by = self.people[0]
        raw = seasons.SeasonDate.rows().find_one({"division": step.division, "code": step.code, "year": step.year})
        if step.span is None:
            assert raw
            seasons.withdraw(raw["_id"], by)
        elif raw:
            seasons.correct(raw["_id"], *step.span, by)
        else:
            seasons.confirm(step.division, step.code, *step.span, by, step.year)

    def _staff(self, day: date) -> None:
        anna, bold = self.people
        for raw in list(Notice.rows().find({"state": "drafted", "kind": "season"})):
            notice = Notice.of(raw)
            since = (day - self.first_seen.setdefault(notice.id, day)).days
            what = fate(notice.season, notice.year, notice.lead, notice.audiences[0], notice.dated_by)
            if what.saved is not None and since >= what.saved and not notice.authors:
                notices.edit(notice.id, {}, anna, self.settings, self.now)
            if what.approved is not None and since >= what.approved:
                notices.approve(notice.id, bold, self.now)
                self.open = self.open or notice.send_at < self.now + DAY

    def _deliver(self) -> None:
        for seen in self.fcm.sends():
            assert seen.outcome == "accepted", seen
            self.pushes.append((self.now, seen.message))
            for phone in self.families:
                if conditions.reaches(seen.message, phone.topics | set(map(topics.done, phone.done))):
                    phone.heard.append((self.now, seen.message["data"]["notice"]))
        self.fcm.clear()
        for phone in self.families:
            if phone.quick and phone.heard and phone.heard[-1][0] == self.now:
                notice = notices.get(phone.heard[-1][1])
                if notice.done_when.get("slug"):
                    phone.done.setdefault(notice.campaign, self.now)


def text(notice: Notice) -> str:
    """What happened to it, for the calendar."""
    rows = [row for row in notice.results if row.outcome == "sent"]
    told = min((row.at for row in notice.results), default=None)
    if notice.state == "sent" and told:
        local = told.astimezone(ZONE)
        only = sum(row.outcome == "inbox_only" for row in notice.results)
        where = "发出" if rows else "只进收件箱"
        return f"{where} {local:%m-%d %H:%M}" + (f"（{only}个主题只进收件箱）" if rows and only else "")
    words = {"expired": "过期未发", "cancelled": "撤下"}
    return f"{words.get(notice.state, notice.state)}：{notice.reason}"


def calendar(home: str) -> Iterator[str]:
    """The calendar as a table, one line a notice or an ask, in order of local days."""
    name = divisions.get(home).name
    lines = []
    for notice in map(Notice.of, Notice.rows().find({})):
        on = notice.send_at.astimezone(ZONE)
        codes = notice.divisions or [home]
        where = name if codes == [home] else divisions.get(codes[0]).name + (f"等{len(codes)}地" if codes[1:] else "")
        season = SEASONS[notice.season].zh if notice.season else "（一般通知）"
        lead = "" if notice.lead is None else f"{notice.lead:+d}"
        words = notice.texts["zh-Hans"]
        row = (f"{on:%Y-%m-%d %a %H:%M}", where, season, lead, notice.audiences[0], "/".join(notice.stages), words["title"],
               text(notice), words["body"][:40])  # fmt: skip
        lines.append((on.date(), row))
    for raw in drafting.SeasonAsk.rows().find({}):
        on = raw["at"].astimezone(ZONE)
        row = (f"{on:%Y-%m-%d %a %H:%M}", name, SEASONS[raw["code"]].zh, "", "staff", "", f"{raw['year']} 年的日期还没有人确认",
               f"催问（提前{raw['stage']}天）", "")  # fmt: skip
        lines.append((on.date(), row))
    for _, group in itertools.groupby(sorted(lines), key=lambda one: one[0]):
        for _, row in group:
            yield " | ".join(row)

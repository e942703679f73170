"""Recurrence by RFC 5545: a first date and time, a rule, dates left out, added and moved → every occurrence.

What is promised is little on purpose: days only (FREQ DAILY, WEEKLY, MONTHLY, YEARLY; no BYHOUR and the like), an end that is
said (COUNT or UNTIL), at most MOST occurrences within YEARS years. So nothing here loops without end, whatever the rule:
`_days` walks the periods of two years, 731 steps of FREQ=DAILY at most, where dateutil goes on to the year 9999 for a rule
that no date fits, and takes BYDAY=MO,1FR as "Mondays that are the first Friday". dateutil is what the tests compare with.

The first date counts as the first occurrence, and it must fit the rule: of one that does not RFC 5545 (3.8.5.3) says that "the
recurrence set is undefined", and calendar programs differ (some show it, some do not), so it is refused, with the nearest
date that fits.
"""

import re
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from content.checking import Check
from content.failures import Text

MOST = 200  # occurrences; a school year of one every day has 200
YEARS = 2
LONGEST = 3 * 24 * 60  # minutes; a session lasts three days at most
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
LISTS = {"BYMONTH": 12, "BYMONTHDAY": 31, "BYSETPOS": 366}  # part -> the greatest number; but for BYMONTH also from the end
PARTS = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", *LISTS, "WKST")
_WEEKDAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_UNTIL = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)Z)?", re.ASCII)
_CLOCK = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::00)?)?", re.ASCII)


class Occurrence(NamedTuple):
    """One date of the series. `recurrence_id` is the local start that rule or list gave it, without a zone, which a move does
    not change (RFC 5545, RECURRENCE-ID); the other two are aware, in the zone asked for."""

    recurrence_id: datetime
    starts_at: datetime
    ends_at: datetime


class Rule(NamedTuple):
    """A parsed RRULE. Weekdays are numbers from Monday 0; `byday` has (ordinal, weekday), ordinal 0 for every one."""

    freq: str
    interval: int = 1
    times: int | None = None
    """COUNT."""
    until: date | datetime | None = None
    """A local date, included to its end, or a moment in UTC."""
    byday: tuple[tuple[int, int], ...] = ()
    bymonthday: tuple[int, ...] = ()
    bymonth: tuple[int, ...] = ()
    bysetpos: tuple[int, ...] = ()
    wkst: int = 0


def occurrences(
    first: str | datetime,
    minutes: int,
    zone: str,
    rule: str = "",
    excluded: Sequence[str | date] = (),
    added: Sequence[str | date] = (),
    moved: Sequence[Mapping[str, Any]] = (),
) -> list[Occurrence]:
    """Every occurrence, in order of time.

    `first`: local start, "2027-03-05T19:00". `minutes`: how long each lasts, in elapsed time, also over a change of clocks
    (3.3.6). `rule`: an RRULE's value; "" for the first date alone. COUNT counts before anything is excluded. `UNTIL` is a
    moment in UTC as the RFC wants it, or a date, which counts to its end in `zone`. `excluded` and `added` hold local
    dates (an excluded date takes all of that day, an added one begins when the first does) or local date-times. `moved`:
    {"from": local start, "to": local start, "duration_minutes": optional}, by date alone where that is enough.

    A local time that comes twice is the earlier, one that is skipped is read with the offset before the gap (3.3.5): 02:30
    becomes 03:30. Raises `Invalid` with every fault; nothing is guessed, nothing that names no occurrence is passed over.
    """
    check = Check()
    known = _zone(check, zone)
    begin = _clock(check, "first", first, None)
    if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= LONGEST:
        check.fail("duration_minutes", "out_of_range", reason=f"1-{LONGEST}")
    parsed = parse(check, rule)
    check.done()
    assert begin and known
    horizon = begin.date() + timedelta(days=YEARS * 365 + 1)
    starts = _starts(check, parsed, begin, horizon, known)
    check.done()

    for n, one in enumerate(check.rows("added", added, MOST)):
        field, extra = f"added.{n}", _clock(check, f"added.{n}", one, begin.time())
        if extra and not begin <= extra <= datetime.combine(horizon, time.max):
            _fail(check, field, f"{extra:%F} 早于第一场或晚于 {horizon}。", f"{extra:%F} is before the first or after {horizon}.")
        elif extra in starts:
            _fail(check, field, f"{extra:%F %R} 本来就有一场，请删去。", f"{extra:%F %R} is an occurrence already; leave it out.")
        elif extra:
            starts.add(extra)
    check.done()
    gone = {
        found
        for n, one in enumerate(check.rows("excluded", excluded, 400))
        for found in _named(check, f"excluded.{n}", one, starts)
    }
    starts -= gone
    if not starts and not check.errors:
        _fail(check, "excluded", "一场也不剩。请少排除一些。", "nothing is left. Exclude less.")
    if len(starts) > MOST:
        _fail(
            check,
            "rule",
            f"共 {len(starts)} 场，一次最多 {MOST} 场。",
            f"it gives {len(starts)} occurrences, at most {MOST} at once.",
        )
    found = {start: Occurrence(start, *_span(start, minutes, known)) for start in starts}
    _move(check, moved, found, begin, horizon, minutes, known)
    check.done()
    return sorted(found.values(), key=lambda one: (one.starts_at, one.recurrence_id))


def _fail(check: Check, field: str, zh: str, en: str) -> None:
    check.fail(field, "bad_recurrence", zh=zh, en=en)


def _zone(check: Check, name: str) -> ZoneInfo | None:
    if not name:
        check.fail("zone", "required")
        return None
    return ZoneInfo(check.zone("zone", name))


def _clock(check: Check, field: str, value: Any, at: time | None) -> datetime | None:
    """A local date-time to the minute; a date begins at `at`, without which it is not enough."""
    if isinstance(value, date):
        value = value.isoformat()
    form = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    try:
        if form and (form[2] or at is not None):
            day, clock = date.fromisoformat(form[1]), time.fromisoformat(form[2]) if form[2] else at
            if 2000 <= day.year <= 2200 and clock is not None:
                return datetime.combine(day, clock)
    except ValueError:  # 30 February, 25:00
        pass
    example = "2027-03-05T19:00" if at is None else "2027-03-05, 2027-03-05T19:00"
    _fail(
        check,
        field,
        f"请写当地日期和时间，不带时差，如 {example}。",
        f"write the local date and time without an offset, such as {example}.",
    )
    return None


def _named(check: Check, field: str, value: Any, starts: set[datetime]) -> set[datetime]:
    """The occurrences that a local date, or date-time, names; an error when none."""
    given = _clock(check, field, value, time())
    if given is None or not starts:  # that nothing is left has been said
        return set()
    whole = len(value) == 10 if isinstance(value, str) else not isinstance(value, datetime)
    found = {one for one in starts if (one.date() == given.date() if whole else one == given)}
    if not found:
        near = min(starts, key=lambda one: abs(one - given))
        _fail(
            check, field, f"“{value}”没有课，最近的一场是 {near:%F %R}。请核对。",
            f"“{value}” is no occurrence; the nearest is {near:%F %R}. Check it.",
        )  # fmt: skip
    return found


def _span(start: datetime, minutes: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
    # by way of UTC: a wall-clock time in a gap has no sum, and Python would add minutes to the hands of the clock
    begins = start.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return begins.astimezone(zone), (begins + timedelta(minutes=minutes)).astimezone(zone)


def _move(
    check: Check,
    moved: Sequence[Mapping[str, Any]],
    found: dict[datetime, Occurrence],
    begin: datetime,
    horizon: date,
    minutes: int,
    zone: ZoneInfo,
) -> None:
    """Give the moved occurrences of `found` their new times."""
    done: set[datetime] = set()
    for n, row in enumerate(check.rows("moved", moved, MOST)):
        field = f"moved.{n}"
        if not isinstance(row, Mapping):
            check.fail(field, "wrong_type", reason="{from, to}")
            continue
        check.fields(
            {f"{field}.{name}": None for name in row}, {f"{field}.{name}" for name in ("from", "to", "duration_minutes")}
        )
        named = _named(check, f"{field}.from", row.get("from"), set(found))
        if len(named) > 1:
            _fail(check, f"{field}.from", "这一天不止一场，请写明时间。", "that day has more than one; give the time too.")
        old = min(named, default=None)
        new = _clock(check, f"{field}.to", row.get("to"), old.time() if old else time())
        lasts = check.whole(f"{field}.duration_minutes", row.get("duration_minutes"), 1, LONGEST) or minutes
        if new and not begin.date() - timedelta(days=366) <= new.date() <= horizon:
            _fail(check, f"{field}.to", f"{new:%F %R} 离第一场太远。", f"{new:%F %R} is too far from the first.")
        elif old and old in done:
            _fail(check, f"{field}.from", f"{old:%F %R} 已经改过一次。", f"{old:%F %R} is moved twice.")
        elif old and new:
            done.add(old)
            found[old] = Occurrence(old, *_span(new, lasts, zone))
    taken: dict[datetime, datetime] = {}
    for one in found.values():
        first = taken.setdefault(one.starts_at, one.recurrence_id)
        if first != one.recurrence_id:
            at = one.starts_at.replace(tzinfo=None)
            _fail(
                check,
                "moved",
                f"{first:%F %R} 与 {one.recurrence_id:%F %R} 同在 {at:%F %R} 开始。",
                f"{first:%F %R} and {one.recurrence_id:%F %R} both begin at {at:%F %R}.",
            )


# --- the rule --------------------------------------------------------------------------------------------------------


def parse(check: Check, text: str) -> Rule | None:
    """An RRULE's value as numbers; None for "". Notes in `check` every fault, by part: "rule.BYDAY"."""
    if not isinstance(text, str) or len(text) > 500:
        check.fail("rule", "out_of_range", reason=Text("请填文字，最多 500 个字符", "a text of at most 500 characters"))
        return None
    text = text.strip().upper().removeprefix("RRULE:").strip().removesuffix(";")
    if not text:
        return None
    given: dict[str, str] = {}
    for piece in text.split(";"):
        name, equals, value = piece.partition("=")
        if name not in PARTS or not equals:
            choices = ", ".join(PARTS)
            _fail(
                check,
                "rule",
                f"不认识“{piece[:40]}”，可用：{choices}。",
                f"“{piece[:40]}” is not known here; there are {choices}.",
            )
        elif name in given:
            _fail(check, f"rule.{name}", "写了两次。", "it stands twice.")
        else:
            given[name] = value
    freq = given.get("FREQ", "")
    if freq not in FREQUENCIES:
        check.fail("rule.FREQ", "not_one_of", choices=", ".join(FREQUENCIES))
    wkst = given.get("WKST", "MO")
    if wkst not in DAYS:
        check.fail("rule.WKST", "not_one_of", choices=", ".join(DAYS))
    numbers = {name: _numbers(check, name, given, most, name != "BYMONTH") for name, most in LISTS.items()}
    result = Rule(
        freq,
        _whole(check, "INTERVAL", given, 1, 9999) or 1,
        _whole(check, "COUNT", given, 1, MOST),
        _until(check, given),
        _byday(check, given, freq),
        numbers["BYMONTHDAY"],
        numbers["BYMONTH"],
        numbers["BYSETPOS"],
        DAYS.index(wkst) if wkst in DAYS else 0,
    )
    if "COUNT" in given and "UNTIL" in given:
        _fail(check, "rule.UNTIL", "COUNT 和 UNTIL 只能写一个。", "COUNT and UNTIL exclude each other; keep one.")
    if not {"COUNT", "UNTIL"} & given.keys():
        _fail(
            check,
            "rule.COUNT",
            "没有写到何时为止。请加 COUNT=次数 或 UNTIL=日期。",
            "it never ends. Add COUNT=number or UNTIL=date.",
        )
    if "BYMONTHDAY" in given and freq == "WEEKLY":
        _fail(
            check,
            "rule.BYMONTHDAY",
            "每周重复时不能按几号。请用 FREQ=MONTHLY。",
            "no days of the month in a weekly rule. Use FREQ=MONTHLY.",
        )
    if "BYSETPOS" in given and not {"BYDAY", "BYMONTHDAY", "BYMONTH"} & given.keys():
        _fail(
            check,
            "rule.BYSETPOS",
            "还要写从哪些日子里选，如 BYDAY。",
            "it chooses among the days of another part, such as BYDAY. Add one.",
        )
    return result


def _whole(check: Check, name: str, given: Mapping[str, str], low: int, high: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
        check.fail(f"rule.{name}", "out_of_range", reason=f"{low}-{high}")
        return None
    return int(text)


def _numbers(check: Check, name: str, given: Mapping[str, str], most: int, backward: bool) -> tuple[int, ...]:
    if name not in given:
        return ()
    pieces = given[name].split(",")
    wrong = [
        one
        for one in pieces
        if not re.fullmatch(r"[+-]?\d{1,3}" if backward else r"\d{1,2}", one, re.ASCII) or not 1 <= abs(int(one)) <= most
    ]
    if wrong:
        spelled = f"1-{most}" + (f", -{most}--1" if backward else "")
        check.fail(f"rule.{name}", "out_of_range", reason=f"“{wrong[0][:20]}”；{spelled}")
        return ()
    return tuple(sorted({int(one) for one in pieces}))


def _byday(check: Check, given: Mapping[str, str], freq: str) -> tuple[tuple[int, int], ...]:
    if "BYDAY" not in given:
        return ()
    most = {"MONTHLY": 5, "YEARLY": 5 if "BYMONTH" in given else 53}.get(freq, 0)
    found = set()
    for one in given["BYDAY"].split(","):
        form = _WEEKDAY.fullmatch(one)
        if form is None:
            _fail(
                check,
                "rule.BYDAY",
                f"看不懂“{one[:20]}”，如 MO、2SA、-1FR。",
                f"“{one[:20]}” is no weekday, such as MO, 2SA, -1FR.",
            )
        elif form[1] and not 1 <= abs(int(form[1])) <= most:
            _fail(
                check, "rule.BYDAY", f"“{one}”：第几个只用于每月（±1 到 ±5）或每年（±1 到 ±53）。",
                f"“{one}”: a number before a weekday is for MONTHLY (±1 to ±5) and YEARLY (±1 to ±53).",
            )  # fmt: skip
        else:
            found.add((int(form[1] or 0), DAYS.index(form[2])))
    return tuple(sorted(found))


def _until(check: Check, given: Mapping[str, str]) -> date | datetime | None:
    if "UNTIL" not in given:
        return None
    form = _UNTIL.fullmatch(given["UNTIL"])
    try:
        if form:
            day = date(int(form[1]), int(form[2]), int(form[3]))
            clock = time(int(form[4]), int(form[5]), int(form[6])) if form[4] else None
            return datetime.combine(day, clock, UTC) if clock else day
    except ValueError:
        pass
    _fail(
        check, "rule.UNTIL", "请写 UNTIL=20270116（当地日期，含当天）或 UTC 时刻 UNTIL=20270116T110000Z。",
        "write UNTIL=20270116 (a local date, included) or a moment in UTC, UNTIL=20270116T110000Z.",
    )  # fmt: skip
    return None


# --- the dates -------------------------------------------------------------------------------------------------------


def _starts(check: Check, rule: Rule | None, begin: datetime, horizon: date, zone: ZoneInfo) -> set[datetime]:
    """The local starts that a rule gives, the first date among them; notes why there are none."""
    if rule is None:
        return {begin}
    first = begin.date()
    days = _days(rule, first, horizon)
    if (earliest := next(days, None)) != first:
        weekday = DAYS[first.weekday()]
        if earliest is None:
            _fail(check, "rule", f"{YEARS} 年内没有一天符合。", f"no day within {YEARS} years fits it.")
        else:
            _fail(
                check, "first", f"{first}（{weekday}）不符合重复规则，之后最近的是 {earliest}。请改首日或规则。",
                f"{first} ({weekday}) does not fit the rule; the next that does is {earliest}. Change one of them.",
            )  # fmt: skip
        return set()
    starts = {begin}
    until = rule.until
    if until is not None and (until.date() if isinstance(until, datetime) else until) > horizon:
        _fail(check, "rule.UNTIL", f"最多到 {horizon}。", f"{horizon} at the latest.")
        return set()
    if until is not None and not _by(begin, until, zone):
        _fail(check, "rule.UNTIL", f"早于首日 {begin:%F %R}。", f"it is before the first, {begin:%F %R}.")
        return set()
    while rule.times is None or len(starts) < rule.times:
        day = next(days, None)
        if day is None:
            break
        start = datetime.combine(day, begin.time())
        if until is not None and not _by(start, until, zone):
            break
        starts.add(start)
    if rule.times is not None and len(starts) < rule.times:
        _fail(
            check, "rule.COUNT", f"到 {horizon} 为止只有 {len(starts)} 场。请减少次数。",
            f"there are only {len(starts)} until {horizon}. Ask for fewer.",
        )  # fmt: skip
    return starts


def _by(start: datetime, until: date | datetime, zone: ZoneInfo) -> bool:
    if isinstance(until, datetime):
        return start.replace(tzinfo=zone).astimezone(UTC) <= until
    return start.date() <= until


def _days(rule: Rule, first: date, horizon: date) -> Iterator[date]:
    """The days of a rule from `first` to `horizon`, in order; COUNT and UNTIL are the caller's."""
    for low, high in _periods(rule, first, horizon):
        days = [day for n in range((high - low).days) if _fits(rule, day := low + timedelta(days=n), first)]
        if rule.bysetpos:
            chosen = {pos - 1 if pos > 0 else len(days) + pos for pos in rule.bysetpos}
            days = [day for n, day in enumerate(days) if n in chosen]
        yield from (day for day in days if first <= day <= horizon)


def _periods(rule: Rule, first: date, horizon: date) -> Iterator[tuple[date, date]]:
    """The periods that the rule looks at: first day, and the day after the last."""
    low = {
        "DAILY": first,
        "WEEKLY": first - timedelta(days=(first.weekday() - rule.wkst) % 7),
        "MONTHLY": first.replace(day=1),
        "YEARLY": first.replace(month=1, day=1),
    }[rule.freq]
    while low <= horizon:
        if rule.freq in {"DAILY", "WEEKLY"}:
            length = 1 if rule.freq == "DAILY" else 7
            yield low, low + timedelta(days=length)
            low += timedelta(days=length * rule.interval)
        else:
            months = 1 if rule.freq == "MONTHLY" else 12
            yield low, _later(low, months)
            low = _later(low, months * rule.interval)


def _later(month: date, months: int) -> date:
    """The first of the month so many months on; the last that there is, for one past year 9999."""
    index = month.year * 12 + month.month - 1 + months
    return date(index // 12, index % 12 + 1, 1) if index < 9999 * 12 else date.max


def _fits(rule: Rule, day: date, first: date) -> bool:
    """Whether a day of a period that counts is in its set, by the table of RFC 5545, 3.3.10. What the rule does not say is
    taken from the first date: its weekday, its day of the month, its month."""
    if rule.bymonth and day.month not in rule.bymonth:
        return False
    length = monthrange(day.year, day.month)[1]
    if rule.bymonthday and not {day.day, day.day - length - 1} & set(rule.bymonthday):
        return False
    if rule.byday:
        in_month = rule.freq == "MONTHLY" or bool(rule.bymonth)
        place, of = (day.day, length) if in_month else (_of_year(day), _of_year(day.replace(month=12, day=31)))
        ordinals = {0, (place + 6) // 7, -((of - place) // 7 + 1)}
        return any(weekday == day.weekday() and ordinal in ordinals for ordinal, weekday in rule.byday)
    if rule.freq == "WEEKLY":
        return day.weekday() == first.weekday()
    if rule.freq == "DAILY" or rule.bymonthday:
        return True
    return day.day == first.day and (rule.freq == "MONTHLY" or bool(rule.bymonth) or day.month == first.month)


def _of_year(day: date) -> int:
    return day.timetuple().tm_yday

"""A term's course schedule from one CSV file: each row is a session, written as a draft of a series that exists.

All or nothing: every row is checked before the first is written, and one refused row keeps the whole file out. Each session is
then written with its line in the trail, under an id that follows from the row; so a run that was cut half-way is finished by
running it again, and a second run changes nothing. What stands and differs is changed while it is a draft; a session that
families see is never changed from a file. A column that the file leaves out leaves what stands; an empty cell empties it.
Dates and times are local to `XINQIAO_ZONE`, texts are in `XINQIAO_LANGUAGE`.
"""

import csv
import difflib
import functools
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import chinese_calendar

from content import courses, languages, store
from content.checking import Check, file_bytes
from content.courses import MOST_SEATS, SESSION_FIELDS, CourseSession, Series
from content.failures import Invalid, Text, invalid
from content.settings import Settings
from content.vocabulary import PLACES

MOST_BYTES = 4 * 1024 * 1024  # a term of 2,000 rows is 0.4 MB
MOST_LEAD = 60 * 24  # hours from the end of booking to the start

LEAD = "booking_closes_hours_before"
COLUMNS: Mapping[str, str] = {
    "series": "课程", "key": "编号", "date": "日期", "start": "开始", "end": "结束", "place": "场所", "venue": "场地",
    "address": "地址", "lecturer": "讲师", "field": "讲师专长", "capacity": "名额", LEAD: "提前几小时截止",
}  # fmt: skip
NAMES = {header: name for name, zh in COLUMNS.items() for header in (name, zh)}
NEEDED = ("series", "date", "start", "end", "place", "capacity")
PLAIN = {"key", "date", "start", "end", "place", "capacity", LEAD}  # full-width digits and colons become plain in these
PLACE_CODES = {
    name.lower(): code for code, label in PLACES.items() for name in (code, label.zh, label.zh.removeprefix("进"), label.en)
}
_DATE = re.compile(r"(2[01]\d\d)[-/年](\d\d?)[-/月](\d\d?)日?", re.ASCII)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::00)?", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9._-]{1,40}")

WARNS = {
    "holiday": Text("{date} 是{zh}假期。", "{date} is a public holiday ({name})."),
    "workday": Text("{date} 是{zh}调休的上班日。", "{date} is a working day made up for {name}."),
    "provisional": Text(
        "{year} 年的放假安排尚未收录，日期为暂定。", "Dates in {year} are provisional: its holidays are not known yet."
    ),
    "overlap": Text("“{what}”与第 {line} 行的时间重叠。", "“{what}” is taken at an overlapping time in line {line}."),
}

T = TypeVar("T")
Known = dict[str, dict[str, str]]
"""Name -> id of each series so called -> its state."""
There = Callable[[str], dict[str, CourseSession]]


class Planned(NamedTuple):
    """A checked row: what will be written under `key`. `revision` is the one looked at, None for a new session."""

    key: str
    series: str
    values: dict[str, Any]
    outcome: str
    revision: int | None
    warnings: list[dict[str, str]]


def template(today: date) -> str:
    """A CSV with one example row, a Saturday a month ahead in the starter library's series. With a byte order mark, without
    which Excel in China reads UTF-8 as GB18030."""
    day = today + timedelta(days=30)
    day += timedelta(days=(5 - day.weekday()) % 7)
    example = f"家长学校：陪孩子走过考试季（示例）,,{day},19:00,20:30,进社区,示例社区活动室,示例路1号,示例讲师,家庭教育指导,30,12"
    return "\ufeff" + "\r\n".join((",".join(COLUMNS.values()), example, ""))


def import_file(path: Path, by: str, settings: Settings, dry_run: bool = False) -> list[dict[str, Any]]:
    """Check every row, then write all of them or none. Returns a row a line: {"source", "line", "outcome":
    new|changed|unchanged|refused, "key" (the session's id), "messages": [{language: text}]}; after a refusal the other
    outcomes are what would have been. A file that is no such table gives one refused row without a line.

    A second run gives "unchanged". Raises `Stale` or `Conflict` when somebody changed a session or series between check and
    write, and driver errors: what was written by then stays as drafts, and another run does the rest.
    """
    path = Path(path)
    try:
        head, table = _table(path)
    except Invalid as failure:
        return [{"source": path.name, "outcome": "refused", "key": "", "messages": [e.messages for e in failure.errors]}]
    known, there = _known(), functools.cache(_there)
    rows: list[dict[str, Any]] = []
    good: list[tuple[dict[str, Any], dict[str, str], Planned]] = []
    lines: dict[str, int] = {}
    for line, cells in table:
        row: dict[str, Any] = {"source": path.name, "line": line, "outcome": "refused", "key": "", "messages": []}
        rows.append(row)
        try:
            plan = _plan(head, cells, known, there, settings)
            if (first := lines.setdefault(plan.key, line)) != line:
                reason = f"与第 {first} 行重复；同时开两场请各填编号 as in line {first}; give each a key"
                raise invalid(head["key"], "bad_format", reason=reason)
        except Invalid as failure:
            row["messages"] = [error.messages for error in failure.errors]
        else:
            row |= {"outcome": plan.outcome, "key": plan.key, "messages": plan.warnings}
            good.append((row, cells, plan))
    for column in ("venue", "lecturer"):
        _overlaps(column, good)
    if not dry_run and len(good) == len(rows):
        for _, _, plan in good:
            if plan.outcome == "new":
                courses.create_session(plan.series, plan.values, by, plan.key)
            elif plan.outcome == "changed":
                courses.edit_session(plan.key, plan.values, by, plan.revision)
    return rows


def _table(path: Path) -> tuple[dict[str, str], list[tuple[int, dict[str, str]]]]:
    """{column: its header as written}, and (row number as a spreadsheet counts, {column: cell}) of each row that is not empty.
    Cells beyond the headers stand under their own text after a blank. Raises `Invalid`."""
    try:
        data = file_bytes(path, MOST_BYTES)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("gb18030")
        if "\0" in text:
            raise ValueError
        cleaned = [[languages.clean(cell) for cell in cells] for cells in csv.reader(io.StringIO(text), strict=True)]
    except (ValueError, csv.Error):
        reason = f"需要 CSV（UTF-8 或 GB18030，≤ {MOST_BYTES} 字节），Excel 请另存为“CSV UTF-8” save it as CSV UTF-8"
        raise invalid(path.name, "bad_format", reason=reason) from None
    rows = [(line, cells) for line, cells in enumerate(cleaned, 1) if any(cells)]
    headers, check, head = rows[0][1] if rows else [], Check(), {}
    names = [NAMES.get(header.lower(), "") for header in headers]
    for header, name in zip(headers, names, strict=True):
        if header and (not name or name in head):
            check.fail(header[:60], "bad_format" if name else "unknown_field", reason="这一列写了两次 it stands twice")
        head[name] = header
    for name in NEEDED:
        if name not in names:
            check.fail(COLUMNS[name], "required")
    if len(rows) == 1:
        check.fail(path.name, "incomplete", missing="课程安排 rows")
    check.done()
    pairs = [(line, zip_longest(names, cells, fillvalue="")) for line, cells in rows[1:]]
    return {**COLUMNS, **head}, [(n, {name or f" {cell}": cell for name, cell in one if name or cell}) for n, one in pairs]


def _plan(head: Mapping[str, str], cells: dict[str, str], known: Known, there: There, settings: Settings) -> Planned:
    """What a row means, beside what is there. Raises `Invalid` with every fault of its cells."""
    check = Check()
    check.fields({cell.strip(): None for cell in cells if cell not in COLUMNS}, ())
    cells = {name: unicodedata.normalize("NFKC", cell).strip() if name in PLAIN else cell for name, cell in cells.items()}
    for name in NEEDED:
        if not cells[name]:
            check.fail(head[name], "required")
    series = _series(check, head["series"], cells["series"], known)
    day = _read(check, head["date"], cells["date"], _DATE, date, "2026-11-03, 2026/11/3, 2026年11月3日")
    start, end = (_read(check, head[name], cells[name], _TIME, time, "19:00") for name in ("start", "end"))
    if start and end and end <= start:
        check.fail(head["end"], "out_of_range", reason=f"晚于 later than {start:%H:%M}")
    place = PLACE_CODES.get(cells["place"].lower(), "")
    if cells["place"] and not place:
        check.fail(head["place"], "not_one_of", choices=", ".join(f"{label.zh} {code}" for code, label in PLACES.items()))
    capacity = check.whole(head["capacity"], _number(cells["capacity"]), 1, MOST_SEATS)
    hours = check.whole(head[LEAD], _number(cells.get(LEAD, "")), 0, MOST_LEAD)
    if cells.get("key") and not _KEY.fullmatch(cells["key"]):
        check.fail(head["key"], "bad_format", reason="A-Z a-z 0-9 . _ -，≤ 40")
    check.done()
    assert day and start and end

    zone, language = ZoneInfo(settings.zone), settings.language
    starts, ends = (datetime.combine(day, at, zone).astimezone(UTC) for at in (start, end))
    key = f"{series}~{cells.get('key') or f'{day:%Y%m%d}-{start:%H%M}'}"
    present = there(series).get(key)
    before = courses.values_of(present, SESSION_FIELDS) if present else {}
    lead = present.starts_at - present.booking_closes_at if present and LEAD not in cells else timedelta(hours=hours or 0)
    values = {
        **before, "starts_at": starts, "ends_at": ends, "zone": settings.zone, "booking_closes_at": starts - lead,
        "place": place, "capacity": capacity,
        "venue": _texts(before.get("venue"), {"name": cells.get("venue"), "address": cells.get("address")}, language),
        "lecturer": _texts(before.get("lecturer"), {"name": cells.get("lecturer"), "field": cells.get("field")}, language),
    }  # fmt: skip
    if courses.checked_session(values) == before:
        return Planned(key, series, values, "unchanged", None, [])
    if present and present.state != "draft":
        reason = f"场次已是 the session is {present.state}；请直接修改该场次 edit the session itself"
        raise invalid(head["date"], "bad_format", reason=reason)
    if starts <= store.now():
        raise invalid(head["date"], "out_of_range", reason="已过去 in the past")
    outcome = "changed" if present else "new"
    return Planned(key, series, values, outcome, present and present.revision, calendar_warnings(day))


def calendar_warnings(day: date) -> list[dict[str, str]]:
    """Texts by language tag when the day is a public holiday of mainland China, or a weekend day worked in its place; in a
    year whose holidays are not known, that it is provisional. None on other days."""
    try:
        off, name = chinese_calendar.get_holiday_detail(day)
    except NotImplementedError:
        return [WARNS["provisional"].fill({"year": day.year})]
    if name is None:  # an ordinary weekend or working day
        return []
    zh = chinese_calendar.Holiday(name).chinese
    return [WARNS["holiday" if off else "workday"].fill({"date": day, "zh": zh, "name": name})]


def _known() -> Known:
    """Series by id and by every title; a cancelled one only where no other has the name."""
    known: Known = {}
    for raw in Series.rows().find({}, {"texts": 1, "state": 1}):
        for name in {raw["_id"], *(languages.clean(texts["title"]) for texts in raw["texts"].values())}:
            known.setdefault(name, {})[raw["_id"]] = raw["state"]
    return {name: {k: v for k, v in ids.items() if v != "cancelled"} or ids for name, ids in known.items()}


def _there(series: str) -> dict[str, CourseSession]:
    """A series' sessions by id."""
    return {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find({"series": series})}


def _series(check: Check, field: str, text: str, known: Known) -> str:
    """Id of the one series that a text names; else the error names the nearest known ones, or the ids of those so called."""
    ids = known.get(text, {})
    if len(ids) == 1 and "cancelled" not in ids.values():
        return next(iter(ids))
    if "cancelled" in ids.values():
        check.fail(field, "bad_format", reason="此课程已取消 the series is cancelled")
    elif text:
        titles = [name for name, series in known.items() if name not in series and "cancelled" not in series.values()]
        near = sorted(ids) or difflib.get_close_matches(text, titles, 12, 0.0)
        check.fail(field, "not_one_of", choices=", ".join(near) + (", …" if not ids and len(titles) > 12 else ""))
    return ""


def _read(check: Check, field: str, text: str, pattern: re.Pattern[str], make: Callable[..., T], example: str) -> T | None:
    """What `make` gives of a pattern's numbers; None for an empty text."""
    try:
        if text and (found := pattern.fullmatch(text)):
            return make(*map(int, found.groups()))
    except ValueError:  # 30 February
        pass
    if text:
        check.fail(field, "bad_format", reason=f"例 e.g. {example}")
    return None


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _texts(before: Any, given: Mapping[str, str | None], tag: str) -> dict[str, dict[str, str]]:
    """`before` with the given parts in one language: None leaves a part, an empty text takes it out; other languages stay."""
    parts = {name: dict(texts) for name, texts in (before or {}).items()}
    for name, text in given.items():
        if text is not None:
            parts[name] = {**parts.get(name, {}), tag: text}
    return parts


def _overlaps(column: str, good: Sequence[tuple[dict[str, Any], dict[str, str], Planned]]) -> None:
    """Warn of rows of the file that have one venue, or one lecturer, at overlapping times."""
    last: dict[str, tuple[datetime, int]] = {}
    for row, cells, plan in sorted(good, key=lambda one: one[2].values["starts_at"]):
        if what := cells.get(column):
            until, line = last.get(what, (plan.values["starts_at"], 0))
            if plan.values["starts_at"] < until:
                row["messages"].append(WARNS["overlap"].fill({"what": what, "line": line}))
            if plan.values["ends_at"] > until:
                last[what] = plan.values["ends_at"], row["line"]

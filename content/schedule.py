"""A term's course schedule from one table (CSV, XLSX): each row is a session, written as a draft of a series that exists.

All or nothing: every row is checked before the first is written, one refused row keeps the whole file out, and all are written in
one transaction, each with its line in the trail; it ends with nothing written when somebody changed one of its sessions or
cancelled one of its series meanwhile. A row's id follows from the row, so a second run changes nothing. What stands and differs
is changed while it is a draft; a session that families see is never changed from a file. A column that the file leaves out
leaves what stands; an empty cell empties it. Dates and times are local to `XINQIAO_ZONE` unless the row names a zone, texts are
in `XINQIAO_LANGUAGE`. Who imports may do in each row what he may do by hand; a series that he may not read is not known.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from content import languages, lecturers, planning, records, sessions, sheets, staff, store
from content.checking import Check, file_bytes
from content.courses import CourseSession, Series
from content.failures import WORDS, FieldError, Invalid, Text, invalid
from content.planning import ExamsOf, no_exams
from content.sessions import MOST_SEATS, SESSION_FIELDS
from content.settings import Settings
from content.vocabulary import PLACES, STEPS, Label

MOST_HOURS = 24  # class-hours that a session may be given
MOST_LEAD = 60 * 24  # hours from the end of booking to the start
MOST_MEANT, LONGEST_MEANT = 100, 120  # texts that name nothing, and how long, for which the nearest names are looked for

LEAD = "booking_closes_hours_before"
COLUMNS: Mapping[str, str] = {
    "series": "课程", "key": "编号", "date": "日期", "start": "开始", "end": "结束", "title": "主题", "step": "步骤",
    "place": "场所", "host": "承办单位", "venue": "场地", "address": "地址", "access": "到场说明", "lecturer": "讲师",
    "field": "讲师专长", "class_hours": "课时", "capacity": "名额", "waiting_list": "候补", LEAD: "提前几小时截止",
    "online_link": "线上链接", "zone": "时区", "state": "状态",
}  # fmt: skip
"""Name -> head in Chinese. `state` is written by exports and not read: a file publishes nothing."""
NAMES = {header: name for name, zh in COLUMNS.items() for header in (name, zh)}
NEEDED = ("series", "date", "start", "end", "place", "capacity")
FREE = {"series", "title", "host", "venue", "address", "access", "lecturer", "field", "online_link"}
"""Words as they are; in all other columns full-width digits and colons become plain."""
HEADS = {  # a field of a session -> the column that gave it
    "venue.name": "venue", "venue.address": "address", "venue.access": "access", "lecturer.name": "lecturer",
    "lecturer.field": "field", "ends_at": "end", "starts_at": "date", "booking_closes_at": LEAD,
}  # fmt: skip


def _spellings(table: Mapping[str, Label]) -> dict[str, str]:
    found: dict[str, str] = {}
    for code, label in table.items():
        found |= dict.fromkeys((code, label.zh, label.zh.removeprefix("进"), label.en), code)
    return {name.lower(): code for name, code in found.items()}


PLACE_CODES, STEP_CODES = _spellings(PLACES), _spellings(STEPS)
YES_NO = dict.fromkeys(("是", "有", "yes", "y", "true", "1"), True) | dict.fromkeys(("否", "无", "no", "n", "false", "0"), False)
_DATE = re.compile(r"(2[01]\d\d)[-/年](\d\d?)[-/月](\d\d?)日?", re.ASCII)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_TITLE = re.compile(r" *(老师|教授|医生|主任|女士|先生)$")
NEARLY = 0.8  # of difflib: 王秀 英 for 王秀英; of three characters no other one
_KEY = re.compile(r"[A-Za-z0-9._-]{1,40}")

NEAR = Text(
    "专家库中没有“{name}”，只有“{near}”。如是同一位，请改成一样的姓名，才会关联。",
    "The expert library has no “{name}”, but “{near}”. If that is who is meant, write the name alike: only then are they tied.",
)
EXAMPLE = {"venue": "示例社区活动室", "lecturer": "示例讲师"}
"""What the template's example row says, by which it is known again."""
OVERLAP = Text("“{what}”与第 {line} 行的时间重叠。", "“{what}” is taken at an overlapping time in line {line}.")

T = TypeVar("T")
May = Callable[[str, str, str], bool]
"""(permission, organisation, division) -> whether the one who imports may."""


def anyone(permission: str, organisation: str, division: str) -> bool:
    """Of the command line: who reaches it may do everything."""
    return True


class Planned(NamedTuple):
    """A checked row: what will stand under `key`."""

    key: str
    parent: Series
    session: CourseSession
    """As it will be; of an unchanged row as it is."""
    outcome: str
    before: CourseSession | None = None
    """The session looked at, when it is changed."""
    changes: dict[str, Any] = {}
    warnings: list[dict[str, str]] = []


class Line(NamedTuple):
    """One row as the file has it: its number, cells by column name, and which of them cannot be read."""

    number: int
    cells: dict[str, str]
    faults: list[FieldError]


# --- what is there ---------------------------------------------------------------------------------------------------


class There:
    """What rows are held against, read once: the series that the one who imports may read, with their sessions; organisations;
    the expert library."""

    def __init__(self, may: May, settings: Settings, exams: ExamsOf = no_exams) -> None:
        self.may, self.settings, self.exams = may, settings, exams
        everything = (Series.of(raw) for raw in Series.rows().find({}))
        self.series = {one.id: one for one in everything if may("course.read", one.organisation, one.division)}
        self.titles: dict[str, list[str]] = {}  # a title (or id) -> ids; a cancelled one only where no other has the name
        for key, one in self.series.items():
            for name in {key, *(languages.clean(texts["title"]) for texts in one.texts.values())}:
                self.titles.setdefault(name, []).append(key)
        for name, ids in self.titles.items():
            self.titles[name] = [key for key in ids if self.series[key].state != "cancelled"] or ids
        self.meant: dict[tuple[str, int], list[str]] = {}
        self.sessions = functools.cache(self._sessions)
        self.hosts = functools.cache(self._hosts)
        self.near = functools.cache(self._near)

    def _sessions(self, series: str) -> dict[str, CourseSession]:
        return {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find({"series": series})}

    def nearest(self, text: str, names: Collection[str], most: int) -> list[str]:
        """Those of `names` (the same object each time) that a text may have meant, best first; of few names all. Each text is
        compared once, at up to 20 ms; none longer than LONGEST_MEANT, and no more than MOST_MEANT of them."""
        few, key = len(names) <= most, (text, id(names))
        if key not in self.meant and len(text) <= LONGEST_MEANT and len(self.meant) < MOST_MEANT:
            self.meant[key] = difflib.get_close_matches(text, names, most, 0.0 if few else 0.4)
        return self.meant.get(key, sorted(names) if few else [])

    @functools.cached_property
    def open_titles(self) -> list[str]:
        """Titles of the series that are not cancelled, without their ids."""
        return [name for name, ids in self.titles.items() if name not in ids and self.series[ids[0]].state != "cancelled"]

    @functools.cached_property
    def organisations(self) -> list[staff.Organisation]:
        """All of them; a district has some hundreds."""
        return [staff.Organisation.of(raw) for raw in staff.Organisation.rows().find({})]

    def _hosts(self, organisation: str, division: str) -> dict[str, list[str]]:
        """Name -> ids of the organisations at which a series of this organisation and division can be held."""
        found: dict[str, list[str]] = {}
        for one in self.organisations:
            if sessions.may_host(one, organisation, division):
                found.setdefault(languages.clean(one.name), []).append(one.id)
        return found

    @functools.cached_property
    def experts(self) -> dict[str, str]:
        """Name -> id of the one published lecturer who has it."""
        return {name: min(ids) for name, ids in self.lecturers.items() if len(ids) == 1}

    @functools.cached_property
    def lecturers(self) -> dict[str, set[str]]:
        """Name -> ids of the published lecturers who have it."""
        found: dict[str, set[str]] = {}
        for raw in lecturers.Lecturer.rows().find({"state": "published"}, {"name": 1}):
            for name in raw["name"].values():
                found.setdefault(languages.clean(name), set()).add(raw["_id"])
        return found

    def _near(self, name: str) -> str:
        """The one known lecturer's name that is nearly this one, a title aside; "" for none, several, or this very name."""
        if len(name) > LONGEST_MEANT or self.near.cache_info().currsize >= MOST_MEANT:
            return ""
        if name in self.lecturers:
            return ""
        known = {_TITLE.sub("", one): one for one in self.lecturers}
        found = difflib.get_close_matches(_TITLE.sub("", name), known, 2, NEARLY)
        return known[found[0]] if len(found) == 1 else ""


# --- import ----------------------------------------------------------------------------------------------------------


def import_file(path: Path, by: str, settings: Settings, dry_run: bool = False) -> list[dict[str, Any]]:
    """`import_table` of a file. One that is no such table gives one refused row without a line."""
    path = Path(path)
    try:
        return import_table(file_bytes(path, sheets.MOST_BYTES), path.name, by, settings, dry_run=dry_run)
    except Invalid as failure:
        return [{"source": path.name, "outcome": "refused", "key": "", "messages": [e.messages for e in failure.errors]}]


def import_table(
    data: bytes,
    name: str,
    by: str,
    settings: Settings,
    *,
    may: May = anyone,
    exams: ExamsOf = no_exams,
    dry_run: bool = False,
) -> list[dict[str, Any]]:
    """Check every row, then write all of them or none. Returns a row a line: {"source", "line", "outcome":
    new|changed|unchanged|refused, "key" (the session's id), "faults": [FieldError, its field the column as headed],
    "messages": [{language: text}] of faults and warnings}; after a refusal the other outcomes are what would have been.

    A second run gives "unchanged". Raises `Invalid` for a file that is no such table; `Stale` or `Conflict` when somebody changed
    a session or series between check and write, and driver errors: nothing is written then.
    """
    head, table = _table(data, name)
    there = There(may, settings, exams)
    rows: list[dict[str, Any]] = []
    good: list[tuple[dict[str, Any], Planned]] = []
    lines: dict[str, int] = {}
    for line in table:
        row: dict[str, Any] = {"source": name, "line": line.number, "outcome": "refused", "key": "", "faults": [], "messages": []}
        rows.append(row)
        try:
            plan = _plan(head, line, there)
            if (first := lines.setdefault(plan.key, line.number)) != line.number:
                reason = Text(
                    f"与第 {first} 行重复；同时开两场请各填编号", f"the same as line {first}; give each a key of its own"
                )
                raise invalid(head["key"], "bad_format", reason=reason)
        except Invalid as failure:
            row["faults"] = failure.errors
            row["messages"] = [error.messages for error in failure.errors]
        else:
            row |= {"outcome": plan.outcome, "key": plan.key, "messages": plan.warnings}
            good.append((row, plan))
    _clashes(good, there)
    if not dry_run and len(good) == len(rows):
        plans = [plan for _, plan in good if plan.outcome != "unchanged"]
        parents = {plan.parent.id: plan.parent for plan in plans}
        made = [plan.session for plan in plans if plan.before is None]
        sessions.write(parents.values(), made, [(plan.before, plan.changes) for plan in plans if plan.before is not None], by)
    return rows


def _table(data: bytes, name: str) -> tuple[dict[str, str], list[Line]]:
    """{column: its header as written} and the rows below it. Cells beyond the headers stand under their own text after a blank.
    Raises `Invalid`."""
    rows = sheets.read(data, name)
    check, head = Check(), {}
    headers = rows[0].cells if rows else []
    names = [NAMES.get(header.lower(), "") for header in headers]
    for header, column in zip(headers, names, strict=True):
        if header and (not column or column in head):
            check.fail(
                header[:60],
                "bad_format" if column else "unknown_field",
                reason=Text("这一列写了两次，请只留一列", "the column stands twice; keep one"),
            )
        head[column] = header
    for column in NEEDED:
        if column not in names:
            check.fail(COLUMNS[column], "required")
    if len(rows) == 1:
        check.fail(name, "incomplete", missing=Text("课程安排（表头下面的行）", "rows below the headers"))
    check.done()

    def line(row: sheets.Row) -> Line:
        columns = names + [""] * (len(row.cells) - len(names))
        cells = row.cells + [""] * (len(names) - len(row.cells))
        pairs = {column or f" {cell}": cell for column, cell in zip(columns, cells, strict=True) if column or cell}
        heads = {n: head[column] for n, column in enumerate(names) if column}
        faults = [FieldError(heads.get(n, "?"), "bad_format", {"reason": why}) for n, why in row.faults.items()]
        return Line(row.line, pairs, faults)

    return {**COLUMNS, **head}, [line(row) for row in rows[1:]]


def _plan(head: Mapping[str, str], line: Line, there: There) -> Planned:
    """What a row means, beside what is there. Raises `Invalid` with every fault of its cells."""
    check, settings = Check(), there.settings
    check.errors += line.faults
    unread = {error.field for error in line.faults}
    check.fields({cell.strip(): None for cell in line.cells if cell not in COLUMNS}, ())
    cells = {name: cell if name in FREE else unicodedata.normalize("NFKC", cell).strip() for name, cell in line.cells.items()}
    if all(cells.get(name) == text for name, text in EXAMPLE.items()):
        reason = Text("这是模板的示例行，请删除这一行", "this is the template's example row: delete it")
        raise invalid(head["lecturer"], "bad_format", reason=reason)
    for name in NEEDED:
        if not cells[name] and head[name] not in unread:
            check.fail(head[name], "required")
    parent = _series(check, head["series"], cells["series"], there)
    zone = check.zone(head["zone"], cells.get("zone") or settings.zone)
    day = _read(check, head["date"], cells["date"].removesuffix(" 00:00"), _DATE, date, "2026-11-03, 2026/11/3, 2026年11月3日")
    start = _read(check, head["start"], cells["start"], _TIME, time, "19:00")
    starts = datetime.combine(day, start, ZoneInfo(zone)) if day and start else None
    ends = _moment(check, head["end"], cells["end"], day, zone)
    if starts and ends and ends <= starts:
        check.fail(head["end"], "out_of_range", reason=Text(f"要晚于 {start:%H:%M}", f"it has to be later than {start:%H:%M}"))
    place = _one_of(check, head["place"], cells["place"], PLACE_CODES, PLACES)
    capacity = check.whole(head["capacity"], _number(cells["capacity"]), 1, MOST_SEATS)
    lead = cells.get(LEAD, "")
    closes = _moment(check, head[LEAD], lead, None, zone) if " " in lead else None
    hours = check.whole(head[LEAD], _number(lead), 0, MOST_LEAD) if " " not in lead else None
    values: dict[str, Any] = {}
    if "step" in cells:
        values["step"] = _one_of(check, head["step"], cells["step"], STEP_CODES, STEPS) or None
    if "class_hours" in cells:
        values["class_hours"] = check.whole(head["class_hours"], _number(cells["class_hours"]), 0, MOST_HOURS)
    if "waiting_list" in cells:
        waits = cells["waiting_list"].lower()
        if waits not in YES_NO and waits:
            check.fail(head["waiting_list"], "not_one_of", choices=Text("是、否", "yes, no"))
        values["waiting_list"] = YES_NO.get(waits, True)
    if "online_link" in cells:
        values["online_link"] = cells["online_link"] or None
    if "host" in cells and parent:
        values["host"] = _host(check, head["host"], cells["host"], parent, there)
    key = cells.get("key", "")
    known = there.sessions(parent.id) if parent else {}
    if parent and key not in known:
        key = key.removeprefix(f"{parent.id}~")
    if key not in known and key and not _KEY.fullmatch(key):
        check.fail(
            head["key"],
            "bad_format",
            reason=Text("只用 A-Z、a-z、0-9 和 . _ -，最多 40 个", "A-Z, a-z, 0-9 and . _ - only, at most 40"),
        )
    if parent and starts and key not in known:
        key = f"{parent.id}~{key or f'{starts:%Y%m%d-%H%M}'}"
        if len(key) > 64:
            check.fail(head["key"], "out_of_range", reason=f"≤ {63 - len(parent.id)}")
    check.done()
    assert parent and day and starts and ends

    present = known.get(key)
    before = records.values_of(present, SESSION_FIELDS) if present else {}
    if present and LEAD not in cells:
        closes = starts - (present.starts_at - present.booking_closes_at)
    usual = sessions.usual_hours(present.starts_at, present.ends_at) if present else None
    if present and "class_hours" not in cells and present.class_hours == usual:
        values["class_hours"] = None
    language, lecturer = settings.language, cells.get("lecturer")
    values = {
        **before, **values, "starts_at": starts.astimezone(UTC), "ends_at": ends.astimezone(UTC), "zone": zone,
        "booking_closes_at": (closes or starts - timedelta(hours=hours or 0)).astimezone(UTC),
        "place": place, "capacity": capacity,
        "title": _texts({"": before.get("title") or {}}, {"": cells.get("title")}, language)[""],
        "venue": _texts(before.get("venue"), {part: cells.get(column) for part, column in VENUE}, language),
        "lecturer": _texts(before.get("lecturer"), {"name": lecturer, "field": cells.get("field")}, language),
    }  # fmt: skip
    if lecturer is not None and lecturer not in (before.get("lecturer") or {}).get("name", {"": ""}).values():
        values["lecturer_id"] = there.experts.get(lecturer)
    try:
        checked = sessions.checked_session(values)
    except Invalid as failure:
        raise Invalid([error._replace(field=_headed(error.field, head)) for error in failure.errors]) from None
    if present and checked == before:
        return Planned(key, parent, present, "unchanged")
    if parent.state == "cancelled":
        raise invalid(
            head["series"], "bad_format", reason=Text("此课程已取消，请换一门", "the series is cancelled; choose another")
        )
    if not there.may("course.write", parent.organisation, parent.division):
        raise invalid(head["series"], "bad_format", reason=NOT_YOURS)
    if present and present.state != "draft":
        state = WORDS.get(present.state, present.state)
        reason = Text(f"场次{state}；请直接修改该场次", f"the session is {present.state}; edit the session itself")
        raise invalid(head["date"], "bad_format", reason=reason)
    if starts <= store.now():
        raise invalid(
            head["date"], "out_of_range", reason=Text("已经过去，请填以后的日期", "it is in the past; give a day to come")
        )
    made = sessions.draft(parent, values, key)
    warnings = [flag.text for flag in planning.day_flags(day, there.exams(parent.division))]
    if lecturer and not checked["lecturer_id"] and (near := there.near(lecturer)):
        warnings.append(NEAR.fill({"name": lecturer, "near": near}))
    if present is None:
        return Planned(key, parent, made, "new", warnings=warnings)
    changes = {name: value for name, value in checked.items() if value != before[name]}
    return Planned(key, parent, made, "changed", present, changes, warnings)


VENUE = (("name", "venue"), ("address", "address"), ("access", "access"))
NOT_YOURS = Text(
    "您不能为该机构或区域排课，请与其管理者联系",
    "your role may not plan for this organisation or division; ask whoever manages it",
)


def _headed(field: str, head: Mapping[str, str]) -> str:
    """The column, as headed, that gave a session's field."""
    part = ".".join(field.split(".")[:2])
    name = HEADS.get(part) or HEADS.get(field.split(".")[0]) or field.split(".")[0]
    return head.get(name, field)


# --- cells -----------------------------------------------------------------------------------------------------------


def _series(check: Check, field: str, text: str, there: There) -> Series | None:
    """The one series that a text names; else the error names the nearest known ones, or the ids of those so called."""
    ids = there.titles.get(text, [])
    if len(ids) == 1:
        return there.series[ids[0]]
    if text:
        near = sorted(ids) or there.nearest(text, there.open_titles, 12)
        more = ["…"] if not ids and len(there.open_titles) > len(near) else []
        check.fail(field, "not_one_of", choices=", ".join([*near, *more]))
    return None


def _host(check: Check, field: str, text: str, parent: Series, there: There) -> str | None:
    """Id of the one host of the series that a text names, by name or id; None for an empty text."""
    known = there.hosts(parent.organisation, parent.division)
    ids = known.get(languages.clean(text), [])
    if not text:
        return None
    if len(ids) == 1:
        return ids[0]
    if not ids and any(text in some for some in known.values()):
        return text
    near = sorted(ids) or there.nearest(text, known, 5)
    check.fail(field, "not_one_of", choices=", ".join([*near, *(["…"] if not ids and len(known) > len(near) else [])]) or "-")
    return None


def _one_of(check: Check, field: str, text: str, spellings: Mapping[str, str], table: Mapping[str, Label]) -> str:
    """The code that a text means; "" for none."""
    code = spellings.get(text.lower(), "")
    if text and not code:
        check.fail(field, "not_one_of", choices=Text("、".join(label.zh for label in table.values()), ", ".join(table)))
    return code


def _read(check: Check, field: str, text: str, pattern: re.Pattern[str], make: Callable[..., T], example: str) -> T | None:
    """What `make` gives of a pattern's numbers; None for an empty text."""
    try:
        if text and (found := pattern.fullmatch(text)):
            return make(*(int(part) for part in found.groups() if part))
    except ValueError:  # 30 February
        pass
    if text:
        check.fail(field, "bad_format", reason=Text(f"例：{example}", f"e.g. {example}"))
    return None


def _moment(check: Check, field: str, text: str, day: date | None, zone: str) -> datetime | None:
    """A time of `day`, or with a date before it of that day; None for an empty text, or without a day."""
    first, _, rest = text.rpartition(" ")
    found = _read(check, field, first, _DATE, date, "2026-11-03 19:00") if first else day
    clock = _read(check, field, rest, _TIME, time, "19:00, 2026-11-03 19:00")
    return datetime.combine(found, clock, ZoneInfo(zone)) if found and clock else None


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _texts(before: Any, given: Mapping[str, str | None], tag: str) -> dict[str, dict[str, str]]:
    """`before` with the given parts in one language: None leaves a part, an empty text takes it out; other languages stay."""
    parts = {name: dict(texts) for name, texts in (before or {}).items()}
    for name, text in given.items():
        if text is not None:
            parts[name] = {**parts.get(name, {}), tag: text}
    return parts


def _clashes(good: Collection[tuple[dict[str, Any], Planned]], there: There) -> None:
    """Warn of a lecturer or room that is taken, in the file or by what is planned already."""
    lines = {plan.key: row["line"] for row, plan in good}
    taken = planning.clashes([plan.session for _, plan in good if plan.outcome != "unchanged"])
    for row, plan in good:
        for clash in taken.get(plan.key, ()):
            other = clash.session
            if line := lines.get(other.id):
                row["messages"].append(OVERLAP.fill({"what": clash.what, "line": line}))
            else:
                readable = there.may("course.read", other.organisation, other.division)
                row["messages"].append(planning.told(clash, readable).text)

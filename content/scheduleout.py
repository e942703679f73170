"""A schedule as a table that staff fill in or look through: the empty template, and an export that imports as "unchanged".

Both have the import's columns (`schedule.COLUMNS`). Dates are dates and numbers numbers where the format knows them (XLSX).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from content import languages
from content.courses import CourseSession, Series
from content.failures import Text
from content.schedule import COLUMNS, LEAD, MOST_HOURS, MOST_LEAD, There
from content.settings import Settings
from content.sheets import Sheet, Value
from content.vocabulary import PLACES, STEPS

EXPORT_ONLY = ("zone", "state")
FILLED_IN = [name for name in COLUMNS if name not in EXPORT_ONLY]
STATES = {"draft": "草稿", "published": "已发布", "cancelled": "已取消", "finished": "已结束"}

ABOUT: Mapping[str, Text] = {
    "series": Text("课程名称或编号，课程须已建好。必填。", "Title or id of a course series that exists. Required."),
    "key": Text(
        "同一课程内的编号（字母、数字、. _ -）。不填则按日期和开始时间；改期时靠它认出是哪一场。",
        "A name within the series (letters, digits, . _ -). Empty: from date and start. With it a moved session is recognised.",
    ),
    "date": Text("当地日期，如 2026-11-03。必填。", "Local date, for example 2026-11-03. Required."),
    "start": Text("开始时间，如 19:00。必填。", "Start, for example 19:00. Required."),
    "end": Text("结束时间；次日结束写日期加时间。必填。", "End; with a date before it when it ends on another day. Required."),
    "title": Text("本次主题；不填则用课程名称。", "What this session is about; empty: the series' title."),
    "step": Text("知、用、会、好之一。", "One of the four steps: 知 know, 用 use, 会 can, 好 well."),
    "place": Text("场所类型，从下拉列表选。必填。", "Kind of place, from the list. Required."),
    "host": Text(
        "承办的指导站或学校，须在本区域内已登记；不填则计入主办单位。",
        "The station or school that it is held at and counts for; it must be known here. Empty: the organiser.",
    ),
    "venue": Text("地点名称。", "Name of the venue."),
    "address": Text("地址。", "Address."),
    "access": Text("怎么到、有无台阶或电梯等。", "How to get there; steps, lifts."),
    "lecturer": Text(
        "讲师姓名；专家库中恰有一位已发布的同名讲师时会自动关联。",
        "The lecturer's name; tied to the expert library when exactly one published entry has it.",
    ),
    "field": Text("讲师专长。", "The lecturer's field."),
    "class_hours": Text("课时数；不填则每 45 分钟计一课时。", "Class-hours; empty: one for each 45 minutes."),
    "capacity": Text("名额（人）。必填。", "Seats. Required."),
    "waiting_list": Text("满员后可否候补：是或否；不填为是。", "A waiting list once it is full: 是 yes (also if empty), 否 no."),
    LEAD: Text(
        "开始前几小时截止报名；不填为开始时截止。也可写日期加时间。",
        "Hours before the start at which booking closes; empty: at the start. Or a date and time.",
    ),
    "online_link": Text("https:// 开头；只给已报名的家庭看。", "Begins with https://; shown only to families who booked."),
}
NOTES = (
    Text("删去示例行再填；一行一场。", "Replace the example row; each row is one session."),
    Text(
        "先试运行，按提示修改；有一行不对，全部都不写入。写入的是草稿，发布另行进行。",
        "Try it as a dry run first. One wrong row keeps all out. Rows become drafts; publishing is a step of its own.",
    ),
    Text("不要合并单元格、不要改表头。", "Do not merge cells and leave the heads as they are."),
)


def template(today: date, title: str = "家长学校：陪孩子走过考试季（示例）") -> list[list[Value]]:
    """The heads and one example row, a Saturday a month ahead, in the series of that title."""
    day = today + timedelta(days=30)
    day += timedelta(days=(5 - day.weekday()) % 7)
    example: dict[str, Value] = {
        "series": title, "date": day, "start": "19:00", "end": "20:30", "place": "进社区", "venue": "示例社区活动室",
        "address": "示例路1号", "lecturer": "示例讲师", "field": "家庭教育指导", "class_hours": 2, "capacity": 30,
        "waiting_list": "是", LEAD: 12,
    }  # fmt: skip
    return [[COLUMNS[name] for name in FILLED_IN], [example.get(name, "") for name in FILLED_IN]]


def template_sheets(today: date, there: There) -> list[Sheet]:
    """The template with drop-down lists, and a second sheet that explains the columns. Series and hosts are those that the
    asker may plan for; without any, the example names the starter library's."""
    mine = [one for one in there.series.values() if one.state != "cancelled" and _writes(there, one)]
    titles = sorted(_title(there, one) for one in mine)
    hosts = sorted({name for one in mine for name in there.hosts(one.organisation, one.division)})
    rows = template(today, *titles[:1])
    offered = {
        "series": titles, "host": hosts, "step": [label.zh for label in STEPS.values()],
        "place": [label.zh for label in PLACES.values()], "waiting_list": ["是", "否"],
    }  # fmt: skip
    told: list[Sequence[Value]] = [["列 Column", "说明", "Explanation"]]
    told += [[COLUMNS[name], ABOUT[name].zh, ABOUT[name].en] for name in FILLED_IN]
    told += [["", note.zh, note.en] for note in NOTES]
    choices = {FILLED_IN.index(name): texts for name, texts in offered.items()}
    return [Sheet("课程安排 schedule", rows, choices), Sheet("说明 about", told)]


def _writes(there: There, one: Series) -> bool:
    return there.may("course.write", one.organisation, one.division)


def _title(there: There, one: Series) -> str:
    """What a row may call a series: its title where no other has it, else its id."""
    title = languages.clean(_said(one.texts, there.settings)["title"])
    return title if there.titles.get(title) == [one.id] else one.id


def _said(texts: Mapping[str, Mapping[str, str]], settings: Settings) -> Mapping[str, str]:
    return texts.get(settings.language) or texts[min(texts)]


def export(there: There, found: Iterable[CourseSession]) -> Iterator[list[Value]]:
    """The heads, then a row for each session whose series the asker may read. Imported as they are, every row is "unchanged"."""
    yield list(COLUMNS.values())
    for one in found:
        if parent := there.series.get(one.series):
            cells = _cells(there, parent, one)
            yield [cells.get(name, "") for name in COLUMNS]


def _cells(there: There, parent: Series, one: CourseSession) -> dict[str, Value]:
    zone, language = ZoneInfo(one.zone), there.settings.language
    starts, ends, closes = (at.astimezone(zone) for at in (one.starts_at, one.ends_at, one.booking_closes_at))
    lead = (one.starts_at - one.booking_closes_at) / timedelta(hours=1)
    whole = lead == int(lead) and 0 <= lead <= MOST_LEAD
    short = one.id.removeprefix(f"{parent.id}~")
    host = next((org for org in there.organisations if org.id == one.host), None)
    hosts = there.hosts(parent.organisation, parent.division)
    known = host is not None and hosts.get(languages.clean(host.name)) == [host.id]

    def text(parts: Mapping[str, Mapping[str, str]], name: str) -> str:
        return (parts or {}).get(name, {}).get(language, "")

    return {
        "series": _title(there, parent),
        "key": one.id if short in there.sessions(parent.id) else short,
        "date": starts.date(),
        "start": _clock(starts),
        "end": _clock(ends) if ends.date() == starts.date() else _moment(ends),
        "title": (one.title or {}).get(language, ""),
        "step": STEPS[one.step].zh if one.step in STEPS else "",
        "place": PLACES[one.place].zh,
        "host": languages.clean(host.name) if host and known else one.host or "",
        "venue": text(one.venue, "name"),
        "address": text(one.venue, "address"),
        "access": text(one.venue, "access"),
        "lecturer": text(one.lecturer, "name"),
        "field": text(one.lecturer, "field"),
        "class_hours": one.class_hours if one.class_hours <= MOST_HOURS else "",  # a camp's, from its length: so it stays
        "capacity": one.capacity,
        "waiting_list": "是" if one.waiting_list else "否",
        LEAD: int(lead) if whole else _moment(closes),
        "online_link": one.online_link or "",
        "zone": one.zone if one.zone != there.settings.zone else "",
        "state": STATES.get(one.state, one.state),
    }


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}".removesuffix(":00")


def _moment(moment: datetime) -> str:
    return f"{moment.date()} {_clock(moment)}"

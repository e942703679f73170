"""Coverage in words, as a table and as a picture.

The table is for spreadsheets, the picture for a report that is printed: an SVG of our own with its text as text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple
from xml.sax.saxutils import escape

from content import divisions, sheets
from content.coverage import Coverage, Row
from content.vocabulary import ORGANISATIONS, Label

TERMS: Mapping[str, Label] = {"spring": Label("春季学期", "spring term"), "autumn": Label("秋季学期", "autumn term")}
SOURCES: Mapping[str, Label] = {
    "K": Label("康巴什区方案", "the plan of Kangbashi"),
    "J": Label("黔江区方案", "the plan of Qianjiang"),
    "P": Label("平凉市方案", "the plan of Pingliang"),
    "default": Label("未设定：取各地方案中的最低值", "not set: the lowest figures that any plan asks"),
    "staff": Label("工作人员设定", "set by staff"),
}
RULES = Label(
    "只计已结束的场次；已取消、草稿和尚未结束的不计，已发布、尚未举办的另列为“已排”。年度为场次当地日期的公历年，"
    "学期按起止日期。场次计入举办它的站点或学校；未填的，计入主办机构。只对教师或工作人员的系列不计；"
    "未写明对象的，视为面向家长和儿童。人次：填了现场人数的以它为准，否则为签到人数加未预约到场人数；同一人来两次计两次。"
    "主题、对象、“有条件”的标记和家庭数，都以查询时为准。已撤销的区划代码计入其继任区划。",
    "Counted are sessions that are finished. Cancelled ones, drafts and those not over yet are not; what is published and still "
    "to come stands apart as planned. The year is the calendar year of the session's local date; a term runs between its dates. "
    "A session counts for its host or, without one, for the organisation that gives it. A series for teachers or staff only is "
    "left out; one that names no audience is for parents and children. People: the organiser's headcount when there is one, else "
    "those checked in and walk-ins; who comes twice counts twice. Topics, audiences, marks and numbers of families are those of "
    "the moment of asking. A retired division code counts under its successor.",
)


LACKS = {"sessions": "场", "trainings": "场家长培训", "class_hours": "课时", "classes": "次课"}
SHORT = {
    "able": "有条件的站点、家长学校已开展",
    "mental_health": "站点开展心理健康教育",
    "schools": "学校、幼儿园已培训家长",
    "families": "家长受训面（家庭）",
    "class_hours": "学校学期课时达标",
    "classes": "学校按周期开课",
}


class Words(NamedTuple):
    """What a share is called, and what it is a share of."""

    label: Label
    numerator: Label
    denominator: Label


WORDS: Mapping[str, Words] = {
    "able": Words(
        Label("有条件的站点和家长学校开展面向家长和儿童的教育", "stations and parent schools able to do so that hold sessions"),
        Label("其中，本年场次达到规定数的", "of these, those that held as many sessions this year as are asked"),
        Label("标记为“有条件”的站点、学校、幼儿园", "stations, schools and kindergartens marked as able to do so"),
    ),
    "mental_health": Words(
        Label("开展心理健康教育的站点", "stations that hold mental-health education"),
        Label("其中，本年至少有一场心理健康主题的", "of these, those with a session this year on a mental-health topic"),
        Label("全部站点（不论是否标记“有条件”）", "all stations, marked as able or not"),
    ),
    "schools": Words(
        Label("培训家长的学校和幼儿园", "schools and kindergartens that train parents"),
        Label("其中，本年面向家长的场次达到规定数的", "of these, those with as many sessions for parents as are asked"),
        Label("全部学校和幼儿园", "all schools and kindergartens"),
    ),
    "families": Words(
        Label("家长受训面", "families trained"),
        Label(
            "各校本年家长场次的人次，每校至多计到其家庭数（同一家长来两次计两次，所以实际只会更低）",
            "people at these schools' sessions for parents this year, of each school no more than it has families (who came "
            "twice counts twice, so the true share is no higher)",
        ),
        Label("填了家庭数的学校和幼儿园的家庭总数", "families of those schools and kindergartens that say how many"),
    ),
    "class_hours": Words(
        Label("学期课时达标的学校", "schools with the class-hours of the term"),
        Label("其中，本学期课时达到规定数的", "of these, those that held as many class-hours this term as are asked"),
        Label("计划对学期课时有要求的学校", "schools of which a plan asks class-hours a term"),
    ),
    "classes": Words(
        Label("按周期开课的学校", "schools that hold a class in every spell of weeks"),
        Label(
            "其中，本学期到今天为止每个已满的周期（如每两周）都有课的",
            "of these, those with a class in every whole spell (say, two weeks) of the term that is over by today",
        ),
        Label("计划要求每若干周一课的学校", "schools of which a plan asks a class in every so many weeks"),
    ),
}


def place_name(division: str) -> str:
    """A division as people call it."""
    return divisions.get(division).name if divisions.known(division) else "全国"


# --- the table -------------------------------------------------------------------------------------------------------

HEAD = (
    "区划代码", "区划", "编号", "名称", "类别", "有条件", "家庭数", "本年场次", "本年课时", "本年人次", "心理健康场次",
    "家长场次", "家长场次人次", "学期场次", "学期课时", "学期人次", "已排场次", "学期已排课时", "还差场次", "还差家长场次",
    "还差家庭", "还差课时", "缺课周期",
)  # fmt: skip
SHARE_HEAD = ("区划代码", "区划", "指标", "分子", "分母", "百分比", "目标", "还差", "分子含义", "分母含义")


def table(found: Coverage) -> bytes:
    """A row for each place, as CSV (UTF-8 with a byte order mark, for Excel)."""
    return sheets.to_csv([HEAD, *(_cells(row, found.today) for row in found.rows)])


def _cells(row: Row, today: date) -> list[str | int]:
    place, families = row.place, "" if row.place.families is None else row.place.families
    return [
        place.division, place_name(place.division), place.id, place.name, ORGANISATIONS[place.kind].zh,
        "是" if place.able else "", families,
        row.year.sessions, row.year.class_hours, row.year.people, row.mental_sessions, row.trainings, row.trained,
        row.term.sessions, row.term.class_hours, row.term.people, row.planned, row.planned_class_hours,
        *row.short(today).values(),
    ]  # fmt: skip


def share_table(found: Coverage) -> bytes:
    """A row for each indicator of the division and of those below it, as CSV."""
    rows: list[Sequence[str | int]] = [SHARE_HEAD]
    for total in (found.total, *found.below):
        own = total is not found.total and total.division == found.division
        name = f"{place_name(total.division)}{'（本级）' if own else ''}"
        for one in total.shares:
            words, percent = WORDS[one.code], "" if one.percent is None else f"{one.percent}%"
            rows.append(
                [
                    total.division or divisions.COUNTRY,
                    name,
                    words.label.zh,
                    one.numerator,
                    one.denominator,
                    percent,
                    f"{one.target}%",
                    one.missing,
                    words.numerator.zh,
                    words.denominator.zh,
                ]  # fmt: skip
            )
    return sheets.to_csv(rows)


# --- the picture -----------------------------------------------------------------------------------------------------

WIDTH, EDGE, LABEL, BAR = 960, 32, 300, 390  # user units; a bar begins after its label and is BAR long at full
MOST_BARS = 40  # of places or divisions; an A4 page holds them, the table holds all
INK, SOFT, BARS = "#111111", "#555555", "#1f4e79"  # dark enough to be told apart on a grey printer
FONTS = "'Noto Sans SC','Noto Sans CJK SC','Source Han Sans SC','PingFang SC','Microsoft YaHei',SimHei,sans-serif"
UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # no XML can hold them


def _em(text: str) -> float:
    """About how wide a text is, in its own size: Chinese characters are square."""
    return sum(1.0 if ord(one) >= 0x2E80 else 0.56 for one in text)


def _fit(text: str, em: float) -> str:
    """A text cut to a width, with an ellipsis."""
    if _em(text) <= em:
        return text
    while text and _em(text) > em - 1:
        text = text[:-1]
    return f"{text}…"


def _wrap(text: str, em: float) -> Iterator[str]:
    line = ""
    for one in text:
        if _em(line + one) > em and one not in "，。；：、）”":  # these begin no line
            yield line
            line = ""
        line += one
    yield line


class _Page:
    """An SVG that grows downward."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.y = EDGE

    def text(self, x: float, text: str, size: int = 14, colour: str = INK, bold: bool = False, y: float = 0) -> None:
        weight = ' font-weight="700"' if bold else ""
        plain = escape(UNFIT.sub("", text))
        self.parts.append(f'<text x="{x:g}" y="{y or self.y:g}" font-size="{size}" fill="{colour}"{weight}>{plain}</text>')

    def bar(self, label: str, share: float, said: str, target: float | None = None) -> None:
        """One line: a label, a bar of `share` (0 to 1) with a mark at `target`, and what is said beside it."""
        top, x = self.y, EDGE + LABEL
        self.text(EDGE, _fit(label, (LABEL - 12) / 14), y=top + 15)
        self.parts.append(f'<rect x="{x}" y="{top}" width="{BAR}" height="20" fill="#ffffff" stroke="#999999"/>')
        if share > 0:
            self.parts.append(f'<rect x="{x}" y="{top}" width="{BAR * min(1, share):.1f}" height="20" fill="{BARS}"/>')
        if target is not None:
            at = x + BAR * target
            self.parts.append(f'<path d="M{at:.1f} {top - 4}v28" stroke="{INK}" stroke-width="3"/>')
        self.text(x + BAR + 12, _fit(said, (WIDTH - EDGE - x - BAR - 12) / 13), 13, y=top + 15)
        self.y += 30

    def written(self, title: str) -> bytes:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xml:lang="zh-Hans" role="img" viewBox="0 0 {WIDTH} {self.y:g}" '
            f'width="{WIDTH}" height="{self.y:g}" font-family="{FONTS}"><title>{escape(UNFIT.sub("", title))}</title>'
            f'<rect width="{WIDTH}" height="{self.y:g}" fill="#ffffff"/>{"".join(self.parts)}</svg>\n'
        ).encode()


def picture(found: Coverage) -> bytes:
    """The division's indicators as bars with their targets, then what each division below it (of a county: each place) has held
    this year, those that lack something first; MOST_BARS of them at most. SVG, in Chinese."""
    page, name = _Page(), place_name(found.division)
    title = f"{name} {found.year} 年家庭教育覆盖情况"
    page.y += 18
    page.text(EDGE, title, 24, bold=True)
    page.y += 28
    span = f"{TERMS[found.term].zh} {found.first} 至 {found.last}"
    left = found.days_left(found.end)
    page.text(EDGE, f"截至 {found.today} · 距年底 {left} 天 · {span} · 目标来源：{SOURCES[found.target.source].zh}", 13, SOFT)
    page.y += 26
    for one in found.total.shares:
        if one.denominator:
            more = f" · 还差 {one.missing}" if one.missing else ""
            said = f"{one.numerator}/{one.denominator} = {one.percent}%{more}"
            page.bar(SHORT[one.code], one.numerator / one.denominator, said, one.target / 100)
    page.text(EDGE + LABEL, "粗竖线：目标", 12, SOFT, y=page.y + 8)
    page.y += 40
    bars = _divisions(found) if {one.division for one in found.below} - {found.division} else _places(found)
    page.text(EDGE, "各区划本年场次" if bars and bars[0].below else "各站点、学校本年场次", 17, bold=True)
    page.y += 16
    most = max([1, *(bar.sessions for bar in bars)])
    for bar in sorted(bars, key=lambda bar: not bar.lacks)[:MOST_BARS]:
        page.bar(bar.label, bar.sessions / most, f"{bar.sessions} 场 · {bar.said}")
    if len(bars) > MOST_BARS:
        page.text(EDGE, f"另有 {len(bars) - MOST_BARS} 个未画出，见表格。", 13, SOFT, y=page.y + 10)
        page.y += 20
    page.y += 24
    for line in _wrap(f"统计口径：{RULES.zh}", (WIDTH - 2 * EDGE) / 12):
        page.text(EDGE, line, 12, SOFT)
        page.y += 18
    page.y += EDGE - 18
    return page.written(title)


class _Bar(NamedTuple):
    label: str
    sessions: int
    said: str
    lacks: bool
    below: bool


def _places(found: Coverage) -> list[_Bar]:
    bars = []
    for row in found.rows:
        short = row.short(found.today)
        lacks = [f"还差 {short[name]} {unit}" for name, unit in LACKS.items() if short[name]]
        said = "，".join(lacks) or f"{row.year.class_hours} 课时 · {row.year.people} 人次"
        bars.append(_Bar(row.place.name, row.year.sessions, said, bool(lacks), False))
    return bars


def _divisions(found: Coverage) -> list[_Bar]:
    bars = []
    for total in found.below:
        missing = sum(one.missing for one in total.shares if one.code in {"able", "schools"})
        sums = [year for _, year, _ in total.held.values()]
        own = "（本级）" if total.division == found.division else ""
        said = f"还差 {missing} 个机构" if missing else f"{sum(one.people for one in sums)} 人次"
        label = f"{place_name(total.division)}{own}"
        bars.append(_Bar(label, sum(one.sessions for one in sums), said, bool(missing), True))
    return bars

"""What is printed after a session: the certificate, and the summary for the lecturer. Each one page of A4, in zh-Hans or en."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from api.sessions import session_out
from api.shapes import reader, settings
from api.sharewords import Reading
from content import courses, feedback, printing, staff
from content.certificates import Certificate
from content.courses import CourseSession
from content.failures import NotFound
from content.printing import GREY, MARK, Line
from content.published import ANY
from content.summaries import Summary
from content.vocabulary import Label

MOST_WORDS = 1500  # characters of comments on one page; the others are in the JSON
WORDS = {
    "certificate": Label("家庭教育学习证明", "Certificate of Attendance"),
    "attended": Label(
        "参加了下列家庭教育活动，共 {hours} 课时。", "attended this family-education session, {hours} class-hours."
    ),
    "attended_all": Label(
        "参加了下列系列课程中的 {sessions} 场，共 {hours} 课时。",
        "attended {sessions} sessions of this series of family-education courses, {hours} class-hours in all.",
    ),
    "when": Label("时间", "When"),
    "where": Label("地点", "Where"),
    "lecturer": Label("主讲", "Lecturer"),
    "organiser": Label("主办", "Organiser"),
    "colon": Label("：", ": "),
    "check": Label("扫码核验", "Scan to verify"),
    "number": Label("编号 {number}", "No. {number}"),
    "no_name": Label(
        "姓名由领取人填写，本服务不保存、不核对姓名；核验结果中没有姓名。",
        "The name was entered by the holder. This service neither keeps nor compares names, and verifying shows none.",
    ),
    "summary": Label("课后小结", "Session Summary"),
    "capacity": Label("名额 {n}", "Seats: {n}"),
    "booked": Label("报名 {n} 人", "Booked: {n}"),
    "waited": Label("候补未得位 {n} 家", "Families still waiting: {n}"),
    "checked_in": Label("签到 {n} 人", "Checked in: {n}"),
    "walk_ins": Label("现场加入 {n} 人", "Walk-ins: {n}"),
    "no_shows": Label("报名未到 {n} 人", "Booked and not checked in: {n}"),
    "headcount": Label("主办方清点 {n} 人", "The organiser's own count: {n}"),
    "came": Label("到场 {n} 人", "People who came: {n}"),
    "hours": Label("{n} 课时", "Class-hours: {n}"),
    "so_far": Label("尚未结束，数字到现在为止", "Not over yet: the numbers so far"),
    "off": Label("已取消", "Cancelled"),
    "said": Label(
        "家长反馈（不记名，每满 5 份汇总一次，共 {n} 份）", "What families said (anonymous, told by fives; {n} answers)"
    ),
    "too_few": Label(
        "家长反馈：不足 5 份，为保护家长不作显示。", "What families said: fewer than five answers, so none is told."
    ),
    "comments": Label("家长的话", "In their words"),
    "more": Label("另有 {n} 条，请在网页上查看。", "{n} more are on the web."),
    "asked": Label("报名时的回答", "Answers given when booking"),
    "no_names": Label("本页没有姓名和电话。", "No names and no telephones are on this page."),
}


def say(reading: Reading, word: str, **values: Any) -> str:
    """One of WORDS, filled."""
    return reading.label(WORDS[word]).format_map(values)


def told(session: CourseSession, reading: Reading) -> dict[str, Any]:
    """Title, series, venue and lecturer of a session in the reader's language, also while it is not published."""
    return session_out(reader().current, courses.session_item(session).content or {}, reading.wanted)


def organiser(session: CourseSession, reading: Reading) -> str:
    """The organiser as the public sees it; else by the organisation's name."""
    for kind in ("series", "invited_series"):
        item = reader().current.get(kind, session.series).get(ANY)
        if item and item.content and item.content["organiser_name"]:
            return reading.text(item.content["organiser_name"])["text"]
    try:
        return str(staff.organisation(session.organisation).name)
    except NotFound:
        return ""


def _span(session: CourseSession, reading: Reading) -> str:
    zone = ZoneInfo(session.zone)
    return reading.span(session.starts_at.astimezone(zone), session.ends_at.astimezone(zone))


def _fact(reading: Reading, word: str, value: str) -> list[str]:
    return [say(reading, word) + reading.label(WORDS["colon"]) + value] if value else []


def _each(values: Sequence[str]) -> str:
    return "、".join(dict.fromkeys(value for value in values if value))


def certificate(made: Certificate, name: str, reading: Reading) -> bytes:
    """The certificate with this name, or with a line to write one on. The name goes into these bytes and nowhere else."""
    facts, sessions = made.facts, [told(one, reading) for one in made.attended]
    whole = facts.kind == "series"
    title, above = sessions[0]["series"]["title"], sessions[0]["title"]
    venues = [" ".join(filter(None, ((one["venue"] or {}).get(part, "") for part in ("name", "address")))) for one in sessions]
    when = _span(made.attended[0], reading)
    if whole:
        first, last = (reading.day(day) for day in (facts.first, facts.last))
        when = f"{first} – {last}" if first != last else first
    rows = [
        *_fact(reading, "when", when),
        *_fact(reading, "where", _each(venues)),
        *_fact(reading, "lecturer", _each([(one["lecturer"] or {}).get("name", "") for one in sessions])),
        *_fact(reading, "organiser", organiser(made.attended[0], reading)),
    ]
    lines = [
        Line(say(reading, "certificate"), 30, bold=True, colour=MARK, gap=0, centred=True),
        Line(name or "＿" * 10, 26, bold=True, gap=7, centred=True),
        Line(
            say(reading, "attended_all" if whole else "attended", hours=facts.class_hours, sessions=facts.sessions),
            15,
            gap=5,
            centred=True,
        ),
        Line(title, 20, bold=True, gap=5, centred=True),
        *([Line(above, 16, gap=1, centred=True)] if not whole and above != title else []),
        *(Line(row, 13, gap=5 if not n else 1, centred=True) for n, row in enumerate(rows)),
    ]
    key, _, digits = made.number.rpartition(".")
    return printing.pdf(
        lines,
        title=f"{say(reading, 'certificate')} · {title}",
        at=max(one.ends_at for one in made.attended),
        qr=settings().public(f"/k/{made.number}"),
        under_qr=(say(reading, "check"), say(reading, "number", number=f"{key}."), digits),
        footer=(say(reading, "no_name"),),
        frame=True,
        landscape=True,
        language=reading.ui,
    )


def counts(found: Summary) -> list[tuple[str, int]]:
    """The numbers of a session, by their word."""
    session = found.session
    rows = [
        ("capacity", session.capacity),
        ("booked", session.seats_taken),
        ("waited", session.waiting),
        ("checked_in", session.attended),
        ("walk_ins", session.walk_ins),
        ("no_shows", found.no_shows),
        ("headcount", session.headcount),
    ]
    return [(word, value) for word, value in rows if value is not None]


def summary(found: Summary, reading: Reading, now: datetime) -> bytes:
    """The summary on one page. Comments beyond MOST_WORDS characters are left to the web."""
    session, about = found.session, told(found.session, reading)
    venue, lecturer = ((about[part] or {}).get("name", "") for part in ("venue", "lecturer"))
    title, above = about["title"], about["series"]["title"]
    lines = [Line(say(reading, "summary"), 12, colour=GREY, gap=0)]
    lines += [Line(above, 12, gap=2, colour=MARK)] if above != title else []
    lines.append(Line(title, 22, bold=True, gap=1))
    if session.state == "cancelled" or session.ends_at > now:
        lines.append(Line(say(reading, "off" if session.state == "cancelled" else "so_far"), 13, bold=True, colour=printing.WARN))
    facts = (
        _fact(reading, "when", _span(session, reading)) + _fact(reading, "where", venue) + _fact(reading, "lecturer", lecturer)
    )
    lines += [Line(row, 12, gap=1) for row in facts]
    lines.append(Line(f"{say(reading, 'came', n=found.came)} · {say(reading, 'hours', n=session.class_hours)}", 16, True, gap=6))
    lines.append(Line(" · ".join(say(reading, word, n=value) for word, value in counts(found)), 12, gap=1))
    lines += _said(found, reading)
    if found.asked:
        lines.append(Line(say(reading, "asked"), 13, bold=True, gap=6))
    for one in found.asked:
        chosen = [f"{reading.text(o['text'])['text']} {one.counts[o['code']]}" for o in one.question["options"]]
        lines.append(Line(reading.text(one.question["text"])["text"], 11, gap=2))
        lines.append(Line(" · ".join(chosen), 11, gap=0.5))
    lines += _comments(found, reading)
    return printing.pdf(
        lines, title=f"{say(reading, 'summary')} · {title}", at=now.astimezone(UTC), footer=(say(reading, "no_names"),),
        language=reading.ui,
    )  # fmt: skip


def _said(found: Summary, reading: Reading) -> list[Line]:
    if found.said is None:
        return [Line(say(reading, "too_few"), 12, gap=6)]
    lines = [Line(say(reading, "said", n=found.said.answers), 13, bold=True, gap=6)]
    for name, chosen in found.said.counts.items():
        question = feedback.QUESTIONS[name]
        lines.append(Line(reading.label(question.text), 11, gap=2))
        row = [f"{reading.label(label)} {chosen[option]}" for option, label in question.options.items()]
        lines.append(Line(" · ".join(row), 11, gap=0.5))
    return lines


def _comments(found: Summary, reading: Reading) -> list[Line]:
    comments = found.said.comments if found.said else []
    shown: list[str] = []
    while len(shown) < len(comments) and sum(map(len, shown)) + len(comments[len(shown)]) <= MOST_WORDS:
        shown.append(comments[len(shown)])
    lines = [Line(say(reading, "comments"), 13, bold=True, gap=6)] if comments else []
    lines += [Line(f"· {text}", 11, gap=1) for text in shown]
    left = len(comments) - len(shown)
    return lines + ([Line(say(reading, "more", n=left), 10, colour=GREY, gap=1)] if left else [])

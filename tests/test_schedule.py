"""A term's schedule from CSV, as staff's spreadsheets save it: all rows or none, as drafts; a second run changes nothing."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from content import courses, lecturers, records, schedule, scheduleout, sessions, sheets, store
from content.courses import CourseSession
from content.failures import Stale
from content.settings import Settings
from tests.test_courses import LIBRARY, SERIES, federation, public

HEAD = "课程,编号,日期,开始,结束,场所,场地,地址,讲师,讲师专长,名额,提前几小时截止"
DAY = datetime.now(ZoneInfo("Asia/Shanghai")).date() + timedelta(days=60)
ROW = f"家长学校,,{DAY},19:00,20:30,进社区,活动室,示例路1号,王老师,家庭教育,30,12"


@pytest.fixture
def series(clean: None) -> str:
    """Id of a published series called 家长学校."""
    federation()
    made = courses.create_series(SERIES, "ann")
    return str(courses.publish_series(made.id, "ann", second_person=False).id)


@pytest.fixture
def term(tmp_path: Path, settings: Settings) -> Any:
    """Imports what it is given: bytes, or lines under the usual head."""

    def run(*lines: str, head: str = HEAD, data: bytes = b"", dry_run: bool = False) -> list[dict[str, Any]]:
        file = tmp_path / "term.csv"
        file.write_bytes(data or "\r\n".join((head, *lines)).encode())
        return schedule.import_file(file, "ann", settings, dry_run)

    return run


def outcomes(rows: list[dict[str, Any]]) -> list[str]:
    return [row["outcome"] for row in rows]


def reasons(row: dict[str, Any]) -> str:
    return " ".join(text["en"] for text in row["messages"])


def count() -> int:
    return int(CourseSession.rows().count_documents({}))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_schedule_as_spreadsheets_save_it(term: Any, series: str, encoding: str) -> None:
    y, m, d = DAY.year, DAY.month, DAY.day
    zh = [
        HEAD,
        f"家长学校,a,{y}/{m}/{d},９：00,10:30:00,社区,“一起长大”活动室,示例路1号,王老师,家庭教育,３０,12",
        ",,,,,,,,,,,",
        f'"Parent school",b,{y}年{m}月{d}日,14:00,15:30,online,,,,,200,',
        f"{series},,{y}-{m:02}-{d:02},19:00,20:30,进学校,,,,,50",  # shorter than the head
        "",
    ]
    data = "\r\n".join(zh).encode(encoding)
    assert outcomes(term(data=data, dry_run=True)) == ["new"] * 3 and count() == 0
    rows = term(data=data)
    assert [(row["line"], row["outcome"]) for row in rows] == [(2, "new"), (4, "new"), (5, "new")]
    assert [row["key"] for row in rows] == [f"{series}~a", f"{series}~b", f"{series}~{y}{m:02}{d:02}-1900"]
    first, second = sessions.session(f"{series}~a"), sessions.session(f"{series}~b")
    assert courses.local(first.starts_at, first.zone) == f"{DAY}T09:00:00+08:00"
    assert first.starts_at - first.booking_closes_at == timedelta(hours=12)
    assert (first.state, first.place, first.capacity, first.organisation) == ("draft", "community", 30, "org1")
    assert first.venue == {"name": {"zh-Hans": "“一起长大”活动室"}, "address": {"zh-Hans": "示例路1号"}}
    assert first.lecturer == {"name": {"zh-Hans": "王老师"}, "field": {"zh-Hans": "家庭教育"}}
    assert (second.place, second.venue, second.booking_closes_at) == ("online", {}, second.starts_at)
    assert public("session", first.id) is None
    trail = records.Audit.rows().count_documents({})
    assert outcomes(term(data=data)) == ["unchanged"] * 3
    assert records.Audit.rows().count_documents({}) == trail


def test_the_template_is_a_schedule_of_the_starter_library(term: Any, clean: None, settings: Settings) -> None:
    sessions.load_library(LIBRARY, settings)
    today = date.today()  # noqa: DTZ011  (any day will do)
    template = scheduleout.template(today + timedelta(days=1))
    [row] = term(data=sheets.to_csv(template))
    assert row["outcome"] == "refused" and "delete it" in reasons(row) and "删除" in row["messages"][0]["zh-Hans"]
    filled = ["王老师" if cell == "示例讲师" else cell for cell in template[1]]
    assert outcomes(term(data=sheets.to_csv([template[0], filled]))) == ["new"]
    english = [name.upper() for name in scheduleout.FILLED_IN]
    filled = ["王老师" if cell == "示例讲师" else cell for cell in scheduleout.template(today + timedelta(days=8))[1]]
    assert outcomes(term(data=sheets.to_csv([english, filled]))) == ["new"]


def test_a_lecturers_name_that_is_nearly_one_of_the_library_is_told(term: Any, series: str) -> None:
    for name in ("欧阳明月教授", "张伟", "张玮", "Bat-Erdene"):
        about = {"kind": "university", "organisation": "org1", "division": "150603", "state": "published"}
        records.create(lecturers.Lecturer(name={"zh-Hans": name}, **about), "ann")

    def told(name: str) -> str:
        [row] = term(f"家长学校,,{DAY},19:00,20:30,进社区,活动室,,{name},,30,", dry_run=True)
        return " ".join(text["en"] for text in row["messages"] if "expert library" in text["en"])

    assert "“欧阳明月教授”" in told("欧阳明月") and "“欧阳明月教授”" in told("欧阳 明月") and "“张伟”" in told("张伟老师")
    assert "“Bat-Erdene”" in told("Bat Erdene")
    assert [told(name) for name in ("张伟", "张 三", "欧阳", "赵敏", "")] == [""] * 5


def test_one_bad_row_keeps_all_out_and_every_fault_is_named(term: Any, series: str) -> None:
    days = [DAY + timedelta(days=n) for n in range(300)]
    lines = [f"家长学校,,{day},19:00,20:30,进社区,活动室,,王老师,,30," for day in days]
    lines[233] = f"家长学校,no spaces,{days[0].year}-02-30,19:00,25:00,月球,,,,,0,-1"
    rows = term(*lines)
    assert count() == 0
    bad = [row for row in rows if row["outcome"] == "refused"]
    assert len(rows) == 300 and [row["line"] for row in bad] == [235]
    told = reasons(bad[0])
    for column in ("编号", "日期", "结束", "场所", "名额", "提前几小时截止"):
        assert f"“{column}”" in told
    assert "community" in told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "Still missing"),
        (ROW.replace("20:30", "19:00"), "“结束” is out of range"),
        (ROW.replace(str(DAY), "2020-01-04"), "in the past"),
        (ROW.replace(str(DAY), "11/3/2026"), "“日期” is not in the right form"),
        (ROW.replace(",30,", ",,"), "“名额” is required"),
        (ROW.replace(",30,", ",1e3,"), "“名额” is out of range"),
        (ROW + ",date,more", "“more” is not known"),
        (ROW.replace("家长学校", "家长学较"), "“课程” must be one of: 家长学校, Parent school."),
        (ROW.replace("王老师", "王" * 301), "“讲师” is out of range"),
        (f"{ROW}\n{ROW}", "the same as line 2"),
    ],
)
def test_what_is_refused(term: Any, series: str, line: str, told: str) -> None:
    rows = term(line)
    assert outcomes(rows)[-1] == "refused" and told in reasons(rows[-1])
    assert count() == 0


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"PK\x03\x04\x00\x00", "save it as XLSX again"),
        (b"\xff\xfe\x00", "save it as XLSX or CSV UTF-8"),
        ('课程,"a"b\n'.encode(), "save it as XLSX or CSV UTF-8"),
        (b" " * (sheets.MOST_BYTES + 1), f"{sheets.MOST_BYTES} bytes at most"),
        ("课程,日期,date,开始,结束,场所,费用\n".encode(), "“date” is not in the right form"),
        ("课程,日期,开始,结束,场所,费用\n".encode(), "“费用” is not known"),
        (b"\n\n", "“名额” is required"),
    ],
)
def test_a_file_that_is_no_schedule(term: Any, clean: None, data: bytes, told: str) -> None:
    rows = term(data=data)
    assert outcomes(rows) == ["refused"] and told in reasons(rows[0])


def test_a_title_of_two_series_needs_the_id(term: Any, series: str) -> None:
    other = courses.create_series(SERIES, "ann")
    rows = term(ROW)
    assert outcomes(rows) == ["refused"] and series in reasons(rows[0]) and other.id in reasons(rows[0])
    assert outcomes(term(ROW.replace("家长学校", other.id))) == ["new"]
    courses.cancel_series(other.id, "ann")
    assert outcomes(term(ROW)) == ["new"]
    row = ROW.replace("家长学校", other.id)
    assert outcomes(term(row)) == ["unchanged"]
    assert "cancelled" in reasons(term(row.replace(",30,", ",31,"))[0])


def test_drafts_follow_the_file_and_what_families_see_does_not(term: Any, series: str, settings: Settings) -> None:
    line = ROW.replace("家长学校,,", "家长学校,a,")
    key = term(line)[0]["key"]
    english = {"name": {"zh-Hans": "活动室", "en": "Room"}, "address": {"zh-Hans": "示例路1号"}}
    sessions.edit_session(key, {"venue": english, "title": {"zh-Hans": "第一讲"}, "online_link": "https://a.example/1"}, "ann")
    assert outcomes(term(line)) == ["unchanged"]
    # moved, with fewer columns: what the file leaves out stays, what it empties goes, other languages stay
    head, short = "课程,编号,日期,开始,结束,场所,场地,地址,名额", f"家长学校,a,{DAY},18:00,19:00,进社区,礼堂,,40"
    assert outcomes(term(short, head=head)) == ["changed"]
    moved = sessions.session(key)
    assert moved.venue == {"name": {"zh-Hans": "礼堂", "en": "Room"}}
    assert (moved.capacity, moved.title, moved.online_link) == (40, {"zh-Hans": "第一讲"}, "https://a.example/1")
    assert moved.starts_at - moved.booking_closes_at == timedelta(hours=12)
    assert moved.lecturer["name"] == {"zh-Hans": "王老师"}
    sessions.publish_session(key, "ann")
    seen = public("session", key)
    assert outcomes(term(short, head=head)) == ["unchanged"]
    rows = term(short.replace("18:00", "17:00"), f"家长学校,b,{DAY},18:00,19:00,进社区,,,40", head=head)
    assert outcomes(rows) == ["refused", "new"] and "the session is published" in reasons(rows[0])
    assert public("session", key) == seen and count() == 1


def test_what_is_only_warned_of(term: Any, series: str, settings: Settings, tmp_path: Path) -> None:
    def row(key: str, start: str, end: str, venue: str, lecturer: str) -> str:
        return f"家长学校,{key},{DAY},{start},{end},进社区,{venue},,{lecturer},,30,"

    table = (
        row("a", "09:00", "12:00", "礼堂", "王老师"),
        row("b", "12:00", "13:00", "礼堂", "王老师"),
        row("c", "10:00", "11:00", "礼堂", "李老师"),
        row("d", "11:30", "13:00", "教室", "王老师"),
        row("e", "09:00", "18:00", "", ""),
    )
    rows = term(*table)
    assert outcomes(rows) == ["new"] * 5
    clashes = [[text["en"] for text in one["messages"] if "overlapping" in text["en"]] for one in rows]
    taken = {2: "“礼堂” is taken at an overlapping time in line 2.", 4: "“礼堂” is taken at an overlapping time in line 4."}
    wang = [f"“王老师” is taken at an overlapping time in line {line}." for line in (2, 3, 5)]
    assert clashes == [[taken[4], wang[2]], [wang[2]], [taken[2]], [wang[0], wang[1]], []]
    # what is planned already is told by name
    rows = term(row("f", "09:30", "10:30", "礼堂", ""))
    assert any("“家长学校”" in text["zh-Hans"] or "《家长学校》" in text["zh-Hans"] for text in rows[0]["messages"])
    term(*table, dry_run=True)
    # the district's own zone and language
    far = replace(settings, zone="Asia/Urumqi", language="ug")
    rows = schedule.import_file(tmp_path / "term.csv", "ann", far)
    assert outcomes(rows) == ["changed"] * 5
    assert courses.local(sessions.session(rows[0]["key"]).starts_at, "Asia/Urumqi") == f"{DAY}T09:00:00+06:00"


def test_what_changes_between_check_and_write_keeps_all_out(term: Any, series: str, settings: Settings) -> None:
    lines = [f"家长学校,k{n},{DAY + timedelta(days=n)},19:00,20:30,进社区,,,,,30," for n in range(30)]
    term(lines[29])
    draft, before = f"{series}~k29", records.Audit.rows().count_documents({})
    data = "\r\n".join((HEAD, *lines)).replace(",30,", ",31,").encode()

    def somebody(act: Any) -> Any:
        """Acts when the last row is asked about: all has been read by then, and nothing written."""
        asked = 0

        def may(permission: str, organisation: str, division: str) -> bool:
            nonlocal asked
            asked += permission == "course.write"
            if asked == 30:
                act()
            return True

        return may

    def edits() -> None:
        sessions.edit_session(draft, {"capacity": 5}, "bob")

    with pytest.raises(Stale):
        schedule.import_table(data, "term.csv", "ann", settings, may=somebody(edits))
    assert count() == 1 and sessions.session(draft).capacity == 5
    assert records.Audit.rows().count_documents({}) == before + 1
    with pytest.raises(Stale):
        schedule.import_table(data, "term.csv", "ann", settings, may=somebody(lambda: courses.cancel_series(series, "bob")))
    assert count() == 1


@pytest.mark.slow  # 12 s: six processes
def test_a_killed_import_has_written_all_or_nothing(term: Any, series: str, settings: Settings, tmp_path: Path) -> None:
    lines = [f"家长学校,k{n},{DAY + timedelta(days=n)},19:00,20:30,进社区,,,,,30," for n in range(1500)]
    term(*lines, dry_run=True)
    command = [sys.executable, "-m", "api.cli", "import", "schedule", str(tmp_path / "term.csv")]
    found = set()
    for wait in (1.5, 2.0, 2.5, 3.0, 3.5):
        child = subprocess.Popen(command, env=settings.environment(), stdout=subprocess.DEVNULL)
        time.sleep(wait)
        child.kill()
        child.wait()
        if "MONGODB_URI" not in os.environ:  # a server of our own: it would hold a dead client's transaction for 60 s
            store.client().admin.command("killAllSessions", [])
        found.add(count())
    assert found <= {0, 1500}
    done = subprocess.run(command, env=settings.environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert count() == records.Audit.rows().count_documents({"kind": "session"}) == 1500
    assert store.database()["course_sessions"].distinct("state") == ["draft"]

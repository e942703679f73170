"""A term's table over HTTP: template, dry run, drafts, export and back; then many sessions published at once, as previewed."""

import io
import time as time_module
import zipfile
from datetime import datetime, time, timedelta
from typing import Any

import pytest
from openpyxl import Workbook, load_workbook

from content import batches, courses, lecturers, records, schedule, scheduleout, sessions, sheets, staff, store
from content.courses import CourseSession
from content.failures import Invalid
from content.published import Counter
from content.sheets import CSV, XLSX
from notifications import seasons
from tests.site import Site
from tests.test_courses import SERIES, federation
from tests.test_schedule import DAY

HEADS = [schedule.COLUMNS[name] for name in scheduleout.FILLED_IN]
NS = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def row(**cells: Any) -> list[Any]:
    """One row under HEADS."""
    usual = {
        "series": "家长学校", "date": DAY, "start": time(19), "end": time(20, 30), "place": "进社区", "venue": "活动室",
        "address": "示例路1号", "lecturer": "王老师", "capacity": 30,
    }  # fmt: skip
    return [{**usual, **cells}.get(name, "") for name in scheduleout.FILLED_IN]


def book(*rows: list[Any]) -> bytes:
    return sheets.to_xlsx(sheets.Sheet("课程安排", [HEADS, *rows]))


@pytest.fixture
def desk(site: Site) -> Site:
    """`fed` plans courses for its federation, `far` for another one; 家长学校 is a published series of the first."""
    federation()
    staff.Organisation(id="org2", name="别处妇联", kind="federation", division="500114", created_by="ann").save()
    site.person("fed", "organiser", organisation="org1")
    site.person("far", "organiser", organisation="org2")
    made = courses.create_series(SERIES, "ann")
    site.ids["series"] = courses.publish_series(made.id, "ann", second_person=False).id
    return site


def send(site: Site, data: bytes, by: str = "fed", kind: str = XLSX, dry: str = "false") -> Any:
    reply = site.call("POST", f"/v1/staff/schedules?dry_run={dry}", data=data, by=by, headers={"Content-Type": kind})
    assert reply.status_code == 200, reply.text
    return reply.json()


def count() -> int:
    return int(CourseSession.rows().count_documents({}))


def test_a_term_from_the_template_to_the_public(desk: Site) -> None:
    # staff fill the template in with their own program, in place of its example
    data = desk.get("/v1/staff/schedules/template.xlsx", by="fed")
    assert data.status_code == 200 and data.headers["Content-Type"] == XLSX
    filled = load_workbook(io.BytesIO(data.content))
    page = filled.worksheets[0]
    rules = {str(rule.sqref).split("2:")[0]: rule.formula1 for rule in page.data_validations.dataValidation}
    assert {page[f"{column}1"].value for column in rules} == {"课程", "步骤", "场所", "承办单位", "候补"}
    assert filled.worksheets[1].title == "说明 about" and filled.worksheets[2].sheet_state == "hidden"
    example = send(desk, data.content, dry="true")
    assert example["counts"]["refused"] == 1 and "删除" in example["items"][0]["errors"][0]["messages"]["zh-Hans"]
    assert desk.get("/v1/staff/schedules/template.csv", by="fed").content.startswith("\ufeff课程,".encode())

    days = [DAY + timedelta(days=7 * n) for n in range(4)]
    for line, day in enumerate(days, 2):
        for column, value in enumerate(row(date=datetime.combine(day, time()), key=f"w{line}", title=f"=第{line}讲"), 1):
            cell = page.cell(line, column, value or None)
            if isinstance(value, str) and value:
                cell.data_type = "s"
    out = io.BytesIO()
    filled.save(out)
    tried = send(desk, out.getvalue(), dry="true")
    assert (tried["counts"]["new"], tried["written"], count()) == (4, 0, 0)
    done = send(desk, out.getvalue())
    assert (done["written"], done["counts"]["refused"], count()) == (4, 0, 4)
    keys = [one["id"] for one in done["items"]]
    assert sessions.session(keys[0]).title == {"zh-Hans": "=第2讲"}
    assert send(desk, out.getvalue())["counts"]["unchanged"] == 4

    # nothing is public yet; a preview, then exactly that, in one release
    before = Counter.rows().find_one({"_id": "published"})["value"]
    asked = {"series": desk.ids["series"], "from": str(days[0]), "to": str(days[2])}
    seen = desk.post("/v1/staff/sessions/publish-batch", asked, by="fed").json()
    assert seen["counts"] == {"publish": 3, "unchanged": 0, "refused": 0} and seen["published"] == 0
    assert desk.get("/v1/sessions").json()["items"] == []
    want = {**asked, "dry_run": False}
    assert desk.post("/v1/staff/sessions/publish-batch", want, by="fed").status_code == 422
    sessions.edit_session(keys[1], {"capacity": 31}, "bob")
    late = desk.post("/v1/staff/sessions/publish-batch", {**want, "preview": seen["preview"]}, by="fed")
    assert (late.status_code, late.json()["code"]) == (412, "stale")
    seen = desk.post("/v1/staff/sessions/publish-batch", asked, by="fed").json()
    done = desk.post("/v1/staff/sessions/publish-batch", {**want, "preview": seen["preview"]}, by="fed").json()
    assert done["published"] == 3 and Counter.rows().find_one({"_id": "published"})["value"] == before + 1
    assert len(desk.get("/v1/sessions").json()["items"]) == 3
    lines = records.history("session", keys[0])
    assert [line.action for line in lines] == ["session.publish", "session.create"]
    assert lines[0].actor == desk.ids["fed"]


def test_one_bad_row_is_named_and_nothing_is_written(desk: Site) -> None:
    rows = [row(date=DAY + timedelta(days=n)) for n in range(40)]
    rows[20] = row(
        place="月球", capacity=0, start="25:00", step="懂", waiting_list="也许", host="没有的站", online_link="http://a.cn"
    )
    for kind, data in ((XLSX, book(*rows)), (CSV, sheets.to_csv([HEADS, *rows]))):
        told = send(desk, data, kind=kind)
        assert (told["counts"], told["written"], count()) == ({"new": 39, "changed": 0, "unchanged": 0, "refused": 1}, 0, 0)
        bad = next(one for one in told["items"] if one["outcome"] == "refused")
        assert bad["line"] == 22 and bad["id"] == ""
        assert {error["field"] for error in bad["errors"]} == {"场所", "名额", "开始", "步骤", "候补", "承办单位"}
        assert all(error["messages"]["zh-Hans"] and error["messages"]["en"] for error in bad["errors"])
    linked = send(desk, book(row(online_link="http://a.cn")))["items"][0]["errors"]
    assert [error["field"] for error in linked] == ["线上链接"]


def test_rows_are_what_the_asker_may_do_by_hand(desk: Site) -> None:
    told = send(desk, book(row()), by="far")
    assert told["written"] == 0 and "must be one of" in told["items"][0]["errors"][0]["messages"]["en"]
    assert send(desk, book(row(series=desk.ids["series"])), by="far")["written"] == 0  # nor by its id
    desk.person("rev", "reviewer")
    reply = desk.call("POST", "/v1/staff/schedules", data=book(row()), by="rev", headers={"Content-Type": XLSX})
    assert reply.status_code == 403
    key = send(desk, book(row()))["items"][0]["id"]
    assert desk.get("/v1/staff/schedules.csv", by="far").text.count("\n") == 1  # the heads
    assert desk.get(f"/v1/staff/schedules.csv?series={desk.ids['series']}", by="far").status_code == 404
    assert desk.post("/v1/staff/sessions/publish-batch", {"sessions": [key]}, by="far").status_code == 404
    assert desk.post("/v1/staff/sessions/publish-batch", {"series": desk.ids["series"]}, by="far").status_code == 404
    assert desk.call("POST", "/v1/staff/schedules", data=b"{}", by="fed").status_code == 415
    big = b" " * (sheets.MOST_BYTES + 1)
    assert desk.call("POST", "/v1/staff/schedules", data=big, by="fed", headers={"Content-Type": CSV}).status_code == 413
    broken = desk.call("POST", "/v1/staff/schedules", data=b"PK\3\4", by="fed", headers={"Content-Type": XLSX})
    assert broken.status_code == 422 and "damaged" in broken.text


def test_what_is_exported_comes_back_unchanged(desk: Site) -> None:
    station = staff.Organisation(id="st1", name="示例指导站", kind="station", division="150603", created_by="ann").save()
    start = datetime.combine(DAY, time(11), schedule.ZoneInfo("Asia/Shanghai"))
    usual = {"starts_at": start, "ends_at": start + timedelta(hours=2), "zone": "Asia/Shanghai", "place": "school", "capacity": 9}
    many: list[dict[str, Any]] = [
        {
            "title": {"zh-Hans": "=1+1", "en": "Sums"},
            "lecturer": {"name": {"zh-Hans": "'-张"}},
            "venue": {"name": {"zh-Hans": "@室"}},
        },
        {
            "booking_closes_at": start - timedelta(minutes=30),
            "ends_at": start + timedelta(hours=30),
            "waiting_list": False,
            "venue": {"name": {"zh-Hans": "礼堂"}},
        },
        {"zone": "Asia/Urumqi", "host": station.id, "step": "can", "class_hours": 0, "latitude": 39.6, "longitude": 109.8},
        {"online_link": "https://a.example/x", "venue": {"access": {"zh-Hans": "电梯\n三楼_x0041_"}}, "place": "online"},
    ]
    made = [sessions.create_session(desk.ids["series"], {**usual, **one}, "ann") for one in many]
    send(desk, book(row(key="a")))
    sessions.publish_session(made[1].id, "ann")
    sessions.cancel_session(made[1].id, "ann")
    before = {raw["_id"]: raw for raw in CourseSession.rows().find({})}
    table = desk.get(f"/v1/staff/schedules.csv?series={desk.ids['series']}&from={DAY}&to={DAY}", by="fed")
    text = table.content.decode("utf-8-sig")
    assert text.count("'=1+1") == text.count("''-张") == text.count("'@室") == 1
    page = desk.get("/v1/staff/schedules.xlsx", by="fed").content
    kinds = {cell.data_type for cells in load_workbook(io.BytesIO(page)).worksheets[0].iter_rows() for cell in cells}
    assert "f" not in kinds and "d" in kinds
    for kind, data in ((CSV, table.content), (XLSX, page)):
        told = send(desk, data, kind=kind)
        assert told["counts"] == {"new": 0, "changed": 0, "unchanged": 5, "refused": 0}, told
    assert {raw["_id"]: raw for raw in CourseSession.rows().find({})} == before
    assert desk.get(f"/v1/staff/schedules.csv?from={DAY + timedelta(days=1)}", by="fed").text.count("\n") == 1


def test_hosts_and_lecturers_are_found_by_name(desk: Site) -> None:
    for key, name, division in (("st1", "示例指导站", "150603"), ("st2", "别处指导站", "500114")):
        staff.Organisation(id=key, name=name, kind="station", division=division, created_by="ann").save()
    for n, name in enumerate(("王老师", "李老师", "李老师")):
        lecturers.Lecturer(
            id=f"l{n}", name={"zh-Hans": name}, kind="expert", organisation="org1", division="150603", state="published",
            created_by="ann",
        ).save()  # fmt: skip
    told = send(desk, book(row(key="a", host="示例指导站"), row(key="b", lecturer="李老师", venue="二楼")))
    first, second = (sessions.session(one["id"]) for one in told["items"])
    assert (first.host, first.lecturer_id, second.host, second.lecturer_id) == ("st1", "l0", None, None)
    assert send(desk, book(row(host="别处指导站", key="c")))["counts"]["refused"] == 1


def test_a_batch_is_held_back_whole(desk: Site) -> None:
    send(desk, book(
        row(key="a"), row(key="b", title="同一时间"), row(key="c", date=DAY + timedelta(days=1), venue=""),
        row(key="d", date=DAY + timedelta(days=2)),
    ))  # fmt: skip
    asked = {"series": desk.ids["series"]}
    seen = desk.post("/v1/staff/sessions/publish-batch", asked, by="fed").json()
    why = {one["id"].rpartition("~")[2]: {error["code"] for error in one["errors"]} for one in seen["items"]}
    assert why == {"a": {"clash"}, "b": {"clash"}, "c": {"incomplete"}, "d": set()}
    held = desk.post("/v1/staff/sessions/publish-batch", {**asked, "dry_run": False, "preview": seen["preview"]}, by="fed").json()
    assert (held["published"], held["counts"]["refused"]) == (0, 3)
    keys = [f"{desk.ids['series']}~{key}" for key in "abd"]
    some = {"sessions": keys, "despite_clashes": True}
    seen = desk.post("/v1/staff/sessions/publish-batch", some, by="fed").json()
    assert len(seen["items"][0]["warnings"]) >= 1
    some |= {"dry_run": False, "preview": seen["preview"]}
    assert desk.post("/v1/staff/sessions/publish-batch", some, by="fed").json()["published"] == 3
    assert desk.post("/v1/staff/sessions/publish-batch", some, by="fed").status_code == 412  # it looks different now
    both = {"sessions": keys, **asked}
    assert desk.post("/v1/staff/sessions/publish-batch", both, by="fed").status_code == 422
    # a change between the look and the write keeps all back
    rows = batches.preview([sessions.session(f"{desk.ids['series']}~c")], lambda one: True)
    assert [fault.field for fault in rows[0].faults] == ["venue"]


# --- what spreadsheets do ---------------------------------------------------------------------------------------------


def raw_book(sheet: str, *, styles: str = "", book: str = "", more: dict[str, str] | None = None) -> bytes:
    """An XLSX from its XML."""
    out = io.BytesIO()
    rel = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("[Content_Types].xml", "<Types/>")
        made.writestr(
            "xl/workbook.xml",
            f'<workbook {NS} xmlns:r="{kind}">{book}<sheets><sheet name="h" state="hidden" r:id="r0"/><sheet name="a" r:id="r1"/>'
            "</sheets></workbook>",
        )
        made.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships {rel}><Relationship Id="r0" Type="{kind}/worksheet" Target="worksheets/h.xml"/>'
            f'<Relationship Id="r1" Type="{kind}/worksheet" Target="/xl/worksheets/a.xml"/>'
            f'<Relationship Id="r2" Type="{kind}/styles" Target="styles.xml"/></Relationships>',
        )
        made.writestr("xl/styles.xml", f"<styleSheet {NS}>{styles}</styleSheet>")
        made.writestr("xl/worksheets/a.xml", sheet if sheet.startswith("<!") else f"<worksheet {NS}>{sheet}</worksheet>")
        for name, text in (more or {}).items():
            made.writestr(name, text)
    return out.getvalue()


def test_cells_read_as_people_see_them() -> None:
    styles = (
        '<numFmts><numFmt numFmtId="176" formatCode="[$-804]yyyy&quot;年&quot;m&quot;月&quot;d&quot;日&quot;;@"/>'
        '<numFmt numFmtId="177" formatCode="上午/下午h:mm"/><numFmt numFmtId="178" formatCode="0.00&quot;d&quot;"/></numFmts>'
        '<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="20"/>'
        '<xf numFmtId="58"/><xf numFmtId="176"/><xf numFmtId="177"/><xf numFmtId="178"/><xf numFmtId="22"/></cellXfs>'
    )
    cells = (
        '<row r="3"><c r="B3" s="1"><v>46329</v></c><c s="2"><v>0.79166666666666663</v></c><c s="3"><v>46329</v></c>'
        '<c s="4"><v>46329</v></c><c s="5"><v>46329.375</v></c><c s="6"><v>30.5</v></c><c s="7"><v>46329.75</v></c>'
        '<c><v>30.0</v></c><c t="b"><v>1</v></c><c t="str"><f>A1</f><v></v></c><c><f>1+1</f><v>2</v></c><c><f>1+1</f><v></v></c>'
        '<c t="e"><v>#REF!</v></c>'
        '<c t="inlineStr"><is><r><t>家长</t></r><rPh><t>jia</t></rPh><r><t>_x0041_</t></r></is></c></row>'
        '<row r="5"><c r="A5" t="d" s="1"><v>2026-11-03T00:00:00</v></c></row><row r="9"><c s="1"/></row>'
    )
    first, second = sheets.read(raw_book(f"<sheetData>{cells}</sheetData>", styles=styles), "a.xlsx")
    assert first.line == 3 and first.cells[:12] == [
        "", "2026-11-03", "19:00", "2026-11-03", "2026-11-03", "09:00", "30.5", "2026-11-03 18:00", "30", "是", "", "2",
    ]  # fmt: skip
    assert "M3" in first.faults[12] and "without its result" in first.faults[12] and "#REF! (N3)" in first.faults[13]
    assert first.cells[14] == "家长A" and (second.line, second.cells) == (5, ["2026-11-03"])
    mac = '<workbookPr date1904="1"/>'
    old = sheets.read(raw_book('<sheetData><row><c s="1"><v>44867</v></c></row></sheetData>', styles=styles, book=mac), "a.xlsx")
    assert old[0].cells == ["2026-11-03"]


def test_merged_cells() -> None:
    made = Workbook()
    page = made.active
    assert page is not None
    for cells in (["课程", "日期"], ["家长学校", 1], [None, 2], ["x", None]):
        page.append(cells)
    page.merge_cells("A2:A3")
    page.merge_cells("A4:B4")
    out = io.BytesIO()
    made.save(out)
    rows = sheets.read(out.getvalue(), "a.xlsx")
    assert [one.cells for one in rows] == [["课程", "日期"], ["家长学校", "1"], ["家长学校", "2"], ["x"]]
    assert "A4:B4" in rows[3].faults[0]


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><worksheet>&b;</worksheet>'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (lambda: raw_book(BOMB), "DOCTYPE"),
        (lambda: raw_book(" " * sheets.MOST_UNPACKED), "too large when unpacked"),
        (lambda: raw_book('<sheetData><row><c r="XFD1" t="str"><v>a</v></c></row></sheetData>'), "5000 rows of 40 columns"),
        (lambda: raw_book("<sheetData>" + '<row><c t="str"><v>a</v></c></row>' * 5002 + "</sheetData>"), "at most 5000 rows"),
        (lambda: raw_book("", more={"xl/vbaProject.bin": ""}), "macros"),
        (lambda: raw_book("<sheetData><c/></sheetData>"), "damaged"),
        (lambda: raw_book("<sheetData>"), "damaged"),
        (lambda: raw_book("")[:700], "damaged"),
        (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "save it as XLSX"),
        (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
        (lambda: "a,b\n".encode("utf-16"), "CSV UTF-8"),
        (lambda: b"a\n" * 5002, "5000 rows of 40 columns"),
        (lambda: b"a," * 41 + b"b\n", "5000 rows of 40 columns"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table(data: Any, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        sheets.read(data(), "term")
    assert told in str(refused.value)


@pytest.mark.slow
def test_many_small_parts_end_early() -> None:
    data = raw_book("<sheetData><row>" + "<c/>" * 6_000_000 + "</row></sheetData>")
    with pytest.raises(Invalid, match="too much in it"):
        sheets.read(data, "term")


@pytest.mark.slow
def test_two_thousand_rows(desk: Site, measured: Any) -> None:
    rows = [
        row(key=f"k{n}", date=DAY + timedelta(days=n % 400), start=time(8 + n // 400 * 2), end=time(9 + n // 400 * 2, 30),
            venue=f"活动室{n % 50}", lecturer=f"老师{n % 50}")
        for n in range(2000)
    ]  # fmt: skip
    bad = [*rows[:1233], row(place="月球"), *rows[1234:]]
    for name, kind, make in (("CSV", CSV, lambda r: sheets.to_csv([HEADS, *r])), ("XLSX", XLSX, lambda r: book(*r))):
        data = make(bad)
        began = store.now()
        told = send(desk, data, kind=kind)
        measured(0, f"2,000 rows of {name}, one bad: answered in {(store.now() - began).total_seconds():.1f} s")
        assert [one["line"] for one in told["items"] if one["errors"]] == [1235] and (told["written"], count()) == (0, 0)
    data = book(*rows)
    began = store.now()
    assert send(desk, data)["written"] == 2000
    measured(0, f"2,000 rows of XLSX written as drafts in {(store.now() - began).total_seconds():.1f} s")
    assert count() == records.Audit.rows().count_documents({"kind": "session"}) == 2000
    assert send(desk, data)["counts"]["unchanged"] == 2000


def spoilt(made: bytes, name: str, before: bytes, after: bytes) -> bytes:
    """A workbook with bytes of one of its parts changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            data = old.read(part)
            assert part != name or before in data
            new.writestr(part, data.replace(before, after, 1) if part == name else data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("part", "before", "after"),
    [
        (
            "xl/styles.xml",
            b"<numFmts",
            b'<numFmts><numFmt numFmtId="200" formatCode="' + b"[" * 30_000 + b'"/></numFmts><numFmts',
        ),
        ("xl/styles.xml", b"<numFmts", b"<numFmts>" + b'<numFmt numFmtId="200" formatCode="["/>' * 9 + b"</numFmts><numFmts"),
        ("xl/worksheets/sheet1.xml", b"<sheetData>", b"<sheetData>" + b"<row/>" * 690_000),
        ("xl/worksheets/sheet1.xml", b"<sheetData>", b'<sheetData><row a="' + b"1" * 40_000 + b'"/>'),
    ],
    ids=["one long format", "few formats", "empty rows", "a long attribute"],
)
def test_a_workbook_that_is_made_to_cost_time(part: str, before: bytes, after: bytes) -> None:
    data, began = spoilt(book(row()), part, before, after), time_module.perf_counter()
    if b"numFmt" in after and len(after) < 1000:
        assert len(sheets.read(data, "a.xlsx")) == 2
    else:
        with pytest.raises(Invalid):
            sheets.read(data, "a.xlsx")
    assert time_module.perf_counter() - began < 2


def test_rows_that_name_nothing_are_compared_a_hundred_times_at_most(desk: Site) -> None:
    for number in range(14):
        courses.create_series({**SERIES, "texts": {"zh-Hans": {"title": f"亲子阅读{number}班", "summary": ""}}}, "ann")
    rows = [row(series=f"亲子阅渎{number}班") for number in range(3)] + [row(series="长" * 5000), row(series="亲子阅渎1班")]
    there = schedule.There(schedule.anyone, desk.settings)
    told = [one["errors"][0]["messages"]["en"] for one in send(desk, book(*rows))["items"]]
    assert "亲子阅读1班" in told[1] == told[4] and told[3].endswith("one of: ….")
    for number in range(300):
        there.nearest(f"亲子{number}", there.open_titles, 12)
    assert len(there.meant) == schedule.MOST_MEANT


@pytest.mark.parametrize("days", ["from=0001-01-01", "from=9999-12-31", "to=9999-12-31", "to=0001-01-01"])
def test_days_at_the_ends_of_the_calendar(desk: Site, days: str) -> None:
    name, _, day = days.partition("=")
    for kind in ("csv", "xlsx"):
        reply = desk.get(f"/v1/staff/schedules.{kind}?{days}", by="fed")
        assert reply.status_code == 422 and reply.json()["errors"][0]["field"] == name
    asked = {"series": desk.ids["series"], name: day}
    assert desk.post("/v1/staff/sessions/publish-batch", asked, by="fed").status_code == 422


def test_exam_days_are_told_in_the_file_and_the_batch(desk: Site) -> None:
    seasons.confirm("150603", "zhongkao", DAY, DAY, "ann")
    desk.refresh()
    told = send(desk, book(row(key="a"), row(key="b", date=DAY + timedelta(days=1))))["items"]
    exam = [[text for text in one["warnings"] if "senior high entrance exam" in text["en"]] for one in told]
    assert [len(texts) for texts in exam] == [1, 0]
    seen = desk.post("/v1/staff/sessions/publish-batch", {"series": desk.ids["series"]}, by="fed").json()
    assert exam[0][0] in seen["items"][0]["warnings"] and exam[0][0] not in seen["items"][1]["warnings"]

"""Share pages, QR codes and posters, over HTTP, from what is published."""

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pypdf
import pytest
import segno
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from content import attendance, bookings, codes, courses, printing, sessions, store
from content.published import ANY, Item, release
from content.records import SYSTEM
from content.settings import Settings, SettingsError
from tests.site import Clock, Site

BASE = "http://127.0.0.1:8000"  # of the tests' settings, not of the port that they listen on
SVG: dict[str, Any] = {
    "kind": "svg", "border": 4, "xmldecl": False, "omitsize": True, "dark": "#000", "light": "#fff", "nl": False,
}  # fmt: skip
SERIES: dict[str, Any] = {
    "id": "exam-year", "state": "published",
    "organiser_name": {"zh-Hans": "康巴什区妇女联合会", "en": "Kangbashi Women's Federation"},
    "texts": {
        "zh-Hans": {"title": "陪孩子过好这一年", "summary": "把考前的日子过得踏实些。"},
        "en": {"title": "A steady exam year", "summary": "Ordinary days before exams."},
        "mn-Mong": {"title": "ᠬᠡᠦᠬᠡᠳ", "summary": ""},
    },
    "topics": ["emotion"], "audiences": ["parent"], "stages": ["junior.9", "senior.final"], "languages": ["zh-Hans"],
    "format": "lecture", "organisation": "", "division": "150603", "lecturers": [], "materials": [], "visibility": "all",
    "approval": False, "questions": [], "media": [],
}  # fmt: skip
SESSION: dict[str, Any] = {
    "id": "exam-year-1", "series": "exam-year", "organisation": "", "host": "", "division": "150603", "zone": "Asia/Shanghai",
    "place": "school", "title": {"zh-Hans": "第一讲 听孩子说", "en": "1. Listening"},
    "venue": {"name": {"zh-Hans": "第一中学报告厅"},
    "address": {"zh-Hans": "湖滨路1号"}, "access": {"zh-Hans": "一楼，轮椅可进"}},
    "latitude": None, "longitude": None,
    "lecturer": {"name": {"zh-Hans": "张丽娟"}, "field": {"zh-Hans": "家庭教育指导"}},
    "lecturer_id": "",
    "step": "know", "class_hours": 2, "materials": [], "capacity": 30, "seats": "open", "waiting_list": True,
    "online": False, "provisional": False, "state": "published", "sequence": 1,
    "updated_at": "2026-11-01T00:00:00+00:00", "media": [],
}  # fmt: skip


def times(days: float = 5, minutes: int = 90) -> dict[str, str]:
    """A session so many days from now, as it is published."""
    starts = (store.now() + timedelta(days=days)).astimezone(datetime.fromisoformat("2026-01-01T00:00+08:00").tzinfo)
    starts = starts.replace(second=0, microsecond=0)
    said = {
        "starts_at": starts,
        "ends_at": starts + timedelta(minutes=minutes),
        "booking_closes_at": starts - timedelta(hours=12),
    }
    return {name: moment.isoformat() for name, moment in said.items()}


def publish(site: Site, series: dict[str, Any] | None = None, kind: str = "", **changes: Any) -> dict[str, Any]:
    """A series and a session of it, changed so, as the verbs publish them."""
    session = {**SESSION, **times(), **changes}
    items = [
        Item(f"{kind}series", "exam-year", ANY, {**SERIES, **(series or {})}),
        Item(f"{kind}session", session["id"], ANY, session),
    ]
    store.transaction(lambda tx: release(tx, items))
    site.refresh()
    return session


def html(site: Site, path: str = "/s/exam-year-1", language: str = "zh-CN", **headers: str) -> str:
    """A page as a browser gets it."""
    reply = site.get(path, headers={"Accept-Language": language, **headers})
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    return reply.text


def test_a_page_says_what_when_where_for_whom_and_how_to_book(site: Site) -> None:
    session = publish(site)
    page = html(site)
    starts = datetime.fromisoformat(session["starts_at"])
    for said in (
        "第一讲 听孩子说", "陪孩子过好这一年", f"{starts.year}年{starts.month}月{starts.day}日", f"{starts:%H:%M}",
        "第一中学报告厅",
        "湖滨路1号", "轮椅可进", "张丽娟（家庭教育指导）", "家长", "9年级", "高中（毕业年）", "讲座", "康巴什区妇女联合会",
        "可以报名",
        "报名截止", "/v1/calendars/courses/exam-year.ics", "/v1/sessions/exam-year-1/qr.svg", 'href="/c/exam-year"',
    ):  # fmt: skip
        assert said in page, said
    assert '<meta name="viewport"' in page and f'og:url" content="{BASE}/s/exam-year-1"' in page
    assert f'og:image" content="{BASE}/s/exam-year-1/cover.png"' in page
    assert re.search(r'og:title" content="陪孩子过好这一年：第一讲 听孩子说"', page)
    english = html(site, language="en-GB")
    assert "1. Listening" in english and 'lang="en"' in english and "Book until" in english
    assert "1. Listening" in html(site, "/s/exam-year-1?language=en&from=singlemessage&isappinstalled=0")  # chat apps add those
    assert "第一讲" in html(site, "/s/exam-year-1?language=%00x".replace("%00", "!"))
    mongolian = html(site, "/s/exam-year-1?language=mn-Mong")
    assert '<span lang="mn-Mong" class="ttb">ᠬᠡᠦᠬᠡᠳ</span>' in mongolian and "报名截止" in mongolian


def test_a_series_lists_its_coming_sessions(site: Site) -> None:
    publish(site)
    later = {**SESSION, **times(9), "id": "exam-year-2", "title": {"zh-Hans": "第二讲 睡眠"}, "seats": "full"}
    over = {**SESSION, **times(-9), "id": "exam-year-0", "title": {"zh-Hans": "第零讲"}, "state": "finished"}
    store.transaction(lambda tx: release(tx, [Item("session", one["id"], ANY, one) for one in (later, over)]))
    site.refresh()
    page = html(site, "/c/exam-year")
    assert page.index("第一讲") < page.index("第二讲") and "第零讲" not in page and "名额已满" in page
    assert 'href="/s/exam-year-2"' in page and "把考前的日子过得踏实些。" in page
    assert 'data-post="/v1/courses/exam-year/bookings"' in page and "现在还能报名的 2 场" in page
    assert "就排那一场的候补" in page and "没有空位，就排候补" not in page
    poster = html(site, "/v1/courses/exam-year/poster")
    assert "第二讲 睡眠" in poster and "<svg" in poster


@pytest.mark.parametrize(
    ("changes", "said", "bookable"),
    [
        ({"state": "cancelled"}, "这一场不再举行", False),
        ({"moved_from": "2026-11-20T19:00:00+08:00"}, "原定时间：2026年11月20日 星期五 19:00", True),
        ({"provisional": True}, "日期暂定", True),
        ({"seats": "few"}, "名额不多了", True),
        ({"seats": "full"}, "可以排候补", True),
        ({"seats": "full", "waiting_list": False}, "这一场不排候补", False),
        ({**times(0.2)}, "报名已截止", False),
        ({**times(-0.01)}, "正在进行", False),
        ({**times(-2), "state": "finished"}, "已结束", False),
    ],
)
def test_what_has_changed_is_said_first(site: Site, changes: dict[str, Any], said: str, bookable: bool) -> None:
    publish(site, **changes)
    page = html(site)
    assert said in page.partition("<h1>")[2]
    assert ('id="form"' in page) == bookable and ("/share.js" in page) == bookable
    assert ("【已取消】" in page) == (changes.get("state") == "cancelled")


def test_a_page_closes_by_itself_at_its_moment(site: Site, clock: Clock) -> None:
    publish(site, **times(0.5 + 1 / 1440))  # closes in a minute
    assert 'id="form"' in html(site)
    clock(61)
    assert 'id="form"' not in html(site)


def test_a_series_is_booked_as_a_whole_while_any_of_it_can_be(site: Site, clock: Clock) -> None:
    asked = {"code": "topic", "text": {"zh-Hans": "最想听什么？"}, "required": True, "options": []}
    publish(site, {"questions": [asked], "approval": True}, **times(0.5 + 1 / 1440))  # closes in a minute
    page = html(site, "/c/exam-year")
    assert 'data-question="topic"' in page and "报名后由主办方确认" in page and "现在还能报名的 1 场" in page
    clock(61)
    assert 'id="form"' not in html(site, "/c/exam-year")  # though nothing was published since
    code = codes.new()
    publish(site, {"visibility": "invited", "invitation": codes.name(code)}, kind="invited_", id="exam-year-9")
    store.transaction(lambda tx: release(tx, [Item("series", "exam-year", ANY, None)]))
    site.refresh()
    page = html(site, f"/c/exam-year?invitation={code}")
    assert f'data-invitation="{code}"' in page and 'data-post="/v1/courses/exam-year/bookings"' in page
    assert 'href="/b"' in page and "/b?course" not in page  # what is by invitation is named nowhere else


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "万一没有空位，就排候补", "名额已满，请把我排进候补"),
        ({"seats": "full"}, "名额已满，请把我排进候补", "万一没有空位"),
        ({"waiting_list": False}, "<button>报名</button>", 'name="wait"'),
    ],
)
def test_the_waiting_list_is_offered_by_what_is_left(site: Site, changes: dict[str, Any], said: str, unsaid: str) -> None:
    publish(site, **changes)
    page = html(site)
    assert said in page and unsaid not in page
    assert ("<button>排候补</button>" in page) == (changes.get("seats") == "full")


def test_where_no_script_runs_a_bookings_page_says_whom_to_ask(site: Site) -> None:
    publish(site, {"contact": {"zh-Hans": "0477-8500000"}})
    assert 'href="/b?course=exam-year"' in html(site)
    assert "康巴什区妇女联合会 0477-8500000" in html(site, "/b?course=exam-year")
    assert "0477-8" not in html(site, "/b") and "0477-8" not in html(site, "/b?course=nothing")


def test_a_page_is_alone(site: Site) -> None:
    publish(site)
    for path in ("/s/exam-year-1", "/c/exam-year", "/v1/sessions/exam-year-1/poster", "/s/nothing", "/b"):
        reply = site.get(path)
        outside = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", reply.text)) - {"http://www.w3.org/2000/svg"}
        assert all(address.startswith(BASE) for address in outside), (path, outside)
        policy = reply.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "form-action 'none'" in policy and "unsafe" not in policy
        style = re.search(r"<style>(.*?)</style>", reply.text, re.S)
        assert style
        assert f"'sha256-{base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()}'" in policy
        assert "Set-Cookie" not in reply.headers and " style=" not in reply.text and " onclick" not in reply.text
    script = site.get("/share.js")
    assert "script-src 'self'; connect-src 'self'" in site.get("/s/exam-year-1").headers["Content-Security-Policy"]
    assert (
        script.headers["Content-Type"].startswith("text/javascript")
        and "http" not in script.text.replace("XMLHttpRequest", "").lower()
    )


def test_hostile_words_stay_words(site: Site) -> None:
    evil = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.exe"
    publish(
        site, {"texts": {"zh-Hans": {"title": evil, "summary": evil}}, "organiser_name": {"zh-Hans": evil}},
        title={"zh-Hans": evil}, venue={"name": {"zh-Hans": evil}}, lecturer={"name": {"zh-Hans": evil}},
        materials=[f"lesson:{evil}"],
    )  # fmt: skip
    for path in ("/s/exam-year-1", "/c/exam-year", "/v1/sessions/exam-year-1/poster", "/v1/courses/exam-year/poster"):
        page = html(site, path)
        assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
        assert 'dir="auto"' in page  # what turns the direction of reading stays within its own span
    assert site.get("/v1/sessions/exam-year-1/poster.pdf").content.startswith(b"%PDF-")


def test_addresses_are_ours_whatever_host_is_asked_for(site: Site) -> None:
    publish(site)
    for path in ("/s/exam-year-1", "/v1/sessions/exam-year-1/qr.svg", "/c/exam-year", "/v1/courses/exam-year/qr.svg"):
        fair = site.get(path).text
        site.front.forget(site.reader.current)
        forged = site.get(
            path, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
        )
        assert "evil" not in forged.text and forged.text == fair


def test_the_qr_code_is_of_the_public_address(site: Site) -> None:
    publish(site)
    for path, address in (("sessions/exam-year-1", "/s/exam-year-1"), ("courses/exam-year", "/c/exam-year")):
        reply = site.get(f"/v1/{path}/qr.svg")
        assert reply.headers["Content-Type"].startswith("image/svg+xml")
        code, out = segno.make_qr(f"{BASE}{address}", error="m"), io.BytesIO()
        code.save(out, **SVG)
        assert reply.text == out.getvalue().decode()
        assert code.error in {"M", "Q", "H"} and f'viewBox="0 0 {code.symbol_size(1, 4)[0]}' in reply.text


def test_what_is_by_invitation_opens_with_its_code_alone(site: Site) -> None:
    code = codes.new()
    publish(site, {"visibility": "invited", "invitation": codes.name(code)}, kind="invited_")
    for path in (
        "/s/exam-year-1",
        "/c/exam-year",
        "/v1/sessions/exam-year-1/qr.svg",
        "/v1/courses/exam-year/poster",
        "/s/exam-year-1/cover.png",
    ):
        missing = site.get(path.replace("exam-year", "nothing"))
        for query in ("", "?invitation=", f"?invitation={codes.new()}"):
            refused = site.get(path + query)
            assert refused.status_code == 404
            if not path.startswith("/v1") and not path.endswith("png"):
                assert refused.text == missing.text  # whether it is there is not told
        opened = site.get(f"{path}?invitation={code.lower()}")
        assert opened.status_code == 200 and "no-store" in opened.headers["Cache-Control"]
    page = html(site, f"/s/exam-year-1?invitation={code}")
    assert f'href="/c/exam-year?invitation={code}"' in page and "noindex" in page and f'data-invitation="{code}"' in page
    svg = site.get(f"/v1/sessions/exam-year-1/qr.svg?invitation={code}").text
    out = io.BytesIO()
    address = f"{BASE}/s/exam-year-1?invitation={code}"
    segno.make_qr(address, error="m").save(
        out, kind="svg", border=4, xmldecl=False, omitsize=True, dark="#000", light="#fff", nl=False
    )
    assert svg == out.getvalue().decode()
    assert "第一讲" in html(site, f"/c/exam-year?invitation={code}")


def test_a_bookings_qr_code_leads_to_its_page_and_keeps_the_code_from_servers(site: Site) -> None:
    reply = site.get("/v1/bookings/7k3qx-0m9td-w2e5r/qr.svg")
    out = io.BytesIO()
    address = f"{BASE}/b#7K3QX-0M9TD-W2E5R"
    segno.make_qr(address, error="m").save(
        out, kind="svg", border=4, xmldecl=False, omitsize=True, dark="#000", light="#fff", nl=False
    )
    assert reply.text == out.getvalue().decode() and reply.headers["Cache-Control"] == "no-store"
    assert site.get("/v1/bookings/7K3QX-0M9TD/qr.svg").status_code == 404
    page = html(site, "/b")
    assert "/booking.js" in page and "7K3QX-0M9TD-W2E5R" in page  # as a pattern to fill in
    assert "script-src 'self'" in site.get("/b").headers["Content-Security-Policy"]


QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, where there is one."""
    program = shutil.which("chromium")
    if not program:
        pytest.skip("no chromium on PATH")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=[*QUIET, "--disable-sync"])
        yield browser
        browser.close()


def listening(site: Site, *days: float, capacity: int = 4) -> None:
    """A published series "listen" with a session in so many days each: listen-1, listen-2 …"""
    texts = {"zh-Hans": {"title": "听孩子说"}}
    facts = {"texts": texts, "format": "salon", "organisation": "", "division": "150603", "contact": {"zh-Hans": "0477-8500000"}}
    made = courses.create_series(facts, SYSTEM, "listen")
    courses.publish_series(made.id, SYSTEM, second_person=False)
    for n, ahead in enumerate(days, 1):
        starts = store.now() + timedelta(days=ahead)
        row = {"starts_at": starts, "ends_at": starts + timedelta(hours=1), "zone": "Asia/Shanghai", "place": "school"}
        row |= {"capacity": capacity, "venue": {"name": {"zh-Hans": "一楼活动室"}}}
        made_session = sessions.create_session(made.id, row, SYSTEM, f"listen-{n}")
        sessions.publish_session(made_session.id, SYSTEM)
    site.refresh()


@pytest.mark.slow
@pytest.mark.chromium
def test_a_family_books_and_cancels_in_a_browser(site: Site) -> None:
    listening(site, 5, capacity=1)
    with browsing() as browser:
        page, outside = browser.new_page(viewport={"width": 390, "height": 800}, locale="zh-CN"), []
        page.on("request", lambda asked: None if asked.url.startswith(site.base) else outside.append(asked.url))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(f"{site.base}/s/listen-1")
        for phone, said in (("13800x", "#wrong:not([hidden])"), ("13800138000", "#done:not([hidden])")):
            page.fill("[name=family_name]", "王")
            page.fill("[name=phone]", phone)
            page.click("form button")
            page.wait_for_selector(said)
        assert page.is_visible("[data-state=confirmed]") and not page.is_visible("[data-state=waiting]")
        code = page.inner_text("#code")
        assert page.get_attribute("#check-in", "src") == f"/v1/bookings/{code}/check-in.svg" and page.is_visible("#check-in")
        page.click("#mine")
        page.wait_for_selector("#places b:text('已报名')")
        assert page.get_attribute("#check-in", "src") == f"/v1/bookings/{code}/check-in.svg" and page.is_visible("#check-in")
        page.click("#places button")
        page.wait_for_selector("#places b:text('已取消')")
        assert not page.is_visible("#door") and not page.is_visible("#change-part")
        assert page.context.cookies() == [] and outside == []
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.goto(f"{site.base}/s/listen-1")
        assert plain.is_visible("#plain") and not plain.is_visible("#form")


@pytest.mark.slow
@pytest.mark.chromium
def test_a_family_books_a_series_changes_it_and_afterwards_says_how_it_was_in_a_browser(site: Site, clock: Clock) -> None:
    listening(site, 2, 3, 4)
    with browsing() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800}, locale="zh-CN")
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(f"{site.base}/c/listen")
        page.fill("[name=family_name]", "王")
        page.fill("[name=phone]", "13800138000")
        page.click("form button")
        page.wait_for_selector("#placed li:nth-child(3):has-text('已报名')")
        code = page.inner_text("#code")
        page.click("#mine")

        page.wait_for_selector("#places li:nth-child(3)")
        page.select_option("#change [name=seats]", "2")
        page.fill("#change [name=needs]", "轮椅")
        page.click("#change button")
        page.wait_for_selector("#told:text('已保存。')")
        page.select_option("#change [name=seats]", "4")
        page.click("#change button")
        page.wait_for_selector("#told:text('已保存。')")
        assert [row["seats"] for row in site.get(f"/v1/bookings/{code}").json()["places"]] == [4, 4, 4]
        opened = bookings.contact_of(bookings.opened(code))
        assert opened["needs"] == "轮椅"  # which no page and no answer shows again
        page.click("#places li:nth-child(3) button")
        page.wait_for_selector("#places li:nth-child(3) b:text('已取消')")
        assert page.inner_text("#places li:nth-child(1) b") == "已报名" and "0477-8500000" in page.inner_text("#whom")
        assert page.inner_text("#feed").startswith(f"{BASE}/v1/calendars/bookings/")
        assert (page.get_attribute("#calendar", "href") or "").startswith("webcal://")

        sessions.edit_session("listen-2", {"venue": {"name": {"zh-Hans": "二楼活动室"}}}, SYSTEM, None)
        site.refresh()
        page.reload()
        page.wait_for_selector("#inbox #messages p")

        clock(3 * 86400 + 4 * 3600)  # both are over
        token = attendance.booking_of(attendance.token(code))
        for session in ("listen-1", "listen-2"):
            done = attendance.upload(session, SYSTEM, [attendance.Item(store.new_id(), token, seats=2)])
            assert done.items[0].outcome == "in"
        page.clock.set_fixed_time(store.now())
        page.reload()
        page.click("#places li:nth-child(1) summary:text('说说这一场怎么样')")
        page.select_option("#places li:nth-child(1) label:nth-of-type(1) select", "5")
        page.select_option("#places li:nth-child(1) label:nth-of-type(2) select", "yes")
        page.click("#places li:nth-child(1) button:text('提交')")
        page.wait_for_selector("#told:text('谢谢您的反馈')")
        assert site.get(f"/v1/bookings/{code}").json()["places"][0]["feedback"]["given"]
        for part in ("#places li:nth-child(1)", "#whole"):
            page.click(f"{part} summary:has-text('学习证明')")
            page.fill(f"{part} input", "欧阳沐清")
            with page.expect_download() as download:
                page.click(f"{part} button:text('生成 PDF')")
            words = pypdf.PdfReader(download.value.path()).pages[0].extract_text().replace("\0", "")
            assert "欧阳沐清" in words
        page.fill("#whole input", "ᠮᠣᠩᠭᠣᠯ")
        page.click("#whole button")
        page.wait_for_selector("#wrong:has-text('印不出')")


def test_pages_are_read_while_the_database_is_away(site: Site) -> None:
    publish(site)
    site.reader.up = False
    store.disconnect()
    for path in (
        "/s/exam-year-1",
        "/c/exam-year",
        "/v1/sessions/exam-year-1/poster.pdf",
        "/v1/courses/exam-year/qr.svg",
        "/share.js",
    ):
        assert site.get(path).status_code == 200, path


def test_where_nothing_is_a_page_says_so(site: Site) -> None:
    publish(site)
    for path in ("/s/nothing", "/c/nothing", "/s/%3Cscript%3E"):
        reply = site.get(path, headers={"Accept-Language": "zh"})
        assert reply.status_code == 404 and reply.headers["Content-Type"].startswith("text/html")
        assert "没有找到" in reply.text and "Not found" in reply.text and "<script>" not in reply.text
    assert site.get("/v1/sessions/nothing/qr.svg").json()["code"] == "not_found"


def test_a_poster_is_one_page_with_its_font_inside(site: Site) -> None:
    session = publish(site)
    reply = site.get("/v1/sessions/exam-year-1/poster.pdf", headers={"Accept-Language": "zh-CN"})
    read = pypdf.PdfReader(io.BytesIO(reply.content))
    text = "".join(read.pages[0].extract_text().replace("\0", "").split())  # pypdf reads two-byte codes as two
    starts = datetime.fromisoformat(session["starts_at"])
    for said in (
        "第一讲听孩子说",
        f"{starts.month}月{starts.day}日",
        "第一中学报告厅",
        "张丽娟（家庭教育指导）",
        "扫码看详情、报名",
    ):
        assert said in text, said
    fonts = [font.get_object() for font in read.pages[0]["/Resources"]["/Font"].values()]  # type: ignore[index,union-attr]
    assert fonts and all("/FontFile3" in font["/DescendantFonts"][0].get_object()["/FontDescriptor"] for font in fonts)
    assert len(read.pages) == 1 and len(reply.content) < 80_000
    size = read.pages[0].mediabox
    assert (round(float(size.width)), round(float(size.height))) == (595, 842)
    site.front.forget(site.reader.current)
    assert site.get("/v1/sessions/exam-year-1/poster.pdf", headers={"Accept-Language": "zh-CN"}).content == reply.content


def test_a_cover_is_a_picture_that_chat_apps_take(site: Site) -> None:
    publish(site)
    reply = site.get("/s/exam-year-1/cover.png")
    with Image.open(io.BytesIO(reply.content)) as picture:
        assert picture.size == (300, 300) and reply.headers["Content-Type"] == "image/png"


def test_paper_breaks_lines_as_chinese_does() -> None:
    def measure(text: str) -> float:
        return sum(1.0 if ord(one) < 0x2000 else 2.0 for one in text)

    lines = list(printing._wrap("他说：“好的”，然后走了。Then they left（真的）。", 12, measure))
    assert "".join(lines).replace(" ", "") == "他说：“好的”，然后走了。Thentheyleft（真的）。"
    assert all(measure(line) <= 12 for line in lines)
    assert not any(line[0] in printing.NO_START or line[-1] in printing.NO_END for line in lines)
    assert list(printing._wrap("W" * 30, 12, measure)) == ["W" * 12, "W" * 12, "W" * 6]
    assert printing.missing("王䶮𠮷ᠮ") == {"𠮷", "ᠮ"} and printing.printable("a\u202eb\n😀𠮷") == "ab 〓"


def test_paper_takes_what_is_far_too_long() -> None:
    made = printing.pdf(
        [printing.Line("长" * 1500, 36)], title="x", at=datetime(2026, 1, 1, tzinfo=UTC), frame=True, landscape=True
    )
    assert len(pypdf.PdfReader(io.BytesIO(made)).pages) == 1


@pytest.mark.parametrize("wrong", ["https://a.cn/", "https://a.cn/x", "ftp://a.cn", "https://u:p@a.cn", "a.cn", "https://a.cn\n"])
def test_a_public_address_is_a_host_and_nothing_more(wrong: str) -> None:
    with pytest.raises(SettingsError, match="XINQIAO_PUBLIC_URL"):
        Settings.from_env({"XINQIAO_PUBLIC_URL": wrong})
    assert replace(Settings(), public_url="https://a.cn").public("/s/1") == "https://a.cn/s/1"


def test_the_headers_do_not_tell_whether_an_invitation_fits_something(site: Site) -> None:
    publish(site, {"visibility": "invited", "invitation": codes.name(codes.new())}, kind="invited_")
    for path in ("/s/{}", "/v1/sessions/{}", "/v1/sessions/{}/qr.svg"):
        for query in ("", f"?invitation={codes.new()}"):
            there, nothing = (site.get(path.format(key) + query) for key in ("exam-year-1", "nothing"))
            assert there.status_code == nothing.status_code == 404
            assert ("RateLimit" in there.headers) == ("RateLimit" in nothing.headers)
    tried = [site.get(f"/v1/courses/nothing?invitation={codes.new()}").headers["RateLimit"] for _ in "ab"]
    assert tried[0] != tried[1] and tried[0].startswith('"sharing.invitation"')

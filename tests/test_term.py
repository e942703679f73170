"""An autumn term of forty sessions, planned, published, run and reported as one story.

Everything is done over HTTP by those who live it: an administrator, two organisers of a women's federation, a reviewer,
two schools, and families without accounts. The clock is moved on through the term, and the worker's three functions are called as
beat calls them. What coverage answers at the end is compared with numbers worked out on paper beside the term's table (PAPER).

The term is the next autumn. Its dates hang on National Day (`day(0)`), and its public holidays are put into the calendar during
the story, as an upgrade of the package brings them each November; so the story is the same in every year.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import chinese_calendar
import icalendar
import pytest
from openpyxl import load_workbook

from api import guard
from content import bookings, codes, sealed, sessions, store, waiting
from content.records import SYSTEM
from content.settings import SettingsError
from tests.site import PASSWORD, Clock, Site

SHANGHAI, HERE = ZoneInfo("Asia/Shanghai"), "150603"
OURS = "an own long phrase 7"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
LI = "李静怡"

PLACES = {  # kind, able, families
    "S1": ("station", True, None),
    "S2": ("station", True, None),
    "S3": ("station", False, None),
    "A": ("school", False, 120),
    "B": ("school", False, 80),
    "K": ("kindergarten", False, 30),
}
# Days from National Day -> how many came by the organiser's own count; None: who came stands in the door's list.
WEEKLY = {
    -28: None,
    -20: None,
    -13: 9,
    -7: 7,
    7: 9,
    13: 10,
    21: 11,
    28: 12,
    35: 13,
    42: 14,
    49: 15,
    56: 16,
    63: 17,
}  # S1, 2 hours
FORTNIGHTLY = {-26: 10, -12: 12, 16: 14, 30: 15, 44: 16, 58: 18, 72: 20}  # A, 1 hour
INVITED = {90: None, 104: 5}  # B, 1 hour
TABLE = [  # day, start, end, host, place, who came; the rows of the spreadsheet
    (-25, "16:00", "16:45", "B", "进学校", 11),
    (-20, "14:00", "15:30", "S2", "进社区", 20),
    (-6, "14:00", "15:30", "S2", "进社区", 21),
    (10, "16:00", "16:45", "B", "进学校", 12),
    (12, "09:30", "10:30", "K", "进学校", 18),
    (15, "14:00", "15:30", "S2", "进社区", None),  # is cancelled
    (18, "20:00", "21:00", "", "进网络", 40),
    (21, "19:30", "21:00", "A", "进学校", 30),  # clashes with the weekly one, and is moved to day 25
    (24, "16:00", "16:45", "B", "进学校", 13),
    (29, "14:00", "15:30", "S2", "进社区", 22),
    (31, "19:00", "20:00", "S3", "进社区", 6),
    (33, "09:00", "10:30", "", "进社区", 7),
    (38, "16:00", "16:45", "B", "进学校", 14),
    (43, "14:00", "15:30", "S2", "进社区", 23),
    (52, "16:00", "16:45", "B", "进学校", 15),
    (57, "14:00", "15:30", "S2", "进社区", 24),
    (95, "19:00", "20:30", "A", "进学校", 31),
    (100, "16:00", "16:45", "B", "进学校", 9),
]
ASKED = {"station_sessions": 6, "school_trainings": 2, "mental_share": 60, "term_class_hours": 10, "weeks_per_class": 0}
# Worked out by hand from the above. Days up to 91 are in the year, all in the term. The year and the term as (sessions,
# class-hours, people), sessions on mental health, for parents, people at those, and what the place lacks: sessions (6 of an
# able station), sessions for parents (2), families, class-hours (10 of a school), classes (none asked).
PAPER = {
    "S1": ((13, 26, 143), (13, 26, 143), 13, 13, 143, (0, 0, 0, 0, 0)),  # 13 x 2 h; 8 + 2 + 9 + 7 + 9 + 10 + … + 17
    "S2": ((5, 10, 110), (5, 10, 110), 0, 5, 110, (1, 0, 0, 0, 0)),  # one of six was cancelled
    "S3": ((1, 1, 6), (1, 1, 6), 0, 1, 6, (0, 0, 0, 0, 0)),
    "A": ((8, 9, 135), (9, 11, 166), 0, 8, 135, (0, 0, 0, 0, 0)),  # 7 x 1 h and 105, 2 h and 30; 2 h and 31 in January
    "B": ((6, 6, 67), (8, 8, 81), 0, 6, 67, (0, 0, 13, 2, 0)),  # 5 and 65, invited 1 and 2; in January 9 and 5
    "K": ((1, 1, 18), (1, 1, 18), 0, 1, 18, (0, 1, 12, 0, 0)),
}
HELD = {
    "station": (3, (19, 37, 259), (19, 37, 259)),
    "school": (2, (14, 15, 202), (17, 19, 247)),
    "kindergarten": (1, (1, 1, 18), (1, 1, 18)),
    "other": (0, (2, 3, 47), (2, 3, 47)),  # online and in a community: the federation's own
}
SHARES = {  # numerator, denominator, percent, target, missing
    "able": (1, 2, 50.0, 100, 1),
    "mental_health": (1, 3, 33.3, 60, 1),
    "schools": (2, 3, 66.6, 100, 1),
    "families": (120 + 67 + 18, 230, 89.1, 100, 25),
    "class_hours": (1, 2, 50.0, 100, 1),
    "classes": (0, 0, None, 100, 0),
}
FAMILIES = [  # name, telephone
    ("欧阳", "13900010001"), ("司马", "13900010002"), ("诸葛", "13900010003"), ("上官", "13900010004"), ("皇甫", "13900010005"),
    ("令狐", "13900010006"), ("宇文", "13900010007"), ("慕容", "13900010008"), ("尉迟", "13900010009"), ("公孙", "13900010010"),
]  # fmt: skip
NEEDS = "孩子坐轮椅，要走坡道"


def words(text: str) -> list[dict[str, str]]:
    return [{"language": "zh-Hans", "text": text}]


class Term:
    """The site, its clock, and the days of one term."""

    def __init__(self, site: Site, clock: Clock) -> None:
        self.site, self.clock = site, clock
        today = store.now().astimezone(SHANGHAI).date()
        self.year = today.year if today < date(today.year, 8, 1) else today.year + 1
        self.offices: dict[str, str] = {}
        self.codes: dict[int, str] = {}

    def day(self, n: int) -> date:
        """So many days after National Day."""
        return date(self.year, 10, 1) + timedelta(days=n)

    def at(self, n: int, clock: str, *names: str) -> None:
        """Move to a moment of the term, and sign these people in; the worker and the reader come round."""
        there = datetime.combine(self.day(n), time.fromisoformat(clock), SHANGHAI)
        self.clock((there - store.now()).total_seconds())
        guard.reset_limits()  # they are told by the real clock
        sessions.finish(store.now())
        waiting.expire(store.now())
        bookings.purge(store.now())
        self.site.refresh()
        for name in names:
            self.sign_in(name)

    def sign_in(self, name: str, password: str = OURS) -> None:
        reply = self.site.post("/v1/staff/session", {"name": name, "password": password})
        assert reply.status_code == 200, reply.text
        self.site.tokens[name] = reply.json()["access_token"]

    def ask(self, method: str, path: str, json: Any = None, status: int = 200, **more: Any) -> Any:
        """What is answered."""
        reply = self.site.call(method, path, **({} if json is None else {"json": json}), **more)
        assert reply.status_code == status, (method, path, reply.text)
        return reply.json() if reply.content and "json" in reply.headers["Content-Type"] else reply

    def post(self, path: str, json: Any = None, status: int = 200, **more: Any) -> Any:
        return self.ask("POST", path, {} if json is None else json, status, **more)

    def now(self, path: str, by: str) -> str:
        """The revision that this person reads."""
        return str(self.site.get(path, by=by).headers["ETag"])

    def step(self, path: str, verb: str, by: str, json: Any = None, status: int = 200) -> Any:
        """One verb on the record as it now is."""
        return self.post(f"{path}/{verb}", json, status, by=by, match=self.now(path, by))

    def edit(self, path: str, json: Any, by: str, match: str = "", status: int = 200) -> Any:
        return self.ask("PATCH", path, json, status, by=by, match=match or self.now(path, by))

    def book(self, n: int, what: str, seats: int, status: int = 201, **more: Any) -> Any:
        """The n-th family books, willing to wait."""
        name, phone = FAMILIES[n]
        body = {"family_name": name, "phone": phone, "seats": seats, "wait": True, "needs": NEEDS, **more}
        told = self.post(f"/v1/{what}/bookings", body, status)
        if status == 201:
            self.codes[n] = told["code"]
        return told

    def mine(self, n: int, session: str) -> dict[str, Any]:
        """The place of the n-th family in a session, as the booking's page shows it."""
        booked = self.ask("GET", f"/v1/bookings/{self.codes[n]}")
        return next(place for place in booked["places"] if place["session"]["id"] == session)

    def inbox(self, n: int) -> list[str]:
        return [message["kind"] for message in self.ask("GET", f"/v1/bookings/{self.codes[n]}")["messages"]]

    def calls(self, session: str) -> dict[str, tuple[str, str, str]]:
        """Whom to call: family name -> why, telephone, place."""
        items = self.ask("GET", f"/v1/staff/sessions/{session}/calls", by="ann")["items"]
        return {one["family_name"]: (one["why"], one["phone"], one["place"]) for one in items}

    def feed(self, path: str) -> dict[str, Any]:
        """A calendar: UID's session -> VEVENT."""
        self.site.refresh()
        reply = self.site.get(path)
        assert reply.status_code == 200, reply.text
        return {str(one["UID"]).partition("@")[0]: one for one in icalendar.Calendar.from_ical(reply.content).walk("VEVENT")}


@pytest.fixture
def term(site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Term]:
    """The summer before a term whose public holidays nobody has told yet."""
    sealed.seal("")
    made = Term(site, clock)
    for table in (chinese_calendar.constants.holidays, chinese_calendar.constants.workdays):
        for known in [known for known in table if known.year >= made.year]:
            monkeypatch.delitem(table, known)
    made.at(-50, "09:00")
    yield made


def holidays_are_told(term: Term, monkeypatch: pytest.MonkeyPatch) -> None:
    """The State Council's notice for the term, as the calendar package takes it in."""
    off = {term.day(n): "National Day" for n in range(7)} | {date(term.year + 1, 1, 1): "New Year's Day"}
    for known, name in off.items():
        monkeypatch.setitem(chinese_calendar.constants.holidays, known, name)
    monkeypatch.setitem(chinese_calendar.constants.workdays, term.day(-12), "National Day")


# --- the chapters ----------------------------------------------------------------------------------------------------


def offices_and_people(term: Term) -> None:
    """The administrator enters the organisations and makes accounts; each changes the password that was given out."""
    boss = term.site.person("boss", "admin")
    fed = {"name": "康巴什区妇联", "kind": "federation", "division": HERE}
    term.offices["fed"] = term.post("/v1/staff/organisations", fed, 201, by=boss)["id"]
    for name, (kind, able, parents) in PLACES.items():
        marks = {"able": able} if parents is None else {"parents": parents}
        body = {"name": f"示例{name}", "kind": kind, "division": HERE, **marks}
        term.offices[name] = term.post("/v1/staff/organisations", body, 201, by=boss)["id"]
    people = {
        "ann": ("organiser", ""),
        "bao": ("organiser", ""),
        "rev": ("reviewer", ""),
        "tian": ("organiser", "A"),
        "bei": ("organiser", "B"),
    }
    for name, (role, office) in people.items():
        grant = {"role": role, "division": HERE, "organisation": term.offices.get(office, "")}
        account = {"name": name, "display_name": name, "password": PASSWORD, "grants": [grant]}
        term.post("/v1/staff/accounts", account, 201, by=boss)
        term.sign_in(name, PASSWORD)
        changed = term.post("/v1/staff/me/password", {"old": PASSWORD, "new": OURS}, by=name)
        term.site.tokens[name] = changed["access_token"]


def a_lecturer_and_a_demand(term: Term) -> tuple[str, str]:
    """An expert enters the library by two people's hands; a school asks, another seconds. Ids of both."""
    entry = {
        "name": words(LI), "field": words("青春期情绪"), "kind": "expert", "topics": ["emotion"], "division": HERE,
        "organisation": term.offices["fed"], "profile": words("从教三十年。"), "paired_schools": [term.offices["A"]],
    }  # fmt: skip
    lecturer = term.post("/v1/staff/lecturers", entry, 201, by="ann")["id"]
    path = f"/v1/staff/lecturers/{lecturer}"
    assert term.step(path, "publish", "ann", status=403)["code"] == "second_person"
    term.step(path, "approve", "rev")
    assert term.step(path, "publish", "ann")["state"] == "published"
    assert term.ask("GET", f"/v1/lecturers/{lecturer}")["name"] == LI

    wish = {
        "organisation": term.offices["A"], "division": HERE, "topic": "emotion", "audiences": ["parent"], "people": 60,
        "month": f"{term.year}-09", "why": words("开学后很多家长问情绪怎么接"),
    }  # fmt: skip
    demand = f"/v1/staff/demands/{term.post('/v1/staff/demands', wish, 201, by='tian')['id']}"
    term.step(demand, "publish", "tian")
    term.post(f"{demand}/seconds", {"organisation": term.offices["B"]}, by="bei")
    (listed,) = term.ask("GET", f"/v1/demands?division={HERE}")["items"]
    assert listed["state"] == "open" and [one["name"] for one in listed["seconds"]] == ["示例B"]
    return lecturer, demand


def series(term: Term, title: str, topics: list[str], **more: Any) -> str:
    """Path of a new series: ann writes, the reviewer approves, ann publishes."""
    body = {
        "texts": [{"language": "zh-Hans", "title": title}], "topics": topics, "audiences": ["parent"], "format": "lecture",
        "organisation": term.offices["fed"], "division": HERE, "organiser_name": words("康巴什区妇联"), **more,
    }  # fmt: skip
    path = f"/v1/staff/courses/{term.post('/v1/staff/courses', body, 201, by='ann')['id']}"
    assert term.step(path, "publish", "ann", status=403)["code"] == "second_person"
    term.step(path, "approve", "rev")
    assert term.step(path, "publish", "ann")["state"] == "published"
    return path


def planned(term: Term, path: str, n: int, clock: str, host: str, venue: str, **more: Any) -> dict[str, Any]:
    body = {
        "first": f"{term.day(n)}T{clock}", "host": term.offices[host], "place": "community", "capacity": 6,
        "venue": {"name": words(venue), "address": words(f"{venue}路1号")}, **more,
    }  # fmt: skip
    return dict(term.post(f"{path}/plan", body, by="ann"))


def flagged(plan: dict[str, Any], kind: str) -> list[str]:
    """Days with such a flag."""
    return [row["starts_at"][:10] for row in plan["items"] if kind in {flag["kind"] for flag in row["flags"]}]


def the_plan(term: Term, lecturer: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, str]:
    """A weekly, a fortnightly and an invited series from rules: paths of the three."""
    weekly = series(term, "情绪接得住：家长夜校", ["emotion"])
    rule = {"rule": "FREQ=WEEKLY;COUNT=14", "duration_minutes": 90, "lecturer_id": lecturer, "booking_closes_hours_before": 2}
    seen = planned(term, weekly, -28, "19:00", "S1", "滨河社区", **rule)
    assert len(flagged(seen, "provisional")) == 14 and not seen["written"]
    assert flagged(seen, "holiday") == [str(term.day(0))]  # National Day is one whatever is arranged
    holidays_are_told(term, monkeypatch)
    seen = planned(term, weekly, -28, "19:00", "S1", "滨河社区", **rule)
    assert flagged(seen, "provisional") == [] and flagged(seen, "holiday") == [str(term.day(0))]
    moved = [{"from": str(term.day(n)), "to": f"{term.day(n + by)}T19:00"} for n, by in ((-14, 1), (14, -1))]
    plan = rule | {"skip": ["holidays"], "moved": moved}
    outcomes = Counter(row["outcome"] for row in planned(term, weekly, -28, "19:00", "S1", "滨河社区", **plan)["items"])
    assert outcomes == {"new": 13, "skipped": 1} and term.ask("GET", "/v1/staff/sessions", by="ann")["items"] == []
    done = planned(term, weekly, -28, "19:00", "S1", "滨河社区", **plan, dry_run=False)
    again = planned(term, weekly, -28, "19:00", "S1", "滨河社区", **plan, dry_run=False)
    assert done["written"] and Counter(row["outcome"] for row in again["items"]) == {"unchanged": 13, "skipped": 1}

    salon = series(term, "周末亲子沙龙", ["parenting"], audiences=["parent", "student"], format="salon")
    rule = {"rule": "FREQ=WEEKLY;INTERVAL=2;COUNT=8", "duration_minutes": 60, "skip": ["holidays"], "dry_run": False}
    done = planned(term, salon, -26, "10:00", "A", "示例A报告厅", **rule)
    assert flagged(done, "workday") == [str(term.day(-12))] and flagged(done, "holiday") == [str(term.day(2))]

    exams = {"division": HERE, "code": "finals", "first": str(term.day(96)), "last": str(term.day(99))}
    term.post("/v1/staff/seasons", exams, 201, by="ann")
    inner = series(term, "六年级家长小课", ["parenting"], visibility="invited")
    rule = {"rule": "FREQ=WEEKLY;COUNT=3", "duration_minutes": 45, "skip": ["exam_days"], "dry_run": False}
    done = planned(term, inner, 90, "18:30", "B", "示例B教室", **rule)
    assert [row["outcome"] for row in done["items"]] == ["new", "skipped", "new"]
    assert flagged(done, "exam_day") == [str(term.day(97))]
    return weekly, salon, inner


def the_spreadsheet(term: Term) -> str:
    """The rest of the term from the template, filled in as a spreadsheet program does: path of its series."""
    path = series(term, "送教上门", ["parenting"])
    template = term.site.get("/v1/staff/schedules/template.xlsx", by="ann").content
    book = load_workbook(io.BytesIO(template))
    page = book.worksheets[0]
    columns = {str(cell.value): n for n, cell in enumerate(page[1], 1)}
    page.delete_rows(2)  # the example
    for line, (n, start, end, host, place, _) in enumerate(TABLE, 2):
        cells: dict[str, Any] = {
            "课程": "送教上门", "日期": term.day(n), "开始": time.fromisoformat(start), "结束": time.fromisoformat(end),
            "场所": place, "承办单位": f"示例{host}" if host else None, "名额": 30, "提前几小时截止": 1, "候补": "是",
            "讲师": LI if n == 21 else "赵老师",
        }  # fmt: skip
        cells |= (
            {"线上链接": "https://meet.example/18"}
            if place == "进网络"
            else {"场地": f"示例{host}活动室", "地址": f"示例路{line}号"}
        )
        for name, value in cells.items():
            page.cell(line, columns[name], value)

    def send(dry: bool) -> dict[str, Any]:
        out = io.BytesIO()
        book.save(out)
        address, headers = f"/v1/staff/schedules?dry_run={str(dry).lower()}", {"Content-Type": XLSX}
        return dict(term.ask("POST", address, data=out.getvalue(), by="ann", headers=headers))

    page.cell(9, columns["名额"], "三十")
    told = send(dry=False)
    (bad,) = [row for row in told["items"] if row["outcome"] == "refused"]
    assert (bad["line"], [error["field"] for error in bad["errors"]]) == (9, ["名额"]) and told["written"] == 0
    assert len(drafts(term)) == 22
    page.cell(9, columns["名额"], 30)
    told = send(dry=True)
    assert (told["counts"]["new"], told["written"], len(drafts(term))) == (18, 0, 22)
    assert [row["line"] for row in told["items"] if LI in str(row["warnings"])] == [9]
    assert (send(dry=False)["written"], send(dry=False)["counts"]["unchanged"]) == (18, 18)
    return path


def drafts(term: Term) -> list[dict[str, Any]]:
    """All sessions, by their start."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        told = term.ask("GET", f"/v1/staff/sessions?limit=100{cursor}", by="ann")
        items += told["items"]
        if not told["next_cursor"]:
            return sorted(items, key=lambda one: (one["starts_at"], one["id"]))
        cursor = f"&cursor={told['next_cursor']}"


def the_publication(term: Term) -> dict[tuple[str, int], str]:
    """All forty at once, as previewed: (series, day) -> id."""
    found = drafts(term)
    assert len(found) == 40 and {one["state"] for one in found} == {"draft"}
    batch = {"sessions": [one["id"] for one in found]}
    address = "/v1/staff/sessions/publish-batch"
    seen = term.post(address, batch, by="ann")
    refused = [row for row in seen["items"] if row["outcome"] == "refused"]
    assert seen["counts"] == {"publish": 38, "unchanged": 0, "refused": 2}
    assert all(LI in row["errors"][0]["messages"]["zh-Hans"] and row["starts_at"][:10] == str(term.day(21)) for row in refused)
    late = next(one for one in found if one["starts_at"][:16] == f"{term.day(21)}T19:30")
    (clash,) = term.ask("GET", f"/v1/staff/sessions/{late['id']}/clashes", by="ann")["items"]
    assert clash["session"] in {row["id"] for row in refused}
    put = {"starts_at": f"{term.day(25)}T19:30", "ends_at": f"{term.day(25)}T21:00"}
    term.edit(f"/v1/staff/sessions/{late['id']}", put, "ann")
    seen = term.post(address, batch, by="ann")
    assert seen["counts"] == {"publish": 40, "unchanged": 0, "refused": 0}

    # a colleague changes one of them while ann reads the preview
    term.edit(f"/v1/staff/sessions/{found[20]['id']}", {"title": words("陪伴")}, "bao")
    publish = {**batch, "dry_run": False}
    stale = term.post(address, {**publish, "preview": seen["preview"]}, 412, by="ann")
    assert stale["code"] == "stale" and term.ask("GET", "/v1/sessions")["items"] == []
    seen = term.post(address, batch, by="ann")
    assert term.post(address, {**publish, "preview": seen["preview"]}, by="ann")["published"] == 40

    public = term.ask("GET", f"/v1/sessions?division={HERE}&limit=100")["items"]
    assert len(public) == 38 and not any(one["provisional"] for one in public)
    return {(one["series"], days(term, one)): one["id"] for one in drafts(term)}


def days(term: Term, one: dict[str, Any]) -> int:
    """Days from National Day."""
    return (date.fromisoformat(one["starts_at"][:10]) - term.day(0)).days


def families_book(term: Term, weekly: str, first: str, second: str, cancelled: str, inner: tuple[str, str]) -> None:
    """One session and a whole series; who comes late waits, is offered, accepts, declines or lets it pass."""
    term.book(0, f"sessions/{first}", 4)
    whole = term.book(1, f"courses/{weekly}", 2)
    assert len(whole["places"]) == 13 and {place["state"] for place in whole["places"]} == {"confirmed"}
    for n, seats in ((2, 2), (3, 1), (4, 1), (5, 1), (6, 1)):
        (place,) = term.book(n, f"sessions/{first}", seats)["places"]
        assert (place["state"], place["ahead"]) == ("waiting", n - 2)
    assert term.book(7, f"sessions/{first}", 1, 409, wait=False)["code"] == "full"
    term.site.refresh()
    assert term.ask("GET", f"/v1/sessions/{first}")["seats"] == "full"

    term.ask("DELETE", f"/v1/bookings/{term.codes[0]}")
    assert [term.mine(n, first)["state"] for n in range(2, 6)] == ["offered", "offered", "offered", "waiting"]
    for n, verb in ((2, "accept"), (3, "decline")):
        term.post(f"/v1/bookings/{term.codes[n]}/places/{first}/{verb}")
    assert term.inbox(5) == ["offered"]
    term.post(f"/v1/bookings/{term.codes[5]}/places/{first}/accept")

    term.book(7, f"sessions/{second}", 1)
    term.book(8, f"sessions/{cancelled}", 3)
    path, invited = inner
    term.ask("GET", f"/v1/sessions/{invited}", status=404)
    term.book(9, f"sessions/{invited}", 2, 404)
    invitation = term.ask("GET", path, by="ann")["invitation"]
    assert term.ask("GET", f"/v1/sessions/{invited}?invitation={invitation}")["id"] == invited
    assert term.book(9, f"sessions/{invited}", 2, invitation=invitation)["places"][0]["state"] == "confirmed"


def two_edit_one_session(term: Term, second: str) -> None:
    """The week before: one of two gets 412, reads again, and sends what he had written once more."""
    path = f"/v1/staff/sessions/{second}"
    read = term.now(path, "ann")
    assert term.now(path, "bao") == read
    before = term.feed(f"/v1/calendars/divisions/{HERE}.ics")[second]
    secret = term.ask("GET", f"/v1/bookings/{term.codes[1]}")["calendar"]
    hers = term.edit(path, {"starts_at": f"{term.day(-20)}T19:00"}, "ann", read)
    times = [hers[name][:16] for name in ("booking_closes_at", "starts_at", "ends_at")]
    assert times == [f"{term.day(-20)}T{clock}" for clock in ("17:00", "19:00", "20:30")]
    his = {"venue": {"name": words("滨河社区"), "address": words("滨河社区路1号"), "access": words("北门有坡道")}}
    assert term.edit(path, his, "bao", read, 412)["code"] == "stale"
    both = term.edit(path, his, "bao")
    assert (both["starts_at"][:10], both["venue"]["access"][0]["text"]) == (str(term.day(-20)), "北门有坡道")

    for feed in (f"/v1/calendars/divisions/{HERE}.ics", secret):
        after = term.feed(feed)[second]
        assert after["DTSTART"].dt.date() == term.day(-20) and after["SEQUENCE"] > before["SEQUENCE"]
    assert term.inbox(1) == ["changed", "moved"]
    calls = term.calls(second)
    assert calls.keys() == {"慕容"} and calls["慕容"][:2] == ("moved", "+8613900010008")  # the graver of the two
    term.post(f"{path}/calls/{calls['慕容'][2]}", {"outcome": "no_answer"}, 200, by="ann")
    assert term.calls(second).keys() == {"慕容"}
    term.post(f"{path}/calls/{calls['慕容'][2]}", {"outcome": "reached"}, 200, by="ann")
    assert term.calls(second) == {}


def one_is_cancelled(term: Term, session: str) -> None:
    path = f"/v1/staff/sessions/{session}"
    term.step(path, "cancel", "ann", {"note": "讲师生病"})
    calls = term.calls(session)
    assert {name: call[0] for name, call in calls.items()} == {"尉迟": "cancelled"}
    event = term.feed(f"/v1/calendars/stations/{term.offices['S2']}.ics")[session]
    assert event["STATUS"] == "CANCELLED" and "取消" in event["SUMMARY"]
    assert term.inbox(8) == ["cancelled"] and term.calls(session) == {}  # they have read it: nobody calls


def the_first_evening(term: Term, session: str) -> None:
    """Who let the offer pass is out; at the door by QR code, by the list, by a code that is read out, and without a booking."""
    assert term.mine(4, session)["state"] == "expired" and term.inbox(4) == ["expired"]
    door = f"/v1/staff/sessions/{session}"
    listed = term.ask("GET", f"{door}/door", by="ann")
    place = {one["family_name"]: one for one in listed["items"]}
    assert {name for name, one in place.items() if one["state"] == "confirmed"} == {"司马", "诸葛", "令狐", "宇文"}
    token = term.ask("GET", f"/v1/bookings/{term.codes[1]}")["check_in"]
    assert token == place["司马"]["token"]
    noted = {
        "items": [
            {"nonce": "n" * 15 + "1", "token": token},
            {"nonce": "n" * 15 + "2", "place": place["诸葛"]["place"]},
            {"nonce": "n" * 15 + "3", "code": term.codes[5]},
            {"nonce": "n" * 15 + "4", "code": term.codes[4]},
        ],
        "walk_ins": [{"nonce": "n" * 15 + "5", "people": 3}],
    }
    for outcomes in (["in", "in", "in", "cancelled"],) * 2:  # the answer was lost: sent again, it counts once
        told = term.post(f"{door}/check-ins", noted, by="ann")
        assert [one["outcome"] for one in told["items"]] == outcomes and (
            told["totals"]["attended"],
            told["totals"]["walk_ins"],
        ) == (5, 3)


def at_the_door(term: Term, session: str, **seats: int) -> None:
    """These families come, with so many."""
    door = f"/v1/staff/sessions/{session}"
    place = {one["family_name"]: one["place"] for one in term.ask("GET", f"{door}/door", by="ann")["items"]}
    items = [{"nonce": f"{session}-{name}".encode().hex()[-40:], "place": place[name], "seats": n} for name, n in seats.items()]
    told = term.post(f"{door}/check-ins", {"items": items}, by="ann")
    assert {one["outcome"] for one in told["items"]} == {"in"} and told["totals"]["attended"] == sum(seats.values())


def count(term: Term, keys: dict[int, list[tuple[str, int]]], first: int, last: int) -> None:
    """Week by week, from the first day to the day before the last, ann writes down how many came."""
    for week in range(first, last, 7):
        held = [n for n in range(week, min(week + 7, last)) if n in keys]
        if held:
            term.at(held[-1], "23:00", "ann")
        for n in held:
            for key, people in keys[n]:
                path = f"/v1/staff/sessions/{key}"
                read = term.site.get(path, by="ann")
                assert read.json()["state"] == "finished"
                term.ask("PUT", f"{path}/headcount", {"headcount": people}, by="ann", match=read.headers["ETag"])


def coverage(term: Term) -> dict[str, Any]:
    return dict(term.ask("GET", f"/v1/staff/coverage?division={HERE}&year={term.year}&term=autumn&limit=100", by="ann"))


def spans(row: dict[str, Any]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    year, part = ((row[name]["sessions"], row[name]["class_hours"], row[name]["people"]) for name in ("year", "term"))
    return year, part


def the_report(term: Term) -> dict[str, Any]:
    """Coverage is the paper's, on the screen and in the table."""
    found = coverage(term)
    counts = ("mental_sessions", "trainings", "trained")
    rows = {
        row["name"].removeprefix("示例"): (*spans(row), *(row[name] for name in counts), tuple(row["short"].values()))
        for row in found["items"]
    }
    assert rows == PAPER
    assert {row["kind"]: (row["places"], *spans(row)) for row in found["held"]} == HELD
    names = ("numerator", "denominator", "percent", "target", "missing")
    assert {one["code"]: tuple(one[name] for name in names) for one in found["shares"]} == SHARES
    assert all(row["planned"] == row["planned_class_hours"] == 0 for row in found["items"])

    def table(kind: str) -> list[dict[str, str]]:
        address = f"/v1/staff/coverage.csv?division={HERE}&year={term.year}&term=autumn&table={kind}"
        text = term.site.get(address, by="ann").content.decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline="")))

    columns = [
        "本年场次", "本年课时", "本年人次", "学期场次", "学期课时", "学期人次", "心理健康场次", "家长场次", "家长场次人次",
        "还差场次", "还差家长场次", "还差家庭", "还差课时", "缺课周期",
    ]  # fmt: skip
    flat = {name: (*year, *part, *three, *lacks) for name, (year, part, *three, lacks) in PAPER.items()}
    read = {row["名称"].removeprefix("示例"): tuple(int(row[name]) for name in columns) for row in table("places")}
    assert read == flat
    shares = [(int(row["分子"]), int(row["分母"]), int(row["还差"])) for row in table("shares")[:6]]
    assert shares == [(one[0], one[1], one[4]) for one in SHARES.values()]
    return found


def dump() -> str:
    """All that the database holds, as text; what is sealed in it opened."""
    text: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name, one in value.items():
                text.append(str(name))
                walk(one)
        elif isinstance(value, list | tuple):
            for one in value:
                walk(one)
        elif isinstance(value, bytes):
            walk(opened(value))
        else:
            text.append(str(value))

    database = store.database()
    for name in database.list_collection_names():
        for raw in database[name].find({}):
            walk(raw)
    return "\n".join(text)


def opened(value: bytes) -> Any:
    """What is sealed, JSON as its value; else the bytes as text and in hex digits."""
    try:
        found = sealed.unseal(value)
    except SettingsError:
        return value.decode("utf-8", "replace") + value.hex()
    return json.loads(found) if found[:1] == "{" else found


def nothing_personal_is_left(term: Term, report: dict[str, Any]) -> None:
    """Thirty days after the last session: names, telephones and codes are nowhere; the numbers stay, with a line of proof."""
    name, phone = FAMILIES[9]  # of the last but one week
    before = dump()
    assert name in before and phone in before and NEEDS in before
    last = max(one["ends_at"] for one in drafts(term))
    assert last[:10] == str(term.day(104))
    term.at(134, "20:00", "ann")
    term.sign_in("boss", PASSWORD)
    text = dump()
    for name, phone in FAMILIES:
        assert name not in text and phone not in text
    for code in term.codes.values():
        assert code not in text and codes.name(code) not in text and code.replace("-", "") not in text
    assert NEEDS not in text
    assert bookings.Booking.rows().count_documents({}) == bookings.Place.rows().count_documents({}) == 0
    term.ask("GET", f"/v1/bookings/{term.codes[1]}", status=404)

    lines = term.ask("GET", "/v1/staff/audit?kind=series&limit=200", by="boss")["items"]
    notes = [line["note"] for line in lines if line["action"] == "series.erase_bookings"]
    assert {line["actor"] for line in lines if line["action"] == "series.erase_bookings"} == {SYSTEM}
    assert sum(int(note.removesuffix(" bookings")) for note in notes) == len(FAMILIES)
    after = coverage(term)
    assert {name: after[name] for name in ("held", "shares")} == {name: report[name] for name in ("held", "shares")}
    assert [spans(row) for row in after["items"]] == [spans(row) for row in report["items"]]


def the_export(term: Term) -> None:
    """The term goes out as a table, and is unchanged when it comes back."""
    span = f"from={term.day(-30)}&to={term.day(110)}"
    file = term.site.get(f"/v1/staff/schedules.xlsx?{span}", by="ann").content
    page = load_workbook(io.BytesIO(file)).worksheets[0]
    head, *rows = [[cell.value for cell in row] for row in page.iter_rows()]
    assert Counter(row[head.index("状态")] for row in rows) == {"已结束": 39, "已取消": 1}
    told = term.ask("POST", "/v1/staff/schedules", data=file, by="ann", headers={"Content-Type": XLSX})
    assert told["counts"] == {"new": 0, "changed": 0, "unchanged": 40, "refused": 0}


# --- the story -------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # twelve seconds: what it tells stands in the stories of each part too
def test_an_autumn_term_of_forty_sessions(term: Term, monkeypatch: pytest.MonkeyPatch) -> None:
    offices_and_people(term)
    lecturer, demand = a_lecturer_and_a_demand(term)
    term.ask("PUT", f"/v1/staff/coverage/targets/{HERE}/{term.year}", ASKED, 201, by="ann")
    weekly, salon, inner = the_plan(term, lecturer, monkeypatch)
    table = the_spreadsheet(term)
    keys = the_publication(term)
    evening, gone, sixth = weekly.rsplit("/", 1)[1], table.rsplit("/", 1)[1], inner.rsplit("/", 1)[1]
    assert len(term.feed(f"/v1/calendars/lecturers/{lecturer}.ics")) == 14  # and the one in the school
    answered = term.step(demand, "answer", "ann", {"series": evening, "note": words("每周一晚，欢迎家长来")})
    assert answered["state"] == "answered" and answered["answer"]["provider"] == term.offices["fed"]

    first, second = keys[evening, -28], keys[evening, -21]
    families_book(term, evening, first, second, keys[gone, 15], (inner, keys[sixth, 90]))
    # the next day: who took no notice of the offer has lost it, and the next, who does not look, is called
    term.at(-47, "10:00", "ann")
    assert term.calls(first)["宇文"][:2] == ("offered", "+8613900010007")
    term.post(f"/v1/staff/sessions/{first}/bookings/{term.calls(first)['宇文'][2]}/give", by="ann")
    assert term.calls(first) == {}

    term.at(-30, "10:00", "ann", "bao")
    two_edit_one_session(term, second)
    term.at(-28, "18:40", "ann")
    the_first_evening(term, first)
    counted: dict[int, list[tuple[str, int]]] = {}
    rows = [*((evening, n, p) for n, p in WEEKLY.items()), *((salon.rsplit("/", 1)[1], n, p) for n, p in FORTNIGHTLY.items())]
    rows += [*((sixth, n, p) for n, p in INVITED.items()), *((gone, 25 if n == 21 else n, p) for n, *_, p in TABLE)]
    keys = {(one["series"], days(term, one)): one["id"] for one in drafts(term)}
    for name, n, people in rows:
        if people is not None:
            counted.setdefault(n, []).append((keys[name, n], people))
    assert len(rows) == len(keys) == 40 and sum(map(len, counted.values())) == 36
    count(term, counted, -28, -20)
    term.at(-20, "20:00", "ann")
    at_the_door(term, second, 司马=1, 慕容=1)
    count(term, counted, -20, 10)
    one_is_cancelled(term, keys[gone, 15])
    count(term, counted, 10, 90)
    term.at(90, "18:00", "ann")
    at_the_door(term, keys[sixth, 90], 公孙=2)
    count(term, counted, 90, 108)

    term.sign_in("tian")
    assert term.step(demand, "done", "tian")["state"] == "done"
    nothing_personal_is_left(term, the_report(term))
    the_export(term)

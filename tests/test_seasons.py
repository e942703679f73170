"""Seasons: which days they are, who has confirmed them, and what a phone is told of them."""

import re
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from icalendar import Calendar, Event

from api import bootstrap
from content import store
from content.failures import Invalid, NotFound
from content.published import Reader
from content.vocabulary import SEASONS
from notifications import notices, seasons
from notifications.seasons import Override, Span
from tests.site import Site, library


def day(text: str) -> date:
    """A date."""
    return date.fromisoformat(text)


SPANS = {  # facts/calendar.md and the calendars of 2026 and 2027
    ("gaokao", 2027): ("2027-06-07", "2027-06-09"),
    ("families_week", 2027): ("2027-05-10", "2027-05-16"),
    ("families_week", 2026): ("2026-05-11", "2026-05-17"),
    ("mental_health_day", 2027): ("2027-10-10", "2027-10-10"),
    ("mental_health_month", 2027): ("2027-05-01", "2027-05-31"),
    ("student_day", 2027): ("2027-05-25", "2027-05-25"),
    ("children_day", 2027): ("2027-06-01", "2027-06-01"),
    ("world_children_day", 2027): ("2027-11-20", "2027-11-20"),
    ("teachers_day", 2027): ("2027-09-10", "2027-09-10"),
    ("life_day", 2027): ("2027-09-10", "2027-09-10"),
    ("disability_day", 2025): ("2025-05-18", "2025-05-18"),
    ("disability_day", 2026): ("2026-05-17", "2026-05-17"),
    ("disability_day", 2027): ("2027-05-16", "2027-05-16"),
    ("school_safety_day", 2025): ("2025-03-31", "2025-03-31"),
    ("school_safety_day", 2026): ("2026-03-30", "2026-03-30"),
    ("school_safety_day", 2027): ("2027-03-29", "2027-03-29"),
}


def test_the_days_of_the_facts() -> None:
    for (code, year), (first, last) in SPANS.items():
        assert seasons.season(code, year) == Span(day(first), day(last), False)
    assert day("2027-06-07").weekday() == 0
    assert seasons.season("gaokao", 2040).provisional
    assert seasons.season("zhongkao", 2027).provisional
    assert set(seasons.calendar().seasons) == set(SEASONS)
    with pytest.raises(NotFound):
        seasons.season("nothing", 2027)


@pytest.mark.parametrize(
    "rule",
    [
        {}, {"date": "02-30"}, {"date": "06-07", "week_of": "05-15"}, {"month": 13}, {"month": 5, "weekday": 0, "nth": 1},
        {"month": 5, "weekday": 7, "nth": 5}, {"usual": "06-12..06-22"}, {"local": True, "usual": "06-12", "days": 3},
    ],
)  # fmt: skip
def test_a_rule_that_is_none_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"seasons\.yaml, x"):
        seasons._season({"code": "x", "rule": rule, "lead_days": [0]})


def test_no_push_is_near_a_quarter_or_within_a_sitting() -> None:
    row = {"code": "x", "rule": {"date": "06-07"}, "lead_days": [0]}
    for wrong in ({"at": "18:30"}, {"at": "18:32"}, {"at": "17:58"}, {"at": "10:07", "sitting": "08:30..18:00"}):
        with pytest.raises(ValueError, match=r"seasons\.yaml, x"):
            seasons._season({**row, **wrong})
    assert seasons._season({**row, "at": "18:33"}).at == time(18, 33)


def test_the_notices_of_the_gaokao() -> None:
    june = [one for one in seasons.occasions("150603", day("2027-05-01"), day("2027-06-30")) if one.code == "gaokao"]
    assert [(one.lead, str(one.on), str(one.until)) for one in june] == [
        (-30, "2027-05-08", "2027-05-24"), (-14, "2027-05-24", "2027-05-31"), (-7, "2027-05-31", "2027-06-06"),
        (-1, "2027-06-06", "2027-06-07"), (0, "2027-06-07", "2027-06-10"), (1, "2027-06-10", "2027-06-13"),
    ]  # fmt: skip
    assert {(one.year, one.division, one.at, one.span.provisional) for one in june} == {(2027, "150603", time(18, 37), False)}
    assert {one.division for one in seasons.occasions("000000", day("2027-06-07"), day("2027-06-07"))} == {""}
    # a month's one notice is worth something as long as the month, a day's for two days more
    may = {one.code: one for one in seasons.occasions("", day("2027-05-01"), day("2027-06-01"))}
    assert (may["mental_health_month"].until, may["children_day"].until) == (day("2027-06-01"), day("2027-06-04"))
    (now,) = [c for c in seasons.current(day("2027-06-06"), "150603", "senior.12.final") if c.season.code == "gaokao"]
    assert now.starts_in == 1
    assert "gaokao" not in {c.season.code for c in seasons.current(day("2027-06-06"), "150603", "junior.9.final")}


def test_the_gaokao_may_be_moved_nationwide_or_in_one_place() -> None:
    nation = Override("", "gaokao", 2020, day("2020-07-07"), day("2020-07-10"))
    city = Override("310000", "gaokao", 2022, day("2022-07-07"), day("2022-07-09"))
    assert seasons.season("gaokao", 2020, [nation], "150603")[:2] == (nation.first, nation.last)
    assert seasons.season("gaokao", 2022, [city], "310101")[:2] == (city.first, city.last)
    assert seasons.season("gaokao", 2022, [city], "150603").first == day("2022-06-07")
    # of several the nearest counts, whatever order they come in
    told = [
        Override(where, "gaokao", 2022, day(f"2022-07-0{n}"), day("2022-07-09"))
        for n, where in enumerate(("", "310000", "310101"), 1)
    ]
    for overrides in (told, told[::-1]):
        firsts = [seasons.season("gaokao", 2022, overrides, where).first.day for where in ("150603", "310104", "310101")]
        assert firsts == [1, 2, 3]
    # sleep day of the World Sleep Society in one district: a confirmed date is the setting
    friday = Override("150603", "sleep_day", 2027, day("2027-03-19"), day("2027-03-19"))
    assert [o.on for o in seasons.occasions("150603", day("2027-03-10"), day("2027-03-25"), [friday])] == [day("2027-03-19")]
    assert [o.on for o in seasons.occasions("150602", day("2027-03-10"), day("2027-03-25"), [friday])] == [day("2027-03-21")]


@pytest.mark.parametrize(("stage", "exam"), [("junior.9.final", "zhongkao"), ("senior.final", "gaokao")])
def test_whose_exam_is_not_over_hears_of_nothing_after_it(stage: str, exam: str) -> None:
    found = [
        one
        for one in seasons.occasions("150603", day("2027-05-01"), day("2027-07-31"))
        if seasons.calendar().seasons[one.code].meant_for(stage)
    ]
    over = seasons.season(exam, 2027).last
    after = {"finals_summer", "results", "zhongkao_results", "graduation", "summer_break"}
    assert len(after & {one.code for one in found}) == 3  # the own results, graduation and the holidays
    assert [one for one in found if one.code in after and one.on <= over] == []
    assert seasons.calendar().seasons["finals_summer"].meant_for("junior.8")


def test_one_thing_a_day_and_one_evening_before() -> None:
    """A teacher has the tenth of September to herself; a family that enters a school hears "tomorrow" once."""
    everyone = seasons.calendar().seasons
    ninth = [one for one in seasons.occasions("", day("2027-09-10"), day("2027-09-10")) if one.on == one.span.first]
    assert [code for code in (one.code for one in ninth) if "teacher" in everyone[code].audiences] == ["teachers_day"]
    assert everyone["enrolment"].meant_for("preschool.entering")
    for stage in ("primary.1.entering", "senior.10.entering"):
        eves = [code for code, one in everyone.items() if -1 in one.lead_days and one.meant_for(stage)]
        assert {"enrolment", "term_start"} & set(eves) == {"term_start"}


def test_while_an_exam_sits() -> None:
    sits = [(time(8, 30), time(18, 0))]
    for where in ("", "150603", "150000"):
        assert seasons.sittings(where, day("2027-06-08")) == sits
        assert seasons.sittings(where, day("2027-06-10")) == sits  # electives, in some provinces
        assert seasons.sittings(where, day("2027-06-11")) == []
    assert seasons.sittings("150603", day("2029-06-07")) == sits  # past the known-until day, and by law all the same
    assert seasons.sittings("150603", day("2027-06-15")) == []  # the usual days of the zhongkao, which nobody has confirmed
    told = [
        Override("150603", "zhongkao", 2027, day("2027-06-20"), day("2027-06-22")),
        Override("310000", "gaokao", 2027, day("2027-07-07"), day("2027-07-09")),
    ]
    assert [seasons.sittings(where, day("2027-06-21"), told) for where in ("150603", "150600", "", "150602")] == [
        sits, sits, sits, [],
    ]  # fmt: skip
    assert [seasons.sittings(where, day("2027-07-08"), told) for where in ("310101", "310000", "", "150603")] == [
        sits, sits, sits, [],
    ]  # fmt: skip
    assert seasons.sittings("310101", day("2027-06-08"), told) == []


def test_staff_are_asked_sixty_and_thirty_days_ahead() -> None:
    def asked(today: str, *overrides: Override) -> list[tuple[int, int]]:
        found = [one for one in seasons.asks("150603", day(today), overrides) if one.code == "zhongkao"]
        return [(one.stage, one.days_left) for one in found]

    assert asked("2027-03-13") == []  # the first notice is that of 2027-05-13
    assert asked("2027-03-14") == [(60, 60)]
    assert asked("2027-04-12") == [(60, 31)]
    assert asked("2027-04-13") == [(30, 30)]
    assert asked("2027-06-20") == [(30, -38)]  # still unsent, still asked for
    assert asked("2027-06-23") == []
    assert asked("2027-04-13", Override("150600", "zhongkao", 2027, day("2027-06-20"), day("2027-06-22"))) == []
    assert asked("2027-04-13", Override("150602", "zhongkao", 2027, day("2027-06-20"), day("2027-06-22"))) == [(30, 30)]
    # past the known-until day the fixed ones are asked for too, or they would stay unsent without a word
    assert "gaokao" in {one.code for one in seasons.asks("150603", day("2028-04-10"))}
    assert "gaokao" not in {one.code for one in seasons.asks("150603", day("2027-04-10"))}
    # what pushes nothing need not be confirmed
    assert {one.code for one in seasons.asks("", day("2028-05-10"))}.isdisjoint({"disability_day", "world_children_day"})


def test_a_confirmed_date_is_published_corrected_and_kept_once(clean: None) -> None:
    made = seasons.confirm("150603", "zhongkao", date(2027, 6, 20), date(2027, 6, 22), "anna")
    with pytest.raises(Exception, match="duplicate|E11000|exists"):
        seasons.confirm("150603", "zhongkao", date(2027, 6, 21), date(2027, 6, 22), "anna")
    seasons.correct(made.id, date(2027, 6, 21), date(2027, 6, 23), "bold", revision=1)
    reader = Reader()
    reader.refresh()
    assert seasons.of_snapshot(reader.current) == seasons.stored()
    assert seasons.season("zhongkao", 2027, seasons.stored(), "150603") == Span(date(2027, 6, 21), date(2027, 6, 23), False)
    for wrong in (("150603", "nothing", 21, 22), ("999999", "zhongkao", 21, 22), ("150603", "zhongkao", 22, 21)):
        with pytest.raises(Invalid):
            seasons.confirm(wrong[0], wrong[1], date(2028, 6, wrong[2]), date(2028, 6, wrong[3]), "anna")
    # a winter holiday that begins in the December before is still that of its own year
    january = seasons.confirm("150603", "winter_break", date(2027, 1, 15), date(2027, 2, 20), "anna")
    december = seasons.confirm("150603", "winter_break", date(2027, 12, 28), date(2028, 2, 20), "anna", 2028)
    assert (january.year, december.year) == (2027, 2028)
    assert seasons.season("winter_break", 2028, seasons.stored(), "150603").first == date(2027, 12, 28)
    with pytest.raises(Invalid):
        seasons.confirm("150603", "winter_break", date(2027, 11, 30), date(2028, 2, 20), "anna", 2028)
    # and a date taken back counts no more, for nobody
    seasons.withdraw(made.id, "bold", 2)
    reader.refresh()
    assert seasons.of_snapshot(reader.current) == seasons.stored()
    assert seasons.season("zhongkao", 2027, seasons.stored(), "150603").provisional
    with pytest.raises(NotFound):
        seasons.withdraw(made.id, "bold")


def test_what_season_it_is_over_http(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "division=150603&stage=senior.12.final&on=2027-06-06"
    june = site.get(f"/v1/seasons?{asked}").json()
    (gaokao,) = [item for item in june["items"] if item["code"] == "gaokao"]
    assert (gaokao["first"], gaokao["provisional"], gaokao["starts_in"]) == ("2027-06-07", False, 1)
    assert gaokao["title"] == seasons.calendar().seasons["gaokao"].title["zh-Hans"]
    assert gaokao["grades"] == ["senior.final"]
    # nothing is published: no lesson and no check is shown, and a number to call all the same
    assert (gaokao["lessons"], gaokao["checks"]) == ([], [])
    assert [line["phones"][0]["number"] for line in gaokao["lines"]] == ["12356"]
    names = ("lessons/steady-in-exam-week.md", "lessons/gaokao-parents-at-home.md", "checks/exam-stress.json")
    monkeypatch.setattr(bootstrap, "LIBRARY", library(tmp_path / "library", *names, "checks/exam-stress.yaml"))
    bootstrap.load_library(site.settings, lambda line: None)
    site.refresh()
    (gaokao,) = [item for item in site.get(f"/v1/seasons?{asked}&audience=student").json()["items"] if item["code"] == "gaokao"]
    assert "exam-stress" in gaokao["checks"]
    assert "steady-in-exam-week" in gaokao["lessons"]
    assert "gaokao-parents-at-home" not in gaokao["lessons"]
    assert gaokao["lines"][0]["phones"][0]["number"] == "12356"
    assert len(gaokao["lines"]) <= 3
    assert site.get(f"/v1/seasons?{asked}", headers={"Accept-Language": "en"}).json()["items"][0]["name"].isascii()
    assert {item["code"] for item in site.get("/v1/seasons?on=2027-09-10&audience=student").json()["items"]} >= {"teachers_day"}
    assert "life_day" not in {item["code"] for item in site.get("/v1/seasons?on=2027-09-10&audience=student").json()["items"]}
    assert site.get("/v1/seasons?on=0001-01-01").status_code == 422
    assert site.get("/v1/seasons?division=999999").status_code == 422
    assert site.get("/v1/seasons").status_code == 200


def test_a_district_confirms_corrects_and_takes_back_a_date(site: Site) -> None:
    def gaokao() -> tuple[str, str]:
        june = site.get("/v1/seasons?division=150603&stage=senior.12.final&on=2027-06-06").json()
        (found,) = [item for item in june["items"] if item["code"] == "gaokao"]
        return found["first"], found["last"]

    site.person("organiser", "organiser", division="150603")
    site.person("elsewhere", "organiser", division="500114")
    told = {"code": "gaokao", "division": "150603", "first": "2027-06-08", "last": "2027-06-09"}
    assert site.post("/v1/staff/seasons", {**told, "division": "150600"}, by="organiser").status_code == 403
    assert site.post("/v1/staff/seasons", {**told, "year": 2026}, by="organiser").status_code == 422
    slip = {**told, "first": "2027-09-08", "last": "2027-09-09"}
    assert site.post("/v1/staff/seasons", slip, by="organiser").json()["errors"][0]["code"] == "unusual_date"
    made = site.post("/v1/staff/seasons", told, by="organiser")
    assert (made.status_code, made.json()["year"]) == (201, 2027)
    assert gaokao() == ("2027-06-08", "2027-06-09")
    path = f"/v1/staff/seasons/{made.json()['id']}"
    right = {"first": "2027-06-07", "last": "2027-06-10"}
    assert site.call("PATCH", path, json=right, by="organiser").status_code == 428
    assert site.call("PATCH", path, json=right, by="elsewhere", match='"1"').status_code == 403
    assert site.call("PATCH", path, json=right, by="organiser", match='"1"').status_code == 200
    assert gaokao() == ("2027-06-07", "2027-06-10")
    moved = {"first": slip["first"], "last": slip["last"]}
    assert site.call("PATCH", path, json=moved, by="organiser", match='"2"').status_code == 422
    assert site.call("PATCH", path, json={**moved, "despite_unusual": True}, by="organiser", match='"2"').status_code == 200
    assert site.call("PATCH", path, json=right, by="organiser", match='"3"').status_code == 200
    assert len(site.get("/v1/staff/seasons", by="organiser").json()["items"]) == 1
    assert site.call("DELETE", path, by="organiser").status_code == 428
    assert site.call("DELETE", path, by="elsewhere", match='"4"').status_code == 403
    assert site.call("DELETE", path, by="organiser", match='"1"').status_code == 412
    assert site.call("DELETE", path, by="organiser", match='"4"').status_code == 204
    assert gaokao() == ("2027-06-07", "2027-06-09")
    assert site.call("DELETE", path, by="organiser", match='"4"').status_code == 404


# --- the year --------------------------------------------------------------------------------------------------------


def events(site: Site, path: str) -> dict[str, Any]:
    """A feed's events by UID; a UID stands once."""
    answer = site.get(path)
    assert answer.headers["Content-Type"] == "text/calendar; charset=utf-8", answer.text
    found = [one for one in Calendar.from_ical(answer.content).walk("VEVENT") if isinstance(one, Event)]
    assert len({str(one["uid"]) for one in found}) == len(found)
    return {str(one["uid"]).removesuffix("@xinqiao"): one for one in found}


@pytest.fixture
def may(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the third of May 2027, nine in the morning in Shanghai."""
    monkeypatch.setattr(store, "now", lambda: datetime(2027, 5, 3, 1, tzinfo=UTC))


def test_a_year_to_subscribe_to(site: Site, may: None) -> None:
    calendar = "/v1/calendars/seasons/150603.ics"
    family = f"{calendar}?audience=parent&alarms=true"
    seen = events(site, family)
    gaokao = seen["season-gaokao-2027-150603"]
    assert (gaokao["dtstart"].dt, gaokao["dtend"].dt) == (day("2027-06-07"), day("2027-06-10"))
    assert (str(gaokao["summary"]), str(gaokao["status"])) == ("备考小贴士", "CONFIRMED")
    assert gaokao["dtstamp"].dt == datetime.combine(seasons.calendar().revised, time(), UTC)
    rings = [datetime.combine(day("2027-06-07"), time()) + one["trigger"].dt for one in gaokao.walk("VALARM")]
    assert rings == [datetime.combine(o.on, o.at) for o in seasons.occasions("150603", day("2027-05-01"), day("2027-06-12"))
                     if o.code == "gaokao"]  # fmt: skip
    # what nobody has confirmed is marked and rings never
    zhongkao = seen["season-zhongkao-2027-150603"]
    assert (str(zhongkao["status"]), zhongkao.walk("VALARM")) == ("TENTATIVE", [])
    assert str(zhongkao["summary"]).startswith("【暂定】")
    assert not [one for one in events(site, f"{calendar}?audience=parent").values() if one.walk("VALARM")]
    # no title of a family's calendar names trouble; colleagues read official names and what to confirm by when
    told = events(site, f"{calendar}?audience=staff")
    words = ("自杀", "精神", "心理", "Suicide", "预防", "残")
    assert not [one for one in seen.values() if any(word in f"{one['summary']}{one['description']}" for word in words)]
    assert str(told["season-life_day-2027-150603"]["summary"]) == "世界预防自杀日"
    assert told["confirm-zhongkao-2027-150603"]["dtstart"].dt == day("2027-05-06")
    assert "confirm-gaokao-2027-150603" not in told
    assert not [uid for uid in seen if uid.startswith("confirm")]
    student = events(site, f"{calendar}?audience=student&stage=senior.12.final&language=en")
    assert {"season-life_day-2027-150603", "season-zhongkao-2027-150603"}.isdisjoint(student)
    assert str(student["season-gaokao-2027-150603"]["summary"]) == "Tips for the weeks ahead"
    assert site.get("/v1/calendars/seasons/999999.ics").status_code == 404
    # the same calendar gives the same bytes; a confirmed date keeps its UID
    before = site.get(family)
    assert site.get(family, headers={"If-None-Match": before.headers["ETag"]}).status_code == 304
    seasons.confirm("150600", "zhongkao", day("2027-06-20"), day("2027-06-22"), "anna")
    site.refresh()
    zhongkao = events(site, family)["season-zhongkao-2027-150603"]
    assert (zhongkao["dtstart"].dt, len(zhongkao.walk("VALARM"))) == (day("2027-06-20"), 6)
    assert zhongkao["dtstamp"].dt == store.now()


def test_a_year_as_a_feed(site: Site, may: None) -> None:
    def feed(audience: str) -> dict[str, dict[str, Any]]:
        answer = site.get(f"/v1/seasons/year?division=150603&audience={audience}&stage=junior.final").json()
        assert (answer["from"], answer["to"], answer["division"]) == ("2027-04-01", "2028-06-01", "150603")
        return {f"{one['code']}.{one['year']}": one for one in answer["items"]}

    assert feed("parent")["zhongkao.2027"]["reminders"] == []
    assert "confirm_by" not in feed("parent")["zhongkao.2027"]
    assert feed("staff")["zhongkao.2027"]["confirm_by"] == "2027-05-06"
    assert feed("parent")["sleep_day.2028"]["provisional"]  # past the known-until day
    assert feed("parent")["life_day.2027"]["title"] == "今天，多问一句"
    assert "life_day.2027" not in feed("student")
    assert feed("parent")["mental_health_day.2027"]["reminders"] == [{"on": "2027-10-10", "at": "07:20"}]


def test_the_year_for_staff(site: Site, may: None) -> None:
    site.person("organiser", "organiser", division="150603")
    site.person("elsewhere", "organiser", division="500114")
    seasons.confirm("150600", "zhongkao", day("2027-06-20"), day("2027-06-22"), site.ids["organiser"])
    texts = {"zh-Hans": {"title": "六月快到了", "body": "三分钟看完。"}}
    fields = {"season": "gaokao", "divisions": ["150603"], "audiences": ["parent"], "texts": texts}
    born = {"year": 2027, "lead": -7, "dated_by": "150603"}
    made = notices.draft(fields, site.ids["organiser"], site.settings, store.now(), "season", born)
    year = site.get("/v1/staff/year?division=150603&from=2027-05-01&to=2027-12-31", by="organiser").json()
    items = {one["code"]: one for one in year["items"]}
    assert items["zhongkao"]["confirmed_by_name"] == "organiser"
    assert (items["zhongkao"]["dated_by"], items["zhongkao"]["provisional"]) == ("150600", False)
    assert (items["gaokao"]["dated_by"], items["gaokao"]["confirmed_by"], items["gaokao"]["date_id"]) == (None, None, None)
    states = {one["lead"]: [(n["id"], n["state"]) for n in one["notices"]] for one in items["gaokao"]["occasions"]}
    assert states == {lead: [(made.id, "drafted")] if lead == -7 else [] for lead in (-30, -14, -7, -1, 0, 1)}
    asks = {one["code"]: one for one in year["asks"]}
    assert (asks["graduation"]["first_notice"], asks["graduation"]["confirm_by"]) == ("2027-06-24", "2027-06-17")
    assert (asks["graduation"]["stage"], asks["graduation"]["days_left"], asks["enrolment"]["stage"]) == (60, 52, None)
    assert "zhongkao" not in asks
    # whoever may not read a notice is not told of it
    other = site.get("/v1/staff/year?division=150603", by="elsewhere").json()
    assert not [n for one in other["items"] for occasion in one["occasions"] for n in occasion["notices"]]
    for wrong in ("from=2027-05-02&to=2027-05-01", "from=2027-01-01&to=2099-01-01", "division=999999", "from=yesterday"):
        assert site.get(f"/v1/staff/year?{wrong}", by="organiser").status_code == 422
    assert site.get("/v1/staff/year").status_code == 401
    page = site.get("/v1/staff/year.html?division=150603&from=2027-05-01&to=2027-12-31", by="organiser")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src" not in page.headers["Content-Security-Policy"]
    for said in ("康巴什区", "请确认这些日期", "世界预防自杀日", "待审批", "2027年6月", "6月20日（周日）", "毕业季"):
        assert said in page.text
    english = site.get("/v1/staff/year.html?division=150603&language=en", by="organiser").text
    assert "Please confirm these dates" in english
    assert "waits for approval" in english


def test_the_page_says_whose_notice_it_is_and_lists_none_of_an_old_day(site: Site, may: None) -> None:
    site.person("organiser", "organiser")
    texts = {"zh-Hans": {"title": "六月快到了", "body": "三分钟看完。"}}

    def made(audience: str, codes: list[str], at: str) -> str:
        send_at = datetime.fromisoformat(at)
        fields = {"season": "gaokao", "divisions": codes, "audiences": [audience], "texts": texts, "send_at": send_at}
        born = {"year": 2027, "lead": -7, "dated_by": "150600"}
        end = {"expires_at": datetime(2027, 6, 6, tzinfo=UTC)}
        return str(notices.draft({**fields, **end}, site.ids["organiser"], site.settings, store.now(), "season", born).id)

    def told(division: str, language: str = "zh-Hans") -> str:
        where = f"division={division}&from=2027-06-07&to=2027-06-08&language={language}"
        page = site.get(f"/v1/staff/year.html?{where}", by="organiser").text
        (line,) = [one for one in re.findall("<li>(.*?)</li>", page, re.S) if re.search(r"前 7 天|>7 days before", one)]
        return re.sub("<[^>]+>", "", line.split('class="state">')[1]).strip()

    day_of, before = "2027-05-31T18:37+08:00", "2027-05-28T18:37+08:00"
    assert told("150600") == "到时自动起草"
    stop = "/v1/staff/campaigns/gaokao.2027/stop"
    assert site.post(stop, by="organiser").status_code == 200
    assert told("150600") == told("150603") == "本季已停，不再起草"
    assert site.call("DELETE", stop, by="organiser").status_code == 204
    old = made("teacher", ["150600"], before)
    notices.cancel(old, site.ids["organiser"])
    made("student", ["150621"], before)  # a district's own date
    assert told("150600") == "到时自动起草"
    notices.cancel(made("parent", ["150603"], day_of), site.ids["organiser"])
    assert told("150600") == "家长 已取消（康巴什区）"
    assert told("150600", "en").endswith("(康巴什区)")
    assert told("150603") == "家长 已取消"
    made("student", ["150602", "150621", "150622", "150623"], day_of)
    assert "学生 待审批（东胜区、达拉特旗、准格尔旗等 4 处）" in told("150600")
    # what the whole division was told before its day moved is not drafted again
    notices.Notice.rows().update_one({"_id": old}, {"$set": {"state": "sent"}})
    assert "（5月28日（周五））" in told("150600")
    listed = site.get("/v1/staff/year?division=150600&from=2027-06-07&to=2027-06-08", by="organiser").json()["items"]
    (gaokao,) = [one for one in listed if one["code"] == "gaokao"]
    assert len(next(one for one in gaokao["occasions"] if one["lead"] == -7)["notices"]) == 4

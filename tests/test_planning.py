"""Planning a term: dates are flagged, drafts are made all or none, and who takes a lecturer or a room is told or hinted at."""

from datetime import UTC, date, datetime, timedelta
from threading import Barrier, Thread
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import g
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api import clashes
from content import courses, planning, records, sessions, staff, store, workdays
from content.courses import CourseSession
from content.failures import Conflict, Failure, Invalid, Stale
from notifications import seasons
from tests.site import Site

SHANGHAI = ZoneInfo("Asia/Shanghai")
SERIES = {
    "texts": {"zh-Hans": {"title": "家长学校"}, "en": {"title": "Parent school"}}, "topics": ["parenting"],
    "audiences": ["parent"], "format": "salon", "division": "150603",
}  # fmt: skip
COMMON = {
    "place": "community", "capacity": 30, "venue": {"name": {"zh-Hans": "活动室"}, "address": {"zh-Hans": "示例路1号"}},
    "lecturer": {"name": {"zh-Hans": "王老师"}},
}  # fmt: skip
BODY = {
    "place": "community", "capacity": 30,
    "venue": {"name": [{"language": "zh-Hans", "text": "活动室"}], "address": [{"language": "zh-Hans", "text": "示例路1号"}]},
    "lecturer": {"name": [{"language": "zh-Hans", "text": "王老师"}]}, "duration_minutes": 90,
}  # fmt: skip


def monday(weeks: int) -> date:
    """A Monday so many weeks ahead."""
    today = datetime.now(SHANGHAI).date()
    return today + timedelta(days=7 * weeks - today.weekday())


def timing(**more: Any) -> dict[str, Any]:
    """Six Mondays in the evening, eight weeks from now."""
    return {"first": f"{monday(8)}T19:00", "minutes": 90, "zone": "Asia/Shanghai", "rule": "FREQ=WEEKLY;COUNT=6", **more}


def office(key: str, kind: str = "federation") -> str:
    return str(records.create(staff.Organisation(id=key, name=f"妇联 {key}", kind=kind, division="150603"), "system").id)


def series(organisation: str = "org1", publish: bool = True, **more: Any) -> str:
    made = courses.create_series({**SERIES, "organisation": organisation, **more}, "ann")
    if publish:
        courses.publish_series(made.id, "ann", second_person=False)
    return str(made.id)


def held(owner: str, start: datetime, minutes: int = 90, publish: bool = False, **more: Any) -> str:
    """A session that is there."""
    values = {**COMMON, "starts_at": start, "ends_at": start + timedelta(minutes=minutes), "zone": "Asia/Shanghai", **more}
    expert = values.pop("lecturer_id", None)  # whether the library has it is asked elsewhere
    made = sessions.create_session(owner, values, "ann")
    if expert:
        courses.CourseSession.rows().update_one({"_id": made.id}, {"$set": {"lecturer_id": expert}})
    return str(sessions.publish_session(made.id, "ann").id if publish else made.id)


def evening(weeks: int, hour: int = 19, minute: int = 0) -> datetime:
    return datetime(*monday(weeks).timetuple()[:3], hour, minute, tzinfo=SHANGHAI)


@pytest.fixture
def term(clean: None) -> str:
    """Id of a published series of org1; org2 is there too."""
    office("org1")
    office("org2")
    return series()


def count() -> int:
    return int(CourseSession.rows().count_documents({}))


def outcomes(rows: list[planning.Row]) -> list[str]:
    return [row.outcome for row in rows]


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_term_is_written_once(term: str) -> None:
    rows = planning.plan(term, timing(), COMMON, "ann", dry_run=True)
    assert outcomes(rows) == ["new"] * 6 and count() == 0
    rows = planning.plan(term, timing(), COMMON, "ann", lead=timedelta(hours=12))
    assert outcomes(rows) == ["new"] * 6 and count() == 6
    assert rows[0].id == f"{term}~{monday(8):%Y%m%d}-1900"
    made = sessions.session(rows[3].id)
    assert (made.state, made.capacity, made.organisation, made.class_hours) == ("draft", 30, "org1", 2)
    assert courses.local(made.starts_at, made.zone) == f"{monday(11)}T19:00:00+08:00"
    assert made.starts_at - made.booking_closes_at == timedelta(hours=12)
    lines = records.history(kind="session")
    assert len(lines) == 6 and {line.action for line in lines} == {"session.create"} and {line.actor for line in lines} == {"ann"}
    assert outcomes(planning.plan(term, timing(), COMMON, "ann", lead=timedelta(hours=12))) == ["unchanged"] * 6
    assert len(records.history(kind="session")) == 6


def test_a_plan_is_changed_while_it_is_a_draft(term: str) -> None:
    planning.plan(term, timing(), {**COMMON, "class_hours": 1}, "ann")
    moved = [{"from": str(monday(9)), "to": f"{monday(9) + timedelta(days=1)}T18:30"}]
    rows = planning.plan(term, timing(moved=moved), COMMON, "bob")
    assert outcomes(rows) == ["unchanged", "changed"] + ["unchanged"] * 4 and count() == 6
    changed = sessions.session(f"{term}~{monday(9):%Y%m%d}-1900")
    assert courses.local(changed.starts_at, changed.zone) == f"{monday(9) + timedelta(days=1)}T18:30:00+08:00"
    assert (changed.revision, changed.class_hours) == (2, 1)
    longer = planning.plan(term, timing(minutes=180, moved=moved), COMMON, "bob")
    assert outcomes(longer) == ["changed"] * 6 and sessions.session(rows[0].id).class_hours == 1
    usual = planning.plan(term, timing(minutes=135, moved=moved), {**COMMON, "class_hours": None}, "bob")
    assert outcomes(usual) == ["changed"] * 6 and sessions.session(rows[0].id).class_hours == 3
    planning.plan(term, timing(minutes=180, moved=moved), COMMON, "bob")
    assert sessions.session(rows[0].id).class_hours == 4


def test_one_refused_date_keeps_all_out(term: str) -> None:
    planning.plan(term, timing(rule="FREQ=WEEKLY;COUNT=2"), COMMON, "ann")
    key = f"{term}~{monday(9):%Y%m%d}-1900"
    sessions.publish_session(key, "ann")
    wider = {**COMMON, "capacity": 40}
    rows = planning.plan(term, timing(), wider, "ann", dry_run=True)
    assert outcomes(rows) == ["changed", "refused"] + ["new"] * 4
    assert "It is published and differs" in rows[1].messages[0]["en"]
    with pytest.raises(Invalid) as failure:
        planning.plan(term, timing(), wider, "ann")
    assert [error.field for error in failure.value.errors] == ["items.1"]
    assert count() == 2 and sessions.session(rows[0].id).capacity == 30
    rows = planning.plan(term, timing(first=f"{monday(-3)}T19:00"), COMMON, "ann", dry_run=True)
    assert outcomes(rows)[:3] == ["refused"] * 3 and outcomes(rows)[-1] == "new" and "in the past" in rows[0].messages[0]["en"]


def test_common_faults_are_told_once(term: str) -> None:
    with pytest.raises(Invalid) as failure:
        planning.plan(term, timing(), {"place": "moon", "capacity": 0}, "ann")
    assert sorted(error.field for error in failure.value.errors) == ["capacity", "place"]
    with pytest.raises(Invalid, match="“host” names “nobody”"):
        planning.plan(term, timing(), {**COMMON, "host": "nobody"}, "ann")
    courses.cancel_series(term, "ann")
    with pytest.raises(Conflict):
        planning.plan(term, timing(), COMMON, "ann", dry_run=True)


def test_two_who_plan_at_once_make_nothing_twice(term: str) -> None:
    at_once, told = Barrier(2), []

    def run() -> None:
        at_once.wait()
        try:
            told.append(outcomes(planning.plan(term, timing(rule="FREQ=DAILY;COUNT=40"), COMMON, "ann"))[0])
        except Failure as failure:
            told.append(failure.code)
        except Exception as error:  # the database's own word for the same
            found = store.failure_of(error)
            told.append(found.code if found else repr(error))

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count() == 40 and len(records.history(kind="session", limit=100)) == 40
    assert "new" in told and set(told) <= {"new", "exists", "unchanged", "unavailable"}, told


# --- what is flagged -------------------------------------------------------------------------------------------------


def test_days_off_and_days_made_up() -> None:
    def told(*day: int) -> list[tuple[str, str]]:
        return [(flag.kind, flag.text["en"]) for flag in workdays.flags(date(*day))]

    assert told(2026, 10, 1) == [("holiday", "2026-10-01 is a public holiday (National Day).")]
    assert told(2026, 10, 10) == [("workday", "2026-10-10 is a working day made up for National Day.")]
    assert told(2026, 11, 7) == told(2026, 11, 9) == []
    # past what is known, what is off by law whatever is arranged; with the lunar ones one has to wait
    unknown = ("provisional", "Dates in 2199 are provisional: its holidays are not known yet.")
    assert told(2199, 5, 2) == [("holiday", "2199-05-02 is a public holiday (Labour Day)."), unknown]
    always = [day for day in map(date.fromordinal, range(date(2199, 1, 1).toordinal(), date(2200, 1, 1).toordinal()))
              if [flag.kind for flag in workdays.flags(day)] == ["holiday", "provisional"]]  # fmt: skip
    assert [f"{day:%m-%d}" for day in always] == ["01-01", "05-01", "05-02", "10-01", "10-02", "10-03"]
    assert told(2199, 5, 3) == told(2199, 10, 4) == [unknown]


def test_flagged_days_can_be_left_out(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "now", lambda: datetime(2026, 8, 1, tzinfo=UTC))
    autumn = timing(first="2026-09-24T19:00", rule="FREQ=WEEKLY;COUNT=5", added=["2026-10-10"])

    def exams(day: date) -> list[tuple[str, bool]]:
        return [("finals", True)] if day == date(2026, 10, 15) else []

    rows = planning.plan(term, autumn, COMMON, "ann", exams=lambda division: exams, dry_run=True)
    assert {str(row.starts_at.date()): [flag.kind for flag in row.flags] for row in rows} == {
        "2026-09-24": [], "2026-10-01": ["holiday"], "2026-10-08": [], "2026-10-10": ["workday"], "2026-10-15": ["exam_day"],
        "2026-10-22": [],
    }  # fmt: skip
    assert rows[4].flags[0].text["en"] == "2026-10-15 may be among the local exam days: winter end-of-term exams (provisional)."
    rows = planning.plan(term, autumn, COMMON, "ann", exams=lambda division: exams, skip=list(planning.SKIPS))
    assert outcomes(rows) == ["new", "skipped", "new", "skipped", "skipped", "new"] and count() == 3
    rows = planning.plan(term, autumn, COMMON, "ann", skip=["holidays"], dry_run=True)
    assert outcomes(rows) == ["unchanged", "skipped", "unchanged", "new", "new", "unchanged"]


# --- clashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ({}, ["lecturer", "venue"]),
        ({"venue": {}}, ["lecturer"]),
        ({"lecturer": {"name": {"zh-Hans": "李老师"}}}, ["venue"]),
        ({"lecturer": {"name": {"en": "Wang", "zh-Hans": "王 老师 "}}, "venue": {}}, ["lecturer"]),
        ({"place": "online"}, ["lecturer"]),
        ({"lecturer": {}, "venue": {"name": {"zh-Hans": "活动室"}, "address": {"zh-Hans": "别处2号"}}}, []),
        ({"lecturer": {}, "venue": {"name": {"zh-Hans": "活动室"}}}, []),  # of another organisation, without an address
        ({"lecturer": {}, "venue": {"name": {"zh-Hans": "礼堂"}, "address": {"zh-Hans": "示例路1号"}}}, []),
        ({"lecturer_id": "w", "venue": {}}, ["lecturer"]),
    ],
)  # fmt: skip
def test_the_same_lecturer_or_room(term: str, more: dict[str, Any], kinds: list[str]) -> None:
    key = held(term, evening(8))
    other = held(series("org2"), evening(8, 20), **more)
    assert [clash.kind for clash in planning.clashes_of(sessions.session(key))] == kinds
    assert [clash.kind for clash in planning.clashes_of(sessions.session(other))] == kinds


def test_ids_and_hosts_say_more_than_names(term: str) -> None:
    weeks = iter(range(8, 20))  # each question has an evening of its own

    def kinds(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
        when = evening(next(weeks))
        key = held(term, when, **{"lecturer": {}, "venue": {}, **one})
        held(other, when, **{"lecturer": {}, "venue": {}, **two})
        return [clash.kind for clash in planning.clashes_of(sessions.session(key))]

    other = series("org2")
    name, room = {"name": {"zh-Hans": "王老师"}}, {"name": {"zh-Hans": "活动室"}}
    assert kinds({"lecturer_id": "a", "lecturer": name}, {"lecturer_id": "b", "lecturer": name}) == []
    assert kinds({"lecturer_id": "a", "lecturer": name}, {"lecturer_id": "a"}) == ["lecturer"]
    assert kinds({"host": "org2", "venue": room}, {"host": "org2", "venue": room}) == ["venue"]
    assert kinds({"host": "org1", "venue": room}, {"host": "org2", "venue": room}) == []
    assert kinds({"host": "org2", "venue": room}, {"venue": room}) == ["venue"]  # org2's own
    assert kinds({"host": "org1", "venue": room}, {"venue": room}) == []
    assert kinds({}, {}) == []
    mine = evening(next(weeks))  # of one organiser a name says enough, in a table too, where host and address stay empty
    for n in range(2):
        held(term, mine + timedelta(minutes=30 * n), venue=room, lecturer={}, host="")
    found = planning.clashes(
        [
            one
            for one in map(CourseSession.of, CourseSession.rows().find({"starts_at": {"$gte": mine}}))
            if one.starts_at < mine + timedelta(hours=1)
        ]
    )
    assert sorted(clash.kind for rows in found.values() for clash in rows) == ["venue", "venue"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=2, max_size=6))
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overlapping_is_what_clashes(clean: None, spans: list[tuple[int, int]]) -> None:
    """Every two that overlap, no two that are back to back, both ways alike."""
    start = evening(8, 8)
    made = [
        CourseSession(
            id=str(n), series="s", organisation="o", division="150603", zone="Asia/Shanghai", place="community", venue={},
            lecturer=COMMON["lecturer"], starts_at=start + timedelta(hours=at), ends_at=start + timedelta(hours=at + lasts),
        )
        for n, (at, lasts) in enumerate(spans)
    ]  # fmt: skip
    found = {(key, clash.session.id) for key, rows in planning.clashes(made).items() for clash in rows}
    assert found == {
        (str(m), str(n))
        for m, (a, x) in enumerate(spans)
        for n, (b, y) in enumerate(spans)
        if m != n and not (a + x <= b or b + y <= a)
    }


def test_what_does_not_clash(term: str) -> None:
    key = held(term, evening(8), publish=True)
    held(term, evening(8, 20, 30))  # back to back
    held(term, evening(8, 17, 30))
    sessions.cancel_session(held(term, evening(8), publish=True), "ann")
    assert planning.clashes_of(sessions.session(key)) == []
    days = held(term, evening(8) - timedelta(days=2), 60 * 24 * 3)  # three days long: it began two days before
    assert {clash.session.id for clash in planning.clashes_of(sessions.session(key))} == {days}


def test_a_plan_sees_others_and_itself(term: str) -> None:
    other = held(series("org2"), evening(9, 20))
    rows = planning.plan(term, timing(), COMMON, "ann", dry_run=True)
    assert [[clash.session.id for clash in row.clashes] for row in rows] == [[], [other, other], [], [], [], []]
    long = planning.plan(term, timing(rule="FREQ=DAILY;COUNT=2", minutes=60 * 30), COMMON, "ann", dry_run=True)
    assert [[clash.session.id for clash in row.clashes][:1] for row in long] == [[long[1].id], [long[0].id]]
    planning.plan(term, timing(), COMMON, "ann")
    assert [bool(row.clashes) for row in planning.plan(term, timing(), COMMON, "ann")] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(site: Site) -> str:
    """Id of org1's published series; ann is its organiser, bob org2's."""
    for key, name in (("org1", "ann"), ("org2", "bob")):
        office(key)
        site.person(name, "organiser", organisation=key, division="150603")
    return series()


def body(**more: Any) -> dict[str, Any]:
    return {**BODY, "first": f"{monday(8)}T19:00", "rule": "FREQ=WEEKLY;COUNT=3", **more}


def test_planning_over_http(site: Site, desk: str) -> None:
    held(series("org2"), evening(9))
    address = f"/v1/staff/courses/{desk}/plan"
    told = site.post(address, body(), by="ann")
    assert told.status_code == 200 and not told.json()["written"] and count() == 1, told.text
    row = told.json()["items"][1]
    assert (row["outcome"], row["starts_at"]) == ("new", f"{monday(9)}T19:00:00+08:00")
    texts = [flag["text"] for flag in row["flags"] if flag["kind"] == "clash"]
    assert [text["en"] for text in texts] == ["王老师 is taken at that time.", "活动室 is taken at that time."]
    assert "家长学校" not in str(texts)
    written = site.post(address, body(dry_run=False, booking_closes_hours_before=12), by="ann")
    assert written.json()["written"] and count() == 4
    again = site.post(address, body(dry_run=False, booking_closes_hours_before=12), by="ann").json()
    assert [one["outcome"] for one in again["items"]] == ["unchanged"] * 3

    assert site.post(address, body(), by="bob").status_code == 404
    wrong = site.post(address, body(rule="FREQ=WEEKLY", moved=[{"from": "x", "to": "y"}]), by="ann")
    assert wrong.status_code == 422 and {error["field"] for error in wrong.json()["errors"]} >= {"moved.0.from", "moved.0.to"}
    wrong = site.post(address, body(rule="FREQ=WEEKLY"), by="ann").json()
    assert [(error["field"], error["code"]) for error in wrong["errors"]] == [("rule.COUNT", "bad_recurrence")]
    wrong = site.post(address, body(starts_at=f"{monday(8)}T19:00"), by="ann").json()
    assert [(error["field"], error["code"]) for error in wrong["errors"]] == [("starts_at", "unknown_field")]
    late = site.post(address, body(first=f"{monday(-2)}T19:00", rule="FREQ=WEEKLY;COUNT=2", dry_run=False), by="ann").json()
    assert {error["field"] for error in late["errors"]} == {"items.0", "items.1"} and count() == 4
    moved = site.post(address, body(moved=[{"from": str(monday(9)), "to": str(monday(9) + timedelta(1))}]), by="ann").json()
    assert moved["items"][1]["starts_at"].startswith(str(monday(9) + timedelta(days=1)))


def test_exam_days_are_those_of_the_district(site: Site, desk: str) -> None:
    seasons.confirm("150603", "zhongkao", monday(9), monday(9), "ann")
    site.refresh()
    rows = site.post(f"/v1/staff/courses/{desk}/plan", body(skip=["exam_days"]), by="ann").json()["items"]
    assert rows[1]["outcome"] == "skipped"
    told = [[flag["text"]["en"] for flag in row["flags"] if flag["kind"] == "exam_day"] for row in rows]
    assert f"{monday(9)} is among the local exam days: senior high entrance exam." in told[1]
    assert not any("senior high" in text for text in told[0] + told[2])


def test_clashes_are_told_before_a_session_is_published(site: Site, desk: str) -> None:
    theirs = series("org2")
    key, draft, shown = held(desk, evening(8)), held(theirs, evening(8)), held(theirs, evening(8), publish=True)
    mine = held(desk, evening(8), venue={})
    found = site.get(f"/v1/staff/sessions/{key}/clashes", by="ann").json()["items"]
    assert sorted({one["session"] for one in found}) == sorted(["", shown, mine])
    assert draft not in str(found) and [one["starts_at"] for one in found if not one["session"]] == ["", ""]
    assert "Wang" not in str(found) and any("“Parent school” then" in one["text"]["en"] for one in found)
    assert site.get(f"/v1/staff/sessions/{key}/clashes", by="bob").status_code == 404
    with site.front.app.test_request_context():  # type: ignore[attr-defined]
        g.actor = staff.who(site.tokens["ann"])
        clashes.demand_no_clash(sessions.session(key), despite=True)
        with pytest.raises(Conflict) as refused:
            clashes.demand_no_clash(sessions.session(key), despite=False)
    assert refused.value.code == "clash" and "《家长学校》" in refused.value.messages["zh-Hans"]
    assert all(text.count(draft) == 0 for text in refused.value.messages.values())


def test_a_published_session_is_not_moved_into_another(site: Site, desk: str) -> None:
    taken, key = held(desk, evening(8), publish=True), held(desk, evening(9), publish=True)
    path = f"/v1/staff/sessions/{key}"

    def edit(**values: Any) -> Any:
        match = site.get(path, by="ann").headers["ETag"]
        return site.call("PATCH", path, by="ann", match=match, json=values)

    before = sessions.session(key)
    refused = edit(starts_at=f"{monday(8)}T20:00")
    assert (refused.status_code, refused.json()["code"]) == (409, "clash") and "《家长学校》" in refused.text
    assert sessions.session(key).revision == before.revision
    assert edit(capacity=31).status_code == 200
    known = edit(starts_at=f"{monday(8)}T20:00", despite_clashes=True)
    assert known.status_code == 200 and known.json()["starts_at"].startswith(f"{monday(8)}T20:00"), known.text
    assert edit(capacity=32).status_code == 200  # takes nothing new
    other = {"name": [{"language": "zh-Hans", "text": "李老师"}]}
    assert edit(lecturer=other).json()["code"] == "clash"  # still the room
    assert edit(lecturer=other, venue={"name": [{"language": "zh-Hans", "text": "二楼"}]}).status_code == 200
    draft = held(desk, evening(9))
    match = site.get(f"/v1/staff/sessions/{draft}", by="ann").headers["ETag"]
    moved = {"starts_at": f"{monday(8)}T19:00"}
    assert site.call("PATCH", f"/v1/staff/sessions/{draft}", by="ann", match=match, json=moved).status_code == 200  # a draft may
    assert taken


def test_a_session_says_what_its_date_is(site: Site, desk: str) -> None:
    seasons.confirm("150603", "zhongkao", monday(9), monday(9), "ann")
    site.refresh()
    values = {name: value for name, value in BODY.items() if name != "duration_minutes"}
    times = {"starts_at": f"{monday(9)}T19:00", "ends_at": f"{monday(9)}T20:00"}
    made = site.post("/v1/staff/sessions", {**values, **times, "series": desk}, by="ann").json()
    assert any("senior high entrance exam" in flag["text"]["en"] for flag in made["flags"] if flag["kind"] == "exam_day")
    path = f"/v1/staff/sessions/{made['id']}"
    holiday = date(monday(9).year + 40, 10, 1)
    moved = {"starts_at": f"{holiday}T19:00"}
    told = site.call("PATCH", path, by="ann", match='"1"', json=moved).json()["flags"]
    assert "provisional" in {flag["kind"] for flag in told} and "senior high" not in str(told)
    assert site.get("/v1/staff/sessions", by="ann").json()["items"][0]["flags"] == told
    refused = site.call("PATCH", path, by="ann", match='"2"', json={"flags": []})
    assert refused.status_code == 422 and refused.json()["errors"][0]["code"] == "unknown_field"


def test_a_series_that_is_cancelled_meanwhile_gets_no_plan(term: str) -> None:
    def meanwhile(division: str) -> planning.ExamDays:  # asked after the series was read
        courses.cancel_series(term, "bob")
        return planning.no_exams(division)

    with pytest.raises(Stale):
        planning.plan(term, timing(), COMMON, "ann", exams=meanwhile)
    assert count() == 0

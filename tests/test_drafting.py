"""Season notices draft themselves: against the real database, with a clock in the hand."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from content import divisions, staff
from content.failures import Failure, Forbidden, Invalid, NotFound
from content.published import PublishedRow
from content.records import SYSTEM
from content.settings import Settings
from notifications import drafting, notices, outbox, seasons, topics
from notifications.drafting import MOVED, SeasonAsk
from notifications.notices import Notice
from tests.doubles.fake_fcm import FakeFcm
from tests.test_webhook import SECRET, Answer, Receiver, receiving

ZONE = ZoneInfo("Asia/Shanghai")
HOME, CITY, INNER = "150603", "420100", "420111"
People = tuple[str, str]


def at(day: str | date, clock: str = "00:10") -> datetime:
    """A local moment in UTC."""
    there = day if isinstance(day, date) else date.fromisoformat(day)
    return datetime.combine(there, time.fromisoformat(clock), ZONE).astimezone(UTC)


@pytest.fixture
def here(settings: Settings) -> Settings:
    """A service of Kangbashi."""
    return replace(settings, division=HOME)


@pytest.fixture
def people(clean: None) -> People:
    """Two independent colleagues."""
    made = [staff.create_account(name, name, "correct horse battery", SYSTEM, must_change=False) for name in ("anna", "bold")]
    return made[0].id, made[1].id


def drafts(season: str, *leads: int, **more: Any) -> list[Notice]:
    """The notices of a season, by day and audience; of some leads when given."""
    rows = Notice.rows().find({"season": season, "kind": "season", **more})
    found = [notice for notice in map(Notice.of, rows) if not leads or notice.lead in leads]
    return sorted(found, key=lambda one: (one.send_at, one.audiences))


def confirm(code: str, first: str, last: str, division: str = HOME) -> str:
    """A date that staff have confirmed, or corrected; its key."""
    row = seasons.SeasonDate.rows().find_one({"division": division, "code": code, "year": int(first[:4])})
    if row:
        return str(seasons.correct(row["_id"], date.fromisoformat(first), date.fromisoformat(last), "zhang").id)
    return str(seasons.confirm(division, code, date.fromisoformat(first), date.fromisoformat(last), "zhang").id)


def approve(notice: Notice, people: People, settings: Settings, now: datetime) -> None:
    """Read and saved by one, approved by another."""
    notices.edit(notice.id, {}, people[0], settings, now)
    notices.approve(notice.id, people[1], now)


def send(settings: Settings, now: datetime) -> None:
    """What the worker does at a moment."""
    if outbox.sweep(now, settings):
        outbox.fan_out(settings, lambda: now, lambda seconds: None)


def refused(code: str, work: Callable[[], object]) -> bool:
    """Whether it is refused with this code."""
    with pytest.raises(Failure) as caught:
        work()
    codes = {error.code for error in caught.value.errors} if isinstance(caught.value, Invalid) else {caught.value.code}
    return code in codes


# --- there by themselves ---------------------------------------------------------------------------------------------


def test_a_draft_is_there_two_weeks_ahead_with_its_words_filled_in(clean: None, here: Settings) -> None:
    drafting.tick(at("2027-05-16"), here)
    assert drafts("gaokao", -7) == []
    assert drafting.tick(at("2027-05-17"), here)["drafted"] == 2
    parent, student = drafts("gaokao", -7)
    assert (parent.state, parent.authors, parent.divisions, parent.audiences, parent.stages) == (
        "drafted", [], [HOME], ["parent"], ["senior.final"],
    )  # fmt: skip
    assert (parent.send_at, parent.approve_by, parent.expires_at) == (
        at("2027-05-31", "18:37"), at("2027-05-31", "21:00"), at("2027-06-06", "00:00"),
    )  # fmt: skip
    assert parent.template.startswith("gaokao:-7:parent@")
    assert (parent.campaign, parent.dated_by, parent.done_when["kind"]) == ("gaokao.2027", HOME, "lesson")
    assert "7天" in parent.texts["zh-Hans"]["body"]
    assert "7 days" in parent.texts["en"]["body"]
    assert not any(brace in text["body"] for one in (parent, student) for text in one.texts.values() for brace in "{}")
    assert PublishedRow.rows().find_one({"kind": "notice"}) is None, "a draft is in nobody's inbox"
    # once, however often it is looked for, and the next ones in their time
    assert drafting.tick(at("2027-05-17", "12:00"), here) == Counter()
    assert set(drafting.tick(at("2027-05-23"), here)) == {"drafted"}
    assert Counter(one.lead for one in drafts("gaokao")) == {-14: 2, -7: 2, -1: 2}, "-30 was over when the service began"


def test_two_workers_at_once_draft_once(clean: None, here: Settings) -> None:
    together, counts = threading.Barrier(3), list[Counter[str]]()

    def work() -> None:
        together.wait()
        counts.append(drafting.tick(at("2027-05-25"), here))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    rows = [Notice.of(raw) for raw in Notice.rows().find({})]
    assert len(counts) == 3
    assert sum(one["drafted"] for one in counts) == len(rows) == len({(n.season, n.lead, *n.audiences) for n in rows})
    assert {"gaokao", "children_day"} <= {n.season for n in rows}
    assert sum(one["asked"] for one in counts) == SeasonAsk.rows().count_documents({})


def test_one_saves_another_approves_and_it_leaves_by_itself(here: Settings, people: People) -> None:
    anna, bold = people
    drafting.tick(at("2027-05-31"), here)
    (parent, student) = drafts("gaokao", -1)
    now = at("2027-06-01", "09:00")
    assert refused("nobody_saved", lambda: notices.approve(parent.id, bold, now))
    notices.edit(parent.id, {}, anna, here, now)
    with pytest.raises(Forbidden):
        notices.approve(parent.id, anna, now)
    # its day is the season's; its time may be another
    for moved in (at("2027-06-05", "18:37"), at("2027-06-04", "09:07"), None):
        assert refused("follows_season", partial(notices.edit, parent.id, {"send_at": moved}, anna, here, now))
    notices.edit(parent.id, {"send_at": at("2027-06-06", "19:07")}, anna, here, now)
    notices.approve(parent.id, bold, now)
    assert notices.get(parent.id).state == "approved"
    with FakeFcm() as fcm:
        near = replace(here, fcm_url=fcm.url)
        send(near, now)
        assert notices.get(parent.id).state == "scheduled"
        send(near, at("2027-06-06", "18:37"))
        assert fcm.sends() == []
        send(near, at("2027-06-06", "19:07"))
        assert {tuple(sorted(seen.collapse_keys)) for seen in fcm.sends()} == {("2027-06-06",)}
        assert {seen.message["data"]["notice"] for seen in fcm.sends()} == {parent.id}
        left_out = f"!('{topics.done('gaokao.2027')}' in topics)"
        assert all(left_out in seen.message["condition"] for seen in fcm.sends())
    assert notices.get(parent.id).state == "sent"
    # nobody approved the student's: it ends with its day, says why, and is not drafted again
    assert refused("wrong_state", lambda: notices.approve(student.id, bold, student.approve_by))
    send(here, student.approve_by - timedelta(seconds=1))
    assert notices.get(student.id).state == "drafted"
    send(here, student.approve_by)
    over = notices.get(student.id)
    assert (over.state, over.reason, over.listed) == ("expired", "not_approved", False)
    drafting.tick(at("2027-06-07"), here)
    assert len(drafts("gaokao", -1)) == 2


def test_what_staff_cancelled_is_not_drafted_again(here: Settings, people: People) -> None:
    drafting.tick(at("2027-05-31"), here)
    parent, student = drafts("gaokao", -1)
    approve(parent, people, here, at("2027-06-01", "09:00"))
    for one in (parent, student):
        notices.cancel(one.id, people[0])
    for day in ("2027-06-01", "2027-06-06"):
        drafting.tick(at(day), here)
    send(here, at("2027-06-06", "18:37"))
    assert [one.state for one in drafts("gaokao", -1)] == ["cancelled", "cancelled"]


# --- dates that change -----------------------------------------------------------------------------------------------


def test_a_corrected_date_drafts_anew_and_repeats_nothing(here: Settings, people: People) -> None:
    confirm("zhongkao", "2027-06-20", "2027-06-22")
    drafting.tick(at("2027-05-20"), here)
    first = drafts("zhongkao", -30)
    for one in first:
        approve(one, people, here, at("2027-05-20", "09:00"))
    send(here, at("2027-05-21", "18:37"))
    assert {one.state for one in drafts("zhongkao", -30)} == {"sent"}
    drafting.tick(at("2027-05-24"), here)
    old = drafts("zhongkao", -14)
    approve(old[0], people, here, at("2027-05-24", "09:00"))
    send(here, at("2027-05-24", "09:01"))

    confirm("zhongkao", "2027-06-26", "2027-06-28")  # thirty days before it lie ahead too: 27 May
    assert drafting.tick(at("2027-05-25"), here)["moved"] == 2
    assert {(one.state, one.reason) for one in drafts("zhongkao", -14)} == {("cancelled", MOVED)}
    assert [one.id for one in drafts("zhongkao", -30)] == [one.id for one in first], "what went out is not repeated"
    drafting.tick(at("2027-05-29"), here)
    waiting = drafts("zhongkao", -14, state="drafted")
    assert [(one.send_at, one.audiences) for one in waiting] == [
        (at("2027-06-12", "18:37"), ["parent"]), (at("2027-06-12", "18:37"), ["student"]),
    ]  # fmt: skip

    confirm("zhongkao", "2027-06-20", "2027-06-22")  # the correction was the mistake
    drafting.tick(at("2027-05-30"), here)
    waiting = drafts("zhongkao", -14, state="drafted")
    assert [one.send_at for one in waiting] == [at("2027-06-06", "18:37")] * 2
    assert drafting.tick(at("2027-05-30"), here) == Counter()


def test_a_longer_season_is_told_with_its_new_last_day(here: Settings, clean: None) -> None:
    confirm("winter_break", "2027-01-16", "2027-02-20")
    drafting.tick(at("2026-12-28"), here)
    confirm("winter_break", "2027-01-16", "2027-02-27")  # the same day of the notice, other words in it
    drafting.tick(at("2026-12-29"), here)
    (now,) = drafts("winter_break", -7, state="drafted", audiences="parent")
    assert "2月27日" in now.texts["zh-Hans"]["body"]


def test_a_date_taken_back_holds_its_notices(here: Settings, people: People) -> None:
    key = confirm("zhongkao", "2027-06-20", "2027-06-22")
    drafting.tick(at("2027-06-01"), here)
    for one in drafts("zhongkao", -14, -7):
        approve(one, people, here, at("2027-06-02", "09:00"))
    send(here, at("2027-06-02", "09:01"))
    seasons.withdraw(key, "zhang")
    assert drafting.tick(at("2027-06-03"), here)["moved"] == 0
    send(here, at("2027-06-06", "18:37"))
    assert {(one.state, one.reason, one.listed) for one in drafts("zhongkao", -14)} == {("scheduled", "unconfirmed", False)}
    confirm("zhongkao", "2027-06-20", "2027-06-22")
    send(here, at("2027-06-06", "20:07"))
    assert {one.state for one in drafts("zhongkao", -14)} == {"sent"}
    seasons.withdraw(str(seasons.SeasonDate.rows().find_one({})["_id"]), "zhang")
    for day in ("2027-06-13", "2027-06-19"):
        send(here, at(day, "18:37"))
    assert {(one.state, one.reason) for one in drafts("zhongkao", -7)} == {("expired", "unconfirmed")}


def heard(season: str, lead: int) -> Counter[str]:
    """How many notices that went or wait each district of Wuhan has of an occasion, of one audience."""
    there = drafts(season, lead, state={"$in": [*drafting.WAITING, *drafting.WENT]}, audiences="parent")
    return Counter(
        one.code for one in divisions.children(CITY) for n in there if any(divisions.within(one.code, d) for d in n.divisions)
    )


def test_a_district_of_a_city_with_a_date_of_its_own(settings: Settings, people: People) -> None:
    here = replace(settings, division=CITY)
    once = dict.fromkeys((one.code for one in divisions.children(CITY)), 1)
    confirm("zhongkao", "2027-06-20", "2027-06-22", CITY)
    drafting.tick(at("2027-05-20"), here)
    assert [one.divisions for one in drafts("zhongkao", -30)] == [[CITY]] * 2
    confirm("zhongkao", "2027-06-22", "2027-06-23", INNER)
    drafting.tick(at("2027-05-20", "12:05"), here)
    city, inner = drafts("zhongkao", -30, state="drafted", audiences="parent")
    assert (inner.divisions, inner.send_at, inner.dated_by) == ([INNER], at("2027-05-23", "18:37"), INNER)
    assert set(city.divisions) == once.keys() - {INNER}
    assert heard("zhongkao", -30) == once
    # the city takes over the district's date: one notice again, for all
    confirm("zhongkao", "2027-06-22", "2027-06-23", CITY)
    drafting.tick(at("2027-05-20", "12:10"), here)
    (both,) = drafts("zhongkao", -30, state="drafted", audiences="parent")
    assert (both.divisions, both.send_at) == ([CITY], at("2027-05-23", "18:37"))
    # and when all have heard it, a district that is later is not told again
    approve(both, people, here, at("2027-05-20", "12:20"))
    send(here, at("2027-05-23", "18:37"))
    confirm("zhongkao", "2027-06-26", "2027-06-27", INNER)
    drafting.tick(at("2027-05-24"), here)
    assert heard("zhongkao", -30) == once


# --- asking for dates ------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """The district's own system."""
    made = Receiver()
    yield made
    made.stop()


def test_staff_are_asked_sixty_and_thirty_days_ahead_and_so_is_their_system(
    clean: None, here: Settings, receiver: Receiver
) -> None:
    def asked() -> dict[int, tuple[datetime, bool]]:
        return {row["stage"]: (row["at"], row["hooked"]) for row in SeasonAsk.rows().find({"code": "zhongkao"})}

    def told() -> list[Any]:
        read = [receiving()(SECRET, *post) for post in receiver.posts]
        return [(event["days_left"], event["usual_first"]) for event in read if event["season"] == "zhongkao"]

    near = replace(here, webhook_url=receiver.url, webhook_secret=SECRET)
    drafting.tick(at("2027-03-13"), near)
    assert (asked(), told()) == ({}, [])
    receiver.answers.append(Answer(503))
    drafting.tick(at("2027-03-14"), near)  # 60 days before 13 May, when its first notice would be due
    assert asked() == {60: (at("2027-03-14"), False)}
    drafting.tick(at("2027-03-14", "00:20"), near)
    ids = [headers["webhook-id"] for headers, _ in receiver.posts if "zhongkao" in headers["webhook-id"]]
    assert len(ids) == 2
    assert len(set(ids)) == 1, "told again under the same id"
    assert asked() == {60: (at("2027-03-14"), True)}
    for day in ("2027-03-15", "2027-04-12", "2027-04-13", "2027-04-14"):
        drafting.tick(at(day), near)
    assert asked() == {60: (at("2027-03-14"), True), 30: (at("2027-04-13"), True)}
    assert told() == [(60, "2027-06-12"), (60, "2027-06-12"), (30, "2027-06-12")]
    assert drafts("zhongkao") == []
    confirm("zhongkao", "2027-06-20", "2027-06-22")
    drafting.tick(at("2027-05-08"), near)
    assert len(drafts("zhongkao", -30)) == 2
    assert len(asked()) == 2


# --- whatever happens ------------------------------------------------------------------------------------------------

PLACES = (CITY, INNER, "420106")
DATES = st.tuples(st.just("date"), st.sampled_from(PLACES), st.integers(0, 2), st.integers(20, 21))
STEPS = st.lists(
    st.one_of(
        DATES, DATES, st.tuples(st.just("back"), st.sampled_from(PLACES)), st.tuples(st.just("wait"), st.integers(0, 4)),
        st.tuples(st.just("wait"), st.integers(0, 4)), st.tuples(st.sampled_from(["approve", "cancel", "go"])),
    ),
    min_size=4, max_size=14,
)  # fmt: skip


def at_most_once(settings: Settings, steps: list[tuple[Any, ...]]) -> None:
    """Dates of a city and two of its districts come, move and go; between them the calendar is drafted at any times."""
    for rows in (Notice.rows(), seasons.SeasonDate.rows(), SeasonAsk.rows()):
        rows.delete_many({})
    here, now = replace(settings, division=CITY), at("2027-01-01")
    for step in steps:
        match step:
            case ("date", place, first, length):
                begins = date(2027, 1, 12) + timedelta(days=first)
                confirm("winter_break", begins.isoformat(), (begins + timedelta(days=length)).isoformat(), place)
            case ("back", place):
                for row in list(seasons.SeasonDate.rows().find({"division": place})):
                    seasons.withdraw(row["_id"], "zhang")
            case ("wait", days):
                now += timedelta(days=days)
            case ("cancel",):
                for one in drafts("winter_break", state="drafted")[:1]:
                    notices.cancel(one.id, "zhang")
            case (what,):  # as people and the outbox leave it; they have tests of their own
                state = {"approve": "scheduled", "go": "sent"}[what]
                for one in drafts("winter_break", state={"$in": ["drafted", "scheduled"]})[:2]:
                    Notice.rows().update_one({"_id": one.id}, {"$set": {"state": state}})
        drafting.tick(now, here)
        for lead in (-7, -1):
            there = heard("winter_break", lead)
            assert max(there.values(), default=0) <= 1, (lead, there)
    assert drafting.tick(now, here) == Counter(), "a second call makes nothing"


SAME_FIXTURE = [HealthCheck.function_scoped_fixture]  # each example empties what it needs empty


@example(steps=[("date", CITY, 0, 20), ("date", INNER, 1, 20), ("date", CITY, 1, 20)])
@given(steps=STEPS)
@hypothesis_settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=SAME_FIXTURE)
def test_whatever_happens_no_family_has_two(clean: None, settings: Settings, steps: list[tuple[Any, ...]]) -> None:
    at_most_once(settings, steps)


@pytest.mark.slow
@given(steps=STEPS)
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=SAME_FIXTURE)
def test_whatever_happens_no_family_has_two_at_full_size(clean: None, settings: Settings, steps: list[tuple[Any, ...]]) -> None:
    at_most_once(settings, steps)


def test_whom_and_when_a_season_notice_is_for_is_the_calendars(here: Settings, people: tuple[str, str]) -> None:
    anna, bold = people
    now = at("2027-05-20")
    drafting.tick(now, here)
    parent, student = drafts("gaokao", -7)
    changes: dict[str, Any] = {
        "season": None, "audiences": ["parent", "teacher"], "divisions": ["420100"], "stages": [], "urgent": True,
        "expires_at": at("2027-08-01"),
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(Invalid) as refused:
            notices.edit(parent.id, {name: value}, anna, here, now)
        assert [(e.field, e.code) for e in refused.value.errors] == [(name, "calendars_own")]
    notices.edit(parent.id, {"audiences": ["parent"], "divisions": [HOME], "lessons": []}, anna, here, now)  # as it is
    # one row that cannot be judged, however it came about, keeps nobody else back
    notices.edit(student.id, {}, anna, here, now)
    for one in (parent, student):
        notices.approve(one.id, bold, now)
    outbox.sweep(now, here)
    Notice.rows().update_one({"_id": parent.id}, {"$set": {"season": "nothing"}})
    assert drafting.tick(now, here) == {}
    day = at("2027-05-31", "18:37")
    assert outbox.sweep(day, here)
    assert notices.get(student.id).state == "due"
    assert notices.get(parent.id).reason == "fault"


def test_what_was_approved_for_one_date_never_leaves_on_another(here: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    anna, bold = people
    near = replace(here, fcm_url=phone.url)
    made = seasons.confirm(HOME, "finals", date(2027, 1, 11), date(2027, 1, 15), anna)
    now = at("2026-12-30")
    drafting.tick(now, near)
    for one in drafts("finals", -7):
        notices.edit(one.id, {}, anna, near, now)
        notices.approve(one.id, bold, now)
    outbox.sweep(now, near)
    day = at("2027-01-04", "18:37")
    assert outbox.sweep(day, near)  # due, and before it leaves the date is corrected
    seasons.correct(made.id, date(2027, 1, 13), date(2027, 1, 18), anna)
    outbox.fan_out(near, lambda: day, lambda seconds: None)
    assert phone.sends() == []
    assert {one.state for one in drafts("finals", -7)} == {"cancelled"}
    drafting.tick(day, near)
    assert sorted(one.state for one in drafts("finals", -7)) == ["cancelled"] * 2 + ["drafted"] * 2


def test_a_campaign_is_stopped_at_once_and_taken_up_again(here: Settings, people: tuple[str, str]) -> None:
    now = at("2027-05-20")
    assert drafting.tick(now, here)["drafted"] > 0
    before = drafts("gaokao", -7)
    assert drafting.stop("gaokao", 2027, people[0], here, lambda codes: True) == len(before) + len(drafts("gaokao", -14))
    assert {one.state for one in drafts("gaokao", -7)} == {"cancelled"}
    assert drafting.stop("gaokao", 2027, people[0], here, lambda codes: True) == 0
    assert drafting.tick(at("2027-05-25"), here)["drafted"] == 0
    assert drafts("gaokao", -1) == []
    drafting.resume("gaokao", 2027, people[1], here)
    drafting.tick(at("2027-05-25"), here)
    assert [one.state for one in drafts("gaokao", -1)] == ["drafted"] * 2
    with pytest.raises(NotFound):
        drafting.resume("gaokao", 2027, people[1], here)


def test_what_was_approved_in_time_goes_however_late_the_sweep_comes(here: Settings, people: tuple[str, str]) -> None:
    now = at("2027-05-20")
    drafting.tick(now, here)
    parent, _ = drafts("gaokao", -7)
    notices.edit(parent.id, {}, people[0], here, now)
    notices.approve(parent.id, people[1], parent.approve_by - timedelta(seconds=1))
    assert outbox.sweep(parent.approve_by + timedelta(minutes=5), here)
    assert notices.get(parent.id).state == "due"

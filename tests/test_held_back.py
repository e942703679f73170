"""What changes after a notice was approved, or fell due: a clock that ran ahead, a date or an adults' word taken back, a stopped
campaign, a lost answer. Each story was a fault once."""

import base64
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from content.failures import Invalid
from content.settings import Settings
from notifications import drafting, notices, outbox, outcomes, seasons, topics
from notifications.notices import Notice
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm
from tests.site import Site
from tests.test_drafting import approve, at, confirm, drafts, refused, send
from tests.test_outbox import TEXTS, ZH

NOW = datetime(2027, 3, 1, 2, 5, tzinfo=UTC)  # 10:05 in Shanghai
HELP = {"zh-Hans": {"title": "给家长的短信", "body": "想找人说说，可拨 12356。"}}
People = tuple[str, str]


def going(near: Settings, people: People, now: datetime, **fields: Any) -> Notice:
    """A general notice that is scheduled for now."""
    usual = {"divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": {"zh-Hans": TEXTS["zh-Hans"]}}
    notice = notices.draft({**usual, "expires_at": now + timedelta(days=5), **fields}, people[0], near, now)
    notices.approve(notice.id, people[1], now)
    return notices.schedule(notice.id, people[0], near, now)


def emergency(near: Settings, people: People, now: datetime, **fields: Any) -> Notice:
    """One to parents, approved."""
    usual = {"divisions": ["150603"], "audiences": ["parent"], "texts": HELP, "expires_at": now + timedelta(days=2)}
    notice = notices.draft({**usual, **fields}, people[0], near, now, "emergency")
    return notices.approve(notice.id, people[1], now)


@pytest.mark.parametrize("reply", [fake_fcm.QUOTA, fake_fcm.UNAVAILABLE])
def test_a_clock_that_ran_ahead_holds_nothing_for_long(near: Settings, phone: FakeFcm, people: People, reply: Any) -> None:
    notice = going(near, people, NOW, expires_at=NOW + timedelta(days=28))
    phone.script("*", reply)
    send(near, NOW + timedelta(days=20))
    urgent = emergency(near, people, NOW)
    students = emergency(near, people, NOW, audiences=["student"], after=urgent.id)
    outbox.sweep(NOW + timedelta(hours=3), near)  # ahead once more
    for minutes in range(0, 240, 10):
        send(near, NOW + timedelta(minutes=minutes))
    assert [notices.get(one.id).state for one in (notice, urgent, students)] == ["sent"] * 3
    first, then = (min(row.at for row in notices.get(one.id).results) for one in (urgent, students))
    assert first < NOW + timedelta(minutes=10) and then < NOW + timedelta(minutes=50)


def test_the_hour_of_an_urgent_notice_is_not_for_one_person_to_move(near: Settings, phone: FakeFcm, people: People) -> None:
    noon, night = at("2027-03-02", "12:05"), at("2027-03-02", "03:05")
    urgent = notices.draft({"audiences": ["parent"], "texts": HELP, "urgent": True, "send_at": noon}, people[0], near, NOW)
    notices.approve(urgent.id, people[1], NOW)
    for moment in (night - timedelta(minutes=1), night + timedelta(hours=1), datetime(2026, 1, 1, tzinfo=UTC)):
        with pytest.raises(Invalid) as refusal:
            notices.schedule(urgent.id, people[0], near, night, moment)
        assert [error.code for error in refusal.value.errors] == ["approved_hour"]
    send(near, night)
    assert phone.sends() == []
    assert notices.schedule(urgent.id, people[0], near, night, noon).send_at == noon


def test_a_date_taken_back_holds_what_is_due(settings: Settings, phone: FakeFcm, people: People) -> None:
    near = replace(settings, division="150603", fcm_url=phone.url)
    key = confirm("finals", "2027-01-11", "2027-01-15")
    began, day = at("2026-12-30"), at("2027-01-04", "18:37")
    drafting.tick(began, near)
    for one in drafts("finals", -7):
        approve(one, people, near, began)
    night = at("2027-01-04", "22:05")
    late = going(near, people, night, season="finals")
    outbox.sweep(began, near)
    assert outbox.sweep(day, near)
    send(near, night)  # it is due, and held until the morning
    seasons.withdraw(key, people[0])
    for moment in (day, night + timedelta(hours=9)):
        drafting.tick(moment, near)
        send(near, moment)
    waiting = [*drafts("finals", -7), notices.get(late.id)]
    assert phone.sends() == []
    assert [(one.state, one.reason) for one in waiting] == [("due", "unconfirmed")] * 3
    seasons.confirm("150603", "finals", date(2027, 1, 11), date(2027, 1, 15), people[0])
    send(near, night + timedelta(hours=9, minutes=1))
    assert {one.message["data"]["notice"] for one in phone.sends()} >= {late.id}


def test_students_wait_until_the_last_of_their_adults_heard(near: Settings, phone: FakeFcm, people: People) -> None:
    codes = ["150602", "150603", "150621", "150622", "150623", "150624"]
    adults = emergency(near, people, NOW, divisions=codes)
    students = emergency(near, people, NOW, divisions=codes, audiences=["student"], after=adults.id)
    second = topics.plan(adults.topics(["zh-Hans"]), [])[0][1].target()[1]
    phone.script(second, *[fake_fcm.UNAVAILABLE] * 99)
    told: datetime | None = None
    for minutes in range(180):
        now = NOW + timedelta(minutes=minutes)
        send(near, now)
        there = notices.get(adults.id)
        if not told and there.state in {"sent", "failed"}:
            told = max(row.at for row in there.results)
        if notices.get(students.id).results:
            break
    assert told and notices.get(adults.id).state == "failed", "given up after an hour: the inbox has it"
    assert min(row.at for row in notices.get(students.id).results) >= told + timedelta(minutes=30)


def test_students_hear_nothing_when_their_adults_word_is_taken_back(near: Settings, phone: FakeFcm, people: People) -> None:
    adults = emergency(near, people, NOW)
    students = emergency(near, people, NOW, audiences=["student"], after=adults.id)
    send(near, NOW)
    later = NOW + timedelta(minutes=31)
    assert outbox.sweep(later, near)
    notices.cancel(adults.id, people[0])
    for _ in range(2):
        outbox.fan_out(near, lambda: later, lambda seconds: None)
    there = notices.get(students.id)
    assert (there.state, there.reason, there.results) == ("due", "adults_first", [])
    assert not [seen for seen in phone.sends() if "student" in seen.target]


def test_a_lost_answer_counts_as_told_whatever_comes_later(near: Settings, phone: FakeFcm, people: People) -> None:
    first = going(near, people, NOW)
    phone.script("*", fake_fcm.LOST, fake_fcm.UNAVAILABLE)
    send(near, NOW)
    send(near, NOW + timedelta(seconds=20))
    second = going(near, people, NOW + timedelta(seconds=21))
    for seconds in (21, 200):
        send(near, NOW + timedelta(seconds=seconds))
    assert notices.get(first.id).state == "sent"
    assert notices.get(second.id).reason == "told_today"


def test_an_outcome_that_is_written_again_stands_once(near: Settings, phone: FakeFcm, people: People) -> None:
    """As a driver does whose answer was lost with the database."""
    notice = going(near, people, NOW)
    assert outbox.sweep(NOW, near)
    lease = outbox.enter(NOW)
    assert lease
    mine = outbox.claim(lease, NOW, near, [])
    assert mine and mine.id == notice.id
    for _ in range(2):
        assert outbox.note(mine, "fcm", [ZH], outcomes.Sent("m1"), NOW)
    assert [row.topic for row in notices.get(notice.id).results] == [ZH]


def test_one_line_stands_for_the_day_on_which_they_leave(near: Settings, phone: FakeFcm, people: People) -> None:
    """However early each was meant: yesterday morning, or last night."""
    monday, tuesday = NOW, NOW + timedelta(days=1)
    early = notices.draft(
        {"divisions": ["150603"], "audiences": ["parent"], "texts": HELP, "send_at": monday},
        people[0], near, monday - timedelta(hours=1),
    )  # fmt: skip
    notices.approve(early.id, people[1], tuesday)
    assert notices.schedule(early.id, people[0], near, tuesday).send_at == tuesday
    night = at("2027-03-01", "22:05")
    going(near, people, night, divisions=["150602"])
    send(near, night)
    going(near, people, tuesday, divisions=["150621"])
    send(near, tuesday)
    assert len(phone.sends()) == 3
    assert {key for seen in phone.sends() for key in seen.collapse_keys} == {"2027-03-02"}


def test_the_words_of_a_season_notice_leave_on_its_day(settings: Settings, phone: FakeFcm, people: People) -> None:
    near, now = replace(settings, division="150603", fcm_url=phone.url), at("2027-05-20")
    drafting.tick(now, near)
    parent, _ = drafts("gaokao", -7)
    night = at("2027-05-31", "22:30")
    assert refused("follows_season", lambda: notices.edit(parent.id, {"send_at": night}, people[0], near, now))
    approve(parent, people, near, now)
    assert refused("follows_season", lambda: notices.schedule(parent.id, people[0], near, now, night))


def test_what_a_tick_drafts_while_its_campaign_is_stopped_is_called_off(
    settings: Settings, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, now, wanted = replace(settings, division="150603"), at("2027-05-20"), drafting._wanted

    def stops(*given: Any) -> Any:
        monkeypatch.setattr(drafting, "_wanted", wanted)
        drafting.stop("gaokao", 2027, people[0], here, lambda codes: True)
        return wanted(*given)

    monkeypatch.setattr(drafting, "_wanted", stops)
    drafting.tick(now, here)
    assert {one.state for one in drafts("gaokao", -7)} == {"drafted"}
    drafting.tick(now + timedelta(minutes=1), here)
    assert {(one.state, one.reason) for one in drafts("gaokao", -7)} == {("cancelled", "campaign_stopped")}
    # resumed, it is there again, to be read anew; what a person cancelled is not
    drafting.resume("gaokao", 2027, people[1], here)
    drafting.tick(now + timedelta(minutes=2), here)
    again = [one for one in drafts("gaokao", -7) if one.state == "drafted"]
    assert len(again) == 2 and not again[0].authors
    notices.cancel(again[0].id, people[0])
    drafting.tick(now + timedelta(minutes=3), here)
    assert len([one for one in drafts("gaokao", -7) if one.state == "drafted"]) == 1


def test_a_year_out_of_range_is_not_found(site: Site) -> None:
    site.person("anna", "organiser")
    for year in ("9223372036854775808", "1999", "0"):
        assert site.post(f"/v1/staff/campaigns/gaokao.{year}/stop", by="anna").status_code == 404


def test_a_dead_webhook_fails_no_push_that_was_never_tried(settings: Settings, phone: FakeFcm, people: People) -> None:
    secret = "whsec_" + base64.b64encode(b"s" * 32).decode()
    alone = replace(settings, fcm_url=phone.url)
    near = replace(alone, webhook_url="http://127.0.0.1:9/x", webhook_secret=secret)
    going(alone, people, NOW, divisions=["150602"])
    phone.script("*", fake_fcm.retry_after(fake_fcm.QUOTA, "3600"))
    send(alone, NOW)
    notice = going(near, people, NOW + timedelta(seconds=1))
    for minutes in range(1, 80):
        send(near, NOW + timedelta(minutes=minutes))
    there = notices.get(notice.id)
    assert {row.outcome for row in there.results if row.channel == "fcm"} == {"sent"}
    assert ZH in [seen.target for seen in phone.sends()]
    assert {row.outcome for row in there.results if row.channel == "webhook"} == {"failed"}


def test_who_writes_to_the_country_writes_to_whoever_sits_an_exam(settings: Settings, phone: FakeFcm, people: People) -> None:
    near, sitting = replace(settings, division="150603", fcm_url=phone.url), at("2027-06-22", "09:35")
    confirm("zhongkao", "2027-06-22", "2027-06-24", "150602")
    notice = going(near, people, sitting, divisions=[], stages=[])
    send(near, sitting)
    assert phone.sends() == []
    assert notices.get(notice.id).reason.startswith("held_until")


def test_a_deed_that_is_none_is_refused_when_a_person_edits_it_in(settings: Settings, people: People) -> None:
    here, now = replace(settings, division="150603"), at("2027-05-20")
    drafting.tick(now, here)
    deed = {"done_when": {"kind": "lesson", "slug": "nope-nope"}}
    one = drafts("gaokao", -7)[0]
    assert refused("unknown_reference", lambda: notices.edit(one.id, deed, people[0], here, now))
    assert Notice.rows().find_one({"_id": one.id})["done_when"] != deed["done_when"]

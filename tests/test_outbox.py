"""Notices from draft to phone and inbox: against the real database, a local FCM over HTTP, and a clock in the hand."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from content import divisions, store
from content.failures import Conflict, Failure, Forbidden, Invalid
from content.published import Reader
from content.records import Audit
from content.settings import Settings
from notifications import fcm, notices, outbox, outcomes, seasons, told, topics, worker
from notifications import inbox as inbox_
from notifications.notices import Notice
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm, Reply

MORNING = datetime(2027, 6, 6, 1, 4, tzinfo=UTC)  # 09:04 in Shanghai, the day before the gaokao
TEXTS = {
    "zh-Hans": {"title": "六月快到了", "body": "给备考的你和家人准备了几个小办法。"},
    "en": {"title": "June", "body": "Small ideas."},
}
ZH, EN = "d150603.parent.senior.final.zh-Hans", "d150603.parent.senior.final.en"
QUIET = {"title": "心桥", "body": "心桥有一条新消息"}


def planned(near: Settings, people: tuple[str, str], now: datetime = MORNING, **fields: Any) -> Notice:
    """A notice of the gaokao season, approved and scheduled for `now`."""
    wanted = {
        "season": "gaokao", "divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": TEXTS,
        "expires_at": now + timedelta(days=2), **fields,
    }  # fmt: skip
    notice = notices.draft(wanted, people[0], near, now)
    notices.approve(notice.id, people[1], now)
    return notices.schedule(notice.id, people[0], near, now, now)


def sent(near: Settings, *moments: datetime) -> Counter[str]:
    """One fan-out at these moments, without its pauses."""
    return outbox.fan_out(near, clock(*moments), lambda seconds: None)


def clock(*moments: datetime) -> Callable[[], datetime]:
    """A clock that shows these moments, then stands."""
    left = list(moments)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def inbox(**segment: Any) -> list[str]:
    """Titles a reader sees."""
    reader = Reader()
    assert reader.refresh()
    return [item["title"] for item in inbox_.read(reader.current, segment.pop("now", MORNING), **segment)[0]]


# --- the outbox ------------------------------------------------------------------------------------------------------


def test_a_season_notice_from_draft_to_phone_and_inbox(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    anna, bold = people
    now = MORNING
    fields = {"season": "gaokao", "divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": TEXTS}
    notice = notices.draft({**fields, "send_at": now + timedelta(hours=1)}, anna, near, now)
    with pytest.raises(Forbidden):
        notices.approve(notice.id, anna, now)
    with pytest.raises(Conflict):
        notices.schedule(notice.id, anna, near, now)
    assert notices.approve(notice.id, bold, now, revision=1).approved_by == bold
    with pytest.raises(Conflict):
        notices.edit(notice.id, {"urgent": True}, anna, near, now)
    notices.schedule(notice.id, anna, near, now)

    assert not outbox.sweep(now, near)
    assert inbox() == []
    now += timedelta(hours=1)
    assert outbox.sweep(now, near)
    assert inbox(division="150603", audience="parent", stage="senior.12.final") == ["六月快到了"]
    assert inbox(division="150603", audience="parent", wanted=("en",)) == ["June"]
    assert inbox(division="500114") == inbox(audience="student") == inbox(stage="junior.final") == []
    assert phone.sends() == []

    assert sent(near, now) == {"sent": 1}
    assert sent(near, now) == {}
    assert sorted(seen.target for seen in phone.sends()) == [EN, ZH]
    assert [seen.collapse_keys for seen in phone.sends()] == [{"2027-06-06"}] * 2  # one line a day
    assert phone.sends(ZH)[0].message["notification"] == QUIET  # no word of it on the lock screen
    assert phone.sends(ZH)[0].message["data"] == {"notice": notice.id}
    there = notices.get(notice.id)
    assert (there.state, [r.outcome for r in there.results]) == ("sent", ["sent", "sent"])
    assert not outbox.sweep(now + timedelta(days=1), near)

    # its time over, it leaves the inbox and phones are told
    outbox.sweep(there.expires_at, near)
    reader = Reader()
    reader.refresh()
    assert inbox_.read(reader.current, now, since=1)[:2] == ([], [notice.id])
    assert notices.get(notice.id).state == "sent"
    actions = [line.action for line in map(Audit.of, Audit.rows().find({"key": notice.id}).sort("at", 1))]
    assert actions == ["notice.create", "notice.approve", "notice.schedule", "notice.release", "notice.unlist"]


def test_whoever_touched_the_text_may_not_approve_it(near: Settings, people: tuple[str, str]) -> None:
    anna, bold = people
    notice = notices.draft({"audiences": ["parent"], "texts": TEXTS}, anna, near, MORNING)
    notices.edit(notice.id, {"texts": {"zh-CN": TEXTS["zh-Hans"]}}, bold, near, MORNING, revision=1)
    assert set(notices.get(notice.id).texts) == {"zh-Hans"}
    for by in people:
        with pytest.raises(Forbidden):
            notices.approve(notice.id, by, MORNING)


def test_a_draft_is_refused_with_every_fault_at_once(near: Settings, people: tuple[str, str]) -> None:
    later = MORNING + timedelta(hours=1)
    wrong = {
        "season": "spring", "divisions": ["999999"], "audiences": ["doctor"], "stages": ["college"], "lessons": ["a"],
        "texts": {"en": {"title": " ", "body": "x"}}, "send_at": later, "expires_at": later,
    }  # fmt: skip
    with pytest.raises(Invalid) as refused:
        notices.draft(wrong, people[0], near, MORNING)
    assert {e.field for e in refused.value.errors} == {
        "season", "divisions", "audiences", "stages", "lessons", "texts.en.title", "texts.zh-Hans", "send_at",
    }  # fmt: skip
    with pytest.raises(Failure) as large:
        notices.draft(
            {"audiences": ["parent"], "texts": {"zh-Hans": {"title": "长", "body": "长" * 700}}}, people[0], near, MORNING
        )
    assert large.value.code == "payload_too_large"
    assert Notice.rows().find_one({}) is None


def test_of_six_workers_one_sends(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    for _ in range(4):
        planned(near, people, urgent=True)
        outbox.sweep(MORNING, near)
        barrier, got = threading.Barrier(6), Counter[str]()

        def work(barrier: threading.Barrier = barrier, got: Counter[str] = got) -> None:
            barrier.wait()
            got.update(sent(near, MORNING))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == {"sent": 1}
    assert Counter(seen.target for seen in phone.sends()) == {EN: 4, ZH: 4}


def test_a_crash_after_the_post_sends_again_under_the_same_key(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    planned(near, people)
    outbox.sweep(MORNING, near)
    lease = outbox.enter(MORNING)
    assert lease
    mine = outbox.claim(lease, MORNING, near, [])
    assert mine
    # the first message is sent and noted, the second sent and not noted: here the worker dies
    first, second = topics.plan(mine.topics(), [])[0]
    assert outbox.note(mine, "fcm", first.topics, fcm.send(notices.message(mine, first, MORNING), near), MORNING)
    fcm.send(notices.message(mine, second, MORNING), near)

    assert not outbox.sweep(MORNING + timedelta(seconds=59), near)
    assert sent(near, MORNING + timedelta(seconds=59)) == {}
    after = MORNING + timedelta(seconds=61)
    assert outbox.sweep(after, near)
    assert not outbox.note(mine, "fcm", second.topics, outcomes.Sent("late"), after)  # the dead one's claim is void
    assert outbox.settle(mine, after, near, []) is None
    assert sent(near, after) == {"sent": 1}
    assert [seen.target for seen in phone.sends()] == [EN, ZH, ZH]
    assert {key for seen in phone.sends() for key in seen.collapse_keys} == {"2027-06-06"}


def test_a_partial_fan_out_goes_on_where_it_stopped(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people)
    outbox.sweep(MORNING, near)
    phone.script(EN, fake_fcm.retry_after(fake_fcm.UNAVAILABLE, "90"))
    assert sent(near, MORNING) == {"due": 1}
    assert [seen.target for seen in phone.sends()] == [EN, ZH]
    there = notices.get(notice.id)
    assert timedelta(seconds=90) <= there.next_try - MORNING <= timedelta(seconds=120)
    assert sent(near, MORNING + timedelta(seconds=89)) == {}
    assert not outbox.sweep(MORNING + timedelta(seconds=89), near)
    soon = there.next_try
    assert outbox.sweep(soon, near)
    assert sent(near, soon) == {"sent": 1}
    assert [seen.target for seen in phone.sends()] == [EN, ZH, EN]


def test_a_quota_stops_the_fan_out(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people)
    outbox.sweep(MORNING, near)
    phone.script("*", fake_fcm.QUOTA)
    assert sent(near, MORNING) == {"due": 1}
    assert len(phone.sends()) == 1  # the quota is the project's: the other message would meet it too
    assert notices.get(notice.id).next_try >= MORNING + timedelta(seconds=60)


def test_quiet_hours_hold_and_never_drop(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    night = datetime(2027, 6, 5, 13, 40, tzinfo=UTC)  # 21:40 in Shanghai
    dawn = datetime(2027, 6, 5, 23, 3, tzinfo=UTC)  # 07:03 the next day: not with all the world at 07:00
    held, urgent = planned(near, people, night), planned(near, people, night, urgent=True, audiences=["teacher"])
    assert outbox.sweep(night, near)
    assert inbox(now=night) == ["六月快到了"] * 2  # the inbox makes no noise
    assert sent(near, night) == {"sent": 1}
    assert {key for seen in phone.sends() for key in seen.collapse_keys} == {urgent.id}
    assert notices.get(held.id).next_try == dawn
    for hours in range(9):
        assert not outbox.sweep(night + timedelta(hours=hours), near)
        assert sent(near, night + timedelta(hours=hours)) == {}
    assert outbox.sweep(dawn, near)
    assert sent(near, dawn) == {"sent": 1}


def test_the_night_falls_in_the_middle_of_a_fan_out(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    evening = datetime(2027, 6, 5, 13, 27, 59, tzinfo=UTC)
    notice = planned(near, people, evening)
    outbox.sweep(evening, near)
    at = [evening]
    passing = outbox.fan_out(near, lambda: at[0], lambda seconds: at.append(at.pop() + timedelta(minutes=3)))
    assert passing == {"due": 1}
    assert [seen.target for seen in phone.sends()] == [EN]
    dawn = datetime(2027, 6, 5, 23, 3, tzinfo=UTC)
    there = notices.get(notice.id)
    assert (there.next_try, there.first_try) == (dawn, None)
    assert outbox.sweep(dawn, near)
    assert sent(near, dawn) == {"sent": 1}
    assert [seen.target for seen in phone.sends()] == [EN, ZH]


def test_no_push_while_an_exam_sits(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    during = datetime(2027, 6, 7, 2, 10, tzinfo=UTC)  # 10:10 on the first day of the gaokao
    notice = planned(near, people, during, season=None, stages=["primary"])
    outbox.sweep(during, near)
    assert sent(near, during) == {}
    after = notices.get(notice.id).next_try
    assert after.hour == 10
    assert after.minute == 3  # 18:03 in Shanghai: the exam is over, and the full hour left to others
    assert sent(near, after) == {"sent": 1}
    # a junior exam sits where its date is confirmed, and nowhere else
    seasons.confirm("150603", "zhongkao", date(2027, 6, 20), date(2027, 6, 22), people[0])
    morning = datetime(2027, 6, 21, 2, 10, tzinfo=UTC)
    here = planned(near, people, morning, season=None)
    there = planned(near, people, morning, season=None, divisions=["500114"])
    city = planned(near, people, morning, season=None, divisions=["150600"])
    outbox.sweep(morning, near)
    assert sent(near, morning) == {"sent": 1}
    assert [notices.get(one.id).state for one in (here, there, city)] == ["due", "sent", "due"]


def test_an_urgent_notice_waits_behind_none(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    slow = planned(near, people)
    outbox.sweep(MORNING, near)
    urgent: list[Notice] = []

    def pause(seconds: float) -> None:
        """Between two messages of the first something happens."""
        if not urgent:
            urgent.append(planned(near, people, urgent=True, texts={"zh-Hans": TEXTS["zh-Hans"]}))
            outbox.sweep(MORNING, near)

    assert outbox.fan_out(near, clock(MORNING), pause) == {"due": 1, "sent": 2}
    keys = [seen.collapse_keys.pop() for seen in phone.sends()]
    assert keys == ["2027-06-06", urgent[0].id]  # and its other families were told of the urgent one today
    assert {r.outcome for r in notices.get(slow.id).results} == {"sent", "inbox_only"}


def test_children_in_two_districts_make_one_line_on_the_screen(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    base = {"season": None, "texts": {"zh-Hans": TEXTS["zh-Hans"]}}
    later = MORNING + timedelta(hours=3)
    for moment, where in ((MORNING, "150603"), (later, "500114")):
        planned(near, people, moment, **base, divisions=[where])
        outbox.sweep(moment, near)
        assert sent(near, moment) == {"sent": 1}
    assert [seen.target for seen in phone.sends()] == [ZH, ZH.replace("150603", "500114")]
    # the second takes the place of the first, and both stand in the inbox
    assert len({key for seen in phone.sends() for key in seen.collapse_keys}) == 1
    assert [len(inbox(division=where, audience="parent", now=later)) for where in ("150603", "500114")] == [1, 1]


def test_everybody_elses_minutes_are_left_out(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    noon = datetime(2027, 6, 5, 4, 0, tzinfo=UTC)
    for minute in (0, 14, 28, 47, 58):
        at = noon + timedelta(minutes=minute)
        notice = planned(near, people, at, texts={"zh-Hans": TEXTS["zh-Hans"]}, divisions=[])
        outbox.sweep(at, near)
        assert sent(near, at) == {}
        there = notices.get(notice.id).next_try
        assert there - at <= timedelta(minutes=5)
        assert 3 <= there.minute % 15 <= 12
        notices.cancel(notice.id, people[0])


def test_one_push_a_day_for_each_phone(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    zh = {"zh-Hans": TEXTS["zh-Hans"]}
    base = {"season": None, "texts": zh}
    planned(near, people, **base)
    # later that day: the parents of juniors, but not those who have a senior as well; and parents of seniors again
    later = MORNING + timedelta(hours=3)
    second = planned(near, people, later, **base, stages=["junior", "senior.final"])
    urgent = planned(near, people, later, **base, urgent=True)
    for now in (MORNING, later):
        outbox.sweep(now, near)
        sent(near, now)
    junior = "d150603.parent.junior.zh-Hans"
    targets = [seen.target for seen in phone.sends()]
    assert targets == [ZH, ZH, f"('{junior}' in topics) && !('{ZH}' in topics)"]
    assert phone.sends()[1].collapse_keys == {urgent.id}
    there = notices.get(second.id)
    assert {r.topic: r.outcome for r in there.results} == {ZH: "inbox_only", junior: "sent"}
    # tomorrow is another day, and what was refused told nobody
    tomorrow = MORNING + timedelta(days=1, hours=9, minutes=30)
    phone.script("*", fake_fcm.INVALID)
    for _ in range(2):
        planned(near, people, tomorrow, **base)
        outbox.sweep(tomorrow, near)
        sent(near, tomorrow)
    assert [seen.target for seen in phone.sends()][3:] == [ZH, ZH]
    assert told.on(tomorrow.date(), "") == [ZH]


def test_retries_back_off_and_give_up_after_an_hour(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people, texts={"zh-Hans": TEXTS["zh-Hans"]})
    phone.script("*", *[fake_fcm.UNAVAILABLE] * 99)
    now, waits, state = MORNING, [], "due"
    outbox.sweep(now, near)
    while state == "due":
        (state,) = sent(near, now)
        there = notices.get(notice.id)
        if state == "due":
            waits.append((there.next_try - now).total_seconds())
            now = there.next_try
            assert outbox.sweep(now, near)
    assert state == "failed"
    assert 10 <= waits[0] <= 12.5
    assert all(b >= a or b < 600 for a, b in zip(waits, waits[1:], strict=False))
    assert timedelta(minutes=40) < now - MORNING <= timedelta(minutes=60)
    assert len(phone.sends()) == len(waits) + 1
    assert inbox() == ["六月快到了"]  # the promise is the inbox
    assert {r.outcome for r in notices.get(notice.id).results} == {"failed"}


def test_a_notice_never_leaves_after_its_expiry(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    soon = MORNING + timedelta(minutes=5)
    late = planned(near, people, expires_at=soon)
    outbox.sweep(MORNING, near)
    phone.script("*", fake_fcm.UNAVAILABLE, fake_fcm.UNAVAILABLE)
    assert sent(near, MORNING) == {"due": 1}
    assert sent(near, soon) == {}
    draft = notices.draft({"audiences": ["parent"], "texts": TEXTS, "expires_at": soon}, people[0], near, MORNING)
    assert not outbox.sweep(soon, near)
    assert [notices.get(key).state for key in (late.id, draft.id)] == ["expired", "expired"]
    assert notices.get(draft.id).reason == "not_approved"
    assert inbox() == []
    with pytest.raises(Conflict):
        notices.approve(draft.id, people[1], soon)
    assert len(phone.sends()) == 2


def test_a_cancelled_campaign_stops_at_once(
    near: Settings, phone: FakeFcm, people: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "now", lambda: MORNING)
    notice = planned(near, people)
    outbox.sweep(MORNING, near)

    def pause(seconds: float) -> None:
        """Between the first message and the second somebody stops it."""
        notices.cancel(notice.id, people[1])

    assert outbox.fan_out(near, clock(MORNING), pause) == {"not ours": 1}
    assert len(phone.sends()) == 1
    there = notices.get(notice.id)
    assert (there.state, there.listed) == ("cancelled", False)
    assert inbox() == []
    with pytest.raises(Conflict):
        notices.cancel(notice.id, people[1])
    assert not outbox.sweep(MORNING + timedelta(minutes=5), near)


@pytest.mark.parametrize(
    ("reply", "state", "posts"),
    [(fake_fcm.THIRD_PARTY, "refused", 1), (fake_fcm.INVALID, "sent", 2), (fake_fcm.LOST, "due", 2)],
)
def test_what_a_refusal_does_to_the_campaign(
    near: Settings, phone: FakeFcm, people: tuple[str, str], reply: Reply, state: str, posts: int
) -> None:
    notice = planned(near, people)
    outbox.sweep(MORNING, near)
    phone.script("*", reply)
    assert sent(near, MORNING) == {state: 1}
    assert len(phone.sends()) == posts
    assert notices.get(notice.id).reason


def test_without_credentials_the_inbox_has_it(settings: Settings, people: tuple[str, str]) -> None:
    notice = planned(settings, people)
    outbox.sweep(MORNING, settings)
    assert sent(settings, MORNING) == {"sent": 1}
    there = notices.get(notice.id)
    assert {result.outcome for result in there.results} == {"skipped"}
    assert there.reason == "no_credentials"
    assert inbox() == ["六月快到了"]


def test_an_unconfirmed_date_is_never_sent(near: Settings, people: tuple[str, str]) -> None:
    anna, bold = people
    fields = {"season": "zhongkao", "divisions": ["150603"], "audiences": ["parent"], "texts": TEXTS}
    notice = notices.draft(fields, anna, near, MORNING)
    notices.approve(notice.id, bold, MORNING)
    with pytest.raises(Conflict) as refused:
        notices.schedule(notice.id, anna, near, MORNING)
    assert refused.value.code == "unconfirmed_date"
    made = seasons.confirm("150603", "zhongkao", date(2027, 6, 20), date(2027, 6, 22), bold)
    notices.schedule(notice.id, anna, near, MORNING)
    seasons.SeasonDate.rows().delete_one({"_id": made.id})  # the date is lost before the moment comes
    assert not outbox.sweep(MORNING, near)
    there = notices.get(notice.id)
    assert (there.state, there.reason) == ("scheduled", "unconfirmed")
    seasons.confirm("150600", "zhongkao", date(2027, 6, 21), date(2027, 6, 23), bold)  # the city's will do
    assert outbox.sweep(MORNING + outbox.LOOK, near)


def test_a_long_fan_out_is_never_given_up_for_having_been_held(
    near: Settings, phone: FakeFcm, people: tuple[str, str]
) -> None:  # fmt: skip
    codes = [child.code for child in divisions.children("420100")]
    notice = planned(near, people, season=None, divisions=codes, expires_at=MORNING + timedelta(hours=9))
    outbox.sweep(MORNING, near)
    at = [MORNING]
    while (there := notices.get(notice.id)).state == "due":
        at[0] = max(at[0], there.next_try)
        outbox.fan_out(near, lambda: at[0], lambda seconds: at.append(at.pop() + timedelta(minutes=16)))
    assert notices.get(notice.id).state == "sent"
    assert at[0] - MORNING > timedelta(hours=1)
    assert {r.outcome for r in notices.get(notice.id).results} == {"sent"}


def test_a_quota_of_an_hour_fails_nobody(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    made = [planned(near, people, urgent=urgent, expires_at=MORNING + timedelta(hours=5)) for urgent in (True, False)]
    outbox.sweep(MORNING, near)
    phone.script("*", fake_fcm.retry_after(fake_fcm.QUOTA, "3600"))
    assert sent(near, MORNING) == {"due": 2}
    assert len(phone.sends()) == 1
    assert min(notices.get(one.id).next_try for one in made) >= MORNING + timedelta(hours=1)
    for _ in range(3):  # the minute that follows may be a crowded one
        sent(near, max(notices.get(one.id).next_try for one in made))
    assert {notices.get(one.id).state for one in made} == {"sent"}


def test_what_is_kept_back_takes_nobodys_turn(
    near: Settings, people: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    made = seasons.confirm("150603", "zhongkao", date(2027, 6, 20), date(2027, 6, 22), people[0])
    kept = [planned(near, people, season="zhongkao") for _ in range(3)]
    seasons.SeasonDate.rows().delete_one({"_id": made.id})
    free = planned(near, people, season=None)
    Notice.rows().update_one({"_id": free.id}, {"$set": {"send_at": MORNING + timedelta(seconds=1)}})
    monkeypatch.setattr(outbox, "RELEASING", 0.0)  # each sweep has time for one
    for _ in range(4):
        outbox.sweep(MORNING + timedelta(seconds=2), near)
    assert notices.get(free.id).state == "due"
    assert {notices.get(one.id).reason for one in kept} == {"unconfirmed"}


def test_what_was_sent_can_be_taken_back(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people)
    outbox.sweep(MORNING, near)
    assert sent(near, MORNING) == {"sent": 1}
    assert inbox() == ["六月快到了"]
    taken = notices.cancel(notice.id, people[1])
    assert (taken.state, taken.listed, len(taken.results)) == ("cancelled", False, 2)
    assert inbox() == []
    with pytest.raises(Conflict):
        notices.cancel(notice.id, people[1])


def test_a_clock_that_ran_ahead_keeps_nothing(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people, urgent=True, expires_at=MORNING + timedelta(days=3))
    outbox.sweep(MORNING, near)
    lease = outbox.enter(MORNING)
    assert lease
    assert outbox.claim(lease, MORNING + timedelta(days=1), near, [])
    assert outbox.sweep(MORNING + timedelta(seconds=90), near)
    assert sent(near, MORNING + timedelta(seconds=90)) == {"sent": 1}
    assert notices.get(notice.id).state == "sent"


# --- Celery ----------------------------------------------------------------------------------------------------------


def test_the_broker_is_the_same_mongodb_unless_named() -> None:
    assert worker.broker(Settings(broker_url="redis://r/0", mongodb_uri="mongodb://h/")) == "redis://r/0"
    assert worker.broker(Settings()) == "memory://"
    uri = worker.broker(Settings(mongodb_uri="mongodb://u:p%40@127.0.0.1:3/?replicaSet=rs"))
    assert uri == "mongodb://u:p%40@127.0.0.1:3/xinqiao_broker?replicaSet=rs&authSource=admin&serverSelectionTimeoutMS=2000"
    kept = worker.broker(Settings(mongodb_uri="mongodb://u:p@h/x?authSource=y&serverselectiontimeoutms=9"))
    assert kept == "mongodb://u:p@h/x_broker?authSource=y&serverselectiontimeoutms=9"


def test_celery_carries_it_to_the_phone(near: Settings, phone: FakeFcm, people: tuple[str, str], tmp_path: Path) -> None:
    """A real worker with its beat, in a process of its own. `urgent`: this machine's clock may show night."""
    env = {k: v for k, v in os.environ.items() if k not in Settings.ENV} | near.environment() | {"XINQIAO_VAR": str(tmp_path)}
    celery = [sys.executable, "-m", "celery", "-A", "notifications.worker:app", "worker", "--pool", "threads", "-c", "4"]
    celery += ["-B", "-s", str(tmp_path / "beat"), "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(celery, env=env, stdout=log, stderr=log, cwd=Path(worker.__file__).parent.parent)
    try:
        now = store.now()
        notice = planned(near, people, now, season=None, urgent=True, expires_at=now + timedelta(hours=1))
        deadline = time.monotonic() + 60
        while notices.get(notice.id).state != "sent" and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.2)
        text = (tmp_path / "log").read_text()
        assert notices.get(notice.id).state == "sent", text[-3000:]
        assert [seen.target for seen in phone.sends()] == [EN, ZH]
        assert {key for seen in phone.sends() for key in seen.collapse_keys} == {notice.id}
        assert "Traceback" not in text
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

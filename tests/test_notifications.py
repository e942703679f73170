"""Notices from draft to phone and inbox: against the real database, a local FCM over HTTP, and a clock in the hand."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from content import divisions, staff, store
from content.failures import Conflict, Failure, Forbidden, Invalid
from content.published import Reader
from content.records import SYSTEM, Audit
from content.settings import Settings
from content.vocabulary import AUDIENCES, GRADES, STAGES, Stage
from content.waking import quiet_until
from notifications import fcm, notices, outcomes, seasons, topics, worker
from notifications.notices import Notice
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm, Reply
from tests.doubles.faults import Cut, DropReply, FaultProxy
from tests.site import Site

MORNING = datetime(2027, 6, 6, 1, tzinfo=UTC)  # 09:00 in Shanghai, the day before the gaokao
TEXTS = {
    "zh-Hans": {"title": "六月快到了", "body": "给备考的你和家人准备了几个小办法。"},
    "en": {"title": "June", "body": "Small ideas."},
}
ZH, EN = "d150603.parent.senior.final.zh-Hans", "d150603.parent.senior.final.en"


@pytest.fixture
def phone() -> Iterator[FakeFcm]:
    """A local FCM."""
    with FakeFcm() as running:
        yield running


@pytest.fixture
def near(settings: Settings, phone: FakeFcm) -> Settings:
    """Settings that push to it."""
    return replace(settings, fcm_url=phone.url, second_person=False)  # the setting must not matter to notices


@pytest.fixture
def people(clean: None) -> tuple[str, str]:
    """Two independent colleagues."""
    made = [staff.create_account(name, name, "correct horse battery", SYSTEM, must_change=False) for name in ("anna", "bold")]
    return made[0].id, made[1].id


def planned(near: Settings, people: tuple[str, str], now: datetime = MORNING, **fields: Any) -> Notice:
    """A notice of the gaokao season, approved and scheduled for `now`."""
    wanted = {
        "season": "gaokao", "divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": TEXTS,
        "lessons": ["steady-in-exam-week"], "expires_at": now + timedelta(days=2), **fields,
    }  # fmt: skip
    notice = notices.draft(wanted, people[0], near, now)
    notices.approve(notice.id, people[1], now)
    return notices.schedule(notice.id, people[0], near, now, now)


def clock(*moments: datetime) -> Callable[[], datetime]:
    """A clock that shows these moments, then stands."""
    left = list(moments)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def inbox(**segment: Any) -> list[str]:
    """Titles a reader sees."""
    reader = Reader()
    assert reader.refresh()
    return [item["title"] for item in notices.inbox(reader.current, segment.pop("now", MORNING), **segment)[0]]


# --- one push is one request -----------------------------------------------------------------------------------------

MESSAGE = fcm.Message("n1", ZH, "心桥", "你好", 3600, data={"notice": "n1"})


def ours(stop: bool = False) -> Callable[[outcomes.Outcome], bool]:
    """Refused by our own fault."""
    return lambda o: isinstance(o, outcomes.Refused) and o.ours and not o.drop_target and o.stop is stop


def gone(outcome: outcomes.Outcome) -> bool:
    """Refused because the target is gone."""
    return isinstance(outcome, outcomes.Refused) and outcome.drop_target and not outcome.ours and not outcome.stop


def later(seconds: float) -> Callable[[outcomes.Outcome], bool]:
    """Retry after so many seconds."""
    return lambda o: isinstance(o, outcomes.Retry) and seconds - 3 <= o.after <= seconds


def unknown(outcome: outcomes.Outcome) -> bool:
    """Nobody knows."""
    return isinstance(outcome, outcomes.Unknown)


TOMORROW = format_datetime(datetime.now(UTC) + timedelta(hours=30), usegmt=True)
ROWS: dict[str, tuple[Reply, Callable[[outcomes.Outcome], bool]]] = {
    "200": (fake_fcm.OK, lambda o: isinstance(o, outcomes.Sent) and o.name.startswith("projects/local/messages/")),
    "400": (fake_fcm.INVALID, ours()),
    "401 third party": (fake_fcm.THIRD_PARTY, ours(stop=True)),
    "401 our token": (fake_fcm.UNAUTHENTICATED, later(60)),
    "403 sender id": (fake_fcm.SENDER_ID, gone),
    "403 our rights": (fake_fcm.FORBIDDEN, ours(stop=True)),
    "404 unregistered": (fake_fcm.UNREGISTERED, gone),
    "404 our project": (fake_fcm.NO_PROJECT, ours(stop=True)),
    "429": (fake_fcm.QUOTA, later(60)),
    "429 with seconds": (fake_fcm.retry_after(fake_fcm.QUOTA, "7"), later(7)),
    "429 with a date beyond an hour": (fake_fcm.retry_after(fake_fcm.QUOTA, TOMORROW), later(3600)),
    "429 with nonsense": (fake_fcm.retry_after(fake_fcm.QUOTA, "soon"), later(60)),
    "500": (fake_fcm.INTERNAL, later(10)),
    "503": (fake_fcm.UNAVAILABLE, later(10)),
    "503 with seconds": (fake_fcm.retry_after(fake_fcm.UNAVAILABLE, "40"), later(40)),
    "502 page": (fake_fcm.GATEWAY, unknown),
    "200 page": (fake_fcm.NOT_JSON, unknown),
    "200 without a name": (fake_fcm.NO_NAME, unknown),
    "200 list": (fake_fcm.A_LIST, unknown),
    "400 in an odd shape": (fake_fcm.ODD_ERROR, unknown),
    "307": (fake_fcm.MOVED, unknown),
    "dropped": (fake_fcm.CUT, unknown),
    "accepted, then dropped": (fake_fcm.LOST, unknown),
    "silent": (fake_fcm.SLOW, unknown),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_reply_has_its_outcome_after_exactly_one_request(phone: FakeFcm, row: str) -> None:
    reply, expected = ROWS[row]
    phone.script(ZH, reply)
    began = time.monotonic()
    outcome = fcm.send(MESSAGE, Settings(fcm_url=phone.url))
    assert expected(outcome), outcome
    assert len(phone.sends()) == 1
    assert time.monotonic() - began < 10


def test_an_answer_that_drips_is_not_waited_for(phone: FakeFcm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcm, "DEADLINE", 2.0)  # 9 s in earnest: each byte comes in time, so no socket timeout helps
    phone.script("*", fake_fcm.DRIP)
    assert unknown(fcm.send(MESSAGE, Settings(fcm_url=phone.url)))
    assert len(phone.sends()) == 1


def test_a_push_replaces_its_own_duplicate_and_is_all_strings(phone: FakeFcm) -> None:
    fcm.send(replace(MESSAGE, ttl=90), Settings(fcm_url=phone.url))
    (seen,) = phone.sends()
    assert seen.collapse_keys == {"n1"}
    assert seen.message["topic"] == ZH
    assert seen.message["data"] == {"notice": "n1"}
    assert seen.message["android"]["ttl"] == "90s"
    assert abs(int(seen.message["apns"]["headers"]["apns-expiration"]) - time.time() - 90) < 5
    assert {k.lower(): v for k, v in seen.headers.items()}["authorization"] == "Bearer local"


def test_what_fcm_would_refuse_is_not_even_posted(phone: FakeFcm) -> None:
    near = Settings(fcm_url=phone.url)
    assert ours()(fcm.send(replace(MESSAGE, body="长" * 700), near))
    assert ours()(fcm.send(replace(MESSAGE, value="高考"), near))
    assert ours()(fcm.send(replace(MESSAGE, data={"n": 3}), near))  # type: ignore[dict-item]
    assert phone.sends() == []
    # and the size counted here is never less than what the other side counts
    fits = next(n for n in range(700, 0, -1) if fcm.size(replace(MESSAGE, body="长" * n)) <= fcm.TOPIC_LIMIT)
    assert isinstance(fcm.send(replace(MESSAGE, body="长" * fits), near), outcomes.Sent)
    longer = replace(MESSAGE, kind="fid", value="an-installation", body="长" * (fits + 300))
    assert isinstance(fcm.send(longer, near), outcomes.Sent)


def test_without_credentials_a_log_line_says_what_would_leave(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "xinqiao.fcm"):
        assert isinstance(fcm.send(MESSAGE, Settings()), outcomes.Skipped)
    assert f"would push {ZH} n1" in caplog.text
    assert "inbox only" in fcm.credentials_state(Settings())


def test_a_key_that_opens_nothing_waits_and_posts_nothing(phone: FakeFcm, tmp_path: Path) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account", "project_id": "district", "private_key": pem.decode(), "client_email": "a@district.example",
        "private_key_id": "1", "client_id": "1", "token_uri": f"{phone.url}/token",
    }  # fmt: skip
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    near = Settings(fcm_url=phone.url, firebase_credentials=str(file))
    phone.token_replies.append(Reply(400))
    assert later(60)(fcm.send(MESSAGE, near))
    assert phone.sends() == []
    assert "district" in fcm.credentials_state(replace(near, fcm_url=""))


def test_a_lost_reply_is_sent_again_under_the_same_key(phone: FakeFcm) -> None:
    with FaultProxy(phone.port) as proxy:
        near = Settings(fcm_url=f"http://127.0.0.1:{proxy.port}")
        proxy.then(DropReply(), Cut(10))
        assert unknown(fcm.send(MESSAGE, near))
        assert unknown(fcm.send(MESSAGE, near))  # cut within the request: it never arrived
        assert isinstance(fcm.send(MESSAGE, near), outcomes.Sent)
        assert proxy.connections == 3
    assert [seen.collapse_keys for seen in phone.sends()] == [{"n1"}, {"n1"}]


# --- topics ----------------------------------------------------------------------------------------------------------

CODES = st.sampled_from(["", "150603", "500114", "420100", "370200", "620800", "150600", "370000", "419001"])
TAGS = st.sampled_from(["zh-Hans", "zh-Hant", "mn-Mong", "mn-Cyrl", "en"])


@st.composite
def stage_texts(draw: st.DrawFn) -> str:
    """Any stage, or none."""
    name = draw(st.sampled_from(["", *STAGES]))
    if not name:
        return ""
    grade = draw(st.sampled_from([None, *GRADES.get(name, ())]))
    return str(Stage(name, grade, draw(st.booleans()), draw(st.booleans())))


SEGMENTS = st.builds(topics.Segment, CODES, st.sampled_from(list(AUDIENCES)), stage_texts(), TAGS)


@given(SEGMENTS)
def test_a_topic_and_its_segment_name_each_other(segment: topics.Segment) -> None:
    name = topics.name(segment)
    assert topics.segment(name) == segment
    assert fake_fcm.TOPIC.match(name)
    assert len(name) <= 60


@given(SEGMENTS, SEGMENTS)
def test_a_phone_hears_exactly_what_covers_it(phone: topics.Segment, meant: topics.Segment) -> None:
    heard = topics.for_phone(*phone)
    assert len(set(heard)) == len(heard) <= 2000 // 10
    covers = (
        (not meant.division or divisions.within(phone.division, meant.division))
        and meant.audience == phone.audience
        and meant.language == phone.language
        and (not meant.stage or (bool(phone.stage) and Stage.parse(meant.stage).covers(Stage.parse(phone.stage))))
    )
    assert (topics.name(meant) in heard) is covers


def test_topics_say_nothing_of_health_and_foreign_ones_are_refused() -> None:
    assert topics.name(topics.Segment("150603", "parent", "senior.final", "zh-Hans")) == ZH
    vocabulary = {*AUDIENCES, *STAGES, "all", "final", "entering"}
    for name in topics.for_phone("150603", "parent", "senior.12.final", "zh-Hans"):
        assert {word for word in name.split(".")[1:-1] if not word.isdigit()} <= vocabulary
    for bad in ("高考", "", "x", "d1.parent", "d150603.doctor.all.en", "d150603.parent.senior.13.en", "d.parent.all.en"):
        with pytest.raises(Invalid):
            topics.segment(bad)


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

    assert notices.sweep(now, near) == []
    assert inbox() == []
    now += timedelta(hours=1)
    assert notices.sweep(now, near) == [notice.id]
    assert inbox(division="150603", audience="parent", stage="senior.12.final") == ["六月快到了"]
    assert inbox(division="150603", audience="parent", wanted=("en",)) == ["June"]
    assert inbox(division="500114") == inbox(audience="student") == inbox(stage="junior.final") == []
    assert phone.sends() == []

    assert notices.sweep(now, near) == []  # handed out a moment ago
    assert worker.carry(notice.id, near, clock(now)) == "sent"
    assert worker.carry(notice.id, near, clock(now)) == "not ours"
    assert sorted(seen.target for seen in phone.sends()) == [EN, ZH]
    assert [seen.collapse_keys for seen in phone.sends()] == [{notice.id}] * 2
    assert phone.sends(ZH)[0].message["notification"] == TEXTS["zh-Hans"]
    there = notices.get(notice.id)
    assert (there.state, [r.outcome for r in there.results]) == ("sent", ["sent", "sent"])
    assert notices.sweep(now + timedelta(days=1), near) == []

    # its time over, it leaves the inbox and phones are told
    notices.sweep(there.expires_at, near)
    reader = Reader()
    reader.refresh()
    assert notices.inbox(reader.current, now, since=1)[:2] == ([], [notice.id])
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
    wrong = {
        "season": "spring", "divisions": ["999999"], "audiences": ["doctor"], "stages": ["college"], "lessons": [],
        "texts": {"en": {"title": " ", "body": "x"}}, "send_at": MORNING, "expires_at": MORNING,
    }  # fmt: skip
    with pytest.raises(Invalid) as refused:
        notices.draft(wrong, people[0], near, MORNING)
    assert {e.field for e in refused.value.errors} == {
        "season", "divisions", "audiences", "stages", "texts.en.title", "texts.zh-Hans", "send_at",
    }  # fmt: skip
    with pytest.raises(Failure) as large:
        notices.draft(
            {"audiences": ["parent"], "texts": {"zh-Hans": {"title": "长", "body": "长" * 700}}}, people[0], near, MORNING
        )
    assert large.value.code == "payload_too_large"
    assert Notice.rows().find_one({}) is None


def test_of_two_claims_one_gets_it(near: Settings, people: tuple[str, str]) -> None:
    for _ in range(5):
        notice = planned(near, people)
        notices.sweep(MORNING, near)
        barrier, got = threading.Barrier(6), []

        def take(key: str, barrier: threading.Barrier = barrier, got: list[Any] = got) -> None:
            barrier.wait()
            got.append(notices.claim(key, MORNING, near))

        threads = [threading.Thread(target=take, args=(notice.id,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([one for one in got if one]) == 1
        assert notices.get(notice.id).attempts == 1


def test_a_crash_after_the_post_sends_again_under_the_same_key(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people)
    notices.sweep(MORNING, near)
    mine = notices.claim(notice.id, MORNING, near)
    assert mine
    # the first topic is sent and noted, the second sent and not noted: here the worker dies
    first, second = mine.open_topics()
    assert notices.note(mine, first, fcm.send(notices.message(mine, first, MORNING), near), MORNING)
    fcm.send(notices.message(mine, second, MORNING), near)

    assert notices.sweep(MORNING + timedelta(seconds=59), near) == []
    after = MORNING + timedelta(seconds=61)
    assert notices.sweep(after, near) == [notice.id]
    assert not notices.note(mine, second, outcomes.Sent("late"), after)  # the dead one's claim is void
    assert notices.settle(mine, after, near) is None
    assert worker.carry(notice.id, near, clock(after)) == "sent"
    assert [seen.target for seen in phone.sends()] == [first, second, second]
    assert {key for seen in phone.sends() for key in seen.collapse_keys} == {notice.id}


def test_a_partial_fan_out_goes_on_where_it_stopped(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people)
    notices.sweep(MORNING, near)
    phone.script(EN, fake_fcm.retry_after(fake_fcm.QUOTA, "90"))
    assert worker.carry(notice.id, near, clock(MORNING)) == "due"
    assert [seen.target for seen in phone.sends()] == [EN, ZH]
    there = notices.get(notice.id)
    assert timedelta(seconds=90) <= there.next_try - MORNING <= timedelta(seconds=120)
    assert worker.carry(notice.id, near, clock(MORNING + timedelta(seconds=89))) == "not ours"
    assert notices.sweep(MORNING + timedelta(seconds=89), near) == []
    soon = there.next_try
    assert notices.sweep(soon, near) == [notice.id]
    assert worker.carry(notice.id, near, clock(soon)) == "sent"
    assert [seen.target for seen in phone.sends()] == [EN, ZH, EN]


def test_quiet_hours_hold_and_never_drop(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    night = datetime(2027, 6, 6, 13, 40, tzinfo=UTC)  # 21:40 in Shanghai
    dawn = datetime(2027, 6, 6, 23, 0, tzinfo=UTC)  # 07:00 the next day
    held, urgent = planned(near, people, night), planned(near, people, night, urgent=True)
    assert quiet_until(night, near.zone) == dawn
    assert quiet_until(dawn, near.zone) is None
    assert notices.sweep(night, near) == [urgent.id]
    assert inbox(now=night) == ["六月快到了"] * 2  # the inbox makes no noise
    assert worker.carry(held.id, near, clock(night)) == "not ours"
    assert worker.carry(urgent.id, near, clock(night)) == "sent"
    assert {key for seen in phone.sends() for key in seen.collapse_keys} == {urgent.id}
    for hours in range(9):
        assert notices.sweep(night + timedelta(hours=hours), near) == []
    assert notices.sweep(dawn, near) == [held.id]
    assert worker.carry(held.id, near, clock(dawn)) == "sent"


def test_the_night_falls_in_the_middle_of_a_fan_out(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    evening = datetime(2027, 6, 6, 13, 29, 59, tzinfo=UTC)
    notice = planned(near, people, evening)
    notices.sweep(evening, near)
    assert worker.carry(notice.id, near, clock(evening, evening, evening, evening + timedelta(seconds=2))) == "due"
    assert [seen.target for seen in phone.sends()] == [EN]
    dawn = datetime(2027, 6, 6, 23, 0, tzinfo=UTC)
    assert notices.get(notice.id).next_try == dawn
    assert notices.sweep(dawn, near) == [notice.id]
    assert worker.carry(notice.id, near, clock(dawn)) == "sent"
    assert [seen.target for seen in phone.sends()] == [EN, ZH]


def test_the_night_falls_between_the_sweep_and_the_claim(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    evening = datetime(2027, 6, 6, 13, 29, 59, tzinfo=UTC)
    notice = planned(near, people, evening)
    assert notices.sweep(evening, near) == [notice.id]
    night = evening + timedelta(seconds=2)
    assert worker.carry(notice.id, near, clock(night)) == "not ours"
    assert notices.sweep(night + timedelta(minutes=1), near) == []
    assert phone.sends() == []
    assert notices.sweep(datetime(2027, 6, 6, 23, 0, tzinfo=UTC), near) == [notice.id]


def test_retries_back_off_and_give_up_after_an_hour(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people, texts={"zh-Hans": TEXTS["zh-Hans"]})
    phone.script("*", *[fake_fcm.UNAVAILABLE] * 99)
    now, waits, state = MORNING, [], "due"
    notices.sweep(now, near)
    while state == "due":
        state = worker.carry(notice.id, near, clock(now))
        there = notices.get(notice.id)
        if state == "due":
            waits.append((there.next_try - now).total_seconds())
            now = there.next_try
            assert notices.sweep(now, near) == [notice.id]
    assert state == "failed"
    assert 10 <= waits[0] <= 12.5
    assert all(b >= a for a, b in zip(waits[:6], waits[1:7], strict=True))
    assert timedelta(minutes=45) < now - MORNING <= timedelta(minutes=60)
    assert len(phone.sends()) == len(waits) + 1
    assert inbox() == ["六月快到了"]  # the promise is the inbox


def test_a_notice_never_leaves_after_its_expiry(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    soon = MORNING + timedelta(minutes=5)
    late = planned(near, people, expires_at=soon)
    notices.sweep(MORNING, near)
    phone.script("*", fake_fcm.UNAVAILABLE, fake_fcm.UNAVAILABLE)
    assert worker.carry(late.id, near, clock(MORNING)) == "due"
    assert worker.carry(late.id, near, clock(soon)) == "not ours"
    draft = notices.draft({"audiences": ["parent"], "texts": TEXTS, "expires_at": soon}, people[0], near, MORNING)
    assert notices.sweep(soon, near) == []
    assert [notices.get(key).state for key in (late.id, draft.id)] == ["expired", "expired"]
    assert notices.get(draft.id).reason == "nobody approved it in time"
    assert inbox() == []
    with pytest.raises(Conflict):
        notices.approve(draft.id, people[1], soon)
    assert len(phone.sends()) == 2


def test_a_cancelled_campaign_stops_at_once(near: Settings, phone: FakeFcm, people: tuple[str, str]) -> None:
    notice = planned(near, people)
    notices.sweep(MORNING, near)
    mine = notices.claim(notice.id, MORNING, near)
    assert mine
    revision = mine.revision
    cancelled = notices.cancel(notice.id, people[1], revision)
    assert cancelled.state == "cancelled"
    assert not notices.note(mine, ZH, outcomes.Sent("x"), MORNING)
    assert notices.settle(mine, MORNING, near) is None
    assert inbox() == []
    with pytest.raises(Conflict):
        notices.cancel(notice.id, people[1])
    assert notices.sweep(MORNING + timedelta(minutes=5), near) == []


@pytest.mark.parametrize(
    ("reply", "state", "posts"),
    [(fake_fcm.THIRD_PARTY, "refused", 1), (fake_fcm.INVALID, "sent", 2), (fake_fcm.LOST, "due", 2)],
)
def test_what_a_refusal_does_to_the_campaign(
    near: Settings, phone: FakeFcm, people: tuple[str, str], reply: Reply, state: str, posts: int
) -> None:
    notice = planned(near, people)
    notices.sweep(MORNING, near)
    phone.script("*", reply)
    assert worker.carry(notice.id, near, clock(MORNING)) == state
    assert len(phone.sends()) == posts
    assert notices.get(notice.id).reason


def test_without_credentials_the_inbox_has_it(settings: Settings, people: tuple[str, str]) -> None:
    notice = planned(settings, people)
    notices.sweep(MORNING, settings)
    assert worker.carry(notice.id, settings, clock(MORNING)) == "sent"
    there = notices.get(notice.id)
    assert {result.outcome for result in there.results} == {"skipped"}
    assert "inbox only" in there.reason
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
    assert notices.sweep(MORNING, near) == []
    there = notices.get(notice.id)
    assert (there.state, there.reason) == ("scheduled", notices.UNCONFIRMED)
    seasons.confirm("150600", "zhongkao", date(2027, 6, 21), date(2027, 6, 23), bold)  # the city's will do
    assert notices.sweep(MORNING, near) == [notice.id]


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


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_the_desk_and_the_inbox_over_http(site: Site) -> None:
    site.person("organiser", "organiser", division="150603")
    site.person("reviewer", "reviewer", division="150600")
    site.person("elsewhere", "organiser", "reviewer", division="500114")
    texts = [{"language": "zh-CN", "title": "六月快到了", "body": "三分钟看完。"}]
    body = {"divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": texts}
    assert site.post("/v1/staff/notices", body, by="elsewhere").status_code == 403
    assert site.post("/v1/staff/notices", {**body, "divisions": []}, by="organiser").status_code == 403
    assert site.post("/v1/staff/notices", {**body, "texts": texts * 2}, by="organiser").status_code == 422
    made = site.post("/v1/staff/notices", body, by="organiser")
    assert made.status_code == 201, made.text
    path = made.headers["Location"]
    assert made.json()["topics"] == [ZH]
    assert site.get(path, by="elsewhere").status_code == 404
    assert site.call("PATCH", path, json={"urgent": True}, by="organiser").status_code == 428
    changed = site.call("PATCH", path, json={"urgent": True, "lessons": ["a"]}, by="organiser", match='"1"')
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert site.call("PATCH", path, json={"urgent": False}, by="organiser", match='"1"').status_code == 412
    assert site.post(f"{path}/approve", by="organiser", match='"2"').status_code == 403
    assert site.post(f"{path}/approve", by="reviewer", match='"2"').json()["state"] == "approved"
    late = {"send_at": (store.now() + timedelta(days=40)).isoformat()}
    assert site.post(f"{path}/schedule", late, by="organiser", match='"3"').status_code == 422  # past its 30 days
    done = site.post(f"{path}/schedule", {}, by="organiser", match='"3"')
    assert done.status_code == 200, done.text
    notices.sweep(store.now(), site.settings)
    site.refresh()
    segment = "division=150603&audience=parent&stage=senior.12.final"
    answer = site.get(f"/v1/notices?{segment}")
    assert [item["title"] for item in answer.json()["items"]] == ["六月快到了"]
    cursor = answer.json()["next_cursor"]
    assert site.get(f"/v1/notices?{segment}&since={cursor}").json()["items"] == []
    assert site.get("/v1/notices?division=500114").json()["items"] == []
    assert site.get("/v1/notices?division=999999").status_code == 422
    assert site.get("/v1/notices?stage=college").status_code == 422
    assert site.get(f"/v1/notices?{segment}", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert site.get("/v1/staff/notices", by="reviewer").json()["items"][0]["in_inbox"]
    assert site.get("/v1/staff/notices", by="elsewhere").json()["items"] == []

    assert site.post(f"{path}/cancel", by="reviewer", match='"5"').json()["state"] == "cancelled"
    gone = site.get(f"/v1/notices?{segment}&since={cursor}").json()
    assert (gone["items"], gone["withdrawn"]) == ([], [path.rsplit("/", 1)[1]])


def test_topics_over_http(site: Site) -> None:
    assert ZH in site.get("/v1/topics?division=150603&audience=parent&stage=senior.12.final").json()["topics"]
    assert site.get("/v1/topics?division=150603").status_code == 422

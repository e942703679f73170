"""Several channels: in which order, what takes over from what, and what the district's own system is told."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from content.settings import Settings
from notifications import notices, outbox
from notifications.notices import Notice
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm
from tests.test_outbox import TEXTS, planned
from tests.test_webhook import SECRET, Answer, Receiver, receiver  # noqa: F401  (a fixture)

MORNING = datetime(2027, 6, 6, 1, 4, tzinfo=UTC)


def through(near: Settings, system: Receiver, channels: str) -> Settings:
    """Settings with the district's own system and this order."""
    return replace(near, webhook_url=system.url, webhook_secret=SECRET, channels=channels)


def sent(settings: Settings, now: datetime) -> Counter[str]:
    """Sweep and send at this moment."""
    outbox.sweep(now, settings)
    return outbox.fan_out(settings, lambda: now, lambda seconds: None)


def outcomes(notice: Notice) -> dict[str, set[str]]:
    """Channel -> what came of it."""
    found: dict[str, set[str]] = {}
    for row in notices.get(notice.id).results:
        found.setdefault(row.channel, set()).add(row.outcome)
    return found


@pytest.mark.parametrize(
    ("channels", "reply", "answer", "came"),
    [
        ("fcm,webhook", fake_fcm.OK, 200, {"fcm": {"sent"}, "webhook": {"sent"}}),
        ("fcm>webhook", fake_fcm.OK, 200, {"fcm": {"sent"}}),
        ("fcm>webhook", fake_fcm.THIRD_PARTY, 200, {"fcm": {"refused"}, "webhook": {"sent"}}),
        ("webhook>fcm", fake_fcm.OK, 200, {"webhook": {"sent"}}),
        ("webhook>fcm", fake_fcm.OK, 410, {"webhook": {"refused"}, "fcm": {"sent"}}),
        ("webhook", fake_fcm.OK, 200, {"webhook": {"sent"}}),
    ],
)
def test_the_order_and_what_takes_over(
    near: Settings, phone: FakeFcm, receiver: Receiver, people: tuple[str, str],  # noqa: F811
    channels: str, reply: Any, answer: int, came: dict[str, set[str]],
) -> None:  # fmt: skip
    settings = through(near, receiver, channels)
    notice = planned(settings, people)
    phone.script("*", reply)
    receiver.answers.append(Answer(answer))
    assert sent(settings, MORNING) == {"sent": 1}
    assert outcomes(notice) == came


def test_one_channel_that_waits_keeps_no_other_waiting(
    near: Settings, phone: FakeFcm, receiver: Receiver, people: tuple[str, str]  # noqa: F811
) -> None:  # fmt: skip
    settings = through(near, receiver, "fcm,webhook")
    notice = planned(settings, people)
    phone.script("*", *[fake_fcm.UNAVAILABLE] * 99)
    assert sent(settings, MORNING) == {"due": 1}
    assert outcomes(notice) == {"webhook": {"sent"}}
    ((headers, body),) = receiver.posts
    told = json.loads(body)
    assert (told["type"], told["id"], told["texts"]["zh-Hans"]["title"]) == ("notice", notice.id, TEXTS["zh-Hans"]["title"])
    assert told["quiet_text"]["zh-Hans"] == "心桥有一条新消息"
    now = MORNING
    while notices.get(notice.id).state == "due":
        now = notices.get(notice.id).next_try
        sent(settings, now)
    assert notices.get(notice.id).state == "failed"
    assert len(receiver.posts) == 1


def test_an_hour_of_silence_and_the_next_channel_takes_over(
    near: Settings, phone: FakeFcm, receiver: Receiver, people: tuple[str, str]  # noqa: F811
) -> None:  # fmt: skip
    settings = through(near, receiver, "webhook>fcm")
    notice = planned(settings, people, expires_at=MORNING + timedelta(hours=9))
    receiver.answers.extend([Answer(503)] * 99)
    now = MORNING
    assert sent(settings, now) == {"due": 1}
    while notices.get(notice.id).state == "due":
        now = notices.get(notice.id).next_try
        sent(settings, now)
    assert notices.get(notice.id).state == "sent"
    assert outcomes(notice) == {"webhook": {"failed"}, "fcm": {"sent"}}
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 1
    assert timedelta(minutes=40) < now - MORNING < timedelta(minutes=75)


def test_what_is_cancelled_is_taken_back_from_the_districts_own_system(
    near: Settings, phone: FakeFcm, receiver: Receiver, people: tuple[str, str]  # noqa: F811
) -> None:  # fmt: skip
    settings = through(near, receiver, "webhook,fcm")
    notice = planned(settings, people)
    phone.script("*", *[fake_fcm.UNAVAILABLE] * 2)
    assert sent(settings, MORNING) == {"due": 1}
    notices.cancel(notice.id, people[0])
    receiver.answers.append(Answer(503))
    for minutes in (0, 5):  # the first post is not taken
        now = MORNING + timedelta(minutes=minutes)
        assert outbox.sweep(now, settings)
        outbox.fan_out(settings, lambda now=now: now)  # type: ignore[misc]
        assert not outbox.sweep(now, settings)
    assert [json.loads(body) for _, body in receiver.posts][1:] == [{"type": "notice.cancelled", "id": notice.id}] * 2


def test_the_districts_own_system_is_not_told_at_night_either(
    near: Settings,
    phone: FakeFcm,
    receiver: Receiver,  # noqa: F811
    people: tuple[str, str],
) -> None:
    settings = through(near, receiver, "fcm,webhook")
    evening = datetime(2027, 6, 5, 13, 27, 30, tzinfo=UTC)
    notice = planned(settings, people, evening)
    outbox.sweep(evening, settings)
    at = [evening]
    fcm_takes_minutes = outbox.fan_out(settings, lambda: at[0], lambda seconds: at.append(at.pop() + timedelta(seconds=20)))
    assert fcm_takes_minutes == {"sent": 1}
    assert len(receiver.posts) == 1
    # the same, later: the last message of FCM leaves before the night, and then it is night
    late = evening + timedelta(hours=24)
    second = planned(settings, people, late)
    outbox.sweep(late, settings)
    at = [late]

    def clock() -> datetime:
        return at[0] if len(phone.sends()) < 4 else late + timedelta(minutes=5)

    assert outbox.fan_out(settings, clock, lambda seconds: None) == {"due": 1}
    assert len(receiver.posts) == 1
    assert outcomes(second) == {"fcm": {"sent"}}
    assert notices.get(second.id).next_try == datetime(2027, 6, 6, 23, 3, tzinfo=UTC)
    assert notices.get(notice.id).state == "sent"

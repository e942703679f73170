"""Promise 10: what FCM asks of who sends, as the outbox keeps it: one request an attempt, the wait that each reply asks for, an
hour and not past the expiry, and nobody kept from work by a slow answer. The clock is in the hand; FCM is a local one.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from content import store
from content.settings import Settings
from notifications import notices, outbox
from notifications.notices import Notice
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm, Reply, retry_after
from tests.promises.report import Measured

MORNING = datetime(2027, 6, 2, 2, 3, 10, tzinfo=UTC)
TEXTS = {"zh-Hans": {"title": "六月快到了", "body": "给你和家人准备了几个小办法。"}}
HOUR = timedelta(minutes=60)
LATER = format_datetime(datetime.now(UTC) + timedelta(hours=30), usegmt=True)
TARGETS = {"topic": ["150603"], "condition": ["150603", "500114"]}
REFUSED: dict[str, Reply] = {
    "400": fake_fcm.INVALID, "401 third party": fake_fcm.THIRD_PARTY, "403 sender": fake_fcm.SENDER_ID,
    "403": fake_fcm.FORBIDDEN, "404 unregistered": fake_fcm.UNREGISTERED, "404": fake_fcm.NO_PROJECT,
}  # fmt: skip
PUT_OFF: dict[str, tuple[Reply, float]] = {
    "401": (fake_fcm.UNAUTHENTICATED, 60),
    "429": (fake_fcm.QUOTA, 60),
    "429, 7 s": (retry_after(fake_fcm.QUOTA, "7"), 10),  # the outbox's own floor
    "429, 90 s": (retry_after(fake_fcm.QUOTA, "90"), 90),
    "429, nonsense": (retry_after(fake_fcm.QUOTA, "soon"), 60),
    "500": (fake_fcm.INTERNAL, 10),
    "503": (fake_fcm.UNAVAILABLE, 10),
    "503, 40 s": (retry_after(fake_fcm.UNAVAILABLE, "40"), 40),
    "502 page": (fake_fcm.GATEWAY, 10),
    "200 page": (fake_fcm.NOT_JSON, 10),
    "200 without a name": (fake_fcm.NO_NAME, 10),
    "200 list": (fake_fcm.A_LIST, 10),
    "400 in an odd shape": (fake_fcm.ODD_ERROR, 10),
    "307": (fake_fcm.MOVED, 10),
    "dropped": (fake_fcm.CUT, 10),
    "accepted, then dropped": (fake_fcm.LOST, 10),
}


class Post:
    """One due notice at a time, of one message."""

    def __init__(self, settings: Settings, fcm: FakeFcm) -> None:
        self.settings, self.fcm, self.slowest = replace(settings, fcm_url=fcm.url), fcm, 0.0

    def begin(self, codes: list[str], life: timedelta = timedelta(hours=5)) -> Notice:
        """Nothing is known but a due notice. An urgent one, so that neither night nor crowded minutes add to a wait."""
        for name in ("notices", "push_gate", "told"):
            rows = store.database()[name]
            for raw in list(rows.find({}, {"_id": 1})):
                rows.delete_one({"_id": raw["_id"]})
        self.fcm.clear()
        made = Notice(divisions=codes, audiences=["parent"], texts=TEXTS, urgent=True, state="due", push_languages=["zh-Hans"])
        made.created_by, made.send_at, made.next_try, made.expires_at = "anna", MORNING, MORNING, MORNING + life
        Notice.rows().insert_one(made.to_mongo().to_dict())
        return made

    def attempt(self, notice: Notice, now: datetime) -> Notice:
        """One turn of a worker, in which at most one request leaves. The notice as it then is."""
        before, began = len(self.fcm.log), time.monotonic()
        outbox.sweep(now, self.settings)
        outbox.fan_out(self.settings, lambda: now, lambda _: None)
        self.slowest = max(self.slowest, time.monotonic() - began)
        assert len(self.fcm.log) - before <= 1
        return notices.get(notice.id)


@pytest.fixture
def post(clean: None, settings: Settings) -> Iterator[Post]:
    """A worker before a local FCM."""
    with FakeFcm() as fcm:
        yield Post(settings, fcm)


@pytest.mark.slow  # one request and one outcome a reply: tests/test_fcm.py
@pytest.mark.parametrize("target", ["topic", "condition"])
def test_every_reply_is_one_request_and_asks_for_its_wait(post: Post, target: str, measured: Measured) -> None:
    for name, reply in REFUSED.items():
        notice = post.begin(TARGETS[target])
        post.fcm.script("*", reply)
        there = post.attempt(notice, MORNING)
        assert (there.state, len(post.fcm.log)) == ("refused", 1), name
        assert target in post.fcm.log[0].message
        assert post.attempt(notice, MORNING + HOUR).state == "refused" and len(post.fcm.log) == 1, name
    waits: dict[str, float] = {}
    for name, (reply, least) in PUT_OFF.items():
        notice = post.begin(TARGETS[target])
        post.fcm.script("*", reply)
        there = post.attempt(notice, MORNING)
        assert (there.state, len(post.fcm.log)) == ("due", 1), name
        waits[name] = (there.next_try - MORNING).total_seconds()
        assert least <= waits[name] <= least * 1.25 + 0.001, f"{name}: {waits[name]}"
        assert post.attempt(notice, there.next_try - timedelta(milliseconds=1)).state == "due" and len(post.fcm.log) == 1, name
        there = post.attempt(notice, there.next_try)
        assert (there.state, len(post.fcm.log)) == ("sent", 2), name
        assert {key for seen in post.fcm.log for key in seen.collapse_keys} == {notices.get(notice.id).collapse_key}
    assert len({round(wait, 3) for name, wait in waits.items() if PUT_OFF[name][1] == 10}) > 3  # nobody comes back all at once
    measured(10, f"{target}: {len(REFUSED) + len(PUT_OFF)} replies, one request an attempt, waits as asked")


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("condition", ["503"]),
        pytest.param("condition", ["429", "accepted, then dropped"], marks=pytest.mark.slow),
        pytest.param("topic", ["429", "503", "accepted, then dropped"], marks=pytest.mark.slow),
    ],
)
def test_it_gives_up_after_an_hour_and_not_past_the_expiry(post: Post, target: str, names: list[str], measured: Measured) -> None:
    for name in names:
        reply = PUT_OFF[name][0]
        for life in (timedelta(hours=5), timedelta(minutes=7)):
            notice, now, moments = post.begin(TARGETS[target], life), MORNING, []
            post.fcm.script("*", *[reply] * 99)
            there = notices.get(notice.id)
            while there.state == "due":
                moments.append(now)
                there = post.attempt(notice, now)
                assert len(post.fcm.log) == len(moments), name
                if there.state == "due":
                    now = min(there.next_try, notice.expires_at)
                    if now == notice.expires_at:
                        there = post.attempt(notice, now)
            steps = [b - a for a, b in zip(moments, moments[1:], strict=False)]
            assert there.state == ("failed" if life > HOUR else "expired"), f"{name}: {there.state}"
            assert moments[-1] - MORNING <= min(HOUR, life)
            assert steps[0] >= timedelta(seconds=PUT_OFF[name][1])
            assert steps[-1] > steps[0] or name == "429"
            measured(
                10, f"{target}, {name} again and again: {len(moments)} attempts, {there.state} after {moments[-1] - MORNING}"
            )
    notice = post.begin(TARGETS[target])
    post.fcm.script("*", retry_after(fake_fcm.QUOTA, LATER))
    there = post.attempt(notice, MORNING)  # it asks for an hour: then it is tried once more
    assert (there.state, there.next_try >= MORNING + HOUR) == ("due", True)


def test_the_quota_is_everybodys(post: Post) -> None:
    first, second = post.begin(["150603"]), Notice(divisions=["420100"], audiences=["student"], texts=TEXTS)
    raw: dict[str, Any] = {**first.to_mongo().to_dict(), "_id": second.id, "divisions": ["420100"]}
    Notice.rows().insert_one(raw)
    post.fcm.script("*", retry_after(fake_fcm.QUOTA, "90"))
    there = [post.attempt(first, MORNING), notices.get(second.id)]
    assert len(post.fcm.log) == 1
    assert all(one.state == "due" and one.next_try - MORNING >= timedelta(seconds=90) for one in there)
    later = max(one.next_try for one in there)
    outbox.fan_out(post.settings, lambda: later, lambda _: None)
    assert {notices.get(one.id).state for one in there} == {"sent"} and len(post.fcm.log) == 3


@pytest.mark.slow
def test_no_worker_is_blocked_by_a_slow_answer(post: Post, measured: Measured) -> None:
    for reply in (fake_fcm.SLOW, fake_fcm.DRIP):
        notice = post.begin(["150603"])
        post.fcm.script("*", reply)
        there = post.attempt(notice, MORNING)
        assert (there.state, len(post.fcm.log)) == ("due", 1)
    measured(10, f"silent and dripping answers: a worker was kept {post.slowest:.1f} s at most")
    assert post.slowest < 10

"""Promise 9 against a model: whatever people, clocks, crashes and FCM do in whatever order, a notice moves only along its arrows,
nothing leaves when it may not, no family is called twice a day, and in the end everything has ended.

The clock is in the hand and stands still within a step, unless the pause between two messages moves it. Which requests left at
which moment is read from the local FCM's log.
"""

import time
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from content import staff, store
from content.failures import Conflict, Invalid
from content.records import SYSTEM
from content.settings import Settings
from notifications import conditions, notices, outbox, topics
from notifications.notices import Notice
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm, Reply
from tests.promises.report import Measured

START = datetime(2027, 6, 5, 2, 3, tzinfo=UTC)  # 10:03 in Shanghai, two days before the gaokao
LOCAL = ZoneInfo("Asia/Shanghai")
TEXTS = {"zh-Hans": {"title": "六月快到了", "body": "给你和家人准备了几个小办法。"}}
ARROWS = {
    "drafted": {"approved", "expired", "cancelled"},
    "approved": {"scheduled", "expired", "cancelled"},
    "scheduled": {"due", "expired", "cancelled"},
    "due": {"claimed", "expired", "cancelled"},
    "claimed": {"due", "sent", "refused", "failed", "cancelled"},
    **dict.fromkeys(("sent", "refused", "failed"), {"cancelled"}),  # taken back out of the inbox
}
ENDS = {"sent", "refused", "failed", "expired", "cancelled"}
REPLIES = [fake_fcm.OK, fake_fcm.QUOTA, fake_fcm.UNAVAILABLE, fake_fcm.LOST, fake_fcm.CUT, fake_fcm.THIRD_PARTY, fake_fcm.INVALID]
PHONES = st.tuples(
    st.sampled_from(["", "150600", "150603", "500114"]),
    st.sampled_from(["parent", "student"]),
    st.lists(st.sampled_from(["", "primary.3", "junior.9.final", "senior.12.final"]), min_size=1, max_size=2, unique=True),
)
MINUTES = st.sampled_from([1, 2, 5, 14, 70, 400, 700, 1500])
FIELDS: dict[str, Any] = {
    "codes": st.sampled_from([[], ["150603"], ["150600"], ["150603", "500114"], ["150602", "150603", "500114", "420100"]]),
    "audiences": st.sampled_from([["parent"], ["student"], ["parent", "student"]]),
    "stages": st.sampled_from([[], ["junior.final"], ["junior", "senior", "primary"]]),
    "urgent": st.booleans(),
    "life": st.sampled_from([20, 300, 1200, 2880]),
}


class Crash(BaseException):
    """The process is gone at this line."""


def after(state: str) -> set[str]:
    """Every state that one can come to from this one."""
    found, todo = {state}, [state]
    while todo:
        for new in ARROWS.get(todo.pop(), set()) - found:
            found.add(new)
            todo.append(new)
    return found


class Outbox(RuleBasedStateMachine):
    """Some notices, three phones, two workers and a clock."""

    near: ClassVar[Settings]
    fcm: ClassVar[FakeFcm]
    by: ClassVar[tuple[str, str]]
    seen: ClassVar[Counter[str]]
    begun: ClassVar[float]
    keys: Bundle[str] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        for name in ("notices", "push_gate", "told", "published"):
            rows = store.database()[name]
            for raw in list(rows.find({}, {"_id": 1})):
                rows.delete_one({"_id": raw["_id"]})
        self.fcm.clear()
        self.now, self.looked = START, 0
        self.states: dict[str, str] = {}
        self.cancelled: dict[str, int] = {}
        """How many requests had arrived when its cancellation returned."""
        self.at: dict[int, datetime] = {}
        """The last look at the clock before each request."""
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.allowed: Counter[tuple[str, str]] = Counter()
        self.called: dict[tuple[int, str], set[str]] = {}
        self.quota = START
        """FCM's last 429 asked for silence until then."""

    @initialize(phones=st.lists(PHONES, min_size=3, max_size=3))
    def families(self, phones: list[tuple[str, str, list[str]]]) -> None:
        self.phones = [
            {
                name
                for one in stages[: 1 if audience == "student" else 2]
                for name in topics.for_phone(code, audience, one, "zh-Hans")
            }
            for code, audience, stages in phones
        ]

    # -- people

    @rule(target=keys, **FIELDS)
    def draft(self, codes: list[str], audiences: list[str], stages: list[str], urgent: bool, life: int) -> str:
        urgent = urgent and "student" not in audiences  # that takes an emergency
        fields = {"divisions": codes, "audiences": audiences, "stages": stages, "urgent": urgent, "texts": TEXTS}
        fields["expires_at"] = self.now + timedelta(minutes=life)
        return notices.draft(fields, self.by[0], self.near, self.now).id

    @rule(target=keys, **FIELDS)
    def plan(self, codes: list[str], audiences: list[str], stages: list[str], urgent: bool, life: int) -> str:
        """As the desk leaves one that was approved and scheduled, without its three transactions."""
        made = Notice(divisions=codes, audiences=audiences, stages=stages, urgent=urgent, texts=TEXTS, authors=[self.by[0]])
        made.created_by, made.approved_by, made.state = self.by[0], self.by[1], "scheduled"
        made.send_at, made.expires_at = self.now, self.now + timedelta(minutes=life)
        Notice.rows().insert_one(made.to_mongo().to_dict())
        return str(made.id)

    @rule(key=keys)
    def edit(self, key: str) -> None:
        self._does("drafted", "drafted", key, lambda: notices.edit(key, {"lessons": []}, self.by[0], self.near, self.now))

    @rule(key=keys)
    def approve(self, key: str) -> None:
        self._does("drafted", "approved", key, lambda: notices.approve(key, self.by[1], self.now))

    @rule(key=keys, minutes=st.sampled_from([0, 30, 600]))
    def schedule(self, key: str, minutes: int) -> None:
        when = self.now + timedelta(minutes=minutes)
        if not notices.get(key).urgent or not minutes:  # an urgent one leaves at the hour that was approved
            self._does("approved", "scheduled", key, lambda: notices.schedule(key, self.by[0], self.near, self.now, when), when)

    @rule(key=keys)
    def cancel(self, key: str) -> None:
        if self.states[key] not in ENDS or notices.get(key).listed:  # what was sent can be taken back
            notices.cancel(key, SYSTEM)
            self.cancelled[key] = len(self.fcm.log)
            return
        with pytest.raises(Conflict):
            notices.cancel(key, SYSTEM)

    def _does(self, only: str, then: str, key: str, work: Any, when: datetime | None = None) -> None:
        timely = notices.get(key).expires_at > (when or self.now)
        if self.states[key] == only and (timely or then == "drafted"):
            assert work().state == then
        else:
            with pytest.raises((Conflict, Invalid)):
                work()

    # -- time and workers

    @rule(minutes=MINUTES)
    def forward(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def sweep(self) -> None:
        outbox.sweep(self.now, self.near)

    @rule(
        replies=st.lists(st.sampled_from(REPLIES), max_size=4),
        crash=st.none() | st.integers(1, 12),
        meanwhile=st.sampled_from(["nothing", "cancel", "other", "evening", "minutes"]),
        minutes=MINUTES,
    )
    def send(self, replies: list[Reply], crash: int | None, meanwhile: str, minutes: int) -> None:
        """A worker comes, and perhaps dies at one of its looks at the clock; something happens in its first pause."""
        outbox.sweep(self.now, self.near)
        looks, before, script = 0, len(self.fcm.log), deque(replies)
        self.fcm.script("*", *replies)

        def clock() -> datetime:
            nonlocal looks
            looks += 1
            if looks == crash:
                raise Crash
            self.at[len(self.fcm.log)] = self.now
            return self.now

        def pause(_: float) -> None:
            nonlocal meanwhile
            what, meanwhile = meanwhile, "nothing"
            claimed = [raw["_id"] for raw in Notice.rows().find({"state": "claimed"}, {"_id": 1})]
            if what == "cancel" and claimed:
                notices.cancel(claimed[0], SYSTEM)
                self.cancelled[claimed[0]] = len(self.fcm.log)
            elif what == "other":
                outbox.sweep(self.now, self.near)
                there = len(self.fcm.log)
                assert not outbox.fan_out(self.near, lambda: self.now, lambda _: None)
                assert len(self.fcm.log) == there
            elif what == "evening":
                self.now += (START.replace(hour=13, minute=31) - self.now) % timedelta(days=1)
            elif what == "minutes":
                self.now += timedelta(minutes=minutes)

        try:
            outbox.fan_out(self.near, clock, pause)
        except Crash:
            self.seen["crashes"] += 1
            if len(self.fcm.log) > before:
                self.allowed.update(self._pairs(len(self.fcm.log) - 1))
        while self.fcm.next_reply("*"):
            pass
        for number in range(before, len(self.fcm.log)):
            reply = script.popleft() if script else fake_fcm.OK
            if reply is fake_fcm.LOST:
                self.allowed.update(self._pairs(number))

    def _pairs(self, number: int) -> list[tuple[str, str]]:
        message = self.fcm.log[number].message
        reached = [name for name in conditions.named(message) if conditions.reaches(message, {name})]
        return [(message["data"]["notice"], name) for name in reached]

    # -- what holds after every step

    @invariant()
    def moves_along_its_arrows(self) -> None:
        for raw in Notice.rows().find({}, {"state": 1}):
            old = self.states.get(raw["_id"], raw["state"])
            assert raw["state"] in after(old), f"{old} -> {raw['state']}"
            self.states[raw["_id"]] = raw["state"]

    @invariant()
    def leaves_only_when_it_may(self) -> None:
        while self.looked < len(self.fcm.log):
            number, self.looked = self.looked, self.looked + 1
            seen, at = self.fcm.log[number], self.at[number]
            key = seen.message["data"]["notice"]
            notice, local = notices.get(key), at.astimezone(LOCAL)
            assert seen.collapse_keys == {notice.collapse_key}
            assert at < notice.expires_at
            assert self.cancelled.get(key, number + 1) > number, "sent after it was cancelled"
            if not notice.urgent:
                assert "07:00" <= f"{local:%H:%M}" < "21:30", "at night"
                assert f"{local:%m-%d}" not in {"06-07", "06-08"} or not "09:00" <= f"{local:%H:%M}" < "17:00", "in the exam"
                assert min(local.minute % 15, 15 - local.minute % 15) > 2, "in a crowded minute"
            assert at >= self.quota, "within a minute of a 429"
            self.quota = at + timedelta(seconds=60) if seen.outcome == "QUOTA_EXCEEDED" else self.quota
            self.seen[seen.outcome] += 1
            if seen.outcome != "accepted":
                continue
            self.accepted.update(self._pairs(number))
            for pair in self._pairs(number):
                assert self.accepted[pair] <= 1 + self.allowed[pair], f"{pair} was told {self.accepted[pair]} times"
            for phone, subscribed in enumerate(self.phones):
                if conditions.reaches(seen.message, subscribed):
                    others = self.called.setdefault((phone, f"{local:%m-%d}"), set())
                    assert notice.urgent or not others - {key}, "called twice on a day"
                    others.add(key)

    def teardown(self) -> None:
        """Two days on, with an FCM that takes everything, all that was scheduled has ended."""
        if not hasattr(self, "phones"):
            return
        self.seen["walks"] += 1
        if self.seen["walks"] % 25 == 0:  # the long run takes a quarter of an hour
            print(f"  {self.seen['walks']} walks, {time.monotonic() - self.begun:.0f} s", flush=True)
        end = self.now + timedelta(days=2)
        going = {"$in": ["scheduled", "due", "claimed"]}
        waits = {"scheduled": "send_at", "due": "next_try", "claimed": "lease_until"}
        while (rows := list(Notice.rows().find({"state": going}))) and self.now < end:
            soonest = min(raw[waits[raw["state"]]] for raw in rows)
            if soonest <= self.now:  # its turn has come: when nobody has the gate
                gate = outbox.Gate.rows().find_one({}) or {"lease_until": self.now}
                soonest = max(gate["lease_until"], self.now + timedelta(minutes=5))
            self.now = soonest
            self.send([], None, "nothing", 1)
            self.moves_along_its_arrows()
            self.leaves_only_when_it_may()
        for raw in Notice.rows().find({}):
            notice = Notice.of(raw)
            assert notice.state in ENDS | {"drafted", "approved"}, f"stuck: {notice.state}, {notice.reason}"
            self.seen[notice.state] += 1
            told = Counter(row.topic for row in notice.results)
            if notice.state in {"sent", "refused", "failed"}:
                assert told == Counter(notice.topics())


@pytest.mark.parametrize(("examples", "steps"), [(10, 15), pytest.param(500, 50, marks=pytest.mark.slow)])
def test_the_outbox_keeps_its_word(clean: None, settings: Settings, measured: Measured, examples: int, steps: int) -> None:
    with FakeFcm() as fcm:
        Outbox.near, Outbox.fcm = replace(settings, fcm_url=fcm.url), fcm
        Outbox.seen, Outbox.begun = Counter(), time.monotonic()
        made = [staff.create_account(name, name, "correct horse battery", SYSTEM, must_change=False) for name in ("anna", "bold")]
        Outbox.by = (made[0].id, made[1].id)
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Outbox,
            settings=given_settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
        measured(9, f"state machine, {examples} x {steps} steps: all ended as they may; {dict(Outbox.seen)}")

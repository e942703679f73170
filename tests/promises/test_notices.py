"""Promise 9: every notice ends, whatever is killed: none lost, none after its expiry, one fan-out at a time.

The workers are real processes over the real database and a local FCM (`sender`: the sweep and fan-out of the worker, without
Celery between), killed at random moments and at chosen lines. FCM's log says what left, the database what became of it.
"""

import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from content import divisions, embedded, staff, store
from content.failures import Conflict
from content.records import SYSTEM
from content.settings import Settings
from content.vocabulary import STAGES
from notifications import conditions, notices, outbox
from notifications.notices import Notice
from notifications.rehearsal import Seen
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm
from tests.promises import sender
from tests.promises.report import Measured

ROOT = Path(__file__).parents[2]
TEXTS = {
    "zh-Hans": {"title": "六月快到了", "body": "给你和家人准备了几个小办法。"},
    "en": {"title": "June", "body": "Small ideas."},
}
MORNING = datetime(2027, 6, 2, 2, 3, 10, tzinfo=UTC)  # 10:03:10 in Shanghai; nine minutes until the next crowded one
LATE = 0.5  # seconds between a process's look at its clock and the arrival of its message


class Crew:
    """Worker processes, forked by one that has loaded what they need."""

    def __init__(self) -> None:
        env = {k: v for k, v in os.environ.items() if k not in Settings.ENV}
        words = [sys.executable, "-m", "tests.promises.sender"]
        self.process = subprocess.Popen(words, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.events: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.alive: set[int] = set()
        self.wanted: dict[str, Any] | None = None
        """What is born again whenever one dies."""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            words = line.decode().split()
            if words[0] == "born":
                self.alive.add(int(words[1]))
            elif words[0] == "over":
                self.alive.discard(int(words[1]))
                if self.wanted:
                    self.bear(self.wanted)
            self.events.put(words)

    def bear(self, wanted: dict[str, Any]) -> None:
        """One more."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self.process.stdin.flush()

    def work(self, number: int, settings: Settings, lease: float, clock: Path) -> None:
        """So many work from now on, whoever is killed."""
        self.wanted = {"settings": settings.environment(), "lease": lease, "clock": str(clock), "at": None}
        for _ in range(number):
            self.bear(self.wanted)
        while len(self.alive) < number:
            time.sleep(0.005)

    def once(self, at: int, settings: Settings, clock: Path) -> list[str]:
        """One works until line `at` (0: to the end). Returns the lines that it came to, when it came to its end."""
        lease = outbox.LEASE.total_seconds()
        self.bear({"settings": settings.environment(), "lease": lease, "clock": str(clock), "at": at})
        lines: list[str] = []
        while (words := self.events.get(timeout=60))[0] != "over":
            lines = words[1:] if words[0] == "lines" else lines
        return lines

    def kill(self, *pids: int) -> None:
        """kill -9."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def rest(self) -> None:
        """Nobody works."""
        self.wanted = None
        while self.alive:
            self.kill(*list(self.alive))
            time.sleep(0.01)
        while not self.events.empty():
            self.events.get()

    def end(self) -> None:
        """Nor ever again."""
        self.rest()
        self.process.kill()
        self.process.wait()
        self.reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    """Whoever works here."""
    made = Crew()
    yield made
    made.end()


@pytest.fixture
def fcm() -> Iterator[FakeFcm]:
    """A local FCM."""
    with FakeFcm() as running:
        yield running


def people() -> tuple[str, str]:
    """Two independent colleagues."""
    made = [staff.create_account(name, name, "correct horse battery", SYSTEM, must_change=False) for name in ("anna", "bold")]
    return made[0].id, made[1].id


def planned(settings: Settings, by: tuple[str, str], now: datetime, **fields: Any) -> Notice:
    """A notice, approved and scheduled for `now`."""
    wanted = {"divisions": ["150603"], "audiences": ["parent"], "texts": TEXTS, "expires_at": now + timedelta(hours=2), **fields}
    notice = notices.draft(wanted, by[0], settings, now)
    notices.approve(notice.id, by[1], now)
    return notices.schedule(notice.id, by[0], settings, now, now)


def crowd(one: Notice, number: int, start: datetime, spread: float) -> list[dict[str, Any]]:
    """So many scheduled notices over `spread` seconds, written as the desk left `one`: half of them urgent and to students, the
    others each to a county of its own, so that none stands in another's day. Some have many topics, some expire soon."""
    dice = random.Random(9)
    counties = [c.code for a in divisions.children("") for b in divisions.children(a.code) for c in divisions.children(b.code)]
    raws = []
    for index in range(number):
        at = start + timedelta(seconds=round(dice.random() * spread, 3))
        urgent = bool(index % 2)
        raw = {**one.to_mongo().to_dict(), "_id": store.new_id(), "send_at": at, "urgent": urgent}
        raw |= {"divisions": [counties[index * 5]], "audiences": ["student" if urgent else "parent"]}
        if index % 5 == 0:
            raw["stages"] = list(STAGES)
        if index % 10 == 3:
            raw["expires_at"] = at + timedelta(seconds=round(dice.random() * 8, 3))
        raws.append(raw)
    Notice.rows().insert_many(raws)
    return raws


def topics_of(seen: Seen) -> list[str]:
    """The topics that a message was for, without those it left out."""
    return [name for name in conditions.named(seen.message) if conditions.reaches(seen.message, {name})]


@pytest.mark.parametrize(
    ("number", "kills", "crashes", "workers"), [(12, 3, 0, 2), pytest.param(500, 50, 10, 3, marks=pytest.mark.slow)]
)
def test_every_notice_ends_whatever_is_killed(
    request: pytest.FixtureRequest,
    crew: Crew,
    fcm: FakeFcm,
    tmp_path: Path,
    measured: Measured,
    number: int,
    kills: int,
    crashes: int,
    workers: int,
) -> None:
    """Small: all workers are killed at once and the clock jumps over the lease. Full: mostly the one that sends, in real time."""
    mongo = None
    if crashes:
        mongo = embedded.mongo(tmp_path / "var", ("xinqiao", "xinqiao_broker"))
        embedded.start(mongo)
        embedded.wait_ready(mongo)
        there = Settings(var=tmp_path / "var", mongodb_uri=embedded.mongo_uri(tmp_path / "var"))
        store.connect(there)
        store.ensure_indexes()
    else:
        request.getfixturevalue("clean")
        there = replace(request.getfixturevalue("settings"), var=tmp_path)
        store.connect(there)
    near = replace(there, fcm_url=fcm.url)
    lease = 3.0 if crashes else outbox.LEASE.total_seconds()
    file, ahead = tmp_path / "clock", (MORNING - datetime.now(UTC)).total_seconds()
    sender.put(file, ahead)
    now = sender.clock(file)
    spread = number * 0.15 if crashes else 0.5
    try:
        raws = crowd(planned(near, people(), now() + timedelta(hours=1)), number, now(), spread)
        Notice.rows().delete_one({"_id": {"$nin": [raw["_id"] for raw in raws]}})
        crew.work(workers, near, lease, file)
        cancelled = _chaos(crew, fcm, mongo, [r["_id"] for r in raws[6::12]], kills, crashes, number, lease, file)
        rows = _ended(raws, file, 90 if crashes else 60)
    finally:
        crew.rest()
        store.disconnect()
        if mongo:
            embedded.stop(mongo, 0)
    _judge(rows, fcm.sends(), cancelled, measured, kills=kills, crashes=crashes, lost=crashes // 2, file=file)


def _chaos(
    crew: Crew, fcm: FakeFcm, mongo: embedded.Child | None, to_cancel: list[str], kills: int, crashes: int,
    number: int, lease: float, file: Path,
) -> dict[str, int]:  # fmt: skip
    """Kill all along the work. Returns how many requests had arrived when each cancelled notice was."""
    dice, cancelled = random.Random(), dict[str, int]()
    plan = ["worker"] * kills + ["database"] * crashes
    dice.shuffle(plan)
    began = time.monotonic()
    for index, what in enumerate(plan):
        wait = time.monotonic() + 2 * min(lease, 5.0)
        while fcm.counts["accepted"] < (index + 1) * number * 2 // len(plan) and time.monotonic() < wait:
            time.sleep(0.003)
        time.sleep(dice.random() * 0.03)  # anywhere in a turn; what is judged holds wherever it falls
        if what == "database" and mongo:
            embedded.stop(mongo, 0)
            embedded.start(mongo)
            embedded.wait_ready(mongo)
            fcm.script("*", *[fake_fcm.LOST] * (index % 2), fake_fcm.UNAVAILABLE)
        elif not crashes:
            crew.kill(*list(crew.alive))
            sender.put(file, _ahead(file) + lease + 1)
        else:
            sending = fcm.log[-1].headers["Authorization"].removeprefix("Bearer ").split(".")[0] if fcm.log else "0"
            pids = list(crew.alive)
            crew.kill(int(sending) if int(sending) in pids and dice.random() < 0.7 else dice.choice(pids or [0]))
        with contextlib.suppress(PyMongoError):
            store.end_abandoned()  # as the API does every 10 s: what a killed worker had begun locks the others out
        if to_cancel and dice.random() < 0.8:
            key = to_cancel.pop()
            with contextlib.suppress(Conflict, PyMongoError):
                notices.cancel(key, SYSTEM)
                cancelled[key] = len(fcm.sends())
        if crashes:
            print(f"{time.monotonic() - began:5.0f} s: {index + 1}/{len(plan)} {what}, {dict(fcm.counts)}", flush=True)
    return cancelled


def _ahead(file: Path) -> float:
    return (sender.clock(file)() - datetime.now(UTC)).total_seconds()


def _ended(raws: list[dict[str, Any]], file: Path, patience: float) -> list[dict[str, Any]]:
    """The notices once all have ended, or none has moved for `patience` seconds: how busy the machine is must not decide. The
    clock runs on where nothing moves: a crowded minute holds for up to five."""
    until, before, since = time.monotonic() + patience, Counter[str](), time.monotonic()
    while True:
        rows = list(Notice.rows().find({}))
        states = Counter(row["state"] for row in rows)
        if not set(states) & {*notices.OPEN, "claimed"} or time.monotonic() > until:
            assert len(rows) == len(raws)
            return rows
        if states != before:
            before, since = states, time.monotonic()
            until = since + patience
        elif time.monotonic() - since > 4:
            sender.put(file, _ahead(file) + 60)
            since = time.monotonic()
        time.sleep(0.1)


def _judge(
    rows: list[dict[str, Any]], sends: list[Seen], cancelled: dict[str, int], measured: Measured, *,
    kills: int, crashes: int, lost: int, file: Path,
) -> None:  # fmt: skip
    ahead = _ahead(file) if crashes else None
    accepted: defaultdict[str, list[Seen]] = defaultdict(list)
    for seen in sends:
        if seen.outcome == "accepted":
            accepted[seen.message["data"]["notice"]].append(seen)
    stuck = [row["_id"] for row in rows if row["state"] in {*notices.OPEN, "claimed"}]
    keys = {row["_id"]: Notice.of(row).collapse_key for row in rows}
    never, twice, again, late = [], 0, 0, 0.0
    for row in rows:
        notice, reached = Notice.of(row), Counter[str]()
        for seen in accepted[notice.id]:
            names = topics_of(seen)
            again += any(reached[name] for name in names)
            reached.update(names)
            if ahead is not None:
                late = max(late, seen.at + ahead - notice.expires_at.timestamp())
        results = Counter(row.topic for row in notice.results)
        twice += sum(number - 1 for number in results.values())
        if notice.state == "sent" and not set(results) == set(reached) == set(notice.topics()):
            never.append(notice.id)
        assert set(results) <= set(reached)
    after = sum(seen.message["data"]["notice"] == key for key, count in cancelled.items() for seen in sends[count:])
    leases = [seen.headers["Authorization"] for seen in sends]
    turns = 1 + sum(a != b for a, b in pairwise(leases))
    mixed = turns - len(set(leases))
    ends = dict(Counter(row["state"] for row in rows))
    measured(
        9,
        f"{len(rows)} notices, {kills} x kill -9 of a worker, {crashes} x of the database: {len(stuck)} stuck, {len(never)} "
        f"never sent, {again} messages sent again, {twice} outcomes written twice, {len(set(leases))} leases in {turns} turns, "
        f"{max(late, 0.0) * 1000:.0f} ms past an expiry at most, {len(cancelled)} cancelled midway ({after} messages "
        f"after); {ends}",
    )
    assert not stuck and not never and not twice
    assert again <= kills + crashes + lost
    assert mixed == 0
    assert late < LATE
    assert after <= 1
    assert all(seen.collapse_keys == {keys[seen.message["data"]["notice"]]} for seen in sends)
    assert set(ends) <= {"sent", "expired", "cancelled"}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])
def test_a_worker_killed_at_any_line_loses_nothing(
    clean: None, settings: Settings, crew: Crew, fcm: FakeFcm, tmp_path: Path, measured: Measured, every: bool
) -> None:
    """A process that sweeps and sends is killed at a line; an hour later another goes on where it was."""
    near, by = replace(settings, fcm_url=fcm.url, var=tmp_path), people()
    store.connect(near)
    file = tmp_path / "clock"
    sender.put(file, (MORNING - datetime.now(UTC)).total_seconds())
    now = sender.clock(file)
    again = 0

    def begin() -> Notice:
        for name in ("notices", "push_gate", "told"):
            store.database()[name].delete_many({})
        fcm.clear()
        return planned(near, by, now(), divisions=["150603", "500114"])

    begin()
    lines = crew.once(0, near, file)
    assert {row["state"] for row in Notice.rows().find({})} == {"sent"}
    first, last = {line: n for n, line in reversed([*enumerate(lines, 1)])}, {line: n for n, line in enumerate(lines, 1)}
    numbers = sorted({*first.values(), *last.values()})
    posts = [n for n in numbers if lines[n - 1].startswith(("_push", "carry", "note", "settle", "put"))]
    chosen = numbers if every else sorted(random.Random(3).sample(posts, 4))
    for number in chosen:
        notice = begin()
        assert crew.once(number, near, file) == []  # it died there
        store.end_abandoned()
        later = now() + 2 * outbox.LEASE
        outbox.sweep(later, near)
        outbox.fan_out(near, lambda later=later: later, lambda _: None)  # type: ignore[misc]
        there, sends = notices.get(notice.id), fcm.sends()
        reached = Counter(name for seen in sends for name in topics_of(seen))
        where = f"line {number}, {lines[number - 1]}"
        assert there.state == "sent", f"{where}: {there.state}"
        assert Counter(row.topic for row in there.results) == Counter(there.topics()), where
        assert set(reached) == set(there.topics()), where
        repeated = sum(any(reached[n] > 1 for n in topics_of(seen)) for seen in sends) // 2
        assert repeated <= 1, where
        assert all(seen.collapse_keys == {there.collapse_key} for seen in sends), where
        again += repeated
    measured(9, f"killed {len(chosen)} times, first and last passes of {len(first)} lines: 0 lost, {again} messages sent again")

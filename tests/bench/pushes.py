"""`make bench`: pushes to bookings as a ratio to a bare HTTP client that makes the same posts to the same fake FCM.

The bare client is one `requests.Session` (what the SDK posts with), the bodies encoded beforehand, with as many threads as the
sweep has senders. Ours is the whole way: sessions change, sweeps find it in the database, read places, bookings and sealed
addresses, post, and write down what came of it. Both in a process of their own, in turn, in several parts; the median of the
ratios counts. Also that every target was pushed exactly once, and that memory does not grow with their number.

    python -m tests.bench.pushes [--targets 100000] [--parts 5] [--session 250]
"""

import argparse
import hashlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import requests
from pymongo.client_session import ClientSession

from content import embedded, published, sealed, store
from content.bookings import Booking, Place
from content.courses import CourseSession
from content.published import ANY, Item
from content.settings import Settings
from notifications import bookings as pushes
from notifications import fcm, quiet
from tests.doubles.fake_fcm import FakeFcm, Seen

TARGET = 0.8
SLOPE = 4.0  # MB per 100,000 targets
STEP = 10_000


def connect(settings: Settings) -> None:
    """As a worker does."""
    store.connect(settings)
    sealed.configure(settings)


def fill(count: int, size: int) -> list[str]:
    """So many bookings with a sealed address each, in sessions of `size`; returns the sessions, four days ahead, where it is
    daytime now."""
    now = store.now()
    zone = f"Etc/GMT{now.hour - 12:+d}"
    ago, start, end = now - timedelta(days=3), now + timedelta(days=4), now + timedelta(days=60)
    keys = []
    for first in range(0, count, size):
        key = f"{first:032x}"
        keys.append(key)
        many = range(first, min(first + size, count))
        CourseSession(
            id=key, series="bench", organisation="bench", division="150603", starts_at=start, ends_at=start + timedelta(hours=2),
            zone=zone, place="school", capacity=size, seats_taken=len(many), arrivals=len(many), booking_closes_at=start,
            state="published", created_at=ago, created_by="bench", updated_at=ago,
        ).save()  # fmt: skip
        names = {n: hashlib.sha256(str(n).encode()).hexdigest() for n in many}
        common = {"session": key, "seats": 1, "expires_at": end}
        bookings = [
            {
                **common, "_id": names[n], "series": "bench", "feed": names[n][::-1], "created_at": ago, "seen_at": ago,
                "push_at": end, "push": sealed.seal(json.dumps({"kind": "fid", "value": target(n)})),
            }
            for n in many
        ]  # fmt: skip
        held = {**common, "state": "confirmed", "history": [{"state": "confirmed", "at": ago}], "told": 0}
        places = [{**held, "_id": f"{n:032x}", "booking": names[n], "number": n - first + 1} for n in many]
        Booking.rows().insert_many(bookings, ordered=False)
        Place.rows().insert_many(places, ordered=False)
    return keys


def target(number: int) -> str:
    """An installation id, of its usual length."""
    return f"{number:022d}"


def change(keys: list[str]) -> None:
    """Something happens to these sessions."""
    for key in keys:
        event = {"n": 1, "kind": "changed", "at": store.now(), "before": {}}
        CourseSession.rows().update_one({"_id": key}, {"$set": {"events": [event]}})
        item = Item("session", key, ANY, {"bench": key})
        store.transaction(partial(_release, item))


def _release(item: Item, tx: ClientSession) -> None:
    published.release(tx, [item])


class Counting(FakeFcm):
    """Keeps how often which collapse key came, instead of every request."""

    def __init__(self) -> None:
        super().__init__()
        self.log = deque(maxlen=100)
        self.keys: Counter[str] = Counter()

    def note(self, seen: Seen) -> None:
        """Count it."""
        super().note(seen)
        with self._lock:
            self.keys.update([seen.body["message"]["android"]["collapse_key"]])


def fake(pipe: Connection) -> None:
    """The fake FCM's process: its address, then the number of posts by kind whenever it is asked."""
    embedded.die_with_parent()
    with Counting() as running:
        pipe.send(running.url)
        while pipe.recv():
            ours = {key: n for key, n in running.keys.items() if not key.startswith("bare")}
            pipe.send((running.keys.total() - sum(ours.values()), sum(ours.values()), len(ours)))


def bare(pipe: Connection, settings: Settings) -> None:
    """The peer's process: (seconds, p99 in ms, ms of CPU) of posting to the targets it is given."""
    embedded.die_with_parent()
    session = requests.Session()
    session.trust_env = False  # ours does not look for proxies before each post either
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=pushes.SENDERS))
    url = f"{settings.fcm_url}/v1/projects/local/messages:send"
    headers = {**fcm._way(settings).request.headers, "Authorization": "Bearer local"}
    del headers["Content-Length"]
    while given := pipe.recv():
        words = quiet.words(settings.language)
        todo = [
            fcm.body(fcm.Message(f"bare{n:028d}", target(n), *words, 172800, "fid", {"kind": "booking"})) for n in range(*given)
        ]
        took: list[float] = []

        def work(todo: list[bytes] = todo, took: list[float] = took) -> None:
            while True:
                try:
                    data = todo.pop()
                except IndexError:
                    return
                began = time.perf_counter()
                session.post(url, data=data, headers=headers, timeout=4).raise_for_status()
                took.append(time.perf_counter() - began)

        threads = [threading.Thread(target=work) for _ in range(pushes.SENDERS)]
        began, used = time.perf_counter(), time.process_time()
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        pipe.send((time.perf_counter() - began, late(took), (time.process_time() - used) * 1000))


def late(took: list[float]) -> float:
    """The 99th percentile in ms."""
    return sorted(took)[len(took) * 99 // 100] * 1000 if took else 0.0


def ours(pipe: Connection, settings: Settings) -> None:
    """Our process: (seconds, p99 in ms, ms of CPU, counts, [(posts, MB)]) of sweeping until so many more were pushed."""
    embedded.die_with_parent()
    connect(settings)
    took: list[float] = []
    memory: list[tuple[int, float]] = []
    posts, me, kept = 0, psutil.Process(), fcm._post

    def timed(data: bytes, settings: Settings) -> Any:
        nonlocal posts
        began = time.perf_counter()
        try:
            return kept(data, settings)
        finally:
            took.append(time.perf_counter() - began)
            posts += 1
            if posts % STEP == 0:
                memory.append((posts, me.memory_info().rss / 1e6))

    fcm._post = timed
    pushes.sweep(settings)
    pipe.send(None)
    while (wanted := pipe.recv()) is not None:
        took.clear()
        counts: Counter[str] = Counter()
        began, used = time.perf_counter(), time.process_time()
        while counts["pushed"] < wanted and time.perf_counter() - began < 600:
            counts += pushes.sweep(settings)
        pipe.send((time.perf_counter() - began, late(took), (time.process_time() - used) * 1000, dict(counts), memory))


def sweeping(settings: Settings) -> None:
    """A process that sweeps until it is killed."""
    embedded.die_with_parent()
    connect(settings)
    while True:
        pushes.sweep(settings)


def cpu(child: embedded.Child) -> float:
    """Seconds of CPU that it has used."""
    used = psutil.Process(child.process.pid).cpu_times() if child.process else None
    return float(used.user + used.system) if used else 0.0


def process(work: Callable[..., None], *given: Any) -> Connection:
    """Start it; the pipe to it."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=work, args=(there, *given), daemon=True).start()
    return here


def run(targets: int, parts: int, size: int) -> bool:
    """The whole bench; True when the ratio reaches TARGET, each was pushed once and memory stayed."""
    with tempfile.TemporaryDirectory(prefix="xinqiao-bench-") as folder:
        var = Path(folder)
        mongo = embedded.mongo(var, ("xinqiao",))
        embedded.start(mongo)
        embedded.wait_ready(mongo)
        counter = process(fake)
        settings = replace(
            Settings(), var=var, mongodb_uri=embedded.mongo_uri(var), data_key=embedded.credentials(var)["data_key"],
            fcm_url=counter.recv(),
        )  # fmt: skip
        connect(settings)
        try:
            store.ensure_indexes()
            began = time.perf_counter()
            keys = fill(targets, size)
            print(f"{targets} bookings of {len(keys)} sessions made in {time.perf_counter() - began:.0f} s", flush=True)
            them, us = process(bare, settings), process(ours, settings)
            us.recv()
            print("                                              CPU in ms a post of:")
            print(
                f"{'ours/s':>8} {'bare/s':>8} {'ratio':>6} {'p99 ms':>7} {'bare p99':>8} {'ours':>7} {'database':>8} {'bare':>8}"
            )
            ratios: list[float] = []
            memory: list[tuple[int, float]] = []
            counts = Counter[str]()
            for part in range(parts):
                mine = keys[part * len(keys) // parts : (part + 1) * len(keys) // parts]
                first = part * len(keys) // parts * size
                number = min(len(mine) * size, targets - first)
                change(mine)
                used = cpu(mongo)
                us.send(number) if part % 2 else them.send((first, first + number))
                one = (us if part % 2 else them).recv()
                them.send((first, first + number)) if part % 2 else us.send(number)
                other = (them if part % 2 else us).recv()
                used = (cpu(mongo) - used) * 1000  # the bare client asks it for nothing
                (seconds, slow, work, pushed, memory), (theirs, their_slow, their_work) = (
                    (one, other) if part % 2 else (other, one)
                )
                counts += Counter(pushed)
                ratios.append(theirs / seconds)
                rates = f"{number / seconds:>8.0f} {number / theirs:>8.0f} {ratios[-1]:>6.2f}"
                costs = f"{work / number:>7.2f} {used / number:>8.2f} {their_work / number:>8.2f}"
                print(f"{rates} {slow:>7.1f} {their_slow:>8.1f} {costs}", flush=True)
            counter.send(True)
            bare_posts, posts, distinct = counter.recv()
            unwritten = sum(not row["over"] or row["after"] != size for row in pushes.PushRound.rows().find({}))
            for pipe in (counter, them, us):
                pipe.send(None)
            unwritten += sum(1 for _ in Booking.rows().find({"push_try": {"$gt": {}}}, {"_id": 1}))
        finally:
            store.disconnect()
            embedded.stop(mongo, 0)
    print(f"posts: bare {bare_posts}, ours {posts} to {distinct} targets; {dict(counts)}; rounds not finished: {unwritten}")
    good: bool = posts == distinct == counts["pushed"] == targets and not unwritten
    if memory:
        print("memory, MB after posts: " + ", ".join(f"{n}: {mb:.0f}" for n, mb in memory))
    settled = [(n, mb) for n, mb in memory if n >= 2 * STEP]
    if len(settled) > 1:
        slope = (settled[-1][1] - settled[0][1]) / (settled[-1][0] - settled[0][0]) * 100_000
        good &= slope <= SLOPE
        print(f"slope from {settled[0][0]} on: {slope:.1f} MB per 100,000")
    ratio = statistics.median(ratios)
    good &= ratio >= TARGET
    print(f"median {ratio:.2f}; target {TARGET} x a bare client, each pushed once: {'reached' if good else 'NOT reached'}")
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--session", type=int, default=250)
    options = parser.parse_args()
    sys.exit(0 if run(options.targets, options.parts, options.session) else 1)

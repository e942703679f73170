"""Counting: what may be added and what not, once, by many at once, in two processes, and when one of them is killed."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from content import counting, published, rounds, sealed, store
from content.counting import Nonce, TallyRow
from content.definition import Definition, Item, Option, Scale, to_json
from content.failures import NotFound, Unavailable
from content.groups import Groups, Part
from content.menu import Contribution, Menu, place
from content.published import ANY
from content.settings import Settings
from tests.bench.contributions import body, publish
from tests.site import Clock, Site

PATH = "/v1/checks/bench/contribute"
ZONE = ZoneInfo("Asia/Shanghai")


def nonce(days: int = 0) -> str:
    """A fresh one, of today or a day near it."""
    return f"{store.now().astimezone(ZONE) + timedelta(days=days):%Y%m%d}-{secrets.token_hex(16)}"


def sums() -> dict[str, dict[str, Any]]:
    """All rows of all tallies by subject."""
    return {tally.subject: dict(tally.rows) for tally in counting.tallies("9999-W01")}


def total() -> int:
    """Persons in all tallies, of whatever week."""
    return sum(row["n"] for tally in counting.tallies("9999-W01") for row in tally.rows.values())


@pytest.fixture
def check(site: Site) -> dict[str, Any]:
    """A published check; the body of a contribution without its nonce."""
    what = body(publish())
    site.refresh()
    return what


def refused(site: Site, path: str, what: dict[str, Any], status: int, code: str, field: str = "") -> dict[str, Any]:
    reply = site.post(path, what)
    told = reply.json()
    assert (reply.status_code, told["code"]) == (status, "invalid" if field else code), reply.text
    assert "12356" in json.dumps(told["help"])
    if field:
        assert [(row["field"], row["code"]) for row in told["errors"]] == [(field, code)], told["errors"]
    return told  # type: ignore[no-any-return]


def test_a_band_is_added_once_and_says_no_more_than_that(site: Site, check: dict[str, Any]) -> None:
    one = {**check, "nonce": nonce()}
    first, again = site.post(PATH, one), site.post(PATH, one)
    assert [(r.status_code, r.json()) for r in (first, again)] == [(201, {"counted": True}), (200, {"counted": False})]
    assert not {"Set-Cookie", "ETag"} & first.headers.keys()
    other = {k: v for k, v in check.items() if k not in {"division", "stage"}}
    assert site.post(PATH, {**other, "bands": [{"scale": "total", "band": "high"}], "nonce": nonce()}).status_code == 201

    [(subject, rows)] = sums().items()
    assert subject == f"check:bench@{check['version'][:16]}"
    # its parts are over the same items as its total: they may be named, and are not counted
    assert rows["150603|junior"] == {"n": 1, "cells": {"total|low": 1}, "sums": {}}
    assert rows["000000|unknown"]["cells"] == {"total|high": 1}
    [tally] = counting.tallies("9999-W01")
    assert tally.menu.groups == ("junior", "senior", "unknown")
    assert tally.menu.scales == {"total": ("low", "middle", "high", "none")}

    [raw] = TallyRow.rows().find()
    assert set(raw) == {"_id", "subject", "week", "sealed"}
    assert b"junior" not in raw["sealed"]
    assert counting.tallies(raw["week"]) == []
    rows_of = list(Nonce.rows().find())
    midnight = (store.now().astimezone(ZONE) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert [set(row) for row in rows_of] == [{"_id", "expires_at"}] * 2
    assert {row["expires_at"] for row in rows_of} == {midnight}
    store.transaction(lambda session: counting.leave(session, tally, {}))
    assert sums() == {}


def test_what_is_not_on_the_menu_is_refused_with_help_beside(site: Site, check: dict[str, Any]) -> None:
    def bad(status: int, wrong: str, field: str = "", **more: Any) -> None:
        refused(site, PATH, {**check, "nonce": nonce(), **more}, status, wrong, field)

    bad(409, "old_version", version="0" * 64)
    bad(422, "not_one_of", "bands.made_up", bands=[{"scale": "made_up", "band": "low"}])
    for scale in ("total", "part0"):  # what is not counted is checked, too
        bad(422, "not_one_of", f"bands.{scale}", bands=[{"scale": scale, "band": "severe"}])
    bad(422, "exists", "bands", bands=[{"scale": "total", "band": "low"}] * 2)
    bad(422, "not_one_of", "stage", stage="primary")
    bad(422, "unknown_reference", "division", division="999999")
    bad(422, "not_counted", "division", division="150600")
    bad(422, "unknown_field", "core", core={"correct": 1, "answered": 1})
    bad(422, "unknown_field", "code", code="ABC")
    bad(422, "unknown_field", "answers", answers=[])
    refused(site, "/v1/checks/nothing/contribute", {**check, "nonce": nonce()}, 404, "not_found")
    site.reader.up = False
    try:
        bad(503, "unavailable")
    finally:
        site.reader.up = True
    near = replace(site.settings, division="150600")
    assert place(near, "150603") == "150603"
    assert place(near, None) == "150600"
    with pytest.raises(Exception, match="within 150600"):
        place(near, "110101")
    assert sums() == {}
    assert Nonce.rows().count_documents({}) == 0


def test_a_nonce_counts_on_the_day_it_names(site: Site, check: dict[str, Any], clock: Clock) -> None:
    kept = nonce()
    assert site.post(PATH, {**check, "nonce": kept}).status_code == 201
    late = nonce()
    for days in (-1, 1):
        refused(site, PATH, {**check, "nonce": nonce(days)}, 422, "other_day", "nonce")
    for wrong in ("x", f"{kept}0", kept.upper().replace("-", "-A"), kept.replace("-", "_"), f"{kept}\n", "٢" * 8 + kept[8:]):
        refused(site, PATH, {**check, "nonce": wrong}, 422, "bad_format", "nonce")
    now = store.now().astimezone(ZONE)
    clock((now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now).total_seconds() + 1)
    assert site.post(PATH, {**check, "nonce": nonce()}).status_code == 201
    for old in (kept, late):
        told = refused(site, PATH, {**check, "nonce": old}, 422, "other_day", "nonce")
        assert "send no other" in told["errors"][0]["messages"]["en"]
    assert total() == 2


def test_check_ins_and_returns(site: Site) -> None:
    def lesson(slug: str, check_in: dict[str, str] | None) -> published.Item:
        return published.Item("lesson", slug, "zh-Hans", {"slug": slug, "check_in": check_in, "expires_at": None})

    items = [lesson("walk", {"question": "?"}), lesson("quiet", None)]
    store.transaction(lambda session: published.release(session, items))
    site.refresh()
    day = {"answer": "partly", "division": "150603", "stage": "primary"}
    for what in ({"what": "talk_15"}, {"what": "sport_60"}, {"what": "lesson", "lesson": "walk"}):
        assert site.post("/v1/check-ins", {**day, **what, "nonce": nonce()}).status_code == 201
    for what, code in (
        ({"what": "lesson"}, "required"),
        ({"what": "talk_15", "lesson": "walk"}, "unknown_field"),
        ({"what": "lesson", "lesson": "quiet"}, "unknown_reference"),
    ):
        refused(site, "/v1/check-ins", {**day, **what, "nonce": nonce()}, 422, code, "lesson")
    for bucket in (0, 0, 7):
        assert site.post("/v1/returns", {"bucket": bucket, "nonce": nonce()}).status_code == 201
    refused(site, "/v1/returns", {"bucket": 2, "nonce": nonce()}, 422, "not_one_of", "bucket")
    found = sums()
    assert found["habit:talk_15"] == {"150603|primary": {"n": 1, "cells": {"done|partly": 1}, "sums": {}}}
    assert set(found) == {"habit:talk_15", "habit:sport_60", "lesson:walk", "return"}
    assert found["return"]["000000|all"]["cells"] == {"age|0": 2, "age|7": 1}


def test_a_quiz_is_counted_openly_or_with_a_code_of_its_round(site: Site) -> None:
    text = {"zh-Hans": "问"}
    options = (Option("a", text, 1), Option("b", text, 0))
    items = tuple(Item(f"q{n}", "choice", text, options=options) for n in range(3))
    quiz = Definition("quiz", text, items, (Scale("total", ("q0", "q1", "q2")),))
    register = {"stages": ["junior"], "purpose": "knowledge", "languages": ["zh-Hans"], "audiences": ["student"]}
    content = {"slug": "quiz", "definition": to_json(quiz), "definition_version": quiz.version, "register": register}
    store.transaction(lambda session: published.release(session, [published.Item("check", "quiz", ANY, content)]))
    site.refresh()
    path, core = "/v1/checks/quiz/contribute", {"correct": 2, "answered": 3}
    what = {"version": quiz.version, "core": core, "division": "150603", "stage": "junior"}
    assert site.post(path, {**what, "nonce": nonce()}).status_code == 201
    refused(site, path, {"version": quiz.version, "nonce": nonce()}, 422, "required", "core")
    for wrong in ({"correct": 3, "answered": 2}, {"correct": 3, "answered": 4}):
        refused(site, path, {**what, "core": wrong, "nonce": nonce()}, 422, "out_of_range", "core")
    settings, snapshot = site.settings, site.reader.current
    row, codes = rounds.make(settings, snapshot, "quiz", "150603", 30, rounds.today(settings), "editor")
    one = {**what, "code": codes[0].lower(), "nonce": nonce()}
    assert [site.post(path, one).status_code for _ in range(2)] == [201, 200]
    refused(site, path, {**one, "nonce": nonce()}, 404, "unknown_code")
    found = sums()
    assert found[f"quiz:quiz@{quiz.version[:16]}"]["150603|junior"]["sums"] == {"correct": 2}
    assert found[f"round:{row.id}"]["150603|junior"] == {"n": 1, "cells": {"core|2": 1}, "sums": {"correct": 2}}
    assert rounds.unused(settings, row) == 30 and rounds.lookup(settings, codes[0]) is None


def of(number: int) -> Contribution:
    """Made-up contributions to three subjects."""
    menu = Menu(("all",), {"x": ("0", "1")})
    return Contribution(f"habit:{number % 3}", "150603", "all", {"x": str(number % 2)}, {"sum": number}, menu)


def test_many_at_once_and_one_of_them_wrong(site: Site) -> None:
    # the first waits for the machine's turn, which the test holds: the others make one group behind it
    settings, numbers = site.settings, list(range(40))
    names = [nonce() for _ in numbers]
    outcomes: list[Any] = []
    lock = threading.Lock()

    def send(name: str, number: int, code: str | None = None) -> None:
        try:
            outcome: Any = counting.count(settings, name, of(number), code)
        except NotFound as failure:
            outcome = failure.code
        with lock:
            outcomes.append(outcome)

    with ThreadPoolExecutor(60) as pool, counting._groups._turn(settings):
        for name, number in zip(names, numbers, strict=True):
            pool.submit(send, name, number)
            if number < 10:
                pool.submit(send, name, number)
        pool.submit(send, nonce(), 1, "NOSUCHCODE")
    assert sorted(map(str, outcomes)) == ["False"] * 10 + ["True"] * 40 + ["unknown_code"]
    assert total() == 40 == Nonce.rows().count_documents({})
    assert sum(row["sums"]["sum"] for rows in sums().values() for row in rows.values()) == sum(numbers)
    assert all(len(raw["sealed"]) % counting.STEP < 200 for raw in TallyRow.rows().find())


def test_without_a_place_to_take_turns_in_it_still_counts(site: Site, tmp_path: Path) -> None:
    # a full disk, too many open files, a folder that is gone: none of it keeps anyone waiting
    lost = replace(site.settings, var=tmp_path / "gone")
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: counting.count(lost, nonce(), of(n)), range(24), timeout=10)) == [True] * 24
    assert total() == 24
    lock = site.settings.var / "counting.lock"
    assert counting.count(site.settings, nonce(), of(0))
    made = lock.stat().st_mtime_ns
    assert counting.count(site.settings, nonce(), of(0))
    assert lock.stat().st_mtime_ns == made  # the file does not tell when


def test_a_leader_who_cannot_lead_keeps_nobody_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(counting._groups, "_turn", broken)
        with pytest.raises(MemoryError):
            counting.count(site.settings, nonce(), of(0))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(counting.count, site.settings, nonce(), of(0)).result(10)
    assert total() == 1


def test_who_waits_while_the_database_is_away_does_not_begin_the_wait_anew(site: Site) -> None:
    waited, sizes = threading.Event(), list[int]()

    def settle(parts: list[Part]) -> None:
        sizes.append(len(parts))
        if len(sizes) == 1:
            assert waited.wait(10)
        for part in parts:
            part.outcome = Unavailable() if len(sizes) == 1 else True

    crowd = Groups[Part]("crowd", settle)

    def come(_: int = 0) -> str:
        try:
            return str(crowd.join(site.settings, Part()))
        except Unavailable:
            return "away"

    with ThreadPoolExecutor(6) as pool:
        told = [pool.submit(come, n) for n in range(6)]
        end = time.monotonic() + 10
        while len(crowd.waiting) < 6 - sum(sizes) or not sizes:
            assert time.monotonic() < end
            time.sleep(0.001)
        waited.set()
        assert [one.result(10) for one in told] == ["away"] * 6
    assert len(sizes) == 1
    assert come() == "True"  # who comes later asks anew


OTHER = """
import sys, json
from concurrent.futures import ThreadPoolExecutor
from content import counting, sealed, store
from content.failures import Unavailable
from content.menu import Contribution, Menu
from content.settings import Settings

def of(number):
    menu = Menu(("all",), {"x": ("0", "1")})
    return Contribution("habit:other", "150603", "all", {"x": str(number % 2)}, {"sum": number}, menu)

settings = Settings.from_env()
store.connect(settings); sealed.configure(settings)
def send(row):
    while True:  # as a phone does
        try:
            first = counting.count(settings, row[0], of(row[1]))
            sys.stdout.write(f"{row[0]} {first}\\n")  # in one piece, whatever the other threads write
            sys.stdout.flush()
            return
        except Unavailable:
            pass
print("ready", flush=True)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(send, json.loads(sys.stdin.read())))
"""


@contextmanager
def another(site: Site, rows: list[tuple[str, int]]) -> Iterator[tuple[subprocess.Popen[str], Iterator[tuple[str, str]]]]:
    """Another process that counts these, repeating as a phone does, once it is ready; and its acknowledgements."""
    env = {**os.environ, **site.settings.environment()}
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=root
    ) as made:
        assert made.stdin and made.stdout
        assert made.stdout.readline() == "ready\n"
        made.stdin.write(json.dumps(rows))
        made.stdin.close()
        yield made, ((name, first) for name, first in map(str.split, made.stdout))


def send(site: Site, rows: list[tuple[str, int]]) -> list[tuple[str, str]]:
    """The same by this process, which has no acknowledgement to lose."""

    def one(row: tuple[str, int]) -> tuple[str, str]:
        while True:
            with contextlib.suppress(Unavailable):
                return row[0], str(counting.count(site.settings, row[0], of(row[1])))

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, rows))


def test_two_processes_that_bring_the_same(site: Site) -> None:
    sealed.seal("")  # the data key is there before two processes look for it
    rows = [(nonce(), number) for number in range(90)]
    with another(site, rows[30:]) as (other, told):
        seen = [*send(site, rows[:60]), *told]
    assert other.returncode == 0
    assert Counter(first for _, first in seen) == {"True": 90, "False": 30}
    assert {name for name, first in seen if first == "True"} == {name for name, _ in rows}
    assert total() == 90
    assert sum(row["sums"]["sum"] for part in sums().values() for row in part.values()) == sum(range(90))


@pytest.mark.slow  # what the killed one had begun may hold a tally for the minute that the database gives a transaction
def test_two_processes_and_a_killed_one(site: Site) -> None:
    sealed.seal("")
    rows = [(nonce(), number) for number in range(120)]
    with another(site, rows[60:]) as (cut, told):
        acknowledged = [next(told) for _ in range(20)]
        cut.kill()
        acknowledged += told
        assert len(send(site, rows[:60])) == 60
    assert cut.returncode == -signal.SIGKILL
    counted_then = total()
    assert 60 + len(acknowledged) <= counted_then <= 120
    again = Counter(first for _, first in send(site, rows[60:]))  # the phones send all of it again
    assert again == Counter({"False": counted_then - 60, "True": 120 - counted_then})
    assert total() == 120
    assert sum(row["sums"]["sum"] for part in sums().values() for row in part.values()) == sum(range(120))


def test_a_broken_tally_is_told_to_its_own_only(site: Site) -> None:
    settings: Settings = site.settings
    assert counting.count(settings, nonce(), of(0))
    TallyRow.rows().update_one({"subject": "habit:0"}, {"$set": {"sealed": b"broken"}})
    outcomes: list[Any] = []

    def send(number: int) -> None:
        try:
            outcomes.append(counting.count(settings, nonce(), of(number)))
        except Exception as error:
            outcomes.append(type(error).__name__)

    with ThreadPoolExecutor(9) as pool, counting._groups._turn(settings):
        for number in range(9):
            pool.submit(send, number)
    assert sorted(map(str, outcomes)) == ["SettingsError"] * 3 + ["True"] * 6

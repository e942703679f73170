"""Releasing: what leaves, when, once; and who may read it."""

import ast
import inspect
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from content import counting, menu, sealed, statistics, store
from content.counting import TallyRow
from content.definition import Band, Clause, Definition, EnableWhen, Item, Norm, Scale
from content.failures import Unavailable
from content.menu import AGES, ALL, Contribution, Menu
from content.settings import Settings, SettingsError
from content.statistics import Group, Release, ScaleRow, Share, protect
from tests.promises.report import Measured
from tests.site import Clock, Site

NOW = datetime(2026, 11, 25, 4, tzinfo=UTC)  # a Wednesday of W48
MENU = Menu(("primary", "junior", "senior"), {"total": ("low", "high", "none")})
QUIZ = Menu(("junior", "senior"), {"core": tuple(map(str, range(11)))})


def row(cells: Mapping[str, int], **sums: int) -> dict[str, Any]:
    """A group of a tally."""
    return {"n": sum(cells.values()), "cells": {f"total|{name}": n for name, n in cells.items()}, "sums": sums}


def tally(subject: str, week: str, rows: Mapping[str, Any], menu: Menu = MENU) -> None:
    """Lay a week's tally, as `counting` would."""
    value = {"menu": {"groups": menu.groups, "scales": menu.scales}, "rows": rows}
    TallyRow.rows().insert_one({"_id": store.new_id(), "subject": subject, "week": week, "sealed": counting._seal(value)})


@pytest.fixture
def counted(clean: None, settings: Settings) -> Settings:
    """An empty store and its key."""
    sealed.configure(settings)
    return settings


# --- one table -------------------------------------------------------------------------------------------------------


def test_small_groups_and_columns_are_told_together_with_their_neighbours() -> None:
    rows = {"primary": row({"low": 20, "high": 12}), "junior": row({"low": 3, "none": 1}), "senior": row({"low": 15, "high": 11})}
    table = protect(MENU, rows)
    assert table.groups == (Group(("primary",), 32), Group(("junior", "senior"), 30))
    (scale,) = table.scales
    assert scale.columns == (("none", "low"), ("high",))
    assert scale.rows == (ScaleRow(("primary",), (20, 12)), ScaleRow(("junior", "senior"), (19, 11)))


def test_a_small_cell_joins_the_rows() -> None:
    rows = {"primary": row({"low": 41, "high": 9}), "senior": row({"low": 30, "high": 30})}
    (scale,) = protect(MENU, rows).scales
    assert scale.rows == (ScaleRow(("primary", "junior", "senior"), (71, 39)),)
    # one group of nothing but one band says no more than that there are thirty
    (scale,) = protect(MENU, {"junior": row({"high": 30})}).scales
    assert (scale.columns, scale.rows) == ((("none", "low", "high"),), (ScaleRow(("primary", "junior", "senior"), (30,)),))


def test_a_scale_that_is_not_of_all_persons_is_left_out() -> None:
    broken = {"junior": {"n": 40, "cells": {"total|low": 39}, "sums": {}}}
    assert not protect(MENU, broken).scales


def test_of_a_quiz_the_share_of_right_answers_and_no_columns() -> None:
    def person(n: int, right: int) -> dict[str, Any]:
        return {"n": n, "cells": {f"core|{right // n}": n}, "sums": {"correct": right, "answered": n * 10}}

    table = protect(QUIZ, {"junior": person(40, 240), "senior": person(60, 200)}, quiz=True)
    assert not table.scales
    assert table.shares == (Share(("junior",), 40, 60, 65), Share(("senior",), 60, 30, 35))
    # nearly all right: fewer wrong answers than ten persons could give
    table = protect(QUIZ, {"junior": person(40, 399), "senior": person(60, 300)}, quiz=True)
    assert table.shares == (Share(("junior", "senior"), 100, 70, 70),)
    assert protect(QUIZ, {"junior": person(40, 399)}, quiz=True).shares == (Share(("junior", "senior"), 40, 75, 100),)
    assert protect(QUIZ, {"junior": person(40, 1)}, quiz=True).shares == (Share(("junior", "senior"), 40, 0, 25),)


def test_who_answers_all_of_a_round_but_one_learns_one_step_of_the_last() -> None:
    for n in (30, 31, 47, 99, 100, 101):
        for others in range((n - 1) * 10 + 1):
            rows = [{"junior": {"n": n, "cells": {}, "sums": {"correct": others + last}}} for last in range(11)]
            told = {protect(QUIZ, row, quiz=True).shares for row in rows}
            assert len(told) <= 2, (n, others, told)
            for (share,) in told:
                assert share.most - share.least >= 5 or n >= 100


def test_scales_that_share_what_decides_them_are_not_told_side_by_side() -> None:
    text = {"zh-Hans": "问"}
    bands = (Band("low", 0, 0, text, {}), Band("high", 1, 1, text, {}))
    asked = EnableWhen(False, (Clause("q0", "=", True),))

    def told(scales: Sequence[Scale], **more: dict[str, Any]) -> list[str]:
        items = tuple(Item(f"q{n}", "boolean", text, **more.get(f"q{n}", {})) for n in range(4))
        return list(menu.told(Definition("made", text, items, tuple(scales))))

    one, two, three = (Scale(f"s{n}", (f"q{n}",), bands=bands) for n in range(3))
    over, unbanded = Scale("total", ("s0", "s1"), bands=bands), Scale("total", ("s0", "s1"))
    assert told([one, two, three]) == ["s0", "s1", "s2"]
    assert told([one, two, three, over]) == ["total", "s2"], "the total first, wherever it stands"
    assert told([one, two, unbanded]) == ["s0", "s1"], "the way to have the subscales"
    assert told([two, one, Scale("s9", ("q3", "q1"), bands=bands)]) == ["s1", "s0"]
    # asked only after the same answer, or only at some ages; read by norms
    assert told([one, two, three], q1={"enable_when": asked}) == ["s0", "s2"]
    assert told([two, three], q1={"enable_when": asked}, q2={"enable_when": asked}) == ["s1"]
    assert told([one, two, three], q1={"ages": (0, 60)}, q2={"ages": (61, 90)}) == ["s0", "s1"]
    norms = (Norm(0, 90, None, 1, 1, {"low": (0, 0)}),)
    assert told([replace(one, norms=norms), replace(two, norms=norms), three]) == ["s0", "s2"]


# --- releasing -------------------------------------------------------------------------------------------------------


def test_a_week_is_released_once_it_has_ended_and_thirty_are_there(counted: Settings) -> None:
    tally("check:a@1", "2026-W45", {"150603|junior": row({"low": 29}), "150602|junior": row({"low": 30})})
    tally("check:a@1", "2026-W47", {"150603|junior": row({"low": 1}), "150602|junior": row({"low": 29})})
    tally("check:a@1", "2026-W48", {"150603|junior": row({"low": 50})})
    assert statistics.release(counted, NOW) == [("check:a@1", "150602", 1), ("check:a@1", "150603", 1)]
    assert statistics.release(counted, NOW) == []
    other, one = sorted(statistics.tables(), key=lambda found: found.division)
    assert (one.division, one.n, one.from_week, one.to_week, one.made_week) == ("150603", 30, "2026-W45", "2026-W47", "2026-W48")
    assert (other.division, other.n) == ("150602", 59)  # a week of 30 and one of 29 that was there as well
    left = {one.week: one.rows for one in counting.tallies("9999")}
    assert list(left) == ["2026-W48"], "what was released is gone, and so is an empty tally"
    # Sunday 24:00 in the district's zone, not in UTC
    assert statistics.release(counted, datetime(2026, 11, 29, 15, 59, tzinfo=UTC)) == []
    assert statistics.release(counted, datetime(2026, 11, 29, 16, 1, tzinfo=UTC)) == [("check:a@1", "150603", 2)]


def test_what_is_left_keeps_waiting_and_is_thrown_away_after_half_a_year(counted: Settings) -> None:
    tally("return", "2026-W20", {"150603|all": row({"low": 29})})
    tally("habit:talk_15", "2026-W46", {"150603|junior": row({"low": 10}), "150602|junior": row({"low": 31})})
    assert statistics.release(counted, NOW) == [("habit:talk_15", "150602", 1)]
    assert [(one.subject, list(one.rows)) for one in counting.tallies("9999")] == [("habit:talk_15", ["150603|junior"])]
    assert not statistics.release(counted, NOW + timedelta(weeks=26))
    assert not counting.tallies("9999")


def test_workers_beside_each_other_release_each_once(counted: Settings) -> None:
    for number in range(6):
        tally(f"lesson:l{number}", "2026-W46", {f"15060{place}|junior": row({"low": 31 + number}) for place in (2, 3)})
    found: list[tuple[str, str, int]] = []
    threads = [threading.Thread(target=lambda: found.extend(statistics.release(counted, NOW))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    while again := statistics.release(counted, NOW):
        found += again
    assert Counter(found) == {(f"lesson:l{number}", f"15060{place}", 1): 1 for number in range(6) for place in (2, 3)}
    assert sorted(one.n for one in statistics.tables()) == sorted(31 + number for number in range(6) for _ in (2, 3))
    assert not counting.tallies("9999")


def test_a_subject_that_fails_keeps_no_other_waiting(counted: Settings) -> None:
    for name in ("a", "b", "c"):
        tally(f"lesson:{name}", "2026-W46", {"150603|junior": row({"low": 31})})
    whole = TallyRow.rows().find_one({"subject": "lesson:a"})
    TallyRow.rows().update_one({"subject": "lesson:a"}, {"$set": {"sealed": b"broken"}})
    with pytest.raises(SettingsError):
        statistics.release(counted, NOW)
    assert sorted(one.subject for one in statistics.tables()) == ["lesson:b", "lesson:c"]
    TallyRow.rows().replace_one({"subject": "lesson:a"}, whole)
    assert statistics.release(counted, NOW) == [("lesson:a", "150603", 1)]


RELEASE = """
import sys
from datetime import datetime
from content import sealed, statistics, store
from content.settings import Settings
settings = Settings.from_env()
store.connect(settings); sealed.configure(settings)
print("ready", flush=True)
statistics.release(settings, datetime.fromisoformat(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_between_any_two_steps_nothing_is_lost_nor_told_twice(counted: Settings, measured: Measured) -> None:
    subjects, kills, rng = 60, 10, random.Random(16)
    for number in range(subjects):
        rows = {f"{place}|junior": row({"low": 31 + number, "high": 15}) for place in ("150602", "150603")}
        tally(f"lesson:l{number}", "2026-W46", {**rows, "150621|junior": row({"low": 7})})
    env = {k: v for k, v in os.environ.items() if k not in Settings.ENV} | counted.environment()
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", RELEASE, NOW.isoformat()], env=env, stdout=subprocess.PIPE, text=True)
        assert child.stdout and child.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 2)
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        child.stdout.close()
    between = Release.rows().count_documents({})
    until = time.monotonic() + 150
    while time.monotonic() < until:  # what a killed one wrote stays locked for the server's minute
        try:
            if not statistics.release(counted, NOW):
                break
        except Exception as error:
            if not isinstance(store.failure_of(error), Unavailable):
                raise
            time.sleep(1)
    found = Counter((one.subject, one.division, one.number, one.n) for one in statistics.tables())
    measured(
        16, f"{kills} kill -9 of a release ({between} of {2 * subjects} tables were out): {len(found)} out, {found.total()} told"
    )
    assert found == {(f"lesson:l{n}", place, 1, 46 + n): 1 for n in range(subjects) for place in ("150602", "150603")}
    assert [list(one.rows) for one in counting.tallies("9999")] == [["150621|junior"]] * subjects


def test_nothing_changes_a_released_table() -> None:
    tree = ast.parse(inspect.getsource(statistics))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    on_releases = {call.attr for call in calls if ast.unparse(call.value) == "Release.rows()"}
    assert on_releases == {"find", "find_one", "insert_one"}
    root = Path(statistics.__file__).parent.parent
    named = [
        path.relative_to(root).as_posix()
        for room in ("api", "content", "notifications")
        for path in (root / room).glob("*.py")
        if "import Release" in path.read_text() or "statistics.Release" in path.read_text() or '["releases"]' in path.read_text()
    ]
    assert named == ["api/statistics.py"], "and that one only reads"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_from_phones_to_the_plan_office(site: Site, clock: Clock, settings: Settings) -> None:
    menu = Menu((ALL,), {"age": tuple(map(str, AGES))})
    today = f"{store.now().astimezone(UTC) + timedelta(hours=8):%Y%m%d}"
    for number in range(40):
        part = Contribution("return", "150603", ALL, {"age": "0" if number < 25 else "7"}, {}, menu)
        assert counting.count(settings, f"{today}-{number:032x}", part)
    site.person("plan", "plan_office", division="150603")
    site.person("far", "commission", division="150602")
    site.person("editor", "editor")
    empty = site.get("/v1/staff/statistics", by="plan").json()
    assert (empty["items"], empty["next_cursor"]) == ([], None)
    assert "30 people" in empty["note"]["en"] and "30 人" in empty["note"]["zh-Hans"], "not broken: too early"
    assert statistics.release(settings, store.now()) == []
    clock(8 * 86400)
    site.tokens.clear()
    for name in ("plan", "far", "editor"):
        reply = site.post("/v1/staff/session", {"name": name, "password": "correct horse battery"})
        site.tokens[name] = reply.json()["access_token"]
    assert statistics.release(settings, store.now()) == [("return", "150603", 1)]
    told = site.get("/v1/staff/statistics?subject=return&division=150603", by="plan").json()
    (found,) = told["items"]
    assert told["note"] == empty["note"]
    assert (found["n"], found["number"], found["groups"]) == (40, 1, [{"groups": ["all"], "n": 40}])
    assert found["scales"][0]["columns"] == [["0"], ["1", "7", "30", "90"]]
    assert found["scales"][0]["rows"] == [{"groups": ["all"], "counts": [25, 15]}]
    assert found["returned"] == [{"bucket": "0", "percent": 100}]
    assert site.get("/v1/staff/statistics", by="far").json()["items"] == []
    assert site.get("/v1/staff/statistics", by="editor").status_code == 403
    assert site.get("/v1/staff/statistics").status_code == 401


def test_pages_go_on_where_they_ended(site: Site, settings: Settings) -> None:
    for week in (44, 45, 46):
        tally(f"habit:{week}", f"2026-W{week}", {f"15060{place}|junior": row({"low": 30}) for place in (2, 3)})
    statistics.release(settings, NOW)
    site.person("plan", "plan_office")
    seen, cursor = [], ""
    while True:
        page = site.get(f"/v1/staff/statistics?limit=4{cursor}", by="plan").json()
        seen += [(one["to_week"], one["division"]) for one in page["items"]]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(set(seen)) == sorted(seen)
    assert [week for week, _ in seen] == ["2026-W46", "2026-W46", "2026-W45", "2026-W45", "2026-W44", "2026-W44"]

"""Sampled rounds: one-time codes, who may make them, what they open, and the table they end in."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from content import checkfiles, checks, menu, rounds, statistics, store
from content.records import Audit
from content.rounds import Codes, RoundRow
from tests.site import PASSWORD, Clock, Site

LIBRARY = Path(checks.__file__).parent / "library"
QUIZ = "quiz-core-knowledge-students"


@pytest.fixture
def quiz(site: Site, tmp_path: Path) -> Site:
    """A site with one published quiz and one published check that is none."""
    (tmp_path / "checks").mkdir()
    for name in (QUIZ, "friendship"):
        for kind in ("json", "yaml"):
            (tmp_path / "checks" / f"{name}.{kind}").write_bytes((LIBRARY / "checks" / f"{name}.{kind}").read_bytes())
    checkfiles.load_library(tmp_path, site.settings)
    site.refresh()
    return site


def day(site: Site, later: int = 0) -> str:
    """Today in the district, or so many days later."""
    return (store.now().astimezone(ZoneInfo(site.settings.zone)).date() + timedelta(days=later)).isoformat()


def made(site: Site, by: str, **more: Any) -> Any:
    body = {"slug": QUIZ, "division": "150603", "size": 31, "closes_on": day(site, 3), **more}
    return site.post("/v1/staff/rounds", body, by=by)


def contribute(site: Site, number: int, **more: Any) -> Any:
    version = site.get(f"/v1/checks/{QUIZ}").json()["version"]
    nonce = f"{day(site).replace('-', '')}-{number:032x}"
    return site.post(
        f"/v1/checks/{QUIZ}/contribute",
        {"nonce": nonce, "version": version, "stage": "junior", "core": {"correct": 3, "answered": 7}} | more,
    )


def test_from_the_codes_to_the_share_of_right_answers(quiz: Site, clock: Clock) -> None:
    reviewer = quiz.person("reviewer", "reviewer")
    reply = made(quiz, reviewer)
    assert reply.status_code == 201, reply.text
    found = reply.json()
    codes = found.pop("codes")
    assert len(set(codes)) == 31 and all(len(code) == rounds.LENGTH and set(code) <= set(rounds.ALPHABET) for code in codes)
    assert len(rounds.ALPHABET) ** rounds.LENGTH >= 2**50
    assert quiz.get(reply.headers["Location"], by=reviewer).json() == found
    assert (found["unused"], found["division"], found["groups"]) == (
        31,
        "150603",
        ["primary", "junior", "senior", "vocational", "unknown"],
    )
    assert quiz.get("/v1/staff/rounds", by=reviewer).json() == {"items": [found], "next_cursor": None}

    # nowhere in the store stands a code, in the trail neither
    kept = repr([list(store.database()[name].find()) for name in store.database().list_collection_names()])
    assert not [code for code in codes if code in kept]
    assert Audit.rows().count_documents({"kind": "round", "key": found["id"], "action": "round.create"}) == 1

    spelt = f" {codes[0][:5].lower()}-{codes[0][5:].replace('0', 'O').replace('1', 'l')}"
    assert contribute(quiz, 0, code=spelt).status_code == 201
    again = contribute(quiz, 99, code=codes[0])
    assert (again.status_code, again.json()["code"]) == (404, "unknown_code")
    assert contribute(quiz, 98, code="0000000000").status_code == 404
    for number, code in enumerate(codes[1:-1], 1):
        assert contribute(quiz, number, code=code, division="150602").status_code == 201
    assert quiz.get(reply.headers["Location"], by=reviewer).json()["unused"] == 1, "told in tens"
    assert statistics.release(quiz.settings, store.now()) == [], "still open"

    clock(4 * 86400)
    assert rounds.lookup(quiz.settings, codes[-1]) is None
    assert statistics.release(quiz.settings, store.now()) == [(found["subject"], "150603", 1)]
    quiz.person("plan", "plan_office")
    (table,) = quiz.get("/v1/staff/statistics", by="plan").json()["items"]
    assert (table["subject"], table["n"], table["scales"]) == (found["subject"], 30, [])
    _, definition = checks.published_check(quiz.reader.current, QUIZ)
    core = len(menu.of_quiz(quiz.settings, definition, [], 0, 0, None, None).menu.scales[menu.CORE]) - 1
    assert [(row["n"], row["least"], row["most"]) for row in table["shares"]] == [
        (30, 300 // core // 5 * 5, 300 // core // 5 * 5 + 5)
    ]
    token = quiz.post("/v1/staff/session", {"name": reviewer, "password": PASSWORD}).json()["access_token"]
    quiz.tokens[reviewer] = token
    assert quiz.get(reply.headers["Location"], by=reviewer).json()["unused"] is None


def test_who_may_make_a_round_and_of_what(quiz: Site) -> None:
    reviewer, editor = quiz.person("reviewer", "reviewer"), quiz.person("editor", "editor")
    far = quiz.person("far", "reviewer", division="150602")
    assert made(quiz, editor).status_code == 403
    assert made(quiz, far).status_code in {403, 404}
    assert quiz.post("/v1/staff/rounds", {}).status_code == 401
    for wrong, field in (
        ({"slug": "friendship"}, "slug"),
        ({"division": "999999"}, "division"),
        ({"size": 29}, "size"),
        ({"size": 5001}, "size"),
        ({"closes_on": day(quiz, -1)}, "closes_on"),
        ({"closes_on": day(quiz, 85)}, "closes_on"),
        ({"stages": ["infants"]}, "stages"),
        ({"more": 1}, "more"),
    ):
        reply = made(quiz, reviewer, **wrong)
        assert reply.status_code == 422, reply.text
        assert reply.json()["errors"][0]["field"].startswith(field), reply.text
    assert made(quiz, reviewer, slug="friendship").json()["errors"][0]["code"] == "not_a_quiz"
    assert made(quiz, reviewer, slug="nothing").status_code == 404
    assert not Codes.rows().count_documents({}) and not RoundRow.rows().count_documents({})
    there = made(quiz, reviewer, stages=["junior"], size=30).json()
    assert there["groups"] == ["junior", "unknown"]
    assert quiz.get("/v1/staff/rounds", by=far).json()["items"] == []
    assert quiz.get(f"/v1/staff/rounds/{there['id']}", by=far).status_code == 404
    assert quiz.get(f"/v1/staff/rounds/{there['id']}", by=editor).json()["unused"] == 30

"""Help beside everything: whatever is wrong with what a child sends, the card is there, and what calls for help is heard."""

import json
from pathlib import Path
from typing import Any

import pytest

from content import checkfiles
from tests.site import Site
from tests.site import library as some_of

PATH = "/v1/checks/exam-stress/score"
NOW = {"item": "heavy", "code": "right_now"}
CALM = {"item": "heavy", "code": "not_now"}
ANSWER = {"linkId": "heavy", "answer": [{"valueCoding": {"code": "right_now"}}]}


@pytest.fixture
def stress(site: Site, tmp_path: Path) -> Site:
    """A site with one self-check."""
    checkfiles.load_library(some_of(tmp_path, "checks/exam-stress.json", "checks/exam-stress.yaml"), site.settings)
    site.refresh()
    return site


def response(*items: Any, **more: Any) -> dict[str, Any]:
    return {"resourceType": "QuestionnaireResponse", "status": "completed", "item": list(items), **more}


WRONG = [
    ("score", {"answers": [NOW], "division": "abc"}),
    ("score", {"answers": [NOW], "age_months": -1}),
    ("score", {"answers": [NOW], "seconds": 1.5}),
    ("score", {"answers": [NOW], "nobody": 1}),
    ("score", {"answers": [NOW], "version": "0" * 64}),
    ("score", {"answers": [NOW, None]}),
    ("score", {"answers": [NOW, {"item": "sleep", "code": {"$ne": 1}}]}),
    ("score", {"answers": [NOW, CALM]}),
    ("score", {"answers": [CALM, {**NOW, "extra": 1}]}),
    ("score", {"answers": [NOW] * 501}),
    ("score", {"answers": NOW}),
    ("score", [{"item": "heavy", "codes": ["right_now"]}]),
    ("keep", {"answers": [NOW], "receipt": "123"}),
    ("fhir/score", response(ANSWER, {**ANSWER, "answer": [{"valueCoding": {"code": "not_now"}}]})),
    ("fhir/score", response({**ANSWER, "answer": [{"valueCoding": {"code": "not_now"}}]}, ANSWER)),
    ("fhir/score", response({"linkId": "heavy", "answer": [{"valueCoding": {"code": c}} for c in ("not_now", "right_now")]})),
    ("fhir/score", {**response(), "item": ANSWER}),
    ("fhir/score?division=abc", response(ANSWER)),
    ("fhir/score", response({"linkId": "page", "item": [ANSWER]}, status="lost")),
]


def test_an_answer_that_calls_for_help_is_heard_in_any_body(stress: Site) -> None:
    for route, body in WRONG:
        found = stress.post(f"/v1/checks/exam-stress/{route}", body, headers={"Accept-Language": "zh"})
        assert 400 <= found.status_code < 500, (route, body)
        told = found.json()
        assert told.get("critical") is True, (route, body)
        assert "电话" in told["message"]
        assert told["help"]["emergency"][0]["number"] == "110"


def test_calm_answers_raise_no_alarm(stress: Site) -> None:
    told = stress.post(PATH, {"answers": [CALM, CALM]}).json()
    assert (told["critical"], told["message"]) == (False, None)
    assert told["help"]["lines"]


ASKED = """GET /v1/checks/gone; GET /v1/checks?limit=0; DELETE /v1/checks/exam-stress/score; POST /v1/checks/exam-stress/score/;
GET /v1/checks/x/y/z; GET /v1/hotlines?kind=x; POST /v1/results; GET /v1/results; POST /v1/check-ins; GET /v1/checks/gone/fhir;
GET /v1/search?limit=0&q=%E6%88%91%E4%B8%8D%E6%83%B3%E6%B4%BB%E4%BA%86"""


def test_no_failure_stands_alone(stress: Site) -> None:
    for line in ASKED.split(";"):
        method, path = line.split()
        found = stress.call(method, path)
        assert 400 <= found.status_code < 500, line
        assert found.json()["help"]["lines"], line


def test_a_body_that_is_no_json_or_nothing_at_all(stress: Site) -> None:
    for data in (b"{", b"", b"\xff", json.dumps({"answers": [NOW]}).encode()[:-1]):
        found = stress.call("POST", PATH, data=data, headers={"Content-Type": "application/json"})
        assert found.status_code in (400, 422)
        assert found.json()["help"]["lines"]


def test_a_form_left_open_over_night_is_scored(stress: Site) -> None:
    whole = stress.get("/v1/checks/exam-stress").json()
    answers = [{"item": i["link_id"], "code": i["options"][0]["code"]} for i in whole["items"] if i["options"]]
    assert stress.post(PATH, {"version": whole["version"], "answers": answers, "seconds": 200_000}).status_code == 200


def test_help_is_in_the_readers_language_and_of_the_services_division(stress: Site) -> None:
    told = stress.post(PATH, {"answers": [NOW, NOW]}, headers={"Accept-Language": "mn-Mong, zh"}).json()
    own = stress.get("/v1/help-card", headers={"Accept-Language": "mn-Mong, zh"}).json()
    assert [line["id"] for line in told["help"]["lines"]] == [line["id"] for line in own["lines"]]
    assert told["help"]["language"] == own["language"]

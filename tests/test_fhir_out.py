"""FHIR out and in again: the same version, valid R4, totals that other systems can run; responses and their claims."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fhir.resources.R4B.questionnaire import Questionnaire
from fhir.resources.R4B.questionnaireresponse import QuestionnaireResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from content import rules, scoring
from content.checkfiles import load_library
from content.definition import Clause, Definition, EnableWhen, Item, Option, Scale
from content.failures import Conflict, Invalid
from content.fhir import read_questionnaire
from content.fhirout import canonical_url, write_questionnaire
from content.fhirresponse import read_response, write_response
from tests.site import Site

HERE = Path(__file__).parent
LIBRARY = HERE.parents[0] / "content" / "library" / "checks"
REAL = HERE.parents[1] / "shared" / "data" / "fhir"


def again(made: Definition) -> Definition:
    """Written, valid as R4, and read."""
    out = write_questionnaire(made)
    Questionnaire.model_validate(out)
    return read_questionnaire(json.dumps(out), slug=made.slug)[0]


def laid_out(file: Path) -> Definition:
    values = yaml.safe_load(file.with_suffix(".yaml").read_text())
    laid = {name: values[name] for name in rules.NAMES if name in values}
    return rules.laid(read_questionnaire(file.read_bytes(), slug=file.stem)[0], laid)


@pytest.mark.parametrize("file", sorted(LIBRARY.glob("*.json")), ids=lambda file: file.stem)
def test_the_library_goes_out_and_comes_back_the_same(file: Path) -> None:
    made = laid_out(file)
    assert again(made).version == made.version


@pytest.mark.slow  # 13 s: every total is proved anew
def test_what_real_files_give_goes_out_and_comes_back_the_same() -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real questionnaires: {REAL} is not there")
    supplied = [json.loads(file.read_text()) for file in sorted((REAL / "support").glob("*.json"))]
    count = 0
    for file in sorted(REAL.glob("*.json")):
        if file.stem in ("lf_phq9", "lf_apgar_itemweight"):  # long expressions, seconds each
            continue
        try:
            made, _ = read_questionnaire(file.read_bytes(), supplied, slug=file.stem)
        except Invalid:
            continue
        count += 1
        assert again(made).version == made.version, file.name
    assert count >= 18


ANY = st.sampled_from(["sum", "sum_if_complete", "mean"])


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """A few questions of every kind, odd names, nested scales, some counted from the other end."""
    items: list[Item] = []
    for n in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["choice", "multiple", "integer", "decimal", "boolean", "text"]))
        options = tuple(
            Option(
                code,
                {"en": code, "zh-Hans": "好"},
                draw(st.sampled_from([None, 0, 1, 2.5, 7])),
                draw(st.sampled_from(["", "urn:s"])),
            )
            for code in ("x", "y y", "it's")
        )
        when = None
        if n and items[0].kind in ("choice", "boolean") and draw(st.booleans()):
            value = "x" if items[0].kind == "choice" else True
            when = EnableWhen(draw(st.booleans()), (Clause(items[0].link_id, draw(st.sampled_from(["=", "!="])), value),))
        low, high = {"integer": (1, 5), "decimal": (0, 3), "multiple": (1, 2)}.get(kind, (None, None))
        items.append(
            Item(
                draw(st.sampled_from(["/1/", "it's ", "q\\"])) + str(n),
                kind,
                draw(st.sampled_from([{"en": "Q"}, {"zh-Hans": "题", "en": "Q"}, {"mn-Mong": "ᠮᠣᠩ"}])),
                draw(st.booleans()),
                low,
                high,
                unit="cm" if kind == "decimal" else "",
                control=draw(st.sampled_from(["", "page", "slider"])),
                ages=draw(st.sampled_from([None, (24, 36)])),
                explanation=draw(st.sampled_from([{}, {"en": "Because."}])),
                options=options if kind in ("choice", "multiple") else (),
                enable_when=when,
            )
        )
    of = tuple(item.link_id for item in items if item.countable)
    scales: tuple[Scale, ...] = ()
    if of:
        turned = tuple(i.link_id for i in items if i.link_id in of and i.kind != "multiple" and draw(st.booleans()))
        part = Scale("part", of[:1], draw(ANY), {"en": "Part"}, tuple(name for name in turned if name in of[:1]))
        whole = Scale("total", of, draw(ANY), reverse=turned)
        nested = Scale("total", ("part", *of[1:]), draw(ANY), reverse=tuple(name for name in turned if name in of[1:]))
        scales = draw(st.sampled_from([(), (whole,), (whole, part), (nested, part)]))
    return Definition("made-up", {"en": "T"}, tuple(items), scales)


@settings(max_examples=8, deadline=None)
@given(definitions())
def test_whatever_is_made_up_goes_out_and_comes_back_the_same(made: Definition) -> None:
    assert rules.faults(made) == []
    assert again(made).version == made.version


def test_questions_below_questions_and_odd_link_ids_count_too() -> None:
    options = tuple(Option(code, {"en": code}, n) for n, code in enumerate("xyz"))
    below = Item("in|n'er", "choice", {"en": "I"}, options=options)
    above = Item("out", "choice", {"en": "O"}, options=options, items=(below,))
    part = Scale("p", ("out", "in|n'er"), "sum_if_complete", {"en": "P"}, reverse=("in|n'er",))
    whole = Scale("total", ("p", "b"), "mean", reverse=("b",))
    made = Definition("n", {"en": "T"}, (above, Item("b", "boolean", {"en": "B"})), (whole, part))
    assert again(made).version == made.version


def test_what_counts_from_the_other_end_does_so_beside_an_option_without_a_score() -> None:
    options = tuple(Option(code, {"en": code}, score) for code, score in zip("abcde", (1, 2, 3, 4, None), strict=True))
    items = tuple(Item(name, "choice", {"en": "Q"}, options=options) for name in "qr")
    made = Definition("n", {"en": "T"}, items, (Scale("total", ("q", "r"), reverse=("r",)),))
    assert scoring.score(made, {"q": "e", "r": "a"}).total == 4  # 5 - 1
    assert again(made).version == made.version


def test_an_expression_that_contradicts_the_rules_is_refused() -> None:
    out = write_questionnaire(laid_out(LIBRARY / "exam-stress.json"))
    total = out["item"][-1]["extension"][0]["valueExpression"]
    total["expression"] += " * 2"
    with pytest.raises(Invalid) as caught:
        read_questionnaire(json.dumps(out))
    assert [error.code for error in caught.value.errors] == ["unsupported"]
    out["extension"][0]["valueString"] = '{"bands": 5}'
    with pytest.raises(Invalid):
        read_questionnaire(json.dumps(out))


# --- responses -------------------------------------------------------------------------------------------------------

PHQ9 = read_questionnaire((HERE / "data" / "phq9.json").read_bytes(), slug="phq9")[0]
WRONG = json.loads((HERE / "data" / "phq9_response.json").read_text())


def test_a_wrong_total_is_a_claim_and_never_the_score() -> None:
    found = read_response(PHQ9, WRONG)
    result = scoring.score(PHQ9, found.answers)
    assert (found.claims, result.total, len(found.answers)) == ({"total": 13}, 10, 9)
    out = write_response(PHQ9, found.answers, result)
    QuestionnaireResponse.model_validate(out)
    assert read_response(PHQ9, out) == (found.answers, {"total": 10})


@pytest.mark.parametrize(
    ("item", "field", "code"),
    [
        ({"linkId": "H1/T1/Q99"}, "item[0].linkId", "unknown_reference"),
        ({"linkId": "H1/T1/Q1", "answer": [{"valueCoding": {"code": "secret"}}]},
         "item[0].answer[0].valueCoding.code", "not_one_of"),
        ({"linkId": "H1/T1/Q1", "answer": [{"valueBoolean": True}]}, "item[0].answer[0].valueBoolean", "wrong_type"),
        ({"linkId": "H1/T1/Q1", "answer": [{}]}, "item[0].answer[0].value[x]", "required"),
        ({"linkId": "H1/TS", "answer": [{"valueString": "13"}]}, "item[0].answer[0].valueString", "wrong_type"),
        ({"linkId": "H1/T1", "answer": [{"valueString": "x"}]}, "item[0].answer", "not_asked"),
        ({"linkId": "H1/T1", "modifierExtension": []}, "item[0].modifierExtension", "unknown_field"),
    ],
)  # fmt: skip
def test_what_a_response_has_wrong_is_named_and_not_repeated(item: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_response(PHQ9, {"resourceType": "QuestionnaireResponse", "status": "completed", "item": [item]})
    assert [(error.field, error.code) for error in caught.value.errors] == [(field, code)]
    assert "secret" not in str(caught.value)


def test_a_response_to_another_version_or_check_is_refused() -> None:
    body = {"resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": f"{canonical_url('phq9')}|old"}
    with pytest.raises(Conflict):
        read_response(PHQ9, body)
    with pytest.raises(Invalid):
        read_response(replace(PHQ9, slug="other"), body)


@pytest.fixture
def library(site: Site) -> Site:
    """The service with the starter library."""
    load_library(LIBRARY.parent, site.settings)
    site.refresh()
    return site


def test_fhir_over_http(library: Site) -> None:
    reply = library.get("/v1/checks/exam-stress/fhir")
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "application/fhir+json")
    made = read_questionnaire(reply.content, slug="exam-stress")[0]
    assert made.version == library.get("/v1/checks/exam-stress").json()["version"]
    items = [item for item in made.index.values() if item.kind == "choice"]
    worst = [(i.link_id, i.options[0 if i.link_id == "heavy" else -1].code) for i in items]
    answers = [{"linkId": link_id, "answer": [{"valueCoding": {"code": code}}]} for link_id, code in worst]
    body: dict[str, Any] = {"resourceType": "QuestionnaireResponse", "status": "completed"}
    body["item"] = [*answers, {"linkId": "total", "answer": [{"valueDecimal": 1}]}]
    path = "/v1/checks/exam-stress/fhir/score"
    reply = library.call("POST", path, json=body)
    assert reply.status_code == 200, reply.text
    told = reply.json()
    [claim] = told["claims"]
    assert (claim["scale"], claim["claimed"], claim["agrees"], claim["computed"]) == ("total", 1, False, told["total"])
    QuestionnaireResponse.model_validate(told["response"])
    assert told["help"]
    # a failure has the card too, and an answer that calls for help is seen beside what is wrong
    body["item"] = [{"linkId": "heavy", "answer": [{"valueCoding": {"code": "right_now"}}]}, {"linkId": "nowhere"}]
    failed = library.call("POST", path, json=body)
    assert (failed.status_code, failed.json()["critical"], bool(failed.json()["help"])) == (422, True, True)
    for wrong in ("[]", "{", '{"a": 1, "a": 2}'):
        failed = library.call("POST", path, data=wrong, headers={"Content-Type": "application/fhir+json"})
        assert failed.status_code in (400, 422) and failed.json()["help"]

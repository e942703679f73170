"""One table of hand-computed cases, answered by the server's scorer and by the phone's, in every language of each check.

The files of `tests/cases` say how a case is written (README.md there). Then both scorers are given what nobody would write:
generated questionnaires with generated answers, right and wrong; they have to agree to the last digit.
"""

import json
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import quickjs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.bootstrap import LIBRARY
from content import checkfiles, checks, rules
from content.definition import (
    ANSWERED,
    Band,
    Clause,
    Critical,
    Definition,
    EnableWhen,
    Item,
    Norm,
    Option,
    Scale,
    Validity,
    number,
)
from content.failures import Invalid
from content.fhir import read_questionnaire
from content.published import ANY
from content.published import Item as Published
from content.reproschema import read_activity
from content.scoring import About, is_critical, score

HERE = Path(__file__).parent
GIVEN = HERE.parents[1] / "shared" / "data"
SCORER = HERE.parent / "api" / "reader" / "scorer.js"
TABLES = [
    (file.stem, table)
    for file in sorted((HERE / "cases").glob("*.json"))
    for read in [json.loads(file.read_text())]
    for table in (read if isinstance(read, list) else [read])
]
LEAST = 12  # cases of an instrument with a score

RUN = """
function run(text) {
  const {checks, calls} = JSON.parse(text);
  const told = calls.map(([n, answers, about]) => ({
    ...score(checks[n], answers, about),
    alone: critical(checks[n], answers),
    asked: asked(checks[n], answers, about),
  }));
  return JSON.stringify(told, (_, value) => (Object.is(value, -0) ? "-0" : value));
}
"""


@cache
def phone() -> quickjs.Context:
    """The phone's scorer in an engine of its own."""
    engine = quickjs.Context()
    engine.eval(re.sub(r"^export ", "", SCORER.read_text(), flags=re.M) + RUN)
    return engine


def public(definition: Definition, language: str) -> dict[str, Any]:
    """The check as GET /v1/checks/{slug} answers it in a language."""
    blank: dict[str, Any] = dict.fromkeys(
        ("audiences", "stages", "ages", "purpose", "validated", "source", "rights", "approver", "evidence")
    )
    register = {**blank, "name": {}, "languages": list(definition.languages), "parental_notice": {}, "critical_message": {}}
    rest = {"definition_version": definition.version, "number": 1, "published_at": "", "lessons": [], "expires_days": 14}
    return checks.detail(Published("check", definition.slug, ANY, {"register": register, **rest}), definition, language)


def on_phone(definition: Definition, calls: list[tuple[dict[str, Any], dict[str, Any]]], *languages: str) -> list[Any]:
    """What the phone tells of each (answers, about), of each language in turn."""
    texts = [public(definition, language) for language in languages]
    asks = [[n, *call] for n in range(len(texts)) for call in calls]
    return json.loads(phone().eval(f"run({json.dumps(json.dumps({'checks': texts, 'calls': asks}))})"))  # type: ignore[no-any-return]


def on_server(definition: Definition, answers: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """What the server tells, in the phone's form."""
    errors: list[dict[str, str]] = []
    empty: dict[str, Any] = {"scales": [], "answered": [], "missing": [], "validity": []}
    try:
        found = score(definition, answers, About(**about))
    except Invalid as failure:
        errors = [{"field": error.field, "code": error.code} for error in failure.errors]
        return {**empty, "errors": errors, "critical": is_critical(definition, answers)}
    rows = [
        {"code": r.scale.code, "value": r.value, "minimum": r.minimum, "maximum": r.maximum, "standard": r.standard,
         "band": r.band and r.band.code, "counts_as": r.counts_as and r.counts_as.code}
        for r in found.readings
    ]  # fmt: skip
    lists = {"answered": list(found.answered), "missing": list(found.missing), "validity": list(found.validity)}
    return {"scales": rows, **lists, "errors": [], "critical": found.critical}


def agreed(server: dict[str, Any], told: dict[str, Any], definition: Definition) -> None:
    """Both told the same, and the phone's three functions fit together. The order of errors says nothing."""
    alone, asked = told.pop("alone"), told.pop("asked")
    for one in (server, told):
        one["errors"].sort(key=lambda error: (error["field"], error["code"]))
    assert told == server
    assert alone == told["critical"]
    if not told["errors"]:
        answerable = [link_id for link_id in asked if definition.index[link_id].kind in ANSWERED]
        assert sorted(answerable) == sorted(told["answered"] + told["missing"])
        assert asked == [link_id for link_id in definition.index if link_id in asked]  # in the order of the page


# --- the table -------------------------------------------------------------------------------------------------------


@cache
def questions(name: str) -> Definition:
    """An instrument by its name in the table; its own rules are laid already. Skips where its file is not there."""
    kind, _, rest = name.partition("/")
    if kind == "library":
        file = LIBRARY / "checks" / f"{rest}.json"
        made = read_questionnaire(file.read_bytes(), slug=rest)[0]
        beside = checkfiles._sidecar(file.with_suffix(".yaml")) or {}
        return rules.laid(made, {key: beside[key] for key in rules.NAMES if key in beside})
    file = next((at / name for at in (HERE, HERE / "data", GIVEN) if (at / name).is_file()), None)
    if file is None:
        pytest.skip(f"{name} is not there")
    if kind == "reproschema":
        return read_activity(file, slug="check")[0]
    return read_questionnaire(file.read_bytes(), slug="check")[0]


def placed(value: Any, places: list[str]) -> Any:
    """Rules of the table with places turned into link ids."""
    if not isinstance(value, dict):
        return value
    made = {}
    for key, part in value.items():
        if key == "item" and isinstance(part, int):
            made[key] = places[part]
        elif key in ("of", "reverse") or (key == "items" and not any(isinstance(one, dict) for one in part)):
            made[key] = [places[one] if isinstance(one, int) else one for one in part]
        else:
            made[key] = [placed(one, places) for one in part] if isinstance(part, list) else placed(part, places)
    return made


def instrument(table: dict[str, Any], name: str) -> tuple[Definition, list[str]]:
    """The definition with the table's rules, and the link ids of its places."""
    made = questions(name)
    places = [item.link_id for item in made.index.values() if item.kind in ANSWERED]
    laid = placed(table.get("rules", {}), places)
    for row in [*laid.get("bands", []), *(band for scale in laid.get("subscales", []) for band in scale.get("bands", []))]:
        row.setdefault("text", row["code"])
    return (rules.laid(made, laid) if laid else made), places


def answered(definition: Definition, places: list[str], case: dict[str, Any]) -> dict[str, Any]:
    """A case's answers by link id."""
    answers: dict[str, Any] = {}
    for link_id, sign in zip(places, case.get("picks", "").replace(" ", ""), strict=False):
        item = definition.index[link_id]
        if sign != "-":
            value: Any = sign == "y" if item.kind == "boolean" else int(sign)
            answers[link_id] = item.options[value].code if item.options else value
    return answers | {places[int(k)] if k.isdigit() and k not in places else k: v for k, v in case.get("answers", {}).items()}


def expected(places: list[str], case: dict[str, Any]) -> dict[str, Any]:
    """What a case says of its result; what it does not name is empty."""
    scales = {"total": case["total"]} if "total" in case else case.get("scales", {})
    return {
        "scales": {code: (*row, None)[:3] for code, row in scales.items()},
        "critical": case.get("critical", False),
        "missing": [places[one] if isinstance(one, int) else one for one in case.get("missing", [])],
        "validity": case.get("validity", []),
        "errors": sorted((f"answers.{places[at]}" if isinstance(at, int) else at, code) for at, code in case.get("errors", [])),
    }


def rows() -> Iterator[tuple[str, dict[str, Any], str]]:
    """(file, table, instrument) of every table."""
    for file, table in TABLES:
        names = table["instrument"]
        for name in names if isinstance(names, list) else [names]:
            yield file, table, name


@pytest.mark.parametrize(("table", "name"), [pytest.param(table, name, id=f"{file}-{name}") for file, table, name in rows()])
def test_the_table(table: dict[str, Any], name: str) -> None:
    definition, places = instrument(table, name)
    calls = [(answered(definition, places, case), case.get("about", {})) for case in table["cases"]]
    languages = definition.languages or ("und",)
    phones = iter(on_phone(definition, calls, *languages))
    for language in languages:
        for case, (answers, about) in zip(table["cases"], calls, strict=True):
            server = on_server(definition, answers, about)
            agreed(server, next(phones), definition)
            told = {
                **{key: server[key] for key in ("critical", "missing", "validity")},
                "scales": {row["code"]: (row["value"], row["counts_as"], row["standard"]) for row in server["scales"]},
                "errors": [(error["field"], error["code"]) for error in server["errors"]],
            }
            assert told == expected(places, case), f"{case['why']} ({language})"
            for row in server["scales"]:  # no band beside a critical answer
                assert row["band"] == (None if server["critical"] else row["counts_as"])


def test_the_table_is_whole() -> None:
    """At least a dozen cases an instrument with a score, and every starter check among them."""
    counts: dict[str, int] = {}
    scored: set[str] = set()
    for _, table, name in rows():
        counts[name] = counts.get(name, 0) + len(table["cases"])
        scored |= {name for case in table["cases"] if "total" in case or "scales" in case}
    named = {name.removeprefix("library/") for name in counts if name.startswith("library/")}
    assert named == {file.stem for file in (LIBRARY / "checks").glob("*.json")}
    assert {name: counts[name] for name in scored if counts[name] < LEAST} == {}


# --- what nobody would write -----------------------------------------------------------------------------------------

WORTH = st.sampled_from([0, 1, 2, 3, -1, 0.5, 0.1, 0.2, 0.3, 1e-6, 1 / 128, -3 / 128]) | st.floats(-1e4, 1e4).map(number)
REAL = st.integers(-2000, 2000).map(lambda n: n / 128) | st.integers(-9, 9) | st.floats(-100, 100)
AGES = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: (min(ends), max(ends)))
CODES = ("a", "b", "c", "1", "None", "true", "constructor")


@st.composite
def items(draw: st.DrawFn, above: list[Item], depth: int = 0) -> Item:
    """One item, asked after answers to those `above` it; whatever is made is put there too."""
    link_id = f"{draw(st.sampled_from(['q', '', 'toString', '__proto__']))}{len(above)}"
    kind = draw(st.sampled_from([*sorted(ANSWERED), "choice", "text", *(["group"] if depth < 2 else [])]))
    clauses = []
    for other in draw(st.lists(st.sampled_from(above), max_size=2)) if above else []:
        operators, value = ["exists", "=", "!="], st.booleans() if other.kind == "boolean" else st.just(draw(REAL))
        if other.kind in ("choice", "multiple"):
            value = st.sampled_from([option.code for option in other.options])  # type: ignore[assignment]
        elif other.kind in ("integer", "decimal"):
            operators += [">", "<", ">=", "<="]
        elif other.kind != "boolean":
            continue
        operator = draw(st.sampled_from(operators))
        clauses.append(Clause(other.link_id, operator, draw(st.booleans() if operator == "exists" else value)))
    options: tuple[Option, ...] = ()
    low = high = None
    if kind in ("choice", "multiple"):
        scores = draw(st.lists(st.none() | WORTH, min_size=1, max_size=len(CODES)))
        options = tuple(Option(code, {"en": code}, score) for code, score in zip(CODES, scores, strict=False))
        high = draw(st.none() | st.integers(1, 3)) if kind == "multiple" else None
    elif kind in ("integer", "decimal"):
        low, high = sorted((draw(REAL), draw(REAL)))
    item = Item(
        link_id, kind, {"en": "?"}, draw(st.booleans()) and draw(st.booleans()), low, high, options=options,
        ages=draw(st.none() | st.none() | AGES), enable_when=EnableWhen(draw(st.booleans()), tuple(clauses)) if clauses else None,
    )  # fmt: skip
    above.append(item)
    if kind == "group":
        return Item(**{**vars(item), "items": tuple(draw(items(above, depth + 1)) for _ in range(draw(st.integers(0, 2))))})
    return item


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """A questionnaire with rules of every kind. What the desk would refuse (a band missing) is left in; circles are not."""
    above: list[Item] = []
    page = tuple(draw(items(above)) for _ in range(draw(st.integers(1, 5))))
    countable, asked = [one for one in above if one.countable], [one.link_id for one in above if one.kind in ANSWERED]
    scales: list[Scale] = []
    for code in ("s1", "s2", "total"):
        members = [*(one.link_id for one in countable), *(scale.code for scale in scales)]
        if not members:
            break
        of = tuple(draw(st.lists(st.sampled_from(members), min_size=1, max_size=5, unique=True)))
        ends = sorted(draw(st.lists(WORTH | st.integers(-5, 5), min_size=2, max_size=4)))
        bands = tuple(Band(f"b{n}", low, high, {}, {}) for n, (low, high) in enumerate(zip(ends, ends[1:], strict=False)))
        norms = []
        for _ in range(draw(st.integers(0, 2))):
            cuts = {band.code: (band.minimum + 1, band.maximum + 1) for band in bands if draw(st.booleans())}
            spread = (draw(WORTH), draw(st.sampled_from([1, 0.3, 7]))) if draw(st.booleans()) else (None, None)
            norms.append(Norm(*draw(AGES), draw(st.sampled_from([None, "female", "male"])), *spread, cuts))
        turned = tuple(one.link_id for one in countable if one.link_id in of and one.kind != "multiple" and draw(st.booleans()))
        method = draw(st.sampled_from(["sum", "sum_if_complete", "mean"]))
        scales.append(Scale(code, of, method, {}, turned, bands, tuple(norms)))
    rules_of = {
        one.link_id: tuple(option.code for option in one.options)[1:] or ("true",) for one in above if one.kind in ANSWERED
    }
    critical = tuple(
        Critical(link_id, codes if draw(st.booleans()) else (), draw(st.none() | st.integers(0, 3)))
        for link_id, codes in rules_of.items()
        if draw(st.booleans())
    )
    line = tuple(draw(st.lists(st.sampled_from(asked), min_size=1, max_size=3))) if asked else ()
    doubts = (Validity("too_fast", draw(st.integers(1, 9))), *([Validity("straight_line", items=line)] if line else []))
    return Definition("any", {}, page, tuple(scales[::-1]), critical, doubts)


ANYTHING = st.recursive(
    st.none() | st.booleans() | REAL | st.sampled_from([*CODES, "x", 1e13, 10**400, 1.0]), lambda some: st.lists(some, max_size=3)
)


@st.composite
def asked_and_answered(draw: st.DrawFn) -> tuple[Definition, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """A definition and some answers to it, most of them right."""
    made = draw(definitions())
    calls = []
    for _ in range(4):
        answers: dict[str, Any] = {}
        wild = draw(st.integers(0, 3)) == 0
        for item in made.index.values():
            codes = [option.code for option in item.options]
            right = {
                "choice": st.sampled_from(codes or ["-"]),
                "multiple": st.lists(st.sampled_from(codes or ["-"]), max_size=3, unique=True),
                "boolean": st.booleans(),
                "integer": st.integers(math.ceil(item.minimum or 0), max(math.ceil(item.minimum or 0), int(item.maximum or 0))),
                "decimal": st.floats(item.minimum or 0, item.maximum or 0)
                | st.integers(0, 4).map(
                    lambda n, one=item: (one.minimum or 0) + ((one.maximum or 0) - (one.minimum or 0)) * n / 4
                ),
            }
            if item.kind in right and draw(st.integers(0, 5)):
                answers[item.link_id] = draw(right[item.kind])
            if wild and draw(st.booleans()):
                answers[item.link_id] = draw(ANYTHING)
        if wild and draw(st.booleans()):
            answers[draw(st.sampled_from(["nobody", "__proto__", "x" * 90]))] = draw(ANYTHING)
        age = draw(st.integers(0, 40)) if made.by_age or draw(st.booleans()) else None
        about = {
            "age_months": age,
            "sex": draw(st.sampled_from([None, "female", "male"])),
            "seconds": draw(st.none() | st.integers(0, 9)),
        }
        if not wild:  # mend what the path forbids or wants, so that most are scored
            for error in on_server(made, answers, about)["errors"]:
                answers.pop(error["field"].removeprefix("answers."), None)
        calls.append((answers, about))
    return made, calls


Made = tuple[Definition, list[tuple[dict[str, Any], dict[str, Any]]]]


def agree(made: Made) -> None:
    """Both scorers tell the same of each of some answers."""
    definition, calls = made
    for (answers, about), told in zip(calls, on_phone(definition, calls, "en"), strict=True):
        agreed(on_server(definition, answers, about), told, definition)


@given(asked_and_answered())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_scorers_agree_on_anything(made: Made) -> None:
    agree(made)


@pytest.mark.slow
@given(asked_and_answered())
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_scorers_agree_on_much_of_anything(made: Made) -> None:
    agree(made)


@given(st.lists(REAL | WORTH | st.floats(-1e12, 1e12), max_size=12), st.integers(-(10**7), 10**7))
@example([1e16, 1, 1e-16], 1)  # half-way between two doubles, decided by the smallest
@example([-1e-9], -1)  # never -0
def test_sums_and_roundings_are_pythons(values: list[float], odd: int) -> None:
    total, halves = f"sum({json.dumps(values)})", (odd / 128, odd / 4)  # some end in a 5 at the place that is dropped
    rounded = f"[{total}, {halves[0]}, {halves[1]}].flatMap((v) => [round(v, 6), round(v, 1)])"
    told = json.loads(phone().eval(f"JSON.stringify([{total}, ...{rounded}, {rounded}.some((v) => Object.is(v, -0))])"))
    exact = math.fsum(values)
    assert told == [exact, *(round(value, places) for value in (exact, *halves) for places in (6, 1)), False]


def test_several_answers_to_one_question() -> None:
    """Their order says nothing, and none of them is no answer, however many there have to be."""
    options = tuple(Option(code, {"en": code}, n) for n, code in enumerate("abc"))
    page = tuple(Item(link_id, "multiple", {"en": "?"}, minimum=2, maximum=2, options=options) for link_id in ("x", "y", "z"))
    total = Scale("total", ("x", "y", "z"))
    made = Definition("several", {}, page, (total,), validity=(Validity("straight_line", items=("x", "y", "z")),))
    assert rules.faults(made) == []
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"x": ["a", "b"], "y": ["b", "a"], "z": ["a", "b"]}, {}),
        ({"x": ["a", "b"], "y": ["b", "c"], "z": []}, {}),
        ({"x": ["a"], "y": ["b", "b"], "z": ["a", "b", "c"]}, {}),
    ]
    same, less, wrong = on_phone(made, calls, "en")
    assert (same["scales"][0]["value"], same["validity"]) == (3, ["straight_line"])
    assert (less["scales"][0]["value"], less["missing"], less["validity"]) == (4, ["z"], [])
    assert [error["code"] for error in wrong["errors"]] == ["out_of_range"] * 3
    for (answers, about), told in zip(calls, (same, less, wrong), strict=True):
        agreed(on_server(made, answers, about), told, made)


def test_it_is_a_module_for_a_page() -> None:
    """It stands alone as an ES module: nothing imported, three things exported."""
    text = SCORER.read_text()
    quickjs.Context().module(text)
    assert "import" not in re.findall(r"^\w+", text, flags=re.M)
    assert re.findall(r"^export function (\w+)", text, flags=re.M) == ["score", "asked", "critical"]

"""ReproSchema activities: real ones as they are, made-up ones for what files of this kind may hold, and their import."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api import cli
from content import checkfiles, checks, rules
from content.definition import Definition, Option
from content.failures import Invalid
from content.records import SYSTEM
from content.reproschema import read_activity
from content.scoring import score

DATA = Path(__file__).parent / "data" / "reproschema"
MORE = Path(__file__).parents[2] / "shared" / "data" / "reproschema"

# file -> questions that are answered, least and most of the total, whether zh-Hans is complete; "" for a refusal
REAL: dict[str, Any] = {
    "EPDS/EPDS_schema.json": (10, 0, 30, False),
    "GAD7/GAD7_schema.json": (7, 0, 21, True),
    "PHQ-4/PHQ4_schema.json": (4, 0, 12, False),
    "PHQ-9/PHQ9_schema.json": (10, 0, 27, False),
    "PSC-17/PSC-17_schema.json": (17, 0, 34, False),
}
BESIDE: dict[str, Any] = {
    "PHQ-8/PHQ8_schema.json": (8, 0, 24, False),
    "PHQ-9a/phq9a_schema.json": (10, 0, 27, False),
    "PHQ/PHQ1_schema.json": (13, 0, 39, False),
    "PHQ/PHQ2_schema.json": (9, 0, 27, False),
    "PHQ/PHQ3_schema.json": (4, 0, 4, False),
    "PHQ/PHQ5_schema.json": (7, 0, 14, False),
    "PHQ/PHQq4_schema.json": (11, 0, 11, False),
    "PHQ/PHQ_schema.json": "",
}


def told(path: Path, root: Path | None = None) -> tuple[Definition, tuple[str, ...]]:
    definition, warnings = read_activity(path, root)
    assert rules.faults(definition) == []
    return definition, warnings


def real(name: str) -> Definition:
    return told(DATA / name, DATA)[0]


def refused(path: Path, root: Path | None = None) -> set[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        read_activity(path, root)
    assert all(error.messages["zh-Hans"] and error.messages["en"] for error in caught.value.errors)
    return {(error.field, error.code) for error in caught.value.errors}


@pytest.mark.parametrize("name", [*REAL, *BESIDE])
def test_real_activities(name: str) -> None:
    root = DATA if name in REAL else MORE
    if not root.is_dir():
        pytest.skip("the shared activities are not beside the project")
    expected = {**REAL, **BESIDE}[name]
    if not expected:
        faults = refused(root / name, root)
        assert {code for _, code in faults} == {"unsupported", "unknown_reference"}
        assert all(field.startswith(f"{name}#ui.order[") for field, _ in faults)
        return
    definition, warnings = told(root / name, root)
    total = definition.total
    assert total is not None and len(definition.scales) == 1
    asked = [item for item in definition.index.values() if item.kind == "choice"]
    assert (len(asked), *definition.reach(total), "zh-Hans" in definition.languages) == expected
    assert "en" in definition.languages
    assert [item.link_id for item in definition.items if item.kind == "display"] == ["preamble"]
    lacking = [line for line in warnings if line.startswith("zh-Hans: ")]
    chinese = any("zh-Hans" in item.text for item in asked)
    assert bool(lacking) is (chinese and not expected[3] or name in {"PHQ-4/PHQ4_schema.json", "PHQ/PHQ3_schema.json"})


def test_what_real_files_get_wrong_is_said() -> None:
    _, warnings = told(DATA / "PHQ-9" / "PHQ9_schema.json", DATA)
    assert "PHQ-9/items/phq9_3.json#question.zn-ch: " in "\n".join(warnings)  # a slip for zh-cn; we do not guess
    assert next(line for line in warnings if line.startswith("zh-Hans")).endswith("no text in: phq9_3")
    if MORE.is_dir():
        definition, warnings = told(MORE / "PHQ-8" / "PHQ8_schema.json", MORE)
        assert all(item.required for item in definition.index.values() if item.kind == "choice")
        assert len([line for line in warnings if ".isAbout: " in line]) == 8  # it speaks of the items of the PHQ-9
        assert "PHQ-8/items/phq8_total_score.json#responseOptions: " in "\n".join(warnings)  # says 27, can be 24


def answers(definition: Definition, *codes: int) -> dict[str, str]:
    asked = [item.link_id for item in definition.index.values() if item.kind == "choice"]
    return {link_id: str(code) for link_id, code in zip(asked, codes, strict=False)}


@pytest.mark.parametrize(
    ("name", "codes", "total"),
    [
        ("PHQ-9/PHQ9_schema.json", [0, 1, 2, 3, 0, 1, 2, 3, 0, 2], 12),  # the tenth, how hard it makes life, counts nothing
        ("PHQ-9/PHQ9_schema.json", [3] * 9 + [3], 27),
        ("PHQ-9/PHQ9_schema.json", [0] * 9, 0),
        ("GAD7/GAD7_schema.json", [1, 1, 2, 0, 3, 1, 2], 10),
        ("GAD7/GAD7_schema.json", [3] * 7, 21),
        ("PHQ-4/PHQ4_schema.json", [1, 2, 3, 0], 6),
        ("PHQ-4/PHQ4_schema.json", [3] * 4, 12),
        ("PSC-17/PSC-17_schema.json", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1], 16),
        ("PSC-17/PSC-17_schema.json", [2] * 17, 34),
    ],
)
def test_totals_counted_by_hand(name: str, codes: list[int], total: int) -> None:
    definition = real(name)
    assert score(definition, answers(definition, *codes)).total == total


def test_the_epds_of_the_library_counts_seven_items_the_wrong_way_round_and_a_register_mends_it() -> None:
    """Cox, Holden and Sagovsky 1987: items 3 and 5 to 10 are scored 3 for the first answer, as which the file has 0."""
    definition, warnings = told(DATA / "EPDS" / "EPDS_schema.json", DATA)
    assert any("EPDS_schema.json#compute: " in line and "least: epds_4" in line for line in warnings)
    worst, best = [3, 3, 0, 3, 0, 0, 0, 0, 0, 0], [0, 0, 3, 0, 3, 3, 3, 3, 3, 3]
    assert score(definition, answers(definition, *worst)).total == 9
    turned = [f"epds_{n}" for n in (3, 5, 6, 7, 8, 9, 10)]
    mended = rules.laid(definition, {"total": {"reverse": turned}, "critical": [{"item": "epds_10", "codes": ["0", "1", "2"]}]})
    assert score(mended, answers(mended, *worst)).total == 30
    assert score(mended, answers(mended, *best)).total == 0
    assert score(mended, answers(mended, 1, 0, 2, 1, 3, 2, 3, 3, 2, 3)).total == 1 + 0 + 1 + 1 + 0 + 1 + 0 + 0 + 1 + 0
    assert score(mended, answers(mended, *best[:9], 2)).critical
    assert not score(mended, answers(mended, *best)).critical


def test_psc_17_has_no_subscales_in_the_file_and_a_register_brings_them() -> None:
    definition = real("PSC-17/PSC-17_schema.json")
    inner = [f"PSC-17_{n}" for n in range(1, 6)]
    attention = [f"PSC-17_{n}" for n in range(6, 11)]
    outer = [f"PSC-17_{n}" for n in range(11, 18)]
    laid = rules.laid(
        definition,
        {
            "subscales": [
                {"code": "internalizing", "of": inner, "name": {"en": "Internalizing"}},
                {"code": "attention", "of": attention, "name": {"en": "Attention"}},
                {"code": "externalizing", "of": outer, "name": {"en": "Externalizing"}},
            ],
            "total": {"of": ["internalizing", "attention", "externalizing"]},
        },
    )
    result = score(laid, answers(laid, 2, 2, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 2, 2, 0, 1))
    assert [r.value for code in ("internalizing", "attention", "externalizing") if (r := result.reading(code))] == [5, 5, 5]
    assert result.total == 15


def test_what_the_phq_9_asks_last_is_asked_when_anything_was_said() -> None:
    definition = real("PHQ-9/PHQ9_schema.json")
    when = definition.index["phq9_10"].enable_when
    assert when is not None and when.any and len(when.clauses) == 27
    assert "phq9_10" in score(definition, answers(definition, *[0] * 8, 1)).missing
    with pytest.raises(Invalid) as caught:
        score(definition, answers(definition, *[0] * 9, 1))
    assert [(e.field, e.code) for e in caught.value.errors] == [("answers.phq9_10", "not_asked")]


# --- made-up activities ----------------------------------------------------------------------------------------------

CHOICES = {"choices": [{"name": {"en": f"say {n}", "zh-CN": f"说{n}"}, "value": n} for n in range(3)]}


def activity(folder: Path, items: dict[str, Any], show: dict[str, Any] | None = None, **more: Any) -> Path:
    """An activity with these items: responses, or whole items where they have "ui"; `show` their isVis."""
    (folder / "items").mkdir(parents=True, exist_ok=True)
    for name, item in items.items():
        plain = {"question": {"en": f"{name}?", "zh": f"{name}？"}, "ui": {"inputType": "radio"}, "responseOptions": item}
        whole = {"category": "Item", "id": name, **(item if isinstance(item, dict) and "ui" in item else plain)}
        (folder / "items" / name).write_text(json.dumps(whole), encoding="utf-8")
    properties = [{"isAbout": f"items/{n}", "variableName": n, "isVis": (show or {}).get(n, True)} for n in items]
    node = {
        "category": "Activity", "id": "mood_schema", "prefLabel": {"en": "Mood", "zh_Hans": "心情"},
        "ui": {"order": [f"items/{n}" for n in items], "addProperties": properties},
        "compute": [{"variableName": "total_score", "jsExpression": "q1 + q2"}],
    }  # fmt: skip
    file = folder / "mood_schema"
    file.write_text(json.dumps({**node, **more}), encoding="utf-8")
    return file


def computing(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"variableName": name, "jsExpression": expression} for name, expression in pairs]


THREE = {"q1": CHOICES, "q2": CHOICES, "q3": CHOICES}
Maybe = float | None
VISIBLE: list[tuple[str, Callable[[Maybe, Maybe], bool]]] = [
    ("q1 > 0 || q2 == 1", lambda a, b: (a or 0) > 0 or b == 1),
    ("q1>=1&&q2 <2", lambda a, b: a is not None and a >= 1 and b is not None and b < 2),
    ("!(q1 > 0)", lambda a, b: a is None or a <= 0),
    ("!(q1 == 1 || q2 == 2)", lambda a, b: a != 1 and b != 2),
    ("q1 != 0", lambda a, b: a != 0),
    ("0 < q1 && !(q2 !== 2)", lambda a, b: (a or 0) > 0 and b == 2),
    ("(q1 === 1 || q1 == '2') && (q2 == 0 || q2 == 1)", lambda a, b: a in (1, 2) and b in (0, 1)),
    ("q1", lambda a, b: bool(a)),
    ("!q1 && q2", lambda a, b: not a and bool(b)),
    ("!q1 || q2 == 0", lambda a, b: not a or b == 0),
    ("true && (q1 == 1 && q2 == 1)", lambda a, b: a == b == 1),
    ("q1 > -1 || false", lambda a, b: a is not None),
    ("q1 > 0 && q1 < 2", lambda a, b: a == 1),
]


@pytest.mark.parametrize(("rule", "truth"), VISIBLE, ids=[rule for rule, _ in VISIBLE])
@pytest.mark.parametrize("kind", ["choice", "number"])
def test_visibility_means_what_javascript_does(
    rule: str, truth: Callable[[Maybe, Maybe], bool], kind: str, tmp_path: Path
) -> None:
    number = {"ui": {"inputType": "number"}, "responseOptions": {"minValue": 0, "maxValue": 2, "valueType": "xsd:integer"}}
    items = THREE if kind == "choice" else {"q1": number, "q2": number, "q3": CHOICES}
    try:
        definition, _ = told(activity(tmp_path, items, {"q3": rule}))
    except Invalid as failure:
        # a number knows no set of values: what has two clauses for one of them does not fit beside &&
        assert kind == "number" and "isVis" in str(failure.errors[0].params["what"])
        assert rule in {"q1", "!q1 && q2", "(q1 === 1 || q1 == '2') && (q2 == 0 || q2 == 1)"}
        return
    for a, b in itertools.product([None, 0, 1, 2], repeat=2):
        given = {name: value for name, value in (("q1", a), ("q2", b)) if value is not None}
        result = score(definition, {n: str(v) for n, v in given.items()} if kind == "choice" else given)
        assert ("q3" in result.missing) is truth(a, b), (a, b)


@pytest.mark.parametrize(
    "rule",
    [
        "q1 > 0 || (q2 > 0 && q1 < 2)", "q1 == 'x'", "q1 == " + "9" * 5000,
        "q1 + q2 > 2", "q1 > q2", "total_score > 3", "new Date().getDay() === 1", "q9 == 1",
        "q1 = 1", "q1 > 0; alert(1)", "(q1 > 0", "q1 > 'a'", "", "q1 ? q2 : q3", "words == 1", "[1].includes(q1)",
        "(" * 200 + "q1" + ")" * 200, "q1 > 0 || " * 4000 + "q1", "q1.constructor", "__proto__ == 1", "several == 1",
    ],
    ids=lambda rule: rule[:24],
)  # fmt: skip
def test_visibility_that_cannot_be_held_is_refused_by_name(rule: str, tmp_path: Path) -> None:
    words = {"ui": {"inputType": "text"}, "question": {"en": "Words?"}}
    file = activity(tmp_path, {**THREE, "words": words, "several": {**CHOICES, "multipleChoice": True}}, {"q3": rule})
    assert refused(file) == {("mood_schema#ui.addProperties[2].isVis", "unsupported")}


def test_a_question_that_waits_for_itself_is_refused(tmp_path: Path) -> None:
    file = activity(tmp_path, THREE, {"q1": "q3 > 0", "q3": "q1 > 0"})
    assert refused(file) == {(f"mood_schema#ui.addProperties[{n}].isVis", "circular") for n in (0, 2)}


@pytest.mark.parametrize(
    ("compute", "scales"),
    [
        ([("total", "(q1 + q2) + 1*q3 + 0")], {"total": (("q1", "q2", "q3"), "sum", (), 0, 6)}),
        ([("score", "q1 + (2 - q2) + q3")], {"total": (("q1", "q2", "q3"), "sum", ("q2",), 0, 6)}),
        ([("m", "(q1 + q2 + q3) / 3")], {"total": (("q1", "q2", "q3"), "mean", (), 0, 2)}),
        (
            [("A-part", "q1 + q2"), ("B part!", "q3"), ("all", "A-part + q3")],
            {
                "total": (("a_part", "q3"), "sum", (), 0, 6),
                "a_part": (("q1", "q2"), "sum", (), 0, 4),
                "b_part": (("q3",), "sum", (), 0, 2),
            },
        ),
        ([("x", "q1 + q2"), ("y", "q2 + q3")], {"x": (("q1", "q2"), "sum", (), 0, 4), "y": (("q2", "q3"), "sum", (), 0, 4)}),
    ],
)  # fmt: skip
def test_computes_become_scales(compute: list[tuple[str, str]], scales: dict[str, Any], tmp_path: Path) -> None:
    definition, warnings = told(activity(tmp_path, THREE, compute=computing(*compute)))
    assert {s.code: (s.of, s.method, s.reverse, *definition.reach(s)) for s in definition.scales} == scales
    assert any("only subscales" in line for line in warnings) is ("total" not in scales)


@pytest.mark.parametrize(
    "expression",
    [
        "q1 * q2", "2*q1 + q2", "q1 + q1", "q1 - q2", "q1 + 5", "3 - q1", "q1 > 1 ? 1 : 0", "Math.max(q1, q2)", "q1 + q9",
        "q1 + total_score", "5", "q1 / q2", "q1 / 0", "if (q1 > 1) { 'high' }",
        "q1 + words", "q1 ** 2", "q1 + several", "'1' + q1",
    ],
)  # fmt: skip
def test_a_compute_that_is_no_sum_is_refused_by_name(expression: str, tmp_path: Path) -> None:
    words = {"ui": {"inputType": "text"}, "question": {"en": "Words?"}}
    items = {**THREE, "words": words, "several": {**CHOICES, "multipleChoice": True}}
    file = activity(tmp_path, items, compute=computing(("total_score", expression)))
    assert refused(file) == {("mood_schema#compute[0].jsExpression", "unsupported")}


def test_a_name_for_a_range_is_no_score_and_said(tmp_path: Path) -> None:
    category = "total_score > 3 ? 'severe' : total_score > 1 ? \"mild\" : 'none'"
    file = activity(tmp_path, THREE, compute=computing(("total_score", "q1 + q2"), ("category", category)))
    definition, warnings = told(file)
    assert [scale.code for scale in definition.scales] == ["total"]
    assert any(line.startswith("mood_schema#compute[1].jsExpression: ") and category in line for line in warnings)
    file = activity(tmp_path, THREE, compute=computing(("c", "q1 > 1 ? 'a' : 'b'"), ("total", "q1 + c")))
    assert refused(file) == {("mood_schema#compute[1].jsExpression", "unsupported")}
    definition, warnings = told(activity(tmp_path, THREE, compute=[]))
    assert not definition.scales and any("no compute" in line for line in warnings)


def test_items_of_every_kind(tmp_path: Path) -> None:
    said = {"question": {"en": "How?", "zh-cn": "怎么样？"}}
    whole = {"minValue": 0, "maxValue": 10, "valueType": ["xsd:integer"]}
    yes = [{"name": "Yes", "value": True}, {"name": "No", "value": False}, {"name": "?", "value": "dk"}]
    same = [{"name": "a", "value": 1}, {"name": "b", "value": 1.5}, {"name": "c", "value": 1, "image": "c.png"}]
    items: dict[str, Any] = {
        "q1": {**said, "ui": {"inputType": "slider"}, "responseOptions": whole},
        "q2": {**said, "ui": {"inputType": "xsd:number"}, "responseOptions": {"minValue": 0, "maxValue": 9.5, "unitCode": "h"}},
        "q3": {**said, "ui": {"inputType": "select"}, "responseOptions": {**CHOICES, "multipleChoice": True}},
        "q4": {**said, "ui": {"inputType": "text"}, "responseOptions": {"valueType": "xsd:string"}},
        "q5": {"ui": {"inputType": "static"}, "prefLabel": "Breathe.", "altLabel": {"en": "x"}},
        "q6": {**said, "ui": {"inputType": "radio"}, "preamble": {"en": "Lately:"}, "responseOptions": {"choices": yes}},
        "q7": {**said, "ui": {"inputType": "slider"}, "responseOptions": {"choices": same}},
        "q8": {**said, "ui": {"inputType": "number", "readonlyValue": True}},
    }
    definition, warnings = told(activity(tmp_path, items))
    of = definition.index
    assert [(i.kind, i.minimum, i.maximum, i.unit, i.control) for i in (of["q1"], of["q2"])] == [
        ("integer", 0, 10, "", "slider"),
        ("decimal", 0, 9.5, "h", ""),
    ]
    assert [of[f"q{n}"].kind for n in (3, 4, 5, 6)] == ["multiple", "text", "display", "choice"]
    assert of["q5"].text == {"en": "Breathe."} and of["q6"].text == {"en": "Lately:\nHow?"}
    assert [(o.code, o.score) for o in of["q6"].options] == [("true", 1), ("false", 0), ("dk", None)]
    assert [(o.code, o.score) for o in of["q7"].options] == [("1", 1), ("1.5", 1.5), ("1_2", 1)]
    assert of["q3"].options[1] == Option("1", {"en": "say 1", "zh-Hans": "说1"}, 1)
    assert "q8" not in of and any("q8" in line for line in warnings)
    assert any("items/q7#responseOptions.choices[2].image: " in line for line in warnings)
    for kind in ("date", "audioRecord", "selectCountry"):
        file = activity(tmp_path, {**THREE, "q3": {**said, "ui": {"inputType": kind}}})
        assert refused(file) == {("items/q3#ui.inputType", "unsupported")}


@pytest.mark.parametrize(
    ("responses", "fault"),
    [
        ({"choices": [{"name": "x"}]}, ("items/q3#responseOptions.choices[0].value", "required")),
        ({"choices": [{"name": "x", "value": {"en": 1}}]}, ("items/q3#responseOptions.choices[0].value", "wrong_type")),
        ({"choices": []}, ("items/q3#responseOptions.choices", "required")),
        ({"choices": "valueConstraints"}, ("items/q3#responseOptions.choices", "wrong_type")),
        ({}, ("items/q3#responseOptions.choices", "required")),
        ([], ("items/q3#responseOptions", "wrong_type")),
        ("../options", ("items/q3#responseOptions", "unknown_reference")),
        ("../../options", ("items/q3#responseOptions", "unsupported")),
        ("/etc/passwd", ("items/q3#responseOptions", "bad_format")),
        ("https://example.org/options", ("items/q3#responseOptions", "unsupported")),
        ("../link", ("items/q3#responseOptions", "unsupported")),
        ("..\\options", ("items/q3#responseOptions", "bad_format")),
        ("../a\0b", ("items/q3#responseOptions", "bad_format")),
        ("../broken", ("broken.json#line 2", "bad_format")),
        ("../deep", ("deep.json#line 1", "bad_format")),
    ],
)
def test_response_options_are_found_inside_the_folder_or_refused(responses: Any, fault: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    (tmp_path / "options").write_text(json.dumps(CHOICES))
    (folder / "link").symlink_to(tmp_path / "options")
    (folder / "broken.json").write_text('{"choices":\n[1,]}')
    (folder / "deep.json").write_text("[" * 100 + "]" * 100)
    assert refused(activity(folder, {**THREE, "q3": responses})) == {fault}


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    file = activity(tmp_path, {"q1": {"choices": [{"name": "x"}]}, "q2": [], "q3": CHOICES}, {"q3": "q1 +"}, scoringLogic="x")
    assert refused(file) == {
        ("items/q1#responseOptions.choices[0].value", "required"),
        ("items/q2#responseOptions", "wrong_type"),
        ("mood_schema#ui.addProperties[2].isVis", "unsupported"),
        ("mood_schema#scoringLogic", "wrong_type"),
    }
    for more, fault in [
        ({"ui": {}}, ("mood_schema#ui.order", "required")),
        ({"ui": []}, ("mood_schema#ui", "wrong_type")),
        ({"category": "Protocol"}, ("mood_schema#category", "not_one_of")),
        ({"ui": {"order": ["items/q1", "items/q1"]}}, ("mood_schema#ui.order[1].variableName", "exists")),
        ({"ui": {"order": ["items/none"]}}, ("mood_schema#ui.order[0]", "unknown_reference")),
    ]:
        assert fault in refused(activity(tmp_path, THREE, **more))


def test_older_spellings(tmp_path: Path) -> None:
    """Releases before 1.0.0: prefixes, bare texts, scoringLogic, Field, lists in @list, .jsonld."""
    (tmp_path / "items").mkdir()
    for n in (1, 2):
        field = {
            "@type": "reproschema:Field", "@id": f"q{n}.jsonld", "schema:question": [{"@language": "en", "@value": f"{n}?"}],
            "ui": {"inputType": "radio"}, "reproschema:responseOptions": "../options.jsonld",
        }  # fmt: skip
        (tmp_path / "items" / f"q{n}.jsonld").write_text(json.dumps(field))
    choices = [{"schema:name": "no", "schema:value": 0}, {"schema:name": "yes", "schema:value": 1}]
    (tmp_path / "options.jsonld").write_text(json.dumps({"@type": "reproschema:ResponseOption", "choices": choices}))
    node = {
        "@type": "reproschema:Activity", "@id": "mood_schema", "skos:prefLabel": "Mood", "preamble": "Lately:",
        "scoringLogic": computing(("sum", "q1 + q2")), "cronbach": 0.8,
        "ui": {"order": {"@list": ["items/q1.jsonld", "items/q2.jsonld"]}, "addProperties": [
            {"isAbout": f"items/q{n}.jsonld", "variableName": f"q{n}", "isVis": True, "isRequired": n == 1, "limit": "P1D"}
            for n in (1, 2)]},
    }  # fmt: skip
    file = tmp_path / "mood_schema.jsonld"
    file.write_text(json.dumps(node))
    definition, warnings = told(file)
    assert definition.slug == "mood" and definition.languages == ("en",)
    assert [item.required for item in definition.items] == [False, True, False]
    assert score(definition, {"q1": "1", "q2": "1"}).total == 2
    assert {line.partition(":")[0] for line in warnings} >= {f"{file.name}#cronbach", f"{file.name}#ui.addProperties[0].limit"}


ODD: list[Any] = [
    None, True, 0, -1, 1e9, 2**70, 1.5, "", "x", "q1", "../../x", "items/q1", "\ud800", "\0", "a" * 600, [], [[]], {}, {"en": 1},
    {"\ud800": "x"}, {"en": "\ud800"}, [None], [{}], ["items/q1"], {"@list": [{}]}, {"@value": 1}, "9" * 5000 + " + q1",
    "q1 > 1e400",
]  # fmt: skip


def test_whatever_stands_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    """Values of a sound activity and its item replaced by odd ones, each by a third of them: no failure but `Invalid`."""
    item: Any = {
        "category": "Item",
        "question": {"en": "?"},
        "ui": {"inputType": "radio"},
        "responseOptions": CHOICES,
        "preamble": {},
    }
    file = activity(tmp_path, {"q1": item, "q2": CHOICES}, {"q2": "q1 > 0"}, preamble={"en": "x"}, scoringLogic=[])
    counts = {"read": 0, "refused": 0}

    def spots(node: Any) -> list[tuple[Any, Any]]:
        pairs = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else [])
        return [(node, key) for key, _ in pairs] + [spot for _, below in pairs for spot in spots(below)]

    for target in (file, tmp_path / "items" / "q1"):
        sound = target.read_text(encoding="utf-8")
        for n, (k, odd) in itertools.product(range(len(spots(json.loads(sound)))), enumerate(ODD)):
            if (n + k) % 3:
                continue  # a third of them, spread evenly
            node = json.loads(sound)
            place, key = spots(node)[n]
            place[key] = odd
            target.write_text(json.dumps(node), encoding="utf-8")
            try:
                definition, warnings = told(file)
                text = repr(warnings) + definition.version
                counts["read"] += 1
            except Invalid as failure:
                text = "".join(t for error in failure.errors for t in (error.field, *error.messages.values()))
                counts["refused"] += 1
            text.encode()
        target.write_text(sound, encoding="utf-8")
    assert counts["read"] > 100 and counts["refused"] > 200, counts


@pytest.mark.parametrize(
    "compute", [[("a", "b + q1"), ("b", "a + q2")], [(f"s{n}", f"s{n - 1} + q1" if n else "q1 + q2") for n in range(7)]]
)
def test_sums_in_a_circle_or_a_tower_are_refused(compute: list[tuple[str, str]], tmp_path: Path) -> None:
    faults = refused(activity(tmp_path, THREE, compute=computing(*compute)))
    assert faults and {code for _, code in faults} == {"circular"}
    many = computing(*((f"s{n}", "q1 + q2") for n in range(31)))
    assert refused(activity(tmp_path, THREE, compute=many)) == {("mood_schema#compute", "out_of_range")}


# --- import ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_activities_becomes_drafts(clean: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = tmp_path / "library"
    shutil.copytree(DATA, library / "activities")
    (library / "activities" / "EPDS" / "EPDS_schema.yaml").write_text("source: Cox 1987\ntotal: {reverse: [epds_3]}\n")
    activity(library / "bad", THREE, {"q3": "q1 > q2"})
    activity(library / "double", THREE)  # the same key
    (library / "package.json").write_text("{}")
    rows = {row["source"]: row for row in checkfiles.import_files(library, SYSTEM)}
    drafts = {f"activities/{name}": "new" for name in REAL}
    others = {"bad/mood_schema": "refused", "double/mood_schema": "refused", "library": "skipped"}
    assert {name: row["outcome"] for name, row in rows.items()} == {**drafts, **others}
    for name, (items, low, high, _) in REAL.items():
        row = rows[f"activities/{name}"]
        assert (row["items"], row["scales"]) == (items, {"total": (low, high)}) and "en" in row["languages"]
    [skipped] = rows["library"]["messages"]
    for part in ("60 Item (", "ResponseOption (", "activities/GAD7/valueConstraints.json", "1 JSON (package.json)"):
        assert part in skipped["en"], skipped
    assert "bad/mood_schema#ui.addProperties[2].isVis" in rows["bad/mood_schema"]["messages"][0]["en"]
    assert "mood (bad/mood_schema)" in rows["double/mood_schema"]["messages"][0]["en"]
    epds = checks.by_slug("epds")
    assert epds.register.source == "Cox 1987"
    assert (total := epds.parsed().total) is not None and total.reverse == ("epds_3",)
    assert {row["outcome"] for row in checkfiles.import_files(library / "activities", SYSTEM)} == {"unchanged", "skipped"}
    with pytest.raises(SystemExit):
        cli.report(rows.values(), False)
    table = " ".join(capsys.readouterr().out.split())
    assert "activities/GAD7/GAD7_schema.json new gad7: 7 题 items; total 0 … 21; zh-Hans, en, ko, + 19" in table
    assert "bad/mood_schema refused " in table


def test_one_activity_by_its_file_and_no_folder_deeper_than_six(clean: None, tmp_path: Path) -> None:
    file = activity(tmp_path / "a", THREE)
    [row] = checkfiles.import_files(file, SYSTEM, True)
    assert (row["outcome"], row["key"], row["items"]) == ("new", "mood", 3)
    deep = tmp_path / "1" / "2" / "3" / "4" / "5" / "6"
    deep.mkdir(parents=True)
    shutil.copytree(tmp_path / "a", deep / "b")
    (tmp_path / "1" / "link").symlink_to(tmp_path / "a")
    [row] = checkfiles.import_files(tmp_path / "1", SYSTEM, True)
    assert row["outcome"] == "skipped" and "1 folder (2/3/4/5/6/b); 1 link (link)" in row["messages"][0]["en"]


def test_what_no_answer_could_name_is_refused(tmp_path: Path) -> None:
    many = {**CHOICES, "multipleChoice": True, "choices": [{"name": str(n), "value": n} for n in range(101)]}
    for name, items in (("q1", {"q1": many, "q2": CHOICES}), ("total", {"total": CHOICES, "q2": CHOICES}),
                        ("q\u200b", {"q\u200b": CHOICES, "q2": CHOICES}), ("__proto__", {"__proto__": CHOICES, "q2": CHOICES}),
                        ("q" * 200, {"q" * 200: CHOICES, "q2": CHOICES})):  # fmt: skip
        folder = tmp_path / str(len(name)) / name[:3]
        folder.mkdir(parents=True)
        file = activity(folder, items, compute=computing(("score", "q2" if name == "q1" else f"{name} + q2")))
        if len(name) < 200:
            assert refused(file), name
        else:
            assert told(file)[0].index.keys() == {name, "q2"}

"""Real FHIR R4 Questionnaires: each is accepted as expected or refused with path and reason; then the odd ones, made up."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from content import definition as definitions
from content import fhirpath, scoring
from content.definition import Definition
from content.failures import Invalid
from content.fhir import MAX_DEPTH, parse, read_questionnaire

DATA = Path(__file__).parents[2] / "shared" / "data" / "fhir"
ORDINAL = "http://hl7.org/fhir/StructureDefinition/ordinalValue"
WEIGHT = "http://hl7.org/fhir/StructureDefinition/itemWeight"
CALCULATED = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-calculatedExpression"
VARIABLE = "http://hl7.org/fhir/StructureDefinition/variable"

# file -> total and reach when accepted, else (field, code) of its refusals: all of them, or some and MORE says how many
EXPECTED: dict[str, Any] = {
    "af_calculated_expression": {("item[0].type", "unsupported")},
    "af_constraint": {("item[1].extension[0]", "unsupported")},
    "af_repeated_group": {("item[0].repeats", "unsupported"), ("item[0].item[0].type", "unsupported")},
    "af_screener": {("item[0].item[1].item[0].answerOption", "required"), ("item[0].item[1]", "unsupported")},
    "af_skip_logic": {("item[1].type", "unsupported")},
    "af_slider": (None, 0, 0),
    "fb_enablewhen_missing_linkid": {("item[2].enableWhen[0].question", "unknown_reference")},
    "lf_apgar_itemweight": ("sum_if_complete", 0, 10),
    "lf_calculatedexpression": {
        ("item[1].extension[0].valueExpression", "unsupported"),
        ("item[4].type", "unsupported"),
        ("item[6].answerOption[0].valueCoding.code", "required"),
    },
    "lf_contained_vs": ("sum", 2, 40),
    "lf_enablewhen": {
        ("item[3].item[0].type", "unsupported"),
        ("item[7].item[0].repeats", "wrong_type"),
        ("item[13].item[2].extension[0]", "unsupported"),
    },
    "lf_enablewhen_expression": {("item[0].item[4].extension[0]", "unsupported")},
    "lf_enablewhen_loop": {(f"item[{n}].enableWhen", "circular") for n in range(3)},
    "lf_invalid_xhtml": (None, 0, 0),
    "lf_minmaxoccurs": {("item[0].repeats", "unsupported"), ("item[0].item[0].answerOption", "unsupported")},
    "lf_modifierextension": {("modifierExtension", "unsupported")},
    "lf_phq9": ("sum", 0, 27),
    "lf_phq9_weight_function": ("sum", 0, 27),
    "rk_contained_valueset": (None, 0, 0),
    "rk_form": {("item[1].item[1].type", "unsupported")},
    "rk_gad7": ("sum", 0, 21),
    "rk_gcs": (None, 0, 0),
    "rk_number": (None, 0, 0),
    "rk_phq9": ("sum", 0, 27),
    "rk_skiplogic": {("line 82", "bad_format")},
    "rk_slider": (None, 0, 0),
    "rk_text_validation": (None, 0, 0),
    "sdc_hunger_vital_signs": {("item[2].extension[4].valueExpression", "unsupported")},
    "sdc_phq9": ("sum", 0, 27),
    "sdc_test_all_data_types": {
        ("item[0].item[5].type", "unsupported"),
        ("item[0].item[11].answerValueSet", "unknown_reference"),
    },
    "sdc_test_enablewhen": {
        ("item[0].item[6].enableWhen[0].answerString", "wrong_type"),
        ("item[1].item[0].answerValueSet", "unknown_reference"),
        ("item[4].item[3].type", "unsupported"),
    },
    "sdc_test_initial_multi": {("item[0].item[0].answerValueSet", "unknown_reference")},
    "sdc_test_required": {("item[0].item[1].answerValueSet", "unknown_reference")},
    "sdc_weight_height_bmi": {("item[3].extension[1].valueExpression", "unsupported")},
    "tw_adl_assessment_example": ("sum", 0, 110),
    "tw_caregiver": (None, 0, 0),
    "tw_caregiver_support": (None, 0, 0),
    "tw_communication": (None, 0, 0),
    "tw_iadl": ("sum", 8, 30),
    "tw_mental": (None, 0, 0),
    "tw_society": (None, 0, 0),
}
MORE = {"af_screener": 34, "lf_calculatedexpression": 14, "lf_enablewhen": 39, "lf_minmaxoccurs": 3,
        "sdc_test_all_data_types": 8, "sdc_test_enablewhen": 19}  # fmt: skip


def whole(made: Definition) -> tuple[str | None, Any, Any]:
    """The total's method, least and most; no method without a total."""
    return (made.total.method, *made.reach(made.total)) if made.total else (None, 0, 0)


def test_every_real_file_is_accepted_or_refused_as_expected() -> None:
    if not DATA.is_dir():
        pytest.skip(f"no real questionnaires: {DATA} is not there")
    seen: dict[str, Any] = {}
    supplied = [json.loads(file.read_text()) for file in sorted((DATA / "support").glob("*.json"))]
    for file in sorted(DATA.glob("*.json")):
        try:
            made, warnings = read_questionnaire(file.read_bytes(), supplied, slug=file.stem)
        except Invalid as failure:
            seen[file.stem] = {(error.field, error.code) for error in failure.errors}
            first = failure.errors[0]
            assert all(error.field and error.messages["zh-Hans"] for error in failure.errors)
            print(f"{file.name:34} refused   {len(failure.errors):3}  {first.field}: {first.messages['en'][:110]}")
        else:
            seen[file.stem] = whole(made)
            again = definitions.from_json(json.loads(json.dumps(definitions.to_json(made))))
            assert again.version == made.version
            what = f"{len(made.index)} items, total {seen[file.stem]}, {'/'.join(made.languages)}"
            print(f"{file.name:34} accepted  {len(warnings):3}  {what}")
    for name, expected in EXPECTED.items():
        if name in MORE:
            assert (expected <= seen[name], len(seen[name])) == (True, MORE[name]), name
        else:
            assert seen[name] == expected, name


# --- made up ---------------------------------------------------------------------------------------------------------


def coding(code: str, score: Any = None, url: str = ORDINAL) -> dict[str, Any]:
    """An answerOption."""
    option: dict[str, Any] = {"valueCoding": {"code": code, "display": f" {code} "}}
    return option if score is None else option | {"extension": [{"url": url, "valueDecimal": score}]}


def page(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A Questionnaire; items without one get linkIds a, b, c, … and are choices from 0 to 2."""
    made = []
    for n, item in enumerate(items):
        base: dict[str, Any] = {"linkId": "abcdefgh"[n] if n < 8 else "", "text": "Q", "type": "choice"}
        if item.get("type", "choice") == "choice" and "answerValueSet" not in item:
            base["answerOption"] = [coding("x", 0), coding("y", 1), coding("z", 2)]
        made.append({k: v for k, v in (base | item).items() if v is not None})
    return {"resourceType": "Questionnaire", "status": "active", "language": "en", "title": "T", "item": made, **more}


def read(value: dict[str, Any], *valuesets: dict[str, Any]) -> Definition:
    return read_questionnaire(json.dumps(value), valuesets)[0]


def refused(value: Any, *valuesets: dict[str, Any]) -> set[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        read_questionnaire(value if isinstance(value, bytes | str) else json.dumps(value), valuesets)
    return {(error.field, error.code) for error in caught.value.errors}


def total(expression: str, *variables: str) -> dict[str, Any]:
    """An item with a total in FHIRPath; variables are "name=expression"."""
    named = [v.split("=", 1) for v in variables]
    return {
        "linkId": "sum",
        "type": "decimal",
        "extension": [
            *({"url": VARIABLE, "valueExpression": {"name": n, "language": "text/fhirpath", "expression": e}} for n, e in named),
            {"url": CALCULATED, "valueExpression": {"language": "text/fhirpath", "expression": expression}},
        ],
    }


CONCEPTS = [
    {"code": "low", "display": "Low", "extension": [{"url": ORDINAL, "valueDecimal": 1}]},
    {"code": "high", "display": "High", "extension": [{"url": ORDINAL, "valueDecimal": 4}],
     "designation": [{"language": "zh-CN", "value": "高 "}]},
]  # fmt: skip


def valueset(**more: Any) -> dict[str, Any]:
    return {"resourceType": "ValueSet", "id": "vs", "url": "urn:vs", "status": "active", **more}


COMPOSED = valueset(compose={"include": [{"system": "urn:s", "concept": CONCEPTS}]})
EXPANDED = valueset(expansion={"contains": [{"system": "urn:s", **concept} for concept in CONCEPTS]})


@pytest.mark.parametrize(
    ("questionnaire", "valuesets", "reach"),
    [
        (page({"answerOption": [coding("x", 1), coding("y", 4)]}), (), (1, 4)),
        (page({"answerOption": [coding("x", 1, WEIGHT), coding("y", 4, WEIGHT)]}), (), (1, 4)),
        (page({"answerOption": [{"valueCoding": coding(c, n)["valueCoding"] | {"extension": coding(c, n)["extension"]}}
                                for c, n in (("x", 1), ("y", 4))]}), (), (1, 4)),
        (page({"answerValueSet": "#vs"}, contained=[COMPOSED]), (), (1, 4)),
        (page({"answerValueSet": "#vs"}, contained=[EXPANDED]), (), (1, 4)),
        (page({"answerValueSet": "urn:vs|1.0"}), (COMPOSED,), (1, 4)),
        (page({"answerValueSet": "urn:vs"}), (valueset(compose={"include": [{"system": "urn:cs"}]}),
         {"resourceType": "CodeSystem", "url": "urn:cs", "content": "complete", "concept": CONCEPTS}), (1, 4)),
        (page({"answerOption": [{"valueInteger": 1}, {"valueInteger": 4}]}), (), (1, 4)),
        (page({"answerOption": [{"valueString": "x"}, {"valueString": "y"}]}), (), (0, 0)),
    ],
)  # fmt: skip
def test_scores_are_found_wherever_they_stand(
    questionnaire: dict[str, Any], valuesets: tuple[dict[str, Any], ...], reach: tuple[int, int]
) -> None:
    made = read(questionnaire, *valuesets)
    assert whole(made) == ("sum" if reach[1] else None, *reach)


@pytest.mark.parametrize(
    ("expression", "variables", "counted", "mode"),
    [
        ("%resource.answers().value.ordinal().sum()", (), "ab", "sum"),
        ("%resource.repeat(item).answer.weight().sum()", (), "ab", "sum"),
        ("answers().value.ordinal().sum()", (), "ab", "sum"),
        ("%resource.item.where(linkId != 'b').answer.weight().sum()", (), "a", "sum"),
        ("%a + %b", ("a=%resource.item.where(linkId='a').answer.weight()", "b=%resource.item.where(linkId='b').answer.weight()"),
         "ab", "sum_if_complete"),
        ("iif(%a.exists(), %a, 0) + iif(%b.exists(), %b, 0)",
         ("a=%resource.item.where(linkId='a').answer.weight()", "b=%resource.item.where(linkId='b').answer.weight()"),
         "ab", "sum"),
    ],
)  # fmt: skip
def test_a_total_that_is_a_sum_is_taken(expression: str, variables: tuple[str, ...], counted: str, mode: str) -> None:
    made = read(page({}, {}, total(expression, *variables)))
    assert made.total
    assert (made.total.method, "".join(made.total.of), made.total.link_id) == (mode, counted, "sum")
    assert "sum" not in made.index


@pytest.mark.parametrize(
    "expression",
    [
        "%resource.item.answer.weight().sum() * 2",
        "%resource.item.answer.weight().sum() + 1",
        "iif(%resource.item.answer.weight().sum() > 3, 3, %resource.item.answer.weight().sum())",
        "%resource.item.where(linkId='a').answer.weight() * %resource.item.where(linkId='b').answer.weight()",
        "%resource.item.answer.weight().max()",
        "today().toString().length()",
        "%nobody + 1",
        "((",
        "'three'",
        "true",
        "%resource.item.answer.value.code.matches('(a+)+$')",
    ],
)
def test_a_total_that_is_no_sum_is_refused_by_name(expression: str) -> None:
    assert refused(page({}, {}, total(expression))) == {("item[2].extension[0].valueExpression", "unsupported")}


WIDE = "%resource.item" + ".select(%resource.item)" * 12 + ".count()"


@pytest.mark.parametrize(
    ("expression", "variables", "reason"),
    [
        ("(1).repeat($this + 1).count()", (), "too long"),
        ("%resource.item.select(%resource.item.where(%resource.item.where(%resource.item.exists()))).count()", (),
         "too long"),
        (WIDE, (), ""),
        ("%resource.item.select(%resource.descendants()).count()", (), ""),
        ("%resource.item.combine(%resource.item).count()", (), "combine()"),
        ("%v31.count()", tuple(f"v{n + 1}=%v{n} | %v{n}" if n else "v1=1" for n in range(31)), "> 30 variables"),
        ("%v16", ("v0=9", *(f"v{n + 1}=%v{n} * %v{n}" for n in range(16))), "too large"),
        ("%resource.item.aggregate($total + $total, 'aaaa')", (), "> 10000 characters"),
        ("9" * 4000, (), "too large"),
        ("now/**/()", (), "now()"),
    ],
)  # fmt: skip
def test_an_expression_that_runs_away_is_stopped(
    expression: str, variables: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fhirpath, "ONE", 0.2)
    value = page(*({"linkId": f"q{n}"} for n in range(60)), total(expression, *variables))
    with pytest.raises(Invalid) as caught:
        read_questionnaire(json.dumps(value))
    assert reason in caught.value.errors[0].messages["en"]


def test_many_questions_have_their_total_in_little_time() -> None:
    """490 ordinary ones; and parts of many."""
    every = total("%resource.item.answer.weight().sum()")
    begun = time.thread_time()
    made = read(page(*({"linkId": f"q{n}"} for n in range(490)), every))
    used = time.thread_time() - begun
    print(f"490 questions: {used:.1f} s")
    assert made.total and (len(made.total.of), made.total.method) == (490, "sum")
    assert used < 5
    # a part of many questions is found too, and one that is left out for one answer of one question is not taken for it
    half = total("%resource.item.where(linkId >= 'q30').answer.weight().sum()")
    made = read(page(*({"linkId": f"q{n}"} for n in range(60)), half))
    assert made.total and made.total.of == tuple(f"q{n}" for n in range(60) if f"q{n}" >= "q30")
    odd = "%resource.item.where(linkId != 'q41' or answer.value.code != 'y').answer.weight().sum()"
    assert refused(page(*({"linkId": f"q{n}"} for n in range(60)), total(odd)))


@pytest.mark.parametrize(
    ("item", "field", "code"),
    [
        ({"linkId": "q" * 256}, "item[0].linkId", "out_of_range"),
        ({"linkId": "__proto__"}, "item[0].linkId", "bad_format"),
        ({"linkId": "q\u200b"}, "item[0].linkId", "bad_format"),
        ({"linkId": "q\u200d1"}, "item[0].linkId", "bad_format"),
        ({"linkId": "q\x07"}, "item[0].linkId", "bad_format"),
        ({"linkId": "total"}, "item[0].linkId", "unsupported"),
        ({"answerOption": [coding("x", 0), coding("y" * 501, 1)]}, "item[0]", "out_of_range"),
        ({"answerOption": [coding("x", 0), coding("x\ufeffy", 1)]}, "item[0]", "bad_format"),
        ({"answerOption": [coding(f"c{n}", n) for n in range(101)], "repeats": True}, "item[0]", "out_of_range"),
        ({"answerOption": [coding(f"c{n}", n) for n in range(501)]}, "item[0]", "out_of_range"),
    ],
)  # fmt: skip
def test_what_no_answer_could_name_is_refused(item: dict[str, Any], field: str, code: str) -> None:
    assert refused(page(item)) == {(field, code)}
    assert read(
        page(
            {"answerOption": [coding(f"c{n}", n) for n in range(500)]}, {"answerOption": [{"valueString": "\u0645\u200c\u0645"}]}
        )
    )


def test_a_file_of_nothing_but_faults_is_refused_at_once() -> None:
    begun = time.thread_time()
    items = '{"resourceType": "Questionnaire", "item": [' + "{}," * 300_000 + "{}]}"
    extensions = '{"resourceType": "Questionnaire", "status": "x", "extension": [' + '{"url": "a"},' * 60_000 + "{}]}"
    for value in (items, extensions):
        with pytest.raises(Invalid) as caught:
            read_questionnaire(value)
        assert len(caught.value.errors) <= 500
    used = time.thread_time() - begun
    print(f"{used:.1f} s")
    assert used < 5


def test_several_totals_are_scales_and_the_widest_is_the_total() -> None:
    def named(expression: str, link_id: str, text: str) -> dict[str, Any]:
        return total(expression) | {"linkId": link_id, "text": text}

    part = named("%resource.item.where(linkId='a').answer.weight().sum()", "Part 1/a", "Mood")
    all_of_it = named("%resource.answers().weight().sum()", "sum", "All")
    made = read(page({}, {}, part, all_of_it))
    assert [(s.code, s.of, s.link_id, s.name) for s in made.scales] == [
        ("total", ("a", "b"), "sum", {}), ("part_1_a", ("a",), "Part 1/a", {"en": "Mood"}),
    ]  # fmt: skip
    assert made.index.keys() == {"a", "b"}
    # one that names another's number; and one that stands twice is one
    other = named("%resource.item.where(linkId='b').answer.weight().sum()", "999", "2. Schlaf")
    both = named("%resource.item.where(linkId='Part 1/a' or linkId='999').answer.value.sum()", "both", "Both")
    made = read(page({}, {}, both, part, other, both | {"linkId": "again"}))
    assert [(s.code, s.of) for s in made.scales] == [("total", ("a", "b")), ("part_1_a", ("a",)), ("scale_1", ("b",))]
    # by itself this is the sum of scores; beside the other number it is not
    greedy = named("%resource.item.answer.weight().sum() + iif(%resource.item.where(linkId='999').exists(), 1, 0)", "g", "G")
    assert refused(page({}, {}, greedy, other)) == {("item[2].extension[0].valueExpression", "unsupported")}


def test_translations_are_read_and_a_half_translated_language_is_not_offered() -> None:
    def spoken(text: str, lang: str = "zh-CN") -> dict[str, Any]:
        url = "http://hl7.org/fhir/StructureDefinition/translation"
        return {"extension": [{"url": url, "extension": [
            {"url": "lang", "valueCode": lang}, {"url": "content", "valueString": f"  {text}\t"}]}]}  # fmt: skip

    options: list[dict[str, Any]] = [
        {"valueCoding": {"code": "x", "display": "Never", "_display": spoken("从不")}},
        {"valueString": "y"},
    ]
    questionnaire = page({"text": "Q", "_text": spoken("问题"), "answerOption": options}, _title=spoken("标题"))
    made = read(questionnaire)
    assert made.title == {"en": "T", "zh-Hans": "标题"}
    assert made.index["a"].text == {"en": "Q", "zh-Hans": "问题"}
    assert made.index["a"].options[0].text == {"en": "Never", "zh-Hans": "从不"}
    assert made.languages == ("en",)
    options[1]["_valueString"] = spoken("是")
    assert read(questionnaire).languages == ("en", "zh-Hans")
    assert read(page({"answerValueSet": "#vs"}, contained=[COMPOSED])).index["a"].options[1].text["zh-Hans"] == "高"
    assert refused(page({"_text": spoken("x", "not a tag!")})) == {("item[0]._text.extension[0]", "bad_format")}


def test_what_is_missing_and_harmless_is_a_warning() -> None:
    value = page({}, id="has spaces", text={"status": "generated"}, contained=[{"resourceType": "ValueSet", "id": "v"}], odd=1)
    del value["status"], value["language"]
    _, warnings = read_questionnaire(json.dumps(value))
    assert {line.partition(":")[0] for line in warnings} == {"status", "id", "text.div", "contained[0].status", "odd", "language"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How are you?", "en"),
        ("你最近睡得好吗", "zh-Hans"),
        ("你最近睡得好嗎", "zh-Hant"),
        ("ᠮᠣᠩᠭᠣᠯ", "mn-Mong"),
        ("Blau", "und"),
    ],
)
def test_a_language_that_is_not_named_is_told_by_its_script(text: str, language: str) -> None:
    value = page({"text": text}, title=text)
    del value["language"]
    made, warnings = read_questionnaire(json.dumps(value))
    assert made.index["a"].text == {language: text}
    assert any(language in line for line in warnings)
    assert read_questionnaire(json.dumps(value), language="zh-CN")[0].index["a"].text == {"zh-Hans": text}


def when(question: str, operator: str = "=", **answer: Any) -> dict[str, Any]:
    return {"question": question, "operator": operator, **answer}


@pytest.mark.parametrize(
    ("rule", "field", "code"),
    [
        ([when("nobody", answerBoolean=True)], ".enableWhen[0].question", "unknown_reference"),
        ([when("b", answerCoding={"code": "x"})], ".enableWhen", "circular"),
        ([when("a", "~", answerBoolean=True)], ".enableWhen[0].operator", "unsupported"),
        ([when("a", "exists", answerBoolean="true")], ".enableWhen[0].answerBoolean", "wrong_type"),
        ([when("a", answerString="x")], ".enableWhen[0].answerString", "wrong_type"),
        ([when("a", answerCoding={"code": "nothing"})], ".enableWhen[0].answerCoding", "unknown_reference"),
        ([when("a", ">", answerCoding={"code": "x"})], ".enableWhen[0].operator", "unsupported"),
        ([when("c", answerInteger="34")], ".enableWhen[0].answerInteger", "wrong_type"),
        ([when("c", answerInteger=3, answerDecimal=3)], ".enableWhen[0].answer[x]", "bad_format"),
        ([when("c")], ".enableWhen[0].answer[x]", "required"),
        ([when("d", "exists", answerBoolean=True)], ".enableWhen[0].question", "unsupported"),
        ([when("a", answerCoding={"code": "x"}), when("a", answerCoding={"code": "y"})], ".enableBehavior", "not_one_of"),
        ("a", ".enableWhen", "wrong_type"),
    ],
)
def test_an_enablewhen_that_cannot_be_followed_is_refused(rule: Any, field: str, code: str) -> None:
    assert refused(page({}, {"enableWhen": rule}, {"type": "integer"}, {"type": "string"})) == {(f"item[1]{field}", code)}


def test_enablewhen_any_all_and_nested() -> None:
    made = read(
        page(
            {},
            {"type": "integer", "enableWhen": [when("a", answerCoding={"code": "z"})]},
            {
                "type": "group",
                "enableBehavior": "any",
                "enableWhen": [when("b", ">=", answerInteger=5), when("a", "!=", answerCoding={"code": "z"})],
                "item": [page({})["item"][0] | {"linkId": "inner"}],
            },
        )
    )

    def asked(answers: dict[str, Any]) -> set[str]:
        result = scoring.score(made, answers)
        return {*result.answered, *result.missing}

    assert asked({}) == {"a", "inner"}
    assert asked({"a": "y"}) == {"a", "inner"}
    assert asked({"a": "z"}) == {"a", "b"}
    assert asked({"a": "z", "b": 4}) == {"a", "b"}
    assert asked({"a": "z", "b": 5}) == {"a", "b", "inner"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (page({"linkId": None}), ("item[0].linkId", "required")),
        (page({"linkId": 5}), ("item[0].linkId", "wrong_type")),
        (page({"linkId": "same"}, {"linkId": "same"}), ("item[1].linkId", "exists")),
        (page({"type": None}), ("item[0].type", "required")),
        (page({"type": "coding"}), ("item[0].type", "unsupported")),
        (page({"type": "boolean", "repeats": True}), ("item[0].repeats", "unsupported")),
        (page({"required": "yes"}), ("item[0].required", "wrong_type")),
        (page({"option": []}), ("item[0].option", "unknown_field")),
        (page({"answerOption": []}), ("item[0].answerOption", "required")),
        (page({"answerOption": [coding("x"), coding("x")]}), ("item[0]", "exists")),
        (page({"answerOption": [{"valueCoding": {"display": "Only a label"}}]}),
         ("item[0].answerOption[0].valueCoding.code", "required")),
        (page({"answerOption": [{"valueDate": "2020"}]}), ("item[0].answerOption[0]", "unsupported")),
        (page({"answerOption": [coding("x", "3")]}), ("item[0].answerOption[0].extension[0].valueDecimal", "wrong_type")),
        (page({"answerOption": [coding("x", 1e300)]}), ("item[0].answerOption[0].extension[0].valueDecimal", "out_of_range")),
        (page({"answerValueSet": "urn:nowhere"}), ("item[0].answerValueSet", "unknown_reference")),
        (page({"answerValueSet": "#vs"}, contained=[valueset(compose={"include": [{"system": "s", "filter": [{}]}]})]),
         ("contained[0].compose.include[0].filter", "unsupported")),
        (page({"text": "a\ud800"}), ("item[0].text", "bad_format")),
        (page({"modifierExtension": [{}]}), ("item[0].modifierExtension", "unsupported")),
        (page({}, item="no"), ("item", "wrong_type")),
        (page({}, item=[5]), ("item[0]", "wrong_type")),
        (page({}, item=[]), ("item", "required")),
        (page({}, status="alive"), ("status", "not_one_of")),
        (page({}, resourceType="Patient"), ("resourceType", "not_one_of")),
        (page({}, language="??"), ("language", "bad_format")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_path(value: dict[str, Any], found: tuple[str, str]) -> None:
    assert found in refused(value)


def test_what_is_no_clean_json_is_refused_with_its_line() -> None:
    good = json.dumps(page({}), indent=1)
    assert parse(b"\xef\xbb\xbf" + good.encode())["status"] == "active"
    assert refused(good.replace('"title"', '"status"', 1)) == {("line 5", "bad_format")}
    assert refused('{\n\n"a": [1, 2,]}') == {("line 3", "bad_format")}
    assert refused(b'{\n"a": "\xff"}') == {("line 2", "bad_format")}
    assert refused("{\n" + '"a":[' * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}") == {("line 2", "bad_format")}
    assert refused("\n" + "[" * 100_000) == {("line 2", "bad_format")}
    for text in ('{"a": NaN}', '{"a": ' + "9" * 60_000 + "}", "[]", "", '"x"'):
        assert refused(text) <= {("file", "bad_format"), ("file", "wrong_type"), ("line 1", "bad_format")}


def test_codes_alone_make_the_version() -> None:
    one = read(page({}))
    assert one.version == read(page({})).version
    other = copy.deepcopy(page({}))
    other["item"][0]["answerOption"][0]["extension"][0]["valueDecimal"] = 5
    assert read(other).version != one.version

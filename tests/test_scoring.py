"""Scores by hand: every instrument at its least, middle and most, every band edge, every skip path, in any order."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from content import scoring
from content.failures import Invalid
from content.fhir import read_questionnaire
from content.scoring import Band, Clause, Critical, Definition, EnableWhen, Item, Option, score

DATA = Path(__file__).parents[2] / "shared" / "data" / "fhir"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real questionnaires: {DATA} is not there")

_read: dict[str, Definition] = {}


def definition(name: str) -> Definition:
    """A real instrument, read once."""
    if name not in _read:
        _read[name] = read_questionnaire((DATA / f"{name}.json").read_bytes(), slug=name)[0]
    return _read[name]


def fails(made: Definition, answers: dict[str, Any]) -> dict[str, str]:
    """field -> code of what `score` refuses."""
    with pytest.raises(Invalid) as caught:
        score(made, answers)
    return {error.field: error.code for error in caught.value.errors}


FREQUENCY = ["Not-at-all", "Several-days", "More than half the days", "Nearly every day"]
LOINC = ["LA6568-5", "LA6569-3", "LA6570-1", "LA6571-9"]
PHQ9 = [f"H1/T1/Q{n}" for n in range(1, 10)]
LF9 = ["/44250-9", "/44255-8", "/44259-0", "/44254-1", "/44251-7", "/44258-2", "/44252-5", "/44253-3", "/44260-8"]
DIFFICULTY = {"/69722-7": "LA6572-7"}  # "not difficult at all": asked, never counted


@real
@pytest.mark.parametrize(
    ("name", "codes", "beside"),
    [("rk_phq9", FREQUENCY, {}), ("sdc_phq9", FREQUENCY, {}), ("rk_gad7", FREQUENCY, {}),
     ("lf_phq9", LOINC, DIFFICULTY), ("lf_phq9_weight_function", LOINC, DIFFICULTY)],
)  # fmt: skip
def test_phq9_and_gad7_by_hand(name: str, codes: list[str], beside: dict[str, str]) -> None:
    made = definition(name)
    asked = [i.link_id for i in made.index.values() if i.kind == "choice" and i.link_id not in beside]
    assert asked == {"rk_gad7": asked, "rk_phq9": asked}.get(name, LF9 if beside else PHQ9)
    count = 7 if name == "rk_gad7" else 9
    assert len(asked) == count

    def total(*picks: int) -> scoring.Number | None:
        result = score(made, {**{link: codes[n] for link, n in zip(asked, picks, strict=True)}, **beside})
        assert result.maximum == 3 * count
        assert not result.missing
        return result.total

    assert total(*[0] * count) == 0
    assert total(*[3] * count) == 3 * count  # 27 and 21
    assert total(*[1] * count) == count
    assert total(*([0, 1, 2, 3] * 3)[:count]) == {9: 12, 7: 9}[count]  # 0+1+2+3 +0+1+2+3 +0 and 0+1+2+3 +0+1+2
    assert total(*[3] * 4, *[0] * (count - 4)) == 12


@real
def test_apgar_is_nothing_until_all_five_are_there() -> None:
    made = definition("lf_apgar_itemweight")
    best = {item.link_id: max(item.options, key=lambda o: o.score or 0).code for item in made.index.values()}
    assert score(made, best).total == 10
    worst = {item.link_id: min(item.options, key=lambda o: o.score or 0).code for item in made.index.values()}
    assert score(made, worst).total == 0
    first = next(iter(best))
    assert score(made, {**best, first: worst[first]}).total == 8
    part = {k: v for k, v in best.items() if k != first}
    assert (score(made, part).total, score(made, part).missing) == (None, (first,))


@real
@pytest.mark.parametrize(
    ("name", "picks", "total"),
    [
        ("tw_adl_assessment_example", "10 5 10 5 10 10 10 15 15 10 10", 110),
        ("tw_adl_assessment_example", "0 0 0 0 0 0 0 0 0 0 0", 0),
        ("tw_adl_assessment_example", "5 0 5 5 0 10 5 10 5 0 5", 50),
        ("tw_iadl", "4 4 4 4 3 5 3 3", 30),
        ("tw_iadl", "1 1 1 1 1 2 1 1", 9),
        ("tw_iadl", "3 2 3 2 2 4 2 2", 20),
        ("lf_contained_vs", "some-system-1|some-code-2 some-system-2|some-code-2", 22),
        ("lf_contained_vs", "some-system-1|some-code-1 some-system-2|some-code-1", 11),
    ],
)
def test_others_by_hand(name: str, picks: str, total: int) -> None:
    made = definition(name)
    asked = [i.link_id for i in made.index.values() if i.kind == "choice"]
    assert score(made, dict(zip(asked, picks.split(), strict=True))).total == total


@real
def test_hl7s_own_example_says_13_and_sums_to_10() -> None:
    response = json.loads((DATA / "support" / "questionnaireresponse-sdc-profile-example-PHQ9.json").read_text())
    rows = response["item"][0]["item"]
    claimed = rows[-1]["answer"][0]["valueQuantity"]["value"]
    answers = {row["linkId"]: row["answer"][0]["valueCoding"]["code"] for row in rows[:-1]}
    result = score(definition("sdc_phq9"), answers)
    assert (claimed, result.total, len(result.answered)) == (13, 10, 9)
    assert fails(definition("sdc_phq9"), {**answers, "H1/TS": 13}) == {"answers.H1/TS": "unknown_field"}


@real
def test_a_part_of_the_sum_has_no_band() -> None:
    bands = [Band("low", 0, 13, {"en": "low"}, {}), Band("high", 14, 27, {"en": "high"}, {})]
    made = scoring.with_rules(definition("rk_phq9"), bands, [])
    asked = [i.link_id for i in made.index.values() if i.kind == "choice"]
    whole = score(made, dict.fromkeys(asked, FREQUENCY[1]))
    assert (whole.total, whole.band and whole.band.code) == (9, "low")
    part = score(made, dict.fromkeys(asked[:8], FREQUENCY[3]))
    assert (part.total, part.band, part.missing) == (24, None, (asked[8],))
    assert score(made, {}).total is None


@real
def test_missing_required_answers_are_all_named() -> None:
    made = definition("rk_gad7")
    asked = [i.link_id for i in made.index.values() if i.kind == "choice"]
    assert fails(made, {asked[0]: "Several-days"}) == {f"answers.{link}": "required" for link in asked[1:]}


# --- a made-up one with everything in it ------------------------------------------------------------------------------

YES_NO = (Option("no", {"en": "No", "zh-Hans": "没有"}, 0), Option("yes", {"en": "Yes", "zh-Hans": "有"}, 1))


def text(words: str) -> dict[str, str]:
    return {"en": words, "zh-Hans": f"{words}？"}


MADE = Definition(
    "made",
    text("made"),
    (
        Item("intro", "display", text("hello")),
        Item("bullied", "choice", text("bullied"), required=True, options=YES_NO),
        Item(
            "more",
            "group",
            text("more"),
            enable_when=EnableWhen(False, (Clause("bullied", "=", "yes"),)),
            items=(
                Item("how", "multiple", text("how"), True, maximum=2, options=tuple(
                    Option(code, text(code), n) for n, code in enumerate(("words", "online", "hands"), 1))),
                Item("told", "boolean", text("told")),
                Item("who", "choice", text("who"), True, options=YES_NO,
                     enable_when=EnableWhen(True, (Clause("told", "=", True), Clause("how", "=", "hands")))),
            ),
        ),
        Item("hours", "decimal", text("sleep"), minimum=0, maximum=24),
        Item("days", "integer", text("days"), minimum=0, maximum=7),
        Item("tired", "choice", text("tired"), options=YES_NO, enable_when=EnableWhen(False, (Clause("hours", "<", 6),))),
        Item("rested", "choice", text("rested"), options=YES_NO, counts=False,
             enable_when=EnableWhen(False, (Clause("tired", "exists", False),))),
        Item("words", "text", text("in your own words"), required=True),
    ),
    total="sum",
    bands=(Band("few", 0, 4, text("few"), {}), Band("many", 5, 9, text("many"), {})),
    critical=(Critical("how", ("hands",)), Critical("told", ("false",))),
)  # fmt: skip


def test_the_made_up_one_is_sound_and_survives_json() -> None:
    assert scoring.faults(MADE) == []
    assert MADE.reach == (0, 8)  # 1 + (2 + 3, at most two) + 1 + 1
    assert MADE.languages == ("en", "zh-Hans")
    again = scoring.from_json(json.loads(json.dumps(scoring.to_json(MADE))))
    assert again == MADE
    assert again.version == MADE.version == replace(MADE, slug="other").version
    assert replace(MADE, total=None).version != MADE.version


@pytest.mark.parametrize(
    ("answers", "total", "critical", "missing"),
    [
        ({"bullied": "no"}, 0, False, {"hours", "days", "rested"}),
        ({"bullied": "no", "hours": 5.5}, 0, False, {"days", "tired", "rested"}),
        ({"bullied": "no", "hours": 5.5, "tired": "yes"}, 1, False, {"days"}),
        ({"bullied": "no", "hours": 6, "days": 7.0, "rested": "yes"}, 0, False, set()),
        ({"bullied": "yes", "how": ["words"]}, 2, False, {"told", "hours", "days", "rested"}),
        ({"bullied": "yes", "how": ["words"], "told": False}, 2, True, {"hours", "days", "rested"}),
        ({"bullied": "yes", "how": ["online", "hands"], "who": "yes"}, 7, True, {"told", "hours", "days", "rested"}),
        ({"bullied": "yes", "how": ["words"], "told": True, "who": "no"}, 2, False, {"hours", "days", "rested"}),
    ],
)
def test_every_path(answers: dict[str, Any], total: int, critical: bool, missing: set[str]) -> None:
    result = score(MADE, answers)
    assert (result.total, result.critical, set(result.missing)) == (total, critical, missing)


@pytest.mark.parametrize(("total", "code"), [(0, "few"), (4, "few"), (5, "many"), (9, "many")])
def test_band_edges(total: int, code: str) -> None:
    items = (Item("n", "choice", text("n"), options=tuple(Option(str(n), text(str(n)), n) for n in range(10))),)
    made = Definition("edges", {}, items, "sum", MADE.bands)
    assert scoring.faults(made) == []
    found = score(made, {"n": str(total)})
    assert found.band is not None
    assert found.band.code == code


def test_every_wrong_answer_is_named_at_once_and_none_repeated() -> None:
    wrong = {
        "bullied": "maybe", "nobody": "x", "hours": 25, "days": 2.5, "intro": "hi", "words": "long story",
        "tired": "yes", "how": ["words", "words"], "told": "yes",
    }  # fmt: skip
    assert fails(MADE, wrong) == {
        "answers.bullied": "not_one_of",
        "answers.nobody": "unknown_field",
        "answers.hours": "out_of_range",
        "answers.days": "wrong_type",
        "answers.intro": "not_asked",
        "answers.words": "not_asked",
        "answers.tired": "not_asked",
        "answers.how": "out_of_range",
        "answers.told": "wrong_type",
    }
    with pytest.raises(Invalid) as caught:
        score(MADE, wrong)
    assert "long story" not in str(caught.value)
    assert "maybe" not in str(caught.value)
    yes = {"bullied": "yes"}
    assert fails(MADE, yes) == {"answers.how": "required"}
    assert fails(MADE, {**yes, "how": []}) == {"answers.how": "required"}
    assert fails(MADE, {**yes, "how": ["hands"]}) == {"answers.who": "required"}
    assert fails(MADE, {**yes, "how": ["words", "online", "hands"], "who": "no"})["answers.how"] == "out_of_range"
    for value in (True, "3", None, float("nan"), float("inf"), 10**400, [3]):
        assert set(fails(MADE, {"bullied": "no", "hours": value})) == {"answers.hours"}


def test_a_wrong_field_never_hides_a_critical_one() -> None:
    assert scoring.is_critical(MADE, {"how": ["hands", "nonsense"], "hours": "x"})
    assert scoring.is_critical(MADE, {"told": False, "unknown": object()})
    assert not scoring.is_critical(MADE, {"how": None, "told": True})


def test_faults_of_bands_and_rules() -> None:
    def codes(**parts: Any) -> list[tuple[str, str]]:
        return [(error.field, error.code) for error in scoring.faults(replace(MADE, **parts))]

    few, many = MADE.bands
    assert codes(bands=(replace(few, maximum=5), many)) == [("bands.many", "out_of_range")]
    assert codes(bands=(replace(few, maximum=3), many)) == [("bands.many", "out_of_range")]
    assert codes(bands=(few, replace(many, maximum=7))) == [("bands.many", "out_of_range")]
    assert codes(bands=(replace(few, minimum=1), many)) == [("bands.few", "out_of_range")]
    assert codes(critical=(Critical("nobody", ("x",)), Critical("how", ("feet",)))) == [("critical", "unknown_reference")] * 2
    loop = tuple(
        Item(a, "boolean", text(a), enable_when=EnableWhen(True, (Clause(b, "=", True),))) for a, b in ("xy", "yz", "zx")
    )
    assert {code for _, code in codes(items=(*MADE.items, *loop))} == {"circular"}


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def filled(draw: st.DrawFn) -> dict[str, Any]:
    """Valid answers to MADE."""
    answers: dict[str, Any] = {"bullied": draw(st.sampled_from(["no", "yes"]))}
    if answers["bullied"] == "yes":
        answers["how"] = draw(st.lists(st.sampled_from(["words", "online", "hands"]), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()):
            answers["told"] = draw(st.booleans())
        if answers.get("told") is True or "hands" in answers["how"]:
            answers["who"] = draw(st.sampled_from(["no", "yes"]))
    if draw(st.booleans()):
        answers["hours"] = draw(st.floats(0, 24))
        if answers["hours"] < 6:
            answers["tired"] = draw(st.sampled_from(["no", "yes"]))
    return answers


@given(filled(), st.randoms(use_true_random=False))
def test_order_does_not_matter(answers: dict[str, Any], chance: Any) -> None:
    shuffled = list(answers.items())
    chance.shuffle(shuffled)
    mixed = {k: chance.sample(v, len(v)) if isinstance(v, list) else v for k, v in shuffled}
    assert score(MADE, mixed) == score(MADE, answers)


@given(filled(), st.dictionaries(st.sampled_from(["en", "zh-Hans", "mn-Mong"]), st.text(max_size=5)))
def test_language_does_not_matter(answers: dict[str, Any], words: dict[str, str]) -> None:
    def spoken(item: Item) -> Item:
        options = tuple(replace(option, text=words) for option in item.options)
        return replace(item, text=words, options=options, items=tuple(map(spoken, item.items)))

    assert score(replace(MADE, items=tuple(map(spoken, MADE.items))), answers) == score(MADE, answers)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["yes", "no", "hands"]), st.lists, max_leaves=4
)


@given(st.dictionaries(st.sampled_from([*MADE.index, "other"]), ANYTHING))
def test_any_answers_score_or_are_refused(answers: dict[str, Any]) -> None:
    try:
        result = score(MADE, answers)
    except Invalid as failure:
        assert failure.errors
        return
    assert result.total is None or 0 <= result.total <= 8
    assert {**dict.fromkeys(result.answered), **dict.fromkeys(result.missing)}.keys() <= MADE.index.keys()

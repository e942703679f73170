"""Scores by hand: every instrument at its least, middle and most, every band edge, every skip path, in any order."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from content import rules, scoring
from content.definition import (
    Band,
    Clause,
    Critical,
    Definition,
    EnableWhen,
    Item,
    Norm,
    Number,
    Option,
    Scale,
    Validity,
    from_json,
    to_json,
)
from content.failures import Invalid
from content.fhir import read_questionnaire
from content.scoring import About, score

DATA = Path(__file__).parents[2] / "shared" / "data" / "fhir"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real questionnaires: {DATA} is not there")

_read: dict[str, Definition] = {}


def definition(name: str) -> Definition:
    """A real instrument, read once."""
    if name not in _read:
        _read[name] = read_questionnaire((DATA / f"{name}.json").read_bytes(), slug=name)[0]
    return _read[name]


def fails(made: Definition, answers: dict[str, Any], about: About = scoring.NOBODY) -> dict[str, str]:
    """field -> code of what `score` refuses."""
    with pytest.raises(Invalid) as caught:
        score(made, answers, about)
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

    def total(*picks: int) -> Number | None:
        result = score(made, {**{link: codes[n] for link, n in zip(asked, picks, strict=True)}, **beside})
        assert result.reading("total").maximum == 3 * count  # type: ignore[union-attr]
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
    bands = [{"code": "low", "min": 0, "max": 13, "text": "low"}, {"code": "high", "min": 14, "max": 27, "text": "high"}]
    made = rules.laid(definition("rk_phq9"), {"bands": bands})
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
        Item("rested", "choice", text("rested"), options=YES_NO,
             enable_when=EnableWhen(False, (Clause("tired", "exists", False),))),
        Item("words", "text", text("in your own words"), required=True),
    ),
    scales=(Scale("total", ("bullied", "how", "who", "tired"),  # `rested` is asked and never counted
                  bands=(Band("few", 0, 4, text("few"), {}), Band("many", 5, 9, text("many"), {}))),),
    critical=(Critical("how", ("hands",)), Critical("told", ("false",))),
)  # fmt: skip
TOTAL = MADE.scales[0]


def test_the_made_up_one_is_sound_and_survives_json() -> None:
    assert rules.faults(MADE) == []
    assert MADE.reach(TOTAL) == (0, 8)  # 1 + (2 + 3, at most two) + 1 + 1
    assert MADE.languages == ("en", "zh-Hans")
    again = from_json(json.loads(json.dumps(to_json(MADE))))
    assert again == MADE
    assert again.version == MADE.version == replace(MADE, slug="other").version
    assert replace(MADE, scales=()).version != MADE.version


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
    made = Definition("edges", {}, items, (replace(TOTAL, of=("n",)),))
    assert rules.faults(made) == []
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
        return [(error.field, error.code) for error in rules.faults(replace(MADE, **parts))]

    def bands(*rows: Band) -> list[tuple[str, str]]:
        return codes(scales=(replace(TOTAL, bands=rows),))

    few, many = TOTAL.bands
    assert bands(replace(few, maximum=5), many) == [("bands.many", "out_of_range")]
    assert bands(replace(few, maximum=3), many) == [("bands.many", "out_of_range")]
    assert bands(few, replace(many, maximum=7)) == [("bands", "out_of_range")]
    assert bands(replace(few, minimum=1), many) == [("bands.few", "out_of_range")]
    assert codes(critical=(Critical("nobody", ("x",)), Critical("how", ("feet",)))) == [("critical", "unknown_reference")] * 2
    loop = tuple(
        Item(a, "boolean", text(a), enable_when=EnableWhen(True, (Clause(b, "=", True),))) for a, b in ("xy", "yz", "zx")
    )
    assert {code for _, code in codes(items=(*MADE.items, *loop))} == {"circular"}


# --- scales, norms, ages, doubts --------------------------------------------------------------------------------------


def likert(link_id: str, *scores: Number | None, **more: Any) -> Item:
    """A choice whose codes are "a", "b", … with these scores."""
    codes = "abcdefgh"[: len(scores)]
    options = tuple(Option(c, text(c), n) for c, n in zip(codes, scores, strict=True))
    return Item(link_id, "choice", text(link_id), options=options, **more)


def asking(*items: Item, **more: Any) -> Definition:
    """A definition of these items that has no faults."""
    made = Definition("asking", text("asking"), items, **more)
    assert [str(fault) for fault in rules.faults(made)] == []
    return made


def band(code: str, low: Number, high: Number) -> Band:
    return Band(code, low, high, text(code), {})


def values(made: Definition, answers: dict[str, Any], about: About = scoring.NOBODY) -> dict[str, tuple[Any, ...]]:
    """{scale: (value, band)} of some answers."""
    return {r.scale.code: (r.value, r.band and r.band.code) for r in score(made, answers, about).readings}


SIX = tuple(likert(f"q{n}", 0, 1, 2, 3) for n in range(6))
NESTED = asking(
    *SIX,
    scales=(
        Scale("total", ("mood", "body", "q5"), bands=(band("low", 0, 9), band("high", 9, 15))),
        Scale("mood", ("sad", "q2")),
        Scale("sad", ("q0", "q1"), "sum_if_complete", reverse=("q1",)),
        Scale("body", ("q3", "q4"), "mean", bands=(band("calm", 0, 1.5), band("tense", 1.5, 3))),
    ),
)


def test_scales_within_scales() -> None:
    answers = dict(zip(("q0", "q1", "q2", "q3", "q4", "q5"), "bcdbcd", strict=True))  # 1, 2 (reversed 1), 3, 1, 2, 3
    assert values(NESTED, answers) == {"total": (9.5, "high"), "mood": (5, None), "sad": (2, None), "body": (1.5, "tense")}
    assert {r.scale.code: (r.minimum, r.maximum) for r in score(NESTED, answers).readings} == {
        "total": (0, 15), "mood": (0, 9), "sad": (0, 6), "body": (0, 3),
    }  # fmt: skip
    del answers["q1"]  # the inner sum is off, the outer ones go on without it and have no band
    assert values(NESTED, answers) == {"total": (7.5, None), "mood": (3, None), "sad": (None, None), "body": (1.5, "tense")}


@pytest.mark.parametrize(
    ("picks", "value", "code"), [("aa", 0, "calm"), ("bb", 1, "calm"), ("bc", 1.5, "tense"), ("dd", 3, "tense")]
)
def test_a_mean_on_the_edge_of_two_bands_belongs_to_the_upper(picks: str, value: float, code: str) -> None:
    assert values(NESTED, dict(zip(("q3", "q4"), picks, strict=True)))["body"] == (value, code)


def test_reverse_counts_from_the_other_end() -> None:
    made = asking(
        likert("c", 1, 2, 3, 4, None),
        Item("n", "decimal", text("n"), minimum=2, maximum=10),
        Item("b", "boolean", text("b")),
        scales=(Scale("total", ("c", "n", "b"), reverse=("c", "n", "b")), Scale("c_only", ("c",), reverse=("c",))),
    )
    assert made.reach(made.scales[0]) == (2, 15)  # 0 (no score) to 4, 2 to 10, 0 to 1
    assert values(made, {"c": "a", "n": 2.5, "b": False})["total"] == (4 + 9.5 + 1, None)
    assert values(made, {"c": "d", "n": 10, "b": True})["total"] == (1 + 2 + 0, None)
    assert values(made, {"c": "e"})["c_only"] == (0, None)  # an option without a score adds nothing from either end


def test_norms_by_age_and_sex() -> None:
    norms = (
        Norm(72, 143, "female", cuts={"low": (0, 5), "high": (6, 9)}),
        Norm(72, 143, "male", cuts={"low": (0, 6), "high": (7, 9)}),
        Norm(144, 215, mean=4, sd=3),
    )
    made = asking(
        *SIX[:3], scales=(Scale("total", ("q0", "q1", "q2"), bands=(band("low", 0, 4), band("high", 5, 9)), norms=norms),)
    )
    six, five = {"q0": "d", "q1": "d", "q2": "a"}, {"q0": "d", "q1": "c", "q2": "a"}
    assert values(made, six, About(72, "female")) == {"total": (6, "high")}
    assert values(made, six, About(143, "male")) == {"total": (6, "low")}
    assert values(made, five, About(144)) == {"total": (5, "high")}  # the scale's own ends
    for about in (About(71, "male"), About(216, "male"), About(100), About(None, "male"), About()):
        assert values(made, six, about) == {"total": (6, None)}, about
    told = [score(made, six, about).reading("total") for about in (About(215), About(100, "male"))]
    assert [t and t.standard for t in told] == [56.7, None]  # 50 + 10 × (6 - 4) / 3
    part = score(made, {"q0": "d", "q1": "d"}, About(144)).reading("total")
    assert part is not None
    assert (part.value, part.band, part.standard) == (6, None, None)


AGED = asking(
    likert("early", 0, 1, ages=(0, 5), required=True),
    Item("later", "group", text("later"), ages=(6, 71), items=(likert("walks", 0, 1), likert("talks", 1, 2))),
    scales=(Scale("total", ("early", "walks", "talks"), bands=(band("none_seen", 0, 0), band("seen", 1, 4))),),
    critical=(Critical("walks", ("b",)),),
)


def test_items_for_an_age_are_asked_in_that_age_only() -> None:
    assert fails(AGED, {"early": "x"}) == {"age_months": "required", "answers.early": "not_one_of"}
    assert fails(AGED, {}, About(5)) == {"answers.early": "required"}
    assert values(AGED, {"early": "b"}, About(0)) == {"total": (1, "seen")}
    assert fails(AGED, {"early": "b", "walks": "a"}, About(6)) == {"answers.early": "not_asked"}
    grown = score(AGED, {"walks": "a", "talks": "a"}, About(71))
    assert (grown.total, grown.band and grown.band.code, grown.missing) == (1, "seen", ())
    assert [(r.minimum, r.maximum) for r in grown.readings] == [(1, 3)]
    assert fails(AGED, {}, About(72)) == {"age_months": "out_of_range"}  # nothing is asked: that is no result
    assert scoring.is_critical(AGED, {"walks": "b"})  # whatever the age


def test_a_path_that_asks_less_can_sum_to_less() -> None:
    """The ends of a scale hold for every path, so that no value on one of them is without a band."""
    first = likert("first", 1, 2, 3)
    more = likert("more", 1, 2, 3, enable_when=EnableWhen(False, (Clause("first", "=", "c"),)))
    made = Definition(
        "path", text("path"), (first, more), (Scale("total", ("first", "more")), Scale("mean", ("first", "more"), "mean"))
    )
    assert [made.reach(scale) for scale in made.scales] == [(1, 6), (1, 3)]
    assert score(made, {"first": "a"}).total == 1
    assert [str(f.code) for f in rules.faults(replace(made, scales=(replace(made.scales[0], bands=(band("all", 2, 6),)),)))] == [
        "out_of_range"
    ]
    assert AGED.reach(AGED.scales[0]) == (0, 4)
    either = replace(made, items=(replace(first, ages=(0, 5)), replace(likert("more", 5, 9), ages=(6, 9))))
    assert either.reach(either.scales[0]) == (1, 12)  # never 0: what is not asked at all has no value
    assert either.reach(either.scales[1]) == (1, 9)


def test_critical_from_a_threshold() -> None:
    made = asking(
        likert("q", 0, 2, None, 5),
        Item("n", "integer", text("n"), minimum=0, maximum=10),
        Item("b", "boolean", text("b")),
        Item("m", "multiple", text("m"), options=likert("", 0, 1, 2).options),
        Item("none", "choice", text("none"), options=(Option("None", text("none"), 0), Option("1", text("one"), 0))),
        critical=(Critical("q", at_least=2), Critical("n", at_least=7), Critical("b", ("true",)), Critical("m", at_least=2),
                  Critical("none", ("None", "1"))),
    )  # fmt: skip
    assert not scoring.is_critical(made, {})  # nothing is said by saying nothing, whatever an option is called
    for answers in ({"q": "a"}, {"q": "c"}, {"n": 6}, {"b": False}, {"m": ["a", "b"]}, {"none": None}, {"q": ["a"], "n": "7"}):
        assert not scoring.is_critical(made, answers), answers
    for answers in (
        {"q": "b"},
        {"q": "d"},
        {"n": 7},
        {"n": 99},
        {"b": True},
        {"m": ["b", "c"]},
        {"none": "1"},
        {"q": ["x", "b"]},
    ):
        assert scoring.is_critical(made, answers), answers


def test_a_doubt_changes_nothing_else() -> None:
    doubts = (Validity("too_fast", 20), Validity("straight_line", items=("q0", "q1", "q2")), Validity("too_fast", 10))
    plain = asking(
        *SIX[:3], scales=(Scale("total", ("q0", "q1", "q2"), bands=(band("all", 0, 9),)),), critical=(Critical("q0", ("d",)),)
    )
    made = replace(plain, validity=doubts)
    assert rules.faults(made) == []
    for picks, seconds, kinds in (
        ("aaa", 20, ("straight_line",)), ("ddd", 5, ("too_fast", "straight_line")), ("dda", 19, ("too_fast",)),
        ("dda", None, ()), ("dd", 0, ("too_fast",)), ("", None, ()),
    ):  # fmt: skip
        answers = dict(zip(("q0", "q1", "q2"), picks, strict=False))
        found = score(made, answers, About(seconds=seconds))
        assert found.validity == kinds
        assert replace(found, validity=()) == score(plain, answers)


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({"subscales": [{"code": "x", "of": ["y"]}, {"code": "y", "of": ["x"]}]}, "subscales.x.of", "circular"),
        ({"subscales": [{"code": "x", "of": ["x"]}]}, "subscales.x.of", "circular"),
        ({"subscales": [{"code": "s0", "of": ["q0"]}, {"code": "s1", "of": ["s0", "q1"]},
                        *({"code": f"s{n}", "of": [f"s{n - 1}", f"s{n - 2}"]} for n in range(2, 30))]},
         "subscales", "out_of_range"),
        ({"subscales": [{"code": "x", "of": ["nobody"]}]}, "subscales.x.of", "unknown_reference"),
        ({"subscales": [{"code": "x", "of": []}]}, "subscales.x.of", "required"),
        ({"subscales": [{"code": "q0", "of": ["q1"]}]}, "subscales.q0", "exists"),
        ({"subscales": [{"code": "total", "of": ["q1"]}]}, "subscales.0.code", "bad_format"),
        ({"total": {"of": ["open"]}}, "of", "unsupported"),
        ({"total": {"of": ["several"], "reverse": ["several"]}}, "reverse", "unsupported"),
        ({"total": {"of": ["q0"], "reverse": ["q1"]}}, "reverse", "unknown_reference"),
        ({"total": {"of": ["q0"], "method": "median"}}, "total.method", "not_one_of"),
        ({"total": {"of": ["q0"]}, "bands": [{"code": "none", "min": 0, "max": 3, "text": "x"}]}, "bands.0.code", "bad_format"),
        ({"total": {"of": ["q0"]}, "bands": [{"code": "a", "min": 0, "max": 1.2, "text": "x"},
                                             {"code": "b", "min": 2.1, "max": 3, "text": "x"}]}, "bands.b", "out_of_range"),
        ({"total": {"of": ["q0"], "method": "mean"},
          "bands": [{"code": "a", "min": 0, "max": 1, "text": "x"}, {"code": "b", "min": 2, "max": 3, "text": "x"}]},
         "bands.b", "out_of_range"),
        ({"total": {"of": ["q0"]}, "norms": [{"minimum_age": 0, "maximum_age": 9, "mean": 1, "sd": 1},
                                             {"minimum_age": 9, "maximum_age": 12, "sex": "male", "mean": 1, "sd": 1}]},
         "norms.1", "out_of_range"),
        ({"total": {"of": ["q0"]}, "norms": [{"minimum_age": 0, "maximum_age": 9, "cuts": {"mild": [0, 3]}}]},
         "norms.0.cuts", "unknown_reference"),
        ({"total": {"of": ["q0"]}, "norms": [{"minimum_age": 9, "maximum_age": 0}]}, "norms.0", "out_of_range"),
        ({"total": {"of": ["q0"]}, "norms": [{"minimum_age": 0, "maximum_age": 9, "mean": 1, "sd": 0}]},
         "norms.0.sd", "out_of_range"),
        ({"validity": [{"kind": "straight_line", "items": ["q0", "q1"]}]}, "validity", "out_of_range"),
        ({"validity": [{"kind": "straight_line", "items": ["q0", "q1", "nobody"]}]}, "validity", "unknown_reference"),
        ({"validity": [{"kind": "too_fast"}]}, "validity.0.seconds", "required"),
        ({"critical": [{"item": "words", "codes": ["x"]}]}, "critical", "unknown_reference"),
        ({"critical": [{"item": "yes", "at_least": 1}]}, "critical", "unsupported"),
        ({"items": [{"item": "q0", "ages": [7, 6]}]}, "items.0.ages", "out_of_range"),
        ({"items": [{"item": "nobody", "ages": [0, 6]}]}, "items.0.item", "unknown_reference"),
        ({"bands": [{"code": "a", "min": 0, "max": 1, "text": "x"}]}, "bands", "incomplete"),
    ],
)  # fmt: skip
def test_rules_that_do_not_hold_together_are_named(values: dict[str, Any], field: str, code: str) -> None:
    made = asking(
        *SIX[:3],
        Item("open", "decimal", text("open"), minimum=0),
        Item("several", "multiple", text("several"), options=YES_NO),
        Item("words", "text", text("words")),
        Item("yes", "boolean", text("yes")),
    )
    with pytest.raises(Invalid) as caught:
        rules.laid(made, values)
    assert (field, code) in [(error.field, error.code) for error in caught.value.errors]


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

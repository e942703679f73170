"""The starter self-checks: each is whole in both languages, every value falls into one band, every next step is kind."""

import bisect
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from content import fhir, rules, scoring
from content.definition import Definition, Item, Scale
from content.failures import Invalid
from content.scoring import About
from content.vocabulary import AUDIENCES, Stage

FOLDER = Path(__file__).parents[1] / "content" / "library"
CHECKS = sorted(path.stem for path in (FOLDER / "checks").glob("*.json"))
QUIZZES = [slug for slug in CHECKS if slug.startswith("quiz-")]
SIGNS = "warning-signs-0-6"
BOTH = {"zh-Hans", "en"}
ORDINAL = "http://hl7.org/fhir/StructureDefinition/ordinalValue"
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"


@functools.cache
def sidecar(slug: str) -> dict[str, Any]:
    values = yaml.safe_load((FOLDER / f"checks/{slug}.yaml").read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


@functools.cache
def made(slug: str) -> Definition:
    raw = (FOLDER / f"checks/{slug}.json").read_bytes()
    definition, warnings = fhir.read_questionnaire(raw, [], slug=slug, language="zh-Hans")
    assert all("no scores" in said for said in warnings) and (not warnings or slug == SIGNS)
    return rules.laid(definition, {name: value for name, value in sidecar(slug).items() if name in rules.NAMES})


def english(node: dict[str, Any], key: str) -> str:
    [extension] = node[f"_{key}"]["extension"]
    assert extension["url"] == TRANSLATION
    parts = {part["url"]: part for part in extension["extension"]}
    assert parts["lang"]["valueCode"] == "en"
    return str(parts["content"]["valueString"])


def flat(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        yield item
        yield from flat(item.get("item", []))


@pytest.mark.parametrize("slug", CHECKS)
def test_a_check_is_whole_and_its_register_entry_fits(slug: str) -> None:
    check, entry = json.loads((FOLDER / f"checks/{slug}.json").read_text(encoding="utf-8")), sidecar(slug)
    assert (check["resourceType"], check["status"], check["version"]) == ("Questionnaire", "active", "1")
    assert check["url"] == f"urn:xinqiao:check:{slug}" and english(check, "title") == entry["name"]["en"]
    assert check["title"] == entry["name"]["zh-Hans"] and check["description"] and english(check, "description")
    # of a file's head only the title reaches readers: what span of time is meant must be said on the page
    first = check["item"][0]
    assert (first["type"], first["text"], english(first, "text")) == (
        "display", check["description"], english(check, "description")
    )  # fmt: skip
    critical = {rule["item"]: set(rule["codes"]) for rule in entry.get("critical", [])}
    for item in flat(check["item"]):
        assert item["text"] and english(item, "text")
        if item["type"] != "choice":
            assert item["type"] in ("group", "display") or item["required"]
            continue
        scores = [o["extension"][0]["valueDecimal"] for o in item["answerOption"] if "extension" in o]
        assert {o["extension"][0]["url"] for o in item["answerOption"] if "extension" in o} <= {ORDINAL}
        # what does not count may be skipped, and is asked only for the help that it leads to
        assert item["required"] if scores else item["linkId"] in critical
        assert sorted(scores) in ([0, 0, 1] if slug in QUIZZES else [0, 1, 2, 3], [])
        codings = [option["valueCoding"] for option in item["answerOption"]]
        assert all(c["display"] and english(c, "display") for c in codings) and 3 <= len(codings) <= 5
        assert critical.get(item["linkId"], set()) <= {c["code"] for c in codings}
    definition = made(slug)
    assert set(definition.languages) == BOTH
    assert slug == SIGNS or 6 <= sum(item.kind == "choice" for item in definition.index.values()) <= 10
    assert definition.total is not None and definition.total.bands

    texts = [entry["name"], entry["parental_notice"], *(scale.name for scale in definition.scales if scale.name)]
    for scale in definition.scales:
        texts += [one for band in scale.bands for one in (band.text, band.next_steps)]
    for text in texts:
        assert set(text) == BOTH and all(text.values())
    for band in (band for scale in definition.scales for band in scale.bands):
        assert len(band.next_steps["zh-Hans"]) == len(band.next_steps["en"]) >= 1
    # wherever things are heavy, the way to a person stands beside it
    heaviest = definition.total.bands[0 if slug.startswith("talk-") else -1]
    assert "12356" in "".join(heaviest.next_steps["zh-Hans"]) or slug in QUIZZES
    assert set(entry["lessons"]) <= {path.name.split(".")[0] for path in (FOLDER / "lessons").glob("*.md")}
    purposes = dict.fromkeys(QUIZZES, "knowledge") | {SIGNS: "warning_signs", "parent-guidance": "parent_guidance"}
    assert entry["purpose"] == purposes.get(slug, "self_check")
    assert entry["rights"] == "own" and entry["validated"] is False and "not validated" in entry["evidence"]
    assert set(entry["audiences"]) <= set(AUDIENCES) and all(Stage.parse(s) for s in entry["stages"])
    assert entry["approver"] is None and entry["approval_number"] is None and entry["expires_days"] == 14


def best_to_worst(item: Item) -> list[Any]:
    """Its answers by what they are worth."""
    if item.kind == "boolean":
        return [False, True]
    return [option.code for option in sorted(item.options, key=lambda o: o.score or 0)]


def climb(definition: Definition, scale: Scale, about: About, asked: set[str]) -> Iterator[scoring.Result]:
    """Results on the way from the least value of a scale to the most, one answer changed at a time."""
    turned = {name for one in definition.scales for name in one.reverse}
    needed = [i for i in definition.index.values() if i.link_id in asked and (i.scored or i.kind == "boolean")]
    ways = {i.link_id: best_to_worst(i)[:: -1 if i.link_id in turned else 1] for i in needed}
    answers = {link_id: way[0] for link_id, way in ways.items()}
    yield scoring.score(definition, answers, about)
    for leaf in definition.leaves(scale):
        for answer in ways.get(leaf.link_id, [])[1:]:
            answers[leaf.link_id] = answer
            yield scoring.score(definition, answers, about)


def asked_at(definition: Definition, months: int | None) -> set[str]:
    """Link ids asked at an age, by the ages of the groups alone."""
    return {
        item.link_id
        for item in definition.index.values()
        for ages in [(definition.index[definition.parents[item.link_id] or item.link_id]).ages]
        if ages is None or (months is not None and ages[0] <= months <= ages[1])
    }


ENDS = {  # the last value of each band, by hand
    "exam-stress": {"total": [8, 16, 24]},
    "friendship": {"total": [7, 14, 21]},
    "parent-guidance": {"total": [7, 16, 24]},
    "parental-burnout": {"total": [7, 14, 21], "tired": [], "joy": []},
    "quiz-core-knowledge-parents": {"total": [7, 10], "core": []},
    "quiz-core-knowledge-students": {"total": [6, 9], "core": []},
    "screen-use": {"total": [7, 14, 21]},
    "sleep-habits": {"total": [7, 14, 21]},
    "talk-with-my-child": {"total": [6, 12, 18], "listening": [3, 6, 9], "time_together": [3, 6, 9]},
    "talk-with-my-parents": {"total": [6, 12, 18], "listening": [3, 6, 9], "time_together": [3, 6, 9]},
    SIGNS: {"total": [0, 44]},
}


@pytest.mark.parametrize("slug", CHECKS)
def test_every_value_of_every_scale_falls_into_its_band(slug: str) -> None:
    definition = made(slug)
    months = 40 if definition.by_age else None
    asked = asked_at(definition, months)
    assert list(ENDS[slug]) == [scale.code for scale in definition.scales]
    for scale in definition.scales:
        ends, seen = ENDS[slug][scale.code], []
        for result in climb(definition, scale, About(months), asked):
            reading = result.reading(scale.code)
            assert reading is not None and reading.value is not None
            assert set(result.missing) <= {rule.item for rule in definition.critical}
            seen.append(reading.value)
            assert reading.counts_as is (scale.bands[bisect.bisect_left(ends, reading.value)] if ends else None)
        low, high = definition.reach(scale, asked)
        assert sorted(set(seen)) == list(range(int(low), int(high) + 1)) and seen == sorted(seen)


CRITICAL = {  # the question that may be skipped: its codes without and with help at once
    "screen-use": ("afraid_online", "no over", "untold afraid_now"),
    "friendship": ("bullied", "no over", "still very_afraid"),
    "talk-with-my-parents": ("afraid_home", "no passed", "tell_someone afraid_now"),
    "parental-burnout": ("afraid_to_hurt", "no steady", "worried now"),
}


@pytest.mark.parametrize("slug", CRITICAL)
def test_one_question_leads_to_help_and_changes_no_value(slug: str) -> None:
    definition = made(slug)
    link_id, calm, urgent = CRITICAL[slug]
    assert [option.code for option in definition.index[link_id].options] == [*calm.split(), *urgent.split()]
    answers = {i.link_id: i.options[1].code for i in definition.index.values() if i.scored}
    without = scoring.score(definition, answers)
    assert without.critical is False and without.missing == (link_id,) and without.band is not None
    for code in (calm + " " + urgent).split():
        result = scoring.score(definition, {**answers, link_id: code})
        urged = code in urgent.split()
        assert (result.total, result.band, result.critical) == (without.total, None if urged else without.band, urged)


BURNOUT = {  # answers to four tired and three joyful questions -> tired, joy that runs short, total, band, by hand
    "rarely rarely rarely rarely daily daily daily": (0, 0, 0, "keep_going"),
    "rarely rarely rarely rarely rarely rarely rarely": (0, 9, 9, "a_rest_soon"),
    "daily daily daily daily daily daily daily": (12, 0, 12, "a_rest_soon"),
    "sometimes sometimes often often often daily sometimes": (6, 3, 9, "a_rest_soon"),
    "often often often sometimes daily daily daily": (7, 0, 7, "keep_going"),
    "often often often often daily daily daily": (8, 0, 8, "a_rest_soon"),
    "daily daily daily often sometimes sometimes sometimes": (11, 6, 17, "a_hand_now"),
    "daily daily daily daily rarely rarely rarely": (12, 9, 21, "a_hand_now"),
}


def test_tired_parents_are_heard_and_joy_counts_the_other_way_round() -> None:
    definition = made("parental-burnout")
    everyday = [item.link_id for item in definition.index.values() if item.scored]
    for chosen, (tired, joy, total, band) in BURNOUT.items():
        result = scoring.score(definition, dict(zip(everyday, chosen.split(), strict=True)))
        assert [(r.scale.code, r.value) for r in result.readings] == [("total", total), ("tired", tired), ("joy", joy)]
        assert result.band is not None and result.band.code == band
        straight = len(set(chosen.split())) == 1  # as tired and as glad every day: told apart from care taken
        assert result.validity == (("straight_line",) if straight else ())
    quick = scoring.score(definition, dict(zip(everyday, chosen.split(), strict=True)), About(seconds=14))
    assert quick.validity == ("too_fast",) and quick.band == result.band


def test_both_sides_of_a_talk_ask_the_same_and_listening_and_time_make_the_whole() -> None:
    child, parent = made("talk-with-my-parents"), made("talk-with-my-child")
    themes = [item.link_id for item in parent.index.values() if item.kind == "choice"]
    assert themes == [item.link_id for item in child.index.values() if item.scored] and len(themes) == 6
    chosen = dict(zip(themes, ["mostly", "sometimes", "often", "daily", "rarely", "mostly"], strict=True))
    for definition in (child, parent):
        assert [(s.code, s.of) for s in definition.scales] == [
            ("total", ("listening", "time_together")), ("listening", tuple(themes[:3])), ("time_together", tuple(themes[3:])),
        ]  # fmt: skip
        assert [r.value for r in scoring.score(definition, chosen).readings] == [3 + 1 + 2 + 3 + 0 + 3, 3 + 1 + 2, 3 + 0 + 3]


def test_a_child_is_asked_four_signs_of_its_age_and_one_is_enough() -> None:
    definition = made(SIGNS)
    low, high = sidecar(SIGNS)["ages"]
    groups = definition.items[1:]
    assert [group.ages for group in groups] == [
        (3, 5), (6, 7), (8, 11), (12, 17), (18, 23), (24, 29), (30, 35), (36, 47), (48, 59), (60, 71), (72, 83)
    ]  # fmt: skip
    for months in range(low, high + 1):
        [group] = [g for g in groups if g.ages and g.ages[0] <= months <= g.ages[1]]
        assert len(group.items) == 4
        signs = {item.link_id: False for item in group.items}
        none = scoring.score(definition, signs, About(months))
        assert none.total == 0 and none.band is not None and none.band.code == "no_sign_seen" and none.readings[0].maximum == 4
        for link_id in signs:
            one = scoring.score(definition, {**signs, link_id: True}, About(months))
            assert one.total == 1 and one.band is not None and one.band.code == "have_someone_look" and not one.critical
    for about, field in ((About(), "age_months"), (About(2), "age_months"), (About(6), "answers.m3_smile")):
        with pytest.raises(Invalid) as refused:
            scoring.score(definition, dict.fromkeys(("m3_smile", "m3_loud", "m3_voice", "m3_head"), False), about)
        assert refused.value.errors[0].field == field
    # no approver is made up: it waits for the place's own
    step = "".join(made(SIGNS).scale["total"].bands[1].next_steps["zh-Hans"])
    assert "儿童保健门诊" in step and "医院" in step


@pytest.mark.parametrize("slug", QUIZZES)
def test_a_quiz_has_one_right_answer_and_says_why(slug: str) -> None:
    definition = made(slug)
    questions = [item for item in definition.index.values() if item.kind == "choice"]
    right = {item.link_id: [o.code for o in item.options if o.score == 1] for item in questions}
    places = [[o.score for o in item.options].index(1) for item in questions]
    assert all(2 <= places.count(place) <= 4 for place in range(3))  # the right one is not always at the same place
    for item in questions:
        assert len(right[item.link_id]) == 1 and set(item.explanation) == BOTH and all(item.explanation.values())
    core = definition.scale["core"].of
    assert 5 <= len(core) < len(right)
    answers = {link_id: codes[0] for link_id, codes in right.items()}
    result = scoring.score(definition, answers)
    assert [r.value for r in result.readings] == [len(right), len(core)]
    wrong = next(o.code for o in definition.index["hotline"].options if o.score == 0)
    result = scoring.score(definition, {**answers, "hotline": wrong})
    assert [r.value for r in result.readings] == [len(right) - 1, len(core) - 1]
    # who misses what to do when someone does not want to live still reads where help is
    last = definition.index["crisis" if "parents" in slug else "friend"].explanation
    assert all(number in last[tag] for tag in BOTH for number in ("12356", "120", "110"))


AFRAID = {"friendship", "talk-with-my-parents", "screen-use", "parental-burnout"}


def test_who_is_afraid_is_told_first_what_fits_and_never_to_turn_to_whom_they_fear() -> None:
    own = {slug: sidecar(slug)["critical_message"] for slug in CHECKS if "critical_message" in sidecar(slug)}
    assert own.keys() >= AFRAID
    for slug, texts in own.items():
        assert texts.keys() == BOTH and made(slug).critical
        for text in texts.values():
            assert len(text) <= 160  # read in one breath, by someone who is afraid
            assert slug not in AFRAID or ("110" in text and "12356" in text)
    assert not re.search("爸|妈|父母|家长|家人|家里", own["talk-with-my-parents"]["zh-Hans"])
    assert not re.search("parent|mother|father|family|home", own["talk-with-my-parents"]["en"])

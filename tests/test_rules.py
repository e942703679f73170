"""What is laid over a questionnaire: translations that a file lacks, and what stays when the file comes again."""

from dataclasses import replace
from typing import Any

from content import rules
from content.definition import Definition, Item, Option, Scale
from content.reproschema import read_activity
from tests.test_reproschema import DATA


def made(question: dict[str, str], *options: dict[str, str]) -> Definition:
    rows = tuple(Option(code, text, score) for score, (code, text) in enumerate(zip("xyz", options, strict=False)))
    return Definition("mood", {"en": "Mood"}, (Item("g", "group", {}, items=(Item("a", "choice", question, options=rows),)),))


def laid(definition: Definition, *items: dict[str, Any]) -> Definition:
    return rules.laid(definition, {"items": items})


FILE = made({"en": "How was it?"}, {"en": "Good"}, {"en": "Bad"})
WORDS = {
    "item": "a",
    "text": {"zh-CN": "怎么样？"},
    "options": [{"code": "x", "text": {"zh": "好"}}, {"code": "y", "text": {"zh": "不好"}}],
}


def test_a_real_activity_that_lacks_one_sentence_is_completed() -> None:
    file, _ = read_activity(DATA / "PHQ-9" / "PHQ9_schema.json", DATA)
    whole = laid(file, {"item": "phq9_3", "text": {"zh-CN": "难以入睡；半夜会醒，或相反，睡眠时间过多"}})
    assert ("zh-Hans" in file.languages, "zh-Hans" in whole.languages) == (False, True)
    assert set(whole.languages) == {*file.languages, "zh-Hans"}
    before, after = file.index["phq9_3"], whole.index["phq9_3"]
    assert {**after.text, "zh-Hans": ""} == {**before.text, "zh-Hans": ""} and after.options == before.options
    assert rules.kept(file, whole) == whole  # the file again, without a register


def test_words_are_laid_by_language_and_nothing_else_moves() -> None:
    both = laid(FILE, WORDS)
    assert (FILE.languages, both.languages) == (("en",), ("en", "zh-Hans"))
    item = both.index["a"]
    assert [(o.code, o.score, o.text["en"], o.text["zh-Hans"]) for o in item.options] == [
        ("x", 0, "Good", "好"),
        ("y", 1, "Bad", "不好"),
    ]
    assert laid(both, {"item": "a", "text": {"zh-Hans": "好吗？"}}).index["a"].text == {"en": "How was it?", "zh-Hans": "好吗？"}
    assert laid(both, {"item": "a"}) == both


def test_a_file_that_comes_again_keeps_translations_of_what_it_still_says() -> None:
    both = laid(FILE, WORDS)
    assert rules.kept(FILE, both) == both
    asked = rules.kept(made({"en": "How is it?"}, {"en": "Good"}, {"en": "Awful"}), both).index["a"]
    assert asked.text == {"en": "How is it?"}
    assert [dict(option.text) for option in asked.options] == [{"en": "Good", "zh-Hans": "好"}, {"en": "Awful"}]
    own = rules.kept(made({"en": "How was it?", "zh-Hans": "如何？"}, {"en": "Good"}, {"ko": "나쁘다"}), both).index["a"]
    assert own.text == {"en": "How was it?", "zh-Hans": "如何？"}  # the file has its own now
    assert own.options[1].text == {"ko": "나쁘다"}  # nothing in common: nobody knows whether it says the same


def test_scales_stay_in_their_order_and_in_the_items_that_show_them() -> None:
    part, total = Scale("part", ("a",), link_id="shown"), Scale("total", ("part",), link_id="sum")
    file = replace(FILE, scales=(part, total))
    assert rules.laid(file, {}) == file == rules.kept(file, file)
    row = {"code": "part", "of": ["a"]}
    assert rules.laid(file, {"subscales": [row], "total": {"of": ["part"]}}) == file
    assert [scale.code for scale in rules.laid(FILE, {"subscales": [row], "total": {"of": ["part"]}}).scales] == ["total", "part"]

"""The texts of failures: each language is told in itself alone."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import marshmallow as ma
import pytest
from marshmallow import validate
from mongoengine.base.common import _document_registry

import content
import notifications
from api import errors
from content.failures import TEXTS, WORDS, Conflict, Invalid, Text, invalid
from content.vocabulary import Stage

ROOT = Path(__file__).parents[1]
CJK = re.compile("[\u4e00-\u9fff]")
WORD = re.compile("[A-Za-z]{2,}")
PLACE = re.compile(r"\{(\w+)")
CALLS = {"invalid", "fail", "error", "refuse", "Conflict", "Failure", "Invalid", "NotFound", "FieldError", "Unavailable"}


def test_both_languages_of_a_text_have_the_same_places_and_are_themselves() -> None:
    for code, text in TEXTS.items():
        assert code == "bad_recurrence" or set(PLACE.findall(text.zh)) == set(PLACE.findall(text.en)), code
        assert not CJK.search(text.en), code
        assert code == "bad_recurrence" or CJK.search(text.zh), code
    assert all(CJK.search(word) for word in WORDS.values())


def test_no_raw_state_stands_in_a_chinese_sentence() -> None:
    for room in (content, notifications):
        for module in pkgutil.iter_modules(room.__path__):
            importlib.import_module(f"{room.__name__}.{module.name}")
    fields = [kind._fields.get("state") for kind in _document_registry.values()]
    states = {state for field in fields if field is not None for state in field.choices or ()}
    assert {"drafted", "in_review", "booked"} <= states and not states - set(WORDS)
    told = Conflict("wrong_state", state="drafted", action="schedule").messages
    assert told["zh-Hans"] == "当前状态“草稿”下不能排期。请先由另一位同事批准。"
    assert told["en"].endswith("“drafted”. A second person approves it first.")


def test_a_comparison_with_a_moment_is_told_in_words() -> None:
    def said(reason: str) -> tuple[str, str]:
        told = invalid("send_at", "out_of_range", reason=reason).errors[0].messages
        return told["zh-Hans"].partition("：")[2], told["en"].partition(": ")[2]

    assert said("< expires_at 2027-06-08T00:00:00Z") == (
        "要早于 expires_at 2027-06-08T00:00:00Z", "must be before expires_at 2027-06-08T00:00:00Z",
    )  # fmt: skip
    assert said("> 2027-06-08T00:00Z") == ("要晚于 2027-06-08T00:00Z", "must be after 2027-06-08T00:00Z")
    assert said("> 100 nodes") == ("> 100 nodes", "> 100 nodes"), "no moment"


def test_a_wrong_stage_is_told_which_forms_are_right() -> None:
    with pytest.raises(Invalid) as caught:
        Stage.parse("senior_final")
    for message in caught.value.errors[0].messages.values():
        assert "senior, " in message and "junior.9" in message and "senior.final" in message


def glued(source: str) -> list[tuple[int, str]]:
    """(line, words) of every literal among the parameters of a failure, outside a `Text`, that holds Chinese beside two words in
    Latin letters."""
    found = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Text":
            return
        if isinstance(node, ast.JoinedStr | ast.Constant):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            words = " ".join(str(one.value) for one in parts if isinstance(one, ast.Constant))
            if CJK.search(words) and len(WORD.findall(words)) >= 2:
                found.append((node.lineno, words))
        for below in ast.iter_child_nodes(node):
            walk(below)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in CALLS:
            for given in [*node.args, *(keyword.value for keyword in node.keywords)]:
                walk(given)
        elif isinstance(node, ast.Assign) and any(
            getattr(t, "id", "") in {"reason", "why", "wrong", "action"} for t in node.targets
        ):
            walk(node.value)
    return found


def test_no_parameter_of_a_failure_glues_two_languages_together() -> None:
    assert glued('invalid("a", "bad_format", reason="已过去 in the past")') and not glued(
        'invalid("a", "b", reason=Text("已过", "x y"))'
    )
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for room in ("content", "api", "notifications")
        for path in sorted((ROOT / room).glob("*.py"))
        for line, words in glued(path.read_text("utf-8"))
    ]
    assert not found


def test_a_parameter_says_its_own_words_in_each_language() -> None:
    said = invalid("capacity", "out_of_range", reason=Text(f"已报名 {8} 个", f"{8} are booked")).errors[0].messages
    assert said == {"zh-Hans": "“capacity”超出范围：已报名 8 个", "en": "“capacity” is out of range: 8 are booked"}
    told = Conflict("wrong_state", state="received", action=Text("登记时数", "note hours")).messages
    assert told == {"zh-Hans": "当前状态“已收到”下不能登记时数。", "en": "Cannot note hours while the state is “received”."}
    assert f"{Text('甲', 'a')}" == "甲 / a"


class Row(ma.Schema):
    """What the messages of the schemas are tried on."""

    name = ma.fields.String(validate=validate.Length(10, 256))
    tags = ma.fields.List(ma.fields.String(), validate=validate.Length(max=2))
    division = ma.fields.String(validate=validate.Regexp("[0-9]{6}$"), metadata={"example": "150603"})
    starts_at = ma.fields.String(validate=validate.Length(10, 40), metadata={"example": "2027-05-15T19:00"})
    seats = ma.fields.Integer(validate=validate.Range(1, 4))


class Outer(ma.Schema):
    """Rows in a row."""

    rows = ma.fields.List(ma.fields.Nested(Row))


@pytest.mark.parametrize(
    ("value", "zh", "en"),
    [
        ({"name": "x"}, "请填 10–256 个字符", "10 to 256 characters"),
        ({"tags": ["a"] * 3}, "最多 2 项", "at most 2 entries"),
        ({"division": "市区"}, "例：150603", "e.g. 150603"),
        ({"starts_at": "下周三晚上7点"}, "例：2027-05-15T19:00", "e.g. 2027-05-15T19:00"),
        ({"seats": 9}, "请填 1–4", "1 to 4"),
        ({"seats": "三"}, "请填整数", "write a whole number"),
    ],
)
def test_what_a_schema_refuses_is_told_in_two_languages(value: dict[str, object], zh: str, en: str) -> None:
    with pytest.raises(ma.ValidationError) as refused:
        Outer().load({"rows": [value]})
    (error,) = errors.field_errors(refused.value.messages, Outer())
    assert error.messages["zh-Hans"].endswith(f"：{zh}") and error.messages["en"].endswith(f": {en}")

"""FHIR R4 QuestionnaireResponses: answers in, the completed response out.

A total is never taken from a response. What one says of totals is read as claims beside the answers, so that whoever sent it can
be told where it is wrong (HL7's own PHQ-9 example says 13 where its answers sum to 10). Free text is dropped; anything else
that is not known is refused by its JSON path, and no refusal repeats an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from content.definition import CHOICES, NUMBERS, Definition, Item, Number, Scale
from content.failures import Conflict, Invalid, Text
from content.fhirjson import Json, Reader, names
from content.fhirout import CANONICAL, canonical_url, coding, link_of, raw_codes
from content.scoring import Result

STATUSES = ("in-progress", "completed", "amended", "stopped")
ITEM = names("id extension linkId definition text answer item")
MAX_DEPTH = 20
MAX_ITEMS = 2000


class Answered(NamedTuple):
    """Answers by link id as `scoring.score` takes them, and what the response says of scales, by code."""

    answers: dict[str, Any]
    claims: dict[str, Number]


def read_response(definition: Definition, resource: Json) -> Answered:
    """What a QuestionnaireResponse answers and claims. Items may be nested as the questionnaire has them or not. Raises `Invalid`
    with the JSON path of everything that is wrong, `Conflict("old_version")` when it names another version of ours."""
    page = _Page(definition=definition, shown={link_of(definition, scale): scale for scale in definition.scales})
    if resource.get("resourceType") != "QuestionnaireResponse":
        page.error("resourceType", "not_one_of", choices="QuestionnaireResponse")
    if resource.get("status") not in STATUSES:
        page.error("status", "not_one_of", choices=", ".join(STATUSES))
    named = str(resource.get("questionnaire") or "").partition("|")[0]
    if named.startswith(CANONICAL) and named != canonical_url(definition.slug):
        page.error("questionnaire", "not_one_of", choices=canonical_url(definition.slug))
    for key in ("modifierExtension", "implicitRules"):
        if resource.get(key):
            page.refuse(key, key, Text("它会改变整份答卷的含义", "it changes the meaning of the whole"))
    page.items(resource, "", 1)
    if page.errors:
        raise Invalid(page.errors)
    url, _, version = str(resource.get("questionnaire") or "").partition("|")
    if url == canonical_url(definition.slug) and version not in ("", definition.version):
        raise Conflict("old_version")
    return Answered(page.answers, page.claims)


@dataclass
class _Page(Reader):
    """One response being read."""

    definition: Definition = field(kw_only=True)
    shown: Mapping[str, Scale] = field(default_factory=dict)
    """Scales by the linkId of their numbers."""
    answers: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Number] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def items(self, node: Json, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.error(path, "out_of_range", reason=f"≤ {MAX_DEPTH} levels")
            return
        for where, below in self.nodes(node, "item", path):
            self.item(below, where, depth)

    def item(self, node: Json, path: str, depth: int) -> None:
        """One item with those below it, and below its answers."""
        link_id = self.string(node, "linkId", path, required=True)
        for key in sorted(node.keys() - ITEM):
            if not key.startswith("_"):
                self.error(f"{path}.{key[:60]}", "unknown_field")
        answers = list(self.nodes(node, "answer", path))
        if link_id in self.seen or len(self.seen) >= MAX_ITEMS:
            self.error(f"{path}.linkId", "exists", what=link_id[:80])
        elif link_id in self.shown:
            self.claim(self.shown[link_id], answers, path)
        elif link_id in self.definition.index:
            self.answer(self.definition.index[link_id], answers, path)
        elif link_id:
            self.error(f"{path}.linkId", "unknown_reference", value=link_id[:80])
        self.seen.add(link_id)
        self.items(node, path, depth + 1)
        for where, answer in answers:
            self.items(answer, where, depth + 1)

    def value(self, node: Json, path: str) -> tuple[str, Any, str]:
        """(name, value, path) of an answer's one value[x]; empty ones after an error."""
        keys = [key for key in node if key.startswith("value")]
        for key in sorted(node.keys() - {*keys, "id", "extension", "item"}):
            if not key.startswith("_"):
                self.error(f"{path}.{key[:60]}", "unknown_field")
        if len(keys) != 1:
            self.error(f"{path}.value[x]", "required" if not keys else "bad_format", reason="one")
            return "", None, path
        return keys[0], node[keys[0]], f"{path}.{keys[0]}"

    def real_of(self, node: Json, path: str) -> Number | None:
        """A number, also as a quantity's value."""
        key, value, where = self.value(node, path)
        if key == "valueQuantity" and isinstance(value, dict):
            return self.real(value.get("value"), f"{where}.value")
        if key in ("valueInteger", "valueDecimal"):
            return self.real(value, where)
        if key:
            self.error(where, "wrong_type", reason="valueInteger, valueDecimal, valueQuantity")
        return None

    def claim(self, scale: Scale, answers: list[tuple[str, Json]], path: str) -> None:
        if len(answers) > 1:
            self.error(f"{path}.answer", "out_of_range", reason="≤ 1")
        elif answers and (number := self.real_of(answers[0][1], answers[0][0])) is not None:
            self.claims[scale.code] = number

    def answer(self, item: Item, answers: list[tuple[str, Json]], path: str) -> None:
        """The answers of one question into `answers`. Of text nothing is kept."""
        if item.kind == "text" or not answers:
            return
        if item.kind in ("group", "display"):
            self.error(f"{path}.answer", "not_asked")
            return
        if len(answers) > 1 and item.kind != "multiple":
            self.error(f"{path}.answer", "out_of_range", reason="≤ 1")
        if item.kind in CHOICES:
            codes = [code for where, one in answers if (code := self.code(item, one, where)) is not None]
            if codes:
                self.answers[item.link_id] = codes if item.kind == "multiple" else codes[0]
            return
        where, one = answers[0]
        if item.kind in NUMBERS:
            number = self.real_of(one, where)
            if number is not None:
                self.answers[item.link_id] = number
            return
        key, value, at = self.value(one, where)
        if key == "valueBoolean" and isinstance(value, bool):
            self.answers[item.link_id] = value
        elif key:
            self.error(at, "wrong_type", reason="valueBoolean: true, false")

    def code(self, item: Item, node: Json, path: str) -> str | None:
        """The code of the option that an answer means: by code, and by system where both name one; never by its label."""
        key, value, where = self.value(node, path)
        if key == "valueCoding" and isinstance(value, dict):
            code, system, where = value.get("code"), value.get("system"), f"{where}.code"
        elif key in ("valueString", "valueInteger") and isinstance(value, str | int) and not isinstance(value, bool):
            code, system = str(value), None
        elif key:
            self.error(where, "wrong_type", reason="valueCoding")
            return None
        else:
            return None
        code = self.string({"code": code}, "code", where) if isinstance(code, str) else None
        found = [
            option.code
            for option, raw in zip(item.options, raw_codes(item.options), strict=True)
            if code == raw and (not system or not option.system or system == option.system)
        ]
        if len(found) == 1:
            return found[0]
        self.error(where, "not_one_of", choices=", ".join(raw_codes(item.options))[:200])
        return None


def write_response(definition: Definition, answers: Mapping[str, Any], result: Result, base: str = "zh-Hans") -> Json:
    """The completed QuestionnaireResponse of answers that were scored, with every scale's number as it was computed. It says
    nothing of who or when."""

    def item(one: Item) -> Json | None:
        node: Json = {"linkId": one.link_id}
        given = answers.get(one.link_id)
        values = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
        if values:
            node["answer"] = [_answer(one, value, base) for value in values]
        if below := [made for child in one.items if (made := item(child))]:
            (node["answer"][0] if values else node)["item"] = below
        return node if len(node) > 1 else None

    numbers = [
        {"linkId": link_of(definition, reading.scale), "answer": [{"valueDecimal": reading.value}]}
        for reading in result.readings
        if reading.value is not None
    ]
    made: Json = {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": f"{canonical_url(definition.slug)}|{definition.version}",
        "status": "completed",
    }
    items = [*(found for one in definition.items if (found := item(one))), *numbers]
    return {**made, "item": items} if items else made


def _answer(item: Item, value: Any, base: str) -> Json:
    if item.kind in CHOICES:
        label = next(option.text for option in item.options if option.code == value).get(base)
        return {"valueCoding": {**coding(item, value), **({"display": label} if label else {})}}
    kinds = {"boolean": "valueBoolean", "integer": "valueInteger", "decimal": "valueDecimal"}
    return {kinds[item.kind]: value}

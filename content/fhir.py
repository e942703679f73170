"""FHIR R4 Questionnaires in: one file to one `Definition`, or a refusal that names every path and reason at once.

What decides a score is read or refused by name, never passed over: an enableWhen this service cannot follow, a total that
is not a sum, an option list that is nowhere. What is merely missing and harmless (a status) is a warning that is shown.

Scores are found in six places: ordinalValue or itemWeight at an answerOption, a contained ValueSet's compose or expansion,
a ValueSet supplied beside the file, or an option's own valueInteger. Totals written in FHIRPath: see `fhirpath`.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from content import languages
from content.definition import (
    ANSWERED,
    CHOICES,
    NUMBERS,
    TOTAL,
    Clause,
    Definition,
    EnableWhen,
    Item,
    Number,
    Option,
    Scale,
    number,
)
from content.failures import FieldError, Invalid, invalid
from content.fhirpath import SCORES, Expression, Json, NotASum, names, proved

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64  # of the JSON text
MAX_ITEMS = 500
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"
KINDS = {
    "choice": "choice", "integer": "integer", "decimal": "decimal", "quantity": "decimal", "boolean": "boolean",
    "string": "text", "text": "text", "display": "display", "group": "group",
}  # fmt: skip
KEYS = names(
    """id extension modifierExtension linkId definition code prefix text type enableWhen enableBehavior required repeats readOnly
    maxLength answerValueSet answerOption initial item"""
)
TOP = names(
    """resourceType id meta implicitRules language text contained extension modifierExtension url identifier version name title
    derivedFrom status experimental subjectType date publisher contact description useContext jurisdiction purpose copyright
    approvalDate lastReviewDate effectivePeriod code item"""
)
STATUSES = ("draft", "active", "retired", "unknown")
# Extensions by the last part of their address. These change what is asked or how it is scored and are not supported:
REFUSED = names(
    """sdc-questionnaire-enableWhenExpression sdc-questionnaire-answerExpression sdc-questionnaire-candidateExpression
    sdc-questionnaire-answerOptionsToggleExpression sdc-questionnaire-subQuestionnaire questionnaire-constraint targetConstraint
    questionnaire-optionExclusive questionnaire-unitOption questionnaire-unitValueSet cqf-expression cqf-calculatedValue
    questionnaire-optionRestriction questionnaire-referenceProfile"""
)
READ = names(
    """sdc-questionnaire-calculatedExpression variable minValue maxValue questionnaire-unit questionnaire-minOccurs
    questionnaire-maxOccurs questionnaire-hidden rendering-style"""
)
# Appearance, or a matter of other systems; nothing is lost by leaving them out.
HARMLESS = names(
    """questionnaire-itemControl questionnaire-displayCategory questionnaire-optionPrefix rendering-styleSensitive entryFormat
    sdc-questionnaire-observationLinkPeriod sdc-questionnaire-performerType structuredefinition-standards-status
    structuredefinition-fmm sdc-questionnaire-itemExtractionContext sdc-questionnaire-entryMode rendering-markdown
    sdc-questionnaire-observation-extract sdc-questionnaire-shortText sdc-questionnaire-launchContext
    questionnaire-choiceOrientation questionnaire-sliderStepValue maxDecimalPlaces"""
)


def read_questionnaire(
    raw: bytes | str, valuesets: Iterable[Json] = (), *, slug: str = "", language: str = ""
) -> tuple[Definition, tuple[str, ...]]:
    """The definition in a FHIR R4 Questionnaire, with warnings (each "path: reason").

    `valuesets` are ValueSet and CodeSystem resources that the file may name by URL. `slug` names the definition (else the
    resource's id or name does); `language` is that of the texts where the file does not say. Raises `Invalid` whose
    errors' `field` is the JSON path ("item[2].answerOption[0].valueCoding.code"), or the line when it is no JSON.
    """
    page = _Page(parse(raw), [v for v in valuesets if isinstance(v, dict)])
    page.top(language)
    items = page.items(page.resource.get("item"), "item", 1, page.variables(page.resource, ""))
    if not items and not page.errors:
        page.error("item", "required")
    items = tuple(page.enabled(item) for item in items)
    page.stop()
    name = str(page.resource.get("id") or page.resource.get("name") or page.resource.get("title") or "check")
    title = page.texts(page.resource, "title", "title") or page.texts(page.resource, "name", "name")
    definition = Definition(slug or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "check", title, items)
    for link_id in definition.circular:
        page.error(f"{page.paths[link_id]}.enableWhen", "circular")
    page.stop()
    definition = page.total(definition)
    page.stop()
    if not definition.languages:
        page.warn("item", "有题目或选项缺少文字，不能发布 some question or option has no text: cannot be published")
    return definition, tuple(page.warnings)


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse(raw: bytes | str) -> Json:
    """The JSON object in a file. Raises `Invalid` that names the line: no JSON, a key twice, too deep, NaN, huge numbers."""
    if len(raw) > MAX_BYTES:
        raise invalid("file", "out_of_range", reason=f"> {MAX_BYTES // 1024 // 1024} MiB")
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        twice = False

        def pairs(found: list[tuple[str, Any]]) -> Json:
            nonlocal twice
            result = dict(found)
            twice |= len(result) != len(found)
            return result

        def constant(name: str) -> float:
            raise ValueError(f"{name} is not JSON")

        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1 if isinstance(raw, bytes) else 1
        raise invalid(f"line {line}", "bad_format", reason="不是 UTF-8 not UTF-8") from None
    except json.JSONDecodeError as error:
        raise invalid(
            f"line {error.lineno}", "bad_format", reason=f"不是 JSON not JSON: {error.msg}, column {error.colno}"
        ) from None
    except RecursionError:
        raise _flaw(text) or invalid("line 1", "bad_format", reason="嵌套太深 nested too deep") from None
    except ValueError as error:
        raise invalid("file", "bad_format", reason=str(error)[:120]) from None
    if (twice or _deep(value)) and (flaw := _flaw(text)):
        raise flaw
    if not isinstance(value, dict):
        raise invalid("file", "wrong_type", reason="JSON object")
    return value


def _deep(value: Any) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            below
            for part in layer
            if isinstance(part, dict | list)
            for below in (part.values() if isinstance(part, dict) else part)
        ]
        if not layer:
            return False
    return True


def _flaw(text: str) -> Invalid | None:
    """The first key that stands twice, or the first place that is too deep, with its line."""
    stack: list[set[str] | None] = []
    line, last = 1, ""
    for token in re.finditer(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:\n]', text):
        sign = token[0]
        if sign == "\n":
            line += 1
        elif sign in "{[":
            stack.append(set() if sign == "{" else None)
            if len(stack) > MAX_DEPTH:
                return invalid(f"line {line}", "bad_format", reason=f"嵌套超过 {MAX_DEPTH} 层 nested too deep")
        elif sign in "}]":
            if stack:
                stack.pop()
        elif sign == ":" and stack and (keys := stack[-1]) is not None:
            key = str(json.loads(last or '""'))
            if key in keys:
                return invalid(f"line {line}", "bad_format", reason=f"键“{key[:60]}”出现两次 stands twice in one object")
            keys.add(key)
        last = sign if sign.startswith('"') else last
    return None


# --- reading ---------------------------------------------------------------------------------------------------------


class _Concept(NamedTuple):
    system: str
    code: str
    text: dict[str, str]
    score: Number | None


@dataclass
class _Page:
    """One file being read: what was found on the way."""

    resource: Json
    supplied: list[Json]
    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    base: str = "en"
    """Language of plain text."""
    paths: dict[str, str] = field(default_factory=dict)
    """JSON path by link id, of everything that has one."""
    kept: dict[str, Item] = field(default_factory=dict)
    """Items that are asked or shown, before their enableWhen."""
    values: dict[tuple[str, str], Json] = field(default_factory=dict)
    """The FHIR answer of (link id, option code)."""
    whens: dict[str, Json] = field(default_factory=dict)
    """Nodes that carry an enableWhen, by link id."""
    totals: list[tuple[list[Expression], Expression]] = field(default_factory=list)
    sets: dict[str, list[_Concept]] = field(default_factory=dict)

    def error(self, path: str, code: str, **params: Any) -> None:
        self.errors.append(FieldError(path, code, params))

    def refuse(self, path: str, what: str, reason: str) -> None:
        self.error(path, "unsupported", what=what, where=path, reason=reason)

    def warn(self, path: str, reason: str) -> None:
        line = f"{path}: {reason}"
        if line not in self.warnings:
            self.warnings.append(line)

    def stop(self) -> None:
        if self.errors:
            raise Invalid(self.errors)

    # small values ----------------------------------------------------------------------------------------------------

    def string(self, node: Json, key: str, path: str, required: bool = False) -> str:
        """A string of the node, cleaned; "" when absent. Codes and link ids go through here too: blanks at their ends are
        never meant (FHIR's `code` forbids them)."""
        value = node.get(key)
        if value is None:
            if required:
                self.error(f"{path}.{key}", "required")
            return ""
        if not isinstance(value, str):
            self.error(f"{path}.{key}", "wrong_type", reason="string")
            return ""
        if re.search("[\x00\ud800-\udfff]", value):
            self.error(f"{path}.{key}", "bad_format", reason="NUL, lone surrogate")
            return ""
        value = languages.clean(value)
        if required and not value:
            self.error(f"{path}.{key}", "required")
        return value

    def flag(self, node: Json, key: str, path: str) -> bool:
        value = node.get(key, False)
        if not isinstance(value, bool):
            self.error(f"{path}.{key}", "wrong_type", reason="true, false")
            return False
        return value

    def nodes(self, node: Json, key: str, path: str) -> Iterator[tuple[str, Json]]:
        """The objects in a list of the node with their paths."""
        value = node.get(key, [])
        where = f"{path}.{key}" if path else key
        if not isinstance(value, list):
            self.error(where, "wrong_type", reason="list")
            return
        for n, part in enumerate(value):
            if isinstance(part, dict):
                yield f"{where}[{n}]", part
            else:
                self.error(f"{where}[{n}]", "wrong_type", reason="object")

    def extensions(self, node: Json, path: str) -> Iterator[tuple[str, str, Json]]:
        """(path, url, extension) of a node."""
        for where, extension in self.nodes(node, "extension", path):
            yield where, str(extension.get("url", "")), extension

    def one(self, node: Json, name: str, path: str) -> tuple[str, Any]:
        """(path, value) of the extension whose address ends in `name`; value None when there is none."""
        for where, url, extension in self.extensions(node, path):
            if url.rpartition("/")[2] == name:
                key = next((k for k in extension if k.startswith("value")), "")
                return f"{where}.{key}", extension.get(key)
        return path, None

    def bound(self, node: Json, name: str, path: str) -> Number | None:
        where, value = self.one(node, name, path)
        if isinstance(value, dict):
            where, value = f"{where}.value", value.get("value")
        return None if value is None else self.real(value, where)

    def real(self, value: Any, path: str) -> Number | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.error(path, "wrong_type", reason="number")
        elif not abs(value) < 10**9:
            self.error(path, "out_of_range", reason="|n| < 10^9")
        else:
            return number(value)
        return None

    def texts(self, node: Json, key: str, path: str) -> dict[str, str]:
        """A text by language: the plain one, and those of the translation extension beside it (`_text`)."""
        found: dict[str, str] = {}
        if plain := self.string(node, key, path):
            found[self.base] = plain
        beside = node.get(f"_{key}")
        if not isinstance(beside, dict):
            return found
        for where, url, extension in self.extensions(beside, f"{path}._{key}"):
            if url != TRANSLATION:
                self.warn(where, f"未使用 not used: {url.rpartition('/')[2]}")
                continue
            parts = {str(p.get("url")): p for _, p in self.nodes(extension, "extension", where)}
            lang, content = parts.get("lang", {}), parts.get("content", {})
            code = next((v for k, v in lang.items() if k.startswith("value")), "")
            kind = next((k for k in content if k.startswith("value")), "valueString")
            self.translate(found, code, self.string(content, kind, where), where)
        return found

    def translate(self, found: dict[str, str], code: Any, text: str, path: str) -> None:
        try:
            tag = languages.tag(str(code), path)
        except Invalid as failure:
            self.errors += failure.errors
            return
        if text:
            found[tag] = text

    # the resource ----------------------------------------------------------------------------------------------------

    def top(self, language: str) -> None:
        """Everything about the resource but its items."""
        node = self.resource
        if node.get("resourceType") != "Questionnaire":
            self.error("resourceType", "not_one_of", choices="Questionnaire")
            self.stop()
        for key in ("modifierExtension", "implicitRules"):
            if node.get(key):
                self.refuse(key, key, "它会改变整份问卷的含义 it changes the meaning of the whole")
        if "status" not in node:
            self.warn("status", "缺少 missing, taken as draft")
        elif node["status"] not in STATUSES:
            self.error("status", "not_one_of", choices=", ".join(STATUSES))
        elif node["status"] == "retired":
            self.warn("status", "retired")
        if "id" in node and not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", str(node["id"])):
            self.warn("id", "不是合规的 FHIR id not a valid FHIR id")
        if isinstance(node.get("text"), dict) and "div" not in node["text"]:
            self.warn("text.div", "缺少 missing")
        for key in sorted(node.keys() - TOP):
            if not key.startswith("_"):
                self.warn(key[:60], "未使用 not used")
        for path, contained in self.nodes(node, "contained", ""):
            if contained.get("resourceType") == "ValueSet" and "status" not in contained:
                self.warn(f"{path}.status", "缺少 missing")
        self.notice(node, "")
        given = node.get("language") or language
        try:
            self.base = languages.tag(str(given)) if given else _guess(node)
        except Invalid:
            self.error("language", "bad_format", reason="BCP 47: zh-Hans, en")
        if not given:
            self.warn("language", f"缺少，按 {self.base} 处理 missing, taken as {self.base}")

    def notice(self, node: Json, path: str) -> None:
        """Refuse extensions that change what is asked; warn of those nobody here reads."""
        for where, url, _ in self.extensions(node, path):
            name = url.rpartition("/")[2]
            if name in REFUSED:
                self.refuse(where, name, "它会改变题目或计分 it changes what is asked or scored")
            elif name not in READ | HARMLESS and url not in SCORES and url != TRANSLATION:
                self.warn(where, f"未使用 not used: {name[:60]}")

    def variables(self, node: Json, path: str) -> list[Expression]:
        """FHIRPath variables declared at a node."""
        found = []
        for where, url, extension in self.extensions(node, path):
            if url.rpartition("/")[2] == "variable" and isinstance(extension.get("valueExpression"), dict):
                made = self.expression(extension["valueExpression"], f"{where}.valueExpression")
                found.append(made)
        return found

    def expression(self, value: Json, path: str) -> Expression:
        if value.get("language") not in ("text/fhirpath", None):
            self.refuse(path, str(value.get("language"))[:40], "text/fhirpath")
        return Expression(path, self.string(value, "name", path), self.string(value, "expression", path, required=True))

    # items -----------------------------------------------------------------------------------------------------------

    def items(self, value: Any, path: str, depth: int, scope: list[Expression]) -> tuple[Item, ...]:
        found = (self.item(node, where, depth, scope) for where, node in self.nodes({"item": value or []}, "item", path[:-5]))
        return tuple(item for item in found if item)

    def item(self, node: Json, path: str, depth: int, scope: list[Expression]) -> Item | None:
        """One item with those below it, without its enableWhen; None when it is not asked."""
        link_id = self.string(node, "linkId", path, required=True)
        if link_id in self.paths:
            self.error(f"{path}.linkId", "exists", what=link_id)
        if link_id:
            self.paths[link_id] = path
        if len(self.paths) > MAX_ITEMS or depth > 20:
            raise invalid(path, "out_of_range", reason=f"≤ {MAX_ITEMS} items, ≤ 20 levels")
        for key in sorted(node.keys() - KEYS):
            if not key.startswith("_"):
                self.error(f"{path}.{key[:60]}", "unknown_field")
        if node.get("modifierExtension"):
            self.refuse(f"{path}.modifierExtension", "modifierExtension", "它会改变题目的含义 it changes the item's meaning")
        self.notice(node, path)
        scope = [*scope, *self.variables(node, path)]
        kind = self.kind(node, path)
        below = self.items(node.get("item"), f"{path}.item", depth + 1, scope)
        where, calculated = self.one(node, "sdc-questionnaire-calculatedExpression", path)
        if isinstance(calculated, dict):
            total = self.expression(calculated, where)
            if kind not in NUMBERS or below:
                self.refuse(where, "calculatedExpression", f"“{total.expression[:120]}” 不是总分 is not a total")
            else:
                self.totals.append((scope, total))
            return None
        if self.one(node, "questionnaire-hidden", path)[1] is True:
            self.refuse(path, "questionnaire-hidden", "隐藏题目 a question nobody sees")
            return None
        if self.flag(node, "readOnly", path) and kind in ANSWERED | {"text"}:
            self.warn(path, "readOnly：不作答 not asked")
            return None
        if node.get("initial"):
            self.warn(f"{path}.initial", "不预填答案 answers are never filled in beforehand")
        made = self.asked(node, path, link_id, kind, below)
        self.kept[link_id] = made
        if node.get("enableWhen"):
            self.whens[link_id] = node
        return made

    def kind(self, node: Json, path: str) -> str:
        """Our kind of the node's type; "" after an error."""
        name = self.string(node, "type", path, required=True)
        repeats = self.flag(node, "repeats", path)
        kind = KINDS.get(name, "")
        if name and not kind:
            reasons = {"open-choice": "选项外的自由文字不能计分 free text beside the options cannot be scored"}
            self.refuse(f"{path}.type", name[:40], reasons.get(name, "自评不问这一类 self-checks do not ask this"))
        if repeats and kind == "choice":
            return "multiple"
        if repeats and kind not in {"text", ""}:
            self.refuse(f"{path}.repeats", f"repeats: {name}", "只有选择题可以多选 only a choice may repeat")
        return kind

    def asked(self, node: Json, path: str, link_id: str, kind: str, below: tuple[Item, ...]) -> Item:
        text = self.texts(node, "text", path)
        if not text and kind not in {"group", ""}:
            self.warn(f"{path}.text", "缺少文字 missing")
        required = self.flag(node, "required", path)
        at_least, at_most = (self.bound(node, f"questionnaire-{name}", path) for name in ("minOccurs", "maxOccurs"))
        minimum = maximum = None
        if kind in NUMBERS:
            minimum, maximum = self.bound(node, "minValue", path), self.bound(node, "maxValue", path)
        elif kind == "multiple":
            minimum, maximum = at_least, at_most
        if minimum is not None and maximum is not None and minimum > maximum:
            self.error(path, "out_of_range", reason=f"{minimum} > {maximum}")
        options: tuple[Option, ...] = ()
        if kind in CHOICES:
            options = self.options(node, path, link_id)
        elif kind and {"answerOption", "answerValueSet"} & node.keys():
            self.refuse(f"{path}.answerOption", "answerOption", f"type {node.get('type')}: R4 only for choice")
        unit = self.one(node, "questionnaire-unit", path)[1]
        unit = str(unit.get("display") or unit.get("code") or "")[:40] if isinstance(unit, dict) else ""
        required = required or (kind in ANSWERED and (at_least or 0) >= 1)
        return Item(
            link_id, kind, text, required, minimum, maximum, unit if kind in NUMBERS else "", options=options, items=below
        )

    # options ---------------------------------------------------------------------------------------------------------

    def options(self, node: Json, path: str, link_id: str) -> tuple[Option, ...]:
        """The options of a choice, wherever they stand, each under a code unique in the item."""
        concepts: list[tuple[_Concept, Json]] = []
        if reference := self.string(node, "answerValueSet", path):
            if "answerOption" in node:
                self.error(
                    f"{path}.answerOption", "bad_format", reason="answerValueSet 与 answerOption 只能有一个 only one of both"
                )
            for c in self.valueset(reference, f"{path}.answerValueSet"):
                coding = {"code": c.code, **({"system": c.system} if c.system else {})}
                concepts.append((c, {"valueCoding": coding}))
        else:
            concepts = [one for where, o in self.nodes(node, "answerOption", path) if (one := self.option(o, where))]
            if not node.get("answerOption"):
                self.error(f"{path}.answerOption", "required")
        codes = [concept.code for concept, _ in concepts]
        made: list[Option] = []
        seen: set[str] = set()
        for concept, value in concepts:
            code = concept.code if codes.count(concept.code) == 1 else f"{concept.system}|{concept.code}"
            if code in seen:
                self.error(path, "exists", what=code)
            seen.add(code)
            self.values[link_id, code] = value
            made.append(Option(code, concept.text, concept.score, concept.system))
        scored = [option.score is not None for option in made]
        if any(scored) and not all(scored):
            self.warn(path, "有的选项没有分值，不计入总分 some options have no score and count nothing")
        return tuple(made)

    def option(self, node: Json, path: str) -> tuple[_Concept, Json] | None:
        self.notice(node, path)
        if node.get("modifierExtension"):
            self.refuse(f"{path}.modifierExtension", "modifierExtension", "")
        if node.get("initialSelected"):
            self.warn(f"{path}.initialSelected", "不预选答案 answers are never chosen beforehand")
        score = self.score(node, path)
        if isinstance(coding := node.get("valueCoding"), dict):
            where = f"{path}.valueCoding"
            system, code = self.string(coding, "system", where), self.string(coding, "code", where, required=True)
            inner = self.score(coding, where)
            if score is not None and inner is not None and score != inner:
                self.error(where, "bad_format", reason=f"两处分值不同 two scores: {score}, {inner}")
            concept = _Concept(system, code, self.texts(coding, "display", where), inner if score is None else score)
            return concept, {"valueCoding": {k: coding[k] for k in ("system", "code") if k in coding}}
        if "valueString" in node:
            text = self.texts(node, "valueString", path)
            return _Concept("", self.string(node, "valueString", path, required=True), text, score), {
                "valueString": node["valueString"]
            }
        if "valueInteger" in node:
            own = self.real(node["valueInteger"], f"{path}.valueInteger")
            if own is None or own != int(own):
                return None
            label = {self.base: str(own)}
            style = self.one(node, "rendering-style", path)[1]
            if isinstance(style, str) and style.strip() and not re.search(r"[a-z-]\s*:", style):
                label = {self.base: languages.clean(style)}
                self.warn("item", "选项文字取自 rendering-style the options' labels were found in rendering-style")
            return _Concept("", str(own), label, own if score is None else score), {"valueInteger": own}
        kinds = [k for k in node if k.startswith("value")]
        self.refuse(path, kinds[0] if kinds else "answerOption", "valueCoding, valueString, valueInteger")
        return None

    def score(self, node: Json, path: str) -> Number | None:
        """The score in a node's own extensions."""
        found: set[Number] = set()
        for where, url, extension in self.extensions(node, path):
            if url in SCORES:
                key = next((k for k in extension if k.startswith("value")), "value[x]")
                value = self.real(extension.get(key), f"{where}.{key}")
                found |= {value} if value is not None else set()
        if len(found) > 1:
            self.error(path, "bad_format", reason=f"分值不一 different scores: {sorted(found)}")
        return min(found, default=None)

    def valueset(self, reference: str, path: str) -> list[_Concept]:
        """The concepts of a ValueSet named as "#id", or by the URL of a contained or a supplied one. Read once a file."""
        url = reference.partition("|")[0]
        if url in self.sets:
            return self.sets[url]
        self.sets[url] = []
        contained = [(where, node, f"#{node.get('id')}") for where, node in self.nodes(self.resource, "contained", "")]
        supplied = [(f"ValueSet({node.get('url')})", node, "") for node in self.supplied]
        for where, node, own in contained + supplied:
            if node.get("resourceType") == "ValueSet" and url in (own, node.get("url")):
                self.sets[url] = list(self.concepts(node, where))
                if not self.sets[url]:
                    self.error(path, "incomplete", missing=f"{url}: concept")
                return self.sets[url]
        self.error(path, "unknown_reference", value=reference)
        return []

    def concepts(self, node: Json, path: str) -> Iterator[_Concept]:
        """Of an expansion when there is one (its scores filled in from compose), else of compose."""
        compose = node.get("compose") if isinstance(node.get("compose"), dict) else {}
        composed = list(self.composed(compose or {}, f"{path}.compose"))
        expansion = node.get("expansion")
        if not isinstance(expansion, dict) or not expansion.get("contains"):
            yield from composed
            return
        known = {(c.system, c.code): c for c in composed}
        for concept in self.contains(expansion, f"{path}.expansion"):
            other = known.get((concept.system, concept.code))
            yield concept._replace(score=other.score) if other and concept.score is None else concept

    def contains(self, node: Json, path: str) -> Iterator[_Concept]:
        for where, part in self.nodes(node, "contains", path):
            if not part.get("abstract") and not part.get("inactive"):
                yield self.concept(part, where, self.string(part, "system", where))
            yield from self.contains(part, where)

    def composed(self, compose: Json, path: str) -> Iterator[_Concept]:
        if compose.get("exclude"):
            self.refuse(f"{path}.exclude", "exclude", "请给出展开的选项 supply an expansion")
        for where, include in self.nodes(compose, "include", path):
            for key in ("filter", "valueSet"):
                if include.get(key):
                    self.refuse(f"{where}.{key}", key, "请给出展开的选项 supply an expansion")
            system = self.string(include, "system", where)
            book = next((c for c in self.supplied if c.get("resourceType") == "CodeSystem" and c.get("url") == system), None)
            listed = {c.code: c for n, p in self.nodes(book or {}, "concept", system) for c in [self.concept(p, n, system)]}
            if "concept" not in include and book and book.get("content") == "complete":
                yield from listed.values()
            elif "concept" not in include:
                self.error(f"{where}.concept", "unknown_reference", value=system or "system")
            for n, part in self.nodes(include, "concept", where):
                made = self.concept(part, n, system)
                other = listed.get(made.code)
                if other:
                    made = made._replace(
                        text={**other.text, **made.text}, score=other.score if made.score is None else made.score
                    )
                yield made

    def concept(self, node: Json, path: str, system: str) -> _Concept:
        text = self.texts(node, "display", path)
        for where, part in self.nodes(node, "designation", path):
            if part.get("language"):
                self.translate(text, part["language"], self.string(part, "value", where), f"{where}.language")
        self.notice(node, path)
        return _Concept(system, self.string(node, "code", path, required=True), text, self.score(node, path))

    # enableWhen ------------------------------------------------------------------------------------------------------

    def enabled(self, item: Item) -> Item:
        """The item and those below it with their enableWhen."""
        below = tuple(self.enabled(one) for one in item.items)
        node = self.whens.get(item.link_id)
        if node is None:
            return replace(item, items=below)
        path = self.paths[item.link_id]
        clauses = tuple(c for where, raw in self.nodes(node, "enableWhen", path) if (c := self.clause(raw, where)))
        behaviour = self.string(node, "enableBehavior", path)
        if behaviour not in ("any", "all", "") or (not behaviour and len(node["enableWhen"]) > 1):
            self.error(f"{path}.enableBehavior", "not_one_of", choices="any, all")
        return replace(item, items=below, enable_when=EnableWhen(behaviour == "any", clauses))

    def clause(self, node: Json, path: str) -> Clause | None:
        question, operator = self.string(node, "question", path, True), self.string(node, "operator", path, True)
        if operator and operator not in ("exists", "=", "!=", ">", "<", ">=", "<="):
            self.refuse(f"{path}.operator", operator[:20], "exists = != > < >= <=")
            return None
        if question and question not in self.paths:
            self.error(f"{path}.question", "unknown_reference", value=question)
            return None
        asked = self.kept.get(question)
        if asked is None or asked.kind not in ANSWERED:
            kind = asked.kind if asked else "readOnly"
            self.refuse(f"{path}.question", f"enableWhen: {kind}", "这道题的回答不会发来 its answer never reaches the server")
            return None
        keys = [key for key in node if key.startswith("answer")]
        if len(keys) != 1:
            self.error(f"{path}.answer[x]", "required" if not keys else "bad_format", reason="one")
            return None
        where, given = f"{path}.{keys[0]}", node[keys[0]]
        value: str | bool | Number | None
        if operator == "exists" or asked.kind == "boolean":
            value = given if keys[0] == "answerBoolean" and isinstance(given, bool) else None
            expected = "answerBoolean: true, false"
        elif asked.kind in NUMBERS:
            if keys[0] == "answerQuantity" and isinstance(given, dict):
                where, given = f"{where}.value", given.get("value")
            fits = keys[0] in ("answerInteger", "answerDecimal", "answerQuantity")
            value = number(given) if fits and isinstance(given, int | float) and not isinstance(given, bool) else None
            expected = "answerInteger, answerDecimal: 数字 a number"
        else:
            value, expected = self.code(asked, keys[0], given, where)
            if value == "":
                return None
        if value is None:
            self.error(where, "wrong_type", reason=expected)
            return None
        if operator in (">", "<", ">=", "<=") and asked.kind not in NUMBERS:
            self.refuse(f"{path}.operator", operator, f"{asked.kind}")
            return None
        return Clause(question, operator, value)

    def code(self, asked: Item, key: str, given: Any, path: str) -> tuple[str | None, str]:
        """The option's code that an enableWhen's answer means: None for a wrong type, "" after an error of its own."""
        answers = {o.code: self.values[asked.link_id, o.code] for o in asked.options}
        kinds = sorted({kind.replace("value", "answer") for answer in answers.values() for kind in answer})
        if key not in kinds or (key == "answerCoding") != isinstance(given, dict):
            return None, ", ".join(kinds)
        if key == "answerCoding":
            wanted = (given.get("code"), given.get("system"))
            found = [
                code
                for code, answer in answers.items()
                if (c := answer.get("valueCoding"))
                and c.get("code") == wanted[0]
                and (wanted[1] is None or c.get("system") in (wanted[1], None))
            ]
        else:
            found = [code for code, answer in answers.items() if answer.get(key.replace("answer", "value")) == given]
        if len(found) != 1:
            value = given.get("code") if isinstance(given, dict) else given
            self.error(path, "unknown_reference", value=str(value)[:80])
            return "", ""
        return found[0], ""

    # total -----------------------------------------------------------------------------------------------------------

    def total(self, definition: Definition) -> Definition:
        """The definition with its total: of its expression where it has one, else the plain sum where there are scores."""
        scored = [item for item in definition.index.values() if item.scored]
        if not self.totals:
            if not scored:
                self.warn("item", "没有分值，不算总分 no scores: there is no total")
                return definition
            return replace(definition, scales=(Scale(TOTAL, tuple(item.link_id for item in scored)),))
        outcomes = set()
        for scope, expression in self.totals:
            try:
                outcomes.add(proved(self.resource, self.values, definition.items, scored, scope, expression))
            except NotASum as reason:
                self.refuse(expression.path, expression.expression[:200], str(reason))
        if len(outcomes) > 1:
            self.refuse(self.totals[1][1].path, "calculatedExpression", "多个不同的总分（分量表） several different totals")
        if len(outcomes) != 1 or self.errors:
            return definition
        [(mode, counted)] = outcomes
        of = tuple(item.link_id for item in scored if item.link_id in counted)
        return replace(definition, scales=(Scale(TOTAL, of, mode),))


def _guess(node: Json) -> str:
    """The language of a file that does not say: by script, Chinese by whether GB 2312 holds its characters, English by its
    small words; "und" for what cannot be told, and readers are never shown that."""

    def words(part: Any) -> Iterator[str]:
        for one in part if isinstance(part, list) else []:
            if isinstance(one, dict):
                yield str(one.get("text", ""))
                yield from words(one.get("item"))

    text = "".join([str(node.get("title", "")), *words(node.get("item"))])
    if re.search("[\u1800-\u18af]", text):
        return "mn-Mong"
    han = "".join(re.findall("[\u4e00-\u9fff]", text))
    if not han:
        return "en" if re.search(r"\b(the|of|you|your|is|are|what|how|do|have)\b", text, re.I) else "und"
    try:
        han.encode("gb2312")
    except UnicodeEncodeError:
        return "zh-Hant"
    return "zh-Hans"

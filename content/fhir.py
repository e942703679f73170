"""FHIR R4 Questionnaires in: one file to one `Definition`, or a refusal that names every path and reason at once.

What decides a score is read or refused by name, never passed over: an enableWhen this service cannot follow, a total that
is not a sum, an option list that is nowhere, a score where nobody looks. What is merely missing and harmless (a status) is a
warning that is shown.

Scores are found at an answerOption or in its coding (ordinalValue, itemWeight and their older names), beside a primitive value
(`_valueInteger`), in a ValueSet's compose or expansion or its CodeSystem (`fhirsets`), or are an option's own valueInteger.
Numbers that an item works out in FHIRPath become scales (`fhirpath`): the widest is the total, the others subscales. What FHIR
has no place for comes back from our own extension, checked like the rules of staff (`fhirout`, `rules`).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from content import fhirout, languages, rules
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
    Texts,
    number,
)
from content.failures import FieldError, Invalid, Text, invalid
from content.fhirextensions import RULES, notice
from content.fhirjson import LINK_ID, OPTIONS, SCORES, Json, Reader, last, names
from content.fhirjson import MAX_DEPTH as MAX_DEPTH
from content.fhirjson import parse as parse
from content.fhirpath import Calculated, Expression, NotASum, Trial, follows, proved
from content.fhirsets import Concept, Sets

MAX_ITEMS = 500
KINDS = {
    "choice": "choice", "integer": "integer", "decimal": "decimal", "quantity": "decimal", "boolean": "boolean",
    "string": "text", "text": "text", "display": "display", "group": "group",
}  # fmt: skip
REASONS = {
    "open-choice": "选项外的自由文字不能计分 free text beside the options cannot be scored",
    "coding": "这是 R5 的写法，请导出为 R4 this is R5: export it as R4 (choice)",
    "question": "请写明答案的类型 name the type of its answer",
}
CALCULATED = {"integer": "valueInteger", "decimal": "valueDecimal", "quantity": "valueQuantity"}
CONTROLS = {
    "page": "page", "slider": "slider", "gtable": "table", "htable": "table", "atable": "table", "table": "table",
    "grid": "table",
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


def read_questionnaire(
    raw: bytes | str, valuesets: Iterable[Json] = (), *, slug: str = "", language: str = ""
) -> tuple[Definition, tuple[str, ...]]:
    """The definition in a FHIR R4 Questionnaire, with warnings (each "path: reason").

    `valuesets` are ValueSet and CodeSystem resources that the file may name by URL. `slug` names the definition (else the
    resource's id or name does); `language` is that of the texts where the file does not say. Raises `Invalid` whose
    errors' `field` is the JSON path ("item[2].answerOption[0].valueCoding.code"), or the line when it is no JSON.
    """
    page = _Page(resource=parse(raw))
    page.sets = Sets(page, page.resource, [v for v in valuesets if isinstance(v, dict)])
    page.top(language)
    items = page.items(page.resource.get("item"), "item", 1, "", page.variables(page.resource, ""))
    if not items and not page.errors:
        page.error("item", "required")
    items = tuple(page.enabled(item) for item in items)
    page.unread(page.resource.get("item"), "item")
    page.stop()
    name = str(page.resource.get("id") or page.resource.get("name") or page.resource.get("title") or "check")
    title = page.texts(page.resource, "title", "title") or page.texts(page.resource, "name", "name")
    definition = Definition(slug or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "check", title, items)
    for link_id in definition.circular:
        page.error(f"{page.paths[link_id]}.enableWhen", "circular")
    page.stop()
    definition = page.ruled(definition) if page.rules is not None else page.scaled(definition)
    page.stop()
    if not definition.languages:
        page.warn("item", "有题目或选项缺少文字，不能发布 some question or option has no text: cannot be published")
    return definition, tuple(page.warnings)


@dataclass
class _Page(Reader):
    """One questionnaire being read."""

    resource: Json = field(default_factory=dict)
    sets: Sets = field(init=False)
    paths: dict[str, str] = field(default_factory=dict)
    """JSON path by link id, of everything that has one."""
    kept: dict[str, Item] = field(default_factory=dict)
    """Items that are asked or shown, before their enableWhen."""
    values: dict[tuple[str, str], Json] = field(default_factory=dict)
    """The FHIR answer of (link id, option code)."""
    whens: dict[str, Json] = field(default_factory=dict)
    """Nodes that carry an enableWhen, by link id."""
    totals: list[Calculated] = field(default_factory=list)
    rules: Json | None = None
    """What our own extension says."""
    count: int = 0
    """Of items, whatever they are."""

    # the resource ----------------------------------------------------------------------------------------------------

    def top(self, language: str) -> None:
        """Everything about the resource but its items."""
        node = self.resource
        if node.get("resourceType") != "Questionnaire":
            self.error("resourceType", "not_one_of", choices="Questionnaire")
            self.stop()
        for key in ("modifierExtension", "implicitRules"):
            if node.get(key):
                self.refuse(key, key, Text("它会改变整份问卷的含义", "it changes the meaning of the whole"))
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
        notice(self, node, "")
        where, text = self.one(node, RULES, "")
        if text is not None:
            try:
                self.rules = parse(text if isinstance(text, str) else "")
            except Invalid as failure:
                self.errors += [FieldError(f"{where}: {error.field}", error.code, error.params) for error in failure.errors]
        given = node.get("language") or language
        try:  # "und" is what an export of a file says whose language could not be told
            self.base = "und" if given == "und" else languages.tag(str(given)) if given else _guess(node)
        except Invalid:
            self.error("language", "bad_format", reason="BCP 47: zh-Hans, en")
        if not given:
            self.warn("language", f"缺少，按 {self.base} 处理 missing, taken as {self.base}")

    def variables(self, node: Json, path: str) -> list[Expression]:
        """FHIRPath variables declared at a node."""
        found = []
        for where, url, extension in self.extensions(node, path):
            if last(url) == "variable" and isinstance(extension.get("valueExpression"), dict):
                made = self.expression(extension["valueExpression"], f"{where}.valueExpression")
                found.append(made)
        return found

    def expression(self, value: Json, path: str) -> Expression:
        if value.get("language") not in ("text/fhirpath", None):
            self.refuse(path, str(value.get("language"))[:40], "text/fhirpath")
        return Expression(path, self.string(value, "name", path), self.string(value, "expression", path, required=True))

    # items -----------------------------------------------------------------------------------------------------------

    def items(self, value: Any, path: str, depth: int, parent: str, scope: list[Expression]) -> tuple[Item, ...]:
        nodes = self.nodes({"item": value or []}, "item", path[:-5])
        found = (self.item(node, where, depth, parent, scope) for where, node in nodes)
        return tuple(item for item in found if item)

    def item(self, node: Json, path: str, depth: int, parent: str, scope: list[Expression]) -> Item | None:
        """One item with those below it, without its enableWhen; None when it is not asked."""
        link_id = self.string(node, "linkId", path, required=True)
        self.named(link_id, f"{path}.linkId", LINK_ID)
        if link_id in self.paths:
            self.error(f"{path}.linkId", "exists", what=link_id)
        if link_id:
            self.paths[link_id] = path
        self.count += 1
        if self.count > MAX_ITEMS or depth > 20:
            raise invalid(path, "out_of_range", reason=f"≤ {MAX_ITEMS} items, ≤ 20 levels")
        for key in sorted(node.keys() - KEYS):
            if not key.startswith("_"):
                self.error(f"{path}.{key[:60]}", "unknown_field")
        if node.get("modifierExtension"):
            self.refuse(
                f"{path}.modifierExtension", "modifierExtension", Text("它会改变题目的含义", "it changes the item's meaning")
            )
        notice(self, node, path)
        scope = [*scope, *self.variables(node, path)]
        kind, before = self.kind(node, path), len(self.totals)
        below = self.items(node.get("item"), f"{path}.item", depth + 1, link_id, scope)
        where, calculated = self.one(node, "sdc-questionnaire-calculatedExpression", path)
        if calculated is not None:
            self.calculated(node, where, link_id, parent, below, scope)
            return None
        numbers_only = kind == "group" and not below and len(self.totals) > before
        if self.one(node, "questionnaire-hidden", path)[1] is True:
            if not numbers_only and kind != "display":
                self.refuse(path, "questionnaire-hidden", Text("隐藏题目", "a question nobody sees"))
            return None
        if numbers_only:  # what it held is worked out, not asked
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

    def calculated(
        self, node: Json, path: str, link_id: str, parent: str, below: tuple[Item, ...], scope: list[Expression]
    ) -> None:
        """An item whose number is worked out: a scale, if its expression proves to be one."""
        value = self.one(node, "sdc-questionnaire-calculatedExpression", "")[1]
        if not isinstance(value, dict):
            self.error(path, "wrong_type", reason="valueExpression")
            return
        total, key = self.expression(value, path), CALCULATED.get(str(node.get("type")))
        if key is None or below or node.get("enableWhen"):
            self.refuse(path, "calculatedExpression", Text("不是总分", f"“{total.expression[:120]}” is not a total"))
        else:
            text = self.texts(node, "text", path.partition(".extension")[0])
            self.totals.append(Calculated(link_id, parent, key, text, (*scope, total)))

    def kind(self, node: Json, path: str) -> str:
        """Our kind of the node's type; "" after an error."""
        name = self.string(node, "type", path, required=True)
        repeats = self.flag(node, "repeats", path)
        kind = KINDS.get(name, "")
        if name and not kind:
            self.refuse(f"{path}.type", name[:40], REASONS.get(name, Text("自评不问这一类", "self-checks do not ask this")))
        if repeats and kind == "choice":
            return "multiple"
        if repeats and kind not in {"text", ""}:
            self.refuse(f"{path}.repeats", f"repeats: {name}", Text("只有选择题可以多选", "only a choice may repeat"))
        return kind

    def asked(self, node: Json, path: str, link_id: str, kind: str, below: tuple[Item, ...]) -> Item:
        text = self.texts(node, "text", path)
        if not text and kind not in {"group", ""}:
            self.warn(f"{path}.text", "缺少文字 missing")
        required = self.flag(node, "required", path)
        at_least, at_most = (self.bound(node, f"questionnaire-{name}", path) for name in ("minOccurs", "maxOccurs"))
        minimum = maximum = None
        if kind in NUMBERS:
            minimum, maximum = (self.limit(node, end, path) for end in ("min", "max"))
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
        # "required": false beside minOccurs: none, or at least so many
        required = required or ("required" not in node and kind in ANSWERED and (at_least or 0) >= 1)
        return Item(
            link_id, kind, text, required, minimum, maximum, unit if kind in NUMBERS else "", self.control(node, path, kind),
            options=options, items=below,
        )  # fmt: skip

    def limit(self, node: Json, end: str, path: str) -> Number | None:
        """A number's least ("min") or most."""
        found = self.bound(node, f"{end}Value", path)
        return self.bound(node, f"sdc-questionnaire-{end}Quantity", path) if found is None else found

    def control(self, node: Json, path: str, kind: str) -> str:
        """How the item is shown, as far as this service has that."""
        where, value = self.one(node, "questionnaire-itemControl", path)
        rows = value.get("coding") if isinstance(value, dict) else None
        for row in rows if isinstance(rows, list) else []:
            found = CONTROLS.get(str(row.get("code"))) if isinstance(row, dict) else None
            if found and (kind in NUMBERS if found == "slider" else kind == "group"):
                return found
            if found:
                self.warn(where, f"未使用 not used: {found}, {kind}")
        return ""

    # options ---------------------------------------------------------------------------------------------------------

    def options(self, node: Json, path: str, link_id: str) -> tuple[Option, ...]:
        """The options of a choice, wherever they stand, each under a code unique in the item."""
        concepts: list[tuple[Concept, Json]] = []
        if reference := self.string(node, "answerValueSet", path):
            if "answerOption" in node:
                self.error(
                    f"{path}.answerOption",
                    "bad_format",
                    reason=Text("与 answerValueSet 只能有一个", "give it or answerValueSet, not both"),
                )
            for c in self.sets.concepts(reference, f"{path}.answerValueSet"):
                coding = {"code": c.code, **({"system": c.system} if c.system else {})}
                concepts.append((c, {"valueCoding": coding}))
        else:
            concepts = [one for where, o in self.nodes(node, "answerOption", path) if (one := self.option(o, where))]
            if not node.get("answerOption"):
                self.error(f"{path}.answerOption", "required")
        codes = [concept.code for concept, _ in concepts]
        self.many(len(codes), "multiple" if node.get("repeats") is True else "choice", path)
        if len(codes) > OPTIONS:  # each is compared with every other
            return ()
        made: list[Option] = []
        seen: set[str] = set()
        for concept, value in concepts:
            code = concept.code if codes.count(concept.code) == 1 else f"{concept.system}|{concept.code}"
            self.named(code, path, words="valueString" in value)
            if code in seen:
                self.error(path, "exists", what=code)
            seen.add(code)
            self.values[link_id, code] = value
            made.append(Option(code, concept.text, concept.score, concept.system))
        scored = [option.score is not None for option in made]
        if any(scored) and not all(scored):
            self.warn(path, "有的选项没有分值，不计入总分 some options have no score and count nothing")
        return tuple(made)

    def option(self, node: Json, path: str) -> tuple[Concept, Json] | None:
        notice(self, node, path)
        if node.get("modifierExtension"):
            self.refuse(f"{path}.modifierExtension", "modifierExtension", "")
        if node.get("initialSelected"):
            self.warn(f"{path}.initialSelected", "不预选答案 answers are never chosen beforehand")
        score = self.sets.score(node, path)
        if isinstance(coding := node.get("valueCoding"), dict):
            where = f"{path}.valueCoding"
            system, code = self.string(coding, "system", where), self.string(coding, "code", where, required=True)
            inner = self.sets.score(coding, where)
            if score is not None and inner is not None and score != inner:
                self.error(where, "bad_format", reason=Text(f"两处分值不同：{score}、{inner}", f"two scores: {score}, {inner}"))
            concept = Concept(system, code, self.texts(coding, "display", where), inner if score is None else score)
            return concept, {"valueCoding": {k: coding[k] for k in ("system", "code") if k in coding}}
        if "valueString" in node:
            text = self.texts(node, "valueString", path)
            return Concept("", self.string(node, "valueString", path, required=True), text, score), {
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
            return Concept("", str(own), label, own if score is None else score), {"valueInteger": own}
        kinds = [k for k in node if k.startswith("value")]
        self.refuse(path, kinds[0] if kinds else "answerOption", "valueCoding, valueString, valueInteger")
        return None

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
            self.refuse(
                f"{path}.question", f"enableWhen: {kind}", Text("这道题的回答不会发来", "its answer never reaches the server")
            )
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

    # scales ----------------------------------------------------------------------------------------------------------

    def scaled(self, definition: Definition) -> Definition:
        """The definition with its scales: of its expressions where it has some, else the plain sum where there are scores."""
        scored = tuple(item.link_id for item in definition.index.values() if item.scored)
        if (self.totals or scored) and TOTAL in self.kept:
            reason = Text("总分用这个名称，请给题目换一个 linkId", "the total has this name: give the question another linkId")
            self.refuse(f"{self.paths[TOTAL]}.linkId", TOTAL, reason)
            return definition
        if not self.totals:
            if not scored:
                self.warn("item", "没有分值，不算总分 no scores: there is no total")
                return definition
            return replace(definition, scales=(Scale(TOTAL, scored),))
        found = self.proofs(definition)
        self.stop()
        found.sort(key=lambda pair: -len(pair[1].of))  # stable: the first of the widest
        [(whole, total), *rest] = found
        scales = [replace(total, link_id=whole.link_id)]
        for one, scale in rest:
            if any((scale.of, scale.method, scale.reverse) == (s.of, s.method, s.reverse) for s in scales):
                self.warn(self.paths[one.link_id], "与另一个总分相同 the same as another total")
                continue
            made = replace(scale, code=_code(one, {*definition.index, *(s.code for s in scales)}), name=_name(one.text))
            scales.append(replace(made, link_id=one.link_id))
        for scale in scales:
            if scale.method == "sum_if_complete" and any(definition.gates[name] for name in scale.of):
                told = f"{scale.code}：有的题不一定问；那时文件没有结果，这里按问到的题计"
                english = (
                    "some of its questions are not always asked: the file has no result then, here it is the sum of the others"
                )
                self.warn(self.paths[scale.link_id], f"{told} {english}")
        return replace(definition, scales=tuple(scales))

    def proofs(self, definition: Definition) -> list[tuple[Calculated, Scale]]:
        """Each number that is worked out with its scale. One may name another, so those that stand on others come after them; in
        the end each is tried beside all others."""
        trial = Trial(self.resource, self.values, definition)
        waiting, found = list(self.totals), list[tuple[Calculated, Scale]]()
        while waiting:
            reasons, before = {}, len(found)
            for one in tuple(waiting):
                try:
                    scale = proved(trial, one, found)
                except NotASum as reason:
                    reasons[one.link_id] = reason.reason
                else:
                    found.append((one, replace(scale, code=f"?{len(found)}")))
                    waiting.remove(one)
            if len(found) == before:
                for one in waiting:
                    self.refuse(one.steps[-1].path, one.steps[-1].expression[:200], reasons[one.link_id])
                return []
        if len(found) > 1:
            self.beside(trial, found)
        order = [one.link_id for one in self.totals]
        return sorted(((one, replace(s, code=TOTAL)) for one, s in found), key=lambda pair: order.index(pair[0].link_id))

    def beside(self, trial: Trial, found: list[tuple[Calculated, Scale]]) -> None:
        """Refuse the expressions that are not their scales while all other items have their numbers."""
        for one, scale in found:
            try:
                follows(trial, one, scale, [pair for pair in found if pair[0] is not one])
            except NotASum as reason:
                self.refuse(one.steps[-1].path, one.steps[-1].expression[:200], reason.reason)

    def ruled(self, definition: Definition) -> Definition:
        """The definition with the rules that came with the file; its expressions must agree with them."""
        path, given = self.one(self.resource, RULES, "")
        values = dict(self.rules or {})
        links = values.pop("links", {})
        if not isinstance(links, dict) or not all(isinstance(v, str) for v in links.values()):
            self.error(f"{path}.links", "wrong_type", reason="{scale: linkId}")
            return definition
        try:
            made = rules.laid(definition, values)
        except Invalid as failure:
            self.errors += [FieldError(f"{path}.{error.field}", error.code, error.params) for error in failure.errors]
            return definition
        made = replace(made, scales=tuple(replace(s, link_id=languages.clean(links.get(s.code, ""))) for s in made.scales))
        shown = {fhirout.link_of(made, scale): scale for scale in made.scales}
        for one in self.totals:
            if one.link_id not in shown:
                self.refuse(
                    one.steps[-1].path, one.steps[-1].expression[:200], Text(f"{path}：没有这个量表", f"{path}: no such scale")
                )
        self.stop()
        pairs = [(one, shown[one.link_id]) for one in self.totals]
        self.beside(Trial(self.resource, self.values, made), pairs)
        return made

    def unread(self, value: Any, path: str) -> None:
        """Refuse scores that stand where none is read: they would be lost."""
        if isinstance(value, list):
            for n, part in enumerate(value):
                self.unread(part, f"{path}[{n}]")
        elif isinstance(value, dict):
            if last(str(value.get("url", ""))) in SCORES and id(value) not in self.sets.read:
                self.refuse(path, last(str(value["url"])), Text("这里的分值读不到", "a score where none is read"))
            for key, part in value.items():
                self.unread(part, f"{path}.{key}")


def _code(one: Calculated, taken: set[str]) -> str:
    """A scale's code out of its item's linkId, else out of its text."""
    for text in (one.link_id, *(one.text[tag] for tag in sorted(one.text))):
        code = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40].strip("_")
        if rules.CODE.fullmatch(code) and code not in taken:
            return code
    return next(code for n in range(1, MAX_ITEMS + 2) if (code := f"scale_{n}") not in taken)


def _name(text: Texts) -> dict[str, str]:
    return {tag: line[:120].strip() for tag, line in text.items() if tag != "und"}


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

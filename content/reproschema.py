"""ReproSchema activities in: `*_schema` with its item files to one `Definition`, or a refusal naming file, path and reason.

What decides a score is read or refused by name, as `content.fhir` does: an isVis that enableWhen cannot hold, a compute that
is no sum of the activity's own items, a choice without a value. A gap that changes no score is a warning: a language that
an item lacks, an older spelling, a rule that only names a range of the total (bands are staff's to enter).

The value of a choice is its code and its score, and a scale is only what `compute` says; without one there is no total,
since a value may be a mere code. Nothing is fetched, and no path leads out of the folder that was given.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from content import jsexpression, languages
from content.checking import file_bytes
from content.definition import TOTAL, Definition, EnableWhen, Item, Number, Option, Scale, number
from content.failures import Invalid, Text
from content.fhir import MAX_ITEMS, parse
from content.fhirjson import LINK_ID, Notes, written
from content.jsexpression import NotRead
from content.visibility import shown_when

Json = dict[str, Any]
MAX_BYTES = 4 * 1024 * 1024  # of one file
MAX_SCALES = 30
MEND = "请改文件，或写进 NAME.yaml mend the file, or say it there: items: [{item: …, text: {zh-Hans: …}}]"
NESTED = 4  # sums of sums of sums
SHOWN = ("static", "staticreadonly", "static readonly")
CHOOSING = ("radio", "select", "slider", "dropdown", "checkbox", "radioautoadvance", "number", "text", "")
COUNTING = ("slider", "number", "integer", "int", "float", "decimal")
WRITING = ("text", "textarea", "multitext", "string")
TYPES = {
    "integer": "integer", "int": "integer", "long": "integer", "nonnegativeinteger": "integer", "positiveinteger": "integer",
    "decimal": "decimal", "float": "decimal", "double": "decimal", "string": "text", "langstring": "text",
}  # fmt: skip
REQUIRED = ("valueRequired", "isRequired", "requiredValue")
PROPERTIES = {"isAbout", "isVis", "variableName", "prefLabel", "altLabel", "allow", "category", "id", "@type", "@id", *REQUIRED}
ACTIVITY = {
    "@context", "id", "category", "citation", "description", "schemaVersion", "version", "ui", "compute", "scoringLogic",
    "preamble", "prefLabel", "altLabel", "isProprietary",
}  # fmt: skip
ITEM = {
    "@context", "id", "category", "citation", "description", "schemaVersion", "version", "ui", "question", "prefLabel",
    "altLabel", "preamble", "responseOptions", "isProprietary",
}  # fmt: skip
RESPONSES = {
    "@context", "id", "category", "schemaVersion", "version", "description", "prefLabel", "choices", "minValue", "maxValue",
    "multipleChoice", "valueType", "unitCode",
}  # fmt: skip
NO = re.compile(r"(no|not|never|none|hardly|seldom)\b|不|没|從不|从不|从未|从来", re.IGNORECASE)
OUTSIDE = "在导入的文件夹之外 outside the folder that is imported"
PREAMBLE = "preamble"
"""Link id of what stands above the first question."""


def read_activity(
    path: Path, root: Path | None = None, *, slug: str = "", language: str = ""
) -> tuple[Definition, tuple[str, ...]]:
    """The definition in an activity file, with warnings (each "path: reason").

    The files it names are looked for beside it, with their name, .json or .jsonld, and only inside `root` (its own folder
    unless given). `slug` names the definition, else the activity's id does; `language` is that of texts that
    do not say (English unless given). Raises `Invalid` with every fault; the errors'
    `field` is "file#path" with the file as seen from `root`, or "file#line n" when it is no JSON.
    """
    root = path.parent if root is None else root
    reader = _Reader(root=Path(os.path.realpath(root)), base=language or "en")
    file = Path(os.path.realpath(path))
    if not file.is_relative_to(reader.root):  # a link that leads out
        reader.refuse(path.name, path.name, OUTSIDE)
        reader.stop()
    return reader.activity(file, slug), tuple(reader.warnings)


def category(node: Mapping[str, Any]) -> str:
    """What a file of ReproSchema says it is ("Activity", "Item", "ResponseOption", "Protocol"); "" when it says nothing."""
    said = node.get("category") or node.get("@type") or ""
    said = said[0] if isinstance(said, list) and said else said
    name = str(said).rpartition("/")[2].rpartition(":")[2] if isinstance(said, str) else ""
    return {"Field": "Item"}.get(name, name) if name[:1].isupper() else ""


@dataclass
class _Asked:
    """An item in the order of the page, before its rules."""

    name: str
    file: Path
    visible: Any
    at: str
    """Where its isVis stands."""
    required: bool


@dataclass(kw_only=True)
class _Reader(Notes):
    """One activity being read."""

    root: Path
    files: dict[Path, Json | None] = field(default_factory=dict)

    def spot(self, path: str) -> str:
        """Nothing between the file and the first name, no mark at its end."""
        return written(path.replace("#.", "#").rstrip("#"))

    # files -----------------------------------------------------------------------------------------------------------

    def name(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def find(self, reference: str, start: Path, path: str) -> Path | None:
        """The file that a reference in `start` means; None after an error. A link that leads out is no file."""
        if re.match(r"[A-Za-z][\w+.-]*:", reference):
            self.refuse(path, reference, Text("不从网络取文件", "nothing is fetched: put the file beside it"))
            return None
        sound = 0 < len(reference) <= 500 and reference == written(reference) and not {"\\", "\0"} & set(reference)
        if not sound or reference.startswith("/"):
            self.error(path, "bad_format", reason=Text("请写相对路径", "write a relative path"))
            return None
        plain = os.path.normpath(start.parent / reference)
        for name in (plain, f"{plain}.json", f"{plain}.jsonld"):
            file = Path(os.path.realpath(name))
            if not file.is_relative_to(self.root):
                self.refuse(path, reference, OUTSIDE)
                return None
            if os.path.isfile(file):  # false, and no failure, for a name that is too long  # noqa: PTH113
                return file
        self.error(path, "unknown_reference", value=reference)
        return None

    def load(self, file: Path) -> Json | None:
        """The object in a file, keys without their prefixes; None after an error. Read once."""
        if file not in self.files:
            self.files[file] = None
            try:
                self.files[file] = _plain(parse(file_bytes(file, MAX_BYTES)))
            except Invalid as failure:
                own = [f"{self.name(file)}#{e.field}" if e.field != file.name else self.name(file) for e in failure.errors]
                self.errors += [e._replace(field=at) for e, at in zip(failure.errors, own, strict=True)]
        return self.files[file]

    # small values ----------------------------------------------------------------------------------------------------

    def string(self, value: Any, path: str, required: bool = False) -> str:
        if value is None or isinstance(value, str):
            if value and re.search("[\x00\ud800-\udfff]", value):
                self.error(path, "bad_format", reason="NUL, lone surrogate")
                return ""
            if required and not (value or "").strip():
                self.error(path, "required")
            return languages.clean(value or "")
        self.error(path, "wrong_type", reason="string")
        return ""

    def flag(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool | None):
            self.error(path, "wrong_type", reason="true, false")
        return value is True

    def rows(self, value: Any, path: str) -> list[Any]:
        if isinstance(value, dict) and "@list" in value:
            value = value["@list"]
        if not isinstance(value, list | None):
            self.error(path, "wrong_type", reason="list")
            return []
        return value or []

    def real(self, value: Any, path: str) -> Number | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.error(path, "wrong_type", reason="number")
        elif not abs(value) < 10**9:
            self.error(path, "out_of_range", reason="|n| < 10^9")
        else:
            return number(value)
        return None

    def texts(self, value: Any, path: str) -> dict[str, str]:
        """A text by language: a map, JSON-LD's {"@language", "@value"}, or a bare text."""
        if isinstance(value, str):
            value = {self.base: value}
        if isinstance(value, dict) and "@value" in value:
            value = [value]
        if isinstance(value, list):
            value = {str(v.get("@language", self.base)): v.get("@value") for v in value if isinstance(v, dict)}
        if not isinstance(value, dict | None):
            self.error(path, "wrong_type", reason="{language: text}")
            return {}
        found: dict[str, str] = {}
        for key, one in (value or {}).items():
            text = self.string(one, f"{path}.{key[:40]}")
            try:
                tag = languages.tag(key.replace("_", "-"))
            except Invalid:
                self.warn(f"{path}.{key[:40]}", f"不是语言代码，这段文字没有使用 no language tag, its text is not used；{MEND}")
                continue
            if text and tag in found and found[tag] != text:
                self.warn(f"{path}.{key[:40]}", f"{tag} 已有另一段文字 there is another text already, which is kept")
            elif text:
                found[tag] = text
        return found

    def others(self, node: Json, known: Iterable[str], at: str) -> None:
        """Warn of what nobody here reads."""
        for key in sorted(node.keys() - set(known)):
            self.warn(f"{at}{key[:60]}", "未使用 not used")

    # the activity ----------------------------------------------------------------------------------------------------

    def activity(self, file: Path, slug: str) -> Definition:
        at = f"{self.name(file)}#"
        node = self.load(file)
        self.stop()
        if node is None or category(node) != "Activity":
            self.error(f"{at}category", "not_one_of", choices="Activity")
            self.stop()
        assert node is not None
        self.others(node, ACTIVITY, at)
        ui = node.get("ui")
        if not isinstance(ui, dict):
            self.error(f"{at}ui", "required" if ui is None else "wrong_type", reason="object")
            self.stop()
        assert isinstance(ui, dict)
        for key in ("visibility", "branchLogic"):
            if ui.get(key) or node.get(key):
                self.refuse(f"{at}ui.{key}", key, Text("请写在 addProperties 的 isVis 里", "put it into isVis of addProperties"))
        if ui.get("shuffle"):
            self.warn(f"{at}ui.shuffle", "题目按文件顺序出现 questions keep the order of the file")
        computes = self.computes(node, at)
        asked = self.order(ui, file, at, set(computes))
        items = [item for one in asked if (item := self.item(one)) is not None]
        items = self.shown(items, asked, set(computes))
        preamble = self.texts(node.get("preamble"), f"{at}preamble")
        if preamble and items:
            above = PREAMBLE
            while above in {one.name for one in asked}:
                above += "_"
            items.insert(0, Item(above, "display", preamble))
        name = self.string(node.get("id"), f"{at}id") or file.stem
        title = self.texts(node.get("prefLabel"), f"{at}prefLabel") or self.texts(node.get("altLabel"), f"{at}altLabel")
        slug = slug or re.sub(r"[^a-z0-9]+", "-", name.lower().removesuffix("_schema")).strip("-")[:80] or "check"
        definition = Definition(slug, title or {self.base: name}, tuple(items))
        spots = {one.name: one.at for one in asked}
        for link_id in definition.circular:
            self.error(spots.get(link_id, at), "circular")
        # what a compute or an isVis names is only known when all items were read
        definition = self.scales(definition, computes, at) if not self.errors else definition
        self.stop()
        self.reaches(definition, computes, file, ui)
        self.directions(definition, at)
        self.gaps(definition)
        return definition

    def order(self, ui: Json, file: Path, at: str, computed: set[str]) -> list[_Asked]:
        """The items of the page in their order, each with what addProperties says of it."""
        rows = [
            (f"{at}ui.addProperties[{n}]", one)
            for n, one in enumerate(self.rows(ui.get("addProperties"), f"{at}ui.addProperties"))
        ]
        properties: dict[str, tuple[str, Json]] = {}
        for where, row in rows:
            if not isinstance(row, dict):
                self.error(where, "wrong_type", reason="object")
                continue
            self.others(row, PROPERTIES, f"{where}.")
            about = os.path.normpath(self.string(row.get("isAbout"), f"{where}.isAbout", required=True))
            if about in properties:
                self.error(f"{where}.isAbout", "exists", what=about)
            properties[about] = where, row
        order = self.rows(ui.get("order"), f"{at}ui.order")
        if not order:
            self.error(f"{at}ui.order", "required")
        if len(order) > MAX_ITEMS:
            self.error(f"{at}ui.order", "out_of_range", reason=f"≤ {MAX_ITEMS} items")
            self.stop()
        named = {os.path.normpath(one) for one in order if isinstance(one, str)}
        loose = {str(row.get("variableName")): about for about, (_, row) in properties.items() if about not in named}
        found: list[_Asked] = []
        for n, one in enumerate(order):
            where = f"{at}ui.order[{n}]"
            if not (about := self.string(one, where, required=True)):
                continue
            about = os.path.normpath(about)
            own = properties.get(about)
            stem = about.rpartition("/")[2].removesuffix(".jsonld").removesuffix(".json")
            if own is None and stem in loose:
                own = properties[loose.pop(stem)]
                self.warn(
                    f"{own[0]}.isAbout",
                    f"“{own[1]['isAbout']}” 不在顺序中，按变量名当作 not in order, by its variable taken as “{one}”",
                )
            if own is None:
                self.warn(where, "addProperties 中没有，按总是显示处理 not in addProperties, taken as always shown")
            spot, row = own or (where, {})
            name = self.string(row.get("variableName"), f"{spot}.variableName") or stem
            self.named(name, f"{spot}.variableName" if row else where, LINK_ID)
            visible = row.get("isVis", True)
            if name in computed:
                if visible is not False:
                    self.warn(f"{spot}.isVis", f"{name}：计算得出，不作答 computed, not asked")
            elif visible is False:
                self.warn(f"{spot}.isVis", f"{name}：隐藏，不作答 hidden, not asked")
            elif stem.endswith("schema"):
                self.refuse(where, about, Text("活动中的活动", "an activity within an activity: import it by itself"))
            elif name in {asked.name for asked in found}:
                self.error(f"{spot}.variableName", "exists", what=name)
            elif (target := self.find(one, file, where)) is not None:
                flags = [self.flag(row.get(key), f"{spot}.{key}") for key in REQUIRED]
                found.append(_Asked(name, target, visible, f"{spot}.isVis", any(flags)))
        for name, about in loose.items():
            where, row = properties[about]
            if name not in computed and row.get("isVis", True) is not False:
                self.warn(f"{where}.isAbout", f"“{about}” 不在顺序中，不作答 not in ui.order, not asked")
        return found

    # items -----------------------------------------------------------------------------------------------------------

    def item(self, asked: _Asked) -> Item | None:
        """One question without its visibility; None when it is no question or after an error."""
        at = f"{self.name(asked.file)}#"
        node = self.load(asked.file)
        if node is None:
            return None
        if category(node) not in ("Item", ""):
            self.error(f"{at}category", "not_one_of", choices="Item")
            return None
        self.others(node, ITEM, at)
        ui = node.get("ui") or {}
        if not isinstance(ui, dict):
            self.error(f"{at}ui", "wrong_type", reason="object")
            return None
        if ui.get("readonlyValue") is True or ui.get("readOnlyValue") is True:
            self.warn(f"{at}ui.readonlyValue", f"{asked.name}：不作答 not asked")
            return None
        text = self.texts(node.get("question"), f"{at}question")
        for key in ("prefLabel", "altLabel"):
            if not text and (text := self.texts(node.get(key), f"{at}{key}")):
                self.warn(f"{at}question", f"缺少，用 {key} missing, {key} is shown")
        if not text:
            self.warn(f"{at}question", "缺少文字 missing")
        if above := self.texts(node.get("preamble"), f"{at}preamble"):
            text = {tag: f"{above[tag]}\n{own}" for tag, own in text.items() if tag in above}
        kind = self.string(ui.get("inputType"), f"{at}ui.inputType").rpartition(":")[2]
        if kind.lower() in SHOWN:
            return Item(asked.name, "display", text)
        return self.answered(asked, node, kind, text, at)

    def answered(self, asked: _Asked, node: Json, control: str, text: dict[str, str], at: str) -> Item | None:
        """A question by its response options and its control."""
        responses, spot = self.responses(node, asked.file, at)
        if responses is None:
            return None
        self.others(responses, RESPONSES, f"{spot}.")
        if responses.get("unitOptions"):
            self.refuse(
                f"{spot}.unitOptions", "unitOptions", Text("单位不同数值就不同", "a value in another unit is another value")
            )
        types = responses.get("valueType") or []
        types = [str(one).rpartition(":")[2].lower() for one in (types if isinstance(types, list) else [types])]
        low, high = (self.real(responses.get(key), f"{spot}.{key}") for key in ("minValue", "maxValue"))
        control = control.lower()
        choices = responses.get("choices")
        if choices is not None and control in CHOOSING:
            several = self.flag(responses.get("multipleChoice"), f"{spot}.multipleChoice")
            options = self.options(choices, low, high, spot)
            self.many(len(options), "multiple" if several else "choice", f"{spot}.choices")
            return Item(asked.name, "multiple" if several else "choice", text, asked.required, options=options)
        if choices is None and control in COUNTING:
            kind = next((TYPES[t] for t in types if t in TYPES), "integer" if control in ("integer", "int") else "decimal")
            if kind == "text":
                self.error(f"{spot}.valueType", "not_one_of", choices="xsd:integer, xsd:decimal")
            if low is not None and high is not None and low > high:
                self.error(spot, "out_of_range", reason=f"{low} > {high}")
            unit = self.string(responses.get("unitCode"), f"{spot}.unitCode")[:40]
            shown = "slider" if control == "slider" else ""
            return Item(asked.name, kind, text, asked.required, low, high, unit, shown)
        if choices is None and control in WRITING:
            return Item(asked.name, "text", text, asked.required)
        if choices is None and control in CHOOSING:
            self.error(f"{spot}.choices", "required")
        else:
            self.refuse(f"{at}ui.inputType", control or "inputType", Text("自评不问这一类", "self-checks do not ask this"))
        return None

    def responses(self, node: Json, file: Path, at: str) -> tuple[Json | None, str]:
        """The response options and where they stand: in the item, or in the file that it names."""
        given = node.get("responseOptions")
        if isinstance(given, str):
            found = self.find(given, file, f"{at}responseOptions")
            return (self.load(found), f"{self.name(found)}#") if found else (None, "")
        if not isinstance(given, dict | None):
            self.error(f"{at}responseOptions", "wrong_type", reason="object, path")
            return None, ""
        return given or {}, f"{at}responseOptions"

    def options(self, given: Any, low: Number | None, high: Number | None, spot: str) -> tuple[Option, ...]:
        """The choices, each under a code of its own: its value as text, and a second one of the same value as "1_2"."""
        made: list[Option] = []
        for n, choice in enumerate(self.rows(given, f"{spot}.choices")):
            at = f"{spot}.choices[{n}]"
            if not isinstance(choice, dict):
                self.error(at, "wrong_type", reason="object")
                continue
            self.others(choice, ("name", "value", "prefLabel", "id", "category"), f"{at}.")
            text = self.texts(choice.get("name", choice.get("prefLabel")), f"{at}.name")
            value = choice.get("value")
            score: Number | None = None
            if isinstance(value, bool):
                code, score = str(value).lower(), int(value)
            elif isinstance(value, str):
                code = self.string(value, f"{at}.value", required=True)
            elif value is None:
                self.error(f"{at}.value", "required")
                continue
            else:
                score = self.real(value, f"{at}.value")
                code = str(score)
            if (
                score is not None
                and not (low is None or low <= score)
                or score is not None
                and not (high is None or score <= high)
            ):
                self.warn(f"{at}.value", f"{score} 不在 not within minValue {low}, maxValue {high}")
            if (same := sum(o.code.partition("_")[0] == code for o in made)) and any(o.code == code for o in made):
                self.warn(f"{at}.value", f"{code} 与前面的选项相同 the same value as an option before")
                code = f"{code}_{same + 1}"
            self.named(code, f"{at}.value")
            made.append(Option(code, text, score))
        if given == []:
            self.error(f"{spot}.choices", "required")
        return tuple(made)

    def shown(self, items: list[Item], asked: list[_Asked], computed: set[str]) -> list[Item]:
        """The items with their enableWhen."""
        known = {item.link_id: item for item in items}
        names = known.keys() | {one.name for one in asked} | computed
        made = []
        for one in asked:
            if (item := known.get(one.name)) is None:
                continue
            rule = one.visible.get("jsExpression") if isinstance(one.visible, dict) else one.visible
            when: EnableWhen | None = None
            if isinstance(rule, str):
                try:
                    found = shown_when(jsexpression.read(rule, names), known)
                    if found is False:
                        self.warn(one.at, f"{one.name}：从不显示，不作答 never shown, not asked")
                        continue
                    when = None if found is True else found
                except NotRead as reason:
                    self.refuse(one.at, f"isVis “{rule[:120]}”", str(reason))
            elif rule is not True:
                self.error(one.at, "wrong_type", reason="true, false, expression")
            made.append(Item(**{**vars(item), "enable_when": when}))
        return made

    # scales ----------------------------------------------------------------------------------------------------------

    def computes(self, node: Json, at: str) -> dict[str, tuple[str, str]]:
        """(place, expression) by variable."""
        found: dict[str, tuple[str, str]] = {}
        for key in ("compute", "scoringLogic"):
            for n, row in enumerate(self.rows(node.get(key), f"{at}{key}")):
                where = f"{at}{key}[{n}]"
                if not isinstance(row, dict):
                    self.error(where, "wrong_type", reason="object")
                    continue
                self.others(row, ("variableName", "jsExpression", "category", "id"), f"{where}.")
                name = self.string(row.get("variableName"), f"{where}.variableName", required=True)
                expression = self.string(row.get("jsExpression"), f"{where}.jsExpression", required=True)
                if name in found:
                    self.error(f"{where}.variableName", "exists", what=name)
                found[name] = f"{where}.jsExpression", expression
        return found

    def scales(self, definition: Definition, computes: dict[str, tuple[str, str]], at: str) -> Definition:
        """The definition with a scale for each sum; the one that holds all others is the total."""
        if not computes:
            self.warn(f"{at}compute", "没有计分规则，不算总分 no compute: there is no total")
            return definition
        if len(computes) > MAX_SCALES:
            self.error(f"{at}compute", "out_of_range", reason=f"≤ {MAX_SCALES}")
            return definition
        names = definition.index.keys() | computes.keys()
        sums: dict[str, Scale] = {}
        for name, (where, expression) in computes.items():
            try:
                tree = jsexpression.read(expression, names)
                if jsexpression.is_text(tree):
                    self.warn(where, f"{name}：分段由工作人员填写 bands must be entered by staff: {expression[:300]}")
                else:
                    sums[name] = self.sum(definition, name, tree, computes.keys())
            except NotRead as reason:
                self.refuse(where, f"compute “{expression[:120]}”", str(reason))
        for name in _tangled(sums):
            self.error(computes[name][0], "circular")
        for name, scale in sums.items():
            for missing in [one for one in scale.of if one in computes and one not in sums]:
                self.refuse(computes[name][0], missing, Text("不是分数", "no score"))
        self.stop()
        whole = _whole(sums)
        if whole is not None and TOTAL in definition.index:
            other = "总分用这个名称，请给题目换一个 the total has this name: give the question another"
            self.refuse(f"{at}ui.addProperties", f"variableName “{TOTAL}”", other)
            return definition
        if whole is None and len(sums) > 1:
            self.warn(f"{at}compute", "没有总分，只有分量表 no total, only subscales")
        codes: dict[str, str] = {}
        for name in sums:
            code = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:40]
            code = TOTAL if name == whole else code if re.match("[a-z]", code) and code != TOTAL else f"s_{code}"[:40]
            while code in codes.values() or code in definition.index:
                code = f"{code[:38]}_s"
            codes[name] = code
        made = [
            Scale(codes[name], tuple(codes.get(one, one) for one in scale.of), scale.method, reverse=scale.reverse)
            for name, scale in sorted(sums.items(), key=lambda pair: pair[0] != whole)
        ]
        return Definition(definition.slug, definition.title, definition.items, tuple(made))

    def sum(self, definition: Definition, name: str, tree: jsexpression.Node, computed: Iterable[str]) -> Scale:
        """The scale that an expression is: each name once, all with the factor 1. With the factor -1 and the constant that puts
        its range upside down an item is reversed; all with the factor 1/n are the mean of n. Raises `NotRead`."""
        factors, constant = jsexpression.linear(tree)
        if not factors:
            raise NotRead("没有题目 no item in it")
        method = "mean" if len(factors) > 1 and all(f == Fraction(1, len(factors)) for f in factors.values()) else "sum"
        reverse = [one for one, factor in factors.items() if factor == -1]
        for one, factor in factors.items():
            item = definition.index.get(one)
            if one == name or (item is None and one not in computed):
                raise NotRead(f"“{one}”：没有这道题 no such question")
            if item is not None and (not item.countable or item.kind == "multiple"):
                raise NotRead(f"“{one}”：没有分值 no score ({item.kind}); a number needs minValue and maxValue")
            if item is not None and item.kind == "choice" and any(option.score is None for option in item.options):
                raise NotRead(f"“{one}”：有的选项没有分值 some options have no number as value")
            if method == "sum" and (abs(factor) != 1 or (factor == -1 and item is None)):
                raise NotRead(f"“{one}” × {factor}：不支持加权 weights are not supported")
        needed = sum((Fraction(str(sum(definition.index[one].ends))) for one in reverse), Fraction(0))
        if constant != needed:
            raise NotRead(f"常数 constant {constant}" + (f"，反向计分应为 for reversed items {needed}" if reverse else ""))
        return Scale(name, tuple(factors), method, reverse=tuple(reverse))

    def reaches(self, definition: Definition, computes: dict[str, tuple[str, str]], file: Path, ui: Json) -> None:
        """Warn where the file that stands for a computed value says another range than the sum can have."""
        total = definition.total
        for row in self.rows(ui.get("addProperties"), "ui.addProperties"):
            about, name = str(row.get("isAbout", "")), row.get("variableName")
            plain = Path(os.path.normpath(file.parent / about)) if about and "\0" not in about else file
            places = [Path(os.path.realpath(f"{plain}{end}")) for end in ("", ".json", ".jsonld")]
            target = next((one for one in places if one.is_relative_to(self.root) and os.path.isfile(one)), None)  # noqa: PTH113
            if name not in computes or target is None or total is None or len(definition.scales) > 1:
                continue
            told = (self.load(target) or {}).get("responseOptions")
            self.stop()
            ends = (told.get("minValue"), told.get("maxValue")) if isinstance(told, dict) else (None, None)
            own = definition.reach(total)
            if None not in ends and ends != own:
                where = f"{self.name(target)}#responseOptions"
                self.warn(
                    where, f"写的是 it says {str(ends[0])[:20]} … {str(ends[1])[:20]}，计分得 the sum has {own[0]} … {own[1]}"
                )

    def directions(self, definition: Definition, at: str) -> None:
        """Warn of a sum in which "no" is worth least in one question and most in another and none is reversed: either the wording
        is turned round, or the values ought to be (in the library's EPDS "never" is 3 throughout)."""
        for scale in definition.scales:
            found: dict[int, list[str]] = {}
            for name in scale.of:
                item = definition.index.get(name)
                if item is not None and item.kind == "choice" and (way := _denied(item.options)):
                    found.setdefault(way, []).append(name)
            if len(found) > 1 and not scale.reverse:
                ends = f"“不”得分最低 “no” is worth least: {', '.join(found[-1])}；最高 most: {', '.join(found[1])}"
                self.warn(f"{at}compute", f"{ends}。请核对方向，需要时列入 total.reverse check which are to be reversed")

    def gaps(self, definition: Definition) -> None:
        """Warn which item lacks which language, of those that readers here may have; the others in one line."""
        lacking: dict[str, list[str]] = {}
        every: set[str] = set()
        parts: list[tuple[str, Mapping[str, str]]] = []
        for item in definition.index.values():
            parts += [(item.link_id, item.text), *((f"{item.link_id} (选项 options)", option.text) for option in item.options)]
        for _, text in parts:
            every |= text.keys()
        for tag in sorted(every):
            for link_id, text in parts:
                if tag not in text and link_id not in lacking.setdefault(tag, []):
                    lacking[tag].append(link_id)
        rest = []
        for tag, where in lacking.items():
            if not where:
                continue
            if tag in languages.NAMES:
                more = f" …（{len(where)}）" if len(where) > 12 else ""
                self.warn(tag, f"不完整，缺少文字 not complete, no text in: {', '.join(where[:12])}{more}")
            else:
                rest.append(tag)
        if rest:
            self.warn("languages", f"其他不完整的语言 other languages that are not complete: {', '.join(rest)}")
        if not definition.languages:
            self.warn("languages", "没有一种语言完整，不能发布 no language is complete: cannot be published")


def _denied(options: Iterable[Option]) -> int:
    """1 when the option that says no has the highest value, -1 when the lowest; 0 when neither or both do. By labels, since it
    only leads to a warning."""
    ends = sorted((o for o in options if o.score is not None), key=lambda o: o.score or 0)
    if len(ends) < 2:
        return 0
    says = [any(NO.match(o.text.get(tag, "")) for tag in ("en", "zh-Hans")) for o in (ends[0], ends[-1])]
    return says[1] - says[0]


def _tangled(sums: Mapping[str, Scale]) -> list[str]:
    """Names of sums that lead back to themselves, or lie over more than `NESTED` others."""
    waiting = {name: {one for one in scale.of if one in sums} for name, scale in sums.items()}
    for _ in range(NESTED):
        done = {name for name, needs in waiting.items() if not needs}
        waiting = {name: needs - done for name, needs in waiting.items() if needs}
    return list(waiting)


def _whole(sums: Mapping[str, Scale]) -> str | None:
    """The name of the sum that every item of every other is in; None when there is none, or several."""

    def leaves(name: str) -> set[str]:
        return set().union(*(leaves(one) if one in sums else {one} for one in sums[name].of))

    held = {name: leaves(name) for name in sums}
    every = set().union(*held.values()) if held else set()
    found = [name for name in sums if held[name] == every]
    return found[0] if len(found) == 1 else None


def _plain(value: Any) -> Any:
    """The same JSON with the prefixes of older releases gone ("schema:question", "@id")."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    made: Json = {}
    for key, one in value.items():
        name = {"@id": "id", "@type": "category"}.get(key, re.sub("^(schema|skos|reproschema|reproterms):", "", key))
        made.setdefault(name, _plain(one))
    return made

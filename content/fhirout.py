"""FHIR R4 Questionnaires out, so that other systems can ask and score them, and so that reading one gives the same definition.

What R4 has a place for stands there: options with `ordinalValue` in their coding, translations, enableWhen, bounds, controls, and
for each scale a read-only number with a FHIRPath expression (SDC's calculatedExpression; it uses SDC's `weight()`). A scale
whose value depends on what is asked (`sum_if_complete` over conditional items) has the item without an expression.

What R4 has no place for stands in one extension of the resource, `urn:xinqiao:fhir:rules`: a valueString that is canonical JSON
in the shape of `content.rules` (total, bands, norms, subscales, critical, validity, items), with `links` {scale: linkId in the
file that it was first read from, "" for none}. Whoever does not know it still asks and adds the same.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from content.definition import (
    CHOICES,
    NUMBERS,
    TOTAL,
    Band,
    Clause,
    Definition,
    Item,
    Norm,
    Number,
    Option,
    Scale,
    Texts,
)
from content.fhirextensions import RULES
from content.fhirjson import ORDINAL, TRANSLATION, Json
from content.published import canonical

BASE = "http://hl7.org/fhir/StructureDefinition/"
SDC = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-"
CANONICAL = "urn:xinqiao:check:"
ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
LONGEST = 5000  # characters of an expression; longer ones are left out (`fhirpath.MAX_EXPRESSION`)
TYPES = {"choice": "choice", "multiple": "choice", "text": "string"}
CONTROLS = {"page": "page", "slider": "slider", "table": "gtable"}
NAMES: Texts = {"zh-Hans": "总分", "en": "Total"}


def write_questionnaire(definition: Definition, register: Mapping[str, Any] | None = None, base: str = "zh-Hans") -> Json:
    """An R4 Questionnaire that `fhir.read_questionnaire` reads to the same `Definition.version`. `register` (the public part of
    a check's content) fills status, publisher and rights; without one it is a draft. `base` is the language of plain text
    where the definition has it."""
    tags = _tags(definition)
    spoken = "und" if "und" in tags else base if base in tags else next(iter(definition.languages or sorted(tags)), base)
    page = _Page(definition, spoken)
    entry: Mapping[str, Any] = register or {}
    made: Json = {
        "resourceType": "Questionnaire",
        "language": spoken,
        "url": canonical_url(definition.slug),
        "version": definition.version,
        **page.text("title", definition.title),
        "status": "active" if register else "draft",
        "experimental": not entry.get("validated"),
    }
    if ID.fullmatch(definition.slug):
        made["id"] = definition.slug
    for key, value in (
        ("date", str(entry.get("published_at") or "")[:10]),
        ("publisher", entry.get("approver") or entry.get("source")),
        ("description", (entry.get("parental_notice") or {}).get(spoken)),
        ("purpose", entry.get("evidence")),
        ("copyright", entry.get("source")),
    ):
        if value:
            made[key] = value
    made["extension"] = [{"url": RULES, "valueString": canonical(_rules(definition))}, *page.variables()]
    made["item"] = [*map(page.item, definition.items), *map(page.total, definition.scales)]
    return made


def canonical_url(slug: str) -> str:
    """By which responses name the questionnaire."""
    return CANONICAL + slug


def link_of(definition: Definition, scale: Scale) -> str:
    """The linkId under which a scale's number stands in our files: that of the file it came from, else one that no item has."""
    if scale.link_id and scale.link_id not in definition.index:
        return scale.link_id
    taken = {*definition.index, *(other.link_id for other in definition.scales if other is not scale)}
    return next(name for n in range(len(taken) + 1) if (name := f"{scale.code}{'-' * n}") not in taken)


def raw_codes(options: Sequence[Option]) -> list[str]:
    """The codes of options as their systems have them. Where two systems have the same one, ours are "system|code"."""
    bare = [o.code.removeprefix(f"{o.system}|") if o.code.startswith(f"{o.system}|") else o.code for o in options]
    again = [code if bare.count(code) == 1 else f"{o.system}|{code}" for o, code in zip(options, bare, strict=True)]
    return bare if again == [o.code for o in options] else [o.code for o in options]


def coding(item: Item, code: str) -> Json:
    """The coding of one of an item's options."""
    n = [option.code for option in item.options].index(code)
    system = item.options[n].system
    return {**({"system": system} if system else {}), "code": raw_codes(item.options)[n]}


def _tags(definition: Definition) -> set[str]:
    items = definition.index.values()
    texts = [definition.title, *(item.text for item in items), *(o.text for item in items for o in item.options)]
    return {tag for text in texts for tag in text}


# --- items -----------------------------------------------------------------------------------------------------------


class _Page:
    """One questionnaire being written, its plain text in one language."""

    def __init__(self, definition: Definition, base: str) -> None:
        self.definition, self.base = definition, base

    def text(self, key: str, texts: Texts) -> Json:
        """The plain text under `key`, and its translations beside it."""
        made: Json = {key: texts[self.base]} if texts.get(self.base) else {}
        others = [
            {
                "url": TRANSLATION,
                "extension": [{"url": "lang", "valueCode": tag}, {"url": "content", "valueString": text}],
            }
            for tag, text in sorted(texts.items())
            if tag != self.base and text
        ]
        return {**made, f"_{key}": {"extension": others}} if others else made

    def item(self, item: Item) -> Json:
        made: Json = {"linkId": item.link_id, **self.text("text", item.text), "type": TYPES.get(item.kind, item.kind)}
        if extensions := list(_extensions(item)):
            made["extension"] = extensions
        if item.clauses and item.enable_when:
            made["enableWhen"] = [self.clause(clause) for clause in item.clauses]
            made["enableBehavior"] = "any" if item.enable_when.any else "all"
        if item.required or item.kind == "multiple":
            made["required"] = item.required
        if item.kind == "multiple":
            made["repeats"] = True
        if item.options:
            made["answerOption"] = [self.option(item, option) for option in item.options]
        if item.items:
            made["item"] = [self.item(below) for below in item.items]
        return made

    def option(self, item: Item, option: Option) -> Json:
        score = {"extension": [{"url": ORDINAL, "valueDecimal": option.score}]} if option.score is not None else {}
        return {"valueCoding": {**score, **coding(item, option.code), **self.text("display", option.text)}}

    def clause(self, clause: Clause) -> Json:
        asked, value = self.definition.index[clause.question], clause.value
        made: Json = {"question": clause.question, "operator": clause.operator}
        if isinstance(value, bool):
            return {**made, "answerBoolean": value}
        if asked.kind in CHOICES and isinstance(value, str):
            return {**made, "answerCoding": coding(asked, value)}
        return {**made, "answerInteger" if isinstance(value, int) else "answerDecimal": value}

    # scales ----------------------------------------------------------------------------------------------------------

    def total(self, scale: Scale) -> Json:
        """The read-only number of a scale."""
        texts = scale.name or (NAMES if scale.code == TOTAL else {self.base: scale.code})
        made: Json = {
            "linkId": link_of(self.definition, scale),
            **self.text("text", texts if self.base in texts else {**texts, self.base: scale.code}),
            "type": "decimal",
            "readOnly": True,
        }
        if formula := _formula(self.definition, scale):
            made["extension"] = [{"url": f"{SDC}calculatedExpression", "valueExpression": _expression(formula)}]
        return made

    def variables(self) -> list[Json]:
        """Scales that others are made of, as variables of the resource, each after those that it names."""
        made: dict[str, Json] = {}

        def put(scale: Scale) -> None:
            for name in scale.of:
                if (below := self.definition.scale.get(name)) and name not in self.definition.index and name not in made:
                    put(below)
                    if formula := _formula(self.definition, below):
                        made[name] = {"name": _variable(self.definition, below), **_expression(formula)}

        for scale in self.definition.scales:
            if _formula(self.definition, scale):
                put(scale)
        return [{"url": f"{BASE}variable", "valueExpression": expression} for expression in made.values()]


def _extensions(item: Item) -> Iterable[Json]:
    """Control, bounds, unit."""
    if item.control and _shows(item):
        code = {"system": "http://hl7.org/fhir/questionnaire-item-control", "code": CONTROLS[item.control]}
        yield {"url": f"{BASE}questionnaire-itemControl", "valueCodeableConcept": {"coding": [code]}}
    names = ("minValue", "maxValue") if item.kind in NUMBERS else ("questionnaire-minOccurs", "questionnaire-maxOccurs")
    for name, value in zip(names, (item.minimum, item.maximum), strict=True):
        if value is not None and item.kind in {"multiple", *NUMBERS}:
            whole = isinstance(value, int) and item.kind != "decimal"
            yield {"url": BASE + name, "valueInteger" if whole else "valueDecimal": value}
    if item.unit:
        yield {"url": f"{BASE}questionnaire-unit", "valueCoding": {"display": item.unit}}


def _shows(item: Item) -> bool:
    """Whether FHIR's itemControl fits the item; else its control goes with our own rules."""
    return item.kind in NUMBERS if item.control == "slider" else item.kind == "group"


# --- expressions -----------------------------------------------------------------------------------------------------


def _expression(formula: str) -> Json:
    return {"language": "text/fhirpath", "expression": formula}


def _variable(definition: Definition, scale: Scale) -> str:
    """A name both FHIR's `id` and FHIRPath allow."""
    return f"scale{definition.scales.index(scale) + 1}"


def _formula(definition: Definition, scale: Scale) -> str:
    """The scale's value in FHIRPath; "" when it cannot be told so."""
    items = [definition.index[name] for name in scale.of if name in definition.index]
    scales = [definition.scale[name] for name in scale.of if name not in definition.index and name in definition.scale]
    if not all(_formula(definition, below) for below in scales):
        return ""
    leaves = list(definition.leaves(scale))
    if scale.method == "sum_if_complete" and any(_conditional(definition, leaf) for leaf in leaves):
        return ""

    def of(chosen: Iterable[Item], more: str = "") -> str:
        return _those(definition, [item.link_id for item in chosen], more)

    terms = []
    for sign, side in (("", [i for i in items if i.link_id not in scale.reverse]), (
        "-", [i for i in items if i.link_id in scale.reverse]
    )):  # fmt: skip
        kinds = {
            "answer.weight().sum()": [i for i in side if i.kind in CHOICES],
            "answer.value.sum()": [i for i in side if i.kind in NUMBERS],
            "answer.where(value = true).count()": [i for i in side if i.kind == "boolean"],
        }
        terms += [(sign, f"{of(chosen)}.{how}") for how, chosen in kinds.items() if chosen]
    turns: dict[tuple[Number, str], list[Item]] = {}
    for item in items:
        if item.link_id in scale.reverse:  # an option without a score adds nothing from this end either
            told = "answer.weight().exists()" if any(o.score is None for o in item.options) else "answer.exists()"
            turns.setdefault((sum(item.ends), told), []).append(item)
    terms += [("", f"{_real(turn)} * {of(some, f' and {told}')}.count()") for (turn, told), some in turns.items() if turn]
    terms += [("", f"%{_variable(definition, below)}.sum()") for below in scales]
    sums = "".join(f" {sign or '+'} {term}" for sign, term in sorted(terms)).removeprefix(" + ")
    counts = [f"{of(items, ' and answer.exists()')}.count()"] if items else []
    count = " + ".join([*counts, *(f"%{_variable(definition, below)}.count()" for below in scales)])
    if not terms:
        return ""
    if scale.method == "mean":
        made = f"iif(({count}) > 0, ({sums}) / ({count}))"
    elif scale.method == "sum":
        made = f"iif(({count}) > 0, {sums})"
    else:
        ids = list({leaf.link_id: leaf for leaf in leaves}.values())
        made = f"iif({of(ids, ' and answer.exists()')}.count() = {len(ids)} and ({count}) > 0, {sums})"
    return made if len(made) <= LONGEST else ""


def _those(definition: Definition, link_ids: Sequence[str], more: str) -> str:
    """The response's items with these linkIds. They are looked up in one text: a list after `in` is worked out anew for every
    item by the engines tried (0.6 s instead of 0.01 s for 44 questions)."""
    used = set("".join(definition.index))
    mark = next(sign for sign in ("|", *map(chr, range(0xA1, 0x3000))) if sign not in used)
    flat = all(parent is None or definition.index[parent].kind == "group" for parent in definition.parents.values())
    every = "repeat(item)" if flat else "descendants().where(linkId.exists())"
    known = _quoted(mark + mark.join(link_ids) + mark)
    return f"%resource.{every}.where({known}.contains({_quoted(mark)} + linkId + {_quoted(mark)}){more})"


def _conditional(definition: Definition, item: Item) -> bool:
    """Whether something decides if it is asked."""
    link_id: str | None = item.link_id
    while link_id is not None:
        if definition.index[link_id].enable_when or definition.index[link_id].ages:
            return True
        link_id = definition.parents[link_id]
    return False


def _quoted(text: str) -> str:
    """A FHIRPath string."""
    for sign, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\t", "\\t"), ("`", "\\`")):
        text = text.replace(sign, escape)
    return f"'{text}'"


def _real(value: Number) -> str:
    return format(value, "f") if isinstance(value, float) else str(value)


# --- rules -----------------------------------------------------------------------------------------------------------


def _rules(definition: Definition) -> Json:
    """What FHIR has no place for, in the shape that `rules.laid` takes, and `links`. Empty parts are left out."""
    total, subscales = definition.total, [scale for scale in definition.scales if scale.code != TOTAL]
    items = []
    for item in definition.index.values():
        own: Json = {
            "ages": list(item.ages) if item.ages else None,
            "explanation": dict(item.explanation),
            "control": item.control if not _shows(item) else "",
        }
        items.append({"item": item.link_id, **{k: v for k, v in own.items() if v}})
    made: Json = {
        "total": _scale(total) if total else None,
        "bands": [_band(band) for band in total.bands] if total else [],
        "norms": [_norm(norm) for norm in total.norms] if total else [],
        "subscales": [
            {"code": s.code, **_scale(s), "bands": [_band(b) for b in s.bands], "norms": [_norm(n) for n in s.norms]}
            for s in subscales
        ],
        "critical": [
            {"item": c.item, "codes": list(c.codes), **({} if c.at_least is None else {"at_least": c.at_least})}
            for c in definition.critical
        ],
        "validity": [
            {"kind": v.kind, **({"seconds": v.seconds} if v.kind == "too_fast" else {"items": list(v.items)})}
            for v in definition.validity
        ],
        "items": [row for row in items if len(row) > 1],
        "links": {scale.code: scale.link_id for scale in definition.scales if scale.link_id},
    }
    return {name: value for name, value in made.items() if value}


def _scale(scale: Scale) -> Json:
    made = {"name": dict(scale.name), "of": list(scale.of), "method": scale.method, "reverse": list(scale.reverse)}
    return {name: value for name, value in made.items() if value}


def _band(band: Band) -> Json:
    steps = {tag: list(lines) for tag, lines in band.next_steps.items()}
    return {"code": band.code, "min": band.minimum, "max": band.maximum, "text": dict(band.text), "next_steps": steps}


def _norm(norm: Norm) -> Json:
    made = {
        "minimum_age": norm.minimum_age, "maximum_age": norm.maximum_age, "sex": norm.sex, "mean": norm.mean, "sd": norm.sd,
        "cuts": {code: list(ends) for code, ends in norm.cuts.items()},
    }  # fmt: skip
    return {name: value for name, value in made.items() if value not in (None, {})}

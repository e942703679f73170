"""A questionnaire as plain values, and its score: pure functions of (definition, coded answers).

Nothing here is stored or logged, and no failure repeats an answer. Only codes are compared, never labels, so every
language scores alike. A total is always computed; none is ever taken from outside.

Answers are `{link_id: value}`: a code for a choice, a list of codes for several, a number, or a bool. Free text stays on
the phone: an item of kind "text" is shown and never answered here, so no rule may hang on it.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from content.failures import FieldError, Invalid
from content.published import canonical

Number = int | float
Texts = Mapping[str, str]
"""Text by language tag."""
Answer = str | bool | int | float | Sequence[str]

CHOICES = frozenset({"choice", "multiple"})
NUMBERS = frozenset({"integer", "decimal"})
ANSWERED = CHOICES | NUMBERS | {"boolean"}
"""Kinds whose answers reach `score`; besides them there are "text", "display" and "group"."""
KINDS = ANSWERED | {"text", "display", "group"}
LARGEST = 10**12  # beyond any real answer, and far below where floats lose whole numbers


@dataclass(frozen=True)
class Option:
    """One answer to choose. `code` is what an answer names, unique in its item; `score` None counts nothing."""

    code: str
    text: Texts
    score: Number | None = None
    system: str = ""


@dataclass(frozen=True)
class Clause:
    """`question` `operator` `value`: exists, =, !=, >, <, >=, <= with FHIR's meaning (see `_holds`)."""

    question: str
    operator: str
    value: str | bool | Number


@dataclass(frozen=True)
class EnableWhen:
    """When an item is asked: any or all of its clauses hold."""

    any: bool
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class Item:
    """One line of a questionnaire. `minimum` and `maximum` bound a number, or how many codes a "multiple" may have.

    `counts` False keeps its scores out of the total. A group or question may hold further items.
    """

    link_id: str
    kind: str
    text: Texts
    required: bool = False
    counts: bool = True
    minimum: Number | None = None
    maximum: Number | None = None
    unit: str = ""
    options: tuple[Option, ...] = ()
    enable_when: EnableWhen | None = None
    items: tuple["Item", ...] = ()

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """Its enableWhen clauses; none when it is always asked."""
        return self.enable_when.clauses if self.enable_when else ()

    @property
    def scored(self) -> bool:
        """Whether its answer enters the total."""
        return self.counts and any(option.score is not None for option in self.options)

    def reach(self) -> tuple[float, float]:
        """The least and the most it can add to a total."""
        scores = sorted(option.score for option in self.options if option.score is not None)
        if self.kind == "multiple":
            most = int(self.maximum or len(scores))
            return math.fsum(s for s in scores[:most] if s < 0), math.fsum(s for s in scores[::-1][:most] if s > 0)
        return (min(scores), max(scores)) if scores else (0, 0)


@dataclass(frozen=True)
class Band:
    """A range of totals, both ends included, with what to say and what to do next, by language."""

    code: str
    minimum: Number
    maximum: Number
    text: Texts
    next_steps: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Critical:
    """Answers that call for help at once, whatever the total. A boolean's codes are "true" and "false"."""

    item: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Definition:
    """A whole questionnaire, immutable; `version` names this exact content.

    `total` is "sum" (of what was answered), "sum_if_complete" (none until every counted item is), or None.
    """

    slug: str
    title: Texts
    items: tuple[Item, ...]
    total: str | None = None
    bands: tuple[Band, ...] = ()
    critical: tuple[Critical, ...] = ()

    @cached_property
    def version(self) -> str:
        """SHA-256 of the canonical content, slug left out: the same questions under another name are the same version."""
        content = {k: v for k, v in to_json(self).items() if k != "slug"}
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    @cached_property
    def parents(self) -> Mapping[str, str | None]:
        """Each item's parent by link id, in the order of the page."""
        return {item.link_id: parent for item, parent in _walk(self.items, None)}

    @cached_property
    def index(self) -> Mapping[str, Item]:
        """Items by link id, in the order of the page."""
        return {item.link_id: item for item, _ in _walk(self.items, None)}

    @cached_property
    def order(self) -> tuple[Item, ...]:
        """Items so that what decides about an item comes before it. Those in a cycle are left out (see `circular`)."""
        waiting = {
            item.link_id: {*([parent] if parent else []), *(c.question for c in item.clauses)}
            for item, parent in _walk(self.items, None)
        }
        done: dict[str, Item] = {}
        while ready := [link_id for link_id, needs in waiting.items() if needs <= done.keys()]:
            for link_id in ready:
                done[link_id] = self.index[link_id]
                del waiting[link_id]
        return tuple(done.values())

    @property
    def circular(self) -> tuple[str, ...]:
        """Link ids whose enableWhen leads back to themselves or to a question that does not exist."""
        known = {item.link_id for item in self.order}
        return tuple(link_id for link_id in self.index if link_id not in known)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Languages in which every item and every option has its text. Only these may be shown."""
        texts = [item.text for item in self.index.values() if item.kind != "group" or item.text]
        texts += [option.text for item in self.index.values() for option in item.options]
        return tuple(sorted(set.intersection(*(set(text) for text in texts)))) if texts else ()

    @property
    def reach(self) -> tuple[Number, Number]:
        """The least and the most the total can be, every counted item answered."""
        ends = [item.reach() for item in self.index.values() if item.scored]
        return number(math.fsum(low for low, _ in ends)), number(math.fsum(high for _, high in ends))


@dataclass(frozen=True)
class Result:
    """What answers amount to. `band` is None while a counted item that is asked has no answer: part of a sum reads too low.

    `answered` and `missing` are link ids of what is asked under these answers (missing ones were not required).
    """

    total: Number | None
    maximum: Number | None
    band: Band | None
    critical: bool
    answered: tuple[str, ...]
    missing: tuple[str, ...]


def number(value: float) -> Number:
    """The number in its one spelling: whole ones as int, others rounded to 6 places, so equal content has equal hash."""
    value = round(value, 6)
    return int(value) if value == int(value) else value


def _walk(items: Iterable[Item], parent: str | None) -> Iterator[tuple[Item, str | None]]:
    for item in items:
        yield item, parent
        yield from _walk(item.items, item.link_id)


# --- score -----------------------------------------------------------------------------------------------------------


def score(definition: Definition, answers: Mapping[str, Any]) -> Result:
    """The result of these answers. Raises `Invalid` listing every wrong one: unknown item, unknown code, wrong type, out of
    range, an answer to what is not asked, a required answer that is missing. An empty list of codes is no answer."""
    errors: dict[str, FieldError] = {}
    given: dict[str, tuple[Any, ...]] = {}
    for link_id, value in answers.items():
        item = definition.index.get(link_id)
        error = _wrong(item, value) if item else FieldError(f"answers.{str(link_id)[:80]}", "unknown_field")
        if error:
            errors[link_id] = error
        elif values := tuple(value) if isinstance(value, list | tuple) else (value,):
            given[link_id] = values
    asked = _asked(definition, given)
    for link_id, item in definition.index.items():
        if link_id in given and link_id not in asked:
            errors[link_id] = FieldError(f"answers.{link_id}", "not_asked")
        if item.required and item.kind in ANSWERED and link_id in asked - given.keys() and link_id not in errors:
            errors[link_id] = FieldError(f"answers.{link_id}", "required")
    if errors:
        raise Invalid(list(errors.values()))

    counted = [item for item in definition.index.values() if item.scored and item.link_id in asked]
    complete = all(item.link_id in given for item in counted)
    total: Number | None = None
    if definition.total and any(item.link_id in given for item in counted) and (complete or definition.total == "sum"):
        # fsum: the exact sum, whatever the order of the answers
        total = number(math.fsum(o.score or 0 for i in counted for o in i.options if o.code in given.get(i.link_id, ())))
    band = next((b for b in definition.bands if total is not None and complete and b.minimum <= total <= b.maximum), None)
    answerable = [link_id for link_id, item in definition.index.items() if item.kind in ANSWERED and link_id in asked]
    return Result(
        total=total,
        maximum=definition.reach[1] if definition.total else None,
        band=band,
        critical=is_critical(definition, answers),
        answered=tuple(link_id for link_id in answerable if link_id in given),
        missing=tuple(link_id for link_id in answerable if link_id not in given),
    )


def is_critical(definition: Definition, answers: Mapping[str, Any]) -> bool:
    """Whether some answer calls for help at once. Never raises, and looks at wrong or half-filled answers too: an error in
    one field must not hide the help that another asks for."""
    for rule in definition.critical:
        value = answers.get(rule.item)
        for one in value if isinstance(value, list | tuple) else (value,):
            if (str(one).lower() if isinstance(one, bool) else str(one)) in rule.codes:
                return True
    return False


def _wrong(item: Item, value: Any) -> FieldError | None:
    """What is wrong with the value as such; the value itself is never repeated."""
    field = f"answers.{item.link_id}"
    codes = [option.code for option in item.options]
    if item.kind == "choice" and not (isinstance(value, str) and value in codes):
        return FieldError(field, "not_one_of", {"choices": ", ".join(codes)})
    if item.kind == "multiple":
        if not isinstance(value, list | tuple) or any(not isinstance(v, str) or v not in codes for v in value):
            return FieldError(field, "not_one_of", {"choices": ", ".join(codes)})
        low, high = item.minimum or 0, item.maximum or len(codes)
        if len(set(value)) != len(value) or (value and not low <= len(value) <= high):
            return FieldError(field, "out_of_range", {"reason": f"{low}-{high} × 1"})
    if item.kind in NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return FieldError(field, "wrong_type", {"reason": "number"})
        least = -LARGEST if item.minimum is None else item.minimum
        most = LARGEST if item.maximum is None else item.maximum
        if not least <= value <= most:
            return FieldError(field, "out_of_range", {"reason": f"{least} … {most}"})
        if item.kind == "integer" and value != int(value):
            return FieldError(field, "wrong_type", {"reason": "whole number"})
    if item.kind == "boolean" and not isinstance(value, bool):
        return FieldError(field, "wrong_type", {"reason": "true, false"})
    if item.kind not in ANSWERED:
        return FieldError(field, "not_asked")
    return None


def _asked(definition: Definition, given: Mapping[str, tuple[Any, ...]]) -> set[str]:
    """Link ids that are asked under these answers. What is under something not asked is not asked either, and an answer to
    what is not asked decides nothing."""
    asked: set[str] = set()
    for item in definition.order:
        parent = definition.parents[item.link_id]
        if parent is not None and parent not in asked:
            continue
        when = item.enable_when
        if when:
            held = [_holds(c, given.get(c.question, ()) if c.question in asked else ()) for c in when.clauses]
            if not (any(held) if when.any else all(held)):
                continue
        asked.add(item.link_id)
    return asked


def _holds(clause: Clause, values: Sequence[Any]) -> bool:
    """FHIR R4's questionnaire-enable-operator: "=" and the orders hold when at least one answer does so, "!=" when no answer
    is equal (so also when there is none), "exists" when having an answer is what the value says."""
    value: Any = clause.value
    match clause.operator:
        case "exists":
            return bool(values) is value
        case "=":
            return any(one == value for one in values)
        case "!=":
            return all(one != value for one in values)
        case ">":
            return any(one > value for one in values)
        case "<":
            return any(one < value for one in values)
        case ">=":
            return any(one >= value for one in values)
        case "<=":
            return any(one <= value for one in values)
    raise AssertionError(clause.operator)


# --- bands and critical answers --------------------------------------------------------------------------------------


def faults(definition: Definition) -> list[FieldError]:
    """What is wrong with a definition's own rules: bands that overlap or leave a whole total out, critical rules that name
    no such item or code, enableWhen that leads in a circle. Empty when all is well."""
    found = [FieldError(f"items.{link_id}.enable_when", "circular") for link_id in definition.circular]
    low, high = definition.reach
    bands = sorted(definition.bands, key=lambda band: band.minimum)
    if bands and not definition.total:
        found.append(FieldError("bands", "incomplete", {"missing": "scores"}))
    for n, band in enumerate(bands):
        field = f"bands.{band.code}"
        if band.minimum > band.maximum or (n and band.minimum <= bands[n - 1].maximum):
            found.append(FieldError(field, "out_of_range", {"reason": "min > max, or overlap"}))
        elif band.minimum > (bands[n - 1].maximum + 1 if n else low):
            found.append(FieldError(field, "out_of_range", {"reason": f"gap before {band.minimum}"}))
    if bands and bands[-1].maximum < high:
        found.append(FieldError(f"bands.{bands[-1].code}", "out_of_range", {"reason": f"max < {high}"}))
    for rule in definition.critical:
        item = definition.index.get(rule.item)
        codes = {o.code for o in item.options} if item and item.kind in CHOICES else {"true", "false"}
        if item is None or item.kind not in CHOICES | {"boolean"}:
            found.append(FieldError("critical", "unknown_reference", {"value": rule.item}))
        found += [FieldError("critical", "unknown_reference", {"value": c}) for c in rule.codes if item and c not in codes]
    return found


def with_rules(definition: Definition, bands: Sequence[Band], critical: Sequence[Critical]) -> Definition:
    """The definition with these bands and critical rules. Raises `Invalid` with all `faults`."""
    made = replace(definition, bands=tuple(bands), critical=tuple(critical))
    if found := faults(made):
        raise Invalid(found)
    return made


# --- plain values ----------------------------------------------------------------------------------------------------


def to_json(definition: Definition) -> dict[str, Any]:
    """Plain JSON values of the whole definition; `from_json` gives it back equal, with the same version."""

    def item(one: Item) -> dict[str, Any]:
        when = one.enable_when
        return {
            "link_id": one.link_id, "kind": one.kind, "text": dict(one.text), "required": one.required, "counts": one.counts,
            "minimum": one.minimum, "maximum": one.maximum, "unit": one.unit,
            "options": [{"code": o.code, "text": dict(o.text), "score": o.score, "system": o.system} for o in one.options],
            "enable_when": when and {
                "any": when.any,
                "clauses": [{"question": c.question, "operator": c.operator, "value": c.value} for c in when.clauses],
            },
            "items": [item(below) for below in one.items],
        }  # fmt: skip

    return {
        "slug": definition.slug,
        "title": dict(definition.title),
        "total": definition.total,
        "items": [item(one) for one in definition.items],
        "bands": [
            {"code": b.code, "minimum": b.minimum, "maximum": b.maximum, "text": dict(b.text),
             "next_steps": {language: list(steps) for language, steps in b.next_steps.items()}}
            for b in definition.bands
        ],
        "critical": [{"item": c.item, "codes": list(c.codes)} for c in definition.critical],
    }  # fmt: skip


def from_json(value: Mapping[str, Any]) -> Definition:
    """The definition from what `to_json` gave. Trusts its shape: it reads what this service wrote."""

    def when(raw: Mapping[str, Any]) -> EnableWhen:
        return EnableWhen(raw["any"], tuple(Clause(**clause) for clause in raw["clauses"]))

    def item(raw: Mapping[str, Any]) -> Item:
        return Item(
            **{
                **raw,
                "options": tuple(Option(**option) for option in raw["options"]),
                "enable_when": when(raw["enable_when"]) if raw["enable_when"] else None,
                "items": tuple(item(below) for below in raw["items"]),
            }
        )

    return Definition(
        slug=value["slug"],
        title=value["title"],
        total=value["total"],
        items=tuple(item(raw) for raw in value["items"]),
        bands=tuple(
            Band(**{**raw, "next_steps": {language: tuple(steps) for language, steps in raw["next_steps"].items()}})
            for raw in value["bands"]
        ),
        critical=tuple(Critical(raw["item"], tuple(raw["codes"])) for raw in value["critical"]),
    )

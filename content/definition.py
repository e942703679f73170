"""A questionnaire as plain values: items, options, scales, bands, and the JSON form that is stored, hashed and sent.

Everything here is immutable, and `Definition.version` names exactly this content. Only codes are ever compared, never labels.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from content.failures import Text, invalid
from content.published import canonical

Number = int | float
Texts = Mapping[str, str]
"""Text by language tag."""
Answer = str | bool | Number | tuple[str, ...] | list[str]

CHOICES = frozenset({"choice", "multiple"})
NUMBERS = frozenset({"integer", "decimal"})
ANSWERED = CHOICES | NUMBERS | {"boolean"}
"""Kinds whose answers are scored; besides them there are "text", "display" and "group"."""
KINDS = ANSWERED | {"text", "display", "group"}
CONTROLS = frozenset({"", "page", "slider", "table"})
"""How an item is shown: a group as a page of its own or as a table, a number as a scale to slide on."""
SEXES = ("female", "male")
METHODS = ("sum", "sum_if_complete", "mean")
TOTAL = "total"
"""Code of the scale that stands for the whole."""
LARGEST = 10**12  # beyond any real answer, and far below where floats lose whole numbers
OLDEST = 1200  # months


@dataclass(frozen=True)
class Option:
    """One answer to choose. `code` is what an answer names, unique in its item; `score` None counts nothing."""

    code: str
    text: Texts
    score: Number | None = None
    system: str = ""


@dataclass(frozen=True)
class Clause:
    """`question` `operator` `value`: exists, =, !=, >, <, >=, <= with FHIR's meaning (see `scoring`)."""

    question: str
    operator: str
    value: str | bool | Number


@dataclass(frozen=True)
class EnableWhen:
    """When an item is asked: any or all of its clauses hold."""

    any: bool
    clauses: tuple[Clause, ...]

    def plain(self) -> dict[str, Any]:
        """{"any", "clauses": [{"question", "operator", "value"}]}: how it is stored and sent."""
        return {"any": self.any, "clauses": [vars(clause).copy() for clause in self.clauses]}


@dataclass(frozen=True)
class Item:
    """One line of a questionnaire; a group or question may hold further items.

    `minimum` and `maximum` bound a number, or how many codes a "multiple" may have. `ages` (months, both ends included) keeps
    it from everyone else. `explanation` is shown once it is answered (knowledge quizzes).
    """

    link_id: str
    kind: str
    text: Texts
    required: bool = False
    minimum: Number | None = None
    maximum: Number | None = None
    unit: str = ""
    control: str = ""
    ages: tuple[int, int] | None = None
    explanation: Texts = field(default_factory=dict)
    options: tuple[Option, ...] = ()
    enable_when: EnableWhen | None = None
    items: tuple["Item", ...] = ()

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """Its enableWhen clauses; none when it is always asked."""
        return self.enable_when.clauses if self.enable_when else ()

    @property
    def scored(self) -> bool:
        """Whether some option of it has a score."""
        return any(option.score is not None for option in self.options)

    @property
    def countable(self) -> bool:
        """Whether a scale may hold it: options with scores, a number with both bounds, yes (1) or no (0)."""
        return self.scored or self.kind == "boolean" or (self.kind in NUMBERS and None not in (self.minimum, self.maximum))

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the most that its options with a score, its bounds, or no and yes are worth."""
        if self.kind == "boolean":
            return 0, 1
        if self.kind in NUMBERS:
            return self.minimum or 0, self.maximum or 0
        scores = [option.score for option in self.options if option.score is not None]
        return (min(scores), max(scores)) if scores else (0, 0)

    @property
    def reach(self) -> tuple[float, float]:
        """The least and the most that it adds to a scale when it is answered; an option without a score adds nothing."""
        low, high = self.ends
        if self.kind == "multiple":
            scores = sorted(option.score for option in self.options if option.score is not None)
            most = int(self.maximum or len(scores))
            return math.fsum(s for s in scores[:most] if s < 0), math.fsum(s for s in scores[::-1][:most] if s > 0)
        if any(option.score is None for option in self.options):
            return min(low, 0), max(high, 0)
        return low, high

    @property
    def whole(self) -> bool:
        """Whether all that it can add are whole numbers."""
        return self.kind != "decimal" and all(o.score is None or o.score == int(o.score) for o in self.options)


@dataclass(frozen=True)
class Band:
    """A range of a scale's values, both ends included, with what to say and what to do next, by language."""

    code: str
    minimum: Number
    maximum: Number
    text: Texts
    next_steps: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Norm:
    """How a scale reads in one group of people. `sex` None is for all; ages are months, both ends included.

    With `mean` and `sd` a T score (mean 50, sd 10) is told; `cuts` puts other ends (least, most) to bands, by code.
    """

    minimum_age: int
    maximum_age: int
    sex: str | None = None
    mean: Number | None = None
    sd: Number | None = None
    cuts: Mapping[str, tuple[Number, Number]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """A value computed from items and from other scales. `TOTAL` is the code of the whole.

    `of` are link ids and codes of scales; `reverse` those items of it that count from the other end (least + most - score).
    `method`: "sum" (of what was answered), "sum_if_complete" (none until every item asked is), "mean". A scale with `norms`
    has a band only where one of them fits. `link_id` is the item in which the source file showed it.
    """

    code: str
    of: tuple[str, ...]
    method: str = "sum"
    name: Texts = field(default_factory=dict)
    reverse: tuple[str, ...] = ()
    bands: tuple[Band, ...] = ()
    norms: tuple[Norm, ...] = ()
    link_id: str = ""


@dataclass(frozen=True)
class Critical:
    """Answers that call for help at once, whatever any total: these codes (of a boolean "true" and "false"), or whatever is worth
    `at_least` (an option by its score, a number by itself)."""

    item: str
    codes: tuple[str, ...] = ()
    at_least: Number | None = None


@dataclass(frozen=True)
class Validity:
    """A sign that answers may not say much; it never delays or hides anything. `kind` "too_fast": done in under `seconds`;
    "straight_line": every one of `items` was answered, all with the option at the same place."""

    kind: str
    seconds: int | None = None
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Definition:
    """A whole questionnaire, immutable; `version` names this exact content."""

    slug: str
    title: Texts
    items: tuple[Item, ...]
    scales: tuple[Scale, ...] = ()
    critical: tuple[Critical, ...] = ()
    validity: tuple[Validity, ...] = ()

    @cached_property
    def version(self) -> str:
        """SHA-256 of the canonical content, slug left out: the same questions under another name are the same version."""
        content = {k: v for k, v in to_json(self).items() if k != "slug"}
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    @property
    def total(self) -> Scale | None:
        """The scale of the whole, if there is one."""
        return self.scale.get(TOTAL)

    @cached_property
    def scale(self) -> Mapping[str, Scale]:
        """Scales by code."""
        return {scale.code: scale for scale in self.scales}

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

    @property
    def by_age(self) -> bool:
        """Whether what is asked depends on an age, which must then be told with the answers."""
        return any(item.ages for item in self.index.values())

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Languages in which every item and every option has its text. Only these may be shown."""
        items = self.index.values()
        texts = [item.text for item in items if item.kind != "group" or item.text]
        texts += [option.text for item in items for option in item.options]
        texts += [item.explanation for item in items if item.explanation]
        texts += [scale.name for scale in self.scales if scale.name]
        return tuple(sorted(set.intersection(*(set(text) for text in texts)))) if texts else ()

    def leaves(self, scale: Scale) -> Iterator[Item]:
        """The items that a scale comes from, those of its scales included. A member that does not exist is passed over."""
        for name in scale.of:
            if name in self.index:
                yield self.index[name]
            elif name in self.scale and name != scale.code:
                yield from self.leaves(self.scale[name])

    @cached_property
    def gates(self) -> Mapping[str, tuple[str, ...]]:
        """By link id, which of an item and those above it are asked only at some ages or after some answers, the outermost first.
        Items with the same gates are asked together or not at all."""
        found: dict[str, tuple[str, ...]] = {}
        for link_id, parent in self.parents.items():
            own = self.index[link_id]
            found[link_id] = (*(found[parent] if parent else ()), *([link_id] if own.enable_when or own.ages else ()))
        return found

    def reach(self, scale: Scale, asked: Iterable[str] | None = None) -> tuple[Number, Number]:
        """The least and the most that a scale can be once all of it that is asked is answered: of `asked` only where that is
        given, otherwise of whatever ages and answers can lead to (where less is asked, a sum is less and a mean may be more)."""
        known = None if asked is None else set(asked)
        parts: dict[tuple[str, ...], list[tuple[float, float]]] = {}  # by gates; () is always asked
        for name in scale.of:
            if (item := self.index.get(name)) is not None:
                leaves, ends = [name], item.reach
            elif (below := self.scale.get(name)) is not None:
                leaves, ends = [leaf.link_id for leaf in self.leaves(below)], self.reach(below, known)
            else:
                continue
            gates = {self.gates[leaf] if known is None else () for leaf in leaves if known is None or leaf in known}
            if gates:
                parts.setdefault(() if () in gates else gates.pop() if len(gates) == 1 else (name, ""), []).append(ends)
        if not parts:
            return 0, 0
        whole = {
            key: [math.fsum(one[end] for one in ends) / (len(ends) if scale.method == "mean" else 1) for end in (0, 1)]
            for key, ends in parts.items()
        }
        lows, highs = zip(*whole.values(), strict=True)
        if scale.method == "mean":  # of any of these together: never beyond the most extreme of them
            return number(min(lows)), number(max(highs))
        low, high = whole.pop((), (None, None))
        less, more = [min(0, one[0]) for one in whole.values()], [max(0, one[1]) for one in whole.values()]
        # where nothing is always asked, the value stands only when something is
        least = math.fsum(less) + low if low is not None else math.fsum(less) if any(less) else min(lows)
        return number(least), number(math.fsum(more) + high if high is not None else math.fsum(more) if any(more) else max(highs))

    def whole(self, scale: Scale) -> bool:
        """Whether a scale takes whole numbers only."""
        return scale.method != "mean" and all(
            self.index[name].whole if name in self.index else name not in self.scale or self.whole(self.scale[name])
            for name in scale.of
        )


def number(value: float) -> Number:
    """The number in its one spelling: whole ones as int, others rounded to 6 places, so equal content has equal hash."""
    value = round(value, 6)
    return int(value) if value == int(value) else value


def _walk(items: Iterable[Item], parent: str | None) -> Iterator[tuple[Item, str | None]]:
    for item in items:
        yield item, parent
        yield from _walk(item.items, item.link_id)


# --- plain values ----------------------------------------------------------------------------------------------------


def to_json(definition: Definition) -> dict[str, Any]:
    """Plain JSON values of the whole definition; `from_json` gives it back equal, with the same version."""

    def item(one: Item) -> dict[str, Any]:
        return {
            "link_id": one.link_id, "kind": one.kind, "text": dict(one.text), "required": one.required,
            "minimum": one.minimum, "maximum": one.maximum, "unit": one.unit, "control": one.control,
            "ages": list(one.ages) if one.ages else None, "explanation": dict(one.explanation),
            "options": [{"code": o.code, "text": dict(o.text), "score": o.score, "system": o.system} for o in one.options],
            "enable_when": one.enable_when and one.enable_when.plain(),
            "items": [item(below) for below in one.items],
        }  # fmt: skip

    def scale(one: Scale) -> dict[str, Any]:
        return {
            "code": one.code, "of": list(one.of), "method": one.method, "name": dict(one.name), "reverse": list(one.reverse),
            "link_id": one.link_id,
            "bands": [
                {"code": b.code, "minimum": b.minimum, "maximum": b.maximum, "text": dict(b.text),
                 "next_steps": {language: list(steps) for language, steps in b.next_steps.items()}}
                for b in one.bands
            ],
            "norms": [
                {"minimum_age": n.minimum_age, "maximum_age": n.maximum_age, "sex": n.sex, "mean": n.mean, "sd": n.sd,
                 "cuts": {code: list(ends) for code, ends in n.cuts.items()}}
                for n in one.norms
            ],
        }  # fmt: skip

    return {
        "slug": definition.slug,
        "title": dict(definition.title),
        "items": [item(one) for one in definition.items],
        "scales": [scale(one) for one in definition.scales],
        "critical": [{"item": c.item, "codes": list(c.codes), "at_least": c.at_least} for c in definition.critical],
        "validity": [{"kind": v.kind, "seconds": v.seconds, "items": list(v.items)} for v in definition.validity],
    }


def from_json(value: Mapping[str, Any]) -> Definition:
    """The definition from what `to_json` gave. Trusts its shape: it reads what this service wrote. Raises `Invalid` for what an
    older release wrote, which had other scales: nothing here guesses what they meant."""
    if "scales" not in value:
        slug = str(value.get("slug", ""))[:80]
        reason = Text("由旧版本写下，请用空的 XINQIAO_VAR 启动", "An older release wrote it: start with an empty XINQIAO_VAR")
        raise invalid("definition", "unsupported", what=slug, where="definition", reason=reason)

    def when(raw: Mapping[str, Any]) -> EnableWhen:
        return EnableWhen(raw["any"], tuple(Clause(**clause) for clause in raw["clauses"]))

    def item(raw: Mapping[str, Any]) -> Item:
        return Item(
            **{
                **raw,
                "ages": tuple(raw["ages"]) if raw["ages"] else None,
                "options": tuple(Option(**option) for option in raw["options"]),
                "enable_when": when(raw["enable_when"]) if raw["enable_when"] else None,
                "items": tuple(item(below) for below in raw["items"]),
            }
        )

    def band(raw: Mapping[str, Any]) -> Band:
        return Band(**{**raw, "next_steps": {language: tuple(steps) for language, steps in raw["next_steps"].items()}})

    def norm(raw: Mapping[str, Any]) -> Norm:
        return Norm(**{**raw, "cuts": {code: (low, high) for code, (low, high) in raw["cuts"].items()}})

    def scale(raw: Mapping[str, Any]) -> Scale:
        return Scale(
            **{
                **raw,
                "of": tuple(raw["of"]),
                "reverse": tuple(raw["reverse"]),
                "bands": tuple(map(band, raw["bands"])),
                "norms": tuple(map(norm, raw["norms"])),
            }
        )

    return Definition(
        slug=value["slug"],
        title=value["title"],
        items=tuple(map(item, value["items"])),
        scales=tuple(map(scale, value["scales"])),
        critical=tuple(Critical(raw["item"], tuple(raw["codes"]), raw["at_least"]) for raw in value["critical"]),
        validity=tuple(Validity(raw["kind"], raw["seconds"], tuple(raw["items"])) for raw in value["validity"]),
    )

"""Totals written in FHIRPath. They are not run later: at import an expression is evaluated over made-up responses (every answer
of every item, all least, all most, mixtures, each item left out) and taken as a `Scale` when it behaves as that scale in all of
them: a sum, a mean, items counted from the other end. So a phone and the server need only add. Anything else is refused: a
product, a date, a cut-off. A response without any answer is not tried: there a sum of nothing may be 0, and is none here.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import fhirpathpy
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.models import models

from content import scoring
from content.definition import ANSWERED, CHOICES, TOTAL, Definition, Item, Number, Scale
from content.fhirjson import ORDINAL, Json, names

Values = Mapping[tuple[str, str], Json]
"""The FHIR answer of (link id, option code)."""
Picks = dict[str, Any]
"""Answers by link id, as `scoring` takes them."""
MAX_EXPRESSION = 5000  # characters
TURNS = 3


class NotASum(Exception):
    """Why an expression is refused."""


class Expression(NamedTuple):
    """A FHIRPath expression of a Questionnaire, with the JSON path where it stands; a variable has a name."""

    path: str
    name: str
    expression: str


class Calculated(NamedTuple):
    """An item whose answer is worked out: where it stands, what its number is called, its expression after its variables."""

    link_id: str
    parent: str
    key: str
    text: Mapping[str, str]
    steps: tuple[Expression, ...]

    def answer(self, value: Number) -> Json:
        """Its answer in a response."""
        return {self.key: {"value": value} if self.key == "valueQuantity" else value}


class _Chosen(int):
    """A valueInteger that is an option; its score goes with it (a number that was typed in has none)."""

    score: Number = 0


@dataclass(frozen=True)
class Trial:
    """Made-up responses to one questionnaire."""

    questionnaire: Json
    values: Values
    definition: Definition

    @cached_property
    def open(self) -> Definition:
        """The questions without anything that forbids an answer."""

        def item(one: Item) -> Item:
            most = None if one.kind == "multiple" else one.maximum
            least = None if one.kind == "multiple" else one.minimum
            return replace(
                one, required=False, minimum=least, maximum=most, ages=None, enable_when=None, items=tuple(map(item, one.items))
            )

        scales = tuple(replace(scale, bands=(), norms=()) for scale in self.definition.scales)
        items = tuple(map(item, self.definition.items))
        return replace(self.definition, items=items, scales=scales, critical=(), validity=())

    @cached_property
    def choices(self) -> dict[str, list[Any]]:
        """Answers to try for each item, from the one worth least to the one worth most."""
        return {item.link_id: self.tries(item) for item in self.open.index.values() if item.kind in ANSWERED}

    def tries(self, item: Item) -> list[Any]:
        if item.kind in CHOICES:
            codes = [o.code for o in sorted(item.options, key=lambda o: float(o.score or 0))]
            return [[code] for code in codes] if item.kind == "multiple" else codes
        if item.kind == "boolean":
            return [False, True]
        low = 0 if item.minimum is None else item.minimum
        high = low + 7 if item.maximum is None else item.maximum
        return [low, (low + high) // 2, high]

    def worth(self, link_id: str, pick: Any) -> Number:
        """What an answer counts by itself; 0 for what no scale can hold."""
        item = self.open.index[link_id]
        if item.kind in CHOICES:
            return sum(o.score or 0 for o in item.options if o.code in (pick if isinstance(pick, list) else [pick]))
        return pick if item.countable else 0

    def all(self) -> Iterator[Picks]:
        """The responses to try."""
        least = {link_id: tries[0] for link_id, tries in self.choices.items()}
        most = {link_id: tries[-1] for link_id, tries in self.choices.items()}
        yield least
        yield most
        widest = max(map(len, self.choices.values()), default=0)
        for turn in range(TURNS):  # in each turn every answer of every item once, beside others than in the turns before
            for n in range(widest):
                yield {name: f[(n + k * turn) % len(f)] for k, (name, f) in enumerate(self.choices.items())}
        for link_id, tries in self.choices.items():
            if self.open.index[link_id].kind == "multiple":
                yield {**least, link_id: [code for pick in tries for code in pick]}
        if len(most) > 1:
            for link_id in most:
                yield {name: pick for name, pick in most.items() if name != link_id}

    def response(self, picks: Picks, others: Sequence[tuple[Calculated, Number | None]] = (), typed: str = "") -> Json:
        """A QuestionnaireResponse that answers `picks`, with what other items have worked out; text questions say `typed`."""
        found = [(one, value) for one, value in others if value is not None]

        def below(items: Sequence[Item], parent: str) -> list[Json]:
            made = [node for item in items if len(node := line(item)) > 1]
            return made + [{"linkId": one.link_id, "answer": [one.answer(value)]} for one, value in found if one.parent == parent]

        def line(item: Item) -> Json:
            node: Json = {"linkId": item.link_id}
            if item.link_id in picks:
                pick = picks[item.link_id]
                node["answer"] = [self.answer(item, one) for one in (pick if isinstance(pick, list) else [pick])]
            elif item.kind == "text" and typed:
                node["answer"] = [{"valueString": typed}]
            if inner := below(item.items, item.link_id):
                (node["answer"][0] if "answer" in node else node)["item"] = inner
            return node

        return {"resourceType": "QuestionnaireResponse", "item": below(self.open.items, "")}

    def answer(self, item: Item, pick: Any) -> Json:
        """An answer as FHIR has it; a chosen one carries its score."""
        if item.kind not in CHOICES:
            return {{"boolean": "valueBoolean", "integer": "valueInteger", "decimal": "valueDecimal"}[item.kind]: pick}
        [(key, value)] = self.values[item.link_id, pick].items()
        score = next(o.score for o in item.options if o.code == pick)
        beside = {"extension": [{"url": ORDINAL, "valueDecimal": score}]} if score is not None else {}
        if isinstance(value, dict):
            return {key: {**value, **beside}}
        if key == "valueInteger":
            value = _Chosen(value)
            value.score = score or 0
        return {key: value, **beside}


Others = Sequence[tuple[Calculated, Scale]]


def follows(trial: Trial, one: Calculated, scale: Scale, others: Others = ()) -> None:
    """Raises `NotASum` unless the item's expression gives the scale's value in every response tried. `others` are items that are
    worked out too; it may name them."""
    _tried(trial, _compiled(trial.questionnaire, one.steps), scale, others)


Calculate = Callable[[Json], float | None]


def _tried(trial: Trial, calculate: Calculate, scale: Scale, others: Others) -> None:
    own = replace(scale, code="?", bands=(), norms=())
    scales = replace(trial.open, scales=(own, *trial.open.scales, *(other for _, other in others)))
    leaves = {leaf.link_id for leaf in scales.leaves(own)}
    for n, picks in enumerate(trial.all()):
        values = {reading.scale.code: reading.value for reading in scoring.score(scales, picks).readings}
        known = [(other, values[below.code]) for other, below in others]
        wanted, found = values[own.code], calculate(trial.response(picks, known, "3" if n == 0 else ""))
        if not found and not any(leaf in picks for leaf in leaves):
            continue  # a sum of nothing is none here and may be 0 there
        if (wanted is None) != (found is None) or not math.isclose(found or 0, wanted or 0, abs_tol=1e-5):
            raise NotASum(f"不是各题分值之和 not the sum of scores: {found} ≠ {wanted}")


def proved(trial: Trial, one: Calculated, others: Others = ()) -> Scale:
    """The scale that the item's expression is in every response tried; else `NotASum`."""
    if not any(item.countable for item in trial.open.index.values()):
        raise NotASum("没有分值 no scores")
    calculate = _compiled(trial.questionnaire, one.steps)
    scales = replace(trial.open, scales=tuple(scale for _, scale in others))

    def run(picks: Picks) -> float | None:
        values = {reading.scale.code: reading.value for reading in scoring.score(scales, picks).readings} if others else {}
        return calculate(trial.response(picks, [(other, values[scale.code]) for other, scale in others]))

    least = {link_id: tries[0] for link_id, tries in trial.choices.items()}
    most = {link_id: tries[-1] for link_id, tries in trial.choices.items()}
    floor, ceiling = run(least), run(most)
    if floor is None or ceiling is None:
        raise NotASum("全部作答仍无结果 no result though all is answered")
    rises: dict[str, float] = {}
    steps: dict[str, float] = {}
    for link_id, item in trial.open.index.items():
        if item.countable and item.kind in ANSWERED:
            steps[link_id] = trial.worth(link_id, most[link_id]) - trial.worth(link_id, least[link_id])
            rises[link_id] = (run({**least, link_id: most[link_id]}) or 0) - floor
    reason = NotASum(f"不是各题分值之和 not the sum of scores: {floor} … {ceiling}")
    for scale in _guesses(rises, steps):
        try:
            _tried(trial, calculate, scale, others)
        except NotASum as found:
            reason = found
        else:
            return scale
    raise reason


def _guesses(rises: Mapping[str, float], steps: Mapping[str, float]) -> Iterator[Scale]:
    """Scales that fit how much the number rises (`rises`) when each item goes from its least to its most (`steps`)."""
    share = len([rise for rise in rises.values() if rise])
    for divisor, methods in ((1, ("sum", "sum_if_complete")), (share, ("mean",))):
        fit = [k for k, s in steps.items() if math.isclose(abs(rises[k]) * divisor, abs(s), abs_tol=1e-9)]
        # what is worth the same whatever the answer counts or does not: both are tried
        for of in dict.fromkeys((tuple(fit), tuple(k for k in fit if steps[k]))):
            for method in methods if of else ():
                yield Scale(TOTAL, of, method, reverse=tuple(k for k in of if rises[k] * steps[k] < 0))


# --- running an expression ---------------------------------------------------------------------------------------------

# Functions that a sum may need. Nothing of dates, text or chance is among them, so trying out is proof enough.
ALLOWED = names(
    """iif exists empty not count where select repeat sum answers ordinal weight first last all value hasValue ofType as is
    descendants children distinct union combine single tail skip take toInteger toDecimal aggregate round max min avg
    and or xor implies in contains div mod"""
)
ANSWER = "QuestionnaireResponse.item.answer"


def _weights(nodes: Sequence[Any]) -> list[Any]:
    """SDC's `ordinal()` and `weight()`: the score of each coding or answer; a valueInteger that was chosen has one too."""
    found = []
    for one in nodes:
        if isinstance(one, _Chosen):
            found.append(one.score)
        elif isinstance(one, dict):
            for part in (one, one.get("valueCoding") or {}):
                found += [e["valueDecimal"] for e in part.get("extension", []) if e.get("url") == ORDINAL]
    return found


def _answers(nodes: Sequence[Any]) -> list[Any]:
    """SDC's `answers()`: every answer below, at any depth."""
    found: list[Any] = []

    def walk(data: Json) -> None:
        for item in data.get("item", []):
            for answer in item.get("answer", []):
                found.append(ResourceNode.create_node(answer, ANSWER))  # type: ignore[no-untyped-call]
                walk(answer)
            walk(item)

    for one in nodes:
        walk(one)
    return found


def _sum(nodes: Sequence[Any]) -> list[Any]:
    """FHIRPath's `sum()`; the library's own raises TypeError over resource nodes."""
    return [math.fsum(nodes)]


def _avg(nodes: Sequence[Any]) -> list[Any]:
    """FHIRPath's `avg()`: empty of nothing."""
    return [math.fsum(nodes) / len(nodes)] if nodes else []


OWN = {
    name: {"fn": fn, "arity": {0: []}}
    for name, fn in {"answers": _answers, "ordinal": _weights, "weight": _weights, "sum": _sum, "avg": _avg}.items()
}


def _compiled(questionnaire: Json, expressions: Sequence[Expression]) -> Calculate:
    """A function from a QuestionnaireResponse to the last expression's number (None when empty), those before it being its
    variables. Raises `NotASum` for what is not allowed; so does the function, for what fails."""
    steps = []
    for one in expressions:
        if len(one.expression) > MAX_EXPRESSION or len(expressions) > 100:
            raise NotASum("太长 too long")
        for name in re.findall(r"([A-Za-z_]\w*)\s*\(", re.sub(r"'(?:[^'\\]|\\.)*'", "''", one.expression)):
            if name not in ALLOWED:
                raise NotASum(f"{name}()")
        try:
            steps.append((one.name, fhirpathpy.compile(one.expression, models["r4"], {"userInvocationTable": OWN})))
        except Exception as error:  # the library raises bare Exceptions
            raise NotASum(f"FHIRPath: {str(error)[:120]}") from None

    known: dict[str, float | None] = {}

    def calculate(response: Json) -> float | None:
        name = json.dumps(response)
        if name not in known:  # guesses are tried on the same responses
            known[name] = run(response)
        return known[name]

    def run(response: Json) -> float | None:
        context: Json = {"resource": response, "questionnaire": questionnaire}
        found: Any = None
        for name, step in steps:
            try:
                found = step(response, context)
            except Exception as error:
                raise NotASum(f"FHIRPath: {str(error)[:120]}") from None
            context[name] = found
        if not found:
            return None
        if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int | float | Decimal):
            raise NotASum("结果不是一个数 the result is not one number")
        return float(found[0])

    return calculate

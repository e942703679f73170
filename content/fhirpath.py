"""Totals written in FHIRPath. They are not run later: at import an expression is evaluated over made-up responses (every answer
of every item, all least, all most, mixtures, each item left out) and taken as a `Scale` when it behaves as that scale in all of
them: a sum, a mean, items counted from the other end. So a phone and the server need only add. Anything else is refused: a
product, a date, a cut-off. A response without any answer is not tried: there a sum of nothing may be 0, and is none here.

An expression comes from outside, so it may not run away: what each step of it gives is measured (`_Watch`), and all proofs of a
file together have a few seconds.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import fhirpathpy
from fhirpathpy.engine.evaluators import evaluators
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.engine.util import get_data
from fhirpathpy.models import models

from content import scoring
from content.definition import ANSWERED, CHOICES, METHODS, TOTAL, Definition, Item, Number, Scale
from content.failures import Text
from content.fhirjson import ORDINAL, Json, names

Values = Mapping[tuple[str, str], Json]
"""The FHIR answer of (link id, option code)."""
Picks = dict[str, Any]
"""Answers by link id, as `scoring` takes them."""
MAX_EXPRESSION = 5000  # characters
MAX_VARIABLES = 30  # of one expression
MAX_NODES = 10_000  # that one step may give; 500 answered questions have about 5,000
MAX_BELOW = 50_000  # nodes at and below those, which bounds what the next step can give
MAX_NUMBER = 10**15
SECONDS = 15.0  # of this thread's processor, for all proofs of a file; a machine that is busy with others refuses nothing
ONE = 2.0  # of it, for one evaluation; that of an ordinary total over 490 questions takes 0.03
TURNS = 3
ALONE = 20  # questions left out one by one
MIXED = 16  # responses by chance: what is wrong about any part of a sum shows in each with even odds or better


class NotASum(Exception):
    """Why an expression is refused: a `Text`, or one that reads in any language."""

    @property
    def reason(self) -> Text:
        """In both languages."""
        why = self.args[0]
        return why if isinstance(why, Text) else Text(str(why), str(why))


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
    watch: "_Watch" = field(default_factory=lambda: _Watch(time.thread_time() + SECONDS))
    parsed: dict[str, Any] = field(default_factory=dict)
    """Compiled expressions by their text."""

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

    def all(self, every: bool = False) -> Iterator[Picks]:
        """The responses to try. `every`: each item is left out once, however many there are; else of many only some, and what an
        item adds shows in the mixtures."""
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
            for link_id in list(most)[:: 1 if every else -(-len(most) // ALONE)]:
                yield {name: pick for name, pick in most.items() if name != link_id}
        chance = random.Random(1)  # noqa: S311  (the same for everyone)
        for _ in range(MIXED):
            yield {name: chance.choice(tries) for name, tries in self.choices.items() if chance.random() < 0.5}

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
    _tried(trial, _compiled(trial, one.steps), scale, others)


Known = Sequence[tuple[Calculated, Number | None]]
Calculate = Callable[[Picks, Known, str], float | None]


def _tried(trial: Trial, calculate: Calculate, scale: Scale, others: Others) -> None:
    own = replace(scale, code="?", bands=(), norms=())
    scales = replace(trial.open, scales=(own, *trial.open.scales, *(other for _, other in others)))
    leaves = {leaf.link_id for leaf in scales.leaves(own)}
    for n, picks in enumerate(trial.all(every=scale.method == "sum_if_complete")):
        values = {reading.scale.code: reading.value for reading in scoring.score(scales, picks).readings}
        known = [(other, values[below.code]) for other, below in others]
        wanted, found = values[own.code], calculate(picks, known, "3" if n == 0 else "")
        if not found and not any(leaf in picks for leaf in leaves):
            continue  # a sum of nothing is none here and may be 0 there
        if (wanted is None) != (found is None) or not math.isclose(found or 0, wanted or 0, abs_tol=1e-5):
            raise NotASum(Text(f"不是各题分值之和：{found} ≠ {wanted}", f"not the sum of scores: {found} ≠ {wanted}"))


def proved(trial: Trial, one: Calculated, others: Others = ()) -> Scale:
    """The scale that the item's expression is in every response tried; else `NotASum`."""
    counted = [link_id for link_id, item in trial.open.index.items() if item.countable]
    if not counted:
        raise NotASum(Text("没有分值", "no scores"))
    calculate = _compiled(trial, one.steps)
    scales = replace(trial.open, scales=tuple(scale for _, scale in others))

    def run(picks: Picks) -> float | None:
        values = {reading.scale.code: reading.value for reading in scoring.score(scales, picks).readings} if others else {}
        return calculate(picks, [(other, values[scale.code]) for other, scale in others], "")

    least = {link_id: tries[0] for link_id, tries in trial.choices.items()}
    most = {link_id: tries[-1] for link_id, tries in trial.choices.items()}
    floor, ceiling = run(least), run(most)
    if floor is None or ceiling is None:
        raise NotASum(Text("全部作答仍无结果", "no result though all is answered"))
    steps = {link_id: trial.worth(link_id, most[link_id]) - trial.worth(link_id, least[link_id]) for link_id in counted}

    def rise(link_ids: Sequence[str]) -> float:
        return (run({**least, **{link_id: most[link_id] for link_id in link_ids}}) or 0) - floor

    def halved(link_ids: Sequence[str]) -> dict[str, float]:
        """How much each of them raises the number, as if either all of a part counted, or none."""
        found, whole = rise(link_ids), math.fsum(steps[link_id] for link_id in link_ids)
        for share in (0, 1, -1):
            if math.isclose(found, share * whole, abs_tol=1e-9):
                return {link_id: share * steps[link_id] for link_id in link_ids}
        if len(link_ids) == 1:
            return {link_ids[0]: found}
        half = len(link_ids) // 2
        return {**halved(link_ids[:half]), **halved(link_ids[half:])}

    def guesses() -> Iterator[Scale]:
        """First those that cost least."""
        for method in METHODS:
            yield Scale(TOTAL, tuple(counted), method)
        if len(counted) > ALONE:
            yield from _guesses(halved(counted), steps)
        yield from _guesses({link_id: rise([link_id]) for link_id in counted}, steps)

    reason = NotASum(Text(f"不是各题分值之和：{floor} … {ceiling}", f"not the sum of scores: {floor} … {ceiling}"))
    for scale in guesses():
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
    descendants children distinct union single tail skip take toInteger toDecimal aggregate round max min avg
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


class _Watch:
    """What the proofs of a file may use up, and each evaluation."""

    def __init__(self, until: float) -> None:
        self.until = self.whole = until
        self.steps = 0
        self.sizes: dict[int, tuple[Any, int]] = {}
        """Nodes at and below a part of a response, by `id`; the part is held, so that no other can have its id."""

    def start(self) -> None:
        """An evaluation begins."""
        self.sizes.clear()
        self.until = min(self.whole, time.thread_time() + ONE)

    def step(self, found: Any) -> None:
        """Raises `NotASum` when a step gave too much, or time is over."""
        self.steps += 1
        if not self.steps % 32 and time.thread_time() > self.until:
            raise NotASum(Text("计算太久", "it takes too long"))
        rows = found if isinstance(found, list) else [found]
        if len(rows) > MAX_NODES:
            raise NotASum(f"> {MAX_NODES} nodes")
        below = 0
        for one in rows:
            data = one.data if isinstance(one, ResourceNode) else one
            if isinstance(data, dict | list):
                below += self.size(data)
                if below > MAX_BELOW:
                    raise NotASum(f"> {MAX_BELOW} nodes")
            elif isinstance(data, str):
                if len(data) > MAX_NODES:
                    raise NotASum(f"> {MAX_NODES} characters")
            elif isinstance(data, int | float | Decimal) and not -MAX_NUMBER < data < MAX_NUMBER:
                raise NotASum(Text("数太大", "a number is too large"))

    def size(self, data: Any) -> int:
        if not isinstance(data, dict | list):
            return 1
        known = self.sizes.get(id(data))
        if known is None:
            known = data, 1 + sum(map(self.size, data.values() if isinstance(data, dict) else data))
            self.sizes[id(data)] = known
        return known[1]


_WATCH: ContextVar[_Watch] = ContextVar("fhirpath")


def _watched(evaluate: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    def watched(ctx: Any, parents: Any, node: Any) -> Any:
        found = evaluate(ctx, parents, node)
        if watch := _WATCH.get(None):
            watch.step(found)
        return found

    return watched


# The library has no place for this: each kind of step that gives nodes is measured. Nobody else here uses the library.
for _kind in evaluators.keys() - {"Functn", "ParamList", "Identifier"}:
    evaluators[_kind] = _watched(evaluators[_kind])


def _compiled(trial: Trial, expressions: Sequence[Expression]) -> Calculate:
    """A function of answers (with what other items have worked out, and what text questions say) that gives the last expression's
    number in their response (None when empty), the expressions before it being its variables. Raises `NotASum` for what is not
    allowed; so does the function, for what fails."""
    if len(expressions) > MAX_VARIABLES + 1:
        raise NotASum(f"> {MAX_VARIABLES} variables")
    steps = [(one.name, _parsed(trial, one.expression)) for one in expressions]
    known: dict[str, float | None] = {}

    def calculate(picks: Picks, others: Known, typed: str) -> float | None:
        name = json.dumps([picks, [value for _, value in others], typed])
        if name not in known:  # guesses are tried on the same responses
            known[name] = run(trial.response(picks, others, typed))
        return known[name]

    def run(response: Json) -> float | None:
        context: Json = {"resource": response, "questionnaire": trial.questionnaire}
        found: list[Any] = []
        trial.watch.start()
        token = _WATCH.set(trial.watch)
        try:
            for name, step in steps:
                found = [_plain(one) for one in step(response, context)]
                context[name] = found
        except NotASum:
            raise
        except Exception as error:  # the library raises bare Exceptions
            raise NotASum(f"FHIRPath: {str(error)[:120]}") from None
        finally:
            _WATCH.reset(token)
        if not found:
            return None
        if len(found) != 1 or isinstance(found[0], bool) or not isinstance(found[0], int | float | Decimal):
            raise NotASum("结果不是一个数 the result is not one number")
        return float(found[0])

    return calculate


def _parsed(trial: Trial, expression: str) -> Any:
    """The expression compiled, once a file."""
    if len(expression) > MAX_EXPRESSION:
        raise NotASum(f"太长 too long: > {MAX_EXPRESSION}")
    if expression not in trial.parsed:
        if time.thread_time() > trial.watch.whole:  # parsing itself takes up to a few seconds
            raise NotASum(Text("计算太久", "it takes too long"))
        options = {"userInvocationTable": OWN, "returnRawData": True}  # a variable keeps the place of what it holds
        try:
            made = fhirpathpy.compile(expression, models["r4"], options)
            called = set(_called(made.parsedPath))  # type: ignore[attr-defined]
        except Exception as error:  # the library raises bare Exceptions
            raise NotASum(f"FHIRPath: {str(error)[:120]}") from None
        if others := called - ALLOWED:
            raise NotASum(f"{min(others)}()")
        trial.parsed[expression] = made
    return trial.parsed[expression]


def _called(node: Any) -> Iterator[str]:
    """Names of the functions in a parsed expression."""
    if node.get("type") == "Functn":
        yield node["children"][0]["text"]
    for below in node.get("children", ()):
        yield from _called(below)


def _plain(node: Any) -> Any:
    """A number or text by itself; what has parts stays in its place."""
    data = get_data(node)  # type: ignore[no-untyped-call]
    return node if isinstance(data, dict | list) else data

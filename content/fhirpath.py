"""Totals written in FHIRPath. They are not run later: at import an expression is evaluated over made-up responses (every option
of every item, all least, all most, mixtures, each item left out) and accepted when it behaves as a sum of item scores in all of
them. So a phone and the server need only add. Anything else is refused: a product, a date, a cut-off, a subscale.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import fhirpathpy
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.models import models

from content.definition import Item, Option, number

Json = dict[str, Any]
Answers = Mapping[tuple[str, str], Json]
"""The FHIR answer of (link id, option code)."""
MAX_EXPRESSION = 5000  # characters
# Where a score may stand.
SCORES = frozenset(
    "http://hl7.org/fhir/StructureDefinition/" + name
    for name in (
        "ordinalValue", "itemWeight", "questionnaire-ordinalValue", "valueset-ordinalValue", "codesystem-ordinalValue",
    )
)  # fmt: skip


class Expression(NamedTuple):
    """A FHIRPath expression of a Questionnaire, with the JSON path where it stands; a variable has a name."""

    path: str
    name: str
    expression: str


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


class NotASum(Exception):
    """Why an expression is refused."""


def proved(
    questionnaire: Json,
    answers: Answers,
    items: Sequence[Item],
    scored: Sequence[Item],
    scope: Sequence[Expression],
    expression: Expression,
) -> tuple[str, frozenset[str]]:
    """(total's mode, link ids counted) of an expression that adds up item scores in every response tried; else `NotASum`.

    `items` is the whole tree, `scored` those of it with scores, `scope` the variables that the expression may name.
    """
    if not scored:
        raise NotASum("没有分值 no scores")
    calculate = _compiled(questionnaire, [*scope, expression])
    options = {item.link_id: sorted((o for o in item.options if o.score is not None), key=_worth) for item in scored}
    least = {link_id: (found[0].code,) for link_id, found in options.items()}
    most = {link_id: (found[-1].code,) for link_id, found in options.items()}
    worth = {(link_id, o.code): float(o.score or 0) for link_id, found in options.items() for o in found}

    def run(picks: Mapping[str, tuple[str, ...]]) -> float | None:
        return calculate({"resourceType": "QuestionnaireResponse", "item": _response(items, answers, picks)})

    floor = run(least)
    if floor is None:
        raise NotASum("全部作答仍无结果 no result though all is answered")
    counted = set()
    for link_id in least:
        step = worth[link_id, most[link_id][0]] - worth[link_id, least[link_id][0]]
        rise = run({**least, link_id: most[link_id]})
        if step == 0 or (rise is not None and math.isclose(rise - floor, step)):
            counted.add(link_id)

    def check(picks: Mapping[str, tuple[str, ...]]) -> None:
        wanted = math.fsum(worth[link_id, code] for link_id in counted for code in picks.get(link_id, ()))
        found = run(picks)
        if found is None or not math.isclose(found, wanted, abs_tol=1e-9):
            raise NotASum(f"不是各题分值之和 not the sum of scores: {found} ≠ {number(wanted)}")

    check(least)
    check(most)
    for link_id, found in options.items():
        for option in found:
            check({**least, link_id: (option.code,)})
    for n in range(12):  # mixtures: item k takes option (n × (k + 1) + k) modulo its number
        check({name: (f[(n * (k + 1) + k) % len(f)].code,) for k, (name, f) in enumerate(options.items())})
    for item in scored:
        if item.kind == "multiple":
            check({**least, item.link_id: tuple(o.code for o in options[item.link_id])})
    partial = [{k: v for k, v in most.items() if k != link_id} for link_id in sorted(counted)]
    if partial and len(scored) > 1 and all(run(picks) is None for picks in partial):
        return "sum_if_complete", frozenset(counted)
    if len(scored) > 1:
        for picks in partial:
            check(picks)
    return "sum", frozenset(counted)


def _response(items: Sequence[Item], answers: Answers, picks: Mapping[str, tuple[str, ...]]) -> list[Json]:
    """QuestionnaireResponse items that answer `picks` (codes by link id); each answer carries its score."""
    made = []
    for item in items:
        node: Json = {"linkId": item.link_id}
        scores = {o.code: o.score for o in item.options}
        for code in picks.get(item.link_id, ()):
            [(key, value)] = answers[item.link_id, code].items()
            score = {"extension": [{"url": min(SCORES), "valueDecimal": scores[code]}]}
            answer = {key: {**value, **score}} if isinstance(value, dict) else {key: value, **score}
            node.setdefault("answer", []).append(answer)
        if below := _response(item.items, answers, picks):
            if item.kind == "group":
                node["item"] = below
            elif "answer" in node:
                node["answer"][0]["item"] = below
        if len(node) > 1:
            made.append(node)
    return made


# --- running an expression ---------------------------------------------------------------------------------------------

# Functions that a sum may need. Nothing of dates, text or chance is among them, so trying out is proof enough.
ALLOWED = names(
    """iif exists empty not count where select repeat sum answers ordinal weight first last all value hasValue ofType as is
    descendants children distinct union combine single tail skip take toInteger toDecimal aggregate round max min"""
)
ANSWER = "QuestionnaireResponse.item.answer"


def _worth(option: Option) -> float:
    return float(option.score or 0)


def _weights(nodes: Sequence[Any]) -> list[Any]:
    """SDC's `ordinal()` and `weight()`: the score of each coding or answer (its own valueInteger where it carries none)."""
    found = []
    for one in nodes:
        if not isinstance(one, dict):
            found.append(one)
            continue
        for part in (one, one.get("valueCoding") or {}):
            found += [e["valueDecimal"] for e in part.get("extension", []) if e.get("url") in SCORES]
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


OWN = {
    name: {"fn": fn, "arity": {0: []}}
    for name, fn in {"answers": _answers, "ordinal": _weights, "weight": _weights, "sum": _sum}.items()
}


def _compiled(questionnaire: Json, expressions: Sequence[Expression]) -> Callable[[Json], float | None]:
    """A function from a QuestionnaireResponse to the last expression's number (None when empty), those before it being its
    variables. Raises `NotASum` for what is not allowed; so does the function, for what fails."""
    steps = []
    for one in expressions:
        if len(one.expression) > MAX_EXPRESSION or len(expressions) > 100:
            raise NotASum("太长 too long")
        for name in re.findall(r"([A-Za-z_]\w*)\s*\(", re.sub(r"'(?:[^'\\]|\\.)*'", "''", one.expression)):
            if name not in ALLOWED | {"and", "or", "xor", "implies", "in", "contains", "div", "mod"}:
                raise NotASum(f"{name}()")
        try:
            steps.append((one.name, fhirpathpy.compile(one.expression, models["r4"], {"userInvocationTable": OWN})))
        except Exception as error:  # the library raises bare Exceptions
            raise NotASum(f"FHIRPath: {str(error)[:120]}") from None

    def calculate(response: Json) -> float | None:
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

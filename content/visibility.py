"""Visibility in JavaScript ("q1 > 0 || q2 == 1") as enableWhen, exactly or not at all.

An unanswered question is JavaScript's `undefined`: no comparison holds of it but !=. So what an expression says of one choice
is a set of its options and whether it holds without an answer (`_Some`), and `!`, && and || over one question are set
operations. What remains must be all && or all ||: enableWhen holds no mix, and none is approximated.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from content.definition import CHOICES, NUMBERS, Clause, EnableWhen, Item, Number, Option, number
from content.jsexpression import FLIPPED, Node, NotRead

OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}


class _Some(NamedTuple):
    """Holds when the choice's answer is one of `codes`, or when there is none and `empty`."""

    item: Item
    codes: frozenset[str]
    empty: bool


class _Number(NamedTuple):
    """Holds when the number is so; also without an answer when `empty`."""

    item: Item
    operator: str
    value: Number
    empty: bool


Part = _Some | _Number | bool
Tree = Part | tuple[str, list["Tree"]]  # "&&" or "||" over parts


def shown_when(node: Node, items: Mapping[str, Item]) -> EnableWhen | bool:
    """When a question is shown; True and False for always and never. Raises `NotRead` for what enableWhen cannot say."""
    tree = _joined(_tree(node, items, False))
    if isinstance(tree, bool):
        return tree
    sign, parts = tree if isinstance(tree, tuple) and isinstance(tree[0], str) else ("&&", [tree])
    clauses: list[Clause] = []
    for part in parts:
        if isinstance(part, _Some):
            clauses += _of_choice(part, sign == "||", len(parts) == 1)
        elif isinstance(part, _Number):
            clauses.append(Clause(part.item.link_id, part.operator, part.value))
            if part.empty and part.operator != "!=":
                if sign == "&&" and len(parts) > 1:
                    raise NotRead("! 与 && 混用 ! mixed with &&")
                sign = "||"
                clauses.append(Clause(part.item.link_id, "exists", False))
        else:
            raise NotRead("&& 与 || 混用，enableWhen 只有一种 a mix of && and ||: enableWhen has one of them")
    only = parts[0] if len(parts) == 1 else None
    return EnableWhen(sign == "||" or (isinstance(only, _Some) and _by_any(only)), tuple(clauses))


def _by_any(part: _Some) -> bool:
    """Whether a single condition is written shorter as any of its options."""
    return len(part.codes) + part.empty <= len(part.item.options) - len(part.codes) + (not part.empty)


def _of_choice(part: _Some, any_: bool, alone: bool) -> list[Clause]:
    """The clauses, of which any must hold, or all."""
    name, codes = part.item.link_id, [o.code for o in part.item.options]
    if any_ or (alone and _by_any(part)):
        return [Clause(name, "=", c) for c in codes if c in part.codes] + ([Clause(name, "exists", False)] if part.empty else [])
    if len(part.codes) == 1 and not part.empty:
        return [Clause(name, "=", next(iter(part.codes)))]
    without = [Clause(name, "!=", c) for c in codes if c not in part.codes]
    return without + ([] if part.empty else [Clause(name, "exists", True)])


def _tree(node: Node, items: Mapping[str, Item], negated: bool) -> Tree:
    """The node with every `!` taken down to its comparisons."""
    match node:
        case ("&&" | "||" as sign, parts):
            turned = {"&&": "||", "||": "&&"}[sign] if negated else sign
            return turned, [_tree(part, items, negated) for part in parts]
        case ("not", below):
            return _tree(below, items, not negated)
        case ("flag", value):
            return bool(value) is not negated
        case ("name", name):
            return _test(_item(name, items), "!=", 0, negated, truth=True)
        case ("compare", operator, ("name", name), right):
            return _test(_item(name, items), operator, _value(right), negated)
        case ("compare", operator, left, ("name", name)):
            return _test(_item(name, items), FLIPPED[operator], _value(left), negated)
    raise NotRead("只读一道题与一个值的比较 only comparisons of a question with a value are read")


def _item(name: str, items: Mapping[str, Item]) -> Item:
    item = items.get(name)
    if item is None:
        raise NotRead(f"“{name}”：不是可作答的题目 no question that is answered")
    if item.kind not in NUMBERS | {"choice"}:
        raise NotRead(f"“{name}”：{item.kind} 不能作条件 cannot be a condition")
    return item


def _value(node: Node) -> Fraction | str | bool:
    match node:
        case ("number" | "text" | "flag", value):
            return value  # type: ignore[no-any-return]
        case ("+", ((sign, ("number", value)),)):
            return Fraction(sign * value)
    raise NotRead("只与数字或文字比较 compared with what is neither a number nor a text")


def _test(item: Item, operator: str, value: Fraction | str | bool | int, negated: bool, truth: bool = False) -> Part:
    """One comparison. `truth`: the bare name, which JavaScript takes as false for 0, "" and no answer."""
    if item.kind in CHOICES:
        codes = frozenset(o.code for o in item.options if _holds(o, operator, value))
        empty = operator == "!=" and not truth
        if negated:
            codes, empty = frozenset(o.code for o in item.options) - codes, not empty
        return empty if len(codes) in (0, len(item.options)) and bool(codes) is empty else _Some(item, codes, empty)
    of = _number(value) if isinstance(value, str) else Fraction(value)
    if isinstance(of, str):
        raise NotRead(f"“{item.link_id}”：应与数字比较 is a number")
    whole = number(float(of))
    if truth:
        if not negated:
            raise NotRead(f"“{item.link_id}”：请写出比较 write the comparison out")
        return _Number(item, "=", 0, True)
    empty = (operator == "!=") is not negated
    return _Number(item, OPPOSITE[operator] if negated else operator, whole, empty)


def _holds(option: Option, operator: str, value: Fraction | str | bool | int) -> bool:
    """Whether an option with this value compares so, as JavaScript's loose comparison has it: a text that is a number is one."""
    own = Fraction(str(option.score)) if option.score is not None else _number(option.code)
    other = _number(value) if isinstance(value, str) else Fraction(value)
    if isinstance(other, str) and (not isinstance(own, str) or operator not in ("=", "!=")):
        raise NotRead(f"“{other[:40]}”：与数字或按大小比较 a text is compared with a number, or by size")
    if isinstance(own, str) or isinstance(other, str):
        return (own == other) is (operator == "=") if operator in ("=", "!=") else False
    orders = {"=": own == other, "!=": own != other, "<": own < other, ">": own > other, "<=": own <= other, ">=": own >= other}
    return orders[operator]


def _number(text: str) -> Fraction | str:
    return Fraction(text) if re.fullmatch(r"-?\d{1,12}(\.\d{1,12})?", text) else text


def _joined(tree: Tree) -> Tree:
    """Nested && in && (|| in ||) made flat, constants taken out, and what is said of one and the same choice made one."""
    if not isinstance(tree, tuple) or isinstance(tree, _Some | _Number):
        return tree
    sign, below = tree
    decides = sign == "||"  # the constant that decides the whole
    flat: list[Tree] = []
    for part in map(_joined, below):
        if isinstance(part, tuple) and not isinstance(part, _Some | _Number) and part[0] == sign:
            flat += part[1]
        elif part is decides:
            return decides
        elif not isinstance(part, bool):
            flat.append(part)
    kept: list[Tree] = []
    of_choice: dict[str, int] = {}
    for part in flat:
        if isinstance(part, _Some) and part.item.link_id in of_choice:
            at = of_choice[part.item.link_id]
            other = kept[at]
            assert isinstance(other, _Some)
            codes = other.codes | part.codes if decides else other.codes & part.codes
            empty = other.empty or part.empty if decides else other.empty and part.empty
            kept[at] = _Some(part.item, codes, empty)
            continue
        if isinstance(part, _Some):
            of_choice[part.item.link_id] = len(kept)
        kept.append(part)
    made: list[Tree] = []
    for part in kept:
        if isinstance(part, _Some) and len(part.codes) in (0, len(part.item.options)) and bool(part.codes) is part.empty:
            if part.empty is decides:
                return decides
            continue
        made.append(part)
    if not made:
        return not decides
    return made[0] if len(made) == 1 else (sign, made)

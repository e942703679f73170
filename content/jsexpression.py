"""The little JavaScript that ReproSchema activities hold, as trees of plain values: read by hand, never run.

Read are numbers, texts, true and false, names, + - * /, comparisons, && || !, ?: and parentheses. Everything else (calls, member
access, assignments, `if`) is `NotRead`. Names are those of the activity and may hold hyphens, which JavaScript forbids
and real files have ("PSC-17_1"): a known name is read before a minus sign is.
"""

import re
from collections.abc import Collection
from fractions import Fraction
from typing import Any

LONGEST = 20_000  # characters
DEEPEST = 40  # parentheses, ! and ?: within each other
Node = tuple[Any, ...]
"""("number", Fraction), ("text", str), ("flag", bool), ("name", str), ("not", node), ("+", ((±1, node), …)),
("*" or "/", left, right), ("compare", operator, left, right), ("&&" or "||", (nodes…)), ("?", test, then, else)."""

TOKEN = re.compile(
    r"""(?P<blank>\s+) | (?P<number>\d{1,12}(\.\d{1,12})?(?![\w$.])) | (?P<text>"[^"\\\n]*"|'[^'\\\n]*')
    | (?P<sign>===|!==|==|!=|<=|>=|&&|\|\||[!<>()+\-*/?:]) | (?P<word>[A-Za-z_$][\w$]*)""",
    re.VERBOSE,
)
SAME = {"===": "=", "==": "=", "!==": "!=", "!=": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
FLIPPED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


class NotRead(Exception):
    """An expression that cannot be followed; the text says where and why."""


def read(text: str, names: Collection[str]) -> Node:
    """The tree of an expression over these names. Raises `NotRead`."""
    if len(text) > LONGEST:
        raise NotRead(f"> {LONGEST} characters")
    parser = _Parser(_tokens(text, sorted(names, key=len, reverse=True)))
    made = parser.choice(0)
    if parser.sign:
        raise NotRead(f"“{parser.sign}”")
    return made


def linear(node: Node) -> tuple[dict[str, Fraction], Fraction]:
    """(factor by name, constant) of a sum of names. Raises `NotRead` for what is no such sum: a product of names, a
    comparison, a text."""
    match node:
        case ("number", value):
            return {}, value
        case ("name", name):
            return {name: Fraction(1)}, Fraction(0)
        case ("+", terms):
            factors: dict[str, Fraction] = {}
            constant = Fraction(0)
            for sign, term in terms:
                of_term, more = linear(term)
                constant += sign * more
                for name, factor in of_term.items():
                    factors[name] = factors.get(name, Fraction(0)) + sign * factor
            return factors, constant
        case ("*" | "/" as operator, left, right):
            (a, one), (b, other) = linear(left), linear(right)
            if operator == "/" and (b or not other):
                raise NotRead("/")
            if a and b:
                raise NotRead("×: 题目相乘 names multiplied")
            factor = 1 / other if operator == "/" else other if a else one
            return {name: value * factor for name, value in (a or b).items()}, (one if a or operator == "/" else other) * factor
    raise NotRead(f"{node[1] if node[0] == 'compare' else node[0]}：不是加法 no sum")


def is_text(node: Node) -> bool:
    """Whether it can only give a text or true and false: a name for a range, never a score."""
    if node[0] == "?":
        return is_text(node[2]) and is_text(node[3])
    return node[0] in ("text", "flag", "compare", "not")


def _tokens(text: str, names: list[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        known = next(
            (n for n in names if text.startswith(n, at) and not re.match(r"[\w$]", text[at + len(n) : at + len(n) + 1])), ""
        )
        if known and not known.isdigit():
            if "-" in known and all(part in names for part in known.split("-")):
                raise NotRead(f"“{known}”：名称还是减法 a name, or a subtraction")
            found.append(("name", known))
            at += len(known)
            continue
        match = TOKEN.match(text, at)
        if not match:
            raise NotRead(f"“{text[at : at + 20]}”")
        if match.lastgroup == "word" and match[0] not in ("true", "false"):
            raise NotRead(f"“{match[0][:60]}”：不是这份问卷的变量 no variable of this activity")
        if match.lastgroup != "blank":
            found.append((str(match.lastgroup), match[0]))
        at = match.end()
    return found


class _Parser:
    """Recursive descent over tokens, in JavaScript's order of binding."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    @property
    def sign(self) -> str:
        """The next token as written; "" at the end."""
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, *signs: str) -> str:
        """The next token when it is one of these signs, which is then used up; else ""."""
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "sign" and self.sign in signs:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def choice(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise NotRead(f"嵌套超过 {DEEPEST} 层 nested too deep")
        test = self.joined("||", depth)
        if not self.take("?"):
            return test
        then = self.choice(depth + 1)
        if not self.take(":"):
            raise NotRead("?:")
        return ("?", test, then, self.choice(depth + 1))

    def joined(self, sign: str, depth: int) -> Node:
        def below() -> Node:
            return self.joined("&&", depth) if sign == "||" else self.compared(depth)

        parts = [below()]
        while self.take(sign):
            parts.append(below())
        return (sign, tuple(parts)) if len(parts) > 1 else parts[0]

    def compared(self, depth: int) -> Node:
        left = self.sum(depth)
        if sign := self.take(*SAME):
            left = ("compare", SAME[sign], left, self.sum(depth))
            if self.take(*SAME):
                raise NotRead("a < b < c")
        return left

    def sum(self, depth: int) -> Node:
        terms = [(1, self.product(depth))]
        while sign := self.take("+", "-"):
            terms.append((1 if sign == "+" else -1, self.product(depth)))
        return ("+", tuple(terms)) if len(terms) > 1 else terms[0][1]

    def product(self, depth: int) -> Node:
        left, n = self.one(depth), 0
        while sign := self.take("*", "/"):
            left, n = (sign, left, self.one(depth)), n + 1
            if n > DEEPEST:
                raise NotRead(f"> {DEEPEST} × /")
        return left

    def one(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise NotRead(f"嵌套超过 {DEEPEST} 层 nested too deep")
        if self.take("!"):
            return ("not", self.one(depth + 1))
        if sign := self.take("+", "-"):
            return ("+", ((1 if sign == "+" else -1, self.one(depth + 1)),))
        if self.take("("):
            made = self.choice(depth + 1)
            if not self.take(")"):
                raise NotRead("(…")
            return made
        if self.at == len(self.tokens):
            raise NotRead("表达式不完整 it ends too early")
        kind, text = self.tokens[self.at]
        self.at += 1
        match kind:
            case "number":
                return ("number", Fraction(text))
            case "text":
                return ("text", text[1:-1])
            case "word":
                return ("flag", text == "true")
            case "name":
                return ("name", text)
        raise NotRead(f"“{text}”")

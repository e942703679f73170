"""FCM's conditions, read as strictly as FCM reads them: which phones a message reaches.

    expression = part, or parts joined by && alone, or by || alone (both in one need parentheses)
    part       = 'TOPIC' in topics  |  ( expression )  |  !( expression )

At most five topics. Used by the rehearsal and by tests; what we send is written in `topics`.
"""

import functools
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

TOPIC = re.compile(r"[a-zA-Z0-9\-_.~%]+\Z")
MOST = 5  # topics in one condition

_TOKEN = re.compile(r"\s*(?:'(?P<topic>[^']*)'|(?P<sign>&&|\|\||!|\(|\))|(?P<word>\w+)|(?P<other>\S))")
_Holds = Callable[[Set[str]], bool]


@dataclass(frozen=True)
class Condition:
    """One condition that has been read."""

    topics: tuple[str, ...]
    """Every topic it names, in its order; one that it names twice stands twice."""
    holds: _Holds
    """Whether a phone with these topics gets the message."""


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Condition:
    """Read it. Raises `ValueError` that says what is wrong."""
    tokens = [(found.lastgroup or "", found[found.lastgroup or 0]) for found in _TOKEN.finditer(text)]
    names: list[str] = []
    at = 0

    def take(kind: str, value: str = "") -> str:
        nonlocal at
        here = tokens[at] if at < len(tokens) else ("end", "")
        if here[0] != kind or (value and here[1] != value):
            raise ValueError(f"{value or kind} is missing before {here[1] or 'the end'}")
        at += 1
        return here[1]

    def sign(*values: str) -> str:
        return tokens[at][1] if at < len(tokens) and tokens[at][0] == "sign" and tokens[at][1] in values else ""

    def expression() -> _Holds:
        parts, joint = [part()], sign("&&", "||")
        while sign("&&", "||"):
            if take("sign") != joint:
                raise ValueError("&& and || in one need parentheses")
            parts.append(part())
        every = all if joint == "&&" else any
        return lambda topics: every(one(topics) for one in parts)

    def part() -> _Holds:
        if sign("!", "("):
            no = sign("!") == "!" and bool(take("sign"))
            take("sign", "(")
            inner = expression()
            take("sign", ")")
            return (lambda topics: not inner(topics)) if no else inner
        topic = take("topic")
        if not TOPIC.match(topic):
            raise ValueError(f"{topic!r} is no topic")
        take("word", "in")
        take("word", "topics")
        names.append(topic)
        return lambda topics: topic in topics

    holds = expression()
    if at < len(tokens):
        raise ValueError(f"{tokens[at][1]} is too much")
    if len(names) > MOST:
        raise ValueError(f"{len(names)} topics, more than {MOST}")
    return Condition(tuple(names), holds)


def reaches(message: Mapping[str, Any], topics: Set[str]) -> bool:
    """Whether a phone that has subscribed to these topics gets this FCM message; one to a phone's own address reaches nobody by
    topics. Raises `ValueError` for a malformed condition."""
    if "topic" in message:
        return message["topic"] in topics
    return "condition" in message and parse(message["condition"]).holds(topics)


def named(message: Mapping[str, Any]) -> tuple[str, ...]:
    """The topics that an FCM message names; none where it goes to a phone's own address."""
    if "topic" in message:
        return (message["topic"],)
    return parse(message["condition"]).topics if "condition" in message else ()

"""What the rehearsal shows: phones as lock screens, and under them every message as it arrived. A page in Chinese and English
that needs no script and fetches nothing; whatever came in a message is escaped.

`/?topics=A,B` is a phone with these topics; each further `topics` is another phone.
"""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import jinja2

from notifications.conditions import named, reaches

PHONES, CARDS, ROWS, NAMES = 6, 12, 200, 80  # on one page, on one lock screen, in the table, among the topics to choose from
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)


class Arrived(Protocol):
    """A request as the rehearsal keeps it."""

    body: Any
    at: float
    outcome: str


class Card(NamedTuple):
    """One push on a lock screen."""

    at: datetime
    title: str
    body: str
    times: int
    """How many messages it stands for: those with one collapse key replace each other."""


class Phone(NamedTuple):
    """One lock screen."""

    name: str
    topics: list[str]
    cards: list[Card]
    more: int


def row(seen: Arrived) -> dict[str, Any]:
    """A message in one line, without the address of a phone. Takes whatever was posted."""
    message = _part(seen.body, "message")
    kind = next((name for name in ("topic", "condition", "fid", "token") if name in message), "")
    android, notification = _part(message, "android"), _part(message, "notification")
    return {
        "at": datetime.fromtimestamp(seen.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "outcome": seen.outcome,
        "kind": kind,
        "target": str(message[kind]) if kind in {"topic", "condition"} else "…",
        "title": str(notification.get("title", "")),
        "body": str(notification.get("body", "")),
        "data": {str(name): str(value) for name, value in _part(message, "data").items()},
        "collapse_key": str(android.get("collapse_key", "")),
        "ttl": str(android.get("ttl", "")),
    }


def _part(outer: Any, name: str) -> dict[str, Any]:
    inner = outer.get(name) if isinstance(outer, dict) else None
    return inner if isinstance(inner, dict) else {}


def page(sends: Sequence[Arrived], counts: Mapping[str, int], query: Mapping[str, Sequence[str]], zone: str) -> str:
    """The whole page. `sends`: oldest first."""
    where = ZoneInfo(zone)
    newest = [(seen, row(seen)) for seen in reversed(sends)]
    there = [(seen, line) for seen, line in newest if seen.outcome == "accepted"]
    asked = [[name for name in re.split(r"[\s,，]+", text) if name] for text in query.get("topics", [])][:PHONES]
    wanted = [names for names in asked if names]
    phones = []
    for number, names in enumerate(wanted, 1):
        reached = [pair for pair in there if reaches(_part(pair[0].body, "message"), set(names))]
        phones.append(_phone(f"手机 {number} · Phone {number}", names, reached, where))
    if not wanted:
        every = [pair for pair in there if pair[1]["kind"] in {"topic", "condition"}]
        phones.append(_phone("订阅了所有主题的手机 · A phone with every topic", [], every, where))
    if direct := [pair for pair in there if pair[1]["kind"] in {"fid", "token"}]:
        phones.append(_phone("直接发给某部手机 · To one phone's own address", [], direct, where))
    known = sorted({name for seen, _ in there for name in named(_part(seen.body, "message"))})
    return _TEMPLATES.get_template("rehearsal.html").render(
        phones=phones,
        asked=wanted,
        rows=[line | {"at": _local(seen, where)} for seen, line in newest[:ROWS]],
        total=sum(counts.values()),
        counts=sorted(counts.items()),
        kept=len(newest),
        known=[
            (name, _address([*wanted[:-1], _toggled(wanted, name)], edit=True), name in _last(wanted)) for name in known[:NAMES]
        ],
        unlisted=max(0, len(known) - NAMES),
        edit="edit" in query,
        editing=_address(wanted, edit=True),
        here=_address(wanted),
        now=datetime.now(where),
        zone=zone,
    )


def _local(seen: Arrived, where: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(seen.at, UTC).astimezone(where)


def _phone(name: str, topics: list[str], pairs: Sequence[tuple[Arrived, Mapping[str, Any]]], where: ZoneInfo) -> Phone:
    cards: dict[str, Card] = {}
    for seen, line in pairs:  # newest first: the first of a key is what stands there
        key = line["collapse_key"] or f"alone {len(cards)}"
        first = cards.get(key) or Card(_local(seen, where), line["title"], line["body"], 0)
        cards[key] = first._replace(times=first.times + 1)
    return Phone(name, topics, list(cards.values())[:CARDS], max(0, len(cards) - CARDS))


def _last(phones: Sequence[Sequence[str]]) -> list[str]:
    return list(phones[-1]) if phones else []


def _toggled(phones: Sequence[Sequence[str]], name: str) -> list[str]:
    """The last phone's topics with this one more, or less."""
    last = _last(phones)
    return [one for one in last if one != name] if name in last else [*last, name]


def _address(phones: Sequence[Sequence[str]], *, edit: bool = False) -> str:
    fields = [("topics", ",".join(names)) for names in phones if names] + ([("edit", "1")] if edit else [])
    return f"/?{urllib.parse.urlencode(fields)}" if fields else "/"

"""Help beside everything: whatever a child or parent asks of self-checks, kept results, search, help lines or appointments, each
failure of it carries the help card, and says first what to do where an answer in it calls for help, also where the rest of it is
wrong.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from flask import g, request

from api import front
from api.guard import strict_json
from api.shapes import reader, settings
from content import checks, helpcard, languages, scoring, store, words
from content.definition import Definition
from content.failures import Failure
from content.published import Item

WHERE = (
    "/v1/checks", "/v1/results", "/v1/check-ins", "/v1/returns", "/v1/hotlines", "/v1/services", "/v1/help-card", "/v1/slots",
    "/v1/appointments",
)  # fmt: skip
SEARCH = "/v1/search"
DIVISION = re.compile("[0-9]{6}")
MOST = 20_000  # parts of a body that are looked through


def own_language(otherwise: str = "") -> str:
    """The reader's own language, whatever the questions are in: help is read in it. `otherwise` where the reader names none."""
    return next(iter(front.wanted()), otherwise or settings().language)


def language_of(item: Item) -> str:
    """The language, of those a check is published in, that its reader gets."""
    return languages.pick((item.content or {})["register"]["languages"], front.wanted(), settings().language)


def card(division: str | None = None, otherwise: str = "") -> dict[str, Any]:
    """The help card for this reader, now: of the division named, else of the service's own."""
    return helpcard.card(reader().current, division or settings().division or None, store.now(), own_language(otherwise))


def alarm(definition: Definition, item: Item, said: Mapping[str, Any], division: str | None) -> dict[str, Any]:
    """What stands beside every answer to a self-check, failures too: {"help", "critical", "message"}, the last being what is said
    first when an answer of `said` calls for help."""
    language = language_of(item)
    critical = scoring.is_critical(definition, said)
    text = checks.critical_words((item.content or {})["register"], own_language(language)) if critical else None
    return {"help": card(division, language), "critical": critical, "message": text}


def prepare() -> None:
    """Asked before every request. Made only when there is a failure."""
    if request.path.startswith(WHERE):
        g.beside_failure = _beside
    elif request.path.startswith(SEARCH) and words.signs(request.args.get("q", "")[:1000]):
        g.beside_failure = lambda: {"help": card(_division(request.args))}


def _beside() -> dict[str, Any]:
    """The card, and for a self-check whether something in the body calls for help, however wrong the body is. Never raises for
    what was sent."""
    # only what was read already: who refuses a request before its body must not wait for it here
    data = getattr(request, "_cached_data", None)
    try:
        body = strict_json(data) if data else None
    except Failure:
        body = None
    said: dict[str, list[Any]] = {}
    for link_id, value in heard(body):
        said.setdefault(link_id, []).append(value)
    division = _division(request.args) or _division(body if isinstance(body, dict) else {})
    slug = (request.view_args or {}).get("slug")
    try:
        item, definition = checks.published_check(reader().current, slug) if said and slug else (None, None)
    except Failure:
        item = definition = None
    return alarm(definition, item, said, division) if item and definition else {"help": card(division)}


def _division(values: Mapping[str, Any]) -> str | None:
    found = values.get("division")
    return found if isinstance(found, str) and DIVISION.fullmatch(found) else None


def heard(body: Any) -> Iterator[tuple[str, Any]]:
    """Every (link id, value) that a body seems to say, ours or FHIR's, as often as it says it."""
    waiting, seen = [body], 0
    while waiting and seen < MOST:
        part = waiting.pop()
        seen += 1
        if isinstance(part, list):
            waiting += part[:MOST]
            continue
        if not isinstance(part, dict):
            continue
        waiting += [below for name, below in part.items() if name != "answer" and isinstance(below, dict | list)]
        if isinstance(part.get("item"), str):
            for name in ("code", "number", "yes"):
                yield part["item"], part.get(name)
            for code in part["codes"][:MOST] if isinstance(part.get("codes"), list) else ():
                yield part["item"], code
        if isinstance(part.get("linkId"), str):
            answers = part.get("answer")
            for answer in answers[:MOST] if isinstance(answers, list) else [answers]:
                if not isinstance(answer, dict):
                    continue
                waiting.append(answer.get("item"))
                for value in answer.values():
                    if isinstance(value, dict) and isinstance(value.get("code"), str):
                        yield part["linkId"].strip(), value["code"]
                        yield part["linkId"].strip(), f"{value.get('system')}|{value['code']}"
                    elif not isinstance(value, dict | list):
                        yield part["linkId"].strip(), value
                        yield part["linkId"].strip(), str(value)  # a whole number may be an option's code

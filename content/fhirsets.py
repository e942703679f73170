"""The options of a choice out of ValueSets and CodeSystems, contained in the questionnaire's file or supplied beside it.

A score may stand at the concept in a ValueSet's compose or expansion, at the CodeSystem's concept, or in its properties. What
would have to be worked out by a terminology server (filters, exclusions, sets of sets) is refused by name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from content.definition import Number
from content.failures import Text
from content.fhirextensions import notice
from content.fhirjson import SCORES, Json, Reader, last

PROPERTIES = frozenset({"itemWeight", "ordinalValue"})
"""Codes of CodeSystem properties that are scores (HL7's concept-properties)."""


class Concept(NamedTuple):
    """An option as its source gives it."""

    system: str
    code: str
    text: dict[str, str]
    score: Number | None


@dataclass
class Sets:
    """The option lists of one file. `read` marks the scores that were read, by `id` of their extension."""

    reader: Reader
    resource: Json
    supplied: list[Json]
    read: set[int] = field(default_factory=set)
    found: dict[str, list[Concept]] = field(default_factory=dict)

    def score(self, node: Json, path: str) -> Number | None:
        """The score in a node's own extensions, and in those of its code or primitive value (`_code`, `_valueString`)."""
        reader, scores = self.reader, set()
        beside = [(k, v) for k, v in node.items() if k.startswith("_") and isinstance(v, dict)]
        for key, part in [("", node), *beside]:
            for where, url, extension in reader.extensions(part, f"{path}.{key}" if key else path):
                if last(url) in SCORES:
                    self.read.add(id(extension))
                    kind = next((k for k in extension if k.startswith("value")), "value[x]")
                    value = reader.real(extension.get(kind), f"{where}.{kind}")
                    scores |= {value} if value is not None else set()
        for where, row in reader.nodes(node, "property", path):
            if row.get("code") in PROPERTIES:
                kind = next((k for k in row if k.startswith("value")), "value[x]")
                value = reader.real(row.get(kind), f"{where}.{kind}")
                scores |= {value} if value is not None else set()
        if len(scores) > 1:
            reader.error(path, "bad_format", reason=Text(f"分值不一：{sorted(scores)}", f"different scores: {sorted(scores)}"))
        return min(scores, default=None)

    def concepts(self, reference: str, path: str) -> list[Concept]:
        """The concepts of a ValueSet named as "#id", or by the URL of a contained or a supplied one. Read once a file."""
        if reference in self.found:
            return self.found[reference]
        reader, made = self.reader, self.found.setdefault(reference, [])
        url, _, version = reference.partition("|")
        for where, node, own in self.resources("ValueSet"):
            if url not in (own, node.get("url")):
                continue
            if version and node.get("version") and node["version"] != version:
                reader.error(path, "unknown_reference", value=f"{reference} ({where}: {str(node['version'])[:20]})")
                return made
            made += self.listed(node, where)
            if not made:
                reader.error(path, "incomplete", missing=f"{url}: concept")
            return made
        reader.error(path, "unknown_reference", value=reference)
        return made

    def resources(self, kind: str) -> Iterator[tuple[str, Json, str]]:
        """(path, resource, its local name) of those contained, then of those supplied."""
        for where, node in self.reader.nodes(self.resource, "contained", ""):
            if node.get("resourceType") == kind:
                yield where, node, f"#{node.get('id')}"
        for node in self.supplied:
            if node.get("resourceType") == kind:
                yield f"{kind}({node.get('url')})", node, ""

    def listed(self, node: Json, path: str) -> Iterator[Concept]:
        """Of an expansion when there is one (its scores filled in from compose), else of compose."""
        if node.get("modifierExtension"):
            self.reader.refuse(
                f"{path}.modifierExtension", "modifierExtension", Text("会改变选项的含义", "it changes the options")
            )
        compose, expansion = node.get("compose"), node.get("expansion")
        composed = list(self.composed(compose, f"{path}.compose")) if isinstance(compose, dict) else []
        if not isinstance(expansion, dict) or not expansion.get("contains"):
            yield from composed
            return
        known = {(c.system, c.code): c for c in composed}
        for concept in self.contains(expansion, f"{path}.expansion"):
            other = known.get((concept.system, concept.code))
            yield concept._replace(score=other.score) if other and concept.score is None else concept

    def contains(self, node: Json, path: str) -> Iterator[Concept]:
        for where, part in self.reader.nodes(node, "contains", path):
            if not part.get("abstract") and not part.get("inactive"):
                yield self.concept(part, where, self.reader.string(part, "system", where))
            yield from self.contains(part, where)

    def composed(self, compose: Json, path: str) -> Iterator[Concept]:
        reader = self.reader
        if compose.get("exclude"):
            reader.refuse(f"{path}.exclude", "exclude", Text("请给出展开的选项", "supply an expansion"))
        for where, include in reader.nodes(compose, "include", path):
            for key in ("filter", "valueSet"):
                if include.get(key):
                    reader.refuse(f"{where}.{key}", key, Text("请给出展开的选项", "supply an expansion"))
            system = reader.string(include, "system", where)
            book = next((c for _, c, _ in self.resources("CodeSystem") if c.get("url") == system), None)
            listed = {c.code: c for c in self.book(book or {}, system, system)}
            if "concept" not in include and book and book.get("content") == "complete":
                yield from listed.values()
            elif "concept" not in include:
                reader.error(f"{where}.concept", "unknown_reference", value=system or "system")
            for n, part in reader.nodes(include, "concept", where):
                made = self.concept(part, n, system)
                if other := listed.get(made.code):
                    made = made._replace(
                        text={**other.text, **made.text}, score=other.score if made.score is None else made.score
                    )
                yield made

    def book(self, node: Json, path: str, system: str) -> Iterator[Concept]:
        """The concepts of a CodeSystem at every depth."""
        for where, part in self.reader.nodes(node, "concept", path):
            yield self.concept(part, where, system)
            yield from self.book(part, where, system)

    def concept(self, node: Json, path: str, system: str) -> Concept:
        """One concept with its translations (`_display`, designations) and its score."""
        reader = self.reader
        text = reader.texts(node, "display", path)
        for where, part in reader.nodes(node, "designation", path):
            if part.get("language"):
                reader.translate(text, part["language"], reader.string(part, "value", where), f"{where}.language")
        notice(reader, node, path)
        return Concept(system, reader.string(node, "code", path, required=True), text, self.score(node, path))

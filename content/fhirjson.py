"""Strict JSON out of a file, and how its parts are read: everything that is wrong is gathered with its path, nothing is passed
over. `fhir` and `fhirresponse` stand on it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from content import languages
from content.definition import LARGEST, Number, number
from content.failures import FieldError, Invalid, Text, invalid

Json = dict[str, Any]
MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64  # of the JSON text
MOST = 500  # errors of one file, and warnings: nobody reads more, and a file of 4 MiB can have a million
LINK_ID, CODE = 255, 500  # characters that an answer may name a question and an option with
OPTIONS = 500  # of a choice
TICKED = 100  # options of a question with several answers, all of which one answer may name
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
JOINERS = re.compile("[\u200c\u200d]")
ORDINAL = "http://hl7.org/fhir/StructureDefinition/ordinalValue"
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


SCORES = names(
    "ordinalValue itemWeight questionnaire-ordinalValue valueset-ordinalValue codesystem-ordinalValue iso21090-CO-value"
)
"""Extensions that are a score, by the last part of their address."""


def last(url: str) -> str:
    """The last part of an extension's address, by which it is known whichever guide's address stands before it."""
    return url.rpartition("/")[2]


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse(raw: bytes | str) -> Json:
    """The JSON object in a file. Raises `Invalid` that names the line: no JSON, a key twice, too deep, NaN, huge numbers."""
    if len(raw) > MAX_BYTES:
        raise invalid("file", "out_of_range", reason=f"> {MAX_BYTES // 1024 // 1024} MiB")
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        twice = False

        def pairs(found: list[tuple[str, Any]]) -> Json:
            nonlocal twice
            result = dict(found)
            twice |= len(result) != len(found)
            return result

        def constant(name: str) -> float:
            raise ValueError(f"{name} is not JSON")

        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1 if isinstance(raw, bytes) else 1
        raise invalid(
            f"line {line}", "bad_format", reason=Text("不是 UTF-8，请另存为 UTF-8", "it is not UTF-8; save it as UTF-8")
        ) from None
    except json.JSONDecodeError as error:
        raise invalid(
            f"line {error.lineno}",
            "bad_format",
            reason=Text(f"不是 JSON（第 {error.colno} 列：{error.msg}）", f"not JSON: {error.msg}, column {error.colno}"),
        ) from None
    except RecursionError:
        raise _flaw(text) or invalid("line 1", "bad_format", reason=Text("嵌套太深", "nested too deep")) from None
    except ValueError as error:
        raise invalid("file", "bad_format", reason=str(error)[:120]) from None
    if (twice or _deep(value)) and (flaw := _flaw(text)):
        raise flaw
    if not isinstance(value, dict):
        raise invalid("file", "wrong_type", reason="JSON object")
    return value


def _deep(value: Any) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            below
            for part in layer
            if isinstance(part, dict | list)
            for below in (part.values() if isinstance(part, dict) else part)
        ]
        if not layer:
            return False
    return True


def _flaw(text: str) -> Invalid | None:
    """The first key that stands twice, or the first place that is too deep, with its line."""
    stack: list[set[str] | None] = []
    line, last = 1, ""
    for token in re.finditer(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:\n]', text):
        sign = token[0]
        if sign == "\n":
            line += 1
        elif sign in "{[":
            stack.append(set() if sign == "{" else None)
            if len(stack) > MAX_DEPTH:
                return invalid(
                    f"line {line}",
                    "bad_format",
                    reason=Text(f"括号套得太深，最多 {MAX_DEPTH} 层", f"nested too deep, {MAX_DEPTH} levels at most"),
                )
        elif sign in "}]":
            if stack:
                stack.pop()
        elif sign == ":" and stack and (keys := stack[-1]) is not None:
            key = str(json.loads(last or '""'))
            if key in keys:
                return invalid(
                    f"line {line}",
                    "bad_format",
                    reason=Text(f"键“{key[:60]}”出现两次", f"the key “{key[:60]}” stands twice in one object"),
                )
            keys.add(key)
        last = sign if sign.startswith('"') else last
    return None


def written(text: str) -> str:
    """The text with half characters spelled out, which JSON can hold and no file or terminal takes."""
    return text.encode("utf-8", "backslashreplace").decode()


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass
class Notes:
    """What was found on the way through one file."""

    errors: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    base: str = "en"
    """Language of plain text."""

    def spot(self, path: str) -> str:
        """The path as it is told."""
        return written(path)

    def error(self, path: str, code: str, **params: Any) -> None:
        told = {name: written(value) if isinstance(value, str) else value for name, value in params.items()}
        self.errors.append(FieldError(self.spot(path), code, told))
        if len(self.errors) >= MOST:
            raise Invalid(self.errors)

    def refuse(self, path: str, what: str, reason: str | Text) -> None:
        self.error(path, "unsupported", what=what[:200], where=self.spot(path), reason=reason)

    def warn(self, path: str, reason: str) -> None:
        line = f"{self.spot(path)}: {written(reason)}"
        if line not in self.warnings and len(self.warnings) < MOST:
            self.warnings.append(line if len(self.warnings) < MOST - 1 else "…")

    def named(self, value: str, path: str, longest: int = CODE, words: bool = False) -> None:
        """An error for a link id or a code that no answer could name: too long, or with what nobody sees. `words`: it is a text,
        in which some scripts need joiners."""
        if len(value) > longest:
            self.error(path, "out_of_range", reason=Text(f"最多 {longest} 个字符", f"{longest} characters at most"))
        elif value == "__proto__":  # no key that JavaScript keeps
            self.error(path, "bad_format", reason="__proto__")
        elif UNSEEN.search(value) or (not words and JOINERS.search(value)):
            self.error(
                path,
                "bad_format",
                reason=Text("含有零宽或控制字符，请删去", "it holds zero-width or control characters; take them out"),
            )

    def many(self, count: int, kind: str, path: str) -> None:
        """An error for more options than an answer can name."""
        most = TICKED if kind == "multiple" else OPTIONS
        if count > most:
            self.error(path, "out_of_range", reason=Text(f"最多 {most} 个选项", f"{most} options at most"))

    def stop(self) -> None:
        if self.errors:
            raise Invalid(self.errors)


class Reader(Notes):
    """The parts of a FHIR resource."""

    def string(self, node: Json, key: str, path: str, required: bool = False) -> str:
        """A string of the node, cleaned; "" when absent. Codes and link ids go through here too: blanks at their ends are
        never meant (FHIR's `code` forbids them)."""
        value = node.get(key)
        if value is None:
            if required:
                self.error(f"{path}.{key}", "required")
            return ""
        if not isinstance(value, str):
            self.error(f"{path}.{key}", "wrong_type", reason="string")
            return ""
        if re.search("[\x00\ud800-\udfff]", value):
            self.error(f"{path}.{key}", "bad_format", reason="NUL, lone surrogate")
            return ""
        value = languages.clean(value)
        if required and not value:
            self.error(f"{path}.{key}", "required")
        return value

    def flag(self, node: Json, key: str, path: str) -> bool:
        value = node.get(key, False)
        if not isinstance(value, bool):
            self.error(f"{path}.{key}", "wrong_type", reason="true, false")
            return False
        return value

    def nodes(self, node: Json, key: str, path: str) -> Iterator[tuple[str, Json]]:
        """The objects in a list of the node with their paths."""
        value = node.get(key, [])
        where = f"{path}.{key}" if path else key
        if not isinstance(value, list):
            self.error(where, "wrong_type", reason="list")
            return
        for n, part in enumerate(value):
            if isinstance(part, dict):
                yield f"{where}[{n}]", part
            else:
                self.error(f"{where}[{n}]", "wrong_type", reason="object")

    def extensions(self, node: Json, path: str) -> Iterator[tuple[str, str, Json]]:
        """(path, url, extension) of a node."""
        for where, extension in self.nodes(node, "extension", path):
            yield where, str(extension.get("url", "")), extension

    def one(self, node: Json, name: str, path: str) -> tuple[str, Any]:
        """(path, value) of the extension whose address ends in `name`; value None when there is none."""
        for where, url, extension in self.extensions(node, path):
            if last(url) == name:
                key = next((k for k in extension if k.startswith("value")), "")
                return f"{where}.{key}", extension.get(key)
        return path, None

    def bound(self, node: Json, name: str, path: str) -> Number | None:
        where, value = self.one(node, name, path)
        if isinstance(value, dict):
            where, value = f"{where}.value", value.get("value")
        return None if value is None else self.real(value, where)

    def real(self, value: Any, path: str) -> Number | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.error(path, "wrong_type", reason="number")
        elif not abs(value) < LARGEST:
            self.error(path, "out_of_range", reason="|n| < 10^12")
        else:
            return number(value)
        return None

    def texts(self, node: Json, key: str, path: str) -> dict[str, str]:
        """A text by language: the plain one, and those of the translation extension beside it (`_text`)."""
        found: dict[str, str] = {}
        if plain := self.string(node, key, path):
            found[self.base] = plain
        beside = node.get(f"_{key}")
        if not isinstance(beside, dict):
            return found
        for where, url, extension in self.extensions(beside, f"{path}._{key}"):
            if url != TRANSLATION:
                if last(url) not in SCORES:  # that is read with the option
                    self.warn(where, f"未使用 not used: {last(url)[:60]}")
                continue
            parts = {str(p.get("url")): p for _, p in self.nodes(extension, "extension", where)}
            lang, content = parts.get("lang", {}), parts.get("content", {})
            code = next((v for k, v in lang.items() if k.startswith("value")), "")
            kind = next((k for k in content if k.startswith("value")), "valueString")
            self.translate(found, code, self.string(content, kind, where), where)
        return found

    def translate(self, found: dict[str, str], code: Any, text: str, path: str) -> None:
        try:
            tag = languages.tag(str(code), path)
        except Invalid as failure:
            self.errors += failure.errors
            return
        if text:
            found[tag] = text

"""Checking plain values on their way into a record, whether they came by HTTP, from a file or from the starter library.

A `Check` gathers every error of one entry, so that one round of mending is enough; `done` raises them all at once.
"""

import os
import re
import stat
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from content import divisions, languages
from content.failures import FieldError, Invalid, Text, invalid
from content.vocabulary import Stage

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SLUG_LIMIT = 80  # characters
YAML_DEPTH = 64  # levels, as of JSON (`fhirjson.MAX_DEPTH`); reading takes quadratic time over them


class Check:
    """Each method gives the value in its stored form, or notes an error and gives an empty one."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def fail(self, field: str, code: str, **params: Any) -> None:
        """Note one error."""
        self.errors.append(FieldError(field, code, params))

    def done(self) -> None:
        """Raises `Invalid` with every error noted."""
        if self.errors:
            raise Invalid(self.errors)

    def fields(self, values: Mapping[str, Any], known: Collection[str]) -> None:
        """No names but the known ones."""
        for name in values:
            if name not in known:
                self.fail(str(name)[:60], "unknown_field")

    def text(self, field: str, value: Any, longest: int = 500, required: bool = False) -> str | None:
        """A cleaned text, None for an empty one."""
        if value is None or value == "":
            if required:
                self.fail(field, "required")
            return None
        if not isinstance(value, str) or len(value) > longest:
            self.fail(
                field, "out_of_range", reason=Text(f"请填文字，最多 {longest} 个字符", f"a text of at most {longest} characters")
            )
            return None
        return languages.clean(value) or None

    def language(self, field: str, value: Any) -> str:
        """A language tag in its one spelling."""
        try:
            return languages.tag(str(value), field)
        except Invalid as error:
            self.errors += error.errors
            return ""

    def texts(self, field: str, value: Any, longest: int, required: bool = False) -> dict[str, str]:
        """{language tag: text}; a bare text counts as zh-Hans."""
        if isinstance(value, str):
            value = {"zh-Hans": value}
        if not isinstance(value, Mapping | None):
            self.fail(field, "wrong_type", reason=Text("{语言: 文字}", "{language: text}"))
            value = None
        result = {}
        for key, text in (value or {}).items():
            tag, cleaned = self.language(field, key), self.text(f"{field}.{key}", text, longest)
            if tag and cleaned:
                result[tag] = cleaned
        if required and not result:
            self.fail(field, "required")
        return result

    def rows(self, field: str, value: Any, most: int = 50) -> list[Any]:
        """A list of at most `most`."""
        if not isinstance(value, list | tuple | None) or len(value or ()) > most:
            self.fail(field, "wrong_type", reason=Text(f"请填列表，最多 {most} 项", f"a list of at most {most} entries"))
            return []
        return list(value or ())

    def coded(self, field: str, value: Any, table: Collection[str]) -> str:
        """One code of a table."""
        if not isinstance(value, str) or value not in table:
            self.fail(field, "not_one_of", choices=", ".join(table))
            return ""
        return value

    def codes(self, field: str, value: Any, table: Collection[str]) -> list[str]:
        """Codes of a table, each once, in the order given."""
        return list(dict.fromkeys(self.coded(field, one, table) for one in self.rows(field, value)))

    def stages(self, value: Any, field: str = "stages") -> list[str]:
        """Stages in their one spelling, each once, in the order given."""
        found = []
        for one in self.rows(field, value):
            try:
                found.append(str(Stage.parse(one, field)))
            except Invalid as failure:
                self.errors += failure.errors
        return list(dict.fromkeys(found))

    def whole(self, field: str, value: Any, low: int, high: int) -> int | None:
        """A whole number in a range, None for none."""
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(
                field,
                "out_of_range",
                reason=Text(f"请用数字填写 {low}–{high} 的整数", f"write in digits a whole number from {low} to {high}"),
            )
            return None
        return value

    def division(self, field: str, value: Any) -> str:
        """A division's code in force."""
        try:
            return divisions.check(str(value), field)
        except Invalid as error:
            self.errors += error.errors
            return ""

    def zone(self, field: str, value: Any) -> str:
        """An IANA time zone; Asia/Shanghai for none."""
        name = str(value or "Asia/Shanghai")
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            self.fail(field, "bad_format", reason=Text("例：Asia/Shanghai", "e.g. Asia/Shanghai"))
            return "Asia/Shanghai"
        return name

    def moment(self, field: str, value: Any, zone: str) -> datetime | None:
        """A moment in UTC from ISO 8601 or a datetime; one without an offset is local time of `zone`. None for none."""
        if value is None or value == "":
            return None
        try:
            found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            if not 2000 <= found.year <= 2200:
                raise ValueError
            return (found if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC).replace(microsecond=0)
        except (ValueError, OverflowError):
            self.fail(field, "bad_format", reason=Text("例：2027-05-15T14:00+08:00", "e.g. 2027-05-15T14:00+08:00"))
            return None


def slug(text: str, field: str = "slug") -> str:
    """The name of a record in addresses and of its files. Raises `Invalid` naming `field`."""
    if len(text) > SLUG_LIMIT or not SLUG.fullmatch(text):
        raise invalid(
            field,
            "bad_format",
            reason=Text(f"只用 a-z、0-9 和 -，最多 {SLUG_LIMIT} 个", f"a-z, 0-9 and - only, at most {SLUG_LIMIT}"),
        )
    return text


def file_bytes(path: Path, limit: int) -> bytes:
    """The bytes of an ordinary file of at most `limit` bytes. Raises `Invalid` naming the file: a pipe would be waited for
    without end, a device read without end."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise invalid(path.name, "bad_format", reason=Text("不是普通文件", "it is not an ordinary file"))
            data = file.read(limit + 1)
    except OSError as error:
        raise invalid(
            path.name,
            "bad_format",
            reason=Text(
                f"读不了（{error.strerror}），请检查文件和权限",
                f"it cannot be read ({error.strerror}); check it and its permissions",
            ),
        ) from None
    if len(data) > limit:
        raise invalid(path.name, "out_of_range", reason=Text(f"最多 {limit} 字节", f"{limit} bytes at most"))
    return data


class _Strict(yaml.SafeLoader):
    """A key that stands twice in one mapping is an error: PyYAML takes the last and says nothing."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"“{key.value}” stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def yaml_mapping(path: Path, limit: int) -> dict[str, Any]:
    """A YAML file as plain values by name; keys are texts. Raises `Invalid` naming file and line: not YAML, an alias (which can
    grow without end), more than `YAML_DEPTH` levels, NUL or half a character (which no store takes), a key that stands twice, no
    mapping, more than `limit` bytes, no ordinary file."""
    raw = file_bytes(path, limit)
    depth = 0
    try:
        for event in yaml.parse(raw, yaml.SafeLoader):
            wrong = Text("不接受别名", "aliases are not accepted") if isinstance(event, yaml.AliasEvent) else None
            if isinstance(event, yaml.CollectionStartEvent | yaml.CollectionEndEvent):
                depth += 1 if isinstance(event, yaml.CollectionStartEvent) else -1
                wrong = Text(f"嵌套超过 {YAML_DEPTH} 层", "nested too deep") if depth > YAML_DEPTH else None
            elif isinstance(event, yaml.ScalarEvent) and re.search("[\x00\ud800-\udfff]", event.value):
                wrong = Text("含有 NUL 或半个字符", "it holds NUL or half a character")
            if wrong:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise invalid(
                    path.name, "bad_format", reason=Text(f"YAML 第 {line} 行：{wrong.zh}", f"YAML, line {line}: {wrong.en}")
                )
        value = yaml.load(raw, _Strict)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise invalid(path.name, "bad_format", reason=f"YAML{where}: {getattr(error, 'problem', None) or 'unreadable'}") from None
    if not isinstance(value, dict):
        raise invalid(path.name, "wrong_type", reason="name: value")
    return {str(key): one for key, one in value.items()}

"""What several routes share: the process's parts, paging, language tags, texts in several languages, coded lists."""

from collections.abc import Iterable, Mapping
from typing import Any

import marshmallow as ma
from flask import current_app
from marshmallow import validate

from content import languages
from content.failures import Invalid, invalid
from content.published import Reader
from content.settings import Settings
from content.vocabulary import Stage


class Regexp(validate.Regexp):
    """marshmallow's, but `$` is the end of the text: Python's also stands before a last line end."""

    def __call__(self, value: Any) -> Any:
        if value.endswith("\n"):
            raise ma.ValidationError(self._format_error(value))
        return super().__call__(value)


ID = Regexp("^[0-9a-f]{32}$")


def reader() -> Reader:
    """The process's published set."""
    return current_app.extensions["reader"]  # type: ignore[no-any-return]


def settings() -> Settings:
    """The process's settings."""
    return current_app.extensions["settings"]  # type: ignore[no-any-return]


class Tag(ma.fields.String):
    """A BCP 47 tag, deserialised into its one spelling."""

    spell = staticmethod(languages.tag)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return self.spell(text, attr or "language")
        except Invalid as failure:
            raise ma.ValidationError(list(failure.errors)) from None


class Edition(Tag):
    """A language, or a language with a voice ("zh-Hans-x-student"), deserialised into its one spelling."""

    spell = staticmethod(languages.edition)

    def __init__(self, **kwargs: Any) -> None:
        about = {"description": "language, with -x-student, -x-parent or -x-staff for one voice", "example": "zh-Hans"}
        super().__init__(**{"metadata": about, **kwargs})


class StageField(ma.fields.String):
    """A stage as text ("junior", "junior.9", "senior.final"), deserialised into a `vocabulary.Stage`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            **{"metadata": {"description": "stage, stage.grade, stage.entering or stage.final", "example": "junior.9"}, **kwargs}
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return Stage.parse(super()._deserialize(value, attr, data, **kwargs), attr or "stage")
        except Invalid as failure:
            raise ma.ValidationError(list(failure.errors)) from None


class Paging(ma.Schema):
    """What every list takes."""

    cursor = ma.fields.String(validate=validate.Length(max=500), metadata={"description": "`next_cursor` of the page before"})
    limit = ma.fields.Integer(load_default=20, validate=validate.Range(1, 100))


def codes(table: Iterable[str]) -> ma.fields.Field[Any]:
    """A list of codes of one vocabulary."""
    return ma.fields.List(ma.fields.String(validate=validate.OneOf(list(table))), validate=validate.Length(max=50))


class Word(ma.Schema):
    """A short text in one language."""

    language = Tag(required=True)
    text = ma.fields.String(required=True, validate=validate.Length(1, 300))


def words() -> Any:
    """A short text in several languages."""
    return ma.fields.List(ma.fields.Nested(Word), validate=validate.Length(max=20))


def by_language(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """[{"language", "text"}] as {language: text}: how it is stored. Raises `Invalid` when a language stands twice."""
    return {language: row["text"] for language, row in each_once(rows).items()}


def each_once(rows: Iterable[Mapping[str, Any]], field: str = "texts") -> dict[str, Mapping[str, Any]]:
    """Rows by their language. Raises `Invalid` when one stands twice (zh-CN is zh-Hans): which of them counts nobody can know."""
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows):
        if row["language"] in found:
            raise invalid(f"{field}.{number}.language", "exists", what=row["language"])
        found[row["language"]] = row
    return found


def listed(texts: Mapping[str, str]) -> list[dict[str, str]]:
    """{language: text} as it is answered to staff, in the shape that they send."""
    return [{"language": code, "text": value} for code, value in sorted(texts.items())]

"""What several routes share: the process's parts, paging, language tags, texts in several languages, coded lists."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import current_app
from marshmallow import validate

from content import checking, divisions, languages
from content.failures import Invalid, Text, invalid
from content.published import Reader
from content.publishing import STATES
from content.settings import Settings
from content.vocabulary import Stage


class Regexp(validate.Regexp):
    """marshmallow's, but `$` is the end of the text: Python's also stands before a last line end."""

    def __call__(self, value: Any) -> Any:
        if value.endswith("\n"):
            raise ma.ValidationError(self._format_error(value))
        return super().__call__(value)


ID = Regexp("^[0-9a-f]{32}$")
DIVISION = Regexp("^[0-9]{6}$")
DAYS = validate.Range(date(2000, 1, 1), date(2100, 12, 31))
SLUG = [validate.Length(1, checking.SLUG_LIMIT), Regexp(f"^{checking.SLUG.pattern}$")]


def reader() -> Reader:
    """The process's published set."""
    return current_app.extensions["reader"]  # type: ignore[no-any-return]


def settings() -> Settings:
    """The process's settings."""
    return current_app.extensions["settings"]  # type: ignore[no-any-return]


class Real(ma.fields.Float):
    """A JSON number; the stock field also takes "3" and true."""

    def _validated(self, value: Any) -> Any:
        if isinstance(value, bool | str):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


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


class Moment(ma.fields.DateTime):
    """A moment, deserialised into UTC. With an offset it is what it says; without one it is the time on the clocks of the
    district (settings.zone); a date alone is the first moment of that day there.

    A time that the clocks there skip or show twice is refused with the moments that it may mean, since neither guess is safe.
    """

    FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?")
    YEARS = (2000, 2200)

    def __init__(self, **kwargs: Any) -> None:
        about = {"description": "2026-12-01T08:00+08:00, or 2026-12-01T08:00 or 2026-12-01 in the district's zone"}
        super().__init__(**{"metadata": about, **kwargs})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        name = attr or "at"
        try:
            if not isinstance(value, str) or not self.FORM.fullmatch(value):
                raise ValueError
            found: date = datetime.fromisoformat(value) if "T" in value else date.fromisoformat(value)
        except ValueError:
            given = str(value)[:40]
            reason = Text(f"“{given}”；例：2026-12-01T08:00, 2026-12-01", f"“{given}”; e.g. 2026-12-01T08:00, 2026-12-01")
            raise ma.ValidationError(list(invalid(name, "bad_format", reason=reason).errors)) from None
        if not self.YEARS[0] <= found.year <= self.YEARS[1]:
            raise ma.ValidationError(list(invalid(name, "out_of_range", reason="2000 – 2200").errors))
        if isinstance(found, datetime) and found.tzinfo:
            return found.astimezone(UTC)
        try:
            return in_zone(found, ZoneInfo(settings().zone), name)
        except Invalid as failure:
            raise ma.ValidationError(list(failure.errors)) from None


def in_zone(clock: date, zone: ZoneInfo, field: str = "at") -> datetime:
    """The UTC moment of a clock time in a zone; of a date its first moment there. Raises `Invalid` for a time that is skipped
    (clocks go forward) or comes twice (clocks go back)."""
    if not isinstance(clock, datetime):
        # fold 0: the earlier midnight where there are two; where midnight is skipped, the moment that the clocks skip to
        return datetime.combine(clock, time(), zone).astimezone(UTC)
    found = [clock.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
    offsets = [one.utcoffset() or timedelta() for one in found]
    if offsets[0] != offsets[1]:
        exact = [clock.replace(tzinfo=timezone(offset)) for offset in offsets]
        skipped = offsets[0] < offsets[1]
        means = [one.astimezone(zone) if skipped else one for one in exact]
        why = (
            Text("当地时钟跳过了这一时刻", "the clocks skip this time")
            if skipped
            else Text("这一时刻出现两次", "this time comes twice")
        )
        told = " / ".join(one.isoformat() for one in means)
        raise invalid(field, "bad_format", reason=Text(f"{why.zh}：{told}", f"{why.en}: {told}"))
    return found[0].astimezone(UTC)


class Stand(ma.Schema):
    """Where one edition stands. What does not hold is absent."""

    state = ma.fields.String(
        validate=validate.OneOf(STATES),
        metadata={
            "description": "of the working copy. One that waits for its moment is `approved` and has `publish_at`; send-back "
            "cancels that"
        },
    )
    authors = ma.fields.List(ma.fields.String(), metadata={"description": "who edited since the last publication; ids"})
    published_authors = ma.fields.List(ma.fields.String(), metadata={"description": "authors of what was published last; ids"})
    digest = ma.fields.String(metadata={"description": "name of the version that was submitted"})
    approved_by = ma.fields.String(metadata={"description": "id"})
    version = ma.fields.String(metadata={"description": "that readers see; absent when they see none"})
    number = ma.fields.Integer(metadata={"description": "how many versions of this edition have been published"})
    published_at = ma.fields.String()
    publish_at = ma.fields.String(metadata={"description": "readers get it at this moment"})
    publish_at_local = ma.fields.String(metadata={"description": "in the district's zone"})
    next_expires_at = ma.fields.String(metadata={"description": "expiry of what waits"})
    next_expires_at_local = ma.fields.String(metadata={"description": "in the district's zone"})
    expires_at = ma.fields.String(metadata={"description": "readers lose it at this moment"})
    expires_at_local = ma.fields.String(metadata={"description": "in the district's zone"})
    note = ma.fields.String(metadata={"description": "the reviewer's word, or why it was not published at its moment"})


def stood(stands: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Where each edition stands, as it is answered: moments in UTC, what is planned also in the district's time (`…_local`)."""
    zone = ZoneInfo(settings().zone)
    result = {}
    for language, stand in stands.items():
        row = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in stand.items()}
        for name in ("publish_at", "next_expires_at", "expires_at"):
            if isinstance(stand.get(name), datetime):
                row[f"{name}_local"] = stand[name].astimezone(zone).isoformat(timespec="seconds")
        result[language] = row
    return result


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


def words(required: bool = False) -> Any:
    """A short text in several languages."""
    return ma.fields.List(ma.fields.Nested(Word), required=required, validate=validate.Length(max=20))


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


def text(texts: Mapping[str, str] | None, wanted: Sequence[str]) -> str:
    """The text of the reader's best language; "" when there is none."""
    return texts[languages.pick(texts, wanted, settings().language)] if texts else ""


def parts(found: Mapping[str, Mapping[str, str]] | None, wanted: Sequence[str]) -> dict[str, str] | None:
    """A lecturer or a venue: each part in the reader's language; None when there is none."""
    return {name: text(texts, wanted) for name, texts in found.items()} if found else None


def near(division: str, asked: str | None) -> bool:
    """Whether families of the division asked for may come."""
    return asked is None or divisions.overlap(asked, division)

"""The texts that season notices are drafted from: which count in a division, and the desk where a district writes its own.

A text of the library is never changed here: a district puts its own in its place, version after version, and takes it back. Plan
texts for times of need are shown as the library has them; an emergency notice is written from one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import acting, actor
from api.errors import Messages
from api.guard import Blueprint, if_match, page, tagged
from api.shapes import DAYS, SLUG, Paging, Regexp, Tag, each_once, reader, settings
from content import divisions, languages
from content.failures import Forbidden, invalid
from content.vocabulary import SEASONS, Label
from notifications import fcm, seasons, templates
from notifications.seasons import Span
from notifications.templates import DONE, EMERGENCIES, MOST_LANGUAGES, MOST_LESSONS, PLACES, NoticeTemplate, Template

staff = Blueprint("staff_templates", __name__, url_prefix="/v1/staff", description="Texts that season notices are made from")
ONE = "/notice-templates/<string:season>/<int(signed=True):lead>/<string:audience>"


class DivisionQuery(ma.Schema):
    division = ma.fields.String(
        load_default=str,
        validate=Regexp("^[0-9]{6}$"),
        metadata={"description": "left out: the one that runs the service. 000000: the country", "example": "150603"},
    )


class TemplatesQuery(DivisionQuery, Paging):
    season = ma.fields.String(load_default=str, validate=validate.OneOf(list(SEASONS)), metadata={"example": "gaokao"})


class WordsIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(
        required=True, validate=validate.Length(1, 200), metadata={"description": f"{templates.TITLE} characters at most"}
    )
    body = ma.fields.String(
        required=True,
        validate=validate.Length(1, 2000),
        metadata={"description": f"{templates.BODY} characters at most; may hold {' '.join(f'{{{name}}}' for name in PLACES)}"},
    )


class DoneIn(ma.Schema):
    kind = ma.fields.String(required=True, validate=validate.OneOf(DONE))
    slug = ma.fields.String(validate=SLUG, metadata={"description": "of the lesson or check; none with `read`"})


class TemplateIn(ma.Schema):
    texts = ma.fields.List(ma.fields.Nested(WordsIn), required=True, validate=validate.Length(1, MOST_LANGUAGES))
    lessons = ma.fields.List(
        ma.fields.String(validate=SLUG),
        load_default=list,
        validate=validate.Length(max=MOST_LESSONS),
        metadata={"description": "slugs of what it opens"},
    )
    done_when = ma.fields.Nested(
        DoneIn, load_default=None, allow_none=True, metadata={"description": "after that the phone hides it"}
    )


class PreviewIn(ma.Schema):
    first = ma.fields.Date(
        format="iso",
        required=True,
        validate=DAYS,
        metadata={"description": "first local day of the season", "example": "2027-06-07"},
    )
    last = ma.fields.Date(format="iso", validate=DAYS, metadata={"description": "left out: as many days on as the calendar says"})
    texts = ma.fields.List(
        ma.fields.Nested(WordsIn),
        validate=validate.Length(1, MOST_LANGUAGES),
        metadata={"description": "not saved yet; left out: those that count in the division"},
    )


class WordsOut(ma.Schema):
    language = ma.fields.String()
    title = ma.fields.String()
    body = ma.fields.String()


class DoneOut(ma.Schema):
    kind = ma.fields.String()
    slug = ma.fields.String()


class TextOut(ma.Schema):
    version = ma.fields.Integer()
    texts = ma.fields.List(ma.fields.Nested(WordsOut))
    lessons = ma.fields.List(ma.fields.String())
    done_when = ma.fields.Nested(DoneOut, allow_none=True)


class TemplateOut(TextOut):
    name = ma.fields.String(metadata={"description": "what drafts say they were made from", "example": "gaokao:-30:parent"})
    season = ma.fields.String()
    season_name = ma.fields.Nested(Messages)
    lead = ma.fields.Integer(
        metadata={"description": "days from the season; negative: before its first day, positive: after its last"}
    )
    audience = ma.fields.String()
    source = ma.fields.String(
        validate=validate.OneOf(["own", "above", "library"]),
        metadata={"description": "whose text counts in this division: its own, that of a division above it, the library's"},
    )
    division = ma.fields.String(
        allow_none=True, metadata={"description": "whose it is; 000000: the country; null: the library's"}
    )


class VersionOut(TextOut):
    written_by = ma.fields.String(metadata={"description": "id"})
    written_at = ma.fields.String()


class TemplateWithVersions(TemplateOut):
    versions = ma.fields.List(
        ma.fields.Nested(VersionOut), metadata={"description": "of the division's own, newest first, also once it was taken back"}
    )


class TemplateList(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(TemplateOut))
    next_cursor = ma.fields.String(allow_none=True)


class RenderedOut(WordsOut):
    bytes = ma.fields.Integer(metadata={"description": "of a push to a topic that carries it"})


class PreviewOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(RenderedOut))
    limit = ma.fields.Integer(metadata={"description": "bytes"})
    missing = ma.fields.List(
        ma.fields.String(), metadata={"description": "languages in which lessons are published here, and this text has not"}
    )


class PlanTextOut(ma.Schema):
    name = ma.fields.String(metadata={"example": "loss:parent"})
    code = ma.fields.String()
    label = ma.fields.Nested(Messages)
    audience = ma.fields.String()
    version = ma.fields.Integer()
    texts = ma.fields.List(ma.fields.Nested(WordsOut))
    lessons = ma.fields.List(ma.fields.String())


class PlanTexts(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(PlanTextOut))
    next_cursor = ma.fields.String(allow_none=True)


class Day(NamedTuple):
    """What of an occasion a preview knows."""

    code: str
    lead: int
    division: str
    span: Span


def where(query: Mapping[str, Any], permission: str) -> str:
    """The division asked for, in force, "" for the country, when the asker may do this there. Raises `Invalid`, `Forbidden`."""
    code = query["division"] or settings().division
    division = "" if code in {"", divisions.COUNTRY} else divisions.check(code, "division")
    if not acting(permission)(division):
        raise Forbidden()
    return division


def both(label: Label) -> dict[str, str]:
    """A label as it is answered."""
    return {"zh-Hans": label.zh, "en": label.en}


def words_out(texts: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Texts as a list."""
    return [{"language": tag, "title": text["title"], "body": text["body"]} for tag, text in sorted(texts.items())]


def words_in(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Texts by language, as they are stored. Raises `Invalid` when a language stands twice."""
    return {tag: {"title": row["title"], "body": row["body"]} for tag, row in each_once(rows).items()}


def values_in(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the values of `templates.save`."""
    return {**payload, "texts": words_in(payload["texts"])}


def shown(season: str, lead: int, audience: str, division: str, found: list[NoticeTemplate]) -> dict[str, Any] | None:
    """The text that counts in a division, and whose it is; None when there is none."""
    nearest = templates.nearest(season, lead, audience, division, found)
    text = templates.best(season, lead, audience, division, found)
    if text is None:
        return None
    home = (nearest.division or divisions.COUNTRY) if nearest else None
    own = home is not None and home == (division or divisions.COUNTRY)
    return {
        "name": text.name,
        "season": season,
        "season_name": both(SEASONS[season]),
        "lead": lead,
        "audience": audience,
        "source": "own" if own else "above" if nearest else "library",
        "division": home,
        **text_out(text),
    }


def text_out(text: Template) -> dict[str, Any]:
    """A template's own part."""
    done = dict(text.done_when) if text.done_when else None
    return {"version": text.version, "texts": words_out(text.texts), "lessons": list(text.lessons), "done_when": done}


def version_out(row: Mapping[str, Any]) -> dict[str, Any]:
    """One version of a division's own."""
    return {
        "version": row["version"],
        "texts": words_out(row["texts"]),
        "lessons": list(row.get("lessons") or ()),
        "done_when": dict(row["done_when"]) if row.get("done_when") else None,
        "written_by": row["written_by"],
        "written_at": row["written_at"].isoformat(timespec="seconds"),
    }


@staff.get("/notice-templates")
@staff.arguments(TemplatesQuery, location="query")
@staff.alt_response(200, schema=TemplateList)
def index(query: dict[str, Any]) -> Response:
    """The texts that count in a division, its own before those of the divisions above it before the library's"""
    division, found = where(query, "notice.read"), templates.stored()
    names = {tuple(name.split(":")) for name in templates.starter()} | {(t.season, str(t.lead), t.audience) for t in found}
    keys = sorted((season, int(lead), audience) for season, lead, audience in names if query["season"] in {"", season})
    rows = [row for key in keys if (row := shown(*key, division, found))]
    listed = page(rows, query.get("cursor"), query["limit"], lambda row: (row["season"], row["lead"], row["audience"]))
    return jsonify(listed)


@staff.get("/notice-templates/emergencies")
@staff.alt_response(200, schema=PlanTexts)
def emergencies() -> Response:
    """The plan texts for special times and major events, which wait for a person to send them"""
    items = []
    for name, text in templates.emergencies().items():
        code, audience = name.split(":")
        said = text_out(text)
        del said["done_when"]
        items.append({"name": name, "code": code, "label": both(EMERGENCIES[code]), "audience": audience, **said})
    return jsonify({"items": items, "next_cursor": None})


@staff.get(ONE)
@staff.arguments(DivisionQuery, location="query")
@staff.alt_response(
    200, schema=TemplateWithVersions, description="ETag is the revision of the division's own; without one there is no ETag"
)
def show(query: dict[str, Any], season: str, lead: int, audience: str) -> Response:
    """The text that counts in a division, with the versions of the division's own"""
    division = where(query, "notice.read")
    return answered(division, season, lead, audience)


def answered(division: str, season: str, lead: int, audience: str, status: int = 200) -> Response:
    """One text with its versions. Raises `NotFound`."""
    own = templates.own_record(division, season, lead, audience)
    found = shown(season, lead, audience, division, templates.stored())
    if found is None:
        raise templates.missing(season, lead, audience)
    payload = {**found, "versions": [version_out(row) for row in reversed(own.history)] if own else []}
    if own is None or own.retired:
        return jsonify(payload)
    return tagged(payload, own.revision, status)


@staff.put(ONE)
@staff.arguments(TemplateIn)
@staff.arguments(DivisionQuery, location="query")
@staff.alt_response(200, schema=TemplateWithVersions)
@staff.alt_response(201, schema=TemplateWithVersions, description="The division has one of its own from now on")
def put(payload: dict[str, Any], query: dict[str, Any], season: str, lead: int, audience: str) -> Response:
    """Write a division's own text, whole, as its next version

    One that exists needs If-Match. Drafts made before keep the version that they were made from.
    """
    division = where(query, "notice.write")
    own = templates.own_record(division, season, lead, audience)
    revision = if_match() if own and not own.retired else None
    templates.save(division, season, lead, audience, values_in(payload), actor().id, settings(), revision)
    return answered(division, season, lead, audience, 201 if revision is None else 200)


@staff.delete(ONE)
@staff.arguments(DivisionQuery, location="query")
@staff.response(204)
def take_back(query: dict[str, Any], season: str, lead: int, audience: str) -> None:
    """Take a division's own text back: the one above it, in the end the library's, counts again. Needs If-Match."""
    division = where(query, "notice.write")
    templates.take_back(division, season, lead, audience, actor().id, if_match())


@staff.post(ONE + "/preview")
@staff.arguments(PreviewIn)
@staff.arguments(DivisionQuery, location="query")
@staff.alt_response(200, schema=PreviewOut)
def preview(payload: dict[str, Any], query: dict[str, Any], season: str, lead: int, audience: str) -> Response:
    """What families would read, for a season that begins on a given day; nothing is saved"""
    division = where(query, "notice.read")
    templates.key_of(division, season, lead, audience)
    if "texts" in payload:
        texts = templates.checked({"texts": words_in(payload["texts"])}, season, lead)["texts"]
        text: Template | None = Template("", 0, texts, (), None)
    else:
        text = templates.best(season, lead, audience, division, templates.stored())
    if text is None:
        raise templates.missing(season, lead, audience)
    first = payload["first"]
    usual = seasons.season(season, first.year)
    last = payload.get("last") or first + (usual.last - usual.first)
    if not 0 <= (last - first).days <= 366:
        raise invalid("last", "out_of_range", reason="first … first + 366")
    values = templates.values(Day(season, lead, division, Span(first, last, False)), settings())
    rendered = templates.rendered(text, values)
    items = [{"language": tag, **one, "bytes": templates.size(one)} for tag, one in sorted(rendered.items())]
    return jsonify({"items": items, "limit": fcm.TOPIC_LIMIT, "missing": sorted(spoken() - rendered.keys())})


def spoken() -> set[str]:
    """The service's languages: its own, and those in which it has published lessons."""
    editions = {tag for one in reader().current.entries("lesson").values() for tag, item in one.items() if item.content}
    return {settings().language} | {languages.parts(tag)[0] for tag in editions}

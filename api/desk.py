"""The desk around what is published: comments on drafts, previews, where a thing is used, what has aged, fallen behind or been
recalled.

`add` puts the same routes beside lessons and paths. Whoever may read a draft may comment on it; open comments block nothing, the
approver is told how many there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor, allowed, own
from api.errors import Messages
from api.guard import Blueprint, cursor_of, if_match, moment_of, next_page, page
from api.media import readable as media_readable
from api.shapes import ID, Edition, Paging, Word, listed, reader, settings
from content import media, reviewing, upkeep
from content import staff as people
from content.checks import Check
from content.failures import Conflict, Forbidden, NotFound
from content.lessons import Lesson
from content.paths import Path
from content.published import Snapshot
from content.publishing import STATES, Publishable
from content.reviewing import Comment
from content.upkeep import Use
from notifications import seasons
from notifications.notices import Notice

P = TypeVar("P", bound=Publishable)
KINDS: dict[str, type[Publishable]] = {"lesson": Lesson, "path": Path}
staff = Blueprint("staff_desk", __name__, url_prefix="/v1/staff", description="Comments, previews, used in, aging, translations")


class CommentsQuery(Paging):
    language = Edition()
    open = ma.fields.Boolean(metadata={"description": "true: only threads that wait for an answer"})


class CommentIn(ma.Schema):
    language = Edition(metadata={"description": "the edition; a reply takes that of its thread"})
    field = ma.fields.String(validate=validate.Length(1, 40), metadata={"example": "body"})
    quote = ma.fields.String(validate=validate.Length(1, 500), metadata={"description": "the words that are meant"})
    text = ma.fields.String(required=True, validate=validate.Length(1, 2000))
    reply_to = ma.fields.String(validate=ID)

    @ma.validates_schema
    def whole(self, data: dict[str, Any], **kwargs: Any) -> None:
        """A first comment names its edition; a reply names neither that nor words of its own."""
        if "reply_to" not in data and "language" not in data:
            raise ma.ValidationError("Missing data for required field.", "language")
        for name in ("field", "quote"):
            if "reply_to" in data and name in data:
                raise ma.ValidationError("Unknown field.", name)


class CommentOut(ma.Schema):
    """A comment as staff see it."""

    id = ma.fields.String()
    by = ma.fields.String(metadata={"description": "id"})
    by_name = ma.fields.String(allow_none=True)
    at = ma.fields.String()
    language = ma.fields.String(metadata={"description": "edition"})
    field = ma.fields.String(allow_none=True)
    quote = ma.fields.String(allow_none=True)
    text = ma.fields.String()
    reply_to = ma.fields.String(allow_none=True, metadata={"description": "the thread's first comment; null in that one"})
    resolved_by = ma.fields.String(allow_none=True, metadata={"description": "id"})
    resolved_by_name = ma.fields.String(allow_none=True)
    resolved_at = ma.fields.String(allow_none=True)
    quote_found = ma.fields.Boolean(
        allow_none=True, metadata={"description": "whether its words still stand in the working copy; null without a quote"}
    )


class Comments(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(CommentOut))
    next_cursor = ma.fields.String(allow_none=True)
    open = ma.fields.Integer(metadata={"description": "threads that wait for an answer"})


class PreviewIn(ma.Schema):
    language = Edition(required=True)
    hours = ma.fields.Integer(load_default=24, validate=validate.Range(1, 168))


class PreviewOut(ma.Schema):
    address = ma.fields.String(metadata={"description": "path on this API's host; told once", "example": "/v1/previews/…"})
    expires_at = ma.fields.String()


class Revoked(ma.Schema):
    revoked = ma.fields.Integer(metadata={"description": "how many"})


class UseOut(ma.Schema):
    kind = ma.fields.String(metadata={"description": "lesson, path, check, season or notice"})
    key = ma.fields.String()
    published = ma.fields.Boolean(metadata={"description": "readers see it so; false: only in a working copy"})
    state = ma.fields.String(metadata={"description": "of a notice"})


class Uses(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(UseOut))
    hidden = ma.fields.Integer(metadata={"description": "drafts that are not the asker's to read"})


class MediaUses(Uses):
    versions = ma.fields.List(
        ma.fields.String(),
        metadata={
            "description": "published ones, old ones too: kind, key, edition, number",
            "example": ["lesson exam-week en 3"],
        },
    )


class Warned(ma.Schema):
    """What readers lose with what was withdrawn."""

    kind = ma.fields.String()
    key = ma.fields.String()
    messages = ma.fields.Nested(Messages)


def said(record: Publishable, comments: Sequence[Comment]) -> list[dict[str, Any]]:
    """Comments as staff see them, with the names of colleagues, who may not read each other's accounts."""
    names = people.names([who for one in comments for who in (one.created_by, one.resolved_by) if who])
    return [_said(record, one, names) for one in comments]


def _said(record: Publishable, comment: Comment, names: Mapping[str, str]) -> dict[str, Any]:
    content = record.content_of(comment.language) if comment.language in record.stands else {}
    found = reviewing.quoted(content, comment.field, comment.quote) if comment.quote else None
    return {
        "id": comment.id,
        "by": comment.created_by,
        "by_name": names.get(comment.created_by),
        "at": comment.created_at.isoformat(),
        **{name: getattr(comment, name) for name in ("language", "field", "quote", "text", "reply_to", "resolved_by")},
        "resolved_by_name": names.get(comment.resolved_by) if comment.resolved_by else None,
        "resolved_at": comment.resolved_at.isoformat() if comment.resolved_at else None,
        "quote_found": found,
    }


def add(blp: Blueprint, noun: str, cls: type[P]) -> None:
    """Register comments, previews and the cleaning away of drafts beside a kind's own routes."""
    path, name = f"/{noun}/<string:slug>", cls.NAME

    @blp.get(f"{path}/comments", endpoint=f"{name}_comments")
    @blp.arguments(CommentsQuery, location="query")
    @blp.response(200, Comments)
    def comments(query: dict[str, Any], slug: str) -> dict[str, Any]:
        """What colleagues said about the draft, thread by thread

        `open` counts the threads that wait; they block nothing.
        """
        record = own(cls, slug, "lesson.read")
        found = reviewing.comments(record, query.get("language", ""))
        if query.get("open"):
            waiting = {one.id for one in found if not one.reply_to and not one.resolved_at}
            found = [one for one in found if (one.reply_to or one.id) in waiting]
        places = {one.id: number for number, one in enumerate(found)}
        result = page(found, query.get("cursor"), query["limit"], lambda one: [places[one.id]])
        result["items"] = said(record, result["items"])
        return {**result, "open": reviewing.open_comments([record.id], query.get("language", "")).get(record.id, 0)}

    @blp.post(f"{path}/comments", endpoint=f"{name}_comment")
    @blp.arguments(CommentIn)
    @blp.alt_response(201, schema=CommentOut, description="The comment")
    def comment(payload: dict[str, Any], slug: str) -> Response:
        """Comment on an edition of the draft, or reply

        Whoever may read it may comment.
        """
        record = own(cls, slug, "lesson.read")
        rest = {key: payload.get(key, "") for key in ("field", "quote", "reply_to")}
        made = reviewing.comment(record, payload.get("language", ""), payload["text"], actor().id, **rest)
        response = jsonify(said(record, [made])[0])
        response.status_code = 201
        response.headers["Location"] = f"/v1/staff/{noun}/{slug}/comments"
        return response

    def closed(slug: str, comment_id: str, reopen: bool) -> dict[str, Any]:
        record = own(cls, slug, "lesson.read")
        mine = reviewing.find(record, comment_id).created_by == actor().id
        may = any(allowed(p, record.organisation, record.divisions) for p in ("lesson.write", "lesson.approve"))
        if not mine and not may:
            raise Forbidden()
        return said(record, [reviewing.resolve(record, comment_id, actor().id, reopen=reopen)])[0]

    @blp.post(f"{path}/comments/<string:comment_id>/resolve", endpoint=f"{name}_resolve")
    @blp.response(200, CommentOut)
    def resolve(slug: str, comment_id: str) -> dict[str, Any]:
        """Close a thread

        Its maker may, and whoever may write or approve the draft. Needs no If-Match: 409 when it is closed already.
        """
        return closed(slug, comment_id, False)

    @blp.post(f"{path}/comments/<string:comment_id>/reopen", endpoint=f"{name}_reopen")
    @blp.response(200, CommentOut)
    def reopen(slug: str, comment_id: str) -> dict[str, Any]:
        """Open a thread again"""
        return closed(slug, comment_id, True)

    @blp.post(f"{path}/preview", endpoint=f"{name}_preview")
    @blp.arguments(PreviewIn)
    @blp.alt_response(201, schema=PreviewOut, description="The address, told once")
    def preview(payload: dict[str, Any], slug: str) -> Response:
        """An address that shows the working copy to whoever has it, for some hours

        It ends with its time, when it is revoked, and when its maker's account or right ends.
        """
        record = own(cls, slug, "lesson.read")
        if not reviewing.may_show(actor(), record, settings().division):
            raise Forbidden()
        token, made = reviewing.preview(record, payload["language"], payload["hours"], actor().id)
        address = f"/v1/previews/{token}"
        response = jsonify({"address": address, "expires_at": made.expires_at.isoformat()})
        response.status_code = 201
        response.headers["Location"] = address
        return response

    @blp.delete(f"{path}/previews", endpoint=f"{name}_revoke")
    @blp.response(200, Revoked)
    def revoke(slug: str) -> dict[str, Any]:
        """End its previews

        All of them for whoever may write or approve the draft; for others their own.
        """
        record = own(cls, slug, "lesson.read")
        may = reviewing.may_show(actor(), record, settings().division)
        return {"revoked": reviewing.revoke(record, actor().id, own_only=not may)}

    @blp.delete(path, endpoint=f"{name}_discard")
    @blp.response(204)
    def discard(slug: str) -> None:
        """Delete a draft of which nothing was ever published

        Its comments and previews go with it. 409 once there is a version, and while a path or check leads to it. Needs If-Match.
        """
        revision = if_match()
        record = own(cls, slug, "lesson.write")
        if name == Lesson.NAME:
            unused(slug, [use for use in upkeep.uses_of_lesson(reader().current, slug) if use.kind != "lesson"])
        reviewing.discard(cls, record.id, actor().id, revision)


for _noun, _cls in (("lessons", Lesson), ("paths", Path)):
    add(staff, _noun, _cls)


# --- used in ---------------------------------------------------------------------------------------------------------


def told(uses: list[Use]) -> tuple[list[dict[str, Any]], int]:
    """The uses that the asker may know of, and how many others there are. Drafts of others are not his to know."""
    items = []
    for use in uses:
        permission = "check.read" if use.kind == "check" else "lesson.read"
        if use.published or allowed(permission, use.organisation, use.divisions):
            items.append({"kind": use.kind, "key": use.key, "published": use.published})
    return items, len(uses) - len(items)


def unused(slug: str, uses: list[Use]) -> None:
    """Raises `Conflict("in_use")` naming the uses that the asker may know of, and how many others there are."""
    named, hidden = told(uses)
    words = [f"{use['kind']} {use['key']}" for use in named] + ([f"{hidden} × 别的单位 of others"] if hidden else [])
    if words:
        raise Conflict("in_use", what=slug, used_in=", ".join(words))


def warnings(snapshot: Snapshot, record: Publishable) -> list[dict[str, Any]]:
    """What readers lose when nothing of a lesson is public any more: the published paths, checks and lessons that lead to it."""
    if record.NAME != Lesson.NAME or any(stand.version for stand in record.stands.values()):
        return []
    return [
        {
            "kind": kind,
            "key": key,
            "messages": {
                "zh-Hans": f"{kind} “{key}” 仍指向这一课，读者在那里将看不到它。",
                "en": f"{kind} “{key}” still leads to this lesson; readers no longer find it there.",
            },
        }
        for kind, key in sorted(upkeep.readers_of(snapshot, record.key))
    ]


@staff.get("/lessons/<string:slug>/used-in")
@staff.response(200, Uses)
def lesson_used_in(slug: str) -> dict[str, Any]:
    """Paths, checks, lessons, seasons and notices that lead to a lesson

    `hidden` counts drafts that are not the asker's to read.
    """
    own(Lesson, slug, "lesson.read")
    items, hidden = told(upkeep.uses_of_lesson(reader().current, slug))
    items += [
        {"kind": "season", "key": code, "published": True}
        for code, season in sorted(seasons.calendar().seasons.items())
        if slug in season.lessons
    ]
    for raw in Notice.rows().find({"lessons": slug}, {"divisions": 1, "state": 1, "listed": 1}).sort("_id", 1):
        if any(allowed("notice.read", "", [code]) for code in raw.get("divisions") or [settings().division]):
            items.append({"kind": "notice", "key": raw["_id"], "published": bool(raw["listed"]), "state": raw["state"]})
        else:
            hidden += 1
    return {"items": items, "hidden": hidden}


@staff.get("/media/<string:media_id>/used-in")
@staff.response(200, MediaUses)
def media_used_in(media_id: str) -> dict[str, Any]:
    """What shows a media file, in working copies and for readers

    `versions` are the published versions that name it, old ones too: while there is one the file stays.
    """
    found = media.find(media_id)
    if not media_readable(found):
        raise NotFound(what=media_id)
    if not found.sha256:
        return {"items": [], "hidden": 0, "versions": []}
    items, hidden = told(upkeep.uses_of_media(reader().current, found.sha256))
    return {"items": items, "hidden": hidden, "versions": upkeep.kept_versions(found.sha256)}


# --- what needs a hand -----------------------------------------------------------------------------------------------


class AgingQuery(Paging):
    before = ma.fields.Date(
        format="iso", metadata={"description": "local date; default: thirty days from today in the district's zone"}
    )


class AgedEdition(ma.Schema):
    language = ma.fields.String(metadata={"description": "edition"})
    title = ma.fields.String()


class Aged(ma.Schema):
    slug = ma.fields.String()
    due = ma.fields.String(metadata={"description": "local date"})
    planned = ma.fields.Boolean(metadata={"description": "whether someone set that date; else a year after its publication"})
    days_overdue = ma.fields.Integer(metadata={"description": "negative: still to come"})
    editions = ma.fields.List(ma.fields.Nested(AgedEdition), metadata={"description": "those that are due"})


class AgedPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Aged))
    next_cursor = ma.fields.String(allow_none=True)


@staff.get("/lessons/aging")
@staff.arguments(AgingQuery, location="query")
@staff.response(200, AgedPage)
def aging(query: dict[str, Any]) -> dict[str, Any]:
    """Published lessons to look at again, oldest first

    Those whose `review_due` comes until `before`; without one, those that were published a year before that.
    `days_overdue` is negative for what is still to come.
    """
    zone = settings().zone
    today = datetime.now(ZoneInfo(zone)).date()
    found = upkeep.aging(reader().current, query.get("before", today + timedelta(days=30)), zone)
    last = cursor_of(query, 2)

    def mine() -> Iterator[upkeep.Aging]:
        rest = [one for one in found if [one.due, one.slug] > last]
        for start in range(0, len(rest), 200):
            part = rest[start : start + 200]
            match = {"slug": {"$in": [one.slug for one in part]}}
            rows = {raw["slug"]: raw for raw in Lesson.rows().find(match, {"slug": 1, "organisation": 1, "divisions": 1})}
            for one in part:
                raw = rows.get(one.slug)
                if raw and allowed("lesson.read", raw.get("organisation", ""), raw.get("divisions", [])):
                    yield one

    def line(one: upkeep.Aging) -> dict[str, Any]:
        late = (today - date.fromisoformat(one.due)).days
        editions = [{"language": edition, "title": title} for edition, title in one.editions.items()]
        return {"slug": one.slug, "due": one.due, "planned": one.planned, "days_overdue": late, "editions": editions}

    return next_page(mine(), query["limit"], lambda one: [one.due, one.slug], line)


class StaleEdition(ma.Schema):
    language = ma.fields.String(metadata={"description": "edition"})
    made_from = ma.fields.String(metadata={"description": "edition"})
    state = ma.fields.String(validate=validate.OneOf(STATES), allow_none=True)
    reason = ma.fields.String(metadata={"description": "moved_on, rolled_back, withdrawn, source_missing or unknown"})
    since = ma.fields.String()
    versions_behind = ma.fields.Integer(allow_none=True, metadata={"description": "null unless it moved on"})
    made_from_version = ma.fields.String(allow_none=True)
    present_version = ma.fields.String(allow_none=True, metadata={"description": "of the source, that readers see"})
    compare = ma.fields.String(
        allow_none=True, metadata={"description": "path on this API's host; null where there is nothing to compare"}
    )


class Stale(ma.Schema):
    slug = ma.fields.String()
    since = ma.fields.String(metadata={"description": "when its first edition fell behind"})
    editions = ma.fields.List(ma.fields.Nested(StaleEdition))


class StalePage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Stale))
    next_cursor = ma.fields.String(allow_none=True)


@staff.get("/lessons/stale")
@staff.arguments(Paging, location="query")
@staff.response(200, StalePage)
def stale(query: dict[str, Any]) -> dict[str, Any]:
    """Translations and voices that are behind the text they were made from, oldest first

    A lesson a row, by when its first edition fell behind. `reason`: moved_on, rolled_back, withdrawn, source_missing, or unknown
    (no version was recorded). `compare` is the address of what changed in the source since.
    """
    after = moment_of(query)
    found = upkeep.stale(after) if after else upkeep.stale()

    def line(raw: dict[str, Any]) -> dict[str, Any]:
        editions = upkeep.behind(raw)
        for row in editions:
            row["since"] = row["since"].isoformat()
            row["compare"] = None
            if row["reason"] in {"moved_on", "rolled_back"}:
                versions = f"old={row['made_from_version']}&new={row['present_version']}"
                row["compare"] = f"/v1/staff/lessons/{raw['slug']}/versions?language={row['made_from']}&{versions}"
        return {"slug": raw["slug"], "since": raw["behind_since"].isoformat(), "editions": editions}

    def mine(raw: dict[str, Any]) -> bool:
        return allowed("lesson.read", raw.get("organisation", ""), raw.get("divisions", []))

    return next_page(filter(mine, found), query["limit"], lambda raw: [raw["behind_since"].isoformat(), raw["slug"]], line)


# --- recalls ---------------------------------------------------------------------------------------------------------


class RecallOut(ma.Schema):
    slug = ma.fields.String(metadata={"description": "of the self-check"})
    name = ma.fields.List(ma.fields.Nested(Word))
    at = ma.fields.String()
    by = ma.fields.String(metadata={"description": "id"})
    by_name = ma.fields.String(allow_none=True)
    note = ma.fields.String(metadata={"description": "why, in the words of who recalled it; may be empty"})
    published = ma.fields.Boolean(metadata={"description": "readers have it again"})
    paths = ma.fields.List(ma.fields.Nested(UseOut), metadata={"description": "that begin with it; nobody is asked it there"})
    seasons = ma.fields.List(ma.fields.String(), metadata={"description": "codes of seasons that name it"})
    lessons = ma.fields.List(ma.fields.String(), metadata={"description": "slugs of the lessons that it led to"})
    hidden = ma.fields.Integer(metadata={"description": "drafts of paths that are not the asker's to read"})


class RecallPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(RecallOut))
    next_cursor = ma.fields.String(allow_none=True)


def left_behind(snapshot: Snapshot, check: Check) -> dict[str, Any]:
    """What still leads to a recalled check, and which lessons it led to."""
    items, hidden = told(upkeep.uses_of_check(snapshot, check.slug))
    named = [code for code, season in sorted(seasons.calendar().seasons.items()) if check.slug in season.checks]
    return {"paths": items, "seasons": named, "lessons": list(check.lessons), "hidden": hidden}


@staff.get("/recalls")
@staff.arguments(Paging, location="query")
@staff.response(200, RecallPage)
def recalls(query: dict[str, Any]) -> dict[str, Any]:
    """Self-checks that were recalled, newest first: who, when, why, and what still leads to them

    Phones drop a recalled check at their next request or sync. One published again since stays in the list, as `published`.
    """
    mine = (one for one in upkeep.recalls(moment_of(query)) if allowed("check.read", one.check.organisation))
    result = next_page(mine, query["limit"], lambda one: [one.at.isoformat(), one.id], lambda one: one)
    names = people.names([one.by for one in result["items"]])

    def line(one: upkeep.Recall) -> dict[str, Any]:
        return {
            "slug": one.check.slug,
            "name": listed(one.check.values()["name"] or {}),
            "at": one.at.isoformat(),
            "by": one.by,
            "by_name": names.get(one.by),
            "note": one.note,
            "published": any(stand.version for stand in one.check.stands.values()),
            **left_behind(reader().current, one.check),
        }

    return {**result, "items": [line(one) for one in result["items"]]}

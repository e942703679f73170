"""Notices: the inbox and the topics a phone subscribes to; and the desk where notices are written.

No route takes a phone's address or token: the phone subscribes itself to the topics it is told, and the inbox holds every
notice whether or not a push arrives.
"""

from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed
from api.guard import Blueprint, created, if_match, moment_of, next_page, tagged
from api.shapes import Paging, Regexp, Tag, codes, reader, settings
from content import divisions, store
from content.failures import Forbidden, NotFound, Text, invalid
from content.vocabulary import AUDIENCES, SEASONS
from notifications import notices, topics
from notifications.notices import Notice

blp = Blueprint("notices", __name__, url_prefix="/v1", description="Inbox and push topics")
staff = Blueprint("staff_notices", __name__, url_prefix="/v1/staff", description="Write, approve, schedule, cancel notices")

DIVISION = Regexp("^[0-9]{6}$")
MOMENTS = validate.Range(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Segment(ma.Schema):
    """Who asks. What is left out excludes nothing: "" by a callable, which OpenAPI leaves out as no value a client may send."""

    division = ma.fields.String(load_default=str, validate=DIVISION, metadata={"example": "150603"})
    audience = ma.fields.String(load_default=str, validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = ma.fields.String(load_default="", validate=validate.Length(max=40), metadata={"example": "senior.final"})
    language = Tag(metadata={"example": "zh-Hans"})


class InboxQuery(Segment):
    since = ma.fields.String(
        load_default="0", validate=Regexp("^[0-9]{1,15}$"), metadata={"description": "`next_cursor` of the last answer"}
    )
    limit = ma.fields.Integer(load_default=50, validate=validate.Range(1, 100))


class TopicsQuery(Segment):
    audience = ma.fields.String(required=True, validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})


class InboxEntry(ma.Schema):
    """One notice in the reader's best language."""

    id = ma.fields.String()
    title = ma.fields.String()
    body = ma.fields.String()
    language = ma.fields.String()
    season = ma.fields.String(allow_none=True)
    lessons = ma.fields.List(ma.fields.String(), metadata={"description": "slugs"})
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String())
    urgent = ma.fields.Boolean()
    send_at = ma.fields.String()
    expires_at = ma.fields.String()


class Inbox(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(InboxEntry))
    withdrawn = ma.fields.List(ma.fields.String(), metadata={"description": "ids taken back since; the phone forgets them"})
    next_cursor = ma.fields.String(metadata={"description": "send it as `since` next time; always given"})


class Topics(ma.Schema):
    topics = ma.fields.List(ma.fields.String(), metadata={"example": ["d150603.parent.senior.final.zh-Hans"]})


def place(query: dict[str, Any]) -> str:
    """The division asked for; raises `Invalid` when there is none such."""
    code: str = query["division"] or settings().division
    if code not in {"", divisions.COUNTRY} and not divisions.known(code):
        raise invalid("division", "unknown_reference", value=code)
    return code


def preferred(query: dict[str, Any]) -> tuple[str, ...]:
    """The reader's languages, best first."""
    return (query["language"],) if "language" in query else front.wanted()


@blp.get("/notices")
@blp.arguments(InboxQuery, location="query")
@blp.alt_response(200, schema=Inbox, description="What was released after `since`, oldest first")
def index(query: dict[str, Any]) -> Response:
    """The inbox of a segment

    Everyone of a segment gets the same answer; nothing tells who reads.
    """
    items, withdrawn, cursor = notices.inbox(
        reader().current, store.now(), division=place(query), audience=query["audience"], stage=query["stage"],
        wanted=preferred(query), since=int(query["since"]), limit=query["limit"], last=settings().language,
    )  # fmt: skip
    front.keep(seconds=30, max_age=30)
    return jsonify({"items": items, "withdrawn": withdrawn, "next_cursor": str(cursor)})


@blp.get("/topics")
@blp.arguments(TopicsQuery, location="query")
@blp.alt_response(200, schema=Topics)
def push_topics(query: dict[str, Any]) -> Response:
    """The FCM topics a phone of this segment subscribes itself to

    Without a stage only notices for every stage arrive. A phone that changes its segment leaves the topics of the old one.
    """
    language = query.get("language") or settings().language
    front.keep()
    return jsonify({"topics": topics.for_phone(place(query), query["audience"], query["stage"], language)})


# --- staff -----------------------------------------------------------------------------------------------------------


class NoticeTextIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(required=True, validate=validate.Length(1, 100))
    body = ma.fields.String(required=True, validate=validate.Length(1, 1000))


class NoticeIn(ma.Schema):
    season = ma.fields.String(allow_none=True, validate=validate.OneOf(list(SEASONS)))
    divisions = ma.fields.List(ma.fields.String(validate=DIVISION), validate=validate.Length(max=200))
    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    texts = ma.fields.List(ma.fields.Nested(NoticeTextIn), validate=validate.Length(1, 20))
    lessons = ma.fields.List(ma.fields.String(validate=Regexp("^[a-z0-9-]{1,80}$")), validate=validate.Length(max=20))
    send_at = ma.fields.AwareDateTime(allow_none=True, validate=MOMENTS)
    expires_at = ma.fields.AwareDateTime(validate=MOMENTS)
    urgent = ma.fields.Boolean(metadata={"description": "passes quiet hours"})


class NewNotice(NoticeIn):
    audiences = ma.fields.List(
        ma.fields.String(validate=validate.OneOf(list(AUDIENCES))), required=True, validate=validate.Length(1, 10)
    )
    texts = ma.fields.List(ma.fields.Nested(NoticeTextIn), required=True, validate=validate.Length(1, 20))


class NoticeScheduleIn(ma.Schema):
    send_at = ma.fields.AwareDateTime(
        allow_none=True,
        load_default=None,
        validate=MOMENTS,
        metadata={"description": "left out: as the draft says, else at once"},
    )


class NoticesQuery(Paging):
    state = ma.fields.String(load_default=str, validate=validate.OneOf(notices.STATES))


def fields_of(payload: dict[str, Any]) -> dict[str, Any]:
    """A body as the verb's plain values."""
    fields = dict(payload)
    if "texts" in fields:
        tags = [text["language"] for text in fields["texts"]]
        if len(set(tags)) < len(tags):
            raise invalid("texts", "bad_format", reason=Text("每种语言只写一次", "write each language once"))
        fields["texts"] = {text["language"]: {"title": text["title"], "body": text["body"]} for text in fields["texts"]}
    return fields


def shown(notice: Notice) -> dict[str, Any]:
    """A notice as staff see it, with the topics it goes to and what came of each."""
    moments = ("send_at", "expires_at", "first_try", "next_try", "lease_until", "created_at", "updated_at")
    return {
        "id": notice.id,
        "state": notice.state,
        "reason": notice.reason,
        "revision": notice.revision,
        "season": notice.season,
        "divisions": list(notice.divisions),
        "audiences": list(notice.audiences),
        "stages": list(notice.stages),
        "texts": [{"language": tag, **dict(text)} for tag, text in sorted(notice.texts.items())],
        "lessons": list(notice.lessons),
        "urgent": notice.urgent,
        "created_by": notice.created_by,
        "authors": list(notice.authors),
        "approved_by": notice.approved_by,
        "in_inbox": notice.listed,
        "attempts": notice.attempts,
        **{name: notices.iso(getattr(notice, name)) for name in moments},
        "topics": notice.topics(),
        "results": [
            {"topic": r.topic, "outcome": r.outcome, "detail": r.detail, "at": notices.iso(r.at)} for r in notice.results
        ],
    }


def readable(notice: Notice) -> bool:
    """Whether the asker may read what goes to any of its divisions; what he does to it he must be allowed in all of them."""
    return any(allowed("notice.read", "", [code]) for code in notice.divisions or [settings().division])


def own(key: str, permission: str) -> Notice:
    """The notice, when the asker may do this to it. One that he may not even read is not there (404)."""
    notice = notices.get(key)
    if not readable(notice):
        raise NotFound(what=key)
    if permission != "notice.read" and not allowed(permission, "", notice.divisions):
        raise Forbidden()
    return notice


@staff.get("/notices")
@staff.arguments(NoticesQuery, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Notices the asker may read, newest first"""
    found = filter(readable, notices.latest(query["state"], moment_of(query)))
    return next_page(found, query["limit"], lambda notice: [notice.created_at.isoformat(), notice.id], shown)


@staff.post("/notices")
@staff.arguments(NewNotice)
@staff.alt_response(201, description="The draft")
def create(payload: dict[str, Any]) -> Response:
    """Draft a notice"""
    if not allowed("notice.write", "", payload.get("divisions", [])):
        raise Forbidden()
    notice = notices.draft(fields_of(payload), actor().id, settings(), store.now())
    return created(shown(notice), notice.revision, f"/v1/staff/notices/{notice.id}")


@staff.get("/notices/<string:key>")
@staff.alt_response(200, description="The notice; ETag is its revision")
def show_staff(key: str) -> Response:
    """One notice, with its topics and what came of each"""
    notice = own(key, "notice.read")
    return tagged(shown(notice), notice.revision)


@staff.patch("/notices/<string:key>")
@staff.arguments(NoticeIn)
@staff.alt_response(200, description="The changed draft")
def edit(payload: dict[str, Any], key: str) -> Response:
    """Change a draft

    Whoever changes it becomes one of its authors and may not approve it. Needs If-Match.
    """
    revision = if_match()
    own(key, "notice.write")
    if "divisions" in payload and not allowed("notice.write", "", payload["divisions"]):
        raise Forbidden()
    notice = notices.edit(key, fields_of(payload), actor().id, settings(), store.now(), revision)
    return tagged(shown(notice), notice.revision)


@staff.post("/notices/<string:key>/approve")
@staff.alt_response(200, description="Approved")
def approve(key: str) -> Response:
    """Approve a draft as a second person; always needed. Needs If-Match."""
    revision = if_match()
    own(key, "notice.approve")
    notice = notices.approve(key, actor().id, store.now(), revision)
    return tagged(shown(notice), notice.revision)


@staff.post("/notices/<string:key>/schedule")
@staff.arguments(NoticeScheduleIn)
@staff.alt_response(200, description="Scheduled")
def schedule(payload: dict[str, Any], key: str) -> Response:
    """Give an approved notice its moment

    A notice of a season waits for the season's confirmed local date (409 `unconfirmed_date`). Needs If-Match.
    """
    revision = if_match()
    own(key, "notice.write")
    notice = notices.schedule(key, actor().id, settings(), store.now(), payload["send_at"], revision)
    return tagged(shown(notice), notice.revision)


@staff.post("/notices/<string:key>/cancel")
@staff.alt_response(200, description="Cancelled")
def cancel(key: str) -> Response:
    """Stop a notice at once and take it out of the inbox. Needs If-Match."""
    revision = if_match()
    notice = own(key, "notice.read")
    if not allowed("notice.write", "", notice.divisions) and not allowed("notice.approve", "", notice.divisions):
        raise Forbidden()
    notice = notices.cancel(key, actor().id, revision)
    reader().refresh()
    return tagged(shown(notice), notice.revision)

"""Notices as families get them: the inbox, and the topics to which a phone subscribes itself.

No route takes a phone's address or token: the phone subscribes itself to the topics it is told, and the inbox holds every
notice whether or not a push arrives. Push is off until a parent turns it on.
"""

from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.guard import Blueprint
from api.shapes import DIVISION, Regexp, Tag, reader, settings
from api.support import Card
from content import divisions, helpcard, languages, store
from content.failures import invalid
from content.published import Snapshot
from content.vocabulary import AUDIENCES
from notifications import inbox, topics
from notifications.notices import DEEDS, KINDS

blp = Blueprint("notices", __name__, url_prefix="/v1", description="Inbox and push topics")

# What a parent reads before turning push on: what leaves the phone, and the country.
LEAVES = {
    "zh-Hans": "打开推送后，手机会向谷歌（安卓）或苹果（iPhone）登记几个话题，例如“150603 家长 高三 简体中文”。"
    "它们在境外的服务器会知道这台手机订了哪些话题、何时收到提醒。提醒上平时只有“心桥有一条新消息”；遇到紧急情况，会写“有一条重要消息”，"
    "并附上 12356。没有正文、姓名或孩子的情况，只带着这条消息的编号，凭编号能查到公开的正文。"
    "读完一课或做完一次自评后，应用可以再登记一个话题，免得再提醒您，谷歌或苹果也会知道这台手机登记了它。"
    "我们不知道您的手机是哪一台。不打开推送，打开应用同样能看到全部消息；随时可以关闭。",
    "en": "With push on, the phone registers a few topics with Google (Android) or Apple (iPhone), such as “150603, parents, "
    "last year of senior high, Chinese”. Their servers abroad learn which topics this phone takes and when something arrives. "
    "The push usually says only “A new message in Xinqiao”; in an emergency it says that there is an important message, and "
    "names the line 12356. It holds no text, no name, nothing about a child, only the message’s number, which leads to its "
    "public text. After a lesson or a self-check the app may register one more topic, so that you are not reminded again; "
    "Google or Apple then learn that this phone has joined it. We do not know which phone is yours. Without push everything is "
    "in the app just the same, and it can be turned off at any time.",
}


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


class DoneWhen(ma.Schema):
    """What the reader does, whereupon the phone hides the notice and subscribes to `done_topic`."""

    kind = ma.fields.String(required=True, validate=validate.OneOf(list(DEEDS)), metadata={"enum": list(DEEDS)})
    slug = ma.fields.String(validate=Regexp("^[a-z0-9-]{1,80}$"), metadata={"description": "of the lesson or the check"})


class InboxEntry(ma.Schema):
    """One notice in the reader's best language."""

    id = ma.fields.String()
    kind = ma.fields.String(metadata={"enum": list(KINDS)})
    title = ma.fields.String()
    body = ma.fields.String()
    language = ma.fields.String()
    season = ma.fields.String(allow_none=True)
    campaign = ma.fields.String(allow_none=True, metadata={"example": "gaokao.2027"})
    done_when = ma.fields.Nested(DoneWhen, allow_none=True)
    done_topic = ma.fields.String(
        allow_none=True,
        metadata={"description": "the FCM topic to join once it is done: later pushes of the campaign leave it out"},
    )
    offices = ma.fields.List(ma.fields.String(), metadata={"description": "of an emergency notice: who wrote and approved it"})
    lessons = ma.fields.List(ma.fields.String(), metadata={"description": "slugs"})
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String())
    urgent = ma.fields.Boolean()
    send_at = ma.fields.String()
    expires_at = ma.fields.String()


class Inbox(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(InboxEntry))
    help = ma.fields.Nested(Card, allow_none=True, metadata={"description": "beside an emergency notice; else null"})
    withdrawn = ma.fields.List(ma.fields.String(), metadata={"description": "ids taken back since; the phone forgets them"})
    next_cursor = ma.fields.String(metadata={"description": "send it as `since` next time; always given"})


class Topics(ma.Schema):
    topics = ma.fields.List(ma.fields.String(), metadata={"example": ["d150603.parent.senior.final.zh-Hans"]})
    language = ma.fields.String(metadata={"description": "of the topics: the nearest to the reader's in which pushes leave"})
    what_leaves = ma.fields.String(metadata={"description": "to be read before push is turned on: what leaves the country"})


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

    Everyone of a segment gets the same answer; nothing tells who reads. The lock screen shows none of it: "心桥有一条新消息".
    """
    snapshot, now, where, wanted = reader().current, store.now(), place(query), preferred(query)
    items, withdrawn, cursor = inbox.read(
        snapshot, now, division=where, audience=query["audience"], stage=query["stage"],
        wanted=wanted, since=int(query["since"]), limit=query["limit"], last=settings().language,
    )  # fmt: skip
    language = languages.pick(("zh-Hans", "en"), wanted)
    help_ = helpcard.card(snapshot, where, now, language) if any(one["kind"] == "emergency" for one in items) else None
    front.keep(seconds=30, max_age=30)
    return jsonify({"items": items, "help": help_, "withdrawn": withdrawn, "next_cursor": str(cursor)})


def served(snapshot: Snapshot) -> list[str]:
    """The languages in which phones can be subscribed; the same as `notices.push_languages` finds. Computed once a snapshot."""
    known = snapshot.memo("push")
    if "languages" not in known:
        editions = {language for by_language in snapshot.entries("lesson").values() for language in by_language}
        known["languages"] = sorted({settings().language, *(languages.parts(one)[0] for one in editions)})
    found: list[str] = known["languages"]
    return found


@blp.get("/topics")
@blp.arguments(TopicsQuery, location="query")
@blp.alt_response(200, schema=Topics)
def push_topics(query: dict[str, Any]) -> Response:
    """The FCM topics a phone of this segment subscribes itself to

    Without a stage only notices for every stage arrive. A family with two children asks for each and subscribes to all: one
    notice still rings once. A phone that changes its segment leaves the topics of the old one, and asks again now and then.
    """
    wanted = preferred(query)
    language = languages.pick(served(reader().current), wanted, settings().language)
    found = topics.for_phone(place(query), query["audience"], query["stage"], language)
    leaves = LEAVES[languages.pick(LEAVES, wanted)]
    front.keep()
    return jsonify({"topics": found, "language": language, "what_leaves": leaves})

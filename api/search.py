"""Search over published lessons and paths.

A question can say more than an answer does. It is stored nowhere, logged nowhere (hourly counts only) and kept by no cache, and
when its words show risk the help card comes with the answer, with an empty one and with a failure too.
"""

from typing import Any

import marshmallow as ma
from flask import Response, current_app, jsonify
from marshmallow import validate

from api import beside, front, paths
from api.guard import Blueprint, make_cursor, open_cursor
from api.lessons import Both, Brief, CatalogueQuery
from api.shapes import reader, settings
from api.support import Card
from content import languages, search
from content.failures import FieldError

blp = Blueprint("search", __name__, url_prefix="/v1", description="Search over lessons and paths")

MOST = 100  # characters of a question
CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


class Question(ma.fields.String):
    """Words, cleaned: NFC, no control characters, 1 to MOST characters."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = languages.clean(super()._deserialize(value, attr, data, **kwargs).translate(CONTROL))
        if not 1 <= len(text) <= MOST:
            raise ma.ValidationError([FieldError("", "out_of_range", {"reason": f"1–{MOST}"})])
        return text


class SearchQuery(CatalogueQuery):
    q = Question(required=True, metadata={"description": f"words, up to {MOST} characters; no operators", "example": "睡不着"})
    limit = ma.fields.Integer(load_default=20, validate=validate.Range(1, 50))


class Hit(Brief):
    """What was found: a lesson or a path, as in its catalogue."""

    type = ma.fields.String(
        metadata={
            "description": "lesson or path. A path has pace, length and begins_with, and of the others no try_this, minutes, "
            "kind, seasons, voice, voices, media and help"
        }
    )
    pace = ma.fields.Nested(paths.Pace, metadata={"description": "of a path"})
    length = ma.fields.Integer(metadata={"description": "of a path: how many steps"})
    begins_with = ma.fields.Nested(paths.BeginsWith, allow_none=True, metadata={"description": "of a path"})
    title_marked = ma.fields.String(metadata={"description": "escaped HTML with <mark>"})
    excerpt_marked = ma.fields.String(metadata={"description": "escaped HTML with <mark>: about 100 characters"})


class Suggestion(ma.Schema):
    topic = ma.fields.String()
    labels = ma.fields.Nested(Both)


class Answer(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Hit))
    next_cursor = ma.fields.String(allow_none=True)
    help = ma.fields.Nested(
        Card, allow_none=True, metadata={"description": "show it first; null when nothing in `q` asks for it"}
    )
    complete = ma.fields.Boolean(metadata={"description": "false in the first seconds of a process: not all is indexed yet"})
    suggestions = ma.fields.List(ma.fields.Nested(Suggestion), metadata={"description": "topics, when nothing was found"})


@blp.get("/search")
@blp.arguments(SearchQuery, location="query")
@blp.alt_response(200, schema=Answer, description="What was found, best first")
def index(query: dict[str, Any]) -> Response:
    """Search lessons and paths

    Chinese (Traditional finds Simplified), Mongolian in both scripts, English; words that mean the same are found too. The
    filters are the catalogue's. Each lesson once, in the reader's best edition of those that match. When the words show
    that someone is in danger, is beaten, bullied or abused, `help` is the help card and what is about getting help comes first.
    """
    snapshot, asked = reader().current, search.asked(query["q"])
    found = search.search(
        current_app.extensions["index"],
        snapshot,
        asked,
        front.wanted(),
        **{k: query.get(k) for k in ("audience", "stage", "topic", "kind", "season", "division", "language")},
        last=settings().language,
        after=open_cursor(query["cursor"]) if query.get("cursor") else (),
        limit=query["limit"],
    )
    front.pack()
    return jsonify(
        {
            "items": found.items,
            "next_cursor": make_cursor(found.next) if found.next else None,
            "help": beside.card(query.get("division")) if asked.signs else None,
            "complete": current_app.extensions["index"].complete,
            "suggestions": [] if found.items or query.get("cursor") else search.suggestions(snapshot),
        }
    )

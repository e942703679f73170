"""The staff's moves of whatever is published per edition: submit, send back, approve, publish, withdraw, roll back, versions.

`add` puts the same seven routes beside a kind's own ones, so that lessons and paths go the same way in the same words.
"""

from collections.abc import Callable
from types import new_class
from typing import Any, TypeVar

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import desk
from api.auth import actor, own
from api.guard import Blueprint, if_match, tagged
from api.shapes import Edition, Moment, Regexp, reader, settings
from content import publishing, reviewing, staff
from content.publishing import Publishable

P = TypeVar("P", bound=Publishable)


NUMBER = "how many versions of this edition had been published with it"


class VersionLine(ma.Schema):
    version = ma.fields.String(metadata={"description": "its name: SHA-256 of its content"})
    number = ma.fields.Integer(metadata={"description": NUMBER})
    at = ma.fields.String()
    by = ma.fields.String(metadata={"description": "id; `system` is the starter library and the clock"})
    by_name = ma.fields.String(allow_none=True, metadata={"description": "null: no person"})


class Change(ma.Schema):
    field = ma.fields.String()
    old = ma.fields.Raw(allow_none=True)
    new = ma.fields.Raw(allow_none=True)
    diff = ma.fields.List(
        ma.fields.String(), allow_none=True, metadata={"description": "lines of a unified diff; a last “…”: it goes on"}
    )


class Versions(ma.Schema):
    """The list, or with `old` the comparison."""

    items = ma.fields.List(ma.fields.Nested(VersionLine), metadata={"description": "without `old`: newest first"})
    changes = ma.fields.List(ma.fields.Nested(Change), metadata={"description": "with `old`"})


OPEN = ma.fields.Integer(metadata={"description": "threads on this edition that wait for an answer"})
WARNINGS = ma.fields.List(ma.fields.Nested(desk.Warned), metadata={"description": "what still leads to it"})


def wider(schema: type[ma.Schema], name: str, **fields: ma.fields.Field[Any]) -> type[ma.Schema]:
    """A schema with more fields, named in the document after the file of the first."""
    return new_class(name, (schema,), exec_body=lambda body: body.update({"__module__": schema.__module__, **fields}))


class Move(ma.Schema):
    language = Edition(required=True)
    note = ma.fields.String(load_default="", validate=validate.Length(max=1000))


class SendBackIn(Move):
    note = ma.fields.String(
        required=True, validate=validate.Length(1, 1000), metadata={"description": "what the author is to do"}
    )


class PublishIn(Move):
    at = Moment(allow_none=True, load_default=None)
    expires_at = Moment(allow_none=True, load_default=None)


class RollBackIn(Move):
    version = ma.fields.String(required=True, validate=Regexp("^[0-9a-f]{64}$"))


class VersionsQuery(ma.Schema):
    language = Edition(required=True)
    old = ma.fields.String(validate=Regexp("^[0-9a-f]{64}$"))
    new = ma.fields.String(
        validate=Regexp("^[0-9a-f]{64}$"), metadata={"description": "without it, `old` is compared with the working copy"}
    )

    @ma.validates_schema
    def whole(self, data: dict[str, Any], **kwargs: Any) -> None:
        """`new` alone says nothing."""
        if "new" in data and "old" not in data:
            raise ma.ValidationError("Missing data for required field.", "old")


def add(
    blp: Blueprint,
    path: str,
    cls: type[P],
    shown: Callable[[P], dict[str, Any]],
    schema: type[ma.Schema],
) -> None:
    """Register the moves under `path` ("/lessons/<string:slug>"). `shown` gives what staff see of a record, as `schema`
    describes it. Permissions are those of lessons, whatever the kind."""

    def answer(record: P, **more: Any) -> Response:
        return tagged({**shown(record), **more}, record.revision)

    @blp.post(f"{path}/submit")
    @blp.arguments(Move)
    @blp.alt_response(200, schema=schema, description="In review")
    def submit(payload: dict[str, Any], slug: str) -> Response:
        """Send one edition to review"""
        record = own(cls, slug, "lesson.write")
        return answer(publishing.submit(cls, record.id, payload["language"], actor().id, if_match()))

    @blp.post(f"{path}/send-back")
    @blp.arguments(SendBackIn)
    @blp.alt_response(200, schema=schema, description="Draft again")
    def send_back(payload: dict[str, Any], slug: str) -> Response:
        """Send one edition back to its author with a word"""
        record = own(cls, slug, "lesson.approve")
        return answer(publishing.send_back(cls, record.id, payload["language"], actor().id, payload["note"], if_match()))

    @blp.post(f"{path}/approve")
    @blp.arguments(Move)
    @blp.alt_response(200, schema=wider(schema, "Approved", open_comments=OPEN), description="Approved")
    def approve(payload: dict[str, Any], slug: str) -> Response:
        """Approve one edition as a second person

        `open_comments` says how many comments on it wait for an answer; they block nothing.
        """
        record, second = own(cls, slug, "lesson.approve"), settings().second_person
        language = payload["language"]
        record = publishing.approve(cls, record.id, language, actor().id, if_match(), second_person=second)
        return answer(record, open_comments=reviewing.open_comments([record.id], language).get(record.id, 0))

    @blp.post(f"{path}/publish")
    @blp.arguments(PublishIn)
    @blp.alt_response(200, schema=schema, description="Published, or waiting for `at`")
    def publish(payload: dict[str, Any], slug: str) -> Response:
        """Publish one approved edition, now or at a moment

        No other is touched. Until `at` it stays `approved` with `publish_at`; send-back cancels that. A time without an offset,
        or a date, is meant in the district's zone; the answer says both (`publish_at`, `publish_at_local`).
        """
        record = own(cls, slug, "lesson.publish")
        times = {name: payload[name] for name in ("at", "expires_at")}
        record = publishing.publish(cls, record.id, payload["language"], actor().id, if_match(), **times)
        reader().refresh()
        return answer(record)

    @blp.post(f"{path}/withdraw")
    @blp.arguments(Move)
    @blp.alt_response(200, schema=wider(schema, "Withdrawn", warnings=WARNINGS), description="Withdrawn")
    def withdraw(payload: dict[str, Any], slug: str) -> Response:
        """Take one edition away from readers

        Never blocked. `warnings` names the published paths, checks and lessons that lead to a lesson of which nothing is left.
        """
        record = own(cls, slug, "lesson.publish")
        record = publishing.withdraw(cls, record.id, payload["language"], actor().id, if_match(), note=payload["note"])
        reader().refresh()
        return answer(record, warnings=desk.warnings(reader().current, record))

    @blp.post(f"{path}/roll-back")
    @blp.arguments(RollBackIn)
    @blp.alt_response(200, schema=schema, description="The old version is public again")
    def roll_back(payload: dict[str, Any], slug: str) -> Response:
        """Publish an old version again"""
        record = own(cls, slug, "lesson.publish")
        record = publishing.roll_back(cls, record.id, payload["language"], payload["version"], actor().id, if_match())
        reader().refresh()
        return answer(record)

    @blp.get(f"{path}/versions")
    @blp.arguments(VersionsQuery, location="query")
    @blp.alt_response(200, schema=Versions)
    def versions(query: dict[str, Any], slug: str) -> Response:
        """Published versions of one edition, newest first; or what differs between two

        With `old` and `new`, or `old` alone and the working copy: each field before and after, long texts also as the lines of
        a unified `diff` (null for what is short, or too long to compare).
        """
        record = own(cls, slug, "lesson.read")
        if "old" in query:
            changes = publishing.compare(cls, record.key, query["language"], query["old"], query.get("new"))
            diff = publishing.line_diff
            return jsonify({"changes": [{"field": k, "old": a, "new": b, "diff": diff(a, b)} for k, (a, b) in changes.items()]})
        rows = publishing.versions(cls, record.key, query["language"])
        names = staff.names([v.by for v in rows])
        items = [
            {"version": v.id, "number": v.number, "at": v.at.isoformat(), "by": v.by, "by_name": names.get(v.by)} for v in rows
        ]
        return jsonify({"items": items})

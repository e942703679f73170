"""What a phone may add to the district's sums, if its owner wants to: never who, never an answer, never a time.

Each is optional, apart from scoring, and counted once: the phone makes `nonce` (the local day and 32 random hex digits) and
sends the same one again when no answer came. It is taken on the day that it names. A phone drops it afterwards and sends no other
in its place. Sums of a week are kept sealed and leave only as released tables without small cells.
"""

from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, make_response
from marshmallow import validate

from api.guard import Blueprint
from api.shapes import SLUG, Regexp, reader, settings
from content import catalogue, checks, counting, menu, rounds, store
from content.failures import Conflict, FieldError, Invalid, NotFound, invalid
from content.published import Snapshot
from content.vocabulary import STAGES

blp = Blueprint("contributions", __name__, url_prefix="/v1", description="Add to the district's sums, anonymously and by choice")


class Anonymous(ma.Schema):
    """What every contribution has."""

    nonce = ma.fields.String(
        required=True,
        validate=validate.Length(1, 80),
        metadata={"description": "today's local date and 32 random hex digits", "example": f"20261123-{'5f' * 16}"},
    )
    division = ma.fields.String(
        validate=Regexp("^[0-9]{6}$"), metadata={"description": "a county; may be left out", "example": "150603"}
    )

    class Meta:
        unknown = ma.RAISE


class Staged(Anonymous):
    """With the stage of schooling."""

    stage = ma.fields.String(
        validate=validate.OneOf(list(STAGES)), metadata={"description": "may be left out", "example": "junior"}
    )


class BandIn(ma.Schema):
    scale = ma.fields.String(required=True, validate=validate.Length(1, 80))
    band = ma.fields.String(allow_none=True, load_default=None, validate=validate.Length(1, 80))


class CoreIn(ma.Schema):
    """Of the core questions of a quiz."""

    correct = ma.fields.Integer(required=True, strict=True, validate=validate.Range(0, 500))
    answered = ma.fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(0, 500),
        metadata={"description": "checked against `correct` and not kept"},
    )


class ContributeIn(Staged):
    version = ma.fields.String(
        required=True, validate=Regexp("^[0-9a-f]{64}$"), metadata={"description": "`version` of the definition answered"}
    )
    bands = ma.fields.List(
        ma.fields.Nested(BandIn),
        load_default=list,
        validate=validate.Length(max=50),
        metadata={
            "description": "of each scale its band as scored; null or left out: none. Of scales over the same items only one is "
            "counted, the total first; the others are checked and dropped"
        },
    )
    core = ma.fields.Nested(CoreIn, metadata={"description": "of a check whose purpose is `knowledge`, in place of bands"})
    code = ma.fields.String(validate=validate.Length(1, 80), metadata={"description": "one-time code of a sampled round"})


class CheckInIn(Staged):
    what = ma.fields.String(required=True, validate=validate.OneOf([*menu.HABITS, "lesson"]))
    lesson = ma.fields.String(validate=SLUG, metadata={"description": "the lesson's slug, when that is `what`"})
    answer = ma.fields.String(required=True, validate=validate.OneOf(menu.DONE))


class ReturnIn(Anonymous):
    bucket = ma.fields.Integer(
        required=True,
        strict=True,
        validate=validate.OneOf(menu.AGES),
        metadata={"description": "age of the installation in days: 0, 1-6 (1), 7-29 (7), 30-89 (30), 90 and more (90)"},
    )


class NoticeCountIn(Anonymous):
    what = ma.fields.String(
        required=True,
        validate=validate.OneOf(menu.NOTICE),
        metadata={"description": "opened in the inbox; or done what its `done_when` says", "example": "opened"},
    )


class CountedOut(ma.Schema):
    counted = ma.fields.Boolean(metadata={"description": "false: this nonce was counted before"})


def counted(nonce: str, contribution: menu.Contribution, code: str | None = None) -> Response:
    """Count it and say whether this was the first time."""
    first = counting.count(settings(), nonce, contribution, code)
    return make_response(jsonify({"counted": first}), 201 if first else 200)


@blp.post("/checks/<string:slug>/contribute")
@blp.arguments(ContributeIn)
@blp.alt_response(201, schema=CountedOut, description="Counted now")
@blp.alt_response(200, schema=CountedOut, description="Counted before")
def contribute(payload: dict[str, Any], slug: str) -> Response:
    """Add a self-check's bands

    Only the band of each scale as it was scored, never an answer. Of a quiz, how many core answers were right. The help card
    comes with every error. An answer to an older version is refused as `old_version` (409).
    """
    item, definition = checks.published_check(reader().current, slug)
    if payload["version"] != definition.version:
        raise Conflict("old_version")
    register = (item.content or {})["register"]
    place = payload.get("division"), payload.get("stage")
    code = payload.get("code")
    if register["purpose"] != "knowledge":
        if "core" in payload or code:
            raise Invalid([FieldError(name, "unknown_field") for name in ("core", "code") if name in payload])
        told = {row["scale"]: row["band"] for row in payload["bands"]}
        if len(told) != len(payload["bands"]):
            raise invalid("bands", "exists", what="scale")
        return counted(payload["nonce"], menu.of_check(settings(), definition, register["stages"], told, *place))
    if payload["bands"]:
        raise invalid("bands", "unknown_field")
    if "core" not in payload:
        raise invalid("core", "required")
    core = payload["core"]["correct"], payload["core"]["answered"]
    found = menu.of_quiz(settings(), definition, register["stages"], *core, *place)
    if code is None:
        return counted(payload["nonce"], found)
    chosen = rounds.lookup(settings(), code)
    if chosen is None and counting.counted(settings(), payload["nonce"]):
        return jsonify({"counted": False})  # the code was used by this very contribution, whose answer was lost
    if chosen is None or chosen.slug != slug:
        raise NotFound("unknown_code")
    if chosen.version != definition.version:
        raise Conflict("old_version")
    sampled = menu.of_round(chosen.id, chosen.division, chosen.groups, found)
    return counted(payload["nonce"], sampled, rounds.read(code))


@blp.post("/check-ins")
@blp.arguments(CheckInIn)
@blp.alt_response(201, schema=CountedOut, description="Counted now")
@blp.alt_response(200, schema=CountedOut, description="Counted before")
def check_in(payload: dict[str, Any]) -> Response:
    """Add whether it was done

    Fifteen minutes of talk, an hour of sport, or the day after a lesson its small thing to try.
    """
    what = payload["what"]
    if (what == "lesson") != ("lesson" in payload):
        raise invalid("lesson", "required" if what == "lesson" else "unknown_field")
    if what == "lesson":
        if not asks(reader().current, payload["lesson"]):
            raise invalid("lesson", "unknown_reference", value=payload["lesson"])
        what = f"lesson:{payload['lesson']}"
    told = menu.of_habit(settings(), what, payload["answer"], payload.get("division"), payload.get("stage"))
    return counted(payload["nonce"], told)


def asks(snapshot: Snapshot, slug: str) -> bool:
    """Whether a lesson is public in some edition that asks about itself the next day."""
    now = store.now()
    items = snapshot.get("lesson", slug).values()
    return any(item.content and item.content["check_in"] and catalogue.shown(item, now) for item in items)


@blp.post("/returns")
@blp.arguments(ReturnIn)
@blp.alt_response(201, schema=CountedOut, description="Counted now")
@blp.alt_response(200, schema=CountedOut, description="Counted before")
def come_back(payload: dict[str, Any]) -> Response:
    """Add that a phone came back

    Said once, the first time the app is opened in an age bucket of its installation: a bucket's count over that of bucket 0 is
    the share that came back. No phone is told from another.
    """
    return counted(payload["nonce"], menu.of_return(settings(), payload["bucket"], payload.get("division")))


@blp.post("/notices/<string:key>/counts")
@blp.arguments(NoticeCountIn)
@blp.alt_response(201, schema=CountedOut, description="Counted now")
@blp.alt_response(200, schema=CountedOut, description="Counted before")
def count_notice(payload: dict[str, Any], key: str) -> Response:
    """Add that a notice was opened, or acted upon

    Each once a phone and notice, with a nonce of its own, and only if its owner wants to: no push and no inbox tells who reads.
    Of a notice that does not stand in the inbox (any more) there is nothing to count.
    """
    if not stands(reader().current, key):
        raise NotFound(what=key)
    return counted(payload["nonce"], menu.of_notice(settings(), key, payload["what"], payload.get("division")))


def stands(snapshot: Snapshot, key: str) -> bool:
    """Whether a notice is in the inbox in some language."""
    now = store.now()
    found = (item.content for item in snapshot.get("notice", key).values())
    return any(content and datetime.fromisoformat(content["expires_at"]) > now for content in found)

"""Demand lists and task lists (需求清单、任务清单): what is needed, who seconds it, and what is offered in answer.

Both lists come from the published set and are read while the database is away. `api.demanddesk` is where staff write them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, make_response, request
from marshmallow import validate

from api import front, guard
from api.guard import Blueprint, page
from api.shapes import DIVISION, Paging, StageField, near, reader, settings, text
from content import demands, suggestions
from content.published import ANY, Snapshot
from content.vocabulary import AUDIENCES, TIMES, TOPICS, Stage

blp = Blueprint("demands", __name__, url_prefix="/v1", description="Demand lists and task lists")

ID = validate.Length(1, 64)
NONCE = {"description": "today's local date and 32 random hex digits", "example": f"20261123-{'5f' * 16}"}
ABOUT_TIME = {"description": "local date; empty: any time"}


# --- what readers get ------------------------------------------------------------------------------------------------


class ListQuery(Paging):
    division = ma.fields.String(validate=DIVISION, metadata={"example": "150603"})
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)))
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)))
    stage = StageField()


class DemandsQuery(ListQuery):
    state = ma.fields.String(validate=validate.OneOf(["open", "answered", "declined", "done"]))


class TasksQuery(ListQuery):
    state = ma.fields.String(validate=validate.OneOf(["published", "done"]))


class Office(ma.Schema):
    organisation = ma.fields.String(metadata={"description": "id"})
    name = ma.fields.String()


class Offered(ma.Schema):
    """A session or series that is offered, as it now is."""

    kind = ma.fields.String(metadata={"description": "session or series"})
    id = ma.fields.String()
    title = ma.fields.String()
    state = ma.fields.String(metadata={"description": "published, finished, cancelled, or gone"})
    starts_at = ma.fields.String(metadata={"description": "of a session: local time with offset; else empty"})


class AnswerOut(ma.Schema):
    offered = ma.fields.Nested(Offered, allow_none=True)
    first = ma.fields.String(data_key="from", metadata={"description": "local date of what is planned; else empty"})
    last = ma.fields.String(data_key="to")
    provider = ma.fields.Nested(Office, allow_none=True)
    note = ma.fields.String()
    reason = ma.fields.String(metadata={"description": "why not, of a declined one"})
    on = ma.fields.String(metadata={"description": "local date of the answer"})


class Line(ma.Schema):
    """What both lists say of a line."""

    id = ma.fields.String()
    state = ma.fields.String()
    topic = ma.fields.String()
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String(), metadata={"description": "empty: every stage"})
    place = ma.fields.String(metadata={"description": "kind of place; empty: any"})
    first = ma.fields.String(data_key="from", metadata=ABOUT_TIME)
    last = ma.fields.String(data_key="to")
    division = ma.fields.String()
    listed_on = ma.fields.String(metadata={"description": "local date"})


class DemandOut(Line):
    people = ma.fields.Integer(allow_none=True, metadata={"description": "about how many"})
    why = ma.fields.String()
    asked_by = ma.fields.Nested(Office)
    from_families = ma.fields.Boolean(metadata={"description": "made of what a family suggested"})
    seconds = ma.fields.List(ma.fields.Nested(Office))
    families_at_least = ma.fields.Integer(metadata={"description": "families that second it: 0 below ten, then whole tens"})
    answer = ma.fields.Nested(AnswerOut, allow_none=True)


class TaskOut(Line):
    demand = ma.fields.String(allow_none=True, metadata={"description": "id of the demand that it answers; null: nobody asked"})
    what = ma.fields.String(metadata={"description": "of an answer its note, else what was asked"})
    provider = ma.fields.Nested(Office, allow_none=True)
    offered = ma.fields.Nested(Offered, allow_none=True)


class DemandPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(DemandOut))
    next_cursor = ma.fields.String(allow_none=True)


class TaskPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(TaskOut))
    next_cursor = ma.fields.String(allow_none=True)


def office(key: str, name: str) -> dict[str, str] | None:
    """An organisation as it is named; None without one."""
    return {"organisation": key, "name": name} if key else None


def offered_out(snapshot: Snapshot, session: str, series: str, wanted: Sequence[str]) -> dict[str, str] | None:
    """What is offered, as readers find it now: one that was cancelled or hidden since says so."""
    kind, key = ("session", session) if session else ("series", series)
    if not key:
        return None
    item = snapshot.get(kind, key).get(ANY)
    content: Mapping[str, Any] = (item.content if item else None) or {}
    titles = content.get("title")
    parent = snapshot.get("series", content.get("series", key)).get(ANY)
    if not titles and parent and parent.content:
        titles = {tag: row["title"] for tag, row in parent.content["texts"].items()}
    more = {"state": content.get("state", "gone"), "starts_at": content.get("starts_at", "")}
    return {"kind": kind, "id": key, "title": text(titles, wanted), **more}


def line_out(content: Mapping[str, Any]) -> dict[str, Any]:
    """What both lists say of a published line."""
    plain = {name: content[name] for name in ("id", "state", "topic", "audiences", "stages", "place", "division", "listed_on")}
    return {**plain, "from": content["first"], "to": content["last"]}


def demand_out(snapshot: Snapshot, content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A published demand as it is answered."""
    told = content["answer"]
    return {
        **line_out(content),
        **{name: content[name] for name in ("people", "from_families", "seconds", "families_at_least")},
        "why": text(content["why"], wanted),
        "asked_by": office(content["organisation"], content["organisation_name"]),
        "answer": answer_out(snapshot, told, wanted) if told else None,
    }


def answer_out(snapshot: Snapshot, told: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """An answer as it is told."""
    return {
        "offered": offered_out(snapshot, told["session"], told["series"], wanted),
        "from": told["first"],
        "to": told["last"],
        "provider": office(told["provider"], told["provider_name"]),
        "note": text(told["note"], wanted),
        "reason": text(told["reason"], wanted),
        "on": told["on"],
    }


def task_out(snapshot: Snapshot, content: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A line of the task list: a published task, or the answer to a demand."""
    told = content.get("answer")
    if told is None:
        return {
            **line_out(content),
            "demand": None,
            "what": text(content["what"], wanted),
            "provider": office(content["provider"], content["provider_name"]),
            "offered": offered_out(snapshot, content["session"], content["series"], wanted),
        }
    told = answer_out(snapshot, told, wanted)
    return {
        **line_out(content),
        "state": "done" if content["state"] == "done" else "published",
        "demand": content["id"],
        "what": told["note"] or text(content["why"], wanted),
        "from": told["from"],
        "to": told["to"],
        "listed_on": told["on"],
        "provider": told["provider"],
        "offered": told["offered"],
    }


def newest(snapshot: Snapshot, *kinds: str) -> Iterator[Mapping[str, Any]]:
    """Published content of these kinds."""
    for kind in kinds:
        for rows in snapshot.entries(kind).values():
            yield from (item.content for item in rows.values() if item.content)


def fits(content: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether a line is asked for. One for every audience or stage fits each of them."""
    audience, stage = query.get("audience"), query.get("stage")
    return (
        near(content["division"], query.get("division"))
        and query.get("topic", content["topic"]) == content["topic"]
        and (audience is None or not content["audiences"] or audience in content["audiences"])
        and (stage is None or not content["stages"] or any(Stage.parse(one).covers(stage) for one in content["stages"]))
    )


def paged(lines: list[dict[str, Any]], query: Mapping[str, Any]) -> Response:
    """One page, what was listed last first."""

    def key(line: Mapping[str, Any]) -> list[Any]:
        return [-date.fromisoformat(line["listed_on"]).toordinal(), line["id"]]

    found = [line for line in lines if query.get("state", line["state"]) == line["state"]]
    result = page(sorted(found, key=key), query.get("cursor"), query["limit"], key)
    front.keep()
    return jsonify(result)


@blp.get("/demands")
@blp.arguments(DemandsQuery, location="query")
@blp.alt_response(200, schema=DemandPage, description="Newest first")
def index(query: dict[str, Any]) -> Response:
    """What is asked for, who seconds it, and the answer

    `division` finds what is asked for it, for those above it and for those below it.
    """
    snapshot, wanted = reader().current, front.wanted()
    return paged([demand_out(snapshot, one, wanted) for one in newest(snapshot, "demand") if fits(one, query)], query)


@blp.get("/tasks")
@blp.arguments(TasksQuery, location="query")
@blp.alt_response(200, schema=TaskPage, description="Newest first")
def tasks(query: dict[str, Any]) -> Response:
    """What is offered: answers to demands, and services that nobody had to ask for

    `division` finds what is for it, for those above it and for those below it.
    """
    snapshot, wanted = reader().current, front.wanted()
    found = (one for one in newest(snapshot, "demand", "task") if one["state"] in {"answered", "published", "done"})
    return paged([task_out(snapshot, one, wanted) for one in found if fits(one, query)], query)


# --- what families send ----------------------------------------------------------------------------------------------


class SecondIn(ma.Schema):
    nonce = ma.fields.String(required=True, validate=validate.Length(1, 80), metadata=NONCE)


MOST_A_DAY = 20  # suggestions of one address


class SuggestionIn(SecondIn):
    division = ma.fields.String(required=True, validate=DIVISION, metadata={"example": "150603"})
    topic = ma.fields.String(required=True, validate=validate.OneOf(list(TOPICS)))
    stage = StageField()
    time = ma.fields.String(validate=validate.OneOf(list(TIMES)))
    text = ma.fields.String(
        validate=validate.Length(max=suggestions.LONGEST), metadata={"description": "for staff alone; no names, no telephone"}
    )


class CountedOut(ma.Schema):
    counted = ma.fields.Boolean(metadata={"description": "false: this nonce was counted before"})


@blp.post("/demands/<string:demand_id>/seconds")
@blp.arguments(SecondIn)
@blp.alt_response(201, schema=CountedOut, description="Counted now")
@blp.alt_response(200, schema=CountedOut, description="Counted before")
def second(payload: dict[str, Any], demand_id: str) -> Response:
    """Second a demand as a family, anonymously

    Nothing is kept but the number, told in tens. When no answer came send the same nonce again; a phone that has seconded a
    demand does not ask its owner again.
    """
    first = demands.second_as_family(settings(), demand_id, payload["nonce"])
    return make_response(jsonify({"counted": first}), 201 if first else 200)


@blp.post("/demands/suggestions")
@blp.arguments(SuggestionIn)
@blp.alt_response(201, schema=CountedOut, description="Kept for staff")
@blp.alt_response(200, schema=CountedOut, description="Kept before")
def suggest(payload: dict[str, Any]) -> Response:
    """Say what you would like to have, without saying who you are

    Staff of the district read it and may ask for it in their own words; it is never published, and erased after 180 days. A
    text with a telephone or identity number in it is refused. One address sends twenty a day at most.
    """
    guard.daily("demands.suggest", request.remote_addr or "", MOST_A_DAY)
    nonce, stage = payload.pop("nonce"), payload.get("stage")
    first = suggestions.suggest(settings(), nonce, {**payload, "stage": str(stage) if stage else ""})
    return make_response(jsonify({"counted": first}), 201 if first else 200)

"""Where demand lists and task lists are written: ask, second, answer, offer; and what families suggested.

Whoever may publish courses for a division as a whole (`staff.areas`) answers its demands: a city answers its districts, and a
school's staff answer nobody's demand.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor, allowed
from api.demands import ABOUT_TIME, ID, Office
from api.guard import Blueprint, created, cursor_of, if_match, next_page, tagged
from api.shapes import DIVISION, Paging, Regexp, by_language, codes, listed, reader, settings, words
from content import demands, records, suggestions
from content import staff as people
from content.demands import Demand, Listed, Task
from content.failures import Forbidden, NotFound
from content.vocabulary import AUDIENCES, PLACES, TOPICS

staff = Blueprint("staff_demands", __name__, url_prefix="/v1/staff", description="Ask, second, answer, offer")


def answers(division: str) -> bool:
    """Whether the asker answers for a division; see the module."""
    return people.acts_for(actor(), "course.publish", division)


def readable(record: Listed) -> bool:
    """Whether the asker may read the working copy: the own organisation's, and what is not a draft of a division answered for."""
    own = allowed("course.read", record.organisation, [record.division])
    return own or (record.state != "draft" and answers(record.division))


def own(record: Any, permission: str) -> Any:
    """The record, when the asker may do this to it as the own organisation's. Another's is not there (404)."""
    if not allowed(permission, record.organisation, [record.division]):
        raise Forbidden() if readable(record) else NotFound(what=record.id)
    return record


class LineIn(ma.Schema):
    organisation = ma.fields.String(validate=ID)
    division = ma.fields.String(validate=DIVISION)
    topic = ma.fields.String(validate=validate.OneOf(list(TOPICS)))
    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    place = ma.fields.String(validate=validate.OneOf(["", *PLACES]))
    month = ma.fields.String(validate=Regexp("^[0-9]{4}-[0-9]{2}$"), metadata={"description": "in place of from and to"})
    first = ma.fields.String(data_key="from", validate=validate.Length(max=10), metadata={"example": "2027-05-10"})
    last = ma.fields.String(data_key="to", validate=validate.Length(max=10), metadata={"example": "2027-05-16"})


class DemandIn(LineIn):
    people = ma.fields.Integer(strict=True, allow_none=True, validate=validate.Range(1, 100_000))
    why = words()


class TaskIn(LineIn):
    what = words()
    provider = ma.fields.String(validate=validate.Length(max=64), metadata={"description": "organisation; left out: the own one"})
    session = ma.fields.String(validate=validate.Length(max=64))
    series = ma.fields.String(validate=validate.Length(max=64))


class NewDemand(DemandIn):
    organisation = ma.fields.String(required=True, validate=ID)
    division = ma.fields.String(required=True, validate=DIVISION)


class NewTask(TaskIn):
    organisation = ma.fields.String(required=True, validate=ID)
    division = ma.fields.String(required=True, validate=DIVISION)


class TakeIn(DemandIn):
    organisation = ma.fields.String(required=True, validate=ID)


class AnswerIn(ma.Schema):
    session = ma.fields.String(validate=ID, metadata={"description": "a published session"})
    series = ma.fields.String(validate=ID, metadata={"description": "a published series"})
    month = ma.fields.String(validate=Regexp("^[0-9]{4}-[0-9]{2}$"), metadata={"description": "planned for"})
    first = ma.fields.String(data_key="from", validate=validate.Length(max=10))
    last = ma.fields.String(data_key="to", validate=validate.Length(max=10))
    provider = ma.fields.String(validate=ID, metadata={"description": "organisation; needed for what is planned"})
    note = words()
    reason = words()


class NoteIn(ma.Schema):
    note = ma.fields.String(load_default="", validate=validate.Length(max=500), metadata={"description": "for the trail"})


class SecondingIn(ma.Schema):
    organisation = ma.fields.String(required=True, validate=ID, metadata={"description": "the own one"})


class WordOut(ma.Schema):
    language = ma.fields.String()
    text = ma.fields.String()


class WorkOut(ma.Schema):
    """A working copy, in the shape that staff send."""

    id = ma.fields.String()
    state = ma.fields.String()
    revision = ma.fields.Integer()
    organisation = ma.fields.String()
    division = ma.fields.String()
    topic = ma.fields.String()
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    place = ma.fields.String()
    first = ma.fields.String(data_key="from", metadata=ABOUT_TIME)
    last = ma.fields.String(data_key="to")
    created_at = ma.fields.String()
    updated_at = ma.fields.String()


class AnswerWork(ma.Schema):
    session = ma.fields.String()
    series = ma.fields.String()
    first = ma.fields.String(data_key="from")
    last = ma.fields.String(data_key="to")
    provider = ma.fields.String()
    provider_name = ma.fields.String()
    note = ma.fields.List(ma.fields.Nested(WordOut))
    reason = ma.fields.List(ma.fields.Nested(WordOut))
    on = ma.fields.String(metadata={"description": "local date"})


class DemandWork(WorkOut):
    people = ma.fields.Integer(allow_none=True)
    why = ma.fields.List(ma.fields.Nested(WordOut))
    from_families = ma.fields.Boolean()
    seconds = ma.fields.List(ma.fields.Nested(Office))
    families_at_least = ma.fields.Integer()
    answer = ma.fields.Nested(AnswerWork, allow_none=True)


class TaskWork(WorkOut):
    what = ma.fields.List(ma.fields.Nested(WordOut))
    provider = ma.fields.String()
    session = ma.fields.String()
    series = ma.fields.String()


class DemandsWork(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(DemandWork))
    next_cursor = ma.fields.String(allow_none=True)


class TasksWork(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(TaskWork))
    next_cursor = ma.fields.String(allow_none=True)


class SuggestionOut(ma.Schema):
    id = ma.fields.String()
    division = ma.fields.String()
    topic = ma.fields.String()
    stage = ma.fields.String(metadata={"description": "empty: not said"})
    time = ma.fields.String(metadata={"description": "empty: not said"})
    text = ma.fields.String()
    day = ma.fields.String(metadata={"description": "local date on which it came"})


class SuggestionsOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SuggestionOut))
    next_cursor = ma.fields.String(allow_none=True)


class StaffQuery(Paging):
    state = ma.fields.String(validate=validate.Length(1, 20))
    organisation = ma.fields.String(validate=ID)
    division = ma.fields.String(validate=DIVISION)


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that the verbs take."""
    return {k: by_language(v) if k in {"why", "what", "note", "reason"} else v for k, v in payload.items()}


def working_copy(record: Listed) -> dict[str, Any]:
    """A record as staff see it, in the shape that they send."""
    values = records.values_of(record, demands.FIELDS[type(record)])
    values["from"], values["to"] = values.pop("first"), values.pop("last")
    name = "why" if isinstance(record, Demand) else "what"
    values[name] = listed(values[name])
    more: dict[str, Any] = {}
    if isinstance(record, Demand):
        told = dict(record.to_mongo().to_dict().get("answer") or {})
        if told:
            told |= {"from": told.pop("first"), "to": told.pop("last")}
            told |= {name: listed(told[name]) for name in ("note", "reason")}
        more = {
            "from_families": record.from_families,
            "seconds": [dict(row) for row in record.seconds],
            "families_at_least": demands.step(record.families),
            "answer": told or None,
        }
    stamps = {"created_at": record.created_at.isoformat(), "updated_at": record.updated_at.isoformat()}
    return {"id": record.id, "state": record.state, "revision": record.revision, **values, **more, **stamps}


def told(record: Listed) -> Response:
    """The changed record; this process's readers have it at once."""
    reader().refresh()
    return tagged(working_copy(record), record.revision)


def mine(cls: type[Demand] | type[Task], query: dict[str, Any]) -> Response:
    """One page of the records that the asker may read, by id; a walk over what lies between, some thousands in a city."""
    match: dict[str, Any] = {name: query[name] for name in ("state", "organisation", "division") if name in query}
    match["_id"] = {"$gt": cursor_of(query, 1)[0]}
    found: Iterator[Demand | Task] = map(cls.of, cls.rows().find(match).sort("_id", 1))
    return jsonify(next_page(filter(readable, found), query["limit"], lambda record: [record.id], working_copy))


def begin(cls: type[Demand] | type[Task], payload: dict[str, Any]) -> Response:
    """Make a draft for the own organisation."""
    if not actor().may("course.write", payload["organisation"], payload["division"]):
        raise Forbidden()
    made = demands.create(cls, stored(payload), actor().id)
    return created(working_copy(made), made.revision, f"/v1/staff/{made.NAME}s/{made.id}")


def read(cls: type[Demand] | type[Task], key: str) -> Response:
    """A working copy, or 404."""
    record = demands.find(cls, key)
    if not readable(record):
        raise NotFound(what=key)
    return tagged(working_copy(record), record.revision)


def put(cls: type[Demand] | type[Task], key: str, payload: dict[str, Any]) -> Response:
    """Change a record of the own organisation; a public one needs the permission to publish."""
    revision, present = if_match(), demands.find(cls, key)
    own(present, "course.write" if present.state == "draft" else "course.publish")
    names_an_office(present)
    where = payload.get("organisation", present.organisation), payload.get("division", present.division)
    if not actor().may("course.write", *where):
        raise Forbidden()
    return told(demands.edit(cls, key, stored(payload), actor().id, revision))


def names_an_office(present: Listed) -> None:
    """Raises `Forbidden` for a task that is public and not the asker's to word: it stands there in the name of who answers."""
    if isinstance(present, Task) and present.state != "draft" and not answers(present.division):
        raise Forbidden()


def discard(cls: type[Demand] | type[Task], key: str) -> None:
    """Delete a draft of the own organisation."""
    revision = if_match()
    own(demands.find(cls, key), "course.write")
    demands.remove(cls, key, actor().id, revision)


def step(cls: type[Demand] | type[Task], key: str, verb: str, note: str = "") -> Response:
    """Take a step: as the own organisation, or, of a demand that is answered or over, as who answers for its division."""
    revision, present = if_match(), demands.find(cls, key)
    if not (
        isinstance(present, Demand) and verb in {"finish", "reopen"} and present.state != "draft" and answers(present.division)
    ):
        own(present, "course.publish")
    if verb == "reopen":
        names_an_office(present)
    return told(demands.move(cls, key, verb, actor().id, settings(), revision, note))


@staff.get("/demands")
@staff.arguments(StaffQuery, location="query")
@staff.alt_response(200, schema=DemandsWork)
def index_staff(query: dict[str, Any]) -> Response:
    """Demands of the own organisation, and those that the asker answers, by id"""
    return mine(Demand, query)


@staff.post("/demands")
@staff.arguments(NewDemand)
@staff.alt_response(201, schema=DemandWork, description="The new draft")
def create(payload: dict[str, Any]) -> Response:
    """Ask for something: a draft"""
    return begin(Demand, payload)


@staff.get("/demands/<string:demand_id>")
@staff.alt_response(200, schema=DemandWork, description="ETag is its revision")
def show_staff(demand_id: str) -> Response:
    """A demand as it is being edited"""
    return read(Demand, demand_id)


@staff.patch("/demands/<string:demand_id>")
@staff.arguments(DemandIn)
@staff.alt_response(200, schema=DemandWork, description="The changed demand")
def edit(payload: dict[str, Any], demand_id: str) -> Response:
    """Change a draft, or of an open demand what others did not second: why, when, where, how many

    Of an open demand this is public at once. Needs If-Match.
    """
    return put(Demand, demand_id, payload)


@staff.delete("/demands/<string:demand_id>")
@staff.response(204)
def remove(demand_id: str) -> None:
    """Delete a draft; needs If-Match"""
    discard(Demand, demand_id)


@staff.post("/demands/<string:demand_id>/publish")
@staff.alt_response(200, schema=DemandWork, description="Open")
def publish(demand_id: str) -> Response:
    """Put it on the demand list; needs If-Match"""
    return step(Demand, demand_id, "publish")


@staff.post("/demands/<string:demand_id>/answer")
@staff.arguments(AnswerIn)
@staff.alt_response(200, schema=DemandWork, description="Answered or declined")
def answer(payload: dict[str, Any], demand_id: str) -> Response:
    """Answer an open demand of a division that the asker answers for

    With one of: a published session, a published series, a planned time with its provider, or a `reason` why not. Needs
    If-Match.
    """
    revision, present = if_match(), demands.find(Demand, demand_id)
    if present.state == "draft" or not answers(present.division):
        raise Forbidden() if readable(present) else NotFound(what=demand_id)
    return told(demands.answer(demand_id, stored(payload), actor().id, settings(), revision))


@staff.post("/demands/<string:demand_id>/done")
@staff.alt_response(200, schema=DemandWork, description="Done")
def done(demand_id: str) -> Response:
    """Say that what was promised has taken place: the asker, or who answers; needs If-Match"""
    return step(Demand, demand_id, "finish")


@staff.post("/demands/<string:demand_id>/withdraw")
@staff.arguments(NoteIn)
@staff.alt_response(200, schema=DemandWork, description="Withdrawn")
def withdraw(payload: dict[str, Any], demand_id: str) -> Response:
    """Take an open demand off the list; needs If-Match"""
    return step(Demand, demand_id, "withdraw", payload["note"])


@staff.post("/demands/<string:demand_id>/reopen")
@staff.arguments(NoteIn)
@staff.alt_response(200, schema=DemandWork, description="Open again")
def reopen(payload: dict[str, Any], demand_id: str) -> Response:
    """Open it again, without its answer; `note` says why. Needs If-Match"""
    return step(Demand, demand_id, "reopen", payload["note"])


def seconding(payload: Mapping[str, str], demand_id: str, back: bool) -> Response:
    """Second, or take it back, for an organisation of the asker's."""
    organisation = payload["organisation"]
    if not actor().may("course.write", organisation, people.organisation(organisation).division):
        raise NotFound(what=organisation)
    return told(demands.second(demand_id, organisation, actor().id, back=back))


@staff.post("/demands/<string:demand_id>/seconds")
@staff.arguments(SecondingIn)
@staff.alt_response(200, schema=DemandWork, description="Seconded; a second time changes nothing")
def second_staff(payload: dict[str, Any], demand_id: str) -> Response:
    """Second an open demand as an organisation"""
    return seconding(payload, demand_id, False)


@staff.delete("/demands/<string:demand_id>/seconds")
@staff.arguments(SecondingIn)
@staff.alt_response(200, schema=DemandWork, description="Taken back; a second time changes nothing")
def take_back(payload: dict[str, Any], demand_id: str) -> Response:
    """No longer second it"""
    return seconding(payload, demand_id, True)


def heard(suggestion_id: str) -> dict[str, Any]:
    """A suggestion that the asker may see, or 404."""
    found = suggestions.find(suggestion_id)
    if not answers(found["division"]):
        raise NotFound(what=suggestion_id)
    return found


@staff.get("/suggestions")
@staff.arguments(Paging, location="query")
@staff.alt_response(200, schema=SuggestionsOut)
def suggested(query: dict[str, Any]) -> Response:
    """What families suggested, of the divisions that the asker answers for, oldest first"""
    day, key = cursor_of(query, 2)
    mine = (one for one in suggestions.listed((day, key)) if answers(one["division"]))
    return jsonify(next_page(mine, query["limit"], lambda one: [one["day"], one["id"]], lambda one: one))


@staff.post("/suggestions/<string:suggestion_id>/take")
@staff.arguments(TakeIn)
@staff.alt_response(201, schema=DemandWork, description="The new draft")
def take(payload: dict[str, Any], suggestion_id: str) -> Response:
    """Make a draft demand of it, in words of one's own; the suggestion is erased

    Topic, stage and division are the suggestion's where not given.
    """
    division = heard(suggestion_id)["division"]
    if not actor().may("course.write", payload["organisation"], payload.get("division", division)):
        raise Forbidden()
    made = suggestions.take(suggestion_id, stored(payload), actor().id)
    return created(working_copy(made), made.revision, f"/v1/staff/demands/{made.id}")


class DayOf(ma.Schema):
    day = ma.fields.Date(format="iso", required=True, metadata={"description": "local date on which they came"})
    division = ma.fields.String(required=True, validate=DIVISION, metadata={"description": "exactly this one"})


class Dropped(ma.Schema):
    dropped = ma.fields.Integer(metadata={"description": "how many"})


@staff.delete("/suggestions")
@staff.arguments(DayOf, location="query")
@staff.alt_response(200, schema=Dropped)
def drop_day(query: dict[str, Any]) -> Response:
    """Erase all suggestions of one day and division, such as a machine's"""
    if not answers(query["division"]):
        raise Forbidden()
    return jsonify({"dropped": suggestions.drop_day(query["day"], query["division"], actor().id)})


@staff.delete("/suggestions/<string:suggestion_id>")
@staff.response(204)
def drop(suggestion_id: str) -> None:
    """Erase it"""
    heard(suggestion_id)
    suggestions.drop(suggestion_id, actor().id)


@staff.get("/tasks")
@staff.arguments(StaffQuery, location="query")
@staff.alt_response(200, schema=TasksWork)
def tasks_staff(query: dict[str, Any]) -> Response:
    """Tasks of the own organisation and of divisions that the asker answers for, by id"""
    return mine(Task, query)


@staff.post("/tasks")
@staff.arguments(NewTask)
@staff.alt_response(201, schema=TaskWork, description="The new draft")
def create_task(payload: dict[str, Any]) -> Response:
    """Offer something that nobody had to ask for: a draft"""
    return begin(Task, payload)


@staff.get("/tasks/<string:task_id>")
@staff.alt_response(200, schema=TaskWork, description="ETag is its revision")
def show_task(task_id: str) -> Response:
    """A task as it is being edited"""
    return read(Task, task_id)


@staff.patch("/tasks/<string:task_id>")
@staff.arguments(TaskIn)
@staff.alt_response(200, schema=TaskWork, description="The changed task")
def edit_task(payload: dict[str, Any], task_id: str) -> Response:
    """Change a task; a published one at once, by who answers for the division. Needs If-Match"""
    return put(Task, task_id, payload)


@staff.delete("/tasks/<string:task_id>")
@staff.response(204)
def remove_task(task_id: str) -> None:
    """Delete a draft; needs If-Match"""
    discard(Task, task_id)


@staff.post("/tasks/<string:task_id>/publish")
@staff.alt_response(200, schema=TaskWork, description="Published")
def publish_task(task_id: str) -> Response:
    """Put it on the task list: who answers for the division; needs If-Match"""
    present = demands.find(Task, task_id)
    if not answers(own(present, "course.publish").division):
        raise Forbidden()
    return step(Task, task_id, "publish")


@staff.post("/tasks/<string:task_id>/done")
@staff.alt_response(200, schema=TaskWork, description="Done")
def task_done(task_id: str) -> Response:
    """Say that it has taken place; needs If-Match"""
    return step(Task, task_id, "finish")


@staff.post("/tasks/<string:task_id>/withdraw")
@staff.arguments(NoteIn)
@staff.alt_response(200, schema=TaskWork, description="Withdrawn")
def withdraw_task(payload: dict[str, Any], task_id: str) -> Response:
    """Take it off the list; needs If-Match"""
    return step(Task, task_id, "withdraw", payload["note"])


@staff.post("/tasks/<string:task_id>/reopen")
@staff.arguments(NoteIn)
@staff.alt_response(200, schema=TaskWork, description="Published again")
def reopen_task(payload: dict[str, Any], task_id: str) -> Response:
    """Put it on the list again: who answers for the division; `note` says why. Needs If-Match"""
    return step(Task, task_id, "reopen", payload["note"])

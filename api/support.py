"""Help: hotlines, services and the help card, for a place and this moment; and the desk where the directory is kept.

All of it comes from the published set and is answered while the database is away. Nothing here takes coordinates: phones
sort "near me" themselves. Hours move on, so an answer is kept for half a minute only.
"""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed
from api.guard import Blueprint, if_match, page, tagged
from api.shapes import Paging, Regexp, Tag, Word, by_language, listed, reader, settings, words
from content import directory, store
from content.directory import KINDS, Service
from content.failures import Forbidden, NotFound

blp = Blueprint("support", __name__, url_prefix="/v1", description="Hotlines, services and the help card")
staff = Blueprint("staff_support", __name__, url_prefix="/v1/staff", description="Keep the help directory")

DIVISION = Regexp("^([0-9]{6})?$")
HOLDS = 30  # seconds: how late "open now" may be


class Place(ma.Schema):
    division = ma.fields.String(
        validate=DIVISION, metadata={"description": "GB/T 2260 code; the service's own when left out", "example": "500114"}
    )
    language = Tag(metadata={"description": "wins over Accept-Language", "example": "zh-Hans"})


class CardQuery(ma.Schema):
    """Anything goes: whoever asks for this card gets one, whatever an old app sends along."""

    division = ma.fields.String(metadata={"description": "GB/T 2260 code; the service's own when left out", "example": "500114"})
    language = ma.fields.String(metadata={"description": "wins over Accept-Language", "example": "zh-Hans"})


class ServicesQuery(Place, Paging):
    limit = ma.fields.Integer(load_default=50, validate=validate.Range(1, 100))
    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    open_now = ma.fields.Boolean(metadata={"description": "true: only what is surely open now"})


class HotlinesQuery(Place, Paging):
    limit = ma.fields.Integer(load_default=50, validate=validate.Range(1, 100))


class Phone(ma.Schema):
    number = ma.fields.String(metadata={"example": "12356"})
    languages = ma.fields.List(ma.fields.String())


class Schedule(ma.Schema):
    rrule = ma.fields.String(metadata={"example": "FREQ=WEEKLY;BYDAY=MO,TU"})
    opens_at = ma.fields.String(metadata={"example": "08:00"})
    closes_at = ma.fields.String(metadata={"example": "24:00", "description": "earlier than opens_at: of the next day"})
    timezone = ma.fields.String()
    note = ma.fields.String()


class Ages(ma.Schema):
    min = ma.fields.Integer()
    max = ma.fields.Integer()


class ServiceOut(ma.Schema):
    id = ma.fields.String()
    kind = ma.fields.String()
    name = ma.fields.String()
    description = ma.fields.String()
    phones = ma.fields.List(ma.fields.Nested(Phone))
    schedules = ma.fields.List(ma.fields.Nested(Schedule), metadata={"description": "empty: hours are not known"})
    open_now = ma.fields.Boolean(allow_none=True, metadata={"description": "null: hours are not known"})
    stale = ma.fields.Boolean(metadata={"description": "nobody has checked this entry for 180 days"})
    ages = ma.fields.Nested(Ages)
    divisions = ma.fields.List(ma.fields.String(), metadata={"description": "empty: the whole country"})
    cost = ma.fields.String()
    urgent = ma.fields.Boolean()
    url = ma.fields.String(allow_none=True)
    order = ma.fields.Integer()
    assured_date = ma.fields.String(allow_none=True)
    sources = ma.fields.List(ma.fields.String())


class ServicePage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(ServiceOut))
    next_cursor = ma.fields.String(allow_none=True)


def place(query: Mapping[str, Any]) -> tuple[str | None, str]:
    """Division and language of a question."""
    wanted = front.wanted()
    return query.get("division") or settings().division or None, query.get("language") or (wanted[0] if wanted else "zh-Hans")


def listing(query: dict[str, Any], kinds: tuple[str, ...]) -> Response:
    """A page of services: open ones first, then unknown, then closed."""
    division, language = place(query)
    found = directory.services(reader().current, division, store.now(), language, kinds)
    if query.get("open_now"):
        found = [one for one in found if one["open_now"]]
    result = page(found, query.get("cursor"), query["limit"], directory.order)
    front.keep(HOLDS, max_age=HOLDS)
    return jsonify(result)


@blp.get("/hotlines")
@blp.arguments(HotlinesQuery, location="query")
@blp.alt_response(200, schema=ServicePage)
def hotlines(query: dict[str, Any]) -> Response:
    """Hotlines for a division, open ones first"""
    return listing(query, ("hotline",))


@blp.get("/services")
@blp.arguments(ServicesQuery, location="query")
@blp.alt_response(200, schema=ServicePage)
def services(query: dict[str, Any]) -> Response:
    """Services for a division: hotlines, text and chat, clinics, counselling; open ones first"""
    return listing(query, (query["kind"],) if "kind" in query else KINDS)


class CardLine(ma.Schema):
    id = ma.fields.String()
    kind = ma.fields.String()
    name = ma.fields.String()
    phones = ma.fields.List(ma.fields.Nested(Phone))
    open_now = ma.fields.Boolean(allow_none=True)
    note = ma.fields.String()
    stale = ma.fields.Boolean()
    url = ma.fields.String(allow_none=True)


class CardText(ma.Schema):
    lead = ma.fields.String()
    tonight = ma.fields.List(ma.fields.String(), metadata={"description": "what to do tonight"})
    message = ma.fields.String(metadata={"description": "to a trusted adult, ready to send"})


class Emergency(ma.Schema):
    number = ma.fields.String(metadata={"example": "110"})
    name = ma.fields.String()


class Card(ma.Schema):
    title = ma.fields.String()
    language = ma.fields.String()
    lines = ma.fields.List(ma.fields.Nested(CardLine))
    text = ma.fields.Nested(CardText)
    emergency = ma.fields.List(ma.fields.Nested(Emergency), metadata={"description": "always 110 and 120"})


@blp.get("/help-card")
@blp.arguments(CardQuery, location="query", unknown=ma.EXCLUDE)
@blp.alt_response(200, schema=Card)
def help_card(query: dict[str, Any]) -> Response:
    """The help card for a place and this moment

    What is open now, what to do tonight, a message to a trusted adult, 110 and 120. It is there for any division or none.
    """
    division, language = place(query)
    front.keep(HOLDS, max_age=HOLDS)
    return jsonify(directory.help_card(reader().current, division, store.now(), language))


# --- staff -----------------------------------------------------------------------------------------------------------


class LongWord(ma.Schema):
    language = Tag(required=True)
    text = ma.fields.String(required=True, validate=validate.Length(1, 2000))


class PhoneIn(ma.Schema):
    number = ma.fields.String(required=True, validate=validate.Length(1, 40))
    languages = ma.fields.List(Tag(), load_default=list, validate=validate.Length(max=20))


class ScheduleIn(ma.Schema):
    rrule = ma.fields.String(required=True, validate=validate.Length(1, 200))
    opens_at = ma.fields.String(required=True, validate=validate.Length(max=5))
    closes_at = ma.fields.String(required=True, validate=validate.Length(max=5))
    timezone = ma.fields.String(load_default="Asia/Shanghai", validate=validate.Length(max=60))
    note = words()


class AgesIn(ma.Schema):
    min = ma.fields.Integer(strict=True, validate=validate.Range(0, 150))
    max = ma.fields.Integer(strict=True, validate=validate.Range(0, 150))


class ServicePatch(ma.Schema):
    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    name = words()
    description = ma.fields.List(ma.fields.Nested(LongWord), validate=validate.Length(max=20))
    phones = ma.fields.List(ma.fields.Nested(PhoneIn), validate=validate.Length(max=50))
    schedules = ma.fields.List(ma.fields.Nested(ScheduleIn), validate=validate.Length(max=50))
    ages = ma.fields.Nested(AgesIn)
    divisions = ma.fields.List(ma.fields.String(validate=Regexp("^[0-9]{6}$")), validate=validate.Length(max=400))
    cost = words()
    urgent = ma.fields.Boolean()
    url = ma.fields.Url(schemes={"http", "https"}, allow_none=True)
    order = ma.fields.Integer(strict=True, validate=validate.Range(0, 100_000))
    assured_date = ma.fields.Date(format="iso", allow_none=True)
    assured_by = ma.fields.String(validate=validate.Length(max=120), allow_none=True)
    sources = ma.fields.List(ma.fields.String(validate=validate.Length(1, 500)), validate=validate.Length(max=50))


class ServiceIn(ServicePatch):
    kind = ma.fields.String(required=True, validate=validate.OneOf(KINDS))
    name = ma.fields.List(ma.fields.Nested(Word), required=True, validate=validate.Length(1, 20))


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that `directory.put` takes."""
    values = dict(payload)
    for name in {"name", "description", "cost"} & values.keys():
        values[name] = by_language(values[name])
    if "schedules" in values:
        values["schedules"] = [{**row, "note": by_language(row.get("note", []))} for row in values["schedules"]]
    if values.get("assured_date"):
        values["assured_date"] = values["assured_date"].isoformat()
    return values


def working_copy(service: Service) -> dict[str, Any]:
    """An entry as staff see it, in the shape that they send."""
    values = directory.values_of(service)
    for name in ("name", "description", "cost"):
        values[name] = listed(values[name] or {})
    values["schedules"] = [{**row, "note": listed(row.get("note") or {})} for row in values["schedules"] or []]
    public = service.published_revision is not None
    changed = service.published_revision != service.revision
    return {**values, "revision": service.revision, "public": public, "unpublished_changes": changed}


def own(key: str, permission: str) -> Service:
    """The entry, when the asker may do this to it. Raises `NotFound`, `Forbidden`."""
    service = directory.get(key)
    if not allowed(permission, "", list(service.divisions)):
        raise Forbidden()
    return service


@staff.get("/services")
@staff.arguments(Paging, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """All entries, by id, with those not checked for 180 days marked"""
    now = store.now()
    found = [Service.of(raw) for raw in Service.rows().find({}).sort("_id", 1)]
    result = page(found, query.get("cursor"), query["limit"], lambda service: [service.id])
    result["items"] = [{**working_copy(one), "stale": directory.stale(directory.values_of(one), now)} for one in result["items"]]
    return result


@staff.get("/services/<string:service_id>")
@staff.alt_response(200, description="The entry; ETag is its revision")
def show_staff(service_id: str) -> Response:
    """An entry as it is being edited"""
    service = directory.get(service_id)
    return tagged(working_copy(service), service.revision)


@staff.put("/services/<string:service_id>")
@staff.arguments(ServiceIn)
@staff.alt_response(200, description="The entry; 201 when it is new")
def put(payload: dict[str, Any], service_id: str) -> Response:
    """Write an entry whole

    One that exists needs If-Match. Readers see nothing of it before it is published.
    """
    values = {**stored(payload), "id": service_id}
    if not allowed("service.write", "", values.get("divisions", [])):
        raise Forbidden()
    try:
        own(service_id, "service.write")
    except NotFound:
        revision = None
    else:
        revision = if_match()
    outcome = directory.put(values, actor().id, revision)
    service = directory.get(service_id)
    return tagged(working_copy(service), service.revision, 201 if outcome == "new" else 200)


@staff.patch("/services/<string:service_id>")
@staff.arguments(ServicePatch)
@staff.alt_response(200, description="The changed entry")
def edit(payload: dict[str, Any], service_id: str) -> Response:
    """Change parts of an entry; needs If-Match"""
    revision, present = if_match(), own(service_id, "service.write")
    values = {**directory.values_of(present), **stored(payload)}
    if not allowed("service.write", "", values["divisions"] or []):
        raise Forbidden()
    directory.put(values, actor().id, revision)
    service = directory.get(service_id)
    return tagged(working_copy(service), service.revision)


@staff.post("/services/<string:service_id>/publish")
@staff.alt_response(200, description="Published")
def publish(service_id: str) -> Response:
    """Publish an entry as it now is; needs If-Match"""
    revision = if_match()
    own(service_id, "service.publish")
    service = directory.publish(service_id, actor().id, revision, second_person=settings().second_person)
    reader().refresh()
    return tagged(working_copy(service), service.revision)


@staff.post("/services/<string:service_id>/withdraw")
@staff.alt_response(200, description="Withdrawn")
def withdraw(service_id: str) -> Response:
    """Take an entry from readers; needs If-Match"""
    revision = if_match()
    own(service_id, "service.publish")
    service = directory.withdraw(service_id, actor().id, revision)
    reader().refresh()
    return tagged(working_copy(service), service.revision)

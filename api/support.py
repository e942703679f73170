"""Help: hotlines, services and the help card, for a place and this moment; and the desk where the directory is kept.

All of it comes from the published set and is answered while the database is away. Nothing here takes coordinates: a phone asks
for its division's list and sorts "near me" itself, by the entries' `latitude` and `longitude`. Hours move on, so an answer is
kept for half a minute only.
"""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front
from api.auth import actor, allowed
from api.guard import Blueprint, if_match, page, tagged
from api.shapes import Paging, Real, Regexp, Tag, Word, by_language, listed, reader, settings, words
from content import directory, helpcard, records, store
from content.directory import CALLED, KINDS, TEXTS, Service
from content.failures import Forbidden, NotFound

blp = Blueprint("support", __name__, url_prefix="/v1", description="Hotlines, services and the help card")
staff = Blueprint("staff_support", __name__, url_prefix="/v1/staff", description="Keep the help directory")

DIVISION = Regexp("^([0-9]{6})?$")
KIND = "information: a public line that is no counselling line; listed, never on the help card"
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


class HotlinesQuery(Place, Paging):
    """Filters leave out only what is known not to fit, and the answer says how many that were."""

    limit = ma.fields.Integer(load_default=50, validate=validate.Range(1, 100))
    open_now = ma.fields.Boolean(
        metadata={"description": "true: without what is closed by its recorded hours; unknown hours stay, after what is open"}
    )
    answers_in = Tag(
        metadata={
            "description": "language in which someone should answer: without what is recorded in other languages alone. Urgent "
            "entries stay. (`language` is that of the texts.)",
            "example": "mn-Mong",
        }
    )
    age = ma.fields.Integer(
        validate=validate.Range(0, 150),
        metadata={"description": "years: without what is recorded for other ages alone. Urgent entries stay."},
    )


class ServicesQuery(HotlinesQuery):
    kind = ma.fields.String(validate=validate.OneOf(KINDS), metadata={"description": KIND})


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
    kind = ma.fields.String(validate=validate.OneOf(KINDS), metadata={"description": KIND})
    name = ma.fields.String()
    description = ma.fields.String()
    organization = ma.fields.String(metadata={"description": "who provides it; empty: not recorded"})
    phones = ma.fields.List(ma.fields.Nested(Phone))
    schedules = ma.fields.List(ma.fields.Nested(Schedule), metadata={"description": "empty: hours are not known"})
    open_now = ma.fields.Boolean(
        allow_none=True, metadata={"description": "null: hours are not known, or were recorded until a day that has passed"}
    )
    stale = ma.fields.Boolean(metadata={"description": "nobody has checked this entry for 180 days"})
    ages = ma.fields.Nested(Ages)
    divisions = ma.fields.List(ma.fields.String(), metadata={"description": "empty: the whole country"})
    cost = ma.fields.String(metadata={"description": "empty: not known"})
    appointment = ma.fields.String(metadata={"description": "how to make one, or that none is needed; empty: not known"})
    address = ma.fields.String()
    latitude = ma.fields.Float(
        allow_none=True,
        metadata={"description": "degrees, WGS 84: for sorting by nearness on the phone. No route takes the phone's own place."},
    )
    longitude = ma.fields.Float(allow_none=True)
    urgent = ma.fields.Boolean()
    url = ma.fields.String(allow_none=True)
    order = ma.fields.Integer()
    assured_date = ma.fields.String(allow_none=True)
    sources = ma.fields.List(ma.fields.String())


class ServicePage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(ServiceOut))
    next_cursor = ma.fields.String(allow_none=True)
    left_out = ma.fields.Integer(
        metadata={"description": "how many serve the division and are on no page because of `open_now`, `answers_in` or `age`"}
    )


def place(query: Mapping[str, Any]) -> tuple[str | None, str]:
    """Division and language of a question."""
    wanted = front.wanted()
    return query.get("division") or settings().division or None, query.get("language") or (wanted[0] if wanted else "zh-Hans")


def listing(query: dict[str, Any], kinds: tuple[str, ...]) -> Response:
    """A page of services: open ones first, then unknown, then closed."""
    division, language = place(query)
    found = directory.services(reader().current, division, store.now(), language, kinds)
    wanted = {"open_only": query.get("open_now", False), "answering": query.get("answers_in"), "age": query.get("age")}
    fit = [one for one in found if not directory.left_out(one, **wanted)]
    result = page(fit, query.get("cursor"), query["limit"], directory.order)
    front.keep(HOLDS, max_age=HOLDS)
    return jsonify({**result, "left_out": len(found) - len(fit)})


@blp.get("/hotlines")
@blp.arguments(HotlinesQuery, location="query")
@blp.alt_response(200, schema=ServicePage)
def hotlines(query: dict[str, Any]) -> Response:
    """Hotlines for a division, open ones first, then those of unknown hours

    Public information lines are among them, of the kind `information`: they answer questions and are no counselling lines.
    """
    return listing(query, CALLED)


@blp.get("/services")
@blp.arguments(ServicesQuery, location="query")
@blp.alt_response(200, schema=ServicePage)
def services(query: dict[str, Any]) -> Response:
    """Services for a division: hotlines, text and chat, clinics, counselling, information; open ones first

    All that serves the division and what lies above it. To show what is near, sort by `latitude` and `longitude` on the phone.
    """
    return listing(query, (query["kind"],) if "kind" in query else KINDS)


class CardLine(ma.Schema):
    id = ma.fields.String()
    kind = ma.fields.String()
    name = ma.fields.String()
    phones = ma.fields.List(ma.fields.Nested(Phone))
    schedules = ma.fields.List(ma.fields.Nested(Schedule))
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


class NextCall(ma.Schema):
    number = ma.fields.String(metadata={"example": "12355"})
    name = ma.fields.String()
    text = ma.fields.String(metadata={"description": "the same as a sentence"})


class Card(ma.Schema):
    title = ma.fields.String()
    language = ma.fields.String()
    lines = ma.fields.List(
        ma.fields.Nested(CardLine),
        metadata={"description": "open now first, then of unknown hours, then closed; hotlines before text and chat"},
    )
    if_busy = ma.fields.Nested(NextCall, metadata={"description": "whom to call when the first line is busy"})
    text = ma.fields.Nested(CardText)
    emergency = ma.fields.List(ma.fields.Nested(Emergency), metadata={"description": "always 110 and 120"})


@blp.get("/help-card")
@blp.arguments(CardQuery, location="query", unknown=ma.EXCLUDE)
@blp.alt_response(200, schema=Card)
def help_card(query: dict[str, Any]) -> Response:
    """The help card for a place and this moment

    What is open now, text and chat, the next number if the first is busy, what to do tonight, a message to a trusted adult, 110
    and 120. It is there for any division or none; a phone makes the same without a network from what sync gave it.
    """
    division, language = place(query)
    front.keep(HOLDS, max_age=HOLDS)
    return jsonify(helpcard.card(reader().current, division, store.now(), language))


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
    organization = words()
    appointment = words()
    address = words()
    latitude = Real(validate=validate.Range(-90, 90), allow_none=True, metadata={"description": "degrees; both or none"})
    longitude = Real(validate=validate.Range(-180, 180), allow_none=True)
    urgent = ma.fields.Boolean()
    url = ma.fields.Url(schemes={"http", "https"}, allow_none=True)
    order = ma.fields.Integer(strict=True, validate=validate.Range(0, 100_000))
    assured_date = ma.fields.Date(format="iso", allow_none=True)
    assured_by = ma.fields.String(validate=validate.Length(max=120), allow_none=True)
    sources = ma.fields.List(ma.fields.String(validate=validate.Length(1, 500)), validate=validate.Length(max=50))


class ServiceIn(ServicePatch):
    kind = ma.fields.String(required=True, validate=validate.OneOf(KINDS))
    name = ma.fields.List(ma.fields.Nested(Word), required=True, validate=validate.Length(1, 20))


class ScheduleStaff(Schedule):
    note = ma.fields.List(ma.fields.Nested(Word))  # type: ignore[assignment]


class ServiceStaff(ma.Schema):
    """An entry as staff see it."""

    id = ma.fields.String()
    kind = ma.fields.String()
    name = ma.fields.List(ma.fields.Nested(Word))
    description = ma.fields.List(ma.fields.Nested(LongWord))
    organization = ma.fields.List(ma.fields.Nested(Word))
    phones = ma.fields.List(ma.fields.Nested(Phone))
    schedules = ma.fields.List(ma.fields.Nested(ScheduleStaff))
    ages = ma.fields.Nested(Ages)
    divisions = ma.fields.List(ma.fields.String(), metadata={"description": "empty: the whole country"})
    cost = ma.fields.List(ma.fields.Nested(Word))
    appointment = ma.fields.List(ma.fields.Nested(Word))
    address = ma.fields.List(ma.fields.Nested(Word))
    latitude = ma.fields.Float(allow_none=True)
    longitude = ma.fields.Float(allow_none=True)
    urgent = ma.fields.Boolean()
    url = ma.fields.String(allow_none=True)
    order = ma.fields.Integer()
    assured_date = ma.fields.String(allow_none=True, metadata={"description": "local date on which someone last checked it"})
    assured_by = ma.fields.String(allow_none=True, metadata={"description": "who; readers never see it"})
    sources = ma.fields.List(ma.fields.String())
    revision = ma.fields.Integer()
    public = ma.fields.Boolean()
    unpublished_changes = ma.fields.Boolean()
    stale = ma.fields.Boolean(metadata={"description": "nobody has checked it for 180 days"})


class StaffPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(ServiceStaff))
    next_cursor = ma.fields.String(allow_none=True)
    stale = ma.fields.Integer(metadata={"description": "how many of all entries nobody has checked for 180 days"})


class StaffQuery(Paging):
    stale = ma.fields.Boolean(metadata={"description": "true: only what nobody has checked for 180 days; false: only the others"})


def stored(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the plain values that `directory.put` takes."""
    values = dict(payload)
    for name in TEXTS.keys() & values.keys():
        values[name] = by_language(values[name])
    if "schedules" in values:
        values["schedules"] = [{**row, "note": by_language(row.get("note", []))} for row in values["schedules"]]
    if values.get("assured_date"):
        values["assured_date"] = values["assured_date"].isoformat()
    return values


def working_copy(service: Service) -> dict[str, Any]:
    """An entry as staff see it, in the shape that they send."""
    values = {"id": service.id, **records.values_of(service, directory.FIELDS)}
    for name in TEXTS:
        values[name] = listed(values[name] or {})
    values["schedules"] = [{**row, "note": listed(row.get("note") or {})} for row in values["schedules"] or []]
    values["ages"] = values["ages"] or {}
    values["stale"] = directory.stale(values, store.now())
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
@staff.arguments(StaffQuery, location="query")
@staff.response(200, StaffPage)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """All entries, by id; those that nobody checked for 180 days are flagged

    `stale=true` is the work list: telephone each, write who checked it and when (`assured_by`, `assured_date`), publish.
    """
    now = store.now()
    found = [Service.of(raw) for raw in Service.rows().find({}).sort("_id", 1)]
    old = {one.id for one in found if directory.stale(records.values_of(one, directory.FIELDS), now)}
    if "stale" in query:
        found = [one for one in found if (one.id in old) == query["stale"]]
    result = page(found, query.get("cursor"), query["limit"], lambda service: [service.id])
    return {**result, "items": [working_copy(one) for one in result["items"]], "stale": len(old)}


@staff.get("/services/<string:service_id>")
@staff.alt_response(200, schema=ServiceStaff, description="The entry; ETag is its revision")
def show_staff(service_id: str) -> Response:
    """An entry as it is being edited"""
    service = directory.get(service_id)
    return tagged(working_copy(service), service.revision)


@staff.put("/services/<string:service_id>")
@staff.arguments(ServiceIn)
@staff.alt_response(200, schema=ServiceStaff, description="The entry")
@staff.alt_response(201, schema=ServiceStaff, description="It is new")
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
@staff.alt_response(200, schema=ServiceStaff, description="The changed entry")
def edit(payload: dict[str, Any], service_id: str) -> Response:
    """Change parts of an entry; needs If-Match"""
    revision, present = if_match(), own(service_id, "service.write")
    values = {"id": service_id, **records.values_of(present, directory.FIELDS), **stored(payload)}
    if not allowed("service.write", "", values["divisions"] or []):
        raise Forbidden()
    directory.put(values, actor().id, revision)
    service = directory.get(service_id)
    return tagged(working_copy(service), service.revision)


@staff.post("/services/<string:service_id>/publish")
@staff.alt_response(200, schema=ServiceStaff, description="Published")
def publish(service_id: str) -> Response:
    """Publish an entry as it now is; needs If-Match"""
    revision = if_match()
    own(service_id, "service.publish")
    service = directory.publish(service_id, actor().id, revision, second_person=settings().second_person)
    reader().refresh()
    return tagged(working_copy(service), service.revision)


@staff.post("/services/<string:service_id>/withdraw")
@staff.alt_response(200, schema=ServiceStaff, description="Withdrawn")
def withdraw(service_id: str) -> Response:
    """Take an entry from readers; needs If-Match"""
    revision = if_match()
    own(service_id, "service.publish")
    service = directory.withdraw(service_id, actor().id, revision)
    reader().refresh()
    return tagged(working_copy(service), service.revision)

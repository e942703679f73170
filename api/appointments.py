"""Appointments with a service of the help directory: free slots, one taken with a nickname, seen and cancelled by its code.

Nobody is asked why they come, nor how old they are. Who looks and who books leaves hourly counts only, never a line in the log.
Someone who wants to talk may not be able to wait for Thursday: whatever is answered here, a failure too, the help card is in it
(`beside`).

Free slots come from the published set, also while the database is away; the rest needs the database.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify, request
from marshmallow import validate

from api import beside, front, guard
from api.guard import Blueprint, page
from api.sessions import in_utc
from api.shapes import Paging, reader, settings, text
from api.support import HOLDS, Card
from content import appointments, languages, slots, store
from content.appointments import CANCEL_BEFORE, Held
from content.courses import local
from content.failures import NotFound
from content.published import ANY
from content.slots import MODES

blp = Blueprint("appointments", __name__, url_prefix="/v1", description="Appointments with a help service, without an account")

SHOWN = timedelta(days=28)  # when nobody says until when
MOST_A_DAY = 3  # taken by one address with one service
# what happens now, for whoever holds it: short, nothing to decide, nothing that a person beside them may not read
WORDS: Mapping[str, Mapping[str, str]] = {
    "phone": {
        "zh-Hans": "到了时间，我们会给您打电话，来电可能是陌生号码。不用准备什么，想说什么、说多少，都由您。",
        "en": "We will call you at that time; the number may be one you do not know. Nothing to prepare: you say what you like.",
    },
    "online": {
        "zh-Hans": "到了时间，打开这里的链接就好。可以不开摄像头，想说什么、说多少，都由您。",
        "en": "Open the link that is here at that time. The camera may stay off, and you say what you like.",
    },
    "online_soon": {
        "zh-Hans": "链接会在开始前放到这里，到时再打开看看就好。",
        "en": "The link will be here before it begins: just open this again then.",
    },
    "in_person": {
        "zh-Hans": "到了时间，请到这里写的地方来，说您预约时留的称呼就好。想有人陪着一起来，也很好。",
        "en": "Come to the place given here at that time and say the name you left. You are welcome to bring someone along.",
    },
    "cancelled": {
        "zh-Hans": "已取消，您留下的称呼和电话已经删除。想来的时候，随时可以再约。",
        "en": "Cancelled; the name and telephone you left are erased. You can book again whenever you like.",
    },
    "called_off": {
        "zh-Hans": "很抱歉，这个时间临时取消了，请再选一个时间。不想等的话，下面的电话现在就可以试试。",
        "en": "We are sorry: this time had to be cancelled. Please choose another. You need not wait: try a line below.",
    },
    "over": {
        "zh-Hans": "这次已经结束。想再聊聊的时候，随时可以再约。",
        "en": "This one is over. Whenever you would like to talk again, you can book another.",
    },
}


class TimeOut(ma.Schema):
    id = ma.fields.String(metadata={"example": "kangbashi-counselling~20261124-1400~phone"})
    service = ma.fields.String()
    starts_at = ma.fields.String(metadata={"description": "local time with offset"})
    ends_at = ma.fields.String()
    booking_closes_at = ma.fields.String()
    zone = ma.fields.String()
    mode = ma.fields.String(validate=validate.OneOf(MODES), metadata={"description": "phone: the service calls"})
    place = ma.fields.String(metadata={"description": "where to come; empty unless in person"})


class SlotOut(TimeOut):
    state = ma.fields.String(validate=validate.OneOf(["free", "taken"]))


class SlotsOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SlotOut))
    next_cursor = ma.fields.String(allow_none=True)
    help = ma.fields.Nested(Card)


class SlotsQuery(Paging):
    first = ma.fields.Date(format="iso", data_key="from", metadata={"description": "local date; default today"})
    last = ma.fields.Date(format="iso", data_key="to", metadata={"description": "local date, included; default four weeks on"})
    mode = ma.fields.String(validate=validate.OneOf(MODES))
    free = ma.fields.Boolean(metadata={"description": "true: free ones only"})


class AppointmentIn(ma.Schema):
    name = ma.fields.String(
        required=True,
        validate=validate.Length(1, 40),
        metadata={"description": "怎么称呼您: what to call you by; a nickname will do", "example": "小林"},
    )
    phone = ma.fields.String(
        load_default="",
        validate=validate.Length(max=25),
        metadata={"description": "needed by phone and in person; online only if you want to be told of a change"},
    )
    note = ma.fields.String(
        load_default="",
        validate=validate.Length(max=200),
        metadata={"description": "what helps to meet you, such as when to let it ring longer; nobody asks why you come"},
    )


class ServiceName(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String(metadata={"description": "empty when it is not published any more"})


class AppointmentOut(ma.Schema):
    state = ma.fields.String(
        validate=validate.OneOf(["booked", "cancelled", "called_off", "over"]),
        metadata={"description": "cancelled by you; called off by the service"},
    )
    slot = ma.fields.Nested(TimeOut)
    service = ma.fields.Nested(ServiceName)
    next = ma.fields.String(metadata={"description": "what happens now, in words"})
    online_link = ma.fields.String(allow_none=True, metadata={"description": "while it is booked"})
    cancel_until = ma.fields.String(
        allow_none=True, metadata={"description": "local time; null when it cannot be cancelled here"}
    )
    help = ma.fields.Nested(Card)


class NewAppointmentOut(AppointmentOut):
    code = ma.fields.String(metadata={"description": "opens the appointment; shown this once", "example": "7K3QX-0M9TD-W2E5R"})


def published_service(key: str) -> Mapping[str, Any]:
    """What readers see of a service. Raises `NotFound`."""
    item = reader().current.get("service", key).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=key)
    return item.content


def card_of(service: Mapping[str, Any]) -> dict[str, Any]:
    """The help card of the division that the service serves, else the district's own."""
    return beside.card(next(iter(service.get("divisions") or ()), None))


def time_out(content: Mapping[str, Any]) -> dict[str, Any]:
    """`SlotOut` of what is published of a slot."""
    return {**content, "place": text(content["place"], front.wanted())}


def appointment_out(held: Held) -> dict[str, Any]:
    """An appointment as its holder sees it: no name and no telephone, which the holder knows and a finder should not."""
    slot = held.slot
    shown = time_out(slots.content(slot))
    shown.pop("state")
    try:
        service = published_service(slot.service)
    except NotFound:
        service = {"name": {}}
    booked, wanted = held.state == "booked", front.wanted()
    until = slot.starts_at - CANCEL_BEFORE
    said = held.state if not booked else "online_soon" if slot.mode == "online" and not slot.online_link else slot.mode
    return {
        "state": held.state,
        "slot": shown,
        "service": {"id": slot.service, "name": text(service["name"], wanted)},
        "next": WORDS[said][languages.pick(WORDS[said], wanted, settings().language)],
        "online_link": slot.online_link if booked else None,
        "cancel_until": local(until, slot.zone) if booked and until > store.now() else None,
        "help": card_of(service),
    }


@blp.get("/services/<string:service_id>/slots")
@blp.arguments(SlotsQuery, location="query")
@blp.alt_response(200, schema=SlotsOut)
def index(query: dict[str, Any], service_id: str) -> Response:
    """A service's slots that can still be booked, in order of time, free and taken"""
    service = published_service(service_id)
    item = reader().current.get("slots", service_id).get(ANY)
    now = store.now()
    first = query.get("first") or now.astimezone(ZoneInfo(settings().zone)).date()
    last = str(query.get("last") or (first + SHOWN if first.year < 9999 else first))
    found = [
        one
        for one in ((item.content or {}).get("slots", ()) if item else ())
        if datetime.fromisoformat(one["booking_closes_at"]) > now
        and str(first) <= one["starts_at"][:10] <= last
        and query.get("mode", one["mode"]) == one["mode"]
        and (one["state"] == "free" or not query.get("free"))
    ]
    result = page(found, query.get("cursor"), query["limit"], lambda one: [in_utc(one["starts_at"]), one["id"]])
    front.keep(HOLDS, max_age=0)  # the word moves with every booking
    return jsonify({**result, "items": [time_out(one) for one in result["items"]], "help": card_of(service)})


@blp.post("/slots/<string:slot_id>/bookings")
@blp.arguments(AppointmentIn)
@blp.alt_response(201, schema=NewAppointmentOut)
def create(payload: dict[str, Any], slot_id: str) -> Response:
    """Take a free slot without an account

    The answer's `code` opens the appointment; write it down, it is kept nowhere here. With an `Idempotency-Key` (16 characters or
    more) a repeat gets the same appointment and code. What you send is encrypted, seen by the service only, and erased on
    cancelling or within 30 days after the slot. One address books three with a service in a day at most.
    """

    def taking(service: str) -> None:
        guard.daily("appointments.create", f"{request.remote_addr} {service}", MOST_A_DAY)

    held = appointments.book(slot_id, **payload, key=request.headers.get("Idempotency-Key"), taking=taking)
    response = jsonify({"code": held.code, **appointment_out(held)})
    response.status_code = 201
    return response


@blp.get("/appointments/<string:code>")
@blp.alt_response(200, schema=AppointmentOut)
def show(code: str) -> Response:
    """An appointment, by its code: when, how, and what happens"""
    return jsonify(appointment_out(appointments.look(code)))


@blp.delete("/appointments/<string:code>")
@blp.alt_response(200, schema=AppointmentOut)
def cancel(code: str) -> Response:
    """Cancel an appointment, until an hour before it

    The slot is free for someone else; name, telephone and note are erased at once. A second call changes nothing and answers the
    same.
    """
    return jsonify(appointment_out(appointments.cancel(code)))

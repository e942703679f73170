"""Calendar feeds to subscribe to: of a division, a station, a course, a lecturer, and of one booking.

The public ones come from the published set and are read while the database is away; a calendar that subscribes sends no
Accept-Language worth the name, so `language` chooses here. A booking's feed stands at a secret address, since a calendar can send
nothing else, and it may be read by everyone with whom that calendar is shared: it has no name, no telephone and no booking code.
"""

from collections.abc import Callable, Mapping
from typing import Any

import marshmallow as ma
from flask import Response

from api import front
from api.guard import Blueprint
from api.shapes import Tag, near, reader, settings
from content import bookings, calendars, divisions, store
from content.calendars import Reading
from content.failures import NotFound
from content.published import ANY

blp = Blueprint("calendars", __name__, url_prefix="/v1/calendars", description="Calendar feeds (iCalendar) to subscribe to")

TYPE = "text/calendar; charset=utf-8"
FEED = {"schema": {"type": "string"}, "content_type": "text/calendar", "description": "An iCalendar stream (RFC 5545)"}


class FeedQuery(ma.Schema):
    language = Tag(metadata={"description": "of the feed, before Accept-Language", "example": "zh-Hans"})
    alarms = ma.fields.Boolean(load_default=False, metadata={"description": "ring a day and two hours before"})


class BookingFeedQuery(ma.Schema):
    language = FeedQuery._declared_fields["language"]
    alarms = ma.fields.Boolean(load_default=True, metadata={"description": "ring a day and two hours before"})


def written_for(query: Mapping[str, Any]) -> Reading:
    """For whom a feed is written."""
    wanted = ([query["language"]] if "language" in query else []) + list(front.wanted())
    return Reading(tuple(wanted), settings().language, settings().zone, query["alarms"], settings().public("/s/"))


def public(name: str, fits: Callable[[Mapping[str, Any]], bool], to: Reading) -> Response:
    """The feed of the published sessions that fit."""
    entries = calendars.of_public(reader().current, fits, store.now())
    front.keep()
    return Response(calendars.written(titled(name, to), entries, to), content_type=TYPE)


def titled(name: str, to: Reading) -> str:
    """What a calendar is called among the others on a phone."""
    return f"{to.word('courses')} · {name}" if name else to.word("courses")


def seen(fits: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """The latest published session that fits, however long over; {} without one. A feed that ever had something goes on as an
    empty one, and what nobody ever published is not there (404)."""
    found = (rows[ANY].content or {} for rows in reader().current.entries("session").values())
    return max(filter(fits, found), key=lambda one: str(one["starts_at"]), default={})


@blp.get("/divisions/<string:code>.ics")
@blp.arguments(FeedQuery, location="query")
@blp.alt_response(200, **FEED)
def division(query: dict[str, Any], code: str) -> Response:
    """Sessions for the families of a division

    Of itself, of those above it and of those below it, as `/v1/sessions?division=` finds them: those of the last 90 days and all
    to come. A cancelled one stays, marked as cancelled, until 60 days after its start.
    """
    name = divisions.get(code).name
    return public(name, lambda one: near(one["division"], code), written_for(query))


@blp.get("/stations/<string:organisation_id>.ics")
@blp.arguments(FeedQuery, location="query")
@blp.alt_response(200, **FEED)
def station(query: dict[str, Any], organisation_id: str) -> Response:
    """Sessions held at a station, a school or another organisation"""

    def here(one: Mapping[str, Any]) -> bool:
        return bool((one["host"] or one["organisation"]) == organisation_id)

    latest, to = seen(here), written_for(query)
    if not latest:
        raise NotFound(what=organisation_id)
    parent = reader().current.get("series", latest["series"]).get(ANY)
    organiser = (parent.content or {})["organiser_name"] if parent and latest["organisation"] == organisation_id else {}
    return public(to.text(organiser or latest["venue"].get("name")), here, to)


@blp.get("/courses/<string:series_id>.ics")
@blp.arguments(FeedQuery, location="query")
@blp.alt_response(200, **FEED)
def course(query: dict[str, Any], series_id: str) -> Response:
    """Sessions of one course"""
    item = reader().current.get("series", series_id).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=series_id)
    to = written_for(query)
    title = to.text({language: row["title"] for language, row in item.content["texts"].items()})
    return public(title, lambda one: bool(one["series"] == series_id), to)


@blp.get("/lecturers/<string:lecturer_id>.ics")
@blp.arguments(FeedQuery, location="query")
@blp.alt_response(200, **FEED)
def lecturer(query: dict[str, Any], lecturer_id: str) -> Response:
    """Sessions that a lecturer of the expert library holds"""

    def theirs(one: Mapping[str, Any]) -> bool:
        return bool(one["lecturer_id"] == lecturer_id)

    to, item = written_for(query), reader().current.get("lecturer", lecturer_id).get(ANY)
    known = (item.content if item else None) or seen(theirs).get("lecturer")
    if not known:
        raise NotFound(what=lecturer_id)
    return public(to.text(known.get("name")), theirs, to)


@blp.get("/bookings/<string:secret>.ics")
@blp.arguments(BookingFeedQuery, location="query")
@blp.alt_response(200, **FEED)
def booking(query: dict[str, Any], secret: str) -> Response:
    """What one booking holds, at its secret address

    The address is in the booking. Confirmed seats stand in it as confirmed, with the online link; what waits or is offered as
    tentative, what is off as cancelled. No name, telephone or code. Once the booking is erased it is not there (404): nothing is
    kept by which it could be told from an address that never was.
    """
    to = written_for(query)
    entries = calendars.of_booking(reader().current, bookings.feed(secret))
    response = Response(calendars.written(to.word("mine"), entries, to), content_type=TYPE)
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return response

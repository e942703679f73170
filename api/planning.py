"""Planning a term: a recurrence becomes draft sessions, and each date says what stands in its way.

`dry_run` (true unless said otherwise) shows what would be written; the second call, with `dry_run` false, writes all of it or
nothing. The same call again changes nothing.
"""

from datetime import timedelta
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import actor
from api.clashes import FlagOut, exam_days, flag_out, readable
from api.errors import Messages
from api.guard import Blueprint
from api.sessions import SessionIn, own, stored
from api.shapes import codes, settings
from content import courses, planning, recurrence

staff = Blueprint("staff_planning", __name__, url_prefix="/v1/staff", description="Plan a term's sessions")

MOST_LEAD = 60 * 24  # hours from the end of booking to the start
CLOCK = validate.Length(10, 19)


class MovedIn(ma.Schema):
    start = ma.fields.String(required=True, data_key="from", attribute="from", validate=CLOCK, metadata={"example": "2027-05-03"})
    to = ma.fields.String(required=True, validate=CLOCK, metadata={"example": "2027-05-05T18:30"})
    duration_minutes = ma.fields.Integer(strict=True, validate=validate.Range(1, recurrence.LONGEST))


def clocks(about: str) -> Any:
    """Local dates or date-times."""
    known = {"description": about}
    return ma.fields.List(ma.fields.String(validate=CLOCK), load_default=list, validate=validate.Length(max=400), metadata=known)


class PlanIn(SessionIn):
    """When, and what all of the sessions have in common."""

    class Meta:
        exclude = ("starts_at", "ends_at", "booking_closes_at")

    first = ma.fields.String(
        required=True, validate=CLOCK, metadata={"description": "local start, without offset", "example": "2027-03-05T19:00"}
    )
    duration_minutes = ma.fields.Integer(strict=True, required=True, validate=validate.Range(1, recurrence.LONGEST))
    rule = ma.fields.String(
        load_default="",
        validate=validate.Length(max=500),
        metadata={
            "description": "RFC 5545 RRULE with COUNT or UNTIL; empty: the first date and those added",
            "example": "FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;UNTIL=20270702",
        },
    )
    excluded = clocks("dates on which there is none")
    added = clocks("further dates, at the first one's time where none is given")
    moved = ma.fields.List(ma.fields.Nested(MovedIn), load_default=list, validate=validate.Length(max=recurrence.MOST))
    skip = codes(planning.SKIPS)
    booking_closes_hours_before = ma.fields.Integer(strict=True, load_default=0, validate=validate.Range(0, MOST_LEAD))
    dry_run = ma.fields.Boolean(load_default=True)


class PlannedRow(ma.Schema):
    id = ma.fields.String(metadata={"description": "of the session"})
    starts_at = ma.fields.String(metadata={"description": "local time with offset", "example": "2027-05-14T19:00:00+08:00"})
    ends_at = ma.fields.String()
    outcome = ma.fields.String(validate=validate.OneOf(["new", "changed", "unchanged", "skipped", "refused"]))
    flags = ma.fields.List(ma.fields.Nested(FlagOut))
    messages = ma.fields.List(ma.fields.Nested(Messages), metadata={"description": "why it is refused"})


class Planned(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(PlannedRow))
    written = ma.fields.Boolean()


TIMING = ("first", "rule", "excluded", "added", "moved")


@staff.post("/courses/<string:course_id>/plan")
@staff.arguments(PlanIn)
@staff.alt_response(200, schema=Planned, description="Every date; with `dry_run` nothing was written")
def plan(payload: dict[str, Any], course_id: str) -> Response:
    """Make a recurrence the draft sessions of a series

    Each date is flagged when it is a public holiday, a working day made up for one, a local exam day, in a year whose holidays
    are not known, or when lecturer or room are taken; `skip` leaves out holidays, workdays or exam_days. Ids follow from series
    and local start, so a second call changes drafts and makes nothing twice. One refused date keeps all out (422).
    """
    own(courses.series(course_id), "course.write")
    timing = {name: payload.pop(name) for name in TIMING}
    timing |= {"minutes": payload.pop("duration_minutes"), "zone": payload.pop("zone", settings().zone)}
    skip, dry_run = payload.pop("skip", ()), payload.pop("dry_run")
    lead = timedelta(hours=payload.pop("booking_closes_hours_before"))
    rows = planning.plan(course_id, timing, stored(payload), actor().id, skip=skip, lead=lead, exams=exam_days, dry_run=dry_run)
    return jsonify({"items": [row_out(row) for row in rows], "written": not dry_run})


def row_out(row: planning.Row) -> dict[str, Any]:
    """`PlannedRow`."""
    flags = [*row.flags, *(planning.told(clash, readable(clash)) for clash in row.clashes)]
    return {
        "id": row.id,
        "starts_at": row.starts_at.isoformat(),
        "ends_at": row.ends_at.isoformat(),
        "outcome": row.outcome,
        "flags": [flag_out(flag) for flag in flags],
        "messages": row.messages,
    }

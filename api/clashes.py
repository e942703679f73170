"""What stands in a session's way: who takes its lecturer or room, asked before it is published, and local exam days."""

import functools
from datetime import date
from typing import Any

import marshmallow as ma
from flask import Response, jsonify

from api.auth import allowed, demand
from api.errors import Messages
from api.guard import Blueprint
from api.shapes import reader
from content import courses, planning, sessions
from content.courses import CourseSession
from content.failures import Conflict
from content.planning import Clash
from content.workdays import Flag
from notifications import seasons

staff = Blueprint("staff_clashes", __name__, url_prefix="/v1/staff", description="Lecturers and rooms taken twice")

EXAMS = ("gaokao", "zhongkao", "finals", "finals_summer")
NAMED = 5  # clashes that one refusal names; the rest stand under …/clashes


class FlagOut(ma.Schema):
    """Something to know of a date."""

    kind = ma.fields.String(metadata={"description": "holiday, workday, provisional, exam_day or clash"})
    text = ma.fields.Nested(Messages)


class ClashOut(FlagOut):
    """`session` and times are empty for a session of others that is not public."""

    session = ma.fields.String()
    starts_at = ma.fields.String(metadata={"description": "local time with offset"})
    ends_at = ma.fields.String()


class Clashes(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(ClashOut))


def readable(clash: Clash) -> bool:
    """Whether the asker may be told which session it is."""
    other = clash.session
    return clash.public or allowed("course.read", other.organisation, [other.division])


def flag_out(flag: Flag) -> dict[str, Any]:
    """`FlagOut`."""
    return {"kind": flag.kind, "text": {tag: flag.text[tag] for tag in ("zh-Hans", "en")}}


def exam_days(division: str) -> planning.ExamDays:
    """The exam seasons of a day in a division, by its confirmed dates and by the usual ones where there are none. Asked once of
    what is published: a page of sessions asks it of the same days again and again."""
    snapshot = reader().current
    kept = snapshot.memo("season")
    if ("exam_days", division) not in kept:
        confirmed = seasons.of_snapshot(snapshot)

        @functools.cache
        def spans(year: int) -> list[tuple[str, seasons.Span]]:
            return [
                (code, seasons.season(code, one, confirmed, division))
                for code in EXAMS
                for one in range(max(year - 1, 1), year + 1)
            ]

        def of(day: date) -> list[tuple[str, bool]]:
            return [(code, one.provisional) for code, one in spans(day.year) if one.first <= day <= one.last]

        kept["exam_days", division] = of
    return kept["exam_days", division]  # type: ignore[no-any-return]


def clash_out(clash: Clash) -> dict[str, Any]:
    """`ClashOut`."""
    other, known = clash.session, readable(clash)
    moments = (other.starts_at, other.ends_at)
    starts, ends = (courses.local(moment, other.zone) if known else "" for moment in moments)
    shown = flag_out(planning.told(clash, known))
    return {**shown, "session": other.id if known else "", "starts_at": starts, "ends_at": ends}


def demand_no_clash(session: CourseSession, despite: bool) -> None:
    """Before a publication, or a change of what is public. Raises `Conflict("clash")` that names the others, unless the asker
    knows of them (`despite`)."""
    found = [] if despite else planning.clashes_of(session)
    if found:
        raise Conflict("clash", what="; ".join(planning.said(planning.told(one, readable(one))) for one in found[:NAMED]))


@staff.get("/sessions/<string:session_id>/clashes")
@staff.alt_response(200, schema=Clashes)
def index(session_id: str) -> Response:
    """Other sessions, of any organisation, that take this one's lecturer or room while it lasts

    Of another organisation's draft only that it is there. Back to back is no clash, and online there is no room.
    """
    record = sessions.session(session_id)
    demand("course.read", record.organisation, [record.division], read="course.read", what=session_id)
    return jsonify({"items": [clash_out(one) for one in planning.clashes_of(record)]})

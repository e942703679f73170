"""What a session came to, for its lecturer and organiser: sums only, no names and no telephones.

The session's own numbers stay for good. What families answered when they booked is read from the sealed bookings and counted
while these are there; of a question that fewer than LEAST answered nothing is told. Afterwards they say more: `content.feedback`.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from content import bookings, courses, feedback, sessions
from content.bookings import HELD, Place, contact_of
from content.courses import CourseSession
from content.failures import NotFound
from content.feedback import STEP, Said

LEAST = STEP  # who answered a question before anything of it is told


class Asked(NamedTuple):
    """One of the organiser's questions with what was chosen."""

    question: Mapping[str, Any]
    answers: int
    counts: Mapping[str, int]


class Summary(NamedTuple):
    """One session."""

    session: CourseSession
    came: int
    """People: the organiser's own count, or else those checked in and the walk-ins."""
    no_shows: int | None
    """Seats held whose people were not checked in; None before it is over, and where nobody was checked in at all."""
    said: Said | None
    asked: list[Asked]


def summary(session_id: str, now: datetime, *, closely: bool = True) -> Summary:
    """What a session came to so far; `closely` with what families wrote and what they answered when they booked, for who may read
    the bookings themselves. The latter from the start on only, when nobody comes or goes any more: before it, the summary of one
    minute and of the next would single out who booked between them. Raises `NotFound`, also for a draft: nobody was there."""
    session = sessions.session(session_id)
    if session.state == "draft":
        raise NotFound(what=session_id)
    came = session.headcount if session.headcount is not None else session.attended + session.walk_ins
    counted = session.ends_at <= now and session.attended > 0
    no_shows = max(0, session.seats_taken - session.attended) if counted else None
    said = feedback.said(session_id, now)
    if not closely:
        return Summary(session, came, no_shows, said and said._replace(comments=[]), [])
    return Summary(session, came, no_shows, said, _asked(session) if session.starts_at <= now else [])


def _asked(session: CourseSession) -> list[Asked]:
    """Of each question with options, how many of those who come chose which; places that are over do not count."""
    try:
        known = [one for one in courses.series(session.series).questions if one["options"]]
    except NotFound:
        known = []
    if not known:
        return []
    rows = Place.rows().find({"session": session.id, "state": {"$in": list(HELD)}}, {"booking": 1})
    names = {row["booking"] for row in rows}
    found: dict[str, Counter[str]] = {one["code"]: Counter() for one in known}
    for row in bookings.of_session({"_id": session.id, "series": session.series}):
        if row["_id"] not in names:
            continue
        answers = contact_of(row).get("answers", {})
        for code, counts in found.items():
            if answers.get(code):
                counts[answers[code]] += 1
    told = []
    for one in known:
        counts, options = found[one["code"]], [option["code"] for option in one["options"]]
        total = sum(counts[option] for option in options)
        if total >= LEAST:
            told.append(Asked(one, total, {option: counts[option] for option in options}))
    return told

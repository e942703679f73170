"""After a session: three questions to the families, certificates of attendance, and what it came to for its lecturer.

Nothing here knows a person: feedback is told by fives (`content.feedback` says what that hides and what not), the name on a
certificate is typed when it is made and kept nowhere, and a summary has sums only.
"""

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front, papers
from api.auth import allowed
from api.guard import Blueprint
from api.sessions import own_session
from api.shapes import reader, settings, text
from api.sharewords import Reading, reading_of
from content import certificates, courses, feedback, store, summaries
from content.bookings import Held
from content.certificates import Certificate
from content.published import ANY
from content.registrations import PER_PHONE

blp = Blueprint("afterwards", __name__, url_prefix="/v1", description="Feedback and certificates after a session")
staff = Blueprint("staff_afterwards", __name__, url_prefix="/v1/staff", description="What a session came to")

UI = ("zh-Hans", "en")
PDF = {"schema": {"type": "string", "format": "binary"}, "content_type": "application/pdf"}


# --- feedback --------------------------------------------------------------------------------------------------------


class Choice(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String()


class AfterQuestion(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String()
    options = ma.fields.List(ma.fields.Nested(Choice), metadata={"description": "none: it is answered in words, or not at all"})


class FeedbackOut(ma.Schema):
    open = ma.fields.Boolean(metadata={"description": "it can be given now"})
    given = ma.fields.Boolean(metadata={"description": "it was given; what was said is known to nobody"})
    closes_at = ma.fields.String(metadata={"description": "fourteen days after the end; local time"})
    questions = ma.fields.List(ma.fields.Nested(AfterQuestion), metadata={"description": "while it is open"})


def feedback_out(held: Held) -> dict[str, Any]:
    """What a family can say of one place."""
    reading, session = reading_of(""), held.session
    is_open = not held.feedback and feedback.is_open(session, held.state, store.now())
    questions = [
        {
            "code": code,
            "text": reading.label(one.text),
            "options": [{"code": option, "text": reading.label(label)} for option, label in one.options.items()],
        }
        for code, one in feedback.QUESTIONS.items()
    ]
    closes = courses.local(feedback.closes_at(session), session.zone)
    return {"open": is_open, "given": held.feedback, "closes_at": closes, "questions": questions if is_open else []}


class FeedbackIn(ma.Schema):
    useful = ma.fields.Integer(required=True, strict=True, validate=validate.Range(1, 5), metadata={"description": "5: very"})
    try_at_home = ma.fields.String(required=True, validate=validate.OneOf(list(feedback.QUESTIONS["try_at_home"].options)))
    comment = ma.fields.String(
        load_default="", validate=validate.Length(max=feedback.LONGEST), metadata={"description": "no names, no telephones"}
    )


@blp.post("/bookings/<string:code>/places/<string:session_id>/feedback")
@blp.arguments(FeedbackIn)
@blp.response(204)
def give(payload: dict[str, Any], code: str, session_id: str) -> None:
    """Say how a session was, once for each place

    From its start until fourteen days after its end. Nobody can see who said what: answers become sums, which the organiser gets
    five answers at a time, and comments stand among the others without a name or a time. A second call changes nothing (409).
    """
    feedback.give(code, session_id, **payload)


# --- certificates ----------------------------------------------------------------------------------------------------


class CertificateIn(ma.Schema):
    name = ma.fields.String(
        load_default="",
        validate=validate.Length(max=certificates.LONGEST),
        metadata={"description": "as it is to be printed; kept nowhere. Empty: a line to write it on", "example": "王小明"},
    )
    seat = ma.fields.Integer(
        load_default=1,
        strict=True,
        validate=validate.Range(1, PER_PHONE),
        metadata={"description": "which of those who came with this booking; each has a number of its own"},
    )
    language = ma.fields.String(load_default="zh-Hans", validate=validate.OneOf(UI), metadata={"description": "of the page"})


def _paper(made: Certificate, payload: dict[str, Any]) -> Response:
    paper = papers.certificate(made, certificates.checked_name(payload["name"]), reading_of(payload["language"]))
    response = Response(paper, content_type="application/pdf")
    response.headers["Content-Disposition"] = 'attachment; filename="certificate.pdf"'
    return response


@blp.post("/bookings/<string:code>/places/<string:session_id>/certificate")
@blp.arguments(CertificateIn)
@blp.alt_response(200, **PDF, description="A4")
def certificate(payload: dict[str, Any], code: str, session_id: str) -> Response:
    """A certificate of attendance

    Once the session is over, for whoever was checked in. The same seat gets the same number each time. The name is printed and
    neither kept nor logged.
    """
    return _paper(certificates.of_place(settings(), code, session_id, payload["seat"], store.now()), payload)


@blp.post("/bookings/<string:code>/certificate")
@blp.arguments(CertificateIn)
@blp.alt_response(200, **PDF, description="A4")
def certificate_whole(payload: dict[str, Any], code: str) -> Response:
    """One certificate for all sessions of the booking that were attended so far, with the sum of their class-hours"""
    return _paper(certificates.of_booking(settings(), code, payload["seat"], store.now()), payload)


class CertificateOut(ma.Schema):
    valid = ma.fields.Boolean(metadata={"description": "it was given out here, and the session was not cancelled"})
    kind = ma.fields.String(allow_none=True, validate=validate.OneOf([*certificates.KINDS, None]))
    title = ma.fields.String(allow_none=True, metadata={"description": "of the session, or of the series"})
    organiser = ma.fields.String(allow_none=True)
    first_on = ma.fields.String(allow_none=True, metadata={"description": "local date", "example": "2027-05-15"})
    last_on = ma.fields.String(allow_none=True, metadata={"description": "of the last session; the same for a single one"})
    sessions = ma.fields.Integer(allow_none=True, metadata={"description": "how many were attended"})
    class_hours = ma.fields.Integer(allow_none=True)


@blp.get("/certificates/<string:number>")
@blp.alt_response(200, schema=CertificateOut)
def verify(number: str) -> Response:
    """Whether a certificate was given out here, and for what

    It says no name: none is known. It works after the booking was erased, and while the database is away.
    """
    found, told = proved(number), dict.fromkeys(CertificateOut().fields)
    if found:
        front.keep(60)
        wanted = front.wanted()
        told |= {name: text(found[name], wanted) for name in ("title", "organiser")}
        told |= {name: found[name] for name in ("kind", "sessions", "class_hours")}
        told |= {f"{name}_on": found[name].isoformat() for name in ("first", "last")}
    return jsonify({**told, "valid": found is not None})


def proved(number: str) -> dict[str, Any] | None:
    """What a certificate's number proves: `certificates.Facts`, and title and organiser by language; None for a number that was
    not given out here, or whose session did not take place."""
    facts = certificates.read(settings(), number)
    found = _attended(facts.kind, facts.key) if facts else None
    return {**facts._asdict(), **found} if facts and found else None


def _attended(kind: str, key: str) -> dict[str, Any] | None:
    """Title and organiser of what a certificate is for; None when it is not there, or a session did not take place."""
    snapshot = reader().current
    items = (snapshot.get(one, key).get(ANY) for one in (kind, f"invited_{kind}"))
    content = next((item.content for item in items if item and item.content), None)
    if content is None or (kind == "session" and content["state"] == "cancelled"):
        return None
    parents = (snapshot.get(one, content.get("series", key)).get(ANY) for one in ("series", "invited_series"))
    parent: Mapping[str, Any]
    parent = next((item.content for item in parents if item and item.content), {"texts": {}, "organiser_name": {}})
    title = {tag: row["title"] for tag, row in parent["texts"].items()}
    return {"title": (content["title"] if kind == "session" else {}) or title, "organiser": parent["organiser_name"]}


# --- the summary -----------------------------------------------------------------------------------------------------


class Counted(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String()
    count = ma.fields.Integer()


class QuestionCounted(ma.Schema):
    code = ma.fields.String()
    text = ma.fields.String()
    options = ma.fields.List(ma.fields.Nested(Counted))


class FeedbackTold(ma.Schema):
    told = ma.fields.Boolean(metadata={"description": f"false: fewer than {feedback.STEP} have answered, and nothing is told"})
    answers = ma.fields.Integer(metadata={"description": f"told so far, {feedback.STEP} at a time; 0 while nothing is"})
    questions = ma.fields.List(ma.fields.Nested(QuestionCounted))
    comments = ma.fields.List(ma.fields.String(), metadata={"description": "in no order; erased 29 days after the session"})


class SummaryOut(ma.Schema):
    session = ma.fields.String()
    title = ma.fields.String()
    series = ma.fields.String(metadata={"description": "its title"})
    state = ma.fields.String()
    starts_at = ma.fields.String()
    ends_at = ma.fields.String()
    venue = ma.fields.String()
    lecturer = ma.fields.String()
    class_hours = ma.fields.Integer()
    capacity = ma.fields.Integer()
    booked = ma.fields.Integer(metadata={"description": "seats"})
    waiting = ma.fields.Integer(metadata={"description": "families who waited and got no seat"})
    attended = ma.fields.Integer(metadata={"description": "seats checked in"})
    walk_ins = ma.fields.Integer()
    headcount = ma.fields.Integer(allow_none=True, metadata={"description": "the organiser's own count"})
    came = ma.fields.Integer(metadata={"description": "headcount, or else attended and walk_ins"})
    no_shows = ma.fields.Integer(allow_none=True, metadata={"description": "null before its end, or without any check-in"})
    feedback = ma.fields.Nested(FeedbackTold)
    questions = ma.fields.List(
        ma.fields.Nested(QuestionCounted),
        metadata={"description": f"asked when booking; those with {summaries.LEAST} answers or more, while bookings are there"},
    )


def summary_out(found: summaries.Summary, reading: Reading) -> dict[str, Any]:
    """`SummaryOut`."""
    session, said, about = found.session, found.said, papers.told(found.session, reading)
    asked = [
        {
            "code": one.question["code"],
            "text": reading.text(one.question["text"])["text"],
            "options": [
                {"code": option["code"], "text": reading.text(option["text"])["text"], "count": one.counts[option["code"]]}
                for option in one.question["options"]
            ],
        }
        for one in found.asked
    ]
    counted = [
        {
            "code": name,
            "text": reading.label(feedback.QUESTIONS[name].text),
            "options": [
                {"code": option, "text": reading.label(feedback.QUESTIONS[name].options[option]), "count": count}
                for option, count in chosen.items()
            ],
        }
        for name, chosen in (said.counts.items() if said else ())
    ]
    return {
        "session": session.id,
        "title": about["title"],
        "series": about["series"]["title"],
        **{name: about[name] for name in ("state", "starts_at", "ends_at", "class_hours", "capacity")},
        **{name: (about[name] or {}).get("name", "") for name in ("venue", "lecturer")},
        "booked": session.seats_taken,
        **{name: getattr(session, name) for name in ("waiting", "attended", "walk_ins", "headcount")},
        "came": found.came,
        "no_shows": found.no_shows,
        "feedback": {
            "told": said is not None,
            "answers": said.answers if said else 0,
            "questions": counted,
            "comments": said.comments if said else [],
        },
        "questions": asked,
    }


def summed(session_id: str) -> summaries.Summary:
    """What a session came to, as closely as the asker may know it."""
    session = own_session(session_id, "course.read")
    closely = allowed("booking.read", session.organisation, [session.division])
    return summaries.summary(session_id, store.now(), closely=closely)


@staff.get("/sessions/<string:session_id>/summary")
@staff.alt_response(200, schema=SummaryOut)
def summary(session_id: str) -> Response:
    """What a session came to: sums, no names and no telephones

    Comments, and what families answered when they booked (from the session's start on), are for who may read bookings.
    """
    return jsonify(summary_out(summed(session_id), reading_of("")))


class PageQuery(ma.Schema):
    language = ma.fields.String(load_default="zh-Hans", validate=validate.OneOf(UI))


@staff.get("/sessions/<string:session_id>/summary.pdf")
@staff.arguments(PageQuery, location="query")
@staff.alt_response(200, **PDF, description="A4")
def summary_pdf(query: dict[str, Any], session_id: str) -> Response:
    """The summary on paper, for the lecturer"""
    made = papers.summary(summed(session_id), reading_of(query["language"]), store.now())
    return Response(made, content_type="application/pdf")

"""What is passed on of a course: a page for each session and series that opens inside a chat app, its QR code, and a poster.

A page stands alone: no cookie, no login, nothing from elsewhere, no script needed to read it (one of ours, from here, books a
seat). It is written from the published set and is read while the database is away. All that it links to is a path; the absolute
addresses that a QR code and a chat app's card need are made from XINQIAO_PUBLIC_URL and never from a request's Host.

What is by invitation opens with `?invitation=CODE` alone, is kept by nobody, and its QR code and poster carry the code.
"""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import flask
import marshmallow as ma
import segno
from flask import Response, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from marshmallow import validate

from api import front, guard
from api.guard import Blueprint
from api.shapes import Tag, reader, settings
from api.sharewords import MONTHS, WEEKDAYS, Reading, reading_of
from content import bookings, courses, languages, printing, registrations, store
from content.failures import Failure, Invalid, NotFound, Unavailable
from content.published import ANY, Item
from content.vocabulary import AUDIENCES, FORMATS, PLACES, STAGES, STEPS, TOPICS, Label, Stage

blp = Blueprint("sharing", __name__, url_prefix="/v1", description="QR codes and posters of courses")
pages = flask.Blueprint("pages", __name__)

FOLDER = Path(__file__).parent / "pages"
TEMPLATES = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
SCRIPTS = {name: (FOLDER / f"{name}.js").read_text() for name in ("share", "booking")}
STYLES = {name: (FOLDER / f"{name}.css").read_text() for name in ("share", "poster")}
HASHES = {name: base64.b64encode(hashlib.sha256(css.encode()).digest()).decode() for name, css in STYLES.items()}
CODE = re.compile("[0-9A-Za-z]{5}-[0-9A-Za-z]{5}-[0-9A-Za-z]{5}")
MOST_LISTED = 8  # coming sessions on a series' page; the calendar has all


class Found(NamedTuple):
    """One published thing that the asker may see."""

    item: Item
    content: Mapping[str, Any]
    series: Mapping[str, Any]
    """Its own content when it is a series; {} when there is none."""
    invitation: str
    """The code that opened it; "": it is for all."""
    path: str
    """Of its page: /s/ID, /c/ID."""

    @property
    def query(self) -> dict[str, str]:
        """What its addresses carry."""
        return {"invitation": self.invitation} if self.invitation else {}

    @property
    def page(self) -> str:
        """The absolute address of its page."""
        return settings().public(linked(self.path, self.query))


def linked(path: str, query: Mapping[str, str]) -> str:
    """A path with a query."""
    return f"{path}?{urlencode(query)}" if query else path


def found(noun: str, key: str, invitation: str) -> Found:
    """The published "session" or "series" of this id. Raises `NotFound`, also for one by invitation without its code: that it is
    there is not to be known; and `TooMany` for who tries codes."""
    snapshot = reader().current
    path = f"/{'s' if noun == 'session' else 'c'}/{key}"
    for kind in (noun, f"invited_{noun}"):
        item = snapshot.get(kind, key).get(ANY)
        if item is None or item.content is None:
            continue
        parent = snapshot.get(kind.replace("session", "series"), item.content.get("series", key)).get(ANY)
        series = (parent.content if parent else None) or {}
        if kind == noun:
            return Found(item, item.content, series, "", path)
        guard.limit("sharing.invitation", request.remote_addr or "")
        if invitation and courses.invited(series, invitation[:40]):
            return Found(item, item.content, series, invitation, path)
    raise NotFound(what=key)


def keep(one: Found) -> None:
    """Let the front keep the answer until what it says of the present ends; one by invitation is kept by nobody."""
    if one.invitation:
        return
    now = store.now()
    ends = [
        datetime.fromisoformat(one.content[name]) for name in ("booking_closes_at", "starts_at", "ends_at") if name in one.content
    ]
    left = [(moment - now).total_seconds() for moment in ends if moment > now]
    front.keep(max(1.0, min([600.0, *left])))


# --- what a page says ------------------------------------------------------------------------------------------------


def labelled(codes: Sequence[str], table: Mapping[str, Label], reading: Reading) -> str:
    """Codes as words; one that the table has not as it is."""
    return ("、" if reading.ui != "en" else ", ").join(reading.label(table[c]) if c in table else c for c in codes)


def stage_name(text: str, reading: Reading) -> str:
    """A stage as families say it."""
    stage = Stage.parse(text)
    name, en = reading.label(STAGES[stage.stage]), reading.ui == "en"
    if stage.grade is not None:
        name = f"grade {stage.grade}" if en else f"{stage.grade}年级"
    first, last = (" (first year)", " (final year)") if en else ("（入学年）", "（毕业年）")
    return name + first * stage.entering + last * stage.final_year


def for_whom(series: Mapping[str, Any], reading: Reading) -> str:
    """Audiences and stages in one line."""
    whom = labelled(series.get("audiences", []), AUDIENCES, reading)
    ages = ("、" if reading.ui != "en" else ", ").join(stage_name(one, reading) for one in series.get("stages", []))
    return " · ".join(part for part in (whom, ages or reading.say("everyone")) if part)


def row(label: str, *parts: dict[str, str], strong: bool = False) -> list[dict[str, Any]]:
    """One fact, or none where nothing is known."""
    kept = [part for part in parts if part["text"]]
    return [{"label": label, "parts": kept, "strong": strong}] if kept else []


def person(one: Mapping[str, Mapping[str, str]], reading: Reading) -> dict[str, str]:
    """A lecturer's name and field."""
    name, field = reading.text(one.get("name")), reading.text(one.get("field"))["text"]
    brackets = " ({})" if reading.ui == "en" else "（{}）"
    return {**name, "text": name["text"] + brackets.format(field) if field else name["text"]}


def facts(one: Found, reading: Reading) -> list[dict[str, Any]]:
    """What, when, where, for whom, by whom: rows of a page and of a poster."""
    content, series, say = one.content, one.series, reading.say
    rows: list[dict[str, Any]] = []
    lecturers = series.get("lecturers", [])
    if one.path.startswith("/s/"):
        starts, ends = (datetime.fromisoformat(content[name]) for name in ("starts_at", "ends_at"))
        venue = content["venue"] or {}
        place = [reading.text(venue.get(name)) for name in ("name", "address")]
        online = [reading.own(say("online"))] if content.get("online") else []
        rows += row(say("when"), reading.own(reading.span(starts, ends)), strong=True)
        rows += row(say("where"), *place, *online) or row(say("where"), reading.own(reading.label(PLACES[content["place"]])))
        rows += row(say("access"), reading.text(venue.get("access")))
        lecturers = [content["lecturer"]] if content["lecturer"] else lecturers
    rows += row(say("lecturer"), *(person(lecturer, reading) for lecturer in lecturers))
    rows += row(say("for"), reading.own(for_whom(series, reading) if series else ""))
    about = [labelled([series["format"]], FORMATS, reading)] if series else []
    about += [labelled([content["step"]], STEPS, reading)] if content.get("step") else []
    about += [labelled(series["topics"], TOPICS, reading)] if series.get("topics") else []
    rows += row(say("what"), reading.own(" · ".join(about)))
    held = [languages.NAMES.get(tag, tag) for tag in series.get("languages", [])]
    rows += row(say("held_in"), reading.own(" / ".join(held)))
    rows += row(say("organiser"), reading.text(series.get("organiser_name")))
    return rows + row(say("contact"), reading.text(series.get("contact")))


class Booking(NamedTuple):
    """How a session stands with booking."""

    open: bool
    word: str
    """In one line, for the facts and for lists."""
    notes: list[tuple[str, str, str]]
    """(kind "warn" or "", head, words) beside the title."""


def booking(one: Found, reading: Reading) -> Booking:
    """How a session stands now: cancelled, moved, over, closed, full, open."""
    content, say, now = one.content, reading.say, store.now()
    starts, ends, closes = (datetime.fromisoformat(content[n]) for n in ("starts_at", "ends_at", "booking_closes_at"))
    if content["state"] == "cancelled" or one.series.get("state") == "cancelled":
        return Booking(False, say("cancelled"), [("warn", say("cancelled"), say("cancelled_more"))])
    if content["state"] == "finished" or now >= ends:
        return Booking(False, say("finished"), [("", say("finished"), say("finished_more"))])
    notes: list[tuple[str, str, str]] = []
    if before := content.get("moved_from"):
        notes.append(("warn", say("moved"), say("moved_from") + reading.moment(datetime.fromisoformat(before))))
    if content.get("provisional"):
        notes.append(("", say("provisional"), say("provisional_more")))
    if now >= starts:
        return Booking(False, say("begun"), [*notes, ("", say("begun"), say("begun_more"))])
    if now >= closes:
        return Booking(False, say("closed"), [*notes, ("", say("closed"), say("closed_more"))])
    word = say(content["seats"])
    if content["seats"] == "full":
        waits = bool(content.get("waiting_list"))
        return Booking(waits, word, [*notes, ("", word, say("waiting_list" if waits else "no_waiting"))])
    if one.series.get("approval"):
        notes.append(("", word, say("approval")))
    return Booking(True, word, notes)


def title_of(one: Found, reading: Reading) -> tuple[dict[str, str], dict[str, str]]:
    """(name, what stands above it): a session under its series, where it has a title of its own."""
    series = reading.text({tag: texts["title"] for tag, texts in one.series.get("texts", {}).items()})
    if one.path.startswith("/s/") and one.content["title"]:
        return reading.text(one.content["title"]), series
    return series, reading.own("")


def materials(names: Iterable[str], reading: Reading) -> list[dict[str, Any]]:
    """What is read and handed out, as far as it is published. A lesson is read in the app: its name alone."""
    snapshot, result = reader().current, []
    for name in names:
        kind, _, key = name.partition(":")
        rows = snapshot.get(kind, key)
        if kind == "media" and ANY in rows:
            content = rows[ANY].content or {}
            shown = reading.text(content.get("alt")) if content.get("alt") else reading.own(content.get("title") or key[:12])
            result.append({"link": f"/v1/media/{key}/file", "name": shown})
        elif kind == "lesson" and rows:
            titles = {tag: (item.content or {})["title"] for tag, item in rows.items() if "-x-" not in tag}
            result += [{"link": "", "name": reading.text(titles)}] if titles else []
    return result


def coming(one: Found, reading: Reading) -> list[dict[str, Any]]:
    """The sessions of a series that are not over, in order of time."""
    kind, now, result = "invited_session" if one.invitation else "session", store.now(), []
    every = [rows[ANY].content or {} for rows in reader().current.entries(kind).values() if ANY in rows]
    for content in sorted((c for c in every if c["series"] == one.content["id"]), key=_start):
        if datetime.fromisoformat(content["ends_at"]) > now:
            session = one._replace(content=content, path=f"/s/{content['id']}")
            when = reading.span(_start(content), datetime.fromisoformat(content["ends_at"]))
            row: dict[str, Any] = {"id": content["id"], "link": linked(session.path, one.query), "when": when}
            row |= {"name": reading.text(content["title"]), "word": booking(session, reading).word}
            result.append({**row, "off": content["state"] == "cancelled"})
    return result[:MOST_LISTED]


def _start(content: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(content["starts_at"])


def about(one: Found, reading: Reading) -> dict[str, Any]:
    """Everything that the templates name."""
    session = one.path.startswith("/s/")
    name, above = title_of(one, reading)
    say, content, series = reading.say, one.content, one.series
    stand = booking(one, reading) if session else None
    notes = stand.notes if stand else []
    if not session and content["state"] == "cancelled":
        notes = [("warn", say("cancelled"), say("course_cancelled_more"))]
    rows = facts(one, reading)
    described = " · ".join(part["text"] for fact in rows[:4] for part in fact["parts"])  # no seats: chat apps keep it
    if stand and stand.open:
        closes = reading.moment(datetime.fromisoformat(content["booking_closes_at"]))
        rows[1:1] = row(say("places"), reading.own(stand.word)) + row(say("until"), reading.own(closes))
    sessions = [] if session else coming(one, reading)
    handed = [*content.get("materials", []), *series.get("materials", [])]
    cover = one.path if session else f"/s/{sessions[0]['id']}" if sessions else ""
    here = reading.pick(series["texts"]) if series.get("texts") else reading.ui
    base = f"/v1/{'sessions' if session else 'courses'}/{content['id']}"
    asked = {**one.query, **({"language": request.args["language"]} if "language" in request.args else {})}
    first = "：".join(part["text"] for part in (above, name) if part["text"]) if reading.ui != "en" else name["text"]
    return {
        "id": content["id"], "ui": reading.ui, "say": say, "name": name, "above": above if above["text"] else None,
        "language": reading.ui, "direction": "ltr", "quiet": bool(one.invitation), "notes": notes,
        "title": (f"【{notes[0][1]}】" if notes and notes[0][0] else "") + first,
        "above_link": linked(f"/c/{content.get('series', '')}", asked),
        "off": bool(notes) and notes[0][1] == say("cancelled"),
        "summary": reading.text({tag: texts["summary"] for tag, texts in series.get("texts", {}).items() if texts["summary"]}),
        "rows": rows, "sessions": sessions, "materials": materials(dict.fromkeys(handed), reading),
        "described": described[:200],
        "address": one.page, "base": settings().public(), "cover": linked(f"{cover}/cover.png", one.query) if cover else "",
        "bookable": bool(stand and stand.open), "waits": bool(content.get("waiting_list")), "invitation": one.invitation,
        "most_seats": registrations.PER_PHONE,
        "organiser": " ".join(reading.text(series.get(name))["text"] for name in ("organiser_name", "contact")).strip(),
        "questions": [question(q, reading) for q in series.get("questions", [])],
        "calendar": "" if one.invitation or not series else linked(f"/v1/calendars/courses/{series['id']}.ics", {}),
        "poster": linked(f"{base}/poster", asked),
        "paper": linked(f"{base}/poster.pdf", asked), "qr": linked(f"{base}/qr.svg", one.query),
        "tongues": tongues(one, reading, here),
    }  # fmt: skip


def question(one: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """What the organiser asks at booking."""
    options = [{"code": option["code"], "name": reading.text(option["text"])} for option in one["options"]]
    return {"code": one["code"], "name": reading.text(one["text"]), "required": one["required"], "options": options}


def tongues(one: Found, reading: Reading, here: str) -> list[dict[str, Any]]:
    """The languages in which the page can be read; the links stand for what no Accept-Language says."""
    result = []
    for tag in sorted({*one.series.get("texts", {}), "zh-Hans", "en"}, key=lambda tag: (tag != "zh-Hans", tag)):
        link = linked(one.path, {**one.query, "language": tag})
        chosen = tag == (here if here not in {"zh-Hans", "en"} else reading.ui)
        result.append({"language": tag, "name": languages.NAMES.get(tag, tag), "link": link, "here": chosen})
    return result


# --- pages -----------------------------------------------------------------------------------------------------------


def written(template: str, style: str, values: Mapping[str, Any], status: int = 200, script: bool = False) -> Response:
    """A page that may load nothing but what is ours."""
    html = TEMPLATES.get_template(template).render(style=Markup(STYLES[style]), **values)  # noqa: S704  our own file
    response = Response(html, status, content_type="text/html; charset=utf-8")
    scripts = "script-src 'self'; connect-src 'self'; " if script else ""
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'sha256-{HASHES[style]}'; img-src 'self'; {scripts}"
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["Vary"] = "Accept-Language"
    return response


def spoken() -> str:
    """?language= of a page; a malformed one is passed over, since chat apps add to addresses and cut them."""
    try:
        return languages.tag(request.args["language"]) if request.args.get("language") else ""
    except Invalid:
        return ""


def lost(word: str, status: int) -> Response:
    """A page that says that nothing is here, in both languages."""
    ui = reading_of(spoken()).ui
    here, there = (Reading((), one) for one in (("en", "zh-Hans") if ui == "en" else ("zh-Hans", "en")))
    values = {
        "language": ui, "direction": "ltr", "quiet": True, "title": here.say(word), "words": here.say(f"{word}_more"),
        "other_language": there.ui, "cover": "", "other": f"{there.say(word)} · {there.say(f'{word}_more')}",
    }  # fmt: skip
    return written("lost.html", "share", values, status)


def untaught() -> bool:
    """Whether this process was born while the database is away, and knows nothing."""
    return not reader().current.seq and not reader().up


def page(noun: str, key: str) -> Response:
    """A share page, or the page that says why there is none."""
    if untaught():
        response = lost("away", 503)
        response.headers["Retry-After"] = str(store.RETRY_AFTER)
        return response
    try:
        one = found(noun, key, request.args.get("invitation", ""))
    except NotFound:
        return lost("lost", 404)
    except Failure:
        return lost("away", 429)
    values = about(one, reading_of(spoken()))
    keep(one)
    return written("share.html", "share", values, script=values["bookable"])


@pages.get("/s/<string:session_id>")
def session(session_id: str) -> Response:
    """The page of a session."""
    return page("session", session_id)


@pages.get("/c/<string:course_id>")
def course(course_id: str) -> Response:
    """The page of a series."""
    return page("series", course_id)


@pages.get("/s/<string:session_id>/cover.png")
def cover(session_id: str) -> Response:
    """The leaf of a tear-off calendar: what a chat app shows beside the title."""
    if untaught():
        raise Unavailable()
    one = found("session", session_id, request.args.get("invitation", ""))
    reading, starts = reading_of(spoken()), datetime.fromisoformat(one.content["starts_at"])
    off = one.content["state"] == "cancelled" or one.series.get("state") == "cancelled"
    zh, en = WEEKDAYS[starts.weekday()]
    head, foot = (f"{MONTHS[starts.month - 1]}", en[:3]) if reading.ui == "en" else (f"{starts.month}月", zh)
    keep(one)
    made = printing.leaf(reading.say("cancelled") if off else head, str(starts.day), f"{foot} {starts:%H:%M}", off)
    return Response(made, content_type="image/png")


@pages.get("/b")
def booking_page() -> Response:
    """The page that opens a booking by its code. It is the same for all: the code stays in the browser."""
    reading = reading_of(spoken())
    values = {
        "language": reading.ui, "direction": "ltr", "quiet": True, "cover": "", "ui": reading.ui, "say": reading.say,
        "title": reading.say("my_booking"), "states": bookings.STATES,
    }  # fmt: skip
    front.keep()
    return written("booking.html", "share", values, script=True)


@pages.get("/<any(share, booking):name>.js")
def script(name: str) -> Response:
    """What books a seat from a page, and what opens a booking."""
    front.keep(max_age=3600)
    return Response(SCRIPTS[name], content_type="text/javascript; charset=utf-8")


# --- QR codes and posters --------------------------------------------------------------------------------------------


class Invited(ma.Schema):
    invitation = ma.fields.String(
        load_default="", validate=validate.Length(max=40), metadata={"description": "the code of a course by invitation"}
    )


class PosterQuery(Invited):
    language = Tag(load_default="", metadata={"description": "instead of Accept-Language", "example": "zh-Hans"})


def square(address: str) -> str:
    """A QR code of level M with its quiet zone, as SVG without a size of its own."""
    out = io.BytesIO()
    segno.make_qr(address, error="m").save(
        out, kind="svg", border=printing.QUIET, xmldecl=False, omitsize=True, dark="#000", light="#fff", nl=False
    )
    return out.getvalue().decode()


def qr(noun: str, key: str, query: Mapping[str, Any]) -> Response:
    """The QR code of a page's address."""
    one = found(noun, key, query["invitation"])
    keep(one)
    return Response(square(one.page), content_type="image/svg+xml")


def poster(noun: str, key: str, query: Mapping[str, Any]) -> Response:
    """A poster as a page of A4."""
    one = found(noun, key, query["invitation"])
    reading = reading_of(query["language"])
    keep(one)
    values = {**about(one, reading), "quiet": True}
    values["rows"] = posted(one, values, reading)
    return written("poster.html", "poster", {**values, "code": Markup(square(one.page))})  # noqa: S704  segno's own


def posted(one: Found, values: Mapping[str, Any], reading: Reading) -> list[dict[str, Any]]:
    """The facts that still hold when the paper hangs: no seats; of a series its coming sessions."""
    rows = facts(one, reading)
    dates = [reading.own(f"{s['when']} {s['name']['text']}") for s in values["sessions"] if not s["off"]]
    return row(reading.say("when"), *dates) + rows


def poster_pdf(noun: str, key: str, query: Mapping[str, Any]) -> Response:
    """A poster as a PDF, its font inside."""
    one = found(noun, key, query["invitation"])
    reading = reading_of(query["language"])
    values, say = about(one, reading), reading.say
    lines = [printing.Line(values["above"]["text"], 17, colour=printing.MARK)] if values["above"] else []
    lines.append(printing.Line(values["name"]["text"], 36, bold=True))
    lines += [printing.Line(head, 24, bold=True, colour=printing.WARN) for kind, head, _ in values["notes"] if kind]
    lines.append(printing.Line(values["summary"]["text"], 14, gap=4))
    for fact in posted(one, values, reading):
        lines.append(printing.Line(fact["label"], 11, colour=printing.GREY, gap=5))
        lines += [printing.Line(part["text"], 20 if fact["strong"] else 16, bold=fact["strong"], gap=0) for part in fact["parts"]]
    keep(one)
    at = max(one.item.at, datetime(2000, 1, 1, tzinfo=UTC))
    under = (say("scan"), say("no_account"), say("may_change"))
    made = printing.pdf(lines, title=values["title"], at=at, qr=one.page, under_qr=under, language=reading.ui)
    response = Response(made, content_type="application/pdf")
    response.headers["Content-Disposition"] = f'inline; filename="poster-{key}.pdf"' if key.isascii() else "inline"
    return response


@blp.get("/bookings/<string:code>/qr.svg")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def booking_qr(code: str) -> Response:
    """A booking's code as a QR code

    It leads to the page that opens the booking; the code follows after `#`, which browsers send to nobody. Of any code that could
    be one: whether it is one is not told.
    """
    if not CODE.fullmatch(code):
        raise NotFound(what="booking")
    return Response(square(settings().public(f"/b#{code.upper()}")), content_type="image/svg+xml")


@blp.get("/sessions/<string:session_id>/qr.svg")
@blp.arguments(Invited, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def session_qr(query: dict[str, Any], session_id: str) -> Response:
    """The QR code of a session's share page"""
    return qr("session", session_id, query)


@blp.get("/courses/<string:course_id>/qr.svg")
@blp.arguments(Invited, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="image/svg+xml", description="Level M, quiet zone 4")
def course_qr(query: dict[str, Any], course_id: str) -> Response:
    """The QR code of a series' share page"""
    return qr("series", course_id, query)


@blp.get("/sessions/<string:session_id>/poster")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="text/html", description="A page of A4 to print")
def session_poster(query: dict[str, Any], session_id: str) -> Response:
    """A session's poster as a page, in any script that the browser has"""
    return poster("session", session_id, query)


@blp.get("/courses/<string:course_id>/poster")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string"}, content_type="text/html", description="A page of A4 to print")
def course_poster(query: dict[str, Any], course_id: str) -> Response:
    """A series' poster as a page, with its coming sessions"""
    return poster("series", course_id, query)


@blp.get("/sessions/<string:session_id>/poster.pdf")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string", "format": "binary"}, content_type="application/pdf", description="A4")
def session_poster_pdf(query: dict[str, Any], session_id: str) -> Response:
    """A session's poster as a PDF

    Set in Noto Sans SC: Chinese, Latin and Cyrillic. For a poster in traditional Mongolian print the page.
    """
    return poster_pdf("session", session_id, query)


@blp.get("/courses/<string:course_id>/poster.pdf")
@blp.arguments(PosterQuery, location="query")
@blp.alt_response(200, schema={"type": "string", "format": "binary"}, content_type="application/pdf", description="A4")
def course_poster_pdf(query: dict[str, Any], course_id: str) -> Response:
    """A series' poster as a PDF, with its coming sessions"""
    return poster_pdf("series", course_id, query)

"""The pages that a family opens from a chat app: of a session, of a series, of its own booking, of a certificate.

A page stands alone: no cookie, no login, nothing from elsewhere, no script needed to read it (one of ours, from here, books seats
and opens a booking). It is written from the published set and is read while the database is away. All that it links to is a path;
the absolute addresses that a chat app's card needs are made from XINQIAO_PUBLIC_URL and never from a request's Host.

What is by invitation opens with `?invitation=CODE` alone and is kept by nobody. QR codes and posters: `api.posters`.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import flask
from flask import Response, request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from api import afterwards, front, guard
from api.shapes import reader, settings
from api.sharewords import MONTHS, WEEKDAYS, Reading, reading_of
from content import bookings, certificates, courses, feedback, languages, printing, registrations, store
from content.failures import Failure, Invalid, NotFound, Unavailable
from content.published import ANY, Item
from content.vocabulary import AUDIENCES, FORMATS, PLACES, STAGES, STEPS, TOPICS, Label, Stage

pages = flask.Blueprint("pages", __name__)

FOLDER = Path(__file__).parent / "pages"
TEMPLATES = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
SCRIPTS = {name: (FOLDER / f"{name}.js").read_text() for name in ("share", "booking")}
STYLES = {name: (FOLDER / f"{name}.css").read_text() for name in ("share", "poster", "year")}
HASHES = {name: base64.b64encode(hashlib.sha256(css.encode()).digest()).decode() for name, css in STYLES.items()}
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
    guard.tried(invitation)
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
        if invitation and courses.invited(series, invitation[:40]):
            return Found(item, item.content, series, invitation, path)
    flask.g.pop("rate", None)
    raise NotFound(what=key)


def keep(one: Found) -> None:
    """Let the front keep the answer until what it says of the present ends; one by invitation is kept by nobody."""
    if one.invitation:
        return
    now = store.now()
    said = [one.content] if one.path.startswith("/s/") else sessions_of(one)
    ends = [datetime.fromisoformat(of[name]) for of in said for name in ("booking_closes_at", "starts_at", "ends_at")]
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


def sessions_of(one: Found) -> list[Mapping[str, Any]]:
    """The published sessions of a series, in order of time."""
    kind = "invited_session" if one.invitation else "session"
    memo = reader().current.memo(kind)
    if "by series" not in memo:
        every: dict[str, list[Mapping[str, Any]]] = {}
        for rows in reader().current.entries(kind).values():
            if ANY in rows and (content := rows[ANY].content):
                every.setdefault(content["series"], []).append(content)
        memo["by series"] = {series: sorted(each, key=_start) for series, each in every.items()}
    found: list[Mapping[str, Any]] = memo["by series"].get(one.content["id"], [])
    return found


def coming(one: Found, reading: Reading) -> list[dict[str, Any]]:
    """The sessions of a series that are not over, in order of time."""
    now, result = store.now(), []
    for content in sessions_of(one):
        if datetime.fromisoformat(content["ends_at"]) > now:
            session = one._replace(content=content, path=f"/s/{content['id']}")
            when = reading.span(_start(content), datetime.fromisoformat(content["ends_at"]))
            stand = booking(session, reading)
            row: dict[str, Any] = {"id": content["id"], "link": linked(session.path, one.query), "when": when}
            row |= {"name": reading.text(content["title"]), "word": stand.word, "open": stand.open}
            row |= {"full": content["seats"] == "full", "waits": bool(content.get("waiting_list"))}
            result.append({**row, "off": content["state"] == "cancelled"})
    return result


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
    ahead = [] if session else coming(one, reading)
    sessions = ahead[:MOST_LISTED]
    offered = [{"full": content["seats"] == "full", "waits": bool(content.get("waiting_list"))}] if stand and stand.open else []
    offered = offered or [row for row in ahead if row["open"]]  # what the form would book
    if offered and not session and series.get("approval"):
        notes = [*notes, ("", say("open"), say("approval"))]
    wait = "waits_some"
    if session:
        wait = "waits_full" if offered and offered[0]["full"] else "wait"
    full = all(row["full"] for row in offered)
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
        "bookable": bool(offered), "invitation": one.invitation, "post": f"{base}/bookings",
        "heading": say(("book_full" if full else "book") if session else "book_whole"),
        "send": say("send_full" if full else "send"),
        "whole": "" if session else say("whole_more").format(n=len(offered)),
        "wait": say(wait) if any(row["waits"] for row in offered) else "", "states": bookings.STATES,
        "mine": linked("/b", {**({"language": "en"} if reading.ui == "en" else {}), **course_asked(one)}),
        "most_seats": registrations.PER_PHONE,
        "organiser": whom(series, reading),
        "questions": [question(q, reading) for q in series.get("questions", [])],
        "calendar": "" if one.invitation or not series else linked(f"/v1/calendars/courses/{series['id']}.ics", {}),
        "poster": linked(f"{base}/poster", asked),
        "paper": linked(f"{base}/poster.pdf", asked), "qr": linked(f"{base}/qr.svg", one.query),
        "tongues": tongues(one, reading, here),
    }  # fmt: skip


def course_asked(one: Found) -> dict[str, str]:
    """With what /b says whom to ask where no script runs; nothing of what is by invitation."""
    return {} if one.invitation or not one.series else {"course": one.series["id"]}


def whom(series: Mapping[str, Any], reading: Reading) -> str:
    """Whom to ask about a series; "" when it says nothing."""
    return " ".join(reading.text(series.get(name))["text"] for name in ("organiser_name", "contact")).strip()


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


def away() -> Response:
    """The page of a process that knows nothing yet."""
    response = lost("away", 503)
    response.headers["Retry-After"] = str(store.RETRY_AFTER)
    return response


def page(noun: str, key: str) -> Response:
    """A share page, or the page that says why there is none."""
    if untaught():
        return away()
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
    """The page that opens a booking by its code. It is the same for all: the code stays in the browser. `?course=` has it say
    whom to ask where no script runs."""
    reading = reading_of(spoken())
    item = reader().current.get("series", request.args.get("course", "")).get(ANY)
    values = {
        "language": reading.ui, "direction": "ltr", "quiet": True, "cover": "", "ui": reading.ui, "say": reading.say,
        "title": reading.say("my_booking"), "states": bookings.STATES, "base": settings().public(),
        "organiser": whom((item and item.content) or {}, reading), "most_seats": registrations.PER_PHONE,
        "longest_name": certificates.LONGEST, "longest_comment": feedback.LONGEST,
    }  # fmt: skip
    front.keep()
    return written("booking.html", "share", values, script=True)


@pages.get("/k/<string:number>")
def certificate_page(number: str) -> Response:
    """What a certificate's QR code opens: whether it was given out here, and for what. It says no name: none is known."""
    reading = reading_of(spoken())
    if untaught():
        return away()
    told = afterwards.proved(number)
    say, rows = reading.say, []
    if told:
        front.keep(60)
        days = " – ".join(dict.fromkeys(reading.day(told[name]) for name in ("first", "last")))
        rows += row(say("proved_for"), reading.text(told["title"]), strong=True) + row(say("when"), reading.own(days))
        count = [say("of_sessions").format(n=told["sessions"])] if told["kind"] == "series" else []
        rows += row(say("extent"), reading.own(" · ".join([*count, say("class_hours").format(n=told["class_hours"])])))
        rows += row(say("organiser"), reading.text(told["organiser"]))
    values = {
        "language": reading.ui, "direction": "ltr", "quiet": True, "cover": "", "say": say, "rows": rows,
        "title": say("proved" if told else "not_proved"), "words": say("proved_more" if told else "not_proved_more"),
        "number": number if told else "", "other": "zh-Hans" if reading.ui == "en" else "en",
    }  # fmt: skip
    return written("certificate.html", "share", values, 200 if told else 404)


@pages.get("/<any(share, booking):name>.js")
def script(name: str) -> Response:
    """What books a seat from a page, and what opens a booking."""
    front.keep(max_age=3600)
    return Response(SCRIPTS[name], content_type="text/javascript; charset=utf-8")

"""The desk where notices are written: draft, save, approve as a second person, schedule, cancel; what waits for whom, and what a
notice will be before it leaves.
"""

from collections.abc import Callable, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.auth import acting, actor
from api.errors import Messages
from api.guard import Blueprint, created, if_match, moment_of, next_page, tagged
from api.notices import DoneWhen, place
from api.shapes import DIVISION, Moment, Paging, Regexp, Tag, codes, reader, settings
from content import divisions, languages, store
from content import staff as people
from content.failures import Forbidden, NotFound, Text, invalid
from content.vocabulary import AUDIENCES, SEASONS
from notifications import channels, drafting, hours, notices, outbox, quiet, reasons, seasons, told, topics
from notifications.notices import KINDS, Notice

blp = Blueprint("staff_notices", __name__, url_prefix="/v1/staff", description="Write, approve, schedule, cancel notices")

YEARS = validate.Range(2000, 2100)
TODO = ("confirm_date", "save", "approve", "schedule")


class NoticeTextIn(ma.Schema):
    language = Tag(required=True)
    title = ma.fields.String(required=True, validate=validate.Length(1, 100))
    body = ma.fields.String(required=True, validate=validate.Length(1, 1000))


class NoticeIn(ma.Schema):
    season = ma.fields.String(allow_none=True, validate=validate.OneOf(list(SEASONS)))
    divisions = ma.fields.List(ma.fields.String(validate=DIVISION), validate=validate.Length(max=200))
    audiences = codes(AUDIENCES)
    stages = ma.fields.List(ma.fields.String(validate=validate.Length(max=40)), validate=validate.Length(max=50))
    texts = ma.fields.List(ma.fields.Nested(NoticeTextIn), validate=validate.Length(1, 20))
    lessons = ma.fields.List(ma.fields.String(validate=Regexp("^[a-z0-9-]{1,80}$")), validate=validate.Length(max=20))
    send_at = Moment(allow_none=True)
    expires_at = Moment()
    urgent = ma.fields.Boolean(metadata={"description": "passes quiet hours, exams and the one push a day"})
    done_when = ma.fields.Nested(DoneWhen, allow_none=True, metadata={"description": "what the reader does, which hides it"})
    after = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=64),
        metadata={"description": "of an emergency notice to students: the one to adults that goes half an hour before"},
    )


class NewNotice(NoticeIn):
    kind = ma.fields.String(load_default="general", validate=validate.OneOf(["general", "emergency"]))
    audiences = ma.fields.List(
        ma.fields.String(validate=validate.OneOf(list(AUDIENCES))), required=True, validate=validate.Length(1, 10)
    )
    texts = ma.fields.List(ma.fields.Nested(NoticeTextIn), required=True, validate=validate.Length(1, 20))


class NoticeScheduleIn(ma.Schema):
    send_at = Moment(allow_none=True, load_default=None, metadata={"description": "left out: as the draft says, else at once"})


class NoticesQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(notices.STATES))
    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    season = ma.fields.String(validate=validate.OneOf(list(SEASONS)))
    year = ma.fields.Integer(validate=YEARS, metadata={"description": "of a campaign: in which its season begins"})
    division = ma.fields.String(load_default=str, validate=DIVISION, metadata={"description": "what reaches families there"})


class NoticeText(ma.Schema):
    language = ma.fields.String()
    title = ma.fields.String()
    body = ma.fields.String()


class ResultOut(ma.Schema):
    channel = ma.fields.String(metadata={"enum": ["fcm", "webhook"]})
    topic = ma.fields.String(metadata={"description": "* for the webhook, which gets the whole notice"})
    outcome = ma.fields.String(metadata={"enum": ["sent", "skipped", "refused", "inbox_only", "failed"]})
    detail = ma.fields.String(allow_none=True)
    at = ma.fields.String()


class NoticeOut(ma.Schema):
    id = ma.fields.String()
    kind = ma.fields.String(metadata={"enum": list(KINDS)})
    state = ma.fields.String(metadata={"enum": list(notices.STATES)})
    reason = ma.fields.String(allow_none=True, metadata={"description": "a code, and a detail after a colon"})
    reason_text = ma.fields.Nested(Messages, allow_none=True)
    revision = ma.fields.Integer()
    season = ma.fields.String(allow_none=True)
    campaign = ma.fields.String(allow_none=True)
    year = ma.fields.Integer(allow_none=True)
    lead = ma.fields.Integer(allow_none=True, metadata={"description": "days from the season"})
    dated_by = ma.fields.String(allow_none=True, metadata={"description": "division whose date it follows"})
    template = ma.fields.String(allow_none=True)
    divisions = ma.fields.List(ma.fields.String())
    audiences = ma.fields.List(ma.fields.String())
    stages = ma.fields.List(ma.fields.String())
    texts = ma.fields.List(ma.fields.Nested(NoticeText))
    lessons = ma.fields.List(ma.fields.String())
    done_when = ma.fields.Nested(DoneWhen, allow_none=True)
    after = ma.fields.String(allow_none=True)
    urgent = ma.fields.Boolean()
    created_by = ma.fields.String()
    authors = ma.fields.List(ma.fields.String(), metadata={"description": "none of them may approve"})
    approved_by = ma.fields.String(allow_none=True)
    offices = ma.fields.List(ma.fields.String())
    in_inbox = ma.fields.Boolean()
    attempts = ma.fields.Integer()
    send_at = ma.fields.String(allow_none=True)
    approve_by = ma.fields.String(allow_none=True, metadata={"description": "not approved by then, it expires"})
    expires_at = ma.fields.String()
    first_try = ma.fields.String(allow_none=True)
    next_try = ma.fields.String(allow_none=True)
    lease_until = ma.fields.String(allow_none=True)
    created_at = ma.fields.String()
    updated_at = ma.fields.String()
    topics = ma.fields.List(ma.fields.String())
    results = ma.fields.List(ma.fields.Nested(ResultOut))


class NoticesOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(NoticeOut))
    next_cursor = ma.fields.String(allow_none=True)


class LockScreen(ma.Schema):
    title = ma.fields.String()
    body = ma.fields.String()


class MessageOut(ma.Schema):
    kind = ma.fields.String(metadata={"enum": ["topic", "condition"]})
    target = ma.fields.String()
    language = ma.fields.String()
    topics = ma.fields.List(ma.fields.String())
    without = ma.fields.List(ma.fields.String(), metadata={"description": "phones that were told today or are done"})
    lock_screen = ma.fields.Nested(LockScreen)


class PreviewOut(ma.Schema):
    push_at = ma.fields.String(metadata={"description": "when the push may leave: not at night, not during an exam"})
    inbox_at = ma.fields.String()
    messages = ma.fields.List(ma.fields.Nested(MessageOut))
    inbox_only = ma.fields.List(ma.fields.String(), metadata={"description": "topics whose phones are told of another that day"})
    channels = ma.fields.List(ma.fields.List(ma.fields.String()), metadata={"description": "steps; within one each takes over"})
    missing_languages = ma.fields.List(ma.fields.String(), metadata={"description": "readers of these get another language"})
    unconfirmed = ma.fields.Boolean(metadata={"description": "the season's date is not confirmed: it will not leave"})
    texts = ma.fields.List(ma.fields.Nested(NoticeText))


class TodoItem(ma.Schema):
    what = ma.fields.String(metadata={"enum": list(TODO), "description": "what is waited for"})
    by = ma.fields.String(
        metadata={
            "description": "last local day, or local moment with its offset",
            "example": "2027-05-08T21:00:00+08:00",
        }
    )
    season = ma.fields.String(allow_none=True)
    year = ma.fields.Integer(allow_none=True)
    division = ma.fields.String(allow_none=True)
    usual = ma.fields.String(allow_none=True, metadata={"description": "the usual first day of a season to be confirmed"})
    notice = ma.fields.String(allow_none=True, metadata={"description": "id"})
    title = ma.fields.String(allow_none=True)
    may = ma.fields.Boolean(metadata={"description": "whether the asker may do it"})


class TodoOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(TodoItem))


def fields_of(payload: dict[str, Any]) -> dict[str, Any]:
    """A body as the verb's plain values."""
    fields = dict(payload)
    if "texts" in fields:
        tags = [text["language"] for text in fields["texts"]]
        if len(set(tags)) < len(tags):
            raise invalid("texts", "bad_format", reason=Text("每种语言只写一次", "write each language once"))
        fields["texts"] = {text["language"]: {"title": text["title"], "body": text["body"]} for text in fields["texts"]}
    return fields


def shown(notice: Notice) -> dict[str, Any]:
    """A notice as staff see it, with the topics it goes to and what came of each."""
    plain = ("id", "kind", "state", "reason", "revision", "season", "year", "lead", "dated_by", "template", "after", "urgent")
    lists = ("divisions", "audiences", "stages", "lessons", "authors", "offices")
    moments = ("send_at", "approve_by", "expires_at", "first_try", "next_try", "lease_until", "created_at", "updated_at")
    return {
        **{name: getattr(notice, name) for name in (*plain, "created_by", "approved_by", "attempts")},
        **{name: list(getattr(notice, name)) for name in lists},
        **{name: notices.iso(getattr(notice, name)) for name in moments},
        "campaign": notice.campaign or None,
        "reason_text": reasons.said(notice.reason, ZoneInfo(settings().zone)),
        "texts": texts_of(notice),
        "done_when": dict(notice.done_when) or None,
        "in_inbox": notice.listed,
        "topics": notice.topics(),
        "results": [
            {"channel": r.channel, "topic": r.topic, "outcome": r.outcome, "detail": r.detail, "at": notices.iso(r.at)}
            for r in notice.results
        ],
    }


def texts_of(notice: Notice) -> list[dict[str, str]]:
    """Its texts as rows, by language."""
    return [{"language": tag, **dict(text)} for tag, text in sorted(notice.texts.items())]


def may(permission: str, codes: Sequence[str]) -> bool:
    """Whether the asker may do this in every one of these divisions; none are the whole country."""
    return all(map(acting(permission), codes or [""]))


def reading() -> Callable[[Sequence[str]], bool]:
    """Whether the asker may read what goes to these divisions: one of his is enough. What he does to it he must be allowed in
    all of them."""
    mine, home = acting("notice.read"), settings().division
    return lambda codes: any(map(mine, codes or [home]))


def own(key: str, permission: str) -> Notice:
    """The notice, when the asker may do this to it. One that he may not even read is not there (404)."""
    notice = notices.get(key)
    if not reading()(notice.divisions):
        raise NotFound(what=key)
    if permission != "notice.read" and not may(permission, notice.divisions):
        raise Forbidden()
    return notice


@blp.get("/notices")
@blp.arguments(NoticesQuery, location="query")
@blp.alt_response(200, schema=NoticesOut)
def index_staff(query: dict[str, Any]) -> Response:
    """Notices the asker may read, newest first"""
    mine, where = reading(), seasons.where(place(query)) if query["division"] else ""
    equal = {name: query[name] for name in ("state", "kind", "season", "year") if name in query}
    found = notices.latest(lambda codes: mine(codes) and notices.goes_to(codes, where), moment_of(query), **equal)
    return jsonify(next_page(found, query["limit"], lambda notice: [notice.created_at.isoformat(), notice.id], shown))


@blp.get("/notices/todo")
@blp.alt_response(200, schema=TodoOut)
def todo() -> Response:
    """What waits for a person, the most urgent first

    Season dates to confirm (asked for 60 and 30 days before their first notice), drafts of the calendar that nobody has saved,
    drafts to approve, approved ones to schedule. `by` is in local time: a day of a date to confirm, else a moment. The dates are
    those of the service's division for who writes or reads there as a whole, and of the divisions below it that are the asker's.
    """
    where, zone, mine = settings().division, ZoneInfo(settings().zone), reading()
    writes, approves = acting("notice.write"), acting("notice.approve")
    day, overrides = store.now().astimezone(zone).date(), seasons.stored()
    items = [
        {
            "what": "confirm_date", "by": ask.confirm_by.isoformat(), "season": ask.code, "year": ask.year,
            "division": ask.division, "usual": ask.usual.first.isoformat(), "notice": None, "title": None,
            "may": writes(ask.division),
        }
        for place in asked_of(where)
        for ask in seasons.asks(place, day, overrides)
    ]  # fmt: skip
    for state in ("drafted", "approved"):
        for notice in notices.latest(mine, state=state):
            if state == "approved" and notice.kind == "season":
                continue  # it goes by itself
            what = "schedule" if state == "approved" else "approve" if notice.authors else "save"
            able = all(map(approves if what == "approve" else writes, notice.divisions or [where]))
            wrote = what == "approve" and actor().id in (*notice.authors, notice.worded_by)
            items.append(
                {
                    "what": what,
                    "by": (notice.approve_by or notice.expires_at).astimezone(zone).isoformat(timespec="seconds"),
                    "season": notice.season,
                    "year": notice.year,
                    "division": (notice.divisions or [None])[0],
                    "usual": None,
                    "notice": notice.id,
                    "title": title_of(notice),
                    "may": able and not wrote,
                }  # fmt: skip
            )
    return jsonify({"items": sorted(items, key=lambda one: (str(one["by"]), str(one["what"])))})


def asked_of(home: str) -> list[str]:
    """Whose dates the asker is asked for: those of the service's division, when they write or read there as a whole; and of
    the divisions below it that they write for, else those that they read, none inside another of them."""
    writes, reads = (people.areas(actor(), f"notice.{verb}") for verb in ("write", "read"))
    whole = any(divisions.within(home, area) for area in (*writes, *reads))
    areas = {seasons.where(area) for area in (writes if whole else writes or reads)}
    outer = {area for area in areas if not any(area != one and divisions.within(area, one) for one in areas)}
    return sorted({area for area in outer if divisions.within(area, home)} | ({home} if whole else set()))


def title_of(notice: Notice) -> str:
    """Its title in the service's language."""
    return str(notice.texts[languages.pick(notice.texts, [settings().language])]["title"])


@blp.get("/notices/<string:key>/preview")
@blp.alt_response(200, schema=PreviewOut)
def preview(key: str) -> Response:
    """What it will be: which messages, to which topics, when, and which languages are missing

    As things are now; a notice that leaves before it on its day takes the phones that they share.
    """
    notice, now, of = own(key, "notice.read"), store.now(), settings()
    overrides, moment = seasons.stored(), max(notice.send_at or now, now)
    if notice.after:
        moment = max(moment, outbox.students_from(notice) or moment)
    push_at = moment if notice.urgent else hours.free_from(moment, notice.divisions, of, overrides)
    day, served = push_at.astimezone(ZoneInfo(of.zone)).date(), notices.push_languages(of)
    wanted = notice.topics(sorted({*served, *notice.texts}))
    known = [] if notice.urgent else told.on(day, notice.id)
    pushes, rest = topics.plan(wanted, known, notice.left_by_done)
    messages = []
    for one in pushes:
        (kind, target), (title, body) = one.target(), quiet.words(one.language, emergency=notice.kind == "emergency")
        row = {"kind": kind, "target": target, "language": one.language, "lock_screen": {"title": title, "body": body}}
        messages.append({**row, "topics": list(one.topics), "without": list(one.without)})
    notice.send_at = moment
    return jsonify(
        {
            "inbox_at": notices.iso(moment),
            "push_at": notices.iso(push_at),
            "messages": messages,
            "inbox_only": rest,
            "channels": channels.steps(of),
            "missing_languages": [tag for tag in served if tag not in notice.texts],
            "unconfirmed": bool(notice.season) and not notices.dated(notice, overrides, of),
            "texts": texts_of(notice),
        }
    )


@blp.post("/notices")
@blp.arguments(NewNotice)
@blp.alt_response(201, schema=NoticeOut, description="The draft")
def create(payload: dict[str, Any]) -> Response:
    """Draft a notice

    Without `divisions` it is for the service's own division; an empty list is the whole country.
    """
    home = settings().division
    payload.setdefault("divisions", [home] if home else [])
    if not may("notice.write", payload["divisions"]):
        raise Forbidden()
    kind = payload.pop("kind")
    notice = notices.draft(fields_of(payload), actor().id, settings(), store.now(), kind)
    return created(shown(notice), notice.revision, f"/v1/staff/notices/{notice.id}")


@blp.get("/notices/<string:key>")
@blp.alt_response(200, schema=NoticeOut, description="The notice; ETag is its revision")
def show_staff(key: str) -> Response:
    """One notice, with its topics and what came of each"""
    notice = own(key, "notice.read")
    return tagged(shown(notice), notice.revision)


@blp.patch("/notices/<string:key>")
@blp.arguments(NoticeIn)
@blp.alt_response(200, schema=NoticeOut, description="The changed draft")
def edit(payload: dict[str, Any], key: str) -> Response:
    """Change a draft, or take it as it is

    Whoever saves it becomes one of its authors and may not approve it; a draft of the calendar has to be saved by somebody, with
    `{}` as it is. The day of a season notice follows its season. Needs If-Match.
    """
    revision = if_match()
    own(key, "notice.write")
    if "divisions" in payload and not may("notice.write", payload["divisions"]):
        raise Forbidden()
    notice = notices.edit(key, fields_of(payload), actor().id, settings(), store.now(), revision)
    return tagged(shown(notice), notice.revision)


@blp.post("/notices/<string:key>/approve")
@blp.alt_response(200, schema=NoticeOut, description="Approved")
def approve(key: str) -> Response:
    """Approve a draft as a second person; always needed. Needs If-Match."""
    revision = if_match()
    own(key, "notice.approve")
    notice = notices.approve(key, actor().id, store.now(), revision)
    return tagged(shown(notice), notice.revision)


@blp.post("/notices/<string:key>/schedule")
@blp.arguments(NoticeScheduleIn)
@blp.alt_response(200, schema=NoticeOut, description="Scheduled")
def schedule(payload: dict[str, Any], key: str) -> Response:
    """Give an approved notice its moment

    A season notice needs none: it has its day and goes by itself. Any notice of a season waits for the season's confirmed local
    date (409 `unconfirmed_date`). Needs If-Match.
    """
    revision = if_match()
    own(key, "notice.write")
    notice = notices.schedule(key, actor().id, settings(), store.now(), payload["send_at"], revision)
    return tagged(shown(notice), notice.revision)


@blp.post("/notices/<string:key>/cancel")
@blp.alt_response(200, schema=NoticeOut, description="Cancelled")
def cancel(key: str) -> Response:
    """Stop a notice at once and take it out of the inbox

    Also one that was sent, as long as it stands in the inbox. The district's own system is told. Needs If-Match.
    """
    revision = if_match()
    notice = own(key, "notice.read")
    if not may("notice.write", notice.divisions) and not may("notice.approve", notice.divisions):
        raise Forbidden()
    notice = notices.cancel(key, actor().id, revision)
    reader().refresh()
    return tagged(shown(notice), notice.revision)


class CampaignOut(ma.Schema):
    campaign = ma.fields.String(metadata={"example": "gaokao.2027"})
    cancelled = ma.fields.Integer(metadata={"description": "notices that were cancelled now"})


@blp.post("/campaigns/<string:season>.<int(min=2000, max=2100):year>/stop")
@blp.alt_response(200, schema=CampaignOut, description="Stopped")
def stop_campaign(season: str, year: int) -> Response:
    """Stop a season's campaign at once

    Everything of it that is to come or stands in the inbox is cancelled, and nothing more is drafted until it is resumed. Takes
    the right to write or to approve for the service's whole division. A second call cancels what is left.
    """
    verb = whole(season)
    stopped = drafting.stop(season, year, actor().id, settings(), lambda codes: may(verb, codes or [settings().division]))
    reader().refresh()
    return jsonify({"campaign": f"{season}.{year}", "cancelled": stopped})


@blp.delete("/campaigns/<string:season>.<int(min=2000, max=2100):year>/stop")
@blp.alt_response(204, description="Drafted again")
def resume_campaign(season: str, year: int) -> Response:
    """Let a stopped campaign be drafted again"""
    whole(season)
    drafting.resume(season, year, actor().id, settings())
    return Response(status=204)


def whole(season: str) -> str:
    """The permission by which the asker acts for the service's whole division. Raises `Forbidden`, and `NotFound` for a season
    that is none."""
    if season not in SEASONS:
        raise NotFound(what=season)
    for verb in ("notice.write", "notice.approve"):
        if may(verb, [settings().division]):
            return verb
    raise Forbidden()

"""A division's year: for staff as data and as a page to print, for families and colleagues as a feed and as a calendar.

What staff see is read from the database, with what became of each notice; the feeds come from the published set and are read
while the database is away.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api import front, sharing
from api.calendars import FEED, TYPE
from api.errors import Messages
from api.guard import Blueprint
from api.noticedesk import reading
from api.notices import place
from api.shapes import DAYS, DIVISION, Tag, reader, settings
from api.sharewords import MONTHS, WEEKDAYS, reading_of
from api.sharewords import Reading as Page
from content import divisions, store
from content import staff as people
from content.calendars import Reading
from content.failures import Text, invalid
from content.vocabulary import AUDIENCES, Label
from notifications import drafting, reasons, reports, seasons, year
from notifications.drafting import STOPPED, WENT
from notifications.notices import Notice, iso
from notifications.seasons import Occasion, SeasonDate
from notifications.year import Row

blp = Blueprint("years", __name__, url_prefix="/v1", description="A division's year of seasons, to read and to subscribe to")
staff = Blueprint("staff_years", __name__, url_prefix="/v1/staff", description="A division's year and its notices")

MOST = 800  # days in one answer
BACK, AHEAD = 31, 400  # days around today in a feed
NAMED = 3  # divisions beside a notice on the page
Found = dict[tuple[str, int, int], list[Notice]]


class YearQuery(ma.Schema):
    division = ma.fields.String(load_default=str, validate=DIVISION, metadata={"example": "150603"})
    first = ma.fields.Date(format="iso", data_key="from", validate=DAYS, metadata={"description": "default: this month's first"})
    last = ma.fields.Date(format="iso", data_key="to", validate=DAYS, metadata={"description": "default: a year later"})


class PageQuery(YearQuery):
    language = Tag(metadata={"description": "of the page", "example": "zh-Hans"})


class CalendarQuery(ma.Schema):
    audience = ma.fields.String(load_default=str, validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = ma.fields.String(load_default="", validate=validate.Length(max=40), metadata={"example": "senior.final"})
    language = Tag(metadata={"description": "of the feed, before Accept-Language", "example": "zh-Hans"})
    alarms = ma.fields.Boolean(load_default=False, metadata={"description": "ring in the evening of each notice's day"})


class FeedQuery(CalendarQuery):
    class Meta:
        exclude = ("alarms",)

    division = ma.fields.String(load_default=str, validate=DIVISION, metadata={"example": "150603"})


class Reminder(ma.Schema):
    on = ma.fields.String(metadata={"description": "local day", "example": "2027-05-08"})
    at = ma.fields.String(metadata={"description": "local time", "example": "18:37"})


class FeedItem(ma.Schema):
    code = ma.fields.String()
    year = ma.fields.Integer()
    title = ma.fields.String(metadata={"description": "names no trouble; the official name for audience=staff"})
    text = ma.fields.String()
    first = ma.fields.String(metadata={"example": "2027-06-07"})
    last = ma.fields.String()
    provisional = ma.fields.Boolean()
    reminders = ma.fields.List(
        ma.fields.Nested(Reminder), metadata={"description": "when a phone may remind by itself; none while provisional"}
    )
    confirm_by = ma.fields.String(metadata={"description": "for audience=staff; absent when there is nothing to confirm"})


class YearFeed(ma.Schema):
    division = ma.fields.String()
    first = ma.fields.String(data_key="from")
    last = ma.fields.String(data_key="to")
    known_until = ma.fields.String()
    items = ma.fields.List(ma.fields.Nested(FeedItem))


class NoticeOf(ma.Schema):
    id = ma.fields.String()
    state = ma.fields.String()
    saved = ma.fields.Boolean(metadata={"description": "whether a person has saved it; a draft nobody saved waits to be read"})
    reason = ma.fields.String(allow_none=True)
    reason_text = ma.fields.Nested(Messages, allow_none=True, metadata={"description": "moments in local time"})
    audiences = ma.fields.List(ma.fields.String())
    divisions = ma.fields.List(ma.fields.String(), metadata={"description": "empty: the whole country"})
    send_at = ma.fields.String(allow_none=True)


class OccasionOut(ma.Schema):
    lead = ma.fields.Integer(metadata={"description": "days: up to 0 from the first day, above 0 from the last"})
    on = ma.fields.String(metadata={"description": "local day of the notice"})
    at = ma.fields.String(metadata={"description": "local time of its push"})
    until = ma.fields.String(metadata={"description": "first local day on which it is worth nothing"})
    notices = ma.fields.List(ma.fields.Nested(NoticeOf), metadata={"description": "those the asker may read, newest first"})


class YearItem(ma.Schema):
    code = ma.fields.String()
    year = ma.fields.Integer()
    name = ma.fields.String()
    first = ma.fields.String()
    last = ma.fields.String()
    provisional = ma.fields.Boolean()
    dated_by = ma.fields.String(
        allow_none=True,
        metadata={"description": "division whose confirmed date it is, 000000 the country; null: the calendar's own"},
    )
    date_id = ma.fields.String(allow_none=True, metadata={"description": "of that confirmed date"})
    confirmed_by = ma.fields.String(allow_none=True)
    confirmed_by_name = ma.fields.String(allow_none=True)
    stopped = ma.fields.Boolean(metadata={"description": "its campaign was stopped: nothing more is drafted"})
    audiences = ma.fields.List(ma.fields.String())
    grades = ma.fields.List(ma.fields.String(), metadata={"description": "stages; empty: every one"})
    occasions = ma.fields.List(ma.fields.Nested(OccasionOut))


class AskOut(ma.Schema):
    """A date that has to be confirmed, or the season's notices stay unsent."""

    code = ma.fields.String()
    year = ma.fields.Integer()
    name = ma.fields.String()
    usual_first = ma.fields.String()
    usual_last = ma.fields.String()
    confirm_by = ma.fields.String(metadata={"description": "leaves a week for draft and approval"})
    first_notice = ma.fields.String()
    days_left = ma.fields.Integer(metadata={"description": "to the first notice; below 0 once it should have gone"})
    stage = ma.fields.Integer(allow_none=True, metadata={"description": "60 or 30 days ahead; null: it has time"})


class YearOut(ma.Schema):
    division = ma.fields.String()
    name = ma.fields.String()
    first = ma.fields.String(data_key="from")
    last = ma.fields.String(data_key="to")
    known_until = ma.fields.String()
    asks = ma.fields.List(ma.fields.Nested(AskOut))
    items = ma.fields.List(ma.fields.Nested(YearItem))


def today() -> date:
    """The district's present day."""
    return moment().date()


def moment() -> datetime:
    """The present in the district's time."""
    return store.now().astimezone(ZoneInfo(settings().zone))


def country(code: str) -> str:
    """ "" as it is answered."""
    return code or divisions.COUNTRY


# --- for families and calendars ---------------------------------------------------------------------------------------


def feed_rows(division: str, query: Mapping[str, Any]) -> tuple[date, date, list[Row]]:
    """What a feed has: whole months around the present, so that its bytes change once a month by time alone."""
    now = today()
    first, last = ((now + timedelta(days=days)).replace(day=1) for days in (-BACK, AHEAD))
    found = year.rows(division, first, last, seasons.of_snapshot(reader().current), query["audience"], query["stage"])
    return first, last, found


def written_for(query: Mapping[str, Any]) -> Reading:
    """For whom a feed is written."""
    wanted = ([query["language"]] if "language" in query else []) + list(front.wanted())
    return Reading(tuple(wanted), settings().language, settings().zone, query.get("alarms", False))


@blp.get("/seasons/year")
@blp.arguments(FeedQuery, location="query")
@blp.alt_response(200, schema=YearFeed)
def index(query: dict[str, Any]) -> Response:
    """The year of a reader, with the evenings on which a phone may remind by itself

    From last month to a year ahead. Titles name no trouble; audience=staff gets official names and what has to be confirmed.
    """
    where, to, official = place(query), written_for(query), query["audience"] in year.OFFICIAL
    first, last, found = feed_rows(where, query)
    items = []
    for row in found:
        told = [] if row.span.provisional else row.occasions
        item = {
            "code": row.season.code,
            "year": row.year,
            "title": year.name(row.season, to) if official else to.text(row.season.title),
            "text": to.text(row.season.text),
            "first": row.span.first.isoformat(),
            "last": row.span.last.isoformat(),
            "provisional": row.span.provisional,
            "reminders": [{"on": one.on.isoformat(), "at": f"{one.at:%H:%M}"} for one in told],
        }
        if official and row.confirm_by:
            item["confirm_by"] = row.confirm_by.isoformat()
        items.append(item)
    front.keep()
    head = {"division": country(seasons.where(where)), "from": first.isoformat(), "to": last.isoformat()}
    return jsonify({**head, "known_until": seasons.known_until().isoformat(), "items": items})


@blp.get("/calendars/seasons/<string:code>.ics")
@blp.arguments(CalendarQuery, location="query")
@blp.alt_response(200, **FEED)
def calendar(query: dict[str, Any], code: str) -> Response:
    """The year of a division as a calendar; 000000 is the country

    For families titles name no trouble, and with alarms=true it rings in the evening of each notice's day, so that a phone that
    no push reaches still reminds. For audience=staff: official names, and the days by which dates have to be confirmed.
    """
    where = seasons.where(code)
    _, _, found = feed_rows(where, query)
    body = year.written(where, found, reader().current, written_for(query), query["audience"] in year.OFFICIAL)
    front.keep()
    return Response(body, content_type=TYPE)


# --- for staff --------------------------------------------------------------------------------------------------------


def whole(query: dict[str, Any], to: Reading) -> dict[str, Any]:
    """`YearOut`. Raises `Invalid` for days in the wrong order or too many."""
    now, where = today(), seasons.where(place(query))
    first = query.get("first") or now.replace(day=1)
    last = query.get("last") or first + timedelta(days=365)
    if not 0 <= (last - first).days <= MOST:
        raise invalid("to", "out_of_range", reason=Text(f"要在 from 之后 0–{MOST} 天", f"0 to {MOST} days after from"))
    dates = {(one.division, one.code, one.year): one for one in map(SeasonDate.of, SeasonDate.rows().find({}))}
    overrides = [one.override() for one in dates.values()]
    found = year.rows(where, first, last, overrides)
    mine = reading()
    made = {key: [one for one in some if mine(one.divisions)] for key, some in year.notices_of(found, where).items()}
    names = people.names({one.confirmed_by for one in dates.values()})
    asked = {(one.code, one.year): one.stage for one in seasons.asks(where, now, overrides)}
    stops = drafting.stopped()

    def item(row: Row) -> dict[str, Any]:
        date_of = dates.get((row.dated_by, row.season.code, row.year)) if row.dated_by is not None else None
        return {
            "code": row.season.code,
            "year": row.year,
            "name": year.name(row.season, to),
            "first": row.span.first.isoformat(),
            "last": row.span.last.isoformat(),
            "provisional": row.span.provisional,
            "dated_by": None if row.dated_by is None else country(row.dated_by),
            "date_id": date_of.id if date_of else None,
            "confirmed_by": date_of.confirmed_by if date_of else None,
            "confirmed_by_name": names.get(date_of.confirmed_by) if date_of else None,
            "stopped": stops(row.season.code, row.year, where),
            "audiences": list(row.season.audiences),
            "grades": list(row.season.stages),
            "occasions": [occasion(one, made.get((one.code, one.year, one.lead), ())) for one in row.occasions],
        }

    def ask(row: Row, confirm_by: date) -> dict[str, Any]:
        return {
            "code": row.season.code,
            "year": row.year,
            "name": year.name(row.season, to),
            "usual_first": row.span.first.isoformat(),
            "usual_last": row.span.last.isoformat(),
            "confirm_by": confirm_by.isoformat(),
            "first_notice": row.occasions[0].on.isoformat(),
            "days_left": (row.occasions[0].on - now).days,
            "stage": asked.get((row.season.code, row.year)),
        }

    asks = [ask(row, row.confirm_by) for row in found if row.confirm_by and row.span.last >= now]
    return {
        "division": country(where),
        "name": divisions.get(where).name if where else to.word("country", WORDS),
        "from": first.isoformat(),
        "to": last.isoformat(),
        "known_until": seasons.known_until().isoformat(),
        "asks": sorted(asks, key=lambda one: (one["confirm_by"], one["code"])),
        "items": list(map(item, found)),
    }


def occasion(one: Occasion, made: Sequence[Notice]) -> dict[str, Any]:
    """`OccasionOut`."""
    return {
        "lead": one.lead,
        "on": one.on.isoformat(),
        "at": f"{one.at:%H:%M}",
        "until": one.until.isoformat(),
        "notices": [
            {
                "id": notice.id,
                "state": notice.state,
                "saved": bool(notice.authors),
                "reason": notice.reason,
                "reason_text": reasons.said(notice.reason, ZoneInfo(settings().zone)),
                "audiences": list(notice.audiences),
                "divisions": list(notice.divisions),
                "send_at": iso(notice.send_at),
            }
            for notice in made
        ],
    }


@staff.get("/year")
@staff.arguments(YearQuery, location="query")
@staff.alt_response(200, schema=YearOut)
def show(query: dict[str, Any]) -> Response:
    """A division's year: each season with who confirmed its date, each notice's day and what became of it

    `asks`: the dates that have to be confirmed, most urgent first. Without that their notices stay unsent.
    """
    return jsonify(whole(query, written_for(query)))


@staff.get("/year.html")
@staff.arguments(PageQuery, location="query")
@staff.alt_response(200, schema={"type": "string"}, content_type="text/html", description="A page to read and to print on A4")
def page(query: dict[str, Any]) -> Response:
    """A division's year as a page"""
    reading = reading_of(query.get("language", ""))
    to = Reading((reading.ui,), settings().language, settings().zone)
    values = whole(query, to)
    response = sharing.written("year.html", "year", {**laid_out(values, reading), **values})
    response.headers["Cache-Control"] = "no-store"
    return response


WORDS: Mapping[str, Label] = {
    "country": Label("全国", "The whole country"),
    "title": Label("季节与通知", "Seasons and notices"),
    "asks": Label("请确认这些日期", "Please confirm these dates"),
    "asks_more": Label(
        "日期没有确认，通知就不会发出。请向教育部门核实后确认。",
        "While a date is not confirmed, its notices are not sent. Check with the education authority, then confirm it.",
    ),
    "asks_later": Label("以后还要确认", "To confirm later"),
    "no_asks": Label("目前没有等待确认的日期。", "No date waits for confirmation."),
    "season": Label("季节", "Season"),
    "usual": Label("按往年大约", "If as usual"),
    "confirm_by": Label("最迟确认", "Confirm by"),
    "first_notice": Label("第一条通知", "First notice"),
    "late": Label("已经晚了", "overdue"),
    "days": Label("还有 {n} 天", "{n} days left"),
    "provisional": Label("暂定", "Provisional"),
    "national": Label("全国统一", "National"),
    "confirmed": Label("已确认：{where}", "Confirmed: {where}"),
    "by": Label("（{who}）", " ({who})"),
    "every": Label("各年级", "every grade"),
    "no_push": Label("只在应用和日历里显示，不推送。", "Shown in the app and in calendars; nothing is pushed."),
    "held": Label("日期待确认，不会发出", "waits for the date, will not be sent"),
    "to_draft": Label("到时自动起草", "will be drafted by itself"),
    STOPPED: Label("本季已停，不再起草", "stopped, nothing more is drafted"),
    "none": Label("没有通知", "no notice"),
    "before": Label("前 {n} 天", "{n} days before"),
    "eve": Label("前 1 天", "the day before"),
    "that_day": Label("当天", "on the day"),
    "after": Label("结束后第 {n} 天", "day {n} after it"),
    "known": Label("{day} 之后的日期一律暂定。", "Every date after {day} is provisional."),
    "notice_days": Label("通知（当地时间）", "Notices (local time)"),
    "in": Label("（{where}）", " ({where})"),
    "and_more": Label("{where}等 {n} 处", "{where} and others, {n} in all"),
}


def laid_out(values: Mapping[str, Any], reading: Page) -> dict[str, Any]:
    """What the page says, of `YearOut`: asks now and later, and the seasons by the month in which they begin."""
    now, minute = today().isoformat(), f"{moment():%Y-%m-%dT%H:%M}"

    def say(code: str, **parts: Any) -> str:
        return reading.label(WORDS[code]).format(**parts)

    def day(text: str, base: str = "") -> str:
        """With its weekday, and its year where that is not the year of `base`."""
        at, weekday = date.fromisoformat(text), date.fromisoformat(text).weekday()
        if reading.ui == "en":
            return f"{WEEKDAYS[weekday][1][:3]} {at.day} {MONTHS[at.month - 1]}" + ("" if text[:4] == base[:4] else f" {at.year}")
        return ("" if text[:4] == base[:4] else f"{at.year}年") + f"{at.month}月{at.day}日（周{WEEKDAYS[weekday][0][-1]}）"

    def span(first: str, last: str, base: str = "") -> str:
        return day(first, base) if first == last else f"{day(first, base)} – {day(last, base)}"

    def lead(days: int) -> str:
        if days == -1:
            return say("eve")
        return say("before", n=-days) if days < 0 else say("after", n=days) if days else say("that_day")

    def stands(row: Mapping[str, Any], one: Mapping[str, Any]) -> list[dict[str, str]]:
        """What became of one occasion, a line a notice of its day; and what the whole division was told before the day moved."""
        lines = []
        for notice in one["notices"]:
            sent = notice["send_at"] and datetime.fromisoformat(notice["send_at"]).astimezone(ZoneInfo(settings().zone))
            other = sent.date().isoformat() if sent and sent.date().isoformat() != one["on"] else ""
            below = parts(notice["divisions"])
            if other and (below or notice["state"] not in WENT):
                continue  # of an old date, or of a district's own
            about = below or (other and day(other, row["first"]))
            lines.append(
                {
                    "whom": sharing.labelled(notice["audiences"], AUDIENCES, reading),
                    "state": reading.label(reports.standing(notice["state"], notice["saved"])),
                    "where": say("in", where=about) if about else "",
                    "why": why(notice["reason_text"]),
                    "kind": notice["state"],
                }
            )
        if lines:
            return lines
        over = f"{one['on']}T{one['at']}" <= minute  # drafting makes none once its moment has come
        kind = "held" if row["provisional"] and row["last"] >= now else "none" if over else "to_draft"
        kind = STOPPED if row["stopped"] else kind
        return [{"whom": "", "state": say(kind), "where": "", "why": "", "kind": kind}]

    def parts(codes: Sequence[str]) -> str:
        """Which parts of the page's division a notice goes to; "" when it goes to all of it."""
        if not codes or any(divisions.within(values["division"], code) for code in codes):
            return ""
        names = ("、" if reading.ui != "en" else ", ").join(divisions.get(code).name for code in codes[:NAMED])
        return names if len(codes) <= NAMED else say("and_more", where=names, n=len(codes))

    def why(text: Mapping[str, str] | None) -> str:
        return text["en" if reading.ui == "en" else "zh-Hans"] if text else ""

    def whom(row: Mapping[str, Any]) -> str:
        joined = "、" if reading.ui != "en" else ", "
        # the sixth grade is of the primary school here and of the junior one there: it is named once
        grades = joined.join(dict.fromkeys(sharing.stage_name(one, reading) for one in row["grades"])) or say("every")
        return f"{sharing.labelled(row['audiences'], AUDIENCES, reading)} · {grades}"

    def dated(row: Mapping[str, Any]) -> str:
        if row["provisional"]:
            return say("provisional")
        if row["dated_by"] is None:
            return say("national")
        at = row["dated_by"]
        name = say("country") if at == divisions.COUNTRY else divisions.get(at).name
        return say("confirmed", where=name) + (say("by", who=row["confirmed_by_name"]) if row["confirmed_by_name"] else "")

    def ask(one: Mapping[str, Any]) -> dict[str, Any]:
        late = one["confirm_by"] < now
        left = (date.fromisoformat(one["confirm_by"]) - date.fromisoformat(now)).days
        return {
            "name": one["name"],
            "usual": span(one["usual_first"], one["usual_last"], now).split(" – "),
            "by": day(one["confirm_by"], now),
            "left": say("late") if late else say("days", n=left),
            "first": day(one["first_notice"], now),
            "kind": "late" if late else "soon",
        }

    months: dict[str, list[dict[str, Any]]] = {}
    for row in values["items"]:
        at = date.fromisoformat(row["first"])
        month = f"{MONTHS[at.month - 1]} {at.year}" if reading.ui == "en" else f"{at.year}年{at.month}月"
        months.setdefault(month, []).append(
            {
                "name": row["name"],
                "span": span(row["first"], row["last"], row["first"]),
                "dated": dated(row),
                "provisional": row["provisional"],
                "whom": whom(row),
                "occasions": [
                    {"on": day(one["on"], row["first"]), "at": one["at"], "lead": lead(one["lead"]), "notices": stands(row, one)}
                    for one in row["occasions"]
                ],
            }
        )
    return {
        "language": reading.ui, "direction": "ltr", "quiet": True, "cover": "", "say": say, "months": months,
        "title": f"{values['name']} · {say('title')}",
        "range": span(values["from"], values["to"]),
        "now": [ask(one) for one in values["asks"] if one["stage"]],
        "later": [ask(one) for one in values["asks"] if not one["stage"]],
        "known": say("known", day=day(values["known_until"])),
    }  # fmt: skip

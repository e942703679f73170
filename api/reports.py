"""What became of notices: one, a list by campaign with totals, and the list as a table.

`notifications.reports` says what each number counts. What phones opened is told only as `content.statistics` has released it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify
from marshmallow import validate

from api.errors import Messages
from api.guard import Blueprint, page
from api.noticedesk import own, reading
from api.shapes import DAYS, DIVISION, Paging, settings
from content import divisions, store
from content.failures import Text, invalid
from content.vocabulary import SEASONS
from notifications import notices, reasons, reports
from notifications.reports import Channel, Report, Totals

staff = Blueprint("staff_reports", __name__, url_prefix="/v1/staff", description="What became of notices")
SPAN = timedelta(days=730)  # of one list: its totals read every notice in it
YEAR = timedelta(days=365)
NOTE = {
    "zh-Hans": "“打开”和“照做”由手机自愿、匿名上报；一周结束后，各区县满 30 人才计入。空值不表示没有人。",
    "en": "Opened and acted are what phones add anonymously and by choice; of each county they count once a week has ended and "
    "30 people are in it. Null does not mean nobody.",
}


class ChannelOut(ma.Schema):
    channel = ma.fields.String(metadata={"description": "fcm, webhook, inbox"})
    messages = ma.fields.Integer(metadata={"description": "that it took; one may go to several topics"})
    sent = ma.fields.Integer(metadata={"description": "topics, as the next four; a webhook has one for all"})
    inbox_only = ma.fields.Integer()
    refused = ma.fields.Integer()
    failed = ma.fields.Integer()
    skipped = ma.fields.Integer()
    reach = ma.fields.Integer(allow_none=True, metadata={"description": "of the inbox, `opened`; null elsewhere"})
    no_reach = ma.fields.Nested(Messages, allow_none=True, metadata={"description": "why there is none"})


class WhyOut(ma.Schema):
    channel = ma.fields.String()
    outcome = ma.fields.String(metadata={"description": "inbox_only, refused, failed, skipped"})
    reason = ma.fields.String()
    reason_text = ma.fields.Nested(Messages, allow_none=True)
    topics = ma.fields.Integer()


class Numbers(ma.Schema):
    """What a report and its sums share."""

    planned = ma.fields.Integer(
        metadata={
            "description": "topics that it goes to; of a cancelled one, that it went to. The next five and `undecided` make it up"
        }
    )
    undecided = ma.fields.Integer(metadata={"description": "topics without an outcome so far, none of a cancelled one"})
    messages = ma.fields.Integer(metadata={"description": "that all channels took"})
    sent = ma.fields.Integer(metadata={"description": "topics, by the best that any channel made of each"})
    inbox_only = ma.fields.Integer(metadata={"description": "its phones were told of something else that day"})
    refused = ma.fields.Integer()
    failed = ma.fields.Integer()
    skipped = ma.fields.Integer(metadata={"description": "no channel is set up"})
    opened = ma.fields.Integer(
        allow_none=True, metadata={"description": "as released; null: fewer than 30 in each county, or not yet"}
    )
    acted = ma.fields.Integer(allow_none=True, metadata={"description": "as `opened`"})


class ReportRow(Numbers):
    id = ma.fields.String()
    title = ma.fields.String()
    campaign = ma.fields.String(allow_none=True, metadata={"example": "gaokao.2027"})
    kind = ma.fields.String(metadata={"description": "general, season, emergency"})
    on = ma.fields.String(metadata={"description": "local day of its moment, else of its draft"})
    divisions = ma.fields.List(ma.fields.String(), metadata={"description": "000000: the whole country"})
    division_names = ma.fields.List(ma.fields.String(), metadata={"description": "in the order of `divisions`"})
    state = ma.fields.String()
    reason = ma.fields.String(metadata={"description": "why it failed, expired or was refused"})
    reason_text = ma.fields.Nested(Messages, allow_none=True, metadata={"description": "moments in local time"})
    channels = ma.fields.List(ma.fields.Nested(ChannelOut))
    why = ma.fields.List(ma.fields.Nested(WhyOut), metadata={"description": "topics not sent to, by channel and reason"})
    in_inbox = ma.fields.Boolean()
    percent = ma.fields.Integer(
        allow_none=True, metadata={"description": "acted of opened; null unless both are told and no more acted than opened"}
    )
    created_by = ma.fields.String(metadata={"description": "id; `system` for a draft of the calendar"})
    created_by_name = ma.fields.String(allow_none=True)
    authors = ma.fields.List(ma.fields.String(), metadata={"description": "ids"})
    author_names = ma.fields.List(ma.fields.String(), metadata={"description": "of those with an account"})
    approved_by = ma.fields.String(allow_none=True)
    approved_by_name = ma.fields.String(allow_none=True)
    created_at = ma.fields.String()
    send_at = ma.fields.String(allow_none=True, metadata={"description": "for when it was scheduled"})
    first_try = ma.fields.String(allow_none=True)
    ended_at = ma.fields.String(allow_none=True, metadata={"description": "null while it goes on, or where nothing was tried"})


class OneReport(ReportRow):
    note = ma.fields.Nested(Messages, metadata={"description": "what opened and acted are, always the same words"})


class StateCount(ma.Schema):
    state = ma.fields.String()
    notices = ma.fields.Integer()


class TotalsRow(Numbers):
    campaign = ma.fields.String(allow_none=True, metadata={"description": "null: of no season, or all together"})
    notices = ma.fields.Integer()
    states = ma.fields.List(ma.fields.Nested(StateCount))


class ReportsOut(ma.Schema):
    first = ma.fields.String(data_key="from")
    last = ma.fields.String(data_key="to")
    note = ma.fields.Nested(Messages)
    totals = ma.fields.Nested(TotalsRow, metadata={"description": "of all pages; opened and acted of those that are told"})
    campaigns = ma.fields.List(ma.fields.Nested(TotalsRow), metadata={"description": "of all pages"})
    items = ma.fields.List(ma.fields.Nested(ReportRow), metadata={"description": "by campaign, day, id; of no season first"})
    next_cursor = ma.fields.String(allow_none=True)


class TableQuery(ma.Schema):
    first = ma.fields.Date(
        format="iso", data_key="from", validate=DAYS, metadata={"description": "local date; a year before `to` when left out"}
    )
    last = ma.fields.Date(
        format="iso", data_key="to", validate=DAYS, metadata={"description": "local date, included; today when left out"}
    )
    season = ma.fields.String(load_default=str, validate=validate.OneOf(list(SEASONS)))
    division = ma.fields.String(load_default=str, validate=DIVISION, metadata={"description": "with all below and above it"})


class ReportsQuery(TableQuery, Paging):
    pass


def channel_out(one: Channel) -> dict[str, Any]:
    """A channel as it is answered."""
    return {**one._asdict(), "no_reach": one.no_reach and one.no_reach.fill({})}


def shown(row: Report, names: Mapping[str, str]) -> dict[str, Any]:
    """A report as it is answered; `names` by account id."""
    zone = ZoneInfo(settings().zone)
    return {
        **row._asdict(),
        "campaign": row.campaign or None,
        "on": row.on.isoformat(),
        "divisions": list(row.divisions),
        "division_names": list(map(reports.place, row.divisions)),
        "reason_text": reasons.said(row.reason, zone),
        "created_by_name": names.get(row.created_by),
        "authors": list(row.authors),
        "author_names": [names[who] for who in row.authors if who in names],
        "approved_by_name": names.get(row.approved_by),
        "approved_by": row.approved_by or None,
        "channels": [channel_out(one) for one in row.channels],
        "why": [{**one._asdict(), "reason_text": reasons.said(one.reason, zone)} for one in row.why],
        **{name: notices.iso(getattr(row, name)) for name in ("created_at", "send_at", "first_try", "ended_at")},
    }


def sums(row: Totals) -> dict[str, Any]:
    """Totals as they are answered."""
    states = [{"state": state, "notices": n} for state, n in row.states]
    return {**row._asdict(), "campaign": row.campaign or None, "states": states}


def asked(query: dict[str, Any]) -> list[Report]:
    """The reports asked for of what the asker may read, in their order; fills in the query's span. Raises `Invalid`."""
    zone = ZoneInfo(settings().zone)
    last = query.setdefault("last", store.now().astimezone(zone).date())
    first = query.setdefault("first", last - YEAR)
    if first > last:
        raise invalid("from", "out_of_range", reason=Text("from 不能晚于 to", "from must not be after to"))
    if last - first > SPAN:
        raise invalid("from", "out_of_range", reason=Text("一次最多两年", "two years at most"))
    code = query["division"]
    division = divisions.check(code, "division") if code not in {"", divisions.COUNTRY} else ""
    found = reports.within(first, last, zone, query["season"], division)
    mine = reading()
    return reports.reports([raw for raw in found if mine(raw.get("divisions") or [])], zone)


@staff.get("/notices/<string:key>/report")
@staff.alt_response(200, schema=OneReport)
def show(key: str) -> Response:
    """What became of one notice

    Topics by outcome, messages by channel, why any was not sent, how many opened and acted, who wrote and approved it, and when
    it went out and ended. Of a notice that the asker may not read there is nothing (404).
    """
    notice = own(key, "notice.read")
    found = reports.reports([notice.to_mongo().to_dict()], ZoneInfo(settings().zone))
    return jsonify({**shown(found[0], reports.people(found)), "note": NOTE})


@staff.get("/notice-reports")
@staff.arguments(ReportsQuery, location="query")
@staff.alt_response(200, schema=ReportsOut)
def index(query: dict[str, Any]) -> Response:
    """What became of notices, by campaign, with totals

    Of the notices that the asker may read and whose day lies in the span, two years at most.
    """
    rows = asked(query)
    listed = page(rows, query.get("cursor"), query["limit"], reports.order)
    names = reports.people(listed["items"])
    return jsonify(
        {
            "from": query["first"].isoformat(),
            "to": query["last"].isoformat(),
            "note": NOTE,
            "totals": sums(reports.totals(rows)),
            "campaigns": [sums(one) for one in reports.campaigns(rows)],
            "items": [shown(row, names) for row in listed["items"]],
            "next_cursor": listed["next_cursor"],
        }
    )


@staff.get("/notice-reports.csv")
@staff.arguments(TableQuery, location="query")
@staff.alt_response(200, schema={"type": "string"}, content_type="text/csv", description="UTF-8 with a byte order mark")
def table(query: dict[str, Any]) -> Response:
    """The same as a table for spreadsheets in Chinese, a row for each notice

    Moments are in local time; who wrote and approved stands there by name.
    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    rows = asked(query)
    response = Response(reports.table(rows, ZoneInfo(settings().zone)), content_type="text/csv; charset=utf-8")
    name = f"notices-{query['first']}-{query['last']}.csv"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response

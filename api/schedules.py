"""A term's schedule as a table: download the template, import it as drafts, export it; and publishing many sessions at once.

The file itself is the body: CSV or XLSX, as the content type says. Nothing is written or published without `dry_run=false`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify, request
from marshmallow import validate
from werkzeug.exceptions import UnsupportedMediaType

from api.auth import actor, allowed, demand
from api.clashes import exam_days
from api.errors import FieldProblem, Messages
from api.guard import Blueprint
from api.shapes import reader, settings
from content import batches, courses, schedule, scheduleout, sheets
from content.courses import CourseSession
from content.failures import FieldError, NotFound, Stale, Text, invalid
from content.sheets import CSV, XLSX

staff = Blueprint("staff_schedules", __name__, url_prefix="/v1/staff", description="Terms as tables; many sessions at once")

ID = validate.Length(1, 64)
MOST_TOLD = 100  # rows whose reasons are told: thousands would be megabytes that nobody reads at once
OUTCOMES = ("new", "changed", "unchanged", "refused")
FILE = {"type": "string", "format": "binary"}
BODY = {"required": True, "content": {CSV: {"schema": FILE}, XLSX: {"schema": FILE}}}


class ImportQuery(ma.Schema):
    dry_run = ma.fields.Boolean(load_default=True, truthy={"true"}, falsy={"false"}, metadata={"description": "false writes"})


class RowOut(ma.Schema):
    line = ma.fields.Integer(metadata={"description": "row of the table, as a spreadsheet counts"})
    outcome = ma.fields.String(metadata={"description": "new, changed, unchanged or refused"})
    id = ma.fields.String(metadata={"description": "of the session; empty when refused"})
    errors = ma.fields.List(
        ma.fields.Nested(FieldProblem),
        metadata={"description": f"`field` is the column as headed; of the first {MOST_TOLD} refused rows"},
    )
    warnings = ma.fields.List(ma.fields.Nested(Messages), metadata={"description": f"of the first {MOST_TOLD} such rows"})


class ImportCounts(ma.Schema):
    new = ma.fields.Integer()
    changed = ma.fields.Integer()
    unchanged = ma.fields.Integer()
    refused = ma.fields.Integer()


class ImportOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(RowOut))
    counts = ma.fields.Nested(ImportCounts)
    dry_run = ma.fields.Boolean()
    written = ma.fields.Integer(metadata={"description": "drafts made or changed; 0 after a refusal and of a dry run"})


def may(permission: str, organisation: str, division: str) -> bool:
    """Whether the asker may do this to a thing of that organisation and division."""
    return allowed(permission, organisation, [division])


def problems(faults: Iterable[FieldError]) -> list[dict[str, Any]]:
    """Faults as they are answered."""
    return [{"field": fault.field, "code": fault.code, "messages": fault.messages} for fault in faults]


@staff.post("/schedules")
@staff.arguments(ImportQuery, location="query")
@staff.doc(requestBody=BODY)
@staff.alt_response(200, schema=ImportOut, description="What each row is, or was written as")
def create(query: dict[str, Any]) -> Response:
    """Import a term's schedule as drafts

    All rows or none: one refused row keeps the file out, and each fault is told with its line, column, reason and mend. A second
    run of the same file gives `unchanged`. A session that is published is never changed from a file.
    """
    if request.mimetype not in (CSV, XLSX):
        raise UnsupportedMediaType(f"{CSV}, {XLSX}")
    name = "schedule.xlsx" if request.mimetype == XLSX else "schedule.csv"
    data, dry = request.get_data(cache=True), query["dry_run"]
    rows = schedule.import_table(data, name, actor().id, settings(), may=may, exams=exam_days, dry_run=dry)
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in OUTCOMES}
    refused = warned = 0
    items = []
    for row in rows:
        bad = row["outcome"] == "refused"
        refused, warned = refused + bad, warned + (not bad and bool(row["messages"]))
        errors = problems(row["faults"]) if bad and refused <= MOST_TOLD else []
        warnings = row["messages"] if not bad and warned <= MOST_TOLD else []
        items.append({"line": row["line"], "outcome": row["outcome"], "id": row["key"], "errors": errors, "warnings": warnings})
    written = 0 if dry or counts["refused"] else counts["new"] + counts["changed"]
    return jsonify({"items": items, "counts": counts, "dry_run": dry, "written": written})


def file(data: bytes, content_type: str, name: str) -> Response:
    """A file to be saved."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, content_type=content_type, headers=headers)


@staff.get("/schedules/template.csv")
@staff.alt_response(200, content_type=CSV, description="The columns and an example row")
def template_csv() -> Response:
    """The empty table as CSV"""
    today = datetime.now(ZoneInfo(settings().zone)).date()
    return file(sheets.to_csv(scheduleout.template(today)), f"{CSV}; charset=utf-8", "template.csv")


@staff.get("/schedules/template.xlsx")
@staff.alt_response(200, content_type=XLSX, description="The columns, an example row, lists to choose from, explanations")
def template_xlsx() -> Response:
    """The empty table as XLSX

    With drop-down lists of the series and hosts that the asker may plan for, and a sheet that explains the columns.
    """
    today = datetime.now(ZoneInfo(settings().zone)).date()
    made = scheduleout.template_sheets(today, schedule.There(may, settings()))
    return file(sheets.to_xlsx(*made), XLSX, "template.xlsx")


class ExportQuery(ma.Schema):
    series = ma.fields.String(validate=ID)
    first = ma.fields.Date(format="iso", data_key="from", metadata={"description": "local date"})
    last = ma.fields.Date(format="iso", data_key="to", metadata={"description": "local date, included"})


def exported(query: dict[str, Any]) -> list[list[sheets.Value]]:
    """The table asked for. Raises `Invalid` for more rows than an import takes."""
    there = schedule.There(may, settings())
    if "series" in query and query["series"] not in there.series:
        raise NotFound(what=query["series"])
    match: dict[str, Any] = {"series": query["series"]} if "series" in query else {}
    if span := batches.span(query.get("first"), query.get("last"), settings().zone):
        match["starts_at"] = span
    rows = CourseSession.rows().find(match).sort([("starts_at", 1), ("_id", 1)])
    table: list[list[sheets.Value]] = []
    for row in scheduleout.export(there, map(CourseSession.of, rows)):
        if len(table) > sheets.MOST_ROWS:
            raise invalid(
                "to", "out_of_range", reason=Text(f"一次最多 {sheets.MOST_ROWS} 行", f"at most {sheets.MOST_ROWS} rows at once")
            )
        table.append(row)
    return table


@staff.get("/schedules.csv")
@staff.arguments(ExportQuery, location="query")
@staff.alt_response(200, content_type=CSV, description="The sessions that the asker may read, as the import takes them")
def export_csv(query: dict[str, Any]) -> Response:
    """Sessions as CSV

    Imported as it is, each row is `unchanged`. A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    return file(sheets.to_csv(exported(query)), f"{CSV}; charset=utf-8", "schedule.csv")


@staff.get("/schedules.xlsx")
@staff.arguments(ExportQuery, location="query")
@staff.alt_response(200, content_type=XLSX, description="The sessions that the asker may read, as the import takes them")
def export_xlsx(query: dict[str, Any]) -> Response:
    """Sessions as XLSX"""
    return file(sheets.to_xlsx(sheets.Sheet("课程安排 schedule", exported(query))), XLSX, "schedule.xlsx")


# --- publishing many ---------------------------------------------------------------------------------------------------


class BatchIn(ma.Schema):
    """Either `sessions`, or the drafts of a `series` that begin `from` … `to`."""

    sessions = ma.fields.List(ma.fields.String(validate=ID), validate=validate.Length(1, batches.MOST))
    series = ma.fields.String(validate=ID)
    first = ma.fields.Date(format="iso", data_key="from", metadata={"description": "local date"})
    last = ma.fields.Date(format="iso", data_key="to", metadata={"description": "local date, included"})
    despite_clashes = ma.fields.Boolean(load_default=False, truthy={True}, falsy={False})
    dry_run = ma.fields.Boolean(load_default=True, truthy={True}, falsy={False}, metadata={"description": "false publishes"})
    preview = ma.fields.String(validate=validate.Length(64, 64), metadata={"description": "of the dry run; needed to publish"})

    @ma.validates_schema
    def one_way(self, data: dict[str, Any], **_: Any) -> None:
        """Which sessions are meant must be said in one way."""
        if ("sessions" in data) == ("series" in data):
            raise ma.ValidationError("sessions 或 series，二选一 either sessions or series", "sessions")


class PlannedOut(ma.Schema):
    id = ma.fields.String()
    series = ma.fields.String()
    starts_at = ma.fields.String(metadata={"description": "local time with offset"})
    revision = ma.fields.Integer()
    outcome = ma.fields.String(metadata={"description": "publish, unchanged (is published) or refused"})
    errors = ma.fields.List(ma.fields.Nested(FieldProblem))
    warnings = ma.fields.List(ma.fields.Nested(Messages))


class BatchCounts(ma.Schema):
    publish = ma.fields.Integer()
    unchanged = ma.fields.Integer()
    refused = ma.fields.Integer()


class BatchOut(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(PlannedOut))
    counts = ma.fields.Nested(BatchCounts)
    preview = ma.fields.String(metadata={"description": "send it back to publish exactly this"})
    dry_run = ma.fields.Boolean()
    published = ma.fields.Integer(metadata={"description": "0 after a refusal and of a dry run"})


def readable(session: CourseSession) -> bool:
    """Whether the asker may read this session."""
    return may("course.read", session.organisation, session.division)


def asked_for(payload: dict[str, Any]) -> list[CourseSession]:
    """The sessions of a batch, each once. Raises `NotFound`, `Forbidden`, `Invalid` for too many or none."""
    if "series" in payload:
        parent = courses.series(payload["series"])
        demand("course.publish", parent.organisation, [parent.division], read="course.read", what=parent.id)
        keys = batches.within(parent.id, payload.get("first"), payload.get("last"), settings().zone)
        if not 0 < len(keys) <= batches.MOST:
            raise invalid(
                "series", "out_of_range", reason=Text(f"一次 1–{batches.MOST} 个草稿", f"1 to {batches.MOST} drafts at once")
            )
    else:
        keys = list(dict.fromkeys(payload["sessions"]))
    found = {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find({"_id": {"$in": keys}})}
    for key in keys:
        if key not in found:
            raise NotFound(what=key)
        demand("course.publish", found[key].organisation, [found[key].division], read="course.read", what=key)
    return list(found.values())


@staff.post("/sessions/publish-batch")
@staff.arguments(BatchIn)
@staff.alt_response(200, schema=BatchOut, description="What would be published, or was")
def publish_batch(payload: dict[str, Any]) -> Response:
    """Publish many sessions at once, after a preview

    First a dry run; then the same with `dry_run: false` and the `preview` that it gave: 412 when anything is different by then.
    All or none, in one release. A refused session keeps the batch back: leave it out or mend it.
    """
    rows = batches.preview(asked_for(payload), readable, payload["despite_clashes"], exam_days)
    token = batches.token(rows)
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in ("publish", "unchanged", "refused")}
    published = 0
    if not payload["dry_run"]:
        if "preview" not in payload:
            raise invalid("preview", "required")
        if payload["preview"] != token:
            raise Stale()
        if not counts["refused"]:
            published = batches.publish_many(rows, actor().id)
            reader().refresh()
    items = [
        {
            "id": row.session.id,
            "series": row.session.series,
            "starts_at": row.session.starts_at.astimezone(ZoneInfo(row.session.zone)).isoformat(timespec="seconds"),
            "revision": row.session.revision,
            "outcome": row.outcome,
            "errors": problems(row.faults),
            "warnings": row.warnings,
        }
        for row in rows
    ]
    return jsonify({"items": items, "counts": counts, "preview": token, "dry_run": payload["dry_run"], "published": published})

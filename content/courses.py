"""Family-education courses: a series says what is taught, by whom and for whom; its sessions say when and where.

Here are the two records, what readers get of them, and what is done with a series. Sessions are planned and held in
`content.sessions`, booked in `content.registrations`. Readers get both from the published set, so a schedule stays readable while
the database is away. An edit of a published series waits for the next `publish_series`.

Second person: `publish_series` wants one when the setting says so, since a series is what the public is told. A session is
a date of an approved series, and needs the permission alone.

A series is for all, or for whom its organiser gives an invitation to (one school, one enterprise): then it and its sessions are
published under kinds of their own (`kind`), which no list, feed or pack looks at, and are shown to whoever brings the code.
"""

import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo.client_session import ClientSession

from content import codes, materials, records, staff, store
from content.checking import SLUG, Check
from content.failures import Conflict, Forbidden, Invalid, NotFound, Text
from content.published import ANY, Item, PublishedRow, release
from content.vocabulary import AUDIENCES, FORMATS, TOPICS
from content.workdays import provisional

MOST_QUESTIONS = 10
VISIBILITY = ("all", "invited")
_MATERIAL = re.compile(rf"lesson:({SLUG.pattern})|media:([0-9a-f]{{64}})")
_QUESTION = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Series(records.Record):
    """The working copy of a course series."""

    texts = me.DictField(required=True)
    """Language tag -> {"title", "summary"}."""
    organiser_name = me.DictField()
    """Language tag -> the organiser as the public sees it."""
    contact = me.DictField()
    """Language tag -> whom to ask: a telephone of the office, its hours."""
    topics = me.ListField()
    audiences = me.ListField()
    stages = me.ListField()
    """Texts of vocabulary.Stage; empty: every stage."""
    languages = me.ListField()
    """In which languages it is held."""
    format = me.StringField(required=True)
    organisation = me.StringField(required=True)
    """Id of the organisation it belongs to; "" (only of what the project ships): of none."""
    division = me.StringField(required=True)
    """Whose families it is for: this division and all below it."""
    lecturers = me.ListField()
    """[{"name": texts, "field": texts}], texts by language tag, as the public sees them."""
    materials = me.ListField()
    """"lesson:SLUG" and "media:SHA256": what is read and handed out in all of its sessions."""
    visibility = me.StringField(required=True, choices=VISIBILITY, default="all")
    invitation = me.StringField()
    """Of an invited series: the code that its organiser gives out. It opens a timetable and nothing personal, so staff can read
    it here; what is published has only its hash."""
    approval = me.BooleanField(required=True, default=False)
    """A booking holds its seats and waits for the organiser's word."""
    questions = me.ListField()
    """[{"code", "text" by language, "required", "options": [{"code", "text" by language}]}]; without options: in words."""
    state = me.StringField(required=True, choices=("draft", "published", "cancelled"), default="draft")
    sessions_published = me.IntField(required=True, default=0)
    """Raised with each session that is published, so that a cancellation at the same moment meets it."""
    editors = me.ListField()
    """Everyone who edited since the last publication."""
    approved_by = me.StringField()
    """The second person, until the next edit or publication."""
    published_revision = me.IntField()
    """The revision that readers see."""

    NAME = "series"
    PERSONAL = frozenset({"invitation"})
    meta: ClassVar[dict[str, Any]] = {"collection": "series", "indexes": [{"fields": ["organisation"]}]}


class CourseSession(records.Record):
    """One session of a series."""

    series = me.StringField(required=True)
    organisation = me.StringField(required=True)
    """The series' organisation and division, copied for filters."""
    division = me.StringField(required=True)
    invited = me.BooleanField(required=True, default=False)
    """Whether it is shown to those with the series' invitation only; copied too."""
    starts_at = me.DateTimeField(required=True)
    ends_at = me.DateTimeField(required=True)
    zone = me.StringField(required=True)
    """IANA name: the local date and time are said in it."""
    place = me.StringField(required=True)
    """A code of vocabulary.PLACES."""
    title = me.DictField()
    """Texts by language tag; empty: it goes by its series' title."""
    venue = me.DictField()
    """{"name": texts, "address": texts, "access": texts}; access: steps, lifts, which bus, where to ring."""
    latitude = me.FloatField()
    """Degrees, WGS 84, of the door; both or none."""
    longitude = me.FloatField()
    lecturer = me.DictField()
    """{"name": texts, "field": texts}"""
    lecturer_id = me.StringField()
    """The lecturer's entry in the expert library."""
    host = me.StringField()
    """Id of the station or school that it is held at and counts for; absent: it counts for `organisation`."""
    step = me.StringField()
    """A code of vocabulary.STEPS."""
    class_hours = me.IntField(required=True, default=1)
    materials = me.ListField()
    """As of the series, for this session."""
    capacity = me.IntField(required=True)
    waiting_list = me.BooleanField(required=True, default=True)
    # What follows is changed by bookings and at the door, which leave `revision` as it is: staff are not told 412 by every
    # family that books.
    seats_taken = me.IntField(required=True, default=0)
    """Seats of the places that are confirmed, requested or offered."""
    waiting = me.IntField(required=True, default=0)
    """Places that wait."""
    arrivals = me.IntField(required=True, default=0)
    """The number of the last place that came; each gets the next."""
    attended = me.IntField(required=True, default=0)
    """Seats checked in."""
    walk_ins = me.IntField(required=True, default=0)
    """People who came without a booking."""
    headcount = me.IntField()
    """Who was there by the organiser's own count, when that is given; it then stands for attended and walk_ins."""
    events = me.ListField()
    """[{"n", "kind": moved|changed|cancelled, "at", "before": the old values}]: what those booked have to be told."""
    booking_closes_at = me.DateTimeField(required=True)
    state = me.StringField(required=True, choices=("draft", "published", "cancelled", "finished"), default="draft")
    online_link = me.StringField()
    """For those booked and for staff; never published, never in the trail."""

    NAME = "session"
    PERSONAL = frozenset({"online_link"})
    DERIVED = frozenset({"events"})  # the same line of the trail says it already
    meta: ClassVar[dict[str, Any]] = {
        "collection": "course_sessions",
        "indexes": [
            {"fields": ["series", "starts_at"]},
            {"fields": ["organisation", "starts_at"]},
            {"fields": ["starts_at"]},
            {"fields": ["state", "ends_at"]},
        ],
    }


# --- series ----------------------------------------------------------------------------------------------------------

SERIES_FIELDS = (
    "texts", "organiser_name", "contact", "topics", "audiences", "stages", "languages", "format", "organisation", "division",
    "lecturers",
    "materials", "visibility", "approval", "questions",
)  # fmt: skip


def checked_series(values: Mapping[str, Any]) -> dict[str, Any]:
    """A series' fields in their stored form. Raises `Invalid` with every fault."""
    check = Check()
    check.fields(values, SERIES_FIELDS)
    texts: dict[str, dict[str, str]] = {}
    given = values.get("texts")
    if not isinstance(given, Mapping) or not given:
        check.fail("texts", "required")
        given = {}
    for key, row in given.items():
        tag, row = check.language("texts", key), row if isinstance(row, Mapping) else {}
        title = check.text(f"texts.{key}.title", row.get("title"), 120, required=True)
        summary = check.text(f"texts.{key}.summary", row.get("summary"), 2000)
        texts[tag] = {"title": title or "", "summary": summary or ""}
    lecturers = [
        parts(check, f"lecturers.{n}", v, "name", "field") for n, v in enumerate(check.rows("lecturers", values.get("lecturers")))
    ]
    fields = {
        "texts": texts,
        "organiser_name": check.texts("organiser_name", values.get("organiser_name"), 120),
        "contact": check.texts("contact", values.get("contact"), 200),
        "topics": check.codes("topics", values.get("topics"), TOPICS),
        "audiences": check.codes("audiences", values.get("audiences"), AUDIENCES),
        "stages": check.stages(values.get("stages")),
        "languages": [check.language("languages", v) for v in check.rows("languages", values.get("languages"))] or sorted(texts),
        "format": check.coded("format", values.get("format"), FORMATS),
        "organisation": check.text("organisation", values.get("organisation"), 64) or "",
        "division": check.division("division", values.get("division") or ""),
        "lecturers": [one for one in lecturers if one],
        "materials": checked_materials(check, values.get("materials")),
        "visibility": check.coded("visibility", values.get("visibility") or "all", VISIBILITY),
        "approval": bool(values.get("approval")),
        "questions": _questions(check, values.get("questions")),
    }
    check.done()
    return fields


def checked_materials(check: Check, value: Any) -> list[str]:
    """Names of lessons and files in the right form, each once; whether they are there says `content.materials`."""
    found = []
    for n, name in enumerate(check.rows("materials", value, 30)):
        if isinstance(name, str) and _MATERIAL.fullmatch(name):
            found.append(name)
        else:
            check.fail(f"materials.{n}", "bad_format", reason="lesson:SLUG / media:SHA256")
    return list(dict.fromkeys(found))


def _questions(check: Check, value: Any) -> list[dict[str, Any]]:
    """What the organiser asks at booking: a code that is there once, a text, and options or none."""
    found: list[dict[str, Any]] = []
    for n, row in enumerate(check.rows("questions", value, MOST_QUESTIONS)):
        at = f"questions.{n}"
        row = row if isinstance(row, Mapping) else {}
        check.fields({f"{at}.{name}": None for name in row}, {f"{at}.{name}" for name in ("code", "text", "required", "options")})
        options = [
            _asked(check, f"{at}.options.{k}", option, 120)
            for k, option in enumerate(check.rows(f"{at}.options", row.get("options"), 20))
        ]
        found.append({**_asked(check, at, row, 300), "required": bool(row.get("required")), "options": options})
        _once(check, f"{at}.options", options)
    _once(check, "questions", found)
    return found


def _asked(check: Check, at: str, row: Any, longest: int) -> dict[str, Any]:
    row = row if isinstance(row, Mapping) else {}
    code = row.get("code")
    if not isinstance(code, str) or not _QUESTION.fullmatch(code):
        check.fail(f"{at}.code", "bad_format", reason=Text("只用 a-z、0-9 和 _，最多 32 个", "a-z, 0-9 and _ only, at most 32"))
    return {"code": code, "text": check.texts(f"{at}.text", row.get("text"), longest, required=True)}


def _once(check: Check, field: str, rows: list[dict[str, Any]]) -> None:
    if len({str(row["code"]) for row in rows}) < len(rows):
        check.fail(field, "bad_format", reason=Text("编号重复，每个编号只写一次", "a code stands twice; write each once"))


def parts(check: Check, field: str, value: Any, *names: str) -> dict[str, dict[str, str]]:
    """{name: {language tag: text}} for each of `names`; {} for none."""
    if not isinstance(value, Mapping | None):
        check.fail(field, "wrong_type", reason="{" + ", ".join(names) + "}")
        return {}
    check.fields({f"{field}.{name}": None for name in value or {}}, {f"{field}.{name}" for name in names})
    parts = {name: check.texts(f"{field}.{name}", (value or {}).get(name), 300) for name in names}
    return {name: texts for name, texts in parts.items() if texts}


def series(key: str, tx: ClientSession | None = None) -> Series:
    """The working copy. Raises `NotFound`."""
    raw = Series.rows().find_one({"_id": key}, session=tx)
    if raw is None:
        raise NotFound(what=key)
    return Series.of(raw)


def _known(fields: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an organisation and for materials that do not exist."""
    staff.must_exist(fields.get("organisation", ""))
    if faults := materials.absent(fields.get("materials")):
        raise Invalid(faults)


def create_series(values: Mapping[str, Any], by: str, key: str = "") -> Series:
    """A draft. `key` is for what the project ships; others get a random id. Raises `Invalid`, `Conflict("exists")`."""
    fields = checked_series(values)
    _known(fields)
    if fields["visibility"] == "invited":
        fields["invitation"] = codes.new()
    return records.create(Series(id=key or store.new_id(), editors=[by], **fields), by)


def edit_series(key: str, values: Mapping[str, Any], by: str, revision: int | None = None) -> Series:
    """Set the fields given; readers see them after the next publication. Organisation, division and
    visibility are fixed once published, since permissions and sessions hang on them.
    Raises `Invalid`, `NotFound`, `Stale`, `Conflict`."""

    def decide(present: Series) -> dict[str, Any]:
        if present.state == "cancelled":
            raise Conflict("wrong_state", state=present.state, action="edit")
        before = records.values_of(present, SERIES_FIELDS)
        fields = {k: v for k, v in checked_series({**before, **values}).items() if v != before[k]}
        _known({**fields, "materials": set(fields.get("materials", ())) - set(before["materials"])})
        if present.state != "draft" and fields.keys() & {"organisation", "division", "visibility"}:
            raise Conflict("wrong_state", state=present.state, action=Text("更换机构、区域或可见范围", "change whose it is"))
        if "visibility" in fields:
            fields["invitation"] = codes.new() if fields["visibility"] == "invited" else None
        return fields and {**fields, "editors": sorted({*present.editors, by}), "approved_by": None}

    def also(tx: ClientSession, changed: Series) -> None:
        copied = {
            "organisation": changed.organisation,
            "division": changed.division,
            "invited": changed.visibility == "invited",
        }
        CourseSession.rows().update_many({"series": key, "state": "draft"}, {"$set": copied}, session=tx)

    return records.change(Series, key, by, "edit", decide, revision=revision, also=also)


def approve_series(key: str, by: str, revision: int | None = None) -> Series:
    """A second person's word for the series as it now is, so that an editor may publish it. Raises
    `Forbidden("second_person")`, `Conflict` when there is nothing to approve, `NotFound`, `Stale`."""

    def decide(present: Series) -> dict[str, Any]:
        if not present.editors or present.state == "cancelled":
            raise Conflict("nothing_to_do", action="approve")
        if not staff.second(present.editors, by):
            raise Forbidden("second_person")
        return {"approved_by": by}

    return records.change(Series, key, by, "approve", decide, revision=revision)


def publish_series(key: str, by: str, *, second_person: bool, revision: int | None = None) -> Series:
    """Let readers see the series as it now is. Of what is already published unchanged, a no-op.

    With `second_person`, someone who neither edited it since the last publication nor has an account made by one who did must
    have approved it, or be the one who publishes: else `Forbidden("second_person")`. Raises `NotFound`, `Stale`, `Conflict`, and
    `Invalid` for materials that readers cannot open.
    """

    def decide(present: Series) -> dict[str, Any]:
        if present.state == "cancelled":
            raise Conflict("wrong_state", state=present.state, action="publish")
        if present.published_revision == present.revision:
            return {}
        if second_person and not present.approved_by and not staff.second(present.editors, by):
            raise Forbidden("second_person")
        if faults := materials.closed(present.materials):
            raise Invalid(list(faults.values()))
        fields = {"state": "published", "editors": [], "approved_by": None, "published_revision": present.revision + 1}
        if present.visibility == "invited" and not present.invitation:  # it came in an archive, which carries no codes
            fields["invitation"] = codes.new()
        return fields

    def also(tx: ClientSession, changed: Series) -> None:
        release(tx, [_series_item(changed)])

    return records.change(Series, key, by, "publish", decide, revision=revision, also=also)


def cancel_series(key: str, by: str, revision: int | None = None) -> Series:
    """Cancel a series all of whose sessions are drafts, over or cancelled; else `Conflict("sessions_coming")`: each session with
    families in it is cancelled on its own. Readers who see it see it cancelled. A second call raises `Conflict`."""

    def decide(present: Series) -> dict[str, Any]:
        if present.state == "cancelled":
            raise Conflict("wrong_state", state=present.state, action="cancel")
        coming = {"series": key, "state": "published", "ends_at": {"$gt": store.now()}}
        found = CourseSession.rows().find_one(coming, {"_id": 1})
        if found:
            raise Conflict("sessions_coming", session=found["_id"])
        return {"state": "cancelled"}

    def also(tx: ClientSession, changed: Series) -> None:
        if changed.published_revision is not None:
            release(tx, [_series_item(changed)])

    return records.change(Series, key, by, "cancel", decide, revision=revision, also=also)


def remove_series(key: str, by: str, revision: int | None = None) -> None:
    """Delete a draft without sessions. Raises `NotFound`, `Stale`, `Conflict`."""

    def check(present: Series) -> None:
        if present.state != "draft":
            raise Conflict("wrong_state", state=present.state, action="delete")
        if found := CourseSession.rows().find_one({"series": key}, {"_id": 1}):
            raise Conflict("in_use", what=key, used_in=found["_id"])

    records.remove(Series, key, by, check, revision=revision)


def _series_item(present: Series) -> Item:
    content = {"id": present.id, "state": present.state, **records.values_of(present, SERIES_FIELDS)}
    if present.visibility == "invited":
        content["invitation"] = codes.name(present.invitation)
    return Item(kind("series", present.visibility == "invited"), present.id, ANY, {**content, "media": shown(present.materials)})


def kind(noun: str, invited: bool) -> str:
    """Under which kind a series or its sessions are published: "series", "session", "invited_series", "invited_session"."""
    return f"invited_{noun}" if invited else noun


def shown(names: list[str]) -> list[str]:
    """Hashes of the files among materials: while they are published they cannot be removed."""
    return [name.removeprefix("media:") for name in names if name.startswith("media:")]


def invited(content: Mapping[str, Any], code: str) -> bool:
    """Whether `code` is the invitation of this published series."""
    return hmac.compare_digest(str(content.get("invitation", "")), codes.name(code))


# --- what readers get of a session -----------------------------------------------------------------------------------


def seats_word(present: CourseSession) -> str:
    """open, few (at most a fifth left) or full, which it also is while anybody waits for what comes free."""
    left = present.capacity - present.seats_taken
    return "full" if left <= 0 or present.waiting else "few" if left * 5 <= present.capacity else "open"


def local(moment: datetime, zone: str) -> str:
    """A moment as ISO 8601 in the local time of `zone`, to the minute."""
    return moment.astimezone(ZoneInfo(zone)).isoformat(timespec="seconds")


def is_provisional(moment: datetime, zone: str) -> bool:
    """Whether the public holidays of the year in which it falls, local time of `zone`, are not known yet."""
    return provisional(moment.astimezone(ZoneInfo(zone)).date())


def session_item(present: CourseSession) -> Item:
    """What readers get of a session: everything but the online link and the exact counts."""
    starts = local(present.starts_at, present.zone)
    moved = [event["before"]["starts_at"] for event in present.events if "starts_at" in event["before"]]
    content = {
        "id": present.id,
        "series": present.series,
        "organisation": present.organisation,
        "host": present.host or "",
        "division": present.division,
        "starts_at": starts,
        "ends_at": local(present.ends_at, present.zone),
        "moved_from": local(moved[-1], present.zone) if moved else None,
        "booking_closes_at": local(present.booking_closes_at, present.zone),
        "zone": present.zone,
        "place": present.place,
        **records.values_of(present, ("title", "venue", "latitude", "longitude", "lecturer", "materials", "class_hours")),
        "lecturer_id": present.lecturer_id or "",
        "step": present.step or "",
        "capacity": present.capacity,
        "seats": seats_word(present),
        "waiting_list": present.waiting_list,
        "online": present.place == "online",
        "provisional": is_provisional(present.starts_at, present.zone),
        "state": present.state,
        "sequence": present.revision,
        "updated_at": present.updated_at.astimezone(UTC).isoformat(timespec="seconds"),
        "media": shown(present.materials),
    }
    return Item(kind("session", present.invited), present.id, ANY, content)


def told(key: str, tx: ClientSession | None = None) -> dict[str, Any]:
    """What readers were told of a series when it was last published: a booking is made on these terms. Raises `NotFound`."""
    for noun in ("series", "invited_series"):
        row = PublishedRow.rows().find_one({"_id": f"{noun}:{key}:{ANY}"}, {"content": 1}, session=tx)
        if row and row.get("content"):
            found: dict[str, Any] = json.loads(row["content"])
            return found
    raise NotFound(what=key)


def show(tx: ClientSession, key: str) -> None:
    """Show readers a session as it now is, inside the transaction that changed it."""
    release(tx, [session_item(CourseSession.of(CourseSession.rows().find_one({"_id": key}, session=tx)))])

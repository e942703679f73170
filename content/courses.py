"""Family-education courses: a series (what is taught, by whom, for whom) and its sessions (when, where, how many seats).

Readers get both from the published set, so a schedule stays readable while the database is away. An edit of a published
series waits for the next `publish_series`; an edit of a published session is public at once, because families act on its
time and place. A cancelled session stays published as cancelled, so that a phone that kept it learns of it.

Seats are counted live on the session, in `seats_taken`, by one conditional update (`content.registrations`). Readers get
the word `seats` only: open, few or full. It is released again when the word changes, inside the booking's transaction: two
extra releases while a session fills, where a public count would cost one a booking (each release takes the published
counter, for which all publishing queues, and wakes every reader). The price is that a reader sees "open" up to 0.4 s after
the last seat went, which the conditional update makes harmless.

Second person: `publish_series` wants one when the setting says so, since a series is what the public is told. A session is
a date of an approved series, and needs the permission alone.
"""

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
import yaml
from pymongo.client_session import ClientSession

from content import records, staff, store
from content.checking import Check
from content.failures import Conflict, Forbidden, NotFound, invalid
from content.published import ANY, Item, release
from content.settings import Settings
from content.vocabulary import AUDIENCES, FORMATS, PLACES, TOPICS

KEEP = timedelta(days=29)  # a booking's personal data after its session; promise 18 says 30 days, one is left for the purge
MOST_SEATS = 100_000


class Series(records.Record):
    """The working copy of a course series."""

    texts = me.DictField(required=True)
    """Language tag -> {"title", "summary"}."""
    organiser_name = me.DictField()
    """Language tag -> the organiser as the public sees it."""
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
    state = me.StringField(required=True, choices=("draft", "published", "cancelled"), default="draft")
    editors = me.ListField()
    """Everyone who edited since the last publication."""
    approved_by = me.StringField()
    """The second person, until the next edit or publication."""
    published_revision = me.IntField()
    """The revision that readers see."""

    NAME = "series"
    meta: ClassVar[dict[str, Any]] = {"collection": "series", "indexes": [{"fields": ["organisation"]}]}


class CourseSession(records.Record):
    """One session of a series."""

    series = me.StringField(required=True)
    organisation = me.StringField(required=True)
    """The series' organisation and division, copied for filters."""
    division = me.StringField(required=True)
    starts_at = me.DateTimeField(required=True)
    ends_at = me.DateTimeField(required=True)
    zone = me.StringField(required=True)
    """IANA name: the local date and time are said in it."""
    place = me.StringField(required=True)
    """A code of vocabulary.PLACES."""
    title = me.DictField()
    """Texts by language tag; empty: it goes by its series' title."""
    venue = me.DictField()
    """{"name": texts, "address": texts}"""
    lecturer = me.DictField()
    """{"name": texts, "field": texts}"""
    capacity = me.IntField(required=True)
    seats_taken = me.IntField(required=True, default=0)
    """Changed by bookings alone, which leave `revision` as it is: staff are not told 412 by every family that books."""
    booking_closes_at = me.DateTimeField(required=True)
    state = me.StringField(required=True, choices=("draft", "published", "cancelled", "finished"), default="draft")
    online_link = me.StringField()
    """For those booked and for staff; never published, never in the trail."""

    NAME = "session"
    PERSONAL = frozenset({"online_link"})
    meta: ClassVar[dict[str, Any]] = {
        "collection": "course_sessions",
        "indexes": [{"fields": ["series", "starts_at"]}, {"fields": ["organisation", "starts_at"]}],
    }


class Booking(store.Row):
    """One booking; what is done with it stands in `content.registrations`. `_id` is the SHA-256 of its code.

    It has no record and no line in the trail, so its names stand nowhere else.
    """

    session = me.StringField(required=True)
    seats = me.IntField(required=True)
    state = me.StringField(required=True, choices=("confirmed", "cancelled"))
    phone = me.BinaryField()
    """Sealed E.164; these three are gone once it is cancelled."""
    phone_blind = me.BinaryField()
    family_name = me.BinaryField()
    """Sealed."""
    created_at = me.DateTimeField(required=True)
    expires_at = me.DateTimeField(required=True)
    """Erased by the index at this moment."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "bookings",
        "indexes": [
            {"fields": ["session", "phone_blind"]},
            {"fields": ["session", "created_at"]},
            {"fields": ["expires_at"], "expireAfterSeconds": 0},
        ],
    }


# --- series ----------------------------------------------------------------------------------------------------------

SERIES_FIELDS = (
    "texts", "organiser_name", "topics", "audiences", "stages", "languages", "format", "organisation", "division", "lecturers",
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
        _parts(check, f"lecturers.{n}", v, "name", "field")
        for n, v in enumerate(check.rows("lecturers", values.get("lecturers")))
    ]
    fields = {
        "texts": texts,
        "organiser_name": check.texts("organiser_name", values.get("organiser_name"), 120),
        "topics": check.codes("topics", values.get("topics"), TOPICS),
        "audiences": check.codes("audiences", values.get("audiences"), AUDIENCES),
        "stages": check.stages(values.get("stages")),
        "languages": [check.language("languages", v) for v in check.rows("languages", values.get("languages"))] or sorted(texts),
        "format": check.coded("format", values.get("format"), FORMATS),
        "organisation": check.text("organisation", values.get("organisation"), 64) or "",
        "division": check.division("division", values.get("division") or ""),
        "lecturers": [one for one in lecturers if one],
    }
    check.done()
    return fields


def _parts(check: Check, field: str, value: Any, *names: str) -> dict[str, dict[str, str]]:
    """{name: {language tag: text}} for each of `names`; {} for none."""
    if not isinstance(value, Mapping | None):
        check.fail(field, "wrong_type", reason="{" + ", ".join(names) + "}")
        return {}
    check.fields({f"{field}.{name}": None for name in value or {}}, {f"{field}.{name}" for name in names})
    parts = {name: check.texts(f"{field}.{name}", (value or {}).get(name), 300) for name in names}
    return {name: texts for name, texts in parts.items() if texts}


def series(key: str) -> Series:
    """The working copy. Raises `NotFound`."""
    return Series.of(_raw(Series, key))


def session(key: str) -> CourseSession:
    """The session as it now is, seats taken included. Raises `NotFound`."""
    return CourseSession.of(_raw(CourseSession, key))


def _raw(cls: type[records.Record], key: str) -> dict[str, Any]:
    raw: dict[str, Any] | None = cls.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return raw


def _known(fields: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an organisation that does not exist."""
    try:
        if fields["organisation"]:
            staff.organisation(fields["organisation"])
    except NotFound:
        raise invalid("organisation", "unknown_reference", value=fields["organisation"]) from None


def create_series(values: Mapping[str, Any], by: str, key: str = "") -> Series:
    """A draft. `key` is for what the project ships; others get a random id. Raises `Invalid`, `Conflict("exists")`."""
    fields = checked_series(values)
    _known(fields)
    return records.create(Series(id=key or store.new_id(), editors=[by], **fields), by)


def edit_series(key: str, values: Mapping[str, Any], by: str, revision: int | None = None) -> Series:
    """Set the fields given; readers see them after the next publication. Organisation and division are fixed once
    published, since permissions and sessions hang on them. Raises `Invalid`, `NotFound`, `Stale`, `Conflict`."""

    def decide(present: Series) -> dict[str, Any]:
        if present.state == "cancelled":
            raise Conflict("wrong_state", state=present.state, action="修改 edit")
        before = values_of(present, SERIES_FIELDS)
        fields = {k: v for k, v in checked_series({**before, **values}).items() if v != before[k]}
        if present.state != "draft" and fields.keys() & {"organisation", "division"}:
            raise Conflict("wrong_state", state=present.state, action="更换机构或区域 change organisation or division")
        return fields and {**fields, "editors": sorted({*present.editors, by}), "approved_by": None}

    if "organisation" in values:
        _known(values)

    def also(tx: ClientSession, changed: Series) -> None:
        copied = {"organisation": changed.organisation, "division": changed.division}
        CourseSession.rows().update_many({"series": key, "state": "draft"}, {"$set": copied}, session=tx)

    return records.change(Series, key, by, "edit", decide, revision=revision, also=also)


def _second(present: Series, by: str) -> bool:
    """Whether `by` counts as a second person for all that was edited since the last publication."""
    return by == records.SYSTEM or all(staff.independent(author, by) for author in present.editors)


def approve_series(key: str, by: str, revision: int | None = None) -> Series:
    """A second person's word for the series as it now is, so that an editor may publish it. Raises
    `Forbidden("second_person")`, `Conflict` when there is nothing to approve, `NotFound`, `Stale`."""

    def decide(present: Series) -> dict[str, Any]:
        if not present.editors or present.state == "cancelled":
            raise Conflict("nothing_to_do", action="批准 approve")
        if not _second(present, by):
            raise Forbidden("second_person")
        return {"approved_by": by}

    return records.change(Series, key, by, "approve", decide, revision=revision)


def publish_series(key: str, by: str, *, second_person: bool, revision: int | None = None) -> Series:
    """Let readers see the series as it now is. Of what is already published unchanged, a no-op.

    With `second_person`, someone who neither edited it since the last publication nor has an account made by one who did must
    have approved it, or be the one who publishes: else `Forbidden("second_person")`. Raises `NotFound`, `Stale`, `Conflict`.
    """

    def decide(present: Series) -> dict[str, Any]:
        if present.state == "cancelled":
            raise Conflict("wrong_state", state=present.state, action="发布 publish")
        if present.published_revision == present.revision:
            return {}
        if second_person and not present.approved_by and not _second(present, by):
            raise Forbidden("second_person")
        return {"state": "published", "editors": [], "approved_by": None, "published_revision": present.revision + 1}

    def also(tx: ClientSession, changed: Series) -> None:
        release(tx, [_series_item(changed)])

    return records.change(Series, key, by, "publish", decide, revision=revision, also=also)


def cancel_series(key: str, by: str, revision: int | None = None) -> Series:
    """Cancel a series all of whose sessions are drafts, over or cancelled; else `Conflict("in_use")`: each session with
    families in it is cancelled on its own. Readers who see it see it cancelled. A second call raises `Conflict`."""

    def decide(present: Series) -> dict[str, Any]:
        if present.state == "cancelled":
            raise Conflict("wrong_state", state=present.state, action="取消 cancel")
        coming = {"series": key, "state": "published", "ends_at": {"$gt": store.now()}}
        found = CourseSession.rows().find_one(coming, {"_id": 1})
        if found:
            raise Conflict("in_use", what=key, used_in=found["_id"])
        return {"state": "cancelled"}

    def also(tx: ClientSession, changed: Series) -> None:
        if changed.published_revision is not None:
            release(tx, [_series_item(changed)])

    return records.change(Series, key, by, "cancel", decide, revision=revision, also=also)


def remove_series(key: str, by: str, revision: int | None = None) -> None:
    """Delete a draft without sessions. Raises `NotFound`, `Stale`, `Conflict`."""

    def check(present: Series) -> None:
        if present.state != "draft":
            raise Conflict("wrong_state", state=present.state, action="删除 delete")
        if found := CourseSession.rows().find_one({"series": key}, {"_id": 1}):
            raise Conflict("in_use", what=key, used_in=found["_id"])

    records.remove(Series, key, by, check, revision=revision)


def values_of(record: records.Record, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields as plain values; mongoengine leaves empty lists and maps out of what it stores, here they are back."""
    raw, fields = record.to_mongo().to_dict(), type(record)._fields
    empty: dict[str, Any] = {}
    for name in names:
        empty[name] = [] if isinstance(fields[name], me.ListField) else {} if isinstance(fields[name], me.DictField) else None
    return {name: raw.get(name, empty[name]) for name in names}


def _series_item(present: Series) -> Item:
    content = {"id": present.id, "state": present.state, **values_of(present, SERIES_FIELDS)}
    return Item("series", present.id, ANY, content)


# --- sessions --------------------------------------------------------------------------------------------------------

SESSION_FIELDS = (
    "starts_at", "ends_at", "zone", "place", "title", "venue", "lecturer", "capacity", "booking_closes_at", "online_link",
)  # fmt: skip


def checked_session(values: Mapping[str, Any]) -> dict[str, Any]:
    """A session's fields in their stored form. Raises `Invalid` with every fault."""
    check = Check()
    check.fields(values, SESSION_FIELDS)
    zone = check.zone("zone", values.get("zone"))
    starts = check.moment("starts_at", values.get("starts_at"), zone)
    ends = check.moment("ends_at", values.get("ends_at"), zone)
    closes = check.moment("booking_closes_at", values.get("booking_closes_at"), zone) or starts
    for name, value in (("starts_at", starts), ("ends_at", ends), ("capacity", values.get("capacity"))):
        if value is None and not any(error.field == name for error in check.errors):
            check.fail(name, "required")
    if starts and ends and not starts < ends <= starts + timedelta(days=3):
        check.fail("ends_at", "out_of_range", reason="starts_at < ends_at ≤ starts_at + 3 d")
    if starts and ends and closes and closes > ends:
        check.fail("booking_closes_at", "out_of_range", reason="≤ ends_at")
    link = check.text("online_link", values.get("online_link"), 1000)
    if link and not link.startswith("https://"):
        check.fail("online_link", "bad_format", reason="https://…")
    fields = {
        "starts_at": starts,
        "ends_at": ends,
        "zone": zone,
        "place": check.coded("place", values.get("place"), PLACES),
        "title": check.texts("title", values.get("title"), 120),
        "venue": _parts(check, "venue", values.get("venue"), "name", "address"),
        "lecturer": _parts(check, "lecturer", values.get("lecturer"), "name", "field"),
        "capacity": check.whole("capacity", values.get("capacity"), 1, MOST_SEATS),
        "booking_closes_at": closes,
        "online_link": link,
    }
    check.done()
    return fields


def create_session(series_id: str, values: Mapping[str, Any], by: str, key: str = "") -> CourseSession:
    """A draft session of a series. Times are ISO 8601 texts or datetimes; one without an offset is local time of `zone`.
    `booking_closes_at` is the start when not given. Raises `Invalid`, `NotFound` (no such series), `Conflict` (cancelled)."""
    fields = checked_session(values)
    parent = series(series_id)
    if parent.state == "cancelled":
        raise Conflict("wrong_state", state=parent.state, action="排课 add a session")
    fields |= {"series": series_id, "organisation": parent.organisation, "division": parent.division}
    return records.create(CourseSession(id=key or store.new_id(), **{k: v for k, v in fields.items() if v is not None}), by)


def edit_session(key: str, values: Mapping[str, Any], by: str, revision: int | None = None) -> CourseSession:
    """Set the fields given. Of a published session this is public at once, so the caller asks for the permission to
    publish. A start that moves takes `booking_closes_at` with it unless that is given too. The moment at which bookings are
    erased follows `ends_at`. Raises `Invalid`, `NotFound`, `Stale`, `Conflict` (cancelled or finished)."""

    def decide(present: CourseSession) -> dict[str, Any]:
        if present.state not in {"draft", "published"}:
            raise Conflict("wrong_state", state=present.state, action="修改 edit")
        before = values_of(present, SESSION_FIELDS)
        merged = {**before, **values}
        if "starts_at" in values and "booking_closes_at" not in values:
            zone = str(merged["zone"] or "Asia/Shanghai")
            check = Check()
            moved = check.moment("starts_at", values["starts_at"], check.zone("zone", zone))
            check.done()
            merged["booking_closes_at"] = moved and moved - (present.starts_at - present.booking_closes_at)
        fields = checked_session(merged)
        times = {name: fields[name] for name in ("starts_at", "ends_at")}
        if present.state == "published" and present.starts_at <= store.now() and times != {n: before[n] for n in times}:
            # it has taken place: moving it would keep the bookings' personal data longer than was promised
            raise Conflict("wrong_state", state="begun", action="改期 move")
        if fields["capacity"] < present.seats_taken:
            raise invalid("capacity", "out_of_range", reason=f"已报名 already booked: {present.seats_taken}")
        return {name: value for name, value in fields.items() if value != before[name]}

    def also(tx: ClientSession, changed: CourseSession) -> None:
        Booking.rows().update_many({"session": key}, {"$set": {"expires_at": changed.ends_at + KEEP}}, session=tx)
        if changed.state == "published":
            release(tx, [session_item(changed)])

    return records.change(CourseSession, key, by, "edit", decide, revision=revision, also=also)


def publish_session(key: str, by: str, revision: int | None = None) -> CourseSession:
    """Draft → published, open for booking. Of a published session a no-op. Raises `Conflict` when its series is not
    published, when it has begun, or from another state; `NotFound`, `Stale`."""

    def decide(present: CourseSession) -> dict[str, Any]:
        if present.state == "published":
            return {}
        if present.state != "draft":
            raise Conflict("wrong_state", state=present.state, action="发布 publish")
        parent = series(present.series)
        if parent.state != "published":
            raise Conflict("wrong_state", state=f"series {parent.state}", action="发布场次 publish a session")
        if present.starts_at <= store.now():
            raise invalid("starts_at", "out_of_range", reason="已过去 in the past")
        return {"state": "published"}

    def also(tx: ClientSession, changed: CourseSession) -> None:
        release(tx, [session_item(changed)])

    return records.change(CourseSession, key, by, "publish", decide, revision=revision, also=also)


def cancel_session(key: str, by: str, revision: int | None = None, note: str = "") -> CourseSession:
    """Published → cancelled for good: readers and those booked see it as cancelled, and no one can book. A draft is
    removed instead (`remove_session`). A second call raises `Conflict`; also `NotFound`, `Stale`."""

    def decide(present: CourseSession) -> dict[str, Any]:
        if present.state != "published":
            raise Conflict("wrong_state", state=present.state, action="取消 cancel")
        return {"state": "cancelled"}

    def also(tx: ClientSession, changed: CourseSession) -> None:
        release(tx, [session_item(changed)])

    return records.change(CourseSession, key, by, "cancel", decide, revision=revision, note=note, also=also)


def remove_session(key: str, by: str, revision: int | None = None) -> None:
    """Delete a draft. Raises `NotFound`, `Stale`, `Conflict` from another state."""

    def check(present: CourseSession) -> None:
        if present.state != "draft":
            raise Conflict("wrong_state", state=present.state, action="删除 delete")

    records.remove(CourseSession, key, by, check, revision=revision)


def seats_word(capacity: int, taken: int) -> str:
    """open, few (at most a fifth left) or full."""
    left = capacity - taken
    return "full" if left <= 0 else "few" if left * 5 <= capacity else "open"


def local(moment: datetime, zone: str) -> str:
    """A moment as ISO 8601 in the local time of `zone`, to the minute."""
    return moment.astimezone(ZoneInfo(zone)).isoformat(timespec="seconds")


def session_item(present: CourseSession) -> Item:
    """What readers get of a session: everything but the online link and the exact count."""
    content = {
        "id": present.id,
        "series": present.series,
        "organisation": present.organisation,
        "division": present.division,
        "starts_at": local(present.starts_at, present.zone),
        "ends_at": local(present.ends_at, present.zone),
        "booking_closes_at": local(present.booking_closes_at, present.zone),
        "zone": present.zone,
        "place": present.place,
        **values_of(present, ("title", "venue", "lecturer")),
        "capacity": present.capacity,
        "seats": seats_word(present.capacity, present.seats_taken),
        "state": present.state,
    }
    return Item("session", present.id, ANY, content)


# --- the starter library ---------------------------------------------------------------------------------------------


def load_library(folder: Path, settings: Settings) -> int:
    """Make and publish the starter library's series with its sessions; returns how many series. Sessions are counted in
    days from today. What is there already is left as it is, and a load that was cut is finished. Raises `Invalid`."""
    data = yaml.safe_load((folder / "courses.yaml").read_text(encoding="utf-8"))["series"]
    today = datetime.now(ZoneInfo(settings.zone)).date()
    for one in data:
        known = {name: one[name] for name in SERIES_FIELDS if name in one}
        texts = {tag: {"title": title, "summary": one["summary"].get(tag, "")} for tag, title in one["title"].items()}
        if Series.rows().find_one({"_id": one["id"]}, {"_id": 1}) is None:
            create_series({**known, "texts": texts}, records.SYSTEM, one["id"])
        if series(one["id"]).state == "draft":
            publish_series(one["id"], records.SYSTEM, second_person=False)
        for n, row in enumerate(one["sessions"], 1):
            key = f"{one['id']}-{n}"
            starts = datetime.combine(
                today + timedelta(days=row["in_days"]), time.fromisoformat(row["at"]), ZoneInfo(settings.zone)
            )
            made = {name: row[name] for name in SESSION_FIELDS if name in row} | {
                "starts_at": starts,
                "ends_at": starts + timedelta(minutes=row["minutes"]),
                "zone": settings.zone,
                "booking_closes_at": starts - timedelta(hours=row.get("booking_closes_hours_before", 0)),
            }
            if CourseSession.rows().find_one({"_id": key}, {"_id": 1}) is None:
                create_session(one["id"], made, records.SYSTEM, key)
            if session(key).state == "draft":
                publish_session(key, records.SYSTEM)
    return len(data)

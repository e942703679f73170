"""What people do to a notice; every notice is one document, and its state is the truth (`outbox` carries it on).

    drafted -> approved -> scheduled -> due -> claimed -> sent | refused | failed
       any of the first five -> cancelled; any of the first four -> expired; claimed -> due again (retry, lost lease)

A **general** notice is written by a person. A **season** notice is drafted by the calendar (`drafting`): a person reads it and
makes it his own by saving it, a second one approves it, and it goes out on its day by itself; one that nobody approved by then
expires and says so. An **emergency** notice (特殊时期、重大事件) passes quiet hours and the one push a day: adults hear first, it
names a help line and neither method nor place nor person, and says which offices approved it.

A second person always approves; no setting waives that. The clock is always the argument `now` (UTC), so that a test can run a
year in a second.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo.client_session import ClientSession

from content import divisions, languages, published, records, staff
from content.failures import Conflict, Failure, FieldError, Forbidden, Invalid, NotFound, Text
from content.published import Item, PublishedRow
from content.records import SYSTEM
from content.settings import Settings
from content.vocabulary import AUDIENCES, SEASONS, Stage
from notifications import emergencies, fcm, quiet, seasons, topics

STATES = ("drafted", "approved", "scheduled", "due", "claimed", "sent", "refused", "expired", "cancelled", "failed")
OPEN = ("drafted", "approved", "scheduled", "due")  # what its expiry ends; a claimed one is ended by its settle or lease
KINDS = ("general", "season", "emergency")
DRAFT_LIFE = timedelta(days=30)  # an unapproved draft expires after this unless it names its own expiry
TTL_LIMIT = 28 * 86400  # seconds, FCM's own
MAX_SEGMENTS = 200  # divisions × audiences × stages that a person writes to
MAX_DRAFTED = 2000  # that the calendar does: a province without some districts
EDITABLE = (
    "season", "divisions", "audiences", "stages", "texts", "lessons", "send_at", "expires_at", "urgent", "done_when", "after",
)  # fmt: skip
DEEDS = {"lesson": "the lesson was read", "check": "the check was taken", "read": "the notice itself was opened"}


class Result(me.EmbeddedDocument):  # type: ignore[misc]
    """What came of one topic, for good."""

    channel = me.StringField(required=True, default="fcm")
    topic = me.StringField(required=True)
    """"*" for a channel that is told the whole notice at once."""
    outcome = me.StringField(required=True, choices=("sent", "skipped", "refused", "inbox_only", "failed"))
    """inbox_only: its phones were told of something else that day."""
    detail = me.StringField()
    at = me.DateTimeField(required=True)


class Notice(records.Record):
    """One notice in all its languages. `revision` counts what people and the calendar did, not the carrying."""

    kind = me.StringField(required=True, choices=KINDS, default="general")
    season = me.StringField()
    year = me.IntField()
    """Of a season notice: the year its season begins in; with `season`, its campaign."""
    lead = me.IntField()
    """Of a season notice: days from the season (negative: before its first day; positive: after its last)."""
    dated_by = me.StringField()
    """Of a season notice: the division whose date it follows; "" the country's."""
    template = me.StringField()
    """Name and version of the text that it was drafted from: "gaokao:-30:parent@2"."""
    divisions = me.ListField(me.StringField())
    """Empty: the whole country."""
    audiences = me.ListField(me.StringField(), required=True)
    stages = me.ListField(me.StringField())
    """Stage texts; empty: all."""
    texts = me.DictField(required=True)
    """language -> {"title", "body"}."""
    lessons = me.ListField(me.StringField())
    done_when = me.DictField()
    """{"kind": one of DEEDS, "slug"}: what the reader does, whereupon the phone hides it, and after a lesson or check leaves the
    campaign; empty: nothing."""
    after = me.StringField()
    """Of an emergency notice to students: the one to adults that goes first."""
    send_at = me.DateTimeField()
    approve_by = me.DateTimeField()
    """Drafted or approved only, it expires at this moment; absent: with `expires_at`."""
    expires_at = me.DateTimeField(required=True)
    urgent = me.BooleanField(required=True, default=False)
    state = me.StringField(required=True, choices=STATES, default="drafted")
    authors = me.ListField(me.StringField())
    """Everyone who wrote it; none of them may approve. A season draft has none until a person saves it."""
    approved_by = me.StringField()
    offices = me.ListField(me.StringField())
    """Of an emergency notice: names of the organisations whose people wrote and approved it, as readers are told."""
    listed = me.BooleanField(required=True, default=False)
    """Whether it stands in the inbox."""
    push_languages = me.ListField(me.StringField())
    """Languages of the topics it is pushed to: all that phones can be subscribed in, fixed when it falls due."""
    lease = me.StringField()
    """Name of the present claim; who does not know it can neither note nor settle."""
    lease_until = me.DateTimeField()
    attempts = me.IntField(required=True, default=0)
    first_try = me.DateTimeField()
    next_try = me.DateTimeField()
    results = me.EmbeddedDocumentListField(Result)
    reason = me.StringField()
    """Why it is where it is, a code of `reasons`."""
    recall = me.BooleanField()
    """Cancelled after the webhook had it: the district's own system is still to be told."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "notices",
        "indexes": [
            {"fields": ["state", "expires_at"]}, {"fields": ["state", "next_try"]}, {"fields": ["listed", "expires_at"]},
            {"fields": ["-created_at"]}, {"fields": ["season", "year"]}, {"fields": ["recall"]},
        ],
    }  # fmt: skip
    NAME = "notice"

    @property
    def campaign(self) -> str:
        """ "gaokao.2027"; "" for a notice that belongs to none."""
        return f"{self.season}.{self.year}" if self.season and self.year else ""

    def topics(self, tags: list[str] | None = None) -> list[str]:
        """Every topic it goes to, in order; in these languages before it has fallen due."""
        return topics.for_notice(self.divisions, self.audiences, self.stages, tags or self.push_languages or sorted(self.texts))

    def items(self, *, gone: bool = False) -> list[Item]:
        """Its inbox entries, one a language; tombstones when `gone`."""
        common = {
            "id": self.id,
            "kind": self.kind,
            "season": self.season,
            "campaign": self.campaign or None,
            "divisions": list(self.divisions),
            "audiences": list(self.audiences),
            "stages": list(self.stages),
            "lessons": list(self.lessons),
            "done_when": dict(self.done_when) or None,
            "done_topic": topics.done(self.campaign) if self.campaign and self.done_when.get("slug") else None,
            "urgent": self.urgent,
            "offices": list(self.offices),
            "send_at": iso(self.send_at),
            "expires_at": iso(self.expires_at),
        }
        return [
            Item("notice", self.id, language, None if gone else {**common, "title": text["title"], "body": text["body"]})
            for language, text in sorted(self.texts.items())
        ]


def iso(moment: datetime | None) -> str | None:
    """UTC in ISO 8601 with Z, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def push_languages(settings: Settings) -> list[str]:
    """The languages in which phones can be subscribed: those of published lessons, and the service's own (`/v1/topics` gives
    a reader of another one the nearest). A notice without a text in one of them is pushed there too: a push carries no text."""
    found = {languages.parts(row["language"])[0] for row in PublishedRow.rows().find({"kind": "lesson"}, {"language": 1})}
    return sorted({settings.language, *found})


def message(notice: Notice, push: topics.Push, now: datetime) -> fcm.Message:
    """One push of a notice: quiet words in the phones' language, and which notice to read."""
    title, body = quiet.words(push.language, emergency=notice.kind == "emergency")
    ttl = min(TTL_LIMIT, int((notice.expires_at - now).total_seconds()))
    kind, value = push.target()
    return fcm.Message(notice.id, value, title, body, ttl, kind, {"notice": notice.id})  # type: ignore[arg-type]


# --- what people do ---------------------------------------------------------------------------------------------------


def draft(
    fields: Mapping[str, Any],
    by: str,
    settings: Settings,
    now: datetime,
    kind: str = "general",
    born: Mapping[str, Any] | None = None,
) -> Notice:
    """Write a new notice from EDITABLE fields (`texts`: language -> {"title", "body"}; moments in UTC), of one of KINDS. Without
    `expires_at` it lives 30 days. `born` is what the calendar gives a season notice. Raises `Invalid` with every fault,
    `Failure("payload_too_large")`. A second call makes a second draft, or raises `Conflict("exists")` when `born` has its id."""
    values = {"expires_at": now + DRAFT_LIFE, **{k: v for k, v in fields.items() if v is not None}}
    notice = Notice(kind=kind, authors=[] if by == SYSTEM else [by], **_checked(values, settings, kind), **(born or {}))
    _fits(notice, now)
    return records.create(notice, by)


def edit(key: str, fields: Mapping[str, Any], by: str, settings: Settings, now: datetime, revision: int | None = None) -> Notice:
    """Change some EDITABLE fields of a drafted notice; None clears one, and none at all says "read, as it is". `by` becomes an
    author and may not approve it. The day of a season notice follows its season: only its time may be changed. Raises as `draft`,
    and `NotFound`, `Stale`, `Conflict` in any other state."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "edit", "drafted")
        values = {name: getattr(notice, name) for name in EDITABLE}
        checked = _checked({**values, **fields}, settings, notice.kind)
        if notice.kind == "season":
            _keeps_its_day(notice, checked, settings)
        for name, value in checked.items():
            setattr(notice, name, value)
        _fits(notice, now)
        return {**{k: checked.get(k) for k in fields}, "authors": sorted({*notice.authors, by})}

    return records.change(Notice, key, by, "edit", decide, revision=revision)


def approve(key: str, by: str, now: datetime, revision: int | None = None) -> Notice:
    """Drafted -> approved, by a person independent of everyone who wrote it; no setting waives that. Raises
    `Forbidden("second_person")`, `Conflict("nobody_saved")` for a draft of the calendar that no person has saved, `Conflict`,
    `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "approve", "drafted")
        if min(notice.expires_at, notice.approve_by or notice.expires_at) <= now:
            raise Conflict("wrong_state", state="expired", action="approve")
        if not notice.authors:
            raise Conflict("nobody_saved")
        if not all(staff.independent(author, by) for author in notice.authors):
            raise Forbidden("second_person")
        offices = emergencies.offices([*notice.authors, by]) if notice.kind == "emergency" else []
        return {"state": "approved", "approved_by": by, **({"offices": offices} if offices else {})}

    return records.change(Notice, key, by, "approve", decide, revision=revision)


def schedule(
    key: str, by: str, settings: Settings, now: datetime, send_at: datetime | None = None, revision: int | None = None
) -> Notice:
    """Approved -> scheduled for `send_at`, else for the moment the draft names, else at once. Raises `Invalid` when that is
    not before its expiry, `Conflict("unconfirmed_date")` when it belongs to a season whose local date nobody has confirmed,
    `Conflict` in any other state, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "schedule", "approved")
        moment = send_at or notice.send_at or now
        if moment >= notice.expires_at:
            raise Invalid([FieldError("send_at", "out_of_range", {"reason": f"< expires_at {iso(notice.expires_at)}"})])
        if notice.kind == "season":
            _keeps_its_day(notice, {"send_at": moment}, settings)
        notice.send_at = moment
        if notice.season and not dated(notice, seasons.stored(), settings):
            raise Conflict("unconfirmed_date", what=notice.season)
        return {"state": "scheduled", "send_at": moment}

    return records.change(Notice, key, by, "schedule", decide, revision=revision)


def cancel(key: str, by: str, revision: int | None = None, reason: str = "") -> Notice:
    """Stop it and take it out of the inbox, in any state before its end. A worker that is sending it stops before its next
    message. Raises `Conflict` once it has ended, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "cancel", *OPEN, "claimed")
        hooked = any(row.channel == "webhook" and row.outcome == "sent" for row in notice.results)
        return {
            "state": "cancelled", "listed": False, "lease": None, "lease_until": None, "reason": reason or notice.reason,
            "recall": True if hooked else None,
        }  # fmt: skip

    return records.change(Notice, key, by, "cancel", decide, revision=revision, also=unlist)


def get(key: str) -> Notice:
    """One notice. Raises `NotFound`."""
    raw = Notice.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return Notice.of(raw)


def latest(state: str = "", after: tuple[datetime, str] | None = None) -> Iterator[Notice]:
    """Notices newest first, those after (moment, id) in this order; of one state when given."""
    match: dict[str, Any] = {"state": state} if state else {}
    if after:
        moment, key = after
        match["$or"] = [{"created_at": {"$lt": moment}}, {"created_at": moment, "_id": {"$lt": key}}]
    return map(Notice.of, Notice.rows().find(match).sort([("created_at", -1), ("_id", -1)]))


def dated(notice: Notice, overrides: list[seasons.Override], settings: Settings) -> bool:
    """Whether its season has a confirmed local date wherever it goes. A season notice knows the year of its season; one that a
    person wrote is of the season nearest to its day."""
    where = notice.divisions or [settings.division]
    if notice.year:
        return not any(seasons.season(notice.season, notice.year, overrides, code).provisional for code in where)
    on = notice.send_at.astimezone(ZoneInfo(settings.zone)).date()
    return seasons.confirmed(notice.season, on, where, overrides)


def relist(session: ClientSession, notice: Notice) -> None:
    """Put it into the inbox, inside the caller's transaction."""
    published.release(session, notice.items())


def unlist(session: ClientSession, notice: Notice) -> None:
    """Withdraw its inbox entries; without any a no-op."""
    rows = PublishedRow.rows().find({"_id": {"$in": [f"notice:{notice.id}:{tag}" for tag in notice.texts]}}, session=session)
    if any(row["content"] for row in rows):
        published.release(session, notice.items(gone=True))


# --- what may be written ----------------------------------------------------------------------------------------------


def _only(notice: Notice, action: str, *states: str) -> None:
    if notice.state not in states:
        raise Conflict("wrong_state", state=notice.state, action=action)


def _keeps_its_day(notice: Notice, values: Mapping[str, Any], settings: Settings) -> None:
    """Raises `follows_season` when the local day would be another than the season's."""
    zone, moment = ZoneInfo(settings.zone), values["send_at"]
    day = notice.send_at.astimezone(zone).date()
    if moment is None or moment.astimezone(zone).date() != day:
        raise Invalid([FieldError("send_at", "follows_season", {"day": day.isoformat()})])


def _checked(values: Mapping[str, Any], settings: Settings, kind: str) -> dict[str, Any]:
    """The EDITABLE values, codes in force and tags in their one spelling. Raises `Invalid` with every fault at once."""
    result: dict[str, Any] = {k: values.get(k) for k in EDITABLE}
    errors: list[FieldError] = []

    def each(field: str, check: Any) -> None:
        try:
            result[field] = list(dict.fromkeys(check(one) for one in result[field] or ()))
        except Invalid as failure:
            errors.extend(failure.errors)

    each("divisions", lambda code: divisions.check(code, "divisions"))
    each("stages", lambda text: str(Stage.parse(text)))
    each("audiences", lambda code: code)
    each("lessons", lambda slug: slug)
    if not result["audiences"]:
        errors.append(FieldError("audiences", "required"))
    elif not set(result["audiences"]) <= set(AUDIENCES):
        errors.append(FieldError("audiences", "not_one_of", {"choices": ", ".join(AUDIENCES)}))
    if result["season"] and result["season"] not in SEASONS:
        errors.append(FieldError("season", "not_one_of", {"choices": ", ".join(SEASONS)}))
    result["urgent"] = bool(result["urgent"]) or kind == "emergency"
    result["done_when"] = dict(result["done_when"] or {})
    texts: dict[str, dict[str, str]] = {}
    for language, text in (result["texts"] or {}).items():
        try:
            tag = languages.tag(language, "texts")
        except Invalid as failure:
            errors.extend(failure.errors)
            continue
        texts[tag] = {name: languages.clean(text.get(name) or "") for name in ("title", "body")}
        errors += [FieldError(f"texts.{tag}.{name}", "required") for name, value in texts[tag].items() if not value]
    result["texts"] = texts
    if settings.language not in texts:
        errors.append(FieldError(f"texts.{settings.language}", "required"))
    if not result["expires_at"]:
        errors.append(FieldError("expires_at", "required"))
    elif result["send_at"] and result["send_at"] >= result["expires_at"]:
        errors.append(FieldError("send_at", "out_of_range", {"reason": "< expires_at"}))
    many = [len(result[name] or [""]) for name in ("divisions", "audiences", "stages")]
    most = MAX_DRAFTED if kind == "season" else MAX_SEGMENTS
    if not errors and many[0] * many[1] * many[2] > most:
        reason = Text(f"区划×对象×学段最多 {most} 个", f"≤ {most} divisions × audiences × stages")
        errors.append(FieldError("divisions", "out_of_range", {"reason": reason}))
    if kind == "emergency":
        errors += _of_emergency(result)
    elif result["after"]:
        errors.append(FieldError("after", "unknown_field"))
    if errors:
        raise Invalid(errors)
    return result


def _of_emergency(values: Mapping[str, Any]) -> list[FieldError]:
    """Adults hear first: students get a notice of their own, which waits for the adults'."""
    errors = emergencies.faults(values["texts"])
    students, adults = ("student" in values["audiences"]), set(values["audiences"]) - {"student"}
    if students and (adults or not values["after"]):
        errors.append(FieldError("after" if not adults else "audiences", "adults_first"))
    elif values["after"] and not students:
        errors.append(FieldError("after", "adults_first"))
    elif values["after"]:
        first = Notice.rows().find_one({"_id": values["after"], "kind": "emergency"})
        covered = first and all(
            any(divisions.within(c, d) for d in first.get("divisions") or [""]) for c in values["divisions"] or [""]
        )
        if not covered or "student" in first["audiences"]:
            errors.append(FieldError("after", "unknown_reference", {"value": values["after"]}))
    return errors


def _fits(notice: Notice, now: datetime) -> None:
    """Raises `payload_too_large` when a language's text would not fit FCM's limit for topics. Our own push carries no text; the
    district's channels behind the webhook do, and theirs are not larger."""
    for text in notice.texts.values():
        carried = fcm.Message(notice.id, "all", text["title"], text["body"], 0, data={"notice": notice.id})
        if (size := fcm.size(carried)) > fcm.limit(carried):
            raise Failure("payload_too_large", size=size, limit=fcm.limit(carried))

"""What people do to a notice; every notice is one document, and its state is the truth (`outbox` carries it on).

    drafted -> approved -> scheduled -> due -> claimed -> sent | refused | failed
       any of the first five, or whatever stands in the inbox -> cancelled; any of the first four -> expired;
       claimed -> due again (retry, lost lease)

A **general** notice is written by a person. A **season** notice is drafted by the calendar (`drafting`): a person reads it and
makes it his own by saving it, a second one approves it, and it goes out on its day by itself; one that nobody approved by then
expires and says so. An **emergency** notice (特殊时期、重大事件) passes quiet hours and the one push a day: adults hear first, it
names a help line and neither method nor place nor person, and says which offices approved it.

A second person always approves; no setting waives that. The clock is always the argument `now` (UTC), so that a test can run a
year in a second.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo.client_session import ClientSession

from content import divisions, languages, published, records, staff, store
from content.failures import Conflict, Failure, FieldError, Forbidden, Invalid, NotFound, Text
from content.published import Item, PublishedRow
from content.records import SYSTEM
from content.settings import Settings
from content.vocabulary import AUDIENCES, SEASONS, Stage
from notifications import emergencies, fcm, hours, quiet, seasons, templates, topics

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
CALENDAR = ("season", "divisions", "audiences", "stages", "urgent", "expires_at")  # of a season notice: not to be changed
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
    first = me.StringField()
    """Of a season notice: the season's first local day as its words say it, YYYY-MM-DD."""
    last = me.StringField()
    """Its last day, when the words name it."""
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
    """Not approved by this moment, it expires; absent: with `expires_at`."""
    expires_at = me.DateTimeField(required=True)
    urgent = me.BooleanField(required=True, default=False)
    state = me.StringField(required=True, choices=STATES, default="drafted")
    authors = me.ListField(me.StringField())
    """Everyone who wrote it; none of them may approve. A season draft has none until a person saves it."""
    worded_by = me.StringField()
    """Who wrote the division's own text that it was drafted from; may not approve it either."""
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
    push_day = me.StringField()
    """The local day, YYYY-MM-DD, on which it was first claimed."""
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
            {"fields": ["-created_at"]}, {"fields": ["season", "year"]}, {"fields": ["kind", "year"]}, {"fields": ["recall"]},
        ],
    }  # fmt: skip
    NAME = "notice"

    @property
    def left_by_done(self) -> str:
        """The campaign, when who is done with it is left out. Not on the day itself and after: what comforts is for everybody."""
        return self.campaign if (self.lead or 0) < 0 else ""

    @property
    def collapse_key(self) -> str:
        """By which pushes replace each other on a phone: one line a day, whichever districts and schools a family has to do with,
        since all say the same and each stands in the inbox. What is urgent has a line of its own. The same at every attempt."""
        return str(self.id if self.urgent else self.push_day or self.id)

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
    return fcm.Message(notice.collapse_key, value, title, body, ttl, kind, {"notice": notice.id})  # type: ignore[arg-type]


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
    checked = _checked(values, settings, kind, now, () if by == SYSTEM else values)
    notice = Notice(kind=kind, authors=[] if by == SYSTEM else [by], **checked, **(born or {}))
    _fits(notice)
    return records.create(notice, by)


def edit(key: str, fields: Mapping[str, Any], by: str, settings: Settings, now: datetime, revision: int | None = None) -> Notice:
    """Change some EDITABLE fields of a drafted notice; None clears one, and none at all says "read, as it is". `by` becomes an
    author and may not approve it. Of a season notice only the words and the hour may be changed: its day follows the season, and
    whom it is for is the calendar's. Raises as `draft`, and `NotFound`, `Stale`, `Conflict` in any other state."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "edit", "drafted")
        values = {name: getattr(notice, name) for name in EDITABLE}
        checked = _checked({**values, **fields}, settings, notice.kind, now, fields)
        if notice.kind == "season":
            _keeps(notice, checked, fields)
            _keeps_its_day(notice, checked, settings)
        for name, value in checked.items():
            setattr(notice, name, value)
        _fits(notice)
        return {**{k: checked.get(k) for k in fields}, "authors": sorted({*notice.authors, by})}

    return records.change(Notice, key, by, "edit", decide, revision=revision)


def approve(key: str, by: str, now: datetime, revision: int | None = None) -> Notice:
    """Drafted -> approved, by a person independent of everyone who wrote it; no setting waives that. A season notice then goes on
    its day and an emergency at once, or at the moment it names, by themselves; others are scheduled by a person. Raises
    `Forbidden("second_person")`, `Conflict("nobody_saved")` for a draft of the calendar that no person has saved,
    `Conflict("unconfirmed_date")`, `Conflict`, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "approve", "drafted")
        if min(notice.expires_at, notice.approve_by or notice.expires_at) <= now:
            raise Conflict("wrong_state", state="expired", action="approve")
        if not notice.authors:
            raise Conflict("nobody_saved")
        if not all(staff.independent(author, by) for author in (*notice.authors, *filter(None, [notice.worded_by]))):
            raise Forbidden("second_person")
        if (
            notice.kind == "season"
            and seasons.season(notice.season, notice.year, seasons.stored(), notice.dated_by or "").provisional
        ):
            raise Conflict("unconfirmed_date", what=notice.season)
        if notice.after and not covers_first(Notice.rows().find_one({"_id": notice.after}), notice.divisions, notice.stages):
            raise Invalid([FieldError("after", "not_covered")])  # the adults' may have been changed since
        offices = emergencies.offices([*notice.authors, by]) if notice.kind == "emergency" else []
        more = {"offices": offices, "send_at": notice.send_at or now} if notice.kind == "emergency" else {}
        return {"state": "approved", "approved_by": by, **more}

    return records.change(Notice, key, by, "approve", decide, revision=revision)


def schedule(
    key: str, by: str, settings: Settings, now: datetime, send_at: datetime | None = None, revision: int | None = None
) -> Notice:
    """Approved -> scheduled for `send_at`, else for the moment the draft names, else at once; a moment that has passed is now.
    Raises `Invalid` when that is not before its expiry, or, of an urgent one, not the moment that two persons agreed to,
    `Conflict("unconfirmed_date")` when it belongs to a season whose local date nobody has confirmed, `Conflict` in any other
    state, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "schedule", "approved")
        # it passes the night: two persons agree to its hour
        if notice.urgent and send_at and send_at != notice.send_at and (notice.send_at or send_at > now):
            raise Invalid([FieldError("send_at", "approved_hour")])
        moment = max(send_at or notice.send_at or now, now)
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
    """Stop it and take it out of the inbox, in any state as long as it stands there. A worker that is sending it stops before its
    next message; what was sent, families find no more, and the district's own system is told. Raises `Conflict` once it has left
    the inbox by itself, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        if not notice.listed:
            _only(notice, "cancel", *OPEN, "claimed")
        begun = notice.attempts > 0 or bool(notice.results)  # the webhook may have it, whatever came of the post
        return {
            "state": "cancelled", "listed": False, "lease": None, "lease_until": None, "reason": reason or None,
            "recall": True if begun else None, "next_try": store.now() if begun else None,
        }  # fmt: skip

    return records.change(Notice, key, by, "cancel", decide, revision=revision, also=unlist)


def get(key: str) -> Notice:
    """One notice. Raises `NotFound`."""
    raw = Notice.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return Notice.of(raw)


def latest(
    mine: Callable[[Sequence[str]], bool] = lambda codes: True, after: tuple[datetime, str] | None = None, **equal: Any
) -> Iterator[Notice]:
    """Notices newest first, those after (moment, id) in this order; those alone whose divisions are `mine`, and whose fields
    `equal` these values (state="drafted")."""
    match = dict(equal)
    if after:
        moment, key = after
        match["$or"] = [{"created_at": {"$lt": moment}}, {"created_at": moment, "_id": {"$lt": key}}]
    rows = Notice.rows().find(match).sort([("created_at", -1), ("_id", -1)])
    return (Notice.of(raw) for raw in rows if mine(raw.get("divisions") or []))


def goes_to(codes: Sequence[str], division: str) -> bool:
    """Whether a notice to these divisions (none: the country) reaches families of this one ("" the country), or some of them."""
    return any(divisions.overlap(division, code) for code in codes or [""])


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


def _keeps(notice: Notice, checked: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Raises `calendars_own` for what the calendar gave a notice: another audience or area would be told twice, or never."""
    changed = [name for name in CALENDAR if name in fields and checked[name] != records.values_of(notice, (name,))[name]]
    if changed:
        raise Invalid([FieldError(name, "calendars_own") for name in changed])


def _keeps_its_day(notice: Notice, values: Mapping[str, Any], settings: Settings) -> None:
    """Raises `follows_season` when the local day on which it would leave, not held over night, is another than the season's."""
    zone, moment = ZoneInfo(settings.zone), values["send_at"]
    day = notice.send_at.astimezone(zone).date()
    if moment == notice.send_at:
        return
    leaves = moment and hours.free_from(moment, notice.divisions, settings, seasons.stored())
    if leaves is None or {at.astimezone(zone).date() for at in (moment, leaves)} != {day}:
        raise Invalid([FieldError("send_at", "follows_season", {"day": day.isoformat()})])


def _checked(values: Mapping[str, Any], settings: Settings, kind: str, now: datetime, written: Container[str]) -> dict[str, Any]:
    """The EDITABLE values, codes in force and tags in their one spelling. What a person has `written` now must name lessons and
    checks that there are; what the calendar took from a template is let through, or the day would be lost for it. Raises
    `Invalid` with every fault at once."""
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
    done = result["done_when"] = dict(result["done_when"] or {})
    if done and done.get("kind") not in DEEDS:
        errors.append(FieldError("done_when.kind", "not_one_of", {"choices": ", ".join(DEEDS)}))
    elif done and (done["kind"] == "read") == bool(done.get("slug")):
        errors.append(FieldError("done_when.slug", "unknown_field" if done["kind"] == "read" else "required"))
    elif "done_when" in written:
        errors += templates.unknown((), done)
    if "lessons" in written:
        errors += templates.unknown(result["lessons"], {})
    texts: dict[str, dict[str, str]] = {}
    for language, text in (result["texts"] or {}).items():
        try:
            tag = languages.tag(language, "texts")
        except Invalid as failure:
            errors.extend(failure.errors)
            continue
        lines = map(languages.one_line, languages.clean(text.get("body") or "").split("\n"))  # without what turns or hides words
        texts[tag] = {"title": languages.one_line(text.get("title") or ""), "body": "\n".join(lines).strip("\n")}
        blank = [name for name, said in texts[tag].items() if not emergencies.seen(said)]
        errors += [FieldError(f"texts.{tag}.{name}", "required") for name in blank]
    result["texts"] = texts
    if settings.language not in texts:
        errors.append(FieldError(f"texts.{settings.language}", "required"))
    if not result["expires_at"]:
        errors.append(FieldError("expires_at", "required"))
    elif "expires_at" in written and result["expires_at"] <= now:
        errors.append(FieldError("expires_at", "out_of_range", {"reason": f"> {iso(now)}"}))
    elif result["send_at"] and result["send_at"] >= result["expires_at"]:
        errors.append(FieldError("send_at", "out_of_range", {"reason": "< expires_at"}))
    many = [len(result[name] or [""]) for name in ("divisions", "audiences", "stages")]
    most = MAX_DRAFTED if kind == "season" else MAX_SEGMENTS
    if not errors and many[0] * many[1] * many[2] > most:
        reason = Text(f"区划×对象×学段最多 {most} 个", f"≤ {most} divisions × audiences × stages")
        errors.append(FieldError("divisions", "out_of_range", {"reason": reason}))
    if result["urgent"]:
        errors += emergencies.faults(texts, help_line=kind == "emergency")
    if kind == "emergency":
        errors += _of_emergency(result)
    elif result["after"]:
        errors.append(FieldError("after", "unknown_field"))
    elif result["urgent"] and "student" in result["audiences"]:
        errors.append(FieldError("audiences", "urgent_students"))
    if errors:
        raise Invalid(errors)
    return result


def _of_emergency(values: Mapping[str, Any]) -> list[FieldError]:
    """Adults hear first: students get a notice of their own, which waits for the adults'. It belongs to no season, or it would
    wait for a date to be confirmed."""
    errors = [FieldError("season", "emergency_season")] if values["season"] else []
    students, adults = ("student" in values["audiences"]), set(values["audiences"]) - {"student"}
    if students and (adults or not values["after"]):
        errors.append(FieldError("after" if not adults else "audiences", "adults_first"))
    elif values["after"] and not students:
        errors.append(FieldError("after", "adults_first"))
    elif values["after"]:
        first = Notice.rows().find_one({"_id": values["after"]})
        if first is None:
            errors.append(FieldError("after", "unknown_reference", {"value": values["after"]}))
        elif not covers_first(first, values["divisions"], values["stages"]):
            errors.append(FieldError("after", "not_covered"))
    return errors


def covers_first(first: Mapping[str, Any] | None, codes: Sequence[str], stages: Sequence[str]) -> bool:
    """Whether `first`, a stored notice, is the adults' word for one to the students of these divisions and stages (none: all of
    them): an emergency to their parents and to no student, which was neither stopped nor ran out. One whose pushes all failed
    stands in the inbox."""
    if not first or first["kind"] != "emergency" or first["state"] in {"cancelled", "expired"}:
        return False
    told, wide = set(first.get("stages") or [""]), [topics.Segment("", "parent", stage, "") for stage in stages or [""]]
    return (
        "parent" in first["audiences"]
        and "student" not in first["audiences"]
        and all(any(divisions.within(code, one) for one in first.get("divisions") or [""]) for code in codes or [""])
        and all(told & {one.stage, *(topics.segment(name).stage for name in topics.wider(topics.name(one)))} for one in wide)
    )


def _fits(notice: Notice) -> None:
    """Raises `payload_too_large` when a language's text would not fit FCM's limit for topics. Our own push carries no text; the
    district's channels behind the webhook do, and theirs are not larger."""
    for text in notice.texts.values():
        carried = fcm.Message(notice.id, "all", text["title"], text["body"], 0, data={"notice": notice.id})
        if (size := fcm.size(carried)) > fcm.limit(carried):
            raise Failure("payload_too_large", size=size, limit=fcm.limit(carried))

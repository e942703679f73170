"""The outbox: every notice is one document, and its state is the truth; Celery only carries and times.

    drafted -> approved -> scheduled -> due -> claimed -> sent | refused | failed
       any of the first five -> cancelled; any of the first four -> expired; claimed -> due again (retry, lost lease)

A second person always approves. Inbox first: in the transaction that makes a notice due it enters the published set, so
readers have it whether or not a push arrives. `claim` acts only on a due notice and gives a lease; whoever holds the lease
sends to one topic at a time, writes each outcome down (`note`) and ends with `settle`. After a crash the lease runs out,
`sweep` makes the notice due again, and only topics without an outcome are sent again, under the same collapse key.

Quiet hours (21:30-07:00 in the district's zone) hold a push and never drop it; `urgent` passes. The clock is always the
argument `now` (UTC), so that a test can run a year in a second.
"""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from content import divisions, languages, published, records, staff, store
from content.failures import Conflict, Failure, FieldError, Forbidden, Invalid, NotFound
from content.published import Item, Snapshot
from content.records import SYSTEM
from content.settings import Settings
from content.vocabulary import AUDIENCES, SEASONS, Stage
from content.waking import quiet_until
from notifications import fcm, outcomes, seasons, topics

log = logging.getLogger("xinqiao.notices")

STATES = ("drafted", "approved", "scheduled", "due", "claimed", "sent", "refused", "expired", "cancelled", "failed")
OPEN = ("drafted", "approved", "scheduled", "due")  # what its expiry ends; a claimed one is ended by its settle or lease
LEASE = timedelta(seconds=60)  # a send ends within 10 s, and each one renews it
GIVE_UP = timedelta(minutes=60)  # after the first try: then it is news no more
HAND_OUT = timedelta(seconds=10)  # a task lost by the broker is handed out again after this
BACKOFF_LIMIT = 600.0  # seconds
DRAFT_LIFE = timedelta(days=30)  # an unapproved draft expires after this unless it names its own expiry
TTL_LIMIT = 28 * 86400  # seconds, FCM's own
MAX_TOPICS = 200  # one message each
EDITABLE = ("season", "divisions", "audiences", "stages", "texts", "lessons", "send_at", "expires_at", "urgent")


class Result(me.EmbeddedDocument):  # type: ignore[misc]
    """What came of one topic, for good."""

    topic = me.StringField(required=True)
    outcome = me.StringField(required=True, choices=("sent", "skipped", "refused"))
    detail = me.StringField()
    at = me.DateTimeField(required=True)


class Notice(records.Record):
    """One notice in all its languages. `revision` counts what people and the calendar did, not the carrying."""

    season = me.StringField()
    divisions = me.ListField(me.StringField())
    """Empty: the whole country."""
    audiences = me.ListField(me.StringField(), required=True)
    stages = me.ListField(me.StringField())
    """Stage texts; empty: all."""
    texts = me.DictField(required=True)
    """language -> {"title", "body"}."""
    lessons = me.ListField(me.StringField())
    send_at = me.DateTimeField()
    expires_at = me.DateTimeField(required=True)
    urgent = me.BooleanField(required=True, default=False)
    state = me.StringField(required=True, choices=STATES, default="drafted")
    authors = me.ListField(me.StringField())
    """Everyone who wrote it; none of them may approve."""
    approved_by = me.StringField()
    listed = me.BooleanField(required=True, default=False)
    """Whether it stands in the inbox."""
    lease = me.StringField()
    """Name of the present claim; who does not know it can neither note nor settle."""
    lease_until = me.DateTimeField()
    attempts = me.IntField(required=True, default=0)
    first_try = me.DateTimeField()
    next_try = me.DateTimeField()
    hand_at = me.DateTimeField()
    """When the sweep gives it to Celery next."""
    results = me.EmbeddedDocumentListField(Result)
    reason = me.StringField()
    """Why it is where it is, in words for staff."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "notices",
        "indexes": [
            {"fields": ["state", "expires_at"]}, {"fields": ["state", "hand_at"]}, {"fields": ["listed", "expires_at"]},
            {"fields": ["-created_at"]},
        ],
    }  # fmt: skip
    NAME = "notice"

    def topics(self) -> list[str]:
        """Every topic it goes to, in order."""
        return topics.for_notice(list(self.divisions), list(self.audiences), list(self.stages), sorted(self.texts))

    def open_topics(self) -> list[str]:
        """The topics that have no outcome yet."""
        done = {result.topic for result in self.results}
        return [topic for topic in self.topics() if topic not in done]

    def items(self, *, gone: bool = False) -> list[Item]:
        """Its inbox entries, one a language; tombstones when `gone`."""
        common = {
            "id": self.id,
            "season": self.season,
            "divisions": list(self.divisions),
            "audiences": list(self.audiences),
            "stages": list(self.stages),
            "lessons": list(self.lessons),
            "urgent": self.urgent,
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


def message(notice: Notice, topic: str, now: datetime) -> fcm.Message:
    """The push to one of its topics, in that topic's language."""
    text = notice.texts[topics.segment(topic).language]
    ttl = min(TTL_LIMIT, int((notice.expires_at - now).total_seconds()))
    data = {"notice": notice.id, **({"season": notice.season} if notice.season else {})}
    return fcm.Message(notice.id, topic, text["title"], text["body"], ttl, data=data)


# --- what people do ---------------------------------------------------------------------------------------------------


def draft(fields: Mapping[str, Any], by: str, settings: Settings, now: datetime) -> Notice:
    """Write a new notice from EDITABLE fields (`texts`: language -> {"title", "body"}; moments in UTC). Without `expires_at` it
    lives 30 days. Raises `Invalid` with every fault, `Failure("payload_too_large")`. A second call makes a second draft."""
    values = {"expires_at": now + DRAFT_LIFE, **{k: v for k, v in fields.items() if v is not None}}
    notice = Notice(authors=[by], **_checked(values, settings))
    _fits(notice, now)
    return records.create(notice, by)


def edit(key: str, fields: Mapping[str, Any], by: str, settings: Settings, now: datetime, revision: int | None = None) -> Notice:
    """Change some EDITABLE fields of a drafted notice; None clears one. `by` becomes an author and may not approve it.
    Raises as `draft`, and `NotFound`, `Stale`, `Conflict` in any other state."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "edit", "drafted")
        values = {name: getattr(notice, name) for name in EDITABLE}
        checked = _checked({**values, **fields}, settings)
        for name, value in checked.items():
            setattr(notice, name, value)
        _fits(notice, now)
        return {**{k: checked.get(k) for k in fields}, "authors": sorted({*notice.authors, by})}

    return records.change(Notice, key, by, "edit", decide, revision=revision)


def approve(key: str, by: str, now: datetime, revision: int | None = None) -> Notice:
    """Drafted -> approved, by a person independent of everyone who wrote it; no setting waives that. Raises
    `Forbidden("second_person")`, `Conflict`, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "approve", "drafted")
        _unexpired(notice, now)
        if not all(staff.independent(author, by) for author in notice.authors):
            raise Forbidden("second_person")
        return {"state": "approved", "approved_by": by}

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
        notice.send_at = moment
        if notice.season and not _dated(notice, seasons.stored(), settings):
            raise Conflict("unconfirmed_date", what=notice.season)
        return {"state": "scheduled", "send_at": moment}

    return records.change(Notice, key, by, "schedule", decide, revision=revision)


def cancel(key: str, by: str, revision: int | None = None) -> Notice:
    """Stop it and take it out of the inbox, in any state before its end. A worker that is sending it stops before its next
    topic. Raises `Conflict` once it has ended, `Stale`, `NotFound`."""

    def decide(notice: Notice) -> dict[str, Any]:
        _only(notice, "cancel", *OPEN, "claimed")
        return {"state": "cancelled", "listed": False, "lease": None, "lease_until": None}

    return records.change(Notice, key, by, "cancel", decide, revision=revision, also=_unlist)


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


def _only(notice: Notice, action: str, *states: str) -> None:
    if notice.state not in states:
        raise Conflict("wrong_state", state=notice.state, action=action)


def _unexpired(notice: Notice, now: datetime) -> None:
    if notice.expires_at <= now:
        raise Conflict("wrong_state", state="expired", action="approve")


def _checked(values: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
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
    result["urgent"] = bool(result["urgent"])
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
    if not errors and many[0] * many[1] * many[2] * len(texts) > MAX_TOPICS:
        errors.append(
            FieldError("divisions", "out_of_range", {"reason": f"≤ {MAX_TOPICS} divisions × audiences × stages × languages"})
        )
    if errors:
        raise Invalid(errors)
    return result


def _fits(notice: Notice, now: datetime) -> None:
    """Raises `payload_too_large` when a language's push is over FCM's limit for topics."""
    for topic in notice.topics():
        one = message(notice, topic, now)
        if (size := fcm.size(one)) > fcm.limit(one):
            raise Failure("payload_too_large", size=size, limit=fcm.limit(one))


def _list(session: ClientSession, notice: Notice) -> None:
    published.release(session, notice.items())


def _unlist(session: ClientSession, notice: Notice) -> None:
    """Withdraw its inbox entries; without any a no-op."""
    rows = published.PublishedRow.rows().find(
        {"_id": {"$in": [f"notice:{notice.id}:{tag}" for tag in notice.texts]}}, session=session
    )
    if any(row["content"] for row in rows):
        published.release(session, notice.items(gone=True))


# --- what the worker does ---------------------------------------------------------------------------------------------


def claim(key: str, now: datetime, settings: Settings) -> Notice | None:
    """Take a due notice for `LEASE`; None when it is not due now, is held by quiet hours, or someone else has it. Of two
    callers one gets it: the update itself asks for the state."""
    match: dict[str, Any] = {"_id": key, "state": "due", "next_try": {"$lte": now}, "expires_at": {"$gt": now}}
    if quiet_until(now, settings.zone):
        match["urgent"] = True
    update = {
        "$set": {"state": "claimed", "lease": store.new_id(), "lease_until": now + LEASE},
        "$inc": {"attempts": 1},
        "$min": {"first_try": now},
    }
    raw = Notice.rows().find_one_and_update(match, update, return_document=ReturnDocument.AFTER)
    return Notice.of(raw) if raw else None


def may_go_on(notice: Notice, now: datetime, settings: Settings) -> bool:
    """Whether a claimed notice's next topic may be sent at this moment: not expired, not in quiet hours."""
    return bool(notice.expires_at > now and (notice.urgent or quiet_until(now, settings.zone) is None))


def note(notice: Notice, topic: str, outcome: outcomes.Outcome, now: datetime) -> bool:
    """Write down what came of one topic and renew the lease. False when the claim is lost (cancelled, or the lease ran out
    and another has it): then stop at once. A Retry or Unknown leaves the topic open."""
    update: dict[str, Any] = {"$set": {"lease_until": now + LEASE}}
    result: dict[str, Any] | None = None
    if isinstance(outcome, outcomes.Sent):
        result = {"outcome": "sent", "detail": outcome.name}
    elif isinstance(outcome, outcomes.Skipped):
        result = {"outcome": "skipped", "detail": outcome.reason}
    elif isinstance(outcome, outcomes.Refused):
        result = {"outcome": "refused", "detail": outcome.reason}
    if result:
        update["$push"] = {"results": {"topic": topic, "at": now, **result}}
    match = {"_id": notice.id, "state": "claimed", "lease": notice.lease}
    return bool(Notice.rows().update_one(match, update).matched_count)


def settle(
    notice: Notice, now: datetime, settings: Settings, *, wait: float = 0.0, reason: str = "", stop: bool = False
) -> str | None:
    """End a claim: sent or refused when every topic has its outcome (or `stop` ends the campaign), else due again after at
    least `wait` seconds, or failed when that would be later than an hour after the first try. Returns the new state; None
    when the claim was lost, and then nothing is written."""
    match = {"_id": notice.id, "state": "claimed", "lease": notice.lease}
    raw = Notice.rows().find_one(match)
    if raw is None:
        return None
    there = Notice.of(raw)
    fields: dict[str, Any] = {"reason": reason}
    drop = {"lease": "", "lease_until": ""}
    found = {result.outcome for result in there.results}
    if stop or not there.open_topics():
        fields["state"] = "refused" if stop or not found & {"sent", "skipped"} else "sent"
        if found == {"skipped"}:
            fields["reason"] = "inbox only: no push credentials"
        elif "refused" in found and not reason:
            fields["reason"] = "; ".join(sorted({r.detail for r in there.results if r.outcome == "refused"}))
    else:
        delay = max(wait, min(BACKOFF_LIMIT, outcomes.FLOOR * 2 ** min(there.attempts - 1, 10)))
        next_try = now + timedelta(seconds=delay * (1 + random.random() / 4))  # noqa: S311  (jitter, no secret)
        held = None if there.urgent else quiet_until(next_try, settings.zone)
        if held:  # the hour begins anew in the morning: held is not tried
            next_try = held
            drop["first_try"] = ""
        if not held and next_try > there.first_try + GIVE_UP:
            fields |= {"state": "failed", "reason": f"gave up after 60 minutes: {reason}"}
        else:
            fields |= {"state": "due", "next_try": next_try, "hand_at": next_try}
    done = Notice.rows().update_one(match, {"$set": fields, "$unset": drop})
    return str(fields["state"]) if done.matched_count else None


def sweep(now: datetime, settings: Settings) -> list[str]:
    """Bring every notice to where it should be at `now`, and return the ids to send. Safe to run often, twice and in two
    places: each step acts only on the state it expects."""
    rows = Notice.rows()
    _each(
        {"state": "claimed", "lease_until": {"$lte": now}},
        {"$set": {"state": "due", "next_try": now, "hand_at": now}, "$unset": {"lease": "", "lease_until": ""}},
    )
    _each(
        {"state": "due", "first_try": {"$lt": now - GIVE_UP}},
        {"$set": {"state": "failed", "reason": "gave up after 60 minutes"}},
    )
    for raw in list(rows.find({"state": {"$in": list(OPEN)}, "expires_at": {"$lte": now}}, {"_id": 1})):
        _step(raw["_id"], "expire", lambda notice: _expired(notice, now), _unlist)
    for raw in list(rows.find({"listed": True, "expires_at": {"$lte": now}}, {"_id": 1})):
        _step(raw["_id"], "unlist", lambda notice: {"listed": False} if notice.listed else {}, _unlist)
    overrides: list[seasons.Override] | None = None
    for raw in list(rows.find({"state": "scheduled", "send_at": {"$lte": now}})):
        if raw.get("season"):
            overrides = seasons.stored() if overrides is None else overrides
            if not _dated(Notice.of(raw), overrides, settings):
                if not raw.get("reason"):
                    rows.update_one({"_id": raw["_id"], "state": "scheduled"}, {"$set": {"reason": UNCONFIRMED}})
                continue
        _step(raw["_id"], "release", lambda notice: _falls_due(notice, now), _list)
    held = quiet_until(now, settings.zone)
    if held:
        _each(
            {"state": "due", "urgent": False, "next_try": {"$lt": held}},
            {"$set": {"next_try": held, "hand_at": held}, "$unset": {"first_try": ""}},
        )
    ready = []
    for raw in list(rows.find({"state": "due", "hand_at": {"$lte": now}}, {"hand_at": 1})):
        match = {"_id": raw["_id"], "state": "due", "hand_at": raw["hand_at"]}
        if rows.update_one(match, {"$set": {"hand_at": now + HAND_OUT}}).modified_count:
            ready.append(str(raw["_id"]))
    return ready


def _each(match: dict[str, Any], update: dict[str, Any]) -> None:
    """Update all that match, one by one. A bare `update_many` that meets a row which an open transaction has written hangs
    the embedded server for good (a bare `update_one` waits its turn), and a notice is written by transactions too."""
    rows = Notice.rows()
    for raw in list(rows.find(match, {"_id": 1})):
        rows.update_one({**match, "_id": raw["_id"]}, update)


UNCONFIRMED = "held: the season's local date is not confirmed"


def _dated(notice: Notice, overrides: Sequence[seasons.Override], settings: Settings) -> bool:
    """Whether its season has a confirmed local date wherever it goes."""
    on = notice.send_at.astimezone(ZoneInfo(settings.zone)).date()
    return seasons.confirmed(notice.season, on, notice.divisions or [settings.division], overrides)


def _expired(notice: Notice, now: datetime) -> dict[str, Any]:
    if notice.state not in OPEN or notice.expires_at > now:
        return {}
    why = {"drafted": "nobody approved it in time", "approved": "nobody scheduled it in time"}
    return {"state": "expired", "listed": False, "reason": why.get(notice.state, notice.reason or "its time passed")}


def _falls_due(notice: Notice, now: datetime) -> dict[str, Any]:
    if notice.state != "scheduled":
        return {}
    return {"state": "due", "listed": True, "next_try": now, "hand_at": now, "reason": None}


def _step(key: str, action: str, decide: Any, also: Any) -> None:
    """One audited step of the clock; one that fails is left for the next sweep and hinders no other notice."""
    try:
        records.change(Notice, key, SYSTEM, action, decide, also=also)
    except Failure as failure:
        log.warning("notice %s: %s put off: %s", key, action, failure)


# --- what readers see -------------------------------------------------------------------------------------------------


def inbox(
    snapshot: Snapshot,
    now: datetime,
    *,
    division: str = "",
    audience: str = "",
    stage: str = "",
    wanted: Sequence[str] = (),
    since: int = 0,
    limit: int = 50,
    last: str = "zh-Hans",
) -> tuple[list[dict[str, Any]], list[str], int]:
    """(notices of a segment released after sequence `since`, oldest first; ids withdrawn since; sequence to go on from).

    What the reader does not say excludes nothing. Each notice comes once, in the best of its languages for `wanted`.
    Raises `NotFound` for an unknown division, `Invalid` for a stage that is none.
    """
    line = set(divisions.lineage(division)) if division not in {"", divisions.COUNTRY} else set()
    reader = Stage.parse(stage, "stage") if stage else None
    found: list[tuple[int, dict[str, Any]]] = []
    for by_language in snapshot.entries("notice").values():
        item = by_language[languages.pick(by_language, wanted, last)]
        content = item.content or {}
        if (
            item.seq > since
            and datetime.fromisoformat(content["expires_at"]) > now
            and (not audience or audience in content["audiences"])
            and (not line or not content["divisions"] or line & set(content["divisions"]))
            and (not reader or not content["stages"] or any(Stage.parse(s).covers(reader) for s in content["stages"]))
        ):
            found.append((item.seq, {**content, "language": item.language}))
    found.sort(key=lambda one: (one[0], one[1]["id"]))
    rest = found[limit:]
    cursor = found[limit - 1][0] if rest else snapshot.seq
    gone = {key for (kind, key, _), item in snapshot.gone.items() if kind == "notice" and since < item.seq <= cursor}
    return [content for _, content in found[:limit]], sorted(gone) if since else [], max(cursor, since)

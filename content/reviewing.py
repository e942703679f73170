"""What colleagues say about a draft, how they show it to others, and how a draft that came to nothing is cleaned away.

A **comment** belongs to one edition of a lesson or path: a thread of a first comment and replies, open until it is resolved.
Open threads are counted beside the draft and block nothing: the approver decides, and is told how many there are.

A **preview** is an address that shows the working copy to whoever has it, for some hours. Only the SHA-256 of its token is
kept; it dies with its time, with a word (`revoke`), and with its maker's account or right.
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import mongoengine as me
from pymongo.client_session import ClientSession

from content import languages, records, staff, store
from content.failures import Conflict, NotFound, Text, invalid
from content.publishing import Publishable, Version
from content.records import Record
from content.staff import Actor

P = TypeVar("P", bound=Publishable)
MAKERS = ("lesson.write", "lesson.approve", "lesson.publish")
"""Who holds one of these for a draft may let others look at it."""


class Comment(Record):
    """One thing said about an edition's working copy."""

    record = me.StringField(required=True)
    """Id of the lesson or path."""
    language = me.StringField(required=True)
    """The edition."""
    field = me.StringField()
    """Name in its content ("body")."""
    quote = me.StringField()
    """The words that are meant."""
    text = me.StringField(required=True)
    reply_to = me.StringField()
    """The thread's first comment; absent in that one."""
    resolved_by = me.StringField()
    resolved_at = me.DateTimeField()

    NAME = "comment"
    meta: ClassVar[dict[str, Any]] = {"collection": "comments", "indexes": [{"fields": ["record"]}]}


class Preview(Record):
    """A right to look at one edition's working copy; `_id` = SHA-256 of the token, `created_by` its maker."""

    kind = me.StringField(required=True)
    record = me.StringField(required=True)
    language = me.StringField(required=True)
    expires_at = me.DateTimeField(required=True)

    NAME = "preview"
    meta: ClassVar[dict[str, Any]] = {
        "collection": "previews",
        "indexes": [{"fields": ["record"]}, {"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


# --- comments --------------------------------------------------------------------------------------------------------


def comment(
    record: Publishable, language: str, text: str, by: str, *, field: str = "", quote: str = "", reply_to: str = ""
) -> Comment:
    """Say something about an edition. A reply takes edition, field and quote from its thread and cannot join a resolved one.
    Raises `Invalid` for an edition or field that is not there and words that do not stand in it, `NotFound`, `Conflict`."""
    said = Comment(record=record.id, language=language, text=languages.clean(text))
    if not said.text:
        raise invalid("text", "required")
    if reply_to:
        first = find(record, reply_to)
        if first.resolved_at:
            raise Conflict("wrong_state", state="resolved", action="reply")
        said.reply_to, said.language = first.reply_to or first.id, first.language
        return records.create(said, by)
    if language not in record.stands:
        raise invalid("language", "unknown_reference", value=language)
    content = record.content_of(language)
    if field and field not in content:
        raise invalid("field", "not_one_of", choices=", ".join(sorted(content)))
    quote = languages.clean(quote)
    if quote and not quoted(content, field, quote):
        raise invalid("quote", "unknown_reference", value=quote[:40])
    said.field, said.quote = field or None, quote or None
    return records.create(said, by)


def quoted(content: Mapping[str, Any], field: str | None, quote: str) -> bool:
    """Whether these words stand in that field of a content, or in any when no field is named."""

    def within(value: Any) -> bool:
        if isinstance(value, Mapping):
            return any(map(within, value.values()))
        if isinstance(value, list | tuple):
            return any(map(within, value))
        return isinstance(value, str) and quote in value

    return within(content.get(field)) if field else within(content)


def comments(record: Publishable, language: str = "") -> list[Comment]:
    """All that was said, thread by thread, oldest first."""
    match = {"record": record.id, **({"language": language} if language else {})}
    found = [Comment.of(raw) for raw in Comment.rows().find(match)]
    began = {one.id: one.created_at for one in found}
    found.sort(
        key=lambda one: (began.get(one.reply_to or one.id, one.created_at), one.reply_to or one.id, one.created_at, one.id)
    )
    return found


def resolve(record: Publishable, comment_id: str, by: str, *, reopen: bool = False) -> Comment:
    """Close a thread, or open it again. Raises `NotFound`, `Conflict` for a reply and for one that is already so."""
    find(record, comment_id)
    verb = "reopen" if reopen else "resolve"
    action = Text("重新打开", "reopen") if reopen else "resolve"

    def decide(found: Comment) -> dict[str, Any]:
        if found.reply_to:
            raise Conflict("wrong_state", state=Text("回复", "reply"), action=action)
        if bool(found.resolved_at) != reopen:
            raise Conflict("wrong_state", state="resolved" if found.resolved_at else Text("未处理", "open"), action=action)
        return {"resolved_by": None if reopen else by, "resolved_at": None if reopen else store.now()}

    return records.change(Comment, comment_id, by, verb, decide, note=record.key)


def open_comments(ids: Collection[str], language: str = "") -> dict[str, int]:
    """Record id → open threads, in one edition when it is named; records without any are left out."""
    match = {"record": {"$in": list(ids)}, **({"language": language} if language else {})}
    count: dict[str, int] = {}
    for raw in Comment.rows().find(match, {"record": 1, "reply_to": 1, "resolved_at": 1}):
        if not raw.get("reply_to") and not raw.get("resolved_at"):
            count[raw["record"]] = count.get(raw["record"], 0) + 1
    return count


def find(record: Publishable, comment_id: str) -> Comment:
    """One comment on this record. Raises `NotFound`."""
    raw = Comment.rows().find_one({"_id": comment_id, "record": record.id})
    if raw is None:
        raise NotFound(what=comment_id)
    return Comment.of(raw)


# --- previews --------------------------------------------------------------------------------------------------------


def preview(record: Publishable, language: str, hours: int, by: str) -> tuple[str, Preview]:
    """A token (256 random bits, told once) and what is kept of it. Raises `Invalid` for an edition that is not there."""
    if language not in record.stands:
        raise invalid("language", "unknown_reference", value=language)
    token = secrets.token_urlsafe(32)
    made = Preview(
        id=_sha(token), kind=record.NAME, record=record.id, language=language, expires_at=store.now() + timedelta(hours=hours)
    )
    return token, records.create(made, by)


def _sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def opened(token: str, kinds: Mapping[str, type[Publishable]], division: str) -> tuple[Preview, Publishable]:
    """What a token shows. Raises `NotFound` when it is none, has ended or was revoked, when the edition is gone, and when its
    maker may not do that any more; the answer is the same, and never repeats the token."""
    gone = NotFound(what="preview")
    raw = Preview.rows().find_one({"_id": _sha(token)})
    if raw is None or raw["expires_at"] <= store.now():  # the index deletes once a minute
        raise gone
    found = Preview.of(raw)
    shown = kinds[found.kind].rows().find_one({"_id": found.record})
    if shown is None:
        raise gone
    record = kinds[found.kind].of(shown)
    try:
        maker = staff.get(found.created_by)
    except NotFound:
        raise gone from None
    if maker.state != "active" or not may_show(maker.actor(), record, division) or found.language not in record.stands:
        raise gone
    return found, record


def may_show(who: Actor, record: Any, division: str) -> bool:
    """Whether this person may let others look at a draft: one of MAKERS in each of its divisions."""
    codes = list(record.divisions) or [division]
    return any(all(who.may(permission, record.organisation, code) for code in codes) for permission in MAKERS)


def revoke(record: Publishable, by: str, *, own_only: bool) -> int:
    """End the previews of a record, or those that `by` made; returns how many."""
    match = {"record": record.id, **({"created_by": by} if own_only else {})}

    def work(session: ClientSession) -> int:
        count = int(Preview.rows().delete_many(match, session=session).deleted_count)
        if count:
            records.trail(session, Preview, record.id, by, "revoke", {}, {"count": count}, note=record.key)
        return count

    return store.transaction(work)


# --- cleaning away ---------------------------------------------------------------------------------------------------


def discard(cls: type[P], key: str, by: str, revision: int | None = None) -> None:
    """Delete a draft of which nothing was ever published, its comments and previews with it; the trail keeps what it was.
    Raises `Conflict("in_use")` once there is a version, `Stale`, `NotFound`."""

    def check(record: P) -> None:
        public = any(stand.number or stand.version for stand in record.stands.values())
        if public or Version.rows().find_one({"kind": cls.NAME, "key": record.key}, {"_id": 1}):
            raise Conflict("in_use", what=record.key, used_in="versions")

    def also(session: ClientSession, record: P) -> None:
        for part in (Comment, Preview):
            part.rows().delete_many({"record": record.id}, session=session)

    records.remove(cls, key, by, check, revision=revision, also=also)

"""The way from draft to reader, per language: draft → in review → approved → published → withdrawn.

A `Publishable` keeps its working copy, and for each language a `Stand`: the state of that working copy, and which
immutable version readers see. Editing puts the working copy back to draft and leaves readers with the published version.
Publishing one language touches no other. A version is named by the SHA-256 of its content and never changes; rolling back
is publishing an old version again.

Who approves is a second person (`content.staff.independent`): never an author of what is approved, nor an account that an
author made. `SYSTEM` is the starter library's loader and the clock: no token ever stands for it.

What is to happen by the clock (a publication at a moment, an expiry) is kept as `wakes_at`, the soonest such moment of a
record, and which translations have fallen behind as `behind`. Both are derived at each write of the record, so that the clock
and the desk ask an index and not every record.
"""

import difflib
import hashlib
import itertools
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import mongoengine as me
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

from content import languages, published, records, staff, store
from content.failures import Conflict, Failure, Forbidden, NotFound, Stale, Text, invalid
from content.published import Item, canonical
from content.records import SYSTEM, Record

log = logging.getLogger("xinqiao.publishing")

STATES = ("draft", "in_review", "approved", "published", "withdrawn")
NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # absent means "never looked at", as in a record of before there was a `wakes_at`
DIFF = (1000, 400, 20_000)  # of a text's comparison: lines it may have, lines and characters shown; the first bounds the time


class Stand(me.EmbeddedDocument):  # type: ignore[misc]
    """Where one language stands."""

    state = me.StringField(required=True, choices=STATES, default="draft")
    authors = me.ListField(me.StringField())
    """Everyone who edited since the last publication."""
    published_authors = me.ListField(me.StringField())
    """The authors of what was published last: a withdrawal makes them the authors again, so that nobody who wrote it brings
    it back alone."""
    digest = me.StringField()
    """Version name of what was submitted and approved."""
    approved_by = me.StringField()
    version = me.StringField()
    """Version that readers see; absent when none."""
    number = me.IntField(default=0)
    """How many versions have been published."""
    published_at = me.DateTimeField()
    publish_at = me.DateTimeField()
    """Approved and waiting for this moment."""
    next_expires_at = me.DateTimeField()
    """Expiry of what waits; apart from that of what readers see now."""
    expires_at = me.DateTimeField()
    """Readers lose it at this moment."""
    note = me.StringField()
    """The reviewer's word when sent back."""


class Publishable(Record):
    """A record published per language. Subclasses give `content_of` and `missing`."""

    stands = me.MapField(me.EmbeddedDocumentField(Stand))
    DERIVED = frozenset({"wakes_at", "behind", "behind_since"})
    wakes_at = me.DateTimeField(default=NEVER)
    """The soonest moment at which the clock has something to do here; derived."""

    meta: ClassVar[dict[str, Any]] = {
        "abstract": True, "auto_create_index": False, "indexes": [{"fields": ["wakes_at"]}],
    }  # fmt: skip

    @classmethod
    def derived(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """`wakes_at`, and of kinds that record what a translation was made from `behind` and `behind_since`."""
        stands = raw.get("stands") or {}
        fields: dict[str, Any] = {"wakes_at": min((m for stand in stands.values() for m in _moments(stand)), default=NEVER)}
        if "behind" in cls._fields:
            behind = _behind(raw.get("texts") or {}, stands, raw.get("behind") or {})
            fields |= {"behind": behind or None, "behind_since": min((one["since"] for one in behind.values()), default=None)}
        return fields

    @property
    def key(self) -> str:
        """Key of the published item."""
        raise NotImplementedError

    def content_of(self, language: str) -> dict[str, Any]:
        """The whole content of one language as plain JSON values: what a version is."""
        raise NotImplementedError

    def missing(self, language: str) -> list[str]:
        """Names of what must be filled in before this language may be submitted."""
        raise NotImplementedError

    @classmethod
    def gaps(cls, content: dict[str, Any]) -> list[str]:
        """What a version needs from elsewhere and has not got (any more)."""
        return []

    def restore(self, language: str, content: dict[str, Any]) -> dict[str, Any]:
        """Put a version's text into this working copy; returns the fields to set. Facts, which other languages share, stay."""
        raise NotImplementedError

    @classmethod
    def public(cls, content: dict[str, Any], stand: Stand) -> dict[str, Any]:
        """What readers get of a version's content."""
        return content


class Version(store.Row):
    """One immutable version; `_id` = SHA-256 of kind, key, language and content."""

    kind = me.StringField(required=True)
    key = me.StringField(required=True)
    language = me.StringField(required=True)
    number = me.IntField(required=True)
    content = me.StringField(required=True)
    """Canonical JSON."""
    media = me.ListField(me.StringField())
    """Media ids and hashes it uses, for the reference check."""
    at = me.DateTimeField(required=True)
    by = me.StringField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "versions",
        "indexes": [{"fields": ["kind", "key", "language", "-number"]}, {"fields": ["media"]}],
    }


P = TypeVar("P", bound=Publishable)


def version_name(record: Publishable, language: str) -> str:
    """The name that the working copy of this language would have as a version."""
    return name_of(record.NAME, record.key, language, record.content_of(language))


def name_of(kind: str, key: str, language: str, content: dict[str, Any]) -> str:
    """The name of a version with this content."""
    return hashlib.sha256(canonical([kind, key, language, content]).encode()).hexdigest()


def _stand(record: Publishable, language: str) -> Stand:
    stand = record.stands.get(language)
    if stand is None:
        raise NotFound(what=f"{record.key} {language}")
    return stand  # type: ignore[no-any-return]


def _require(stand: Stand, action: str, *states: str) -> None:
    if stand.state not in states:
        raise Conflict("wrong_state", state=stand.state, action=action)


WAITS_NOT: dict[str, Any] = {"publish_at": None, "next_expires_at": None}
UNDONE: dict[str, Any] = {**WAITS_NOT, "digest": None, "approved_by": None}


def _set(language: str, **fields: Any) -> dict[str, Any]:
    return {f"stands.{language}.{name}": value for name, value in fields.items()}


def _moments(stand: dict[str, Any]) -> list[datetime]:
    """When the clock has something to do with a stored stand."""
    due = stand.get("publish_at") if stand.get("state") == "approved" else None
    over = stand.get("expires_at") if stand.get("version") else None
    return [moment for moment in (due, over) if moment]


def _behind(texts: dict[str, Any], stands: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Edition → {"of": the source's version that it was made from, "since": when the source moved on} of the editions that are
    behind: made from another version than readers see, or from one that was withdrawn, is not there, or is not known. What was
    behind already keeps its `since`. A source that was never published leaves nobody behind."""
    result = {}
    for language, text in texts.items():
        source, of = text.get("made_from"), text.get("made_from_version")
        if not source:
            continue
        stand = stands.get(source) or {}
        if source in stands and of and (not stand.get("number") or stand.get("version") == of):
            continue
        moved = (stand.get("published_at") if of and stand.get("version") else None) or store.now()
        old = before.get(language) or {}
        result[language] = {"of": of or "", "since": old["since"] if old and old["of"] == (of or "") else moved}
    return result


def edited(record: Publishable, touched: list[str], by: str) -> dict[str, Any]:
    """The fields to set when `by` has edited these languages: back to draft, `by` among the authors."""
    fields: dict[str, Any] = {}
    for language in touched:
        stand = record.stands.get(language)
        if stand is None:
            # facts belong to every language, so their authors are authors of a new one too
            authors = sorted({by, *(author for other in record.stands.values() for author in other.authors)})
            fields[f"stands.{language}"] = {"state": "draft", "authors": authors, "number": 0}
            continue
        authors = sorted({*stand.authors, by})
        fields |= _set(language, state="draft", authors=authors, **UNDONE)
    return fields


def install(record: P) -> P:
    """Insert a new record whose whole editions are public at once, in one transaction with one line in the trail: how the starter
    library comes in, as `SYSTEM`'s work. Moving eighty editions one step at a time took ten times as long. An edition that
    `missing` names something of stays a draft. Raises as `records.create`."""
    whole = [language for language in record.stands if not record.missing(language)]
    for language in whole:
        digest, at = version_name(record, language), store.now()
        record.stands[language] = Stand(
            state="published", digest=digest, version=digest, number=1, published_at=at, approved_by=SYSTEM,
            published_authors=[SYSTEM],
        )  # fmt: skip

    def also(session: ClientSession, raw: dict[str, Any]) -> None:
        items = []
        for language in whole:
            _store_version(session, record, language, SYSTEM)
            items.append(item(type(record), record.key, language, _stand(record, language), record.content_of(language)))
        if items:
            published.release(session, items)

    return records.create(record, SYSTEM, also=also)


def submit(cls: type[P], key: str, language: str, by: str, revision: int | None = None, *, dry_run: bool = False) -> P:
    """Draft → in review. Raises `Failure("incomplete")` with what is missing, `Conflict` from another state."""

    def decide(record: P) -> dict[str, Any]:
        stand = _stand(record, language)
        _require(stand, "送审 submit", "draft", "withdrawn")
        missing = record.missing(language)
        if missing:
            raise Conflict("incomplete", missing=", ".join(missing))
        authors = sorted({*stand.authors, by}) if stand.state == "withdrawn" else stand.authors
        fields = {**UNDONE, "digest": version_name(record, language), "note": None}
        return _set(language, state="in_review", authors=authors, **fields)

    return records.change(cls, key, by, "submit", decide, revision=revision, note=language, dry_run=dry_run)


def send_back(
    cls: type[P], key: str, language: str, by: str, note: str, revision: int | None = None, *, dry_run: bool = False
) -> P:
    """In review or approved → draft, with the reviewer's word. Raises `Invalid` without one, `Conflict` from another state."""
    note = languages.clean(note)
    if not note:
        raise invalid("note", "required")

    def decide(record: P) -> dict[str, Any]:
        _require(_stand(record, language), "退回 send back", "in_review", "approved")
        return _set(language, state="draft", note=note, **UNDONE)

    return records.change(cls, key, by, "send_back", decide, revision=revision, note=language, dry_run=dry_run)


def approve(
    cls: type[P],
    key: str,
    language: str,
    by: str,
    revision: int | None = None,
    *,
    second_person: bool = True,
    dry_run: bool = False,
) -> P:
    """In review → approved by a second person. Raises `Forbidden("second_person")`."""

    def decide(record: P) -> dict[str, Any]:
        stand = _stand(record, language)
        _require(stand, "批准 approve", "in_review")
        seconded = bool(stand.authors) and all(staff.independent(author, by) for author in stand.authors)
        if second_person and by != SYSTEM and not seconded:
            raise Forbidden("second_person")
        return _set(language, state="approved", approved_by=by)

    return records.change(cls, key, by, "approve", decide, revision=revision, note=language, dry_run=dry_run)


def publish(
    cls: type[P],
    key: str,
    language: str,
    by: str,
    revision: int | None = None,
    *,
    at: datetime | None = None,
    expires_at: datetime | None = None,
    dry_run: bool = False,
) -> P:
    """Approved → published, now or, when `at` is in the future, by `run_schedule` at that moment.

    What is released is what was approved: the digest is compared, so nothing can slip in between. What it needs is looked for
    again, since a picture may have gone meanwhile. Raises `Conflict` when it is not approved or not whole any more
    ("incomplete"), `Invalid` for an expiry that lies before its publication.
    """
    now = store.now()
    if at and by != SYSTEM and at < now - timedelta(minutes=1):  # a wrong year must not put it before families
        raise invalid("at", "out_of_range", reason=f"> {now.isoformat(timespec='minutes')}")
    if expires_at and by != SYSTEM and expires_at <= max(now, at or now):
        raise invalid("expires_at", "out_of_range", reason=f"> {max(now, at or now).isoformat()}")

    def decide(record: P) -> dict[str, Any]:
        stand = _stand(record, language)
        _require(stand, "发布 publish", "approved")
        if stand.digest != version_name(record, language):
            raise Conflict("wrong_state", state="draft", action="publish")
        if missing := record.missing(language):
            raise Conflict("incomplete", missing=", ".join(missing))
        if at and at > now:
            return _set(language, publish_at=at, next_expires_at=expires_at, note=None)
        return _set(
            language, state="published", version=stand.digest, number=stand.number + 1, published_at=now,
            expires_at=expires_at, authors=[], published_authors=stand.authors, note=None, **WAITS_NOT,
        )  # fmt: skip

    def also(session: ClientSession, record: P) -> None:
        stand = _stand(record, language)
        if stand.state == "published":
            _store_version(session, record, language, by)
            _release(session, cls, record, language, record.content_of(language))

    return records.change(cls, key, by, "publish", decide, revision=revision, note=language, also=also, dry_run=dry_run)


def withdraw(
    cls: type[P],
    key: str,
    language: str,
    by: str,
    revision: int | None = None,
    *,
    note: str = "",
    dry_run: bool = False,
    expired: bool = False,
) -> P:
    """Take what readers see away at their next request; the working copy stays as it is, as `withdrawn`. It ends a waiting
    publication too, unless it is an expiry: what waits for its moment was approved in the knowledge of it."""

    def decide(record: P) -> dict[str, Any]:
        stand = _stand(record, language)
        if not stand.version:
            raise Conflict("wrong_state", state=stand.state, action="withdraw")
        state = "withdrawn" if stand.state == "published" else stand.state
        authors = sorted({*stand.authors, *stand.published_authors})
        waits = {} if expired else WAITS_NOT
        return _set(language, state=state, version=None, expires_at=None, authors=authors, **waits)

    def also(session: ClientSession, record: P) -> None:
        published.release(session, [Item(cls.NAME, record.key, language, None)])

    return records.change(cls, key, by, "withdraw", decide, revision=revision, note=note or language, also=also, dry_run=dry_run)


def roll_back(cls: type[P], key: str, language: str, version: str, by: str, revision: int | None = None) -> P:
    """Publish an old version again in place of the present one. A working copy edited since is left alone. Raises `Conflict` when
    nothing is public, or what it shows is not whole any more ("incomplete"), `NotFound` when it is no version of this."""
    holder: dict[str, Any] = {}

    def decide(record: P) -> dict[str, Any]:
        if not _stand(record, language).version:
            # nothing is public: it was withdrawn for a reason, and the way back is the whole way
            raise Conflict(
                "wrong_state",
                state="withdrawn",
                action=Text("恢复旧版（请重新送审、批准、发布）", "roll back (submit, approve and publish it instead)"),
            )
        raw = Version.rows().find_one({"_id": version, "kind": cls.NAME, "key": record.key, "language": language})
        if raw is None:
            raise NotFound(what=version)
        holder["content"] = json.loads(raw["content"])
        if missing := cls.gaps(holder["content"]):
            raise Conflict("incomplete", missing=", ".join(missing))
        stand = _stand(record, language)
        fields: dict[str, Any] = {"version": version, "published_at": store.now(), "expires_at": None, **UNDONE}
        # a working copy that is what was rolled back goes back too, or the next small edit would bring it to readers again;
        # one that has been edited since is somebody's work and stays
        put = record.restore(language, holder["content"]) if stand.state == "published" else {}
        if version_name(record, language) == version:
            return put | _set(language, state="published", **fields)
        # the working copy is what was rolled back: whoever wrote it does not approve it again
        authors = sorted({*stand.authors, *stand.published_authors})
        return put | _set(language, state="draft", authors=authors, **fields)

    def also(session: ClientSession, record: P) -> None:
        _release(session, cls, record, language, holder["content"])

    return records.change(cls, key, by, "roll_back", decide, revision=revision, note=f"{language} {version[:12]}", also=also)


def versions(cls: type[P], key: str, language: str) -> list[Version]:
    """All versions of one language, newest first."""
    match = {"kind": cls.NAME, "key": key, "language": language}
    return [Version.of(raw) for raw in Version.rows().find(match).sort("number", -1)]


def compare(cls: type[P], key: str, language: str, old: str, new: str | None = None) -> dict[str, tuple[Any, Any]]:
    """Field → (old, new) for what differs between a version and another, or the working copy (`new` None). Raises `NotFound`."""
    before = _content(cls, key, language, old)
    if new is not None:
        after = _content(cls, key, language, new)
    else:
        raw = cls.rows().find_one({"slug": key})
        after = json.loads(canonical(cls.of(raw).content_of(language))) if raw else {}
    return {k: (before.get(k), after.get(k)) for k in sorted({*before, *after}) if before.get(k) != after.get(k)}


def _content(cls: type[P], key: str, language: str, version: str) -> dict[str, Any]:
    raw = Version.rows().find_one({"_id": version, "kind": cls.NAME, "key": key, "language": language})
    if raw is None:
        raise NotFound(what=version)
    return json.loads(raw["content"])  # type: ignore[no-any-return]


def line_diff(old: Any, new: Any) -> list[str] | None:
    """What changed between two long texts as a unified diff, a line each ("-", "+", " ", "@@ … @@"); None for what is short or
    no text, and for texts of more lines than can be compared while someone waits. Cut with a last line "…" when it is long."""
    most, shown, size = DIFF
    before, after = (value.split("\n") if isinstance(value, str) else [] for value in (old, new))
    if max(len(before), len(after)) < 2 or max(len(before), len(after)) > most:
        return None
    result: list[str] = []
    for line in itertools.islice(difflib.unified_diff(before, after, lineterm="", n=2), 2, None):
        size -= len(line)
        if len(result) == shown or size < 0:
            return [*result, "…"]
        result.append(line)
    return result


def used_in(media: str) -> list[str]:
    """Which versions use a media id or hash, as "lesson exam-week zh-Hans"."""
    fields = {"kind": 1, "key": 1, "language": 1}
    return sorted({f"{r['kind']} {r['key']} {r['language']}" for r in Version.rows().find({"media": media}, fields)})


def run_schedule(now: datetime, kinds: list[type[Publishable]]) -> int:
    """Publish what has come due and withdraw what has expired; returns how many. Safe to run twice or in two places:
    each step acts only on the revision it has seen. Asks only for records whose `wakes_at` has come."""
    done = 0
    for cls in kinds:
        _look_once(cls)
        for raw in list(cls.rows().find({"wakes_at": {"$lte": now}}, {"_id": 1}).sort("wakes_at", 1)):
            try:
                done += _wake(cls, raw["_id"], now)
            except PyMongoError:
                raise
            except Exception:  # one damaged record must not keep all others from their moment, minute after minute
                log.exception("schedule: %s %s", cls.NAME, raw["_id"])
    return done


def _look_once(cls: type[Publishable]) -> None:
    """Derive what is derived for records that have none of it (written before there was any, or by hand). No revision and no
    line in the trail. A verb that comes between derives its own, and the filter then leaves it alone."""
    while rows := list(cls.rows().find({"wakes_at": None}).limit(100)):
        found = {raw["_id"]: {k: v for k, v in cls.derived(raw).items() if v is not None} for raw in rows}

        def work(session: ClientSession, found: dict[str, dict[str, Any]] = found) -> None:
            for name, fields in found.items():
                cls.rows().update_one({"_id": name, "wakes_at": None}, {"$set": fields}, session=session)

        store.transaction(work)


def _wake(cls: type[Publishable], key: str, now: datetime) -> int:
    """Do what has come due in one record, a step at a time on what each step finds; returns how many."""
    done = 0
    while raw := cls.rows().find_one({"_id": key}, {"stands": 1, "revision": 1}):
        stands = raw.get("stands") or {}
        language = next((k for k, stand in stands.items() if any(moment <= now for moment in _moments(stand))), None)
        if language is None:
            return done
        stand = stands[language]
        try:
            if stand.get("version") and stand.get("expires_at") and stand["expires_at"] <= now:
                withdraw(cls, key, language, SYSTEM, raw["revision"], note=f"{language} expired", expired=True)
            else:
                publish(cls, key, language, SYSTEM, raw["revision"], expires_at=stand.get("next_expires_at"))
            done += 1
        except (Conflict, NotFound) as failure:
            _put_off(cls, key, language, failure, raw["revision"])
        except Stale:  # someone was faster; what is still due then is found in a minute
            log.info("schedule: %s %s was changed meanwhile", key, language)
            return done
    return done


def _put_off(cls: type[Publishable], key: str, language: str, failure: Failure, revision: int) -> None:
    """A publication that cannot happen at its moment waits no longer and says why to whoever opens it; approved it stays."""
    words = failure.messages
    note = f"没有按时发布：{words['zh-Hans']} Not published at its moment: {words['en']}"
    log.warning("schedule: %s %s: %s", key, language, failure)

    def decide(record: Publishable) -> dict[str, Any]:
        return _set(language, note=note, **WAITS_NOT)

    try:
        records.change(cls, key, SYSTEM, "put_off", decide, revision=revision, note=language)
    except (Stale, NotFound):
        log.info("schedule: %s %s was changed meanwhile", key, language)


def _store_version(session: ClientSession, record: Publishable, language: str, by: str) -> None:
    content = record.content_of(language)
    row = {
        "kind": record.NAME, "key": record.key, "language": language, "number": _stand(record, language).number,
        "content": canonical(content), "media": content.get("media", []), "at": store.now(), "by": by,
    }  # fmt: skip
    name = name_of(record.NAME, record.key, language, content)
    Version.rows().update_one({"_id": name}, {"$setOnInsert": row}, upsert=True, session=session)


def item(cls: type[Publishable], key: str, language: str, stand: Stand, content: dict[str, Any]) -> Item:
    """What readers get of the version that this stand names, whose content it is."""
    shown = {
        **cls.public(content, stand),
        "version": stand.version,
        "published_at": stand.published_at.isoformat(),
        "expires_at": stand.expires_at.isoformat() if stand.expires_at else None,
    }
    return Item(cls.NAME, key, language, shown)


def _release(session: ClientSession, cls: type[P], record: P, language: str, content: dict[str, Any]) -> None:
    published.release(session, [item(cls, record.key, language, _stand(record, language), content)])

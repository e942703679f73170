"""Records that staff write, and the trail that every such write leaves.

`create` and `change` are the only ways to write a `Record`. Each runs in one transaction with the line it adds to the
`audit` collection, so there is no write without its line and no line without its write. Of fields named in a record's
`PERSONAL` the trail keeps the names only, never the values.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import mongoengine as me
from pymongo import ReturnDocument, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from content import store
from content.failures import Conflict, NotFound, Stale

R = TypeVar("R", bound="Record")
BATCH = 500  # records in one command
SYSTEM = "system"  # the actor of what no person did: the starter library, the scheduler


class Record(store.Row):
    """A document that staff edit. `revision` counts its writes: it is the ETag, and If-Match goes into the filter."""

    revision = me.IntField(required=True, default=1)
    created_at = me.DateTimeField(required=True, default=store.now)
    created_by = me.StringField(required=True)
    updated_at = me.DateTimeField(required=True, default=store.now)

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False}
    NAME: ClassVar[str] = ""
    """What the trail calls it ("lesson")."""
    PERSONAL: ClassVar[frozenset[str]] = frozenset()
    """Fields whose values never enter the trail."""
    DERIVED: ClassVar[frozenset[str]] = frozenset()
    """Fields that `derived` gives; the trail leaves them out."""

    @classmethod
    def derived(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """The fields that follow from the others (None unsets), asked at each write with the record as it will be stored."""
        return {}


class Audit(store.Row):
    """One staff write. Append-only: nothing here updates or deletes a line."""

    at = me.DateTimeField(required=True)
    actor = me.StringField(required=True)
    """Staff id, or `system`."""
    action = me.StringField(required=True)
    """Verb with its noun: "lesson.publish"."""
    kind = me.StringField(required=True)
    key = me.StringField(required=True)
    """Id of the record."""
    before = me.DictField()
    after = me.DictField()
    """Changed fields only; a personal field's value is replaced by true."""
    note = me.StringField()

    meta: ClassVar[dict[str, Any]] = {
        "collection": "audit",
        "indexes": [{"fields": ["-at"]}, {"fields": ["kind", "key", "-at"]}, {"fields": ["actor", "-at"]}],
    }


def trail(
    session: ClientSession,
    cls: type[Record],
    key: str,
    by: str,
    action: str,
    before: dict[str, Any],
    after: dict[str, Any],
    note: str = "",
) -> None:
    """Add one line inside `session`'s transaction."""
    Audit.rows().insert_one(_line(cls, key, by, action, before, after, note), session=session)


def _line(
    cls: type[Record], key: str, by: str, action: str, before: dict[str, Any], after: dict[str, Any], note: str = ""
) -> dict[str, Any]:
    skip = {"revision", "updated_at", "created_at", "created_by", "_id", *cls.DERIVED}

    def kept(values: dict[str, Any]) -> dict[str, Any]:
        return {k: (True if k in cls.PERSONAL else v) for k, v in values.items() if k not in skip}

    changed = {k for k in {*before, *after} if before.get(k) != after.get(k)}
    before, after = dict(before), dict(after)
    for name in changed:
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):  # of a map, such as the texts by language, what changed in it
            keys = {k for k in {*old, *new} if old.get(k) != new.get(k)}
            before[name], after[name] = ({k: v for k, v in part.items() if k in keys} for part in (old, new))
    line: dict[str, Any] = {
        "_id": store.new_id(),
        "at": store.now(),
        "actor": by,
        "action": f"{cls.NAME}.{action}",
        "kind": cls.NAME,
        "key": key,
        "before": kept({k: v for k, v in before.items() if k in changed}),
        "after": kept({k: v for k, v in after.items() if k in changed}),
    }
    if note:
        line["note"] = note
    return line


def create(record: R, by: str, *, note: str = "", also: Callable[[ClientSession, dict[str, Any]], None] | None = None) -> R:
    """Insert a new record and its line; `also(session, raw)` may write more in the same transaction.

    Raises `Conflict("exists")` (by way of `store.failure_of`) when a unique field is taken, mongoengine's
    `ValidationError` never: shapes are checked by the caller's schema, types by the collection's validator.
    """
    record.created_by = by
    cls = type(record)
    for name, value in cls.derived(record.to_mongo().to_dict()).items():
        setattr(record, name, value)
    raw: dict[str, Any] = record.to_mongo().to_dict()

    def work(session: ClientSession) -> None:
        cls.rows().insert_one(raw, session=session)
        trail(session, cls, raw["_id"], by, "create", {}, raw, note)
        if also:
            also(session, raw)

    store.transaction(work)
    return record


def create_many(session: ClientSession, made: Sequence[Record], by: str) -> None:
    """Insert new records of one kind, each with its line, inside `session`'s transaction. Raises `Conflict("exists")`."""
    raws: list[dict[str, Any]] = []
    for record in made:
        record.created_by = by
        for name, value in type(record).derived(record.to_mongo().to_dict()).items():
            setattr(record, name, value)
        raws.append(record.to_mongo().to_dict())
    for start in range(0, len(raws), BATCH):
        cls, some = type(made[0]), raws[start : start + BATCH]
        try:
            cls.rows().insert_many(some, session=session)
        except BulkWriteError as error:
            taken = [row for row in (error.details or {}).get("writeErrors", ()) if row.get("code") == 11000]
            if not taken:
                raise
            raise Conflict("exists", what=some[taken[0]["index"]]["_id"]) from None
        Audit.rows().insert_many([_line(cls, raw["_id"], by, "create", {}, raw) for raw in some], session=session)


def change(
    cls: type[R],
    key: str,
    by: str,
    action: str,
    decide: Callable[[R], dict[str, Any]],
    *,
    revision: int | None = None,
    note: str = "",
    also: Callable[[ClientSession, R], None] | None = None,
    dry_run: bool = False,
    patience: float | None = None,
) -> R:
    """Read the record, let `decide(record)` return the fields to set (database names, dotted paths allowed; None unsets),
    and write them with its line, all in one transaction.

    `decide` raises a `Failure` to refuse; an empty result writes nothing. `revision` is the one the caller read: another
    raises `Stale`. `also(session, changed)` may write more in the same transaction, after the record. Raises `NotFound`.
    A second identical call with the same `revision` raises `Stale`, so nothing is applied twice. With `dry_run` everything
    is decided and nothing written. `patience` as `store.transaction`. Returns the record as it now is.
    """

    def work(session: ClientSession) -> R:
        record, changed = change_in(session, cls, key, by, action, decide, revision=revision, note=note, dry_run=dry_run)
        if changed and also:
            also(session, record)
        return record

    return store.transaction(work, patience)


def change_in(
    session: ClientSession,
    cls: type[R],
    key: str,
    by: str,
    action: str,
    decide: Callable[[R], dict[str, Any]],
    *,
    revision: int | None = None,
    note: str = "",
    dry_run: bool = False,
) -> tuple[R, bool]:
    """`change` inside the caller's transaction, for what changes several records at once: the record as it now is, and whether
    it was written."""
    before = cls.rows().find_one({"_id": key}, session=session)
    if before is None:
        raise NotFound(what=key)
    if revision is not None and before["revision"] != revision:
        raise Stale()
    fields = decide(cls.of(before))
    if not fields or dry_run:
        return cls.of(before), False
    if cls.DERIVED:
        fields = {**fields, **cls.derived(laid(before, fields))}
    put = {k: v for k, v in fields.items() if v is not None}
    drop = {k: "" for k, v in fields.items() if v is None}
    update: dict[str, Any] = {"$set": {**put, "updated_at": store.now()}, "$inc": {"revision": 1}}
    if drop:
        update["$unset"] = drop
    after = cls.rows().find_one_and_update(
        {"_id": key, "revision": before["revision"]}, update, session=session, return_document=ReturnDocument.AFTER
    )
    if after is None:
        raise Stale()
    trail(session, cls, key, by, action, before, after, note)
    return cls.of(after), True


def change_many(session: ClientSession, changes: Sequence[tuple[R, dict[str, Any]]], by: str, action: str) -> list[R]:
    """Set fields (None unsets) of many records of one kind, each with its line, inside `session`'s transaction; each is given as
    it was read. Returns them as they now are. Raises `Stale` when one is gone or was changed since."""
    if not changes:
        return []
    cls = type(changes[0][0])
    at, updates, lines, made = store.now(), [], [], []
    for record, fields in changes:
        before: dict[str, Any] = record.to_mongo().to_dict()
        key, revision = before["_id"], before["revision"]
        fields = {**fields, **cls.derived(laid(before, fields))} if cls.DERIVED else fields
        after = laid(before, {**fields, "updated_at": at, "revision": revision + 1})
        update: dict[str, Any] = {"$set": {k: v for k, v in fields.items() if v is not None} | {"updated_at": at}}
        update["$inc"] = {"revision": 1}
        if drop := {k: "" for k, v in fields.items() if v is None}:
            update["$unset"] = drop
        updates.append(UpdateOne({"_id": key, "revision": revision}, update))
        lines.append(_line(cls, key, by, action, before, after))
        made.append(cls.of(after))
    for start in range(0, len(updates), BATCH):
        some = updates[start : start + BATCH]
        if cls.rows().bulk_write(some, session=session).matched_count != len(some):
            raise Stale()
        Audit.rows().insert_many(lines[start : start + BATCH], session=session)
    return made


def laid(raw: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """A stored record with these fields set in it (dotted paths through maps; None unsets); `raw` stays as it is."""
    result = dict(raw)
    for path, value in fields.items():
        *way, last = path.split(".")
        part = result
        for name in way:
            part[name] = dict(part.get(name) or {})
            part = part[name]
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    return result


def values_of(record: Record, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields as plain values; mongoengine leaves empty lists and maps out of what it stores, here they are back."""
    raw, fields = record.to_mongo().to_dict(), type(record)._fields
    empty: dict[str, Any] = {}
    for name in names:
        empty[name] = [] if isinstance(fields[name], me.ListField) else {} if isinstance(fields[name], me.DictField) else None
    return {name: raw.get(name, empty[name]) for name in names}


def remove(
    cls: type[R],
    key: str,
    by: str,
    check: Callable[[R], None],
    *,
    revision: int | None = None,
    also: Callable[[ClientSession, R], None] | None = None,
) -> None:
    """Delete a record with its line, after `check(record)` has not raised; `also(session, record)` may delete what belongs to it
    in the same transaction. Raises `NotFound`, `Stale`."""

    def work(session: ClientSession) -> None:
        before = cls.rows().find_one({"_id": key}, session=session)
        if before is None:
            raise NotFound(what=key)
        if revision is not None and before["revision"] != revision:
            raise Stale()
        record = cls.of(before)
        check(record)
        cls.rows().delete_one({"_id": key, "revision": before["revision"]}, session=session)
        trail(session, cls, key, by, "remove", before, {})
        if also:
            also(session, record)

    store.transaction(work)


def purge(
    cls: type[store.Row],
    now: datetime,
    owner: type[Record],
    part: str,
    also: Callable[[ClientSession, list[str]], None] | None = None,
) -> int:
    """Delete the rows of personal data whose `expires_at` has come, two hundred in a transaction with what `also(session, ids)`
    deletes with them. Each record of `owner` that they belonged to (its id stands in their `part`) gets a line in the trail that
    says how many, and nothing of whom. Returns how many; a second call finds none. Raises driver errors."""
    name = cls._get_collection_name()

    def work(session: ClientSession) -> int:
        rows = list(cls.rows().find({"expires_at": {"$lte": now}}, {part: 1}, session=session).limit(200))
        if not rows:
            return 0
        ids = [row["_id"] for row in rows]
        if also:
            also(session, ids)
        cls.rows().delete_many({"_id": {"$in": ids}}, session=session)
        for key, number in sorted(Counter(row[part] for row in rows).items()):
            trail(session, owner, key, SYSTEM, f"erase_{name}", {}, {}, note=f"{number} {name}")
        return len(rows)

    return store.until_none(work)


def history(kind: str = "", key: str = "", actor: str = "", before: datetime | None = None, limit: int = 50) -> list[Audit]:
    """Lines of the trail, newest first, older than `before`. Filters that are empty do not filter."""
    match: dict[str, Any] = {k: v for k, v in {"kind": kind, "key": key, "actor": actor}.items() if v}
    if before:
        match["at"] = {"$lt": before}
    return [Audit.of(raw) for raw in Audit.rows().find(match).sort("at", -1).limit(limit)]

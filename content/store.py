"""The database: connect, collections with validators and indexes, transactions, and which failure an error means.

Documents are mongoengine classes derived from `Record` (of `records.Record` where staff edit them), one subject a file. Their
fields give the collection's `$jsonSchema` validator, their `meta["indexes"]` its indexes; both are made by
`ensure_indexes()` and by nothing else, since an index built by the first request would stall it.

Filters are written as plain fields, never `Q(...) & Q(...)`: the embedded server uses no index under `$and`.
"""

import contextlib
import fcntl
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import mongoengine as me
import pymongo
from bson.binary import Binary
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)
from pymongo.uri_parser import parse_uri

from content import waking
from content.failures import Conflict, Failure, Unavailable
from content.settings import Settings

T = TypeVar("T")
PATIENCE = 8.0  # seconds; for commands and workers, where nobody waits
REQUEST_PATIENCE = 1.5  # seconds; the database that went away under a request is answered as 503 within 2.5 s (promise 5)
RETRY_AFTER = 2  # seconds; a restarted database answered within 0.3 s, the poller sees it 0.4 s later


def now() -> datetime:
    """The present moment in UTC, in whole milliseconds, which is what MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def new_id() -> str:
    """128 random bits as 32 hex digits. An ObjectId would tell the second and the order of its making."""
    return secrets.token_hex(16)


def connect(settings: Settings, patience: float = PATIENCE) -> None:
    """Register the connection (lazily opened). Call once a process, after any fork; a second call replaces the first.

    `patience`: seconds one operation, or one whole transaction with its repeats, may take. The driver lets it override the
    time to find a server, and without it a transaction whose database was killed is tried again for two minutes.

    Whoever is connected also obeys the quiet hours of these settings (`waking`).
    """
    settings.needed("mongodb_uri")
    waking.configure(settings.quiet)
    disconnect()
    me.connect(
        db=parse_uri(settings.mongodb_uri, warn=False).get("database") or settings.database,
        host=settings.mongodb_uri,
        uuidRepresentation="standard",
        tz_aware=True,
        serverSelectionTimeoutMS=2000,
        connectTimeoutMS=2000,
        timeoutMS=int(patience * 1000),
        retryReads=True,
        retryWrites=True,
        w="majority",
        journal=True,
    )
    _keep_names(settings.var / "sessions")


def disconnect() -> None:
    """Close the connection; without one, a no-op."""
    global _book
    me.disconnect_all()
    if _book is not None:
        if Path(_book.name).name.startswith(f"{os.getpid()}-"):  # not of the parent that was forked
            Path(_book.name).unlink(missing_ok=True)
        _book.close()
        _book = None


def client() -> MongoClient[dict[str, Any]]:
    """The process's client."""
    found: MongoClient[dict[str, Any]] = me.get_connection()
    return found


def database() -> Database[dict[str, Any]]:
    """The process's database."""
    found: Database[dict[str, Any]] = me.get_db()
    return found


def ping() -> bool:
    """Whether the database answers within the selection timeout (2 s)."""
    try:
        client().admin.command("ping")
    except PyMongoError:
        return False
    return True


def transaction(work: Callable[[ClientSession], T], patience: float | None = None) -> T:
    """Run `work(session)` in one transaction: all of it is written or nothing. `work` may run more than once, so it
    must read afresh and touch nothing but the database. Raises what `work` raises, and a driver's error when it is not done
    within the connection's patience, or within `patience` seconds when the work is known to be long."""
    with client().start_session() as session:
        _note(session.session_id)
        try:
            with pymongo.timeout(patience or client().options.timeout):
                return session.with_transaction(work)
        except PyMongoError as error:
            # out of time the driver sends no abort, and what the transaction wrote would stay locked for the server's 60 s
            why = error.__cause__ or error  # what `with_transaction` gave up for
            gone = isinstance(why, ConnectionFailure) and not isinstance(why, NetworkTimeout)
            # one that is gone is asked by the poller: to look for it once more costs the driver half a second
            if gone or (error.timeout and not _end([session.session_id])):
                _abandoned.append((session.session_id, 25))
            raise


def transaction_or_again(work: Callable[[ClientSession], T]) -> T:
    """`transaction`, and once more when someone else wrote the same unique row at that moment: now `work` finds it there."""
    try:
        return transaction(work)
    except DuplicateKeyError:
        pass
    except BulkWriteError as error:
        if not any(row.get("code") == 11000 for row in (error.details or {}).get("writeErrors", ())):
            raise
    return transaction(work)


def until_none(work: Callable[[ClientSession], int]) -> int:
    """Run `work` in one transaction after another until it has nothing left to do and returns 0; the sum of what it returned."""
    total = 0
    while done := transaction(work):
        total += done
    return total


# Sessions to be ended when the database answers again, and how often (at each poll, 10 s): a database that hung still does
# what it was sent before, and three times were too few on a busy machine. No such session is used again.
_abandoned: deque[tuple[Mapping[str, Any], int]] = deque(maxlen=1000)


def _end(sessions: list[Mapping[str, Any]]) -> bool:
    """Whether the database answered; it lets everyone end their own sessions."""
    try:
        with pymongo.timeout(0.2):
            client().admin.command("killSessions", sessions)
    except PyMongoError as error:
        return isinstance(error, OperationFailure) and not error.timeout
    return True


# A killed process ends nothing: what its transaction wrote would stay locked for the server's 60 s, a session's seats or all that
# is published. So each process writes down the names of its database sessions, in a file that it holds a lock on while it lives;
# whoever finds such a file without a lock ends them. The driver uses few of them again and again, so little is written.
_names: set[bytes] = set()
_book: IO[bytes] | None = None
_folder: Path | None = None


def _keep_names(folder: Path) -> None:
    """A new file for this process's names."""
    global _book, _folder
    _names.clear()
    _folder, _book = folder, None
    with contextlib.suppress(OSError):  # no folder, no room: a killed process then costs a minute
        folder.mkdir(exist_ok=True)
        book = (folder / f"{os.getpid()}-{new_id()[:8]}").open("ab", buffering=0)
        fcntl.flock(book, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _book = book


def _note(session: Mapping[str, Any]) -> None:
    name = bytes(session["id"])
    if _book is not None and name not in _names:
        _names.add(name)
        with contextlib.suppress(OSError):
            _book.write(name)  # 16 bytes, at the end of the file in one call


def _bury() -> None:
    """End the sessions of processes of this machine that are gone."""
    for path in _folder.iterdir() if _folder and _folder.is_dir() else ():
        with contextlib.suppress(OSError), path.open("rb") as book:
            fcntl.flock(book, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            data = book.read()
            names: list[Mapping[str, Any]] = [{"id": Binary(data[n : n + 16], 4)} for n in range(0, len(data) // 16 * 16, 16)]
            if not names or _end(names):
                path.unlink()


def end_abandoned() -> None:
    """End the transactions that were given up while the database was away, and those of processes that were killed. Call when the
    database answers; without any a no-op."""
    _bury()
    if _abandoned:
        rows = [_abandoned.popleft() for _ in range(len(_abandoned))]
        done = _end([session for session, _ in rows])
        _abandoned.extend((session, times - done) for session, times in rows if times > done)


def failure_of(error: BaseException) -> Failure | None:
    """The typed failure that a driver's error means for a caller, or None when it is none of ours to explain."""
    if isinstance(error, Failure):
        return error
    cause = error.__cause__ or error.__context__
    if isinstance(error, me.errors.OperationError) and isinstance(cause, PyMongoError):
        return failure_of(cause)
    if isinstance(error, DuplicateKeyError):
        value = (error.details or {}).get("keyValue") or {}
        return Conflict("exists", what=", ".join(str(v) for v in value.values()) or "?")
    if isinstance(error, BulkWriteError):
        return None
    if isinstance(error, DocumentTooLarge):
        return Failure("too_large", limit="16 MiB")
    if isinstance(error, ServerSelectionTimeoutError | NetworkTimeout | ConnectionFailure | ExecutionTimeout | WTimeoutError):
        return Unavailable(retry_after=RETRY_AFTER)
    if isinstance(error, OperationFailure) and (
        error.has_error_label("TransientTransactionError") or error.has_error_label("RetryableWriteError")
    ):
        return Unavailable(retry_after=RETRY_AFTER)
    if isinstance(error, PyMongoError) and error.timeout:
        return Unavailable(retry_after=RETRY_AFTER)
    return None


class Row(me.Document):  # type: ignore[misc]
    """Base of every collection: a random string id, dates in UTC, no index made by itself."""

    id = me.StringField(primary_key=True, default=new_id)

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False}

    @classmethod
    def rows(cls) -> Any:
        """The bare pymongo collection, for conditional updates and transactions."""
        return cls._get_collection()

    @classmethod
    def of(cls: type[T], raw: dict[str, Any]) -> T:
        """A document from what pymongo returned."""
        made: T = cls._from_son(raw)  # type: ignore[attr-defined]
        return made


def collections() -> Iterator[type[Row]]:
    """Every concrete document class that has been imported."""

    def walk(base: type[Row]) -> Iterator[type[Row]]:
        sub: type[Row]
        for sub in base.__subclasses__():
            yield sub
            yield from walk(sub)

    for cls in sorted(set(walk(Row)), key=lambda c: c.__name__):
        if not cls._meta.get("abstract"):
            yield cls


BSON = {
    me.StringField: "string", me.IntField: ["int", "long"], me.FloatField: ["double", "int", "long"], me.BooleanField: "bool",
    me.DateTimeField: "date", me.ListField: "array", me.DictField: "object", me.MapField: "object",
    me.EmbeddedDocumentField: "object", me.EmbeddedDocumentListField: "array", me.BinaryField: "binData",
}  # fmt: skip


def schema(cls: type[Row]) -> dict[str, Any]:
    """The `$jsonSchema` of a document class: required fields and BSON types of the top level, no other fields."""
    properties: dict[str, Any] = {}
    required = []
    for field in cls._fields.values():
        kind = next((BSON[base] for base in type(field).__mro__ if base in BSON), None)
        kinds = kind if isinstance(kind, list) else [kind]
        properties[field.db_field] = {"bsonType": [*kinds, *([] if field.required else ["null"])]} if kind else {}
        if field.required and field.db_field != "_id":
            required.append(field.db_field)
    result: dict[str, Any] = {"bsonType": "object", "properties": properties, "additionalProperties": False}
    if required:
        result["required"] = sorted(required)
    return result


def ensure_indexes() -> list[str]:
    """Make or mend every collection's validator and indexes. Returns a line for each change; a second call returns []."""
    done: list[str] = []
    db = database()
    known = {info["name"]: info for info in db.list_collections()}
    for cls in collections():
        name = cls._get_collection_name()
        validator = {"$jsonSchema": schema(cls)}
        if name not in known:
            db.create_collection(name, validator=validator)
            done.append(f"{name}: collection")
        elif known[name].get("options", {}).get("validator") != validator:
            db.command("collMod", name, validator=validator)
            done.append(f"{name}: validator")
        present = {str(index["name"]) for index in db[name].list_indexes()}
        for spec in cls._meta.get("indexes", []):
            keys = [(f[1:], -1) if f.startswith("-") else (f, 1) for f in spec["fields"]]
            options = {k: v for k, v in spec.items() if k != "fields"}
            options["name"] = "_".join(f"{f}_{d}" for f, d in keys)
            if options["name"] not in present:
                db[name].create_index(keys, **options)
                done.append(f"{name}: index {options['name']}")
    return done


def missing_indexes() -> list[str]:
    """What `ensure_indexes` would make, without making it; for `xinqiao doctor`."""
    db = database()
    known = set(db.list_collection_names())
    missing = []
    for cls in collections():
        name = cls._get_collection_name()
        if name not in known:
            missing.append(name)
            continue
        present = {str(index["name"]) for index in db[name].list_indexes()}
        for spec in cls._meta.get("indexes", []):
            wanted = "_".join(f"{f.lstrip('-')}_{-1 if f.startswith('-') else 1}" for f in spec["fields"])
            if wanted not in present:
                missing.append(f"{name}.{wanted}")
    return missing

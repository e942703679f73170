"""The round trip: everything that is taught, out of one store into a folder and into another, the same by hash.

`export` writes the folder that `content.archivefiles` describes; `load` puts it into a store that holds nothing yet. What
comes out of the second store is, byte for byte, what came out of the first, but for the moment of its making.

Nothing personal leaves (LEFT says what stays and why). Authors and approvers go along as the opaque ids they are: in the new
store no account has them, so nobody there counts as the author of what came.

`load` refuses an archive whole or takes it whole. It looks through everything before it writes. Then objects, then records,
then the published rows; the published sequence comes last, in one transaction, and under a new epoch. Until then no reader
sees any of it, and a load that was cut is finished by the next one.
"""

import contextlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import mongoengine as me
from pymongo import ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.errors import BulkWriteError

from content import archivechecks as checks
from content import archivefiles as files
from content import checking, courses, demands, divisions, importing, languages, media, objects, packs, publishing, store
from content.archivefiles import HASH, Entry, Manifest, Progress, line, silent, wrong
from content.bookings import Booking
from content.courses import CourseSession
from content.failures import Conflict, Failure, Invalid, NotFound, invalid
from content.lessons import Lesson
from content.media import Media
from content.published import ANY, Counter, Item, PublishedRow, canonical, new_epoch
from content.publishing import Publishable, Stand, Version
from content.records import SYSTEM, Audit, Record
from content.settings import Settings
from content.staff import Organisation

# Every collection stands in one of the two tables (a test compares). Carried are written in this order: what is named comes
# before what names it.
CARRIED: Mapping[str, str] = {
    "organisations": "names of offices; what is taught belongs to them",
    "media": "accepted files, with the objects; uploads on their way have neither been looked at nor used",
    "lessons": "working copies and where each edition stands",
    "checks": "self-checks with their register",
    "paths": "lessons in an order",
    "services": "the help directory, without the name of who checked an entry",
    "lecturers": "the expert library, without how a lecturer is reached",
    "series": "courses",
    "course_sessions": "dates and places, without the link for those booked; the number of seats taken stays, since those "
    "families come",
    "season_dates": "confirmed local dates",
    "notice_templates": "divisions' own texts for season notices, with their versions",
    "demands": "what is asked for, with its answer; families are a number in it",
    "tasks": "what is offered without being asked for",
    "coverage_targets": "what staff say that the plan asks",
    "versions": "what was ever published, for roll-backs",
    "published": "what readers see, and tombstones",
}
LEFT: Mapping[str, str] = {
    "accounts": "people, their passwords and second factors; another store has its own",
    "staff_sessions": "tokens",
    "staff_failures": "failed sign-ins",
    "results": "the students' own, sealed under receipts and a key that stays here; they go by themselves within half a year",
    "bookings": "families' names and telephones, sealed with a key that stays here",
    "places": "of those bookings",
    "checkins": "of those places; the sums stand on the sessions",
    "feedback": "sums of what families of this district said to its organisers",
    "feedback_waiting": "answers that are not told, and comments sealed with a key that stays here; gone with the bookings",
    "volunteers": "people who offer to help here, sealed with a key that stays here",
    "volunteer_hours": "what people of this district gave",
    "slots": "times of people who work here, some of them taken",
    "appointments": "who took them, sealed with a key that stays here",
    "nonces": "keyed hashes of what was counted today, gone at midnight",
    "tallies": "sealed sums of weeks that are not released, with a key that stays here",
    "demand_seconds": "keyed hashes of the nonces of families who seconded today, gone at midnight",
    "suggestions": "what families said to staff, sealed with a key that stays here, for half a year",
    "replays": "answers kept for a repeated request, for a day",
    "audit": "who did what: people's work, and true of this store only",
    "comments": "talk between colleagues of this store about drafts",
    "previews": "rights to look at a draft, for some hours",
    "notices": "news of its day: sent from two stores it would reach families twice",
    "told": "which topics were pushed to today, gone in three days",
    "push_gate": "who sends at this moment",
    "campaign_stops": "what this store's staff stopped, of notices that stay here",
    "season_asks": "which dates this store's staff were asked for",
    "push_sweeps": "how far the pushes to bookings came",
    "push_rounds": "the same, of what is told to all of a session",
    "releases": "numbers of this district's own weeks",
    "rounds": "samples of this district, whose codes open nothing elsewhere",
    "codes": "unused codes of rounds, as keyed hashes",
    "counters": "of this store; the published sequence goes along in the manifest",
}
# of published rows; all others belong to a record that is carried
KINDS_LEFT: Mapping[str, str] = {
    "notice": "as the notices",
    "slots": "as the slots",
    "pack": "built anew from what is published, signed with a key that stays here",
}
KINDS_MADE = frozenset({"media", "session", "invited_session", "season", "demand", "task"})  # always as their record now is
KINDS = KINDS_MADE | {"lesson", "path", "check", "service", "series", "invited_series", "lecturer"}
MATCH: Mapping[str, dict[str, Any]] = {
    "media": {"state": "accepted"},
    "published": {"kind": {"$nin": sorted(KINDS_LEFT)}},
}
# personal by the trail's measure, which forgets nothing, and taught all the same
TAUGHT: Mapping[str, frozenset[str]] = {"lecturers": frozenset({"name", "profile"})}
TRIES = 5  # readings of a store that is being written to
BATCH = (200, 2**21)  # documents and bytes of a write: a fraction of the seconds that it may take
LIBRARY, LINES, ARCHIVE = "library", "library.lines", "archive:"  # counters; the last with the digest of an archive


T = TypeVar("T")


def carried() -> Iterator[tuple[str, type[store.Row]]]:
    """(collection, class) in the order of writing."""
    known = {cls._get_collection_name(): cls for cls in store.collections()}
    for name in CARRIED:
        if name not in known:  # a caller that forgot an import would write an archive without these records
            raise RuntimeError(f"the class of {name} has not been imported")
        yield name, known[name]


def _published_kinds() -> dict[str, type[Publishable]]:
    return {cls.NAME: cls for _, cls in carried() if issubclass(cls, Publishable)}


# --- out -------------------------------------------------------------------------------------------------------------


def export(settings: Settings, path: Path, progress: Progress = silent) -> dict[str, int]:
    """Write the archive of this store to the folder `path`, whole or not at all; returns how many of what.

    Replaces an empty folder or an archive of ours; raises `Conflict("archive_folder")` for anything else. Everything is read
    at one published sequence; while staff write it is read again, TRIES times, then `Conflict("archive_busy")`. Raises
    `Invalid` when the store itself is damaged, so that no archive is made that could not be loaded; `Unavailable`.
    """
    with files.beside(path.resolve()) as part:
        sequence, counts, entries = _records(part, progress)
        named = sorted(_objects(part, entries))
        for done, sha256 in enumerate(named):
            progress("media", done, len(named))
            name = f"media/{sha256}"
            try:
                entries[name] = files.write(part, name, objects.get(settings, name))
            except NotFound:
                raise wrong(name, "库中没有 not in the store") from None
            if entries[name].sha256 != sha256:
                raise wrong(name, "库中的已损坏 damaged in the store")
        progress("media", len(named), len(named))
        try:
            version = importlib.metadata.version("xinqiao")
        except importlib.metadata.PackageNotFoundError:  # the image runs from its folder
            version = "unknown"
        made_at, kid = store.now().isoformat(timespec="seconds"), packs.public_key(settings)["kid"]
        manifest = Manifest(made_at, version, sequence, counts, entries, kid)
        _look_through(part, manifest, progress)
        (part / files.MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return _counts(manifest)


def _counts(manifest: Manifest) -> dict[str, int]:
    media = [entry.bytes for name, entry in manifest.files.items() if name.startswith("media/")]
    texts = sum(name.startswith("lessons/") for name in manifest.files)
    return {**manifest.counts, "lesson files": texts, "media files": len(media), "media bytes": sum(media)}


def _mark() -> tuple[dict[str, Any] | None, int]:
    """Moves with everything that staff write: each write of theirs leaves a line in the trail."""
    return Counter.rows().find_one({"_id": "published"}), Audit.rows().estimated_document_count()


def _records(part: Path, progress: Progress) -> tuple[int, dict[str, int], dict[str, Entry]]:
    """Write `records/` and `lessons/`; returns (published sequence, documents by collection, files)."""
    for _ in range(TRIES):
        before = _mark()
        counts: dict[str, int] = {}
        entries: dict[str, Entry] = {}
        for done, (name, cls) in enumerate(carried()):
            progress("records", done, len(CARRIED))
            entries[files.record(name)] = files.write(part, files.record(name), _lines(part, name, cls, counts, entries))
        progress("records", len(CARRIED), len(CARRIED))
        newest = list(PublishedRow.rows().find(MATCH["published"], {"seq": 1}).sort("seq", -1).limit(1))
        if _mark() == before:
            # of the rows that leave: the counter also moves with those that do not
            return (newest[0]["seq"] if newest else 0), counts, entries
        for name in entries:  # what is gone meanwhile must not stay in the folder
            (part / name).unlink()
    raise Conflict("archive_busy", times=TRIES)


def _lines(part: Path, name: str, cls: type[store.Row], counts: dict[str, int], entries: dict[str, Entry]) -> Iterator[bytes]:
    """A collection's documents, counted; of lessons also the files for people, written."""
    left = cls.PERSONAL - TAUGHT.get(name, frozenset()) if issubclass(cls, Record) else frozenset()
    counts[name] = 0
    for raw in cls.rows().find(MATCH.get(name, {})).sort("_id", 1):
        counts[name] += 1
        yield line({k: v for k, v in raw.items() if k not in left})
        if cls is Lesson:
            for title, text in importing.write(Lesson.of(raw)):
                entries[f"lessons/{title}"] = files.write(part, f"lessons/{title}", [text.encode()])


def _objects(root: Path, entries: Mapping[str, Entry]) -> set[str]:
    """SHA-256 of every object that the archive's media name."""
    rows = files.documents(root, "media", entries[files.record("media")])
    return {sha256 for _, _, raw in rows for sha256 in Media.of(raw).files()}


# --- looking through -------------------------------------------------------------------------------------------------


What = tuple[str, str, str]  # kind, key, language


@dataclass
class _Seen:
    """What the documents of an archive name and are named by."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    """By collection."""
    unique: set[tuple[Any, ...]] = field(default_factory=set)
    """What an index has once only."""
    stands: dict[What, dict[str, Any]] = field(default_factory=dict)
    """The stored stand of each edition that readers see."""
    made: dict[tuple[str, str, Any], tuple[str, int]] = field(default_factory=dict)
    """(kind, key, id) of a published row that is made from its record -> collection, and the record's place in its file."""
    versions: dict[str, tuple[What, int]] = field(default_factory=dict)
    """Name -> of what, and its place in the file."""
    files: set[str] = field(default_factory=set)
    """SHA-256 of the objects of all media."""


def verify(path: Path, progress: Progress = silent) -> Manifest:
    """Look through a whole archive: every file against the manifest, every document against its collection, every name
    against what it names. Writes nothing. Raises `Invalid` with the first fault: the file, its line, the reason."""
    return _verified(path.resolve(), progress)[0]


def _verified(root: Path, progress: Progress) -> tuple[Manifest, _Seen]:
    manifest = files.manifest(root)
    files.check_files(root, manifest, progress)
    return manifest, _look_through(root, manifest, progress)


def _look_through(root: Path, manifest: Manifest, progress: Progress) -> _Seen:
    if strange := sorted(manifest.counts.keys() - CARRIED):
        raise wrong(files.record(strange[0]), "此版本没有这类记录 no collection of this release")
    seen, total, done = _Seen(), sum(manifest.counts.values()), 0
    for name, cls in carried():
        seen.ids[name] = set()
        for where, offset, raw in _documents(root, manifest, name):
            if done % 100 == 0:
                progress("look through", done, total)
            done += 1
            _fits(cls, raw, where)
            _sound(where, checks.record, cls, raw)
            _alone(seen, name, cls, raw, where)
            _refers(seen, cls, raw, where, offset)
        if len(seen.ids[name]) != manifest.counts.get(name, 0):
            raise wrong(files.record(name), "条数与清单不符 not as many as the manifest says")
    stand = {what: seen.versions.get(one["version"], (None,))[0] for what, one in seen.stands.items()}
    if lost := sorted(what for what, found in stand.items() if found != what):
        raise wrong(files.record("versions"), f"缺少读者所见的版本 without the version that readers see: {' '.join(lost[0])}")
    live = {(raw["kind"], raw["key"], raw["language"]) for raw in _published(root, manifest, seen) if raw["content"] is not None}
    if lost := sorted(seen.stands.keys() - live):
        raise wrong(files.record("published"), f"缺少 without {' '.join(lost[0])}")
    here = {name.removeprefix("media/") for name in manifest.files if name.startswith("media/")}
    if odd := here ^ seen.files:
        raise wrong(f"media/{min(odd)}", "与媒体记录不符 not what the media records name")
    progress("look through", total, total)
    return seen


def _documents(root: Path, manifest: Manifest, collection: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Of a collection that an older release did not have, none."""
    if collection in manifest.counts:
        yield from files.documents(root, collection, manifest.files[files.record(collection)])


def _bson(value: Any) -> str:
    """Its type as `store.schema` names it."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "bool"), (str, "string"), (int, "int"), (float, "double"), (datetime, "date"), (list, "array"), (dict, "object"),
    )  # fmt: skip
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _fits(cls: type[store.Row], raw: dict[str, Any], where: str) -> None:
    """Raises `Invalid` unless the collection's validator would take it, and its class all that is inside."""
    schema = store.schema(cls)
    if absent := [name for name in schema.get("required", []) if name not in raw]:
        raise wrong(where, f"缺少 without {absent[0]}")
    for name, value in raw.items():
        if name not in schema["properties"]:
            raise wrong(where, f"没有这一项 no such field: {name[:40]!a}")
        kinds = schema["properties"][name].get("bsonType")
        if kinds and _bson(value) not in ([kinds] if isinstance(kinds, str) else kinds):
            raise wrong(where, f"类型不对 wrong type: {name}")
    try:
        cls.of(raw).validate()
    except (me.errors.ValidationError, me.errors.InvalidDocumentError, me.errors.FieldDoesNotExist) as error:
        raise wrong(where, f"不合规 not valid: {ascii(str(error))[1:200]}") from None
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise wrong(where, f"不合规 not valid: {type(error).__name__}") from None
    if issubclass(cls, Publishable):
        try:
            checking.slug(raw["slug"])
        except Invalid:
            raise wrong(where, "slug") from None
        for edition in {*raw.get("stands", {}), *raw.get("texts", {})} - {ANY}:
            if _edition(edition) != edition:
                raise wrong(where, f"不是语言标记 no tag of a language: {edition[:40]!a}")
    if cls is Media and not all(HASH.fullmatch(sha256) for sha256 in Media.of(raw).files() or [""]):
        raise wrong(where, "sha256")


def _sound(where: str, check: Callable[..., T], *given: Any) -> T:
    """What the check gives; whatever it raises, for a value that it never meets otherwise too, is a fault of the document."""
    try:
        return check(*given)
    except Invalid as refused:
        first = refused.errors[0]
        raise wrong(where, f"{first.field}: {first.messages['zh-Hans']} {first.messages['en']}"[:300]) from None
    except (me.errors.ValidationError, me.errors.FieldDoesNotExist, me.errors.InvalidDocumentError) as error:
        raise wrong(where, f"不合规 not valid: {ascii(str(error))[1:200]}") from None
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError, Failure) as error:
        raise wrong(where, f"不合规 not valid: {type(error).__name__}") from None


def _made(cls: type[store.Row], raw: dict[str, Any]) -> Item | None:
    """What readers see of a record that they always see as it now is; None of any other."""
    if cls is Media:
        return media.item(Media.of(raw))
    if cls is CourseSession:
        return courses.session_item(CourseSession.of(raw))
    if issubclass(cls, demands.Listed):
        return demands.item(cls.of(raw))
    if hasattr(cls, "override"):  # a confirmed date, whose class lies above this room
        found = cls.of(raw)
        found.override()
        if found.division and not divisions.known(found.division):
            raise invalid("division", "unknown_reference", value=found.division)
        return found.item()  # type: ignore[no-any-return]
    return None


def _edition(tag: str) -> str:
    try:
        return languages.edition(tag)
    except Invalid:
        return ""


def _alone(seen: _Seen, name: str, cls: type[store.Row], raw: dict[str, Any], where: str) -> None:
    """Raises `Invalid` for an id, or what a unique index has, that came before."""
    if raw["_id"] in seen.ids[name]:
        raise wrong(where, f"重复 twice: _id {raw['_id'][:80]!a}")
    seen.ids[name].add(raw["_id"])
    for index in cls._meta.get("indexes", []):
        if index.get("unique"):
            value = (name, *(canonical(raw.get(part)) for part in index["fields"]))
            if value in seen.unique:
                raise wrong(where, f"重复 twice: {', '.join(index['fields'])}")
            seen.unique.add(value)


def _refers(seen: _Seen, cls: type[store.Row], raw: dict[str, Any], where: str, offset: int) -> None:
    """Raises `Invalid` for a name of what is not there; keeps what later documents name."""
    if item := _sound(where, _made, cls, raw):
        seen.made[item.kind, item.key, (item.content or {}).get("id")] = cls._get_collection_name(), offset
    if (owner := raw.get("organisation")) and owner not in seen.ids["organisations"]:
        raise wrong(where, f"引用不存在 no such organisation: {owner[:80]!a}")
    if lost := [school for school in raw.get("paired_schools", []) if school not in seen.ids["organisations"]]:
        raise wrong(where, f"引用不存在 no such organisation: {str(lost[0])[:80]!a}")
    if issubclass(cls, Publishable):
        for language, stand in raw.get("stands", {}).items():
            if stand.get("version"):
                seen.stands[cls.NAME, raw["slug"], language] = stand
    elif cls is Media:
        seen.files |= set(Media.of(raw).files())
    elif cls is CourseSession and raw["series"] not in seen.ids["series"]:
        raise wrong(where, f"引用不存在 no such series: {raw['series'][:80]!a}")
    elif cls is Version:
        what = (raw["kind"], raw["key"], raw["language"])
        content = _json(raw["content"], where)
        if raw["_id"] != publishing.name_of(*what, content):
            raise wrong(where, "名称与内容的 SHA-256 不符 not named by the SHA-256 of its content")
        _sound(where, checks.version, *what, content)
        if raw.get("media", []) != content.get("media", []):
            raise wrong(where, "media")
        seen.versions[raw["_id"]] = what, offset


def _json(text: str, where: str) -> dict[str, Any]:
    """The map of a canonical JSON text. Raises `Invalid`."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and canonical(value) == text:
            return value
    except (ValueError, RecursionError):
        pass
    raise wrong(where, "content 不是规范 JSON not canonical JSON")


def _published(root: Path, manifest: Manifest, seen: _Seen) -> Iterator[dict[str, Any]]:
    """The published rows as they are to be stored. What has versions is made anew from the one that its stand names, as
    publishing makes it, and what follows its record from that: so no archive brings HTML of its own, and one of an older
    release reads as this one writes. Raises `Invalid`."""
    kinds, classes = _published_kinds(), dict(carried())
    if not manifest.counts.get("published"):
        return
    with contextlib.ExitStack() as stack:
        sources = {name: stack.enter_context(files.opened(root, files.record(name))) for name in manifest.counts}
        for where, _, raw in _documents(root, manifest, "published"):
            what = (raw["kind"], raw["key"], raw["language"])
            if raw["_id"] != ":".join(what) or raw["kind"] not in KINDS or not 0 < raw["seq"] <= manifest.sequence:
                raise wrong(where, "_id, kind, seq")
            if raw.get("content") is not None:
                content = _json(raw["content"], where)
                named = content.get("media")
                shown = [what[1]] if what[0] == "media" else named if isinstance(named, list) else []
                if lost := [one for one in shown if one not in seen.files and one not in seen.ids["media"]]:
                    raise wrong(where, f"引用不存在 no such media: {str(lost[0])[:80]!a}")
                if what[0] in kinds:
                    if what not in seen.stands:
                        raise wrong(where, "没有公开的版本 no version of it is public")
                    stand = Stand._from_son(seen.stands[what])
                    version = files.document_at(sources["versions"], seen.versions[stand.version][1], where)
                    try:
                        item = publishing.item(kinds[what[0]], what[1], what[2], stand, json.loads(version["content"]))
                    except (KeyError, TypeError, ValueError, AttributeError) as error:
                        raise wrong(where, f"版本不完整 its version is not whole: {type(error).__name__}") from None
                    raw["content"] = canonical(item.content)
                elif what[0] in KINDS_MADE:
                    place = seen.made.get((what[0], what[1], content.get("id")))
                    if place is None or what[2] != ANY:
                        raise wrong(where, f"没有这条记录 no such record: {what[1][:80]!a}")
                    made = _made(classes[place[0]], files.document_at(sources[place[0]], place[1], where))
                    raw["content"] = canonical(made.content if made else None)
                elif what[2] != ANY:
                    raise wrong(where, "language")
                else:
                    _sound(where, checks.row, what[0], what[1], content)
            yield raw


# --- in --------------------------------------------------------------------------------------------------------------


class Loaded(NamedTuple):
    """What `load` did, or with `dry_run` would do."""

    counts: dict[str, int]
    state: str
    """Of the store before: "new"; "library" (the starter library, which nobody had changed, is replaced); "again" (a load of
    this archive was cut and is finished); "done" (this archive is here already: nothing is written)."""


def load(settings: Settings, path: Path, progress: Progress = silent, dry_run: bool = False) -> Loaded:
    """Put a whole archive into a store that holds nothing taught yet, accounts and organisations apart.

    Raises `Invalid` for an archive with any fault and `Conflict("archive_store")` for a store that is not empty, both before
    anything is written; `Unavailable`. A load that was cut shows readers nothing; the next one finishes it.
    """
    root = path.resolve()
    if not root.is_dir():
        raise NotFound(what=str(path))
    manifest, seen = _verified(root, progress)
    state = _state(manifest.digest, root, manifest)
    if dry_run or state == "done":
        return Loaded(_counts(manifest), state)
    store.ensure_indexes()
    objects.ensure_bucket(settings)
    store.transaction(lambda session: _begin(session, root, manifest))
    _put_objects(settings, root, manifest, progress)
    done, total = 0, sum(manifest.counts.values())
    for name, cls in carried():
        rows = (raw for _, _, raw in _documents(root, manifest, name))
        for batch in _batches(_published(root, manifest, seen) if cls is PublishedRow else rows):
            _write(cls, batch)
            done += len(batch)
            progress("records", done, total)
    store.transaction(lambda session: _finish(session, manifest))
    return Loaded(_counts(manifest), state)


def running(session: ClientSession | None = None) -> bool:
    """Whether a load was begun and not finished: what the clock would do to half of it must wait."""
    return Counter.rows().find_one({"_id": {"$gte": ARCHIVE, "$lt": ARCHIVE + "~"}, "value": 0}, session=session) is not None


def remember_library() -> None:
    """Say that the starter library is the only thing ever written here, so that `load` can tell whether it still is."""
    Counter.rows().replace_one({"_id": LINES}, {"value": lines()}, upsert=True)


def lines(session: ClientSession | None = None, most: int = 10**6, **more: Any) -> int:
    """How many writes the trail knows of what is taught, counted up to `most`. Every write has its line, in the same
    transaction."""
    kinds = [cls.NAME for _, cls in carried() if issubclass(cls, Record) and cls is not Organisation]
    return int(Audit.rows().count_documents({"kind": {"$in": kinds}, **more}, session=session, limit=most))


def _state(digest: str, root: Path, manifest: Manifest, session: ClientSession | None = None) -> str:
    """See `Loaded.state`. Raises `Conflict("archive_store")` naming what is in the way."""

    def refused(found: str) -> Conflict:
        return Conflict("archive_store", found=found)

    mine = Counter.rows().find_one({"_id": ARCHIVE + digest}, session=session)
    if mine:
        return "done" if mine["value"] else "again"
    if running(session):
        raise refused("另一份导入到一半的存档 half of another archive")
    counters = {raw["_id"]: raw["value"] for raw in Counter.rows().find({}, session=session)}
    if counters.get(LIBRARY) == 0:
        raise refused("正在载入的起步内容库 the starter library, still being loaded")
    for _, _, raw in _documents(root, manifest, "organisations"):
        match = {"division": raw["division"], "name": raw["name"], "_id": {"$ne": raw["_id"]}}
        if Organisation.rows().find_one(match, session=session):
            raise refused(f"另一编号的同名机构 an organisation of the same name under another id, {raw['name']}")
    there = [name for name, cls in carried() if cls is not Organisation and cls.rows().find_one({}, {"_id": 1}, session=session)]
    if not there:
        return "new"
    untouched = (
        LINES in counters
        and lines(session, counters[LINES] + 1) == counters[LINES]
        and not lines(session, 1, actor={"$ne": SYSTEM})
        and not Booking.rows().find_one({}, session=session)
        and not PublishedRow.rows().find_one({"kind": "notice"}, session=session)
    )
    if not untouched:
        raise refused(", ".join(there))
    return "library"


def _begin(session: ClientSession, root: Path, manifest: Manifest) -> None:
    """Mark the load as begun; in the same transaction the starter library goes, whose readers then see nothing until the end."""
    state = _state(manifest.digest, root, manifest, session)
    if state == "library":
        for _, cls in carried():
            if cls is not Organisation:
                cls.rows().delete_many({}, session=session)
        Counter.rows().delete_one({"_id": "published"}, session=session)
        Counter.rows().delete_one({"_id": LINES}, session=session)
    if state in {"new", "library"}:
        Counter.rows().replace_one({"_id": LIBRARY}, {"value": 1}, upsert=True, session=session)  # not to be loaded any more
        Counter.rows().replace_one({"_id": ARCHIVE + manifest.digest}, {"value": 0}, upsert=True, session=session)


def _finish(session: ClientSession, manifest: Manifest) -> None:
    """Let readers see it. The epoch is a new one: no phone goes on from a cursor of the other store."""
    present = Counter.rows().find_one({"_id": "published"}, session=session) or {"value": 0}
    # what staff have published here meanwhile keeps its numbers
    counter = {"value": max(manifest.sequence, present["value"]), "epoch": new_epoch()}
    Counter.rows().replace_one({"_id": "published"}, counter, upsert=True, session=session)
    PublishedRow.rows().delete_many({"kind": "pack"}, session=session)  # of what was here before; the worker builds new ones
    Counter.rows().replace_one({"_id": ARCHIVE + manifest.digest}, {"value": 1}, upsert=True, session=session)
    trace = {
        "_id": store.new_id(), "at": store.now(), "actor": SYSTEM, "action": "archive.load", "kind": "archive",
        "key": manifest.digest, "before": {}, "after": dict(manifest.counts), "note": manifest.made_at,
    }  # fmt: skip
    Audit.rows().insert_one(trace, session=session)


def _put_objects(settings: Settings, root: Path, manifest: Manifest, progress: Progress) -> None:
    """S3 compares each hash as it writes. What is there already, under the name of its hash, is left."""
    types: dict[str, str] = {}
    for _, _, raw in _documents(root, manifest, "media"):
        record = Media.of(raw)
        types |= {record.sha256: record.content_type} | {one.sha256: one.content_type for one in record.renditions}
    for done, (sha256, content_type) in enumerate(sorted(types.items())):
        progress("media", done, len(types))
        name = f"media/{sha256}"
        present = objects.head(settings, name)
        if present is None or present.size != manifest.files[name].bytes:
            with files.opened(root, name) as file:
                shown = media.disposition(sha256, content_type)
                objects.put(settings, name, file, content_type, sha256=bytes.fromhex(sha256), disposition=shown)
    progress("media", len(types), len(types))


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for raw in rows:
        batch.append(raw)
        size += len(line(raw))
        if len(batch) >= BATCH[0] or size >= BATCH[1]:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(cls: type[store.Row], batch: list[dict[str, Any]]) -> None:
    """A second time it writes the same. No transaction: one whose process is killed keeps its rows locked for a minute, and
    would keep the next load from finishing."""
    try:
        cls.rows().bulk_write([ReplaceOne({"_id": raw["_id"]}, raw, upsert=True) for raw in batch], ordered=False)
    except BulkWriteError as error:  # somebody has made one of the same name since the load began
        first = (error.details.get("writeErrors") or [{}])[0]
        raise Conflict("exists", what=str(first.get("keyValue") or first.get("errmsg", "?"))[:200]) from None

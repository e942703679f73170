"""Media: pictures, sound, film, documents and captions; the records, and the way from an upload to what readers see.

An upload is announced (`begin_upload`), goes straight to S3 into `quarantine/` by a signed form that fixes its key, type and
size (or in parts, each by a signed address that fixes number and size), and is then accepted: `accept` fetches it once into a
private file, looks through it (`content.inspection`), and writes what it looked at, never the quarantined object, to
`media/<sha256>`. So whatever happens in quarantine after the check cannot matter. Objects under `media/` never change; each is
named by the SHA-256 of its own bytes, renditions too. Those of films and sound are made afterwards (`content.films`).
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import mongoengine as me
from pymongo.client_session import ClientSession

from content import inspection, languages, objects, published, records, store
from content.failures import Conflict, FieldError, Invalid, NotFound, Stale, Text, Unavailable, invalid
from content.inspection import TYPES, Clean
from content.published import ANY, Item, Name, PublishedRow
from content.records import SYSTEM, Record
from content.settings import Settings

KINDS = ("image", "audio", "video", "document", "captions")
STATES = ("waiting", "accepted", "refused", "removed")
QUARANTINE = timedelta(hours=24)  # promise 18
PART = 5 * 2**20  # bytes; the smallest that S3 takes, so that a line that breaks loses least
TRANSCRIPT = 200_000  # characters
# what has become of the renditions of a film or of sound
RENDITIONS: Mapping[str, Text] = {
    "none": Text("这类文件没有转码版本。", "Files of this kind are not rendered."),
    "waiting": Text("正在排队生成封面、小尺寸和纯音频版本。", "Poster, small and sound-only versions are still being made."),
    "done": Text("各版本已生成。", "All versions are made."),
    "failed": Text(
        "无法生成小尺寸版本，手机将读取原文件。建议重新导出为 H.264 的 MP4 再上传。",
        "No smaller versions could be made; phones read the original. Export it again as MP4 with H.264.",
    ),
    "no_ffmpeg": Text(
        "服务器没有安装 ffmpeg，手机将读取原文件；安装后会自动补做。",
        "ffmpeg is not installed, so phones read the original; once it is, the versions are made.",
    ),
}


class Rendition(me.EmbeddedDocument):  # type: ignore[misc]
    """A smaller version of the same."""

    name = me.StringField(default="")
    """poster, small or audio of a film or sound; "" for a picture, which is told by its width."""
    sha256 = me.StringField(required=True)
    """Its own; the object is `media/<sha256>`."""
    content_type = me.StringField(required=True)
    bytes = me.IntField(required=True)
    width = me.IntField()
    """Pixels; absent for sound."""
    height = me.IntField()


class Media(Record):
    """One uploaded file and what became of it."""

    NAME: ClassVar[str] = "media"

    organisation = me.StringField(default="")
    """Owner; "" = the service."""
    kind = me.StringField(required=True, choices=KINDS)
    content_type = me.StringField(required=True)
    """As announced; once accepted, of the stored original (a GIF is kept as PNG)."""
    bytes = me.IntField(required=True)
    """As announced; once accepted, of the stored original."""
    state = me.StringField(required=True, choices=STATES, default="waiting")
    title = me.StringField(default="")
    alt = me.MapField(me.StringField())
    """What it shows or says, by language, for those who cannot see or hear it."""
    captions = me.MapField(me.StringField())
    """Of a film or sound: SHA-256 of an accepted text/vtt, by language."""
    transcript = me.MapField(me.StringField())
    """Of a film or sound: all that is said and shown, as plain text, by language."""
    uses = me.ListField(me.StringField())
    """Hashes of the captions; derived at each write, for the reference check."""
    sha256 = me.StringField()
    """Of the stored original, which is not the uploaded one where that had to be cleaned."""
    width = me.IntField()
    height = me.IntField()
    silent = me.BooleanField(default=False)
    """A film without a sound track."""
    renditions = me.EmbeddedDocumentListField(Rendition)
    renditions_state = me.StringField(required=True, choices=tuple(RENDITIONS), default="none")
    render_at = me.DateTimeField()
    """While renditions are due: from when on a worker may take them up; each taking moves it into the future."""
    render_tries = me.IntField(default=0)
    upload = me.StringField()
    """S3's id of an upload in parts."""
    refusal = me.StringField()
    """Why it was refused: a code of `failures.TEXTS`."""
    refusal_params = me.MapField(me.StringField())

    meta: ClassVar[dict[str, Any]] = {
        "collection": "media",
        "indexes": [
            {"fields": ["sha256"]},
            {"fields": ["renditions.sha256"]},
            {"fields": ["-created_at", "-_id"]},
            {"fields": ["uses"]},
            {"fields": ["renditions_state", "render_at"]},
        ],
    }

    def files(self) -> list[str]:
        """SHA-256 of each stored object: the original, then the renditions."""
        return [self.sha256, *(r.sha256 for r in self.renditions)] if self.sha256 else []


# --- upload and check ------------------------------------------------------------------------------------------------


def begin_upload(
    settings: Settings,
    content_type: str,
    size: int,
    by: str,
    *,
    title: str = "",
    alt: dict[str, str] | None = None,
    organisation: str = "",
    resumable: bool = False,
) -> dict[str, Any]:
    """Announce a file of exactly `size` bytes and `content_type`. Returns {id, url, fields, expires_in}: post `fields` and
    then the file, as `file`, as multipart/form-data to `url` within `expires_in` seconds; S3 takes no other type or size.

    With `resumable` {id, part_size, parts, expires_in} instead: PUT each of `parts` {number, url, size}, in any order, several
    at once, again if need be; `missing_parts` tells what is still to be sent, until QUARANTINE is over.

    Raises `Invalid` for a type that is not in `inspection.TYPES` (SVG and HTML are in no case) or a size beyond its limit.
    """
    found = TYPES.get(content_type)
    if found is None:
        raise invalid("content_type", "not_one_of", choices=", ".join(TYPES))
    if not 0 < size <= found.limit:
        raise invalid("size", "out_of_range", reason=f"1-{found.limit} bytes ({content_type})")
    media = Media(organisation=organisation, kind=found.kind, content_type=content_type, bytes=size, title=title, alt=alt or {})
    if resumable:
        media.upload = objects.begin(settings, f"quarantine/{media.id}", content_type)
    media = records.create(media, by)
    if resumable:
        parts = _addresses(settings, media, _plan(size))
        return {"id": media.id, "part_size": PART, "parts": parts, "expires_in": objects.UPLOAD}
    form = objects.form(settings, f"quarantine/{media.id}", content_type, size)
    return {"id": media.id, **form, "expires_in": objects.UPLOAD}


def _plan(size: int) -> dict[int, int]:
    """Part number -> its bytes."""
    return {at // PART + 1: min(PART, size - at) for at in range(0, size, PART)}


def _addresses(settings: Settings, media: Media, sizes: Mapping[int, int]) -> list[dict[str, Any]]:
    key = f"quarantine/{media.id}"
    return [
        {"number": number, "size": size, "url": objects.part_address(settings, key, media.upload, number, size)}
        for number, size in sizes.items()
    ]


def missing_parts(settings: Settings, media_id: str) -> dict[str, Any]:
    """{id, part_size, received, parts, expires_in}: the numbers of the parts that S3 has, and {number, url, size} with fresh
    addresses of those that it has not, or has in another size. Raises `NotFound`, also when the upload is too old,
    `Conflict` when it is not an upload in parts that still waits, `Unavailable`."""
    media = find(media_id)
    if media.state != "waiting" or not media.upload:
        raise Conflict(state=media.state if media.upload else "form", action="resume")
    plan = _plan(media.bytes)
    try:
        there = {*_there(settings, media, plan)}
    except NotFound:
        if objects.head(settings, f"quarantine/{media.id}") is None:
            raise
        there = {*plan}  # joined, by an `accept` that was cut
    missing = {number: size for number, size in plan.items() if number not in there}
    return {
        "id": media.id, "part_size": PART, "received": sorted(there),
        "parts": _addresses(settings, media, missing), "expires_in": objects.UPLOAD,
    }  # fmt: skip


def _there(settings: Settings, media: Media, plan: Mapping[int, int]) -> dict[int, objects.Part]:
    """The parts that S3 has in the announced size. Raises `NotFound` when it knows nothing of the upload."""
    found = objects.parts(settings, f"quarantine/{media.id}", media.upload)
    return {part.number: part for part in found if part.size == plan.get(part.number)}


def _join(settings: Settings, media: Media) -> None:
    """Make one object of an upload in parts; a second call, and one for an upload by form, is a no-op. Raises
    `Conflict("upload_incomplete")`."""
    key, plan = f"quarantine/{media.id}", _plan(media.bytes)
    if not media.upload or objects.head(settings, key):
        return
    with contextlib.suppress(NotFound):  # too old, or joined by a concurrent call
        there = _there(settings, media, plan)
        if missing := [str(number) for number in plan if number not in there]:
            raise Conflict("upload_incomplete", missing=", ".join(missing[:20]))
        objects.join(settings, key, media.upload, [there[number] for number in plan])


def types(names: Collection[str]) -> dict[str, str]:
    """Hash → content type of those that are accepted."""
    rows = Media.rows().find({"sha256": {"$in": sorted(names)}, "state": "accepted"}, {"sha256": 1, "content_type": 1})
    return {row["sha256"]: row["content_type"] for row in rows}


def gaps(names: Collection[str], language: str) -> list[str]:
    """What is missing before these hashes may be published in this language, as readers would see them now: "media HASH" when
    it is not accepted, "media HASH captions LANGUAGE", "media HASH transcript LANGUAGE".

    WCAG 2.2, level A: recorded film with sound needs captions (1.2.2), film and sound alone need their text (1.2.1, 1.2.3). So
    a film needs both, one without a sound track and sound alone need the transcript; captions for sound may be given, but
    nobody is kept from anything without them. A transcript is also what a weak phone reads instead of the film.
    """
    rows = PublishedRow.rows().find({"_id": {"$in": [f"media:{name}:{ANY}" for name in names]}, "content": {"$ne": None}})
    found = {row["key"]: json.loads(row["content"]) for row in rows}
    result = []
    for name in sorted(names):
        if name not in found:
            result.append(f"media {name}")
        else:
            needed = _needed(found[name]["kind"], found[name].get("silent"))
            title = f" “{found[name]['title']}”" if found[name].get("title") else ""
            lacking = [part for part in needed if not (found[name].get(part) or {}).get(language)]
            result += [f"media {name}{title} {part} {language}" for part in lacking]
    return result


def _needed(kind: str, silent: bool) -> tuple[str, ...]:
    return {"video": ("transcript",) if silent else ("captions", "transcript"), "audio": ("transcript",)}.get(kind, ())


def find(media_id: str) -> Media:
    """The record. Raises `NotFound`."""
    raw = Media.rows().find_one({"_id": media_id})
    if raw is None:
        raise NotFound(what=media_id)
    return Media.of(raw)


def accept(settings: Settings, media_id: str, by: str) -> Media:
    """Check what was uploaded, write its clean form to `media/`, release it to readers, clear quarantine.

    A second call returns the same record, or raises the same refusal. Takes as long as reading the file twice and, for
    images, coding it up to four times (seconds). Raises `Conflict("upload_missing")` before the file is there,
    `Conflict("upload_incomplete")` naming parts that are not, `Conflict("upload_changed")` when it was replaced while being
    fetched, `Invalid("not_what_it_says")` when it is refused (the record is then `refused`, and nothing of it is under
    `media/`), `Unavailable`.
    """
    media = find(media_id)
    if media.state == "refused":
        raise _refusal(media.refusal, media.refusal_params)
    if media.state != "waiting":
        return _settled(media)
    with tempfile.TemporaryDirectory(prefix="xinqiao-") as name:
        folder = Path(name)
        try:
            _join(settings, media)
            upload = _fetch(settings, media, folder / "upload")
            if upload is None:
                return _settled(find(media_id))  # a concurrent call may just have finished
            found = inspection.inspect(upload, media.content_type, folder)
        except inspection.Refused as refused:
            reason = {"state": "refused", "refusal": refused.code, "refusal_params": refused.params}
            records.change(Media, media_id, by, "refuse", lambda now: reason if now.state == "waiting" else {}, note=refused.code)
            _clear(settings, media)
            raise _refusal(refused.code, refused.params) from None
        original = {**keep(settings, found.original), "silent": found.original.silent}
        renditions = [{**keep(settings, file), "name": ""} for file in found.renditions]
    later = {"renditions_state": "waiting", "render_at": store.now()} if media.kind in {"video", "audio"} else {}

    def decide(now: Media) -> dict[str, Any]:
        if now.state != "waiting":
            return {}
        return {**original, **later, "state": "accepted", "renditions": renditions, "upload": None}

    def also(session: ClientSession, now: Media) -> None:
        published.release(session, [item(now)])

    result = records.change(Media, media_id, by, "accept", decide, also=also)
    _clear(settings, media)
    return _settled(result)


def _settled(media: Media) -> Media:
    if media.state == "accepted":
        return media
    if media.state == "waiting":
        raise Conflict("upload_missing")
    raise Conflict(state=media.state, action="accept")


def _refusal(code: str, params: dict[str, str]) -> Invalid:
    return Invalid([FieldError("file", code, dict(params))], "not_what_it_says")


def _fetch(settings: Settings, media: Media, path: Path) -> Path | None:
    """The quarantined object as a private file; None when there is none. Raises `Refused` when it is not as announced."""
    key = f"quarantine/{media.id}"
    head = objects.head(settings, key)
    if head is None:
        return None
    if head.size != media.bytes or head.content_type != media.content_type:
        raise inspection.Refused("file_size")
    got = 0
    try:
        with path.open("wb") as file:
            for block in objects.get(settings, key, etag=head.etag):
                got += len(block)
                if got > media.bytes:
                    break
                file.write(block)
    except Stale:
        raise Conflict("upload_changed") from None
    except NotFound:
        return None
    if got != media.bytes:  # replaced in the middle of the answer
        raise Conflict("upload_changed")
    return path


def keep(settings: Settings, file: Clean) -> dict[str, Any]:
    """Write one checked file to `media/<sha256>`; returns what the record says of it. S3 compares the hash as it writes."""
    digest = hashlib.sha256()
    with file.path.open("rb") as content:
        while block := content.read(objects.BLOCK):
            digest.update(block)
        content.seek(0)
        objects.put(
            settings,
            f"media/{digest.hexdigest()}",
            content,
            file.content_type,
            sha256=digest.digest(),
            disposition=disposition(digest.hexdigest(), file.content_type),
        )
    return {
        "sha256": digest.hexdigest(), "content_type": file.content_type, "bytes": file.path.stat().st_size,
        "width": file.width, "height": file.height,
    }  # fmt: skip


def disposition(sha256: str, content_type: str) -> str:
    """The Content-Disposition of `media/<sha256>`: a document is saved, not opened inside the page's origin."""
    suffix = next((t.suffix for name, t in TYPES.items() if name == content_type), "bin")
    return f'{"attachment" if content_type == "application/pdf" else "inline"}; filename="{sha256[:16]}.{suffix}"'


def _clear(settings: Settings, media: Media) -> None:
    """Delete what is in quarantine, parts too; when S3 is away, `purge_quarantine` will."""
    with contextlib.suppress(Unavailable):
        if media.upload:
            objects.abort(settings, f"quarantine/{media.id}", media.upload)
        objects.delete(settings, f"quarantine/{media.id}")


def item(media: Media) -> Item:
    """What readers look up, by the hash of the stored original."""
    renditions = [{name: getattr(r, name) for name in Rendition._fields} for r in media.renditions]
    content = {
        "id": media.id, "sha256": media.sha256, "kind": media.kind, "content_type": media.content_type, "bytes": media.bytes,
        "width": media.width, "height": media.height, "title": media.title, "alt": dict(media.alt), "renditions": renditions,
        "silent": media.silent, "captions": dict(media.captions), "transcript": dict(media.transcript),
    }  # fmt: skip
    return Item("media", media.sha256, ANY, content)


# --- afterwards ------------------------------------------------------------------------------------------------------


def describe(media_id: str, by: str, fields: dict[str, Any], revision: int, shown_in: Collection[Name] = ()) -> Media:
    """Change `title`, `alt` ({language: text}), `captions` ({language: SHA-256 of an accepted text/vtt}) or `transcript`
    ({language: text}); maps are replaced whole, and readers see it at once. Raises `NotFound`, `Stale`, and `Invalid` naming
    the language: captions and transcripts are of films and sound, a transcript has at most TRANSCRIPT characters. `shown_in`
    are the published items that show it: what one of them needs in its language cannot be taken out, `Conflict("in_use")`."""
    wanted = {k: v for k, v in fields.items() if k in {"title", "alt", "captions", "transcript"}}
    for name in wanted.keys() & {"alt", "transcript"}:
        wanted[name] = {language: languages.clean(text) for language, text in wanted[name].items()}
    for language, text in wanted.get("transcript", {}).items():
        if not 0 < len(text) <= TRANSCRIPT:
            raise invalid(f"transcript.{language}", "out_of_range", reason=f"1-{TRANSCRIPT}")
    if "captions" in wanted:
        wanted["uses"] = sorted(set(wanted["captions"].values()))

    def decide(now: Media) -> dict[str, Any]:
        for name in ("captions", "transcript"):
            if wanted.get(name) and now.kind not in {"video", "audio"}:
                raise invalid(name, "unsupported", what=name, where=now.content_type, reason="video, audio")
        parts = [name for name in _needed(now.kind, now.silent) if name in wanted]
        lost = {language for name in parts for language in getattr(now, name).keys() - wanted[name].keys()}
        if uses := sorted(" ".join(one) for one in shown_in if languages.parts(one[2])[0] in lost):
            raise Conflict("in_use", what=", ".join(sorted(lost)), used_in=", ".join(uses[:10]))
        return wanted

    def also(session: ClientSession, media: Media) -> None:
        for language, sha256 in wanted.get("captions", {}).items():
            # written, not only looked at: a removal at the same moment then conflicts with it and looks again who uses the file
            match = {"sha256": sha256, "content_type": "text/vtt", "state": "accepted"}
            if not Media.rows().update_many(match, {"$set": {"updated_at": store.now()}}, session=session).matched_count:
                raise invalid(f"captions.{language}", "not_captions", what=sha256)
        if media.state == "accepted":
            published.release(session, [item(media)])

    return records.change(Media, media_id, by, "describe", decide, revision=revision, also=also)


def newest(state: str = "", kind: str = "", after: tuple[datetime, str] | None = None) -> Iterator[Media]:
    """Records newest first, those older than `after` (created_at, id). Empty filters do not filter."""
    match: dict[str, Any] = {k: v for k, v in {"state": state, "kind": kind}.items() if v}
    if after:
        match["$or"] = [{"created_at": {"$lt": after[0]}}, {"created_at": after[0], "_id": {"$lt": after[1]}}]
    return map(Media.of, Media.rows().find(match).sort([("created_at", -1), ("_id", -1)]))


def remove(settings: Settings, media_id: str, by: str, used_in: Callable[[str], list[str]], revision: int | None = None) -> None:
    """Take it from readers and delete its objects, those that no other record holds (the same file may be uploaded twice).

    `used_in(id or sha256)` names what refers to it: anything raises `Conflict("in_use")`, and so does a film that has it as
    captions. Raises `NotFound`, `Stale`,
    `Unavailable` (it is then withdrawn; call again to finish).
    """
    media = find(media_id)
    if media.state != "removed":

        def decide(now: Media) -> dict[str, Any]:
            uses = {*used_in(now.id)}
            if now.sha256 and not _twin(now, "sha256", now.sha256):
                uses |= {*used_in(now.sha256), *_films(now.sha256)}
            if uses:
                raise Conflict("in_use", what=now.title or now.id, used_in=", ".join(sorted(uses)[:10]))
            return {"state": "removed"}

        def also(session: ClientSession, now: Media) -> None:
            if now.sha256:
                twin = _twin(now, "sha256", now.sha256)
                published.release(session, [item(twin) if twin else Item("media", now.sha256, ANY, None)])

        media = records.change(Media, media_id, by, "withdraw", decide, revision=revision, also=also)
    drop(settings, media.files())
    _clear(settings, media)
    records.remove(Media, media_id, by, lambda _: None)


def drop(settings: Settings, hashes: Collection[str]) -> None:
    """Delete those of these objects that no accepted record holds. Raises `Unavailable`."""
    for sha256 in hashes:
        if not any(Media.rows().find_one({field: sha256, "state": "accepted"}) for field in ("sha256", "renditions.sha256")):
            objects.delete(settings, f"media/{sha256}")


def _films(sha256: str) -> Iterator[str]:
    """Films and sound that have this file as captions."""
    for raw in Media.rows().find({"uses": sha256}, {"title": 1}):
        yield f"media {raw.get('title') or raw['_id']}"


def _twin(media: Media, field: str, sha256: str) -> Media | None:
    """Another accepted record with this hash in `field`."""
    raw = Media.rows().find_one({field: sha256, "state": "accepted", "_id": {"$ne": media.id}})
    return Media.of(raw) if raw else None


def purge_quarantine(settings: Settings, now: datetime) -> int:
    """Delete quarantined objects, uploads in parts and waiting records older than QUARANTINE; returns how many of the first
    two. Raises `Unavailable`."""
    done = 0
    for row in objects.listing(settings, "quarantine/"):
        if row.last_modified <= now - QUARANTINE:
            objects.delete(settings, row.key)
            done += 1
    for one in objects.unfinished(settings, "quarantine/"):
        if one.begun <= now - QUARANTINE:
            objects.abort(settings, one.key, one.upload)
            done += 1
    for raw in Media.rows().find({"state": "waiting", "created_at": {"$lte": now - QUARANTINE}}, {"_id": 1}):
        with contextlib.suppress(NotFound, Conflict):  # accepted or removed in between
            records.remove(Media, raw["_id"], SYSTEM, _only_waiting)
    return done


def _only_waiting(media: Media) -> None:
    if media.state != "waiting":
        raise Conflict(state=media.state, action="purge")

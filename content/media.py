"""Media: pictures, sound, film, documents and captions; the records, and the way from an upload to what readers see.

An upload is announced (`begin_upload`), goes straight to S3 into `quarantine/` by a signed form that fixes its key, type and
size, and is then accepted: `accept` fetches it once into a private file, looks through it (`content.inspection`), and writes
what it looked at, never the quarantined object, to `media/<sha256>`. So whatever happens in quarantine after the check cannot
matter. Objects under `media/` never change; each is named by the SHA-256 of its own bytes, renditions too.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import mongoengine as me
from pymongo.client_session import ClientSession

from content import inspection, objects, published, records
from content.failures import Conflict, FieldError, Invalid, NotFound, Stale, Unavailable, invalid
from content.inspection import TYPES, Clean
from content.published import ANY, Item
from content.records import SYSTEM, Record
from content.settings import Settings

KINDS = ("image", "audio", "video", "document", "captions")
STATES = ("waiting", "accepted", "refused", "removed")
QUARANTINE = timedelta(hours=24)  # promise 18


class Rendition(me.EmbeddedDocument):  # type: ignore[misc]
    """A smaller picture of the same."""

    sha256 = me.StringField(required=True)
    """Its own; the object is `media/<sha256>`."""
    content_type = me.StringField(required=True)
    bytes = me.IntField(required=True)
    width = me.IntField(required=True)
    height = me.IntField(required=True)


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
    sha256 = me.StringField()
    """Of the stored original, which is not the uploaded one where that had to be cleaned."""
    width = me.IntField()
    height = me.IntField()
    renditions = me.EmbeddedDocumentListField(Rendition)
    refusal = me.StringField()
    """Why it was refused: a code of `failures.TEXTS`."""
    refusal_params = me.MapField(me.StringField())

    meta: ClassVar[dict[str, Any]] = {
        "collection": "media",
        "indexes": [{"fields": ["sha256"]}, {"fields": ["renditions.sha256"]}, {"fields": ["-created_at", "-_id"]}],
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
) -> dict[str, Any]:
    """Announce a file of exactly `size` bytes and `content_type`. Returns {id, url, fields, expires_in}: post `fields` and
    then the file, as `file`, as multipart/form-data to `url` within `expires_in` seconds; S3 takes no other type or size.

    Raises `Invalid` for a type that is not in `inspection.TYPES` (SVG and HTML are in no case) or a size beyond its limit.
    """
    found = TYPES.get(content_type)
    if found is None:
        raise invalid("content_type", "not_one_of", choices=", ".join(TYPES))
    if not 0 < size <= found.limit:
        raise invalid("size", "out_of_range", reason=f"1-{found.limit} bytes ({content_type})")
    media = records.create(
        Media(organisation=organisation, kind=found.kind, content_type=content_type, bytes=size, title=title, alt=alt or {}), by
    )
    form = objects.form(settings, f"quarantine/{media.id}", content_type, size)
    return {"id": media.id, **form, "expires_in": objects.UPLOAD}


def accepted(names: Collection[str]) -> set[str]:
    """Which of these hashes are accepted media."""
    if not names:
        return set()
    return {raw["sha256"] for raw in Media.rows().find({"sha256": {"$in": sorted(names)}, "state": "accepted"}, {"sha256": 1})}


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
    `Conflict("upload_changed")` when it was replaced while being fetched, `Invalid("not_what_it_says")` when it is refused
    (the record is then `refused`, and nothing of it is under `media/`), `Unavailable`.
    """
    media = find(media_id)
    if media.state == "refused":
        raise _refusal(media.refusal, media.refusal_params)
    if media.state != "waiting":
        return _settled(media)
    with tempfile.TemporaryDirectory(prefix="xinqiao-") as name:
        folder = Path(name)
        try:
            upload = _fetch(settings, media, folder / "upload")
            if upload is None:
                return _settled(find(media_id))  # a concurrent call may just have finished
            found = inspection.inspect(upload, media.content_type, folder)
        except inspection.Refused as refused:
            reason = {"state": "refused", "refusal": refused.code, "refusal_params": refused.params}
            records.change(Media, media_id, by, "refuse", lambda now: reason if now.state == "waiting" else {}, note=refused.code)
            _clear(settings, media_id)
            raise _refusal(refused.code, refused.params) from None
        original = _keep(settings, found.original, media.content_type)
        renditions = [_keep(settings, file, file.content_type) for file in found.renditions]

    def decide(now: Media) -> dict[str, Any]:
        if now.state != "waiting":
            return {}
        return {**original, "state": "accepted", "renditions": renditions}

    def also(session: ClientSession, now: Media) -> None:
        published.release(session, [_item(now)])

    media = records.change(Media, media_id, by, "accept", decide, also=also)
    _clear(settings, media_id)
    return _settled(media)


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


def _keep(settings: Settings, file: Clean, announced: str) -> dict[str, Any]:
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


def _clear(settings: Settings, media_id: str) -> None:
    """Delete the quarantined object; when S3 is away, `purge_quarantine` will."""
    with contextlib.suppress(Unavailable):
        objects.delete(settings, f"quarantine/{media_id}")


def _item(media: Media) -> Item:
    """What readers look up, by the hash of the stored original."""
    renditions = [r.to_mongo().to_dict() for r in media.renditions]
    content = {
        "id": media.id, "sha256": media.sha256, "kind": media.kind, "content_type": media.content_type, "bytes": media.bytes,
        "width": media.width, "height": media.height, "title": media.title, "alt": dict(media.alt), "renditions": renditions,
    }  # fmt: skip
    return Item("media", media.sha256, ANY, content)


# --- afterwards ------------------------------------------------------------------------------------------------------


def describe(media_id: str, by: str, fields: dict[str, Any], revision: int) -> Media:
    """Change `title` or `alt` ({language: text}, replaced whole); readers see it at once. Raises `NotFound`, `Stale`."""

    def also(session: ClientSession, media: Media) -> None:
        if media.state == "accepted":
            published.release(session, [_item(media)])

    wanted = {k: v for k, v in fields.items() if k in {"title", "alt"}}
    return records.change(Media, media_id, by, "describe", lambda _: wanted, revision=revision, also=also)


def newest(state: str = "", kind: str = "", after: tuple[datetime, str] | None = None) -> Iterator[Media]:
    """Records newest first, those older than `after` (created_at, id). Empty filters do not filter."""
    match: dict[str, Any] = {k: v for k, v in {"state": state, "kind": kind}.items() if v}
    if after:
        match["$or"] = [{"created_at": {"$lt": after[0]}}, {"created_at": after[0], "_id": {"$lt": after[1]}}]
    return map(Media.of, Media.rows().find(match).sort([("created_at", -1), ("_id", -1)]))


def remove(settings: Settings, media_id: str, by: str, used_in: Callable[[str], list[str]], revision: int | None = None) -> None:
    """Take it from readers and delete its objects, those that no other record holds (the same file may be uploaded twice).

    `used_in(id or sha256)` names what refers to it: anything raises `Conflict("in_use")`. Raises `NotFound`, `Stale`,
    `Unavailable` (it is then withdrawn; call again to finish).
    """
    media = find(media_id)
    if media.state != "removed":

        def decide(now: Media) -> dict[str, Any]:
            uses = sorted(
                {*used_in(now.id), *(used_in(now.sha256) if now.sha256 and not _twin(now, "sha256", now.sha256) else ())}
            )
            if uses:
                raise Conflict("in_use", what=now.title or now.id, used_in=", ".join(uses[:10]))
            return {"state": "removed"}

        def also(session: ClientSession, now: Media) -> None:
            if now.sha256:
                twin = _twin(now, "sha256", now.sha256)
                published.release(session, [_item(twin) if twin else Item("media", now.sha256, ANY, None)])

        media = records.change(Media, media_id, by, "withdraw", decide, revision=revision, also=also)
    for sha256 in media.files():
        if not any(_twin(media, field, sha256) for field in ("sha256", "renditions.sha256")):
            objects.delete(settings, f"media/{sha256}")
    _clear(settings, media_id)
    records.remove(Media, media_id, by, lambda _: None)


def _twin(media: Media, field: str, sha256: str) -> Media | None:
    """Another accepted record with this hash in `field`."""
    raw = Media.rows().find_one({field: sha256, "state": "accepted", "_id": {"$ne": media.id}})
    return Media.of(raw) if raw else None


def purge_quarantine(settings: Settings, now: datetime) -> int:
    """Delete quarantined objects and waiting records older than QUARANTINE; returns how many objects. Raises `Unavailable`."""
    done = 0
    for row in objects.list(settings, "quarantine/"):
        if row.last_modified <= now - QUARANTINE:
            objects.delete(settings, row.key)
            done += 1
    for raw in Media.rows().find({"state": "waiting", "created_at": {"$lte": now - QUARANTINE}}, {"_id": 1}):
        with contextlib.suppress(NotFound, Conflict):  # accepted or removed in between
            records.remove(Media, raw["_id"], SYSTEM, _only_waiting)
    return done


def _only_waiting(media: Media) -> None:
    if media.state != "waiting":
        raise Conflict(state=media.state, action="purge")

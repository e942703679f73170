"""Media: what readers see, and the desk where files come in.

The bytes never pass through here: staff post a signed form to S3, or put a large file there part by part; readers are sent on
to S3 or a CDN.
"""

from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, redirect
from marshmallow import validate

from api import front
from api.auth import actor, allowed
from api.guard import Blueprint, if_match, moment_of, next_page, tagged
from api.shapes import Paging, Regexp, Tag, each_once, listed, reader, settings
from content import films, languages, lessons, media, objects
from content import staff as people
from content.failures import Failure, Forbidden, NotFound
from content.inspection import TYPES
from content.media import KINDS, STATES, TRANSCRIPT, Media
from content.published import ANY

blp = Blueprint("media", __name__, url_prefix="/v1", description="Pictures, sound, film, documents, captions")
staff = Blueprint("staff_media", __name__, url_prefix="/v1/staff", description="Upload, describe and remove media")


class MediaFile(ma.Schema):
    """Where one file is read."""

    address = ma.fields.String(
        metadata={"description": "path of this API that leads to the bytes", "example": "/v1/media/…/file"}
    )
    content_type = ma.fields.String(metadata={"example": "image/jpeg"})
    bytes = ma.fields.Integer()
    width = ma.fields.Integer(allow_none=True, metadata={"description": "pixels; null for sound"})
    height = ma.fields.Integer(allow_none=True, metadata={"description": "pixels; null for sound"})


class RenditionShown(MediaFile):
    """A smaller version of the same."""

    name = ma.fields.String(metadata={"description": "poster, small or audio; empty for a picture, which is told by its width"})
    sha256 = ma.fields.String()


class CaptionsShown(ma.Schema):
    """Captions in one language."""

    language = ma.fields.String()
    sha256 = ma.fields.String()
    address = ma.fields.String(metadata={"description": "path of this API that leads to the WebVTT file"})


class Transcript(ma.Schema):
    """All that is said and shown, as plain text."""

    language = ma.fields.String(metadata={"description": "the reader's best of those there are"})
    text = ma.fields.String()


class MediaShown(MediaFile):
    """A media file."""

    id = ma.fields.String()
    sha256 = ma.fields.String()
    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    title = ma.fields.String()
    alt = ma.fields.String(metadata={"description": "what it shows or says, in the reader's best language; may be empty"})
    language = ma.fields.String(allow_none=True, metadata={"description": "of `alt`"})
    silent = ma.fields.Boolean(metadata={"description": "a film without a sound track"})
    captions = ma.fields.List(ma.fields.Nested(CaptionsShown), metadata={"description": "all languages there are"})
    transcript = ma.fields.Nested(Transcript, allow_none=True)
    renditions = ma.fields.List(
        ma.fields.Nested(RenditionShown),
        metadata={"description": "pictures, narrow to wide; of a film its poster, a small film and its sound alone"},
    )


def entry(sha256: str) -> dict[str, Any]:
    """The published item. Raises `NotFound`."""
    item = reader().current.get("media", sha256).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=sha256[:64])
    return dict(item.content)


@blp.get("/media/<string:sha256>")
@blp.alt_response(200, schema=MediaShown)
def show(sha256: str) -> Response:
    """One media file: what it is, its text alternative, where to read it"""
    content = entry(sha256)
    alts = content["alt"]
    best = languages.pick(alts, front.wanted(), settings().language) if alts else None
    said = content["transcript"]
    heard = languages.pick(said, front.wanted(), settings().language) if said else None
    base = f"/v1/media/{sha256}/file"
    result = {
        **content,
        "alt": alts[best] if best else "",
        "language": best,
        "address": base,
        "captions": [
            {"language": code, "sha256": name, "address": f"/v1/media/{name}/file"}
            for code, name in sorted(content["captions"].items())
        ],
        "transcript": {"language": heard, "text": said[heard]} if heard else None,
        "renditions": [
            {**r, "address": f"{base}?rendition={r['name']}" if r["name"] else f"{base}?width={r['width']}"}
            for r in content["renditions"]
        ],
    }
    front.keep()
    return jsonify(result)


class MediaFileQuery(ma.Schema):
    width = ma.fields.Integer(
        validate=validate.Range(1, 20000), metadata={"description": "pixels on the screen: the narrowest picture that fills them"}
    )
    captions = Tag(metadata={"description": "instead, the captions of a film or recording in this language"})
    rendition = ma.fields.String(
        validate=validate.OneOf(films.NAMES),
        metadata={"description": "of a film or sound: 404 when it has none, and never the original instead, which may be large"},
    )


@blp.get("/media/<string:sha256>/file")
@blp.arguments(MediaFileQuery, location="query")
@blp.alt_response(302, description="The bytes are there; the address is good for some minutes. Ranges are served.")
def file(query: dict[str, Any], sha256: str) -> Response:
    """Sends on to the bytes"""
    content = entry(sha256)
    renditions, wanted = content["renditions"], query.get("rendition")
    if "captions" in query:
        if query["captions"] not in (content.get("captions") or {}):
            raise NotFound(what=f"{sha256} {query['captions']}")
        fit = [content["captions"][query["captions"]]]
    elif wanted:
        fit = [r["sha256"] for r in renditions if r["name"] == wanted]
        if not fit:
            raise NotFound(what=f"{sha256} {wanted}")
    else:
        fit = [r["sha256"] for r in renditions if not r["name"] and r["width"] >= query.get("width", 10**9)]
    response = redirect(objects.address(settings(), f"media/{fit[0] if fit else sha256}"), 302)
    # a kept redirect must not outlive the signature it carries
    response.headers["Cache-Control"] = f"private, max-age={objects.ADDRESS // 2}"
    return response  # type: ignore[return-value]


# --- staff -----------------------------------------------------------------------------------------------------------


class AltIn(ma.Schema):
    language = Tag(required=True)
    text = ma.fields.String(required=True, validate=validate.Length(1, 1000))


class MediaFacts(ma.Schema):
    title = ma.fields.String(validate=validate.Length(max=200))
    alt = ma.fields.List(ma.fields.Nested(AltIn), validate=validate.Length(max=20), metadata={"description": "replaced whole"})


class CaptionsIn(ma.Schema):
    language = Tag(required=True)
    file = ma.fields.String(
        required=True, validate=Regexp("^[0-9a-f]{64}$"), metadata={"description": "SHA-256 of an accepted text/vtt"}
    )


class TranscriptIn(ma.Schema):
    language = Tag(required=True)
    text = ma.fields.String(required=True, validate=validate.Length(1, TRANSCRIPT))


class MediaEdit(MediaFacts):
    """Captions and transcript are of films and sound."""

    captions = ma.fields.List(
        ma.fields.Nested(CaptionsIn), validate=validate.Length(max=20), metadata={"description": "replaced whole"}
    )
    transcript = ma.fields.List(
        ma.fields.Nested(TranscriptIn),
        validate=validate.Length(max=20),
        metadata={"description": "replaced whole"},
    )


class NewUpload(MediaFacts):
    content_type = ma.fields.String(required=True, validate=validate.OneOf(list(TYPES)))
    size = ma.fields.Integer(
        required=True, strict=True, validate=validate.Range(min=1), metadata={"description": "bytes, exactly"}
    )
    organisation = ma.fields.String(validate=Regexp("^([0-9a-f]{32})?$"), metadata={"description": "owner; else your own"})
    resumable = ma.fields.Boolean(
        load_default=False, metadata={"description": "send it in parts: for files above 5 MiB and lines that break"}
    )


class UploadPart(ma.Schema):
    """One part: PUT these bytes of the file to `url`; S3 takes no other number of bytes."""

    number = ma.fields.Integer(metadata={"description": "from 1; part n begins at byte (n - 1) × part_size"})
    size = ma.fields.Integer(metadata={"description": "bytes"})
    url = ma.fields.String()


class UploadParts(ma.Schema):
    """What is still to be sent; when `parts` is empty, accept."""

    id = ma.fields.String()
    part_size = ma.fields.Integer(metadata={"description": "bytes"})
    received = ma.fields.List(ma.fields.Integer(), metadata={"description": "numbers of the parts that are there"})
    parts = ma.fields.List(ma.fields.Nested(UploadPart))
    expires_in = ma.fields.Integer(metadata={"description": "seconds the addresses are good for"})


class UploadForm(ma.Schema):
    """A signed form: post `fields`, then the file as `file`, as multipart/form-data to `url`; then accept. With `resumable`
    there is no form but `part_size` and `parts`, as `GET …/parts` gives them."""

    id = ma.fields.String()
    url = ma.fields.String()
    form = ma.fields.Dict(data_key="fields", keys=ma.fields.String(), values=ma.fields.String())
    part_size = ma.fields.Integer()
    parts = ma.fields.List(ma.fields.Nested(UploadPart))
    expires_in = ma.fields.Integer(metadata={"description": "seconds"})


class MediaStaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))
    kind = ma.fields.String(validate=validate.OneOf(KINDS))


def stored(payload: dict[str, Any]) -> dict[str, Any]:
    """The body's facts as stored: lists by language become maps. Raises `Invalid` when a language stands twice."""
    facts = {k: v for k, v in payload.items() if k == "title"}
    for name, part in (("alt", "text"), ("captions", "file"), ("transcript", "text")):
        if name in payload:
            facts[name] = {language: row[part] for language, row in each_once(payload[name], name).items()}
    return facts


def full(found: Media) -> dict[str, Any]:
    """A record as staff see it."""
    raw = found.to_mongo().to_dict()
    hidden = {"_id", "uses", "upload", "render_at", "render_tries"}
    result = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in raw.items() if k not in hidden}
    result |= {"alt": listed(found.alt), "transcript": listed(found.transcript)}
    result["captions"] = [{"language": code, "file": name} for code, name in sorted(found.captions.items())]
    result["renditions_messages"] = media.RENDITIONS[found.renditions_state].fill({})
    problem = Failure(found.refusal, **found.refusal_params).messages if found.refusal else None
    return {"id": found.id, **result, **({"messages": problem} if problem else {})}


def readable(found: Media) -> bool:
    """Accepted media are everybody's to use; what is not is its organisation's own."""
    return found.state == "accepted" or allowed("media.read", found.organisation, home(found.organisation))


def home(organisation: str) -> list[str]:
    """The division of an organisation, to ask grants for; of none: the district that runs the service."""
    return [people.organisation(organisation).division] if organisation else []


def own(media_id: str) -> Media:
    """The record, when the asker may change it. What he may not even read is not there (404)."""
    found = media.find(media_id)
    if allowed("media.write", found.organisation, home(found.organisation)):
        return found
    if readable(found):
        raise Forbidden()
    raise NotFound(what=media_id)


@staff.get("/media")
@staff.arguments(MediaStaffQuery, location="query")
@staff.response(200)
def index_staff(query: dict[str, Any]) -> dict[str, Any]:
    """Media the asker may use, newest first"""
    found = media.newest(query.get("state", ""), query.get("kind", ""), moment_of(query))
    return next_page(filter(readable, found), query["limit"], lambda row: [row.created_at.isoformat(), row.id], full)


@staff.post("/media")
@staff.arguments(NewUpload)
@staff.alt_response(201, schema=UploadForm)
def create(payload: dict[str, Any]) -> Response:
    """Announce an upload

    Gives a signed form that takes a file of exactly this type and size: POST it to `url` as multipart/form-data, every entry of
    `fields` first as it is, the file last under the name `file`, without our token; then call accept. A large file goes in
    parts (`resumable`): PUT the raw bytes of each part to its `url`, in any order, with their Content-Length (not chunked) and
    without our token; then call accept. An upload that was cut goes on where it was, for 24 hours (`GET …/parts`).
    """
    who = actor()
    mine = [g.organisation for g in who.grants if who.may("media.write", organisation=g.organisation)]
    organisation = payload.get("organisation", mine[0] if mine else "")
    if not who.may("media.write", organisation=organisation):
        raise Forbidden()
    people.must_exist(organisation)
    form = media.begin_upload(
        settings(), payload["content_type"], payload["size"], who.id, organisation=organisation, resumable=payload["resumable"],
        **stored(payload),
    )  # fmt: skip
    response = jsonify(form)
    response.status_code = 201
    response.headers["Location"] = f"/v1/staff/media/{form['id']}"
    return response


@staff.get("/media/<string:media_id>")
@staff.alt_response(200, description="The record; ETag is its revision")
def show_staff(media_id: str) -> Response:
    """One record, with the reason when it was refused"""
    found = media.find(media_id)
    if not readable(found):
        raise NotFound(what=media_id)
    return tagged(full(found), found.revision)


@staff.get("/media/<string:media_id>/parts")
@staff.response(200, UploadParts)
def parts(media_id: str) -> dict[str, Any]:
    """Go on with an upload in parts

    Which parts are there, and fresh addresses for those that are not.
    """
    return media.missing_parts(settings(), own(media_id).id)


@staff.post("/media/<string:media_id>/accept")
@staff.alt_response(200, description="Accepted, cleaned and public")
def accept(media_id: str) -> Response:
    """Check what was uploaded and take it in

    Images are coded anew, without place and camera; what is not what it says is refused (422 with the reason). A repeat
    gives the same answer.
    """
    found = media.accept(settings(), own(media_id).id, actor().id)
    reader().refresh()
    return tagged(full(found), found.revision)


@staff.patch("/media/<string:media_id>")
@staff.arguments(MediaEdit)
@staff.alt_response(200, description="The changed record")
def edit(payload: dict[str, Any], media_id: str) -> Response:
    """Change title, text alternatives, captions or transcript

    Readers see it at once. What a published lesson needs in its language cannot be taken out (409). Needs If-Match.
    """
    revision = if_match()
    found = own(media_id)
    reader().refresh()  # what was published a moment ago counts
    shown_in = reader().current.uses.get(found.sha256 or "", ())
    found = media.describe(found.id, actor().id, stored(payload), revision, shown_in)
    reader().refresh()
    return tagged(full(found), found.revision)


@staff.delete("/media/<string:media_id>")
@staff.response(204)
def remove(media_id: str) -> None:
    """Remove it for good

    409 while a lesson's working copy, any published version or, as captions, a film uses it. Needs If-Match.
    """
    revision = if_match()
    media.remove(settings(), own(media_id).id, actor().id, lessons.used_in, revision)
    reader().refresh()

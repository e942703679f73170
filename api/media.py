"""Media: what readers see, and the desk where files come in.

The bytes never pass through here: staff post a signed form to S3, readers are sent on to S3 or a CDN.
"""

from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, redirect
from marshmallow import validate

from api import front
from api.auth import actor, allowed
from api.guard import Blueprint, if_match, next_page, open_cursor, tagged
from api.shapes import Paging, Regexp, Tag, reader, settings
from content import languages, lessons, media, objects
from content import staff as people
from content.failures import Failure, Forbidden, NotFound
from content.inspection import TYPES
from content.media import KINDS, STATES, Media
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
    width = ma.fields.Integer(allow_none=True, metadata={"description": "pixels"})
    height = ma.fields.Integer(allow_none=True, metadata={"description": "pixels"})


class MediaShown(MediaFile):
    """A media file."""

    id = ma.fields.String()
    sha256 = ma.fields.String()
    kind = ma.fields.String(validate=validate.OneOf(KINDS))
    title = ma.fields.String()
    alt = ma.fields.String(metadata={"description": "what it shows or says, in the reader's best language; may be empty"})
    language = ma.fields.String(allow_none=True, metadata={"description": "of `alt`"})
    renditions = ma.fields.List(ma.fields.Nested(MediaFile), metadata={"description": "smaller pictures, narrow to wide"})


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
    base = f"/v1/media/{sha256}/file"
    result = {
        **content,
        "alt": alts[best] if best else "",
        "language": best,
        "address": base,
        "renditions": [
            {**{k: v for k, v in r.items() if k != "sha256"}, "address": f"{base}?width={r['width']}"}
            for r in content["renditions"]
        ],
    }
    front.keep()
    return jsonify(result)


class MediaFileQuery(ma.Schema):
    width = ma.fields.Integer(
        validate=validate.Range(1, 20000), metadata={"description": "pixels on the screen: the narrowest picture that fills them"}
    )


@blp.get("/media/<string:sha256>/file")
@blp.arguments(MediaFileQuery, location="query")
@blp.alt_response(302, description="The bytes are there; the address is good for some minutes. Ranges are served.")
def file(query: dict[str, Any], sha256: str) -> Response:
    """Sends on to the bytes"""
    content = entry(sha256)
    wide = [r["sha256"] for r in content["renditions"] if r["width"] >= query.get("width", 10**9)]
    response = redirect(objects.address(settings(), f"media/{wide[0] if wide else sha256}"), 302)
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


class NewUpload(MediaFacts):
    content_type = ma.fields.String(required=True, validate=validate.OneOf(list(TYPES)))
    size = ma.fields.Integer(
        required=True, strict=True, validate=validate.Range(min=1), metadata={"description": "bytes, exactly"}
    )
    organisation = ma.fields.String(
        validate=Regexp("^([0-9a-f]{32})?$"), metadata={"description": "owner; else your own"}
    )


class UploadForm(ma.Schema):
    """A signed form: post `fields`, then the file as `file`, as multipart/form-data to `url`; then accept."""

    id = ma.fields.String()
    url = ma.fields.String()
    form = ma.fields.Dict(data_key="fields", keys=ma.fields.String(), values=ma.fields.String())
    expires_in = ma.fields.Integer(metadata={"description": "seconds"})


class MediaStaffQuery(Paging):
    state = ma.fields.String(validate=validate.OneOf(STATES))
    kind = ma.fields.String(validate=validate.OneOf(KINDS))


def by_language(payload: dict[str, Any]) -> dict[str, Any]:
    """The body's title and alt as stored."""
    facts = {k: v for k, v in payload.items() if k == "title"}
    if "alt" in payload:
        facts["alt"] = {row["language"]: row["text"] for row in payload["alt"]}
    return facts


def full(found: Media) -> dict[str, Any]:
    """A record as staff see it."""
    raw = found.to_mongo().to_dict()
    result = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in raw.items() if k not in {"_id", "alt"}}
    alt = [{"language": code, "text": text} for code, text in sorted(found.alt.items())]
    problem = Failure(found.refusal, **found.refusal_params).messages if found.refusal else None
    return {"id": found.id, **result, "alt": alt, **({"messages": problem} if problem else {})}


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
    after = None
    if "cursor" in query:
        try:
            at, last = open_cursor(query["cursor"])
            after = datetime.fromisoformat(at), str(last)
        except (ValueError, TypeError):
            raise Failure("bad_cursor") from None
    found = media.newest(query.get("state", ""), query.get("kind", ""), after)
    return next_page(filter(readable, found), query["limit"], lambda row: [row.created_at.isoformat(), row.id], full)


@staff.post("/media")
@staff.arguments(NewUpload)
@staff.alt_response(201, schema=UploadForm)
def create(payload: dict[str, Any]) -> Response:
    """Announce an upload

    Gives a signed form that takes a file of exactly this type and size; then call accept.
    """
    who = actor()
    mine = [g.organisation for g in who.grants if who.may("media.write", organisation=g.organisation)]
    organisation = payload.get("organisation", mine[0] if mine else "")
    if not who.may("media.write", organisation=organisation):
        raise Forbidden()
    people.must_exist(organisation)
    facts = by_language(payload)
    form = media.begin_upload(
        settings(), payload["content_type"], payload["size"], who.id, organisation=organisation, **facts
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
@staff.arguments(MediaFacts)
@staff.alt_response(200, description="The changed record")
def edit(payload: dict[str, Any], media_id: str) -> Response:
    """Change title or text alternatives

    Readers see it at once. Needs If-Match.
    """
    revision = if_match()
    found = media.describe(own(media_id).id, actor().id, by_language(payload), revision)
    reader().refresh()
    return tagged(full(found), found.revision)


@staff.delete("/media/<string:media_id>")
@staff.response(204)
def remove(media_id: str) -> None:
    """Remove it for good

    409 while a lesson's working copy or any published version uses it. Needs If-Match.
    """
    revision = if_match()
    media.remove(settings(), own(media_id).id, actor().id, lessons.used_in, revision)
    reader().refresh()

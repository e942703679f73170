"""Offline: packs for a first start, then only what changed. All of it from the published set, also while the database is away.

How a phone uses it, in five steps:

1. **Pin the key.** The app ships with the `kid` of `GET /v1/keys` (the thumbprint of the key itself, RFC 7638). A key that is
   fetched from the same place as the pack proves nothing against whoever controls that place.
2. **First start.** `GET /v1/packs?audience=&stage=&language=`; verify the manifest (JWS, `alg` EdDSA, `typ`
   xinqiao-pack+jws, the pinned `kid`), refuse one for another selection or built before the last one taken; fetch
   `/v1/packs/{sha256}/file`, compare length and SHA-256, unpack the gzip: one item a line. Keep its `cursor`. No pack for the
   selection: begin with step 3 and no cursor.
3. **Go on.** `GET /v1/sync?since=CURSOR&audience=&stage=&language=`, first with `limit=0` when the user is to be asked:
   `remaining` and `media` say what is to come. Put each item in the place of what is held under its (kind, key); drop what says
   `gone`; ask again with `next_cursor` while `more`, after a second when a page with `more` was empty.
4. **Media.** Each item describes its files. Fetch the one that fits the screen and the line, by its `sha256`, from
   `/v1/media/{sha256}/file`, compare the hash, keep it under the hash and never fetch that again; drop those that no item
   names. The addresses in a lesson's `html` are of that form: put the kept file in their place.
5. **Without a network.** Show what is held. Drop an item at its `expires_at`; ask no self-check that was last confirmed by a
   sync more than its `expires_days` ago. Beside every lesson with `help`, and every self-check, stands the card: the item of
   kind `card` with the held services, open ones first; 110 and 120 always. On `start_over` (410) fetch the whole set anew and
   then put it in the old one's place.

**What a phone refuses**: a manifest whose `alg`, `typ` or key is another, whose `format` it does not know, whose selection is
not the one asked for, or whose `seq` under the same `epoch` is lower than what it holds; a pack of another length or hash. The
`kid` is the thumbprint of the key, so a key that is fetched can be checked against a pinned `kid` by computing it.

A language without a pack syncs all the same: items come in the best language there is for it, as `language` of each item says.
With few lessons a first sync without a pack is as good; packs pay when a cache or CDN serves many first starts.
"""

import inspect
import json
from typing import Any

import marshmallow as ma
from flask import Response, jsonify, redirect
from marshmallow import validate

from api import front
from api.guard import Blueprint, page
from api.shapes import Paging, Tag, reader, settings
from content import objects, packs, store, sync
from content.failures import NotFound, Unavailable
from content.vocabulary import AUDIENCES, STAGES

blp = Blueprint("sync", __name__, url_prefix="/v1", description=inspect.cleandoc(__doc__))

STAGE = {"example": "junior", "description": "name of a stage; empty: all"}


class SyncQuery(ma.Schema):
    since = ma.fields.String(
        load_default="",
        validate=validate.Length(max=500),
        metadata={"description": "`next_cursor` of the last answer, or a pack's"},
    )
    audience = ma.fields.String(required=True, validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = ma.fields.String(load_default="", validate=validate.OneOf(["", *STAGES]), metadata=STAGE)
    language = Tag(metadata={"description": "the reader's; the service's own when left out", "example": "zh-Hans"})
    limit = ma.fields.Integer(
        load_default=50, validate=validate.Range(0, sync.MOST), metadata={"description": "keys in a page; 0: sizes alone"}
    )


class HeldRendition(ma.Schema):
    """A smaller version of a file, fetched by its own hash."""

    name = ma.fields.String(metadata={"description": "poster, small, audio; empty: a picture of this width"})
    sha256 = ma.fields.String()
    content_type = ma.fields.String()
    bytes = ma.fields.Integer()
    width = ma.fields.Integer(allow_none=True)
    height = ma.fields.Integer(allow_none=True)


class HeldFile(ma.Schema):
    """A file that an item shows, with its words in the language of the item."""

    sha256 = ma.fields.String()
    kind = ma.fields.String(metadata={"description": "image, audio, video, document, captions"})
    content_type = ma.fields.String()
    bytes = ma.fields.Integer()
    width = ma.fields.Integer(allow_none=True)
    height = ma.fields.Integer(allow_none=True)
    silent = ma.fields.Boolean(metadata={"description": "a film without a sound track"})
    alt = ma.fields.String(metadata={"description": "what it shows or says; may be empty"})
    transcript = ma.fields.String(metadata={"description": "may be empty"})
    captions = ma.fields.Dict(
        keys=ma.fields.String(), values=ma.fields.String(), metadata={"description": "language → hash of a text/vtt file"}
    )
    renditions = ma.fields.List(ma.fields.Nested(HeldRendition))


class SyncItem(ma.Schema):
    """One key: what the phone now holds of it, or that it is gone."""

    kind = ma.fields.String(validate=validate.OneOf(sync.KINDS))
    key = ma.fields.String()
    gone = ma.fields.Boolean(metadata={"description": "true: drop it; then nothing else is here"})
    language = ma.fields.String(metadata={"description": "edition: a tag, with -x-VOICE where it speaks to one audience"})
    content = ma.fields.Dict(
        metadata={
            "description": "lesson: as GET /v1/lessons/{slug}, its text as `html` only; path: as GET /v1/paths/{slug}, of each "
            "step `slug` and `at`; check: as GET /v1/checks/{slug}; service: as GET /v1/services, without what depends on the "
            "moment; card: the help card's words"
        }
    )
    media = ma.fields.List(ma.fields.Nested(HeldFile), metadata={"description": "its files, each described whole"})
    expires_at = ma.fields.String(metadata={"description": "drop it at this moment"})


class ItemsBytes(ma.Schema):
    items = ma.fields.Integer()
    bytes = ma.fields.Integer(metadata={"description": "length of the items' JSON in UTF-8, before compression"})


class FilesBytes(ma.Schema):
    count = ma.fields.Integer()
    bytes = ma.fields.Integer(metadata={"description": "of the originals; renditions are smaller"})


class SyncPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(SyncItem))
    next_cursor = ma.fields.String()
    more = ma.fields.Boolean()
    page = ma.fields.Nested(ItemsBytes)
    remaining = ma.fields.Nested(ItemsBytes, metadata={"description": "after this page"})
    media = ma.fields.Nested(FilesBytes, metadata={"description": "files that this page and what remains show, each once"})


@blp.get("/sync")
@blp.arguments(SyncQuery, location="query")
@blp.alt_response(200, schema=SyncPage)
@blp.alt_response(410, description="start_over: the cursor leads nowhere any more; take a pack, or sync without a cursor")
def changes(query: dict[str, Any]) -> Response:
    """What a phone must fetch and drop since its cursor

    Put each item in the place of what is held under its kind and key, drop what is `gone`, and go on with `next_cursor` while
    `more`. Without a cursor: all there is for the selection. `limit=0` answers the sizes alone, before any download. The cost
    grows with what changed. A cursor belongs to its selection.
    """
    now = store.now()
    snapshot, known = reader().current, reader().up
    if not snapshot.epoch and not known:
        raise Unavailable()  # born while the database is away and without a kept file: empty because it knows nothing
    found = sync.changes(snapshot, selected(query), query["since"], query["limit"], now)
    rest = {
        "next_cursor": found.next_cursor,
        "more": found.more,
        "page": {"items": len(found.lines), "bytes": found.bytes},
        "remaining": dict(zip(("items", "bytes"), found.remaining, strict=True)),
        "media": dict(zip(("count", "bytes"), found.media, strict=True)),
    }
    seconds = min(3600.0, (found.until - now).total_seconds())
    if seconds > 0:
        front.keep(seconds, max_age=0)  # caches on the way ask each time: what is withdrawn is gone at the next sync
    body = b'{"items":[' + b",".join(found.lines) + b"]," + json.dumps(rest).encode()[1:]
    return Response(body, content_type="application/json")


def selected(query: dict[str, Any]) -> sync.Selection:
    """The selection that a question is about."""
    own = settings().language
    return sync.Selection(query["audience"], query["stage"], query.get("language") or own, own)


class PacksQuery(Paging):
    audience = ma.fields.String(validate=validate.OneOf(list(AUDIENCES)), metadata={"example": "parent"})
    stage = ma.fields.String(validate=validate.OneOf(["", *STAGES]), metadata=STAGE)
    language = Tag(metadata={"example": "zh-Hans"})


class Pack(ma.Schema):
    """One pack. Believe the manifest, not the facts beside it."""

    format = ma.fields.Integer()
    audience = ma.fields.String()
    stage = ma.fields.String(metadata={"description": "empty: all"})
    language = ma.fields.String()
    sha256 = ma.fields.String()
    bytes = ma.fields.Integer(metadata={"description": "as it is fetched, gzip"})
    bytes_unpacked = ma.fields.Integer()
    items = ma.fields.Integer()
    media = ma.fields.Nested(FilesBytes)
    cursor = ma.fields.String(metadata={"description": "from which a sync goes on"})
    epoch = ma.fields.String(metadata={"description": "of `seq`"})
    seq = ma.fields.Integer()
    built_at = ma.fields.String()
    manifest = ma.fields.String(metadata={"description": "these facts, signed: JWS compact, EdDSA, typ xinqiao-pack+jws"})


class PackPage(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(Pack))
    next_cursor = ma.fields.String(allow_none=True)


@blp.get("/packs")
@blp.arguments(PacksQuery, location="query")
@blp.alt_response(200, schema=PackPage)
def index(query: dict[str, Any]) -> Response:
    """Offline packs for a first start, with their signed manifests

    One for each audience, stage (and all stages together) and language that has a lesson. Verify the manifest with the key
    pinned in the app, fetch `/v1/packs/{sha256}/file`, compare length and hash, then sync from `cursor`.
    """
    wanted = {name: query[name] for name in ("audience", "stage", "language") if name in query}

    def fits(item: Any) -> bool:
        return all(item.content["facts"][name] == value for name, value in wanted.items())

    result = page(packs.listing(reader().current), query.get("cursor"), query["limit"], packs.order, fits)
    result["items"] = [{**item.content["facts"], "manifest": item.content["manifest"]} for item in result["items"]]
    front.keep()
    return jsonify(result)


@blp.get("/packs/<string:sha256>/file")
@blp.alt_response(302, description="The bytes are there; the address is good for some minutes. Ranges are served.")
def file(sha256: str) -> Response:
    """Sends on to a pack's bytes

    Gzip of one item a line. A pack that was replaced can be fetched for seven days more.
    """
    if sha256 not in packs.fetchable(reader().current, store.now()):
        raise NotFound(what=sha256[:64])
    response = redirect(objects.address(settings(), f"packs/{sha256}"), 302)
    # a kept redirect must not outlive the signature it carries
    response.headers["Cache-Control"] = f"private, max-age={objects.ADDRESS // 2}"
    return response  # type: ignore[return-value]


class Key(ma.Schema):
    kty = ma.fields.String(metadata={"example": "OKP"})
    crv = ma.fields.String(metadata={"example": "Ed25519"})
    x = ma.fields.String()
    kid = ma.fields.String(metadata={"description": "thumbprint of the key (RFC 7638): pin it in the app"})
    alg = ma.fields.String(metadata={"example": "EdDSA"})
    use = ma.fields.String(metadata={"example": "sig"})


class Keys(ma.Schema):
    keys = ma.fields.List(ma.fields.Nested(Key))


@blp.get("/keys")
@blp.alt_response(200, schema=Keys)
def keys() -> Response:
    """The public key of the packs' manifests, as a JWK set (RFC 7517)

    For building an app: pin its `kid` there. At run time a key from here proves nothing against whoever controls this address.
    """
    front.keep(max_age=3600)
    return jsonify({"keys": [packs.public_key(settings())]})

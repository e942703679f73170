"""Objects in S3: the one place that speaks S3.

Keys: `quarantine/<media id>` (uploads nobody has looked at), `media/<sha256>` and `packs/<sha256>` (never changed once
written, each named by the SHA-256 of its own bytes). Nothing has to be made for a prefix.

Every function raises `Unavailable` when S3 is away, breaks off, answers 5xx or refuses our key (`xinqiao doctor` says which);
where an object is needed that is not there, `NotFound`.
"""

import base64
import contextlib
import functools
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError
from botocore.exceptions import ConnectionError as S3ConnectionError

from content.failures import NotFound, Stale, Unavailable
from content.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger("xinqiao.objects")

UPLOAD = 900  # seconds a signed form, or the address of a part, is good for
ADDRESS = 900  # seconds a signed address is good for
BLOCK = 2**20
FOREVER = "public, max-age=31536000, immutable"  # Cache-Control of what is named by its own hash


class Listed(NamedTuple):
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""
    last_modified: datetime


class Head(NamedTuple):
    """What S3 says of an object without sending it."""

    size: int
    """Bytes."""
    content_type: str
    etag: str


class Part(NamedTuple):
    """One part of an upload in parts that S3 has."""

    number: int
    """From 1."""
    size: int
    """Bytes."""
    etag: str


class Unfinished(NamedTuple):
    """An upload in parts that was begun and neither joined nor given up."""

    key: str
    upload: str
    begun: datetime


@functools.lru_cache(8)
def _client(settings: Settings, signed: bool = True) -> "S3Client":
    """The process's client; boto's are safe to share between threads."""
    settings.needed("s3_endpoint_url", "s3_access_key", "s3_secret_key")
    config = Config(
        signature_version="s3v4" if signed else UNSIGNED,
        s3={"addressing_style": "path"},
        connect_timeout=2,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 2},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        region_name=settings.s3_region,
        config=config,
    )


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def _s3(key: str = "") -> Iterator[None]:
    """S3's failures as ours: 404 is `NotFound`, 412 is `Stale`, all else `Unavailable`."""
    try:
        yield
    except (S3ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError):
        raise Unavailable() from None
    except ClientError as error:
        if _status(error) == 404:
            raise NotFound(what=key) from None
        if _status(error) == 412:
            raise Stale() from None
        if _status(error) < 500:  # a wrong key, a missing right: nothing a caller can mend
            log.error("S3 %s %s: HTTP %s %s", error.operation_name, key, _status(error), error.response["Error"].get("Code"))
        raise Unavailable() from None


# --- the bucket ------------------------------------------------------------------------------------------------------


def ensure_bucket(settings: Settings) -> Sequence[str]:
    """Make the bucket, let browsers send uploads to it, and have S3 itself clear quarantine after a day where it can.

    Returns a line for each thing made; a second call returns [].
    """
    client, bucket, done = _client(settings), settings.s3_bucket, []
    with _s3(bucket):
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if _status(error) != 404:
                raise
            client.create_bucket(Bucket=bucket)
            done.append(f"bucket {bucket}")
        # form and address carry their own signature and no cookie goes along, so any origin may send a file or a part
        rule: Any = {"AllowedMethods": ["GET", "HEAD", "POST", "PUT"], "AllowedOrigins": ["*"], "AllowedHeaders": ["*"]}
        try:
            given = client.get_bucket_cors(Bucket=bucket)["CORSRules"]
        except ClientError:
            given = []
        if not any("PUT" in one["AllowedMethods"] for one in given):
            client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [*given, rule]})
            done.append("cors")
        try:
            client.get_bucket_lifecycle_configuration(Bucket=bucket)
        except ClientError:
            expiry: Any = {
                "ID": "quarantine",
                "Status": "Enabled",
                "Filter": {"Prefix": "quarantine/"},
                "Expiration": {"Days": 1},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
            }
            with contextlib.suppress(ClientError):  # some servers have none; `media.purge_quarantine` does not rely on it
                client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [expiry]})
                done.append("lifecycle")
    return done


def rights(settings: Settings) -> Sequence[str]:
    """What is wrong with the bucket, a line each, for `xinqiao doctor`; [] when all is well. Raises nothing."""
    key, problems, bucket = f"quarantine/doctor-{secrets.token_hex(8)}", [], settings.s3_bucket
    try:
        client = _client(settings)
        client.head_bucket(Bucket=bucket)
        steps: Sequence[tuple[str, Callable[[], object]]] = [
            ("write", lambda: client.put_object(Bucket=bucket, Key=key, Body=b"x")),
            ("read", lambda: client.get_object(Bucket=bucket, Key=key)["Body"].read()),
            ("list", lambda: client.list_objects_v2(Bucket=bucket, Prefix="quarantine/", MaxKeys=1)),
            ("delete", lambda: client.delete_object(Bucket=bucket, Key=key)),
        ]
        for name, step in steps:
            try:
                step()
            except ClientError as error:
                problems.append(f"S3 bucket {bucket}: cannot {name} ({_status(error)}). Grant it to the access key.")
        with contextlib.suppress(ClientError):
            _client(settings, False).list_objects_v2(Bucket=bucket, Prefix="quarantine/", MaxKeys=1)
            problems.append(f"S3 bucket {bucket}: anyone may list quarantine/. Take public access away.")
    except ClientError as error:
        problems.append(f"S3 bucket {bucket}: HTTP {_status(error)}. Check XINQIAO_S3_BUCKET and the access key.")
    except BotoCoreError as error:
        problems.append(f"S3 does not answer ({type(error).__name__}). Check S3_ENDPOINT_URL.")
    return problems


# --- objects ---------------------------------------------------------------------------------------------------------


def put(
    settings: Settings,
    key: str,
    body: bytes | IO[bytes],
    content_type: str,
    *,
    sha256: bytes | None = None,
    cache: str = FOREVER,
    disposition: str = "",
) -> None:
    """Write an object whole; a second call writes it again. With `sha256` (the 32 bytes) S3 compares the hash as it writes
    and takes nothing else. `cache` is its Cache-Control, `disposition` its Content-Disposition; "" for none."""
    more: dict[str, Any] = {"CacheControl": cache, "ContentDisposition": disposition}
    more["ChecksumSHA256"] = base64.b64encode(sha256).decode() if sha256 else ""
    with _s3(key):
        _client(settings).put_object(
            Bucket=settings.s3_bucket, Key=key, Body=body, ContentType=content_type, **{k: v for k, v in more.items() if v}
        )


def get(settings: Settings, key: str, *, etag: str = "") -> Iterator[bytes]:
    """Its bytes in blocks of at most BLOCK. With `etag`, of that version only. Asks S3 when the first block is asked for, and
    raises then: `NotFound`; `Stale` for another version."""
    pinned: Any = {"IfMatch": etag} if etag else {}
    with _s3(key):
        answer = _client(settings).get_object(Bucket=settings.s3_bucket, Key=key, **pinned)
        with contextlib.closing(answer["Body"]) as body:
            while block := body.read(BLOCK):
                yield block


def head(settings: Settings, key: str) -> Head | None:
    """What S3 says of the object; None when there is none."""
    try:
        with _s3(key):
            found = _client(settings).head_object(Bucket=settings.s3_bucket, Key=key)
    except NotFound:
        return None
    return Head(found["ContentLength"], found["ContentType"], found["ETag"])


def delete(settings: Settings, key: str) -> None:
    """Delete the object; one that is not there is no matter."""
    with contextlib.suppress(NotFound), _s3(key):
        _client(settings).delete_object(Bucket=settings.s3_bucket, Key=key)


def listing(settings: Settings, prefix: str) -> Iterator[Listed]:
    """All objects whose key begins with `prefix`, in order of keys."""
    with _s3(prefix):
        for page in _client(settings).get_paginator("list_objects_v2").paginate(Bucket=settings.s3_bucket, Prefix=prefix):
            for row in page.get("Contents", []):
                yield Listed(row["Key"], row["Size"], row["LastModified"])


# --- given to others -------------------------------------------------------------------------------------------------


def address(settings: Settings, key: str) -> str:
    """Where a phone reads `key` ("media/<sha256>", "packs/<sha256>"): below XINQIAO_S3_PUBLIC_URL, else signed and good for
    ADDRESS seconds. Asks no server; whether the object exists is the caller's business. Ranges are S3's."""
    if settings.s3_public_url:
        return f"{settings.s3_public_url.rstrip('/')}/{key}"
    where = {"Bucket": settings.s3_bucket, "Key": key}
    return _client(settings).generate_presigned_url("get_object", Params=where, ExpiresIn=ADDRESS)


def form(settings: Settings, key: str, content_type: str, size: int) -> dict[str, Any]:
    """A signed form {url, fields} that takes exactly `size` bytes of this type to `key`, for UPLOAD seconds. Asks no server."""
    made = _client(settings).generate_presigned_post(
        settings.s3_bucket,
        key,
        Fields={"Content-Type": content_type},
        Conditions=[{"Content-Type": content_type}, ["content-length-range", size, size]],
        ExpiresIn=UPLOAD,
    )
    return {"url": made["url"], "fields": made["fields"]}


# --- in parts --------------------------------------------------------------------------------------------------------


def begin(settings: Settings, key: str, content_type: str) -> str:
    """Begin an upload in parts to `key`; returns its id. Nothing stands at `key` before `join`."""
    with _s3(key):
        answer = _client(settings).create_multipart_upload(Bucket=settings.s3_bucket, Key=key, ContentType=content_type)
    return answer["UploadId"]


def part_address(settings: Settings, key: str, upload: str, number: int, size: int) -> str:
    """Where to PUT part `number` (from 1), for UPLOAD seconds. Content-Length is signed: SeaweedFS 4.48, as measured, and
    Amazon's S3 answer 403 to any other size, and to a body sent in chunks. Asks no server."""
    where = {
        "Bucket": settings.s3_bucket, "Key": key, "UploadId": upload, "PartNumber": number, "ContentLength": size,
    }  # fmt: skip
    return _client(settings).generate_presigned_url("upload_part", Params=where, ExpiresIn=UPLOAD)


def parts(settings: Settings, key: str, upload: str) -> Sequence[Part]:
    """The parts S3 has, by number. Raises `NotFound` when the upload was joined, given up or never begun. A part that was
    sent again is listed once by Amazon's S3, each time by SeaweedFS, in the order of the seconds they came in."""
    with _s3(key):
        pages = _client(settings).get_paginator("list_parts").paginate(Bucket=settings.s3_bucket, Key=key, UploadId=upload)
        rows = sorted((r for page in pages for r in page.get("Parts", [])), key=lambda r: (r["PartNumber"], r["LastModified"]))
    return [Part(row["PartNumber"], row["Size"], row["ETag"]) for row in rows]


def join(settings: Settings, key: str, upload: str, pieces: Sequence[Part]) -> None:
    """Make the parts, in this order, the object at `key`. Raises `NotFound` as `parts` does. All but the last must have
    5 MiB or more."""
    rows: Any = [{"PartNumber": one.number, "ETag": one.etag} for one in pieces]
    with _s3(key):
        _client(settings).complete_multipart_upload(
            Bucket=settings.s3_bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": rows}
        )


def abort(settings: Settings, key: str, upload: str) -> None:
    """Give an upload up and delete its parts; one that is not there is no matter."""
    with contextlib.suppress(NotFound), _s3(key):
        _client(settings).abort_multipart_upload(Bucket=settings.s3_bucket, Key=key, UploadId=upload)


def unfinished(settings: Settings, prefix: str) -> Iterator[Unfinished]:
    """Uploads in parts below `prefix` that were begun and neither joined nor given up."""
    with _s3(prefix):
        pages = _client(settings).get_paginator("list_multipart_uploads").paginate(Bucket=settings.s3_bucket, Prefix=prefix)
        for page in pages:
            for row in page.get("Uploads", []):
                yield Unfinished(row["Key"], row["UploadId"], row["Initiated"])

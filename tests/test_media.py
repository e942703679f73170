"""Uploads are what they say (promise 17): honest files of every type pass, hostile ones do not reach `media/`.

Everything runs against a real S3 server. After each hostile file the whole of `media/` is read back: every object must be
named by its own hash, decode as its type, and hold no canary.
"""

import base64
import hashlib
import io
import json
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from botocore.config import Config
from PIL import Image, PngImagePlugin

from content import films, inspection, lessons, media, objects, published, records, staff, store
from content.failures import TEXTS, Conflict, Invalid, NotFound, Stale, Unavailable
from content.inspection import TYPES
from content.media import Media
from content.records import SYSTEM
from content.settings import Settings
from tests.site import Site, serving

CANARY = b"XQ-CANARY-7f3a"
SCRIPT = b"<script>alert('" + CANARY + b"')</script>"
PHP = b"<?php system('" + CANARY + b"'); ?>"


# --- files, made by hand ---------------------------------------------------------------------------------------------


def picture(form: str = "PNG", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """A picture that is no single colour: the left half is red."""
    image = Image.new("RGB", size, (20, 120, 200))
    image.paste((220, 30, 30), (0, 0, size[0] // 2, size[1]))
    return coded(image, form, **options)


def coded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def moving(form: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), (i * 60, 0, 0)) for i in range(3)]
    return coded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *between: bytes, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = pixels or zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(between) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def exif(**more: bytes) -> bytes:
    """EXIF with an orientation (rotate a quarter), a GPS position and a camera name."""
    found = Image.Exif()
    found[0x0112] = 6
    found[0x010F] = "Canary " + CANARY.decode()
    found[0x010E] = more.get("description", CANARY).decode()
    found.get_ifd(0x8825).update({1: "N", 2: (39.0, 36.0, 0.0), 3: "E", 4: (109.0, 46.0, 0.0)})
    return found.tobytes()


def zipped(size: int = 100) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.html", SCRIPT + bytes(size))
    return out.getvalue()


def bomb(megabytes: int) -> bytes:
    """Zeros, packed."""
    packer, block = zlib.compressobj(1), bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def trak(handler: bytes, *more: bytes) -> bytes:
    tkhd = box(b"tkhd", bytes(76), struct.pack(">II", 64 << 16, 48 << 16) if handler == b"vide" else bytes(8))
    return box(b"trak", tkhd, box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(13))), *more)


def mp4(*boxes: bytes, tracks: tuple[bytes, ...] = (b"vide", b"soun"), brand: bytes = b"isom", moov: bytes = b"") -> bytes:
    inside = b"".join(trak(t) for t in tracks) + moov
    return box(b"ftyp", brand, bytes(4), b"isom") + box(b"moov", box(b"mvhd", bytes(100)), inside) + b"".join(boxes) + MDAT


MDAT = box(b"mdat", bytes(range(256)) * 8)


def element(ident: str, *content: bytes, unknown: bool = False) -> bytes:
    data = b"".join(content)
    return bytes.fromhex(ident) + (b"\x01" + b"\xff" * 7 if unknown else _size(len(data))) + data


def _size(length: int) -> bytes:
    return (length | 1 << 28).to_bytes(4, "big")


def webm(*more: bytes, doctype: bytes = b"webm", codec: bytes = b"V_VP9", live: bool = False) -> bytes:
    head = element("1A45DFA3", element("4282", doctype))
    video = element(
        "AE", element("D7", b"\1"), element("86", codec), element("E0", element("B0", b"\x40"), element("BA", b"\x30"))
    )
    info = element("1549A966", element("2AD7B1", b"\x0f\x42\x40"), element("7BA9", CANARY))
    cluster = element("1F43B675", element("E7", b"\0"), element("A3", b"\x81\0\0\x80" + bytes(200)), unknown=live)
    return head + element("18538067", info, element("1654AE6B", video), *more, cluster, unknown=live)


def ogg(*bodies: bytes, first: bytes = b"OpusHead\1\1" + bytes(9)) -> bytes:
    pages = b""
    for number, body in enumerate((first, b"OpusTags" + bytes(8), *(bodies or (bytes(200), bytes(150))))):
        lacing = bytes([255] * (len(body) // 255) + [len(body) % 255])
        pages += b"OggS\0" + bytes([2 if number == 0 else 0]) + bytes(12) + struct.pack("<I", number) + bytes(4)
        pages += bytes([len(lacing)]) + lacing + body
    return pages


FRAME = b"\xff\xfb\x90\x00" + bytes(413)  # MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes


def id3(content: bytes) -> bytes:
    frame = b"TIT2" + struct.pack(">I", len(content) + 1) + b"\0\0\3" + content
    size = len(frame)
    return b"ID3\4\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frame


def pdf(*objects: bytes, root: bytes = b"", trailer: bytes = b"") -> bytes:
    """A one-page PDF with more objects, more in its catalogue, more in its trailer."""
    body = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
    offsets = []
    page = stream(b"BT /F1 12 Tf (hello) Tj ET", b"")
    parts = [
        b"<</Type/Catalog/Pages 2 0 R" + root + b">>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>", page, *objects,
    ]  # fmt: skip
    for number, part in enumerate(parts, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % at for at in offsets)
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n"
    return body + end % (len(parts) + 1, table, len(parts) + 1, trailer, len(body))


def stream(content: bytes, more: bytes, packed: bytes | None = None) -> bytes:
    data = zlib.compress(content) if packed is None else packed
    return b"<</Filter/FlateDecode/Length %d%s>>\nstream\n%s\nendstream" % (len(data), more, data)


def objects_in(content: bytes, more: bytes = b"", packed: bytes | None = None) -> bytes:
    """An object stream with one object in it."""
    return stream(b"9 0 " + content, b"/Type/ObjStm/N 1/First 4" + more, packed)


JS = b"<</S/JavaScript/JS(app.alert\\('" + CANARY + b"'\\))>>"
VTT = "WEBVTT\n\n00:00.000 --> 00:02.000\n<v 老师>先听，<b>再说</b>。\n".encode()

HONEST: dict[str, tuple[str, bytes]] = {
    "jpeg": ("image/jpeg", picture("JPEG", (1200, 800))),
    "jpeg cmyk": ("image/jpeg", coded(Image.new("CMYK", (40, 40), (10, 20, 30, 0)), "JPEG")),
    "png": ("image/png", picture("PNG", (1500, 500))),
    "png palette with transparency": ("image/png", coded(Image.new("P", (40, 40), 3), "PNG", transparency=3)),
    "png 16 bit": ("image/png", coded(Image.new("I;16", (40, 40), 40000), "PNG")),
    "webp": ("image/webp", picture("WEBP")),
    "gif": ("image/gif", picture("GIF")),
    "mp3": ("audio/mpeg", FRAME * 5),
    "mp3 with tags": ("audio/mpeg", id3("心桥".encode()) + FRAME * 5 + b"TAG" + bytes(125)),
    "mp3 cut in its last frame": ("audio/mpeg", FRAME * 5 + FRAME[:200]),
    "m4a": ("audio/mp4", mp4(tracks=(b"soun",), brand=b"M4A ")),
    "ogg": ("audio/ogg", ogg()),
    "mp4": ("video/mp4", mp4(box(b"free"))),
    "mp4 with a 64-bit box": ("video/mp4", mp4(struct.pack(">I4sQ", 1, b"free", 20) + b"abcd")),
    "webm": ("video/webm", webm()),
    "webm as a browser records it": ("video/webm", webm(live=True)),
    "pdf": ("application/pdf", pdf()),
    "pdf with packed objects and a first page": ("application/pdf", pdf(objects_in(b"<</A 1>>"), root=b"/OpenAction[3 0 R/Fit]")),
    "captions": ("text/vtt", VTT),
}

PDF, VTT_TYPE = "application/pdf", "text/vtt"
PICTURE, JPEG = picture(), picture("JPEG")
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("Comment", PHP.decode())
TEXT.add_itxt("XML:com.adobe.xmp", SCRIPT.decode())
UNUSABLE = b"%!PS-Adobe-3.0\n(" + CANARY + b") show"
CLEAN = "accepted, without what rode along"

HOSTILE: dict[str, tuple[str, bytes | Callable[[], bytes], str]] = {
    # pictures
    "html as png": ("image/png", b"<!doctype html><html>" + SCRIPT, "file_signature"),
    "html as jpeg": ("image/jpeg", b"<html>" + SCRIPT, "file_signature"),
    "html as gif": ("image/gif", b"\n<html>" + SCRIPT, "file_signature"),
    "svg as png": ("image/png", b'<svg xmlns="http://www.w3.org/2000/svg">' + SCRIPT + b"</svg>", "file_signature"),
    "svg as webp": ("image/webp", b'<?xml version="1.0"?><svg>' + SCRIPT + b"</svg>", "file_signature"),
    "gif that is javascript": ("image/gif", b"GIF89a=1;alert('" + CANARY + b"');//", "file_damaged"),
    "gif with javascript behind": ("image/gif", picture("GIF") + b"*/=1;alert('" + CANARY + b"')", CLEAN),
    "gif with javascript in a comment": ("image/gif", picture("GIF", comment=SCRIPT), CLEAN),
    "png with a zip behind": ("image/png", PICTURE + zipped(), CLEAN),
    "png with php in its text": ("image/png", picture(pnginfo=TEXT), CLEAN),
    "png with an unknown chunk": ("image/png", PICTURE[:33] + chunk(b"xqCa", SCRIPT) + PICTURE[33:], CLEAN),
    "png with a profile": ("image/png", picture(icc_profile=SCRIPT), CLEAN),
    "jpeg with php in its comment": ("image/jpeg", picture("JPEG", comment=PHP), CLEAN),
    "jpeg with php in its exif": ("image/jpeg", picture("JPEG", exif=exif(description=PHP)), CLEAN),
    "jpeg with a place": ("image/jpeg", picture("JPEG", exif=exif()), CLEAN),
    "jpeg with html behind": ("image/jpeg", JPEG + SCRIPT, CLEAN),
    "jpeg with a profile": ("image/jpeg", picture("JPEG", icc_profile=PHP * 9), CLEAN),
    "webp with a place": ("image/webp", picture("WEBP", exif=exif(), xmp=SCRIPT), CLEAN),
    "webp with html behind": ("image/webp", picture("WEBP") + SCRIPT, CLEAN),
    "png flood": ("image/png", png(60000, 60000), "file_pixels"),
    "png a little too large": ("image/png", png(8000, 5001), "file_pixels"),
    "gif flood": ("image/gif", b"GIF89a" + struct.pack("<HH", 65000, 65000) + picture("GIF")[10:], "file_pixels"),
    "jpeg flood": ("image/jpeg", JPEG.replace(struct.pack(">HH", 48, 64), b"\xfd\xe8\xfd\xe8"), "file_pixels"),
    "png that unpacks past its rows": ("image/png", lambda: png(20, 20, pixels=bomb(60)), CLEAN),
    "png with a text bomb": ("image/png", lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + bomb(20))), "file_damaged"),
    "zip as png": ("image/png", zipped(), "file_signature"),
    "zip bomb as png": ("image/png", zipped(30_000_000), "file_signature"),
    "png cut short": ("image/png", picture(size=(300, 300))[:400], "file_damaged"),
    "jpeg cut short": ("image/jpeg", picture("JPEG", (300, 300))[:900], "file_damaged"),
    "png head alone": ("image/png", b"\x89PNG\r\n\x1a\n" + CANARY, "file_damaged"),
    "moving png": ("image/png", moving("PNG"), "file_animated"),
    "moving gif": ("image/gif", moving("GIF"), "file_animated"),
    "moving webp": ("image/webp", moving("WEBP"), "file_animated"),
    "jpeg as png": ("image/png", JPEG, "file_signature"),
    "tiff as jpeg": ("image/jpeg", picture("TIFF"), "file_signature"),
    "program as jpeg": ("image/jpeg", b"MZ\x90\0" + bytes(60) + CANARY, "file_signature"),
    "program as webp": ("image/webp", b"\x7fELF\2\1\1" + CANARY, "file_signature"),
    "postscript as jpeg": ("image/jpeg", UNUSABLE, "file_signature"),
    "icon as gif": ("image/gif", picture("ICO"), "file_signature"),
    # sound and film
    "html as mp3": ("audio/mpeg", b"<p>" + CANARY, "file_signature"),
    "mp3 with html in its tag": ("audio/mpeg", id3(SCRIPT) + FRAME * 5, "file_foreign"),
    "mp3 with a name in its tag": ("audio/mpeg", id3(CANARY) + FRAME * 5, CLEAN),
    "mp3 with a name behind": ("audio/mpeg", FRAME * 5 + b"TAG" + CANARY + bytes(111), CLEAN),
    "mp3 with a zip behind": ("audio/mpeg", FRAME * 5 + zipped(), "file_foreign"),
    "mp3 with junk behind": ("audio/mpeg", FRAME * 5 + CANARY * 50, "file_foreign"),
    "mp3 of two frames": ("audio/mpeg", FRAME * 2 + CANARY * 50, "file_damaged"),
    "html as mp4": ("video/mp4", b"<html>" + SCRIPT, "file_foreign"),
    "mp4 with html in a free box": ("video/mp4", mp4(box(b"free", SCRIPT)), "file_foreign"),
    "mp4 with junk in a free box": ("video/mp4", mp4(box(b"free", CANARY), box(b"uuid", bytes(16), CANARY)), CLEAN),
    "mp4 with a place": ("video/mp4", mp4(moov=box(b"udta", box(b"\xa9xyz", CANARY)) + box(b"meta", CANARY)), CLEAN),
    "mp4 with a place in its track": ("video/mp4", mp4(tracks=(b"soun",), moov=trak(b"vide", box(b"udta", CANARY))), CLEAN),
    "mp4 with a track of places": ("video/mp4", mp4(tracks=(b"vide", b"meta")), "file_foreign"),
    "mp4 with a zip behind": ("video/mp4", mp4() + zipped(), "file_foreign"),
    "mp4 with a zip in a box": ("video/mp4", mp4() + box(b"free", zipped()), "file_foreign"),
    "mp4 with junk behind": ("video/mp4", mp4() + CANARY, "file_damaged"),
    "mp4 with an unknown box": ("video/mp4", mp4(box(b"evil", CANARY)), "file_foreign"),
    "mp4 with a box past its end": ("video/mp4", mp4()[:-9], "file_damaged"),
    "mp4 without data": ("video/mp4", mp4()[: -len(MDAT)], "file_damaged"),
    "film as sound": ("audio/mp4", mp4(), "file_signature"),
    "sound as film": ("video/mp4", mp4(tracks=(b"soun",)), "file_signature"),
    "quicktime as mp4": ("video/mp4", mp4(brand=b"qt  "), "file_signature"),
    "heif as mp4": ("video/mp4", mp4(brand=b"heic"), "file_signature"),
    "matroska as webm": ("video/webm", webm(doctype=b"matroska"), "file_signature"),
    "webm with another codec": ("video/webm", webm(codec=b"V_UNCOMPRESSED"), "file_foreign"),
    "webm with an attachment": ("video/webm", webm(element("1941A469", CANARY)), "file_foreign"),
    "webm with names in its tags": ("video/webm", webm(element("1254C367", CANARY * 20), element("EC", CANARY)), CLEAN),
    "webm with junk behind": ("video/webm", webm() + CANARY, "file_foreign"),
    "webm with html behind": ("video/webm", webm(live=True) + SCRIPT, "file_foreign"),
    "webm cut short": ("video/webm", webm()[:-20], "file_damaged"),
    "ebml head alone": ("video/webm", b"\x1a\x45\xdf\xa3" + CANARY, "file_damaged"),
    "ogg film as sound": ("audio/ogg", ogg(first=b"\x80theora" + bytes(30)), "file_signature"),
    "ogg with junk behind": ("audio/ogg", ogg() + CANARY, "file_foreign"),
    "ogg with html in a comment": ("audio/ogg", ogg(SCRIPT), "file_foreign"),
    "ogg cut short": ("audio/ogg", ogg()[:-20], "file_damaged"),
    "wav as ogg": ("audio/ogg", b"RIFF\0\0\0\0WAVEfmt " + CANARY, "file_signature"),
    # documents and captions
    "html as pdf": (PDF, b"<p>" + CANARY, "file_signature"),
    "pdf with something in front": (PDF, CANARY + pdf(), "file_signature"),
    "pdf with something behind": (PDF, pdf() + CANARY, "file_foreign"),
    "pdf with a zip behind": (PDF, pdf() + zipped(), "file_foreign"),
    "pdf without an end": (PDF, pdf()[:-7], "file_damaged"),
    "pdf that runs a script when opened": (PDF, pdf(root=b"/OpenAction" + JS), "file_active"),
    "pdf that opens with an action": (PDF, pdf(b"<</S/URI/URI(http://x)>>", root=b"/OpenAction 5 0 R"), "file_active"),
    "pdf with a named script": (PDF, pdf(root=b"/Names<</JavaScript<</Names[(a)5 0 R]>>>>"), "file_active"),
    "pdf with a script spelled otherwise": (PDF, pdf(JS.replace(b"/JavaScript", b"/J#61va#53cript")), "file_active"),
    "pdf with JS alone": (PDF, pdf(b"<</S/Named/JS(" + CANARY + b")>>"), "file_active"),
    "pdf with a packed script": (PDF, pdf(objects_in(JS)), "file_active"),
    "pdf, packed script, type hidden": (PDF, pdf(objects_in(JS).replace(b"/ObjStm", b"/Obj#53tm")), "file_active"),
    "pdf with a packed script, packing broken": (
        PDF, pdf(objects_in(b"", packed=zlib.compress(b"9 0 " + JS + bytes(99))[:-6] + b"\xff" * 6)), "file_active",
    ),
    "pdf, packed objects behind a predictor": (
        PDF, pdf(objects_in(JS, b"/DecodeParms<</Predictor 12/Columns 4>>", packed=zlib.compress(b"ab"))), "file_opaque",
    ),
    "pdf, packed objects in another packing": (
        PDF, pdf(objects_in(JS, packed=base64.a85encode(JS)).replace(b"/FlateDecode", b"/ASCII85Decode")), "file_opaque",
    ),
    "pdf with a script inside another stream": (
        PDF, pdf(b"<</Length 900>>\nstream\n" + objects_in(JS) + b"\nendstream"), "file_active",
    ),
    "pdf with an action on a page": (PDF, pdf(b"<</AA<</O 6 0 R>>>>"), "file_active"),
    "pdf that starts a program": (PDF, pdf(b"<</S/Launch/F(cmd.exe)>>"), "file_active"),
    "pdf that sends a form": (PDF, pdf(b"<</S/SubmitForm/F(http://x)>>"), "file_active"),
    "pdf with an xml form": (PDF, pdf(b"<</XFA 6 0 R>>"), "file_active"),
    "pdf with a file inside": (PDF, pdf(stream(CANARY, b"/Type/EmbeddedFile")), "file_active"),
    "pdf with a file specification": (PDF, pdf(b"<</Type/Filespec/EF<</F 6 0 R>>>>"), "file_active"),
    "pdf with a film": (PDF, pdf(b"<</Subtype/RichMedia>>"), "file_active"),
    "encrypted pdf": (PDF, pdf(trailer=b"/Encrypt<</Filter/Standard>>"), "file_encrypted"),
    "pdf that unpacks to much": (PDF, lambda: pdf(stream(b"", b"", packed=bomb(600))), "file_damaged"),
    "captions with a script": (VTT_TYPE, VTT + SCRIPT, "file_foreign"),
    "captions with an image": (VTT_TYPE, VTT + b"<img src=x onerror=" + CANARY + b">", "file_active"),
    "captions with a style that loads": (VTT_TYPE, b"WEBVTT\n\nSTYLE\n::cue{background:url(//" + CANARY + b")}\n", "file_active"),
    "captions without a head": (VTT_TYPE, b"00:00.000 --> 00:02.000\n" + CANARY, "file_signature"),
    "captions in another encoding": (VTT_TYPE, VTT + "再说".encode("gb18030") + CANARY, "file_signature"),
    "captions with a NUL": (VTT_TYPE, VTT + b"\0" + CANARY, "file_damaged"),
}  # fmt: skip


# --- S3 as seen from outside -----------------------------------------------------------------------------------------


class Bucket:
    """The bucket, looked at with a client of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = boto3.client(
            "s3", endpoint_url=settings.s3_endpoint_url, aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key, region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )  # fmt: skip

    def keys(self, prefix: str = "") -> list[str]:
        """Names of all objects below a prefix."""
        answer = self.client.list_objects_v2(Bucket=self.settings.s3_bucket, Prefix=prefix)
        return [row["Key"] for row in answer.get("Contents", [])]

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.settings.s3_bucket, Key=key, Body=data, ContentType=content_type)

    def empty(self) -> None:
        """Delete everything."""
        for key in self.keys():
            self.client.delete_object(Bucket=self.settings.s3_bucket, Key=key)
        for one in objects.unfinished(self.settings, ""):
            objects.abort(self.settings, one.key, one.upload)

    def hostile(self, folder: Path) -> list[str]:
        """What is wrong with `media/`: an object that is not its own hash, not its type, or holds a canary."""
        wrong = []
        for key in self.keys("media/"):
            answer = self.client.get_object(Bucket=self.settings.s3_bucket, Key=key)
            data, content_type = answer["Body"].read(), answer["ContentType"]
            if key != f"media/{hashlib.sha256(data).hexdigest()}":
                wrong.append(f"{key} is not its hash")
            if CANARY in data or b"<?php" in data or b"<script" in data:
                wrong.append(f"{key} holds a canary")
            if (
                content_type not in TYPES
                or "immutable" not in answer["CacheControl"]
                or "filename" not in answer["ContentDisposition"]
            ):
                wrong.append(f"{key} is served as {content_type}")
            work = folder / "work"
            work.mkdir(exist_ok=True)
            (work / "file").write_bytes(data)
            try:
                inspection.inspect(work / "file", content_type, work)
            except inspection.Refused as refused:
                wrong.append(f"{key} would be refused: {refused}")
        return wrong


@pytest.fixture
def bucket(settings: Settings, clean: None) -> Iterator[Bucket]:
    """An empty bucket beside an empty database."""
    objects.ensure_bucket(settings)
    made = Bucket(settings)
    made.empty()
    yield made
    made.client.close()


def post(form: dict[str, Any], data: bytes, **fields: str) -> int:
    """Send a form as a browser does; returns the status."""
    return requests.post(form["url"], data={**form["fields"], **fields}, files={"file": ("x", data)}, timeout=20).status_code


def uploaded(settings: Settings, content_type: str, data: bytes, **more: Any) -> str:
    """Announce and send a file; returns its id."""
    form = media.begin_upload(settings, content_type, len(data), SYSTEM, **more)
    assert post(form, data) in {200, 204}
    return str(form["id"])


def released() -> published.Snapshot:
    reader = published.Reader()
    assert reader.refresh()
    return reader.current


# --- the checks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HONEST)
def test_honest_files_pass(name: str, settings: Settings, bucket: Bucket, tmp_path: Path) -> None:
    content_type, data = HONEST[name]
    key = uploaded(settings, content_type, data, title=name, alt={"en": name})
    found = media.accept(settings, key, SYSTEM)
    assert found.state == "accepted"
    assert found.content_type == ("image/png" if content_type == "image/gif" else content_type)
    assert found.to_mongo() == media.accept(settings, key, SYSTEM).to_mongo()  # a second call is a no-op
    assert bucket.keys("quarantine/") == []
    assert sorted(bucket.keys("media/")) == sorted({f"media/{sha256}" for sha256 in found.files()})
    assert bucket.hostile(tmp_path) == []
    item = released().get("media", found.sha256)["*"].content
    assert item is not None
    assert (item["id"], item["alt"], item["bytes"]) == (key, {"en": name}, found.bytes)

    answer = requests.get(objects.address(settings, f"media/{found.sha256}"), timeout=10)
    assert hashlib.sha256(answer.content).hexdigest() == found.sha256
    assert answer.headers["Content-Type"] == found.content_type
    part = requests.get(objects.address(settings, f"media/{found.sha256}"), headers={"Range": "bytes=2-5"}, timeout=10)
    assert (part.status_code, part.content) == (206, answer.content[2:6])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_do_not_reach_media(name: str, settings: Settings, bucket: Bucket, tmp_path: Path) -> None:
    content_type, made, expected = HOSTILE[name]
    data = made() if callable(made) else made
    key = uploaded(settings, content_type, data)
    if expected == CLEAN:
        assert media.accept(settings, key, SYSTEM).state == "accepted"
        assert bucket.keys("media/")
    else:
        for _ in range(2):  # a second call gives the same refusal
            with pytest.raises(Invalid) as refused:
                media.accept(settings, key, SYSTEM)
            assert refused.value.code == "not_what_it_says"
            assert [e.code for e in refused.value.errors] == [expected]
            assert all(refused.value.errors[0].messages.values())
        assert media.find(key).state == "refused"
        assert bucket.keys("media/") == []
        assert released().entries("media") == {}
    assert bucket.hostile(tmp_path) == []
    assert bucket.keys("quarantine/") == []


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(HOSTILE) >= 40
    assert {entry[0] for entry in HOSTILE.values()} == set(TYPES) == {entry[0] for entry in HONEST.values()}
    assert {entry[2] for entry in HOSTILE.values()} - {CLEAN} <= set(TEXTS)


def test_an_image_loses_its_place_and_keeps_its_way_up(settings: Settings, bucket: Bucket) -> None:
    found = media.accept(settings, uploaded(settings, "image/jpeg", picture("JPEG", (1200, 600), exif=exif())), SYSTEM)
    assert (found.width, found.height) == (600, 1200)  # orientation 6 is applied
    assert [(r.width, r.height, r.content_type) for r in found.renditions] == [(480, 960, "image/webp")]  # never enlarged
    for sha256 in found.files():
        answer = requests.get(objects.address(settings, f"media/{sha256}"), timeout=10)
        with Image.open(io.BytesIO(answer.content)) as image:
            assert not image.getexif()
            assert not {"exif", "icc_profile", "comment", "xmp"} & set(image.info)
            red, _, blue = image.convert("RGB").getpixel((image.width // 2, 4))  # type: ignore[misc]
            assert red > 150 > blue


def test_the_form_takes_nothing_else(settings: Settings, bucket: Bucket) -> None:
    for content_type in ("image/svg+xml", "text/html", "application/zip", "image/tiff", "IMAGE/PNG", ""):
        with pytest.raises(Invalid):
            media.begin_upload(settings, content_type, 10, SYSTEM)
    for content_type, kind in TYPES.items():
        for size in (0, -1, kind.limit + 1, 2**63):
            with pytest.raises(Invalid):
                media.begin_upload(settings, content_type, size, SYSTEM)
    form = media.begin_upload(settings, "image/png", len(PICTURE), SYSTEM)
    assert form["expires_in"] <= 900
    assert post(form, PICTURE + b"x") >= 400
    assert post(form, PICTURE[:-1]) >= 400
    assert post(form, PICTURE, **{"Content-Type": "text/html"}) >= 400
    assert post(form, PICTURE, key="media/" + "0" * 64) >= 400
    assert post(form, PICTURE, key="quarantine/another") >= 400
    assert bucket.keys() == []
    with pytest.raises(Conflict) as missing:
        media.accept(settings, form["id"], SYSTEM)
    assert missing.value.code == "upload_missing"
    # a form cannot do it, but whoever holds the bucket's keys can
    bucket.put(f"quarantine/{form['id']}", PICTURE, "text/html")
    with pytest.raises(Invalid):
        media.accept(settings, form["id"], SYSTEM)
    with pytest.raises(NotFound):
        media.accept(settings, store.new_id(), SYSTEM)


def swap(settings: Settings, bucket: Bucket, folder: Path, rounds: int) -> dict[str, int]:
    """Accept while the quarantined object is overwritten in a loop with something hostile of the same size."""
    honest = picture(size=(900, 700), compress_level=0)
    evil = (b"<html>" + SCRIPT).ljust(len(honest), b" ")
    outcomes: dict[str, int] = {}
    for number in range(rounds):
        form = media.begin_upload(settings, "image/png", len(honest), SYSTEM)
        assert post(form, honest) in {200, 204}
        stop = threading.Event()

        def overwrite(stop: threading.Event = stop, form: dict[str, Any] = form) -> None:
            while not stop.is_set():
                post(form, evil)
                post(form, honest)

        thread = threading.Thread(target=overwrite)
        thread.start()
        time.sleep(number % 10 * 0.003)
        outcome = "changed to the end"
        try:
            for _ in range(100):
                try:
                    outcome = str(media.accept(settings, form["id"], SYSTEM).state)
                except Conflict as conflict:
                    assert conflict.code in {"upload_changed", "upload_missing"}
                    continue
                break
        except Invalid as refused:
            assert refused.code == "not_what_it_says"
            outcome = "refused"
        finally:
            stop.set()
            thread.join()
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert bucket.hostile(folder) == []
    return outcomes


def test_a_swap_after_the_check_changes_nothing(settings: Settings, bucket: Bucket, tmp_path: Path) -> None:
    outcomes = swap(settings, bucket, tmp_path, 6)
    assert sum(outcomes.values()) == 6
    print("swap:", outcomes)


@pytest.mark.slow
def test_two_hundred_swaps(settings: Settings, bucket: Bucket, tmp_path: Path) -> None:
    outcomes = swap(settings, bucket, tmp_path, 200)
    assert sum(outcomes.values()) == 200
    print("swap:", outcomes)


def test_two_who_accept_at_once_get_one_result(settings: Settings, bucket: Bucket) -> None:
    key = uploaded(settings, "image/png", PICTURE)
    results: list[Any] = []

    def accept() -> None:
        try:
            results.append(media.accept(settings, key, SYSTEM).sha256)
        except Conflict as conflict:  # it was cleared under the second one's eyes
            results.append(conflict.code)

    threads = [threading.Thread(target=accept) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = media.find(key)
    assert set(results) == {found.sha256}
    assert [line.action for line in records.history("media", key)].count("media.accept") == 1


# --- afterwards ------------------------------------------------------------------------------------------------------


def test_what_is_used_stays_and_twins_share_their_bytes(settings: Settings, bucket: Bucket) -> None:
    data = picture(size=(600, 400))
    first, second = (media.accept(settings, uploaded(settings, "image/png", data, title=t), SYSTEM) for t in ("a", "b"))
    assert first.sha256 == second.sha256
    lessons.create("calm", {"kind": "tip", "media": [first.id]}, {"en": {"title": "Calm"}}, SYSTEM)
    with pytest.raises(Conflict) as used:
        media.remove(settings, first.id, SYSTEM, lessons.used_in, first.revision)
    assert (used.value.code, used.value.params["used_in"]) == ("in_use", "lesson calm")
    with pytest.raises(Stale):
        media.remove(settings, second.id, SYSTEM, lessons.used_in, second.revision + 1)
    media.remove(settings, second.id, SYSTEM, lessons.used_in, second.revision)
    assert len(bucket.keys("media/")) == 2  # the first still needs both
    item = released().get("media", first.sha256)["*"].content
    assert item is not None
    assert item["id"] == first.id
    media.remove(settings, first.id, SYSTEM, lambda _: [], first.revision)
    assert bucket.keys() == []
    assert released().entries("media") == {}
    with pytest.raises(NotFound):
        media.find(first.id)


def test_quarantine_is_empty_after_a_day(settings: Settings, bucket: Bucket) -> None:
    kept = media.accept(settings, uploaded(settings, "image/png", PICTURE), SYSTEM)
    waiting = uploaded(settings, "image/png", PICTURE)
    bucket.put("quarantine/of-nobody", b"x", "text/html")
    assert media.purge_quarantine(settings, store.now() + timedelta(hours=23)) == 0
    assert media.find(waiting).state == "waiting"
    assert media.purge_quarantine(settings, store.now() + timedelta(hours=24, minutes=1)) == 2
    assert bucket.keys("quarantine/") == []
    assert bucket.keys("media/") == [f"media/{kept.sha256}"]
    with pytest.raises(NotFound):
        media.find(waiting)
    assert media.find(kept.id).state == "accepted"
    assert media.purge_quarantine(settings, store.now() + timedelta(hours=25)) == 0


def test_s3_that_is_away_is_said_so(settings: Settings, bucket: Bucket) -> None:
    key = uploaded(settings, "image/png", PICTURE)
    away = replace(settings, s3_endpoint_url="http://127.0.0.1:9")
    with pytest.raises(Unavailable):
        media.accept(away, key, SYSTEM)
    with pytest.raises(Unavailable):
        media.purge_quarantine(away, store.now())
    assert objects.rights(away)[0].startswith("S3 does not answer")
    assert media.find(key).state == "waiting"
    assert media.accept(settings, key, SYSTEM).state == "accepted"


def test_the_doctor_and_the_first_start(settings: Settings, bucket: Bucket) -> None:
    other = replace(settings, s3_bucket="xinqiao-other")
    assert "HTTP 404" in objects.rights(other)[0]
    assert objects.ensure_bucket(other)[0] == "bucket xinqiao-other"
    assert objects.ensure_bucket(other) == []
    assert objects.rights(other) == []
    wrong = replace(settings, s3_secret_key="wrong" * 8)
    assert "403" in objects.rights(wrong)[0]


def test_addresses_are_short_lived_or_public(settings: Settings, bucket: Bucket) -> None:
    found = media.accept(settings, uploaded(settings, "image/png", PICTURE), SYSTEM)
    signed = objects.address(settings, f"media/{found.sha256}")
    assert "X-Amz-Expires=900" in signed
    assert requests.get(signed.split("?")[0], timeout=10).status_code == 403
    assert requests.get(signed.replace(found.sha256, "0" * 64), timeout=10).status_code in {403, 404}
    public = replace(settings, s3_public_url="https://cdn.example.org/x/")
    assert objects.address(public, f"media/{found.sha256}") == f"https://cdn.example.org/x/media/{found.sha256}"


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(settings: Settings, bucket: Bucket) -> Iterator[Site]:
    """The API."""
    with serving(settings) as made:
        made.begin()
        yield made


def test_from_a_form_to_a_phone(site: Site, bucket: Bucket) -> None:
    own, other = (staff.create_organisation(name, "school", "150603", SYSTEM).id for name in ("一中", "二中"))
    site.person("editor", "editor", organisation=own)
    site.person("stranger", "editor", organisation=other)
    site.person("reader", "reviewer")
    data = picture("JPEG", (800, 1200), exif=exif())  # lies on its side
    body = {"content_type": "image/jpeg", "size": len(data), "title": "操场", "alt": [{"language": "zh-CN", "text": "红蓝两半"}]}

    assert site.post("/v1/staff/media", body).status_code == 401
    assert site.post("/v1/staff/media", body, by="reader").status_code == 403
    assert site.post("/v1/staff/media", {**body, "organisation": other}, by="editor").status_code == 403
    for wrong in (
        {"content_type": "image/svg+xml"},
        {"size": 0},
        {"size": 2**40},
        {"size": "1"},
        {"who": 1},
        {"alt": {"zh": "x"}},
    ):
        assert site.post("/v1/staff/media", {**body, **wrong}, by="editor").status_code == 422, wrong
    made = site.post("/v1/staff/media", body, by="editor")
    assert made.status_code == 201, made.text
    form, path = made.json(), made.headers["Location"]
    assert site.post(f"{path}/accept", by="editor").json()["code"] == "upload_missing"
    assert post(form, data) in {200, 204}

    # somebody else's waiting file is not there
    assert site.get(path, by="stranger").status_code == 404
    assert site.post(f"{path}/accept", by="stranger").status_code == 404
    accepted = site.post(f"{path}/accept", by="editor")
    assert accepted.status_code == 200, accepted.text
    assert accepted.json() == site.post(f"{path}/accept", by="editor").json()
    sha256 = accepted.json()["sha256"]
    assert site.get(path, by="stranger").json()["sha256"] == sha256  # accepted: for all to use, not to change
    assert site.call("DELETE", path, by="stranger", match='"2"').status_code == 403

    shown = site.get(f"/v1/media/{sha256}", headers={"Accept-Language": "en"}).json()
    assert (shown["alt"], shown["language"], shown["title"]) == ("红蓝两半", "zh-Hans", "操场")
    assert [(r["width"], r["content_type"]) for r in shown["renditions"]] == [(480, "image/webp"), (960, "image/webp")]
    for address, width in (
        (shown["address"], 1200),
        (f"{shown['address']}?width=500", 960),
        (f"{shown['address']}?width=2000", 1200),
    ):
        redirect = site.get(address)
        assert redirect.status_code == 302
        assert redirect.headers["Cache-Control"] == "private, max-age=450"
        with Image.open(io.BytesIO(requests.get(redirect.headers["Location"], timeout=10).content)) as image:
            assert image.width == width
    for wrong_path in ("0" * 64, "x", "a.b", "%24where"):
        assert site.get(f"/v1/media/{wrong_path}").status_code == 404
        assert site.get(f"/v1/media/{wrong_path}/file").status_code == 404
    assert site.get(f"/v1/media/{sha256}/file?width=0").status_code == 422

    # describe it, with If-Match
    edit = {"title": "操场一角", "alt": [{"language": "en", "text": "two halves"}]}
    assert site.call("PATCH", path, by="editor", json=edit).status_code == 428
    assert site.call("PATCH", path, by="editor", match='"1"', json=edit).status_code == 412
    edited = site.call("PATCH", path, by="editor", match=accepted.headers["ETag"], json=edit)
    assert edited.json()["alt"] == [{"language": "en", "text": "two halves"}]
    assert site.get(f"/v1/media/{sha256}").json()["alt"] == "two halves"

    # a refused one says why, in two languages
    refused = site.post("/v1/staff/media", {"content_type": "text/vtt", "size": 5}, by="editor").json()
    assert post(refused, b"<b>x<") in {200, 204}
    answer = site.post(f"/v1/staff/media/{refused['id']}/accept", by="editor")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "file_signature")
    assert set(site.get(f"/v1/staff/media/{refused['id']}", by="editor").json()["messages"]) == {"zh-Hans", "en"}

    # lists, in pages, each once
    listed = site.get("/v1/staff/media?limit=1", by="editor").json()
    after = site.get(f"/v1/staff/media?limit=1&cursor={listed['next_cursor']}", by="editor").json()
    assert [row["id"] for row in (*listed["items"], *after["items"])] == [refused["id"], form["id"]]
    assert after["next_cursor"] is None
    assert [row["id"] for row in site.get("/v1/staff/media", by="stranger").json()["items"]] == [form["id"]]
    assert site.get("/v1/staff/media?state=refused&kind=image", by="editor").json()["items"] == []
    for cursor in ("x", "WzFd", "WyJhIiwiYiJd"):
        assert site.get(f"/v1/staff/media?cursor={cursor}", by="editor").status_code == 400

    assert site.call("DELETE", path, by="editor").status_code == 428
    assert site.call("DELETE", path, by="editor", match=edited.headers["ETag"]).status_code == 204
    assert site.get(f"/v1/media/{sha256}").status_code == 404
    assert bucket.keys("media/") == []
    assert Media.rows().count_documents({}) == 1


# --- captions and transcript -----------------------------------------------------------------------------------------

SAID = "先听，再说。\n\nᠮᠣᠩᠭᠣᠯ\u202fᠤᠨ"


def test_a_film_without_captions_is_not_taught(site: Site, settings: Settings, bucket: Bucket) -> None:
    editor = site.person("editor", "editor")
    film = media.accept(settings, uploaded(settings, "video/mp4", mp4(), title="先听"), SYSTEM)
    words = media.accept(settings, uploaded(settings, VTT_TYPE, VTT, title="先听的字幕"), SYSTEM)
    photo = media.accept(settings, uploaded(settings, "image/png", PICTURE), SYSTEM)
    sound = media.accept(settings, uploaded(settings, "audio/ogg", ogg()), SYSTEM)
    silent = media.accept(settings, uploaded(settings, "video/webm", webm()), SYSTEM)
    path, public = f"/v1/staff/media/{film.id}", f"/v1/media/{film.sha256}"
    site.refresh()
    assert site.get(public).json()["captions"] == []
    assert site.get(public).json()["transcript"] is None

    facts: dict[str, Any] = {"kind": "tip", "audiences": ["parent"], "stages": ["junior"], "topics": ["emotion"]}
    facts["sources"] = [{"title": "本项目"}]
    text = {"title": "先听", "body": f"看一看。\n\n![先听](media:{film.sha256}) ![](media:{photo.sha256})", "summary": "一分钟"}
    body = {"slug": "listen", **facts, "texts": [{"language": "zh-Hans", **text, "try_this": "听"}]}
    assert site.post("/v1/staff/lessons", body, by=editor).status_code == 201

    def submit() -> requests.Response:
        return site.post("/v1/staff/lessons/listen/submit", {"language": "zh-Hans"}, by=editor, match='"1"')

    refused = submit()
    assert (refused.status_code, refused.json()["code"]) == (409, "incomplete")
    for part in ("captions", "transcript"):
        assert f"media {film.sha256} “先听” {part} zh-Hans" in refused.json()["messages"]["en"]

    def describe(where: str = path, **facts: Any) -> requests.Response:
        return site.call("PATCH", where, by=editor, match=site.get(where, by=editor).headers["ETag"], json=facts)

    for wrong in ("0" * 64, photo.sha256):
        answer = describe(captions=[{"language": "zh-CN", "file": wrong}])
        assert answer.status_code == 422, answer.text
        assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [("captions.zh-Hans", "not_captions")]
    twice = [{"language": "zh-CN", "text": "a"}, {"language": "zh-Hans", "text": "b"}]
    for facts in (
        {"transcript": twice}, {"transcript": [{"language": "zh-Hans", "text": ""}]},
        {"transcript": [{"language": "zh-Hans", "text": " \n"}]}, {"transcript": [{"language": "en", "text": "x" * 200_001}]},
        {"captions": [{"language": "zh-Hans", "file": "x"}]},
    ):  # fmt: skip
        assert describe(**facts).status_code == 422, facts
    still = describe(f"/v1/staff/media/{photo.id}", transcript=[{"language": "zh-Hans", "text": "一张图"}])
    assert [(e["field"], e["code"]) for e in still.json()["errors"]] == [("transcript", "unsupported")]
    assert site.get(path, by=editor).headers["ETag"] == '"2"'  # nothing of all that was written

    assert describe(captions=[{"language": "zh-CN", "file": words.sha256}]).status_code == 200
    assert submit().json()["messages"]["en"].count("media ") == 1  # the transcript
    told = describe(transcript=[{"language": "zh-CN", "text": f"  {SAID}\r\n"}, {"language": "en", "text": "Listen first."}])
    assert told.json()["transcript"] == [{"language": "en", "text": "Listen first."}, {"language": "zh-Hans", "text": SAID}]
    assert told.json()["captions"] == [{"language": "zh-Hans", "file": words.sha256}]
    sent = submit()
    assert sent.status_code == 200, sent.text
    reviewer = site.person("reviewer", "reviewer")
    for move in ("approve", "publish"):
        match = sent.headers["ETag"]
        sent = site.post(f"/v1/staff/lessons/listen/{move}", {"language": "zh-Hans"}, by=reviewer, match=match)
        assert sent.status_code == 200, sent.text
    # what it needs in its language stays as long as it is read, also for a film whose lesson is out
    for facts in ({"captions": []}, {"transcript": [{"language": "en", "text": "Listen first."}]}):
        less = describe(**facts)
        assert (less.status_code, less.json()["code"]) == (409, "in_use"), less.text
        assert "lesson listen zh-Hans" in less.json()["messages"]["en"]

    shown = site.get(public, headers={"Accept-Language": "mn-Mong, zh"}).json()
    assert shown["transcript"] == {"language": "zh-Hans", "text": SAID}
    (caption,) = shown["captions"]
    assert (caption["language"], caption["sha256"]) == ("zh-Hans", words.sha256)
    answer = requests.get(site.get(caption["address"]).headers["Location"], timeout=10)
    assert (answer.content, answer.headers["Content-Type"]) == (VTT, VTT_TYPE)
    assert site.get(public, headers={"Accept-Language": "en"}).json()["transcript"]["text"] == "Listen first."
    item = released().get("media", film.sha256)["*"].content
    assert item is not None
    assert (item["captions"], item["transcript"]["zh-Hans"]) == ({"zh-Hans": words.sha256}, SAID)

    # each language on its own; sound, and a film without sound, need no captions
    names = [film.sha256, photo.sha256, sound.sha256, silent.sha256, "0" * 64]
    assert media.gaps(names, "en") == [
        line for name in sorted(names) for line in {
            film.sha256: [f"media {name} “先听” captions en"], photo.sha256: [], "0" * 64: [f"media {name}"],
            sound.sha256: [f"media {name} transcript en"], silent.sha256: [f"media {name} transcript en"],
        }[name]
    ]  # fmt: skip
    assert media.gaps([], "en") == []

    # captions in use stay
    held = f"/v1/staff/media/{words.id}"
    kept = site.call("DELETE", held, by=editor, match=site.get(held, by=editor).headers["ETag"])
    assert (kept.status_code, kept.json()["code"]) == (409, "in_use")
    assert "media 先听" in kept.json()["messages"]["en"]
    out = site.post("/v1/staff/lessons/listen/withdraw", {"language": "zh-Hans"}, by=reviewer, match=sent.headers["ETag"])
    assert out.status_code == 200, out.text
    assert describe(captions=[]).status_code == 200
    assert site.call("DELETE", held, by=editor, match=site.get(held, by=editor).headers["ETag"]).status_code == 204


# --- in parts --------------------------------------------------------------------------------------------------------

GO_ON = """
import json, sys, urllib.request as u
base, token, path, file = sys.argv[1:]
asked = u.Request(f"{base}{path}/parts", headers={"Authorization": f"Bearer {token}"})
found = json.load(u.urlopen(asked, timeout=20))
data = open(file, "rb").read()
for part in found["parts"]:
    start = (part["number"] - 1) * found["part_size"]
    u.urlopen(u.Request(part["url"], data[start : start + part["size"]], method="PUT"), timeout=20)
print(json.dumps([found["received"], [part["number"] for part in found["parts"]]]))
"""


def test_a_large_upload_is_cut_and_another_process_goes_on(site: Site, bucket: Bucket, tmp_path: Path) -> None:
    site.person("editor", "editor")
    site.person("stranger", "editor", organisation=staff.create_organisation("一中", "school", "150603", SYSTEM).id)
    data = mp4(box(b"mdat", random.Random(1).randbytes(12 * 2**20)))
    (tmp_path / "film").write_bytes(data)
    body = {"content_type": "video/mp4", "size": len(data), "title": "讲座", "resumable": True}
    made = site.post("/v1/staff/media", body, by="editor")
    assert made.status_code == 201, made.text
    path, parts, size = made.headers["Location"], made.json()["parts"], made.json()["part_size"]
    assert [part["number"] for part in parts] == [1, 2, 3]
    assert sum(part["size"] for part in parts) == len(data)

    def piece(number: int) -> bytes:
        return data[(number - 1) * size : number * size]

    def put(number: int, content: Any, url: str = "") -> int:
        return requests.put(url or parts[number - 1]["url"], data=content, timeout=20).status_code

    # S3 takes the announced number of bytes under the announced number, and nothing else
    assert put(1, piece(1)[:-1]) == 403
    assert put(1, piece(1) + b"x") == 403
    assert put(1, iter([piece(1)])) == 403  # in chunks, with no length said
    assert put(2, piece(2), parts[1]["url"].replace("partNumber=2", "partNumber=1")) == 403
    assert put(2, piece(2)) == 200
    assert put(2, piece(2)) == 200  # sent again, as one whose answer was lost
    where = urlsplit(parts[2]["url"])
    with socket.create_connection((str(where.hostname), where.port or 80)) as line:  # the line breaks in the third
        head = f"PUT {where.path}?{where.query} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(piece(3))}\r\n\r\n"
        line.sendall(head.encode() + piece(3)[:100_000])
    # whoever holds the bucket's keys can write a part of another size: it counts as not there
    upload = media.find(path.rpartition("/")[2]).upload
    bucket.client.upload_part(
        Bucket=bucket.settings.s3_bucket, Key=f"quarantine/{made.json()['id']}", UploadId=upload, PartNumber=1, Body=b"x"
    )

    cut = site.post(f"{path}/accept", by="editor")
    assert (cut.status_code, cut.json()["code"]) == (409, "upload_incomplete")
    assert "1, 3" in cut.json()["messages"]["en"]
    assert site.get(f"{path}/parts", by="stranger").status_code == 404
    argv = [sys.executable, "-c", GO_ON, site.base, site.tokens["editor"], path, str(tmp_path / "film")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[2], [1, 3]]

    accepted = site.post(f"{path}/accept", by="editor")
    assert accepted.status_code == 200, accepted.text
    assert accepted.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert "upload" not in accepted.json()
    assert site.post(f"{path}/accept", by="editor").json() == accepted.json()
    assert site.get(f"{path}/parts", by="editor").json()["code"] == "wrong_state"
    assert list(objects.unfinished(bucket.settings, "quarantine/")) == []
    assert bucket.hostile(tmp_path) == []
    assert bucket.keys("quarantine/") == []


def test_what_nobody_finishes_is_given_up(settings: Settings, bucket: Bucket) -> None:
    def begun() -> str:
        made = media.begin_upload(settings, "video/mp4", 5 * 2**20 + 9, SYSTEM, resumable=True)
        assert requests.put(made["parts"][1]["url"], data=bytes(9), timeout=10).status_code == 200
        return str(made["id"])

    removed, old = begun(), begun()
    media.remove(settings, removed, SYSTEM, lambda _: [])
    assert [one.key for one in objects.unfinished(settings, "quarantine/")] == [f"quarantine/{old}"]
    assert media.purge_quarantine(settings, store.now() + timedelta(hours=23)) == 0
    assert media.missing_parts(settings, old)["received"] == [2]
    assert media.purge_quarantine(settings, store.now() + timedelta(hours=24, minutes=1)) == 1
    assert list(objects.unfinished(settings, "quarantine/")) == []
    with pytest.raises(NotFound):
        media.missing_parts(settings, old)
    plain = media.begin_upload(settings, "video/mp4", 10, SYSTEM)["id"]
    with pytest.raises(Conflict):
        media.missing_parts(settings, plain)


# --- what ffmpeg makes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """Makes a second of film or sound with a name in its tags."""
    program = films.program()
    if program is None:
        pytest.skip("ffmpeg is not installed")
    folder = tmp_path_factory.mktemp("film")

    def make(name: str, *options: str) -> bytes:
        picture = ["-f", "lavfi", "-i", "testsrc2=size=960x540:rate=25"] if name.endswith(("mp4", "webm")) else []
        tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
        tags = ["-metadata", f"title={CANARY.decode()}", "-metadata", "location=+39.6+109.7/"]
        argv = [program, "-v", "error", "-y", *picture, *tone, "-t", "1", *options, *tags, str(folder / name)]
        subprocess.run(argv, check=True, timeout=60)
        return (folder / name).read_bytes()

    return make


X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def test_a_film_gets_its_smaller_versions(site: Site, settings: Settings, bucket: Bucket, film: Any, tmp_path: Path) -> None:
    site.person("editor", "editor")
    found = media.accept(settings, uploaded(settings, "video/mp4", film("a.mp4", *X264)), SYSTEM)
    staffs = site.get(f"/v1/staff/media/{found.id}", by="editor").json()
    assert (staffs["renditions_state"], set(staffs["renditions_messages"])) == ("waiting", {"zh-Hans", "en"})
    assert site.get(f"/v1/media/{found.sha256}/file?rendition=small").status_code == 404
    assert films.work(settings) == "done"
    assert films.work(settings) == ""
    site.refresh()

    shown = site.get(f"/v1/media/{found.sha256}").json()
    made = {row["name"]: row for row in shown["renditions"]}
    kinds = {"poster": ("image/webp", 854, 480), "small": ("video/mp4", 853, 480), "audio": ("audio/mp4", None, None)}
    assert {name: (row["content_type"], row["width"], row["height"]) for name, row in made.items()} == kinds
    for name, row in made.items():
        assert row["address"] == f"/v1/media/{found.sha256}/file?rendition={name}"
        answer = requests.get(site.get(row["address"]).headers["Location"], timeout=10)
        assert (len(answer.content), answer.headers["Content-Type"]) == (row["bytes"], row["content_type"])
        assert hashlib.sha256(answer.content).hexdigest() == row["sha256"]
        if name == "small":
            assert answer.content.find(b"moov") < answer.content.find(b"mdat")  # begins before it is all there
        if name == "poster":
            with Image.open(io.BytesIO(answer.content)) as image:
                assert len(image.getcolors(2**24) or []) > 100
    assert made["small"]["bytes"] < found.bytes
    assert bucket.hostile(tmp_path) == []  # no name, no place; each its own hash and what it says
    assert site.get(f"/v1/media/{found.sha256}/file?rendition=x").status_code == 422
    whole = site.get(f"/v1/media/{found.sha256}/file?width=200").headers["Location"]
    assert found.sha256 in whole  # a width is for pictures

    # sound: a smaller one; when there is nothing to gain, none
    large = media.accept(settings, uploaded(settings, "audio/mpeg", film("a.mp3", "-b:a", "320k")), SYSTEM)
    tiny = media.accept(settings, uploaded(settings, "audio/ogg", film("a.ogg", "-c:a", "libvorbis", "-b:a", "32k")), SYSTEM)
    assert [films.work(settings), films.work(settings)] == ["done", "done"]
    assert [row.name for row in media.find(large.id).renditions] == ["audio"]
    assert [row.name for row in media.find(tiny.id).renditions] == []

    media.remove(settings, found.id, SYSTEM, lambda _: [])
    assert {f"media/{name}" for one in (large, tiny) for name in media.find(one.id).files()} == set(bucket.keys())


def test_films_wait_for_ffmpeg(settings: Settings, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = media.accept(settings, uploaded(settings, "video/webm", webm()), SYSTEM)
    photo = media.accept(settings, uploaded(settings, "image/png", PICTURE), SYSTEM)
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        assert "not installed" in films.state()
        assert [films.work(settings), films.work(settings)] == ["no_ffmpeg", ""]
    assert (media.find(found.id).renditions_state, media.find(photo.id).renditions_state) == ("no_ffmpeg", "none")
    assert media.find(found.id).revision == found.revision  # an editor's If-Match still holds
    if shutil.which("ffmpeg"):
        assert films.work(settings) == "failed"  # taken up by itself; this one is nonsense inside
        assert films.work(settings) == ""
        assert requests.get(objects.address(settings, f"media/{found.sha256}"), timeout=10).status_code == 200


def test_a_worker_that_dies_loses_nothing_and_two_do_not_both(
    settings: Settings, bucket: Bucket, film: Any, tmp_path: Path
) -> None:
    found = media.accept(settings, uploaded(settings, "video/mp4", film("b.mp4", *X264, "-an")), SYSTEM)
    assert found.silent
    at = store.now()
    assert films._claim(at) is not None  # and here it dies
    assert films.work(settings, lambda: at + timedelta(seconds=100)) == ""
    machines = [replace(settings, var=tmp_path / name) for name in "ab"]
    outcomes: list[str] = []

    def run(machine: Settings) -> None:
        outcomes.append(films.work(machine, lambda: store.now() + timedelta(seconds=130)))

    threads = [threading.Thread(target=run, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["", "done"]
    assert [row.name for row in media.find(found.id).renditions] == ["poster", "small"]
    assert [line.action for line in records.history("media", found.id)].count("media.render") == 1

    # removed under the worker's hands: nothing of it stays
    other = media.accept(settings, uploaded(settings, "video/mp4", film("c.mp4", *X264, "-crf", "30")), SYSTEM)
    left = set(bucket.keys())
    claimed = films._claim(store.now())
    assert claimed is not None
    media.remove(settings, other.id, SYSTEM, lambda _: [])
    assert films._render(settings, Media.of(claimed), store.now) == "lost"
    assert set(bucket.keys()) == left - {f"media/{other.sha256}"}

    # one that takes the worker down each time is given up
    third = media.accept(settings, uploaded(settings, "video/mp4", film("d.mp4", *X264, "-crf", "31")), SYSTEM)
    for times in range(3):
        assert films._claim(store.now() + timedelta(minutes=10 * times)) is not None
    assert films.work(settings, lambda: store.now() + timedelta(hours=1)) == "failed"
    assert media.find(third.id).renditions_state == "failed"

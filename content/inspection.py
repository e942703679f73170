"""Whether an uploaded file is what it says, and the clean form of it that may be published.

`inspect(path, content_type, folder)` either raises `Refused` or returns files whose every byte was looked at:
- images are decoded by Pillow and written anew from their pixels, so EXIF, comments, colour profiles and whatever else rode
  along are gone; orientation is applied, and smaller WebP renditions are made;
- MP4, WebM, Ogg and MP3 are walked box by box, page by page, frame by frame, from the first byte to the last, and must tile
  the file; tags (which hold GPS positions and names) are blanked in place or cut off, but for the comment page of Ogg. Sound
  and picture data are not decoded: they can be nonsense, but they are served as nothing else than sound and picture;
- PDF and WebVTT stay byte for byte and are refused when they could do anything but be read.

Pure of network and database. `path` is the caller's private temporary copy and is changed in place.
"""

import contextlib
import mmap
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import puremagic
from PIL import Image, ImageOps

MIB = 2**20
PIXELS = 40_000_000  # an image of more is refused before it is decoded: RGBA of this size takes 160 MB
WIDTHS = (480, 960, 1440)  # pixels; renditions of images, never larger than the original
WEBP_SIDE = 16383  # pixels; the format's own limit
INFLATED = 512 * MIB  # bytes that all streams of a PDF may unpack to


class Type(NamedTuple):
    """One allowed content type."""

    kind: str
    """image, audio, video, document, captions."""
    limit: int
    """Bytes."""
    suffix: str


TYPES: Mapping[str, Type] = {
    "image/jpeg": Type("image", 20 * MIB, "jpg"),
    "image/png": Type("image", 20 * MIB, "png"),
    "image/webp": Type("image", 20 * MIB, "webp"),
    "image/gif": Type("image", 20 * MIB, "gif"),  # one picture only; kept as PNG
    "audio/mpeg": Type("audio", 100 * MIB, "mp3"),
    "audio/mp4": Type("audio", 100 * MIB, "m4a"),
    "audio/ogg": Type("audio", 100 * MIB, "ogg"),
    "video/mp4": Type("video", 500 * MIB, "mp4"),
    "video/webm": Type("video", 500 * MIB, "webm"),
    "application/pdf": Type("document", 50 * MIB, "pdf"),
    "text/vtt": Type("captions", MIB, "vtt"),
}


class Refused(Exception):
    """The file may not be published: a code of `failures.TEXTS` and its parameters."""

    def __init__(self, code: str, **params: str) -> None:
        self.code = code
        self.params = params
        super().__init__(code, params)


class Clean(NamedTuple):
    """One file that may be published."""

    path: Path
    content_type: str
    width: int | None = None
    height: int | None = None
    silent: bool = False
    """A film without a sound track."""


class Found(NamedTuple):
    """The original in its clean form, and its renditions from narrow to wide (images only)."""

    original: Clean
    renditions: list[Clean]


def inspect(path: Path, content_type: str, folder: Path) -> Found:
    """Check `path` against `content_type` (a key of TYPES); new files are written into `folder`. Raises `Refused`.

    Measured: a JPEG of 39 megapixels takes 4.6 s and 410 MB, so a process codes one image at a time; an MP4 of 400 MiB takes
    under 1 MB, since all but images is read through a memory map.
    """
    if not 0 < path.stat().st_size <= TYPES[content_type].limit:
        raise Refused("file_size")
    if TYPES[content_type].kind == "image":
        return _image(path, content_type, folder)
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0) as data:
            _nothing_foreign(data)
            try:
                start, end, width, height, silent = WALKS[content_type](data)
            except (IndexError, StopIteration):  # a length that leads past the end
                raise Refused("file_damaged") from None
            data.flush()
        if start:  # what was in front is cut off by a copy: a file cannot lose its head in place
            cut = folder / "cut"
            with cut.open("wb") as copy:
                file.seek(start)
                while start < end and (block := file.read(min(MIB, end - start))):
                    copy.write(block)
                    start += len(block)
            path = cut
        else:
            file.truncate(end)
    return Found(Clean(path, content_type, width, height, silent), [])


# Where text of a page or a script stands inside a file that is none, somebody wants it run: by a browser that guesses
# types, by a server that includes uploads. ZIP is read from its end, hence the second look.
FOREIGN = re.compile(rb"<(?:script|html|!doctype|iframe|svg\s|\?php\s)", re.I)


def _nothing_foreign(data: mmap.mmap) -> None:
    if found := FOREIGN.search(data):
        raise Refused("file_foreign", what=found[0].decode("latin-1").strip())
    if data.find(b"PK\x05\x06", max(0, len(data) - 65557)) >= 0:
        raise Refused("file_foreign", what="ZIP")


def _unlike(head: bytes, content_type: str) -> Refused:
    """The refusal of a file whose first bytes are of another type; says which, as far as can be told."""
    try:
        seems = puremagic.from_string(head, mime=True) or "?"
    except (puremagic.PureError, ValueError):
        seems = "?"
    return Refused("file_signature", content_type=content_type, seems=seems)


# --- images ----------------------------------------------------------------------------------------------------------

CODING = threading.Lock()
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}
HEADS = {
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/webp": re.compile(rb"RIFF....WEBPVP8[ LX]", re.S),
    "image/gif": re.compile(rb"GIF8[79]a"),
}


def _image(path: Path, content_type: str, folder: Path) -> Found:
    with path.open("rb") as file:
        head = file.read(4096)
    if not HEADS[content_type].match(head):
        raise _unlike(head, content_type)
    try:
        with CODING:
            image = _pixels(path, FORMATS[content_type])
            original = _write(image, folder / "original", {"GIF": "PNG"}.get(FORMATS[content_type], FORMATS[content_type]))
            return Found(original, list(_renditions(image, folder)))
    except Refused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused("file_pixels", limit=str(PIXELS // 1_000_000)) from None
    except Exception:  # a decoder meets made-up bytes: Pillow lets struct, zlib, index and memory errors through
        raise Refused("file_damaged") from None


def _renditions(image: Image.Image, folder: Path) -> Iterator[Clean]:
    for width in WIDTHS:
        height = max(1, round(image.height * width / image.width))
        if width < image.width and height <= WEBP_SIDE:
            small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
            yield _write(small, folder / f"w{width}", "WEBP")


def _pixels(path: Path, form: str) -> Image.Image:
    """The picture upright, in a mode every output format takes, with nothing beside its pixels."""
    with Image.open(path, formats=(form,)) as opened:
        if opened.width * opened.height > PIXELS:
            raise Refused("file_pixels", limit=str(PIXELS // 1_000_000))
        if form != "JPEG" and getattr(opened, "n_frames", 1) > 1:  # phones put a second picture into a JPEG: the first counts
            raise Refused("file_animated")
        opened.load()
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits a pixel: convert() would clip them, not scale them
            image = image.convert("I").point(lambda value: value / 256).convert("L")
        clear = "transparency" in image.info or image.mode in {"LA", "PA", "La", "RGBA", "RGBa"}
        image = image.convert("RGBA" if clear and form != "JPEG" else "L" if image.mode in {"1", "L"} else "RGB")
        image.info = {}  # Pillow would carry a comment or a colour profile over when it saves
        return image


def _write(image: Image.Image, path: Path, form: str) -> Clean:
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 85, "progressive": True},
        "PNG": {"compress_level": 6},
        "WEBP": {"quality": 82, "method": 4},
    }
    image.save(path, form, **options[form])
    return Clean(path, f"image/{form.lower()}", image.width, image.height)


# --- audio and video -------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """What a walk found: which bytes are to be kept, then the end of a `Clean`."""

    start: int
    end: int
    width: int | None = None
    height: int | None = None
    silent: bool = False


Walk = Callable[[mmap.mmap], Kept]

BRANDS = frozenset(  # `_` stands for a blank
    name.replace(b"_", b" ")
    for name in b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 mp41 mp42 mp71 avc1 hvc1 av01 dash cmfc M4A_ M4V_ M4VH M4VP "
    b"f4v_ MSNV mmp4 3gp4 3gp5 3gp6".split()
)
TOP = frozenset(b"ftyp moov mdat moof mfra sidx styp prft pdin free skip wide meta udta uuid emsg".split())
BLANKED = frozenset(b"free skip meta udta uuid emsg".split())  # notes and tags: who, where, with what
TRACKS = frozenset(b"soun vide sbtl subt text clcp".split())  # not `meta`: an action camera's GPS runs there


def _boxes(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(type, start, start of payload, end) of the boxes that tile start..end exactly."""
    while start < end:
        size, name, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        if size < head or start + size > end:
            raise Refused("file_damaged")
        yield name, start, start + head, start + size
        start += size


def _mp4(data: mmap.mmap, content_type: str) -> Kept:
    if data[4:8] != b"ftyp" or data[8:12] not in BRANDS:
        raise _unlike(data[:4096], content_type)
    tracks: set[bytes] = set()
    seen: set[bytes] = set()
    frame: tuple[int, int] | None = None

    def visit(begin: int, end: int, parent: bytes) -> None:
        nonlocal frame
        for name, start, first, last in _boxes(data, begin, end):
            if not parent:
                seen.add(name)
                if name not in TOP:
                    raise Refused("file_foreign", what=name.decode("latin-1"))
            if name in BLANKED:
                # made a `free` box of the same length, so that no offset into the file changes
                data[start + 4 : start + 8] = b"free"
                data[first:last] = bytes(last - first)
            elif (parent, name) in {(b"", b"moov"), (b"moov", b"trak"), (b"trak", b"mdia")}:
                visit(first, last, name)
            elif name == b"hdlr" and parent == b"mdia":
                tracks.add(data[first + 8 : first + 12])
            elif name == b"tkhd" and any(data[last - 8 : last]):
                frame = int.from_bytes(data[last - 8 : last - 6], "big"), int.from_bytes(data[last - 4 : last - 2], "big")

    visit(0, len(data), b"")
    if not {b"moov"} < seen or not seen & {b"mdat", b"moof"}:
        raise Refused("file_damaged")
    if tracks - TRACKS:
        raise Refused("file_foreign", what=", ".join(t.decode("latin-1") for t in sorted(tracks - TRACKS)))
    if (b"vide" in tracks) != content_type.startswith("video/") or not tracks & {b"vide", b"soun"}:
        raise Refused("file_signature", content_type=content_type, seems="video/mp4" if b"vide" in tracks else "audio/mp4")
    width, height = frame if frame and b"vide" in tracks else (None, None)
    return Kept(0, len(data), width, height, b"soun" not in tracks)


def _m4a(data: mmap.mmap) -> Kept:
    return _mp4(data, "audio/mp4")


def _m4v(data: mmap.mmap) -> Kept:
    return _mp4(data, "video/mp4")


EBML = b"\x1a\x45\xdf\xa3"
SEGMENT, CLUSTER, TRACKS_ID, INFO, TAGS, VOID = 0x18538067, 0x1F43B675, 0x1654AE6B, 0x1549A966, 0x1254C367, 0xEC
# SeekHead, Info, Cues, Chapters, CRC-32; and what a cluster holds, for clusters whose size the recorder did not know
INSIDE = {CLUSTER, TRACKS_ID, INFO, TAGS, VOID, 0x114D9B74, 0x1C53BB6B, 0x1043A770, 0xBF}
IN_CLUSTER = {0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0x5854}
CODECS = re.compile(rb"V_VP8|V_VP9|V_AV1|A_VORBIS|A_OPUS|D_WEBVTT/(?:SUBTITLES|CAPTIONS)")


def _elements(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(id, start, start of payload, end) of the elements that tile start..end. One of unknown size ends at its head when it
    is a segment or a cluster: its children follow as siblings."""
    while start < end:
        at, lead = start, data[start]
        width = 9 - lead.bit_length()
        ident = int.from_bytes(data[at : at + width], "big")
        at += width
        if width > 4 or at >= end or not data[at]:
            raise Refused("file_damaged")
        width = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + width], "big") - (1 << (7 * width))
        at += width
        if size == (1 << (7 * width)) - 1:
            if ident not in {SEGMENT, CLUSTER}:
                raise Refused("file_damaged")
            size = 0
        if at + size > end:
            raise Refused("file_damaged")
        yield ident, start, at, at + size
        start = at + size


def _void(data: mmap.mmap, start: int, end: int) -> None:
    """Make the element a Void of the same length full of zeros, so that no offset into the file changes."""
    size = end - start
    head = bytes([0xEC, 0x80 | size - 2]) if size <= 128 else b"\xec\x01" + (size - 9).to_bytes(7, "big")
    data[start:end] = head + bytes(size - len(head))


def _webm(data: mmap.mmap) -> Kept:
    if data[:4] != EBML:
        raise _unlike(data[:4096], "video/webm")
    _, _, begin, end = next(_elements(data, 0, len(data)))
    if [data[a:b].rstrip(b"\0") for ident, _, a, b in _elements(data, begin, end) if ident == 0x4282] != [b"webm"]:
        raise Refused("file_signature", content_type="video/webm", seems="video/x-matroska")
    frame: tuple[int, int] | None = None
    silent = True
    seen: set[int] = set()
    segment = next(_elements(data, end, len(data)), None)
    if segment is None or segment[0] != SEGMENT or segment[3] not in {len(data), segment[2]}:
        raise Refused("file_foreign", what="EBML")
    for ident, start, first, last in _elements(data, segment[2], len(data)):
        seen.add(ident)
        if ident not in INSIDE and not (ident in IN_CLUSTER and CLUSTER in seen):
            raise Refused("file_foreign", what=f"EBML {ident:X}")
        if ident in {VOID, TAGS}:
            _void(data, start, last)
        elif ident == INFO:
            for inner, a, _, b in _elements(data, first, last):
                if inner in {0x7BA9, 0x4461}:  # title, date
                    _void(data, a, b)
        elif ident == TRACKS_ID:
            frame, silent = _webm_tracks(data, first, last)
    if not {TRACKS_ID, CLUSTER} <= seen:
        raise Refused("file_damaged")
    if frame is None:
        raise Refused("file_signature", content_type="video/webm", seems="audio/webm")
    return Kept(0, len(data), *frame, silent)


def _webm_tracks(data: mmap.mmap, start: int, end: int) -> tuple[tuple[int, int] | None, bool]:
    """Width and height of the picture track, and whether there is no sound; checks every track's codec."""
    frame, silent = None, True
    for ident, _, first, last in _elements(data, start, end):
        if ident != 0xAE:
            continue
        for inner, _, a, b in _elements(data, first, last):
            if inner == 0x86 and not CODECS.fullmatch(data[a:b].rstrip(b"\0")):
                raise Refused("file_foreign", what=data[a:b][:32].decode("latin-1"))
            silent &= not (inner == 0x86 and data[a : a + 2] == b"A_")
            if inner == 0xE0:
                sides = {i: int.from_bytes(data[x:y], "big") for i, _, x, y in _elements(data, a, b) if i in {0xB0, 0xBA}}
                frame = sides.get(0xB0, 0), sides.get(0xBA, 0)
    return frame, silent


def _ogg(data: mmap.mmap) -> Kept:
    if data[:5] != b"OggS\0":
        raise _unlike(data[:4096], "audio/ogg")
    at = pages = 0
    while at < len(data):
        if data[at : at + 5] != b"OggS\0" or at + 27 > len(data):
            raise Refused("file_damaged" if pages and data[at : at + 1] == b"O" else "file_foreign", what="Ogg")
        segments = data[at + 26]
        body = at + 27 + segments
        if data[at + 5] & 2 and not data[body : body + 8].startswith((b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")):
            raise Refused("file_signature", content_type="audio/ogg", seems="application/ogg")
        at = body + sum(data[at + 27 : body])
        pages += 1
    if at != len(data) or pages < 2:
        raise Refused("file_damaged")
    return Kept(0, len(data))


# kbit/s of MPEG-1 and MPEG-2/2.5, layer III; samples a second of MPEG-1
BITRATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
RATES = (44100, 48000, 32000)


def _frame(data: mmap.mmap, at: int) -> int:
    """Length in bytes of the layer III frame that begins here; 0 when none does."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return 0
    version, bits, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or not 0 < bits < 15 or rate == 3:
        return 0
    old = version == 3  # MPEG-1: 1152 samples a frame; else half
    hertz = RATES[rate] >> (0 if old else 1 if version == 2 else 2)
    return (144 if old else 72) * BITRATES[0 if old else 1][bits] * 1000 // hertz + (data[at + 2] >> 1 & 1)


def _mp3(data: mmap.mmap) -> Kept:
    """Keeps the frames; ID3v2 in front, ID3v1, APE tags and padding behind are cut off, and so is an unfinished last frame."""
    start = 0
    while data[start : start + 3] == b"ID3" and len(data) > start + 10:
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        start += 10 + size + (10 if data[start + 5] & 0x10 else 0)
    while start < len(data) and not data[start]:
        start += 1  # padding
    if not _frame(data, start):
        raise _unlike(data[:4096], "audio/mpeg") if not start else Refused("file_damaged")
    at, frames = start, 0
    while (size := _frame(data, at)) and at + size <= len(data):
        at += size
        frames += 1
    rest = len(data) - at
    tag = data[at : at + 8].startswith((b"TAG", b"APETAGEX")) or not rest
    if frames < 3 or not (tag or size > rest or not data[at : at + 4096].strip(b"\0")):
        raise Refused("file_foreign" if frames >= 3 else "file_damaged", what="MP3")
    return Kept(start, at)


# --- PDF and captions ------------------------------------------------------------------------------------------------

END = rb"(?=[\s\0/<>()\[\]{}%]|$)"
# What makes a PDF act, carry files or hide from this look. Names may be written with #xx for any byte; those are undone
# first. An OpenAction that is an array is only the page to open at, and LibreOffice writes it into every file.
ACTIVE = re.compile(
    rb"/(JavaScript|Launch|EmbeddedFiles?|SubmitForm|ImportData|GoToE|RichMedia|Rendition|XFA|Movie|OpenAction(?!\s*\[))" + END
)
SHORT = re.compile(rb"/(JS|AA|EF)" + END)  # by chance also in packed pictures, so only looked for outside of them
ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
STREAM = re.compile(rb"(?<!end)stream[ \t]*(?:\r\n|\n|\r)")


def _plain(data: bytes) -> bytes:
    return ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), data)


def _no_action(data: bytes, *patterns: re.Pattern[bytes]) -> None:
    for pattern in patterns:
        if found := pattern.search(data):
            raise Refused("file_active", what=found[0].decode("latin-1"))


def _pdf(data: mmap.mmap) -> Kept:
    if not re.match(rb"%PDF-[12]\.\d", data[:8]):
        raise _unlike(data[:4096], "application/pdf")
    last = data.rfind(b"%%EOF")
    if last < 0 or b"startxref" not in data[max(0, last - 64) : last]:
        raise Refused("file_damaged")
    if data[last + 5 :].strip(b"\r\n\t \0"):
        raise Refused("file_foreign", what="%%EOF")
    whole = _plain(data[:])
    if re.search(rb"/Encrypt" + END, whole):
        raise Refused("file_encrypted")
    _no_action(whole, ACTIVE)
    del whole

    # Every place that reads `stream` is tried, also inside what another reader would take for packed data, since readers
    # differ in where they think a stream begins.
    budget, outside, after = INFLATED, bytearray(), 0
    for found in STREAM.finditer(data):
        start = found.end()
        head = _plain(data[max(0, found.start() - 8192) : found.start()])
        head = head[max(head.rfind(b"endobj"), head.rfind(b"endstream"), 0) :]
        packed = re.search(rb"/(ObjStm|First)" + END, head)
        whole_to, carry = 0, b""
        for text, ended in _inflated(data, start):
            whole_to = ended
            budget -= len(text)
            if budget < 0:
                raise Refused("file_damaged")
            _no_action(_plain(carry + text), ACTIVE, *((SHORT,) if packed else ()))
            carry = text[-64:]
        if packed and (not whole_to or re.search(rb"/(DecodeParms|DP|Crypt|FFilter)" + END, head)):
            raise Refused("file_opaque", what="ObjStm")
        if found.start() >= after:
            outside += data[after : found.start()]
            closing = data.find(b"endstream", whole_to or start)
            after = closing if closing >= 0 else start
    outside += data[after:]
    _no_action(_plain(bytes(outside)), SHORT)
    return Kept(0, len(data))


def _inflated(data: mmap.mmap, start: int) -> Iterator[tuple[bytes, int]]:
    """What the bytes from `start` unpack to, block by block, also where they break off, as viewers show that much too; with
    the last block the place where the packed data ended, else 0."""
    unpacker, pending = zlib.decompressobj(), b""
    while not unpacker.eof and (pending or start < len(data)):
        if not pending:
            pending = data[start : start + 65536]
            start += len(pending)
        before = unpacker.copy()
        try:
            text = unpacker.decompress(pending, MIB)
        except zlib.error:
            text = b""
            with contextlib.suppress(zlib.error):  # byte by byte, to have all up to the fault
                for byte in pending:
                    text += before.decompress(bytes([byte]))
            yield text, 0
            return
        pending = unpacker.unconsumed_tail
        yield text, start - len(unpacker.unused_data) if unpacker.eof else 0


CUE_TAG = re.compile(r"</?(?:c|i|b|u|v|ruby|rt|lang)(?:[.\s][^<>]*)?>|<\d\d[\d:.]*>")


def _vtt(data: mmap.mmap) -> Kept:
    try:
        text = data[:].decode("utf-8")
    except UnicodeDecodeError:
        raise _unlike(data[:4096], "text/vtt") from None
    if not re.match(r"\ufeff?WEBVTT(?:[ \t\r\n]|$)", text):
        raise _unlike(data[:4096], "text/vtt")
    if "\0" in text:
        raise Refused("file_damaged")
    rest = CUE_TAG.sub("", text)
    if "<" in rest or re.search(r"javascript:|url\(|@import", rest, re.I):
        raise Refused("file_active", what=rest[rest.find("<") :][:20] if "<" in rest else "STYLE")
    return Kept(0, len(data))


WALKS: Mapping[str, Walk] = {
    "audio/mpeg": _mp3,
    "audio/mp4": _m4a,
    "audio/ogg": _ogg,
    "video/mp4": _m4v,
    "video/webm": _webm,
    "application/pdf": _pdf,
    "text/vtt": _vtt,
}

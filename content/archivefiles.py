"""An archive on disk: which files it has, what its manifest says of them, and whether each is what it says.

    manifest.json                 what follows: bytes and SHA-256 of every file, count and digest of every collection
    lessons/SLUG.EDITION.md       every working copy, for people; not read back
    records/COLLECTION.jsonl      a document a line as canonical extended JSON, in the order of _id
    media/<sha256>                every stored object, named by its own hash

An archive may come from anywhere. Nothing outside the four places is read or followed, no name leads out of the folder, and
a document is data: a key that MongoDB would read as an operator is refused. Every fault is an `Invalid` naming the file, and
the line where there is one.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from bson import json_util
from bson.errors import BSONError
from bson.int64 import Int64
from bson.json_util import JSONMode, JSONOptions

from content.failures import Conflict, Invalid, Text, invalid
from content.published import canonical

FORMAT = "xinqiao-archive"
EDITION = 1  # of the format; raised when an older reader would misread it
MANIFEST = "manifest.json"
FOLDERS = ("lessons", "records", "media")
NAME = re.compile(r"lessons/[a-z0-9-]{1,80}\.[A-Za-z0-9-]{2,60}\.md|records/[a-z_]{1,40}\.jsonl|media/[0-9a-f]{64}")
HASH = re.compile(r"[0-9a-f]{64}")
MANIFEST_LIMIT = 64 * 2**20  # bytes; 10,000 lessons in four languages take eight
LINE_LIMIT = 64 * 2**20  # bytes; MongoDB's documents have 16 MiB at most, and JSON spends more on dates and numbers
SEQUENCE_LIMIT = 2**40  # far beyond what was ever published, far below where a cursor or a counter of 64 bits ends
DEPTH = 60  # of a document; MongoDB takes 100
BLOCK = 2**20

_JSON = JSONOptions(json_mode=JSONMode.CANONICAL, tz_aware=True, tzinfo=UTC)
Progress = Callable[[str, int, int], None]
"""Told of each step: what, how far, of how many."""


def silent(step: str, done: int, total: int) -> None:
    """A `Progress` that nobody watches."""


class Entry(NamedTuple):
    """One file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an archive says of itself."""

    made_at: str
    project: str
    """Version of the project that wrote it."""
    sequence: int
    """The highest published sequence in it."""
    counts: Mapping[str, int]
    """Documents by collection."""
    files: Mapping[str, Entry]
    signing_key: str = ""
    """`kid` of the key that signed the packs there, which apps have pinned; the key itself never travels."""

    @property
    def digest(self) -> str:
        """Of everything but the moment of its making: equal stores give equal digests."""
        return hashlib.sha256(canonical([self.sequence, dict(self.counts), dict(self.files)]).encode()).hexdigest()

    def text(self) -> str:
        """The manifest file."""
        collections = {name: {"count": n, "sha256": self.files[record(name)].sha256} for name, n in self.counts.items()}
        value = {
            "format": FORMAT, "format_version": EDITION, "made_at": self.made_at, "project": self.project,
            "signing_key": self.signing_key, "digest": self.digest, "sequence": self.sequence, "collections": collections,
            "files": {name: entry._asdict() for name, entry in sorted(self.files.items())},
        }  # fmt: skip
        return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def record(collection: str) -> str:
    """The file of a collection's documents."""
    return f"records/{collection}.jsonl"


def wrong(name: str, reason: str) -> Invalid:
    """The refusal of one file of an archive; what cannot be printed of its name is escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[:200])
    return invalid(shown, "archive_file", reason=reason)


# --- documents -------------------------------------------------------------------------------------------------------


def line(document: Mapping[str, Any]) -> bytes:
    """A document as its line, line end included."""
    text = json_util.dumps(document, json_options=_JSON, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def document(data: bytes, where: str) -> dict[str, Any]:
    """The document of a line: texts, numbers, times, lists and maps, written in the one canonical form. Raises `Invalid`."""
    try:
        value = json_util.loads(data.decode(), json_options=_JSON)
        if not isinstance(value, dict) or not isinstance(value.get("_id"), str):
            raise wrong(where, "没有文字的 _id without a text _id")
        _plain(value, where, 0)
        if line(value) != data:  # also two keys of one name, of which a reader would see only the last
            raise wrong(where, "不是规范写法 not in the canonical form")
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, BSONError) as error:
        raise wrong(where, f"不是规范的扩展 JSON not canonical extended JSON: {type(error).__name__}") from None
    return value


def _plain(value: Any, where: str, depth: int) -> None:
    if depth > DEPTH:
        raise wrong(where, f"深于 {DEPTH} 层 too deep")
    if isinstance(value, dict):
        for key, part in value.items():
            if key.startswith("$") or "." in key or "\0" in key:
                raise wrong(where, f"不允许的键 key not allowed: {key[:40]!a}")
            _plain(part, where, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _plain(part, where, depth + 1)
    elif type(value) not in (str, bool, int, Int64, float, datetime, type(None)):  # a Code is a str
        raise wrong(where, f"不允许的类型 type not allowed: {type(value).__name__}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise wrong(where, "不是有限的数 not a finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise wrong(where, "数太大 number too large")


def documents(root: Path, collection: str, entry: Entry) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file:line, offset in bytes, document) of each line of a collection's file. Raises `Invalid`, also at the end when the
    file is not the one the manifest names: it may have been changed since it was looked through."""
    name, digest, offset = record(collection), hashlib.sha256(), 0
    with opened(root, name) as file:
        number = 0
        while data := file.readline(LINE_LIMIT + 1):
            number += 1
            where = f"{name}:{number}"
            if len(data) > LINE_LIMIT:
                raise wrong(where, f"行太长 line longer than {LINE_LIMIT} bytes")
            yield where, offset, document(data, where)
            digest.update(data)
            offset += len(data)
    if digest.hexdigest() != entry.sha256:
        raise wrong(name, "与清单的 SHA-256 不符 its SHA-256 is not the manifest's")


def document_at(file: IO[bytes], offset: int, where: str) -> dict[str, Any]:
    """The document that begins at this offset of an open file."""
    file.seek(offset)
    return document(file.readline(LINE_LIMIT), where)


# --- reading ---------------------------------------------------------------------------------------------------------


def opened(root: Path, name: str) -> IO[bytes]:
    """An ordinary file of the archive, never through a link. Raises `Invalid`."""
    try:
        handle = os.open(root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise wrong(name, f"打不开 cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise wrong(name, "不是普通文件 not an ordinary file")
    return os.fdopen(handle, "rb")


def names(root: Path) -> set[str]:
    """Every file below the folder. Raises `Invalid` for a link, a device or a folder that archives do not have."""
    found: set[str] = set()
    for folder in ("", *FOLDERS):
        if folder and not os.path.lexists(root / folder):
            continue
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not folder and entry.name in FOLDERS and entry.is_dir(follow_symlinks=False):
                    continue
                if not entry.is_file(follow_symlinks=False):
                    raise wrong(name, "不是普通文件 not an ordinary file")
                found.add(name)
    return found


def manifest(root: Path) -> Manifest:
    """The manifest. Raises `Invalid` when it is none, or one of a newer format."""
    with opened(root, MANIFEST) as file:
        data = file.read(MANIFEST_LIMIT + 1)
    try:
        if len(data) > MANIFEST_LIMIT:
            raise ValueError
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise ValueError
        if value["format_version"] != EDITION:
            raise wrong(MANIFEST, f"格式 {value['format_version']!a}，此版本只读 {EDITION} another format version")
        files = {name: Entry(entry["bytes"], entry["sha256"]) for name, entry in value["files"].items()}
        counts = {name: row["count"] for name, row in value["collections"].items()}
        for name, entry in files.items():
            if not NAME.fullmatch(name) or type(entry.bytes) is not int or not HASH.fullmatch(entry.sha256):
                raise ValueError
        if {record(name) for name in counts} != {name for name in files if name.startswith("records/")}:
            raise ValueError
        made = Manifest(str(value["made_at"]), str(value["project"]), value["sequence"], counts, files, str(value["signing_key"]))
        numbers = [made.sequence, *counts.values()]
        if any(type(n) is not int or not 0 <= n <= SEQUENCE_LIMIT for n in numbers) or made.text().encode() != data:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise wrong(MANIFEST, "不是本项目存档的清单 not the manifest of an archive of ours") from None
    return made


def check_files(root: Path, said: Manifest, progress: Progress = silent) -> None:
    """Raises `Invalid` unless the folder holds the files of its manifest, those only, and each as it says."""
    here = names(root) - {MANIFEST}
    for name in sorted(here - said.files.keys()):
        raise wrong(name, "清单里没有 not in the manifest")
    for name in sorted(said.files.keys() - here):
        raise wrong(name, "缺少 missing")
    for done, (name, entry) in enumerate(sorted(said.files.items())):
        progress("check", done, len(said.files))
        digest = hashlib.sha256()
        with opened(root, name) as file:
            size = os.fstat(file.fileno()).st_size
            while size == entry.bytes and (block := file.read(BLOCK)):
                digest.update(block)
        if size != entry.bytes or digest.hexdigest() != entry.sha256:
            raise wrong(name, "与清单的 SHA-256 不符 its SHA-256 is not the manifest's")
        if name.startswith("media/") and name != f"media/{entry.sha256}":
            raise wrong(name, "名称与内容的 SHA-256 不符 not named by its own SHA-256")
    progress("check", len(said.files), len(said.files))


# --- writing ---------------------------------------------------------------------------------------------------------


def write(root: Path, name: str, blocks: Iterable[bytes]) -> Entry:
    """Write one file block by block; returns its size and hash."""
    if not NAME.fullmatch(name):
        raise wrong(name, "不能作文件名 cannot be a file's name")
    digest, size = hashlib.sha256(), 0
    (root / name).parent.mkdir(exist_ok=True)
    with (root / name).open("wb") as file:
        for block in blocks:
            digest.update(block)
            size += file.write(block)
    return Entry(size, digest.hexdigest())


def may_replace(target: Path) -> None:
    """Raises `Conflict` unless the path is free, an empty folder, or an archive of ours with no file of anyone else's in it."""
    try:
        if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
            return
        if not target.is_dir():
            raise Conflict("archive_folder", what=str(target), reason=Text("不是文件夹", "it is not a folder"))
        if strange := names(target) - {MANIFEST} - manifest(target).files.keys():
            raise Conflict(
                "archive_folder",
                what=str(target),
                reason=Text(f"清单里没有 {min(strange)}", f"{min(strange)} is not in its manifest"),
            )
    except Invalid as refused:
        raise Conflict("archive_folder", what=str(target), reason=f"{refused.errors[0].field}") from None


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty private folder beside `target`, which takes its place when the block ends well; else nothing has changed.

    What an export that was cut has left there is cleared. Raises `Conflict` for what may not be replaced, or while another
    export writes there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, old = (target.with_name(f".{target.name or 'archive'}.{end}") for end in ("xinqiao-part", "xinqiao-old"))
    if old.is_dir() and not os.path.lexists(target):  # cut between the two renamings below
        old.rename(target)
    may_replace(target)
    part.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in part.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        try:
            yield part
            may_replace(target)  # somebody may have put something there meanwhile
            if target.is_dir() and any(target.iterdir()):
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except BlockingIOError:
        raise Conflict(
            "archive_folder", what=str(target), reason=Text("另一次导出正在写", "another export is writing there")
        ) from None
    finally:
        os.close(handle)

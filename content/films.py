"""What ffmpeg makes of films and sound, where it is installed: a poster frame, a small film and the sound alone, so that a
weak phone need not fetch the original. Without it phones read the original, and whatever was accepted waits for it.

`make` runs ffmpeg on an accepted original, as little trusted as an upload: no network, no other demuxer than its type's, one
thread, lowest priority, with limits on memory, time and output. What it writes goes through `inspection.inspect` again.

`work` is what a worker calls every few seconds; the records say what is due, so nothing is lost with a worker. A record is
taken up for LEASE, renewed while ffmpeg runs: `render_at` is both the end of the lease and the mark of whose it is.
"""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo import ReturnDocument
from pymongo.client_session import ClientSession

from content import inspection, media, objects, published, records, store
from content.failures import NotFound
from content.inspection import Clean
from content.media import Media
from content.records import SYSTEM
from content.settings import Settings

log = logging.getLogger("xinqiao.films")

NAMES = ("poster", "small", "audio")
SIDE = 480  # pixels of the shorter side, so that a film held upright can still be read
LEASE = timedelta(minutes=2)
BEAT = 20.0  # seconds between two renewals of the lease
LONGEST = 3 * 3600  # seconds one file may take; measured: a minute of restless 720p took 42-94 s on a loaded machine
MEMORY = 2 * 2**30  # bytes of address space
TRIES = 3  # a file that takes the worker down with it is not tried for ever

DEMUXERS = {"video/mp4": "mp4", "audio/mp4": "mp4", "video/webm": "matroska", "audio/ogg": "ogg", "audio/mpeg": "mp3"}
SMALL = f"scale='if(gt(iw,ih),-2,trunc(min({SIDE},iw)/2)*2)':'if(gt(iw,ih),trunc(min({SIDE},ih)/2)*2,-2)'"
NOTHING_ELSE = ["-map_metadata", "-1", "-map_chapters", "-1", "-sn", "-dn", "-fflags", "+bitexact"]
AAC = ["-c:a", "aac", "-b:a", "64k", "-ac", "1", "-ar", "44100", "-flags:a", "+bitexact"]
# plain H.264 at a rate that a weak line carries; the picture holds still more than it moves in what people explain
H264 = ["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "main", "-pix_fmt", "yuv420p", "-crf", "28", "-fpsmax", "30"]
H264 += ["-maxrate", "400k", "-bufsize", "800k", "-flags:v", "+bitexact", "-movflags", "+faststart", "-threads", "1"]
# the most typical of the first frames, which is seldom the black one; without loss, as the inspection codes it anew
POSTER = ["-frames:v", "1", "-c:v", "libwebp", "-lossless", "1", "-flags:v", "+bitexact", "-an"]

# Run by a bare interpreter that then becomes ffmpeg, as `preexec_fn` is not safe beside threads: dies with its parent.
_BECOME = """
import ctypes, os, resource, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.nice(19)
for name, limit in (("AS", sys.argv[2]), ("CPU", sys.argv[3]), ("FSIZE", sys.argv[4]), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (int(limit), int(limit)))
os.execv(sys.argv[5], sys.argv[5:])
"""


class Failed(Exception):
    """ffmpeg could not: why, for the log."""


def program() -> str | None:
    """Path of ffmpeg; None when it is not installed."""
    return shutil.which("ffmpeg")


def state() -> str:
    """A line for `xinqiao doctor`."""
    found = program()
    if found:
        return f"{found}: films get a poster, a small and a sound-only version"
    return "not installed here: films stay as uploaded, without poster, small and sound-only version; install it on the workers"


def make(path: Path, content_type: str, folder: Path, *, silent: bool = False, go_on: Callable[[], bool]) -> dict[str, Clean]:
    """Render an accepted film or sound into `folder`: name -> file, smaller than the original (a poster always).

    Takes up to about as long as the film lasts. `go_on()` is asked every BEAT seconds; False ends it. Raises `Failed`.
    """
    film, size = content_type.startswith("video/"), path.stat().st_size
    sound = ["-map", "0:a:0", *AAC]
    wanted: dict[str, tuple[str, list[str]]] = {}
    if film:
        wanted["poster"] = "image/webp", ["-map", "0:v:0", "-vf", f"{SMALL},thumbnail=50", *POSTER, "-f", "webp"]
        wanted["small"] = "video/mp4", ["-map", "0:v:0", "-vf", SMALL, *H264, *([] if silent else sound), "-f", "mp4"]
    if not silent:
        wanted["audio"] = "audio/mp4", ["-vn", *sound, "-movflags", "+faststart", "-f", "ipod"]
    argv = [str(program()), "-nostdin", "-v", "error", "-y", "-filter_threads", "1"]
    argv += ["-protocol_whitelist", "file", "-max_pixels", str(inspection.PIXELS), "-threads", "1"]
    argv += ["-f", DEMUXERS[content_type], "-i", str(path)]
    for name, (_, options) in wanted.items():
        argv += [*options, *NOTHING_ELSE, str(folder / name)]
    _run(argv, folder, size, go_on)
    made = {}
    for name, (kind, _) in wanted.items():
        (work := folder / f"{name}-checked").mkdir()
        try:
            made[name] = inspection.inspect(folder / name, kind, work).original
        except (inspection.Refused, OSError) as error:
            raise Failed(f"{name}: {error}") from None
    return {name: file for name, file in made.items() if name == "poster" or file.path.stat().st_size < size}


def _run(argv: list[str], folder: Path, size: int, go_on: Callable[[], bool]) -> None:
    limits = [MEMORY, LONGEST, max(4 * size, 64 * 2**20)]
    end = time.monotonic() + LONGEST
    with (folder / "log").open("w+b") as said:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *map(str, limits), *argv],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder, env={"PATH": os.environ.get("PATH", "")},
        )  # fmt: skip
        try:
            while process.poll() is None:
                try:
                    process.wait(BEAT)
                except subprocess.TimeoutExpired:
                    if time.monotonic() > end or not go_on():
                        raise Failed("took too long, or is no longer ours") from None
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            raise Failed(f"exit {process.returncode}: {said.read(2000).decode(errors='replace').strip()}")


# --- the work --------------------------------------------------------------------------------------------------------


def work(settings: Settings, clock: Callable[[], datetime] = store.now) -> str:
    """Render what has waited longest. Returns its new state ("done", "failed"), "no_ffmpeg" when films were found but no
    ffmpeg, "lost" when the record was removed or the lease taken meanwhile, "" when there was nothing to do or this machine
    is at it already (one film at a time, so that notices still go out beside it). Raises `Unavailable` and driver errors: the
    lease then runs out and a later call takes it up again."""
    if program() is None:
        return _wait_for_ffmpeg(clock())
    with _alone(settings.var) as mine:
        raw = _claim(clock()) if mine else None
        return _render(settings, Media.of(raw), clock) if raw else ""


def _wait_for_ffmpeg(now: datetime) -> str:
    found = ""
    for raw in Media.rows().find({"renditions_state": "waiting", "render_at": {"$lte": now}}, {"render_at": 1}):
        Media.rows().update_one({**raw, "renditions_state": "waiting"}, {"$set": {"renditions_state": "no_ffmpeg"}})
        found = "no_ffmpeg"
    return found


@contextmanager
def _alone(var: Path) -> Iterator[bool]:
    """Whether no other worker of this machine is at it; the kernel gives the lock back when one is killed."""
    var.mkdir(parents=True, exist_ok=True)
    with (var / "films.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _claim(now: datetime) -> dict[str, Any] | None:
    """Take the record that has waited longest; of two callers one gets it."""
    found: dict[str, Any] | None = Media.rows().find_one_and_update(
        {"renditions_state": {"$in": ["waiting", "no_ffmpeg"]}, "render_at": {"$lte": now}},
        {"$set": {"render_at": now + LEASE}, "$inc": {"render_tries": 1}},
        sort=[("render_at", 1)],
        return_document=ReturnDocument.AFTER,
    )
    return found


def _render(settings: Settings, film: Media, clock: Callable[[], datetime]) -> str:
    held = film.render_at

    def renew() -> bool:
        nonlocal held
        before, held = held, clock() + LEASE
        return bool(Media.rows().update_one({"_id": film.id, "render_at": before}, {"$set": {"render_at": held}}).matched_count)

    kept: list[dict[str, Any]] = []
    outcome = "done"
    try:
        if film.render_tries > TRIES:
            raise Failed(f"{TRIES} tries broke off")
        with tempfile.TemporaryDirectory(prefix="xinqiao-") as name:
            folder = Path(name)
            with (folder / "original").open("wb") as file:
                for block in objects.get(settings, f"media/{film.sha256}"):
                    file.write(block)
            made = make(folder / "original", film.content_type, folder, silent=film.silent, go_on=renew)
            if not renew():
                return "lost"
            kept = [{**media.keep(settings, clean), "name": name} for name, clean in made.items()]
    except (Failed, NotFound) as error:
        log.warning("media %s: no renditions: %s", film.id, error)
        outcome = "failed"

    def decide(now: Media) -> dict[str, Any]:
        return {"renditions": kept, "renditions_state": outcome} if now.state == "accepted" and now.render_at == held else {}

    def also(session: ClientSession, now: Media) -> None:
        published.release(session, [media.item(now)])

    try:
        now = records.change(Media, film.id, SYSTEM, "render", decide, also=also)
        if now.state == "accepted":
            return outcome if now.render_at == held else "lost"
    except NotFound:
        pass
    media.drop(settings, [row["sha256"] for row in kept])  # the film was removed meanwhile
    return "lost"

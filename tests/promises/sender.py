"""Workers of the outbox to be killed: `notifications.worker`'s sweep and fan-out in a loop, without Celery between.

It loads once and forks a process for each line of JSON that it reads, so that fifty kills cost no fifty starts. The line says
`settings` (as environment), `lease` (seconds), `clock` (a file, see `clock`) and `at`: null works until killed, N dies of SIGKILL
at the N-th line of the outbox that it comes to, 0 works once through and says its lines. Written are "born PID", "lines …" and,
when a process has ended, "over PID". Each message that leaves names in its token the process and the lease it was sent under.
"""

import ctypes
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from pymongo.errors import PyMongoError

from content import published, store
from content.embedded import PR_SET_PDEATHSIG
from content.settings import Settings
from content.vocabulary import STAGES
from notifications import channels, fcm, hours, notices, outbox, told, topics

TRACED = {one.__file__ for one in (outbox, told, channels, notices, published)}


def clock(file: Path) -> Callable[[], datetime]:
    """The machine's clock, ahead by the seconds in the file, which others may change at any time."""

    def now() -> datetime:
        moment = datetime.now(UTC) + timedelta(seconds=struct.unpack("d", file.read_bytes())[0])
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    return now


def put(file: Path, ahead: float) -> None:
    """Set the seconds of `clock`, in one piece."""
    new = file.with_suffix(".new")
    new.write_bytes(struct.pack("d", ahead))
    new.rename(file)


def say(*words: object) -> None:
    """One line in one piece, also from within a signal's handler."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def tracer(at: int, lines: list[str]) -> Any:
    """Follow the lines of the outbox and of what it calls here; die at number `at`."""

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            lines.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            if len(lines) == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    return lambda frame, event, arg: local if frame.f_code.co_filename in TRACED else None


def work(settings: Settings, forever: bool) -> None:
    """Sweep and send."""
    while True:
        try:
            store.end_abandoned()  # as the API's poller does
            if outbox.sweep(store.now(), settings):
                outbox.fan_out(settings, lambda: store.now())
        except PyMongoError:
            time.sleep(0.05)
        if not forever:
            return
        time.sleep(0.02)


def live(asked: dict[str, Any]) -> None:
    """One process, from its fork to its end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    os.environ.update(asked["settings"])
    settings = Settings.from_env()
    outbox.PACE, outbox.LEASE = 0.0, timedelta(seconds=asked["lease"])
    store.now = clock(Path(asked["clock"]))
    mark, enter = ["none"], outbox.enter

    def entered(now: datetime) -> str | None:
        found = enter(now)
        mark[0] = f"{os.getpid()}.{found}" if found else mark[0]
        return found

    outbox.enter = entered
    fcm._Static.token = property(lambda _: mark[0], lambda _, value: None)  # type: ignore[assignment,misc]
    store.connect(settings)
    lines: list[str] = []
    if asked["at"] is not None:
        sys.settrace(tracer(asked["at"], lines))
    work(settings, asked["at"] is None)
    sys.settrace(None)
    say("lines", *lines)


def over(*_: object) -> None:
    """Bury who has ended."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            say("over", ended[0])
    except ChildProcessError:
        pass


def main() -> None:
    """Fork as often as told."""
    hours.free_from(store.now(), [], Settings(), [])  # reads the calendar
    topics.for_notice(["150603"], ["parent"], list(STAGES), ["zh-Hans"])  # and the divisions
    signal.signal(signal.SIGCHLD, over)
    for line in sys.stdin:
        if child := os.fork():
            say("born", child)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            live(json.loads(line))
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()

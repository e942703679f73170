"""A worker of the outbox to be killed: `notifications.worker`'s sweep and fan-out in a loop, without Celery between.

It loads once and forks the process that works; killed, that one is forked anew within milliseconds, so that fifty kills cost no
fifty starts. Each message names in its token the process and the lease it was sent under. Words: seconds of a lease, and the file with the clock.

Each line it reads begins one life: "" works until killed, "N" dies of SIGKILL at the N-th line of the outbox that it comes to,
"0" works once through and says the lines. It says each life's process id, and "over" when it has ended.
"""

import ctypes
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

from content import store
from content.embedded import PR_SET_PDEATHSIG
from content.settings import Settings
from content.vocabulary import STAGES
from notifications import fcm, hours, outbox, topics

TRACED = ("outbox.py", "told.py", "channels.py", "notices.py", "published.py")


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


def live(settings: Settings, forever: bool) -> None:
    """Sweep and send."""
    store.connect(settings)
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


def tracer(at: int, lines: list[str]) -> Any:
    """Follow the lines of the outbox and what it calls here; die at number `at`."""

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            lines.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            if len(lines) == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def every(frame: FrameType, event: str, arg: Any) -> Any:
        path = Path(frame.f_code.co_filename)
        return local if path.name in TRACED and path.parent.name in {"notifications", "content"} else None

    return every


def main() -> None:
    """Live as often as told."""
    lease, file = float(sys.argv[1]), Path(sys.argv[2])
    settings = Settings.from_env()
    outbox.PACE, outbox.LEASE = 0.0, timedelta(seconds=lease)
    store.now = clock(file)
    mark, enter = ["none"], outbox.enter

    def entered(now: datetime) -> str | None:
        found = enter(now)
        mark[0] = f"{os.getpid()}.{found}" if found else mark[0]
        return found

    outbox.enter = entered
    fcm._Static.token = property(lambda _: mark[0], lambda _, value: None)  # type: ignore[attr-defined]
    hours.free_from(store.now(), [], settings, [])  # reads the calendar
    topics.for_notice(["150603"], ["parent"], list(STAGES), ["zh-Hans"])  # and the divisions
    for line in sys.stdin:
        word = line.strip()
        if child := os.fork():
            print(child, flush=True)
            os.waitpid(child, 0)
            print("over", flush=True)
            continue
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        lines: list[str] = []
        try:
            if word:
                sys.settrace(tracer(int(word), lines))
            live(settings, not word)
            sys.settrace(None)
            if lines:
                print("lines", *lines, flush=True)
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()

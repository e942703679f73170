"""Writing together what arrives together: one transaction for a crowd instead of one for each.

The first thread to come leads: it commits all that wait, up to MOST. Those that come meanwhile wait and make the next group, led
by the first of them. No thread of its own, nothing to start after a fork. Processes of one machine take turns by a lock on a
file; nothing rests on it: after TURN seconds, and between machines, the database decides who runs again.
"""

import contextlib
import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from time import monotonic, sleep
from typing import Any, Generic, TypeVar

from content.failures import Unavailable
from content.settings import Settings

MOST = 64  # in one transaction
TURN = 0.3  # seconds to wait for the other processes of this machine


@dataclass(slots=True, eq=False, kw_only=True)
class Part:
    """One caller's work on its way. `settle` gives it its outcome: a value, or the exception that its caller gets."""

    outcome: Any = None
    weight: int = 1
    """How much of a transaction it takes, of MOST."""
    turn: threading.Event = field(default_factory=threading.Event)
    """Set when it has its outcome, or, without one, when it is to lead the next group."""


P = TypeVar("P", bound=Part)


class Groups(Generic[P]):
    """A process's crowd of one kind. `settle(parts)` gives each part, in the order of their coming, an outcome that is not None;
    what it leaves without one is told `Unavailable`; so are all who wait when a whole group was, since the database is away.
    `name` is the lock's."""

    def __init__(self, name: str, settle: Callable[[list[P]], None]) -> None:
        self.name = name
        self.settle = settle
        self.lock = threading.Lock()
        self.waiting: list[P] = []
        self.led = False

    def join(self, settings: Settings, part: P) -> Any:
        """Wait until the part has its outcome; returns it, or raises it when it is an exception."""
        with self.lock:
            self.waiting.append(part)
            leads, self.led = not self.led, True
        if not leads:
            part.turn.wait()
        if part.outcome is None:
            self._lead(settings)
        if isinstance(part.outcome, Exception):
            raise part.outcome
        return part.outcome

    def _lead(self, settings: Settings) -> None:
        """Commit the oldest that wait, up to MOST, tell them, and hand the lead on. The leader, the oldest, is among them."""
        group: list[P] = []
        try:
            with self._turn(settings):
                with self.lock:
                    group = self._oldest()
                self.settle(group)
        finally:
            with self.lock:
                if not group:  # something kept us from the turn: nobody is left to wait for a leader who is gone
                    group = self._oldest()
                if all(isinstance(part.outcome, Unavailable) for part in group):
                    group, self.waiting = [*group, *self.waiting], []  # they waited in vain with us: none begins the wait anew
                heir = self.waiting[0] if self.waiting else None
                self.led = heir is not None
            for part in group:
                if part.outcome is None:
                    part.outcome = Unavailable()
                part.turn.set()
            if heir:
                heir.turn.set()

    def _oldest(self) -> list[P]:
        """Take out those who have waited longest, as many as one transaction bears."""
        sums = accumulate(part.weight for part in self.waiting)
        number = max(1, sum(1 for _ in takewhile(lambda total: total <= MOST, sums)))
        group, self.waiting = self.waiting[:number], self.waiting[number:]
        return group

    @contextmanager
    def _turn(self, settings: Settings) -> Iterator[None]:
        lock = None
        with contextlib.suppress(OSError):  # no folder, no room for another open file: no turns
            lock = (settings.var / f"{self.name}.lock").open("a")  # never written to: its time would be a contribution's
        if lock is None:
            yield
            return
        with lock:
            end = monotonic() + TURN
            while monotonic() < end:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    sleep(0.0005)  # the system's own waiting has no end
                except OSError:  # a file system without locks
                    break
            yield

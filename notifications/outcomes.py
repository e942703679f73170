"""What came of handing one message to a channel (FCM, the district's webhook): the outbox decides by it and by nothing else."""

import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta

log = logging.getLogger("xinqiao.outcomes")

QUOTA_WAIT = 60.0  # seconds to wait after a 429 that names none
FLOOR = 10.0  # seconds, the least wait after 500 and 503
BACKOFF_LIMIT = 600.0  # seconds
GIVE_UP = timedelta(minutes=60)  # after the first try: then it is news no more


@dataclass(frozen=True)
class Sent:
    """The channel took it; `name` is the id it gave."""

    name: str


@dataclass(frozen=True)
class Skipped:
    """The channel is not set up. The inbox has the notice."""

    reason: str = "no push credentials"


@dataclass(frozen=True)
class Retry:
    """It was not taken; try again, not before `after` seconds."""

    after: float
    reason: str


@dataclass(frozen=True)
class Refused:
    """It will never be taken. `ours`: our message or set-up is at fault; `drop_target`: the target is gone for good;
    `stop`: nothing of this campaign can pass."""

    reason: str
    ours: bool = False
    drop_target: bool = False
    stop: bool = False


@dataclass(frozen=True)
class Unknown:
    """It may or may not have been taken: send again under the same collapse key."""

    reason: str


Outcome = Sent | Skipped | Retry | Refused | Unknown


def backoff(tries: int, asked: float = 0.0) -> timedelta:
    """How long to wait after so many tries: from FLOOR, doubled each time, with up to a quarter of it as jitter; never less than
    what the channel asked for."""
    delay = max(asked, min(BACKOFF_LIMIT, FLOOR * 2 ** min(tries - 1, 10)))
    return timedelta(seconds=delay * (1 + random.random() / 4))  # noqa: S311  (jitter, no secret)


def alarm(outcome: Refused | Retry) -> Outcome:
    """Say aloud what somebody must mend."""
    log.error("push needs attention: %s", outcome.reason)
    return outcome


def within(seconds: float, work: Callable[[], Outcome]) -> Outcome:
    """The outcome of `work`, or Unknown after `seconds`: a name server that hangs and an answer that drips obey no socket's
    timeout. The thread left behind ends with its own."""
    done: list[Outcome] = []
    thread = threading.Thread(target=lambda: done.append(work()), name="channel", daemon=True)
    thread.start()
    thread.join(seconds)
    return done[0] if done else Unknown(f"no outcome within {seconds:.0f} s")


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from Retry-After (a number or an HTTP date), at most an hour; 0 when absent or unreadable."""
    text = headers.get("Retry-After", "").strip()
    try:
        seconds = (
            float(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).astimezone(UTC).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), 3600.0)

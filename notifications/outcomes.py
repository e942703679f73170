"""What came of handing one message to a channel (FCM, the district's webhook): the outbox decides by it and by nothing else."""

import logging
from dataclasses import dataclass

log = logging.getLogger("xinqiao.outcomes")

QUOTA_WAIT = 60.0  # seconds to wait after a 429 that names none
FLOOR = 10.0  # seconds, the least wait after 500 and 503


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


def alarm(outcome: Refused | Retry) -> Outcome:
    """Say aloud what somebody must mend."""
    log.error("push needs attention: %s", outcome.reason)
    return outcome

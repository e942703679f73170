"""The ways by which a notice leaves, behind one interface: a channel takes one message and gives one outcome.

The inbox is no channel: it has every notice before any channel is asked. `fcm` gets one message for each condition of topics, and
`webhook` the whole notice once, for the district's own SMS, WeChat or vendor push. XINQIAO_CHANNELS says in which order, and
what takes over from what: "fcm,webhook" uses both, "webhook>fcm" asks FCM only for what the webhook did not take.
"""

from datetime import datetime
from typing import Any, NamedTuple

from content.settings import Settings
from notifications import fcm, quiet, topics, webhook
from notifications.notices import Notice, iso, message
from notifications.outcomes import Outcome

WHOLE = "*"
"""The key of a message that is the whole notice."""
TAKEN = {"sent", "inbox_only"}


class Work(NamedTuple):
    """What a channel is to be asked next: `keys` are topics, or WHOLE."""

    channel: str
    keys: list[str]


def steps(settings: Settings) -> list[list[str]]:
    """The channels that are set up, in their order; within a step each takes over from the one before. FCM is always there:
    without credentials it says that it passed a message over."""
    there = {"fcm", *(["webhook"] if settings.webhook_url else [])}
    found = [[name for name in step if name in there] for step in settings.steps()]
    return [step for step in found if step]


def work(notice: Notice, step: list[str]) -> Work | None:
    """What is left to do of a step; None when it has come to its end."""
    for channel in step:
        rows = {row.topic: row.outcome for row in notice.results if row.channel == channel}
        keys = notice.topics() if channel == "fcm" else [WHOLE]
        if left := [key for key in keys if key not in rows]:
            return Work(channel, left)
        if set(rows.values()) <= TAKEN:
            break
    return None


def push(notice: Notice, one: topics.Push, settings: Settings, now: datetime) -> Outcome:
    """Hand one message to FCM. Raises nothing that FCM or the network do."""
    return fcm.send(message(notice, one, now), settings)


def hook(notice: Notice, settings: Settings) -> Outcome:
    """Hand the notice to the district's own system. A repeat has the same webhook-id."""
    return webhook.send(event(notice), notice.id, settings)


def recall(key: str, settings: Settings) -> Outcome:
    """Tell the district's own system that a notice which it has is cancelled."""
    return webhook.send({"type": "notice.cancelled", "id": key}, f"{key}-cancelled", settings)


def event(notice: Notice) -> dict[str, Any]:
    """A notice as the webhook tells it: everything that a district needs to tell it in its own ways, and nobody's address."""
    emergency = notice.kind == "emergency"
    return {
        "type": "notice",
        "id": notice.id,
        "kind": notice.kind,
        "season": notice.season,
        "divisions": list(notice.divisions),
        "audiences": list(notice.audiences),
        "stages": list(notice.stages),
        "texts": {tag: dict(text) for tag, text in sorted(notice.texts.items())},
        "urgent": notice.urgent,
        "quiet_text": {tag: quiet.words(tag, emergency=emergency)[1] for tag in sorted(notice.texts)},
        "send_at": iso(notice.send_at),
        "expires_at": iso(notice.expires_at),
    }

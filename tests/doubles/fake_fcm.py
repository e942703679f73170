"""The local FCM of `notifications.rehearsal` in a test's own process: it keeps every request whole, and can be told to fail.

with FakeFcm() as fcm:
    fcm.script("d150603.parent.all.zh-Hans", QUOTA, OK)   # one-shot replies to that target, then normal again
    ... XINQIAO_FCM_URL=fcm.url ...
    fcm.sends()                                           # every request that reached messages:send, with its outcome
"""

from notifications.conditions import TOPIC, reaches
from notifications.rehearsal import (
    A_LIST,
    CUT,
    DRIP,
    FORBIDDEN,
    GATEWAY,
    INTERNAL,
    INVALID,
    LOST,
    MOVED,
    NAMED,
    NO_NAME,
    NO_PROJECT,
    NOT_JSON,
    ODD_ERROR,
    OK,
    QUOTA,
    SENDER_ID,
    SLOW,
    THIRD_PARTY,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNREGISTERED,
    Fcm,
    Reply,
    Seen,
    fault_of,
    retry_after,
)

__all__ = [
    "A_LIST", "CUT", "DRIP", "FORBIDDEN", "GATEWAY", "INTERNAL", "INVALID", "LOST", "MOVED", "NAMED", "NOT_JSON", "NO_NAME",
    "NO_PROJECT", "ODD_ERROR", "OK", "QUOTA", "SENDER_ID", "SLOW", "THIRD_PARTY", "TOPIC", "UNAUTHENTICATED", "UNAVAILABLE",
    "UNREGISTERED", "FakeFcm", "Reply", "Seen", "fault_of", "reaches", "retry_after",
]  # fmt: skip


class FakeFcm(Fcm):
    """Forgets nothing unless told: `FakeFcm(keep=False)` for a hundred thousand messages whose counts are enough."""

    def __init__(self, port: int = 0, *, keep: bool = True) -> None:
        super().__init__(port, keep=keep)

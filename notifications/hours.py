"""When a push may leave: not in the quiet hours, not while an exam sits, not in the minutes that everybody else chooses.

What has to wait is held, never dropped. An urgent notice waits for nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from content.settings import Settings
from content.waking import quiet_until
from notifications import seasons

CROWDED = 2  # minutes on each side of every quarter of an hour, in which all the world's scheduled pushes leave (FCM's advice)


def free_from(now: datetime, codes: Sequence[str], settings: Settings, overrides: Iterable[seasons.Override]) -> datetime:
    """The first moment (UTC) from `now` on at which a push to these divisions ([]: the whole country) may leave."""
    known = list(overrides)
    at = now
    while held := held_until(at, codes, settings, known) or _crowded_until(at):
        at = held
    return at


def held_until(now: datetime, codes: Sequence[str], settings: Settings, overrides: Sequence[seasons.Override]) -> datetime | None:
    """The end (UTC) of the quiet hours or the exam that `now` lies in; None outside them."""
    if night := quiet_until(now, settings.zone):
        return night
    local = now.astimezone(ZoneInfo(settings.zone))
    ends = [
        until
        for code in codes or [""]
        for start, until in seasons.sittings(code, local.date(), overrides)
        if start <= local.time() < until
    ]
    return datetime.combine(local.date(), max(ends), local.tzinfo).astimezone(UTC) if ends else None


def _crowded_until(now: datetime) -> datetime | None:
    past = (now.minute + CROWDED) % 15
    if past > 2 * CROWDED:
        return None
    return now.replace(second=0, microsecond=0) + timedelta(minutes=2 * CROWDED + 1 - past)

"""The hours in which families may be told something or asked for an answer: 07:00-21:30 of their own clock."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

QUIET_FROM, QUIET_TO = time(21, 30), time(7, 0)


def quiet_until(now: datetime, zone: str) -> datetime | None:
    """The end of the quiet hours that `now` lies in (UTC), or None outside them."""
    local = now.astimezone(ZoneInfo(zone))
    if QUIET_TO <= local.time() < QUIET_FROM:
        return None
    day = local.date() + timedelta(days=1 if local.time() >= QUIET_FROM else 0)
    return datetime.combine(day, QUIET_TO, local.tzinfo).astimezone(UTC)


def after(start: datetime, hours: float, zone: str) -> datetime:
    """The moment (UTC) at which so many waking hours have passed since `start`. Counted in real hours, so a night in which the
    clocks change makes no difference."""
    at, left = quiet_until(start, zone) or start.astimezone(UTC), timedelta(hours=hours)
    while True:
        local = at.astimezone(ZoneInfo(zone))
        evening = datetime.combine(local.date(), QUIET_FROM, local.tzinfo).astimezone(UTC)
        if at + left <= evening:
            return at + left
        left -= evening - at
        at = quiet_until(evening, zone) or evening

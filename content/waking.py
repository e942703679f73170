"""The hours in which families may be told something or asked for an answer: outside the quiet hours, by their own clock.

The quiet hours are 21:30-07:00 unless `XINQIAO_QUIET_HOURS` says otherwise. They are one fact of a process, set by
`store.connect` from the settings, so that whatever reads or writes the database has them and nobody has to hand them on.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

USUAL = "21:30-07:00"

_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)


def parsed(text: str) -> tuple[time, time]:
    """From when to when: "21:30-07:00" ends on the next morning, "13:00-14:30" on the same day. Raises `ValueError`."""
    found = _HOURS.fullmatch(text)
    if not found:
        raise ValueError("not of the form 21:30-07:00")
    a, b, c, d = map(int, found.groups())
    if (a, b) == (c, d):
        raise ValueError("from and to are the same")
    return time(a, b), time(c, d)


_quiet = parsed(USUAL)


def configure(text: str) -> None:
    """These are the quiet hours from now on, in the whole process. Raises `ValueError`."""
    global _quiet
    _quiet = parsed(text)


def _nights(at: datetime, zone: str) -> Iterator[tuple[datetime, datetime]]:
    """The quiet hours (UTC) from the evening before `at` on, in order and without end. An hour that the clocks show twice counts
    the first time, one that they skip is the same while later; a night that falls wholly into a skipped hour is none."""
    where, (begin, end) = ZoneInfo(zone), _quiet
    day = at.astimezone(where).date() - timedelta(days=1)
    while True:
        over = day + timedelta(days=1 if end < begin else 0)
        begins, ends = (datetime.combine(*point, where).astimezone(UTC) for point in ((day, begin), (over, end)))
        if begins < ends:
            yield begins, ends
        day += timedelta(days=1)


def quiet_until(now: datetime, zone: str) -> datetime | None:
    """The end of the quiet hours that `now` lies in (UTC), or None outside them. Their end itself lies outside."""
    at = now.astimezone(UTC)
    for begins, ends in islice(_nights(at, zone), 3):  # where the clocks skip an hour two nights can touch
        if begins <= at < ends:
            at = ends
    return at if at > now else None


def after(start: datetime, hours: float, zone: str) -> datetime:
    """The moment (UTC) at which so many waking hours have passed since `start`. Counted in real hours, so a night in which the
    clocks change makes no difference."""
    at, left = quiet_until(start, zone) or start.astimezone(UTC), timedelta(hours=hours)
    for begins, ends in _nights(at, zone):
        if ends <= at:
            continue
        if at + left <= begins:
            break
        left -= max(begins - at, timedelta())
        at = ends
    return at + left

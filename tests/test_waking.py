"""The quiet hours: whichever a district sets, in zones with and without summer time, and in every process."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from content import store, waking
from content.settings import Settings, SettingsError

MINUTE, STEP = timedelta(minutes=1), timedelta(minutes=5)
ZONES = st.sampled_from(["Asia/Shanghai", "Asia/Urumqi", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"])
CLOCKS = st.builds(time, st.integers(0, 23), st.sampled_from(range(0, 60, 5)))
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(  # noqa: DTZ001  (read as UTC)
    lambda at: at.replace(minute=at.minute // 5 * 5, second=0, microsecond=0, tzinfo=UTC)
)


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """The default again, for whatever runs next in this process."""
    yield
    waking.configure(waking.USUAL)


def set_to(begin: time, end: time) -> None:
    assume(begin != end)
    waking.configure(f"{begin:%H:%M}-{end:%H:%M}")


def by_the_clock(at: datetime, begin: time, end: time, zone: str) -> bool:
    """What someone who looks at a clock on the wall says."""
    shown = at.astimezone(ZoneInfo(zone)).time()
    return begin <= shown < end if begin < end else shown >= begin or shown < end


def changes(at: datetime, zone: str) -> bool:
    """Whether the clocks change within two days of it."""
    return len({(at + timedelta(hours=h)).astimezone(ZoneInfo(zone)).utcoffset() for h in range(-48, 49, 6)}) > 1


@given(MOMENTS, ZONES, CLOCKS, CLOCKS)
@example(datetime(2026, 10, 25, 0, 45, tzinfo=UTC), "Europe/Berlin", time(21, 30), time(2, 30))  # half past two comes twice
@example(datetime(2026, 3, 29, 1, 10, tzinfo=UTC), "Europe/Berlin", time(3, 5), time(2, 50))  # ten to three does not come
@settings(max_examples=150, deadline=None)
def test_the_quiet_hours_are_held_whatever_they_are(at: datetime, zone: str, begin: time, end: time) -> None:
    set_to(begin, end)
    until = waking.quiet_until(at, zone)
    if not changes(at, zone):
        assert (until is not None) == by_the_clock(at, begin, end, zone)
    if until is not None:
        assert at < until <= at + timedelta(hours=26)
        assert waking.quiet_until(until, zone) is None, "the end lies outside"
        assert waking.quiet_until(until - MINUTE, zone) == until, "and the minute before inside"
        assert waking.quiet_until(at + (until - at) / 2, zone) == until
        if not changes(at, zone):
            assert until.astimezone(ZoneInfo(zone)).time() == end


@given(MOMENTS, st.integers(0, 24 * 12), ZONES, CLOCKS, CLOCKS)
@settings(max_examples=60, deadline=None)
def test_waking_hours_are_counted_step_by_step_whatever_the_quiet_hours(
    start: datetime, steps: int, zone: str, begin: time, end: time
) -> None:
    set_to(begin, end)
    assume((end.hour - begin.hour) % 24 not in {22, 23, 0} or begin < end)  # or the walk below takes months
    found = waking.after(start, steps / 12, zone)
    at = waking.quiet_until(start, zone) or start
    for _ in range(steps):
        at = (waking.quiet_until(at, zone) or at) + STEP
    assert found == at


def test_whoever_is_connected_obeys_the_quiet_hours_of_the_settings() -> None:
    noon = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)  # 13:00 in Shanghai
    assert waking.quiet_until(noon, "Asia/Shanghai") is None
    store.connect(Settings(mongodb_uri="mongodb://127.0.0.1:9/?connect=false", quiet="12:30-14:00"))
    store.disconnect()
    assert waking.quiet_until(noon, "Asia/Shanghai") == noon + timedelta(hours=1)
    assert waking.quiet_until(noon, "Asia/Urumqi") is None  # 11:00 there


@pytest.mark.parametrize("text", ["21:30", "21:30-21:30", "24:00-07:00", "9:30-07:00", "21:30-07:00 ", "２１:30-07:00"])
def test_quiet_hours_that_cannot_be_read_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="XINQIAO_QUIET_HOURS"):
        Settings.from_env({"XINQIAO_QUIET_HOURS": text, "XINQIAO_VAR": "/nonexistent"})

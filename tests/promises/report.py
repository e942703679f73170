"""What each promise's test measured, as one table at the end of the run (`make prove`).

`measured(5, "…")` in a test keeps a figure with its promise; the figures travel in the test's own report, so that they
arrive from other processes (`-n 2`) too. A test that failed keeps what it measured, marked as missed.
"""

from collections.abc import Callable
from typing import Any

import pytest

Measured = Callable[[int, str], None]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Keep a figure: `measured(promise, text)`. Call it before the asserts that judge the figure."""

    def keep(promise: int, text: str) -> None:
        request.node.user_properties.append(("measured", [promise, text]))

    return keep


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table, when anything was measured."""
    rows = []
    for outcome, mark in (("passed", "kept"), ("failed", "MISSED")):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == "measured" and report.when == "call":
                    rows.append((int(value[0]), mark, str(value[1])))
    if rows:
        terminalreporter.section("promises: what was measured")
        for promise, mark, text in sorted(rows, key=lambda row: row[0]):
            terminalreporter.write_line(f"{promise:>3}  {mark:<6}  {text}")

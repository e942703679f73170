"""Fixtures of the promises."""

from tests.promises.stand import stand  # noqa: F401

"""Staff accounts (being written): signatures that others import."""

from typing import NamedTuple

from content import divisions


class Grant(NamedTuple):
    """placeholder"""

    role: str
    organisation: str = ""
    division: str = ""


class Actor(NamedTuple):
    """Who asks."""

    id: str
    name: str
    grants: tuple[Grant, ...]

    def may(self, permission: str, organisation: str | None = None, division: str | None = None) -> bool:
        """Whether some grant covers it."""
        return any(
            permission in ROLES.get(g.role, frozenset())
            and (not g.organisation or organisation is None or g.organisation == organisation)
            and (division is None or divisions.within(division, g.division))
            for g in self.grants
        )


ROLES: dict[str, frozenset[str]] = {}


def who(token: str) -> Actor:
    """The actor of an access token; raises `NotSignedIn`."""
    raise NotImplementedError


def independent(author: str, other: str) -> bool:
    """Whether `other` counts as a second person for what `author` (both staff ids) wrote."""
    raise NotImplementedError

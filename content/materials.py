"""What a course hands out: lessons ("lesson:SLUG") and files ("media:SHA256"), which have to be there.

A draft may name a lesson that is still being written; what families see names what they can open.
"""

from collections.abc import Collection
from typing import Any

from content import media
from content.failures import FieldError
from content.lessons import Lesson


def absent(names: Any) -> list[FieldError]:
    """A fault for each that does not exist: no lesson of that slug, no accepted file of that hash. What is no name is left to
    whoever checks the form."""
    return [FieldError("materials", "unknown_reference", {"value": name}) for name in _without(_named(names), public=False)]


def closed(names: Collection[str]) -> dict[str, FieldError]:
    """Name -> a fault, of each that readers cannot open: a lesson of which no language is published, a file not accepted."""
    told = {name: f"{name}（尚未发布 not published）" for name in _without(names, public=True)}
    return {name: FieldError("materials", "incomplete", {"missing": text}) for name, text in told.items()}


def _named(names: Any) -> list[str]:
    return [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple | set) else []


def _without(names: Collection[str], *, public: bool) -> list[str]:
    """Those that are not there, sorted; of `public` names that readers do not see. Two readings, whatever their number."""
    slugs = [name.removeprefix("lesson:") for name in names if name.startswith("lesson:")]
    hashes = [name.removeprefix("media:") for name in names if name.startswith("media:")]
    there: set[str] = set()
    if slugs:
        for raw in Lesson.rows().find({"slug": {"$in": slugs}}, {"slug": 1, "stands": 1}):
            if not public or any(stand.get("version") for stand in (raw.get("stands") or {}).values()):
                there.add(f"lesson:{raw['slug']}")
    if hashes:
        there |= {f"media:{name}" for name in media.types(hashes)}
    return sorted(({f"lesson:{name}" for name in slugs} | {f"media:{name}" for name in hashes}) - there)

"""Reading what is published: which items a reader may see now, in which edition, in what order, and for how long.

Lessons, paths, search, sync and notices all ask here, so that a phone's copy, a page of the catalogue and a search agree.
Everything is answered from the snapshot, in memory.
"""

import bisect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from content import divisions, languages, store
from content.failures import invalid
from content.published import Item, Snapshot
from content.vocabulary import VOICES, Stage

VOICE_OF = {audience: voice for voice, audiences in VOICES.items() for audience in audiences}


def shown(item: Item, now: datetime) -> bool:
    """Whether readers may see it at this moment (the expiry counts before the clock has withdrawn it)."""
    content = item.content or {}
    return not content.get("expires_at") or datetime.fromisoformat(content["expires_at"]) > now


def holds(snapshot: Snapshot, *kinds: str, most: float = 3600, max_age: int = 60) -> tuple[float, int]:
    """Seconds for which an answer made from these kinds in this snapshot may be kept here, and by others: until the next item
    of them expires."""
    now = store.now()
    for moments in (expiries(snapshot, kind) for kind in kinds):
        at = bisect.bisect_right(moments, now)
        if at < len(moments):
            most = min(most, (moments[at] - now).total_seconds())
    return most, int(min(max_age, most))


def expiries(snapshot: Snapshot, kind: str) -> list[datetime]:
    """When items of this kind expire, past and future, ascending."""
    memo = snapshot.memo(kind)
    if "expiries" not in memo:
        items = (item for texts in snapshot.entries(kind).values() for item in texts.values())
        moments = {(item.content or {}).get("expires_at") for item in items}
        memo["expiries"] = sorted(datetime.fromisoformat(moment) for moment in moments if moment)
    return memo["expiries"]  # type: ignore[no-any-return]


def order(item: Item) -> list[Any]:
    """Sort key of the catalogue: last released first, then slug."""
    return [-item.seq, item.key]


def choose(
    texts: Mapping[str, Item],
    audience: str | None,
    wanted: tuple[str, ...],
    last: str,
    now: datetime,
    language: str | None = None,
) -> Item | None:
    """The best of a lesson's editions for a reader, what has expired left out; None when none is left.

    Among the texts for `audience`: in its own voice or for all, never in a voice meant for others; without one, first those for
    all. The language goes before the
    voice, since what one cannot read helps nobody: an English-reading parent gets the English text for all rather than the
    parents' in Chinese. With `language` only that one counts.
    """
    there: dict[str, dict[str, Item]] = {}  # voice -> language -> item
    for edition, item in texts.items():
        tag, voice = languages.parts(edition)
        if language in (None, tag) and shown(item, now):
            there.setdefault(voice, {})[tag] = item
    own = [VOICE_OF[audience], ""] if audience in VOICE_OF else [""]
    for voices in [own] if audience in VOICE_OF else [own, list(VOICES)]:
        tags = {tag for voice in voices for tag in there.get(voice, ())}
        if tags:
            best = languages.pick(tags, wanted, last)
            return next(there[voice][best] for voice in voices if best in there.get(voice, ()))
    return None


def matching(
    *,
    audience: str | None = None,
    stage: Stage | None = None,
    topic: str | None = None,
    kind: str | None = None,
    season: str | None = None,
    division: str | None = None,
) -> Callable[[Item], bool]:
    """Whether a published lesson, or a path (which has no kind and no season), is for such readers. `division` takes what is
    meant for it or for a division above it. Raises `Invalid` for an unknown one."""
    if division and not divisions.known(division):
        raise invalid("division", "unknown_reference", value=division)
    line = set(divisions.lineage(divisions.current(division))) if division else set()

    def fits(item: Item) -> bool:
        c = item.content or {}
        return (
            (not audience or audience in c["audiences"])
            and (not topic or topic in c["topics"])
            and (not kind or kind == c.get("kind"))
            and (not season or season in c.get("seasons", ()))
            and (not division or not c["divisions"] or not line.isdisjoint(c["divisions"]))
            and (not stage or any(Stage.parse(s).covers(stage) for s in c["stages"]))
        )

    return fits


def readable(snapshot: Snapshot, slugs: Iterable[str], audience: str | None = None, stage: Stage | None = None) -> list[str]:
    """Those of `slugs` that are published in any language and meant for these readers, in their order."""
    fits = matching(audience=audience, stage=stage)
    texts = {slug: snapshot.get("lesson", slug).values() for slug in slugs}
    return [slug for slug, found in texts.items() if any(shown(item, store.now()) and fits(item) for item in found)]

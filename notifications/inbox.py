"""The inbox: what readers of a segment are told, from the published set, whether or not a push arrived and whether or not the
database is there. Everyone of a segment gets the same; nothing tells who reads.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from content import divisions, languages
from content.published import Snapshot
from content.vocabulary import Stage


def read(
    snapshot: Snapshot,
    now: datetime,
    *,
    division: str = "",
    audience: str = "",
    stage: str = "",
    wanted: Sequence[str] = (),
    since: int = 0,
    limit: int = 50,
    last: str = "zh-Hans",
) -> tuple[list[dict[str, Any]], list[str], int]:
    """(notices of a segment released after sequence `since`, oldest first; ids withdrawn since; sequence to go on from).

    What the reader does not say excludes nothing. Each notice comes once, in the best of its languages for `wanted`.
    Raises `NotFound` for an unknown division, `Invalid` for a stage that is none.
    """
    since = min(since, snapshot.seq)  # one from beyond would hear of nothing until we came there
    line = set(divisions.lineage(division)) if division not in {"", divisions.COUNTRY} else set()
    reader = Stage.parse(stage, "stage") if stage else None
    found: list[tuple[int, dict[str, Any]]] = []
    for by_language in snapshot.entries("notice").values():
        item = by_language[languages.pick(by_language, wanted, last)]
        content = item.content or {}
        if (
            item.seq > since
            and datetime.fromisoformat(content["expires_at"]) > now
            and (not audience or audience in content["audiences"])
            and (not line or not content["divisions"] or line & set(content["divisions"]))
            and (not reader or not content["stages"] or any(Stage.parse(s).covers(reader) for s in content["stages"]))
        ):
            found.append((item.seq, {**content, "language": item.language}))
    found.sort(key=lambda one: (one[0], one[1]["id"]))
    rest = found[limit:]
    cursor = found[limit - 1][0] if rest else snapshot.seq
    gone = {key for (kind, key, _), item in snapshot.gone.items() if kind == "notice" and since < item.seq <= cursor}
    return [content for _, content in found[:limit]], sorted(gone) if since else [], cursor

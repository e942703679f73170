"""What published things still need: where they are used, which have aged, which translations have fallen behind, and which
self-checks were recalled.

Readers' side is asked of the snapshot, in memory; only what is nobody's to read yet is asked of the database.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from content.checks import Check
from content.lessons import Lesson
from content.markdown import LINK
from content.paths import Path
from content.published import ANY, Snapshot
from content.publishing import Publishable, Version
from content.records import Audit

YEAR = 365  # days after which a lesson without a review date is to be looked at again


class Use(NamedTuple):
    """One thing that uses another."""

    kind: str
    key: str
    published: bool
    """Readers see it so."""
    organisation: str = ""
    divisions: tuple[str, ...] = ()
    """Of its working copy, when that is what uses it; readers' things are everybody's to know."""


def _uses(published: set[tuple[str, str]], drafts: Iterator[tuple[type[Publishable], dict[str, Any]]]) -> list[Use]:
    found = {name: Use(*name, True) for name in published}
    for cls, raw in drafts:
        name = (cls.NAME, raw["slug"])
        found.setdefault(name, Use(*name, False, raw.get("organisation", ""), tuple(raw.get("divisions") or ())))
    return [found[name] for name in sorted(found)]


def _drafts(cls: type[Publishable], match: dict[str, Any]) -> Iterator[tuple[type[Publishable], dict[str, Any]]]:
    for raw in cls.rows().find(match, {"slug": 1, "organisation": 1, "divisions": 1}):
        yield cls, raw


def readers_of(snapshot: Snapshot, slug: str) -> set[tuple[str, str]]:
    """(kind, key) of the published paths, checks and lessons that lead to a lesson."""
    memo = snapshot.memo("lesson")
    if "links" not in memo:
        links: dict[str, set[str]] = {}
        for key, texts in snapshot.entries("lesson").items():
            for item in texts.values():
                for target in LINK.findall((item.content or {}).get("body", "")):
                    links.setdefault(target, set()).add(key)
        memo["links"] = links
    found = {("lesson", key) for key in memo["links"].get(slug, ()) if key != slug}
    for key, texts in snapshot.entries("path").items():
        if any(step["lesson"] == slug for item in texts.values() for step in (item.content or {}).get("steps", ())):
            found.add(("path", key))
    for key, texts in snapshot.entries("check").items():
        if any(slug in (item.content or {}).get("lessons", ()) for item in texts.values()):
            found.add(("check", key))
    return found


def uses_of_lesson(snapshot: Snapshot, slug: str) -> list[Use]:
    """Paths, checks and other lessons that lead to a lesson, for readers or in a working copy. Notices and seasons are not this
    room's to know."""

    def drafts() -> Iterator[tuple[type[Publishable], dict[str, Any]]]:
        yield from _drafts(Path, {"steps.lesson": slug})
        yield from _drafts(Check, {"lessons": slug})
        for cls, raw in _drafts(Lesson, {"uses": f"lesson:{slug}"}):
            if raw["slug"] != slug:
                yield cls, raw

    return _uses(readers_of(snapshot, slug), drafts())


def uses_of_media(snapshot: Snapshot, sha256: str) -> list[Use]:
    """Lessons and whatever else names a media file, for readers or in a working copy."""
    found = {
        (kind, key)
        for kind, keys in snapshot.kinds.items()
        if kind != "media"
        for key, texts in keys.items()
        if any(sha256 in ((item.content or {}).get("media") or ()) for item in texts.values())
    }
    return _uses(found, _drafts(Lesson, {"uses": sha256}))


def kept_versions(sha256: str) -> list[str]:
    """Published versions, old ones too, that name a media file, as "lesson exam-week zh-Hans 3"."""
    rows = Version.rows().find({"media": sha256}, {"kind": 1, "key": 1, "language": 1, "number": 1})
    return sorted(f"{raw['kind']} {raw['key']} {raw['language']} {raw['number']}" for raw in rows)


# --- aging -----------------------------------------------------------------------------------------------------------


class Aging(NamedTuple):
    """A published lesson that is to be looked at again."""

    due: str
    """Local date: the review date of what readers see, else a year after its publication."""
    slug: str
    planned: bool
    """Whether someone set that date."""
    editions: dict[str, str]
    """Edition → title, of those that are due."""


def aging(snapshot: Snapshot, before: date, zone: str) -> list[Aging]:
    """Lessons whose day comes until `before`, oldest first. Each edition counts with its own published facts: a new date counts
    once it is published."""
    where, found = ZoneInfo(zone), []
    for slug, texts in snapshot.entries("lesson").items():
        days: dict[str, tuple[str, bool]] = {}
        for edition, item in texts.items():
            content = item.content or {}
            set_ = content.get("review_due")
            day = set_ or str(_day(content["published_at"], where) + timedelta(days=YEAR))
            if day <= str(before):
                days[edition] = (day, bool(set_))
        if days:
            due, planned = min(days.values())
            found.append(Aging(due, slug, planned, {k: (texts[k].content or {}).get("title", "") for k in sorted(days)}))
    return sorted(found, key=lambda one: (one.due, one.slug))


def _day(moment: str, zone: ZoneInfo) -> date:
    return datetime.fromisoformat(moment).astimezone(zone).date()


# --- translations ----------------------------------------------------------------------------------------------------


def stale(after: tuple[datetime, str] = (datetime(1970, 1, 1, tzinfo=UTC), "")) -> Iterator[dict[str, Any]]:
    """Lessons with editions that are behind their source, by when the first of them fell behind, then slug; those after `after`.
    Stored rows without texts (see `publishing` for `behind`)."""
    fields = {"slug": 1, "organisation": 1, "divisions": 1, "behind": 1, "behind_since": 1, "stands": 1}
    match = {"behind_since": {"$gte": after[0]}}
    for raw in Lesson.rows().find(match, fields).sort([("behind_since", 1), ("slug", 1)]):
        if (raw["behind_since"], raw["slug"]) > after:
            yield raw


def behind(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The editions of one such lesson, oldest first: {"language", "made_from", "state", "reason", "since", "versions_behind",
    "made_from_version", "present_version"}.

    `reason`: moved_on; rolled_back (readers see an older source than it was made from); withdrawn; unknown (nobody recorded the
    version, or it was made from a draft that was never published); source_missing. `versions_behind` is None unless it moved on.
    """
    sources = (Lesson.rows().find_one({"_id": raw["_id"]}, {"texts": 1}) or {}).get("texts", {})
    result = []
    for language, one in raw["behind"].items():
        source, of = (sources.get(language) or {}).get("made_from") or "", one["of"]
        stand = raw["stands"].get(source)
        present = (stand or {}).get("version")
        since, count, reason = one["since"], None, "unknown"
        numbers = _numbers(raw["slug"], source) if stand and of else {}
        if stand is None:
            reason = "source_missing"
        elif of and not present:
            reason = "withdrawn"
        elif of in numbers and present in numbers:
            later = [at for number, at in numbers.values() if number > numbers[of][0]]
            reason = "moved_on" if numbers[present][0] > numbers[of][0] else "rolled_back"
            if reason == "moved_on":
                count, since = len([n for n, _ in numbers.values() if numbers[of][0] < n <= numbers[present][0]]), min(later)
        row = {"made_from": source, "state": (raw["stands"].get(language) or {}).get("state"), "reason": reason, "since": since}
        versions = {"versions_behind": count, "made_from_version": of or None, "present_version": present}
        result.append({"language": language, **row, **versions})
    return sorted(result, key=lambda row: (row["since"], row["language"]))


def _numbers(slug: str, language: str) -> dict[str, tuple[int, datetime]]:
    rows = Version.rows().find({"kind": Lesson.NAME, "key": slug, "language": language}, {"number": 1, "at": 1})
    return {raw["_id"]: (raw["number"], raw["at"]) for raw in rows}


# --- recalls ---------------------------------------------------------------------------------------------------------


class Recall(NamedTuple):
    """One recall of a self-check."""

    id: str
    """Of its line in the trail."""
    at: datetime
    by: str
    note: str
    """Why, in the words of who recalled it."""
    check: Check
    """As it now is."""


def recalls(before: tuple[datetime, str] | None = None) -> Iterator[Recall]:
    """Every recall of a self-check that still has a record, newest first; those before `before` (moment, id). It is read from the
    trail: a check that was published again since is in it too."""
    match: dict[str, Any] = {"kind": Check.NAME, "action": f"{Check.NAME}.withdraw"}
    if before:
        match["at"] = {"$lte": before[0]}
    found: dict[str, Check | None] = {}
    for raw in Audit.rows().find(match).sort([("at", -1), ("_id", -1)]):
        if before and (raw["at"], raw["_id"]) >= before:
            continue
        key = raw["key"]
        if key not in found:
            row = Check.rows().find_one({"_id": key})
            found[key] = Check.of(row) if row else None
        if (check := found[key]) is not None:
            note = raw.get("note", "")  # a withdrawal without a word is noted under its edition, of which a check has one
            yield Recall(raw["_id"], raw["at"], raw["actor"], "" if note == ANY else note, check)


def uses_of_check(snapshot: Snapshot, slug: str) -> list[Use]:
    """Paths that begin with a self-check, for readers or in a working copy. Seasons are not this room's to know."""
    found = {
        ("path", key)
        for key, texts in snapshot.entries("path").items()
        if any(((item.content or {}).get("begins_with") or {}).get("check") == slug for item in texts.values())
    }
    return _uses(found, _drafts(Path, {"begins_with.check": slug}))

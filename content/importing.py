"""Lesson files from disk into plain values. Nothing is stored here, and nothing is left out without saying so.

Read are: our own Markdown with YAML front matter; other people's Markdown, with or without front matter; African Storybook
stories (Markdown, pages parted by `##`, credits at the end); data lists of open-app-builder (JSON). Every file gives at least
one `Read`, `Refused` or `Skipped`; a file with anything refused gives no `Read`, so that a refused file changes nothing.
What a file does not say is taken from the caller's defaults or assumed, and `Read.assumed` names it.
"""

import dataclasses
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from content import languages, lessons
from content.datalists import data_list
from content.failures import NotFound, invalid
from content.languages import SPACES
from content.lessonfiles import (
    LISTS,
    SAYS,
    Outcome,
    Place,
    Read,
    Refusal,
    Refused,
    Skipped,
    name_of,
    refusal,
    skipped,
    text_of,
    warn,
)
from content.manuscripts import markdown

__all__ = ["Outcome", "Read", "Refused", "Skipped", "read", "write"]

NOT_LESSONS = {"readme", "license", "licence", "contributing", "changelog", "code_of_conduct", "security"}


def read(path: Path, *, defaults: Mapping[str, Any] | None = None) -> Iterator[Outcome]:
    """Every lesson of a file or a folder (with its folders, in the order of their names).

    `defaults` (audiences, stages, topics, seasons, divisions, kind, language, licence) stand where a file says nothing. Slugs
    hang on names and never on the folder the import began at, so reading again gives the same. Of two files with the same slug
    and language the second is refused. Raises `NotFound` for the path and `Invalid` for the defaults, both at once.
    """
    given = dict(defaults or {})
    if unknown := set(given) - {*LISTS, "kind", "language", "licence"}:
        raise invalid(f"defaults.{min(unknown)}", "unknown_field")
    if "language" in given:
        given["language"] = languages.tag(given["language"], "defaults.language")
    given |= lessons.checked({k: v for k, v in given.items() if k not in {"language", "licence"}})
    if not path.exists():
        raise NotFound(what=str(path))
    return iter(_joined(_all(path.absolute(), given)))


def write(lesson: lessons.Lesson) -> Iterator[tuple[str, str]]:
    """(file name, content) of each of a lesson's texts, in the form that `read` takes: reading them again gives the same."""
    raw = lesson.to_mongo().to_dict()
    for language, text in sorted(raw.get("texts", {}).items()):
        front = {"slug": raw["slug"], "language": language} | {name: raw[name] for name in lessons.META if name in raw}
        own = ("title", "summary", "try_this", "check_in", "minutes", "made_from", "licence", "needs_translator")
        front |= {name: text[name] for name in own if text.get(name)}
        head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=10**6)
        yield f"{raw['slug']}.{language}.md", f"---\n{head}---\n{text['body']}\n"


def _all(root: Path, defaults: dict[str, Any]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    found: list[Outcome]
    taken: dict[tuple[str, str], str] = {}
    beside: dict[Path, Any] = {}
    for path, source, why in _walk(root):
        try:
            if why == "gone":
                raise refusal(why)
            found = [skipped(source, why)] if why else list(_file(Place(path, source, defaults, beside)))
        except Refusal as failure:
            found = [Refused(source, *problem) for problem in failure.problems]
        own: dict[tuple[str, str], str] = {}
        for one in [one for one in found if isinstance(one, Read)]:
            key = (one.slug, one.language)
            if (first := taken.get(key) or own.get(key)) is not None:
                says = {"first": first, "slug": one.slug, "language": one.language}
                found.append(Refused(source, one.line, "slug", SAYS["duplicate"].fill(says)))
            own.setdefault(key, f"{source}:{one.line}")
        if any(isinstance(one, Refused) for one in found):
            found = [one for one in found if not isinstance(one, Read)]
        else:
            taken |= own
        outcomes += found
    return outcomes


def _walk(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(path, shown name, code of SAYS when it is not to be read), sorted by name within each folder."""
    if not root.is_dir():
        yield root, name_of(root), ""
        return

    def within(folder: Path, prefix: str) -> Iterator[tuple[Path, str, str]]:
        try:
            paths = sorted(folder.iterdir(), key=name_of)
        except OSError:
            yield folder, prefix, "gone"
            return
        for path in paths:
            source, mode = prefix + name_of(path), path.lstat().st_mode
            if path.name.startswith("."):
                yield path, source, "hidden"
            elif stat.S_ISLNK(mode):
                yield path, source, "link"
            elif stat.S_ISDIR(mode):
                yield from within(path, f"{source}/")
            else:
                yield path, source, "" if stat.S_ISREG(mode) else "special"

    yield from within(root, "")


def _file(place: Place) -> Iterator[Outcome]:
    name = name_of(place.path)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (Path(name) would read a "/" that decoding may bring)
    if stem.lower() in NOT_LESSONS:
        yield skipped(place.source, "about_folder")
    elif name == "SOURCES.tsv":
        text_of(place.path)
        yield skipped(place.source, "origins")
    elif suffix.lower() == ".json":
        yield from data_list(place, stem)
    elif suffix.lower() in {".md", ".markdown"}:
        yield markdown(place, stem, [])
    elif not re.fullmatch(r"\.[A-Za-z0-9]{1,5}", suffix) and text_of(place.path).lstrip(SPACES).startswith(("---", "# ")):
        # names cut off by a length limit lose their ending
        yield markdown(place, name, [warn("no_extension")])
    else:
        yield skipped(place.source, "other_kind")


def _joined(outcomes: list[Outcome]) -> list[Outcome]:
    """The same facts in all languages of a slug: what any of its files states goes before what was assumed for another."""
    groups: dict[str, list[Read]] = {}
    for one in outcomes:
        if isinstance(one, Read):
            groups.setdefault(one.slug, []).append(one)
    facts: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {}
    for slug, group in groups.items():
        assumed = tuple(name for name in group[0].assumed if all(name in one.assumed for one in group))
        meta: dict[str, Any] = {"help": any(one.meta["help"] for one in group)}
        said: list[str] = []
        for name in (*LISTS, "kind", "sources", "reviewed_by", "review_due"):
            values = [one.meta[name] for one in group if name in assumed or name not in one.assumed]
            if isinstance(values[0], list):
                every = [item for value in values for item in value]
                meta[name] = [item for i, item in enumerate(every) if item not in every[:i]]
            else:
                meta[name] = next((value for value in values if value), None)
            if name in (*LISTS, "kind") and any(value != values[0] for value in values):
                said.append(warn("not_alike", name=name))
        told = [f"{name}={', '.join(v) if isinstance(v, list) else v}" for name in assumed if (v := meta[name])]
        said += [warn("assumed", what="; ".join(told))] if told else []
        facts[slug] = meta, tuple(said), assumed
    return [
        dataclasses.replace(
            one, meta={**one.meta, **facts[one.slug][0]}, warnings=one.warnings + facts[one.slug][1], assumed=facts[one.slug][2]
        )
        if isinstance(one, Read)
        else one
        for one in outcomes
    ]

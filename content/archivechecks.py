"""What an archive may bring before readers: only what this release would itself have stored.

A name by hash says that a content is whole, not that anyone here wrote it: whoever forges an archive computes the hashes too. So
each version, working copy and directory entry goes through its kind's own checks again, and what comes out must be what went in:
no other key, no other type, no other code. What a check never makes a reader never meets. What it names is looked for by
`content.archive`; a division that was retired since is no fault.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from content import (
    checks,
    courses,
    coveragetargets,
    demands,
    directory,
    divisions,
    languages,
    lecturers,
    lessons,
    paths,
    records,
    rules,
    sessions,
    staff,
)
from content.archivefiles import HASH
from content.checking import SLUG, Check
from content.checks import Check as SelfCheck
from content.courses import CourseSession, Series
from content.coveragetargets import CoverageTarget
from content.definition import KINDS, Definition, to_json
from content.demands import Demand, Listed
from content.directory import Service
from content.failures import Invalid, Text, invalid
from content.inspection import TYPES
from content.lecturers import Lecturer
from content.lessons import Lesson, LessonText
from content.media import Media
from content.paths import Path, PathText
from content.published import ANY, canonical
from content.records import SYSTEM
from content.staff import Organisation
from content.store import Row

EMPTY: tuple[Any, ...] = (None, [], {}, "", False)
OPERATORS = ("exists", "=", "!=", ">", "<", ">=", "<=")
BY = {"created_by": SYSTEM}  # what a version does not say of its record
SOURCE = 1000  # characters of a source's title and address
NAME = 200  # of an organisation


def _same(given: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Raises `Invalid` naming the first field in which they differ; an empty value equals an absent one."""
    for name in sorted({*given, *made}):
        one, other = given.get(name), made.get(name)
        if not (one in EMPTY and other in EMPTY) and json.dumps(one, sort_keys=True, default=str) != json.dumps(
            other, sort_keys=True, default=str
        ):
            raise invalid(name[:60], "wrong_type", reason=Text("不是本项目所写的样子", "it is not as this release writes it"))


def _need(values: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if not values.get(name):
            raise invalid(name, "required")


def _divisions(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without their divisions, each of which is known, be it retired. Raises `Invalid`."""
    given = values.get("divisions") or []
    for code in given if isinstance(given, list) else [None]:
        if not isinstance(code, str) or not divisions.known(code):
            raise invalid("divisions", "unknown_reference", value=str(code)[:40])
    return {name: value for name, value in values.items() if name != "divisions"}


# --- what has versions -----------------------------------------------------------------------------------------------


def version(kind: str, key: str, language: str, content: dict[str, Any]) -> None:
    """Raises `Invalid` (or what the checks stumble over: TypeError, KeyError …) unless a record of this kind could have had
    this content in this language when it was published."""
    found: dict[str, Callable[[str, str, dict[str, Any]], None]] = {"lesson": _lesson, "path": _path, "check": _check}
    if kind not in found:
        raise invalid("kind", "not_one_of", choices=", ".join(found))
    if content.get("slug") != key or not SLUG.fullmatch(key):
        raise invalid("slug", "bad_format", reason=key[:80])
    if (language == ANY) != (kind == "check") or (language != ANY and languages.edition(language) != language):
        raise invalid("language", "bad_format", reason=language[:40])
    found[kind](key, language, content)


def _lesson(key: str, language: str, content: dict[str, Any]) -> None:
    tag, voice = languages.parts(language)
    facts = {name: content[name] for name in lessons.META if name in content}
    text = {name: content[name] for name in LessonText._fields if name in content and name != "needs_translator"}
    rest = {name: value for name, value in content.items() if name not in {*facts, *text, "files"}}
    _same(rest, {"slug": key, "language": tag, "voice": voice})
    files = content.get("files") or {}
    if not files.keys() <= {*content["media"]} or not all(one in TYPES for one in files.values()):
        raise invalid("files", "wrong_type", reason="{SHA-256: content type}")
    lesson_facts(facts)
    lesson_text(text)
    record = Lesson.of({**BY, "_id": key, "slug": key, **facts, "texts": {language: text}})
    record.validate()
    raw = record.to_mongo().to_dict()
    _same(facts, {name: raw.get(name) for name in facts})
    _same(text, raw["texts"][language])
    _need(content, "audiences", "stages", "topics", "sources", "title", "body")


def lesson_facts(facts: Mapping[str, Any]) -> None:
    """Raises `Invalid` for facts that no editor could have put."""
    for name in ("audiences", "stages", "topics", "seasons", "divisions", "media", "sources"):
        if not isinstance(facts.get(name), list | None):
            raise invalid(name, "wrong_type", reason="[…]")
    rest = _divisions(facts)
    _same(rest, lessons.checked(rest))
    check = Check()
    for number, source in enumerate(facts.get("sources") or []):
        check.fields(source, ("title", "url"))
        check.text(f"sources.{number}.title", source.get("title"), SOURCE, required=True)
        _address(check, f"sources.{number}.url", source.get("url"))
    check.text("reviewed_by", facts.get("reviewed_by"))
    due = facts.get("review_due")
    if due and not _day(due):
        check.fail("review_due", "bad_format", reason="2026-11-21")
    check.done()


def _day(value: Any) -> bool:
    try:
        return bool(date.fromisoformat(value).isoformat() == value)
    except (TypeError, ValueError):
        return False


def _address(check: Check, field: str, value: Any) -> None:
    text = check.text(field, value, SOURCE)
    if text and not text.lower().startswith(("https://", "http://")):
        check.fail(field, "bad_format", reason="https://…")


def lesson_text(text: Mapping[str, Any]) -> None:
    """Raises `Invalid` for a text that no editor could have put."""
    check = Check()
    check.fields(text, LessonText._fields)
    for name in ("title", "summary", "body", "try_this", "licence", "made_from", "made_from_version"):
        if not isinstance(text.get(name), str | None):
            check.fail(name, "wrong_type", reason=Text("请填文字", "write a text"))
    check.whole("minutes", text.get("minutes"), 0, 10**6)
    check.done()
    _same(text, lessons.text_values(text))


def _path(key: str, language: str, content: dict[str, Any]) -> None:
    facts = {name: content[name] for name in paths.FACTS}
    path_facts(facts)
    text = {name: content[name] for name in PathText._fields if name in content}
    path_text(text)
    given = {name: value for name, value in facts.items() if value is not None}
    record = Path.of({**BY, "_id": key, "slug": key, **given, "texts": {language: text}})
    record.validate()
    _same(content, record.content_of(language))
    _need(content, "audiences", "stages", "topics", "title", "summary")


def path_facts(facts: Mapping[str, Any]) -> None:
    """Raises `Invalid` for facts that no editor could have put; the lessons and the check they name are not looked for."""
    rest = {name: value for name, value in _divisions(facts).items() if value or name != "begins_with"}
    made = paths.checked(rest, known=False)
    _same(rest, made)
    if wrong := paths.faults(made["pace"], made["steps"]):
        raise Invalid(wrong)


def path_text(text: Mapping[str, Any]) -> None:
    """Raises `Invalid` for a text that no editor could have put."""
    check = Check()
    check.fields(text, PathText._fields)
    made = {name: check.text(name, value, lessons.LIMITS[name]) for name, value in text.items() if name in lessons.LIMITS}
    check.done()
    _same(text, made)


def _check(key: str, language: str, content: dict[str, Any]) -> None:
    facts = {name: content[name] for name in ("register", "lessons", "expires_days")}
    record = SelfCheck.of({**BY, "_id": key, "slug": key, "definition": canonical(content["definition"]), **facts})
    record.validate()
    self_check(record)
    _same(content, record.content_of(ANY))
    if missing := record.missing(ANY):
        raise invalid(missing[0][:60], "required")


def self_check(record: SelfCheck) -> None:
    """Raises `Invalid` for a register entry or a definition that no editor could have put."""
    values = record.values()
    _same(values, checks.checked({name: value for name, value in values.items() if value is not None}))
    definition = record.parsed()
    clauses = [clause for item in definition.index.values() for clause in item.clauses]
    if (
        canonical(to_json(definition)) != record.definition
        or not _typed(definition, Definition)
        or rules.faults(definition)
        or not all(item.kind in KINDS for item in definition.index.values())
        or not all(clause.operator in OPERATORS and clause.question in definition.index for clause in clauses)
    ):
        raise invalid("definition", "wrong_type", reason=Text("不是本项目所写的样子", "it is not as this release writes it"))


def _typed(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation of `definition` says: its dataclasses do not look for themselves."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_typed(value, part) for part in parts)
    if origin is tuple:
        return type(value) is tuple and all(_typed(one, parts[0]) for one in value)
    if parts:  # a mapping
        return type(value) is dict and all(_typed(k, parts[0]) and _typed(v, parts[1]) for k, v in value.items())
    if dataclasses.is_dataclass(hint):
        return type(value) is hint and all(_typed(getattr(value, n), h) for n, h in typing.get_type_hints(hint).items())
    return type(value) is hint


# --- records and rows ------------------------------------------------------------------------------------------------


def record(cls: type[Row], raw: Mapping[str, Any]) -> None:
    """Raises `Invalid` (or what the checks stumble over) for a carried record that no verb could have written: readers get it
    at its next publication, which may wait for the clock alone."""
    if cls is Lesson:
        lesson_facts({name: raw[name] for name in lessons.META if name in raw})
        for text in raw.get("texts", {}).values():
            lesson_text({name: value for name, value in text.items() if name != "needs_translator"})
    elif cls is Path:
        path_facts({name: raw[name] for name in paths.FACTS if name in raw})
        for text in raw.get("texts", {}).values():
            path_text(text)
    elif cls is SelfCheck:
        self_check(SelfCheck.of(dict(raw)))
    elif cls is Service:
        service(str(raw["_id"]), {"id": raw["_id"], **{name: raw.get(name) for name in directory.FIELDS}})
    elif cls is Lecturer:
        lecturer({name: raw.get(name) for name in lecturers.FIELDS})
    elif cls is Series:
        series({name: raw.get(name) for name in courses.SERIES_FIELDS})
    elif cls is CourseSession:
        values = records.values_of(CourseSession.of(dict(raw)), sessions.SESSION_FIELDS)
        _same(values, sessions.checked_session(values))
    elif cls is Organisation:
        staff.check_marks(raw["kind"], bool(raw.get("able")), raw.get("parents"))
    elif cls is CoverageTarget:
        values = {name: raw.get(name) for name in coveragetargets.FIELDS}
        _same(values, coveragetargets.checked_target(values))
        coveragetargets.check_place(raw["_id"], raw.get("division", ""), raw["year"])
    elif hasattr(cls, "sound"):  # a notice's text, whose class lies above this room
        cls.of(dict(raw)).sound()
    elif issubclass(cls, Listed):
        listed(cls.of(dict(raw)))
    elif cls is Media:
        hashes = [*raw.get("captions", {}).values()]
        kinds = [raw["content_type"], *(one["content_type"] for one in raw.get("renditions", []))]
        if not all(HASH.fullmatch(one) for one in hashes) or not all(one in TYPES for one in kinds):
            raise invalid("content_type, captions", "wrong_type", reason=", ".join(TYPES))


def service(key: str, values: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an entry of the directory that no editor could have put."""
    rest = _divisions(values)
    found, made = directory.checked(rest)
    _same({**rest, "id": key}, {**_divisions(made), "id": found})


def series(values: Mapping[str, Any]) -> None:
    """Raises `Invalid` for a course series that no editor could have put."""
    if not divisions.known(values["division"]):
        raise invalid("division", "unknown_reference", value=str(values["division"])[:40])
    given = {**values, "division": divisions.children()[0].code}  # any that is in force
    _same(given, courses.checked_series(given))


def listed(present: Listed) -> None:
    """Raises `Invalid` for a line of a demand or task list that no verb could have written."""
    values = records.values_of(present, demands.FIELDS[type(present)])
    if not divisions.known(values["division"]):
        raise invalid("division", "unknown_reference", value=str(values["division"])[:40])
    given = {**values, "division": divisions.children()[0].code}  # any that is in force
    _same(given, demands.checked(type(present), given))
    check = Check()
    check.text("organisation_name", present.organisation_name, NAME, required=True)
    if present.state != "draft" and not _day(present.listed_on):
        check.fail("listed_on", "bad_format", reason="2026-11-21")
    if isinstance(present, Demand):
        for number, second in enumerate(present.seconds):
            for name in ("organisation", "name"):
                check.text(f"seconds.{number}.{name}", second[name], NAME, required=True)
            check.fields(second, ("organisation", "name"))
        check.whole("families", present.families, 0, 10**9)
        told = dict(present.to_mongo().to_dict().get("answer") or {})
        if bool(told) != (present.state in ("answered", "declined", "done")) or (
            told and bool(told["reason"]) != (present.state == "declined")
        ):
            check.fail("answer", "wrong_type", reason=present.state)
        elif told:
            fields = {name: told[name] for name in told if name not in ("provider_name", "on")}
            # one who organises what is offered is written in when nobody was named
            made = demands.checked_answer({**fields, "provider": "" if told["reason"] else fields["provider"]})
            _same(fields, made)
            check.text("answer.provider_name", told["provider_name"], NAME)
            if not _day(told["on"]):
                check.fail("answer.on", "bad_format", reason="2026-11-21")
    check.done()


def lecturer(values: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an entry of the expert library that no editor could have put."""
    if not divisions.known(values["division"]):
        raise invalid("division", "unknown_reference", value=str(values["division"])[:40])
    given = {**values, "division": divisions.children()[0].code}  # any that is in force
    _same(given, lecturers.checked(given))


def row(kind: str, key: str, content: Mapping[str, Any]) -> None:
    """Raises `Invalid` (or what the checks stumble over) for a published entry that is neither made from a version nor from its
    record: readers see it as it was published, which may be before the record's last edit."""
    if kind == "service":
        service(key, content)
    elif kind in {"series", "invited_series"}:
        if content["id"] != key or content["state"] not in ("published", "cancelled"):
            raise invalid("id, state", "not_one_of", choices="published, cancelled")
        values = {name: value for name, value in content.items() if name not in {"id", "state", "media", "invitation"}}
        series(values)
        invited = content.get("invitation")
        right = HASH.fullmatch(invited) if kind == "invited_series" and isinstance(invited, str) else invited is None
        if not right or kind != courses.kind("series", values["visibility"] == "invited"):
            raise invalid("visibility, invitation", "wrong_type", reason="SHA-256")
        if content["media"] != courses.shown(values["materials"]):
            raise invalid("media", "wrong_type", reason="materials")
    elif kind == "lecturer":
        schools = [*content["paired_schools"]]
        if content["id"] != key or not all(one.keys() == {"id", "name"} and isinstance(one["name"], str) for one in schools):
            raise invalid("id, paired_schools", "wrong_type", reason="{id, name}")
        values = {name: value for name, value in content.items() if name != "id"}
        lecturer({**values, "paired_schools": [one["id"] for one in schools]})
    else:
        raise invalid("kind", "not_one_of", choices="service, series, invited_series, lecturer")

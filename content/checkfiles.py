"""Self-checks out of files: questionnaires with their registers into drafts, and the starter library.

A questionnaire file brings the questions; NAME.yaml beside it is its register entry and its rules (`content.rules`).
"""

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from content import fhir, records, reproschema, rules
from content.checking import SLUG, SLUG_LIMIT, file_bytes, yaml_mapping
from content.checks import Check, approve, by_slug, no_help, publish, put_draft, submit
from content.definition import ANSWERED, Definition
from content.failures import Failure, FieldError, Invalid
from content.fhirout import CANONICAL
from content.published import ANY
from content.settings import Settings

FILE_LIMIT = 4 * 1024 * 1024  # bytes; the largest real Questionnaire seen has 0.2 MB
SIDECAR_LIMIT = 256 * 1024
LEVELS = 6  # of folders
SUFFIXES = (".json", ".jsonld", "")  # ReproSchema's own files often have no ending
SHOWN = 6  # names in a list of what was skipped
FHIR = "FHIR "
BROKEN = "broken"
MORE = ("（另有 {} 处：{}）", "(and {} more: {})")

Found = tuple[Definition, tuple[str, ...]]
Reader = Callable[[str, str, str], Found]
"""Reads a questionnaire by (slug, language that the register gives it, first of the register's languages)."""


def import_files(path: Path, by: str, dry_run: bool = False) -> Iterator[dict[str, Any]]:
    """Read questionnaires into drafts: a file, or all of a folder and of the folders in it, `LEVELS` deep. FHIR R4
    Questionnaires find the ValueSets and CodeSystems of the same folders by URL; ReproSchema activities find their items by
    path, none outside `path`. NAME.yaml beside a file is its register.

    Yields {"source", "outcome": new|changed|unchanged|refused|skipped, "key", "messages": [{tag: text}]}, refusals and warnings
    naming the path inside the file, and of what was read "items" (that are answered), "languages" (complete) and "scales"
    (code: least, most). One row at the end counts and names what is no questionnaire. One file refused changes nothing and
    stops no other. Without a register file the check is a draft that cannot be submitted until staff complete it. A check goes
    under its file's name, or under its old slug when it came out of this service (`own_slug`). A second run gives "unchanged".
    """
    root = path if path.is_dir() else path.parent
    files = list(_walk(path)) if path.is_dir() else [path]
    slugs: dict[Path, str] = {}
    beside = [*root.glob("*.json"), *(root / "support").glob("*.json")] if path.is_file() else []
    kinds: dict[Path, str] = {}
    valuesets = []
    for file in dict.fromkeys([*files, *beside]):
        linked = file.is_symlink() and file != path  # nobody's folder leads elsewhere
        node = None if linked else _node(file)
        kinds[file] = "link" if linked else _kind(file, node)
        slugs[file] = own_slug(node) or slug_of(file.stem)
        if node is not None and kinds[file] in (f"{FHIR}ValueSet", f"{FHIR}CodeSystem"):
            valuesets.append(node)
    activities = "Activity" in kinds.values()
    taken: dict[str, str] = {}
    rest: dict[str, list[str]] = {}
    for file in files:
        source = os.fsencode(file.relative_to(root)).decode("utf-8", "replace")
        kind = kinds[file]
        read: Reader
        if kind == "Activity":
            key = slug_of(file.stem.lower().removesuffix("_schema"))
            read = functools.partial(_activity, file, root)
        elif path.is_file() or kind in (f"{FHIR}Questionnaire", BROKEN) or (kind == "JSON" and not activities):
            key = slugs[file]
            read = functools.partial(_questionnaire, file, valuesets)
        elif kind.startswith(FHIR) and file.parent == path:
            kind = kind.removeprefix(FHIR)
            yield {"source": source, "outcome": "skipped", "messages": [_said(f"{kind}：不是问卷", f"{kind}: no questionnaire")]}
            continue
        else:
            if kind != "yaml" or not any(file.with_suffix(end) in kinds for end in SUFFIXES):
                rest.setdefault(kind, []).append(source)
            continue
        row: dict[str, Any] = {"source": source, "key": key}
        if kind != BROKEN and (first := taken.setdefault(key, source)) != source:
            double = FieldError(source, "exists", {"what": f"{key} ({first})"})
            yield row | {"outcome": "refused", "messages": [double.messages]}
            continue
        yield row | _told(file, key, read, by, dry_run)
    if rest:
        names = "; ".join(f"{len(found)} {kind} ({_places(found)})" for kind, found in sorted(rest.items()))
        count = sum(map(len, rest.values()))
        said = _said(f"{count} 个文件不是问卷：{names}", f"{count} files are no questionnaires: {names}")
        yield {"source": os.fsencode(root.name or ".").decode("utf-8", "replace"), "outcome": "skipped", "messages": [said]}


def _told(file: Path, key: str, read: Reader, by: str, dry_run: bool) -> dict[str, Any]:
    """What became of one file."""
    try:
        outcome, definition, warnings = _import_one(file, key, read, by, dry_run)
    except Failure as failure:
        return {"outcome": "refused", "messages": _reasons(getattr(failure, "errors", [])) or [failure.messages]}
    except OSError as error:
        return {"outcome": "refused", "messages": [_said(f"读不了：{error.strerror}", f"cannot be read: {error.strerror}")]}
    except Exception as error:  # a fault of ours in one file must not keep the others out
        name = f"{file.name}: internal, {type(error).__name__}"
        return {
            "outcome": "refused",
            "messages": [_said(f"{name}：程序没有料到，请把文件发给我们", f"{name}: not foreseen, please send it")],
        }
    return {
        "outcome": outcome,
        "messages": [_said("", text) for text in warnings],
        "items": sum(item.kind in ANSWERED for item in definition.index.values()),
        "languages": list(definition.languages),
        "scales": {scale.code: definition.reach(scale) for scale in definition.scales},
    }


def _reasons(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    """Each reason once, at its first place, with how many other places it has and the next of them."""
    places: dict[str, list[FieldError]] = {}
    for error in errors:
        why = sorted((name, value) for name, value in error.params.items() if value != error.field)
        places.setdefault(f"{error.code} {why or error.field.rpartition('.')[2]}", []).append(error)
    told = []
    for first, *others in places.values():
        said = {k: t if first.field in t else f"{first.field}: {t}" for k, t in first.messages.items()}
        if others:
            where = ", ".join(e.field for e in others[:SHOWN]) + (" …" if len(others) > SHOWN else "")
            said = {k: f"{t} {more.format(len(others), where)}" for (k, t), more in zip(said.items(), MORE, strict=True)}
        told.append(said)
    return told


def _walk(folder: Path, depth: int = 1) -> Iterator[Path]:
    """Files in the order of their names, without those that begin with a dot; a folder too deep, or a link, stands for itself."""
    try:
        entries = sorted(folder.iterdir(), key=lambda one: one.name)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink() and depth < LEVELS:
            yield from _walk(entry, depth + 1)
        else:
            yield entry


def _node(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file that may be one; None when there is none."""
    if file.suffix not in SUFFIXES or file.is_dir():
        return None
    try:
        return fhir.parse(file_bytes(file, FILE_LIMIT))
    except Invalid:
        return None  # told of when it is this file's turn


def _kind(file: Path, node: dict[str, Any] | None) -> str:
    """What a file is: "FHIR " with its resourceType, a ReproSchema category, "JSON" for what is neither, `BROKEN` for what
    ought to be JSON, else its ending."""
    if node is not None:
        resource = node.get("resourceType")
        if isinstance(resource, str) and resource.isalnum():
            return f"{FHIR}{resource[:40]}"
        said = reproschema.category(node)
        return said if said in ("Activity", "Item", "ResponseOption", "Protocol") else "JSON"
    if file.is_dir():
        return "folder"
    return BROKEN if file.suffix in (".json", ".jsonld") or file.name.endswith("_schema") else file.suffix[1:] or "file"


def _places(sources: list[str]) -> str:
    """Where files are, short: the first few, by folder where there are many."""
    names = sources if len(sources) <= SHOWN else sorted({s.rpartition("/")[0] or "." for s in sources})
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")


def _said(zh: str, en: str) -> dict[str, str]:
    return {"zh-Hans": zh, "en": en}


def slug_of(stem: str) -> str:
    """A slug from a file's name: "rk_phq9" -> "rk-phq9"."""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:80] or "check"


def own_slug(node: Mapping[str, Any] | None) -> str:
    """The slug of a check that this service wrote out, by its canonical address; "" for anything else."""
    url = (node or {}).get("url")
    name = url.removeprefix(CANONICAL) if isinstance(url, str) and url.startswith(CANONICAL) else ""
    return name if len(name) <= SLUG_LIMIT and SLUG.fullmatch(name) else ""


def _questionnaire(file: Path, valuesets: list[dict[str, Any]], slug: str, language: str, first: str) -> Found:
    return fhir.read_questionnaire(file_bytes(file, FILE_LIMIT), valuesets, slug=slug, language=language or first)


def _activity(file: Path, root: Path, slug: str, language: str, first: str) -> Found:
    # its texts name their languages; the few that do not are English, whatever the register lists first
    return reproschema.read_activity(file, root, slug=slug, language=language)


def _import_one(file: Path, slug: str, read: Reader, by: str, dry_run: bool) -> tuple[str, Definition, tuple[str, ...]]:
    sidecar = _sidecar(file.with_suffix(".yaml"))
    language = first = ""
    if sidecar is not None:
        spoken = sidecar.get("languages")
        language, first = str(sidecar.pop("language", "") or ""), str(spoken[0]) if isinstance(spoken, list) and spoken else ""
    definition, warnings = read(slug, language, first)
    stands = Check.rows().find_one({"slug": slug})
    if sidecar is not None:
        definition = rules.laid(definition, {name: sidecar.pop(name) for name in rules.NAMES if name in sidecar})
    elif stands:
        definition = rules.kept(definition, Check.of(stands).parsed())
    outcome = put_draft(slug, definition, sidecar, by, dry_run=dry_run)
    entered = Check.of(stands).values() if stands else {}
    if sidecar is None and not entered.get("source"):
        warnings = (*warnings, f"{file.stem}.yaml: 没有登记信息，不能发布 no register entry: cannot be published")
    return outcome, definition, (*warnings, *no_help(definition, {**entered, **(sidecar or {})}))


def _sidecar(file: Path) -> dict[str, Any] | None:
    """The register file as plain values; None when there is none. Raises `Invalid` that names the line."""
    return yaml_mapping(file, SIDECAR_LIMIT) if file.is_file() and not file.is_symlink() else None


def load_library(folder: Path, settings: Settings) -> int:
    """Put and publish the starter library's checks as `SYSTEM`'s; returns how many. A load that was cut is finished. One whose
    register is not complete (it wants an approver of the place) stays a draft. Raises the failure of the first that does not
    load."""
    count = 0
    for file in sorted((folder / "checks").glob("*.json")):
        slug = slug_of(file.stem)
        if Check.rows().find_one({"slug": slug}, {"_id": 1}) is None:
            _import_one(file, slug, functools.partial(_questionnaire, file, []), records.SYSTEM, False)
        check = by_slug(slug)
        if check.missing(ANY):
            continue
        count += check.stands[ANY].state in ("draft", "in_review", "approved")
        for state, verb in (("draft", submit), ("in_review", approve), ("approved", publish)):
            if check.stands[ANY].state == state:
                check = verb(check.id, records.SYSTEM)
    return count

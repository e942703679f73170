"""Self-checks out of files: questionnaires with their registers into drafts, and the starter library.

A questionnaire file brings the questions; NAME.yaml beside it is its register entry and its rules (`content.rules`).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from content import fhir, records, rules
from content.checking import file_bytes, yaml_mapping
from content.checks import Check, approve, by_slug, publish, put_draft, submit
from content.failures import Failure, Invalid
from content.published import ANY
from content.settings import Settings

FILE_LIMIT = 4 * 1024 * 1024  # bytes; the largest real Questionnaire seen has 0.2 MB
SIDECAR_LIMIT = 256 * 1024


def import_files(path: Path, by: str, dry_run: bool = False) -> Iterator[dict[str, Any]]:
    """Read FHIR R4 Questionnaires (a file, or the *.json of a folder) into drafts, each with NAME.yaml beside it as its
    register; ValueSets and CodeSystems beside them or in `support/` resolve by URL.

    Yields {"source", "outcome": new|changed|unchanged|refused|skipped, "key", "messages": [{tag: text}]}, refusals and
    warnings naming the path inside the file. One file refused changes nothing and stops no other. Without a register file
    the check is a draft that cannot be submitted until staff complete it. A second run gives "unchanged".
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    folder = path if path.is_dir() else path.parent
    others = [node for file in [*folder.glob("*.json"), *(folder / "support").glob("*.json")] if (node := _resource(file))]
    valuesets = [node for node in others if node.get("resourceType") in ("ValueSet", "CodeSystem")]
    for file in files:
        row: dict[str, Any] = {"source": file.name, "key": slug_of(file.stem)}
        kind = (_resource(file) or {}).get("resourceType", "Questionnaire")
        if kind != "Questionnaire" and path.is_dir():
            yield row | {"outcome": "skipped", "messages": [_said(f"{kind}：不是问卷", f"{kind}: no questionnaire")]}
            continue
        try:
            outcome, warnings = _import_one(file, row["key"], valuesets, by, dry_run)
            yield row | {"outcome": outcome, "messages": [_said("", text) for text in warnings]}
        except Failure as failure:
            found = [
                {k: t if e.field in t else f"{e.field}: {t}" for k, t in e.messages.items()}
                for e in getattr(failure, "errors", [])
            ]
            yield row | {"outcome": "refused", "messages": found or [failure.messages]}
        except OSError as error:
            yield row | {
                "outcome": "refused",
                "messages": [_said(f"读不了：{error.strerror}", f"cannot be read: {error.strerror}")],
            }


def _said(zh: str, en: str) -> dict[str, str]:
    return {"zh-Hans": zh, "en": en}


def slug_of(stem: str) -> str:
    """A slug from a file's name: "rk_phq9" -> "rk-phq9"."""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:80] or "check"


def _resource(file: Path) -> dict[str, Any] | None:
    try:
        return fhir.parse(file_bytes(file, FILE_LIMIT))
    except Invalid:
        return None  # told of when it is this file's turn


def _import_one(file: Path, slug: str, valuesets: list[dict[str, Any]], by: str, dry_run: bool) -> tuple[str, tuple[str, ...]]:
    sidecar = _sidecar(file.with_suffix(".yaml"))
    language = ""
    if sidecar is not None:
        language = str(sidecar.pop("language", "") or next(iter(sidecar.get("languages") or []), ""))
    definition, warnings = fhir.read_questionnaire(file_bytes(file, FILE_LIMIT), valuesets, slug=slug, language=language)
    if sidecar is None:
        warnings = (*warnings, f"{slug}.yaml: 没有登记信息，不能发布 no register entry: cannot be published")
    else:
        definition = rules.laid(definition, {name: sidecar.pop(name) for name in rules.NAMES if name in sidecar})
    return put_draft(slug, definition, sidecar, by, dry_run=dry_run), warnings


def _sidecar(file: Path) -> dict[str, Any] | None:
    """The register file as plain values; None when there is none. Raises `Invalid` that names the line."""
    return yaml_mapping(file, SIDECAR_LIMIT) if file.is_file() else None


def load_library(folder: Path, settings: Settings) -> int:
    """Put and publish the starter library's checks as `SYSTEM`'s; returns how many. A load that was cut is finished. One whose
    register is not complete (it wants an approver of the place) stays a draft. Raises the failure of the first that does not
    load."""
    count = 0
    for file in sorted((folder / "checks").glob("*.json")):
        slug = slug_of(file.stem)
        if Check.rows().find_one({"slug": slug}, {"_id": 1}) is None:
            _import_one(file, slug, [], records.SYSTEM, False)
        check = by_slug(slug)
        if check.missing(ANY):
            continue
        count += check.stands[ANY].state in ("draft", "in_review", "approved")
        for state, verb in (("draft", submit), ("in_review", approve), ("approved", publish)):
            if check.stands[ANY].state == state:
                check = verb(check.id, records.SYSTEM)
    return count

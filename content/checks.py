"""Self-checks: a questionnaire, its register entry, and the way from draft to phones and back.

A check has one stand for all its languages, since all languages score alike: draft → in review → approved → published →
withdrawn (`content.publishing`). Two rules are tighter than elsewhere and no setting loosens them: a second person always
approves, and nothing is submitted without a complete register entry (what it is, whose it is, who may use it for what).
Withdrawing recalls it: phones are told at their next request.

What readers get holds all that a phone needs to ask, score and show help without a network.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import mongoengine as me

from content import checking, fhir, publishing, records, scoring
from content.checking import Check as Checking
from content.checking import file_bytes, yaml_mapping
from content.failures import Failure, Invalid, NotFound
from content.published import ANY, Item, Snapshot, canonical
from content.publishing import Publishable, Stand
from content.scoring import Band, Critical, Definition
from content.settings import Settings
from content.vocabulary import AUDIENCES, Label, Stage

EXPIRES_DAYS = 14  # a phone asks again before it uses an older copy (issue 4), so that a recall reaches it
FILE_LIMIT = 4 * 1024 * 1024  # bytes; the largest real Questionnaire seen has 0.2 MB
SIDECAR_LIMIT = 256 * 1024

RIGHTS: Mapping[str, Label] = {
    "own": Label("本项目自编", "our own words"),
    "public_domain": Label("无需许可", "needs no permission"),
    "permission_held": Label("已获许可", "permission held"),
    "non_commercial": Label("非商业使用，须署名", "non-commercial with attribution"),
    "closed": Label("不开放使用", "closed"),
}
PURPOSES: Mapping[str, Label] = {
    "self_check": Label("自我了解", "self-check"),
    "screening": Label("筛查", "screening"),
    "warning_signs": Label("预警征象", "warning signs"),
    "knowledge": Label("知识问答", "knowledge"),
    "parent_guidance": Label("家长指导", "parent guidance"),
}


class Register(me.EmbeddedDocument):  # type: ignore[misc]
    """What must be known of an instrument before anyone is asked its questions."""

    name = me.DictField()
    """Language tag -> name."""
    source = me.StringField()
    rights = me.StringField()
    audiences = me.ListField(me.StringField())
    stages = me.ListField(me.StringField())
    """Texts of `vocabulary.Stage`."""
    languages = me.ListField(me.StringField())
    """Those to publish."""
    validated = me.BooleanField()
    """False is shown to readers as "not validated"."""
    purpose = me.StringField()
    approver = me.StringField()
    """The expert or body that answers for its use here."""
    approval_number = me.StringField()
    parental_notice = me.DictField()
    """Language tag -> text."""
    evidence = me.StringField()


REGISTER = tuple(Register._fields)
FIELDS = (*REGISTER, "lessons", "expires_days")


class Check(Publishable):
    """The working copy."""

    slug = me.StringField(required=True)
    organisation = me.StringField(default="")
    """Owning organisation's id."""
    definition = me.StringField(required=True)
    """`scoring.to_json` as canonical JSON, with bands and critical rules: a string, so that no key of it is an operator."""
    register = me.EmbeddedDocumentField(Register, default=Register)
    lessons = me.ListField(me.StringField())
    """Slugs of lessons to offer afterwards."""
    expires_days = me.IntField(required=True, default=EXPIRES_DAYS)

    NAME = "check"
    meta: ClassVar[dict[str, Any]] = {"collection": "checks", "indexes": [{"fields": ["slug"], "unique": True}]}

    @property
    def key(self) -> str:
        """The slug."""
        return str(self.slug)

    def parsed(self) -> Definition:
        """Its definition."""
        return scoring.from_json(json.loads(self.definition))

    def values(self) -> dict[str, Any]:
        """The register entry, lessons and expiry as plain values, every field present."""
        raw = self.register.to_mongo().to_dict() if self.register else {}
        return {**{n: raw.get(n) for n in REGISTER}, "lessons": list(self.lessons), "expires_days": self.expires_days}

    def content_of(self, language: str) -> dict[str, Any]:
        """All of it: what a version is."""
        register = {name: value for name, value in self.values().items() if name in REGISTER}
        return {
            "slug": self.slug, "definition": json.loads(self.definition), "definition_version": self.parsed().version,
            "register": register, "lessons": list(self.lessons), "expires_days": self.expires_days,
        }  # fmt: skip

    def missing(self, language: str) -> list[str]:
        """What keeps it from being used: gaps of the register, languages that are not whole, rules that do not hold."""
        register, definition = self.values(), self.parsed()
        gaps = [
            name for name in ("source", "rights", "audiences", "stages", "languages", "purpose", "evidence") if not register[name]
        ]
        if register["validated"] is None:
            gaps.append("validated")
        if register["rights"] == "closed":
            gaps.append("rights (closed)")
        # what the project wrote for looking at oneself names no expert; anything else is answered for by someone here
        if register["rights"] != "own" or register["validated"] or register["purpose"] in {"screening", "warning_signs"}:
            gaps += [name for name in ("approver", "approval_number") if not register[name]]
        for tag in register["languages"] or []:
            gaps += [f"{name}.{tag}" for name in ("name", "parental_notice") if tag not in (register[name] or {})]
            if tag not in definition.languages:
                gaps.append(f"items.{tag}")
            gaps += [f"bands.{b.code}.{tag}" for b in definition.bands if tag not in b.text or tag not in b.next_steps]
        return gaps + [error.field for error in scoring.faults(definition)]

    @classmethod
    def public(cls, content: dict[str, Any], stand: Stand) -> dict[str, Any]:
        """The version without what is only for staff."""
        register = {k: v for k, v in content["register"].items() if k not in {"approval_number"}}
        return {**content, "register": register, "number": stand.number}


# --- writing ---------------------------------------------------------------------------------------------------------


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the register entry, lessons and expiry in their one stored form; only those given. Raises `Invalid` with
    every error at once."""
    check = Checking()
    check.fields(values, FIELDS)
    if not isinstance(values.get("validated"), bool | None):
        check.fail("validated", "wrong_type", reason="true / false")
    lessons = [str(v) for v in check.rows("lessons", values.get("lessons"), 20)]
    for slug in lessons:
        if not checking.SLUG.fullmatch(slug):
            check.fail("lessons", "bad_format", reason="a-z 0-9 -")
    result = {
        "name": check.texts("name", values.get("name"), 120),
        "source": check.text("source", values.get("source")),
        "rights": check.coded("rights", values["rights"], RIGHTS) if values.get("rights") else None,
        "audiences": check.codes("audiences", values.get("audiences"), AUDIENCES),
        "stages": check.stages(values.get("stages")),
        "languages": list(
            dict.fromkeys(check.language("languages", v) for v in check.rows("languages", values.get("languages")))
        ),
        "validated": values.get("validated"),
        "purpose": check.coded("purpose", values["purpose"], PURPOSES) if values.get("purpose") else None,
        "approver": check.text("approver", values.get("approver"), 120),
        "approval_number": check.text("approval_number", values.get("approval_number"), 120),
        "parental_notice": check.texts("parental_notice", values.get("parental_notice"), 2000),
        "evidence": check.text("evidence", values.get("evidence"), 2000),
        "lessons": lessons,
        "expires_days": check.whole("expires_days", values.get("expires_days"), 1, EXPIRES_DAYS) or EXPIRES_DAYS,
    }
    check.done()
    return {name: value for name, value in result.items() if name in values}


def bands_of(rows: Any) -> tuple[Band, ...]:
    """Bands from [{"code", "min", "max", "text": {tag: text}, "next_steps": {tag: [text]}}]. Raises `Invalid`."""
    check = Checking()
    made: list[Band] = []
    for n, row in enumerate(check.rows("bands", rows, 20)):
        field = f"bands.{n}"
        if not isinstance(row, Mapping):
            check.fail(field, "wrong_type", reason="{min, max, code, text, next_steps}")
            continue
        check.fields(row, {"code", "min", "max", "text", "next_steps"})
        ends = [row.get("min"), row.get("max")]
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not abs(v) < scoring.LARGEST for v in ends):
            check.fail(field, "wrong_type", reason="min, max: number")
            continue
        steps = {}
        given = row.get("next_steps")
        for tag, lines in (given if isinstance(given, Mapping) else {}).items():
            listed = check.rows(f"{field}.next_steps", [lines] if isinstance(lines, str) else lines, 10)
            texts = [check.text(f"{field}.next_steps", line) for line in listed]
            steps[check.language(f"{field}.next_steps", tag)] = tuple(text for text in texts if text)
        code = str(row.get("code", ""))
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", code) or code in {band.code for band in made}:
            check.fail(f"{field}.code", "bad_format", reason="a-z 0-9 _, 各不相同 each its own")
        low, high = (scoring.number(float(v)) for v in ends if v is not None)
        made.append(Band(code, low, high, check.texts(f"{field}.text", row.get("text"), 1000, required=True), steps))
    check.done()
    return tuple(made)


def critical_of(rows: Any) -> tuple[Critical, ...]:
    """Critical rules from [{"item", "codes"}]; YAML's bare true and numbers count as their codes. Raises `Invalid`."""
    check = Checking()
    made: list[Critical] = []
    for n, row in enumerate(check.rows("critical", rows, 100)):
        if not isinstance(row, Mapping) or not row.get("item") or not row.get("codes"):
            check.fail(f"critical.{n}", "wrong_type", reason="{item, codes}")
            continue
        check.fields(row, {"item", "codes"})
        codes = check.rows(f"critical.{n}.codes", row["codes"])
        made.append(Critical(str(row["item"]), tuple(str(c).lower() if isinstance(c, bool) else str(c) for c in codes)))
    check.done()
    return tuple(made)


def by_slug(slug: str) -> Check:
    """The working copy. Raises `NotFound`."""
    raw = Check.rows().find_one({"slug": slug})
    if raw is None:
        raise NotFound(what=slug)
    return Check.of(raw)


def put_draft(
    slug: str, definition: Definition, values: Mapping[str, Any] | None, by: str, organisation: str = "", *, dry_run: bool = False
) -> str:
    """Lay an imported questionnaire into the working copy: "new", "changed" or "unchanged".

    `values` are register fields, lessons and expiry; None (a file without its register) keeps what staff have entered, bands
    and critical rules too. What readers see stays. A second identical call is "unchanged" and writes nothing. Raises
    `Invalid`. With `dry_run` the same answers and failures, and nothing written.
    """
    checking.slug(slug)
    raw = Check.rows().find_one({"slug": slug})
    old = Check.of(raw) if raw else None
    if values is None and old:
        rules = old.parsed()
        definition = scoring.with_rules(definition, rules.bands, rules.critical)
    elif faults := scoring.faults(definition):
        raise Invalid(faults)
    put = checked(values or {})
    text = canonical(scoring.to_json(definition))
    if old is None:
        register = Register(**{name: value for name, value in put.items() if name in REGISTER})
        rest = {name: value for name, value in put.items() if name not in REGISTER}
        check = Check(slug=slug, organisation=organisation, definition=text, register=register, **rest)
        check.stands = {ANY: Stand(authors=[by])}
        if not dry_run:
            records.create(check, by)
        return "new"
    changed = _fields(old, put, text)
    if changed and not dry_run:
        records.change(Check, old.id, by, "edit", lambda c: _fields(c, put, text) | publishing.edited(c, [ANY], by))
    return "changed" if changed else "unchanged"


def _fields(check: Check, put: Mapping[str, Any], definition: str | None = None) -> dict[str, Any]:
    """Database fields that differ. An empty value equals a missing one."""
    now = check.values()
    fields = {
        f"register.{name}" if name in REGISTER else name: value
        for name, value in put.items()
        if value != now[name] and not (value in (None, [], {}) and now[name] in (None, [], {}))
    }
    if definition is not None and definition != check.definition:
        fields["definition"] = definition
    return fields


def edit(
    key: str,
    by: str,
    values: Mapping[str, Any],
    *,
    bands: Sequence[Band] | None = None,
    critical: Sequence[Critical] | None = None,
    revision: int | None = None,
) -> Check:
    """Change register fields, lessons, expiry, bands or critical rules; back to draft, readers keep what is published.
    Raises `Invalid`, `Stale`, `NotFound`."""
    put = checked(values)

    def decide(check: Check) -> dict[str, Any]:
        old = check.parsed()
        made = scoring.with_rules(old, old.bands if bands is None else bands, old.critical if critical is None else critical)
        fields = _fields(check, put, canonical(scoring.to_json(made)))
        return fields | publishing.edited(check, [ANY], by) if fields else {}

    return records.change(Check, key, by, "edit", decide, revision=revision)


def submit(key: str, by: str, revision: int | None = None) -> Check:
    """Draft → in review. Raises `Conflict("incomplete")` that names every gap of the register."""
    return publishing.submit(Check, key, ANY, by, revision)


def approve(key: str, by: str, revision: int | None = None) -> Check:
    """In review → approved, always by a second person. Raises `Forbidden("second_person")`."""
    return publishing.approve(Check, key, ANY, by, revision, second_person=True)


def publish(key: str, by: str, revision: int | None = None) -> Check:
    """Approved → published: exactly what was approved, register complete. Raises `Conflict`."""
    return publishing.publish(Check, key, ANY, by, revision)


def withdraw(key: str, by: str, revision: int | None = None, note: str = "") -> Check:
    """Recall: gone from readers at their next request. Raises `Conflict` when nothing is published."""
    return publishing.withdraw(Check, key, ANY, by, revision, note=note)


# --- import ----------------------------------------------------------------------------------------------------------


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
        bands, critical = bands_of(sidecar.pop("bands", None)), critical_of(sidecar.pop("critical", None))
        definition = scoring.with_rules(definition, bands, critical)
    return put_draft(slug, definition, sidecar, by, dry_run=dry_run), warnings


def _sidecar(file: Path) -> dict[str, Any] | None:
    """The register file as plain values; None when there is none. Raises `Invalid` that names the line."""
    return yaml_mapping(file, SIDECAR_LIMIT) if file.is_file() else None


def load_library(folder: Path, settings: Settings) -> int:
    """Put and publish the starter library's checks as `SYSTEM`'s; returns how many. A load that was cut is finished.
    Raises the failure of the first that does not load."""
    count = 0
    for file in sorted((folder / "checks").glob("*.json")):
        slug = slug_of(file.stem)
        if Check.rows().find_one({"slug": slug}, {"_id": 1}) is None:
            _import_one(file, slug, [], records.SYSTEM, False)
        check = by_slug(slug)
        count += check.stands[ANY].state in ("draft", "in_review", "approved")
        for state, verb in (("draft", submit), ("in_review", approve), ("approved", publish)):
            if check.stands[ANY].state == state:
                check = verb(check.id, records.SYSTEM)
    return count


# --- reading ---------------------------------------------------------------------------------------------------------


def published_check(snapshot: Snapshot, slug: str) -> tuple[Item, Definition]:
    """The published check and its definition, parsed once a snapshot. Raises `NotFound`, of a recalled one too."""
    item = snapshot.get("check", slug).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=slug)
    found = snapshot.memo("check").get(slug)
    if found is None:
        found = snapshot.memo("check")[slug] = scoring.from_json(item.content["definition"])
    return item, found


def catalogue(snapshot: Snapshot, audience: str | None = None, stage: Stage | None = None) -> list[Item]:
    """Published checks that fit, by slug."""
    found = []
    for _, texts in sorted(snapshot.entries("check").items()):
        item = texts[ANY]
        register = (item.content or {})["register"]
        if audience and audience not in register["audiences"]:
            continue
        if stage and not any(Stage.parse(s).covers(stage) for s in register["stages"]):
            continue
        found.append(item)
    return found


def spoken(texts: Mapping[str, Any], language: str) -> Any:
    """The text in this language; "" where it has none (a group without a heading)."""
    return texts.get(language, "")


def brief(item: Item, language: str) -> dict[str, Any]:
    """A check as it stands in a list, in one of its languages."""
    content = dict(item.content or {})
    register = content["register"]
    return {
        "slug": item.key,
        "name": spoken(register["name"], language),
        "language": language,
        "languages": register["languages"],
        "audiences": register["audiences"],
        "stages": register["stages"],
        "purpose": register["purpose"],
        "validated": register["validated"],
        "version": content["definition_version"],
        "number": content["number"],
        "published_at": content["published_at"],
    }


def detail(item: Item, definition: Definition, language: str) -> dict[str, Any]:
    """A check whole, in one of its languages: enough to ask, score and show help on a phone without a network."""
    content = dict(item.content or {})
    register = content["register"]

    def line(one: scoring.Item) -> dict[str, Any]:
        when = one.enable_when
        return {
            "link_id": one.link_id, "kind": one.kind, "text": spoken(one.text, language), "required": one.required,
            "counts": one.counts, "minimum": one.minimum, "maximum": one.maximum, "unit": one.unit,
            "options": [{"code": o.code, "text": spoken(o.text, language), "score": o.score} for o in one.options],
            "enable_when": when and {
                "any": when.any,
                "clauses": [{"question": c.question, "operator": c.operator, "value": c.value} for c in when.clauses],
            },
            "items": [line(below) for below in one.items],
        }  # fmt: skip

    return {
        **brief(item, language),
        "source": register["source"],
        "rights": register["rights"],
        "approver": register["approver"],
        "evidence": register["evidence"],
        "parental_notice": spoken(register["parental_notice"], language),
        "items": [line(one) for one in definition.items],
        "total": definition.total,
        "bands": [band(b, language) for b in definition.bands],
        "critical": [{"item": rule.item, "codes": list(rule.codes)} for rule in definition.critical],
        "lessons": content["lessons"],
        "expires_days": content["expires_days"],
    }


def band(one: Band, language: str) -> dict[str, Any]:
    """A band in one language."""
    return {
        "code": one.code,
        "minimum": one.minimum,
        "maximum": one.maximum,
        "text": spoken(one.text, language),
        "next_steps": list(one.next_steps.get(language, ())),
    }


def stood(check: Check) -> dict[str, Any]:
    """Where it stands, as plain values for staff."""
    stand = check.stands[ANY]
    return {
        "state": stand.state,
        "approved_by": stand.approved_by,
        "version": stand.version,
        "number": stand.number,
        "published_at": stand.published_at.isoformat() if isinstance(stand.published_at, datetime) else None,
        "missing": check.missing(ANY),
    }

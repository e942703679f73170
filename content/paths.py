"""Paths: lessons in an order with a pace, each with one small thing to try and one question about it the next day.

A path has one set of facts for all languages (who it is for, its pace, its steps, the self-check that it may begin with) and a
title and summary a language. It goes the way of lessons, a language at a time (`content.publishing`).

The calendar is the phone's: the date of a step = the phone's own date (first day, due date or birthday) + `at` × unit. What it
counts from never comes here, nor how far anybody is, nor what was answered the next day or in the self-check: readers get the
whole path in one answer, because asking for a part of it would say how old a child is.

A language may be submitted when the working copy of each step's lesson has something to try and a check-in in it, for every
audience of the path. The lessons may be published later than the path: a step whose lesson readers cannot see, not yet or no
longer, is shown as absent and breaks nothing.
"""

import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import mongoengine as me

from content import checking, checks, divisions, languages, lessons, publishing, records, staff, store
from content.catalogue import choose, matching, order, shown
from content.checking import Check as Checking
from content.checking import yaml_mapping
from content.failures import Failure, FieldError, Invalid, NotFound, Text
from content.lessons import Lesson
from content.published import Item, Snapshot
from content.publishing import Publishable, Stand
from content.settings import Settings
from content.vocabulary import AUDIENCES, TOPICS, VOICES

FROM = ("start", "due_date", "birthday")
SPAN = {"day": (-300, 6600), "week": (-43, 943)}  # from before a conception to a child's eighteenth birthday, in the pace's unit
FEWEST, MOST = 2, 1100  # steps; 1,000 days and some
FACTS = ("audiences", "stages", "topics", "divisions", "pace", "steps", "begins_with")
NEEDED = ("try_this", "check_in")  # of each step's lesson
FILE_LIMIT = 256 * 1024  # bytes; 1,100 steps take a fifth


class PathText(me.EmbeddedDocument):  # type: ignore[misc]
    """A path in one language."""

    title = me.StringField(default="")
    summary = me.StringField(default="")


class Path(Publishable):
    """The working copy."""

    slug = me.StringField(required=True)
    organisation = me.StringField(default="")
    """Owning organisation's id."""
    audiences = me.ListField(me.StringField())
    stages = me.ListField(me.StringField())
    """Texts of `vocabulary.Stage`."""
    topics = me.ListField(me.StringField())
    divisions = me.ListField(me.StringField())
    """GB/T 2260 codes; empty = everywhere."""
    pace = me.DictField(required=True)
    """{"unit": day or week, "from": one of FROM}"""
    steps = me.ListField(required=True)
    """[{"lesson": slug, "at": whole units after the pace's `from`}], ascending; each lesson once, so that a phone's progress,
    kept by lesson, outlives an editor's change."""
    begins_with = me.DictField()
    """{"check": slug, "bands": [code]}, or absent: whose total comes out in one of these bands is offered this path."""
    texts = me.MapField(me.EmbeddedDocumentField(PathText))

    NAME = "path"
    meta: ClassVar[dict[str, Any]] = {
        "collection": "paths",
        "indexes": [{"fields": ["slug"], "unique": True}, {"fields": ["organisation", "slug"]}, {"fields": ["steps.lesson"]}],
    }

    @property
    def key(self) -> str:
        """The slug."""
        return str(self.slug)

    def facts(self) -> dict[str, Any]:
        """All facts as plain values, every one present."""
        raw = self.to_mongo().to_dict()
        return {**{name: raw.get(name) or [] for name in FACTS}, "begins_with": raw.get("begins_with") or None}

    def content_of(self, language: str) -> dict[str, Any]:
        """Facts and this language's text."""
        text = self.texts.get(language)
        if text is None:
            raise NotFound(what=f"{self.slug} {language}")
        return {**self.facts(), "slug": self.slug, "language": language, **text.to_mongo().to_dict()}

    def restore(self, language: str, content: dict[str, Any]) -> dict[str, Any]:
        """The version's text back into the working copy."""
        text = {name: content[name] for name in PathText._fields if content.get(name) is not None}
        self.texts[language] = PathText(**text)
        return {f"texts.{language}": text}

    def missing(self, language: str) -> list[str]:
        """What readers would miss: "steps.3 exam-week zh-Hans: check_in" is the fourth step, whose lesson has no check-in in
        that edition; "steps.3 exam-week zh-Hans" is a lesson without any text in the language."""
        text = self.texts.get(language)
        if text is None:
            raise NotFound(what=f"{self.slug} {language}")
        gaps = [f"{language}.{name}" for name in ("title", "summary") if not getattr(text, name)]
        gaps += [name for name in ("audiences", "stages", "topics") if not getattr(self, name)]
        gaps += _gaps(self.steps, language, self.audiences)
        return gaps + [f"{e.field} {e.params['value']}" for e in _unknown_bands(self.facts()["begins_with"])]

    @classmethod
    def public(cls, content: dict[str, Any], stand: Stand) -> dict[str, Any]:
        """The version's content."""
        return {**content, "number": stand.number}


def _gaps(steps: Sequence[Mapping[str, Any]], language: str, audiences: Collection[str]) -> list[str]:
    """What the working copies of the steps' lessons lack in this language for these audiences."""
    # for whom -> the editions that speak to them, the voice of their own first
    editions = {
        audience: [*(f"{language}-x-{voice}" for voice, ears in VOICES.items() if audience in ears), language]
        for audience in audiences
    }
    fields = {"slug": 1, "audiences": 1}  # and not the bodies: a thousand lessons may hold 200 MB of them
    fields |= {f"texts.{one}.{name}": 1 for found in editions.values() for one in found for name in (*NEEDED, "minutes")}
    found = Lesson.rows().find({"slug": {"$in": [step["lesson"] for step in steps]}}, fields)
    known: dict[str, dict[str, Any]] = {raw["slug"]: raw for raw in found}
    gaps: dict[str, None] = {}
    for number, step in enumerate(steps):
        name, lesson = f"steps.{number} {step['lesson']}", known.get(step["lesson"], {})
        texts = lesson.get("texts", {})
        for audience, wanted in editions.items():
            edition = next((one for one in wanted if texts.get(one)), None)
            if audience not in (lesson.get("audiences") or []):
                gaps[f"{name}: audiences {audience}"] = None
            elif edition is None:
                gaps[f"{name} {language}"] = None
            else:
                gaps |= {f"{name} {edition}: {part}": None for part in NEEDED if not texts[edition].get(part)}
    return list(gaps)


# --- writing ---------------------------------------------------------------------------------------------------------


def checked(facts: Mapping[str, Any], *, known: bool = True) -> dict[str, Any]:
    """Facts in their one stored form; only those given. Raises `Invalid` with every error at once, unknown lessons, checks and
    bands by name unless `known` is False. What pace and steps ask of each other is `faults`."""
    check = Checking()
    check.fields(facts, FACTS)
    result = {
        "audiences": check.codes("audiences", facts.get("audiences"), AUDIENCES),
        "stages": check.stages(facts.get("stages")),
        "topics": check.codes("topics", facts.get("topics"), TOPICS),
        "divisions": list(
            dict.fromkeys(check.division("divisions", v) for v in check.rows("divisions", facts.get("divisions"), 200))
        ),
        "pace": _pace(check, facts["pace"]) if "pace" in facts else {},
        "steps": _steps(check, facts["steps"], known) if "steps" in facts else [],
        "begins_with": _begins_with(check, facts["begins_with"], known) if facts.get("begins_with") is not None else None,
    }
    check.done()
    return {name: value for name, value in result.items() if name in facts}


def _pace(check: Checking, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        check.fail("pace", "wrong_type", reason="{unit, from}")
        return {}
    check.fields({f"pace.{name}": 1 for name in value}, {"pace.unit", "pace.from"})
    return {
        "unit": check.coded("pace.unit", value.get("unit"), SPAN),
        "from": check.coded("pace.from", value.get("from"), FROM),
    }


def _steps(check: Checking, value: Any, known: bool) -> list[dict[str, Any]]:
    before = len(check.errors)
    rows = check.rows("steps", value, MOST)
    if len(check.errors) == before and len(rows) < FEWEST:
        check.fail("steps", "out_of_range", reason=f"{FEWEST}-{MOST}")
    steps: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        field = f"steps.{number}"
        if not isinstance(row, Mapping) or isinstance(row.get("at"), bool) or not isinstance(row.get("at"), int):
            check.fail(field, "wrong_type", reason=Text("{lesson, at: 整数}", "{lesson, at: whole number}"))
            continue
        check.fields({f"{field}.{name}": 1 for name in row}, {f"{field}.lesson", f"{field}.at"})
        steps.append({"lesson": str(row.get("lesson") or ""), "at": row["at"]})
    named = sorted({step["lesson"] for step in steps})
    there = {raw["slug"] for raw in Lesson.rows().find({"slug": {"$in": named}}, {"slug": 1})} if known else {*named}
    for number, step in enumerate(steps):
        if step["lesson"] not in there:
            check.fail(f"steps.{number}.lesson", "unknown_reference", value=step["lesson"][:80])
    return steps


def _begins_with(check: Checking, value: Any, known: bool) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        check.fail("begins_with", "wrong_type", reason="{check, bands}")
        return {}
    check.fields({f"begins_with.{name}": 1 for name in value}, {"begins_with.check", "begins_with.bands"})
    bands = list(dict.fromkeys(str(one) for one in check.rows("begins_with.bands", value.get("bands"), 20)))
    if not bands:
        check.fail("begins_with.bands", "required")
    made = {"check": str(value.get("check") or ""), "bands": bands}
    check.errors += _unknown_bands(made) if known else []
    return made


def _unknown_bands(begins_with: Mapping[str, Any] | None) -> list[FieldError]:
    """A check that does not exist, or bands that its working copy does not have."""
    if not begins_with:
        return []
    try:
        whole = checks.by_slug(begins_with["check"]).parsed().total
        known = {band.code for band in whole.bands} if whole else set()
    except NotFound:
        return [FieldError("begins_with.check", "unknown_reference", {"value": begins_with["check"][:80]})]
    unknown = [code for code in begins_with["bands"] if code not in known]
    return [FieldError("begins_with.bands", "unknown_reference", {"value": code[:80]}) for code in unknown]


def faults(pace: Mapping[str, str], steps: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """What is wrong between a pace and its steps: `at` does not ascend, lies before the beginning (only a due date has days
    before it) or beyond SPAN, or a lesson stands twice."""
    found: list[FieldError] = []
    low, high = SPAN[pace["unit"]]
    low = low if pace["from"] == "due_date" else 0
    seen: dict[str, int] = {}
    for number, step in enumerate(steps):
        if not low <= step["at"] <= high:
            found.append(FieldError(f"steps.{number}.at", "out_of_range", {"reason": f"{low} … {high} ({pace['unit']})"}))
        if number and step["at"] <= steps[number - 1]["at"]:
            reason = Text(
                f"{step['at']} ≤ {steps[number - 1]['at']}；要一个比一个大",
                f"{step['at']} ≤ {steps[number - 1]['at']}; each has to be more than the one before",
            )
            found.append(FieldError(f"steps.{number}.at", "out_of_range", {"reason": reason}))
        if step["lesson"] in seen:
            found.append(FieldError(f"steps.{number}.lesson", "exists", {"what": step["lesson"]}))
        seen.setdefault(step["lesson"], number)
    return found


def _text(text: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A text as it is stored; only what is given."""
    check = Checking()
    check.fields({f"{field}.{name}": 1 for name in text}, {f"{field}.{name}" for name in PathText._fields})
    result = {n: check.text(f"{field}.{n}", text.get(n), lessons.LIMITS[n]) or "" for n in ("title", "summary")}
    check.done()
    return {name: value for name, value in result.items() if name in text}


def _made(slug: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]], by: str, organisation: str) -> Path:
    checking.slug(slug)
    absent = [FieldError(name, "required") for name in ("pace", "steps") if name not in facts]
    if absent or not texts:
        raise Invalid(absent or [FieldError("texts", "required")])
    staff.must_exist(organisation)
    put = {languages.tag(code, "texts"): _text(text, f"texts.{code}") for code, text in texts.items()}
    values = checked(facts)
    if wrong := faults(values["pace"], values["steps"]):
        raise Invalid(wrong)
    return Path(
        slug=slug,
        organisation=organisation,
        **{name: value for name, value in values.items() if value is not None},
        texts={code: PathText(**text) for code, text in put.items()},
        stands={code: Stand(authors=[by]) for code in put},
    )


def create(slug: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]], by: str, organisation: str = "") -> Path:
    """A new draft in each language given. Raises `Invalid`, and `Conflict("exists")` when the slug is taken."""
    return records.create(_made(slug, facts, texts, by, organisation), by)


def edit(
    key: str, by: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]], revision: int | None = None
) -> Path:
    """Change facts and texts of the working copy; `begins_with` None takes it away.

    New facts concern every language, so all go back to draft; a new text only its own language. What readers see stays. The
    same values again write nothing. Raises `Invalid`, `NotFound`, `Stale`.
    """
    values = checked(facts)
    put = {languages.tag(code, "texts"): _text(text, f"texts.{code}") for code, text in texts.items()}
    return records.change(Path, key, by, "edit", lambda path: _fields(path, values, put, by), revision=revision)


def _fields(path: Path, values: Mapping[str, Any], put: Mapping[str, Mapping[str, Any]], by: str) -> dict[str, Any]:
    """Database fields that differ, with the stands of the languages they touch; empty when nothing does. Raises `Invalid`."""
    old = path.facts()
    fields: dict[str, Any] = {name: value for name, value in values.items() if value != old[name]}
    if {"pace", "steps"} & fields.keys() and (wrong := faults({**old, **values}["pace"], {**old, **values}["steps"])):
        raise Invalid(wrong)
    touched = set(path.texts) if fields else set()
    for language, text in put.items():
        before = path.texts[language].to_mongo().to_dict() if language in path.texts else None
        if before is None or {**before, **text} != before:
            fields[f"texts.{language}"] = {**(before or {}), **text}
            touched.add(language)
    return fields | publishing.edited(path, sorted(touched), by) if fields else {}


def put_draft(
    slug: str,
    facts: Mapping[str, Any],
    texts: Mapping[str, Mapping[str, Any]],
    by: str,
    organisation: str = "",
    *,
    dry_run: bool = False,
) -> str:
    """Lay an imported path into the working copy: "new", "changed" or "unchanged". A second identical call is "unchanged" and
    writes nothing. Raises `Invalid`. With `dry_run` the same answers and failures, and nothing written."""
    raw = Path.rows().find_one({"slug": slug})
    if raw is None:
        made = _made(slug, facts, texts, by, organisation)
        if not dry_run:
            records.create(made, by)
        return "new"
    put = {languages.tag(code, "texts"): _text(text, f"texts.{code}") for code, text in texts.items()}
    changed = _fields(Path.of(raw), checked(facts), put, by)
    if changed and not dry_run:
        edit(raw["_id"], by, facts, texts)
    return "changed" if changed else "unchanged"


def by_slug(slug: str) -> Path:
    """The working copy. Raises `NotFound`."""
    raw = Path.rows().find_one({"slug": slug})
    if raw is None:
        raise NotFound(what=slug)
    return Path.of(raw)


# --- import ----------------------------------------------------------------------------------------------------------


def import_files(path: pathlib.Path, by: str, dry_run: bool = False) -> Iterator[dict[str, Any]]:
    """Read SLUG.yaml (a file, or those of a folder) into drafts: the facts and `texts: {language: {title, summary}}`, as
    content/library/paths has them. The lessons and the check that a path names must be there already.

    Yields {"source", "outcome": new|changed|unchanged|refused, "key", "messages": [{tag: text}]}. One file refused changes
    nothing and stops no other. A second run gives "unchanged".
    """
    for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
        row: dict[str, Any] = {"source": file.name, "key": file.stem}
        try:
            yield row | {"outcome": _import_one(file, by, dry_run)}
        except Failure as failure:
            found = [
                {tag: text if e.field in text else f"{e.field}: {text}" for tag, text in e.messages.items()}
                for e in getattr(failure, "errors", [])
            ]
            yield row | {"outcome": "refused", "messages": found or [failure.messages]}


def _import_one(file: pathlib.Path, by: str, dry_run: bool = False) -> str:
    """Lay one file into the working copy: "new", "changed" or "unchanged"."""
    values = yaml_mapping(file, FILE_LIMIT)
    check = Checking()
    check.fields(values, {*FACTS, "slug", "organisation", "texts"})
    if values.pop("slug", file.stem) != file.stem:
        check.fail("slug", "bad_format", reason=file.name)
    organisation, texts = values.pop("organisation", None) or "", values.pop("texts", None)
    if not isinstance(texts, Mapping) or not all(isinstance(text, Mapping) for text in texts.values()):
        check.fail("texts", "wrong_type", reason=Text("{语言: {title, summary}}", "{language: {title, summary}}"))
    check.done()
    return put_draft(file.stem, values, {str(k): v for k, v in texts.items()}, by, organisation, dry_run=dry_run)


def load_library(folder: pathlib.Path, settings: Settings) -> int:
    """Put and publish the starter library's paths as `SYSTEM`'s; returns how many. A load that was cut is finished, what is
    there already is left as it is. Raises the failure of the first that does not load: `Conflict("incomplete")` names the
    lesson that has no check-in."""
    count = 0
    for file in sorted((folder / "paths").glob("*.yaml")):
        if Path.rows().find_one({"slug": file.stem}, {"_id": 1}) is None:
            _import_one(file, records.SYSTEM)
        path = by_slug(file.stem)
        waiting = [language for language, stand in path.stands.items() if stand.state in ("draft", "in_review", "approved")]
        count += bool(waiting)
        for language in waiting:
            for state, verb in (
                ("draft", publishing.submit),
                ("in_review", publishing.approve),
                ("approved", publishing.publish),
            ):
                if path.stands[language].state == state:
                    path = verb(Path, path.id, language, records.SYSTEM)
    return count


# --- reading ---------------------------------------------------------------------------------------------------------


BRIEF = ("slug", "title", "summary", "audiences", "stages", "topics", "divisions", "pace", "number", "version", "published_at")


def _shown(snapshot: Snapshot, slug: str) -> dict[str, Item]:
    """language -> item of what readers may see now."""
    now = store.now()
    return {language: item for language, item in snapshot.get("path", slug).items() if shown(item, now)}


def begins_with(snapshot: Snapshot, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"check", "bands"} while that check is published and has these bands: a recalled check is nowhere begun with."""
    begin = content.get("begins_with")
    found = next(iter(snapshot.get("check", begin["check"]).values()), None) if begin else None
    if not begin or found is None or found.content is None:
        return None
    whole = checks.published_check(snapshot, begin["check"])[1].total
    known = {band.code for band in whole.bands} if whole else set()
    bands = [code for code in begin["bands"] if code in known]
    return {"check": begin["check"], "bands": bands} if bands else None


def catalogue(
    snapshot: Snapshot, wanted: tuple[str, ...], *, check: str | None = None, last: str = "zh-Hans", **filters: Any
) -> tuple[list[Item], Callable[[Item], bool]]:
    """Published paths in order, each once in the reader's best language, and whether one fits all filters (audience, stage,
    topic, division: `catalogue.matching`). `check` keeps the paths that begin with this self-check.
    """
    meant = matching(**filters)

    def fits(item: Item) -> bool:
        return meant(item) and (not check or (begins_with(snapshot, item.content or {}) or {}).get("check") == check)

    found = [_shown(snapshot, slug) for slug in snapshot.entries("path")]
    best = [texts[languages.pick(texts.keys(), wanted, last)] for texts in found if texts]
    return sorted(best, key=order), fits


def brief(snapshot: Snapshot, item: Item, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    """A path as it stands in a list."""
    content = item.content or {}
    return {
        **{name: content.get(name) for name in BRIEF},
        "length": len(content["steps"]),
        "begins_with": begins_with(snapshot, content),
        **languages.written(item.language),
        "fallback": languages.fallback(item.language, wanted),
        "languages": sorted(_shown(snapshot, item.key)),
    }


def detail(snapshot: Snapshot, slug: str, audience: str | None, wanted: tuple[str, ...], last: str = "zh-Hans") -> dict[str, Any]:
    """A path whole, in the reader's best language, each step with its lesson in the edition that is best for the reader. For
    whom, when the reader does not say, is clear when the path is for one audience. Raises `NotFound`."""
    texts = _shown(snapshot, slug)
    if not texts:
        raise NotFound(what=slug)
    item = texts[languages.pick(texts.keys(), wanted, last)]
    content = dict(item.content or {})
    if audience is None and len(content["audiences"]) == 1:
        audience = content["audiences"][0]
    now = store.now()

    def step(row: Mapping[str, Any]) -> dict[str, Any]:
        found = choose(snapshot.get("lesson", row["lesson"]), audience, wanted, last, now)
        made = {"slug": row["lesson"], "at": row["at"], "available": found is not None}
        if found is None:
            return made | {"lesson": None, "try_this": None, "check_in": None}
        lesson, said = lessons.brief(snapshot, found, wanted), found.content or {}
        for name in NEEDED:
            lesson.pop(name, None)
        return made | {"lesson": lesson, "try_this": said.get("try_this") or None, "check_in": said.get("check_in")}

    return {**brief(snapshot, item, wanted), "steps": [step(row) for row in content["steps"]]}


def offered(
    snapshot: Snapshot, check: str, band: str, wanted: tuple[str, ...], division: str | None = None, last: str = "zh-Hans"
) -> list[dict[str, str]]:
    """[{"slug", "title"}] of the published paths that begin with this band of this check, by slug: what is said beside a
    score. Pure, like the score. A division that is not known leaves those for everywhere."""
    line = set(divisions.lineage(division)) if division and divisions.known(division) else set()
    found = []
    for slug in sorted(snapshot.entries("path")):
        texts = _shown(snapshot, slug)
        if not texts:
            continue
        content = texts[languages.pick(texts.keys(), wanted, last)].content or {}
        begin = begins_with(snapshot, content)
        near = not division or not content["divisions"] or not line.isdisjoint(content["divisions"])
        if begin and begin["check"] == check and band in begin["bands"] and near:
            found.append({"slug": slug, "title": content["title"]})
    return found

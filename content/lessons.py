"""Lessons: one subject, told in one or more languages, for an audience and a stage, ending in one small thing to try.

A lesson has one set of facts (who it is for, topic, season, sources) and a text per edition: a language, or a language in one
voice (`content.languages`). So one subject is told to students, parents and staff under one slug, with the same media, and each
edition is published by itself. Readers get Markdown as sanitised HTML, as plain text and as the source. `catalogue` and `detail`
read the published snapshot only.
"""

import bisect
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import mongoengine as me

from content import checking, divisions, languages, markdown, media, publishing, records, staff, store
from content.catalogue import choose, expiries, matching, order, shown
from content.failures import Conflict, FieldError, Invalid, NotFound, invalid
from content.published import Item, Snapshot
from content.publishing import Publishable, Stand
from content.vocabulary import AUDIENCES, KINDS, SEASONS, TOPICS, VOICES, Stage

LIMITS = {"title": 120, "summary": 300, "body": 200_000, "try_this": 300}  # characters
CHECK_IN = ("question", "did", "partly", "not_yet")
CHECK_IN_LIMIT = 200  # characters of each
META = ("audiences", "stages", "topics", "kind", "seasons", "divisions", "media", "sources", "help", "reviewed_by", "review_due")


class Source(me.EmbeddedDocument):  # type: ignore[misc]
    """Where a lesson's facts come from."""

    title = me.StringField(required=True)
    url = me.StringField()


class CheckIn(me.EmbeddedDocument):  # type: ignore[misc]
    """What the phone asks the next day about the thing to try, and what helps after each answer. The answer stays there.

    UNICEF's own trial of its parenting app, with 1,900 caregivers, found no effect of articles with reminders: a small thing to
    do, and being asked about it, is the unit that works.
    """

    question = me.StringField(required=True)
    did = me.StringField(required=True)
    partly = me.StringField(required=True)
    not_yet = me.StringField(required=True)


class LessonText(me.EmbeddedDocument):  # type: ignore[misc]
    """A lesson in one edition."""

    title = me.StringField(default="")
    summary = me.StringField(default="")
    body = me.StringField(default="")
    """Markdown (CommonMark); `media:<sha256>` addresses a media file."""
    try_this = me.StringField(default="")
    """One small thing to do today."""
    check_in = me.EmbeddedDocumentField(CheckIn)
    minutes = me.IntField(required=True, default=1)
    """Reading time."""
    made_from = me.StringField()
    """Edition that this one was made from, a translation or another voice; absent for an original."""
    made_from_version = me.StringField()
    """The source's version at that time; staleness is computed from it."""
    licence = me.StringField()
    """Terms of a text that came from elsewhere; absent for our own."""
    needs_translator = me.BooleanField()
    """A draft that cannot be submitted until a translator has gone over it and taken this off. No part of a version."""


class Lesson(Publishable):
    """The working copy."""

    slug = me.StringField(required=True)
    organisation = me.StringField(default="")
    """Owning organisation's id."""
    audiences = me.ListField(me.StringField())
    stages = me.ListField(me.StringField())
    """Texts of `vocabulary.Stage`."""
    topics = me.ListField(me.StringField())
    kind = me.StringField(required=True)
    seasons = me.ListField(me.StringField())
    divisions = me.ListField(me.StringField())
    """GB/T 2260 codes; empty = everywhere."""
    media = me.ListField(me.StringField())
    sources = me.EmbeddedDocumentListField(Source)
    help = me.BooleanField(default=False)
    """Whether the help card stands beside it."""
    reviewed_by = me.StringField()
    """Name of the expert who signed; absent = nobody yet."""
    review_due = me.StringField()
    """Local date."""
    texts = me.MapField(me.EmbeddedDocumentField(LessonText))
    uses = me.ListField(me.StringField())
    """Media that the facts or any text names, and as `lesson:slug` the lessons that a text links to; derived at each write."""
    behind = me.DictField()
    """Editions that are behind the one they were made from (`publishing`); derived."""
    behind_since = me.DateTimeField()
    """When the first of these fell behind."""

    NAME = "lesson"
    meta: ClassVar[dict[str, Any]] = {
        "collection": "lessons",
        "indexes": [
            {"fields": ["slug"], "unique": True},
            {"fields": ["organisation", "slug"]},
            {"fields": ["uses"]},
            {"fields": ["behind_since"]},
        ],
    }

    @property
    def key(self) -> str:
        """The slug."""
        return str(self.slug)

    def content_of(self, language: str) -> dict[str, Any]:
        """Facts and this edition's text; a voice narrows the audiences to its own."""
        raw = self.to_mongo().to_dict()
        text = raw.get("texts", {}).get(language)
        if text is None:
            raise NotFound(what=f"{self.slug} {language}")
        text.pop("needs_translator", None)
        facts = {name: raw.get(name) for name in META}
        facts["media"] = sorted({*(raw.get("media") or []), *markdown.MEDIA.findall(text.get("body", ""))})
        if facts["media"]:
            facts["files"] = media.types(facts["media"])
        tag, voice = languages.parts(language)
        if voice:
            facts["audiences"] = [one for one in facts["audiences"] or [] if one in VOICES[voice]]
        return {**facts, "slug": self.slug, "language": tag, "voice": voice, "check_in": None, **dict(text)}

    def restore(self, language: str, content: dict[str, Any]) -> dict[str, Any]:
        """The version's text back into the working copy."""
        text = {name: content[name] for name in LessonText._fields if content.get(name) is not None}
        self.texts[language] = _embedded(text)
        texts = self.to_mongo().to_dict()["texts"]
        return {f"texts.{language}": text, "uses": _uses(self.media, texts)}

    def missing(self, language: str) -> list[str]:
        """What readers would miss: a translation needs every part that its lesson has in other languages of that voice."""
        text = self.texts.get(language)
        if text is None:
            raise NotFound(what=f"{self.slug} {language}")
        voice = languages.parts(language)[1]
        peers = [one for key, one in self.texts.items() if languages.parts(key)[1] == voice]
        needed = ["title", "body", *(n for n in ("summary", "try_this", "check_in") if any(getattr(t, n) for t in peers))]
        gaps = [f"{language}.{name}" for name in needed if not getattr(text, name)]
        gaps += [f"{language}.needs_translator"] if text.needs_translator else []
        gaps += [name for name in ("stages", "topics", "sources") if not getattr(self, name)]
        content = self.content_of(language)
        if not content["audiences"]:
            gaps.append(f"audiences ({' / '.join(VOICES[voice])})" if voice else "audiences")
        foreign = markdown.foreign_pictures(text.body)
        gaps += [f"{language}.body: 图片请先上传 upload this picture first: {src[:80]}" for src in foreign]
        return gaps + self.gaps(content)

    @classmethod
    def gaps(cls, content: dict[str, Any]) -> list[str]:
        """Its files, and what they lack in its language."""
        return media.gaps(content["media"], content["language"])

    @classmethod
    def public(cls, content: dict[str, Any], stand: Stand) -> dict[str, Any]:
        """The version's content, rendered once."""
        rendered = markdown.render(content["body"], content.get("files") or {}, content["language"])
        return {**{k: v for k, v in content.items() if k != "files"}, **rendered, "number": stand.number}


# --- writing ---------------------------------------------------------------------------------------------------------


def checked(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with every code known and every stage in its one spelling. Raises `Invalid` that lists all that is wrong."""
    errors: list[FieldError] = []
    result = dict(facts)
    for name, table in (("audiences", AUDIENCES), ("topics", TOPICS), ("seasons", SEASONS)):
        if not set(facts.get(name) or []) <= set(table):
            errors.append(FieldError(name, "not_one_of", {"choices": ", ".join(table)}))
    if "kind" in facts and facts["kind"] not in KINDS:
        errors.append(FieldError("kind", "not_one_of", {"choices": ", ".join(KINDS)}))
    spellings: dict[str, Callable[[str], str]] = {
        "stages": lambda v: str(Stage.parse(v)),
        "divisions": lambda v: divisions.check(v, "divisions"),
    }
    for name, check in spellings.items():
        values = []
        for value in facts.get(name) or []:
            try:
                values.append(check(value))
            except Invalid as failure:
                errors += failure.errors
        if name in facts:
            result[name] = values
    if errors:
        raise Invalid(errors)
    return result


def text_values(text: Mapping[str, Any], field: str = "text") -> dict[str, Any]:
    """A text, or the part of one that is given, as it is stored: NFC; with a body its minutes, when absent. Raises `Invalid` for
    lengths and half a check-in."""
    values = {k: languages.clean(v) if isinstance(v, str) else v for k, v in text.items() if v is not None}
    errors = [
        FieldError(f"{field}.{name}", "out_of_range", {"reason": f"≤ {limit}"})
        for name, limit in LIMITS.items()
        if len(values.get(name, "")) > limit
    ]
    if "check_in" in values:
        said = {k: languages.clean(v) for k, v in dict(text["check_in"]).items() if k in CHECK_IN and v}
        values["check_in"] = said
        for name in CHECK_IN:
            if not said.get(name):
                errors.append(FieldError(f"{field}.check_in.{name}", "required"))
            elif len(said[name]) > CHECK_IN_LIMIT:
                errors.append(FieldError(f"{field}.check_in.{name}", "out_of_range", {"reason": f"≤ {CHECK_IN_LIMIT}"}))
    if errors:
        raise Invalid(errors)
    if "body" in values:
        values.setdefault("minutes", markdown.reading_minutes(values["body"]))
    return values


def create(
    slug: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]], by: str, organisation: str = ""
) -> Lesson:
    """A new draft. Raises `Invalid`, and `Conflict("exists")` when the slug is taken."""
    return records.create(_new(slug, facts, texts, by, organisation), by)


def install(slug: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]]) -> Lesson:
    """A new lesson of the starter library, public at once (`publishing.install`). Raises as `create`."""
    return publishing.install(_new(slug, facts, texts, records.SYSTEM, ""))


def _new(slug: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any]], by: str, organisation: str) -> Lesson:
    checking.slug(slug)
    if not texts:
        raise invalid("texts", "required")
    staff.must_exist(organisation)
    put = {languages.edition(code, "texts"): text_values(text, f"texts.{code}") for code, text in texts.items()}
    lesson = Lesson(
        slug=slug,
        organisation=organisation,
        **checked(facts),
        texts={k: _embedded(v) for k, v in put.items()},
        uses=_uses(facts.get("media"), put),
        stands={k: Stand(authors=[by]) for k in put},
    )
    for _ in put:  # a source may itself be made from another: its version's name has to settle first
        for language, text in put.items():
            for name, value in _source_of(lesson, language, text).items():
                setattr(lesson.texts[language], name, value)
    return lesson


def _embedded(text: Mapping[str, Any]) -> LessonText:
    return LessonText(**{**text, "check_in": CheckIn(**text["check_in"]) if text.get("check_in") else None})


def _source_of(lesson: Lesson, language: str, text: Mapping[str, Any], rewritten: Collection[str] = ()) -> dict[str, Any]:
    """{"made_from_version"} for a text that says what it was made from and not from which version: what readers see of the
    source, else (or when the same write has `rewritten` it) its working copy. Saying `made_from` again says "made from what is
    there now". Raises `Invalid`."""
    source = text.get("made_from")
    if not source or text.get("made_from_version"):
        return {}
    if source == language:
        raise invalid(f"texts.{language}.made_from", "not_one_of", choices=", ".join(k for k in lesson.texts if k != language))
    if source not in lesson.texts:
        return {}  # an import may bring the source later; staff see it as "unknown"
    stand = lesson.stands.get(source)
    public = stand.version if stand and source not in rewritten else None
    return {"made_from_version": public or publishing.version_name(lesson, source)}


def edit(
    key: str, by: str, facts: Mapping[str, Any], texts: Mapping[str, Mapping[str, Any] | None], revision: int | None = None
) -> Lesson:
    """Change facts and texts of the working copy (a text of None drops an edition that was never published, a `check_in` or
    `made_from` of None is taken out).

    New facts concern every language, so all go back to draft; a new text only its own language. What readers see stays.
    """
    facts = checked(facts)
    put = {languages.edition(c, "texts"): None if t is None else text_values(t, f"texts.{c}") for c, t in texts.items()}
    out = {languages.edition(c, "texts"): {n for n, v in t.items() if v is None} for c, t in texts.items() if t is not None}
    for names in out.values():
        names |= {"made_from_version"} if "made_from" in names else set()

    def decide(lesson: Lesson) -> dict[str, Any]:
        raw = lesson.to_mongo().to_dict()
        fields: dict[str, Any] = {k: v for k, v in facts.items() if raw.get(k) != v}
        touched = list(lesson.texts) if fields else []
        before = raw.get("texts", {})
        texts = dict(before)
        for language, text in put.items():
            if text is not None:
                merged = {"minutes": 1, **before.get(language, {}), **text}
                texts[language] = {k: v for k, v in merged.items() if k not in out[language]}
                continue
            stand = lesson.stands.get(language)
            if stand and stand.number:
                raise Conflict("in_use", what=f"{lesson.slug} {language}", used_in="versions")
            fields |= {f"texts.{language}": None, f"stands.{language}": None}
            texts.pop(language, None)
        rewritten = [k for k, v in texts.items() if v != before.get(k)]
        after = Lesson.of({**raw, **facts, "texts": texts})
        for language, text in put.items():
            if text is None:
                continue
            texts[language] |= _source_of(after, language, text, rewritten)
            if texts[language] != before.get(language):
                fields[f"texts.{language}"] = texts[language]
                touched.append(language)
        drop = {k for k, v in put.items() if v is None}
        uses = _uses(facts.get("media", raw.get("media")), texts)
        if uses != raw.get("uses", []):
            fields["uses"] = uses
        return fields | publishing.edited(lesson, sorted(set(touched) - drop), by)

    return records.change(Lesson, key, by, "edit", decide, revision=revision)


def _uses(named: Collection[str] | None, texts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    bodies = [text.get("body", "") for text in texts.values()]
    links = (f"lesson:{slug}" for body in bodies for slug in markdown.LINK.findall(body))
    return sorted({*(named or ()), *(name for body in bodies for name in markdown.MEDIA.findall(body)), *links})


def import_draft(
    slug: str,
    language: str,
    facts: Mapping[str, Any],
    text: Mapping[str, Any],
    by: str,
    *,
    assumed: Collection[str] = (),
    dry_run: bool = False,
) -> str:
    """Lay an imported text into the working copy; "new", "changed" or "unchanged". A second identical call is "unchanged".

    Facts named in `assumed` are for a new draft only: they never overwrite what an editor has chosen. Facts the file leaves
    empty change nothing. With `dry_run` the same answer and the same failures, and nothing written.
    """
    put = text_values(own_text(facts, text))
    facts = checked(stated(facts))
    checking.slug(slug)
    raw = Lesson.rows().find_one({"slug": slug})
    if raw is None:
        if not dry_run:
            create(slug, facts, {language: put}, by)
        return "new"
    old = raw.get("texts", {}).get(language)
    changed = {name: value for name, value in facts.items() if name not in assumed and raw.get(name) != value}
    if old is not None and not changed and {**old, **put} == old:
        return "unchanged"
    if not dry_run:
        edit(raw["_id"], by, changed, {language: put})
    return "new" if old is None else "changed"


def stated(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of all editions that a file states."""
    return {name: meta.get(name) for name in META if meta.get(name) not in (None, [], "", False)}


def own_text(meta: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """A file's text with what of its facts belongs to this edition alone."""
    given = {**text, **{name: meta.get(name) for name in ("made_from", "licence")}}
    return {name: value for name, value in given.items() if value is not None}


def by_slug(slug: str) -> Lesson:
    """The working copy. Raises `NotFound`."""
    raw = Lesson.rows().find_one({"slug": slug})
    if raw is None:
        raise NotFound(what=slug)
    return Lesson.of(raw)


def used_in(name: str) -> list[str]:
    """Working copies and versions that use a media id or hash."""
    drafts = [f"lesson {raw['slug']}" for raw in Lesson.rows().find({"uses": name}, {"slug": 1})]
    return sorted({*drafts, *publishing.used_in(name)})


# --- reading ---------------------------------------------------------------------------------------------------------


def catalogue(
    snapshot: Snapshot,
    wanted: tuple[str, ...],
    *,
    audience: str | None = None,
    language: str | None = None,
    last: str = "zh-Hans",
    **filters: Any,
) -> tuple[list[Item], Callable[[Item], bool]]:
    """Published lessons in order, each once in the reader's best edition (`choose`), and whether one fits all filters
    (`matching`): the two apart, so that a page looks at no more lessons than it needs. `language` keeps only what exists in it.
    """
    fits = matching(audience=audience, **filters)
    now = store.now()
    memo = snapshot.memo("lesson")
    past = bisect.bisect_right(expiries(snapshot, "lesson"), now)  # until the next one expires the choice of editions stays
    name = (wanted, audience, language, past)
    best: list[Item] | None = memo.get(name)
    if best is None:
        found = (choose(texts, audience, wanted, last, now, language) for texts in snapshot.entries("lesson").values())
        best = sorted((item for item in found if item), key=order)
        if len(memo) < 64:  # readers' language lists are few; hostile ones must not grow the memory
            memo[name] = best
    return best, fits


BRIEF = ("slug", "title", "summary", "try_this", "minutes", "voice", "audiences", "stages", "topics", "kind", "seasons",
         "divisions", "media", "help", "number", "version", "published_at")  # fmt: skip


def _how(texts: Mapping[str, Item], item: Item, wanted: tuple[str, ...]) -> dict[str, Any]:
    """How an edition is written, whether it is another than the reader asked for, and which others there are."""
    now = store.now()
    others = [languages.parts(edition) for edition, one in texts.items() if shown(one, now)]
    language = languages.parts(item.language)[0]
    return {
        **languages.written(language),
        "fallback": languages.fallback(language, wanted),
        "languages": sorted({tag for tag, _ in others}),
        "voices": sorted({voice for _, voice in others if voice}),
    }


def brief(snapshot: Snapshot, item: Item, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    """A lesson as it stands in a list."""
    content = item.content or {}
    return {**{name: content.get(name) for name in BRIEF}, **_how(snapshot.get("lesson", item.key), item, wanted)}


def detail(
    snapshot: Snapshot, slug: str, wanted: tuple[str, ...], last: str = "zh-Hans", audience: str | None = None
) -> dict[str, Any]:
    """A lesson whole, in the reader's best edition, saying which that is and whether it is behind the one it was made from.
    Raises `NotFound`."""
    texts = snapshot.get("lesson", slug)
    item = choose(texts, audience, wanted, last, store.now())
    if item is None:
        raise NotFound(what=slug)
    content = dict(item.content or {})
    origin = texts.get(content.get("made_from") or "")
    behind = bool(origin and content.get("made_from_version") not in (None, (origin.content or {}).get("version")))
    return {**content, **_how(texts, item, wanted), "behind_source": behind}

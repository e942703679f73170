"""What a season's notice says: the library's texts (`content/library/notices.yaml`), and a district's own in their place.

A template is one season, lead and audience in several languages, in a version that never changes: whoever saves a district's own
makes the next one, and the old ones stay readable, so that a draft can say what it was made from ("gaokao:-30:parent@2"). The
newest of the nearest division counts, then the library's.

A text may name PLACES, written {days}, and nothing else in braces: no formatting of Python's is ever run on what staff wrote.
Every text must fit a push to a topic with the longest names that may stand in it, also where pushes say nothing but that there is
something to read: a district's own channels carry the words.

The library also keeps plan texts for times of need (`emergencies`), which wait for a person to send them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import mongoengine as me
import yaml

import content
from content import divisions, languages, records, store
from content.checking import SLUG, SLUG_LIMIT, Check
from content.checks import Check as SelfCheck
from content.failures import Conflict, FieldError, Invalid, NotFound
from content.lessons import Lesson
from content.settings import Settings
from content.vocabulary import AUDIENCES, SEASONS, Label
from notifications import fcm, seasons
from notifications.seasons import Span

FILE = Path(content.__file__).parent / "library" / "notices.yaml"
PLACES = ("season", "days", "first", "last", "place")
TITLE, BODY = 60, 400  # characters
LEADS = range(-100, 101)  # days
MOST_LESSONS, MOST_LANGUAGES, MOST_VERSIONS = 20, 20, 20
DONE = ("lesson", "check", "read")
EMERGENCIES: Mapping[str, Label] = {
    "sudden_event": Label("突发事件", "a sudden event near by"),
    "loss": Label("身边有人离开", "someone has died"),
    "disaster": Label("自然灾害", "a natural disaster"),
    "epidemic": Label("疫情时期", "an epidemic"),
    "rumours": Label("网上消息太多", "too much news and hearsay"),
}
VALUES = ("texts", "lessons", "done_when")
_PLACE = re.compile("{(?:" + "|".join(PLACES) + ")}")
_BRACES = re.compile("{[^{}]{0,30}}?|}")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_COUNTRY = {"zh-Hans": "全国", "zh-Hant": "全國", "en": "the whole country"}


class Template(NamedTuple):
    """One text as a notice is made from it."""

    name: str
    """gaokao:-30:parent; of a district's own gaokao:-30:parent:150603 (000000: the country); of a plan text loss:parent."""
    version: int
    texts: Mapping[str, Mapping[str, str]]
    """language -> {"title", "body"}, with their places still open."""
    lessons: tuple[str, ...]
    done_when: Mapping[str, str] | None
    """{"kind": "lesson" | "check", "slug"}, {"kind": "read"}, or None."""


class Dated(Protocol):
    """What of a `seasons.Occasion` the words need."""

    @property
    def code(self) -> str:
        """Season."""

    @property
    def lead(self) -> int:
        """Days from the season."""

    @property
    def division(self) -> str:
        """Code, "" the country."""

    @property
    def span(self) -> Span:
        """First and last day."""


# --- the library ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _file() -> tuple[dict[str, Template], dict[str, Template]]:
    """(season texts, plan texts) by name; a test looks through them."""
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found: tuple[dict[str, Template], dict[str, Template]] = ({}, {})
    for kind, part in zip(("seasons", "emergencies"), found, strict=True):
        for code, rows in data[kind].items():
            for row in rows:
                name = f"{code}:{row['lead']}:{row['audience']}" if kind == "seasons" else f"{code}:{row['audience']}"
                if name in part:
                    raise ValueError(f"notices.yaml: {name} twice")
                lessons = tuple(row.get("lessons") or ())
                part[name] = Template(name, row["version"], row["texts"], lessons, row.get("done_when"))
    return found


def starter() -> Mapping[str, Template]:
    """The library's season texts, by name ("gaokao:-30:parent")."""
    return _file()[0]


def emergencies() -> Mapping[str, Template]:
    """The plan texts for special times and major events, by code and audience ("loss:parent"): nobody sends them by itself."""
    return _file()[1]


# --- a district's own -------------------------------------------------------------------------------------------------


class NoticeTemplate(records.Record):
    """A division's own text for one season, lead and audience; `_id` is "DIVISION:SEASON:LEAD:AUDIENCE". One that was taken back
    stays as `retired`, so that its versions stay readable and no number comes twice."""

    division = me.StringField(default="")
    """"" the country."""
    season = me.StringField(required=True)
    lead = me.IntField(required=True)
    audience = me.StringField(required=True)
    texts = me.DictField(required=True)
    lessons = me.ListField(me.StringField())
    done_when = me.DictField()
    version = me.IntField(required=True)
    written_by = me.StringField(required=True)
    """Who saved this version."""
    written_at = me.DateTimeField(required=True)
    retired = me.BooleanField(required=True, default=False)
    history = me.ListField(me.DictField())
    """The versions, newest last, this one among them; the last twenty."""

    meta: ClassVar[dict[str, Any]] = {"collection": "notice_templates", "indexes": []}
    NAME = "notice_template"
    DERIVED = frozenset({"history"})

    @classmethod
    def derived(cls, raw: dict[str, Any]) -> dict[str, Any]:
        present = {name: raw.get(name) for name in ("version", *VALUES, "written_by", "written_at")}
        before = [one for one in raw.get("history") or () if one["version"] != raw["version"]]
        return {"history": [*before, present][-MOST_VERSIONS:]}

    def template(self) -> Template:
        """Its plain value."""
        name = f"{self.season}:{self.lead}:{self.audience}:{self.division or divisions.COUNTRY}"
        return Template(name, self.version, self.texts, tuple(self.lessons), dict(self.done_when) or None)

    def sound(self) -> None:
        """Raises `Invalid` unless `save` could have written it; for what comes out of an archive."""
        if self.division and not divisions.known(self.division):
            raise Invalid([FieldError("division", "unknown_reference", {"value": self.division[:40]})])
        if self.id != key_of(self.division or "", self.season, self.lead, self.audience):
            raise Invalid([FieldError("_id", "bad_format", {"reason": str(self.id)[:80]})])
        given = {name: getattr(self, name) for name in VALUES}
        for one in (given, *self.history):
            if checked({name: one.get(name) for name in VALUES}, self.season, self.lead) != plain(one):
                raise Invalid([FieldError("texts", "wrong_type", {"reason": str(self.id)[:80]})])


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """VALUES as `checked` gives them, without what the database adds."""
    texts = {tag: dict(text) for tag, text in (values.get("texts") or {}).items()}
    return {"texts": texts, "lessons": list(values.get("lessons") or ()), "done_when": dict(values.get("done_when") or {})}


def key_of(division: str, season: str, lead: int, audience: str) -> str:
    """The id of a division's own. Raises `NotFound` for a season, a lead or an audience that there is not."""
    if season not in SEASONS or lead not in LEADS or audience not in AUDIENCES:
        raise missing(season, lead, audience)
    return f"{division or divisions.COUNTRY}:{season}:{lead}:{audience}"


def missing(season: str, lead: int, audience: str) -> NotFound:
    """What is raised where there is no such text."""
    return NotFound(what=f"{season}:{lead}:{audience}"[:80])


def stored() -> list[NoticeTemplate]:
    """Every division's own, those taken back left out, without their old versions."""
    return [NoticeTemplate.of(raw) for raw in NoticeTemplate.rows().find({}, {"history": 0}) if not raw["retired"]]


def own_record(division: str, season: str, lead: int, audience: str) -> NoticeTemplate | None:
    """Just this division's record with its versions, also a `retired` one. Raises as `key_of`."""
    raw = NoticeTemplate.rows().find_one({"_id": key_of(division, season, lead, audience)})
    return NoticeTemplate.of(raw) if raw else None


def nearest(season: str, lead: int, audience: str, division: str, found: Iterable[NoticeTemplate]) -> NoticeTemplate | None:
    """Of `found`, that of the division or the nearest one above it ("" the country, last). Raises `NotFound` for an unknown
    division."""
    line = ["" if division in {"", divisions.COUNTRY} else code for code in _line(division)]
    fits = {
        divisions.current(one.division) if one.division else "": one
        for one in found
        if (one.season, one.lead, one.audience) == (season, lead, audience) and not one.retired
    }
    return next((fits[code] for code in line if code in fits), None)


def _line(division: str) -> list[str]:
    return [""] if division in {"", divisions.COUNTRY} else [*divisions.lineage(division), ""]


def best(season: str, lead: int, audience: str, division: str, own: Iterable[NoticeTemplate]) -> Template | None:
    """The text that counts in a division: the nearest of `own` (`stored()`), else the library's; None when there is none for
    this audience on this day. Raises `NotFound` for an unknown division."""
    found = nearest(season, lead, audience, division, own)
    return found.template() if found else starter().get(f"{season}:{lead}:{audience}")


def save(
    division: str,
    season: str,
    lead: int,
    audience: str,
    values: Mapping[str, Any],
    by: str,
    settings: Settings,
    revision: int | None = None,
) -> NoticeTemplate:
    """Write a division's own text whole (VALUES), as its next version. `revision` None: there is none yet, or none any more. The
    same values again change nothing. Raises `NotFound`, `Invalid`, `Stale`, and `Conflict("exists")` when somebody was faster."""
    key = key_of(division, season, lead, audience)
    _asked_for(season, lead, audience)
    fields = checked(values, season, lead, settings.language)
    if errors := unknown(fields["lessons"], fields["done_when"]):
        raise Invalid(errors)
    written = {"written_by": by, "written_at": store.now()}
    if revision is None and NoticeTemplate.rows().find_one({"_id": key}, {"_id": 1}) is None:
        record = NoticeTemplate(
            id=key, division=division, season=season, lead=lead, audience=audience, version=1, **fields, **written
        )
        return records.create(record, by)

    def decide(present: NoticeTemplate) -> dict[str, Any]:
        if revision is None and not present.retired:
            raise Conflict("exists", what=key)
        if not present.retired and plain({name: getattr(present, name) for name in VALUES}) == fields:
            return {}
        return {**fields, **written, "version": present.version + 1, "retired": False}

    return records.change(NoticeTemplate, key, by, "edit", decide, revision=revision)


def _asked_for(season: str, lead: int, audience: str) -> None:
    """Raises `Invalid` for a day or an audience to which the calendar sends nothing: such a text would never be used."""
    found = seasons.calendar().seasons[season]
    for field, value, choices in (("lead", lead, found.lead_days), ("audience", audience, found.audiences)):
        if value not in choices:
            raise Invalid([FieldError(field, "not_one_of", {"choices": ", ".join(map(str, choices)) or "–"})])


def take_back(division: str, season: str, lead: int, audience: str, by: str, revision: int | None = None) -> NoticeTemplate:
    """From now on the text of the division above counts again, in the end the library's. Raises `NotFound` when there is none,
    also the second time, and `Stale`."""
    key = key_of(division, season, lead, audience)

    def decide(present: NoticeTemplate) -> dict[str, Any]:
        if present.retired:
            raise NotFound(what=key)
        return {"retired": True}

    return records.change(NoticeTemplate, key, by, "remove", decide, revision=revision)


# --- the rules of a text ----------------------------------------------------------------------------------------------


def checked(values: Mapping[str, Any], season: str, lead: int, language: str = "") -> dict[str, Any]:
    """VALUES in their stored form; `language`, when given, must be among the texts. Raises `Invalid` with every fault, by the
    code `payload_too_large` when a push with the longest names that may stand in it would be over FCM's limit."""
    check = Check()
    texts: dict[str, dict[str, str]] = {}
    given = values.get("texts")
    if not isinstance(given, Mapping) or not given or len(given) > MOST_LANGUAGES:
        check.fail("texts", "required")
        given = {}
    for spelt, text in given.items():
        tag = check.language("texts", spelt)
        if tag in texts:
            check.fail(f"texts.{tag}", "exists", what=tag)
        if not isinstance(text, Mapping) or set(text) - {"title", "body"}:
            check.fail(f"texts.{tag}", "wrong_type", reason="{title, body}")
            continue
        texts[tag] = {
            "title": languages.one_line(check.text(f"texts.{tag}.title", text.get("title"), TITLE, required=True) or ""),
            "body": _shown(check.text(f"texts.{tag}.body", text.get("body"), BODY, required=True) or ""),
        }
        for name, words in texts[tag].items():
            check.errors += faults(words, f"texts.{tag}.{name}", tag)
            if not words and text.get(name) and f"texts.{tag}.{name}" not in {error.field for error in check.errors}:
                check.fail(f"texts.{tag}.{name}", "required")
    if language and language not in texts:
        check.fail(f"texts.{language}", "required")
    lessons = [slug for slug in check.rows("lessons", values.get("lessons"), MOST_LESSONS) if _slug(check, "lessons", slug)]
    done = values.get("done_when") or {}
    if done:
        check.fields(done, ("kind", "slug"))
        kind = check.coded("done_when.kind", done.get("kind"), DONE)
        if kind == "read" and done.get("slug"):
            check.fail("done_when.slug", "unknown_field")
        named = kind in ("lesson", "check") and _slug(check, "done_when.slug", done.get("slug"))
        if named and kind == "lesson" and done["slug"] not in lessons:  # else the notice asks for what it does not open
            check.fail("done_when.slug", "unknown_reference", value=done["slug"])
        done = {name: value for name, value in done.items() if value}
    check.done()
    _fits(texts, season, lead)
    return {"texts": texts, "lessons": list(dict.fromkeys(lessons)), "done_when": done}


def _slug(check: Check, field: str, slug: Any) -> bool:
    if isinstance(slug, str) and SLUG.fullmatch(slug) and len(slug) <= SLUG_LIMIT:
        return True
    check.fail(field, "bad_format", reason=str(slug)[:40])
    return False


def _shown(text: str) -> str:
    """Without what is not seen and turns or hides what is; lines stay."""
    return "\n".join(languages.one_line(line) for line in text.split("\n")).strip("\n")


def faults(text: str, field: str, language: str) -> list[FieldError]:
    """One error for each thing in braces that is not exactly one of PLACES, and for a brace by itself: formats, conversions,
    attributes, indexes and doubled braces are among them."""
    found = dict.fromkeys(one for part in _PLACE.split(text) for one in _BRACES.findall(part))
    choices = " ".join(f"{{{name}}}" for name in PLACES)
    return [
        FieldError(field, "bad_placeholder", {"placeholder": one, "language": language, "choices": choices})
        for one in list(found)[:5]
    ]


def unknown(lessons: Sequence[str], done: Mapping[str, str]) -> list[FieldError]:
    """One error for each lesson, and for the lesson or check that the reader is to do, that there is not."""
    there = {raw["slug"] for raw in Lesson.rows().find({"slug": {"$in": list(lessons)}}, {"slug": 1})} if lessons else set()
    errors = [FieldError("lessons", "unknown_reference", {"value": slug}) for slug in lessons if slug not in there]
    rows = {"lesson": Lesson.rows, "check": SelfCheck.rows}.get(done.get("kind", ""))
    if rows and rows().find_one({"slug": done.get("slug", "")}, {"_id": 1}) is None:
        errors.append(FieldError("done_when.slug", "unknown_reference", {"value": done["slug"]}))
    return errors


def size(text: Mapping[str, str]) -> int:
    """Bytes of a push to a topic that carries this rendered text."""
    return fcm.size(_message(text))


def _message(text: Mapping[str, str]) -> fcm.Message:
    name = "0" * 32
    return fcm.Message(name, "topic", text["title"], text["body"], 28 * 86400, data={"notice": name})


def _fits(texts: Mapping[str, Mapping[str, str]], season: str, lead: int) -> None:
    errors = []
    for tag, text in texts.items():
        bytes_, most = size(_filled(text, _longest(tag, season, lead))), fcm.TOPIC_LIMIT
        if bytes_ > most:
            errors.append(FieldError(f"texts.{tag}.body", "payload_too_large", {"size": bytes_, "limit": most}))
    if errors:
        raise Invalid(errors, "payload_too_large", **errors[0].params)


# --- rendering --------------------------------------------------------------------------------------------------------


def rendered(template: Template, values: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The texts with their places filled from `values` (language -> place -> words); a language that is not among them takes
    those that its readers can most likely read. What stands in the words is never filled again."""
    return {tag: _filled(text, values[languages.pick(values, (tag,))]) for tag, text in template.texts.items()}


def _filled(text: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str]:
    return {name: _PLACE.sub(lambda found: words[found[0][1:-1]], text[name]) for name in ("title", "body")}


def values(occasion: Dated, settings: Settings) -> dict[str, dict[str, str]]:
    """What stands in the places, by language: `days` from the season as a number, `first` and `last` as its local dates, and the
    division's name (of the country that of the service's own division). Raises `NotFound` for an unknown division."""
    code = occasion.division if occasion.division not in {"", divisions.COUNTRY} else settings.division
    name = divisions.get(code).name if code and code != divisions.COUNTRY else ""
    return {
        tag: {
            "season": _season(tag, occasion.code),
            "days": str(abs(occasion.lead)),
            "first": said(occasion.span.first, tag),
            "last": said(occasion.span.last, tag),
            "place": name or _COUNTRY.get(tag, _COUNTRY["zh-Hans"]),
        }
        for tag in {**languages.NAMES, settings.language: ""}
    }


def _season(language: str, code: str) -> str:
    label = SEASONS.get(code, Label("", ""))
    return label.en if language.partition("-")[0] == "en" else label.zh


def said(day: date, language: str) -> str:
    """A local day as the language says it, without its year; 2027-06-07 where we do not know how."""
    match language.partition("-")[0]:
        case "zh" | "yue":
            return f"{day.month}月{day.day}日"
        case "en":
            return f"{day.day} {_MONTHS[day.month - 1]}"
        case "ko":
            return f"{day.month}월 {day.day}일"
        case "mn" if language == "mn-Cyrl":
            return f"{day.month} сарын {day.day}"
    return day.isoformat()


def _longest(language: str, season: str, lead: int) -> dict[str, str]:
    """The longest words that may stand in a text's places."""
    day = said(date(2027, 9, 30) if language.startswith("en") else date(2027, 12, 30), language)
    return {"season": _season(language, season), "days": str(abs(lead)), "first": day, "last": day, "place": _longest_name()}


@lru_cache(maxsize=1)
def _longest_name() -> str:
    names, below = [*_COUNTRY.values()], divisions.children()
    while below:
        names += [one.name for one in below]
        below = [child for one in below for child in divisions.children(one.code)]
    return max(names, key=lambda name: len(name.encode()))

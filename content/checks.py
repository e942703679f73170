"""Self-checks: a questionnaire, its register entry, and the way from draft to phones and back.

A check has one stand for all its languages, since all languages score alike: draft → in review → approved → published →
withdrawn (`content.publishing`). Two rules are tighter than elsewhere and no setting loosens them: a second person always
approves, and nothing is submitted without a complete register entry (what it is, whose it is, who may use it for what).
Withdrawing recalls it: phones are told at their next request.

What readers get holds all that a phone needs to ask, score and show help without a network.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import mongoengine as me

from content import checking, languages, publishing, records, rules
from content.checking import Check as Checking
from content.definition import ANSWERED, OLDEST, TOTAL, Band, Definition, Scale, from_json, to_json
from content.definition import Item as Line
from content.failures import FieldError, Invalid, NotFound, Text
from content.published import ANY, Item, Snapshot, canonical
from content.publishing import Publishable, Stand
from content.vocabulary import AUDIENCES, Label, Stage

NAME_LIMIT = 120  # characters
EXPIRES_DAYS = 14  # a phone asks again before it uses an older copy, so that a recall reaches it

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
ASKS_OF_ONESELF = frozenset({"self_check", "screening", "parent_guidance"})


class Register(me.EmbeddedDocument):  # type: ignore[misc]
    """What must be known of an instrument before anyone is asked its questions."""

    name = me.DictField()
    """Language tag -> name."""
    source = me.StringField()
    rights = me.StringField()
    audiences = me.ListField(me.StringField())
    stages = me.ListField(me.StringField())
    """Texts of `vocabulary.Stage`."""
    ages = me.ListField(me.IntField())
    """[least, most] age in months of whoever it is about, both included; empty where the stages say enough."""
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
    critical_message = me.DictField()
    """Language tag -> what is said first beside a critical answer; where it is empty, the general words (`critical_words`)."""
    no_critical = me.StringField()
    """Why no answer of it calls for help at once, where it has no critical rule."""
    evidence = me.StringField()


REGISTER = tuple(Register._fields)
FIELDS = (*REGISTER, "lessons", "expires_days")


class Check(Publishable):
    """The working copy."""

    slug = me.StringField(required=True)
    organisation = me.StringField(default="")
    """Owning organisation's id."""
    definition = me.StringField(required=True)
    """`definition.to_json` as canonical JSON, with all its rules: a string, so that no key of it is an operator."""
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
        return from_json(json.loads(self.definition))

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
        if register["purpose"] in ASKS_OF_ONESELF and not definition.critical and not register["no_critical"]:
            gaps.append("critical")  # or `no_critical`: nobody forgets what is the point of asking
        for tag in register["languages"] or []:
            gaps += [f"{name}.{tag}" for name in ("name", "parental_notice") if tag not in (register[name] or {})]
            if tag not in definition.languages:
                gaps.append(f"items.{tag}")
            for scale in definition.scales:
                at = "" if scale.code == TOTAL else f"subscales.{scale.code}."
                gaps += [f"{at}bands.{b.code}.{tag}" for b in scale.bands if tag not in b.text or tag not in b.next_steps]
                if at and tag not in scale.name:
                    gaps.append(f"{at}name.{tag}")
        return gaps + [error.field for error in rules.faults(definition)]

    @classmethod
    def public(cls, content: dict[str, Any], stand: Stand) -> dict[str, Any]:
        """The version without what is only for staff."""
        register = {k: v for k, v in content["register"].items() if k not in {"approval_number", "no_critical"}}
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
    ages = [check.whole("ages", age, 0, OLDEST) for age in check.rows("ages", values.get("ages"), 2)]
    if ages and (len(ages) != 2 or None in ages or sorted(ages, key=lambda age: age or 0) != ages):
        check.fail("ages", "out_of_range", reason=Text(f"[最小, 最大]，0–{OLDEST} 个月", f"[min, max] in months, 0 to {OLDEST}"))
    result = {
        "name": check.texts("name", values.get("name"), NAME_LIMIT),
        "source": check.text("source", values.get("source")),
        "rights": check.coded("rights", values["rights"], RIGHTS) if values.get("rights") else None,
        "audiences": check.codes("audiences", values.get("audiences"), AUDIENCES),
        "stages": check.stages(values.get("stages")),
        "ages": [age for age in ages if age is not None],
        "languages": list(
            dict.fromkeys(check.language("languages", v) for v in check.rows("languages", values.get("languages")))
        ),
        "validated": values.get("validated"),
        "purpose": check.coded("purpose", values["purpose"], PURPOSES) if values.get("purpose") else None,
        "approver": check.text("approver", values.get("approver"), 120),
        "approval_number": check.text("approval_number", values.get("approval_number"), 120),
        "parental_notice": check.texts("parental_notice", values.get("parental_notice"), 2000),
        "critical_message": check.texts("critical_message", values.get("critical_message"), 400),
        "no_critical": check.text("no_critical", values.get("no_critical")),
        "evidence": check.text("evidence", values.get("evidence"), 2000),
        "lessons": lessons,
        "expires_days": check.whole("expires_days", values.get("expires_days"), 1, EXPIRES_DAYS) or EXPIRES_DAYS,
    }
    check.done()
    return {name: value for name, value in result.items() if name in values}


def by_slug(slug: str) -> Check:
    """The working copy. Raises `NotFound`."""
    raw = Check.rows().find_one({"slug": slug})
    if raw is None:
        raise NotFound(what=slug)
    return Check.of(raw)


def put_draft(
    slug: str,
    definition: Definition,
    values: Mapping[str, Any] | None,
    by: str,
    organisation: str = "",
    *,
    revision: int | None = None,
    dry_run: bool = False,
) -> str:
    """Lay an imported questionnaire into the working copy: "new", "changed" or "unchanged".

    `values` are register fields, lessons and expiry; None (a file without its register) keeps what staff have entered, `rules`
    too, and names a new one after its title. What readers see stays. A second identical call is "unchanged" and writes nothing.
    Raises `Invalid`, also where nothing can be answered, and `Stale` where another `revision` of it stands. With `dry_run` the
    same answers and failures, and nothing written.
    """
    checking.slug(slug)
    raw = Check.rows().find_one({"slug": slug})
    old = Check.of(raw) if raw else None
    if values is None and old:
        definition = rules.kept(definition, old.parsed())
    elif faults := rules.faults(definition):
        raise Invalid(faults)
    if not any(item.kind in ANSWERED for item in definition.index.values()):
        raise Invalid([FieldError("item", "incomplete", {"missing": Text("可作答的题目", "a question to answer")})])
    if values is None and old is None:
        values = {"name": {tag: text for tag, text in definition.title.items() if len(text) <= NAME_LIMIT}}
    put = checked(values or {})
    text = canonical(to_json(definition))
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
        records.change(
            Check, old.id, by, "edit", lambda c: _fields(c, put, text) | publishing.edited(c, [ANY], by), revision=revision
        )
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


def no_help(definition: Definition, values: Mapping[str, Any]) -> list[str]:
    """A warning, in both languages, where it scores how someone is and no answer calls for help at once; nothing otherwise."""
    heeded = definition.critical or values.get("no_critical") or values.get("purpose") not in {None, "", *ASKS_OF_ONESELF}
    if heeded or not definition.scales:
        return []
    return ["critical: 没有一个回答会立刻引向求助，请补上 no answer of this calls for help at once: lay `critical` over it"]


def edit(
    key: str, by: str, values: Mapping[str, Any], *, laid: Mapping[str, Any] | None = None, revision: int | None = None
) -> Check:
    """Change register fields, lessons, expiry and, with `laid` (see `rules`), what lies over the questions; back to draft,
    readers keep what is published. Raises `Invalid`, `Stale`, `NotFound`."""
    put = checked(values)

    def decide(check: Check) -> dict[str, Any]:
        made = rules.laid(check.parsed(), laid or {})
        fields = _fields(check, put, canonical(to_json(made)))
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


# --- reading ---------------------------------------------------------------------------------------------------------


def published_check(snapshot: Snapshot, slug: str) -> tuple[Item, Definition]:
    """The published check and its definition, parsed once a snapshot. Raises `NotFound`, of a recalled one too."""
    item = snapshot.get("check", slug).get(ANY)
    if item is None or item.content is None:
        raise NotFound(what=slug)
    found = snapshot.memo("check").get(slug)
    if found is None:
        found = snapshot.memo("check")[slug] = from_json(item.content["definition"])
    return item, found


def catalogue(snapshot: Snapshot, audience: str | None = None, stage: Stage | None = None, age: int | None = None) -> list[Item]:
    """Published checks that fit, by slug; `age` in months."""
    found = []
    for _, texts in sorted(snapshot.entries("check").items()):
        item = texts[ANY]
        register = (item.content or {})["register"]
        if audience and audience not in register["audiences"]:
            continue
        if stage and not any(Stage.parse(s).covers(stage) for s in register["stages"]):
            continue
        if age is not None and register["ages"] and not register["ages"][0] <= age <= register["ages"][1]:
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
        "ages": register["ages"] or None,
        "purpose": register["purpose"],
        "validated": register["validated"],
        "version": content["definition_version"],
        "number": content["number"],
        "published_at": content["published_at"],
    }


def detail(item: Item, definition: Definition, language: str, reader: str = "") -> dict[str, Any]:
    """A check whole, in one of its languages: enough to ask, score and show help on a phone without a network. Help speaks the
    `reader`'s own language, also where the questions do not."""
    content = dict(item.content or {})
    register = content["register"]

    def line(one: Line) -> dict[str, Any]:
        return {
            "link_id": one.link_id, "kind": one.kind, "text": spoken(one.text, language), "required": one.required,
            "minimum": one.minimum, "maximum": one.maximum, "unit": one.unit, "control": one.control,
            "ages": list(one.ages) if one.ages else None, "explanation": spoken(one.explanation, language),
            "options": [{"code": o.code, "text": spoken(o.text, language), "score": o.score} for o in one.options],
            "enable_when": one.enable_when and one.enable_when.plain(),
            "items": [line(below) for below in one.items],
        }  # fmt: skip

    def scale(one: Scale) -> dict[str, Any]:
        low, high = definition.reach(one)
        return {
            "code": one.code, "name": spoken(one.name, language), "of": list(one.of), "method": one.method,
            "reverse": list(one.reverse), "minimum": low, "maximum": high, "bands": [band(b, language) for b in one.bands],
            "norms": [
                {
                    "minimum_age": n.minimum_age, "maximum_age": n.maximum_age, "sex": n.sex, "mean": n.mean, "sd": n.sd,
                    "cuts": [{"band": code, "minimum": least, "maximum": most} for code, (least, most) in n.cuts.items()],
                }
                for n in one.norms
            ],
        }  # fmt: skip

    return {
        **brief(item, language),
        "source": register["source"],
        "rights": register["rights"],
        "approver": register["approver"],
        "evidence": register["evidence"],
        "parental_notice": spoken(register["parental_notice"], language),
        "critical_message": critical_words(register, reader or language),
        "items": [line(one) for one in definition.items],
        "scales": [scale(one) for one in definition.scales],
        "critical": [{"item": rule.item, "codes": list(rule.codes), "at_least": rule.at_least} for rule in definition.critical],
        "validity": [
            {"kind": rule.kind, "seconds": rule.seconds, "items": list(rule.items), "text": doubt(rule.kind, language)}
            for rule in definition.validity
        ],
        "lessons": content["lessons"],
        "expires_days": content["expires_days"],
    }


CRITICAL: Mapping[str, str] = {
    "zh-Hans": "谢谢你愿意说出来。现在最要紧的，是有人陪着你。请先看看下面的电话，或者告诉身边一位让你安心的大人。",
    "en": "Thank you for telling us. What matters now is that someone is with you. Please look at the numbers below first, "
    "or tell an adult you feel safe with.",
}
# a parent who is afraid of hurting someone needs another hand beside the child, first of all
CRITICAL_PARENT: Mapping[str, str] = {
    "zh-Hans": "谢谢您愿意说出来，这很不容易。现在最要紧的，是有人来搭把手：请一位家人或邻居来接手，您先离开几步，缓一缓，再看看"
    "下面的电话。如果有人正有危险，请马上打 110 或 120。",
    "en": "Thank you for telling us; that is not easy. What matters now is another pair of hands: ask someone in the family or a "
    "neighbour to take over, step away for a moment, then look at the numbers below. If anyone is in danger, call 110 or 120.",
}


def critical_words(register: Mapping[str, Any], language: str) -> str:
    """What is said first, with the help card, when an answer calls for help: the check's own words, else the general ones, in the
    language nearest to the reader's."""
    general = CRITICAL_PARENT if register["audiences"] == ["parent"] else CRITICAL
    texts = {**general, **register["critical_message"]} if register["critical_message"] else general
    return texts[languages.pick(texts, [language])]


# said beside a result and never instead of it
DOUBTS: Mapping[str, Mapping[str, str]] = {
    "too_fast": {
        "zh-Hans": "这次答得很快，结果也许说不准。想慢慢再看一遍，随时都可以。",
        "en": "That went quickly, so this may not say much. You can take another slow look at any time.",
    },
    "straight_line": {
        "zh-Hans": "每一题都选在同一个位置，结果也许说不准。想再看一遍，随时都可以。",
        "en": "Every answer stands at the same place, so this may not say much. You can look again at any time.",
    },
}


def doubt(kind: str, language: str) -> str:
    """What is said when a validity rule is met."""
    return DOUBTS[kind][languages.pick(DOUBTS[kind], [language])]


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
        "note": stand.note or "",
        "approved_by": stand.approved_by,
        "version": stand.version,
        "number": stand.number,
        "published_at": stand.published_at.isoformat() if isinstance(stand.published_at, datetime) else None,
        "missing": check.missing(ANY),
    }

"""Demand lists and task lists (需求清单、任务清单): what young people need, asked aloud, and what is offered in answer.

Plan of Wuhan: districts compile a demand list, the city publishes a task list of services that answer it. A `Demand` is asked
by an organisation, seconded by others, and answered by whoever answers for its division: with a session, a series or a time,
or with a reason why not. A `Task` is a service offered without being asked. Both lists are public. Readers get them from the
published set, whose content follows from the record alone, so each change of a public one is public at once.

    demand: draft → open → answered → done        open → declined, withdrawn; all four may be opened again, with a reason
    task:   draft → published → done, withdrawn   both may be published again, with a reason

Organisations second by name, once each. Families second as a number: `second_as_family` counts a nonce (the local day and 32
random hex digits, made by the phone) once, by a keyed hash that is gone at midnight. That makes a repeat after a lost answer
safe, and nothing more: a phone that makes another nonce counts again, and so does the same family tomorrow. Against it stands a
limit on sending. So the number stands apart from the organisations, is told in tens (nobody learns whether a neighbour was the
third), and decides nothing by itself. Whoever watches the list sees in which minute the tenth came, not who.

No text of either list may hold what looks like a telephone or identity number (`publicwords`): it is refused by name, at writing
already, so that the trail has none either. A person's name in a text is for the one who publishes to see.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from content import counting, divisions, records, staff, store
from content.failures import Conflict, NotFound, Text, invalid
from content.publicwords import Check
from content.published import ANY, Item, PublishedRow, release
from content.settings import Settings
from content.vocabulary import AUDIENCES, PLACES, TOPICS

STEP = 10  # families are told in steps of this
MOST_SECONDS = 500  # organisations behind one demand; a city has some hundreds of schools


class Listed(records.Record):
    """What demands and tasks have in common."""

    organisation = me.StringField(required=True)
    organisation_name = me.StringField(required=True)
    """As it was when this was written, so that readers need no other record."""
    division = me.StringField(required=True)
    """Whose families it is for: this division and all below it."""
    topic = me.StringField(required=True)
    audiences = me.ListField()
    stages = me.ListField()
    """Texts of vocabulary.Stage; empty: every stage."""
    place = me.StringField()
    """A code of vocabulary.PLACES; "" for any."""
    first = me.StringField()
    """Local dates, both included; "" for any time."""
    last = me.StringField()
    listed_on = me.StringField()
    """Local date on which readers first got it."""

    meta: ClassVar[dict[str, Any]] = {"abstract": True, "auto_create_index": False}


class Demand(Listed):
    """One line of a demand list."""

    people = me.IntField()
    """About how many would come."""
    why = me.DictField(required=True)
    """Language tag -> text."""
    from_families = me.BooleanField(required=True, default=False)
    """Whether it was made of what a family suggested."""
    state = me.StringField(required=True, choices=("draft", "open", "answered", "declined", "done", "withdrawn"), default="draft")
    seconds = me.ListField()
    """[{"organisation": id, "name"}], in order of seconding."""
    families = me.IntField(required=True, default=0)
    """Changed by `second_as_family` alone, which leaves `revision` as it is. Told in steps only."""
    answer = me.DictField()
    """{"session", "series", "first", "last", "provider", "provider_name", "note": texts, "reason": texts, "on"}; what does not
    apply is empty."""

    NAME = "demand"
    meta: ClassVar[dict[str, Any]] = {"collection": "demands", "indexes": [{"fields": ["organisation"]}]}


class Task(Listed):
    """One line of a task list that nobody had to ask for."""

    what = me.DictField(required=True)
    """Language tag -> text."""
    provider = me.StringField(required=True)
    """Id of the organisation that gives the service."""
    provider_name = me.StringField(required=True)
    session = me.StringField()
    series = me.StringField()
    state = me.StringField(required=True, choices=("draft", "published", "done", "withdrawn"), default="draft")

    NAME = "task"
    meta: ClassVar[dict[str, Any]] = {"collection": "tasks", "indexes": [{"fields": ["organisation"]}]}


class FamilySecond(store.Row):
    """`_id` is the keyed hash of a demand and a nonce that was counted for it."""

    expires_at = me.DateTimeField(required=True)
    """The next local midnight, the same for all of a day."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "demand_seconds",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


L = TypeVar("L", Demand, Task)

# --- the fields that staff write -------------------------------------------------------------------------------------

COMMON = ("organisation", "division", "topic", "audiences", "stages", "place", "first", "last")
FIELDS: Mapping[type[Listed], tuple[str, ...]] = {
    Demand: (*COMMON, "people", "why"),
    Task: (*COMMON, "what", "provider", "session", "series"),
}
FIXED = frozenset({"organisation", "division", "topic", "audiences", "stages"})  # once public: it is what others seconded


def checked(cls: type[Listed], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in their stored form; whether what they name exists is not asked. `month` may stand for `first` and `last`.
    Raises `Invalid` with every fault."""
    check = Check()
    check.fields(values, {*FIELDS[cls], "month"})
    fields: dict[str, Any] = {
        "organisation": check.text("organisation", values.get("organisation"), 64, required=True) or "",
        "division": check.division("division", values.get("division") or ""),
        "topic": check.coded("topic", values.get("topic"), TOPICS),
        "audiences": check.codes("audiences", values.get("audiences"), AUDIENCES),
        "stages": check.stages(values.get("stages")),
        "place": check.coded("place", values["place"], PLACES) if values.get("place") else "",
        **check.days(values),
    }
    if cls is Demand:
        fields["people"] = check.whole("people", values.get("people"), 1, 100_000)
        fields["why"] = check.public("why", values.get("why"), 300, required=True)
    else:
        fields["what"] = check.public("what", values.get("what"), 300, required=True)
        for name in ("provider", "session", "series"):
            fields[name] = check.text(name, values.get(name), 64) or ""
        if fields["session"] and fields["series"]:
            check.fail("series", "unknown_field")
    check.done()
    return fields


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The names of the organisations that the fields name; the provider is the own organisation when none is given. Raises
    `Invalid` for one that does not exist, and for a session or series that families of the division cannot see."""
    named = {"organisation_name": staff.must_exist(fields["organisation"], "organisation")}
    if "what" in fields:
        named["provider"] = fields["provider"] or fields["organisation"]
        named["provider_name"] = staff.must_exist(named["provider"], "provider")
        offered(fields["session"], fields["series"], fields["division"])
    return named


def offered(session: str, series: str, division: str) -> dict[str, Any] | None:
    """The public content of the session or series that is offered to a division; None when neither is given. Raises `Invalid`
    for one that is not public (an invited one is not), not published, or not for families there."""
    for kind, key in (("session", session), ("series", series)):
        if key:
            raw = PublishedRow.rows().find_one({"_id": f"{kind}:{key}:{ANY}"}) or {}
            content: dict[str, Any] = json.loads(raw.get("content") or "{}")
            if content.get("state") != "published":
                raise invalid(kind, "unknown_reference", value=key)
            if not divisions.overlap(division, content["division"]):
                raise invalid(kind, "out_of_range", reason=f"division {content['division']} / {division}")
            return content
    return None


# --- verbs of both ---------------------------------------------------------------------------------------------------

# verb -> (states it starts from, state it leads to)
MOVES: Mapping[type[Listed], Mapping[str, tuple[tuple[str, ...], str]]] = {
    Demand: {
        "publish": (("draft",), "open"),
        "finish": (("answered",), "done"),
        "withdraw": (("open",), "withdrawn"),
        "reopen": (("answered", "declined", "done", "withdrawn"), "open"),
    },
    Task: {
        "publish": (("draft",), "published"),
        "finish": (("published",), "done"),
        "withdraw": (("published",), "withdrawn"),
        "reopen": (("done", "withdrawn"), "published"),
    },
}


def find(cls: type[L], key: str) -> L:
    """The record. Raises `NotFound`."""
    raw = cls.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return cls.of(raw)


def create(
    cls: type[L],
    values: Mapping[str, Any],
    by: str,
    also: Callable[[ClientSession, dict[str, Any]], None] | None = None,
    **more: Any,
) -> L:
    """A draft; `also` as of `records.create`. Raises `Invalid`."""
    fields = checked(cls, values)
    return records.create(cls(id=store.new_id(), **{**fields, **_named(fields), **more}), by, also=also)


def edit(cls: type[L], key: str, values: Mapping[str, Any], by: str, revision: int | None = None) -> L:
    """Set the fields given. Of a public one this is public at once, so the caller asks for the permission to publish; what
    others seconded (FIXED) stays as it is then. Raises `Invalid`, `NotFound`, `Stale`, `Conflict`."""

    def decide(present: L) -> dict[str, Any]:
        if present.state not in {"draft", "open", "published"}:
            raise Conflict("wrong_state", state=present.state, action="edit")
        before = records.values_of(present, FIELDS[cls])
        kept = {name: value for name, value in before.items() if name not in {"first", "last"} or not values.get("month")}
        fields = checked(cls, {**kept, **values})
        changed = {name: value for name, value in fields.items() if value != before[name]}
        if present.state != "draft" and changed.keys() & FIXED:
            raise Conflict(
                "wrong_state", state=present.state, action=Text("更换主题、对象或区域", "change topic, audience or division")
            )
        return changed and {**changed, **_named(fields)}

    return records.change(cls, key, by, "edit", decide, revision=revision, also=_release)


def move(cls: type[L], key: str, verb: str, by: str, settings: Settings, revision: int | None = None, note: str = "") -> L:
    """Take the step `verb` of MOVES; `note` is kept in the trail, and "reopen" needs one. An answer goes when a demand is
    opened again; the trail has it. A second call raises `Conflict`. Also raises `Invalid`, `NotFound`, `Stale`."""
    begins, leads = MOVES[cls][verb]
    if verb == "reopen" and not note.strip():
        raise invalid("note", "required")
    today = _today(settings).isoformat()

    def decide(present: L) -> dict[str, Any]:
        if present.state not in begins:
            raise Conflict("wrong_state", state=present.state, action=verb)
        if verb == "publish" and present.last and present.last < today:
            raise invalid("to", "out_of_range", reason=Text("已经过去，请填以后的日期", "it is in the past; give a day to come"))
        fields: dict[str, Any] = {"state": leads, "listed_on": present.listed_on or today}
        return {**fields, "answer": None} if isinstance(present, Demand) and verb == "reopen" else fields

    return records.change(cls, key, by, verb, decide, revision=revision, note=note.strip(), also=_release)


def remove(cls: type[L], key: str, by: str, revision: int | None = None) -> None:
    """Delete a draft. Raises `NotFound`, `Stale`, `Conflict`."""

    def check(present: L) -> None:
        if present.state != "draft":
            raise Conflict("wrong_state", state=present.state, action="delete")

    records.remove(cls, key, by, check, revision=revision)


def _today(settings: Settings) -> date:
    return store.now().astimezone(ZoneInfo(settings.zone)).date()


def item(present: Listed) -> Item | None:
    """What readers get of it; None of a draft, and a tombstone of what was withdrawn."""
    if present.state == "draft":
        return None
    content = {
        "id": present.id,
        "state": present.state,
        **records.values_of(present, FIELDS[type(present)]),
        "organisation_name": present.organisation_name,
        "listed_on": present.listed_on,
    }
    shown = content if present.state != "withdrawn" else None
    if isinstance(present, Demand):
        content["from_families"] = present.from_families
        content["seconds"] = [dict(row) for row in present.seconds]
        content["families_at_least"] = step(present.families)
        content["answer"] = dict(present.to_mongo().to_dict().get("answer") or {})
        return Item("demand", present.id, ANY, shown)
    content["provider_name"] = present.provider_name
    return Item("task", present.id, ANY, shown)


def step(families: int) -> int:
    """The number as it is told: 0 below ten, else whole tens."""
    return families // STEP * STEP


def _release(tx: ClientSession, changed: Listed) -> None:
    if (shown := item(changed)) is not None:
        release(tx, [shown])


# --- seconding and answering -----------------------------------------------------------------------------------------


def second(key: str, organisation: str, by: str, *, back: bool = False) -> Demand:
    """Put an organisation behind an open demand, or with `back` take it away. A second call changes nothing. Raises `NotFound`
    (of a draft and of a withdrawn one too), `Invalid` for the asker itself, `Conflict` when it is not open."""
    name = staff.must_exist(organisation, "organisation")

    def decide(present: Demand) -> dict[str, Any]:
        if present.state in {"draft", "withdrawn"}:
            raise NotFound(what=key)
        rows = [dict(row) for row in present.seconds]
        there = [row for row in rows if row["organisation"] == organisation]
        if bool(there) != back:
            return {}
        if present.state != "open" or len(rows) >= MOST_SECONDS + back:
            raise Conflict("wrong_state", state=present.state, action="second")
        if organisation == present.organisation:
            raise invalid("organisation", "own_demand")
        return {
            "seconds": [row for row in rows if row not in there]
            if back
            else [*rows, {"organisation": organisation, "name": name}]
        }

    return records.change(Demand, key, by, "take_back" if back else "second", decide, also=_release)


def second_as_family(settings: Settings, key: str, nonce: str) -> bool:
    """Count one more family behind an open demand. True: now; False: this nonce was counted for it before. What that is worth,
    the module says. Raises `Invalid` (the nonce's form, not of today), `NotFound`, `Conflict` when it is not open."""
    gone = midnight(settings, counting.day_of(settings, nonce))
    name = counting.blind(settings, "demand second", f"{key}\n{nonce}")

    def work(tx: ClientSession) -> None:
        FamilySecond.rows().insert_one({"_id": name, "expires_at": gone}, session=tx)
        match = {"_id": key, "state": "open"}
        raw = Demand.rows().find_one_and_update(
            match, {"$inc": {"families": 1}}, session=tx, return_document=ReturnDocument.AFTER
        )
        if raw is None:
            present = Demand.rows().find_one({"_id": key}, {"state": 1}, session=tx)
            if present is None or present["state"] in {"draft", "withdrawn"}:
                raise NotFound(what=key)
            raise Conflict("wrong_state", state=present["state"], action="second")
        if step(raw["families"]) != step(raw["families"] - 1):
            _release(tx, Demand.of(raw))

    try:
        store.transaction(work)
    except DuplicateKeyError:
        return False
    return True


def midnight(settings: Settings, day: date, days: int = 1) -> datetime:
    """The local midnight that ends the day, or so many days later, in UTC."""
    return datetime.combine(day + timedelta(days=days), time(), ZoneInfo(settings.zone)).astimezone(UTC)


def checked_answer(values: Mapping[str, Any]) -> dict[str, Any]:
    """An answer's fields in their stored form: a session, a series or a time with its provider, and a note; or a reason why
    not, and nothing else. Raises `Invalid`."""
    check = Check()
    check.fields(values, ("session", "series", "first", "last", "month", "provider", "note", "reason"))
    ids = {name: check.text(name, values.get(name), 64) or "" for name in ("session", "series", "provider")}
    days = check.days(values)
    fields = {**ids, **days, "note": check.public("note", values.get("note"), 300)}
    fields["reason"] = check.public("reason", values.get("reason"), 300)
    given = [name for name in ("session", "series", "first", "reason") if fields[name]]
    if len(given) != 1:
        check.fail("answer", "not_one_of", choices="session, series, from + to, reason")
    elif given == ["first"] and not fields["provider"]:
        check.fail("provider", "required")
    elif given == ["reason"] and (fields["provider"] or fields["note"]):
        check.fail("provider" if fields["provider"] else "note", "unknown_field")
    check.done()
    return fields


def answer(key: str, values: Mapping[str, Any], by: str, settings: Settings, revision: int | None = None) -> Demand:
    """Open → answered, or with a `reason` → declined. Of two at once one wins and the other gets `Stale` or `Conflict`. The
    provider is the organiser of the session or series when none is given. Raises `Invalid`, `NotFound`."""
    fields = checked_answer(values)

    def decide(present: Demand) -> dict[str, Any]:
        if present.state != "open":
            raise Conflict("wrong_state", state=present.state, action="answer")
        content = offered(fields["session"], fields["series"], present.division)
        provider = fields["provider"] or (content or {}).get("organisation", "")
        name = staff.must_exist(provider, "provider")
        put = {**fields, "provider": provider, "provider_name": name, "on": _today(settings).isoformat()}
        return {"state": "declined" if fields["reason"] else "answered", "answer": put}

    verb = "decline" if fields["reason"] else "answer"
    return records.change(Demand, key, by, verb, decide, revision=revision, also=_release)

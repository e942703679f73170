"""Volunteers: lecturers and helpers (讲师、志愿者) offer themselves without an account, and staff answer.

A sign-up goes to a division's staff, or to one organisation there: received → approved or declined with a reason; withdrawn by
its volunteer. The code, kept as SHA-256 only, shows how it stands and changes or withdraws it.

Name, telephone and what was written freely are sealed as one. They are erased on withdrawal at once, and with the whole row
within 30 days of a decline or a year in which nobody touched it (`erase`, and the index a day later should no worker run). The
entry in the expert library that was made of it goes on a decline, a withdrawal or an erasure, at once and from readers too; so
the index leaves a row that still has one to `erase`. Each erasure leaves a line in the trail, which says that it took place and
nothing of whom; the tally of hours given stays.

One telephone signs up once with an addressee and kind, and no answer tells whether it has: a repeat gets a code of its own that
opens a row which staff do not see; they see on the first that there was a repeat, and whatever they decide, each time, is told to
both. Once the first is withdrawn or over, its oldest repeat takes its place, received anew: whoever typed a telephone before its
owner did cannot make the owner's offer vanish. Anyone can type a telephone, so the code of a repeat proves nothing of whose the
first is: it changes and withdraws the repeat alone, as the first one's code does the first. That this is so stands in every
answer in the same words (`api.volunteers.NOTES`), whether there is another or not. What a volunteer does leaves no line
in the trail (anyone could fill it) but for the erasure.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
from pymongo.client_session import ClientSession

from content import codes, languages, lecturers, phones, records, sealed, staff, store
from content.checking import Check
from content.courses import CourseSession
from content.failures import Conflict, NotFound, Text, invalid, said
from content.lecturers import Lecturer
from content.vocabulary import TOPICS, VOLUNTEERS

SELF = "volunteer"  # who acts where a volunteer does; no account has this id
YEAR = timedelta(days=364)  # untouched; and of what is over: each a day less than promised, left for the purge
OVER = timedelta(days=29)
MOST_GIVEN = 500  # times of one volunteer
NAME, FIELD, MESSAGE, REASON = 40, 300, 1000, 500  # characters


class Volunteer(records.Record):
    """One sign-up."""

    code = me.StringField(required=True)
    """SHA-256 of the code."""
    claim = me.BinaryField()
    """Blind text of kind, addressee and telephone; absent once erased, and of a repeat."""
    repeat_of = me.StringField()
    """Of a repeat: the id of the first."""
    repeats = me.IntField(required=True, default=0)
    person = me.BinaryField()
    """Sealed JSON {"name", "phone" (E.164), "field", "message"}; absent once erased."""
    kind = me.StringField(required=True)
    """A code of vocabulary.VOLUNTEERS."""
    division = me.StringField(required=True)
    organisation = me.StringField(required=True, default="")
    """Whom they offer themselves to; "": to the division's own staff."""
    topics = me.ListField()
    languages = me.ListField()
    hours_a_month = me.IntField(required=True)
    """Hours offered."""
    state = me.StringField(required=True, choices=("received", "approved", "declined", "withdrawn"), default="received")
    reason = me.BinaryField()
    """Sealed: why it was declined."""
    given = me.ListField()
    """[{"id", "date" (local, ISO), "hours", "session" (id or "")}]"""
    lecturer = me.StringField()
    """Id of the entry in the expert library that was made of it."""
    expires_at = me.DateTimeField(required=True)

    NAME = "volunteer"
    PERSONAL = frozenset({"code", "claim", "person", "reason", "given"})
    meta: ClassVar[dict[str, Any]] = {
        "collection": "volunteers",
        "indexes": [
            {"fields": ["code"], "unique": True},
            {"fields": ["claim"], "unique": True, "sparse": True},
            {"fields": ["repeat_of"]},
            {"fields": ["expires_at"], "expireAfterSeconds": 86400, "partialFilterExpression": {"lecturer": None}},
        ],
    }

    def hours(self) -> float:
        """Sum of what was given."""
        return sum(float(one["hours"]) for one in self.given)


class Hours(store.Row):
    """Hours given in one year to one addressee by volunteers of one kind: it stays when they are erased."""

    organisation = me.StringField(required=True)
    division = me.StringField(required=True)
    kind = me.StringField(required=True)
    year = me.IntField(required=True)
    hours = me.FloatField(required=True)
    times = me.IntField(required=True)

    meta: ClassVar[dict[str, Any]] = {"collection": "volunteer_hours", "indexes": [{"fields": ["division", "year"]}]}


class Person(NamedTuple):
    """What is sealed."""

    name: str
    phone: str
    field: str
    message: str


class Entry(NamedTuple):
    """A sign-up as staff see it."""

    record: Volunteer
    person: Person
    reason: str


# --- the volunteer's side --------------------------------------------------------------------------------------------

OFFER = ("topics", "languages", "hours_a_month")
WORDS = {"name": NAME, "field": FIELD, "message": MESSAGE}


def _checked(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(what is offered, the words to be sealed). Raises `Invalid` with every fault."""
    check = Check()
    offer = {
        "topics": check.codes("topics", values.get("topics"), TOPICS),
        "languages": [check.language("languages", v) for v in check.rows("languages", values.get("languages"), 20)],
        "hours_a_month": check.whole("hours_a_month", values.get("hours_a_month"), 1, 200),
    }
    if values.get("hours_a_month") is None:
        check.fail("hours_a_month", "required")
    words = {name: check.text(name, values.get(name), most, name == "name") or "" for name, most in WORDS.items()}
    words["name"], words["field"] = (languages.one_line(words[name]) for name in ("name", "field"))
    if values.get("name") and not words["name"]:
        check.fail("name", "required")
    check.done()
    return offer, words


def sign_up(values: Mapping[str, Any], key: str | None = None) -> tuple[str, Volunteer]:
    """(code, sign-up). `values`: name, phone, kind, division, organisation ("" or an id), field, topics, languages,
    hours_a_month, message. A telephone that has signed up for the same gets an answer of the same shape. With `key` (an
    Idempotency-Key) a repeat gives the same code and the sign-up as it now is. Raises `Invalid`."""
    offer, words = _checked(values)
    check = Check()
    to = {
        "kind": check.coded("kind", values.get("kind"), VOLUNTEERS),
        "division": check.division("division", values.get("division") or ""),
        "organisation": str(values.get("organisation") or ""),
    }
    check.done()
    staff.must_exist(to["organisation"])
    number = phones.number(str(values.get("phone")))
    code = codes.repeatable("volunteer code", key, *to.values(), number)
    claim = sealed.blind("\n".join((*to.values(), number)))
    person = sealed.seal(json.dumps({**words, "phone": number}, ensure_ascii=False))

    def work(tx: ClientSession) -> Volunteer:
        if again := Volunteer.rows().find_one({"code": codes.name(code)}, session=tx):
            return Volunteer.of(again)
        made = Volunteer(code=codes.name(code), created_by=SELF, expires_at=store.now() + YEAR, **to, **offer)
        first = Volunteer.rows().find_one_and_update({"claim": claim}, {"$inc": {"repeats": 1}}, {"_id": 1}, session=tx)
        made.person = person
        if first is None:
            made.claim = claim
        else:
            made.repeat_of = first["_id"]
        Volunteer.rows().insert_one(made.to_mongo().to_dict(), session=tx)
        return made

    return code, store.transaction_or_again(work)  # the same may come twice at one moment


def _by_code(code: str, tx: ClientSession | None = None) -> Volunteer:
    raw = Volunteer.rows().find_one({"code": codes.name(code)}, session=tx)
    if raw is None:
        raise NotFound(what="volunteer")
    return Volunteer.of(raw)


def see(code: str) -> tuple[Volunteer, str]:
    """The sign-up of a code, and the reason when it was declined. Raises `NotFound`, also for a text that is no code."""
    found = _by_code(code)
    return found, _opened(found.reason)


def change(code: str, values: Mapping[str, Any]) -> Volunteer:
    """Set the parts given of what is offered (topics, languages, hours_a_month) and said (name, field, message). Telephone, kind
    and addressee stay: another one is another sign-up. Raises `NotFound`, `Invalid`, `Conflict` once declined or withdrawn."""

    def work(tx: ClientSession) -> Volunteer:
        present = _by_code(code, tx)
        if present.state not in {"received", "approved"}:
            raise Conflict("wrong_state", state=present.state, action="edit")
        known = _person(present)
        before = {**(known._asdict() if known else {"name": "-"}), **{name: getattr(present, name) for name in OFFER}}
        offer, words = _checked({**before, **values})
        put: dict[str, Any] = {**offer, "updated_at": store.now(), "expires_at": store.now() + YEAR}
        if known:
            put["person"] = sealed.seal(json.dumps({**words, "phone": known.phone}, ensure_ascii=False))
        Volunteer.rows().update_one({"_id": present.id}, {"$set": put, "$inc": {"revision": 1}}, session=tx)
        return _by_code(code, tx)

    return store.transaction(work)


def withdraw(code: str) -> Volunteer:
    """Take this sign-up back and erase the person at once, with the entry in the expert library that was made of it. Of a repeat
    it takes back the repeat only: whoever typed the telephone holds its code, perhaps a stranger. The code says "withdrawn" for a
    month more. A second call changes nothing and answers the same. Raises `NotFound`."""

    def work(tx: ClientSession) -> Volunteer:
        present = _by_code(code, tx)
        if present.state == "withdrawn":
            return present
        put = {"state": "withdrawn", "updated_at": store.now(), "expires_at": store.now() + OVER}
        gone = dict.fromkeys(("claim", "person", "reason", "given", "lecturer"), "")
        Volunteer.rows().update_one({"_id": present.id}, {"$set": put, "$unset": gone, "$inc": {"revision": 1}}, session=tx)
        if present.claim:
            _follow(tx, str(present.id), present.claim, store.now())
        if present.lecturer:
            lecturers.let_go(tx, present.lecturer, SELF)
        if present.person:
            records.trail(tx, Volunteer, str(present.id), SELF, "erase", {}, {}, note="withdrawn")
        return _by_code(code, tx)

    return store.transaction(work)


def _follow(tx: ClientSession, first: str, claim: bytes, at: datetime) -> None:
    """Put the oldest repeat of a sign-up that is gone in its place, received anew: staff have not seen it yet."""
    left = {"repeat_of": first, "state": {"$ne": "withdrawn"}, "person": {"$exists": True}, "expires_at": {"$gt": at}}
    rows = list(Volunteer.rows().find(left, {"_id": 1}, session=tx).sort([("created_at", 1), ("_id", 1)]))
    if not rows:
        return
    key = rows[0]["_id"]
    put = {"claim": claim, "state": "received", "repeats": len(rows) - 1, "updated_at": at, "expires_at": at + YEAR}
    change = {"$set": put, "$unset": {"repeat_of": "", "reason": ""}, "$inc": {"revision": 1}}
    Volunteer.rows().update_one({"_id": key}, change, session=tx)
    Volunteer.rows().update_many({"repeat_of": first}, {"$set": {"repeat_of": key}}, session=tx)


def erase(at: datetime) -> int:
    """Delete what expired by `at`, with the entries in the expert library that were made of it, each person with a proof line in
    the trail; how many rows. A second call deletes nothing."""
    parts = {"state": 1, "person": 1, "lecturer": 1, "claim": 1}

    def work(tx: ClientSession) -> int:
        due = list(Volunteer.rows().find({"expires_at": {"$lte": at}}, parts, session=tx).limit(200))
        for raw in due:
            Volunteer.rows().delete_one({"_id": raw["_id"]}, session=tx)
            if raw.get("claim"):
                _follow(tx, raw["_id"], raw["claim"], at)
            if raw.get("lecturer"):
                lecturers.let_go(tx, raw["lecturer"], records.SYSTEM)
            if raw.get("person"):
                records.trail(tx, Volunteer, raw["_id"], records.SYSTEM, "erase", {}, {}, note=f"expired, {raw['state']}")
        return len(due)

    return store.until_none(work)


# --- the side of staff -----------------------------------------------------------------------------------------------


def _opened(data: Any) -> str:
    return sealed.unseal(bytes(data)) if data else ""


def _person(present: Volunteer) -> Person | None:
    return Person(**json.loads(_opened(present.person))) if present.person else None


def _entry(raw: dict[str, Any]) -> Entry:
    record = Volunteer.of(raw)
    return Entry(record, _person(record) or Person("", "", "", ""), _opened(record.reason))


def volunteer(key: str) -> Volunteer:
    """The record, still sealed. Raises `NotFound`, also for a repeat."""
    raw = Volunteer.rows().find_one({"_id": key, "repeat_of": None})
    if raw is None:
        raise NotFound(what=key)
    return Volunteer.of(raw)


def read(key: str, by: str) -> Entry:
    """One sign-up with its person; the reading leaves a line in the trail. Raises `NotFound`."""

    def work(tx: ClientSession) -> dict[str, Any]:
        raw: dict[str, Any] | None = Volunteer.rows().find_one({"_id": key, "repeat_of": None}, session=tx)
        if raw is None:
            raise NotFound(what=key)
        records.trail(tx, Volunteer, key, by, "read", {}, {})
        return raw

    return _entry(store.transaction(work))


def register(
    match: Mapping[str, str], may: Callable[[str, str], bool], after: str, limit: int, by: str
) -> tuple[list[Entry], bool]:
    """A page of sign-ups by id, of those whose organisation and division `may` lets pass, and whether there are more. The
    reading leaves one line in the trail, in the same transaction: how many, and nothing of whom."""

    def work(tx: ClientSession) -> list[dict[str, Any]]:
        found = []
        for raw in Volunteer.rows().find({**match, "repeat_of": None, "_id": {"$gt": after}}, session=tx).sort("_id", 1):
            if may(raw["organisation"], raw["division"]):
                found.append(raw)
            if len(found) > limit:
                break
        note = f"{min(len(found), limit)} sign-ups"
        records.trail(tx, Volunteer, match.get("division", ""), by, "read_list", {}, {}, note=note)
        return found

    rows = store.transaction(work)
    return [_entry(raw) for raw in rows[:limit]], len(rows) > limit


def _decided(key: str, by: str, action: str, put: dict[str, Any], revision: int | None) -> Volunteer:
    """Answer a sign-up, and its repeats that were not withdrawn, alike."""
    entries: list[str] = []

    def decide(present: Volunteer) -> dict[str, Any]:
        entries[:] = [present.lecturer] if present.lecturer and put["state"] == "declined" else []
        if present.state == put["state"]:
            return {}
        if present.state == "withdrawn":
            raise Conflict("wrong_state", state=present.state, action="answer")
        fields = {**put, "expires_at": store.now() + (YEAR if put["state"] == "approved" else OVER)}
        return {**fields, "lecturer": None} if entries else fields

    def also(tx: ClientSession, changed: Volunteer) -> None:
        told: dict[str, Any] = {"$set": {"state": changed.state, "expires_at": changed.expires_at}}
        if changed.reason:
            told["$set"]["reason"] = changed.reason
        else:
            told["$unset"] = {"reason": ""}
        Volunteer.rows().update_many({"repeat_of": key, "state": {"$ne": "withdrawn"}}, told, session=tx)
        for entry in entries:
            lecturers.let_go(tx, entry, by)

    return records.change(Volunteer, key, by, action, decide, revision=revision, also=also)


def approve(key: str, by: str, revision: int | None = None) -> Volunteer:
    """Accept an offer, also one that was declined before. Of an approved one a no-op. Raises `NotFound`, `Stale`, `Conflict`
    once withdrawn."""
    return _decided(key, by, "approve", {"state": "approved", "reason": None}, revision)


def decline(key: str, reason: str, by: str, revision: int | None = None) -> Volunteer:
    """Decline with a reason for the volunteer to read (and for whoever repeated the sign-up), also one that was approved before:
    its entry in the expert library goes at once, the rest within 30 days. Of a declined one a no-op. Raises as `approve`."""
    return _decided(key, by, "decline", {"state": "declined", "reason": sealed.seal(reason)}, revision)


def give(key: str, day: date, hours: float, by: str, today: date, session: str = "") -> Volunteer:
    """Note hours (halves, at most 24) that an approved volunteer gave on a local day of the last year, perhaps in a session; a
    second call notes them again. Raises `NotFound`, `Invalid`, `Conflict` from another state."""
    if not today - timedelta(days=366) <= day <= today:
        raise invalid("date", "out_of_range", reason=f"{today - timedelta(days=366)} – {today}")
    if not 0 < hours <= 24 or hours * 2 != int(hours * 2):
        raise invalid("hours", "out_of_range", reason=Text("请填 0.5–24，每半小时一档", "0.5 to 24 in half hours"))
    if session and CourseSession.rows().find_one({"_id": session}, {"_id": 1}) is None:
        raise invalid("session", "unknown_reference", value=session)
    line = {"id": store.new_id(), "date": day.isoformat(), "hours": hours, "session": session}

    def decide(present: Volunteer) -> dict[str, Any]:
        if present.state != "approved":
            raise Conflict("wrong_state", state=present.state, action=Text("登记时数", "note hours"))
        if len(present.given) >= MOST_GIVEN:
            raise invalid("given", "out_of_range", reason=f"≤ {MOST_GIVEN}")
        return {"given": [*present.given, line], "expires_at": store.now() + YEAR}

    def also(tx: ClientSession, changed: Volunteer) -> None:
        _tally(tx, changed, line, 1)

    return records.change(Volunteer, key, by, "give", decide, note=f"{hours:g} h, {day}", also=also)


def take_back(key: str, line: str, by: str, revision: int | None = None) -> Volunteer:
    """Strike out hours that were noted wrongly, from the tally too. Raises `NotFound`, `Stale`."""
    struck: dict[str, Any] = {}

    def decide(present: Volunteer) -> dict[str, Any]:
        struck.update(next((one for one in present.given if one["id"] == line), {}))
        if not struck:
            raise NotFound(what=line)
        return {"given": [one for one in present.given if one["id"] != line]}

    def also(tx: ClientSession, changed: Volunteer) -> None:
        _tally(tx, changed, struck, -1)

    return records.change(Volunteer, key, by, "take_back", decide, revision=revision, also=also)


def _tally(tx: ClientSession, present: Volunteer, line: Mapping[str, Any], sign: int) -> None:
    of = {
        "organisation": present.organisation, "division": present.division, "kind": present.kind, "year": int(line["date"][:4]),
    }  # fmt: skip
    name = ":".join(str(part) for part in of.values())
    more = {"hours": float(sign * line["hours"]), "times": sign}
    Hours.rows().update_one({"_id": name}, {"$setOnInsert": of, "$inc": more}, upsert=True, session=tx)


def tallies() -> list[Hours]:
    """Hours given, by division, organisation, kind and year; of people who are erased too."""
    return [Hours.of(raw) for raw in Hours.rows().find({}).sort([("division", 1), ("organisation", 1), ("kind", 1), ("year", 1)])]


def into_library(key: str, organisation: str, language: str, by: str) -> Lecturer:
    """A draft in the expert library of an approved lecturer, kept by `organisation`: name and field as given (in `language`),
    the telephone sealed as its contact. A second call gives the entry there is. Raises `NotFound`, `Invalid`, `Conflict`."""
    present = volunteer(key)
    known = _person(present)
    if present.kind != "lecturer" or present.state != "approved" or known is None:
        kind, into = VOLUNTEERS[present.kind], Text("列入专家库", "enter into the library")
        state = Text(f"{kind.zh}{said('state', present.state, 'zh')}", f"{kind.en}, {present.state}")
        raise Conflict("wrong_state", state=state, action=into)
    if present.lecturer and (there := Lecturer.rows().find_one({"_id": present.lecturer})):
        return Lecturer.of(there)
    values = {
        "name": {language: known.name}, "field": {language: known.field}, "kind": "volunteer", "topics": list(present.topics),
        "teaches_in": list(present.languages), "organisation": organisation, "division": present.division,
    }  # fmt: skip
    made = lecturers.draft(values, by, known.phone)

    def also(tx: ClientSession, raw: dict[str, Any]) -> None:
        free = {"_id": key, "state": "approved", "lecturer": present.lecturer}
        put = {"$set": {"lecturer": raw["_id"]}, "$inc": {"revision": 1}}
        if not Volunteer.rows().update_one(free, put, session=tx).matched_count:  # someone was faster
            raise Conflict("nothing_to_do", action=Text("列入专家库", "enter into the library"))
        records.trail(tx, Volunteer, key, by, "into_library", {}, {"lecturer": raw["_id"]})

    return records.create(made, by, also=also)

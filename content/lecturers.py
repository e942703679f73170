"""The expert library (专家库; Wuhan, Qingdao): who can give a family-education course, in which field, and at which schools.

An entry is a draft until a second person has read it, always: what a lecturer is said to know is what families trust. So that
it was reviewed is a fact of its being public; by whom and when is kept for staff. An edit of a public entry waits for the next
`publish`, a withdrawn one leaves readers and stays for staff.

Readers get it from the published set. How to reach a lecturer is for the organiser alone: sealed, in no answer but its own,
and each reading of it leaves a line in the trail. Name and profile stand in the entry and not in the trail: a volunteer who goes
takes them along, and the trail forgets nothing.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import mongoengine as me
from pymongo.client_session import ClientSession

from content import records, sealed, staff, store
from content.checking import Check
from content.failures import Conflict, Forbidden, NotFound, Text
from content.published import ANY, Item, PublishedRow, release
from content.vocabulary import LECTURERS, TOPICS

NAME, PROFILE, FIELD = 60, 2000, 300  # characters of a text
CONTACT = 300


class Lecturer(records.Record):
    """One entry, as it is being edited."""

    name = me.DictField(required=True)
    """Language tag -> text, as the next three."""
    profile = me.DictField()
    field = me.DictField()
    """What the lecturer speaks about, in words; `topics` in codes."""
    workplace = me.DictField()
    """The hospital, university, school … where the lecturer works, in words: most are no organisation of this service."""
    kind = me.StringField(required=True)
    """A code of vocabulary.LECTURERS."""
    topics = me.ListField()
    teaches_in = me.ListField()
    """Language tags."""
    organisation = me.StringField(required=True)
    """Id of the organisation that keeps the entry."""
    division = me.StringField(required=True)
    """Where the lecturer comes to: this division and all below it."""
    paired_schools = me.ListField()
    """Ids of organisations (专家与学校结对)."""
    contact = me.BinaryField()
    """Sealed: telephone or another way to be reached; absent when none is known."""
    state = me.StringField(required=True, choices=("draft", "published", "withdrawn"), default="draft")
    authors = me.ListField()
    """Who wrote what it says now: everyone who edited since the last publication, else those who wrote what is public."""
    approved_by = me.StringField()
    """The second person, until the next edit or publication."""
    reviewed_by = me.StringField()
    """The second person of what readers see or saw last."""
    reviewed_at = me.DateTimeField()
    published_revision = me.IntField()
    """The revision that readers see; absent when they see none."""

    NAME = "lecturer"
    PERSONAL = frozenset({"name", "profile", "contact"})
    meta: ClassVar[dict[str, Any]] = {"collection": "lecturers", "indexes": [{"fields": ["organisation"]}]}


TEXTS = {"name": NAME, "profile": PROFILE, "field": FIELD, "workplace": FIELD}
"""Fields in several languages, with the most characters of a text."""
FIELDS = (*TEXTS, "kind", "topics", "teaches_in", "organisation", "division", "paired_schools")


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's fields in their stored form; that organisations exist is asked elsewhere. Raises `Invalid` with every fault."""
    check = Check()
    check.fields(values, FIELDS)
    fields = {
        **{name: check.texts(name, values.get(name), most, required=name == "name") for name, most in TEXTS.items()},
        "kind": check.coded("kind", values.get("kind"), LECTURERS),
        "topics": check.codes("topics", values.get("topics"), TOPICS),
        "teaches_in": [check.language("teaches_in", v) for v in check.rows("teaches_in", values.get("teaches_in"))],
        "organisation": check.text("organisation", values.get("organisation"), 64, required=True) or "",
        "division": check.division("division", values.get("division") or ""),
        "paired_schools": [
            check.text(f"paired_schools.{n}", v, 64, required=True) or ""
            for n, v in enumerate(check.rows("paired_schools", values.get("paired_schools"), 200))
        ],
    }
    check.done()
    for name in ("teaches_in", "paired_schools"):
        fields[name] = list(dict.fromkeys(fields[name]))
    return fields


def _known(fields: Mapping[str, Any]) -> None:
    """Raises `Invalid` for an organisation or a school that does not exist."""
    staff.must_exist(fields["organisation"])
    for n, school in enumerate(fields["paired_schools"]):
        staff.must_exist(school, f"paired_schools.{n}")


def lecturer(key: str) -> Lecturer:
    """The working copy. Raises `NotFound`."""
    raw = Lecturer.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return Lecturer.of(raw)


def draft(values: Mapping[str, Any], by: str, contact: str = "") -> Lecturer:
    """A new entry, not stored yet: `records.create` does that. Raises `Invalid`."""
    fields = checked(values)
    _known(fields)
    return Lecturer(authors=[by], contact=sealed.seal(contact) if contact else None, **fields)


def create(values: Mapping[str, Any], by: str) -> Lecturer:
    """A draft. Raises `Invalid`."""
    return records.create(draft(values, by), by)


def edit(key: str, values: Mapping[str, Any], by: str, revision: int | None = None) -> Lecturer:
    """Set the fields given; readers see them after the next publication, and an approval is void. Values that are there
    already change nothing. Organisation and division are fixed once it was published: who may do what hangs on them. Raises
    `Invalid`, `NotFound`, `Stale`, `Conflict`."""

    def decide(present: Lecturer) -> dict[str, Any]:
        before = records.values_of(present, FIELDS)
        wanted = checked({**before, **values})
        _known(wanted)
        fields = {k: v for k, v in wanted.items() if v != before[k]}
        if present.state != "draft" and fields.keys() & {"organisation", "division"}:
            raise Conflict("wrong_state", state=present.state, action=Text("更换机构或区域", "change organisation or division"))
        authors = [] if present.published_revision == present.revision else present.authors
        return fields and {**fields, "authors": sorted({*authors, by}), "approved_by": None}

    return records.change(Lecturer, key, by, "edit", decide, revision=revision)


def put_contact(key: str, contact: str, by: str, revision: int | None = None) -> Lecturer:
    """Set how the lecturer is reached; "" erases it. It is not published, so it needs no second person and voids no approval;
    the same text again changes nothing. Raises `Invalid`, `NotFound`, `Stale`."""
    check = Check()
    text = check.text("contact", contact, CONTACT) or ""
    check.done()

    def decide(present: Lecturer) -> dict[str, Any]:
        if text == (sealed.unseal(present.contact) if present.contact else ""):
            return {}
        fields: dict[str, Any] = {"contact": sealed.seal(text) if text else None}
        if present.published_revision == present.revision:  # readers see all that there is to see
            fields["published_revision"] = present.revision + 1
        return fields

    return records.change(Lecturer, key, by, "put_contact", decide, revision=revision)


def read_contact(key: str, by: str) -> str:
    """How the lecturer is reached, "" when nobody knows. The reading leaves a line in the trail. Raises `NotFound`."""

    def work(tx: ClientSession) -> dict[str, Any]:
        raw: dict[str, Any] | None = Lecturer.rows().find_one({"_id": key}, {"contact": 1}, session=tx)
        if raw is None:
            raise NotFound(what=key)
        records.trail(tx, Lecturer, key, by, "read_contact", {}, {})
        return raw

    data = store.transaction(work).get("contact")
    return sealed.unseal(data) if data else ""


def approve(key: str, by: str, revision: int | None = None) -> Lecturer:
    """A second person's word for the entry as it now is, so that whoever wrote it may publish it. A second approval changes
    nothing. Raises `Forbidden("second_person")`, `Conflict` when readers see it as it is, `NotFound`, `Stale`."""

    def decide(present: Lecturer) -> dict[str, Any]:
        if present.published_revision == present.revision:
            raise Conflict("nothing_to_do", action="approve")
        if not staff.second(present.authors, by):
            raise Forbidden("second_person")
        return {} if present.approved_by else {"approved_by": by}

    return records.change(Lecturer, key, by, "approve", decide, revision=revision)


def publish(key: str, by: str, revision: int | None = None) -> Lecturer:
    """Let readers see the entry as it now is. Of what they see already, a no-op.

    Someone who neither wrote it nor has an account made by one who did has approved it, or is the one who publishes: else
    `Forbidden("second_person")`. Raises `Conflict("incomplete")` without a field, `NotFound`, `Stale`.
    """

    def decide(present: Lecturer) -> dict[str, Any]:
        if present.published_revision == present.revision:
            return {}
        if not present.field:
            raise Conflict("incomplete", missing="field")
        if not present.approved_by and not staff.second(present.authors, by):
            raise Forbidden("second_person")
        return {
            "state": "published", "approved_by": None, "reviewed_by": present.approved_by or by, "reviewed_at": store.now(),
            "published_revision": present.revision + 1,
        }  # fmt: skip

    def also(tx: ClientSession, changed: Lecturer) -> None:
        release(tx, [_item(tx, changed)])

    return records.change(Lecturer, key, by, "publish", decide, revision=revision, also=also)


def withdraw(key: str, by: str, revision: int | None = None, note: str = "") -> Lecturer:
    """Take the entry from readers; the record stays, and is published again as a new one is: by a second person. `note`, why,
    goes into the trail. Raises `NotFound`, `Stale`, `Conflict` when it is not public."""

    def decide(present: Lecturer) -> dict[str, Any]:
        if present.state != "published":
            raise Conflict("wrong_state", state=present.state, action="withdraw")
        return {"state": "withdrawn", "published_revision": None, "approved_by": None}

    def also(tx: ClientSession, changed: Lecturer) -> None:
        release(tx, [Item("lecturer", key, ANY, None)])

    return records.change(Lecturer, key, by, "withdraw", decide, revision=revision, note=note, also=also)


def remove(key: str, by: str, revision: int | None = None) -> None:
    """Delete an entry that readers do not see. Sessions keep the name that they copied. Raises `NotFound`, `Stale`,
    `Conflict`."""

    def check(present: Lecturer) -> None:
        if present.state == "published":
            raise Conflict("wrong_state", state=present.state, action="delete")

    records.remove(Lecturer, key, by, check, revision=revision)


def let_go(tx: ClientSession, key: str, by: str) -> None:
    """Delete the entry of someone who does not want to be in it any more, also from readers, in `tx`; of none a no-op."""
    raw = Lecturer.rows().find_one({"_id": key}, session=tx)
    if raw is None:
        return
    Lecturer.rows().delete_one({"_id": key}, session=tx)
    records.trail(tx, Lecturer, key, by, "remove", raw, {})
    if raw["state"] == "published":
        release(tx, [Item("lecturer", key, ANY, None)])


def _item(tx: ClientSession, present: Lecturer) -> Item:
    """What readers get: all but the contact and who wrote and read it; schools by id and name."""
    content = {"id": present.id, **records.values_of(present, FIELDS)}
    found = staff.Organisation.rows().find({"_id": {"$in": content["paired_schools"]}}, {"name": 1}, session=tx)
    names = {raw["_id"]: raw["name"] for raw in found}
    content["paired_schools"] = [{"id": key, "name": names.get(key, "")} for key in content["paired_schools"]]
    return Item("lecturer", present.id, ANY, content)


def named(key: str) -> dict[str, dict[str, str]]:
    """{"name": {language: text}, "field": {language: text}} of an entry as readers see it: what a session copies. Raises
    `NotFound`, also for a draft, which nobody has reviewed."""
    raw = PublishedRow.rows().find_one({"_id": f"lecturer:{key}:{ANY}"}, {"content": 1})
    if raw is None or raw["content"] is None:
        raise NotFound(what=key)
    content = json.loads(raw["content"])
    return {"name": content["name"], "field": content["field"]}

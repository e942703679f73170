"""What a family would like to have: a topic, a stage, a time, perhaps a sentence, and nothing of who they are.

Staff alone see it, in a list; they make a demand of it in their own words, or drop it. The sentence is sealed before it reaches
the database, refused when it holds what looks like a telephone or identity number, never copied into a demand or the trail, and
gone with the rest after KEEP days. Kept is the local day, not the moment. The phone's nonce (see `counting`) makes a repeat
after a lost answer safe; only its keyed hash is kept, as the row's id.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, ClassVar

import mongoengine as me
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError

from content import counting, demands, divisions, records, sealed, store
from content.demands import Demand
from content.failures import NotFound, TooMany, invalid
from content.publicwords import Check
from content.settings import Settings
from content.vocabulary import TIMES, TOPICS

KEEP = 180  # days
LONGEST = 200  # characters
MOST = 2_000  # of one division; beyond it staff have not read for months, or a machine writes


class Suggestion(store.Row):
    """`_id` is the keyed hash of a nonce."""

    division = me.StringField(required=True)
    topic = me.StringField(required=True)
    stage = me.StringField()
    """Text of vocabulary.Stage; "" for none."""
    time = me.StringField()
    """A code of vocabulary.TIMES; "" for none."""
    text = me.BinaryField()
    """Sealed; absent for none."""
    day = me.StringField(required=True)
    """The local day on which it came."""
    expires_at = me.DateTimeField(required=True)
    """Erased by the index: a local midnight, the same for all of a day."""

    meta: ClassVar[dict[str, Any]] = {
        "collection": "suggestions",
        "indexes": [{"fields": ["division", "day"]}, {"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


def suggest(settings: Settings, nonce: str, values: Mapping[str, Any]) -> bool:
    """Keep a suggestion for staff. True: now; False: this nonce was taken before. Raises `Invalid` (also for a division outside
    the service's own, and for a number in the text), `TooMany` when MOST of one division wait."""
    day = counting.day_of(settings, nonce)
    check = Check()
    check.fields(values, ("division", "topic", "stage", "time", "text"))
    division = check.division("division", values.get("division") or "")
    text = check.text("text", values.get("text"), LONGEST) or ""
    check.numberless("text", text)
    row = {
        "_id": counting.blind(settings, "suggestion", nonce),
        "division": division,
        "topic": check.coded("topic", values.get("topic"), TOPICS),
        "stage": "".join(check.stages([values["stage"]], "stage")) if values.get("stage") else "",
        "time": check.coded("time", values["time"], TIMES) if values.get("time") else "",
        "day": day.isoformat(),
        "expires_at": demands.midnight(settings, day, KEEP),
    }
    check.done()
    if not divisions.within(division, settings.division):
        raise invalid("division", "not_one_of", choices=settings.division)
    if Suggestion.rows().count_documents({"division": division}, limit=MOST) >= MOST:
        raise TooMany(retry_after=86400)
    try:
        Suggestion.rows().insert_one({**row, "text": sealed.seal(text)} if text else row)
    except DuplicateKeyError:
        return False
    return True


def listed(after: tuple[str, str] = ("", "")) -> Iterator[dict[str, Any]]:
    """Suggestions by day and id, oldest first, those after `after`, as staff see them."""
    day, key = after
    for raw in Suggestion.rows().find({"day": {"$gte": day}}).sort([("day", 1), ("_id", 1)]):
        if (raw["day"], raw["_id"]) > (day, key):
            yield shown(raw)


def shown(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A stored row as staff see it: {"id", "division", "topic", "stage", "time", "day", "text"}, "" for what was not said."""
    plain = {name: raw.get(name) or "" for name in ("division", "topic", "stage", "time", "day")}
    return {"id": raw["_id"], **plain, "text": sealed.unseal(raw["text"]) if raw.get("text") else ""}


def find(key: str) -> dict[str, Any]:
    """One suggestion as staff see it. Raises `NotFound`."""
    raw = Suggestion.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return shown(raw)


def _gone(tx: ClientSession, key: str) -> None:
    """Delete it inside a transaction, or raise `NotFound`: of two who take one suggestion, one makes a demand of it."""
    if not Suggestion.rows().delete_one({"_id": key}, session=tx).deleted_count:
        raise NotFound(what=key)


def take(key: str, values: Mapping[str, Any], by: str) -> Demand:
    """Make a draft demand of it, in the words of `values` (those of `demands.create`; topic, stage and division are the
    suggestion's where not given), and erase it. Raises `NotFound`, also for the second of two at once, and `Invalid`."""
    asked = find(key)
    given = {"topic": asked["topic"], "division": asked["division"], "stages": [asked["stage"]] if asked["stage"] else []}
    return demands.create(Demand, {**given, **values}, by, from_families=True, also=lambda tx, _: _gone(tx, key))


def drop(key: str, by: str) -> None:
    """Erase it; the trail keeps that it was done, and nothing of what it said. A second call raises `NotFound`."""

    def work(tx: ClientSession) -> None:
        _gone(tx, key)
        records.trail(tx, Demand, key, by, "drop_suggestion", {}, {})

    store.transaction(work)


def drop_day(day: date, division: str, by: str) -> int:
    """Erase all of one local day and division, how many; one line in the trail. A second call erases none."""

    def work(tx: ClientSession) -> int:
        due = [raw["_id"] for raw in Suggestion.rows().find({"division": division, "day": str(day)}, {"_id": 1}, session=tx)]
        if due:
            Suggestion.rows().delete_many({"_id": {"$in": due}}, session=tx)
            records.trail(tx, Demand, division, by, "drop_suggestions", {}, {}, note=f"{len(due)} of {day}")
        return len(due)

    return store.transaction(work)

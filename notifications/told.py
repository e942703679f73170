"""Which topics were pushed to on a local day, so that no family is called twice on it (`topics.plan`).

A row is written before its message leaves and taken back when the message was refused for certain: a worker that dies between
the two, or an answer that was lost, leaves a topic that counts as told whatever comes later, since it may have been. The notice
that wrote a row is never stopped by it.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

import mongoengine as me
from pymongo import UpdateOne

from content import store

KEEP = timedelta(days=3)


class Told(store.Row):
    """One topic on one day; `_id` is both."""

    day = me.StringField(required=True)
    topic = me.StringField(required=True)
    notice = me.StringField(required=True)
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "told",
        "indexes": [{"fields": ["day"]}, {"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


def on(day: date, but: str) -> list[str]:
    """The topics told on this day by other notices than `but`, in order of their names."""
    rows = Told.rows().find({"day": day.isoformat()}, {"topic": 1, "notice": 1})
    return sorted(row["topic"] for row in rows if row["notice"] != but)


def put(day: date, topics: Sequence[str], notice: str, now: datetime) -> list[str]:
    """Note topics as told. Returns those that were not yet: a second call changes nothing, and one that another notice told stays
    that one's."""
    made = [
        UpdateOne(
            {"_id": f"{day} {topic}"},
            {"$setOnInsert": {"day": day.isoformat(), "topic": topic, "notice": notice, "expires_at": now + KEEP}},
            upsert=True,
        )
        for topic in topics
    ]
    return [topics[number] for number in Told.rows().bulk_write(made, ordered=False).upserted_ids or ()]


def take_back(day: date, topics: Iterable[str], notice: str) -> None:
    """Forget what this notice noted: nobody was told."""
    for topic in topics:
        Told.rows().delete_one({"_id": f"{day} {topic}", "notice": notice})

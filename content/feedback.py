"""Three questions after a session: who answered what cannot be told, and what was said is told to the organiser by fives.

The place remembers THAT its family answered and nothing else. The answers become sums of the session; a comment is sealed and put
among the others in the order of its ciphertext, which is random, and goes when the session's bookings do. No row has an answer
beside a place, a booking, a time or another answer: of one family "5" and "no" go into two different sums.

**Who looks on while it happens.** An organiser who opens the summary before and after one family answered would read that answer
off the difference. So answers wait and enter what is told STEP at a time (`said`), and no number here, not even how many
have answered, moves in between. What is left below a step at the end is never told and goes with the bookings: up to four answers
are lost, which is the price. What this cannot hide: five who all say the same have all said it; an organiser who books under
made-up names and answers four times reads the fifth; a comment may itself show who wrote it (the question says so, and one with a
telephone or identity number in it is refused). And who can read the database itself, as it changes, can watch the sums that wait.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import mongoengine as me
from pymongo.client_session import ClientSession

from content import bookings, languages, sealed, store
from content.bookings import KEEP, Place
from content.courses import CourseSession
from content.failures import Conflict, NotFound, invalid
from content.publicwords import Check
from content.vocabulary import Label

STEP = 5  # answers that are told at once
OPEN = timedelta(days=14)  # after the end
LONGEST = 300  # characters of a comment


class Question(NamedTuple):
    """One question; without options it is answered in words."""

    text: Label
    options: Mapping[str, Label]


QUESTIONS: Mapping[str, Question] = {
    "useful": Question(
        Label("这次活动对您有帮助吗？", "Was this session helpful to you?"),
        {
            "1": Label("没有帮助", "Not at all"),
            "2": Label("帮助不大", "A little"),
            "3": Label("有一些帮助", "Somewhat"),
            "4": Label("比较有帮助", "Quite"),
            "5": Label("很有帮助", "Very"),
        },
    ),
    "try_at_home": Question(
        Label("今天听到的做法，您回家想试一试吗？", "Would you like to try at home what you heard today?"),
        {
            "yes": Label("想试一试", "Yes"),
            "maybe": Label("也许会试", "Perhaps"),
            "no": Label("暂时不试", "Not for now"),
        },
    ),
    "comment": Question(
        Label(
            "还有什么想说的？我们会认真看。（可不填；不记名，请不要写姓名、电话和孩子的情况）",
            "Anything else you would like to tell us? We read every line. (Optional and anonymous: please write no names, "
            "telephone numbers or details of your child.)",
        ),
        {},
    ),
}


class Feedback(store.Row):
    """What was told of one session, `_id`; it stays."""

    counts = me.DictField()
    """Question -> option -> how many."""

    meta: ClassVar[dict[str, Any]] = {"collection": "feedback"}


class Waiting(store.Row):
    """What was said of one session, `_id`, and has to wait or to go: answers not told yet, and the comments."""

    counts = me.DictField()
    """As of `Feedback`, of fewer than STEP answers."""
    unsaid = me.ListField()
    """Sealed comments that wait, in order of their bytes."""
    comments = me.ListField()
    """Sealed comments that are told, in order of their bytes."""
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "feedback_waiting",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


class Said(NamedTuple):
    """What the organiser gets: a multiple of STEP answers."""

    answers: int
    counts: Mapping[str, Mapping[str, int]]
    comments: list[str]


def closes_at(session: CourseSession) -> datetime:
    """Until when it can be given."""
    return session.ends_at + OPEN  # type: ignore[no-any-return]


def is_open(session: CourseSession, state: str, now: datetime) -> bool:
    """Whether a place of this state may answer: confirmed, from the session's start until fourteen days after its end."""
    held = state == "confirmed" and session.state in {"published", "finished"}
    return held and bool(session.starts_at <= now < closes_at(session))


def give(code: str, session_id: str, useful: int, try_at_home: str, comment: str = "") -> None:
    """Take one family's answers. A second call raises `Conflict("feedback_given")` and changes nothing, so a repeat after a lost
    answer learns that the first arrived. Raises `NotFound`, `Invalid`, and `Conflict("feedback_closed")` at other times and for a
    place that is not confirmed."""
    answers = {"useful": str(useful), "try_at_home": try_at_home}
    for name, value in answers.items():
        if value not in QUESTIONS[name].options:
            raise invalid(name, "not_one_of", choices=", ".join(QUESTIONS[name].options))
    words = languages.clean(comment)
    if len(words) > LONGEST:
        raise invalid("comment", "out_of_range", reason=f"≤ {LONGEST}")
    check = Check()
    check.numberless("comment", words)
    check.done()
    secret = sealed.seal(words) if words else None

    def work(tx: ClientSession) -> None:
        raw = bookings.opened(code, tx)
        place = Place.rows().find_one({"booking": raw["_id"], "session": session_id}, session=tx)
        there = CourseSession.rows().find_one({"_id": session_id}, session=tx)
        if place is None or there is None:
            raise NotFound(what=session_id)
        if place.get("feedback"):
            raise Conflict("feedback_given")
        session = CourseSession.of(there)
        if not is_open(session, place["state"], store.now()):
            raise Conflict("feedback_closed")
        _count(tx, session, answers, secret)  # first: two families meet there before either has written anything else
        Place.rows().update_one({"_id": place["_id"]}, {"$set": {"feedback": True}}, session=tx)

    store.transaction_or_again(work)  # two may be the session's first at one moment


def _count(tx: ClientSession, session: CourseSession, answers: Mapping[str, str], secret: bytes | None) -> None:
    """Add one family's answers to those that wait; the last of a step lets all of them out."""
    row = Waiting.rows().find_one({"_id": session.id}, session=tx) or {
        "_id": session.id,
        "counts": {},
        "unsaid": [],
        "comments": [],
    }
    for name, option in answers.items():
        counts = row["counts"].setdefault(name, {})
        counts[option] = counts.get(option, 0) + 1
    if secret:
        row["unsaid"] = sorted([*map(bytes, row["unsaid"]), secret])
    row["expires_at"] = session.ends_at + KEEP
    if sum(row["counts"]["useful"].values()) >= STEP:
        more = {f"counts.{name}.{option}": n for name, counts in row["counts"].items() for option, n in counts.items()}
        Feedback.rows().update_one({"_id": session.id}, {"$inc": more}, upsert=True, session=tx)
        row |= {"counts": {}, "unsaid": [], "comments": sorted([*map(bytes, row["comments"]), *row["unsaid"]])}
    fields = {name: value for name, value in row.items() if name != "_id"}
    Waiting.rows().update_one({"_id": session.id}, {"$set": fields}, upsert=True, session=tx)


def said(session_id: str, now: datetime) -> Said | None:
    """What is told of a session; None while fewer than STEP have answered. Comments are gone with the session's bookings."""
    row = Feedback.rows().find_one({"_id": session_id})
    if row is None:
        return None
    waiting = Waiting.rows().find_one({"_id": session_id, "expires_at": {"$gt": now}}) or {"comments": []}
    counts = {
        name: {option: row["counts"].get(name, {}).get(option, 0) for option in question.options}
        for name, question in QUESTIONS.items()
        if question.options
    }
    return Said(sum(counts["useful"].values()), counts, [sealed.unseal(bytes(one)) for one in waiting["comments"]])

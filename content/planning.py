"""Planning: a recurrence becomes the draft sessions of a series, and whoever plans is told what stands in the way.

All or nothing: every date is checked before the first is written, and all are written in one transaction, each with its line in
the trail. A session's id follows from its series and the local start that the rule gave it, as in `content.schedule`; so a
second run changes nothing, and a date that is moved later is the same session at another time.

What is flagged (holidays, exam days, clashes) is advice and never refuses a plan. Two people who publish at the same moment
may both be told that a room is free: the price of not holding every room and lecturer for each publication.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from content import courses, records, recurrence, sessions, store
from content.courses import CourseSession, Series
from content.failures import FieldError, Invalid, Text
from content.sessions import SESSION_FIELDS
from content.vocabulary import SEASONS
from content.workdays import Flag, flags

SKIPS: Mapping[str, str] = {"holidays": "holiday", "workdays": "workday", "exam_days": "exam_day"}  # what to leave out -> flag
LONGEST = timedelta(days=3)  # a session lasts no longer, so what overlaps a moment began within three days before it
TIMES = ("starts_at", "ends_at", "booking_closes_at")

TEXTS = {
    "exam_day": Text("{date} 正值当地{zh}。", "{date} is among the local exam days: {en}."),
    "exam_day_provisional": Text(
        "{date} 可能正值当地{zh}（日期暂定）。", "{date} may be among the local exam days: {en} (provisional)."
    ),
    "lecturer": Text("讲师“{what}”这个时间在《{title}》（{at}）。", "{what} teaches “{title}” then ({at})."),
    "venue": Text("场地“{what}”这个时间用于《{title}》（{at}）。", "{what} is used by “{title}” then ({at})."),
    "lecturer_taken": Text("讲师“{what}”这个时间已有安排。", "{what} is taken at that time."),
    "venue_taken": Text("场地“{what}”这个时间已有安排。", "{what} is taken at that time."),
    "past": Text("{at} 已经过去。", "{at} is in the past."),
    "fixed": Text(
        "这一场已是“{state}”，与计划不同。请直接修改该场次。", "It is {state} and differs from the plan. Edit the session itself."
    ),
}

ExamDays = Callable[[date], Sequence[tuple[str, bool]]]
"""Which exam seasons a local day falls into: code of vocabulary.SEASONS, and whether the date is provisional."""
ExamsOf = Callable[[str], ExamDays]
"""The exam days of a division."""


def no_exams(division: str) -> ExamDays:
    """Of the command line, which reads no published dates."""
    return lambda day: ()


class Clash(NamedTuple):
    """Another session that takes the same lecturer or the same room at an overlapping time."""

    kind: str
    """lecturer or venue"""
    what: str
    """Its name."""
    session: CourseSession
    public: bool
    """Readers see the other session, so that its title may be told to anyone."""
    title: dict[str, str]
    """The other session's title by language tag, its series' when it has none."""


class Row(NamedTuple):
    """One date of a plan. `outcome`: new, changed, unchanged, skipped or refused; the reasons of a refusal in `messages`."""

    id: str
    starts_at: datetime
    ends_at: datetime
    outcome: str
    flags: list[Flag]
    clashes: list[Clash]
    messages: list[dict[str, str]]


# --- a term ----------------------------------------------------------------------------------------------------------


def plan(
    series_id: str,
    timing: Mapping[str, Any],
    values: Mapping[str, Any],
    by: str,
    *,
    skip: Collection[str] = (),
    lead: timedelta = timedelta(0),
    exams: ExamsOf = no_exams,
    dry_run: bool = False,
) -> list[Row]:
    """Make the occurrences of `timing` (arguments of `recurrence.occurrences`) draft sessions of a series, with `values` in
    common and booking closing `lead` before each start. Dates with a flag that `skip` names (keys of SKIPS) are left out.

    What stands under the same id is changed while it is a draft, and left when it is the same already: a second run gives
    "unchanged". A date that is past, or that families see and that differs, is refused; then nothing is written, as with
    `dry_run`. Raises `Invalid` (rule, common values, and without `dry_run` each refused row, as "items.N"), `NotFound`,
    `Conflict` (the series is cancelled, or somebody wrote the same session at this moment), `Stale` (cancelled or moved, or a
    session changed, since it was read).
    """
    parent = courses.series(series_id)
    found = recurrence.occurrences(**timing)
    common = {name: value for name, value in values.items() if name not in TIMES}
    common = sessions.known(common, parent)
    there = _there(f"{series_id}~{one.recurrence_id:%Y%m%d-%H%M}" for one in found)
    rows: list[Row] = []
    made: list[CourseSession] = []
    edits: list[tuple[CourseSession, dict[str, Any]]] = []
    drafts: list[CourseSession] = []
    exam_days = exams(parent.division)
    for one in found:
        key = f"{series_id}~{one.recurrence_id:%Y%m%d-%H%M}"
        told = day_flags(one.starts_at.date(), exam_days)
        present = there.get(key)
        times = {"starts_at": one.starts_at, "ends_at": one.ends_at, "booking_closes_at": one.starts_at - lead}
        draft = sessions.draft(parent, {**_standing(present), **common, "zone": timing["zone"], **times}, key)
        fields = records.values_of(draft, SESSION_FIELDS)
        drafts.append(draft)
        outcome, messages = _outcome(present, fields, one.starts_at)
        if {flag.kind for flag in told} & {SKIPS[name] for name in skip}:
            outcome, messages = "skipped", []
        if outcome == "new":
            made.append(draft)
        elif outcome == "changed" and present:
            before = records.values_of(present, SESSION_FIELDS)
            edits.append((present, {name: value for name, value in fields.items() if value != before[name]}))
        rows.append(Row(key, one.starts_at, one.ends_at, outcome, told, [], messages))
    over = {key for key, one in there.items() if one.state not in {"draft", "published"}}
    taken = clashes([draft for draft, row in zip(drafts, rows, strict=True) if row.outcome != "skipped" and row.id not in over])
    rows = [row._replace(clashes=taken.get(row.id, [])) for row in rows]
    if not dry_run:
        refused = [(n, row) for n, row in enumerate(rows) if row.outcome == "refused"]
        if refused:
            raise Invalid([_error(f"items.{n}", text) for n, row in refused for text in row.messages])
        sessions.write([parent], made, edits, by)
    return rows


def _error(field: str, text: Mapping[str, str]) -> FieldError:
    return FieldError(field, "bad_recurrence", {"zh": text["zh-Hans"], "en": text["en"]})


def _there(keys: Iterable[str]) -> dict[str, CourseSession]:
    return {raw["_id"]: CourseSession.of(raw) for raw in CourseSession.rows().find({"_id": {"$in": list(keys)}})}


def _standing(present: CourseSession | None) -> dict[str, Any]:
    """What stands of a session; class-hours that nobody gave are left to follow its length."""
    if present is None:
        return {}
    usual = sessions.usual_hours(present.starts_at, present.ends_at)
    return {**records.values_of(present, SESSION_FIELDS), **({"class_hours": None} if present.class_hours == usual else {})}


def _outcome(present: CourseSession | None, fields: Mapping[str, Any], starts: datetime) -> tuple[str, list[dict[str, str]]]:
    if present and records.values_of(present, SESSION_FIELDS) == fields:
        return "unchanged", []
    if present and present.state != "draft":
        return "refused", [TEXTS["fixed"].fill({"state": present.state})]
    if starts <= store.now():
        return "refused", [TEXTS["past"].fill({"at": f"{starts:%F %R}"})]
    return ("changed" if present else "new"), []


def day_flags(day: date, exam_days: ExamDays) -> list[Flag]:
    """What to know of a local day: holiday, workday or provisional (`content.workdays`), and the exams it falls among."""
    found = flags(day)
    for code, provisional in exam_days(day):
        text = TEXTS["exam_day_provisional" if provisional else "exam_day"]
        found.append(Flag("exam_day", text.fill({"date": day, "zh": SEASONS[code].zh, "en": SEASONS[code].en})))
    return found


# --- clashes ---------------------------------------------------------------------------------------------------------


def clashes_of(session: CourseSession) -> list[Clash]:
    """What takes this session's lecturer or room while it lasts."""
    return clashes([session]).get(session.id, [])


def clashes(wanted: Sequence[CourseSession]) -> dict[str, list[Clash]]:
    """Id of each of these sessions that clashes -> with what: drafts and published sessions of every organisation, and each
    other. They need not be stored; of those that are, what is given counts.

    The same lecturer is the same `lecturer_id`, or the same name where one of the two has no id. The same room is a venue of the
    same name at the same host or the same address; online there is none. Back to back is no clash. Costs one reading of the
    sessions between the first and the last of these, by the index on `starts_at`.
    """
    if not wanted:
        return {}
    low, high = min(one.starts_at for one in wanted) - LONGEST, max(one.ends_at for one in wanted)
    match = {"starts_at": {"$gt": low, "$lt": high}, "state": {"$in": ["draft", "published"]}}
    given = {one.id for one in wanted}
    stored = [
        CourseSession.of(raw) for raw in CourseSession.rows().find(match, dict.fromkeys(_FIELDS, 1)) if raw["_id"] not in given
    ]
    others = sorted([*stored, *wanted], key=lambda one: one.starts_at)
    starts = [one.starts_at for one in others]
    found: dict[str, list[tuple[str, str, CourseSession]]] = {}
    for one in wanted:
        for other in others[bisect_left(starts, one.starts_at - LONGEST) : bisect_left(starts, one.ends_at)]:
            if other.id != one.id and other.ends_at > one.starts_at:
                same = (("lecturer", _lecturer(one, other)), ("venue", _venue(one, other)))
                found.setdefault(one.id, []).extend((kind, what, other) for kind, what in same if what)
    parents = _parents({other.series for rows in found.values() for _, _, other in rows})
    return {key: [_clash(parents, *row) for row in rows] for key, rows in found.items() if rows}


_FIELDS = (
    "series", "organisation", "division", "invited", "starts_at", "ends_at", "zone", "place", "title", "venue", "lecturer",
    "lecturer_id", "host", "state",
)  # fmt: skip


def _parents(keys: Collection[str]) -> dict[str, dict[str, Any]]:
    if not keys:
        return {}
    return {raw["_id"]: raw for raw in Series.rows().find({"_id": {"$in": sorted(keys)}}, {"texts": 1})}


def _clash(parents: Mapping[str, Mapping[str, Any]], kind: str, what: str, other: CourseSession) -> Clash:
    parent = parents.get(other.series, {})
    title = dict(other.title) or {tag: texts["title"] for tag, texts in parent.get("texts", {}).items()}
    public = other.state == "published" and not other.invited
    return Clash(kind, what, other, public, title)


def _names(texts: Mapping[str, str] | None) -> dict[str, str]:
    """What stands in each language, in a form in which spellings meet -> as written."""
    return {"".join(unicodedata.normalize("NFKC", text).casefold().split()): text for text in (texts or {}).values()}


def _shared(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> str:
    mine, theirs = _names(one), _names(other)
    return next((text for name, text in mine.items() if name in theirs), "")


def _lecturer(one: CourseSession, other: CourseSession) -> str:
    """The name of the lecturer that both have; "" when they have none in common."""
    if one.lecturer_id and other.lecturer_id:
        named = next(iter((one.lecturer or other.lecturer).get("name", {}).values()), one.lecturer_id)
        return named if one.lecturer_id == other.lecturer_id else ""
    return _shared((one.lecturer or {}).get("name"), (other.lecturer or {}).get("name"))


def _venue(one: CourseSession, other: CourseSession) -> str:
    """The name of the room that both have; "" when they have none in common."""
    if "online" in (one.place, other.place):
        return ""
    mine, theirs = one.venue or {}, other.venue or {}
    name = _shared(mine.get("name"), theirs.get("name"))
    addresses = mine.get("address"), theirs.get("address")
    # without a host the organiser's own rooms are meant, unless two addresses say that they are two
    at_home = (one.host or one.organisation) == (other.host or other.organisation)
    apart = all(addresses) and not (one.host and other.host)
    same = _shared(*addresses) if apart or not at_home else True
    return name if same else ""


def told(clash: Clash, readable: bool) -> Flag:
    """What is said of a clash: of a session that the asker may not read and that is not public, only that it is there."""
    if not (readable or clash.public):
        return Flag("clash", TEXTS[f"{clash.kind}_taken"].fill({"what": clash.what}))
    zone = ZoneInfo(clash.session.zone)
    start, end = clash.session.starts_at.astimezone(zone), clash.session.ends_at.astimezone(zone)
    title = clash.title.get("zh-Hans") or next(iter(clash.title.values()), "")
    at = f"{start:%F %R}–{end:%R}" if start.date() == end.date() else f"{start:%F %R} – {end:%F %R}"
    texts = TEXTS[clash.kind]
    both = {"zh-Hans": title, "en": clash.title.get("en") or title}
    return Flag("clash", {tag: texts.fill({"what": clash.what, "title": name, "at": at})[tag] for tag, name in both.items()})


def said(flag: Flag) -> str:
    """A clash in both languages, as the failure "clash" says it."""
    return f"{flag.text['zh-Hans'].rstrip('。')} {flag.text['en'].rstrip('.')}"

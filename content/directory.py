"""The help directory: hotlines and services, with the field names of HSDS (Human Services Data Specification) 3.

Staff put entries as records and publish them; readers get them from the published snapshot: `services` (what serves a division)
with `open_now` (by the hours as recorded). The card beside every risk is `helpcard`, files come in by `directoryfiles`. Hours
that are not recorded are unknown, never assumed, and nothing unknown is ever filtered away: see `left_out`.

Hours are RFC 5545 rules without a start date: FREQ=DAILY, or FREQ=WEEKLY with BYDAY, perhaps UNTIL. Anything else (INTERVAL,
COUNT, BYSETPOS) would need an anchor that a directory does not have, and is refused when put.

Where a service is stands in the entry (`latitude`, `longitude`), so that a phone sorts its division's list by nearness itself:
nothing here takes the coordinates of a person.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from dateutil.rrule import rrulestr
from pymongo.client_session import ClientSession

from content import divisions, languages, records, staff
from content.checking import Check
from content.failures import Conflict, Failure, Forbidden, NotFound, Text
from content.published import ANY, Item, Snapshot, release

log = logging.getLogger("xinqiao.directory")

KINDS = ("hotline", "text", "clinic", "counselling", "information")
"""Hotline: someone who listens. Information: a public line that is no counselling line (12345); listed, not on the help card."""
CALLED = ("hotline", "information")
STALE_AFTER = timedelta(days=180)  # issue 4: an entry not checked for so long is marked to readers and flagged to staff


class Service(records.Record):
    """One hotline or service. Readers see it as it was when last published, not as it is being edited."""

    kind = me.StringField(required=True)
    name = me.DictField(required=True)
    """Language tag -> text."""
    description = me.DictField()
    organization = me.DictField()
    """Who provides it, by language."""
    phones = me.ListField()
    """[{"number": "12356", "languages": ["zh-Hans"]}], the first to call first."""
    schedules = me.ListField()
    """[{"rrule", "opens_at", "closes_at", "timezone", "note"}] in local wall time; empty: hours are not known."""
    ages = me.DictField()
    """{"min", "max"} in years, both inclusive; empty: any age."""
    divisions = me.ListField()
    """GB/T 2260 codes that it serves, with all below them; empty: the whole country."""
    cost = me.DictField()
    """Language tag -> text; empty: not known (HSDS fees_description)."""
    appointment = me.DictField()
    """Language tag -> how to make one, or that none is needed; empty: not known (HSDS application_process)."""
    address = me.DictField()
    """Language tag -> where it is, as one writes it there."""
    latitude = me.FloatField()
    """Degrees, WGS 84, of the door; both or none."""
    longitude = me.FloatField()
    urgent = me.BooleanField(required=True, default=False)
    """May be called in an emergency."""
    url = me.StringField()
    order = me.IntField(required=True, default=100)
    """Lower comes first among those equally open."""
    assured_date = me.StringField()
    """Local date on which someone last checked the entry, as 2026-11-21 (HSDS assured_date)."""
    assured_by = me.StringField()
    """Who checked; for staff only."""
    sources = me.ListField()
    published_revision = me.IntField()
    """The revision that readers see; absent when not published."""
    authors = me.ListField(me.StringField())
    """Who edited since the last publication; right after it, and after a withdrawal, those who wrote what was published."""

    NAME = "service"
    PERSONAL = frozenset({"assured_by"})
    meta: ClassVar[dict[str, Any]] = {"collection": "services"}


FIELDS = (
    "kind", "name", "description", "organization", "phones", "schedules", "ages", "divisions", "cost", "appointment", "address",
    "latitude", "longitude", "urgent", "url", "order", "assured_date", "assured_by", "sources",
)  # fmt: skip
PUBLIC = tuple(name for name in FIELDS if name != "assured_by")
TEXTS = {"name": 120, "description": 2000, "organization": 200, "cost": 200, "appointment": 300, "address": 300}
"""Fields in several languages, with the most characters of a text."""


# --- what may be put -------------------------------------------------------------------------------------------------

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NUMBER = re.compile(r"\+?[0-9][0-9 ()-]{1,30}(,[0-9]{1,6})?")
_RULE = re.compile(r"(FREQ=DAILY|FREQ=WEEKLY;BYDAY=(MO|TU|WE|TH|FR|SA|SU)(,(MO|TU|WE|TH|FR|SA|SU))*)(;UNTIL=[0-9]{8})?")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")


def _phone(check: Check, at: str, raw: Any) -> dict[str, Any] | None:
    row = {"number": raw} if isinstance(raw, str) else raw
    if not isinstance(row, Mapping) or not _NUMBER.fullmatch(str(row.get("number", ""))):
        check.fail(
            at,
            "bad_format",
            reason=Text("例：{number: 12356, languages: [zh-Hans]}", "e.g. {number: 12356, languages: [zh-Hans]}"),
        )
        return None
    tags = [check.language(f"{at}.languages", tag) for tag in check.rows(f"{at}.languages", row.get("languages"))]
    return {"number": str(row["number"]), "languages": tags}


def _schedule(check: Check, at: str, raw: Any) -> dict[str, Any] | None:
    if not isinstance(raw, Mapping):
        check.fail(at, "wrong_type", reason="{rrule, opens_at, closes_at, timezone, note}")
        return None
    rule = str(raw.get("rrule", "")).removeprefix("RRULE:").replace(" ", "").upper()
    if not _RULE.fullmatch(rule):
        check.fail(f"{at}.rrule", "bad_format", reason="FREQ=DAILY / FREQ=WEEKLY;BYDAY=MO,TU")
    for name in ("opens_at", "closes_at"):
        if not _CLOCK.fullmatch(str(raw.get(name, ""))):
            check.fail(f"{at}.{name}", "bad_format", reason="08:00, 24:00")
    if raw.get("opens_at") == "24:00":
        check.fail(f"{at}.opens_at", "bad_format", reason="00:00")
    zone = check.zone(f"{at}.timezone", raw.get("timezone"))
    note = check.texts(f"{at}.note", raw.get("note"), 300)
    opens, closes = str(raw.get("opens_at")), str(raw.get("closes_at"))
    return {"rrule": rule, "opens_at": opens, "closes_at": closes, "timezone": zone, "note": note}


def _ages(check: Check, raw: Any) -> dict[str, int]:
    if isinstance(raw, str) and (found := re.fullmatch(r"([0-9]{1,3})?\s*-\s*([0-9]{1,3})?", raw)):
        raw = [int(part) if part else None for part in found.groups()]
    if isinstance(raw, list | tuple) and len(raw) == 2:
        raw = {"min": raw[0], "max": raw[1]}
    if not raw:
        return {}
    if not isinstance(raw, Mapping):
        check.fail("ages", "bad_format", reason=Text('例：{"min": 6, "max": 18}', 'e.g. {"min": 6, "max": 18}'))
        return {}
    pair = {name: check.whole(f"ages.{name}", raw.get(name), 0, 150) for name in ("min", "max")}
    return {name: value for name, value in pair.items() if value is not None}


def _degrees(check: Check, field: str, value: Any, most: int) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:  # NaN is in no range
        check.fail(field, "out_of_range", reason=f"-{most} … {most}")
        return None
    return round(float(value), 6)  # ten centimetres


def checked(values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The id and all fields of an entry in their one stored form. Raises `Invalid` with every error at once."""
    check = Check()
    check.fields(values, {"id", *FIELDS})
    key = str(values.get("id", ""))
    if not _ID.fullmatch(key):
        check.fail(
            "id", "bad_format", reason=Text("只用 a-z、0-9 和 -，例：hotline-12356", "a-z, 0-9 and - only, e.g. hotline-12356")
        )
    codes = [check.division("divisions", code) for code in check.rows("divisions", values.get("divisions"), 400)]
    assured = check.text("assured_date", values.get("assured_date"), 10)
    if assured:
        try:
            assured = date.fromisoformat(assured).isoformat()
        except ValueError:
            check.fail("assured_date", "bad_format", reason="2026-11-21")
    url = check.text("url", values.get("url"))
    if url and not re.fullmatch(r"https?://[^\s<>\"]+", url):
        check.fail("url", "bad_format", reason="https://…")
    if not isinstance(values.get("urgent", False), bool):
        check.fail("urgent", "wrong_type", reason="true / false")
    phones = [_phone(check, f"phones.{n}", raw) for n, raw in enumerate(check.rows("phones", values.get("phones")))]
    hours = [_schedule(check, f"schedules.{n}", raw) for n, raw in enumerate(check.rows("schedules", values.get("schedules")))]
    order = check.whole("order", values.get("order"), 0, 100_000)
    place = {name: _degrees(check, name, values.get(name), most) for name, most in (("latitude", 90), ("longitude", 180))}
    for name, other in (("latitude", "longitude"), ("longitude", "latitude")):
        if values.get(name) in (None, "") and place[other] is not None:
            check.fail(name, "required")
    sources = [check.text(f"sources.{n}", raw) for n, raw in enumerate(check.rows("sources", values.get("sources")))]
    fields = {
        "kind": check.coded("kind", values.get("kind"), KINDS),
        **{name: check.texts(name, values.get(name), most, required=name == "name") for name, most in TEXTS.items()},
        "phones": [row for row in phones if row],
        "schedules": [row for row in hours if row],
        "ages": _ages(check, values.get("ages")),
        "divisions": sorted(set(codes)),
        **place,
        "urgent": bool(values.get("urgent", False)),
        "url": url,
        "order": 100 if order is None else order,
        "assured_date": assured,
        "assured_by": check.text("assured_by", values.get("assured_by"), 120),
        "sources": [text for text in sources if text],
    }
    check.done()
    return key, fields


# --- verbs of staff --------------------------------------------------------------------------------------------------


def get(key: str) -> Service:
    """The entry as staff see it. Raises `NotFound`."""
    raw = Service.rows().find_one({"_id": key})
    if raw is None:
        raise NotFound(what=key)
    return Service.of(raw)


def put(values: Mapping[str, Any], by: str, revision: int | None = None) -> str:
    """Write an entry whole: "new", "changed" or "unchanged". Readers see nothing of it before `publish`.

    A second identical call is "unchanged" and writes nothing. Raises `Invalid`, and `Stale` when `revision` is not the
    present one.
    """
    key, fields = checked(values)
    present = Service.rows().find_one({"_id": key})
    if present is None:
        records.create(Service(id=key, authors=[by], **{k: v for k, v in fields.items() if v is not None}), by)
        return "new"

    def decide(service: Service) -> dict[str, Any]:
        changed = _changed(records.values_of(service, FIELDS), fields)
        if not changed:
            return {}
        authors = [] if service.published_revision == service.revision else service.authors
        return {**changed, "authors": sorted({*authors, by})}

    changed = records.change(Service, key, by, "edit", decide, revision=revision)
    return "unchanged" if changed.revision == present["revision"] else "changed"


def outcome(key: str, fields: Mapping[str, Any]) -> str:
    """What `put` of checked fields would say."""
    raw = Service.rows().find_one({"_id": key})
    return "new" if raw is None else "changed" if _changed(raw, fields) else "unchanged"


def _changed(before: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ; an empty value equals a missing one."""
    empty: tuple[Any, ...] = (None, [], {})
    return {k: v for k, v in fields.items() if v != before.get(k) and not (v in empty and before.get(k) in empty)}


def publish(key: str, by: str, revision: int | None = None, *, second_person: bool = True) -> Service:
    """Let readers see the entry as it now is. Of what is already published unchanged, a no-op. Raises `NotFound`, `Stale`,
    and `Forbidden("second_person")`: a number that a child calls at night is read by two people before it is shown."""

    def decide(service: Service) -> dict[str, Any]:
        if service.published_revision == service.revision:
            return {}
        if second_person and not staff.second(service.authors, by):
            raise Forbidden("second_person")
        return {"published_revision": service.revision + 1}

    def also(session: ClientSession, service: Service) -> None:
        content = {"id": key, **records.values_of(service, PUBLIC)}
        release(session, [Item("service", key, ANY, content)])

    return records.change(Service, key, by, "publish", decide, revision=revision, also=also)


def withdraw(key: str, by: str, revision: int | None = None) -> Service:
    """Take the entry from readers; the record stays. Raises `NotFound`, `Stale`, `Conflict` when it is not published."""

    def decide(service: Service) -> dict[str, Any]:
        if service.published_revision is None:
            raise Conflict("wrong_state", state="draft", action="withdraw")
        return {"published_revision": None}

    def also(session: ClientSession, service: Service) -> None:
        release(session, [Item("service", key, ANY, None)])

    return records.change(Service, key, by, "withdraw", decide, revision=revision, also=also)


# --- what readers get ------------------------------------------------------------------------------------------------


def _clock(text: str) -> time:
    return time.min if text == "24:00" else time.fromisoformat(text)


@lru_cache(4096)
def _holds(rule: str, day: date) -> bool:
    """Whether the rule has an occurrence on this day: a rule without an anchor begins on the day asked about."""
    start = datetime.combine(day, time.min)
    return next(iter(rrulestr(rule, dtstart=start)), None) == start


def _within(schedule: Mapping[str, Any], at: datetime) -> bool:
    local = at.astimezone(ZoneInfo(schedule["timezone"]))
    opens, closes, clock = _clock(schedule["opens_at"]), _clock(schedule["closes_at"]), local.time()
    if opens < closes:
        return opens <= clock < closes and _holds(schedule["rrule"], local.date())
    # over midnight (22:00-02:00; 00:00-24:00 is the whole day): the small hours belong to yesterday's rule
    return (clock >= opens and _holds(schedule["rrule"], local.date())) or (
        clock < closes and _holds(schedule["rrule"], local.date() - timedelta(days=1))
    )


def _ended(schedule: Mapping[str, Any], at: datetime) -> bool:
    """Whether its UNTIL lies before this local day."""
    _, _, until = schedule["rrule"].partition(";UNTIL=")
    return bool(until) and f"{at.astimezone(ZoneInfo(schedule['timezone'])):%Y%m%d}" > until


def open_now(service: Mapping[str, Any], at: datetime) -> bool | None:
    """Whether it answers at this aware moment, by its recorded hours; None when they are not known. Never raises.

    Hours recorded until a day that has passed say nothing about today: once the last of them ended, it is None.
    Public holidays are not looked at: what a service does on them stands in the note of its schedule.
    """
    known = False
    for schedule in service.get("schedules") or ():
        try:
            if _within(schedule, at):
                return True
            known = known or not _ended(schedule, at)
        except Exception as error:  # an entry that cannot be read is unknown: a wrong "closed" would turn someone away
            log.warning("hours of service %s cannot be read: %s", service.get("id"), type(error).__name__)
            return None
    return False if known else None


def stale(service: Mapping[str, Any], at: datetime) -> bool:
    """Whether nobody has checked the entry for 180 days (as UTC counts them, so that a phone counts the same), or ever."""
    try:
        return at.astimezone(UTC).date() - date.fromisoformat(service["assured_date"]) > STALE_AFTER
    except (KeyError, TypeError, ValueError):
        return True


def _text(texts: Any, language: str) -> str:
    """The text for a reader of `language`; "" when there is none."""
    if isinstance(texts, str):
        return texts
    return str(texts[languages.pick(texts, [language])]) if isinstance(texts, Mapping) and texts else ""


def spoken(service: Mapping[str, Any], language: str) -> dict[str, Any]:
    """A published entry in one language: what of the answer does not depend on the moment. A phone without a network finds
    from it what is open."""
    schedules = [{**row, "note": _text(row.get("note"), language)} for row in service.get("schedules") or ()]
    return {
        **{name: service.get(name) for name in ("id", *PUBLIC)},
        **{name: _text(service.get(name), language) for name in TEXTS},
        "schedules": schedules,
    }


def _shown(service: Mapping[str, Any], at: datetime, language: str) -> dict[str, Any]:
    return {**spoken(service, language), "open_now": open_now(service, at), "stale": stale(service, at)}


RANK = {True: 0, None: 1, False: 2}  # open, unknown, closed


def services(
    snapshot: Snapshot, division: str | None, at: datetime, language: str, kinds: Sequence[str] = KINDS
) -> list[dict[str, Any]]:
    """Published entries that serve `division`, texts in the language nearest to the one asked for, each with `open_now` and
    `stale`: open ones first, then unknown, then closed; among equals by `order`, then by id.

    Without a division, or with an unknown one: only what serves the whole country. Never raises; a damaged entry is left out.
    """
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    try:
        line = set(divisions.lineage(division)) if division else set()
    except Failure:
        line = set()
    found = []
    for entries in snapshot.entries("service").values():
        for item in entries.values():
            try:
                service = item.content or {}
                scope = service.get("divisions") or []
                if service.get("kind") in kinds and (not scope or any(divisions.current(code) in line for code in scope)):
                    found.append(_shown(service, at, language))
            except Exception as error:
                log.warning("published service %s cannot be read: %s", item.key, type(error).__name__)
    return sorted(found, key=order)


def order(service: Mapping[str, Any]) -> list[Any]:
    """The sort key of what `services` gives."""
    place = service["order"]
    return [RANK[service["open_now"]], place if isinstance(place, int) else 100, str(service["id"])]


def answers_in(service: Mapping[str, Any], language: str) -> bool | None:
    """Whether someone there speaks it, as recorded with its telephones; None when no language is recorded. A script is written,
    not spoken: mn-Mong and mn-Cyrl are one here, zh and yue are two."""
    tags = {str(tag).partition("-")[0] for phone in service["phones"] or () for tag in phone.get("languages") or ()}
    return language.partition("-")[0] in tags if tags else None


def takes(service: Mapping[str, Any], age: int) -> bool:
    """Whether it is for someone of this age in years; one that records no age is for all."""
    ages = service["ages"] or {}
    low, high = ages.get("min"), ages.get("max")
    return (low is None or low <= age) and (high is None or age <= high)


def left_out(
    service: Mapping[str, Any], *, open_only: bool = False, answering: str | None = None, age: int | None = None
) -> bool:
    """Whether someone who asks for what is open, for someone who speaks a language, or for an age is not shown this one.

    Left out is only what is known not to fit: recorded as closed at this moment, answering in other languages alone, for other
    ages. What nobody recorded stays. An urgent entry (12356, 110, 120) is left out for no language and no age: there is more
    help in it, in whatever language, than in an empty list.
    """
    if open_only and service["open_now"] is False:
        return True
    if service["urgent"] is True:
        return False
    return (answering is not None and answers_in(service, answering) is False) or (age is not None and not takes(service, age))

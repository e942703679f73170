"""The help directory: hotlines and services, with the field names of HSDS (Human Services Data Specification) 3.

Staff put entries as records and publish them; readers get them from the published snapshot through three pure functions:
`services` (what serves a division), `open_now` (by the hours as recorded) and `help_card`, the card that stands beside
every risk. Hours that are not recorded are unknown, never assumed. The card never fails: with an empty snapshot, an unknown
division or a damaged entry it still names 12356, 110 and 120.

Hours are RFC 5545 rules without a start date: FREQ=DAILY, or FREQ=WEEKLY with BYDAY, perhaps UNTIL. Anything else (INTERVAL,
COUNT, BYSETPOS) would need an anchor that a directory does not have, and is refused when put.
"""

import csv
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import mongoengine as me
from dateutil.rrule import rrulestr
from pymongo.client_session import ClientSession

from content import divisions, languages, records
from content.checking import Check, file_bytes
from content.failures import Conflict, Failure, Forbidden, Invalid, NotFound
from content.published import ANY, Item, Snapshot, release
from content.records import SYSTEM
from content.settings import Settings
from content.staff import independent

log = logging.getLogger("xinqiao.directory")

KINDS = ("hotline", "text", "clinic", "counselling")
STALE_AFTER = timedelta(days=180)  # issue 4: an entry not checked for so long is marked to readers and flagged to staff
CARD_KINDS = ("hotline", "text", "counselling")
FILE_LIMIT = 16 * 1024 * 1024  # bytes of an imported directory
CARD_LINES = 8  # someone in distress reads a few lines, not a list
EMERGENCY = ("110", "120")


class Service(records.Record):
    """One hotline or service. Readers see it as it was when last published, not as it is being edited."""

    kind = me.StringField(required=True)
    name = me.DictField(required=True)
    """Language tag -> text."""
    description = me.DictField()
    phones = me.ListField()
    """[{"number": "12356", "languages": ["zh-Hans"]}], the first to call first."""
    schedules = me.ListField()
    """[{"rrule", "opens_at", "closes_at", "timezone", "note"}] in local wall time; empty: hours are not known."""
    ages = me.DictField()
    """{"min", "max"} in years, both inclusive; empty: any age."""
    divisions = me.ListField()
    """GB/T 2260 codes that it serves, with all below them; empty: the whole country."""
    cost = me.DictField()
    """Language tag -> text; empty: not known."""
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
    "kind", "name", "description", "phones", "schedules", "ages", "divisions", "cost", "urgent", "url", "order",
    "assured_date", "assured_by", "sources",
)  # fmt: skip
PUBLIC = tuple(name for name in FIELDS if name != "assured_by")


# --- what may be put -------------------------------------------------------------------------------------------------

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NUMBER = re.compile(r"\+?[0-9][0-9 ()-]{1,30}(,[0-9]{1,6})?")
_RULE = re.compile(r"(FREQ=DAILY|FREQ=WEEKLY;BYDAY=(MO|TU|WE|TH|FR|SA|SU)(,(MO|TU|WE|TH|FR|SA|SU))*)(;UNTIL=[0-9]{8})?")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")


def _phone(check: Check, at: str, raw: Any) -> dict[str, Any] | None:
    row = {"number": raw} if isinstance(raw, str) else raw
    if not isinstance(row, Mapping) or not _NUMBER.fullmatch(str(row.get("number", ""))):
        check.fail(at, "bad_format", reason="例 e.g. {number: 12356, languages: [zh-Hans]}")
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
        check.fail("ages", "bad_format", reason='例 e.g. {"min": 6, "max": 18}')
        return {}
    pair = {name: check.whole(f"ages.{name}", raw.get(name), 0, 150) for name in ("min", "max")}
    return {name: value for name, value in pair.items() if value is not None}


def checked(values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The id and all fields of an entry in their one stored form. Raises `Invalid` with every error at once."""
    check = Check()
    check.fields(values, {"id", *FIELDS})
    key = str(values.get("id", ""))
    if not _ID.fullmatch(key):
        check.fail("id", "bad_format", reason="a-z 0-9 -，例 e.g. hotline-12356")
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
    sources = [check.text(f"sources.{n}", raw) for n, raw in enumerate(check.rows("sources", values.get("sources")))]
    fields = {
        "kind": check.coded("kind", values.get("kind"), KINDS),
        "name": check.texts("name", values.get("name"), 120, required=True),
        "description": check.texts("description", values.get("description"), 2000),
        "phones": [row for row in phones if row],
        "schedules": [row for row in hours if row],
        "ages": _ages(check, values.get("ages")),
        "divisions": sorted(set(codes)),
        "cost": check.texts("cost", values.get("cost"), 200),
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


def values_of(service: Service) -> dict[str, Any]:
    """The entry as plain values, in the shape that `put` takes."""
    raw = service.to_mongo().to_dict()
    return {"id": service.id, **{name: raw.get(name) for name in FIELDS}}


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
        before = values_of(service)
        empty: tuple[Any, ...] = (None, [], {})
        changed = {k: v for k, v in fields.items() if v != before[k] and not (v in empty and before[k] in empty)}
        if not changed:
            return {}
        authors = [] if service.published_revision == service.revision else service.authors
        return {**changed, "authors": sorted({*authors, by})}

    changed = records.change(Service, key, by, "edit", decide, revision=revision)
    return "unchanged" if changed.revision == present["revision"] else "changed"


def publish(key: str, by: str, revision: int | None = None, *, second_person: bool = True) -> Service:
    """Let readers see the entry as it now is. Of what is already published unchanged, a no-op. Raises `NotFound`, `Stale`,
    and `Forbidden("second_person")`: a number that a child calls at night is read by two people before it is shown."""

    def decide(service: Service) -> dict[str, Any]:
        if service.published_revision == service.revision:
            return {}
        if second_person and by != SYSTEM and not all(independent(author, by) for author in service.authors):
            raise Forbidden("second_person")
        return {"published_revision": service.revision + 1}

    def also(session: ClientSession, service: Service) -> None:
        content = {k: v for k, v in values_of(service).items() if k in {"id", *PUBLIC}}
        release(session, [Item("service", key, ANY, content)])

    return records.change(Service, key, by, "publish", decide, revision=revision, also=also)


def withdraw(key: str, by: str, revision: int | None = None) -> Service:
    """Take the entry from readers; the record stays. Raises `NotFound`, `Stale`, `Conflict` when it is not published."""

    def decide(service: Service) -> dict[str, Any]:
        if service.published_revision is None:
            raise Conflict("wrong_state", state="draft", action="撤回 withdraw")
        return {"published_revision": None}

    def also(session: ClientSession, service: Service) -> None:
        release(session, [Item("service", key, ANY, None)])

    return records.change(Service, key, by, "withdraw", decide, revision=revision, also=also)


# --- import ----------------------------------------------------------------------------------------------------------


def import_file(path: Path, by: str, dry_run: bool = False) -> list[dict[str, Any]]:
    """Put every entry of a JSON list or a CSV file; nothing is published. One refused entry keeps the whole file out.

    CSV columns are field names; `name`, `description` and `cost` carry a language (name_zh-Hans); lists are parted by "|",
    phones as `12356[zh-Hans en]`, schedules as `FREQ=DAILY 08:00-22:00 Asia/Shanghai`. A second run gives "unchanged".

    Returns a row an entry: {"source", "line" (CSV) or entry number (JSON), "outcome": new|changed|unchanged|refused, "key",
    "messages": [{language: text}]}. After a refusal the other outcomes are what would have been.
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    good: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        entries = list(_csv(path) if path.suffix.lower() == ".csv" else _json(path))
    except (Invalid, ValueError, csv.Error) as error:
        reason = {"zh-Hans": "无法读取。", "en": f"Cannot be read: {error}"}
        return [{"source": path.name, "outcome": "refused", "key": "", "messages": [reason]}]
    seen: set[str] = set()
    for line, raw in entries:
        row: dict[str, Any] = {"source": path.name, "line": line, "key": str(raw.get("id", ""))[:64], "messages": []}
        rows.append(row)
        try:
            key, fields = checked(raw)
            if key in seen:
                raise Conflict("exists", what=key)
            seen.add(key)
            row["outcome"] = _outcome(key, fields)
            good.append((row, {"id": key, **fields}))
        except Failure as failure:
            row["outcome"] = "refused"
            row["messages"] = [e.messages for e in failure.errors] if isinstance(failure, Invalid) else [failure.messages]
    if not dry_run and len(good) == len(rows):
        for row, values in good:
            row["outcome"] = put(values, by)
    return rows


def load_library(folder: Path, settings: Settings) -> int:
    """Put and publish the starter library's entries; returns how many. A second call changes nothing. Raises `Invalid`."""
    values = [entry for _, entry in _json(folder / "directory.json")]
    for entry in values:
        put(entry, records.SYSTEM)
        publish(entry["id"], records.SYSTEM)
    return len(values)


def _outcome(key: str, fields: Mapping[str, Any]) -> str:
    raw = Service.rows().find_one({"_id": key})
    if raw is None:
        return "new"
    same = all((raw.get(name) or None) == (value or None) for name, value in fields.items())
    return "unchanged" if same else "changed"


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    data = json.loads(file_bytes(path, FILE_LIMIT).decode("utf-8-sig"))
    if isinstance(data, dict):
        data = data.get("services")
    if not isinstance(data, list) or not all(isinstance(raw, dict) for raw in data):
        raise ValueError("expected a list of objects, or {services: […]}")
    yield from enumerate(data, 1)


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with io.StringIO(file_bytes(path, FILE_LIMIT).decode("utf-8-sig"), newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            entry: dict[str, Any] = {}
            for column, text in row.items():
                if text is None or column is None:
                    raise ValueError(f"line {reader.line_num}: a cell too many or too few")
                name, _, language = column.strip().partition("_")
                cells = [cell.strip() for cell in text.split("|") if cell.strip()]
                if name in {"name", "description", "cost"} and language:
                    entry.setdefault(name, {})[language] = text
                elif column == "phones":
                    entry[column] = [_csv_phone(cell) for cell in cells]
                elif column == "schedules":
                    entry[column] = [_csv_hours(cell) for cell in cells]
                elif column in {"divisions", "sources"}:
                    entry[column] = cells
                elif column == "urgent":
                    entry[column] = {"": False, "false": False, "0": False, "true": True, "1": True}.get(text.lower(), text)
                elif column == "order":
                    entry[column] = int(text) if text.isascii() and text.isdigit() else text or None
                else:
                    entry[column] = text or None
            yield reader.line_num, entry


def _csv_phone(cell: str) -> dict[str, Any]:
    number, _, rest = cell.partition("[")
    return {"number": number.strip(), "languages": rest.rstrip("]").split()}


def _csv_hours(cell: str) -> dict[str, Any]:
    rule, span, zone = (cell.split(" ", 2) + ["", ""])[:3]
    opens, _, closes = span.partition("-")
    return {"rrule": rule, "opens_at": opens, "closes_at": closes, "timezone": zone.strip()}


# --- what readers get ------------------------------------------------------------------------------------------------


def _clock(text: str) -> time:
    return time.min if text == "24:00" else time.fromisoformat(text)


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


def open_now(service: Mapping[str, Any], at: datetime) -> bool | None:
    """Whether it answers at this aware moment, by its recorded hours; None when they are not known. Never raises.

    Public holidays are not looked at: what a service does on them stands in the note of its schedule.
    """
    known = False
    for schedule in service.get("schedules") or ():
        try:
            if _within(schedule, at):
                return True
            known = True
        except Exception as error:  # an entry that cannot be read is unknown: a wrong "closed" would turn someone away
            log.warning("hours of service %s cannot be read: %s", service.get("id"), type(error).__name__)
            return None
    return False if known else None


def stale(service: Mapping[str, Any], at: datetime) -> bool:
    """Whether nobody has checked the entry for 180 days, or ever."""
    try:
        return at.date() - date.fromisoformat(service["assured_date"]) > STALE_AFTER
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
        "name": _text(service.get("name"), language),
        "description": _text(service.get("description"), language),
        "cost": _text(service.get("cost"), language),
        "schedules": schedules,
    }


def _shown(service: Mapping[str, Any], at: datetime, language: str) -> dict[str, Any]:
    return {**spoken(service, language), "open_now": open_now(service, at), "stale": stale(service, at)}


_RANK = {True: 0, None: 1, False: 2}  # open, unknown, closed


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
    return [_RANK[service["open_now"]], place if isinstance(place, int) else 100, str(service["id"])]


# The card's own words. They are read by a child in distress: short, warm, nothing to decide, no name for what is felt.
_CARD: dict[str, dict[str, Any]] = {
    "zh-Hans": {
        "title": "现在就可以找人说说",
        "lead": "心里难受的时候，不用一个人扛着。接电话的人会认真听你说，不会怪你。",
        "tonight": [
            "找一个让你安心的人陪着：家人、老师、同学、邻居都可以。今晚尽量不要一个人待着。",
            "如果担心自己会伤害自己，请把这件事直接告诉身边的大人，请他们陪着你，让周围安全一些。",
            "喝点温水，慢慢呼几口气，先安稳地过好今晚。别的事，明天和大人一起想办法。",
            "电话占线，就拨下一个，或过几分钟再拨。你没有打扰任何人。",
        ],
        "message": "我现在心里很难受，想有人陪陪我。你能给我打个电话，或者过来一下吗？不用马上想办法，听我说说就好。",
        "emergency": {
            "110": "有人正受到伤害或威胁，或觉得马上会有危险",
            "120": "有人受伤，或身体很不舒服，需要马上就医",
        },
        "12356": "全国统一心理援助热线",
        "hours": "服务时间未登记，可以直接拨打试试；占线请过一会儿再拨。",
        "stale": "此信息已半年以上没有核对。",
    },
    "en": {
        "title": "You can talk to someone now",
        "lead": "When things hurt, you need not carry them alone. Whoever answers will listen and will not blame you.",
        "tonight": [
            "Be with someone who makes you feel safe: family, a teacher, a friend, a neighbour. Try not to be alone tonight.",
            "If you are afraid you might hurt yourself, tell an adult near you plainly; ask them to stay and make things safe.",
            "Drink some warm water, breathe out slowly, just get through tonight. The rest can be sorted out together tomorrow.",
            "If a line is busy, call the next one, or try again in a few minutes. You are not a bother to anyone.",
        ],
        "message": "I feel really bad right now and would like someone with me. Could you call me, or come over? "
        "You need not solve anything, just listen.",
        "emergency": {
            "110": "Someone is being hurt or threatened, or danger feels close (police)",
            "120": "Someone is injured or feels very ill and needs a doctor now (ambulance)",
        },
        "12356": "National psychological support line",
        "hours": "Hours are not recorded; you can simply call. If it is busy, try again a little later.",
        "stale": "Not checked for more than half a year.",
    },
}


def card_words(language: str) -> dict[str, Any]:
    """What of the help card does not depend on place and moment, for a phone that keeps it: {"title", "language", "lead",
    "tonight", "message", "emergency": [{"number", "name"}], "line" (12356, for when it knows no other), "hours", "stale"
    (words for lines without hours, and for those long unchecked)}. With the help lines it holds, the card stands without a
    network too."""
    own = languages.pick(_CARD, [language])
    words = _CARD[own]
    return {
        **{name: words[name] for name in ("title", "lead", "tonight", "message", "hours", "stale")},
        "language": own,
        "emergency": [{"number": number, "name": words["emergency"][number]} for number in EMERGENCY],
        "line": {"number": "12356", "name": words["12356"]},
    }


def help_card(snapshot: Snapshot, division: str | None, at: datetime, language: str) -> dict[str, Any]:
    """The help card for a place and a moment:

    {"title", "language", "lines": [{"id", "kind", "name", "phones", "open_now", "note", "stale", "url"}],
     "text": {"lead", "tonight": [...], "message"}, "emergency": [{"number": "110", "name"}, {"number": "120", "name"}]}

    Lines are at most CARD_LINES: open first, then unknown, then closed; there is always at least one hotline (12356 when the
    directory has none). `message` is ready to be sent to a trusted adult. The card's language is the nearest of zh-Hans and
    en; names come in the reader's own where the directory has it. Never raises.
    """
    own = languages.pick(_CARD, [language])
    words = _CARD[own]
    lines: list[dict[str, Any]] = []
    try:
        for service in services(snapshot, division, at, language, CARD_KINDS):
            if any(phone["number"] in EMERGENCY for phone in service["phones"] or ()):
                continue  # these stand in `emergency`, always
            notes = [row["note"] for row in service["schedules"] if row["note"]]
            note = notes[0] if notes else words["hours"] if service["open_now"] is None else ""
            lines.append(
                {k: service[k] for k in ("id", "kind", "name", "phones", "open_now", "stale", "url")}
                | {"note": " ".join(filter(None, [note, words["stale"] if service["stale"] else ""]))}
            )
    except Exception:  # whoever reads this card must get it
        log.exception("the help card fell back to its constant lines")
        lines = []
    lines = lines[:CARD_LINES]
    if not any(line["kind"] == "hotline" for line in lines):
        phone = {"number": "12356", "languages": ["zh-Hans"]}
        line = {"id": "12356", "kind": "hotline", "name": words["12356"], "phones": [phone], "open_now": None}
        lines.insert(0, line | {"stale": False, "url": None, "note": words["hours"]})
        lines.sort(key=lambda row: _RANK[row["open_now"]])
    return {
        "title": words["title"],
        "language": own,
        "lines": lines,
        "text": {"lead": words["lead"], "tonight": words["tonight"], "message": words["message"]},
        "emergency": [{"number": number, "name": words["emergency"][number]} for number in EMERGENCY],
    }

"""Season notices draft themselves: two weeks before its day each is there, for one person to save and another to approve.

An **area** is the service's division or one below it that has confirmed a date of its own; its notices go to the whole of it but
for the areas inside. A notice of an occasion (season, year, lead, audience) exists once in a place: its id is made of these, so a
second run, or a second worker, makes nothing. When a date moves, what still waits for its day is cancelled and drafted anew, for
its words name the day; what went out is not repeated.

A date that nobody has confirmed gives no draft. Staff are asked for it 60 and 30 days before its first notice (`SeasonAsk`), in
the to-do list and through the webhook.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

import mongoengine as me
from pymongo.errors import DuplicateKeyError, PyMongoError

from content import divisions, records, store
from content.failures import Conflict, Failure, NotFound
from content.records import SYSTEM
from content.settings import Settings
from notifications import notices, seasons, templates, webhook
from notifications.notices import Notice
from notifications.outcomes import Retry, Unknown
from notifications.seasons import Occasion, Override

log = logging.getLogger("xinqiao.drafting")

AHEAD = timedelta(days=14)  # time for two people to read it
APPROVE_BY = time(21)  # of its day: its words name how many days are left, and a push after that would leave on the next
WAITING = ("drafted", "approved", "scheduled")
WENT = ("claimed", "sent", "refused", "failed")
NEEDED = ("lead", "audiences", "divisions", "state", "reason", "results")
MOVED, STOPPED = "date_moved", "campaign_stopped"


class Wanted(NamedTuple):
    """A notice that the calendar asks for."""

    occasion: Occasion
    audience: str
    divisions: tuple[str, ...]
    names_last: bool = False
    """Whether its text names the season's last day."""

    def key(self) -> str:
        """Its id: the same for the same occasion, dates and places. A last day that its text does not name makes no other."""
        one = self.occasion
        days = (one.on, one.span.first, one.span.last if self.names_last else "")
        parts = (one.code, one.year, one.lead, one.division, *days, self.audience, *self.divisions)
        return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


class SeasonAsk(store.Row):
    """Staff were asked for a date; `_id` says for which and how early."""

    code = me.StringField(required=True)
    year = me.IntField(required=True)
    division = me.StringField()
    stage = me.IntField(required=True)
    """60 or 30 days ahead."""
    at = me.DateTimeField(required=True)
    hooked = me.BooleanField(required=True, default=False)
    """Whether the webhook has it, or will never take it."""

    meta: ClassVar[dict[str, Any]] = {"collection": "season_asks", "indexes": [{"fields": ["-at"]}]}


def tick(now: datetime, settings: Settings) -> Counter[str]:
    """Bring drafts and asks up to now. Returns how many were drafted, moved, stopped and asked. A second call makes nothing.
    Raises driver errors; the next one goes on."""
    counts: Counter[str] = Counter()
    overrides, day = seasons.stored(), now.astimezone(ZoneInfo(settings.zone)).date()
    stops = stopped()
    for raw in list(Notice.rows().find({"state": {"$in": [*WAITING, "due"]}, "kind": "season"})):
        with _alone(raw["_id"]):
            if stops(raw["season"], raw["year"], raw.get("dated_by") or ""):  # drafted by a tick that had begun before
                counts["stopped"] += call_off(raw["_id"], STOPPED)
            elif moved(Notice.of(raw), overrides, settings):
                counts["moved"] += call_off(raw["_id"])
    there: dict[tuple[str, int], list[dict[str, Any]]] = {}
    own = templates.stored()
    for one in _wanted(settings.division, day, overrides):
        campaign = one.occasion.code, one.occasion.year
        if stops(*campaign, one.occasion.division):
            continue
        if campaign not in there:
            match = {"season": campaign[0], "year": campaign[1], "kind": "season"}
            there[campaign] = list(Notice.rows().find(match, dict.fromkeys(NEEDED, 1)))
        with _alone(templates.key_of(one.occasion.division, one.occasion.code, one.occasion.lead, one.audience)):
            counts["drafted"] += _draft(one, there[campaign], own, settings, now)
    for ask in seasons.asks(settings.division, day, overrides):
        counts["asked"] += _ask(ask, now)
    _hook_asks(settings, day)
    return +counts


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """What is wrong with one of them keeps no other; driver errors end the turn."""
    try:
        yield
    except PyMongoError:
        raise
    except Exception:
        log.exception("%s: put off", name)


# --- stopping a campaign ----------------------------------------------------------------------------------------------


class CampaignStop(records.Record):
    """A campaign of which nothing more is drafted in a division and all below it; `_id` is "gaokao.2027:150603"."""

    season = me.StringField(required=True)
    year = me.IntField(required=True)
    division = me.StringField(default="")

    meta: ClassVar[dict[str, Any]] = {"collection": "campaign_stops", "indexes": []}
    NAME = "campaign_stop"


def stop(season: str, year: int, by: str, settings: Settings, fits: Callable[[Sequence[str]], bool]) -> int:
    """Stop a campaign of the service's division at once: whatever of it stands in the inbox or is still to come is cancelled, and
    nothing more is drafted. `fits(divisions)` says which notices are the caller's to cancel. Returns how many were; a second call
    cancels what is left. Raises `NotFound` for a season that is none."""
    if season not in seasons.calendar().seasons:
        raise NotFound(what=season)
    key = f"{season}.{year}:{settings.division or divisions.COUNTRY}"
    if CampaignStop.rows().find_one({"_id": key}, {"_id": 1}) is None:
        with suppress(DuplicateKeyError):
            records.create(CampaignStop(id=key, season=season, year=year, division=settings.division), by)
    cancelled = 0
    for raw in list(
        Notice.rows().find({"season": season, "year": year, "kind": "season"}, {"divisions": 1, "state": 1, "listed": 1})
    ):
        if (raw["state"] in (*WAITING, "due", "claimed") or raw.get("listed")) and fits(raw.get("divisions") or []):
            with suppress(Conflict):  # it ended at this moment
                notices.cancel(raw["_id"], by, reason=STOPPED)
                cancelled += 1
    return cancelled


def stopped() -> Callable[[str, int, str], bool]:
    """Tells of a season, its year and a division ("" the country) whether nothing more is drafted of that campaign there, as
    things are now. Reads the database."""
    rows = [(row.season, row.year, row.division or "") for row in map(CampaignStop.of, CampaignStop.rows().find({}))]
    return lambda season, year, where: any(one[:2] == (season, year) and divisions.within(where, one[2]) for one in rows)


def resume(season: str, year: int, by: str, settings: Settings) -> None:
    """Let a stopped campaign be drafted again, from what is still to come; also what the stop cancelled, for two persons to read
    anew. Raises `NotFound` when it was not stopped."""
    records.remove(CampaignStop, f"{season}.{year}:{settings.division or divisions.COUNTRY}", by, lambda record: None)


# --- what the calendar wants -----------------------------------------------------------------------------------------


def _wanted(home: str, day: date, overrides: Sequence[Override]) -> Iterator[Wanted]:
    """Every notice of a confirmed date that is due from `day` to AHEAD of it, area by area."""
    last = day + AHEAD
    places = [home, *sorted({o.division for o in overrides if o.division != home and divisions.within(o.division, home)})]
    around = {place: [one for one in places if one != place and divisions.within(place, one)] for place in places}
    known: dict[tuple[str, int], list[str]] = {}
    for place in places:
        for one in seasons.occasions(place, day, last, overrides):
            if one.span.provisional:
                continue
            campaign = one.code, one.year
            if campaign not in known:
                known[campaign] = _areas(*campaign, around, [o for o in overrides if (o.code, o.year) == campaign])
            areas = known[campaign]
            if place not in areas:
                continue
            inside = [area for area in areas if area != place and divisions.within(area, place)]
            where = tuple("" if code == divisions.COUNTRY else code for code in without(place, inside))
            for audience in seasons.calendar().seasons[one.code].audiences:
                yield Wanted(one, audience, where)


def _areas(code: str, year: int, around: Mapping[str, Sequence[str]], overrides: Sequence[Override]) -> list[str]:
    """Those of the places (each with those that hold it; the first holds all) whose dates of a season are others than of what is
    around them."""
    spans = {place: seasons.season(code, year, overrides, place) for place in around}
    found = []
    for place, outer in around.items():
        nearest = max(outer, key=lambda one: len(divisions.lineage(one)) if one else 0, default=None)
        if nearest is None or spans[place] != spans[nearest]:
            found.append(place)
    return found


def without(code: str, left_out: Iterable[str]) -> list[str]:
    """The fewest divisions that together are `code` ("" the country) without those: itself, or its children without them. A phone
    that says only the city when one of its districts is left out hears nothing, for nobody knows which district it is in."""
    inside = [one for one in left_out if divisions.within(one, code)]
    if not inside:
        return [code]
    if code in inside:
        return []
    return [part for child in divisions.children(code) for part in without(child.code, inside)]


def moved(notice: Notice, overrides: Sequence[Override], settings: Settings) -> bool:
    """Whether its day, or one that its words name, is no longer the season's. A date that was taken back moves nothing: the
    notice is held as unconfirmed. What somebody was told already stays."""
    span = seasons.season(notice.season, notice.year, overrides, notice.dated_by or "")
    if span.provisional or notice.results:
        return False
    on = seasons.calendar().seasons[notice.season].notice_day(span, notice.lead)
    named = ((notice.first, span.first), (notice.last, span.last))
    if any(told and told != day.isoformat() for told, day in named):
        return True
    return bool(on != notice.send_at.astimezone(ZoneInfo(settings.zone)).date())


# --- drafting --------------------------------------------------------------------------------------------------------


def _draft(one: Wanted, there: Sequence[Mapping[str, Any]], own: Any, settings: Settings, now: datetime) -> int:
    """Draft it, unless it is there; how many were made."""
    occasion = one.occasion
    alike = [n for n in there if n["lead"] == occasion.lead and n["audiences"] == [one.audience]]
    went = [code for n in alike if _went(n) for code in n.get("divisions") or [""]]
    left = tuple(part for code in one.divisions for part in _left(code, went))
    send_at, over, night = (
        datetime.combine(on, at, ZoneInfo(settings.zone)).astimezone(UTC)
        for on, at in ((occasion.on, occasion.at), (occasion.until, time()), (occasion.on, APPROVE_BY))
    )
    if not left or now >= send_at:
        return 0
    template = templates.best(occasion.code, occasion.lead, one.audience, occasion.division, own)
    if template is None:
        log.warning("no text for %s, %s days, %s: nothing is drafted", occasion.code, occasion.lead, one.audience)
        return 0
    names_last = any("{last}" in text[part] for text in template.texts.values() for part in ("title", "body"))
    called_off = {n["_id"] for n in alike if n["state"] == "cancelled" and n.get("reason") in {MOVED, STOPPED}}
    key = one._replace(divisions=left, names_last=names_last).key()
    while key in called_off:  # a date moved there and back, a campaign resumed; what staff cancelled is not drafted anew
        key = hashlib.sha256(key.encode()).hexdigest()[:32]
    if any(n["_id"] == key for n in alike):
        return 0
    for stale in alike:
        waits = stale["state"] in (*WAITING, "due") and not _went(stale)
        if waits and _meet(stale.get("divisions") or [], left):  # areas do not overlap, so the other's dates are old
            call_off(stale["_id"])
    season = seasons.calendar().seasons[occasion.code]
    fields = {
        "season": occasion.code,
        "divisions": [code for code in left if code],
        "audiences": [one.audience],
        "stages": list(season.stages),
        "texts": templates.rendered(template, templates.values(occasion, settings)),
        "lessons": list(template.lessons or season.lessons),
        "done_when": dict(template.done_when or {}),
        "send_at": send_at,
        "expires_at": over,
    }
    born = {
        "id": key,
        "year": occasion.year,
        "lead": occasion.lead,
        "dated_by": occasion.division,
        "first": occasion.span.first.isoformat(),
        "last": occasion.span.last.isoformat() if names_last else "",
        "worded_by": next((row.written_by for row in own if row.template() == template), ""),
        "approve_by": max(night, send_at + timedelta(hours=1)),
        "template": f"{template.name}@{template.version}",
    }
    try:
        notices.draft(fields, SYSTEM, settings, now, "season", born)
    except (Conflict, DuplicateKeyError):  # another worker was quicker
        return 0
    except Failure as failure:
        log.warning("the draft of %s could not be made: %s", template.name, failure)
        return 0
    return 1


def _went(notice: Mapping[str, Any]) -> bool:
    """Whether somebody may have been told of it."""
    return notice["state"] in WENT or (notice["state"] == "due" and bool(notice.get("results")))


def _left(code: str, went: Sequence[str]) -> list[str]:
    """What of a division has not been told."""
    return [] if any(divisions.within(code, one) for one in went) else without(code, [one for one in went if one])


def _meet(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a family can be in both; none or "" is the whole country."""
    return any(notices.goes_to(some, one) for one in others or [""])


def call_off(key: str, reason: str = MOVED) -> int:
    """Cancel a notice whose date has moved, or its campaign was stopped; how many were. A later tick drafts it anew."""
    try:
        notices.cancel(key, SYSTEM, reason=reason)
    except Failure as failure:  # it fell due at this moment
        log.info("notice %s is not called off: %s", key, failure)
        return 0
    return 1


# --- asking for dates ------------------------------------------------------------------------------------------------


def _ask(ask: seasons.Ask, now: datetime) -> int:
    stage = 60 if ask.days_left > 30 else 30
    name = f"{ask.code}:{ask.year}:{ask.division or divisions.COUNTRY}:{stage}"  # no full stop: it is the webhook-id too
    if SeasonAsk.rows().find_one({"_id": name}, {"_id": 1}):
        return 0
    row = {"_id": name, "code": ask.code, "year": ask.year, "division": ask.division, "stage": stage, "at": now, "hooked": False}
    try:
        SeasonAsk.rows().insert_one(row)
    except DuplicateKeyError:
        return 0
    log.warning("the date of %s %s is not confirmed: its first notice would be due in %s days", ask.code, ask.year, ask.days_left)
    return 1


def _hook_asks(settings: Settings, day: date) -> None:
    """Tell the district's own system; what it did not take is told again at the next tick."""
    if not settings.webhook_url:
        return
    asked = {(ask.code, ask.year): ask for ask in seasons.asks(settings.division, day, seasons.stored())}
    for raw in list(SeasonAsk.rows().find({"hooked": False})):
        ask = asked.get((raw["code"], raw["year"]))
        if ask:
            event = {
                "type": "season.unconfirmed", "season": ask.code, "year": ask.year, "division": ask.division,
                "usual_first": ask.usual.first.isoformat(), "days_left": ask.days_left,
            }  # fmt: skip
            if isinstance(webhook.send(event, raw["_id"].replace(".", "-"), settings), Retry | Unknown):
                return
        SeasonAsk.rows().update_one({"_id": raw["_id"]}, {"$set": {"hooked": True}})

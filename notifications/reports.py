"""What became of notices: planned, sent, refused and why, opened, acted; one by one, by campaign, and as a table.

Sources: mission.md "reach measured per channel"; issue 6 "planned, sent, refused by reason, opened (contributed counts), acted".

What is counted. **Topics**, by what came of each: a topic is a segment of phones, never a phone. **Messages** are what a channel
took; one may go to several topics. Neither says how many people it reached: Firebase tells nobody, a district's own gateway only
that it took it. **The inbox** tells of no reader either; its reach is what phones added by choice (`opened`, `acted`), as
`content.statistics` has released it: of each county a closed week's, or several weeks' until 30 are in it. What it has not
released is None here, whether it is nobody or 29.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from content import divisions, sheets, staff, statistics
from content.failures import Text
from content.menu import NOTICE
from content.vocabulary import SEASONS, Label
from notifications import reasons, topics
from notifications.notices import Notice, goes_to

OUTCOMES = ("sent", "inbox_only", "refused", "failed", "skipped")  # the better first
EVERY = "*"  # the topic of a message that is for all of them
ENDED = ("sent", "refused", "failed", "expired", "cancelled")
NO_REACH: Mapping[str, Text] = {
    "fcm": Text("Firebase 不告知一个主题有多少手机收到。", "Firebase does not tell how many phones a topic reached."),
    "webhook": Text("本地渠道只告知已接收。", "The district's own channel tells only that it took the message."),
    "inbox": Text(
        f"各区县都不足 {statistics.ANSWERS} 人，或尚未公布。",
        f"Fewer than {statistics.ANSWERS} in each county, or not released yet.",
    ),
}
STATES: Mapping[str, Label] = {
    "drafted": Label("待审批", "waits for approval"),
    "approved": Label("已通过", "approved"),
    "scheduled": Label("已排期", "scheduled"),
    "due": Label("待发送", "due"),
    "claimed": Label("发送中", "being sent"),
    "sent": Label("已发送", "sent"),
    "refused": Label("被拒绝", "refused"),
    "expired": Label("已过期", "expired"),
    "cancelled": Label("已取消", "cancelled"),
    "failed": Label("发送失败", "failed"),
}
TO_READ = Label("待查看", "to be read")
# of the table, which is in Chinese
KIND_WORDS: Mapping[str, str] = {"general": "一般", "season": "季节", "emergency": "紧急"}
CHANNEL_WORDS: Mapping[str, str] = {"fcm": "推送", "webhook": "本地渠道"}
OUTCOME_WORDS: Mapping[str, str] = {
    "sent": "已发", "inbox_only": "只进信箱", "refused": "被拒", "failed": "失败", "skipped": "跳过",
}  # fmt: skip


class Channel(NamedTuple):
    """What one channel did. The inbox has neither messages nor outcomes, only a reach."""

    channel: str
    messages: int
    sent: int
    """Topics, as the next four; EVERY is one."""
    inbox_only: int
    refused: int
    failed: int
    skipped: int
    reach: int | None
    no_reach: Text | None
    """Why there is none."""


class Why(NamedTuple):
    """Topics of one channel that were not sent to, by reason."""

    channel: str
    outcome: str
    reason: str
    topics: int


class Report(NamedTuple):
    """What became of one notice."""

    id: str
    title: str
    campaign: str
    """"gaokao.2027"; "" for what belongs to no season."""
    kind: str
    on: date
    """Local day of its moment, else of its draft."""
    divisions: tuple[str, ...]
    state: str
    reason: str
    """Why it failed, expired or was refused; "" when there is nothing to say."""
    planned: int
    """Topics that it goes to; of one that was cancelled only those that something had come of."""
    undecided: int
    """Those without an outcome so far; of one that expired they stay."""
    messages: int
    sent: int
    """Planned topics by the best that any channel made of them, as the next four: with `undecided` they make up `planned`."""
    inbox_only: int
    refused: int
    failed: int
    skipped: int
    channels: tuple[Channel, ...]
    why: tuple[Why, ...]
    in_inbox: bool
    opened: int | None
    acted: int | None
    percent: int | None
    """Acted of opened. None unless both are told and no more have acted than opened: each is sent apart and by choice."""
    created_by: str
    authors: tuple[str, ...]
    approved_by: str
    created_at: datetime
    send_at: datetime | None
    first_try: datetime | None
    """As far as is known: for one that was held, the hour of tries begins anew."""
    ended_at: datetime | None
    """The last outcome, or when a person or its expiry ended it; None while it goes on, or where nothing was ever tried."""


class Totals(NamedTuple):
    """Several reports together. `opened` and `acted` are of those of which they are told: None when of none."""

    campaign: str
    notices: int
    states: tuple[tuple[str, int], ...]
    planned: int
    undecided: int
    messages: int
    sent: int
    inbox_only: int
    refused: int
    failed: int
    skipped: int
    opened: int | None
    acted: int | None


def standing(state: str, saved: bool) -> Label:
    """A notice's state in words; a draft that no person has saved waits to be read."""
    return TO_READ if state == "drafted" and not saved else STATES[state]


class _Row(NamedTuple):
    channel: str
    topic: str
    outcome: str
    detail: str


def released(keys: Sequence[str]) -> dict[str, dict[str, int]]:
    """What may be told of these notices: id -> {"opened": n, "acted": n}, each only where it was released. Sums over counties:
    who adds up what was told learns nothing more."""
    names = {f"notice:{key}:{what}": (key, what) for key in keys for what in NOTICE}
    found: dict[str, dict[str, int]] = {}
    for subject, n in statistics.persons(list(names)).items():
        key, what = names[subject]
        found.setdefault(key, {})[what] = n
    return found


def report(raw: Mapping[str, Any], told: Mapping[str, int], zone: ZoneInfo) -> Report:
    """The report of one notice as it is stored (as a record it takes 4 ms, and a year of a district has 500 of them); `told` is
    its part of `released`."""
    results = raw.get("results") or ()
    rows = [_Row(one.get("channel") or "fcm", one["topic"], one["outcome"], one.get("detail") or "") for one in results]
    tried = [one["at"] for one in results]
    opened, acted = told.get("opened"), told.get("acted")
    names = dict.fromkeys(["fcm", *(row.channel for row in rows)])
    channels = [_channel(name, [row for row in rows if row.channel == name]) for name in names]
    inbox = Channel("inbox", 0, 0, 0, 0, 0, 0, opened, NO_REACH["inbox"] if opened is None else None)
    why = Counter((row.channel, row.outcome, row.detail) for row in rows if row.outcome != "sent")
    places, tags = raw.get("divisions") or [], raw.get("push_languages") or sorted(raw["texts"])
    goes = () if raw["state"] == "cancelled" else topics.for_notice(places, raw["audiences"], raw.get("stages") or [], tags)
    best = _best(goes, rows)
    count = Counter(best.values())
    season, on = raw.get("season"), (raw.get("send_at") or raw["created_at"]).astimezone(zone).date()
    text: Mapping[str, str] = raw["texts"].get("zh-Hans") or next(iter(raw["texts"].values()), {})
    return Report(
        id=raw["_id"],
        title=text.get("title", ""),
        campaign=f"{season}.{raw.get('year') or on.year}" if season else "",
        kind=raw["kind"],
        on=on,
        divisions=tuple(places) or (divisions.COUNTRY,),
        state=raw["state"],
        reason=raw.get("reason") or "",
        planned=len(best),
        undecided=count[""],
        messages=sum(one.messages for one in channels),
        sent=count["sent"],
        inbox_only=count["inbox_only"],
        refused=count["refused"],
        failed=count["failed"],
        skipped=count["skipped"],
        channels=(*channels, inbox),
        why=tuple(Why(*key, n) for key, n in sorted(why.items())),
        in_inbox=raw["listed"],
        opened=opened,
        acted=acted,
        percent=round(100 * acted / opened) if opened and acted is not None and acted <= opened else None,
        created_by=raw["created_by"],
        authors=tuple(raw.get("authors") or ()),
        approved_by=raw.get("approved_by") or "",
        created_at=raw["created_at"],
        send_at=raw.get("send_at"),
        first_try=min([*filter(None, [raw.get("first_try")]), *tried], default=None),
        ended_at=_ended(raw["state"], tried, raw["updated_at"]),
    )


def _channel(name: str, rows: Sequence[_Row]) -> Channel:
    count = Counter(row.outcome for row in rows)
    messages = len({row.detail or row.topic for row in rows if row.outcome == "sent"})
    sent, inbox_only, refused, failed, skipped = (count[outcome] for outcome in OUTCOMES)
    return Channel(name, messages, sent, inbox_only, refused, failed, skipped, None, NO_REACH.get(name, NO_REACH["webhook"]))


def _best(topics: Sequence[str], rows: Sequence[_Row]) -> dict[str, str]:
    """Of each topic the best that any channel made of it; "" while there is nothing."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row.topic, set()).add(row.outcome)
    every = seen.pop(EVERY, set())
    names = dict.fromkeys([*topics, *seen])
    return {name: next((o for o in OUTCOMES if o in every or o in seen.get(name, ())), "") for name in names}


def _ended(state: str, tried: Sequence[datetime], changed: datetime) -> datetime | None:
    if state in {"expired", "cancelled"}:
        return changed
    return max(tried, default=None) if state in ENDED else None


# --- many ------------------------------------------------------------------------------------------------------------


def within(first: date, last: date, zone: ZoneInfo, season: str = "", division: str = "") -> list[dict[str, Any]]:
    """Notices, as stored, whose day (of their moment, else of their draft) lies in first..last, of a season, and that go to a
    division, one below it or one above it; "" does not filter. In no order. Costs a look at every notice of the store."""
    begin, end = (datetime.combine(day, time(), zone).astimezone(UTC) for day in (first, last + timedelta(days=1)))
    span = {"$gte": begin, "$lt": end}
    match: dict[str, Any] = {"$or": [{"send_at": span}, {"send_at": None, "created_at": span}]}
    if season:
        match["season"] = season
    found = Notice.rows().find(match)
    return [raw for raw in found if not division or goes_to(raw.get("divisions") or [], division)]


def reports(found: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> list[Report]:
    """The reports of these in their `order`: what belongs to no season first, then campaign by campaign; in each by day."""
    told = released([raw["_id"] for raw in found])
    return sorted((report(raw, told.get(raw["_id"], {}), zone) for raw in found), key=order)


def order(row: Report) -> list[str]:
    """The sort key of a list of reports."""
    return [row.campaign, row.on.isoformat(), row.id]


def campaigns(rows: Sequence[Report]) -> list[Totals]:
    """Of rows in their `order`, the totals of each campaign."""
    return [totals(list(found), name) for name, found in groupby(rows, key=lambda row: row.campaign)]


def totals(rows: Sequence[Report], campaign: str = "") -> Totals:
    """Reports added up."""

    def told(numbers: Iterable[int | None]) -> int | None:
        known = [n for n in numbers if n is not None]
        return sum(known) if known else None

    return Totals(
        campaign=campaign,
        notices=len(rows),
        states=tuple(sorted(Counter(row.state for row in rows).items())),
        planned=sum(row.planned for row in rows),
        undecided=sum(row.undecided for row in rows),
        messages=sum(row.messages for row in rows),
        sent=sum(row.sent for row in rows),
        inbox_only=sum(row.inbox_only for row in rows),
        refused=sum(row.refused for row in rows),
        failed=sum(row.failed for row in rows),
        skipped=sum(row.skipped for row in rows),
        opened=told(row.opened for row in rows),
        acted=told(row.acted for row in rows),
    )


# --- the table -------------------------------------------------------------------------------------------------------

HEAD = (
    "编号", "标题", "活动", "类型", "日期", "区划代码", "区划", "状态", "原因", "计划主题", "未定主题", "消息数", "已发主题",
    "只进信箱主题", "被拒主题", "失败主题", "跳过主题", "未发原因", "打开", "照做", "照做比例", "起草", "批准", "起草时间",
    "计划时间", "首次发送", "结束",
)  # fmt: skip


def table(rows: Sequence[Report], zone: ZoneInfo) -> bytes:
    """A row for each notice, as CSV (UTF-8 with a byte order mark), in Chinese; moments in the zone's time. What is not told is
    empty. People stand there by name; who has no account any more is left out. Reads the database for the names."""
    names = people(rows)
    return sheets.to_csv([HEAD, *(_cells(row, zone, names) for row in rows)])


def people(rows: Iterable[Report]) -> dict[str, str]:
    """The display names of who made, wrote and approved these, by id."""
    return staff.names({who for row in rows for who in (row.created_by, *row.authors, row.approved_by) if who})


def place(code: str) -> str:
    """A division's name; the country's for its code."""
    return "全国" if code == divisions.COUNTRY else divisions.get(code).name if divisions.known(code) else code


def _cells(row: Report, zone: ZoneInfo, names: Mapping[str, str]) -> list[str | int]:
    moments = (row.created_at, row.send_at, row.first_try, row.ended_at)
    season = row.campaign.partition(".")[0]
    return [
        row.id, row.title, f"{row.campaign} {SEASONS[season].zh}" if season in SEASONS else row.campaign, KIND_WORDS[row.kind],
        row.on.isoformat(), " ".join(row.divisions), "、".join(map(place, row.divisions)),
        standing(row.state, bool(row.authors)).zh, _said(row.reason, zone),
        row.planned, row.undecided, row.messages, row.sent, row.inbox_only, row.refused, row.failed,
        row.skipped, "；".join(_why(one, zone) for one in row.why),
        "" if row.opened is None else row.opened,
        "" if row.acted is None else row.acted,
        "" if row.percent is None else f"{row.percent}%",
        "、".join(names[who] for who in row.authors if who in names), names.get(row.approved_by, ""),
        *(moment.astimezone(zone).strftime("%Y-%m-%d %H:%M") if moment else "" for moment in moments),
    ]  # fmt: skip


def _said(reason: str, zone: ZoneInfo) -> str:
    """A reason in Chinese; "" without one."""
    return (reasons.said(reason, zone) or {"zh-Hans": ""})["zh-Hans"]


def _why(one: Why, zone: ZoneInfo) -> str:
    """ "推送被拒（429）× 3"."""
    told = f"（{_said(one.reason, zone)}）" if one.reason else ""
    return f"{CHANNEL_WORDS.get(one.channel, one.channel)}{OUTCOME_WORDS[one.outcome]}{told}× {one.topics}"

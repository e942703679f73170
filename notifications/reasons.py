"""Why a notice is where it is: a code, with a detail after a colon ("gave_up: 503 unavailable"), and what it says in words."""

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from content.failures import Text

TEXTS: Mapping[str, Text] = {
    "not_approved": Text("没有人在期限内批准", "nobody approved it in time"),
    "not_scheduled": Text("没有人在期限内排期", "nobody scheduled it in time"),
    "time_passed": Text("已过有效期", "its time passed"),
    "unconfirmed": Text("等待：本地的季节日期还没有确认", "held: the season's local date is not confirmed"),
    "date_moved": Text("季节日期有变动，按新日期重新起草", "the season's date was moved: drafted anew"),
    "campaign_stopped": Text("这一季的通知已叫停", "the season's campaign was stopped"),
    "adults_first": Text("等待：先发给大人，半小时后再发", "held: the adults hear first, half an hour before"),
    "held_until": Text("等待到 {detail}（夜间、考试或整刻时分）", "held until {detail}: night, an exam, or a crowded minute"),
    "fault": Text("出了差错，请看工作日志", "a fault: see the worker's log"),
    "trying": Text("还没有发成，会再试：{detail}", "not passed yet, to be tried again: {detail}"),
    "gave_up": Text("试了一小时没有发成：{detail}", "gave up after an hour: {detail}"),
    "refused": Text("有的没有被接受：{detail}", "some was refused: {detail}"),
    "no_credentials": Text("只在应用内：没有设置推送", "in the inbox only: push is not set up"),
    "no push credentials": Text("没有设置推送", "push is not set up"),
    "told_today": Text(
        "只在应用内：这些家庭今天已经收到过一次提醒", "in the inbox only: its families were told of something else today"
    ),
}


def said(reason: str | None, zone: ZoneInfo | None = None) -> dict[str, str] | None:
    """The words in zh-Hans and en; None without a reason. One that is not in the table is said as it is. The moment of
    `held_until` is told in the zone's time when one is given."""
    if not reason:
        return None
    code, _, detail = reason.partition(": ")
    if code == "held_until" and zone:
        detail = f"{datetime.fromisoformat(detail).astimezone(zone):%Y-%m-%d %H:%M}"
    return TEXTS.get(code, Text("{detail}", "{detail}")).fill({"detail": detail if code in TEXTS else reason})

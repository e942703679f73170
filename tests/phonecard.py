"""The help card on a phone without a network: its own code, made from what `content/helpcard.py` says and from nothing of ours.

All it needs it holds: the card's words and the directory from sync, and the lineage of its division from the day it was chosen.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

WEEK = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
ORDER = {True: 0, None: 1, False: 2}


def occurs(rule: str, day: date) -> bool:
    """FREQ=DAILY or FREQ=WEEKLY;BYDAY=…, perhaps with UNTIL."""
    parts = dict(part.split("=") for part in rule.split(";"))
    on = parts["FREQ"] == "DAILY" or WEEK[day.weekday()] in parts["BYDAY"].split(",")
    return on and f"{day:%Y%m%d}" <= parts.get("UNTIL", "99999999")


def open_now(schedules: Sequence[dict[str, Any]], at: datetime) -> bool | None:
    """True, False, or None where nobody recorded hours that still hold."""
    known = False
    for row in schedules:
        local = at.astimezone(ZoneInfo(row["timezone"]))
        clock, opens, closes = f"{local:%H:%M}", row["opens_at"], row["closes_at"]
        today, yesterday = (occurs(row["rrule"], local.date() - timedelta(days=days)) for days in (0, 1))
        over_midnight = (today and clock >= opens) or (yesterday and clock < closes)
        if (today and opens <= clock < closes) if opens < closes else over_midnight:
            return True
        known = known or f"{local:%Y%m%d}" <= row["rrule"].partition("UNTIL=")[2] or "UNTIL" not in row["rrule"]
    return False if known else None


def bare(number: str) -> str:
    """Only what is dialled."""
    return "".join(c for c in number if c not in " ()-")


def made(words: dict[str, Any], held: Sequence[dict[str, Any]], lineage: Sequence[str], at: datetime) -> dict[str, Any]:
    """The card from the held words and entries."""
    emergency = {row["number"] for row in words["emergency"]}
    lines = []
    for entry in held:
        numbers = {bare(phone["number"]) for phone in entry["phones"]}
        serves = not entry["divisions"] or set(entry["divisions"]) & set(lineage)
        if (
            entry["kind"] not in words["kinds"]
            or not serves
            or numbers & emergency
            or (entry["kind"] == "hotline" and not numbers)
        ):
            continue
        is_open = open_now(entry["schedules"], at)
        checked = entry["assured_date"]
        old = not checked or (at.date() - date.fromisoformat(checked)).days > words["stale_after_days"]
        said = next((row["note"] for row in entry["schedules"] if row["note"]), words["hours"] if is_open is None else "")
        line = {name: entry[name] for name in ("id", "kind", "name", "phones", "schedules", "url")}
        line |= {"open_now": is_open, "stale": old, "note": " ".join(filter(None, [said, words["stale"] if old else ""]))}
        rank = (ORDER[is_open], words["kinds"].index(entry["kind"]))
        lines.append((*rank, entry["order"], entry["id"], line))
    lines.sort(key=lambda row: row[:4])

    hotline = [row for row in lines if row[1] == 0][:1]
    text = [row for row in lines if words["kinds"][row[1]] == "text" and row[0] < 2][:1]
    must = hotline + text
    rest = [row for row in lines if row not in must][: words["most"] - len(must)]
    shown = sorted([*must, *rest], key=lambda row: row[:4])

    last = words["line"]["number"]
    if not any(row[1] == 0 and (row[0] < 2 or last in map(bare, (p["number"] for p in row[4]["phones"]))) for row in shown):
        constant = {"id": last, "kind": "hotline", "name": words["line"]["name"], "schedules": [], "open_now": None, "url": None}
        constant |= {"phones": [{"number": last, "languages": ["zh-Hans"]}], "stale": False, "note": words["hours"]}
        shown.append((1, 0, 10**9, last, constant))
        shown.sort(key=lambda row: row[:4])

    found = [row[4] for row in shown]
    called = [line for line in found if line["kind"] != "text" and line["phones"]]
    first = bare(called[0]["phones"][0]["number"]) if called else ""
    others = [(phone["number"], line["name"]) for line in called[1:] + called[:1] if line["open_now"] is not False
              for phone in line["phones"] if bare(phone["number"]) != first]  # fmt: skip
    number, name = others[0] if others else (last, words["line"]["name"])
    busy = words["again"] if not others and first == last else words["busy"].replace("{number}", number).replace("{name}", name)
    return {
        "title": words["title"], "language": words["language"], "lines": found,
        "if_busy": {"number": number, "name": name, "text": busy},
        "text": {key: words[key] for key in ("lead", "tonight", "message")}, "emergency": words["emergency"],
    }  # fmt: skip

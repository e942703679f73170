"""The help card: whom to call now, what to do tonight, a message ready to be sent, 110 and 120. It stands beside every risk.

The card never fails: with an empty directory, an unknown division or a damaged entry it still names 12356, 110 and 120, from the
words below. Hours are as recorded; a line whose hours nobody knows is shown as that, after those that are open.

A phone without a network makes the same card from what it holds (`words` and the entries of the directory, both in sync):

1. the entries of `kinds` whose `divisions` are empty or hold a code of the division's lineage (`GET /v1/divisions/{code}`, kept);
   without those whose number is an emergency number, which stand apart;
2. open first, then of unknown hours, then closed (`directory.open_now`); among those by kind as `kinds` has them, then by `order`
   and `id`; of more than `most` lines the first hotline and the first text service that is not closed stay in any case;
3. no hotline that may answer: `line` is added, as one of unknown hours, unless its number is there;
4. `if_busy`: see `next_call`.

`api/reader/card.js` does it, and is compared with this.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from content import languages
from content.directory import RANK, STALE_AFTER, services
from content.published import Snapshot

log = logging.getLogger("xinqiao.helpcard")

# In the order in which they stand among equally open ones. No "information": whoever calls a city's service line in distress is
# asked what the complaint is about. No "clinic": nobody goes there tonight.
KINDS = ("hotline", "text", "counselling")
LINES = 8  # someone in distress reads a few lines, not a list
EMERGENCY = ("110", "120")
SHOWN = ("id", "kind", "name", "phones", "schedules", "open_now", "stale", "url")
LAST = "12356"  # the national line, named when the directory knows no other

# They are read by a child in distress: short, warm, nothing to decide, no name for what is felt.
WORDS: dict[str, dict[str, Any]] = {
    "zh-Hans": {
        "title": "现在就可以找人说说",
        "lead": "心里难受的时候，不用一个人扛着。接电话的人会认真听你说，不会怪你。",
        "tonight": [
            "找一个让你安心的人陪着：老师、亲人、同学、邻居，谁让你安心就找谁。今晚尽量不要一个人待着。",
            "如果担心自己会伤害自己，请把这件事直接告诉身边的大人，请他们陪着你，让周围安全一些。",
            "喝点温水，慢慢呼几口气，先安稳地过好今晚。别的事，明天和大人一起想办法。",
            "电话占线，就拨下一个，或过几分钟再拨。你没有打扰任何人。",
        ],
        "message": "我现在心里很难受，想有人陪陪我。你能给我打个电话，或者过来一下吗？不用马上想办法，听我说说就好。",
        "emergency": {
            "110": "有人正受到伤害或威胁，或觉得马上会有危险",
            "120": "有人受伤，或身体很不舒服，需要马上就医",
        },
        LAST: "全国统一心理援助热线",
        "busy": "如果占线，就拨 {number}，{name}。",
        "busy_named": "如果占线，就拨{name}。",
        "again": "如果占线，过几分钟再拨一次。等的时候，可以先把准备好的那条消息发给一位让你安心的大人。",
        "hours": "服务时间未登记，可以直接试试；占线请过一会儿再拨。",
        "stale": "此信息已半年以上没有核对。",
    },
    "en": {
        "title": "You can talk to someone now",
        "lead": "When things hurt, you need not carry them alone. Whoever answers will listen and will not blame you.",
        "tonight": [
            "Be with whoever makes you feel safe: a teacher, a relative, a friend, a neighbour. Try not to be alone tonight.",
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
        LAST: "National psychological support line",
        "busy": "If it is busy: {number}, {name}.",
        "busy_named": "If it is busy: {name}.",
        "again": "If it is busy, call again in a few minutes. Meanwhile you can send the message that is ready here to an adult "
        "who makes you feel safe.",
        "hours": "Hours are not recorded; you can simply try. If it is busy, try again a little later.",
        "stale": "Not checked for more than half a year.",
    },
}


def words(language: str) -> dict[str, Any]:
    """What of the card does not depend on place and moment, for a phone that keeps it: {"title", "language", "lead", "tonight",
    "message", "emergency": [{"number", "name"}], "line" (12356), "hours", "stale" (words for lines without hours, and for those
    unchecked for `stale_after_days`), "busy", "busy_named", "again" (words of `if_busy`, see `busy`), "kinds", "most"}."""
    own = languages.pick(WORDS, [language])
    said = WORDS[own]
    return {
        **{name: said[name] for name in ("title", "lead", "tonight", "message", "hours", "stale", "busy", "busy_named", "again")},
        "language": own,
        "emergency": [{"number": number, "name": said["emergency"][number]} for number in EMERGENCY],
        "line": {"number": LAST, "name": said[LAST]},
        "kinds": list(KINDS),
        "most": LINES,
        "stale_after_days": STALE_AFTER.days,
    }


def card(snapshot: Snapshot, division: str | None, at: datetime, language: str) -> dict[str, Any]:
    """The help card for a place and a moment:

    {"title", "language", "lines": [{"id", "kind", "name", "phones", "schedules", "open_now", "note", "stale", "url"}],
     "if_busy": {"number", "name", "text"}, "text": {"lead", "tonight": [...], "message"},
     "emergency": [{"number": "110", "name"}, {"number": "120", "name"}]}

    There is always a hotline among the lines. `message` is ready to be sent to a trusted adult. The card's language is the
    nearest of zh-Hans and en; names come in the reader's own where the directory has it. Never raises.
    """
    try:
        said = words(language)
        lines = _lines(services(snapshot, division, at, language, KINDS), said)
        call = next_call(lines, said)
    except Exception:  # whoever reads this card must get it
        log.exception("the help card fell back to its constant lines")
        said = words("zh-Hans")
        lines = [_last(said)]
        call = next_call(lines, said)
    return {
        "title": said["title"],
        "language": said["language"],
        "lines": lines,
        "if_busy": call,
        "text": {name: said[name] for name in ("lead", "tonight", "message")},
        "emergency": said["emergency"],
    }


def _lines(found: Sequence[Mapping[str, Any]], said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The card's lines from what serves the division."""
    lines: list[dict[str, Any]] = []
    for service in found:
        try:
            numbers = [_bare(phone["number"]) for phone in service["phones"] or ()]
            if set(numbers) & {*EMERGENCY} or (service["kind"] == "hotline" and not numbers):
                continue  # the first stand in `emergency`, always; the second cannot be called
            notes = [row["note"] for row in service["schedules"] if row["note"]]
            note = notes[0] if notes else said["hours"] if service["open_now"] is None else ""
            line = {name: service[name] for name in SHOWN}
            lines.append(line | {"note": " ".join(filter(None, [note, said["stale"] if service["stale"] else ""]))})
        except Exception as error:  # one damaged entry takes no other line away
            log.warning("service %s cannot be shown on the card: %s", service.get("id"), type(error).__name__)
    lines.sort(key=_rank)
    lines = _first(lines)
    hotlines = [line for line in lines if line["kind"] == "hotline"]
    named = {_bare(phone["number"]) for line in hotlines for phone in line["phones"]}
    if LAST not in named and not any(map(_may_answer, hotlines)):
        lines.append(_last(said))
        lines.sort(key=_rank)
    return lines


def _rank(line: Mapping[str, Any]) -> tuple[int, int]:
    """What comes before a line's `order` and id."""
    return RANK[line["open_now"]], KINDS.index(line["kind"])


def _may_answer(line: Mapping[str, Any]) -> bool:
    return line["open_now"] is not False


def _first(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most LINES of sorted lines. The first hotline stays, and the first text service that may answer: some can write what
    they cannot say."""
    hotline = next((line for line in lines if line["kind"] == "hotline"), None)
    text = next((line for line in lines if line["kind"] == "text" and _may_answer(line)), None)
    kept = [line for line in (hotline, text) if line is not None]
    for line in lines:
        if len(kept) < LINES and not any(line is one for one in kept):
            kept.append(line)
    return [line for line in lines if any(line is one for one in kept)]


def _last(said: Mapping[str, Any]) -> dict[str, Any]:
    phone = {"number": LAST, "languages": ["zh-Hans"]}
    line = {"id": LAST, "kind": "hotline", "name": said["line"]["name"], "phones": [phone], "schedules": [], "open_now": None}
    return line | {"stale": False, "url": None, "note": said["hours"]}


def _bare(number: str) -> str:
    """A number without its blanks and brackets."""
    return re.sub("[ ()-]", "", number)


def next_call(lines: Sequence[Mapping[str, Any]], said: Mapping[str, Any]) -> dict[str, str]:
    """Whom to call when the first line that can be called is busy: {"number", "name", "text"}.

    The first number of a later line that may answer and is another number; else another number of the first line itself; else
    12356. Where that is the first already and there is no other, it is 12356 again, a few minutes later.
    """
    callable_ = [line for line in lines if line["kind"] != "text" and line["phones"]]
    first = callable_[0] if callable_ else None
    called = _bare(first["phones"][0]["number"]) if first else ""
    for line in [*callable_[1:], *callable_[:1]]:
        for phone in line["phones"]:
            if _may_answer(line) and _bare(phone["number"]) != called:
                return busy(said, phone["number"], line["name"])
    return {**said["line"], "text": said["again"]} if called == LAST else busy(said, **said["line"])


def busy(said: Mapping[str, Any], number: str, name: str) -> dict[str, str]:
    """{"number", "name", "text"}; the text says the number once: by the name alone where that holds this number and no other."""
    runs = [_bare(run) for run in re.findall("[0-9][0-9 ()-]*", name)]
    sentence = said["busy_named"] if runs == [_bare(number)] else said["busy"]
    return {"number": number, "name": name, "text": sentence.format(number=number, name=name)}

"""The help card: its order, the next number, the same card on a phone without a network; filters that hide nothing unknown."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
import quickjs
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from api.bootstrap import LIBRARY
from content import directory, divisions, helpcard, store
from content.failures import Invalid
from content.published import Snapshot, release
from content.records import SYSTEM
from tests.site import Site
from tests.test_directory import DAILY, FRIDAY, NOON, SHANGHAI, WEEKDAYS, entry, line, snapshot
from tests.test_openapi import Walk

ALWAYS = [line(DAILY, "00:00", "24:00")]
CLOSED = [line(FRIDAY, "09:00", "10:00")]

REFERENCE = Path(__file__).parents[1] / "api" / "reader" / "card.js"
ZONES = available_timezones()
RUN = """
function run(text) {
  const {words, held, lineage, at, walls} = JSON.parse(text);
  return JSON.stringify(card(words, held, lineage, at, (zone) => walls[zone]));
}
"""


@cache
def engine() -> quickjs.Context:
    """The phone's card in an engine of its own, which knows no time zones."""
    made = quickjs.Context()
    made.eval(re.sub(r"^export ", "", REFERENCE.read_text(), flags=re.M) + RUN)
    return made


def on_phone(words: dict[str, Any], held: Sequence[Any], lineage: Sequence[str], at: datetime) -> dict[str, Any]:
    """The card that a phone makes of what it holds."""
    zones = set(re.findall('"timezone": "([^"]+)"', json.dumps(held))) & ZONES
    walls = {zone: f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}" for zone in zones}
    text = {"words": words, "held": held, "lineage": lineage, "at": int(at.timestamp() * 1000), "walls": walls}
    return json.loads(engine().eval(f"run({json.dumps(json.dumps(text))})"))  # type: ignore[no-any-return]


def numbered(key: str, number: str, **more: Any) -> dict[str, Any]:
    return entry(key, phones=[{"number": number, "languages": ["zh-Hans"]}], **more)


def test_open_lines_then_text_then_unknown_then_closed() -> None:
    published = snapshot(
        numbered("closed", "1001", order=1, schedules=CLOSED),
        numbered("unknown", "1002", order=2),
        entry("chat", kind="text", phones=[], order=3, schedules=ALWAYS, url="https://example.org/chat"),
        entry("maybe-chat", kind="text", phones=[], order=1, url="https://example.org/other"),
        numbered("open", "1003", order=4, schedules=ALWAYS),
        numbered("room", "1004", kind="counselling", order=1, schedules=ALWAYS),
        numbered("clinic", "1005", kind="clinic", order=1, schedules=ALWAYS),
        numbered("police", "110", order=1, schedules=ALWAYS),
        numbered("city", "12345", kind="information", order=1, schedules=ALWAYS),
        entry("no-number", phones=[], order=1, schedules=ALWAYS),
    )
    card = helpcard.card(published, None, NOON, "zh-Hans")
    assert [row["id"] for row in card["lines"]] == ["open", "chat", "room", "unknown", "maybe-chat", "closed"]
    assert card["lines"][0]["schedules"][0]["opens_at"] == "00:00"  # hours as recorded
    assert [row["note"] for row in card["lines"][3:]] == [helpcard.WORDS["zh-Hans"]["hours"]] * 2 + [""]
    assert card["if_busy"] == {"number": "1004", "name": "热线room", "text": "如果占线，就拨 1004，热线room。"}


@pytest.mark.parametrize(
    ("entries", "first", "busy"),
    [
        ([], "12356", "12356"),  # it knows no other: the same again, a little later
        ([numbered("a", "1001")], "1001", "12356"),  # the last resort
        (
            [numbered("a", "1001"), numbered("b", "10-01"), numbered("c", "1002")],
            "1001",
            "1002",
        ),  # another number, not another name
        ([numbered("a", "1001", schedules=ALWAYS), numbered("b", "1002", schedules=CLOSED)], "1001", "12356"),
        ([numbered("a", "1001", schedules=CLOSED), numbered("b", "1002", schedules=CLOSED)], "12356", "12356"),
        ([entry("a", phones=["1001", "1002"])], "1001", "1002"),  # its own second number
        ([entry("a", phones=["1001", "1002"]), numbered("b", "1003")], "1001", "1003"),  # a line of its own before that
        ([numbered("a", "12356", schedules=CLOSED)], "12356", "12356"),  # closed as recorded: not made unknown
        ([numbered("sms", "1009", kind="text", schedules=ALWAYS), numbered("a", "1001")], "1001", "12356"),  # one calls no text
    ],
)
def test_the_next_number_when_the_first_is_busy(entries: list[Any], first: str, busy: str) -> None:
    for language in ("zh-Hans", "en"):
        card = helpcard.card(snapshot(*entries), None, NOON, language)
        called = [row for row in card["lines"] if row["kind"] != "text"]
        assert (called[0]["phones"][0]["number"], card["if_busy"]["number"]) == (first, busy)
        again = card["if_busy"]["text"] == helpcard.WORDS[language]["again"]
        assert again is (first == busy) and (again or busy in card["if_busy"]["text"])


@pytest.mark.parametrize(
    ("number", "name", "chinese", "english"),
    [
        ("1004", "青青热线", "如果占线，就拨 1004，青青热线。", "If it is busy: 1004, 青青热线."),
        ("12355", "12355 youth line (CYL)", "如果占线，就拨12355 youth line (CYL)。", "If it is busy: 12355 youth line (CYL)."),
        ("023-12355", "心理热线（023 12355）", "如果占线，就拨心理热线（023 12355）。", "If it is busy: 心理热线（023 12355）."),
        ("1235", "12355", "如果占线，就拨 1235，12355。", "If it is busy: 1235, 12355."),  # it is another number
        ("1004", "24 小时 1004", "如果占线，就拨 1004，24 小时 1004。", "If it is busy: 1004, 24 小时 1004."),  # rather twice
        ("1004", "{number} $& {0}", "如果占线，就拨 1004，{number} $& {0}。", "If it is busy: 1004, {number} $& {0}."),
    ],
)
def test_who_is_next_is_said_with_the_number_once(number: str, name: str, chinese: str, english: str) -> None:
    published = snapshot(numbered("a", "1001", order=1), numbered("b", number, name={"zh-Hans": name}, order=2))
    for language, text in (("zh-Hans", chinese), ("en", english)):
        card = helpcard.card(published, None, NOON, language)
        assert card["if_busy"] == {"number": number, "name": name, "text": text}
        assert on_phone(helpcard.words(language), held_of(published, language), [], NOON) == card


def test_many_lines_leave_room_for_a_hotline_and_for_who_can_only_write() -> None:
    chats = [entry(f"chat{n}", kind="text", phones=[], schedules=ALWAYS) for n in range(9)]
    lines = helpcard.card(snapshot(*chats, numbered("a", "1001")), None, NOON, "zh")["lines"]
    assert len(lines) == helpcard.LINES and lines[-1]["id"] == "a"
    hotlines = [numbered(f"h{n}", f"100{n}", schedules=ALWAYS) for n in range(9)]
    lines = helpcard.card(snapshot(*hotlines, entry("chat", kind="text", phones=[])), None, NOON, "zh")["lines"]
    assert len(lines) == helpcard.LINES and lines[-1]["id"] == "chat"


class Broken(Snapshot):
    """A published set that cannot be read at all."""

    def entries(self, kind: str) -> Any:
        """Never."""
        raise RuntimeError


@pytest.mark.parametrize("language", ["zh-Hans", "en", "??"])
def test_whatever_fails_inside_the_constant_words_are_there(language: str) -> None:
    card = helpcard.card(Broken(), "150603", NOON, language)
    assert (card["lines"][0]["phones"][0]["number"], card["if_busy"]["number"], len(card["emergency"])) == ("12356", "12356", 2)
    assert card["text"]["message"] and card["text"]["tonight"]


PLACES = (None, "150603", "500114", "130527")  # the last is retired, 130506 took over
hours = st.builds(
    line,
    st.sampled_from([DAILY, WEEKDAYS, FRIDAY, f"{DAILY};UNTIL=20261126", f"{FRIDAY};UNTIL=20261127"]),
    st.sampled_from(["00:00", "09:00", "22:00"]),
    st.sampled_from(["02:00", "09:00", "17:30", "24:00"]),
    st.sampled_from(["Asia/Shanghai", "Asia/Urumqi"]),
)
served = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(directory.KINDS),
        "phones": st.lists(st.sampled_from(["12356", "1 0 0 1", "1001", "1002", "110", "023 (7922)"]), max_size=2),
        "schedules": st.lists(hours, max_size=2),
        "divisions": st.sampled_from([[], [], ["150603"], ["150000"], ["500114"], ["130506"]]),
        "order": st.integers(0, 3),
        "assured_date": st.sampled_from([None, "2026-05-27", "2026-05-28", "2026-11-01"]),
    }
)


def held_of(published: Snapshot, language: str) -> list[dict[str, Any]]:
    """The directory as sync gives it to a phone of this language."""
    return [directory.spoken(texts["*"].content or {}, language) for texts in published.entries("service").values()]


@effort(max_examples=50, deadline=None)
@given(
    rows=st.lists(served, max_size=14), place=st.sampled_from(PLACES), language=st.sampled_from(["zh-Hans", "en", "mn-Mong"]),
    at=st.datetimes(datetime(2026, 11, 23), datetime(2026, 12, 1), timezones=st.sampled_from([SHANGHAI, UTC])),  # noqa: DTZ001
)  # fmt: skip
def test_a_phone_without_a_network_makes_the_same_card(rows: list[Any], place: str | None, language: str, at: datetime) -> None:
    published = snapshot(*(entry(f"e{n}", **row) for n, row in enumerate(rows)))
    lineage = divisions.lineage(place) if place else []
    told = on_phone(helpcard.words(language), held_of(published, language), lineage, at)
    assert told == helpcard.card(published, place, at, language)


@pytest.mark.parametrize(
    "damage",
    [
        {"phones": None}, {"phones": [{}]}, {"divisions": None}, {"schedules": None}, {"order": None}, {"kind": 3},
        {"name": None}, {"schedules": [{}]}, {"schedules": [line(DAILY, "00:00", "24:00", "Mars/Base")]},
        {"assured_date": "soon"},
    ],
)  # fmt: skip
def test_a_damaged_entry_takes_no_card_from_a_phone(damage: dict[str, Any]) -> None:
    held = held_of(snapshot(numbered("a", "1001", order=1), numbered("b", "1002", order=2, schedules=ALWAYS)), "en")
    card = on_phone(helpcard.words("en"), [held[0] | damage, held[1], None, {}], [], NOON)
    assert card["lines"][0]["id"] == "b" and [row["number"] for row in card["emergency"]] == ["110", "120"]
    assert all(row["open_now"] is None for row in card["lines"][1:])  # never a wrong "closed"


def test_the_phones_card_is_a_module_for_a_page() -> None:
    text = REFERENCE.read_text()
    quickjs.Context().module(text)
    assert "import" not in re.findall(r"^\w+", text, flags=re.M)
    assert re.findall(r"^export function (\w+)", text, flags=re.M) == ["card", "openNow"]


def test_no_public_information_line_on_the_card_of_the_starter_library() -> None:
    published = snapshot(*json.loads((LIBRARY / "directory.json").read_text()))
    card = helpcard.card(published, "150603", NOON, "en")
    assert [row["phones"][0]["number"] for row in card["lines"]] == ["12356", "12355", "12338"]
    assert card["if_busy"]["text"] == "If it is busy: 12355 youth service line (Communist Youth League)."
    own = numbered("hotline-12320-ours", "12320", divisions=["150603"])  # a place that says it is a psychological line
    lines = helpcard.card(snapshot(*json.loads((LIBRARY / "directory.json").read_text()), own), "150603", NOON, "en")["lines"]
    assert "hotline-12320-ours" in {row["id"] for row in lines}


def test_filters_leave_out_only_what_is_known_not_to_fit() -> None:
    def kept(shown: list[dict[str, Any]], **wanted: Any) -> str:
        return "".join(one["id"] for one in shown if not directory.left_out(one, **wanted))

    speaks = {"a": ["mn-Mong"], "b": ["zh-Hans"], "c": [], "d": ["zh-Hans"]}
    shown = directory.services(
        snapshot(*(entry(k, phones=[{"number": "1001", "languages": v}], urgent=k == "d") for k, v in speaks.items())),
        None, NOON, "zh-Hans",
    )  # fmt: skip
    assert (kept(shown, answering="mn-Mong"), kept(shown, answering="mn-Cyrl"), kept(shown)) == ("acd", "acd", "abcd")
    assert kept(shown, answering="zh-Hant") == "bcd"  # a script is not heard
    ages: dict[str, Any] = {"a": {"min": 6, "max": 17}, "b": {"min": 18}, "c": {}, "d": {"max": 3}}
    shown = directory.services(snapshot(*(entry(k, ages=v, urgent=k == "d") for k, v in ages.items())), None, NOON, "zh-Hans")
    assert [kept(shown, age=age) for age in (5, 6, 17, 18)] == ["cd", "acd", "acd", "bcd"]
    times = {"a": ALWAYS, "b": CLOSED, "c": [], "d": CLOSED}
    shown = directory.services(
        snapshot(*(entry(k, schedules=v, urgent=k == "d") for k, v in times.items())), None, NOON, "zh-Hans"
    )
    assert kept(shown, open_only=True) == "ac"  # urgent or not: it does not answer now


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ({"latitude": 39.6, "longitude": 109.79}, []),
        ({"latitude": 0, "longitude": -180}, []),
        ({"latitude": 39.6}, ["longitude"]),
        ({"longitude": 109.79}, ["latitude"]),
        ({"latitude": 90.1, "longitude": 180.1}, ["latitude", "longitude"]),
        ({"latitude": float("nan"), "longitude": float("inf")}, ["latitude", "longitude"]),
        ({"latitude": "39.6", "longitude": True}, ["latitude", "longitude"]),
    ],
)
def test_a_place_is_whole_and_on_earth(place: dict[str, Any], wrong: list[str]) -> None:
    try:
        _, fields = directory.checked(entry("a", **place))
    except Invalid as failure:
        assert [error.field for error in failure.errors] == wrong
    else:
        assert not wrong and {k: fields[k] for k in place} == place


def test_lists_over_http_say_how_many_a_filter_left_out_and_take_no_place(site: Site) -> None:
    here = {"latitude": 39.6086, "longitude": 109.7901, "address": "康巴什区团结路1号", "appointment": "不用预约，直接来。"}
    mongol = entry("mongol", divisions=["150603"], organization="康巴什区妇联", **here)
    mongol["phones"] = [{"number": "0477-1", "languages": ["mn-Mong"]}]
    rows = [mongol, numbered("han", "0477-2", ages={"min": 18}), numbered("12356", "12356", urgent=True)]
    rows.append(numbered("city", "12345", kind="information", ages={"max": 3}))
    other = (datetime.now(SHANGHAI).hour + 12) % 24  # half a day from now
    rows.append(numbered("shut", "0477-3", schedules=[line(DAILY, f"{other:02}:00", f"{other:02}:30")]))
    items = [item for texts in snapshot(*rows).entries("service").values() for item in texts.values()]
    store.transaction(lambda session: release(session, items))
    site.refresh()
    ask = "/v1/hotlines?division=150603"
    whole = site.get(ask).json()
    assert len(whole["items"]) == 5 and whole["left_out"] == 0
    assert {one["kind"] for one in whole["items"]} == {"hotline", "information"}
    ours = next(one for one in whole["items"] if one["id"] == "mongol")
    assert {name: ours[name] for name in here} == here and ours["organization"] == "康巴什区妇联"
    spoken = site.get(f"{ask}&answers_in=mn").json()
    assert ({one["id"] for one in spoken["items"]}, spoken["left_out"]) == ({"mongol", "12356"}, 3)
    young = site.get("/v1/services?division=150603&age=12&kind=hotline&limit=1&answers_in=zh-CN").json()
    assert (len(young["items"]), young["left_out"]) == (1, 2)
    still = site.get(f"{ask}&open_now=true").json()  # unknown hours stay
    assert ([one["open_now"] for one in still["items"]], still["left_out"]) == ([None] * 4, 1)
    for name in ("latitude", "longitude", "near"):
        assert site.get(f"{ask}&{name}=39.6").status_code == 422


def test_a_check_that_is_gone_has_the_card_in_its_place(site: Site) -> None:
    answer = site.get("/v1/checks/recalled", headers={"Accept-Language": "en"})
    assert (answer.status_code, answer.json()["help"]["language"]) == (404, "en")
    assert [row["number"] for row in answer.json()["help"]["emergency"]] == ["110", "120"]


def test_help_answers_what_is_documented(site: Site) -> None:
    by, walk = site.person("edna", "editor"), Walk(site)
    noted = {**line(DAILY, "08:00", "22:00"), "note": {"zh-Hans": "节假日照常", "en": "on holidays too"}}
    texts = {name: {"zh-Hans": "一", "en": "one"} for name in directory.TEXTS}
    whole = entry(
        "whole", **texts, schedules=[noted], ages={"min": 6, "max": 18}, latitude=1.5, longitude=2, url="https://a.example"
    )
    directory.put(whole | {"sources": ["a"], "assured_by": "小李", "divisions": ["150603"]}, SYSTEM)
    directory.publish("whole", SYSTEM)
    site.refresh()
    for language in ("zh-Hans", "mn-Mong"):
        for rule in ("/v1/hotlines", "/v1/services", "/v1/help-card"):
            assert walk.get(rule, "?division=150603", language=language)
    assert walk.get("/v1/staff/services", by=by)["items"][0] == walk.get(
        "/v1/staff/services/{service_id}", by=by, service_id="whole"
    )
    assert walk.document.untold() == []
    assert {"SupportCard", "SupportNextCall", "SupportServiceStaff"} <= walk.document.seen.keys()

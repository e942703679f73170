"""The help directory: hours as recorded, scope by division, and a card that is there whatever happens."""

import csv
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from content import directory, directoryfiles, helpcard, records, staff
from content.failures import Conflict, Forbidden, Invalid, NotFound, Stale
from content.published import ANY, Item, Reader, Snapshot
from content.settings import Settings
from tests.site import Site

SHANGHAI = ZoneInfo("Asia/Shanghai")
LIBRARY = Path(directory.__file__).parent / "library"
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=SHANGHAI)  # a Monday


def line(rule: str, opens: str, closes: str, zone: str = "Asia/Shanghai") -> dict[str, Any]:
    return {"rrule": rule, "opens_at": opens, "closes_at": closes, "timezone": zone, "note": {}}


DAILY, WEEKDAYS, FRIDAY = "FREQ=DAILY", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "FREQ=WEEKLY;BYDAY=FR"


@pytest.mark.parametrize(
    ("hours", "moment", "expected"),
    [
        ([], "2026-11-23T12:00", None),  # never assumed
        ([line(DAILY, "08:00", "22:00")], "2026-11-23T08:00", True),
        ([line(DAILY, "08:00", "22:00")], "2026-11-23T07:59", False),
        ([line(DAILY, "08:00", "22:00")], "2026-11-23T22:00", False),  # closed at its closing time
        ([line(WEEKDAYS, "09:00", "17:00")], "2026-11-23T10:00", True),  # Monday
        ([line(WEEKDAYS, "09:00", "17:00")], "2026-11-22T10:00", False),  # Sunday
        ([line(DAILY, "00:00", "24:00")], "2026-11-23T00:00", True),
        ([line(DAILY, "00:00", "24:00")], "2026-11-23T23:59", True),
        ([line(DAILY, "18:00", "24:00")], "2026-11-23T23:59", True),
        ([line(DAILY, "18:00", "24:00")], "2026-11-24T00:00", False),
        ([line(FRIDAY, "22:00", "02:00")], "2026-11-27T23:00", True),  # Friday night
        ([line(FRIDAY, "22:00", "02:00")], "2026-11-28T01:59", True),  # its small hours are Saturday's
        ([line(FRIDAY, "22:00", "02:00")], "2026-11-28T02:00", False),
        ([line(FRIDAY, "22:00", "02:00")], "2026-11-27T01:00", False),  # Thursday's night was none
        ([line(FRIDAY, "22:00", "02:00")], "2026-11-28T23:00", False),
        ([line(WEEKDAYS, "09:00", "12:00"), line(WEEKDAYS, "14:00", "17:00")], "2026-11-23T13:00", False),
        ([line(WEEKDAYS, "09:00", "12:00"), line(WEEKDAYS, "14:00", "17:00")], "2026-11-23T15:00", True),
        ([line(DAILY, "09:00", "17:00", "Asia/Urumqi")], "2026-11-23T10:00", False),  # 08:00 there
        ([line(f"{DAILY};UNTIL=20261122", "08:00", "22:00")], "2026-11-22T23:00", False),  # its last day
        ([line(f"{DAILY};UNTIL=20261101", "00:00", "24:00")], "2026-11-23T10:00", None),  # what holds since nobody recorded
        ([line(f"{FRIDAY};UNTIL=20261127", "22:00", "02:00")], "2026-11-28T01:00", True),  # the night goes on past its last day
        ([line(f"{DAILY};UNTIL=20261101", "00:00", "24:00"), line(FRIDAY, "09:00", "17:00")], "2026-11-23T10:00", False),
        ([line("FREQ=SOMETIMES", "09:00", "17:00")], "2026-11-23T10:00", None),  # damaged: unknown, not closed
    ],
)
def test_open_now_by_the_hours_as_recorded(hours: list[Any], moment: str, expected: bool | None) -> None:
    at = datetime.fromisoformat(moment).replace(tzinfo=SHANGHAI)
    assert directory.open_now({"id": "x", "schedules": hours}, at) is expected
    assert directory.open_now({"id": "x", "schedules": hours}, at.astimezone(UTC)) is expected


def entry(key: str, **more: Any) -> dict[str, Any]:
    """An entry as `put` takes it."""
    return {
        "id": key, "kind": "hotline", "name": {"zh-Hans": f"热线{key}", "en": f"line {key}"},
        "phones": [{"number": "12356", "languages": ["zh-Hans"]}], "assured_date": "2026-11-01", **more,
    }  # fmt: skip


def snapshot(*entries: dict[str, Any]) -> Snapshot:
    """A published set of these entries, as `publish` would release them."""
    items = []
    for one in entries:
        key, fields = directory.checked(one)
        items.append(Item("service", key, ANY, {"id": key, **fields}))
    return Snapshot().after(1, items)


def test_services_by_division_open_first() -> None:
    published = snapshot(
        entry("unknown", order=1),
        entry("closed", order=2, schedules=[line(FRIDAY, "09:00", "17:00")]),
        entry("open", order=3, schedules=[line(DAILY, "08:00", "22:00")]),
        entry("qianjiang", order=0, divisions=["500114"], schedules=[line(DAILY, "08:00", "22:00")]),
        entry("chongqing", order=9, divisions=["500000"], schedules=[line(DAILY, "08:00", "22:00")]),
        entry("wuhan", divisions=["420100"]),
    )
    found = directory.services(published, "500114", NOON, "zh-Hans")
    assert [s["id"] for s in found] == ["qianjiang", "open", "chongqing", "unknown", "closed"]
    assert [s["open_now"] for s in found] == [True, True, True, None, False]
    assert found[0]["name"] == "热线qianjiang"
    assert directory.services(published, "500114", NOON, "en-GB")[0]["name"] == "line qianjiang"
    assert [s["id"] for s in directory.services(published, None, NOON, "zh")] == ["open", "unknown", "closed"]
    assert directory.services(published, "999999", NOON, "zh") == directory.services(published, None, NOON, "zh")
    assert "assured_by" not in found[0]


def test_an_entry_nobody_checked_for_180_days_says_so() -> None:
    published = snapshot(
        entry("fresh", assured_date=(NOON - timedelta(days=180)).date().isoformat()),
        entry("old", assured_date=(NOON - timedelta(days=181)).date().isoformat()),
        entry("never", assured_date=None),
    )
    assert {s["id"]: s["stale"] for s in directory.services(published, None, NOON, "zh")} == {
        "fresh": False,
        "old": True,
        "never": True,
    }
    card = helpcard.card(published, None, NOON, "en")
    assert {s["id"]: "half a year" in s["note"] for s in card["lines"]} == {"fresh": False, "old": True, "never": True}


def test_the_card_with_an_empty_directory_still_helps() -> None:
    for division in (None, "", "500114", "nonsense", "000000"):
        card = helpcard.card(Snapshot(), division, NOON, "zh-CN")
        assert [row["phones"][0]["number"] for row in card["lines"]] == ["12356"]
        assert [row["number"] for row in card["emergency"]] == ["110", "120"]
        assert card["text"]["message"] and len(card["text"]["tonight"]) >= 3
    assert helpcard.card(Snapshot(), None, NOON, "en-US")["language"] == "en"
    assert helpcard.card(Snapshot(), None, NOON, "not a tag")["language"] == "zh-Hans"


def test_the_card_names_12356_when_only_a_chat_is_listed() -> None:
    card = helpcard.card(
        snapshot(entry("chat", kind="text", phones=[], schedules=[line(DAILY, "00:00", "24:00")])), None, NOON, "zh-Hans"
    )
    assert [(row["id"], row["open_now"]) for row in card["lines"]] == [("chat", True), ("12356", None)]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
damaged = st.dictionaries(st.sampled_from(("id", *directory.FIELDS)), anything, max_size=14) | st.fixed_dictionaries(
    {
        "kind": st.sampled_from(directory.KINDS),
        "name": st.dictionaries(st.sampled_from(["zh-Hans", "en", "mn-Mong", "??"]), st.text(max_size=5)),
        "phones": st.lists(st.fixed_dictionaries({"number": st.sampled_from(["12356", "110", "120"])}), max_size=2),
        "schedules": st.lists(
            st.fixed_dictionaries(
                {
                    "rrule": st.sampled_from([DAILY, FRIDAY, "FREQ=SECONDLY", ""]),
                    "opens_at": st.sampled_from(["09:00", "24:00", "x"]),
                    "closes_at": st.sampled_from(["17:00", "02:00", "24:00"]),
                    "timezone": st.sampled_from(["Asia/Shanghai", "Mars"]),
                }
            ),
            max_size=2,
        ),
        "divisions": st.lists(st.sampled_from(["500114", "420100", "no"]), max_size=2),
    }
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(damaged, max_size=8),
    division=st.none() | st.text(max_size=8) | st.sampled_from(["500114", "150603", "422127"]),
    at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.sampled_from([UTC, SHANGHAI])),  # noqa: DTZ001
    language=st.text(max_size=12) | st.sampled_from(["zh-Hans", "en", "mn-Mong", "zh-TW", ""]),
)
def test_whatever_the_directory_holds_the_card_has_110_and_120_and_a_hotline(
    entries: list[Any], division: str | None, at: datetime, language: str
) -> None:
    published = Snapshot().after(1, [Item("service", str(n), ANY, one) for n, one in enumerate(entries)])
    card = helpcard.card(published, division, at, language)
    assert [row["number"] for row in card["emergency"]] == ["110", "120"]
    assert any(row["kind"] == "hotline" for row in card["lines"])
    assert card["title"] and card["text"]["message"] and card["text"]["tonight"]
    ranks = [{True: 0, None: 1, False: 2}[row["open_now"]] for row in card["lines"]]
    assert ranks == sorted(ranks) and len(card["lines"]) <= helpcard.LINES + 1
    json.dumps(card)


def test_every_mistake_of_an_entry_is_named_at_once() -> None:
    bad = {
        "id": "Not An Id", "kind": "fax", "name": {}, "phones": [{"number": "call me"}], "divisions": ["999999"],
        "schedules": [line("FREQ=SECONDLY", "8", "25:00", "Mars")], "url": "javascript:alert(1)",
        "assured_date": "soon", "oops": 1,
    }  # fmt: skip
    with pytest.raises(Invalid) as caught:
        directory.checked(bad)
    assert {e.field for e in caught.value.errors} == {
        "id", "kind", "name", "phones.0", "divisions", "schedules.0.rrule", "schedules.0.opens_at", "schedules.0.closes_at",
        "schedules.0.timezone", "url", "assured_date", "oops",
    }  # fmt: skip


def test_staff_put_publish_edit_and_withdraw(clean: None) -> None:
    reader = Reader()
    second = staff.create_account("second", "second", "a long enough one", records.SYSTEM, grants=[]).id
    assert directory.put(entry("a"), "staff1") == "new"
    assert directory.put(entry("a"), "staff1") == "unchanged"
    reader.refresh()
    assert not reader.current.get("service", "a")
    with pytest.raises(Forbidden):  # a number that a child calls at night is read by two
        directory.publish("a", "staff1")
    first = directory.publish("a", second)
    assert directory.publish("a", "staff1").revision == first.revision  # a second call writes nothing
    assert directory.put(entry("a", order=5), "staff1") == "changed"
    reader.refresh()
    content = reader.current.get("service", "a")[ANY].content
    assert content and content["order"] == 100  # readers keep what was published
    with pytest.raises(Stale):
        directory.put(entry("a", order=6), "staff2", revision=first.revision)
    directory.publish("a", second)
    reader.refresh()
    content = reader.current.get("service", "a")[ANY].content
    assert content and content["order"] == 5
    directory.withdraw("a", "staff1")
    reader.refresh()
    assert not reader.current.get("service", "a")
    with pytest.raises(Forbidden):  # nor does its author bring it back alone
        directory.publish("a", "staff1")
    with pytest.raises(Conflict):
        directory.withdraw("a", "staff1")
    with pytest.raises(NotFound):
        directory.publish("nothing", "staff1")
    assert [row.action for row in reversed(records.history(kind="service"))] == [
        "service.create", "service.publish", "service.edit", "service.publish", "service.withdraw",
    ]  # fmt: skip


def outcomes(rows: list[dict[str, Any]]) -> list[str]:
    return [row["outcome"] for row in rows]


def test_import_twice_changes_nothing_and_one_bad_entry_keeps_all_out(clean: None, tmp_path: Path) -> None:
    file = tmp_path / "help.json"
    file.write_text(json.dumps([entry("a"), entry("b", kind="fax"), entry("c")]), encoding="utf-8")
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["new", "refused", "new"]
    assert directory.Service.rows().count_documents({}) == 0
    file.write_text(json.dumps([entry("a"), entry("c")]), encoding="utf-8")
    assert outcomes(directoryfiles.import_file(file, "staff1", dry_run=True)) == ["new", "new"]
    assert directory.Service.rows().count_documents({}) == 0
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["new", "new"]
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["unchanged", "unchanged"]
    file.write_text("{", encoding="utf-8")
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["refused"]


def test_csv_and_json_say_the_same(clean: None, tmp_path: Path) -> None:
    columns = ["id", "kind", "name_zh-Hans", "name_en", "phones", "schedules", "divisions", "ages", "cost_en", "urgent", "order"]
    columns += ["assured_date"]
    row = ["youth", "hotline", "青少年热线", "youth line", "12355[zh-Hans en] | 010-1234", "FREQ=WEEKLY;BYDAY=MO,TU 09:00-17:00"]
    row += ["500114|420100", "6-18", "free", "true", "7", "2026-11-01"]
    file = tmp_path / "help.csv"
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        csv.writer(out).writerows([columns, row])
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["new"]
    same = {
        "id": "youth", "kind": "hotline", "name": {"zh-Hans": "青少年热线", "en": "youth line"}, "urgent": True, "order": 7,
        "phones": [{"number": "12355", "languages": ["zh-Hans", "en"]}, "010-1234"], "ages": {"min": 6, "max": 18},
        "schedules": [line("FREQ=WEEKLY;BYDAY=MO,TU", "09:00", "17:00")], "divisions": ["420100", "500114"],
        "cost": {"en": "free"}, "assured_date": "2026-11-01",
    }  # fmt: skip
    assert directory.put(same, "staff1") == "unchanged"


def test_files_in_the_names_of_hsds_say_the_same(clean: None, tmp_path: Path) -> None:
    ours = {
        "id": "clinic", "kind": "clinic", "name": "心理门诊", "organization": "区人民医院", "cost": "挂号费",
        "appointment": "电话预约", "ages": {"min": 6, "max": 18}, "phones": [{"number": "0477-8500,12", "languages": ["mn-CN"]}],
        "schedules": [{**line("FREQ=WEEKLY;BYDAY=MO,TU;UNTIL=20271231", "09:00", "17:00"), "note": "周末休息"}],
        "address": "内蒙古鄂尔多斯市康巴什区团结路1号", "latitude": 39.6, "longitude": 109.79,
    }  # fmt: skip
    directory.put(ours, "staff1")
    theirs: dict[str, Any] = {
        "id": "clinic", "kind": "clinic", "name": "心理门诊", "organization": {"name": "区人民医院"}, "minimum_age": 6,
        "maximum_age": 18, "fees_description": "挂号费", "application_process": "电话预约",
        "phones": [{"number": "0477-8500", "extension": 12, "languages": [{"code": "mn-Mong"}]}],
        "schedules": [{"freq": "WEEKLY", "byday": "MO,TU", "until": "2027-12-31", "interval": 1, "opens_at": "09:00",
                       "closes_at": "17:00", "description": "周末休息"}],
        "location": {"latitude": 39.6, "longitude": 109.79, "addresses": [
            {"state_province": "内蒙古", "city": "鄂尔多斯市", "address_1": "康巴什区团结路1号"}]},
    }  # fmt: skip
    file = tmp_path / "help.json"
    file.write_text(json.dumps({"services": [theirs]}), encoding="utf-8")
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["unchanged"]
    theirs["schedules"][0]["interval"] = 2  # every other week of an unknown week is no hours
    wrong = [theirs, {**theirs, "id": "b", "eligibility_description": "x"}, {**theirs, "id": "c", "cost": "free"}, 7]
    file.write_text(json.dumps(wrong), encoding="utf-8")
    rows = directoryfiles.import_file(file, "staff1")
    assert [(row["line"], row["outcome"]) for row in rows] == [(n, "refused") for n in (1, 2, 3, 4)]
    for row, name in zip(rows, ("schedules.0.rrule", "eligibility_description", "cost", "services"), strict=True):
        assert name in str(row["messages"])


def test_a_table_from_a_spreadsheet_names_the_rows_that_it_refuses(clean: None, tmp_path: Path) -> None:
    file = tmp_path / "help.csv"
    head = "id,kind,name_zh-Hans,phones,latitude,longitude,appointment_zh-Hans,application_process_en,minimum_age\n"
    good = "a,counselling,心理辅导室,0477-1,39.6,109.79,不用预约,none needed,6\n"
    file.write_bytes((head + good).encode("gb18030"))  # as Excel saves it here
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["new"]
    put = directory.get("a")
    assert (put.latitude, put.longitude, put.ages) == (39.6, 109.79, {"min": 6})
    assert put.appointment == {"zh-Hans": "不用预约", "en": "none needed"}
    rows = "b,hotline,线,0477-2,39.6,,,,\n" + "c,hotline,线\n\n" + "d,fax,线,,north,1,,,six\n"
    file.write_text(head + good + rows, encoding="utf-8")
    told = directoryfiles.import_file(file, "staff1")
    assert [(row["line"], row["outcome"]) for row in told] == [(2, "unchanged"), (3, "refused"), (4, "refused"), (6, "refused")]
    assert [sorted({*re.findall(r"kind|latitude|longitude|ages|CSV", str(row["messages"]))}) for row in told] == [
        [], ["longitude"], ["CSV"], ["ages", "kind", "latitude"],
    ]  # fmt: skip
    assert directory.Service.rows().count_documents({}) == 1
    file.write_text("id,id\na,b\n", encoding="utf-8")
    assert outcomes(directoryfiles.import_file(file, "staff1")) == ["refused"]


def test_the_starter_directory_loads_once_and_makes_a_card(clean: None) -> None:
    count = directoryfiles.load_library(LIBRARY, Settings())
    assert count >= 7 and directoryfiles.load_library(LIBRARY, Settings()) == count
    assert directory.Service.rows().count_documents({"revision": 2}) == count  # made, published, and nothing since
    reader = Reader()
    reader.refresh()
    card = helpcard.card(reader.current, "150603", NOON, "zh-Hans")
    numbers = [row["phones"][0]["number"] for row in card["lines"]]
    assert numbers[:2] == ["12356", "12355"] and not {"110", "120"} & set(numbers)
    assert [row["number"] for row in card["emergency"]] == ["110", "120"]


def test_from_the_desk_to_the_card_over_http(site: Site) -> None:
    site.person("edna", "editor", division="500000")
    site.person("rev", "reviewer", division="500000")
    card = site.get("/v1/help-card?division=500114&language=en").json()
    assert card["lines"][0]["phones"][0]["number"] == "12356" and card["title"] == "You can talk to someone now"

    path = "/v1/staff/services/qianjiang-line"
    words = [{"language": "zh-Hans", "text": "黔江热线"}, {"language": "en", "text": "Qianjiang line"}]
    hours = {"rrule": "FREQ=DAILY", "opens_at": "00:00", "closes_at": "24:00"}
    body = {
        "kind": "hotline", "name": words, "phones": [{"number": "023-79220000"}], "schedules": [hours], "assured_by": "小李",
        "divisions": ["500114"], "assured_date": datetime.now(SHANGHAI).date().isoformat(),
    }  # fmt: skip
    assert site.call("PUT", path, by="edna", json={**body, "divisions": []}).status_code == 403  # the whole country is not theirs
    made = site.call("PUT", path, by="edna", json=body)
    assert made.status_code == 201, made.text
    assert site.call("PUT", path, by="edna", json=body).status_code == 428
    assert site.call("PUT", path, by="edna", match=made.headers["ETag"], json=body).headers["ETag"] == made.headers["ETag"]
    assert site.call("PATCH", path, by="edna", match='"9"', json={"order": 1}).status_code == 412
    edited = site.call("PATCH", path, by="edna", match=made.headers["ETag"], json={"order": 1})
    assert edited.json()["order"] == 1 and edited.json()["public"] is False
    bad = site.call(
        "PATCH", path, by="edna", match=edited.headers["ETag"], json={"schedules": [{**hours, "rrule": "FREQ=SECONDLY"}]}
    )
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "schedules.0.rrule")
    assert site.post(f"{path}/publish", by="edna", match=edited.headers["ETag"]).status_code == 403
    assert site.post(f"{path}/publish", by="rev", match=edited.headers["ETag"]).status_code == 200
    half = site.call("PATCH", path, by="edna", match=edited.headers["ETag"], json={"latitude": 29.53})
    assert (half.status_code, half.json()["errors"][0]["field"]) == (422, "longitude")
    assert [one["stale"] for one in site.get("/v1/staff/services", by="edna").json()["items"]] == [False]
    old = {**body, "assured_date": "2020-01-01", "latitude": 29.53, "longitude": 108.77, "address": words}
    old |= {"appointment": words, "organization": words}
    kept = site.call("PUT", "/v1/staff/services/old-line", by="edna", json=old).json()
    assert kept["stale"] and (kept["latitude"], kept["longitude"]) == (29.53, 108.77)
    assert kept["address"] == kept["appointment"] == kept["organization"] == words[::-1]  # by language
    to_do = site.get("/v1/staff/services?stale=true", by="edna").json()  # what staff have to telephone
    assert ([one["id"] for one in to_do["items"]], to_do["stale"]) == (["old-line"], 1)
    assert [one["id"] for one in site.get("/v1/staff/services?stale=false", by="edna").json()["items"]] == ["qianjiang-line"]

    (line,) = site.get("/v1/hotlines?division=500114").json()["items"]
    assert (line["name"], line["open_now"], line["stale"]) == ("黔江热线", True, False) and "小李" not in str(line)
    assert site.get("/v1/services?division=500114&kind=clinic").json()["items"] == []
    assert len(site.get("/v1/services?division=500114&open_now=true").json()["items"]) == 1
    assert site.get("/v1/hotlines?division=420100").json()["items"] == []
    card = site.get("/v1/help-card?division=500114", headers={"Accept-Language": "en"})
    assert card.json()["lines"][0]["name"] == "Qianjiang line" and card.json()["lines"][0]["open_now"] is True
    assert "max-age=30" in card.headers["Cache-Control"]
    for odd in ("division=123456", "division=abc&language=%3F%3F", "oops=1&language=tlh", f"division={'9' * 3000}"):
        reply = site.get(f"/v1/help-card?{odd}")
        assert reply.status_code == 200, (odd, reply.text)
        assert reply.json()["lines"][0]["phones"][0]["number"] == "12356"
    site.reader.up = False  # the database is away: help is there
    assert site.get("/v1/help-card?division=500114&language=en").status_code == 200
    assert site.get("/v1/hotlines?division=500114&limit=9").json()["items"]

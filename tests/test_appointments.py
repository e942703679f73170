"""Appointments with a help service: slots laid out, one taken by one person, seen and cancelled by its code, and forgotten."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests

from api import front
from api.appointments import AppointmentIn
from content import appointments, directory, slots, store
from content.appointments import Appointment
from content.records import SYSTEM, Audit
from content.slots import Slot
from tests.site import Clock, Site
from tests.test_openapi import Document

SHANGHAI = ZoneInfo("Asia/Shanghai")
DESK = "/v1/staff/services/kangbashi-counselling"
PUBLIC = "/v1/services/kangbashi-counselling/slots"
LIN = {"name": "小林", "phone": "13800138000", "note": "请多响几声"}


def day(ahead: int) -> str:
    """A local date so many days from today."""
    return (store.now().astimezone(SHANGHAI).date() + timedelta(days=ahead)).isoformat()


def rule(ahead: int = 2, **more: Any) -> dict[str, Any]:
    """Three slots by telephone on one day."""
    window = {"opens_at": "14:00", "closes_at": "17:00", "minutes": 50, "pause": 10}
    return {"first": day(ahead), **window, "mode": "phone", "dry_run": False, **more}


@pytest.fixture
def desk(site: Site) -> Iterator[Site]:
    """A published service of Kangbashi and `edna` who keeps its entry."""
    words = {"zh-Hans": "康巴什心理咨询室", "en": "Kangbashi counselling"}
    entry = {"id": "kangbashi-counselling", "kind": "counselling", "name": words, "divisions": ["150603"]}
    directory.put({**entry, "address": {"zh-Hans": "鄂尔多斯大街 1 号"}}, SYSTEM)
    directory.publish("kangbashi-counselling", SYSTEM)
    site.person("edna", "editor", division="150600")
    site.refresh()
    yield site


def lay(site: Site, **more: Any) -> list[str]:
    """Slots of a rule; their ids."""
    reply = site.post(f"{DESK}/slots", rule(**more), by="edna")
    assert reply.status_code == 200, reply.text
    return [one["id"] for one in reply.json()["items"]]


def book(site: Site, slot: str, body: dict[str, Any] | None = None, key: str = "") -> requests.Response:
    return site.post(f"/v1/slots/{slot}/bookings", body or LIN, headers={"Idempotency-Key": key} if key else {})


def words_of(site: Site) -> list[str]:
    site.refresh()
    return [one["state"] for one in site.get(PUBLIC).json()["items"]]


def said(reply: requests.Response) -> dict[str, Any]:
    """An answer without the name of its request."""
    return {name: value for name, value in reply.json().items() if name != "request_id"}


def helped(reply: requests.Response) -> bool:
    """Whether the help card is in it."""
    return bool(reply.json()["help"]["emergency"][0]["number"] == "110")


def test_from_the_rule_to_the_talk_over_http(desk: Site, clock: Clock) -> None:
    document = Document(desk.get("/openapi.json").json())

    def compare(method: str, path: str, reply: requests.Response) -> Any:
        told, _ = document.operation(method, path)
        document.compare(told, reply, path)
        return reply.json() if reply.content else None

    shown = desk.post(f"{DESK}/slots", rule(dry_run=True), by="edna")
    assert len(compare("post", "/v1/staff/services/{service_id}/slots", shown)["items"]) == 3 and not shown.json()["written"]
    assert desk.get(PUBLIC).json()["items"] == []
    made = lay(desk)
    assert made[0] == f"kangbashi-counselling~{day(2).replace('-', '')}-1400~phone"
    again = desk.post(f"{DESK}/slots", rule(), by="edna").json()
    assert ([one["id"] for one in again["there"]], again["items"]) == (made, [])
    seen = desk.get(f"{PUBLIC}?limit=2", headers={"Accept-Language": "en"})
    first = compare("get", "/v1/services/{service_id}/slots", seen)
    assert [one["starts_at"] for one in first["items"]] == [f"{day(2)}T14:00:00+08:00", f"{day(2)}T15:00:00+08:00"]
    assert first["items"][0]["booking_closes_at"] == f"{day(2)}T12:00:00+08:00" and helped(seen)
    rest = desk.get(f"{PUBLIC}?limit=2&cursor={first['next_cursor']}").json()
    assert [one["id"] for one in rest["items"]] == made[2:] and rest["next_cursor"] is None

    booked = book(desk, made[0])
    told = compare("post", "/v1/slots/{slot_id}/bookings", booked)
    assert told["state"] == "booked" and told["next"].startswith("到了时间，我们会给您打电话") and helped(booked)
    assert (told["service"]["name"], told["cancel_until"]) == ("康巴什心理咨询室", f"{day(2)}T13:00:00+08:00")
    assert LIN["phone"][-8:] not in booked.text and LIN["name"] not in booked.text
    assert words_of(desk) == ["taken", "free", "free"]
    assert len(desk.get(f"{PUBLIC}?free=true").json()["items"]) == 2
    mine = f"/v1/appointments/{told['code'].lower()}"
    english = compare("get", "/v1/appointments/{code}", desk.get(mine, headers={"Accept-Language": "en"}))
    assert english["next"].startswith("We will call you")

    who = compare("get", "/v1/staff/services/{service_id}/appointments", desk.get(f"{DESK}/appointments?day={day(2)}", by="edna"))
    assert [(one["name"], one["phone"], one["note"]) for one in who["items"]] == [("小林", "+8613800138000", "请多响几声")]
    outcome = f"/v1/staff/slots/{made[0]}/outcome"
    assert desk.call("PUT", outcome, by="edna", json={"outcome": "done"}).json()["code"] == "wrong_state"  # not yet
    clock((datetime.fromisoformat(f"{day(2)}T14:20+08:00") - store.now()).total_seconds())
    late = desk.call("DELETE", mine)
    assert (late.status_code, late.json()["code"], helped(late)) == (409, "too_late", True)
    desk.person("edna2", "editor", division="150600")
    outcome_reply = desk.call("PUT", outcome, by="edna2", json={"outcome": "done"})
    assert compare("put", "/v1/staff/slots/{slot_id}/outcome", outcome_reply)["outcome"] == "done"
    counts = compare("get", "/v1/staff/services/{service_id}/slots", desk.get(f"{DESK}/slots?from={day(0)}", by="edna2"))[
        "counts"
    ]
    assert counts == {"offered": 3, "taken": 1, "done": 1, "no_show": 0, "cancelled": 0}
    clock(3600)
    assert desk.get(mine).json()["state"] == "over"


def test_fifty_at_once_and_one_has_it(desk: Site) -> None:
    slot = lay(desk)[0]

    def try_it(n: int) -> requests.Response:
        return requests.post(f"{desk.base}/v1/slots/{slot}/bookings", json={**LIN, "phone": f"138001380{n:02}"}, timeout=30)

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(try_it, range(50)))
    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 49
    assert {reply.json()["code"] for reply in replies if reply.status_code == 409} == {"slot_taken"} and all(map(helped, replies))
    assert Appointment.rows().count_documents({}) == 1 and Slot.rows().count_documents({"taken": True}) == 1


def test_no_refusal_tells_of_a_telephone_and_one_address_takes_three_a_day(desk: Site) -> None:
    made = lay(desk, closes_at="20:00")
    assert [book(desk, slot).status_code for slot in made[:3]] == [201] * 3  # one telephone, as often as any other
    known, other = book(desk, made[3]), book(desk, made[3], {**LIN, "phone": "13900139000"})
    assert known.status_code == other.status_code == 429 and said(known) == said(other) and helped(known)
    assert int(known.headers["Retry-After"]) >= 60
    assert words_of(desk) == ["taken"] * 3 + ["free"] * 3  # all that a refused transaction did is undone
    entries = desk.get(f"{DESK}/appointments?day={day(2)}", by="edna").json()["items"]
    assert [one["same_phone"] for one in entries] == [3, 3, 3]
    online = lay(desk, mode="online", ahead=3)
    assert book(desk, online[0], {"name": "小林"}).status_code == 429


def test_a_repeat_is_not_counted_as_another_booking(desk: Site) -> None:
    made, keys = lay(desk), ("0123456789abcdef", "1123456789abcdef", "2123456789abcdef")
    first = [book(desk, slot, key=key) for slot, key in zip(made, keys, strict=True)]
    again = [book(desk, slot, key=key) for slot, key in zip(made, keys, strict=True)]
    assert [one.json()["code"] for one in first] == [one.json()["code"] for one in again]


def test_a_key_is_one_appointment_and_cancelling_gives_back_and_erases(desk: Site) -> None:
    slot, key = lay(desk)[0], "0123456789abcdef"
    code = book(desk, slot, key=key).json()["code"]
    assert book(desk, slot, key=key).json()["code"] == code
    assert book(desk, slot, {**LIN, "note": "x"}, key=key).json()["code"] == "duplicate_key_body"
    gone = desk.call("DELETE", f"/v1/appointments/{code}")
    assert (gone.status_code, gone.json()["state"], gone.json()["cancel_until"], helped(gone)) == (200, "cancelled", None, True)
    row = Appointment.rows().find_one({})
    assert row.keys() == {"_id", "code", "service", "slot", "starts_at", "state", "expires_at"}
    assert words_of(desk) == ["free"] * 3
    assert book(desk, slot, {"name": "阿木", "phone": "13900139000"}).status_code == 201
    assert desk.call("DELETE", f"/v1/appointments/{code}").json()["state"] == "cancelled"  # a second call takes nothing from them
    assert words_of(desk)[0] == "taken"
    assert book(desk, slot, key=key).json()["state"] == "cancelled"
    unknown = desk.get("/v1/appointments/AAAAA-AAAAA-AAAAA")
    assert unknown.status_code == 404 and helped(unknown)


def test_what_is_asked_and_what_is_not(desk: Site, clock: Clock) -> None:
    phone = lay(desk)[0]
    online = lay(desk, ahead=3, mode="online", online_link="https://meet.example.org/a1b2")[0]
    assert AppointmentIn().fields.keys() == {"name", "phone", "note"}  # no reason, no age, no parent
    for body, field in (
        ({"name": "小林"}, "phone"), ({"name": " ", "phone": LIN["phone"]}, "name"), ({**LIN, "phone": "12"}, "phone"),
        ({**LIN, "reason": "…"}, "reason"), ({**LIN, "note": "x" * 201}, "note"),
    ):  # fmt: skip
        wrong = book(desk, phone, body)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"], helped(wrong)) == (422, field, True), body
    link = book(desk, online, {"name": "小林"})  # online needs no telephone
    assert link.status_code == 201 and link.json()["online_link"] == "https://meet.example.org/a1b2"
    desk.refresh()
    assert "meet.example" not in desk.get(PUBLIC).text and "meet.example" not in str(list(Audit.rows().find()))
    no_such = book(desk, "nothing~20270101-0900~phone")
    assert no_such.status_code == 404 and helped(no_such)
    directory.withdraw("kangbashi-counselling", SYSTEM)
    assert book(desk, phone).status_code == 404  # a service that is not shown takes nobody
    desk.refresh()
    assert desk.get(PUBLIC).status_code == 404
    directory.publish("kangbashi-counselling", SYSTEM)
    clock((datetime.fromisoformat(f"{day(2)}T12:00+08:00") - store.now()).total_seconds())
    closed = book(desk, phone)
    assert (closed.status_code, closed.json()["code"]) == (409, "closed")
    desk.refresh()
    shown = desk.get(PUBLIC)
    assert phone not in shown.text
    desk.reader.up = False  # the database is away: what can be had is still there to see, and help beside what cannot
    assert desk.get(PUBLIC).json()["items"] == shown.json()["items"]
    away = book(desk, phone)
    assert away.status_code == 503 and helped(away)


def test_staff_call_off_move_close_and_call(desk: Site) -> None:
    made = lay(desk, mode="in_person")
    assert desk.get(PUBLIC).json()["items"][0]["place"] == "鄂尔多斯大街 1 号"  # the service's own
    codes = [book(desk, slot).json()["code"] for slot in made[:2]]

    def match(slot: str) -> str:
        return str(desk.get(f"/v1/staff/slots/{slot}", by="edna").headers["ETag"])

    assert desk.post(f"/v1/staff/slots/{made[0]}/cancel", by="edna").status_code == 428
    off = desk.post(f"/v1/staff/slots/{made[0]}/cancel", by="edna", match=match(made[0]))
    assert off.status_code == 200 and not off.json()["taken"]
    room = [{"language": "zh-Hans", "text": "二楼 203"}]
    path = f"/v1/staff/slots/{made[1]}"
    assert desk.call("PATCH", path, by="edna", match=match(made[1]), json={"place": room, "open": False}).status_code == 200
    assert [one["id"] for one in desk.get(PUBLIC).json()["items"]] == made[2:]
    listed = desk.get(f"{DESK}/appointments/calls", by="edna").json()["items"]
    assert [(one["to_tell"], one["state"], one["phone"]) for one in listed] == [
        ("cancelled", "called_off", "+8613800138000"), ("changed", "booked", "+8613800138000"),
    ]  # fmt: skip
    told = desk.get(f"/v1/appointments/{codes[0]}").json()
    assert told["state"] == "called_off" and told["next"].startswith("很抱歉")
    assert [one["to_tell"] for one in desk.get(f"{DESK}/appointments/calls", by="edna").json()["items"]] == ["changed"]
    assert desk.post(f"/v1/staff/appointments/{listed[1]['id']}/called", by="edna").status_code == 204
    assert desk.get(f"{DESK}/appointments/calls", by="edna").json()["items"] == []
    assert desk.get(f"/v1/appointments/{codes[1]}").json()["slot"]["place"] == "二楼 203"
    for _ in range(2):  # they telephoned
        assert desk.post(f"/v1/staff/appointments/{listed[1]['id']}/give-back", by="edna").status_code == 204
    assert desk.get(f"/v1/appointments/{codes[1]}").json()["state"] == "cancelled"
    assert desk.call("PATCH", path, by="edna", match=match(made[1]), json={"open": True}).json()["state"] == "open"
    again = f"/v1/staff/slots/{made[0]}"
    assert desk.call("PATCH", again, by="edna", match=match(made[0]), json={"open": True}).status_code == 200
    assert words_of(desk) == ["free"] * 3
    erased = desk.call("DELETE", f"/v1/appointments/{codes[0]}").json()
    assert erased["state"] == "called_off" and "contact" not in Appointment.rows().find_one({"slot": made[0]})
    assert words_of(desk) == ["free"] * 3


def test_only_who_keeps_the_entry_sees_who_comes(desk: Site) -> None:
    slot = lay(desk)[0]
    book(desk, slot)
    who = str(Appointment.rows().find_one({})["_id"])
    desk.person("org", "organiser", division="150600")
    desk.person("rev", "reviewer", division="150600")
    desk.person("far", "editor", division="420100")
    asked = [
        ("GET", f"{DESK}/appointments?day={day(2)}", None), ("GET", f"{DESK}/appointments/calls", None),
        ("GET", f"{DESK}/slots?from={day(2)}", None), ("POST", f"{DESK}/slots", rule(3)),
        ("GET", f"/v1/staff/slots/{slot}", None),
        ("PATCH", f"/v1/staff/slots/{slot}", {"open": False}), ("POST", f"/v1/staff/slots/{slot}/cancel", {}),
        ("PUT", f"/v1/staff/slots/{slot}/outcome", {"outcome": None}), ("POST", f"/v1/staff/appointments/{who}/called", {}),
        ("POST", f"/v1/staff/appointments/{who}/give-back", {}),
    ]  # fmt: skip
    for method, path, body in asked:
        assert desk.call(method, path, json=body, match='"1"').status_code == 401, path
        for by in ("org", "rev", "far"):
            reply = desk.call(method, path, by=by, match='"1"', json=body)
            assert reply.status_code == 403 and "13800138" not in reply.text, (by, path, reply.text)
    assert Audit.rows().count_documents({"action": {"$regex": "read"}}) == 0
    assert desk.get(f"{DESK}/appointments?day={day(2)}", by="edna").status_code == 200
    line = Audit.rows().find_one({"action": "service.read_appointments"})
    assert (line["key"], line["actor"], line["note"]) == ("kangbashi-counselling", desk.ids["edna"], "1 appointments")


def test_nothing_says_who_and_it_is_erased_within_thirty_days(
    desk: Site, clock: Clock, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    hours = dict(front._hour)
    made = lay(desk)
    codes = [book(desk, slot, {**LIN, "name": "霜降"}, key=f"secret-key-{slot}").json()["code"] for slot in made[:2]]
    for code in codes:
        assert desk.get(f"/v1/appointments/{code}").status_code == 200
    desk.get(f"{DESK}/appointments?day={day(2)}", by="edna")
    desk.call("DELETE", f"/v1/appointments/{codes[1]}")
    printed = "".join(capfd.readouterr()) + caplog.text
    database = store.database()
    dump = "".join(str(list(database[name].find())) for name in database.list_collection_names())
    for canary in ("霜降", "13800138000", "8613800138000", LIN["note"], *codes, *(code.replace("-", "") for code in codes)):
        assert canary not in dump and canary not in printed, canary
    assert "/v1/appointments" not in printed and "bookings" not in printed and made[0] not in printed
    counted = {name: number - hours.get(name, 0) for name, number in front._hour.items() if number != hours.get(name, 0)}
    assert counted[("/v1/appointments/{string:code}", "200")] == 3  # an hourly count, and nothing else
    assert counted[("/v1/slots/{string:slot_id}/bookings", "201")] == 2

    over = datetime.fromisoformat(f"{day(2)}T14:50+08:00")
    clock((over + timedelta(days=29, seconds=-1) - store.now()).total_seconds())
    assert appointments.purge(store.now()) == 0
    clock(2)
    assert appointments.purge(store.now()) == 1  # that of the second slot goes an hour later
    clock(3600)
    assert (appointments.purge(store.now()), appointments.purge(store.now())) == (1, 0)
    assert Appointment.rows().count_documents({}) == 0
    lines = [(line["key"], line["actor"], line["note"]) for line in Audit.rows().find({"action": "service.erase_appointments"})]
    assert lines == [("kangbashi-counselling", SYSTEM, "1 appointments")] * 2
    assert desk.get(f"/v1/appointments/{codes[0]}").status_code == 404
    indexes = database["appointments"].index_information()
    assert indexes["expires_at_1"]["expireAfterSeconds"] == 86400  # should no worker run
    assert slots.counted(slots.between("kangbashi-counselling", over - timedelta(days=1), over)).taken == 1  # the count stays


def test_a_rule_over_changes_of_clocks(clean: None) -> None:
    directory.put({"id": "line", "kind": "counselling", "name": "线"}, SYSTEM)
    year = store.now().year + 1
    sunday = next(d for d in (date(year, 3, 8) + timedelta(n) for n in range(7)) if d.weekday() == 6)  # clocks go forward
    sundays = {"first": str(sunday - timedelta(7)), "rule": "FREQ=WEEKLY;COUNT=3", "opens_at": "00:45", "closes_at": "04:00"}
    night = {**sundays, "zone": "America/New_York", "mode": "phone", "minutes": 45}
    laid = slots.lay_out("line", night, SYSTEM)

    def of(day: date) -> list[str]:
        mine = [one for one in laid.made if f"{day:%Y%m%d}" in str(one.id)]
        return [f"{one.starts_at.astimezone(ZoneInfo('America/New_York')):%H:%M}" for one in mine]

    assert of(sunday - timedelta(7)) == of(sunday + timedelta(7)) == ["00:45", "01:30", "02:15", "03:00"]
    # 02:15 is skipped, and at 03:00 the one of 01:30 has fifteen minutes left
    assert of(sunday) == ["00:45", "01:30"] and laid.left_out == [(f"{sunday}T02:15", "clocks"), (f"{sunday}T03:00", "clocks")]
    assert {one.ends_at - one.starts_at for one in laid.made} == {timedelta(minutes=45)}
    back = next(d for d in (date(year, 11, 1) + timedelta(n) for n in range(7)) if d.weekday() == 6)
    autumn = {**night, "first": str(back), "rule": "", "opens_at": "01:00", "closes_at": "03:00", "minutes": 60}
    early = slots.lay_out("line", autumn, SYSTEM).made
    assert [one.starts_at for one in early] == [datetime(year, 11, back.day, hour, tzinfo=UTC) for hour in (5, 7)]  # the earlier


def test_all_or_nothing_and_nobody_in_two_talks(desk: Site) -> None:
    made = lay(desk)
    for more, code, field in (
        ({"minutes": 30}, "exists", made[0]),  # the same id, and it lasts another time
        ({"ahead": 1, "first": day(1), "rule": "FREQ=DAILY;COUNT=2", "opens_at": "13:30"}, "exists", made[0]),
        ({"mode": "online"}, "exists", made[0]),
        ({"first": day(-2)}, "nothing_to_do", ""), ({"rule": "FREQ=DAILY"}, "invalid", "rule.COUNT"),
        ({"opens_at": "17:00"}, "invalid", "closes_at"), ({"opens_at": "25:00"}, "invalid", "opens_at"),
        ({"rule": "FREQ=DAILY;COUNT=90"}, "invalid", "rule"),
        ({"mode": "online", "online_link": "http://x"}, "invalid", "online_link"),
        ({"zone": "Mars/Base", "excluded": [day(9)]}, "invalid", "zone"), ({"excluded": [day(9)]}, "invalid", "excluded.0"),
    ):  # fmt: skip
        reply = desk.post(f"{DESK}/slots", rule(**more), by="edna")
        found = reply.json()
        assert found["code"] == code and (field in reply.text), (more, reply.text)
        assert code != "invalid" or found["errors"][0]["field"] == field, reply.text
    assert Slot.rows().count_documents({}) == 3 == Audit.rows().count_documents({"action": "slot.create"})
    assert len(lay(desk, desk=2)) == 3  # a second person is there
    weekly = rule(3, rule="FREQ=WEEKLY;COUNT=3", excluded=[day(10)])
    made_weekly = desk.post(f"{DESK}/slots", weekly, by="edna").json()["items"]
    assert [one["starts_at"][:10] for one in made_weekly] == [day(3)] * 3 + [day(17)] * 3

"""Volunteers: an offer without an account, an answer, hours given; and nothing of the person stays once it is over."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

from api.volunteers import NOTES
from content import store, volunteers
from content.lecturers import Lecturer
from content.records import Audit
from content.volunteers import Hours, Volunteer
from tests.site import Site
from tests.test_demands import a_session
from tests.test_demands import office as an_office
from tests.test_lecturers import LIST as LECTURERS
from tests.test_lecturers import entry, office
from tests.test_lecturers import step as lecturer_step
from tests.test_openapi import Document

LIST = "/v1/staff/volunteers"
NAME, PHONE, WORDS = "欧阳秀英", "13800138000", "退休语文老师，周末都有空"


def offer(**more: Any) -> dict[str, Any]:
    """A body for a sign-up."""
    return {
        "name": NAME, "phone": PHONE, "kind": "lecturer", "division": "150603", "field": "亲子阅读", "topics": ["parenting"],
        "languages": ["zh-Hans"], "hours_a_month": 4, "message": WORDS, **more,
    }  # fmt: skip


def sign_up(site: Site, **more: Any) -> str:
    """The code of a new sign-up."""
    reply = site.post("/v1/volunteers", offer(**more))
    assert reply.status_code == 201, reply.text
    return str(reply.json()["code"])


def entries(site: Site, by: str, query: str = "") -> list[dict[str, Any]]:
    reply = site.get(f"{LIST}{query}", by=by)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"])


def answer(site: Site, by: str, key: str, verb: str, body: Any = None, status: int = 200) -> dict[str, Any]:
    """One verb on the sign-up as it now is."""
    match = site.get(f"{LIST}/{key}", by=by).headers["ETag"]
    reply = site.post(f"{LIST}/{key}/{verb}", body, by=by, match=match)
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def nowhere(*secrets: str) -> None:
    """None of them stands in any collection in clear."""
    for name in store.database().list_collection_names():
        whole = str(list(store.database()[name].find()))
        for secret in secrets:
            assert secret not in whole, (name, secret)


def test_an_offer_is_approved_gives_hours_becomes_a_lecturer_and_leaves_without_a_trace(site: Site) -> None:
    federation = office("妇联")
    site.person("ann", "organiser", division="150603")
    site.person("bea", "organiser", division="150603")
    code = sign_up(site)
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{5}-){2}[0-9A-HJKMNP-TV-Z]{5}", code)
    path = f"/v1/volunteers/{code}"
    seen = site.get(path)
    assert seen.json() == {
        "state": "received", "reason": "", "kind": "lecturer", "division": "150603", "organisation": "", "topics": ["parenting"],
        "languages": ["zh-Hans"], "hours_a_month": 4, "given": [], "hours_given": 0.0,
        "note": NOTES[False],
    }  # fmt: skip
    assert seen.headers["Cache-Control"] == "no-store"
    nowhere(NAME, PHONE, "+86", WORDS, "亲子阅读", code)

    [one] = entries(site, "ann")
    assert (one["name"], one["phone"], one["message"], one["field"]) == (NAME, f"+86{PHONE}", WORDS, "亲子阅读")
    key = one["id"]
    read = f'"{one["revision"]}"'
    assert site.call("PATCH", path, json={"hours_a_month": 8, "message": "平时也行"}).json()["hours_a_month"] == 8
    late = site.post(f"{LIST}/{key}/approve", by="ann", match=read)  # it is not what was read any more
    assert (late.status_code, late.json()["code"]) == (412, "stale")
    assert site.post(f"{LIST}/{key}/approve", by="ann").status_code == 428
    given = {"date": store.now().date().isoformat(), "hours": 1}
    assert site.post(f"{LIST}/{key}/hours", given, by="ann").json()["code"] == "wrong_state"
    approved = answer(site, "ann", key, "approve")
    assert approved["state"] == "approved" and not {"name", "phone", "message"} & approved.keys()
    assert site.get(path).json()["state"] == "approved"

    today = store.now().date()
    for hours, ago in ((1.5, 0), (2, 30), (24, 3)):
        body = {"date": str(today - timedelta(days=ago)), "hours": hours}
        given = site.post(f"{LIST}/{key}/hours", body, by="ann")
        assert given.status_code == 201, given.text
    for day, hours, session in ((2, 1, ""), (-400, 1, ""), (0, 0.7, ""), (0, 25, ""), (0, 1, "nowhere")):
        wrong = {"date": str(today + timedelta(days=day)), "hours": hours, "session": session}
        assert site.post(f"{LIST}/{key}/hours", wrong, by="ann").status_code == 422, wrong
    mistaken = given.json()["given"][-1]["id"]  # nobody gives 24 hours
    for status in (200, 404):
        match = site.get(f"{LIST}/{key}", by="ann").headers["ETag"]
        assert site.call("DELETE", f"{LIST}/{key}/hours/{mistaken}", by="ann", match=match).status_code == status
    told = site.get(path).json()
    assert told["hours_given"] == 3.5 and [set(row) for row in told["given"]] == [{"date", "hours"}] * 2

    assert site.post(f"{LIST}/{key}/lecturer", by="ann").status_code == 422  # whose library?
    made = site.post(f"{LIST}/{key}/lecturer", {"organisation": federation}, by="ann").json()
    again = site.post(f"{LIST}/{key}/lecturer", {"organisation": federation}, by="ann").json()
    assert made["id"] == again["id"] and made["name"] == [{"language": "zh-Hans", "text": NAME}] and made["has_contact"]
    assert site.get(f"{LECTURERS}/{made['id']}/contact", by="ann").json()["contact"] == f"+86{PHONE}"
    lecturer_step(site, "bea", made["id"], "publish")
    assert site.get(f"/v1/lecturers/{made['id']}").json()["name"] == NAME

    gone = site.call("DELETE", path)
    assert gone.json()["state"] == "withdrawn" and site.call("DELETE", path).json() == gone.json() == site.get(path).json()
    site.refresh()
    assert site.get(f"/v1/lecturers/{made['id']}").status_code == 404
    assert site.get(f"{LECTURERS}/{made['id']}", by="ann").status_code == 404
    assert site.call("PATCH", path, json={"hours_a_month": 1}).status_code == 409
    answer(site, "ann", key, "approve", status=409)
    [left] = entries(site, "ann")
    assert (left["state"], left["name"], left["phone"], left["given"]) == ("withdrawn", "", "", [])
    raw = Volunteer.rows().find_one({})
    assert not {"person", "claim", "reason", "lecturer"} & raw.keys()
    tally = site.get("/v1/staff/volunteer-hours", by="ann").json()["items"]
    assert sum(row["hours"] for row in tally) == 3.5 and sum(row["times"] for row in tally) == 2
    trail = list(Audit.rows().find({"kind": {"$in": ["volunteer", "lecturer"]}}))
    assert not [word for word in (NAME, PHONE, WORDS, "平时也行", code) if word in str(trail)]
    acted = [line["action"].partition(".")[2] for line in trail if line["kind"] == "volunteer"]
    assert acted.count("erase") == 1 and {"read", "read_list", "approve", "give", "take_back", "into_library"} < {*acted}
    nowhere(NAME, PHONE, WORDS)


def test_declined_with_a_reason_and_erased_within_thirty_days(site: Site, clock: Any) -> None:
    site.person("ann", "organiser")
    code, helper = sign_up(site), sign_up(site, kind="helper")
    first = next(one["id"] for one in entries(site, "ann") if one["kind"] == "lecturer")
    assert site.post(f"{LIST}/{first}/decline", {}, by="ann", match='"1"').status_code == 422
    answer(site, "ann", first, "decline", {"reason": "本学期人手已满"})
    assert site.get(f"/v1/volunteers/{code}").json()["reason"] == "本学期人手已满"
    nowhere("本学期人手已满")
    assert volunteers.erase(store.now() + timedelta(days=28)) == 0
    assert volunteers.erase(store.now() + timedelta(days=30)) == 1
    assert site.get(f"/v1/volunteers/{code}").status_code == 404
    [proof] = Audit.rows().find({"action": "volunteer.erase"})
    assert (proof["key"], proof["note"], proof["actor"]) == (first, "expired, declined", "system")
    # the other goes after a year in which nobody touched it
    clock(300 * 86400)
    site.call("PATCH", f"/v1/volunteers/{helper}", json={"topics": []})
    clock(300 * 86400)
    assert volunteers.erase(store.now()) == 0 and site.get(f"/v1/volunteers/{helper}").status_code == 200
    clock(65 * 86400)
    assert volunteers.erase(store.now()) == 1 and volunteers.erase(store.now()) == 0
    ends = next(index for index in Volunteer.rows().list_indexes() if "expireAfterSeconds" in index)
    assert dict(ends["key"]) == {"expires_at": 1} and ends["expireAfterSeconds"] == 86400


def into_library(site: Site, key: str, federation: str) -> str:
    """The id of its entry in the expert library, published."""
    made: dict[str, Any] = site.post(f"{LIST}/{key}/lecturer", {"organisation": federation}, by="ann").json()
    lecturer_step(site, "bea", made["id"], "publish")
    site.refresh()
    assert site.get(f"/v1/lecturers/{made['id']}").json()["name"] == NAME
    return str(made["id"])


def test_an_entry_in_the_library_goes_with_a_decline_and_with_an_erasure(site: Site) -> None:
    federation = office("妇联")
    for name in ("ann", "bea"):
        site.person(name, "organiser", division="150603")
    code = sign_up(site)
    key = entries(site, "ann")[0]["id"]

    def gone(entry_id: str) -> None:
        site.refresh()
        assert site.get(f"/v1/lecturers/{entry_id}").status_code == 404
        assert site.get(f"{LECTURERS}/{entry_id}", by="ann").status_code == 404
        assert Lecturer.rows().count_documents({}) == 0
        nowhere(NAME, PHONE)

    answer(site, "ann", key, "approve")
    first = into_library(site, key, federation)
    assert answer(site, "ann", key, "decline", {"reason": "本学期人手已满"})["lecturer"] is None
    gone(first)
    assert site.post(f"{LIST}/{key}/lecturer", {"organisation": federation}, by="ann").status_code == 409
    # approved after all: a new entry, which goes when a year has passed
    assert answer(site, "ann", key, "approve")["lecturer"] is None
    assert site.get(f"/v1/volunteers/{code}").json()["reason"] == ""
    second = into_library(site, key, federation)
    assert second != first and volunteers.erase(store.now() + timedelta(days=363)) == 0
    assert volunteers.erase(store.now() + timedelta(days=365)) == 1
    gone(second)
    lines = [line["action"] for line in Audit.rows().find({"key": {"$in": [first, second]}})]
    assert lines.count("lecturer.remove") == 2


def test_a_repeat_answers_alike_and_tells_nobody_that_a_telephone_is_known(site: Site) -> None:
    site.person("ann", "organiser")
    first = site.post("/v1/volunteers", offer())
    stranger = site.post("/v1/volunteers", offer(name="试探", message="", phone="+86 138-0013-8000"))
    assert stranger.status_code == first.status_code == 201
    assert {**stranger.json(), "code": ""} == {**first.json(), "code": ""} and stranger.json()["code"] != first.json()["code"]
    one, two = (f"/v1/volunteers/{reply.json()['code']}" for reply in (first, stranger))
    [seen] = entries(site, "ann")
    assert (seen["name"], seen["repeats"]) == (NAME, 1)
    repeat = Volunteer.rows().find_one({"repeat_of": seen["id"]})
    assert "claim" not in repeat
    assert site.get(f"{LIST}/{repeat['_id']}", by="ann").status_code == 404
    # whoever holds the second code changes and withdraws nothing of the first
    for path in (one, two):
        assert site.call("PATCH", path, json={"name": "李", "hours_a_month": 9}).json()["hours_a_month"] == 9
    assert entries(site, "ann")[0]["name"] == "李"
    answer(site, "ann", seen["id"], "approve")
    assert site.get(one).json() == site.get(two).json() and site.get(two).json()["state"] == "approved"
    # a change of mind is told to both, each time, and to one that came after it at the next
    late = f"/v1/volunteers/{sign_up(site)}"
    answer(site, "ann", seen["id"], "decline", {"reason": "人手已满"})
    told = [site.get(path).json() for path in (one, two, late)]
    assert {(row["state"], row["reason"]) for row in told} == {("declined", "人手已满")}
    answer(site, "ann", seen["id"], "approve")
    told = [site.get(path).json() for path in (one, two, late)]
    assert {(row["state"], row["reason"]) for row in told} == {("approved", "")} and told[0]["note"] == told[1]["note"]
    ends = {raw["expires_at"] for raw in Volunteer.rows().find({})}
    assert len(ends) == 1 and min(ends) > store.now() + timedelta(days=360)
    # a stranger's code withdraws the stranger's sign-up, and says no more than that, in the words that everyone gets
    gone = site.call("DELETE", two).json()
    assert gone["state"] == "withdrawn" and gone["note"] == NOTES[True] == site.get(two).json()["note"]
    assert site.get(one).json() == told[0] and entries(site, "ann")[0]["name"] == "李"
    answer(site, "ann", seen["id"], "decline", {"reason": "人手已满"})
    assert site.get(two).json() == gone  # what was withdrawn stays so
    answer(site, "ann", seen["id"], "approve")
    # another kind or another addressee is another offer
    sign_up(site, kind="helper")
    sign_up(site, organisation=office("妇联"))
    assert len(entries(site, "ann")) == 3
    # once the first is withdrawn, the oldest repeat that was not takes its place, and staff see it as one that has come
    assert site.call("DELETE", one).json() == {**gone, "given": [], "hours_given": 0.0}
    assert site.get(late).json() == {**told[2], "state": "received"} and told[2]["note"] == NOTES[False]
    volunteers.sign_up(offer())
    received = entries(site, "ann", "?state=received&kind=lecturer&division=150603")
    assert [(row["name"], row["repeats"]) for row in received if not row["organisation"]] == [(NAME, 1)]


def test_one_telephone_at_one_moment_is_one_offer_and_a_key_is_one_code(site: Site) -> None:
    start = Barrier(6)

    def press(n: int) -> dict[str, Any]:
        start.wait()
        return dict(volunteers.sign_up(offer(), None if n else "f" * 32)[1].to_mongo())

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(press, range(6)))
    assert sum("claim" in row for row in made) == 1 and Volunteer.rows().count_documents({}) == 6
    assert Volunteer.rows().find_one({"repeat_of": None})["repeats"] == 5
    keyed = [site.post("/v1/volunteers", offer(phone="13900139000"), headers={"Idempotency-Key": "k" * 20}).json() for _ in "ab"]
    assert keyed[0] == keyed[1] and Volunteer.rows().count_documents({}) == 7


def test_only_those_asked_see_who_offers(site: Site) -> None:
    mine, other = office("妇联"), office("另一妇联")
    site.person("ann", "organiser", organisation=mine, division="150603")
    site.person("zoe", "organiser", organisation=other, division="150603")
    site.person("far", "organiser", division="420100")
    site.person("all", "organiser", division="150600")
    site.person("edi", "editor")
    sign_up(site, organisation=mine)
    sign_up(site)  # to the division's own staff
    seen = {name: entries(site, name) for name in ("ann", "zoe", "far", "all")}
    assert {name: len(rows) for name, rows in seen.items()} == {"ann": 2, "zoe": 1, "far": 0, "all": 2}  # both are offices
    key = next(row["id"] for row in seen["ann"] if row["organisation"])
    free = next(row["id"] for row in seen["ann"] if not row["organisation"])
    site.person("teacher", "organiser", organisation=office("一小", "school"))
    assert entries(site, "teacher") == [] and site.get(f"{LIST}/{free}", by="teacher").status_code == 404
    answer(site, "zoe", free, "approve")
    for name, status in (("zoe", 404), ("far", 404), ("edi", 403)):
        for method, rest in (("GET", ""), ("POST", "/approve"), ("POST", "/decline"), ("POST", "/hours"), ("POST", "/lecturer")):
            body = {"/decline": {"reason": "x"}, "/hours": {"date": "2026-01-01", "hours": 1}}.get(rest)
            got = site.call(method, f"{LIST}/{key}{rest}", by=name, match='"1"', json=body or {})
            assert got.status_code == status, (name, rest, got.text)
    lines = list(Audit.rows().find({"action": "volunteer.read_list"}))
    assert [(line["actor"], line["note"]) for line in lines] == [
        (site.ids[name], f"{n} sign-ups") for name, n in (("ann", 2), ("zoe", 1), ("far", 0), ("all", 2), ("teacher", 0))
    ]
    assert site.get(LIST).status_code == 401
    assert site.get("/v1/staff/volunteer-hours", by="zoe").json() == {"items": []}
    first = site.get(f"{LIST}?limit=1", by="all").json()
    rest = site.get(f"{LIST}?limit=1&cursor={first['next_cursor']}", by="all").json()
    assert rest["next_cursor"] is None and {first["items"][0]["id"], rest["items"][0]["id"]} == {r["id"] for r in seen["all"]}


def test_hours_are_tallied_by_year_and_stay(site: Site) -> None:
    site.person("ann", "organiser")
    code = sign_up(site, kind="helper")
    [one] = entries(site, "ann")
    answer(site, "ann", one["id"], "approve")
    days = [store.now().date() - timedelta(days=days) for days in (1, 200, 360)]
    for day in days:
        body, key = {"date": str(day), "hours": 2}, {"Idempotency-Key": f"day {day}"}
        twice = [site.post(f"{LIST}/{one['id']}/hours", body, by="ann", headers=key).json() for _ in "ab"]
        assert twice[0] == twice[1]
    before = site.get("/v1/staff/volunteer-hours", by="ann").json()["items"]
    assert sum(row["hours"] for row in before) == 6 and {row["year"] for row in before} == {day.year for day in days}
    made = site.post(f"{LIST}/{one['id']}/lecturer", {"organisation": office("妇联")}, by="ann")
    assert made.json()["code"] == "wrong_state"  # a helper is no lecturer
    site.call("DELETE", f"/v1/volunteers/{code}")
    volunteers.erase(store.now() + timedelta(days=40))
    assert Volunteer.rows().count_documents({}) == 0
    assert site.get("/v1/staff/volunteer-hours", by="ann").json()["items"] == before
    assert Hours.rows().count_documents({}) == len(before)


def test_mistakes_and_floods_are_answered(site: Site) -> None:
    wrong = offer(phone="123456", kind="boss", division="15", hours_a_month=0, colour="red")
    reply = site.post("/v1/volunteers", wrong)
    assert reply.status_code == 422
    assert {one["field"] for one in reply.json()["errors"]} >= {"kind", "division", "hours_a_month", "colour"}
    assert site.post("/v1/volunteers", offer(phone="123456")).json()["errors"][0]["field"] == "phone"
    assert site.post("/v1/volunteers", offer(organisation="f" * 32)).json()["errors"][0]["code"] == "unknown_reference"
    assert site.post("/v1/volunteers", offer(division="999999")).status_code == 422
    for path in ("/v1/volunteers/00000-00000-00000", "/v1/volunteers/%24ne"):
        for method in ("GET", "PATCH", "DELETE"):
            assert site.call(method, path, json={}).status_code == 404
    answers = [site.post("/v1/volunteers", {}).status_code for _ in range(70)]
    assert answers[0] == 422 and answers[-1] == 429


def test_what_is_answered_is_what_is_documented(site: Site) -> None:
    document = Document(site.get("/openapi.json").json())
    site.person("ann", "organiser")
    site.person("bea", "organiser")
    federation, school = office("妇联"), office("第一中学", "school")

    def ask(method: str, rule: str, by: str = "", body: Any = None, match: str = "", **names: str) -> Any:
        told, _ = document.operation(method, rule)
        reply = site.call(method, rule.format(**names), by=by, json=body, match=match)
        assert reply.ok, reply.text
        document.compare(told, reply, rule)
        return reply

    made = ask("POST", "/v1/staff/lecturers", "ann", entry(federation, paired_schools=[school]))
    one = f"{LECTURERS}/{{lecturer_id}}"
    names = {"lecturer_id": made.json()["id"]}
    ask("PUT", f"{one}/contact", "ann", {"contact": PHONE}, '"1"', **names)
    ask("GET", f"{one}/contact", "ann", **names)
    ask("POST", f"{one}/publish", "bea", {}, '"2"', **names)
    for rule, by in (("/v1/lecturers", ""), ("/v1/lecturers/{lecturer_id}", ""), (LECTURERS, "ann"), (one, "ann")):
        ask("GET", rule, by, **names)
    ask("POST", f"{one}/withdraw", "ann", {}, '"3"', **names)

    code = {"code": ask("POST", "/v1/volunteers", body=offer()).json()["code"]}
    key = {"volunteer_id": ask("GET", LIST, "ann").json()["items"][0]["id"]}
    one = f"{LIST}/{{volunteer_id}}"
    ask("GET", one, "ann", **key)
    ask("POST", f"{one}/decline", "ann", {"reason": "再等等"}, '"1"', **key)
    ask("POST", f"{one}/approve", "ann", {}, '"2"', **key)
    given = ask("POST", f"{one}/hours", "ann", {"date": str(store.now().date()), "hours": 2}, **key).json()["given"][0]["id"]
    ask("GET", "/v1/staff/volunteer-hours", "ann")
    ask("GET", "/v1/volunteers/{code}", **code)
    ask("PATCH", "/v1/volunteers/{code}", body={"hours_a_month": 2}, **code)
    ask("POST", f"{one}/lecturer", "ann", {"organisation": federation}, **key)
    match = site.get(one.format(**key), by="ann").headers["ETag"]
    ask("DELETE", f"{one}/hours/{{line_id}}", "ann", None, match, line_id=given, **key)
    ask("DELETE", "/v1/volunteers/{code}", **code)
    assert document.untold() == []


def test_a_stranger_who_was_faster_cannot_make_an_offer_vanish(site: Site, clock: Any) -> None:
    site.person("ann", "organiser")
    first, mine, other = sign_up(site, name="陌生人"), sign_up(site), sign_up(site, name="另一人")
    site.call("DELETE", f"/v1/volunteers/{first}")
    [seen] = entries(site, "ann", "?state=received")
    assert (seen["name"], seen["repeats"]) == (NAME, 1)
    answer(site, "ann", seen["id"], "approve")
    assert site.get(f"/v1/volunteers/{other}").json()["state"] == "approved"
    nowhere(NAME, "另一人", PHONE)
    # over a year it goes the same way: whoever is left is received
    Volunteer.rows().update_one({"_id": seen["id"]}, {"$set": {"expires_at": store.now()}})
    volunteers.erase(store.now())
    assert site.get(f"/v1/volunteers/{mine}").status_code == 404
    assert [row["name"] for row in entries(site, "ann", "?state=received")] == ["另一人"]


def test_hours_are_noted_in_a_session_that_one_may_know_of(site: Site) -> None:
    an_office("district", "federation", "150603")
    site.person("district", "organiser", organisation="district")
    public, theirs = a_session(site), a_session(site, publish=False)
    own = an_office("own", "school", "150603")
    site.person("ann", "organiser", organisation=own)
    sign_up(site, organisation=own)
    [one] = entries(site, "ann")
    answer(site, "ann", one["id"], "approve")
    body = {"date": store.now().date().isoformat(), "hours": 1.5}
    site.refresh()
    said = [site.post(f"{LIST}/{one['id']}/hours", {**body, "session": key}, by="ann") for key in (theirs, "nothing", public)]
    assert [reply.status_code for reply in said] == [422, 422, 201]
    assert said[0].json()["errors"][0]["code"] == said[1].json()["errors"][0]["code"] == "unknown_reference"


def test_one_address_signs_up_five_times_a_day(site: Site) -> None:
    replies = [site.post("/v1/volunteers", offer(phone=f"1380013800{n}")) for n in range(6)]
    assert [reply.status_code for reply in replies] == [201] * 5 + [429]
    assert int(replies[5].headers["Retry-After"]) > 60


def test_what_staff_read_is_one_line_and_shows_all_that_it_says(site: Site) -> None:
    site.person("ann", "organiser")
    sign_up(site, name="王\u202e英秀\r\n\x07（已核）\u2066", field="阅读\u2028\u2029写作")
    [seen] = entries(site, "ann")
    assert (seen["name"], seen["field"]) == ("王英秀 （已核）", "阅读 写作")

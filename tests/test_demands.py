"""Demand and task lists: a district asks, others second it, the city answers; families count and are not known."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from bson import encode

from content import demands, publicwords, records, sealed, staff, store, suggestions
from content.demands import Demand
from tests.site import Clock, Site
from tests.test_openapi import Document

DISTRICT, CITY, COUNTRY_SIDE = "150603", "150600", "150602"  # Kangbashi, its city Ordos, the next district
YEAR = datetime.now(UTC).year + 1  # always to come


def words(text: str, **more: str) -> list[dict[str, str]]:
    return [{"language": "zh-Hans", "text": text}, *({"language": tag, "text": one} for tag, one in more.items())]


ASKED = {
    "organisation": "school", "division": DISTRICT, "topic": "gaming", "audiences": ["parent"], "stages": ["junior"],
    "place": "school", "month": f"{YEAR}-05", "people": 120,
    "why": words("很多家长问怎么谈手机", en="Parents ask how to talk about phones"),
}  # fmt: skip
OFFERED = {
    "organisation": "city", "division": CITY, "topic": "gaming", "audiences": ["parent"], "from": f"{YEAR}-06-01",
    "to": f"{YEAR}-06-30", "what": words("百场家教公益讲座"), "provider": "centre",
}  # fmt: skip


def office(key: str, kind: str, division: str) -> str:
    record = staff.Organisation(id=key, name=f"机构 {key}", kind=kind, division=division)
    return str(records.create(record, records.SYSTEM).id)


@pytest.fixture
def people(site: Site) -> Site:
    """A school and a community of one district, its federation, the city's, and the next district's."""
    sealed.seal("")
    for key, kind, division in (
        ("school", "school", DISTRICT), ("community", "community", DISTRICT), ("district", "federation", DISTRICT),
        ("city", "federation", CITY), ("centre", "social_service", CITY), ("next", "federation", COUNTRY_SIDE),
    ):  # fmt: skip
        office(key, kind, division)
    return site


def enter(site: Site, *names: str) -> Site:
    """Sign in an organiser of each of these organisations; `hal` only reads."""
    for name in names:
        grant = {"division": DISTRICT} if name == "hal" else {"organisation": name}
        site.person(name, "hospital" if name == "hal" else "organiser", **grant)
    return site


def nonce(n: int, days: int = 0) -> str:
    day = (store.now() + timedelta(days=days)).astimezone(ZoneInfo("Asia/Shanghai")).date()
    return f"{day:%Y%m%d}-{n:032x}"


def ask(site: Site, by: str = "school", publish: bool = True, **more: Any) -> str:
    """Path of a demand, open."""
    made = site.post("/v1/staff/demands", {**ASKED, "organisation": by, **more}, by=by)
    assert made.status_code == 201, made.text
    path = str(made.headers["Location"])
    if publish:
        assert step(site, path, "publish", by).status_code == 200
    return path


def step(site: Site, path: str, verb: str, by: str, json: Any = None) -> requests.Response:
    """Take a step from the revision as it now is."""
    return site.post(f"{path}/{verb}", json, by=by, match=site.get(path, by=by).headers.get("ETag", '"1"'))


def seen(site: Site, rule: str = "demands", **query: str) -> list[dict[str, Any]]:
    site.refresh()
    reply = site.get(f"/v1/{rule}", params=query)
    assert reply.status_code == 200, reply.text
    items: list[dict[str, Any]] = reply.json()["items"]
    return items


def a_session(site: Site, publish: bool = True) -> str:
    """Id of a session of the district's own, made as its staff make one."""
    if "rev" not in site.tokens:
        site.person("rev", "reviewer", division=CITY)
    texts = [{"language": "zh-Hans", "title": "手机怎么谈"}]
    body = {"texts": texts, "topics": ["gaming"], "format": "salon", "organisation": "district", "division": DISTRICT}
    made = site.post("/v1/staff/courses", body, by="district")
    path = made.headers["Location"]
    for verb, by in (("approve", "rev"), ("publish", "district")):
        assert step(site, path, verb, by).status_code == 200
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    times = {"starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=1)).isoformat()}
    hall = {"name": [{"language": "zh-Hans", "text": f"报告厅 {made.json()['id']}"}]}
    body = {"series": made.json()["id"], **times, "place": "school", "venue": hall, "capacity": 50}
    session = site.post("/v1/staff/sessions", body, by="district")
    assert session.status_code == 201, session.text
    if publish:
        assert step(site, session.headers["Location"], "publish", "district").status_code == 200
    return str(session.json()["id"])


def test_a_school_asks_others_second_it_and_the_city_answers(people: Site) -> None:
    site = enter(people, "school", "community", "district", "city", "next")
    documented = Document(site.get("/openapi.json").json())

    def told(method: str, rule: str, reply: requests.Response, status: int = 200) -> Any:
        assert reply.status_code == status, reply.text
        documented.compare(documented.operation(method, rule)[0], reply, rule)
        return reply.json()

    # a draft is nobody else's, and publishing puts it on the list
    made = site.post("/v1/staff/demands", ASKED, by="school")
    told("post", "/v1/staff/demands", made, 201)
    path, key = made.headers["Location"], made.json()["id"]
    assert (made.json()["from"], made.json()["to"]) == (f"{YEAR}-05-01", f"{YEAR}-05-31")
    assert seen(site) == [] and site.get(path, by="city").status_code == 404
    assert site.post(f"{path}/publish", by="school").status_code == 428
    told("post", "/v1/staff/demands/{demand_id}/publish", step(site, path, "publish", "school"))
    (line,) = told("get", "/v1/demands", site.get("/v1/demands", headers={"Accept-Language": "en"}))["items"]
    assert line["why"] == "Parents ask how to talk about phones" and line["asked_by"]["name"] == "机构 school"
    assert (line["state"], line["people"], line["seconds"], line["families_at_least"], line["answer"]) == (
        "open",
        120,
        [],
        0,
        None,
    )

    # who seconds it does so once; the asker does not
    for _ in range(2):
        reply = site.post(f"{path}/seconds", {"organisation": "community"}, by="community")
        told("post", "/v1/staff/demands/{demand_id}/seconds", reply)
    assert site.post(f"{path}/seconds", {"organisation": "school"}, by="school").status_code == 422
    assert site.post(f"{path}/seconds", {"organisation": "city"}, by="community").status_code == 404
    site.post(f"{path}/seconds", {"organisation": "next"}, by="next")
    told(
        "delete",
        "/v1/staff/demands/{demand_id}/seconds",
        site.call("DELETE", f"{path}/seconds", json={"organisation": "next"}, by="next"),
    )
    assert [one["organisation"] for one in seen(site)[0]["seconds"]] == ["community"]
    for n in (*range(1, 12), 11):
        site.post(f"/v1/demands/{key}/seconds", {"nonce": nonce(n)})
    assert seen(site)[0]["families_at_least"] == 10

    # the list is found from above and below, and by what it is about
    for query in ({"division": CITY}, {"division": DISTRICT}, {"topic": "gaming"}, {"audience": "parent"}, {"stage": "junior.9"}):
        assert len(seen(site, **query)) == 1, query
    for query in (
        {"division": COUNTRY_SIDE},
        {"topic": "fraud"},
        {"audience": "teacher"},
        {"stage": "senior"},
        {"state": "done"},
    ):
        assert seen(site, **query) == [], query

    # what others seconded stays; the rest may be mended, in view of all
    edited = site.call("PATCH", path, json={"people": 90}, by="school", match=site.get(path, by="school").headers["ETag"])
    told("patch", "/v1/staff/demands/{demand_id}", edited)
    assert seen(site)[0]["people"] == 90
    match = edited.headers["ETag"]
    assert site.call("PATCH", path, json={"topic": "fraud"}, by="school", match=match).json()["code"] == "wrong_state"
    assert site.call("PATCH", path, json={"people": 80}, by="school", match=made.headers["ETag"]).status_code == 412

    # the city answers with a session that families can see
    draft, session = a_session(site, publish=False), a_session(site)
    for wrong in (
        {},
        {"session": draft},
        {"session": session, "reason": words("没有")},
        {"from": f"{YEAR}-06-01"},
        {"series": session},
    ):
        reply = step(site, path, "answer", "city", wrong)
        assert reply.status_code == 422, (wrong, reply.text)
    told(
        "post",
        "/v1/staff/demands/{demand_id}/answer",
        step(site, path, "answer", "city", {"session": session, "note": words("周五晚上")}),
    )
    assert step(site, path, "answer", "district", {"reason": words("不行")}).json()["code"] == "wrong_state"
    (line,) = told("get", "/v1/demands", site.get("/v1/demands"))["items"]
    assert line["answer"]["offered"]["id"] == session and line["answer"]["offered"]["title"] == "手机怎么谈"
    assert line["answer"]["provider"]["name"] == "机构 district" and line["answer"]["note"] == "周五晚上"
    (task,) = told("get", "/v1/tasks", site.get("/v1/tasks"))["items"]
    assert (task["demand"], task["what"], task["state"]) == (key, "周五晚上", "published")
    late = site.post(f"/v1/demands/{key}/seconds", {"nonce": nonce(99)})
    assert (late.status_code, late.json()["code"]) == (409, "wrong_state")
    assert site.post(f"/v1/demands/{key}/seconds", {"nonce": nonce(3)}).json() == {"counted": False}

    # a session that is cancelled says so in the answer; the demand is opened again, with a reason
    assert step(site, f"/v1/staff/sessions/{session}", "cancel", "district", {"note": ""}).status_code == 200
    assert seen(site)[0]["answer"]["offered"]["state"] == "cancelled"
    assert step(site, path, "reopen", "city").json()["errors"][0]["field"] == "note"
    told("post", "/v1/staff/demands/{demand_id}/reopen", step(site, path, "reopen", "city", {"note": "讲师病了"}))
    assert seen(site)[0]["answer"] is None and seen(site, "tasks") == []
    planned = {"month": f"{YEAR}-06", "provider": "centre", "note": words("六月补上")}
    assert step(site, path, "answer", "district", planned).status_code == 200
    told("get", "/v1/staff/demands/{demand_id}", site.get(path, by="district"))
    (task,) = seen(site, "tasks", topic="gaming", division=DISTRICT)
    assert (task["from"], task["to"], task["provider"]["organisation"]) == (f"{YEAR}-06-01", f"{YEAR}-06-30", "centre")
    told("post", "/v1/staff/demands/{demand_id}/done", step(site, path, "done", "school"))
    assert [one["state"] for one in seen(site) + seen(site, "tasks")] == ["done", "done"]
    assert len(told("get", "/v1/staff/demands", site.get("/v1/staff/demands", by="city"))["items"]) == 1
    assert site.get("/v1/staff/demands", by="next").json()["items"] == []

    # every step stands in the trail, families nowhere
    lines = records.history(kind="demand", key=key, limit=50)
    assert [line.action.partition(".")[2] for line in reversed(lines)] == [
        "create", "publish", "second", "second", "take_back", "edit", "answer", "reopen", "answer", "finish",
    ]  # fmt: skip
    assert next(line for line in lines if line.action == "demand.reopen").note == "讲师病了"
    assert not any("families" in line.after for line in lines[:-1])


def test_who_may_what(people: Site) -> None:
    site = enter(people, "school", "community", "district", "city", "next", "hal")
    path = ask(site)
    plan = {"from": f"{YEAR}-06-01", "provider": "centre"}
    match = site.get(path, by="school").headers["ETag"]
    # a school answers nobody's demand, not even its own; another district's office sees nothing to answer
    for by, status in (("school", 403), ("community", 404), ("next", 404), ("hal", 403)):
        assert site.post(f"{path}/answer", plan, by=by, match=match).status_code == status, by
    for verb, by, status in (
        ("withdraw", "community", 404), ("withdraw", "city", 403), ("reopen", "next", 404), ("publish", "hal", 403),
    ):  # fmt: skip
        assert site.post(f"{path}/{verb}", {}, by=by, match=match).status_code == status, (verb, by)
    assert site.call("PATCH", path, json={"people": 5}, by="community", match=match).status_code == 404
    assert site.get(path, by="community").status_code == 404
    assert site.get(path, by="hal").status_code == 200  # may read what is of its division
    assert site.post("/v1/staff/demands", {**ASKED, "organisation": "city"}, by="school").status_code == 403
    assert site.post("/v1/staff/tasks", {**OFFERED, "organisation": "city"}, by="hal").status_code == 403
    assert site.get("/v1/staff/suggestions", by="hal").status_code == 403
    # a school's grant for one organisation reaches no further when it names the whole country
    task = site.post("/v1/staff/tasks", {**OFFERED, "organisation": "school", "division": DISTRICT}, by="school")
    assert step(site, task.headers["Location"], "publish", "school").status_code == 403
    # declining needs its reason and says it to everyone; the asker may ask again
    no = {"reason": words("本学期讲师排满，九月优先安排。")}
    assert site.post(f"{path}/answer", no, by="district", match=match).status_code == 200
    assert seen(site, state="declined")[0]["answer"]["reason"].startswith("本学期")
    assert seen(site, "tasks") == []
    assert step(site, path, "reopen", "school", {"note": "换了时间"}).status_code == 200
    assert step(site, path, "withdraw", "school", {}).status_code == 200
    assert seen(site) == []
    assert step(site, path, "withdraw", "school", {}).json()["code"] == "wrong_state"
    draft = ask(site, publish=False)
    assert site.call("DELETE", draft, by="school", match='"1"').status_code == 204
    assert site.get(draft, by="school").status_code == 404


def test_of_two_answers_at_once_one_wins(people: Site) -> None:
    site = enter(people, "school", "district", "city")
    path, start = ask(site), Barrier(4)
    match = site.get(path, by="school").headers["ETag"]
    plans: list[dict[str, Any]] = [{"from": f"{YEAR}-06-0{n}", "provider": "centre"} for n in (1, 2)]
    plans += [{"reason": words("不行")}, {"month": f"{YEAR}-07", "provider": "centre"}]

    def press(n: int) -> tuple[int, str]:
        start.wait()
        by = "city" if n % 2 else "district"
        reply = requests.post(
            f"{site.base}{path}/answer", json=plans[n], timeout=20,
            headers={"Authorization": f"Bearer {site.tokens[by]}", "If-Match": match},
        )  # fmt: skip
        return reply.status_code, reply.json().get("code", "")

    with ThreadPoolExecutor(4) as pool:
        told = sorted(pool.map(press, range(4)))
    assert told == [(200, ""), *[(412, "stale")] * 3]
    assert len([line for line in records.history(kind="demand") if line.action in {"demand.answer", "demand.decline"}]) == 1


def test_families_are_counted_once_and_told_in_tens(people: Site, clock: Clock) -> None:
    site = enter(people, "school", "city")
    key = ask(site).rpartition("/")[2]
    start = Barrier(12)

    def press(n: int) -> bool:
        start.wait()
        return demands.second_as_family(site.settings, key, nonce(n % 6 + 1))  # each nonce twice at one moment

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(press, range(12))) == [False] * 6 + [True] * 6
    assert demands.find(Demand, key).families == 6 and seen(site)[0]["families_at_least"] == 0
    before = site.reader.current.seq
    for n in (7, 8, 9):  # nobody learns of the third, nor that there was one
        assert site.post(f"/v1/demands/{key}/seconds", {"nonce": nonce(n)}).status_code == 201
    assert seen(site)[0]["families_at_least"] == 0 and site.reader.current.seq == before
    assert "families" not in site.get(f"/v1/staff/demands/{key}", by="city").json()
    assert site.post(f"/v1/demands/{key}/seconds", {"nonce": nonce(10)}).json() == {"counted": True}
    assert seen(site)[0]["families_at_least"] == 10
    for wrong in (nonce(1, days=-1), nonce(1, days=1), "x", f"{nonce(1)}0"):
        assert site.post(f"/v1/demands/{key}/seconds", {"nonce": wrong}).status_code == 422
    for nothing in ("nothing", ask(site, publish=False).rpartition("/")[2]):
        assert site.post(f"/v1/demands/{nothing}/seconds", {"nonce": nonce(1)}).status_code == 404
    rows = list(store.database().demand_seconds.find())
    assert len(rows) == 10 and all(row.keys() == {"_id", "expires_at"} for row in rows)
    assert {row["expires_at"].astimezone(ZoneInfo("Asia/Shanghai")).strftime("%H:%M:%S") for row in rows} == {"00:00:00"}
    clock(86400)  # what it cannot prevent, as the module says: tomorrow the same phone counts again
    assert demands.second_as_family(site.settings, key, nonce(1))


def test_what_a_family_suggests_is_for_staff_and_leaves_nothing(people: Site) -> None:
    site = enter(people, "school", "district", "city", "next")
    text = "孩子晚上总看手机到半夜，我不知道怎么开口"
    body = {
        "nonce": nonce(1),
        "division": DISTRICT,
        "topic": "gaming",
        "stage": "junior",
        "time": "weekday_evening",
        "text": text,
    }
    assert site.post("/v1/demands/suggestions", body).status_code == 201
    assert site.post("/v1/demands/suggestions", body).status_code == 200
    bare = {"nonce": nonce(2), "division": DISTRICT, "topic": "fraud"}
    assert site.post("/v1/demands/suggestions", bare).status_code == 201
    wrong = site.post("/v1/demands/suggestions", {**body, "nonce": nonce(3), "text": "请打给我 138 0013 8000"})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["code"] == "personal_number"
    assert "138 0013 8000" not in wrong.text and seen(site) == []
    for more in ({"text": "字" * 201}, {"phone": "1"}, {"topic": "x"}, {"time": "night"}, {"division": "999999"}):
        assert site.post("/v1/demands/suggestions", {**body, "nonce": nonce(3), **more}).status_code == 422, more

    # the district and the city read it, a school and the next district do not
    found = site.get("/v1/staff/suggestions?limit=1", by="city").json()
    rest = site.get("/v1/staff/suggestions", params={"cursor": found["next_cursor"]}, by="district").json()
    rows = {row["topic"]: row for row in found["items"] + rest["items"]}
    assert rows["gaming"]["text"] == text and rows["gaming"]["time"] == "weekday_evening" and rows["fraud"]["stage"] == ""
    for by in ("school", "next"):
        assert site.get("/v1/staff/suggestions", by=by).json()["items"] == []
        assert site.call("DELETE", f"/v1/staff/suggestions/{rows['fraud']['id']}", by=by).status_code == 404

    # stored: sealed, without a moment, and for 180 days
    (raw,) = store.database().suggestions.find({"topic": "gaming"})
    assert raw.keys() == {"_id", "division", "topic", "stage", "time", "text", "day", "expires_at"}
    left = raw["expires_at"] - datetime.now(UTC)
    assert timedelta(days=179) < left <= timedelta(days=180)

    # one of two who take it makes a demand, in staff's own words
    mine = {"organisation": "district", "audiences": ["parent"], "why": words("家长想学怎样谈睡前手机")}
    at = f"/v1/staff/suggestions/{rows['gaming']['id']}/take"
    made = site.post(at, mine, by="district")
    assert made.status_code == 201, made.text
    assert (made.json()["topic"], made.json()["stages"], made.json()["from_families"]) == ("gaming", ["junior"], True)
    assert site.post(at, mine, by="district").status_code == 404
    assert site.call("DELETE", f"/v1/staff/suggestions/{rows['fraud']['id']}", by="city").status_code == 204
    assert suggestions.Suggestion.rows().count_documents({}) == 0
    db = store.database()
    dump = b"".join(encode(r, codec_options=db.codec_options) for name in db.list_collection_names() for r in db[name].find({}))
    assert made.json()["id"].encode() in dump
    for secret in (text, "半夜", "0013 8000", nonce(1), nonce(1)[9:]):
        assert secret.encode() not in dump, secret


def test_a_suggestion_taken_twice_at_once_is_one_demand(people: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = people
    suggestions.suggest(site.settings, nonce(1), {"division": DISTRICT, "topic": "gaming"})
    ((key, start),) = [(row["id"], Barrier(4)) for row in suggestions.listed()]

    def press(_: int) -> str:
        start.wait()
        try:
            return str(suggestions.take(key, {"organisation": "district", "why": {"zh-Hans": "想学"}}, "ann").state)
        except demands.NotFound:
            return "gone"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(press, range(4))) == ["draft", "gone", "gone", "gone"]
    monkeypatch.setattr(suggestions, "MOST", 1)
    suggestions.suggest(site.settings, nonce(2), {"division": DISTRICT, "topic": "gaming"})
    more = {"nonce": nonce(3), "division": DISTRICT, "topic": "fraud"}
    assert site.post("/v1/demands/suggestions", more).status_code == 429


def test_the_city_offers_without_being_asked(people: Site) -> None:
    site = enter(people, "district", "city")
    made = site.post("/v1/staff/tasks", OFFERED, by="city")
    path = made.headers["Location"]
    assert seen(site, "tasks") == [] and site.get(path, by="district").status_code == 404
    assert step(site, path, "publish", "city").status_code == 200
    (line,) = seen(site, "tasks", division=DISTRICT, state="published", stage="senior", audience="parent")
    assert (line["demand"], line["what"], line["provider"]["name"]) == (None, "百场家教公益讲座", "机构 centre")
    same = {name: value for name, value in site.get(path, by="city").json().items() if name in {*OFFERED, "session", "series"}}
    match = site.get(path, by="city").headers["ETag"]
    kept = site.call("PATCH", path, json=same, by="city", match=match)
    assert (kept.status_code, kept.headers["ETag"]) == (200, match)
    assert site.call("PATCH", path, json={"what": words("讲座改到周末")}, by="city", match=match).status_code == 200
    assert seen(site, "tasks")[0]["what"] == "讲座改到周末"
    assert site.call("PATCH", path, json={"session": "nothing"}, by="city", match='"3"').status_code == 422
    assert step(site, path, "done", "city").status_code == 200
    assert seen(site, "tasks")[0]["state"] == "done"
    assert step(site, path, "reopen", "city", {"note": "加一场"}).status_code == 200
    assert step(site, path, "withdraw", "city", {}).status_code == 200
    assert seen(site, "tasks") == []
    assert site.get("/v1/staff/tasks", by="city").json()["items"][0]["state"] == "withdrawn"
    draft = site.post("/v1/staff/tasks", OFFERED, by="city").headers["Location"]
    assert site.call("DELETE", draft, by="city", match='"1"').status_code == 204


def test_pages_neither_repeat_nor_skip(people: Site) -> None:
    enter(people, "school")
    keys = {ask(people).rpartition("/")[2] for _ in range(5)}
    found, cursor = list[str](), ""
    while cursor is not None:
        reply = people.get("/v1/demands", params={"limit": "2", **({"cursor": cursor} if cursor else {})}).json()
        found += [one["id"] for one in reply["items"]]
        cursor = reply["next_cursor"]
    assert len(found) == 5 and set(found) == keys


@pytest.mark.parametrize(
    "text",
    ["13800138000", "138 0013 8000", "１３８００１３８０００", "一三八零零一三八零零零", "+86-138-0013-8000",
     "0477-8123456", "(010) 6512 3456", "110101199003071234", "11010119900307123X", "110101 19900307 123x",
     "王老师 8123456", "a.b@example.cn", "138\u200b0013\u200b8000"],
)  # fmt: skip
def test_a_number_of_a_person_is_found(text: str) -> None:
    assert publicwords.number_in(f"请联系{text}，谢谢")


@pytest.mark.parametrize(
    "text",
    ["12356", "拨打 12345 或 110", "2027-05-15 19:00-20:30", "20270515", "2027-2028学年", "二〇二七年五月",
     "七年级1200人，九年级1000-1500人", "2027.05.15—2027.06.01", "每班 45 人，共 12 个班", "第 3 次，15 分钟"],
)  # fmt: skip
def test_what_is_nobodys_number_passes(text: str) -> None:
    assert publicwords.number_in(text) is None


def test_a_text_with_a_number_and_a_wrong_time_are_refused_before_anyone_reads_them(people: Site) -> None:
    site = enter(people, "school", "city")
    asked = {name: value for name, value in ASKED.items() if name != "month"}
    for more, field in (
        ({"why": words("问李主任 13800138000")}, "why.zh-Hans"), ({"month": f"{YEAR}-13"}, "month"),
        ({"stages": ["x"]}, "stages"),
        ({"from": f"{YEAR}-06-02", "to": f"{YEAR}-06-01"}, "to"), ({"from": "1.6."}, "from"), ({"topic": "x"}, "topic"),
        ({"month": f"{YEAR}-05", "from": f"{YEAR}-05-03"}, "month"), ({"from": f"{YEAR}-01-01", "to": f"{YEAR + 2}-01-01"}, "to"),
    ):  # fmt: skip
        reply = site.post("/v1/staff/demands", {**asked, **more}, by="school")
        assert (reply.status_code, [one["field"] for one in reply.json().get("errors", [])]) == (422, [field]), reply.text
    path = ask(site)
    match = site.get(path, by="school").headers["ETag"]
    bad = {"reason": words("请问 0477-8123456")}
    refused = site.post(f"{path}/answer", bad, by="city", match=match)
    assert refused.json()["errors"][0]["code"] == "personal_number" and "电话号码" in refused.text
    past = ask(site, publish=False, month="2020-01")
    assert step(site, past, "publish", "school").json()["errors"][0]["field"] == "to"
    assert not [line for line in records.history() if "13800138" in str(line.after) or "8123456" in str(line.after)]


def test_a_public_task_is_worded_by_who_answers_for_it(people: Site) -> None:
    enter(people, "school", "district")
    body = {**OFFERED, "organisation": "school", "division": DISTRICT}
    path = str(people.post("/v1/staff/tasks", body, by="school").headers["Location"])
    people.person("dana", "organiser", division=DISTRICT)
    match = people.get(path, by="school").headers["ETag"]
    assert people.call("PATCH", path, json={"what": words("改一改")}, by="school", match=match).status_code == 200
    assert step(people, path, "publish", "school").status_code == 403
    assert step(people, path, "publish", "dana").status_code == 200
    match = people.get(path, by="school").headers["ETag"]
    assert people.call("PATCH", path, json={"what": words("区妇联说：免费")}, by="school", match=match).status_code == 403
    assert people.call("PATCH", path, json={"what": words("百场讲座")}, by="dana", match=match).status_code == 200
    assert step(people, path, "withdraw", "school", {}).status_code == 200
    assert step(people, path, "reopen", "school", {"note": "还要办"}).status_code == 403
    assert step(people, path, "reopen", "dana", {"note": "还要办"}).status_code == 200


def test_a_withdrawn_demand_is_read_by_nobody_through_its_seconds(people: Site) -> None:
    enter(people, "school", "community")
    path = ask(people)
    assert step(people, path, "withdraw", "school", {}).status_code == 200
    reply = people.call("DELETE", f"{path}/seconds", json={"organisation": "community"}, by="community")
    assert reply.status_code == 404
    assert people.post(f"{path}/seconds", {"organisation": "community"}, by="community").status_code == 404


def test_suggestions_of_one_address_and_day_are_few_and_go_together(people: Site, settings: Any) -> None:
    enter(people, "school")
    people.person("dana", "organiser", division=DISTRICT)
    body = {"division": DISTRICT, "topic": "gaming"}
    replies = [people.post("/v1/demands/suggestions", {**body, "nonce": nonce(n)}) for n in range(21)]
    assert [reply.status_code for reply in replies] == [201] * 20 + [429]
    today = nonce(0)[:8]
    day = f"{today[:4]}-{today[4:6]}-{today[6:]}"
    suggestions.suggest(settings, nonce(99), {**body, "division": COUNTRY_SIDE})
    query = f"/v1/staff/suggestions?day={day}&division="
    assert people.call("DELETE", query + DISTRICT, by="school").status_code == 403
    assert people.call("DELETE", query + COUNTRY_SIDE, by="dana").status_code == 403
    assert people.call("DELETE", query + DISTRICT, by="dana").json() == {"dropped": 20}
    assert people.call("DELETE", query + DISTRICT, by="dana").json() == {"dropped": 0}
    assert suggestions.Suggestion.rows().count_documents({}) == 1

"""The desk and the inbox over HTTP: who may do what, what a notice will be, what waits for whom, and emergencies."""

from datetime import UTC, datetime, timedelta
from typing import Any

from content import staff, store
from content.records import SYSTEM
from content.settings import Settings
from notifications import emergencies, notices, outbox
from tests.site import PASSWORD, Clock, Site

ZH = "d150603.parent.senior.final.zh-Hans"
SEGMENT = "division=150603&audience=parent&stage=senior.12.final"


def test_the_desk_and_the_inbox_over_http(site: Site) -> None:
    site.person("organiser", "organiser", division="150603")
    site.person("reviewer", "reviewer", division="150600")
    site.person("elsewhere", "organiser", "reviewer", division="500114")
    texts = [{"language": "zh-CN", "title": "六月快到了", "body": "三分钟看完。"}]
    body = {"divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": texts}
    assert site.post("/v1/staff/notices", body, by="elsewhere").status_code == 403
    assert site.post("/v1/staff/notices", {**body, "divisions": []}, by="organiser").status_code == 403
    assert site.post("/v1/staff/notices", {**body, "texts": texts * 2}, by="organiser").status_code == 422
    made = site.post("/v1/staff/notices", body, by="organiser")
    assert made.status_code == 201, made.text
    path = made.headers["Location"]
    assert made.json()["topics"] == [ZH]
    assert site.get(path, by="elsewhere").status_code == 404
    assert site.call("PATCH", path, json={"urgent": True}, by="organiser").status_code == 428
    for field, wrong in (("lessons", ["a"]), ("expires_at", "2026-01-01T08:00"), ("expires_at", "2027-02-30T08:00")):
        refused = site.call("PATCH", path, json={field: wrong}, by="organiser", match='"1"')
        assert (refused.status_code, [one["field"] for one in refused.json()["errors"]]) == (422, [field])
    changed = site.call("PATCH", path, json={"urgent": True}, by="organiser", match='"1"')
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert site.call("PATCH", path, json={"urgent": False}, by="organiser", match='"1"').status_code == 412
    assert site.post(f"{path}/approve", by="organiser", match='"2"').status_code == 403
    assert site.post(f"{path}/approve", by="reviewer", match='"2"').json()["state"] == "approved"
    late = {"send_at": (store.now() + timedelta(days=40)).isoformat()}
    assert site.post(f"{path}/schedule", late, by="organiser", match='"3"').status_code == 422  # past its 30 days
    done = site.post(f"{path}/schedule", {}, by="organiser", match='"3"')
    assert done.status_code == 200, done.text
    outbox.sweep(store.now(), site.settings)
    site.refresh()
    segment = "division=150603&audience=parent&stage=senior.12.final"
    answer = site.get(f"/v1/notices?{segment}")
    assert [item["title"] for item in answer.json()["items"]] == ["六月快到了"]
    cursor = answer.json()["next_cursor"]
    assert site.get(f"/v1/notices?{segment}&since={cursor}").json()["items"] == []
    assert site.get("/v1/notices?division=500114").json()["items"] == []
    assert site.get("/v1/notices?division=999999").status_code == 422
    assert site.get("/v1/notices?stage=college").status_code == 422
    assert site.get(f"/v1/notices?{segment}", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert site.get("/v1/staff/notices", by="reviewer").json()["items"][0]["in_inbox"]
    assert site.get("/v1/staff/notices", by="elsewhere").json()["items"] == []
    found = {"division=150603": 1, "division=150600": 1, "division=500114": 0, "state=due&kind=general": 1}
    for wanted, there in {**found, "kind=season": 0, "season=gaokao&year=2027": 0, "state=sent": 0}.items():
        assert len(site.get(f"/v1/staff/notices?{wanted}", by="reviewer").json()["items"]) == there, wanted
    assert site.get("/v1/staff/notices?division=999999", by="reviewer").status_code == 422

    assert site.post(f"{path}/cancel", by="reviewer", match='"5"').json()["state"] == "cancelled"
    gone = site.get(f"/v1/notices?{segment}&since={cursor}").json()
    assert gone["help"] is None
    assert (gone["items"], gone["withdrawn"]) == ([], [path.rsplit("/", 1)[1]])


def test_topics_over_http(site: Site) -> None:
    assert ZH in site.get("/v1/topics?division=150603&audience=parent&stage=senior.12.final").json()["topics"]
    assert site.get("/v1/topics?division=150603").status_code == 422


def test_a_phone_is_told_topics_in_a_language_that_pushes_leave_in(site: Site) -> None:
    """A reader of Korean has topics of the service's own language: a push carries no text, so it says the same to all."""
    told = site.get("/v1/topics?division=150603&audience=parent&language=ko").json()
    assert told["language"] == "zh-Hans"
    assert {topic.rsplit(".", 1)[1] for topic in told["topics"]} == {"zh-Hans"}
    assert "谷歌" in told["what_leaves"]
    assert "Google" in site.get("/v1/topics?audience=parent&language=en").json()["what_leaves"]


def drafted(site: Site, **fields: Any) -> tuple[str, dict[str, Any]]:
    """A draft of the organiser: its path and what it is."""
    texts = [{"language": "zh-Hans", "title": "六月快到了", "body": "三分钟看完。"}]
    body = {"divisions": ["150603"], "audiences": ["parent"], "stages": ["senior.final"], "texts": texts, **fields}
    made = site.post("/v1/staff/notices", body, by="organiser")
    assert made.status_code == 201, made.text
    return made.headers["Location"], made.json()


def staff_of(site: Site) -> None:
    site.person("organiser", "organiser", division="150603")
    site.person("reviewer", "reviewer", division="150600")


def test_a_preview_says_what_it_will_be(site: Site, clock: Clock) -> None:
    clock((datetime(2027, 4, 20, 2, tzinfo=UTC) - store.now()).total_seconds())
    staff_of(site)
    path, _ = drafted(site, send_at="2027-06-07T10:10", expires_at="2027-06-09", season="gaokao")
    told = site.get(f"{path}/preview", by="reviewer").json()
    assert told["inbox_at"] == "2027-06-07T02:10:00Z"
    assert told["push_at"] == "2027-06-07T10:03:00Z"  # after the day's last paper
    (message,) = told["messages"]
    assert (message["kind"], message["target"], message["language"]) == ("topic", ZH, "zh-Hans")
    assert message["lock_screen"] == {"title": "心桥", "body": "心桥有一条新消息"}
    assert told["channels"] == [["fcm"]]
    assert (told["inbox_only"], told["missing_languages"], told["unconfirmed"]) == ([], [], False)
    path, _ = drafted(site, season="zhongkao", stages=["junior.final", "primary", "senior", "vocational", "preschool", "infant"])
    told = site.get(f"{path}/preview", by="reviewer").json()
    assert told["unconfirmed"]
    assert [len(message["topics"]) for message in told["messages"]] == [5, 1]
    assert site.get(f"{path}/preview", by="organiser", headers={"Accept-Language": "en"}).status_code == 200


def test_what_waits_for_whom(site: Site, clock: Clock) -> None:
    clock((datetime(2027, 4, 20, 2, tzinfo=UTC) - store.now()).total_seconds())
    staff_of(site)
    path, made = drafted(site)
    items = site.get("/v1/staff/notices/todo", by="organiser").json()["items"]
    asked = {one["season"] for one in items if one["what"] == "confirm_date"}
    assert "zhongkao" in asked
    assert "gaokao" not in asked
    mine = [one for one in items if one["notice"] == made["id"]]
    assert [(one["what"], one["may"]) for one in mine] == [("approve", False)]
    (theirs,) = [one for one in site.get("/v1/staff/notices/todo", by="reviewer").json()["items"] if one["notice"] == made["id"]]
    assert theirs["may"]
    site.post(f"{path}/approve", by="reviewer", match='"1"')
    (after,) = [one for one in site.get("/v1/staff/notices/todo", by="organiser").json()["items"] if one["notice"] == made["id"]]
    assert (after["what"], after["may"]) == ("schedule", True)


def test_who_is_asked_for_whose_dates(site: Site, clock: Clock) -> None:
    """The service is the country's: a district's people are asked for their district's dates, and not for the country's."""
    clock((datetime(2027, 4, 20, 2, tzinfo=UTC) - store.now()).total_seconds())
    site.person("nation", "organiser")
    site.person("city", "organiser", division="150600")
    site.person("district", "organiser", division="150603")
    site.person("second", "reviewer", division="150603")
    site.person("seer", "commission")
    both = [staff.Grant("organiser", "", code) for code in ("150603", "150600", "500114")]
    staff.create_account("both", "both", PASSWORD, SYSTEM, grants=[*both, staff.Grant("commission")], must_change=False)
    site.tokens["both"] = staff.sign_in("both", PASSWORD).access_token

    def asked(by: str) -> set[tuple[str, bool]]:
        items = site.get("/v1/staff/notices/todo", by=by).json()["items"]
        return {(one["division"], one["may"]) for one in items if one["season"] == "zhongkao"}

    assert asked("nation") == {("", True)}
    assert asked("city") == {("150600", True)}
    assert asked("district") == {("150603", True)}
    assert asked("second") == {("150603", False)}
    assert asked("seer") == {("", False)}
    assert asked("both") == {("", False), ("150600", True), ("500114", True)}
    dates = {"code": "zhongkao", "division": "150603", "first": "2027-06-20", "last": "2027-06-22"}
    assert site.post("/v1/staff/seasons", dates, by="district").status_code == 201
    assert asked("district") == asked("second") == set()
    assert asked("city") == {("150600", True)}


# --- emergencies ------------------------------------------------------------------------------------------------------

SAD = "身边发生了一件让人难过的事。今晚请多陪陪孩子，听他说说。想找人谈谈，可拨 12356，随时有人接。"


def test_an_emergency_names_help_and_neither_method_nor_place_nor_person(site: Site) -> None:
    staff_of(site)
    site.person("boss", "admin")
    school = {"name": "第八中学", "kind": "school", "division": "150603"}
    assert site.post("/v1/staff/organisations", school, by="boss").status_code == 201

    def tried(body: str) -> list[str]:
        text = [{"language": "zh-Hans", "title": "给家长的一封短信", "body": body}]
        fields = {"kind": "emergency", "divisions": ["150603"], "audiences": ["parent"], "texts": text}
        answer = site.post("/v1/staff/notices", fields, by="organiser")
        return [error["code"] for error in answer.json().get("errors", ())]

    assert tried(SAD) == []
    assert tried("身边发生了一件让人难过的事。") == ["no_help_line"]
    assert tried(SAD + "一名学生跳楼。") == ["no_method"]
    assert tried(SAD + "第八中学明天停课。") == ["no_place"]
    assert tried(SAD + "请联系 13912345678。") == ["personal_number"]
    assert emergencies.faults({"en": {"title": "A hard day", "body": "Call 123 56 at any hour."}}) == []


def test_adults_hear_first_and_readers_see_who_approved(site: Site, near: Settings, clock: Clock) -> None:
    clock((datetime(2027, 5, 3, 14, 20, tzinfo=UTC) - store.now()).total_seconds())  # 22:20
    staff_of(site)
    site.person("boss", "admin")
    office = {"name": "区教育体育局", "kind": "education", "division": "150603"}
    made = site.post("/v1/staff/organisations", office, by="boss")
    site.person("writer", "organiser", organisation=made.json()["id"])
    texts = [{"language": "zh-Hans", "title": "给家长的一封短信", "body": SAD}]
    body = {"kind": "emergency", "divisions": ["150603"], "audiences": ["parent", "student"], "texts": texts}
    refused = site.post("/v1/staff/notices", body, by="writer")
    assert [error["code"] for error in refused.json()["errors"]] == ["adults_first"]
    refused = site.post("/v1/staff/notices", {**body, "audiences": ["student"]}, by="writer")
    assert [error["code"] for error in refused.json()["errors"]] == ["adults_first"]

    def approved(**fields: Any) -> str:
        path = site.post("/v1/staff/notices", {**body, **fields}, by="writer").headers["Location"]
        assert site.post(f"{path}/approve", by="writer", match='"1"').status_code == 403
        assert site.post(f"{path}/approve", by="reviewer", match='"1"').status_code == 200
        assert site.post(f"{path}/schedule", {}, by="writer", match='"2"').status_code == 200
        return path.rsplit("/", 1)[1]

    adults = approved(audiences=["parent"])
    students = approved(audiences=["student"], after=adults)
    for minutes, states in ((0, ("sent", "scheduled")), (20, ("sent", "scheduled")), (11, ("sent", "sent"))):
        clock(minutes * 60)
        if outbox.sweep(store.now(), near):
            outbox.fan_out(near, pause=lambda seconds: None)
        assert (notices.get(adults).state, notices.get(students).state) == states, notices.get(adults).reason
    assert notices.get(students).results[0].at - notices.get(adults).results[0].at >= timedelta(minutes=30)
    site.refresh()
    told = site.get(f"/v1/notices?{SEGMENT}").json()
    assert [(one["kind"], one["offices"]) for one in told["items"]] == [("emergency", ["区教育体育局", "鄂尔多斯市"])]
    assert "12356" in str(told["help"]["lines"])

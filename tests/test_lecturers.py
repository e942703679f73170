"""The expert library: one person writes, a second reads, families see; how a lecturer is reached stays inside."""

from typing import Any

import pytest

from content import lecturers, staff, store
from content.failures import NotFound
from content.records import SYSTEM, Audit
from tests.site import Site

LIST = "/v1/staff/lecturers"
PHONE = "13900139000"


def entry(organisation: str, **more: Any) -> dict[str, Any]:
    """A body for a new entry."""
    name = [{"language": "zh-Hans", "text": "巴特尔"}, {"language": "mn-Mong", "text": "ᠪᠠᠭᠠᠲᠤᠷ"}]
    return {
        "name": name, "profile": [{"language": "zh-Hans", "text": "从教三十年。"}],
        "field": [{"language": "zh-Hans", "text": "青春期亲子沟通"}, {"language": "en", "text": "Talking with teens"}],
        "workplace": [{"language": "zh-Hans", "text": "市人民医院"}],
        "kind": "expert", "topics": ["parenting", "emotion"], "teaches_in": ["zh-Hans", "mn-Mong"], "organisation": organisation,
        "division": "150603", **more,
    }  # fmt: skip


def office(name: str, kind: str = "federation", division: str = "150603") -> str:
    """Id of a new organisation."""
    return str(staff.create_organisation(name, kind, division, SYSTEM).id)


def step(site: Site, by: str, key: str, verb: str, body: Any = None, status: int = 200) -> dict[str, Any]:
    """One verb on the entry as it now is."""
    match = site.get(f"{LIST}/{key}", by=by).headers["ETag"]
    reply = site.post(f"{LIST}/{key}/{verb}", body, by=by, match=match)
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def test_from_a_draft_through_a_second_person_to_families_and_back(site: Site) -> None:
    federation, school = office("妇联"), office("第一中学", "school")
    ann = site.person("ann", "organiser", organisation=federation, division="150603")
    rev = site.person("rev", "reviewer")
    made = site.post(LIST, entry(federation, paired_schools=[school]), by=ann)
    assert made.status_code == 201, made.text
    key = made.json()["id"]
    assert made.headers["Location"] == f"{LIST}/{key}" and made.json()["state"] == "draft" and not made.json()["has_contact"]
    assert site.get(f"/v1/lecturers/{key}").status_code == 404
    with pytest.raises(NotFound):
        lecturers.named(key)

    assert step(site, ann, key, "publish", status=403)["code"] == "second_person"
    assert step(site, ann, key, "approve", status=403)["code"] == "not_allowed"  # an organiser approves nothing
    assert step(site, rev, key, "publish", status=403)["code"] == "not_allowed"  # a reviewer publishes no course matters
    assert step(site, rev, key, "approve")["approved"]
    shown = step(site, ann, key, "publish")
    assert (shown["state"], shown["reviewed_by"], shown["unpublished_changes"]) == ("published", site.ids["rev"], False)
    assert shown["reviewed_at"] and not shown["approved"]

    seen = site.get(f"/v1/lecturers/{key}", headers={"Accept-Language": "en, mn-Mong;q=0.5"})
    assert "ETag" in seen.headers
    public = seen.json()
    assert (public["name"], public["language"], public["field"]) == ("ᠪᠠᠭᠠᠲᠤᠷ", "mn-Mong", "Talking with teens")
    assert public["paired_schools"] == [{"id": school, "name": "第一中学"}] and public["workplace"] == "市人民医院"
    assert not {"authors", "reviewed_by", "contact", "has_contact"} & public.keys()
    assert lecturers.named(key) == {
        "name": {"zh-Hans": "巴特尔", "mn-Mong": "ᠪᠠᠭᠠᠲᠤᠷ"},
        "field": {"zh-Hans": "青春期亲子沟通", "en": "Talking with teens"},
    }

    # an edit waits, and takes a second person again
    read = site.get(f"{LIST}/{key}", by=ann).headers["ETag"]
    change = {"field": [{"language": "zh-Hans", "text": "考试焦虑"}]}
    assert site.call("PATCH", f"{LIST}/{key}", by=ann, json=change).status_code == 428
    assert site.call("PATCH", f"{LIST}/{key}", by=ann, match=read, json=change).json()["unpublished_changes"]
    late = site.call("PATCH", f"{LIST}/{key}", by=ann, match=read, json={"topics": []})
    assert (late.status_code, late.json()["code"]) == (412, "stale")
    assert site.get(f"/v1/lecturers/{key}").json()["field"] == "青春期亲子沟通"
    step(site, ann, key, "publish", status=403)
    moved = site.call("PATCH", f"{LIST}/{key}", by=ann, match=made.headers["ETag"], json={"division": "150600"})
    assert moved.status_code in {403, 412}
    step(site, rev, key, "approve")
    step(site, ann, key, "publish")
    assert site.get(f"/v1/lecturers/{key}").json()["field"] == "考试焦虑"

    refused = site.call("DELETE", f"{LIST}/{key}", by=ann, match=site.get(f"{LIST}/{key}", by=ann).headers["ETag"])
    assert refused.status_code == 409
    assert step(site, ann, key, "withdraw", {"note": "调离"})["state"] == "withdrawn"
    assert site.get(f"/v1/lecturers/{key}").status_code == 404 and site.get("/v1/lecturers").json()["items"] == []
    with pytest.raises(NotFound):
        lecturers.named(key)
    step(site, ann, key, "publish", status=403)  # what was withdrawn is read again before it comes back
    match = site.get(f"{LIST}/{key}", by=ann).headers["ETag"]
    assert site.call("DELETE", f"{LIST}/{key}", by=ann, match=match).status_code == 204
    lines = list(Audit.rows().find({"kind": "lecturer"}))
    assert {line["action"].partition(".")[2] for line in lines} == {"create", "approve", "publish", "edit", "withdraw", "remove"}
    assert "巴特尔" not in str(lines) and "从教三十年" not in str(lines)


def test_a_colleague_with_the_right_to_publish_is_a_second_person_an_account_of_ones_own_is_not(site: Site) -> None:
    federation = office("妇联")
    site.person("ann", "organiser")
    site.person("bea", "organiser")
    site.person("boss", "admin")
    site.person("own", "organiser", by=site.ids["boss"])
    staff.edit_account(site.ids["boss"], SYSTEM, grants=[staff.Grant("organiser")])  # once an administrator, now an organiser
    key = site.post(LIST, entry(federation), by="boss").json()["id"]
    assert step(site, "own", key, "publish", status=403)["code"] == "second_person"
    assert step(site, "bea", key, "publish")["reviewed_by"] == site.ids["bea"]
    assert [one["id"] for one in site.get(f"{LIST}?state=published", by="ann").json()["items"]] == [key]


def test_another_organisation_and_another_role_find_nothing(site: Site) -> None:
    federation, other = office("妇联"), office("另一妇联")
    site.person("ann", "organiser", organisation=federation, division="150603")
    site.person("zoe", "organiser", organisation=other, division="150603")
    site.person("far", "organiser", division="420100")
    site.person("doc", "hospital", organisation=federation, division="150603")
    site.person("aud", "auditor")
    key = site.post(LIST, entry(federation), by="ann").json()["id"]
    for name, status in (("zoe", 404), ("far", 404), ("aud", 403), ("doc", 200)):
        assert site.get(f"{LIST}/{key}", by=name).status_code == status, name
    for name, status in (("zoe", 404), ("far", 404), ("doc", 403)):
        assert site.call("PATCH", f"{LIST}/{key}", by=name, match='"1"', json={"topics": []}).status_code == status, name
        assert site.get(f"{LIST}/{key}/contact", by=name).status_code == status, name
        assert site.post(LIST, entry(federation), by=name).status_code == 403, name
    assert site.get(LIST, by="zoe").json()["items"] == [] and len(site.get(LIST, by="doc").json()["items"]) == 1
    # nor is it handed to an organisation or a division that is not one's own
    for more in ({"organisation": other}, {"division": "150602"}):
        assert site.call("PATCH", f"{LIST}/{key}", by="ann", match='"1"', json=more).status_code == 403
    assert site.get(LIST).status_code == 401


def test_every_mistake_is_named(site: Site) -> None:
    site.person("ann", "organiser")
    federation = office("妇联")
    wrong = entry(federation, kind="wizard", topics=["x"], phone=PHONE, teaches_in=["!"], division="15")
    reply = site.post(LIST, wrong, by="ann").json()
    assert {one["field"].split(".")[0] for one in reply["errors"]} == {"kind", "topics", "phone", "teaches_in", "division"}
    reply = site.post(LIST, entry(federation, paired_schools=["nowhere"]), by="ann")
    assert (reply.status_code, reply.json()["errors"][0]["code"]) == (422, "unknown_reference")
    assert site.post(LIST, entry("f" * 32), by="ann").json()["errors"][0]["code"] == "unknown_reference"
    bare = site.post(LIST, entry(federation, field=[]), by="ann").json()["id"]
    site.person("bea", "organiser")
    assert step(site, "bea", bare, "publish", status=409)["code"] == "incomplete"
    assert site.get("/v1/lecturers?topic=x").status_code == 422 and site.get("/v1/lecturers?colour=red").status_code == 422
    assert site.get("/v1/lecturers/nobody").status_code == 404


def test_how_a_lecturer_is_reached_stays_inside(site: Site) -> None:
    site.person("ann", "organiser")
    site.person("bea", "organiser")
    federation = office("妇联")
    key = site.post(LIST, entry(federation), by="ann").json()["id"]
    step(site, "bea", key, "publish")

    def put(text: str, status: int = 200) -> dict[str, Any]:
        match = site.get(f"{LIST}/{key}", by="ann").headers["ETag"]
        reply = site.call("PUT", f"{LIST}/{key}/contact", by="ann", match=match, json={"contact": text})
        assert reply.status_code == status, reply.text
        return dict(reply.json())

    shown = put(PHONE)
    assert shown["has_contact"] and not shown["unpublished_changes"] and PHONE not in str(shown)
    assert put(f" {PHONE}")["revision"] == shown["revision"]  # the same again
    put("x" * 301, 422)
    assert site.get(f"{LIST}/{key}/contact", by="bea").json() == {"contact": PHONE}
    [line] = Audit.rows().find({"action": "lecturer.read_contact"})
    assert (line["key"], line["actor"]) == (key, site.ids["bea"])
    assert PHONE not in site.get(f"/v1/lecturers/{key}").text + site.get(f"{LIST}/{key}", by="bea").text
    for name in store.database().list_collection_names():
        assert PHONE not in str(list(store.database()[name].find())), name
    assert put("")["has_contact"] is False and site.get(f"{LIST}/{key}/contact", by="ann").json() == {"contact": ""}


def test_families_find_by_place_topic_kind_and_school_while_the_database_is_away(site: Site) -> None:
    federation, school = office("妇联"), office("第一中学", "school")
    site.person("ann", "organiser")
    site.person("bea", "organiser")
    keys = {}
    kinds: dict[str, dict[str, Any]] = {
        "county": {}, "city": {"division": "150600"}, "other city": {"division": "420100"},
        "elder": {"kind": "five_elders", "topics": ["family_affection"], "paired_schools": [school]},
    }  # fmt: skip
    for name, more in kinds.items():
        keys[name] = site.post(LIST, entry(federation, **more), by="ann").json()["id"]
        step(site, "bea", keys[name], "publish")
    site.reader.up = False
    county, city, other, elder = keys.values()
    expected = {
        "": [elder, other, city, county], "division=150603": [elder, city, county], "division=420000": [other],
        "topic=emotion&division=150603": [city, county], "kind=five_elders": [elder], f"school={school}": [elder],
    }  # fmt: skip
    for query, ids in expected.items():
        assert [one["id"] for one in site.get(f"/v1/lecturers?{query}").json()["items"]] == ids, query
    first = site.get("/v1/lecturers?limit=3").json()
    rest = site.get(f"/v1/lecturers?limit=3&cursor={first['next_cursor']}").json()
    assert [one["id"] for one in first["items"] + rest["items"]] == expected[""] and rest["next_cursor"] is None
    assert site.get(f"/v1/lecturers/{county}").json()["name"] == "巴特尔"

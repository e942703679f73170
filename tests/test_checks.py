"""Self-checks over HTTP: imported, completed, approved by a second person, scored with help, recalled."""

import json
from pathlib import Path
from typing import Any

import pytest

from content import checkfiles, checks, staff, store
from content.checks import Check
from content.failures import Conflict, Forbidden
from content.records import SYSTEM
from tests.site import Site
from tests.test_fhir import page

LIBRARY = Path(checks.__file__).parent / "library"
REGISTER = {
    "name": [{"language": "zh-CN", "text": "近两周的心情"}, {"language": "en", "text": "Mood"}],
    "source": "Made up for this test", "rights": "public_domain", "audiences": ["student"], "stages": ["junior", "senior"],
    "languages": ["en"], "validated": True, "purpose": "screening", "approver": "Dr Li", "approval_number": "2026-1",
    "parental_notice": [{"language": "en", "text": "Nobody has to."}], "evidence": "none", "lessons": ["how-to-ask-for-help"],
    "bands": [
        {"code": "low", "minimum": 0, "maximum": 2, "text": [{"language": "en", "text": "Fine"}],
         "next_steps": [{"language": "en", "steps": ["Sleep."]}]},
        {"code": "high", "minimum": 3, "maximum": 4, "text": [{"language": "en", "text": "A lot"}],
         "next_steps": [{"language": "en", "steps": ["Talk."]}]},
    ],
    "critical": [{"item": "b", "codes": ["z"]}],
}  # fmt: skip


def write(folder: Path, name: str, value: Any) -> Path:
    file = folder / name
    file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return file


def outcomes(path: Path, dry_run: bool = False) -> dict[str, str]:
    return {row["source"]: row["outcome"] for row in checkfiles.import_files(path, SYSTEM, dry_run)}


def codes(answers: dict[str, str]) -> list[dict[str, str]]:
    return [{"item": item, "code": code} for item, code in answers.items()]


def test_an_editor_brings_a_questionnaire_without_a_shell(site: Site) -> None:
    editor, reader = site.person("editor", "editor"), site.person("reader", "counsellor")
    path, first = "/v1/staff/checks/mood/questionnaire", page({"required": True}, {})
    assert site.call("PUT", path, json=first, by=reader).status_code == 403
    made = site.call("PUT", path, json=first, by=editor)
    assert (made.status_code, made.json()["outcome"]) == (201, "new"), made.text
    assert site.call("PUT", path, json=first, by=editor).status_code == 428  # it is there now
    same = site.call("PUT", path, json=first, by=editor, match=made.headers["ETag"])
    assert (same.status_code, same.json()["outcome"], same.headers["ETag"]) == (200, "unchanged", made.headers["ETag"])
    laid = site.call("PATCH", "/v1/staff/checks/mood", json=REGISTER, by=editor, match=made.headers["ETag"])
    assert site.call("PUT", path, json=page({}, {}), by=editor, match=made.headers["ETag"]).status_code == 412
    other = site.call("PUT", path, json=page({"required": True}, {"required": True}), by=editor, match=laid.headers["ETag"])
    assert other.json()["outcome"] == "changed"
    kept = site.get("/v1/staff/checks/mood", by=editor).json()
    assert (kept["missing"], kept["critical"][0]["codes"]) == ([], ["z"])  # register and rules stayed
    bad = site.call("PUT", path, json={"resourceType": "Questionnaire", "item": [{"type": "date"}]}, by=editor,
                    match=other.headers["ETag"])  # fmt: skip
    assert (bad.status_code, {e["field"] for e in bad.json()["errors"]}) == (422, {"item[0].linkId", "item[0].type"})
    assert site.get("/v1/staff/checks/mood", by=editor).headers["ETag"] == other.headers["ETag"]


def test_from_file_to_student_and_back(site: Site, tmp_path: Path) -> None:
    write(tmp_path, "mood.json", page({"required": True}, {"required": True}))
    assert outcomes(tmp_path) == {"mood.json": "new"}
    assert outcomes(tmp_path) == {"mood.json": "unchanged"}
    editor, reviewer = site.person("editor", "editor"), site.person("reviewer", "reviewer")
    both = site.person("both", "editor", "reviewer")

    draft = site.get("/v1/staff/checks/mood", by=editor)
    assert draft.json()["state"] == "draft"
    assert {"source", "rights", "approver", "validated"} <= set(draft.json()["missing"])
    early = site.post("/v1/staff/checks/mood/submit", by=editor, match=draft.headers["ETag"])
    assert (early.status_code, early.json()["code"]) == (409, "incomplete")

    assert site.call("PATCH", "/v1/staff/checks/mood", json=REGISTER, by=both).status_code == 428
    edited = site.call("PATCH", "/v1/staff/checks/mood", json=REGISTER, by=both, match=draft.headers["ETag"])
    assert edited.json()["missing"] == [], edited.text
    sent = site.post("/v1/staff/checks/mood/submit", by=both, match=edited.headers["ETag"])
    alone = site.post("/v1/staff/checks/mood/approve", by=both, match=sent.headers["ETag"])
    assert (alone.status_code, alone.json()["code"]) == (403, "second_person")
    early = site.post("/v1/staff/checks/mood/publish", by=reviewer, match=sent.headers["ETag"])
    assert (early.status_code, early.json()["code"]) == (409, "wrong_state")
    good = site.post("/v1/staff/checks/mood/approve", by=reviewer, match=sent.headers["ETag"])
    out = site.post("/v1/staff/checks/mood/publish", by=reviewer, match=good.headers["ETag"])
    assert out.json()["state"] == "published", out.text

    [row] = site.get("/v1/checks?audience=student&stage=junior").json()["items"]
    assert (row["slug"], row["name"], row["language"], row["validated"]) == ("mood", "Mood", "en", True)
    assert site.get("/v1/checks?audience=parent").json()["items"] == []
    whole = site.get("/v1/checks/mood").json()
    assert [o["score"] for o in whole["items"][0]["options"]] == [0, 1, 2]
    assert (whole["critical"], whole["expires_days"]) == ([{"item": "b", "codes": ["z"], "at_least": None}], 14)
    assert "approval_number" not in json.dumps(whole)

    body = {"version": row["version"], "division": "150603", "answers": codes({"a": "y", "b": "z"})}
    scored = site.post("/v1/checks/mood/score", body)
    assert scored.status_code == 200, scored.text
    result = scored.json()
    assert (result["total"], result["maximum"], result["band"], result["critical"]) == (3, 4, None, True)
    assert result["message"].startswith("Thank you for telling us")
    assert {e["number"] for e in result["help"]["emergency"]} == {"110", "120"}
    assert scored.headers["Cache-Control"] == "no-store"
    assert not {"Set-Cookie", "ETag"} & scored.headers.keys()

    gone = site.post("/v1/staff/checks/mood/withdraw", {"note": "wording hurt"}, by=reviewer, match=out.headers["ETag"])
    assert gone.json()["state"] == "withdrawn"
    assert site.get("/v1/checks/mood").status_code == 404
    assert site.get("/v1/staff/recalls").status_code == 401
    [told] = site.get("/v1/staff/recalls", by=editor).json()["items"]  # staff are told who, when, why
    assert (told["slug"], told["by_name"], told["note"], told["published"]) == ("mood", "reviewer", "wording hurt", False)
    assert (told["lessons"], told["paths"], told["hidden"]) == (["how-to-ask-for-help"], [], 0)
    federation = staff.create_organisation("federation", "federation", "150603", SYSTEM).id
    elsewhere = site.person("elsewhere", "editor", organisation=federation)  # the check belongs to none
    assert site.get("/v1/staff/recalls", by=elsewhere).json() == {"items": [], "next_cursor": None}
    late = site.post("/v1/checks/mood/score", body)
    assert (late.status_code, late.json()["help"]["emergency"][0]["number"]) == (404, "110")


@pytest.fixture
def library(site: Site) -> Site:
    """A site with the starter library's checks published; the warning signs wait for an approver of the place."""
    assert checkfiles.load_library(LIBRARY, site.settings) == len(list((LIBRARY / "checks").glob("*.json"))) - 1
    assert checkfiles.load_library(LIBRARY, site.settings) == 0
    site.refresh()
    return site


def test_every_failure_of_a_score_carries_help(library: Site) -> None:
    path = "/v1/checks/exam-stress/score"
    whole = library.get("/v1/checks/exam-stress", headers={"Accept-Language": "en"}).json()
    best = {i["link_id"]: i["options"][0]["code"] for i in whole["items"] if i["options"]}
    heavy = {"item": "heavy", "code": "right_now"}

    def refused(body: Any, status: int, code: str, **more: Any) -> dict[str, Any]:
        reply = library.post(path, body, **more)
        assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
        assert "12356" in json.dumps(reply.json()["help"])
        return reply.json()  # type: ignore[no-any-return]

    missing = refused({"answers": [heavy]}, 422, "invalid")
    assert missing["critical"] is True
    assert {error["code"] for error in missing["errors"]} == {"required"}
    assert refused({"version": "0" * 64, "answers": codes(best)}, 409, "old_version")["critical"] is False
    assert refused({"answers": [heavy, heavy]}, 422, "invalid")["errors"][0]["code"] == "exists"
    assert refused({"answers": [{"item": "heavy", "code": "nonsense"}]}, 422, "invalid")
    assert refused({"answers": [{"item": "heavy"}]}, 422, "invalid")
    assert refused({"answers": [{"item": "heavy", "number": "3"}]}, 422, "invalid")
    assert refused({"total": 3, "answers": []}, 422, "invalid")
    assert refused({}, 422, "invalid")
    reply = library.call("POST", path, data=b"{", headers={"Content-Type": "application/json"})
    assert (reply.status_code, "help" in reply.json()) == (400, True)


def test_languages_score_alike_and_nothing_is_kept(library: Site) -> None:
    database = store.database()

    def counts() -> dict[str, int]:
        return {name: database[name].count_documents({}) for name in database.list_collection_names()}

    before = counts()
    for slug in ("exam-stress", "sleep-habits", "parent-guidance"):
        whole = library.get(f"/v1/checks/{slug}").json()
        asked = [i for i in whole["items"] if i["options"]]
        for pick in (0, 1, -1):
            answers = codes({i["link_id"]: i["options"][pick]["code"] for i in asked})
            found = [
                library.post(f"/v1/checks/{slug}/score", {"answers": a}, headers={"Accept-Language": tag}).json()
                for a, tag in ((answers, "zh-CN"), (answers[::-1], "en"))
            ]
            assert [f["language"] for f in found] == ["zh-Hans", "en"]
            for key in ("total", "maximum", "critical", "version", "validated"):
                assert found[0][key] == found[1][key]
            if found[0]["critical"]:
                assert found[0]["band"] is found[1]["band"] is None
                assert found[0]["message"] != found[1]["message"]
                assert ("110" in found[0]["message"]) is (slug == "parent-guidance")  # parents are spoken to as parents
            else:
                assert found[0]["band"]["code"] == found[1]["band"]["code"]
                assert found[0]["band"]["text"] != found[1]["band"]["text"]
            assert found[0]["validated"] is False
            by_hand = sum(i["options"][pick]["score"] or 0 for i in asked)
            assert found[0]["total"] == by_hand
    assert counts() == before


def test_import_refuses_by_path_and_changes_nothing(clean: None, tmp_path: Path) -> None:
    write(tmp_path, "good.json", page({}))
    write(tmp_path, "bad.json", page({"type": "date"}))
    write(tmp_path, "broken.json", '{"resourceType": "Questionnaire",')
    write(tmp_path, "other.json", {"resourceType": "Patient"})
    write(tmp_path, "aside.json", page({}))
    write(tmp_path, "aside.yaml", "name: {en: x}\nrights: stolen\ncritical: [{item: nobody, codes: [x]}]\n")
    write(tmp_path, "alias.json", page({}))
    write(tmp_path, "alias.yaml", "a: &a [x]\nb: [*a, *a]\n")
    expected = {
        "good.json": "new", "bad.json": "refused", "broken.json": "refused", "other.json": "refused",
        "aside.json": "refused", "alias.json": "refused",
    }  # fmt: skip
    expected["other.json"] = "skipped"
    assert outcomes(tmp_path, dry_run=True) == expected
    assert Check.rows().count_documents({}) == 0
    rows = {row["source"]: row for row in checkfiles.import_files(tmp_path, SYSTEM)}
    assert {name: row["outcome"] for name, row in rows.items()} == expected
    assert "item[0].type" in rows["bad.json"]["messages"][0]["en"]
    assert [raw["slug"] for raw in Check.rows().find()] == ["good"]


def test_a_file_without_its_register_keeps_what_staff_entered(clean: None, tmp_path: Path) -> None:
    file = write(tmp_path, "mood.json", page({}, {}))
    assert outcomes(file) == {"mood.json": "new"}
    check = checks.by_slug("mood")
    checks.edit(check.id, "editor", {"source": "book"}, laid={"critical": [{"item": "b", "codes": ["z"]}]})
    assert outcomes(file) == {"mood.json": "unchanged"}
    write(tmp_path, "mood.json", page({"text": "New words"}, {}))
    assert outcomes(file) == {"mood.json": "changed"}
    check = checks.by_slug("mood")
    assert (check.register.source, check.parsed().critical[0].codes) == ("book", ("z",))
    assert sorted(check.stands["*"].authors) == ["editor", SYSTEM]
    write(tmp_path, "mood.json", page({}))  # b is gone: its critical rule must not vanish in silence
    assert outcomes(file) == {"mood.json": "refused"}


def test_nobody_publishes_alone_or_without_rights(clean: None, tmp_path: Path) -> None:
    outcomes(write(tmp_path, "mood.json", page({})))
    check = checks.by_slug("mood")
    entry = {**{k: v for k, v in REGISTER.items() if k not in {"bands", "critical"}}, "rights": "closed"}
    entry |= {"name": {"en": "Mood"}, "parental_notice": {"en": "No need."}}
    with pytest.raises(Conflict, match="critical"):  # nobody forgets what is the point of asking
        checks.submit(checks.edit(check.id, "editor", entry | {"rights": "own"}).id, "editor")
    entry |= {"no_critical": "two questions about breakfast"}
    check = checks.edit(check.id, "editor", entry)
    with pytest.raises(Conflict, match="rights"):
        checks.submit(check.id, "editor")
    checks.edit(check.id, "editor", {"rights": "non_commercial", "languages": ["en", "mn-Mong"]})
    with pytest.raises(Conflict, match=r"items\.mn-Mong"):
        checks.submit(check.id, "editor")
    checks.edit(check.id, "editor", {"languages": ["en"]})
    checks.submit(check.id, "editor")
    with pytest.raises(Forbidden):
        checks.approve(check.id, "editor")
    with pytest.raises(Conflict):
        checks.publish(check.id, "reviewer")

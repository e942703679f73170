"""Self-checks over HTTP: imported, completed, approved by a second person, scored with help, recalled."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from api import cli
from api.checkdesk import EditIn
from content import checkfiles, checks, lessons, paths, rules, staff, store
from content.checks import Check
from content.definition import Definition, from_json
from content.failures import Conflict, Forbidden, Invalid
from content.fhir import read_questionnaire
from content.records import SYSTEM
from tests.site import Site
from tests.test_fhir import page, read, total
from tests.test_openapi import FACTS, TEXT, Walk

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


def said(text: str) -> list[dict[str, str]]:
    return [{"language": "en", "text": text}, {"language": "zh-Hans", "text": f"{text}。"}]


def band(code: str, low: float, high: float) -> dict[str, Any]:
    steps = [{"language": "en", "steps": ["Sleep.", "Talk."]}]
    return {"code": code, "minimum": low, "maximum": high, "text": said(code), "next_steps": steps}


NORM = {"minimum_age": 132, "maximum_age": 155, "sex": "female", "mean": 3.5, "sd": 1.5}
WHOLE = {
    **REGISTER, "name": said("Mood"), "parental_notice": said("Nobody has to."), "critical_message": said("Thank you."),
    "no_critical": "it has one", "ages": [132, 216], "expires_days": 7,
    "total": {"name": said("All"), "of": ["some", "d"], "method": "sum_if_complete", "reverse": ["d"]},
    "bands": [band("low", 0, 2), band("high", 2, 5)],
    "norms": [{**NORM, "cuts": [{"band": "low", "minimum": 0, "maximum": 1}, {"band": "high", "minimum": 1, "maximum": 5}]}],
    "subscales": [
        {"code": "some", "name": said("Some"), "of": ["a", "c"], "method": "mean", "reverse": ["c"],
         "bands": [band("fine", 0, 1.5), band("more", 1.5, 3)], "norms": [{**NORM, "sex": None, "cuts": []}]},
    ],
    "critical": [{"item": "a", "codes": ["z"], "at_least": None}, {"item": "c", "codes": [], "at_least": 2.5}],
    "validity": [{"kind": "too_fast", "seconds": 15}, {"kind": "straight_line", "items": ["a", "c", "d"]}],
    "items": [
        {"item": "a", "text": said("How was it?"), "options": [{"code": c, "text": said(c)} for c in "xyz"], "ages": [132, 200],
         "explanation": said("So it is.")},
        {"item": "c", "control": "slider"},
    ],
}  # fmt: skip


def test_what_staff_get_is_what_they_send(site: Site) -> None:
    editor, rule = site.person("editor", "editor"), "/v1/staff/checks/{slug}"
    when = {"enableWhen": [{"question": "a", "operator": "=", "answerCoding": {"code": "x"}}]}
    bounds = [
        {"url": f"http://hl7.org/fhir/StructureDefinition/{end}Value", "valueInteger": n} for end, n in (("min", 0), ("max", 3))
    ]
    asked = page({}, {"type": "display", "text": "Now"}, {"type": "integer", "extension": bounds}, {"type": "boolean", **when})
    assert site.call("PUT", "/v1/staff/checks/mood/questionnaire", json=asked, by=editor).status_code == 201
    first = site.get("/v1/staff/checks/mood", by=editor).json()
    assert first["name"] == [{"language": "en", "text": "T"}]  # of the file's title, where there is no register
    walk = Walk(site)
    after = walk.send("PATCH", rule, WHOLE, editor, slug="mood")
    got = walk.get(rule, by=editor, slug="mood")
    assert got == after
    assert {name: got[name] for name in WHOLE.keys() - {"items"}} == {k: v for k, v in WHOLE.items() if k != "items"}
    rows = {row["item"]: row for row in got["items"]}
    assert rows["a"] == WHOLE["items"][0] and rows["c"]["control"] == "slider"  # type: ignore[index]
    assert [o["score"] for o in got["questions"][0]["options"]] == [0, 1, 2]
    sent = {name: got[name] for name in EditIn().fields}
    etag = site.get("/v1/staff/checks/mood", by=editor).headers["ETag"]
    same = site.call("PATCH", "/v1/staff/checks/mood", json=sent, by=editor, match=etag)
    assert (same.status_code, same.headers["ETag"], same.json()) == (200, etag, got)
    sent["bands"][0]["text"][0]["text"] = "Quite fine"
    more = site.call("PATCH", "/v1/staff/checks/mood", json=sent, by=editor, match=etag)
    assert (more.json()["bands"][0]["text"][0]["text"], more.json()["revision"]) == ("Quite fine", got["revision"] + 1)
    bare = [{"item": "a", "ages": None, "explanation": [], "text": []}, {"item": "c", "control": ""}]
    gone = walk.send("PATCH", rule, {"items": bare}, editor, slug="mood")["items"]
    assert [sorted(row) for row in gone] == [["item", "options", "text"], ["item", "text"], ["item", "text"], ["item", "text"]]
    twice = {"items": [{"item": "a", "text": said("x")}, {"item": "a", "text": said("y")}]}
    wrong = {"items": [{"item": "a", "options": [{"code": "w", "text": said("x")}]}, {"item": "nobody"}]}
    for body, fields in ((twice, {"items.1.item"}), (wrong, {"items.0.options.0.code", "items.1.item"})):
        reply = site.call("PATCH", "/v1/staff/checks/mood", json=body, by=editor, match=f'"{got["revision"] + 2}"')
        assert (reply.status_code, {e["field"] for e in reply.json()["errors"]}) == (422, fields)
    [line] = walk.get("/v1/staff/checks", by=editor)["items"]
    assert line["name"] == WHOLE["name"]


def test_a_recall_says_why_and_what_it_leaves_and_only_a_draft_is_discarded(site: Site) -> None:
    walk, rule = Walk(site), "/v1/staff/checks/{slug}"
    both, other, reader = site.person("both", "editor"), site.person("other", "reviewer"), site.person("reader", "counsellor")
    checks.put_draft("mood", read(page({"required": True}, {"required": True})), None, SYSTEM)
    walk.send("PATCH", rule, REGISTER, both, slug="mood")
    path = release_path(site, "mood")
    etag = site.get("/v1/staff/checks/mood", by=both).headers["ETag"]
    used = site.call("DELETE", "/v1/staff/checks/mood", by=both, match=etag)
    assert (used.status_code, used.json()["code"]) == (409, "in_use") and f"path {path}" in used.text
    for verb, by in (("submit", both), ("approve", other), ("publish", other)):
        walk.send("POST", f"{rule}/{verb}", {}, by, slug="mood")
    etag = site.get("/v1/staff/checks/mood", by=both).headers["ETag"]
    for body in ({}, {"note": ""}, {"note": " "}, {"note": "x" * 501}):
        refused = site.call("POST", "/v1/staff/checks/mood/withdraw", json=body, by=other, match=etag)
        assert (refused.status_code, [e["field"] for e in refused.json()["errors"]]) == (422, ["note"]), body
    assert site.get("/v1/checks/mood").status_code == 200
    gone = walk.send("POST", f"{rule}/withdraw", {"note": "wording hurt"}, other, slug="mood")
    [told] = site.get("/v1/staff/recalls", by=reader).json()["items"]
    assert {k: gone[k] for k in ("paths", "seasons", "lessons", "hidden")} == {
        k: told[k] for k in ("paths", "seasons", "lessons", "hidden")
    }
    assert [(one["key"], one["published"]) for one in gone["paths"]] == [(path, False)]
    etag = site.get("/v1/staff/checks/mood", by=both).headers["ETag"]
    paths.edit(paths.by_slug(path).id, SYSTEM, {"begins_with": None}, {})
    kept = site.call("DELETE", "/v1/staff/checks/mood", by=both, match=etag)
    assert (kept.status_code, kept.json()["code"]) == (409, "in_use") and "versions" in kept.text
    checks.put_draft("slip", read(page({})), None, SYSTEM)
    etag = site.get("/v1/staff/checks/slip", by=both).headers["ETag"]
    assert site.call("DELETE", "/v1/staff/checks/slip", by=reader, match=etag).status_code == 403
    assert site.call("DELETE", "/v1/staff/checks/slip", by=both, match='"99"').status_code == 412
    walk.send("DELETE", rule, None, both, 204, slug="slip")
    assert site.get("/v1/staff/checks/slip", by=both).status_code == 404


def release_path(site: Site, check: str) -> str:
    """A draft of a path that begins with a check; returns its slug."""
    for slug in ("one", "two"):
        lessons.create(slug, FACTS, {"zh-Hans": TEXT}, SYSTEM)
    about = {k: FACTS[k] for k in ("audiences", "stages", "topics")} | {
        "pace": {"unit": "day", "from": "start"}, "steps": [{"lesson": "one", "at": 0}, {"lesson": "two", "at": 1}],
        "begins_with": {"check": check, "bands": ["high"]},
    }  # fmt: skip
    return str(paths.create("week", about, {"zh-Hans": {"title": "一周", "summary": "一点"}}, SYSTEM).slug)


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
    silent = site.post("/v1/staff/checks/mood/send-back", {"note": " "}, by=reviewer, match=sent.headers["ETag"])
    assert silent.status_code == 422
    back = site.post("/v1/staff/checks/mood/send-back", {"note": "softer"}, by=reviewer, match=sent.headers["ETag"])
    assert (back.json()["state"], back.json()["note"]) == ("draft", "softer")
    sent = site.post("/v1/staff/checks/mood/submit", by=both, match=back.headers["ETag"])
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
        reply = library.post(path, {"version": whole["version"], **body} if isinstance(body, dict) else body, **more)
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
                library.post(
                    f"/v1/checks/{slug}/score", {"answers": a, "version": whole["version"]}, headers={"Accept-Language": tag}
                ).json()
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


def test_an_import_says_each_thing_once_and_knows_its_own(clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    write(tmp_path, "download (1).json", page({}, url="urn:xinqiao:check:mood"))
    write(tmp_path, "other.json", page({}, url="urn:xinqiao:check:Not A Slug"))
    write(tmp_path, "poem.json", page({"type": "display"}, {"type": "string"}))
    write(tmp_path, "dates.json", page(*[{"type": "date"}] * 8))
    rows = {row["source"]: row for row in checkfiles.import_files(tmp_path, SYSTEM)}
    assert {row["key"]: row["outcome"] for row in rows.values()} == {
        "mood": "new", "other": "new", "poem": "refused", "dates": "refused"
    }  # fmt: skip
    assert checks.by_slug("mood").values()["name"] == {"en": "T"}
    assert "calls for help at once" in str(rows["other.json"]["messages"])
    assert "a question to answer" in rows["poem.json"]["messages"][0]["en"]
    [reason] = rows["dates.json"]["messages"]
    assert "item[0].type" in reason["en"] and "and 7 more: item[1].type" in reason["en"] and "另有 7 处" in reason["zh-Hans"]
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    for tongue, there, away in (("en_GB.UTF-8", "and 7 more", "另有"), ("C.UTF-8", "另有 7 处", "and 7")):
        monkeypatch.setenv("LANG", tongue)
        with pytest.raises(SystemExit):
            cli.report(rows.values(), False)
        out = capsys.readouterr().out
        assert there in out and away not in out
    write(tmp_path, "other.yaml", "name: {en: x}\ncritical: [{item: a, codes: [z]}]\n")
    write(tmp_path, "download (1).yaml", "name: {en: x}\npurpose: knowledge\n")
    rows = {row["source"]: row for row in checkfiles.import_files(tmp_path, SYSTEM)}
    assert not any("calls for help" in str(row["messages"]) for row in rows.values() if row["outcome"] == "changed")


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


def test_what_is_broken_in_one_file_is_said_of_it_and_keeps_no_other_out(
    clean: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    (folder / "items").mkdir(parents=True)
    away.mkdir()
    answer = {"choices": [{"name": "No", "value": 0}, {"name": "Yes", "value": 1}]}
    write(folder / "items", "q1", {"category": "Item", "question": "Q", "ui": {"inputType": "radio"}, "responseOptions": answer})
    ui = {"order": ["items/q1"], "addProperties": [{"isAbout": "items/q1", "variableName": "q1"}]}
    write(folder, "mood_schema", {"category": "Activity", "ui": ui})
    write(folder, "cut.json", '{"resourceType":\n "Questionnaire", "item": [')
    write(folder, "half_schema", "{")
    for name, register in (("five", "languages: 5"), ("half", 'source: "\\ud800"'), ("nul", 'source: "a\\0b"'),
                           ("deep", "items: " + "[" * 2000 + "]" * 2000)):  # fmt: skip
        write(folder, f"{name}.json", page({}))
        write(folder, f"{name}.yaml", register)
    write(away, "secret.json", page({}))
    (folder / "link.json").symlink_to(away / "secret.json")
    write(folder, "good.json", page({}))
    begun = time.thread_time()
    rows = {row["source"]: row for row in checkfiles.import_files(folder, SYSTEM)}
    assert time.thread_time() - begun < 5
    told = {source: (row["outcome"], row["messages"][0]["en"]) for source, row in rows.items()}
    assert {source for source, (outcome, _) in told.items() if outcome == "new"} == {"good.json", "mood_schema"}
    for source, said in (("cut.json", "line 2"), ("half_schema", "line 1"), ("five.json", "languages"), ("half.json", "line 1"),
                         ("nul.json", "line 1"), ("deep.json", "nested too deep")):  # fmt: skip
        assert told[source][0] == "refused" and said in told[source][1], told[source]
    assert "link.json" not in told and "1 link" in told["in"][1]

    def broken(*_: Any) -> Any:
        raise OverflowError

    monkeypatch.setattr(rules, "kept", broken)  # whatever nobody foresaw
    rows = {row["source"]: row for row in checkfiles.import_files(folder, SYSTEM)}
    assert "good.json: internal, OverflowError" in str(rows["good.json"]["messages"])
    assert rows["cut.json"]["outcome"] == "refused"


def test_what_a_new_file_and_the_old_rules_say_differently_is_named() -> None:
    def made(*names: str) -> Definition:
        part = total(" + ".join(f"%resource.item.where(linkId='{name}').answer.weight().sum()" for name in names))
        whole = total("%resource.answers().weight().sum()") | {"linkId": "whole"}
        return read_questionnaire(json.dumps(page({}, {}, {}, whole, part | {"linkId": "part"})))[0]

    assert rules.kept(made("a"), made("a")) == made("a")
    with pytest.raises(Invalid) as caught:  # the part grew
        rules.kept(made("a", "b"), made("a"))
    assert [error.field for error in caught.value.errors] == ["subscales.part.of"]
    for laid, field in (
        ({"critical": [{"item": "a", "at_least": 3}]}, "critical"),  # it would never call for help
        ({"subscales": [{"code": "b", "of": ["a"]}]}, "subscales.b"),
    ):
        with pytest.raises(Invalid) as caught:
            rules.laid(made("a"), laid)
        assert [error.field for error in caught.value.errors] == [field]
    assert rules.laid(made("a"), {"critical": [{"item": "a", "at_least": 2}]}).critical


def test_a_total_that_the_file_leaves_empty_is_told() -> None:
    variables = [f"{name}=%resource.item.where(linkId='{name}').answer.weight()" for name in "ab"]
    when = {"enableWhen": [{"question": "a", "operator": "=", "answerCoding": {"code": "y"}}]}
    for more, warned in (({}, False), (when, True)):
        value = page({}, more, total("%a + %b", *variables))
        definition, warnings = read_questionnaire(json.dumps(value))
        assert definition.total and definition.total.method == "sum_if_complete"
        assert any("not always asked" in line for line in warnings) is warned


def test_a_definition_of_an_older_release_is_refused_in_words() -> None:
    with pytest.raises(Invalid, match="XINQIAO_VAR"):
        from_json({"slug": "mood", "title": {}, "items": [], "bands": [], "total": "sum"})

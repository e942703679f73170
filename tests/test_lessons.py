"""Lessons over HTTP: staff write and publish, parents list and read, in their language, with 304 and prepared encodings."""

import gzip
import json
from datetime import timedelta

import brotli
import pytest

from api import front
from content import lessons, publishing, staff, store
from content.lessons import Lesson
from content.records import SYSTEM
from tests.site import Clock, Site
from tests.test_publishing import EN, FACTS, ZH

NEW = {
    "slug": "exam-week", "kind": "tip", "audiences": ["parent"], "stages": ["senior.final"], "topics": ["emotion"],
    "seasons": ["gaokao"], "divisions": ["150603"], "sources": [{"title": "本项目"}],
    "texts": [{"language": "zh-CN", **ZH}, {"language": "en", "made_from": "zh-Hans", **EN}],
}  # fmt: skip


def publish(slug: str, *languages: str, **facts: object) -> None:
    """A published lesson without its story."""
    lesson = lessons.create(slug, {**FACTS, **facts}, {code: EN if code == "en" else ZH for code in languages}, SYSTEM)
    for code in languages:
        publishing.submit(Lesson, lesson.id, code, SYSTEM)
        publishing.approve(Lesson, lesson.id, code, SYSTEM)
        publishing.publish(Lesson, lesson.id, code, SYSTEM)


def test_from_the_desk_to_the_reader(site: Site) -> None:
    editor, reviewer = site.person("editor", "editor", division="150603"), site.person("reviewer", "reviewer")
    made = site.post("/v1/staff/lessons", NEW, by=editor)
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == "/v1/staff/lessons/exam-week"
    assert made.headers["ETag"] == '"1"'
    assert site.get("/v1/lessons").json() == {"items": [], "next_cursor": None}

    body = {"language": "zh-Hans"}
    assert site.post("/v1/staff/lessons/exam-week/submit", body, by=editor).status_code == 428
    assert site.post("/v1/staff/lessons/exam-week/submit", body, by=editor, match='"7"').status_code == 412
    sent = site.post("/v1/staff/lessons/exam-week/submit", body, by=editor, match=made.headers["ETag"])
    assert sent.json()["stands"]["zh-Hans"]["state"] == "in_review"
    refused = site.post("/v1/staff/lessons/exam-week/approve", body, by=editor, match=sent.headers["ETag"])
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    good = site.post("/v1/staff/lessons/exam-week/approve", body, by=reviewer, match=sent.headers["ETag"])
    out = site.post("/v1/staff/lessons/exam-week/publish", body, by=reviewer, match=good.headers["ETag"])
    assert out.json()["stands"]["zh-Hans"]["state"] == "published", out.text
    assert out.json()["stands"]["en"]["state"] == "draft"

    listed = site.get("/v1/lessons?audience=parent&season=gaokao&stage=senior.final&division=150603")
    assert [(i["slug"], i["language"], i["script"], i["direction"]) for i in listed.json()["items"]] == [
        ("exam-week", "zh-Hans", "Hans", "ltr")
    ]
    first = site.get("/v1/lessons/exam-week", headers={"Accept-Language": "en"})
    assert first.json()["title"] == "考前一周"  # English is not published: the reader gets Chinese and is told
    assert first.headers["Cache-Control"].startswith("public, max-age=")
    again = site.get("/v1/lessons/exam-week", headers={"Accept-Language": "en", "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])

    gone = site.post("/v1/staff/lessons/exam-week/withdraw", body, by=reviewer, match=out.headers["ETag"])
    assert gone.status_code == 200
    assert site.get("/v1/lessons/exam-week").status_code == 404
    lines = site.get("/v1/staff/audit?kind=lesson", by=site.person("auditor", "auditor")).json()["items"]
    assert [line["action"] for line in lines] == [
        "lesson.withdraw", "lesson.publish", "lesson.approve", "lesson.submit", "lesson.create",
    ]  # fmt: skip


def test_encodings_are_prepared_and_head_is_the_get_without_body(site: Site) -> None:
    publish("exam-week", "zh-Hans", "en")
    site.refresh()
    path = "/v1/lessons/exam-week"
    plain = site.get(path, headers={"Accept-Encoding": "identity"})
    for name, open_ in (("br", brotli.decompress), ("gzip", gzip.decompress)):
        reply = site.get(path, headers={"Accept-Encoding": name}, stream=True)
        raw = reply.raw.read(decode_content=False)
        assert reply.headers["Content-Encoding"] == name
        assert open_(raw) == plain.content
        assert reply.headers["ETag"] != plain.headers["ETag"]
        assert int(reply.headers["Content-Length"]) == len(raw) < len(plain.content)
        assert reply.headers["Vary"] == "Accept-Encoding, Accept-Language"
    head = site.call("HEAD", path, headers={"Accept-Encoding": "identity"})
    assert head.content == b""
    assert {k: v for k, v in head.headers.items() if k not in {"Date", "X-Request-Id"}} == {
        k: v for k, v in plain.headers.items() if k not in {"Date", "X-Request-Id"}
    }
    assert site.get(path, headers={"Accept-Encoding": "br;q=0, gzip;q=0"}, stream=True).headers.get("Content-Encoding") is None


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("zh-CN,zh;q=0.9", "zh-Hans"), ("en-GB", "en"), ("mn-CN", "zh-Hans"), ("fr", "zh-Hans"), ("", "zh-Hans"),
     ("en;q=0, zh", "zh-Hans"), ("fr, en;q=0.5", "en"), ("*", "zh-Hans"), (";;;,,q=", "zh-Hans")],
)  # fmt: skip
def test_the_reader_gets_the_best_language_there_is(site: Site, asked: str, shown: str) -> None:
    publish("exam-week", "zh-Hans", "en")
    site.refresh()
    reply = site.get("/v1/lessons/exam-week", headers={"Accept-Language": asked}).json()
    assert reply["language"] == shown
    assert reply["languages"] == ["en", "zh-Hans"]


def test_pages_neither_repeat_nor_skip_while_others_publish(site: Site) -> None:
    for number in range(7):
        publish(f"lesson-{number}", "zh-Hans")
    site.refresh()
    seen, cursor = [], ""
    for turn in range(10):
        reply = site.get(f"/v1/lessons?limit=3{cursor}").json()
        seen += [item["slug"] for item in reply["items"]]
        if turn == 0:
            publish("newcomer", "zh-Hans")
            site.refresh()
        if not reply["next_cursor"]:
            break
        cursor = f"&cursor={reply['next_cursor']}"
    assert sorted(seen) == [f"lesson-{n}" for n in range(7)]
    for bad in ("x", "bm8", "W10", "W1tdXQ", "WzEsMl0", "é"):
        reply = site.get(f"/v1/lessons?cursor={bad}")
        assert reply.status_code in (200, 400), (bad, reply.text)
        if reply.status_code == 400:
            assert reply.json()["code"] == "bad_cursor"


def test_filters(site: Site) -> None:
    publish("everywhere", "zh-Hans", divisions=[])
    publish("kangbashi", "zh-Hans", divisions=["150603"], topics=["learning"], stages=["junior.9"])
    publish("inner-mongolia", "en", divisions=["150000"], kind="comic", audiences=["student"])
    site.refresh()

    def slugs(query: str) -> set[str]:
        return {item["slug"] for item in site.get(f"/v1/lessons?{query}").json()["items"]}

    assert slugs("division=150603") == {"everywhere", "kangbashi", "inner-mongolia"}
    assert slugs("division=370200") == {"everywhere"}
    assert slugs("language=en") == {"inner-mongolia"}
    assert slugs("kind=comic") == slugs("audience=student") == {"inner-mongolia"}
    assert slugs("topic=learning") == {"kangbashi"}
    assert slugs("stage=junior.9") == {"everywhere", "kangbashi", "inner-mongolia"}
    assert slugs("stage=junior.7") == slugs("stage=junior.entering") == set()  # the others are for the final year
    assert slugs("stage=junior.final") == {"everywhere", "kangbashi", "inner-mongolia"}
    assert slugs("stage=senior") == set()
    assert site.get("/v1/lessons?division=999999").json()["errors"][0]["field"] == "division"
    for wrong, field in (("topic=no", "topic"), ("limit=0", "limit"), ("limit=" + "9" * 400, "limit"), ("colour=red", "colour"),
                         ("language=!!", "language"), ("stage=junior.x", "stage")):  # fmt: skip
        reply = site.get(f"/v1/lessons?{wrong}")
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid"), wrong
        assert [error["field"] for error in reply.json()["errors"]] == [field]
        assert set(reply.json()["errors"][0]["messages"]) == {"zh-Hans", "en"}


def test_another_organisations_draft_is_not_there(site: Site) -> None:
    ours, theirs = (staff.create_organisation(f"学校{n}", "school", "150603", SYSTEM).id for n in ("甲", "乙"))
    site.person("ours", "editor", organisation=ours, division="150603")
    site.person("theirs", "editor", organisation=theirs, division="150603")
    site.person("elsewhere", "editor", organisation=ours, division="370200")
    assert site.post("/v1/staff/lessons", {**NEW, "organisation": ours}, by="ours").status_code == 201
    for other in ("theirs", "elsewhere"):
        assert site.get("/v1/staff/lessons", by=other).json()["items"] == []
        for reply in (
            site.get("/v1/staff/lessons/exam-week", by=other),
            site.call("PATCH", "/v1/staff/lessons/exam-week", by=other, match='"1"', json={"kind": "tip"}),
            site.post("/v1/staff/lessons/exam-week/submit", {"language": "zh-Hans"}, by=other, match='"1"'),
        ):
            assert reply.status_code == 404, reply.text
    assert site.post("/v1/staff/lessons", {**NEW, "slug": "b", "organisation": ours}, by="theirs").status_code == 403
    moved = site.call("PATCH", "/v1/staff/lessons/exam-week", by="ours", match='"1"', json={"divisions": ["370200"]})
    assert moved.status_code == 403
    assert lessons.by_slug("exam-week").divisions == ["150603"]


def test_a_repeated_create_is_answered_once(site: Site) -> None:
    site.person("editor", "editor")
    key = {"Idempotency-Key": "k1"}
    first = site.post("/v1/staff/lessons", NEW, by="editor", headers=key)
    again = site.post("/v1/staff/lessons", NEW, by="editor", headers=key)
    assert (again.status_code, again.content, again.headers["ETag"]) == (201, first.content, first.headers["ETag"])
    assert again.headers["Idempotent-Replayed"] == "true"
    other = site.post("/v1/staff/lessons", {**NEW, "slug": "other"}, by="editor", headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "duplicate_key_body")
    clash = site.post("/v1/staff/lessons", NEW, by="editor")
    assert (clash.status_code, clash.json()["code"]) == (409, "exists")
    assert Lesson.rows().count_documents({}) == 1


def test_a_batch_is_previewed_tied_to_what_was_read_and_one_failure_stops_no_other(site: Site) -> None:
    site.person("reviewer", "editor", "reviewer")
    for slug in ("a", "b"):
        lessons.create(slug, FACTS, {"zh-Hans": ZH}, SYSTEM)
    lessons.create("c", FACTS, {"zh-Hans": {"title": "缺正文", "body": ""}}, SYSTEM)

    def batch(action: str, items: list[dict[str, object]], dry_run: bool) -> list[dict[str, object]]:
        ask = {"items": items, "language": "zh-Hans", "action": action, "dry_run": dry_run}
        reply = site.post("/v1/staff/lessons/batch", ask, by="reviewer")
        assert reply.status_code == 200, reply.text
        return list(reply.json()["items"])

    def whole(action: str, slugs: str) -> list[object]:
        preview = batch(action, [{"slug": slug} for slug in slugs], True)
        done = batch(action, [{"slug": row["slug"], "revision": row.get("revision", 1)} for row in preview], False)
        assert [row["ok"] for row in preview] == [row["ok"] for row in done]
        return [row["ok"] for row in done]

    assert [row["ok"] for row in batch("submit", [{"slug": slug} for slug in "abcd"], True)] == [True, True, False, False]
    assert all(lessons.by_slug(slug).stands["zh-Hans"].state == "draft" for slug in "abc")
    refused = site.post(
        "/v1/staff/lessons/batch",
        {"items": [{"slug": "a"}], "language": "zh-Hans", "action": "submit", "dry_run": False},
        by="reviewer",
    )
    assert refused.json()["errors"][0]["field"] == "items.0.revision"
    assert whole("submit", "abcd") == [True, True, False, False]
    preview = batch("approve", [{"slug": "a"}], True)
    lesson = lessons.by_slug("a")
    lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": "看过之后又改的。"}})
    publishing.submit(Lesson, lesson.id, "zh-Hans", SYSTEM)
    swapped = batch("approve", [{"slug": "a", "revision": preview[0]["revision"]}], False)
    assert (swapped[0]["ok"], swapped[0]["code"]) == (False, "stale")
    assert whole("approve", "ab") == [True, True]
    assert whole("publish", "ab") == [True, True]
    assert {item["slug"] for item in site.get("/v1/lessons").json()["items"]} == {"a", "b"}


def test_a_grant_for_an_organisation_does_not_reach_what_belongs_to_none(site: Site) -> None:
    school = staff.create_organisation("学校甲", "school", "150603", SYSTEM).id
    site.person("organiser", "organiser", "editor", "reviewer", organisation=school)
    notice = {
        "divisions": [],
        "audiences": ["parent"],
        "stages": [],
        "texts": [{"language": "zh-Hans", "title": "一", "body": "二"}],
    }
    for path, body in (
        ("/v1/staff/notices", notice),
        ("/v1/staff/seasons", {"division": "150603", "code": "zhongkao", "first": "2027-06-20", "last": "2027-06-22"}),
    ):
        reply = site.post(path, body, by="organiser")
        assert reply.status_code in (403, 422), reply.text
        if reply.status_code == 422:
            pytest.fail(f"{path}: the body of this test is out of date: {reply.text}")


def test_the_published_set_serves_on_without_the_database_and_a_newborn_worker_too(site: Site, tmp_path: object) -> None:
    from pathlib import Path

    from content.published import Reader

    publish("exam-week", "zh-Hans")
    kept = Reader(Path(str(tmp_path)) / "published.json.gz")
    assert kept.refresh()
    kept.keep()
    store.disconnect()
    store.connect(site.settings.__class__(mongodb_uri="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100", database="x"))
    newborn = Reader(Path(str(tmp_path)) / "published.json.gz")
    newborn.start()
    try:
        assert not newborn.up
        assert json.loads(json.dumps(lessons.detail(newborn.current, "exam-week", ())))["title"] == "考前一周"
    finally:
        newborn.stop()


def test_an_expired_lesson_is_gone_though_its_answer_was_kept(site: Site, clock: Clock) -> None:
    publish("exam-week", "zh-Hans")
    publish("lasting", "zh-Hans")
    lesson = lessons.by_slug("exam-week")
    lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": "只在今晚。"}})
    for verb in (publishing.submit, publishing.approve):
        verb(Lesson, lesson.id, "zh-Hans", SYSTEM)
    publishing.publish(Lesson, lesson.id, "zh-Hans", SYSTEM, expires_at=store.now() + timedelta(seconds=3000))
    site.refresh()
    clock(2970)
    first = site.get("/v1/lessons/exam-week")
    assert int(first.headers["Cache-Control"].removeprefix("public, max-age=").split(",")[0]) <= 30
    assert len(site.get("/v1/lessons").json()["items"]) == 2
    assert len(site.front.kept) == 2
    clock(30)  # nobody has withdrawn it: the clock alone counts
    assert site.get("/v1/lessons/exam-week").status_code == 404
    assert [item["slug"] for item in site.get("/v1/lessons").json()["items"]] == ["lasting"]


def test_what_is_kept_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MAX_ENTRIES", 50)
    publish("exam-week", "zh-Hans")
    site.refresh()
    for number in range(120):
        assert site.get(f"/v1/lessons?limit={number % 100 + 1}&cursor=&stage=junior.{number % 3 + 7}").status_code == 200
        assert len(site.front.kept) <= 50
        assert len(site.front.packed) <= 50
    before = len(site.front.kept)
    assert site.get("/v1/lessons?" + "&" * 400).status_code == 200  # longer than any reader of ours asks
    assert len(site.front.kept) == before


def test_what_would_be_lost_or_point_nowhere_is_refused(site: Site) -> None:
    site.person("editor", "editor")
    twice = [{"language": "zh-Hans", **ZH}, {"language": "zh-CN", **ZH, "title": "另一个"}]
    for change, field in (
        ({"texts": twice}, "texts.1.language"),
        ({"organisation": "0" * 32}, "organisation"),
        ({"organisation": "\n"}, "organisation"),
    ):
        reply = site.post("/v1/staff/lessons", {**NEW, **change}, by="editor")
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, field)
    reply = site.post("/v1/staff/media", {"content_type": "image/png", "size": 10, "organisation": "0" * 32}, by="editor")
    assert reply.status_code == 422, reply.text
    assert site.get("/v1/staff/media", by="editor").status_code == 200

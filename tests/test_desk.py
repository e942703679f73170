"""The desk around what is published: comments, comparisons, the district's clock, used in, aging, translations, previews."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from api import shapes
from content import checks, lessons, media, paths, published, publishing, records, reviewing, staff, store, upkeep
from content.failures import Conflict, Failure, Invalid
from content.lessons import Lesson
from content.paths import Path
from content.records import SYSTEM
from notifications.notices import Notice
from tests.site import Site
from tests.test_publishing import EN, FACTS, ZH

DESK = "/v1/staff/lessons/exam-week"
CHECK_IN = {"question": "做到了吗？", "did": "真好。", "partly": "一点也算。", "not_yet": "明天再来。"}


def draft(slug: str = "exam-week", by: str = SYSTEM, organisation: str = "", **texts: Any) -> Lesson:
    """A lesson that nobody reads yet; `en` for English."""
    named = {code.replace("_", "-"): text for code, text in (texts or {"zh_Hans": ZH}).items()}
    return lessons.create(slug, FACTS, named, by, organisation)


def release(lesson: Any, language: str = "zh-Hans", **times: Any) -> Any:
    """Through review to readers."""
    publishing.submit(type(lesson), lesson.id, language, SYSTEM)
    publishing.approve(type(lesson), lesson.id, language, SYSTEM)
    return publishing.publish(type(lesson), lesson.id, language, SYSTEM, **times)


def accepted(sha256: str) -> media.Media:
    """A picture that readers may see, without its bytes."""
    file = media.Media(kind="image", content_type="image/webp", bytes=9, state="accepted", sha256=sha256, created_by=SYSTEM)
    media.Media.rows().insert_one(file.to_mongo().to_dict())
    store.transaction(lambda session: published.release(session, [media.item(file)]))
    return file


def move(site: Site, verb: str, by: str, path: str = DESK, **body: Any) -> Any:
    """One move from the present revision."""
    tag = site.get(path, by=by).headers["ETag"]
    return site.post(f"{path}/{verb}", {"language": "zh-Hans", **body}, by=by, match=tag)


# --- comments --------------------------------------------------------------------------------------------------------


def test_colleagues_comment_answer_and_close_and_the_approver_is_told(site: Site) -> None:
    editor, reviewer, reader = (site.person(*who) for who in (("edi", "editor"), ("rev", "reviewer"), ("cou", "counsellor")))
    draft(by=site.ids["edi"], zh_Hans=ZH, en=EN)
    said = {"language": "zh-CN", "field": "body", "quote": "先听", "text": " 这里再具体一点\u202f。\n"}
    first = site.post(f"{DESK}/comments", said, by=reader)
    assert first.status_code == 201, first.text
    one = first.json()
    assert (one["language"], one["text"], one["quote_found"], one["by"]) == (
        "zh-Hans", "这里再具体一点\u202f。", True, site.ids["cou"],
    )  # fmt: skip
    other = site.post(f"{DESK}/comments", {"language": "en", "text": "Plain enough?"}, by=reviewer).json()
    answer = site.post(f"{DESK}/comments", {"reply_to": one["id"], "text": "改好了。"}, by=editor).json()
    assert (answer["reply_to"], answer["language"]) == (one["id"], "zh-Hans")
    listed = site.get(f"{DESK}/comments?limit=2", by=editor).json()
    assert [row["id"] for row in listed["items"]] == [one["id"], answer["id"]] and listed["open"] == 2
    rest = site.get(f"{DESK}/comments?limit=2&cursor={listed['next_cursor']}", by=editor).json()
    assert [row["id"] for row in rest["items"]] == [other["id"]]
    assert site.get("/v1/staff/lessons", by=reader).json()["items"][0]["open_comments"] == 2

    lessons.edit(lessons.by_slug("exam-week").id, site.ids["edi"], {}, {"zh-Hans": {"body": "听完再说。"}})
    assert site.get(f"{DESK}/comments?language=zh-Hans", by=editor).json()["items"][0]["quote_found"] is False
    move(site, "submit", editor)
    told = move(site, "approve", reviewer).json()  # open comments block nothing; the approver is told
    assert (told["stands"]["zh-Hans"]["state"], told["open_comments"]) == ("approved", 1)

    closing = f"{DESK}/comments/{one['id']}/resolve"
    assert site.post(closing, by=site.person("oth", "counsellor")).status_code == 403
    assert site.post(closing, by=reader).json()["resolved_by"] == site.ids["cou"]  # its maker
    assert site.post(closing, by=editor).status_code == 409
    assert site.post(f"{DESK}/comments", {"reply_to": one["id"], "text": "还有"}, by=editor).json()["code"] == "wrong_state"
    assert site.get(f"{DESK}/comments?open=true", by=editor).json()["open"] == 1
    assert [row["id"] for row in site.get(f"{DESK}/comments?open=true", by=editor).json()["items"]] == [other["id"]]
    assert site.post(f"{DESK}/comments/{one['id']}/reopen", by=editor).json()["resolved_at"] is None
    assert site.post(f"{DESK}/comments/{answer['id']}/resolve", by=editor).status_code == 409
    lines = site.get("/v1/staff/audit?kind=comment", by=site.person("aud", "auditor")).json()["items"]
    assert [line["action"] for line in lines][:2] == ["comment.reopen", "comment.resolve"]


def test_comments_that_do_not_fit_and_drafts_of_others(site: Site) -> None:
    editor = site.person("edi", "editor")
    draft()
    for body in (
        {"text": "没说哪种语言"}, {"language": "en", "text": "没有这种语言"}, {"language": "zh-Hans", "text": " \n"},
        {"language": "zh-Hans", "text": "x", "field": "nothing"}, {"language": "zh-Hans", "text": "x", "quote": "文中没有"},
        {"language": "zh-Hans", "text": "字" * 2001}, {"reply_to": "0" * 32, "text": "x", "quote": "先听"},
    ):  # fmt: skip
        reply = site.post(f"{DESK}/comments", body, by=editor)
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid"), (body, reply.text)
    assert site.post(f"{DESK}/comments", {"reply_to": "0" * 32, "text": "x"}, by=editor).status_code == 404
    school = staff.create_organisation("一中", "school", "150603", SYSTEM).id
    draft("theirs", organisation=school)
    theirs = site.post("/v1/staff/lessons/theirs/comments", {"language": "zh-Hans", "text": "好"}, by=editor).json()
    guest = site.person("gue", "reviewer", division="420100")
    assert site.get("/v1/staff/lessons/theirs/comments", by=guest).status_code == 404
    assert site.post("/v1/staff/lessons/theirs/comments", {"language": "zh-Hans", "text": "好"}, by=guest).status_code == 404
    assert site.post(f"{DESK}/comments/{theirs['id']}/resolve", by=editor).status_code == 404  # of another draft


def test_sent_back_only_with_a_word(site: Site) -> None:
    editor, reviewer = site.person("edi", "editor"), site.person("rev", "reviewer")
    draft(by=site.ids["edi"])
    move(site, "submit", editor)
    for note in ({}, {"note": ""}, {"note": " \n"}):
        refused = move(site, "send-back", reviewer, **note)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "note"), refused.text
    assert move(site, "send-back", reviewer, note="请补来源").json()["stands"]["zh-Hans"]["note"] == "请补来源"


# --- versions and bulk moves -----------------------------------------------------------------------------------------


def test_two_versions_and_the_working_copy_are_compared_line_by_line(site: Site) -> None:
    editor = site.person("edi", "editor")
    lesson = draft(zh_Hans={**ZH, "body": "一\n二\n三"})
    release(lesson)
    lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": "一\n二又\n三", "title": "新题"}})
    release(lesson)
    lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": "一\n二又\n三\n四"}})
    new, old = [row["version"] for row in site.get(f"{DESK}/versions?language=zh-Hans", by=editor).json()["items"]]
    told = site.get(f"{DESK}/versions?language=zh-Hans&old={old}&new={new}", by=editor).json()["changes"]
    assert told == [
        {"field": "body", "old": "一\n二\n三", "new": "一\n二又\n三", "diff": ["@@ -1,3 +1,3 @@", " 一", "-二", "+二又", " 三"]},
        {"field": "title", "old": "考前一周", "new": "新题", "diff": None},
    ]
    here = site.get(f"{DESK}/versions?language=zh-Hans&old={new}", by=editor).json()["changes"]
    assert [(row["field"], row["diff"][-1]) for row in here] == [("body", "+四")]
    assert site.get(f"{DESK}/versions?language=zh-Hans&new={new}", by=editor).status_code == 422
    assert site.get(f"{DESK}/versions?language=zh-Hans&old={'0' * 64}", by=editor).status_code == 404
    long = publishing.line_diff("\n".join(map(str, range(1000))), "\n".join(map(str, range(999, -1, -1))))
    assert long and long[-1] == "…" and len(long) == publishing.DIFF[1] + 1
    assert publishing.line_diff("a\n" * 1001, "b") is None


def test_bulk_moves_send_back_and_plan(site: Site) -> None:
    editor, reviewer = site.person("edi", "editor"), site.person("rev", "reviewer")
    for slug in ("a-a", "b-b"):
        publishing.submit(Lesson, draft(slug, by=site.ids["edi"]).id, "zh-Hans", site.ids["edi"])
    items = [{"slug": "a-a", "revision": 2}, {"slug": "b-b", "revision": 2}]
    common = {"items": items, "language": "zh-Hans", "dry_run": False}
    batch = "/v1/staff/lessons/batch"
    for body in ({"action": "send_back"}, {"action": "approve", "at": "2030-01-01"}, {"action": "submit", "note": "x"}):
        assert site.post(batch, {**common, **body}, by=reviewer).status_code == 422, body
    assert site.post(batch, {**common, "action": "send_back", "note": "x"}, by=editor).status_code == 403
    tried = site.post(batch, {**common, "action": "send_back", "note": "补来源", "dry_run": True}, by=reviewer).json()
    assert [row["revision"] for row in tried["items"]] == [2, 2]
    back = site.post(batch, {**common, "items": items[:1], "action": "send_back", "note": "补来源"}, by=reviewer).json()
    assert back["items"] == [{"slug": "a-a", "ok": True, "revision": 3}]
    assert lessons.by_slug("a-a").stands["zh-Hans"].note == "补来源"
    publishing.approve(Lesson, lessons.by_slug("b-b").id, "zh-Hans", SYSTEM)
    plan = {"action": "publish", "at": "2030-06-01", "expires_at": "2030-06-10T08:00"}
    done = site.post(batch, {**common, "items": [{"slug": "b-b", "revision": 3}], **plan}, by=reviewer).json()
    assert done["items"][0]["ok"], done
    assert lessons.by_slug("b-b").stands["zh-Hans"].publish_at == datetime(2030, 5, 31, 16, tzinfo=UTC)


# --- the district's clock --------------------------------------------------------------------------------------------


def test_moments_are_the_districts(site: Site) -> None:
    reviewer = site.person("rev", "reviewer")
    lesson = draft()
    publishing.submit(Lesson, lesson.id, "zh-Hans", SYSTEM)
    publishing.approve(Lesson, lesson.id, "zh-Hans", SYSTEM)
    told = move(site, "publish", reviewer, at="2030-12-01", expires_at="2030-12-20T08:00").json()["stands"]["zh-Hans"]
    assert (told["publish_at"], told["publish_at_local"]) == ("2030-11-30T16:00:00+00:00", "2030-12-01T00:00:00+08:00")
    assert told["next_expires_at_local"] == "2030-12-20T08:00:00+08:00"
    told = move(site, "publish", reviewer, at="2030-12-01T08:00Z").json()["stands"]["zh-Hans"]  # planned anew
    assert told["publish_at_local"] == "2030-12-01T16:00:00+08:00" and "next_expires_at" not in told
    for at in ("soon", "2030-13-01", "20301201", "2030-12-01 08:00", "0001-01-01", "9999-12-31T23:59-12:00", 5, "2030-W01-1"):
        refused = move(site, "publish", reviewer, at=at)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "at"), (at, refused.text)


@pytest.mark.parametrize(
    ("clock", "zone", "moment"),
    [
        ("2026-12-01", "Asia/Shanghai", "2026-11-30T16:00"),
        ("2026-07-01T08:30", "Europe/Berlin", "2026-07-01T06:30"),
        ("2024-03-10", "America/Havana", "2024-03-10T05:00"),  # midnight is skipped: the day begins at 01:00
        ("2024-11-03", "America/Havana", "2024-11-03T04:00"),  # midnight comes twice: it begins at the first
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T03:30:00+02:00 / 2026-03-29T01:30:00+01:00"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T02:30:00+02:00 / 2026-10-25T02:30:00+01:00"),
    ],
)
def test_a_time_that_the_clocks_skip_or_show_twice_is_not_guessed(clock: str, zone: str, moment: str) -> None:
    value = datetime.fromisoformat(clock) if "T" in clock else date.fromisoformat(clock)
    if "/" not in moment:
        assert shapes.in_zone(value, ZoneInfo(zone)) == datetime.fromisoformat(moment).replace(tzinfo=UTC)
        return
    with pytest.raises(Invalid) as refused:
        shapes.in_zone(value, ZoneInfo(zone))
    assert refused.value.errors[0].params["reason"].en.endswith(moment)


def test_what_went_missing_since_the_approval_is_not_published_now_nor_by_the_clock(clean: None) -> None:
    lesson = draft(zh_Hans=ZH, en=EN)
    picture = "ab" * 32
    accepted(picture)
    lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": f"看图 ![图](media:{picture})"}})
    for language in ("zh-Hans", "en"):
        publishing.submit(Lesson, lesson.id, language, SYSTEM)
        publishing.approve(Lesson, lesson.id, language, SYSTEM)
    at = store.now() + timedelta(hours=1)
    for language in ("zh-Hans", "en"):
        publishing.publish(Lesson, lesson.id, language, SYSTEM, at=at)
    gone = published.Item("media", picture, published.ANY, None)
    store.transaction(lambda session: published.release(session, [gone]))
    with pytest.raises(Conflict) as refused:
        publishing.publish(Lesson, lesson.id, "zh-Hans", SYSTEM)
    assert refused.value.code == "incomplete" and picture in refused.value.params["missing"]
    assert publishing.run_schedule(at, [Lesson]) == 1  # the other language of the same lesson is out in the same turn
    stands = lessons.by_slug("exam-week").stands
    assert (stands["en"].state, stands["zh-Hans"].state) == ("published", "approved")
    assert stands["zh-Hans"].publish_at is None and "还缺少" in stands["zh-Hans"].note  # it says so, once, and waits no more
    assert publishing.run_schedule(at + timedelta(days=1), [Lesson]) == 0


def test_a_record_from_before_the_index_is_found_and_the_rest_is_not_walked(clean: None) -> None:
    old, new = draft("old-one"), draft("new-one")
    at = store.now() + timedelta(hours=1)
    for lesson in (old, new):
        publishing.submit(Lesson, lesson.id, "zh-Hans", SYSTEM)
        publishing.approve(Lesson, lesson.id, "zh-Hans", SYSTEM)
        publishing.publish(Lesson, lesson.id, "zh-Hans", SYSTEM, at=at)
    Lesson.rows().update_one({"_id": old.id}, {"$unset": {"wakes_at": ""}})
    revision = lessons.by_slug("old-one").revision
    assert publishing.run_schedule(at - timedelta(minutes=1), [Lesson]) == 0
    found = lessons.by_slug("old-one")
    assert (found.wakes_at, found.revision) == (at, revision)  # looked at once, nobody's edit is stale for it
    assert publishing.run_schedule(at, [Lesson]) == 2
    assert Lesson.rows().count_documents({"wakes_at": publishing.NEVER}) == 2
    plan = Lesson.rows().find({"wakes_at": {"$lte": at}}).explain()
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"]), plan


EDITIONS = ("zh-Hans", "en-x-parent")
HOURS = st.integers(1, 6)
PLAN = st.tuples(st.just("plan"), st.sampled_from(EDITIONS), st.tuples(HOURS, st.none() | HOURS))
OUT = st.tuples(st.just("publish"), st.sampled_from(EDITIONS), st.tuples(st.none(), st.none() | HOURS))
OTHER = st.tuples(st.sampled_from(["ready", "edit", "withdraw", "send_back", "drop"]), st.sampled_from(EDITIONS), st.none())
CLOCK = st.tuples(st.just("clock"), st.none(), st.integers(0, 12))
STEP = PLAN | OUT | OTHER | CLOCK


@pytest.mark.parametrize("examples", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_the_clock_misses_nothing_and_does_nothing_early(clean: None, examples: int) -> None:
    tried = effort(
        max_examples=examples,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow],
    )
    tried(given(st.lists(STEP, min_size=4, max_size=14))(follow_the_clock))()


def follow_the_clock(steps: list[tuple[str, Any, Any]]) -> None:
    """Against a naive model that looks at every edition at every turn. Time runs in half hours from the start of the example."""
    for cls in (Lesson, publishing.Version):
        cls.rows().delete_many({})
    key, start = draft(zh_Hans=ZH, en_x_parent=EN).id, store.now()
    model: dict[str, dict[str, Any]] = {name: {"ready": False, "at": None, "next": None, "shown": None} for name in EDITIONS}
    clock = 0.0  # hours

    def hour(number: float) -> datetime:
        return start + timedelta(hours=number)

    for verb, name, more in steps:
        now = model.get(name) or {}
        if verb == "clock":
            clock = max(clock, more / 2 + 0.25)
            publishing.run_schedule(hour(clock), [Lesson])
            for one in model.values():
                if one["shown"] and one["shown"] <= clock:
                    one["shown"] = None
                if one["at"] and one["at"] <= clock:
                    one |= {"ready": False, "at": None, "next": None, "shown": one["next"] or 99.0}
                    if one["shown"] <= clock:
                        one["shown"] = None
        elif name not in lessons.by_slug("exam-week").stands:
            continue
        elif verb in {"ready", "plan", "publish"}:
            if not now["ready"]:
                lessons.edit(key, SYSTEM, {}, {name: {"title": store.new_id()[:8]}})
                publishing.submit(Lesson, key, name, SYSTEM)
                publishing.approve(Lesson, key, name, SYSTEM)
                now["ready"] = True
            at, over = more or (None, None)
            past = (at and at <= clock) or (over and over <= max(clock, at or 0))  # stands in another test
            if verb != "ready" and not past:
                times: dict[str, Any] = {"at": at and hour(at), "expires_at": over and hour(over)}
                publishing.publish(Lesson, key, name, SYSTEM, **times)
                now |= {"at": at, "next": over} if at else {"ready": False, "at": None, "next": None, "shown": over or 99.0}
        elif verb == "edit":
            lessons.edit(key, SYSTEM, {}, {name: {"title": store.new_id()[:8]}})
            now |= {"ready": False, "at": None, "next": None}
        elif verb == "send_back" and now["ready"]:
            publishing.send_back(Lesson, key, name, SYSTEM, "再看看")
            now |= {"ready": False, "at": None, "next": None}
        elif verb == "withdraw" and now["shown"]:
            publishing.withdraw(Lesson, key, name, SYSTEM)
            now |= {"at": None, "next": None, "shown": None}
        elif verb == "drop" and name != EDITIONS[0]:
            try:
                lessons.edit(key, SYSTEM, {}, {name: None})
                now |= {"ready": False, "at": None, "next": None, "shown": None}
            except Conflict:
                pass  # it has been published
        lesson = lessons.by_slug("exam-week")
        shown = {language for language, stand in lesson.stands.items() if stand.version}
        assert shown == {language for language, one in model.items() if one["shown"]}, (verb, name, more)
        waits = {language: stand.publish_at for language, stand in lesson.stands.items() if stand.publish_at}
        assert waits == {language: hour(one["at"]) for language, one in model.items() if one["at"]}
        moments = [hour(one["at"]) for one in model.values() if one["at"]]
        moments += [hour(one["shown"]) for one in model.values() if one["shown"] and one["shown"] < 99]
        assert lesson.wakes_at == min(moments, default=publishing.NEVER)


# --- used in ---------------------------------------------------------------------------------------------------------


def test_used_in_and_what_a_withdrawal_leaves_behind(site: Site) -> None:
    reviewer = site.person("rev", "reviewer")
    lesson = draft(zh_Hans={**ZH, "check_in": CHECK_IN})
    release(lesson)
    second = draft("second", zh_Hans={**ZH, "check_in": CHECK_IN, "body": "再看 [这一课](lesson:exam-week)。"})
    release(second)
    draft("third", zh_Hans={**ZH, "body": "见 https://x.example/v1/lessons/exam-week 。"})
    school = staff.create_organisation("一中", "school", "150603", SYSTEM).id
    draft("hidden-one", organisation=school, zh_Hans={**ZH, "body": "[课](lesson:exam-week)"})
    facts = {"audiences": ["parent"], "stages": ["junior"], "topics": ["emotion"], "pace": {"unit": "day", "from": "start"}}
    steps = [{"lesson": "exam-week", "at": 0}, {"lesson": "second", "at": 1}]
    release(paths.create("one-week", {**facts, "steps": steps}, {"zh-Hans": {"title": "一周", "summary": "每天一点"}}, SYSTEM))
    checks_row = checks.Check(slug="feel", definition="{}", lessons=["exam-week"], created_by=SYSTEM)
    checks.Check.rows().insert_one(checks_row.to_mongo().to_dict())
    Notice(
        lessons=["exam-week"], audiences=["parent"], texts={"zh-Hans": {"title": "a", "body": "b"}}, created_by=SYSTEM,
        expires_at=store.now() + timedelta(days=1), divisions=["150603"],
    ).save()  # fmt: skip
    site.refresh()
    assert '<a href="/v1/lessons/exam-week"' in site.get("/v1/lessons/second").json()["html"]
    told = site.get(f"{DESK}/used-in", by=reviewer).json()
    assert [(row["kind"], row["key"], row["published"]) for row in told["items"][:-1]] == [
        ("check", "feel", False), ("lesson", "hidden-one", False), ("lesson", "second", True), ("lesson", "third", False),
        ("path", "one-week", True),
    ]  # fmt: skip
    assert (told["items"][-1]["kind"], told["items"][-1]["published"]) == ("notice", False)
    local = site.person("loc", "reviewer", organisation=staff.create_organisation("二中", "school", "150603", SYSTEM).id)
    assert site.get(f"{DESK}/used-in", by=local).status_code == 404  # a lesson that is not his to read at the desk

    gone = move(site, "withdraw", reviewer)  # never blocked
    assert gone.status_code == 200
    assert [(row["kind"], row["key"]) for row in gone.json()["warnings"]] == [("lesson", "second"), ("path", "one-week")]
    assert "one-week" in gone.json()["warnings"][1]["messages"]["zh-Hans"]
    season = site.get("/v1/staff/lessons/second/used-in", by=reviewer).json()["items"]
    assert [row["kind"] for row in season] == ["path"]


def test_a_lesson_of_a_season_and_a_medium_know_where_they_are_used(site: Site) -> None:
    editor = site.person("edi", "editor")
    draft("sleep-well-learn-well")
    items = site.get("/v1/staff/lessons/sleep-well-learn-well/used-in", by=editor).json()["items"]
    assert {"kind": "season", "key": "gaokao", "published": True} in items
    picture = "cd" * 32
    file = accepted(picture)
    lesson = draft(zh_Hans={**ZH, "body": f"![图](media:{picture})"})
    release(lesson)
    lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": "没有图了"}})
    draft("other", zh_Hans={**ZH, "body": f"![图](media:{picture})"})
    site.refresh()
    told = site.get(f"/v1/staff/media/{file.id}/used-in", by=editor).json()
    assert told == {
        "items": [
            {"kind": "lesson", "key": "exam-week", "published": True}, {"kind": "lesson", "key": "other", "published": False},
        ],
        "hidden": 0, "versions": ["lesson exam-week zh-Hans 1"],
    }  # fmt: skip


# --- aging and translations ------------------------------------------------------------------------------------------


def test_aging_lists_what_is_due_oldest_first(site: Site) -> None:
    editor = site.person("edi", "editor", division="150603")
    for slug, due in (("late", "2020-01-01"), ("soon", "2020-03-01"), ("later", "2099-01-01"), ("undated", None)):
        release(lessons.create(slug, {**FACTS, "review_due": due} if due else FACTS, {"zh-Hans": ZH}, SYSTEM))
    release(lessons.create("elsewhere", {**FACTS, "divisions": ["420100"], "review_due": "2019-01-01"}, {"zh-Hans": ZH}, SYSTEM))
    draft("never-out")
    site.refresh()
    first = site.get("/v1/staff/lessons/aging?limit=1", by=editor).json()
    assert [(row["slug"], row["due"], row["planned"]) for row in first["items"]] == [("late", "2020-01-01", True)]
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date()
    assert first["items"][0]["days_overdue"] == (today - date(2020, 1, 1)).days
    rest = site.get(f"/v1/staff/lessons/aging?cursor={first['next_cursor']}", by=editor).json()
    assert [row["slug"] for row in rest["items"]] == ["soon"] and rest["next_cursor"] is None
    year = site.get(f"/v1/staff/lessons/aging?before={today + timedelta(days=366)}", by=editor).json()["items"]
    assert [(row["slug"], row["planned"]) for row in year] == [("late", True), ("soon", True), ("undated", False)]
    assert year[2]["days_overdue"] == -365 and year[2]["editions"] == [{"language": "zh-Hans", "title": ZH["title"]}]
    assert site.get("/v1/staff/lessons/aging?before=2026-13-01", by=editor).status_code == 422


def test_translations_that_fell_behind_oldest_first(site: Site) -> None:
    editor = site.person("edi", "editor")
    first, second = (draft(slug, zh_Hans=ZH) for slug in ("first", "second"))
    for lesson in (first, second):
        release(lesson)
        lessons.edit(lesson.id, SYSTEM, {}, {"en": {**EN, "made_from": "zh-Hans"}})
    release(second, "en")
    draft("loose", en={**EN, "made_from": "mn-Mong"})  # made from what is not here
    assert [row["slug"] for row in site.get("/v1/staff/lessons/stale", by=editor).json()["items"]] == ["loose"]
    for lesson, times in ((second, 2), (first, 1)):
        for number in range(times):
            lessons.edit(lesson.id, SYSTEM, {}, {"zh-Hans": {"body": f"第{number + 2}版"}})
            release(lesson)
    page = site.get("/v1/staff/lessons/stale?limit=2", by=editor).json()
    assert [row["slug"] for row in page["items"]] == ["loose", "second"]
    assert page["items"][0]["editions"][0]["reason"] == "source_missing"
    told = page["items"][1]["editions"][0]
    assert (told["language"], told["state"], told["reason"], told["versions_behind"]) == ("en", "published", "moved_on", 2)
    diff = site.get(told["compare"], by=editor).json()["changes"]
    assert [(row["field"], row["old"], row["new"]) for row in diff] == [("body", ZH["body"], "第3版")]
    rest = site.get(f"/v1/staff/lessons/stale?cursor={page['next_cursor']}", by=editor).json()
    assert [(row["slug"], row["editions"][0]["state"]) for row in rest["items"]] == [("first", "draft")]

    lessons.edit(second.id, SYSTEM, {}, {"en": {"title": "Anew", "made_from": "zh-Hans"}})  # made from what is there now
    publishing.withdraw(Lesson, first.id, "zh-Hans", SYSTEM)
    reasons = {
        row["slug"]: row["editions"][0]["reason"] for row in site.get("/v1/staff/lessons/stale", by=editor).json()["items"]
    }
    assert reasons == {"loose": "source_missing", "first": "withdrawn"}
    old = publishing.versions(Lesson, "second", "zh-Hans")[-1].id
    publishing.roll_back(Lesson, second.id, "zh-Hans", old, SYSTEM)
    rows = upkeep.behind(next(raw for raw in upkeep.stale() if raw["slug"] == "second"))
    assert (rows[0]["reason"], rows[0]["versions_behind"]) == ("rolled_back", None)


# --- previews --------------------------------------------------------------------------------------------------------

MN = {
    "title": "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ", "summary": "ᠡᠬᠡ ᠡᠴᠢᠭᠡ\u202fᠳᠦ",
    "body": "# ᠬᠠᠮᠲᠤ\n\nᠬᠡᠦᠬᠡᠳ\u202fᠦᠨ ᠦᠭᠡ\u202fᠶᠢ ᠰᠣᠨᠣᠰ <script>x</script>",
    "try_this": "ᠥᠨᠥᠳᠥᠷ ᠠᠰᠠᠭᠤ",
}  # fmt: skip


def test_a_draft_is_shown_to_whoever_has_the_address(site: Site) -> None:
    editor, reader = site.person("edi", "editor"), site.person("cou", "counsellor")
    draft(by=site.ids["edi"], zh_Hans={**ZH, "title": "<b>考前</b>", "check_in": CHECK_IN}, mn_Mong=MN)
    assert site.post(f"{DESK}/preview", {"language": "zh-Hans"}, by=reader).status_code == 403
    assert site.post(f"{DESK}/preview", {"language": "en"}, by=editor).status_code == 422
    assert site.post(f"{DESK}/preview", {"language": "zh-Hans", "hours": 169}, by=editor).status_code == 422
    made = site.post(f"{DESK}/preview", {"language": "zh-Hans"}, by=editor)
    assert made.status_code == 201, made.text
    address = made.json()["address"]
    token = address.rpartition("/")[2]
    assert re.fullmatch(r"/v1/previews/[A-Za-z0-9_-]{43}", address)  # 256 bits
    kept = reviewing.Preview.rows().find_one({})
    assert kept and token not in str(kept) and token not in str(list(records.Audit.rows().find({})))
    left = datetime.fromisoformat(made.json()["expires_at"]) - store.now()
    assert timedelta(hours=23, minutes=58) < left <= timedelta(hours=24)

    shown = site.get(address)
    assert shown.headers["Cache-Control"] == "no-store" and shown.headers["X-Robots-Tag"].startswith("noindex")
    assert shown.json()["title"] == "<b>考前</b>" and shown.json()["html"] == "<p>先听，再说。</p>\n"
    assert shown.json()["preview"]["state"] == "draft" and "预览" in shown.json()["preview"]["messages"]["zh-Hans"]
    lessons.edit(lessons.by_slug("exam-week").id, SYSTEM, {}, {"zh-Hans": {"body": "改了。"}})
    assert "改了" in site.get(address).json()["html"]  # the working copy as it is now

    page = site.get(address, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["Content-Type"] == "text/html; charset=utf-8" and page.headers["Cache-Control"] == "no-store"
    assert (
        '<html lang="zh-Hans" dir="ltr">' in page.text and "&lt;b&gt;考前&lt;/b&gt;" in page.text and "<b>考前" not in page.text
    )
    assert "script-src" not in page.headers["Content-Security-Policy"] and "<script" not in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    mongolian = site.post(f"{DESK}/preview", {"language": "mn-Mong"}, by=editor).json()["address"]
    page = site.get(mongolian, headers={"Accept": "text/html"})
    assert '<html lang="mn-Mong" dir="ltr">' in page.text and '<article class="ttb"' in page.text
    assert "ᠬᠡᠦᠬᠡᠳ\u202fᠦᠨ" in page.text and "writing-mode:vertical-lr" in page.text and "<script" not in page.text


def test_a_preview_ends_with_its_time_a_word_its_maker_and_the_draft(site: Site) -> None:
    editor, admin = site.person("edi", "editor"), site.person("adm", "admin")
    lesson = draft(by=site.ids["edi"])

    def made() -> str:
        return str(site.post(f"{DESK}/preview", {"language": "zh-Hans", "hours": 1}, by=editor).json()["address"])

    one = made()
    assert site.get(one).status_code == 200
    reviewing.Preview.rows().update_one({}, {"$set": {"expires_at": store.now() - timedelta(seconds=1)}})
    ended = site.get(one)
    assert (ended.status_code, ended.json()["code"]) == (404, "not_found") and one.rpartition("/")[2] not in ended.text
    page = site.get(one, headers={"Accept": "text/html"})
    assert page.status_code == 404 and "链接已失效" in page.text and page.headers["Cache-Control"] == "no-store"
    reviewing.Preview.rows().delete_one({})
    two = made()
    assert site.call("DELETE", f"{DESK}/previews", by=site.person("cou", "counsellor")).json() == {"revoked": 0}
    assert site.call("DELETE", f"{DESK}/previews", by=editor).json() == {"revoked": 1}
    assert site.get(two).status_code == 404
    three = made()
    account = f"/v1/staff/accounts/{site.ids['edi']}"
    tag = site.get(account, by=admin).headers["ETag"]
    changed = site.call("PATCH", account, by=admin, match=tag, json={"grants": [{"role": "counsellor"}]})
    assert changed.status_code == 200 and site.get(three).status_code == 404  # the right is lost
    back = site.call("PATCH", account, by=admin, match=changed.headers["ETag"], json={"grants": [{"role": "editor"}]})
    assert site.get(three).status_code == 200
    site.call("PATCH", account, by=admin, match=back.headers["ETag"], json={"state": "disabled"})
    assert site.get(three).status_code == 404
    for token in ("x", "a" * 43, "a" * 5000, "%00"):
        assert site.get(f"/v1/previews/{token}").status_code in {400, 404}
    assert reviewing.Preview.rows().count_documents({"record": lesson.id}) == 1


# --- cleaning away ---------------------------------------------------------------------------------------------------


def test_a_draft_that_came_to_nothing_is_deleted_and_what_was_published_never(site: Site) -> None:
    editor = site.person("edi", "editor")
    kept = release(draft("published-once"))
    publishing.withdraw(Lesson, kept.id, "zh-Hans", SYSTEM)
    lesson = draft(by=site.ids["edi"])
    site.post(f"{DESK}/comments", {"language": "zh-Hans", "text": "删吧"}, by=editor)
    address = site.post(f"{DESK}/preview", {"language": "zh-Hans"}, by=editor).json()["address"]
    assert site.call("DELETE", DESK, by=editor).status_code == 428
    assert site.call("DELETE", DESK, by=editor, match='"7"').status_code == 412
    assert site.call("DELETE", DESK, by=site.person("rev", "reviewer"), match='"1"').status_code == 403
    once = site.call("DELETE", "/v1/staff/lessons/published-once", by=editor, match=f'"{kept.revision + 1}"')
    assert (once.status_code, once.json()["code"]) == (409, "in_use")
    facts = {"audiences": ["parent"], "stages": ["junior"], "topics": ["emotion"], "pace": {"unit": "day", "from": "start"}}
    steps = [{"lesson": "exam-week", "at": 0}, {"lesson": "published-once", "at": 1}]
    paths.create("junk", {**facts, "steps": steps}, {"zh-Hans": {"title": "一周", "summary": ""}}, site.ids["edi"])
    assert "path junk" in site.call("DELETE", DESK, by=editor, match='"1"').json()["messages"]["en"]
    said = site.post("/v1/staff/paths/junk/comments", {"language": "zh-Hans", "field": "title", "text": "不要了"}, by=editor)
    assert said.status_code == 201, said.text
    assert site.call("DELETE", "/v1/staff/paths/junk", by=editor, match='"1"').status_code == 204
    assert site.call("DELETE", DESK, by=editor, match='"1"').status_code == 204
    assert site.get(DESK, by=editor).status_code == 404 and site.get(address).status_code == 404
    assert not reviewing.Comment.rows().count_documents({}) and not reviewing.Preview.rows().count_documents(
        {"record": lesson.id}
    )
    assert not Path.rows().count_documents({}) and draft().slug == "exam-week"  # the name is free again
    with pytest.raises(Failure):
        reviewing.discard(Lesson, kept.id, SYSTEM)

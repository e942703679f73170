"""From draft to reader, per language: who may move what, what readers keep seeing, and that no language touches another."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from content import lessons, markdown, published, publishing, records, staff, store
from content.failures import Conflict, Failure, Forbidden, Invalid, NotFound, Stale
from content.lessons import Lesson
from content.publishing import Publishable
from content.records import SYSTEM

pytestmark = pytest.mark.usefixtures("clean")
FACTS: dict[str, Any] = {
    "audiences": ["parent"], "stages": ["junior.final"], "topics": ["emotion"], "kind": "tip", "seasons": ["gaokao"],
    "divisions": ["150603"], "sources": [{"title": "本项目"}],
}  # fmt: skip
ZH = {"title": "考前一周", "summary": "陪孩子稳住。", "body": "先听，再说。", "try_this": "今晚问一句。"}
EN = {"title": "The week before", "summary": "Stay steady.", "body": "Listen first.", "try_this": "Ask one question."}


def account(name: str, by: str = SYSTEM) -> str:
    return staff.create_account(name, name, "a long enough one", by, grants=[]).id


def lesson(author: str, **texts: dict[str, str]) -> str:
    return str(lessons.create("exam-week", FACTS, texts or {"zh-Hans": ZH, "en": EN}, author).id)


def released(key: str, language: str, author: str, second: str) -> None:
    publishing.submit(Lesson, key, language, author)
    publishing.approve(Lesson, key, language, second)
    publishing.publish(Lesson, key, language, second)


def snapshot() -> published.Snapshot:
    reader = published.Reader()
    assert reader.refresh()
    return reader.current


def test_a_second_person_publishes_and_one_language_touches_no_other() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    publishing.submit(Lesson, key, "zh-Hans", author)
    with pytest.raises(Forbidden) as refused:
        publishing.approve(Lesson, key, "zh-Hans", author)
    assert refused.value.code == "second_person"
    with pytest.raises(Conflict):  # not approved yet
        publishing.publish(Lesson, key, "zh-Hans", second)
    publishing.approve(Lesson, key, "zh-Hans", second)
    publishing.publish(Lesson, key, "zh-Hans", second)
    assert set(snapshot().get("lesson", "exam-week")) == {"zh-Hans"}
    shown = lessons.detail(snapshot(), "exam-week", ("en", "zh-CN"))
    assert (shown["language"], shown["title"], shown["html"]) == ("zh-Hans", "考前一周", "<p>先听，再说。</p>\n")


def test_every_author_since_the_last_publication_is_barred_from_approving() -> None:
    author, second, third = account("author"), account("second"), account("third")
    key = lesson(author)
    lessons.edit(key, second, {}, {"zh-Hans": {"body": "改了一句。"}})
    publishing.submit(Lesson, key, "zh-Hans", author)
    with pytest.raises(Forbidden):
        publishing.approve(Lesson, key, "zh-Hans", second)
    publishing.approve(Lesson, key, "zh-Hans", third)


def test_an_account_that_the_author_made_does_not_count() -> None:
    author = account("author")
    raw = staff.Account.rows().find_one({"_id": account("puppet")})
    assert raw
    staff.Account.rows().update_one({"_id": raw["_id"]}, {"$set": {"created_by": author}})
    key = lesson(author)
    publishing.submit(Lesson, key, "zh-Hans", author)
    with pytest.raises(Forbidden):
        publishing.approve(Lesson, key, "zh-Hans", raw["_id"])


def test_readers_keep_the_published_version_while_the_next_is_written_and_roll_back() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    first = snapshot().get("lesson", "exam-week")["zh-Hans"].content
    assert first
    changed = lessons.edit(key, author, {}, {"zh-Hans": {"body": "第二版。"}})
    assert changed.stands["zh-Hans"].state == "draft"
    assert snapshot().get("lesson", "exam-week")["zh-Hans"].content == first
    released(key, "zh-Hans", author, second)
    assert "第二版" in lessons.detail(snapshot(), "exam-week", ())["html"]
    rows = publishing.versions(Lesson, "exam-week", "zh-Hans")
    assert [row.number for row in rows] == [2, 1]
    assert publishing.compare(Lesson, "exam-week", "zh-Hans", rows[1].id, rows[0].id) == {"body": ("先听，再说。", "第二版。")}
    publishing.roll_back(Lesson, key, "zh-Hans", rows[1].id, second)
    assert lessons.detail(snapshot(), "exam-week", ())["version"] == rows[1].id
    with pytest.raises(NotFound):
        publishing.roll_back(Lesson, key, "zh-Hans", "0" * 64, second)


def test_withdrawing_leaves_a_tombstone_and_the_working_copy() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    publishing.withdraw(Lesson, key, "zh-Hans", second)
    now = snapshot()
    assert not now.get("lesson", "exam-week")
    assert ("lesson", "exam-week", "zh-Hans") in now.gone
    with pytest.raises(NotFound):
        lessons.detail(now, "exam-week", ())
    assert lessons.by_slug("exam-week").texts["zh-Hans"].title == "考前一周"
    publishing.submit(Lesson, key, "zh-Hans", author)  # the way back is the whole way
    with pytest.raises(Forbidden):
        publishing.approve(Lesson, key, "zh-Hans", author)
    with pytest.raises(Conflict):  # nothing is public: no short cut past the second person
        publishing.roll_back(Lesson, key, "zh-Hans", publishing.versions(Lesson, "exam-week", "zh-Hans")[0].id, author)
    publishing.approve(Lesson, key, "zh-Hans", second)


def test_who_wrote_what_was_recalled_does_not_bring_it_back_alone() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    publishing.withdraw(Lesson, key, "zh-Hans", second)
    publishing.submit(Lesson, key, "zh-Hans", second)
    with pytest.raises(Forbidden):
        publishing.approve(Lesson, key, "zh-Hans", author)
    with pytest.raises(Forbidden):
        publishing.approve(Lesson, key, "zh-Hans", second)
    publishing.approve(Lesson, key, "zh-Hans", account("third"))


def test_a_roll_back_is_not_undone_by_the_author_alone_nor_by_the_clock() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    lessons.edit(key, author, {}, {"zh-Hans": {"body": "第二版。"}})
    released(key, "zh-Hans", author, second)
    first = publishing.versions(Lesson, "exam-week", "zh-Hans")[1].id
    rolled = publishing.roll_back(Lesson, key, "zh-Hans", first, second)
    # the working copy went back too: the next small edit does not bring the second version to readers again
    assert (rolled.texts["zh-Hans"].body, rolled.stands["zh-Hans"].state) == ("先听，再说。", "published")
    lessons.edit(key, author, {}, {"zh-Hans": {"body": "第三版。"}})
    edited = publishing.roll_back(Lesson, key, "zh-Hans", first, second)
    assert (edited.texts["zh-Hans"].body, edited.stands["zh-Hans"].state) == ("第三版。", "draft")  # somebody's work stays
    publishing.submit(Lesson, key, "zh-Hans", author)
    with pytest.raises(Forbidden):
        publishing.approve(Lesson, key, "zh-Hans", author)
    publishing.approve(Lesson, key, "zh-Hans", second)
    at = store.now() + timedelta(hours=1)
    publishing.publish(Lesson, key, "zh-Hans", second, at=at)
    publishing.roll_back(Lesson, key, "zh-Hans", first, second)
    assert publishing.run_schedule(at, [Lesson]) == 0
    assert snapshot().get("lesson", "exam-week")["zh-Hans"].content["version"] == first  # type: ignore[index]


def test_the_expiry_of_what_waits_is_not_that_of_what_is_read() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    lessons.edit(key, author, {}, {"zh-Hans": {"body": "第二版。"}})
    publishing.submit(Lesson, key, "zh-Hans", author)
    publishing.approve(Lesson, key, "zh-Hans", second)
    at = store.now() + timedelta(hours=1)
    for early in (store.now() - timedelta(days=1), at):
        with pytest.raises(Invalid):
            publishing.publish(Lesson, key, "zh-Hans", second, at=at, expires_at=early)
    publishing.publish(Lesson, key, "zh-Hans", second, at=at, expires_at=at + timedelta(hours=1))
    publishing.send_back(Lesson, key, "zh-Hans", second, "再改改")
    assert publishing.run_schedule(at + timedelta(days=1), [Lesson]) == 0
    assert snapshot().get("lesson", "exam-week")


def test_withdrawing_ends_a_waiting_publication() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    lessons.edit(key, author, {}, {"zh-Hans": {"body": "第二版。"}})
    publishing.submit(Lesson, key, "zh-Hans", author)
    publishing.approve(Lesson, key, "zh-Hans", second)
    at = store.now() + timedelta(hours=1)
    publishing.publish(Lesson, key, "zh-Hans", second, at=at)
    publishing.withdraw(Lesson, key, "zh-Hans", second)
    assert publishing.run_schedule(at, [Lesson]) == 0
    assert not snapshot().get("lesson", "exam-week")


def test_publishing_at_a_moment_and_expiry() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    publishing.submit(Lesson, key, "zh-Hans", author)
    publishing.approve(Lesson, key, "zh-Hans", second)
    at = store.now() + timedelta(hours=1)
    publishing.publish(Lesson, key, "zh-Hans", second, at=at, expires_at=at + timedelta(hours=1))
    assert publishing.run_schedule(at - timedelta(seconds=1), [Lesson]) == 0
    assert not snapshot().get("lesson", "exam-week")
    assert publishing.run_schedule(at, [Lesson]) == 1
    assert publishing.run_schedule(at, [Lesson]) == 0
    assert snapshot().get("lesson", "exam-week")
    assert publishing.run_schedule(at + timedelta(hours=1), [Lesson]) == 1
    assert not snapshot().get("lesson", "exam-week")


def test_an_incomplete_text_says_what_is_missing() -> None:
    author = account("author")
    key = lesson(author, **{"zh-Hans": ZH, "en": {"title": "The week before", "body": "Listen first."}})
    with pytest.raises(Conflict) as refused:
        publishing.submit(Lesson, key, "en", author)
    assert refused.value.params["missing"] == "en.summary, en.try_this"


def test_two_editors_the_second_is_told_and_nothing_is_lost() -> None:
    author = account("author")
    key = lesson(author)
    lessons.edit(key, author, {}, {"zh-Hans": {"title": "一"}}, revision=1)
    with pytest.raises(Stale):
        lessons.edit(key, author, {}, {"zh-Hans": {"title": "二"}}, revision=1)
    assert lessons.by_slug("exam-week").texts["zh-Hans"].title == "一"


def test_every_write_leaves_a_line_and_a_refused_one_none() -> None:
    author, second = account("author"), account("second")
    key = lesson(author)
    released(key, "zh-Hans", author, second)
    with pytest.raises(Failure):
        publishing.publish(Lesson, key, "zh-Hans", second)
    assert [line.action for line in records.history(kind="lesson")][::-1] == [
        "lesson.create", "lesson.submit", "lesson.approve", "lesson.publish",
    ]  # fmt: skip


def test_import_is_repeatable_and_refuses_unknown_codes() -> None:
    facts = {**FACTS, "licence": "CC BY 4.0", "made_from": None}
    assert lessons.import_draft("a-b", "zh-Hans", facts, ZH, SYSTEM, dry_run=True) == "new"
    assert lessons.import_draft("a-b", "zh-Hans", facts, ZH, SYSTEM) == "new"
    assert lessons.import_draft("a-b", "zh-Hans", facts, ZH, SYSTEM) == "unchanged"
    assert lessons.import_draft("a-b", "en", {"made_from": "zh-Hans"}, EN, SYSTEM) == "new"
    assert lessons.import_draft("a-b", "en", {"made_from": "zh-Hans"}, {**EN, "title": "Other"}, SYSTEM) == "changed"
    assert lessons.by_slug("a-b").texts["zh-Hans"].licence == "CC BY 4.0"
    for wrong in ({"topics": ["no"]}, {"stages": ["junior.99"]}, {"divisions": ["999999"]}, {"kind": "no"}):
        with pytest.raises(Invalid):
            lessons.import_draft("a-b", "zh-Hans", {**FACTS, **wrong}, ZH, SYSTEM)


def test_markdown_is_sanitised_and_mongolian_joiners_stay() -> None:
    shown = markdown.render("<script>x</script>\n\n[a](javascript:x) ![p](media:" + "a" * 64 + ") ᠮᠣᠩᠭᠣᠯ\u202fᠤᠨ\u180e**好**")
    assert "<script" not in shown["html"] and "javascript:" not in shown["html"].replace("](javascript:x)", "")
    assert f'src="/v1/media/{"a" * 64}/file?width=960"' in shown["html"]
    assert "\u202f" in shown["html"] and "\u180e" in shown["plain"] and "好" in shown["plain"]


LANGUAGES = ("zh-Hans", "en", "mn-Mong", "zh-Hans-x-parent")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["submit", "approve", "publish", "withdraw", "edit"]), st.sampled_from(LANGUAGES)), max_size=12
    )
)
def test_no_move_of_one_edition_changes_another_for_readers_or_staff(moves: list[tuple[str, str]]) -> None:
    for cls in (Lesson, publishing.Version, published.PublishedRow):
        cls.rows().delete_many({})
    key = str(lessons.create("exam-week", FACTS, dict.fromkeys(LANGUAGES, ZH), SYSTEM).id)
    verbs: dict[str, Any] = {name: getattr(publishing, name) for name in ("submit", "approve", "publish", "withdraw")}
    verbs["edit"] = lambda cls, key, language, by: lessons.edit(key, by, {}, {language: {"title": store.new_id()[:8]}})
    before, desk = dict(snapshot().get("lesson", "exam-week")), lessons.by_slug("exam-week")
    for verb, language in moves:
        try:
            moved: Publishable = verbs[verb](Lesson, key, language, SYSTEM)
        except Conflict:
            moved = lessons.by_slug("exam-week")
        after = dict(snapshot().get("lesson", "exam-week"))
        for other in LANGUAGES:
            if other != language:
                assert after.get(other) == before.get(other)
                assert moved.stands[other].to_mongo() == desk.stands[other].to_mongo()
                assert moved.content_of(other) == desk.content_of(other)
        stand = moved.stands[language]
        assert (language in after) == bool(stand.version)
        if stand.version:
            assert (after[language].content or {})["version"] == stand.version
        before, desk = after, moved

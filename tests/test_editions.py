"""One subject in three voices and several languages: who gets which, what they are told, and what is behind what."""

from typing import Any

import langcodes

from content import languages, lessons, publishing
from content.languages import edition
from content.lessons import Lesson
from content.records import SYSTEM
from tests.site import Site
from tests.test_lessons import NEW
from tests.test_publishing import EN, FACTS, ZH

ASK = {"question": "昨晚问了吗？", "did": "真好。", "partly": "问半句也算。", "not_yet": "今晚再试，睡前最容易。"}
MONGOLIAN = {"title": "ᠰᠢᠯᠭᠠᠯᠲᠠ\u202fᠶᠢᠨ ᠡᠮᠦᠨ᠎ᠡ", "summary": "ᠰᠣᠨᠣᠰ", "body": "ᠡᠪᠲᠡᠢ\u202fᠪᠠᠷ **ᠰᠣᠨᠣᠰ**", "try_this": "ᠠᠰᠠᠭᠤ"}
FACES = ("student", "parent", "staff")


def out(slug: str, *editions: str) -> None:
    """Publish these editions without their story."""
    key = lessons.by_slug(slug).id
    for one in editions:
        for verb in (publishing.submit, publishing.approve, publishing.publish):
            verb(Lesson, key, one, SYSTEM)


def said(voice: str) -> dict[str, str]:
    return {**ZH, "title": f"给{voice}", "body": f"对{voice}说的话。"}


def test_one_subject_is_told_in_three_voices_under_one_slug(site: Site) -> None:
    facts = {**FACTS, "audiences": ["parent", "student", "teacher"]}
    texts = {"zh-Hans": ZH, **{f"zh-Hans-x-{voice}": said(voice) for voice in FACES}, "en-x-parent": EN}
    lessons.create("exam-week", facts, texts, SYSTEM)
    out("exam-week", "zh-Hans-x-student", "zh-Hans-x-parent", "en-x-parent")
    site.refresh()

    def read(query: str = "", language: str = "") -> dict[str, Any]:
        reply = site.get(f"/v1/lessons/exam-week{query}", headers={"Accept-Language": language} if language else {})
        assert reply.status_code == 200, reply.text
        shown: dict[str, Any] = reply.json()
        assert reply.headers["Content-Language"] == shown["language"]
        return shown

    assert [read(f"?audience={a}")["title"] for a in ("student", "parent")] == ["给student", "给parent"]
    assert read("?audience=student", "en")["title"] == "给student"  # the English one is the parents'
    assert (read("?audience=parent", "en")["title"], read("?audience=parent", "en")["language"]) == ("The week before", "en")
    shown = read("?audience=student")
    assert (shown["voice"], shown["language"], shown["audiences"]) == ("student", "zh-Hans", ["student"])
    assert (shown["languages"], shown["voices"]) == (["en", "zh-Hans"], ["parent", "student"])

    def listed(query: str) -> list[tuple[str, str]]:
        return [(row["slug"], row["voice"]) for row in site.get(f"/v1/lessons?{query}").json()["items"]]

    assert listed("audience=student") == [("exam-week", "student")]
    assert listed("audience=parent&language=en") == [("exam-week", "parent")]
    assert listed("audience=teacher") == []  # the staff's voice is still a draft, and no other is for teachers
    out("exam-week", "zh-Hans-x-staff")
    site.refresh()
    assert listed("audience=teacher") == [("exam-week", "staff")]
    assert len(listed("")) == 1
    out("exam-week", "zh-Hans")  # the text for all stands where no audience is named
    site.refresh()
    assert listed("") == [("exam-week", "")]
    lessons.edit(lessons.by_slug("exam-week").id, SYSTEM, {}, {"en": EN})
    out("exam-week", "en")
    site.refresh()  # what one can read goes before the voice it is told in
    assert (read("?audience=student", "en")["voice"], read("?audience=student", "en")["language"]) == ("", "en")
    assert read("?audience=student", "zh")["voice"] == "student"


def test_the_reader_is_told_of_a_fallback_and_how_it_is_written(site: Site) -> None:
    lessons.create("exam-week", FACTS, {"zh-Hans": ZH, "mn-Mong": MONGOLIAN}, SYSTEM)
    out("exam-week", "zh-Hans")
    site.refresh()
    shown = site.get("/v1/lessons/exam-week", headers={"Accept-Language": "mn-CN, en;q=0.5"}).json()
    assert shown["fallback"] == {
        "asked": "mn-Mong",
        "chain": ["mn-Mong", "en", "mn-Cyrl", "zh-Hans"],
        "text": {"zh-Hans": "以简体中文显示", "en": "Shown in Simplified Chinese"},
    }
    lessons.edit(lessons.by_slug("exam-week").id, SYSTEM, {}, {"en": EN})
    out("exam-week", "mn-Mong", "en")
    site.refresh()  # a language that the reader names goes before one that we suppose
    assert site.get("/v1/lessons/exam-week", headers={"Accept-Language": "bo, en;q=0.5"}).json()["language"] == "en"
    for asked in ("mn-CN", "mvf", "mn-Mong"):
        shown = site.get("/v1/lessons/exam-week", headers={"Accept-Language": asked}).json()
        assert (shown["fallback"], shown["script"], shown["direction"]) == (None, "Mong", "ttb")
        assert shown["title"] == MONGOLIAN["title"]
        assert "\u202f" in shown["html"]
        assert "\u202f" in shown["plain"]
    assert site.get("/v1/lessons/exam-week", headers={"Accept-Language": "zh-CN"}).json()["fallback"] is None
    [row] = site.get("/v1/lessons", headers={"Accept-Language": "fr"}).json()["items"]
    assert row["fallback"]["asked"] == "fr"


def test_a_translation_remembers_what_it_was_made_from(site: Site) -> None:
    editor, reviewer = site.person("editor", "editor", division="150603"), site.person("reviewer", "reviewer")
    made = site.post("/v1/staff/lessons", NEW, by=editor)
    first = {text["language"]: text for text in made.json()["texts"]}
    assert len(first["en"]["made_from_version"]) == 64
    out("exam-week", "zh-Hans", "en")
    site.refresh()

    def behind() -> bool:
        return bool(site.get("/v1/lessons/exam-week", headers={"Accept-Language": "en"}).json()["behind_source"])

    assert not behind()

    def patch(**text: Any) -> None:
        tag = site.get("/v1/staff/lessons/exam-week", by=editor).headers["ETag"]
        reply = site.call("PATCH", "/v1/staff/lessons/exam-week", json={"texts": [text]}, by=editor, match=tag)
        assert reply.status_code == 200, reply.text

    patch(language="zh-Hans", body="先听，再听，最后才说。")
    assert not behind()  # readers still have the text that it was made from
    out("exam-week", "zh-Hans")
    site.refresh()
    assert behind()
    patch(language="en", summary="Stay calm.")  # a small mend is no new translation
    out("exam-week", "en")
    site.refresh()
    assert behind()
    patch(language="en", body="Listen, listen again, speak last.", made_from="zh-Hans")
    out("exam-week", "en")
    site.refresh()
    assert not behind()
    assert reviewer


def test_the_check_in_of_the_next_day_is_whole_or_not_there(site: Site) -> None:
    editor = site.person("editor", "editor", division="150603")
    text = {"language": "zh-Hans", **ZH, "check_in": {**ASK, "did": ""}}
    refused = site.post("/v1/staff/lessons", {**NEW, "texts": [text]}, by=editor)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "texts.0.check_in.did")
    texts = [{**text, "check_in": ASK}, {"language": "en", "made_from": "zh-Hans", **EN}]
    made = site.post("/v1/staff/lessons", {**NEW, "texts": texts}, by=editor)
    assert made.status_code == 201, made.text
    half = site.post("/v1/staff/lessons/exam-week/submit", {"language": "en"}, by=editor, match='"1"')
    assert (half.status_code, half.json()["code"]) == (409, "incomplete")
    assert "en.check_in" in half.text
    out("exam-week", "zh-Hans")
    site.refresh()
    assert site.get("/v1/lessons/exam-week").json()["check_in"] == ASK
    version = site.get("/v1/lessons/exam-week").json()["version"]
    lessons.edit(lessons.by_slug("exam-week").id, SYSTEM, {}, {"zh-Hans": {"check_in": {**ASK, "did": "很好。"}}})
    out("exam-week", "zh-Hans")
    publishing.roll_back(Lesson, lessons.by_slug("exam-week").id, "zh-Hans", version, SYSTEM)
    site.refresh()
    assert site.get("/v1/lessons/exam-week").json()["check_in"] == ASK
    assert lessons.by_slug("exam-week").content_of("zh-Hans")["check_in"] == ASK
    without = {"texts": [{"language": "zh-Hans", "check_in": None}]}
    gone = site.call("PATCH", "/v1/staff/lessons/exam-week", json=without, by=editor, match='"9"')
    assert "check_in" not in next(row for row in gone.json()["texts"] if row["language"] == "zh-Hans")


def test_an_edition_has_one_spelling_and_no_other_voice(site: Site) -> None:
    assert edition("zh-CN-x-student") == "zh-Hans-x-student"
    editor = site.person("editor", "editor", division="150603")
    for wrong in ("zh-Hans-x-nurse", "zh-Hans-x-", "x-student", "zh-Hans-x-student-x-parent"):
        refused = site.post("/v1/staff/lessons", {**NEW, "texts": [{**NEW["texts"][0], "language": wrong}]}, by=editor)  # type: ignore[dict-item]
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "texts.0.language"), refused.text
    twice = [{**ZH, "language": "zh-Hans-x-student"}, {**ZH, "language": "zh-CN-x-student"}]
    assert site.post("/v1/staff/lessons", {**NEW, "texts": twice}, by=editor).status_code == 422
    # a voice for nobody that the lesson is for is named, not published
    lessons.create("for-parents", FACTS, {"zh-Hans-x-student": ZH}, SYSTEM)
    whom, body = site.person("editor2", "editor"), {"language": "zh-Hans-x-student"}
    alone = site.post("/v1/staff/lessons/for-parents/submit", body, by=whom, match='"1"')
    assert "audiences (student)" in alone.text
    assert site.get("/v1/lessons?language=zh-Hans-x-student").status_code == 422


def test_made_up_languages_do_not_grow_the_memory(site: Site) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    for first in letters:
        for second in letters:
            asked = ", ".join(f"{first}{second}-{third * 4}-{first}{third}" for third in letters[:8])
            languages.pick(["zh-Hans", "en"], asked.split(", "))
    assert len(langcodes.Language._PARSE_CACHE) <= 5000
    for wrong in ("und", "mul", "en-u-ca-buddhist", "aa-00000000-abcdefgh", "zh-Hans-x-student"):
        assert site.get(f"/v1/lessons?language={wrong}").status_code == 422
    assert (languages.tag("cmn-Hans"), languages.tag("en-Latn"), languages.tag("en-GB")) == ("zh-Hans", "en", "en-GB")

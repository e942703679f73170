"""Lesson files: every real file read, refused or skipped aloud; hostile ones refused with line and reason; nothing lost."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from content import checking, importing, languages, lessons, manuscripts
from content.failures import Invalid, NotFound
from content.importing import Outcome, Read, Refused, Skipped

REAL = Path(__file__).parents[2] / "shared" / "data" / "lessons"
LIBRARY = Path(__file__).parents[1] / "content" / "library" / "lessons"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared lessons are not beside the project")
HEAD = "---\nslug: a-lesson\nlanguage: zh-Hans\naudiences: [parent]\nkind: tip\ntitle: 题目\n"
# folder: (lessons read, files they came from, skipped, refused)
COUNTS = {
    "": (0, 0, 1, 0),
    "global-asp/bo": (40, 40, 0, 0),
    "global-asp/ko": (42, 42, 1, 0),
    "global-asp/yue": (62, 62, 1, 0),
    "global-asp/zh": (78, 78, 1, 0),
    "peace-lab-zh": (44, 44, 0, 0),
    "plh-my": (98, 49, 5, 0),
    "plh-teens-tz": (79, 17, 4, 0),
}


def put(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def all_of(path: Path, **more: Any) -> list[Outcome]:
    return list(importing.read(path, **more))


def one(path: Path, **more: Any) -> Read:
    [read] = all_of(path, **more)
    assert isinstance(read, Read), read
    return read


def refused(folder: Path, content: str | bytes, name: str = "a.md") -> Refused:
    """The one refusal of a file with this content, which carries its reason in both languages."""
    [refusal] = all_of(put(folder, {name: content}))
    assert isinstance(refusal, Refused) and refusal.source == name
    assert set(refusal.reason) == {"zh-Hans", "en"} and all(refusal.reason.values())
    return refusal


# --- the real files --------------------------------------------------------------------------------------------------


@real
def test_every_real_file_has_an_outcome_and_a_second_reading_is_the_same() -> None:
    outcomes = all_of(REAL)
    assert {o.source for o in outcomes} == {p.relative_to(REAL).as_posix() for p in REAL.rglob("*") if p.is_file()}
    assert not (COUNTS.keys() ^ {o.source.rpartition("/")[0] for o in outcomes})
    for folder, (reads, files, skipped, refusals) in COUNTS.items():
        here = [o for o in outcomes if o.source.rpartition("/")[0] == folder]
        read = [o for o in here if isinstance(o, Read)]
        assert (len(read), len({o.source for o in read})) == (reads, files), folder
        assert sum(isinstance(o, Skipped) for o in here) == skipped, folder
        assert sum(isinstance(o, Refused) for o in here) == refusals, folder
    reads_all = [o for o in outcomes if isinstance(o, Read)]
    spoken = Counter(o.language for o in reads_all)
    assert spoken == {"zh-Hans": 122, "en": 138, "yue": 62, "ko": 42, "bo": 40, "sw": 39}
    assert len({o.slug for o in reads_all}) == 261 and len({(o.slug, o.language) for o in reads_all}) == len(reads_all)
    assert all_of(REAL) == outcomes


@real
def test_what_is_read_can_be_stored_and_facts_do_not_hang_on_the_language() -> None:
    facts: dict[str, dict[str, Any]] = {}
    for read in all_of(REAL):
        if isinstance(read, Read):
            lessons.checked({name: value for name, value in read.meta.items() if value})
            stored = lessons.text_values(read.text)
            assert stored["title"] and stored["body"] and checking.slug(read.slug)
            assert {k: v for k, v in stored.items() if k != "minutes"} == {k: v for k, v in read.text.items() if k != "minutes"}
            shared = {k: v for k, v in read.meta.items() if k not in {"made_from", "licence"}}
            assert facts.setdefault(read.slug, shared) == shared
            assert read.meta["licence"], read.source


@real
@pytest.mark.usefixtures("clean")
def test_laid_into_the_working_copies_twice_the_second_time_changes_nothing() -> None:
    every = [o for o in all_of(REAL) if isinstance(o, Read)]
    some = set(sorted({read.slug for read in every})[::5])  # a fifth of them, with all their languages
    reads = [read for read in every if read.slug in some]
    for expected in ({"new"}, {"unchanged"}):
        outcomes = {lessons.import_draft(r.slug, r.language, r.meta, r.text, "importer", assumed=r.assumed) for r in reads}
        assert outcomes == expected


@real
def test_reading_a_part_gives_the_same_slugs_as_reading_all() -> None:
    whole = {(o.source.rpartition("/")[2], o.slug, o.language) for o in all_of(REAL) if isinstance(o, Read)}
    for part in (
        REAL / "plh-my",
        REAL / "global-asp" / "bo",
        REAL / "peace-lab-zh" / "037-正念行走.md",
        REAL / "plh-my" / "relax.json",
    ):
        some = {(o.source.rpartition("/")[2], o.slug, o.language) for o in all_of(part) if isinstance(o, Read)}
        assert some and some <= whole


@real
def test_golden_a_story_in_cantonese() -> None:
    [path] = (REAL / "global-asp" / "yue").glob("0086_*")
    read = one(path)
    assert (read.slug, read.language, read.line) == ("asp-0086", "yue", 1)
    assert read.text == {
        "title": "我喺學校做啲乜嘢",
        "summary": "適合於小學初級學生。",
        "body": "我同朋友一齊睇書。\n\n我學識寫數字。\n\n我學識寫字母。\n\n我同朋友一齊玩。\n\n我喺學校唱歌。\n\n"
        "我亦都可以跳舞。\n\n仲有我同老師同埋朋友一齊去學校嘅花園。\n\n响瞓晏覺之前老師俾我哋唱首催眠曲。\n\n"
        "你喺學校做啲乜嘢呢？\n\n*Translation: dohliam*",
        "try_this": "",
        "minutes": None,
    }
    assert (read.meta["audiences"], read.meta["stages"], read.meta["kind"]) == (["student"], ["preschool", "primary"], "story")
    assert read.meta["licence"] == "CC-BY" and read.meta["sources"][0] == {"title": "Text: Ivan Higenyi"}
    assert {"audiences", "stages", "kind"} <= set(read.assumed)


@real
def test_golden_front_matter_closed_by_too_many_dashes() -> None:
    read = one(REAL / "peace-lab-zh" / "001-临床-临床病症-抑郁-危机安全性.md")
    assert (read.slug, read.language, read.text["title"]) == ("peace-lab-zh-001-a7c618", "zh-Hans", "Crisis Safety")
    assert read.text["summary"] == "Crisis Safety —— Clinical Conditions · 抑郁症 专题" and read.text["minutes"] == 5
    assert read.text["body"].startswith("> ⚠️ **临床免责声明**:本文档仅供学习与研究")
    assert (read.meta["audiences"], read.meta["kind"], read.meta["help"]) == (["staff"], "ebook", True)
    assert read.meta["licence"] == "CC BY-NC-SA 4.0 (repo LICENSE)"
    said = " ".join(read.warnings)
    for part in ("“------”", "intent_queries", "求助卡", "audiences=staff", "规范/CRISIS_RESOURCES.md"):
        assert part in said


@real
def test_golden_articles_in_english_and_swahili() -> None:
    english, swahili = all_of(REAL / "plh-teens-tz" / "srh_t_articles.json")
    assert isinstance(english, Read) and isinstance(swahili, Read)
    assert english.slug == swahili.slug == "plh-teens-tz-srh-t" and (english.language, swahili.language) == ("en", "sw")
    assert (english.meta["made_from"], swahili.meta["made_from"]) == (None, "en")
    assert english.text["title"] == "Body Changes and Intimate Relationships"
    assert swahili.text["title"] == "Mabadiliko ya Mwili na Mahusiano ya Kimapenzi"
    body = english.text["body"]
    # a choice is followed by the row that answers it, which then does not come a second time
    answer = "Your teen might feel uncomfortable or scared to start that conversation with you."
    assert f"- The teen\n\n  This is not quite right. \n\n  {answer}" in body and body.count(answer) == 1
    assert any("@data.characters.f1_mother.name ×" in warning for warning in english.warnings)
    strings = [
        value["eng"]
        for row in json.loads((REAL / "plh-teens-tz" / "srh_t_articles.json").read_text(encoding="utf-8"))["rows"]
        for name, value in row["_translatedFields"].items()
        if not name.endswith("_id")
    ]
    flat = "".join(body.replace("> ", "").split())
    assert len(strings) > 100 and all("".join(languages.clean(s).replace("> ", "").split()) in flat for s in strings)


@real
def test_a_language_that_is_not_wholly_translated_is_left_out_aloud() -> None:
    reads = [o for o in all_of(REAL / "plh-teens-tz" / "relax.json") if isinstance(o, Read)]
    assert Counter(r.language for r in reads) == {"en": 24, "sw": 23}
    [alone] = {r.slug for r in reads} - {r.slug for r in reads if r.language == "sw"}
    [english] = [r for r in reads if r.slug == alone]
    assert alone == "plh-teens-tz-relax-2" and any("no sw text: 1 strings" in w for w in english.warnings)
    my = [o for o in all_of(REAL / "plh-my" / "relax.json") if isinstance(o, Read)]
    assert len(my) == 24 and all("transcript_2" in " ".join(r.warnings) for r in my)


def test_our_own_library_is_read_whole() -> None:
    outcomes = all_of(LIBRARY)
    assert len(outcomes) == len(list(LIBRARY.glob("*.md"))) > 10
    for read in outcomes:
        assert isinstance(read, Read), read
        assert read.assumed == ("media",) and read.source in {f"{read.slug}.md", f"{read.slug}.{read.language}.md"}
        assert not [w for w in read.warnings if "help" not in w], read.warnings


# --- our own form ----------------------------------------------------------------------------------------------------


def test_all_that_the_front_matter_can_say(tmp_path: Path) -> None:
    text = """---
slug: exam-week-sleep
language: zh-CN
audiences: [parent, student]
stages: [junior, senior.final]
topics: emotion
kind: tip
seasons: [gaokao]
divisions: [150603, "420100"]
title: No
summary: 短
try_this: 今晚早睡
minutes: 3
sources: [书名, {title: 网页, url: "https://example.org/a"}]
help: true
reviewed_by: null
review_due: 2027-09-01
licence: CC BY 4.0
---
正文
"""
    read = one(put(tmp_path, {"x.md": text}))
    assert (read.slug, read.language, read.warnings) == ("exam-week-sleep", "zh-Hans", ())
    assert read.text == {"title": "No", "summary": "短", "body": "正文", "try_this": "今晚早睡", "minutes": 3}
    assert read.meta == {
        "audiences": ["parent", "student"],
        "stages": ["junior", "senior.final"],
        "topics": ["emotion"],
        "kind": "tip",
        "seasons": ["gaokao"],
        "divisions": ["150603", "420100"],
        "media": [],
        "sources": [{"title": "书名"}, {"title": "网页", "url": "https://example.org/a"}],
        "help": True,
        "reviewed_by": None,
        "review_due": "2027-09-01",
        "made_from": None,
        "licence": "CC BY 4.0",
    }


def test_a_translation_takes_its_facts_from_the_lesson(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "sleep.mvf.md": "---\nmade_from: zh\ntitle: ᠨᠣᠢᠷ\n---\nᠪᠢ\u202fᠶᠢᠨ\u180e\n",
        "sleep.md": HEAD.replace("a-lesson", "sleep") + "---\n正文\n",
    }
    [original, translation] = all_of(put(tmp_path, files))
    assert isinstance(original, Read) and isinstance(translation, Read)
    assert (translation.slug, translation.language, translation.meta["made_from"]) == ("sleep", "mn-Mong", "zh-Hans")
    assert translation.meta["audiences"] == ["parent"] == original.meta["audiences"] and translation.meta["kind"] == "tip"
    assert translation.assumed == original.assumed and "audiences" not in original.assumed
    # alone it says what it assumed, so that an import leaves the lesson's facts as they are
    alone = one(tmp_path / "sleep.mvf.md")
    assert alone.meta["audiences"] == ["staff"] and "audiences" in alone.assumed and "audiences=staff" in " ".join(alone.warnings)


@pytest.mark.parametrize("text", ["ᠮᠣᠩᠭᠣᠯ\u202fᠤᠨ\u180e", "\u202fᠤᠨ", "ᠤᠨ\u202f", "ᠴ᠋ᠢ᠌"])
def test_narrow_spaces_of_mongolian_are_kept(tmp_path: Path, text: str) -> None:
    head = f"---\nslug: m\nlanguage: mn-Mong\naudiences: [parent]\nkind: tip\ntitle: {text}\nsummary: {text}\n---\n"
    read = one(put(tmp_path, {"m.md": head + text + "\r\n\r\n" + text + "\n"}))
    assert read.text["title"] == read.text["summary"] == text and read.text["body"] == f"{text}\n\n{text}"


def test_line_ends_byte_order_marks_and_composition_do_not_matter(tmp_path: Path) -> None:
    plain = HEAD + "summary: café\n---\n第一行\n\n第二行\n"
    same = [plain, "\ufeff" + plain, plain.replace("\n", "\r\n"), plain.replace("é", "e\u0301"), "\n" + plain]
    reads = [one(put(tmp_path, {"a.md": text})) for text in same]
    assert all(read == reads[0] for read in reads)


def test_what_is_wrong_is_said_all_at_once_with_the_line(tmp_path: Path) -> None:
    text = """---
slug: Not A Slug
language: klingonish
audiences: [parent, teachr]
stages: [junior.3]
kind: tipp
divisions: ["999999"]
minutes: 900
help: maybe
review_due: 2027-13-01
sources: [{title: x, url: "javascript:alert(1)"}]
title:
---
"""
    outcomes = all_of(put(tmp_path, {"bad.md": text}))
    assert all(isinstance(o, Refused) and o.source == "bad.md" for o in outcomes)
    wrong = {o.field: o.line for o in outcomes if isinstance(o, Refused)}
    assert wrong == {
        "slug": 2, "language": 3, "audiences": 4, "stages": 5, "kind": 6, "divisions": 7, "minutes": 8, "help": 9,
        "review_due": 10, "sources": 11, "title": 1, "body": 14,
    }  # fmt: skip


@pytest.mark.parametrize("field", ["title", "summary", "try_this"])
def test_our_own_lengths_are_refused_not_cut(tmp_path: Path, field: str) -> None:
    limit = lessons.LIMITS[field]
    head = HEAD.replace("title: 题目\n", "") if field == "title" else HEAD
    assert refused(tmp_path, f"{head}{field}: {'长' * (limit + 1)}\n---\n正文").field == field
    assert one(put(tmp_path, {"a.md": f"{head}{field}: {'长' * limit}\n---\n正文"})).text[field] == "长" * limit


def test_a_lesson_that_speaks_of_self_harm_gets_the_help_card(tmp_path: Path) -> None:
    assert one(put(tmp_path, {"a.md": HEAD + "---\n如果有人说起自杀\n"})).meta["help"] is True
    off = one(put(tmp_path, {"a.md": HEAD + "help: false\n---\n如果有人说起自杀\n"}))
    assert off.meta["help"] is False and "help" in off.warnings[-1]


def test_export_reads_back(tmp_path: Path) -> None:
    text = HEAD + "sources: [{title: 书}]\nmedia: [abc]\nhelp: true\nreview_due: 2027-09-01\n---\n正文\n\n---\n\n- 一\u202f\n"
    read = one(put(tmp_path, {"a.md": text}))
    facts = {name: value for name, value in read.meta.items() if name in lessons.META and value is not None}
    texts = {
        read.language: lessons.LessonText(**read.text | {"minutes": 2}),
        "en": lessons.LessonText(title="'t: #", body="b", minutes=1),
    }
    lesson = lessons.Lesson(slug=read.slug, texts=texts, **facts)
    out = put(tmp_path / "out", dict(importing.write(lesson)))
    english, chinese = all_of(out)
    assert isinstance(chinese, Read) and isinstance(english, Read)
    assert (english.slug, english.language, english.text["title"], english.source) == (
        "a-lesson",
        "en",
        "'t: #",
        "a-lesson.en.md",
    )
    assert chinese.text == read.text | {"minutes": 2} and chinese.meta == read.meta


# --- other people's --------------------------------------------------------------------------------------------------


def test_foreign_front_matter_is_bent_and_says_so(tmp_path: Path) -> None:
    long = "第一句说明。" * 60
    text = f"---\ntitle: 题\ndescription: {long}\ntags: [a]\nestimated_read_time: 很久\n-----\n# 题\n\n正文 @global.app_name\n"
    read = one(put(tmp_path / "pack-zh", {"012-说明 Two.md": text}) / "012-说明 Two.md")
    assert (
        read.slug.startswith("pack-zh-012-two-") and read.language == "zh-Hans" and read.text["body"] == "正文 @global.app_name"
    )
    assert len(read.text["summary"]) <= 300 and read.text["summary"].endswith("。") and long.startswith(read.text["summary"])
    said = " ".join(read.warnings)
    for part in ("“-----”", "tags", "360", "很久", "@global.app_name ×1", "audiences=staff", "licence"):
        assert part in said, part


def test_defaults_stand_where_a_file_says_nothing(tmp_path: Path) -> None:
    put(tmp_path, {"a.md": "# 题\n正文\n", "b.md": HEAD + "---\n正文\n"})
    given = {"audiences": ["teacher"], "kind": "case", "language": "zh-CN", "licence": "CC0", "topics": ["self"]}
    a, b = all_of(tmp_path, defaults=given)
    assert isinstance(a, Read) and isinstance(b, Read)
    assert (a.meta["audiences"], a.meta["kind"], a.language, a.meta["licence"]) == (["teacher"], "case", "zh-Hans", "CC0")
    assert (b.meta["audiences"], b.meta["kind"], b.meta["topics"]) == (["parent"], "tip", ["self"])
    for wrong in ({"kind": "cases"}, {"colour": "red"}, {"language": "nowhere-at-all"}, {"audiences": ["all"]}):
        with pytest.raises(Invalid):
            importing.read(tmp_path, defaults=wrong)
    with pytest.raises(NotFound):
        importing.read(tmp_path / "gone")


def test_language_and_credits_of_a_story(tmp_path: Path) -> None:
    story = "# 題\n\n##\n一\n\n##\n* License: [CC-BY-NC]\n* Text: A\n* Translation: {by}\n* Language: {tag}\n"
    files = {f"{tag}/0007_{tag}.md": story.format(tag=tag, by=f"T {tag}") for tag in ("zh", "yue")}
    yue, zh = all_of(put(tmp_path, dict(files)))
    assert isinstance(yue, Read) and isinstance(zh, Read) and yue.slug == zh.slug == "asp-0007"
    assert zh.text["body"] == "一\n\n*Translation: T zh*" and zh.meta["sources"] == yue.meta["sources"] == [{"title": "Text: A"}]
    assert refused(tmp_path / "x", "# 題\n\n##\n* License: [CC-BY]\n* Language: zh\n").field == "body"


def data_list(rows: list[Any], **more: Any) -> str:
    return json.dumps(
        {"flow_type": "data_list", "flow_name": "tips", "status": "released", "rows": rows} | more, ensure_ascii=False
    )


def test_data_lists_of_the_same_kind(tmp_path: Path) -> None:
    row = {"id": "one", "title": "T", "text": "Body.\nMore.", "_translatedFields": {"title": {"eng": "T", "tz_sw": "K"}}}
    files: dict[str, str | bytes] = {
        "app/tips.json": data_list([row, {"id": "bare", "title": "U"}]),
        "app/strings.tz_sw.json": json.dumps({"Body.\nMore.": "Mwili."}),
        "app/strings.nowhere.json": "{}",
        "app/draft_articles.json": data_list([{"id": "a", "text_1": "Hi"}], flow_name="draft_articles", status="draft"),
        "app/package.json": "{}",
        "app/list.json": "[1]",
    }
    outcomes = all_of(put(tmp_path, files))
    reads = {(o.slug, o.language): o for o in outcomes if isinstance(o, Read)}
    assert set(reads) == {("app-tips-one", "en"), ("app-tips-one", "sw"), ("app-draft", "en")}
    assert reads["app-tips-one", "sw"].text["title"] == "K" and reads["app-tips-one", "sw"].text["body"] == "Mwili."
    assert reads["app-tips-one", "en"].text["body"] == "Body.  \nMore."
    said = " ".join(reads["app-draft", "en"].warnings)
    assert "“draft”" in said and "modules.json" in said and "strings.nowhere.json" in said and "no sw text" in said
    assert sorted(o.source for o in outcomes if isinstance(o, Skipped)) == [
        "app/list.json", "app/package.json", "app/strings.nowhere.json", "app/strings.tz_sw.json", "app/tips.json",
    ]  # fmt: skip


# --- hostile and broken ----------------------------------------------------------------------------------------------

BOMB = "".join(f"{'abcdefghi'[i + 1]}: &{'abcdefghi'[i + 1]} [{', '.join(['*' + 'abcdefghi'[i]] * 9)}]\n" for i in range(8))
HOSTILE: dict[str, tuple[str | bytes, int, str, str]] = {
    # content, line, field, a word of the English reason
    "bad UTF-8": (HEAD.encode() + b"summary: \xff\xfe\n---\n", 7, "file", "Byte"),
    "GBK": ("---\ntitle: 中文\n---\n".encode("gbk"), 2, "file", "UTF-8"),
    "UTF-16": ("---\ntitle: a\n".encode("utf-16"), 1, "file", "UTF-8"),
    "encoded surrogate": (b"---\ntitle: \xed\xa0\x80\n---\nx", 2, "file", "UTF-8"),
    "NUL": (HEAD + "---\n正文\n\x00", 9, "file", "U+0000"),
    "escaped NUL": (HEAD + 'summary: "\\0"\n---\nx', 7, "front_matter", "U+0000"),
    "escaped surrogate": (HEAD + 'summary: "\\ud800"\n---\nx', 7, "front_matter", "U+D800"),
    "too large": (HEAD + "---\n" + "长" * 400_000, 1, "file", "larger"),
    "never closed": (HEAD + "正文\n", 1, "front_matter", "never closed"),
    "not closed but ruled": (HEAD + "\n正文一段\n\n---\n\n后文\n", 8, "front_matter", "YAML"),
    "a list": ("---\n- a\n- b\n---\n正文", 2, "front_matter", "name"),
    "a word": ("---\nhello\n---\n正文", 2, "front_matter", "name"),
    "no YAML": (HEAD + "summary: [a\n---\n正文", 7, "front_matter", "YAML"),
    "a tab": (HEAD + "x:\n\t- a\n---\n正文", 8, "front_matter", "YAML"),
    "control character": (HEAD + "summary: a\x07b\n---\n正文", 7, "front_matter", "YAML"),
    "twice": (HEAD + "title: again\n---\n正文", 7, "title", "twice"),
    "billion laughs": ("---\na: &a [x,x,x,x,x,x,x,x,x]\n" + BOMB + "---\n正文", 2, "front_matter", "too large"),
    "long laughs": (f"---\na: &a {'x' * 60_000}\nb: [{'*a, ' * 50}]\n---\n正文", 2, "front_matter", "too large"),
    "serpent": ("---\na: &a [*a]\n---\n正文", 2, "front_matter", "too large"),
    "deep": ("---\na: " + "[" * 20_000 + "\n---\n正文", 1, "front_matter", "deep"),
    "huge front": ("---\na: " + "x" * 70_000 + "\n---\n正文", 1, "front_matter", "too large"),
    "a key that is a list": ("---\n? [a]\n: b\n---\n正文", 2, "front_matter", "name"),
    "code": (HEAD.replace("题目", '!!python/object/apply:os.system ["true"]') + "---\n正文", 6, "title", "type"),
    "two documents": (HEAD + "%YAML 1.1\n---\n正文", 8, "front_matter", "YAML"),
    "nothing": ("", 1, "language", "language"),
    "translation of itself": (HEAD + "made_from: zh\n---\n正文", 7, "made_from", "same"),
    "digits": (HEAD + "minutes: " + "9" * 60_000 + "\n---\n正文", 7, "minutes", "range"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markdown_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    content, line, field, word = HOSTILE[name]
    refusal = refused(tmp_path, content)
    assert (refusal.field, word in refusal.reason["en"]) == (field, True), refusal
    assert name == "billion laughs" or refusal.line == line, refusal


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        ('{"rows": [}', 1, "JSON"),
        ('{\n"a": 1,\n', 3, "JSON"),
        ("[" * 100_000, 1, "deep"),
        ('{"a": ' + "9" * 60_000 + "}", 1, "long"),
        ('{"a": 1,\n"a": 2}', 1, "twice"),
        ('{"flow_type": "data_list",\n"x": "\\u0000"}', 2, "U+0000"),
        ('{"flow_type": "data_list",\n"x": "\\uD800"}', 2, "U+D800"),
        ('{"flow_type": "data_list", "rows": {"a": 1}}', 1, "list"),
        ('{"flow_type": "data_list", "rows": [1]}', 1, "list"),
        (b'{"a": "\xff"}', 1, "UTF-8"),
    ],
)
def test_hostile_json_is_refused(tmp_path: Path, content: str | bytes, line: int, word: str) -> None:
    refusal = refused(tmp_path, content, "a.json")
    assert refusal.line == line and word in refusal.reason["en"]


def test_the_second_of_two_is_refused_and_names_the_first(tmp_path: Path) -> None:
    first, second = all_of(put(tmp_path, {"a.md": HEAD + "---\n一", "b/c.md": HEAD + "---\n二"}))
    assert isinstance(first, Read) and first.text["body"] == "一"
    assert isinstance(second, Refused) and second.source == "b/c.md" and "a.md:1" in second.reason["en"]


def test_a_file_with_one_wrong_row_is_refused_whole(tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "A", "text": "x"}, {"id": "b", "title": "B" * 121, "text": "x"}]
    [refusal] = all_of(put(tmp_path, {"tips.json": data_list(rows)}))
    assert isinstance(refusal, Refused) and refusal.field == "title"
    twice = [{"id": "a", "title": "A", "text": "x"}, {"id": "a", "title": "B", "text": "y"}]
    [refusal] = all_of(put(tmp_path, {"tips.json": data_list(twice)}))
    assert isinstance(refusal, Refused) and refusal.field == "slug"


def test_what_is_no_lesson_is_skipped_aloud(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = dict.fromkeys(("a.png", "b.tsv", ".git/config", "README.md", "LICENSE"), b"\x00\xff")
    put(tmp_path, files)
    (tmp_path / "link.md").symlink_to(tmp_path / "README.md")
    os.mkfifo(tmp_path / "pipe.md")
    outcomes = all_of(tmp_path)
    assert [o.source for o in outcomes] == [".git", "LICENSE", "README.md", "a.png", "b.tsv", "link.md", "pipe.md"]
    assert all(isinstance(o, Skipped) and set(o.why) == {"zh-Hans", "en"} for o in outcomes)


def test_names_that_are_not_text_do_not_stop_an_import(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff\xfe.zh.md", "wb") as file:  # noqa: PTH123  (a name that no Path literal can hold)
        file.write("# 题\n正文".encode())
    read = one(tmp_path, defaults={"language": "zh"})
    assert read.source.encode() and checking.slug(read.slug)


def test_a_heading_in_code_is_not_the_title(tmp_path: Path) -> None:
    read = one(put(tmp_path, {"zh/a.md": "```\n# not me\n```\n\n# 题目\n\n正文\n"}))
    assert read.text["title"] == "题目" and read.text["body"] == "```\n# not me\n```\n\n\n正文"


def test_the_readmes_lesson_file_is_one_and_names_every_key(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "MANUAL.md").read_text(encoding="utf-8")
    front = readme.split("```yaml\n")[1].split("```")[0].replace("made_from: zh-Hans ", "made_from: en ")
    (tmp_path / "evening-walk.zh-Hans.md").write_text(f"---\n{front}---\n一起走走，听孩子说。\n", encoding="utf-8")
    [one] = importing.read(tmp_path)
    assert isinstance(one, Read), one
    assert one.warnings == ()
    assert one.text["check_in"]["partly"] == "走到楼下也算。"
    keys = {line.split(":")[0] for line in front.split("\n") if line[:1].isalpha()}
    assert keys == manuscripts.KEYS - {"minutes", "media", "licence"}  # computed, seldom stated, of foreign texts

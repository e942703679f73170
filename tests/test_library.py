"""The starter library holds together: codes are known, references lead somewhere, scores fall into one band, words are kind."""

import functools
import json
import re
import unicodedata
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import bootstrap
from content import checks, directory, divisions, fhir, helpcard, importing, languages, lessons, rules, scoring
from content.published import ANY
from content.vocabulary import AUDIENCES, FORMATS, KINDS, PLACES, SEASONS, STAGES, TOPICS, Stage
from tests.site import Site

LIBRARY = Path(__file__).parents[1] / "content" / "library"
LESSONS = sorted((LIBRARY / "lessons").glob("*.md"))
CHECKS = sorted((LIBRARY / "checks").glob("*.json"))
LABELS = ("确诊", "患者", "精神病", "神经病", "问题学生", "问题孩子", "重度", "中度", "轻度", "不正常", "脆弱", "矫情",
          "专制型", "忽视型", "抑郁症", "焦虑症", "多动症", "自闭症")  # fmt: skip
PROMISES = ("保证", "治愈", "根治", "包好", "立竿见影")
RISK = re.compile("自杀|自伤|不想活|伤害自己|伤到自己|真想消失|活着没意思|没有意义")  # help stands beside every one
METHODS = ("自杀方法", "上吊", "跳楼", "割腕", "安眠药", "农药", "烧炭")
FACTS = ("audiences", "stages", "topics", "kind", "seasons", "divisions", "sources", "help", "reviewed_by", "review_due")


@functools.cache
def front(path: Path) -> tuple[dict[str, Any], str]:
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def load(name: str) -> Any:
    return yaml.safe_load((LIBRARY / name).read_text(encoding="utf-8"))


def slugs() -> set[str]:
    return {path.name.split(".")[0] for path in LESSONS}


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.name)
def test_a_lesson_says_for_whom_from_where_and_ends_in_something_to_try(path: Path) -> None:
    head, body = front(path)
    assert path.name in {f"{head['slug']}.md", f"{head['slug']}.{head['language']}.md"}
    assert head["audiences"] and set(head["audiences"]) <= set(AUDIENCES)
    assert head["topics"] and set(head["topics"]) <= set(TOPICS)
    assert set(head["seasons"]) <= set(SEASONS) and head["kind"] in KINDS
    assert [str(Stage.parse(text)) for text in head["stages"]] == head["stages"] != []
    assert all(source["title"] for source in head["sources"]) and head["sources"]
    assert 0 < len(head["title"]) <= 120 and 0 < len(head["summary"]) <= 300 and 0 < len(head["try_this"]) <= 300
    assert head["reviewed_by"] is None and head["review_due"] == date(2027, 9, 1)
    assert set(head["check_in"]) == {"question", "did", "partly", "not_yet"}
    assert all(0 < len(said) <= 200 for said in head["check_in"].values())
    if languages.parts(head["language"])[0] == "zh-Hans":
        assert 400 <= len(re.findall(r"[\u3400-\u9fff]", body)) <= 900
    # facts belong to the lesson, not to its edition: a translation or voice that named others would undo them at every import
    [original] = [h for h, _ in map(front, LESSONS) if h["slug"] == head["slug"] and "made_from" not in h]
    assert head.get("made_from") == (None if head is original else original["language"])
    assert {k: head[k] for k in FACTS} == {k: original[k] for k in FACTS}
    assert ("12356" in body) or not head["help"]
    assert head["help"] or not RISK.search(path.read_text(encoding="utf-8"))


def test_lessons_cover_both_audiences_the_ages_and_every_season() -> None:
    heads = [front(path)[0] for path in LESSONS]
    assert {"parent", "student"} <= {a for h in heads for a in h["audiences"]}
    assert {s for h in heads for s in h["seasons"]} == set(SEASONS)
    assert {Stage.parse(s).stage for h in heads for s in h["stages"]} == set(STAGES)
    assert {t for h in heads for t in h["topics"]} == set(TOPICS)
    for season in ("finals", "zhongkao", "gaokao", "results"):  # who sits the exam, and who waits at home
        assert {"parent", "student"} <= {a for h in heads if season in h["seasons"] for a in h["audiences"]}, season
    assert {h["slug"] for h in heads if h["help"]} >= {"worried-about-my-child-tonight", "how-to-ask-for-help"}
    count = Counter(h["language"] for h in heads)
    assert count["zh-Hans"] >= 40 and count["en"] >= 6 and count["mn-Mong"] >= 3
    assert {h["language"] for h in heads if h.get("needs_translator")} == {"mn-Mong", "mn-Cyrl"}
    for path in LESSONS:
        text = path.read_text(encoding="utf-8")
        assert (front(path)[0]["language"] == "mn-Mong") is ("\u202f" in text) and unicodedata.is_normalized("NFC", text)


def test_no_labels_no_promises_no_methods() -> None:
    for path in LIBRARY.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert [word for word in LABELS + PROMISES + METHODS if word in text] == [], path.name


ASKING = "ask comfort_first ask_time thank sit why_you when try_me"
GUIDANCE = {  # answers in the order of the page -> their sum by hand, and where to begin
    "wait own_affair let_play pass alone up_to_you do_it walk_off": (0, "begin_warm_rules"),
    "wait own_affair let_play pass sit weigh together later": (0 + 0 + 0 + 0 + 1 + 2 + 2 + 2, "begin_warm_rules"),
    "ask own_affair let_play pass sit weigh together later": (1 + 0 + 0 + 0 + 1 + 2 + 2 + 2, "begin_together"),
    ASKING: (8, "begin_together"),
    "must_go more_work take telling_off alone up_to_you do_it walk_off": (4 * 3, "begin_together"),
    "plan go_through remind own_up ideas weigh together later": (8 * 2, "begin_together"),
    "plan go_through remind own_up ideas weigh now later": (7 * 2 + 3, "begin_listening"),
    "must_go more_work take telling_off tell_how decide now manners": (8 * 3, "begin_listening"),
}


def test_parent_guidance_only_chooses_where_to_begin() -> None:
    register = load("checks/parent-guidance.yaml")
    definition, warnings = fhir.read_questionnaire(
        (LIBRARY / "checks/parent-guidance.json").read_bytes(), [], slug="parent-guidance", language="zh-Hans"
    )
    definition = rules.laid(definition, {name: register[name] for name in rules.NAMES if name in register})
    _, *everyday, yourself = definition.index
    assert warnings == () and yourself == "yourself"
    for chosen, (total, code) in GUIDANCE.items():
        answers = dict(zip(everyday, chosen.split(" "), strict=True))
        result = scoring.score(definition, answers)
        assert (result.total, result.readings[0].maximum, result.critical) == (total, 24, False)
        assert result.band is not None and result.band.code == code
        for own, critical in (("no", False), ("tired", False), ("worried", True), ("now", True)):
            said = scoring.score(definition, {**answers, yourself: own})
            assert (said.total, said.band, said.critical) == (total, None if critical else result.band, critical)
    # no band may sound better than another: each has as many steps, and each says whom to ask
    assert definition.total is not None
    for band in definition.total.bands:
        for language in ("zh-Hans", "en"):
            assert len(band.next_steps[language]) == 4 and "12356" in band.next_steps[language][-1]


def test_the_season_calendar_names_every_season_and_leads_to_what_exists() -> None:
    calendar = load("seasons.yaml")
    assert calendar["known_until"] == date(2027, 12, 31) and calendar["sources"]
    assert sorted(s["code"] for s in calendar["seasons"]) == sorted(SEASONS)
    for season in calendar["seasons"]:
        assert set(season["audiences"]) <= set(AUDIENCES) and all(Stage.parse(s) for s in season["stages"])
        assert season["lead_days"] == sorted(season["lead_days"]) and set(season.get("help", ())) <= set(helpcard.KINDS)
        assert season["lessons"] and set(season["lessons"]) <= slugs()
        assert set(season["checks"]) <= {path.stem for path in CHECKS}
        for texts in (season["title"], season["text"]):
            assert set(texts) == {"zh-Hans", "en"} and all(texts.values())


def test_the_directory_is_accepted_whole_and_assumes_no_hours() -> None:
    entries = json.loads((LIBRARY / "directory.json").read_text(encoding="utf-8"))
    numbers = {}
    for entry in entries:
        key, fields = directory.checked(entry)
        numbers[fields["phones"][0]["number"]] = fields
        assert fields["sources"] and fields["assured_date"] and set(fields["name"]) == {"zh-Hans", "en"}
    assert set(numbers) == {"12356", "12355", "12320", "12345", "12338", "110", "120"}
    assert min(numbers.values(), key=lambda f: f["order"]) is numbers["12356"]
    assert {n for n, f in numbers.items() if f["kind"] == "information"} == {"12320", "12345"}  # plans of places differ
    # were 12345 marked open while 12356's hours are unknown, a child's help card would put the town hall first
    assert {n for n, f in numbers.items() if f["schedules"]} == {"110", "120"}
    assert all("以当地公布为准" in f["description"]["zh-Hans"] for f in numbers.values() if not f["schedules"])


def test_the_course_series_is_marked_as_a_sample() -> None:
    [series] = load("courses.yaml")["series"]
    assert divisions.check(series["division"], "division") and "示例" in series["title"]["zh-Hans"]
    assert series["format"] in FORMATS and set(series["topics"]) <= set(TOPICS) and set(series["audiences"]) <= set(AUDIENCES)
    assert len(series["sessions"]) == 4 and all(Stage.parse(s) for s in series["stages"])
    for session in series["sessions"]:
        assert re.fullmatch(r"[0-2]\d:[0-5]\d", session["at"]) and session["place"] in PLACES
        assert session["capacity"] == 30 and session["minutes"] == 90 and session["in_days"] >= 9
        assert session["booking_closes_hours_before"] == 12
        assert "示例" in str(session["venue"]) and "示例" in str(session["lecturer"])


def test_loaded_into_an_empty_store(site: Site) -> None:
    said: list[str] = []
    bootstrap.load_library(site.settings, said.append)
    assert len(said) == 2, said  # what did not load is said by a line of its own
    site.refresh()
    snapshot = site.reader.current

    drafts = 0
    for path in LESSONS:
        head, body = front(path)
        slug, language = head["slug"], head["language"]
        copy = lessons.by_slug(slug)
        assert (language in snapshot.get("lesson", slug)) is (not head.get("needs_translator")), path.name
        if head.get("needs_translator"):
            drafts += 1
            assert (copy.stands[language].state, copy.missing(language)) == ("draft", [f"{language}.needs_translator"])
            text = copy.texts[language]
            assert (text.title, text.body) == (head["title"], languages.clean(body))
            assert text.check_in.question == head["check_in"]["question"]
            again = dict(importing.write(copy))[path.name]
            assert again.count("\u202f") == path.read_text(encoding="utf-8").count("\u202f")
            assert "needs_translator: true\n" in again and again.endswith(f"---\n{languages.clean(body)}\n")
    assert drafts >= 3

    # no approver is made up: the signs wait for the place's own, all other checks are there
    waiting = {path.stem for path in CHECKS} - set(snapshot.entries("check"))
    assert waiting == {"warning-signs-0-6"}
    signs = checks.by_slug("warning-signs-0-6")
    assert (signs.stands[ANY].state, signs.missing(ANY)) == ("draft", ["approver", "approval_number"])
    shown = site.get("/v1/checks?audience=parent&stage=infant").json()["items"]
    assert [row["slug"] for row in shown] == ["parental-burnout"]

    files = {path.stem: load(f"paths/{path.name}") for path in (LIBRARY / "paths").glob("*.yaml")}
    assert set(snapshot.entries("path")) == set(files) >= {"first-1000-days", "exam-season-parents", "listen-first"}
    for slug, file in files.items():
        for language, text in file["texts"].items():
            shown = site.get(f"/v1/paths/{slug}?audience=parent", headers={"Accept-Language": language}).json()
            assert (shown["title"], shown["language"], shown["fallback"]) == (text["title"], language, None)
            assert [(step["slug"], step["at"]) for step in shown["steps"]] == [(s["lesson"], s["at"]) for s in file["steps"]]
            for step in shown["steps"]:
                assert step["available"] and step["try_this"] and step["check_in"]["not_yet"], (slug, step["slug"])
                assert step["lesson"]["language"] == language, (slug, step["slug"])
    begins = {b: slug for slug, file in files.items() for b in file.get("begins_with", {}).get("bands", [])}
    assert set(begins) == {band["code"] for band in load("checks/parent-guidance.yaml")["bands"]}  # none is left without a way

    # a translator takes the mark off, and only then it goes to review
    editor, at = site.person("editor", "editor"), "/v1/staff/lessons/name-the-feeling"
    tag = site.get(at, by=editor).headers["ETag"]
    early = site.post(f"{at}/submit", {"language": "mn-Mong"}, by=editor, match=tag)
    assert (early.status_code, early.json()["code"]) == (409, "incomplete") and "mn-Mong.needs_translator" in early.text
    done = {"texts": [{"language": "mn-Mong", "needs_translator": False}]}
    mended = site.call("PATCH", at, json=done, by=editor, match=tag)
    assert mended.status_code == 200, mended.text
    sent = site.post(f"{at}/submit", {"language": "mn-Mong"}, by=editor, match=mended.headers["ETag"])
    assert (sent.status_code, sent.json()["stands"]["mn-Mong"]["state"]) == (200, "in_review")
    assert {code: s["state"] for code, s in sent.json()["stands"].items() if code != "mn-Mong"} == {
        "zh-Hans": "published",
        "mn-Cyrl": "draft",
    }

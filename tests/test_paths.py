"""Paths: an editor builds one, a second person publishes a language of it, a phone follows it on its own calendar."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from content import checkfiles, checks, lessons, paths, publishing, store
from content.failures import Conflict, Invalid
from content.lessons import Lesson
from content.paths import Path
from content.records import SYSTEM
from tests.site import Clock, Site
from tests.test_fhir import page
from tests.test_library import LABELS, LIBRARY, METHODS, PROMISES
from tests.test_openapi import Walk

CHECK_IN = {"question": "昨天试了吗？", "did": "真好，再来一次。", "partly": "一小步也算。", "not_yet": "不着急，今天五分钟。"}
CHECK_IN_EN = {
    "question": "Did you try it?",
    "did": "Well done.",
    "partly": "A start counts.",
    "not_yet": "Take five minutes today.",
}
ZH = {"title": "先听，再说", "summary": "陪一会儿。", "body": "先听。", "try_this": "今晚问一句。", "check_in": CHECK_IN}
EN = {"title": "Listen", "summary": "A while.", "body": "Listen.", "try_this": "Ask one question.", "check_in": CHECK_IN_EN}
FACTS: dict[str, Any] = {
    "audiences": ["parent"], "stages": ["infant"], "topics": ["first_1000_days"], "kind": "tip", "sources": [{"title": "本项目"}],
}  # fmt: skip
PATH: dict[str, Any] = {
    "audiences": ["parent"], "stages": ["infant"], "topics": ["first_1000_days"], "divisions": [],
    "pace": {"unit": "week", "from": "due_date"},
}  # fmt: skip
NEW = {
    "slug": "first-weeks", **PATH,
    "steps": [{"lesson": "one", "at": -2}, {"lesson": "two", "at": 0}, {"lesson": "three", "at": 3}],
    "texts": [{"language": "zh-CN", "title": "头几周", "summary": "一周一件小事。"},
              {"language": "en", "title": "The first weeks", "summary": "One small thing a week."}],
}  # fmt: skip


def released(cls: Any, record: Any, language: str) -> None:
    for verb in (publishing.submit, publishing.approve, publishing.publish):
        verb(cls, record.id, language, SYSTEM)


def lesson(slug: str, *, published: bool = True, facts: dict[str, Any] | None = None, **texts: dict[str, Any]) -> str:
    """A lesson in these editions ("zh_Hans" for zh-Hans); returns its id."""
    put = {name.replace("_", "-"): text for name, text in texts.items()} or {"zh-Hans": ZH}
    made = lessons.create(slug, {**FACTS, **(facts or {})}, put, SYSTEM)
    for language in put if published else ():
        released(Lesson, made, language)
    return str(made.id)


def path(slug: str, *languages: str, **facts: Any) -> Path:
    """A published path in these languages."""
    texts = {language: {"title": f"{slug} {language}", "summary": "x"} for language in languages or ("zh-Hans",)}
    made = paths.create(slug, {**PATH, **facts}, texts, SYSTEM)
    for language in texts:
        released(Path, made, language)
    return made


def steps(*slugs: str) -> list[dict[str, Any]]:
    return [{"lesson": slug, "at": number} for number, slug in enumerate(slugs)]


# --- the desk and the reader -----------------------------------------------------------------------------------------


def test_from_the_desk_to_a_phone_that_keeps_its_dates_to_itself(site: Site) -> None:
    lesson("one", zh_Hans=ZH, en=EN)
    lesson("two", zh_Hans=ZH, en={k: v for k, v in EN.items() if k != "check_in"}, published=False)
    three = lesson("three", zh_Hans_x_parent={**ZH, "title": "给家长"}, zh_Hans=ZH)
    released(Lesson, lessons.by_slug("two"), "zh-Hans")
    editor, reviewer = site.person("editor", "editor", division="150603"), site.person("reviewer", "reviewer")
    base = "/v1/staff/paths/first-weeks"

    assert site.post("/v1/staff/paths", NEW, by=editor).status_code == 403  # a path for everywhere is not a district's to make
    made = site.post("/v1/staff/paths", {**NEW, "divisions": ["150603"]}, by=editor)
    assert (made.status_code, made.headers["Location"], made.headers["ETag"]) == (201, base, '"1"'), made.text
    gaps = {text["language"]: text["missing"] for text in made.json()["texts"]}
    assert gaps == {"zh-Hans": [], "en": ["steps.1 two en: check_in", "steps.2 three en"]}
    refused = site.post(f"{base}/submit", {"language": "en"}, by=editor, match='"1"')
    assert (refused.status_code, refused.json()["code"]) == (409, "incomplete")
    assert "steps.1 two en: check_in, steps.2 three en" in refused.json()["messages"]["zh-Hans"]

    body = {"language": "zh-Hans"}
    sent = site.post(f"{base}/submit", body, by=editor, match='"1"')
    assert sent.json()["stands"]["zh-Hans"]["state"] == "in_review", sent.text
    alone = site.post(f"{base}/approve", body, by=editor, match=sent.headers["ETag"])
    assert (alone.status_code, alone.json()["code"]) == (403, "not_allowed")
    good = site.post(f"{base}/approve", body, by=reviewer, match=sent.headers["ETag"])
    assert site.get("/v1/paths").json() == {"items": [], "next_cursor": None}
    out = site.post(f"{base}/publish", body, by=reviewer, match=good.headers["ETag"])
    assert {code: one["state"] for code, one in out.json()["stands"].items()} == {"zh-Hans": "published", "en": "draft"}

    [row] = site.get("/v1/paths?audience=parent&stage=infant&topic=first_1000_days&division=150603").json()["items"]
    assert (row["slug"], row["title"], row["length"], row["pace"]) == ("first-weeks", "头几周", 3, PATH["pace"])
    for other in ("audience=student", "stage=senior", "topic=emotion", "division=500114", "check=exam-stress"):
        assert site.get(f"/v1/paths?{other}").json()["items"] == [], other
    first = site.get("/v1/paths/first-weeks", headers={"Accept-Language": "en"})
    assert first.headers["Content-Language"] == "zh-Hans" and first.json()["fallback"]["asked"] == "en"
    found = first.json()["steps"]
    assert [(s["slug"], s["at"], s["available"]) for s in found] == [("one", -2, True), ("two", 0, True), ("three", 3, True)]
    # each lesson in the best language and voice for this reader, whatever language the path itself is in
    assert [(s["lesson"]["language"], s["lesson"]["voice"]) for s in found] == [
        ("en", ""),
        ("zh-Hans", ""),
        ("zh-Hans", "parent"),
    ]
    assert found[0]["check_in"] == CHECK_IN_EN and found[1]["check_in"] == CHECK_IN
    assert found[2]["try_this"] == "今晚问一句。" and "try_this" not in found[2]["lesson"]
    again = site.get("/v1/paths/first-weeks", headers={"Accept-Language": "en", "If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")

    for edition in ("zh-Hans", "zh-Hans-x-parent"):
        publishing.withdraw(Lesson, three, edition, SYSTEM)
    site.refresh()
    last = site.get("/v1/paths/first-weeks").json()["steps"][2]
    assert last == {"slug": "three", "at": 3, "available": False, "lesson": None, "try_this": None, "check_in": None}
    gone = site.post(f"{base}/withdraw", body, by=reviewer, match=out.headers["ETag"])
    assert gone.status_code == 200 and site.get("/v1/paths/first-weeks").status_code == 404


def test_one_language_leaves_the_others_as_they_are_and_an_edit_waits(site: Site) -> None:
    for slug in ("one", "two", "three"):
        lesson(slug, zh_Hans=ZH, en=EN)
    path("ours", "zh-Hans", "en", steps=steps("one", "two"))
    site.refresh()
    editor, reviewer = site.person("editor", "editor"), site.person("reviewer", "reviewer")
    base = "/v1/staff/paths/ours"

    def seen(tag: str) -> Any:
        return site.get("/v1/paths/ours", headers={"Accept-Language": tag}).json()

    zh, en, etag = seen("zh-CN"), seen("en"), site.get(base, by=editor).headers["ETag"]
    change = {"texts": [{"language": "en", "title": "New"}]}
    assert site.call("PATCH", base, json=change, by=editor).status_code == 428
    edited = site.call("PATCH", base, json=change, by=editor, match=etag)
    assert {code: one["state"] for code, one in edited.json()["stands"].items()} == {"zh-Hans": "published", "en": "draft"}
    assert (
        site.call("PATCH", base, json=change, by=editor, match=edited.headers["ETag"]).headers["ETag"] == edited.headers["ETag"]
    )
    assert (seen("zh-CN"), seen("en")) == (zh, en)
    etag = edited.headers["ETag"]
    for verb, who in (("submit", editor), ("approve", reviewer), ("publish", reviewer)):
        moved = site.post(f"{base}/{verb}", {"language": "en"}, by=who, match=etag)
        assert moved.status_code == 200, moved.text
        etag = moved.headers["ETag"]
    assert (seen("zh-CN"), seen("en")["title"], seen("en")["number"]) == (zh, "New", 2)

    facts = site.call("PATCH", base, json={"steps": steps("three", "one", "two")}, by=editor, match=etag)
    assert {one["state"] for one in facts.json()["stands"].values()} == {"draft"}
    assert seen("zh-CN") == zh
    rows = site.get(f"{base}/versions?language=en", by=editor).json()["items"]
    back = site.post(
        f"{base}/roll-back", {"language": "en", "version": rows[1]["version"]}, by=reviewer, match=facts.headers["ETag"]
    )
    assert back.status_code == 200 and (seen("en")["title"], len(seen("en")["steps"])) == (en["title"], 2)
    assert [line["slug"] for line in site.get("/v1/staff/paths?state=draft", by=editor).json()["items"]] == ["ours"]


def test_another_organisation_does_not_even_learn_that_it_is_there(site: Site) -> None:
    lesson("one")
    lesson("two")
    there = site.person("there", "editor", division="370200")
    path("ours", steps=steps("one", "two"), divisions=["150603"])
    assert site.get("/v1/staff/paths/ours", by=there).status_code == 404
    assert site.get("/v1/staff/paths", by=there).json()["items"] == []
    assert site.post("/v1/staff/paths/ours/submit", {"language": "zh-Hans"}, by=there, match='"1"').status_code == 404


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"steps": steps("one")}, "steps", "out_of_range"),
    ({"steps": None}, "steps", "out_of_range"),
    ({"steps": steps("one", "nowhere")}, "steps.1.lesson", "unknown_reference"),
    ({"steps": steps("one", "one")}, "steps.1.lesson", "exists"),
    ({"steps": [{"lesson": "one", "at": 3}, {"lesson": "two", "at": 3}]}, "steps.1.at", "out_of_range"),
    ({"steps": [{"lesson": "one", "at": -44}, {"lesson": "two", "at": 3}]}, "steps.0.at", "out_of_range"),
    ({"steps": [{"lesson": "one", "at": True}, {"lesson": "two", "at": 3}]}, "steps.0", "wrong_type"),
    ({"pace": {"unit": "day", "from": "birthday"}, "steps": [{"lesson": "one", "at": -1}, {"lesson": "two", "at": 3}]},
     "steps.0.at", "out_of_range"),
    ({"pace": {"unit": "month", "from": "start"}}, "pace.unit", "not_one_of"),
    ({"pace": {"unit": "day", "from": "2027-01-01"}}, "pace.from", "not_one_of"),
    ({"begins_with": {"check": "nothing", "bands": ["low"]}}, "begins_with.check", "unknown_reference"),
    ({"begins_with": {"check": "mood", "bands": ["low", "odd"]}}, "begins_with.bands", "unknown_reference"),
    ({"begins_with": {"check": "mood", "bands": []}}, "begins_with.bands", "required"),
    ({"due_date": "2027-01-01"}, "due_date", "unknown_field"),
    ({"audiences": ["grandparent"]}, "audiences", "not_one_of"),
]  # fmt: skip


def test_what_is_wrong_is_named(mood: str) -> None:
    lesson("one", published=False)
    lesson("two", published=False)
    for change, field, code in WRONG:
        with pytest.raises(Invalid) as refused:
            paths.create("ours", {**PATH, "steps": steps("one", "two"), **change}, {"zh-Hans": {"title": "x"}}, SYSTEM)
        assert [(error.field, error.code) for error in refused.value.errors] == [(field, code)], change
    assert Path.rows().count_documents({}) == 0


def test_an_edit_is_held_against_what_stays(clean: None) -> None:
    lesson("one")
    lesson("two")
    made = path("ours", steps=[{"lesson": "one", "at": -3}, {"lesson": "two", "at": 0}])
    with pytest.raises(Invalid, match=r"steps\.0\.at"):
        paths.edit(made.id, SYSTEM, {"pace": {"unit": "week", "from": "start"}}, {})


def test_a_lesson_must_speak_to_every_audience_of_the_path(clean: None) -> None:
    """The voice of one's own counts, else the text for all; a voice without its check-in is named even beside a whole text."""
    bare = {k: v for k, v in ZH.items() if k not in ("check_in", "try_this")}
    lesson("one", zh_Hans=ZH, zh_Hans_x_staff=bare, facts={"audiences": ["parent", "teacher"]}, published=False)
    lesson("two", zh_Hans_x_parent=ZH, facts={"audiences": ["parent", "teacher"]}, published=False)
    lesson("three", published=False)
    facts = {**PATH, "audiences": ["parent", "teacher"], "steps": steps("one", "two", "three")}
    made = paths.create("ours", facts, {"zh-Hans": {"title": "x", "summary": "x"}, "mn-Mong": {"title": "x"}}, SYSTEM)
    assert made.missing("zh-Hans") == [
        "steps.0 one zh-Hans-x-staff: try_this", "steps.0 one zh-Hans-x-staff: check_in", "steps.1 two zh-Hans",
        "steps.2 three: audiences teacher",
    ]  # fmt: skip
    assert made.missing("mn-Mong")[:2] == ["mn-Mong.summary", "steps.0 one mn-Mong"]


def test_a_step_appears_when_its_lesson_is_published_and_leaves_when_it_expires(site: Site, clock: Clock) -> None:
    lesson("one")
    two = lesson("two", published=False)
    path("ours", steps=steps("one", "two"))
    site.refresh()

    def available() -> list[bool]:
        site.refresh()
        return [step["available"] for step in site.get("/v1/paths/ours").json()["steps"]]

    assert available() == [True, False]
    publishing.submit(Lesson, two, "zh-Hans", SYSTEM)
    publishing.approve(Lesson, two, "zh-Hans", SYSTEM)
    publishing.publish(Lesson, two, "zh-Hans", SYSTEM, expires_at=store.now() + timedelta(seconds=30))
    assert available() == [True, True]
    held = site.get("/v1/paths/ours").headers["Cache-Control"]
    assert int(held.removeprefix("public, max-age=").split(",")[0]) <= 30
    assert site.front.kept
    clock(30)  # nobody has withdrawn it: the prepared answer must not outlive the lesson
    assert available() == [True, False]


# --- a self-check that leads to a path -------------------------------------------------------------------------------


@pytest.fixture
def mood(clean: None, tmp_path: File) -> str:
    """A published check with the bands low (0-2) and high (3-4); answer z of item b is critical."""
    (tmp_path / "mood.json").write_text(json.dumps(page({"required": True}, {"required": True})), encoding="utf-8")
    text = {"en": "x", "zh-Hans": "x"}
    entry = {
        "name": {"en": "Mood"}, "source": "x", "rights": "own", "audiences": ["parent"], "stages": ["infant"],
        "languages": ["en"], "validated": False, "purpose": "parent_guidance", "parental_notice": {"en": "x"}, "evidence": "x",
        "bands": [{"code": "low", "min": 0, "max": 2, "text": text, "next_steps": text},
                  {"code": "high", "min": 3, "max": 4, "text": text, "next_steps": text}],
        "critical": [{"item": "b", "codes": ["z"]}],
    }  # fmt: skip
    (tmp_path / "mood.yaml").write_text(json.dumps(entry), encoding="utf-8")
    [row] = checkfiles.import_files(tmp_path, SYSTEM)
    assert row["outcome"] == "new", row
    key = checks.by_slug("mood").id
    checks.submit(key, SYSTEM)
    checks.approve(key, SYSTEM)
    checks.publish(key, SYSTEM)
    return str(key)


def test_a_score_offers_the_path_of_its_band_and_only_help_when_an_answer_is_critical(site: Site, mood: str) -> None:
    lesson("one")
    lesson("two")
    for slug, bands in (("gentle", ["low"]), ("together", ["low", "high"])):
        path(slug, "zh-Hans", steps=steps("one", "two"), begins_with={"check": "mood", "bands": bands})
    path("elsewhere", steps=steps("one", "two"), begins_with={"check": "mood", "bands": ["low"]}, divisions=["500114"])
    path("for-all", steps=steps("one", "two"))
    paths.create("draft", {**PATH, "steps": steps("one", "two"), "begins_with": {"check": "mood", "bands": ["low"]}},
                 {"zh-Hans": {"title": "x"}}, SYSTEM)  # fmt: skip
    site.refresh()

    def scored(a: str, b: str, **more: str) -> Any:
        version = site.get("/v1/checks/mood").json()["version"]
        body = {"version": version, "answers": [{"item": "a", "code": a}, {"item": "b", "code": b}], **more}
        reply = site.post("/v1/checks/mood/score", body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    low = scored("x", "x", division="150603")
    assert (low["band"]["code"], [row["slug"] for row in low["paths"]]) == ("low", ["gentle", "together"])
    assert low["paths"][0]["title"] == "gentle zh-Hans"
    assert [row["slug"] for row in scored("x", "x", division="500114")["paths"]] == ["elsewhere", "gentle", "together"]
    assert [row["slug"] for row in scored("z", "y")["paths"]] == ["together"]
    critical = scored("x", "z")
    assert critical["critical"] and critical["paths"] == [] and critical["help"]["emergency"]

    # a phone without a network matches by itself, from what the path says of itself
    listed = site.get("/v1/paths?check=mood").json()["items"]
    assert {row["slug"] for row in listed if "high" in row["begins_with"]["bands"]} == {"together"}
    assert site.get("/v1/paths/gentle").json()["begins_with"] == {"check": "mood", "bands": ["low"]}
    text = {"en": "x"}
    renamed = [{"code": code, "min": low, "max": low + 2 - low // 3, "text": text, "next_steps": text} for code, low in
               (("calm", 0), ("high", 3))]  # fmt: skip
    checks.edit(mood, SYSTEM, {}, laid={"bands": renamed})
    for move in (checks.submit, checks.approve, checks.publish):
        move(mood, SYSTEM)
    site.refresh()
    assert site.get("/v1/paths/gentle").json()["begins_with"] is None  # what it begins with does not come out any more
    assert site.get("/v1/paths/together").json()["begins_with"] == {"check": "mood", "bands": ["high"]}
    together = paths.by_slug("together")
    assert together.missing("zh-Hans") == ["begins_with.bands low"]
    without = paths.edit(together.id, SYSTEM, {"begins_with": None}, {})
    assert (without.facts()["begins_with"], without.missing("zh-Hans"), without.stands["zh-Hans"].state) == (None, [], "draft")
    checks.withdraw(mood, SYSTEM)
    site.refresh()
    assert site.get("/v1/paths/together").json()["begins_with"] is None  # recalled: it is nowhere begun with
    assert site.get("/v1/paths?check=mood").json()["items"] == []
    checks.submit(mood, SYSTEM)
    checks.approve(mood, SYSTEM)
    checks.publish(mood, SYSTEM)
    checks.withdraw(mood, SYSTEM, note="again")
    site.person("reads", "counsellor")
    first = Walk(site).get("/v1/staff/recalls", "?limit=1", "reads")
    second = site.get(f"/v1/staff/recalls?limit=1&cursor={first['next_cursor']}", by="reads").json()
    assert [one["note"] for one in (*first["items"], *second["items"])] == ["again", ""] and second["next_cursor"] is None
    told = {use["key"]: use["published"] for use in first["items"][0]["paths"]}
    assert (told["gentle"], told["together"], told["draft"]) == (True, True, False)


def test_no_path_route_takes_a_date_an_answer_or_a_band(site: Site) -> None:
    lesson("one")
    lesson("two")
    path("ours", steps=steps("one", "two"))
    site.refresh()
    for query in ("due_date=2027-03-01", "birthday=2027-03-01", "from=2027-03-01", "at=3", "band=low", "step=1", "week=2"):
        for address in ("/v1/paths", "/v1/paths/ours"):
            assert site.get(f"{address}?{query}").json()["code"] == "invalid", query
    spec = site.get("/openapi.json").json()
    routes = {address: methods for address, methods in spec["paths"].items() if address.startswith("/v1/paths")}
    assert {address: set(methods) - {"parameters"} for address, methods in routes.items()} == {
        "/v1/paths": {"get"}, "/v1/paths/{slug}": {"get"},
    }  # fmt: skip
    taken = {p["name"] for m in routes.values() for p in m["get"]["parameters"] if p["in"] == "query"}
    assert taken == {"audience", "stage", "topic", "division", "check", "cursor", "limit"}


# --- the phone's calendar --------------------------------------------------------------------------------------------

UNIT = {"day": 1, "week": 7}


class Phone:
    """What an app does: its own clock, its own memory, arithmetic that the README and the OpenAPI document spell out."""

    def __init__(self, whole: dict[str, Any], begins: date) -> None:
        self.whole, self.begins = whole, begins
        self.opened: dict[str, date] = {}
        self.answers: dict[str, str] = {}

    def due(self, step: dict[str, Any]) -> date:
        return self.begins + timedelta(days=step["at"] * UNIT[self.whole["pace"]["unit"]])

    def todays(self, today: date) -> dict[str, Any] | None:
        """The last step whose date has come."""
        come = [step for step in self.whole["steps"] if step["available"] and self.due(step) <= today]
        return come[-1] if come else None

    def morning(self, today: date) -> str | None:
        """What to ask today: about a thing tried before today."""
        for step in self.whole["steps"]:
            if step["check_in"] and step["slug"] not in self.answers and self.opened.get(step["slug"], today) < today:
                return str(step["slug"])
        return None

    def tip(self, slug: str, answer: str) -> str:
        self.answers[slug] = answer
        return str(next(step for step in self.whole["steps"] if step["slug"] == slug)["check_in"][answer])


def test_a_phone_follows_a_thousand_days_by_its_own_clock(site: Site) -> None:
    weeks = range(-38, 105, 13)  # before the birth to the second birthday
    for week in weeks:
        lesson(f"week-{week + 38}")
    path("thousand", steps=[{"lesson": f"week-{week + 38}", "at": week} for week in weeks])
    publishing.withdraw(Lesson, lessons.by_slug("week-39").id, "zh-Hans", SYSTEM)
    site.refresh()
    database = store.database()
    before = {name: database[name].count_documents({}) for name in database.list_collection_names()}

    phone = Phone(site.get("/v1/paths/thousand").json(), date(2028, 2, 29))  # the due date; nothing is asked of us from here on
    asked: list[tuple[date, str, str]] = []
    replies = iter(["did", "partly", "not_yet"] * 10)
    shown: list[str] = []
    for day in range(-280, 1000 - 280 + 10):
        today = phone.begins + timedelta(days=day)
        if (slug := phone.morning(today)) is not None:
            asked.append((today, slug, phone.tip(slug, next(replies))))
        step = phone.todays(today)
        if step and step["slug"] not in phone.opened:
            phone.opened[step["slug"]] = today
            shown.append(step["slug"])
    assert shown == [f"week-{week + 38}" for week in weeks if week != 1]  # the withdrawn one is passed over
    assert phone.opened["week-0"] == date(2028, 2, 29) - timedelta(weeks=38)
    assert [(today - phone.opened[slug]).days for today, slug, _ in asked] == [1] * len(shown)
    assert [tip for _, _, tip in asked[:3]] == [CHECK_IN["did"], CHECK_IN["partly"], CHECK_IN["not_yet"]]
    assert {name: database[name].count_documents({}) for name in database.list_collection_names()} == before
    late = Phone(phone.whole, date(2028, 2, 29)).todays(date(2029, 1, 1))
    assert late and late["slug"] == "week-78"  # who joins late begins with what is on now


ORDERED = st.lists(st.integers(-60, 1000), min_size=2, max_size=12, unique=True).map(sorted)


@given(ORDERED, st.sampled_from(["day", "week"]), st.sampled_from(paths.FROM), st.dates(date(2000, 1, 1), date(2100, 1, 1)))
@settings(max_examples=60, deadline=None)
def test_paces_and_dates(ats: list[int], unit: str, origin: str, begins: date) -> None:
    """What is accepted gives every step one date of its own, in order, a whole number of units from the beginning; and nothing
    else is accepted."""
    rows = [{"lesson": f"l{at}", "at": at} for at in ats]
    wrong = {error.field for error in paths.faults({"unit": unit, "from": origin}, rows)}
    low, high = paths.SPAN[unit] if origin == "due_date" else (0, paths.SPAN[unit][1])
    assert wrong == {f"steps.{n}.at" for n, at in enumerate(ats) if not low <= at <= high}
    swapped = [rows[1], rows[0], *rows[2:]]
    assert "steps.1.at" in {error.field for error in paths.faults({"unit": unit, "from": origin}, swapped)}
    again = [*rows, {**rows[0], "at": ats[-1] + 1}]
    assert f"steps.{len(rows)}.lesson" in {error.field for error in paths.faults({"unit": unit, "from": origin}, again)}

    phone = Phone({"pace": {"unit": unit}, "steps": [{**row, "slug": row["lesson"], "available": True} for row in rows]}, begins)
    dates = [phone.due(row) for row in rows]
    assert dates == sorted(set(dates)) and all((day - begins).days == at * UNIT[unit] for day, at in zip(dates, ats, strict=True))
    assert phone.todays(dates[0] - timedelta(days=1)) is None
    for number, day in enumerate(dates):
        today = phone.todays(day)
        assert today and today["slug"] == rows[number]["lesson"]
    # the day of the year, of the leap year and of the time zone's change does not matter: days are counted, hours are not
    assert datetime.combine(dates[-1], datetime.min.time(), UTC) - datetime.combine(
        begins, datetime.min.time(), UTC
    ) == timedelta(days=ats[-1] * UNIT[unit])


# --- files and the starter library -----------------------------------------------------------------------------------

FILE = """\
audiences: [parent]
stages: [infant]
topics: [first_1000_days]
divisions: []
pace: {unit: week, from: due_date}
steps:
  - {lesson: one, at: -2}
  - {lesson: two, at: 4}
texts:
  zh-Hans: {title: 头几周, summary: 一周一件小事。}
  mn-Mong: {title: ᠨᠢᠭᠡ\u202fᠶᠢᠨ, summary: x}
"""


def outcomes(folder: File, dry_run: bool = False) -> dict[str, Any]:
    return {row["source"]: row for row in paths.import_files(folder, SYSTEM, dry_run)}


def test_files_are_read_strictly_and_a_second_run_changes_nothing(clean: None, tmp_path: File) -> None:
    lesson("one")
    lesson("two")
    good = tmp_path / "ours.yaml"
    good.write_text(FILE, encoding="utf-8")
    bad = {
        "unknown.yaml": FILE + "colour: red\n", "lesson.yaml": FILE.replace("lesson: two", "lesson: nowhere"),
        "twice.yaml": FILE + "stages: [primary]\n", "alias.yaml": FILE.replace("[infant]", "&a [infant]") + "x: *a\n",
        "name.yaml": FILE + "slug: other\n", "deep.yaml": FILE.replace("at: 4", "at: 4, date: 2027-01-01"),
        "texts.yaml": FILE.split("texts:")[0], "list.yaml": "- 1\n",
    }  # fmt: skip
    for name, text in bad.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for dry_run in (True, False):
        rows = outcomes(tmp_path, dry_run)
        assert {n: r["outcome"] for n, r in rows.items()} == {"ours.yaml": "new", **dict.fromkeys(bad, "refused")}
        assert Path.rows().count_documents({}) == (0 if dry_run else 1)
    said = {name: " ".join(text["en"] for text in row.get("messages", [])) for name, row in rows.items()}
    assert "colour" in said["unknown.yaml"] and "nowhere" in said["lesson.yaml"] and "stages" in said["twice.yaml"]
    assert "steps.1.date" in said["deep.yaml"] and "line" in said["twice.yaml"] and "name.yaml" in said["name.yaml"]
    assert outcomes(good)["ours.yaml"]["outcome"] == "unchanged"
    assert paths.by_slug("ours").texts["mn-Mong"].title == "ᠨᠢᠭᠡ\u202fᠶᠢᠨ"  # the narrow space before a suffix stays
    good.write_text(FILE.replace("at: 4", "at: 5"), encoding="utf-8")
    assert outcomes(good, dry_run=True)["ours.yaml"]["outcome"] == outcomes(good)["ours.yaml"]["outcome"] == "changed"
    assert outcomes(good)["ours.yaml"]["outcome"] == "unchanged"


def test_the_starter_librarys_paths_are_published_and_a_lesson_without_a_check_in_stops_them(site: Site, tmp_path: File) -> None:
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths" / "ours.yaml").write_text(FILE.replace("  mn-Mong", "  # mn-Mong"), encoding="utf-8")
    lesson("one")
    bare = lesson("two", zh_Hans={k: v for k, v in ZH.items() if k != "check_in"})
    with pytest.raises(Conflict, match=r"steps\.1 two zh-Hans: check_in"):
        paths.load_library(tmp_path, site.settings)
    lessons.edit(bare, SYSTEM, {}, {"zh-Hans": {"check_in": CHECK_IN}})
    assert paths.load_library(tmp_path, site.settings) == 1  # the load that was cut is finished
    assert paths.load_library(tmp_path, site.settings) == 0
    site.refresh()
    assert site.get("/v1/paths/ours").json()["title"] == "头几周"


PATTERNS = ("专制型", "忽视型", "溺爱型", "放任型", "权威型", "authoritarian", "neglectful", "permissive")


def test_nobody_is_labelled_by_a_check_or_a_path() -> None:
    """A parent is shown where to begin and never told what kind of parent they are, codes of bands included."""
    files = [*sorted((LIBRARY / "checks").glob("*")), *sorted((LIBRARY / "paths").glob("*"))]
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8").lower()
        assert [word for word in PATTERNS + LABELS + PROMISES + METHODS if word in text] == [], file.name

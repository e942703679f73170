"""Templates: what may stand in a text, that the library lacks none, and a district's own over HTTP."""

import re
from datetime import date
from functools import cache
from string import Formatter
from typing import Any, NamedTuple

import pytest
import requests
import yaml
from hypothesis import given
from hypothesis import strategies as st

from api.bootstrap import LIBRARY
from content import lessons
from content.failures import Conflict, Invalid, NotFound, Stale
from content.records import SYSTEM
from content.settings import Settings
from content.vocabulary import AUDIENCES, SEASONS, Stage
from notifications import fcm, seasons, templates
from notifications.seasons import Span
from notifications.templates import BODY, EMERGENCIES, PLACES, TITLE, NoticeTemplate, Template
from tests.site import Site
from tests.test_openapi import FACTS, TEXT, Document

GAOKAO = "/v1/staff/notice-templates/gaokao/-7/parent"
HERE = "?division=150603"
TEXTS = {
    "zh-Hans": {"title": "小提醒", "body": "{place}：还有{days}天，{first}到{last}。"},
    "en": {"title": "Soon", "body": "{days} days."},
}
SPOKEN = {name: dict.fromkeys(PLACES, f"«{name}»") for name in ("zh-Hans", "en")}


class Day(NamedTuple):
    code: str = "gaokao"
    lead: int = -7
    division: str = "150603"
    span: Span = Span(date(2027, 6, 7), date(2027, 6, 9), False)


def refused(values: dict[str, Any], lead: int = -7, language: str = "") -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as found:
        templates.checked(values, "gaokao", lead, language)
    assert all(len(error.messages) == 2 for error in found.value.errors)
    return [(error.field, error.code) for error in found.value.errors]


# --- what may stand in a text -----------------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from(
            [*(f"{{{name}}}" for name in PLACES), "{", "}", "{{", "}}", "days", "!r", ":>9", ".a", "[0]", "0", " ", "字"]
        )
    )
)
def test_what_passes_always_renders_and_keeps_no_brace(parts: list[str]) -> None:
    text = "".join(parts)
    wrong = templates.faults(text, "texts.en.body", "en")
    try:  # Python's own reading of it
        read = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None]
        plain = all(name in PLACES and not spec and not conversion for name, spec, conversion in read)
    except ValueError:
        plain = False
    if not wrong:
        assert plain
        told = templates.rendered(Template("", 1, {"en": {"title": text, "body": text}}, (), None), SPOKEN)["en"]["body"]
        assert not re.search("[{}]", told) and told == text.format_map(SPOKEN["en"])
    elif plain:  # what Python would take and we do not: doubled braces, and {days:}
        assert re.search(r"\{\{|\}\}|:\}", text) or "{" in Formatter().vformat(text, (), SPOKEN["en"])


@pytest.mark.parametrize(
    "text",
    [
        "{x}", "{0}", "{}", "{days!r}", "{days:>99999999}", "{days:}", "{season.__class__}", "{season[0]}", "{", "}", "{{days}}",
        "{ days }", "{days:{first}}", "%s {DAYS}",
    ],
)  # fmt: skip
def test_what_is_no_placeholder_is_refused_by_name(text: str) -> None:
    with pytest.raises(Invalid) as found:
        templates.checked({"texts": {"zh-CN": {"title": "好", "body": text}}}, "gaokao", -7)
    error = found.value.errors[0]
    assert (error.field, error.code) == ("texts.zh-Hans.body", "bad_placeholder")
    assert error.params["placeholder"] in text and all(
        f"({error.params['language']})" in m or "（zh-Hans）" in m for m in error.messages.values()
    )


def test_limits_of_a_text() -> None:
    fits = {"title": "中" * TITLE, "body": "中" * BODY}
    stored = templates.checked(
        {"texts": {"zh": fits}, "lessons": ["a", "a"], "done_when": {"kind": "lesson", "slug": "a"}}, "gaokao", 0
    )
    assert stored == {"texts": {"zh-Hans": fits}, "lessons": ["a"], "done_when": {"kind": "lesson", "slug": "a"}}
    assert templates.checked(stored, "gaokao", 0) == stored
    assert refused({"texts": {"en": {"title": "a" * 61, "body": "b" * 401}}}) == [
        ("texts.en.title", "out_of_range"),
        ("texts.en.body", "out_of_range"),
    ]
    assert refused({"texts": {"en": {"title": " ", "body": "b"}}}) == [("texts.en.title", "required")]
    assert refused({"texts": {"en": {"title": "a", "body": "b"}}}, language="zh-Hans") == [("texts.zh-Hans", "required")]
    assert refused({"texts": {}}) == [("texts", "required")] and refused({"texts": {"en": "a"}}) == [("texts.en", "wrong_type")]
    same = {"title": "a", "body": "b"}
    assert refused({"texts": {"zh": same, "zh-CN": same}}) == [("texts.zh-Hans", "exists")]
    for done in (
        {"kind": "lesson", "slug": "b"},
        {"kind": "lesson"},
        {"kind": "read", "slug": "a"},
        {"kind": "paid"},
        {"kind": "read", "by": "x"},
    ):
        assert refused({"texts": {"en": same}, "lessons": ["a"], "done_when": done}), done
    # few characters, and too long for a topic once the longest division's name stands in them: the longest counts, not this one's
    places = {"title": "好", "body": "{place}" * 40}
    with pytest.raises(Invalid) as large:
        templates.checked({"texts": {"zh-Hans": places}}, "gaokao", -7)
    assert (large.value.code, large.value.errors[0].field) == ("payload_too_large", "texts.zh-Hans.body")
    assert large.value.errors[0].params["size"] > fcm.TOPIC_LIMIT == 2048


def test_dates_are_said_in_the_language(settings: Settings) -> None:
    words = templates.values(Day(), settings)
    assert words["zh-Hans"] == {"season": "高考", "days": "7", "first": "6月7日", "last": "6月9日", "place": "康巴什区"}
    assert words["en"] | {"place": ""} == {
        "season": "university entrance exam",
        "days": "7",
        "first": "7 June",
        "last": "9 June",
        "place": "",
    }
    assert (words["mn-Cyrl"]["first"], words["mn-Mong"]["first"]) == ("6 сарын 7", "2027-06-07")
    assert templates.values(Day(division=""), settings)["zh-Hans"]["place"] == "全国"
    text = Template("", 1, {"zh-Hans": TEXTS["zh-Hans"], "ug-Arab": {"title": "a", "body": "{first}"}}, (), None)
    assert templates.rendered(text, words)["zh-Hans"]["body"] == "康巴什区：还有7天，6月7日到6月9日。"
    assert templates.rendered(text, words)["ug-Arab"]["body"] == "6月7日"  # as languages.pick would show them a lesson
    sly = {"zh-Hans": {**words["zh-Hans"], "place": "{days}"}}
    assert "{days}：还有7天" in templates.rendered(text, sly)["zh-Hans"]["body"]  # what stands in the words is not filled again


# --- the library ------------------------------------------------------------------------------------------------------


@cache
def library_says(fact: str, folder: str, slug: str) -> set[str]:
    """Whom a lesson or check of the library is for: its `audiences` or `stages`."""
    found: set[str] = set()
    for path in [*(LIBRARY / folder).glob(f"{slug}.*md"), *(LIBRARY / folder).glob(f"{slug}.yaml")]:
        found |= set(
            next(yaml.safe_load_all(path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")[0]))[fact]
        )
    return found


TROUBLE = re.compile("自杀|轻生|抑郁|焦虑|心理|诊断|成绩|分数|落榜|suicid|depress|anxi|mental|diagnos|score", re.IGNORECASE)
SHAME = re.compile("别人家的|丢脸|没出息|笨|懒惰|保证|一定能|必胜|满分|金榜|后果|毁了|shame|lazy child|guarantee", re.IGNORECASE)
END = re.compile("自杀|轻生|自尽|不想活|想死|suicid|kill|cannot go on|not want to live", re.IGNORECASE)


def test_every_notice_of_every_season_has_its_text() -> None:
    needed = {
        f"{one.code}:{lead}:{audience}"
        for one in seasons.calendar().seasons.values()
        for lead in one.lead_days
        for audience in one.audiences
    }
    assert needed == templates.starter().keys()
    for name, text in templates.starter().items():
        code, lead, audience = name.split(":")
        season = seasons.calendar().seasons[code]
        assert text.version >= 1 and set(text.texts) == {"zh-Hans", "en"}, name
        values = {"texts": text.texts, "lessons": text.lessons, "done_when": text.done_when}
        assert templates.checked(values, code, int(lead), "zh-Hans") == templates.plain(values), name
        assert text.lessons and set(text.lessons) <= set(season.lessons), name
        assert all(audience in library_says("audiences", "lessons", slug) for slug in text.lessons), name
        done = dict(text.done_when or {})
        assert done, name
        if done["kind"] == "check":
            assert done["slug"] in season.checks and audience in library_says("audiences", "checks", done["slug"]), name
            whom = [Stage.parse(one) for one in library_says("stages", "checks", done["slug"])]
            assert all(any(one.covers(Stage.parse(stage)) for one in whom) for stage in season.stages), name
        for tag, words in text.texts.items():
            assert not TROUBLE.search(words["title"]) and not SHAME.search(words["title"] + words["body"]), (name, tag)
            assert not END.search(words["title"] + words["body"]), (name, tag)
            assert (
                int(lead) < -1
                or int(lead) == 0
                and season.lead_days == (0,)
                or len(words["body"]) <= (90 if tag == "zh-Hans" else 220)
            ), (name, tag)
        said = re.sub("“[^”]*”|《[^》]*》", "", text.texts["zh-Hans"]["title"] + text.texts["zh-Hans"]["body"])
        assert ("您" if audience == "student" else "你") not in said, name


def test_what_a_text_says_of_time_is_true_on_its_day_and_at_its_hour() -> None:
    seen = set()
    for name, text in templates.starter().items():
        code, lead, _ = name.split(":")
        season = seasons.calendar().seasons[code]
        said = {tag: "。".join(words.values()) for tag, words in text.texts.items()}
        plain = re.sub("“[^”]*”|《[^》]*》", "", said["zh-Hans"])
        if season.at.hour < 12:
            seen.add(code)
            assert not re.search("今晚|明", plain) and not re.search("tonight|tomorrow", said["en"], re.IGNORECASE), name
        # a tenth of October may be a Saturday: no class and no way to school is said to be today
        assert not re.search("今天[^。，：]*(上课|课后|班里|上学|作业)|课后", plain), name
        assert int(lead) in (-1, 0) or "明天" not in plain, name
        # the last one stays in the inbox until the season is over, so it counts no days
        assert "{days}" not in plain + said["en"] or int(lead) < max(season.lead_days), name
        assert (text.done_when or {})["kind"] != "read" or not re.search("《", said["zh-Hans"]), (name, "a lesson is a deed")
    assert seen == {"mental_health_day", "student_day", "children_day", "teachers_day", "school_safety_day"}


def test_plan_texts_are_ready_for_each_adult_and_student() -> None:
    found = templates.emergencies()
    order = ("parent", "teacher", "student")  # adults first
    assert list(found) == [f"{code}:{audience}" for code in EMERGENCIES for audience in order]
    for name, text in found.items():
        audience = name.split(":")[1]
        assert text.done_when is None and set(text.texts) == {"zh-Hans", "en"}
        values = {"texts": text.texts, "lessons": text.lessons}
        assert templates.checked(values, "gaokao", 0) == templates.plain(values)
        assert text.lessons and all(audience in library_says("audiences", "lessons", slug) for slug in text.lessons), name
        for tag, words in text.texts.items():
            assert "12356" in words["body"] and ("12355" in words["body"] or audience == "parent"), (name, tag)
            assert re.search(r"\b1[12]0", words["body"].replace("拨", " ").replace("打", " ")), (name, tag)
            assert not re.search("[{}]", words["title"] + words["body"]) and not TROUBLE.search(words["title"]), (name, tag)
            assert audience != "student" or not END.search(words["body"]), (name, tag)
            assert templates.size(words) <= fcm.TOPIC_LIMIT


# --- a district's own -------------------------------------------------------------------------------------------------


@pytest.fixture
def taught(clean: None) -> None:
    """The lessons that the texts name."""
    for slug in ("steady-in-exam-week", "gaokao-parents-at-home"):
        lessons.create(slug, FACTS, {"zh-Hans": TEXT}, SYSTEM)


def test_the_nearest_own_text_counts_and_its_versions_stay(taught: None, settings: Settings) -> None:
    where = ("gaokao", -7, "parent")

    def best(division: str) -> str:
        found = templates.best(*where, division, templates.stored())
        assert found is not None
        return f"{found.name}@{found.version}"

    assert best("150603") == best("") == "gaokao:-7:parent@1"
    assert templates.best("gaokao", -7, "staff", "150603", []) is None
    values = {"texts": TEXTS, "lessons": ["steady-in-exam-week"], "done_when": {"kind": "lesson", "slug": "steady-in-exam-week"}}
    templates.save("", *where, values, "anna", settings)
    templates.save("150600", *where, values, "anna", settings)
    assert (best("150603"), best("150600"), best("500114")) == (
        "gaokao:-7:parent:150600@1", "gaokao:-7:parent:150600@1", "gaokao:-7:parent:000000@1",
    )  # fmt: skip
    made = templates.save("150603", *where, values, "anna", settings)
    drafted = templates.best(*where, "150603", templates.stored())
    assert templates.save("150603", *where, values, "bold", settings, made.revision).version == 1  # the same again
    with pytest.raises(Conflict):
        templates.save("150603", *where, values, "bold", settings)
    for n in range(2, 24):
        body = {"zh-Hans": {"title": "第几版", "body": f"第{n}版"}}
        made = templates.save("150603", *where, {**values, "texts": body}, f"writer{n}", settings, made.revision)
    with pytest.raises(Stale):
        templates.save("150603", *where, values, "bold", settings, made.revision - 1)
    assert best("150603") == "gaokao:-7:parent:150603@23" and drafted is not None and drafted.texts["zh-Hans"] == TEXTS["zh-Hans"]
    assert [row["version"] for row in made.history] == list(range(4, 24)) and made.history[-1]["written_by"] == "writer23"
    templates.take_back("150603", *where, "bold", made.revision)
    assert best("150603") == "gaokao:-7:parent:150600@1"
    with pytest.raises(NotFound):
        templates.take_back("150603", *where, "bold")
    assert templates.save("150603", *where, values, "bold", settings).version == 24  # no number comes twice
    with pytest.raises(Invalid) as unknown:
        templates.save("150603", *where, {**values, "lessons": ["steady-in-exam-week", "nowhere"]}, "bold", settings, 26)
    assert [(e.field, e.code, e.params["value"]) for e in unknown.value.errors] == [("lessons", "unknown_reference", "nowhere")]
    for wrong in (("nothing", -7, "parent"), ("gaokao", 101, "parent"), ("gaokao", -7, "cats")):
        with pytest.raises(NotFound):
            templates.key_of("", *wrong)
    lines = {line["action"] for line in NoticeTemplate._get_db()["audit"].find({"kind": "notice_template"})}
    assert lines == {"notice_template.create", "notice_template.edit", "notice_template.remove"}
    assert not NoticeTemplate._get_db()["audit"].find_one({"after.history": {"$exists": True}})


def test_a_district_writes_its_own_over_http(taught: None, site: Site) -> None:
    told = Document(site.get("/openapi.json").json())

    def call(method: str, path: str, status: int, **more: Any) -> requests.Response:
        reply = site.call(method, path, **more)
        assert reply.status_code == status, (method, path, reply.text)
        if status < 300:
            rule = re.sub("/gaokao/-?[0-9]+/parent", "/{season}/{lead}/{audience}", path.partition("?")[0])
            told.compare(told.operation(method, rule)[0], reply, f"{method} {rule}")
        return reply

    site.person("anna", "organiser", division="150603")
    site.person("city", "organiser", division="150600")
    site.person("far", "organiser", division="500114")
    site.person("reads", "reviewer", division="150603")
    site.person("root", "admin")
    body: dict[str, Any] = {
        "texts": [{"language": tag, **text} for tag, text in TEXTS.items()],
        "lessons": ["steady-in-exam-week"],
        "done_when": {"kind": "lesson", "slug": "steady-in-exam-week"},
    }
    call("GET", GAOKAO + HERE, 401)
    call("GET", GAOKAO + HERE, 403, by="root")
    for method, path, more in (
        ("GET", "", {}),
        ("PUT", "", {"json": body}),
        ("DELETE", "", {"match": '"1"'}),
        ("POST", "/preview", {"json": {"first": "2027-06-07"}}),
    ):
        call(method, GAOKAO + path + HERE, 403, by="far", **more)
    call("GET", "/v1/staff/notice-templates" + HERE, 403, by="far")
    call("GET", GAOKAO + "?division=999999", 422, by="anna")
    for nothing in ("nothing/-7/parent", "gaokao/-101/parent", "gaokao/-7/cats", "gaokao/-8/parent", "gaokao/x/parent"):
        call("GET", f"/v1/staff/notice-templates/{nothing}{HERE}", 404, by="anna")

    first = call("GET", GAOKAO + HERE, 200, by="reads").json()
    assert (first["source"], first["division"], first["version"], first["versions"]) == ("library", None, 1, [])
    assert "ETag" not in call("GET", GAOKAO + HERE, 200, by="reads").headers
    call("PUT", GAOKAO + HERE, 403, by="reads", json=body)
    call("PUT", GAOKAO + "?division=150600", 403, by="anna", json=body)  # the city's is not hers
    wrong = {**body, "texts": [{"language": "zh-Hans", "title": "好", "body": "{name.__class__}"}]}
    [error] = call("PUT", GAOKAO + HERE, 422, by="anna", json=wrong).json()["errors"]
    assert error["field"] == "texts.zh-Hans.body" and "{name.__class__}" in error["messages"]["zh-Hans"]
    reply = call(
        "PUT",
        GAOKAO + HERE,
        422,
        by="anna",
        json={**body, "texts": [{"language": "zh-Hans", "title": "好", "body": "{place}" * 40}]},
    )
    assert reply.json()["code"] == "payload_too_large"

    made = call("PUT", GAOKAO + HERE, 201, by="anna", json=body)
    assert (made.json()["source"], made.json()["division"], made.json()["name"]) == ("own", "150603", "gaokao:-7:parent:150603")
    call("PUT", GAOKAO + HERE, 428, by="anna", json=body)
    again = {**body, "texts": body["texts"][:1], "done_when": {"kind": "read"}}
    call("PUT", GAOKAO + HERE, 412, by="anna", json=again, match='"9"')
    made = call("PUT", GAOKAO + HERE, 200, by="anna", json=again, match=made.headers["ETag"])
    assert [(v["version"], v["written_by"], len(v["texts"])) for v in made.json()["versions"]] == [
        (2, site.ids["anna"], 1),
        (1, site.ids["anna"], 2),
    ]
    call("PUT", GAOKAO + "?division=150600", 201, by="city", json=body)
    assert call("GET", GAOKAO + HERE, 200, by="city").json()["source"] == "own"

    shown = call("POST", GAOKAO + "/preview" + HERE, 200, by="reads", json={"first": "2027-06-07"}).json()
    [item] = shown["items"]
    assert (
        item["body"] == "康巴什区：还有7天，6月7日到6月9日。"
        and 200 < item["bytes"] < shown["limit"] == 2048
        and shown["missing"] == []
    )
    draft = {
        "first": "2027-06-07",
        "last": "2027-06-08",
        "texts": [{"language": "en", "title": "a", "body": "{first} to {last}"}],
    }
    shown = call("POST", GAOKAO + "/preview" + HERE, 200, by="anna", json=draft).json()
    assert (shown["items"][0]["body"], shown["missing"]) == ("7 June to 8 June", ["zh-Hans"])
    call("POST", GAOKAO + "/preview" + HERE, 422, by="anna", json={"first": "2027-06-07", "last": "2027-06-01"})

    call("DELETE", GAOKAO + HERE, 428, by="anna")
    call("DELETE", GAOKAO + HERE, 204, by="anna", match=made.headers["ETag"])
    back = call("GET", GAOKAO + HERE, 200, by="anna")
    assert (back.json()["source"], back.json()["division"], len(back.json()["versions"])) == ("above", "150600", 2)
    assert call("PUT", GAOKAO + HERE, 201, by="anna", json=body).json()["version"] == 3

    rows: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = call(
            "GET", f"/v1/staff/notice-templates{HERE}&limit=50" + (f"&cursor={cursor}" if cursor else ""), 200, by="anna"
        ).json()
        rows, cursor = rows + page["items"], page["next_cursor"]
    assert {f"{row['season']}:{row['lead']}:{row['audience']}" for row in rows} == templates.starter().keys() and len(
        rows
    ) == len(templates.starter())
    assert [row["source"] for row in rows if row["name"].startswith("gaokao:-7:parent")] == ["own"]
    few = call("GET", "/v1/staff/notice-templates?division=150600&season=results", 200, by="city").json()["items"]
    assert (
        {row["season"] for row in few} == {"results"}
        and {row["audience"] for row in few} <= AUDIENCES.keys()
        and SEASONS["results"].zh == few[0]["season_name"]["zh-Hans"]
    )
    plan = call("GET", "/v1/staff/notice-templates/emergencies", 200, by="far").json()["items"]
    assert [row["name"] for row in plan] == list(templates.emergencies())
    assert told.untold() == []

"""What an urgent notice may say, who answers for it, and who hears first; by table, without HTTP."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from content import published, staff, store
from content.failures import Invalid
from content.published import Item, Snapshot
from content.records import SYSTEM
from content.settings import Settings
from notifications import emergencies, inbox, notices, templates
from notifications.notices import Notice

HELP = "想找人说说，可拨 12356。"
ASK = {"audiences": ["parent"], "texts": {"zh-Hans": {"title": "给家长的短信", "body": HELP}}}

HOW = (
    "有人跳楼", "有人跳 楼", "有人跳\u200b楼", "有人跳\n楼", "有人跳樓", "他自殺了", "自·杀", "⾃杀", "坠-楼", "轻\u00ad生",
    "自\u0336杀", "从楼顶跳下", "从三楼的窗口跳了下去", "一跃而下", "吞药", "吞下一瓶药", "服药过量", "割脉", "喝農藥", "拿着刀",
    "ｓｕｉｃｉｄｅ", "s u i c i d e", "sui\u202acide", "an over-dose of pills", "jumped\nfrom a bridge", "killed himself",
    "fell from the school roof", "a knife", "stabbed", "took her own life", "амиа хорлосон", "Амиа\n хорлосон", "རང་སྲོག་གཅོད་པ",
    "자살", "ᠠᠮᠢ ᠪᠠᠨ ᠬᠣᠷᠣᠭᠰᠠᠨ",
)  # fmt: skip
PLAIN = (
    "请打电话报警：110。", "不搞一刀切。", "大家一起玩剪刀石头布。", "害怕的时候，心跳下不来，慢慢呼气。", "商店砍价",
    "从教学楼门口下车，再去跳绳。", "请按时吃药，多喝水。", "谨防煤气中毒和溺水。", "如果他说不想活了，别让他独处。",
    "暴雨将至，请不要下河。", "早上，吊车会进校园。", "expo is on Friday", "food poisoning", "talk it over, does he sleep?",
    "If they say they may hurt themselves, tell an adult.", "hang up the phone", "Амиа хайрла",
)  # fmt: skip


@pytest.mark.parametrize("text", HOW)
def test_a_method_is_found(text: str) -> None:
    assert emergencies.method(f"昨晚，{text}。大家很难过。") or emergencies.method(f"Last night: {text}.")


def test_no_method_in_plain_words_nor_in_what_the_library_says() -> None:
    ours = [part for one in (templates.starter(), templates.emergencies()) for t in one.values() for text in t.texts.values()
            for part in text.values()]  # fmt: skip
    assert len(ours) > 200
    assert {text: found for text in (*PLAIN, *ours) if (found := emergencies.method(text))} == {}


WHERE = (
    "东胜一中", "康巴什区第一中学", "鄂尔多斯市一中", "北师大附中", "某某实验小学", "阳光幼儿园", "内蒙古大学", "XX大学",
    "鄂尔多斯学院", "大同中学", "前进小学", "东胜区外国语学校", "101中学", "实验二小", "东胜一中学生", "阳光小学生病的孩子",
    "初三2班", "高一（3）班", "三年级二班", "三年2班", "七（3）班", "二班的同学", "初三2班主任", "幸福路12号", "幸福路十二号",
    "3号楼", "３号楼", "B座", "302室", "2单元", "5栋", "宿舍302", "教学楼", "宿舍楼", "天台", "天臺", "楼顶", "河边", "江边",
    "湖边", "水库", "东方花园小区", "幸福公寓", "东方花园", "東方花園小區", "康巴什區第一中學", "阳 光\u200b幼-儿·园",
    "东胜\n一中", "教\u0336学 楼", "阳光、幼儿园", "Dongsheng No. 1 Middle School", "Dongsheng Middle School",
    "dongsheng high school", "Sunshine Kindergarten", "Building 3", "building no. 3", "Room 302", "Class 3", "12 Happiness Road",
    "dormitory", "d o r m itory", "rooftop", "roof-top", "riverside",
)  # fmt: skip
ANYWHERE = (
    "学校", "中小学", "各中学", "全区中小学", "所有小学", "我区各中小学校", "幼儿园的家长", "大学生", "中学生", "小学生",
    "一年级的孩子", "高三学生", "高中阶段", "小区里的孩子", "社区", "路上", "一号", "12356", "在学校", "回到教室", "心理中心",
    "12355青少年服务台", "6月7日", "6月7号", "6月7号线上课", "第一时间", "区里的一个中心", "这一中心", "一中午", "集中小学生",
    "集中学习", "其中", "高中", "初中", "高一班主任", "周一班会", "在小区里", "我们小区", "孩子上大学",
    "幼儿园、小学、中学和大学", "今天停课，小学和幼儿园照常", "全区7号起停课", "知道7号停课", "从小学会", "孩子小学阶段",
    "大学生活", "回到教室，120", "schools", "primary school pupils", "middle school students", "your school", "at school",
    "all primary schools", "after high school", "Your School", "Back to School", "in class, 120", "12356 at any hour",
)  # fmt: skip


@pytest.mark.parametrize("text", WHERE)
def test_a_place_is_known_by_its_form(clean: None, text: str) -> None:
    for said in (text, f"昨晚，{text}。大家很难过。{HELP}", f"Last night: {text}. 12356"):
        assert emergencies.place(said), said
    assert codes(f"昨晚，{text}。{HELP}") == ["no_place"]


@pytest.mark.parametrize("text", ANYWHERE)
def test_a_word_for_any_place_is_none(text: str) -> None:
    for said in (text, f"昨晚，{text}。大家很难过。", f"{HELP}{text}，请放心。", f"We know: {text}. 12356"):
        assert emergencies.place(said) == "", said


def test_plan_texts_name_no_place() -> None:
    texts = [text for one in templates.emergencies().values() for text in one.texts.values()]
    said = [part for text in texts for part in text.values()]
    assert len(said) > 20
    assert {text: found for text in said if (found := emergencies.place(text))} == {}


def codes(body: str) -> list[str]:
    return [error.code for error in emergencies.faults({"zh-Hans": {"title": "短信", "body": body}})]


NUMBERS: tuple[tuple[str, list[str]], ...] = (
    ("请拨 12356。", []),
    ("请拨１２３５６。", []),
    ("请拨 123-56 或 12355", []),
    ("请拨 110 12356 120", []),
    ("请拨 (0477) 811-1111", []),
    ("请拨 110。", ["no_help_line"]),
    ("编号 9123569", ["personal_number", "no_help_line"]),
    ("门牌 912356", ["no_help_line"]),
    ("联系 13812356789", ["personal_number", "no_help_line"]),
    ("联系 138 12356 789", ["personal_number", "no_help_line"]),
    ("联系 13812356789，或 12356", ["personal_number"]),
    ("12356 13912345678", ["personal_number"]),
    ("1235613912345678", ["personal_number", "no_help_line"]),
    ("0477-8111111，王老师 0477-8222222", ["personal_number"]),
)


def test_only_whole_numbers_are_lines(clean: None) -> None:
    content = {"phones": [{"number": "0477-8111111"}, {"number": "110"}]}
    store.transaction(lambda session: published.release(session, [Item("service", "city", "zh-Hans", content)]))
    assert {body: codes(body) for body, _ in NUMBERS} == dict(NUMBERS)


def test_a_place_is_found_in_other_forms(clean: None) -> None:
    for name, kind in (("第八中学", "school"), ("一", "school"), ("☆", "community"), ("区教育局", "education")):
        staff.create_organisation(name, kind, "150603", SYSTEM)
    assert codes(f"第 八\u200b中學明天停课。{HELP}") == ["no_place"]
    assert codes(f"一起听区教育局的安排。{HELP}") == []


def test_eight_hundred_lines_cost_little() -> None:
    lines = {f"0477{number:07}" for number in range(8_000_000, 8_000_800)} | {"12356"}
    began = time.process_time()
    for _ in range(10):
        assert emergencies._number(HELP * 80, lines) is None
    assert (time.process_time() - began) / 10 < 0.05  # 183 ms when each line was looked for by itself


def test_offices_are_those_that_may_write_or_approve_and_never_a_school(clean: None) -> None:
    school, office = (
        staff.create_organisation(name, kind, "150603", SYSTEM).id for name, kind in (("八中", "school"), ("妇联", "federation"))
    )

    def account(name: str, *grants: staff.Grant) -> str:
        return str(staff.create_account(name, name, "correct horse battery", SYSTEM, grants=grants, must_change=False).id)

    elsewhere = staff.Grant("counsellor", "", "500114")
    both = account("anna", staff.Grant("organiser", office), staff.Grant("organiser", school), elsewhere)
    assert emergencies.offices([both, account("bold", staff.Grant("reviewer"))], "150600") == ["妇联", "鄂尔多斯市"]
    assert emergencies.offices([account("carl", staff.Grant("reviewer"))]) == ["全国"]
    assert emergencies.offices([account("dora", staff.Grant("editor", "", "150603")), "nobody"]) == []


FIRST = {
    "kind": "emergency",
    "state": "scheduled",
    "audiences": ["parent", "teacher"],
    "divisions": ["150600"],
    "stages": ["senior"],
}


@pytest.mark.parametrize(
    ("other", "where", "stages", "covers"),
    [
        ({}, ["150603"], ["senior.final"], True),
        ({}, ["150600", "150603"], ["senior"], True),
        ({"state": "sent", "stages": []}, ["150603"], [], True),
        ({"divisions": [], "stages": []}, [], [], True),
        ({}, [], ["senior"], False),
        ({}, ["150603", "500114"], ["senior"], False),
        ({}, ["150603"], [], False),
        ({}, ["150603"], ["senior", "junior"], False),
        ({"stages": ["senior.final"]}, ["150603"], ["senior"], False),
        ({"audiences": ["staff"]}, ["150603"], ["senior"], False),
        ({"audiences": ["parent", "student"]}, ["150603"], ["senior"], False),
        ({"kind": "general"}, ["150603"], ["senior"], False),
        *(({"state": state}, ["150603"], ["senior"], False) for state in ("cancelled", "expired")),
    ],
)
def test_the_adults_word_covers_the_students(other: dict[str, Any], where: list[str], stages: list[str], covers: bool) -> None:
    assert notices.covers_first({**FIRST, **other}, where, stages) is covers
    assert not notices.covers_first(None, where, stages)


def refused(near: Settings, by: str, kind: str = "general", **fields: Any) -> dict[str, str]:
    """What is wrong with a draft, by field."""
    try:
        notices.draft({**ASK, **fields}, by, near, store.now(), kind)
    except Invalid as failure:
        return {error.field: error.code for error in failure.errors}
    return {}


def told(body: str, title: str = "短信") -> Mapping[str, Mapping[str, str]]:
    return {"zh-Hans": {"title": title, "body": body}}


def test_what_may_be_drafted(near: Settings, people: tuple[str, str]) -> None:
    by = people[0]
    assert refused(near, by, urgent=True, texts=told("明天停课。")) == {}
    assert refused(near, by, urgent=True, texts=told("昨晚有人跳 楼。")) == {"texts.zh-Hans.body": "no_method"}
    assert refused(near, by, texts=told("昨晚有人跳 楼。")) == {}  # two persons read it, and nobody is woken
    assert refused(near, by, urgent=True, audiences=["student", "parent"]) == {"audiences": "urgent_students"}
    assert refused(near, by, "emergency", season="gaokao") == {"season": "emergency_season"}
    first = notices.draft({**ASK, "divisions": ["150603"]}, by, near, store.now(), "emergency")
    to_students = {"audiences": ["student"], "after": first.id}
    assert refused(near, by, "emergency", **to_students, divisions=["150603"]) == {}
    assert refused(near, by, "emergency", **to_students) == {"after": "not_covered"}
    assert refused(near, by, "emergency", **{**to_students, "after": "none"}) == {"after": "unknown_reference"}
    notices.cancel(first.id, by)
    assert refused(near, by, "emergency", **to_students, divisions=["150603"]) == {"after": "not_covered"}


def test_what_the_reader_does_is_there(near: Settings, people: tuple[str, str]) -> None:
    for done, found in (
        ({"kind": "read"}, {}),
        ({"kind": "read", "slug": "x"}, {"done_when.slug": "unknown_field"}),
        ({"kind": "lesson"}, {"done_when.slug": "required"}),
        ({"kind": "lesson", "slug": "no-such"}, {"done_when.slug": "unknown_reference"}),
        ({"kind": "check", "slug": "no-such"}, {"done_when.slug": "unknown_reference"}),
        ({"kind": "dance"}, {"done_when.kind": "not_one_of"}),
    ):
        assert refused(near, people[0], done_when=done) == found, done


def test_words_hide_nothing(near: Settings, people: tuple[str, str]) -> None:
    made = notices.draft({**ASK, "texts": told("一\u202e行\u2066\n\n二\u2028行", "=1\r\n=2\u202e")}, people[0], near, store.now())
    assert Notice.rows().find_one({"_id": made.id})["texts"] == {"zh-Hans": {"title": "=1 =2", "body": "一行\n\n二 行"}}
    blank = refused(near, people[0], texts=told("\u00ad \u3164\n", "\u200b\u2060"))
    assert blank == {"texts.zh-Hans.title": "required", "texts.zh-Hans.body": "required"}


def test_a_phone_that_was_elsewhere_is_not_stuck() -> None:
    now = store.now()
    content = {"id": "n", "audiences": ["parent"], "divisions": [], "stages": [], "expires_at": (now + timedelta(1)).isoformat()}
    items = {"notice": {"n": {"zh-Hans": Item("notice", "n", "zh-Hans", content, seq=8)}}}
    _, _, cursor = inbox.read(Snapshot(seq=7), now, since=10**15 - 1)
    assert cursor == 7
    assert [one["id"] for one in inbox.read(Snapshot(seq=8, kinds=items), now, since=cursor)[0]] == ["n"]

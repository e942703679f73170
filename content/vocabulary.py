"""Every coded list, with its labels in zh-Hans and en: the words of the plans, in one place.

A code is what is stored, sent and matched; a label is only shown. Codes are ASCII because FCM topic names must be.
Sources by plan: K Kangbashi, J Qianjiang, W Wuhan, Q Qingdao, P Pingliang.
"""

import functools
from collections.abc import Collection, Mapping
from typing import NamedTuple

from content.failures import Text, invalid


class Label(NamedTuple):
    """What a code is called."""

    zh: str
    en: str


AUDIENCES: Mapping[str, Label] = {
    "parent": Label("家长", "parents"),
    "student": Label("学生", "students"),
    "teacher": Label("教师", "teachers"),
    "staff": Label("工作人员", "staff"),
}

# The three voices in which one subject can be told, and whom each is for. A text without a voice is for all of its audiences.
VOICES: Mapping[str, tuple[str, ...]] = {"student": ("student",), "parent": ("parent",), "staff": ("staff", "teacher")}

STAGES: Mapping[str, Label] = {
    "infant": Label("0-3岁", "age 0-3"),
    "preschool": Label("3-6岁", "age 3-6"),
    "primary": Label("小学", "primary school"),
    "junior": Label("初中", "junior high school"),
    "senior": Label("高中", "senior high school"),
    "vocational": Label("中职", "vocational school"),
    "university": Label("大学", "university"),
}
# Grades by stage. Five-four systems (初四) put grade 6 into junior; the final-year flag then says which year is last.
GRADES: Mapping[str, range] = {
    "primary": range(1, 7),
    "junior": range(6, 10),
    "senior": range(10, 13),
    "vocational": range(1, 6),
    "university": range(1, 6),
}

# First and last grades, where they are known: five-four systems end primary with 5 and begin junior with 6; vocational schools
# and universities differ too much to say.
EDGES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "primary": {"entering": (1,), "final_year": (5, 6)},
    "junior": {"entering": (6, 7), "final_year": (9,)},
    "senior": {"entering": (10,), "final_year": (12,)},
}

TOPICS: Mapping[str, Label] = {
    "self": Label("认识自我", "knowing oneself"),  # J, the seven
    "life": Label("尊重生命", "respect for life"),
    "learning": Label("学会学习", "learning to learn"),
    "relationships": Label("人际交往", "getting along with others"),
    "emotion": Label("情绪调适", "handling feelings"),
    "career": Label("升学择业", "further study and work"),
    "adaptation": Label("生活和社会适应", "adapting to life and society"),
    "online_safety": Label("健康上网", "healthy use of the internet"),  # P, safety
    "bullying": Label("防欺凌", "against bullying"),
    "drowning": Label("防溺水", "against drowning"),
    "fraud": Label("防诈骗", "against fraud"),
    "abduction": Label("防拐卖", "against abduction"),
    "sexual_abuse": Label("防性侵", "against sexual abuse"),
    "traffic": Label("交通出行", "traffic"),
    "life_education": Label("生命教育", "life education"),  # K
    "family_affection": Label("亲情教育", "family affection"),
    "gaming": Label("网络沉迷与游戏障碍", "internet and gaming problems"),
    "career_planning": Label("职业生涯规划", "career planning"),
    "green_bookmark": Label("绿书签", "green bookmark"),
    "first_1000_days": Label("心理滋养1000天", "the first 1,000 days"),
    "perinatal": Label("孕产期", "around birth"),
    "two_ones": Label("两个一", "fifteen minutes of talk, one hour of sport"),  # K W
    "parenting": Label("家庭教育指导", "parent guidance"),  # W
    "help_seeking": Label("求助与支持", "finding help"),  # Q P
}

KINDS: Mapping[str, Label] = {
    "micro_lesson": Label("微课", "micro-lesson"),  # J
    "lecture": Label("直播讲座", "live lecture"),
    "tip": Label("小贴士", "tip"),
    "comic": Label("漫画", "comic"),
    "interview": Label("专家访谈", "expert interview"),
    "ebook": Label("电子书", "e-book"),
    "course": Label("网络课程", "online course"),
    "toolkit": Label("服务包", "toolkit"),
    "case": Label("案例", "case"),  # W
    "psychodrama": Label("心理剧", "psychodrama"),
    "game": Label("体验游戏", "experience game"),
    "story": Label("故事", "story"),
}

SEASONS: Mapping[str, Label] = {
    "enrolment": Label("入学季", "starting school"),  # W
    "finals": Label("期末（寒假前）", "winter end-of-term exams"),
    "finals_summer": Label("期末（暑假前）", "summer end-of-term exams"),
    "zhongkao": Label("中考", "senior high entrance exam"),
    "gaokao": Label("高考", "university entrance exam"),
    "results": Label("高考查分与志愿", "university entrance results and applications"),
    "zhongkao_results": Label("中考查分与志愿", "senior high entrance results and applications"),
    "graduation": Label("毕业季", "graduation"),
    "winter_break": Label("寒假", "winter holiday"),
    "summer_break": Label("暑假", "summer holiday"),
    "term_start": Label("开学适应（秋季）", "back to school in autumn"),
    "spring_term": Label("开学适应（春季）", "back to school in spring"),
    "mental_health_day": Label("世界精神卫生日", "World Mental Health Day"),  # J P
    "sleep_day": Label("世界睡眠日", "World Sleep Day"),  # J
    "families_week": Label("全国家庭教育宣传周", "family education week"),  # P, by law the week that holds 05-15
    "mental_health_month": Label("学生心理健康宣传教育月", "students' mental-health month"),
    "student_day": Label("5·25学生心理健康日", "students' mental-health day"),
    "children_day": Label("儿童节", "Children's Day"),
    "world_children_day": Label("世界儿童日", "World Children's Day"),
    "teachers_day": Label("教师节", "Teachers' Day"),
    "life_day": Label("珍爱生命日", "cherishing life day"),  # 09-10; a label is public, so it says no more than this
    "disability_day": Label("全国助残日", "national day of disabled persons"),
    "school_safety_day": Label("全国中小学生安全教育日", "school safety day"),
}

FORMATS: Mapping[str, Label] = {
    "lecture": Label("讲座", "lecture"),
    "salon": Label("沙龙", "salon"),  # W
    "group_work": Label("团体辅导", "group work"),
    "activity": Label("亲子活动", "parent-child activity"),
    "parents_meeting": Label("家长会", "parents' meeting"),  # K
    "class_hour": Label("课时", "class-hour"),  # J
}

PLACES: Mapping[str, Label] = {
    "school": Label("进学校", "in schools"),  # W, an open list
    "enterprise": Label("进企业", "in enterprises"),
    "community": Label("进社区", "in communities"),
    "online": Label("进网络", "online"),
    "office": Label("进机关", "in offices"),  # P
    "home": Label("进家庭", "in homes"),
    "holiday_care": Label("暑期托管班", "holiday care classes"),  # W
}

STEPS: Mapping[str, Label] = {  # W: four steps of parent guidance
    "know": Label("知", "know"),
    "use": Label("用", "use"),
    "can": Label("会", "be able"),
    "well": Label("好", "do well"),
}

TIMES: Mapping[str, Label] = {  # when a family could come
    "weekday_day": Label("工作日白天", "weekdays in the daytime"),
    "weekday_evening": Label("工作日晚上", "weekday evenings"),
    "weekend": Label("周末", "weekends"),
    "holidays": Label("寒暑假", "school holidays"),
}

LECTURERS: Mapping[str, Label] = {  # who gives courses
    "expert": Label("专家", "expert"),  # W Q
    "five_elders": Label("五老", "the five elders: retired officials, soldiers, experts, teachers, model workers"),
    "volunteer": Label("志愿者", "volunteer"),
    "doctor": Label("医生", "doctor"),  # of the hospitals, schools and offices that all five name; the list is ours
    "counsellor": Label("心理咨询师", "counsellor"),
    "teacher": Label("教师", "teacher"),
    "social_worker": Label("社会工作者", "social worker"),
    "other": Label("其他", "other"),
}

VOLUNTEERS: Mapping[str, Label] = {  # as what someone offers to help
    "lecturer": Label("讲师", "lecturer"),
    "helper": Label("志愿者", "helper"),
}

ORGANISATIONS: Mapping[str, Label] = {
    "federation": Label("妇联", "women's federation"),
    "school": Label("学校", "school"),
    "kindergarten": Label("幼儿园", "kindergarten"),
    "education": Label("教育委员会（教育局）", "education commission"),
    "health": Label("卫生健康委员会", "health commission"),
    "hospital": Label("医院", "hospital"),
    "station": Label("家庭教育指导站", "family-education station"),
    "community": Label("社区", "community"),
    "social_service": Label("社会服务机构", "social-service institution"),
}


class Stage(NamedTuple):
    """Who by schooling: a stage, perhaps a grade, perhaps "entering" or "final year" (初三, 高三 and their parents).

    As text: "junior", "junior.9", "junior.final", "senior.entering", "junior.9.final".
    """

    stage: str
    grade: int | None = None
    entering: bool = False
    final_year: bool = False

    @classmethod
    def parse(cls, text: str, field: str = "stages") -> "Stage":
        """From its text; raises `Invalid` that names `field`."""
        return _stage(str(text), field)

    def __str__(self) -> str:
        parts = [self.stage, str(self.grade or ""), "entering" if self.entering else "", "final" if self.final_year else ""]
        return ".".join(part for part in parts if part)

    def covers(self, reader: "Stage") -> bool:
        """Whether something meant for this stage is for such a reader. What the reader did not say excludes nothing that it
        could be: who says "senior.final" may be in grade 12 and not in grade 10."""
        return (
            self.stage == reader.stage
            and (self.grade is None or self.grade in reader._grades())
            and (not self.entering or reader._may_be("entering"))
            and (not self.final_year or reader._may_be("final_year"))
        )

    def _may_be(self, flag: str) -> bool:
        other = "final_year" if flag == "entering" else "entering"
        if getattr(self, flag) or getattr(self, other):
            return bool(getattr(self, flag))
        return self.grade is None or self.grade in EDGES.get(self.stage, {}).get(flag, GRADES.get(self.stage, range(0)))

    def _grades(self) -> Collection[int]:
        if self.grade is not None:
            return (self.grade,)
        edges = EDGES.get(self.stage, {})
        for flag in ("entering", "final_year"):
            if getattr(self, flag) and flag in edges:
                return edges[flag]
        return GRADES.get(self.stage, range(0))


@functools.lru_cache(1024)  # filters ask for every stage of every item; a failure is not kept
def _stage(text: str, field: str) -> Stage:
    name, *rest = text.split(".")
    if name not in STAGES:
        names = ", ".join(STAGES)
        raise invalid(
            field,
            "not_one_of",
            choices=Text(
                f"{names}；后面可加年级、入学或毕业年级，如 junior.9、senior.entering、senior.final",
                f"{names}; a grade, entering or final may follow, as in junior.9, senior.entering, senior.final",
            ),
        )
    grade, flags = None, {"entering": False, "final": False}
    for part in rest:
        if part in flags and not flags[part]:
            flags[part] = True
        elif len(part) <= 2 and part.isascii() and part.isdigit() and grade is None and int(part) in GRADES.get(name, range(0)):
            grade = int(part)
        else:
            raise invalid(
                field,
                "bad_format",
                reason=Text(
                    f"“{text}”；例：junior, junior.9, junior.9.final", f"“{text}”; e.g. junior, junior.9, junior.9.final"
                ),
            )
    return Stage(name, grade, flags["entering"], flags["final"])

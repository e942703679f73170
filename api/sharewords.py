"""The words of share pages and posters, in zh-Hans and en, and in which language a reader gets what."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from api import front
from api.shapes import settings
from content import languages
from content.vocabulary import Label

WEEKDAYS = (
    ("星期一", "Monday"), ("星期二", "Tuesday"), ("星期三", "Wednesday"), ("星期四", "Thursday"), ("星期五", "Friday"),
    ("星期六", "Saturday"), ("星期日", "Sunday"),
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WORDS: Mapping[str, Label] = {
    "courses": Label("家庭教育课程", "Family-education courses"),
    "when": Label("时间", "When"),
    "where": Label("地点", "Where"),
    "access": Label("怎么到", "Getting there"),
    "lecturer": Label("主讲", "Lecturer"),
    "for": Label("适合", "For"),
    "what": Label("内容", "About"),
    "held_in": Label("语言", "Held in"),
    "organiser": Label("主办", "Organiser"),
    "contact": Label("咨询", "Questions"),
    "places": Label("名额", "Seats"),
    "until": Label("报名截止", "Book until"),
    "everyone": Label("各年龄段", "every age"),
    "sessions": Label("场次", "Sessions"),
    "materials": Label("学习材料", "Materials"),
    "online": Label("线上；报名后可看到入口", "Online; the link is shown once you have booked"),
    "open": Label("可以报名", "Seats are free"),
    "few": Label("名额不多了", "Few seats are left"),
    "full": Label("名额已满", "All seats are taken"),
    "waiting_list": Label("可以排候补，有空位时按先后通知。", "You can join the waiting list; free seats are offered in order."),
    "no_waiting": Label("这一场不排候补，请看其他场次。", "There is no waiting list; please look at other sessions."),
    "cancelled": Label("已取消", "Cancelled"),
    "cancelled_more": Label("这一场不再举行，请不要前往。", "It will not take place. Please do not come."),
    "course_cancelled_more": Label("这门课程不再举办。", "This course is no longer held."),
    "moved": Label("已改期", "Moved"),
    "moved_from": Label("原定时间：", "It was planned for "),
    "finished": Label("已结束", "Over"),
    "finished_more": Label("欢迎看看其他场次。", "You are welcome at another session."),
    "begun": Label("正在进行", "Under way"),
    "begun_more": Label("报名已截止。", "Booking has closed."),
    "closed": Label("报名已截止", "Booking has closed"),
    "closed_more": Label("想来的话，请先问问主办方。", "If you would like to come, please ask the organiser first."),
    "provisional": Label("日期暂定", "The date is provisional"),
    "provisional_more": Label(
        "那一年的放假安排还没有公布，日期可能会调整。", "That year's public holidays are not known yet, so the date may change."
    ),
    "approval": Label("报名后由主办方确认。", "The organiser confirms each booking."),
    "book": Label("报名", "Book"),
    "plain": Label(
        "不需要注册。这里暂时不能填写报名，请用手机浏览器打开本页，或联系主办方：",
        "No account is needed. The form cannot be shown here: open this page in the phone's browser, or ask the organiser:",
    ),
    "family_name": Label("您的姓", "Your family name"),
    "phone": Label("手机号码", "Telephone"),
    "phone_wrong": Label("请填写能接通的手机号码。", "Please give a telephone number that can be reached."),
    "seats": Label("几个人来", "How many people"),
    "needs": Label(
        "有什么需要我们准备的（如轮椅、听力、带小孩）", "Anything we should prepare for (wheelchair, hearing, a small child)"
    ),
    "wait": Label("没有空位时，排候补", "If no seat is left, put me on the waiting list"),
    "optional": Label("（可不填）", "(optional)"),
    "send": Label("报名", "Book"),
    "privacy": Label(
        "姓和电话加密保存，只有主办方能看到，课程结束后 30 天内删除。",
        "Name and telephone are kept encrypted, seen by the organiser only, and erased within 30 days after the course.",
    ),
    "failed": Label("没有连上，请再试一次。", "There was no connection. Please try again."),
    "confirmed": Label("报名成功，到时见！", "You are booked. See you there!"),
    "requested": Label("已收到，等主办方确认。", "We have your request; the organiser will confirm it."),
    "waiting": Label("已排入候补。", "You are on the waiting list."),
    "keep_code": Label(
        "这是您的预约码，请截图或抄下来：查看、更改、取消都用它，别处查不到。",
        "This is your booking code. Take a screenshot or write it down: it alone lets you see, change or cancel your booking.",
    ),
    "mine": Label("查看或取消我的报名", "See or cancel my booking"),
    "my_booking": Label("我的报名", "My booking"),
    "code": Label("预约码", "Booking code"),
    "no_such_code": Label("没有找到这个预约码，请核对。", "There is no booking with this code. Please check it."),
    "see": Label("查看", "Open"),
    "plain_booking": Label(
        "这里暂时不能查看，请用手机浏览器打开本页，或联系主办方。",
        "This cannot be shown here: open this page in the phone's browser.",
    ),
    "sure": Label("确定吗？", "Are you sure?"),
    "ahead": Label("排在您前面的家庭：", "Families ahead of you: "),
    "answer_by": Label("请在这之前回复：", "Please answer by "),
    "accept": Label("接受名额", "Accept the seats"),
    "decline": Label("让给别人", "Leave them to others"),
    "leave": Label("不来了", "I cannot come"),
    "cancel_all": Label("全部取消", "Cancel everything"),
    "join": Label("线上入口", "Join online"),
    "is_requested": Label("待主办方确认", "The organiser has yet to confirm"),
    "is_confirmed": Label("已报名", "Booked"),
    "is_waiting": Label("候补中", "On the waiting list"),
    "is_offered": Label("有名额了，请回复", "Seats are offered to you: please answer"),
    "is_cancelled": Label("已取消", "Cancelled"),
    "is_declined": Label("您已让出名额", "You left the seats to others"),
    "is_expired": Label("没有及时回复，名额已给下一家", "There was no answer in time, and the seats went on"),
    "is_refused": Label("主办方未能安排", "The organiser could not arrange it"),
    "calendar": Label("加到日历", "Add to calendar"),
    "poster": Label("海报（打印页）", "Poster (page to print)"),
    "paper": Label("海报（PDF）", "Poster (PDF)"),
    "qr": Label("二维码", "QR code"),
    "scan": Label("扫码看详情、报名", "Scan for details and booking"),
    "no_account": Label("不需要注册。", "No account is needed."),
    "may_change": Label("如有变动，以扫码页面为准。", "If anything changes, the page behind the code has it."),
    "no_tracking": Label("本页不跟踪访问者，不需要登录。", "This page does not track you and needs no account."),
    "lost": Label("没有找到", "Not found"),
    "lost_more": Label(
        "这个链接没有对应的课程：可能抄漏了，或者需要主办方给的邀请链接。",
        "There is no course at this address: a part may be missing, or it needs the organiser's invitation link.",
    ),
    "away": Label("暂时打不开", "Not available just now"),
    "away_more": Label("请过一会儿再试。", "Please try again in a moment."),
}


class Reading(NamedTuple):
    """In which languages a page is written."""

    wanted: tuple[str, ...]
    ui: str
    """zh-Hans or en: of what the page says itself."""

    def say(self, code: str) -> str:
        """A word of the page."""
        return self.label(WORDS[code])

    def label(self, label: Label) -> str:
        """A label in the page's language."""
        return label.en if self.ui == "en" else label.zh

    def pick(self, texts: Mapping[str, Any]) -> str:
        """The best language there is for this reader; `texts` is not empty."""
        return languages.pick(texts, self.wanted, settings().language)

    def text(self, texts: Mapping[str, str] | None) -> dict[str, str]:
        """A text with how it is set; an empty one when there is none."""
        if not texts:
            return self.own("")
        language = self.pick(texts)
        return {"text": texts[language], **languages.written(language)}

    def own(self, text: str) -> dict[str, str]:
        """A text of the page's own."""
        return {"text": text, **languages.written(self.ui)}

    def moment(self, at: datetime) -> str:
        """A day and time on the clocks there."""
        zh, en = WEEKDAYS[at.weekday()]
        if self.ui == "en":
            return f"{en}, {at.day} {MONTHS[at.month - 1]} {at.year}, {at:%H:%M}"
        return f"{at.year}年{at.month}月{at.day}日 {zh} {at:%H:%M}"

    def span(self, starts: datetime, ends: datetime) -> str:
        """From when to when."""
        end = f"{ends:%H:%M}" if ends.date() == starts.date() else self.moment(ends)
        return f"{self.moment(starts)}–{end}" if ends.date() == starts.date() else f"{self.moment(starts)} – {end}"


def reading_of(language: str) -> Reading:
    """The reader's languages: the one named first, then the browser's."""
    wanted = tuple(dict.fromkeys([*([language] if language else []), *front.wanted()]))
    return Reading(wanted, languages.pick(["zh-Hans", "en"], wanted, "zh-Hans"))

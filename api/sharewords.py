"""The words of share pages and posters, in zh-Hans and en, and in which language a reader gets what."""

from collections.abc import Mapping
from datetime import date, datetime
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
    "waiting_list": Label(
        "可以排候补：有空位时按先后为您保留，请记得回“我的报名”看看。",
        "You can join the waiting list: what comes free is kept for you in order. Remember to look at your booking.",
    ),
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
    "book_full": Label("排候补", "Join the waiting list"),
    "book_whole": Label("报名整个系列", "Book the whole series"),
    "whole_more": Label(
        "一次报好现在还能报名的 {n} 场，以后可以单独退掉其中一场。只想来一场，请点上面那一场。",
        "This books all sessions that can be booked now ({n}); you can leave single ones later. For one session only, open it "
        "above.",
    ),
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
    "wait": Label("万一没有空位，就排候补", "If no seat is left by then, put me on the waiting list"),
    "waits_full": Label("名额已满，请把我排进候补", "All seats are taken: put me on the waiting list"),
    "waits_some": Label("哪一场没有空位，就排那一场的候补", "Where a session has no seat left, put me on its waiting list"),
    "optional": Label("（可不填）", "(optional)"),
    "send": Label("报名", "Book"),
    "send_full": Label("排候补", "Join the waiting list"),
    "privacy": Label(
        "姓和电话加密保存，只有主办方能看到（签到时承办单位也能看到姓），课程结束后 30 天内删除。",
        "Name and telephone are kept encrypted, seen by the organiser only (at the door the name by the host too), and erased "
        "within 30 days after the course.",
    ),
    "failed": Label("没有连上，请再试一次。", "There was no connection. Please try again."),
    "confirmed": Label("报名成功，到时见！", "You are booked. See you there!"),
    "requested": Label("已收到，等主办方确认。", "We have your request; the organiser will confirm it."),
    "left_out": Label("有 {n} 场没有空位，这次没有报上。", "Sessions without room, which are not booked: {n}"),
    "waiting": Label(
        "已排入候补。没有短信提醒：请每天回到“我的报名”看一看，有名额时会为您保留 12 小时（夜里不算）。",
        "You are on the waiting list. No text message will come: please look at your booking every day. Seats that come free are "
        "kept for you for 12 hours, nights not counted.",
    ),
    "keep_code": Label(
        "这是您的预约码，请截图或抄下来：查看、更改、取消都用它，别处查不到。",
        "This is your booking code. Take a screenshot or write it down: it alone lets you see, change or cancel your booking.",
    ),
    "mine": Label("查看、更改或取消我的报名", "See, change or cancel my booking"),
    "door": Label("到场时出示这个二维码", "Show this at the door"),
    "door_more": Label("只用来签到，打不开您的报名。", "It lets you in and does not open your booking."),
    "save_qr": Label("保存下面的二维码，以后扫它再打开报名", "Save this code to open your booking again"),
    "save_qr_more": Label(
        "谁有它，谁就能更改、取消您的报名，请不要给别人看；到场时也不用出示它。",
        "Whoever has it can change or cancel your booking. Do not show it to others, not at the door either.",
    ),
    "my_booking": Label("我的报名", "My booking"),
    "code": Label("预约码", "Booking code"),
    "no_such_code": Label("没有找到这个预约码，请核对。", "There is no booking with this code. Please check it."),
    "see": Label("查看", "Open"),
    "plain_booking": Label(
        "这里暂时不能查看，请用手机浏览器打开本页，或联系主办方（电话在课程页面的“咨询”一栏）：",
        "This cannot be shown here: open this page in the phone's browser, or ask the organiser (the course's page says how):",
    ),
    "inbox": Label("通知", "Messages"),
    "ask": Label("有问题请联系：", "Questions? Ask "),
    "change": Label("更改", "Change"),
    "change_more": Label("人数改在所有还没开始的场次上。", "The number changes in all sessions that are still to come."),
    "needs_new": Label("更改需要我们准备的（不改请留空）", "Change what we should prepare (leave empty to keep it)"),
    "save": Label("保存更改", "Save"),
    "saved": Label("已保存。", "Saved."),
    "nothing_new": Label("没有改动。", "Nothing was changed."),
    "people": Label("{n} 人", "seats: {n}"),
    "calendar_more": Label(
        "打不开时，把这个地址加到日历应用的“订阅”里。它只能看，不能更改报名：",
        "If that does not open, subscribe to this address in your calendar. It shows your sessions and changes nothing:",
    ),
    "say": Label("说说这一场怎么样", "Tell us how it was"),
    "say_send": Label("提交", "Send"),
    "said": Label("谢谢您的反馈，已经收到。", "Thank you: we have your answers."),
    "certificate": Label("学习证明", "Certificate of attendance"),
    "certificate_all": Label("参加过的全部场次：学习证明", "Certificate for all sessions attended"),
    "print_name": Label("印在证明上的姓名（可不填，留空手写）", "Name to be printed (leave empty to write it by hand)"),
    "which_seat": Label("第几位", "Which of you"),
    "make": Label("生成 PDF", "Make the PDF"),
    "made": Label("打开证明（PDF）", "Open the certificate (PDF)"),
    "made_more": Label(
        "姓名只印在这份文件上，我们不保存。聊天应用里打不开时，请用手机浏览器打开本页。",
        "The name is in this file only; we do not keep it. If a chat app cannot open it, open this page in the phone's browser.",
    ),
    "proved": Label("证明有效", "This certificate is valid"),
    "proved_more": Label(
        "这份学习证明由本服务出具，内容如下。姓名由领取人填写，这里不保存、也不显示。",
        "It was given out here, for what stands below. The name was entered by its holder; none is kept or shown here.",
    ),
    "proved_for": Label("活动", "Attended"),
    "of_sessions": Label("{n} 场", "Sessions: {n}"),
    "class_hours": Label("{n} 课时", "Class-hours: {n}"),
    "extent": Label("课时", "Extent"),
    "number": Label("编号", "Number"),
    "not_proved": Label("未能核验", "Not valid"),
    "not_proved_more": Label(
        "这个编号不是这里发出的证明，或者那一场后来取消了。如果是手工输入的，请再核对一遍。",
        "This number was not given out here, or its session was cancelled later. If you typed it, please check it again.",
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
    "is_off": Label("主办方已取消这一场", "Called off by the organiser"),
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

    def day(self, day: date) -> str:
        """A day."""
        return f"{day.day} {MONTHS[day.month - 1]} {day.year}" if self.ui == "en" else f"{day.year}年{day.month}月{day.day}日"

    def span(self, starts: datetime, ends: datetime) -> str:
        """From when to when."""
        end = f"{ends:%H:%M}" if ends.date() == starts.date() else self.moment(ends)
        return f"{self.moment(starts)}–{end}" if ends.date() == starts.date() else f"{self.moment(starts)} – {end}"


def reading_of(language: str) -> Reading:
    """The reader's languages: the one named first, then the browser's."""
    wanted = tuple(dict.fromkeys([*([language] if language else []), *front.wanted()]))
    return Reading(wanted, languages.pick(["zh-Hans", "en"], wanted, "zh-Hans"))

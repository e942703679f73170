"""Typed failures with a stable code and a text in zh-Hans and en.

A verb raises one of these; `api.errors` turns it into a problem detail (RFC 9457), the command line into one line.
Texts name the field, the reason and the mend, and never carry internals. Adding a code means adding its row to TEXTS:
a code without a row fails at once (and a test walks the source for codes).
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Text(NamedTuple):
    """One message in both languages; `{name}` places are filled from the failure's parameters. A parameter that has words of its
    own is a `Text` too (or a `vocabulary.Label`), so that each language is told in itself alone."""

    zh: str
    en: str

    def __str__(self) -> str:
        """Both, for whoever shows a parameter by itself (a log line, a report)."""
        return f"{self.zh} / {self.en}"

    def fill(self, params: dict[str, Any]) -> dict[str, str]:
        """The filled texts by language tag."""
        zh = {name: said(name, value, "zh") for name, value in params.items()}
        en = {name: said(name, value, "en") for name, value in params.items()}
        return {"zh-Hans": self.zh.format_map(zh), "en": self.en.format_map(en)}


def said(name: str, value: Any, language: str) -> Any:
    """A parameter as `language` ("zh" or "en") says it: its own words, the Chinese word of a `state` or an `action`, a `reason` that
    compares with a moment or a day ("< expires_at") in words, or itself."""
    if isinstance(value, tuple) and hasattr(value, language):
        return getattr(value, language)
    if name in {"state", "action"} and isinstance(value, str):
        return WORDS.get(value, value) if language == "zh" else value.replace("_", " ")
    if name == "reason" and isinstance(value, str) and (found := COMPARED.fullmatch(value)):
        return SIGNS[found[1]][language == "en"] + found[2]
    return value


# What is compared with is a field that ends in "_at", "_first" or "_last", or a day.
COMPARED = re.compile(r"([<>≤≥]) ((?:[a-z_]+_(?:at|first|last)\b|\d{4}-\d\d-\d\d).*)")
SIGNS = {
    "<": ("要早于 ", "must be before "),
    ">": ("要晚于 ", "must be after "),
    "≤": ("不能晚于 ", "must not be after "),
    "≥": ("不能早于 ", "must not be before "),
}

# The states and actions that texts name, in Chinese; in English the code is the word.
WORDS: dict[str, str] = {
    "draft": "草稿",
    "submitted": "已送审",
    "in_review": "审核中",
    "changes_requested": "待修改",
    "approved": "已通过",
    "scheduled": "已排期",
    "published": "已发布",
    "finished": "已结束",
    "withdrawn": "已撤回",
    "cancelled": "已取消",
    "expired": "已过期",
    "archived": "已归档",
    "drafted": "草稿",
    "due": "待发送",
    "claimed": "发送中",
    "accepted": "已收下",
    "removed": "已删除",
    "booked": "已预约",
    "called_off": "已由服务方取消",
    "done": "已完成",
    "open": "开放中",
    "closed": "已关闭",
    "answered": "已答复",
    "resolved": "已处理",
    "received": "已收到",
    "requested": "待确认",
    "confirmed": "已确认",
    "waiting": "候补中",
    "offered": "候补名额待确认",
    "declined": "已放弃",
    "refused": "未通过",
    "sending": "发送中",
    "sent": "已发送",
    "failed": "失败",
    "begun": "已开始",
    "over": "已结束",
    "free": "空闲",
    "taken": "已约满",
    "to come": "还没有开始",
    "edit": "修改",
    "submit": "送审",
    "approve": "批准",
    "request_changes": "退回修改",
    "publish": "发布",
    "schedule": "排期",
    "withdraw": "撤回",
    "cancel": "取消",
    "delete": "删除",
    "remove": "删除",
    "close": "关闭",
    "reopen": "重新开放",
    "move": "改期",
    "reply": "回复",
    "resolve": "标为已处理",
    "answer": "答复",
    "second": "附议",
    "send": "发送",
    "check in": "签到",
    "refuse": "婉拒",
}


TEXTS: dict[str, Text] = {
    # found and changed
    "not_found": Text("没有找到“{what}”。请核对地址或编号。", "“{what}” was not found. Check the address or the id."),
    "exists": Text("“{what}”已经存在。请换一个，或修改原有的。", "“{what}” exists already. Choose another or edit it."),
    "stale": Text(
        "内容已被别人修改过，您这次的改动没有保存。请重新读取后再改。",
        "Someone has changed this since you read it. Read it again and repeat the edit; nothing was saved.",
    ),
    "wrong_state": Text("当前状态“{state}”下不能{action}。", "Cannot {action} while the state is “{state}”."),
    "in_use": Text("“{what}”正被使用：{used_in}。请先解除引用。", "“{what}” is in use: {used_in}. Remove those uses first."),
    "second_person": Text(
        "需要另一位同事批准：作者本人，以及由作者创建的账号，都不能批准。",
        "A second person must approve: neither the author nor an account the author made counts.",
    ),
    "nothing_to_do": Text("没有可以{action}的内容。", "There is nothing to {action}."),
    "duplicate_key_body": Text(
        "同一个 Idempotency-Key 已用于另一个请求。请换一个新的键。",
        "This Idempotency-Key was used for a different request. Use a new key.",
    ),
    "in_progress": Text(
        "同一个 Idempotency-Key 的请求正在处理。请稍后再试。",
        "A request with this Idempotency-Key is being processed. Try again shortly.",
    ),
    # away
    "unavailable": Text(
        "数据服务暂时无法使用。请在 {retry_after} 秒后再试；已发布的内容仍可阅读。",
        "The data service is away. Try again in {retry_after} s; published content can still be read.",
    ),
    "overloaded": Text(
        "现在使用的人太多。请在 {retry_after} 秒后再试。", "Too many requests right now. Try again in {retry_after} s."
    ),
    "too_many_requests": Text("操作太频繁。请在 {retry_after} 秒后再试。", "Too many requests. Try again in {retry_after} s."),
    # who
    "not_signed_in": Text("请先登录。", "Sign in first."),
    "session_ended": Text("登录已失效。请重新登录。", "The session has ended. Sign in again."),
    "wrong_credentials": Text("用户名、密码或验证码不对。", "The name, password or one-time code is not right."),
    "slow_down": Text(
        "登录失败次数较多。请在 {retry_after} 秒后再试，账号不会被永久锁定。",
        "Too many failed sign-ins. Try again in {retry_after} s; the account is never locked for good.",
    ),
    "not_allowed": Text(
        "您的角色不能进行这项操作，或该内容不属于您的机构或区域。",
        "Your role may not do this, or it belongs to another organisation or division.",
    ),
    "own_account": Text(
        "不能修改自己的角色、状态或验证方式。请另一位管理员来做。",
        "Nobody changes the own roles, state or second factor. Ask another administrator.",
    ),
    "must_change_password": Text(
        "请先修改初始密码（POST /v1/staff/me/password）。", "Change the given password first (POST /v1/staff/me/password)."
    ),
    "weak_password": Text(
        "“{field}”太容易被猜到，或与原来相同。请换一个更长、不常见的密码。",
        "“{field}” is easily guessed, or is the old one. Choose a longer, less common password.",
    ),
    "separate_duties": Text(
        "管理账号的人不能同时编写、审核内容。请为其另设账号。",
        "Whoever administers accounts neither writes nor approves content. Make a separate account.",
    ),
    # input
    "invalid": Text("提交的内容有误，请按下列各项修改。", "The input is not valid; mend the fields listed."),
    "required": Text("“{field}”必须填写。", "“{field}” is required."),
    "unknown_field": Text("不认识“{field}”。请删去，或核对拼写。", "“{field}” is not known. Remove it or check the spelling."),
    "wrong_type": Text("“{field}”的类型不对：{reason}", "“{field}” has the wrong type: {reason}"),
    "not_one_of": Text("“{field}”只能是：{choices}。", "“{field}” must be one of: {choices}."),
    "out_of_range": Text("“{field}”超出范围：{reason}", "“{field}” is out of range: {reason}"),
    "bad_format": Text("“{field}”的格式不对：{reason}", "“{field}” is not in the right form: {reason}"),
    "unknown_reference": Text("“{field}”引用了不存在的“{value}”。", "“{field}” names “{value}”, which does not exist."),
    "incomplete": Text("还缺少：{missing}。补齐后才能继续。", "Still missing: {missing}. Complete it first."),
    "bad_json": Text("请求内容不是有效的 JSON：{reason}", "The body is not valid JSON: {reason}"),
    "too_large": Text("内容太大，上限为 {limit}。", "The body is too large; the limit is {limit}."),
    "bad_cursor": Text("翻页标记无效。请从第一页重新开始。", "The cursor is not valid. Start again at the first page."),
    "start_over": Text(
        "这个同步标记已不能接着用（内容已恢复、清理，或选择已改变）。请取内容包，或不带标记重新同步；取完再替换手机里原有的内容。",
        "This cursor leads nowhere any more (restored, purged, or for another selection). Take a pack, or sync without a cursor; "
        "drop what you hold once the new set is there.",
    ),
    "if_match_required": Text(
        "修改时必须带上 If-Match，值为读取时得到的 ETag。", "An edit needs If-Match with the ETag that you got when reading."
    ),
    "bad_request": Text("请求无法理解。", "The request cannot be understood."),
    "method_not_allowed": Text(
        "此地址不支持该方法，可用的方法：{allow}。", "This address does not take that method; it takes: {allow}."
    ),
    "unsupported_type": Text("请用 {expected} 格式发送。", "Send the body as {expected}."),
    "not_acceptable": Text("无法按所要求的格式回答。", "Cannot answer in the form asked for."),
    "internal": Text("服务出错，已记录。请稍后再试。", "Something went wrong here and was recorded. Try again later."),
    # bookings
    "full": Text(
        "名额已满，或此号码在本场的名额已到上限。",
        "There are no seats left, or this telephone has its four seats already.",
    ),
    "closed": Text("报名已截止。", "Booking has closed."),
    "slot_taken": Text("这个时间刚被约走，请另选一个。", "Somebody has just taken this time. Please choose another."),
    "sessions_coming": Text(
        "课程还有没上的场次（{session}）。请先取消这些场次。",
        "The series has sessions to come ({session}). Cancel these sessions first.",
    ),
    "own_demand": Text("这是您自己提的需求，不用附议。", "This is your own demand; it needs no second from you."),
    "offer_over": Text(
        "候补名额的保留时间已过，或已处理。请重新查看您的报名。",
        "That offer is over or was answered. Look at your booking again.",
    ),
    "too_early": Text(
        "开始前 24 小时以上，候补按先后自动递补，不能人工给位。",
        "Until a day before the start the waiting list moves by itself, in its order; seats are given by hand only after that.",
    ),
    "feedback_given": Text(
        "您的反馈已经收到，谢谢！每个报名只填一次。",
        "We have your feedback already, thank you! It is given once for each booking.",
    ),
    "feedback_closed": Text(
        "反馈从开课后填写，到结束后 14 天为止，名额确认的家庭可以填写。",
        "Feedback is open to families with confirmed seats, from the start until fourteen days after the end.",
    ),
    "no_certificate": Text("不能开具证明：{reason}。", "There is no certificate: {reason}."),
    "too_late": Text(
        "离开始不到一小时，已不能在这里取消。来不了也没关系，请打电话跟对方说一声；您留下的信息之后会自动删除。",
        "It begins within the hour and can no longer be cancelled here. If you cannot come, that is all right: please telephone the "
        "service. What you left is erased later by itself.",
    ),
    # planning
    "bad_recurrence": Text("“{field}”：{zh}", "“{field}”: {en}"),
    "unusual_date": Text(
        "“{field}”比往年（{usual} 前后）差了两个月以上。请核对月份；确实如此，请带上 despite_unusual。",
        "“{field}” is more than two months from the usual date ({usual}). Check the month; if it is right, send despite_unusual.",
    ),
    "clash": Text(
        "时间有冲突：{what}。请改时间、场地或讲师；确定要这样安排，请带上 despite_clashes。",
        "A clash: {what}. Change the time, the venue or the lecturer, or send despite_clashes.",
    ),
    # demand lists
    "personal_number": Text(
        "“{field}”里像是有{what}（{found}）。请删去后再提交：不要写任何人的电话、证件号或邮箱。",
        "“{field}” seems to hold {what} ({found}). Take it out and send it again: nobody's telephone, identity number or e-mail.",
    ),
    # media
    "not_what_it_says": Text(
        "文件没有通过检查，请按下列原因处理后重新上传。", "The file did not pass; mend what is listed and upload it again."
    ),
    "file_signature": Text(
        "文件内容不是 {content_type}，而像是 {seems}。请选择真正的 {content_type} 文件。",
        "The content is not {content_type} but looks like {seems}. Choose a real {content_type} file.",
    ),
    "file_size": Text(
        "收到的大小或类型与申请时不同。请重新上传。", "Its size or type is not what was announced. Upload it again."
    ),
    "file_damaged": Text("文件不完整或已损坏。请重新导出后上传。", "The file is damaged or cut short. Export it again."),
    "file_pixels": Text(
        "图片超过 {limit} 百万像素。请缩小后上传。", "The image has more than {limit} megapixels. Make it smaller."
    ),
    "file_animated": Text(
        "不接受动图。请上传静止图片，或改用视频。", "Moving images are not taken. Upload a still one or a video."
    ),
    "file_foreign": Text(
        "文件里夹带了别的内容（{what}）。请重新导出。", "Something else rides in the file ({what}). Export it again."
    ),
    "file_active": Text(
        "文件含有会自动执行的内容（{what}）。请去掉后重新导出。", "The file would act by itself ({what}). Export it without."
    ),
    "file_encrypted": Text("文件已加密。请去掉密码后上传。", "The file is encrypted. Remove the password."),
    "file_opaque": Text(
        "文件有无法检查的部分（{what}）。请重新导出。", "A part cannot be looked into ({what}). Export it again."
    ),
    "upload_changed": Text(
        "检查期间文件又被上传了一次。请等上传结束后再确认。",
        "It was uploaded again while being checked. Accept it once uploading has ended.",
    ),
    "upload_incomplete": Text(
        "还缺第 {missing} 段。请续传后再确认。", "Parts {missing} have not arrived. Send them, then accept."
    ),
    "not_captions": Text(
        "“{what}”不是已收下的字幕文件（text/vtt）。请先上传并确认字幕。",
        "“{what}” is not an accepted caption file (text/vtt). Upload and accept it first.",
    ),
    "upload_missing": Text("还没有收到文件。请先上传，再确认。", "No file has arrived. Upload it, then accept."),
    # notices and questionnaires
    "not_asked": Text(
        "“{field}”在这些回答下不会被问到，或不由服务器计分。请去掉这个回答。",
        "“{field}” is not asked under these answers, or is not answered here. Leave it out.",
    ),
    "circular": Text(
        "“{field}”的出现条件绕回了它自己。请改掉其中一个条件。", "“{field}” is asked on a condition that leads back to itself."
    ),
    "old_version": Text(
        "这份自评已更新。请重新打开自评再作答，求助信息见下。",
        "This check has been updated. Open it again and answer afresh; ways to get help come with this answer.",
    ),
    # kept results
    "receipt_mistyped": Text(
        "凭据有输错的数字。请对照保存的卡片再输一次，共 28 个数字。",
        "A digit of the receipt is wrong. Compare it with the card you saved and type all 28 digits again.",
    ),
    "unknown_receipt": Text(
        "这个凭据下没有保存的结果：可能已经删除，或者过了保存期。",
        "Nothing is kept under this receipt: it was erased, or its time is over.",
    ),
    "other_day": Text(
        "“{field}”不是今天的（今天是 {today}）。请不要换一个再发：昨天的那一次可能已经计入。",
        "“{field}” is not of today, {today}. Drop it and send no other in its place: it may have been counted yesterday.",
    ),
    "not_a_quiz": Text(
        "“{value}”的用途（purpose）是 {purpose}，不是知识问答。抽样测评请选用途为 knowledge 的问卷。",
        "“{value}” is a check whose purpose is {purpose}. A round is made of a quiz, whose purpose is knowledge.",
    ),
    "not_counted": Text(
        "“{field}”要写本服务（{reach}）范围内的区县，“{value}”不是。不填也可以。",
        "“{field}” names a county within {reach}, which {value} is not. It may be left out.",
    ),
    "unknown_code": Text(
        "这个答题码不对，或者已经用过。请核对后再试。", "This code is not known or has been used. Check it and try again."
    ),
    "payload_too_large": Text(
        "推送内容为 {size} 字节，上限 {limit} 字节。请缩短。", "The push is {size} bytes; the limit is {limit}. Shorten it."
    ),
    "bad_placeholder": Text(
        "“{field}”（{language}）里的“{placeholder}”不是可以填写的位置。只能用 {choices}，文中不要有别的花括号。",
        "“{field}” ({language}) holds “{placeholder}”, which is no placeholder. Use {choices} and no other braces.",
    ),
    "nobody_saved": Text(
        "这是系统按日历起草的，还没有人看过。请先由一人打开并保存（可不改动），再由另一人批准。",
        "The calendar drafted this and nobody has read it yet. One person saves it first (as it is, if you like); another approves.",
    ),
    "follows_season": Text(
        "季节通知的日期跟随季节，应在 {day}；只能改当天的时刻。要换日期，请改季节日期，或另写一条通知。",
        "A season notice keeps its season's day, {day}; only its time may change. Correct the season's date, or write another notice.",
    ),
    "other_year": Text(
        "这几天已经确认为 {year} 年的同一季节。请核对日期；要改年份，请先撤回那一条。",
        "These days are confirmed as the same season of {year}. Check the dates; to change the year, take that one back first.",
    ),
    "calendars_own": Text(
        "“{field}”由日历决定，季节通知里不能改；可改文字和当天的时刻。要发给别的对象，请另写一条通知。",
        "“{field}” is the calendar's: of a season notice the words and the hour may be changed. Write another notice for others.",
    ),
    "approved_hour": Text(
        "紧急发送的时刻须和批准时一致，不能另排。请先取消，改好 send_at 后重新请人批准。",
        "An urgent notice leaves at the hour that was approved. Cancel it, write it with another send_at and have it approved again.",
    ),
    "adults_first": Text(
        "紧急通知先发给大人。给学生的另写一条，在 after 里写上发给大人的那一条，半小时后才发出。",
        "In an emergency adults hear first. Write another notice for students and name the adults' one in `after`; it follows half an hour later.",
    ),
    "not_covered": Text(
        "“{field}”那条通知管不到这些学生：它要是发给家长的紧急通知，区划和学段都包括这一条的，并且没有取消、过期或被拒。",
        "The notice in “{field}” does not go before this one: it must be an emergency notice to parents, of all these divisions and stages, "
        "that was not cancelled, expired or refused.",
    ),
    "urgent_students": Text(
        "加急通知夜里也会响，不直接发给学生。请去掉 urgent；若有紧急情况，请写 kind 为 emergency 的通知，让大人先知道。",
        "An urgent notice rings at night too and does not go to students. Take `urgent` off; if there is an emergency, write one of kind "
        "emergency, so that adults know first.",
    ),
    "emergency_season": Text(
        "紧急通知不属于任何时节，不等日期确认。请去掉“{field}”。",
        "An emergency notice belongs to no season and waits for no date. Take “{field}” off.",
    ),
    "no_method": Text(
        "加急和紧急通知不写方式和细节（“{found}”）。请只写发生了一件让人难过的事，以及可以怎样互相支持。",
        "An urgent notice names no method or detail (“{found}”). Say only that something sad happened and how to support each other.",
    ),
    "no_place": Text(
        "“{field}”里像是有一个地点（{found}）。请不写学校、班级、小区、地址和具体位置；用区域来限定对象。",
        "“{field}” seems to name a place ({found}). Name no school, class, neighbourhood, address or spot: its divisions say whom it is for.",
    ),
    "no_help_line": Text("正文里要有求助电话，例如 {line}。", "The text must name a help line, such as {line}."),
    "unconfirmed_date": Text(
        "“{what}”在当地的日期还没有确认，不能安排发送。请先确认日期。",
        "The local date of “{what}” is not confirmed, so nothing can be scheduled. Confirm the date first.",
    ),
    # archives
    "archive_file": Text(
        "存档中的“{field}”有误：{reason}。什么也没有写入；请换一份完整的存档。",
        "“{field}” of the archive is wrong: {reason}. Nothing was written; use a whole copy of it.",
    ),
    "archive_folder": Text(
        "“{what}”既不是空文件夹，也不只是本项目的存档（{reason}）。请换一个文件夹。",
        "“{what}” is neither an empty folder nor just an archive of ours ({reason}). Choose another folder.",
    ),
    "archive_busy": Text(
        "读了 {times} 遍，每遍都有人在修改。请在安静的时候再导出。",
        "Somebody was writing during each of {times} readings. Export again in a quiet minute.",
    ),
    "archive_store": Text(
        "这里已有内容：{found}。存档只能导入还没有内容的服务：请换一个空的 XINQIAO_VAR 或数据库启动，然后再导入。",
        "There is content here: {found}. An archive goes into a store without any: start the service on another XINQIAO_VAR or "
        "database, then import.",
    ),
    "unsupported": Text("不支持“{what}”（{where}）。{reason}", "“{what}” is not supported ({where}). {reason}"),
}


# What to do about a `wrong_state`, by state and action, where it is not plain.
MENDS: dict[tuple[str, str], Text] = {
    ("drafted", "schedule"): Text("请先由另一位同事批准。", " A second person approves it first."),
}


class FieldError(NamedTuple):
    """One thing wrong with one field: its path ("body.en.title"), a code of TEXTS and that text's parameters."""

    field: str
    code: str
    params: dict[str, Any] = {}

    @property
    def messages(self) -> dict[str, str]:
        """The text by language tag."""
        return TEXTS[self.code].fill({"field": self.field, **self.params})


class Failure(Exception):
    """Base of all expected failures. `code` is a key of TEXTS; keyword parameters fill the text."""

    code = "internal"

    def __init__(self, code: str | None = None, **params: Any) -> None:
        self.code = code or type(self).code
        self.params = params
        super().__init__(self.messages["en"])

    @property
    def messages(self) -> dict[str, str]:
        """The text by language tag ("zh-Hans", "en")."""
        text = TEXTS[self.code]
        mend = MENDS.get((self.params.get("state", ""), self.params.get("action", ""))) if self.code == "wrong_state" else None
        return (Text(text.zh + mend.zh, text.en + mend.en) if mend else text).fill(self.params)


class NotFound(Failure):
    """No such thing, or not visible to the asker; parameter `what`."""

    code = "not_found"


class Conflict(Failure):
    """The state of things forbids it (exists already, wrong state, in use, full)."""

    code = "wrong_state"


class Stale(Failure):
    """The document was changed after the caller read it."""

    code = "stale"


class Forbidden(Failure):
    """The asker is known and may not."""

    code = "not_allowed"


class NotSignedIn(Failure):
    """The asker is not known."""

    code = "not_signed_in"


class TooMany(Failure):
    """Slow down; parameter `retry_after` in whole seconds."""

    code = "too_many_requests"


class Unavailable(Failure):
    """A server we depend on is away; parameter `retry_after` in whole seconds."""

    code = "unavailable"

    def __init__(self, code: str | None = None, retry_after: int = 2, **params: Any) -> None:
        super().__init__(code, retry_after=retry_after, **params)


class Invalid(Failure):
    """The input is wrong; `errors` lists every field at once so that one round mends all."""

    code = "invalid"

    def __init__(self, errors: Sequence[FieldError], code: str | None = None, **params: Any) -> None:
        self.errors = list(errors)
        super().__init__(code, **params)

    def __str__(self) -> str:
        return "; ".join(error.messages["en"] for error in self.errors) or self.messages["en"]


def invalid(field: str, code: str, **params: Any) -> Invalid:
    """An `Invalid` with one field error, for the common case."""
    return Invalid([FieldError(field, code, params)])

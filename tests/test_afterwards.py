"""After a session: families say how it was and nobody learns who said what; certificates prove themselves; lecturers get sums."""

import io
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from threading import Barrier
from typing import Any

import pytest
import requests
from bson import encode
from pypdf import PdfReader

from content import attendance, bookings, certificates, courses, feedback, printing, records, sealed, sessions, store
from content.attendance import Item, WalkIn
from content.bookings import KEEP, Place
from content.certificates import Facts
from content.courses import CourseSession
from tests.site import PASSWORD, Clock, Site
from tests.test_courses import SERIES, federation, session_values

HOUR, DAY = 3600, 86400
NAMES = ("欧阳沐清", "司马青云")
TOPIC = {
    "code": "topic", "text": {"zh-Hans": "最想听什么？", "en": "What would you like to hear?"}, "required": False,
    "options": [{"code": "sleep", "text": {"zh-Hans": "睡眠"}}, {"code": "phone", "text": {"zh-Hans": "手机"}}],
}  # fmt: skip


def evening(site: Site, own: str = "org1", **more: Any) -> str:
    """Id of a published session that starts in two hours and takes two, of an organisation with an organiser `ann`."""
    if not records.Audit.rows().find_one({"kind": "organisation", "key": own}):
        federation(own)
        site.person("ann" if own == "org1" else own, "organiser", organisation=own)
    facts = {
        **SERIES, "organisation": own, "questions": [TOPIC],
        "organiser_name": {"zh-Hans": "康巴什区妇联", "en": "Women's Federation"},
        "texts": {"zh-Hans": {"title": "家长学校", "summary": "四次晚间小课"}, "en": {"title": "Parent school", "summary": ""}},
    }  # fmt: skip
    made = courses.create_series(facts, "ann")
    courses.publish_series(made.id, "ann", second_person=False)
    return dated(site, str(made.id), 2, **more)


def dated(site: Site, series: str, hours: float, **more: Any) -> str:
    """Id of a published session of a series, in so many hours."""
    start = (store.now() + timedelta(hours=hours)).replace(second=0, microsecond=0)
    about = {
        "title": {"zh-Hans": "亲子沟通", "en": "Talking together"}, "lecturer": {"name": {"zh-Hans": "李老师"}}, "class_hours": 2,
        "starts_at": start, "ends_at": start + timedelta(hours=2), "capacity": 30,
    }  # fmt: skip
    session = sessions.create_session(series, session_values(**{**about, **more}), "ann")
    sessions.publish_session(session.id, "ann")
    site.refresh()
    return str(session.id)


def family(site: Site, session: str, n: int = 0, seats: int = 1, **more: Any) -> str:
    """The code of the n-th family's booking."""
    wish = {"family_name": "王", "phone": f"138{n:08d}", "seats": seats, **more}
    reply = site.post(f"/v1/sessions/{session}/bookings", wish)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["code"])


def let_in(session: str, code: str, seats: int | None = None) -> None:
    """At the door."""
    booking = attendance.booking_of(attendance.token(code))
    done = attendance.upload(session, "ann", [Item(store.new_id(), booking, seats=seats)])
    assert done.items[0].outcome == "in"


def say(site: Site, code: str, session: str, useful: int = 5, at_home: str = "yes", comment: str = "") -> requests.Response:
    """What a family sends."""
    body = {"useful": useful, "try_at_home": at_home, "comment": comment}
    return site.post(f"/v1/bookings/{code}/places/{session}/feedback", body)


def place(site: Site, code: str, language: str = "zh-Hans") -> dict[str, Any]:
    """`feedback` of a booking's only place."""
    shown = site.get(f"/v1/bookings/{code}", headers={"Accept-Language": language})
    return dict(shown.json()["places"][0]["feedback"])


def ask(site: Site, path: str, method: str = "GET", by: str = "ann", **more: Any) -> requests.Response:
    """A request of staff, signed in again when need be: sessions end while the clock is moved on."""
    reply = site.call(method, path, by=by, **more)
    if reply.status_code != 401:
        return reply
    site.tokens[by] = site.post("/v1/staff/session", {"name": by, "password": PASSWORD}).json()["access_token"]
    return site.call(method, path, by=by, **more)


def summed(site: Site, session: str, by: str = "ann") -> dict[str, Any]:
    """What the organiser gets."""
    reply = ask(site, f"/v1/staff/sessions/{session}/summary", by=by)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def dump() -> bytes:
    """All that the database has."""
    db = store.database()
    return b"".join(encode(row) for name in db.list_collection_names() if name != sealed.VAULT for row in db[name].find())


def paper(reply: requests.Response) -> str:
    """The words of a PDF that was answered."""
    assert reply.status_code == 200, reply.text
    assert (reply.headers["Content-Type"], reply.headers["Cache-Control"]) == ("application/pdf", "no-store")
    read = PdfReader(io.BytesIO(reply.content))
    assert len(read.pages) == 1
    return read.pages[0].extract_text().replace("\0", "")


# --- feedback --------------------------------------------------------------------------------------------------------


def test_feedback_is_told_by_fives_and_to_nobody_who_said_what(
    site: Site, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session = evening(site)
    codes = [family(site, session, n) for n in range(11)]
    early = place(site, codes[0])
    assert (early["open"], early["given"], early["questions"]) == (False, False, [])
    assert say(site, codes[0], session).json()["code"] == "feedback_closed"
    clock(2.5 * HOUR)
    asked = place(site, codes[0], "en")
    assert asked["open"] and [one["code"] for one in asked["questions"]] == ["useful", "try_at_home", "comment"]
    assert asked["questions"][0]["text"] == "Was this session helpful to you?"
    assert [one["code"] for one in asked["questions"][1]["options"]] == ["yes", "maybe", "no"]
    told = []
    for n, code in enumerate(codes):
        comment = f"第{n}家的话" if n % 2 else ""
        assert say(site, code, session, 1 + n % 5, "no" if n == 3 else "yes", comment).status_code == 204
        there = summed(site, session)
        told.append(json.dumps(there["feedback"], sort_keys=True))
        assert there["feedback"]["told"] == (n >= 4)
    assert [len(set(told[a:b])) for a, b in ((0, 4), (4, 9), (9, 11))] == [1, 1, 1]  # nothing moves within a step
    assert "家的话" not in told[3] and json.loads(told[3]) == {"told": False, "answers": 0, "questions": [], "comments": []}
    last = json.loads(told[-1])
    assert last["answers"] == 10 and sorted(last["comments"]) == [f"第{n}家的话" for n in (1, 3, 5, 7, 9)]
    counts = {one["code"]: {o["code"]: o["count"] for o in one["options"]} for one in last["questions"]}
    assert counts == {"useful": dict.fromkeys("12345", 2), "try_at_home": {"yes": 9, "maybe": 0, "no": 1}}

    # once for each place, and the place knows that much
    again = say(site, codes[0], session, 1, "no")
    assert (again.status_code, again.json()["code"]) == (409, "feedback_given") and "谢谢" in again.json()["messages"]["zh-Hans"]
    after = place(site, codes[0])
    assert (after["open"], after["given"], after["questions"]) == (False, True, [])
    assert summed(site, session)["feedback"] == last
    # no row has an answer beside a place, booking or time
    assert {name for row in Place.rows().find() for name in row} == {
        "_id", "booking", "session", "series", "seats", "number", "state", "history", "told", "expires_at", "feedback"
    }  # fmt: skip
    assert set(feedback.Feedback.rows().find_one()) == {"_id", "counts"}
    waiting = feedback.Waiting.rows().find_one()
    assert set(waiting) == {"_id", "counts", "unsaid", "comments", "expires_at"} and len(waiting["comments"]) == 5
    assert [bytes(one) for one in waiting["comments"]] == sorted(bytes(one) for one in waiting["comments"])
    assert "家的话".encode() not in dump() and "家的话" not in caplog.text
    assert not [code for code in codes if code in caplog.text]


def test_feedback_asks_for_a_confirmed_place_in_time(site: Site, clock: Clock) -> None:
    session = evening(site, capacity=2)
    other = dated(site, sessions.session(session).series, 2)
    code, gone = family(site, session), family(site, session, 1)
    assert site.call("DELETE", f"/v1/bookings/{gone}").status_code == 200
    family(site, session, 2)
    waits = family(site, session, 3, wait=True)
    off = family(site, other, 4)
    sessions.cancel_session(other, "ann")
    clock(2.1 * HOUR)
    for held, there in ((gone, session), (waits, session), (off, other)):
        assert (say(site, held, there).status_code, place(site, held)["open"]) == (409, False)
    assert say(site, code, other).status_code == 404 == say(site, "00000-00000-00000", session).status_code
    at = f"/v1/bookings/{code}/places/{session}/feedback"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"useful": 6}, "useful"), ({"useful": True}, "useful"), ({"try_at_home": "perhaps"}, "try_at_home"),
        ({"name": "王"}, "name"), ({"comment": "x" * 301}, "comment"), ({"comment": "请打 138 0013 8000"}, "comment"),
    ]  # fmt: skip
    for body, field in wrong:
        reply = site.post(at, {"useful": 3, "try_at_home": "maybe", **body})
        assert reply.status_code == 422 and [one["field"] for one in reply.json()["errors"]] == [field], reply.text
    assert not place(site, code)["given"]
    clock(2 * HOUR + 14 * DAY - 0.2 * HOUR)  # a minute or so before its end
    assert place(site, code)["open"]
    clock(0.2 * HOUR)
    assert say(site, code, session).json()["code"] == "feedback_closed"


def test_one_place_answers_once_however_often_it_is_sent(site: Site, clock: Clock) -> None:
    session = evening(site)
    codes = [family(site, session, n) for n in range(5)]
    clock(3 * HOUR)
    barrier = Barrier(10)

    def send(n: int) -> int:
        barrier.wait()
        return requests.post(
            f"{site.base}/v1/bookings/{codes[n % 5]}/places/{session}/feedback",
            json={"useful": 1 + n % 5, "try_at_home": "yes", "comment": f"话{n % 5}"},
            timeout=20,
        ).status_code

    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(send, range(10)))
    assert sorted(replies) == [204] * 5 + [409] * 5
    told = summed(site, session)["feedback"]
    assert told["answers"] == 5 and sorted(told["comments"]) == [f"话{n}" for n in range(5)]
    assert [one["count"] for one in told["questions"][0]["options"]] == [1] * 5


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_proves_itself_and_its_name_is_nowhere(site: Site, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    session = evening(site)
    code, away = family(site, session, 0, 3), family(site, session, 1)
    at = f"/v1/bookings/{code}/places/{session}/certificate"
    clock(2.5 * HOUR)
    let_in(session, code, 2)
    early = site.post(at, {"name": NAMES[0]})
    assert (early.status_code, early.json()["code"]) == (409, "no_certificate")
    clock(2 * HOUR)
    assert site.post(at.replace(code, away), {"name": NAMES[1]}).json()["code"] == "no_certificate"
    first = site.post(at, {"name": f" {NAMES[0]} "})
    words = paper(first)
    day = sessions.session(session).starts_at.astimezone(courses.ZoneInfo("Asia/Shanghai")).date()
    for part in (
        NAMES[0],
        "家长学校",
        "亲子沟通",
        "2 课时",
        f"{day.year}年{day.month}月{day.day}日",
        "社区活动室",
        "李老师",
        "康巴什区妇联",
    ):
        assert part in words
    number = found(words)
    numbers = [certificates.of_place(site.settings, code, session, seat, store.now()).number for seat in (1, 2)]
    english = paper(site.post(at, {"name": "Wang Muqing", "language": "en", "seat": 2}))
    assert [number, found(english)] == numbers and numbers[0] != numbers[1]
    assert all(part in english for part in ("Certificate of Attendance", "Wang Muqing", "Talking together", "Women's Federation"))

    told = {
        "valid": True, "kind": "session", "title": "亲子沟通", "organiser": "康巴什区妇联", "first_on": day.isoformat(),
        "last_on": day.isoformat(), "sessions": 1, "class_hours": 2,
    }  # fmt: skip
    assert site.get(f"/v1/certificates/{number}").json() == told
    read = site.get(f"/v1/certificates/{number.lower().replace('-', '')}", headers={"Accept-Language": "en"}).json()
    assert read == {**told, "title": "Talking together", "organiser": "Women's Federation"}
    wrong = [
        number[:-1] + ("0" if number[-1] != "0" else "1"),
        number.replace(session, "0" * 32),
        "x",
        session,
        f"{session}.{'É' * 32}",
    ]
    for one in wrong:
        reply = site.get(f"/v1/certificates/{one}")
        assert reply.status_code == 200 and set(reply.json()) == set(told), one
        assert not reply.json()["valid"] and not any(v for k, v in reply.json().items() if k != "valid")

    for body, field in (
        ({"seat": 3}, "seat"),
        ({"seat": 0}, "seat"),
        ({"name": "长" * 41}, "name"),
        ({"name": "ᠮᠣᠩᠭᠣᠯ"}, "name"),
    ):
        reply = site.post(at, body)
        assert reply.status_code == 422 and [one["field"] for one in reply.json()["errors"]] == [field], reply.text
    assert site.post(at.replace(session, "nothing"), {}).status_code == 404

    # the page that its QR code opens
    shown = site.get(f"/k/{number}", headers={"Accept-Language": "zh"})
    assert shown.status_code == 200 and "'none'" in shown.headers["Content-Security-Policy"]
    for part in ("证明有效", "亲子沟通", "康巴什区妇联", f"{day.year}年{day.month}月{day.day}日", "2 课时"):
        assert part in shown.text, part
    assert not [name for name in NAMES if name in shown.text]
    assert "This certificate is valid" in site.get(f"/k/{number}?language=en").text
    refused = site.get(f"/k/{wrong[0]}")
    assert refused.status_code == 404 and "未能核验" in refused.text and "亲子沟通" not in refused.text
    drawn = printing.pdf([], title="", at=store.now(), qr=site.settings.public(f"/k/{number}"), frame=True, landscape=True)
    assert squares(drawn) == squares(first.content) != []

    # the booking is erased, and the number still proves what it says
    assert bookings.purge(store.now() + KEEP + timedelta(days=1)) == 2
    site.refresh()
    assert site.post(at, {"name": NAMES[0]}).status_code == 404
    assert site.get(f"/v1/certificates/{number}").json() == told
    everything = dump()
    assert not [name for name in NAMES if name.encode() in everything or name in caplog.text]
    assert number.rpartition(".")[2].encode() not in everything


def squares(pdf: bytes) -> list[tuple[str, ...]]:
    """What a QR code is drawn with: where each rectangle begins, and how wide it is."""
    stream = PdfReader(io.BytesIO(pdf)).pages[0].get_contents()
    assert stream is not None
    return re.findall(r"^([\d.]+) [\d.]+ ([\d.]+) -?[\d.]+ re f$", stream.get_data().decode("latin-1"), re.M)


def found(words: str) -> str:
    """The number on a certificate."""
    match = re.search(r"([0-9a-f]{32}\.)\s*((?:[0-9A-Z]{4}-){7}[0-9A-Z]{4})", words)
    assert match, words
    return match[1] + match[2]


def test_a_session_that_did_not_take_place_proves_nothing(site: Site, clock: Clock) -> None:
    session = evening(site)
    code = family(site, session)
    clock(3 * HOUR)
    let_in(session, code)
    clock(2 * HOUR)
    sessions.finish(store.now())
    at = f"/v1/bookings/{code}/places/{session}/certificate"
    number = certificates.of_place(site.settings, code, session, 1, store.now()).number
    site.refresh()
    assert site.get(f"/v1/certificates/{number}").json()["valid"]
    sessions.cancel_session(session, "ann")
    site.refresh()
    assert site.get(f"/v1/certificates/{number}").json()["valid"] is False
    assert site.get(f"/k/{number}").status_code == 404
    assert site.post(at).json()["code"] == "no_certificate"


def test_one_certificate_for_a_series(site: Site, clock: Clock) -> None:
    first = evening(site)
    series = str(sessions.session(first).series)
    third = dated(site, series, 50, class_hours=3, lecturer={"name": {"zh-Hans": "白老师"}})
    second = dated(site, series, 26)
    wish = {"family_name": "王", "phone": "13800138000", "seats": 2}
    code = site.post(f"/v1/courses/{series}/bookings", wish).json()["code"]
    clock(3 * HOUR)
    let_in(first, code, 2)
    clock(2 * DAY)
    let_in(third, code, 1)
    at = f"/v1/bookings/{code}/certificate"
    there = certificates.of_booking(site.settings, code, 1, store.now())
    assert (there.facts.sessions, there.facts.class_hours) == (1, 2)  # the third is not over
    clock(3 * HOUR)
    whole, there = paper(site.post(at, {"name": NAMES[1]})), certificates.of_booking(site.settings, code, 2, store.now())
    assert "2 场，共 5 课时" in whole and "李老师、白老师" in whole and NAMES[1] in whole
    assert (there.facts.sessions, there.facts.class_hours, [one.id for one in there.attended]) == (1, 2, [first])
    told = site.get(f"/v1/certificates/{found(whole)}").json()
    days = [sessions.session(key).starts_at.astimezone(courses.ZoneInfo("Asia/Shanghai")).date() for key in (first, third)]
    assert (told["kind"], told["title"], told["sessions"], told["class_hours"]) == ("series", "家长学校", 2, 5)
    assert [told["first_on"], told["last_on"]] == [day.isoformat() for day in days]
    reply = site.post(f"/v1/bookings/{code}/places/{second}/certificate")
    assert reply.json()["code"] == "no_certificate"


def test_no_other_number_is_taken_for_one_of_ours(site: Site) -> None:
    facts = Facts("session", "autumn.week-1", 24, 1, date(2027, 5, 15), date(2027, 5, 15))
    number = certificates.number_of(site.settings, facts, "place", 1)
    assert certificates.read(site.settings, number) == facts
    key, _, digits = number.rpartition(".")
    plain = digits.replace("-", "")
    for n in range(32):
        for digit in "09AZ":
            changed = plain[:n] + digit + plain[n + 1 :]
            assert (certificates.read(site.settings, f"{key}.{changed}") is None) == (changed != plain)
    for other in ("autumn.week-2", "", "\ud800"):
        assert certificates.read(site.settings, f"{other}.{plain}") is None


# --- the summary -----------------------------------------------------------------------------------------------------


def test_the_lecturer_gets_sums_and_no_names(site: Site, clock: Clock) -> None:
    session = evening(site, capacity=9)
    codes = [
        family(site, session, n, 2 if n < 2 else 1, answers=[{"question": "topic", "answer": "sleep" if n < 4 else "phone"}])
        for n in range(6)
    ]
    family(site, session, 7, 2, wait=True)
    at = f"/v1/staff/sessions/{session}/summary"
    before = summed(site, session)
    assert (before["booked"], before["waiting"], before["no_shows"]) == (8, 1, None)
    assert before["questions"] == []  # not while families book: the next one's answer would be the difference
    english = paper(ask(site, f"{at}.pdf?language=en"))
    assert all(part in english for part in ("Not over yet", "People who came: 0", "fewer than five", "Talking together"))
    clock(3 * HOUR)
    for code in codes[:4]:
        let_in(session, code)
    attendance.upload(session, "ann", walk_ins=[WalkIn(store.new_id(), 3)])
    for n, code in enumerate(codes[:5]):
        say(site, code, session, 5, "yes", "讲得很实在，回去就试。" if n == 2 else "")
    clock(2 * HOUR)
    sums = summed(site, session)
    assert (sums["attended"], sums["walk_ins"], sums["came"], sums["no_shows"], sums["headcount"]) == (6, 3, 9, 2, None)
    assert (sums["title"], sums["series"], sums["venue"], sums["lecturer"]) == ("亲子沟通", "家长学校", "社区活动室", "李老师")
    assert [(o["text"], o["count"]) for o in sums["questions"][0]["options"]] == [("睡眠", 4), ("手机", 2)]
    assert sums["feedback"]["comments"] == ["讲得很实在，回去就试。"]
    site.person("edi", "editor", division="150603")  # plans courses and reads no bookings
    less = ask(site, at, by="edi").json()
    assert (less["questions"], less["feedback"]["comments"], less["feedback"]["answers"]) == ([], [], 5)
    words = paper(ask(site, f"{at}.pdf"))
    for part in (
        "到场 9 人",
        "报名 8 人",
        "签到 6 人",
        "现场加入 3 人",
        "报名未到 2 人",
        "共 5 份",
        "很有帮助 5",
        "睡眠 4",
        "讲得很实在",
    ):
        assert part in words
    for text in (words, english, json.dumps(sums, ensure_ascii=False)):
        assert "王" not in text and "13800000" not in text

    etag = ask(site, f"/v1/staff/sessions/{session}").headers["ETag"]
    ask(site, f"/v1/staff/sessions/{session}/headcount", "PUT", match=etag, json={"headcount": 12})
    assert summed(site, session)["came"] == 12
    # once the bookings are erased their answers are not counted any more; the sums and what was told stay, comments do not
    clock(30 * DAY)
    assert bookings.purge(store.now()) == 7
    late = summed(site, session)
    assert late["questions"] == [] and late["feedback"]["comments"] == [] and late["feedback"]["answers"] == 5
    assert [late[name] for name in ("booked", "attended", "came", "no_shows")] == [8, 6, 12, 2]


def test_a_summary_is_the_organisers(site: Site) -> None:
    session, other = evening(site), evening(site, "org2")
    assert site.get(f"/v1/staff/sessions/{other}/summary", by="ann").status_code == 404
    assert site.get(f"/v1/staff/sessions/{other}/summary.pdf", by="ann").status_code == 404
    assert site.get(f"/v1/staff/sessions/{session}/summary").status_code == 401
    assert site.get("/v1/staff/sessions/nothing/summary", by="ann").status_code == 404
    # four answers to a question are not told
    for n in range(4):
        family(site, session, n, answers=[{"question": "topic", "answer": "sleep"}])
    assert summed(site, session)["questions"] == []
    series = CourseSession.rows().find_one({"_id": session})["series"]
    draft = sessions.create_session(series, session_values(), "ann")
    assert site.get(f"/v1/staff/sessions/{draft.id}/summary", by="ann").status_code == 404

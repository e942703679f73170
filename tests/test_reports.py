"""What became of notices: from phones that say by choice that they opened one, to the report, the campaign and the table."""

import csv
import io
import json
import logging
import re
import secrets
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from content import statistics, store
from content.settings import Settings
from content.vocabulary import SEASONS
from notifications import drafting, notices, outbox, reasons, reports
from notifications.notices import Notice, Result
from tests.site import PASSWORD, Clock, Site
from tests.test_openapi import Walk

ZONE = ZoneInfo("Asia/Shanghai")
TEXTS = {"zh-Hans": {"title": "六月快到了", "body": "几个小办法。"}, "en": {"title": "June", "body": "Small ideas."}}
AT = datetime(2027, 6, 6, 1, tzinfo=UTC)  # 09:00 in the district
TELLS = "district-phone/7.7"


def nonce() -> str:
    """A fresh one of today."""
    return f"{store.now().astimezone(ZONE):%Y%m%d}-{secrets.token_hex(16)}"


def drafted(site: Site, by: str, **fields: Any) -> Notice:
    """A draft that lives three weeks."""
    now = store.now()
    wanted = {"divisions": ["150603"], "audiences": ["parent"], "texts": TEXTS, "expires_at": now + timedelta(weeks=3), **fields}
    return notices.draft(wanted, site.ids[by], site.settings, now)


def published(site: Site, **fields: Any) -> str:
    """A notice in the inbox; returns its id."""
    now = store.now()
    notice = drafted(site, "anna", **fields)
    notices.approve(notice.id, site.ids["rev"], now)
    notices.schedule(notice.id, site.ids["anna"], site.settings, now, now)
    outbox.sweep(now, site.settings)
    site.refresh()
    return str(notice.id)


def add(site: Site, key: str, what: str, many: int = 1, **more: Any) -> None:
    """Phones that say so, each once."""
    for _ in range(many):
        body = {"nonce": nonce(), "what": what, "division": "150603", **more}
        reply = site.post(f"/v1/notices/{key}/counts", body, headers={"User-Agent": TELLS})
        assert (reply.status_code, reply.json()) == (201, {"counted": True}), reply.text


@pytest.fixture
def desk(site: Site) -> Site:
    """Who writes, who approves, who reads elsewhere."""
    site.person("anna", "organiser", division="150603")
    site.person("rev", "reviewer", division="150603")
    site.person("far", "organiser", division="420100")
    return site


def later(site: Site, clock: Clock, days: int) -> None:
    """Some days on; tokens do not live that long."""
    clock(days * 86400)
    for name in site.tokens:
        reply = site.post("/v1/staff/session", {"name": name, "password": PASSWORD})
        site.tokens[name] = reply.json()["access_token"]
    statistics.release(site.settings, store.now())


def test_from_phones_to_the_report_without_a_small_number(desk: Site, clock: Clock) -> None:
    walk, rule = Walk(desk), "/v1/staff/notices/{key}/report"
    key = published(desk)

    def told() -> dict[str, Any]:
        found: dict[str, Any] = walk.get(rule, by="rev", key=key)
        return found

    add(desk, key, "opened", 40)
    add(desk, key, "acted", 12)
    early = told()
    inbox = early["channels"][-1]
    assert (early["opened"], early["acted"], early["percent"], inbox["reach"]) == (None, None, None, None)
    assert inbox["channel"] == "inbox" and "Fewer than 30" in inbox["no_reach"]["en"]
    assert (early["state"], early["in_inbox"], early["planned"], early["undecided"]) == ("due", True, 2, 2)
    assert (early["authors"], early["approved_by"]) == ([desk.ids["anna"]], desk.ids["rev"])
    assert (early["author_names"], early["approved_by_name"], early["division_names"]) == (["anna"], "rev", ["康巴什区"])

    later(desk, clock, 8)
    found = told()
    inbox = found["channels"][-1]
    assert (found["opened"], inbox["reach"], inbox["no_reach"]) == (40, 40, None)
    assert (found["acted"], found["percent"]) == (None, None), "twelve wait for others: a table is of 30"
    assert found["note"] == early["note"], "it does not say who is there"

    add(desk, key, "acted", 20)
    later(desk, clock, 8)
    assert [told()[name] for name in ("opened", "acted", "percent")] == [40, 32, 80]
    everywhere = [row for row in statistics.tables() if row.subject.startswith(f"notice:{key}:")]
    assert sorted((row.subject.rpartition(":")[2], row.n) for row in everywhere) == [("acted", 32), ("opened", 40)]
    for by in ("far", ""):
        assert desk.get(rule.format(key=key), by=by).status_code == (404 if by else 401)


def test_only_what_stands_in_the_inbox_is_counted_and_once(desk: Site, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    draft, key, gone = drafted(desk, "anna").id, published(desk), published(desk)
    notices.cancel(gone, desk.ids["anna"])
    desk.refresh()
    body, path = {"nonce": nonce(), "what": "opened", "division": "150603"}, f"/v1/notices/{key}/counts"
    for wrong in (draft, gone, "nothing"):
        assert desk.post(f"/v1/notices/{wrong}/counts", body).status_code == 404
    for field, value in (("what", "read"), ("division", "150600"), ("device", "x"), ("nonce", "x")):
        reply = desk.post(path, {**body, field: value})
        assert (reply.status_code, [row["field"] for row in reply.json()["errors"]]) == (422, [field]), reply.text
    assert store.database()["tallies"].count_documents({}) == 0

    with caplog.at_level(logging.INFO):
        caplog.clear()
        answers = [desk.post(path, body, headers={"User-Agent": TELLS}) for _ in range(2)]
        again = desk.post(path, {**body, "what": "acted"})
    assert [(r.status_code, r.json()["counted"]) for r in (*answers, again)] == [(201, True), (200, False), (200, False)]
    assert all("Set-Cookie" not in reply.headers for reply in answers)
    # what is left of it: a keyed hash till midnight, one sealed tally; no line in the log
    kept = {name: list(store.database()[name].find({})) for name in store.database().list_collection_names()}
    for secret in (body["nonce"], body["nonce"][9:], TELLS, "127.0.0.1"):
        assert secret not in repr(kept) and secret not in caplog.text
    assert key not in caplog.text
    assert [set(row) for row in kept["nonces"]] == [{"_id", "expires_at"}]
    assert [(set(row), row["subject"]) for row in kept["tallies"]] == [
        ({"_id", "subject", "week", "sealed"}, f"notice:{key}:opened")
    ]

    clock(22 * 86400)
    assert desk.post(path, {**body, "nonce": nonce()}).status_code == 404, "its time is over, whether or not the sweep has come"


def made(results: list[tuple[str, str, str, str]], **fields: Any) -> dict[str, Any]:
    """A stored notice to three topics with these (channel, topic, outcome, detail)."""
    rows = [
        Result(channel=channel, topic=topic, outcome=outcome, detail=detail, at=AT + timedelta(seconds=number))
        for number, (channel, topic, outcome, detail) in enumerate(results)
    ]
    base = {
        "id": "n1", "divisions": ["150602", "150603", "150621"], "audiences": ["parent"], "texts": {"zh-Hans": TEXTS["zh-Hans"]},
        "send_at": AT, "expires_at": AT + timedelta(days=2), "created_at": AT, "created_by": "a", "authors": ["a"],
        "state": "sent", "season": "gaokao",
    }  # fmt: skip
    raw: dict[str, Any] = Notice(results=rows, **{**base, **fields}).to_mongo().to_dict()
    return raw


A, B, C = (f"d{code}.parent.all.zh-Hans" for code in ("150602", "150603", "150621"))


def test_each_topic_counts_once_by_the_best_that_came_of_it() -> None:
    assert Notice.of(made([])).topics() == [A, B, C]
    found = reports.report(
        made([
            ("fcm", A, "sent", "m1"), ("fcm", B, "sent", "m1"), ("fcm", C, "refused", "INVALID_ARGUMENT"),
        ]), {"opened": 50, "acted": 10}, ZONE,
    )  # fmt: skip
    parts = ("sent", "inbox_only", "refused", "failed", "skipped", "undecided")
    assert [getattr(found, name) for name in parts] == [2, 0, 1, 0, 0, 0]
    assert (found.planned, found.messages, found.percent) == (3, 1, 20), "one message went to two topics"
    assert found.why == (reports.Why("fcm", "refused", "INVALID_ARGUMENT", 1),)
    assert (found.campaign, found.on, found.first_try, found.ended_at) == (
        "gaokao.2027", date(2027, 6, 6), AT, AT + timedelta(seconds=2),
    )  # fmt: skip
    # the district's own channel takes the whole over from FCM
    both = made([("fcm", A, "skipped", "no push credentials"), ("fcm", B, "inbox_only", ""), ("webhook", "*", "sent", "7")])
    found = reports.report(both, {}, ZONE)
    assert [getattr(found, name) for name in parts] == [3, 0, 0, 0, 0, 0]
    assert [(one.channel, one.messages, one.sent, one.skipped, one.inbox_only) for one in found.channels] == [
        ("fcm", 0, 0, 1, 1), ("webhook", 1, 1, 0, 0), ("inbox", 0, 0, 0, 0, ),
    ]  # fmt: skip
    assert all(one.reach is None and one.no_reach for one in found.channels)
    # more that acted than opened, as different weeks may tell it, is no share
    assert reports.report(both, {"opened": 30, "acted": 31}, ZONE).percent is None
    for state, opened in (("expired", None), ("due", None), ("failed", AT)):
        rows = [("fcm", A, "failed", "gave up")] if opened else []
        found = reports.report(made(rows, state=state, reason="why", updated_at=AT + timedelta(hours=9)), {}, ZONE)
        assert (found.reason, found.ended_at) == ("why", {"expired": AT + timedelta(hours=9), "due": None, "failed": AT}[state])


def test_a_list_by_campaign_with_totals_and_its_table(desk: Site, settings: Settings) -> None:
    today = store.now().astimezone(ZONE).date()
    soon = store.now() - timedelta(hours=1)
    for number in range(3):
        drafted(desk, "anna", season="gaokao", send_at=soon - timedelta(days=number))
    evil = {"zh-Hans": {"title": "=HYPERLINK(1)", "body": "+1"}}
    plain = drafted(desk, "anna", texts=evil, divisions=["150600"], send_at=soon)
    drafted(desk, "far", season="gaokao", divisions=["420106"], send_at=soon)
    old = drafted(desk, "anna", season="gaokao", send_at=soon - timedelta(days=400))
    gone = drafted(desk, "anna", send_at=soon, texts=evil)
    notices.cancel(gone.id, desk.ids["anna"], reason="not_approved")
    walk, by = Walk(desk), desk.person("boss", "organiser", division="150000")
    path = "/v1/staff/notice-reports"

    seen, cursor = [], ""
    while True:
        listed = walk.get(path, f"?limit=2{cursor}", by=by)
        seen += listed["items"]
        if not listed["next_cursor"]:
            break
        cursor = f"&cursor={listed['next_cursor']}"
    assert [(row["campaign"], row["on"]) for row in seen] == sorted(
        ((row["campaign"], row["on"]) for row in seen), key=lambda row: (row[0] or "", row[1])
    )
    assert len({row["id"] for row in seen}) == len(seen) == listed["totals"]["notices"] == 5, "of no other district, nor older"
    assert listed["totals"]["planned"] == 2 * 3 + 1 and listed["totals"]["undecided"] == 7, "a cancelled one is not planned"
    assert listed["totals"]["states"] == [{"state": "cancelled", "notices": 1}, {"state": "drafted", "notices": 4}]
    assert (listed["totals"]["opened"], listed["from"], listed["to"]) == (None, str(today - timedelta(365)), str(today))
    assert {row["id"] for row in seen[:2]} == {plain.id, gone.id} and listed["campaigns"][0]["campaign"] is None
    assert sum(row["notices"] for row in listed["campaigns"][1:]) == 3

    def ids(query: str) -> set[str]:
        return {row["id"] for row in desk.get(f"{path}?{query}", by=by).json()["items"]}

    assert ids("season=zhongkao") == set() and len(ids("season=gaokao")) == 3
    assert ids("division=150621") == {plain.id}, "what goes to the division above goes there, too"
    assert len(ids("division=150600")) == len(ids("division=000000")) == 5
    assert old.id in ids(f"from={today - timedelta(days=500)}")
    assert ids(f"to={today - timedelta(days=300)}") == {old.id}
    for query, field in (
        (f"from={today}&to={today - timedelta(days=1)}", "from"), ("from=2020-01-01", "from"), ("division=999999", "division"),
        ("season=spring", "season"), ("from=soon", "from"),
    ):  # fmt: skip
        reply = desk.get(f"{path}?{query}", by=by)
        assert (reply.status_code, [row["field"] for row in reply.json()["errors"]]) == (422, [field]), query
    assert desk.get(f"{path}?cursor=x", by=by).status_code == 400
    assert desk.get(f"{path}.csv?limit=2", by=by).status_code == 422

    reply = desk.get(f"{path}.csv", by=by)
    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8" and reply.content.startswith(b"\xef\xbb\xbf")
    head, *rows = csv.reader(io.StringIO(reply.content.decode("utf-8-sig")))
    assert tuple(head) == reports.HEAD and len(rows) == 5 and {len(row) for row in rows} == {len(head)}
    assert [row[0] for row in rows] == [row["id"] for row in seen]
    assert rows[0][1] == "'=HYPERLINK(1)"
    at = {name: head.index(name) for name in ("类型", "区划", "状态", "原因", "起草", "计划主题")}
    told = {row[0]: [row[number] for number in at.values()] for row in rows}
    assert told[plain.id] == ["一般", "鄂尔多斯市", "待审批", "", "anna", "1"]
    assert told[gone.id] == ["一般", "康巴什区", "已取消", "没有人在期限内批准", "anna", "0"]
    assert rows[-1][head.index("活动")].endswith(f" {SEASONS['gaokao'].zh}")
    assert not re.search("[0-9a-f]{32}", "".join(cell for row in rows for cell in row[1:])), "no ids but the notice's own"
    assert not [cell for row in rows for cell in row if cell[:1] in set("=+-@\t\r＝＋－＠")]
    assert rows[2][head.index("打开")] == "", "what is not told is empty and not 0"
    assert json.dumps(desk.get(f"{path}.csv", by="far").text).count("gaokao.") == 1


def test_the_table_has_words_for_every_code() -> None:
    assert set(reports.STATES) == set(notices.STATES) and set(reports.KIND_WORDS) == set(notices.KINDS)
    assert set(reports.OUTCOME_WORDS) == set(reports.OUTCOMES)
    assert (reports.standing("drafted", saved=False).zh, reports.standing("drafted", saved=True).zh) == ("待查看", "待审批")
    held = reasons.said("held_until: 2027-06-06T22:33:00Z", ZONE)
    assert held and held["zh-Hans"].startswith("等待到 2027-06-07 06:33")
    why = reports.Why("fcm", "skipped", "no push credentials", 3)
    assert reports._why(why, ZONE) == "推送跳过（没有设置推送）× 3"


def lines(site: Site) -> dict[str, str]:
    """What the page of the year says of each notice day of the gaokao of 2027."""
    page = site.get("/v1/staff/year.html?division=150603&from=2027-06-07&to=2027-06-08", by="anna").text
    (article,) = [part for part in page.split("<article")[1:] if "全国统一高考" in part or ">高考<" in part]
    found = re.findall("<li>(.*?)</li>", article, re.S)
    plain = [re.sub("<[^>]+>", "|", one) for one in found]
    return {one.strip("|").partition("|")[0]: one for one in plain}


def test_the_page_of_the_year_and_the_list_say_what_waits_for_a_person(desk: Site, clock: Clock, settings: Settings) -> None:
    def go(hour: int) -> None:
        clock((datetime(2027, 5, 8, hour - 8, tzinfo=UTC) - store.now()).total_seconds())
        later(desk, clock, 0)

    go(9)
    drafting.tick(store.now(), replace(settings, division="150603"))
    rows = list(Notice.rows().find({"season": "gaokao", "lead": -30}))
    assert rows
    assert "待查看" in lines(desk)["前 30 天"] and "到时自动起草" in lines(desk)["前 14 天"]
    todo = desk.get("/v1/staff/notices/todo", by="anna").json()["items"]
    (mine,) = {(one["what"], one["by"]) for one in todo if one["season"] == "gaokao"}
    assert mine == ("save", "2027-05-08T21:00:00+08:00")
    asked = {one["season"]: one["by"] for one in todo if one["what"] == "confirm_date"}
    asks = desk.get("/v1/staff/year", by="anna").json()["asks"]
    assert asked and asked == {one["code"]: one["confirm_by"] for one in asks if one["code"] in asked}
    assert [one["by"] for one in todo] == sorted(one["by"] for one in todo)

    notices.edit(rows[0]["_id"], {}, desk.ids["anna"], settings, store.now())
    assert "待审批" in lines(desk)["前 30 天"]
    Notice.rows().update_one({"_id": rows[0]["_id"]}, {"$set": {"state": "due", "reason": "held_until: 2027-05-08T22:33:00Z"}})
    assert "等待到 2027-05-09 06:33" in lines(desk)["前 30 天"]
    Notice.rows().update_one({"_id": rows[0]["_id"]}, {"$set": {"state": "drafted"}, "$unset": {"reason": ""}})
    for raw in rows:
        assert drafting.call_off(raw["_id"])
    assert "到时自动起草" in lines(desk)["前 30 天"], "its date moved: another is drafted"
    go(22)
    assert "没有通知" in lines(desk)["前 30 天"], "none is drafted once its moment has passed"
    page = desk.get("/v1/staff/year.html?division=150603", by="anna").text
    assert "请向教育部门核实后确认。" in page and "/v1/" not in page

"""Results that are kept: what a receipt opens, what the store alone does not, and when it goes."""

import secrets
import statistics
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api import guard
from content import checkfiles, results, store
from content.failures import Invalid, NotFound
from content.results import Kept, SealedResults, Value
from content.settings import Settings
from tests.promises.report import Measured
from tests.site import Clock, Site, library
from tests.test_openapi import Walk

KEEP = "/v1/checks/exam-stress/keep"
ZONE = ZoneInfo("Asia/Shanghai")


@pytest.fixture(autouse=True)
def light(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashed for real and cheaply, as the passwords of the stories; at full cost in `make prove`."""
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setattr(results, "MEMORY", 8)
    monkeypatch.setattr(results, "ROUNDS", 1)


@pytest.fixture
def check(site: Site, tmp_path: Path) -> Iterator[Site]:
    """A site with one self-check."""
    small = library(tmp_path, *(f"checks/exam-stress.{kind}" for kind in ("json", "yaml")))
    assert checkfiles.load_library(small, site.settings) == 1
    site.refresh()
    yield site


def answers(site: Site, place: int, **more: str) -> dict[str, Any]:
    """A body that answers every item with its option at this place, but for `more`."""
    whole = site.get("/v1/checks/exam-stress").json()
    asked = [i for i in whole["items"] if i["options"]]
    codes = {i["link_id"]: i["options"][place if i["link_id"] != "heavy" else 0]["code"] for i in asked} | more
    return {"version": whole["version"], "answers": [{"item": item, "code": code} for item, code in codes.items()]}


def made(n: int, slug: str = "made-up", scales: int = 1) -> Kept:
    """Some result."""
    on = datetime(2026, 3, 1, tzinfo=UTC).date() + timedelta(days=n)
    return Kept(slug, "0" * 64, on, tuple(Value(f"scale_{k}", n, 0, 99, "some_band") for k in range(scales)))


def refused(reply: Any, status: int, code: str) -> None:
    """A failure, with help beside it."""
    body = reply.json()
    assert (reply.status_code, body["code"]) == (status, code), reply.text
    assert {line["number"] for line in body["help"]["emergency"]} == {"110", "120"}


def test_a_result_is_kept_opened_added_to_and_erased(check: Site, clock: Clock) -> None:
    scored = check.post("/v1/checks/exam-stress/score", answers(check, 1)).json()
    first = check.post(KEEP, answers(check, 1))
    assert first.status_code == 201, first.text
    told = first.json()
    receipt, expires = told["receipt"], told["expires_on"]
    assert {k: v for k, v in told.items() if k not in {"receipt", "card", "expires_on", "help"}} | {"help": 0} == {
        **scored,
        "help": 0,
    }
    assert first.headers["Cache-Control"] == "no-store" and not {"Set-Cookie", "ETag", "Location"} & first.headers.keys()
    assert [len(group) for group in receipt.split()] == [4] * 7

    clock(30 * 86400)
    typed = receipt.replace(" ", "－").translate({ord("0") + n: ord("０") + n for n in range(10)})  # by an input method
    second = check.post(KEEP, {**answers(check, 2), "receipt": f" {typed} "})
    assert second.status_code == 201, second.text
    assert (second.json()["receipt"], second.json()["card"]) == (None, None)
    assert second.json()["expires_on"] > expires
    for _ in range(2):  # an answer that calls for help is kept like any other; a repeat after a lost answer is kept once
        third = check.post(KEEP, {**answers(check, 0, heavy="right_now"), "receipt": receipt})
        assert (third.status_code, third.json()["critical"]) == (201, True)
        assert third.json()["message"] and third.json()["help"]["emergency"]

    held = check.post("/v1/results", {"receipt": receipt, "division": "150603"}, headers={"Accept-Language": "en"})
    assert (held.status_code, held.headers["Cache-Control"]) == (200, "no-store")
    found = held.json()
    assert [row["name"] for row in found["results"]] == ["My mood and body before exams"] * 3
    assert found["expires_on"] == second.json()["expires_on"] and found["help"]["emergency"]
    totals = [row["scales"][0] for row in found["results"]]
    assert [(t["code"], t["value"], t["band"] and t["band"]["code"]) for t in totals] == [
        ("total", scored["total"], scored["band"]["code"]),
        ("total", second.json()["total"], second.json()["band"]["code"]),
        ("total", third.json()["total"], None),  # beside a critical answer nobody is told how well things are going
    ]
    assert totals[0]["band"]["text"].isascii() and totals[0]["maximum"] == scored["maximum"]
    [line] = found["trend"]
    assert [p["value"] for p in line["points"]] == [t["value"] for t in totals]
    days = [datetime.fromisoformat(p["date"]).toordinal() - store.now().astimezone(ZONE).toordinal() for p in line["points"]]
    assert days == [-30, 0, 0]

    refused(check.post("/v1/results/erase", {"receipt": results.new_receipt()}), 404, "unknown_receipt")
    gone = check.post("/v1/results/erase", {"receipt": receipt})
    assert (gone.status_code, gone.content) == (204, b"")
    assert SealedResults.rows().count_documents({}) == 0
    for path, body in ((KEEP, answers(check, 1)), ("/v1/results", {}), ("/v1/results/erase", {})):
        refused(check.post(path, {**body, "receipt": receipt}), 404, "unknown_receipt")


def test_another_version_has_a_line_of_its_own_and_none_of_this_ones_words(check: Site) -> None:
    now = answers(check, 1)
    receipt = check.post(KEEP, now).json()["receipt"]
    other = made(1, "exam-stress")._replace(scales=(Value("total", 5, 0, 24, "going_well"),))
    results.keep(check.settings, other, receipt)
    results.keep(check.settings, made(2, "recalled"), receipt)
    found = check.post("/v1/results", {"receipt": receipt}).json()
    assert [row["name"] for row in found["results"]] == ["考试前，我的心情和身体", "考试前，我的心情和身体", "recalled"]
    bands = [row["scales"][0]["band"] for row in found["results"]]
    assert bands[0]["text"] and bands[1:] == [{"code": "going_well", "text": None}, {"code": "some_band", "text": None}]
    assert [(line["slug"], len(line["points"])) for line in found["trend"]] == [("exam-stress", 1)] * 2 + [("recalled", 1)]


def test_the_card_says_nothing(check: Site) -> None:
    for language, title in (("zh-CN", "备忘"), ("en", "Note")):
        told = check.post(KEEP, answers(check, 1), headers={"Accept-Language": language}).json()
        card = told["card"]
        assert (card["title"], " ".join(card["lines"])) == (title, told["receipt"])
        texts = [e.text for e in ET.fromstring(card["svg"]).iter() if e.text]  # noqa: S314 (it is our own)
        assert sorted(texts) == sorted([title, *card["lines"]])
        assert not any(word in card["svg"] for word in ("心", "xinqiao", "exam", "stress", told["expires_on"]))


def test_the_store_alone_opens_nothing(check: Site, settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    database = store.database()

    def rows() -> dict[str, list[dict[str, Any]]]:
        return {name: list(database[name].find()) for name in database.list_collection_names() if name != "results"}

    before = rows()
    told = [check.post(KEEP, answers(check, place)).json() for place in (0, 1, 2)]
    for place in (0, 2, 3, 1):
        reply = check.post(KEEP, {**answers(check, place), "receipt": told[1]["receipt"]})
        assert reply.status_code == 201, reply.text
    assert check.post("/v1/results", {"receipt": told[1]["receipt"]}).status_code == 200
    assert rows() == before  # nothing anywhere else
    kept = list(database["results"].find())
    assert [set(row) for row in kept] == [{"_id", "sealed", "expires_at"}] * 3
    assert len({len(row["sealed"]) for row in kept}) == 1  # one result, or five
    assert len({row["expires_at"] for row in kept}) == 1
    printed = "".join(capfd.readouterr())
    said = [b"exam-stress", b"total", b"going_well", b"a_bit_tight", b"carrying_a_lot", store.now().strftime("%Y-").encode()]
    said += [told[0]["version"][:16].encode(), bytes.fromhex(told[0]["version"])[:8]]
    said += [t["receipt"][:9].encode() for t in told] + [t["receipt"].replace(" ", "").encode() for t in told]
    for row in kept:
        for canary in said:
            assert canary not in row["sealed"] and canary.decode("latin-1") not in row["_id"]
    for canary in said[1:5] + said[6:]:
        assert canary.decode("latin-1") not in printed

    # with a copy of the database, and even with a receipt: without the data key there is nothing to find
    receipts = [results.read(t["receipt"]) for t in told]
    opens = dict(results._opens(settings, receipt) for receipt in receipts)
    assert set(opens) == {row["_id"] for row in kept}
    elsewhere = replace(settings, data_key=check.settings.signing_key[:-1] + "A" * 84 + "=")
    for receipt in receipts:
        assert results._opens(elsewhere, receipt)[0] not in opens
        with pytest.raises(NotFound):
            results.opened(elsewhere, receipt)
    # every row opens with its own key and in its own place only; a guessed receipt opens none
    keys = [*opens.values(), *(results._opens(settings, results.new_receipt())[1] for _ in range(20))]
    fits = 0
    for row in kept:
        for key in keys:
            try:
                AESGCM(key).decrypt(row["sealed"][:12], row["sealed"][12:], row["_id"].encode())
                fits += 1
            except InvalidTag:
                assert key != opens[row["_id"]]
    assert fits == 3
    first, second = kept[:2]
    with pytest.raises(InvalidTag):
        results._unseal(second["_id"], opens[first["_id"]], first["sealed"])


def test_a_typing_mistake_is_told_before_any_work(check: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = results.new_receipt()
    wrong = [receipt[:i] + d + receipt[i + 1 :] for i in range(28) for d in "0123456789" if d != receipt[i]]
    swaps = [(j, i) for i in range(28) for j in range(i) if receipt[i] != receipt[j]]
    wrong += [receipt[:j] + receipt[i] + receipt[j + 1 : i] + receipt[j] + receipt[i + 1 :] for j, i in swaps]
    wrong += [receipt[1:], receipt + "0", "", "心" * 28, "٣" * 28, receipt.replace(receipt[3], "O")]
    for text in wrong:
        with pytest.raises(Invalid, match="28 digits"):
            results.read(text)
    assert results.read("\u3000".join(receipt)) == results.read("—".join(receipt)) == receipt

    monkeypatch.setattr(results, "WAIT", 0.02)
    with results._turn:  # whoever would hash is refused
        for path, body in ((KEEP, answers(check, 1)), ("/v1/results", {}), ("/v1/results/erase", {})):
            reply = check.post(path, {**body, "receipt": wrong[0]})
            refused(reply, 422, "invalid")
            assert [(e["field"], e["code"]) for e in reply.json()["errors"]] == [("receipt", "receipt_mistyped")]
            assert wrong[0] not in reply.text
            full = check.post(path, {**body, "receipt": receipt})
            refused(full, 503, "overloaded")
            assert full.headers["Retry-After"]


def test_every_failure_carries_help(check: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    body, receipt = answers(check, 1), results.new_receipt()
    heavy = check.post(KEEP, {"answers": [{"item": "heavy", "code": "right_now"}]})
    refused(heavy, 422, "invalid")
    assert heavy.json()["critical"] is True
    refused(check.post(KEEP, {**body, "version": "0" * 64}), 409, "old_version")
    refused(check.post("/v1/checks/nowhere/keep", body), 404, "not_found")
    refused(check.post("/v1/results", {"receipt": {"$ne": ""}}), 422, "invalid")
    refused(check.post("/v1/results", {"receipt": receipt, "slug": "x"}), 422, "invalid")
    refused(check.post("/v1/results/erase", {}), 422, "invalid")
    refused(check.call("POST", "/v1/results", data=b"{", headers={"Content-Type": "application/json"}), 400, "bad_json")
    refused(check.call("POST", "/v1/results", data=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_type")
    with monkeypatch.context() as patch:
        patch.setattr(check.reader, "up", False)
        for path in (KEEP, "/v1/results", "/v1/results/erase"):
            away = check.post(path, {**body, "receipt": receipt})
            refused(away, 503, "unavailable")
    monkeypatch.setitem(guard.LIMITS, "results.show", 2)
    assert check.post("/v1/results", {"receipt": receipt}).status_code == 404
    often = check.post("/v1/results", {"receipt": receipt})
    refused(often, 429, "too_many_requests")
    assert int(often.headers["Retry-After"]) > 0


def test_it_expires_with_the_week_in_which_180_days_are_over(check: Site, clock: Clock) -> None:
    for zone in ("Asia/Shanghai", "America/New_York", "Asia/Urumqi"):
        there, begin = replace(check.settings, zone=zone), datetime(2026, 9, 7, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        ends = [results._expiry(there, begin + timedelta(hours=7 * n)) for n in range(24 * 3)]
        for n, end in enumerate(ends):
            assert (end.weekday(), end.hour, end.minute) == (0, 0, 0)
            assert timedelta(days=180) <= end.astimezone(UTC) - (begin + timedelta(hours=7 * n)) <= timedelta(days=187, hours=1)
        assert len(set(ends)) == 4  # three weeks, begun within a fourth's
    ttl = SealedResults.rows().index_information()["expires_at_1"]
    assert ttl["expireAfterSeconds"] == 0

    told = check.post(KEEP, answers(check, 1)).json()
    receipt, [row] = told["receipt"], SealedResults.rows().find()
    assert row["expires_at"].astimezone(ZONE).isoformat() == f"{told['expires_on']}T00:00:00+08:00"
    clock((row["expires_at"] - store.now()).total_seconds() - 5)
    assert check.post("/v1/results", {"receipt": receipt}).status_code == 200
    clock(10)  # the database has not swept yet
    refused(check.post("/v1/results", {"receipt": receipt}), 404, "unknown_receipt")
    refused(check.post(KEEP, {**answers(check, 1), "receipt": receipt}), 404, "unknown_receipt")
    assert SealedResults.rows().find_one() == row


def test_phones_that_add_at_once_are_all_kept(clean: None, settings: Settings) -> None:
    receipt, _ = results.keep(settings, made(0))
    together, failed = threading.Barrier(6), []

    def phone(n: int) -> None:
        together.wait()
        try:
            for k in range(4):
                results.keep(settings, made(1 + 4 * n + k), receipt)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=phone, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, _ = results.opened(settings, receipt)
    assert not failed
    assert sorted(kept.scales[0].value or 0 for kept in found) == list(range(25))


def test_fifty_are_kept_and_fit(clean: None, settings: Settings) -> None:
    def many(scales: int, results_made: int = 60) -> list[Kept]:
        name, key = results._opens(settings, results.new_receipt())
        rows = [made(n, secrets.token_hex(40), scales) for n in range(results_made)]
        sealed = results._seal(name, key, rows)
        assert len(sealed) == 12 + results.SIZE + 16
        found = results._unseal(name, key, sealed)
        assert found == rows[-len(found) :]  # the oldest made way
        return found

    assert len(many(1)) == len(many(12)) == 50
    assert 0 < len(many(1000, 6)) < 6  # beyond what any check has: fewer, never a larger row
    assert len({results.new_receipt() for _ in range(1000)}) == 1000


def test_the_document_says_what_is_answered(check: Site) -> None:
    walk = Walk(check)
    slug = {"slug": "exam-stress"}
    rule = "/v1/checks/{slug}/keep"
    receipt = walk.send("POST", rule, answers(check, 1), "", 201, **slug)["receipt"]
    walk.send("POST", rule, {**answers(check, 1, heavy="right_now"), "receipt": receipt}, "", 201, **slug)
    walk.send("POST", "/v1/results", {"receipt": receipt}, "")
    walk.send("POST", "/v1/results/erase", {"receipt": receipt}, "", 204)
    assert [line for line in walk.document.untold() if line.startswith("Results")] == []


@pytest.mark.slow
def test_two_hundred_at_full_cost(check: Site, measured: Measured) -> None:
    def counts() -> dict[str, int]:
        database = store.database()
        return {name: database[name].count_documents({}) for name in database.list_collection_names()}

    def took(path: str, body: dict[str, Any], status: int) -> float:
        began = time.perf_counter()
        reply = check.post(path, body)
        assert reply.status_code == status, reply.text
        return time.perf_counter() - began

    guard.reset_limits()
    before, bodies = counts(), [answers(check, place) for place in range(4)]
    receipts = [check.post(KEEP, bodies[n % 4]).json()["receipt"] for n in range(200)]
    grown = {name: n - before.get(name, 0) for name, n in counts().items() if n != before.get(name, 0)}
    measured(15, f"200 kept results: rows in the database grew by {grown}")
    # in turn, so that what else the machine does falls on both
    pairs = [
        (took("/v1/results", {"receipt": receipt}, 200), took("/v1/results", {"receipt": results.new_receipt()}, 404))
        for receipt in receipts[:60]
    ]
    ms = [1000 * statistics.median(times) for times in zip(*pairs, strict=True)]
    measured(15, f"a receipt is looked up in {ms[0]:.0f} ms when it opens something, {ms[1]:.0f} ms when not (median of 60)")
    assert grown == {"results": 200}
    assert 0.8 < ms[0] / ms[1] < 1.25
    sizes = {len(row["sealed"]) for row in SealedResults.rows().find()}
    assert len(sizes) == 1

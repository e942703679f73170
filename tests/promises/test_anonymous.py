"""Promise 15: nothing says who answered what.

Contributions, scores and what the phones say about themselves come with canaries wherever a request can carry one. Then
everything that is kept or told is searched for them and their plain hashes: the database (sealed values opened too), the logs,
the metrics and the answers. A nonce leaves a keyed hash until midnight; nothing grows with answers but that.
"""

import hashlib
import io
import json
import logging
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests

from api import guard
from content import counting, sealed, store
from tests.bench.contributions import body, publish
from tests.promises.report import Measured
from tests.site import Site

HEADERS = ("User-Agent", "X-Forwarded-For", "X-Real-IP", "Forwarded", "Referer", "Origin", "From", "Cookie", "Accept-Language",
           "Authorization", "X-Request-Id", "Idempotency-Key", "If-None-Match", "X-Device-Id", "Via")  # fmt: skip


def hashes(text: str) -> set[str]:
    """A canary as it may be found: itself, and its plain hashes as hex and as bytes printed as hex."""
    made = {hashlib.new(name, text.encode()).hexdigest() for name in ("md5", "sha1", "sha256", "sha512", "blake2b")}
    return {text, text.encode().hex(), *made, *(one[:32] for one in made)}


def dump() -> dict[str, str]:
    """Every collection as text, what is sealed in it opened."""
    found = {}
    database = store.database()
    for name in database.list_collection_names():
        rows = list(database[name].find())
        text = json.dumps(rows, default=str)
        for row in rows:
            for value in row.values():
                if isinstance(value, bytes):
                    text += value.hex()
                    text += "" if name in (sealed.VAULT, "results") else sealed.unseal(value)  # a receipt alone opens those
        found[name] = text
    return found


@pytest.mark.parametrize("size", [64, pytest.param(2666, marks=pytest.mark.slow)])
def test_nothing_says_who_answered_what(
    site: Site,
    measured: Measured,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    for name in ("results.keep", "results.show"):  # all of them come from one address
        monkeypatch.setitem(guard.LIMITS, name, 1_000_000)
    caplog.set_level(logging.DEBUG)
    caplog.handler.stream = io.StringIO()
    what = body(publish())
    site.refresh()
    [item] = site.get("/v1/checks/bench").json()["items"][:1]
    answer = {"item": item["link_id"], "code": item["options"][0]["code"]}
    zone = ZoneInfo(site.settings.zone)
    day = f"{store.now().astimezone(zone):%Y%m%d}"
    before = {name: store.database()[name].count_documents({}) for name in store.database().list_collection_names()}
    canaries: list[str] = []
    answers: list[str] = []

    def send(number: int) -> None:
        secret = secrets.token_hex(16)
        agent = f"canary-{secrets.token_hex(8)}"
        address = f"10.{number // 250 % 250}.{number % 250}.{1 + secrets.randbelow(250)}"
        nonce = f"{day}-{secret}"
        headers = {name: f"{agent}-{name.lower()}" for name in HEADERS} | {"X-Forwarded-For": f"{address}, {agent}"}
        canaries.extend([secret, nonce, agent, address, *(headers[name] for name in HEADERS)])
        path, sent = [
            ("/v1/checks/bench/contribute", {**what, "nonce": nonce}),
            ("/v1/check-ins", {"nonce": nonce, "what": "talk_15", "answer": "did", "division": "150603"}),
            ("/v1/returns", {"nonce": nonce, "bucket": 1}),
            ("/v1/checks/bench/keep", {"version": what["version"], "answers": [answer]}),
            ("/v1/checks/bench/score", {"version": what["version"], "answers": [answer]}),
            # refused: a body that is refused may be told what it said, and nobody else
            ("/v1/checks/bench/contribute", {**what, "nonce": nonce, "bands": [{"scale": agent, "band": agent}]}),
            ("/v1/checks/bench/score", {"version": what["version"], "answers": [{"item": agent, "code": secret}]}),
            ("/v1/results", {"receipt": re.sub(r"\D", "7", secret)[:28]}),
        ][number % 8]
        reply = requests.post(site.base + path, json=sent, headers=headers, timeout=20)
        while reply.status_code == 503:  # receipts are hashed one at a time; a phone asks again
            reply = requests.post(site.base + path, json=sent, headers=headers, timeout=20)
        # one in 97 of the receipts made up is well formed, and unknown
        assert reply.status_code in ((201,), (201,), (201,), (201,), (200,), (422,), (422,), (422, 404))[number % 8], reply.text
        answers.append(f"{reply.headers} {reply.text}" if number % 8 < 5 else str(reply.headers))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(size)))
    kept = dump()
    out, err = capfd.readouterr()
    places = {
        **kept,
        "logs": caplog.text + out + err,
        "metrics": site.get("/metrics").text,
        "answers": "\n".join(answers),
    }
    wanted = {form for canary in canaries for form in hashes(canary)}
    words = {name: set(re.findall(r"[0-9a-f]{16,}|[0-9.]{7,}|[\w.:,; -]+", text)) for name, text in places.items()}
    found = [(name, form) for name, text in places.items() for form in (wanted & words[name])]
    # and inside longer runs: every canary of an agent has one beginning, every hash and secret 32 hex digits
    starts = {form[:32] for form in wanted if re.fullmatch("[0-9a-f]{32,}", form)}
    for name, text in places.items():
        found += [(name, part) for part in set(re.findall("canary-[0-9a-f]{16}", text))]
        runs = (run for run in words[name] if len(run) > 32 and re.fullmatch("[0-9a-f]+", run))
        found += [(name, run[n : n + 32]) for run in runs for n in range(len(run) - 31) if run[n : n + 32] in starts]
    counted, kept_results = (sum(number % 8 in kinds for number in range(size)) for kinds in ((0, 1, 2), (3,)))
    grown = {name: len(list(store.database()[name].find({}, {"_id": 1}))) - before.get(name, 0) for name in kept}
    grown = {name: number for name, number in grown.items() if number and name != "keyvault"}
    told = f"{counted} contributions, {kept_results} kept results, as many scores; grown: {grown}"
    measured(15, f"{told}; {len(wanted)} forms of {len(canaries)} canaries, {len(found)} found")
    assert found == []
    assert grown == {"nonces": counted, "tallies": 3, "results": kept_results}

    # what is kept has no time in it but the nonces' expiry, the same for all; the week is a text
    assert {json.dumps(sorted(row)) for row in store.database()["nonces"].find()} == {'["_id", "expires_at"]'}
    [midnight] = store.database()["nonces"].distinct("expires_at")
    assert (midnight.astimezone(zone).hour, midnight.astimezone(zone).minute) == (0, 0)
    for row in store.database()["tallies"].find():
        assert set(row) == {"_id", "subject", "week", "sealed"}
        assert not any(isinstance(value, datetime) for value in row.values())
        assert not re.search(r"20\d\d-\d\d-\d\d|T\d\d:", sealed.unseal(row["sealed"]))
    assert sum(row["n"] for tally in counting.tallies("9999-W01") for row in tally.rows.values()) == counted


def test_the_search_would_find_one(site: Site) -> None:
    secret: Any = secrets.token_hex(16)
    store.database()["tallies"].insert_one(
        {"_id": "x", "subject": "x", "week": "x", "sealed": sealed.seal(hashlib.sha256(secret.encode()).hexdigest())}
    )
    assert any(form in text for text in dump().values() for form in hashes(secret))

"""Promise 7: a contribution counts once, however often it is sent and wherever the connection breaks.

Two proxies stand in the way: one between the phones and the API, whose connections are closed before the request has gone, in the
middle of it, or after it was done and before the answer; and one between the API and its database, all of whose connections are
cut at once, in the middle of commits.
"""

import http.client
import json
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from threading import Lock
from zoneinfo import ZoneInfo

import pytest
from pymongo.uri_parser import parse_uri

from api import guard
from content import counting, store
from tests.doubles.faults import Cut, DropReply, FaultProxy
from tests.promises.report import Measured
from tests.site import Site


@pytest.mark.parametrize(("nonces", "cuts"), [(200, 30), pytest.param(2000, 60, marks=pytest.mark.slow)])
def test_a_contribution_counts_once(
    site: Site, measured: Measured, monkeypatch: pytest.MonkeyPatch, nonces: int, cuts: int
) -> None:
    monkeypatch.setitem(guard.LIMITS, "contributions.come_back", 1_000_000)  # all of them come from one address
    day = f"{store.now().astimezone(ZoneInfo(site.settings.zone)):%Y%m%d}"
    dice, lock = random.Random(7), Lock()
    names = [f"{day}-{secrets.token_hex(16)}" for _ in range(nonces)]
    database = int(parse_uri(site.settings.mongodb_uri)["nodelist"][0][1])
    broken = [0]
    first = [0]

    def send(port: int, name: str) -> None:
        """Until it is acknowledged, as a phone does."""
        for _ in count():
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                link.request(
                    "POST", "/v1/returns", json.dumps({"nonce": name, "bucket": 1}), {"Content-Type": "application/json"}
                )
                reply = link.getresponse()
                text = reply.read()
            except (OSError, http.client.HTTPException):
                with lock:
                    broken[0] += 1
                continue
            finally:
                link.close()
            if reply.status in (200, 201):
                with lock:
                    first[0] += reply.status == 201
                return
            assert reply.status == 503, text

    with FaultProxy(int(site.base.rsplit(":", 1)[1])) as phones, FaultProxy(database) as behind:
        uri = site.settings.mongodb_uri.replace(f":{database}", f":{behind.port}")
        store.connect(replace(site.settings, mongodb_uri=uri), store.REQUEST_PATIENCE)
        sent = [name for name in names for _ in range(dice.randint(1, 3))]
        dice.shuffle(sent)
        kinds = [Cut(0), Cut(150), DropReply(0), DropReply(20)]
        with ThreadPoolExecutor(12) as pool:
            every = len(sent) // (cuts * 2)
            for start in range(0, len(sent), every):
                phones.then(kinds[start // every % 4])
                done = [pool.submit(send, phones.port, name) for name in sent[start : start + every]]
                if start // every % 6 == 3:
                    behind.cut_all()
                for one in done:
                    one.result()
        store.connect(site.settings)
    total = sum(row["n"] for tally in counting.tallies("9999-W01") for row in tally.rows.values())
    measured(7, f"{nonces} nonces sent {len(sent) + broken[0]} times, {broken[0]} cut, {first[0]} first answers, tally {total}")
    assert broken[0] >= cuts
    assert total == nonces == counting.Nonce.rows().count_documents({})
    assert first[0] <= nonces

"""One push is one request with one outcome: every reply that FCM documents, against a local FCM over HTTP."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from content.settings import Settings
from notifications import fcm, outcomes
from tests.doubles import fake_fcm
from tests.doubles.fake_fcm import FakeFcm, Reply
from tests.doubles.faults import Cut, DropReply, FaultProxy

ZH = "d150603.parent.senior.final.zh-Hans"
MESSAGE = fcm.Message("n1", ZH, "心桥", "你好", 3600, data={"notice": "n1"})


def ours(stop: bool = False) -> Callable[[outcomes.Outcome], bool]:
    """Refused by our own fault."""
    return lambda o: isinstance(o, outcomes.Refused) and o.ours and not o.drop_target and o.stop is stop


def gone(outcome: outcomes.Outcome) -> bool:
    """Refused because the target is gone."""
    return isinstance(outcome, outcomes.Refused) and outcome.drop_target and not outcome.ours and not outcome.stop


def later(seconds: float) -> Callable[[outcomes.Outcome], bool]:
    """Retry after so many seconds."""
    return lambda o: isinstance(o, outcomes.Retry) and seconds - 3 <= o.after <= seconds


def unknown(outcome: outcomes.Outcome) -> bool:
    """Nobody knows."""
    return isinstance(outcome, outcomes.Unknown)


TOMORROW = format_datetime(datetime.now(UTC) + timedelta(hours=30), usegmt=True)
ROWS: dict[str, tuple[Reply, Callable[[outcomes.Outcome], bool]]] = {
    "200": (fake_fcm.OK, lambda o: isinstance(o, outcomes.Sent) and o.name.startswith("projects/local/messages/")),
    "400": (fake_fcm.INVALID, ours()),
    "401 third party": (fake_fcm.THIRD_PARTY, ours(stop=True)),
    "401 our token": (fake_fcm.UNAUTHENTICATED, later(60)),
    "403 sender id": (fake_fcm.SENDER_ID, gone),
    "403 our rights": (fake_fcm.FORBIDDEN, ours(stop=True)),
    "404 unregistered": (fake_fcm.UNREGISTERED, gone),
    "404 our project": (fake_fcm.NO_PROJECT, ours(stop=True)),
    "429": (fake_fcm.QUOTA, later(60)),
    "429 with seconds": (fake_fcm.retry_after(fake_fcm.QUOTA, "7"), later(7)),
    "429 with a date beyond an hour": (fake_fcm.retry_after(fake_fcm.QUOTA, TOMORROW), later(3600)),
    "429 with nonsense": (fake_fcm.retry_after(fake_fcm.QUOTA, "soon"), later(60)),
    "500": (fake_fcm.INTERNAL, later(10)),
    "503": (fake_fcm.UNAVAILABLE, later(10)),
    "503 with seconds": (fake_fcm.retry_after(fake_fcm.UNAVAILABLE, "40"), later(40)),
    "502 page": (fake_fcm.GATEWAY, unknown),
    "200 page": (fake_fcm.NOT_JSON, unknown),
    "200 without a name": (fake_fcm.NO_NAME, unknown),
    "200 list": (fake_fcm.A_LIST, unknown),
    "400 in an odd shape": (fake_fcm.ODD_ERROR, unknown),
    "307": (fake_fcm.MOVED, unknown),
    "dropped": (fake_fcm.CUT, unknown),
    "accepted, then dropped": (fake_fcm.LOST, unknown),
    "silent": (fake_fcm.SLOW, unknown),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_reply_has_its_outcome_after_exactly_one_request(phone: FakeFcm, row: str) -> None:
    reply, expected = ROWS[row]
    phone.script(ZH, reply)
    began = time.monotonic()
    outcome = fcm.send(MESSAGE, Settings(fcm_url=phone.url))
    assert expected(outcome), outcome
    assert len(phone.sends()) == 1
    assert time.monotonic() - began < 10


def test_an_answer_that_drips_is_not_waited_for(phone: FakeFcm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcm, "DEADLINE", 2.0)  # 9 s in earnest: each byte comes in time, so no socket timeout helps
    phone.script("*", fake_fcm.DRIP)
    assert unknown(fcm.send(MESSAGE, Settings(fcm_url=phone.url)))
    assert len(phone.sends()) == 1


def test_a_push_replaces_its_own_duplicate_and_is_all_strings(phone: FakeFcm) -> None:
    fcm.send(replace(MESSAGE, ttl=90), Settings(fcm_url=phone.url))
    (seen,) = phone.sends()
    assert seen.collapse_keys == {"n1"}
    assert seen.message["topic"] == ZH
    assert seen.message["data"] == {"notice": "n1"}
    assert seen.message["android"]["ttl"] == "90s"
    assert abs(int(seen.message["apns"]["headers"]["apns-expiration"]) - time.time() - 90) < 5
    assert {k.lower(): v for k, v in seen.headers.items()}["authorization"] == "Bearer local"


def test_what_fcm_would_refuse_is_not_even_posted(phone: FakeFcm) -> None:
    near = Settings(fcm_url=phone.url)
    assert ours()(fcm.send(replace(MESSAGE, body="长" * 700), near))
    assert ours()(fcm.send(replace(MESSAGE, value="高考"), near))
    assert ours()(fcm.send(replace(MESSAGE, data={"n": 3}), near))  # type: ignore[dict-item]
    assert phone.sends() == []
    # and the size counted here is never less than what the other side counts
    fits = next(n for n in range(700, 0, -1) if fcm.size(replace(MESSAGE, body="长" * n)) <= fcm.TOPIC_LIMIT)
    assert isinstance(fcm.send(replace(MESSAGE, body="长" * fits), near), outcomes.Sent)
    longer = replace(MESSAGE, kind="fid", value="an-installation", body="长" * (fits + 300))
    assert isinstance(fcm.send(longer, near), outcomes.Sent)


def test_without_credentials_a_log_line_says_what_would_leave(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "xinqiao.fcm"):
        assert isinstance(fcm.send(MESSAGE, Settings()), outcomes.Skipped)
    assert f"would push {ZH} n1" in caplog.text
    assert "inbox only" in fcm.credentials_state(Settings())


def test_a_key_that_opens_nothing_waits_and_posts_nothing(phone: FakeFcm, tmp_path: Path) -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account", "project_id": "district", "private_key": pem.decode(), "client_email": "a@district.example",
        "private_key_id": "1", "client_id": "1", "token_uri": f"{phone.url}/token",
    }  # fmt: skip
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    near = Settings(fcm_url=phone.url, firebase_credentials=str(file))
    phone.token_replies.append(Reply(400))
    assert later(60)(fcm.send(MESSAGE, near))
    assert phone.sends() == []
    assert "district" in fcm.credentials_state(replace(near, fcm_url=""))


def test_a_lost_reply_is_sent_again_under_the_same_key(phone: FakeFcm) -> None:
    with FaultProxy(phone.port) as proxy:
        near = Settings(fcm_url=f"http://127.0.0.1:{proxy.port}")
        proxy.then(DropReply(), Cut(10))
        assert unknown(fcm.send(MESSAGE, near))
        assert unknown(fcm.send(MESSAGE, near))  # cut within the request: it never arrived
        assert isinstance(fcm.send(MESSAGE, near), outcomes.Sent)
        assert proxy.connections == 3
    assert [seen.collapse_keys for seen in phone.sends()] == [{"n1"}, {"n1"}]

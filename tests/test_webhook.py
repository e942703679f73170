"""The district's own system: one post is one request, signed as the receiver in MANUAL.md verifies, and one outcome."""

import base64
import email.utils
import json
import logging
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from content.settings import Settings, SettingsError
from notifications import webhook
from notifications.outcomes import FLOOR, QUOTA_WAIT, Outcome, Refused, Retry, Sent, Skipped, Unknown

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TEXTS = {"zh-Hans": {"title": "考前这一周", "body": "吃好、睡好。"}, "en": {"title": "The week before", "body": "Sleep well."}}
EVENT = {"type": "notice", "id": "n1", "season": "gaokao", "divisions": ["150603"], "texts": TEXTS, "urgent": False}
MANUAL = (Path(__file__).parents[1] / "MANUAL.md").read_text(encoding="utf-8")


@dataclass
class Answer:
    """What the receiver says to one post."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    drip: float = 0.0
    """Seconds between the bytes of the body."""
    cut: bool = False
    wait: float = 0.0


class Receiver:
    """A district's system: keeps what was posted and answers as told, 200 by default."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.answers: deque[Answer] = deque()
        self.over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = receiver.answers.popleft() if receiver.answers else Answer()
                if answer.cut:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                receiver.over.wait(answer.wait)
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for at in range(len(answer.body)) if answer.drip else [0]:
                        self.wfile.write(answer.body[at : at + 1] if answer.drip else answer.body)
                        receiver.over.wait(answer.drip)
                except OSError:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """The poster went away: part of the tests."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/sms"

    def stop(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that listens."""
    made = Receiver()
    yield made
    made.stop()


def to(receiver: Receiver) -> Settings:
    """Settings that post there."""
    return Settings(webhook_url=receiver.url, webhook_secret=SECRET)


def receiving() -> Callable[[str, dict[str, str], bytes], Any]:
    """The receiver as MANUAL.md prints it."""
    section = MANUAL[MANUAL.index("### Channels") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code
    assert len(code[1].splitlines()) <= 17
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102  (our own page)
    found: Callable[[str, dict[str, str], bytes], Any] = names["event_of"]
    return found


# --- what is posted --------------------------------------------------------------------------------------------------


def test_the_receiver_of_the_manual_reads_a_post_and_turns_away_what_is_not_ours(receiver: Receiver) -> None:
    event_of = receiving()
    assert webhook.send(EVENT, "n1-webhook", to(receiver)) == Sent("n1-webhook")
    headers, body = receiver.posts[0]
    assert event_of(SECRET, headers, body) == EVENT
    assert "考前这一周".encode() in body, "not spelled as escapes: a third of the size"
    assert headers["content-type"] == "application/json; charset=utf-8"
    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    old = str(int(time.time()) - 301)
    for secret, changed, bytes_ in (
        (other, headers, body),
        (SECRET, headers, body.replace(b"n1", b"n2")),
        (SECRET, headers | {"webhook-id": "n2"}, body),
        (SECRET, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}, body),
        (SECRET, headers | {"webhook-timestamp": old}, body),
        (SECRET, headers | {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}, body),
    ):
        with pytest.raises(ValueError, match="too old|not signed"):
            event_of(secret, changed, bytes_)
    # two secrets while one is being changed; and the library's own verification agrees
    two = headers | {"webhook-signature": f"v1,AAAA {headers['webhook-signature']}"}
    assert event_of(SECRET, two, body) == Webhook(SECRET).verify(body, two) == EVENT


def test_a_repeat_carries_the_same_id_and_is_signed_again(receiver: Receiver) -> None:
    receiver.answers.append(Answer(cut=True))
    assert isinstance(webhook.send(EVENT, "n1", to(receiver)), Unknown)
    assert isinstance(webhook.send(EVENT, "n1", to(receiver)), Sent)
    assert [headers["webhook-id"] for headers, _ in receiver.posts] == ["n1", "n1"], "one request a call"
    assert receiver.posts[0][1] == receiver.posts[1][1]


def test_nothing_leaves_without_an_address() -> None:
    assert webhook.send(EVENT, "n1", Settings()) == Skipped("no webhook")


@pytest.mark.parametrize("key", ["", "a.b", "a b", "a\r\nX-Y: z", "键", "k" * 201])
def test_an_id_that_would_not_stand_in_a_header_is_refused(key: str, receiver: Receiver) -> None:
    outcome = webhook.send(EVENT, key, to(receiver))
    assert isinstance(outcome, Refused) and outcome.ours
    assert not receiver.posts


# --- what comes of it ------------------------------------------------------------------------------------------------


def later(seconds: float) -> Callable[[Outcome], bool]:
    """Retry after so many seconds."""
    return lambda o: isinstance(o, Retry) and seconds - 3 <= o.after <= seconds


def ours(outcome: Outcome) -> bool:
    """Somebody must mend it; the notice's other channels go on."""
    return isinstance(outcome, Refused) and outcome.ours and not outcome.stop and not outcome.drop_target


MEANINGS: dict[str, tuple[Answer, Callable[[Outcome], bool]]] = {
    "202": (Answer(202), lambda o: o == Sent("n1")),
    "204": (Answer(204, body=b""), lambda o: o == Sent("n1")),
    "200 with a page of 10 MB": (Answer(body=b"x" * 10_000_000), lambda o: o == Sent("n1")),
    "200 that is cut": (Answer(headers={"Content-Length": "999", "Connection": "close"}), lambda o: o == Sent("n1")),
    "200 that drips": (Answer(body=b"x" * 100, drip=0.3), lambda o: o == Sent("n1")),
    "307": (Answer(307, {"Location": "/elsewhere"}), ours),
    **{str(status): (Answer(status), ours) for status in (400, 401, 403, 404, 405, 409, 410, 413, 422)},
    "408": (Answer(408), later(FLOOR)),
    "429": (Answer(429), later(QUOTA_WAIT)),
    "429 with seconds": (Answer(429, {"Retry-After": "7"}), later(7)),
    "429 with a date": (Answer(429, {"Retry-After": email.utils.formatdate(time.time() + 9000, usegmt=True)}), later(3600)),
    "500": (Answer(500), later(FLOOR)),
    "502 page": (Answer(502, body=b"<html>"), later(FLOOR)),
    "503 sooner than we would": (Answer(503, {"Retry-After": "1"}), later(FLOOR)),
    "503 with seconds": (Answer(503, {"Retry-After": "120"}), later(120)),
    "503 for days": (Answer(503, {"Retry-After": "864000"}), later(3600)),
    "dropped": (Answer(cut=True), lambda o: isinstance(o, Unknown)),
}


@pytest.mark.parametrize("answer", MEANINGS)
def test_every_answer_is_one_request_and_one_outcome(answer: str, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    given, meaning = MEANINGS[answer]
    receiver.answers.append(given)
    outcome = webhook.send(EVENT, "n1", to(receiver))
    assert meaning(outcome), outcome
    assert len(receiver.posts) == 1
    alarms = [row.getMessage() for row in caplog.records if row.levelno >= logging.ERROR]
    assert bool(alarms) is isinstance(outcome, Refused)
    assert "127.0.0.1" not in " ".join(alarms), "the address may hold what opens the other system"


def test_a_receiver_that_is_silent_or_away_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    assert isinstance(webhook.send(EVENT, "n1", Settings(webhook_url=nobody, webhook_secret=SECRET)), Unknown)
    tls = Settings(webhook_url=receiver.url.replace("http:", "https:"), webhook_secret=SECRET)
    assert isinstance(webhook.send(EVENT, "n1", tls), Retry), "nothing was posted: its certificate is to be mended"
    monkeypatch.setattr(webhook, "CONNECT_AND_READ", 0.2)
    receiver.answers.append(Answer(wait=30))
    assert webhook.send(EVENT, "n1", to(receiver)) == Unknown("webhook: ReadTimeout")
    monkeypatch.setattr(webhook, "CONNECT_AND_READ", 30)
    monkeypatch.setattr(webhook, "DEADLINE", 0.2)
    receiver.answers.append(Answer(wait=30))
    assert isinstance(webhook.send(EVENT, "n1", to(receiver)), Unknown)


def test_neither_a_proxy_nor_a_password_file_has_a_say(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert isinstance(webhook.send(EVENT, "n1", to(receiver)), Sent)
    monkeypatch.delenv("http_proxy")
    monkeypatch.setattr(webhook, "LOOPBACK", ())  # as if it stood elsewhere
    assert isinstance(webhook.send(EVENT, "n1", to(receiver)), Sent)
    assert ["authorization" in headers for headers, _ in receiver.posts] == [False, False]


# --- settings --------------------------------------------------------------------------------------------------------

HERE = {"XINQIAO_VAR": "/nonexistent", "XINQIAO_WEBHOOK_SECRET": SECRET}


@pytest.mark.parametrize(
    "url", ["https://sms.example.cn/in?k=1", "https://10.1.2.3:8443/", "http://127.0.0.1:9/", "http://[::1]:9/"]
)
def test_an_address_to_post_to(url: str) -> None:
    settings = Settings.from_env({**HERE, "XINQIAO_WEBHOOK_URL": url})
    assert settings.webhook_url == url
    assert Settings.from_env(HERE | settings.environment()) == settings, "children get all of it"
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "sms.example.cn", "http://sms.example.cn/", "ftp://127.0.0.1/", "https://", "https://a:b@example.cn/", "https://example.cn/#x",
        "https://example.cn:99999/", "https://example.cn/ x", "https://例.cn/", "http://127.0.0.1.example.cn/", "https://[::1/",
    ],
)  # fmt: skip
def test_an_address_that_may_not_be_posted_to(url: str) -> None:
    with pytest.raises(SettingsError, match="XINQIAO_WEBHOOK_URL") as caught:
        Settings.from_env({**HERE, "XINQIAO_WEBHOOK_URL": url})
    assert "a:b" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_has_its_form_and_its_length(size: int) -> None:
    encoded = base64.b64encode(bytes(size)).decode()
    for text in (f"whsec_{encoded}", encoded or "whsec", f"whsec_{'!' * 40}"):
        with pytest.raises(SettingsError, match="XINQIAO_WEBHOOK_SECRET") as caught:
            Settings.from_env({"XINQIAO_VAR": "/nonexistent", "XINQIAO_WEBHOOK_SECRET": text})
        assert not encoded or encoded not in str(caught.value)
    with pytest.raises(SettingsError, match="set XINQIAO_WEBHOOK_SECRET too"):
        Settings.from_env({"XINQIAO_VAR": "/nonexistent", "XINQIAO_WEBHOOK_URL": "https://sms.example.cn/"})


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", [["fcm"], ["webhook"]]), ("webhook,fcm", [["webhook"], ["fcm"]]), ("fcm > webhook", [["fcm", "webhook"]]),
        ("webhook", [["webhook"]]),
    ],
)  # fmt: skip
def test_the_order_of_channels(text: str, steps: list[list[str]]) -> None:
    assert Settings.from_env({"XINQIAO_VAR": "/nonexistent", "XINQIAO_CHANNELS": text}).steps() == steps


@pytest.mark.parametrize("text", ["sms", "fcm,fcm", "fcm>fcm", "fcm,,webhook", "fcm>", ",", "FCM", "fcm;webhook"])
def test_an_order_that_means_nothing(text: str) -> None:
    with pytest.raises(SettingsError, match="XINQIAO_CHANNELS"):
        Settings.from_env({"XINQIAO_VAR": "/nonexistent", "XINQIAO_CHANNELS": text})


def test_every_event_of_the_manual_is_plain_json(receiver: Receiver) -> None:
    with pytest.raises(TypeError):
        webhook.send({"type": "notice", "send_at": object()}, "n1", to(receiver))
    webhook.send({"type": "notice.cancelled", "id": "n1"}, "n1-cancelled", to(receiver))
    assert json.loads(receiver.posts[0][1]) == {"type": "notice.cancelled", "id": "n1"}

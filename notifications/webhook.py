"""One post to the district's own system (SMS, WeChat, a vendor's push): `send` makes one HTTP request and says what it came to.

Signed as Standard Webhooks 1.0.0 say: HMAC-SHA256 over "id.timestamp.body". The id is the outbox's key and the same whenever
the post is repeated, so whoever receives it can drop a duplicate. What is posted stands in MANUAL.md, "Channels". The address
is never logged: it may hold what opens the other system.
"""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from standardwebhooks.webhooks import Webhook

from content.settings import LOOPBACK, Settings
from notifications.outcomes import FLOOR, QUOTA_WAIT, Outcome, Refused, Retry, Sent, Skipped, Unknown, alarm, retry_after, within

CONNECT_AND_READ = 4.0  # seconds for each of: connecting, each read
DEADLINE = 9.0  # seconds for a whole attempt
ANSWER_LIMIT, LISTEN = 64 * 2**10, 0.5  # bytes and seconds of an answer's body that are read; nothing in it is used
KEY = re.compile(r"[!-\-/-~]{1,200}", re.ASCII)  # no full stop: the specification's, what is signed is joined with them


def send(event: Mapping[str, Any], key: str, settings: Settings) -> Outcome:
    """Post the event once and return within about `DEADLINE` seconds. Never raises for anything the receiver or the network does.
    A second call posts a second time, under the same id. `event`: plain JSON values (anything else raises TypeError); `key`:
    printable ASCII without a full stop."""
    if not settings.webhook_url:
        return Skipped("no webhook")
    if not KEY.fullmatch(key):
        return alarm(Refused(f"webhook: {key!r} is no id", ours=True))
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return within(DEADLINE, lambda: _attempt(body, key, settings))


def _attempt(body: str, key: str, settings: Settings) -> Outcome:
    at = datetime.now(UTC)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "xinqiao",
        "webhook-id": key,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(settings.webhook_secret).sign(key, at, body),
    }
    try:
        with requests.Session() as session:
            session.trust_env = urlsplit(settings.webhook_url).hostname not in LOOPBACK  # HTTPS_PROXY is for the world outside
            session.auth = lambda request: request  # else requests would look into ~/.netrc
            with session.post(
                settings.webhook_url,
                data=body.encode(),
                headers=headers,
                timeout=CONNECT_AND_READ,
                allow_redirects=False,  # a signed post goes where the setting says and nowhere else
                stream=True,
            ) as answer:
                _hear_out(answer)
                return outcome_of(answer.status_code, answer.headers, key)
    except requests.exceptions.SSLError:
        return alarm(Retry(QUOTA_WAIT, "webhook: its certificate is not accepted"))
    except Exception as error:  # the network's, and whatever else: whether it arrived, nobody knows
        return Unknown(f"webhook: {type(error).__name__}")


def _hear_out(answer: requests.Response) -> None:
    """Read what little of the body comes at once: some servers give up their work when nobody listens."""
    left, end = ANSWER_LIMIT, time.monotonic() + LISTEN
    with contextlib.suppress(Exception):  # it has answered: nothing that follows makes that undone
        while left > 0 and time.monotonic() < end and (part := answer.raw.read1(left)):
            left -= len(part)


def outcome_of(status: int, headers: Mapping[str, str], key: str) -> Outcome:
    """What the receiver's answer means. Any 2xx took it, whatever its body says; what is neither taken nor to be tried again is
    somebody's to mend, here or there."""
    reason, asked = f"webhook: {status}", retry_after(headers)
    if 200 <= status < 300:
        return Sent(key)
    if status == 429:
        return Retry(asked or QUOTA_WAIT, reason)
    if status >= 500 or status in (408, 425):
        return Retry(max(FLOOR, asked), reason)
    return alarm(Refused(reason, ours=True))

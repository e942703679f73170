"""One push to Firebase Cloud Messaging: `send` makes one HTTP request and says what it came to.

The only module that imports firebase. The SDK's own retries are taken out (it posts twice after a lost reply, posts again
after 500, 503 and 401, and sleeps in the caller's thread on 429): whether and when to try again is the outbox's decision.
FCM has no idempotency key, so every message carries the notice's id as collapse key, APNs collapse id and Android tag: a
duplicate replaces itself on the phone.

`settings.fcm_url` (loopback) stands for Google's address, with a static token unless `firebase_credentials` is set too.
With neither, nothing is sent and a log line says "would push".
"""

import email.utils
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import Any, Literal

import firebase_admin
import google.auth.credentials
import google.auth.exceptions
import requests
from firebase_admin import credentials, exceptions, messaging

from content.settings import Settings
from notifications.outcomes import FLOOR, QUOTA_WAIT, Outcome, Refused, Retry, Sent, Skipped, Unknown, alarm

log = logging.getLogger("xinqiao.fcm")

LIMIT, TOPIC_LIMIT = 4096, 2048  # bytes of payload, to one phone and to a topic
CONNECT_AND_READ = 4.0  # seconds for each of: connecting, each read
DEADLINE = 9.0  # seconds for a whole attempt: a name server that hangs and an answer that drips obey no socket timeout


@dataclass(frozen=True)
class Message:
    """One push. `value` is a topic name, a condition, a Firebase installation id or a registration token."""

    notice: str
    value: str
    title: str
    body: str
    ttl: int
    """Seconds FCM may keep it for a phone that is off; never past the notice's expiry."""
    kind: Literal["topic", "condition", "fid", "token"] = "topic"
    data: Mapping[str, str] = field(default_factory=dict)


class _Static(google.auth.credentials.Credentials):
    """A token that is always valid and never fetched; for a loopback server."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.token = "local"  # noqa: S105  (opens nothing)

    def refresh(self, request: object) -> None:
        """Nothing to fetch."""


_apps: dict[tuple[int, str, str], firebase_admin.App] = {}
_lock = threading.Lock()


def _app(settings: Settings) -> firebase_admin.App:
    """The process's app for these settings, made once a process (a forked child makes its own, with its own sockets)."""
    key = (os.getpid(), settings.firebase_credentials, settings.fcm_url)
    with _lock:
        if key not in _apps:
            options: dict[str, Any] = {"httpTimeout": CONNECT_AND_READ}
            if settings.firebase_credentials:
                identity: Any = credentials.Certificate(settings.firebase_credentials)
            else:
                identity = _Static()
                options["projectId"] = "local"
            app = firebase_admin.initialize_app(identity, options, name=":".join(map(str, key)))
            service = messaging._get_messaging_service(app)
            if settings.fcm_url:
                service._fcm_url = f"{settings.fcm_url.rstrip('/')}/v1/projects/{service._project_id}/messages:send"
            session = service._client.session
            session._max_refresh_attempts = 0  # google-auth would post again twice after a 401
            session.max_redirects = 0  # requests would post again where a 307 points
            session.trust_env = not settings.fcm_url  # HTTPS_PROXY counts for Google's address only
            for prefix in list(session.adapters):
                session.mount(prefix, requests.adapters.HTTPAdapter(max_retries=0))
            _apps[key] = app
        return _apps[key]


def credentials_state(settings: Settings) -> str:
    """How pushes leave, in one line for `xinqiao doctor`; asks nobody."""
    if settings.fcm_url:
        return f"to {settings.fcm_url} instead of Firebase"
    if not settings.firebase_credentials:
        return "no FIREBASE_CREDENTIALS: inbox only"
    try:
        return f"Firebase project {credentials.Certificate(settings.firebase_credentials).project_id}"
    except (ValueError, OSError) as error:
        return f"FIREBASE_CREDENTIALS cannot be used: {error}"


def encode(message: Message) -> messaging.Message:
    """The SDK's message. Raises nothing: what is wrong with it, `send` finds out."""
    timeless = {"apns-collapse-id": message.notice, "apns-priority": "5"}
    return messaging.Message(
        **{message.kind: message.value},
        notification=messaging.Notification(title=message.title, body=message.body),
        data=dict(message.data),
        android=messaging.AndroidConfig(
            collapse_key=message.notice,
            ttl=timedelta(seconds=max(0, message.ttl)),
            notification=messaging.AndroidNotification(tag=message.notice),
        ),
        apns=messaging.APNSConfig(
            headers={**timeless, "apns-expiration": str(int(time.time()) + max(0, message.ttl))},
            payload=messaging.APNSPayload(aps=messaging.Aps(thread_id=message.notice)),
        ),
    )


def size(message: Message) -> int:
    """Bytes of the whole payload as UTF-8 JSON, target left out; never less than what FCM counts."""
    body = messaging._MessagingService.encode_message(encode(message))
    body.pop(message.kind, None)
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def limit(message: Message) -> int:
    """The most bytes such a message may have."""
    return TOPIC_LIMIT if message.kind in {"topic", "condition"} else LIMIT


def send(message: Message, settings: Settings) -> Outcome:
    """Post the message once and return within about `DEADLINE` seconds. Never raises for anything FCM, the network or the
    credentials do. A second call sends a second time (under the same collapse key)."""
    if not settings.fcm_url and not settings.firebase_credentials:
        log.info("would push %s %s", message.value if message.kind in {"topic", "condition"} else message.kind, message.notice)
        return Skipped()
    try:
        bytes_ = size(message)
        ready = encode(message)
    except ValueError as error:  # the SDK's own check: a malformed topic, data that is no text
        return alarm(Refused(f"malformed: {error}", ours=True))
    if bytes_ > limit(message):
        return alarm(Refused(f"{bytes_} bytes, more than {limit(message)}", ours=True))
    return _within(DEADLINE, lambda: _attempt(ready, settings))


def _within(seconds: float, work: Callable[[], Outcome]) -> Outcome:
    """The outcome of `work`, or Unknown after `seconds`. The thread left behind ends with its own socket timeouts."""
    done: list[Outcome] = []
    thread = threading.Thread(target=lambda: done.append(work()), name="fcm", daemon=True)
    thread.start()
    thread.join(seconds)
    return done[0] if done else Unknown(f"no outcome within {seconds:.0f} s")


def _attempt(message: messaging.Message, settings: Settings) -> Outcome:
    try:
        name = messaging.send(message, app=_app(settings))
    except exceptions.FirebaseError as error:
        return outcome_of(error)
    except google.auth.exceptions.GoogleAuthError as error:
        return alarm(Retry(QUOTA_WAIT, f"no access token: {type(error).__name__}"))
    except (KeyError, AttributeError, TypeError, ValueError, requests.RequestException) as error:
        return Unknown(f"unreadable answer: {type(error).__name__}")  # it came from a 200, or from an error in an odd shape
    except Exception as error:  # a key file that vanished, an SDK surprise: before the post or after, nobody knows
        log.exception("push attempt failed in an unforeseen way")
        return Unknown(type(error).__name__)
    return Sent(name) if isinstance(name, str) else Unknown("answer without a name")


def outcome_of(error: exceptions.FirebaseError) -> Outcome:
    """What FCM's reply means. Only UNREGISTERED and SENDER_ID_MISMATCH say anything about the target."""
    reply = error.http_response
    status = reply.status_code if reply is not None else 0
    reason = f"{status or 'no answer'} {error.code}"
    if isinstance(error, messaging.UnregisteredError | messaging.SenderIdMismatchError):
        return Refused(reason, drop_target=True)
    if isinstance(error, messaging.ThirdPartyAuthError):
        return alarm(Refused(reason, ours=True, stop=True))
    if isinstance(error, messaging.QuotaExceededError) or status == 429:
        return Retry(_retry_after(error) or QUOTA_WAIT, reason)
    if status in (500, 503):
        return Retry(max(FLOOR, _retry_after(error)), reason)
    if status == 401:  # our own token was not accepted: the key may have been changed, clocks may differ
        return alarm(Retry(QUOTA_WAIT, reason))
    if status == 400 or (isinstance(error, exceptions.InvalidArgumentError) and status):
        return alarm(Refused(reason, ours=True))
    if status in (403, 404):  # no FcmError beside it: the project or its rights, not the phone
        return alarm(Refused(reason, ours=True, stop=True))
    return Unknown(reason)


def _retry_after(error: exceptions.FirebaseError) -> float:
    """Seconds from Retry-After (a number or an HTTP date), at most an hour; 0 when absent or unreadable."""
    text = error.http_response.headers.get("Retry-After", "").strip() if error.http_response is not None else ""
    try:
        seconds = (
            float(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).astimezone(UTC).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), 3600.0)

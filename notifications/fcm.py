"""One push to Firebase Cloud Messaging: `send` makes one HTTP request and says what it came to.

The only module that imports firebase. The SDK's own retries are taken out (it posts twice after a lost reply, posts again
after 500, 503 and 401, and sleeps in the caller's thread on 429): whether and when to try again is the outbox's decision.
FCM has no idempotency key, so every message carries its key as collapse key, APNs collapse id and Android tag: a duplicate
replaces itself on the phone.

`settings.fcm_url` (loopback) stands for Google's address, with a static token unless `firebase_credentials` is set too.
With neither, nothing is sent and a log line says "would push".
"""

import functools
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, repeat
from typing import Any, Literal, NamedTuple

import firebase_admin
import google.auth.credentials
import google.auth.exceptions
import requests
import urllib3
from firebase_admin import credentials, exceptions, messaging
from firebase_admin._http_client import METRICS_HEADERS

from content.settings import Settings
from notifications.outcomes import FLOOR, QUOTA_WAIT, Outcome, Refused, Retry, Sent, Skipped, Unknown, alarm, retry_after

log = logging.getLogger("xinqiao.fcm")

LIMIT, TOPIC_LIMIT = 4096, 2048  # bytes of payload, to one phone and to a topic
CONNECT_AND_READ = 4.0  # seconds for each of: connecting, each read
DEADLINE = 9.0  # seconds for a whole attempt


@dataclass(frozen=True)
class Message:
    """One push. `value` is a topic name, a condition, a Firebase installation id or a registration token."""

    key: str
    """By which it replaces an earlier one on the same phone: its collapse key."""
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


class _Way(NamedTuple):
    """How a process's messages leave."""

    service: Any
    """The SDK's messaging service."""
    session: Any
    """Its authorised session."""
    request: requests.PreparedRequest
    """What all have in common."""
    pool: Any
    """Its connections to FCM, with proxies and certificates as the environment says."""
    lock: threading.Lock


_ways: dict[tuple[int, str, str], _Way] = {}
_lock = threading.Lock()


def _way(settings: Settings) -> _Way:
    """The way for these settings, made once a process (a forked child makes its own, with its own sockets)."""
    key = (os.getpid(), settings.firebase_credentials, settings.fcm_url)
    with _lock:
        if key not in _ways:
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
            session.trust_env = not settings.fcm_url  # HTTPS_PROXY counts for Google's address only
            for prefix in list(session.adapters):  # the SDK's would try again by themselves
                session.mount(prefix, requests.adapters.HTTPAdapter(pool_maxsize=32, max_retries=0))
            headers = {**service._fcm_headers, **METRICS_HEADERS, "Content-Type": "application/json"}
            request = session.prepare_request(requests.Request("POST", service._fcm_url, headers=headers, data=b"{}"))
            common = session.merge_environment_settings(service._fcm_url, {}, False, None, None)
            adapter, proof = session.get_adapter(service._fcm_url), {name: common[name] for name in ("verify", "cert")}
            pool = adapter.get_connection_with_tls_context(request, **proof, proxies=common["proxies"])
            adapter.cert_verify(pool, service._fcm_url, **proof)
            _ways[key] = _Way(service, session, request, pool, threading.Lock())
        return _ways[key]


def credentials_state(settings: Settings) -> str:
    """How pushes leave, in one line for `xinqiao doctor`; asks nobody."""
    if settings.fcm_url:
        return f"no push leaves this machine: they end at {settings.fcm_url}/ and can be seen there"
    if not settings.firebase_credentials:
        return "no FIREBASE_CREDENTIALS: inbox only, no push leaves this machine"
    try:
        return f"Firebase project {credentials.Certificate(settings.firebase_credentials).project_id}"
    except (ValueError, OSError) as error:
        return f"FIREBASE_CREDENTIALS cannot be used: {error}"


def encode(message: Message, now: float | None = None) -> messaging.Message:
    """The SDK's message, as of `now` (seconds since the epoch). Raises nothing: what is wrong with it, `send` finds out."""
    timeless = {"apns-collapse-id": message.key, "apns-priority": "5"}
    until = int(time.time() if now is None else now) + max(0, message.ttl)
    return messaging.Message(
        **{message.kind: message.value},
        notification=messaging.Notification(title=message.title, body=message.body),
        data=dict(message.data),
        android=messaging.AndroidConfig(
            collapse_key=message.key,
            ttl=timedelta(seconds=max(0, message.ttl)),
            notification=messaging.AndroidNotification(tag=message.key),
        ),
        apns=messaging.APNSConfig(
            headers={**timeless, "apns-expiration": str(until)},
            payload=messaging.APNSPayload(aps=messaging.Aps(thread_id=message.key)),
        ),
    )


def body(message: Message) -> bytes:
    """The JSON that is posted. Raises `ValueError` for what the SDK would not send (a malformed topic, data that is no text).

    The SDK walks through a message for 0.15 ms. Those to phones differ in target, id and time only, so it encodes one of each
    shape, and these three are put in."""
    if message.kind not in {"fid", "token"} or not message.value or not isinstance(message.value, str):
        return json.dumps({"message": messaging._MessagingService.encode_message(encode(message))}).encode()
    ttl = max(0, message.ttl)
    text = _shape(message.kind, message.title, message.body, tuple(message.data.items()))
    for mark, value in ((_KEY, message.key), (_VALUE, message.value)):
        text = text.replace(json.dumps(mark), json.dumps(value))
    return text.replace(f'"{_TTL}s"', f'"{ttl}s"').replace(f'"{_TTL}"', f'"{int(time.time()) + ttl}"').encode()


_KEY, _VALUE, _TTL = "\ue000key", "\ue000value", 987654321  # no text of ours has these


@functools.lru_cache(maxsize=64)
def _shape(kind: Literal["fid", "token"], title: str, text: str, data: tuple[tuple[str, str], ...]) -> str:
    pattern = Message(_KEY, _VALUE, title, text, _TTL, kind, dict(data))
    return json.dumps({"message": messaging._MessagingService.encode_message(encode(pattern, 0))})


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
    return next(outcome for _, outcome in each([message], settings, lambda: 1))


def each(messages: Iterable[Message], settings: Settings, width: Callable[[], int]) -> Iterator[tuple[int, Outcome]]:
    """Post every message once, in their order and some at a time, and yield (its index, outcome) as they come; each within about
    `DEADLINE` seconds, otherwise Unknown. `width` is asked before each: how many may be under way, 0 when no more shall begin;
    what did not begin is not yielded, nor taken from `messages`, which may make them as they are asked for. A thread whose
    attempt took too long is left behind and ends with its own sockets."""
    todo: queue.SimpleQueue[tuple[int, Message] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()

    def work() -> None:
        while given := todo.get():
            index, message = given
            done.put((index, _attempt(message, settings)))

    began: dict[int, float] = {}
    left: Iterator[Message | None] = chain(messages, repeat(None))
    threads = free = index = 0
    try:
        while True:
            while len(began) < width() and (message := next(left)) is not None:
                if free:
                    free -= 1
                else:
                    threading.Thread(target=work, name="fcm", daemon=True).start()
                    threads += 1
                began[index] = time.monotonic()
                todo.put((index, message))
                index += 1
            if not began:
                return
            oldest = next(iter(began))
            try:
                found, outcome = done.get(timeout=max(0.0, began[oldest] + DEADLINE - time.monotonic()))
                free += 1
            except queue.Empty:
                found, outcome = oldest, Unknown(f"no outcome within {DEADLINE:.0f} s")
            if began.pop(found, None) is not None:  # else it was late, and counted as Unknown
                yield found, outcome
    finally:
        for _ in range(threads):
            todo.put(None)


def _attempt(message: Message, settings: Settings) -> Outcome:
    if not settings.fcm_url and not settings.firebase_credentials:
        log.info("would push %s %s", message.value if message.kind in {"topic", "condition"} else message.kind, message.key)
        return Skipped()
    try:
        data = body(message)
        bytes_ = len(data) if len(data) <= limit(message) else size(message)  # with spaces and target, it is never less
    except ValueError as error:  # the SDK's own check
        return alarm(Refused(f"malformed: {error}", ours=True))
    if bytes_ > limit(message):
        return alarm(Refused(f"{bytes_} bytes, more than {limit(message)}", ours=True))
    try:
        name = _post(data, settings)
    except exceptions.FirebaseError as error:
        return outcome_of(error)
    except google.auth.exceptions.GoogleAuthError as error:
        return alarm(Retry(QUOTA_WAIT, f"no access token: {type(error).__name__}"))
    except urllib3.exceptions.HTTPError as error:
        return Unknown(f"no answer: {type(error).__name__}")
    except (KeyError, AttributeError, TypeError, ValueError, requests.RequestException) as error:
        return Unknown(f"unreadable answer: {type(error).__name__}")  # it came from a 200, or from an error in an odd shape
    except Exception as error:  # a key file that vanished, an SDK surprise: before the post or after, nobody knows
        log.exception("push attempt failed in an unforeseen way")
        return Unknown(type(error).__name__)
    return Sent(name) if isinstance(name, str) else Unknown("answer without a name")


def _post(data: bytes, settings: Settings) -> Any:
    """The name in FCM's answer to one request: by the SDK's session, credentials and reading of errors, without what it prepares
    anew for every request (more than half of its time). Raises as `messaging.send` does, or urllib3's error for no answer."""
    way = _way(settings)
    headers = {**way.request.headers, "Content-Length": str(len(data))}
    with way.lock:  # several threads would each fetch a token that has run out
        way.session.credentials.before_request(way.session._auth_request, "POST", way.request.url, headers)
    reply = way.pool.urlopen("POST", way.request.path_url, data, headers, retries=False, redirect=False, timeout=CONNECT_AND_READ)
    if reply.status == 200:
        return json.loads(reply.data)["name"]
    answer: Any = requests.adapters.HTTPAdapter().build_response(way.request, reply)
    answer._content = reply.data  # it has been read
    raise way.service._handle_fcm_error(requests.HTTPError(str(reply.status), response=answer))


def outcome_of(error: exceptions.FirebaseError) -> Outcome:
    """What FCM's reply means. Only UNREGISTERED and SENDER_ID_MISMATCH say anything about the target."""
    reply = error.http_response
    status = reply.status_code if reply is not None else 0
    reason = f"{status or 'no answer'} {error.code}"
    if isinstance(error, messaging.UnregisteredError | messaging.SenderIdMismatchError):
        return Refused(reason, drop_target=True)
    if isinstance(error, messaging.ThirdPartyAuthError):
        return alarm(Refused(reason, ours=True, stop=True))
    asked = retry_after(reply.headers) if reply is not None else 0.0
    if isinstance(error, messaging.QuotaExceededError) or status == 429:
        return Retry(asked or QUOTA_WAIT, reason)
    if status in (500, 503):
        return Retry(max(FLOOR, asked), reason)
    if status == 401:  # our own token was not accepted: the key may have been changed, clocks may differ
        return alarm(Retry(QUOTA_WAIT, reason))
    if status == 400 or (isinstance(error, exceptions.InvalidArgumentError) and status):
        return alarm(Refused(reason, ours=True))
    if status in (403, 404):  # no FcmError beside it: the project or its rights, not the phone
        return alarm(Refused(reason, ours=True, stop=True))
    return Unknown(reason)

"""A faithful local FCM over HTTP (HTTP v1 API). Google ships no emulator for messaging.

    with FakeFcm() as fcm:                     # or: python -m tests.doubles.fake_fcm --port 9099
        fcm.script("d150603.parent.all.zh-Hans", QUOTA, OK)   # one-shot replies to that target, then normal again
        ... XINQIAO_FCM_URL=fcm.url ...
        fcm.sends()                            # every request that reached messages:send, with headers and its reply

As the real one: POST /token (jwt-bearer), POST /v1/projects/P/messages:send with a bearer, exactly one target, string-only
data without reserved keys, 4,096 bytes (2,048 to a topic or condition), `validate_only`, errors with an FcmError detail.
It also takes GET /log, DELETE /log and POST /script {"target", "replies": ["QUOTA", …]} from other processes.
"""

import argparse
import contextlib
import json
import re
import socket
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

SEND = re.compile(r"/v1/projects/([^/]+)/messages:send\Z")
TOPIC = re.compile(r"[a-zA-Z0-9\-_.~%]+\Z")
RESERVED = re.compile(r"(from|message_type|collapse_key)\Z|google|gcm")
TARGETS = ("fid", "token", "topic", "condition")
FIELDS = {*TARGETS, "data", "notification", "android", "apns", "webpush", "fcm_options", "name"}
DETAIL = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
LIMIT, TOPIC_LIMIT = 4096, 2048  # bytes


@dataclass(frozen=True)
class Reply:
    """What a script makes the server do once. `cut`: "before" closes unread-looking, "after" accepts the message, then drops."""

    status: int = 200
    code: str = ""
    """FcmError's errorCode; "" sends an error without that detail."""
    state: str = ""
    """google.rpc status name."""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """The whole body, instead of a well-formed one."""
    delay: float = 0.0
    """Seconds before answering."""
    drip: float = 0.0
    """Seconds between the bytes of the answer."""
    cut: str = ""


def retry_after(reply: Reply, value: str) -> Reply:
    """The same reply with a Retry-After header (seconds, or an HTTP date)."""
    return Reply(reply.status, reply.code, reply.state, {**reply.headers, "Retry-After": value})


OK = Reply()
INVALID = Reply(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
THIRD_PARTY = Reply(401, "THIRD_PARTY_AUTH_ERROR", "UNAUTHENTICATED")
UNAUTHENTICATED = Reply(401, "", "UNAUTHENTICATED")
FORBIDDEN = Reply(403, "", "PERMISSION_DENIED")
SENDER_ID = Reply(403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED")
UNREGISTERED = Reply(404, "UNREGISTERED", "NOT_FOUND")
NO_PROJECT = Reply(404, "", "NOT_FOUND")
QUOTA = Reply(429, "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED")
INTERNAL = Reply(500, "INTERNAL", "INTERNAL")
UNAVAILABLE = Reply(503, "UNAVAILABLE", "UNAVAILABLE")
GATEWAY = Reply(502, raw=b"<html><title>502 Bad Gateway</title></html>", headers={"Content-Type": "text/html"})
NOT_JSON = Reply(raw=b"<html>hello</html>")
NO_NAME = Reply(raw=b"{}")
A_LIST = Reply(raw=b"[]")
ODD_ERROR = Reply(400, raw=b'{"error": "invalid"}')
MOVED = Reply(307, headers={"Location": "/v1/projects/elsewhere/messages:send"}, raw=b"")
CUT = Reply(cut="before")
LOST = Reply(cut="after")
SLOW = Reply(delay=30)
DRIP = Reply(drip=1.0)
NAMED = {name: value for name, value in list(globals().items()) if isinstance(value, Reply)}


@dataclass
class Seen:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    body: Any
    target: str
    at: float
    """time.time()"""
    outcome: str = ""
    """"accepted" when a phone would have got it, else the error's code; an accepted one may still have lost its reply."""

    @property
    def message(self) -> dict[str, Any]:
        """The FCM message."""
        found: dict[str, Any] = self.body.get("message", {})
        return found

    @property
    def collapse_keys(self) -> set[str]:
        """The ids by which a duplicate replaces itself; one member when all platforms agree."""
        android, apns = self.message.get("android", {}), self.message.get("apns", {})
        keys = (android.get("collapse_key"), android.get("notification", {}).get("tag"))
        return {str(key) for key in (*keys, apns.get("headers", {}).get("apns-collapse-id"))}


class FakeFcm:
    """The server, on a loopback port of its own choice unless `port` names one. Usable as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.log: list[Seen] = []
        self.token_replies: deque[Reply] = deque()
        self._scripts: dict[str, deque[Reply]] = {}
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.stopping = threading.Event()
        fake = self

        class Handler(_Handler):
            fcm = fake

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is part of the tests."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fake-fcm", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What XINQIAO_FCM_URL takes."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Serve until `stop`."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the listener and every connection."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def script(self, target: str, *replies: Reply) -> None:
        """Answer the next requests to `target` ("*" = to any) with these, one each, then normally."""
        with self._lock:
            self._scripts.setdefault(target, deque()).extend(replies)

    def sends(self, target: str = "") -> list[Seen]:
        """Requests that reached messages:send, oldest first; only those to `target` when given."""
        with self._lock:
            return [s for s in self.log if SEND.match(s.path) and (not target or s.target == target)]

    def clear(self) -> None:
        """Forget the log and all scripts."""
        with self._lock:
            self.log.clear()
            self._scripts.clear()
            self.token_replies.clear()

    def next_reply(self, target: str) -> Reply | None:
        """Take the next scripted reply, the target's own before that of "*"."""
        with self._lock:
            for name in (target, "*"):
                if self._scripts.get(name):
                    return self._scripts[name].popleft()
            return None

    def note(self, seen: Seen) -> None:
        """Add to the log."""
        with self._lock:
            self.log.append(seen)

    def track(self, one: socket.socket, opened: bool) -> None:
        """Know the open connections, to close them at the end."""
        with self._lock:
            (self._open.add if opened else self._open.discard)(one)


def fault_of(body: Any) -> str:
    """Why FCM would answer 400, or "" when the request is well formed."""
    if not isinstance(body, dict) or set(body) - {"message", "validate_only"} or not isinstance(body.get("message"), dict):
        return "the body is not {message, validate_only}"
    message = body["message"]
    if unknown := set(message) - FIELDS:
        return f"unknown field {sorted(unknown)}"
    targets = [name for name in TARGETS if name in message]
    if len(targets) != 1 or not isinstance(message[targets[0]], str) or not message[targets[0]]:
        return "exactly one target is needed"
    if targets == ["topic"] and not TOPIC.match(message["topic"]):
        return "malformed topic"
    if targets == ["condition"] and not 1 <= message["condition"].count(" in topics") <= 5:
        return "a condition names one to five topics"
    for name, data in (("data", message.get("data", {})), ("android.data", message.get("android", {}).get("data", {}))):
        if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
            return f"{name} is not a map of strings"
        if bad := [key for key in data if RESERVED.match(key)]:
            return f"{name} uses a reserved key {bad}"
    payload = {key: value for key, value in message.items() if key not in TARGETS}
    size = len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
    limit = TOPIC_LIMIT if targets[0] in {"topic", "condition"} else LIMIT
    return f"the payload is {size} bytes, more than {limit}" if size > limit else ""


class _Handler(BaseHTTPRequestHandler):
    fcm: FakeFcm
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 65536  # headers and body leave in one piece, else every answer waits 40 ms for a delayed ACK

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def setup(self) -> None:
        super().setup()
        self.fcm.track(self.connection, True)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.fcm.track(self.connection, False)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/token":
            self._token(raw)
        elif self.path == "/script":
            given = json.loads(raw)
            self.fcm.script(given["target"], *(NAMED[name] for name in given["replies"]))
            self._json(200, {})
        elif found := SEND.match(self.path):
            self._send(found[1], raw)
        else:
            self._error(Reply(404, "", "NOT_FOUND"), "no such method")

    def do_GET(self) -> None:
        if self.path == "/log":
            self._json(200, [asdict(seen) for seen in self.fcm.sends()])
        else:
            self._error(Reply(404, "", "NOT_FOUND"), "no such method")

    def do_DELETE(self) -> None:
        self.fcm.clear()
        self._json(200, {})

    def _token(self, raw: bytes) -> None:
        """OAuth 2.0 with a signed assertion (RFC 7523); the signature is not looked at."""
        form = urllib.parse.parse_qs(raw.decode())
        seen = Seen(self.path, dict(self.headers), form, "", time.time())
        self.fcm.note(seen)
        if self.fcm.token_replies:
            reply = self.fcm.token_replies.popleft()
            seen.outcome = str(reply.status)
            error = "invalid_grant" if reply.status == 400 else "temporarily_unavailable"
            return self._json(reply.status, {"error": error, "error_description": "scripted"})
        if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"] or "assertion" not in form:
            return self._json(400, {"error": "invalid_grant", "error_description": "no assertion"})
        return self._json(200, {"access_token": "ya29.fake", "expires_in": 3599, "token_type": "Bearer"})

    def _send(self, project: str, raw: bytes) -> None:
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        message = body.get("message", {}) if isinstance(body, dict) else {}
        target = next((str(message[name]) for name in TARGETS if name in message), "") if isinstance(message, dict) else ""
        seen = Seen(self.path, dict(self.headers), body, target, time.time())
        self.fcm.note(seen)
        reply = self.fcm.next_reply(target) or OK
        if reply.cut == "before":
            seen.outcome = "cut"
            return self._drop()
        if not self.headers.get("Authorization", "").startswith("Bearer ") or not self.headers["Authorization"][7:]:
            seen.outcome = "UNAUTHENTICATED"
            return self._error(UNAUTHENTICATED, "Request is missing required authentication credential.")
        if reason := fault_of(body):
            seen.outcome = "INVALID_ARGUMENT"
            return self._error(INVALID, reason)
        if reply.status != 200:
            seen.outcome = reply.code or reply.state or str(reply.status)
            self.fcm.stopping.wait(reply.delay)
            return self._error(reply, "scripted")
        seen.outcome = "validated" if body.get("validate_only") else "accepted"
        if reply.cut == "after":
            return self._drop()
        self.fcm.stopping.wait(reply.delay)
        name = "fake_message_id" if body.get("validate_only") else f"{time.time_ns():x}"
        answer = json.dumps({"name": f"projects/{project}/messages/{name}"}).encode()
        return self._write(200, reply.headers, answer if reply.raw is None else reply.raw, reply.drip)

    def _drop(self) -> None:
        """Close without a word."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, status: int, value: Any) -> None:
        self._write(status, {}, json.dumps(value, ensure_ascii=False).encode())

    def _error(self, reply: Reply, message: str) -> None:
        error: dict[str, Any] = {"code": reply.status, "message": message, "status": reply.state}
        if reply.code:
            error["details"] = [{"@type": DETAIL, "errorCode": reply.code}]
        body = json.dumps({"error": error}).encode() if reply.raw is None else reply.raw
        self._write(reply.status, reply.headers, body)

    def _write(self, status: int, headers: dict[str, str], body: bytes, drip: float = 0.0) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json; charset=UTF-8", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            pieces: Iterable[bytes] = (body[i : i + 1] for i in range(len(body))) if drip else (body,)
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
                self.fcm.stopping.wait(drip)


def main() -> None:
    """Serve until interrupted, and print each accepted message as one line."""
    parser = argparse.ArgumentParser(description="A local FCM for tests and rehearsals")
    parser.add_argument("--port", type=int, default=9099)
    fcm = FakeFcm(parser.parse_args().port).start()
    print(f"fake FCM on {fcm.url}: set XINQIAO_FCM_URL to it", flush=True)
    shown = 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.2)
            sends = fcm.sends()
            for seen in sends[min(shown, len(sends)) :]:
                print(f"{seen.outcome}  {seen.target}  {seen.message.get('notification', {}).get('title', '')}", flush=True)
            shown = len(sends)
    fcm.stop()


if __name__ == "__main__":
    main()

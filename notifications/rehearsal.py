"""A local FCM over HTTP (HTTP v1 API): where pushes go when nothing shall leave this machine. Google ships no emulator.

    python -m notifications.rehearsal --port 9099        # then XINQIAO_FCM_URL=http://127.0.0.1:9099

`make run` starts it while no credentials are set: GET / shows what would stand on a family's lock screen (`rehearsalpage`). Tests
use it in their own process (tests.doubles.fake_fcm), with scripts that make it fail.

As the real one: POST /token (jwt-bearer), POST /v1/projects/P/messages:send with a bearer, exactly one target, string-only
data without reserved keys, 4,096 bytes (2,048 to a topic or condition), conditions of at most five topics, `validate_only`,
errors with an FcmError detail. It also takes, from other processes, GET /log, GET /counts, DELETE /log and
POST /script {"target", "replies": ["QUOTA", …]}.

It keeps the last 1,000 messages in memory, without the addresses of phones, unless asked to keep everything; it counts all.
"""

import argparse
import contextlib
import http
import json
import re
import signal
import socket
import socketserver
import threading
import time
import urllib.parse
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from notifications import rehearsalpage
from notifications.conditions import TOPIC, parse

SEND = re.compile(r"/v1/projects/([^/]+)/messages:send\Z")
RESERVED = re.compile(r"(from|message_type|collapse_key)\Z|google|gcm")
TARGETS = ("fid", "token", "topic", "condition")
FIELDS = {*TARGETS, "data", "notification", "android", "apns", "webpush", "fcm_options", "name"}
DETAIL = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
LIMIT, TOPIC_LIMIT = 4096, 2048  # bytes
LOG, JOURNAL, BODY = 1000, 10 * 2**20, 2**20  # messages; bytes of the journal before it is put aside; bytes of one request


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


class Fcm:
    """The server, on a loopback port of its own choice unless `port` names one. Usable as a context manager. `keep`: every
    request whole, for tests; else the last ones, without phones' addresses. `journal`: a file that gets a line a message."""

    def __init__(self, port: int = 0, *, keep: bool = False, journal: Path | None = None, zone: str = "Asia/Shanghai") -> None:
        self.keep, self.zone = keep, zone
        self.log: deque[Seen] = deque(maxlen=None if keep else LOG)
        self.counts: Counter[str] = Counter()
        """How many messages had which outcome, since the start or the last `clear`."""
        self.token_replies: deque[Reply] = deque()
        self._scripts: dict[str, deque[Reply]] = {}
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._journal = journal
        self._file: IO[str] | None = journal.open("a", encoding="utf-8") if journal else None
        self.stopping = threading.Event()
        fcm = self

        class Handler(_Handler):
            server_of = fcm

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nothing to speak of."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fcm", daemon=True)

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
            if self._file:
                self._file.close()
                self._file = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def script(self, target: str, *replies: Reply) -> None:
        """Answer the next requests to `target` ("*" = to any) with these, one each, then normally."""
        with self._lock:
            self._scripts.setdefault(target, deque()).extend(replies)

    def sends(self, target: str = "") -> list[Seen]:
        """Requests that reached messages:send and are still kept, oldest first; only those to `target` when given."""
        with self._lock:
            return [s for s in self.log if SEND.match(s.path) and (not target or s.target == target)]

    def clear(self) -> None:
        """Forget the log, the counts and all scripts."""
        with self._lock:
            self.log.clear()
            self.counts.clear()
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
        if not self.keep and isinstance(seen.body, dict) and isinstance(seen.body.get("message"), dict):
            kind = next((name for name in ("fid", "token") if name in seen.message), "")
            if kind:
                seen.body = {**seen.body, "message": {**seen.message, kind: "…"}}
                seen.target = f"{kind} …"
        with self._lock:
            self.log.append(seen)

    def settle(self, seen: Seen, outcome: str) -> None:
        """What came of a message."""
        seen.outcome = outcome
        with self._lock:
            self.counts[outcome] += 1
            if self._file:
                self._file = self._write_down(self._file, rehearsalpage.row(seen))

    def _write_down(self, file: IO[str], row: dict[str, Any]) -> IO[str] | None:
        try:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            if self._journal and file.tell() > JOURNAL:
                file.close()
                self._journal.replace(self._journal.with_name(self._journal.name + ".1"))
                return self._journal.open("a", encoding="utf-8")
        except OSError:  # a full disk stops the journal, not the rehearsal
            return None
        return file

    def track(self, one: socket.socket, opened: bool) -> None:
        """Know the open connections, to close them at the end."""
        with self._lock:
            (self._open.add if opened else self._open.discard)(one)


def fault_of(body: Any, length: int = LIMIT + 1) -> str:
    """Why FCM would answer 400, or "" when the request is well formed. `length`: bytes of the request as it came, never less than
    those of its payload."""
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
    if targets == ["condition"]:
        try:
            parse(message["condition"])
        except ValueError as error:
            return f"malformed condition: {error}"
    parts = [message.get(name, {}) for name in ("android", "apns", "webpush", "notification", "fcm_options")]
    if not all(isinstance(part, dict) for part in parts):
        return "a part is no object"
    for name, data in (("data", message.get("data", {})), ("android.data", parts[0].get("data", {}))):
        if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
            return f"{name} is not a map of strings"
        if bad := [key for key in data if RESERVED.match(key)]:
            return f"{name} uses a reserved key {bad}"
    limit = TOPIC_LIMIT if targets[0] in {"topic", "condition"} else LIMIT
    if length <= limit:
        return ""
    payload = {key: value for key, value in message.items() if key not in TARGETS}
    size = len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
    return f"the payload is {size} bytes, more than {limit}" if size > limit else ""


class _Handler(socketserver.StreamRequestHandler):
    """HTTP/1.1 as far as its clients speak it. Read by hand: a hundred thousand messages are rehearsed on the same two cores that
    send them."""

    server_of: Fcm
    timeout = 60
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.fcm = self.server_of
        self.fcm.track(self.connection, True)

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.fcm.track(self.connection, False)

    def handle(self) -> None:
        self.open = True
        with contextlib.suppress(OSError, ValueError):
            while self.open and not self.fcm.stopping.is_set():
                self._one()

    def _one(self) -> None:
        first = self.rfile.readline(65537)
        if not first:
            self.open = False
            return
        method, path, _ = first.decode("latin-1").split(None, 2)
        headers: dict[str, str] = {}
        while (line := self.rfile.readline(65537)) not in (b"\r\n", b"\n"):
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or len(headers) > 100:
                self.open = False
                return
            headers[name.strip().title()] = value.strip()
        length = int(headers.get("Content-Length", "0"))
        if not 0 <= length <= BODY or "Transfer-Encoding" in headers:
            self.open = False
            self._error(Reply(413, "", "INVALID_ARGUMENT"), "too large, or of unknown length")
            return
        raw = self.rfile.read(length)
        if len(raw) < length:  # whoever sent it died: no request has arrived
            self.open = False
            return
        if headers.get("Connection", "").lower() == "close":
            self.open = False
        self._answer(method, path, headers, raw)

    def _answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        place, _, query = path.partition("?")
        found = SEND.match(path) if method == "POST" else None
        if found:
            self._send(found[1], path, headers, raw)
        elif (method, path) == ("POST", "/token"):
            self._token(headers, raw)
        elif (method, path) == ("POST", "/script"):
            given = json.loads(raw)
            self.fcm.script(given["target"], *(NAMED[name] for name in given["replies"]))
            self._json(200, {})
        elif (method, place) == ("GET", "/"):
            page = rehearsalpage.page(self.fcm.sends(), dict(self.fcm.counts), urllib.parse.parse_qs(query), self.fcm.zone)
            self._write(200, rehearsalpage.HEADERS, page.encode())
        elif (method, path) == ("GET", "/log"):
            self._json(200, [asdict(seen) for seen in self.fcm.sends()])
        elif (method, path) == ("GET", "/counts"):
            self._json(200, dict(self.fcm.counts))
        elif (method, path) == ("DELETE", "/log"):
            self.fcm.clear()
            self._json(200, {})
        else:
            self._error(Reply(404, "", "NOT_FOUND"), "no such method")

    def _token(self, headers: dict[str, str], raw: bytes) -> None:
        """OAuth 2.0 with a signed assertion (RFC 7523); the signature is not looked at."""
        form = urllib.parse.parse_qs(raw.decode())
        seen = Seen("/token", headers, form if self.fcm.keep else {}, "", time.time())
        self.fcm.note(seen)
        if self.fcm.token_replies:
            reply = self.fcm.token_replies.popleft()
            seen.outcome = str(reply.status)
            error = "invalid_grant" if reply.status == 400 else "temporarily_unavailable"
            return self._json(reply.status, {"error": error, "error_description": "scripted"})
        if form.get("grant_type") != ["urn:ietf:params:oauth:grant-type:jwt-bearer"] or "assertion" not in form:
            return self._json(400, {"error": "invalid_grant", "error_description": "no assertion"})
        return self._json(200, {"access_token": "ya29.fake", "expires_in": 3599, "token_type": "Bearer"})

    def _send(self, project: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        message = body.get("message", {}) if isinstance(body, dict) else {}
        target = next((str(message[name]) for name in TARGETS if name in message), "") if isinstance(message, dict) else ""
        seen = Seen(path, headers, body, target, time.time())
        reply = self.fcm.next_reply(target) or OK
        self.fcm.note(seen)
        bearer = headers.get("Authorization", "")
        if reply.cut == "before":
            self.fcm.settle(seen, "cut")
            return self._drop()
        if not bearer.startswith("Bearer ") or not bearer[7:]:
            self.fcm.settle(seen, "UNAUTHENTICATED")
            return self._error(UNAUTHENTICATED, "Request is missing required authentication credential.")
        if reason := fault_of(body, len(raw)):
            self.fcm.settle(seen, "INVALID_ARGUMENT")
            return self._error(INVALID, reason)
        if reply.status != 200:
            self.fcm.settle(seen, reply.code or reply.state or str(reply.status))
            self.fcm.stopping.wait(reply.delay)
            return self._error(reply, "scripted")
        self.fcm.settle(seen, "validated" if body.get("validate_only") else "accepted")
        if reply.cut == "after":
            return self._drop()
        if reply.delay:
            self.fcm.stopping.wait(reply.delay)
        name = "fake_message_id" if body.get("validate_only") else f"{time.time_ns():x}"
        answer = json.dumps({"name": f"projects/{project}/messages/{name}"}).encode()
        return self._write(200, reply.headers, answer if reply.raw is None else reply.raw, reply.drip)

    def _drop(self) -> None:
        """Close without a word."""
        self.open = False
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
        given = {"Content-Type": "application/json; charset=UTF-8", **headers, "Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in given.items())]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        with contextlib.suppress(OSError):
            if not drip:
                self.wfile.write(head + body)  # in one piece, else every answer waits 40 ms for a delayed ACK
                return
            self.wfile.write(head)
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                self.fcm.stopping.wait(drip)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="A local FCM: nothing leaves this machine")
    parser.add_argument("--port", type=int, default=9099)
    parser.add_argument("--keep", action="store_true", help="keep every request whole in memory, phones' addresses too")
    parser.add_argument("--journal", type=Path, help="a file that gets a line for each message, without phones' addresses")
    parser.add_argument("--zone", default="Asia/Shanghai", help="time zone of the page")
    given = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Fcm(given.port, keep=given.keep, journal=given.journal, zone=given.zone) as fcm:
        print(f"pushes go to {fcm.url} when XINQIAO_FCM_URL is set to it; open it to see them", flush=True)
        over.wait()


if __name__ == "__main__":
    main()

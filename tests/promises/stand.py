"""The service's API over granian with a database that the test owns, may kill and raise again."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from api import bootstrap, serve
from content import embedded, sealed, staff, store
from content.courses import CourseSession
from content.records import SYSTEM
from content.settings import Settings

PASSWORD = "correct horse battery"


class Answer(NamedTuple):
    """One answer, or status 0 when the connection broke."""

    status: int
    seconds: float
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


def address(number: int) -> str:
    """A loopback address to send from: nobody is limited here for what others do."""
    return f"127.0.{1 + number // 50 % 200}.{1 + number % 50}"


class Stand:
    """A database that the test owns, and the service's API before it."""

    def __init__(self, var: Path, s3: dict[str, str]) -> None:
        self.mongo = embedded.mongo(var, ("xinqiao", "xinqiao_broker"))
        self.raise_database()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        keys = {name: embedded.credentials(var)[name] for name in ("data_key", "signing_key")}
        self.settings = Settings(var=var, port=port, mongodb_uri=embedded.mongo_uri(var), admin_password=PASSWORD, **keys)  # type: ignore[arg-type]
        self.settings = replace(self.settings, **s3)  # type: ignore[arg-type]
        with self.connected():
            bootstrap.prepare(self.settings, lambda line: None)
            for name in ("editor", "organiser"):
                staff.create_account(name, name, PASSWORD, SYSTEM, grants=[staff.Grant(name)], must_change=False)
            CourseSession.rows().update_many({}, {"$set": {"capacity": 100_000}})
            self.sessions = [str(row["_id"]) for row in CourseSession.rows().find({})]
        self.api = serve.services(self.settings)[0]
        embedded.start(self.api)
        embedded.wait_ready(self.api, 30)
        self.tokens = {name: self.sign_in(name).json()["access_token"] for name in ("editor", "organiser")}

    def raise_database(self) -> None:
        """Start it and wait until it answers. Call from the main thread."""
        embedded.start(self.mongo)
        embedded.wait_ready(self.mongo)

    def kill_database(self) -> None:
        """kill -9; nobody starts it again."""
        embedded.stop(self.mongo, 0)

    def connected(self) -> Any:
        """The test's own look at the store."""
        store.connect(self.settings)
        sealed.configure(self.settings)
        return _Connected()

    def call(self, method: str, path: str, body: Any = None, *, by: str = "", key: str = "", source: str = "127.0.0.1") -> Answer:
        """One request on a connection of its own, from the loopback address `source`; never raises."""
        headers = {"Connection": "close"}
        if by:
            headers["Authorization"] = f"Bearer {self.tokens[by]}"
        if key:
            headers["Idempotency-Key"] = key
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        began = time.monotonic()
        link = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=30, source_address=(source, 0))
        try:
            link.request(method, path, data, headers)
            reply = link.getresponse()
            content = reply.read()
            return Answer(reply.status, time.monotonic() - began, {k.lower(): v for k, v in reply.headers.items()}, content)
        except (OSError, http.client.HTTPException):
            return Answer(0, time.monotonic() - began, {}, b"")
        finally:
            link.close()

    def sign_in(self, name: str, number: int = 0) -> Answer:
        """Sign in over HTTP."""
        return self.call("POST", "/v1/staff/session", {"name": name, "password": PASSWORD}, source=address(number))

    def book(self, number: int, **kwargs: Any) -> Answer:
        """Book one seat; each number is another family with another phone, and sends from another address."""
        family = {"seats": 1, "family_name": "王", "phone": f"138{number:08d}"}
        return self.call(
            "POST",
            f"/v1/sessions/{self.sessions[number % len(self.sessions)]}/bookings",
            family,
            source=address(number),
            **kwargs,
        )

    def write_lesson(self, slug: str) -> Answer:
        """Start a lesson as an editor."""
        text = {"language": "zh-Hans", "title": "一课", "summary": "一句话。", "body": "先听他说完。", "try_this": "问一个问题。"}
        return self.call(
            "POST", "/v1/staff/lessons", {"slug": slug, "kind": "tip", "audiences": ["parent"], "texts": [text]}, by="editor"
        )

    def workers(self) -> set[int]:
        """Process ids of granian's workers that have begun to serve: the threads of the pool come last, as they are needed."""
        found = set()
        for one in psutil.Process(self.api.process.pid).children():
            with contextlib.suppress(psutil.Error):  # a zombie has no command line
                if one.num_threads() > 8 and "resource_tracker" not in " ".join(one.cmdline()):
                    found.add(one.pid)
        return found


class _Connected:
    def __enter__(self) -> None:
        """Connected already."""

    def __exit__(self, *_: object) -> None:
        store.disconnect()


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory, s3: dict[str, str]) -> Iterator[Stand]:
    """One for all tests that ask for it: each leaves it running."""
    made = Stand(tmp_path_factory.mktemp("outage"), s3)
    yield made
    embedded.stop(made.api)
    embedded.stop(made.mongo, 0)

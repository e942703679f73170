"""The whole API over real HTTP inside the test's process: front, Flask and reader on a loopback port.

Real HTTP keeps the tests honest about headers and bodies; the same process keeps them fast and lets them look at the store.
The reader has no thread here: `refresh()` is its poll, so no test waits for a clock.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from werkzeug.serving import WSGIRequestHandler, make_server

from api import create_app, guard
from api.bootstrap import LIBRARY
from api.front import Front
from content import staff
from content.published import Reader, Snapshot
from content.records import SYSTEM
from content.settings import Settings

PASSWORD = "correct horse battery"
Clock = Callable[[float], None]  # the fixture `clock`


def library(folder: Path, *names: str) -> Path:
    """A small starter library with these files of the real one."""
    for name in ("lessons", "checks", "paths"):
        (folder / name).mkdir(parents=True)
    (folder / "courses.yaml").write_text("series: []\n")
    (folder / "directory.json").write_text("[]")
    for name in names:
        shutil.copy(LIBRARY / name, folder / name)
    return folder


# `xinqiao` with the library of its first argument: a start whose content does not matter need not load sixty lessons
WITH_LIBRARY = """
import pathlib, sys
from api import bootstrap, cli
bootstrap.LIBRARY = pathlib.Path(sys.argv.pop(1))
cli.main()
"""


class Quiet(WSGIRequestHandler):
    """No line for each request; the front's own log is what is tested."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


class Site:
    """One running API and the people who use it."""

    def __init__(self, base: str, front: Front, reader: Reader, settings: Settings) -> None:
        self.base, self.front, self.reader, self.settings = base, front, reader, settings
        self.http = requests.Session()
        self.tokens: dict[str, str] = {}
        self.ids: dict[str, str] = {}

    def begin(self) -> None:
        """A new story in the same process: nothing published, nothing prepared, nobody signed in, no limit used up."""
        self.reader._swap(Snapshot())
        guard.reset_limits()
        self.front.packed.clear()
        self.front.packed_size = 0
        self.http = requests.Session()
        self.tokens, self.ids = {}, {}
        self.refresh()

    def refresh(self) -> None:
        """What the reader's thread does every 0.4 s."""
        self.reader.refresh()

    def person(self, name: str, *roles: str, organisation: str = "", division: str = "", by: str = SYSTEM) -> str:
        """Make an account with these roles and sign it in over HTTP; returns its name."""
        grants = [staff.Grant(role, organisation, division) for role in roles]
        account = staff.create_account(name, name, PASSWORD, by, grants=grants, must_change=False)
        reply = self.call("POST", "/v1/staff/session", json={"name": name, "password": PASSWORD})
        assert reply.status_code == 200, reply.text
        self.tokens[name], self.ids[name] = reply.json()["access_token"], account.id
        return name

    def call(self, method: str, path: str, *, by: str = "", match: str = "", **kwargs: Any) -> requests.Response:
        """One request, signed in as `by`, with If-Match `match`."""
        headers = dict(kwargs.pop("headers", {}))
        if by:
            headers["Authorization"] = f"Bearer {self.tokens[by]}"
        if match:
            headers["If-Match"] = match
        kwargs.setdefault("allow_redirects", False)
        return self.http.request(method, self.base + path, headers=headers, timeout=20, **kwargs)

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        """A GET."""
        return self.call("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> requests.Response:
        """A POST of JSON."""
        return self.call("POST", path, json={} if json is None else json, **kwargs)


@contextmanager
def serving(settings: Settings) -> Iterator[Site]:
    """A site on a free port; the store must be connected."""
    reader = Reader()
    front = Front(create_app(settings, reader), reader)
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site = Site(f"http://127.0.0.1:{server.server_port}", front, reader, settings)
    try:
        yield site
    finally:
        site.http.close()
        server.shutdown()
        server.server_close()
        thread.join(5)

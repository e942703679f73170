"""`make bench`: contributions counted once as a ratio to a bare Flask route doing one pymongo insert (promise 2).

Both are served by granian with the same options, on the same embedded database, in turn; wrk sends unique nonces. Ours answers
with rate limits, schemas, counts and 64 schools' addresses. After each run the nonces whose answers the end of the run cut off
are sent again: then the tally must equal the number of nonces, each acknowledged. At the end the same under kill -9 of the
API's processes, with a client that sends again whatever was not acknowledged.

    python -m tests.bench.contributions [--rounds 5] [--seconds 4] [--connections 64] [--kills 5]
"""

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
from flask import Flask, Response, request

from content import counting, embedded, published, sealed, store
from content.definition import Band, Definition, Item, Option, Scale, to_json
from content.published import ANY
from content.settings import Settings
from tests.bench.reads import granian

TARGET = 1.0
SCRIPT = """
local threads = {}
function setup(thread) thread:set("id", #threads); table.insert(threads, thread) end
function init(args) sent = 0; made = 0; again = 0; bad = 0 end
function request()
  sent = sent + 1
  local nonce = string.format("%s-%08x%08x%016x", DAY, RUN, id, sent)
  local headers = {["Content-Type"] = "application/json", ["X-Forwarded-For"] = "10.0.0." .. (sent % 64)}
  return wrk.format("POST", nil, headers, string.format(BODY, nonce))
end
function response(status)
  if status == 201 then made = made + 1 elseif status == 200 then again = again + 1 else bad = bad + 1 end
end
function done(summary, latency)
  local row = {}
  for _, thread in ipairs(threads) do
    local get = function(name) return thread:get(name) end
    table.insert(row, string.format("[%d,%d,%d,%d]", get("sent"), get("made"), get("again"), get("bad")))
  end
  print(string.format('RESULT {"seconds": %f, "late": %f, "threads": [%s]}', summary.duration / 1e6, latency:percentile(99) / 1e3,
    table.concat(row, ",")))
end
"""


def check() -> Definition:
    """A check with a total and two subscales."""
    text = {"zh-Hans": "问"}
    options = tuple(Option(str(n), text, n) for n in range(4))
    items = tuple(Item(f"q{n}", "choice", text, options=options) for n in range(6))
    bands = tuple(Band(code, low, low + 5, text, {}) for code, low in (("low", 0), ("middle", 6), ("high", 12)))
    scales = [Scale("total", tuple(item.link_id for item in items), bands=bands)]
    scales += [Scale(f"part{n}", (f"q{n}", f"q{n + 1}", f"q{n + 2}"), bands=bands) for n in (0, 3)]
    return Definition("bench", text, items, tuple(scales))


def publish() -> Definition:
    """Make it public, as the desk would."""
    definition = check()
    content = {
        "slug": definition.slug, "definition": to_json(definition), "definition_version": definition.version, "lessons": [],
        "expires_days": 14, "number": 1,
        "published_at": "",
        "register": {
            "name": {}, "source": "", "rights": "own", "audiences": ["student"], "stages": ["junior", "senior"], "ages": [],
            "languages": ["zh-Hans"], "validated": False, "purpose": "self_check", "approver": "", "parental_notice": {},
            "critical_message": {}, "evidence": "",
        },
    }  # fmt: skip
    store.transaction(lambda session: published.release(session, [published.Item("check", definition.slug, ANY, content)]))
    return definition


def bare() -> Flask:
    """The peer: a Flask route that does one insert, connected as the service is."""
    app = Flask("bare", static_folder=None)
    store.connect(Settings.from_env(), store.REQUEST_PATIENCE)
    embedded.die_with_parent()
    rows = store.database()["bare"]

    @app.get("/readyz")
    def ready() -> Response:
        return Response(b"", 200)

    @app.post("/insert")
    def insert() -> Response:
        rows.insert_one({"_id": request.get_json()["nonce"]})
        return Response(b'{"counted":true}', 201, content_type="application/json")

    return app


def body(definition: Definition) -> dict[str, Any]:
    """A contribution without its nonce."""
    bands = [{"scale": scale.code, "band": "low"} for scale in definition.scales]
    return {"version": definition.version, "division": "150603", "stage": "junior", "bands": bands}


def nonce(day: str, run: int, thread: int, number: int) -> str:
    """As the script makes it."""
    return f"{day}-{run:08x}{thread:08x}{number:016x}"


def load(url: str, folder: Path, run: int, day: str, what: dict[str, Any], seconds: int, connections: int) -> dict[str, Any]:
    """One run of wrk."""
    text = json.dumps({"nonce": "%s", **what}).replace('"', '\\"')
    script = folder / "contribute.lua"
    script.write_text(f'DAY, RUN, BODY = "{day}", {run}, "{text}"\n{SCRIPT}')
    argv = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(next(line for line in out.splitlines() if line.startswith("RESULT "))[7:])
    found["rate"] = sum(row[1] for row in found["threads"]) / found["seconds"]
    return found


class Client:
    """Sends until it is acknowledged."""

    def __init__(self, port: int, what: dict[str, Any]) -> None:
        self.port, self.what = port, what
        self.link: http.client.HTTPConnection | None = None

    def send(self, path: str, name: str) -> tuple[int, int]:
        """(status of the acknowledgement, how often it was sent)."""
        headers = {"Content-Type": "application/json", "X-Forwarded-For": f"10.1.0.{hash(name) % 250}"}
        for times in count(1):
            if self.link is None:
                self.link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                self.link.request("POST", path, json.dumps({"nonce": name, **self.what}), headers)
                reply = self.link.getresponse()
                text = reply.read()
                if reply.status in (200, 201):
                    return reply.status, times
                if reply.status not in (429, 503):
                    raise RuntimeError(text)
            except (OSError, http.client.HTTPException):
                self.link.close()
                self.link = None
            time.sleep(0.02)
        raise AssertionError


def total() -> int:
    """Persons in all tallies."""
    return sum(int(row["n"]) for tally in counting.tallies("9999-W01") for row in tally.rows.values())


def killed(
    port: int, api: embedded.Child, what: dict[str, Any], day: str, path: str, kills: int
) -> tuple[int, Counter[int], int]:
    """Load from 16 clients while workers die: (nonces, acknowledgements by status, sent again)."""
    stop, lock = threading.Event(), threading.Lock()
    seen: Counter[int] = Counter()
    sent = again = 0

    def work(number: int) -> None:
        nonlocal sent, again
        client = Client(port, what)
        for step in count():
            if stop.is_set():
                return
            status, times = client.send(path, nonce(day, 0xFFFFFF, number, step))
            with lock:
                sent, again = sent + 1, again + times - 1
                seen[status] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    assert api.process
    for _ in range(kills):
        workers: list[psutil.Process] = []
        while len(workers) < 2:  # granian takes some seconds to start another
            time.sleep(1.5)
            alive = [one for one in psutil.Process(api.process.pid).children() if one.status() != psutil.STATUS_ZOMBIE]
            workers = [one for one in alive if "resource_tracker" not in " ".join(one.cmdline())]
        workers[0].kill()
    time.sleep(1.5)
    stop.set()
    for thread in threads:
        thread.join()
    return sent, seen, again


def run(rounds: int, seconds: int, connections: int, kills: int) -> bool:
    """The whole bench; True when the ratio reaches TARGET and every tally is right."""
    with tempfile.TemporaryDirectory(prefix="xinqiao-bench-") as folder:
        var = Path(folder)
        mongo = embedded.mongo(var, ("xinqiao",))
        embedded.start(mongo)
        embedded.wait_ready(mongo)
        keys = {name: embedded.credentials(var)[name] for name in ("data_key", "signing_key")}
        settings = replace(Settings(), var=var, mongodb_uri=embedded.mongo_uri(var), proxies=1, **keys)  # type: ignore[arg-type]
        settings = replace(settings, s3_endpoint_url="http://127.0.0.1:9", s3_access_key="unused", s3_secret_key="unused")
        store.connect(settings)
        sealed.configure(settings)
        import api.bootstrap  # noqa: F401  (imports every collection)

        store.ensure_indexes()
        definition = publish()
        what, day = body(definition), f"{store.now().astimezone(ZoneInfo(settings.zone)):%Y%m%d}"
        ports = embedded.ports(var, ("ours", "bare"))
        path = f"/v1/checks/{definition.slug}/contribute"
        urls = {"ours": f"http://127.0.0.1:{ports['ours']}{path}", "bare": f"http://127.0.0.1:{ports['bare']}/insert"}
        good, nonces, pairs = True, 0, []
        children: dict[str, embedded.Child] = {}
        try:
            for name, target in (("ours", "api:create_wsgi"), ("bare", "tests.bench.contributions:bare")):
                respawn = "--respawn-failed-workers"
                ready = f"http://127.0.0.1:{ports[name]}/readyz"
                children[name] = granian(target, ports[name], settings.environment(), var / f"{name}.log", ready, respawn)
            client = Client(ports["ours"], what)
            print(
                f"{'ours/s':>8} {'bare/s':>8} {'ratio':>6} {'p99 ms':>7} {'bare p99':>8} {'refused':>7} "
                f"{'nonces':>8} {'tally':>8}"
            )
            for n in range(rounds + 1):  # the first warms both
                mine, theirs = (load(urls[k], var, n, day, what, seconds if n else 1, connections) for k in ("ours", "bare"))
                for thread, row in enumerate(mine["threads"]):
                    nonces += row[0]
                    # wrk makes its first one and never sends it; those on their way at the end are the last; a refused one is any
                    last = max(2, row[0] - 2 * connections) if not row[3] else 2
                    for number in (1, *range(last, row[0] + 1)):
                        client.send(path, nonce(day, n, thread, number))
                bad, counted = sum(row[3] for row in mine["threads"]), total()
                good &= counted == nonces and not bad
                if n:
                    pairs.append((mine, theirs))
                    print(
                        f"{mine['rate']:>8.0f} {theirs['rate']:>8.0f} {mine['rate'] / theirs['rate']:>6.2f} {mine['late']:>7.1f} "
                        f"{theirs['late']:>8.1f} {bad:>7} {nonces:>8} {counted:>8}",
                        flush=True,
                    )
            if kills:
                before = total()
                sent, seen, again = killed(ports["ours"], children["ours"], what, day, path, kills)
                counted = total() - before
                good &= counted == sent
                print(f"{kills} x kill -9: {sent} nonces acknowledged ({dict(seen)}), {again} sent again, tally {counted}")
        finally:
            embedded.stop_all(list(children.values()))
            store.disconnect()
            embedded.stop(mongo, 0)
    ratio = statistics.median(mine["rate"] / theirs["rate"] for mine, theirs in pairs)
    good &= ratio >= TARGET
    print(f"median {ratio:.2f}; target {TARGET} x a bare insert, every tally exact: {'reached' if good else 'NOT reached'}")
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: `make bench` installs it from Debian's packages (needs root), or install it yourself.")
    sys.exit(0 if run(options.rounds, options.seconds, options.connections, options.kills) else 1)

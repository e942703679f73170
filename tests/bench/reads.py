"""`make bench`: catalogue reads as a ratio to a bare Flask constant, in pairs in one run (promise 1).

Both are served by granian on this machine with the same options but for the number of threads, with wrk beside them. Ours
answers with headers, metrics and log. For each corpus size and each of list, detail and 304: ours and the constant in turn,
several rounds, the median of the pairwise ratios. Also says whether 10,000 lessons cost more than 100.

    python -m tests.bench.reads [--sizes 100 10000] [--rounds 5] [--seconds 4] [--connections 64]
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from api.auth import THREADS
from content import embedded, published, store
from content.published import Item
from content.settings import Settings

TARGET = 1.5
PEER = 6  # threads of a bare peer: what was measured to be its best


def corpus(size: int) -> None:
    """Publish `size` made-up lessons of a real lesson's length, in batches of one transaction each."""
    body = "孩子回到家，先听他说完。" * 90
    at = store.now().isoformat()
    for start in range(0, size, 500):
        items = []
        for number in range(start, min(size, start + 500)):
            slug = f"bench-{number:05d}"
            content = {
                "slug": slug, "language": "zh-Hans", "title": f"第{number}课", "summary": "一句话说清楚这一课。", "body": body,
                "html": f"<p>{body}</p>", "plain": body, "try_this": "今晚问一个问题。", "minutes": 3, "audiences": ["parent"],
                "stages": ["junior"], "topics": ["emotion"], "kind": "tip", "seasons": [], "divisions": [], "media": [],
                "sources": [{"title": "bench"}], "help": False, "reviewed_by": None, "review_due": None, "number": 1,
                "version": "0" * 64, "published_at": at, "expires_at": None,
            }  # fmt: skip
            items.append(Item("lesson", slug, "zh-Hans", content))

        def write(session: object, rows: list[Item] = items) -> int:
            return published.release(session, rows)  # type: ignore[arg-type]

        store.transaction(write)


def granian(target: str, port: int, env: dict[str, str], log: Path, url: str, *more: str) -> embedded.Child:
    """One granian with two workers, ready to answer."""
    argv = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "wsgi",
        "--factory",
        target,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    argv += ["--workers", "2", "--blocking-threads", str(THREADS if target == "api:create_wsgi" else PEER), *more]
    argv += ["--no-access-log", "--log-level", "warning"]
    child = embedded.Child(target, argv, log, env={**os.environ, **env}, ready=lambda: answers(url))
    embedded.start(child)
    embedded.wait_ready(child, 60)
    return child


def answers(url: str) -> bool:
    """Whether it is up."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wrk(url: str, seconds: int, connections: int, headers: dict[str, str]) -> tuple[float, float, int]:
    """(requests/s, p99 in ms, errors) of one run."""
    argv = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    for name, value in headers.items():
        argv += ["-H", f"{name}: {value}"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    late = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    bad += sum(sum(map(int, found)) for found in re.findall(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text))
    return rate, late, bad


def fetch(url: str) -> tuple[bytes, str]:
    """Body and ETag of a plain GET."""
    with urllib.request.urlopen(url, timeout=5) as reply:
        return reply.read(), reply.headers["ETag"]


def run(sizes: list[int], rounds: int, seconds: int, connections: int) -> bool:
    """The whole bench; True when every ratio reaches TARGET."""
    good, absolute = True, {}
    print(
        f"{'lessons':>8} {'read':<7} {'bytes':>6} {'ours/s':>8} {'bare/s':>8} {'ratio':>6} {'p99 ms':>7} {'bare p99':>8} "
        f"{'errors':>6}"
    )
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="xinqiao-bench-") as folder:
            var = Path(folder)
            mongo = embedded.mongo(var, ("xinqiao",))
            embedded.start(mongo)
            embedded.wait_ready(mongo)
            keys = {name: embedded.credentials(var)[name] for name in ("data_key", "signing_key")}
            settings = replace(Settings(), var=var, mongodb_uri=embedded.mongo_uri(var), **keys)  # type: ignore[arg-type]
            settings = replace(settings, s3_endpoint_url="http://127.0.0.1:9", s3_access_key="unused", s3_secret_key="unused")
            store.connect(settings)
            import api.bootstrap  # noqa: F401  (imports every collection)

            store.ensure_indexes()
            corpus(size)
            store.disconnect()
            ports = embedded.ports(var, ("ours", "bare"))
            base = f"http://127.0.0.1:{ports['ours']}"
            ours = granian("api:create_wsgi", ports["ours"], settings.environment(), var / "ours.log", base + "/readyz")
            try:
                for name, path in (
                    ("list", "/v1/lessons?limit=20"),
                    ("detail", "/v1/lessons/bench-00042"),
                    ("304", "/v1/lessons/bench-00042"),
                ):
                    body, etag = fetch(base + path)
                    headers = {"If-None-Match": etag} if name == "304" else {}
                    constant = f"http://127.0.0.1:{ports['bare']}/" + ("unchanged" if name == "304" else "constant")
                    env = {"BARE_BYTES": str(len(body))}
                    up = f"http://127.0.0.1:{ports['bare']}/constant"
                    bare = granian("tests.bench.bare:create", ports["bare"], env, var / "bare.log", up)
                    try:
                        wrk(base + path, 1, connections, headers), wrk(constant, 1, connections, {})  # warm both
                        pairs = [
                            (wrk(base + path, seconds, connections, headers), wrk(constant, seconds, connections, {}))
                            for _ in range(rounds)
                        ]
                    finally:
                        embedded.stop(bare)
                    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
                    mine, theirs = (statistics.median(p[i][0] for p in pairs) for i in (0, 1))
                    late, bare_late = (statistics.median(p[i][1] for p in pairs) for i in (0, 1))
                    bad = sum(a[2] for a, _ in pairs)
                    absolute[name, size] = ratio
                    good &= ratio >= TARGET and bad == 0
                    print(
                        f"{size:>8} {name:<7} {len(body):>6} {mine:>8.0f} {theirs:>8.0f} {ratio:>6.2f} "
                        f"{late:>7.2f} {bare_late:>8.2f} {bad:>6}",
                        flush=True,
                    )
            finally:
                embedded.stop(ours)
                embedded.stop(mongo, 0)
    for name in ("list", "detail", "304"):
        if len(sizes) > 1:
            change = absolute[name, sizes[-1]] / absolute[name, sizes[0]] - 1
            print(f"{name}: ratio at {sizes[-1]} lessons is {change:+.1%} of that at {sizes[0]}")
    print(f"target {TARGET} x a bare Flask constant: {'reached' if good else 'NOT reached'}")
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: `make bench` installs it from Debian's packages (needs root), or install it yourself.")
    began = time.monotonic()
    reached = run(options.sizes, options.rounds, options.seconds, options.connections)
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(0 if reached else 1)

"""What a phone's sync costs, at three sizes of the corpus: bytes on the line and seconds, over HTTP through the front.

The corpus is the starter library's Chinese lessons again and again, each under a name and a title of its own. Rows: the pack of
a first start; the same as a sync without a pack (which is what a refresh of everything would cost each time); what a sync
costs when 0, 1 and 10 lessons have changed. Bytes are those on the line: plain, gzip, brotli. Seconds are of the first to ask,
when nothing is prepared, with this machine on both ends.

    python -m tests.bench.sync [--sizes 100 1000 10000]
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import requests

from api.bootstrap import LIBRARY
from content import embedded, importing, markdown, objects, packs, published, store
from content.published import Item
from content.settings import Settings
from tests.bench.reads import granian
from tests.phone import Phone

WANTED = ("parent", "", "zh-Hans")
ENCODINGS = ("identity", "gzip", "br")


def corpus(size: int) -> list[Item]:
    """The library's lessons, repeated."""
    read = [one for one in importing.read(LIBRARY / "lessons") if isinstance(one, importing.Read) and one.language == "zh-Hans"]
    at, made = store.now().isoformat(), []
    for number in range(size):
        one = read[number % len(read)]
        title = f"{one.text['title']} {number}"
        content = {
            **{name: one.meta.get(name) or [] for name in ("topics", "seasons", "divisions", "sources")},
            **{name: one.text.get(name) for name in ("summary", "try_this", "check_in", "body")},
            "slug": f"n{number:05}-{one.slug}", "language": "zh-Hans", "voice": "", "title": title, "audiences": ["parent"],
            "stages": one.meta.get("stages") or ["junior"], "kind": one.meta.get("kind") or "tip", "media": [], "minutes": 3,
            "help": False, "reviewed_by": None, "review_due": None, "number": 1, "version": f"{number:064x}",
            "published_at": at, "expires_at": None, **markdown.render(one.text["body"]),
        }  # fmt: skip
        made.append(Item("lesson", f"n{number:05}-{one.slug}", "zh-Hans", content))
    return made


def release(items: list[Item]) -> None:
    """Publish, a hundred a release."""
    for start in range(0, len(items), 100):
        part = items[start : start + 100]
        store.transaction(lambda session, part=part: published.release(session, part))  # type: ignore[misc]


def asked(base: str, cursor: str, encoding: str, limit: int = 200) -> tuple[int, float, str]:
    """(bytes on the line, seconds, last cursor) of a sync to the end."""
    size, cost, more = 0, 0.0, True
    with requests.Session() as http:
        while more:
            query = {"since": cursor, "audience": WANTED[0], "language": WANTED[2], "limit": str(limit)}
            began = time.perf_counter()
            reply = http.get(f"{base}/v1/sync", params=query, headers={"Accept-Encoding": encoding}, timeout=60)
            page = reply.json()
            cost += time.perf_counter() - began
            size += int(reply.headers["Content-Length"])
            cursor, more = page["next_cursor"], page["more"]
    return size, cost, cursor


def wait(base: str, since: str, changed: int) -> None:
    """Until every worker has it: ten new connections in a row, which meet both."""
    seen = 0
    while seen < 10:
        query = {"since": since, "audience": WANTED[0], "language": WANTED[2], "limit": "0"}
        told = requests.get(f"{base}/v1/sync", params=query, headers={"Connection": "close"}, timeout=60).json()
        seen = seen + 1 if told["remaining"]["items"] == changed else 0
        time.sleep(0.1)


def line(size: int, what: str, told: list[tuple[int, float]], note: str = "") -> None:
    """One row of the table."""
    sizes = "".join(f"{size / 1000:>12,.1f}" for size, _ in told) + " " * 12 * (3 - len(told))
    print(f"{size:>7}  {what:<26}{sizes}{statistics.median(cost for _, cost in told):>9.3f}  {note}", flush=True)


def measure(size: int) -> dict[int, int]:
    """The rows of one size; changes -> plain bytes of their delta."""
    with tempfile.TemporaryDirectory(prefix="xinqiao-bench-") as folder:
        var = Path(folder)
        servers = [embedded.mongo(var, ("xinqiao",)), embedded.s3(var, "xinqiao")]
        for child in servers:
            embedded.start(child)
            embedded.wait_ready(child)
        keys = embedded.credentials(var)
        settings = Settings(
            var=var, mongodb_uri=embedded.mongo_uri(var), data_key=keys["data_key"], signing_key=keys["signing_key"],
            s3_endpoint_url=embedded.s3_url(var), s3_access_key=keys["s3_access_key"], s3_secret_key=keys["s3_secret_key"],
        )  # fmt: skip
        store.connect(settings, 60)
        store.ensure_indexes()
        objects.ensure_bucket(settings)
        items = corpus(size)
        release(items)
        began = time.perf_counter()
        built = packs.build(settings, store.now())["built"]
        note = f"{built} packs built in {time.perf_counter() - began:.1f} s"
        port = embedded.ports(var, ("ours",))["ours"]
        base = f"http://127.0.0.1:{port}"
        ours = granian("api:create_wsgi", port, settings.environment(), var / "ours.log", base + "/readyz")
        deltas = {}
        try:
            phone = Phone(base, requests.get(base + "/v1/keys", timeout=10).json()["keys"][0])
            began = time.perf_counter()
            assert phone.take_pack(WANTED)
            line(size, "pack (gzip)", [(phone.taken[WANTED]["bytes"], time.perf_counter() - began)], note)
            cursor, told = "", []
            for encoding in ENCODINGS:
                spent = asked(base, "", encoding)
                told.append(spent[:2])
                cursor = spent[2]
            line(size, "all, without a pack", told, f"{-(-size // 200)} requests; also what refreshing everything costs")
            for changed in (0, 1, 10):
                since = cursor
                if changed:
                    minutes = {"minutes": 4 + changed}
                    release([replace(item, content={**(item.content or {}), **minutes}) for item in items[:changed]])
                    wait(base, since, changed)
                told = []
                for encoding in ENCODINGS:
                    spent = asked(base, since, encoding)
                    told.append(spent[:2])
                    cursor = spent[2]
                deltas[changed] = told[0][0]
                line(size, f"{changed} lessons changed", told)
        finally:
            embedded.stop(ours)
            store.disconnect()
            for child in servers:
                embedded.stop(child, 0)
    return deltas


def run(sizes: list[int]) -> bool:
    """The table; True when a delta costs at the largest size what it costs at the smallest, within 1 %."""
    print(f"{'lessons':>7}  {'what':<26}{'kB plain':>12}{'kB gzip':>12}{'kB br':>12}{'s':>9}")
    found = [measure(size) for size in sizes]
    change = found[-1][10] / found[0][10] - 1
    print(f"bytes of 10 changes at {sizes[-1]} lessons against {sizes[0]}: {change:+.2%}")
    return abs(change) < 0.01


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    sys.exit(0 if run(parser.parse_args().sizes) else 1)

# ruff: noqa: E501  (a row of the corpus is one line)
"""Promise 12: bad input never breaks us. A hostile corpus on every route, and cases that schemathesis makes from our OpenAPI.

The small form sends each route every fifteenth of the corpus, the next route the next, so that all of both is met; the whole
walk, each on each, is `slow`.

Every answer is below 500 and every error is one problem detail with its code and both languages. Promise 13: no operator
reaches MongoDB; a command listener looks at every filter that such requests caused.
"""

import gzip
import http.client
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo import monitoring

from content.failures import TEXTS
from tests.promises.report import Measured
from tests.site import Site

DEEP = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
BODIES: dict[str, tuple[str, bytes]] = {
    "deep object": ("application/json", DEEP),
    "deep list": ("application/json", b"[" * 20_000 + b"]" * 20_000),
    "unclosed deep": ("application/json", b"[" * 100_000),
    "60,000 digits": ("application/json", b'{"limit": ' + b"9" * 60_000 + b"}"),
    "2^63": ("application/json", b'{"limit": 9223372036854775808, "revision": 9223372036854775808}'),
    "-2^63-1": ("application/json", b'{"seats": -9223372036854775809}'),
    "1e400": ("application/json", b'{"seats": 1e400}'),
    "NaN": ("application/json", b'{"seats": NaN}'),
    "Infinity": ("application/json", b'{"seats": -Infinity}'),
    "NUL": ("application/json", b'{"slug": "a\\u0000b", "name": "a\\u0000"}'),
    "lone surrogate": ("application/json", b'{"slug": "\\ud800", "name": "\\udfff"}'),
    "lone surrogate key": ("application/json", b'{"\\ud800": 1}'),
    "duplicate keys": ("application/json", b'{"slug": "a", "slug": "b"}'),
    "bad UTF-8": ("application/json", b'{"slug": "\xff\xfe"}'),
    "UTF-16": ("application/json", '{"slug": "a"}'.encode("utf-16")),
    "byte order mark": ("application/json", b'\xef\xbb\xbf{"slug": "a"}'),
    "empty": ("application/json", b""),
    "null": ("application/json", b"null"),
    "a number": ("application/json", b"7"),
    "a string": ("application/json", b'"text"'),
    "a list": ("application/json", b"[1, 2, 3]"),
    "a list of lists": ("application/json", b"[[[]]]"),
    "not JSON": ("application/json", b"{slug: 'a'}"),
    "cut": ("application/json", b'{"slug": "a'),
    "trailing": ("application/json", b'{"slug": "a"} {"slug": "b"}'),
    "operator key": ("application/json", b'{"name": {"$ne": null}, "password": {"$gt": ""}}'),
    "$where": ("application/json", b'{"$where": "sleep(1000)", "slug": {"$regex": ".*"}}'),
    "__raw__": ("application/json", b'{"__raw__": {"$where": "1"}, "slug__ne": "a"}'),
    "dotted key": ("application/json", b'{"stands.zh-Hans.state": "published", "texts.en": null}'),
    "prototype": ("application/json", b'{"__proto__": {"x": 1}, "constructor": 1, "__class__": 1}'),
    "wrong types": ("application/json", b'{"slug": [], "texts": {}, "audiences": "parent", "kind": 3, "name": true, "answers": 1}'),
    "nulls": ("application/json", b'{"slug": null, "texts": null, "kind": null, "name": null, "password": null, "answers": null}'),
    "nested nulls": ("application/json", b'{"texts": [null], "answers": [null], "audiences": [null], "grants": [null]}'),
    "long slug": ("application/json", json.dumps({"slug": "a" * 500_000}).encode()),
    "many items": ("application/json", json.dumps({"answers": [{"item": str(n)} for n in range(20_000)]}).encode()),
    "too large": ("application/json", b'{"a": "' + b"x" * 1_200_000 + b'"}'),
    "bad date": ("application/json", b'{"review_due": "2026-02-30", "send_at": "24:61", "at": "0000-00-00T00:00:00Z"}'),
    "far date": ("application/json", b'{"send_at": "9999-12-31T23:59:59+14:00", "at": "0001-01-01T00:00:00-14:00", "starts_at": "9999-12-31T23:59:59Z"}'),
    "control characters": ("application/json", b'{"slug": "a\\u001b[31m", "family_name": "\\u202e\\u2066", "title": "\\r\\nSet-Cookie: a"}'),
    "gzip bomb": ("application/json", gzip.compress(b'{"a": "' + b"0" * 5_000_000 + b'"}')),
    "form": ("application/x-www-form-urlencoded", b"name=admin&password=x"),
    "text": ("text/plain", b"hello"),
    "xml": ("application/xml", b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
    "no type": ("", b'{"slug": "a"}'),
    "bad type": ("application/json; charset=utf-99", b'{"slug": "a"}'),
    "garbage type": ("\x01\x02", b"{}"),
    "multipart": ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" + b"y" * 900_000),
    "multipart without boundary": ("multipart/form-data", b"--x--"),
    "many parts": ("multipart/form-data; boundary=x", b"".join(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % n for n in range(5000))),
}  # fmt: skip
QUERIES = (
    "cursor=" + "A" * 8000, "limit=" + "9" * 60_000, "limit=-1", "limit=1e400", "limit=9223372036854775808", "limit=NaN",
    "cursor=W10", "cursor=WzFd", "cursor=WyJcdTAwMDAiXQ",  # [], [1], ["\u0000"]
    "cursor=%00", "%ff=%fe", "division[$ne]=1", "division=%24where", "slug__ne=a", "language=" + "x" * 3000, "a=" + "&a=" * 3000,
    "on=0000-00-00", "on=9999-99-99", "since=" + "9" * 400, "from=x&to=y", "limit=１２", "cursor=%ED%A0%80", "stage=../../etc/passwd",
)  # fmt: skip
NAMES = (
    "../../etc/passwd", "%2e%2e%2f", "%00", "a" * 5000, "%ED%A0%80", "$ne", "__raw__", "%0d%0aSet-Cookie:%20a=b", "0" * 24, "é",
    "{}", "%F0%9F%98%80", "'; drop table", "..;/", "%25%32%65",
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {"If-Match": "x" * 5000}, {"If-Match": '"99999999999999999999"'}, {"If-Match": "*"}, {"If-None-Match": '"' + "a" * 5000},
    {"Accept-Language": "a-" * 3000}, {"Accept-Language": "zh;q=nan, en;q=1e999, \u00ff"}, {"Accept-Encoding": "br;q=x, " * 500},
    {"Authorization": "Bearer " + "x" * 5000}, {"Authorization": "Basic \u00ff"}, {"Idempotency-Key": "k" * 5000},
    {"Range": "bytes=9-1,-"}, {"Content-Length": "-1"}, {"X-Forwarded-For": "'" * 2000}, {"Accept": "x/y;q=" + "9" * 500},
    {"Expect": "100-continue"}, {"Transfer-Encoding": "chunked"}, {"Content-Encoding": "gzip"},
)  # fmt: skip


T = TypeVar("T")
EVERY = pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])


def share(corpus: Sequence[T], route: int, every: int) -> Sequence[T]:
    """What of the corpus the route with this number is sent."""
    return corpus[-route % every :: every]


def walked(every: int) -> str:
    """How much of the walk that was, for whoever reads the figure."""
    return "each on each route" if every == 1 else f"1/{every} of the corpus on each route"


class Listener(monitoring.CommandListener):
    """Keeps every filter and update the driver sends."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Collect the operator keys of what came from a request: filters of find, update, delete."""
        command = event.command
        for part in (
            command.get("filter"),
            *(u.get("q") for u in command.get("updates", [])),
            *(d.get("q") for d in command.get("deletes", [])),
        ):
            self.collect(part)

    def collect(self, value: Any) -> None:
        """All keys that begin with $."""
        if isinstance(value, dict):
            for key, below in value.items():
                if key.startswith("$"):
                    self.keys.add(key)
                self.collect(below)
        elif isinstance(value, list):
            for below in value:
                self.collect(below)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing."""


def routes(site: Site) -> Iterator[tuple[str, str]]:
    """Every route and method of the URL map, with made-up names in its places."""
    app: Any = site.front.app
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"OPTIONS", "HEAD"}):
            yield method, re.sub(r"<[^>]+>", "none", rule.rule)


def check(reply: Any, told: str) -> None:
    """Below 500, and an error in the one shape."""
    if reply.status_code == 503 and "/readyz" in told:
        return  # nothing is published here, so it is not ready, and says so in its own form
    assert reply.status_code < 500, (told, reply.status_code, reply.text[:300])
    if re.match("/[sck]/", reply.request.path_url) and reply.headers["Content-Type"].startswith("text/html"):
        return  # a page for people, also where there is none
    if reply.status_code >= 400:
        assert reply.headers["Content-Type"] == "application/problem+json", (told, reply.text[:300])
        problem = reply.json()
        assert problem["code"] in TEXTS, told
        assert problem["status"] == reply.status_code, told
        assert problem["messages"]["zh-Hans"] and problem["messages"]["en"], told
        if reply.status_code == 405:
            assert reply.headers["Allow"], told
        if reply.status_code in (429, 503):
            assert int(reply.headers["Retry-After"]) > 0, told


@pytest.fixture
def everyone(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site with two people who together may everything, so that bodies reach the views."""
    from api import guard

    monkeypatch.setattr(guard, "LIMITS", {})
    monkeypatch.setattr(guard, "STAFF_LIMIT", 10**6)
    site.person("everyone", "editor", "reviewer", "organiser", "counsellor", "commission", "auditor")
    site.person("admin", "admin")  # duties are separated: nobody may everything
    return site


def who(path: str) -> str:
    """The one of the two who may use this route."""
    return "admin" if re.search("/(accounts|organisations|audit)", path) else "everyone"


@EVERY
def test_every_hostile_body_on_every_route(everyone: Site, every: int, measured: Measured) -> None:
    def ends_the_session(method: str, path: str) -> bool:
        return method == "DELETE" and path.endswith(("/session", "/sessions"))

    writes = [(m, p) for m, p in routes(everyone) if m != "GET" and not ends_the_session(m, p)]
    sent = []
    for number, (method, path) in enumerate(writes):
        for name, (kind, body) in share(list(BODIES.items()), number, every):
            headers = {"Content-Type": kind} if kind and kind.isprintable() else {}
            reply = everyone.call(method, path, by=who(path), match='"1"', data=body, headers=headers)
            check(reply, f"{method} {path} {name}")
            sent.append(name)
            if kind.startswith(("text/", "application/x-", "application/xml", "multipart")) and reply.status_code == 415:
                assert reply.json()["code"] == "unsupported_type"
    measured("12", f"{len(sent)} hostile bodies on {len(writes)} routes, {walked(every)}: no 5xx")
    assert set(sent) == set(BODIES)


@EVERY
def test_every_hostile_query_name_and_header_on_every_route(everyone: Site, every: int, measured: Measured) -> None:
    app: Any = everyone.front.app
    count = 0
    rules = [rule.rule for rule in app.url_map.iter_rules() if "GET" in rule.methods]
    for number, rule in enumerate(rules):
        path = re.sub(r"<[^>]+>", "none", rule)
        for query in share(QUERIES, number, every):
            check(everyone.get(f"{path}?{query}", by=who(path)), f"{path}?{query[:60]}")
            count += 1
        for headers in share(HEADERS, number, every):
            try:
                reply = everyone.get(path, headers={"Authorization": f"Bearer {everyone.tokens[who(path)]}", **headers})
            except (UnicodeError, ValueError):
                continue  # the client itself refuses to send it
            check(reply, f"{path} {headers!s:.80}")
            count += 1
        if "<" in rule:
            for name in share(NAMES, number, every):
                check(everyone.get(re.sub(r"<[^>]+>", name, rule), by=who(path)), f"{rule} {name[:60]}")
                count += 1
    measured("12", f"{count} hostile queries, names and headers on {len(rules)} routes, {walked(every)}: no 5xx")


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_wrong_methods_keep_allow_and_unknown_paths_are_problems(everyone: Site, every: int) -> None:
    for number, path in enumerate(sorted({path for _, path in routes(everyone)})):
        for method in ("PUT", "TRACE", "PROPFIND", "PATCH", "DELETE", "POST")[number % every :: every]:
            reply = everyone.call(method, path, json={}, match='"1"')
            check(reply, f"{method} {path}")
    check(everyone.get("/nothing/here"), "unknown path")
    check(everyone.get("/v1/lessons/" + "a/" * 500), "long path")


def test_raw_requests_that_no_client_would_send(everyone: Site) -> None:
    host = everyone.base.removeprefix("http://")
    for line in (
        "GET /v1/lessons\x00 HTTP/1.1",
        "GET //v1/lessons HTTP/1.1",
        "GET http://elsewhere/v1/lessons HTTP/1.1",
        "BREW /v1/lessons HTTP/1.1",
    ):
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.connect()
        connection.sock.sendall(line.encode() + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = connection.sock.recv(200)
        assert b" 50" not in answer[:15], (line, answer)
        connection.close()


KEYS = st.sampled_from(
    ["$ne", "$gt", "$where", "$regex", "__raw__", "slug__ne", "name__in", "$or", "slug", "name", "password", "id", "items"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "$ne", "a", "editor"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("examples", [120, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_operator_reaches_mongodb(everyone: Site, examples: int, measured: Measured) -> None:
    from content import store

    listener = Listener()
    monitoring_client = store.client()
    monitoring_client._event_listeners._EventListeners__command_listeners.append(listener)
    monitoring_client._event_listeners._EventListeners__enabled_for_commands = True
    posts = sorted({(m, p) for m, p in routes(everyone) if m in ("POST", "PATCH") and "/session" not in p})
    ours = {"$gt", "$lt", "$lte", "$gte", "$in", "$exists", "$ne", "$set"}

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(posts))
    def run(body: dict[str, Any], route: tuple[str, str]) -> None:
        check(everyone.call(*route, by=who(route[1]), match='"1"', json=body), f"{route} {body}")

    run()
    assert listener.keys <= ours, listener.keys - ours
    measured("13", f"{examples} generated bodies on {len(posts)} routes: no operator but our own in any command")


@pytest.mark.parametrize("examples", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_schemathesis_cases_from_our_openapi(everyone: Site, examples: int, measured: Measured) -> None:
    schema = schemathesis.openapi.from_url(f"{everyone.base}/openapi.json")
    headers = {"Authorization": f"Bearer {everyone.tokens['everyone']}", "If-Match": '"1"'}
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if re.match("/v1/staff/session(/|$)", operation.path) or operation.path.startswith(("/metrics",)):
            continue

        @settings(
            max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None
        )
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            nonlocal count
            count += 1
            reply = case.call(headers=headers)
            assert reply.status_code < 500, (case.as_curl_command(), reply.text[:300])

        run()
    assert count > (10_000 if examples > 1 else 100)
    measured("12", f"{count} schemathesis cases: no 5xx")

"""What every request meets before a view, and the small tools views share.

Strict JSON (depth, digits, duplicate keys, NaN, lone surrogates), body size, security headers, rate limits kept in memory
under keys that die with the process, If-Match, Idempotency-Key, paging.
"""

import base64
import bisect
import hashlib
import hmac
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Network
from itertools import islice
from typing import Any, ClassVar, TypeVar

import marshmallow as ma
import mongoengine as me
import pymongo
from flask import Flask, Response, current_app, g, jsonify, make_response, request
from flask_smorest import Blueprint as SmorestBlueprint
from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from marshmallow import RAISE
from marshmallow.validate import Length
from pymongo.errors import DuplicateKeyError, PyMongoError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import UnsupportedMediaType

from content import sealed, store
from content.failures import Conflict, Failure, Text, TooMany, invalid
from content.staff import Actor

T = TypeVar("T")
log = logging.getLogger("xinqiao.guard")
MAX_BODY = 1024 * 1024  # bytes; files go to S3 by a signed form, never through here
MAX_SMALL_BODY = 64 * 1024  # of what families send: 500 answers take 20 KiB
MAX_DEPTH = 32
MAX_PARTS = 20_000  # keys and values of one body: each costs time with every schema that looks at it
MAX_INT = 2**63 - 1
SURROGATE = re.compile("[\x00\ud800-\udfff]")


# --- strict JSON -----------------------------------------------------------------------------------------------------


def _int(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INT:
        raise ValueError("数字过大 a number is beyond 64 bits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("数字过大 a number is too large")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"不接受 {text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("同一个键出现两次 a key stands twice in one object")
    return result


def strict_json(data: bytes) -> Any:
    """Parse a JSON body. Raises `Failure("bad_json")` with the reason; never recurses past the parser's own limit."""
    try:
        value = json.loads(
            data.decode("utf-8"), parse_int=_int, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object
        )
    except RecursionError:
        raise Failure(
            "bad_json", reason=Text(f"括号套得太深，最多 {MAX_DEPTH} 层", f"nested too deep, {MAX_DEPTH} levels at most")
        ) from None
    except UnicodeDecodeError:
        raise Failure("bad_json", reason=Text("不是 UTF-8，请另存为 UTF-8", "it is not UTF-8; save it as UTF-8")) from None
    except json.JSONDecodeError as error:
        raise Failure("bad_json", reason=f"{error.msg}, line {error.lineno} column {error.colno}") from None
    except ValueError as error:
        raise Failure("bad_json", reason=str(error)) from None
    layer: list[Any] = [value]
    parts = 0
    for _ in range(MAX_DEPTH):
        parts += len(layer)
        if parts > MAX_PARTS:
            raise Failure(
                "bad_json",
                reason=Text(f"超过 {MAX_PARTS} 项，请分开发送", f"more than {MAX_PARTS} keys and values; send it in parts"),
            )
        below: list[Any] = []
        for part in layer:
            if isinstance(part, str) and SURROGATE.search(part):
                raise Failure(
                    "bad_json",
                    reason=Text("含有无法保存的字符（NUL 或半个字符），请删去", "it holds NUL or half a character; take it out"),
                )
            if isinstance(part, dict):
                below += part.keys()
                below += part.values()
            elif isinstance(part, list):
                below += part
        if not below:
            return value
        layer = below
    raise Failure("bad_json", reason=Text(f"括号套得太深，最多 {MAX_DEPTH} 层", f"nested too deep, {MAX_DEPTH} levels at most"))


def overlong(schema: ma.Schema, value: Any) -> dict[str | int, Any]:
    """marshmallow's messages about lists that are longer than their field allows. It would itself look at every entry first."""
    found: dict[str | int, Any] = {}
    for name, field in schema.load_fields.items() if isinstance(value, dict) else ():
        key = field.data_key or name
        if key in value and (wrong := _overlong(field, value[key])):
            found[key] = wrong
    return found


def _overlong(field: ma.fields.Field[Any], value: Any) -> Any:
    if isinstance(field, ma.fields.Nested):
        return overlong(field.schema, value)
    if not isinstance(field, ma.fields.List) or not isinstance(value, list):
        return None
    for rule in field.validators:
        if isinstance(rule, Length) and len(value) > (rule.equal or rule.max or MAX_PARTS):
            try:
                rule(value)
            except ma.ValidationError as error:
                return error.messages
    below = field.inner
    if not isinstance(below, ma.fields.Nested | ma.fields.List):
        return None
    return {number: wrong for number, part in enumerate(value) if (wrong := _overlong(below, part))}


class StrictParser(FlaskParser):
    """flask-smorest's argument parser with our JSON: the stock one answers 500 to deep nesting and lone surrogates.

    An unknown query parameter is refused like an unknown field: `?lagnuage=en` would otherwise be answered as if unfiltered.
    """

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE}

    def load_json(self, req: Any, schema: Any) -> Any:
        data = req.get_data(cache=True)
        if not data and not req.content_type:
            return {}
        if req.mimetype != "application/json" and not req.mimetype.endswith("+json"):
            raise UnsupportedMediaType()
        value = strict_json(data)
        if wrong := overlong(schema, value):
            raise ma.ValidationError(wrong)
        return value


class Blueprint(SmorestBlueprint):  # type: ignore[misc]
    """flask-smorest's blueprint with the strict parser; its staff routes say in the OpenAPI document that they need a token."""

    ARGUMENTS_PARSER = StrictParser()
    OPEN = ("/session", "/session/refresh")

    def route(self, rule: str, **options: Any) -> Callable[[Any], Any]:
        """As flask-smorest's."""
        register: Callable[[Any], Any] = super().route(rule, **options)
        if self.url_prefix == "/v1/staff" and not (rule in self.OPEN and "POST" in options.get("methods", ())):
            return lambda view: register(self.doc(security=[{"staff": []}])(view))
        return register


# --- If-Match, paging ------------------------------------------------------------------------------------------------


def if_match() -> int:
    """The revision in If-Match. Raises 428 when it is missing, `Invalid` when it is not one revision in quotes."""
    header = request.headers.get("If-Match", "").strip()
    if not header:
        raise Failure("if_match_required")
    found = re.fullmatch(r'"([0-9]{1,15})"', header)
    if not found:
        raise invalid("If-Match", "bad_format", reason='“"4"”')
    return int(found[1])


def tagged(payload: dict[str, Any], revision: int, status: int = 200) -> Response:
    """A JSON response whose ETag is the record's revision, for the next If-Match."""
    response = make_response(jsonify(payload), status)
    response.set_etag(str(revision))
    return response


def created(payload: dict[str, Any], revision: int, location: str) -> Response:
    """The answer to a creating POST: 201, with the new record's ETag and address."""
    response = tagged(payload, revision, 201)
    response.headers["Location"] = location
    return response


def page(
    items: Sequence[Any],
    cursor: str | None,
    limit: int,
    key: Callable[[Any], Sequence[Any]],
    fits: Callable[[Any], bool] = lambda item: True,
) -> dict[str, Any]:
    """One page of items that are sorted ascending by `key` (a list of JSON values): those after `cursor` that fit, `limit`
    of them, and whether there are more.

    The cursor names the last item's key and not a count, so what is published or withdrawn between two pages neither
    repeats nor skips another item. Raises `bad_cursor`.
    """
    start = 0
    if cursor:
        try:
            start = bisect.bisect_right(items, open_cursor(cursor), key=lambda item: list(key(item)))
        except TypeError:
            raise Failure("bad_cursor") from None
    return next_page(filter(fits, islice(items, start, None)), limit, key, lambda item: item)


def next_page(rows: Iterable[T], limit: int, key: Callable[[T], Sequence[Any]], show: Callable[[T], Any]) -> dict[str, Any]:
    """The first `limit` of `rows` as `show` makes them, and the cursor (of the last one's `key`) when there are more. No more
    rows are taken than needed to know."""
    seen = list(islice(rows, limit + 1))
    more = len(seen) > limit
    del seen[limit:]
    return {"items": [show(row) for row in seen], "next_cursor": make_cursor(key(seen[-1])) if more else None}


def cursor_of(query: Mapping[str, Any], size: int) -> list[str]:
    """The sort key in the query's cursor, of `size` texts; texts that sort first without one. Raises `bad_cursor`."""
    last = open_cursor(query["cursor"]) if query.get("cursor") else [""] * size
    if len(last) != size or not all(isinstance(part, str) and "\x00" not in part and part.isprintable() for part in last):
        raise Failure("bad_cursor")
    return last


def moment_of(query: Mapping[str, Any]) -> tuple[datetime, str] | None:
    """The moment and id in the query's cursor; None without one. Raises `bad_cursor`, also for a moment beyond the calendar."""
    if not query.get("cursor"):
        return None
    moment, key = cursor_of(query, 2)
    try:
        found = datetime.fromisoformat(moment)
        if found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC), key
    except (ValueError, OverflowError):
        raise Failure("bad_cursor") from None


def make_cursor(key: Sequence[Any]) -> str:
    """An opaque cursor from a sort key."""
    return base64.urlsafe_b64encode(json.dumps(list(key), ensure_ascii=False).encode()).decode().rstrip("=")


def open_cursor(cursor: str) -> list[Any]:
    """The sort key of a cursor. Raises `bad_cursor`."""
    try:
        value = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        raise Failure("bad_cursor") from None
    if not isinstance(value, list) or not all(isinstance(v, str | int | float) for v in value):
        raise Failure("bad_cursor")
    return value


# --- rate limits -----------------------------------------------------------------------------------------------------

SALT = os.urandom(32)  # dies with the process: the keys of the counters can be tied to no address afterwards
LIMITS: dict[str, int] = {
    # endpoint -> requests a minute, all workers together. Addresses are shared by whole schools, so public limits are wide.
    "staff.sign_in": 20,
    "staff.refresh": 60,
    "previews.show": 240,
    "sharing.invitation": 600,
    "posters.session_poster_pdf": 60,  # each takes half a second of a core
    "posters.course_poster_pdf": 60,
    "bookings.create": 240,
    "bookings.create_whole": 60,
    "bookings.change": 120,
    "bookings.leave": 120,
    "bookings.accept": 120,
    "bookings.decline": 120,
    "bookings.show": 120,
    "bookings.cancel": 120,
    "attendance.check_in_qr": 240,
    "afterwards.give": 120,
    "afterwards.certificate": 60,  # as a poster
    "afterwards.certificate_whole": 60,
    "calendars.booking": 1200,  # calendar services fetch for thousands of phones from few addresses
    "demands.second": 240,
    "demands.suggest": 120,
    "volunteers.create": 120,
    "volunteers.show": 120,
    "volunteers.edit": 120,
    "volunteers.withdraw": 120,
    "appointments.create": 120,
    "appointments.show": 240,
    "appointments.cancel": 120,
    # each takes 51 ms of a core (Argon2id), so that one address gets half of what two workers can do
    "results.keep": 1200,
    "results.show": 600,
    "results.erase": 240,
    # 2,000 pupils behind one address within ten minutes, bunched fivefold, are 1,000 a minute; and all of them may come to one of
    # two workers. What it stops is one machine that makes up a district within an hour.
    "contributions.contribute": 3000,
    "contributions.check_in": 3000,
    "contributions.come_back": 3000,
    "contributions.count_notice": 3000,
}
STAFF_LIMIT = 1200  # a minute for one signed-in person
_limiter = SlidingWindowCounterRateLimiter(MemoryStorage())


def limit(name: str, who: str) -> None:
    """Count one request of `who` against a limit; raises `TooMany` beyond it. Sets the RateLimit headers either way."""
    settings = current_app.extensions["settings"]
    total = LIMITS.get(name, STAFF_LIMIT)
    share = max(1, total // settings.workers)
    item = RateLimitItemPerMinute(share)
    key = hmac.new(SALT, who.encode(), hashlib.sha256).hexdigest()[:16]
    allowed = _limiter.hit(item, name, key)
    window = _limiter.get_window_stats(item, name, key)
    left = max(0, int(window.reset_time - _now()) + 1)
    g.rate = (f'"{name}";q={share};w=60', f'"{name}";r={max(0, window.remaining)};t={left}')
    if not allowed:
        raise TooMany(retry_after=max(1, left))


def beyond(name: str, who: str, cost: int, most: int) -> bool:
    """Whether `who` has asked for more than `most` of something in a day, `cost` of it now; refuses nothing itself."""
    item = RateLimitItemPerDay(max(1, most // current_app.extensions["settings"].workers))
    key = hmac.new(SALT, who.encode(), hashlib.sha256).hexdigest()[:16]
    return not _limiter.hit(item, name, key, cost=min(cost, item.amount))


def tried(invitation: str) -> None:
    """Count a try of an invitation, before it is looked whether there is such a thing: the headers then tell nothing of that."""
    if invitation:
        limit("sharing.invitation", request.remote_addr or "")


def daily(name: str, who: str, most: int) -> None:
    """Count one thing that the address `who` made, perhaps of something it names after a blank; raises `TooMany` for more than
    `most` in a day. Each worker counts its own: a share of three would be one, and refuse a family's second. An IPv6 address is
    its /64, which is one household's."""
    item = RateLimitItemPerDay(most)
    address, _, of = who.partition(" ")
    prefix = address if ":" not in address else str(IPv6Network((address.partition("%")[0], 64), strict=False))
    key = hmac.new(SALT, f"{prefix} {of}".encode(), hashlib.sha256).hexdigest()[:16]
    if not _limiter.hit(item, name, key):
        raise TooMany(retry_after=max(60, int(_limiter.get_window_stats(item, name, key).reset_time - _now())))


def reset_limits() -> None:
    """Forget all counts; for tests, where every request comes from one address."""
    _limiter.storage.reset()


def _now() -> float:
    return store.now().timestamp()


# --- Idempotency-Key -------------------------------------------------------------------------------------------------


class Replay(store.Row):
    """The answer to a creating request of a signed-in person, kept sealed for a day."""

    body = me.StringField(required=True)
    """SHA-256 of the request body."""
    answer = me.BinaryField()
    """Sealed JSON [status, headers, body]; absent while the first request runs."""
    expires_at = me.DateTimeField(required=True)

    meta: ClassVar[dict[str, Any]] = {
        "collection": "replays",
        "indexes": [{"fields": ["expires_at"], "expireAfterSeconds": 0}],
    }


def replay_before(who: Actor) -> Response | None:
    """Answer a repeated creating POST from its first answer; None lets it run. Raises `Conflict` while the first one runs,
    and for a key used with another body. The grants of the moment are in the name, so an answer does
    not outlive them. A first request cut by a crash frees its key after a minute."""
    key = request.headers.get("Idempotency-Key", "")
    if request.method != "POST" or not key:
        return None
    if len(key) > 200:
        raise invalid("Idempotency-Key", "out_of_range", reason="≤ 200")
    name = hashlib.sha256(f"{who.id}\n{who.grants}\n{request.path}\n{key}".encode()).hexdigest()
    body = hashlib.sha256(request.get_data(cache=True)).hexdigest()
    rows, at = Replay.rows(), store.now()
    try:
        rows.insert_one({"_id": name, "body": body, "expires_at": at + timedelta(minutes=1)})
    except DuplicateKeyError:
        raw = rows.find_one({"_id": name})
        if raw is None or raw["expires_at"] < at:
            rows.delete_one({"_id": name, "expires_at": {"$lt": at}})
            raise Conflict("in_progress") from None
        if raw["body"] != body:
            raise Failure("duplicate_key_body") from None
        if not raw.get("answer"):
            raise Conflict("in_progress") from None
        status, headers, text = json.loads(sealed.unseal(raw["answer"]))
        return Response(text, status, {**headers, "Idempotent-Replayed": "true"})
    g.replay = name
    return None


def replay_after(response: Response) -> None:
    """Keep the answer of a first creating request, or free its key when it failed on our side. When the database does not
    take it any more the answer goes out as it is, and the key is free after its minute."""
    name = g.pop("replay", None)
    if name is None:
        return
    try:
        _keep_answer(name, response)
    except PyMongoError as error:
        log.warning("the answer to an Idempotency-Key was not kept: %s", type(error).__name__)


def _keep_answer(name: str, response: Response) -> None:
    if response.status_code >= 500 or response.status_code == 429:
        with pymongo.timeout(0.2):  # on top of what the view has waited in vain
            Replay.rows().delete_one({"_id": name})
        return
    headers = {k: v for k, v in response.headers if k in {"Content-Type", "ETag", "Location"}}
    answer = sealed.seal(json.dumps([response.status_code, headers, response.get_data(as_text=True)]))
    Replay.rows().update_one({"_id": name}, {"$set": {"answer": answer, "expires_at": store.now() + timedelta(days=1)}})


# --- every request ---------------------------------------------------------------------------------------------------

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


def install(app: Flask) -> None:
    """Put the guard around an app: limits on input before the view, headers after it."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY

    @app.before_request
    def check() -> None:
        if "\x00" in request.path or "\x00" in (request.query_string.decode("latin-1") + "") or "%00" in request.full_path:
            raise Failure("bad_request")

    @app.after_request
    def finish(response: Response) -> Response:
        replay_after(response)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if "rate" in g:
            response.headers["RateLimit-Policy"], response.headers["RateLimit"] = g.rate
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Request-Id"] = g.get("request_id", "")
        return response

"""Problem details (RFC 9457): one shape for every error, stable codes, texts in zh-Hans and en.

    {"type": "urn:xinqiao:problem:invalid", "status": 422, "code": "invalid", "title": "…", "detail": "…",
     "messages": {"zh-Hans": "…", "en": "…"}, "errors": [{"field": "title", "code": "required", "messages": {…}}]}

`title` and `detail` are in the language asked for (zh-Hans else). The stock handler of flask-smorest drops Allow from 405
and Retry-After from 429 and 503; here they are kept.
"""

import dis
import functools
import inspect
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import islice
from types import CodeType
from typing import Any

import flask_smorest
import marshmallow as ma
from apispec import BasePlugin
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_cls
from flask import Flask, Response, g, json, request
from pymongo.errors import PyMongoError
from werkzeug.exceptions import HTTPException

from api import front, guard
from api.auth import POLICY
from content import failures, store
from content.failures import Failure, FieldError, Invalid, Text

log = logging.getLogger("xinqiao.api")
MOST_ERRORS = 50  # in one answer; nobody mends more at once, and a body can be wrong in 20,000 places

BY_CLASS: list[tuple[type[Failure], int]] = [
    (failures.NotFound, 404),
    (failures.Stale, 412),
    (failures.Forbidden, 403),
    (failures.NotSignedIn, 401),
    (failures.TooMany, 429),
    (failures.Unavailable, 503),
    (failures.Invalid, 422),
    (failures.Conflict, 409),
]
BY_CODE = {
    "stale": 412,
    "if_match_required": 428,
    "bad_json": 400,
    "bad_cursor": 400,
    "bad_request": 400,
    "start_over": 410,
    "wrong_credentials": 401,
    "duplicate_key_body": 422,
    "payload_too_large": 422,
    "not_what_it_says": 422,
    "too_large": 413,
}
BY_STATUS = {
    400: "bad_request",
    401: "not_signed_in",
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_type",
    422: "invalid",
    429: "too_many_requests",
    503: "overloaded",
}


def status_of(failure: Failure) -> int:
    """The HTTP status of a failure."""
    if failure.code in BY_CODE:
        return BY_CODE[failure.code]
    return next((status for cls, status in BY_CLASS if isinstance(failure, cls)), 500)


def prefers_english() -> bool:
    """Whether the request asks for English before Chinese."""
    return request.accept_languages.best_match(["zh", "zh-Hans", "zh-CN", "en"], "zh") == "en"


def problem(
    status: int,
    code: str,
    messages: dict[str, str],
    errors: Iterable[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """One problem response. A view that must answer with help whatever happens puts it into `g.beside_failure`,
    or what makes it."""
    language = "en" if prefers_english() else "zh-Hans"
    beside = g.get("beside_failure", {})
    body: dict[str, Any] = {
        "type": f"urn:xinqiao:problem:{code}",
        "status": status,
        "code": code,
        "title": HTTPStatus(status).phrase,
        "detail": messages[language],
        "messages": messages,
        **(beside() if callable(beside) else beside),
    }
    left = iter(errors)
    rows = [{"field": e.field, "code": e.code, "messages": e.messages} for e in islice(left, MOST_ERRORS)]
    if rows:
        body["errors"] = rows
    if next(left, None):
        body["more_errors"] = True
    if "request_id" in g:
        body["request_id"] = g.request_id
    response = Response(json.dumps(body, ensure_ascii=False), status, content_type="application/problem+json")
    response.headers["Content-Language"] = language
    response.headers["Vary"] = "Accept-Language"
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


def of_failure(failure: Failure) -> Response:
    """The response to a typed failure."""
    headers = {}
    if "retry_after" in failure.params:
        headers["Retry-After"] = str(failure.params["retry_after"])
    if isinstance(failure, failures.NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    errors = failure.errors if isinstance(failure, Invalid) else ()
    return problem(status_of(failure), failure.code, failure.messages, errors, headers)


# marshmallow's messages -> our codes. The pattern's group, where there is one, fills the text's place.
PATTERNS: list[tuple[re.Pattern[str], str, str]] = [
    (re.compile(r"Missing data for required field\.|Field may not be null\."), "required", ""),
    (re.compile(r"Unknown field\."), "unknown_field", ""),
    (re.compile(r"Must be one of: (.*)\.", re.S), "not_one_of", "choices"),
    (re.compile(r"Not a valid ((?:aware )?datetime|date|URL)\."), "bad_format", "reason"),
    (re.compile(r"Not a valid (.*)\."), "wrong_type", "reason"),
    (re.compile(r"Invalid (.*) type\.|Invalid input type\."), "wrong_type", "reason"),
    (re.compile(r"((?:Must be|Longer|Shorter|Length|Number|Greater|Less).*)", re.S), "out_of_range", "reason"),
]

TYPES = {
    "integer": Text("请填整数", "write a whole number"),
    "number": Text("请填数字", "write a number"),
    "string": Text("请填文字", "write a text"),
    "boolean": Text("请填 true 或 false", "write true or false"),
    "list": Text("请填列表", "send a list"),
    "mapping type": Text("请填对象", "send an object"),
    "date": Text("请填有的日子，例：2026-11-21", "write a day that there is, e.g. 2026-11-21"),
    "datetime": Text("请填时间，例：2026-11-21T19:00:00+08:00", "write a moment, e.g. 2026-11-21T19:00:00+08:00"),
    "aware datetime": Text(
        "请填带时区的时间，例：2026-11-21T19:00:00+08:00", "write a moment with its zone, e.g. 2026-11-21T19:00:00+08:00"
    ),
    "URL": Text("请填网址，例：https://example.org", "write an address, e.g. https://example.org"),
    "Invalid input type.": Text("请填对象", "send an object"),
}
NUMBER = re.compile(r"-?[0-9][0-9:T.+-]*[0-9]|[0-9]")
MEMBER = re.compile(r"[0-9]+")
CLOCKED = re.compile(r"[0-9]{4}-[0-9]{2}|[0-9]{2}:[0-9]{2}")  # of a date or time a reader wants the form, not the length


def limits(message: str, many: bool) -> Text | None:
    """marshmallow's English sentence about a length (of `many` entries, or of characters) or a range; None for another one."""
    numbers = NUMBER.findall(message)
    length = message.startswith(("Longer", "Shorter", "Length"))
    if not (length or message.startswith(("Must be greater", "Must be less"))) or not 0 < len(numbers) <= 2:
        return None
    zh, en = (" 项", " entries") if length and many else (" 个字符", " characters") if length else ("", "")
    if len(numbers) == 2:
        return Text(f"请填 {numbers[0]}–{numbers[1]}{zh}", f"{numbers[0]} to {numbers[1]}{en}")
    if message.startswith("Length must be"):
        return Text(f"请填 {numbers[0]}{zh}", f"exactly {numbers[0]}{en}")
    if message.startswith(("Must be greater", "Shorter")):
        return Text(f"至少 {numbers[0]}{zh}", f"at least {numbers[0]}{en}")
    return Text(f"最多 {numbers[0]}{zh}", f"at most {numbers[0]}{en}")


def declared(schema: Any, path: tuple[str, ...]) -> ma.fields.Field[Any] | None:
    """The field of a schema that a path of names and list places means; None where it leads nowhere."""
    found: Any = schema
    for name in path:
        if isinstance(found, ma.fields.Nested):
            found = found.schema
        if isinstance(found, ma.fields.List) and MEMBER.fullmatch(name):
            found = found.inner
        elif isinstance(found, ma.Schema):
            if not (getattr(found, "many", False) and MEMBER.fullmatch(name)):
                of = found.fields
                found = of.get(name) or next((field for field in of.values() if field.data_key == name), None)
        else:
            return None
    return found if isinstance(found, ma.fields.Field) else None


def of_message(message: str, of: ma.fields.Field[Any] | None) -> tuple[str, dict[str, Any]]:
    """(code, parameters) of one of marshmallow's messages about a field that is declared so."""
    example = (of.metadata if of else {}).get("example")
    shown = Text(f"例：{example}", f"e.g. {example}") if isinstance(example, str | int | float) else None
    if message == "String does not match expected pattern.":
        return "bad_format", {"reason": shown or Text("请核对写法", "check how it is written")}
    if shown and CLOCKED.match(str(example)) and message.startswith(("Longer", "Shorter", "Length")):
        return "bad_format", {"reason": shown}
    if told := limits(message, isinstance(of, ma.fields.List | ma.fields.Nested | ma.fields.Dict)):
        return "out_of_range", {"reason": Text(f"{told.zh}，{shown.zh}", f"{told.en}, {shown.en}") if shown else told}
    for pattern, code, place in PATTERNS:
        if found := pattern.fullmatch(message):
            reason = found[1] if pattern.groups and found[1] else message
            return code, {place: TYPES.get(reason, reason)} if place else {}
    return "bad_format", {"reason": message}


def field_errors(messages: Any, schema: Any = None, path: tuple[str, ...] = ()) -> Iterator[FieldError]:
    """Field errors from marshmallow's nested messages; the outermost key (json, query, path) is dropped by the caller."""
    if isinstance(messages, dict):
        for key, below in messages.items():
            yield from field_errors(below, schema, path if key == "_schema" else (*path, str(key)[:80]))
        return
    field = ".".join(path) or "body"
    for message in messages if isinstance(messages, list) else [messages]:
        if isinstance(message, FieldError):
            yield message._replace(field=field)
        else:
            yield FieldError(field, *of_message(str(message), declared(schema, path)))


def of_http(error: HTTPException) -> Response:
    """The response to werkzeug's and flask-smorest's own errors, with Allow and Retry-After kept."""
    status = error.code or 500
    if error.response is not None or status < 400:
        return error.get_response(request.environ)  # type: ignore[return-value]
    headers = {k: v for k, v in error.get_headers(request.environ) if k in {"Allow", "Retry-After", "WWW-Authenticate"}}
    data = getattr(error, "data", None) or {}
    code = BY_STATUS.get(status, "bad_request" if status < 500 else "internal")
    params = {
        "what": request.path[:120],
        "allow": headers.get("Allow", ""),
        # a route that takes other types names them where it raises
        "expected": error.description if error.description != type(error).description else "application/json",
        "retry_after": headers.get("Retry-After", "5"),
        "limit": f"{(request.max_content_length or guard.MAX_BODY) // 1024} KiB",
    }
    if status in (429, 503):
        headers.setdefault("Retry-After", "5")
    told = data.get("messages", {}).values() if status == 422 else ()
    found = (e for part in told for e in field_errors(part, data.get("schema")))
    return problem(status, code, failures.TEXTS[code].fill(params), found, headers)


def schema_name(schema: Any) -> str:
    """Name of a schema in the OpenAPI document: its file and its class, so that each file may have its own `Page`."""
    cls = resolve_schema_cls(schema)
    cls = cls[0] if isinstance(cls, list) else cls
    return f"{cls.__module__.rsplit('.', 1)[-1].title()}{cls.__name__.removesuffix('Schema')}"


class Messages(ma.Schema):
    """One text in both languages."""

    zh = ma.fields.String(data_key="zh-Hans", metadata={"example": "“title”必须填写。"})
    en = ma.fields.String(metadata={"example": "“title” is required."})


class FieldProblem(ma.Schema):
    """What is wrong with one field."""

    field = ma.fields.String(metadata={"example": "texts.0.title"})
    code = ma.fields.String(metadata={"example": "required"})
    messages = ma.fields.Nested(Messages)


class Problem(ma.Schema):
    """RFC 9457."""

    type = ma.fields.String(metadata={"example": "urn:xinqiao:problem:invalid"})
    status = ma.fields.Integer(metadata={"example": 422})
    code = ma.fields.String(metadata={"description": "stable; one of the codes in the README", "example": "invalid"})
    title = ma.fields.String()
    detail = ma.fields.String(metadata={"description": "in the language asked for"})
    messages = ma.fields.Nested(Messages)
    errors = ma.fields.List(ma.fields.Nested(FieldProblem), metadata={"description": f"the first {MOST_ERRORS} of them"})
    more_errors = ma.fields.Boolean(metadata={"description": "true when there are more: mend these and send it again"})
    help = ma.fields.Dict(metadata={"description": "the help card: of self-checks, kept results, help lines, searches in need"})
    critical = ma.fields.Boolean(metadata={"description": "of a self-check: an answer in the body calls for help at once"})
    message = ma.fields.String(allow_none=True, metadata={"description": "when `critical`: say it first"})
    request_id = ma.fields.String()


def header(name: str, told: str, example: str, required: bool = False) -> dict[str, Any]:
    """A header parameter of the OpenAPI document."""
    schema = {"type": "string", "example": example}
    return {"in": "header", "name": name, "required": required, "description": told, "schema": schema}


def reached(view: Callable[..., Any]) -> set[Callable[..., Any]]:
    """Our functions in api/ that a view's code names, and those that these name in turn: what it reads of a request."""
    found: set[Callable[..., Any]] = set()
    waiting = [inspect.unwrap(view)]
    while waiting:
        function = waiting.pop()
        if function not in found and function.__module__.startswith("api."):
            found.add(function)
            waiting += _named(function)
    return found


@functools.cache  # the same few functions stand behind most views: two seconds of each worker's start without it
def _named(function: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """The functions that a function's code names."""
    found = []
    scope = {**getattr(function, "__globals__", {}), **inspect.getclosurevars(function).nonlocals}
    codes = [getattr(function, "__code__")]  # noqa: B009  (a Callable has none for the type checker)
    for code in codes:  # grows: functions within the function
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
        value: Any = None
        for step in dis.get_instructions(code):
            if step.opname in {"LOAD_GLOBAL", "LOAD_DEREF"}:
                value = scope.get(step.argval)
            elif step.opname in {"LOAD_ATTR", "LOAD_METHOD"} and inspect.ismodule(value):
                value = getattr(value, step.argval, None)
            else:
                value = None
            if inspect.isfunction(value):
                found.append(inspect.unwrap(value))
    return tuple(found)


class Headers(BasePlugin):
    """The headers that an operation reads, said of it in the OpenAPI document by what its code calls, so that none is promised
    that is not read."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def operation_helper(self, path: str | None = None, operations: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Called by apispec for each path, with its `rule`."""
        endpoint = kwargs["rule"].endpoint
        reads = reached(self.app.view_functions[endpoint])
        for method, operation in (operations or {}).items():
            found = operation.setdefault("parameters", [])
            if front.wanted in reads:
                found.append(header("Accept-Language", "the reader's languages", "zh-CN, en;q=0.5"))
            if front.keep in reads:
                found.append(header("If-None-Match", "the ETag that was read: 304 while nothing changed", '"5f2c…-br"'))
            if guard.if_match in reads:
                found.append(header("If-Match", "the ETag that was read: 428 without, 412 when someone was faster", '"4"'))
            if method == "post" and POLICY[endpoint].replay:
                found.append(header("Idempotency-Key", "a repeat with the same key gets the first answer", "c0ffee-1"))


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's Api with our error shape."""

    ERROR_SCHEMA = Problem

    def _register_responses(self) -> None:
        # the library knows one content type for answers and errors alike
        usual: str = self.DEFAULT_RESPONSE_CONTENT_TYPE  # type: ignore[has-type]
        self.DEFAULT_RESPONSE_CONTENT_TYPE = "application/problem+json"
        super()._register_responses()
        self.DEFAULT_RESPONSE_CONTENT_TYPE = usual

    def __init__(self, app: Flask) -> None:
        plugin = MarshmallowPlugin(schema_name_resolver=schema_name)
        super().__init__(app, spec_kwargs={"marshmallow_plugin": plugin, "extra_plugins": [Headers(app)]})

    def handle_http_exception(self, error: HTTPException) -> Response:
        """All of werkzeug's errors come by here."""
        return of_http(error)


def install(app: Flask) -> None:
    """Register the handlers. Nothing that happens in a view leaves in another shape."""

    @app.errorhandler(Failure)
    def _(error: Failure) -> Response:
        return of_failure(error)

    @app.errorhandler(PyMongoError)
    def _(error: PyMongoError) -> Response:
        failure = store.failure_of(error)
        return of_failure(failure) if failure else of_surprise(error)

    @app.errorhandler(Exception)
    def _(error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return of_http(error)
        failure = store.failure_of(error)
        return of_failure(failure) if failure else of_surprise(error)


def of_surprise(error: Exception) -> Response:
    """A bug of ours: logged with its traceback and request id, answered without either's insides."""
    if request.environ.get("xinqiao.sensitive"):
        # the text of an error may quote an answer: the place alone
        where = traceback.extract_tb(error.__traceback__)[-1]
        log.error("unexpected %s at %s:%s", type(error).__name__, where.name, where.lineno)
    else:
        log.error("unexpected error", exc_info=error, extra={"request_id": g.get("request_id")})
    return problem(500, "internal", failures.TEXTS["internal"].fill({}))

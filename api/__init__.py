"""The Xinqiao API.

Public routes are under `/v1` and need no account; staff routes are under `/v1/staff` and take `Authorization: Bearer TOKEN`
from `POST /v1/staff/session`.

- **Lists** come in pages: `{"items": [...], "next_cursor": "..."}`; send `cursor` back for the next page, `limit` up to 100.
- **Languages**: `Accept-Language` picks the best text there is; the answer says which one it is, how it is written, and
  what other languages exist. `language=` is a filter.
- **Caching**: answers from the published set carry a strong `ETag`; `If-None-Match` gives 304. They go on being answered
  while the database is away. `br` and `gzip` are prepared once.
- **Edits** by staff need `If-Match` with the `ETag` that was read: 428 without, 412 when someone was faster.
- **Creating** `POST`s take an `Idempotency-Key`: a repeat gets the first answer again.
- **Errors** are problem details (RFC 9457) with a stable `code` and texts in zh-Hans and en; the README lists them.
- **Limits**: `RateLimit` and `RateLimit-Policy` headers where a limit counts; 429 and 503 carry `Retry-After`.
- **Privacy**: no accounts for parents and students, no addresses or devices in logs; scoring stores nothing.
"""

import inspect
import logging
import os
import sys
from typing import TYPE_CHECKING

from flask import Flask
from pythonjsonlogger.json import JsonFormatter
from werkzeug.middleware.proxy_fix import ProxyFix

from content.published import Reader
from content.settings import Settings

if TYPE_CHECKING:
    from api.front import Front


def create_app(settings: Settings, reader: Reader) -> Flask:
    """The one place where the parts are joined: the Flask application around a reader of the published set.

    Connects to nothing itself. Raises at once when a route stands in no row of `auth.POLICY`, or a row names no route.
    """
    from api import (
        afterwards,
        appointmentdesk,
        appointments,
        attendance,
        auth,
        beside,
        bookingdesk,
        bookings,
        calendars,
        checkdesk,
        checks,
        clashes,
        contributions,
        courses,
        coverage,
        demanddesk,
        demands,
        desk,
        divisions,
        errors,
        fhir,
        front,
        guard,
        lecturers,
        lessons,
        media,
        noticedesk,
        notices,
        ops,
        paths,
        planning,
        posters,
        previews,
        reports,
        results,
        schedules,
        search,
        seasons,
        sessions,
        sharing,
        staff,
        statistics,
        support,
        sync,
        templates,
        vocabularies,
        volunteers,
        years,
    )
    from content.search import Index

    app = Flask("xinqiao", static_folder=None)
    app.url_map.merge_slashes = False  # else //v1 is sent elsewhere in HTML, by the Host that the client made up
    app.config.update(
        API_TITLE="心桥 Xinqiao",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": inspect.cleandoc(__doc__)},
            "components": {"securitySchemes": {"staff": {"type": "http", "scheme": "bearer"}}},
        },
    )
    if settings.proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.proxies)  # type: ignore[method-assign]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["settings"] = settings
    app.extensions["reader"] = reader
    app.extensions["index"] = Index()  # without a thread it follows when it is asked; a worker starts it
    app.before_request(front.mark)
    app.before_request(beside.prepare)  # before what may refuse a request ahead of its view
    guard.install(app)
    errors.install(app)
    api = errors.Api(app)
    public = (
        lessons,
        paths,
        desk,
        previews,
        search,
        sync,
        checks,
        fhir,
        results,
        checkdesk,
        contributions,
        courses,
        planning,
        clashes,
        sessions,
        schedules,
        bookingdesk,
        bookings,
        attendance,
        afterwards,
        calendars,
        posters,
        demands,
        demanddesk,
        lecturers,
        volunteers,
        support,
        appointments,
        appointmentdesk,
        noticedesk,
        notices,
        reports,
        templates,
        seasons,
        years,
        media,
        divisions,
        vocabularies,
        staff,
        statistics,
        coverage,
    )
    for module in public:
        for name in ("blp", "staff"):
            blueprint = getattr(module, name, None)
            if blueprint is not None:
                api.register_blueprint(blueprint)
    app.register_blueprint(ops.blp)
    app.register_blueprint(sharing.pages)
    auth.install(app)
    return app


def set_up_logs(level: int = logging.INFO) -> None:
    """JSON lines on standard output for every logger of the process."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter("{created}{levelname}{name}{message}", style="{", rename_fields={"created": "time"}))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("pymongo").setLevel(logging.WARNING)


def create_wsgi() -> "Front":
    """What each granian worker calls: connect, start the reader's thread, and put the front before Flask."""
    from content import embedded, sealed, store

    embedded.die_with_parent()
    settings = Settings.from_env().needed("mongodb_uri", "s3_endpoint_url", "data_key", "signing_key")
    # prometheus_client reads it at import: the counters of all workers meet in these files
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder(settings))
    set_up_logs()
    from api import auth
    from api.front import Front

    store.connect(settings, store.REQUEST_PATIENCE)
    sealed.configure(settings)
    reader = Reader(settings.var / "published.json.gz")
    app = create_app(settings, reader)
    app.extensions["lanes"] = auth.lanes()
    front = Front(app, reader)
    reader.start()
    app.extensions["index"].start(reader)
    return front


def metrics_folder(settings: Settings) -> "os.PathLike[str]":
    """Where the workers' counters meet; emptied by `bootstrap.prepare` at the service's start."""
    folder = settings.var / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

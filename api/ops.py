"""For those who run the service: health, readiness, metrics, and the documentation page."""

import os
from pathlib import Path

import openapi_ui_bundles
from flask import Blueprint, Response, abort, current_app, jsonify, redirect, send_from_directory
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess

from content import store

blp = Blueprint("ops", __name__)
UI = Path(openapi_ui_bundles.rapidoc.static_path)
PAGE = """<!doctype html>
<html lang="zh-Hans"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>心桥 API 文档</title><script src="/docs/rapidoc-min.js"></script>
<style>body{margin:0}rapi-doc{height:100vh}</style></head>
<body><rapi-doc spec-url="/openapi.json" render-style="read" load-fonts="false" theme="light" primary-color="#2f6f6a"
 show-header="false" allow-server-selection="false" schema-description-expanded="true"
 regular-font="system-ui, 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif"></rapi-doc></body></html>
"""


@blp.get("/")
def front_page() -> Response:
    """To the documentation."""
    return redirect("/docs", 302)  # type: ignore[return-value]


@blp.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@blp.get("/readyz")
def readyz() -> tuple[Response, int, dict[str, str]]:
    """200 when this worker can do everything; 503, naming what is away, when it can only read."""
    reader = current_app.extensions["reader"]
    parts = {"database": reader.up, "published": reader.current.seq > 0}
    ready = all(parts.values())
    headers = {} if ready else {"Retry-After": str(store.RETRY_AFTER)}
    return jsonify({"status": "ready" if ready else "not ready", **parts}), 200 if ready else 503, headers


@blp.get("/metrics")
def metrics() -> Response:
    """Prometheus text of all workers together."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = generate_latest(registry)
    else:
        text = generate_latest()
    return Response(text, content_type=CONTENT_TYPE_LATEST)


@blp.get("/docs")
def docs() -> Response:
    """The documentation page; its script is served from here, nothing from elsewhere."""
    response = Response(PAGE, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:;"
        " frame-ancestors 'none'"
    )
    return response


@blp.get("/docs/<name>")
def docs_file(name: str) -> Response:
    """A file of the page."""
    if name not in {"rapidoc-min.js"}:
        abort(404)
    return send_from_directory(UI, name, max_age=86400)

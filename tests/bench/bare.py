"""The peer of the read bench: a bare Flask constant, no hooks, of the size that the bench asks for."""

import os

from flask import Flask, Response

BODY = b"x" * int(os.environ.get("BARE_BYTES", "5000"))


def create() -> Flask:
    """The app granian serves beside ours."""
    app = Flask("bare", static_folder=None)

    @app.get("/constant")
    def constant() -> Response:
        return Response(BODY, content_type="application/json")

    @app.get("/unchanged")
    def unchanged() -> Response:
        return Response(b"", 304)

    return app

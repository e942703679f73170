"""`xinqiao serve`: one supervisor process that starts, watches and stops everything the service is made of.

It owns VAR (a lock: one supervisor a folder), starts the embedded servers that no setting replaces, prepares the database,
then runs the API under granian, the Celery worker and beat as children. With the embedded database and no Firebase credentials
it also starts the rehearsal, where pushes end on a page instead of on phones. A dead child is started again; Ctrl-C, SIGTERM and
SIGHUP stop all of them in reverse order, and the kernel kills them when the supervisor itself is killed. While it runs,
VAR/run.json (0600) tells other commands the addresses and secrets.

Whatever keeps it from starting is one line that says what to do.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import pymongo
from pymongo.errors import PyMongoError

from api.auth import THREADS
from content import embedded, store
from content.embedded import CannotStart, Child
from content.failures import Failure
from content.settings import Settings

DISK_NEEDED = 500  # MB free: logs, the oplog of the embedded database and a few uploads
API_READY = 120.0  # seconds: while it lives it is slow, not dead
BACKOFF_FIRST, BACKOFF_MOST, HEALTHY = 0.5, 30.0, 60.0  # seconds; a child that ran HEALTHY begins at the first again
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(BaseException):
    """Someone asked us to stop; raised in the main thread wherever it is."""


def run(settings: Settings) -> None:
    """Run until told to stop. Raises `CannotStart` or `SettingsError`, each one line, when something keeps it from starting.
    Call from the main thread: signals arrive there, and the children live as long as it does."""
    children: list[Child] = []
    _asked.clear()
    # an ignored SIGHUP stays so (nohup); SIGINT is ignored in whatever a shell puts into the background, and must stop us
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    before = {n: signal.signal(n, _stopping) for n in STOPS if n != signal.SIGHUP or not nohup}
    try:
        with _alone(settings.var):
            try:
                _run(settings, children)
            finally:
                _stop(children)
                (settings.var / "run.json").unlink(missing_ok=True)
    except _Stopped:
        _say("已停止。Stopped.")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_asked = threading.Event()  # the exception can be lost: Python drops one that is raised inside a finalizer


def _stopping(number: int, frame: FrameType | None) -> None:
    _asked.set()
    for each in STOPS:
        signal.signal(each, signal.SIG_DFL)  # a second one ends us at once, and the kernel our children
    raise _Stopped


def _say(line: str) -> None:
    print(line, flush=True)


def _run(settings: Settings, children: list[Child]) -> None:
    _say(f"心桥正在启动，数据保存在 {settings.var}/  (Xinqiao is starting; all it keeps is in that folder)")
    _room(settings.var)
    if not embedded.free(settings.port, settings.host):
        raise CannotStart(f"Port {settings.port} of {settings.host} is taken. Stop what uses it, or set XINQIAO_PORT.")
    settings = _servers(settings, children)
    embedded.keep(settings.var / "run.json", json.dumps(settings.environment(), indent=1))
    password = _prepare(settings)
    try:
        begun = time.monotonic()
        for child in services(settings):
            children.append(child)
            embedded.start(child)
        for child in children:
            embedded.wait_ready(child, API_READY)
        _say(f"  接口 API ready in {time.monotonic() - begun:.1f} s")
    except BaseException:
        if password:  # it exists from here on, and nobody will say it again
            _say(f"  Staff account admin, one-time password {password}")
        raise
    _table(settings, password)
    _watch(children)


# -- before anything starts --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(var: Path) -> Iterator[None]:
    """Hold VAR/lock; it goes with the process, however that ends."""
    embedded.folder(var)
    with (var / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "?"
            raise CannotStart(
                f"The service already runs on {var} (process {who}). Stop that one, or set XINQIAO_VAR and XINQIAO_PORT."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _room(var: Path) -> None:
    have = shutil.disk_usage(var).free // 10**6
    if have < DISK_NEEDED:
        raise CannotStart(
            f"The disk of {var.resolve()} has {have} MB free and {DISK_NEEDED} MB are needed. Make room, or set XINQIAO_VAR."
        )


# -- starting ----------------------------------------------------------------------------------------------------------


def _servers(settings: Settings, children: list[Child]) -> Settings:
    """Start the embedded servers that no setting replaces; the settings with their addresses and secrets filled in."""
    var = settings.var.resolve()
    found: dict[str, str] = {}
    begun = time.monotonic()
    if not settings.mongodb_uri:
        child = embedded.mongo(var, (settings.database, f"{settings.database}_broker"))  # the second is Celery's
        children.append(child)
        embedded.start(child)
        found["mongodb_uri"] = embedded.mongo_uri(var)
        if rehearses(settings):
            found["fcm_url"], child = _rehearsal(settings, var)
            children.append(child)
            embedded.start(child)
    if not settings.s3_endpoint_url:
        child = embedded.s3(var, settings.s3_bucket)
        children.append(child)
        embedded.start(child)
        keys = embedded.credentials(var)
        found |= {"s3_endpoint_url": embedded.s3_url(var), "s3_region": "us-east-1"}
        found |= {"s3_access_key": keys["s3_access_key"], "s3_secret_key": keys["s3_secret_key"]}
    if not settings.data_key:
        found["data_key"] = embedded.credentials(var)["data_key"]
        if settings.mongodb_uri:
            _say(f"  注意 Note: XINQIAO_DATA_KEY is not set; what is encrypted needs {settings.var / 'secrets.json'}, keep it")
    if not settings.signing_key:
        found["signing_key"] = embedded.credentials(var)["signing_key"]
    for child in children:
        embedded.wait_ready(child)
    if children:
        _say(f"  数据库与媒体库 database and media store ready in {time.monotonic() - begun:.1f} s")
    return replace(settings, var=var, **found)  # type: ignore[arg-type]


def rehearses(settings: Settings) -> bool:
    """Whether pushes end on this machine: with nothing of production set, and nowhere else to send them."""
    return not (settings.mongodb_uri or settings.firebase_credentials or settings.fcm_url)


def _rehearsal(settings: Settings, var: Path) -> tuple[str, Child]:
    """The local FCM, and the address at which it takes pushes and shows them."""
    port, log = embedded.ports(var, ("fcm",))["fcm"], embedded.folder(var / "log")
    argv = [sys.executable, "-m", "notifications.rehearsal", "--port", str(port), "--zone", settings.zone]
    argv += ["--journal", str(log / "pushes.jsonl")]
    env = {k: v for k, v in os.environ.items() if k not in Settings.ENV}  # it needs no secret
    address = f"http://{embedded.HOST}:{port}"
    return address, Child("fcm", argv, log / "fcm.log", env, ready=lambda: embedded.answers(f"{address}/counts"))


def _prepare(settings: Settings) -> str | None:
    """Indexes, divisions, first admin, starter library. Returns the first admin's one-time password when it was made."""
    store.connect(settings)
    try:
        with pymongo.timeout(3):  # else the client's own 8 s: it overrides the time to find a server
            up = store.ping()
        if not up:
            raise CannotStart("The database of MONGODB_URI does not answer. Start it, or correct the address.")
        from api import bootstrap  # half a second of imports, while the embedded servers are up already

        return bootstrap.prepare(settings, lambda line: _say(f"  {line}"))
    except (Failure, PyMongoError) as error:
        raise CannotStart(f"The database could not be prepared: {error}") from error
    finally:
        store.disconnect()


def services(settings: Settings) -> list[Child]:
    """The API, the worker and beat as children. Settings reach them as environment, the first admin's password does not."""
    env = {k: v for k, v in os.environ.items() if k not in Settings.ENV}
    metrics = embedded.folder(settings.var / "metrics")  # named here, since prometheus_client reads it when it is imported
    env |= settings.environment() | {"PYTHONUNBUFFERED": "1", "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    logs = settings.var / "log"
    python = [sys.executable, "-m"]
    api = [*python, "granian", "--interface", "wsgi", "--factory", "--workers", str(settings.workers)]
    # without respawning one dead worker ends it all
    api += ["--blocking-threads", str(THREADS), "--respawn-failed-workers", "--host", settings.host, "--port", str(settings.port)]
    api += ["--no-ws", "--no-access-log", "api:create_wsgi"]
    celery = [*python, "celery", "-A", "notifications.worker:app"]
    worker = [*celery, "worker", "--pool", "threads", "-c", "4", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    beat = [*celery, "beat", "--schedule", str(settings.var / "beat"), "--pidfile=", "--loglevel", "WARNING"]
    ready = f"{_address(settings)}/readyz"
    return [
        Child("api", api, logs / "api.log", env, ready=lambda: embedded.answers(ready)),
        Child("worker", worker, logs / "worker.log", env),
        Child("beat", beat, logs / "beat.log", env),
    ]


def _address(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{settings.port}"


def _table(settings: Settings, password: str | None) -> None:
    address = _address(settings)
    if password:
        staff = f"admin   一次性密码 one-time password: {password}"
    elif settings.admin_password:
        staff = "admin   with XINQIAO_ADMIN_PASSWORD as it was at the first start"
    else:
        staff = "admin   密码同前 password as before (new one: xinqiao staff passwd admin)"
    _say("心桥已就绪 Xinqiao is ready")
    for name, value in (
        ("接口 API", f"{address}/v1"),
        ("文档 Docs", f"{address}/docs"),
        ("账号 Staff", staff),
        *([("推送预演 Push rehearsal", f"{settings.fcm_url}/")] if settings.fcm_url else []),
        ("日志 Logs", f"{settings.var / 'log'}/"),
    ):
        _say(f"  {name:<9} {value}")
    _say("按 Ctrl-C 停止 Ctrl-C stops everything; data is kept")


# -- watching and stopping ---------------------------------------------------------------------------------------------


@dataclass
class _Kept:
    """A child with its next restart: `due` is the moment it is started again, None while it runs."""

    child: Child
    since: float = field(default_factory=time.monotonic)
    delay: float = BACKOFF_FIRST
    due: float | None = None


def _watch(children: list[Child]) -> None:
    """Start dead children again, each after 0.5 s, 1 s, ... 30 s; one line each. Ends only by an exception."""
    kept = [_Kept(child) for child in children]
    while not _asked.is_set():
        for each in kept:
            now = time.monotonic()
            if each.due is None and not embedded.alive(each.child):
                code = each.child.process.returncode if each.child.process else None
                embedded.stop(each.child, 0)  # the rest of its group, or a new granian would share the port with old workers
                if now - each.since >= HEALTHY:
                    each.delay = BACKOFF_FIRST
                each.due = now + each.delay
                _say(f"{_clock()} {each.child.name} ended ({code}), starting again in {each.delay:g} s; {each.child.log}")
                each.delay = min(each.delay * 2, BACKOFF_MOST)
            elif each.due is not None and now >= each.due:
                embedded.start(each.child)
                each.since, each.due = now, None
        for each in kept:
            embedded.rotate(each.child)
        time.sleep(0.1)
    raise _Stopped


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _stop(children: list[Child]) -> None:
    """In reverse order, in two waves: what uses the servers, then the servers."""
    servers = [child for child in children if child.name in {"mongo", "s3", "fcm"}]
    embedded.stop_all([child for child in reversed(children) if child not in servers])
    embedded.stop_all(servers[::-1])

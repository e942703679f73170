"""The embedded servers: a MongoDB-wire server and an S3 server as child processes on loopback.

Used when `MONGODB_URI` or `S3_ENDPOINT_URL` is not set, by `xinqiao serve` and by the tests. Everything they keep is
under VAR: `mongo/` and `s3/` (data), `secrets.json` (credentials and the data key, mode 0600), `ports.json`, `log/`.
Both are pinned executables of the virtual environment and are never imported, so their licences stay theirs.

A child dies with the process that started it, kill -9 included (Linux): see `start`. The S3 server's inner ports answer
without credentials, so whoever has a shell on this machine can read media: production sets S3_ENDPOINT_URL.
"""

import base64
import contextlib
import ctypes
import errno
import hashlib
import json
import multiprocessing
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

HOST = "127.0.0.1"
LOG_LIMIT = 10 * 2**20  # bytes; a larger log becomes NAME.log.1
READY = 30.0  # seconds a server may take to answer; measured 0.3-1.0
STOP = 10.0  # seconds between asking a child to stop and killing it
USER = "xinqiao"
PR_SET_PDEATHSIG = 1

S3_PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip


class CannotStart(Exception):
    """Something here keeps the service from starting; the message is one line that says what and how to mend it."""


@dataclass
class Child:
    """One child process: how to start it, how to see that it answers, and the process once started."""

    name: str
    argv: list[str]
    log: Path
    env: Mapping[str, str] | None = None
    """Its whole environment; None: this process's."""
    ready: Callable[[], bool] = lambda: True
    """Whether it does its work now; must return within a few seconds and never raise."""
    cwd: Path | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)


# -- processes ---------------------------------------------------------------------------------------------------------

# Run by a bare interpreter (30 ms) that then becomes the child: `preexec_fn` would run Python between fork and exec, which
# can deadlock when other threads (pymongo's) hold a lock. The parent may be dead before prctl is called, hence getppid.
_BECOME = f"""
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; off Linux a no-op, and so is a second call.

    For what a child forks itself: a granian worker's parent is granian's main process, and without this it would go on
    serving the port alone. Strictly it is the parent's *thread* that must live: both start their children in the main one.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def start(child: Child) -> None:
    """Start it in a process group of its own, so that Ctrl-C reaches only the supervisor. Call from the main thread: the
    kernel kills the child when the *thread* that started it ends. Returns at once; `wait_ready` waits."""
    child.log.parent.mkdir(parents=True, exist_ok=True)
    rotate(child)
    with os.fdopen(os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        child.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *child.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child.env,
            cwd=child.cwd,
            start_new_session=True,
        )


def rotate(child: Child) -> None:
    """Put a log of more than `LOG_LIMIT` aside as NAME.log.1, also while it is written to: the child appends, so what is
    written between copying and emptying is lost and nothing else."""
    with contextlib.suppress(OSError):
        if child.log.stat().st_size > LOG_LIMIT:
            shutil.copy2(child.log, child.log.with_name(child.log.name + ".1"))
            os.truncate(child.log, 0)


def alive(child: Child) -> bool:
    """Whether its process runs."""
    return child.process is not None and child.process.poll() is None


def wait_ready(child: Child, seconds: float = READY) -> None:
    """Return once it is ready. Raises `CannotStart` with its last log lines when it dies or is not ready in time; it is
    then stopped."""
    end = time.monotonic() + seconds
    while alive(child):
        if child.ready():
            return
        if time.monotonic() > end:
            stop(child, 0)
            raise CannotStart(f"{child.name} did not answer within {seconds:g} s. {tail(child)}")
        time.sleep(0.03)
    stop(child, 0)
    raise CannotStart(f"{child.name} stopped while starting. {tail(child)}")


def stop(child: Child, seconds: float = STOP) -> None:
    """SIGTERM, and SIGKILL to its whole group after `seconds` (0: at once). Without a process a no-op."""
    stop_all([child], seconds)


def stop_all(children: Sequence[Child], seconds: float = STOP) -> None:
    """`stop` for several at once: asked in this order, and each given the same `seconds` together."""
    end = time.monotonic() + seconds
    for child in children:
        if seconds and alive(child) and child.process:
            child.process.terminate()
    for child in children:
        process, child.process = child.process, None
        if process is None:
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0, end - time.monotonic()))
        # also what it left behind: workers of a granian that was killed still hold the port
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(child: Child, lines: int = 3) -> str:
    """The last lines of its log in one, with the path: what an operator needs first."""
    try:
        with child.log.open("rb") as file:
            file.seek(max(0, child.log.stat().st_size - 4096))
            last = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        last = []
    errors = [line for line in last if re.match(r"[\w.]+(Error|Exception|CannotStart): ", line)]
    return f"Its log {child.log} ends: {' | '.join((errors or last)[-lines:]) or '(empty)'}"


def binary(name: str, instead: str) -> str:
    """Path of an executable of this virtual environment or of PATH. Raises `CannotStart` naming the setting to use instead."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        raise CannotStart(f"The program {name} is missing. Run `make run` again to install it, or set {instead}.")
    return found


# -- what is kept under VAR --------------------------------------------------------------------------------------------


def folder(path: Path) -> Path:
    """Make a folder only its owner may enter. Raises `CannotStart` when it cannot be written."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise CannotStart(
            f"The folder {path} cannot be written ({error.strerror}). Give this user the right to, or set XINQIAO_VAR."
        ) from None
    return path


def keep(path: Path, text: str) -> None:
    """Write a file of mode 0600 whole or not at all, also across a crash."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def credentials(var: Path) -> dict[str, str]:
    """The embedded run's own secrets: mongo_password, s3_access_key, s3_secret_key, data_key (96 bytes in base64), signing_key
    (32 bytes in base64; a folder that was made before there was one gets it now).

    Made at the first start, the same ever after. Raises `CannotStart` when the file is damaged, or gone while data that
    was written under it exists: new ones would make that data unreadable.
    """
    path = folder(var) / "secrets.json"
    try:
        kept = json.loads(path.read_text())
        if not all(isinstance(kept[k], str) for k in ("mongo_password", "s3_access_key", "s3_secret_key")):
            raise ValueError
        if len(base64.b64decode(kept["data_key"], validate=True)) != 96:
            raise ValueError
        if "signing_key" not in kept:
            kept["signing_key"] = _random(32)
            keep(path, json.dumps(kept, indent=1))
        if len(base64.b64decode(kept["signing_key"], validate=True)) != 32:
            raise ValueError
    except FileNotFoundError:
        if _marker(var).exists():
            raise CannotStart(
                f"{path} is gone, and {var / 'mongo'} can only be opened with it. Put it back from a backup, or move {var} away."
            ) from None
    except OSError as error:
        raise CannotStart(f"{path} cannot be read ({error.strerror}). Give this user the right to.") from None
    except (ValueError, KeyError, TypeError):
        raise CannotStart(f"{path} is damaged. Put it back from a backup, or move {var} away to begin anew.") from None
    else:
        return {str(k): str(v) for k, v in kept.items()}
    made = {
        "mongo_password": secrets.token_hex(24),
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": secrets.token_hex(24),
        "data_key": _random(96),
        "signing_key": _random(32),
    }
    keep(path, json.dumps(made, indent=1))
    return made


def _random(size: int) -> str:
    return base64.b64encode(secrets.token_bytes(size)).decode()


def free(port: int, host: str = HOST) -> bool:
    """Whether nobody listens on it. An exclusive bind: granian's own SO_REUSEPORT would sit beside another server."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError:
        raise CannotStart(f"{host!r} is no address of this machine. Correct XINQIAO_HOST, or unset it.") from None
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is nobody
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise CannotStart(f"{host!r} is no address of this machine. Correct XINQIAO_HOST, or unset it.") from None
            return False
    return True


def ports(var: Path, names: tuple[str, ...]) -> dict[str, int]:
    """A free port for each name, the one of last time where it still is free; kept in VAR/ports.json."""
    path = var / "ports.json"
    try:
        kept = {str(k): int(v) for k, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError):
        kept = {}  # nothing is lost: others are chosen

    def fits(name: str, port: int) -> bool:
        # the S3 server's admin part also listens on its port + 10000, whatever it is told
        return free(port) and (name != "admin.port" or free(port + 10000))

    for name in names:
        others = {v for k, v in kept.items() if k != name}
        port = kept.get(name, 0)
        while not 1024 <= port < 55536 or port in others or not fits(name, port):
            port = random.randrange(20000, 30000)  # noqa: S311  below the range the kernel gives to outgoing connections
        kept[name] = port
    keep(path, json.dumps(kept, indent=1))
    return {name: kept[name] for name in names}


# -- MongoDB -----------------------------------------------------------------------------------------------------------


def mongo_uri(var: Path) -> str:
    """Address of the embedded database, with its credentials and no database name."""
    port = ports_of(var)["mongo"]
    return f"mongodb://{USER}:{credentials(var)['mongo_password']}@{HOST}:{port}/?authSource=admin&directConnection=true"


def ports_of(var: Path) -> dict[str, int]:
    """The ports as chosen by the last start."""
    return {str(k): int(v) for k, v in json.loads((var / "ports.json").read_text()).items()}


def mongo(var: Path, databases: tuple[str, ...]) -> Child:
    """The MongoDB-wire server, not yet started; its one user may do everything inside `databases` and nothing elsewhere.

    The server has no localhost exception: at the first start it runs without authentication for a moment, the user is
    made, and it is stopped again. `mongo/xinqiao.ready` marks that this was finished, so a start cut in the middle is
    repeated. Raises `CannotStart`.
    """
    var = var.resolve()
    program = binary("secantusd-py", "MONGODB_URI")
    password = credentials(var)["mongo_password"]
    port = ports(var, ("mongo",))["mongo"]
    store = folder(var / "mongo")
    config = var / "mongo.toml"
    keep(config, "")  # an explicit empty file: without it one in the current folder or the home would be read
    log = var / "log" / "mongo.log"
    argv = [program, "--config", str(config), "--host", HOST, "--port", str(port), "--storage-path", str(store)]
    argv += ["--sync-on-commit"]  # without it kill -9 lost 5-12 % of the writes acknowledged just before
    done = hashlib.sha256("\n".join([password, *databases]).encode()).hexdigest()
    marker = _marker(var)
    if not marker.exists() or marker.read_text() != done:
        bare = f"mongodb://{HOST}:{port}/?directConnection=true"
        _make_user(Child("mongo", argv, log, ready=lambda: _pings(port, bare)), bare, password, databases, store)
        keep(marker, done)
    uri = mongo_uri(var)
    return Child("mongo", [*argv, "--auth"], log, ready=lambda: _pings(port, uri))


def _marker(var: Path) -> Path:
    return var / "mongo" / "xinqiao.ready"


def _make_user(child: Child, uri: str, password: str, databases: tuple[str, ...], store: Path) -> None:
    roles = [{"role": role, "db": name} for name in databases for role in ("readWrite", "dbAdmin")]
    client: MongoClient[dict[str, object]]
    try:
        start(child)
        try:
            wait_ready(child)
        except CannotStart:
            if _marker(store.parent).exists():
                raise
            # cut in the middle of the very first start: nothing of anyone is in there yet, but it is put aside all the same
            store.rename(store.with_name(f"mongo.broken-{int(time.time())}"))
            folder(store)
            start(child)
            wait_ready(child)
        with MongoClient(uri, serverSelectionTimeoutMS=2000, timeoutMS=8000) as client:
            try:
                client.admin.command("createUser", USER, pwd=password, roles=roles)
            except OperationFailure:  # made by a start that was cut
                client.admin.command("updateUser", USER, pwd=password, roles=roles)
    except PyMongoError as error:
        raise CannotStart(f"The embedded database could not be set up: {error}. {tail(child)}") from error
    finally:
        stop(child, 0)  # committed means synced; asking it to stop takes 2 s


def _pings(port: int, uri: str) -> bool:
    client: MongoClient[dict[str, object]]
    try:
        # the driver itself would wait half a second after an attempt that was too early
        socket.create_connection((HOST, port), 0.5).close()
        with MongoClient(uri, serverSelectionTimeoutMS=500, connectTimeoutMS=500, timeoutMS=1000) as client:
            client.admin.command("ping")
    except (OSError, PyMongoError):
        return False
    return True


# -- S3 ----------------------------------------------------------------------------------------------------------------


def s3_url(var: Path) -> str:
    """Address of the embedded S3."""
    return f"http://{HOST}:{ports_of(var)['s3.port']}"


def s3(var: Path, bucket: str) -> Child:
    """The S3 server, not yet started, with one identity and one bucket, which it makes itself. Raises `CannotStart`.

    Every port is given, or it clashes with a second one on the same machine.
    """
    var = var.resolve()
    program = binary("weed", "S3_ENDPOINT_URL")
    keys = credentials(var)
    chosen = ports(var, S3_PORTS)
    store, config = folder(var / "s3"), var / "s3.json"
    identity = {
        "name": USER,
        "credentials": [{"accessKey": keys["s3_access_key"], "secretKey": keys["s3_secret_key"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    keep(config, json.dumps({"identities": [identity]}))
    argv = [program, "-logtostderr=true", "mini", f"-dir={store}", f"-ip={HOST}", f"-ip.bind={HOST}", f"-bucket={bucket}"]
    argv += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
    argv += ["-master.telemetry=false", "-volume.preStopSeconds=0", *(f"-{name}={port}" for name, port in chosen.items())]
    argv += ["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"]  # relative to `cwd`: a socket's path is short
    bucket_url = f"http://{HOST}:{chosen['filer.port']}/buckets/{bucket}/"
    s3_status = f"http://{HOST}:{chosen['s3.port']}/status"
    return Child("s3", argv, var / "log" / "s3.log", ready=lambda: answers(s3_status) and answers(bucket_url), cwd=store)


def answers(url: str, status: int = 200) -> bool:
    """Whether a GET gives this status within 2 s."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  an address of our own
            return bool(answer.status == status)
    except HTTPError as error:
        error.close()
        return error.code == status
    except (URLError, OSError, ValueError):
        return False

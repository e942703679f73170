"""Starting, watching and stopping: the embedded servers by themselves, then the supervisor with everything it runs."""

import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from api import serve
from content import embedded
from content.embedded import CannotStart, Child
from content.settings import Settings
from notifications import fcm, outcomes
from tests.site import WITH_LIBRARY, library

DATABASES = ("xinqiao", "xinqiao_broker")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A VAR of the test's own."""
    return tmp_path / "var"


@pytest.fixture
def up() -> Iterator[Callable[[Child], Child]]:
    """Start a child and wait for it; all are killed at the end."""
    children: list[Child] = []

    def begin(child: Child) -> Child:
        children.append(child)
        embedded.start(child)
        embedded.wait_ready(child)
        return child

    yield begin
    for child in children:
        embedded.stop(child, 5 if child.name == "s3" else 0)  # killed, it leaves sockets in the temp folder


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def client(uri: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(uri, serverSelectionTimeoutMS=3000, w="majority", journal=True)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


# -- the database ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_database_comes_back_on_its_port_with_every_acknowledged_write(home: Path, up: Any) -> None:
    first = up(embedded.mongo(home, DATABASES))
    uri = embedded.mongo_uri(home)
    acknowledged: list[int] = []

    def write() -> None:
        with client(uri + "&timeoutMS=500") as db:
            for number in range(100_000):
                try:
                    db["xinqiao"]["acks"].insert_one({"_id": number})
                except PyMongoError:
                    return
                acknowledged.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    until(lambda: len(acknowledged) > 200)
    os.kill(first.process.pid, signal.SIGKILL)
    writer.join()

    up(embedded.mongo(home, DATABASES))
    assert embedded.mongo_uri(home) == uri
    with client(uri) as db:
        kept = {row["_id"] for row in db["xinqiao"]["acks"].find()}
    assert set(acknowledged) <= kept


def test_the_database_asks_who_is_there_and_keeps_its_user_to_two_databases(home: Path, up: Any) -> None:
    up(embedded.mongo(home, DATABASES))
    with client(embedded.mongo_uri(home)) as db:
        db["xinqiao"].create_collection("a", validator={"$jsonSchema": {"bsonType": "object"}})
        db["xinqiao"]["a"].create_index("x")
        db["xinqiao"].command("collMod", "a", validator={})
        with db.start_session() as session:
            session.with_transaction(lambda s: db["xinqiao"]["a"].insert_one({"x": 1}, session=s))
        db["xinqiao_broker"]["q"].insert_one({})
        db.drop_database("xinqiao")
        with pytest.raises(OperationFailure):
            db["elsewhere"]["a"].insert_one({})
    nobody = f"mongodb://127.0.0.1:{embedded.ports_of(home)['mongo']}/?directConnection=true"
    with client(nobody) as db, pytest.raises(OperationFailure):
        db["xinqiao"]["a"].find_one()


@pytest.mark.parametrize("seconds", [0.15, pytest.param(1.2, marks=pytest.mark.slow)])
def test_a_first_start_cut_in_the_middle_is_mended_by_the_next(home: Path, up: Any, seconds: float) -> None:
    code = f"from pathlib import Path; from content import embedded; embedded.mongo(Path({str(home)!r}), {DATABASES!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: (home / "log" / "mongo.log").exists())
    time.sleep(seconds)
    process.kill()
    process.wait()
    up(embedded.mongo(home, DATABASES))
    with client(embedded.mongo_uri(home)) as db:
        db["xinqiao"]["a"].insert_one({})


@pytest.mark.slow
def test_half_made_files_of_a_first_start_are_put_aside(home: Path, up: Any) -> None:
    (home / "mongo").mkdir(parents=True)
    for name in ("WiredTiger", "WiredTiger.turtle", "WiredTiger.wt"):
        (home / "mongo" / name).write_bytes(b"\0" * 100)
    up(embedded.mongo(home, DATABASES))
    assert list(home.glob("mongo.broken-*"))


def test_damaged_data_is_one_line_and_is_left_alone(home: Path, up: Any) -> None:
    embedded.stop(up(embedded.mongo(home, DATABASES)), 0)
    for file in (home / "mongo").glob("WiredTiger*"):
        file.write_bytes(b"\0" * 100)
    with pytest.raises(CannotStart, match="mongo stopped while starting") as caught:
        up(embedded.mongo(home, DATABASES))
    one_line(caught.value)
    assert not list(home.glob("mongo.broken-*"))


# -- S3 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_s3_keeps_its_objects_across_a_kill_and_new_ports(home: Path, up: Any) -> None:
    def bucket() -> Any:
        keys = embedded.credentials(home)
        return boto3.client(
            "s3",
            endpoint_url=embedded.s3_url(home),
            aws_access_key_id=keys["s3_access_key"],
            aws_secret_access_key=keys["s3_secret_key"],
            region_name="us-east-1",
        )

    child = up(embedded.s3(home, "xinqiao"))
    bucket().put_object(Bucket="xinqiao", Key="media/a", Body=b"one")
    os.kill(child.process.pid, signal.SIGKILL)
    embedded.stop(child, 0)
    child = up(embedded.s3(home, "xinqiao"))
    assert bucket().get_object(Bucket="xinqiao", Key="media/a")["Body"].read() == b"one"
    embedded.stop(child)

    with socket.create_server(("127.0.0.1", embedded.ports_of(home)["s3.port"])):  # someone else has it now
        up(embedded.s3(home, "xinqiao"))
        assert bucket().get_object(Bucket="xinqiao", Key="media/a")["Body"].read() == b"one"


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_secrets_are_private_and_stay_the_same(home: Path) -> None:
    made = embedded.credentials(home)
    assert embedded.credentials(home) == made
    assert (home / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mongo_password": 1}', '{"mongo_password": "a", "s3_access_key": "b"}'])
def test_damaged_secrets_are_one_line(home: Path, text: str) -> None:
    embedded.credentials(home)
    (home / "secrets.json").write_text(text)
    with pytest.raises(CannotStart, match="secrets.json is damaged") as caught:
        serve.run(Settings(var=home, port=free_port()))
    one_line(caught.value)


def test_secrets_are_not_made_anew_over_data_that_needs_them(home: Path) -> None:
    embedded.mongo(home, DATABASES)
    (home / "secrets.json").unlink()
    with pytest.raises(CannotStart, match="secrets.json is gone"):
        embedded.mongo(home, DATABASES)


def test_damaged_ports_are_chosen_anew(home: Path) -> None:
    embedded.folder(home)
    (home / "ports.json").write_text('{"a": 30')
    chosen = embedded.ports(home, ("a", "b"))
    assert embedded.ports(home, ("a", "b")) == chosen
    assert len(set(chosen.values())) == 2


def test_a_long_log_is_put_aside_at_the_next_start(home: Path, up: Any) -> None:
    log = embedded.folder(home) / "echo.log"
    log.write_bytes(b"x" * (embedded.LOG_LIMIT + 1))
    child = Child("echo", ["/bin/sh", "-c", "echo hello; sleep 60"], log, ready=lambda: b"hello" in log.read_bytes())
    up(child)
    assert log.read_bytes() == b"hello\n"
    assert (home / "echo.log.1").stat().st_size > embedded.LOG_LIMIT


# -- what keeps the service from starting ------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_taken_port_is_one_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotStart, match="is taken") as caught:
        serve.run(Settings(var=home, port=taken.getsockname()[1]))
    assert "XINQIAO_PORT" in one_line(caught.value)


def test_a_full_disk_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**7, 10**7))
    with pytest.raises(CannotStart, match="10 MB free and 500 MB are needed") as caught:
        serve.run(Settings(var=home, port=free_port()))
    assert str(home) in one_line(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for var in (tmp_path / "file", tmp_path / "file" / "var", Path("/proc/xinqiao")):
        with pytest.raises(CannotStart, match="cannot be written") as caught:
            serve.run(Settings(var=var, port=free_port()))
        assert "XINQIAO_VAR" in one_line(caught.value)


def test_a_missing_program_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match="secantusd-py is missing") as caught:
        serve.run(Settings(var=home, port=free_port()))
    assert "make run" in one_line(caught.value)


def test_a_database_that_does_not_answer_is_one_line(home: Path) -> None:
    settings = Settings(
        var=home, port=free_port(), mongodb_uri=f"mongodb://127.0.0.1:{free_port()}", s3_endpoint_url="http://127.0.0.1:1",
        s3_access_key="a", s3_secret_key="b",
    )  # fmt: skip
    with pytest.raises(CannotStart, match="does not answer") as caught:
        serve.run(settings)
    one_line(caught.value)


# -- the supervisor ----------------------------------------------------------------------------------------------------


class Service:
    """`xinqiao serve` in a process of its own on `var` and `port`."""

    def __init__(self, var: Path, port: int, content: Path | None) -> None:
        self.var, self.port, self.out = var, port, var.parent / f"out-{time.monotonic_ns()}"
        argv = [str(Path(sys.executable).parent / "xinqiao"), "serve"]
        if content:
            argv[:1] = [sys.executable, "-c", WITH_LIBRARY, str(content)]
        env = {k: v for k, v in os.environ.items() if k not in Settings.ENV}
        env |= {"XINQIAO_VAR": str(var), "XINQIAO_PORT": str(port)}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(argv, env=env, stdout=out, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self.out.read_text()

    def ready(self) -> "Service":
        until(lambda: "Xinqiao is ready" in self.said() or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.said()
        return self

    def answers(self) -> bool:
        return embedded.answers(f"http://127.0.0.1:{self.port}/readyz")

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, word: str) -> psutil.Process | None:
        for one in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if any(word in part for part in one.cmdline()):
                    return one
        return None


@pytest.fixture
def service(home: Path) -> Iterator[Callable[..., Service]]:
    """Start the service on `home`, again and again on the same port; with `content` as the library of a first start."""
    port, begun = free_port(), []

    def begin(content: Path | None = None) -> Service:
        begun.append(Service(home, port, content))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.slow  # the tour of the README and the story start a service too
def test_the_service_from_its_first_start_to_its_last(home: Path, service: Callable[..., Service], tmp_path: Path) -> None:
    # a first start (the tour of the README makes one with all the content): everything runs, commands in another shell find it
    first = service(library(tmp_path / "content", "lessons/name-the-feeling.md")).ready()
    assert first.answers()
    assert first.said().count("one-time password") == 1
    assert (home / "run.json").stat().st_mode & 0o777 == 0o600
    found = Settings.from_env({"XINQIAO_VAR": str(home)})
    assert found.port == first.port
    with client(found.mongodb_uri) as db:
        db["xinqiao"]["kept"].insert_one({"_id": "a"})

    # without Firebase credentials pushes end on a page of its own
    assert f"推送预演 Push rehearsal {found.fcm_url}/" in first.said()
    assert isinstance(fcm.send(fcm.Message("n1", "d150603.parent.all.zh-Hans", "心桥", "…", 60), found), outcomes.Sent)
    assert "d150603.parent.all.zh-Hans" in (home / "log" / "pushes.jsonl").read_text()

    # a second one beside it says so
    second = service()
    assert second.process.wait(60) != 0
    assert f"already runs on {home} (process {first.process.pid})" in second.said()
    assert len(second.said().strip().splitlines()) == 1
    assert first.answers()

    # killed children are started again, the database on its port with its data, granian without its old workers
    for word in ("secantusd", "granian", "notifications.rehearsal"):
        child = until(functools.partial(first.child, word))
        before = child.children(recursive=True)
        child.kill()
        until(functools.partial(gone, [child, *before]))
        until(functools.partial(first.child, word))
    until(first.answers)
    until(lambda: embedded.answers(f"{found.fcm_url}/"))
    assert first.said().count("starting again in") == 3
    with client(found.mongodb_uri) as db:
        assert db["xinqiao"]["kept"].find_one({"_id": "a"})

    # the supervisor is killed: nothing stays behind
    family = first.family()
    assert len(family) >= 8  # mongo, s3, the rehearsal, granian and its two workers, the Celery worker, beat
    first.process.kill()
    first.process.wait()
    until(lambda: gone(family))
    assert (home / "run.json").exists()

    # it starts again as if nothing had been, and the password is not told again
    third = service().ready()
    assert third.answers()
    assert "one-time" not in third.said()
    again = Settings.from_env({"XINQIAO_VAR": str(home)})
    assert again.mongodb_uri == found.mongodb_uri
    with client(again.mongodb_uri) as db:
        assert db["xinqiao"]["kept"].find_one({"_id": "a"})

    # Ctrl-C stops it in good order
    family = third.family()
    third.process.send_signal(signal.SIGINT)
    assert third.process.wait(60) == 0
    assert gone(family)
    assert not (home / "run.json").exists()
    assert third.said().endswith("Stopped.\n")


def test_pushes_end_here_only_while_nothing_else_is_set() -> None:
    assert serve.rehearses(Settings())
    for other in (Settings(mongodb_uri="set"), Settings(firebase_credentials="set"), Settings(fcm_url="set")):
        assert not serve.rehearses(other)


def test_a_start_that_is_stopped_early_leaves_nothing(home: Path, service: Callable[..., Service]) -> None:
    one = service()
    until(lambda: (home / "log" / "mongo.log").exists())
    family = one.family()
    one.process.terminate()
    assert one.process.wait(60) == 0, one.said()
    until(lambda: gone(family))


def test_what_a_killed_supervisor_wrote_is_not_taken_for_settings(home: Path) -> None:
    embedded.folder(home)
    dead = Settings(var=home, port=8123, mongodb_uri="mongodb://127.0.0.1:1", data_key="")
    embedded.keep(home / "run.json", json.dumps(dead.environment()))
    lock = home / "lock"
    assert Settings.from_env({"XINQIAO_VAR": str(home)}) == Settings(var=home)
    with lock.open("w") as held:
        assert Settings.from_env({"XINQIAO_VAR": str(home)}) == Settings(var=home)
        fcntl.flock(held, fcntl.LOCK_EX)  # a supervisor lives
        assert Settings.from_env({"XINQIAO_VAR": str(home)}) == dead

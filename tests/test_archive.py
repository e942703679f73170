"""The round trip: out of one store, through a folder, into an empty one, the same by hash; and what is damaged stays out."""

import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from api import bootstrap, guard
from api.cli import cli  # which imports every collection too
from content import (
    archive,
    checkfiles,
    courses,
    coveragetargets,
    demands,
    directory,
    directoryfiles,
    lecturers,
    lessons,
    media,
    objects,
    paths,
    publishing,
    registrations,
    sealed,
    sessions,
    staff,
    store,
)
from content import archivefiles as files
from content.failures import Conflict, Invalid
from content.lessons import Lesson
from content.published import Counter, PublishedRow, Reader, canonical
from content.records import SYSTEM, Audit
from content.settings import Settings
from content.sync import CARD
from notifications import seasons, templates
from tests.site import library, serving
from tests.test_courses import SERIES, federation, published_session, session_values
from tests.test_media import picture

ROOT = Path(__file__).parents[1]
LIBRARY = bootstrap.LIBRARY
PHONE, FAMILY, LINK = "13800138000", "欧阳", "https://meet.example/secret-room"
MONGOLIAN = "ᠪᠠᠶᠠᠷ\u202fᠤᠨ ᠡᠳᠦᠷ᠃ ᠬᠠ\u180eᠠ ᠨᠢᠭᠡ\u180bᠨ"
FACTS: dict[str, Any] = {
    "audiences": ["parent", "student"], "stages": ["junior.final"], "topics": ["emotion"], "kind": "tip", "seasons": ["gaokao"],
    "divisions": ["150603"], "sources": [{"title": "本项目"}],
}  # fmt: skip
ASK = {"question": "做了吗？", "did": "真好。", "partly": "也好。", "not_yet": "明天再试。"}
READERS = ("zh-CN", "en", "mn-Mong", "mn-Cyrl")


def text(title: str, body: str) -> dict[str, Any]:
    return {"title": title, "summary": title, "body": body, "try_this": "今晚问一句。", "check_in": ASK}


@dataclass(frozen=True)
class Made:
    """The first store's archive, and what its readers got."""

    folder: Path
    answers: dict[str, tuple[int, str | None, bytes]]
    counts: dict[str, int]
    other: Settings
    """A second database and a second bucket."""


def answers(settings: Settings, sha256: str) -> dict[str, tuple[int, str | None, bytes]]:
    """Status, ETag and body of what readers ask for, by address and language."""
    session = PublishedRow.rows().find_one({"kind": "session"}) or {}
    places = [
        "/v1/lessons?limit=50", "/v1/lessons/exam-week", "/v1/lessons/exam-week?audience=student", "/v1/lecturers",
        "/v1/lessons/gone", "/v1/lessons/later", "/v1/checks", "/v1/checks/sleep-habits", "/v1/paths", "/v1/paths/calm",
        "/v1/courses", "/v1/services?division=150603", f"/v1/sessions/{session.get('key')}", f"/v1/media/{sha256}",
        "/v1/seasons?on=2027-06-07",
    ]  # fmt: skip
    guard.reset_limits()
    with serving(settings) as site:
        site.refresh()
        got = {}
        for place in places:
            for language in READERS:
                reply = site.get(place, headers={"Accept-Language": language})
                found = reply.status_code == 200  # an error names its request
                got[f"{place} {language}"] = (reply.status_code, reply.headers.get("ETag"), reply.content if found else b"")
        return got


def release(key: str, language: str, author: str, second: str) -> None:
    publishing.submit(Lesson, key, language, author)
    publishing.approve(Lesson, key, language, second)
    publishing.publish(Lesson, key, language, second)


def build(settings: Settings, folder: Path) -> str:
    """A store with one of everything; returns the hash of its picture."""
    small = library(folder, "checks/sleep-habits.json", "checks/sleep-habits.yaml")
    services = json.loads((LIBRARY / "directory.json").read_text(encoding="utf-8"))[:2]
    (small / "directory.json").write_text(json.dumps(services))
    sealed.configure(settings)
    author, second = (staff.create_account(n, n, "a long enough one", SYSTEM, grants=[]).id for n in ("author", "second"))
    office = federation()
    data = picture("PNG", (900, 600))
    form = media.begin_upload(
        settings, "image/png", len(data), author, title="校门", alt={"zh-Hans": "校门"}, organisation=office
    )
    requests.post(form["url"], data=form["fields"], files={"file": data}, timeout=10).raise_for_status()
    sha256 = str(media.accept(settings, form["id"], author).sha256)
    media.begin_upload(settings, "image/png", 10, author)  # on its way: stays behind
    texts = {
        "zh-Hans": text("考前一周", f"先听。\n\n![校门](media:{sha256})"), "en": text("The week before", "Listen first."),
        "mn-Mong": text(MONGOLIAN[:20], MONGOLIAN), "mn-Cyrl": text("Шалгалтын өмнөх", "Эхлээд сонс."),
        "zh-Hans-x-student": text("给自己一周", "慢慢来。"),
    }  # fmt: skip
    exam = lessons.create("exam-week", FACTS, texts, author, office)
    for language in texts:
        release(exam.id, language, author, second)
    first = publishing.versions(Lesson, "exam-week", "zh-Hans")[0].id
    lessons.edit(exam.id, author, {}, {"zh-Hans": {"body": "第二版。"}})
    release(exam.id, "zh-Hans", author, second)
    publishing.roll_back(Lesson, exam.id, "zh-Hans", first, second)
    lessons.edit(exam.id, author, {}, {"en": {"body": "A draft that nobody has seen."}})
    gone = lessons.create("gone", FACTS, {"zh-Hans": text("撤回", "撤回。")}, author)
    release(gone.id, "zh-Hans", author, second)
    publishing.withdraw(Lesson, gone.id, "zh-Hans", second)
    later = lessons.create("later", FACTS, {"zh-Hans": text("以后", "以后。")}, author)
    publishing.submit(Lesson, later.id, "zh-Hans", author)
    publishing.approve(Lesson, later.id, "zh-Hans", second)
    publishing.publish(Lesson, later.id, "zh-Hans", second, at=store.now() + timedelta(days=30))
    checkfiles.load_library(small, settings)
    facts = {k: v for k, v in FACTS.items() if k in paths.FACTS} | {
        "pace": {"unit": "day", "from": "start"}, "steps": [{"lesson": "exam-week", "at": 0}, {"lesson": "gone", "at": 1}],
    }  # fmt: skip
    path = paths.create("calm", facts, {"zh-Hans": {"title": "稳住", "summary": "两天"}}, author)
    for verb, by in ((publishing.submit, author), (publishing.approve, second), (publishing.publish, second)):
        verb(paths.Path, path.id, "zh-Hans", by)
    directoryfiles.import_file(small / "directory.json", author)
    for raw in list(directory.Service.rows().find({}, {"_id": 1})):
        directory.publish(raw["_id"], second)
    session = published_session(online_link=LINK)
    registrations.book(settings, registrations.Wish(2, FAMILY, PHONE, session))
    asked(settings, office)
    seasons.confirm("150603", "gaokao", date(2027, 6, 7), date(2027, 6, 8), second)
    words = {"texts": {"zh-Hans": {"title": "小提醒", "body": "还有{days}天。"}}, "lessons": ["exam-week"]}
    templates.save("150603", "gaokao", -7, "parent", words, author, settings)
    templates.save("150603", "gaokao", -7, "parent", {**words, "done_when": {"kind": "read"}}, author, settings, 1)
    known = {
        "name": {"zh-Hans": "巴特尔"}, "field": {"zh-Hans": "亲子沟通"}, "profile": {"zh-Hans": "从教三十年"}, "kind": "expert",
        "organisation": office, "division": "150603", "paired_schools": [office],
    }  # fmt: skip
    expert = lecturers.create(known, author)
    lecturers.put_contact(expert.id, PHONE, author)
    lecturers.publish(expert.id, second)
    lecturers.edit(expert.id, {"topics": ["emotion"]}, author)
    asks = {"station_sessions": 1, "school_trainings": 1, "mental_share": 60, "term_class_hours": 10, "weeks_per_class": 0}
    coveragetargets.set_target("150603", 2026, asks, author)
    closed = courses.create_series({**SERIES, "visibility": "invited", "materials": [f"media:{sha256}"]}, author)
    courses.publish_series(closed.id, author, second_person=False)
    guests = sessions.create_session(closed.id, session_values(), author)
    sessions.publish_session(guests.id, author)
    return sha256


def asked(settings: Settings, office: str) -> None:
    """A demand that was answered, one that was withdrawn, a draft, and a task."""
    values = {"organisation": office, "division": "150603", "topic": "gaming", "month": f"{store.now().year + 1}-05"}
    texts = {"zh-Hans": "家长想学怎样谈手机"}
    keys = [demands.create(demands.Demand, {**values, "why": texts}, "ann").id for _ in range(3)]
    for key in keys[1:]:
        demands.move(demands.Demand, key, "publish", "ann", settings)
    demands.answer(keys[1], {"month": values["month"], "provider": office, "note": {"zh-Hans": "六月来讲"}}, "bob", settings)
    demands.move(demands.Demand, keys[2], "withdraw", "ann", settings)
    task = demands.create(demands.Task, {**values, "what": {"zh-Hans": "百场讲座"}}, "ann")
    demands.move(demands.Task, task.id, "publish", "ann", settings)


def wiped(settings: Settings) -> None:
    """Connected to an empty database with all its collections, with an empty bucket."""
    store.connect(settings)
    store.ensure_indexes()
    for name in store.database().list_collection_names():
        store.database()[name].delete_many({})
    objects.ensure_bucket(settings)
    for row in list(objects.listing(settings, "")):
        objects.delete(settings, row.key)


@pytest.fixture(scope="module")
def made(settings: Settings, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Built once; each test goes to the second store."""
    folder = tmp_path_factory.mktemp("out") / "archive"
    wiped(settings)
    sha256 = build(settings, folder.parent / "starter")
    got = answers(settings, sha256)
    counts = archive.export(settings, folder)
    # the embedded server's user may go to one more database
    yield Made(
        folder, got, counts, replace(settings, database=f"{database}_broker", s3_bucket="xinqiao-second", broker_url="memory://")
    )
    store.disconnect()


@pytest.fixture
def second(made: Made) -> Iterator[Settings]:
    """The second store, empty."""
    wiped(made.other)
    yield made.other
    store.disconnect()


def contents(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    manifest = json.loads(found[files.MANIFEST])
    datetime.fromisoformat(manifest.pop("made_at"))
    return found | {files.MANIFEST: json.dumps(manifest).encode()}


def everything() -> dict[str, Any]:
    """All that the present store holds."""
    return {cls._get_collection_name(): list(cls.rows().find().sort("_id", 1)) for cls in store.collections()}


# --- there and back --------------------------------------------------------------------------------------------------


def test_every_collection_is_carried_or_left_for_a_reason(made: Made) -> None:
    for path in (path for room in ("content", "notifications", "api") for path in (ROOT / room).glob("*.py")):
        importlib.import_module(f"{path.parent.name}.{path.stem}")
    names = {cls._get_collection_name() for cls in store.collections() if cls.__module__.split(".")[0] != "tests"}
    assert names == archive.CARRIED.keys() | archive.LEFT.keys()
    assert not archive.CARRIED.keys() & archive.LEFT.keys()
    assert set(made.counts) >= archive.CARRIED.keys() and all(made.counts[name] for name in archive.CARRIED)
    sources = "".join(path.read_text() for room in ("content", "notifications") for path in (ROOT / room).glob("*.py"))
    kinds = set(re.findall(r'\bItem\(\s*(?:kind\()?"(\w+)"', sources)) | {
        cls.NAME for _, cls in archive.carried() if hasattr(cls, "content_of")
    }
    stored = {"lesson", "check", "path", "media", "service", "series", "session", "season", "lecturer", "demand", "task"}
    assert kinds == stored | {*archive.KINDS_LEFT, CARD.kind}  # the last of which is never released


def test_the_second_store_is_the_first_by_hash(made: Made, second: Settings, tmp_path: Path) -> None:
    before = {raw["_id"]: raw for raw in map(json.loads, (made.folder / "records/versions.jsonl").read_text().splitlines())}
    steps: list[tuple[str, int, int]] = []
    assert archive.load(second, made.folder) == (made.counts, "new")
    assert {raw["_id"] for raw in publishing.Version.rows().find()} == before.keys() and len(before) == 9
    [picture] = media.Media.rows().find()
    assert answers(second, picture["sha256"]) == made.answers
    assert {status for status, _, _ in made.answers.values()} == {200, 404}
    for sha256 in media.Media.of(picture).files():
        assert hashlib.sha256(b"".join(objects.get(second, f"media/{sha256}"))).hexdigest() == sha256
    assert len(media.Media.of(picture).files()) == 2
    stands = lessons.by_slug("exam-week").stands
    assert {language: (s.state, s.number) for language, s in stands.items()} == {
        "zh-Hans": ("published", 2), "en": ("draft", 1), "mn-Mong": ("published", 1), "mn-Cyrl": ("published", 1),
        "zh-Hans-x-student": ("published", 1),
    }  # fmt: skip
    assert lessons.by_slug("later").stands["zh-Hans"].publish_at > store.now()
    assert lessons.by_slug("exam-week").texts["mn-Mong"].body == MONGOLIAN
    assert json.loads(made.answers["/v1/lessons/exam-week mn-Mong"][2])["body"] == MONGOLIAN

    archive.export(second, tmp_path / "again", lambda *step: steps.append(step))
    assert contents(tmp_path / "again") == contents(made.folder)
    archive.export(second, tmp_path / "again")  # in place of the last
    assert contents(tmp_path / "again") == contents(made.folder)
    assert {step[0] for step in steps} == {"records", "media", "look through"} and all(0 <= done <= of for _, done, of in steps)
    assert not [path for path in tmp_path.iterdir() if path.name != "again"]

    assert archive.load(second, made.folder).state == "done"
    with pytest.raises(Conflict) as refused:
        archive.load(second, changed(made.folder, tmp_path, lambda manifest: manifest | {"sequence": manifest["sequence"] + 1}))
    assert refused.value.code == "archive_store" and "lessons" in str(refused.value)


def test_phones_of_the_first_store_start_over(made: Made, second: Settings) -> None:
    archive.load(second, made.folder)
    one, two = Counter.rows().find_one({"_id": "published"}), json.loads((made.folder / files.MANIFEST).read_bytes())
    assert one and one["value"] == two["sequence"] and len(one["epoch"]) == 16
    assert one["epoch"] not in (made.folder / files.MANIFEST).read_text()


def test_nothing_personal_leaves(made: Made) -> None:
    whole = b"".join(contents(made.folder).values())
    for secret in (PHONE, FAMILY, LINK, "argon2", "a long enough one", '"author"', "assured_by"):
        assert secret.encode() not in whole, secret
    found = [json.loads(row) for row in (made.folder / "records/course_sessions.jsonl").read_text().splitlines()]
    assert sorted(one["seats_taken"]["$numberInt"] for one in found) == ["0", "2"]
    assert not any("online_link" in one for one in found)
    for path in made.folder.rglob("*"):
        assert path.stat().st_uid == os.getuid()
    assert made.folder.stat().st_mode & 0o077 == 0


def test_lessons_lie_there_for_people(made: Made) -> None:
    assert MONGOLIAN in (made.folder / "lessons/exam-week.mn-Mong.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in (made.folder / "lessons").iterdir()) == [
        "exam-week.en.md", "exam-week.mn-Cyrl.md", "exam-week.mn-Mong.md", "exam-week.zh-Hans-x-student.md",
        "exam-week.zh-Hans.md", "gone.zh-Hans.md", "later.zh-Hans.md",
    ]  # fmt: skip


# --- into the folder -------------------------------------------------------------------------------------------------


def test_an_export_takes_no_folder_of_anyone_else(made: Made, second: Settings, tmp_path: Path) -> None:
    for name, make in {
        "full": lambda path: (path.mkdir(), (path / "letter.txt").write_text("mine")),
        "file": lambda path: path.write_text("mine"),
        "ours with a letter": lambda path: (shutil.copytree(made.folder, path), (path / "letter.txt").write_text("mine")),
    }.items():
        make(tmp_path / name)  # type: ignore[no-untyped-call]
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        with pytest.raises(Conflict) as refused:
            archive.export(second, tmp_path / name)
        assert refused.value.code == "archive_folder"
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    archive.export(second, tmp_path / "empty")
    assert sum(archive.verify(tmp_path / "empty").counts.values()) == 0


def test_a_cut_export_leaves_what_was_there(made: Made, second: Settings, tmp_path: Path) -> None:
    shutil.copytree(made.folder, tmp_path / "kept")
    before = contents(tmp_path / "kept")

    def cut(step: str, done: int, total: int) -> None:
        if step == "look through":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.export(second, tmp_path / "kept", cut)
    assert contents(tmp_path / "kept") == before and len(list(tmp_path.iterdir())) == 1
    # killed between the two renamings: what was there comes back before anything else
    shutil.copytree(tmp_path / "kept", tmp_path / ".kept.xinqiao-part")
    (tmp_path / "kept").rename(tmp_path / ".kept.xinqiao-old")
    with pytest.raises(KeyboardInterrupt):
        archive.export(second, tmp_path / "kept", cut)
    assert contents(tmp_path / "kept") == before and len(list(tmp_path.iterdir())) == 1
    with files.beside(tmp_path / "kept"), pytest.raises(Conflict) as twice:
        archive.export(second, tmp_path / "kept")
    assert twice.value.code == "archive_folder"


def test_a_store_that_is_being_written_to_is_read_again(second: Settings, tmp_path: Path) -> None:
    times = 0

    def write(step: str, done: int, total: int) -> None:
        nonlocal times
        if step == "records" and done == 3 and times < 2:
            times += 1
            lessons.create(f"new{times + 20}", FACTS, {"zh-Hans": text("新", "新。")}, SYSTEM)

    assert archive.export(second, tmp_path / "a", write)["lessons"] == 2
    times = -10
    with pytest.raises(Conflict) as busy:
        archive.export(second, tmp_path / "b", write)
    assert busy.value.code == "archive_busy" and not (tmp_path / "b").exists()


# --- what is damaged -------------------------------------------------------------------------------------------------


def changed(folder: Path, tmp: Path, change: Callable[[dict[str, Any]], Any], name: str = "changed") -> Path:
    """A copy whose manifest was changed and is right again in itself."""
    copy = tmp / name
    if not copy.exists():
        shutil.copytree(folder, copy)
    manifest = json.loads((copy / files.MANIFEST).read_text())
    value = change(manifest) or manifest
    entries = {
        path.relative_to(copy).as_posix(): files.Entry(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in copy.rglob("*")
        if path.is_file() and path.name != files.MANIFEST
    }
    counts = {k: len((copy / files.record(k)).read_bytes().splitlines()) for k in value["collections"]}
    made = files.Manifest(value["made_at"], value["project"], value["sequence"], counts, entries, value["signing_key"])
    (copy / files.MANIFEST).write_text(made.text(), encoding="utf-8")
    return copy


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_copy_is_refused_by_name_and_nothing_is_written(made: Made, second: Settings, tmp_path: Path) -> None:
    """A flipped bit in each kind of file, one missing, one too many, a link, a device's stand-in."""
    before = everything()
    [sha256, *_] = sorted(path.name for path in (made.folder / "media").iterdir())
    damages: list[tuple[str, Callable[[Path], object]]] = [
        *((name, flipped) for name in ("manifest.json", f"media/{sha256}", "lessons/gone.zh-Hans.md")),
        *((f"records/{name}.jsonl", flipped) for name in archive.CARRIED),
        ("records/lessons.jsonl", lambda path: path.unlink()),
        (f"media/{sha256}", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("letter.txt", lambda path: path.write_text("x")),
        ("media/" + "0" * 64, lambda path: path.symlink_to("/etc/passwd")),
        ("lessons/deep", lambda path: path.mkdir()),
        ("records/fifo.jsonl", os.mkfifo),
        ("manifest.json", lambda path: path.unlink()),
        ("manifest.json", lambda path: (path.rename(tmp_path / "real.json"), path.symlink_to(tmp_path / "real.json"))),
        ("manifest.json", lambda path: path.write_text("[" * 100_000)),
    ]
    for n, (name, damage) in enumerate(damages):
        copy = tmp_path / str(n)
        shutil.copytree(made.folder, copy, copy_function=os.link)  # the same bytes, until they are changed
        target = copy / name
        if target.is_file():
            data = target.read_bytes()
            target.unlink()
            target.write_bytes(data)
        damage(target)
        with pytest.raises(Invalid) as refused:
            archive.load(second, copy)
        assert refused.value.errors[0].field == name, name
        assert refused.value.errors[0].code == "archive_file"
    assert everything() == before and not list(objects.listing(second, ""))


NUMBER = re.compile(r'\{"\$numberInt":"\d+"\}')
HOSTILE: dict[str, tuple[str, Callable[[str], str]]] = {
    "operator": ("lessons", lambda line: line.replace('"slug":', '"$where":"1","slug":', 1)),
    "operator inside": ("lessons", lambda line: line.replace('"title":', '"$ne":"", "title":', 1).replace(", ", ",", 1)),
    "operator in a map": ("series", lambda line: line.replace('"zh-Hans":', '"$ne":', 1)),
    "dotted key": ("series", lambda line: line.replace('"zh-Hans":', '"zh.Hans":', 1)),
    "code": ("lessons", lambda line: line.replace('"slug":"exam-week"', '"slug":{"$code":"1"}')),
    "binary": ("lessons", lambda line: line.replace('"kind":"tip"', '"kind":{"$binary":{"base64":"AA==","subType":"00"}}')),
    "object id": ("services", lambda line: re.sub(r'"_id":"[^"]*"', '"_id":{"$oid":"' + "0" * 24 + '"}', line, count=1)),
    "no object": ("services", lambda line: "[1]"),
    "not JSON": ("services", lambda line: line[:-5]),
    "too deep": ("series", lambda line: '{"_id":' + "[" * 200_000 + "]" * 200_000 + "}"),
    "digits": ("series", lambda line: NUMBER.sub("9" * 5000, line, count=1)),
    "infinite": ("series", lambda line: NUMBER.sub('{"$numberDouble":"NaN"}', line, count=1)),
    "a key twice": ("series", lambda line: line.replace('"_id":', '"_id":"x","_id":', 1)),
    "lone surrogate": ("series", lambda line: line.replace('"division":"150603"', '"division":"\\ud800"')),
    "unknown field": ("checks", lambda line: line.replace('"slug":', '"rank":"1","slug":', 1)),
    "unknown field inside": ("lessons", lambda line: line.replace('"minutes":', '"rank":"1","minutes":', 1)),
    "wrong type": (
        "checks",
        lambda line: line.replace('"slug":"', '"slug":["', 1).replace('",', '"],', 2).replace('"],', '",', 1),
    ),
    "missing field": ("checks", lambda line: re.sub(r'"slug":"[^"]*",', "", line, count=1)),
    "no such state": ("media", lambda line: line.replace('"state":"accepted"', '"state":"open"')),
    "a path for a hash": (
        "media",
        lambda line: re.sub(r'"sha256":"[0-9a-f]{64}"', '"sha256":"../../../etc/passwd"', line, count=1),
    ),
    "a path for a slug": ("lessons", lambda line: line.replace('"slug":"exam-week"', '"slug":"../exam-week"')),
    "a path for an edition": ("lessons", lambda line: line.replace('"mn-Cyrl":', '"../x":')),
    "of nobody": ("lessons", lambda line: line.replace('"organisation":"org1"', '"organisation":"org2"')),
    "a version of other words": (
        "versions",
        lambda line: line.replace("Listen", "Hasten").replace("先听", "先说").replace("慢慢", "快快"),
    ),
    "a row of another kind": ("published", lambda line: line.replace("session:", "notice:").replace('"session"', '"notice"')),
    "a row of the future": (
        "published",
        lambda line: re.sub(r'"seq":\{"\$numberInt":"\d+"\}', '"seq":{"$numberInt":"9999"}', line),
    ),
    "a row that is not JSON": ("published", lambda line: re.sub(r'"content":"\{', '"content":"{ ', line)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_document_is_refused_with_its_line(made: Made, second: Settings, tmp_path: Path, what: str) -> None:
    collection, change = HOSTILE[what]
    copy = tmp_path / "copy"
    shutil.copytree(made.folder, copy)
    path = copy / files.record(collection)
    rows = path.read_text(encoding="utf-8").split("\n")
    bad = [change(row) if row else row for row in rows]
    assert bad != rows
    path.write_text("\n".join(bad), encoding="utf-8")
    changed(copy, tmp_path, lambda manifest: None, "copy")
    with pytest.raises(Invalid) as refused:
        archive.load(second, copy)
    assert refused.value.errors[0].field.startswith(f"records/{collection}.jsonl:"), refused.value
    assert Lesson.rows().find_one({}) is None


def documents(folder: Path, collection: str) -> list[dict[str, Any]]:
    return [files.document(row, collection) for row in (folder / files.record(collection)).read_bytes().splitlines(True)]


def put(folder: Path, collection: str, rows: list[dict[str, Any]]) -> None:
    rows.sort(key=lambda row: row["_id"])
    (folder / files.record(collection)).write_bytes(b"".join(map(files.line, rows)))


def forged_version(**values: Any) -> Callable[[Path], None]:
    """Versions of `key` with these values in them, named by their own hash, and the stands that name them."""

    def forge(copy: Path, key: str = "exam-week", collection: str = "lessons") -> None:
        key, collection = {"steps": ("calm", "paths"), "html": ("calm", "paths"), "register": ("sleep-habits", "checks")}.get(
            next(iter(values)), (key, collection)
        )
        versions, renamed = documents(copy, "versions"), {}
        for row in versions:
            if row["key"] == key:
                content = {**json.loads(row["content"]), **values}
                name = publishing.name_of(row["kind"], key, row["language"], content)
                renamed[row["_id"]] = name
                row |= {"_id": name, "content": canonical(content), "media": content.get("media", [])}
        put(copy, "versions", versions)
        holders = documents(copy, collection)
        for stand in (stand for row in holders for stand in row["stands"].values()):
            stand |= {field: renamed.get(stand[field], stand[field]) for field in ("version", "digest") if field in stand}
        put(copy, collection, holders)

    return forge


def forged_row(kind: str, **values: Any) -> Callable[[Path], None]:
    """Published rows of this kind with these values in their content; with none, an empty content."""

    def forge(copy: Path) -> None:
        rows = documents(copy, "published")
        for row in rows:
            if row["kind"] == kind:
                row["content"] = canonical({**json.loads(row["content"]), **values} if values else {})
        put(copy, "published", rows)

    return forge


def forged_kind(copy: Path) -> None:
    rows = documents(copy, "published")
    put(copy, "published", [*rows, {**rows[0], "_id": "evil:x:*", "kind": "evil", "key": "x", "language": "*", "content": "{}"}])


def forged_record(collection: str, **values: Any) -> Callable[[Path], None]:
    def forge(copy: Path) -> None:
        put(copy, collection, [{**row, **values} for row in documents(copy, collection)])

    return forge


SCRIPT = "javascript:alert(1)"
FORGED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "media of maps": ("versions", forged_version(media=[{"a": 1}])),
    "audiences null": ("versions", forged_version(audiences=None)),
    "stages null": ("versions", forged_version(stages=None)),
    "stages bogus": ("versions", forged_version(stages=["bogus"])),
    "topics bogus": ("versions", forged_version(topics=["bogus"])),
    "seasons text": ("versions", forged_version(seasons="gaokao")),
    "divisions bogus": ("versions", forged_version(divisions=["1"])),
    "title a map": ("versions", forged_version(title={"a": 1})),
    "body a list": ("versions", forged_version(body=["a"])),
    "minutes a text": ("versions", forged_version(minutes="5")),
    "help a number": ("versions", forged_version(help=1)),
    "try_this a number": ("versions", forged_version(try_this=5)),
    "check_in a text": ("versions", forged_version(check_in="done?")),
    "check_in with more": ("versions", forged_version(check_in={**ASK, "html": "<script>"})),
    "a date that is none": ("versions", forged_version(review_due="0000-zz")),
    "a source that runs": ("versions", forged_version(sources=[{"title": "x", "url": SCRIPT}])),
    "a source with more": ("versions", forged_version(sources=[{"title": "x", "html": "<script>"}])),
    "an edition of another": ("versions", forged_version(language="yue")),
    "a lesson with more": ("versions", forged_version(expires_at="x", html2="<script>")),
    "a path with more": ("versions", forged_version(html="<script>")),
    "steps of numbers": ("versions", forged_version(steps=[{"lesson": 5, "at": 0}, {"lesson": "gone", "at": 1}])),
    "steps without at": ("versions", forged_version(steps=[{"lesson": 5}])),
    "a check without register": ("versions", forged_version(register={})),
    "an empty service": ("published", forged_row("service")),
    "a service that runs": ("published", forged_row("service", url=SCRIPT)),
    "a service with more": ("published", forged_row("service", html="<script>")),
    "a service with no texts": ("published", forged_row("service", name={"zh-Hans": 5})),
    "an empty lecturer": ("published", forged_row("lecturer")),
    "a lecturer with more": ("published", forged_row("lecturer", html="<script>")),
    "a lecturer's school with more": ("published", forged_row("lecturer", paired_schools=[{"id": "x", "html": "z"}])),
    "a lecturer of no kind": ("lecturers", forged_record("lecturers", kind="wizard")),
    "a lecturer's school that is nowhere": ("lecturers", forged_record("lecturers", paired_schools=["nowhere"])),
    "an empty series": ("published", forged_row("series")),
    "a series with more": ("published", forged_row("series", html="<script>")),
    "empty media": ("published", forged_row("media")),
    "an empty session": ("published", forged_row("session")),
    "media of nobody": ("published", forged_row("media", id="x")),
    "a kind of its own": ("published", forged_kind),
    "a service record that runs": ("services", forged_record("services", url=SCRIPT)),
    "a zone that is none": ("course_sessions", forged_record("course_sessions", zone="Mars/Base")),
    "a notice's text that reads memory": (
        "notice_templates",
        forged_record("notice_templates", texts={"en": {"title": "a", "body": "{days.__class__}"}}),
    ),
    "a notice's text of nowhere": ("notice_templates", forged_record("notice_templates", division="999999")),
    "a season without end": ("season_dates", forged_record("season_dates", last="zz")),
    "a draft with bogus stages": ("lessons", forged_record("lessons", stages=["bogus"])),
    "a draft path without steps": ("paths", forged_record("paths", steps=[{"lesson": "gone"}])),
    "captions elsewhere": ("media", forged_record("media", captions={"zh-Hans": "../x"})),
}


def test_a_forged_content_is_refused_with_its_line(made: Made, second: Settings, tmp_path: Path) -> None:
    """All hashes are right; what they name is nothing that this service would have written."""
    before = everything()
    for what, (collection, forge) in FORGED.items():
        copy = tmp_path / what
        shutil.copytree(made.folder, copy)
        forge(copy)
        assert contents(copy) != contents(made.folder), what
        changed(copy, tmp_path, lambda manifest: None, what)
        with pytest.raises(Invalid) as refused:
            archive.load(second, copy)
            pytest.fail(what)
        assert refused.value.errors[0].field.startswith(f"records/{collection}.jsonl:"), (what, refused.value)
    endless = changed(made.folder, tmp_path, lambda manifest: manifest | {"sequence": 2**53 - 1}, "endless")
    with pytest.raises(Invalid) as refused:
        archive.load(second, endless)
    assert refused.value.errors[0].field == files.MANIFEST
    assert everything() == before and not list(objects.listing(second, ""))


def without(folder: Path, collection: str, holds: str) -> None:
    path = folder / files.record(collection)
    rows = path.read_bytes().splitlines(keepends=True)
    kept = [row for row in rows if holds.encode() not in row]
    assert len(kept) < len(rows)
    path.write_bytes(b"".join(kept))


def test_what_is_named_must_be_there_and_once(made: Made, second: Settings, tmp_path: Path) -> None:
    row = made.folder / files.record("services")
    cases: dict[str, Callable[[Path], object]] = {
        "records/versions.jsonl": lambda copy: without(copy, "versions", "Listen first."),
        "records/published.jsonl": lambda copy: without(copy, "published", "lesson:exam-week:mn-Mong"),
        "records/course_sessions.jsonl:1": lambda copy: (copy / files.record("series")).write_bytes(b""),
        "records/services.jsonl:2": lambda copy: (copy / files.record("services")).write_bytes(
            row.read_bytes().splitlines(True)[0] * 2
        ),
        "media/": lambda copy: (copy / "media" / hashlib.sha256(b"x").hexdigest()).write_bytes(b"x"),
    }
    for n, (field, damage) in enumerate(cases.items()):
        copy = tmp_path / str(n)
        shutil.copytree(made.folder, copy)
        damage(copy)
        changed(copy, tmp_path, lambda manifest: None, str(n))
        with pytest.raises(Invalid) as refused:
            archive.verify(copy)
        assert refused.value.errors[0].field.startswith(field), refused.value


def test_no_archive_brings_html_of_its_own(made: Made, second: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made.folder, copy)
    path = copy / files.record("published")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<p>Listen first.</p>", "<script>1</script>"), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    archive.load(second, changed(copy, tmp_path, lambda manifest: None, "copy"))
    reader = Reader()
    assert reader.refresh()
    assert "<p>Listen first.</p>" in (reader.current.get("lesson", "exam-week")["en"].content or {})["html"]


# --- into the store --------------------------------------------------------------------------------------------------


class Cut(BaseException):
    """What stands for kill -9 where the test must see the moment."""


def test_a_cut_load_shows_nothing_and_is_taken_up(made: Made, second: Settings, tmp_path: Path) -> None:
    for step, at in (("media", 1), ("records", 30)):
        wiped(second)

        def cut(now: str, done: int, total: int, step: str = step, at: int = at) -> None:
            if now == step and done >= at:
                raise Cut

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
            patch.setattr(archive, "BATCH", (5, 2**20))
            archive.load(second, made.folder, cut)
        assert archive.running()
        reader = Reader()
        assert reader.refresh() and not reader.current.kinds
        bootstrap.prepare(second, lambda line: None)  # a start meanwhile loads no library into the half of it
        with pytest.raises(Conflict) as other:
            archive.load(second, changed(made.folder, tmp_path, lambda m: m | {"sequence": 999}, f"{step}{at}"))
        assert "另一份" in str(other.value) or "half" in str(other.value)
        assert archive.load(second, made.folder).state == "again"
        assert not archive.running()
        archive.export(second, tmp_path / "again")
        assert contents(tmp_path / "again") == contents(made.folder)


def test_killed_in_the_middle_then_again_by_command(made: Made, second: Settings, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k not in Settings.ENV} | second.environment()
    words = [sys.executable, "-m", "api.cli", "import", "archive", str(made.folder)]
    process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None and not Lesson.rows().find_one({}):
        time.sleep(0.005)  # leaves the core to what is waited for
    process.kill()
    cut = process.wait(20) == -signal.SIGKILL and archive.running()

    def command(*words: str) -> str:
        done = CliRunner().invoke(cli, words, env=second.environment())
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    said = command("import", "archive", str(made.folder))
    assert ("where the last import was cut" if cut else "imported before") in said
    assert re.search(rf"^versions\s+{made.counts['versions']}$", said, re.M)
    assert "archive written" in command("export", str(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(made.folder)
    assert "dry run, nothing written" in command("import", "archive", str(made.folder), "--dry-run")


def test_a_dry_run_says_the_same_and_writes_nothing(made: Made, second: Settings) -> None:
    before = everything()
    assert archive.load(second, made.folder, dry_run=True) == (made.counts, "new")
    assert everything() == before and not list(objects.listing(second, ""))


def test_the_starter_library_gives_way_while_nobody_has_changed_it(made: Made, second: Settings, tmp_path: Path) -> None:
    small = library(tmp_path / "library", "lessons/name-the-feeling.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "LIBRARY", small)
        bootstrap.prepare(second, lambda line: None)
    reader = Reader()
    assert reader.refresh() and reader.current.entries("lesson")
    lesson = Lesson.of(Lesson.rows().find_one({}))
    assert archive.load(second, made.folder, dry_run=True).state == "library"
    marks = list(Counter.rows().find())
    lessons.edit(lesson.id, "someone", {}, {language: {"title": "改了"} for language in lesson.texts})
    with pytest.raises(Conflict) as refused:
        archive.load(second, made.folder)
    assert refused.value.code == "archive_store" and list(Counter.rows().find()) == marks
    Audit.rows().delete_one({"actor": "someone"})  # as if nobody had
    accounts = list(staff.Account.rows().find())

    def cut(step: str, done: int, total: int) -> None:
        if step == "records" and done == total:
            raise Cut

    with pytest.raises(Cut):
        archive.load(second, made.folder, cut)
    assert reader.refresh() and not reader.current.kinds  # neither the old nor half of the new
    assert archive.load(second, made.folder).state == "again"
    assert reader.refresh()
    assert set(reader.current.entries("lesson")) == {"exam-week"}
    assert list(staff.Account.rows().find()) == accounts
    archive.export(second, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(made.folder)
    bootstrap.prepare(second, lambda line: None)  # the next start leaves it alone
    assert Lesson.rows().count_documents({}) == 3

"""Delta sync and offline packs, told by a phone: what it holds is what the catalogue shows, however it came there."""

import base64
import gzip
import hashlib
import hmac
import itertools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from content import embedded, languages, lessons, objects, packs, published, store, sync
from content.definition import TOTAL, Band, Definition, Scale, to_json
from content.failures import Failure, Unavailable
from content.published import ANY, Item, Reader, Snapshot
from content.settings import Settings, SettingsError
from content.sync import Selection
from content.vocabulary import VOICES, Stage
from tests.phone import Forged, Held, Phone, unbase
from tests.site import Clock, Site
from tests.test_helpcard import on_phone

PARENT = ("parent", "junior", "zh-Hans")
STUDENT = ("student", "", "en")
MONGOL = "ᠮᠣᠩᠭᠣᠯ\u202fᠤᠨ ᠬᠡᠯᠡ\u180eᠶᠢ\u180b"  # NNBSP, vowel separator, variation selector


def lesson(slug: str, edition: str = "zh-Hans", *, said: str = "一", audiences: Iterable[str] = ("parent", "student"),
           stages: Iterable[str] = ("junior",), media: Iterable[str] = (), expires_at: str | None = None) -> Item:  # fmt: skip
    """A published lesson in one edition."""
    language, voice = languages.parts(edition)
    ears = [one for one in audiences if not voice or one in VOICES[voice]]
    content = {
        "slug": slug, "language": language, "voice": voice, "title": said, "summary": said, "body": said, "plain": said,
        "html": f"<p>{said}</p>", "try_this": said, "check_in": None, "minutes": 1, "audiences": ears, "stages": list(stages),
        "topics": ["emotion"], "kind": "tip", "seasons": [], "divisions": [], "media": sorted(media), "sources": [],
        "help": False, "reviewed_by": None, "review_due": None, "number": 1, "version": hashlib.sha256(said.encode()).hexdigest(),
        "published_at": "2026-11-22T00:00:00+00:00", "expires_at": expires_at,
    }  # fmt: skip
    return Item("lesson", slug, edition, content)


def medium(data: bytes, alt: str = "两个人在走路") -> Item:
    """A published picture."""
    content = {
        "id": "0" * 32, "sha256": hashlib.sha256(data).hexdigest(), "kind": "image", "content_type": "image/png",
        "bytes": len(data), "width": 1, "height": 1, "title": "", "alt": {"zh-Hans": alt}, "renditions": [],
    }  # fmt: skip
    return Item("media", content["sha256"], ANY, content)


HOTLINE = Item("service", "line", ANY, {
    "id": "line", "kind": "hotline", "name": {"zh-Hans": "心理援助热线", "en": "Support line"}, "description": {}, "cost": {},
    "phones": [{"number": "12356", "languages": ["zh-Hans"]}], "schedules": [], "ages": {}, "divisions": [], "urgent": True,
    "url": None, "order": 1, "assured_date": None, "sources": [],
})  # fmt: skip


def gone(kind: str, key: str, language: str) -> Item:
    """A withdrawal."""
    return Item(kind, key, language, None)


def release(site: Site, *items: Item) -> int:
    """Publish in one release, and let the site see it."""
    seq = store.transaction(lambda session: published.release(session, items))
    site.refresh()
    return seq


@pytest.fixture
def phone(site: Site) -> Phone:
    """A phone whose app was built with the site's key."""
    return Phone(site.base, site.get("/v1/keys").json()["keys"][0])


def catalogue(site: Site, audience: str, stage: str, language: str) -> dict[str, tuple[str, str]]:
    """slug -> (language, text) of the lessons that the catalogue shows to such a reader, over HTTP."""
    found, cursor = {}, ""
    while cursor is not None:
        query = f"?audience={audience}&limit=100" + (f"&stage={stage}" if stage else "") + (f"&cursor={cursor}" if cursor else "")
        page = site.get("/v1/lessons" + query, headers={"Accept-Language": language}).json()
        found |= {one["slug"]: (one["language"], one["title"]) for one in page["items"]}
        cursor = page["next_cursor"]
    return found


def holds(phone: Phone, wanted: tuple[str, str, str]) -> dict[str, tuple[str, str]]:
    """The same of what a phone shows."""
    shown = phone.shown(wanted, store.now())
    return {k: (i["content"]["language"], i["content"]["title"]) for (kind, k), i in shown.items() if kind == "lesson"}


# --- the story -------------------------------------------------------------------------------------------------------


def test_a_phones_year(site: Site, phone: Phone, clock: Clock) -> None:
    data = os.urandom(300)
    name = hashlib.sha256(data).hexdigest()
    objects.put(site.settings, f"media/{name}", data, "image/png")
    release(site, medium(data), HOTLINE)
    release(site, lesson("calm", media=[name]), lesson("calm", "en", said="calm"), lesson("sleep"), lesson("script", said=MONGOL))
    assert packs.build(site.settings, store.now())["built"] > 0
    site.refresh()

    # first start by pack, and one without: they hold the same
    assert phone.take_pack(PARENT)
    assert phone.sync(PARENT) == 0
    other = Phone(site.base, phone.key)
    assert other.sync(PARENT, limit=1) == 5
    assert phone.held[PARENT] == other.held[PARENT]
    assert holds(phone, PARENT) == catalogue(site, *PARENT)
    assert phone.held[PARENT]["lesson", "script"]["content"]["html"] == f"<p>{MONGOL}</p>"
    assert {"body", "plain"}.isdisjoint(phone.held[PARENT]["lesson", "calm"]["content"])
    assert phone.held[PARENT]["service", "line"]["content"]["name"] == "心理援助热线"
    card = phone.held[PARENT]["card", "help"]["content"]  # with the services it is the help card, offline too
    assert (card["emergency"][0]["number"], len(card["tonight"]), card["line"]["number"]) == ("110", 4, "12356")
    services = [item["content"] for (kind, _), item in phone.held[PARENT].items() if kind == "service"]
    assert on_phone(card, services, [], store.now()) == site.get("/v1/help-card").json()
    described = phone.held[PARENT]["lesson", "calm"]["media"]
    assert [(one["sha256"], one["bytes"], one["alt"]) for one in described] == [(name, 300, "两个人在走路")]
    phone.fetch_media(PARENT)
    assert phone.media == {name: data}

    # offline while things change: an edit, a withdrawal, a translation published, help changed
    release(site, lesson("sleep", said="睡好"))
    release(site, gone("lesson", "script", "zh-Hans"))
    release(site, lesson("sleep", "en", said="sleep well"))
    release(site, replace(HOTLINE, content={**(HOTLINE.content or {}), "phones": [{"number": "12355", "languages": []}]}))
    assert phone.sync(PARENT) == 3  # who reads Chinese is sent no English
    assert holds(phone, PARENT) == catalogue(site, *PARENT) == {"calm": ("zh-Hans", "一"), "sleep": ("zh-Hans", "睡好")}
    assert phone.held[PARENT]["service", "line"]["content"]["phones"][0]["number"] == "12355"

    # the best edition goes, the next best comes back; then a voice of the reader's own
    english = ("parent", "junior", "en")
    phone.sync(english)
    release(site, gone("lesson", "calm", "en"))
    assert phone.sync(english) == 1
    assert holds(phone, english)["calm"] == ("zh-Hans", "一")
    release(site, lesson("calm", "zh-Hans-x-parent", said="写给家长", media=[name]))
    assert phone.sync(PARENT) == 1
    assert phone.held[PARENT]["lesson", "calm"]["language"] == "zh-Hans-x-parent"
    release(site, lesson("calm", "zh-Hans-x-student", said="写给学生"))
    assert phone.sync(PARENT) == 0  # not for this reader
    assert holds(phone, PARENT) == catalogue(site, *PARENT)

    # the item leaves the selection
    release(site, lesson("sleep", said="睡好", audiences=["teacher"]))
    assert phone.sync(PARENT) == 1
    assert holds(phone, PARENT) == catalogue(site, *PARENT) == {"calm": ("zh-Hans", "写给家长")}

    # what a medium says changes: the item that shows it comes, its bytes do not
    release(site, medium(data, alt="母女散步"))
    assert phone.sync(PARENT) == 1
    phone.fetch_media(PARENT)
    assert phone.held[PARENT]["lesson", "calm"]["media"][0]["alt"] == "母女散步"
    assert phone.fetched == [name]
    release(site, lesson("calm", "zh-Hans-x-parent", said="写给家长"))
    phone.sync(PARENT)
    phone.sync(english)
    phone.fetch_media(PARENT)
    assert phone.media == {}

    # an expiry needs no network; the edition that comes after it does
    soon = store.now() + timedelta(minutes=5)
    release(site, lesson("calm", "en-x-parent", said="for tonight", expires_at=soon.isoformat()))
    phone.sync(english)
    assert phone.held[english]["lesson", "calm"]["expires_at"] == soon.isoformat()
    assert ("lesson", "calm") not in phone.shown(english, soon)
    clock(301)
    release(site, gone("lesson", "calm", "en-x-parent"))  # the clock's own withdrawal
    phone.sync(english)
    assert holds(phone, english) == catalogue(site, *english) != {}
    assert phone.restarts == 0


def test_sizes_are_told_before_any_download(site: Site, phone: Phone) -> None:
    data = [os.urandom(size) for size in (100, 200)]
    files = [medium(one) for one in data]
    release(site, *files, HOTLINE, *(lesson(f"n-{n}", media=[files[n % 2].key]) for n in range(30)))
    where = "/v1/sync?audience=parent&stage=junior&language=zh-Hans"
    told = site.get(where + "&limit=0").json()
    assert (told["items"], told["more"], told["page"]) == ([], True, {"items": 0, "bytes": 0})
    assert told["remaining"]["items"] == 32  # and the card
    assert told["media"] == {"count": 2, "bytes": 300}
    assert phone.sync(PARENT, limit=7) == 32  # one release, five pages
    assert phone.bytes == told["remaining"]["bytes"]
    page = site.get(f"{where}&limit=7&since={told['next_cursor']}").json()
    assert page["page"]["bytes"] + page["remaining"]["bytes"] == told["remaining"]["bytes"]
    assert site.get(f"{where}&limit=0&since={phone.cursors[PARENT]}").json()["more"] is False
    assert site.get(where + "&limit=201").status_code == 422


def test_it_is_answered_while_the_database_is_away(site: Site, phone: Phone) -> None:
    release(site, lesson("calm"))
    packs.build(site.settings, store.now())
    site.refresh()
    site.reader.up = False
    assert phone.take_pack(PARENT)
    assert phone.sync(PARENT) == 0


# --- a new beginning -------------------------------------------------------------------------------------------------


def test_a_purge_starts_those_over_who_were_away_longer(site: Site, phone: Phone) -> None:
    release(site, lesson("calm"), lesson("sleep"))
    away = Phone(site.base, phone.key)
    away.sync(PARENT)
    release(site, gone("lesson", "sleep", "zh-Hans"))
    phone.sync(PARENT)
    assert published.purge_tombstones(store.now() - published.KEEP_TOMBSTONES) == 0
    assert published.purge_tombstones(store.now() + timedelta(seconds=1)) == 1
    assert published.purge_tombstones(store.now() + timedelta(seconds=1)) == 0
    site.refresh()
    release(site, lesson("calm", said="二"))
    assert (phone.sync(PARENT), phone.restarts) == (1, 0)
    away.sync(PARENT)
    assert away.restarts == 1
    assert holds(away, PARENT) == holds(phone, PARENT) == catalogue(site, *PARENT)


def backup() -> Callable[[], None]:
    """What puts the published set back to where it is now."""
    tables = (published.PublishedRow, published.Counter)
    kept = {table: list(table.rows().find({})) for table in tables}

    def restore() -> None:
        for table, rows in kept.items():
            for row in table.rows().find({}, {"_id": 1}):
                table.rows().delete_one({"_id": row["_id"]})
            for row in rows:
                table.rows().insert_one(row)

    return restore


def test_a_restored_backup_starts_everyone_over(site: Site, phone: Phone, tmp_path: Path) -> None:
    release(site, lesson("calm"), lesson("sleep"))
    restore = backup()
    release(site, lesson("calm", said="二"))
    release(site, lesson("new"))
    phone.sync(PARENT)
    kept = Reader(tmp_path / "published.json.gz")
    kept.refresh()
    kept.keep()
    old = kept.current.epoch
    restore()
    site.refresh()
    assert published.mark().epoch not in ("", old)
    release(site, lesson("calm", said="三"))  # two sequences now mean something else than they did
    release(site, lesson("late"))
    phone.sync(PARENT)
    assert phone.restarts == 1
    assert holds(phone, PARENT) == catalogue(site, *PARENT) == {
        "calm": ("zh-Hans", "三"), "sleep": ("zh-Hans", "一"), "late": ("zh-Hans", "一"),
    }  # fmt: skip
    # a second process that saw the same follows; it does not step again
    stepped = published.mark().epoch
    kept.refresh()
    assert (kept.current.epoch, published.mark().epoch) == (stepped, stepped)


@pytest.mark.parametrize("later", [0, 1, 3])
def test_a_restore_while_nothing_ran_is_seen_at_the_start(site: Site, tmp_path: Path, later: int) -> None:
    release(site, lesson("calm"))
    restore = backup()
    for number in range(2):
        release(site, lesson(f"lost-{number}"))
    file = tmp_path / "published.json.gz"
    before = Reader(file)
    before.refresh()
    before.keep()
    restore()
    for _ in range(later):  # 3: by the numbers alone it is ahead
        store.transaction(lambda session: published.release(session, [lesson("other")]))
    newborn = Reader(file)
    newborn.start()
    newborn.stop()
    assert newborn.current.epoch not in ("", before.current.epoch)
    assert published.mark().epoch == newborn.current.epoch
    again = Reader(file)
    again.start()
    again.stop()
    assert again.current.epoch == newborn.current.epoch  # a start after no restore changes nothing


def test_a_kept_file_of_a_version_without_epochs_is_read(clean: None, tmp_path: Path) -> None:
    file = tmp_path / "published.json.gz"
    row = ["lesson", "calm", "zh-Hans", lesson("calm").content, 3, "2026-11-22T00:00:00+00:00"]
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.write("3\n" + json.dumps(row, ensure_ascii=False) + "\n")
    loaded = published._load(file)
    assert (loaded.seq, loaded.epoch, list(loaded.get("lesson", "calm"))) == (3, "", ["zh-Hans"])
    with pytest.raises(Unavailable):  # of whose history it is nobody knows: no phone may be told to drop what it holds
        sync.changes(loaded, Selection(*PARENT), "", 10, store.now())


def test_a_store_in_which_nothing_was_ever_published_is_empty_and_not_away(site: Site) -> None:
    path = "/v1/sync?audience=parent&stage=junior"
    nothing = site.get(path)
    assert (nothing.status_code, nothing.json()["more"]) == (200, False)
    assert [(one["kind"], one["key"]) for one in nothing.json()["items"]] == [("card", "help")]
    cursor = nothing.json()["next_cursor"]
    assert site.get(f"{path}&since={cursor}").json()["items"] == nothing.json()["items"]  # at sequence 0 all is new
    release(site, lesson("calm"))
    assert site.get(f"{path}&since={cursor}").status_code == 410
    held = site.get(path).json()["next_cursor"]
    site.reader._swap(Snapshot())  # a worker born without a file while the database is away
    site.reader.up = False
    assert site.get(path).status_code == 503
    site.reader.up = True  # and one whose database has lost everything: that is no reason to drop what a phone holds
    assert site.get(f"{path}&since={held}").status_code == 503


def test_a_store_from_before_epochs_gets_one(site: Site) -> None:
    release(site, lesson("calm"))
    published.Counter.rows().update_one({"_id": "published"}, {"$unset": {"epoch": 1}})
    readers = [Reader(), Reader()]
    for one in readers:
        one.refresh()
    assert readers[0].current.epoch == readers[1].current.epoch == published.mark().epoch != ""
    assert not published.step_epoch("no such epoch")
    assert published.step_epoch()


# --- cursors ---------------------------------------------------------------------------------------------------------


def test_cursors_that_lead_nowhere(site: Site, phone: Phone) -> None:
    release(site, lesson("calm"))
    phone.sync(PARENT)
    cursor = phone.cursors[PARENT]
    where = "/v1/sync?audience={}&stage={}&language={}&since={}"
    for selection in (("student", "junior", "zh-Hans"), ("parent", "", "zh-Hans"), ("parent", "junior", "en")):
        reply = site.get(where.format(*selection, cursor))
        assert (reply.status_code, reply.json()["code"]) == (410, "start_over")
        assert "Cache-Control" in reply.headers
    for text in ("x", "AAAA", "W10", "eyJhIjoxfQ", "0", cursor[:-3], "👋", base64.urlsafe_b64encode(b'["a","b",true]').decode()):
        reply = site.get(where.format(*PARENT, text))
        assert (reply.status_code, reply.json()["code"]) == (400, "bad_cursor"), text
    here = sync.read(cursor)
    ahead = sync.write(here._replace(since=here.since + 3))  # from a worker that has seen three releases more
    assert site.get(where.format(*PARENT, ahead)).json() == {
        "items": [], "next_cursor": ahead, "more": False, "page": {"items": 0, "bytes": 0}, "remaining": {"items": 0, "bytes": 0},
        "media": {"count": 0, "bytes": 0},
    }  # fmt: skip
    far = sync.write(here._replace(since=here.since + 10**6))
    assert site.get(where.format(*PARENT, far)).status_code == 410
    assert site.get("/v1/sync?stage=junior").status_code == 422
    assert site.get("/v1/sync?audience=parent&stage=junior.9").status_code == 422


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")))
def test_no_text_is_more_than_a_bad_cursor(text: str) -> None:
    try:
        sync.read(text)
    except Failure as failure:
        assert failure.code == "bad_cursor"


# --- whatever happens, a phone holds what the catalogue shows ---------------------------------------------------------

SELECTIONS = [
    Selection("parent", "junior", "zh-Hans"), Selection("student", "", "en"), Selection("teacher", "senior", "mn-Mong"),
]  # fmt: skip
FILES = [medium(b"a"), medium(b"b")]
EDITIONS = st.sampled_from(["zh-Hans", "zh-Hans", "zh-Hans-x-student", "zh-Hans-x-parent", "en", "en-x-staff", "mn-Cyrl"])
SLUGS = st.sampled_from(["a", "b"])
PUBLISH = st.builds(
    lesson,
    SLUGS,
    EDITIONS,
    said=st.sampled_from("一二三四五"),
    audiences=st.sampled_from([["parent", "student", "teacher"]] * 3 + [["parent"], ["student"]]),
    stages=st.sampled_from([["junior.9", "senior"]] * 3 + [["primary"]]),
    media=st.lists(st.sampled_from([one.key for one in FILES]), unique=True, max_size=1),
    expires_at=st.sampled_from([None, 1, 3]),  # hours after its release
)
DESCRIBE = st.builds(medium, st.sampled_from([b"a", b"b"]), st.sampled_from(["山", "水"])) | st.just(
    gone("media", FILES[0].key, ANY)
)
RELEASE = st.lists(PUBLISH | PUBLISH | DESCRIBE, min_size=1, max_size=3, unique_by=lambda i: (i.kind, i.key, i.language))
WITHDRAW = st.tuples(st.just("withdraw"), st.integers(0, 20))  # one of those that are published
PAGE = st.tuples(st.just("page"), st.sampled_from([0, 0, 1, 2]), st.just(1), st.booleans())
WHOLE = st.just(("page", 0, 9, False))
CLOCK = st.tuples(st.just("clock"), st.integers(1, 2), st.booleans())  # hours, and whether the schedule runs after them
STEP = st.one_of(RELEASE, RELEASE, WITHDRAW, WITHDRAW, PAGE, WHOLE, WHOLE, CLOCK, CLOCK, CLOCK, st.just("purge"))


def expected(snapshot: Snapshot, selection: Selection, now: datetime) -> dict[str, tuple[str, str, Any]]:
    """slug -> (edition, text, media with their words) as the catalogue has it at that moment."""
    stage = Stage(selection.stage) if selection.stage else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "now", lambda: now)
        found, fits = lessons.catalogue(snapshot, (selection.language,), audience=selection.audience, stage=stage)
    result = {}
    for item in filter(fits, found):
        content = item.content or {}
        files = [snapshot.get("media", name).get(ANY) for name in content["media"]]
        result[item.key] = (
            item.language,
            content["title"],
            [(f.key, f.content["alt"]["zh-Hans"]) for f in files if f and f.content],
        )
    return result


def taken(held: Held, page: sync.Page) -> None:
    """Lay a page over what is held."""
    for item in map(json.loads, page.lines):
        if item.get("gone"):
            held.pop((item["kind"], item["key"]), None)
        else:
            held[item["kind"], item["key"]] = item


@settings(max_examples=50, deadline=None)
@given(st.lists(STEP, min_size=5, max_size=30))
def test_what_a_phone_holds_is_what_the_catalogue_shows(steps: list[Any]) -> None:
    """A phone that was synced before an expiry hears of the next best edition when the schedule has withdrawn the expired one;
    one that begins is sent it at once, as is the catalogue's reader."""
    now = store.now()
    snapshot = Snapshot(epoch=os.urandom(8).hex())
    workers = [snapshot, snapshot]  # the second is a release behind
    phones: list[tuple[Held, str]] = [({}, "")] * len(SELECTIONS)

    def put(items: Iterable[Item], floor: int = 0) -> None:
        nonlocal workers
        seq = workers[0].seq + 1
        rows = [replace(item, seq=seq, at=now) for item in items]
        workers = [workers[0].after(seq, rows, floor), workers[0]]

    def ask(number: int, limit: int, behind: bool) -> bool:
        held, cursor = phones[number]
        held = dict(held)
        try:
            page = sync.changes(workers[behind], SELECTIONS[number], cursor, limit, now)
        except Failure as failure:
            assert failure.code == "start_over"
            phones[number] = ({}, "")
            return True
        taken(held, page)
        phones[number] = (held, page.next_cursor)
        return page.more

    def dated(item: Item) -> Item:
        hours = (item.content or {}).get("expires_at")
        over = hours and (now + timedelta(hours=hours)).isoformat()
        return replace(item, content={**(item.content or {}), "expires_at": over}) if hours else item

    def withdraw_expired() -> None:
        over = [item for item in workers[0].since(-1) if expired(item.content or {})]
        if over:
            put([gone(item.kind, item.key, item.language) for item in over])

    def expired(facts: dict[str, Any]) -> bool:
        return bool(facts.get("expires_at")) and datetime.fromisoformat(facts["expires_at"]) <= now

    def begun(selection: Selection) -> Held:
        held: Held = {}
        cursor, more = "", True
        while more:
            page = sync.changes(workers[0], selection, cursor, 2, now)
            taken(held, page)
            cursor, more = page.next_cursor, page.more
        return held

    def told(held: Held) -> dict[str, tuple[str, str, Any]]:
        return {
            key: (i["language"], i["content"]["title"], [(f["sha256"], f["alt"]) for f in i["media"]])
            for (kind, key), i in held.items() if kind == "lesson"
        }  # fmt: skip

    def nothing_stale() -> None:
        """What a phone shows that syncs now and puts the expired away by itself is there."""
        nonlocal phones
        before = list(phones)
        for number, selection in enumerate(SELECTIONS):
            while ask(number, 9, behind=False):
                pass
            there = expected(workers[0], selection, now)
            alive = {name: item for name, item in phones[number][0].items() if not expired(item)}
            assert all(there.get(key) == value for key, value in told(alive).items())
        phones = before

    put(FILES)
    put([HOTLINE])
    for step in steps:
        if step == "purge":
            put([], floor=max([0, *(item.seq for item in workers[0].gone.values())]))
        elif isinstance(step, list):
            put(map(dated, step))
        elif step[0] == "clock":
            now += timedelta(hours=step[1])
            nothing_stale()
            if step[2]:
                withdraw_expired()
        elif step[0] == "withdraw":
            live = [item for item in workers[0].since(-1) if item.kind == "lesson" and item.content]
            put([gone("lesson", one.key, one.language) for one in live[step[1] % max(1, len(live)) :][:1]])
        else:
            ask(*step[1:])
        for selection in SELECTIONS:  # also from a plan that was made before the clock went on
            assert told(begun(selection)) == expected(workers[0], selection, now)
    withdraw_expired()
    newest = workers[0]
    for number, selection in enumerate(SELECTIONS):
        while ask(number, 2, behind=False):
            pass
        held = phones[number][0]
        assert told(held) == expected(newest, selection, now)
        assert ("service", "line") in held
        pack = {(i["kind"], i["key"]): i for i in map(json.loads, packs.lines(newest, selection, now))}
        assert pack == held
    live = [item for item in newest.log if newest.at((item.kind, item.key, item.language)) is item]
    assert list(newest.since(-1)) == live
    assert len(newest.log) <= 2 * len(live) + 1
    uses = {(n, (i.kind, i.key, i.language)) for i in live for n in ((i.content or {}).get("media") or ()) if i.kind == "lesson"}
    assert {(name, one) for name, ones in newest.uses.items() for one in ones} == uses


def two_pages_and_a_translation() -> tuple[Snapshot, Snapshot, str]:
    """What a worker behind and a fresh one have, and the cursor of a phone that holds nothing of it: k in Chinese, then j, then,
    on the fresh one only, k in English, which moves k behind j."""
    first = Snapshot(epoch=os.urandom(8).hex()).after(1, [replace(HOTLINE, seq=1)])
    behind = first.after(3, [replace(lesson("k"), seq=2), replace(lesson("j"), seq=3)])
    return behind, behind.after(4, [replace(lesson("k", "en"), seq=4)]), sync.complete(first, SELECTIONS[0])


def test_what_moves_to_the_end_of_a_round_is_sent_there() -> None:
    _, fresh, cursor = two_pages_and_a_translation()
    sent: Held = {}
    for _ in range(2):
        page = sync.changes(fresh, SELECTIONS[0], cursor, 1, store.now())
        taken(sent, page)
        cursor = page.next_cursor
    assert [key for _, key in sent] == ["j", "k"]


def test_a_round_does_not_go_on_at_a_worker_that_is_behind() -> None:
    behind, fresh, cursor = two_pages_and_a_translation()
    first = sync.changes(behind, SELECTIONS[0], cursor, 0, store.now())
    first = sync.changes(fresh, SELECTIONS[0], first.next_cursor, 1, store.now())
    waits = sync.changes(behind, SELECTIONS[0], first.next_cursor, 1, store.now())
    assert (waits.lines, waits.more, waits.next_cursor) == ([], True, first.next_cursor)
    last = sync.changes(fresh, SELECTIONS[0], waits.next_cursor, 1, store.now())
    assert [json.loads(one)["key"] for one in last.lines] == ["k"]


def test_what_replaced_an_edition_and_expired_unseen_leaves_the_next_best() -> None:
    """The phone holds what was replaced, so it must be sent an edition that is older than its cursor."""
    now = store.now()
    voice = replace(lesson("k", "zh-Hans-x-parent", said="旧"), seq=2)
    before = Snapshot(epoch=os.urandom(8).hex()).after(2, [replace(lesson("k"), seq=1), voice])
    tonight = lesson("k", "zh-Hans-x-parent", said="今晚", expires_at=(now + timedelta(hours=1)).isoformat())
    after = before.after(3, [replace(tonight, seq=3)])
    cursor = sync.complete(before, SELECTIONS[0])
    for hours, title in ((0, "今晚"), (2, "一")):  # the second from a plan that was made for the first
        [sent] = map(json.loads, sync.changes(after, SELECTIONS[0], cursor, 9, now + timedelta(hours=hours)).lines)
        assert sent["content"]["title"] == title


def test_a_delta_costs_what_changed_and_not_what_there_is() -> None:
    sizes = {}
    for size in (100, 1000):
        epoch = os.urandom(8).hex()
        many = [replace(lesson(f"n-{n:05}", said="孩子回到家，先听他说完。" * 90), seq=1) for n in range(size)]
        before = Snapshot(epoch=epoch).after(1, many)
        cursor = sync.complete(before, SELECTIONS[0])
        after = before.after(2, [replace(item, seq=2) for item in many[:10]])
        page = sync.changes(after, SELECTIONS[0], cursor, 200, store.now())
        assert len(page.lines) == 10
        sizes[size] = page.bytes
    assert abs(sizes[1000] / sizes[100] - 1) < 0.01


# --- packs -----------------------------------------------------------------------------------------------------------


def url(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_a_phone_refuses_what_its_key_did_not_sign(site: Site, phone: Phone) -> None:
    release(site, lesson("calm"), lesson("sleep", stages=["senior"]))
    packs.build(site.settings, store.now())
    site.refresh()
    listed = {(p["audience"], p["stage"], p["language"]): p for p in site.get("/v1/packs?limit=100").json()["items"]}
    mine, others = listed[PARENT], listed["parent", "senior", "zh-Hans"]
    facts = phone.verified(mine["manifest"], PARENT)
    assert facts == {name: value for name, value in mine.items() if name != "manifest"}
    head, body, signature = mine["manifest"].split(".")
    header = json.loads(unbase(head))
    wrong = Ed25519PrivateKey.generate()

    def signed(header: dict[str, Any], facts: dict[str, Any], by: Callable[[bytes], bytes]) -> str:
        text = f"{url(json.dumps(header).encode())}.{url(json.dumps(facts).encode())}"
        return f"{text}.{url(by(text.encode()))}"

    secret = unbase(phone.key["x"])
    forged = {
        "another key": signed(header, facts, wrong.sign),
        "another key, named": signed({**header, "jwk": {"kty": "OKP"}, "kid": "x"}, facts, wrong.sign),
        "changed facts": f"{head}.{url(json.dumps({**facts, 'sha256': '0' * 64}).encode())}.{signature}",
        "none": signed({**header, "alg": "none"}, facts, lambda text: b""),
        "no signature": f"{head}.{body}.",
        "public key as secret": signed({**header, "alg": "HS256"}, facts, lambda text: hmac.digest(secret, text, "sha256")),
        "another type": signed({**header, "typ": "JWT"}, facts, wrong.sign),
        "no manifest": "x.y",
        "another selection": others["manifest"],
    }
    for name, manifest in forged.items():
        with pytest.raises(Forged):
            phone.verified(manifest, PARENT)
            pytest.fail(name)
    bytes_of = {one["sha256"]: phone.ask(f"/v1/packs/{one['sha256']}/file").content for one in (mine, others)}
    good = bytes_of[mine["sha256"]]
    for data in (good[:-1], good + b"\0", bytes_of[others["sha256"]], b""):
        with pytest.raises(Forged):
            phone.unpacked(facts, data)

    # rolled back: a manifest that is genuine and older than the one taken
    release(site, gone("lesson", "calm", "zh-Hans"), lesson("walk"))
    assert packs.build(site.settings, store.now())["built"]
    site.refresh()
    assert phone.take_pack(PARENT)
    assert holds(phone, PARENT) == catalogue(site, *PARENT)
    with pytest.raises(Forged, match="older"):
        phone.verified(mine["manifest"], PARENT)
    assert site.get(f"/v1/packs/{mine['sha256']}/file").status_code == 302  # who has read the old one can still fetch it
    assert site.get(f"/v1/packs/{'0' * 64}/file").status_code == 404


def test_packs_are_built_when_due_and_cleared_when_old(site: Site) -> None:
    now = store.now()
    big = [lesson(f"n-{n}", said=f"{n} 先听他说完。" * 40, audiences=["parent"]) for n in range(20)]
    release(site, *big)

    def build(after: timedelta = timedelta()) -> tuple[int, int, int]:
        counts = packs.build(site.settings, now + after)
        site.refresh()
        return counts["built"], counts["same"], counts["withdrawn"]

    def named() -> set[str]:
        return {item.content["facts"]["sha256"] for item in packs.listing(site.reader.current) if item.content}

    assert build() == (2, 0, 0)  # junior, and all stages: the same bytes
    first = named()
    assert len(first) == 1
    assert build() == (0, 0, 0)
    release(site, replace(big[0], content={**(big[0].content or {}), "title": "改"}))
    assert build() == (0, 0, 0)  # one in twenty: the sync carries it
    assert build(timedelta(days=1)) == (2, 0, 0)
    release(site, *(replace(one, content={**(one.content or {}), "title": "多"}) for one in big[:4]))
    assert build(timedelta(days=1)) == (2, 0, 0)  # a fifth
    release(site, gone("lesson", "n-3", "zh-Hans"))
    assert build(timedelta(days=1)) == (2, 0, 0)  # withdrawn
    release(site, lesson("elsewhere", audiences=["teacher"]))
    assert build(timedelta(days=1)) == (2, 0, 0)  # the teachers' own, and nothing of the parents'
    release(site, gone("lesson", "elsewhere", "zh-Hans"))
    assert build(timedelta(days=1))[2] == 2

    published.step_epoch()
    assert build(timedelta(days=1)) == (0, 2, 0)  # the same bytes, and a cursor that leads somewhere
    stored = {one.key.removeprefix("packs/") for one in objects.listing(site.settings, "packs/")}
    assert first <= stored
    packs.build(site.settings, now + timedelta(days=7, hours=1))  # those replaced on the second day are kept till the eighth
    assert first <= {one.key.removeprefix("packs/") for one in objects.listing(site.settings, "packs/")}
    packs.build(site.settings, now + timedelta(days=9))
    site.refresh()
    assert {one.key.removeprefix("packs/") for one in objects.listing(site.settings, "packs/")} == named()


def test_a_slower_builder_puts_no_older_pack_over_a_newer_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release(site, lesson("calm"))
    old = published.read()
    packs.build(site.settings, store.now())
    release(site, gone("lesson", "calm", "zh-Hans"), lesson("sleep"))
    packs.build(site.settings, store.now())
    site.refresh()
    newest = [item.content for item in packs.listing(site.reader.current)]
    monkeypatch.setattr(published, "read", lambda known=None: old)  # it read before the others began
    packs.build(site.settings, store.now())
    monkeypatch.undo()
    site.refresh()
    assert [item.content for item in packs.listing(site.reader.current)] == newest


def test_the_same_content_is_the_same_bytes_whatever_its_history(tmp_path: Path) -> None:
    items = [replace(lesson(f"n-{n}", said=MONGOL + str(n)), seq=n + 1) for n in range(5)]
    straight = Snapshot(epoch="a").after(5, items)
    crooked = Snapshot(epoch="b")
    for seq, item in enumerate(itertools.chain(reversed(items), items[:2]), 1):
        crooked = crooked.after(seq, [replace(item, seq=seq)])
    made = []
    for snapshot in (straight, crooked):
        with (tmp_path / "pack").open("wb+") as file:
            made.append(packs.write(snapshot, SELECTIONS[0], store.now(), file))
            data = gzip.decompress(file.read())
    assert made[0] == made[1]
    assert len(data) == made[0].bytes_unpacked
    assert data.decode().count(MONGOL) == 5 * 4
    assert json.loads(data.splitlines()[1])["content"]["title"] == MONGOL + "0"


# --- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["x", "AAAA", base64.b64encode(bytes(96)).decode()])
def test_a_bad_signing_key_is_refused_with_how_to_make_one(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"XINQIAO_SIGNING_KEY is not 32 bytes in base64\. Make one: python3"):
        Settings.from_env({"XINQIAO_SIGNING_KEY": bad, "XINQIAO_VAR": "/nowhere"})


def test_the_embedded_run_keeps_its_signing_key(tmp_path: Path) -> None:
    made = embedded.credentials(tmp_path)
    assert len(base64.b64decode(made["signing_key"])) == 32
    older = {name: value for name, value in made.items() if name != "signing_key"}
    embedded.keep(tmp_path / "secrets.json", json.dumps(older))
    upgraded = embedded.credentials(tmp_path)
    assert {**upgraded, "signing_key": ""} == {**older, "signing_key": ""}
    assert embedded.credentials(tmp_path) == upgraded


def test_the_key_is_named_by_its_thumbprint() -> None:
    # the key and the thumbprint of RFC 8037, appendix A
    seed = base64.b64encode(unbase("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")).decode()
    key = packs.public_key(Settings(signing_key=seed))
    assert key["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_path_begins_with_its_self_check_only_while_that_is_there(site: Site, phone: Phone) -> None:
    path = Item("path", "ours", "zh-Hans", {
        **(lesson("x").content or {}), "slug": "ours", "steps": [{"lesson": "calm", "at": 0}, {"lesson": "sleep", "at": 7}],
        "begins_with": {"check": "talk", "bands": ["low"]}, "media": [],
    })  # fmt: skip
    register = {"audiences": ["student"], "stages": ["senior"], "languages": ["zh-Hans"]}  # not held by who holds the path
    whole = Scale(TOTAL, (), bands=(Band("low", 0, 0, {}, {}),))
    check = Item("check", "talk", ANY, {"definition": to_json(Definition("talk", {}, (), (whole,))), "register": register})
    release(site, path)
    phone.sync(PARENT)
    content = phone.held[PARENT]["path", "ours"]["content"]
    assert content["steps"] == [{"slug": "calm", "at": 0}, {"slug": "sleep", "at": 7}]
    assert content["begins_with"] is None
    release(site, check)
    phone.sync(PARENT)
    assert phone.held[PARENT]["path", "ours"]["content"]["begins_with"] == {"check": "talk", "bands": ["low"]}
    release(site, gone("check", "talk", ANY))
    phone.sync(PARENT)
    assert phone.held[PARENT]["path", "ours"]["content"]["begins_with"] is None


def test_a_row_that_moves_during_the_first_read_is_there_all_the_same(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release(site, lesson("calm"))
    release(site, lesson("sleep"))
    rows, moved = published._rows, [lesson("calm", said="又改了")]

    def between(since: int, to: int) -> Iterable[Item]:
        if moved:
            item = moved.pop()
            store.transaction(lambda session: published.release(session, [item]))
        return rows(since, to)

    monkeypatch.setattr(published, "_rows", between)
    snapshot = published.read()
    assert {key: (texts["zh-Hans"].content or {})["title"] for key, texts in snapshot.entries("lesson").items()} == {
        "calm": "又改了", "sleep": "一",
    }  # fmt: skip


def test_who_knows_nothing_says_so_and_help_is_there(site: Site) -> None:
    release(site, lesson("calm"))
    site.reader._swap(Snapshot())  # born while the database is away and without a kept file
    site.reader.up = False
    for path in ("/v1/lessons", "/v1/lessons/calm", "/v1/paths", "/v1/packs"):
        assert site.get(path).status_code == 503, path
    assert site.get("/v1/help-card").json()["emergency"][0]["number"] == "110"
    assert site.get("/v1/vocabularies").status_code == 200

"""Staff: who gets in, how long, who may what, and what the trail says about it."""

import base64
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from argon2 import PasswordHasher
from pymongo.errors import DuplicateKeyError

from api import auth, create_app
from content import records, sealed, staff, store
from content.failures import Conflict, Failure, Forbidden, Invalid, NotFound, NotSignedIn, Stale, TooMany
from content.records import SYSTEM
from content.settings import Settings
from content.staff import Account, Grant, Organisation, Session
from tests.site import PASSWORD, Site

OTHER = "another-staple 7"


@pytest.fixture(autouse=True)
def ready(clean: None) -> None:
    """An empty database and a field key."""
    sealed.configure(Settings(data_key=base64.b64encode(os.urandom(96)).decode()))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[timedelta], None]]:
    """Move the process's clock forward."""
    shift = [timedelta(0)]
    present = store.now
    monkeypatch.setattr(store, "now", lambda: present() + shift[0])

    def move(by: timedelta) -> None:
        shift[0] += by

    yield move


def person(name: str, *grants: Grant, by: str = SYSTEM) -> Account:
    return staff.create_account(name, name.title(), PASSWORD, by, list(grants), must_change=False)


def refused(code: str, work: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        work()
    assert caught.value.code == code
    return caught.value


# --- signing in ------------------------------------------------------------------------------------------------------


def test_a_working_day() -> None:
    chen = person("chen", Grant("editor", division="500114"))
    tokens = staff.sign_in("chen", PASSWORD)
    actor = staff.who(tokens.access_token)
    assert (actor.id, actor.name, actor.grants) == (chen.id, "chen", (Grant("editor", division="500114"),))
    fresh = staff.refresh(tokens.refresh_token)
    assert staff.who(fresh.access_token) == actor
    assert staff.who(tokens.access_token) == actor  # requests on their way are not cut off
    staff.sign_out(fresh.access_token)
    for token in (fresh.access_token, tokens.access_token, "", "x" * 43):
        refused("session_ended", lambda token=token: staff.who(token))
    refused("session_ended", lambda: staff.refresh(fresh.refresh_token))
    staff.sign_out(fresh.access_token)  # a no-op


def test_tokens_are_stored_hashed_and_passwords_never() -> None:
    person("chen")
    tokens = staff.sign_in("chen", PASSWORD)
    dump = str([list(store.database()[name].find()) for name in store.database().list_collection_names()])
    for secret in (tokens.access_token, tokens.refresh_token, PASSWORD):
        assert secret not in dump
    lines = records.history()
    assert "Chen" not in str([(line.before, line.after) for line in lines])
    assert lines[-1].after["password_hash"] is True


def test_tokens_end(later: Callable[[timedelta], None]) -> None:
    person("chen")
    tokens = staff.sign_in("chen", PASSWORD)
    later(timedelta(minutes=31))
    refused("session_ended", lambda: staff.who(tokens.access_token))
    fresh = staff.refresh(tokens.refresh_token)
    assert fresh.refresh_expires_at == tokens.refresh_expires_at  # a copied one cannot be kept alive for ever
    refused("session_ended", lambda: staff.who(fresh.refresh_token))
    refused("session_ended", lambda: staff.refresh(fresh.access_token))
    later(timedelta(days=14))
    refused("session_ended", lambda: staff.refresh(fresh.refresh_token))


def test_a_refresh_token_used_twice_ends_its_family_and_no_other() -> None:
    person("chen")
    stolen, phone = staff.sign_in("chen", PASSWORD), staff.sign_in("chen", PASSWORD)
    thief = staff.refresh(stolen.refresh_token)
    refused("session_ended", lambda: staff.refresh(stolen.refresh_token))
    refused("session_ended", lambda: staff.who(thief.access_token))
    refused("session_ended", lambda: staff.refresh(thief.refresh_token))
    staff.who(phone.access_token)


def test_two_refreshes_at_once_give_one_pair() -> None:
    person("chen")
    for _ in range(5):
        tokens, got = staff.sign_in("chen", PASSWORD), []

        def run(token: str = tokens.refresh_token, got: list[object] = got) -> None:
            try:
                got.append(staff.refresh(token))
            except NotSignedIn:
                got.append(None)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(g is not None for g in got) == 1
        assert len(got) == 4
        refused("session_ended", lambda tokens=tokens: staff.who(tokens.access_token))  # reuse was seen


def test_failures_slow_down_and_never_lock(later: Callable[[timedelta], None]) -> None:
    person("chen")
    for _ in range(4):
        refused("wrong_credentials", lambda: staff.sign_in("chen", "wrong"))
    waits = []
    for _ in range(12):
        refused("wrong_credentials", lambda: staff.sign_in("chen", "wrong"))
        wait = refused("slow_down", lambda: staff.sign_in("chen", PASSWORD)).params["retry_after"]
        assert isinstance(wait, int)
        waits.append(wait)
        later(timedelta(seconds=wait))
    expected = [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    assert all(want - 1 <= wait <= want for wait, want in zip(waits, expected, strict=True)), waits  # the clock goes on between
    staff.sign_in("chen", PASSWORD)
    for _ in range(4):  # counted from the start again
        refused("wrong_credentials", lambda: staff.sign_in("chen", "wrong"))
    staff.sign_in("chen", PASSWORD)


def test_a_crowd_of_guesses_counts_each() -> None:
    person("chen")
    codes: list[str] = []

    def guess() -> None:
        try:
            staff.sign_in("chen", "wrong")
        except Failure as failure:
            codes.append(failure.code)

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(codes) == 12
    # no more than five are tried, however they arrive; all are refused
    assert len(codes) == 12 and 1 <= codes.count("wrong_credentials") <= 5, codes


class Counting(PasswordHasher):
    """Counts how often it was made to do the slow work."""

    count = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        Counting.count += 1
        return super().verify(hash, password)


def test_unknown_names_look_and_take_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # the work is counted and not timed: it is the same slow hash of the same cost, once, for each of them
    monkeypatch.setattr(staff, "_hasher", Counting(time_cost=1, memory_cost=64, parallelism=1))
    person("chen")
    staff.disable(person("gone").id, SYSTEM)
    for name in ("chen", "nobody", "gone"):
        for _ in range(5):
            before = Counting.count
            failure = refused("wrong_credentials", lambda name=name: staff.sign_in(name, PASSWORD if name == "gone" else "wrong"))
            assert failure.params == {}
            assert Counting.count == before + 1, name
        refused("slow_down", lambda name=name: staff.sign_in(name, "wrong"))


def test_odd_passwords_and_names_fail_plainly() -> None:
    person("chen")
    for password in ("", "\ud800", "x" * 10_000, "密码" * 50, "\x00"):
        refused("wrong_credentials", lambda password=password: staff.sign_in(f"a{abs(hash(password))}", password))
    for name in ("", "\ud800", "$ne", "chen\x00"):
        refused("wrong_credentials", lambda name=name: staff.sign_in(name, PASSWORD))
    staff.create_account("wide", "W", "ｌｏｎｇ-enough 一二三", SYSTEM)
    staff.sign_in("wide", "long-enough 一二三")  # NFKC: the same password from another keyboard


def test_sign_out_everywhere_and_disable() -> None:
    chen, admin = person("chen"), person("admin", Grant("admin"))
    first, second = staff.sign_in("chen", PASSWORD), staff.sign_in("chen", PASSWORD)
    staff.sign_out_everywhere(chen.id, chen.id)
    for tokens in (first, second):
        refused("session_ended", lambda tokens=tokens: staff.who(tokens.access_token))
        refused("session_ended", lambda tokens=tokens: staff.refresh(tokens.refresh_token))
    tokens = staff.sign_in("chen", PASSWORD)
    staff.disable(chen.id, admin.id)
    refused("session_ended", lambda: staff.who(tokens.access_token))
    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD))
    staff.edit_account(chen.id, admin.id, state="active")
    refused("session_ended", lambda: staff.who(tokens.access_token))
    staff.sign_in("chen", PASSWORD)
    assert [line.action for line in records.history(key=chen.id)][:3] == [
        "staff.edit",
        "staff.disable",
        "staff.sign_out_everywhere",
    ]


# --- passwords and second factor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    ["short", "1234567890", "password123", "aaaaaaaaaaaaaa", "chen.minmin", "CHEN.MINMIN", "chen.minmin2026!", "x" * 257],
)
def test_weak_passwords(password: str) -> None:
    with pytest.raises(Invalid) as caught:
        staff.create_account("chen.minmin", "陈敏", password, SYSTEM)
    assert caught.value.errors[0].field == "password"
    assert caught.value.errors[0].messages["zh-Hans"]


def test_passwords_change() -> None:
    admin = person("admin", Grant("admin"))
    chen = staff.create_account("chen", "陈", PASSWORD, admin.id, [Grant("editor")])
    tokens = staff.sign_in("chen", PASSWORD)
    assert tokens.must_change_password
    assert not staff.who(tokens.access_token).may("lesson.read")
    refused("wrong_credentials", lambda: staff.change_password(chen.id, "wrong", OTHER))
    refused("invalid", lambda: staff.change_password(chen.id, PASSWORD, PASSWORD))
    fresh = staff.change_password(chen.id, PASSWORD, OTHER)
    refused("session_ended", lambda: staff.who(tokens.access_token))
    assert staff.who(fresh.access_token).may("lesson.read")
    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD))

    refused("own_account", lambda: staff.set_password(admin.id, OTHER, admin.id))
    refused("not_allowed", lambda: staff.set_password(admin.id, OTHER, chen.id))
    staff.set_password(chen.id, PASSWORD, admin.id)
    refused("session_ended", lambda: staff.who(fresh.access_token))
    assert staff.sign_in("chen", PASSWORD).must_change_password


def test_second_factor(later: Callable[[timedelta], None]) -> None:
    chen, admin = person("chen"), person("admin", Grant("admin"))
    refused("wrong_credentials", lambda: staff.begin_totp(chen.id, "wrong"))
    uri = staff.begin_totp(chen.id, PASSWORD)
    secret = parse_qs(urlsplit(uri).query)["secret"][0]
    totp = pyotp.TOTP(secret)
    staff.sign_in("chen", PASSWORD)  # not confirmed: not asked
    refused("invalid", lambda: staff.confirm_totp(chen.id, "000000" if totp.at(store.now()) != "000000" else "111111"))
    spent = totp.at(store.now())
    staff.confirm_totp(chen.id, spent)
    assert secret not in str(store.database().accounts.find_one({"_id": chen.id}))

    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD))
    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD, spent))  # on confirming
    later(timedelta(seconds=60))
    code = totp.at(store.now())
    staff.sign_in("chen", PASSWORD, code)
    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD, code))  # a code works once
    later(timedelta(minutes=5))
    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD, code))
    refused("wrong_credentials", lambda: staff.sign_in("chen", PASSWORD, "１２３４５６"))

    refused("own_account", lambda: staff.drop_totp(chen.id, chen.id))
    staff.drop_totp(chen.id, admin.id)
    staff.sign_in("chen", PASSWORD)
    assert "totp_secret" in str(records.history(key=chen.id)[0].before)
    assert secret not in str([line.before for line in records.history()])


# --- who may what ----------------------------------------------------------------------------------------------------


def test_roles_keep_duties_apart() -> None:
    assert not any(p.startswith(("lesson.", "check.", "course.", "notice.")) for p in staff.ROLES["admin"])
    for role, permissions in staff.ROLES.items():
        assert permissions, role
        assert "staff.write" not in permissions or role == "admin"
        for noun in ("check", "notice"):
            assert not {f"{noun}.write", f"{noun}.approve"} <= permissions, role
    admin = person("admin", Grant("admin"))
    chen = person("chen")
    failure = refused("invalid", lambda: staff.edit_account(chen.id, admin.id, grants=[Grant("admin"), Grant("reviewer")]))
    assert isinstance(failure, Invalid)
    assert failure.errors[0].code == "separate_duties"
    staff.edit_account(chen.id, admin.id, grants=[Grant("admin"), Grant("auditor")])


def test_a_grant_is_a_role_in_an_organisation_and_a_subtree() -> None:
    school, other = "1" * 32, "2" * 32
    actor = staff.Actor("a", "a", (Grant("editor", school, "500114"), Grant("auditor")))
    assert actor.may("lesson.write")
    assert actor.may("lesson.write", school, "500114")
    assert actor.may("lesson.write", division="500114")
    assert not actor.may("lesson.write", other, "500114")
    assert not actor.may("lesson.write", school, "500000")
    assert not actor.may("lesson.write", school, "")  # the whole country is more than a subtree
    assert not actor.may("lesson.write", "", "500114")  # all organisations are more than one
    assert not actor.may("lesson.approve", school, "500114")
    assert actor.may("audit.read", "", "")
    city = staff.Actor("c", "c", (Grant("editor", division="420100"),))
    assert city.may("lesson.write", division="420106")
    assert not city.may("lesson.write", division="429004")  # 仙桃 shares digits with 湖北 and no city


def test_nobody_raises_himself() -> None:
    admin, district = person("admin", Grant("admin")), person("district", Grant("admin", division="500114"))
    for work in (
        lambda: staff.edit_account(admin.id, admin.id, grants=[Grant("admin"), Grant("auditor")]),
        lambda: staff.edit_account(admin.id, admin.id, grants=[]),
        lambda: staff.disable(admin.id, admin.id),
    ):
        refused("own_account", work)
    editor = Grant("editor", division="500114")
    chen = person("chen", editor)
    staff.edit_account(chen.id, district.id, grants=[editor, Grant("organiser", division="500114")])
    assert staff.get(chen.id).held() == (editor, Grant("organiser", division="500114"))
    for wanted in (Grant("reviewer"), Grant("reviewer", division="500000"), Grant("editor", division="110000")):
        refused("not_allowed", lambda wanted=wanted: staff.edit_account(chen.id, district.id, grants=[editor, wanted]))
    city = person("city", Grant("reviewer", division="500000"))
    for work in (
        lambda: staff.set_password(city.id, OTHER, district.id),
        lambda: staff.disable(admin.id, district.id),
        lambda: staff.create_account("puppet", "P", PASSWORD, district.id, [Grant("admin")]),
        lambda: staff.create_account("puppet", "P", PASSWORD, chen.id),
        lambda: staff.sign_out_everywhere(city.id, district.id),
        lambda: staff.drop_totp(city.id, chen.id),
    ):
        refused("not_allowed", work)
    staff.edit_account(chen.id, district.id, grants=[editor])
    revision = staff.get(chen.id).revision
    staff.edit_account(chen.id, district.id, grants=[editor])  # a no-op
    assert staff.get(chen.id).revision == revision
    assert staff.get(chen.id).held() == (editor,)


def test_grants_name_what_exists() -> None:
    admin = person("admin", Grant("admin"))
    wanted = [Grant("chief"), Grant("editor", "f" * 32), Grant("editor", "", "999999")]
    failure = refused("invalid", lambda: staff.create_account("chen", "陈", PASSWORD, admin.id, wanted))
    assert isinstance(failure, Invalid)
    assert [e.field for e in failure.errors] == ["grants.0.role", "grants.1.organisation", "grants.2.division"]
    chen = staff.create_account("chen", "陈", PASSWORD, admin.id, [Grant("editor", "", "320602"), Grant("editor", "", "000000")])
    assert staff.get(chen.id).held() == (Grant("editor", "", "320613"), Grant("editor"))
    for name in ("Chen", "c", "9chen", "chen$", "陈敏", "x" * 33, "chen\n"):
        refused("invalid", lambda name=name: staff.create_account(name, "x", PASSWORD, SYSTEM))
    with pytest.raises(DuplicateKeyError) as taken:
        person("chen")
    assert isinstance(store.failure_of(taken.value), Conflict)


def test_a_stale_edit_is_refused() -> None:
    chen = person("chen")
    staff.edit_account(chen.id, SYSTEM, revision=1, display_name="陈敏")
    with pytest.raises(Stale):
        staff.edit_account(chen.id, SYSTEM, revision=1, display_name="陈")
    with pytest.raises(NotFound):
        staff.edit_account("0" * 32, SYSTEM, display_name="陈")


def test_a_second_person_is_another_person() -> None:
    admin = person("admin", Grant("admin"))
    author, peer = person("author", by=admin.id), person("peer", by=admin.id)
    made = staff.create_account("made", "M", PASSWORD, admin.id)
    # an account that the author made, and one made by that one: as data from before duties were kept apart
    Account.rows().update_one({"_id": made.id}, {"$set": {"created_by": author.id, "password_set_by": made.id}})
    below = person("below")
    Account.rows().update_one({"_id": below.id}, {"$set": {"created_by": made.id, "password_set_by": below.id}})
    reset = person("reset", by=admin.id)
    Account.rows().update_one({"_id": reset.id}, {"$set": {"password_set_by": author.id}})
    assert staff.independent(author.id, peer.id)
    assert staff.independent(peer.id, author.id)
    assert not staff.independent(author.id, author.id)
    for puppet in (made, below, reset):
        assert not staff.independent(author.id, puppet.id)
    staff.change_password(reset.id, PASSWORD, OTHER)  # now only its owner knows it
    assert staff.independent(author.id, reset.id)
    assert not staff.independent(admin.id, peer.id)
    assert staff.independent(SYSTEM, peer.id)  # what no person wrote
    assert not staff.independent(author.id, SYSTEM)
    assert not staff.independent(author.id, "0" * 32)
    staff.disable(peer.id, admin.id)
    assert not staff.independent(author.id, peer.id)


# --- organisations ---------------------------------------------------------------------------------------------------


def test_organisations() -> None:
    admin, district = person("admin", Grant("admin")), person("district", Grant("admin", division="500114"))
    federation = staff.create_organisation("黔江区妇女联合会", "federation", "500114", district.id)
    station = staff.create_organisation("城东家庭教育指导站", "station", "500114", district.id, parent=federation.id)
    refused("not_allowed", lambda: staff.create_organisation("重庆市妇女联合会", "federation", "500000", district.id))
    refused("not_allowed", lambda: staff.edit_organisation(station.id, district.id, division="500101"))
    refused("invalid", lambda: staff.create_organisation("x", "club", "500114", admin.id))
    refused("invalid", lambda: staff.create_organisation("x", "school", "999999", admin.id))
    refused("invalid", lambda: staff.create_organisation("x", "school", "500114", admin.id, parent="f" * 32))
    refused("invalid", lambda: staff.edit_organisation(federation.id, admin.id, parent=station.id))  # above itself
    refused("invalid", lambda: staff.edit_organisation(federation.id, admin.id, parent=federation.id))
    with pytest.raises(DuplicateKeyError):
        staff.create_organisation("黔江区妇女联合会", "federation", "500114", admin.id)
    changed = staff.edit_organisation(station.id, district.id, 1, name="城东站")
    assert (changed.name, changed.parent, changed.revision) == ("城东站", federation.id, 2)
    staff.create_organisation("一中", "school", "150603", admin.id)
    listed = staff.organisations()
    assert [(o.division, o.name) for o in listed] == sorted((o.division, o.name) for o in listed)
    assert [o.id for o in staff.organisations((listed[0].division, listed[0].name))] == [o.id for o in listed[1:]]
    lecturer = person("lecturer", Grant("organiser", federation.id, "500114"))
    assert lecturer.actor().may("course.write", federation.id, "500114")
    assert not lecturer.actor().may("course.write", station.id, "500114")
    with pytest.raises(Forbidden):
        staff.create_organisation("x", "school", "500114", lecturer.id)


def test_slowing_down_is_typed() -> None:
    for _ in range(5):
        refused("wrong_credentials", lambda: staff.sign_in("nobody", "x"))
    with pytest.raises(TooMany):
        staff.sign_in("nobody", "x")
    assert Session.rows().count_documents({}) == 0
    assert Organisation.rows().count_documents({}) == 0


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_the_story_over_http(site: Site) -> None:
    admin = site.person("admin", "admin")
    made = site.post(
        "/v1/staff/accounts",
        {"name": "chen", "display_name": "陈敏", "password": PASSWORD, "grants": [{"role": "editor", "division": "500114"}]},
        by=admin,
    )
    assert made.status_code == 201
    assert made.headers["ETag"] == '"1"'
    chen = made.json()
    assert made.headers["Location"] == f"/v1/staff/accounts/{chen['id']}"
    assert chen["must_change_password"] is True
    assert chen["grants"] == [{"role": "editor", "organisation": "", "division": "500114"}]

    signed = site.post("/v1/staff/session", {"name": "chen", "password": PASSWORD})
    assert signed.status_code == 200
    assert signed.headers["Cache-Control"] == "no-store"
    site.tokens["chen"] = signed.json()["access_token"]
    assert site.get("/v1/staff/lessons", by="chen").json()["code"] == "must_change_password"
    changed = site.post("/v1/staff/me/password", {"old": PASSWORD, "new": OTHER}, by="chen")
    assert changed.status_code == 200
    assert site.get("/v1/staff/me", by="chen").status_code == 401
    site.tokens["chen"] = changed.json()["access_token"]
    assert "lesson.write" in site.get("/v1/staff/me", by="chen").json()["permissions"]

    for path in ("/v1/staff/accounts", "/v1/staff/audit"):
        reply = site.get(path, by="chen")
        assert (reply.status_code, reply.json()["code"]) == (403, "not_allowed")
    address = f"/v1/staff/accounts/{chen['id']}"
    assert site.call("PATCH", address, by=admin, json={"state": "disabled"}).status_code == 428
    assert site.call("PATCH", address, by=admin, match='"1"', json={"state": "disabled"}).status_code == 412
    read = site.get(address, by=admin)
    edited = site.call("PATCH", address, by=admin, match=read.headers["ETag"], json={"display_name": "陈敏老师"})
    assert edited.status_code == 200
    off = site.call("PATCH", address, by=admin, match=edited.headers["ETag"], json={"state": "disabled"})
    assert off.json()["state"] == "disabled"
    assert site.get("/v1/staff/me", by="chen").status_code == 401
    own = site.call("PATCH", f"/v1/staff/accounts/{site.ids['admin']}", by=admin, match='"1"', json={"state": "disabled"})
    assert (own.status_code, own.json()["code"]) == (403, "own_account")
    taken = site.post("/v1/staff/accounts", {"name": "chen", "display_name": "x", "password": PASSWORD}, by=admin)
    assert (taken.status_code, taken.json()["code"]) == (409, "exists")

    trail = site.get("/v1/staff/audit?kind=staff&limit=3", by=admin)
    rows = trail.json()["items"]
    while trail.json()["next_cursor"]:
        trail = site.get(f"/v1/staff/audit?kind=staff&limit=3&cursor={trail.json()['next_cursor']}", by=admin)
        rows += trail.json()["items"]
    assert len({row["id"] for row in rows}) == len(rows) == 5
    assert [row["action"] for row in rows if row["key"] == chen["id"]] == [
        "staff.edit", "staff.edit", "staff.set_password", "staff.create",
    ]  # fmt: skip
    assert "陈敏" not in str(rows)
    assert "argon2" not in str(rows)
    assert rows[0]["before"]["state"] == "active"


def test_no_answer_holds_a_secret(site: Site) -> None:
    admin = site.person("admin", "admin")
    me = site.ids[admin]
    raw = store.database().accounts.find_one({"_id": me})
    assert raw is not None
    for path in ("/v1/staff/me", "/v1/staff/accounts", f"/v1/staff/accounts/{me}", "/v1/staff/audit"):
        text = site.get(path, by=admin).text
        assert raw["password_hash"] not in text
        assert "password_hash" not in text or path.endswith("audit")


def test_tokens_travel_in_one_header_only(site: Site) -> None:
    admin = site.person("admin", "admin")
    good = site.tokens[admin]
    for headers in (
        {}, {"Authorization": good}, {"Authorization": f"Basic {good}"}, {"Authorization": f"Bearer {good[:-1]}"},
        {"Authorization": "Bearer " + "A" * 43}, {"Cookie": f"access_token={good}"}, {"X-Access-Token": good},
    ):  # fmt: skip
        reply = site.get(f"/v1/staff/me?access_token={good}" if not headers else "/v1/staff/me", headers=headers)
        expected = 422 if reply.status_code == 422 else 401
        assert reply.status_code == expected, headers
        if expected == 401:
            assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert site.get("/v1/staff/me", headers={"Authorization": f"bearer {good}"}).status_code == 200


def test_refresh_and_sign_out(site: Site) -> None:
    site.person("chen")
    tokens = site.post("/v1/staff/session", {"name": "chen", "password": PASSWORD}).json()
    fresh = site.post("/v1/staff/session/refresh", {"refresh_token": tokens["refresh_token"]}).json()
    site.tokens["chen"] = fresh["access_token"]
    assert site.call("DELETE", "/v1/staff/session", by="chen").status_code == 204
    assert site.call("DELETE", "/v1/staff/session", by="chen").status_code == 401
    assert site.post("/v1/staff/session/refresh", {"refresh_token": fresh["refresh_token"]}).json()["code"] == "session_ended"
    tokens = site.post("/v1/staff/session", {"name": "chen", "password": PASSWORD}).json()
    site.tokens["chen"] = tokens["access_token"]
    uri = site.post("/v1/staff/me/totp", {"password": PASSWORD}, by="chen").json()["uri"]
    code = pyotp.TOTP(parse_qs(urlsplit(uri).query)["secret"][0]).now()
    assert site.post("/v1/staff/me/totp/confirm", {"code": code}, by="chen").status_code == 204
    assert site.post("/v1/staff/session", {"name": "chen", "password": PASSWORD}).json()["code"] == "wrong_credentials"
    assert site.call("DELETE", "/v1/staff/session/all", by="chen").status_code == 204
    assert site.get("/v1/staff/me", by="chen").status_code == 401


def test_failures_over_http_say_when_to_come_back(site: Site) -> None:
    for _ in range(5):
        reply = site.post("/v1/staff/session", {"name": "nobody", "password": "wrong"})
        assert (reply.status_code, reply.json()["code"]) == (401, "wrong_credentials")
    reply = site.post("/v1/staff/session", {"name": "nobody", "password": "wrong"})
    assert (reply.status_code, reply.json()["code"]) == (429, "slow_down")
    assert 1 <= int(reply.headers["Retry-After"]) <= 2


def test_organisations_over_http(site: Site) -> None:
    admin, district = site.person("admin", "admin"), site.person("district", "admin", division="500114")
    body = {"name": "黔江区妇女联合会", "kind": "federation", "division": "500114"}
    key = {"Idempotency-Key": "a1"}
    first = site.post("/v1/staff/organisations", body, by=district, headers=key)
    again = site.post("/v1/staff/organisations", body, by=district, headers=key)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert site.post("/v1/staff/organisations", body, by=district).json()["code"] == "exists"
    assert site.post("/v1/staff/organisations", {**body, "division": "500101"}, by=district).status_code == 403
    site.post("/v1/staff/organisations", {"name": "一中", "kind": "school", "division": "150603"}, by=admin)
    page = site.get("/v1/staff/organisations?limit=1", by=district).json()
    rest = site.get(f"/v1/staff/organisations?limit=1&cursor={page['next_cursor']}", by=district).json()
    assert [row["name"] for row in page["items"] + rest["items"]] == ["一中", "黔江区妇女联合会"]
    assert rest["next_cursor"] is None
    address = first.headers["Location"]
    assert site.call("PATCH", address, by=admin, match='"1"', json={"name": "妇联"}).headers["ETag"] == '"2"'
    assert site.get("/v1/staff/organisations?cursor=WzFd", by=admin).json()["code"] == "bad_cursor"
    hidden = site.get(f"/v1/staff/accounts/{site.ids['admin']}", by=district)
    assert hidden.status_code == 404  # not within the district's reach
    assert [row["name"] for row in site.get("/v1/staff/accounts", by=district).json()["items"]] == ["district"]
    assert site.get("/v1/staff/audit", by=district).status_code == 403


def test_an_unlisted_route_stops_the_start(site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for change in (
        lambda patch: patch.delitem(auth.POLICY, "staff.audit"),
        lambda patch: patch.setitem(auth.POLICY, "staff.gone", auth.public()),
        lambda patch: patch.setitem(auth.POLICY, "staff.audit", auth.staff("audit.write")),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            with pytest.raises(RuntimeError, match=r"staff\.(audit|gone)"):
                create_app(settings, site.reader)


def test_while_the_database_is_away(site: Site) -> None:
    site.reader.up = False  # what the reader's thread says after a failed poll
    for method, path in (("GET", "/v1/staff/me"), ("POST", "/v1/staff/session"), ("GET", "/v1/staff/audit")):
        reply = site.call(method, path)
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
    assert site.get("/v1/divisions").status_code == 200

"""Promise 14: only the right people. Every route × method × role, and tokens that are missing, forged, expired, foreign."""

import re
import secrets
from datetime import timedelta
from typing import Any

import pytest

from api import auth, guard
from api.auth import POLICY, PUBLIC, SIGNED_IN
from content import staff, store
from tests.site import Site

REFUSED = {401, 403}


def endpoints(site: Site) -> list[tuple[str, str, str]]:
    """(endpoint, method, path) of every route."""
    app: Any = site.front.app
    return [
        (rule.endpoint, method, re.sub(r"<[^>]+>", "none", re.sub(r"<int[^>]+>", "2027", rule.rule)))
        for rule in app.url_map.iter_rules()
        for method in sorted(rule.methods - {"OPTIONS", "HEAD"})
    ]


@pytest.fixture
def roles(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """One person for each role, in the whole country."""
    monkeypatch.setattr(guard, "LIMITS", {})
    for role in staff.ROLES:
        site.person(f"the-{role.replace('_', '-')}", role)
    return site


def call(site: Site, method: str, path: str, **kwargs: Any) -> int:
    """Status of a request that is well-formed as far as the guard goes."""
    body = {} if method == "GET" else {"json": {}}
    return site.call(method, path, match='"1"', **body, **kwargs).status_code


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_every_route_and_role(roles: Site, every: int) -> None:
    """Each route with each role; small: with a third of them, another third for the next route."""
    count = 0
    for number, (endpoint, method, path) in enumerate(endpoints(roles)):
        needs = POLICY[endpoint].needs
        if endpoint in {"staff.sign_out", "staff.sign_out_everywhere"}:
            continue  # they would end the sessions of this test; they have their own stories
        for role, permissions in list(staff.ROLES.items())[number % every :: every]:
            status = call(roles, method, path, by=f"the-{role.replace('_', '-')}")
            told = f"{method} {path} as {role}: {status}"
            assert status < 500 or endpoint == "ops.readyz", told  # nothing is published here, so not ready
            if needs not in (PUBLIC, SIGNED_IN):
                assert (status != 403) == (needs in permissions), told
            count += 1
    print(f"{count} route × role cases")


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_without_a_live_token_nothing_of_the_staff_side_answers(roles: Site, every: int) -> None:
    reviewer = roles.tokens["the-reviewer"]
    staff.Session.rows().update_one({"_id": staff._sha(reviewer)}, {"$set": {"expires_at": store.now() - timedelta(seconds=1)}})
    bad = {
        "none": {},
        "forged": {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"},
        "expired": {"Authorization": f"Bearer {reviewer}"},
        "cut": {"Authorization": f"Bearer {roles.tokens['the-editor'][:-1]}"},
        "basic": {"Authorization": "Basic YWRtaW46YWRtaW4="},
        "in a cookie": {"Cookie": f"token={roles.tokens['the-editor']}"},
        "the hash itself": {"Authorization": f"Bearer {staff._sha(roles.tokens['the-editor'])}"},
    }
    for number, (endpoint, method, path) in enumerate(endpoints(roles)):
        if POLICY[endpoint].needs == PUBLIC:
            continue
        for name, headers in list(bad.items())[number % every :: every]:
            reply = roles.call(method, path, match='"1"', json={}, headers=headers)
            assert reply.status_code == 401, (endpoint, name, reply.status_code)
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        query = roles.call(method, f"{path}?access_token={roles.tokens['the-editor']}", match='"1"', json={})
        assert query.status_code == 401


def test_a_disabled_account_and_a_withdrawn_role_end_at_the_next_request(roles: Site) -> None:
    path = "/v1/staff/lessons"
    assert roles.get(path, by="the-editor").status_code == 200
    account = roles.get(f"/v1/staff/accounts/{roles.ids['the-editor']}", by="the-admin")
    changed = roles.call(
        "PATCH", f"/v1/staff/accounts/{roles.ids['the-editor']}", by="the-admin", match=account.headers["ETag"],
        json={"grants": [{"role": "auditor"}]},
    )  # fmt: skip
    assert changed.status_code == 200, changed.text
    assert roles.get(path, by="the-editor").status_code == 403
    off = roles.call(
        "PATCH", f"/v1/staff/accounts/{roles.ids['the-editor']}", by="the-admin", match=changed.headers["ETag"],
        json={"state": "disabled"},
    )  # fmt: skip
    assert off.status_code == 200, off.text
    assert roles.get(path, by="the-editor").status_code == 401


def test_public_routes_answer_without_a_token(roles: Site) -> None:
    for endpoint, method, path in endpoints(roles):
        signing_in = endpoint in {"staff.sign_in", "staff.refresh"}
        assert (POLICY[endpoint].needs == PUBLIC) == (signing_in or not path.startswith("/v1/staff")), endpoint
        if POLICY[endpoint].needs == PUBLIC and not endpoint.startswith("staff."):
            assert call(roles, method, path) not in REFUSED, endpoint


def test_an_unlisted_route_stops_the_start(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    from api import create_app

    short = {name: rule for name, rule in POLICY.items() if name != "lessons.index"}
    monkeypatch.setattr(auth, "POLICY", short)
    with pytest.raises(RuntimeError, match=r"no row in POLICY: lessons\.index"):
        create_app(site.settings, site.reader)
    monkeypatch.setattr(auth, "POLICY", {**POLICY, "nobody.nothing": auth.public()})
    with pytest.raises(RuntimeError, match=r"no such endpoint: nobody\.nothing"):
        create_app(site.settings, site.reader)

"""The worst bodies: as large as is allowed, wrong in as many places as fit. Each is refused quickly, and briefly."""

import time

import pytest

from api import errors, guard
from content.failures import Failure
from tests.site import Site

MANY = ",".join(["{}"] * 19_000)
SMALL = ",".join(["{}"] * 21_000)
SCORE, RETURNS = "/v1/checks/none/score", "/v1/returns"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", SCORE, f'{{"answers":[{SMALL}]}}', (400, 422)),
        ("POST", SCORE, f'{{"answers":[{{"item":"a","codes":[{"0," * 15_000}0]}}]}}', (422,)),
        ("POST", SCORE, "{" + ",".join(f'"k{n}":0' for n in range(5000)) + "}", (422,)),
        ("POST", SCORE, '{"answers":[' + ",".join(['{"a":1}'] * 499) + "]}", (422,)),
        ("POST", SCORE, f'{{"answers":[{MANY},{MANY}]}}', (413,)),
        ("POST", RETURNS, '{"nonce":"' + "1" * 70_000 + '"}', (413,)),
        ("PATCH", "/v1/staff/lessons/none", f'{{"texts":[{MANY}],"divisions":[{MANY[:9000]}]}}', (400, 422)),
        ("PATCH", "/v1/staff/checks/none", f'{{"critical":[{MANY}]}}', (422,)),
        ("PATCH", "/v1/staff/checks/none", '{"critical":[' + "{}," * 300_000 + "{}]}", (400,)),
        ("POST", "/v1/staff/lessons/batch", '{"action":"publish","items":[' + "0," * 18_000 + "0]}", (422,)),
    ],
)
def test_the_worst_body_costs_little_and_is_answered_briefly(
    site: Site, method: str, path: str, body: str, status: tuple[int, ...]
) -> None:
    if not site.tokens:
        site.person("editor", "editor")
    headers = {"Content-Type": "application/json", "If-Match": '"1"'}
    began = time.process_time()
    found = site.call(method, path, data=body, headers=headers, by="editor" if "staff" in path else "")
    assert time.process_time() - began < 1.5
    assert found.status_code in status, found.text[:300]
    assert len(found.content) < 40_000
    told = found.json()
    assert len(told.get("errors", [])) <= errors.MOST_ERRORS
    if len(told.get("errors", [])) == errors.MOST_ERRORS:
        assert told["more_errors"] is True
    if "staff" not in path:
        assert told["help"]
    if status == (413,):
        assert "64 KiB" in told["detail"]


def test_a_body_may_hold_so_many_values() -> None:
    fits = b"[" + b"0," * (guard.MAX_PARTS - 2) + b"0]"
    assert len(guard.strict_json(fits)) == guard.MAX_PARTS - 1
    with pytest.raises(Failure) as failure:
        guard.strict_json(b"[0," + fits[1:])
    assert failure.value.code == "bad_json"

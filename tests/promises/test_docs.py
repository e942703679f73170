"""Promise 20: the docs are true. What exists stands in README.md, MANUAL.md or the OpenAPI document; the tour runs as printed."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from content.failures import TEXTS
from content.settings import Settings
from content.staff import ROLES
from notifications import notices
from tests.promises.test_story import ROOT, running
from tests.site import Site

README = (ROOT / "README.md").read_text(encoding="utf-8")
MANUAL = (ROOT / "MANUAL.md").read_text(encoding="utf-8")
TOUR = re.compile(r"^```sh tour\n(.*?)^```$", re.M | re.S)


def section(title: str) -> str:
    """The text under one heading of the README or the manual."""
    return (README + MANUAL).split(f"\n## {title}\n")[1].split("\n## ")[0]


def named(text: str) -> set[str]:
    """The words in code marks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_route_is_documented_and_the_document_is_valid(site: Site) -> None:
    spec = site.get("/openapi.json").json()
    validate(spec)
    app: Any = site.front.app
    missing = []
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"{\1}", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            told = spec["paths"].get(path, {}).get(method.lower())
            if told is None and path not in named(README + MANUAL):
                missing.append(f"{method} {path}")
            elif told is not None and not told.get("summary"):
                missing.append(f"{method} {path}: without a word")
    assert missing == []


def test_settings_codes_roles_and_states_are_those_that_exist() -> None:
    assert set(Settings.ENV) <= named(section("Settings"))
    assert set(re.findall(r"\bXINQIAO_[A-Z0-9_]+", README + MANUAL)) <= {*Settings.ENV, "XINQIAO_STAFF_PASSWORD"}
    assert named(section("Errors").split("The codes:")[1]) == set(TEXTS)
    assert set(ROLES) <= named(section("Roles"))
    assert set(notices.STATES) <= named(section("Notices"))


def test_the_readme_names_no_machine_and_no_package_registry() -> None:
    assert not re.search(r"/(?:work|home|root)/|https?://(?!127\.0\.0\.1)", README + MANUAL)


@pytest.mark.slow  # a minute of starts
def test_the_tour_runs_as_printed_on_a_fresh_service(tmp_path: Path) -> None:
    script = "\n".join(TOUR.findall(README))
    assert script.count("curl") > 20
    with running(tmp_path / "var") as service:
        told = re.search(r"one-time password: (\S+)", service.said())
        phone = re.search(r"Push rehearsal +(\S+)", service.said())
        assert told and phone
        env = {k: v for k, v in os.environ.items() if k not in Settings.ENV}
        env |= {"XQ": service.base, "ONE_TIME": told[1], "PHONE": phone[1], "XINQIAO_VAR": str(service.var)}
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
        for word in ("304\n", '"12356"', '"critical":true', "cancelled\n", "in_review\napproved\npublished\n", "晚饭后走一走"):
            assert word in done.stdout, word
        notice = r"approved\n.*push_at.*\nscheduled\n(due|claimed|sent)\n.*\n.*今晚聊十分钟.*\n\d+\ncancelled\n\[\]\n"
        assert re.search(notice, done.stdout)
        assert f"unchanged {len(list((ROOT / 'content/library/lessons').glob('*.md')))}" in done.stdout
        assert "✗" not in done.stdout
        service.stop()

"""The local FCM of `make run`: conditions as strict as FCM's, lock screens that show what would arrive, nobody's address kept."""

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from content import embedded
from content.settings import Settings
from notifications import fcm, rehearsal
from notifications.conditions import parse, reaches
from notifications.outcomes import Sent
from notifications.rehearsal import Fcm

PARENT, FINAL, DONE = "d150603.parent.all.zh-Hans", "d150603.parent.senior.final.zh-Hans", "done.gaokao.2027"
FAMILY = f"'{FINAL}' in topics && !('{DONE}' in topics)"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Fcm]:
    """A rehearsal as `make run` has it."""
    with Fcm(journal=tmp_path / "pushes.jsonl") as server:
        yield server


def push(local: Fcm, value: str, kind: Any = "topic", notice: str = "n1", body: str = "心桥有一条新消息") -> Any:
    """Send one push as the service does."""
    message = fcm.Message(notice, value, "心桥", body, 3600, kind, {"notice": notice})
    return fcm.send(message, Settings(fcm_url=local.url))


def post(local: Fcm, body: bytes) -> tuple[int, Any]:
    """Post to messages:send; status and answer."""
    talk = http.client.HTTPConnection("127.0.0.1", local.port, timeout=5)
    talk.request("POST", "/v1/projects/local/messages:send", body, {"Authorization": "Bearer local"})
    answer = talk.getresponse()
    found = answer.status, json.loads(answer.read())
    talk.close()
    return found


def get(local: Fcm, path: str) -> str:
    """A page of it."""
    talk = http.client.HTTPConnection("127.0.0.1", local.port, timeout=5)
    talk.request("GET", path)
    answer = talk.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    talk.close()
    return text


def screens(page: str) -> list[str]:
    """The lock screens, as text."""
    found = re.findall(r'<section class="phone">(.*?)</section>', page, re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", one)) for one in found]


# --- conditions ------------------------------------------------------------------------------------------------------

TREES = st.recursive(
    st.sampled_from(["a", "b", "c", "d.e-f_g~h%", "E"]),
    lambda inner: st.one_of(
        st.tuples(st.just("!"), inner), st.tuples(st.sampled_from(["&&", "||"]), st.lists(inner, min_size=2, max_size=3))
    ),
    max_leaves=5,
)


def spelled(tree: Any, space: str) -> str:
    """A tree as a condition, with parentheses wherever one stands inside another."""
    if isinstance(tree, str):
        return f"'{tree}' in topics"
    if tree[0] == "!":
        return f"!({spelled(tree[1], space)})"
    return f"{space}{tree[0]}{space}".join(
        spelled(one, space) if isinstance(one, str) or one[0] == "!" else f"({spelled(one, space)})" for one in tree[1]
    )


def meant(tree: Any, topics: set[str]) -> bool:
    """What it says of a phone."""
    if isinstance(tree, str):
        return tree in topics
    if tree[0] == "!":
        return not meant(tree[1], topics)
    return (all if tree[0] == "&&" else any)(meant(one, topics) for one in tree[1])


def leaves(tree: Any) -> int:
    """How many topics it names."""
    return 1 if isinstance(tree, str) else leaves(tree[1]) if tree[0] == "!" else sum(map(leaves, tree[1]))


@given(TREES, st.sampled_from(["", " ", "  "]), st.sets(st.sampled_from(["a", "b", "c", "d.e-f_g~h%", "E", "z"])))
@settings(max_examples=100, deadline=None)
def test_a_condition_reaches_whom_it_says(tree: Any, space: str, topics: set[str]) -> None:
    text = spelled(tree, space)
    if leaves(tree) > 5:
        with pytest.raises(ValueError, match="more than 5"):
            parse(text)
    else:
        assert reaches({"condition": text}, topics) is meant(tree, topics)


@pytest.mark.parametrize(
    "text",
    [
        "", "'a'", "a in topics", "'a' in topic", "'a' in topics &&", "&& 'a' in topics", "'a' in topics & 'b' in topics",
        "'a' in topics 'b' in topics", "('a' in topics", "'a' in topics)", "()", "!'a' in topics", "'' in topics",
        "'高考' in topics",
        "'a' in topics && 'b' in topics || 'c' in topics", "'a b' in topics", '"a" in topics', "'a' IN topics", "'a in topics",
        "'a' not in topics", " || ".join(f"'{n}' in topics" for n in range(6)),
    ],
)  # fmt: skip
def test_what_fcm_would_not_read_is_an_invalid_argument(text: str, local: Fcm) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)
    assert post(local, json.dumps({"message": {"condition": text}}).encode())[0] == 400
    assert local.counts == {"INVALID_ARGUMENT": 1}


def test_one_topic_and_a_phones_own_address() -> None:
    assert reaches({"topic": PARENT}, {PARENT, FINAL}) and not reaches({"topic": PARENT}, {FINAL})
    assert not reaches({"fid": PARENT}, {PARENT}) and not reaches({"token": PARENT}, {PARENT})


# --- the page --------------------------------------------------------------------------------------------------------


def test_each_phone_shows_what_would_stand_on_its_lock_screen(local: Fcm) -> None:
    push(local, FAMILY, "condition", "exam")
    push(local, PARENT, notice="general", body="先到的")
    push(local, PARENT, notice="general", body="<script>后到的</script>")  # a duplicate replaces itself
    local.script("*", rehearsal.QUOTA, rehearsal.LOST)
    push(local, PARENT, notice="refused", body="没到的")
    push(local, PARENT, notice="lost", body="到了，回音丢了")

    family, done, other = screens(
        get(local, f"/?topics={FINAL},{PARENT}&topics={FINAL}%20{DONE}&topics=d370200.parent.all.zh-Hans")
    )
    assert family.index("回音丢了") < family.index("后到的") < family.index("心桥有一条新消息"), "the newest first"
    assert "先到的" not in family and "2 条合为一条" in family and "没到的" not in family
    assert "还没有推送" in done and "还没有推送" in other
    page = get(local, "/")
    assert len(screens(page)) == 1 and "心桥有一条新消息" in screens(page)[0], "no phone named: one with every topic"
    assert "<script>" not in page and "&lt;script&gt;后到的" in page
    assert "QUOTA_EXCEEDED 1" in page and "accepted 4" in page and "没到的" in page, "the table has every message"
    assert 'http-equiv="refresh"' in page
    edit = get(local, f"/?edit=1&topics={PARENT}")
    assert 'http-equiv="refresh"' not in edit, "or what is being typed would be lost"
    assert f'href="/?topics={PARENT}%2C{FINAL}&amp;edit=1"' in edit and DONE in edit


@pytest.mark.parametrize("kind", ["fid", "token"])
def test_the_address_of_a_phone_is_nowhere(kind: str, local: Fcm, tmp_path: Path) -> None:
    local.script("c0ffee-of-a-phone", rehearsal.UNREGISTERED)
    body = {"message": {kind: "c0ffee-of-a-phone", "notification": {"title": "心桥", "body": "心桥有一条新消息"}}}
    assert post(local, json.dumps(body).encode())[0] == 404, "scripts know it all the same"
    assert post(local, json.dumps(body).encode())[0] == 200
    journal = (tmp_path / "pushes.jsonl").read_text()
    assert [json.loads(line)["outcome"] for line in journal.splitlines()] == ["UNREGISTERED", "accepted"]
    everything = get(local, "/") + get(local, "/log") + journal + repr(local.log)
    assert "c0ffee" not in everything and f"{kind} …" in everything
    assert "心桥有一条新消息" in screens(get(local, "/"))[1]


def test_the_log_has_an_end_and_the_counts_have_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rehearsal, "JOURNAL", 20_000)
    monkeypatch.setattr(rehearsal, "LOG", 100)
    body = json.dumps({"message": {"topic": PARENT, "notification": {"title": "心桥", "body": "…"}}})
    with Fcm(journal=tmp_path / "pushes.jsonl") as local:
        talk = http.client.HTTPConnection("127.0.0.1", local.port, timeout=5)
        for _ in range(150):  # on one connection
            talk.request("POST", "/v1/projects/local/messages:send", body, {"Authorization": "Bearer local"})
            assert talk.getresponse().read()
        talk.close()
        assert len(local.sends()) == 100
        assert local.counts == {"accepted": 150} == json.loads(get(local, "/counts"))
        assert "共 150 条" in get(local, "/") and "最近 100 条" in get(local, "/")
    assert all(0 < file.stat().st_size < 21_000 for file in (tmp_path / "pushes.jsonl.1", tmp_path / "pushes.jsonl"))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b'{"message": []}', b'{"message": {"topic": 5}}', b'{"message": {"topic": "a", "android": 5}}',
        b'{"message": {"topic": "a", "data": {"a": 1}}}', b'{"message": {"topic": "a", "notification": []}, "x": 1}', b"\xff",
        b'{"message": {"topic": "a", "fid": "b"}}', b'{"message": {"topic": "a", "data": {"google.a": "1"}}}',
        json.dumps({"message": {"topic": "a", "notification": {"body": "x" * 2100}}}).encode(),
    ],
)  # fmt: skip
def test_whatever_is_posted_is_answered_and_shown(body: bytes, local: Fcm) -> None:
    status, answer = post(local, body)
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "INVALID_ARGUMENT" in get(local, "/")


def test_a_request_that_was_cut_has_not_arrived(local: Fcm) -> None:
    """As when its worker is killed while it writes."""
    with socket.create_connection(("127.0.0.1", local.port)) as line:
        line.sendall(b'POST /v1/projects/local/messages:send HTTP/1.1\r\nContent-Length: 900\r\n\r\n{"message": {')
        line.shutdown(socket.SHUT_WR)
        assert line.recv(100) == b""
    assert not local.sends() and not local.counts


def test_it_runs_by_itself_and_stops_when_told(tmp_path: Path) -> None:
    port = embedded.ports(embedded.folder(tmp_path / "var"), ("fcm",))["fcm"]
    argv = [sys.executable, "-m", "notifications.rehearsal", "--port", str(port), "--journal", str(tmp_path / "p.jsonl")]
    child = embedded.Child("fcm", argv, tmp_path / "fcm.log", ready=lambda: embedded.answers(f"http://127.0.0.1:{port}/counts"))
    embedded.start(child)
    embedded.wait_ready(child)
    process = child.process
    assert isinstance(process, subprocess.Popen)
    assert isinstance(fcm.send(fcm.Message("n1", PARENT, "心桥", "…", 60), Settings(fcm_url=f"http://127.0.0.1:{port}")), Sent)
    assert (tmp_path / "p.jsonl").read_text().count("\n") == 1
    embedded.stop(child)
    assert process.returncode == 0

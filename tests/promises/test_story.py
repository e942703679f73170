"""The whole story over real HTTP: `xinqiao serve` with its real children, from the first sign-in to the last process.

The district's clock stands at noon: XINQIAO_ZONE is the zone in which it is twelve now, so an ordinary notice (not an urgent
one) leaves at once at any hour of the day, and no quiet hours begin while the test runs.
"""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import psutil
import pytest
import requests
from PIL import Image
from pymongo import MongoClient

from content.settings import Settings
from tests.doubles.fake_fcm import FakeFcm
from tests.site import WITH_LIBRARY, library

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
ADMIN = "the admin's first password"
DIVISION = "150603"


def until(true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for it, and say what did not come."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.05)
    return found


def noon() -> str:
    """A zone in which it is between twelve and one now. Its sign is turned: Etc/GMT-8 is eight hours ahead of UTC."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


class Service:
    """`xinqiao serve` with everything it starts, on a folder and a port of its own."""

    def __init__(self, var: Path, content: Path | None, **more: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        self.var, self.base, self.out = var, f"http://127.0.0.1:{port}", var.with_suffix(".out")
        self.env = {k: v for k, v in os.environ.items() if k not in Settings.ENV} | {"XINQIAO_VAR": str(var)}
        program = ["-c", WITH_LIBRARY, str(content)] if content else ["-m", "api.cli"]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *program, "serve"], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                env=self.env | {"XINQIAO_PORT": str(port), "XINQIAO_ZONE": noon(), **more},
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
            )  # fmt: skip

    def said(self) -> str:
        """What it printed."""
        return self.out.read_text()

    def command(self, *words: str) -> str:
        """A `xinqiao` command in another shell; returns what it printed."""
        argv = [sys.executable, "-m", "api.cli", *words]
        done = subprocess.run(argv, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stored(self) -> dict[str, list[bytes]]:
        """Every document of the database, by collection."""
        found = Settings.from_env({"XINQIAO_VAR": str(self.var)})
        with MongoClient[dict[str, Any]](found.mongodb_uri) as client:
            db = client[found.database]
            return {name: sorted(map(bson.encode, db[name].find())) for name in sorted(db.list_collection_names())}

    def stop(self) -> None:
        """SIGINT, as Ctrl-C; then nothing is left of it."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        assert len(family) >= 7  # database, S3, granian and two workers, the Celery worker, beat
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0, self.said()
        _, left = psutil.wait_procs(family, 20)
        assert not left
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{self.base}/healthz", timeout=2)


@contextlib.contextmanager
def running(var: Path, content: Path | None = None, **more: str) -> Iterator[Service]:
    """A service that is ready, with the starter library or `content`; killed at the end when the test has not stopped it."""
    service = Service(var, content, **more)
    try:
        until(lambda: "Xinqiao is ready" in service.said() or service.process.poll() is not None, "the start", 90)
        assert service.process.poll() is None, service.said()
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()  # the kernel ends its children
            service.process.wait()


class Person:
    """Someone with a client: a parent or a student without a name, or one of the staff."""

    def __init__(self, base: str, language: str = "zh-CN") -> None:
        self.base, self.http = base, requests.Session()
        self.http.headers["Accept-Language"] = language

    def call(self, method: str, path: str, body: Any = None, expect: int = 200, **headers: str) -> requests.Response:
        """One request; `If_Match="…"` is a header."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = self.http.request(method, self.base + path, json=body, headers=names, timeout=20, allow_redirects=False)
        assert reply.status_code == expect, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply

    def get(self, path: str, expect: int = 200, **headers: str) -> Any:
        """A GET, as JSON."""
        return self.call("GET", path, expect=expect, **headers).json()

    def post(self, path: str, body: Any = None, expect: int = 200, **headers: str) -> Any:
        """A POST, as JSON."""
        return self.call("POST", path, {} if body is None else body, expect, **headers).json()

    def move(self, path: str, verb: str, body: Any = None, expect: int = 200) -> Any:
        """Read something, then do `verb` to what was read: POST path/verb with the ETag as If-Match."""
        tag = self.call("GET", path).headers["ETag"]
        reply = self.call("POST", f"{path}/{verb}", {} if body is None else body, expect, If_Match=tag)
        return reply.json()

    def there(self, path: str) -> Any:
        """A GET of what was just published: every API process has it within half a second (this client keeps to one)."""
        until(lambda: self.http.get(self.base + path, timeout=20).status_code == 200, path)
        return self.get(path)

    def sign_in(self, name: str, password: str, new: str = "") -> "Person":
        """Sign in; with a `new` password, change the given one first, as one must."""
        tokens = self.post("/v1/staff/session", {"name": name, "password": password})
        self.http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        assert tokens["must_change_password"] == bool(new)
        if new:
            refused = self.get("/v1/staff/lessons", 403)
            assert refused["code"] == "must_change_password"
            tokens = self.post("/v1/staff/me/password", {"old": password, "new": new})
            self.http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        return self


@pytest.mark.slow
def test_the_whole_story(tmp_path: Path) -> None:
    fcm_of = FakeFcm()
    more = {"XINQIAO_ADMIN_PASSWORD": ADMIN, "XINQIAO_DIVISION": DIVISION, "XINQIAO_FCM_URL": fcm_of.url}
    small = library(tmp_path / "content", "lessons/last-month-before-the-exam.md", "directory.json")
    with fcm_of as fcm, running(tmp_path / "var", small, **more) as service:
        parent, student = Person(service.base), Person(service.base, "en")

        # -- the administrator makes an organisation and three people, who change the passwords they were given
        admin = Person(service.base).sign_in("admin", ADMIN)
        federation = admin.post(
            "/v1/staff/organisations", {"name": "康巴什区妇女联合会", "kind": "federation", "division": DIVISION}, 201
        )["id"]
        staff = {}
        for name, roles in (("editor", ["editor", "reviewer"]), ("reviewer", ["reviewer"]), ("organiser", ["organiser"])):
            given, own = f"given to the {name}", f"chosen by the {name}"
            grants = [{"role": role, "division": DIVISION} for role in roles]
            admin.post("/v1/staff/accounts", {"name": name, "display_name": name, "password": given, "grants": grants}, 201)
            staff[name] = Person(service.base).sign_in(name, given, own)
        editor, reviewer, organiser = staff["editor"], staff["reviewer"], staff["organiser"]

        # -- a lesson: written, refused to its own author, approved by another, published
        lesson, text = "/v1/staff/lessons/evening-walk", {"language": "zh-Hans"}
        editor.post(
            "/v1/staff/lessons",
            {
                "slug": "evening-walk", "organisation": federation, "kind": "tip", "audiences": ["parent"], "stages": ["junior"],
                "topics": ["parenting"], "divisions": [DIVISION], "sources": [{"title": "自编"}],
                "texts": [{**text, "title": "晚饭后走一走", "summary": "二十分钟。", "body": "一起走走，**听**孩子说。"}],
            },
            201,
        )  # fmt: skip
        parent.get("/v1/lessons/evening-walk", 404)
        editor.move(lesson, "submit", text)
        assert editor.move(lesson, "approve", text, 403)["code"] == "second_person"  # reviewing is one of the editor's roles too
        reviewer.move(lesson, "approve", text)
        reviewer.move(lesson, "publish", text)

        # -- a parent lists it, reads it, and asks again without paying for it
        assert parent.there("/v1/lessons/evening-walk")["html"] == "<p>一起走走，<strong>听</strong>孩子说。</p>\n"
        listed = parent.get("/v1/lessons?audience=parent&stage=junior&topic=parenting")["items"]
        assert "evening-walk" in [row["slug"] for row in listed]
        etag = parent.call("GET", "/v1/lessons/evening-walk").headers["ETag"]
        again = parent.call("GET", "/v1/lessons/evening-walk", expect=304, If_None_Match=etag)
        assert not again.content

        # -- a picture: announced, sent to S3 by its signed form, accepted, fetched by a parent through the redirect
        png = io.BytesIO()
        Image.new("RGB", (64, 48), "teal").save(png, "PNG")
        form = editor.post(
            "/v1/staff/media",
            {"content_type": "image/png", "size": len(png.getvalue()), "alt": [{**text, "text": "一条小路"}]},
            201,
        )
        sent = requests.post(form["url"], data=form["fields"], files={"file": ("path.png", png.getvalue())}, timeout=20)
        assert sent.status_code in {200, 204}, sent.text
        picture = editor.post(f"/v1/staff/media/{form['id']}/accept")
        assert parent.there(f"/v1/media/{picture['sha256']}")["alt"] == "一条小路"
        fetched = parent.http.get(f"{service.base}/v1/media/{picture['sha256']}/file", timeout=20)
        assert [hop.status_code for hop in fetched.history] == [302]
        with Image.open(io.BytesIO(fetched.content)) as image:
            assert (image.format, image.size) == ("PNG", (64, 48))

        # -- a questionnaire: imported twice, its register completed, approved by a second person
        assert "new 1" in service.command("import", "checks", str(DATA / "phq9.json"))
        assert "unchanged 1" in service.command("import", "checks", str(DATA / "phq9.json"))
        check = "/v1/staff/checks/phq9"
        gaps = editor.move(check, "submit", expect=409)
        assert gaps["code"] == "incomplete"
        assert "approver" in gaps["detail"]
        tag = editor.call("GET", check).headers["ETag"]
        editor.call("PATCH", check, {"approver": "示例专家", "approval_number": "2026-1"}, If_Match=tag)
        editor.move(check, "submit")
        assert editor.move(check, "approve", expect=403)["code"] == "second_person"
        reviewer.move(check, "approve")
        reviewer.move(check, "publish")

        # -- a student answers: a total, help beside it, and nothing stored
        questions = student.there("/v1/checks/phq9")
        before = service.stored()
        answers = [{"item": f"H1/T1/Q{n}", "code": "More than half the days"} for n in range(1, 9)]
        answers.append({"item": "H1/T1/Q9", "code": "Several-days"})
        scored = student.post(
            "/v1/checks/phq9/score", {"version": questions["version"], "division": DIVISION, "answers": answers}
        )
        assert (scored["total"], scored["maximum"], scored["band"], scored["critical"]) == (17, 27, None, True)
        assert scored["message"]  # instead of a band: whoever says "now" is not told how things are going
        numbers = [phone["number"] for line in scored["help"]["lines"] for phone in line["phones"]]
        assert "12356" in numbers
        assert {row["number"] for row in scored["help"]["emergency"]} == {"110", "120"}
        assert service.stored() == before

        # -- a course: planned, seen by a second person, published; a parent books, looks, cancels by the code alone
        course = organiser.post(
            "/v1/staff/courses",
            {
                "texts": [{**text, "title": "家长夜校"}], "format": "salon", "organisation": federation, "division": DIVISION,
                "topics": ["parenting"], "audiences": ["parent"],
            },
            201,
        )["id"]  # fmt: skip
        assert organiser.move(f"/v1/staff/courses/{course}", "publish", expect=403)["code"] == "second_person"
        reviewer.move(f"/v1/staff/courses/{course}", "approve")
        organiser.move(f"/v1/staff/courses/{course}", "publish")
        day = (datetime.now(UTC) + timedelta(days=7)).date()
        session = organiser.post(
            "/v1/staff/sessions",
            {
                "series": course, "starts_at": f"{day}T19:00", "ends_at": f"{day}T20:30", "zone": "Asia/Shanghai",
                "place": "community", "venue": {"name": [{**text, "text": "社区活动室"}]}, "capacity": 2,
            },
            201,
        )["id"]  # fmt: skip
        organiser.move(f"/v1/staff/sessions/{session}", "publish")
        assert parent.there(f"/v1/sessions/{session}")["starts_at"] == f"{day}T19:00:00+08:00"
        assert parent.get(f"/v1/sessions?division={DIVISION}&series={course}")["items"][0]["id"] == session
        family = {"seats": 2, "family_name": "王", "phone": "13800138000"}
        booked = parent.post(f"/v1/sessions/{session}/bookings", family, 201)
        assert parent.post(f"/v1/sessions/{session}/bookings", family, 409)["code"] == "full"
        [row] = organiser.get(f"/v1/staff/sessions/{session}/bookings")["items"]
        assert (row["family_name"], row["seats"]) == ("王", 2)
        assert parent.get(f"/v1/bookings/{booked['code']}")["places"][0]["state"] == "confirmed"
        assert parent.call("DELETE", f"/v1/bookings/{booked['code']}").json()["places"][0]["state"] == "cancelled"
        assert organiser.get(f"/v1/staff/sessions/{session}")["seats_taken"] == 0
        assert b"13800138000" not in b"".join(b"".join(rows) for rows in service.stored().values())

        # -- a notice of the 高考 season: confirmed dates, a second person, then phones and the inbox
        year = datetime.now(UTC).year
        for each in (year, year + 1):
            organiser.post(
                "/v1/staff/seasons",
                {"code": "gaokao", "division": DIVISION, "first": f"{each}-06-07", "last": f"{each}-06-09"},
                201,
            )
        june = parent.get(f"/v1/seasons?division={DIVISION}&stage=senior.final&audience=parent&on={year + 1}-06-01")["items"]
        season = next(one for one in june if one["code"] == "gaokao")
        assert "last-month-before-the-exam" in season["lessons"]
        assert (season["code"], season["starts_in"], season["provisional"]) == ("gaokao", 6, False)
        notice = organiser.post(
            "/v1/staff/notices",
            {
                "season": "gaokao", "divisions": [DIVISION], "audiences": ["parent"], "stages": ["senior.final"],
                "texts": [{**text, "title": "备考小贴士", "body": "给家里准备了几个小办法。"}], "lessons": season["lessons"],
            },
            201,
        )["id"]  # fmt: skip
        segment = f"division={DIVISION}&audience=parent&stage=senior.final"
        assert parent.get(f"/v1/notices?{segment}")["items"] == []
        assert organiser.move(f"/v1/staff/notices/{notice}", "approve", expect=403)["code"] == "not_allowed"
        reviewer.move(f"/v1/staff/notices/{notice}", "approve")
        organiser.move(f"/v1/staff/notices/{notice}", "schedule", {"send_at": datetime.now(UTC).isoformat()})
        [push] = until(fcm.sends, "the push", 360)  # around a quarter of an hour it is held for five minutes
        until(lambda: organiser.get(f"/v1/staff/notices/{notice}")["state"] == "sent", "the notice to be sent")
        assert push.outcome == "accepted"
        assert push.target in parent.get(f"/v1/topics?{segment}")["topics"]
        assert push.message["notification"] == {"title": "心桥", "body": "心桥有一条新消息"}  # no topic on a lock screen
        assert push.message["data"] == {"notice": notice}
        [entry] = until(lambda: parent.get(f"/v1/notices?{segment}")["items"], "the inbox")
        assert (entry["id"], entry["title"]) == (notice, "备考小贴士")

        # -- everything is in the trail, and Ctrl-C ends everything
        trail = [line["action"] for line in admin.get("/v1/staff/audit?limit=200")["items"]]
        assert {"lesson.publish", "check.approve", "notice.schedule"} <= set(trail)
        service.stop()
        assert not re.search(r"Traceback|\b(13800138000|given to the|chosen by the)\b", logs(service))


def logs(service: Service) -> str:
    """All that was logged and printed."""
    return service.said() + "".join(file.read_text() for file in (service.var / "log").iterdir())

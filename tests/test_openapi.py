"""The OpenAPI document equals what is answered: a story walks the routes of lessons, paths, desk and search and compares.

What is answered and not documented fails at once, so does another type and a null that is not announced; what is documented and
was answered nowhere in the story fails at its end. The headers that an operation promises are tried as well.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import requests

from content import lessons, store
from content.records import SYSTEM
from notifications.notices import Notice
from tests.site import Site
from tests.test_desk import accepted, release

TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array", dict: "object"}
CHECK_IN = {"question": "做到了吗？", "did": "真好。", "partly": "一点也算。", "not_yet": "明天再来。"}
FACTS: dict[str, Any] = {
    "audiences": ["parent"], "stages": ["junior"], "topics": ["emotion"], "kind": "tip",
    "sources": [{"title": "本项目", "url": "https://example.org"}],
}  # fmt: skip
TEXT = {"title": "先听一听", "summary": "陪一会儿。", "body": "先听。\n再说。", "try_this": "今晚问一句。", "check_in": CHECK_IN}


class Document:
    """The OpenAPI document, and which keys of its named schemas have been answered."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.paths, self.schemas = spec["paths"], spec["components"]["schemas"]
        self.seen: dict[str, set[str]] = {}

    def operation(self, method: str, rule: str) -> tuple[dict[str, Any], set[str]]:
        """One operation and the headers that it reads."""
        told = self.paths[rule][method.lower()]
        return told, {row["name"] for row in told.get("parameters", []) if row["in"] == "header"}

    def faults(self, schema: dict[str, Any], value: Any, where: str, seen: dict[str, set[str]]) -> Iterator[str]:
        """Where an answer is not what is documented; the keys of named schemas are put into `seen`."""
        name = ""
        while "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            schema = self.schemas[name]
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                tried: list[tuple[list[str], dict[str, set[str]]]] = []
                for one in schema[choice]:
                    own: dict[str, set[str]] = {}
                    tried.append((list(self.faults(one, value, where, own)), own))
                wrong, own = min(tried, key=lambda pair: len(pair[0]))
                for key, names in own.items():
                    seen.setdefault(key, set()).update(names)
                yield from wrong
                return
        types = schema.get("type", [])
        kinds = {TYPES[type(value)], "number"} if type(value) is int else {TYPES[type(value)]}  # a whole number is a number
        if types and not kinds & ({types} if isinstance(types, str) else set(types)):
            yield f"{where}: {value!r:.60} where {types} is documented"
        elif isinstance(value, dict):
            known = schema.get("properties", {})
            if name:
                seen.setdefault(name, set()).update(value)
            for key, below in value.items():
                part = known.get(key, schema.get("additionalProperties") or None)
                if part is not None:
                    yield from self.faults(part, below, f"{where}.{key}", seen)
                else:
                    yield f"{where}.{key}: answered, not documented"
        elif isinstance(value, list):
            for row in value:
                yield from self.faults(schema["items"], row, f"{where}[]", seen)

    def compare(self, told: dict[str, Any], reply: requests.Response, where: str) -> None:
        """An answer with its operation."""
        content = told["responses"][str(reply.status_code)].get("content")
        if reply.status_code == 204:
            assert not content and not reply.content, where
            return
        assert content and content["application/json"]["schema"], f"{where}: no schema"
        assert list(self.faults(content["application/json"]["schema"], reply.json(), where, self.seen)) == []

    def untold(self) -> list[str]:
        """What the schemas met in the story document and no answer had."""
        return [
            f"{name}.{key}: documented, never answered"
            for name, keys in sorted(self.seen.items())
            for key in sorted(self.schemas[name].get("properties", {}).keys() - keys)
        ]


class Walk:
    """Asks, and compares each answer with the document."""

    def __init__(self, site: Site) -> None:
        self.site, self.document = site, Document(site.get("/openapi.json").json())
        self.tried: set[tuple[str, str]] = set()

    def get(self, rule: str, query: str = "", by: str = "", *, language: str = "mn-Mong", **names: str) -> Any:
        """A 200, again by its ETag when that is promised."""
        told, headers = self.document.operation("get", rule)
        path = rule.format(**names) + query
        asked = {"Accept-Language": language}
        reply = self.site.get(path, by=by, headers=asked)
        assert reply.status_code == 200, (path, reply.text)
        self.document.compare(told, reply, path)
        if not by:
            assert ("If-None-Match" in headers) == ("ETag" in reply.headers), path
        if "If-None-Match" in headers:
            again = self.site.get(path, by=by, headers={**asked, "If-None-Match": reply.headers["ETag"]})
            assert again.status_code == 304, path
        return reply.json()

    def send(self, method: str, rule: str, body: Any, by: str, status: int = 200, **names: str) -> Any:
        """A write; the first of its kind too without If-Match when that is promised (428), and again with its Idempotency-Key."""
        told, headers = self.document.operation(method, rule)
        path = rule.format(**names)
        match, new = "", (method, rule) not in self.tried
        self.tried.add((method, rule))
        if "If-Match" in headers:
            if new:
                refused = self.site.call(method, path, json=body, by=by)
                assert refused.status_code == 428, (path, refused.text)
            record = rule.split("{slug}")[0].format(**names) + names["slug"]
            match = self.site.get(record, by=by).headers["ETag"]
        key = {"Idempotency-Key": "the first"} if new else {}
        reply = self.site.call(method, path, json=body, by=by, match=match, headers=key)
        assert reply.status_code == status, (path, reply.text)
        self.document.compare(told, reply, path)
        if new and "Idempotency-Key" in headers:
            again = self.site.call(method, path, json=body, by=by, match=match, headers=key)
            assert (again.headers.get("Idempotent-Replayed"), again.content) == ("true", reply.content), path
        return None if status == 204 else reply.json()


def test_lessons_paths_and_the_desk_answer_what_is_documented(site: Site) -> None:
    walk = Walk(site)
    edi, rev = site.person("edi", "editor"), site.person("rev", "reviewer")
    zh, picture = {"language": "zh-Hans"}, "a" * 64
    soon, late = ((store.now() + timedelta(days=days)).isoformat() for days in (1, 9))
    shown = accepted(picture)

    # a lesson with all that one can have, another that came from elsewhere, and a path over both
    facts = {
        **FACTS, "seasons": ["gaokao"], "divisions": ["150603"], "media": [picture], "help": True, "reviewed_by": "王老师",
        "review_due": "2020-01-01",
    }  # fmt: skip
    texts = [
        {"language": "zh-Hans", **TEXT, "minutes": 3},
        {"language": "en", **TEXT, "title": "Listen first", "made_from": "zh-Hans"},
        {"language": "zh-Hans-x-parent", **TEXT, "made_from": "zh-Hans", "needs_translator": True},
    ]
    walk.send("POST", "/v1/staff/lessons", {"slug": "listen", **facts, "texts": texts}, edi, 201)
    elsewhere = {"zh-Hans": {**TEXT, "body": "[先听](lesson:listen)", "licence": "CC BY 4.0"}}
    release(lessons.create("second", FACTS, elsewhere, SYSTEM))
    steps = [{"lesson": "listen", "at": 0}, {"lesson": "second", "at": 1}]
    about = {k: FACTS[k] for k in ("audiences", "stages", "topics")} | {"pace": {"unit": "day", "from": "start"}, "steps": steps}
    told = [{**zh, "title": "一周", "summary": "每天一点"}, {"language": "en", "title": "A week"}]
    walk.send("POST", "/v1/staff/paths", {"slug": "week", **about, "texts": told}, edi, 201)
    Notice(
        lessons=["listen"], audiences=["parent"], texts={"zh-Hans": {"title": "a", "body": "b"}}, created_by=SYSTEM,
        expires_at=store.now() + timedelta(days=1), divisions=["150603"],
    ).save()  # fmt: skip

    for noun, slug in (("lessons", "listen"), ("paths", "week")):
        rule = f"/v1/staff/{noun}/{{slug}}"

        def move(verb: str, by: str = rev, rule: str = rule, slug: str = slug, **body: Any) -> Any:
            return walk.send("POST", f"{rule}/{verb}", {**zh, **body}, by, slug=slug)

        first = walk.send("POST", f"{rule}/comments", {**zh, "field": "title", "text": "好"}, edi, 201, slug=slug)
        walk.send("POST", f"{rule}/comments", {"reply_to": first["id"], "text": "谢谢"}, rev, 201, slug=slug)
        thread = f"{rule}/comments/{{comment_id}}"
        closed = walk.send("POST", f"{thread}/resolve", {}, rev, slug=slug, comment_id=first["id"])
        assert (closed["by_name"], closed["resolved_by_name"]) == ("edi", "rev")
        walk.send("POST", f"{thread}/reopen", {}, rev, slug=slug, comment_id=first["id"])
        assert [one["by_name"] for one in walk.get(f"{rule}/comments", by=edi, slug=slug)["items"]] == ["edi", "rev"]
        previewed = [(slug, "zh-Hans"), *([(slug, "en"), ("second", "zh-Hans")] if noun == "lessons" else [])]
        for one, language in previewed:
            address = walk.send("POST", f"{rule}/preview", {"language": language}, edi, 201, slug=one)["address"]
            walk.get("/v1/previews/{token}", token=address.rsplit("/", 1)[1])
        assert walk.send("DELETE", f"{rule}/previews", None, edi, slug=slug)["revoked"] > 0

        move("submit", edi)
        move("send-back", note="请再看看")
        move("submit", edi)
        assert move("approve")["open_comments"] == 1
        old = move("publish", expires_at=late)["stands"]["zh-Hans"]["version"]
        walk.send("PATCH", rule, {"texts": [{**zh, "summary": "陪一会儿，\n再说。"}]}, edi, slug=slug)
        move("submit", edi)
        move("approve")
        waits = move("publish", at=soon, expires_at=late)["stands"]["zh-Hans"]
        assert (waits["state"], waits["publish_at"]) == ("approved", soon)
        assert "publish_at" not in move("send-back", note="先不发")["stands"]["zh-Hans"]
        move("submit", edi)
        move("approve")
        assert move("publish")["stands"]["zh-Hans"]["number"] == 2
        lines = walk.get(f"{rule}/versions", "?language=zh-Hans", edi, slug=slug)["items"]
        assert [(one["number"], one["by_name"]) for one in lines] == [(2, "rev"), (1, "rev")]
        changes = walk.get(f"{rule}/versions", f"?language=zh-Hans&old={old}", edi, slug=slug)["changes"]
        assert [one["field"] for one in changes] == ["summary"] and changes[0]["diff"]
        if noun == "lessons":
            release(lessons.by_slug(slug), "en")
            assert [one["made_from"] for one in walk.get("/v1/staff/lessons/stale", by=edi)["items"][0]["editions"]]
        move("roll-back", version=old)
        walk.get(f"/v1/staff/{noun}", by=edi)
        walk.get(rule, by=edi, slug=slug)
        draft = {"slug": "nothing", **(FACTS if noun == "lessons" else about), "texts": told[:1]}
        walk.send("POST", f"/v1/staff/{noun}", draft, edi, 201)
        walk.send("DELETE", rule, None, edi, 204, slug="nothing")

    walk.get("/v1/staff/lessons/{slug}", by=edi, slug="second")
    walk.get("/v1/staff/lessons/{slug}/used-in", by=edi, slug="listen")
    walk.get("/v1/staff/media/{media_id}/used-in", by=edi, media_id=str(shown.id))
    walk.get("/v1/staff/lessons/aging", by=edi)
    many = {"items": [{"slug": "listen"}, {"slug": "nowhere"}], **zh, "action": "withdraw"}
    assert [one["ok"] for one in walk.send("POST", "/v1/staff/lessons/batch", many, rev)["items"]] == [True, False]

    site.refresh()
    for noun, slug in (("lessons", "listen"), ("lessons", "second"), ("paths", "week")):
        walk.get(f"/v1/{noun}")
        for language in ("mn-Mong", "en"):
            walk.get(f"/v1/{noun}/{{slug}}", language=language, slug=slug)
    for words in ("先听", "一周", "qqqq", "想死"):
        walk.get("/v1/search", f"?q={words}")

    for language in ("en", "zh-Hans"):
        lost = walk.send("POST", "/v1/staff/lessons/{slug}/withdraw", {"language": language}, rev, slug="listen")["warnings"]
    assert [(one["kind"], one["key"]) for one in lost] == [("lesson", "second"), ("path", "week")]
    walk.send("POST", "/v1/staff/paths/{slug}/withdraw", zh, rev, slug="week")
    assert walk.document.untold() == []

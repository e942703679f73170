"""A phone, as small as an app's sync can be: its own code, made from what the API's document says and from nothing of ours.

It holds one item a key for each selection and media by hash, counts what it fetched, and believes nothing that its pinned key
did not sign.
"""

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Selection = tuple[str, str, str]  # audience, stage, language
Held = dict[tuple[str, str], dict[str, Any]]


class Forged(Exception):
    """What was fetched is not what the pinned key signed."""


def unbase(text: str) -> bytes:
    """Bytes of base64url without padding."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def thumbprint(key: dict[str, str]) -> str:
    """RFC 7638, of an Ed25519 key."""
    text = json.dumps({name: key[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@dataclass
class Phone:
    """One phone; `key` is the JWK that its app was built with."""

    base: str
    key: dict[str, str]
    held: dict[Selection, Held] = field(default_factory=dict)
    cursors: dict[Selection, str] = field(default_factory=dict)
    taken: dict[Selection, dict[str, Any]] = field(default_factory=dict)
    """The manifest of the last pack."""
    media: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    """Hash of every medium asked for."""
    bytes: int = 0
    """Item bytes received by sync."""
    restarts: int = 0
    http: requests.Session = field(default_factory=requests.Session)

    def ask(self, path: str, **query: Any) -> requests.Response:
        """A GET."""
        return self.http.get(self.base + path, params=query, timeout=20)

    # -- packs

    def verified(self, manifest: str, wanted: Selection) -> dict[str, Any]:
        """The facts of a manifest. Raises `Forged` unless the pinned key signed them, for this selection, and no older than what
        was taken before."""
        try:
            head, body, signature = manifest.split(".")
            header, facts = json.loads(unbase(head)), json.loads(unbase(body))
            if (header["alg"], header["typ"], header["kid"]) != ("EdDSA", "xinqiao-pack+jws", thumbprint(self.key)):
                raise Forged("another key or algorithm")
            Ed25519PublicKey.from_public_bytes(unbase(self.key["x"])).verify(unbase(signature), f"{head}.{body}".encode())
        except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature) as error:
            raise Forged(type(error).__name__) from None
        if facts["format"] != 1 or (facts["audience"], facts["stage"], facts["language"]) != wanted:
            raise Forged("for another selection")
        old = self.taken.get(wanted)
        if old and (facts["built_at"] < old["built_at"] or (facts["epoch"] == old["epoch"] and facts["seq"] < old["seq"])):
            raise Forged("older than what was taken before")
        return facts  # type: ignore[no-any-return]

    def unpacked(self, facts: dict[str, Any], data: bytes) -> Held:
        """The items of a fetched pack. Raises `Forged` unless length and hash are as signed."""
        if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
            raise Forged("not the bytes that were signed")
        lines = gzip.decompress(data).splitlines(keepends=True)
        items = [json.loads(line) for line in lines]
        if len(items) != facts["items"] or sum(map(len, lines)) != facts["bytes_unpacked"]:
            raise Forged("not the items that were signed")
        return {(item["kind"], item["key"]): item for item in items}

    def take_pack(self, wanted: Selection) -> bool:
        """Take the pack of a selection in the place of what is held; False when there is none. Raises `Forged`."""
        listed = self.ask("/v1/packs", audience=wanted[0], stage=wanted[1], language=wanted[2]).json()["items"]
        if not listed:
            return False
        facts = self.verified(listed[0]["manifest"], wanted)
        items = self.unpacked(facts, self.ask(f"/v1/packs/{facts['sha256']}/file").content)
        self.held[wanted], self.cursors[wanted], self.taken[wanted] = items, facts["cursor"], facts
        return True

    # -- sync

    def sync(self, wanted: Selection, limit: int = 50) -> int:
        """Go on to the present; returns how many items came. On 410 the whole set anew, put in the old one's place at the end."""
        audience, stage, language = wanted
        held, cursor, came = dict(self.held.get(wanted, {})), self.cursors.get(wanted, ""), 0
        while True:
            reply = self.ask("/v1/sync", since=cursor, audience=audience, stage=stage, language=language, limit=limit)
            if reply.status_code == 410:
                assert reply.json()["code"] == "start_over"
                assert cursor, "told to start over without a cursor"
                held, cursor, self.restarts = {}, "", self.restarts + 1
                continue
            assert reply.status_code == 200, reply.text
            page = reply.json()
            assert len(page["items"]) == page["page"]["items"] <= limit
            exact = [len(json.dumps(i, ensure_ascii=False, separators=(",", ":")).encode()) for i in page["items"]]
            assert page["page"]["bytes"] == sum(exact)
            self.bytes += sum(exact)
            for item in page["items"]:
                came += 1
                if item.get("gone"):
                    held.pop((item["kind"], item["key"]), None)
                else:
                    held[item["kind"], item["key"]] = item
            cursor = page["next_cursor"]
            if not page["more"]:
                self.held[wanted], self.cursors[wanted] = held, cursor
                return came

    # -- what is held

    def shown(self, wanted: Selection, now: datetime) -> Held:
        """What it can show without a network: what has expired is dropped."""
        held = self.held.get(wanted, {})
        for name, item in list(held.items()):
            if item.get("expires_at") and datetime.fromisoformat(item["expires_at"]) <= now:
                del held[name]
        return held

    def fetch_media(self, wanted: Selection) -> None:
        """Fetch what the items show and is not there yet, by hash; drop what no item of any selection shows."""
        named = {f["sha256"] for held in self.held.values() for item in held.values() for f in item["media"]}
        for sha256 in {f["sha256"] for item in self.held[wanted].values() for f in item["media"]} - self.media.keys():
            self.fetched.append(sha256)
            data = self.ask(f"/v1/media/{sha256}/file").content
            if hashlib.sha256(data).hexdigest() != sha256:
                raise Forged("not the medium that was named")
            self.media[sha256] = data
        for sha256 in self.media.keys() - named:
            del self.media[sha256]

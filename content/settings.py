"""Every setting, with its unit and default; frozen, and checked at start.

`Settings.from_env()` reads the environment. Where `MONGODB_URI` or `S3_ENDPOINT_URL` is not set, it looks for
`VAR/run.json` (mode 0600), which a running `xinqiao serve` writes with the addresses and secrets of its embedded
servers, so that `xinqiao import` in another shell finds them. Secrets have no default outside the embedded run.
"""

import base64
import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from content import divisions, languages, waking
from content.failures import Failure

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CHANNELS = ("fcm", "webhook")
BROKERS = ("mongodb", "redis", "rediss", "amqp", "amqps", "pyamqp", "sqs", "memory", "sentinel")


class SettingsError(Exception):
    """A setting is missing or wrong; the message says which, why, and what to set."""


@dataclass(frozen=True)
class Settings:
    """All settings of one process. Secrets are left out of `repr`."""

    port: int = 8000
    """XINQIAO_PORT: TCP port of the API."""
    host: str = "127.0.0.1"
    """XINQIAO_HOST: address the API listens on."""
    var: Path = Path("var")
    """XINQIAO_VAR: folder of all that is kept on this machine."""
    workers: int = 2
    """XINQIAO_WORKERS: API processes. In-memory limits are divided by it."""
    proxies: int = 0
    """XINQIAO_PROXIES: how many proxies of our own stand in front; rate limits then count the address that the outermost saw."""
    public_url: str = ""
    """XINQIAO_PUBLIC_URL: where families reach the API from outside, as in https://xinqiao.example.cn; stands in QR codes, share
    pages and calendars. Never taken from a request, whose Host anyone can make up. Empty: http://HOST:PORT."""
    mongodb_uri: str = field(default="", repr=False)
    """MONGODB_URI: a MongoDB >= 7 replica set. Embedded server when empty."""
    database: str = "xinqiao"
    """XINQIAO_DATABASE: database name, when the URI names none."""
    s3_endpoint_url: str = ""
    """S3_ENDPOINT_URL: any S3. Embedded SeaweedFS when empty."""
    s3_access_key: str = field(default="", repr=False)
    """AWS_ACCESS_KEY_ID"""
    s3_secret_key: str = field(default="", repr=False)
    """AWS_SECRET_ACCESS_KEY"""
    s3_bucket: str = "xinqiao"
    """XINQIAO_S3_BUCKET"""
    s3_region: str = "us-east-1"
    """AWS_REGION: many S3 servers accept any; the cloud's own does not."""
    s3_public_url: str = ""
    """XINQIAO_S3_PUBLIC_URL: where phones read media (a CDN); empty = short-lived signed addresses."""
    broker_url: str = field(default="", repr=False)
    """BROKER_URL: Celery's broker; empty = the same MongoDB."""
    firebase_credentials: str = ""
    """FIREBASE_CREDENTIALS: path of a service-account JSON. Empty: inbox only, and a log line "would push"."""
    fcm_url: str = ""
    """XINQIAO_FCM_URL: base address instead of Firebase's; loopback only (tests, rehearsals)."""
    webhook_url: str = ""
    """XINQIAO_WEBHOOK_URL: the district's own system (SMS, WeChat, a vendor's push), which each notice is posted to."""
    webhook_secret: str = field(default="", repr=False)
    """XINQIAO_WEBHOOK_SECRET: what those posts are signed with; whsec_ and 24 to 64 bytes in base64 (Standard Webhooks)."""
    channels: str = "fcm,webhook"
    """XINQIAO_CHANNELS: what carries a notice. Steps separated by "," are all taken, in this order; within a step "a>b" means b
    only for what a did not take."""
    quiet: str = waking.USUAL
    """XINQIAO_QUIET_HOURS: local hours in which no family is pushed anything and no offer runs out."""
    admin_password: str = field(default="", repr=False)
    """XINQIAO_ADMIN_PASSWORD: first password of `admin`, used instead of a generated one."""
    data_key: str = field(default="", repr=False)
    """XINQIAO_DATA_KEY: 96 random bytes in base64, the master key of client-side field encryption."""
    signing_key: str = field(default="", repr=False)
    """XINQIAO_SIGNING_KEY: 32 random bytes in base64, the Ed25519 seed that signs the manifests of offline packs."""
    second_person: bool = True
    """XINQIAO_SECOND_PERSON: lessons and courses need a second person to approve. Checks and notices always do."""
    zone: str = "Asia/Shanghai"
    """XINQIAO_ZONE: time zone of the district, an IANA name."""
    division: str = ""
    """XINQIAO_DIVISION: GB/T 2260 code of the district that runs the service; empty = the whole country."""
    language: str = "zh-Hans"
    """XINQIAO_LANGUAGE: the language every published item has, and the last of every fallback."""

    ENV: ClassVar[dict[str, str]] = {
        "XINQIAO_PORT": "port", "XINQIAO_HOST": "host", "XINQIAO_VAR": "var", "XINQIAO_WORKERS": "workers",
        "XINQIAO_PROXIES": "proxies", "XINQIAO_PUBLIC_URL": "public_url",
        "MONGODB_URI": "mongodb_uri", "XINQIAO_DATABASE": "database", "S3_ENDPOINT_URL": "s3_endpoint_url",
        "AWS_ACCESS_KEY_ID": "s3_access_key", "AWS_SECRET_ACCESS_KEY": "s3_secret_key",
        "XINQIAO_S3_BUCKET": "s3_bucket", "AWS_REGION": "s3_region", "XINQIAO_S3_PUBLIC_URL": "s3_public_url",
        "BROKER_URL": "broker_url", "FIREBASE_CREDENTIALS": "firebase_credentials", "XINQIAO_FCM_URL": "fcm_url",
        "XINQIAO_WEBHOOK_URL": "webhook_url", "XINQIAO_WEBHOOK_SECRET": "webhook_secret", "XINQIAO_CHANNELS": "channels",
        "XINQIAO_QUIET_HOURS": "quiet",
        "XINQIAO_ADMIN_PASSWORD": "admin_password", "XINQIAO_DATA_KEY": "data_key",
        "XINQIAO_SIGNING_KEY": "signing_key",
        "XINQIAO_SECOND_PERSON": "second_person", "XINQIAO_ZONE": "zone", "XINQIAO_DIVISION": "division",
        "XINQIAO_LANGUAGE": "language",
    }  # fmt: skip

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "Settings":
        """Read and check. Raises `SettingsError` that names the variable, the reason and the mend."""
        given = {k: v for k, v in (os.environ if env is None else env).items() if k in cls.ENV and v != ""}
        var = Path(given.get("XINQIAO_VAR", "var"))
        # a child of `serve` is given everything and must not depend on the file
        values = given if {"MONGODB_URI", "S3_ENDPOINT_URL"} <= given.keys() else {**_running(var), **given}
        kwargs: dict[str, object] = {}
        for name, attribute in cls.ENV.items():
            if name not in values:
                continue
            text = values[name]
            kind = cls.__dataclass_fields__[attribute].type
            if kind is int:
                low, high = {"workers": (1, 64), "proxies": (0, 5)}.get(attribute, (1, 65535))
                if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
                    raise SettingsError(f"{name}={text!r} is not a whole number from {low} to {high}. Correct or unset it.")
                kwargs[attribute] = int(text)
            elif kind is bool:
                if text.lower() not in {"1", "0", "true", "false"}:
                    raise SettingsError(f"{name}={text!r} is neither true nor false. Correct or unset it.")
                kwargs[attribute] = text.lower() in {"1", "true"}
            elif kind is Path:
                kwargs[attribute] = Path(text)
            else:
                kwargs[attribute] = text
        settings = cls(**kwargs)  # type: ignore[arg-type]
        settings._check()
        return settings

    def _check(self) -> None:
        try:
            ZoneInfo(self.zone)
        except Exception:
            raise SettingsError(f"XINQIAO_ZONE={self.zone!r} is no IANA time zone. Try Asia/Shanghai.") from None
        if self.mongodb_uri:
            try:
                # mongodb+srv asks the name service at each parse: only its form is looked at here
                parse_uri(self.mongodb_uri.replace("mongodb+srv://", "mongodb://", 1), warn=False)
            except PyMongoError as error:
                raise SettingsError(f"MONGODB_URI cannot be used: {str(error).splitlines()[0]}") from None
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,38}", self.database):
            raise SettingsError(f"XINQIAO_DATABASE={self.database!r} is no database name: A-Z a-z 0-9 _ -, at most 38.")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.s3_bucket):
            raise SettingsError(f"XINQIAO_S3_BUCKET={self.s3_bucket!r} is no bucket name: a-z 0-9 . -, 3 to 63 characters.")
        for name, url in (("S3_ENDPOINT_URL", self.s3_endpoint_url), ("XINQIAO_S3_PUBLIC_URL", self.s3_public_url)):
            if url and not (url.startswith(("http://", "https://")) and _host(url)):
                raise SettingsError(f"{name}={url!r} is no address. It begins with http:// or https:// and names a host.")
        if self.public_url and not re.fullmatch(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?", self.public_url):
            raise SettingsError(
                f"XINQIAO_PUBLIC_URL={self.public_url!r} is no address of a host. Write it as https://xinqiao.example.cn, "
                "without a path or a slash at its end."
            )
        if self.broker_url and self.broker_url.partition("://")[0] not in BROKERS:
            raise SettingsError(f"BROKER_URL must begin with one of {', '.join(f'{one}://' for one in BROKERS)}.")
        if self.division and not divisions.known(self.division):
            raise SettingsError(f"XINQIAO_DIVISION={self.division!r} is no GB/T 2260 code in force, such as 150603. Correct it.")
        try:
            spelling = languages.tag(self.language)
        except Failure:
            spelling = "zh-Hans"
        if self.language != spelling:
            raise SettingsError(f"XINQIAO_LANGUAGE={self.language!r} is not a tag in its one spelling. Write {spelling}.")
        if not self.host.strip() or self.host != self.host.strip():
            raise SettingsError(f"XINQIAO_HOST={self.host!r} is no address. Try 127.0.0.1.")
        if self.s3_endpoint_url and not (self.s3_access_key and self.s3_secret_key):
            raise SettingsError("S3_ENDPOINT_URL is set: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY too.")
        if self.firebase_credentials:
            try:
                kind = json.loads(Path(self.firebase_credentials).read_text()).get("type")
            except (OSError, ValueError, AttributeError):
                kind = None
            if kind != "service_account":
                raise SettingsError(
                    f"FIREBASE_CREDENTIALS={self.firebase_credentials!r} is no service-account file (JSON). "
                    "Correct the path or unset it."
                )
        if self.fcm_url and _host(self.fcm_url) not in LOOPBACK:
            raise SettingsError("XINQIAO_FCM_URL may only be a loopback address. Unset it to use Firebase.")
        self._check_channels()
        for name, value, size in (
            ("XINQIAO_DATA_KEY", self.data_key, 96),
            ("XINQIAO_SIGNING_KEY", self.signing_key, 32),
        ):
            if value and _bytes(value) != size:
                raise SettingsError(
                    f"{name} is not {size} bytes in base64. Make one: "
                    f"python3 -c 'import base64,os;print(base64.b64encode(os.urandom({size})).decode())'"
                )
        if self.admin_password and len(self.admin_password) < 10:
            raise SettingsError("XINQIAO_ADMIN_PASSWORD is shorter than 10 characters. Choose a longer one.")

    def _check_channels(self) -> None:
        names = [name for step in self.steps() for name in step]
        if not set(names) <= set(CHANNELS) or len(names) != len(set(names)):
            raise SettingsError(
                f"XINQIAO_CHANNELS={self.channels!r} is not fcm and webhook, each once at most. "
                "Write fcm,webhook for both, or fcm>webhook for the second only where the first took nothing."
            )
        if self.webhook_url and not _may_be_posted_to(self.webhook_url):
            raise SettingsError(  # the address is not repeated: it may hold what opens the other system
                "XINQIAO_WEBHOOK_URL is no address to post to. It begins with https:// (http:// on loopback only), names a host, "
                "and has neither a user nor a fragment."
            )
        if self.webhook_url and not self.webhook_secret:
            raise SettingsError("XINQIAO_WEBHOOK_URL is set: set XINQIAO_WEBHOOK_SECRET too, which the posts are signed with.")
        if self.webhook_secret and not (
            self.webhook_secret.startswith("whsec_") and 24 <= _bytes(self.webhook_secret.removeprefix("whsec_")) <= 64
        ):
            raise SettingsError(
                "XINQIAO_WEBHOOK_SECRET is not whsec_ and 24 to 64 bytes in base64. Make one: "
                "python3 -c 'import base64,os;print(\"whsec_\"+base64.b64encode(os.urandom(32)).decode())'"
            )
        try:
            waking.parsed(self.quiet)
        except ValueError as error:
            raise SettingsError(f"XINQIAO_QUIET_HOURS={self.quiet!r}: {error}. Write {waking.USUAL}.") from None

    def steps(self) -> list[list[str]]:
        """The channels: each step is taken, in this order; of a step, each channel only for what those before it did not take."""
        return [[name.strip() for name in step.split(">")] for step in self.channels.split(",")]

    def public(self, path: str = "") -> str:
        """The absolute address of a path of this API ("/s/…") as it is given to families."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}") + path

    def needed(self, *attributes: str) -> "Settings":
        """Self, when every named setting has a value; else `SettingsError` that says what to do."""
        names = {attribute: name for name, attribute in self.ENV.items()}
        missing = [names[a] for a in attributes if not getattr(self, a)]
        if missing:
            raise SettingsError(
                f"{', '.join(missing)} not set and no service runs on {self.var}/. Start it with `make run`, or set it."
            )
        return self

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for a child process. The admin password stays here."""
        result = {}
        for name, attribute in self.ENV.items():
            value = getattr(self, attribute)
            if attribute != "admin_password" and value not in ("", None):
                result[name] = str(value).lower() if isinstance(value, bool) else str(value)
        return result


def _bytes(text: str) -> int:
    """How many bytes a base64 text stands for; 0 when it is none."""
    try:
        return len(base64.b64decode(text, validate=True))
    except ValueError:
        return 0


def _may_be_posted_to(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = re.fullmatch(r"[!-~]+", url, re.ASCII) and "#" not in url and "@" not in parts.netloc and port != 0
    return bool(plain and parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)))


def _host(url: str) -> str | None:
    """The host that an address names; None when it is no address."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _running(var: Path) -> dict[str, str]:
    """What a running `xinqiao serve` on this `var` wrote for its siblings; empty when none runs.

    A supervisor holds VAR/lock as long as it lives, so a file left by one that was killed is not believed.
    """
    try:
        with (var / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                values = json.loads((var / "run.json").read_text())
            else:
                return {}
    except (FileNotFoundError, NotADirectoryError):
        return {}  # no service has been here; `serve` says what is wrong with the folder
    except (OSError, ValueError):
        raise SettingsError(f"{var / 'run.json'} cannot be read. Stop the service, delete this file, start again.") from None
    return {str(k): str(v) for k, v in values.items() if k in Settings.ENV}

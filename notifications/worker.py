"""The Celery app: `celery -A notifications.worker:app worker` and `… beat`. It carries and times; the outbox decides.

Beat asks for a sweep each second; the sweep makes notices due and has them sent, one fan-out at a time. Nothing waits in the
broker: no countdown, no ETA (a killed worker loses those), so whatever the broker or a worker loses, the next sweep finds in the
outbox.

Without BROKER_URL the broker is the service's own MongoDB, in a database beside it (`NAME_broker`).
"""

import importlib
import logging
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from celery import Celery, signals
from kombu import Connection
from kombu.exceptions import OperationalError
from pymongo.errors import PyMongoError

from content import (
    appointments,
    archive,
    bookings,
    embedded,
    films,
    media,
    packs,
    published,
    publishing,
    sealed,
    sessions,
    statistics,
    store,
    volunteers,
    waiting,
)
from content.failures import Failure
from content.settings import Settings, SettingsError
from notifications import bookings as pushes
from notifications import drafting, outbox

log = logging.getLogger("xinqiao.worker")

Steps = Mapping[str, Callable[[datetime], int]]
"""What is said of its number -> what is done up to a moment."""

# modules whose records wait for a publishing moment
PUBLISHABLE = ("content.lessons", "content.checks", "content.courses", "content.paths")


def broker(settings: Settings) -> str:
    """Celery's broker address. The mongodb transport would wait 30 s for a dead server unless the address says otherwise."""
    if settings.broker_url or not settings.mongodb_uri:
        return settings.broker_url or "memory://"
    head, _, query = settings.mongodb_uri.partition("?")
    scheme, _, rest = head.partition("://")
    hosts, _, database = rest.partition("/")
    options = {name: values[-1] for name, values in urllib.parse.parse_qs(query).items()}
    given = {name.lower() for name in options}
    if "@" in hosts and "authsource" not in given and scheme == "mongodb":  # +srv: its TXT record says
        options["authSource"] = database or "admin"
    if "serverselectiontimeoutms" not in given:
        options["serverSelectionTimeoutMS"] = "2000"
    return f"{scheme}://{hosts}/{database or settings.database}_broker?{urllib.parse.urlencode(options)}"


settings = Settings.from_env()
app = Celery("xinqiao", broker=broker(settings), backend=None)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_publish_retry=False,  # the sweep tries again
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,  # its fan-out wants capped, tailable collections
    worker_concurrency=2,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"polling_interval": 0.2} if broker(settings).startswith("mongodb") else {},
    timezone="UTC",
    beat_schedule_filename=str(settings.var / "beat"),
    beat_schedule={
        # `expires`: what piled up while no worker ran is thrown away unread
        "sweep": {"task": "notices.sweep", "schedule": 1.0, "options": {"expires": 5}},
        "graves": {"task": "store.graves", "schedule": 10.0, "options": {"expires": 9}},
        "drafts": {"task": "notices.draft", "schedule": 60.0, "options": {"expires": 55}},
        "schedule": {"task": "publishing.schedule", "schedule": 60.0, "options": {"expires": 55}},
        "packs": {"task": "packs.build", "schedule": 600.0, "options": {"expires": 590}},
        "tombstones": {"task": "published.purge", "schedule": 86400.0, "options": {"expires": 3600}},
        "quarantine": {"task": "media.purge", "schedule": 3600.0, "options": {"expires": 3000}},
        "statistics": {"task": "statistics.release", "schedule": 3600.0, "options": {"expires": 3000}},
        "erasures": {"task": "erasures", "schedule": 3600.0, "options": {"expires": 3000}},
        "dates": {"task": "sessions.dates", "schedule": 3600.0, "options": {"expires": 3000}},
        "sessions": {"task": "courses.clock", "schedule": 30.0, "options": {"expires": 25}},
        "pushes": {"task": "bookings.push", "schedule": 30.0, "options": {"expires": 25}},
        "renditions": {"task": "media.renditions", "schedule": 10.0, "options": {"expires": 9}},
    },
)


def prepare_broker(settings: Settings) -> None:
    """Make the collections of a MongoDB broker, before worker and beat each look for them, find none and both make them (one of
    the two then ends with "already exists", seen at a first start). Other brokers need nothing. A second call makes nothing."""
    address = broker(settings)
    if address.startswith("mongodb"):
        with Connection(address) as connection:
            channel: Any = connection.channel()
            channel.client.client.close()  # looking for the database made them; kombu leaves it open


@signals.worker_process_init.connect
def _forked(**_: Any) -> None:
    """A pool process: connections of its own, and no life without its parent."""
    embedded.die_with_parent()
    store.connect(settings.needed("mongodb_uri"))


@signals.worker_init.connect
def _started(sender: Any = None, **_: Any) -> None:
    """A pool of threads shares one connection; one of processes must open none before it forks."""
    settings.needed("mongodb_uri")
    if "prefork" not in str(getattr(sender, "pool_cls", "")):
        store.connect(settings)


@app.task(name="notices.send")
def send() -> None:
    """Send what is due. A second task beside the first finds the gate taken."""
    try:
        if found := outbox.fan_out(settings):
            log.info("notices: %s", dict(found))
    except PyMongoError as error:
        log.warning("fan-out cut: database away (%s), the sweep will find the rest", type(error).__name__)


_sweeping = threading.Lock()


@app.task(name="notices.sweep")
def sweep() -> None:
    """Bring the outbox up to now, and have what is due sent. One at a time in a process: four are slower than one."""
    if not _sweeping.acquire(blocking=False):
        return
    try:
        if outbox.sweep(store.now(), settings):
            send.delay()
    except PyMongoError as error:
        log.warning("sweep put off: %s", type(error).__name__)
    except OperationalError as error:
        log.warning("broker away: %s", type(error).__name__)
    finally:
        _sweeping.release()


@app.task(name="store.graves")
def graves() -> None:
    """End the transactions of processes that were killed: a worker's keeps its notices locked."""
    store.end_abandoned()


@app.task(name="notices.draft")
def draft() -> None:
    """Draft the notices that the calendar asks for, and ask for the dates that it lacks."""
    try:
        if not archive.running() and (counts := drafting.tick(store.now(), settings)):
            log.info("season notices: %s", dict(counts))
    except (Failure, PyMongoError) as error:
        log.warning("drafts put off: %s", type(error).__name__)


@app.task(name="publishing.schedule")
def schedule() -> None:
    """Publish what has come to its moment and withdraw what has expired."""
    for name in PUBLISHABLE:
        importlib.import_module(name)
    kinds = [cls for cls in store.collections() if issubclass(cls, publishing.Publishable)]
    try:
        if not archive.running():  # half of what came has no readers yet
            publishing.run_schedule(store.now(), kinds)
    except PyMongoError as error:
        log.warning("schedule put off: %s", type(error).__name__)


@app.task(name="media.renditions")
def renditions() -> None:
    """Render one film or sound that waits for it."""
    try:
        # what is being loaded is not ours yet: the load would write its own row over the one released here
        if not archive.running() and (outcome := films.work(settings)):
            log.info("renditions: %s", outcome)
    except (Failure, PyMongoError, OSError) as error:
        log.warning("renditions put off: %s", type(error).__name__)


@app.task(name="media.purge")
def purge() -> None:
    """Delete uploads that nobody accepted within a day."""
    try:
        media.purge_quarantine(settings, store.now())
    except (Failure, PyMongoError) as error:
        log.warning("purge of the quarantine put off: %s", type(error).__name__)


@app.task(name="statistics.release")
def release_statistics() -> None:
    """Release what was counted in weeks that have ended."""
    try:
        sealed.configure(settings)
        for subject, division, number in statistics.release(settings, store.now()):
            log.info("released: %s of %s, number %s", subject, division, number)
    except (Failure, PyMongoError, SettingsError) as error:
        log.warning("release of statistics put off: %s", type(error).__name__)


CLOCK: Steps = {"sessions finished": sessions.finish, "offers expired": waiting.expire}
ERASURES: Steps = {
    "bookings erased": bookings.purge,
    "appointments erased": appointments.purge,
    "volunteers erased": volunteers.erase,
}


def each(steps: Steps, now: datetime) -> None:
    """Take every step, whatever became of the others: one row that cannot be read must not keep everyone else's. Of a failure
    the log gets its kind and no word, which might be somebody's."""
    for name, step in steps.items():
        try:
            if number := step(now):
                log.info("%s: %s", name, number)
        except Exception as error:  # also a fault of ours
            log.warning("%s: put off by %s", name, type(error).__name__)


@app.task(name="courses.clock")
def courses_clock() -> None:
    """Finish sessions that are over; end offers that nobody took, and offer their seats to the next."""
    each(CLOCK, store.now())


@app.task(name="sessions.dates")
def confirm_dates() -> None:
    """Take the mark off sessions whose year's holidays have become known."""
    each({"dates known by now": sessions.confirm_dates}, store.now())


@app.task(name="erasures")
def erase() -> None:
    """Erase the personal data whose time is over."""
    each(ERASURES, store.now())


@app.task(name="bookings.push")
def push_bookings() -> None:
    """Tell those who booked, by push, that there is something to read."""
    try:
        sealed.configure(settings)
        if not archive.running() and (counts := pushes.sweep(settings)):
            log.info("pushes to bookings: %s", dict(counts))
    except (Failure, PyMongoError, SettingsError) as error:
        log.warning("pushes to bookings put off: %s", type(error).__name__)


@app.task(name="packs.build")
def build_packs() -> None:
    """Build the offline packs that are due."""
    try:
        if archive.running():  # what there is now is about to be replaced
            return
        log.info("packs: %s", packs.build(settings.needed("s3_endpoint_url", "signing_key"), store.now()))
    except (Failure, PyMongoError, SettingsError) as error:
        log.warning("packs put off: %s", type(error).__name__)


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    """Have the packs looked at soon after a start: beat's first turn is ten minutes away."""
    try:
        build_packs.delay()
    except OperationalError as error:
        log.warning("broker away: %s", type(error).__name__)


@app.task(name="published.purge")
def purge_tombstones() -> None:
    """Delete tombstones so old that a phone from before them starts over."""
    try:
        published.purge_tombstones(store.now() - published.KEEP_TOMBSTONES)
    except PyMongoError as error:
        log.warning("purge of tombstones put off: %s", type(error).__name__)

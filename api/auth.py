"""Who is asking, and who may: POLICY names every endpoint, and an endpoint without a row stops the start.

A token travels in `Authorization: Bearer …` and nowhere else; no cookie, so no other site can make a browser send it.
POLICY answers "may this person do this anywhere?". Whether it may be done to this very thing is asked in the view, with
`actor().may(permission, organisation=…, division=…)`.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from flask import Flask, Request, Response, current_app, g, request

from api import guard
from content import divisions, sheets
from content import staff as people
from content.failures import Forbidden, NotFound, NotSignedIn, Unavailable
from content.publishing import Publishable
from content.staff import Actor

P = TypeVar("P", bound=Publishable)
PUBLIC = "public"
SIGNED_IN = "signed in"
# How many of a worker's threads each slow thing may hold at once; the rest is left for reading, whatever happens. "aside" is who
# only waits: for its body to arrive, then for its group's commit (a group is as large as what waits, so this is its size) or for
# a receipt's hash.
LANES = {"aside": 34, "database": 3}
THREADS = sum(LANES.values()) + 3
BODIES = 28  # of those aside, who may be waiting for bodies from one address: a school has one, and its bodies come at once
LANE_WAIT, LANE_WAIT_FULL = 0.4, 0.05  # seconds; a booking takes 0.02. The second for a second after someone waited in vain
# Born without a kept file while the database is away, a worker knows nothing: what it would call empty or missing here would be
# taken for the truth. Self-checks, search and help answer with the card in any case.
TAUGHT = {
    "lessons", "paths", "courses", "sessions", "calendars", "sharing", "demands", "lecturers", "media", "notices", "sync",
    "afterwards", "appointments",
}  # fmt: skip
BEARER = re.compile(r"bearer +([A-Za-z0-9_-]{43})", re.I)


class Rule(NamedTuple):
    """What one endpoint needs."""

    needs: str
    """A permission of `content.staff.ROLES`, PUBLIC, or SIGNED_IN."""
    store: bool
    """Needs the database: answered 503 at once while it is away."""
    sensitive: bool = False
    """Leaves hourly counts only, never a line in the log."""
    lane: str = "database"
    """Which of LANES it takes when it needs the database. "aside" for what waits before the database sees it: for its group's
    commit, or for a receipt's hash."""
    body: int = guard.MAX_BODY
    """Bytes of a body; more is refused (413) before it is looked at."""
    replay: bool = False
    """A POST takes Idempotency-Key. Off where the body or the answer holds a secret, or where a key would be a trace."""


def public(store: bool = False, sensitive: bool = False, lane: str = "database", body: int = guard.MAX_SMALL_BODY) -> Rule:
    """Anyone, without an account."""
    return Rule(PUBLIC, store, sensitive, lane, body)


def staff(permission: str, replay: bool = True) -> Rule:
    """Staff with a grant that holds `permission`."""
    return Rule(permission, True, replay=replay)


def signed_in() -> Rule:
    """Any staff, about themselves; also before a given password was changed."""
    return Rule(SIGNED_IN, True)


POLICY: dict[str, Rule] = {
    # for those who run it
    "ops.front_page": public(),
    "ops.healthz": public(),
    "ops.readyz": public(),
    "ops.metrics": public(),
    "ops.docs": public(),
    "ops.docs_file": public(),
    "api-docs.openapi_json": public(),
    # divisions
    "divisions.index": public(),
    "divisions.show": public(),
    "vocabularies.show": public(),
    # lessons
    "lessons.index": public(),
    "lessons.show": public(),
    "staff_lessons.index_staff": staff("lesson.read"),
    "staff_lessons.create": staff("lesson.write"),
    "staff_lessons.show_staff": staff("lesson.read"),
    "staff_lessons.edit": staff("lesson.write"),
    "staff_lessons.submit": staff("lesson.write"),
    "staff_lessons.send_back": staff("lesson.approve"),
    "staff_lessons.approve": staff("lesson.approve"),
    "staff_lessons.publish": staff("lesson.publish"),
    "staff_lessons.withdraw": staff("lesson.publish"),
    "staff_lessons.roll_back": staff("lesson.publish"),
    "staff_lessons.versions": staff("lesson.read"),
    "staff_lessons.batch": staff("lesson.read"),  # what it may do to each is asked for each
    # paths: whoever may do it to a lesson
    "paths.index": public(),
    "paths.show": public(),
    "staff_paths.index_staff": staff("lesson.read"),
    "staff_paths.create": staff("lesson.write"),
    "staff_paths.show_staff": staff("lesson.read"),
    "staff_paths.edit": staff("lesson.write"),
    "staff_paths.submit": staff("lesson.write"),
    "staff_paths.send_back": staff("lesson.approve"),
    "staff_paths.approve": staff("lesson.approve"),
    "staff_paths.publish": staff("lesson.publish"),
    "staff_paths.withdraw": staff("lesson.publish"),
    "staff_paths.roll_back": staff("lesson.publish"),
    "staff_paths.versions": staff("lesson.read"),
    # a question says more than an answer does
    "search.index": public(sensitive=True),
    # the desk around what is published
    "previews.show": public(store=True, sensitive=True),  # its address is a right to read
    "staff_desk.lesson_comments": staff("lesson.read"),
    "staff_desk.lesson_comment": staff("lesson.read"),
    "staff_desk.lesson_resolve": staff("lesson.read"),  # its maker, or whoever may write or approve: asked in the view
    "staff_desk.lesson_reopen": staff("lesson.read"),
    "staff_desk.lesson_preview": staff("lesson.read", replay=False),  # the answer is a right to read; who may: asked in the view
    "staff_desk.lesson_revoke": staff("lesson.read"),
    "staff_desk.lesson_discard": staff("lesson.write"),
    "staff_desk.path_comments": staff("lesson.read"),
    "staff_desk.path_comment": staff("lesson.read"),
    "staff_desk.path_resolve": staff("lesson.read"),  # its maker, or whoever may write or approve: asked in the view
    "staff_desk.path_reopen": staff("lesson.read"),
    "staff_desk.path_preview": staff("lesson.read", replay=False),  # the answer is a right to read; who may: asked in the view
    "staff_desk.path_revoke": staff("lesson.read"),
    "staff_desk.path_discard": staff("lesson.write"),
    "staff_desk.lesson_used_in": staff("lesson.read"),
    "staff_desk.media_used_in": staff("media.read"),
    "staff_desk.aging": staff("lesson.read"),
    "staff_desk.stale": staff("lesson.read"),
    "staff_desk.recalls": staff("check.read"),
    # media
    "media.show": public(),
    "media.file": public(),
    "staff_media.index_staff": staff("media.read"),
    "staff_media.create": staff("media.write", replay=False),  # the answer is a right to write, for some minutes
    "staff_media.show_staff": staff("media.read"),
    "staff_media.parts": staff("media.write"),  # gives a right to write
    "staff_media.accept": staff("media.write", replay=False),  # repeats by itself, and "not there yet" must not be kept
    "staff_media.edit": staff("media.write"),
    "staff_media.remove": staff("media.write"),
    # offline
    "sync.changes": public(),
    "sync.index": public(),
    "sync.file": public(),
    "sync.keys": public(),
    # self-checks
    "checks.index": public(sensitive=True),
    "checks.show": public(sensitive=True),
    "checks.score": public(sensitive=True),
    "fhir.show": public(sensitive=True),
    "fhir.score": public(sensitive=True, body=256 * 1024),  # says in 400 bytes what an answer of ours says in 40
    # each waits for its receipt to be hashed, one at a time: not in the lane of bookings and sign-ins
    "results.keep": public(store=True, sensitive=True, lane="aside"),
    "results.show": public(store=True, sensitive=True, lane="aside"),
    "results.erase": public(store=True, sensitive=True, lane="aside"),
    # counted without a trace
    "contributions.contribute": public(store=True, sensitive=True, lane="aside"),
    "contributions.check_in": public(store=True, sensitive=True, lane="aside"),
    "contributions.come_back": public(store=True, sensitive=True, lane="aside"),
    "contributions.count_notice": public(store=True, sensitive=True, lane="aside"),
    "staff_checks.index_staff": staff("check.read"),
    "staff_checks.show_staff": staff("check.read"),
    "staff_checks.put_questionnaire": staff("check.write"),
    "staff_checks.edit": staff("check.write"),
    "staff_checks.submit": staff("check.write"),
    "staff_checks.send_back": staff("check.approve"),
    "staff_checks.approve": staff("check.approve"),
    "staff_checks.publish": staff("check.publish"),
    "staff_checks.withdraw": staff("check.publish"),
    "staff_checks.discard": staff("check.write"),
    # released numbers: of the divisions that the asker may see, whatever the organisation; asked in the view
    "staff_statistics.index": staff("indicator.read"),
    "staff_statistics.create": staff("check.publish", replay=False),  # the answer holds the codes
    "staff_statistics.rounds_index": staff("check.read"),
    "staff_statistics.show": staff("check.read"),
    # courses and sessions
    "courses.index": public(),
    "courses.show": public(),
    "sessions.index": public(),
    "sessions.show": public(),
    # what is passed on of them; addresses may carry an invitation
    "pages.session": public(),
    "pages.course": public(),
    "pages.cover": public(),
    "pages.booking_page": public(),
    "pages.certificate_page": public(),
    "pages.script": public(),
    "posters.booking_qr": public(),
    "posters.session_qr": public(),
    "posters.course_qr": public(),
    "posters.session_poster": public(),
    "posters.course_poster": public(),
    "posters.session_poster_pdf": public(),
    "posters.course_poster_pdf": public(),
    "staff_courses.index_staff": staff("course.read"),
    "staff_courses.create": staff("course.write"),
    "staff_courses.show_staff": staff("course.read"),
    "staff_courses.edit": staff("course.write"),
    "staff_courses.remove": staff("course.write"),
    "staff_courses.approve": staff("course.approve"),
    "staff_courses.publish": staff("course.publish"),
    "staff_courses.cancel": staff("course.publish"),
    "staff_sessions.index_staff": staff("course.read"),
    "staff_sessions.create": staff("course.write"),
    "staff_sessions.show_staff": staff("course.read"),
    "staff_sessions.edit": staff("course.write"),
    "staff_sessions.remove": staff("course.write"),
    "staff_sessions.publish": staff("course.publish"),
    "staff_sessions.cancel": staff("course.publish"),
    # of each row it is asked again; a file imported twice changes nothing, a batch needs its preview
    "staff_schedules.create": Rule("course.write", True, body=sheets.MOST_BYTES),
    "staff_schedules.template_csv": staff("course.write"),
    "staff_schedules.template_xlsx": staff("course.write"),
    "staff_schedules.export_csv": staff("course.read"),
    "staff_schedules.export_xlsx": staff("course.read"),
    "staff_schedules.publish_batch": staff("course.publish", replay=False),
    "staff_planning.plan": staff("course.write"),
    "staff_clashes.index": staff("course.read"),
    # calendars to subscribe to
    "calendars.division": public(),
    "calendars.station": public(),
    "calendars.course": public(),
    "calendars.lecturer": public(),
    "calendars.booking": public(store=True),
    # bookings
    "bookings.create": public(store=True, lane="aside"),  # a crowd waits to be written together
    "bookings.create_whole": public(store=True, lane="aside"),
    "bookings.change": public(store=True),
    "bookings.leave": public(store=True),
    "bookings.accept": public(store=True),
    "bookings.decline": public(store=True),
    "bookings.show": public(store=True),
    "bookings.cancel": public(store=True),
    # names and telephones: not kept for a repeat
    "staff_bookings.index_staff": staff("booking.read"),
    "staff_bookings.approve": staff("booking.write", replay=False),
    "staff_bookings.refuse": staff("booking.write", replay=False),
    "staff_bookings.give": staff("booking.write", replay=False),
    "staff_bookings.calls": staff("booking.read"),
    "staff_bookings.called": staff("booking.write", replay=False),
    # at the door; a nonce, or what is set, repeats by itself
    "attendance.check_in_qr": public(store=True),
    "staff_attendance.door": staff("booking.read"),
    "staff_attendance.check_in": staff("booking.write", replay=False),
    "staff_attendance.attend": staff("booking.write"),
    "staff_attendance.headcount": staff("booking.write"),
    # afterwards: no line says when a family answered, and no error quotes a name
    "afterwards.give": public(store=True, sensitive=True),
    "afterwards.certificate": public(store=True, sensitive=True),
    "afterwards.certificate_whole": public(store=True, sensitive=True),
    "afterwards.verify": public(),
    "staff_afterwards.summary": staff("course.read"),
    "staff_afterwards.summary_pdf": staff("course.read"),
    # demand lists and task lists
    "demands.index": public(),
    "demands.tasks": public(),
    "demands.second": public(store=True, sensitive=True),
    "demands.suggest": public(store=True, sensitive=True),
    "staff_demands.index_staff": staff("course.read"),
    "staff_demands.create": staff("course.write"),
    "staff_demands.show_staff": staff("course.read"),
    "staff_demands.edit": staff("course.write"),
    "staff_demands.remove": staff("course.write"),
    "staff_demands.publish": staff("course.publish"),
    "staff_demands.answer": staff("course.publish"),  # who answers for a division: asked in the view
    "staff_demands.done": staff("course.publish"),
    "staff_demands.withdraw": staff("course.publish"),
    "staff_demands.reopen": staff("course.publish"),
    "staff_demands.second_staff": staff("course.write", replay=False),  # repeats by itself
    "staff_demands.take_back": staff("course.write"),
    "staff_demands.suggested": staff("course.publish"),  # what families said: for who answers for the division
    "staff_demands.take": staff("course.publish"),
    "staff_demands.drop": staff("course.publish"),
    "staff_demands.drop_day": staff("course.publish"),  # who answers for the division: asked in the view
    "staff_demands.tasks_staff": staff("course.read"),
    "staff_demands.create_task": staff("course.write"),
    "staff_demands.show_task": staff("course.read"),
    "staff_demands.edit_task": staff("course.write"),
    "staff_demands.remove_task": staff("course.write"),
    "staff_demands.publish_task": staff("course.publish"),
    "staff_demands.task_done": staff("course.publish"),
    "staff_demands.withdraw_task": staff("course.publish"),
    "staff_demands.reopen_task": staff("course.publish"),
    # coverage: of the whole division, or of none; asked in the view
    "staff_coverage.show": staff("course.read"),
    "staff_coverage.table": staff("course.read"),
    "staff_coverage.picture": staff("course.read"),
    "staff_coverage.show_target": staff("course.read"),
    "staff_coverage.put_target": staff("course.publish"),
    # the expert library
    "lecturers.index": public(),
    "lecturers.show": public(),
    "staff_lecturers.index_staff": staff("course.read"),
    "staff_lecturers.create": staff("course.write"),
    "staff_lecturers.show_staff": staff("course.read"),
    "staff_lecturers.edit": staff("course.write"),
    "staff_lecturers.remove": staff("course.write"),
    "staff_lecturers.approve": staff("course.approve"),
    "staff_lecturers.publish": staff("course.publish"),
    "staff_lecturers.withdraw": staff("course.publish"),
    "staff_lecturers.contact": staff("course.write"),
    "staff_lecturers.put_contact": staff("course.write"),
    # volunteers
    "volunteers.create": public(store=True),
    "volunteers.show": public(store=True),
    "volunteers.edit": public(store=True),
    "volunteers.withdraw": public(store=True),
    "staff_volunteers.index_staff": staff("booking.read"),
    "staff_volunteers.show_staff": staff("booking.read"),
    "staff_volunteers.approve": staff("booking.write"),
    "staff_volunteers.decline": staff("booking.write"),
    "staff_volunteers.give": staff("booking.write"),
    "staff_volunteers.take_back": staff("booking.write"),
    "staff_volunteers.into_library": staff("booking.write"),  # and course.write: asked in the view
    "staff_volunteers.tallies": staff("booking.read"),
    # notices and seasons
    "notices.index": public(),
    "notices.push_topics": public(),
    "staff_notices.index_staff": staff("notice.read"),
    "staff_notices.todo": staff("notice.read"),
    "staff_notices.stop_campaign": staff("notice.read"),  # whoever may write or approve for the whole: asked in the view
    "staff_notices.resume_campaign": staff("notice.read"),
    "staff_notices.preview": staff("notice.read"),
    "staff_notices.create": staff("notice.write"),
    "staff_notices.show_staff": staff("notice.read"),
    "staff_notices.edit": staff("notice.write"),
    "staff_notices.approve": staff("notice.approve"),
    "staff_notices.schedule": staff("notice.write"),
    "staff_notices.cancel": staff("notice.read"),  # whoever may write or approve it: asked in the view
    "staff_reports.show": staff("notice.read"),
    "staff_reports.index": staff("notice.read"),
    "staff_reports.table": staff("notice.read"),
    "seasons.index": public(),
    "staff_seasons.index_staff": staff("notice.read"),
    "staff_seasons.confirm": staff("notice.write"),
    "staff_seasons.correct": staff("notice.write"),
    "staff_seasons.withdraw": staff("notice.write"),
    "years.index": public(),
    "years.calendar": public(),
    "staff_years.show": staff("notice.read"),  # of notices, those that the asker may read: asked in the view
    "staff_years.page": staff("notice.read"),
    # of the division asked for: asked in the view
    "staff_templates.index": staff("notice.read"),
    "staff_templates.emergencies": staff("notice.read"),
    "staff_templates.show": staff("notice.read"),
    "staff_templates.put": staff("notice.write"),
    "staff_templates.take_back": staff("notice.write"),
    "staff_templates.preview": staff("notice.read", replay=False),  # makes nothing
    # help: who looks for it, where and when is nobody's business
    "support.hotlines": public(sensitive=True),
    "support.services": public(sensitive=True),
    "support.help_card": public(sensitive=True),
    "appointments.index": public(sensitive=True),
    "appointments.create": public(store=True, sensitive=True),
    "appointments.show": public(store=True, sensitive=True),
    "appointments.cancel": public(store=True, sensitive=True),
    # of who keeps the service's entry; names and telephones are not kept for a repeat
    "staff_appointments.create": staff("service.write", replay=False),  # repeats by itself
    "staff_appointments.index_staff": staff("service.write"),
    "staff_appointments.show_staff": staff("service.write"),
    "staff_appointments.edit": staff("service.write"),
    "staff_appointments.cancel": staff("service.write"),
    "staff_appointments.outcome": staff("service.write"),
    "staff_appointments.register": staff("service.write"),
    "staff_appointments.calls": staff("service.write"),
    "staff_appointments.called": staff("service.write", replay=False),
    "staff_appointments.give_back": staff("service.write", replay=False),
    "staff_support.index_staff": staff("service.read"),
    "staff_support.show_staff": staff("service.read"),
    "staff_support.put": staff("service.write"),
    "staff_support.edit": staff("service.write"),
    "staff_support.publish": staff("service.publish"),
    "staff_support.withdraw": staff("service.publish"),
    # staff
    "staff.sign_in": public(store=True),
    "staff.refresh": public(store=True),
    "staff.sign_out": signed_in(),
    "staff.sign_out_everywhere": signed_in(),
    "staff.me": signed_in(),
    "staff.change_password": signed_in(),
    "staff.begin_totp": signed_in(),
    "staff.confirm_totp": signed_in(),
    "staff.accounts": staff("staff.read"),
    "staff.create_account": staff("staff.write", replay=False),
    "staff.account": staff("staff.read"),
    "staff.edit_account": staff("staff.write"),
    "staff.reset_password": staff("staff.write", replay=False),
    "staff.drop_totp": staff("staff.write"),
    "staff.organisations": staff("organisation.read"),
    "staff.create_organisation": staff("organisation.write"),
    "staff.organisation": staff("organisation.read"),
    "staff.edit_organisation": staff("organisation.write"),
    "staff.audit": staff("audit.read"),
}


def actor() -> Actor:
    """The signed-in person of this request. Raises `NotSignedIn` on a public route."""
    found: Actor | None = g.get("actor")
    if found is None:
        raise NotSignedIn()
    return found


def allowed(permission: str, organisation: str, codes: Sequence[str] = ()) -> bool:
    """Whether the asker may do this to a thing of that organisation ("" = of none: takes a grant for all) in every one of
    those divisions. A thing for everywhere belongs to the district that runs the service.
    """
    return all(actor().may(permission, organisation, code) for code in codes or [current_app.extensions["settings"].division])


def acting(permission: str) -> Callable[[str], bool]:
    """Whether the asker may do this for a division ("" the country) as a whole: by a grant for all organisations, or as one who
    works in an office there (federation, education, health). Asks the database once."""
    areas = people.areas(actor(), permission)
    return lambda code: any(divisions.within(code, area) for area in areas)


def demand(permission: str, organisation: str, codes: Sequence[str] = (), *, read: str, what: str) -> None:
    """Let pass who is `allowed` this. Raises `Forbidden` for who may only `read` the thing, and `NotFound` for others: that it
    is there is not theirs to know."""
    if not allowed(permission, organisation, codes):
        raise Forbidden() if allowed(read, organisation, codes) else NotFound(what=what)


def own(cls: type[P], slug: str, permission: str) -> P:
    """The working copy of this slug, when the asker may do this to it. One that he may not even read is not there at all (404),
    so that a slug says nothing of another organisation's draft."""
    raw = cls.rows().find_one({"slug": slug})
    if raw is None:
        raise NotFound(what=slug)
    record = cls.of(raw)
    codes = getattr(record, "divisions", ())  # a check has none
    demand(permission, record.organisation, codes, read=f"{permission.partition('.')[0]}.read", what=slug)
    return record


def token() -> str:
    """The access token of this request. Raises `NotSignedIn` when there is none."""
    found = BEARER.fullmatch(request.headers.get("Authorization", "").strip())
    if not found:
        raise NotSignedIn()
    return found[1]


def install(app: Flask) -> None:
    """Compare POLICY with the URL map, and ask it before every view. Call when all routes are registered.

    Raises `RuntimeError` for an endpoint without a row, a row without an endpoint, and a permission that no role has.
    """
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    wrong = [f"no row in POLICY: {name}" for name in sorted(endpoints - set(POLICY))]
    wrong += [f"no such endpoint: {name}" for name in sorted(set(POLICY) - endpoints)]
    known = people.PERMISSIONS | {PUBLIC, SIGNED_IN}
    wrong += [f"no role has {rule.needs}: {name}" for name, rule in POLICY.items() if rule.needs not in known]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    app.before_request(check)
    app.teardown_request(leave)


class Lane:
    """A bound on how many of a worker's threads one slow thing may hold. Without it eight requests that a hanging database or a
    slow client holds would keep the threads of both workers from everything that is read."""

    def __init__(self, size: int) -> None:
        self.free = threading.BoundedSemaphore(size)
        self.full_until = 0.0

    def enter(self) -> None:
        """Take a place. Raises `Unavailable("overloaded")` when none is free in time."""
        wait = LANE_WAIT_FULL if time.monotonic() < self.full_until else LANE_WAIT
        if not self.free.acquire(timeout=wait):
            self.full_until = time.monotonic() + 1
            raise Unavailable("overloaded")


class Bodies(Lane):
    """Where a body is read, before anything else is asked of a request. The server hands it on as it comes, and a read of it ends
    when the body does or its client goes: no deadline can be set (to answer while another thread still reads stops the whole
    worker of granian 2.8). So bodies that never end hold places until their clients go, of one address BODIES at most."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.lock = threading.Lock()
        self.reading: dict[str, int] = {}  # address -> requests whose body is not there yet

    def read(self, asked: Request) -> None:
        """Read and keep the body. Raises `Unavailable("overloaded")` and 413."""
        who = asked.remote_addr or ""
        with self.lock:
            if self.reading.get(who, 0) >= BODIES:
                raise Unavailable("overloaded")
            self.reading[who] = self.reading.get(who, 0) + 1
        try:
            asked.get_data(cache=True)
        finally:
            with self.lock:
                self.reading[who] -= 1
                if not self.reading[who]:
                    del self.reading[who]


def lanes() -> dict[str, Lane]:
    """A worker's lanes, to be put into `app.extensions["lanes"]` where threads are few (granian)."""
    return {name: Bodies(size) if name == "aside" else Lane(size) for name, size in LANES.items()}


def enter(name: str) -> Lane | None:
    """Take a place in a lane for this request, for the one it has; where there are no lanes a no-op."""
    leave(None)
    lane: Lane | None = current_app.extensions.get("lanes", {}).get(name)
    if lane is not None:
        lane.enter()
        g.lane = lane
    return lane


def leave(error: BaseException | None) -> None:
    """Give the place back, however the request ended."""
    lane: Lane | None = g.pop("lane", None)
    if lane is not None:
        lane.free.release()


def arrive(most: int) -> None:
    """Read the body, of `most` bytes at most, so that nothing waits for it later; where there are no lanes only read it.
    The place aside is kept. Raises `Unavailable("overloaded")` and 413."""
    request.max_content_length = most
    if (request.content_length or 0) <= most and isinstance(lane := enter("aside"), Bodies):
        lane.read(request)
    request.get_data(cache=True)


def check() -> Response | None:
    """Before the view: the body, is the database there when it is needed, who asks, may they, is it a repeat.

    Raises `Unavailable`, `NotSignedIn`, `Forbidden`, `TooMany`. A response is the kept answer to a repeated POST.
    """
    endpoint = request.endpoint
    if endpoint is None or request.method == "OPTIONS":
        return None  # nothing here, or only Allow is told
    rule = POLICY[endpoint]
    if request.method not in {"GET", "HEAD"}:
        arrive(rule.body)
    if rule.store:
        if not current_app.extensions["reader"].up:
            raise Unavailable()
        if rule.lane == "database":
            enter(rule.lane)
    if rule.needs == PUBLIC:
        reader = current_app.extensions["reader"]
        if request.blueprint in TAUGHT and not reader.current.seq and not reader.up:
            raise Unavailable()
        if endpoint in guard.LIMITS:
            guard.limit(endpoint, request.remote_addr or "")
        return None
    g.actor = who = people.who(token())
    guard.limit("staff", who.id)
    if rule.needs != SIGNED_IN:
        if who.must_change_password:
            raise Forbidden("must_change_password")
        if not who.may(rule.needs):
            raise Forbidden()
    return guard.replay_before(who) if rule.replay else None

"""The worker's round: a row that cannot be read keeps nobody else's data, and no other family from its seat."""

import logging
from datetime import timedelta
from typing import Any

import pytest

from content import appointments, bookings, sessions, store, volunteers, waiting
from content.appointments import Appointment
from content.bookings import Booking
from content.courses import CourseSession
from content.records import Audit
from content.volunteers import Volunteer
from notifications import worker
from tests.site import Clock
from tests.test_courses import published_session
from tests.test_volunteers import PHONE, offer
from tests.test_waiting import DAY, book, counters, ready, state

__all__ = ["ready"]


def test_of_a_round_each_step_is_taken_whatever_becomes_of_the_others(
    ready: None, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    broken, session = published_session(), published_session(capacity=1)
    first, second = book(session), book(session, phone="13900139000")
    waiting.leave(first.code, session)
    assert state(second) == "offered"
    CourseSession.rows().update_one(
        {"_id": broken}, {"$set": {"zone": "Nowhere/Town", "ends_at": store.now() - timedelta(hours=1)}}
    )
    clock(3 * DAY)
    with caplog.at_level(logging.INFO, "xinqiao.worker"):
        worker.courses_clock()
    assert "sessions finished: put off by ZoneInfoNotFoundError" in caplog.text and "offers expired: 1" in caplog.text
    assert state(second) == "expired" and counters(session) == (0, 0)
    assert sessions.session(broken).state == "published"

    volunteers.sign_up(offer())
    clock(400 * DAY)
    over: Any = {"service": "s", "slot": "s", "starts_at": store.now(), "state": "booked", "expires_at": store.now()}
    Appointment.rows().insert_many([{**over, "_id": store.new_id(), "code": str(n)} for n in range(201)])
    Booking.rows().update_one({}, {"$unset": {"series": ""}}, bypass_document_validation=True)
    with caplog.at_level(logging.INFO, "xinqiao.worker"):
        worker.erase()
    assert "bookings erased: put off by KeyError" in caplog.text and PHONE not in caplog.text
    assert Appointment.rows().count_documents({}) == 0 == Volunteer.rows().count_documents({})
    lines = Audit.rows().find({"action": "service.erase_appointments"}).sort("at", 1)
    assert [(line["key"], line["note"]) for line in lines] == [("s", "200 appointments"), ("s", "1 appointments")]
    assert bookings.purge in worker.ERASURES.values() and appointments.purge(store.now()) == 0

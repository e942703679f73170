"""Coverage against a hand count: a small district laid out as a table, its numbers worked out on paper beside it."""

import csv
import io
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from content import coverage, coveragepages, coveragetargets, records, staff
from content.courses import CourseSession, Series
from content.coverage import Coverage
from content.failures import Invalid, NotFound, Stale
from tests.site import PASSWORD, Site
from tests.test_openapi import Walk

CITY, SANYUAN, SHAXIAN, RETIRED = "350400", "350404", "350405", "350427"  # Sanming; 350427 became 350405
PINGLIANG, HUATING, KONGTONG = "620800", "620881", "620802"
SHANGHAI, NEW_YORK = "Asia/Shanghai", "America/New_York"
PLACES = [  # id, kind, division as stored, able, families
    ("S1", "station", SANYUAN, True, None),
    ("S2", "station", SANYUAN, True, None),
    ("S3", "station", SANYUAN, False, None),  # not marked
    ("S4", "station", RETIRED, True, None),
    ("S5", "station", SHAXIAN, True, None),
    ("S6", "station", SHAXIAN, False, None),
    ("A", "school", SANYUAN, False, 100),
    ("B", "school", SANYUAN, False, None),
    ("C", "school", SHAXIAN, False, 200),
    ("D", "school", SHAXIAN, False, 50),
    ("K1", "kindergarten", SANYUAN, False, 40),
    ("K2", "kindergarten", SHAXIAN, False, None),
    ("F", "federation", CITY, False, None),
    ("Z", "station", "150603", True, None),  # another district
]
SERIES = {  # topics, audiences
    "feel": (["emotion"], ["parent"]),
    "guide": (["parenting"], ["parent", "student"]),
    "road": (["traffic"], ["student"]),
    "teach": (["emotion"], ["teacher"]),
    "open": (["parenting"], []),
}
SESSIONS: list[tuple[str, str, str, str, str, int, int, int, int | None, str]] = [
    # local start, series, organiser, host, state, class-hours, checked in, walk-ins, headcount, zone       # counts as
    ("2026-03-10 19:00", "guide", "F", "S1", "finished", 1, 10, 0, None, SHANGHAI),  # S1 10
    ("2026-10-05 19:00", "feel", "F", "S1", "finished", 2, 5, 3, None, SHANGHAI),  # S1 8, term, mental
    ("2026-10-06 19:00", "feel", "F", "S1", "cancelled", 1, 9, 0, None, SHANGHAI),  # never
    ("2026-12-30 19:00", "guide", "F", "S1", "published", 2, 0, 0, None, SHANGHAI),  # S1 planned
    ("2026-09-25 19:00", "guide", "C", "S1", "finished", 1, 11, 0, None, SHANGHAI),  # S1 11, term; not C
    ("2026-05-01 10:00", "road", "S2", "", "finished", 1, 20, 0, None, SHANGHAI),  # S2 20
    ("2026-12-31 23:30", "feel", "S2", "", "finished", 1, 3, 1, 7, NEW_YORK),  # S2 7, term, mental; 2027 in UTC
    ("2026-06-01 19:00", "feel", "F", "S3", "finished", 1, 4, 4, None, SHANGHAI),  # S3 8, mental
    ("2026-10-10 19:00", "open", "F", "S4", "finished", 1, 6, 0, None, SHANGHAI),  # S4 6, term
    ("2026-10-11 19:00", "feel", "F", "S5", "draft", 1, 0, 0, None, SHANGHAI),  # never
    ("2026-11-01 19:00", "guide", "F", "S6", "finished", 1, 0, 0, None, SHANGHAI),  # S6 0, term
    ("2026-09-02 16:00", "guide", "A", "", "finished", 1, 30, 0, None, SHANGHAI),  # A 30
    ("2026-09-16 16:00", "guide", "A", "", "finished", 1, 30, 10, None, SHANGHAI),  # A 40
    ("2026-10-01 16:00", "road", "A", "", "finished", 1, 50, 0, None, SHANGHAI),  # A 50, not for parents
    ("2026-10-20 16:00", "guide", "A", "", "finished", 1, 2, 0, 60, SHANGHAI),  # A 60
    ("2026-11-05 16:00", "road", "A", "", "finished", 1, 45, 0, None, SHANGHAI),  # A 45, not for parents
    ("2026-04-20 16:00", "teach", "B", "", "finished", 1, 30, 0, None, SHANGHAI),  # teachers only: never
    ("2027-01-01 07:30", "guide", "F", "B", "finished", 2, 12, 0, None, SHANGHAI),  # B 12, term; not the year, though 2026 in UTC
    ("2026-09-10 16:00", "road", "B", "", "finished", 1, 9, 0, None, SHANGHAI),  # B 9, not for parents
    ("2026-09-20 16:00", "feel", "C", "", "finished", 4, 150, 0, None, SHANGHAI),  # C 150
    ("2026-10-20 16:00", "feel", "C", "", "finished", 6, 30, 40, None, SHANGHAI),  # C 70
    ("2026-09-21 16:00", "guide", "D", "", "finished", 3, 20, 0, None, SHANGHAI),  # D 20
    ("2026-12-01 16:00", "guide", "D", "", "published", 5, 0, 0, None, SHANGHAI),  # D planned
    ("2026-01-01 06:00", "guide", "K1", "", "finished", 1, 0, 0, 25, SHANGHAI),  # K1 25; 2025 in UTC
    ("2025-12-31 23:30", "guide", "K1", "", "finished", 1, 99, 0, None, NEW_YORK),  # the year before; 2026 in UTC
    ("2026-10-02 16:00", "guide", "K2", "", "cancelled", 1, 0, 0, None, SHANGHAI),  # never
    ("2026-07-01 19:00", "guide", "F", "", "finished", 2, 100, 0, None, SHANGHAI),  # the federation's own: other
    ("2026-10-01 19:00", "feel", "Z", "", "finished", 1, 500, 0, None, SHANGHAI),  # another district
]
# Worked out by hand. Year and term as (sessions, class-hours, people); mental sessions, sessions for parents, people at them,
# planned sessions, planned class-hours of the term; then what each lacks on 22 November: sessions, trainings, families,
# class-hours, classes. Sanyuan goes by the city's target (a class in two weeks, five such spells are over), Shaxian by its own
# target (ten class-hours a term).
ROWS = {
    "S1": ((3, 4, 29), (2, 3, 19), 1, 3, 29, 1, 2, (0, 0, 0, 0, 0)),
    "S2": ((2, 2, 27), (1, 1, 7), 1, 1, 7, 0, 0, (0, 0, 0, 0, 0)),
    "S3": ((1, 1, 8), (0, 0, 0), 1, 1, 8, 0, 0, (0, 0, 0, 0, 0)),
    "S4": ((1, 1, 6), (1, 1, 6), 0, 1, 6, 0, 0, (0, 0, 0, 0, 0)),
    "S5": ((0, 0, 0), (0, 0, 0), 0, 0, 0, 0, 0, (1, 0, 0, 0, 0)),
    "S6": ((1, 1, 0), (1, 1, 0), 0, 1, 0, 0, 0, (0, 0, 0, 0, 0)),
    "A": ((5, 5, 225), (5, 5, 225), 0, 3, 130, 0, 0, (0, 0, 0, 0, 0)),
    "B": ((1, 1, 9), (2, 3, 21), 0, 0, 0, 0, 0, (0, 1, 0, 0, 4)),
    "C": ((2, 10, 220), (2, 10, 220), 2, 2, 220, 0, 0, (0, 0, 0, 0, 0)),
    "D": ((1, 3, 20), (1, 3, 20), 0, 1, 20, 1, 5, (0, 0, 30, 7, 0)),
    "K1": ((1, 1, 25), (0, 0, 0), 0, 1, 25, 0, 0, (0, 0, 15, 0, 0)),
    "K2": ((0, 0, 0), (0, 0, 0), 0, 0, 0, 0, 0, (0, 1, 0, 0, 0)),
}
HELD = {  # places, year, term
    "station": (6, (8, 9, 70), (5, 6, 32)),
    "school": (4, (9, 19, 474), (10, 21, 486)),
    "kindergarten": (2, (1, 1, 25), (0, 0, 0)),
    "other": (0, (1, 2, 100), (0, 0, 0)),
}
SHARES = {  # numerator, denominator, percent, target, missing
    CITY: {
        "able": (3, 4, 75.0, 100, 1),
        "mental_health": (3, 6, 50.0, 60, 1),
        "schools": (4, 6, 66.6, 100, 2),
        "families": (345, 390, 88.4, 100, 45),
        "class_hours": (1, 2, 50.0, 100, 1),
        "classes": (1, 2, 50.0, 100, 1),
    },
    SANYUAN: {
        "able": (2, 2, 100.0, 100, 0),
        "mental_health": (3, 3, 100.0, 60, 0),
        "schools": (2, 3, 66.6, 100, 1),
        "families": (125, 140, 89.2, 100, 15),
        "class_hours": (0, 0, None, 100, 0),
        "classes": (1, 2, 50.0, 100, 1),
    },
    SHAXIAN: {
        "able": (1, 2, 50.0, 100, 1),
        "mental_health": (0, 3, 0.0, 50, 2),
        "schools": (2, 3, 66.6, 100, 1),
        "families": (220, 250, 88.0, 100, 30),
        "class_hours": (1, 2, 50.0, 100, 1),
        "classes": (0, 0, None, 100, 0),
    },
}
ASKED = {"station_sessions": 1, "school_trainings": 1, "mental_share": 50, "term_class_hours": 10, "weeks_per_class": 0}
AUTUMN = date(2026, 11, 22)


def key(name: str) -> str:
    """An organisation's id."""
    return name.encode().hex().rjust(32, "0") if name else ""


def lay_out() -> None:
    """Put the district into the store."""
    for name, kind, division, able, families in PLACES:
        office = staff.Organisation(id=key(name), name=name, kind=kind, division=division, able=able, parents=families)
        records.create(office, records.SYSTEM)
    for name, (topics, audiences) in SERIES.items():
        about = {"texts": {"zh-Hans": {"title": name, "summary": ""}}, "format": "lecture", "organisation": key("F")}
        row = Series(id=name, topics=topics, audiences=audiences, division=CITY, state="published", **about)
        records.create(row, records.SYSTEM)
    CourseSession.rows().insert_many([stored(n, *one) for n, one in enumerate(SESSIONS)])
    coveragetargets.set_target(CITY, 2026, {**ASKED, "mental_share": 60, "term_class_hours": 0, "weeks_per_class": 2}, "ann")
    coveragetargets.set_target(SHAXIAN, 2025, ASKED, "ann")  # stands in 2026 too


def stored(
    n: int, start: str, series: str, organiser: str, host: str, state: str, hours: int, came: int, walked: int,
    headcount: int | None, zone: str,
) -> dict[str, Any]:  # fmt: skip
    """A session as the database holds it."""
    begins = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    record = CourseSession(
        id=f"s{n}", series=series, organisation=key(organiser), division=CITY, starts_at=begins, zone=zone, place="school",
        ends_at=begins + timedelta(hours=1), booking_closes_at=begins, capacity=200, state=state, host=key(host) or None,
        class_hours=hours, attended=came, walk_ins=walked, headcount=headcount, created_by="ann",
    )  # fmt: skip
    raw: dict[str, Any] = record.to_mongo().to_dict()
    return raw


def spans(*sums: coverage.Sums) -> tuple[tuple[int, int, int], ...]:
    return tuple((one.sessions, one.class_hours, one.people) for one in sums)


def told(found: Coverage) -> dict[str, Any]:
    """Shares as in the table, by division."""
    return {
        total.division: {one.code: (one.numerator, one.denominator, one.percent, one.target, one.missing) for one in total.shares}
        for total in (*found.below, found.total)
    }


def test_the_count_is_the_hand_count(clean: None) -> None:
    lay_out()
    found = coverage.coverage(CITY, 2026, "", AUTUMN)
    rows = {
        row.place.name: (
            *spans(row.year, row.term), row.mental_sessions, row.trainings, row.trained, row.planned, row.planned_class_hours,
            tuple(row.short(AUTUMN).values()),
        )
        for row in found.rows
    }  # fmt: skip
    assert rows == ROWS
    assert {kind: (n, *spans(*sums)) for kind, (n, *sums) in found.total.held.items()} == HELD
    assert told(found) == SHARES
    assert [one.division for one in found.below] == [CITY, SANYUAN, SHAXIAN]
    own = found.below[0].held
    assert spans(*own["other"][1:]) == HELD["other"][1:] and own["station"][0] == 0
    assert (found.term, found.first, found.last) == ("autumn", date(2026, 9, 1), date(2027, 1, 31))
    assert (found.days_left(found.end), found.days_left(found.last)) == (39, 70)

    # seven weeks later nine spells are over: A missed four of them, B seven
    later = coverage.coverage(CITY, 2026, "autumn", date(2027, 1, 10))
    assert told(later)[CITY]["classes"] == (0, 2, 0.0, 100, 2)
    assert {row.place.name: row.short(later.today)["classes"] for row in later.rows if row.place.name in "AB"} == {"A": 4, "B": 7}
    assert (later.days_left(later.end), later.days_left(later.last)) == (0, 21)
    # a county and the whole country are the same count; the other district is in the country alone
    assert told(coverage.coverage(SHAXIAN, 2026, "autumn", AUTUMN))[SHAXIAN] == SHARES[SHAXIAN]
    country = coverage.coverage("", 2026, "autumn", AUTUMN)
    assert [one.division for one in country.below] == ["150000", "350000"]
    assert spans(*country.total.held["station"][1:]) == ((9, 10, 570), (6, 7, 532))
    # the year before holds the one session that was still in it by its own clock
    before = coverage.coverage(CITY, 2025, "autumn", AUTUMN)
    assert [(row.place.name, *spans(row.year)) for row in before.rows if row.year.sessions] == [("K1", (1, 1, 99))]
    spring = coverage.coverage(CITY, 2026, "spring", AUTUMN)
    assert spans(spring.total.held["station"][2]) == ((3, 3, 38),)


def test_the_nearest_target_holds_and_plans_say_what_nobody_set(clean: None) -> None:
    asked = coveragetargets.targets(2026)
    assert [(asked(code).source, asked(code).mental_share) for code in (HUATING, "150603", "500114", "420100", "")] == [
        ("P", 60), ("K", 50), ("J", 50), ("default", 50), ("default", 50),
    ]  # fmt: skip
    for division, year, share in (("", 2024, 10), (PINGLIANG, 2025, 20), (PINGLIANG, 2027, 30)):
        coveragetargets.set_target(division, year, {**ASKED, "mental_share": share}, "ann")
    asked = coveragetargets.targets(2026)
    assert [asked(code).mental_share for code in (HUATING, PINGLIANG, "150603", "420100", "")] == [20, 20, 50, 10, 10]
    assert [coveragetargets.targets(year)(HUATING).mental_share for year in (2024, 2027, 2028)] == [60, 30, 30]

    first = coveragetargets.set_target(HUATING, 2026, {**ASKED, "autumn_first": "08-25", "autumn_last": "01-20"}, "ann")
    assert first.target().term(2026, "autumn") == (date(2026, 8, 25), date(2027, 1, 20))
    assert first.target().term(2026, "spring") == (date(2026, 2, 1), date(2026, 7, 31))
    again = coveragetargets.set_target(HUATING, 2026, {**ASKED, "autumn_first": "08-25", "autumn_last": "01-20"}, "bob", 1)
    assert again.revision == 1
    coveragetargets.set_target(HUATING, 2026, ASKED, "bob", 1)
    with pytest.raises(Stale):
        coveragetargets.set_target(HUATING, 2026, ASKED, "ann", 1)
    with pytest.raises(NotFound):
        coveragetargets.set_target(KONGTONG, 2026, ASKED, "ann", 1)
    assert [line.action for line in records.history("coverage_target", f"{HUATING}:2026")] == [
        "coverage_target.edit", "coverage_target.create",
    ]  # fmt: skip
    for wrong, field in (
        ({"mental_share": 101}, "mental_share"), ({"weeks_per_class": True}, "weeks_per_class"),
        ({"autumn_last": "02-29"}, "autumn_last"), ({"autumn_last": "02-10"}, "autumn_last"),
        ({"spring_first": "2-1"}, "spring_first"), ({"spring_last": "01-31"}, "spring_last"),
        ({"autumn_first": "07-15"}, "autumn_first"), ({"spring_first": 201}, "spring_first"), ({"seats": 1}, "seats"),
    ):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            coveragetargets.set_target(KONGTONG, 2026, {**ASKED, **wrong}, "ann")
        assert [error.field for error in refused.value.errors] == [field]
    with pytest.raises(Invalid) as refused:
        coveragetargets.checked_target({})
    assert [error.field for error in refused.value.errors] == list(coveragetargets.RANGES)


# --- over HTTP -------------------------------------------------------------------------------------------------------

HERE = f"/v1/staff/coverage?division={CITY}&year=2026&term=autumn"


def test_who_may_see_coverage_and_what_is_answered(site: Site) -> None:
    lay_out()
    ann = site.person("ann", "organiser", division=CITY)
    plan = site.person("plan", "plan_office", division=SHAXIAN)
    walk = Walk(site)
    rule, query = "/v1/staff/coverage", HERE.partition("?")[2]
    whole = walk.get(rule, f"?{query}&limit=100", by=ann)
    assert {row["name"]: tuple(row["short"].values())[:4] for row in whole["items"]} == {
        n: row[-1][:4] for n, row in ROWS.items()
    }
    shares = {one["code"]: (one["numerator"], one["denominator"], one["percent"]) for one in whole["shares"]}
    assert shares.pop("classes")[1] == 2  # how many of the two depends on the day of asking
    assert shares == {name: row[:3] for name, row in SHARES[CITY].items() if name != "classes"}
    assert all(
        text for one in whole["shares"] for name in ("label", "numerator_is", "denominator_is") for text in one[name].values()
    )
    assert set(whole["rules"]) == {"zh-Hans", "en"} and whole["days_left"]["year"] >= 0
    assert (whole["division"], whole["name"], whole["target"]["source"]) == (CITY, "三明市", "staff")
    assert [one["name"] for one in whole["below"]] == ["三明市", "三元区", "沙县区"]
    # in pages, and only what lacks something
    first = site.get(f"{HERE}&limit=5", by=ann).json()
    rest = site.get(f"{HERE}&limit=10&cursor={first['next_cursor']}", by=ann).json()
    assert [row["id"] for row in (*first["items"], *rest["items"])] == [row["id"] for row in whole["items"]]
    lacking = site.get(f"{HERE}&lacking=true", by=ann).json()
    assert {"B", "D", "K1", "K2", "S5"} <= {row["name"] for row in lacking["items"]} <= {"A", "B", "D", "K1", "K2", "S5"}
    assert lacking["shares"] == whole["shares"]
    # a county's office sees its county, under its old code too
    old = site.get(f"/v1/staff/coverage?division={RETIRED}&year=2026&term=autumn", by=plan).json()
    assert old["division"] == SHAXIAN and {row["division"] for row in old["items"]} == {SHAXIAN}
    assert site.get(HERE, by=plan).status_code == 403
    assert site.get("/v1/staff/coverage?year=2026&term=autumn", by=plan).json()["items"] == old["items"]  # its own, unasked
    # who works for one school sees its row and none of the others
    teacher = site.person("teacher", "organiser", organisation=key("A"))
    own = site.get(HERE, by=teacher).json()
    assert own["own_only"] and not whole["own_only"]
    assert own["items"] == [row for row in whole["items"] if row["name"] == "A"]
    assert [one["year"]["people"] for one in own["held"]] == [0, ROWS["A"][0][2], 0, 0] and len(own["below"]) == 1
    assert site.get("/v1/staff/coverage?year=2026&term=autumn", by=teacher).json()["division"] == SANYUAN
    assert site.get(f"/v1/staff/coverage?division={SHAXIAN}", by=teacher).status_code == 403
    for path in (
        "/v1/staff/coverage.csv",
        HERE.replace("coverage?", "coverage.csv?"),
        HERE.replace("coverage?", "coverage.svg?"),
    ):
        assert site.get(path, by=teacher).status_code == 403
    # an office acts for its division, whatever else its people's grant says; several divisions have to be chosen from
    office = site.person("office", "organiser", organisation=key("F"))
    assert site.get(f"{HERE}&limit=100", by=office).json()["items"] == whole["items"]
    assert site.get("/v1/staff/coverage", by=office).json()["division"] == CITY
    assert site.get("/v1/staff/coverage?division=350000", by=office).status_code == 403
    narrow = site.person("narrow", "organiser", organisation=key("F"), division=SHAXIAN)
    assert site.get("/v1/staff/coverage", by=narrow).json()["division"] == SHAXIAN
    assert site.get(HERE, by=narrow).status_code == 403
    grants = [staff.Grant("organiser", division=code) for code in (SANYUAN, SHAXIAN)]
    staff.create_account("both", "both", PASSWORD, records.SYSTEM, grants, must_change=False)
    site.tokens["both"] = site.post("/v1/staff/session", {"name": "both", "password": PASSWORD}).json()["access_token"]
    asked = site.get("/v1/staff/coverage", by="both")
    assert (asked.status_code, asked.json()["errors"][0]["field"]) == (422, "division")
    assert site.get(HERE).status_code == 401
    assert site.get("/v1/staff/coverage?division=999999", by=ann).status_code == 404
    for wrong in ("year=1999", "term=summer", "cursor=WzFd", "table=places"):
        assert site.get(f"/v1/staff/coverage?division={CITY}&{wrong}", by=ann).status_code in {400, 422}, wrong
    assert site.get("/v1/staff/coverage", by=site.person("all", "commission")).json()["division"] == "000000"


def test_the_table_and_the_picture(site: Site) -> None:
    lay_out()
    evil = '=HYPERLINK("x")<&\x01'
    station = staff.Organisation(id=key("evil"), name=evil, kind="station", division=SANYUAN)
    records.create(station, records.SYSTEM)
    ann = site.person("ann", "organiser", division=CITY)
    path = HERE.replace("coverage?", "coverage.csv?")
    reply = site.get(path, by=ann)
    assert reply.headers["Content-Type"].startswith("text/csv") and reply.content.startswith(b"\xef\xbb\xbf")
    assert reply.headers["Content-Disposition"] == 'attachment; filename="coverage-350400-2026.csv"'
    rows = list(csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig"), newline="")))
    found = {row["名称"]: row for row in rows}
    assert (
        found["C"] | {"类别": "学校", "区划": "沙县区", "本年场次": "2", "本年课时": "10", "本年人次": "220", "家庭数": "200"}
        == found["C"]
    )
    assert (found["D"]["还差家庭"], found["D"]["还差课时"], found["S5"]["还差场次"]) == ("30", "7", "1")
    assert (found["S1"]["有条件"], found["S3"]["有条件"], found["S1"]["已排场次"]) == ("是", "", "1")
    assert any(name.startswith("'=HYPERLINK") for name in found) and len(rows) == 13
    shares = site.get(f"{path}&table=shares", by=ann).content.decode("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(shares, newline="")))
    assert len(lines) == 4 * 6 and lines[6]["区划"] == "三明市（本级）"
    families = next(row for row in lines if row["区划"] == "三明市" and row["指标"] == "家长受训面")
    assert (families["分子"], families["分母"], families["百分比"], families["还差"]) == ("345", "390", "88.4%", "45")

    for division, places in ((CITY, "沙县区"), (SHAXIAN, "S5")):
        reply = site.get(path.replace("csv", "svg").replace(CITY, division), by=ann)
        assert reply.headers["Content-Type"] == "image/svg+xml", reply.text
        drawn = ET.fromstring(reply.content)  # noqa: S314  (our own)
        texts = [node.text or "" for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
        assert places in texts and any("2026 年家庭教育覆盖情况" in text for text in texts)
        numerator, denominator, percent, _, missing = SHARES[division]["able"]
        assert f"{numerator}/{denominator} = {percent}% · 还差 {missing}" in texts
    assert site.get(path.replace("csv", "svg").replace(CITY, SANYUAN), by=ann).status_code == 200  # with the name that is no XML


def test_targets_over_http(site: Site) -> None:
    office = staff.Organisation(id=key("F"), name="F", kind="federation", division=CITY)
    records.create(office, records.SYSTEM)
    ann, bob = site.person("ann", "organiser", organisation=key("F")), site.person("bob", "organiser", division=SHAXIAN)
    path = f"/v1/staff/coverage/targets/{CITY}/2027"
    seen = site.get(path, by=ann)
    assert (seen.headers["ETag"], seen.json()["source"], seen.json()["year"]) == ('"0"', "default", None)
    made = site.call("PUT", path, json={**ASKED, "spring_first": "03-01"}, by=ann)
    assert made.status_code == 201 and made.json()["source"] == "staff" and made.json()["spring_first"] == "03-01"
    assert site.call("PUT", path, json=ASKED, by=ann).status_code == 428
    changed = site.call("PUT", path, json={**ASKED, "mental_share": 70}, by=ann, match=made.headers["ETag"])
    assert changed.status_code == 200 and changed.json()["mental_share"] == 70 and changed.json()["spring_first"] == "02-01"
    assert site.call("PUT", path, json=ASKED, by=ann, match=made.headers["ETag"]).status_code == 412
    assert site.get(path, by=ann).headers["ETag"] == changed.headers["ETag"]
    below = site.get(f"/v1/staff/coverage/targets/{SHAXIAN}/2028", by=bob).json()
    assert (below["mental_share"], below["division"], below["year"]) == (70, CITY, 2027)
    assert site.call("PUT", path, json=ASKED, by=bob).status_code == 403
    assert site.call("PUT", "/v1/staff/coverage/targets/000000/2027", json=ASKED, by=ann).status_code == 403
    assert site.call("PUT", "/v1/staff/coverage/targets/350427/2027", json=ASKED, by=bob).json()["division"] == SHAXIAN
    for wrong in (f"{CITY}/1999", "999999/2027"):
        assert site.get(f"/v1/staff/coverage/targets/{wrong}", by=ann).status_code == 422
    assert (
        site.call("PUT", path, json={**ASKED, "autumn_first": "07-01"}, by=ann, match=changed.headers["ETag"]).status_code == 422
    )
    assert site.call("PUT", path, json={"mental_share": 5}, by=ann, match=changed.headers["ETag"]).status_code == 422


def test_marks_of_an_organisation_and_their_trail(site: Site) -> None:
    admin = site.person("admin", "admin")
    body = {"name": "城东站", "kind": "station", "division": CITY}
    made = site.post("/v1/staff/organisations", body, by=admin)
    assert (made.json()["able"], made.json()["parents"]) == (False, None)
    path = made.headers["Location"]
    able = site.call("PATCH", path, json={"able": True}, by=admin, match=made.headers["ETag"])
    assert able.json()["able"] is True
    line = records.history("organisation", made.json()["id"])[0]
    assert (line.actor, line.before, line.after) == (site.ids["admin"], {"able": False}, {"able": True})
    for wrong in ({"parents": 3}, {"kind": "federation"}, {"able": "yes"}, {"kind": "school", "parents": -1}):
        assert site.call("PATCH", path, json=wrong, by=admin, match=able.headers["ETag"]).status_code == 422, wrong
    school = site.post(
        "/v1/staff/organisations", {**body, "name": "一幼", "kind": "kindergarten", "parents": 40, "able": True}, by=admin
    )
    assert (school.json()["kind"], school.json()["parents"]) == ("kindergarten", 40)
    unknown = site.call("PATCH", school.headers["Location"], json={"parents": None}, by=admin, match=school.headers["ETag"])
    assert unknown.json()["parents"] is None


@pytest.mark.slow
def test_five_thousand_sessions_are_counted_within_a_second(clean: None, measured: Callable[[int, str], None]) -> None:
    lay_out()
    kinds = {"station": 150, "school": 120, "kindergarten": 30}
    names = [f"{kind}{n}" for kind, many in kinds.items() for n in range(many)]
    for name in names:
        kind = name.rstrip("0123456789")
        records.create(staff.Organisation(id=key(name), name=name, kind=kind, division=SANYUAN, able=True), records.SYSTEM)
    row = stored(0, "2026-01-01 10:00", "guide", "F", "", "finished", 1, 10, 0, None, SHANGHAI)
    begin = row["starts_at"]
    rows = [
        {**row, "_id": f"m{n}", "host": key(names[n % len(names)]), "starts_at": begin + timedelta(minutes=n * 100)}
        for n in range(5000)
    ]
    for first in range(0, 5000, 500):
        CourseSession.rows().insert_many(rows[first : first + 500])
    took, bare = [], []
    for _ in range(5):
        began = time.perf_counter()
        found = coverage.coverage(CITY, 2026, "autumn", AUTUMN)
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
        match = {"starts_at": {"$gte": datetime(2025, 12, 31, tzinfo=UTC)}}
        assert len(list(CourseSession.rows().find(match, dict.fromkeys(coverage.FIELDS, 1)))) > 5000
        bare.append(time.perf_counter() - began)
    began = time.perf_counter()
    size = len(coveragepages.table(found)) + len(coveragepages.picture(found))
    drawn = time.perf_counter() - began
    whole, read = sorted(took)[2], sorted(bare)[2]
    said = f"{whole:.2f} s, where reading them bare takes {read:.2f} s; table and picture {drawn:.2f} s, {size} bytes"
    measured(16, f"coverage of 5,000 sessions at 300 places: {said}")
    assert sum(row.year.sessions for row in found.rows) == 5000 + 18
    assert whole < max(1, 2 * read) and drawn < 1  # on a machine that does other work the read itself takes longer

"""Seasons: which days they are, who has confirmed them, and what a phone is told of them."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from content import divisions
from content.failures import Invalid, NotFound
from content.published import Reader
from content.vocabulary import SEASONS
from notifications import seasons
from notifications.seasons import Override, Span
from tests.site import Site

CODES = st.sampled_from(["", "150603", "500114", "420100", "370200", "620800", "150600", "370000", "419001"])


def test_the_gaokao_of_2027_begins_on_the_seventh_of_june() -> None:
    assert seasons.season("gaokao", 2027) == Span(date(2027, 6, 7), date(2027, 6, 9), False)
    assert seasons.season("gaokao", 2040).provisional
    days = [one.on for one in seasons.due("gaokao", 2027)]
    assert days == [date(2027, 5, 8), date(2027, 5, 24), date(2027, 5, 31), date(2027, 6, 6)]
    (now,) = [c for c in seasons.current(date(2027, 6, 6), "150603", "senior.12.final") if c.season.code == "gaokao"]
    assert now.starts_in == 1
    assert "gaokao" not in {c.season.code for c in seasons.current(date(2027, 6, 6), "150603", "junior.9.final")}
    assert seasons.season("families_week", 2027)[:2] == (date(2027, 5, 10), date(2027, 5, 16))
    assert seasons.season("zhongkao", 2027).provisional


def test_the_file_and_the_vocabulary_name_the_same_seasons() -> None:
    assert set(seasons.calendar().seasons) == set(SEASONS)


@given(st.sampled_from(list(SEASONS)), st.integers(2020, 2040), CODES, st.data())
def test_seasons_fire_on_the_right_local_day(code: str, year: int, division: str, data: st.DataObject) -> None:
    plain = seasons.season(code, year, (), division)
    rule = seasons.calendar().seasons[code]
    assert plain.first <= plain.last
    assert plain.provisional is (rule.local or plain.last > seasons.known_until())
    if rule.week_of:
        assert (plain.first.weekday(), plain.last.weekday()) == (0, 6)
        assert plain.first <= date(year, rule.month, rule.day) <= plain.last
    # whoever is nearest and has confirmed, decides
    line = [*(divisions.lineage(division) if division else []), ""]
    told = data.draw(st.lists(st.sampled_from([*line, "110101"]), unique=True))
    overrides = [Override(d, code, year, date(year, 3, 1 + i), date(year, 3, 5 + i)) for i, d in enumerate(told)]
    span = seasons.season(code, year, overrides, division)
    nearest = next((d for d in line if d in told), None)
    if nearest is None:
        assert span == plain
    else:
        assert span == Span(date(year, 3, 1 + told.index(nearest)), date(year, 3, 5 + told.index(nearest)), False)
    # each notice day once, and every one of them lies where `current` shows the season
    days = seasons.due(code, year, overrides, division)
    assert len({one.on for one in days}) == len(days) == len(rule.lead_days)
    for one in days:
        shown = [c for c in seasons.current(one.on, division, "", overrides) if c.season.code == code and c.span == span]
        assert len(shown) == 1
        assert one.provisional is span.provisional


def test_a_confirmed_date_is_published_corrected_and_kept_once(clean: None) -> None:
    made = seasons.confirm("150603", "zhongkao", date(2027, 6, 20), date(2027, 6, 22), "anna")
    with pytest.raises(Exception, match="duplicate|E11000|exists"):
        seasons.confirm("150603", "zhongkao", date(2027, 6, 21), date(2027, 6, 22), "anna")
    seasons.correct(made.id, date(2027, 6, 21), date(2027, 6, 23), "bold", revision=1)
    reader = Reader()
    reader.refresh()
    assert seasons.of_snapshot(reader.current) == seasons.stored()
    assert seasons.season("zhongkao", 2027, seasons.stored(), "150603") == Span(date(2027, 6, 21), date(2027, 6, 23), False)
    for wrong in (("150603", "nothing", 21, 22), ("999999", "zhongkao", 21, 22), ("150603", "zhongkao", 22, 21)):
        with pytest.raises(Invalid):
            seasons.confirm(wrong[0], wrong[1], date(2028, 6, wrong[2]), date(2028, 6, wrong[3]), "anna")
    with pytest.raises(NotFound):
        seasons.season("nothing", 2027)


def test_seasons_over_http(site: Site) -> None:
    june = site.get("/v1/seasons?division=150603&stage=senior.12.final&on=2027-06-06").json()
    (gaokao,) = [item for item in june["items"] if item["code"] == "gaokao"]
    assert (gaokao["first"], gaokao["provisional"]) == ("2027-06-07", False)
    assert gaokao["title"] == seasons.calendar().seasons["gaokao"].title["zh-Hans"]
    assert site.get("/v1/seasons?on=0001-01-01").status_code == 422
    assert site.get("/v1/seasons").status_code == 200
    site.person("organiser", "organiser", division="150603")
    told = {"code": "gaokao", "division": "150603", "first": "2027-07-07", "last": "2027-07-09"}
    assert site.post("/v1/staff/seasons", {**told, "division": "150600"}, by="organiser").status_code == 403
    made = site.post("/v1/staff/seasons", told, by="organiser")
    assert made.status_code == 201, made.text
    key = made.json()["id"]
    right = {"first": "2027-06-07", "last": "2027-06-10"}
    assert site.call("PATCH", f"/v1/staff/seasons/{key}", json=right, by="organiser").status_code == 428
    assert site.call("PATCH", f"/v1/staff/seasons/{key}", json=right, by="organiser", match='"1"').status_code == 200
    june = site.get("/v1/seasons?division=150603&stage=senior.12.final&on=2027-06-06").json()
    assert [item["last"] for item in june["items"] if item["code"] == "gaokao"] == ["2027-06-10"]
    assert len(site.get("/v1/staff/seasons", by="organiser").json()["items"]) == 1

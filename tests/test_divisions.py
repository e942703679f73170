"""Divisions: every code reaches its province, no parent is cut from digits, retired codes go on meaning something."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from content import divisions
from content.failures import Invalid, NotFound
from tests.site import Site

CODES = [line.split(",")[0] for line in (divisions.DATA / "divisions.csv").read_text(encoding="utf-8").splitlines()[1:]]
RETIRED = list(csv.DictReader((divisions.DATA / "changes.csv").read_text(encoding="utf-8").splitlines()))


def test_every_code_reaches_a_province() -> None:
    assert len(CODES) == 3212
    levels = {"province": 0, "prefecture": 0, "county": 0}
    for code in CODES:
        line = divisions.lineage(code)
        assert line[0] == code
        assert divisions.get(line[-1]).level == "province"
        assert len(line) <= 3
        assert len(set(line)) == len(line)
        levels[divisions.get(code).level] += 1
    assert levels == {"province": 34, "prefecture": 333, "county": 2845}


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("419001", ["419001", "410000"]),  # 济源: no 419000 exists
        ("429004", ["429004", "420000"]),  # 仙桃
        ("469001", ["469001", "460000"]),  # 五指山
        ("659012", ["659012", "650000"]),  # 白杨
        ("500114", ["500114", "500000"]),  # 黔江: no 500100 exists
        ("110101", ["110101", "110000"]),
        ("150603", ["150603", "150600", "150000"]),  # 康巴什
        ("420100", ["420100", "420000"]),
    ],
)
def test_no_parent_is_cut_from_digits(code: str, line: list[str]) -> None:
    assert divisions.lineage(code) == line
    if len(line) == 2 and code[4:] != "00":
        assert not divisions.known(code[:4] + "00")


def test_cities_without_counties_and_names_that_repeat() -> None:
    for code in ("441900", "442000", "460400", "620200"):
        assert divisions.get(code).level == "prefecture"
        assert divisions.children(code) == []
    assert {row.code for row in divisions.search("朝阳区")} == {"110105", "220104"}
    assert [row.code for row in divisions.search("朝阳区", "220000")] == ["220104"]
    assert len(divisions.children()) == len(divisions.children(divisions.COUNTRY)) == 34


def test_retired_codes() -> None:
    assert len(RETIRED) == 75
    for row in RETIRED:
        code = row["code"]
        assert code not in CODES
        assert divisions.known(code)
        assert divisions.get(code).retired
        assert divisions.get(divisions.lineage(code)[-1]).level == "province"
        if row["replaced_by"]:
            successor = divisions.get(divisions.current(code))
            assert successor.code == row["replaced_by"]
            assert not successor.retired
            assert successor.name.startswith(row["name"]) or successor.name[:-1] == row["name"][:-1]
            assert divisions.check(code, "division") == successor.code
        else:
            with pytest.raises(Invalid) as refused:
                divisions.check(code, "division")
            assert code in str(refused.value)
    assert divisions.lineage("220381") == ["220184", "220100", "220000"]  # 公主岭 went from 四平 to 长春
    assert divisions.lineage("371202") == ["371202", "371200", "370000"]  # its city is retired too


def test_a_grant_on_a_retired_code_still_covers_its_successor() -> None:
    assert divisions.within("320613", "320602")  # 崇川, re-coded
    assert divisions.within("320602", "320613")
    assert divisions.within("320602", "320600")
    assert not divisions.within("220381", "220300")
    assert divisions.within("230705", "230700")  # no certain successor: it keeps its old place


def test_unknown_codes() -> None:
    for code in ("999999", "", "11010", "110101 ", "１１０１０１"):
        assert not divisions.known(code)
        with pytest.raises(NotFound):
            divisions.get(code)
        with pytest.raises(Invalid):
            divisions.check(code, "division")
        assert not divisions.within(code, "110000")
    assert not divisions.within("110101", "999999")


@given(st.sampled_from(CODES), st.sampled_from(CODES))
def test_within_is_lineage(code: str, ancestor: str) -> None:
    assert divisions.within(code, ancestor) == (ancestor in divisions.lineage(code))
    assert divisions.within(code, "")
    assert divisions.within(code, divisions.COUNTRY)
    assert divisions.within(code, code)
    assert not divisions.within("", ancestor)
    assert all(row.parent == ancestor for row in divisions.children(ancestor))


def test_sources_are_named() -> None:
    text = (Path(divisions.DATA) / "SOURCES.md").read_text(encoding="utf-8")
    assert all(name in text for name in ("divisions.csv", "changes.csv", "MIT"))


def test_over_http(site: Site) -> None:
    provinces = site.get("/v1/divisions")
    assert len(provinces.json()["items"]) == 34
    assert provinces.headers["ETag"]
    assert site.get("/v1/divisions", headers={"If-None-Match": provinces.headers["ETag"]}).status_code == 304
    page = site.get("/v1/divisions?parent=500000&limit=20").json()
    codes = [row["code"] for row in page["items"]]
    while page["next_cursor"]:
        page = site.get(f"/v1/divisions?parent=500000&limit=20&cursor={page['next_cursor']}").json()
        codes += [row["code"] for row in page["items"]]
    assert codes == [row.code for row in divisions.children("500000")]
    assert [row["code"] for row in site.get("/v1/divisions?name=黔江").json()["items"]] == ["500114"]
    one = site.get("/v1/divisions/320602").json()
    assert (one["retired"], one["replaced_by"]) == (True, "320613")
    assert [row["name"] for row in one["lineage"]] == ["崇川区", "南通市", "江苏省"]
    assert site.get("/v1/divisions/999999").json()["code"] == "not_found"
    assert site.get("/v1/divisions?parent=999999").json()["errors"][0]["field"] == "parent"


def test_every_coded_list_is_told_with_its_labels(site: Site) -> None:
    told = site.get("/v1/vocabularies").json()
    assert {row["code"]: row["label"]["zh-Hans"] for row in told["stages"]}["junior"] == "初中"
    assert next(row["grades"] for row in told["stages"] if row["code"] == "senior") == [10, 11, 12]
    assert {"language": "mn-Mong", "name": "ᠮᠣᠩᠭᠣᠯ", "script": "Mong", "direction": "ttb"} in told["languages"]
    spec = site.get("/openapi.json").json()
    query = {p["name"]: p for p in spec["paths"]["/v1/lessons"]["get"]["parameters"]}
    for name, table in (("audience", "audiences"), ("topic", "topics"), ("season", "seasons"), ("kind", "kinds")):
        assert query[name]["schema"]["enum"] == [row["code"] for row in told[table]]

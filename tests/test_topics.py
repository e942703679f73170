"""Topics: a name and its segment, who hears what, and nobody twice a day."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from content import divisions
from content.failures import Invalid
from content.vocabulary import AUDIENCES, GRADES, STAGES, Stage
from notifications import conditions, topics
from tests.doubles import fake_fcm

ZH = "d150603.parent.senior.final.zh-Hans"
CODES = st.sampled_from(["", "150603", "500114", "420100", "370200", "620800", "150600", "370000", "419001"])
TAGS = st.sampled_from(["zh-Hans", "zh-Hant", "mn-Mong", "mn-Cyrl", "en"])


@st.composite
def stage_texts(draw: st.DrawFn) -> str:
    """Any stage, or none."""
    name = draw(st.sampled_from(["", *STAGES]))
    if not name:
        return ""
    grade = draw(st.sampled_from([None, *GRADES.get(name, ())]))
    return str(Stage(name, grade, draw(st.booleans()), draw(st.booleans())))


SEGMENTS = st.builds(topics.Segment, CODES, st.sampled_from(list(AUDIENCES)), stage_texts(), TAGS)


@given(SEGMENTS)
def test_a_topic_and_its_segment_name_each_other(segment: topics.Segment) -> None:
    name = topics.name(segment)
    assert topics.segment(name) == segment
    assert fake_fcm.TOPIC.match(name)
    assert len(name) <= 60


@given(SEGMENTS, SEGMENTS)
def test_a_phone_hears_exactly_what_covers_it(phone: topics.Segment, meant: topics.Segment) -> None:
    heard = topics.for_phone(*phone)
    assert len(set(heard)) == len(heard) <= 2000 // 10
    covers = (
        (not meant.division or divisions.within(phone.division, meant.division))
        and meant.audience == phone.audience
        and meant.language == phone.language
        and (not meant.stage or (bool(phone.stage) and Stage.parse(meant.stage).covers(Stage.parse(phone.stage))))
    )
    assert (topics.name(meant) in heard) is covers


def test_topics_say_nothing_of_health_and_foreign_ones_are_refused() -> None:
    assert topics.name(topics.Segment("150603", "parent", "senior.final", "zh-Hans")) == ZH
    vocabulary = {*AUDIENCES, *STAGES, "all", "final", "entering"}
    for name in topics.for_phone("150603", "parent", "senior.12.final", "zh-Hans"):
        assert {word for word in name.split(".")[1:-1] if not word.isdigit()} <= vocabulary
    for bad in ("高考", "", "x", "d1.parent", "d150603.doctor.all.en", "d150603.parent.senior.13.en", "d.parent.all.en"):
        with pytest.raises(Invalid):
            topics.segment(bad)


# --- nobody twice a day ----------------------------------------------------------------------------------------------

NEAR = ["", "150603", "150600", "420100", "420111"]  # in lines with each other, so that notices often meet
MEANT = st.tuples(
    st.lists(st.sampled_from(NEAR), min_size=1, max_size=2, unique=True),
    st.lists(st.sampled_from(["parent", "student"]), min_size=1, max_size=2, unique=True),
    st.lists(stage_texts(), min_size=1, max_size=3, unique=True),
)
PHONES = st.tuples(
    st.sampled_from(NEAR), st.sampled_from(["parent", "student"]), st.lists(stage_texts(), min_size=1, max_size=2), TAGS
)


def hears(push: topics.Push, subscribed: set[str]) -> bool:
    """Whether FCM would bring this message to a phone."""
    kind, target = push.target()
    return target in subscribed if kind == "topic" else conditions.parse(target).holds(subscribed)


@settings(deadline=None)
@given(st.lists(MEANT, min_size=1, max_size=4), st.lists(PHONES, min_size=1, max_size=4), st.data())
def test_a_phone_is_told_once_a_day_and_never_less_than_it_could_be(notices: list[Any], phones: list[Any], data: Any) -> None:
    told: list[str] = []
    heard: dict[int, list[int]] = {n: [] for n in range(len(phones))}
    subscribed = []
    for division, audience, stages, language in phones:
        children = stages if audience == "parent" else stages[:1]
        subscribed.append({t for stage in children for t in topics.for_phone(division, audience, stage, language)})
    silent: set[str] = set()
    for number, (codes, audiences, stages) in enumerate(notices):
        wanted = topics.for_notice(codes, audiences, stages, ["en", "zh-Hans"])
        pushes, rest = topics.plan(wanted, told)
        assert sorted([*rest, *(t for push in pushes for t in push.topics)]) == sorted(wanted)
        for push in pushes:
            assert len(push.topics) + len(push.without) <= topics.MOST
            assert len({topics.segment(t).language for t in push.topics}) == 1
        told += [t for push in pushes for t in push.topics]
        silent |= set(rest)
        for n, topics_of in enumerate(subscribed):
            if any(hears(push, topics_of) for push in pushes):
                heard[n].append(number)  # several messages of one notice share a collapse key
    for n, topics_of in enumerate(subscribed):
        assert len(heard[n]) <= 1
        meant = [
            number
            for number, (codes, audiences, stages) in enumerate(notices)
            if topics_of & set(topics.for_notice(codes, audiences, stages, ["en", "zh-Hans"]))
        ]
        assert set(heard[n]) <= set(meant)
        if meant and not topics_of & silent:  # nothing but a lack of room ever leaves a family to the inbox
            assert heard[n] == meant[:1]


def test_who_is_done_is_left_in_peace() -> None:
    parents = ["d150603.parent.senior.final.zh-Hans", "d150603.parent.junior.final.zh-Hans"]
    ((push,), rest) = topics.plan(parents, [], "gaokao.2027")
    assert rest == []
    assert push.target() == (
        "condition", f"('{parents[0]}' in topics || '{parents[1]}' in topics) && !('{topics.done('gaokao.2027')}' in topics)",
    )  # fmt: skip
    assert hears(push, {parents[0]})
    assert not hears(push, {parents[0], topics.done("gaokao.2027")})


def test_a_topic_within_another_of_the_same_notice_is_left_out() -> None:
    found = topics.for_notice(["150600", "150603"], ["parent"], ["senior", "senior.final"], ["en"])
    assert found == ["d150600.parent.senior.en"]

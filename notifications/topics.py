"""Segments and FCM topic names. The phone subscribes itself, so we hold no list of phones.

A name says where, who, which school year and which language, and nothing of health or hardship:
`d150603.parent.senior.final.zh-Hans`; `all` stands for every division or every stage. A notice goes to the topics of
exactly what it is meant for; a phone subscribes to every topic that covers it (its division and all above, its stage and
all wider ones), so one message reaches it however widely the notice is meant.
"""

from typing import NamedTuple

from content import divisions
from content.failures import invalid
from content.vocabulary import AUDIENCES, GRADES, Stage

ALL = "all"


class Segment(NamedTuple):
    """Who one message is for. `division` "" is the whole country, `stage` "" every stage."""

    division: str
    audience: str
    stage: str
    language: str


def name(segment: Segment) -> str:
    """The topic of a segment. Raises `Invalid` on a stage or audience that is none; division and language are the caller's."""
    if segment.audience not in AUDIENCES:
        raise invalid("audience", "not_one_of", choices=", ".join(AUDIENCES))
    stage = str(Stage.parse(segment.stage, "stage")) if segment.stage else ALL
    where = f"d{segment.division}" if segment.division not in {"", divisions.COUNTRY} else ALL
    return ".".join((where, segment.audience, stage, segment.language))


def segment(topic: str) -> Segment:
    """The segment of a topic name; the reverse of `name`. Raises `Invalid` for a name that is not ours."""
    try:
        where, audience, *stage, language = topic.split(".")
        code = "" if where == ALL else where.removeprefix("d")
        found = Segment(code, audience, "" if stage == [ALL] else ".".join(stage), language)
    except ValueError:
        raise invalid("topic", "bad_format", reason=topic) from None
    if name(found) != topic:
        raise invalid("topic", "bad_format", reason=topic)
    return found


def covering(stage: str) -> list[str]:
    """Every stage text whose notices a reader of `stage` should get, widest first; `Stage.covers` decides. Raises `Invalid`."""
    if not stage:
        return [""]
    reader = Stage.parse(stage, "stage")
    grades = [None, *GRADES.get(reader.stage, ())]
    meant = [Stage(reader.stage, g, e, f) for g in grades for e in (False, True) for f in (False, True)]
    return ["", *(str(one) for one in meant if one.covers(reader))]


def for_phone(division: str, audience: str, stage: str, language: str) -> list[str]:
    """The topics a phone of this segment subscribes to: its division, those above and the country, times the stages that
    cover it. FCM allows 2,000 topics a phone; the widest answer here has 116. Raises `NotFound` for an unknown division."""
    where = [*(divisions.lineage(division) if division not in {"", divisions.COUNTRY} else []), ""]
    return [name(Segment(code, audience, one, language)) for code in where for one in covering(stage)]


def for_notice(codes: list[str], audiences: list[str], stages: list[str], languages: list[str]) -> list[str]:
    """The topics a notice goes to, one message each, in a fixed order. Empty `codes`: the whole country; empty `stages`: all."""
    return [
        name(Segment(code, audience, stage, language))
        for code in codes or [""]
        for audience in audiences
        for stage in stages or [""]
        for language in languages
    ]

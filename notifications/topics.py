"""Segments, FCM topic names, and which messages reach whom. The phone subscribes itself, so we hold no list of phones.

A name says where, who, which school year and which language, and nothing of health or hardship:
`d150603.parent.senior.final.zh-Hans`; `all` stands for every division or every stage. A notice goes to the topics of
exactly what it is meant for; a phone subscribes to every topic that covers it (its division and all above, its stage and
all wider ones; a family with two children, to those of both), so one message reaches it however widely the notice is meant.

**One buzz a day.** FCM takes a condition of up to five topics, and a phone that fits it in three ways gets one message. `plan`
puts a notice's topics into such conditions and leaves out (`!`) the topics that were told already that day. Nobody has to know a
phone for that: who could be in both is seen from the names. Divisions of which neither lies in the other could have any family
in common, and a condition has no room for all: a phone that is in two such gets two messages under one collapse key, the day's,
so that one line stands on its screen (`notices.Notice.collapse_key`).

**Done.** A phone whose reader has done what a campaign asks subscribes to a topic of the campaign's (`done.` and a hash), which
its later messages leave out. (The other way round, a topic of the campaign that the phone leaves, would need every phone to be
awake once before the first message.)
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from content import divisions
from content.failures import invalid
from content.vocabulary import AUDIENCES, GRADES, STAGES, Stage

ALL = "all"
DONE = "done"
MOST = 5  # topics in one condition, FCM's limit


class Segment(NamedTuple):
    """Who one message is for. `division` "" is the whole country, `stage` "" every stage."""

    division: str
    audience: str
    stage: str
    language: str


class Push(NamedTuple):
    """One message: to the phones in any of `topics` and in none of `without`. All its topics are of one language."""

    topics: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def language(self) -> str:
        """The language of the phones it reaches."""
        return segment(self.topics[0]).language

    def target(self) -> tuple[str, str]:
        """("topic", its name) or ("condition", FCM's expression)."""
        if len(self.topics) == 1 and not self.without:
            return "topic", self.topics[0]
        wanted, told = (" || ".join(f"'{name}' in topics" for name in names) for names in (self.topics, self.without))
        return "condition", f"({wanted}) && !({told})" if self.without else wanted


def name(segment: Segment) -> str:
    """The topic of a segment. Raises `Invalid` on a stage or audience that is none; division and language are the caller's."""
    if segment.audience not in AUDIENCES:
        raise invalid("audience", "not_one_of", choices=", ".join(AUDIENCES))
    stage = str(Stage.parse(segment.stage, "stage")) if segment.stage else ALL
    where = f"d{segment.division}" if segment.division not in {"", divisions.COUNTRY} else ALL
    return ".".join((where, segment.audience, stage, segment.language))


@lru_cache(16384)
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


def done(campaign: str) -> str:
    """The topic that a phone joins once its reader has done what the campaign asks. Its name does not say which campaign."""
    return f"{DONE}.{hashlib.sha256(campaign.encode()).hexdigest()[:12]}"


def _every(stage: str) -> list[Stage]:
    """All that can be said of a reader of this stage."""
    return [Stage(stage, g, e, f) for g in (None, *GRADES.get(stage, ())) for e in (False, True) for f in (False, True)]


def covering(stage: str) -> list[str]:
    """Every stage text whose notices a reader of `stage` should get, widest first; `Stage.covers` decides. Raises `Invalid`."""
    if not stage:
        return [""]
    reader = Stage.parse(stage, "stage")
    return ["", *(str(one) for one in _every(reader.stage) if one.covers(reader))]


def for_phone(division: str, audience: str, stage: str, language: str) -> list[str]:
    """The topics a phone of this segment subscribes to: its division, those above and the country, times the stages that
    cover it. FCM allows 2,000 topics a phone; the widest answer here has 116. Raises `NotFound` for an unknown division."""
    where = [*(divisions.lineage(division) if division not in {"", divisions.COUNTRY} else []), ""]
    return [name(Segment(code, audience, one, language)) for code in where for one in covering(stage)]


def for_notice(codes: Sequence[str], audiences: Sequence[str], stages: Sequence[str], languages: Sequence[str]) -> list[str]:
    """The topics a notice goes to, in a fixed order. Empty `codes`: the whole country; empty `stages`: all. A topic whose phones
    are all in another of them is left out."""
    wanted = {
        name(Segment(code, audience, stage, language)): None
        for language in languages
        for code in codes or [""]
        for audience in audiences
        for stage in stages or [""]
    }
    return [topic for topic in wanted if wider(topic).isdisjoint(wanted)]


# --- who could be reached twice --------------------------------------------------------------------------------------


@lru_cache(1024)
def _readers(stage: str) -> frozenset[str]:
    """Every stage text by which a phone can ask and then be in this stage's topics."""
    if not stage:
        return frozenset({"", *(str(one) for name in STAGES for one in _every(name))})
    meant = Stage.parse(stage)
    return frozenset(str(one) for one in _every(meant.stage) if meant.covers(one))


@lru_cache(1024)
def _wider(stage: str) -> tuple[str, ...]:
    """The other stage texts whose topics hold every phone that is in this one's."""
    if not stage:
        return ()
    mine = _readers(stage)
    every = ["", *map(str, _every(Stage.parse(stage).stage))]
    return tuple(one for one in every if one != stage and mine <= _readers(one))


def _line(code: str) -> list[str]:
    """A division and all above it, the country last."""
    return [*(divisions.lineage(code) if code not in {"", divisions.COUNTRY} else []), ""]


@lru_cache(16384)
def wider(topic: str) -> frozenset[str]:
    """The other topics that hold every phone of this one: its stage or a wider one, in its division or one above."""
    one = segment(topic)
    stages = (one.stage, *_wider(one.stage))
    found = {name(Segment(c, one.audience, s, one.language)) for c in _line(one.division) for s in stages}
    return frozenset(found - {topic})


class _Told:
    """Topics that were told, to be found by who could be in one of them and in another topic as well."""

    def __init__(self, told: Iterable[str]) -> None:
        self.all = set(told)
        self._at: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self._under: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for topic in sorted(self.all):
            one = segment(topic)
            if wider(topic).isdisjoint(self.all):  # a wider one says it all
                self._at[one.audience, one.language, one.division].append(topic)
                for code in _line(one.division)[1:]:
                    self._under[one.audience, one.language, code].append(topic)

    def near(self, topic: str) -> list[str]:
        """Those that a phone of this topic can be in: of one audience and language, and of one line of divisions. Parents and
        teachers may have to do with any two stages, a student is in one."""
        one = segment(topic)
        who = one.audience, one.language
        line = _line(one.division)
        found = [other for code in line for other in self._at[*who, code]] + self._under[*who, one.division]
        if one.audience == "student":
            mine = _readers(one.stage)
            found = [other for other in found if mine & _readers(segment(other).stage)]
        return found


def plan(wanted: Iterable[str], told: Iterable[str], campaign: str = "") -> tuple[list[Push], list[str]]:
    """(the messages for these topics, the topics that get none): no phone that is in a topic of `told` is reached, nor one that
    is done with `campaign`. A topic gets no message when all its phones were told, or when there is no room in a condition to
    leave out those who were: then the inbox has to do, for nobody is to be called twice a day.

    A notice of more than five topics is several messages; who is in two of them sees one, since they share its collapse key."""
    known, rest, groups = _Told(told), [], defaultdict(list)
    for topic in wanted:
        near = known.near(topic)
        without = (*sorted(near), *([done(campaign)] if campaign else []))
        if topic in known.all or not wider(topic).isdisjoint(known.all) or len(without) >= MOST:
            rest.append(topic)
        else:
            groups[segment(topic).language, without].append(topic)
    pushes = []
    for (_, without), names in groups.items():
        room = MOST - len(without)
        pushes += [Push(tuple(names[i : i + room]), without) for i in range(0, len(names), room)]
    return pushes, rest

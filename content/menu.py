"""What may be counted of a subject: groups, and by scale its columns. From the definition and its register, never from data.

A contribution is made here from what a phone said, checked against the menu; `counting` adds it up, `statistics` tells it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from content import divisions
from content.definition import TOTAL, Definition, Scale
from content.failures import FieldError, Invalid, invalid
from content.settings import Settings
from content.vocabulary import STAGES, Stage

ALL, UNTOLD, NONE = "all", "unknown", "none"
"""Group of a subject without stages; of who does not tell theirs; column of who has no band."""
HABITS = ("talk_15", "sport_60")  # 两个一: fifteen minutes of talk, one hour of sport
DONE = ("did", "partly", "not_yet")
AGES = (0, 1, 7, 30, 90)  # days: each bucket of an installation's age begins there
CORE = "core"
NOTICE = ("opened", "acted")


class Menu(NamedTuple):
    """All that may ever be counted of a subject, from its definition and never from data."""

    groups: tuple[str, ...]
    scales: Mapping[str, tuple[str, ...]]
    """Columns by scale."""


class Contribution(NamedTuple):
    """One person's part: a group and, for some scales of the menu, a column; `sums` are added up beside."""

    subject: str
    division: str
    group: str
    columns: Mapping[str, str]
    sums: Mapping[str, int]
    menu: Menu


def groups_of(stages: Iterable[str]) -> tuple[str, ...]:
    """The groups of a subject whose stages are these texts of `Stage`: stages without grades, and who does not tell."""
    named = {Stage.parse(text).stage for text in stages}
    return (*(stage for stage in STAGES if stage in named), UNTOLD) if named else (ALL,)


def group_of(groups: Sequence[str], stage: str | None) -> str:
    """The group of a person at this stage. Raises `Invalid` for one that the subject is not for."""
    if groups == (ALL,):
        return ALL
    if stage is None:
        return UNTOLD
    if stage not in groups:
        raise invalid("stage", "not_one_of", choices=", ".join(groups))
    return stage


def place(settings: Settings, division: str | None) -> str:
    """The division to count for: a county in force within the service's reach (or what has no counties below it); the
    service's own when none is told. Raises `Invalid`."""
    if not division:
        return settings.division or divisions.COUNTRY
    code = divisions.check(division, "division")
    if not divisions.within(code, settings.division) or divisions.children(code):
        raise invalid("division", "not_counted", value=code, reach=settings.division or divisions.COUNTRY)
    return code


def told(definition: Definition) -> dict[str, tuple[str, ...]]:
    """The columns by scale of those scales that are counted: the total first, if it has bands, then the others in their order,
    each only where it comes from nothing that one before it comes from.

    Scales over the same items are not told side by side: with 30 persons of a total in the band 0-4, and the 8 in 5-9 merged
    with the graver ones, a second scale that says 38 are below 10 tells the 8; a cut at each point tells the whole distribution.
    So whoever wants the subscales told gives bands to them and none to the total.
    """
    found: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for scale in sorted(definition.scales, key=lambda scale: scale.code != TOTAL):
        if scale.bands and taken.isdisjoint(sources := _sources(definition, scale)):
            found[scale.code] = _columns(scale)
            taken |= sources
    return found


def _columns(scale: Scale) -> tuple[str, ...]:
    return (*(band.code for band in scale.bands), NONE)


def _sources(definition: Definition, scale: Scale) -> set[str]:
    """What decides a scale's band: its items, the questions on which they are asked, "" for the person's age and sex."""
    found: set[str] = {""} if scale.norms else set()
    open_items = [item.link_id for item in definition.leaves(scale)]
    while open_items:
        name = open_items.pop()
        if name in found:
            continue
        found.add(name)
        for gate in definition.gates.get(name, ()):
            item = definition.index[gate]
            found |= {""} if item.ages else set()
            open_items += [clause.question for clause in item.clauses]
    return found


def of_check(
    settings: Settings,
    definition: Definition,
    stages: Iterable[str],
    bands: Mapping[str, str | None],
    division: str | None,
    stage: str | None,
) -> Contribution:
    """A self-check's bands by scale (None or absent: none). A phone may name every scale of the check; what is not `told` is
    dropped here. Raises `Invalid` that names every scale or band it does not know."""
    scales = {scale.code: _columns(scale) for scale in definition.scales if scale.bands}
    known = {"choices": ", ".join(scales)}
    wrong = [FieldError(f"bands.{code[:80]}", "not_one_of", known) for code in bands if code not in scales]
    wrong += [
        FieldError(f"bands.{code}", "not_one_of", {"choices": ", ".join(scales[code])})
        for code, band in bands.items()
        if code in scales and (band or NONE) not in scales[code]
    ]
    if wrong:
        raise Invalid(wrong)
    groups, counted = groups_of(stages), told(definition)
    columns = {code: bands.get(code) or NONE for code in counted}
    subject = f"check:{definition.slug}@{definition.version[:16]}"
    return Contribution(subject, place(settings, division), group_of(groups, stage), columns, {}, Menu(groups, counted))


def of_quiz(
    settings: Settings,
    definition: Definition,
    stages: Iterable[str],
    correct: int,
    answered: int,
    division: str | None,
    stage: str | None,
) -> Contribution:
    """An open quiz: how many core questions were answered right. They are those of the scale "core", without one those of the
    total. Of how many were `answered` nothing is kept: one left out is not right. Raises `Invalid`."""
    core = definition.scale.get(CORE) or definition.total
    most = len({item.link_id for item in definition.leaves(core)}) if core else 0
    if not 0 <= correct <= answered <= most:
        raise invalid("core", "out_of_range", reason=f"0 ≤ correct ≤ answered ≤ {most}")
    groups = groups_of(stages)
    menu = Menu(groups, {CORE: tuple(str(number) for number in range(most + 1))})
    subject, columns = f"quiz:{definition.slug}@{definition.version[:16]}", {CORE: str(correct)}
    return Contribution(subject, place(settings, division), group_of(groups, stage), columns, {"correct": correct}, menu)


def of_round(round_id: str, division: str, groups: tuple[str, ...], quiz: Contribution) -> Contribution:
    """A sampled round's quiz: the same answers under the round's subject, in the round's division and groups; whose stage is none
    of these (ALL and UNTOLD stand last) is in the last."""
    group = quiz.group if quiz.group in groups else groups[-1]
    return quiz._replace(subject=f"round:{round_id}", division=division, group=group, menu=quiz.menu._replace(groups=groups))


def of_habit(settings: Settings, what: str, answer: str, division: str | None, stage: str | None) -> Contribution:
    """A check-in: of `HABITS`, or "lesson:<slug>" the day after a lesson's small thing to try. Raises `Invalid`."""
    menu = Menu((*STAGES, UNTOLD), {"done": DONE})
    subject = what if what.startswith("lesson:") else f"habit:{what}"
    return Contribution(subject, place(settings, division), group_of(menu.groups, stage), {"done": answer}, {}, menu)


def of_return(settings: Settings, age: int, division: str | None) -> Contribution:
    """A phone was opened in this age bucket of its installation, told once a bucket: buckets over bucket 0 is who came back."""
    menu = Menu((ALL,), {"age": tuple(map(str, AGES))})
    return Contribution("return", place(settings, division), ALL, {"age": str(age)}, {}, menu)


def of_notice(settings: Settings, notice_id: str, what: str, division: str | None) -> Contribution:
    """A notice of the inbox was opened, or what it asks was done; told once each. Source: mission.md, reach measured per channel,
    for the inbox tells of no reader. Raises `Invalid`.

    Each is a subject of its own, "notice:<id>:opened": as two columns of one they would be merged while fewer than ten have
    acted, and of forty that opened nothing could be told. They are sent apart, each by choice: their difference counts nobody.
    """
    if what not in NOTICE:
        raise invalid("what", "not_one_of", choices=", ".join(NOTICE))
    return Contribution(f"notice:{notice_id}:{what}", place(settings, division), ALL, {}, {}, Menu((ALL,), {}))

"""The score of a questionnaire: a pure function of (definition, coded answers, age and sex).

Nothing here is stored or logged, and no failure repeats an answer. Only codes are compared, never labels, so every language
scores alike. A total is always computed; none is ever taken from outside. `api/reader/scorer.js` is the same on a phone; both
answer one table of cases (`tests/cases`).

Answers are `{link_id: value}`: a code for a choice, a list of codes for several, a number, or a bool. Free text stays on
the phone: an item of kind "text" is shown and never answered here, so no rule may hang on it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from content.definition import (
    ANSWERED,
    CHOICES,
    LARGEST,
    NUMBERS,
    TOTAL,
    Band,
    Clause,
    Definition,
    Item,
    Norm,
    Number,
    Scale,
    number,
)
from content.failures import FieldError, Invalid


@dataclass(frozen=True)
class About:
    """Who answers, as far as norms and age-banded items need it; nothing of it is kept. `age_months` also stands for "the child
    that is asked about". `seconds` is how long the answering took, as the phone says."""

    age_months: int | None = None
    sex: str | None = None
    seconds: int | None = None


NOBODY = About()


@dataclass(frozen=True)
class Reading:
    """What a scale amounts to. `minimum` and `maximum` are of what was asked. `band` is None while an item of it that is asked
    has no answer (part of a sum reads too low), where norms are needed and none fits, and beside a critical answer: whoever says
    "now" is not told how well things are going. `counts_as` is what a contribution says then. `standard` is the T score."""

    scale: Scale
    value: Number | None
    minimum: Number
    maximum: Number
    band: Band | None
    counts_as: Band | None
    norm: Norm | None
    standard: Number | None


@dataclass(frozen=True)
class Result:
    """What answers amount to. `answered` and `missing` are link ids of what is asked under these answers (missing ones were not
    required); `validity` the kinds of rules that these answers meet."""

    readings: tuple[Reading, ...]
    critical: bool
    answered: tuple[str, ...]
    missing: tuple[str, ...]
    validity: tuple[str, ...]

    def reading(self, code: str) -> Reading | None:
        """Of one scale."""
        return next((reading for reading in self.readings if reading.scale.code == code), None)

    @property
    def total(self) -> Number | None:
        """The value of the whole; None where there is none."""
        whole = self.reading(TOTAL)
        return whole.value if whole else None

    @property
    def band(self) -> Band | None:
        """The band of the whole."""
        whole = self.reading(TOTAL)
        return whole.band if whole else None


def score(definition: Definition, answers: Mapping[str, Any], about: About = NOBODY) -> Result:
    """The result of these answers. Raises `Invalid` listing every wrong one: unknown item, unknown code, wrong type, out of
    range, an answer to what is not asked, a required answer that is missing, an age that is needed (`age_months`) and was not
    told, or at which nothing is asked. An empty list of codes is no answer."""
    errors: dict[str, FieldError] = {}
    given: dict[str, tuple[Any, ...]] = {}
    for link_id, value in answers.items():
        item = definition.index.get(link_id)
        error = _wrong(item, value) if item else FieldError(f"answers.{str(link_id)[:80]}", "unknown_field")
        if error:
            errors[link_id] = error
        elif values := tuple(value) if isinstance(value, list | tuple) else (value,):
            given[link_id] = values
    if definition.by_age and about.age_months is None:
        raise Invalid([FieldError("age_months", "required"), *errors.values()])
    asked = _asked(definition, given, about)
    if definition.by_age and not any(definition.index[link_id].kind in ANSWERED for link_id in asked):
        ages = [item.ages for item in definition.index.values() if item.ages]
        ends = f"{min(low for low, _ in ages)}-{max(high for _, high in ages)} 个月 months"
        raise Invalid([FieldError("age_months", "out_of_range", {"reason": ends}), *errors.values()])
    for link_id, item in definition.index.items():
        if link_id in given and link_id not in asked:
            errors[link_id] = FieldError(f"answers.{link_id}", "not_asked")
        if item.required and item.kind in ANSWERED and link_id in asked - given.keys() and link_id not in errors:
            errors[link_id] = FieldError(f"answers.{link_id}", "required")
    if errors:
        raise Invalid(list(errors.values()))
    answerable = [link_id for link_id, item in definition.index.items() if item.kind in ANSWERED and link_id in asked]
    critical = is_critical(definition, answers)
    readings = (_reading(definition, scale, given, asked, about) for scale in definition.scales)
    return Result(
        readings=tuple(replace(one, band=None) for one in readings) if critical else tuple(readings),
        critical=critical,
        answered=tuple(link_id for link_id in answerable if link_id in given),
        missing=tuple(link_id for link_id in answerable if link_id not in given),
        validity=_doubts(definition, given, about),
    )


def is_critical(definition: Definition, answers: Mapping[str, Any]) -> bool:
    """Whether some answer calls for help at once. Never raises, and looks at wrong or half-filled answers too: an error in
    one field must not hide the help that another asks for."""
    for rule in definition.critical:
        item, value = definition.index.get(rule.item), answers.get(rule.item)
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str | bool) and (one if isinstance(one, str) else str(one).lower()) in rule.codes:
                return True
            if rule.at_least is not None and item is not None:
                number_given = isinstance(one, int | float) and not isinstance(one, bool)
                worth = one if number_given else next((o.score for o in item.options if o.code == one), None)
                if worth is not None and worth >= rule.at_least:
                    return True
    return False


# --- answers ---------------------------------------------------------------------------------------------------------


def _wrong(item: Item, value: Any) -> FieldError | None:
    """What is wrong with the value as such; the value itself is never repeated."""
    field = f"answers.{item.link_id}"
    codes = [option.code for option in item.options]
    if item.kind == "choice" and not (isinstance(value, str) and value in codes):
        return FieldError(field, "not_one_of", {"choices": ", ".join(codes)})
    if item.kind == "multiple":
        if not isinstance(value, list | tuple) or any(not isinstance(v, str) or v not in codes for v in value):
            return FieldError(field, "not_one_of", {"choices": ", ".join(codes)})
        low, high = item.minimum or 0, item.maximum or len(codes)
        if len(set(value)) != len(value) or (value and not low <= len(value) <= high):
            return FieldError(field, "out_of_range", {"reason": f"{low}-{high} × 1"})
    if item.kind in NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return FieldError(field, "wrong_type", {"reason": "number"})
        least = -LARGEST if item.minimum is None else item.minimum
        most = LARGEST if item.maximum is None else item.maximum
        if not least <= value <= most:
            return FieldError(field, "out_of_range", {"reason": f"{least} … {most}"})
        if item.kind == "integer" and value != int(value):
            return FieldError(field, "wrong_type", {"reason": "whole number"})
    if item.kind == "boolean" and not isinstance(value, bool):
        return FieldError(field, "wrong_type", {"reason": "true, false"})
    if item.kind not in ANSWERED:
        return FieldError(field, "not_asked")
    return None


def _asked(definition: Definition, given: Mapping[str, tuple[Any, ...]], about: About) -> set[str]:
    """Link ids that are asked under these answers and at this age. What is under something not asked is not asked either, and an
    answer to what is not asked decides nothing."""
    asked: set[str] = set()
    for item in definition.order:
        parent = definition.parents[item.link_id]
        if parent is not None and parent not in asked:
            continue
        if item.ages and not (about.age_months is not None and item.ages[0] <= about.age_months <= item.ages[1]):
            continue
        when = item.enable_when
        if when:
            held = [_holds(c, given.get(c.question, ()) if c.question in asked else ()) for c in when.clauses]
            if not (any(held) if when.any else all(held)):
                continue
        asked.add(item.link_id)
    return asked


def _holds(clause: Clause, values: Sequence[Any]) -> bool:
    """FHIR R4's questionnaire-enable-operator: "=" and the orders hold when at least one answer does so, "!=" when no answer
    is equal (so also when there is none), "exists" when having an answer is what the value says."""
    value: Any = clause.value
    match clause.operator:
        case "exists":
            return bool(values) is value
        case "=":
            return any(one == value for one in values)
        case "!=":
            return all(one != value for one in values)
        case ">":
            return any(one > value for one in values)
        case "<":
            return any(one < value for one in values)
        case ">=":
            return any(one >= value for one in values)
        case "<=":
            return any(one <= value for one in values)
    raise AssertionError(clause.operator)


# --- scales ----------------------------------------------------------------------------------------------------------


def _worth(item: Item, values: Sequence[Any], reverse: bool) -> float:
    """What an answer adds to a scale; an option without a score adds nothing, from either end."""
    if item.kind in CHOICES:
        scores = [option.score for option in item.options if option.code in values and option.score is not None]
        if not scores:
            return 0
        found = math.fsum(scores)
    else:
        found = float(values[0])
    return sum(item.ends) - found if reverse else found


def _value(definition: Definition, scale: Scale, given: Mapping[str, tuple[Any, ...]], asked: set[str]) -> Number | None:
    """The scale's value; None when nothing of it was answered, or not enough."""
    leaves = [leaf.link_id for leaf in definition.leaves(scale) if leaf.link_id in asked]
    if scale.method == "sum_if_complete" and not all(link_id in given for link_id in leaves):
        return None
    parts: list[float] = []
    for name in scale.of:
        if name in definition.index:
            if name in given and name in asked:
                parts.append(_worth(definition.index[name], given[name], name in scale.reverse))
        elif (below := _value(definition, definition.scale[name], given, asked)) is not None:
            parts.append(below)
    if not parts:
        return None
    # fsum: the exact sum, whatever the order of the answers
    return number(math.fsum(parts) / (len(parts) if scale.method == "mean" else 1))


def _reading(
    definition: Definition, scale: Scale, given: Mapping[str, tuple[Any, ...]], asked: set[str], about: About
) -> Reading:
    value = _value(definition, scale, given, asked)
    low, high = definition.reach(scale, asked)
    norm = next((n for n in scale.norms if _fits(n, about)), None)
    complete = all(leaf.link_id in given for leaf in definition.leaves(scale) if leaf.link_id in asked)
    band = standard = None
    if value is not None and complete:
        if norm or not scale.norms:
            band = band_of(scale, norm, value)
        if norm and norm.mean is not None and norm.sd:
            standard = number(round(50 + 10 * (value - norm.mean) / norm.sd, 1))
    return Reading(scale, value, low, high, band, band, norm, standard)


def _fits(norm: Norm, about: About) -> bool:
    return (
        about.age_months is not None
        and norm.minimum_age <= about.age_months <= norm.maximum_age
        and (norm.sex is None or norm.sex == about.sex)
    )


def band_of(scale: Scale, norm: Norm | None, value: Number) -> Band | None:
    """The band that holds a value. Bands of a scale with fractions touch, and what lies on an edge belongs to the upper one."""
    found = None
    for band in scale.bands:
        low, high = norm.cuts.get(band.code, (band.minimum, band.maximum)) if norm else (band.minimum, band.maximum)
        if low <= value <= high and (found is None or low > found[0]):
            found = low, band
    return found[1] if found else None


def _doubts(definition: Definition, given: Mapping[str, tuple[Any, ...]], about: About) -> tuple[str, ...]:
    """Kinds of the validity rules that these answers meet."""
    met = []
    for rule in definition.validity:
        if rule.kind == "too_fast":
            doubtful = about.seconds is not None and about.seconds < (rule.seconds or 0)
        else:
            doubtful = all(link_id in given for link_id in rule.items) and (
                len({_place(definition.index[link_id], given[link_id]) for link_id in rule.items}) == 1
            )
        if doubtful and rule.kind not in met:
            met.append(rule.kind)
    return tuple(met)


def _place(item: Item, values: Sequence[Any]) -> Any:
    """Where an answer stands on its line: the option's place (those of several in any order), or the number itself."""
    codes = [option.code for option in item.options]
    return tuple(sorted(codes.index(code) for code in values)) if item.kind in CHOICES else values

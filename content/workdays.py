"""Public holidays of mainland China and the working days made up for them, as what is said of a date when planning.

The State Council tells a year's holidays in the November before; past the years that chinesecalendar holds a date is provisional.
What is off in every year whatever is arranged is a holiday there too (ALWAYS); the lunar ones are known with the arrangement.
"""

from datetime import date
from typing import NamedTuple

import chinese_calendar

from content.failures import Text


class Flag(NamedTuple):
    """Something to know of a date before it is fixed: what kind, and a text by language tag."""

    kind: str
    text: dict[str, str]


TEXTS = {
    "holiday": Text("{date} 是{zh}假期。", "{date} is a public holiday ({name})."),
    "workday": Text("{date} 是{zh}调休的上班日。", "{date} is a working day made up for {name}."),
    "provisional": Text(
        "{year} 年的放假安排尚未收录，日期为暂定。", "Dates in {year} are provisional: its holidays are not known yet."
    ),
}


ALWAYS = {
    (1, 1): ("元旦", "New Year's Day"),
    **dict.fromkeys(((5, 1), (5, 2)), ("劳动节", "Labour Day")),
    **dict.fromkeys(((10, 1), (10, 2), (10, 3)), ("国庆节", "National Day")),
}
"""(month, day) -> names. Regulation on Public Holidays for National Annual Festivals and Memorial Days, article 2, as the State
Council revised it in November 2024 (decree 795)."""


def flags(day: date) -> list[Flag]:
    """`holiday` on a public holiday, `workday` on a weekend day worked in its place, `provisional` in a year whose holidays are
    not known (after `holiday` on a day that is one in every year); none on other days."""
    try:
        off, name = chinese_calendar.get_holiday_detail(day)
    except NotImplementedError:
        found = []
        if (day.month, day.day) in ALWAYS:
            zh, name = ALWAYS[day.month, day.day]
            found = [Flag("holiday", TEXTS["holiday"].fill({"date": day, "zh": zh, "name": name}))]
        return [*found, Flag("provisional", TEXTS["provisional"].fill({"year": day.year}))]
    if name is None:  # an ordinary weekend or working day
        return []
    kind = "holiday" if off else "workday"
    zh = chinese_calendar.Holiday(name).chinese
    return [Flag(kind, TEXTS[kind].fill({"date": day, "zh": zh, "name": name}))]


def provisional(day: date) -> bool:
    """Whether the public holidays of that year are not known yet, so that the date may still have to move."""
    return any(flag.kind == "provisional" for flag in flags(day))

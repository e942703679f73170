"""What an emergency notice may say (特殊时期、重大事件; plans of Qingdao and Pingliang): it comforts and says where help is, and
never how, where or to whom something happened. Reports of method and place are followed by more of the same (WHO, *Preventing
suicide: a resource for media professionals*, 2023), and an identity is a child's.

The check knows words, not meaning: what passes is still read by two people.
"""

import re
from collections.abc import Iterable, Mapping

from content import divisions, publicwords, staff
from content.failures import FieldError
from content.published import PublishedRow

LINE = "12356"  # the national line; where the directory has another, that one will do
METHODS = re.compile(
    "自杀|自尽|轻生|自缢|上吊|跳楼|坠楼|坠亡|跳河|溺亡|投河|割腕|服毒|服药自|安眠药|农药|烧炭|卧轨|持刀|砍|捅|遗书|遗体|尸"
    "|suicid|hang(?:ed|ing) (?:him|her|them)self|jump(?:ed|ing) (?:off|from)|overdos|poison|slit|stabb|corpse|dead body",
    re.IGNORECASE,
)
PLACES = ("school", "kindergarten", "community")


def faults(texts: Mapping[str, Mapping[str, str]]) -> list[FieldError]:
    """What is wrong with these texts (language -> {"title", "body"}): a word for a method, the name of a school or community, a
    person's number, no help line. Reads the directory and the organisations."""
    lines = {LINE, *_lines()}
    names = sorted(row["name"] for row in staff.Organisation.rows().find({"kind": {"$in": list(PLACES)}}, {"name": 1}))
    errors = []
    for language, text in texts.items():
        for part in ("title", "body"):
            field, said = f"texts.{language}.{part}", text.get(part, "")
            named = next((name for name in names if name in said), None)
            if found := METHODS.search(said):
                errors.append(FieldError(field, "no_method", {"found": found[0]}))
            if named:
                errors.append(FieldError(field, "no_place", {"found": named}))
            if number := publicwords.number_in(_without(said, lines)):
                errors.append(FieldError(field, "personal_number", {"what": number[0], "found": f"{number[1]}…"}))
        digits = re.sub(r"[\s-]", "", text.get("body", ""))
        if text.get("body") and not any(line in digits for line in lines):
            errors.append(FieldError(f"texts.{language}.body", "no_help_line", {"line": LINE}))
    return errors


def _lines() -> set[str]:
    """The numbers of all published lines, digits only."""
    rows = PublishedRow.rows().find({"kind": "service"}, {"content": 1})
    numbers = (number for row in rows for number in re.findall(r'"number":"([^"]+)"', row["content"] or ""))
    return {re.sub(r"\D", "", number) for number in numbers} - {""}


def _without(text: str, lines: Iterable[str]) -> str:
    for line in sorted(lines, key=len, reverse=True):
        text = re.sub(r"[\s-]?".join(line), " ", text)
    return text


def offices(accounts: Iterable[str]) -> list[str]:
    """The names that stand under a notice: of the organisations in whose name these people work, else of the division that their
    grants are for. No person's name."""
    found: list[str] = []
    for key in accounts:
        raw = staff.Account.rows().find_one({"_id": key})
        for grant in staff.Account.of(raw).held() if raw else ():
            office = staff.Organisation.rows().find_one({"_id": grant.organisation}, {"name": 1}) if grant.organisation else None
            if office:
                found.append(office["name"])
            elif grant.division:
                found.append(divisions.get(grant.division).name)
    return list(dict.fromkeys(found))

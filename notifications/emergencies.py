"""What an urgent notice may say (特殊时期、重大事件; plans of Qingdao and Pingliang): it comforts and says where help is, and
never how, where or to whom something happened. Reports of method and place are followed by more of the same (WHO, *Preventing
suicide: a resource for media professionals*, 2023), and an identity is a child's.

The check knows words, not meaning: what passes is still read by two people. It would rather refuse a word too many, which another
can take the place of. What is put between characters, and other forms of them, does not hide a word.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from content import divisions, helpcard, publicwords, staff, words
from content.failures import FieldError
from content.published import PublishedRow

LINE = "12356"  # the national line; where the directory has another, that one will do
# Said without blanks and marks, in Simplified characters and lower case: nothing between two characters hides a word.
METHODS = re.compile(
    "自杀|自尽|轻生|自缢|自刎|自焚|自残|自戕|寻短见|寻死|上吊(?![车桥灯环扇顶牌])|吊死|悬梁|勒颈|割(?:腕|脉|喉|颈)|烧炭|卧轨|枪(?:杀|击)|开枪"
    "|跳(?:楼|河|江|湖|海|桥|崖|窗|井|轨)|(?<!心)跳了?下|(?<!活)跃下|一跃而下|坠(?:楼|桥|崖|亡|落|下)|投(?:河|江|湖|海|井)"
    "|从.{0,10}(?:楼|桥|窗|阳台|天台|高处|高空|屋顶|楼顶|崖).{0,6}(?:(?:摔|掉|跌|坠|落)了?(?:下|落)|(?<!心)跳(?:了|下))"
    "|服毒|服药(?:自|过量)|过量(?:服|用)药|药物过量|吞药|吞(?:下|服|了).{0,4}药|安眠药|农药|百草枯|敌敌畏|(?:投|下)毒"
    "|刀|匕首|砍|捅|刺(?:伤|死)|(?:溺|缢)亡|(?:淹|摔|掐|勒|毒|吊|撞|烧|打)死|杀(?:人|死|害)|被杀|凶手|行凶|血泊|遗书|遗体|尸"
    "|suicid|overdos(?:e|ing)|自살|자살|자해|རངསྲོག|རངཤི"
    "|ᠠᠮᠢᠪᠠᠨᠬᠣᠷᠣ|ᠠᠮᠢᠪᠡᠶᠡᠪᠡᠨᠬᠣᠷᠣ"
)
# With one blank wherever there are blanks and marks: said of a whole word, or it would be found in the midst of others.
SAID = re.compile(
    r"\b(?:kill|hang|shot|shoot|cut|stab|drown|burn|poison)(?:e?d|n?ing|s)? (?:him|her|them)sel"
    r"|\b(?:threw|throw(?:n|ing|s)?) (?:him|her|them)sel|\bhanged\b"
    r"|\bjump(?:ed|ing|s)? (?:off|from|out|to (?:his|her|their) death)"
    r"|\bf(?:ell|all(?:en|ing|s)?) (?:to (?:his|her|their) death|(?:off|from|out of) (?:\w+ ){0,3}"
    r"(?:roof|building|bridge|window|floor|balcony|cliff|height|stor(?:e?y|eys|ies)|tower))"
    r"|\bpoison|\bslit\b|\bstab(?:bed|bing|s)?\b|\bcorpse|\bdead body|\bknif?e|\bknives\b|\bpesticide|\bsleeping pills?\b"
    r"|\bover dos(?:e|ing)|\bt(?:ook|aken?|aking|akes) (?:his|her|their) (?:own )?li(?:fe|ves)\b|\bself harm"
    r"|\bstrangl|\bmurder|\bgun(?:shot|man|men)?\b|\b(?:slash|cut)(?:ed|ing|ting|s)? (?:his|her|their) wrist"
    r"|амиа (?:хорло|егүү|хөнөө|өөрөө)|өөрийгөө (?:хорло|гэмтээ|ал|дүүжил)|дүүжл|хутга|цогцос|тун хэтрүүл"
)
HARMLESS = re.compile(  # none of these is a method
    "一刀切|一刀两断|剪刀石头布|刀削面|刀郎|砍价|跳下(?:一|去玩)|心跳了?下|food poisoning|(?:gas|carbon monoxide|co) poisoning"
)
PLACES = ("school", "kindergarten", "community")
WRITES = ("notice.write", "notice.approve")
_BETWEEN = re.compile(r"[\s()./\u2010-\u2015-]{1,2}")  # stands between two digits of one number
_MOBILE = re.compile(r"(?<!\d)1[\s.-]?[3-9](?:[\s.-]?\d){9}(?!\d)")
_OVERLAID = re.compile(f"[\u0300-\u036f\u20d0-\u20ff{words.UNSEEN}]")  # lines through letters, and letters that nobody sees


def faults(texts: Mapping[str, Mapping[str, str]], *, help_line: bool = True) -> list[FieldError]:
    """What is wrong with these texts (language -> {"title", "body"}): a word for a method, the name of a school or community, a
    person's number, and, where one is asked for, no help line. Reads the directory and the organisations."""
    lines = {LINE, *_lines()}
    rows = staff.Organisation.rows().find({"kind": {"$in": list(PLACES)}}, {"name": 1})
    names = sorted((_tight(row["name"]), row["name"]) for row in rows)
    errors = []
    for language, text in texts.items():
        for part in ("title", "body"):
            field, said = f"texts.{language}.{part}", text.get(part, "")
            tight = _tight(said)
            if found := method(said):
                errors.append(FieldError(field, "no_method", {"found": found}))
            if named := next((name for bare, name in names if len(bare) > 1 and bare in tight), None):
                errors.append(FieldError(field, "no_place", {"found": named}))
            if number := _number(said, lines):
                errors.append(FieldError(field, "personal_number", {"what": number[0], "found": f"{number[1]}…"}))
        if help_line and text.get("body") and not next(_spans(_plain(text["body"]), lines), None):
            errors.append(FieldError(f"texts.{language}.body", "no_help_line", {"line": LINE}))
    return errors


def method(text: str) -> str:
    """The first word for a method in a text, as it was understood; "" when there is none."""
    folded = HARMLESS.sub(" \u3007 ", re.sub(r"\s+", " ", _folded(text)))
    found = METHODS.search(_tight(folded)) or SAID.search(re.sub(f"(?:[^\\w{words.MARKS}]|_)+", " ", folded.replace("'", "")))
    return found[0] if found else ""


def seen(text: str) -> bool:
    """Whether there is anything in a text that a reader sees."""
    left = _OVERLAID.sub("", words.DROPPED.sub("", text))
    return any(unicodedata.category(c)[0] not in "CZ" for c in left)


def _plain(text: str) -> str:
    """In NFKC, without what nobody sees: full-width digits are digits."""
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def _folded(text: str) -> str:
    return _OVERLAID.sub("", words.fold(_plain(text)).casefold())


def _tight(text: str) -> str:
    return re.sub(f"[^\\w{words.MARKS}]|_", "", _folded(text))


# --- numbers ----------------------------------------------------------------------------------------------------------


def _lines() -> set[str]:
    """The numbers of all published lines, digits only; those that call an ambulance or the police are for another need."""
    rows = PublishedRow.rows().find({"kind": "service"}, {"content": 1})
    numbers = (number for row in rows for number in re.findall(r'"number":"([^"]+)"', row["content"] or ""))
    return {re.sub(r"\D", "", number) for number in numbers} - {"", *helpcard.EMERGENCY}


def _spans(plain: str, lines: Collection[str]) -> Iterator[tuple[int, int]]:
    """Where a text names one of `lines` (digits), each a whole number: not in the midst of other digits, nor of a mobile."""
    longest = max(map(len, lines))
    taken = [found.span() for found in _MOBILE.finditer(plain) if re.sub(r"\D", "", found[0]) not in lines]
    runs, i = list(re.finditer(r"\d+", plain)), 0
    while i < len(runs):
        digits, best = "", -1
        for j in range(i, len(runs)):
            if j > i and not _BETWEEN.fullmatch(plain, runs[j - 1].end(), runs[j].start()):
                break
            digits += runs[j][0]
            if len(digits) > longest:
                break
            best = j if digits in lines else best
        start, end = runs[i].start(), runs[best].end()
        if best >= 0 and not any(a < end and start < b for a, b in taken):
            yield start, end
        i = max(i, best) + 1


def _number(text: str, lines: Collection[str]) -> tuple[Any, str] | None:
    """As `publicwords.number_in`, of what is left when these lines are taken out."""
    plain, kept, at = _plain(text), "", 0
    for start, end in _spans(plain, lines):
        kept, at = f"{kept}{plain[at:start]};", end
    return publicwords.number_in(kept + plain[at:])


# --- who answers for it -----------------------------------------------------------------------------------------------


def offices(accounts: Iterable[str], home: str = "") -> list[str]:
    """The names that stand under a notice: of the offices in whose name these people write or approve notices, else of the
    division that their grants are for; for a grant of the whole country that of `home`, the service's own division. Never a
    school, and no person's name."""
    found: list[str] = []
    for key in accounts:
        raw = staff.Account.rows().find_one({"_id": key})
        for grant in staff.Account.of(raw).held() if raw else ():
            if not staff.ROLES.get(grant.role, frozenset()).intersection(WRITES):
                continue
            if not grant.organisation:
                found.append(_named(grant.division or home))
                continue
            match = {"_id": grant.organisation, "kind": {"$in": sorted(staff.OFFICES)}}
            if office := staff.Organisation.rows().find_one(match, {"name": 1}):
                found.append(office["name"])
    return list(dict.fromkeys(found))


def _named(code: str) -> str:
    return divisions.get(code).name if code not in {"", divisions.COUNTRY} and divisions.known(code) else "全国"

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
# Places are known by their form, tight as methods are. A kind (小学, 小区) with a name before it is a place; the kind alone,
# or said of many (全区小学, 在小区), is none. What ends well-known names may stand before it: 都 (成都), 同 (大同), 念 (纪念).
_NUMBER = "一二三四五六七八九十百零\\d"
_KIND = (
    "(?<!中)小学|中学|大学|学院|幼儿园|托儿所|小区|公寓|花园|[花家佳雅名]苑|嘉园|大厦|公园|广场(?!舞)"
    "|(?:实验|外国语|民族|蒙古族|特殊教育|职业|技术|国际|双语|艺术|体育)学校"
)
_NAMED = (
    f"[{words.HAN}a-z]{{0,4}}(?<=[{words.HAN}a-z])"
    "(?<![的各所些在到读从对与及或跟给让请是至了入个每送去回离据把被将该这那并也就只于着过上考逛看找问叫他她你您我们])"
    "(?<!全区|全市|全县|全旗|全省|全国|全镇|我区|我市|我县|我旗|我省|我国|本区|本市|本县|本旗|辖区|城区|市区|地区|城乡|农村|乡村|城市|乡镇"
    "|公办|民办|普通|重点|寄宿|宿制|附近|当地|所有|全体|部分|多数|其他|其它|许多|不少|相关|有关|孩子|家长|老师|教师|学生|学校|小学|中学|大学"
    "|儿园|高中|初中|今天|明天|今晚|上午|下午|期间|一家|两家|几家|大家|园和|学和|校和|长和|师和|生和|子和|不同|共同|会同|作为|成为|走进|走出"
    "|还有|没有|只有|住宅|居民|老旧|封闭|社区)"
    f"(?:{_KIND})(?!生(?![病前])|习|会(?!议)|学?段|阶段)"  # 中学生, 集中学习, 心中学会, 小学阶段
)
SPOTS = re.compile(
    f"{_NAMED}"
    f"|(?<![\\d统之唯高初周万其专期])第?[{_NUMBER}]{{1,3}}中(?![心午间国等旬文医秋途止断央华期]|年(?!级)|小学)"
    f"|(?<!\\d)第?[{_NUMBER}]{{1,3}}(?:小学(?!生|段|阶段)|幼儿园|幼(?![儿小])|高中)|(?:实验|[市区县旗镇])[{_NUMBER}]{{1,2}}小(?![时组孩步朋])"
    "|(?:实验|(?<![全各我本辖城])[市区县旗镇])[高初]中(?!学?生|学段|阶段)|附(?:中(?!文)|小|幼|属[中小幼])"
    # 一中午 is none. Classes: 初三2班, 三年级二班, 2班; 高一班主任 and 每一班 are none
    f"|(?:[高初][一二三1-3]|[{_NUMBER}]年级?|[六七八九])第?[{_NUMBER}]{{1,3}}班|(?<!\\d)\\d{{1,4}}班(?![次车])"
    f"|(?<![每同哪统周期])[一二三四五六七八九十]班(?!主任|[级会车次机组群])"
    # addresses: a street's number, and a house's, a stair's, a room's; 6月7号 is a day, and 线上 no underground
    f"|(?:路|街|巷|(?<!知)道|胡同|弄)[{_NUMBER}]{{1,4}}号(?!码)|[{_NUMBER}a-z]号?[楼栋幢]|[{_NUMBER}a-z]号?单元|[\\da-z]号?座(?!位)"
    f"|[{_NUMBER}]号(?:院|门(?!诊)|桥|公寓|宿舍|教室|室|线(?![上下]))|(?<!\\d)[{_NUMBER}]{{3,4}}(?:室|教室|宿舍|寝室)"
    "|(?:教室|宿舍|寝室|房)[2-9]\\d\\d(?!\\d)|大街|大道(?!理)|胡同"
    # spots
    "|(?:教学|宿舍|办公|实验|综合|图书|住宅|居民|家属|公寓|艺术|科技|行政|单元|[男女]生)大?楼|楼(?:顶|道|梯[间口])|顶楼|[屋房]顶|[天阳窗露]台"
    "|宿舍|寝室|厕所|[河江湖海塘库渠溪潭池井][边畔岸滨堤沿]|[河江湖][里中心道]|水[库塘渠]|池塘|鱼塘|大坝|大桥|天桥|桥[上下头边]|[悬山]崖|铁轨"
    "|dormitor|rooftop|(?:river|lake)(?:side|bank|shore)|reservoir"
)
# In English: of a whole word, one blank between two. The numbers of the emergency lines follow many a word.
_ONES = "(?!(?:110|119|120)\\b)\\d{1,4}[a-z]?\\b"
_LEVEL = "(?:middle|high|primary|secondary|elementary|experimental|international|vocational|nursery|boarding)"
SPOTS_SAID = re.compile(
    f"\\b(?:building|block|unit|room|classroom|apartment|flat|apt|dorm|class) (?:no |number )?{_ONES}"
    "|\\b(?:building|block) [b-h]\\b"
    f"|\\b(?:no|number) ?\\d{{1,3}} (?:\\w+ ){{0,2}}(?:school|kindergarten)\\b"
    f"|\\b{_ONES} (?:\\w+ ){{1,2}}(?:road|street|avenue|lane)\\b"
    "|\\b(?!(?:the|an?|your|our|my|his|her|their|its|in|at|of|and|or|to|from|for|all|every|each|some|any|no|local|near|nearby|this|that"
    "|these|those|both|after|before|during|with|as|by|is|are|dear|senior|junior|upper|lower|middle|high|primary|secondary|between|other"
    f"|another|start|starts|starting|finish|leave|leaves|leaving|enter|entering|attend|attends|new|many|most"
    f"|public|private)\\b)[a-z]+ (?:(?:senior|junior) )?{_LEVEL} school\\b"
    "(?! (?:pupil|student|child|teacher|parent|age|year|level|exam|entrance))"
    "|\\bdorms?\\b|\\broof\\b|\\bteaching building|\\bby the (?:river|lake)|\\b(?:on|under) (?:a|the) bridge"
)
# What begins with a capital is a name: Sunshine Kindergarten, Peking University.
SPOTS_NAMED = re.compile(
    "\\b(?!(?i:the|an?|your|our|my|his|her|their|in|at|of|and|or|to|from|for|all|every|each|some|any|no|local|this|that|after|before"
    "|during|with|as|by|is|dear|back|senior|junior|middle|high|primary|secondary|elementary|nursery|boarding|when|if|go|going)\\b)"
    "[A-Z][a-z]+ (?:[A-Z]\\w* ){0,3}(?:School|Kindergarten|University|College|Academy|Gardens|Apartments|Residences?)\\b"
    "(?! (?:Pupils|Students|Children|Teachers|Parents))"
)
# A kind at the start of a sentence or clause has no name before it (停课。小学…); other marks hide nothing.
_BEGINS = re.compile(f"[。!?;:,][^\\w{words.MARKS}]*(?={_KIND})")
_BETWEEN = re.compile(r"[\s()./\u2010-\u2015-]{1,2}")  # stands between two digits of one number
_MOBILE = re.compile(r"(?<!\d)1[\s.-]?[3-9](?:[\s.-]?\d){9}(?!\d)")
_OVERLAID = re.compile(f"[\u0300-\u036f\u20d0-\u20ff{words.UNSEEN}]")  # lines through letters, and letters that nobody sees


def faults(texts: Mapping[str, Mapping[str, str]], *, help_line: bool = True) -> list[FieldError]:
    """What is wrong with these texts (language -> {"title", "body"}): a word for a method, a place by its form, the name of a
    registered school or community, a person's number, and, where one is asked for, no help line. Reads the directory and the
    organisations."""
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
            if named := next((name for bare, name in names if len(bare) > 1 and bare in tight), None) or place(said):
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


def place(text: str) -> str:
    """The first name, class, address or spot in a text, known by its form, as it was understood; "" when there is none."""
    found = SPOTS.search(_tight(_BEGINS.sub(" \u3006 ", _folded(text))))
    if not found:
        spaced = re.sub(
            f"(?:[^\\w{words.MARKS}]|_)+", " ", _OVERLAID.sub("", _plain(text)).replace("'", "").replace("\u2019", "")
        )
        found = SPOTS_SAID.search(words.fold(spaced).casefold()) or SPOTS_NAMED.search(spaced)
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

"""Words for search: how text becomes index terms, which words mean the same, and which words ask for help.

The index form of a text is never shown. It is NFKC with U+202F kept (NFKC would make it a blank), in lower case, Traditional
characters as their Simplified ones, without variation selectors, Mongolian vowel separators and joiners. From it come:

- words: Chinese by a segmenter that gives long words and the words inside them; all other scripts by runs of letters and marks.
  A Mongolian word with a suffix behind U+202F gives its stem and its whole. Words of more than four letters outside ASCII also
  give their first four with a star, for languages that no stemmer knows: Mongolian joins suffix to suffix.
- pieces: pairs of neighbouring characters, for what the segmenter cuts otherwise.

An input method offers words by their sound, and the wrong one is soon taken (失绵 for 失眠): `heard` gives the known word.
"""

import csv
import functools
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

DATA = Path(__file__).parent / "data"
SIGNS = ("danger", "violence", "sexual_abuse", "bullying")  # the gravest first
STEM = 4  # letters
HAN = "\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
PAIRED = HAN + "\u3041-\u30ff\uac00-\ud7a3"  # scripts whose neighbouring characters are paired
DROPPED = re.compile("[\u180b-\u180f\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff\u00ad]")
UNSEEN = "\u115f\u1160\u3164\uffa0"  # letters that look like blanks
STOP = frozenset((DATA / "stop_words.txt").read_text("utf-8").split())  # say nothing by themselves; in their index form


def _marks() -> str:
    """All combining marks as the inside of a character class: Python's \\w leaves them out, and with them Tibetan vowels."""
    marks = [i for i in range(0x10000) if unicodedata.category(chr(i))[0] == "M"]
    runs: list[list[int]] = []
    for i in marks:
        if runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return "".join(f"\\u{a:04x}-\\u{b:04x}" for a, b in runs)


MARKS = _marks() + "\U000e0100-\U000e01ef"
JOINED = "'’\u180b-\u180f\u202f\u200c\u200d"  # stand inside words
# one run of Chinese, or one word of any other script
_LETTER = f"(?![{HAN}])[^\\W_]|[{MARKS}]"
WORD = re.compile(f"(?P<han>[{HAN}]+)|(?:{_LETTER})(?:{_LETTER}|[{JOINED}])*")
_RUN = re.compile(f"[{PAIRED}]+")


def _table(name: str) -> Iterator[list[str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        yield from rows


SIMPLIFIED = str.maketrans({old: new for new, olds in _table("traditional.tsv") for old in olds})
_SYLLABLE = {character: syllable for syllable, characters in _table("syllables.tsv") for character in characters}
_READINGS = frozenset(_SYLLABLE.values())


def fold(text: str) -> str:
    """The index form of a text. Its length may differ from the text's: never cut the one by places in the other."""
    if text.isascii():
        return text.lower()
    parts = (unicodedata.normalize("NFKC", part) for part in text.split("\u202f"))
    return DROPPED.sub("", "\u202f".join(parts)).lower().translate(SIMPLIFIED).replace("’", "'")


# The functions below take text in its index form (`fold`).


def words(folded: str) -> list[str]:
    """Index words, in order, stop words among them. Loads the segmenter's dictionary on the first call (34 MB)."""
    found: list[str] = []
    for match in WORD.finditer(folded):
        word = match[0]
        if match["han"]:
            found += _cutter().cut_for_search(word, False)  # no guessing of new words: it glues (说累, 想选)
            continue
        word = word.strip("'\u202f")
        if "\u202f" in word:
            found.append(word.partition("\u202f")[0])
            word = word.replace("\u202f", "")
        if word:
            found.append(word)
    return found


def stems(found: list[str]) -> list[str]:
    """The starred beginnings of words outside ASCII and Chinese."""
    return [f"{word[:STEM]}*" for word in found if len(word) > STEM and not word.isascii() and not _RUN.match(word)]


def runs(folded: str) -> list[str]:
    """The runs of characters that are to be paired."""
    return _RUN.findall(folded)


def pairs(folded: str) -> list[str]:
    """Pairs of neighbouring characters; a character that stands alone is its own piece."""
    return [piece for run in runs(folded) for piece in ([run] if len(run) == 1 else _neighbours(run))]


def pieces(folded: str) -> list[str]:
    """What a short text gives for what its words miss: pairs, and single characters."""
    return [*pairs(folded), *(character for run in runs(folded) if len(run) > 1 for character in run)]


def _neighbours(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]


# --- words that mean the same ----------------------------------------------------------------------------------------


@functools.cache
def synonyms() -> Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Form -> the other forms that mean the same; a form is its index words. A form in two lines has the others of both."""
    lines = [[tuple(_form(form)) for form in row[0].split(" / ")] for row in _table("synonyms.tsv")]
    table: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}
    for line in lines:
        for form in line:
            table.setdefault(form, {}).update(dict.fromkeys(other for other in line if other != form))
    return {form: tuple(others) for form, others in table.items()}


def _form(text: str) -> list[str]:
    """A synonym's index words: a Chinese one is one word (`_cutter` knows it)."""
    folded = fold(text)
    return [folded] if _RUN.fullmatch(folded) else words(folded)


@functools.cache
def _cutter() -> Any:
    """The segmenter, which also takes every Chinese synonym for one word, so that 不想上学 is found whole."""
    import rjieba  # here: it reads its dictionary when imported, a third of a second that `xinqiao --help` need not wait for

    cutter = rjieba._DEFAULT_JIEBA  # the library's own: a second one would hold the dictionary twice
    for row in _table("synonyms.tsv"):
        for form in map(fold, row[0].split(" / ")):
            if re.fullmatch(f"[{HAN}]+", form):
                cutter.add_word(form, None, None)
    return cutter


def _syllables(text: str) -> tuple[str, ...]:
    """Toneless, each character in its commonest reading; () when one is not known."""
    found = tuple(_SYLLABLE.get(character, "") for character in text)
    return found if all(found) else ()


@functools.cache
def _by_sound() -> Mapping[tuple[str, ...], list[str]]:
    table: dict[tuple[str, ...], list[str]] = {}
    for form in synonyms():
        if len(form) == 1 and len(form[0]) > 1 and (sound := _syllables(form[0])):
            table.setdefault(sound, []).append(form[0])
    return table


def heard(folded: str) -> list[str]:
    """Synonyms' words that sound like a stretch of the text that is no word itself."""
    found: dict[str, None] = {}
    for run in runs(folded):
        for size in range(2, 6):
            for start in range(len(run) - size + 1):
                written = run[start : start + size]
                forms = _by_sound().get(_syllables(written), ())
                if forms and written not in forms and not _cutter().has_word(written):
                    found.update(dict.fromkeys(forms))
    return list(found)


# --- words that ask for help -----------------------------------------------------------------------------------------


class Risk(NamedTuple):
    """What shows one sign."""

    anywhere: re.Pattern[str]
    """Stands anywhere in the text without its blanks."""
    at_word: re.Pattern[str]
    """Begins at a word."""
    sounding: re.Pattern[str]
    """Only sounds so. It may overlap itself; group 1 is what sounds."""
    pinyin: re.Pattern[str]
    """In what is typed as pinyin."""


@functools.cache
def _risk() -> tuple[Mapping[str, Risk], re.Pattern[str]]:
    """Sign -> what shows it, and what only looks like one of them (自沙 in 来自沙特).

    The file's `how`: any; literal, not by its sound (大孩子 sounds like 打孩子); pinyin, its syllables; pattern, a regular
    expression on the index form, blanks and all: with a blank or a comma between, it may be two sentences."""
    tables: dict[str, tuple[list[str], ...]] = {sign: ([], [], [], []) for sign in SIGNS}
    harmless: list[str] = []
    for sign, how, forms in _table("risk_words.tsv"):
        for form in forms.split(" / "):
            if how == "pattern":
                harmless.append(form)
                continue
            anywhere, at_word, sounding, pinyin = tables[sign]
            if how == "pinyin":
                pinyin.append(_pinyin(form))
            elif re.search(f"[{PAIRED}\u0f00-\u0fff]", form):
                anywhere.append(re.escape(_tight(form)))
                if how == "any" and len(form) > 2 and _syllables(_tight(form)):  # two syllables sound like much (遗书, 艺术)
                    sounding.append(re.escape(_sounding(_tight(form))))
            else:
                at_word.append(re.escape(_spaced(form)[:-1]) + (" " if form.isascii() else ""))
    signs = {}
    for sign, (anywhere, at_word, sounding, pinyin) in tables.items():
        never = "(?!)"
        signs[sign] = Risk(
            re.compile("|".join(anywhere) or never),
            re.compile("|".join(at_word) or never),
            re.compile(f"(?=({'|'.join(sounding) or never}))"),
            re.compile("|".join([*sounding, *pinyin]) or never),
        )
    return signs, re.compile("|".join(harmless))


def _sounding(tight: str) -> str:
    return "-" + "".join(f"{_SYLLABLE.get(character, character)}-" for character in tight)


def _pinyin(spaced: str) -> str:
    """The syllables of what is pinyin, between hyphens; each other word, and what is not Latin, is a bar."""
    return "-" + "".join(_cut_pinyin(run) for run in re.findall("[a-z]+|[^\\Wa-z0-9_]+", spaced))


def _cut_pinyin(word: str) -> str:
    ends: list[int] = [0] * len(word) + [len(word)]  # place -> where its longest syllable ends that leaves syllables behind it
    for start in range(len(word) - 1, -1, -1):
        longest = min(start + 6, len(word))
        ends[start] = next((end for end in range(longest, start, -1) if ends[end] and word[start:end] in _READINGS), 0)
    place, found = 0, ""
    while ends[place] and place < len(word):
        found += word[place : ends[place]] + "-"
        place = ends[place]
    return found or "|-"


def _tight(text: str) -> str:
    return re.sub(f"[^\\w{MARKS}]|_", "", fold(text))


def _spaced(text: str) -> str:
    return " " + re.sub(f"[^\\w{MARKS}]+|_+", " ", fold(text).replace("'", "")).strip(" ") + " "


def _sounds_so(tight: str, pattern: re.Pattern[str]) -> bool:
    """Whether a stretch sounds so that is not other words: one at its edge that goes on outside (不想火锅), or words of several
    characters all through (了解自己)."""
    sound = _sounding(tight)
    stretches = [(sound.count("-", 0, m.start()), m[1].count("-") - 1) for m in pattern.finditer(sound)]
    if not stretches:
        return False
    edges = [0, *itertools.accumulate(map(len, _cutter().cut(tight, False)))]
    for start, size in stretches:
        inside = [edge for edge in edges if start <= edge <= start + size]
        whole = start in inside and start + size in inside
        if whole and any(after - before == 1 for before, after in itertools.pairwise(inside)):
            return True
    return False


def signs(text: str) -> list[str]:
    """Which of SIGNS the words of a text show, the gravest first. It rather shows one too many: what follows is a help card.
    Blanks and marks between characters do not hide one (想 死, 想.死), nor lines through them and letters nobody sees."""
    return next((found for form in (text, *_bared(text)) if (found := _signs(form))), [])


def _bared(text: str) -> Iterator[str]:
    """The text without the marks that no letter has by itself (й has one), and without any (zìshā)."""
    if not text.isascii():
        forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
        for form in forms:
            letters = (c for c in unicodedata.normalize(form, text) if unicodedata.category(c) not in {"Mn", "Me", "Cf"})
            yield "".join(c for c in letters if c not in UNSEEN)


def _signs(text: str) -> list[str]:
    table, harmless = _risk()
    text = harmless.sub("\u3007", fold(text))
    tight, spaced = _tight(text), _spaced(text)
    pinyin = _pinyin(spaced)
    return [
        sign
        for sign, risk in table.items()
        if risk.anywhere.search(tight)
        or risk.at_word.search(spaced)
        or risk.pinyin.search(pinyin)
        or _sounds_so(tight, risk.sounding)
    ]

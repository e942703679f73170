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
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SIGNS = ("danger", "violence", "sexual_abuse", "bullying")  # the gravest first
STEM = 4  # letters
HAN = "\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
PAIRED = HAN + "\u3041-\u30ff\uac00-\ud7a3"  # scripts whose neighbouring characters are paired
DROPPED = re.compile("[\u180b-\u180f\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff\u00ad]")
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


@functools.cache
def _risk() -> Mapping[str, tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]]:
    """Sign -> (what stands anywhere in the text without its blanks, what begins at a word, what only sounds so)."""
    tight: dict[str, list[str]] = {}
    spaced: dict[str, list[str]] = {}
    sounding: dict[str, list[str]] = {}
    for sign, forms in _table("risk_words.tsv"):
        for form in forms.split(" / "):
            if re.search(f"[{PAIRED}\u0f00-\u0fff]", form):
                tight.setdefault(sign, []).append(re.escape(_tight(form)))
                if len(form) > 2 and _syllables(_tight(form)):  # of two syllables too much sounds alike (遗书, 艺术)
                    sounding.setdefault(sign, []).append(re.escape(_sounding(_tight(form))))
            else:
                spaced.setdefault(sign, []).append(re.escape(_spaced(form)[:-1]) + (" " if form.isascii() else ""))
    tables = (tight, spaced, sounding)
    return {
        sign: tuple(re.compile("|".join(table.get(sign, ["(?!)"]))) for table in tables)  # type: ignore[misc]
        for sign in SIGNS
    }


def _sounding(tight: str) -> str:
    return "-" + "".join(f"{_SYLLABLE.get(character, character)}-" for character in tight)


def _tight(text: str) -> str:
    return re.sub(f"[^\\w{MARKS}]|_", "", fold(text))


def _spaced(text: str) -> str:
    return " " + re.sub(f"[^\\w{MARKS}]+|_+", " ", fold(text).replace("'", "")).strip(" ") + " "


def signs(text: str) -> list[str]:
    """Which of SIGNS the words of a text show, the gravest first. It rather shows one too many: what follows is a help card.
    Blanks and marks between characters do not hide one (想 死, 想.死)."""
    tight, spaced = _tight(text), _spaced(text)
    return [
        sign
        for sign, (anywhere, at_word, sounding) in _risk().items()
        if anywhere.search(tight) or at_word.search(spaced) or sounding.search(_sounding(tight))
    ]

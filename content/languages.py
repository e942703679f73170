"""Language tags (BCP 47): which one a reader gets, how it is written; and editions, which are a language with a voice.

An edition is written as one tag with a private-use subtag (RFC 5646, 2.2.7): "zh-Hans" is the text for all, "zh-Hans-x-student"
the same subject told to students. So a voice in a language has its own state, versions and published item wherever a language
has, without a second dimension.

Traditional Mongolian (mn-Mong) uses U+202F before suffixes and U+180B-E inside words, which Python counts as white space:
text is normalised to NFC and nothing else, and never split or stripped by `\\s`.
"""

import contextlib
import functools
import re
import unicodedata
from collections.abc import Collection, Sequence

import langcodes
from langcodes import language_distance

from content.failures import Invalid, Text, invalid
from content.vocabulary import VOICES

# What a reader of this language can most likely read when it is missing; then the service's own language, then any.
FALLBACK: dict[str, tuple[str, ...]] = {
    "mn-Mong": ("mn-Cyrl", "zh-Hans"),
    "mn-Cyrl": ("mn-Mong", "zh-Hans"),
    "zh-Hant": ("zh-Hans",),
    "zh-Hans": ("zh-Hant",),
}
ALIAS = {"mn-cn": "mn-Mong", "mvf": "mn-Mong", "mn": "mn-Cyrl", "zh": "zh-Hans"}
NAMES = {
    "zh-Hans": "简体中文",
    "zh-Hant": "繁體中文",
    "mn-Mong": "ᠮᠣᠩᠭᠣᠯ",
    "mn-Cyrl": "Монгол",
    "en": "English",
    "yue": "粵語",
    "bo": "བོད་ཡིག",
    "ko": "한국어",
    "sw": "Kiswahili",
}
LABELS = {  # zh-Hans and en, for a word to the reader
    "zh-Hans": ("简体中文", "Simplified Chinese"),
    "zh-Hant": ("繁体中文", "Traditional Chinese"),
    "mn-Mong": ("传统蒙古文", "Mongolian in the traditional script"),
    "mn-Cyrl": ("西里尔蒙古文", "Mongolian in Cyrillic"),
    "en": ("英文", "English"),
    "yue": ("粤语", "Cantonese"),
    "bo": ("藏文", "Tibetan"),
    "ko": ("韩文", "Korean"),
    "sw": ("斯瓦希里文", "Swahili"),
}
NEAR, FAR = 10, 20  # CLDR distances: en-GB and en, pt-BR and pt-PT; languages that many readers of the other can read
PLAIN = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?")  # language, script, region: no variants
SPACES = " \t\r\n"
BREAKS = re.compile("[\t\n\x0b\x0c\x85\u2028\u2029]+")
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def tag(text: str, field: str = "language") -> str:
    """The tag in its one spelling ("zh-CN" -> "zh-Hans", "mvf" -> "mn-Mong"). Raises `Invalid` naming `field`."""
    text = text.strip(SPACES)
    if text in NAMES:  # spelt so already, like most; a schedule asks twenty thousand times
        return text
    if text.lower() in ALIAS:
        return ALIAS[text.lower()]
    try:
        if not PLAIN.fullmatch(text):
            raise ValueError
        _forget()
        language = langcodes.Language.get(text)
        if not language.is_valid() or language.language in {"und", "mul", "zxx", "mis", None}:
            raise ValueError
    except (ValueError, LookupError):
        raise invalid(
            field,
            "bad_format",
            reason=Text(f"“{text[:40]}”；例：zh-Hans, mn-Mong, en", f"“{text[:40]}”; e.g. zh-Hans, mn-Mong, en"),
        ) from None
    if language.language == "cmn":
        language = langcodes.Language.get(f"zh{text[3:]}")
    if language.language in {"zh", "mn"}:
        script = language.script or language.maximize().script
        if language.language == "mn" and not language.script:
            script = "Mong" if language.territory == "CN" else "Cyrl"
        return f"{language.language}-{script}"
    return str(language.simplify_script().to_tag())


def _forget() -> None:
    """langcodes remembers every tag that it was ever asked; readers can make up endless ones (1.1 KB each, measured)."""
    if len(langcodes.Language._PARSE_CACHE) > 4096 or len(language_distance._DISTANCE_CACHE) > 65536:
        for cache in (langcodes.Language._PARSE_CACHE, langcodes.Language._INSTANCES, language_distance._DISTANCE_CACHE):
            cache.clear()


def edition(text: str, field: str = "language") -> str:
    """The tag of a language with an optional voice, in its one spelling ("zh-CN-x-student" -> "zh-Hans-x-student"). Raises
    `Invalid` naming `field`, also for a voice that is not in `vocabulary.VOICES`."""
    language, mark, voice = text.strip(SPACES).partition("-x-")
    if mark and voice not in VOICES:
        raise invalid(field, "bad_format", reason=f"-x-{', -x-'.join(VOICES)}")
    return f"{tag(language, field)}{mark}{voice}"


def parts(edition: str) -> tuple[str, str]:
    """(language, voice) of an edition; the voice is "" when it is for all."""
    language, _, voice = edition.partition("-x-")
    return language, voice


@functools.lru_cache(1024)
def fallback(shown: str, wanted: tuple[str, ...]) -> dict[str, object] | None:
    """What a reader is told who gets another language than the first asked for: {"asked", "chain" (what was looked for, in
    order), "text" (zh-Hans and en)}; None when it is the one, or a near one (en for en-GB)."""
    tags = _tags(wanted)
    if not tags or tags[0] == shown or (tags[0] not in FALLBACK and langcodes.tag_distance(tags[0], shown) <= NEAR):
        return None
    zh, en = LABELS.get(shown, (NAMES.get(shown, shown),) * 2)
    chain = dict.fromkeys([*tags, *(one for tag in tags for one in FALLBACK.get(tag, ()))])
    return {"asked": tags[0], "chain": list(chain), "text": {"zh-Hans": f"以{zh}显示", "en": f"Shown in {en}"}}


def _tags(wanted: tuple[str, ...]) -> list[str]:
    """In their one spelling; a malformed preference is passed over, as RFC 9110 asks of Accept-Language."""
    found = []
    for one in wanted:
        with contextlib.suppress(Invalid):
            found.append(tag(one.partition("-x-")[0]))
    return found


@functools.lru_cache(1024)
def _pick(available: tuple[str, ...], wanted: tuple[str, ...], last: str) -> str:
    tags = _tags(wanted)
    for asked in tags:  # what the reader names goes before what we suppose that one can read
        match, _ = langcodes.closest_match(asked, list(available), max_distance=NEAR)
        if asked in available or match != "und":
            return asked if asked in available else str(match)
    for asked in tags:
        for candidate in FALLBACK.get(asked, ()):
            if candidate in available:
                return candidate
        match, _ = langcodes.closest_match(asked, list(available), max_distance=FAR)
        if match != "und":
            return str(match)
    return last if last in available else available[0]


def pick(available: Collection[str], wanted: Sequence[str], last: str = "zh-Hans") -> str:
    """The best of `available` (not empty) for a reader who prefers `wanted` in this order; `last` when nothing fits."""
    return _pick(tuple(sorted(available)), tuple(wanted), last)


@functools.lru_cache(256)
def written(language: str) -> dict[str, str]:
    """How to set it: {"language", "name", "script", "direction"}; direction is ltr, rtl, or ttb (columns left to right)."""
    script = langcodes.Language.get(language).maximize().script or "Zyyy"
    direction = {"Mong": "ttb", "Arab": "rtl", "Hebr": "rtl", "Thaa": "rtl"}.get(script, "ltr")
    return {"language": language, "name": NAMES.get(language, language), "script": script, "direction": direction}


def clean(text: str) -> str:
    """NFC, one kind of line end, no blanks at the ends; joiners and narrow spaces inside are kept."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip(SPACES)


def one_line(text: str) -> str:
    """`clean`, and in one line: line breaks are a space; what is not seen and turns or hides what is (control characters, and
    U+202A-E and U+2066-9, which order text) goes."""
    return HIDDEN.sub("", BREAKS.sub(" ", clean(text))).strip(SPACES)

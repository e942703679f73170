"""Lesson files from disk into plain values. Nothing is stored here, and nothing is left out without saying so.

Read are: our own Markdown with YAML front matter; other people's Markdown, with or without front matter; African Storybook
stories (Markdown, pages parted by `##`, credits at the end); data lists of open-app-builder (JSON). Every file gives at least
one `Read`, `Refused` or `Skipped`; a file with anything refused gives no `Read`, so that a refused file changes nothing.
What a file does not say is taken from the caller's defaults or assumed, and `Read.assumed` names it.
"""

import csv
import dataclasses
import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from content import languages, lessons
from content.failures import FieldError, Invalid, NotFound, Text, invalid
from content.languages import SPACES

FILE_LIMIT = 1024 * 1024  # bytes; the longest lesson (200,000 characters of 3 bytes) and then some
FRONT_LIMIT = 64 * 1024  # characters of front matter
FRONT_EXPANDED = 256 * 1024  # the same with every alias written out: what stops a "billion laughs"
SOURCES_LIMIT = 50

SHORT = 300  # characters of a source's title, a licence, a reviewer

LISTS = ("audiences", "stages", "topics", "seasons", "divisions", "media")
KEYS = set(LISTS) | {"slug", "language", "kind", "title", "summary", "try_this", "minutes", "sources", "help"}
KEYS |= {"reviewed_by", "review_due", "made_from", "licence"}
ALIASES = {"description": "summary", "lang": "language", "license": "licence", "estimated_read_time": "minutes"}

# Assumed where a file does not say; all of it lands as a draft. Text of unknown origin is for staff until an editor has read it.
MARKDOWN = {"audiences": ["staff"], "kind": "ebook"}
STORY = {"audiences": ["student"], "stages": ["preschool", "primary"], "kind": "story"}
ARTICLE = {"audiences": ["parent"], "kind": "micro_lesson"}
ROW = {"audiences": ["parent"], "kind": "tip"}

NOT_LESSONS = {"readme", "license", "licence", "contributing", "changelog", "code_of_conduct", "security"}
LEGAL = {"about_this_app", "privacy_policy", "terms_and_conditions"}
# A lesson that speaks of these gets the help card beside it unless its file says otherwise.
RISK = re.compile(r"自杀|自殺|自伤|自傷|自残|自殘|轻生|輕生|suicid|self[- ]harm|자살|자해|kujiua|kujidhuru", re.IGNORECASE)
PLACEHOLDER = re.compile(r"(?<![\w.])@(?:global|local|data|fields?|item|row|calc|campaign)\.\w+(?:\.\w+)*|\bLINK HERE\b")
CREDIT = re.compile(r"^\* (\w+):[ \t]*(.*)$")

SAYS: dict[str, Text] = {
    "gone": Text("读不了。请检查权限。", "Cannot be read. Check its permissions."),
    "too_large": Text("文件超过 {limit} 字节。", "The file is larger than {limit} bytes."),
    "not_utf8": Text("第 {byte} 字节不是 UTF-8。请另存为 UTF-8。", "Byte {byte} is not UTF-8. Save the file as UTF-8."),
    "bad_character": Text("含有不允许的字符 {what}。请删去。", "Holds the character {what}, which is not allowed. Remove it."),
    "front_open": Text(
        "开头的 front matter 没有结束行。请在正文前单独写一行 ---。",
        "The front matter is never closed. Put a line of --- before the body.",
    ),
    "front_large": Text(
        "front matter 太大（展开后超过 {limit} 个字符）。", "The front matter is too large (over {limit} characters written out)."
    ),
    "front_yaml": Text(
        "front matter 不是有效的 YAML：{why}。请检查引号、缩进和结束行 ---。",
        "The front matter is not valid YAML: {why}. Check quotes, indents and the closing ---.",
    ),
    "front_shape": Text("front matter 必须是“名称: 值”。", "The front matter must be `name: value` lines."),
    "twice": Text("“{key}”写了两次。请只留一个。", "“{key}” is written twice. Keep one."),
    "bad_json": Text("不是有效的 JSON：{why}", "Not valid JSON: {why}"),
    "rows": Text("rows 必须是一列对象。", "`rows` must be a list of objects."),
    "strings": Text("译文表必须是“原文: 译文”。", "A string table must be `text: translation`."),
    "no_language": Text(
        "没有写明语言。请加上 language，或在导入时指定。",
        "The language is not stated. Add `language`, or name one for the import.",
    ),
    "duplicate": Text("与 {first} 重复（{slug}，{language}）。", "The same lesson and language as {first} ({slug}, {language})."),
    "same_language": Text("made_from 与 language 相同。", "`made_from` is the same as `language`."),
    # skipped
    "link": Text("链接不跟随。", "A link is not followed."),
    "hidden": Text("隐藏的文件或文件夹。", "A hidden file or folder."),
    "special": Text("不是普通文件。", "Not an ordinary file."),
    "other_kind": Text("不是 Markdown 或 JSON。", "Neither Markdown nor JSON."),
    "about_folder": Text("说明文件，不是课程。", "Tells about its folder; no lesson."),
    "origins": Text("来源表：用作出处和许可，不是课程。", "The table of origins: gives source and licence; no lesson."),
    "legal": Text("应用的介绍或法律条款，不是课程。", "About the app or its legal terms; no lesson."),
    "titles": Text("模块标题表：用作标题，不是课程。", "The modules' titles, used for the articles; no lesson."),
    "string_table": Text("译文表：用于翻译，不是课程。", "A table of translations, used for the others; no lesson."),
    "no_data_list": Text("不是 data_list，没有课程。", "Not a data list; holds no lesson."),
    "no_row": Text(
        "{count} 行都没有同时写标题和正文，不是课程。", "None of the {count} rows has both title and text; no lesson."
    ),
    "row_bare": Text("第“{row}”行没有同时写标题和正文。", "Row “{row}” does not have both title and text."),
    # warnings
    "front_end": Text(
        "front matter 以“{line}”结束（应为 ---），已接受。", "front matter closed by “{line}” instead of ---: accepted"
    ),
    "unknown_keys": Text("没有导入的项：{keys}", "front-matter keys kept out: {keys}"),
    "cut": Text("简介过长，已在句末截断；全文 {count} 字。", "the description of {count} characters was cut at a sentence end"),
    "ignored": Text("“{field}”没有采用：{value}", "“{field}” was not used: {value}"),
    "assumed": Text("文件没有写明，暂定：{what}", "not stated in the file, assumed: {what}"),
    "no_licence": Text("没有写明许可。发布前请核实。", "no licence is stated: find out before publishing"),
    "no_extension": Text("没有扩展名，按 Markdown 读取。", "no extension: read as Markdown"),
    "headings": Text(
        "有 {count} 个一级标题，可能是几篇；标题取自第一个。",
        "has {count} top headings and may be several lessons; the title is the first",
    ),
    "placeholders": Text("占位符没有替换：{what}", "placeholders not filled in: {what}"),
    "links": Text(
        "{count} 处链接或图片指向没有导入的文件，如 {first}",
        "{count} links or pictures lead to files not imported, such as {first}",
    ),
    "risk": Text("提到自伤或自杀，已附上求助卡。", "speaks of self-harm: the help card was set beside it"),
    "risk_off": Text("提到自伤或自杀，但 help 为 false。", "speaks of self-harm while `help` is false"),
    "media": Text("{count} 处图片、音频、视频或链接没有导入。", "{count} pictures, recordings or links were not imported"),
    "partial": Text(
        "没有给出 {language} 译文：{count} 处没有翻译，如“{first}”。",
        "no {language} text: {count} strings are not translated, such as “{first}”",
    ),
    "bad_table": Text("“{name}”读不了或语言不明，没有采用。", "“{name}” cannot be read or its language is not known: not used"),
    "no_title": Text("modules.json 里没有标题，暂用文件名。", "no title in modules.json: the flow's name stands in"),
    "other_language": Text(
        "“{field}”是另一种未标明的语言，没有导入。", "“{field}” is in another, unmarked language and was not imported"
    ),
    "misplaced": Text(
        "“{field}”里是一句话而不是角色，已放进正文。", "“{field}” holds a sentence, not a character: put into the text"
    ),
    "unreleased": Text("原状态为“{status}”。", "its status was “{status}”"),
    "not_alike": Text("各语言写的“{name}”不一致，已合并。", "“{name}” differs between the languages of this lesson: joined"),
}


@dataclass(frozen=True)
class Read:
    """A lesson in one language."""

    source: str
    """The file, relative to the folder that was read."""
    line: int
    slug: str
    language: str
    meta: dict[str, Any]
    """audiences, stages, topics, kind, seasons, divisions, media, sources [{title, url?}], help, reviewed_by, review_due (ISO
    date), made_from, licence. All languages of a slug read together carry the same facts; the last two are each text's own."""
    text: dict[str, Any]
    """title, summary, body (Markdown), try_this, minutes (None when the file does not say)."""
    warnings: tuple[str, ...] = ()
    """What an editor should know, each "Chinese / English"."""
    assumed: tuple[str, ...] = ()
    """Names of `meta` that no file states: for a new draft only, they must not overwrite what an editor has chosen."""


@dataclass(frozen=True)
class Refused:
    """Something wrong in a file, which is then not imported at all."""

    source: str
    line: int
    field: str
    """The field, or "file"."""
    reason: dict[str, str]
    """By language tag, zh-Hans and en."""


@dataclass(frozen=True)
class Skipped:
    """A file, or a row of one, that by nature is no lesson."""

    source: str
    why: dict[str, str]
    """By language tag, zh-Hans and en."""


Outcome = Read | Refused | Skipped


class _Refusal(Exception):
    """What is wrong with the file at hand: (line, field, reason)."""

    def __init__(self, *problems: tuple[int, str, dict[str, str]]) -> None:
        self.problems = problems


def _no(code: str, line: int = 1, field: str = "file", **params: Any) -> _Refusal:
    return _Refusal((line, field, SAYS[code].fill(params)))


def _warn(code: str, **params: Any) -> str:
    text = SAYS[code].fill(params)
    return f"{text['zh-Hans']} / {text['en']}"


@dataclass(frozen=True)
class _Place:
    """One file while it is read. `beside` remembers the tables next to it, for the whole import."""

    path: Path
    source: str
    defaults: dict[str, Any]
    beside: dict[Path, Any]


def read(path: Path, *, defaults: Mapping[str, Any] | None = None) -> Iterator[Outcome]:
    """Every lesson of a file or a folder (with its folders, in the order of their names).

    `defaults` (audiences, stages, topics, seasons, divisions, kind, language, licence) stand where a file says nothing. Slugs
    hang on names and never on the folder the import began at, so reading again gives the same. Of two files with the same slug
    and language the second is refused. Raises `NotFound` for the path and `Invalid` for the defaults, both at once.
    """
    given = dict(defaults or {})
    if unknown := set(given) - {*LISTS, "kind", "language", "licence"}:
        raise invalid(f"defaults.{min(unknown)}", "unknown_field")
    if "language" in given:
        given["language"] = languages.tag(given["language"], "defaults.language")
    given |= lessons.checked({k: v for k, v in given.items() if k not in {"language", "licence"}})
    if not path.exists():
        raise NotFound(what=str(path))
    return iter(_joined(_all(path.absolute(), given)))


def write(lesson: lessons.Lesson) -> Iterator[tuple[str, str]]:
    """(file name, content) of each of a lesson's texts, in the form that `read` takes: reading them again gives the same."""
    raw = lesson.to_mongo().to_dict()
    for language, text in sorted(raw.get("texts", {}).items()):
        front = {"slug": raw["slug"], "language": language} | {name: raw[name] for name in lessons.META if name in raw}
        front |= {
            name: text[name] for name in ("title", "summary", "try_this", "minutes", "made_from", "licence") if text.get(name)
        }
        head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=10**6)
        yield f"{raw['slug']}.{language}.md", f"---\n{head}---\n{text['body']}\n"


def _all(root: Path, defaults: dict[str, Any]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    found: list[Outcome]
    taken: dict[tuple[str, str], str] = {}
    beside: dict[Path, Any] = {}
    for path, source, why in _walk(root):
        try:
            if why == "gone":
                raise _no(why)
            found = [Skipped(source, SAYS[why].fill({}))] if why else list(_file(_Place(path, source, defaults, beside)))
        except _Refusal as refusal:
            found = [Refused(source, *problem) for problem in refusal.problems]
        own: dict[tuple[str, str], str] = {}
        for one in [one for one in found if isinstance(one, Read)]:
            key = (one.slug, one.language)
            if (first := taken.get(key) or own.get(key)) is not None:
                says = {"first": first, "slug": one.slug, "language": one.language}
                found.append(Refused(source, one.line, "slug", SAYS["duplicate"].fill(says)))
            own.setdefault(key, f"{source}:{one.line}")
        if any(isinstance(one, Refused) for one in found):
            found = [one for one in found if not isinstance(one, Read)]
        else:
            taken |= own
        outcomes += found
    return outcomes


def _walk(root: Path) -> Iterator[tuple[Path, str, str]]:
    """(path, shown name, code of SAYS when it is not to be read), sorted by name within each folder."""
    if not root.is_dir():
        yield root, _name(root), ""
        return

    def within(folder: Path, prefix: str) -> Iterator[tuple[Path, str, str]]:
        try:
            paths = sorted(folder.iterdir(), key=_name)
        except OSError:
            yield folder, prefix, "gone"
            return
        for path in paths:
            source, mode = prefix + _name(path), path.lstat().st_mode
            if path.name.startswith("."):
                yield path, source, "hidden"
            elif stat.S_ISLNK(mode):
                yield path, source, "link"
            elif stat.S_ISDIR(mode):
                yield from within(path, f"{source}/")
            else:
                yield path, source, "" if stat.S_ISREG(mode) else "special"

    yield from within(root, "")


def _name(path: Path) -> str:
    """The name in NFC (some systems store it decomposed), with bytes that are not UTF-8 replaced."""
    return languages.clean(os.fsencode(path.name).decode("utf-8", "replace"))


def _joined(outcomes: list[Outcome]) -> list[Outcome]:
    """The same facts in all languages of a slug: what any of its files states goes before what was assumed for another."""
    groups: dict[str, list[Read]] = {}
    for one in outcomes:
        if isinstance(one, Read):
            groups.setdefault(one.slug, []).append(one)
    facts: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {}
    for slug, group in groups.items():
        assumed = tuple(name for name in group[0].assumed if all(name in one.assumed for one in group))
        meta: dict[str, Any] = {"help": any(one.meta["help"] for one in group)}
        said: list[str] = []
        for name in (*LISTS, "kind", "sources", "reviewed_by", "review_due"):
            values = [one.meta[name] for one in group if name in assumed or name not in one.assumed]
            if isinstance(values[0], list):
                every = [item for value in values for item in value]
                meta[name] = [item for i, item in enumerate(every) if item not in every[:i]]
            else:
                meta[name] = next((value for value in values if value), None)
            if name in (*LISTS, "kind") and any(value != values[0] for value in values):
                said.append(_warn("not_alike", name=name))
        told = [f"{name}={', '.join(v) if isinstance(v, list) else v}" for name in assumed if (v := meta[name])]
        said += [_warn("assumed", what="; ".join(told))] if told else []
        facts[slug] = meta, tuple(said), assumed
    return [
        dataclasses.replace(
            one, meta={**one.meta, **facts[one.slug][0]}, warnings=one.warnings + facts[one.slug][1], assumed=facts[one.slug][2]
        )
        if isinstance(one, Read)
        else one
        for one in outcomes
    ]


# --- one file --------------------------------------------------------------------------------------------------------


def _file(place: _Place) -> Iterator[Outcome]:
    name = _name(place.path)
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (Path(name) would read a "/" that decoding may bring)
    if stem.lower() in NOT_LESSONS:
        yield Skipped(place.source, SAYS["about_folder"].fill({}))
    elif name == "SOURCES.tsv":
        _text(place.path)
        yield Skipped(place.source, SAYS["origins"].fill({}))
    elif suffix.lower() == ".json":
        yield from _data_list(place, stem)
    elif suffix.lower() in {".md", ".markdown"}:
        yield _markdown(place, stem, [])
    elif not re.fullmatch(r"\.[A-Za-z0-9]{1,5}", suffix) and _text(place.path).lstrip(SPACES).startswith(("---", "# ")):
        # names cut off by a length limit lose their ending
        yield _markdown(place, name, [_warn("no_extension")])
    else:
        yield Skipped(place.source, SAYS["other_kind"].fill({}))


def _text(path: Path) -> str:
    """The file's text in NFC with one kind of line end and no byte order mark. Raises `_Refusal`."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError:
        raise _no("gone") from None
    if len(data) > FILE_LIMIT:
        raise _no("too_large", limit=FILE_LIMIT)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no("not_utf8", data.count(b"\n", 0, error.start) + 1, byte=error.start + 1) from None
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    if bad := _bad_character(text):
        raise _no("bad_character", text.count("\n", 0, text.index(bad)) + 1, what=f"U+{ord(bad):04X}")
    return text


def _bad_character(text: str) -> str | None:
    """A NUL or half of a surrogate pair (only escapes bring these): neither can be stored or sent."""
    found = re.search("[\x00\ud800-\udfff]", text)
    return found[0] if found else None


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for one in [*(name for name, _ in pairs), *(value for _, value in pairs if isinstance(value, str))]:
            if bad := _bad_character(one):
                at = max(text.lower().find(f"\\u{ord(bad):04x}"), 0)
                raise _no("bad_character", text.count("\n", 0, at) + 1, what=f"U+{ord(bad):04X}")
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            raise _no("twice", key=next(name for name in names if names.count(name) > 1)[:80])
        return result

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise _no("bad_json", error.lineno, why=error.msg) from None
    except (RecursionError, ValueError):  # too deep, or a number of too many digits
        raise _no("bad_json", why="too deep or a number too long") from None


def _beside(place: _Place, path: Path) -> Any:
    """The JSON of a neighbouring file, read once; None when there is none, or when it will be refused in its own turn."""
    if path not in place.beside:
        try:
            place.beside[path] = _json(_text(path)) if path.is_file() else None
        except _Refusal:
            place.beside[path] = None
    return place.beside[path]


def _origin(place: _Place) -> dict[str, str]:
    """This file's row of the nearest SOURCES.tsv (columns file, repo, licence), up to two folders up; else {}."""
    for folder in place.path.parents[:3]:
        table = folder / "SOURCES.tsv"
        if table not in place.beside:
            try:
                lines = _text(table).split("\n") if table.is_file() else []
                rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
            except (_Refusal, csv.Error):
                rows = []
            place.beside[table] = {row["file"]: row for row in rows if row.get("file")}
        if found := place.beside[table].get(unicodedata.normalize("NFC", place.path.relative_to(folder).as_posix())):
            return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, str)}
    return {}


def _slug(*names: str) -> str:
    """From names: their ASCII words, and a short hash of the whole when anything is lost, so that it is stable and unique."""
    words = [word for name in names for word in re.findall(r"[a-z0-9]+", name.lower())]
    slug = "-".join(words)
    if slug and len(slug) <= 80 and all(name.isascii() for name in names):
        return slug
    return "-".join(
        [*(slug[:70].strip("-").split("-") if slug else []), hashlib.sha256("/".join(names).encode()).hexdigest()[:6]]
    )


def _guess_language(folder: str) -> str | None:
    """From a folder's name ("zh", "peace-lab-zh"), only the languages that we know: many words look like a tag."""
    for part in (folder, folder.rpartition("-")[2]):
        try:
            if (found := languages.tag(part)) in languages.NAMES:
                return found
        except Invalid:
            continue
    return None


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters, ended at a sentence end, else at a blank, else with an ellipsis."""
    head = text[:limit]
    ends = [found.end() for found in re.finditer(r"[。！？!?；;]|\.(?= )", head)]
    if ends:
        return head[: ends[-1]]
    return (head[: limit - 1].rpartition(" ")[0] or head[: limit - 1]) + "…"


def _finish(
    place: _Place,
    line: int,
    slug: str,
    language: str,
    stated: dict[str, Any],
    text: dict[str, Any],
    guess: Mapping[str, Any],
    warnings: list[str],
    lines: Mapping[str, int] | None = None,
    errors: list[FieldError] | None = None,
) -> Read:
    """The value, with every code and length checked. Raises `_Refusal` that lists all that is wrong in this lesson.

    `stated` holds what the file says (meta names), `guess` what to assume, `lines` where each field stands.
    """
    errors = list(errors or [])
    origin = _origin(place)
    licence = stated.get("licence") or place.defaults.get("licence") or origin.get("licence") or None
    base = (
        {name: [] for name in LISTS} | dict(guess) | {k: v for k, v in place.defaults.items() if k not in {"language", "licence"}}
    )
    facts = base | {k: v for k, v in stated.items() if k in base}
    assumed = tuple(name for name in base if name not in stated)
    try:
        facts = lessons.checked(facts)
    except Invalid as failure:
        errors += failure.errors
    if len(slug) > 80 or not lessons.SLUG.fullmatch(slug):
        errors.append(FieldError("slug", "bad_format", {"reason": "a-z 0-9 -, ≤ 80"}))
    values = {name: languages.clean(text.get(name) or "") for name in lessons.LIMITS}
    values["title"] = re.sub(r"[ \t]*\n[ \t]*", " ", values["title"])
    for name, value in values.items():
        if name in {"title", "body"} and not value and name not in {error.field for error in errors}:
            errors.append(FieldError(name, "required"))
        if len(value) > lessons.LIMITS[name]:
            errors.append(FieldError(name, "out_of_range", {"reason": f"{len(value)} > {lessons.LIMITS[name]}"}))
    if errors:
        raise _Refusal(*(((lines or {}).get(e.field.partition(".")[0], line), e.field, e.messages) for e in errors))

    warnings = list(warnings)
    whole = "\n".join(values.values())
    if found := PLACEHOLDER.findall(whole):
        counts = [f"{name} ×{found.count(name)}" for name in dict.fromkeys(found)]
        warnings.append(_warn("placeholders", what=", ".join(counts[:8]) + (" …" if len(counts) > 8 else "")))
    if RISK.search(whole):
        warnings.append(_warn("risk_off" if "help" in stated and not stated["help"] else "risk"))
    if away := re.findall(r"\]\((?!https?:|mailto:|tel:|media:|#)[^)\s]+", whole):
        warnings.append(_warn("links", count=len(away), first=away[0][2:][:60]))
    if not licence and "audiences" not in stated:  # not in our own form, so not our own work
        warnings.append(_warn("no_licence"))
    sources = stated.get("sources", []) + ([{"title": origin["repo"]}] if origin.get("repo") else [])
    meta = facts | {
        "sources": sources,
        "help": stated.get("help", bool(RISK.search(whole))),
        "reviewed_by": stated.get("reviewed_by"),
        "review_due": stated.get("review_due"),
        "made_from": stated.get("made_from"),
        "licence": licence,
    }
    return Read(place.source, line, slug, language, meta, {**values, "minutes": text.get("minutes")}, tuple(warnings), assumed)


# --- Markdown --------------------------------------------------------------------------------------------------------


def _front_matter(text: str) -> tuple[dict[str, Any], dict[str, int], str, int, list[str]]:
    """(values, line of each key, body, the body's first line, warnings); without front matter the values are empty.

    Every scalar stays the text it was written as, so that `no`, `010101` and `2027-09-01` mean what an editor sees. Foreign
    files close it with any number of dashes; that is harmless and accepted. Raises `_Refusal`.
    """
    rows = text.split("\n")
    start = next((i for i, row in enumerate(rows) if row.strip(SPACES)), 0)
    dashes = re.compile(r"-{3,}[ \t]*")
    if not dashes.fullmatch(rows[start]):
        return {}, {}, text, 1, []
    end = next((i for i in range(start + 1, len(rows)) if dashes.fullmatch(rows[i]) or rows[i].rstrip(SPACES) == "..."), None)
    if end is None:
        raise _no("front_open", start + 1, "front_matter")
    warnings = [_warn("front_end", line=rows[end].rstrip(SPACES)[:20])] if rows[end].rstrip(SPACES) != "---" else []
    front = "\n".join(rows[start + 1 : end]) + "\n"
    if len(front) > FRONT_LIMIT:
        raise _no("front_large", start + 1, "front_matter", limit=FRONT_LIMIT)
    try:
        node = yaml.compose(front, Loader=yaml.SafeLoader)  # the graph only: nothing is constructed
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if error.context_mark and (mark is None or mark.line >= front.count("\n")):  # noticed at the end only: where it began
            mark = error.context_mark
        raise _no(
            "front_yaml", start + 2 + (mark.line if mark else 0), "front_matter", why=error.problem or error.context
        ) from None
    except yaml.reader.ReaderError as error:
        raise _no("front_yaml", start + 2 + front.count("\n", 0, error.position), "front_matter", why=error.reason) from None
    except RecursionError:
        raise _no("front_yaml", start + 1, "front_matter", why="too deep") from None
    body = "\n".join(rows[end + 1 :])
    if node is None:
        return {}, {}, body, end + 2, warnings
    if not isinstance(node, yaml.MappingNode):
        raise _no("front_shape", start + 2, "front_matter")
    spent = 0

    def plain(node: yaml.Node, depth: int = 0) -> Any:
        nonlocal spent
        spent += 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        if spent > FRONT_EXPANDED or depth > 20:
            raise _no("front_large", start + 2 + node.start_mark.line, "front_matter", limit=FRONT_EXPANDED)
        if isinstance(node, yaml.SequenceNode):
            return [plain(item, depth + 1) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            if bad := _bad_character(node.value):
                raise _no("bad_character", start + 2 + node.start_mark.line, "front_matter", what=f"U+{ord(bad):04X}")
            return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
        result: dict[str, Any] = {}
        for key, value in node.value:
            name = plain(key, depth + 1)
            if not isinstance(name, str):
                raise _no("front_shape", start + 2 + key.start_mark.line, "front_matter")
            if name in result:
                raise _no("twice", start + 2 + key.start_mark.line, name[:80], key=name[:80])
            result[name] = plain(value, depth + 1)
        return result

    lines = {key.value: start + 2 + key.start_mark.line for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
    return plain(node), lines, body, end + 2, warnings


def _markdown(place: _Place, stem: str, warnings: list[str]) -> Read:
    """A Markdown file: a story when it has Storybook credits and no front matter, else a lesson. Raises `_Refusal`."""
    text = _text(place.path)
    values, lines, body, line, said = _front_matter(text)
    folder = _name(place.path.parent)
    # by our convention a name is slug.language.md
    named, _, suffix = stem.rpartition(".")
    tail = _guess_language(suffix) if lessons.SLUG.fullmatch(named) else None
    if not lines and re.search(r"^\* License:", text, re.MULTILINE):
        return _story(place, stem, text, warnings + said)
    values, lines, foreign, said_too = _known(values, lines)
    stated, written, errors, said_last = _stated(values, foreign)
    warnings = [*warnings, *said, *said_too, *said_last]

    language = stated.pop("language", None) or tail or place.defaults.get("language") or _guess_language(folder)
    if language is None and "language" not in values:
        raise _no("no_language", 1, "language")
    if language and stated.get("made_from") == language:
        raise _no("same_language", lines["made_from"], "made_from")
    heads = _headings(body)
    if heads and written.get("title", heads[0][1]) == heads[0][1]:  # the title is shown above the body: not twice
        written["title"] = heads[0][1]
        rows = body.split("\n")
        body = "\n".join(rows[: heads[0][0]] + rows[heads[0][0] + 1 :])
    if len(heads) > 1:
        warnings.append(_warn("headings", count=len(heads)))
    slug = values.get("slug") or (named if tail else _slug(folder, stem))
    slug = slug if isinstance(slug, str) else ""
    return _finish(
        place, line if not lines else 1, slug, language or "", stated, written | {"body": body}, MARKDOWN, warnings,
        {"body": line, **lines}, errors,
    )  # fmt: skip


def _headings(body: str) -> list[tuple[int, str]]:
    """Top headings outside code blocks, with their rows."""
    heads: list[tuple[int, str]] = []
    fence = ""
    for number, row in enumerate(body.split("\n")):
        if mark := re.match(r" {0,3}(```+|~~~+)", row):
            fence = ("" if mark[1].startswith(fence) else fence) if fence else mark[1]
        elif not fence and row.startswith("# "):
            heads.append((number, languages.clean(row[2:])))
    return heads


def _known(values: dict[str, Any], lines: dict[str, int]) -> tuple[dict[str, Any], dict[str, int], set[str], list[str]]:
    """Our keys and what other people call them; (values, lines, keys that came under another name, warnings)."""
    result: dict[str, Any] = {}
    where: dict[str, int] = {}
    foreign: set[str] = set()
    out: list[str] = []
    for key, value in values.items():
        name = ALIASES.get(key, key)
        if name not in KEYS or (key != name and name in values):
            out.append(key)
        elif value is not None and value != "":
            result[name], where[name] = value, lines.get(key, 1)
            foreign |= {name} if key != name else set()
    return result, where, foreign, [_warn("unknown_keys", keys=", ".join(out)[:400])] if out else []


def _stated(values: dict[str, Any], foreign: set[str]) -> tuple[dict[str, Any], dict[str, Any], list[FieldError], list[str]]:
    """(meta, text, what is wrong, warnings) from front-matter values. What came under another's name is bent, ours refused."""
    stated: dict[str, Any] = {}
    text: dict[str, Any] = {}
    errors: list[FieldError] = []
    warnings: list[str] = []
    for name, value in values.items():
        listed = [value] if isinstance(value, str) else value
        try:
            if name == "sources":
                stated[name] = _sources(value)
            elif name in LISTS:
                if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
                    raise invalid(name, "wrong_type", reason="[a, b]")
                if name == "media" and not all(re.fullmatch(r"[0-9a-z]{1,64}", one) for one in listed):
                    raise invalid(name, "bad_format", reason="0-9 a-z")
                stated[name] = list(dict.fromkeys(listed))
            elif not isinstance(value, str):
                raise invalid(name, "wrong_type", reason="文字 text")
            elif name in {"language", "made_from"}:
                stated[name] = languages.tag(value, name)
            elif name == "help":
                if value.lower() not in {"true", "false", "yes", "no"}:
                    raise invalid(name, "not_one_of", choices="true, false")
                stated[name] = value.lower() in {"true", "yes"}
            elif name == "review_due":
                try:
                    stated[name] = date.fromisoformat(value).isoformat()
                except ValueError:
                    raise invalid(name, "bad_format", reason="2027-09-01") from None
            elif name == "minutes":
                found = re.fullmatch(r"(\d{1,3}) ?(?:m|min|mins|minutes|分钟)?", value.strip(SPACES))
                if not found or not 1 <= int(found[1]) <= 120:
                    raise invalid(name, "out_of_range", reason="1..120")
                text[name] = int(found[1])
            elif name == "summary" and "summary" in foreign and len(languages.clean(value)) > lessons.LIMITS["summary"]:
                text[name] = _cut(languages.clean(value), lessons.LIMITS["summary"])
                warnings.append(_warn("cut", count=len(value)))
            elif name in lessons.LIMITS:
                text[name] = languages.clean(value)
            elif name != "slug":
                if len(value) > SHORT:
                    raise invalid(name, "out_of_range", reason=f"≤ {SHORT}")
                stated[name] = languages.clean(value)
        except Invalid as failure:
            if name in foreign and name != "language":
                warnings.append(_warn("ignored", field=name, value=str(value)[:60]))
            else:
                errors += failure.errors
    return stated, text, errors, warnings


def _sources(value: Any) -> list[dict[str, str]]:
    """[{title, url?}] from a list of titles or of such objects. Raises `Invalid`."""
    result: list[dict[str, str]] = []
    for one in value if isinstance(value, list) else [value]:
        entry = {"title": one} if isinstance(one, str) else one
        if not isinstance(entry, dict) or not entry.get("title") or set(entry) - {"title", "url"}:
            raise invalid("sources", "wrong_type", reason="[{title: …, url: …}]")
        kept = {k: languages.clean(v) for k, v in entry.items() if isinstance(v, str) and v}
        if len(kept) != len([v for v in entry.values() if v]) or len(kept["title"]) > SHORT:
            raise invalid("sources", "bad_format", reason=f"title ≤ {SHORT}")
        if "url" in kept and not re.fullmatch(r"https?://[^\s<>\"]{1,1000}", kept["url"]):
            raise invalid("sources", "bad_format", reason="url: https://…")
        result.append(kept)
    if len(result) > SOURCES_LIMIT:
        raise invalid("sources", "out_of_range", reason=f"≤ {SOURCES_LIMIT}")
    return result


def _story(place: _Place, stem: str, text: str, warnings: list[str]) -> Read:
    """An African Storybook story: `# title`, pages parted by `##`, credits as the last page's list.

    All languages of a story share the slug asp-<number>. The work's makers go into the sources; the translator, who made this
    text, is named under it. Raises `_Refusal`.
    """
    title, pages, page = "", [], list[str]()
    for row in text.split("\n"):
        if row.startswith("# ") and not title:
            title = row[2:]
        elif row.rstrip(SPACES) == "##":
            pages.append("\n".join(page).strip(SPACES))
            page = []
        else:
            page.append(row)
    pages.append("\n".join(page).strip(SPACES))
    credits: list[tuple[str, str]] = []
    rest: list[str] = []
    for row in pages.pop().split("\n"):
        if (found := CREDIT.match(row)) is not None:
            credits.append((found[1], found[2].strip(SPACES)))
        elif row.strip(SPACES):
            rest.append(row)
    said = {name.lower(): value for name, value in credits}
    stated: dict[str, Any] = {
        "licence": said.get("license", "").strip("[]"),
        "sources": [
            {"title": f"{name}: {value}"[:SHORT]}
            for name, value in credits
            if name.lower() not in {"license", "language", "translation"} and value
        ],
    }
    by = [f"*{name}: {value}*" for name, value in credits if name.lower() == "translation" and value]
    body = "\n\n".join(page for page in [*pages, *by] if page)
    written: dict[str, Any] = {"title": title, "body": body if any(pages) else ""}
    if rest:  # a word to the reader's grown-ups stands after the credits
        note = "\n".join(rest)
        written["summary"] = _cut(note, lessons.LIMITS["summary"])
        warnings += [_warn("cut", count=len(note))] if len(note) > lessons.LIMITS["summary"] else []
    errors: list[FieldError] = []
    language = place.defaults.get("language") or _guess_language(_name(place.path.parent)) or ""
    if "language" in said:
        try:
            language = languages.tag(said["language"])
        except Invalid as failure:
            errors += failure.errors
    elif not language:
        raise _no("no_language", 1, "language")
    number = re.match(r"\d+", stem)
    slug = f"asp-{number[0]}" if number else _slug("asp", stem)
    return _finish(place, 1, slug, language, stated, written, STORY, warnings, errors=errors)


# --- data lists ------------------------------------------------------------------------------------------------------

# The order in which a reader meets a row's texts; the sheets have their columns in any order.
ORDER = [
    r"title", r"text_1\w*", r"intro_text|text", r"text_\d+\w*", r"media_title", r"media_transcript", r"transcript(?:_1)?",
    r"character_\d+_text", r"section_\d+_(?:title|text|button_text|extra_text)",
    r"quiz_\d+_(?:question|option_\d+_text|feedback_\d+(?:_id)?)", r"steps_text", r"tips_text",
]  # fmt: skip
PARTS = ["title", "question", "text", "feedback", "button", "extra"]
MEDIA = re.compile(r"(?!.*icon).*(?:_asset|_doc)|youtube_\w+")


def _data_list(place: _Place, stem: str) -> Iterator[Outcome]:
    """open-app-builder: `*_articles` are one lesson a file; of other lists, each row that has a title and text is one.

    Theirs is English. A table `strings.<country>_<language>.json` beside it, or a further language in the rows, gives a second
    text when every string of the lesson is translated. Raises `_Refusal`.
    """
    text = _text(place.path)
    data = _json(text)
    if stem.startswith("strings."):
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise _no("strings")
        yield Skipped(place.source, SAYS["string_table"].fill({}))
        return
    if not isinstance(data, dict) or data.get("flow_type") != "data_list":
        yield Skipped(place.source, SAYS["no_data_list"].fill({}))
        return
    rows, flow, folder = data.get("rows"), str(data.get("flow_name") or stem), _name(place.path.parent)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _no("rows", field="rows")
    said = [_warn("unreleased", status=str(data["status"])[:40])] if data.get("status", "released") != "released" else []
    if flow in LEGAL or data.get("flow_subtype") == "legal_terms":
        yield Skipped(place.source, SAYS["legal"].fill({}))
    elif flow == "modules":
        yield Skipped(place.source, SAYS["titles"].fill({}))
    elif flow.endswith("_articles"):
        name = flow.removesuffix("_articles")
        title = _module_title(place, str(data.get("module") or name))
        said += [] if title else [_warn("no_title")]
        yield from _told(place, 1, _slug(folder, name), title or name.replace("_", " "), rows, ARTICLE, said)
    else:
        lesson = [bool(_english(row, "title")) and bool(_texts(row).keys() - {"title"}) for row in rows]
        if not any(lesson):
            yield Skipped(place.source, SAYS["no_row"].fill({"count": len(rows)}))
            return
        for number, row in enumerate(rows):
            key = str(row.get("id") or number + 1)
            if not lesson[number]:
                yield Skipped(place.source, SAYS["row_bare"].fill({"row": key[:80]}))
                continue
            found = re.search(r'"id"\s*:\s*' + re.escape(json.dumps(key, ensure_ascii=False)), text)
            line = text.count("\n", 0, found.start()) + 1 if found else 1
            slug = _slug(folder, *([] if key.startswith(flow) else [flow]), key)
            rest = {name: value for name, value in row.items() if name != "title"}
            yield from _told(place, line, slug, _english(row, "title"), [rest], ROW, said, row)


def _english(row: Mapping[str, Any], name: str) -> str:
    """A field's English text; empty when it has none."""
    value = _languages(row, name).get("eng") or row.get(name)
    return value.strip(SPACES) and value if isinstance(value, str) else ""


def _languages(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    marked = row.get("_translatedFields")
    told = marked.get(name) if isinstance(marked, dict) else None
    return told if isinstance(told, dict) else {}


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a row that a reader reads, in reading order. What is marked as text and has no place of its own comes last."""
    placed = []
    for name in row:
        rank = next((i for i, pattern in enumerate(ORDER) if re.fullmatch(pattern, name)), len(ORDER))
        if not _english(row, name) or (rank == len(ORDER) and (not _languages(row, name) or name.endswith("_id"))):
            continue
        numbers = [int(n[:6]) for n in re.findall(r"\d+", name)] + [0, 0]
        placed.append((rank, numbers[0], numbers[1], max((PARTS.index(p) for p in PARTS if p in name), default=0), name))
    return {name: _english(row, name) for *_, name in sorted(placed)}


def _module_title(place: _Place, module: str) -> str:
    data = _beside(place, place.path.with_name("modules.json"))
    rows = data.get("rows") if isinstance(data, dict) else None
    found = (row for row in rows if isinstance(row, dict) and row.get("id") == module) if isinstance(rows, list) else ()
    return next((_english(row, "title") for row in found), "")


def _told(
    place: _Place,
    line: int,
    slug: str,
    title: str,
    rows: list[dict[str, Any]],
    guess: Mapping[str, Any],
    warnings: list[str],
    whole: dict[str, Any] | None = None,
) -> Iterator[Read]:
    """The lesson in English, then in every language into which all of it is translated. `whole`: the row with its title."""
    rows, said = [dict(row) for row in rows], list(warnings)
    for row in rows:
        for name in [name for name in row if re.fullmatch(r"character_\d+_id", name) and re.search(r"\s", str(row[name]))]:
            spoken = name.removesuffix("_id") + "_text"
            if isinstance(row[name], str) and not _english(
                row, spoken
            ):  # a slip in the sheets: what is said stands where who says it should
                row[spoken] = row.pop(name)
                said.append(_warn("misplaced", field=f"{row.get('id')}.{name}"))
        said += [_warn("other_language", field=f"{row.get('id')}.{n}") for n in row if re.fullmatch(r"transcript_[2-9]", n)]
    if media := sum(1 for row in rows for name, value in row.items() if MEDIA.fullmatch(name) and value):
        said.append(_warn("media", count=media))

    tables: dict[str, dict[str, str]] = {}
    for path in sorted(place.path.parent.glob("strings.*.json")):
        table, code = _beside(place, path), _app_language(path.name.split(".")[1])
        if code and isinstance(table, dict):
            tables.setdefault(code, {}).update(table)
        else:
            said.append(_warn("bad_table", name=path.name))
    for row in [*rows, *([whole] if whole else [])]:
        for name in _texts(row):
            for told_in, value in _languages(row, name).items():
                if told_in != "eng" and (code := _app_language(told_in)) and isinstance(value, str):
                    tables.setdefault(code, {}).setdefault(_english(row, name), value)
    others = []
    for code, table in tables.items():
        missing: list[str] = []

        def told(text: str, table: dict[str, str] = table, missing: list[str] = missing) -> str:
            value = table.get(text)
            if isinstance(value, str) and value.strip(SPACES):
                return value
            missing.append(text)
            return text

        text = {"title": told(title), "body": _body(rows, told)}
        if missing:
            said.append(_warn("partial", language=code, count=len(missing), first=missing[0][:40]))
        else:
            others.append(_finish(place, line, slug, code, {"made_from": "en"}, text, guess, said))
    yield _finish(place, line, slug, "en", {}, {"title": title, "body": _body(rows, str)}, guess, said)
    yield from others


def _app_language(code: str) -> str | None:
    """From the app's <country>_<language>, such as tz_sw; None when it is no language."""
    try:
        return languages.tag(code.rpartition("_")[2])
    except Invalid:
        return None


def _body(rows: list[dict[str, Any]], told: Callable[[str], str]) -> str:
    """Markdown of the rows in order, a rule between categories; a row shown as the answer to a choice stands at that choice."""
    nested = {str(row.get("id")): row for row in rows if str(row.get("nested")).lower() == "true"}
    used = {str(value) for row in rows for name, value in row.items() if re.fullmatch(r"quiz_\d+_feedback_\d+_id", name)}
    parts: list[str] = []
    category: Any = None
    for row in rows:
        if str(row.get("id")) in used & set(nested):
            continue
        if parts and row.get("category_id") != category:
            parts.append("---")
        category = row.get("category_id")
        parts += _blocks(row, told, nested)
    return "\n\n".join(parts)


def _blocks(row: dict[str, Any], told: Callable[[str], str], nested: Mapping[str, dict[str, Any]]) -> list[str]:
    blocks: list[str] = []
    for name, english in _texts(row).items():
        if name.endswith("_id"):  # a choice that is answered by a row of its own; that row's choices are not followed
            blocks += [_indented(block) for block in _blocks(nested[english], told, {})] if english in nested else []
            continue
        # one line end in the app is a line end for its reader
        text = re.sub(r"\n[ \t]*\n", "\n\n", told(english).strip(SPACES))
        text = re.sub(r"(?<!\n)[ \t]*\n(?!\n)", "  \n", text)
        if name.endswith("title"):
            text = f"**{text}**" if name == "media_title" else "### " + re.sub(r"\s*\n\s*", " ", text)
        elif speaker := re.fullmatch(r"(character_\d+)_text", name):
            who = str(row.get(f"{speaker[1]}_id") or "")
            who = f"**@data.characters.{who}.name:** " if re.fullmatch(r"\w+", who) else ""
            text = re.sub(r"^", "> ", who + text, flags=re.MULTILINE)
        elif "_option_" in name:
            text = "- " + _indented(text).lstrip(SPACES)
        elif "_feedback_" in name:
            text = _indented(text)
        elif name.endswith("button_text"):
            text = f"**{text}**"
        blocks.append(text)
    return blocks


def _indented(text: str) -> str:
    return re.sub(r"^(?=.)", "  ", text, flags=re.MULTILINE)

"""One lesson file as it is read, whatever its form: the values that come of it, what may be wrong with it, its checked end.

A reader of one form (`manuscripts`, `datalists`) takes a `Place`, raises `refusal`, and ends in `finish`, where every code and
length is checked and the risks are marked.
"""

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from content import checking, languages, lessons
from content.failures import FieldError, Invalid, Text

FILE_LIMIT = 1024 * 1024  # bytes; the longest lesson (200,000 characters of 3 bytes) and then some

LISTS = ("audiences", "stages", "topics", "seasons", "divisions", "media")

# A lesson that speaks of these gets the help card beside it unless its file says otherwise.
RISK = re.compile(r"自杀|自殺|自伤|自傷|自残|自殘|轻生|輕生|suicid|self[- ]harm|자살|자해|kujiua|kujidhuru", re.IGNORECASE)
PLACEHOLDER = re.compile(r"(?<![\w.])@(?:global|local|data|fields?|item|row|calc|campaign)\.\w+(?:\.\w+)*|\bLINK HERE\b")

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
    """title, summary, body (Markdown), try_this, minutes (None when the file does not say); check_in and needs_translator are
    there only when the file says them."""
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


class Refusal(Exception):
    """What is wrong with the file at hand: (line, field, reason)."""

    def __init__(self, *problems: tuple[int, str, dict[str, str]]) -> None:
        self.problems = problems


def refusal(code: str, line: int = 1, field: str = "file", **params: Any) -> Refusal:
    """To be raised, with the text of `SAYS`."""
    return Refusal((line, field, SAYS[code].fill(params)))


def skipped(source: str, code: str, **params: Any) -> Skipped:
    """With the text of `SAYS`."""
    return Skipped(source, SAYS[code].fill(params))


def warn(code: str, **params: Any) -> str:
    """One line "Chinese / English" for `Read.warnings`."""
    text = SAYS[code].fill(params)
    return f"{text['zh-Hans']} / {text['en']}"


@dataclass(frozen=True)
class Place:
    """One file while it is read. `beside` remembers the tables next to it, for the whole import."""

    path: Path
    source: str
    defaults: dict[str, Any]
    beside: dict[Path, Any]


def name_of(path: Path) -> str:
    """The name in NFC (some systems store it decomposed), with bytes that are not UTF-8 replaced."""
    return languages.clean(os.fsencode(path.name).decode("utf-8", "replace"))


def text_of(path: Path) -> str:
    """The file's text in NFC with one kind of line end and no byte order mark. Raises `Refusal`."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError:
        raise refusal("gone") from None
    if len(data) > FILE_LIMIT:
        raise refusal("too_large", limit=FILE_LIMIT)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal("not_utf8", data.count(b"\n", 0, error.start) + 1, byte=error.start + 1) from None
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    if bad := bad_character(text):
        raise refusal("bad_character", text.count("\n", 0, text.index(bad)) + 1, what=f"U+{ord(bad):04X}")
    return text


def bad_character(text: str) -> str | None:
    """A NUL or half of a surrogate pair (only escapes bring these): neither can be stored or sent."""
    found = re.search("[\x00\ud800-\udfff]", text)
    return found[0] if found else None


def json_of(text: str) -> Any:
    """The JSON of a file's text. Raises `Refusal`: no JSON, a key twice, too deep, a character that cannot be stored."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for one in [*(name for name, _ in pairs), *(value for _, value in pairs if isinstance(value, str))]:
            if bad := bad_character(one):
                at = max(text.lower().find(f"\\u{ord(bad):04x}"), 0)
                raise refusal("bad_character", text.count("\n", 0, at) + 1, what=f"U+{ord(bad):04X}")
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            raise refusal("twice", key=next(name for name in names if names.count(name) > 1)[:80])
        return result

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise refusal("bad_json", error.lineno, why=error.msg) from None
    except (RecursionError, ValueError):  # too deep, or a number of too many digits
        raise refusal("bad_json", why="too deep or a number too long") from None


def beside(place: Place, path: Path) -> Any:
    """The JSON of a neighbouring file, read once; None when there is none, or when it will be refused in its own turn."""
    if path not in place.beside:
        try:
            place.beside[path] = json_of(text_of(path)) if path.is_file() else None
        except Refusal:
            place.beside[path] = None
    return place.beside[path]


def _origin(place: Place) -> dict[str, str]:
    """This file's row of the nearest SOURCES.tsv (columns file, repo, licence), up to two folders up; else {}."""
    for folder in place.path.parents[:3]:
        table = folder / "SOURCES.tsv"
        if table not in place.beside:
            try:
                lines = text_of(table).split("\n") if table.is_file() else []
                rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
            except (Refusal, csv.Error):
                rows = []
            place.beside[table] = {row["file"]: row for row in rows if row.get("file")}
        if found := place.beside[table].get(unicodedata.normalize("NFC", place.path.relative_to(folder).as_posix())):
            return {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, str)}
    return {}


def slug_of(*names: str) -> str:
    """From names: their ASCII words, and a short hash of the whole when anything is lost, so that it is stable and unique."""
    words = [word for name in names for word in re.findall(r"[a-z0-9]+", name.lower())]
    slug = "-".join(words)
    if slug and len(slug) <= checking.SLUG_LIMIT and all(name.isascii() for name in names):
        return slug
    return "-".join(
        [*(slug[:70].strip("-").split("-") if slug else []), hashlib.sha256("/".join(names).encode()).hexdigest()[:6]]
    )


def finish(
    place: Place,
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
    """The value, with every code and length checked. Raises `Refusal` that lists all that is wrong in this lesson.

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
    try:
        checking.slug(slug)
    except Invalid as failure:
        errors += failure.errors
    values: dict[str, Any] = {name: languages.clean(text.get(name) or "") for name in lessons.LIMITS}
    values["title"] = re.sub(r"[ \t]*\n[ \t]*", " ", values["title"])
    for name, value in values.items():
        if name in {"title", "body"} and not value and name not in {error.field for error in errors}:
            errors.append(FieldError(name, "required"))
        if len(value) > lessons.LIMITS[name]:
            errors.append(FieldError(name, "out_of_range", {"reason": f"{len(value)} > {lessons.LIMITS[name]}"}))
    if text.get("check_in"):
        try:
            values |= {"check_in": lessons.text_values({"check_in": text["check_in"]})["check_in"]}
        except Invalid as failure:
            errors += [FieldError(e.field.removeprefix("text."), e.code, e.params) for e in failure.errors]
    if errors:
        raise Refusal(*(((lines or {}).get(e.field.partition(".")[0], line), e.field, e.messages) for e in errors))

    warnings = list(warnings)
    whole = "\n".join(values[name] for name in lessons.LIMITS)
    if found := PLACEHOLDER.findall(whole):
        counts = [f"{name} ×{found.count(name)}" for name in dict.fromkeys(found)]
        warnings.append(warn("placeholders", what=", ".join(counts[:8]) + (" …" if len(counts) > 8 else "")))
    if RISK.search(whole):
        warnings.append(warn("risk_off" if "help" in stated and not stated["help"] else "risk"))
    if away := re.findall(r"\]\((?!https?:|mailto:|tel:|media:|#)[^)\s]+", whole):
        warnings.append(warn("links", count=len(away), first=away[0][2:][:60]))
    if not licence and "audiences" not in stated:  # not in our own form, so not our own work
        warnings.append(warn("no_licence"))
    sources = stated.get("sources", []) + ([{"title": origin["repo"]}] if origin.get("repo") else [])
    meta = facts | {
        "sources": sources,
        "help": stated.get("help", bool(RISK.search(whole))),
        "reviewed_by": stated.get("reviewed_by"),
        "review_due": stated.get("review_due"),
        "made_from": stated.get("made_from"),
        "licence": licence,
    }
    values |= {"minutes": text.get("minutes")} | {k: v for k, v in text.items() if k == "needs_translator"}
    return Read(place.source, line, slug, language, meta, values, tuple(warnings), assumed)

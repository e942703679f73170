"""Data lists of open-app-builder (JSON): `*_articles` are one lesson a file; of other lists, each row that has a title and text.

Theirs is English. A table `strings.<country>_<language>.json` beside it, or a further language in the rows, gives a second text
when every string of the lesson is translated.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from content import languages
from content.failures import Invalid
from content.languages import SPACES
from content.lessonfiles import Outcome, Place, Read, beside, finish, json_of, name_of, refusal, skipped, slug_of, text_of, warn

# Assumed where a list does not say; all of it lands as a draft.
ARTICLE = {"audiences": ["parent"], "kind": "micro_lesson"}
ROW = {"audiences": ["parent"], "kind": "tip"}
LEGAL = {"about_this_app", "privacy_policy", "terms_and_conditions"}

# The order in which a reader meets a row's texts; the sheets have their columns in any order.
ORDER = [
    r"title", r"text_1\w*", r"intro_text|text", r"text_\d+\w*", r"media_title", r"media_transcript", r"transcript(?:_1)?",
    r"character_\d+_text", r"section_\d+_(?:title|text|button_text|extra_text)",
    r"quiz_\d+_(?:question|option_\d+_text|feedback_\d+(?:_id)?)", r"steps_text", r"tips_text",
]  # fmt: skip
PARTS = ["title", "question", "text", "feedback", "button", "extra"]
MEDIA = re.compile(r"(?!.*icon).*(?:_asset|_doc)|youtube_\w+")


def data_list(place: Place, stem: str) -> Iterator[Outcome]:
    """Every lesson of one such file. Raises `Refusal`."""
    text = text_of(place.path)
    data = json_of(text)
    if stem.startswith("strings."):
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise refusal("strings")
        yield skipped(place.source, "string_table")
        return
    if not isinstance(data, dict) or data.get("flow_type") != "data_list":
        yield skipped(place.source, "no_data_list")
        return
    rows, flow, folder = data.get("rows"), str(data.get("flow_name") or stem), name_of(place.path.parent)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise refusal("rows", field="rows")
    said = [warn("unreleased", status=str(data["status"])[:40])] if data.get("status", "released") != "released" else []
    if flow in LEGAL or data.get("flow_subtype") == "legal_terms":
        yield skipped(place.source, "legal")
    elif flow == "modules":
        yield skipped(place.source, "titles")
    elif flow.endswith("_articles"):
        name = flow.removesuffix("_articles")
        title = _module_title(place, str(data.get("module") or name))
        said += [] if title else [warn("no_title")]
        yield from _told(place, 1, slug_of(folder, name), title or name.replace("_", " "), rows, ARTICLE, said)
    else:
        lesson = [bool(_english(row, "title")) and bool(_texts(row).keys() - {"title"}) for row in rows]
        if not any(lesson):
            yield skipped(place.source, "no_row", count=len(rows))
            return
        for number, row in enumerate(rows):
            key = str(row.get("id") or number + 1)
            if not lesson[number]:
                yield skipped(place.source, "row_bare", row=key[:80])
                continue
            found = re.search(r'"id"\s*:\s*' + re.escape(json.dumps(key, ensure_ascii=False)), text)
            line = text.count("\n", 0, found.start()) + 1 if found else 1
            slug = slug_of(folder, *([] if key.startswith(flow) else [flow]), key)
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


def _module_title(place: Place, module: str) -> str:
    data = beside(place, place.path.with_name("modules.json"))
    rows = data.get("rows") if isinstance(data, dict) else None
    found = (row for row in rows if isinstance(row, dict) and row.get("id") == module) if isinstance(rows, list) else ()
    return next((_english(row, "title") for row in found), "")


def _told(
    place: Place,
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
                said.append(warn("misplaced", field=f"{row.get('id')}.{name}"))
        said += [warn("other_language", field=f"{row.get('id')}.{n}") for n in row if re.fullmatch(r"transcript_[2-9]", n)]
    if media := sum(1 for row in rows for name, value in row.items() if MEDIA.fullmatch(name) and value):
        said.append(warn("media", count=media))

    tables: dict[str, dict[str, str]] = {}
    for path in sorted(place.path.parent.glob("strings.*.json")):
        table, code = beside(place, path), _app_language(path.name.split(".")[1])
        if code and isinstance(table, dict):
            tables.setdefault(code, {}).update(table)
        else:
            said.append(warn("bad_table", name=path.name))
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
            said.append(warn("partial", language=code, count=len(missing), first=missing[0][:40]))
        else:
            others.append(finish(place, line, slug, code, {"made_from": "en"}, text, guess, said))
    yield finish(place, line, slug, "en", {}, {"title": title, "body": _body(rows, str)}, guess, said)
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

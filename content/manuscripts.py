"""Lesson files in Markdown: our own with YAML front matter, other people's, and African Storybook stories."""

import re
from datetime import date
from typing import Any

import yaml

from content import checking, languages, lessons
from content.failures import FieldError, Invalid, Text, invalid
from content.languages import SPACES
from content.lessonfiles import LISTS, Place, Read, bad_character, finish, name_of, refusal, slug_of, text_of, warn

FRONT_LIMIT = 64 * 1024  # characters of front matter
FRONT_EXPANDED = 256 * 1024  # the same with every alias written out: what stops a "billion laughs"
SOURCES_LIMIT = 50
SHORT = 300  # characters of a source's title, a licence, a reviewer

KEYS = set(LISTS) | {"slug", "language", "kind", "title", "summary", "try_this", "minutes", "sources", "help"}
KEYS |= {"reviewed_by", "review_due", "made_from", "licence", "check_in", "needs_translator"}
ALIASES = {"description": "summary", "lang": "language", "license": "licence", "estimated_read_time": "minutes"}

# Assumed where a file does not say; all of it lands as a draft. Text of unknown origin is for staff until an editor has read it.
MARKDOWN = {"audiences": ["staff"], "kind": "ebook"}
STORY = {"audiences": ["student"], "stages": ["preschool", "primary"], "kind": "story"}
CREDIT = re.compile(r"^\* (\w+):[ \t]*(.*)$")


def markdown(place: Place, stem: str, warnings: list[str]) -> Read:
    """A Markdown file: a story when it has Storybook credits and no front matter, else a lesson. Raises `Refusal`."""
    text = text_of(place.path)
    values, lines, body, line, said = _front_matter(text)
    folder = name_of(place.path.parent)
    # by our convention a name is slug.language.md
    named, _, suffix = stem.rpartition(".")
    tail = _guess_language(suffix) if checking.SLUG.fullmatch(named) else None
    if not lines and re.search(r"^\* License:", text, re.MULTILINE):
        return _story(place, stem, text, warnings + said)
    values, lines, foreign, said_too = _known(values, lines)
    stated, written, errors, said_last = _stated(values, foreign)
    warnings = [*warnings, *said, *said_too, *said_last]

    language = stated.pop("language", None) or tail or place.defaults.get("language") or _guess_language(folder)
    if language is None and "language" not in values:
        raise refusal("no_language", 1, "language")
    if language and stated.get("made_from") == language:
        raise refusal("same_language", lines["made_from"], "made_from")
    heads = _headings(body)
    if heads and written.get("title", heads[0][1]) == heads[0][1]:  # the title is shown above the body: not twice
        written["title"] = heads[0][1]
        rows = body.split("\n")
        body = "\n".join(rows[: heads[0][0]] + rows[heads[0][0] + 1 :])
    if len(heads) > 1:
        warnings.append(warn("headings", count=len(heads)))
    slug = values.get("slug") or (named if tail else slug_of(folder, stem))
    slug = slug if isinstance(slug, str) else ""
    return finish(
        place, line if not lines else 1, slug, language or "", stated, written | {"body": body}, MARKDOWN, warnings,
        {"body": line, **lines}, errors,
    )  # fmt: skip


def _front_matter(text: str) -> tuple[dict[str, Any], dict[str, int], str, int, list[str]]:
    """(values, line of each key, body, the body's first line, warnings); without front matter the values are empty.

    Every scalar stays the text it was written as, so that `no`, `010101` and `2027-09-01` mean what an editor sees. Foreign
    files close it with any number of dashes; that is harmless and accepted. Raises `Refusal`.
    """
    rows = text.split("\n")
    start = next((i for i, row in enumerate(rows) if row.strip(SPACES)), 0)
    dashes = re.compile(r"-{3,}[ \t]*")
    if not dashes.fullmatch(rows[start]):
        return {}, {}, text, 1, []
    end = next((i for i in range(start + 1, len(rows)) if dashes.fullmatch(rows[i]) or rows[i].rstrip(SPACES) == "..."), None)
    if end is None:
        raise refusal("front_open", start + 1, "front_matter")
    warnings = [warn("front_end", line=rows[end].rstrip(SPACES)[:20])] if rows[end].rstrip(SPACES) != "---" else []
    front = "\n".join(rows[start + 1 : end]) + "\n"
    if len(front) > FRONT_LIMIT:
        raise refusal("front_large", start + 1, "front_matter", limit=FRONT_LIMIT)
    try:
        node = yaml.compose(front, Loader=yaml.SafeLoader)  # the graph only: nothing is constructed
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if error.context_mark and (mark is None or mark.line >= front.count("\n")):  # noticed at the end only: where it began
            mark = error.context_mark
        raise refusal(
            "front_yaml", start + 2 + (mark.line if mark else 0), "front_matter", why=error.problem or error.context
        ) from None
    except yaml.reader.ReaderError as error:
        raise refusal("front_yaml", start + 2 + front.count("\n", 0, error.position), "front_matter", why=error.reason) from None
    except RecursionError:
        raise refusal("front_yaml", start + 1, "front_matter", why="too deep") from None
    body = "\n".join(rows[end + 1 :])
    if node is None:
        return {}, {}, body, end + 2, warnings
    if not isinstance(node, yaml.MappingNode):
        raise refusal("front_shape", start + 2, "front_matter")
    spent = 0

    def plain(node: yaml.Node, depth: int = 0) -> Any:
        nonlocal spent
        spent += 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        if spent > FRONT_EXPANDED or depth > 20:
            raise refusal("front_large", start + 2 + node.start_mark.line, "front_matter", limit=FRONT_EXPANDED)
        if isinstance(node, yaml.SequenceNode):
            return [plain(item, depth + 1) for item in node.value]
        if not isinstance(node, yaml.MappingNode):
            if bad := bad_character(node.value):
                raise refusal("bad_character", start + 2 + node.start_mark.line, "front_matter", what=f"U+{ord(bad):04X}")
            return None if node.tag == "tag:yaml.org,2002:null" else str(node.value)
        result: dict[str, Any] = {}
        for key, value in node.value:
            name = plain(key, depth + 1)
            if not isinstance(name, str):
                raise refusal("front_shape", start + 2 + key.start_mark.line, "front_matter")
            if name in result:
                raise refusal("twice", start + 2 + key.start_mark.line, name[:80], key=name[:80])
            result[name] = plain(value, depth + 1)
        return result

    lines = {key.value: start + 2 + key.start_mark.line for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
    return plain(node), lines, body, end + 2, warnings


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
    return result, where, foreign, [warn("unknown_keys", keys=", ".join(out)[:400])] if out else []


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
            elif name == "check_in":
                if not isinstance(value, dict) or set(value) - set(lessons.CHECK_IN):
                    raise invalid(name, "wrong_type", reason=f"{{{', '.join(lessons.CHECK_IN)}}}")
                if not all(isinstance(one, str) for one in value.values()):
                    raise invalid(name, "wrong_type", reason=Text("请填文字", "write a text"))
                text[name] = value
            elif not isinstance(value, str):
                raise invalid(name, "wrong_type", reason=Text("请填文字", "write a text"))
            elif name in {"language", "made_from"}:
                stated[name] = languages.edition(value, name)
            elif name in {"help", "needs_translator"}:
                if value.lower() not in {"true", "false", "yes", "no"}:
                    raise invalid(name, "not_one_of", choices="true, false")
                (stated if name == "help" else text)[name] = value.lower() in {"true", "yes"}
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
                warnings.append(warn("cut", count=len(value)))
            elif name in lessons.LIMITS:
                text[name] = languages.clean(value)
            elif name != "slug":
                if len(value) > SHORT:
                    raise invalid(name, "out_of_range", reason=f"≤ {SHORT}")
                stated[name] = languages.clean(value)
        except Invalid as failure:
            if name in foreign and name != "language":
                warnings.append(warn("ignored", field=name, value=str(value)[:60]))
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


def _story(place: Place, stem: str, text: str, warnings: list[str]) -> Read:
    """An African Storybook story: `# title`, pages parted by `##`, credits as the last page's list.

    All languages of a story share the slug asp-<number>. The work's makers go into the sources; the translator, who made this
    text, is named under it. Raises `Refusal`.
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
        warnings += [warn("cut", count=len(note))] if len(note) > lessons.LIMITS["summary"] else []
    errors: list[FieldError] = []
    language = place.defaults.get("language") or _guess_language(name_of(place.path.parent)) or ""
    if "language" in said:
        try:
            language = languages.tag(said["language"])
        except Invalid as failure:
            errors += failure.errors
    elif not language:
        raise refusal("no_language", 1, "language")
    number = re.match(r"\d+", stem)
    slug = f"asp-{number[0]}" if number else slug_of("asp", stem)
    return finish(place, 1, slug, language, stated, written, STORY, warnings, errors=errors)


def _guess_language(folder: str) -> str | None:
    """From a folder's name ("zh", "peace-lab-zh"), only the languages that we know: many words look like a tag."""
    for part in (folder, folder.rpartition("-")[2]):
        try:
            found = languages.edition(part)
            if languages.parts(found)[0] in languages.NAMES:
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

"""The text of a lesson: Markdown to sanitised HTML and to plain text, what it shows and where it leads.

CommonMark with tables and strikethrough; raw HTML in the source is shown as text. `media:<sha256>` addresses a file of ours,
`lesson:slug` a lesson.
"""

import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from content import inspection, languages

MEDIA = re.compile(r"\bmedia:([0-9a-f]{64})\b")
LINK = re.compile(r"(?:\blesson:|/v1/lessons/)([a-z0-9]+(?:-[a-z0-9]+)*)")
CHINESE_PER_MINUTE, WORDS_PER_MINUTE = 350, 200  # silent reading speeds, rounded down for tired parents

_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
TAGS = {
    "video", "audio", "source", "track",
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "strong", "em", "s", "code", "pre", "a", "img",
    "br", "hr", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "title"}, "img": {"src", "srcset", "sizes", "alt", "title", "loading"}, "ol": {"start"}, "th": {"align"},
    "td": {"align"}, "video": {"controls", "preload", "poster", "title"}, "audio": {"controls", "preload", "title"},
    "source": {"src", "type"}, "track": {"kind", "srclang", "src", "default"},
}  # fmt: skip


def _media_html(renderer: Any, tokens: list[Token], at: int, options: Any, env: Any) -> str:
    """What `![words](media:HASH)` becomes, by the file's type: a picture in the width that fits, a player that fetches nothing
    until it is pressed and the smallest version first, or a link. A picture from elsewhere becomes a link too: it would tell
    that place who reads, and would not be there offline."""
    src, words = str(tokens[at].attrs.get("src", "")), renderer.renderInlineAsText(tokens[at].children, options, env)
    alt = html.escape(words, quote=True)
    found = MEDIA.fullmatch(src)
    if not found:
        return f'<a href="{html.escape(src, quote=True)}">{alt or html.escape(src)}</a>'
    file = f"/v1/media/{found[1]}/file"
    kind = env["files"].get(found[1], "image/")
    if kind.startswith("image/"):
        wide = ", ".join(f"{file}?width={width} {width}w" for width in inspection.WIDTHS)
        return f'<img src="{file}?width=960" srcset="{wide}" sizes="(max-width: 40rem) 100vw, 40rem" alt="{alt}" loading="lazy">'
    if kind.startswith("video/"):
        language = env["language"]
        return (
            f'<video controls preload="none" poster="{file}?rendition=poster" title="{alt}">'
            f'<source src="{file}?rendition=small" type="video/mp4"><source src="{file}" type="{kind}">'
            f'<track kind="captions" srclang="{language}" src="{file}?captions={language}" default></video>'
        )
    if kind.startswith("audio/"):
        small = f'<source src="{file}?rendition=small" type="audio/mp4">'
        return f'<audio controls preload="none" title="{alt}">{small}<source src="{file}" type="{kind}"></audio>'
    return f'<a href="{file}">{alt or "PDF"}</a>'


_markdown.add_render_rule("image", _media_html)


def _all(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or [])


def foreign_pictures(body: str) -> list[str]:
    """Addresses of pictures in a Markdown text that are not media of ours."""
    pictures = (str(t.attrs.get("src", "")) for t in _all(_markdown.parse(body)) if t.type == "image")
    return [src for src in pictures if not MEDIA.fullmatch(src)]


def render(body: str, files: Mapping[str, str] = MappingProxyType({}), language: str = "zh-Hans") -> dict[str, str]:
    """Markdown to {"html", "plain"}. Raw HTML in the source is shown as text; the result is sanitised all the same. `files` is
    hash → content type of the media it shows, `language` the one whose captions a film gets."""
    tokens = _markdown.parse(body)
    for token in _all(tokens):
        value = token.attrs.get("href")
        if isinstance(value, str) and (found := MEDIA.fullmatch(value)):
            token.attrs["href"] = f"/v1/media/{found[1]}/file"
        elif isinstance(value, str) and value.startswith("lesson:") and (found := LINK.fullmatch(value)):
            token.attrs["href"] = f"/v1/lessons/{found[1]}"
    rendered = nh3.clean(
        _markdown.renderer.render(tokens, _markdown.options, {"files": files, "language": language}),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto", "tel"},
        link_rel="noopener noreferrer",
    )
    plain = html.unescape(nh3.clean(rendered, tags=set()))
    return {"html": rendered, "plain": re.sub(r"\n{3,}", "\n\n", plain).strip(languages.SPACES)}


def reading_minutes(body: str) -> int:
    """Minutes of silent reading, at least 1."""
    chinese = len(re.findall(r"[\u3400-\u9fff]", body))
    words = len(re.findall(r"[^\W\d_]+", re.sub(r"[\u3400-\u9fff]", " ", body)))
    return max(1, math.ceil(chinese / CHINESE_PER_MINUTE + words / WORDS_PER_MINUTE))

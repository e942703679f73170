"""A draft as readers would see it, for whoever has the address: JSON, or a page that a colleague opens on a phone.

The page stands alone: no script, no frame, no form, nothing from elsewhere but pictures of ours; everything that is not
sanitised HTML is escaped. It is kept by nobody and not to be indexed. The address leaves no line in the log.
"""

import base64
import hashlib
from html import escape
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response, jsonify, make_response, request
from marshmallow import validate

from api import lessons, paths
from api.desk import KINDS
from api.errors import Messages
from api.guard import Blueprint
from api.shapes import settings
from content import languages, reviewing
from content.failures import NotFound
from content.publishing import STATES, Stand

blp = Blueprint("previews", __name__, url_prefix="/v1", description="Drafts shown to whoever has the address")
QUIET = {"Cache-Control": "no-store", "X-Robots-Tag": "noindex, nofollow", "Vary": "Accept"}

STYLE = """
:root{color-scheme:light dark;--ink:#1d2a2a;--paper:#fffdf8;--soft:#eef3ef;--line:#c9d6cf;--mark:#8a4b00}
@media(prefers-color-scheme:dark){:root{--ink:#e7ecea;--paper:#151a1a;--soft:#222b2a;--line:#3a4746;--mark:#f0b060}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;color:var(--ink);background:var(--paper);overflow-wrap:anywhere;
font:1.06rem/1.75 "Noto Sans SC","Noto Sans CJK SC","PingFang SC","Microsoft YaHei",system-ui,sans-serif}
.mark{padding:.5rem 1rem;background:var(--soft);border-bottom:3px solid var(--mark);font-size:.85rem;line-height:1.5}
.mark b{color:var(--mark)}
article{max-width:40rem;margin:0 auto;padding:.4rem 1rem 3rem}
h1{font-size:1.5rem;line-height:1.35;margin:.6rem 0}
h2{font-size:1.2rem;line-height:1.4;margin:1.6em 0 .4em}
h3,h4,h5,h6{font-size:1.05rem;margin:1.4em 0 .3em}
.summary{font-size:1.1rem;opacity:.85}
.box{background:var(--soft);border:1px solid var(--line);border-radius:.6rem;padding:.7rem 1rem;margin:1.4rem 0}
.box h2{margin:0 0 .3rem;font-size:1rem}
.box p{margin:.3rem 0}
dl{margin:.4rem 0 0}dt{font-weight:600}dd{margin:0 0 .5rem}
img,video,audio{max-width:100%;height:auto;border-radius:.4rem}
blockquote{margin:1em 0;padding-inline-start:.9rem;border-inline-start:3px solid var(--line)}
pre{overflow:auto;padding:.7rem;background:var(--soft)}
table{border-collapse:collapse;display:block;max-width:100%;overflow-x:auto}
th,td{border:1px solid var(--line);padding:.3rem .6rem;text-align:start}
.sources{font-size:.9rem;opacity:.85}
a{color:inherit}
.ttb{writing-mode:vertical-lr;text-orientation:mixed;height:calc(100vh - 7rem);height:calc(100svh - 7rem);min-height:20rem;
width:100%;max-width:100%;margin:0;padding:1rem .4rem 1rem 1rem;overflow-x:auto;overflow-y:hidden;overflow-wrap:normal;
font-family:"Noto Sans Mongolian","Mongolian Baiti","Menk Qagan Tig",serif;line-height:1.9}
.ttb img{max-width:70vw;max-height:100%;width:auto}
.ttb .box{padding:1rem .7rem;margin:0 1.4rem}
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
WORDS = {
    # what the page says itself, in the language of the text where we have it
    "zh-Hans": {"try": "今天试一试", "next": "第二天会问", "did": "做到了", "partly": "做到一点", "not_yet": "还没有",
                "sources": "来源", "steps": "步骤"},
    "en": {"try": "One small thing to try", "next": "Asked the next day", "did": "Did it", "partly": "Partly",
           "not_yet": "Not yet", "sources": "Sources", "steps": "Steps"},
}  # fmt: skip
STATE_WORDS = {
    "draft": "草稿 draft", "in_review": "审核中 in review", "approved": "已批准 approved",
    "published": "与已发布的相同 as published", "withdrawn": "已撤回 withdrawn",
}  # fmt: skip


class About(ma.Schema):
    """What keeps a preview from being taken for the thing."""

    messages = ma.fields.Nested(Messages)
    state = ma.fields.String(validate=validate.OneOf(STATES), metadata={"description": "of the working copy"})
    edition = ma.fields.String()
    expires_at = ma.fields.String()
    expires_at_local = ma.fields.String(metadata={"description": "in the district's zone"})


class LessonDraft(lessons.Detail):
    """A lesson's working copy as readers would see it."""

    preview = ma.fields.Nested(About)

    class Meta:
        exclude = ("version", "published_at", "expires_at", "fallback", "languages", "voices", "behind_source")


class PathDraft(paths.Brief):
    """A path's working copy."""

    steps = ma.fields.List(ma.fields.Nested(paths.StepIn))
    preview = ma.fields.Nested(About)

    class Meta:
        exclude = ("version", "published_at", "length", "fallback", "languages")


WHOLE = {"oneOf": [LessonDraft, PathDraft]}


@blp.get("/previews/<string:token>")
@blp.alt_response(200, schema=WHOLE, description="The draft as readers would see it; a page for Accept: text/html")
def show(token: str) -> Response:
    """A draft as readers would see it

    For whoever has the address. 404 when it has ended, was revoked, or its maker may not show it any more.
    """
    page = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    try:
        found, record = reviewing.opened(token, KINDS, settings().division)
    except NotFound:
        if not page:
            raise
        return _page("zh-Hans", "ltr", "链接已失效", _ended(), 404)
    stand = record.stands[found.language]
    content = record.public(record.content_of(found.language), Stand(number=stand.number))
    written = languages.written(languages.parts(found.language)[0])
    local = found.expires_at.astimezone(ZoneInfo(settings().zone))
    marker = {
        "zh-Hans": "预览稿：供同事查看，尚未发布，请勿转发。",
        "en": "Preview: a draft for colleagues, not published. Do not pass it on.",
    }
    if page:
        until = f"有效至 until {local:%Y-%m-%d %H:%M}"
        mark = f"<b>{marker['zh-Hans']}</b><br>{marker['en']}<br>{STATE_WORDS[stand.state]} · {until}"
        return _page(
            written["language"], written["direction"], content["title"], _article(content, written["language"]), 200, mark
        )
    about = {"messages": marker, "state": stand.state, "edition": found.language, "expires_at": found.expires_at.isoformat()}
    response = jsonify({**content, **written, "preview": {**about, "expires_at_local": local.isoformat(timespec="seconds")}})
    response.headers.update(QUIET)
    return response


def _ended() -> str:
    return (
        "<h1>链接已失效</h1><p>这份预览已到期或被收回。请向发给您的同事要一个新的。</p>"
        '<p lang="en">This preview has ended or was taken back. Ask the colleague who sent it for a new one.</p>'
    )


def _article(content: dict[str, Any], language: str) -> str:
    """The text's HTML. `content["html"]` is sanitised already (`markdown.render`); all else is escaped here."""
    say = WORDS.get(language, WORDS["zh-Hans"])
    ours = "" if language in WORDS else ' lang="zh-Hans"'
    parts = [f"<h1>{escape(content['title'])}</h1>"]
    if content.get("summary"):
        parts.append(f'<p class="summary">{escape(content["summary"])}</p>')
    parts.append(content.get("html") or "")
    if steps := content.get("steps"):
        unit = (content.get("pace") or {}).get("unit", "")
        rows = "".join(f"<li>{escape(step['lesson'])} ({step['at']:+d} {escape(unit)})</li>" for step in steps)
        parts.append(f"<h2{ours}>{say['steps']}</h2><ol>{rows}</ol>")
    if content.get("try_this"):
        parts.append(f'<section class="box"><h2{ours}>{say["try"]}</h2><p>{escape(content["try_this"])}</p></section>')
    if asked := content.get("check_in"):
        rows = "".join(
            f"<dt{ours}>{say[n]}</dt><dd>{escape(asked[n])}</dd>" for n in ("did", "partly", "not_yet") if asked.get(n)
        )
        question = escape(asked.get("question", ""))
        parts.append(f'<section class="box"><h2{ours}>{say["next"]}</h2><p>{question}</p><dl>{rows}</dl></section>')
    if sources := content.get("sources"):
        rows = "".join(f"<li>{_source(row)}</li>" for row in sources)
        parts.append(f'<section class="sources"><h2{ours}>{say["sources"]}</h2><ul>{rows}</ul></section>')
    return "".join(parts)


def _source(row: dict[str, Any]) -> str:
    title, url = escape(row.get("title", "")), row.get("url") or ""
    if urlsplit(url).scheme not in {"http", "https"}:
        return title
    return f'<a href="{escape(url)}" rel="noopener noreferrer">{title}</a>'


def _page(language: str, direction: str, title: str, body: str, status: int, mark: str = "") -> Response:
    """One whole page; vertical for scripts that are."""
    way = "rtl" if direction == "rtl" else "ltr"
    kind = ' class="ttb"' if direction == "ttb" else ""
    head = f'<header class="mark" lang="zh-Hans" dir="ltr">{mark}</header>' if mark else ""
    html = (
        f'<!doctype html><html lang="{escape(language)}" dir="{way}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex,nofollow">'
        f"<title>{escape(title)} · 预览 preview</title><style>{STYLE}</style></head>"
        f'<body>{head}<main><article{kind} tabindex="0">{body}</article></main></body></html>'
    )
    response = make_response(html, status)
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    response.headers.update(QUIET)
    # pictures are sent on to where media lie, and the rule is asked of that address too
    places = {urlsplit(url) for url in (settings().s3_public_url, settings().s3_endpoint_url) if url}
    hosts = " ".join(sorted({"'self'", *(f"{place.scheme}://{place.netloc}" for place in places)}))
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src {hosts}; media-src {hosts}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return response

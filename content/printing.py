"""What goes on paper: one A4 page as a PDF, in Chinese, with the font's needed part inside, so that it prints alike anywhere.

Set in Noto Sans SC, which has all characters of the Unified Ideographs and of Extension A (27,500: names on certificates),
Latin and Cyrillic, and no traditional Mongolian, Tibetan, Korean or Arabic: what it lacks is printed as 〓, the printers' mark
for a missing sort, and `missing` tells beforehand. A page takes about 0.4 s of a core and 15-40 KB. The same arguments give
the same bytes.
"""

import functools
import hashlib
import io
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import pylopdf_fonts_zh_cn
import segno

if TYPE_CHECKING:
    from fpdf import FPDF

WIDTH, HEIGHT, MARGIN = 210.0, 297.0, 20.0  # mm, A4 upright
POINT = 25.4 / 72  # mm
LEADING = 1.45  # line height ÷ size
SMALLEST = 0.4  # of the sizes asked for; what does not fit even then is cut off with “…”
QUIET = 4  # modules of white around a QR code (ISO/IEC 18004)
INK, GREY, MARK, WARN = (24, 40, 40), (90, 102, 102), (35, 95, 91), (138, 47, 0)
# a line may not begin with the first, nor end with the second (GB/T 15834, CLREQ 3.1.4)
NO_START = set("，。、；：？！）》」』】〕〉”’…—·％‰℃°,.;:?!)]}")
NO_END = set("（《「『【〔〈“‘([{￥$")
WORD = re.compile(r"\s+|[^\s⺀-鿿가-힯豈-﫿︰-﹏！-｠]+|.", re.S)  # blanks, one word in letters, or one ideograph
logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells each table of each font that it cuts


class Line(NamedTuple):
    """One paragraph; it wraps. Sizes are points, gaps mm."""

    text: str
    size: float = 14
    bold: bool = False
    colour: tuple[int, int, int] = INK
    gap: float = 3
    """Above it."""
    centred: bool = False


def pdf(
    lines: Sequence[Line],
    *,
    title: str,
    at: datetime,
    qr: str = "",
    under_qr: Sequence[str] = (),
    footer: Sequence[str] = (),
    frame: bool = False,
    landscape: bool = False,
    language: str = "zh-Hans",
) -> bytes:
    """One A4 page: `lines` from the top, the QR code of the text `qr` ("" for none) with `under_qr` beside it, and `footer` at
    the bottom. All that stands above the QR code is made smaller together until it fits. `title` is the document's name in its
    properties, `at` its date there (aware). `frame` draws a border, for certificates."""
    said = repr((lines, title, at, qr, under_qr, footer, frame, landscape, language))
    made = _blank(landscape, hashlib.sha256(said.encode()).hexdigest()[:32])
    made.set_title(printable(title))
    made.set_lang(language)
    made.set_creation_date(at)
    made.set_producer("")
    width, height = (HEIGHT, WIDTH) if landscape else (WIDTH, HEIGHT)
    inner = width - 2 * MARGIN
    if frame:
        for inset, thick in ((9, 0.9), (11, 0.25)):
            made.set_draw_color(*MARK)
            made.set_line_width(thick)
            made.rect(inset, inset, width - 2 * inset, height - 2 * inset)
    foot = [Line(text, 9, colour=GREY, gap=0.5, centred=frame) for text in footer]
    bottom = height - MARGIN - _height(made, foot, inner, 1)
    _draw(made, foot, MARGIN, bottom, inner, 1)
    if qr:
        side = 46.0 if not landscape else 36.0
        beside = [Line(text, 16 if not n else 12, bold=not n, gap=1.5) for n, text in enumerate(under_qr)]
        bottom -= side + 6
        _qr(made, qr, MARGIN, bottom, side)
        top = bottom + max(2.0, (side - _height(made, beside, inner - side - 6, 1)) / 2)
        _draw(made, beside, MARGIN + side + 6, top, inner - side - 6, 1)
    scale = 1.0
    room = bottom - MARGIN - 4
    while (needed := _height(made, lines, inner, scale)) > room and scale > SMALLEST:
        scale = max(SMALLEST, scale * 0.93)
    top = MARGIN + (max(0.0, (room - needed) * 0.4) if frame else 0.0)
    _draw(made, lines, MARGIN, top, inner, scale, bottom)
    return bytes(made.output())


def missing(text: str) -> set[str]:
    """The characters of a text that the font has not: a name with one of these should be written by hand."""
    return {one for one in _cleaned(text) if ord(one) not in _characters()}


def printable(text: str) -> str:
    """The text as it is printed: 〓 for what the font has not, without pictographs and invisible characters."""
    known = _characters()
    return "".join(one if ord(one) in known else "〓" for one in _cleaned(text))


def _cleaned(text: str) -> str:
    """NFC on one line; no direction marks, joiners, variation selectors or pictographs, which say nothing on paper."""
    kept = (
        one
        for one in unicodedata.normalize("NFC", " ".join(text.split()))
        if unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Mn"} and not 0x1F000 <= ord(one) < 0x20000
    )
    return "".join(kept)


@functools.cache
def _characters() -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(pylopdf_fonts_zh_cn.sans_path(), lazy=True) as font:
        return frozenset(font.getBestCmap())


def _blank(landscape: bool, name: str) -> "FPDF":
    """An empty page with the font in it; `name` is the file's identifier, 32 hex digits."""
    from fpdf import FPDF  # 0.7 s of import, paid by whoever prints and by no start

    class Sheet(FPDF):
        def file_id(self) -> str:
            """From what stands in it, where the library would take the time of day."""
            return f"<{name}><{name}>"

    made = Sheet("landscape" if landscape else "portrait", "mm", "A4")
    made.set_margin(0)
    made.c_margin = 0
    made.set_auto_page_break(False)
    made.add_page()
    made.add_font("sans", "", pylopdf_fonts_zh_cn.sans_path())
    made.set_font("sans", size=14)
    made.set_text_shaping(True)
    return made


def _wrap(text: str, width: float, measure: Callable[[str], float]) -> Iterator[str]:
    """The lines of a paragraph. Ideographs break anywhere but before closing and after opening marks; words in letters whole,
    where they are not wider than the line."""
    line: list[str] = []
    for token in _tokens(printable(text), width, measure):
        if line and not token.isspace() and sum(map(measure, line)) + measure(token) > width:
            carried = [token]
            # a mark that may not begin a line takes what is before it along, an opening one goes along with what follows
            while len(line) > 1 and (carried[0][0] in NO_START or line[-1] in NO_END) and len(carried) < 5:
                carried.insert(0, line.pop())
            yield "".join(line).strip()
            line = carried
        else:
            line.append(token)
    yield "".join(line).strip()


def _tokens(text: str, width: float, measure: Callable[[str], float]) -> Iterator[str]:
    """Words and single ideographs; a word wider than the line letter by letter."""
    for token in WORD.findall(text):
        if len(token) > 1 and measure(token) > width:
            yield from token
        else:
            yield token


def _laid(made: "FPDF", line: Line, width: float, scale: float) -> list[str]:
    made.set_font_size(line.size * scale)
    return list(_wrap(line.text, width, functools.cache(made.get_string_width)))  # shaping each word once


def _height(made: "FPDF", lines: Sequence[Line], width: float, scale: float) -> float:
    """mm that the lines take."""
    rows = ((line, len(_laid(made, line, width, scale))) for line in lines)
    return sum(line.gap * scale + count * line.size * scale * POINT * LEADING for line, count in rows)


def _draw(
    made: "FPDF", lines: Sequence[Line], left: float, top: float, width: float, scale: float, bottom: float = HEIGHT
) -> None:
    """Set the lines from `top` (mm) on; what would stand below `bottom` is left out."""
    for line in lines:
        top += line.gap * scale
        step = line.size * scale * POINT * LEADING
        made.set_text_color(*line.colour)
        # the package has one weight: a thin outline in the same colour makes the bold one
        made.set_draw_color(*line.colour)
        for row in _laid(made, line, width, scale):
            if top + step > bottom:
                return
            with made.local_context(
                text_mode="FILL_STROKE" if line.bold else "FILL", line_width=line.size * scale * POINT * 0.022
            ):
                made.set_xy(left, top)
                made.cell(width, step, row, align="C" if line.centred else "L")
            top += step


def _qr(made: "FPDF", text: str, left: float, top: float, side: float) -> None:
    """A QR code of level M as rectangles, its quiet zone within `side` mm."""
    rows = segno.make_qr(text, error="m").matrix
    step = side / (len(rows) + 2 * QUIET)
    made.set_fill_color(255, 255, 255)
    made.rect(left, top, side, side, style="F")
    made.set_fill_color(0, 0, 0)
    for y, row in enumerate(rows):
        for run in re.finditer(b"\x01+", bytes(row)):  # one rectangle for a run: no hairlines between modules
            x, length = left + (QUIET + run.start()) * step, len(run[0]) * step
            made.rect(x, top + (QUIET + y) * step, length, step * 1.01, style="F")


def leaf(head: str, number: str, foot: str, off: bool = False) -> bytes:
    """A PNG of 300 × 300: the leaf of a tear-off calendar with month, day and time; `off` in the colour of what is cancelled."""
    from PIL import Image, ImageDraw, ImageFont

    made = Image.new("RGB", (300, 300), "white")
    draw = ImageDraw.Draw(made)
    draw.rectangle((0, 0, 300, 84), fill=WARN if off else MARK)
    for text, size, y, colour in ((head, 46, 42, (255, 255, 255)), (number, 132, 160, INK), (foot, 40, 264, INK)):
        font = ImageFont.truetype(pylopdf_fonts_zh_cn.sans_path(), size)
        while size > 12 and font.getlength(text) > 280:
            size -= 4
            font = ImageFont.truetype(pylopdf_fonts_zh_cn.sans_path(), size)
        draw.text((150, y), text, colour, font, anchor="mm")
    out = io.BytesIO()
    made.save(out, "PNG", optimize=True)
    return out.getvalue()

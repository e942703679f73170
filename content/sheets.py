"""Tables as staff's spreadsheets save them, CSV and XLSX: read into rows of texts, and written.

A cell becomes the text that a person sees in it: a date 2026-11-03, a time of day 19:00, the number 30.0 "30". Both kinds of file
come from strangers' machines, so all is bounded before it costs anything: bytes unpacked, XML elements, rows, columns; a document
type (entities that grow) ends the reading. XLSX is read by this page with expat, not with openpyxl, which loads all of a workbook
without a bound, tells a formula without a result from an empty cell only by reading twice, and takes the dates of Chinese Excel
(number formats 27-58, which files do not spell out) for numbers. openpyxl writes.

A CSV cell that a spreadsheet would take for a formula is written with an apostrophe before it, which reading takes off again; in
XLSX it is a text by its type, and "quotePrefix" keeps it one when someone edits it.
"""

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from posixpath import join, normpath
from typing import Any, NamedTuple
from xml.parsers import expat

from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.datavalidation import DataValidation

from content import languages
from content.failures import invalid

CSV = "text/csv"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MOST_BYTES = 4 * 1024 * 1024  # a term of 2,000 rows is 0.4 MB
MOST_UNPACKED = 32 * 1024 * 1024  # of what is read of an XLSX; 5,000 rows of 40 columns are 9 MB
MOST_NODES = 700_000  # XML elements, each of which costs 2 µs; 5,000 rows of 40 columns are 400,000 and their texts
MOST_ROWS, MOST_COLUMNS = 5000, 40
MOST_FORMATS, LONGEST_FORMAT = 1000, 255  # Excel's own: 250 and 255 characters; patterns take the square of a format's length
LONGEST_ATTRIBUTE = 32_767  # characters, as of a cell's text
TOO_MANY = f"最多 {MOST_ROWS} 行、{MOST_COLUMNS} 列，请分成几份 at most {MOST_ROWS} rows of {MOST_COLUMNS} columns: split it"

DATES = {*range(14, 18), *range(27, 32), 36, *range(50, 55), 57, 58}  # number formats, ECMA-376 part 1, 18.8.30, zh-cn
TIMES = {*range(18, 22), *range(32, 36), *range(45, 48), 55, 56}
LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?![hms]+\])[^\]]*\]|AM/PM|A/P|General|上午/下午', re.I)
FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")
ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
CELL = re.compile("([A-Z]{1,3})([0-9]{1,7})")


class Row(NamedTuple):
    """One row that is not empty."""

    line: int
    """As the spreadsheet counts."""
    cells: list[str]
    faults: dict[int, str]
    """Column (from 0) -> why its cell cannot be read, in both languages."""


def read(data: bytes, name: str) -> list[Row]:
    """The rows of a CSV (UTF-8 or GB18030), or of an XLSX's first sheet that is not hidden. A cell merged down stands in each of
    its rows. Raises `Invalid` naming the file for whatever is neither, too large, encrypted, or has macros."""
    if len(data) > MOST_BYTES:
        raise invalid(name, "out_of_range", reason=f"≤ {MOST_BYTES} bytes")
    try:
        if data[:2] == b"PK":
            rows = _Book(data).rows()
        elif data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            locked = "EncryptedPackage".encode("utf-16-le") in data
            raise _No(
                "文件已加密，请去掉密码后另存 it is encrypted: save it without a password"
                if locked
                else "请另存为 XLSX（.xls 太旧）save it as XLSX"
            )
        else:
            rows = _csv(data)
        full = [row for row in rows if any(row.cells) or row.faults]
        if len(full) > MOST_ROWS + 1:
            raise _No(TOO_MANY)
        if any(any(row.cells[MOST_COLUMNS:]) for row in full):
            raise _No(TOO_MANY)
        return [Row(row.line, row.cells[:MOST_COLUMNS], row.faults) for row in full]
    except _No as why:
        raise invalid(name, "bad_format", reason=str(why)) from None


class _No(Exception):
    """Why a file is not taken, in both languages."""


def _csv(data: bytes) -> Iterable[Row]:
    try:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("gb18030")
        if "\0" in text:
            raise ValueError
        for line, cells in enumerate(csv.reader(io.StringIO(text), strict=True), 1):
            yield Row(
                line, [languages.clean(cell[1:] if cell[:1] == "'" and FORMULA.match(cell) else cell) for cell in cells], {}
            )
    except (ValueError, csv.Error):
        raise _No("需要 XLSX 或 CSV（UTF-8、GB18030）；请另存为其中一种 save it as XLSX or CSV UTF-8") from None


# --- XLSX ------------------------------------------------------------------------------------------------------------


class _Book:
    """One XLSX being read."""

    def __init__(self, data: bytes) -> None:
        self.nodes, self.unpacked = 0, 0
        self.strings: list[str] = []
        self.kinds: list[str] = []  # of each cell style: "date", "time", "date time", or "" for what is no moment
        self.epoch = date(1899, 12, 30)
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(data))
            self.parts = {info.filename.lstrip("/"): info for info in self.archive.infolist()}
        except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, UnicodeError, OSError):
            raise _No("文件已损坏，请重新保存为 XLSX damaged: save it as XLSX again") from None
        if "xl/vbaProject.bin" in self.parts or b"macroEnabled" in self.part("[Content_Types].xml"):
            raise _No("不接受带宏的文件，请另存为 XLSX it has macros: save it as XLSX")
        if "xl/workbook.xml" not in self.parts:
            raise _No("需要 XLSX 或 CSV；请另存为其中一种 save it as XLSX or CSV UTF-8")

    def part(self, name: str) -> bytes:
        """The bytes of one part; empty for one that is not there."""
        if (info := self.parts.get(name)) is None:
            return b""
        self.unpacked += info.file_size  # zipfile reads no more than this, whatever the packed data hold
        if self.unpacked > MOST_UNPACKED or info.flag_bits & 1 or info.compress_type not in {0, 8}:
            raise _No(f"展开后太大或已加密（上限 {MOST_UNPACKED} 字节）too large when unpacked, or encrypted")
        try:
            return self.archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError):
            raise _No("文件已损坏，请重新保存为 XLSX damaged: save it as XLSX again") from None

    def walk(
        self, name: str, start: Callable[[str, dict[str, str]], None], end: Callable[[str, str], None] | None = None
    ) -> None:
        """Parse a part: `start(tag, attributes)` and `end(tag, text since the last start or end)`, names without namespaces."""
        parser, text = expat.ParserCreate(namespace_separator=" "), list[str]()

        def opened(tag: str, attributes: dict[str, str]) -> None:
            self.nodes += 1
            if self.nodes > MOST_NODES:
                raise _No(f"内容太多（XML 超过 {MOST_NODES} 个元素）too much in it")
            text.clear()
            if any(len(value) > LONGEST_ATTRIBUTE for value in attributes.values()):
                raise _No(f"XML 属性超过 {LONGEST_ATTRIBUTE} 个字符 an XML attribute is too long")
            start(tag.rpartition(" ")[2], attributes)

        def closed(tag: str) -> None:
            if end:
                end(tag.rpartition(" ")[2], "".join(text))
            text.clear()

        def refuse(*_: Any) -> None:
            raise _No("XML 里有 DOCTYPE，不接受 it holds a DOCTYPE")

        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = opened, closed, text.append
        parser.StartDoctypeDeclHandler = refuse
        parser.buffer_text = True
        try:
            if data := self.part(name):
                parser.Parse(data, True)
        except (expat.ExpatError, ValueError, LookupError, OverflowError):
            raise _No("文件已损坏，请重新保存为 XLSX damaged: save it as XLSX again") from None

    def rows(self) -> Iterable[Row]:
        """Rows of the first sheet that is not hidden, in order."""
        relations: dict[str, tuple[str, str]] = {}
        sheets: list[str] = []

        def related(tag: str, attributes: dict[str, str]) -> None:
            if tag == "Relationship" and attributes.get("TargetMode") != "External":
                kind = attributes.get("Type", "").rpartition("/")[2]
                relations[attributes.get("Id", "")] = kind, normpath(join("/xl", attributes.get("Target", ""))).lstrip("/")

        def listed(tag: str, attributes: dict[str, str]) -> None:
            if tag == "workbookPr" and attributes.get("date1904") in {"1", "true"}:
                self.epoch = date(1904, 1, 1)
            elif tag == "sheet" and attributes.get("state", "visible") == "visible":
                key = next((value for name, value in attributes.items() if name.endswith(" id")), "")
                kind, path = relations.get(key, ("", ""))
                sheets.extend([path] if kind == "worksheet" else [])

        self.walk("xl/_rels/workbook.xml.rels", related)
        self.walk("xl/workbook.xml", listed)
        if not sheets:
            raise _No("没有可见的工作表 it has no visible sheet")
        for kind, path in relations.values():
            if kind == "styles":
                self.styles(path)
            elif kind == "sharedStrings":
                self.shared(path)
        return self.sheet(sheets[0])

    def styles(self, path: str) -> None:
        """Which cell styles show moments."""
        codes: dict[str, str] = {}
        kinds: dict[str, str] = {}
        inside = False

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal inside
            inside = inside or tag == "cellXfs"
            if tag == "numFmt":
                code = attributes.get("formatCode", "")
                if len(code) > LONGEST_FORMAT or len(codes) >= MOST_FORMATS:
                    raise _No("数字格式太多或太长 too many number formats, or one too long")
                codes[attributes.get("numFmtId", "")] = code
            elif inside and tag == "xf":
                number = attributes.get("numFmtId", "0")
                if number not in kinds:
                    kinds[number] = _kind(int(number) if number.isdecimal() else 0, codes.get(number, ""))
                self.kinds.append(kinds[number])

        def end(tag: str, text: str) -> None:
            nonlocal inside
            inside = inside and tag != "cellXfs"

        self.walk(path, start, end)

    def shared(self, path: str) -> None:
        """The texts that cells name by number; a rich text's runs are one, the reading aids beside it are left out."""
        runs: list[str] = []
        aside = False

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal aside
            aside = aside or tag == "rPh"

        def end(tag: str, text: str) -> None:
            nonlocal aside
            if tag == "t" and not aside:
                runs.append(text)
            elif tag == "rPh":
                aside = False
            elif tag == "si":
                self.strings.append(_text("".join(runs)))
                runs.clear()

        self.walk(path, start, end)

    def sheet(self, path: str) -> Iterable[Row]:
        """All rows of one sheet."""
        rows: dict[int, Row] = {}
        merged: list[str] = []
        line = column = seen = 0
        cell: dict[str, str] = {}
        value, formula, runs, aside = "", False, list[str](), False

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal line, column, seen, cell, value, formula, aside
            if tag == "row":
                line, column, seen = int(attributes.get("r", line + 1)), 0, seen + 1
                if seen > 4 * MOST_ROWS:  # empty ones too: each costs 16 µs
                    raise _No(TOO_MANY)
                rows.setdefault(line, Row(line, [], {}))
            elif tag == "c":
                cell, value, formula = attributes, "", False
                runs.clear()
                if "r" in attributes:
                    column = _place(attributes["r"])[0]
            elif tag == "f":
                formula = True
            elif tag == "rPh":
                aside = True
            elif tag == "mergeCell":
                merged.append(attributes.get("ref", ""))

        def end(tag: str, text: str) -> None:
            nonlocal column, value, aside
            if tag == "v":
                value = text
            elif tag == "t" and not aside:
                runs.append(text)
            elif tag == "rPh":
                aside = False
            elif tag == "c":
                row = rows[line]
                try:
                    shown = self.shown(cell, value, "".join(runs), formula)
                except _No as why:
                    shown, row.faults[column] = "", f"{why} ({get_column_letter(column + 1)}{line})"
                if shown:
                    if column >= MOST_COLUMNS:
                        raise _No(TOO_MANY)
                    row.cells.extend([""] * (column + 1 - len(row.cells)))
                    row.cells[column] = shown
                column += 1

        try:
            self.walk(path, start, end)
        except KeyError:
            raise _No("文件已损坏，请重新保存为 XLSX damaged: save it as XLSX again") from None
        self.spread(rows, merged)
        return [rows[line] for line in sorted(rows)]

    def shown(self, cell: Mapping[str, str], value: str, inline: str, formula: bool) -> str:
        """What a person sees in a cell."""
        kind = cell.get("t", "n")
        if kind == "e":
            raise _No(f"单元格有错误 the cell shows an error: {value[:20]}")
        if formula and not value and kind != "str":
            raise _No("公式没有算出的结果，请在表格软件中打开并保存，或改填数值 a formula without its result: open and save it")
        if kind == "s":
            number = int(value)
            return self.strings[number] if 0 <= number < len(self.strings) else ""
        if kind in {"inlineStr", "str"}:
            return _text(inline or value)
        if kind == "b":
            return "是" if value == "1" else "否"
        style = int(cell.get("s", 0))
        shape = self.kinds[style] if style < len(self.kinds) else ""
        if kind == "d":  # ISO 8601
            moment = datetime.fromisoformat(value)
            return _moment(shape or ("date time" if moment.time() != time() else "date"), moment)
        if not value:
            return ""
        number_ = float(value)
        if shape and 0 <= number_ < 2_958_466:  # the year 9999
            days, seconds = divmod(round(number_ * 86400), 86400)
            if shape == "time" or days > 366:
                return _moment(shape, datetime.combine(self.epoch, time()) + timedelta(days=days, seconds=seconds))
        return str(int(number_)) if abs(number_) < 1e15 and number_ == int(number_) else f"{number_:.15g}"

    def spread(self, rows: Mapping[int, Row], merged: Iterable[str]) -> None:
        """What is merged down stands in each row; what is merged across is refused in its first row, below the heads."""
        left = MOST_ROWS * MOST_COLUMNS
        top = min((line for line, row in rows.items() if any(row.cells)), default=0)
        for ref in merged:
            (column, first), (last_column, last) = (_place(part) for part in (ref.split(":") * 2)[:2])
            row = rows.get(first)
            if row is None or first <= top or column >= len(row.cells) or not row.cells[column]:
                continue
            if column != last_column:
                row.faults[column] = f"横向合并的单元格，请取消合并 cells merged across, split them ({ref})"
                continue
            for line in range(first + 1, last + 1):
                left -= 1
                if left < 0:
                    raise _No("合并的单元格太多 too many merged cells")
                if line in rows:
                    cells = rows[line].cells
                    cells.extend([""] * (column + 1 - len(cells)))
                    cells[column] = cells[column] or row.cells[column]


def _place(ref: str) -> tuple[int, int]:
    """(column from 0, line) of "B7". Raises `ValueError`."""
    found = CELL.fullmatch(ref.replace("$", ""))
    if not found:
        raise ValueError(ref)
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return column - 1, int(found[2])


def _kind(number: int, code: str) -> str:
    """Which parts of a moment a number format shows."""
    if not code:
        return "date" if number in DATES else "time" if number in TIMES else "date time" if number == 22 else ""
    letters = set(LITERAL.sub("", code.partition(";")[0]).lower())
    hours = letters & {"h", "s"}
    days = letters & {"y", "d"} or ("m" in letters and not hours)
    return " ".join(name for name, there in (("date", days), ("time", hours)) if there)


def _moment(shape: str, moment: datetime) -> str:
    clock = f"{moment:%H:%M:%S}".removesuffix(":00")
    return " ".join(part for name, part in (("date", str(moment.date())), ("time", clock)) if name in shape)


def _text(text: str) -> str:
    """Cell text with `_x000D_` read as the character that it stands for (ECMA-376, ST_Xstring)."""

    def character(found: re.Match[str]) -> str:
        code = int(found[1], 16)
        return chr(code) if code in {9, 10, 13} or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE else found[0]

    return languages.clean(ESCAPE.sub(character, text) if "_x" in text else text)


# --- writing ---------------------------------------------------------------------------------------------------------

Value = str | int | date | time


def to_csv(rows: Iterable[Sequence[Value]]) -> bytes:
    """UTF-8 with a byte order mark, without which Excel in China reads it as GB18030."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([_plain(value) for value in row] for row in rows)
    return out.getvalue().encode("utf-8-sig")


def _plain(value: Value) -> str:
    text = f"{value:%H:%M}" if isinstance(value, time) else str(value)
    return f"'{text}" if isinstance(value, str) and FORMULA.match(text) else text


class Sheet(NamedTuple):
    """One sheet to be written; the first row is its head."""

    title: str
    rows: Iterable[Sequence[Value]]
    choices: Mapping[int, Sequence[str]] = {}
    """Column (from 0) -> the texts that its drop-down list offers; others may be typed and are told by the import."""
    room: int = MOST_ROWS
    """How many rows have the lists."""


def to_xlsx(*sheets: Sheet) -> bytes:
    """An XLSX of these sheets. The drop-down lists stand on a hidden sheet: written into the cell's rule they may have 255
    characters only."""
    book = Workbook()
    book.remove(book.worksheets[0])
    bold, wrapped = Font(bold=True), Alignment(wrap_text=True, vertical="top")
    lists: list[Sequence[str]] = []
    for sheet in sheets:
        page = book.create_sheet(sheet.title)
        widths: dict[int, int] = {}
        for line, row in enumerate(sheet.rows, 1):
            for column, value in enumerate(row, 1):
                cell = page.cell(line, column)
                if isinstance(value, str):
                    if value:
                        cell.value = ESCAPE.sub(r"_x005F_x\1_", ILLEGAL_CHARACTERS_RE.sub("", value))
                        cell.data_type = "s"
                        cell.quotePrefix = bool(FORMULA.match(value))
                else:
                    cell.value = value
                    cell.number_format = {date: "yyyy-mm-dd", time: "hh:mm"}.get(type(value), "General")
                if line == 1:
                    cell.font = bold
                if line <= 20:
                    widths[column] = max(widths.get(column, 8), min(60, 2 + 2 * len(str(value))))
                if isinstance(value, str) and len(value) > 30:
                    cell.alignment = wrapped
        page.freeze_panes = "A2"
        for column, width in widths.items():
            page.column_dimensions[get_column_letter(column)].width = width
        for column, texts in sheet.choices.items():
            if texts:
                lists.append(texts)
                letter, here = get_column_letter(len(lists)), get_column_letter(column + 1)
                rule = DataValidation("list", formula1=f"'选项 lists'!${letter}$1:${letter}${len(texts)}", allow_blank=True)
                rule.showErrorMessage = False
                rule.add(f"{here}2:{here}{sheet.room + 1}")
                page.add_data_validation(rule)
    if lists:
        page = book.create_sheet("选项 lists")
        page.sheet_state = "hidden"
        for column, texts in enumerate(lists, 1):
            for line, text in enumerate(texts, 1):
                cell = page.cell(line, column, ILLEGAL_CHARACTERS_RE.sub("", text))
                cell.data_type = "s"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()

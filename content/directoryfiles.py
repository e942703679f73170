"""Files of the help directory: a JSON list or a CSV table, in the directory's own names or in those of HSDS 3.

HSDS names that mean one of ours are read as it: `fees_description` (cost), `application_process` (appointment), `minimum_age` and
`maximum_age` (ages), `organization` with its name, phones with `extension` and languages as objects, schedules with `freq`,
`byday` and `until`, one `location` with its addresses. What else a file names is refused by name: nothing is dropped in silence.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from content import records
from content.checking import file_bytes
from content.directory import TEXTS, checked, outcome, publish, put
from content.failures import Conflict, Failure, Invalid, Text, invalid
from content.settings import Settings

FILE_LIMIT = 16 * 1024 * 1024  # bytes
HSDS = {"fees_description": "cost", "application_process": "appointment"}
NUMBERS = {"order": int, "minimum_age": int, "maximum_age": int, "latitude": float, "longitude": float}  # columns of a CSV
LISTS = {"divisions", "sources"}


def import_file(path: Path, by: str, dry_run: bool = False) -> list[dict[str, Any]]:
    """Put every entry of a JSON list or a CSV file (UTF-8 or GB18030); nothing is published. One refused entry keeps the whole
    file out.

    CSV columns are field names; texts may carry a language (name_zh-Hans); lists are parted by "|", phones as
    `12356[zh-Hans en]`, schedules as `FREQ=DAILY 08:00-22:00 Asia/Shanghai`. A second run gives "unchanged".

    Returns a row an entry: {"source", "line" (CSV) or entry number (JSON), "outcome": new|changed|unchanged|refused, "key",
    "messages": [{language: text}]}. After a refusal the other outcomes are what would have been.
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    good: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        entries = list(_csv(path) if path.suffix.lower() == ".csv" else _json(path))
    except (Failure, ValueError, RecursionError, csv.Error) as error:
        reason = {"zh-Hans": "无法读取。", "en": f"Cannot be read: {error}"}
        return [{"source": path.name, "outcome": "refused", "key": "", "messages": [reason]}]
    seen: set[str] = set()
    for line, raw in entries:
        row: dict[str, Any] = {"source": path.name, "line": line, "key": "", "messages": []}
        rows.append(row)
        try:
            if isinstance(raw, Failure):
                raise raw
            row["key"] = str(raw.get("id", ""))[:64]
            key, fields = checked(own(raw))
            if key in seen:
                raise Conflict("exists", what=key)
            seen.add(key)
            row["outcome"] = outcome(key, fields)
            good.append((row, {"id": key, **fields}))
        except Failure as failure:
            row["outcome"] = "refused"
            row["messages"] = [e.messages for e in failure.errors] if isinstance(failure, Invalid) else [failure.messages]
    if not dry_run and len(good) == len(rows):
        for row, values in good:
            row["outcome"] = put(values, by)
    return rows


def load_library(folder: Path, settings: Settings) -> int:
    """Put and publish the starter library's entries; returns how many. A second call changes nothing. Raises `Invalid`."""
    entries = list(_json(folder / "directory.json"))
    for _, entry in entries:
        if isinstance(entry, Failure):
            raise entry
        put(entry, records.SYSTEM)
        publish(entry["id"], records.SYSTEM)
    return len(entries)


# --- HSDS ------------------------------------------------------------------------------------------------------------


def own(raw: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with the names of HSDS 3 turned into ours; one that has none stays as it is. Raises `Invalid` for a name that is
    given both ways. What cannot be turned stays, and is refused by `checked`."""
    entry = dict(raw)

    def move(name: str, value: Any) -> None:
        present = entry.get(name)
        if isinstance(present, dict) and isinstance(value, dict) and not present.keys() & value.keys():
            value = {**present, **value}  # other languages of the same text
        elif present not in (None, "", [], {}):
            raise invalid(name, "exists", what=name)
        entry[name] = value

    for name, ours in HSDS.items():
        if name in entry:
            move(ours, entry.pop(name))
    if {"minimum_age", "maximum_age"} & entry.keys():
        move("ages", {"min": entry.pop("minimum_age", None), "max": entry.pop("maximum_age", None)})
    organization = entry.get("organization")
    if isinstance(organization, dict) and "name" in organization:
        entry["organization"] = organization["name"]
    location = entry.get("location")
    if isinstance(location, dict) and location.keys() <= {"latitude", "longitude", "addresses"}:
        del entry["location"]
        for name in ("latitude", "longitude"):
            if location.get(name) is not None:
                move(name, location[name])
        if addresses := location.get("addresses"):
            move("address", _address(addresses))
    for name, turn in (("phones", _phone), ("schedules", _schedule)):
        if isinstance(entry.get(name), list):
            entry[name] = [turn(row) if isinstance(row, dict) else row for row in entry[name]]
    return entry


def _address(addresses: Any) -> Any:
    """The one address of a location, from the largest part to the smallest, as it is written here; others as they are."""
    if not (isinstance(addresses, list) and len(addresses) == 1 and isinstance(addresses[0], dict)):
        return addresses
    parts = [addresses[0].get(name) for name in ("state_province", "region", "city", "address_1", "address_2")]
    return "".join(str(part) for part in parts if part)


def _phone(row: dict[str, Any]) -> dict[str, Any]:
    tags = [one.get("code", one.get("name")) if isinstance(one, dict) else one for one in row.get("languages") or ()]
    number = f"{row.get('number', '')},{row['extension']}" if row.get("extension") else row.get("number")
    return {**row, "number": number, "languages": tags}


def _schedule(row: dict[str, Any]) -> dict[str, Any]:
    if "freq" not in row:
        return row
    parts = [f"{name.upper()}={row[name]}" for name in ("freq", "byday") if row.get(name)]
    if row.get("until"):
        parts.append(f"UNTIL={str(row['until']).replace('-', '')}")
    # an anchor or a count that a directory cannot follow must not be read as "every week"
    parts += [f"{name.upper()}={row[name]}" for name in ("interval", "count") if row.get(name) not in (None, 1)]
    kept: dict[str, Any] = {name: row[name] for name in ("opens_at", "closes_at", "timezone") if name in row}
    return kept | {"rrule": ";".join(parts), "note": row.get("note", row.get("description"))}


# --- the two forms ---------------------------------------------------------------------------------------------------


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any] | Failure]]:
    data = json.loads(file_bytes(path, FILE_LIMIT).decode("utf-8-sig"))
    if isinstance(data, dict):
        data = data.get("services")
    if not isinstance(data, list):
        raise ValueError("expected a list of objects, or {services: […]}")
    for number, raw in enumerate(data, 1):
        yield number, raw if isinstance(raw, dict) else invalid("services", "wrong_type", reason="{…}")


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any] | Failure]]:
    data = file_bytes(path, FILE_LIMIT)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:  # as Excel in China saves it
        text = data.decode("gb18030")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"a column stands twice: {', '.join(sorted(twice))}")
    for row in reader:
        if None in row or None in row.values():
            yield (
                reader.line_num,
                invalid("CSV", "bad_format", reason=Text("格数与表头不同", "not as many cells as headers")),
            )
            continue
        if any(cell.strip() for cell in row.values()):
            yield reader.line_num, _entry({name.strip(): cell for name, cell in row.items()})


def _entry(row: Mapping[str, str]) -> dict[str, Any]:
    """An entry from one row's cells by column."""
    entry: dict[str, Any] = {}
    for column, text in row.items():
        cells = [cell.strip() for cell in text.split("|") if cell.strip()]
        name = next((n for n in (*TEXTS, *HSDS) if column.startswith(f"{n}_")), "")
        if name and column not in HSDS:
            entry.setdefault(name, {})[column.removeprefix(f"{name}_")] = text
        elif column == "phones":
            entry[column] = [_csv_phone(cell) for cell in cells]
        elif column == "schedules":
            entry[column] = [_csv_hours(cell) for cell in cells]
        elif column in LISTS:
            entry[column] = cells
        elif column == "urgent":
            entry[column] = {"": False, "false": False, "0": False, "true": True, "1": True}.get(text.strip().lower(), text)
        elif column in NUMBERS:
            entry[column] = _number(text.strip(), NUMBERS[column])
        else:
            entry[column] = text.strip() or None
    return entry


def _number(text: str, kind: type[int] | type[float]) -> Any:
    """The number of a cell; what is none stays as written, and is refused by `checked`."""
    try:
        return kind(text) if text and text.isascii() else text or None
    except ValueError:
        return text


def _csv_phone(cell: str) -> dict[str, Any]:
    number, _, rest = cell.partition("[")
    return {"number": number.strip(), "languages": rest.rstrip("]").split()}


def _csv_hours(cell: str) -> dict[str, Any]:
    rule, span, zone = (cell.split(" ", 2) + ["", ""])[:3]
    opens, _, closes = span.partition("-")
    return {"rrule": rule, "opens_at": opens, "closes_at": closes, "timezone": zone.strip()}

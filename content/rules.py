"""What is laid over a questionnaire's questions: scales, bands, norms, critical answers, signs of careless answering, ages.

They come from the file beside an imported questionnaire (NAME.yaml) or from staff, in one shape of plain values:

    total: {name, of, method, reverse}                    each optional, over what the file itself said
    bands: [{code, min, max, text, next_steps}]           of the total
    norms: [{minimum_age, maximum_age, sex, mean, sd, cuts: {band code: [min, max]}}]     of the total
    subscales: [{code, name, of, method, reverse, bands, norms}]
    critical: [{item, codes, at_least}]
    validity: [{kind: too_fast, seconds}, {kind: straight_line, items}]
    items: [{item, text: {tag: text}, options: [{code, text: {tag: text}}], ages: [min, max], explanation: {tag: text}, control}]

Ages are months, both ends included. Every text is {language tag: text}; those of a question and its options lie over the file's,
language by language (a translation that the file lacks), all others stand as given. What is given empty is taken away. `faults`
says what does not hold together.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from content.checking import Check
from content.definition import (
    CHOICES,
    CONTROLS,
    LARGEST,
    METHODS,
    NUMBERS,
    OLDEST,
    SEXES,
    TOTAL,
    Band,
    Critical,
    Definition,
    Item,
    Norm,
    Number,
    Option,
    Scale,
    Texts,
    Validity,
    number,
)
from content.failures import FieldError, Invalid, Text

NAMES = ("total", "bands", "norms", "subscales", "critical", "validity", "items")
CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
DOUBTS = ("too_fast", "straight_line")
WORDS = 10_000  # characters of a text laid over a question or an option
DEPTH = 4  # scales within scales; every path through them is walked, so their number must not grow without end


def laid(definition: Definition, values: Mapping[str, Any]) -> Definition:
    """The definition with these rules over it; a name that is not among `values` stays as it is. Raises `Invalid` with everything
    that is wrong: of form, and of `faults`."""
    check = Check()
    check.fields(values, NAMES)
    total = definition.total
    if "total" in values:
        total = _scale(check, "total", values["total"] or {}, total or Scale(TOTAL, ()), {"name", "of", "method", "reverse"})
    ends: dict[str, Any] = {}
    if "bands" in values:
        ends["bands"] = _bands(check, "bands", values["bands"])
    if "norms" in values:
        ends["norms"] = _norms(check, "norms", values["norms"])
    if total is None and any(ends.values()):
        check.fail("bands", "incomplete", missing="total: of")
    subscales = [scale for scale in definition.scales if scale.code != TOTAL]
    if "subscales" in values:
        subscales = _subscales(check, values["subscales"], definition)
    made = replace(
        definition,
        scales=_ordered(replace(total, **ends) if total else None, subscales, definition),
        critical=_critical(check, values["critical"]) if "critical" in values else definition.critical,
        validity=_validity(check, values["validity"]) if "validity" in values else definition.validity,
        items=_items(check, definition, values["items"]) if "items" in values else definition.items,
    )
    check.done()
    if found := faults(made):
        raise Invalid(found)
    return made


def kept(definition: Definition, old: Definition) -> Definition:
    """A questionnaire imported anew without its rules, with those that stand over the old one, and with its translations of
    every text that is the same as before. Raises `Invalid` where they no longer fit: also when the total is of other items now
    and how it was counted (method, reverse) differs from what the file says, since nobody can know which of both is meant."""
    total, was = definition.total, old.total
    if total and was:
        if set(total.of) != set(was.of) and (total.method, total.reverse) != (was.method, was.reverse):
            raise Invalid([_moved("total.of", TOTAL)])
        of, name = total.of if set(total.of) != set(was.of) else was.of, was.name or total.name
        total = replace(was, of=of, name=name, link_id=total.link_id)
    grown = [s for s in definition.scales if s.code != TOTAL and s.code in old.scale and {*s.of} != {*old.scale[s.code].of}]
    if grown:
        raise Invalid([_moved(f"subscales.{scale.code}.of", scale.code) for scale in grown])
    subscales = [s for s in old.scales if s.code != TOTAL] or [s for s in definition.scales if s.code != TOTAL]

    def item(one: Item) -> Item:
        before = old.index.get(one.link_id)
        if before is None:
            return replace(one, items=tuple(map(item, one.items)))
        worded = {option.code: option.text for option in before.options}
        return replace(
            one,
            text=_also(one.text, before.text),
            options=tuple(replace(o, text=_also(o.text, worded.get(o.code, {}))) for o in one.options),
            ages=before.ages,
            explanation=before.explanation,
            control=one.control or before.control,
            items=tuple(map(item, one.items)),
        )

    made = replace(
        definition,
        items=tuple(map(item, definition.items)),
        scales=_ordered(total or was, subscales, old),
        critical=old.critical,
        validity=old.validity,
    )
    if wrong := faults(made):
        raise Invalid(wrong)
    return made


def _moved(field: str, code: str) -> FieldError:
    """A scale that is of other items now."""
    reason = Text("题目变了，请在 NAME.yaml 写明", "the items have changed: say it in NAME.yaml")
    return FieldError(field, "unsupported", {"what": code, "where": field, "reason": reason})


def _also(new: Texts, old: Texts) -> Texts:
    """A text with the old one's languages that it lacks, as long as it says the same in those that both have; after a change a
    translation would translate something else."""
    both = new.keys() & old.keys()
    return {**old, **new} if both and all(new[tag] == old[tag] for tag in both) else new


def _ordered(total: Scale | None, subscales: Sequence[Scale], before: Definition) -> tuple[Scale, ...]:
    """The scales, the total where it stood before (first if it is new), so that what lays nothing changes nothing."""
    at = next((n for n, scale in enumerate(before.scales) if scale.code == TOTAL), 0)
    return (*subscales[:at], *([total] if total else []), *subscales[at:])


# --- form ------------------------------------------------------------------------------------------------------------


def _scale(check: Check, field: str, row: Any, start: Scale, known: set[str]) -> Scale:
    """A scale from its row, over `start`."""
    if not isinstance(row, Mapping):
        check.fail(field, "wrong_type", reason="{name, of, method, reverse}")
        return start
    check.fields({f"{field}.{name}": 1 for name in row}, {f"{field}.{name}" for name in known})
    put: dict[str, Any] = {}
    if "name" in row:
        put["name"] = check.texts(f"{field}.name", row["name"], 120)
    for name in ("of", "reverse"):
        if name in row:
            put[name] = _names(check, f"{field}.{name}", row[name])
    if row.get("method"):
        put["method"] = check.coded(f"{field}.method", row["method"], METHODS)
    return replace(start, **put)


def _subscales(check: Check, rows: Any, before: Definition) -> list[Scale]:
    """Subscales from their rows; one that the file has too stays in the item where the file shows it."""
    made: list[Scale] = []
    for n, row in enumerate(check.rows("subscales", rows, 30)):
        field = f"subscales.{n}"
        if not isinstance(row, Mapping):
            check.fail(field, "wrong_type", reason="{code, name, of, method, reverse, bands, norms}")
            continue
        code = str(row.get("code", ""))
        if not CODE.fullmatch(code) or code == TOTAL or code in {scale.code for scale in made}:
            check.fail(
                f"{field}.code", "bad_format", reason=Text("只用 a-z、0-9 和 _，各不相同", "a-z, 0-9 and _ only, each its own")
            )
        known = {"code", "name", "of", "method", "reverse", "bands", "norms"}
        shown = before.scale[code].link_id if code in before.scale else ""
        scale = _scale(check, field, row, Scale(code, (), link_id=shown), known)
        bands = _bands(check, f"{field}.bands", row.get("bands"))
        made.append(replace(scale, bands=bands, norms=_norms(check, f"{field}.norms", row.get("norms"))))
    return made


def _names(check: Check, field: str, value: Any) -> tuple[str, ...]:
    """Link ids or codes, each once; YAML's bare numbers and booleans count as their text."""
    return tuple(dict.fromkeys(_code(one) for one in check.rows(field, value, 500)))


def _code(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _real(check: Check, field: str, value: Any) -> Number | None:
    """A number, None for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        check.fail(field, "wrong_type", reason="number")
        return None
    return number(value)


def _ends(check: Check, field: str, low: Any, high: Any) -> tuple[Number, Number]:
    """Both ends of a range, both needed."""
    found = [_real(check, field, end) for end in (low, high)]
    if None in (low, high):
        check.fail(field, "wrong_type", reason="min, max: number")
    return found[0] or 0, found[1] or 0


def _ages(check: Check, field: str, low: Any, high: Any) -> tuple[int, int]:
    """A range of ages in months, both needed."""
    found = [check.whole(field, end, 0, OLDEST) for end in (low, high)]
    if None in (low, high) or (found[0] or 0) > (found[1] or 0):
        check.fail(
            field, "out_of_range", reason=Text(f"0–{OLDEST} 个月，min 不大于 max", f"0 to {OLDEST} months, min not above max")
        )
    return found[0] or 0, found[1] or 0


def _bands(check: Check, field: str, rows: Any) -> tuple[Band, ...]:
    made: list[Band] = []
    for n, row in enumerate(check.rows(field, rows, 20)):
        at = f"{field}.{n}"
        if not isinstance(row, Mapping):
            check.fail(at, "wrong_type", reason="{min, max, code, text, next_steps}")
            continue
        check.fields({f"{at}.{name}": 1 for name in row}, {f"{at}.{k}" for k in ("code", "min", "max", "text", "next_steps")})
        low, high = _ends(check, at, row.get("min"), row.get("max"))
        steps = {}
        given = row.get("next_steps")
        for tag, lines in (given if isinstance(given, Mapping) else {}).items():
            listed = check.rows(f"{at}.next_steps", [lines] if isinstance(lines, str) else lines, 10)
            texts = [check.text(f"{at}.next_steps", line) for line in listed]
            if said := tuple(text for text in texts if text):
                steps[check.language(f"{at}.next_steps", tag)] = said
        code = str(row.get("code", ""))
        if not CODE.fullmatch(code) or code == "none" or code in {band.code for band in made}:
            check.fail(
                f"{at}.code", "bad_format", reason=Text("只用 a-z、0-9 和 _，各不相同", "a-z, 0-9 and _ only, each its own")
            )
        made.append(Band(code, low, high, check.texts(f"{at}.text", row.get("text"), 1000, required=True), steps))
    return tuple(made)


def _norms(check: Check, field: str, rows: Any) -> tuple[Norm, ...]:
    made = []
    for n, row in enumerate(check.rows(field, rows, 100)):
        at = f"{field}.{n}"
        known = ("minimum_age", "maximum_age", "sex", "mean", "sd", "cuts")
        if not isinstance(row, Mapping):
            check.fail(at, "wrong_type", reason="{" + ", ".join(known) + "}")
            continue
        check.fields({f"{at}.{name}": 1 for name in row}, {f"{at}.{k}" for k in known})
        low, high = _ages(check, at, row.get("minimum_age"), row.get("maximum_age"))
        cuts: dict[str, tuple[Number, Number]] = {}
        given = row.get("cuts") or {}
        for code, ends in given.items() if isinstance(given, Mapping) else ():
            pair = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
            cuts[str(code)] = _ends(check, f"{at}.cuts.{str(code)[:40]}", *pair)
        sex = check.coded(f"{at}.sex", row["sex"], SEXES) if row.get("sex") else None
        mean, sd = (_real(check, f"{at}.{name}", row.get(name)) for name in ("mean", "sd"))
        if (mean is None) != (sd is None) or (sd is not None and sd <= 0):
            check.fail(
                f"{at}.sd",
                "out_of_range",
                reason=Text("mean 与 sd 要同时给出，sd 大于 0", "give both mean and sd or neither; sd is above 0"),
            )
        made.append(Norm(low, high, sex, mean, sd, cuts))
    return tuple(made)


def _critical(check: Check, rows: Any) -> tuple[Critical, ...]:
    made: list[Critical] = []
    for n, row in enumerate(check.rows("critical", rows, 100)):
        if not isinstance(row, Mapping) or not row.get("item") or (not row.get("codes") and row.get("at_least") is None):
            check.fail(f"critical.{n}", "wrong_type", reason="{item, codes} / {item, at_least}")
            continue
        check.fields({f"critical.{n}.{name}": 1 for name in row}, {f"critical.{n}.{k}" for k in ("item", "codes", "at_least")})
        codes = _names(check, f"critical.{n}.codes", row.get("codes"))
        made.append(Critical(str(row["item"]), codes, _real(check, f"critical.{n}.at_least", row.get("at_least"))))
    return tuple(made)


def _validity(check: Check, rows: Any) -> tuple[Validity, ...]:
    made: list[Validity] = []
    for n, row in enumerate(check.rows("validity", rows, 10)):
        at = f"validity.{n}"
        kind = row.get("kind") if isinstance(row, Mapping) else None
        if kind not in DOUBTS:
            check.fail(f"{at}.kind", "not_one_of", choices=", ".join(DOUBTS))
            continue
        needed = "seconds" if kind == "too_fast" else "items"
        check.fields({f"{at}.{name}": 1 for name in row}, {f"{at}.kind", f"{at}.{needed}"})
        if not row.get(needed):
            check.fail(f"{at}.{needed}", "required")
        seconds = check.whole(f"{at}.seconds", row.get("seconds"), 1, 3600)
        made.append(Validity(kind, seconds, _names(check, f"{at}.items", row.get("items"))))
    return tuple(made)


def _items(check: Check, definition: Definition, rows: Any) -> tuple[Item, ...]:
    """The items with what lies over them; what no row names keeps its own."""
    put: dict[str, dict[str, Any]] = {}
    known = ("item", "text", "options", "ages", "explanation", "control")
    for n, row in enumerate(check.rows("items", rows, 500)):
        at = f"items.{n}"
        link_id = str(row.get("item") if isinstance(row, Mapping) else row)
        if not isinstance(row, Mapping) or link_id not in definition.index:
            check.fail(f"{at}.item", "unknown_reference", value=link_id[:80])
            continue
        if link_id in put:
            check.fail(f"{at}.item", "exists", what=link_id[:80])
        check.fields({f"{at}.{name}": 1 for name in row}, {f"{at}.{k}" for k in known})
        old, own = definition.index[link_id], dict[str, Any]()
        if "text" in row:
            own["text"] = {**old.text, **check.texts(f"{at}.text", row["text"], WORDS)}
        if "options" in row:
            own["options"] = _options(check, f"{at}.options", old, row["options"])
        if "ages" in row:
            pair = row["ages"] if isinstance(row["ages"], list | tuple) and len(row["ages"]) == 2 else (None, None)
            own["ages"] = _ages(check, f"{at}.ages", *pair) if row["ages"] else None
        if "explanation" in row:
            own["explanation"] = check.texts(f"{at}.explanation", row["explanation"], 1000)
        if "control" in row:
            own["control"] = check.coded(f"{at}.control", row["control"] or "", CONTROLS)
        put[link_id] = own

    def item(one: Item) -> Item:
        return replace(one, **put.get(one.link_id, {}), items=tuple(map(item, one.items)))

    return tuple(map(item, definition.items))


def _options(check: Check, field: str, item: Item, rows: Any) -> tuple[Option, ...]:
    """The item's options with more words; which there are and what they are worth is the file's."""
    put: dict[str, dict[str, str]] = {}
    codes = {option.code for option in item.options}
    for n, row in enumerate(check.rows(field, rows, 500)):
        at = f"{field}.{n}"
        code = _code(row.get("code") if isinstance(row, Mapping) else row)
        if not isinstance(row, Mapping) or code not in codes:
            check.fail(f"{at}.code", "unknown_reference", value=code[:80])
            continue
        if code in put:
            check.fail(f"{at}.code", "exists", what=code[:80])
        check.fields({f"{at}.{name}": 1 for name in row}, {f"{at}.code", f"{at}.text"})
        put[code] = check.texts(f"{at}.text", row.get("text"), WORDS)
    return tuple(replace(option, text={**option.text, **put.get(option.code, {})}) for option in item.options)


# --- what does not hold together --------------------------------------------------------------------------------------


def faults(definition: Definition) -> list[FieldError]:
    """What is wrong with a definition's own rules: scales that name what is not there or lead in a circle, bands that overlap or
    leave a value out, critical rules without such an item or code, enableWhen that leads in a circle. Empty when all is well."""
    found = [FieldError(f"items.{link_id}.enable_when", "circular") for link_id in definition.circular]
    codes = [scale.code for scale in definition.scales]
    found += [FieldError(f"subscales.{c}", "exists", {"what": c}) for c in set(codes) if codes.count(c) > 1]
    found += [FieldError(f"subscales.{c}", "exists", {"what": c}) for c in codes if c in definition.index and c != TOTAL]
    if TOTAL in codes and TOTAL in definition.index:
        reason = Text("有道题叫这个名称，请给它换一个", "a question has this name: give it another")
        found.append(FieldError(TOTAL, "unsupported", {"what": TOTAL, "where": f"items.{TOTAL}", "reason": reason}))
    circular, depth = _nested(definition)
    found += [FieldError(f"subscales.{code}.of", "circular") for code in sorted(circular)]
    if depth > DEPTH:
        return [
            *found,
            FieldError("subscales", "out_of_range", {"reason": Text(f"最多套 {DEPTH} 层", f"{DEPTH} levels at most")}),
        ]
    for scale in definition.scales:
        at = "" if scale.code == TOTAL else f"subscales.{scale.code}."
        found += _members(definition, scale, at)
        if not circular:  # what leads in a circle has no ends
            leaves = [leaf.link_id for leaf in definition.leaves(scale)]
            found += [FieldError(f"{at}of", "exists", {"what": one}) for one in sorted(set(leaves)) if leaves.count(one) > 1]
            found += _cover(scale, at, definition)
    for rule in definition.critical:
        item = definition.index.get(rule.item)
        if item is None or item.kind not in CHOICES | NUMBERS | {"boolean"}:
            found.append(FieldError("critical", "unknown_reference", {"value": rule.item}))
            continue
        known = {o.code for o in item.options} if item.kind in CHOICES else {"true", "false"} if item.kind == "boolean" else set()
        found += [FieldError("critical", "unknown_reference", {"value": code}) for code in rule.codes if code not in known]
        if rule.at_least is not None and not (item.scored or item.kind in NUMBERS):
            found.append(FieldError("critical", "unsupported", {"what": "at_least", "where": rule.item, "reason": "no scores"}))
        most = item.ends[1] if item.scored else item.maximum
        if rule.at_least is not None and most is not None and rule.at_least > most:  # it would never call for help
            found.append(FieldError("critical", "out_of_range", {"reason": f"{rule.item}: at_least ≤ {most}"}))
    for doubt in definition.validity:
        for name in doubt.items:
            if name not in definition.index or definition.index[name].kind not in CHOICES | NUMBERS | {"boolean"}:
                found.append(FieldError("validity", "unknown_reference", {"value": name}))
        if doubt.kind == "straight_line" and len(doubt.items) < 3:
            found.append(FieldError("validity", "out_of_range", {"reason": "straight_line: items ≥ 3"}))
    return found


def _nested(definition: Definition) -> tuple[set[str], int]:
    """Codes of scales that lead back to themselves, and how deep scales stand in each other."""
    done: set[str] = set()
    depth = 0
    waiting = {scale.code: {name for name in scale.of if name in definition.scale} for scale in definition.scales}
    while ready := [code for code, needs in waiting.items() if needs <= done]:
        done.update(ready)
        depth += 1
        for code in ready:
            del waiting[code]
    return set(waiting), depth


def _members(definition: Definition, scale: Scale, at: str) -> Iterable[FieldError]:
    """What a scale names that it cannot hold."""
    if not scale.of:
        yield FieldError(f"{at}of", "required")
    for name in scale.of:
        item = definition.index.get(name)
        if item is None and name not in definition.scale:
            yield FieldError(f"{at}of", "unknown_reference", {"value": name})
        elif item is not None and not item.countable:
            reason = Text("没有分值；数字题要有上下限", "there is no score; a number needs both bounds")
            yield FieldError(f"{at}of", "unsupported", {"what": item.kind, "where": name, "reason": reason})
    for name in scale.reverse:
        item = definition.index.get(name)
        if name not in scale.of or item is None:
            yield FieldError(f"{at}reverse", "unknown_reference", {"value": name})
        elif item.kind == "multiple":
            yield FieldError(f"{at}reverse", "unsupported", {"what": item.kind, "where": name, "reason": "choice, number, yes"})


def _cover(scale: Scale, at: str, definition: Definition) -> Iterable[FieldError]:
    """Whether bands, and the cuts of each norm, cover each value once."""
    if scale.code == TOTAL and scale.bands and not scale.of:
        return
    yield from _covered({b.code: (b.minimum, b.maximum) for b in scale.bands}, f"{at}bands", scale, definition)
    for n, norm in enumerate(scale.norms):
        for code in norm.cuts.keys() - {band.code for band in scale.bands}:
            yield FieldError(f"{at}norms.{n}.cuts", "unknown_reference", {"value": code})
        cuts = {b.code: norm.cuts.get(b.code, (b.minimum, b.maximum)) for b in scale.bands}
        if norm.cuts:
            yield from _covered(cuts, f"{at}norms.{n}.cuts", scale, definition)
        for other in scale.norms[:n]:
            apart = norm.minimum_age > other.maximum_age or norm.maximum_age < other.minimum_age
            if not apart and (norm.sex is None or other.sex is None or norm.sex == other.sex):
                yield FieldError(f"{at}norms.{n}", "out_of_range", {"reason": Text("与另一条重叠", "overlaps another")})


def _covered(ends: Mapping[str, tuple[Number, Number]], field: str, scale: Scale, definition: Definition) -> Iterable[FieldError]:
    """Ranges sorted by their least value must follow each other: whole values with no whole number between, others touching."""
    if not ends:
        return
    low, high = definition.reach(scale)
    step = 1 if definition.whole(scale) else 0
    before: Number | None = None
    for code, (least, most) in sorted(ends.items(), key=lambda one: one[1]):
        at = f"{field}.{code}"
        if least > most or (before is not None and (least <= before if step else least < before)):
            yield FieldError(at, "out_of_range", {"reason": "min > max, or overlap"})
        elif least > (low if before is None else math.floor(before) + 1 if step else before):
            yield FieldError(at, "out_of_range", {"reason": f"gap before {least}"})
        before = most if before is None else max(before, most)
    if before is not None and before < high:
        yield FieldError(field, "out_of_range", {"reason": f"max < {high}"})

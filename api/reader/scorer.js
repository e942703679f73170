// The score of a self-check on the phone: the same as content/scoring.py, number for number, without a network.
//
// `check` is the JSON of GET /v1/checks/{slug}; `answers` is {link_id: code | [codes] | number | boolean}; `about` is
// {age_months, sex, seconds}, each optional. Everything here is a pure function of these three: nothing is stored or sent, and
// no text decides anything. tests/cases holds what this file and the server both have to answer.
//
//   critical(check, answers)      call it at every tap: true means "show the help card now", before anything is submitted
//   asked(check, answers, about)  link ids to show under these answers, in the order of the page
//   score(check, answers, about)  when the person is done
//
// Where `critical` is true the page says so first, with the help card; no band stands beside it, as from the server.

const CHOICES = ["choice", "multiple"];
const NUMBERS = ["integer", "decimal"];
const ANSWERED = [...CHOICES, ...NUMBERS, "boolean"];
const LARGEST = 1e12; // of a number without a bound

/**
 * What these answers amount to: {scales: [{code, value, minimum, maximum, standard, band, counts_as}], critical, answered, missing,
 * validity, errors: [{field, code}]}. `band` is the band's code or null, always null beside a critical answer; `counts_as` is what
 * a contribution says all the same. `minimum` and `maximum` are of what was asked. With any error there are no scales; `critical`
 * is told even then.
 */
export function score(check, answers, about = {}) {
  const page = read(check, about);
  const { given, errors } = sift(page, answers);
  const result = { scales: [], critical: critical(check, answers), answered: [], missing: [], validity: [], errors };
  const age = about.age_months ?? null;
  const byAge = [...page.items.values()].some(({ item }) => item.ages);
  const open = opened(page, given);
  if (byAge && (age === null || ![...open].some((id) => ANSWERED.includes(page.items.get(id).item.kind)))) {
    errors.unshift({ field: "age_months", code: age === null ? "required" : "out_of_range" });
    return result;
  }
  const wrong = new Set(errors.map((error) => error.field));
  for (const [id, { item }] of page.items) {
    const field = `answers.${id}`;
    if (!ANSWERED.includes(item.kind) || wrong.has(field)) continue;
    if (given.has(id) && !open.has(id)) errors.push({ field, code: "not_asked" });
    if (item.required && open.has(id) && !given.has(id)) errors.push({ field, code: "required" });
  }
  if (errors.length) return result;
  const wanted = [...open].filter((id) => ANSWERED.includes(page.items.get(id).item.kind));
  result.answered = wanted.filter((id) => given.has(id));
  result.missing = wanted.filter((id) => !given.has(id));
  result.scales = check.scales.map((scale) => {
    const found = reading(page, scale, given, open, about);
    return { ...found, band: result.critical ? null : found.band, counts_as: found.band };
  });
  result.validity = doubts(check, page, given, about);
  return result;
}

/** Link ids of what is asked under these answers and at this age, in the order of the page. Wrong answers decide nothing. */
export function asked(check, answers, about = {}) {
  const page = read(check, about);
  return [...opened(page, sift(page, answers).given)];
}

/** Whether some answer calls for help at once. Never throws, and looks at wrong and half-filled answers too: an error in one
 * field must not hide the help that another asks for. */
export function critical(check, answers) {
  const items = listed(check.items);
  const said = new Map(Object.entries(answers ?? {}));
  return check.critical.some((rule) => {
    const value = said.get(rule.item);
    return (Array.isArray(value) ? value : [value]).some((one) => {
      if (["string", "boolean"].includes(typeof one) && rule.codes.includes(String(one))) return true;
      if (rule.at_least === null) return false;
      const worth = typeof one === "number" ? one : items.get(rule.item)?.item.options.find((o) => o.code === one)?.score;
      return typeof worth === "number" && worth >= rule.at_least;
    });
  });
}

// --- answers ---------------------------------------------------------------------------------------------------------

/** Items with their parents' link ids by link id, in the order of the page. */
function listed(items, parent = null, found = new Map()) {
  for (const item of items) {
    found.set(item.link_id, { item, parent });
    listed(item.items, item.link_id, found);
  }
  return found;
}

function read(check, about) {
  return { items: listed(check.items), scales: new Map(check.scales.map((scale) => [scale.code, scale])), about };
}

/** Right answers as {link id => [values]}, and what is wrong with the others. An empty list of codes is no answer. */
function sift(page, answers) {
  const given = new Map(), errors = [];
  for (const [id, value] of Object.entries(answers ?? {})) {
    const found = page.items.get(id);
    const code = found ? fault(found.item, value) : "unknown_field";
    if (code) errors.push({ field: `answers.${found ? id : [...id].slice(0, 80).join("")}`, code });
    else if (!Array.isArray(value) || value.length) given.set(id, Array.isArray(value) ? value : [value]);
  }
  return { given, errors };
}

/** What is wrong with a value as such; null when it is right. */
function fault(item, value) {
  const codes = item.options.map((option) => option.code);
  if (item.kind === "choice") return codes.includes(value) ? null : "not_one_of";
  if (item.kind === "multiple") {
    if (!Array.isArray(value) || !value.every((one) => codes.includes(one))) return "not_one_of";
    const fits = value.length >= (item.minimum || 0) && value.length <= (item.maximum || codes.length);
    return new Set(value).size !== value.length || (value.length && !fits) ? "out_of_range" : null;
  }
  if (NUMBERS.includes(item.kind)) {
    if (typeof value !== "number" || Number.isNaN(value)) return "wrong_type";
    if (value < (item.minimum ?? -LARGEST) || value > (item.maximum ?? LARGEST)) return "out_of_range";
    return item.kind === "integer" && !Number.isInteger(value) ? "wrong_type" : null;
  }
  if (item.kind === "boolean") return typeof value === "boolean" ? null : "wrong_type";
  return "not_asked"; // free text stays on the phone
}

/** Link ids of what is asked. What is under something not asked is not asked either, and an answer to it decides nothing. */
function opened(page, given) {
  const known = new Map();
  const open = (id) => {
    if (known.has(id)) return known.get(id);
    known.set(id, false); // ends a circle, which no published check has
    const { item, parent } = page.items.get(id);
    const age = page.about.age_months ?? null;
    const holds = (clause) => held(clause, (open(clause.question) && given.get(clause.question)) || []);
    const when = item.enable_when;
    const result =
      (parent === null || open(parent)) &&
      (!item.ages || (age !== null && item.ages[0] <= age && age <= item.ages[1])) &&
      (!when || (when.any ? when.clauses.some(holds) : when.clauses.every(holds)));
    known.set(id, result);
    return result;
  };
  return new Set([...page.items.keys()].filter(open));
}

/** FHIR R4's enableWhen operators: "!=" when no answer is equal (so also when there is none), the others when one answer is so. */
function held({ operator, value }, values) {
  switch (operator) {
    case "exists": return values.length > 0 === value;
    case "=": return values.includes(value);
    case "!=": return !values.includes(value);
    case ">": return values.some((one) => one > value);
    case "<": return values.some((one) => one < value);
    case ">=": return values.some((one) => one >= value);
    case "<=": return values.some((one) => one <= value);
  }
  throw new Error(operator);
}

// --- scales ----------------------------------------------------------------------------------------------------------

/** Scores of an item's options, of those among `codes` only where they are given. */
function scores(item, codes) {
  return item.options.filter((o) => o.score !== null && (!codes || codes.includes(o.code))).map((o) => o.score);
}

/** The least and the most that options with a score, a number's bounds, or no and yes are worth. */
function ends(item) {
  if (item.kind === "boolean") return [0, 1];
  if (NUMBERS.includes(item.kind)) return [item.minimum ?? 0, item.maximum ?? 0];
  const all = scores(item);
  return all.length ? [Math.min(...all), Math.max(...all)] : [0, 0];
}

/** The least and the most that an item adds once it is answered; an option without a score adds nothing. */
function reach(item) {
  const [low, high] = ends(item);
  if (item.kind === "multiple") {
    const all = scores(item).sort((a, b) => a - b);
    const most = Math.trunc(item.maximum || all.length);
    return [sum(all.slice(0, most).filter((s) => s < 0)), sum(all.reverse().slice(0, most).filter((s) => s > 0))];
  }
  return item.options.some((o) => o.score === null) ? [Math.min(low, 0), Math.max(high, 0)] : [low, high];
}

/** What an answer adds; a reversed one counts from the other end. */
function worth(item, values, reversed) {
  const all = CHOICES.includes(item.kind) ? scores(item, values) : [Number(values[0])];
  if (!all.length) return 0;
  const [low, high] = ends(item);
  return reversed ? low + high - sum(all) : sum(all);
}

/** Link ids of the items that a scale comes from. */
function leaves(page, scale) {
  return scale.of.flatMap((name) => (page.items.has(name) ? [name] : leaves(page, page.scales.get(name))));
}

/** A scale's value; null when nothing of it was answered, or not enough. */
function valued(page, scale, given, open) {
  if (scale.method === "sum_if_complete" && !whole(page, scale, given, open)) return null;
  const parts = [];
  for (const name of scale.of) {
    const found = page.items.get(name);
    const part = !found
      ? valued(page, page.scales.get(name), given, open)
      : given.has(name) && open.has(name) ? worth(found.item, given.get(name), scale.reverse.includes(name)) : null;
    if (part !== null) parts.push(part);
  }
  return parts.length ? round(sum(parts) / (scale.method === "mean" ? parts.length : 1), 6) : null;
}

/** Whether all of a scale that is asked has an answer. */
function whole(page, scale, given, open) {
  return leaves(page, scale).every((id) => !open.has(id) || given.has(id));
}

/** The least and the most that a scale can be of what is asked. */
function span(page, scale, open) {
  const parts = [];
  for (const name of scale.of) {
    if (open.has(name)) parts.push(reach(page.items.get(name).item));
    else if (page.scales.has(name) && leaves(page, page.scales.get(name)).some((id) => open.has(id)))
      parts.push(span(page, page.scales.get(name), open));
  }
  const share = scale.method === "mean" ? parts.length : 1;
  return parts.length ? [0, 1].map((end) => round(sum(parts.map((part) => part[end])) / share, 6)) : [0, 0];
}

function reading(page, scale, given, open, { age_months: age = null, sex = null }) {
  const value = valued(page, scale, given, open);
  const [minimum, maximum] = span(page, scale, open);
  const norm = scale.norms.find(
    (n) => age !== null && n.minimum_age <= age && age <= n.maximum_age && (n.sex === null || n.sex === sex),
  );
  const result = { code: scale.code, value, minimum, maximum, standard: null, band: null };
  // a part of a sum reads too low: no band while an answer is missing, and none where norms are needed and none fits
  if (value === null || !whole(page, scale, given, open)) return result;
  if (norm || !scale.norms.length) result.band = banded(scale, norm, value);
  if (norm && norm.mean !== null && norm.sd) result.standard = round(50 + (10 * (value - norm.mean)) / norm.sd, 1);
  return result;
}

/** The band that holds a value; on an edge that two bands share, the upper one. */
function banded(scale, norm, value) {
  let found = null;
  for (const band of scale.bands) {
    const { minimum, maximum } = norm?.cuts.find((cut) => cut.band === band.code) ?? band;
    if (minimum <= value && value <= maximum && (!found || minimum > found.minimum)) found = { minimum, code: band.code };
  }
  return found && found.code;
}

/** Kinds of the validity rules that these answers meet; they are said beside a result and change nothing of it. */
function doubts(check, page, given, { seconds = null }) {
  const met = check.validity.filter((rule) => {
    if (rule.kind === "too_fast") return seconds !== null && seconds < rule.seconds;
    const places = rule.items.map((id) => {
      const codes = page.items.get(id).item.options.map((option) => option.code);
      const at = (value) => (typeof value === "string" ? codes.indexOf(value) : Number(value));
      return given.has(id) ? given.get(id).map(at).sort((a, b) => a - b).join() : null;
    });
    return !places.includes(null) && new Set(places).size === 1;
  });
  return [...new Set(met.map((rule) => rule.kind))];
}

// --- numbers ---------------------------------------------------------------------------------------------------------

/** The exact sum, rounded once, whatever the order (Python's math.fsum; Shewchuk 1997). */
function sum(values) {
  const parts = []; // do not overlap, the smallest first; together they are the sum so far
  for (let value of values) {
    let kept = 0;
    for (let part of parts) {
      if (Math.abs(value) < Math.abs(part)) [value, part] = [part, value];
      const high = value + part, low = part - (high - value);
      if (low) parts[kept++] = low;
      value = high;
    }
    parts.splice(kept, Infinity, value);
  }
  let high = parts.pop() ?? 0, low = 0;
  while (parts.length && !low) {
    const value = high, part = parts.pop();
    high = value + part;
    low = part - (high - value);
  }
  // half-way between two doubles, what lies below decides
  if (parts.length && low < 0 === parts[parts.length - 1] < 0) {
    const twice = low * 2, next = high + twice;
    if (twice === next - high) high = next;
  }
  return high;
}

/** To so many places, the exact binary value being what is rounded, halves to the even digit (Python's round); never -0.
 * toFixed is exact too but takes halves away from zero. A half at place p is an odd multiple of 2 ** -(p + 1). */
function round(value, places) {
  const away = value.toFixed(places);
  const half = Math.abs((value * 2 ** (places + 1)) % 2) === 1;
  return Number(half && "13579".includes(away.slice(-1)) ? value.toFixed(places + 1).slice(0, -1) : away) + 0;
}

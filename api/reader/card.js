// The help card on a phone without a network: the same as content/helpcard.py makes, from what sync gave the phone.
//
// `words` is the content of the held item of kind "card"; `services` are the contents of those of kind "service"; `lineage` is
// that of the phone's division as GET /v1/divisions/{code} answers it, nearest first ([] where none was chosen); `at` is the
// moment in milliseconds. An app ships one copy of the words, so that it has a card on its very first start too.
//
//   card(words, services, lineage, at)  the card, as GET /v1/help-card answers it
//   openNow(schedules, at)              true, false, or null where nobody recorded hours that still hold
//
// Nothing is stored or sent. Neither throws over a damaged entry: it is left out, or its hours are unknown, and the card stands.
// Both take `wall` as a last argument where an engine has no Intl: (zone, at) => local time there, as "2026-11-23T09:00".
// tests/test_helpcard.py holds this file against the server.

const WEEK = ["SU", "MO", "TU", "WE", "TH", "FR", "SA"];
const DAY = 86_400_000; // milliseconds
const LATEST = 1e9; // the place of `words.line` behind all others equally open

/** The help card for a place and a moment. */
export function card(words, services, lineage, at, wall = zoned) {
  const lines = chosen(words, services.map((entry) => row(words, entry, lineage, at, wall)).filter(Boolean));
  const shown = lines.map((one) => one.line);
  const { title, language, lead, tonight, message, emergency } = words;
  return { title, language, lines: shown, if_busy: nextCall(words, shown), text: { lead, tonight, message }, emergency };
}

/** Whether someone answers at this moment, by the recorded hours. */
export function openNow(schedules, at, wall = zoned) {
  let known = false;
  try {
    for (const { rrule, opens_at: opens, closes_at: closes, timezone } of schedules) {
      const [date, clock] = wall(timezone, at).split("T");
      const today = occurs(rrule, date);
      const early = clock < closes && occurs(rrule, before(date)); // the small hours belong to yesterday's rule
      if (opens < closes ? today && opens <= clock && clock < closes : (today && clock >= opens) || early) return true;
      known = known || date.replaceAll("-", "") <= until(rrule); // hours that have run out tell nothing about today
    }
  } catch {
    return null; // a wrong "closed" would turn someone away
  }
  return known ? false : null;
}

// --- hours -----------------------------------------------------------------------------------------------------------

function zoned(zone, at) {
  const form = { timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
  const parts = new Intl.DateTimeFormat("en-US-u-ca-gregory-nu-latn", form).formatToParts(at);
  const { year, month, day, hour, minute } = Object.fromEntries(parts.map(({ type, value }) => [type, value]));
  return `${year}-${month}-${day}T${hour}:${minute}`;
}

function before(date) {
  return new Date(Date.parse(date) - DAY).toISOString().slice(0, 10);
}

function until(rule) {
  return /;UNTIL=([0-9]{8})/.exec(rule)?.[1] ?? "99999999";
}

/** FREQ=DAILY or FREQ=WEEKLY;BYDAY=…, perhaps with UNTIL: the directory takes no other rule. */
function occurs(rule, date) {
  const days = /^FREQ=WEEKLY;BYDAY=([A-Z,]+)/.exec(rule)?.[1].split(",") ?? WEEK;
  return days.includes(WEEK[new Date(date).getUTCDay()]) && date.replaceAll("-", "") <= until(rule);
}

// --- lines -----------------------------------------------------------------------------------------------------------

/** A service as a line of the card with its place in the order, or null where it has none there. */
function row(words, entry, lineage, at, wall) {
  try {
    const numbers = entry.phones.map((phone) => bare(phone.number));
    const serves = !entry.divisions.length || entry.divisions.some((code) => lineage.includes(code));
    const kind = words.kinds.indexOf(entry.kind);
    if (kind < 0 || !serves || (entry.kind === "hotline" && !numbers.length)) return null;
    if (words.emergency.some(({ number }) => numbers.includes(number))) return null; // they stand apart, always
    const open_now = openNow(entry.schedules, at, wall);
    const today = new Date(at).toISOString().slice(0, 10);
    const stale = !(Date.parse(today) - Date.parse(entry.assured_date) <= words.stale_after_days * DAY); // nor a date: stale
    const recorded = entry.schedules.map((one) => one.note).find(Boolean);
    const note = [recorded ?? (open_now === null ? words.hours : ""), stale ? words.stale : ""].filter(Boolean).join(" ");
    const { id, phones, schedules, url } = entry;
    const line = { id, kind: entry.kind, name: `${entry.name ?? ""}`, phones, schedules, open_now, note, stale, url };
    return { line, place: [rank(open_now), kind, entry.order, id] };
  } catch {
    return null; // one damaged entry takes no other line away
  }
}

/** At most `words.most` lines: the first hotline stays, and the first text service that may answer; 12356 is added where no
 * hotline may answer. */
function chosen(words, rows) {
  rows.sort(compare);
  const must = [rows.find(hotline), rows.find(({ line }) => line.kind === "text" && mayAnswer(line))].filter(Boolean);
  const rest = rows.filter((one) => !must.includes(one)).slice(0, words.most - must.length);
  const kept = [...must, ...rest];
  const { number, name } = words.line;
  const there = kept.filter(hotline).some(({ line }) => mayAnswer(line) || line.phones.some((p) => bare(p.number) === number));
  if (!there) {
    const line = { id: number, kind: "hotline", name, phones: [{ number, languages: ["zh-Hans"] }], schedules: [] };
    const told = { open_now: null, note: words.hours, stale: false, url: null };
    kept.push({ line: { ...line, ...told }, place: [rank(null), words.kinds.indexOf("hotline"), LATEST, number] });
  }
  return kept.sort(compare);
}

function hotline({ line }) {
  return line.kind === "hotline";
}

function mayAnswer(line) {
  return line.open_now !== false;
}

function rank(open) {
  return open ? 0 : open === null ? 1 : 2;
}

function compare(one, other) {
  const at = one.place.findIndex((value, n) => value !== other.place[n]);
  return at < 0 ? 0 : one.place[at] < other.place[at] ? -1 : 1;
}

function bare(number) {
  return number.replace(/[ ()-]/g, "");
}

// --- when the first is busy ------------------------------------------------------------------------------------------

/** Another number of a later line, else another of the first line itself, else 12356: perhaps once more, a little later. */
function nextCall(words, lines) {
  const called = lines.filter((line) => line.kind !== "text" && line.phones.length);
  const first = called.length ? bare(called[0].phones[0].number) : "";
  for (const { phones, name } of [...called.slice(1), ...called.slice(0, 1)].filter(mayAnswer)) {
    const other = phones.find(({ number }) => bare(number) !== first);
    if (other) return said(words, other.number, name);
  }
  const { number, name } = words.line;
  return first === number ? { number, name, text: words.again } : said(words, number, name);
}

/** The number stands once in the sentence: many a name has it in itself. */
function said(words, number, name) {
  const runs = (name.match(/[0-9][0-9 ()-]*/g) ?? []).map(bare);
  const sentence = runs.length === 1 && runs[0] === bare(number) ? words.busy_named : words.busy;
  return { number, name, text: sentence.replace(/\{(number|name)\}/g, (_, key) => ({ number, name })[key]) };
}

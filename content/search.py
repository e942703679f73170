"""Search in process: an index of the published lessons and paths in memory (BM25), and the few words shown around a hit.

`Index` follows the snapshots: it takes in what has changed and nothing else, in a thread of its own, so that neither reading
nor the start waits for it. What it finds is looked up in the snapshot of the moment: something withdrawn or expired is never
shown, even before the index has heard of it. Until the first build is over a search finds what is indexed so far, and says so.

A question is only words: there is no query language, so nothing typed can be malformed. It is kept nowhere.
"""

import ctypes
import functools
import html
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tantivy
from tantivy import Filter, Occur, Query, TextAnalyzerBuilder, Tokenizer

from content import catalogue, divisions, languages, lessons, paths, store, words
from content.failures import Failure
from content.published import Item, Reader, Snapshot
from content.vocabulary import TOPICS, Stage

log = logging.getLogger("xinqiao.search")

TYPES = ("lesson", "path")
BOOSTS = {"title": 3.0, "near": 2.0, "try_this": 1.5, "body": 1.25}  # near: summary and the labels of the topics
SAME, STEM, PIECE, PAIR = 0.7, 0.35, 0.5, 0.15  # weights of a synonym, a stem, a piece, a pair in the body
FIRST = 1000.0  # lifts what is about getting help above every other score when a question shows risk
HEAP = 15_000_000  # bytes, the least that tantivy takes
BATCH = 500  # items between two commits of a long build: what is there can be found, and a withdrawal waits no longer
MOST_WORDS = 40  # of a question; the rest of 100 characters adds nothing
REACH = 64  # hits looked at first; widened fourfold until a page is full
AROUND = 100  # characters of an excerpt, about
LOOKED_AT = 20_000  # characters of a text in which the best place is looked for

# what someone who writes so is shown first
ABOUT = {
    "danger": ("help_seeking",),
    "violence": ("help_seeking", "bullying", "sexual_abuse"),
    "sexual_abuse": ("sexual_abuse", "help_seeking"),
    "bullying": ("bullying", "help_seeking"),
}

_analyzer = (
    TextAnalyzerBuilder(Tokenizer.whitespace())
    .filter(Filter.remove_long(120))
    .filter(Filter.lowercase())
    .filter(Filter.stemmer("english"))
    .build()
)
_Name = tuple[str, str, str]
_NOTHING: Mapping[str, Mapping[str, Item]] = {}


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    for name in BOOSTS:
        builder.add_text_field(name, tokenizer_name="words", index_option="freq")
    builder.add_text_field("pieces", tokenizer_name="plain", index_option="freq")
    builder.add_text_field("pairs", tokenizer_name="pairs", index_option="freq")
    builder.add_text_field("facts", tokenizer_name="plain", index_option="basic")
    builder.add_unsigned_field("number", fast=True)
    return builder.build()


class Index:
    """Follows a reader's snapshots. With `start` in its own thread; without (tests, scripts) whoever asks brings it up first."""

    def __init__(self) -> None:
        self.complete = False
        """Whether it has been level with a snapshot once."""
        self._schema = _schema()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer("words", _analyzer)
        self._index.register_tokenizer("plain", TextAnalyzerBuilder(Tokenizer.whitespace()).build())
        self._index.register_tokenizer("pairs", TextAnalyzerBuilder(Tokenizer.ngram(2, 2)).build())
        self._index.config_reader("manual")
        self._names: dict[int, _Name] = {}
        self._held: dict[_Name, tuple[int, Item]] = {}
        self._last = 0
        self._seen: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._snapshot: Callable[[], Snapshot] = Snapshot
        self._dirty = threading.Event()
        self._thread: threading.Thread | None = None

    # --- following ---------------------------------------------------------------------------------------------------

    def start(self, reader: Reader) -> None:
        """Follow this reader from now on, in a daemon thread. Call once."""
        self._snapshot = lambda: reader.current
        reader.watch(lambda snapshot: self._dirty.set())
        self._dirty.set()
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._dirty.wait():
            self._dirty.clear()
            try:
                self.follow(self._snapshot())
            except Exception:  # the thread must outlive any surprise, or what is new would never be found
                log.exception("the search index could not follow")

    def follow(self, snapshot: Snapshot) -> None:
        """Bring the index to this snapshot. When nothing that is searched has changed this is a no-op."""
        with self._lock:
            present = {kind: snapshot.kinds.get(kind, _NOTHING) for kind in TYPES}
            if self.complete and all(self._seen.get(kind) is present[kind] for kind in TYPES):
                return
            began = time.monotonic()
            items = {
                (kind, key, edition): item
                for kind, keys in present.items()
                for key, texts in keys.items()
                for edition, item in texts.items()
            }
            gone = [name for name in self._held if name not in items]
            fresh = [item for name, item in items.items() if name not in self._held or self._held[name][1] is not item]
            self._write(gone, fresh[:BATCH])
            for start in range(BATCH, len(fresh), BATCH):
                self._write([], fresh[start : start + BATCH])
            self._seen, self.complete = present, True
            if len(fresh) > BATCH:
                _trim()
                log.info("search index: %d texts in %.1f s", len(fresh), time.monotonic() - began)

    def _write(self, gone: Iterable[_Name], fresh: Iterable[Item]) -> None:
        """One commit: take these out and these in."""
        writer = self._index.writer(HEAP, 1)
        gone, held = list(gone), dict[_Name, tuple[int, Item]]()
        dropped = [self._held[name][0] for name in gone]
        for item in fresh:
            name = (item.kind, item.key, item.language)
            if name in self._held:
                dropped.append(self._held[name][0])
            self._last += 1
            writer.add_document(_document(item, self._last))
            held[name] = (self._last, item)
            if self._thread:
                time.sleep(0)  # requests go first
        self._names.update({number: name for name, (number, _) in held.items()})
        # by a term of text: a number given to delete_documents_by_term matches nothing, and says nothing
        writer.delete_documents_by_query(self._any_fact([f"number:{number}" for number in dropped]))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        for number in dropped:
            self._names.pop(number, None)
        for name in gone:
            del self._held[name]
        self._held.update(held)  # only now: what a failed commit has lost is taken in with the next snapshot

    # --- asking ------------------------------------------------------------------------------------------------------

    def hits(self, query: Any, reach: int) -> list[tuple[float, _Name | None]]:
        """The best `reach` texts, best first; None for one that has just gone."""
        searcher = self._index.searcher()
        found = searcher.search(query, limit=reach, count=False).hits
        numbers = map(int, filter(None, searcher.fast_field_values("number", [address for _, address in found])))
        return [(score, self._names.get(number)) for (score, _), number in zip(found, numbers, strict=True)]

    def query(self, asked: "Asked", facts: Mapping[str, Collection[str]]) -> Any:
        """What fits all of `facts` (name -> any of these values) and has a word of what was asked, or is about getting help
        when that is what the words ask for."""
        sought = [(Occur.Should, self._word(forms)) for forms in asked.forms]
        sought += [(Occur.Should, part) for part in self._loose(asked)]
        if asked.signs:
            topics = [f"topic:{topic}" for sign in asked.signs for topic in ABOUT[sign]]
            sought.append((Occur.Should, Query.const_score_query(self._any_fact(topics), FIRST)))
        if not sought:
            return Query.empty_query()
        parts = [(Occur.Must, Query.boolean_query(sought))]
        for name, values in facts.items():
            among = self._any_fact([f"{name}:{value}" for value in values])
            parts.append((Occur.Must, Query.const_score_query(among, 0.0)))
        return Query.boolean_query(parts)

    def only(self, query: Any, names: Iterable[tuple[str, str]]) -> Any:
        """The query, for these (kind, key) alone."""
        among = self._any_fact([f"key:{kind}:{key}" for kind, key in names])
        return Query.boolean_query([(Occur.Must, query), (Occur.Must, Query.const_score_query(among, 0.0))])

    def _any_fact(self, values: Sequence[str]) -> Any:
        return Query.term_set_query(self._schema, "facts", list(values))

    def _term(self, field: str, word: str, boost: float) -> Any:
        return Query.boost_query(Query.term_query(self._schema, field, word, "freq"), boost)

    def _word(self, forms: Sequence[Sequence[str]]) -> Any:
        """One word of the question or what means the same: the best of them counts, in all fields together."""
        parts = []
        for number, form in enumerate(forms):
            weight = SAME if number else STEM if form[0].endswith("*") else 1.0
            if len(form) == 1 and not number and self._mistyped(form[0]):
                parts += [Query.boost_query(self._near_miss(field, form[0]), SAME * boost) for field, boost in BOOSTS.items()]
            fields = []
            for field, boost in BOOSTS.items():
                terms = [(Occur.Must, self._term(field, word, boost * weight / len(form))) for word in form]
                fields.append((Occur.Should, Query.boolean_query(terms)))
            parts.append(Query.boolean_query(fields))
        return Query.disjunction_max_query(parts, 0.1)

    def _mistyped(self, word: str) -> bool:
        """A word of an alphabet that stands nowhere."""
        if len(word) < 5 or word.endswith("*") or not re.fullmatch(r"[a-z\u0400-\u04ff]+", word):
            return False
        searcher = self._index.searcher()
        return not any(searcher.doc_freq(field, word) for field in BOOSTS)

    def _near_miss(self, field: str, word: str) -> Any:
        return Query.fuzzy_term_query(self._schema, field, word, 1 if len(word) < 9 else 2)

    def _loose(self, asked: "Asked") -> Iterator[Any]:
        """Pairs of neighbouring characters; of many, two at least."""
        if not asked.pieces:
            return
        parts = []
        for piece in asked.pieces:
            parts.append((Occur.Should, self._term("pieces", piece, PIECE)))
            if len(piece) == 2:
                parts.append((Occur.Should, self._term("pairs", piece, PAIR)))
        yield Query.boolean_query(parts, minimum_number_should_match=1 if len(asked.pieces) < 4 else 2)


def _trim() -> None:
    """Give back what a long build has used: glibc would keep three times the index's own size, in each worker."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _document(item: Item, number: int) -> Any:
    content = item.content or {}
    labels = " ".join(f"{TOPICS[topic].zh} {TOPICS[topic].en}" for topic in content.get("topics", ()) if topic in TOPICS)
    title, summary, try_this, body = (words.fold(content.get(name) or "") for name in ("title", "summary", "try_this", "plain"))
    near = f"{summary}\n{words.fold(labels)}"
    document = tantivy.Document()
    for name, text in (("title", title), ("near", near), ("try_this", try_this), ("body", body)):
        found = words.words(text)
        document.add_text(name, " ".join([*found, *words.stems(found)]))
    document.add_text("pieces", " ".join(words.pieces(f"{title}\n{near}\n{try_this}")))
    document.add_text("pairs", " ".join(words.runs(body)))
    document.add_text("facts", " ".join([f"number:{number}", *_facts(item, content)]))
    document.add_unsigned("number", number)
    return document


def _facts(item: Item, content: Mapping[str, Any]) -> Iterator[str]:
    """What filters ask for, as terms. A stage without its grade and flags: those are compared on what is found."""
    language, _ = languages.parts(item.language)
    yield from (f"type:{item.kind}", f"key:{item.kind}:{item.key}", f"language:{language}", f"kind:{content.get('kind')}")
    for name, many in (("audience", "audiences"), ("topic", "topics"), ("season", "seasons")):
        yield from (f"{name}:{value}" for value in content.get(many) or ())
    yield from {f"stage:{str(stage).partition('.')[0]}" for stage in content.get("stages") or ()}
    yield from (f"division:{code}" for code in content.get("divisions") or ["*"])


# --- the question ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A question as the index understands it."""

    forms: tuple[tuple[tuple[str, ...], ...], ...]
    """For each of its words: the word as typed, then what means the same; each as the index words it is made of."""
    pieces: tuple[str, ...]
    signs: tuple[str, ...]
    """Of `words.SIGNS`."""

    @functools.cached_property
    def chinese(self) -> dict[str, int]:
        """What to mark in Chinese text, with the number of the word it stands for."""
        return {word: number for word, number in self._all() if _HAN.match(word)}

    @functools.cached_property
    def others(self) -> dict[str, int]:
        """The same for all other scripts, as index words."""
        return {word: number for word, number in self._all() if not _HAN.match(word)}

    @functools.cached_property
    def patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """For `chinese`, and for the pieces."""
        return _any_of(self.chinese), _any_of(piece for piece in self.pieces if len(piece) == 2)

    def _all(self) -> list[tuple[str, int]]:
        found = [(word, number) for number, forms in enumerate(self.forms) for form in forms for word in form]
        return found[::-1]  # of two the first counts


_HAN = re.compile(f"[{words.HAN}]")
_INSIDE = re.compile(f"[{words.MARKS}{words.JOINED}]")


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")


def _stemmed(word: str) -> str:
    """Without a cache of its own: what people type would stay in it."""
    return "".join(_analyzer.analyze(word)[:1])


@functools.cache
def _same() -> Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """`words.synonyms` with English stemmed."""
    return {
        tuple(map(_stemmed, form)): tuple(tuple(map(_stemmed, other)) for other in others)
        for form, others in words.synonyms().items()
    }


def asked(text: str) -> Asked:
    """Understand a question. Never raises; without a single word it is empty."""
    folded = words.fold(text)
    typed = [_stemmed(word) for word in words.words(folded)]
    told = [word for word in dict.fromkeys(typed) if word and word not in words.STOP] or [w for w in dict.fromkeys(typed) if w]
    forms = [((word,), *_same().get((word,), ())) for word in told[:MOST_WORDS]]
    forms += [((word,), *_same().get((word,), ())) for word in words.heard(folded) if word not in told]
    whole = f" {' '.join(typed)} "
    for form, others in _same().items():
        if len(form) > 1 and f" {' '.join(form)} " in whole:
            forms.append((form, *others))
    forms += [((stem,),) for stem in words.stems(told[:MOST_WORDS])]
    pieces = [piece for piece in dict.fromkeys(words.pairs(folded)) if piece not in words.STOP]
    return Asked(tuple(forms), tuple(pieces), tuple(words.signs(text)))


@dataclass(frozen=True)
class Found:
    """A page of answers."""

    items: list[dict[str, Any]]
    next: list[Any] | None
    """Where the next page begins, for `after`; None when this is the last."""


def search(
    index: Index,
    snapshot: Snapshot,
    question: Asked,
    wanted: tuple[str, ...],
    *,
    audience: str | None = None,
    stage: Stage | None = None,
    topic: str | None = None,
    kind: str | None = None,
    season: str | None = None,
    division: str | None = None,
    language: str | None = None,
    last: str = "zh-Hans",
    after: Sequence[Any] = (),
    limit: int = 20,
) -> Found:
    """The lessons and paths that answer a question, best first, each once, in the reader's best edition of those that match.

    The filters are the catalogue's (`catalogue.matching`). `after` is [place, "lesson:slug"] of the last one seen; when that has
    been withdrawn meanwhile its place counts. Raises `Invalid` for an unknown division, `bad_cursor`.
    """
    if index._thread is None:
        index.follow(snapshot)
    place, seen = _after(after)
    fits = catalogue.matching(audience=audience, stage=stage, topic=topic, kind=kind, season=season, division=division)
    now = store.now()

    def item_of(name: _Name | None) -> Item | None:
        if name is None:
            return None
        item = snapshot.get(name[0], name[1]).get(name[2])
        return item if item and catalogue.shown(item, now) and fits(item) else None

    facts: dict[str, Collection[str]] = {
        name: [value]
        for name, value in (("audience", audience), ("topic", topic), ("kind", kind), ("season", season), ("language", language))
        if value
    }
    if stage:
        facts["stage"] = [stage.stage]
    if division:
        facts["division"] = ["*", *divisions.lineage(divisions.current(division))]
    query = index.query(question, facts)

    reach, rows = REACH, []
    while True:
        hits = index.hits(query, reach)
        whole = len(hits) < reach
        kept = hits if whole else [hit for hit in hits if hit[0] != hits[-1][0]]  # equals at the cut come in the next round
        best: dict[tuple[str, str], float] = {}
        for score, name in kept:
            if name and name[:2] not in best and item_of(name):
                best[name[0], name[1]] = score
        rows = sorted(best, key=lambda row: (-best[row], row))
        start = rows.index(seen) + 1 if seen in rows else place
        if whole or len(rows) > start + limit:
            break
        reach *= 4
    page, more = rows[start : start + limit], len(rows) > start + limit
    texts: dict[tuple[str, str], dict[str, Item]] = {}
    if page:
        for _, name in index.hits(index.only(query, page), 50 * len(page)):
            if name and (item := item_of(name)):
                texts.setdefault((name[0], name[1]), {})[name[2]] = item
    shown = []
    for row in page:
        item = catalogue.choose(texts.get(row, {}), audience, wanted, last, now, language)
        if item:
            shown.append({"type": row[0], **_brief(snapshot, item, wanted), **marked(item, question)})
    return Found(shown, [start + limit, ":".join(page[-1])] if more else None)


def _after(after: Sequence[Any]) -> tuple[int, tuple[str, str] | None]:
    if not after:
        return 0, None
    if len(after) != 2 or not isinstance(after[0], int) or not isinstance(after[1], str) or not 0 <= after[0] < 2**31:
        raise Failure("bad_cursor")
    kind, _, key = after[1].partition(":")
    return after[0], (kind, key)


def _brief(snapshot: Snapshot, item: Item, wanted: tuple[str, ...]) -> dict[str, Any]:
    if item.kind == "path":
        return paths.brief(snapshot, item, wanted)
    return lessons.brief(snapshot, item, wanted)


def suggestions(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The topics with the most lessons, for whoever found nothing: [{"topic", "labels"}], at most six."""
    memo = snapshot.memo("lesson")
    if "topics" not in memo:
        counts: dict[str, int] = {}
        for texts in snapshot.entries("lesson").values():
            for topic in {t for item in texts.values() for t in (item.content or {}).get("topics", ())}:
                counts[topic] = counts.get(topic, 0) + 1
        best = sorted((topic for topic in counts if topic in TOPICS), key=lambda topic: (-counts[topic], topic))[:6]
        memo["topics"] = [{"topic": name, "labels": {"zh-Hans": TOPICS[name].zh, "en": TOPICS[name].en}} for name in best]
    return memo["topics"]  # type: ignore[no-any-return]


# --- what is shown around a hit --------------------------------------------------------------------------------------


@functools.lru_cache(20_000)
def _index_words(word: str) -> frozenset[str]:
    """The index words of one word of shown text that is not Chinese."""
    found = words.words(words.fold(word))
    return frozenset(map(_stemmed, [*found, *words.stems(found)]))


def _places(text: str, question: Asked, traditional: bool) -> list[tuple[int, int, int]]:
    """(start, end, number of the question's word) of what matches in shown text, in order, none inside another. Whole words
    where a script has them, with their suffixes."""
    simple = text.translate(words.SIMPLIFIED) if traditional else text  # one character for one: places stay
    in_words, in_pieces = question.patterns
    found = [(*match.span(), question.chinese[match[0]]) for match in in_words.finditer(simple)]
    if question.others:
        found += (
            (*match.span(), min(question.others[word] for word in hit))
            for match in words.WORD.finditer(text)
            if not match["han"] and (hit := _index_words(match[0]) & question.others.keys())
        )
    return sorted(found) or [(*match.span(), number) for number, match in enumerate(in_pieces.finditer(simple))]


def marked(item: Item, question: Asked) -> dict[str, str]:
    """{"title_marked", "excerpt_marked"}: escaped HTML with <mark>, from the text as it is (U+202F and all)."""
    content = item.content or {}
    title, body, summary = content.get("title") or "", content.get("plain") or "", content.get("summary") or ""
    body, traditional = body[:LOOKED_AT], item.language.startswith(("zh-Hant", "yue"))
    places = _places(body, question, traditional)
    if not places:
        body, places = summary, _places(summary, question, traditional)
    start, end = _window(body, places)
    text, shift = body[start:end], start
    inside = [(max(a, start) - shift, min(b, end) - shift) for a, b, _ in places if a < end and b > start]
    excerpt = ("…" if start else "") + _mark(text, inside) + ("…" if end < len(body) else "")
    return {
        "title_marked": _mark(title, [(a, b) for a, b, _ in _places(title, question, traditional)]),
        "excerpt_marked": re.sub(r"\n+", " ", excerpt),
    }


def _window(text: str, places: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """The stretch of about AROUND characters with the most different words of the question, the first of equals."""
    best, most = 0, -1
    for number, (start, _, _) in enumerate(places):
        inside = set()
        for later in range(number, len(places)):
            if places[later][1] > start + AROUND - 15:
                break
            inside.add(places[later][2])
        if len(inside) > most:
            best, most = start, len(inside)
    start = _cut(text, max(0, min(best - 15, len(text) - AROUND)))
    end = _cut(text, min(len(text), start + AROUND))
    return start, max(end, start)


def _cut(text: str, at: int) -> int:
    """The nearest place at or before `at` that is between words (between characters in Chinese); within one word that is longer
    than 40, between two letters with their marks."""
    if at <= 0 or at >= len(text):
        return min(max(at, 0), len(text))
    back = [place for place in range(at, max(0, at - 40), -1) if not _INSIDE.match(text[place])]
    for place in back:
        if _HAN.match(text[place - 1]) or not words.WORD.match(text[place - 1]) or not words.WORD.match(text[place]):
            return place
    return back[0] if back else at


def _mark(text: str, places: Iterable[tuple[int, int]]) -> str:
    out, at = [], 0
    for start, end in places:
        if start >= at:
            out += [html.escape(text[at:start]), "<mark>", html.escape(text[start:end]), "</mark>"]
            at = end
    return "".join([*out, html.escape(text[at:])])

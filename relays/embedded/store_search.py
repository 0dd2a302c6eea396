"""Search (NIP-50) over SQLite's FTS5: the index of words, and how it is asked.

Words are indexed behind the writer, when it has nothing else to do: a burst of events is stored first. A search makes
up what is missing before it looks. The index holds kind and author as words of their own, so that FTS5 itself
intersects them; since the newest matches come first, a search reads no more of them than it may return a few times
over, and ranks those.
"""

from collections.abc import Sequence
from dataclasses import replace

import orjson

from relays.embedded.error import QueryTooBroad
from relays.embedded.store_scan import EXAMINED_PER_ROW, Rest, Scanner
from relays.embedded.store_schema import Hash
from relays.embedded.store_write import EventWriter
from relays.embedded.word import Question, fit, has_phrases, question, words_of
from relays.event import Event, parse
from relays.filter import Filter

_RANKED = 2  # matches that are compared for every two that may be returned: at a high limit, the newest that match
_LEAST = 100
_MERGED = 32  # pages that are joined in one transaction
_NAMED = 64  # kinds or authors that are asked for as words; more are checked afterwards
_KIND, _AUTHOR = "\ue000k", "\ue000a"  # private characters: no word of a text has one


def _document(keyed: Hash, event: Event) -> str:
    words = words_of(event)
    if not words:
        return ""
    return " ".join((f"{_KIND}{event.kind}", _author(keyed(event.pubkey)), *words))


def _author(hashed: int) -> str:
    return f"{_AUTHOR}{hashed % (1 << 64):x}"


class WordIndex:
    """Keeps the words of stored events. Whoever calls it holds the store's lock."""

    def __init__(self, writer: EventWriter) -> None:
        self._writer = writer
        self._upto: int = int(writer.one("SELECT value FROM meta WHERE name='words'") or 0)
        writer.forget_words = self._forget

    @property
    def behind(self) -> int:
        """How many events, at most, are stored and not indexed."""
        return self._writer.seq - self._upto

    def catch_up(self, most: int) -> int:
        """Index at most so many events. Returns how many are left.

        Raises:
            sqlite3.Error: the engine failed; nothing was indexed.
        """
        writer, reached = self._writer, self._upto
        if not self.behind:
            return 0
        with writer.transaction():
            rows = writer.db.execute("SELECT seq, raw FROM body WHERE seq>? ORDER BY seq LIMIT ?", (reached, most))
            taken = rows.fetchall()
            for seq, raw in taken:
                text = _document(writer.keyed, parse(orjson.loads(raw)))
                if text:
                    writer.db.execute("INSERT INTO word(rowid, text) VALUES(?,?)", (seq, text))
            reached = taken[-1][0] if len(taken) == most else writer.seq
            writer.db.execute("INSERT OR REPLACE INTO meta VALUES('words', ?)", (reached,))
        self._upto = reached
        return self.behind

    def settle(self) -> bool:
        """Join a few pages of what was indexed at different times, so that a search has fewer places to look in.

        Returns whether there is more to join.

        Raises:
            sqlite3.Error: the engine failed; the index is as it was.
        """
        db = self._writer.db
        before = db.total_changes
        with self._writer.transaction():
            db.execute("INSERT INTO word(word, rank) VALUES('merge', ?)", (_MERGED,))
        return db.total_changes - before > 1  # SQLite's own sign that something was joined

    def _forget(self, seq: int, event: Event) -> None:
        if seq > self._upto:
            return
        text = _document(self._writer.keyed, event)
        if text:
            self._writer.db.execute("INSERT INTO word(word, rowid, text) VALUES('delete',?,?)", (seq, text))


class Searcher:
    """Asks the index of words over one read connection."""

    def __init__(self, scanner: Scanner, keyed: Hash) -> None:
        self._scanner, self._keyed = scanner, keyed

    def question(self, wanted: Filter) -> Question | None:
        """What is searched for; None if everything fits."""
        return question(wanted.search)

    def search(self, wanted: Filter, asked: Question, low: int, high: int, *, rank: bool = True) -> list[int]:
        """The events that fit best among the newest that match, the best first; the newest alone without `rank`.

        Raises:
            QueryTooBroad: too few of those with the words meet the filter's other conditions.
        """
        if not asked.words:
            return []
        allowed = EXAMINED_PER_ROW * (wanted.limit + 1)
        wish = min(allowed, max(wanted.limit * _RANKED // 2, _LEAST)) if rank or asked.phrases else wanted.limit
        before, ways = self._scanner.examined, self._ways(wanted, asked)
        for number, (match, rest) in enumerate(ways, 1):
            most = allowed if number == len(ways) else allowed // 2
            found, is_all = self._found(match, rest, wanted, (low, high), wish, before + most)
            if is_all or len(found) >= wanted.limit:
                break
        best = (self._ranked(found[:wish], asked) if rank or asked.phrases else found)[: wanted.limit]
        if self._scanner.examined - before > EXAMINED_PER_ROW * (len(best) + 1):
            raise QueryTooBroad
        return best

    def _found(
        self, match: str, rest: Rest, wanted: Filter, between: tuple[int, int], wish: int, ceiling: int
    ) -> tuple[list[int], bool]:
        """The newest that match and meet the rest, about `wish` of them; and whether there are no more."""
        found: list[int] = []
        below, chunk = 1 << 62, wish if rest.is_empty() else wish * 2
        sql = "SELECT rowid AS line FROM word WHERE word MATCH ? AND rowid<? ORDER BY rowid DESC LIMIT ?"
        while len(found) < min(wish, wanted.limit):  # more than that are compared if they come in one go
            most = min(chunk, ceiling - self._scanner.examined)
            if most <= 0:
                return found, False
            seqs = [row[0] for row in self._scanner.rows(sql, (match, below, most), 1)]
            self._scanner.examined += len(seqs)
            found += self._meeting(seqs, wanted, rest, *between)
            if len(seqs) < most:
                return found, True
            below, chunk = seqs[-1], chunk * 2
        return found, False

    def _ways(self, wanted: Filter, asked: Question) -> list[tuple[str, Rest]]:
        """What to ask FTS5, and what to check afterwards.

        A frequent kind is checked afterwards, since FTS5 would walk its whole list; a rare one is asked for, after
        that has not found enough.
        """
        terms = [f'"{word}"' for word in asked.words]
        authors = None if wanted.authors is None else [self._keyed(author) for author in sorted(wanted.authors)]
        kinds = None if wanted.kinds is None else sorted(wanted.kinds)
        if authors is not None and len(authors) <= _NAMED:
            terms.append("(" + " OR ".join(f'"{_author(one)}"' for one in authors) + ")")
            authors = None
        tags = tuple([self._keyed(name + value) for value in values] for name, values in wanted.tags.items())
        ways = [(" AND ".join(terms), Rest(tags, authors, kinds))]
        if kinds is not None and len(kinds) <= _NAMED:
            terms.append("(" + " OR ".join(f'"{_KIND}{kind}"' for kind in kinds) + ")")
            ways.append((" AND ".join(terms), Rest(tags, authors)))
        return ways

    def _meeting(self, seqs: Sequence[int], wanted: Filter, rest: Rest, low: int, high: int) -> list[int]:
        if not seqs:
            return []
        args: list[int | str] = [orjson.dumps(seqs).decode(), low, high]
        sql = (
            "SELECT e.seq||','||e.place AS line FROM json_each(?) j CROSS JOIN event e ON e.seq=j.value "
            "WHERE e.place BETWEEN ? AND ?"
        )
        if rest.kinds is not None:
            sql += " AND e.kind IN (SELECT value FROM json_each(?))"
            args.append(orjson.dumps(rest.kinds).decode())
        if wanted.ids is not None:
            sql += " AND e.id IN (SELECT value FROM json_each(?))"
            args.append(orjson.dumps([self._keyed(one) for one in wanted.ids]).decode())
        rows = {row[0]: row[1] for row in self._scanner.rows(sql + " ORDER BY j.key", args, 2)}
        return self._scanner.passing(rows, replace(rest, kinds=None))

    def _ranked(self, seqs: Sequence[int], asked: Question) -> list[int]:
        """By how well they fit; of equals the newest first. What has the words but lacks a phrase is left out."""
        texts = self._texts(seqs) if seqs else []
        if asked.phrases:
            pairs = zip(seqs, texts, strict=True)
            kept = [(seq, raw) for seq, raw in pairs if has_phrases(parse(orjson.loads(raw)), asked)]
            seqs, texts = [seq for seq, _ in kept], [raw for _, raw in kept]
        together = " ".join(asked.words) if len(asked.words) > 1 else "\0"
        scored = []
        for seq, raw in zip(seqs, texts, strict=True):
            text = raw.lower()  # counted here: SQLite's own replace() takes ten times as long for it
            counts = [text.count(word) for word in asked.words]
            scored.append((fit(len(text), counts, together in text), seq))
        return [seq for _, seq in sorted(scored, key=lambda one: -one[0])]

    def _texts(self, seqs: Sequence[int]) -> list[str]:
        sql = (
            "SELECT group_concat(raw, char(10)) FROM (SELECT b.raw FROM json_each(?) j "
            "CROSS JOIN body b ON b.seq=j.value ORDER BY j.key)"
        )
        found = self._scanner.value(sql, (orjson.dumps(seqs).decode(),))
        return str(found).split("\n") if found is not None else []

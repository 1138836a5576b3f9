"""What waits for the log, and what is due: the decisions of group commit, without I/O and with time passed
in.

Requests come in as parts, one for each partition they touch. Parts of a partition are gathered into one
record (concatenated OTLP messages are one OTLP message) until the window is over or the record is full. A
batch is what one append writes. A partition has at most one batch under way, which keeps its order; batches
of different partitions may be under way at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.admission import RequestTooLarge, is_full, never_fits
from ingest.room import Room
from schemas.errors import LogFull
from schemas.records import Append, TopicPartition
from schemas.units import NS_PER_S

REQUEST_OVERHEAD_BYTES = 16 << 10
"""What a waiting call costs besides its bytes (gRPC call, task, futures)."""

RECORDS_PER_APPEND = 4
"""How many full records of one partition an append takes, so that a backlog is not copied as a whole."""

Reply = Callable[[Exception | None], None]


@dataclass(slots=True, eq=False)
class _Request:
    topic: str
    items: int
    rejected: int
    held_bytes: int
    reply: Reply
    records: int = 0  # records under way or waiting that carry a part of it
    answered: bool = False


@dataclass(slots=True, eq=False)
class _Record:
    tp: TopicPartition
    since_ns: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    rejected: int = 0
    repaired: int = 0
    requests: list[_Request] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Batch:
    """One append: its records, and whom to answer (a request is listed once for each record)."""

    appends: list[Append]
    requests: list[_Request]
    refused: dict[str, int]


@dataclass(slots=True)
class Outcome:
    """Items by topic that a finished batch settled (a request counts when its last record does)."""

    accepted: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)


def _count(counts: dict[str, int], topic: str, items: int) -> None:
    if items:
        counts[topic] = counts.get(topic, 0) + items


class Pending:
    """The requests that wait for the log.

    ``held_bytes`` never passes ``limit_bytes``: it counts each request, its parts and the call, from
    :meth:`add` until the last batch with a part of it is finished, appended or not.
    """

    def __init__(self, window_ns: int, record_bytes: int, limit_bytes: int, retry_ns: int) -> None:
        self._room = Room(limit_bytes)
        self._draining = False
        self._window_ns = window_ns
        self._record_bytes = record_bytes
        self._retry_ns = retry_ns
        self._open: dict[TopicPartition, _Record] = {}
        self._full: dict[TopicPartition, list[_Record]] = {}
        self._busy: set[TopicPartition] = set()
        self._refused: dict[str, int] = {}
        self._refused_due_ns: dict[str, int] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._room.held_bytes

    def reserve(self, size: int) -> bool:
        """Hold ``size`` bytes while a request is being read into parts; False when there is no room. Any
        thread may call it.
        """
        return self._room.reserve(size)

    def release(self, size: int) -> None:
        """Give back what :meth:`reserve` held."""
        self._room.release(size)

    def add(
        self,
        topic: str,
        parts: Mapping[int, bytes],
        *,
        items: int,
        rejected: int,
        repaired: int = 0,
        request_bytes: int,
        now_ns: int,
        reply: Reply,
    ) -> None:
        """Take a request of ``items`` valid and ``rejected`` invalid items, ``repaired`` texts and values;
        ``reply`` is called once, with None when the log has it.

        Raises LogFull (counted as refused) when there is no room now, RequestTooLarge when there never will
        be.
        """
        held = request_bytes + sum(map(len, parts.values())) + REQUEST_OVERHEAD_BYTES
        if held > self._room.limit_bytes:
            raise RequestTooLarge(never_fits(held, self._room.limit_bytes))
        if not self._room.reserve(held):
            self.refuse(topic, items + rejected, now_ns)
            raise LogFull(is_full(self.held_bytes, self._room.limit_bytes), self._retry_ns / NS_PER_S)
        request = _Request(topic, items, rejected, held, reply)
        for partition, part in (parts or {0: b""}).items():
            self._add_part(TopicPartition(topic, partition), part, request, repaired, now_ns)

    def _add_part(
        self, tp: TopicPartition, part: bytes, request: _Request, repaired: int, now_ns: int
    ) -> None:
        record = self._open.get(tp)
        if record is not None and record.size + len(part) > self._record_bytes:
            self._full.setdefault(tp, []).append(record)
            record = None
        if record is None:
            record = self._open[tp] = _Record(tp, now_ns)
        record.parts.append(part)
        record.size += len(part)
        record.requests.append(request)
        if not request.records:  # its counts travel with its first part
            record.rejected += request.rejected
            record.repaired += repaired
        request.records += 1
        if record.size >= self._record_bytes:
            self._full.setdefault(tp, []).append(self._open.pop(tp))

    def refuse(self, topic: str, items: int, now_ns: int) -> None:
        """Count items that were turned away; the count travels with the topic's next record."""
        if items:
            _count(self._refused, topic, items)
            self._refused_due_ns.setdefault(topic, now_ns + self._window_ns)

    def close(self) -> None:
        """Nothing is added any more (``Gather`` sees to it)."""

    def hurry(self, now_ns: int) -> None:
        """From now on everything is due at once: a stop is under way."""
        self._draining = True
        for topic in self._refused_due_ns:
            self._refused_due_ns[topic] = now_ns

    @property
    def has_full(self) -> bool:
        """Whether a full record could be taken now."""
        return any(tp not in self._busy for tp in self._full)

    @property
    def idle(self) -> bool:
        """Whether no request waits (counts of refused items may)."""
        return not self._open and not self._full and not self._busy

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused items by topic that are not in the log yet."""
        return self._refused

    def due_ns(self) -> int | None:
        """When :meth:`take` will have something (0: at once); None when nothing waits that could be taken
        now.
        """
        return 0 if self.has_full else self._window_end_ns()

    def _window_end_ns(self) -> int | None:
        window_ns = 0 if self._draining else self._window_ns
        due = [record.since_ns + window_ns for tp, record in self._open.items() if tp not in self._busy]
        due += [
            at_ns
            for topic, at_ns in self._refused_due_ns.items()
            if TopicPartition(topic, 0) not in self._busy
        ]
        return min(due, default=None)

    def take(self, now_ns: int) -> Batch | None:
        """The next batch, None when nothing is due. Its partitions take no other batch until :meth:`finish`.

        When the window of one partition is over, all go: one append costs less than several.
        """
        records = self._take_full()
        window_end_ns = self._window_end_ns()
        if window_end_ns is not None and window_end_ns <= now_ns:
            records += [self._open.pop(tp) for tp in [tp for tp in self._open if self._is_free(tp)]]
        refused = self._take_refused({record.tp.topic for record in records}, now_ns)
        appends = self._appends(records, refused)
        if not appends:
            return None
        self._busy.update(append.tp for append in appends)
        return Batch(appends, [request for record in records for request in record.requests], refused)

    def _is_free(self, tp: TopicPartition) -> bool:
        return tp not in self._busy and tp not in self._full

    def _take_full(self) -> list[_Record]:
        taken: list[_Record] = []
        for tp in [tp for tp in self._full if tp not in self._busy]:
            waiting = self._full[tp]
            taken += waiting[:RECORDS_PER_APPEND]
            del waiting[:RECORDS_PER_APPEND]
            if not waiting:
                del self._full[tp]
        return taken

    def _take_refused(self, topics: set[str], now_ns: int) -> dict[str, int]:
        due = {
            topic
            for topic, at_ns in self._refused_due_ns.items()
            if topic in topics or (at_ns <= now_ns and TopicPartition(topic, 0) not in self._busy)
        }
        for topic in due:
            del self._refused_due_ns[topic]
        return {topic: self._refused.pop(topic) for topic in due}

    def _appends(self, records: Sequence[_Record], refused: Mapping[str, int]) -> list[Append]:
        untold = dict(refused)
        appends: list[Append] = []
        for record in records:
            headers = {
                "rejected": record.rejected,
                "refused": untold.pop(record.tp.topic, 0),
                "repaired": record.repaired,
            }
            value = record.parts[0] if len(record.parts) == 1 else b"".join(record.parts)
            record.parts.clear()
            appends.append(
                Append(record.tp, value, {name: count for name, count in headers.items() if count})
            )
        return appends + [
            Append(TopicPartition(topic, 0), b"", {"refused": count}) for topic, count in untold.items()
        ]

    def finish(self, batch: Batch, error: Exception | None, now_ns: int) -> Outcome:
        """Answer the requests of a batch that was appended, or failed with ``error``.

        A request fails with the first of its batches that does, and is then counted as refused as a whole,
        its rejected items too: what the sender gives up on is all of it, and what it sends again is counted
        again. (A failed append may have written some of it all the same; then these items are counted as
        refused and are in the log as well.)
        """
        self._busy.difference_update(append.tp for append in batch.appends)
        outcome = Outcome()
        for request in batch.requests:
            request.records -= 1
            if error is not None and not request.answered:
                request.answered = True
                _count(outcome.refused, request.topic, request.items + request.rejected)
                request.reply(error)
            if not request.records:
                self._room.release(request.held_bytes)
                if not request.answered:
                    _count(outcome.accepted, request.topic, request.items)
                    _count(outcome.rejected, request.topic, request.rejected)
                    request.reply(None)
        if error is not None:
            self._put_back(batch.refused, outcome.refused, now_ns)
        return outcome

    def _put_back(self, untold: Mapping[str, int], failed: Mapping[str, int], now_ns: int) -> None:
        """Counts whose append failed go with a later record, tried on its own no sooner than after the retry
        time.
        """
        for counts in (untold, failed):
            for topic, items in counts.items():
                _count(self._refused, topic, items)
                self._refused_due_ns[topic] = now_ns + self._retry_ns

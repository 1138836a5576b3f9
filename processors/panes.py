"""Records of one partition -> panes, by log time, and what to commit (invariants 2, 4 and 5). No I/O, no
clock but the records'.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa

from processors.progress import Progress
from processors.stamps import Stamped, Stamps
from schemas.errors import MalformedOtlp
from schemas.records import Commit, DeadLetter, Record, TopicPartition
from schemas.tables import Block
from schemas.topics import pane_of, pane_shift_ns

LARGEST_RECORD_BYTES = 64 << 20
"""A pane's first record may have as much, whatever the pane's limit: receivers take requests of this size."""

Count = Callable[[bytes], int]
"""How many items a payload has."""


def _one(payload: bytes) -> int:  # noqa: ARG001
    return 1


class PaneClock(NamedTuple):
    """Where one partition's panes begin."""

    pane_ns: int
    shift_ns: int

    @classmethod
    def of(cls, tp: TopicPartition, partitions: int, pane_ns: int) -> "PaneClock":
        """The staggered clock of a partition. Raises ValueError for a partition that ``partitions`` does not
        have.
        """
        if not 0 <= tp.partition < partitions:
            raise ValueError(
                f"{tp.topic} has {partitions} partitions by the settings, but the log has a partition {tp.partition}"
            )
        return cls(pane_ns, pane_shift_ns(tp.partition, partitions, pane_ns))

    def pane_at(self, log_time_ns: int) -> int:
        """The number of the pane that holds a log time."""
        return pane_of(log_time_ns, self.shift_ns, self.pane_ns)

    def start_ns(self, pane: int) -> int:
        """Where a pane begins, ns since 1970."""
        return pane * self.pane_ns + self.shift_ns

    @property
    def name(self) -> str:
        """For tokens."""
        return f"{self.pane_ns}+{self.shift_ns}"


@dataclass(frozen=True, slots=True)
class Emit:
    """What a processor hands out: letters to set aside, blocks to store, and then what to commit."""

    blocks: Iterable[Block]
    """Made one at a time, anew at each iteration; false when there are none. A pane's ledger is its last
    one."""
    commit: Commit
    dead_letters: list[DeadLetter]


@dataclass(slots=True)
class Pane:
    """The records of one pane. Ticks are not among ``records``; their headers are counted."""

    number: int
    start_ns: int
    first_offset: int
    records: list[Record] = field(default_factory=list)
    surplus: list[Record] = field(default_factory=list)
    """Records over the pane's limit, without their payloads."""
    surplus_items: int = 0
    bytes: int = 0
    taken_bytes: int = 0
    """Of ``records``."""
    ahead: int = 0
    """Records whose stamps were far ahead of their predecessors' and were not confirmed (Stamps)."""
    rejected: int = 0
    refused: int = 0
    lost: int = 0
    repaired: int = 0
    """Texts and values that ingest mended."""

    def add(self, record: Record, limit_bytes: int, count: Count) -> None:
        """Take a record in; its payload is kept packed until the pane is decided. ``count``: how many items a
        payload has.
        """
        self.rejected += record.headers.get("rejected", 0)
        self.refused += record.headers.get("refused", 0)
        self.lost += record.headers.get("lost", 0)
        self.repaired += record.headers.get("repaired", 0)
        if not record.size:
            return
        self.bytes += record.size
        fits = self.taken_bytes + record.size <= limit_bytes
        if fits or (not self.records and record.size <= LARGEST_RECORD_BYTES):
            self.taken_bytes += record.size
            self.records.append(record)
        else:
            self.surplus.append(replace(record, payload=b"", codec=""))
            self.surplus_items += _count(record, count)


class Step(NamedTuple):
    """What the arrival of a later pane's first record settles."""

    closed: Pane
    emit_closed: bool
    """False for a pane that was emitted before the restart and is read as lookback only."""
    decided: tuple[int, ...]
    """Numbers of the panes to decide now, in order; all are held (closed, not empty of records)."""
    keep_from: int
    """Panes before this one are no longer needed by anyone."""
    commit: Commit


class Panes:
    """Cuts one partition's records into panes, by log time (Stamps).

    ``commit`` is where an earlier reader left off (None: none did). A commit without metadata, or none, is
    the log's own start: everything is emitted. The length or shift of panes may have changed since: the first
    pane of the new clock that begins no earlier than the next one of the old clock has all records that were
    not decided, whatever their log time (docs/adr/0028).

    ``wait``: panes that must close before a pane is decided; ``lookback``: panes before it that are read
    again after a restart; ``limit_bytes``: OTLP bytes of a pane that are processed, the items of records over
    it are counted by ``count``; ``grace_ns``: how long after its end an hour is rolled up.
    """

    def __init__(
        self,
        clock: PaneClock,
        wait: int,
        lookback: int,
        limit_bytes: int,
        commit: Commit | None = None,
        *,
        count: Count = _one,
        grace_ns: int = 0,
    ) -> None:
        self._clock = clock
        self._stamps = Stamps(clock.pane_ns)
        self._grace_ns = grace_ns
        self.late_until_ns = 0
        """Rows of hours that ended until then are late, whatever the grace: they may be rolled up."""
        self._wait = wait
        self._lookback = lookback
        self._limit_bytes = limit_bytes
        self._count = count
        self._open: Pane | None = None
        self._undecided: deque[int] = deque()
        self._starts: deque[tuple[int, int, int]] = (
            deque()
        )  # (pane, its first offset, its log time) of every pane since the committed one
        self._lost = 0
        self._next: int | None = None
        self._from = 0  # records before it were decided by an earlier reader
        self.offset: int | None = None
        """The offset to read first; None: the log's beginning."""
        if commit is not None:
            self._resume(commit)

    def _resume(self, commit: Commit) -> None:
        self.offset = commit.offset
        progress = Progress.parse(commit.metadata)
        if progress is None:
            return
        self._from = progress.unread_from
        self.late_until_ns = progress.late_until_ns
        if progress.log_time_ns is not None:
            self._stamps.resume(progress.log_time_ns)
        # the watermark never goes back: roll-ups have been made up to it
        self._next = -((self._clock.shift_ns - progress.decided_until_ns) // self._clock.pane_ns)

    def gap(self, wanted: int, beginning: int) -> None:
        """Retention removed [wanted, beginning) before it was read (OffsetGone): what was not emitted yet
        counts as lost.
        """
        self._lost += max(0, beginning - max(wanted, self._from))

    @property
    def log_time_ns(self) -> int:
        """Newest log time; 0 before the first record."""
        return self._stamps.newest_ns

    def may_settle(self, record: Record) -> bool:
        """Whether :meth:`add` of this record may give a step; else it is put with the others of its pane."""
        return self._open is None or self._clock.pane_at(record.append_time_ns) > self._open.number

    def add(self, record: Record) -> list[Step]:
        """Take the next record in; a step for each pane that closes. Log times that go back count as the
        newest one.
        """
        if self.offset is not None and record.offset < self.offset:
            return []  # a reader that began earlier than it had to
        taken = (self._take(stamped) for stamped in self._stamps.add(_packed(record)))
        return [step for step in taken if step]

    def _take(self, stamped: Stamped) -> Step | None:
        record = stamped.record
        number = self._number(record.offset, stamped.log_time_ns)
        step = None
        if self._open is None:
            self._begin(number, record.offset, stamped.log_time_ns)
        elif number > self._open.number:
            step = self._close(number, record.offset, stamped.log_time_ns)
        assert self._open is not None
        self._open.ahead += stamped.ahead
        self._open.add(record, self._limit_bytes, self._count)
        return step

    def _number(self, offset: int, log_time_ns: int) -> int:
        """The pane of a record. At a resume the offset says what is lookback; by log time that would be so
        too, but for another clock.
        """
        number = self._clock.pane_at(log_time_ns)
        if self._next is None or (self._open and self._open.number >= self._next):
            return number
        return max(number, self._next) if offset >= self._from else min(number, self._next - 1)

    def _begin(self, number: int, offset: int, log_time_ns: int) -> None:
        self._open = Pane(number, self._clock.start_ns(number), offset, lost=self._lost)
        self._lost = 0
        self._starts.append((number, offset, log_time_ns))
        if self._next is None:
            self._next = number

    def _close(self, number: int, offset: int, log_time_ns: int) -> Step:
        closed = self._open
        assert closed is not None
        assert self._next is not None
        self._begin(number, offset, log_time_ns)
        emit = closed.number >= self._next
        if emit:
            self._undecided.append(closed.number)
        decided = []
        while self._undecided and self._undecided[0] + self._wait < number:
            decided.append(self._undecided.popleft())
        self._next = max(self._next, number - self._wait)
        keep_from = self._next - self._lookback
        while (
            len(self._starts) > 1 and self._starts[0][0] < keep_from
        ):  # the open one stays, be it of a longer lookback than is needed
            self._starts.popleft()
        return Step(closed, emit, tuple(decided), keep_from, self._commit())

    def _commit(self) -> Commit:
        following = self._next or 0
        progress = Progress(
            following,
            next((offset for pane, offset, _ in self._starts if pane >= following), self._from),
            *self._clock,
            log_time_ns=self._starts[0][2],
            late_until_ns=max(self.late_until_ns, self._clock.start_ns(following) - self._grace_ns, 0),
        )
        return Commit(self._starts[0][1], progress.format())


def unpack(records: Sequence[Record]) -> tuple[list[bytes], list[DeadLetter]]:
    """The payloads of records, b"" in place of those that cannot be unpacked, and these as dead letters."""
    payloads, letters = [], []
    for record in records:
        try:
            payloads.append(record.unpack())
        except MalformedOtlp as error:
            payloads.append(b"")
            letters.append(DeadLetter(record, str(error)))
    return payloads, letters


def surplus_letters(pane: Pane) -> list[DeadLetter]:
    """The records over the pane's limit as dead letters."""
    return [
        DeadLetter(record, "over the limit of one pane (processing.pane_bytes)") for record in pane.surplus
    ]


def _count(record: Record, count: Count) -> int:
    """Items of a record; one that cannot be unpacked counts as one."""
    try:
        return count(record.unpack())
    except MalformedOtlp:
        return 1


def _packed(record: Record) -> Record:
    """The record with its payload compressed; most logs hand it over so."""
    if record.codec or not record.payload:
        return record
    return replace(record, payload=pa.compress(record.payload, codec="lz4", asbytes=True), codec="lz4")

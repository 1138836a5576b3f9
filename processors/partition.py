"""One assigned partition of a log that is read record by record: what to do with each offset that arrives, and what to commit. No I/O."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from processors.panes import Emit, PaneClock
from schemas.errors import LogUnavailable
from schemas.log import Commit, Record, TopicPartition

SEEKS = 10
"""How often the same missing offsets are read again before they are taken for ones without a record (transaction markers)."""

SEEK_EVERY_S = 1.0


class Processor(Protocol):
    """Records in, blocks out (SpanProcessor, ItemProcessor)."""

    @property
    def offset(self) -> int | None:
        """Where to begin reading; None: at the log's beginning."""

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the next records; what they settle."""

    def gap(self, wanted: int, beginning: int) -> None:
        """Records of [wanted, beginning) were removed before they could be read."""


class Arrival(Enum):
    """What to do with an offset that arrived."""

    TAKE = auto()
    SKIP = auto()
    """Seen already, or fetched before a seek."""
    AHEAD = auto()
    """Offsets are missing before it: ask where the log begins, then :meth:`Partition.bridge`."""


class Partition:
    """How far a processor is. ``closed``: the partition went to another worker; nothing of it is to be stored or committed any more."""

    def __init__(self, tp: TopicPartition, processor: Processor, clock: PaneClock, beginning: int, end: int) -> None:
        """``beginning``, ``end``: the first offset that is there, and the one that the next record will get.

        Raises LogUnavailable when the commit lies beyond the end: it is of another topic of this name.
        """
        self.tp = tp
        self.processor = processor
        self.closed = False
        self.commit: Commit | None = None
        self.committed: Commit | None = None
        self.log_time_ns = 0
        self._clock = clock
        self._pane: int | None = None
        self._seeks = 0
        self._seek_s = float("-inf")
        offset = beginning if processor.offset is None else processor.offset
        if offset > end:
            raise LogUnavailable(
                f"{tp.topic}/{tp.partition} ends at {end}, but {offset} is committed:"
                " was the topic made anew? Then remove the consumer group's offsets"
            )
        if offset < beginning:
            processor.gap(offset, beginning)
        self.next_offset = max(offset, beginning)

    def arrival(self, offset: int, now_s: float) -> Arrival:
        """What to do with the record of this offset; ``now_s`` is a monotonic clock's."""
        if offset == self.next_offset:
            return Arrival.TAKE
        if offset < self.next_offset or now_s < self._seek_s + SEEK_EVERY_S:
            return Arrival.SKIP
        return Arrival.AHEAD

    def bridge(self, offset: int, beginning: int, now_s: float) -> int | None:
        """Between the next offset and this one records are missing: None to go on with this one, else the offset to seek.

        What retention has removed (all before ``beginning``) is lost. The rest was dropped on the way and is read again; where that
        does not help, there never was a record.
        """
        if beginning > self.next_offset:
            until = min(beginning, offset)
            self.processor.gap(self.next_offset, until)
            self.next_offset = until
            self._seeks = 0
        if offset > self.next_offset and self._seeks < SEEKS:
            self._seeks += 1
            self._seek_s = now_s
            return self.next_offset
        self._seeks = 0
        self.next_offset = offset
        return None

    def opens_pane(self, record: Record) -> bool:
        """Whether this record is of a later pane than the last one, so that feeding it is work."""
        return self._pane is not None and self._clock.pane_at(record.append_time_ns) > self._pane

    def feed(self, record: Record) -> list[Emit]:
        """Take the record of :attr:`next_offset`; what it settles. Store that before the next one is taken."""
        emits = self.processor.feed([record])
        pane = self._clock.pane_at(record.append_time_ns)
        self._pane = pane if self._pane is None else max(pane, self._pane)
        self.log_time_ns = max(self.log_time_ns, record.append_time_ns)
        self.next_offset = record.offset + 1
        self._seeks = 0
        return emits

    def stored(self, emit: Emit) -> None:
        """All blocks of ``emit`` are stored."""
        self.commit = emit.commit

    @property
    def next_pane(self) -> int | None:
        """The next pane to decide, by the newest commit; None before there is one."""
        named = dict(part.split("=") for part in self.commit.metadata.split()) if self.commit else {}
        return int(named["next"]) if "next" in named else None

    @property
    def decision_delay_ns(self) -> int | None:
        """Newest log time read minus the start of the next pane to decide."""
        pane = self.next_pane
        return None if pane is None else self.log_time_ns - self._clock.start_ns(pane)


def decided_until_ns(commit: Commit) -> int:
    """Log time up to which a partition's blocks are stored: the start of the next pane to decide; 0 for a commit that names none."""
    named = dict(part.split("=") for part in commit.metadata.split())
    return int(named["next"]) * int(named["pane_ns"]) + int(named["shift_ns"]) if "next" in named else 0

"""One assigned partition of a log that is read record by record into a processor. No I/O."""

from collections.abc import Sequence
from typing import Protocol

from processors.panes import Emit, PaneClock
from processors.readers.cursor import Cursor
from schemas.records import Commit, Record, TopicPartition


class Processor(Protocol):
    """Records in, blocks out (PaneProcessor)."""

    @property
    def offset(self) -> int | None:
        """Where to begin reading; None: at the log's beginning."""

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the next records; what they settle."""

    def gap(self, wanted: int, beginning: int) -> None:
        """Records of [wanted, beginning) were removed before they could be read."""


class Partition(Cursor):
    """How far a processor is. Log time never goes back: a record stamped earlier than the one before it
    counts as of that one's time.
    """

    def __init__(
        self, tp: TopicPartition, processor: Processor, clock: PaneClock, beginning: int, end: int
    ) -> None:
        """See :class:`processors.readers.cursor.Cursor`."""
        self.processor = processor
        self.log_time_ns = 0
        self._clock = clock
        self._pane: int | None = None
        super().__init__(tp, processor.offset, beginning, end)

    def lose(self, wanted: int, until: int) -> None:
        """Records of [wanted, until) will never be read: the ledger counts them."""
        self.processor.gap(wanted, until)

    def opens_pane(self, record: Record) -> bool:
        """Whether this record is of a later pane than the last one, so that feeding it is work."""
        return self._pane is not None and self._clock.pane_at(record.append_time_ns) > self._pane

    def feed(self, record: Record) -> list[Emit]:
        """Take the record of :attr:`next_offset`; what it settles. Store that before the next one is
        taken.
        """
        emits = self.processor.feed([record])
        pane = self._clock.pane_at(record.append_time_ns)
        self._pane = pane if self._pane is None else max(pane, self._pane)
        self.log_time_ns = max(self.log_time_ns, record.append_time_ns)
        self.taken(record.offset)
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
    """Log time up to which a partition's blocks are stored: the start of the next pane to decide; 0 for a
    commit that names none.
    """
    named = dict(part.split("=") for part in commit.metadata.split())
    return int(named["next"]) * int(named["pane_ns"]) + int(named["shift_ns"]) if "next" in named else 0

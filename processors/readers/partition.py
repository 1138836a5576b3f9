"""One partition of a log that is read into a processor. No I/O."""

from collections.abc import Sequence
from typing import Protocol

from processors.panes import Emit
from processors.progress import Progress
from processors.readers.cursor import Cursor
from schemas.records import Commit, Record, TopicPartition
from schemas.watermark import UNKNOWN, Watermark


class Processor(Protocol):
    """Records in, blocks out (PaneProcessor)."""

    @property
    def offset(self) -> int | None:
        """Where to begin reading; None: at the log's beginning."""

    @property
    def log_time_ns(self) -> int:
        """Newest log time of the records fed; 0 before the first one."""

    def may_settle(self, record: Record) -> bool:
        """Whether feeding this record may give something to store; else feeding it is little work."""

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the next records; what they settle. Raises ProcessingFailed."""

    def gap(self, wanted: int, beginning: int) -> None:
        """Records of [wanted, beginning) were removed before they could be read."""


class Partition(Cursor):
    """How far a processor is."""

    def __init__(self, tp: TopicPartition, processor: Processor, beginning: int, end: int) -> None:
        """See :class:`processors.readers.cursor.Cursor`."""
        self.processor = processor
        super().__init__(tp, processor.offset, beginning, end)

    def lose(self, wanted: int, until: int) -> None:
        """Records of [wanted, until) will never be read: the ledger counts them."""
        self.processor.gap(wanted, until)

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the records from :attr:`next_offset` on; what they settle. Store that before the next ones
        are taken.
        """
        emits = self.processor.feed(records)
        self.taken(records[-1].offset)
        return emits

    @property
    def next_pane(self) -> int | None:
        """The next pane to decide, by the newest commit; None before there is one."""
        progress = Progress.parse(self.commit.metadata) if self.commit else None
        return progress.next_pane if progress else None

    @property
    def decision_delay_ns(self) -> int | None:
        """Newest log time read minus the start of the next pane to decide."""
        progress = Progress.parse(self.commit.metadata) if self.commit else None
        return self.processor.log_time_ns - progress.decided_until_ns if progress else None


def watermark_of(commit: Commit | None) -> Watermark:
    """How far a partition is by its newest commit; UNKNOWN without one, and for one that meshflow made at
    the log's own start.
    """
    progress = Progress.parse(commit.metadata) if commit else None
    return Watermark(progress.decided_until_ns, progress.late_until_ns) if progress else UNKNOWN

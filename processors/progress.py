"""How far processing of a partition is, as the metadata of its commit: the one writer and the one parser."""

import re
from dataclasses import dataclass

_METADATA = re.compile(
    r"next=(\d+) from=(\d+) closed=\d+ pane_ns=(\d+) shift_ns=(\d+)(?: at=(\d+) late=(\d+))?"
)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a reader that goes on from a commit must know, besides its offset."""

    next_pane: int
    """The next pane to decide."""
    unread_from: int
    """Offset: records before it were decided."""
    pane_ns: int
    shift_ns: int
    log_time_ns: int | None = None
    """Log time of the commit's own record, which may differ from its stamp; None: written before 0033."""
    late_until_ns: int = 0
    """Rows of hours that ended until then are marked late from here on, whatever the grace becomes."""

    @classmethod
    def parse(cls, metadata: str) -> "Progress | None":
        """None for no metadata: the log's own start. Raises ValueError where meshflow did not write it."""
        if not metadata:
            return None
        match = _METADATA.fullmatch(metadata)
        if not match:
            raise ValueError(f"the commit's metadata {metadata!r} is not meshflow's")
        next_pane, unread_from, pane_ns, shift_ns = map(int, match.groups()[:4])
        log_time_ns, late_until_ns = (None if text is None else int(text) for text in match.groups()[4:])
        return cls(next_pane, unread_from, pane_ns, shift_ns, log_time_ns, late_until_ns or 0)

    def format(self) -> str:
        """The commit's metadata. ``closed`` is for readers of before ADR 45, which stored RED at the close:
        no pane that was not decided has given anything.
        """
        text = (
            f"next={self.next_pane} from={self.unread_from} closed={self.unread_from}"
            f" pane_ns={self.pane_ns} shift_ns={self.shift_ns}"
        )
        if self.log_time_ns is None:
            return text
        return f"{text} at={self.log_time_ns} late={self.late_until_ns}"

    @property
    def decided_until_ns(self) -> int:
        """Log time up to which the partition's blocks are stored: the start of the next pane to decide."""
        return self.next_pane * self.pane_ns + self.shift_ns

"""How far processing is, over all partitions of spans and metrics: what jobs over the store go by."""

from collections.abc import Iterable
from typing import NamedTuple


class Watermark(NamedTuple):
    """Two times of the log (ns since 1970), each of the partition that is furthest behind.

    A function of what the partitions have committed, not of a clock and not of settings: so workers whose
    settings differ, as in a rolling restart, come to the same one.
    """

    stored_until_ns: int
    """Start of the next pane to decide: what is known of spans before it is stored."""
    final_until_ns: int
    """Rows of hours (of slots) that ended until then are final: what still comes is marked late."""

    @classmethod
    def of(cls, partitions: Iterable["Watermark"]) -> "Watermark":
        """That of a log with these partitions; UNKNOWN without any."""
        found = list(partitions)
        return cls(*(min(times) for times in zip(*found, strict=True))) if found else UNKNOWN


UNKNOWN = Watermark(0, 0)
"""A partition's without a commit, and what a worker knows that is not the one to run jobs."""

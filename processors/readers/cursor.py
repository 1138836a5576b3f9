"""How far the reading of one partition of a Kafka log is: what to do with each offset that arrives, and what
to commit. No I/O.
"""

import asyncio
from enum import Enum, auto

from schemas.errors import LogUnavailable
from schemas.records import Commit, TopicPartition

SEEKS = 10
"""How often a record that Kafka has, but that does not arrive, is read again before it is given up as
lost.
"""

SEEK_EVERY_S = 1.0


class Arrival(Enum):
    """What to do with an offset that arrived."""

    TAKE = auto()
    SKIP = auto()
    """Seen already, or fetched before a seek."""
    AHEAD = auto()
    """Offsets are missing before it: ask Kafka what there is, then :meth:`Cursor.bridge`."""


class Cursor:
    """How far the reading is. ``closed``: the partition went to another worker; nothing of it is to be
    written or committed any more.
    """

    def __init__(self, tp: TopicPartition, offset: int | None, beginning: int, end: int) -> None:
        """``offset``: where to begin; None: at the beginning. ``beginning``, ``end``: the first offset there
        is, and the next one to come.

        Raises LogUnavailable when ``offset`` lies beyond the end: it is of another topic of this name.
        """
        self.tp = tp
        self.closed = False
        self.commit: Commit | None = None
        self.committed: Commit | None = None
        self.in_hand: asyncio.Task[bool] | None = None
        """What was begun last, and whether all of it was done."""
        self._seeks = 0
        self._seek_s = float("-inf")
        wanted = beginning if offset is None else offset
        if wanted > end:
            raise LogUnavailable(
                f"{tp.topic}/{tp.partition} ends at {end}, but {wanted} is committed:"
                " was the topic made anew? Then remove the consumer group's offsets"
            )
        if wanted < beginning:
            self.lose(wanted, beginning)
        self.next_offset = max(wanted, beginning)

    def lose(self, wanted: int, until: int) -> None:
        """Records of [wanted, until) will never be read."""

    @property
    def whole(self) -> bool:
        """Whether nothing is in hand, and all that was begun was done."""
        task = self.in_hand
        return task is None or (
            task.done() and not task.cancelled() and task.exception() is None and task.result()
        )

    def taken(self, offset: int) -> None:
        """The record of :attr:`next_offset` is in hand."""
        self.next_offset = offset + 1
        self._seeks = 0

    def arrival(self, offset: int, now_s: float) -> Arrival:
        """What to do with the record of this offset; ``now_s`` is a monotonic clock's."""
        if offset == self.next_offset:
            return Arrival.TAKE
        if offset < self.next_offset or now_s < self._seek_s + SEEK_EVERY_S:
            return Arrival.SKIP
        return Arrival.AHEAD

    def bridge(self, offset: int, beginning: int, there: int, now_s: float) -> int | None:
        """Between the next offset and this one records are missing: None to go on with this one, else the
        offset to seek.

        ``there``: the first offset from the next one on that Kafka has a record at, ``beginning`` the
        partition's first one, asked after it. What retention has removed is lost. Offsets before ``there``
        that it has not removed are no loss: transaction markers, or records that compaction has replaced by
        newer ones. The rest was dropped on the way and is read again; what still stays away is lost.
        """
        if beginning > self.next_offset:
            self.pass_over(min(beginning, offset), lost=True)
        if there > self.next_offset:
            self.pass_over(min(there, offset), lost=False)
        if offset > self.next_offset and self._seeks < SEEKS:
            self._seeks += 1
            self._seek_s = now_s
            return self.next_offset
        self.pass_over(offset, lost=True)
        return None

    def pass_over(self, until: int, *, lost: bool) -> None:
        """Go on with offset ``until``; the records before it are lost, or there are none."""
        if lost and until > self.next_offset:
            self.lose(self.next_offset, until)
        self.next_offset = until
        self._seeks = 0

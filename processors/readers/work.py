"""What a reader of Kafka does with the records that it reads: the protocol of its work."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from processors.readers.cursor import Cursor
from schemas.records import Commit, Record

_C = TypeVar("_C", bound=Cursor)


class Work(Protocol[_C]):
    """What is done with the records that an app reads."""

    @property
    def topics(self) -> Mapping[str, int | None]:
        """Kafka's names of the topics to read; how many partitions each must have (None: any number)."""

    @property
    def settle_s(self) -> float:
        """How long a rebalance waits for what is in hand. What takes longer must do no harm when it is done
        again by another worker.
        """

    @property
    def keeps(self) -> bool:
        """Whether a cursor goes on after a rebalance that leaves its partition here. What is in hand then
        goes on during the rebalance, so it must do no harm when another worker does it too.
        """

    @property
    def in_hand(self) -> "Iterable[asyncio.Task[Any]]":
        """What has begun and is to be finished before a stop."""

    def cursor(self, topic: str, number: int, commit: Commit | None, beginning: int, end: int) -> _C:
        """Begin with a partition that was assigned; it is closed when it is taken away."""

    async def take(self, cursor: _C, record: Record, *, more: bool) -> None:
        """Take the record of the cursor's next offset; the next one comes when this returns. ``more``: it is
        there already.

        Cancelled at a stop or when the partition is taken away. Anything raised ends the app.
        """

    async def look_after(self, cursor: _C) -> None:
        """Called before each commit by time."""

    def publish(self, cursor: _C, end: int | None) -> None:
        """Show how far it is; ``end``: the offset after the newest record there is, where known."""

    def withdraw(self, cursor: _C) -> None:
        """Show it no longer: it was taken away."""

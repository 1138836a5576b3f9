"""Take records -> emit -> set aside -> store -> commit: the one loop body of every log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from processors.memory import give_back
from processors.panes import Emit
from processors.readers.partition import Partition
from processors.storing import write_blocks
from schemas import self_metrics
from schemas.errors import ProcessingFailed
from schemas.records import Commit, DeadLetter, Record, TopicPartition
from schemas.sink import Sink

_LOGGER = logging.getLogger(__name__)

SetAside = Callable[[TopicPartition, Sequence[DeadLetter]], Awaitable[None]]
"""Puts dead letters where they can be looked at; the same ones may come again."""

StoreCommit = Callable[[TopicPartition, Commit], Awaitable[None]]

_T = TypeVar("_T")


async def only_logged(tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
    """A SetAside that keeps nothing but the line in meshflow's own log."""


async def committed_later(tp: TopicPartition, commit: Commit) -> None:
    """A StoreCommit where someone else commits what ``Partition.commit`` says, from time to time."""


class PaneStore:
    """Feeds partitions and stores what they give. One event loop's; work and inserts run in threads."""

    def __init__(
        self,
        sink: Sink,
        *,
        set_aside: SetAside = only_logged,
        store_commit: StoreCommit = committed_later,
        threads: int = 1,
    ) -> None:
        """``sink`` tries again by itself while the database is away; it is used from ``threads`` threads."""
        self._sink = sink
        self._set_aside = set_aside
        self._store_commit = store_commit
        # always the same ones: what a thread frees, it takes again
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="meshflow-processing")

    async def take(self, partition: Partition, records: Sequence[Record]) -> bool:
        """Process the partition's next records; True when all that they settle is stored and committed,
        False when the partition was closed before.

        Raises SinkUnavailable (the sink was stopped), SinkUnusable, SinkRejected, ProcessingFailed.
        """
        for emit in await self._in_thread(partition.feed, records):
            await self.put_aside(partition.tp, emit.dead_letters)
            refused = await self._in_thread(self._write, partition, emit)
            if refused is None:
                return False
            await self.put_aside(partition.tp, refused)
            await self._store_commit(partition.tp, emit.commit)
            partition.commit = emit.commit
            self_metrics.PANES.labels(partition.tp.topic).inc(bool(emit.blocks))
        return True

    async def put_aside(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        """Log, count and keep dead letters."""
        if not letters:
            return
        for letter in letters:
            _LOGGER.error("%s/%d: record %d is set aside: %s", *tp, letter.offset, letter.reason)
        self_metrics.DEAD_LETTERS.labels(tp.topic).inc(len(letters))
        await self._set_aside(tp, letters)

    def close(self) -> None:
        """Take no more work; threads that wait for the database end when the sink is stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _write(self, partition: Partition, emit: Emit) -> list[DeadLetter] | None:
        """Letters for rows that the database refuses; None: the partition was closed before the end."""
        letters = write_blocks(self._sink, _while_open(partition, emit))
        if emit.blocks:
            give_back()
        return None if partition.closed else letters

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _contained, work, *arguments)


def _contained(work: Callable[..., _T], *arguments: Any) -> _T:
    """Do the work of a thread. A panic of native code is no Exception: a task would hand it on as it does a
    cancellation, and whoever waits for the task would take it for one.
    """
    try:
        return work(*arguments)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ProcessingFailed(f"native code has failed: {type(error).__name__}: {error}") from error


def _while_open(partition: Partition, emit: Emit) -> Any:
    for block in emit.blocks:
        if partition.closed:
            return
        yield block

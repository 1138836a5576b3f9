"""From the spool into Kafka, in order, and nothing twice: what may be there already is looked for first."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from log.kafka.writer import KafkaLogWriter
from log.spool.format import NEVER_SENT, Entry
from log.spool.spool import Chunk, Spool
from log.spool.state import Progress
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition

CHUNK_BYTES = 16 << 20
"""OTLP that is drained at once; less after a failure, since it may be too much for the time that an append
may take.
"""

_T = TypeVar("_T")


class Drain:
    """Moves one spool's entries. ``threads`` is the one that the spool is used from; ``chunk_bytes`` of OTLP
    are moved at once, at most.
    """

    def __init__(self, spool: Spool, threads: ThreadPoolExecutor, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._spool = spool
        self._threads = threads
        self._most_bytes = self._chunk_bytes = chunk_bytes

    async def peek(self) -> tuple[Chunk, bool]:
        """What is next, and whether that is all there is. Raises LogUnavailable."""

        def look() -> tuple[Chunk, bool]:
            chunk = self._spool.peek(self._chunk_bytes)
            return chunk, chunk.until == self._spool.progress.drained + self._spool.entries

        return await self._in_thread(look)

    async def move(self, kafka: KafkaLogWriter, chunk: Chunk) -> None:
        """Return when the chunk is in the log and noted as drained. Raises LogUnavailable; then
        :meth:`KafkaLogWriter.settle` first.
        """
        try:
            there = await kafka.find(doubtful(chunk.entries, self._spool.progress))
            ends = ends_before(self._spool.progress, kafka.ends())
            await self._in_thread(self._spool.note_sending, chunk.until, ends)
            await kafka.append(
                [entry.append for entry in chunk.entries], [entry.id for entry in chunk.entries], there
            )
        except LogUnavailable:
            self._chunk_bytes //= 2
            raise
        self._chunk_bytes = min(self._most_bytes, max(1, self._chunk_bytes * 2))
        await self._in_thread(self._spool.drop, chunk)

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def doubtful(entries: list[Entry], progress: Progress) -> list[tuple[Append, bytes, int]]:
    """What may be in the log: append, id, and the offset from which on."""
    found = []
    for entry in entries:
        if entry.since != NEVER_SENT:
            found.append((entry.append, entry.id, entry.since))
        elif entry.number < progress.sent:
            found.append((entry.append, entry.id, progress.ends.get(entry.append.tp, 0)))
    return found


def ends_before(progress: Progress, now: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
    """From where a next process must look. While something that was tried before is left, that is where
    partitions ended before then.
    """
    if progress.sent > progress.drained:
        return {tp: min(end, progress.ends.get(tp, 0)) for tp, end in now.items()}
    return now

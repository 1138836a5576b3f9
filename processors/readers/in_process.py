"""Processing in process: reads every partition of the log in turn, feeds processors, stores blocks,
commits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from processors.memory import give_back
from processors.panes import Emit
from processors.readers.partition import Processor, decided_until_ns
from schemas import self_metrics
from schemas.errors import LogUnavailable, OffsetGone, SinkUnavailable
from schemas.records import Commit, DeadLetter, LogReader, TopicPartition
from schemas.sink import Sink
from schemas.tables import Block
from schemas.topics import SPANS
from schemas.units import NS_PER_S

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SetAside = Callable[[TopicPartition, Sequence[DeadLetter]], Awaitable[None]]

READ_BYTES = 16 << 20
"""Unpacked OTLP that is read, and held, at a time."""


@dataclass(slots=True)
class _Partition:
    tp: TopicPartition
    processor: Processor
    offset: int


class Consumer:
    """Processes a whole log. One task's; CPU work and inserts run in a thread, one at a time."""

    def __init__(
        self, reader: LogReader, sink: Sink, poll_s: float, set_aside: SetAside | None = None
    ) -> None:
        """``sink`` tries again by itself while the database is away; ``poll_s`` is how long to sleep when a
        round found nothing; ``set_aside`` keeps dead letters.
        """
        self._set_aside = set_aside
        self._reader = reader
        self._sink = sink
        self._poll_s = poll_s
        self._partitions: list[_Partition] = []
        self._stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(
            1, "meshflow-processing"
        )  # always the same: what it frees, it takes again
        self.commits: dict[TopicPartition, Commit] = {}
        """The newest commit of each partition that has one."""

    async def open(self, make: Callable[[TopicPartition, Commit | None], Processor]) -> None:
        """Make a processor for each partition, at its newest commit."""
        for tp in await self._reader.partitions():
            commit = await self._reader.committed(tp)
            if commit:
                self.commits[tp] = commit
            processor = make(tp, commit)
            offset = await self._reader.beginning(tp) if processor.offset is None else processor.offset
            self._partitions.append(_Partition(tp, processor, offset))

    @property
    def watermark_ns(self) -> int:
        """Log time up to which what is known of spans is stored, in every partition; 0 while that is not
        known of one.
        """
        ends = [
            decided_until_ns(self.commits[partition.tp]) if partition.tp in self.commits else 0
            for partition in self._partitions
            if partition.tp.topic == SPANS
        ]
        return min(ends, default=0)

    def stop(self) -> None:
        """Let :meth:`run` finish the portion in hand, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Process until :meth:`stop`. Whatever is raised is an error that trying again would not mend."""
        with self._thread:
            while not self._stopping.is_set():
                busy = False
                for partition in self._partitions:
                    busy |= await self._step(partition)
                    if self._stopping.is_set():
                        return
                if not busy:
                    await self._pause()

    async def _step(self, partition: _Partition) -> bool:
        """Process one portion of a partition; False when there was nothing to read."""
        try:
            records = await self._reader.read(partition.tp, partition.offset, READ_BYTES)
        except OffsetGone as gone:
            logger.error("%s: %s; these records were not processed", _name(partition.tp), gone)
            partition.processor.gap(gone.wanted, gone.beginning)
            partition.offset = gone.beginning
            return True
        lag = self_metrics.LAG_RECORDS.labels(partition.tp.topic, partition.tp.partition)
        if not records:
            lag.set(0)
            return False
        lag.set(await self._reader.end(partition.tp) - partition.offset)
        for emit in await self._in_thread(partition.processor.feed, records):
            if not await self._store(partition.tp, emit):
                return True  # stopped; what is not committed is read again, and its blocks are known by their tokens
        partition.offset = records[-1].offset + 1
        if commit := self.commits.get(partition.tp):
            delay_ns = records[-1].append_time_ns - decided_until_ns(commit)
            self_metrics.DECISION_DELAY_SECONDS.labels(partition.tp.topic, partition.tp.partition).set(
                delay_ns / NS_PER_S
            )
        return True

    async def _store(self, tp: TopicPartition, emit: Emit) -> bool:
        """Write and commit what a pane gave; False when stopped before."""
        for letter in emit.dead_letters:
            logger.error("%s: record %d is set aside: %s", _name(tp), letter.offset, letter.reason)
            self_metrics.DEAD_LETTERS.labels(tp.topic).inc()
        try:
            if emit.dead_letters and self._set_aside is not None:
                await self._set_aside(tp, emit.dead_letters)
            await self._in_thread(self._write, emit.blocks)
            await self._reader.commit(tp, emit.commit)
        except (SinkUnavailable, LogUnavailable):
            if self._stopping.is_set():
                return False
            raise
        self_metrics.PANES.labels(tp.topic).inc(bool(emit.blocks))
        self.commits[tp] = emit.commit
        return True

    def _write(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self._sink.write(block)
        if blocks:
            give_back()

    async def _in_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._poll_s)


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"

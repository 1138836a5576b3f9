"""Reading in process: every partition of a LogReader's log in turn."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from processors.readers.pane_store import PaneStore, SetAside, only_logged
from processors.readers.partition import Partition, Processor, watermark_of
from schemas import self_metrics
from schemas.errors import LogUnavailable, OffsetGone, SinkUnavailable
from schemas.records import Commit, LogReader, TopicPartition
from schemas.sink import Sink
from schemas.topics import METRICS, SPANS
from schemas.units import NS_PER_S
from schemas.watermark import Watermark

logger = logging.getLogger(__name__)

READ_BYTES = 16 << 20
"""Unpacked OTLP that is read, and held, at a time."""


class Consumer:
    """Processes a whole log. One task's; CPU work and inserts run in a thread, one at a time."""

    def __init__(
        self, reader: LogReader, sink: Sink, poll_s: float, set_aside: SetAside = only_logged
    ) -> None:
        """``sink`` tries again by itself while the database is away; ``poll_s`` is how long to sleep when a
        round found nothing; ``set_aside`` keeps dead letters.
        """
        self._reader = reader
        self._store = PaneStore(sink, set_aside=set_aside, store_commit=self._commit)
        self._poll_s = poll_s
        self._partitions: list[Partition] = []
        self._stopping = asyncio.Event()
        self.commits: dict[TopicPartition, Commit] = {}
        """The newest commit of each partition that has one."""

    async def open(self, make: Callable[[TopicPartition, Commit | None], Processor]) -> None:
        """Make a processor for each partition, at its newest commit. Raises ValueError for a commit, or a
        partition, that is not of the settings; LogUnavailable for a commit beyond the log's end.
        """
        for tp in await self._reader.partitions():
            commit = await self._reader.committed(tp)
            if commit:
                self.commits[tp] = commit
            beginning, end = await self._reader.beginning(tp), await self._reader.end(tp)
            self._partitions.append(Partition(tp, make(tp, commit), beginning, end))

    async def watermark(self) -> Watermark:
        """How far all partitions of spans and metrics are, by their commits."""
        tps = [partition.tp for partition in self._partitions if partition.tp.topic in (SPANS, METRICS)]
        return Watermark.of(watermark_of(self.commits.get(tp)) for tp in tps)

    def stop(self) -> None:
        """Let :meth:`run` finish the portion in hand, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Process until :meth:`stop`. Whatever is raised is an error that trying again would not mend."""
        try:
            while not self._stopping.is_set():
                busy = False
                for partition in self._partitions:
                    busy |= await self._step(partition)
                    if self._stopping.is_set():
                        return
                if not busy:
                    await self._pause()
        finally:
            self._store.close()

    async def _step(self, partition: Partition) -> bool:
        """Process one portion of a partition; False when there was nothing to read."""
        try:
            records = await self._reader.read(partition.tp, partition.next_offset, READ_BYTES)
        except OffsetGone as gone:
            logger.error("%s/%d: %s; these records were not processed", *partition.tp, gone)
            partition.pass_over(gone.beginning, lost=True)
            return True
        lag = self_metrics.LAG_RECORDS.labels(*partition.tp)
        if not records:
            lag.set(0)
            return False
        lag.set(await self._reader.end(partition.tp) - partition.next_offset)
        try:
            await self._store.take(partition, records)
        except (SinkUnavailable, LogUnavailable):
            if not self._stopping.is_set():
                raise
            return True  # what is not committed is read again, and its blocks are known by their tokens
        if (delay_ns := partition.decision_delay_ns) is not None:
            self_metrics.DECISION_DELAY_SECONDS.labels(*partition.tp).set(delay_ns / NS_PER_S)
        return True

    async def _commit(self, tp: TopicPartition, commit: Commit) -> None:
        await self._reader.commit(tp, commit)
        self.commits[tp] = commit

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._poll_s)

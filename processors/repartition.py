"""Topics of other writers -> the log, split by trace id as ingest does it (docs/adr/0021).

At least once: what was read is committed when the log has it. A batch that was written but not committed (a
kill, a rebalance) is written again by the next worker, and its items are dropped as copies within the
lookback of processing (invariant 8).
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from log.kafka.brokers import Brokers
from processors.isolation import Breaker, Fault, attempt
from processors.readers import faust as reading
from processors.readers.cursor import Cursor
from processors.readers.pane_store import SetAside
from processors.settings import ProcessorSettings
from schemas import otlp, self_metrics
from schemas.errors import LogUnavailable
from schemas.records import Append, Commit, DeadLetter, LogWriter, Record, TopicPartition

_LOGGER = logging.getLogger(__name__)
_RETRY_S = 1.0
_SETTLE_S = 2.0


_Labels = tuple[tuple[str, str], ...]
"""A record's labels, as a key."""


class Source(Cursor):
    """One partition that is read. ``topic``: the log's, that its records are for; ``batch``: records read,
    but not yet in the log.
    """

    def __init__(
        self,
        tp: TopicPartition,
        topic: str,
        commit: Commit | None,
        beginning: int,
        end: int,
        *,
        breaker: Breaker,
    ) -> None:
        """See :class:`processors.readers.cursor.Cursor`."""
        self.topic = topic
        self.batch: list[Record] = []
        self.size = 0
        self.lost = 0
        self.busy = asyncio.Lock()
        self.breaker = breaker
        super().__init__(tp, commit.offset if commit else None, beginning, end)

    def lose(self, wanted: int, until: int) -> None:
        """Records of [wanted, until) will never be read: the next batch carries their number to the log,
        and the ledger counts them.
        """
        self.lost += until - wanted

    def add(self, record: Record) -> None:
        """Take the record of the next offset."""
        self.taken(record.offset)
        self.batch.append(record)
        self.size += record.size

    def take_batch(self) -> tuple[list[Record], int, Commit]:
        """The records that were added since the last call, how many were lost, and the commit for when the
        log has both.
        """
        batch, lost, self.batch, self.size, self.lost = self.batch, self.lost, [], 0, 0
        return batch, lost, Commit(self.next_offset, "")


def split_batch(
    topic: str, records: Sequence[Record], lost: int, partitions: int, breaker: Breaker
) -> tuple[list[Append], int, list[DeadLetter]]:
    """What to append to ``topic``, one record for each partition and set of labels; how many items that is;
    and the records that cannot be split: those are not OTLP, or make splitting fail in another way.

    These, and items without valid ids, are counted as rejected. Raises ProcessingFailed (the breaker; memory
    is short).
    """
    parts: defaultdict[tuple[int, _Labels], list[bytes]] = defaultdict(list)
    counts: Counter[str] = Counter(lost=lost)
    letters = []
    items = 0
    for record in records:
        counts.update(record.headers)
        split = attempt(partial(_split, topic, record, partitions))
        if isinstance(split, Fault):
            breaker.failed(split)
            letters.append(DeadLetter(record, split.reason))
            counts["rejected"] += 1
            continue
        breaker.passed(1)
        items += split.items
        counts["rejected"] += split.rejected
        counts["repaired"] += split.repaired
        labels = tuple(sorted(record.labels.items()))
        for partition, part in split.parts.items():
            parts[partition, labels].append(part)
    headers = {name: count for name, count in counts.items() if count}
    if headers:
        parts[min(parts, default=(0, ()))].append(
            b""
        )  # a record that only carries counts, where there is no other
    first = min(parts, default=(0, ()))
    appends = [
        Append(
            TopicPartition(topic, to[0]), b"".join(pieces), headers if to == first else {}, dict(to[1])
        )  # messages end to end are one
        for to, pieces in sorted(parts.items())
    ]
    return appends, items, letters


def _split(topic: str, record: Record, partitions: int) -> otlp.Split:
    return otlp.split(topic, record.unpack(), partitions)


class SplitWork:
    """What is done with each record (:class:`processors.readers.work.Work`): batches of what there is,
    bounded by size.
    """

    settle_s = _SETTLE_S
    keeps = False  # what is written twice is two records

    def __init__(
        self, prefix: str, settings: ProcessorSettings, writer: LogWriter, set_aside: SetAside
    ) -> None:
        """``writer``: the log's, its topics after ``prefix``. Raises LogUnavailable where a topic would be
        read and written.
        """
        given = settings.repartition
        self._sources = {given.source_prefix + name: (name, topic) for name, topic in given.sources.items()}
        self.topics: dict[str, int | None] = dict.fromkeys(self._sources)
        self.in_hand: set[asyncio.Task[None]] = set()
        self._breaker = settings.breaker
        self._partitions = settings.partitions
        self._batch_bytes = given.batch
        self._writer = writer
        self._set_aside = set_aside
        self._closed = False
        self._threads = ThreadPoolExecutor(settings.kafka.threads, thread_name_prefix="meshflow-repartition")
        if both := set(self._sources) & {prefix + topic for _, topic in self._sources.values()}:
            raise LogUnavailable(
                f"{', '.join(sorted(both))} would be read and written; set processing.repartition.source_prefix"
            )

    def cursor(self, topic: str, number: int, commit: Commit | None, beginning: int, end: int) -> Source:
        """Read on where the last one left off; raises LogUnavailable when that is beyond the end."""
        name, target = self._sources[topic]
        given = self._breaker
        breaker = Breaker(given.in_a_row, given.share, given.of_records)
        return Source(TopicPartition(name, number), target, commit, beginning, end, breaker=breaker)

    async def take(self, cursor: Source, record: Record, *, more: bool) -> None:
        """Put a record into the batch; where that is full, or there is no other record yet, return when it is
        in the log.
        """
        cursor.add(record)
        if not more or cursor.size >= self._batch_bytes:
            await self._flush(cursor)

    async def look_after(self, cursor: Source) -> None:
        """Write what waits for a record that does not come: offsets after it may be ones without a record."""
        if (cursor.batch or cursor.lost) and not cursor.busy.locked():
            await self._flush(cursor)

    def publish(self, cursor: Source, end: int | None) -> None:
        """Show the lag."""
        if end is not None:
            self_metrics.LAG_RECORDS.labels(*cursor.tp).set(max(0, end - cursor.next_offset))

    def withdraw(self, cursor: Source) -> None:
        """Show it no longer."""
        self_metrics.LAG_RECORDS.remove(*map(str, cursor.tp))

    def close(self) -> None:
        """Take no more work, and give up what waits for the log."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _flush(self, source: Source) -> None:
        task = asyncio.create_task(self._write(source))
        self.in_hand.add(task)
        task.add_done_callback(self._let_go)
        await asyncio.shield(task)  # a stop cancels agents, but lets what is in hand be finished

    def _let_go(self, task: "asyncio.Task[None]") -> None:
        self.in_hand.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _LOGGER.debug(
                "a batch was not written", exc_info=error
            )  # the agent crashes of it, unless the partition went away before

    async def _write(self, source: Source) -> None:
        async with source.busy:
            records, lost, commit = source.take_batch()
            loop = asyncio.get_running_loop()
            appends, items, letters = await loop.run_in_executor(
                self._threads, split_batch, source.topic, records, lost, self._partitions, source.breaker
            )
            if letters:
                await self._put_aside(source.tp, letters)
            while appends and not source.closed and not self._closed:
                try:
                    await self._writer.append(appends)
                    self_metrics.REPARTITIONED.labels(source.topic).inc(items)
                    break
                except LogUnavailable as error:
                    _LOGGER.warning("%s/%d waits for the log: %s", *source.tp, error)
                    await asyncio.sleep(_RETRY_S)
            else:
                if appends:
                    return  # the next worker reads it again
            if records or lost:
                source.commit = commit

    async def _put_aside(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            _LOGGER.error("%s/%d: record %d is set aside: %s", *tp, letter.offset, letter.reason)
        self_metrics.DEAD_LETTERS.labels(tp.topic).inc(len(letters))
        await self._set_aside(tp, letters)


class Repartitioner:
    """A member of the group that splits. One event loop's."""

    def __init__(
        self,
        brokers: Brokers,
        prefix: str,
        settings: ProcessorSettings,
        *,
        writer: LogWriter,
        set_aside: SetAside,
    ) -> None:
        """See SplitWork."""
        self._work = SplitWork(prefix, settings, writer, set_aside)
        self._app = reading.build_app(
            brokers, prefix + settings.repartition.group, settings.kafka, self._work
        )

    async def serve(self, stop: asyncio.Event) -> bool:
        """See :func:`processors.readers.faust.serve`."""
        try:
            return await reading.serve(self._app, stop)
        finally:
            self._work.close()

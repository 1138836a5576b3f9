"""One of the workers that process a log on Kafka: records into panes, panes into blocks, blocks into the
store, and then the commit.
"""

import asyncio
import logging
from collections.abc import Callable

from log.kafka.brokers import Brokers
from processors.readers import faust as reading
from processors.readers.pane_store import PaneStore, SetAside
from processors.readers.partition import Partition, Processor, watermark_of
from processors.settings import ProcessorSettings
from schemas import self_metrics
from schemas.errors import LogUnavailable
from schemas.records import Commit, Record, TopicPartition
from schemas.sink import Sink
from schemas.topics import METRICS, SPANS, TOPICS
from schemas.units import NS_PER_S
from schemas.watermark import UNKNOWN, Watermark

_LOGGER = logging.getLogger(__name__)

MakeProcessor = Callable[[TopicPartition, Commit | None], Processor]


class PaneWork:
    """What is done with each record (:class:`processors.readers.work.Work`)."""

    settle_s = 0.0  # a pane in hand is stored under the same tokens by the next worker
    keeps = True

    def __init__(
        self,
        prefix: str,
        settings: ProcessorSettings,
        make_processor: MakeProcessor,
        sink: Sink,
        set_aside: SetAside,
    ) -> None:
        """``sink`` tries again by itself while the database is away; it is used from several threads."""
        self.topics = {prefix + topic: settings.partitions for topic in TOPICS}
        self.in_hand: set[asyncio.Task[bool]] = set()
        self._prefix = prefix
        self._make_processor = make_processor
        self._store = PaneStore(sink, set_aside=set_aside, threads=settings.kafka.threads)

    def cursor(self, topic: str, number: int, commit: Commit | None, beginning: int, end: int) -> Partition:
        """A processor for the partition. Raises LogUnavailable, ValueError: the commit, or the partition, is
        not of these settings.
        """
        tp = TopicPartition(topic.removeprefix(self._prefix), number)
        return Partition(tp, self._make_processor(tp, commit), beginning, end)

    async def take(self, cursor: Partition, record: Record, *, more: bool) -> None:  # noqa: ARG002
        """Process a record; return when what it settles is stored."""
        if not cursor.processor.may_settle(record):
            cursor.feed([record])  # it is put with the others of its pane, no more
            return
        task = asyncio.create_task(self._store.take(cursor, [record]))
        cursor.in_hand = task
        self.in_hand.add(task)
        task.add_done_callback(self._let_go)
        await asyncio.shield(task)  # a stop cancels agents, but lets what is in hand be finished

    async def look_after(self, cursor: Partition) -> None:
        """Nothing: panes close by log time."""

    def publish(self, cursor: Partition, end: int | None) -> None:
        """Show lag, pane and decision delay."""
        if end is not None:
            self_metrics.LAG_RECORDS.labels(*cursor.tp).set(max(0, end - cursor.next_offset))
        if (pane := cursor.next_pane) is not None and (delay_ns := cursor.decision_delay_ns) is not None:
            self_metrics.PANE.labels(*cursor.tp).set(pane)
            self_metrics.DECISION_DELAY_SECONDS.labels(*cursor.tp).set(delay_ns / NS_PER_S)

    def withdraw(self, cursor: Partition) -> None:
        """Show them no longer."""
        for gauge in (self_metrics.LAG_RECORDS, self_metrics.PANE, self_metrics.DECISION_DELAY_SECONDS):
            gauge.remove(*map(str, cursor.tp))

    def close(self) -> None:
        """Take no more work; threads that wait for the database end when the sink is stopped."""
        self._store.close()

    def _let_go(self, task: "asyncio.Task[bool]") -> None:
        self.in_hand.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _LOGGER.debug(
                "a pane was not stored", exc_info=error
            )  # the agent crashes of it, unless the partition went away before


class Worker:
    """A member of the group of workers. One event loop's."""

    def __init__(
        self,
        brokers: Brokers,
        prefix: str,
        settings: ProcessorSettings,
        make_processor: MakeProcessor,
        *,
        sink: Sink,
        set_aside: SetAside,
    ) -> None:
        """Of the topics ``otlp_*``, their names after ``prefix``; see PaneWork for the rest."""
        self._settings = settings
        self._prefix = prefix
        self._work = PaneWork(prefix, settings, make_processor, sink, set_aside)
        self._app = reading.build_app(brokers, prefix + settings.kafka.group, settings.kafka, self._work)

    async def serve(self, stop: asyncio.Event) -> bool:
        """See :func:`processors.readers.faust.serve`."""
        try:
            return await reading.serve(self._app, stop)
        finally:
            self._work.close()

    @property
    def partitions(self) -> list[Partition]:
        """Those that the group gave to this worker."""
        return list(self._app.cursors.values())

    async def watermark(self) -> Watermark:
        """How far partitions of spans and metrics are, by the group's commits; UNKNOWN while Kafka is away.

        UNKNOWN also where another worker has the first partition: one worker of a group runs the jobs.
        """
        if TopicPartition(SPANS, 0) not in {partition.tp for partition in self.partitions}:
            return UNKNOWN
        try:
            commits = [
                commit
                for topic in (SPANS, METRICS)
                for commit in await self._app.committed(self._prefix + topic, self._settings.partitions)
            ]
        except LogUnavailable as error:
            _LOGGER.warning("how far the group is is not known: %s", error)
            return UNKNOWN
        return Watermark.of(map(watermark_of, commits))

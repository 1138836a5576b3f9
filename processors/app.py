"""The reader of a log on Kafka: a Faust app. The only file that knows Faust.

Faust does membership, fetching, back-pressure and dispatch (one agent for each partition). Its acks are not used, since it would commit
past records that are still needed (invariant 4): aiokafka's consumer, which Faust drives, commits what processors say, with metadata, and
reading begins there after each rebalance. Whatever fails ends the worker, loudly; another one, or the next start, reads the lookback again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver

from processors.panes import DeadLetter, Emit, PaneClock
from processors.partition import Arrival, Partition, Processor, decided_until_ns
from processors.settings import ProcessorSettings
from schemas import self_metrics
from schemas.errors import LogUnavailable
from schemas.log import Commit, Record, TopicPartition
from schemas.sink import Sink
from schemas.topics import SPANS, TOPICS
from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)

_BUFFERED_RECORDS = 4
"""Records that wait for each agent; what is fetched beyond them stays with the consumer."""

_FETCH_BYTES = 4 << 20
_KAFKA_S = 10.0
"""How long a request to the brokers may take before it is given up (aiokafka itself would try for ever)."""

_PATIENCE = 5
_CRASHED_S = 5.0
"""How long a crashed app may take to stop: its parts may wait for one another for ever."""
_START_S = 30.0
"""How long a start waits for the brokers."""

MakeProcessor = Callable[[TopicPartition, Commit | None], Processor]
SetAside = Callable[[TopicPartition, Sequence[DeadLetter]], Awaitable[None]]
"""Puts dead letters where they can be looked at."""

_T = TypeVar("_T")


class _Boot(BootStrategy):
    enable_web = enable_kafka_producer = enable_sensors = False


class _Consumer(driver.Consumer):
    """Begins to read where processors want to, not at the committed offset."""

    app: "ProcessApp"

    async def perform_seek(self) -> None:
        """Called after every rebalance, sometimes twice, and once with the old partitions still."""
        here = self.assignment()
        await self.seek_wait({tp: partition.next_offset for tp, partition in self.app.partitions.items() if tp in here})

    async def kafka(self, ask: Callable[[AIOKafkaConsumer], Awaitable[_T]]) -> _T:
        """Ask aiokafka's consumer, in the loop of its own thread."""

        async def asked() -> _T:
            return await asyncio.wait_for(ask(self._thread._ensure_consumer()), _KAFKA_S)

        answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked(), self._thread.thread_loop))
        return await asyncio.wait_for(answer, 2 * _KAFKA_S)  # a thread that has ended does not answer either


class _Transport(driver.Transport):
    Consumer = _Consumer


class ProcessApp(faust.App):
    """Processes the partitions that the group gives it. Made by :func:`build_app`."""

    BootStrategy = _Boot
    consumer: _Consumer
    partitions: dict[Any, Partition]
    """By Faust's partition; made anew after every rebalance."""
    settings: ProcessorSettings
    bootstrap: list[str]
    prefix: str
    make_processor: MakeProcessor
    sink: Sink
    set_aside: SetAside
    threads: ThreadPoolExecutor
    in_hand: "set[asyncio.Task[None]]"
    stopping: bool

    def _new_transport(self) -> driver.Transport:
        return _Transport(self.conf.broker_consumer, self)

    async def begin(self) -> None:
        """Make a processor for each partition that was assigned, at its committed offset."""
        tps = [KafkaPartition(*tp) for tp in self.consumer.assignment()]

        async def look(kafka: AIOKafkaConsumer) -> tuple[dict[Any, Any], dict[Any, int], dict[Any, int]]:
            committed = await kafka._coordinator.fetch_committed_offsets(tps)  # the public method gives no metadata
            return committed, await kafka.beginning_offsets(tps), await kafka.end_offsets(tps)

        committed, beginning, end = await self._patiently(look) if tps else ({}, {}, {})
        self.partitions = {kp: self._partition(kp, committed.get(kp), beginning[kp], end[kp]) for kp in tps}
        _LOGGER.info("processing %s", ", ".join(sorted(f"{kp.topic}/{kp.partition}" for kp in tps)) or "no partition")

    async def _patiently(self, ask: Callable[[AIOKafkaConsumer], Awaitable[_T]]) -> _T:
        """Brokers may be about to elect a leader."""
        for _ in range(_PATIENCE):
            try:
                return await self.consumer.kafka(ask)
            except (KafkaError, TimeoutError) as error:
                _LOGGER.warning("Kafka does not answer yet: %r", error)
                await asyncio.sleep(1)
        return await self.consumer.kafka(ask)

    def _partition(self, kp: Any, committed: Any, beginning: int, end: int) -> Partition:
        tp = TopicPartition(kp.topic.removeprefix(self.prefix), kp.partition)
        commit = Commit(committed.offset, committed.metadata) if committed is not None and committed.offset >= 0 else None
        clock = PaneClock.of(tp, self.settings.partitions, self.settings.pane_ns)
        return Partition(tp, self.make_processor(tp, commit), clock, beginning, end)

    async def take(self, kp: Any, message: Any) -> None:
        """Process one record, if it is the next one of its partition; return when what it settles is stored."""
        partition = self.partitions.get(kp)
        if partition is None or self.stopping:
            return  # of an assignment that is gone, or for the next worker to read
        arrival = partition.arrival(message.offset, time.monotonic())
        if arrival is Arrival.AHEAD:
            arrival = await self._bridge(kp, partition, message.offset)
        if arrival is not Arrival.TAKE:
            return
        record = record_of(message)
        if not partition.opens_pane(record):
            partition.feed(record)  # it is put with the others of its pane, no more
            return
        task = asyncio.create_task(self._close_pane(partition, record))
        self.in_hand.add(task)
        task.add_done_callback(self._let_go)
        await asyncio.shield(task)  # a stop cancels agents, but lets what is in hand be finished

    def _let_go(self, task: "asyncio.Task[None]") -> None:
        self.in_hand.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _LOGGER.debug("a pane was not stored", exc_info=error)  # the agent crashes of it, unless the partition went away before

    async def _bridge(self, kp: Any, partition: Partition, offset: int) -> Arrival:
        async def first(kafka: AIOKafkaConsumer) -> int:
            return int((await kafka.beginning_offsets([kp]))[kp])

        wanted = partition.next_offset
        try:
            beginning = await self.consumer.kafka(first)
        except (KafkaError, TimeoutError) as error:  # the next record asks again
            _LOGGER.warning("%s/%d: where it begins is not known: %r", *partition.tp, error)
            return Arrival.SKIP
        seek = partition.bridge(offset, beginning, time.monotonic())
        _LOGGER.warning("%s/%d: wanted offset %d, got %d, go on with %d", *partition.tp, wanted, offset, partition.next_offset)
        if seek is None:
            return Arrival.TAKE
        await self.consumer.seek_wait({kp: seek})
        return Arrival.SKIP

    async def _close_pane(self, partition: Partition, record: Record) -> None:
        emits = await self._in_thread(partition.feed, record)
        for emit in emits:
            if emit.dead_letters and not partition.closed:
                await self._set_aside(partition.tp, emit.dead_letters)
            if not await self._in_thread(self._write, partition, emit):
                return
            partition.stored(emit)
            self_metrics.PANES.labels(partition.tp.topic).inc(bool(emit.blocks))

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *arguments)

    def _write(self, partition: Partition, emit: Emit) -> bool:
        """Whether all was stored; else the partition was taken away before."""
        for block in emit.blocks:
            if partition.closed:
                return False
            self.sink.write(block)
        return not partition.closed

    async def _set_aside(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            _LOGGER.error("%s/%d: record %d is set aside: %s", *tp, letter.offset, letter.reason)
        self_metrics.DEAD_LETTERS.labels(tp.topic).inc(len(letters))
        await self.set_aside(tp, letters)

    async def commit_panes(self) -> None:
        """Commit how far each partition is stored."""
        due = {kp: partition.commit for kp, partition in self.partitions.items() if partition.commit != partition.committed}
        offsets = {kp: OffsetAndMetadata(commit.offset, commit.metadata) for kp, commit in due.items() if commit}
        if not offsets:
            return
        try:
            await self.consumer.kafka(lambda kafka: kafka.commit(offsets))
        except (KafkaError, TimeoutError) as error:  # put out of the group, or the brokers are away: tried again later
            _LOGGER.warning("not committed yet: %r", error)
            return
        for kp, commit in due.items():
            if kp in self.partitions:
                self.partitions[kp].committed = commit

    async def publish(self) -> None:
        """Show lag, pane and decision delay of each partition."""
        partitions = dict(self.partitions)

        async def newest(kafka: AIOKafkaConsumer) -> dict[Any, int | None]:
            return {kp: kafka.highwater(kp) for kp in partitions if kp in kafka.assignment()}

        for kp, end in (await self.consumer.kafka(newest)).items():
            partition = partitions[kp]
            if end is not None:
                self_metrics.LAG_RECORDS.labels(*partition.tp).set(max(0, end - partition.next_offset))
            if (pane := partition.next_pane) is not None and (delay_ns := partition.decision_delay_ns) is not None:
                self_metrics.PANE.labels(*partition.tp).set(pane)
                self_metrics.DECISION_DELAY_SECONDS.labels(*partition.tp).set(delay_ns / NS_PER_S)

    async def watermark_ns(self) -> int:
        """Log time up to which what is known of spans is stored, by every worker; 0 while that is not known of one.

        0 also where another worker has the first partition: of a group, one worker is told.
        """
        tps = [KafkaPartition(self.prefix + SPANS, number) for number in range(self.settings.partitions)]
        if tps[0] not in self.partitions:
            return 0
        try:
            committed = await self.consumer.kafka(lambda kafka: kafka._coordinator.fetch_committed_offsets(tps))
        except (KafkaError, TimeoutError) as error:
            _LOGGER.warning("how far the group is is not known: %r", error)
            return 0
        commits = [Commit(known.offset, known.metadata) if (known := committed.get(tp)) else None for tp in tps]
        return min(decided_until_ns(commit) if commit else 0 for commit in commits)

    async def leave(self) -> None:
        """Commit, then let go of every partition: it may be another worker's next."""
        await self.commit_panes()
        old, self.partitions = self.partitions, {}
        for partition in old.values():
            partition.closed = True
            for gauge in (self_metrics.LAG_RECORDS, self_metrics.PANE, self_metrics.DECISION_DELAY_SECONDS):
                gauge.remove(*map(str, partition.tp))

    async def finish(self) -> None:
        """Begin nothing new, finish what is in hand, and commit."""
        self.stopping = True
        if self.crashed:
            return
        if self.in_hand:
            await asyncio.wait(self.in_hand, timeout=self.settings.kafka.stop_time.total_seconds())
        await self.leave()


def build_app(
    bootstrap: Sequence[str], prefix: str, settings: ProcessorSettings, make_processor: MakeProcessor, *, sink: Sink, set_aside: SetAside
) -> ProcessApp:
    """An app that processes ``otlp_*`` topics of a cluster (names after ``prefix``) as one of its group's workers; run it by :func:`serve`.

    ``sink`` tries again by itself while the database is away; it is used from several threads.
    """
    session_s = settings.kafka.session_timeout.total_seconds()
    app = ProcessApp(
        prefix + settings.kafka.group,
        broker=[f"kafka://{server}" for server in bootstrap],
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_buffer_maxsize=_BUFFERED_RECORDS,
        consumer_max_fetch_size=_FETCH_BYTES,
        consumer_metadata_max_age_ms=60_000,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(2.0, session_s / 4),
        broker_request_timeout=30.0,
        broker_rebalance_timeout=30.0,
        broker_max_poll_interval=1e6,  # once passed, Faust would leave the group and never come back
    )
    app.partitions, app.in_hand, app.stopping = {}, set(), False
    app.bootstrap = list(bootstrap)
    app.settings, app.prefix, app.make_processor, app.sink, app.set_aside = settings, prefix, make_processor, sink, set_aside
    app.threads = ThreadPoolExecutor(settings.kafka.threads, thread_name_prefix="meshflow-process")
    _declare(app)
    return app


def _declare(app: ProcessApp) -> None:
    """Hang agent, timer and signals on the app; Faust knows them by decoration only."""
    names = [app.prefix + topic for topic in TOPICS]
    topic = app.topic(*names, acks=False, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, isolated_partitions=True)
    async def process(stream: Any) -> None:
        async with _crashing(app):
            async for event in stream.noack().events():
                await app.take(event.message.tp, event.message)

    @app.timer(app.settings.kafka.commit_every.total_seconds())  # type: ignore[untyped-decorator]  # Faust does not type it
    async def commit() -> None:
        async with _crashing(app):
            await app.commit_panes()
            with suppress(KafkaError, TimeoutError):
                await app.publish()

    @app.on_rebalance_complete.connect(weak=False)  # awaited before perform_seek and before the first record
    async def complete(*_: Any, **__: Any) -> None:
        async with _crashing(app):
            await app.begin()

    @app.on_partitions_revoked.connect(weak=False)  # awaited before the group goes on; a commit here still counts
    async def revoked(*_: Any, **__: Any) -> None:
        await app.leave()

    @app.on_before_shutdown.connect(weak=False)  # on_partitions_revoked is not sent at a stop
    async def stopping(*_: Any, **__: Any) -> None:
        await app.finish()


class _crashing:  # noqa: N801 - used as contextlib's are
    """Ends the app on any error: Faust would start an agent again, without the record at fault."""

    def __init__(self, app: ProcessApp) -> None:
        self._app = app

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            await self._app.crash(error)


async def serve(app: ProcessApp, stop: asyncio.Event) -> bool:
    """Run until ``stop``; True when what was in hand is stored and committed.

    False: brokers or database did not answer in time; then threads may still hang in them, and the process has to end itself.
    Raises LogUnavailable for an error of Kafka's, or what else the app crashed of.
    """
    if not await _find_topics(app, stop):
        return True
    starting = asyncio.ensure_future(app.start())
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(app._crashed.wait())]
    await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and not starting.exception():
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    grace_s = _CRASHED_S if app.crashed else app.settings.kafka.stop_time.total_seconds() + 2 * _KAFKA_S
    stopping = asyncio.ensure_future(app.stop())
    await asyncio.wait([stopping], timeout=grace_s)
    for end in (starting, stopping, *ends):
        end.cancel()
    await asyncio.gather(starting, stopping, *ends, return_exceptions=True)
    app.threads.shutdown(wait=False, cancel_futures=True)
    error = app.crash_reason if app.crashed else None if starting.cancelled() else starting.exception()
    if error:
        raise LogUnavailable(f"Kafka does not answer: {error!r}") if isinstance(error, KafkaError) else error
    return not stopping.cancelled() and not stopping.exception() and not app.in_hand


async def _find_topics(app: ProcessApp, stop: asyncio.Event) -> bool:
    """Wait until brokers answer and have a topic to process (``meshflow ingest`` makes them); False when stopped before.

    Raises LogUnavailable: no broker answered for a while, or a topic has not as many partitions as the settings say.
    """
    give_up_s = time.monotonic() + _START_S
    told = False
    while not stop.is_set():
        client = AIOKafkaConsumer(bootstrap_servers=app.bootstrap)
        try:
            await client.start()
            cluster = await client._client.fetch_all_metadata()
            counts = {topic: len(cluster.partitions_for_topic(app.prefix + topic) or ()) for topic in TOPICS}
        except KafkaError as error:
            if time.monotonic() > give_up_s:
                raise LogUnavailable(f"Kafka at {','.join(app.bootstrap)} does not answer: {error!r}") from error
            counts = {}
        finally:
            await client.stop()
        for topic, count in counts.items():
            if count not in {0, app.settings.partitions}:
                raise LogUnavailable(
                    f"topic {app.prefix + topic} has {count} partitions, processing.partitions says {app.settings.partitions}"
                )
        if any(counts.values()):
            return True
        if counts and not told:
            _LOGGER.warning("waiting for topics %s: `meshflow ingest` makes them", ", ".join(app.prefix + topic for topic in TOPICS))
            told = True
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
    return False


def record_of(message: Any) -> Record:
    """A record as Faust gives it (its time is float seconds of the broker's whole milliseconds)."""
    value = message.value or b""
    headers = {name: int(count) for name, count in message.headers or () if name in {"rejected", "refused"} and count.isdigit()}
    return Record(message.offset, round(message.timestamp * 1000) * 1_000_000, value, len(value), headers=headers)

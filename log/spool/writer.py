"""The log on Kafka with a spool in front of it: what Kafka does not take in time is durable on disk, and goes
there when Kafka is back.

Behind: while anything is in the spool, whatever comes goes behind it, so each partition keeps the order of
arrival.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

from log.kafka.topics import TopicsUnfit
from log.kafka.writer import KafkaLogWriter
from log.spool import slots as spool_slots
from log.spool.drain import Drain
from log.spool.format import NEVER_SENT
from log.spool.settings import SpoolSettings
from log.spool.slots import Target
from log.spool.spool import Spool
from schemas import self_metrics
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition
from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)

START_S = 5.0
"""How long a start waits for Kafka, to report faults of its topics; then the start goes on without Kafka."""

RETRY_S = 1.0
ADOPT_S = 10.0
"""How often spools are looked for that have no process."""

_FLUSH_S = 1.0

OpenKafka = Callable[[], Awaitable[KafkaLogWriter]]


class SpoolingWriter:
    """schemas.records.LogWriter of ``topics`` (name -> partitions). Made by :meth:`open`."""

    def __init__(
        self,
        spool: Spool,
        open_kafka: OpenKafka,
        topics: Mapping[str, int],
        settings: SpoolSettings,
        target: Target,
        *,
        assumed_record_bytes: int = sys.maxsize,
    ) -> None:
        """See :meth:`open`, which makes a usable one."""
        self._spool = spool
        self._assumed_record_bytes = assumed_record_bytes
        self._open_kafka = open_kafka
        self._partitions = {
            TopicPartition(topic, partition)
            for topic, number in topics.items()
            for partition in range(number)
        }
        self._settings = settings
        self._target = target
        self._after_s = settings.after.total_seconds()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="meshflow-spool")
        self._draining = Drain(spool, self._threads)
        self._ids = (os.urandom(8), count())
        self._kafka: KafkaLogWriter | None = None
        self._behind = True
        self._doubts = 0  # how often something was given up that may still be under way
        self._settled = 0  # of these, what is not under way any more
        self._told = ""
        self._direct: set[asyncio.Task[None]] = set()
        self._writing = 0
        self._handing_over: asyncio.Event | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self._running: asyncio.Task[None] | None = None
        self._adopting: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        root: Path,
        open_kafka: OpenKafka,
        topics: Mapping[str, int],
        settings: SpoolSettings,
        target: Target,
        *,
        assumed_record_bytes: int = sys.maxsize,
    ) -> "SpoolingWriter":
        """Take a spool in the folder ``root``, and connect to Kafka; where it is away, go on into the spool.

        ``assumed_record_bytes``: how large records may be while Kafka has not said it.

        Raises LogUnavailable: the folder cannot be used, or Kafka is there and its topics are not as they
        have to be.
        """
        spool = await asyncio.to_thread(spool_slots.claim, root, target, settings.max_size)
        writer = cls(spool, open_kafka, topics, settings, target, assumed_record_bytes=assumed_record_bytes)
        if spool.entries:
            _LOGGER.warning(
                "%s holds %d records of an earlier process: they go to Kafka first",
                spool.folder,
                spool.entries,
            )
        try:
            await writer._start(root)
        except BaseException:
            await writer.close()
            raise
        return writer

    async def _start(self, root: Path) -> None:
        connecting = asyncio.ensure_future(self._connect())
        done, _ = await asyncio.wait({connecting}, timeout=START_S)
        if done and isinstance(connecting.exception(), TopicsUnfit):
            connecting.result()
        self._behind = self._kafka is None or self._spool.entries > 0
        if self._spool.entries:
            self._doubts += (
                1  # the process that left them may have been killed a moment ago, with a request under way
            )
        if self._kafka is None:
            _LOGGER.warning("Kafka does not answer: what comes goes to the spool in %s", self._spool.folder)
        self._publish()
        self._running = asyncio.create_task(self._run(connecting), name="spool")
        self._adopting = asyncio.create_task(self._adopt(root), name="adopting spools")

    @property
    def behind(self) -> bool:
        """Whether what comes goes to the spool: Kafka is away, or has not got all of the spool yet."""
        return self._behind

    def max_record_bytes(self, topic: str) -> int:
        """See KafkaLogWriter.max_record_bytes."""
        return self._assumed_record_bytes if self._kafka is None else self._kafka.max_record_bytes(topic)

    async def append(self, appends: Sequence[Append]) -> None:
        """See schemas.records.LogWriter.append: durable in Kafka, or in the spool."""
        if self._closed:
            raise LogUnavailable("the log's writer is closed")
        for append in appends:
            if append.tp not in self._partitions:
                raise LogUnavailable(
                    f"the log has no partition {append.tp.partition} of topic {append.tp.topic}"
                )
        run, numbers = self._ids
        ids = [run + next(numbers).to_bytes(8) for _ in appends]
        if self._handing_over is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._handing_over.wait(), self._after_s)
        if self._behind or self._kafka is None:
            await self._put(appends, ids, [NEVER_SENT] * len(appends))
        else:
            await self._append_directly(self._kafka, appends, ids)

    async def _append_directly(
        self, kafka: KafkaLogWriter, appends: Sequence[Append], ids: Sequence[bytes]
    ) -> None:
        since = [kafka.end(append.tp) for append in appends]
        trying = asyncio.create_task(kafka.append(appends, ids))
        self._direct.add(trying)
        trying.add_done_callback(self._tried)
        done, _ = await asyncio.wait({trying}, timeout=self._after_s)
        if done and trying.exception() is None:
            return
        self._fall_behind(trying.exception() if done else None)
        try:
            await self._put(appends, ids, since)
        except LogUnavailable:
            await trying  # for the rest of its time; its error is the sender's answer

    def _tried(self, trying: "asyncio.Task[None]") -> None:
        self._direct.discard(trying)
        if not trying.cancelled() and (error := trying.exception()):
            _LOGGER.debug("an append failed", exc_info=error)

    def _fall_behind(self, error: BaseException | None) -> None:
        self._doubts += 1
        if not self._behind:
            self._behind = True
            reason = error or f"no answer within {self._after_s:g} s"
            _LOGGER.warning(
                "Kafka does not take records (%s): they go to the spool in %s", reason, self._spool.folder
            )
        self._wake.set()

    async def _put(self, appends: Sequence[Append], ids: Sequence[bytes], since: Sequence[int]) -> None:
        if self._closed:
            raise LogUnavailable("the log's writer is closed")
        self._writing += 1
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._threads, self._spool.append, appends, ids, since
            )
        finally:
            self._writing -= 1
        self_metrics.SPOOLED_RECORDS.inc(len(appends))
        self._wake.set()

    async def tick(self, silent_ns: int) -> None:
        """See schemas.records.LogWriter.tick. Without Kafka there is no log time to keep going: nothing
        happens then.
        """
        if self._kafka is not None and self._settled == self._doubts:
            await self._kafka.tick(silent_ns)

    async def close(self) -> None:
        """See schemas.records.LogWriter.close. What is in the spool stays there for the next process."""
        if self._closed:
            return
        self._closed = True
        for task in (self._running, self._adopting):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self._kafka is not None:
            await self._kafka.close(_FLUSH_S)
        if self._direct:
            await asyncio.wait(self._direct)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._spool.close)
        self._threads.shutdown(wait=False)

    async def _connect(self) -> None:
        if self._kafka is None:
            self._kafka = await self._open_kafka()

    async def _run(self, connecting: "asyncio.Future[None]") -> None:
        """Drain whenever there is something, for ever."""
        try:
            await asyncio.wait({connecting})
            while True:
                self._wake.clear()
                if self._behind:
                    await self._try_to_drain()
                if self._behind:
                    await asyncio.sleep(RETRY_S)
                else:
                    await self._wake.wait()
        finally:
            connecting.cancel()
            await asyncio.wait({connecting})

    async def _try_to_drain(self) -> None:
        try:
            await self._drain()
        except LogUnavailable as error:
            if str(error) != self._told:  # it is tried every second
                _LOGGER.warning("the spool in %s waits: %s", self._spool.folder, error)
            self._told = str(error)
        except Exception:
            _LOGGER.exception("the spool in %s could not be drained", self._spool.folder)
        else:
            self._told = ""

    async def _drain(self) -> None:
        """Return when all of the spool is in Kafka, and what comes goes there directly again. Raises
        LogUnavailable.
        """
        await self._connect()
        kafka = self._kafka
        assert kafka is not None
        if self._direct:
            await asyncio.wait(set(self._direct))
        began_s, before = time.monotonic(), self._spool.progress.drained
        try:
            while self._settled < self._doubts or await self._drain_chunk(kafka):
                if self._settled < (doubts := self._doubts):
                    await kafka.settle()
                    self._settled = doubts
            self._behind = self._settled < self._doubts
        except BaseException:
            self._doubts += 1
            raise
        finally:
            if self._handing_over is not None:
                self._handing_over.set()
                self._handing_over = None
        if drained := self._spool.progress.drained - before:
            _LOGGER.warning(
                "%d records of the spool are in Kafka (%.1f s)", drained, time.monotonic() - began_s
            )

    async def _drain_chunk(self, kafka: KafkaLogWriter) -> bool:
        """Whether there may be more."""
        chunk, is_all = await self._draining.peek()
        if chunk.entries or chunk.lost:
            if is_all and self._handing_over is None:
                self._handing_over = asyncio.Event()  # so that it ends, however much comes
            await self._draining.move(kafka, chunk)
            self_metrics.SPOOL_LOST_RECORDS.inc(self._spool.lost)
            self._spool.lost = 0
            return True
        return self._writing > 0

    async def _adopt(self, root: Path) -> None:
        """Drain what processes left that are no more."""
        while True:
            try:
                while not self._behind and self._kafka is not None:
                    orphan = await asyncio.to_thread(
                        spool_slots.adopt, root, self._target, self._settings.max_size
                    )
                    if orphan is None:
                        break
                    await self._drain_orphan(self._kafka, orphan)
            except LogUnavailable as error:
                _LOGGER.warning("a spool without a process waits: %s", error)
            except Exception:
                _LOGGER.exception("a spool without a process could not be drained")
            await asyncio.sleep(ADOPT_S)

    async def _drain_orphan(self, kafka: KafkaLogWriter, orphan: Spool) -> None:
        _LOGGER.warning(
            "%s holds %d records of a process that is no more: they go to Kafka",
            orphan.folder,
            orphan.entries,
        )
        drain = Drain(orphan, self._threads)
        try:
            while orphan.entries:
                chunk, _ = await drain.peek()
                await drain.move(kafka, chunk)
        except LogUnavailable:
            self._fall_behind(None)  # settles what may be under way
            raise
        finally:
            self_metrics.SPOOL_LOST_RECORDS.inc(orphan.lost)
            await asyncio.get_running_loop().run_in_executor(self._threads, orphan.close)

    def _publish(self) -> None:
        """Gauges are asked when somebody looks, also while all waits for Kafka."""
        spool = self._spool

        def age_s() -> float:
            return max(0, time.time_ns() - spool.oldest_time_ns) / NS_PER_S if spool.oldest_time_ns else 0.0

        self_metrics.SPOOL_BYTES.set_function(lambda: spool.size_bytes)
        self_metrics.SPOOL_RECORDS.set_function(lambda: spool.entries)
        self_metrics.SPOOL_AGE_SECONDS.set_function(age_s)

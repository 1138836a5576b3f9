"""What Faust costs: records through the app, and through a plain getmany loop, into the same Partition
objects.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from aiokafka import TopicPartition as KafkaPartition

from benchmarks.kafka_log import BOOTSTRAP, FILLED, PARTITIONS, RECORDS, WITHIN_S
from benchmarks.report import Measurement, peak_rss_mib
from log.kafka.brokers import Brokers
from log.kafka.consumer import stop_consumer
from processors.panes import Emit
from processors.readers.partition import Partition
from processors.readers.worker import PaneWork, Worker
from processors.settings import KafkaReaderSettings, ProcessorSettings
from schemas.records import Commit, DeadLetter, Record, TopicPartition
from schemas.tables import Block
from schemas.topics import SPANS

SETTINGS = ProcessorSettings(partitions=PARTITIONS)


def faust(spans: int, rounds: int) -> Measurement:
    """What Faust adds: the filled log into equal Partition objects by the app, and by a plain getmany loop,
    in turns; the difference.
    """
    measurement = Measurement(spans)
    by_faust, plain = [], []
    begin_s = time.perf_counter()
    for number in range(rounds):
        by_faust.append(asyncio.run(_read_by_faust(f"bench-faust-{os.getpid()}-{number}")))
        plain.append(asyncio.run(_read_plainly()))
    measurement.wall_s = (time.perf_counter() - begin_s) / 2 / rounds
    measurement.cpu_s = median(by_faust) - median(plain)
    measurement.peak_rss_mib = peak_rss_mib()
    per_million = 1e6 / spans
    measurement.note = (
        f"CPU s / 1M spans through Faust {', '.join(f'{cpu_s * per_million:.2f}' for cpu_s in by_faust)};"
        f" through getmany {', '.join(f'{cpu_s * per_million:.2f}' for cpu_s in plain)}; processors that do nothing"
    )
    return measurement


class _Idler:
    """A processor that does nothing."""

    offset = 0
    log_time_ns = 0

    def __init__(self) -> None:
        self.records = 0

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        self.records += sum(record.size > 0 for record in records)
        return []

    def may_settle(self, record: Record) -> bool:  # noqa: ARG002
        return False

    def gap(self, wanted: int, beginning: int) -> None:
        raise AssertionError(f"records {wanted} to {beginning} are gone")


class _Nowhere:
    """A sink that nothing comes to."""

    def write(self, block: Block) -> None:
        raise AssertionError(block.token)

    def close(self) -> None:
        """Nothing to let go of."""


async def _nobody(tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
    raise AssertionError((tp, letters))


async def _read_by_faust(group: str) -> float:
    """CPU seconds from the first record to the last."""
    settings = SETTINGS.model_copy(update={"kafka": KafkaReaderSettings(group=group)})
    idlers: list[_Idler] = []

    def make(tp: TopicPartition, commit: Commit | None) -> _Idler:  # noqa: ARG001
        idlers.append(_Idler())
        return idlers[-1]

    worker = Worker(_brokers(), FILLED, settings, make, sink=_Nowhere(), set_aside=_nobody)
    stop = asyncio.Event()
    serving = asyncio.create_task(worker.serve(stop))
    cpu_s = await _until_read(idlers)
    stop.set()
    await serving
    return cpu_s


async def _read_plainly() -> float:
    """The same by getmany."""
    idlers = [_Idler() for _ in range(PARTITIONS)]
    work = PaneWork(FILLED, SETTINGS, lambda tp, _: idlers[tp.partition], _Nowhere(), _nobody)
    consumer = _brokers().consumer(
        enable_auto_commit=False, max_partition_fetch_bytes=4 << 20, auto_offset_reset="earliest"
    )
    await consumer.start()
    kps = [KafkaPartition(FILLED + SPANS, number) for number in range(PARTITIONS)]
    consumer.assign(kps)
    cursors = {
        kp: Partition(
            TopicPartition(SPANS, kp.partition),
            idlers[kp.partition],
            0,
            1 << 62,
        )
        for kp in kps
    }

    async def read() -> None:
        while True:
            for kp, messages in (await consumer.getmany(timeout_ms=1_000)).items():
                for message in messages:
                    await work.take(cursors[kp], _record_of(message), more=True)

    reading = asyncio.create_task(read())
    cpu_s = await _until_read(idlers)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stop_consumer(consumer)
    work.close()
    return cpu_s


def _record_of(message: Any) -> Record:
    return Record(
        message.offset, message.timestamp * 1_000_000, message.value or b"", len(message.value or b"")
    )


async def _until_read(idlers: Sequence[_Idler]) -> float:
    records = int(os.environ[RECORDS])
    end_s = time.monotonic() + WITHIN_S
    while not any(idler.records for idler in idlers):
        await asyncio.sleep(0.001)
        assert time.monotonic() < end_s, "nothing was read"
    begin_s = time.process_time()
    while sum(idler.records for idler in idlers) < records:
        await asyncio.sleep(0.01)
        assert time.monotonic() < end_s, (
            f"{sum(idler.records for idler in idlers)} of {records} records were read"
        )
    return time.process_time() - begin_s


def _brokers() -> Brokers:
    return Brokers(tuple(os.environ[BOOTSTRAP].split(",")))

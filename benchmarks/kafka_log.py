"""The log of a run of benchmarks.kafka, and how far a group of workers is with it."""

import asyncio
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from benchmarks.load import generate_requests
from log.kafka.settings import KafkaWriterSettings
from log.kafka.writer import KafkaLogWriter
from schemas import otlp
from schemas.records import Append, TopicPartition
from schemas.topics import SPANS, TOPICS
from schemas.units import NS_PER_S

PARTITIONS = 4
SPANS_PER_REQUEST = 200
GATHER_REQUESTS = 12  # 50 ms at 50,000 spans/s
WITHIN_S = 180.0
BOOTSTRAP = "BENCH_KAFKA"
"""Environment variable: where this run's broker is."""

RECORDS, _ENDS = "BENCH_KAFKA_RECORDS", "BENCH_KAFKA_ENDS"
"""Environment variables: how many records the newest log has; where each log's partitions end."""

FILLED = "filled."
"""What names of topics begin with that the cases share."""


def gathers_of(spans: int) -> Iterator[list[Append]]:
    """What ingest would append every 50 ms."""
    gathered: dict[int, list[bytes]] = {}
    sent = 0
    for number, request in enumerate(generate_requests(spans, 100, 10, SPANS_PER_REQUEST, 1), 1):
        for partition, part in otlp.split(SPANS, request, PARTITIONS).parts.items():
            gathered.setdefault(partition, []).append(part)
        sent += SPANS_PER_REQUEST
        if number % GATHER_REQUESTS == 0 or sent >= spans:
            yield [
                Append(TopicPartition(SPANS, partition), b"".join(parts))
                for partition, parts in gathered.items()
            ]
            gathered.clear()


async def fill(
    prefix: str, gathers: Iterable[list[Append]], pane_s: float, spans_per_s: float = math.inf
) -> None:
    """Make the topics and a log, then ticks that decide it all; the environment has RECORDS and _ENDS."""
    bootstrap = os.environ[BOOTSTRAP].split(",")
    writer = await KafkaLogWriter.open(
        bootstrap, dict.fromkeys(TOPICS, PARTITIONS), KafkaWriterSettings(), prefix
    )
    begin_s, records, appended = time.perf_counter(), 0, 0
    for appended, appends in enumerate(gathers, 1):
        await writer.append(appends)
        records += len(appends)
        await asyncio.sleep(
            begin_s + appended * GATHER_REQUESTS * SPANS_PER_REQUEST / spans_per_s - time.perf_counter()
        )
    if appended:
        ends = json.loads(os.environ.get(_ENDS, "{}"))
        ends[prefix] = [writer._ends[TopicPartition(SPANS, number)] for number in range(PARTITIONS)]
        os.environ[_ENDS] = json.dumps(ends)
        os.environ[RECORDS] = str(records)
        until_s = time.monotonic() + 4 * pane_s + 1  # the last pane is decided two panes after it
        while time.monotonic() < until_s:
            await writer.tick(int(pane_s * NS_PER_S))
            await asyncio.sleep(pane_s / 4)
    await writer.close()


async def follow(
    group: str, until: float, workers: Sequence["subprocess.Popen[bytes]"], prefix: str = FILLED
) -> None:
    """Return when the group has decided this share of the filled log (0: has committed at all)."""
    end_s = time.monotonic() + WITHIN_S
    async with _member(group, prefix) as consumer:
        while not (decided := await _share(consumer, prefix)) or decided < until:
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError("a worker ended by itself")
            if time.monotonic() > end_s:
                raise TimeoutError(f"{group} has decided {decided:.1%} of {prefix}{SPANS} after {WITHIN_S} s")
            await asyncio.sleep(0.1)


async def decided_share(group: str, prefix: str = FILLED) -> float:
    """How much of a log a group has decided; of one without spans 1 when it has committed every partition."""
    async with _member(group, prefix) as consumer:
        return await _share(consumer, prefix)


def _member(group: str, prefix: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=os.environ[BOOTSTRAP], group_id=prefix + group, enable_auto_commit=False
    )


async def _share(consumer: AIOKafkaConsumer, prefix: str) -> float:
    """How much of the records with spans a group has decided: by the first offset that its commits call
    undecided.
    """
    kps = [KafkaPartition(prefix + SPANS, number) for number in range(PARTITIONS)]
    known = await consumer._coordinator.fetch_committed_offsets(kps)
    offsets: dict[KafkaPartition, int] = {
        kp: _undecided(known[kp].metadata) if kp in known and known[kp].offset >= 0 else 0 for kp in kps
    }
    ends: list[int] = json.loads(os.environ.get(_ENDS, "{}")).get(prefix, [])
    if not ends:
        return float(all(offsets.values()))
    return float(sum(min(offset, ends[kp.partition]) for kp, offset in offsets.items()) / sum(ends))


def _undecided(metadata: str) -> int:
    found = re.search(r"from=(\d+)", metadata)
    return int(found[1]) if found else 0

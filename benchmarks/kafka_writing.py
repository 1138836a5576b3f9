"""Where ingest's way into Kafka goes: the writer alone, and the compression in it, on the records that ingest
appends.
"""

import asyncio
import os
from collections.abc import Sequence

from aiokafka.codec import zstd_encode

from benchmarks.kafka_log import BOOTSTRAP, PARTITIONS, gathers_of
from benchmarks.report import Measurement, measure
from log.kafka.settings import KafkaWriterSettings
from log.kafka.writer import KafkaLogWriter
from schemas.records import Append
from schemas.topics import TOPICS


def write(spans: int) -> Measurement:
    """The writer alone: gathers that are there already, acknowledged by the broker; its connections made
    before.
    """
    return asyncio.run(_write(spans, list(gathers_of(spans))))


async def _write(spans: int, gathers: Sequence[Sequence[Append]]) -> Measurement:
    bootstrap = os.environ[BOOTSTRAP].split(",")
    writer = await KafkaLogWriter.open(
        bootstrap, dict.fromkeys(TOPICS, PARTITIONS), KafkaWriterSettings(), "written."
    )
    await writer.append(gathers[0])
    with measure(spans) as measurement:
        for appends in gathers:
            await writer.append(appends)
    await writer.close()
    records = sum(map(len, gathers))
    measurement.note = f"{records} records of {sum(len(append.value) for appends in gathers for append in appends) // records} bytes"
    return measurement


def compress(spans: int) -> Measurement:
    """The zstd of the same records, by the call with which aiokafka does it: what is native already."""
    values = [append.value for appends in gathers_of(spans) for append in appends]
    with measure(spans) as measurement:
        packed = sum(len(zstd_encode(value)) for value in values)
    measurement.note = f"to {packed / sum(map(len, values)):.1%} of their size"
    return measurement

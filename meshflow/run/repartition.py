"""``meshflow repartition``: topics of other writers into the log on Kafka, split by trace id; any number of
them.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from log.kafka.brokers import Brokers
from log.kafka.dead_letters import DeadLetterWriter
from log.kafka.writer import KafkaLogWriter
from meshflow import quiet_logs
from meshflow.lifecycle import cancel, kafka_place, metrics_port, stop_on_signals, tick
from meshflow.settings import Settings
from processors.repartition import Repartitioner
from schemas.errors import MeshflowError, ProcessingFailed
from schemas.topics import TOPICS

logger = logging.getLogger(__name__)


def run_repartition(settings: Settings, on_ready: Callable[[int], None]) -> None:
    """Split until SIGINT or SIGTERM; ``on_ready`` gets the port of /metrics.

    Raises MeshflowError when it cannot start, ProcessingFailed for an error that trying again would not mend.
    A thread may still wait for brokers then: end the process by ``os._exit``.
    """
    asyncio.run(_repartition(settings, on_ready))


async def _repartition(settings: Settings, on_ready: Callable[[int], None]) -> None:
    stop = stop_on_signals()
    quiet_logs.install()
    place, processing = kafka_place(settings), settings.processing
    source_prefix = processing.repartition.source_prefix
    async with AsyncExitStack() as parts:
        topics = dict.fromkeys(TOPICS, processing.partitions)
        writer = await KafkaLogWriter.open(
            place.bootstrap, topics, settings.ingest.kafka, place.prefix, settings.kafka
        )
        parts.push_async_callback(writer.close)
        ticking = asyncio.create_task(tick(writer, processing.pane_ns), name="ticking")
        parts.push_async_callback(cancel, ticking)
        letters = DeadLetterWriter(place.bootstrap, place.prefix, settings.kafka, source_prefix=source_prefix)
        parts.push_async_callback(letters.close)
        brokers = Brokers(place.bootstrap, settings.kafka)
        splitting = Repartitioner(brokers, place.prefix, processing, writer=writer, set_aside=letters.write)
        on_ready(await parts.enter_async_context(metrics_port(settings)))
        try:
            clean = await splitting.serve(stop)
        except MeshflowError:
            raise
        except Exception as error:
            logger.critical("splitting failed", exc_info=error)
            raise ProcessingFailed(f"splitting failed: {type(error).__name__}: {error}") from error
    if not clean:
        raise ProcessingFailed(
            "stopped before all in hand was written or committed; the next worker reads it again"
        )

"""``meshflow process``: workers around a log on Kafka, any number of them."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from log.kafka.brokers import Brokers
from log.kafka.dead_letters import DeadLetterWriter
from meshflow import quiet_logs
from meshflow.lifecycle import kafka_place, metrics_port, stop_on_signals
from meshflow.run.folders import keep_store_private, use_temporary_folder
from meshflow.settings import Settings
from meshflow.wiring import keep_rolling_up, make_processor, migrate, tell_retry
from processors.readers.worker import Worker
from schemas.errors import MeshflowError, ProcessingFailed
from storage.client import open_client
from storage.jobs.rollups import run_rollups
from storage.sink import RetryingSink, open_sink

logger = logging.getLogger(__name__)


def run_process(settings: Settings, on_ready: Callable[[int], None]) -> None:
    """Be one worker of the group until SIGINT or SIGTERM; ``on_ready`` gets the port of /metrics.

    Raises MeshflowError when it cannot start, LogUnavailable when the log or the settings do not fit,
    ProcessingFailed for an error that trying again would not mend. A thread may still wait for brokers then:
    end the process by ``os._exit``.
    """
    asyncio.run(_process(settings, on_ready))


async def _process(settings: Settings, on_ready: Callable[[int], None]) -> None:
    stop = stop_on_signals()
    quiet_logs.install()
    place = kafka_place(settings)
    async with AsyncExitStack() as parts:
        keep_store_private(settings)
        for name in await asyncio.to_thread(migrate, settings):
            logger.info("applied %s", name)
        sink = RetryingSink(
            await asyncio.to_thread(open_sink, settings.storage.store_place), on_retry=tell_retry
        )
        parts.callback(sink.close)
        use_temporary_folder(settings)
        letters = DeadLetterWriter(place.bootstrap, place.prefix, settings.kafka)
        parts.push_async_callback(letters.close)

        worker = Worker(
            Brokers(place.bootstrap, settings.kafka),
            place.prefix,
            settings.processing,
            lambda tp, commit: make_processor(settings, tp, commit),
            sink=sink,
            set_aside=letters.write,
        )
        parts.callback(sink.stop)  # ends the threads that wait for the database
        client = await asyncio.to_thread(open_client, settings.storage.store_place)
        parts.callback(client.close)
        stop_rolling_up = asyncio.Event()
        rolling_up = asyncio.create_task(
            _roll_up(settings, worker, client, stop_rolling_up), name="rolling up"
        )

        async def finish() -> None:
            stop_rolling_up.set()
            await rolling_up

        parts.push_async_callback(finish)
        on_ready(parts.enter_context(metrics_port(settings)))
        try:
            clean = await worker.serve(stop)
        except MeshflowError:
            raise
        except Exception as error:
            logger.critical("processing failed", exc_info=error)
            raise ProcessingFailed(f"processing failed: {type(error).__name__}: {error}") from error
    if not clean:
        raise ProcessingFailed(
            "stopped before all in hand was stored or committed; the next worker reads it again"
        )


async def _roll_up(settings: Settings, worker: Worker, client: Any, stop: asyncio.Event) -> None:
    """Roll closed hours up, where this worker is the one to do it: the one that has the first partition of
    spans.
    """
    loop = asyncio.get_running_loop()

    def roll_up() -> int:
        watermark_ns = asyncio.run_coroutine_threadsafe(worker.watermark_ns(), loop).result()
        return (
            run_rollups(client, watermark_ns=watermark_ns, settings=settings.storage) if watermark_ns else 0
        )

    await keep_rolling_up(roll_up, stop)

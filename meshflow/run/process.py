"""``meshflow process``: workers around a log on Kafka, any number of them."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from log.kafka.brokers import Brokers
from log.kafka.dead_letters import DeadLetterWriter
from meshflow import quiet_logs
from meshflow.lifecycle import kafka_place, metrics_port, stop_on_signals
from meshflow.run.folders import keep_store_private, use_temporary_folder
from meshflow.settings import Settings
from meshflow.wiring import log_retry, make_processor, migrate, once_there, open_jobs
from processors.readers.worker import Worker
from schemas.errors import MeshflowError, ProcessingFailed
from schemas.sink import Sink
from storage.jobs.job import Job
from storage.jobs.schedule import keep_running
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
        opened = await once_there(lambda: _open_store(settings), settings.storage.store_place, stop)
        if opened is None:
            return
        sink, jobs = RetryingSink(opened[0], on_retry=log_retry), opened[1]
        parts.callback(sink.close)
        for job in jobs:
            parts.callback(job.close)
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
        jobs_end = asyncio.Event()
        running = asyncio.create_task(keep_running(jobs, worker.watermark, jobs_end), name="jobs")

        async def finish() -> None:
            jobs_end.set()
            await running

        parts.push_async_callback(finish)
        on_ready(await parts.enter_async_context(metrics_port(settings)))
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


def _open_store(settings: Settings) -> tuple[Sink, tuple[Job, ...]]:
    """A sink of the store, whose tables are made first, and the jobs. Raises MeshflowError."""
    for name in migrate(settings):
        logger.info("applied %s", name)
    sink = open_sink(settings.storage.store_place)
    try:
        return sink, open_jobs(settings)
    except BaseException:
        sink.close()
        raise

"""What the embedded and the distributed mode are put together from alike."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from meshflow.settings import Settings
from processors.logs import LogsProcessor
from processors.metrics import MetricsProcessor
from processors.partition import Processor
from processors.pipeline import SpanProcessor
from schemas import otlp
from schemas.errors import LogUnavailable, MeshflowError, SinkUnavailable
from schemas.log import Commit, LogWriter, TopicPartition
from schemas.topics import LOGS, METRICS
from storage import migrate as storage_migrate
from storage.client import open_client

logger = logging.getLogger(__name__)

_ROLLUP_EVERY_S = 60.0


class ProcessingFailed(MeshflowError):
    """Processing met an error that trying again would not mend. What was acknowledged is in the log and is read at the next start."""


def stop_on_signals() -> asyncio.Event:
    """Set by SIGINT or SIGTERM, from now on; a second one ends the process at once."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stop)
    if not otlp.native:
        logger.warning("the native decoder is not built (no cargo at install time?): meshflow runs on the slower one in Python")
    return stop


def migrate(settings: Settings) -> list[str]:
    """Bring the store's tables up to date; what was done. Raises SinkUnavailable, MigrationError."""
    client = open_client(settings.storage.store_place)
    try:
        return storage_migrate.migrate(client, settings.storage)
    finally:
        client.close()


async def keep_rolling_up(roll_up: Callable[[], int], stop: asyncio.Event) -> None:
    """Make closed hours into coarser rows, from time to time."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(roll_up)
        except SinkUnavailable as error:
            logger.warning("closed hours are rolled up later: %s", error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _ROLLUP_EVERY_S)


def tell_retry(error: Exception, delay_s: float) -> None:
    """For RetryingSink."""
    logger.warning("the database is away, reading waits %.1f s: %s", delay_s, error)


def make_processor(settings: Settings, tp: TopicPartition, commit: Commit | None) -> Processor:
    """The processor of a partition, by its topic."""
    if tp.topic == METRICS:
        return MetricsProcessor(tp, settings.processing, commit)
    if tp.topic == LOGS:
        return LogsProcessor(tp, settings.processing, commit)
    return SpanProcessor(tp, settings.processing, settings.sampling, commit)


async def tick(writer: LogWriter, pane_ns: int) -> None:
    """Keep log time going where nothing comes in (invariant 5)."""
    while True:
        await asyncio.sleep(pane_ns / 4e9)
        try:
            await writer.tick(pane_ns)
        except LogUnavailable as error:
            logger.warning("no tick: %s", error)


async def cancel(task: "asyncio.Task[None]") -> None:
    """End a task and wait for it."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def raise_from(task: "asyncio.Task[Any]") -> None:
    """Tell that a task that goes on for ever has failed. Raises ProcessingFailed."""
    error = task.exception()
    logger.critical("%s failed", task.get_name(), exc_info=error)
    raise ProcessingFailed(f"{task.get_name()} failed: {type(error).__name__}: {error}") from error


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(130)
    stop.set()

"""How a process of meshflow begins, goes on and ends, whatever it does; without what only some of them do (no
polars, no chdb).
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from console.port import MetricsServer
from meshflow.settings import Settings
from schemas import otlp
from schemas.errors import LogDamaged, LogUnavailable, LogVanished, MeshflowError, ProcessingFailed
from schemas.records import LogWriter
from storage.settings import KafkaLog

logger = logging.getLogger(__name__)


def stop_on_signals(*signals: signal.Signals) -> asyncio.Event:
    """Set by SIGINT or SIGTERM (or by ``signals``), from now on; a second one ends the process at once."""
    stop = asyncio.Event()
    for number in signals or (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stop)
    if not otlp.native:
        logger.warning(
            "the native decoder is not built (no cargo at install time?): meshflow runs on the slower one in Python"
        )
    return stop


async def tick(writer: LogWriter, pane_ns: int) -> None:
    """Keep log time going where nothing comes in (invariant 5)."""
    while True:
        await asyncio.sleep(pane_ns / 4e9)
        try:
            await writer.tick(pane_ns)
        except (LogDamaged, LogVanished):
            raise  # waiting mends neither
        except LogUnavailable as error:
            logger.warning("no tick: %s", error)


async def cancel(task: "asyncio.Task[None]") -> None:
    """End a task and wait for it."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def failure_of(task: "asyncio.Task[Any]") -> MeshflowError:
    """The error that says why a task that goes on for ever has failed, which is logged where it is no file's
    fault.
    """
    error = task.exception()
    if isinstance(error, LogDamaged | LogVanished):
        return error
    logger.critical("%s failed", task.get_name(), exc_info=error)
    if isinstance(error, ProcessingFailed):
        return error
    failure = ProcessingFailed(f"{task.get_name()} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


@asynccontextmanager
async def metrics_port(settings: Settings) -> AsyncIterator[int]:
    """/metrics of this process; its port. Raises AddressInUse."""
    server = MetricsServer(settings.console)
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


def kafka_place(settings: Settings) -> KafkaLog:
    """The log's brokers. Raises LogUnavailable where the log is another one."""
    place = settings.storage.log_place
    if not isinstance(place, KafkaLog):
        raise LogUnavailable(
            "`ingest` and `process` need a log on Kafka: MESHFLOW_LOG=kafka://HOST:PORT,... (storage.log)"
        )
    return place


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(130)
    stop.set()

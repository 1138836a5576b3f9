"""Stopping a consumer of aiokafka, which ingest and processors both have."""

import asyncio
import logging
from typing import Any

from aiokafka.errors import KafkaError

_LOGGER = logging.getLogger(__name__)

_PATIENCE_S = 10.0
"""How long a consumer may take to leave its group and to end its requests; then its connections are closed
all the same.
"""

_LAST_S = 1.0


async def stop_consumer(consumer: Any, patience_s: float = _PATIENCE_S) -> None:
    """Stop an ``AIOKafkaConsumer``; what its ``stop()`` raises is raised. Its connections are closed in any
    case, also on a cancellation.

    Its fetcher (aiokafka 0.14, ``Fetcher.close``) cancels its own tasks and awaits them: one that waits to
    try again, as after a broker has hung up, hands its cancellation on. Out of ``stop()``, that looks like a
    cancellation of the caller's task, which ends without a word, and the connections stay open. And its
    coordinator (``GroupCoordinator.close``) waits without an end for a rebalance to be over.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    stopping.add_done_callback(_look_at)
    try:
        await asyncio.wait({stopping}, timeout=patience_s)
    except asyncio.CancelledError:
        stopping.cancel()
        _hang_up(consumer._client)
        raise
    if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
        return
    stopping.cancel()
    await asyncio.wait({stopping, *_hang_up(consumer._client)}, timeout=_LAST_S)
    if stopping.done() and not stopping.cancelled():
        stopping.result()


async def end_consumer(consumer: Any, patience_s: float) -> None:
    """Stop an ``AIOKafkaConsumer`` that nobody needs any more: an error of Kafka's is logged."""
    try:
        await stop_consumer(consumer, patience_s)
    except KafkaError as error:
        _LOGGER.warning("the consumer was not stopped in order: %r", error)


def _hang_up(client: Any) -> "list[asyncio.Future[None]]":
    """Close what a client has open; done when the last bytes of each connection are gone."""
    if client._sync_task is not None:
        client._sync_task.cancel()
    return [connection.close() for connection in list(client._conns.values())]


def _look_at(task: "asyncio.Future[None]") -> None:
    """An error of something that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()

"""Stopping a consumer of aiokafka, which ingest and processors both have."""

import asyncio
from typing import Any


async def stop_consumer(consumer: Any) -> None:
    """Stop an ``AIOKafkaConsumer``; what its ``stop()`` raises is raised.

    Its fetcher (aiokafka 0.14, ``Fetcher.close``) cancels its own tasks and awaits them: one that waits to try again, as after a broker
    has hung up, hands its cancellation on. Out of ``stop()``, that looks like a cancellation of the caller's task, which ends without a
    word, and the connections stay open.
    """
    stopping = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait({stopping})
    finally:
        stopping.cancel()
    if stopping.cancelled():
        await consumer._client.close()
    else:
        stopping.result()

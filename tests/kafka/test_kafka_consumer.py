"""Consumers that are stopped while a fetch waits to be tried again, as it does after a broker has hung up."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest

from processors.brokers import Brokers
from schemas.kafka_consumer import stop_consumer
from schemas.topics import SPANS
from tests.kafka.broker import Cluster
from tests.kafka.core import Store
from tests.kafka.place import KafkaPlace
from tests.kafka.workers import TOPICS, Load, Worker, eventually

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900), pytest.mark.usefixtures("no_worker_left")]


def hang_up_on_fetches(consumer: Any) -> asyncio.Event:
    """From now on no fetch is answered, and each waits long before it is tried again; the event: one waits."""
    send, waits = consumer._client.send, asyncio.Event()
    consumer._fetcher._retry_backoff = 600

    async def send_others(node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            waits.set()
            raise KafkaConnectionError("hung up")
        return await send(node_id, request, **options)

    consumer._client.send = send_others
    return waits


async def waiting_consumer(place: KafkaPlace) -> AIOKafkaConsumer:
    await (await place.open_writer(TOPICS)).close()
    consumer = AIOKafkaConsumer(place.prefix + SPANS, bootstrap_servers=place.cluster.bootstrap, enable_auto_commit=False)
    await consumer.start()
    await asyncio.wait_for(hang_up_on_fetches(consumer).wait(), 60)
    return consumer


async def test_a_consumer_that_waits_is_stopped(broker: Cluster) -> None:
    consumer = await waiting_consumer(KafkaPlace(broker))
    await asyncio.wait_for(stop_consumer(consumer), 60)
    assert not any(connection.connected() for connection in consumer._client._conns.values())


async def test_aiokafkas_own_stop_would_cancel_its_caller(broker: Cluster) -> None:
    """When this fails, aiokafka has mended it, and stop_consumer can go."""
    consumer = await waiting_consumer(KafkaPlace(broker))
    with pytest.raises(asyncio.CancelledError):
        await consumer.stop()
    await consumer._client.close()


async def test_a_caller_that_is_cancelled_stops_waiting(broker: Cluster) -> None:
    consumer = Brokers(tuple(broker.bootstrap.split(","))).consumer()
    await consumer.start()
    never = asyncio.Event()
    consumer._client.close, close = never.wait, consumer._client.close
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stop_consumer(consumer), 0.1)
    await close()


async def test_a_worker_that_waits_is_stopped(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 10, "the worker stores", worker)
        thread = worker.app._app.consumer._thread
        loop, consumer = asyncio.get_running_loop(), thread._ensure_consumer()
        waits = asyncio.Event()

        async def hang_up() -> None:
            await hang_up_on_fetches(consumer).wait()
            loop.call_soon_threadsafe(waits.set)

        asyncio.run_coroutine_threadsafe(hang_up(), thread.thread_loop)
        await asyncio.wait_for(waits.wait(), 60)
        assert await worker.stop()
    assert not any(connection.connected() for connection in consumer._client._conns.values())

"""Stops at bad moments: while a fetch waits to be tried again, as after a broker has hung up, and during
rebalances.
"""

import asyncio
import gc
import threading
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest

from log.kafka.brokers import Brokers
from log.kafka.consumer import stop_consumer
from schemas.errors import LogUnavailable, SinkRejected
from schemas.topics import SPANS
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import Store
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.workers import TOPICS, Load, Worker, eventually

pytestmark = [
    pytest.mark.component("kafka"),
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_worker_left"),
]


def hang_up_on_fetches(consumer: Any) -> asyncio.Event:
    """From now on no fetch is answered, and each waits long before it is tried again; the event: one
    waits.
    """
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
    consumer = AIOKafkaConsumer(
        place.prefix + SPANS, bootstrap_servers=place.cluster.bootstrap, enable_auto_commit=False
    )
    await consumer.start()
    await asyncio.wait_for(hang_up_on_fetches(consumer).wait(), 120)
    return consumer


async def test_a_consumer_that_waits_is_stopped(broker: Cluster) -> None:
    consumer = await waiting_consumer(KafkaPlace(broker))
    await asyncio.wait_for(stop_consumer(consumer), 120)
    assert not is_connected(consumer)


async def test_aiokafkas_own_stop_would_cancel_its_caller(broker: Cluster) -> None:
    """When this fails, aiokafka has mended it, and stop_consumer can go."""
    consumer = await waiting_consumer(KafkaPlace(broker))
    with pytest.raises(asyncio.CancelledError):
        await consumer.stop()
    await consumer._client.close()


async def consumer_that_never_stops(broker: Cluster) -> AIOKafkaConsumer:
    consumer = Brokers(tuple(broker.bootstrap.split(","))).consumer()
    await consumer.start()
    await consumer._client.force_metadata_update()
    consumer._client.close = asyncio.Event().wait
    return consumer


def is_connected(consumer: Any) -> bool:
    return any(connection.connected() for connection in consumer._client._conns.values())


async def test_a_caller_that_is_cancelled_stops_waiting_and_nothing_stays_open(broker: Cluster) -> None:
    consumer = await consumer_that_never_stops(broker)
    assert is_connected(consumer)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stop_consumer(consumer), 0.1)
    assert not is_connected(consumer)


async def test_a_consumer_that_never_stops_is_left(broker: Cluster) -> None:
    consumer = await consumer_that_never_stops(broker)
    await asyncio.wait_for(stop_consumer(consumer, 0.1), 120)
    assert not is_connected(consumer)


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
        await asyncio.wait_for(waits.wait(), 120)
        assert await worker.stop()
    assert not is_connected(consumer)


async def test_a_rebalance_during_a_stop_leaves_the_consumer_to_its_thread(broker: Cluster) -> None:
    """Faust would close it from the main loop, and the thread would then wait for ever for a rebalance to be
    over.
    """
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 10, "the worker stores", worker)
        app = worker.app._app
        app._on_rebalance_when_stopped()
        assert not app.consumer._thread._ensure_consumer()._closed
        assert await asyncio.wait_for(worker.stop(), 120)
        assert not is_connected(app.consumer._thread._consumer)


async def test_a_rebalance_that_never_ends_does_not_hold_up_a_stop(
    broker: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.readers.faust_consumer._CLOSE_S", 1.0)
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 10, "the worker stores", worker)
        thread = worker.app._app.consumer._thread
        waits, coordinator = threading.Event(), thread._ensure_consumer()._coordinator

        async def never(*_: Any) -> None:
            waits.set()
            await asyncio.Event().wait()

        coordinator._perform_assignment = never  # of the leader of the group; it is alone in it
        thread.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)
        await eventually(waits.is_set, "the group waits for its leader", worker)
        assert await asyncio.wait_for(worker.stop(), 120)
        assert not is_connected(thread._consumer)


async def test_a_worker_that_is_stopped_while_another_joins_ends_in_order(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        for after_s in (0.2, 0.4, 0.6, 0.8):
            before = len(store.blocks)
            await eventually(partial(stores_more, store, before), "the worker stores", worker)
            joining = Worker(place, store)
            await asyncio.sleep(after_s)
            assert await asyncio.wait_for(worker.stop(), 120)
            worker = joining
        before = len(store.blocks)
        await eventually(partial(stores_more, store, before), "the last one goes on", worker)
        assert await asyncio.wait_for(worker.stop(), 120)


def stores_more(store: Store, than: int) -> bool:
    return len(store.blocks) > than + 5


async def test_a_worker_that_fails_while_another_joins_ends(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        first = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 5, "the worker stores", first)
        second = Worker(place, Store())
        await asyncio.sleep(0.5)
        store.fault = SinkRejected("not a block")
        with pytest.raises(SinkRejected):
            await asyncio.wait_for(first.running, 120)
        assert first.app.partitions == []
        assert await asyncio.wait_for(second.stop(), 120)


async def test_nobody_waits_for_a_thread_that_does_not_listen_any_more(
    broker: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash: what is asked of it stays in its queue."""
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 10, "the worker stores", worker)
        consumer = worker.app._app.consumer

        async def stay_in_the_queue(promise: Any, *_: Any, **__: Any) -> Any:
            return promise

        monkeypatch.setattr(consumer._thread.method_queue, "call", stay_in_the_queue)
        asking = asyncio.create_task(consumer.subscribe([SPANS]))
        assert await asyncio.wait_for(worker.stop(), 120)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asking, 120)


async def test_a_consumer_that_has_ended_is_a_log_that_does_not_answer(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    async with Load(place):
        worker = Worker(place, store)
        await eventually(lambda: len(store.blocks) > 10, "the worker stores", worker)
        consumer, waits = worker.app._app.consumer, threading.Event()

        async def ask(_: Any) -> None:
            waits.set()
            await asyncio.Event().wait()

        asking = asyncio.create_task(consumer.member.ask(ask))
        await eventually(waits.is_set, "it is asked", worker)
        assert await worker.stop()
    with pytest.raises(LogUnavailable):
        await asyncio.wait_for(asking, 120)
    waits.clear()
    with pytest.raises(LogUnavailable, match="has ended"):
        await consumer.member.ask(ask)
    gc.collect()  # a coroutine that was never awaited would be reported here
    assert not waits.is_set()

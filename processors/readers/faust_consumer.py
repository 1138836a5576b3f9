"""Faust's consumer, its thread and its supervisor, where Faust's own lose their place, hang or give up
(docs/adr/0020).
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError, KafkaError
from faust.transport.drivers import aiokafka as driver
from mode.supervisors import OneForOneSupervisor

from log.kafka.consumer import stop_consumer

_LOGGER = logging.getLogger(__name__)

_KAFKA_S = 10.0
"""How long a request to the brokers may take before it is given up (aiokafka itself would try for ever)."""

_CLOSE_S = 10.0
"""How long the consumer's thread may take to finish what it was asked, and again to leave the group."""

_NO_LIMIT = 1e6

_T = TypeVar("_T")


class Consumer(driver.Consumer):
    """Begins to read where cursors are, not at the committed offset."""

    app: Any

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Called after every rebalance, sometimes twice, and once with the old partitions still."""
        here = self.assignment()
        await self.seek_wait(
            {kp: cursor.next_offset for kp, cursor in self.app.cursors.items() if kp in here}
        )

    async def kafka(self, ask: Callable[[AIOKafkaConsumer], Awaitable[_T]]) -> _T:
        """Ask aiokafka's consumer, in the loop of its own thread."""
        loop, consumer = self._thread.thread_loop, self._thread._consumer
        if consumer is None:
            raise KafkaConnectionError("the consumer has not begun")

        async def asked() -> _T:
            return await asyncio.wait_for(ask(consumer), _KAFKA_S)

        asking = asked()
        give_up_s = time.monotonic() + 2 * _KAFKA_S
        try:
            answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, loop))
            try:
                while not answer.done():  # a thread that ends in this moment does not answer any more
                    await asyncio.wait({answer}, timeout=1)
                    if not answer.done() and (loop.is_closed() or time.monotonic() > give_up_s):
                        raise KafkaConnectionError("the consumer does not answer")
            finally:
                answer.cancel()
        except RuntimeError as error:  # of its loop
            raise KafkaConnectionError("the consumer has ended") from error
        finally:
            if inspect.getcoroutinestate(asking) == inspect.CORO_CREATED:
                asking.close()
        if answer.cancelled():
            raise KafkaConnectionError("the consumer has ended")
        return answer.result()

    def close(self) -> None:
        """Nothing. Faust calls this at a rebalance during a stop, and would close the consumer from the main
        loop.

        What belongs to the thread's loop breaks of that: its own stop then waits for ever. The thread closes
        what it has (below).
        """


class Supervisor(OneForOneSupervisor):
    """Starts agents again that a rebalance cancelled, however many: Faust's own ends the process when two of
    them fall into 10 ms.
    """

    def __init__(self, **options: Any) -> None:
        """``options``: as Faust gives them, but for the limit: its token bucket is as small as ``over``,
        whatever ``max_restarts`` is.
        """
        super().__init__(**{**options, "max_restarts": _NO_LIMIT, "over": _NO_LIMIT})


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that aiokafka's consumer runs in."""

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """As Faust's, but for a stop or a crash: the thread does not listen any more then, and who asks it
        would wait for ever.

        (Faust's conductor does: it swallows its cancellation, and subscribes.)
        """
        promise = await self.method_queue.call(self.parent_loop.create_future(), fun, *args, **kwargs)
        try:
            while not promise.done():
                await asyncio.wait({promise}, timeout=1)
                if not promise.done() and self.app.should_stop:
                    raise asyncio.CancelledError
        finally:
            promise.cancel()
        return promise.result()

    async def on_thread_stop(self) -> None:
        """As Faust's, but for how the consumer is stopped: the thread must end in order, or the app waits for
        it for ever.
        """
        try:
            async with asyncio.timeout(_CLOSE_S):
                await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        except TimeoutError:
            _LOGGER.warning("what was asked of the consumer is given up")
        if self._consumer is not None:
            try:
                await stop_consumer(self._consumer, _CLOSE_S)
            except KafkaError as error:
                _LOGGER.warning("the consumer was not stopped in order: %r", error)


class Transport(driver.Transport):
    """Makes these consumers."""

    Consumer = Consumer

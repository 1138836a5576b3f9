"""Faust's consumer, its thread and its supervisor, where Faust's own lose their place, hang or give up
(docs/adr/0020).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from faust.transport.drivers import aiokafka as driver
from mode.supervisors import OneForOneSupervisor

from log.kafka.consumer import end_consumer
from log.kafka.member import Member

_LOGGER = logging.getLogger(__name__)

_CLOSE_S = 10.0
"""How long the consumer's thread may take to finish what it was asked, and again to leave the group."""

_NO_LIMIT = 1e6


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

    @property
    def member(self) -> Member:
        """What may be asked of the brokers on behalf of the group."""
        return Member(self._thread._consumer, self._thread.thread_loop)

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
            await end_consumer(self._consumer, _CLOSE_S)


class Transport(driver.Transport):
    """Makes these consumers."""

    Consumer = Consumer

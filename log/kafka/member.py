"""A member of a consumer group, asked from outside of its loop: where to begin, what to commit, how far the
topics are.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from schemas.errors import LogUnavailable
from schemas.records import Commit

ANSWER_S = 10.0
"""How long a request to the brokers may take before it is given up (aiokafka itself would try for ever)."""

Partition = tuple[str, int]
"""Kafka's name of a topic, and a number."""

_T = TypeVar("_T")


class Beginning(NamedTuple):
    """Where to begin with a partition."""

    commit: Commit | None
    """The group's newest one."""
    first: int
    """The first offset there is."""
    end: int
    """The offset that comes next."""


def unavailable(error: BaseException) -> BaseException:
    """The error itself, or LogUnavailable for one of Kafka's."""
    if isinstance(error, (KafkaError, TimeoutError)):
        return LogUnavailable(f"Kafka does not answer: {error!r}")
    return error


class Member:
    """aiokafka's consumer, which runs in the loop of another thread. Used from one loop.

    Every method raises LogUnavailable: the brokers or the thread do not answer in time, or have ended.
    """

    def __init__(self, consumer: AIOKafkaConsumer | None, loop: asyncio.AbstractEventLoop) -> None:
        """``consumer``: None where it has not begun; ``loop``: its thread's."""
        self._consumer = consumer
        self._loop = loop

    async def beginnings(self, partitions: Iterable[Partition]) -> dict[Partition, Beginning]:
        """Where to begin with each of these."""
        here = [KafkaPartition(*each) for each in partitions]
        if not here:
            return {}

        async def look(kafka: AIOKafkaConsumer) -> tuple[Any, dict[Any, int], dict[Any, int]]:
            return (
                await _committed(kafka, here),
                await kafka.beginning_offsets(here),
                await kafka.end_offsets(here),
            )

        committed, first, end = await self.ask(look)
        return {each: Beginning(committed[each], first[each], end[each]) for each in here}

    async def committed(self, partitions: Iterable[Partition]) -> list[Commit | None]:
        """The group's newest commit of each of these, in order."""
        here = [KafkaPartition(*each) for each in partitions]
        found = await self.ask(lambda kafka: _committed(kafka, here))
        return [found[each] for each in here]

    async def commit(self, commits: Mapping[Partition, Commit]) -> None:
        """Commit for the group; refused, as all errors, where it has put this member out."""
        offsets = {
            KafkaPartition(*each): OffsetAndMetadata(commit.offset, commit.metadata)
            for each, commit in commits.items()
        }
        await self.ask(lambda kafka: kafka.commit(offsets))

    async def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """The offset that comes next, as the last fetch found it, of those of these that are assigned; None
        where there was no fetch yet.
        """
        here = [KafkaPartition(*each) for each in partitions]

        async def look(kafka: AIOKafkaConsumer) -> dict[Partition, int | None]:
            return {each: kafka.highwater(each) for each in here if each in kafka.assignment()}

        return await self.ask(look)

    async def ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[_T]]) -> _T:
        """Ask the consumer in its loop."""
        consumer, loop = self._consumer, self._loop
        if consumer is None:
            raise LogUnavailable("Kafka does not answer: the consumer has not begun")

        async def asked() -> _T:
            return await asyncio.wait_for(question(consumer), ANSWER_S)

        asking = asked()
        try:
            return await self._wait(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, loop)))
        except RuntimeError as error:  # of its loop
            raise LogUnavailable("Kafka does not answer: the consumer has ended") from error
        except (KafkaError, TimeoutError) as error:
            raise unavailable(error) from error
        finally:
            if inspect.getcoroutinestate(asking) == inspect.CORO_CREATED:
                asking.close()

    async def _wait(self, answer: "asyncio.Future[_T]") -> _T:
        give_up_s = time.monotonic() + 2 * ANSWER_S
        try:
            while not answer.done():  # a thread that ends in this moment does not answer any more
                await asyncio.wait({answer}, timeout=1)
                if not answer.done() and (self._loop.is_closed() or time.monotonic() > give_up_s):
                    raise LogUnavailable("Kafka does not answer: neither does the consumer")
        finally:
            answer.cancel()
        if answer.cancelled():
            raise LogUnavailable("Kafka does not answer: the consumer has ended")
        return answer.result()


async def _committed(kafka: AIOKafkaConsumer, here: list[Any]) -> dict[Any, Commit | None]:
    known = await kafka._coordinator.fetch_committed_offsets(here)  # the public method gives no metadata
    return {each: _commit(known.get(each)) for each in here}


def _commit(known: Any) -> Commit | None:
    return Commit(known.offset, known.metadata) if known is not None and known.offset >= 0 else None

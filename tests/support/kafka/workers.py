"""Workers that run in the test's loop on a real broker, and a load for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from benchmarks.load import make_requests
from log.kafka.brokers import Brokers
from log.kafka.writer import KafkaLogWriter
from processors.readers.partition import Processor
from processors.readers.worker import Worker as KafkaWorker
from processors.settings import ProcessorSettings
from schemas import otlp
from schemas.errors import LogUnavailable
from schemas.records import Append, Commit, DeadLetter, TopicPartition
from schemas.topics import LOGS, METRICS, SPANS
from tests.support.kafka.core import Store, by_token, make_processor, undisturbed, windows_close
from tests.support.kafka.place import KafkaPlace

PARTITIONS = 2
TOPICS = {SPANS: PARTITIONS, METRICS: PARTITIONS, LOGS: PARTITIONS}
SETTINGS = ProcessorSettings.model_validate(
    {
        "pane": "200ms",
        "wait": 2,
        "lookback": "1s",
        "metrics_lookback": "1s",
        "partitions": PARTITIONS,
        "kafka": {"commit_every": "100ms", "session_timeout": "10s"},
    }
)
PANE_S = 0.2

WITHIN_S = 150.0
"""How long anything that must happen may take on a busy machine."""

_started: "list[Worker]" = []


class Worker:
    """An app that runs in the test's loop."""

    def __init__(self, place: KafkaPlace, store: Store, settings: ProcessorSettings = SETTINGS) -> None:
        self.letters: list[tuple[TopicPartition, DeadLetter]] = []
        self.made: list[TopicPartition] = []
        """The partition of each processor: each one made reads its lookback."""
        self._settings = settings
        self._stop = asyncio.Event()
        brokers = Brokers(tuple(place.cluster.bootstrap.split(",")))
        self.app = KafkaWorker(
            brokers,
            place.prefix,
            settings,
            self._make,
            sink=store,
            set_aside=self._set_aside,
        )
        self.running = asyncio.create_task(self.app.serve(self._stop))
        _started.append(self)

    def _make(self, tp: TopicPartition, commit: Commit | None) -> Processor:
        self.made.append(tp)
        return make_processor(self._settings, tp, commit)

    async def _set_aside(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        self.letters += [(tp, letter) for letter in letters]

    async def stop(self) -> bool:
        self._stop.set()
        return await self.running


class Load:
    """Spans at a steady pace, with ticks, as ingest would write them."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self._stop = asyncio.Event()
        self.sent = 0

    async def __aenter__(self) -> "Load":
        self._writer = await self._place.open_writer(TOPICS)
        self._task = asyncio.create_task(self._send())
        self._ticking = ticks(self._writer)
        await self._ticking.__aenter__()
        return self

    async def _send(self) -> None:
        for request in make_requests(100_000, 10, 5, 20, seed=7, spans_per_s=400):
            if self._stop.is_set():
                return
            parts = otlp.split(SPANS, request, PARTITIONS)
            with suppress(LogUnavailable):
                await self._writer.append(
                    [Append(TopicPartition(SPANS, number), part) for number, part in parts.parts.items()]
                )
                self.sent += parts.items
            await asyncio.sleep(0.05)

    async def __aexit__(self, *failure: object) -> None:
        self._stop.set()
        await self._task
        if failure[0] is None:
            await windows_close(self._place, SETTINGS)
        await self._ticking.__aexit__(None, None, None)
        await self._writer.close()


@asynccontextmanager
async def ticks(writer: KafkaLogWriter, pane_s: float = PANE_S) -> AsyncIterator[None]:
    """Ticks, as ingest would write them; none is under way any more at the end."""
    stop = asyncio.Event()

    async def tick() -> None:
        while not stop.is_set():
            with suppress(LogUnavailable):
                await writer.tick(round(pane_s * 1e9))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pane_s / 4)

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        stop.set()
        await ticking


async def eventually(happened: Callable[[], Awaitable[bool] | bool], what: str, *workers: Worker) -> None:
    end_s = time.monotonic() + WITHIN_S
    while time.monotonic() < end_s:
        for worker in workers:
            if worker.running.done():
                worker.running.result()
        answer = happened()
        if answer if isinstance(answer, bool) else await answer:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"did not happen within {WITHIN_S} s: {what}")


async def stop_all() -> None:
    """Stop the workers that a test which failed has left: the loop would wait for them for ever."""
    while _started:
        worker = _started.pop()
        if not worker.running.done():
            with suppress(Exception):
                await asyncio.wait_for(worker.stop(), WITHIN_S)


async def assert_as_undisturbed(place: KafkaPlace, store: Store, *workers: Worker) -> None:
    expected = (await undisturbed(place, SETTINGS)).blocks
    await eventually(
        lambda: expected.keys() <= {block.token for block in store.blocks}, "everything is stored", *workers
    )
    stored = by_token(store.blocks)
    assert stored.keys() == expected.keys()
    for token, block in expected.items():
        assert stored[token].rows.equals(block.rows), token

"""What the processors make of a Kafka log read in one go: what workers must have stored, whatever happened to
them.
"""

import asyncio
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from processors.logs.signal import log_processor
from processors.panes import Emit
from processors.points.signal import point_processor
from processors.readers.partition import Processor
from processors.settings import ProcessorSettings
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.signal import span_processor
from schemas.records import Commit, TopicPartition
from schemas.tables import Block
from schemas.topics import LOGS, METRICS
from tests.support.kafka.place import KafkaPlace

ALL = 1 << 40


def make_processor(
    settings: ProcessorSettings,
    tp: TopicPartition,
    commit: Commit | None = None,
    sampling: SamplingSettings | None = None,
) -> Processor:
    if tp.topic == METRICS:
        return point_processor(tp, settings, commit)
    if tp.topic == LOGS:
        return log_processor(tp, settings, commit)
    return span_processor(tp, settings, sampling or SamplingSettings(), commit)


class Undisturbed(NamedTuple):
    """What one reading of the whole log gives."""

    blocks: dict[str, Block]
    """By token."""
    commits: dict[TopicPartition, Commit]
    """The last one of each partition."""


async def undisturbed(
    place: KafkaPlace, settings: ProcessorSettings, sampling: SamplingSettings | None = None
) -> Undisturbed:
    reader = await place.open_reader("undisturbed")
    emits: list[Emit] = []
    commits: dict[TopicPartition, Commit] = {}
    for tp in await reader.partitions():
        processor = make_processor(settings, tp, sampling=sampling)
        emitted = processor.feed(await reader.read(tp, await reader.beginning(tp), ALL))
        emits += emitted
        if emitted:
            commits[tp] = emitted[-1].commit
    await reader.close()
    return Undisturbed(by_token(block for emit in emits for block in emit.blocks), commits)


async def windows_close(place: KafkaPlace, settings: ProcessorSettings, within_s: float = 150.0) -> None:
    """Wait until ticks have gone so far past the newest items of each partition that every pane of theirs is
    decided.
    """
    span_ns = (settings.wait + 2) * settings.pane_ns
    reader = await place.open_reader("windows")
    offsets: dict[TopicPartition, int] = {}
    items: dict[TopicPartition, int] = {}
    newest: dict[TopicPartition, int] = {}
    end_s = time.monotonic() + within_s
    try:
        partitions = await reader.partitions()
        while True:
            for tp in partitions:
                for record in await reader.read(tp, offsets.setdefault(tp, await reader.beginning(tp)), ALL):
                    offsets[tp], newest[tp] = record.offset + 1, record.append_time_ns
                    if record.size or record.headers:
                        items[tp] = record.append_time_ns
            if all(newest[tp] - time_ns >= span_ns for tp, time_ns in items.items()):
                return
            assert time.monotonic() < end_s, f"ticks did not close the windows of {items}: {newest}"
            await asyncio.sleep(0.1)
    finally:
        await reader.close()


def by_token(blocks: Iterable[Block]) -> dict[str, Block]:
    """Blocks by token; those of one token must be equal."""
    known: dict[str, Block] = {}
    for block in blocks:
        first = known.setdefault(block.token, block)
        assert first.rows.equals(block.rows), block.token
    return known


class Store:
    """A sink that keeps everything; it can be made to fail."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.fault: Exception | None = None
        self._guard = threading.Lock()

    def write(self, block: Block) -> None:
        if self.fault:
            raise self.fault
        with self._guard:
            self.blocks.append(block)

    def close(self) -> None:
        """Nothing to let go of."""

    def sum(self, column: str) -> int:
        """Of the ledger, each block once."""
        return sum(
            sum(block.rows[column].to_pylist())
            for block in by_token(self.blocks).values()
            if block.table == "ledger"
        )


class HeldStore(Store):
    """It takes blocks when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.waiting = threading.Event()

    def write(self, block: Block) -> None:
        self.waiting.set()
        assert self.go.wait(120)
        super().write(block)

"""Workers as processes that join, leave, are killed and stand still; a stop while the database hangs; what
workers report of themselves.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from processors.settings import ProcessorSettings
from schemas.records import TopicPartition
from schemas.topics import SPANS
from tests.support.kafka.block_worker import read_blocks
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import HeldStore, Store, by_token, undisturbed
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.workers import PARTITIONS, SETTINGS, TOPICS, Load, Worker, eventually, ticks
from tests.support.up import LONG_S, ROOT, cpu_s

pytestmark = [
    pytest.mark.component("kafka"),
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("no_worker_left"),
]


class Fleet:
    """Processes that share a folder of blocks."""

    def __init__(self, place: KafkaPlace, folder: Path, stack: ExitStack) -> None:
        self.blocks = folder / "blocks"
        self.blocks.mkdir()
        self._place = place
        self._folder = folder
        self._stack = stack

    def start(self, name: str, *pane: str) -> "subprocess.Popen[bytes]":
        arguments = [self._place.cluster.bootstrap, self._place.prefix, str(self.blocks), *pane]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.kafka.block_worker", *arguments],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def written_by(self, process: "subprocess.Popen[bytes]") -> int:
        return sum(
            path.name.split(":")[-2] == str(process.pid)
            for path in self.blocks.iterdir()
            if not path.name.startswith(".")
        )

    async def writes(self, process: "subprocess.Popen[bytes]", what: str) -> None:
        """Wait until this one has stored something more."""
        before = self.written_by(process)
        await eventually(lambda: self.written_by(process) > before + 5, what)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Commits:
    """Watches what the group commits, between enter and exit."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self.offsets: dict[TopicPartition, int] = {}
        self.back: list[tuple[TopicPartition, int, int]] = []

    async def __aenter__(self) -> "Commits":
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching

    async def _watch(self) -> None:
        reader = await self._place.open_reader("meshflow")
        try:
            while True:
                for tp in await reader.partitions():
                    commit = await reader.committed(tp)
                    if commit and commit.offset < self.offsets.get(tp, 0):
                        self.back.append((tp, self.offsets[tp], commit.offset))
                    if commit:
                        self.offsets[tp] = commit.offset
                await asyncio.sleep(0.1)
        finally:
            await reader.close()

    async def move(self) -> None:
        """Wait until every partition's has moved on."""
        before = dict(self.offsets)
        everything = [TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)]

        def have_moved() -> bool:
            if self._watching.done():
                self._watching.result()
            return all(self.offsets.get(tp, 0) > before.get(tp, 0) for tp in everything)

        await eventually(have_moved, "every partition goes on")


async def test_processes_that_are_killed_and_stand_still_store_what_one_reading_gives(
    broker: Cluster, tmp_path: Path, stack: ExitStack
) -> None:
    place = KafkaPlace(broker)
    fleet = Fleet(place, tmp_path, stack)
    async with Commits(place) as commits, Load(place) as load:
        first, second = fleet.start("first"), fleet.start("second")
        await fleet.writes(first, "the first one stores")
        await fleet.writes(second, "the second one stores")
        first.kill()
        third = fleet.start("third")
        await fleet.writes(third, "a new one stores")
        await commits.move()
        second.send_signal(signal.SIGSTOP)  # it stands still, in the middle of whatever it was doing
        await commits.move()
        await commits.move()  # which took its partitions from it
        second.send_signal(signal.SIGCONT)
        await fleet.writes(second, "the one that stood still joins again")
        fourth = fleet.start("fourth")
        await commits.move()
        third.terminate()  # of three, one has no partition of spans; of two, each has one
        await asyncio.to_thread(third.wait, LONG_S)
        await fleet.writes(fourth, "one more stores")
        await commits.move()
    expected = (await undisturbed(place, SETTINGS)).blocks

    def missing() -> set[str]:
        return expected.keys() - {block.token for _, block in read_blocks(fleet.blocks)}

    await eventually(lambda: not missing(), "everything is stored")
    for process in (second, fourth):
        process.terminate()
        assert await asyncio.to_thread(process.wait, LONG_S) == 0
    assert third.returncode == 0
    stored = by_token(
        block for _, block in read_blocks(fleet.blocks)
    )  # whoever stored a block, its rows are the same
    assert stored.keys() == expected.keys()
    for token, block in expected.items():
        assert stored[token].rows.equals(block.rows), token
    assert commits.back == [], "who has lost a partition commits nothing of it"
    ledger = [row for block in stored.values() if block.table == "ledger" for row in block.rows.to_pylist()]
    assert (
        sum(row["received"] for row in ledger)
        == load.sent
        == sum(row["kept"] + row["dropped"] for row in ledger)
    )
    assert sum(row["lost"] for row in ledger) == 0


def with_stop_time(stop_time: timedelta) -> ProcessorSettings:
    return SETTINGS.model_copy(update={"kafka": SETTINGS.kafka.model_copy(update={"stop_time": stop_time})})


async def test_a_stop_finishes_the_pane_in_hand(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), HeldStore()
    async with Load(place):
        worker = Worker(place, store, with_stop_time(timedelta(minutes=2)))
        await eventually(store.waiting.is_set, "a block is being stored", worker)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.2)
        assert not stopping.done()
        store.go.set()
        assert await stopping
    reader = await place.open_reader("meshflow")
    commits = [await reader.committed(tp) for tp in await reader.partitions()]
    await reader.close()
    assert any(commits), "what was finished is committed"
    assert store.blocks


async def test_a_database_that_hangs_does_not_hold_up_a_stop(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), HeldStore()
    async with Load(place):
        worker = Worker(place, store, with_stop_time(timedelta(milliseconds=200)))
        await eventually(store.waiting.is_set, "a block is being stored", worker)
        assert not await asyncio.wait_for(worker.stop(), LONG_S), "it says that something was left"
        assert store.blocks == []
        store.go.set()


IDLE_S = 10.0


async def test_a_worker_with_nothing_to_do_does_next_to_nothing(
    broker: Cluster, tmp_path: Path, stack: ExitStack
) -> None:
    place = KafkaPlace(broker)
    fleet = Fleet(place, tmp_path, stack)
    writer = await place.open_writer(TOPICS)
    async with ticks(writer, 2.0):
        process = fleet.start("idle", "2s")
        async with Commits(place) as commits:
            await commits.move()
        before_s = cpu_s(process.pid)
        await asyncio.sleep(IDLE_S)
        assert cpu_s(process.pid) - before_s < IDLE_S / 10, (
            "1 % of a core is usual; what spins takes all of one"
        )
    await writer.close()
    process.terminate()
    assert await asyncio.to_thread(process.wait, LONG_S) == 0


async def test_workers_report_lag_pane_and_delay_and_end_without_lag(broker: Cluster) -> None:
    place, store = KafkaPlace(broker), Store()
    labels = {"topic": SPANS, "partition": "0"}

    def gauge(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"meshflow_process_{name}", labels)

    async with Load(place) as load:
        await eventually(lambda: load.sent > 200, "there is something to read")
        worker = Worker(place, store)
        await eventually(lambda: gauge("pane") is not None, "the pane is reported", worker)
        before = gauge("pane")
        assert before is not None
        await eventually(lambda: (gauge("pane") or 0) > before + 5, "the pane moves", worker)
        delay_s = gauge("decision_delay_seconds")
        assert delay_s is not None
        assert delay_s > 0.9 * SETTINGS.wait * SETTINGS.pane.total_seconds(), (
            "a pane is decided when those that it waits for are over"
        )
    writer = await place.open_writer(TOPICS)
    async with ticks(writer):
        for topic in TOPICS:
            for number in range(PARTITIONS):
                labels = {"topic": topic, "partition": str(number)}
                await eventually(lambda: gauge("lag_records") == 0, f"{topic}/{number} has no lag", worker)
    await writer.close()
    assert await worker.stop()
    labels = {"topic": SPANS, "partition": "0"}
    assert [gauge(name) for name in ("lag_records", "pane", "decision_delay_seconds")] == [None] * 3

"""Draining: whatever fails and whenever the process dies, each entry comes into the log once, and each
partition is in order.
"""

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from log.kafka.writer import KafkaLogWriter
from log.spool import drain as spool_drain
from log.spool.drain import Drain
from log.spool.format import NEVER_SENT
from log.spool.spool import Spool
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition
from schemas.topics import SPANS
from tests.support.examples import examples

TPS = [TopicPartition(SPANS, number) for number in range(3)]


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is killed here is a process: the kernel keeps what it wrote. A busy disk would take minutes."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


class Killed(BaseException):
    """As kill -9: nothing of the process goes on after it."""


class FakeKafka:
    """Partitions as lists of (id, value). A fault makes an append stop after a part of its records, with or
    without the process.
    """

    def __init__(self) -> None:
        self.partitions: dict[TopicPartition, list[tuple[bytes, bytes]]] = {tp: [] for tp in TPS}
        self.fault: tuple[int, type[BaseException]] | None = None
        self.random = random.Random(0)

    def ends(self) -> dict[TopicPartition, int]:
        return {tp: len(records) for tp, records in self.partitions.items()}

    async def find(self, doubtful: Sequence[tuple[Append, bytes, int]]) -> set[bytes]:
        found = set()
        for append, id_, since in doubtful:
            found |= {known for known, _ in self.partitions[append.tp][since:] if known == id_}
        return found

    async def append(
        self, appends: Sequence[Append], ids: Sequence[bytes] = (), there: Collection[bytes] = ()
    ) -> None:
        by_partition: dict[TopicPartition, list[tuple[bytes, bytes]]] = {}
        for append, id_ in zip(appends, ids, strict=True):
            if id_ not in there:
                by_partition.setdefault(append.tp, []).append((id_, append.value))
        fault, self.fault = self.fault, None
        for tp, records in by_partition.items():
            part = records[: self.random.randrange(len(records) + 1)] if fault and fault[0] < 3 else records
            self.partitions[tp] += part
        if fault:
            raise fault[1]("as planned")

    def others_write(self, tp: TopicPartition) -> None:
        self.partitions[tp].append((b"of others", b"of others"))


@examples(40, stateful_step_count=30)
class DrainMachine(RuleBasedStateMachine):
    """Entries of all kinds, drains that succeed, fail or kill the process, and other writers in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="meshflow-drain-"))
        self.threads = ThreadPoolExecutor(1)
        self.kafka = FakeKafka()
        self.serial = 0
        self.spooled: dict[TopicPartition, list[bytes]] = {tp: [] for tp in TPS}
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.folder, 1 << 40)

    def made(self, tps: Sequence[TopicPartition]) -> tuple[list[Append], list[bytes]]:
        appends = []
        for tp in tps:
            self.serial += 1
            appends.append(Append(tp, b"%06d" % self.serial))
            self.spooled[tp].append(appends[-1].value)
        return appends, [append.value for append in appends]

    @rule(tps=st.lists(st.sampled_from(TPS), min_size=1, max_size=4))
    def spool_what_was_never_sent(self, tps: list[TopicPartition]) -> None:
        appends, ids = self.made(tps)
        self.spool.append(appends, ids, [NEVER_SENT] * len(ids))

    @rule(
        tps=st.lists(st.sampled_from(TPS), min_size=1, max_size=3, unique=True),
        got_in=st.sets(st.integers(0, 2)),
    )
    def spool_what_got_no_answer(self, tps: list[TopicPartition], got_in: set[int]) -> None:
        """A direct append, so nothing is in the spool before."""
        if self.spool.entries:
            return
        appends, ids = self.made(tps)
        since = [self.kafka.ends()[append.tp] for append in appends]
        for number, (append, id_) in enumerate(zip(appends, ids, strict=True)):
            if number in got_in:
                self.kafka.partitions[append.tp].append((id_, append.value))
        self.spool.append(appends, ids, since)

    @rule(tp=st.sampled_from(TPS))
    def others_write(self, tp: TopicPartition) -> None:
        self.kafka.others_write(tp)

    @rule(
        fault=st.none() | st.tuples(st.integers(0, 4), st.sampled_from([LogUnavailable, Killed])),
        chunk_bytes=st.integers(1, 60),
    )
    def move(self, fault: tuple[int, type[BaseException]] | None, chunk_bytes: int) -> None:
        self.kafka.fault = fault
        try:
            self._move(chunk_bytes)
        except LogUnavailable:
            assert fault is not None
        except Killed:
            self.spool.close()
            self.open()
        self.kafka.fault = None

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.open()

    def _move(self, chunk_bytes: int = spool_drain.CHUNK_BYTES) -> None:
        async def move() -> None:
            drain = Drain(self.spool, self.threads, chunk_bytes)
            chunk, _ = await drain.peek()
            if chunk.entries:
                await drain.move(cast(KafkaLogWriter, self.kafka), chunk)

        asyncio.run(move())

    @invariant()
    def nothing_twice_and_in_order(self) -> None:
        for tp in TPS:
            logged = self.logged(tp)
            assert logged == self.spooled[tp][: len(logged)]

    def logged(self, tp: TopicPartition) -> list[bytes]:
        return [value for id_, value in self.kafka.partitions[tp] if id_ != b"of others"]

    def teardown(self) -> None:
        while self.spool.entries:
            self._move()
        assert {tp: self.logged(tp) for tp in TPS} == self.spooled
        self.spool.close()
        self.threads.shutdown()
        shutil.rmtree(self.folder)


TestDrainMachine = DrainMachine.TestCase


def test_less_is_drained_at_once_after_a_failure(tmp_path: Path) -> None:
    spool, kafka, threads = Spool(tmp_path, 1 << 40), FakeKafka(), ThreadPoolExecutor(1)
    for number in range(10):
        spool.append([Append(TPS[0], bytes(3 << 20))], [b"%d" % number], [NEVER_SENT])
    drain = Drain(spool, threads)
    sizes: list[Any] = []

    async def run() -> None:
        while spool.entries:
            chunk, _ = await drain.peek()
            sizes.append(len(chunk.entries))
            kafka.fault = (0, LogUnavailable) if len(sizes) < 8 else None
            try:
                await drain.move(cast(KafkaLogWriter, kafka), chunk)
            except LogUnavailable:
                continue

    asyncio.run(run())
    assert sizes[:8] == [6, 3, 2, 1, 1, 1, 1, 1]
    assert sizes[-1] >= 1
    assert spool_drain.CHUNK_BYTES == 16 << 20
    spool.close()
    threads.shutdown()

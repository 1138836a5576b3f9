"""The spool in front of a real Kafka: the contract of every log, and what happens while brokers are away."""

import asyncio
import errno
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from log.kafka.settings import KafkaWriterSettings
from log.kafka.topics import TopicsUnfit
from log.kafka.writer import KafkaLogWriter
from log.spool import writer as spooling
from log.spool.format import NEVER_SENT
from log.spool.settings import SpoolSettings
from log.spool.slots import Target
from log.spool.spool import Spool
from log.spool.writer import SpoolingWriter
from schemas.errors import LogUnavailable
from schemas.records import Append
from schemas.topics import SPANS
from schemas.units import NS_PER_S, parse_duration
from tests.log.log_contract import PARTITIONS, A, B, LogContract
from tests.support.kafka.broker import Cluster
from tests.support.kafka.place import KafkaPlace

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

LONG_S = 120.0
QUICK = KafkaWriterSettings(append_timeout=parse_duration("2s"))
MIB = 1 << 20


class SpooledPlace(KafkaPlace):
    """Its writers have a spool, in ``root``."""

    def __init__(self, cluster: Cluster, root: Path, **settings: object) -> None:
        super().__init__(cluster, QUICK)
        self.root = root
        self.spool = SpoolSettings.model_validate({"after": "500ms", **settings})

    @property
    def target(self) -> Target:
        return Target(tuple(self.cluster.bootstrap.split(",")), self.prefix)

    async def open_kafka(self) -> KafkaLogWriter:
        return await super().open_writer()

    async def open_writer(self, partitions: dict[str, int] | None = None) -> SpoolingWriter:  # type: ignore[override]
        return await SpoolingWriter.open(
            self.root, self.open_kafka, partitions or PARTITIONS, self.spool, self.target
        )

    async def values(self) -> list[bytes]:
        """What is in A, without ticks."""
        reader = await self.open_reader()
        try:
            return [
                record.unpack()
                for record in await reader.read(A, await reader.beginning(A), 1 << 30)
                if record.size
            ]
        finally:
            await reader.close()


@pytest.fixture
def place(broker: Cluster, tmp_path: Path) -> SpooledPlace:
    return SpooledPlace(broker, tmp_path / "spool")


@pytest.fixture(autouse=True)
def patient_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, a writer is connected when it is open."""
    monkeypatch.setattr(spooling, "START_S", LONG_S)


class TestSpooledLog(LogContract):
    """However busy the machine is, what it appends goes to Kafka directly."""

    @pytest.fixture
    def place(self, broker: Cluster, tmp_path: Path) -> SpooledPlace:
        place = SpooledPlace(broker, tmp_path / "spool", after="2m")
        place.settings = KafkaWriterSettings(append_timeout=parse_duration("2m"))
        return place


class TestLogBehindASpool(LogContract):
    """The same when all goes through the spool."""

    @pytest.fixture
    def place(self, broker: Cluster, tmp_path: Path) -> SpooledPlace:
        return DrainedPlace(broker, tmp_path / "spool")


class Reluctant:
    """A KafkaLogWriter that takes records from the spool only: a drain says what may be there already."""

    def __init__(self, kafka: KafkaLogWriter) -> None:
        self._kafka = kafka

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kafka, name)

    async def append(
        self, appends: Sequence[Append], ids: Sequence[bytes], there: Collection[bytes] | None = None
    ) -> None:
        if there is None:
            raise LogUnavailable("not from the spool")
        await self._kafka.append(appends, ids, there)


class DrainedWriter:
    """An append returns when the writer's spool is drained."""

    def __init__(self, writer: SpoolingWriter) -> None:
        self._writer = writer

    async def append(self, appends: list[Append]) -> None:
        taken_before = gauge("records_taken_total")
        await self._writer.append(appends)
        assert gauge("records_taken_total") >= taken_before + len(appends)
        await drained(self._writer)

    async def tick(self, silent_ns: int) -> None:
        await self._writer.tick(silent_ns)

    async def close(self) -> None:
        await self._writer.close()


class DrainedPlace(SpooledPlace):
    async def open_kafka(self) -> KafkaLogWriter:
        return cast(KafkaLogWriter, Reluctant(await super().open_kafka()))

    async def open_writer(self, partitions: dict[str, int] | None = None) -> DrainedWriter:  # type: ignore[override]
        return DrainedWriter(await super().open_writer(partitions))


async def until(holds: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    async with asyncio.timeout(LONG_S):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.05)
    raise AssertionError(what)


async def drained(writer: SpoolingWriter) -> None:
    await until(lambda: not writer.behind, "the spool is drained")


def gauge(name: str) -> float:
    """What operators see of the spool of the writer that was opened last."""
    return REGISTRY.get_sample_value(f"meshflow_spool_{name}") or 0.0


@asynccontextmanager
async def paused(cluster: Cluster) -> AsyncIterator[None]:
    cluster.nodes[0].pause()
    try:
        yield
    finally:
        cluster.nodes[0].resume()


async def test_what_kafka_does_not_take_in_time_is_acknowledged_and_comes_once_and_in_order(
    place: SpooledPlace,
) -> None:
    writer = await place.open_writer()
    await writer.append([Append(A, b"0")])
    async with paused(place.cluster):
        for number in range(1, 6):
            await writer.append([Append(A, b"%d" % number)])
        assert gauge("records") >= 5
    await writer.append([Append(A, b"6")])
    await drained(writer)
    await writer.append([Append(A, b"7")])
    assert await place.values() == [b"%d" % number for number in range(8)]
    assert (gauge("records"), gauge("bytes")) == (0, 0)
    await writer.close()


async def test_a_restart_with_a_full_spool_loses_nothing_and_doubles_nothing(place: SpooledPlace) -> None:
    writer = await place.open_writer()
    async with paused(place.cluster):
        for number in range(5):
            await writer.append([Append(A, b"%d" % number)])
        await writer.close()  # the first one may be on its way
    writer = await place.open_writer()
    await writer.append([Append(A, b"5")])
    await drained(writer)
    assert await place.values() == [b"%d" % number for number in range(6)]
    await writer.close()


async def test_what_the_broker_has_but_did_not_say_is_not_appended_again_however_late(
    place: SpooledPlace,
) -> None:
    """As after kill -9 between Kafka's append and its answer: the spool has it as doubtful, the partition has
    it too.
    """
    place.settings = KafkaWriterSettings(append_timeout=parse_duration("2m"))
    kafka = await place.open_kafka()
    since = kafka.end(A)
    await kafka.append([Append(A, b"there"), Append(A, b"there too")], [b"1" * 16, b"2" * 16])
    await kafka.append([Append(A, b"of others")])
    await kafka.close()
    spool = Spool(place.root / "0", MIB)
    spool.append([Append(A, b"there")], [b"1" * 16], [since])
    spool.append(
        [Append(A, b"there too"), Append(A, b"not there")], [b"2" * 16, b"3" * 16], [NEVER_SENT, NEVER_SENT]
    )
    spool.note_sending(3, {A: since})
    spool.close()
    writer = await place.open_writer()
    await drained(writer)
    assert await place.values() == [b"there", b"there too", b"of others", b"not there"]
    await writer.close()


async def test_kafka_may_be_away_at_the_start(place: SpooledPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "START_S", 0.5)
    async with paused(place.cluster):
        writer = await place.open_writer()
        await writer.append([Append(A, b"early"), Append(B, b"b")])
        await writer.tick(NS_PER_S)
        assert gauge("records") == 2
    await drained(writer)
    assert await place.values() == [b"early"]
    await writer.close()


async def test_topics_that_do_not_fit_end_the_start(place: SpooledPlace) -> None:
    kafka = await place.open_kafka()
    await kafka.close()
    with pytest.raises(TopicsUnfit, match=r"has 2 partitions, processing.partitions says 5"):
        await SpoolingWriter.open(
            place.root,
            lambda: KafkaPlace.open_writer(place, {SPANS: 5}),
            {SPANS: 5},
            place.spool,
            place.target,
        )
    Spool(place.root / "0", MIB).close()  # its lock is free


async def test_a_full_spool_refuses_until_it_is_drained(broker: Cluster, tmp_path: Path) -> None:
    place = SpooledPlace(broker, tmp_path / "spool", max_size=1000)
    writer = await place.open_writer()
    taken = 0
    async with paused(broker):
        for number in itertools.count():
            try:
                await writer.append([Append(A, b"%d" % number)])
            except LogUnavailable:
                break
            taken += 1
        assert 2 < taken < 20
        with pytest.raises(LogUnavailable, match=r"is full \(.* spool.max_size\)"):
            await writer.append([Append(A, b"too much")])
        await writer.append([Append(A, b"", {"refused": 1})])
    await drained(writer)
    assert await place.values() == [b"%d" % number for number in range(taken)]
    await writer.append([Append(A, b"again")])
    await writer.close()


async def test_a_disk_that_takes_nothing_refuses_and_is_used_again_later(
    place: SpooledPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await place.open_writer()

    def is_full(_fd: int, _data: bytes | memoryview, _at: int) -> int:
        raise OSError(errno.ENOSPC, "no space")

    async with paused(place.cluster):
        await writer.append([Append(A, b"1")])
        with monkeypatch.context() as full:
            full.setattr("os.pwrite", is_full)
            with pytest.raises(LogUnavailable, match="cannot be written: No space left on device"):
                await writer.append([Append(A, b"refused")])
        await writer.append([Append(A, b"2")])
    await drained(writer)
    assert await place.values() == [b"1", b"2"]
    await writer.close()


async def test_without_room_an_append_waits_for_kafka_as_long_as_it_may(
    broker: Cluster, tmp_path: Path
) -> None:
    place = SpooledPlace(broker, tmp_path / "spool", max_size=1)
    writer = await place.open_writer()
    async with paused(broker):
        with pytest.raises(LogUnavailable, match="did not acknowledge records within 2 s"):
            await writer.append([Append(A, b"given up")])
    await drained(writer)
    await writer.append([Append(A, b"after")])
    assert (await place.values())[-1] == b"after"
    await writer.close()


async def test_a_spool_without_a_process_is_drained_by_another(
    place: SpooledPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooling, "ADOPT_S", 0.1)
    for number in (3, 7):
        orphan = spooled(place, number)
        orphan.append([Append(A, b"%d" % number)], [b"%d" % number * 16], [NEVER_SENT])
        orphan.close()
    elsewhere = Spool(place.root / "5", MIB)
    elsewhere.append([Append(A, b"for another log")], [b"5" * 16], [NEVER_SENT])
    (elsewhere.folder / "target").write_text('{"servers": ["127.0.0.1:1"], "prefix": ""}')
    elsewhere.close()
    used = spooled(place, 8)
    used.append([Append(A, b"of a living process")], [b"8" * 16], [NEVER_SENT])
    writer = await place.open_writer()

    async def both() -> bool:
        return sorted(await place.values()) == [b"3", b"7"]

    await until(both, "both spools without a process are drained")
    assert not list((place.root / "3").glob("*.spool"))
    assert list((place.root / "5").glob("*.spool")), "it waits for an ingest of its own log"
    assert used.entries == 1
    used.close()
    await writer.close()


def spooled(place: SpooledPlace, number: int) -> Spool:
    spool = Spool(place.root / str(number), MIB)
    (spool.folder / "target").write_text(
        f'{{"servers": {list(place.target.servers)}, "prefix": "{place.prefix}"}}'.replace("'", '"')
    )
    return spool


async def test_two_writers_have_a_spool_each(place: SpooledPlace) -> None:
    first, second = await place.open_writer(), await place.open_writer()
    assert sorted(place.root.iterdir()) == [place.root / "0", place.root / "1"]
    await first.close()
    third = await place.open_writer()
    assert sorted(place.root.iterdir()) == [place.root / "0", place.root / "1"], (
        "it took the one that was free"
    )
    await second.close()
    await third.close()


async def test_draining_keeps_up_with_what_comes(place: SpooledPlace) -> None:
    """Appends never stop while the spool is drained: it ends all the same, and each partition is in order."""
    writer = await place.open_writer()
    numbers = itertools.count()
    done = asyncio.Event()

    async def keep_appending() -> None:
        while not done.is_set():
            await writer.append([Append(A, b"%d" % next(numbers))])

    async with paused(place.cluster):
        appending = asyncio.create_task(keep_appending())
        await until(lambda: gauge("records") > 20, "some are in the spool")
    await drained(writer)
    done.set()
    await appending
    values = await place.values()
    assert values == [b"%d" % number for number in range(next(numbers))]
    await writer.close()

"""What every log does (schemas.records): one suite, run on each implementation."""

import asyncio
import time
from abc import abstractmethod
from typing import Protocol

import pytest

from schemas.errors import LogUnavailable
from schemas.records import MAX_LABEL_BYTES, Append, Commit, LogReader, LogWriter, TopicPartition
from schemas.topics import METRICS, SPANS
from schemas.units import NS_PER_S

A = TopicPartition(SPANS, 0)
B = TopicPartition(SPANS, 1)
METRIC = TopicPartition(METRICS, 0)
PARTITIONS = {SPANS: 2, METRICS: 1}
ENOUGH = 1 << 20


class LogPlace(Protocol):
    """A log of PARTITIONS; every opener sees the same records."""

    async def open_writer(self) -> LogWriter: ...

    async def open_reader(self) -> LogReader: ...

    async def pass_time(self, seconds: float) -> None:
        """Let the log's clock go on."""


class LogContract:
    """Subclasses give the fixture ``place``."""

    @abstractmethod
    @pytest.fixture
    def place(self) -> LogPlace: ...

    async def test_records_come_back_in_order_with_dense_offsets(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        values = [bytes([i]) * (i * 37) for i in range(50)]
        for start in range(0, 50, 5):
            await writer.append([Append(A, value) for value in values[start : start + 5]])
        records = await reader.read(A, 0, ENOUGH)
        assert [record.unpack() for record in records] == values
        assert [record.offset for record in records] == list(range(50))
        assert [record.size for record in records] == [len(value) for value in values]
        await writer.close()
        await reader.close()

    async def test_partitions_are_apart(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.append([Append(A, b"a0"), Append(B, b"b0"), Append(METRIC, b"m0"), Append(A, b"a1")])
        assert set(await reader.partitions()) == {A, B, METRIC}
        assert [record.unpack() for record in await reader.read(A, 0, ENOUGH)] == [b"a0", b"a1"]
        assert [record.unpack() for record in await reader.read(B, 0, ENOUGH)] == [b"b0"]
        assert [record.unpack() for record in await reader.read(METRIC, 0, ENOUGH)] == [b"m0"]
        await writer.close()
        await reader.close()

    async def test_an_empty_partition_begins_where_it_ends(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        assert await reader.beginning(A) == await reader.end(A)
        assert await reader.read(A, await reader.end(A), ENOUGH) == []
        await writer.append([Append(A, b"x")])
        assert await reader.end(A) == await reader.beginning(A) + 1
        assert await reader.read(A, await reader.end(A), ENOUGH) == []
        await writer.close()
        await reader.close()

    async def test_headers_and_empty_values_come_back(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.append([Append(A, b"", {"rejected": 3, "refused": 4}), Append(A, b"x")])
        counted, plain = await reader.read(A, 0, ENOUGH)
        assert (counted.unpack(), counted.size, dict(counted.headers)) == (
            b"",
            0,
            {"rejected": 3, "refused": 4},
        )
        assert dict(plain.headers) == {}
        await writer.close()
        await reader.close()

    async def test_labels_come_back_beside_counts(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        labels = {
            "source_cluster": "eu-west ☁",
            "tenant": "a" * MAX_LABEL_BYTES,
            "replay_of": "otlp_spans/0/7",
        }
        await writer.append(
            [
                Append(A, b"x", {"rejected": 2}, labels),
                Append(A, b"y", labels={"tenant": "5"}),
                Append(A, b"z"),
            ]
        )
        both, labelled, plain = await reader.read(A, 0, ENOUGH)
        assert (dict(both.headers), dict(both.labels)) == ({"rejected": 2}, labels)
        assert (dict(labelled.headers), dict(labelled.labels)) == ({}, {"tenant": "5"})
        assert (dict(plain.headers), dict(plain.labels)) == ({}, {})
        await writer.close()
        await reader.close()

    async def test_append_time_goes_on(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        for _ in range(3):
            await writer.append([Append(A, b"x"), Append(A, b"y")])
            await place.pass_time(0.01)
        times = [record.append_time_ns for record in await reader.read(A, 0, ENOUGH)]
        assert times == sorted(times)
        assert times[4] - times[0] >= 15_000_000
        await writer.close()
        await reader.close()

    async def test_a_reader_resumes_anywhere_and_sees_what_comes_later(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.append([Append(A, b"%d" % i) for i in range(10)])
        assert [record.unpack() for record in await reader.read(A, 7, ENOUGH)] == [b"7", b"8", b"9"]
        await writer.append([Append(A, b"10")])
        assert [record.unpack() for record in await reader.read(A, 10, ENOUGH)] == [b"10"]
        await writer.close()
        await reader.close()

    async def test_a_read_is_bounded_but_never_stuck(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.append([Append(A, bytes(40_000)) for _ in range(10)])
        assert len(await reader.read(A, 0, 1)) == 1
        some = await reader.read(A, 0, 100_000)
        assert 1 < len(some) < 10
        await writer.close()
        await reader.close()

    async def test_commits_come_back_to_any_reader(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        assert await reader.committed(A) is None
        await reader.commit(A, Commit(5, "next=7"))
        await reader.commit(A, Commit(6, "next=8"))
        await reader.close()
        other = await place.open_reader()
        assert await other.committed(A) == Commit(6, "next=8")
        assert await other.committed(B) is None
        await other.close()
        await writer.close()

    async def test_ticks_go_to_silent_partitions_only(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.append([Append(A, b"old"), Append(B, b"old")])
        await place.pass_time(3)
        before_s = time.monotonic()
        await writer.append([Append(B, b"new")])
        await writer.tick(2 * NS_PER_S)
        was_silent = time.monotonic() - before_s > 2  # the machine stood still, or nearly
        assert [record.unpack() for record in await reader.read(A, 0, ENOUGH)] == [b"old", b""]
        assert [record.unpack() for record in await reader.read(B, 0, ENOUGH)] == [
            b"old",
            b"new",
        ] or was_silent
        spoken, tick = await reader.read(A, 0, ENOUGH)
        assert tick.append_time_ns - spoken.append_time_ns > 2 * NS_PER_S
        assert len(await reader.read(METRIC, 0, ENOUGH)) == 1, "a partition that never spoke is silent"
        await writer.close()
        await reader.close()

    async def test_a_new_writer_goes_on_where_the_last_one_ended(self, place: LogPlace) -> None:
        writer = await place.open_writer()
        await writer.append([Append(A, b"one"), Append(B, b"two")])
        await writer.close()
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.append([Append(A, b"three")])
        records = await reader.read(A, 0, ENOUGH)
        assert [(record.offset, record.unpack()) for record in records] == [(0, b"one"), (1, b"three")]
        assert records[1].append_time_ns >= records[0].append_time_ns
        await writer.close()
        await reader.close()

    async def test_many_appends_at_once_all_arrive(self, place: LogPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await asyncio.gather(
            *(writer.append([Append(A, b"%d" % i), Append(B, b"%d" % i)]) for i in range(200))
        )
        for tp in (A, B):
            values = [record.unpack() for record in await reader.read(tp, 0, ENOUGH)]
            assert sorted(values, key=int) == [b"%d" % i for i in range(200)]
        await writer.close()
        await reader.close()

    async def test_a_closed_writer_refuses(self, place: LogPlace) -> None:
        writer = await place.open_writer()
        await writer.close()
        await writer.close()
        with pytest.raises(LogUnavailable):
            await writer.append([Append(A, b"x")])

    async def test_an_unknown_partition_is_refused(self, place: LogPlace) -> None:
        writer = await place.open_writer()
        with pytest.raises(LogUnavailable):
            await writer.append([Append(TopicPartition(SPANS, 99), b"x")])
        await writer.close()

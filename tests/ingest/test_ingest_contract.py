"""What senders may rely on, under load: what was acknowledged is in the log, whatever the log and the
receiver go through.

After the OpenTelemetry Collector's receivertest (CheckConsumeContract) and the shutdown verifier of its
componenttest: random errors, permanent ones and ones that the sender repeats; and stops in the middle of it
all.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ingest.http.encoding import PROTOBUF
from ingest.server import IngestServer
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from schemas import topics
from schemas.errors import LogFull, LogUnavailable
from schemas.records import TopicPartition
from tests.support.memory_log import MemoryLog
from tests.support.receiving import (
    PARTITIONS,
    Serve,
    export,
    grpc_client,
    numbers,
    retry_delay_s,
    span_ids,
    traces,
)

SPANS = 5


class Sender:
    """Sends requests of its own spans, one at a time, each until it is acknowledged or failed for good."""

    def __init__(self, firsts: Iterator[int]) -> None:
        self.firsts = firsts
        self.acknowledged: list[bytes] = []
        self.failed: list[bytes] = []
        self.refusals = 0
        self.cut_off = 0

    async def run(self, server: IngestServer, protocol: str, requests: int | None) -> None:
        """Send so many requests, or until the receiver is gone."""
        sent = 0
        async with _connection(server, protocol) as connection:
            while requests is None or sent < requests:
                sent += 1
                first = next(self.firsts)
                while (delay_s := await self._send(connection, first)) is not None:  # noqa: ASYNC110 - the answer says how long to wait
                    await asyncio.sleep(delay_s)
                if self.cut_off:
                    return

    async def _send(self, connection: grpc.aio.Channel | aiohttp.ClientSession, first: int) -> float | None:
        """Seconds to wait before sending it again, None when it is settled."""
        if isinstance(connection, aiohttp.ClientSession):
            return await self._post(connection, first)
        try:
            await export(connection, traces(first, SPANS))
        except grpc.aio.AioRpcError as error:
            delay_s: float | None = retry_delay_s(error)
            if error.code() is grpc.StatusCode.INTERNAL and delay_s is None:
                self.failed += span_ids(first, SPANS)
            elif delay_s is None:
                self.cut_off += 1
            else:
                self.refusals += 1
            return delay_s
        self.acknowledged += span_ids(first, SPANS)
        return None

    async def _post(self, session: aiohttp.ClientSession, first: int) -> float | None:
        try:
            async with session.post(
                "/v1/traces", data=traces(first, SPANS), headers={"Content-Type": PROTOBUF}
            ) as response:
                await response.read()
        except aiohttp.ClientError:
            self.cut_off += 1
            return None
        if response.status == 200:
            self.acknowledged += span_ids(first, SPANS)
        elif response.status == 500:
            self.failed += span_ids(first, SPANS)
        else:
            assert response.status in (429, 503)
            assert int(response.headers["Retry-After"]) >= 1
            self.refusals += 1
            return 0.01
        return None


@contextlib.asynccontextmanager
async def _connection(
    server: IngestServer, protocol: str
) -> AsyncIterator[grpc.aio.Channel | aiohttp.ClientSession]:
    if protocol == "grpc":
        async with grpc_client(server) as channel:
            yield channel
    else:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}") as session:
            yield session


def make_senders(count: int) -> list[Sender]:
    firsts = numbers(SPANS)
    return [Sender(firsts) for _ in range(count)]


def acknowledged(senders: list[Sender]) -> list[bytes]:
    return sorted(identifier for sender in senders for identifier in sender.acknowledged)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("seed", range(3))
async def test_random_errors_of_the_log(serve: Serve, protocol: str, seed: int) -> None:
    chance = random.Random(seed)
    kinds = [None, None, LogUnavailable("away"), LogFull("full", retry_after_s=0.01), RuntimeError("a bug")]
    log = MemoryLog(lambda: chance.choice(kinds))
    senders = make_senders(8)
    async with serve(log, gather_window="2ms") as server:
        await asyncio.gather(*(sender.run(server, protocol, requests=25) for sender in senders))
        log.fault = lambda: None
    assert sorted(log.span_ids()) == acknowledged(senders), "this log writes nothing of a failed append"
    failed = sum(len(sender.failed) for sender in senders)
    refusals = sum(sender.refusals for sender in senders)
    assert failed
    assert refusals
    assert len(acknowledged(senders)) + failed == 8 * 25 * SPANS
    assert log.counts("refused") == failed + refusals * SPANS, (
        "whatever was turned away is counted in the log"
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_stop_under_load_loses_nothing_acknowledged(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    senders = make_senders(16)
    async with serve(log, gather_window="20ms") as server:
        running = [asyncio.ensure_future(sender.run(server, protocol, requests=None)) for sender in senders]
        while len(log.appended) < 50:
            log.called.clear()
            await log.called.wait()
        await server.stop()
        await log.close()  # an append after the stop would fail the test
        logged = sorted(log.span_ids())
        await asyncio.gather(*running)
    assert set(acknowledged(senders)) <= set(logged)
    assert len(set(logged)) == len(logged)
    assert server.held_bytes == 0


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_stop_answers_what_it_received(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    log.open.clear()
    senders = make_senders(20)
    async with serve(log, drain_time="20s") as server:
        running = [asyncio.ensure_future(sender.run(server, protocol, requests=1)) for sender in senders]
        while server.held_bytes < 20 * 16 << 10:  # noqa: ASYNC110 - nothing reports a request received
            await asyncio.sleep(0.005)
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        log.open.set()
        await asyncio.gather(stopping, *running)
    assert len(acknowledged(senders)) == 20 * SPANS
    assert sorted(log.span_ids()) == acknowledged(senders)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_stop_while_the_log_hangs_asks_senders_to_come_back(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    log.open.clear()
    senders = make_senders(5)
    async with serve(log, drain_time="100ms") as server:
        running = [asyncio.ensure_future(sender.run(server, protocol, requests=1)) for sender in senders]
        while server.held_bytes < 5 * 16 << 10:  # noqa: ASYNC110 - nothing reports a request received
            await asyncio.sleep(0.005)
        await server.stop()
    await asyncio.gather(*running)
    assert [sender.refusals for sender in senders] == [1] * 5
    assert acknowledged(senders) == []


async def test_the_sqlite_log_behind_both_protocols(serve: Serve, tmp_path: Path) -> None:
    writer = SqliteLogWriter(
        tmp_path, dict.fromkeys(topics.TOPICS, PARTITIONS), Limits(age=timedelta(days=1), max_bytes=1 << 30)
    )
    senders = make_senders(8)
    async with serve(writer) as server:
        protocols = ["grpc", "http"] * 4
        await asyncio.gather(
            *(
                sender.run(server, protocol, requests=20)
                for sender, protocol in zip(senders, protocols, strict=True)
            )
        )
        for sender in senders:
            assert not sender.failed
            assert not sender.cut_off
    await writer.close()
    reader = SqliteLogReader(tmp_path)
    logged: list[bytes] = []
    for partition in range(PARTITIONS):
        records = await reader.read(TopicPartition(topics.SPANS, partition), 0, 1 << 30)
        for record in records:
            data = TracesData.FromString(record.unpack())
            logged += [
                span.span_id
                for resource in data.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
    await reader.close()
    assert sorted(logged) == acknowledged(senders)
    assert len(logged) == 8 * 20 * SPANS

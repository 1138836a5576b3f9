"""What a request may become is bounded, and known before it is copied: parts, and records."""

import asyncio
import gzip
import io

import aiohttp
import grpc
import pytest

from ingest.http.encoding import PROTOBUF
from ingest.server import IngestServer
from schemas import topics
from tests.support.memory_log import MemoryLog
from tests.support.receiving import (
    Serve,
    export,
    grpc_client,
    large_resource,
    retry_delay_s,
    span_ids,
    traces,
)

PROTOCOLS = ["grpc", "http", "gzip"]


async def send(server: IngestServer, protocol: str, request: bytes) -> tuple[int, str, bool]:
    """HTTP status (of gRPC: the one that HTTP has for it), message, and whether it may be repeated."""
    if protocol == "grpc":
        async with grpc_client(server) as channel:
            try:
                await export(channel, request)
            except grpc.aio.AioRpcError as error:
                may_repeat = retry_delay_s(error) is not None
                statuses = {grpc.StatusCode.RESOURCE_EXHAUSTED: 429 if may_repeat else 413}
                return statuses.get(error.code(), 500), error.details() or "", may_repeat
            return 200, "", False
    headers = {"Content-Type": PROTOBUF} | ({"Content-Encoding": "gzip"} if protocol == "gzip" else {})
    body = gzip.compress(request) if protocol == "gzip" else request
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}") as session,
        session.post("/v1/traces", data=io.BytesIO(body), headers=headers) as response,
    ):
        answer = await response.read()
        return response.status, answer.decode(errors="replace"), "Retry-After" in response.headers


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_resource_that_every_partition_would_get_is_refused_for_good(
    serve: Serve, protocol: str
) -> None:
    log = MemoryLog()
    async with serve(log, partitions=64, buffer_size="512MiB") as server:
        status, message, may_repeat = await send(server, protocol, large_resource(500, 1_100_000))
        assert (status, may_repeat) == (413, False)
        assert "its resources are too large for its items" in message
        assert (await send(server, protocol, traces(0, 3)))[0] == 200
        assert server.held_bytes == 0
    assert log.counts("rejected") == 500, "counted for the ledger"
    assert sorted(log.span_ids()) == span_ids(0, 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_parts_within_the_bound_are_taken(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    async with serve(log, partitions=8) as server:
        assert (await send(server, protocol, large_resource(500, 1_100_000)))[0] == 200
        assert server.held_bytes == 0
    assert sorted(log.span_ids()) == span_ids(0, 500)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_parts_that_the_whole_buffer_cannot_hold_are_refused_for_good(
    serve: Serve, protocol: str
) -> None:
    log = MemoryLog()
    async with serve(log, partitions=8, buffer_size="8MiB") as server:
        status, message, may_repeat = await send(server, protocol, large_resource(500, 1_100_000))
        assert (status, may_repeat) == (413, False)
        assert "buffer_size" in message
    assert log.counts("rejected") == 500


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_parts_that_find_no_room_now_may_come_again(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    log.open.clear()
    async with serve(log, partitions=8, buffer_size="12MiB") as server:
        first = asyncio.ensure_future(send(server, "grpc", traces(1000, 1000, padding=2000)))
        await log.called.wait()
        status, _, may_repeat = await send(server, protocol, large_resource(500, 1_100_000))
        assert (status, may_repeat) == (429, True)
        log.open.set()
        assert (await first)[0] == 200
        assert (await send(server, protocol, large_resource(500, 1_100_000)))[0] == 200
        assert server.held_bytes == 0
    assert log.counts("refused") == 500
    assert sorted(log.span_ids()) == span_ids(0, 500) + span_ids(1000, 1000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("request_bytes", "fits"),
    [
        (traces(0, 1, padding=2 << 20), False),
        (large_resource(1, 600_000), False),
        (traces(0, 1, padding=900_000), True),
        (large_resource(1, 400_000), True),
    ],
    ids=["large span", "large resource", "span", "resource"],
)
async def test_an_item_that_no_record_can_hold_is_refused_at_the_door(
    serve: Serve, protocol: str, request_bytes: bytes, fits: bool
) -> None:
    """Nothing is acknowledged and then left out."""
    log = MemoryLog()
    async with serve(log, max_record_bytes=1 << 20) as server:
        status, message, may_repeat = await send(server, protocol, request_bytes)
    assert (status, may_repeat) == (200 if fits else 413, False)
    assert ("of a record" in message) is not fits
    assert log.counts("rejected", topics.SPANS) == (0 if fits else 1)
    assert len(log.span_ids()) == (1 if fits else 0)

"""What only the native receiver has: its limits, threads and counters, and how it is chosen. The rest is
every receiver's contract.
"""

import asyncio
import gzip
import struct
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.connection import H2Connection
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client import REGISTRY

from ingest import rust as native
from ingest.rust import NativeMissing, is_chosen
from ingest.settings import IngestSettings
from schemas import topics
from tests.support.memory_log import MemoryLog
from tests.support.pki import Pki
from tests.support.receiving import TRACES, export, grpc_client, receiving, retry_delay_s, span_ids, traces

pytestmark = pytest.mark.component("native")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS_FRAME = b"\0\0\0\4\0\0\0\0\0"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def closed(port: int) -> bytes:
    """What a new connection is sent before it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + SETTINGS_FRAME)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_connections_beyond_the_limit_are_closed_at_once() -> None:
    before = counted("meshflow_ingest_refused_connections_total")
    log = MemoryLog()
    async with receiving(log, "native", max_connections=1) as server, grpc_client(server) as channel:
        await export(channel, traces(0, 1))
        assert await closed(server.grpc_port) == b""
        await export(channel, traces(1, 1))
    assert counted("meshflow_ingest_refused_connections_total") == before + 1
    assert log.span_ids() == span_ids(0, 2)


async def test_bytes_of_requests_that_have_not_come_to_their_end_are_bounded() -> None:
    log = MemoryLog()
    before = counted("meshflow_ingest_unread_requests_total", protocol="grpc", topic=topics.SPANS)
    async with (
        receiving(log, "native", max_receiving="256KiB", retry_after="70ms") as server,
        grpc_client(server) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, traces(0, 4, padding=1 << 20))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay_s(error.value) == 0.07
        assert await export(channel, traces(4, 4)) == b"", "the connection goes on"
    assert sorted(log.span_ids()) == span_ids(4, 4)
    assert counted("meshflow_ingest_unread_requests_total", protocol="grpc", topic=topics.SPANS) == before + 1


async def test_parts_that_would_be_too_many_are_not_made() -> None:
    """Each partition with a span of a container gets a copy of its resource: 16 MiB become 64, for which
    there is no buffer.
    """
    log = MemoryLog()
    data = TracesData.FromString(traces(0, 40))
    data.resource_spans[0].resource.attributes.add(key="large").value.string_value = "x" * (16 << 20)
    before = counted("meshflow_ingest_refused_items_total", topic=topics.SPANS)
    async with (
        receiving(log, "native", buffer_size="48MiB", retry_after="70ms") as server,
        grpc_client(server) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, data.SerializeToString())
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "buffer_size" in (error.value.details() or "")
        assert retry_delay_s(error.value) is None
        async with asyncio.timeout(60):
            while server.held_bytes:  # noqa: ASYNC110 - what was on its way is let go as it comes
                await asyncio.sleep(0.01)
        assert await export(channel, traces(40, 4)) == b""
    assert sorted(log.span_ids()) == span_ids(40, 4)
    assert counted("meshflow_ingest_refused_items_total", topic=topics.SPANS) == before, (
        "what never fits is not a matter of load"
    )


async def test_large_requests_are_counted_while_the_buffer_is_full() -> None:
    log = MemoryLog()
    log.open.clear()
    async with (
        receiving(log, "native", buffer_size="12MiB", retry_after="70ms") as server,
        grpc_client(server) as channel,
    ):
        first = asyncio.ensure_future(export(channel, traces(0, 100, padding=40_000)))
        await log.called.wait()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, traces(100, 120, padding=40_000))
        assert (error.value.code(), retry_delay_s(error.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.07)
        log.open.set()
        assert await first == b""
    assert sorted(log.span_ids()) == span_ids(0, 100)
    assert log.counts("refused") == 120


async def test_failed_handshakes_are_logged_now_and_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = Pki(tmp_path)
    async with receiving(MemoryLog(), "native", **pki.settings(tls=True)) as server:
        for _ in range(20):
            assert await closed(server.grpc_port) != PREFACE
    logged = [record.getMessage() for record in caplog.records if "TLS handshake" in record.getMessage()]
    assert 1 <= len(logged) <= 2
    assert "127.0.0.1" in logged[-1]


async def test_several_threads_lose_nothing() -> None:
    log = MemoryLog()
    async with receiving(log, "native", receiver_threads=3) as server:

        async def send(first: int) -> None:
            async with grpc_client(server) as channel:
                for step in range(10):
                    await export(channel, traces(first + step, 1))

        await asyncio.gather(*(send(first) for first in range(0, 120, 10)))
        assert server.held_bytes == 0
    assert sorted(log.span_ids()) == span_ids(0, 120)


async def test_what_was_counted_is_reported() -> None:
    def requests(status: str) -> float:
        return counted("meshflow_ingest_requests_total", protocol="grpc", topic=topics.SPANS, status=status)

    before = {status: requests(status) for status in ("OK", "INVALID_ARGUMENT")}
    items = counted("meshflow_ingest_items_total", topic=topics.SPANS)
    async with receiving(MemoryLog(), "native") as server, grpc_client(server) as channel:
        await export(channel, traces(0, 7))
        with pytest.raises(grpc.aio.AioRpcError):
            await export(channel, b"not OTLP")
    assert {status: requests(status) - count for status, count in before.items()} == {
        "OK": 1,
        "INVALID_ARGUMENT": 1,
    }
    assert counted("meshflow_ingest_items_total", topic=topics.SPANS) == items + 7
    assert counted("meshflow_ingest_connections") == 0


@pytest.mark.parametrize(
    ("frame", "metadata", "code"),
    [
        (b"\1" + struct.pack(">I", 20) + gzip.compress(b""), (("grpc-encoding", "lz4"),), "UNIMPLEMENTED"),
        (b"\1" + struct.pack(">I", 4) + b"oops", (("grpc-encoding", "gzip"),), "INTERNAL"),
        (b"\1" + struct.pack(">I", 4) + b"oops", (), "INTERNAL"),
        (b"\0" + struct.pack(">I", 5) + b"oops", (), "INTERNAL"),
        (b"\0" + struct.pack(">I", 3) + b"oops", (), "INTERNAL"),
        (b"\2" + struct.pack(">I", 4) + b"oops", (), "INTERNAL"),
        (b"", (), "INTERNAL"),
    ],
    ids=["encoding", "corrupt", "without encoding", "short", "long", "flag", "nothing"],
)
async def test_frames_that_are_no_message(
    frame: bytes, metadata: tuple[tuple[str, str], ...], code: str
) -> None:
    """Each by hand, since clients do not make them."""
    async with receiving(MemoryLog(), "native") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
        connection = H2Connection()
        connection.initiate_connection()
        head = [
            (":method", "POST"),
            (":path", TRACES),
            (":scheme", "http"),
            (":authority", "a"),
            ("content-type", "application/grpc"),
        ]
        connection.send_headers(1, [*head, *metadata])
        connection.send_data(1, frame, end_stream=True)
        writer.write(connection.data_to_send())
        status = None
        while status is None:
            for event in connection.receive_data(await reader.read(65536)):
                status = status or dict(getattr(event, "headers", None) or ()).get(b"grpc-status")
        writer.close()
    assert grpc.StatusCode[code].value[0] == int(status)


async def test_watches_of_what_is_not_here() -> None:
    async with receiving(MemoryLog(), "native") as server, grpc_client(server) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="nobody"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, b"", method="/nobody/Export")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_how_the_receiver_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_chosen(IngestSettings(receiver="native"))
    assert not is_chosen(IngestSettings(receiver="grpcio"))
    monkeypatch.setattr(native, "HERE", False)
    assert not is_chosen(IngestSettings())
    with pytest.raises(NativeMissing, match="was not built"):
        is_chosen(IngestSettings(receiver="native"))

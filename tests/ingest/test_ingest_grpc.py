"""The gRPC receiver, through real clients."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ingest.grpc import SERVICES
from ingest.server import IngestServer
from ingest.settings import IngestSettings
from schemas import topics
from schemas.errors import AddressInUse, LogFull, LogUnavailable
from tests.support.memory_log import MemoryLog
from tests.support.receiving import (
    LOGS,
    METRICS,
    PARTITIONS,
    Serve,
    export,
    grpc_client,
    retry_delay_s,
    span_ids,
    traces,
)


async def test_spans_are_in_the_log_when_the_answer_comes(serve: Serve) -> None:
    log = MemoryLog()
    async with serve(log) as server, grpc_client(server) as channel:
        assert await export(channel, traces(0, 50)) == b""
        assert sorted(log.span_ids()) == span_ids(0, 50)
        assert {append.tp.partition for append in log.appended} == set(range(PARTITIONS))


async def test_the_answer_waits_for_the_log(serve: Serve) -> None:
    log = MemoryLog()
    log.open.clear()
    async with serve(log) as server, grpc_client(server) as channel:
        call = asyncio.ensure_future(export(channel, traces(0, 1)))
        await log.called.wait()
        await asyncio.sleep(0.05)
        assert not call.done()
        log.open.set()
        assert await call == b""


async def test_concurrent_requests_share_appends(serve: Serve) -> None:
    log = MemoryLog()
    async with serve(log, gather_window="200ms") as server, grpc_client(server) as channel:
        await asyncio.gather(*(export(channel, traces(first, 1)) for first in range(40)))
        assert sorted(log.span_ids()) == span_ids(0, 40)
        assert log.calls < 40 / 2


async def test_metrics_and_logs_go_to_their_topics(serve: Serve) -> None:
    log = MemoryLog()
    metrics, logs = ExportMetricsServiceRequest(), ExportLogsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="requests")
    metric.gauge.data_points.add(as_int=1)
    logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    async with serve(log) as server, grpc_client(server) as channel:
        assert await export(channel, metrics.SerializeToString(), METRICS) == b""
        assert await export(channel, logs.SerializeToString(), LOGS) == b""
    assert log.metric_names() == ["requests"]
    assert log.log_bodies() == ["hello"]


async def test_gzip_and_an_empty_request(serve: Serve) -> None:
    log = MemoryLog()
    async with serve(log) as server, grpc_client(server) as channel:
        assert await export(channel, traces(0, 100, padding=100), compression=grpc.Compression.Gzip) == b""
        assert sorted(log.span_ids()) == span_ids(0, 100)
        calls = log.calls
        assert await export(channel, b"") == b""
        assert log.calls == calls


async def test_spans_with_bad_ids_are_rejected_and_the_rest_is_kept(serve: Serve) -> None:
    log = MemoryLog()
    request = TracesData.FromString(traces(0, 3))
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = b"short"
    async with serve(log) as server, grpc_client(server) as channel:
        response = ExportTraceServiceResponse.FromString(await export(channel, request.SerializeToString()))
    assert response.partial_success.rejected_spans == 1
    assert "trace id" in response.partial_success.error_message
    assert len(log.span_ids()) == 2
    assert log.counts("rejected") == 1


async def test_a_request_of_only_bad_ids_is_still_counted(serve: Serve) -> None:
    log = MemoryLog()
    request = TracesData.FromString(traces(0, 2))
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.span_id = bytes(8)
    async with serve(log) as server, grpc_client(server) as channel:
        response = ExportTraceServiceResponse.FromString(await export(channel, request.SerializeToString()))
    assert response.partial_success.rejected_spans == 2
    assert log.span_ids() == []
    assert log.counts("rejected") == 2


@pytest.mark.parametrize("request_bytes", [b"not OTLP", traces(0, 2)[:-1]], ids=["garbage", "truncated"])
async def test_what_is_not_otlp_is_an_invalid_argument(serve: Serve, request_bytes: bytes) -> None:
    log = MemoryLog()
    async with serve(log) as server, grpc_client(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, request_bytes)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details()
        assert retry_delay_s(error.value) is None
    assert log.appended == []


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_above_the_limit_is_refused_for_good(
    serve: Serve, compression: grpc.Compression
) -> None:
    log = MemoryLog()
    async with serve(log, max_message="1MiB") as server, grpc_client(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, bytes(64 << 20), compression=compression)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_delay_s(error.value) is None
        assert await export(channel, traces(0, 1)) == b"", "the connection goes on"


async def test_a_request_that_never_fits_the_buffer_is_refused_for_good(serve: Serve) -> None:
    log = MemoryLog()
    async with serve(log, buffer_size="64KiB") as server, grpc_client(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, traces(0, 1000))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "buffer_size" in (error.value.details() or "")
        assert retry_delay_s(error.value) is None


@pytest.mark.parametrize(
    ("fault", "code", "delay_s"),
    [
        (LogUnavailable("the disk is gone"), grpc.StatusCode.UNAVAILABLE, 0.02),
        (LogFull("the disk is full", retry_after_s=7.5), grpc.StatusCode.RESOURCE_EXHAUSTED, 7.5),
        (RuntimeError("a bug"), grpc.StatusCode.INTERNAL, None),
    ],
    ids=["away", "full", "bug"],
)
async def test_what_the_log_does_not_take_is_not_acknowledged(
    serve: Serve, fault: Exception, code: grpc.StatusCode, delay_s: float | None
) -> None:
    faults: list[Exception] = [fault]
    log = MemoryLog(lambda: faults.pop() if faults else None)
    async with serve(log) as server, grpc_client(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, traces(0, 3))
        assert error.value.code() is code
        assert retry_delay_s(error.value) == delay_s
        assert (str(fault) in (error.value.details() or "")) == (code is not grpc.StatusCode.INTERNAL)
        await export(channel, traces(3, 1))
    assert log.span_ids() == span_ids(3, 1)
    assert log.counts("refused") == 3


async def test_a_log_that_hangs_bounds_what_is_held_and_loses_nothing_acknowledged(serve: Serve) -> None:
    log = MemoryLog()
    log.open.clear()
    limit = 1 << 20
    async with serve(log, buffer_size=limit) as server, grpc_client(server) as channel:
        calls = [
            asyncio.ensure_future(export(channel, traces(first, 10, padding=1000)))
            for first in range(0, 2000, 10)
        ]
        while sum(call.done() for call in calls) < 100:
            assert server.held_bytes <= limit
            await asyncio.sleep(0.001)
        log.open.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [error for error in results if isinstance(error, grpc.aio.AioRpcError)]
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert {retry_delay_s(error) for error in refused} == {0.02}
    answered = zip(range(0, 2000, 10), results, strict=True)
    acknowledged = [
        identifier for first, result in answered if result == b"" for identifier in span_ids(first, 10)
    ]
    assert sorted(log.span_ids()) == acknowledged
    assert len(acknowledged) + log.counts("refused") == 2000
    assert server.held_bytes == 0


async def test_a_sender_that_gave_up_frees_its_place_when_the_log_is_back(serve: Serve) -> None:
    log = MemoryLog()
    log.open.clear()
    async with serve(log) as server, grpc_client(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, traces(0, 1), timeout=0.2)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        log.open.set()
        await export(channel, traces(1, 1))
    assert log.span_ids() == span_ids(0, 2)
    assert server.held_bytes == 0


async def test_connections_are_asked_to_move_on_and_lose_nothing(serve: Serve) -> None:
    log = MemoryLog()
    sent = moves = 0
    async with (
        serve(log, max_connection_age="100ms", max_connection_age_grace="5s") as server,
        grpc_client(server) as channel,
    ):
        while moves < 2:
            await export(channel, traces(sent, 1))
            sent += 1
            await asyncio.sleep(0.005)
            moves += channel.get_state() is not grpc.ChannelConnectivity.READY
    assert log.span_ids() == span_ids(0, sent)


async def test_health_of_each_service(serve: Serve) -> None:
    async with serve(MemoryLog()) as server, grpc_client(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVICES):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_stop_answers_those_who_watch_and_does_not_wait_for_them(serve: Serve) -> None:
    async with serve(MemoryLog(), drain_time="10m") as server, grpc_client(server) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await server.stop()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_taken_port_is_an_error_that_names_it(serve: Serve) -> None:
    async with serve(MemoryLog()) as server:
        second = IngestServer(
            IngestSettings(grpc_port=server.grpc_port, http_port=0), MemoryLog(), PARTITIONS
        )
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{server.grpc_port}"):
            await second.start()
        third = IngestServer(IngestSettings(grpc_port=0, http_port=server.http_port), MemoryLog(), PARTITIONS)
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{server.http_port}"):
            await third.start()


def test_every_topic_has_a_service() -> None:
    assert sorted(SERVICES.values()) == sorted(topics.TOPICS)

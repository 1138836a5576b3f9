"""A running receiver, its clients, and requests to send."""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ingest.server import IngestServer
from ingest.settings import IngestSettings
from schemas.records import LogWriter

PARTITIONS = 4
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


RECEIVERS = [pytest.param("grpcio"), pytest.param("native", marks=pytest.mark.component("native"))]
"""Values of the setting ``receiver`` that every test of a receiver runs on."""

Serve = Callable[..., AbstractAsyncContextManager[IngestServer]]
"""``serve(log, **settings)``, as :func:`receiving` with a receiver chosen."""


@contextlib.asynccontextmanager
async def receiving(
    log: LogWriter,
    receiver: str = "grpcio",
    partitions: int = PARTITIONS,
    max_record_bytes: int = sys.maxsize,
    **settings: Any,
) -> AsyncIterator[IngestServer]:
    """A receiver on free ports; stopped at the end."""
    quick = {
        "receiver": receiver,
        "grpc_port": 0,
        "http_port": 0,
        "gather_window": "5ms",
        "retry_after": "20ms",
        "drain_time": "2s",
    }
    server = IngestServer(
        IngestSettings(**(quick | settings)), log, partitions, max_record_bytes=lambda _: max_record_bytes
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def grpc_client(
    server: IngestServer, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of its own connection, with TLS where there are ``credentials``."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    target = f"127.0.0.1:{server.grpc_port}"
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    async with channel:
        yield channel


async def export(channel: grpc.aio.Channel, request: bytes, method: str = TRACES, **options: Any) -> bytes:
    """One Export call on raw bytes."""
    response: bytes = await channel.unary_unary(method)(request, **options)
    return response


def retry_delay_s(error: grpc.aio.AioRpcError) -> float | None:
    """RetryInfo of an error; None where there is none. The status inside must be that of the call."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        return None
    status = Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    for detail in status.details:
        retry = RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToNanoseconds() / 1e9)
    return None


def traces(first: int, spans: int, padding: int = 0) -> bytes:
    """Spans with the ids ``first`` + 1, ..., a trace each."""
    data = TracesData()
    resource = data.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    for number in range(first + 1, first + spans + 1):
        span = scope.spans.add(
            trace_id=(number * 0x9E3779B97F4A7C15 % 2**128).to_bytes(16),
            span_id=number.to_bytes(8),
            name="GET /",
        )
        span.attributes.add(key="padding").value.string_value = "x" * padding
    return data.SerializeToString()


def large_resource(spans: int, resource_bytes: int) -> bytes:
    """Spans 1, 2, ... of one resource of so many bytes, a trace each."""
    data = TracesData.FromString(traces(0, spans))
    data.resource_spans[0].resource.attributes.add(key="noise").value.string_value = "x" * resource_bytes
    return data.SerializeToString()


def span_ids(first: int, spans: int) -> list[bytes]:
    """The ids of :func:`traces`."""
    return [number.to_bytes(8) for number in range(first + 1, first + spans + 1)]


def numbers(step: int) -> Iterator[int]:
    """0, step, 2 step, ..."""
    number = 0
    while True:
        yield number
        number += step

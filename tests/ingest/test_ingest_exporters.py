"""The OpenTelemetry Python SDK's own exporters deliver spans, metrics and logs."""

import asyncio
import logging
from collections.abc import Callable

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from ingest.server import IngestServer
from schemas.errors import LogUnavailable
from tests.support.memory_log import MemoryLog
from tests.support.receiving import Serve

SPANS = 700

SPAN_EXPORTERS: dict[str, Callable[[IngestServer], SpanExporter]] = {
    "grpc": lambda server: GrpcSpanExporter(endpoint=f"127.0.0.1:{server.grpc_port}", insecure=True),
    "grpc gzip": lambda server: GrpcSpanExporter(
        endpoint=f"127.0.0.1:{server.grpc_port}", insecure=True, compression=grpc.Compression.Gzip
    ),
    "http": lambda server: HttpSpanExporter(endpoint=f"http://127.0.0.1:{server.http_port}/v1/traces"),
    "http gzip": lambda server: HttpSpanExporter(
        endpoint=f"http://127.0.0.1:{server.http_port}/v1/traces", compression=Compression.Gzip
    ),
}


def send_spans(exporter: SpanExporter) -> set[bytes]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=200))
    tracer = provider.get_tracer("test")
    identifiers = set()
    for number in range(SPANS):
        with tracer.start_as_current_span("GET /", attributes={"number": number}) as span:
            identifiers.add(span.get_span_context().span_id.to_bytes(8))
    provider.shutdown()
    return identifiers


@pytest.mark.parametrize("name", SPAN_EXPORTERS)
async def test_spans(serve: Serve, name: str) -> None:
    log = MemoryLog()
    async with serve(log) as server:
        sent = await asyncio.to_thread(send_spans, SPAN_EXPORTERS[name](server))
    assert len(log.span_ids()) == SPANS
    assert set(log.span_ids()) == sent


@pytest.mark.parametrize("name", ["grpc", "http"])
async def test_spans_refused_at_first_are_sent_again(serve: Serve, name: str) -> None:
    faults: list[Exception] = [LogUnavailable("away")] * 2
    log = MemoryLog(lambda: faults.pop() if faults else None)
    async with serve(log) as server:
        sent = await asyncio.to_thread(send_spans, SPAN_EXPORTERS[name](server))
    assert set(log.span_ids()) == sent
    assert log.counts("refused") >= 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_metrics(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    async with serve(log) as server:
        exporter: MetricExporter = (
            GrpcMetricExporter(endpoint=f"127.0.0.1:{server.grpc_port}", insecure=True)
            if protocol == "grpc"
            else HttpMetricExporter(endpoint=f"http://127.0.0.1:{server.http_port}/v1/metrics")
        )
        provider = MeterProvider([PeriodicExportingMetricReader(exporter)], shutdown_on_exit=False)
        meter = provider.get_meter("test")
        meter.create_counter("requests").add(3)
        meter.create_histogram("latency").record(0.5)
        await asyncio.to_thread(provider.shutdown)
    assert {"requests", "latency"} <= set(log.metric_names())


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of LoggingHandler, which has moved to another package
@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_logs(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    async with serve(log) as server:
        exporter: LogRecordExporter = (
            GrpcLogExporter(endpoint=f"127.0.0.1:{server.grpc_port}", insecure=True)
            if protocol == "grpc"
            else HttpLogExporter(endpoint=f"http://127.0.0.1:{server.http_port}/v1/logs")
        )
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        logger = logging.Logger("sender")
        logger.addHandler(LoggingHandler(logger_provider=provider))
        logger.warning("hello")
        await asyncio.to_thread(provider.shutdown)
    assert log.log_bodies() == ["hello"]

"""OpenTelemetry's own Python SDK delivers to ``meshflow up``, over gRPC and over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.up import KEEP_ALL, Up, running_up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with running_up(tmp_path, KEEP_ALL, "--pane", "500ms", "--wait", "1") as up:
        yield up


def export(service: str, exporter: SpanExporter) -> str:
    """Send one trace of two spans; its trace id."""
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    with tracer.start_as_current_span(
        "checkout", kind=SpanKind.SERVER, attributes={"http.response.status_code": 500, "tags": ["a", "b"]}
    ) as span:
        span.set_status(StatusCode.ERROR, "no stock")
        span.add_event("reserved", {"items": 3})
        with tracer.start_as_current_span(
            "SELECT stock", kind=SpanKind.CLIENT, attributes={"db.system.name": "postgresql"}
        ):
            pass
    provider.shutdown()
    return f"{span.get_span_context().trace_id:032x}"


def test_sdk_exporters_deliver_over_grpc_and_http(up: Up) -> None:
    sent = {
        "over-grpc": export("over-grpc", GrpcExporter(endpoint=up.grpc, insecure=True)),
        "over-http": export("over-http", HttpExporter(endpoint=f"{up.http}/v1/traces")),
    }
    assert up.wait_for(4)["kept"] == 4
    for service, trace_id in sent.items():
        spans = up.sql(
            "SELECT SpanName, SpanKind, StatusCode, StatusMessage, SpanAttributes['http.response.status_code'], SpanAttributes['tags'],"
            f" `Events.Name`, KeepReason FROM otel_traces WHERE TraceId = '{trace_id}' AND ServiceName = '{service}' ORDER BY Timestamp"
        )
        assert spans == [
            ["checkout", "Server", "Error", "no stock", "500", '["a","b"]', ["reserved"], "errors"],
            ["SELECT stock", "Client", "Unset", "", "", "", [], "errors"],
        ]
        assert up.sql(
            f"SELECT sum(requests), sum(errors) FROM red_10s WHERE service = '{service}' AND kind = 'Server'"
        ) == [[1, 1]]
        assert up.sql(f"SELECT connection FROM edges_10s WHERE client_service = '{service}'") == [
            ["database"]
        ]

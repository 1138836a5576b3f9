"""One bad item is one bad item: what is wrong with it costs nothing else, and is counted and reported."""

import json
from typing import Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from prometheus_client import REGISTRY

from ingest.http.encoding import JSON, PROTOBUF
from ingest.server import IngestServer
from schemas import topics
from schemas.otlp.wire import framed
from tests.support.memory_log import MemoryLog
from tests.support.receiving import LOGS, METRICS, TRACES, Serve, export, grpc_client, traces

PROTOCOLS = ["grpc", "http"]
PATHS = {TRACES: "/v1/traces", METRICS: "/v1/metrics", LOGS: "/v1/logs"}

BAD_TEXT = traces(100, 1).replace(b"GET /", b"caf\xe9!")
BROKEN_SPAN = framed(1, framed(2, framed(2, b"\x0a\x7f")))
BROKEN_POINT = framed(1, framed(2, framed(2, framed(1, b"m") + framed(5, framed(1, b"\x3a\x7f")))))


async def send(server: IngestServer, protocol: str, request: bytes, method: str = TRACES) -> bytes:
    """The response of a request that is taken."""
    if protocol == "grpc":
        async with grpc_client(server) as channel:
            return await export(channel, request, method)
    status, body = await post(server, request, PROTOBUF, PATHS[method])
    assert status == 200, body
    return body


async def post(
    server: IngestServer, body: bytes, content_type: str = JSON, path: str = "/v1/traces"
) -> tuple[int, bytes]:
    address = f"http://127.0.0.1:{server.http_port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, data=body, headers={"Content-Type": content_type}) as response,
    ):
        return response.status, await response.read()


def names(log: MemoryLog) -> list[str]:
    return sorted(span.name for span in spans(log))


def spans(log: MemoryLog) -> list[Span]:
    return [
        span
        for append in log.appended
        for resource in TracesData.FromString(append.value).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def repaired_total(topic: str) -> float:
    return REGISTRY.get_sample_value("meshflow_ingest_repaired_total", {"topic": topic}) or 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_byte_that_is_not_utf8_is_replaced_and_counted(serve: Serve, protocol: str) -> None:
    log, before = MemoryLog(), repaired_total(topics.SPANS)
    async with serve(log) as server:
        assert await send(server, protocol, traces(0, 20) + BAD_TEXT) == b""
    assert names(log) == ["GET /"] * 20 + ["caf\ufffd!"]
    assert (log.counts("repaired"), log.counts("rejected")) == (1, 0)
    assert repaired_total(topics.SPANS) - before == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_span_that_is_no_message_is_rejected_alone(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    async with serve(log) as server:
        response = ExportTraceServiceResponse.FromString(
            await send(server, protocol, traces(0, 20) + BROKEN_SPAN + BAD_TEXT)
        )
    assert response.partial_success.rejected_spans == 1
    assert "1 that are not well-formed" in response.partial_success.error_message
    assert len(log.span_ids()) == 21
    assert (log.counts("repaired"), log.counts("rejected")) == (1, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_data_point_and_a_log_record_too(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    data = MetricsData()
    metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name="good")
    metric.gauge.data_points.add(as_double=1)
    async with serve(log) as server:
        points = await send(server, protocol, data.SerializeToString() + BROKEN_POINT, METRICS)
        records = await send(server, protocol, BROKEN_SPAN + framed(1, framed(2, framed(2, b""))), LOGS)
    of_points = ExportMetricsServiceResponse.FromString(points).partial_success
    of_records = ExportLogsServiceResponse.FromString(records).partial_success
    assert (of_points.rejected_data_points, of_records.rejected_log_records) == (1, 1)
    assert of_points.error_message.startswith("data points rejected: 1 that")
    assert of_records.error_message.startswith("log records rejected: 1 that")
    assert [log.counts("rejected", topic) for topic in (topics.METRICS, topics.LOGS)] == [1, 1]


def nested(levels: int) -> bytes:
    """A span's attribute whose value nests so deep."""
    value = framed(1, b"deepest")
    for _ in range(levels):
        value = framed(5, framed(1, value))
    return framed(9, framed(1, b"k") + framed(2, value))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("levels", [40, 100, 1_000])
async def test_protobuf_values_that_nest_too_deep_are_cut(serve: Serve, protocol: str, levels: int) -> None:
    log = MemoryLog()
    whole = TracesData.FromString(traces(20, 1)).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    deep = framed(1, framed(2, framed(2, whole + nested(levels))))
    async with serve(log) as server:
        assert await send(server, protocol, traces(0, 20) + deep) == b""
    assert len(log.span_ids()) == 21
    logged = b"".join(append.value for append in log.appended)
    assert (b"deepest" in logged, b"meshflow.cut" in logged) == (levels == 40, levels > 40)
    assert (log.counts("repaired"), log.counts("rejected")) == (int(levels > 40), 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_texts_of_metrics_and_log_records_are_mended_too(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    data = MetricsData()
    for name in ("good", "cafe!"):
        metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
        metric.gauge.data_points.add(as_double=1)
    points = data.SerializeToString().replace(b"cafe!", b"caf\xe9!")
    records = framed(
        1, framed(2, b"".join(framed(2, framed(5, framed(1, body))) for body in (b"a", b"caf\xe9!")))
    )
    async with serve(log) as server:
        assert await send(server, protocol, points, METRICS) == b""
        assert await send(server, protocol, records, LOGS) == b""
    assert sorted(log.metric_names()) == ["caf\ufffd!", "good"]
    assert sorted(log.log_bodies()) == ["a", "caf\ufffd!"]
    for topic in (topics.METRICS, topics.LOGS):
        assert (log.counts("repaired", topic), log.counts("rejected", topic)) == (1, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_request_of_one_bad_item_is_taken_without_it(serve: Serve, protocol: str) -> None:
    log = MemoryLog()
    async with serve(log, partitions=1) as server:
        response = ExportTraceServiceResponse.FromString(await send(server, protocol, BROKEN_SPAN))
    assert response.partial_success.rejected_spans == 1
    assert [(append.value, dict(append.headers)) for append in log.appended] == [(b"", {"rejected": 1})]


async def test_a_request_whose_frame_is_broken_is_refused(serve: Serve) -> None:
    log = MemoryLog()
    broken = traces(0, 2) + b"\x0a\x7f"
    async with serve(log) as server:
        async with grpc_client(server) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await export(channel, broken)
        status, _ = await post(server, broken, PROTOBUF)
    assert (error.value.code(), status) == (grpc.StatusCode.INVALID_ARGUMENT, 400)
    assert not log.span_ids()


def request_of(*made: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(made)}]}]}


def span(number: int, **fields: Any) -> dict[str, Any]:
    return {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": f"span {number}", **fields}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (rb"well done \ud83d", "well done \ufffd"),
        (rb"\udE00 and \uD83D\uDE00", "\ufffd and \U0001f600"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d", "\\\ufffd"),
        ("caf\xe9".encode("latin-1"), "caf\ufffd"),
        (b"\xf0\x9f\x98 and \xed\xa0\xbd", "\ufffd and \ufffd\ufffd\ufffd"),
    ],
)
async def test_json_keeps_a_text_that_is_not_unicode(serve: Serve, written: bytes, kept: str) -> None:
    log = MemoryLog()
    body = json.dumps(request_of(span(1), span(2, name="PLACE"))).encode().replace(b"PLACE", written)
    async with serve(log) as server:
        assert await post(server, body) == (200, b"{}")
    assert names(log) == sorted(["span 1", kept])
    assert log.counts("repaired") == int("\ufffd" in kept)


@pytest.mark.parametrize("levels", [40, 100, 1_000])
async def test_json_values_that_nest_too_deep_are_cut(serve: Serve, levels: int) -> None:
    log = MemoryLog()
    deep = '{"arrayValue":{"values":[' * levels + '{"stringValue":"deepest"}' + "]}}" * levels
    attributes = '[{"key": "k", "value": PLACE}]'.replace("PLACE", deep)
    body = json.dumps(request_of(span(1), span(2))).encode()
    body = body.replace(b'"span 2"', b'"span 2", "attributes": ' + attributes.encode())
    async with serve(log) as server:
        assert await post(server, body) == (200, b"{}")
    assert names(log) == ["span 1", "span 2"]
    logged = b"".join(append.value for append in log.appended)
    assert (b"deepest" in logged, b"meshflow.cut" in logged) == (levels == 40, levels > 40)
    assert log.counts("repaired") == int(levels > 40)


async def test_a_json_span_with_a_wrong_type_is_rejected_alone(serve: Serve) -> None:
    log = MemoryLog()
    bad = span(2, startTimeUnixNano={"seconds": 5})
    async with serve(log) as server:
        status, body = await post(
            server, json.dumps(request_of(span(1), bad, span(3), span(4, spanId="xyz"))).encode()
        )
    assert (status, names(log)) == (200, ["span 1", "span 3"])
    partial = json.loads(body)["partialSuccess"]
    assert partial["rejectedSpans"] == "2"
    assert "'xyz' is not hexadecimal" in partial["errorMessage"]
    assert log.counts("rejected") == 2


@pytest.mark.parametrize(
    ("path", "request_", "name"),
    [
        ("/v1/traces", request_of(span(1), span(2, status={"code": "ERROR"})), "code 'ERROR'"),
        ("/v1/traces", request_of(span(1), span(2, kind="SERVER")), "kind 'SERVER'"),
        (
            "/v1/logs",
            {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": "WARN"}]}]}]},
            "severityNumber 'WARN'",
        ),
        (
            "/v1/metrics",
            {
                "resourceMetrics": [
                    {"scopeMetrics": [{"metrics": [{"sum": {"aggregationTemporality": "DELTA"}}]}]}
                ]
            },
            "aggregationTemporality 'DELTA'",
        ),
    ],
)
async def test_a_name_that_is_none_of_an_enums_is_400(
    serve: Serve, path: str, request_: dict[str, Any], name: str
) -> None:
    log = MemoryLog()
    async with serve(log) as server:
        status, body = await post(server, json.dumps(request_).encode(), path=path)
    assert status == 400
    assert name in json.loads(body)["message"]
    assert not log.appended


async def test_fields_that_are_unknown_are_passed_over(serve: Serve) -> None:
    log = MemoryLog()
    async with serve(log) as server:
        new = span(1, newField={"a": [1]}, status={"code": "STATUS_CODE_ERROR", "new": 1}, kind="3")
        assert (await post(server, json.dumps(request_of(new)).encode()))[0] == 200
    (kept,) = spans(log)
    assert (kept.status.code, kept.kind) == (2, 3)

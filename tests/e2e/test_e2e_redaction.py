"""Secrets that are sent to a real ``up``, in every signal over gRPC and HTTP, are in none of its tables."""

import urllib.request
from pathlib import Path

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.support.up import KEEP_ALL, Up, running_up

CONFIG = f"""
[processing]
pane = "500ms"
lookback = "2s"
wait = 1

[storage.redact]
drop = ["internal.*"]
hash = ["user.id"]
hash_key = "0123456789abcdef"
mask = ["card"]
mask_patterns = ['secret-pattern-[a-z0-9-]+']
{KEEP_ALL}"""
SECRET = "hunter2"
"""Every secret that is sent has it."""
NOW_NS = 1_800_000_000 * 10**9


def pairs(**attributes: str) -> list[KeyValue]:
    return [
        KeyValue(key=key.replace("__", "."), value=AnyValue(string_value=value))
        for key, value in attributes.items()
    ]


def item(where: str) -> list[KeyValue]:
    """Six attributes of which five are redacted, each with a secret of its own."""
    mine = f"{where}-{SECRET}"
    return pairs(
        internal__note=f"drop-{mine}", user__id=f"user-{mine}", card=f"card-{mine}",
        http__request__header__authorization=f"Bearer {mine}1", url__full=f"https://u:{mine}@h/?token={mine}", plain="stays",
    )  # fmt: skip


def resource(way: str) -> Resource:
    return Resource(attributes=[*pairs(service__name="shop"), *item(f"resource-{way}")])


def traces(way: str) -> ExportTraceServiceRequest:
    id_ = 1 if way == "grpc" else 2
    span = trace_pb2.Span(
        trace_id=id_.to_bytes(16), span_id=id_.to_bytes(8), kind=trace_pb2.Span.SPAN_KIND_CLIENT,
        name=f"GET https://u:{way}-{SECRET}@h/x", start_time_unix_nano=NOW_NS, end_time_unix_nano=NOW_NS + 10**6,
        attributes=[*item(f"span-{way}"), *pairs(peer__service=f"https://u:{way}-{SECRET}@peer")],
        status=trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=f"no: password={way}-{SECRET}"),
        events=[trace_pb2.Span.Event(name=f"secret-pattern-{SECRET}", attributes=item(f"event-{way}"))],
        links=[
            trace_pb2.Span.Link(trace_id=bytes(16), span_id=bytes(8), attributes=item(f"link-{way}"),
                trace_state=f"a=secret-pattern-{SECRET}")
        ],
    )  # fmt: skip
    scope = InstrumentationScope(name=f"secret-pattern-{way}-{SECRET}")
    return ExportTraceServiceRequest(
        resource_spans=[
            trace_pb2.ResourceSpans(
                resource=resource(way), scope_spans=[trace_pb2.ScopeSpans(scope=scope, spans=[span])]
            )
        ]
    )


def logs(way: str) -> ExportLogsServiceRequest:
    records = [
        LogRecord(trace_id=b"t" * 16, time_unix_nano=NOW_NS, body=AnyValue(string_value=body), attributes=item(f"log-{way}"),
                  severity_text=f"secret-pattern-{way}-{SECRET}", event_name=f"e secret-pattern-{way}-{SECRET}")
        for body in (f"Authorization: Bearer {way}-{SECRET}", f'{{"password":"{way}-{SECRET}"}}', f"jwt eyJhbGciOi.{way}{SECRET}.x")
    ]  # fmt: skip
    scope = InstrumentationScope(name="s", attributes=item(f"scope-{way}"))
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(resource=resource(way), scope_logs=[ScopeLogs(scope=scope, log_records=records)])
        ]
    )


def metrics(way: str) -> ExportMetricsServiceRequest:
    pb = metrics_pb2
    exemplar = pb.Exemplar(as_double=1, filtered_attributes=item(f"exemplar-{way}"))
    point = pb.NumberDataPoint(
        as_double=1, time_unix_nano=NOW_NS, attributes=item(f"point-{way}"), exemplars=[exemplar]
    )
    gauge = pb.Metric(
        name="m", description=f"secret-pattern-{way}-{SECRET}", gauge=pb.Gauge(data_points=[point])
    )
    return ExportMetricsServiceRequest(
        resource_metrics=[
            pb.ResourceMetrics(resource=resource(way), scope_metrics=[pb.ScopeMetrics(metrics=[gauge])])
        ]
    )


def send(up: Up) -> None:
    with grpc.insecure_channel(up.grpc) as channel:
        TraceServiceStub(channel).Export(traces("grpc"))  # type: ignore[no-untyped-call]  # generated
        LogsServiceStub(channel).Export(logs("grpc"))  # type: ignore[no-untyped-call]  # generated
        MetricsServiceStub(channel).Export(metrics("grpc"))  # type: ignore[no-untyped-call]  # generated
    for path, message in (("traces", traces("http")), ("logs", logs("http")), ("metrics", metrics("http"))):
        request = urllib.request.Request(
            f"{up.http}/v1/{path}", message.SerializeToString(), {"Content-Type": "application/x-protobuf"}
        )
        urllib.request.urlopen(request).close()


def columns_with(up: Up, text: str) -> dict[str, int]:
    """Columns (of texts, whatever is around them) of all tables -> how many rows have the text there."""
    columns = up.sql(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND type LIKE '%String%'"
        " AND table NOT IN (SELECT name FROM system.tables WHERE engine LIKE '%View')"
    )
    assert {table for table, _ in columns} >= {
        "otel_traces",
        "otel_logs",
        "otel_metrics_gauge",
        "red_10s",
        "edges_10s",
        "ledger",
    }
    found = {}
    for table, name in columns:
        if rows := up.count(
            f"SELECT count() FROM `{table}` WHERE position(toString(`{name}`), '{text}') > 0"
        ):
            found[f"{table}.{name}"] = rows
    return found


def test_no_secret_is_in_any_table_and_each_is_counted(tmp_path: Path) -> None:
    with running_up(tmp_path, CONFIG) as up:
        send(up)
        assert up.wait_for(2)["stored"] == 2
        assert up.wait_for(6, "otlp_logs")["stored"] == 6
        assert up.wait_for(2, "otlp_metrics")["stored"] == 2
        assert columns_with(up, SECRET) == {}
        stays = columns_with(up, "stays")
        assert {
            "otel_traces.SpanAttributes",
            "otel_traces.Events.Attributes",
            "otel_logs.LogAttributes",
        } <= stays.keys()
        operations = up.sql("SELECT operation, toUInt32(sum(requests)) FROM red_10s GROUP BY operation")
        assert operations == [["GET https://u:****@h/x", 2]]
        calls = "SELECT sum(calls + unsent + unanswered) FROM edges_10s WHERE server_service = 'https://u:****@peer'"
        assert up.count(calls) == 2
        assert up.sql("SELECT DISTINCT StatusMessage FROM otel_traces") == [["no: password=****"]]
        digest = "SpanAttributes['user.id']"
        assert up.sql(
            f"SELECT toUInt32(uniqExact({digest})), toUInt32(min(length({digest}))) FROM otel_traces"
        ) == [[2, 32]]
        counts = dict(up.sql("SELECT topic, toUInt32(sum(redacted)) FROM ledger GROUP BY topic"))
        # each way: resource, scope; name, message, peer as texts; the span's own, its event's, its link's
        spans = 5 + 1 + 3 + (5 + 1) + (5 + 1) + (5 + 1)
        # resource and scope; the set that the records share; their bodies; severity and event name as texts
        logs = 5 + 5 + 5 + 3 + 2
        points = 5 + 5 + 5 + 1  # resource; the point's, its exemplar's; the description
        assert counts == {"otlp_spans": 2 * spans, "otlp_logs": 2 * logs, "otlp_metrics": 2 * points}

"""What Grafana's ClickHouse data source asks in its OpenTelemetry mode, of the SQL port of `up` that holds
the captured mesh.

Through Grafana's own client, clickhouse-go over HTTP; and inserts of that client into `meshflow store`.
"""

from collections.abc import Iterator

import pytest

from tests.console import go_client
from tests.e2e.test_e2e_capture import CAPTURED_LOGS, CAPTURED_SPANS
from tests.support.store_server import StoreServer
from tests.support.up import KEEP_ALL, ROOT, Up, replay, running_up

pytestmark = [pytest.mark.component("go"), pytest.mark.timeout(900)]

COMPRESSIONS = ("gzip", "lz4", "none")  # gzip is what Grafana takes over HTTP
CAPTURES = [ROOT / "tests/data/envoy" / f"{signal}.bin.gz" for signal in ("traces", "logs")]

SEARCH = """\
SELECT "TraceId" as traceID, "ServiceName" as serviceName, "SpanName" as operationName,
    multiply(toUnixTimestamp64Nano("Timestamp"), 0.000001) as startTime, multiply("Duration", 0.000001) as duration
FROM "default"."otel_traces"
WHERE ( Timestamp >= toDateTime(0) AND Timestamp <= now() + 3600 ) AND ( ParentSpanId = '' ) AND ( Duration > 0 )
ORDER BY Timestamp DESC, Duration DESC LIMIT 1000"""

TRACE = """\
WITH '{trace}' as trace_id,
    (SELECT min(Start) FROM "default"."otel_traces_trace_id_ts" WHERE TraceId = trace_id) as trace_start,
    (SELECT max(End) + 1 FROM "default"."otel_traces_trace_id_ts" WHERE TraceId = trace_id) as trace_end
SELECT "TraceId" as traceID, "SpanId" as spanID, "ParentSpanId" as parentSpanID, "ServiceName" as serviceName,
    "SpanName" as operationName, "Timestamp" as startTime, multiply("Duration", 0.000001) as duration,
    arrayMap(key -> map('key', key, 'value', "SpanAttributes"[key]), mapKeys("SpanAttributes")) as tags,
    arrayMap(key -> map('key', key, 'value', "ResourceAttributes"[key]), mapKeys("ResourceAttributes")) as serviceTags
FROM "default"."otel_traces"
WHERE traceID = trace_id AND startTime >= trace_start AND startTime <= trace_end LIMIT 1000"""

LOGS = """\
SELECT Timestamp as "timestamp", Body as "body", SeverityText as "level", TraceId as "traceID", ResourceAttributes, LogAttributes
FROM "default"."otel_logs" WHERE ( timestamp >= toDateTime(0) AND timestamp <= now() + 3600 )
ORDER BY timestamp DESC LIMIT 1000"""

PROBES = (
    "SELECT version()",
    "SELECT currentDatabase()",
    "SELECT database, name FROM system.tables ORDER BY database, name",
    "SELECT database, table, name, type, comment FROM system.columns"
    " WHERE (database, table) IN (('default', 'otel_traces')) ORDER BY database, table, position",
    'DESCRIBE TABLE "default"."otel_logs"',
    "SHOW DATABASES",
    "SELECT DISTINCT ServiceName FROM otel_traces SETTINGS max_block_size=10",
)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("captured"), KEEP_ALL, "--pane", "1s", "--wait", "2") as up:
        replay(up, *CAPTURES, options=["--now"])
        up.wait_for(CAPTURED_SPANS)
        up.wait_for(CAPTURED_LOGS, "otlp_logs")
        yield up


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_trace_search_trace_and_logs(up: Up, compression: str) -> None:
    search, logs = go_client.ask(up.ports["sql"], [SEARCH, LOGS], compression=compression)
    assert (search.error, logs.error) == ("", "")
    assert search.columns == ["traceID", "serviceName", "operationName", "startTime", "duration"]
    assert (
        len(search.rows)
        == up.count("SELECT least(1000, count()) FROM otel_traces WHERE ParentSpanId = '' AND Duration > 0")
        > 0
    )
    assert logs.columns[:4] == ["timestamp", "body", "level", "traceID"]
    assert len(logs.rows) == 1000
    widest = str(
        up.sql("SELECT TraceId FROM otel_traces GROUP BY TraceId ORDER BY count() DESC, TraceId LIMIT 1")[0][
            0
        ]
    )
    (trace,) = go_client.ask(up.ports["sql"], [TRACE.format(trace=widest)], compression=compression)
    assert trace.error == ""
    assert trace.types[7] == "Array(Map(String, String))"
    assert {row[0] for row in trace.rows} == {widest}
    stored = up.sql(
        f"SELECT SpanId, ParentSpanId, ServiceName, SpanName FROM otel_traces WHERE TraceId = '{widest}'"
    )
    assert sorted(row[1:5] for row in trace.rows) == sorted(stored)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_probes_and_our_own_tables(up: Up, compression: str) -> None:
    own = "SELECT service, sum(requests) AS n, sumMap(duration_histogram) AS h FROM red GROUP BY service ORDER BY service"
    answers = go_client.ask(up.ports["sql"], [*PROBES, own], compression=compression)
    assert [answer.error for answer in answers] == [""] * len(answers)
    assert ["default", "otel_traces"] in answers[2].rows
    assert ["default", "otel_traces", "TraceId", "String", ""] in answers[3].rows
    assert "ResourceAttributes" in [row[0] for row in answers[4].rows]
    assert sum(int(row[1]) for row in answers[7].rows) == CAPTURED_SPANS


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_errors_have_their_text(up: Up, compression: str) -> None:
    nowhere, denied = go_client.ask(
        up.ports["sql"], ["SELECT * FROM nowhere", "DROP TABLE red_10s"], compression=compression
    )
    assert "UNKNOWN_TABLE" in nowhere.error
    assert "this port only reads" in denied.error


def test_the_store_takes_inserts_of_the_go_client(store_server: StoreServer) -> None:
    for compression in COMPRESSIONS:
        table = f"go_{compression}"
        queries = [
            f"CREATE TABLE {table} (n UInt64, s LowCardinality(String)) ENGINE = MergeTree ORDER BY n",
            f"INSERT INTO {table} (n, s)",
            f"SELECT * FROM {table} ORDER BY n",
            f"DROP TABLE {table}",
        ]
        answers = go_client.ask(store_server.port, queries, compression=compression)
        assert [answer.error for answer in answers] == [""] * 4
        assert answers[2].rows == [["1", "one"], ["2", "two"]]


def test_a_password_is_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = StoreServer(
        tmp_path_factory.mktemp("locked"), '[console]\nusername = "grafana"\npassword = "open sesame"\n'
    )
    try:
        server.start()
        (right,) = go_client.ask(server.port, ["SELECT 1"], user="grafana", password="open sesame")
        (wrong,) = go_client.ask(server.port, ["SELECT 1"], user="grafana", password="sesame")
        assert (right.rows, right.error) == ([["1"]], "")
        assert "AUTHENTICATION_FAILED" in wrong.error
    finally:
        server.kill()

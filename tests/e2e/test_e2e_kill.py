"""Invariants 1 to 4 on the real process: killed at random moments under load, nothing acknowledged is lost or
counted twice.
"""

import asyncio
import random
import shutil
import signal
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Metric,
    ResourceMetrics,
    ScopeMetrics,
    Summary,
    SummaryDataPoint,
)

from benchmarks.load import make_requests
from log.sqlite.reader import SqliteLogReader
from schemas.otlp import split
from schemas.topics import SPANS, TOPICS
from schemas.units import NS_PER_S
from tests.e2e.edges import assert_balanced
from tests.processors.points.counters import T0_S, Number, payload
from tests.support.load import Load
from tests.support.span_log import read_requests
from tests.support.up import KEEP_ALL, Up, eventually, running_up

CAPTURES = Path(__file__).parents[1] / "data" / "envoy"
EXPORT_METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
EXPORT_LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
KILLS = 5
"""``python -m tests.e2e.soak_kills`` goes on for as long as it is given."""
QUICK = ("--pane", "1s", "--wait", "2")
"""Panes of a second: each costs a dozen inserts, and the whole log is read twice and more."""
CONFIG = f"""
[processing]
partitions = 2
lookback = "120s"  # longer than it can take until a request that was logged but not answered comes again
{KEEP_ALL}
"""
SAMPLED = """
[processing]
partitions = 2
lookback = "120s"

[sampling]
policies = [
    { name = "errors", type = "error" },
    { name = "tenth", type = "probabilistic", probabilistic = { sampling_percentage = 10 } },
    { name = "few", type = "budget", budget = { traces_per_second = 1 } },
]
"""


def span_ids(requests: list[bytes]) -> set[tuple[str, str]]:
    """(trace id, span id) of every span, as hex."""
    return {
        (span.trace_id.hex(), span.span_id.hex())
        for request in requests
        for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    }


async def items_in(log: Path, topic: str = SPANS) -> int:
    """How many spans (data points, log records) a log holds."""
    reader = SqliteLogReader(log)
    items = 0
    for tp in await reader.partitions():
        offset = await reader.beginning(tp)
        while tp.topic == topic and (records := await reader.read(tp, offset, 1 << 24)):
            items += sum(split(topic, record.unpack(), 1).items for record in records)
            offset = records[-1].offset + 1
    await reader.close()
    return items


def assert_accounted_for(up: Up, acknowledged: list[bytes]) -> None:
    """Every acknowledged span is kept and stored, once; copies of retried requests are counted as such."""
    ids = span_ids(acknowledged)
    ledger = up.wait_for(asyncio.run(items_in(up.data / "log")))
    assert ledger["received"] == asyncio.run(items_in(up.data / "log"))
    assert_balanced(ledger)
    assert ledger["rejected"] == ledger["dropped"] == 0
    stored = up.sql("SELECT TraceId, SpanId FROM otel_traces")
    assert len(stored) == ledger["kept"] == ledger["stored"]
    assert len({(trace, span) for trace, span in stored}) == len(stored)
    assert ids <= {(trace, span) for trace, span in stored}


def forget_commits(log: Path) -> None:
    """Make a log look as if nobody had ever read it."""
    with closing(sqlite3.connect(log / "log.sqlite")) as connection, connection:
        connection.execute("UPDATE partitions SET committed_offset = NULL, committed_metadata = NULL")


def span_requests(spans: int, seed: int) -> list[bytes]:
    """Requests of 40 spans; every tenth one is of three hours ago, so that its rows are late ones, of every
    level.
    """
    fresh = make_requests(spans, 20, 5, 40, seed=seed, spans_per_s=1_000)
    late = iter(
        make_requests(
            spans // 9 + 40,
            5,
            2,
            40,
            seed=seed + 1,
            now_ns=time.time_ns() - 3 * 3600 * NS_PER_S,
            spans_per_s=1_000,
        )
    )
    return [
        request
        for number, one in enumerate(fresh)
        for request in ([one, next(late)] if number % 9 == 0 else [one])
    ]


def metric_requests() -> list[bytes]:
    """What Envoys sent (thousands of points each), and after each some requests of the kinds of metrics that
    they do not have.
    """
    time_ns = time.time_ns()
    requests = []
    began_s = time.time() - T0_S
    for number, captured in enumerate(read_requests(CAPTURES / "metrics.bin.gz")[:10]):
        exponential = ExponentialHistogramDataPoint(time_unix_nano=time_ns + number, count=number, sum=1.5)
        summary = SummaryDataPoint(time_unix_nano=time_ns + number, count=number)
        requests += [
            captured,
            metric_request(
                Metric(
                    name="exponential", exponential_histogram=ExponentialHistogram(data_points=[exponential])
                )
            ),
            metric_request(Metric(name="summary", summary=Summary(data_points=[summary]))),
            *counters(number, began_s),
        ]
    return requests


def counters(number: int, began_s: float) -> list[bytes]:
    """Counters and gauges of each table, of now and of three hours ago; a proxy that restarts each time."""
    requests = []
    for time_s in (began_s + number, began_s - 3 * 3600 - number):
        numbers = [
            Number(
                "cluster.upstream_rq",
                {"envoy.cluster_name": "b", "envoy.response_code": "200"},
                number + 1,
                time_s,
                began_s - 1,
            ),
            Number("cluster.upstream_rq_total", {"envoy.cluster_name": "b"}, number + 1, time_s, began_s - 1),
            Number("server.uptime", {}, 9 - number, time_s, gauge=True),
            Number("own.gauge", {}, 0, time_s, gauge=True),
            Number("own.sum", {}, number, time_s),
            Number("own.histogram", {}, 0, time_s, bounds=(1.0,), counts=(1, number)),
            Number("pilot_xds_pushes", {"type": "cds"}, number + 1, time_s, began_s - 1),
            Number("cert_expiry_seconds", {"resource_name": f"default{number}"}, 3600, time_s, gauge=True),
        ]
        requests.append(
            payload({"service.name": "counted", "service.instance.id": str(time_s < began_s)}, numbers)
        )
    return requests


def metric_request(metric: Metric) -> bytes:
    scope = ScopeMetrics(metrics=[metric])
    request: bytes = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(scope_metrics=[scope])]
    ).SerializeToString()
    return request


def kill_under_load(up: Up, kills: int, spans: list[bytes], seed: int) -> list[bytes]:
    """Spans, metrics and log records meet kill -9 at random moments; the requests of spans that were
    acknowledged.
    """
    moments = random.Random(seed)
    loads = (
        Load(up, spans, gap_s=0.05),
        Load(up, metric_requests(), gap_s=0.8, senders=1, method=EXPORT_METRICS),
        Load(up, read_requests(CAPTURES / "logs.bin.gz"), gap_s=0.8, senders=1, method=EXPORT_LOGS),
    )
    with ExitStack() as running:
        for load in loads:
            running.enter_context(load)
        for number in range(kills):
            time.sleep(moments.uniform(0, 1))
            up.kill()
            up.launch()
            if number % 4:
                eventually(lambda: bool(up.poll_ports()), "ready after kill -9")
            else:  # the next kill comes while it starts: reads the lookback again, stores what it did not commit
                eventually(up.has_opened_store, "store opened after kill -9")
        eventually(lambda: bool(up.poll_ports()), "ready after the last kill -9")
        for load in loads:
            eventually(lambda load=load: len(load.acknowledged) > 5, "every kind is acknowledged")  # type: ignore[misc]  # bound now
    assert len(loads[0].acknowledged) > kills
    return loads[0].acknowledged


def wait_for_all(up: Up) -> None:
    """Until the ledger has everything that is in the log."""
    for topic in TOPICS:
        up.wait_for(asyncio.run(items_in(up.data / "log", topic)), topic)


def assert_as_undisturbed(up: Up, killed: dict[str, list[str]], folder: Path, config: str) -> Up:
    """Whoever reads the whole log in one go stores the same rows, in every table."""
    shutil.copytree(up.data / "log", folder / "data/log")
    forget_commits(folder / "data/log")
    with running_up(folder, config, *QUICK) as undisturbed:
        wait_for_all(undisturbed)
        for table, rows in undisturbed.tables().items():
            assert rows == killed[table], table
            assert rows, f"{table} has no rows: nothing was compared"
    return undisturbed


def assert_kills_change_no_row(folder: Path, kills: int, seed: int) -> None:
    """Kill a process so many times, under load, and hold its tables against those of an undisturbed one."""
    up = Up(folder / "killed", CONFIG, *QUICK).start()
    try:
        acknowledged = kill_under_load(up, kills, span_requests(2_000 * kills, seed), seed)
        assert_accounted_for(up, acknowledged)
        wait_for_all(up)
        killed = up.tables()
        assert up.stop() == 0
    finally:
        up.stop(signal.SIGKILL)
    assert_as_undisturbed(up, killed, folder / "undisturbed", CONFIG)


@pytest.mark.timeout(900)
def test_killed_at_random_moments_gives_the_rows_of_an_undisturbed_reading(tmp_path: Path) -> None:
    assert_kills_change_no_row(tmp_path, KILLS, seed=4)


@pytest.mark.timeout(900)
def test_what_is_sampled_is_the_same_after_kills(tmp_path: Path) -> None:
    up = Up(tmp_path / "killed", SAMPLED, *QUICK).start()
    try:
        kill_under_load(up, 3, span_requests(10_000, seed=6), seed=6)
        wait_for_all(up)
        killed, ledger = up.tables(), up.ledger()
        assert up.stop() == 0
    finally:
        up.stop(signal.SIGKILL)
    assert_balanced(ledger)
    assert ledger["kept"] > 0
    assert ledger["dropped"] > 0
    assert_as_undisturbed(up, killed, tmp_path / "undisturbed", SAMPLED)


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    requests = make_requests(20_000, 20, 5, 20, seed=5)
    up = Up(tmp_path, KEEP_ALL, *QUICK).start()
    try:
        with Load(up, requests) as load:
            eventually(lambda: len(load.acknowledged) > 50, "some requests are acknowledged")
            assert up.stop() == 0
            load.stop()
        up.start()
        assert_accounted_for(up, load.acknowledged)
    finally:
        up.stop(signal.SIGKILL)

"""Which data points and log records are copies: those of a request that was sent again, and no others."""

from collections.abc import Sequence

import pyarrow as pa
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from processors.cutting import cut
from processors.logs.signal import log_processor
from processors.points.signal import point_processor
from processors.settings import ProcessorSettings
from schemas import topics
from schemas.records import Record, TopicPartition
from schemas.tables import SCHEMAS

T0_NS = 1_800_000_000_000_000_000
SETTINGS = ProcessorSettings.model_validate({"pane": "1s", "lookback": "10s", "partitions": 1})
SHOP = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="shop"))])


def record(body: str = "cache miss", time_ns: int = T0_NS, observed_ns: int = 0) -> LogRecord:
    return LogRecord(
        time_unix_nano=time_ns, observed_time_unix_nano=observed_ns, body=AnyValue(string_value=body)
    )


def log_request(*parts: Sequence[LogRecord]) -> bytes:
    """Each part a ResourceLogs."""
    return LogsData(
        resource_logs=[
            ResourceLogs(resource=SHOP, scope_logs=[ScopeLogs(log_records=part)]) for part in parts
        ]
    ).SerializeToString()


def gauge_request(*parts: Sequence[int]) -> bytes:
    """Each part a ResourceMetrics with a gauge of points at these times."""
    return MetricsData(
        resource_metrics=[
            ResourceMetrics(
                resource=SHOP,
                scope_metrics=[
                    ScopeMetrics(
                        metrics=[
                            Metric(
                                name="up",
                                gauge=Gauge(
                                    data_points=[
                                        NumberDataPoint(time_unix_nano=time_ns, as_int=1) for time_ns in part
                                    ]
                                ),
                            )
                        ]
                    )
                ],
            )
            for part in parts
        ]
    ).SerializeToString()


def tables(make: object, topic: str, arrivals: Sequence[tuple[float, bytes]]) -> dict[str, pa.Table]:
    """Rows of all blocks by table; arrivals are seconds after T0 and a payload."""
    log = [
        Record(offset, T0_NS + round(at_s * 1e9), payload, len(payload))
        for offset, (at_s, payload) in enumerate([*arrivals, (600.0, b"")])
    ]
    found: dict[str, list[pa.Table]] = {}
    for emit in make(TopicPartition(topic, 0), SETTINGS).feed(log):  # type: ignore[operator]  # either processor
        for block in emit.blocks:
            found.setdefault(block.table, []).append(pa.concat_tables(cut(block.rows, SCHEMAS[block.table])))
    return {table: pa.concat_tables(rows) for table, rows in found.items()}


def logs(*arrivals: tuple[float, bytes]) -> tuple[int, int]:
    """Stored, duplicate."""
    found = tables(log_processor, topics.LOGS, arrivals)
    return found["otel_logs"].num_rows, sum(found["ledger"]["duplicate"].to_pylist())


def gauges(*arrivals: tuple[float, bytes]) -> tuple[int, int]:
    """Stored, duplicate."""
    found = tables(point_processor, topics.METRICS, arrivals)
    return found["otel_metrics_gauge"].num_rows, sum(found["ledger"]["duplicate"].to_pylist())


ONE, THREE_PARTS, THREE_IN_ONE = (
    log_request([record()]),
    log_request(*[[record()]] * 3),
    log_request([record()] * 3),
)


@pytest.mark.parametrize("request_", [THREE_PARTS, THREE_IN_ONE])
def test_equal_records_of_one_request_are_no_copies_and_its_repetition_is(request_: bytes) -> None:
    assert logs((0, request_)) == (3, 0)
    assert logs((0, request_), (0.5, request_), (3, request_)) == (3, 6)


def test_requests_gathered_into_one_record_keep_their_equal_records() -> None:
    assert logs((0, ONE + ONE + ONE)) == (3, 0)


def test_an_equal_record_in_another_request_is_no_copy() -> None:
    assert logs(
        (0, ONE),
        (1, log_request([record(), record("served")])),
        (2, log_request([record("served"), record()])),
    ) == (5, 0)


def test_a_repeated_request_is_known_whatever_it_was_gathered_with() -> None:
    other = log_request([record("served")])
    assert logs((0, other + ONE), (2, ONE + other)) == (2, 2)


def test_what_has_no_time_is_never_a_copy_and_gets_the_logs() -> None:
    heartbeat = log_request([record(time_ns=0)])
    assert logs((0, heartbeat), (0.2, heartbeat), (3.5, heartbeat)) == (3, 0)
    rows = tables(log_processor, topics.LOGS, [(0, heartbeat), (0.2, heartbeat), (3.5, heartbeat)])[
        "otel_logs"
    ]
    assert rows["Timestamp"].cast(pa.int64()).to_pylist() == [
        T0_NS,
        T0_NS + 200_000_000,
        T0_NS + 3_500_000_000,
    ]


def test_the_time_of_observation_is_a_time() -> None:
    observed = log_request([record(time_ns=0, observed_ns=T0_NS - 1)])
    assert logs((0, observed), (2, observed)) == (1, 1)
    (rows,) = [tables(log_processor, topics.LOGS, [(0, observed)])["otel_logs"]]
    assert rows["Timestamp"].cast(pa.int64()).to_pylist() == [T0_NS - 1]


def test_gauges_without_a_time_are_no_copies() -> None:
    untimed, timed = gauge_request([0]), gauge_request([T0_NS])
    assert gauges((0, untimed), (1, untimed), (1, gauge_request([0], [0]))) == (4, 0)
    assert gauges((0, timed), (1, timed), (2, gauge_request([T0_NS], [T0_NS]))) == (2, 2)

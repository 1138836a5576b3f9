"""Counters of made fleets: OTLP requests, and the rows that panes make of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from processors.panes import Emit
from processors.points.signal import point_processor
from processors.settings import ProcessorSettings
from schemas import topics
from schemas.records import Commit, Record, TopicPartition
from schemas.tables import SCHEMAS
from schemas.units import NS_PER_S

TP = TopicPartition(topics.METRICS, 0)
T0_S = 1_800_000_000
CUMULATIVE, DELTA = 2, 1
ENVOY = {"telemetry.sdk.name": "envoy"}


class Number(NamedTuple):
    """A data point of one metric."""

    name: str
    attributes: Mapping[str, str]
    value: float
    time_s: float = 0
    """After T0_S."""
    start_s: float = 0
    temporality: int = CUMULATIVE
    gauge: bool = False
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    sum: float = 0.0


def payload(resource: Mapping[str, str], numbers: Sequence[Number]) -> bytes:
    """One request of one resource."""
    metrics = [_metric(number) for number in numbers]
    of_resource = pb.ResourceMetrics(
        resource=Resource(attributes=_texts(resource)), scope_metrics=[pb.ScopeMetrics(metrics=metrics)]
    )
    return pb.MetricsData(resource_metrics=[of_resource]).SerializeToString()


def settings(**changed: Any) -> ProcessorSettings:
    return ProcessorSettings.model_validate({"partitions": 1, "pane": "5s", **changed})


def log_of(requests: Sequence[tuple[float, bytes]]) -> list[Record]:
    """Requests by their time after T0_S as a log, then a tick that closes the last pane."""
    return [
        Record(offset, int((T0_S + time_s) * NS_PER_S), value, len(value))
        for offset, (time_s, value) in enumerate([*requests, (requests[-1][0] + 30, b"")])
    ]


def emits_of(
    log: Sequence[Record], given: ProcessorSettings | None = None, commit: Commit | None = None
) -> list[Emit]:
    processor = point_processor(TP, given or settings(), commit)
    begin = processor.offset or 0
    emits = processor.feed([record for record in log if record.offset >= begin])
    assert [letter.reason for emit in emits for letter in emit.dead_letters] == []
    return emits


def blocks_of(emits: Sequence[Emit]) -> dict[str, pa.Table]:
    return {block.token: block.rows for emit in emits for block in emit.blocks}


def rows_of(emits: Sequence[Emit]) -> dict[str, list[dict[str, Any]]]:
    """Table -> rows, and that each has the table's columns."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for emit in emits:
        for block in emit.blocks:
            assert block.rows.schema == SCHEMAS[block.table], block.table
            found[block.table] += block.rows.to_pylist(maps_as_pydicts="strict")
    return found


def rows(
    requests: Sequence[tuple[float, bytes]], given: ProcessorSettings | None = None
) -> dict[str, list[dict[str, Any]]]:
    return rows_of(emits_of(log_of(requests), given))


def summed(rows: Sequence[Mapping[str, Any]], by: Sequence[str], value: str) -> dict[tuple[Any, ...], float]:
    """Sums by keys, without those of 0."""
    sums: dict[tuple[Any, ...], float] = defaultdict(float)
    for row in rows:
        sums[tuple(row[name] for name in by)] += row[value]
    return {key: total for key, total in sums.items() if total}


def balance(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """The ledger's sums; received is what became of all."""
    names = (
        "received",
        "rejected",
        "duplicate",
        "aggregated",
        "left_out",
        "kept",
        "dropped",
        "stored",
        "unknown",
    )
    sums = {name: sum(row[name] for row in found["ledger"]) for name in names}
    ends = ("rejected", "duplicate", "aggregated", "left_out", "kept", "dropped")
    assert sums["received"] == sum(sums[name] for name in ends)
    points = sum(len(rows) for table, rows in found.items() if table.startswith("otel_metrics"))
    assert sums["stored"] == points
    return {name: count for name, count in sums.items() if count}


def _texts(attributes: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in attributes.items()]


def _metric(number: Number) -> pb.Metric:
    common: dict[str, Any] = {
        "attributes": _texts(number.attributes),
        "start_time_unix_nano": int((T0_S + number.start_s) * NS_PER_S),
        "time_unix_nano": int((T0_S + number.time_s) * NS_PER_S),
    }
    temporality: Any = number.temporality
    if number.counts:
        point = pb.HistogramDataPoint(
            count=sum(number.counts), sum=number.sum, bucket_counts=number.counts, explicit_bounds=number.bounds, **common
        )  # fmt: skip
        histogram = pb.Histogram(data_points=[point], aggregation_temporality=temporality)
        return pb.Metric(name=number.name, histogram=histogram)
    of_number = pb.NumberDataPoint(as_double=number.value, **common)
    if number.gauge:
        return pb.Metric(name=number.name, gauge=pb.Gauge(data_points=[of_number]))
    of_sum = pb.Sum(data_points=[of_number], is_monotonic=True, aggregation_temporality=temporality)
    return pb.Metric(name=number.name, sum=of_sum)

"""Data points and log records on opentelemetry-proto: the slow twin of native ``decode_points`` and
``decode_logs``.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import DataPointFlags, Exemplar, Metric, MetricsData

from schemas.logs import LOG_SCHEMA, LogBatch
from schemas.otlp.limits import DEFAULT_LIMITS, DETAIL_BYTES, ITEM_BYTES, NUMBER_BYTES, Left, Limits
from schemas.otlp.reference_contexts import (
    Place,
    Tables,
    clamped,
    digest_of,
    framed,
    parse,
    span_id_number,
    to_batch,
    trace_id_halves,
)
from schemas.otlp.text import attribute_texts, value_text
from schemas.otlp.wire import Field, submessages
from schemas.points import (
    DISTRIBUTION_SCHEMA,
    EXEMPLAR_SCHEMA,
    KINDS,
    MICROSECONDS_BELOW,
    POINT_SCHEMA,
    PointBatch,
)

_DATA = {5: "gauge", 7: "sum", 9: "histogram", 10: "exponential_histogram", 11: "summary"}
"""Fields of Metric."""
_ATTRIBUTES = {"gauge": 7, "sum": 7, "histogram": 9, "exponential_histogram": 1, "summary": 7}
"""The field of a point's attributes."""
_FIRST_DISTRIBUTION = KINDS.index("histogram")


def decode_points(
    payloads: Sequence[bytes], clusters: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> PointBatch:
    """See ``schemas.otlp.decode_points``."""
    points = _Points(limits)
    for record, payload in enumerate(payloads):
        message = parse(MetricsData, payload, record)
        containers = [
            (each, each.scope_metrics, [of_scope.metrics for of_scope in each.scope_metrics])
            for each in message.resource_metrics
        ]
        for place, field, metric in points.tables.items(payload, containers, _cluster(clusters, record)):
            points.add(record, payload, place, field, metric)
    return points.finish()


def decode_logs(
    payloads: Sequence[bytes], clusters: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> LogBatch:
    """See ``schemas.otlp.decode_logs``."""
    tables, rows = Tables(limits), []
    for record, payload in enumerate(payloads):
        message = parse(LogsData, payload, record)
        containers = [
            (each, each.scope_logs, [of_scope.log_records for of_scope in each.scope_logs])
            for each in message.resource_logs
        ]
        for place, field, log in tables.items(payload, containers, _cluster(clusters, record)):
            rows.append((record, *_log(tables, payload, place, field, log)))
            tables.cutter.check(len(rows) * ITEM_BYTES)
    return LogBatch(to_batch(rows, LOG_SCHEMA), tables.finish())


class _Points:
    """Collects rows of a PointBatch."""

    def __init__(self, limits: Limits) -> None:
        self.tables = Tables(limits)
        self._points: list[tuple[Any, ...]] = []
        self._distributions: list[tuple[Any, ...]] = []
        self._exemplars: list[tuple[Any, ...]] = []
        self._numbers = 0

    def add(self, record: int, payload: bytes, place: Place, field: Field, metric: Metric) -> None:
        """The points of a metric."""
        kind = metric.WhichOneof("data")
        if kind is None or not getattr(metric, kind).data_points:
            return
        data = getattr(metric, kind)
        temporality = getattr(data, "aggregation_temporality", 0)
        monotonic = getattr(data, "is_monotonic", False)
        of_metric = Left()
        codes = [
            self.tables.code(self.tables.cutter.own_text(text, of_metric))
            for text in (metric.name, metric.description, metric.unit)
        ]
        most = self.tables.cutter.limits.list_entries
        head = digest_of(
            framed(*(self.tables.text(codes[at]).encode() for at in (0, 2))),
            bytes([KINDS.index(kind), monotonic]),
            temporality.to_bytes(4, "big", signed=True),
        )
        for (begin, end), point in zip(_point_fields(payload, field, kind), data.data_points, strict=True):
            attributes = attribute_texts(point.attributes)
            row = len(self._points)
            exemplars = getattr(point, "exemplars", ())
            self._exemplars += [(row, *self._exemplar(each)) for each in exemplars[:most]]
            left = Left(bytes=of_metric.bytes, exemplars=len(exemplars[most:]))
            bodies = _bodies(payload, begin, end, _ATTRIBUTES[kind])
            known = self.tables.attributes(bodies, attributes, left)
            self._points.append(
                (
                    record, place.resource.row, place.scope.row, known.row, place.series(head, known.meaning), *codes,
                    KINDS.index(kind), temporality, monotonic, point.flags,
                    _start_ns(point.start_time_unix_nano, point.time_unix_nano), clamped(point.time_unix_nano),
                    _recorded(point, _value(point)) if KINDS.index(kind) < _FIRST_DISTRIBUTION else 0.0,
                    *next(place.identities),
                )
            )  # fmt: skip
            if KINDS.index(kind) >= _FIRST_DISTRIBUTION:
                self._distributions.append((row, *_distribution(point)))
            self._numbers += numbers_of(point)
            rows = len(self._points) * ITEM_BYTES + len(self._exemplars) * DETAIL_BYTES
            self.tables.cutter.check(rows + self._numbers * NUMBER_BYTES)

    def finish(self) -> PointBatch:
        return PointBatch(
            to_batch(self._points, POINT_SCHEMA),
            to_batch(self._distributions, DISTRIBUTION_SCHEMA),
            to_batch(self._exemplars, EXEMPLAR_SCHEMA),
            self.tables.finish(),
        )

    def _exemplar(self, exemplar: Exemplar) -> tuple[Any, ...]:
        return (
            clamped(exemplar.time_unix_nano),
            _value(exemplar),
            *trace_id_halves(exemplar.trace_id),
            span_id_number(exemplar.span_id),
            self.tables.limited(attribute_texts(exemplar.filtered_attributes)),
        )


def _point_fields(payload: bytes, field: Field, kind: str) -> list[tuple[int, int]]:
    """Where the bytes of a metric's points lie: of different kinds of data the last one counts, equal ones in
    a row are merged.
    """
    found: list[tuple[int, int]] = []
    last = None
    for data in _data_fields(payload, field):
        if _DATA[data.number] != last:
            last, found = _DATA[data.number], []
        found += [(point.value, point.end) for point in submessages(payload, data.value, data.end, 1)]
    assert last == kind
    return found


def _data_fields(payload: bytes, metric: Field) -> Iterator[Field]:
    """The data fields of a metric, in the order of its bytes."""
    kinds = (submessages(payload, metric.value, metric.end, number) for number in _DATA)
    return iter(sorted((field for of_kind in kinds for field in of_kind), key=lambda field: field.begin))


def _bodies(data: bytes, begin: int, end: int, number: int) -> tuple[bytes, ...]:
    """The bodies of a message's fields of this number."""
    return tuple(data[field.value : field.end] for field in submessages(data, begin, end, number))


def numbers_of(point: Any) -> int:
    """How many numbers a distribution has; none of other points."""
    of_buckets = (
        getattr(point, sign).bucket_counts for sign in ("positive", "negative") if hasattr(point, sign)
    )
    lists = (getattr(point, name, ()) for name in ("bucket_counts", "explicit_bounds"))
    return sum(map(len, (*of_buckets, *lists))) + 2 * len(getattr(point, "quantile_values", ()))


def _distribution(point: Any) -> tuple[Any, ...]:
    positive, negative = getattr(point, "positive", None), getattr(point, "negative", None)
    quantiles = getattr(point, "quantile_values", ())
    return (
        point.count,
        getattr(point, "zero_count", 0),
        _recorded(point, point.sum),
        _recorded(point, getattr(point, "min", 0.0)),
        _recorded(point, getattr(point, "max", 0.0)),
        getattr(point, "scale", 0),
        positive.offset if positive else 0,
        negative.offset if negative else 0,
        list(positive.bucket_counts if positive else getattr(point, "bucket_counts", ())),
        list(negative.bucket_counts if negative else ()),
        list(getattr(point, "explicit_bounds", ())),
        [each.quantile for each in quantiles],
        [each.value for each in quantiles],
    )


def _log(tables: Tables, payload: bytes, place: Place, field: Field, log: LogRecord) -> tuple[Any, ...]:
    cutter, left = tables.cutter, Left()
    severity_text, event_name = (cutter.own_text(text, left) for text in (log.severity_text, log.event_name))
    body = cutter.own_text(value_text(log.body), left, cutter.limits.set_bytes)
    bodies = _bodies(payload, field.value, field.end, 6)
    return (
        place.resource.row,
        place.scope.row,
        tables.attributes(bodies, attribute_texts(log.attributes), left).row,
        clamped(log.time_unix_nano or log.observed_time_unix_nano),
        *trace_id_halves(log.trace_id),
        span_id_number(log.span_id),
        log.flags & 0xFF,
        log.severity_number & 0xFF,
        tables.code(severity_text),
        tables.code(event_name),
        body,
        *next(place.identities),
    )


def _start_ns(start: int, time_ns: int) -> int:
    if start < MICROSECONDS_BELOW and start * 1_000 <= time_ns:
        return clamped(start * 1_000)
    return clamped(start)


def _recorded(point: Any, number: float) -> float:
    """A number of a point; NaN in place of 0 where the point says that it has none."""
    unrecorded = point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    return math.nan if unrecorded and number == 0 else number


def _value(point: Any) -> float:
    """A NumberDataPoint's or Exemplar's value, 0 when it has none."""
    return float(point.as_int) if point.WhichOneof("value") == "as_int" else point.as_double


def _cluster(clusters: Sequence[str], record: int) -> str:
    return clusters[record] if clusters else ""

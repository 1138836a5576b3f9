"""Data points and log records on opentelemetry-proto: the slow twin of native ``decode_points`` and
``decode_logs``.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import DataPointFlags, Exemplar, Metric, MetricsData
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from schemas.contexts import ATTRIBUTE_SET_SCHEMA, ITEM_RESOURCE_SCHEMA, ITEM_SCOPE_SCHEMA, Contexts
from schemas.errors import MalformedOtlp
from schemas.ids import is_valid
from schemas.logs import LOG_SCHEMA, LogBatch
from schemas.otlp.identity import NO_TAGS, identity
from schemas.otlp.limits import (
    DEFAULT_LIMITS,
    DETAIL_BYTES,
    ITEM_BYTES,
    NUMBER_BYTES,
    Cutter,
    Left,
    Limits,
)
from schemas.otlp.semantics import MAX_TIME_NS, PROXY_KEYS, RESOURCE_KEYS
from schemas.otlp.text import attribute_texts, value_text
from schemas.otlp.wire import Field, joined, submessages
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
    tables, rows = _Tables(limits), []
    for record, payload in enumerate(payloads):
        message = parse(LogsData, payload, record)
        containers = [
            (each, each.scope_logs, [of_scope.log_records for of_scope in each.scope_logs])
            for each in message.resource_logs
        ]
        for place, field, log in tables.items(payload, containers, _cluster(clusters, record)):
            rows.append((record, *_log(tables, payload, place, field, log)))
            tables.cutter.check(len(rows) * ITEM_BYTES)
    return LogBatch(_batch(rows, LOG_SCHEMA), tables.finish())


def parse(kind: type[Any], data: bytes, record: int | None) -> Any:
    """A message of this kind. Raises MalformedOtlp."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedOtlp(f"not a {kind.DESCRIPTOR.name} message", record) from error


def first_text(attributes: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """The text of the first key that has one other than ""."""
    return next((text for key in keys if (text := attributes.get(key))), "")


def resource_texts(attributes: Mapping[str, str]) -> dict[str, str]:
    """The text of each field of RESOURCE_KEYS and PROXY_KEYS; "" for none."""
    return {field: first_text(attributes, keys) for field, keys in {**RESOURCE_KEYS, **PROXY_KEYS}.items()}


class Strings:
    """Text -> code, in the order of first use."""

    def __init__(self) -> None:
        self.codes = {"": 0}

    def code(self, text: str) -> int:
        """The code of a text."""
        return self.codes.setdefault(text, len(self.codes))


class _Known(NamedTuple):
    row: int
    own: bytes
    """Digest of its bytes."""
    meaning: bytes
    """Digest of what it says."""


class _Place(NamedTuple):
    """Where items stand."""

    resource: _Known
    scope: _Known
    identities: Iterator[tuple[int, int]]
    """Of the items of the part that are still to come."""

    def series(self, *parts: bytes) -> int:
        source = _digest(self.resource.meaning + self.scope.meaning)
        return int.from_bytes(_digest(source, *parts)[:8], "big")


class _Tables:
    """Collects what items refer to."""

    def __init__(self, limits: Limits) -> None:
        self._strings = Strings()
        self.cutter = Cutter(limits)
        self._resources: dict[tuple[bytes, str, str], _Known] = {}
        self._scopes: dict[tuple[bytes, str], _Known] = {}
        self._sets: dict[tuple[bytes, ...], _Known] = {}
        self._rows: tuple[list[tuple[Any, ...]], ...] = ([], [], [])

    def items(
        self, payload: bytes, containers: Sequence[Any], cluster: str
    ) -> Iterator[tuple[_Place, Field, Any]]:
        """Each item with its place and where its bytes lie."""
        parts: Counter[bytes] = Counter()
        resource_fields = submessages(payload, 0, len(payload), 1)
        for resource_field, (of_resource, scopes, children) in zip(resource_fields, containers, strict=True):
            _, _, _, begin, end = resource_field
            resource = self._resource(joined(payload, begin, end, 1), of_resource.schema_url, cluster)
            own = _digest(resource.own, payload[begin:end])
            parts[own] += 1
            identities = _identities(own, parts[own])
            scope_fields = submessages(payload, begin, end, 2)
            for scope_field, of_scope, items in zip(scope_fields, scopes, children, strict=True):
                _, _, _, begin_scope, end_scope = scope_field
                scope = self._scope(joined(payload, begin_scope, end_scope, 1), of_scope.schema_url)
                place = _Place(resource, scope, identities)
                item_fields = submessages(payload, begin_scope, end_scope, 2)
                for item_field, item in zip(item_fields, items, strict=True):
                    yield place, item_field, item

    def code(self, text: str) -> int:
        return self._strings.code(text)

    def text(self, code: int) -> str:
        return list(self._strings.codes)[code]

    def code_within(self, text: str) -> int:
        return self._strings.code(self.cutter.text(text))

    def limited(self, attributes: Mapping[str, str], left: Left | None = None) -> list[tuple[str, str]]:
        return list(self.cutter.attributes(attributes, left).items())

    def attributes(self, bodies: tuple[bytes, ...], texts: dict[str, str], left: Left) -> _Known:
        known = self._sets.get(bodies)
        if known and not left:
            return known
        marked = bool(left)  # a row of its own
        known = _Known(len(self._rows[2]), _digest(_framed(*bodies)), _meaning(texts, ""))
        self._rows[2].append((self.limited(texts, left),))
        if not marked:
            self._sets[bodies] = known
        return known

    def finish(self) -> Contexts:
        schemas = (ITEM_RESOURCE_SCHEMA, ITEM_SCOPE_SCHEMA, ATTRIBUTE_SET_SCHEMA)
        resources, scopes, sets = map(_batch, self._rows, schemas)
        return Contexts(resources, scopes, sets, pa.array(self._strings.codes, pa.string()), self.cutter.cut)

    def _resource(self, data: bytes, url: str, cluster: str) -> _Known:
        self.code(cluster)
        known = self._resources.get((data, url, cluster))
        if known:
            return known
        attributes = attribute_texts(Resource.FromString(data).attributes)
        named = resource_texts(attributes)
        used = "" if named["cluster"] else cluster
        own = identity(named, NO_TAGS, cluster)
        texts = own._asdict() | {
            "service_name": attributes.get("service.name", "") or (own.service if named["node"] else ""),
            "schema_url": url,
        }
        codes = [
            self.code_within(texts[name])
            for name in ITEM_RESOURCE_SCHEMA.names
            if name not in ("identity", "attributes")
        ]
        meaning = _meaning(attributes, used)
        digest = int.from_bytes(meaning[:8], "big")
        self._rows[0].append((*codes, digest, self.limited(attributes)))
        known = _Known(len(self._resources), _digest(_framed(data, url.encode(), used.encode())), meaning)
        self._resources[data, url, cluster] = known
        return known

    def _scope(self, data: bytes, url: str) -> _Known:
        if (data, url) not in self._scopes:
            scope = InstrumentationScope.FromString(data)
            texts = [self.cutter.text(text) for text in (scope.name, scope.version, url)]
            attributes = self.limited(attribute_texts(scope.attributes))
            self._rows[1].append((*texts, scope.dropped_attributes_count, attributes))
            meaning = _digest(_framed(scope.name.encode(), scope.version.encode()))
            own = _digest(_framed(data, url.encode()))
            self._scopes[data, url] = _Known(len(self._scopes), own, meaning)
        return self._scopes[data, url]


class _Points:
    """Collects rows of a PointBatch."""

    def __init__(self, limits: Limits) -> None:
        self.tables = _Tables(limits)
        self._points: list[tuple[Any, ...]] = []
        self._distributions: list[tuple[Any, ...]] = []
        self._exemplars: list[tuple[Any, ...]] = []
        self._numbers = 0

    def add(self, record: int, payload: bytes, place: _Place, field: Field, metric: Metric) -> None:
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
        head = _digest(
            _framed(*(self.tables.text(codes[at]).encode() for at in (0, 2))),
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
                    _start_ns(point.start_time_unix_nano, point.time_unix_nano), _clamped(point.time_unix_nano),
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
            _batch(self._points, POINT_SCHEMA),
            _batch(self._distributions, DISTRIBUTION_SCHEMA),
            _batch(self._exemplars, EXEMPLAR_SCHEMA),
            self.tables.finish(),
        )

    def _exemplar(self, exemplar: Exemplar) -> tuple[Any, ...]:
        return (
            _clamped(exemplar.time_unix_nano),
            _value(exemplar),
            *_trace_id(exemplar.trace_id),
            _span_id(exemplar.span_id),
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


def _log(tables: _Tables, payload: bytes, place: _Place, field: Field, log: LogRecord) -> tuple[Any, ...]:
    cutter, left = tables.cutter, Left()
    severity_text, event_name = (cutter.own_text(text, left) for text in (log.severity_text, log.event_name))
    body = cutter.own_text(value_text(log.body), left, cutter.limits.set_bytes)
    bodies = _bodies(payload, field.value, field.end, 6)
    return (
        place.resource.row,
        place.scope.row,
        tables.attributes(bodies, attribute_texts(log.attributes), left).row,
        _clamped(log.time_unix_nano or log.observed_time_unix_nano),
        *_trace_id(log.trace_id),
        _span_id(log.span_id),
        log.flags & 0xFF,
        log.severity_number & 0xFF,
        tables.code(severity_text),
        tables.code(event_name),
        body,
        *next(place.identities),
    )


def _identities(own: bytes, count: int) -> Iterator[tuple[int, int]]:
    """Of the items of a part, in their order; ``count``: how many equal parts the payload has had."""
    first = int.from_bytes(own if count == 1 else _digest(own, count.to_bytes(8, "big")), "big")
    for number in itertools.count():
        identity = (first + number) % (1 << 128)
        yield identity >> 64, identity % (1 << 64)


def _start_ns(start: int, time_ns: int) -> int:
    if start < MICROSECONDS_BELOW and start * 1_000 <= time_ns:
        return _clamped(start * 1_000)
    return _clamped(start)


def _recorded(point: Any, number: float) -> float:
    """A number of a point; NaN in place of 0 where the point says that it has none."""
    unrecorded = point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    return math.nan if unrecorded and number == 0 else number


def _value(point: Any) -> float:
    """A NumberDataPoint's or Exemplar's value, 0 when it has none."""
    return float(point.as_int) if point.WhichOneof("value") == "as_int" else point.as_double


def _trace_id(data: bytes) -> tuple[int, int]:
    if not is_valid(data, 16):
        return 0, 0
    return int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big")


def _span_id(data: bytes) -> int:
    return int.from_bytes(data, "big") if len(data) == 8 else 0


def _clamped(time_ns: int) -> int:
    """A fixed64 time as int64."""
    return min(time_ns, MAX_TIME_NS)


def _cluster(clusters: Sequence[str], record: int) -> str:
    return clusters[record] if clusters else ""


def _meaning(attributes: Mapping[str, str], more: str) -> bytes:
    """The digest of attributes, whatever their order, and of one more text."""
    pairs = sorted((key.encode(), text.encode()) for key, text in attributes.items())
    return _digest(_framed(more.encode(), *(part for pair in pairs for part in pair)))


def _framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _digest(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()[:16]


def _batch(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )

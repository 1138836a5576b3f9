"""The split of requests on opentelemetry-proto: the twin of ``native/src/otlp/split.rs``."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas import topics
from schemas.ids import is_valid, resource_partition, trace_partition
from schemas.otlp.reference_contexts import parse
from schemas.otlp.wire import (
    FRAME_BYTES,
    Field,
    framed,
    framed_bytes,
    joined,
    submessages,
    without,
)

_MESSAGES: dict[str, type[Message]] = {
    topics.SPANS: TracesData,
    topics.METRICS: MetricsData,
    topics.LOGS: LogsData,
}
_POINTS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_MAX_HEAD_BYTES = 6
"""Tag and length of a container."""

_INNER = 2
"""ResourceSpans.scope_spans, ScopeSpans.spans; logs and metrics have the same numbers."""


@dataclass(slots=True)
class _Splitting:
    """What is known of the request so far."""

    partitions: int
    most_bytes: int
    parts: defaultdict[int, bytearray] | None = field(default_factory=lambda: defaultdict(bytearray))
    bytes: int = 0
    items: int = 0
    bad_trace_ids: int = 0
    bad_span_ids: int = 0
    record_bytes: int = 0

    def grow(self, size: int) -> "defaultdict[int, bytearray] | None":
        """The parts to write so many bytes to; None where they would be too many."""
        self.bytes += size
        if self.bytes > self.most_bytes:
            self.parts = None
        return self.parts

    def measure(self, rest: int, scopes: Iterable[tuple[int, int]]) -> None:
        """Take the measures of a container: its own fields, and of each scope with items its own fields and
        the largest item.
        """
        for scope, item in scopes:
            needed = FRAME_BYTES + max(rest + scope + item, 2 * (rest + scope))
            self.record_bytes = max(self.record_bytes, needed)


def split(
    topic: str, request: bytes, partitions: int, most_bytes: int = sys.maxsize
) -> tuple[dict[int, bytes] | None, int, int, int, int, int]:
    """Parts by partition (None where they would take more than ``most_bytes``), accepted items, items with an
    invalid trace id, items with (only) an invalid span id, ``bytes`` and ``record_bytes`` of
    ``schemas.otlp.Split``.
    """
    message = parse(_MESSAGES[topic], request, None)
    whole = partitions == 1
    splitting = _Splitting(partitions, sys.maxsize if whole else most_bytes)
    for index, container in enumerate(submessages(request, 0, len(request), 1)):
        if isinstance(message, MetricsData):
            _add_metrics(splitting, request, container, message.resource_metrics[index])
        else:
            _add_items(splitting, topic, request, container)
    bad = splitting.bad_trace_ids, splitting.bad_span_ids
    if whole and splitting.items and not any(bad):
        return {0: request}, splitting.items, 0, 0, len(request), splitting.record_bytes
    too_many = splitting.parts is None or splitting.bytes > most_bytes
    parts = None if too_many else {n: bytes(part) for n, part in (splitting.parts or {}).items()}
    return parts, splitting.items, *bad, splitting.bytes, splitting.record_bytes


def _add_metrics(
    splitting: _Splitting, request: bytes, container: Field, resource_metrics: ResourceMetrics
) -> None:
    """A ResourceMetrics, which stays whole."""
    points = _points(resource_metrics)
    if not points:
        return
    splitting.items += points
    scopes = submessages(request, container.value, container.end, _INNER)
    splitting.measure(
        len(without(request, container, _INNER)),
        (
            (len(without(request, scope, _INNER)), max(metric.end - metric.begin for metric in metrics))
            for scope in scopes
            if (metrics := list(submessages(request, scope.value, scope.end, _INNER)))
        ),
    )
    parts = splitting.grow(container.end - container.begin)
    if parts is not None:
        partition = _partition_by_resource(request, container, splitting.partitions)
        parts[partition] += request[container.begin : container.end]


def _points(resource_metrics: ResourceMetrics) -> int:
    metrics = (metric for scope_metrics in resource_metrics.scope_metrics for metric in scope_metrics.metrics)
    return sum(
        len(getattr(metric, kind).data_points)
        for metric in metrics
        if (kind := metric.WhichOneof("data")) in _POINTS
    )


def _add_items(splitting: _Splitting, topic: str, request: bytes, container: Field) -> None:
    """Spans or log records: each goes to its partition within copies of what contains it (ResourceSpans,
    ScopeSpans).
    """
    rest = without(request, container, _INNER)
    fallback = _partition_by_resource(request, container, splitting.partitions)
    plan: list[tuple[bytes, dict[int, list[Field]]]] = []  # of each scope: its own fields, items by partition
    for scope in submessages(request, container.value, container.end, _INNER):
        chosen = _choose(splitting, topic, request, scope, fallback)
        if chosen:
            plan.append((without(request, scope, _INNER), chosen))
    splitting.measure(len(rest), ((len(scope_rest), max(_sizes(chosen))) for scope_rest, chosen in plan))
    scopes_bytes: defaultdict[int, int] = defaultdict(int)
    for scope_rest, chosen in plan:
        for partition, items in chosen.items():
            scopes_bytes[partition] += framed_bytes(
                len(scope_rest) + sum(item.end - item.begin for item in items)
            )
    parts = splitting.grow(sum(_MAX_HEAD_BYTES + len(rest) + size for size in scopes_bytes.values()))
    if parts is None:
        return
    bodies: defaultdict[int, bytearray] = defaultdict(bytearray)
    for scope_rest, chosen in plan:
        for partition, items in chosen.items():
            chunks = b"".join(request[item.begin : item.end] for item in items)
            bodies[partition] += framed(_INNER, scope_rest + chunks)
    for partition, body in bodies.items():
        parts[partition] += framed(1, rest + body)


def _sizes(chosen: dict[int, list[Field]]) -> Iterator[int]:
    return (item.end - item.begin for items in chosen.values() for item in items)


def _choose(
    splitting: _Splitting, topic: str, request: bytes, scope: Field, fallback: int
) -> dict[int, list[Field]]:
    """A scope's items by partition; what is left out is counted."""
    chosen: defaultdict[int, list[Field]] = defaultdict(list)
    for item in submessages(request, scope.value, scope.end, _INNER):
        trace_id, span_id = _ids(topic, request[item.value : item.end])
        if topic == topics.SPANS and not is_valid(trace_id, 16):
            splitting.bad_trace_ids += 1
        elif topic == topics.SPANS and not is_valid(span_id, 8):
            splitting.bad_span_ids += 1
        else:
            partition = (
                trace_partition(trace_id, splitting.partitions) if is_valid(trace_id, 16) else fallback
            )
            chosen[partition].append(item)
            splitting.items += 1
    return chosen


def _ids(topic: str, item: bytes) -> tuple[bytes, bytes]:
    parsed = Span.FromString(item) if topic == topics.SPANS else LogRecord.FromString(item)
    return parsed.trace_id, parsed.span_id


def _partition_by_resource(request: bytes, container: Field, partitions: int) -> int:
    resource = joined(request, container.value, container.end, 1)
    return resource_partition(
        (resource[f.value : f.end] for f in submessages(resource, 0, len(resource), 1)), partitions
    )

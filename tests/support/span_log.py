"""Logs of OTLP spans for tests: a small builder, and ways to feed them to a PaneProcessor."""

import gzip
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from processors.panes import Emit
from processors.settings import ProcessorSettings
from processors.spans.sampling.policies import AlwaysSample
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.signal import span_processor
from schemas import otlp, topics
from schemas.records import Commit, Record, TopicPartition
from schemas.units import NS_PER_S

T0_S = 1_800_000_000  # a full hour
INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER = 1, 2, 3, 4, 5
KEEP_ALL = SamplingSettings(policies=(AlwaysSample(name="all", type="always_sample"),))


@dataclass(frozen=True)
class Span:
    """One span; times in seconds after T0_S. ``service`` may be ``name`` or ``name/instance`` or
    ``name/instance/pod``.
    """

    service: str
    id: int
    parent: int = 0
    kind: int = SERVER
    start_s: float = 0.0
    duration_ms: float = 10.0
    trace: int = 1
    name: str = "op"
    status: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    version: str = "v1"
    trace_state: str = ""

    def message(self) -> trace_pb2.Span:
        start_ns = round((T0_S + self.start_s) * 1e6) * 1000
        return trace_pb2.Span(
            trace_id=self.trace.to_bytes(16, "big"),
            span_id=self.id.to_bytes(8, "big"),
            parent_span_id=self.parent.to_bytes(8, "big") if self.parent else b"",
            name=self.name,
            trace_state=self.trace_state,
            kind=self.kind,  # type: ignore[arg-type]  # an enum's number
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + round(self.duration_ms * 1e6),
            attributes=_attributes(self.attributes),
            status=trace_pb2.Status(code=self.status),  # type: ignore[arg-type]  # an enum's number
        )

    def resource(self) -> Resource:
        name, instance, pod = (*self.service.split("/"), "", "")[:3]
        identity = {
            "service.name": name, "service.version": self.version, "service.instance.id": instance, "k8s.pod.name": pod
        }  # fmt: skip
        return Resource(attributes=_attributes({key: value for key, value in identity.items() if value}))


def proxy(
    service: str,
    id_: int,
    parent: int = 0,
    kind: int = SERVER,
    flags: str = "-",
    cluster: str = "",
    **other: object,
) -> Span:
    """A span as Envoy makes it."""
    attributes = {
        "component": "proxy",
        "response_flags": flags,
        **({"upstream_cluster.name": cluster} if cluster else {}),
    }
    given = other.pop("attributes", {})
    assert isinstance(given, dict)
    return Span(service, id_, parent, kind, attributes=attributes | given, **other)  # type: ignore[arg-type]  # passed on


def _attributes(attributes: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes.items()]


def payload(spans: Iterable[Span]) -> bytes:
    """A TracesData message."""
    resource_spans = [
        trace_pb2.ResourceSpans(
            resource=span.resource(), scope_spans=[trace_pb2.ScopeSpans(spans=[span.message()])]
        )
        for span in spans
    ]
    data: bytes = trace_pb2.TracesData(resource_spans=resource_spans).SerializeToString()
    return data


def make_log(*arrivals: tuple[float, Iterable[Span]], end_s: float = 600) -> list[Record]:
    """Records of (log time in seconds after T0_S, spans), then a tick at ``end_s`` that settles
    everything.
    """
    values = [(at_s, payload(spans)) for at_s, spans in arrivals]
    return [
        Record(offset, T0_S * NS_PER_S + round(at_s * 1e9), value, len(value))
        for offset, (at_s, value) in enumerate([*values, (end_s, b"")])
    ]


def process(
    log: Sequence[Record],
    settings: ProcessorSettings,
    sampling: SamplingSettings = KEEP_ALL,
    partition: int = 0,
    commit: Commit | None = None,
) -> list[Emit]:
    """What a new processor makes of a whole log."""
    processor = span_processor(TopicPartition(topics.SPANS, partition), settings, sampling, commit)
    return processor.feed([record for record in log if record.offset >= (processor.offset or 0)])


def blocks(emits: Iterable[Emit]) -> dict[str, pa.Table]:
    """Token -> rows; a token that comes twice must come with equal rows."""
    found: dict[str, pa.Table] = {}
    for emit in emits:
        for block in emit.blocks:
            assert found.setdefault(block.token, block.rows).equals(block.rows), block.token
    return found


def rows(emits: Iterable[Emit], table: str) -> list[dict[str, object]]:
    """All rows of a table, each token's once."""
    return [
        row
        for token, found in blocks(emits).items()
        if token.startswith(f"{table}:")
        for row in found.to_pylist()
    ]


def edge_sums(
    emits: Iterable[Emit], keys: Sequence[str] = ("client_service", "server_service")
) -> dict[tuple[object, ...], tuple[int, int]]:
    """(calls, unsent) by client and server; calls that are taken back add up modulo 2^64, as in the
    database.
    """
    calls: Counter[tuple[object, ...]] = Counter()
    unsent: Counter[tuple[object, ...]] = Counter()
    for row in rows(emits, "edges_10s"):
        key = tuple(row[name] for name in keys)
        calls[key] += row["calls"]  # type: ignore[operator]  # a count
        unsent[key] += row["unsent"]  # type: ignore[operator]  # a count
    return {key: (calls[key] % (1 << 64), unsent[key] % (1 << 64)) for key in calls}


def total(emits: Iterable[Emit], table: str, column: str) -> int:
    """Sum of a column over all blocks."""
    return sum(row[column] for row in rows(emits, table))  # type: ignore[misc]  # a count


def read_requests(path: Path) -> list[bytes]:
    """Captured Export requests."""
    data, requests, at = gzip.decompress(path.read_bytes()), [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


def replay(requests: Sequence[bytes], partitions: int, duration_s: float) -> list[list[Record]]:
    """A log for each partition, the requests spread evenly over ``duration_s``, and a tick at the end."""
    logs: list[list[Record]] = [[] for _ in range(partitions)]
    for number, request in enumerate(requests):
        at_ns = T0_S * NS_PER_S + int(number * duration_s / len(requests) * 1e9)
        for partition, part in otlp.split(topics.SPANS, request, partitions).parts.items():
            logs[partition].append(Record(len(logs[partition]), at_ns, part, len(part)))
    for log in logs:
        log.append(Record(len(log), (T0_S + 900) * NS_PER_S, b"", 0))
    return logs

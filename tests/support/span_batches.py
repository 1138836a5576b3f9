"""SpanBatches made of columns, without OTLP around them."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.spans import RESOURCE_SCHEMA, SCOPE_SCHEMA, SPAN_SCHEMA, SpanBatch

_CODES = (
    "name", "operation", "trace_state", "status_message", "response_flags", "upstream_cluster", "peer", "db_system", "db_name",
    "messaging_system", "messaging_destination",
)  # fmt: skip
_RESOURCE_CODES = ("service", "namespace", "cluster", "version", "instance", "pod", "address")


class _Texts:
    def __init__(self) -> None:
        self.codes = {"": 0}

    def code(self, text: str | None) -> int | None:
        return None if text is None else self.codes.setdefault(text, len(self.codes))


def make_batch(
    rows: int,
    columns: Mapping[str, Sequence[object] | np.ndarray],
    resources: Sequence[Mapping[str, str]] = ({"service": "shop"},),
) -> SpanBatch:
    """A batch of ``rows`` spans: ``columns`` by SPAN_SCHEMA's names (texts for codes; absent: 0), resources
    by RESOURCE_SCHEMA's.

    Other keys of a resource are its attributes.
    """
    texts = _Texts()
    arrays = {}
    for field in SPAN_SCHEMA:
        values = columns.get(field.name, np.zeros(rows, dtype=np.int64))
        if field.name in _CODES and field.name in columns:
            values = [texts.code(value) for value in values]  # type: ignore[arg-type]  # texts
        arrays[field.name] = pa.array(values).cast(field.type)
    for name in columns:
        if name.startswith("attr:"):
            arrays[name] = pa.array([texts.code(value) for value in columns[name]], pa.uint32())  # type: ignore[arg-type]  # texts
    resource_columns = [
        pa.array([texts.code(row.get(name, "")) for row in resources], pa.uint32())
        for name in _RESOURCE_CODES
    ]
    attributes = [
        [(key, value) for key, value in row.items() if key not in _RESOURCE_CODES] for row in resources
    ]
    resource_columns.append(pa.array([0] * len(attributes), pa.uint8()))
    resource_columns.append(pa.array(range(len(attributes)), pa.uint32()))
    resource_columns.append(pa.array(attributes, RESOURCE_SCHEMA.field("attributes").type))
    return SpanBatch(
        pa.record_batch(arrays),
        pa.record_batch(resource_columns, schema=RESOURCE_SCHEMA),
        pa.record_batch([["envoy"], [""]], schema=SCOPE_SCHEMA),
        pa.array(list(texts.codes)),
    )


def frame(batch: SpanBatch) -> pl.DataFrame:
    """The spans of a batch as Polars has them."""
    spans = pl.from_arrow(batch.spans)
    assert isinstance(spans, pl.DataFrame)
    return spans


def random_traces(
    seed: int, traces: int, spans_per_trace: int = 5, services: int = 3
) -> dict[str, np.ndarray]:
    """Columns of traces with random ids: the first span of each is the root."""
    random = np.random.default_rng(seed)
    rows = traces * spans_per_trace
    first = np.arange(rows) // spans_per_trace * spans_per_trace
    span_id = random.integers(1, 1 << 63, rows, dtype=np.uint64)
    start = random.integers(0, 5_000_000_000, traces).repeat(spans_per_trace)
    return {
        "trace_hi": random.integers(0, 1 << 63, traces, dtype=np.uint64).repeat(spans_per_trace),
        "trace_lo": random.integers(0, 1 << 63, traces, dtype=np.uint64).repeat(spans_per_trace)
        * np.uint64(2)
        + np.uint64(1),
        "span_id": span_id,
        "parent_id": np.where(first == np.arange(rows), 0, span_id[first]).astype(np.uint64),
        "start_ns": start,
        "end_ns": start + random.integers(0, 900_000_000, rows),
        "resource": random.integers(0, services, rows),
        "error": random.random(rows) < 0.01,
    }

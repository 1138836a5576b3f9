"""OTLP decode and split by the Rust crate ``native/``: makes Arrow arrays of its buffers. Importing fails
where it was not built.
"""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from typing_extensions import Buffer

from schemas import topics
from schemas._native import Decoder
from schemas.contexts import ATTRIBUTE_SET_SCHEMA, ITEM_RESOURCE_SCHEMA, ITEM_SCOPE_SCHEMA, Contexts
from schemas.errors import BatchTooLarge, MalformedOtlp
from schemas.histogram import UPPER_NS
from schemas.logs import LOG_SCHEMA, LogBatch
from schemas.otlp.limits import DEFAULT_LIMITS, Limits, Weight
from schemas.otlp.semantics import (
    NO_FLAGS,
    PROXY_KEYS,
    RESOURCE_KEYS,
    SPAN_KEYS,
    SPAN_PARTS,
    UNKNOWN_SERVICE,
)
from schemas.points import DISTRIBUTION_SCHEMA, EXEMPLAR_SCHEMA, POINT_SCHEMA, PointBatch
from schemas.spans import DETAIL_SCHEMA, RESOURCE_SCHEMA, SCOPE_SCHEMA, SPAN_SCHEMA

_Memory = Sequence[Buffer]
_Rows = tuple[int, _Memory]

_decoder = Decoder(
    {**SPAN_KEYS, **SPAN_PARTS},
    {**RESOURCE_KEYS, **PROXY_KEYS},
    UNKNOWN_SERVICE,
    NO_FLAGS,
    UPPER_NS,
    MalformedOtlp,
    BatchTooLarge,
)
_SPLITTERS = {
    topics.SPANS: _decoder.split_spans,
    topics.METRICS: _decoder.split_metrics,
    topics.LOGS: _decoder.split_logs,
}


def decode_spans(
    payloads: Sequence[bytes],
    extra_keys: Sequence[str],
    clusters: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch, pa.StringArray, int]:
    """See ``schemas.otlp.decode_spans``."""
    (span_count, spans), resources, scopes, strings, cut = _decoder.decode_spans(
        payloads, extra_keys, clusters, limits
    )
    buffers = map(pa.py_buffer, spans)
    columns = [pa.Array.from_buffers(field.type, span_count, [None, next(buffers)]) for field in SPAN_SCHEMA]
    schema = SPAN_SCHEMA
    for key in extra_keys:
        codes, validity = next(buffers), next(buffers)
        columns.append(pa.Array.from_buffers(pa.uint32(), span_count, [validity, codes]))
        schema = schema.append(pa.field(f"attr:{key}", pa.uint32()))
    return (
        pa.RecordBatch.from_arrays(columns, schema=schema),
        _record_batch(RESOURCE_SCHEMA, *resources),
        _record_batch(SCOPE_SCHEMA, *scopes),
        _array(pa.string(), None, map(pa.py_buffer, strings)),
        cut,
    )


def decode_details(
    payloads: Sequence[bytes],
    record: np.ndarray,
    offset: np.ndarray,
    length: np.ndarray,
    limits: Limits = DEFAULT_LIMITS,
) -> pa.RecordBatch:
    """See ``schemas.otlp.decode_details``; all uint32, of equal length."""
    buffers = _decoder.decode_details(payloads, (record, offset, length), limits)
    return _record_batch(DETAIL_SCHEMA, len(record), buffers)


def decode_points(
    payloads: Sequence[bytes], clusters: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> PointBatch:
    """See ``schemas.otlp.decode_points``."""
    points, distributions, exemplars, contexts = _decoder.decode_points(payloads, clusters, limits)
    return PointBatch(
        _record_batch(POINT_SCHEMA, *points),
        _record_batch(DISTRIBUTION_SCHEMA, *distributions),
        _record_batch(EXEMPLAR_SCHEMA, *exemplars),
        _contexts(*contexts),
    )


def decode_logs(
    payloads: Sequence[bytes], clusters: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> LogBatch:
    """See ``schemas.otlp.decode_logs``."""
    logs, contexts = _decoder.decode_logs(payloads, clusters, limits)
    return LogBatch(_record_batch(LOG_SCHEMA, *logs), _contexts(*contexts))


def weigh(topic: str, payload: bytes) -> Weight:
    """See ``schemas.otlp.weigh``."""
    split(topic, payload, 1, 0)  # weighing reads framing only, this reads all
    return Weight(*_decoder.weigh(topics.TOPICS.index(topic), payload))


def split(
    topic: str, request: bytes, partitions: int, most_bytes: int = sys.maxsize
) -> tuple[dict[int, bytes] | None, int, int, int, int, int]:
    """Parts by partition (None where they would take more than ``most_bytes``), accepted items, items with an
    invalid trace id, items with (only) an invalid span id, ``bytes`` and ``record_bytes`` of
    ``schemas.otlp.Split``.
    """
    return _SPLITTERS[topic](request, partitions, most_bytes)


def mend(topic: str, request: bytes) -> tuple[bytes, int, int]:
    """See ``schemas.otlp.mend``: the bytes, texts repaired and values cut, items left out."""
    return _decoder.mend(topics.TOPICS.index(topic), request)


def _contexts(resources: _Rows, scopes: _Rows, attributes: _Rows, strings: _Memory, cut: int) -> Contexts:
    return Contexts(
        _record_batch(ITEM_RESOURCE_SCHEMA, *resources),
        _record_batch(ITEM_SCOPE_SCHEMA, *scopes),
        _record_batch(ATTRIBUTE_SET_SCHEMA, *attributes),
        _array(pa.string(), None, map(pa.py_buffer, strings)),
        cut,
    )


def _record_batch(schema: pa.Schema, rows: int, memory: _Memory) -> pa.RecordBatch:
    buffers = map(pa.py_buffer, memory)
    return pa.RecordBatch.from_arrays([_array(field.type, rows, buffers) for field in schema], schema=schema)


def _array(kind: pa.DataType, rows: int | None, buffers: Iterator[pa.Buffer]) -> pa.Array:
    """An array without nulls of the next buffers: its own, then its children's. ``rows`` may be left out
    where offsets say how many.
    """
    own = next(buffers)
    if pa.types.is_primitive(kind):
        return pa.Array.from_buffers(
            kind, own.size * 8 // kind.bit_width if rows is None else rows, [None, own]
        )
    rows = own.size // 4 - 1 if rows is None else rows
    if pa.types.is_string(kind):
        return pa.Array.from_buffers(kind, rows, [None, own, next(buffers)])
    if pa.types.is_map(kind):
        pairs = [_array(kind.key_type, None, buffers), _array(kind.item_type, None, buffers)]
        entries = pa.StructArray.from_arrays(pairs, fields=[kind.key_field, kind.item_field])
        return pa.Array.from_buffers(kind, rows, [None, own], children=[entries])
    return pa.Array.from_buffers(kind, rows, [None, own], children=[_array(kind.value_type, None, buffers)])

"""OTLP bytes in, columns or parts out: the one door to decoding.

Native code (``native/``, Rust) when it was built, else the reference on opentelemetry-proto;
``MESHFLOW_DECODER=native|reference|auto`` chooses. Both give equal results (tests/schemas/). A payload is a
``TracesData`` / ``LogsData`` / ``MetricsData`` message, whose bytes are those of the
``Export*ServiceRequest``; such messages end to end are one such message (protobuf's merge), b"" is an empty
one. Well-formed is what protobuf's parser takes: unknown fields are skipped, strings must be UTF-8, messages
nest at most 100 deep. :func:`mend` makes such a payload of one that is not quite.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa

from schemas import topics
from schemas.errors import MalformedOtlp
from schemas.logs import LogBatch
from schemas.otlp.limits import DEFAULT_LIMITS, Limits, Weight
from schemas.otlp.mended import Mended as Mended
from schemas.points import PointBatch
from schemas.spans import SpanBatch

_CHOICES = {"native": ("native",), "reference": ("reference",), "auto": ("native", "reference")}


def load(choice: str) -> tuple[str, Any]:
    """Name and module of the decoder to use. Raises ValueError for no such choice, ImportError when native is
    asked for but not built.
    """
    if choice not in _CHOICES:
        raise ValueError(f"MESHFLOW_DECODER must be one of {', '.join(_CHOICES)}, not {choice!r}")
    *preferred, last = _CHOICES[choice]
    for name in preferred:
        try:
            return name, import_module(f"schemas.otlp.{name}")
        except ImportError:
            continue
    return last, import_module(f"schemas.otlp.{last}")


decoder_name, _decoder = load(os.environ.get("MESHFLOW_DECODER", "auto"))
native = decoder_name == "native"
MAX_PARTITIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class Split:
    """An Export request, by partition."""

    parts: dict[int, bytes]
    """Partition -> a message of the request's type with at least one item; the items' bytes are those of the
    request. Empty where ``is_over``.
    """
    items: int
    """Spans, log records or data points in ``parts``."""
    rejected: int
    """Spans left out."""
    reason: str
    """Why, for the sender; "" when nothing was."""
    bytes: int = 0
    """What the parts take (a few bytes more), made or not: each has copies of the resources and scopes of its
    items.
    """
    record_bytes: int = 0
    """How large a record must be to hold any of the items within its resource and scope, and these twice: so
    much is left for other items (``schemas.otlp.oversize``).
    """
    is_over: bool = False
    """The parts would take more than they may: none were made."""
    repaired: int = 0
    """Texts that were not UTF-8, and values that nested too deep (:func:`mend`)."""


def decode_spans(
    payloads: Sequence[bytes],
    extra_keys: Sequence[str] = (),
    clusters: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> SpanBatch:
    """Spans of TracesData payloads as columns.

    An id of a wrong length reads as 0; times later than int64 reaches are clamped. ``extra_keys``: attributes
    (of the span, else of its resource) that become columns ``attr:KEY``, in the order given, each once.
    ``clusters``: one for each payload (or none at all), the cluster of resources that name none; "" for none.
    ``limits``: of resources' attributes, of texts, and of all rows. Values as text: ``schemas.otlp.text``.
    Raises MalformedOtlp (with ``record``), BatchTooLarge, OverflowError when the distinct strings exceed
    2 GiB, ValueError when clusters and payloads differ in number.
    """
    keys = list(dict.fromkeys(extra_keys))
    return SpanBatch(*_decoder.decode_spans(payloads, keys, _checked(clusters, payloads), limits))


def decode_points(
    payloads: Sequence[bytes], clusters: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> PointBatch:
    """Data points of MetricsData payloads as columns; arguments and errors as :func:`decode_spans`."""
    batch: PointBatch = _decoder.decode_points(payloads, _checked(clusters, payloads), limits)
    return batch


def decode_logs(
    payloads: Sequence[bytes], clusters: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS
) -> LogBatch:
    """Log records of LogsData payloads as columns; arguments and errors as :func:`decode_spans`."""
    batch: LogBatch = _decoder.decode_logs(payloads, _checked(clusters, payloads), limits)
    return batch


def decode_details(
    payloads: Sequence[bytes],
    record: pa.Array | np.ndarray,
    offset: pa.Array | np.ndarray,
    length: pa.Array | np.ndarray,
    limits: Limits = DEFAULT_LIMITS,
) -> pa.RecordBatch:
    """Attributes, events and links (DETAIL_SCHEMA) of the spans at these positions, one row each, in this
    order.

    ``record``, ``offset``, ``length``: uint32 arrays of equal length, as in SPAN_SCHEMA. Of equal attribute
    keys the last value stays, at the first one's place. Ids as hex, "" for an invalid one. ``limits``: of
    each attribute set, list and text; what was left out of a span's own texts is named among its attributes.
    Raises MalformedOtlp, ValueError for a position outside of its payload.
    """
    positions = [np.ascontiguousarray(column, dtype=np.uint32) for column in (record, offset, length)]
    if len({len(column) for column in positions}) != 1:
        raise ValueError("record, offset and length differ in length")
    rows: pa.RecordBatch = _decoder.decode_details(payloads, *positions, limits)
    return rows


def weigh(topic: str, payload: bytes) -> Weight:
    """How many items a payload of ``topic`` has, and what their rows take; none is made. Raises
    MalformedOtlp.
    """
    weight: Weight = _decoder.weigh(topic, payload)
    return weight


def mend(topic: str, payload: bytes) -> Mended:
    """A payload of ``topic`` without what is wrong in some of its items.

    A text that is not UTF-8 gets U+FFFD for each maximal subpart of an ill-formed sequence. A value of an
    attribute (or body) that nests deeper than parsers read becomes the text ``meshflow.cut``. An item that is
    not well-formed in another way is left out; so is a metric, scope or resource with all that it holds.
    These repairs make a payload at most 1 MiB longer, items beyond are left out. Raises MalformedOtlp where
    the outermost message is not well-formed.
    """
    return Mended(*_decoder.mend(topic, payload))


def split(topic: str, request: bytes | Mended, partitions: int, most_bytes: int = sys.maxsize) -> Split:
    """Cut an Export request of ``topic`` into one message per partition, nothing re-encoded but what is not
    well-formed (:func:`mend`); of parts that would take more than ``most_bytes`` only report the size. What a
    request that was mended before has lost is added to the counts.

    Partition: spans and log records by trace id, metrics and log records without a (valid) trace id by
    resource (``schemas.ids``). Spans whose trace id is not 16 bytes or zero, or whose span id is not 8 bytes
    or zero, are left out and counted, as is what can't be mended. Fields of ResourceSpans and ScopeSpans
    (resource, scope, schema URL, unknown ones) go with each part; what holds no items is left out.
    Raises MalformedOtlp, ValueError for an unknown topic or ``partitions`` outside of [1, MAX_PARTITIONS].
    """
    if topic not in topics.TOPICS:
        raise ValueError(f"{topic!r} is not an OTLP topic")
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise ValueError(f"partitions must be 1 to {MAX_PARTITIONS}, not {partitions}")
    mended = request if isinstance(request, Mended) else Mended(request)
    try:
        found = _decoder.split(topic, mended.payload, partitions, most_bytes)
    except MalformedOtlp:
        mended = mend(topic, mended.payload)
        found = _decoder.split(topic, mended.payload, partitions, most_bytes)
    parts, items, bad_trace_ids, bad_span_ids, bytes_, record_bytes = found
    rejected = bad_trace_ids + bad_span_ids + mended.dropped
    reason = _reason(topic, bad_trace_ids, bad_span_ids, mended)
    return Split(parts or {}, items, rejected, reason, bytes_, record_bytes, parts is None, mended.repaired)


def _checked(clusters: Sequence[str], payloads: Sequence[bytes]) -> list[str]:
    if clusters and len(clusters) != len(payloads):
        raise ValueError(f"{len(clusters)} clusters for {len(payloads)} payloads")
    return list(clusters)


_ITEMS = {topics.SPANS: "spans", topics.METRICS: "data points", topics.LOGS: "log records"}


def _reason(topic: str, bad_trace_ids: int, bad_span_ids: int, mended: Mended) -> str:
    reasons = []
    if bad_trace_ids:
        reasons.append(f"{bad_trace_ids} with a trace id that is not 16 bytes or is zero")
    if bad_span_ids:
        reasons.append(f"{bad_span_ids} with a span id that is not 8 bytes or is zero")
    if mended.dropped:
        what = f" ({mended.reason})" if mended.reason else ""
        reasons.append(f"{mended.dropped} that are not well-formed, or are in what is not{what}")
    return f"{_ITEMS[topic]} rejected: {', '.join(reasons)}" if reasons else ""

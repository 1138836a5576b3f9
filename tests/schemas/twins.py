"""Native and reference decoders side by side: the same result, or MalformedOtlp of both."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from schemas import otlp, topics
from schemas.errors import MalformedOtlp
from schemas.logs import LogBatch
from schemas.otlp.limits import Limits
from schemas.points import PointBatch

MALFORMED = "malformed"
LIMITS = Limits(100, 400, 6, 2)
"""So low that noise reaches each of them."""
EXTRA_KEYS = ["k", "http.method", "service.name", "http.status_code"]


def decoders() -> tuple[ModuleType, ModuleType]:
    """Native and reference."""
    return otlp.load("native")[1], otlp.load("reference")[1]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or that the bytes are malformed (and of which record)."""
    try:
        return call()
    except MalformedOtlp as error:
        return MALFORMED, error.record


def assert_equal_batches(first: Any, second: Any) -> None:
    """Both malformed, or equal parts in equal schemas, sound as Arrow has it."""
    if first[0] == MALFORMED or second[0] == MALFORMED:
        assert first == second
        return
    for part, other in zip(first, second, strict=True):
        if isinstance(part, int):
            assert part == other
            continue
        part.validate(full=True)
        assert _bits(part).equals(_bits(other)), f"{part.to_pylist()}\n{other.to_pylist()}"
        assert not isinstance(part, pa.RecordBatch) or part.schema.equals(other.schema)


def compare_decode(payloads: list[bytes], clusters: Sequence[str] = (), limits: Limits = LIMITS) -> Any:
    """Both decoders on TracesData payloads, and on the details of all their spans. Returns what the reference
    said.
    """
    native, reference = decoders()
    result = outcome(lambda: reference.decode_spans(payloads, EXTRA_KEYS, clusters, limits))
    assert_equal_batches(outcome(lambda: native.decode_spans(payloads, EXTRA_KEYS, clusters, limits)), result)
    if result[0] != MALFORMED:
        positions = [result[0][name].to_numpy()[::-1].copy() for name in ("record", "offset", "length")]
        assert_equal_batches(
            *(_details(decoder, payloads, positions, limits) for decoder in (native, reference))
        )
    return result


def compare_items(
    topic: str, payloads: list[bytes], clusters: Sequence[str] = (), limits: Limits = LIMITS
) -> Any:
    """Both decoders on MetricsData or LogsData payloads. Returns the reference's parts, end to end."""
    name = {topics.METRICS: "decode_points", topics.LOGS: "decode_logs"}[topic]
    native, reference = decoders()
    result = outcome(lambda: _parts(getattr(reference, name)(payloads, clusters, limits)))
    assert_equal_batches(outcome(lambda: _parts(getattr(native, name)(payloads, clusters, limits))), result)
    return result


def compare_weight(topic: str, payload: bytes) -> Any:
    """What both decoders say that a payload weighs."""
    found, expected = (outcome(partial(decoder.weigh, topic, payload)) for decoder in decoders())
    assert found == expected
    return expected


def compare_details(span: bytes) -> Any:
    """Both decoders on the details of one Span message."""
    position = [np.array([value], np.uint32) for value in (0, 0, len(span))]
    found, expected = (outcome(partial(_details, decoder, [span], position)) for decoder in decoders())
    assert_equal_batches(found, expected)
    return expected


def compare_split(topic: str, request: bytes, partitions: int) -> Any:
    """Both splitters on a request. Returns what the reference said."""
    for most_bytes in (sys.maxsize, len(request), 200):
        found, expected = (
            outcome(partial(decoder.split, topic, request, partitions, most_bytes)) for decoder in decoders()
        )
        assert found == expected
    return expected


def compare_all(topic: str, request: bytes, partitions: int) -> Any:
    """Everything that can be done with a request of a topic."""
    if topic == topics.SPANS:
        compare_decode([request])
    else:
        compare_items(topic, [request])
    compare_weight(topic, request)
    return compare_split(topic, request, partitions)


def _parts(batch: PointBatch | LogBatch) -> list[Any]:
    own = [getattr(batch, field.name) for field in fields(batch) if field.name != "contexts"]
    return own + [getattr(batch.contexts, field.name) for field in fields(batch.contexts)]


def _bits(part: Any) -> Any:
    """Doubles by their bits, since NaN is not equal to itself."""
    if isinstance(part, pa.RecordBatch):
        columns = [_bits(column) for column in part.columns]
        return pa.RecordBatch.from_arrays(columns, part.schema.names)
    if part.type == pa.float64():
        return pa.array(part.to_numpy().view(np.int64))
    if pa.types.is_list(part.type) and part.type.value_type == pa.float64():
        return pa.ListArray.from_arrays(part.offsets, _bits(part.values))
    return part


def _details(
    decoder: ModuleType, payloads: list[bytes], positions: list[np.ndarray], limits: Limits = LIMITS
) -> list[pa.RecordBatch]:
    return [decoder.decode_details(payloads, *positions, limits)]

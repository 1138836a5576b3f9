"""Native and reference decoders side by side: the same result, or MalformedOtlp of both."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from schemas import otlp, topics
from schemas.errors import MalformedOtlp

MALFORMED = "malformed"
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
        part.validate(full=True)
        assert part.equals(other), f"{part.to_pylist()}\n{other.to_pylist()}"
        assert not isinstance(part, pa.RecordBatch) or part.schema.equals(other.schema)


def compare_decode(payloads: list[bytes]) -> Any:
    """Both decoders on TracesData payloads, and on the details of all their spans. Returns what the reference
    said.
    """
    native, reference = decoders()
    result = outcome(lambda: reference.decode_spans(payloads, EXTRA_KEYS))
    assert_equal_batches(outcome(lambda: native.decode_spans(payloads, EXTRA_KEYS)), result)
    if result[0] != MALFORMED:
        positions = [result[0][name].to_numpy()[::-1].copy() for name in ("record", "offset", "length")]
        assert_equal_batches(*(_details(decoder, payloads, positions) for decoder in (native, reference)))
    return result


def compare_details(span: bytes) -> Any:
    """Both decoders on the details of one Span message."""
    position = [np.array([value], np.uint32) for value in (0, 0, len(span))]
    found, expected = (outcome(partial(_details, decoder, [span], position)) for decoder in decoders())
    assert_equal_batches(found, expected)
    return expected


def compare_split(topic: str, request: bytes, partitions: int) -> Any:
    """Both splitters on a request. Returns what the reference said."""
    found, expected = (outcome(partial(decoder.split, topic, request, partitions)) for decoder in decoders())
    assert found == expected
    return expected


def compare_all(topic: str, request: bytes, partitions: int) -> Any:
    """Everything that can be done with a request of a topic."""
    if topic == topics.SPANS:
        compare_decode([request])
    return compare_split(topic, request, partitions)


def _details(decoder: ModuleType, payloads: list[bytes], positions: list[np.ndarray]) -> list[pa.RecordBatch]:
    return [decoder.decode_details(payloads, *positions)]

"""Messages that are larger than the log's records: cut along items, in bounded pieces."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import otlp, topics
from schemas.otlp.oversize import cut
from tests.schemas.otlp_messages import make_span
from tests.support.examples import examples

RESOURCE = st.integers(0, 3000)
SCOPE = st.integers(0, 2000)
SPANS = st.lists(st.integers(0, 4000), max_size=6)
REQUESTS = st.lists(st.tuples(RESOURCE, st.lists(st.tuples(SCOPE, SPANS), max_size=4)), max_size=5)
"""Bytes of each resource, of each of its scopes, and of their spans."""


def make_request(sizes: list[tuple[int, list[tuple[int, list[int]]]]]) -> bytes:
    data = TracesData()
    number = 0
    for resource_bytes, scopes in sizes:
        resource = data.resource_spans.add()
        resource.resource.attributes.add(key="r").value.string_value = "r" * resource_bytes
        for scope_bytes, spans in scopes:
            scope = resource.scope_spans.add()
            scope.scope.name = "s" * scope_bytes
            for span_bytes in spans:
                number += 1
                scope.spans.append(make_span(span_id=number.to_bytes(8), name="n" * span_bytes))
    return data.SerializeToString()


def spans(message: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    for resource in TracesData.FromString(message).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield (
                    resource.resource.SerializeToString(),
                    scope.scope.SerializeToString(),
                    span.SerializeToString(),
                )


@pytest.mark.parametrize("limit", [1_000_000, 200_000])
def test_memory_is_bounded_when_a_large_resource_is_repeated(limit: int) -> None:
    """2637f36 took 500 MiB for a request of 1 MiB: the resource was copied for each scope."""
    resource_bytes = limit * 48 // 100
    scopes = [(100 + number % 2, [50]) for number in range((1_050_000 - resource_bytes) // 180)]
    message = make_request([(resource_bytes, scopes)])
    tracemalloc.start()
    try:
        pieces, left_out = cut(message, limit)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(pieces) > 1
    assert left_out == 0
    assert peak_bytes < 12 * len(message)


@examples(200)
@given(REQUESTS, st.integers(1000, 9000))
def test_pieces_are_bounded_and_have_every_item_that_fits(
    sizes: list[tuple[int, list[tuple[int, list[int]]]]], limit: int
) -> None:
    message = make_request(sizes)
    pieces, left_out = cut(message, limit)
    assert all(len(piece) <= limit for piece in pieces)
    assert sum(map(len, pieces)) <= 5 * len(message) + limit
    found = [span for piece in pieces for span in spans(piece)]
    wanted = list(spans(message))
    assert len(found) + left_out == len(wanted)
    assert [span for span in wanted if span in found] == found
    if otlp.split(topics.SPANS, message, 1).record_bytes <= limit:
        assert (found, left_out) == (wanted, 0), "receivers take what can be cut"
    elif len(message) > limit:
        assert left_out > 0


@pytest.mark.parametrize("scopes", [1, 500])
def test_a_resource_is_repeated_once_a_piece(scopes: int) -> None:
    """1 MiB with a resource of half of that: each scope had a copy of it, 250 MiB in all."""
    message = make_request([(490_000, [(10, [1000] * (500 // scopes))] * scopes)])
    pieces, left_out = cut(message, 990_000)
    assert (len(pieces), left_out) == (2, 0)
    assert sum(map(len, pieces)) < 2 * len(message)


def test_a_resource_of_more_than_half_a_record_is_left_out_with_its_items() -> None:
    """It would be copied for every few items: 1,000 times for a message of 2 MiB."""
    message = make_request([(1_000_000, [(0, [1000] * 1000)]), (10, [(0, [1000] * 3)])])
    pieces, left_out = cut(message, 1_010_000)
    assert left_out == 1000
    assert [len(list(spans(piece))) for piece in pieces] == [3]
    assert otlp.split(topics.SPANS, message, 4).record_bytes > 1_010_000

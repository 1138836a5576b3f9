"""Native code equals the reference: on real messages, on every oddity of the wire format, and on bytes that
are no OTLP at all.
"""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from schemas import topics
from schemas.ids import resource_partition, trace_partition
from schemas.otlp.limits import DEFAULT_LIMITS
from schemas.otlp.wire import framed
from tests.schemas.noise import make_noise, mutated
from tests.schemas.otlp_messages import SPAN_ID, TRACE_ID, key_values, logs, make_span, make_traces, traces
from tests.schemas.twins import (
    MALFORMED,
    compare_all,
    compare_decode,
    compare_details,
    compare_split,
    decoders,
)
from tests.support.examples import examples

pytestmark = pytest.mark.component("native")
seeds = st.integers(0, 2**64 - 1)
partitions = st.sampled_from([1, 2, 7, 32, 1000])


@examples(40)
@given(st.lists(traces, max_size=2))
def test_decode_real_messages(payloads: list[bytes]) -> None:
    assert compare_decode(payloads)[0] != MALFORMED
    assert compare_decode([b"".join(payloads)])[0] != MALFORMED


@examples(40)
@given(traces, logs, partitions)
def test_split_real_messages(traces_data: bytes, logs_data: bytes, count: int) -> None:
    compare_split(topics.SPANS, traces_data, count)
    compare_split(topics.LOGS, logs_data, count)


@examples(800)
@given(seeds, st.sampled_from(topics.TOPICS), st.sampled_from([0.0, 0.0, 0.02]), partitions)
def test_noise(seed: int, topic: str, malformed: float, count: int) -> None:
    compare_all(topic, make_noise(Random(seed), topic, malformed), count)


@examples(800)
@given(seeds, st.sampled_from(topics.TOPICS), partitions)
def test_mutated_noise(seed: int, topic: str, count: int) -> None:
    random = Random(seed)
    compare_all(topic, mutated(random, make_noise(random, topic)), count)


@examples(100)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    for topic in topics.TOPICS:
        compare_all(topic, data, 3)
    compare_details(data)


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_truncated_at_every_byte(topic: str) -> None:
    for seed in range(3):
        request = max(
            (make_noise(Random(seed * 100 + offset), topic) for offset in range(50)),
            key=lambda noise: len(noise) % 700,
        )
        assert compare_all(topic, request, 3)[0] != MALFORMED
        for end in range(len(request)):
            compare_all(topic, request[:end], 3)


def test_truncated_span_at_every_byte() -> None:
    span = make_span(
        {"http.status_code": 200, "list": ["a", {"b": 1.5}], "größe": b"\xff"},
        name="n",
        events=[Span.Event(name="e", attributes=key_values({"k": "v"}))],
        links=[Span.Link(trace_id=TRACE_ID, span_id=SPAN_ID, attributes=key_values({"k": True}))],
    ).SerializeToString()
    ends = [end for end in range(len(span) + 1) if compare_details(span[:end])[0] != MALFORMED]
    assert ends[0] == 0
    assert ends[-1] == len(span)
    assert len(ends) < len(span) / 5  # only between fields


_ONE = framed(1, b"\x18\x01")  # an ArrayValue of the integer 1

# Hex of fields as they follow each other in a Span, whether it is well-formed, what is odd about it.
ODDITIES = [
    ("0000", False, "field number 0"),
    ("0600", False, "wire type 6"),
    ("fe0700", False, "wire type 7, unknown field"),
    ("8a8080800000", True, "tag of five bytes"),
    ("8a808080800000", False, "tag of six bytes"),
    ("8a8080801000", False, "tag beyond 32 bits"),
    ("faffffff0f00", True, "largest field number"),
    ("50ffffffffffffffffff7f", True, "varint of ten bytes, bits beyond 64"),
    ("50ffffffffffffffffffff01", False, "varint of eleven bytes"),
    ("f807ffffffffffffffffffff01", False, "varint of eleven bytes, unknown field"),
    ("5080", False, "varint cut off"),
    ("0a8080808000", True, "length of five bytes"),
    ("0a808080808000", False, "length of six bytes"),
    ("0affffffff0f", False, "length of 4 GiB"),
    ("0affffffff07", False, "length of 2 GiB"),
    ("0affffffffffffffffff01", False, "negative length"),
    ("3901", False, "fixed64 cut off"),
    ("85010102", False, "fixed32 cut off"),
    ("fb07fc07", True, "group"),
    ("fb070000fc07", True, "field number 0 in a group"),
    ("fb07fc8700", True, "group's end of three bytes"),
    ("fb07f407", False, "group ended by another's end"),
    ("fb07", False, "group without an end"),
    ("fc07", False, "end without a group"),
    ("0b0c", True, "group of a known number"),
    ("0b06000c", False, "wire type 6 in a group"),
    ("2805", True, "varint where a string is known"),
    ("2d01020304", True, "fixed32 where a string is known"),
    ("2a01ff", False, "string that is not UTF-8"),
    ("2a02c080", False, "overlong UTF-8"),
    ("2a03eda080", False, "surrogate in UTF-8"),
    ("2a04f4908080", False, "UTF-8 beyond Unicode"),
    ("2a0100", True, "NUL in a string"),
    ("0a01ff", True, "bytes that are not UTF-8"),
    ("2a016a2a0162", True, "name twice"),
    ("30ffffffffffffffffff01", True, "kind -1"),
    ("308280808010", True, "kind beyond 32 bits"),
    ("7a0218027a03120178", True, "status twice"),
    ("7a021802" + "7a021800", True, "status error, then unset"),
    *(
        (framed(9, body).hex(), well_formed, f"attribute: {what}")
        for body, well_formed, what in [
            (b"", True, "empty"),
            (framed(1, b"k"), True, "no value"),
            (framed(2, b"\x10\x01"), True, "no key"),
            (framed(1, b"error") + framed(2, b"\x10\x01")[:-1], False, "cut off"),
            (
                framed(1, b"error") + framed(2, framed(1, b"x") + b"\x10\x01"),
                True,
                "string and bool, the last counts",
            ),
            (
                framed(1, b"error") + framed(2, b"\x10\x01" + framed(1, b"x")),
                True,
                "bool and string, the last counts",
            ),
            (framed(1, b"error") + framed(2, b"\x10\x01") + framed(2, b""), True, "value twice, merged"),
            (framed(2, b"\x10\x01") + framed(1, b"error"), True, "value before its key"),
            (framed(1, b"k") + framed(1, b"error") + framed(2, b"\x10\x01"), True, "key twice"),
            (framed(1, b"k") + framed(2, framed(5, _ONE) + framed(5, _ONE)), True, "arrays in a row, merged"),
            (
                framed(1, b"k") + framed(2, framed(5, _ONE)) + framed(2, framed(5, _ONE)),
                True,
                "arrays in two values, merged",
            ),
            (
                framed(1, b"k") + framed(2, framed(5, _ONE) + b"\x18\x07" + framed(5, _ONE)),
                True,
                "arrays with an int between",
            ),
            (framed(1, b"k") + framed(2, framed(5, _ONE[:-1])), False, "array cut off"),
            (framed(1, b"k") + framed(2, b"\x40\x05"), True, "string of the profiles' table"),
            (
                framed(1, b"k") + framed(2, framed(5, _ONE) + b"\x40\x05" + framed(5, _ONE)),
                True,
                "arrays with such a string between",
            ),
            (framed(1, b"k" * 127) + framed(2, framed(1, b"v" * 126)), True, "lengths of 127 and 128"),
            (framed(1, b"k" * 128) + framed(2, framed(1, b"v" * 125)), True, "lengths of 128 and 127"),
            (framed(1, b"\xff") + framed(2, framed(1, b"v")), False, "key that is not UTF-8"),
            (framed(1, b"k") + framed(2, framed(1, b"v" * 9 + b"\xff")), False, "value that is not UTF-8"),
            (framed(1, b"k") + framed(2, framed(1, b"v")) + b"\x18\x05", True, "key of the profiles' table"),
        ]
    ),
]


@pytest.mark.parametrize(("fields", "well_formed", "_what"), ODDITIES, ids=[what for _, _, what in ODDITIES])
def test_oddities(fields: str, well_formed: bool, _what: str) -> None:
    span = framed(1, TRACE_ID) + framed(2, SPAN_ID) + bytes.fromhex(fields)
    request = framed(1, framed(2, framed(2, span)))
    assert (compare_details(bytes.fromhex(fields))[0] != MALFORMED) == well_formed
    assert (compare_decode([b"", request])[0] != MALFORMED) == well_formed
    for topic in (topics.SPANS, topics.LOGS):
        compare_split(topic, request, 3)
    # Higher up the same bytes are fields that OTLP does not know, or of other types.
    for outer in (
        bytes.fromhex(fields),
        framed(1, bytes.fromhex(fields)),
        framed(1, framed(2, bytes.fromhex(fields))),
    ):
        for topic in topics.TOPICS:
            compare_all(topic, outer, 3)


@pytest.mark.parametrize("inner", [b"", b"\xfb\x07\xfc\x07", framed(1, b"v")], ids=["empty", "group", "text"])
@pytest.mark.parametrize(
    "nest",
    [
        lambda value: framed(5, framed(1, value)),
        lambda value: framed(6, framed(1, framed(1, b"k") + framed(2, value))),
    ],
)
@pytest.mark.parametrize("shift", [False, True])  # by one level, since a step takes two or three
def test_nesting_limit(inner: bytes, nest: Callable[[bytes], bytes], shift: bool) -> None:
    results = []
    for steps in range(28, 53):
        value = framed(5, framed(1, inner)) if shift else inner
        for _ in range(steps):
            value = nest(value)
        span = framed(1, TRACE_ID) + framed(2, SPAN_ID) + framed(9, framed(1, b"error") + framed(2, value))
        results.append(compare_details(span)[0] != MALFORMED)
        compare_all(topics.SPANS, framed(1, framed(2, framed(2, span))), 2)
        compare_all(topics.LOGS, framed(1, framed(2, framed(2, framed(9, TRACE_ID) + framed(5, value)))), 2)
    assert results[0]
    assert not results[-1]


def test_a_resource_in_pieces() -> None:
    resource = b"".join(
        framed(1, attribute.SerializeToString())
        for attribute in key_values({"service.name": "shop", "host.name": "h"})
    )
    span = framed(2, framed(2, make_span().SerializeToString()))
    half = len(framed(1, key_values({"service.name": "shop"})[0].SerializeToString()))
    whole = framed(1, framed(1, resource) + span)
    pieces = framed(1, framed(1, resource[:half]) + span + framed(1, resource[half:]))
    spans, resources, _, strings, _ = compare_decode([whole, pieces])
    assert spans["resource"].to_pylist() == [0, 0]  # merged, they are the same
    assert strings[resources["instance"][0].as_py()].as_py() == "h"
    torn = framed(1, framed(1, resource[: half - 1]) + span + framed(1, resource[half - 1 :]))
    torn_later = framed(
        1, framed(1, b"") + framed(1, resource[: half - 1]) + span + framed(1, resource[half - 1 :])
    )
    torn_first = framed(
        1, framed(1, b"\x0a\x02") + span + framed(1, b"\x0a\x00")
    )  # the second is well-formed alone as well
    for request in (torn, torn_later, torn_first):
        assert compare_decode([request]) == (MALFORMED, 0)  # well-formed only when joined
    for topic in topics.TOPICS:
        for request in (whole, pieces, torn, torn_later, torn_first):
            compare_split(topic, request, 16)


def test_large_spans() -> None:
    """10 MB of text, 10 MB of attributes, and many that share a key."""
    wide = {f"key-{number}": "v" * 20 for number in range(100_000)}
    for span in (
        make_span({"error": "x" * 10_000_000}),
        make_span(wide),
        make_span([("error", "true")] * 100_000),
    ):
        request = make_traces(span)
        spans, *_ = compare_decode([request], limits=DEFAULT_LIMITS)
        assert len(spans) == 1
        _, items, *_ = compare_split(topics.SPANS, request, 4)
        assert items == 1


def test_hostile_repetition_takes_no_longer_than_its_bytes() -> None:
    """A resource in 100,000 pieces, and 100,000 spans that take a long text from their resource: quadratic
    work would not end.
    """
    native, _ = decoders()
    long = framed(1, key_values({"k": "x" * 1_000_000})[0].SerializeToString())
    pieces = framed(
        1,
        framed(1, framed(1, framed(1, b"key"))) * 100_000
        + framed(1, long)
        + framed(2, framed(2, b"") * 100_000),
    )
    spans, resources, *_ = native.decode_spans([pieces], ["k"])
    assert (len(spans), len(resources)) == (100_000, 1)
    assert spans["attr:k"].unique().to_pylist() == [2]  # after "" and "unknown_service"
    assert native.split(topics.SPANS, pieces, 32)[:4] == ({}, 0, 100_000, 0)


def test_many_resources_and_scopes() -> None:
    payload = b"".join(
        make_traces(make_span(), resource={"service.name": f"s{number % 700}"}) for number in range(1000)
    )
    spans, resources, scopes, *_ = compare_decode([payload])
    assert (len(spans), len(resources), len(scopes)) == (1000, 700, 1)


@given(st.binary(min_size=16, max_size=16).filter(any), st.integers(1, 65536))
def test_trace_partitions(trace_id: bytes, count: int) -> None:
    native, _ = decoders()
    request = make_traces(make_span(trace_id=trace_id), make_span(trace_id=b""))
    parts, *_ = native.split(topics.SPANS, request, count)
    assert list(parts) == [trace_partition(trace_id, count)]


@given(st.lists(st.binary(max_size=40), max_size=4), st.integers(2, 65536))
def test_resource_partitions(names: list[bytes], count: int) -> None:
    native, _ = decoders()
    attributes = [framed(1, b"k") + framed(2, framed(7, name)) for name in names]
    resource = framed(1, b"".join(framed(1, attribute) for attribute in attributes))
    parts, *_ = native.split(topics.LOGS, framed(1, framed(2, framed(2, b"")) + resource), count)
    assert list(parts) == [resource_partition(attributes, count)]
    assert resource_partition(attributes[::-1], count) == resource_partition(attributes, count)

"""Attribute values as text, in details of spans."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from schemas.errors import MalformedOtlp
from schemas.spans import DETAIL_SCHEMA
from tests.schemas.otlp_messages import SPAN_ID, TRACE_ID, key_values, make_span


def _details(decoder: ModuleType, *spans: Span) -> list[dict[str, Any]]:
    payloads = [span.SerializeToString() for span in spans]
    records = np.arange(len(spans), dtype=np.uint32)
    lengths = np.array([len(payload) for payload in payloads], dtype=np.uint32)
    rows = decoder.decode_details(payloads, records, np.zeros_like(records), lengths)
    assert rows.schema == DETAIL_SCHEMA
    result: list[dict[str, Any]] = rows.to_pylist()
    return result


# Go's strconv and encoding/json, and with them the Collector, write these so.
TEXTS: list[tuple[Any, str]] = [
    (None, ""),
    ("größe", "größe"),
    (True, "true"),
    (False, "false"),
    (-(2**63), "-9223372036854775808"),
    (0.0, "0"),
    (-0.0, "-0"),
    (1.0, "1"),
    (0.1, "0.1"),
    (1e6, "1000000"),
    (123456789.125, "123456789.125"),
    (1e20, "100000000000000000000"),
    (1e21, "1e+21"),
    (1.5e300, "1.5e+300"),
    (1e-6, "0.000001"),
    (1e-7, "1e-7"),
    (1.25e-10, "1.25e-10"),
    (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (-123456.789e-12, "-1.23456789e-7"),
    (float("nan"), "NaN"),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    (b"", ""),
    (b"\x00\xff\x10", "AP8Q"),
    ([], "[]"),
    ({}, "{}"),
    ([None, True, 1, 1.0, 1e21, "a", b"\xff", [], {}], '[null,true,1,1,1e+21,"a","/w==",[],{}]'),
    ([float("nan"), float("-inf")], '["NaN","-Infinity"]'),
    ({"b": 1, "a": {"d": [2], "c": None}, "ä": "", "": 0}, '{"":0,"a":{"c":null,"d":[2]},"b":1,"ä":""}'),
    (
        ['"\\/<>&\x00\x08\t\n\x0c\r\x1f\x7f\u2028\u2029é日𝄞'],
        '["\\"\\\\/<>&\\u0000\\b\\t\\n\\f\\r\\u001f\x7f\\u2028\\u2029é日𝄞"]',
    ),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_value_text(decoder: ModuleType, value: Any, text: str) -> None:
    ((pair,),) = (row["SpanAttributes"] for row in _details(decoder, make_span({"k": value})))
    assert pair == ("k", text)


def test_last_value_of_equal_keys_at_the_first_ones_place(decoder: ModuleType) -> None:
    for count in (3, 100):  # few keys are compared one by one, many are hashed
        pairs = [(str(number % (count - 1)), str(number)) for number in range(count)]
        (row,) = _details(decoder, make_span(pairs))
        assert row["SpanAttributes"] == [("0", str(count - 1)), *pairs[1:-1]]


def test_equal_keys_in_a_map_value(decoder: ModuleType) -> None:
    span = make_span({"k": {}})
    span.attributes[0].value.kvlist_value.values.extend(key_values([("a", 1), ("b", 2), ("a", 3)]))
    assert _details(decoder, span)[0]["SpanAttributes"] == [("k", '{"a":3,"b":2}')]


def test_events_and_links(decoder: ModuleType) -> None:
    full = make_span(
        {"k": "v"},
        events=[
            Span.Event(time_unix_nano=1_700_000_000_000_000_001, name="e1", attributes=key_values({"a": 1})),
            Span.Event(time_unix_nano=2**64 - 1, name="e2"),
        ],
        links=[
            Span.Link(
                trace_id=TRACE_ID, span_id=SPAN_ID, trace_state="s", attributes=key_values({"b": [True]})
            ),
            Span.Link(trace_id=bytes(16), span_id=b"short"),
        ],
    )
    first, empty, last = _details(decoder, full, Span(), full)
    assert first == last
    assert first["SpanAttributes"] == [("k", "v")]
    assert [time.value for time in first["Events.Timestamp"]] == [1_700_000_000_000_000_001, 2**63 - 1]
    assert first["Events.Name"] == ["e1", "e2"]
    assert first["Events.Attributes"] == [[("a", "1")], []]
    assert first["Links.TraceId"] == [TRACE_ID.hex(), ""]
    assert first["Links.SpanId"] == [SPAN_ID.hex(), ""]
    assert first["Links.TraceState"] == ["s", ""]
    assert first["Links.Attributes"] == [[("b", "[true]")], []]
    assert set(map(len, empty.values())) == {0}


def test_no_positions(decoder: ModuleType) -> None:
    assert _details(decoder) == []


@pytest.mark.parametrize("position", [(1, 0, 0), (0, 0, 9), (0, 9, 0), (0, 2**32 - 1, 2**32 - 1)])
def test_positions_outside_of_payloads(decoder: ModuleType, position: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="outside of its payload"):
        decoder.decode_details([b"\x00" * 8], *(np.array([value], np.uint32) for value in position))


def test_positions_that_are_no_span(decoder: ModuleType) -> None:
    with pytest.raises(MalformedOtlp) as error:
        decoder.decode_details([b"", b"\x0a\x09"], *(np.array([value], np.uint32) for value in (1, 0, 2)))
    assert error.value.record == 1

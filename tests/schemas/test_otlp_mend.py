"""Requests with something wrong in some items: what is mended, what is left out, what never suffers."""

from collections.abc import Iterator
from random import Random
from types import ModuleType
from typing import Any, cast

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import otlp, topics
from schemas.errors import MalformedOtlp
from schemas.otlp.wire import framed
from tests.schemas.noise import MESSAGES, make_noise, mutated
from tests.schemas.otlp_messages import make_span
from tests.schemas.twins import MALFORMED, compare_all, decoders, outcome

seeds = st.integers(0, 2**64 - 1)
every_topic = pytest.mark.parametrize("topic", topics.TOPICS)
some_bytes = st.lists(
    st.sampled_from([b"a", "é".encode(), "日".encode(), "🙂".encode()])
    | st.binary(max_size=4)
    | st.sampled_from([b"\xf0\x9f\x99", b"\xed\xa0\xbd", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
).map(b"".join)


def compare_mend(topic: str, payload: bytes) -> Any:
    """What both twins make of a payload, and, where they make something, that both read it alike."""
    native, reference = decoders()
    found, expected = (outcome(lambda: twin.mend(topic, payload)) for twin in (native, reference))  # noqa: B023 - called at once
    assert found == expected
    if found[0] != MALFORMED:
        assert compare_all(topic, found[0], 3)[0] != MALFORMED
        if found[1:] == (0, 0):
            assert found[0] == payload
    return found


@pytest.mark.component("native")
@settings(max_examples=600, deadline=None)
@given(seeds, st.sampled_from(topics.TOPICS), st.sampled_from([0.0, 0.02, 0.1]))
def test_twins_mend_noise_alike(seed: int, topic: str, malformed: float) -> None:
    compare_mend(topic, make_noise(Random(seed), topic, malformed))


@pytest.mark.component("native")
@settings(max_examples=600, deadline=None)
@given(seeds, st.sampled_from(topics.TOPICS))
def test_twins_mend_mutated_noise_alike(seed: int, topic: str) -> None:
    random = Random(seed)
    compare_mend(topic, mutated(random, make_noise(random, topic)))


@given(text=some_bytes)
def test_a_text_keeps_all_that_is_utf8(text: bytes) -> None:
    """As Python's errors="replace" has it, which follows the WHATWG Encoding Standard."""
    span = make_span().SerializeToString() + framed(5, text)
    body = framed(1, framed(2, framed(2, span)))
    for decoder in decoders():
        payload, repaired, dropped = decoder.mend(topics.SPANS, body)
        (mended,) = TracesData.FromString(payload).resource_spans[0].scope_spans[0].spans
        assert mended.name == text.decode(errors="replace")
        assert (repaired, dropped) == (int(mended.name.encode() != text), 0)


PLACE, BAD, GOOD = b"<text>", b"<\xe9xt>?", "<\ufffdxt>?"


def full(kind: type[Message]) -> bytes:
    """A message with each string that OTLP has, in each place where it can be, three values deep."""

    def fill(message: Message, values: int) -> None:
        for field in cast(Descriptor, message.DESCRIPTOR).fields:
            if field.message_type:
                if field.message_type.name == "AnyValue" and values == 0:
                    continue
                inner = getattr(message, field.name)
                inner = inner.add() if field.is_repeated else inner
                if field.message_type.name == "AnyValue":
                    fill_value(inner, values - 1)
                else:
                    fill(inner, values)
            elif field.type == FieldDescriptor.TYPE_STRING:
                value = PLACE.decode()
                if field.is_repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)

    def fill_value(value: AnyValue, values: int) -> None:
        if values:
            for kind in ("string_value", "array_value", "kvlist_value"):
                element = value.kvlist_value.values.add(key=PLACE.decode(), value=AnyValue())
                if kind == "string_value":
                    element.value.string_value = PLACE.decode()
                elif kind == "array_value":
                    fill_value(element.value.array_value.values.add(), values - 1)
                else:
                    fill_value(element.value, values - 1)
        else:
            value.string_value = PLACE.decode()

    message = kind()
    fill(message, 3)
    return message.SerializeToString()


def texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        for each in value if field.is_repeated else [value]:
            if field.message_type:
                yield from texts(each)
            elif field.type == FieldDescriptor.TYPE_STRING:
                yield each


def test_every_text_of_otlp_may_have_bad_bytes(decoder: ModuleType) -> None:
    names = set()
    for topic, kind in MESSAGES.items():
        payload = full(kind)
        wrong = payload.replace(PLACE, BAD)
        assert len(PLACE) == len(BAD)
        with pytest.raises(MalformedOtlp):
            decoder.split(topic, wrong, 2)
        body, repaired, dropped = decoder.mend(topic, wrong)
        found = list(texts(kind.FromString(body)))
        assert found == [GOOD] * payload.count(PLACE)
        assert (repaired, dropped) == (len(found), 0)
        names.add(len(found))
    assert min(names) > 20, "resources, scopes, attributes, events, links, exemplars, ..."


def spans_with(*bodies: bytes) -> bytes:
    return framed(1, framed(2, b"".join(framed(2, body) for body in bodies)))


def good_span(number: int) -> bytes:
    return make_span(span_id=number.to_bytes(8), name=f"span {number}").SerializeToString()


WRONG_ITEMS = {
    "a length beyond its end": b"\x0a\x7f",
    "a tag of field 0": b"\x02\x00",
    "an attribute that is no message": framed(9, b"\x0a\x05k"),
    "a group without its end": b"\xa3\x06",
    "a wire type that there is not": b"\x07",
    "groups that nest too deep": b"\xa3\x06" * 200 + b"\xa4\x06" * 200,
}


@pytest.mark.parametrize("wrong", WRONG_ITEMS.values(), ids=WRONG_ITEMS)
def test_an_item_that_is_no_message_is_left_out_alone(decoder: ModuleType, wrong: bytes) -> None:
    payload, repaired, dropped = decoder.mend(
        topics.SPANS, spans_with(good_span(1), wrong, good_span(2)) + spans_with(good_span(3))
    )
    assert payload == spans_with(good_span(1), good_span(2)) + spans_with(good_span(3))
    assert (repaired, dropped) == (0, 1)


def test_what_holds_items_is_left_out_with_them_where_its_end_is_lost(decoder: ModuleType) -> None:
    broken_scope = framed(2, framed(2, good_span(1)) + framed(2, good_span(2)) + b"\x12\x7f")
    whole_scope = framed(2, framed(2, good_span(3)))
    payload, _, dropped = decoder.mend(topics.SPANS, framed(1, broken_scope + whole_scope))
    assert (payload, dropped) == (framed(1, whole_scope), 2)
    bad_resource = framed(1, framed(1, framed(1, b"\x0a\x05k")) + framed(2, framed(2, good_span(1)) * 5))
    payload, _, dropped = decoder.mend(topics.SPANS, bad_resource + spans_with(good_span(2)))
    assert (payload, dropped) == (spans_with(good_span(2)), 5)


def test_of_metrics_the_data_point_is_the_item(decoder: ModuleType) -> None:
    good, bad = framed(1, framed(7, framed(1, b"k"))), framed(1, b"\x3a\x7f")
    metric = framed(1, b"m") + framed(5, good + bad + good)
    broken = framed(1, b"n") + framed(5, good * 3) + b"\x2a\x7f"
    request = framed(1, framed(2, framed(2, metric) + framed(2, broken)))
    payload, repaired, dropped = decoder.mend(topics.METRICS, request)
    assert (repaired, dropped) == (0, 4)
    (kept,) = MetricsData.FromString(payload).resource_metrics[0].scope_metrics[0].metrics
    assert (kept.name, len(kept.gauge.data_points)) == ("m", 2)


@every_topic
def test_a_request_whose_own_frame_is_broken_is_refused(decoder: ModuleType, topic: str) -> None:
    whole = spans_with(good_span(1))
    for broken in (b"\xff", whole[:-1], whole + b"\x0a", whole + b"\x0b", b"not OTLP at all", b"\x00\x01"):
        with pytest.raises(MalformedOtlp):
            decoder.mend(topic, broken)


@pytest.mark.parametrize("kind", ["array", "map"])
@pytest.mark.parametrize("levels", [32, 47, 48, 60, 2_000])
def test_values_that_nest_too_deep_are_cut(kind: str, levels: int) -> None:
    value = framed(1, b"deepest")
    for _ in range(levels):
        value = framed(5, framed(1, value)) if kind == "array" else framed(
            6, framed(1, framed(1, b"k") + framed(2, value))
        )  # fmt: skip
    record = framed(5, value)
    request = framed(1, framed(2, framed(2, record) + framed(2, framed(5, framed(1, b"beside")))))
    is_deep = levels * (2 if kind == "array" else 3) + 4 > 100
    payloads = set()
    for decoder in decoders():
        payload, repaired, dropped = decoder.mend(topics.LOGS, request)
        assert (repaired, dropped) == (int(is_deep), 0)
        records = LogsData.FromString(payload).resource_logs[0].scope_logs[0].log_records
        assert [b"meshflow.cut" in payload, len(records)] == [is_deep, 2]
        assert records[1].body.string_value == "beside"
        payloads.add(payload)
    assert len(payloads) == 1


def test_repairs_make_a_request_little_longer(decoder: ModuleType) -> None:
    """A million bad bytes would be three million."""
    large = make_span().SerializeToString() + framed(5, b"\xff" * 400_000)
    request = spans_with(good_span(1), large, large, good_span(2))
    payload, repaired, dropped = decoder.mend(topics.SPANS, request)
    assert (repaired, dropped) == (1, 1)
    assert len(payload) < len(request) + (1 << 20)
    kept = TracesData.FromString(payload).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in kept][::2] == ["span 1", "span 2"]


def test_a_split_says_what_was_mended() -> None:
    bad_text = make_span().SerializeToString() + framed(5, b"caf\xe9")
    split = otlp.split(topics.SPANS, spans_with(good_span(1), bad_text, b"\x0a\x7f"), 4)
    assert (split.items, split.rejected, split.repaired) == (2, 1, 1)
    assert split.reason == "spans rejected: 1 that are not well-formed, or are in what is not"
    assert otlp.split(topics.SPANS, spans_with(good_span(1)), 4).repaired == 0
    nothing = otlp.split(topics.SPANS, spans_with(b"\x0a\x7f"), 1)
    assert (nothing.parts, nothing.items, nothing.rejected) == ({}, 0, 1)


@settings(max_examples=200, deadline=None)
@given(seeds, st.sampled_from(["text", "item"]), st.integers(0, 9))
def test_the_rest_of_a_request_never_suffers(seed: int, fault: str, place: int) -> None:
    """Whatever stands in one span, the others come out byte for byte."""
    random = Random(seed)
    bad = good_span(0)
    bad = mutated(random, bad) if fault == "item" else bad + framed(5, random.randbytes(9))
    bodies = [good_span(number) for number in range(1, 10)]
    bodies.insert(place, bad)
    request = spans_with(*bodies)
    for decoder in decoders():
        payload, _, dropped = decoder.mend(topics.SPANS, request)
        kept = [body for number, body in enumerate(bodies) if number != place]
        assert payload.endswith(b"".join(framed(2, body) for body in kept[place:]))
        assert all(framed(2, body) in payload for body in kept)
        assert dropped <= 1

"""What payloads weigh as rows: native equals the reference, and no decoder makes more than it may."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.errors import BatchTooLarge, MalformedOtlp
from schemas.otlp.limits import DETAIL_BYTES, ITEM_BYTES, Limits, Weight
from schemas.otlp.picking import pick
from schemas.otlp.wire import framed
from tests.schemas.otlp_messages import logs, metrics, traces
from tests.schemas.twins import compare_items, compare_weight, decoders
from tests.support.examples import examples

native = pytest.mark.component("native")


def decode(decoder: ModuleType, topic: str, payloads: list[bytes], limits: Limits) -> int:
    """How many items a decoder makes."""
    if topic == topics.SPANS:
        return int(decoder.decode_spans(payloads, [], (), limits)[0].num_rows)
    name = {topics.METRICS: "decode_points", topics.LOGS: "decode_logs"}[topic]
    return len(getattr(decoder, name)(payloads, (), limits))


def empty(topic: str, items: int) -> bytes:
    """Items of two bytes each."""
    if topic != topics.METRICS:
        return framed(1, framed(2, b"\x12\x00" * items))
    return framed(1, framed(2, framed(2, framed(5, b"\x0a\x00" * items))))


@native
@examples(60)
@given(
    st.one_of(
        st.tuples(st.just(topics.SPANS), traces),
        st.tuples(st.just(topics.METRICS), metrics),
        st.tuples(st.just(topics.LOGS), logs),
    )
)
def test_a_batch_of_its_weight_is_made_and_none_of_less(case: tuple[str, bytes]) -> None:
    topic, payload = case
    weight = compare_weight(topic, payload)
    for decoder in decoders():
        assert decode(decoder, topic, [payload], Limits(batch_bytes=weight.bytes)) == weight.items
        if weight.items:
            with pytest.raises(BatchTooLarge):
                decode(decoder, topic, [payload], Limits(batch_bytes=weight.bytes - 1))
            with pytest.raises(BatchTooLarge):
                decode(decoder, topic, [payload, payload], Limits(batch_bytes=2 * weight.bytes - 1))


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_an_empty_item_weighs_as_much_as_any(decoder: ModuleType, topic: str) -> None:
    assert decoder.weigh(topic, empty(topic, 1_000)) == Weight(1_000, 1_000 * ITEM_BYTES)
    assert decoder.weigh(topic, b"") == Weight(0, 0)
    with pytest.raises(MalformedOtlp):
        decoder.weigh(topic, b"\x0a\x05")


def test_events_and_links_weigh_something(decoder: ModuleType) -> None:
    span = framed(2, b"\x5a\x00" * 30 + b"\x6a\x00" * 20)
    payload = framed(1, framed(2, span))
    assert decoder.weigh(topics.SPANS, payload) == Weight(1, ITEM_BYTES + 50 * DETAIL_BYTES)
    with pytest.raises(BatchTooLarge):
        decoder.decode_spans([payload], [], (), Limits(batch_bytes=50 * DETAIL_BYTES))


@examples(60)
@given(
    st.one_of(st.tuples(st.just(topics.METRICS), metrics), st.tuples(st.just(topics.LOGS), logs)), st.data()
)
def test_items_are_picked_by_their_numbers(case: tuple[str, bytes], data: st.DataObject) -> None:
    topic, payload = case
    decoder = decoders()[1]
    name = {topics.METRICS: "points", topics.LOGS: "logs"}[topic]
    decoded = getattr(decoder, f"decode_{name}")
    items = getattr(decoded([payload]), name)
    chosen = data.draw(
        st.sets(st.integers(0, max(items.num_rows - 1, 0))) if items.num_rows else st.just(set())
    )
    picked = getattr(decoded([pick(topic, payload, chosen)]), name)
    columns = [
        column
        for column in ("time_ns", "trace_hi", "span_id", "body", "value", "kind")
        if column in items.schema.names
    ]
    expected = items.take(sorted(chosen)).select(columns) if chosen else items.slice(0, 0).select(columns)
    assert str(picked.select(columns).to_pylist()) == str(expected.to_pylist())
    compare_items(topic, [pick(topic, payload, chosen)])


@examples(40)
@given(traces, st.data())
def test_spans_are_picked_by_their_numbers(payload: bytes, data: st.DataObject) -> None:
    decoder = decoders()[1]
    spans = decoder.decode_spans([payload], [])[0]
    chosen = data.draw(st.sets(st.integers(0, spans.num_rows - 1)) if spans.num_rows else st.just(set()))
    columns = ["trace_hi", "trace_lo", "span_id", "start_ns", "end_ns"]
    picked = decoder.decode_spans([pick(topics.SPANS, payload, chosen)], [])[0].select(columns)
    assert picked.to_pylist() == [
        row for n, row in enumerate(spans.select(columns).to_pylist()) if n in chosen
    ]

"""What becomes of a batch of foreign records: one record for each partition, each item in its trace's, what
is wrong counted.
"""

from collections import Counter

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from benchmarks.load import make_requests
from processors.isolation import Breaker
from processors.repartition import Source, split_batch
from schemas import otlp
from schemas.errors import ProcessingFailed
from schemas.records import Commit, Record, TopicPartition
from schemas.topics import SPANS

PARTITIONS = 4


def breaker(in_a_row: int = 100) -> Breaker:
    return Breaker(in_a_row, 1.0, 1_000)


def record(offset: int, payload: bytes, **headers: int) -> Record:
    return Record(offset, 0, payload, len(payload), headers=headers)


def spans(payload: bytes) -> Counter[bytes]:
    return Counter(
        resource.resource.SerializeToString() + span.SerializeToString()
        for resource in TracesData.FromString(payload).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


def test_each_span_goes_to_the_partition_of_its_trace_once() -> None:
    requests = make_requests(500, 5, 5, 20, seed=1)
    appends, items, letters = split_batch(
        SPANS, [record(number, request) for number, request in enumerate(requests)], 0, PARTITIONS, breaker()
    )
    assert (items, letters) == (500, [])
    assert len({append.tp for append in appends}) == len(appends) <= PARTITIONS
    assert sum((spans(append.value) for append in appends), Counter()) == sum(
        (spans(request) for request in requests), Counter()
    )
    for append in appends:
        assert list(otlp.split(SPANS, append.value, PARTITIONS).parts) == [append.tp.partition]
        assert append.headers == {}


def test_what_is_wrong_is_counted_once_and_set_aside() -> None:
    good = TracesData()
    for trace_id, span_id in (
        (b"t" * 16, b"s" * 8),
        (b"t" * 5, b"s" * 8),
        (bytes(16), b"s" * 8),
        (b"t" * 16, bytes(8)),
    ):
        good.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=span_id)
    records = [
        record(0, b""),
        record(1, b"\xff\xff not OTLP"),
        record(2, good.SerializeToString(), refused=2),
        Record(3, 0, b"\0 not packed", 100, "lz4"),
    ]
    appends, items, letters = split_batch(SPANS, records, 7, PARTITIONS, breaker())
    assert [letter.offset for letter in letters] == [1, 3]
    assert items == 1
    (only,) = appends
    assert only.headers == {"rejected": 5, "refused": 2, "lost": 7}
    (alone,) = split_batch(SPANS, [], 7, PARTITIONS, breaker())[0]
    assert (alone.value, alone.headers) == (b"", {"lost": 7})
    assert split_batch(SPANS, [record(0, b"")], 0, PARTITIONS, breaker()) == ([], 0, [])


def test_labels_stay_with_their_items() -> None:
    requests = make_requests(200, 5, 5, 20, seed=1)
    tenants: tuple[dict[str, str], ...] = ({}, {"tenant": "a"}, {"tenant": "b"})
    records = [
        Record(number, 0, request, len(request), labels=tenants[number % 3])
        for number, request in enumerate(requests)
    ]
    appends, _, _ = split_batch(SPANS, records, 0, PARTITIONS, breaker())
    for number, labels in enumerate(tenants):
        assert sum((spans(append.value) for append in appends if append.labels == labels), Counter()) == sum(
            (spans(request) for request in requests[number::3]), Counter()
        )


def test_a_source_counts_what_it_could_not_read() -> None:
    source = Source(TopicPartition("foreign", 0), SPANS, Commit(3, ""), 5, 10, breaker=breaker())
    source.add(record(5, b"x"))
    assert source.take_batch() == ([record(5, b"x")], 2, Commit(6, ""))
    assert source.take_batch() == ([], 0, Commit(6, ""))


def test_what_was_lost_is_committed_also_where_no_record_follows() -> None:
    """Else the next worker counts the same records as lost again."""
    source = Source(TopicPartition("foreign", 0), SPANS, Commit(3, ""), 5, 5, breaker=breaker())
    records, lost, commit = source.take_batch()
    assert (records, lost) == ([], 2)
    assert Source(TopicPartition("foreign", 0), SPANS, commit, 5, 5, breaker=breaker()).take_batch()[1] == 0


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


def test_whatever_a_record_does_it_is_set_aside_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = make_requests(100, 5, 5, 20, seed=1)
    real = otlp.split

    def odd(topic: str, request: bytes, partitions: int) -> otlp.Split:
        if request == requests[1]:
            raise Panic("called unwrap on None")
        return real(topic, request, partitions)

    monkeypatch.setattr(otlp, "split", odd)
    records = [record(number, request) for number, request in enumerate(requests)]
    _, items, letters = split_batch(SPANS, records, 0, PARTITIONS, breaker())
    assert [(letter.offset, letter.reason) for letter in letters] == [(1, "Panic: called unwrap on None")]
    assert items == 80
    with pytest.raises(ProcessingFailed, match="3 records in a row"):
        split_batch(SPANS, [records[1]] * 3, 0, PARTITIONS, breaker(3))

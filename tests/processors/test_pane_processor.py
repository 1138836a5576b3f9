"""A pane goes on without the records that fail, whatever they do and in whichever stage; every reader finds
the same ones. The signal is a small one: a record's bytes are numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.pane_processor import PaneProcessor, Signal
from processors.panes import Emit
from processors.settings import BreakerSettings, ProcessorSettings
from processors.stage import PaneView, Payloads, Tables, Window
from schemas.errors import MalformedOtlp, ProcessingFailed
from schemas.otlp.limits import Weight
from schemas.records import Commit, Record, TopicPartition
from schemas.tables import SCHEMAS
from schemas.units import NS_PER_S
from tests.support.examples import examples

TP = TopicPartition("otlp_spans", 0)
SETTINGS = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=4), wait=1)
T0_NS = 1_800_000_000 * NS_PER_S

MALFORMED, AT_CLOSE, AT_DECIDE, FOR_OTHERS, PANIC = 250, 251, 252, 253, 254
"""Items that make trouble: when they are decoded, when their pane closes or is decided, when a pane around
theirs is decided, and as a Rust panic.
"""


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


@dataclass(frozen=True)
class Items:
    """A batch."""

    values: list[int]


@dataclass(frozen=True)
class Seen:
    """What a pane leaves for others."""

    values: list[int]


def decode(payloads: Sequence[bytes]) -> Items:
    values = [value for payload in payloads for value in payload]
    if MALFORMED in values:
        raise MalformedOtlp("a malformed record")
    return Items(values)


class Numbers:
    """Stores a pane's items as trace ids, with the sum of all that the window holds."""

    def close(self, pane: PaneView[Items]) -> Tables:
        values = pane.batch.values
        if AT_CLOSE in values:
            raise pa.ArrowInvalid("an odd number")
        if PANIC in values:
            raise Panic("called unwrap on None")
        pane.seen.leave(Seen(values))
        return {}

    def decide(self, pane: PaneView[Items], window: Window) -> Tables:
        values = pane.batch.values
        if AT_DECIDE in values:
            raise OverflowError("2 GiB")
        if any(
            FOR_OTHERS in seen.values for number, seen in window.seen(Seen).items() if number != pane.number
        ):
            raise RuntimeError("a neighbour")
        pane.fates.kept += len(values)
        pane.fates.stored += len(values)
        total = sum(sum(seen.values) for seen in window.seen(Seen).values())
        schema = SCHEMAS["otel_traces_trace_id_ts"]
        rows = [
            {"TraceId": f"{value}/{total}", "Start": 0, "End": 0, "LogTime": pane.time.start_s}
            for value in values
        ]
        return {"otel_traces_trace_id_ts": pa.Table.from_pylist(rows, schema=schema)}


def weigh(payload: bytes) -> Weight:
    record = Record(0, 0, payload, len(payload))
    return Weight(len(decode(Payloads([record])).values), 0)


def processor(commit: Commit | None = None, given: ProcessorSettings = SETTINGS) -> PaneProcessor[Items]:
    signal: Signal[Items] = Signal(decode, (Numbers(),), weigh, lambda payload, _: payload, wait=given.wait)
    return PaneProcessor(TP, given, signal, commit)


def log_of(panes: Sequence[Sequence[bytes]]) -> list[Record]:
    """A log with the payloads of each pane, and ticks that settle it."""
    values = [(number, value) for number, payloads in enumerate(panes) for value in [b"", *payloads]]
    values += [(len(panes) + tick, b"") for tick in range(4)]
    return [
        Record(offset, T0_NS + number * NS_PER_S, value, len(value))
        for offset, (number, value) in enumerate(values)
    ]


def tables(emits: Sequence[Emit]) -> dict[str, pa.Table]:
    """Token -> rows; one that comes twice must come with equal rows."""
    found: dict[str, pa.Table] = {}
    for emit in emits:
        for block in emit.blocks:
            assert found.setdefault(block.token, block.rows).equals(block.rows), block.token
    return found


def letters(emits: Sequence[Emit]) -> dict[int, str]:
    return {letter.offset: letter.reason for emit in emits for letter in emit.dead_letters}


def stored(emits: Sequence[Emit]) -> list[str]:
    return [
        text
        for token, rows in tables(emits).items()
        if token.startswith("otel")
        for text in rows["TraceId"].to_pylist()
    ]


def ledger(emits: Sequence[Emit], column: str) -> int:
    return sum(sum(rows[column].to_pylist()) for token, rows in tables(emits).items() if "ledger" in token)


@pytest.mark.parametrize("trouble", [MALFORMED, AT_CLOSE, AT_DECIDE, PANIC])
def test_a_pane_goes_on_without_the_record_that_fails(trouble: int) -> None:
    log = log_of([[b"\1\2", bytes([3, trouble, 4]), b"\5"], [b"\6"]])
    (culprit,) = [record.offset for record in log if trouble in record.payload]
    emits = processor().feed(log)
    assert letters(emits).keys() == {culprit}
    assert [text.split("/")[0] for text in stored(emits)] == ["1", "2", "5", "6"]
    lost = 1 if trouble == MALFORMED else 3  # what is malformed can't be counted
    assert (ledger(emits, "rejected"), ledger(emits, "kept")) == (lost, 4)
    assert ledger(emits, "received") == 4 + lost


def test_later_panes_look_back_at_a_pane_without_its_culprits() -> None:
    odd, plain = log_of([[b"\1", bytes([AT_CLOSE])], [b"\2"]]), log_of([[b"\1", b""], [b"\2"]])
    assert stored(processor().feed(odd)) == stored(processor().feed(plain)) == ["1/3", "2/3"]


def test_a_pane_is_decided_without_the_panes_around_that_make_it_fail() -> None:
    emits = processor().feed(log_of([[b"\1"], [bytes([FOR_OTHERS])], [b"\2"], [b"\3"]]))
    assert letters(emits) == {}
    assert stored(emits) == ["1/1", f"{FOR_OTHERS}/{1 + FOR_OTHERS + 2}", "2/6", "3/6"]


LOGS = st.lists(
    st.lists(
        st.lists(
            st.sampled_from([1, 2, 3, 4, 5, 6, 7, MALFORMED, AT_CLOSE, AT_DECIDE, PANIC, FOR_OTHERS]),
            max_size=3,
        ).map(bytes),
        max_size=5,
    ),
    min_size=1,
    max_size=10,
).map(log_of)


@examples(60)
@given(LOGS, st.data())
def test_a_second_reader_finds_the_same_culprits_and_the_same_blocks(
    log: list[Record], data: st.DataObject
) -> None:
    whole = processor().feed(log)
    stop = data.draw(st.integers(0, len(log)))
    before = processor().feed(log[:stop])
    commits = [emit.commit for emit in before]
    commit = data.draw(st.sampled_from([None, *commits[-2:]]))
    second = processor(commit)
    after = second.feed(log[second.offset or 0 :])
    emitted = [*before, *after]
    assert tables(emitted) == tables(whole)
    assert letters(emitted) == letters(whole)
    items = sum(len(record.payload) for record in log if MALFORMED not in record.payload)
    malformed = sum(MALFORMED in record.payload for record in log)
    assert ledger(whole, "received") == items + malformed
    assert ledger(whole, "kept") == len(stored(whole))


def test_processing_stops_loudly_where_every_record_fails() -> None:
    few = SETTINGS.model_copy(update={"breaker": BreakerSettings(in_a_row=20)})
    log = log_of([[bytes([AT_CLOSE])] * 30])
    with pytest.raises(ProcessingFailed, match="20 records in a row could not be processed"):
        processor(given=few).feed(log)
    malformed = log_of([[bytes([MALFORMED])] * 30])
    assert len(letters(processor(given=few).feed(malformed))) == 30


def test_a_record_over_the_limit_of_a_pane_that_panics_when_counted_is_set_aside() -> None:
    log = log_of([[b"\1", bytes([2, PANIC])]])
    log[2] = replace(log[2], size=2 << 20)
    emits = processor(given=SETTINGS.model_copy(update={"pane_bytes": 1 << 20})).feed(log)
    assert letters(emits).keys() == {2}
    assert ledger(emits, "kept") == 1

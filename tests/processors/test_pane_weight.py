"""What a pane's items take as rows is bounded before they are rows: two bytes of OTLP become some hundred."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.logs.signal import log_processor
from processors.panes import LARGEST_RECORD_BYTES, Emit, Pane
from processors.points.signal import point_processor
from processors.readers.partition import Processor
from processors.settings import ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.otlp.limits import ITEM_BYTES
from schemas.otlp.wire import framed
from schemas.records import Record, TopicPartition
from tests.support.examples import examples
from tests.support.span_log import KEEP_ALL

MIB = 1 << 20
MOST = MIB // ITEM_BYTES
TIME = 1_700_000_000_000_000_000


def processor(topic: str, pane_bytes: int) -> Processor:
    given = ProcessorSettings(partitions=1, pane_bytes=pane_bytes)
    tp = TopicPartition(topic, 0)
    if topic == topics.SPANS:
        return span_processor(tp, given, KEEP_ALL)
    return point_processor(tp, given) if topic == topics.METRICS else log_processor(tp, given)


def empty(topic: str, items: int) -> bytes:
    """Items of two bytes each."""
    if topic != topics.METRICS:
        return framed(1, framed(2, b"\x12\x00" * items))
    return framed(1, framed(2, framed(2, framed(5, b"\x0a\x00" * items))))


def run(topic: str, payloads: Sequence[bytes], pane_bytes: int = MIB) -> list[Emit]:
    log = [Record(number, TIME, payload, len(payload)) for number, payload in enumerate(payloads)]
    return processor(topic, pane_bytes).feed([*log, Record(len(log), TIME + 10**12, b"", 0)])


def ledger(emits: Sequence[Emit]) -> dict[str, int]:
    rows = [
        row
        for emit in emits
        for block in emit.blocks
        if block.table == "ledger"
        for row in block.rows.to_pylist()
    ]
    return {name: sum(row[name] for row in rows) for name in ("received", "rejected", "duplicate", "stored")}


def peak_mib() -> int:
    """Most that this process has had since :func:`forget_peak`."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Start anew; what there is now, MiB."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak_mib()


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_a_record_of_empty_items_is_set_aside_and_others_are_processed(topic: str) -> None:
    """16 MB that would be 8 million rows, 1 to 2 GiB."""
    before = forget_peak()
    emits = run(topic, [empty(topic, 10), empty(topic, 8_000_000), empty(topic, 20)], 32 * MIB)
    assert peak_mib() - before < 300
    (letter,) = [letter for emit in emits for letter in emit.dead_letters]
    assert letter.offset == 1
    assert "8000000 items (processing.pane_bytes)" in letter.reason
    counted = ledger(emits)
    assert counted["received"] == 8_000_030
    processed = counted["received"] - 8_000_000
    if topic == topics.SPANS:
        assert counted["rejected"] == 8_000_030, "spans without ids are rejected in any case"
    else:
        assert counted["rejected"] == 8_000_000
        assert counted["stored"] + counted["duplicate"] == processed


@examples(25)
@given(st.lists(st.integers(0, MOST + MOST // 2), min_size=1, max_size=8))
def test_records_that_fit_are_taken_in_their_order_and_others_set_aside(sizes: list[int]) -> None:
    left, over = MOST, []
    for number, items in enumerate(sizes):
        if items > left:
            over.append(number)
        else:
            left -= items
    for _ in range(2):
        emits = run(topics.LOGS, [empty(topics.LOGS, items) for items in sizes])
        assert sorted(letter.offset for emit in emits for letter in emit.dead_letters) == over
        assert ledger(emits)["rejected"] == sum(sizes[number] for number in over)
        assert ledger(emits)["received"] == sum(sizes)


def test_a_first_record_over_the_panes_bytes_is_taken_up_to_what_receivers_take() -> None:
    big = framed(1, framed(2, framed(2, b"\x2a" + framed(1, b"x" * (2 * MIB))[1:])))
    pane = Pane(0, 0, 0)
    for number, size in enumerate([LARGEST_RECORD_BYTES + 1, 5, LARGEST_RECORD_BYTES]):
        pane = Pane(number, 0, 0)
        pane.add(Record(number, TIME, big, size), MIB, lambda _: 7)
        assert bool(pane.records) == (size <= LARGEST_RECORD_BYTES)
        assert pane.surplus_items == (0 if pane.records else 7)


def test_pane_bytes_has_an_upper_bound() -> None:
    assert ProcessorSettings(pane_bytes=1 << 30).limits.batch_bytes == 1 << 30
    with pytest.raises(ValidationError):
        ProcessorSettings(pane_bytes=(1 << 30) + 1)
    with pytest.raises(ValidationError):
        ProcessorSettings(pane_bytes=MIB - 1)

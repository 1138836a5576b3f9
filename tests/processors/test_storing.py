"""Blocks that are too large go in halves, rows that the database refuses are set aside and counted, and a
second reader does the same.
"""

from dataclasses import replace
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from processors import pane_processor
from processors.cutting import cut
from processors.ledger import Fates, ledger
from processors.logs.signal import log_processor
from processors.panes import Pane
from processors.points.signal import point_processor
from processors.points.store import TABLES
from processors.readers.partition import Processor
from processors.settings import ProcessorSettings
from processors.spans.signal import span_processor
from processors.storing import halves, write_blocks
from schemas.errors import ProcessingFailed, SinkRejected, SinkTooLarge, SinkUnavailable, SinkUnusable
from schemas.records import Record, TopicPartition
from schemas.tables import SCHEMAS, Block
from schemas.topics import LOGS, METRICS, SPANS, TOPICS
from tests.support.span_log import KEEP_ALL, Span
from tests.support.span_log import payload as span_payload

TP = TopicPartition("otlp_spans", 3)
TABLE = "otel_traces_trace_id_ts"


class Database:
    """Takes blocks of at most ``most`` rows, without rows of the ids in ``refused``; tokens are known."""

    def __init__(self, most: int = 1 << 30, refused: frozenset[str] = frozenset()) -> None:
        self.most = most
        self.refused = refused
        self.blocks: dict[str, Block] = {}

    def write(self, block: Block) -> None:
        if block.table == TABLE and self.refused & set(block.rows["TraceId"].to_pylist()):
            raise SinkRejected("VALUE_IS_OUT_OF_RANGE")
        if block.rows.num_rows > self.most:
            raise SinkTooLarge("TOO_MANY_BYTES")
        known = self.blocks.setdefault(block.token, block)
        assert known.rows.equals(block.rows)

    def close(self) -> None: ...

    def ids(self) -> list[str]:
        return [
            str(text)
            for block in self.blocks.values()
            if block.table == TABLE
            for text in block.rows["TraceId"].to_pylist()
        ]


def ids_block(ids: list[str], table: str = TABLE, pane: int = 7) -> Block:
    rows = pa.Table.from_pylist(
        [{"TraceId": text, "Start": 0, "End": 0, "LogTime": 0} for text in ids], schema=SCHEMAS[TABLE]
    )
    return Block(table, TP, pane, rows, "5+0", first_offset=41)


def ledger_block(kept: int, pane: int = 7) -> Block:
    rows = ledger(TP, Pane(pane, 0, 41), Fates(kept=kept, stored=kept))
    return Block("ledger", TP, pane, rows, "5+0", first_offset=41)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_all_rows_but_the_refused_ones_are_stored_once_however_often(bad: list[bool], most: int) -> None:
    ids = [str(number) for number in range(len(bad))]
    refused = frozenset(text for text, is_bad in zip(ids, bad, strict=True) if is_bad)
    database = Database(most, refused)
    first = write_blocks(database, [ids_block(ids)])
    again = write_blocks(database, [ids_block(ids)])
    assert first == again
    assert sorted(database.ids()) == sorted(set(ids) - refused)
    assert len(first) == bool(refused)
    for letter in first:
        assert letter.offset == 41
        assert f"refuses {len(refused)} of {len(ids)} rows of {TABLE}:otlp_spans:3:7:5+0" in letter.reason


class Spans(Database):
    """Refuses rows by TraceId in blocks that count as items."""

    def write(self, block: Block) -> None:
        if block.table == "otel_traces" and self.refused & set(block.rows["TraceId"].to_pylist()):
            raise SinkRejected("a constraint")
        self.blocks[block.token] = block


def test_refused_items_are_rejected_in_the_ledger_and_not_stored() -> None:
    database = Spans(refused=frozenset({"b"}))
    write_blocks(database, [ids_block(["a", "b", "c"], "otel_traces"), ledger_block(3)])
    (row,) = database.blocks["ledger:otlp_spans:3:7:5+0"].rows.to_pylist()
    assert (row["received"], row["rejected"], row["kept"], row["stored"]) == (3, 1, 2, 2)
    assert row["received"] == row["rejected"] + row["duplicate"] + row["kept"] + row["dropped"]


def test_a_table_that_refuses_everything_stops_processing() -> None:
    ids = [str(number) for number in range(500)]
    database = Database(refused=frozenset(ids))
    with pytest.raises(ProcessingFailed, match="100 rows in a row"):
        write_blocks(database, [ids_block(ids)])


@pytest.mark.parametrize("error", [SinkUnavailable("away"), SinkUnusable("access denied")])
def test_what_is_no_fault_of_rows_is_not_cut(error: Exception) -> None:
    class Away(Database):
        tries = 0

        def write(self, block: Block) -> None:
            self.tries += 1
            raise error

    database = Away()
    with pytest.raises(type(error)):
        write_blocks(database, [ids_block(["a", "b"])])
    assert database.tries == 1


def test_tokens_of_halves_are_all_different() -> None:
    block = ids_block([str(number) for number in range(8)])
    parts = [part for half in halves(block) for part in halves(half)]
    tokens = [block.token, *(half.token for half in halves(block)), *(part.token for part in parts)]
    assert len(set(tokens)) == len(tokens) == 7


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("cut_bytes", [200, 1 << 30], ids=["many blocks", "one block"])
def test_a_refused_row_is_a_letter_with_its_item_alone(
    topic: str, cut_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The items of three records, of which the database refuses some: each record gives a letter, one
    for each block.
    """
    monkeypatch.setattr(pane_processor, "cut", partial(cut, limit_bytes=cut_bytes))
    records = [
        Record(number, TIME_NS, payload, len(payload)) for number, payload in enumerate(payloads(topic))
    ]
    bad = {"0-1", "2-0", "2-2"}
    database = Picky(bad)
    (emit,) = processor_of(topic).feed([*records, Record(3, TIME_NS + 10**12, b"", 0)])[-1:]
    letters = [letter for letter in write_blocks(database, emit.blocks) if letter.record.payload]
    assert write_blocks(Picky(bad), emit.blocks)
    assert {letter.offset for letter in letters} == {0, 2}
    assert database.stored == {f"{record}-{item}" for record in range(3) for item in range(3)} - bad
    assert database.ledger["rejected"] == 3
    again = Picky(set())
    replayed = [
        replace(letter.record, offset=number, append_time_ns=TIME_NS) for number, letter in enumerate(letters)
    ]
    (emit,) = processor_of(topic).feed([*replayed, Record(9, TIME_NS + 10**12, b"", 0)])[-1:]
    assert write_blocks(again, emit.blocks) == []
    assert again.stored == bad, "what the letters have is what was refused, and nothing else"


TIME_NS = 1_700_000_000_000_000_000
ONE = ProcessorSettings(partitions=1)


def processor_of(topic: str) -> Processor:
    tp = TopicPartition(topic, 0)
    if topic == SPANS:
        return span_processor(tp, ONE, KEEP_ALL)
    return point_processor(tp, ONE) if topic == METRICS else log_processor(tp, ONE)


def payloads(topic: str) -> list[bytes]:
    """Three records of three items, named ``RECORD-ITEM``."""
    made = []
    for record in range(3):
        names = [f"{record}-{item}" for item in range(3)]
        if topic == SPANS:
            made.append(
                span_payload([Span("a", 10 * record + n + 1, name=name) for n, name in enumerate(names)])
            )
        elif topic == LOGS:
            items = [LogRecord(time_unix_nano=TIME_NS, body=AnyValue(string_value=name)) for name in names]
            made.append(
                LogsData(
                    resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=items)])]
                ).SerializeToString()
            )
        else:
            points = [
                NumberDataPoint(time_unix_nano=TIME_NS, as_int=1, attributes=[named(name)]) for name in names
            ]
            metrics = [
                Metric(name="m", gauge=Gauge(data_points=points[:2])),
                Metric(name="n", sum=Sum(data_points=points[2:])),
            ]
            made.append(
                MetricsData(
                    resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=metrics)])]
                ).SerializeToString()
            )
    return made


def named(name: str) -> KeyValue:
    return KeyValue(key="name", value=AnyValue(string_value=name))


class Picky:
    """Refuses rows of items by their names."""

    def __init__(self, bad: set[str]) -> None:
        self.bad = bad
        self.stored: set[str] = set()
        self.ledger: dict[str, int] = {}

    def write(self, block: Block) -> None:
        rows = block.rows.to_pylist(maps_as_pydicts="strict")
        if block.table == "ledger":
            (self.ledger,) = rows
        elif block.table in ("otel_traces", "otel_logs", *TABLES):
            names = {row.get("SpanName") or row.get("Body") or row["Attributes"]["name"] for row in rows}
            if names & self.bad:
                raise SinkRejected("a constraint")
            self.stored |= names

    def close(self) -> None: ...

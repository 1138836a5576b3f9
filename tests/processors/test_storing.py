"""Blocks that are too large go in halves, rows that the database refuses are set aside and counted, and a
second reader does the same.
"""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.ledger import Fates, ledger
from processors.panes import Pane
from processors.storing import halves, write_blocks
from schemas.errors import ProcessingFailed, SinkRejected, SinkTooLarge, SinkUnavailable, SinkUnusable
from schemas.records import TopicPartition
from schemas.tables import SCHEMAS, Block

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

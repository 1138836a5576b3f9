"""Blocks into the sink, without the rows that the database refuses for good (docs/adr/0033).

Which rows those are is a function of the block and the database: a second reader finds the same, and names
the parts of a cut block alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from schemas.errors import ProcessingFailed, SinkRejected
from schemas.records import DeadLetter, Record
from schemas.sink import Sink
from schemas.tables import Block

LEDGER = "ledger"
_ITEM_TABLES = "otel_"
_NO_ITEMS = "otel_traces_trace_id_ts"

_IN_A_ROW = 100
"""So many rows refused one after the other: then the table is at fault, not the rows."""

_MOST_LETTERS = 1_000
_MOST_NUMBERS = 20
_REASON_CHARACTERS = 500
_ROW_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that the database refuses."""

    block: Block
    """Of this row alone."""
    reason: str


def write_blocks(sink: Sink, blocks: Iterable[Block]) -> list[DeadLetter]:
    """Write the blocks of an Emit, each pane's ledger with what was refused of its items; one letter for each
    pane that has refused rows.

    Rows that are items of records give a letter for each record and table, which has these items alone, for
    _MOST_LETTERS of them; all others one letter for each pane, without a payload. Raises SinkUnavailable,
    SinkUnusable, SinkRejected (a ledger), ProcessingFailed (nearly every row is refused).
    """
    of_items = list[DeadLetter]()
    items: dict[int, int] = {}
    reasons: dict[int, list[str]] = {}
    letters: dict[int, Block] = {}
    for block in blocks:
        if block.table == LEDGER:
            sink.write(_with_refused(block, items.pop(block.pane, 0)))
        elif refused := list(_Writer(sink, block.token).write(block)):
            if block.table.startswith(_ITEM_TABLES) and block.table != _NO_ITEMS:
                items[block.pane] = items.get(block.pane, 0) + len(refused)
            if block.source is not None:
                found, refused = _of_records(block, refused, _MOST_LETTERS - len(of_items))
                of_items += found
            if refused:
                reasons.setdefault(block.pane, []).append(_reason(block, refused))
                letters.setdefault(block.pane, block)
    return of_items + [
        DeadLetter(Record(block.first_offset, 0, b"", block.rows.nbytes), "; ".join(reasons[pane]))
        for pane, block in letters.items()
    ]


def _of_records(
    block: Block, refused: Sequence[Refused], most: int
) -> tuple[list[DeadLetter], list[Refused]]:
    """A letter for each record that refused rows come from, ``most`` at most; the rows of others."""
    source = block.source
    assert source is not None
    records: dict[int, tuple[Record, list[int], Refused]] = {}
    rest = []
    for row in refused:
        record, item = source.at(row.block.first_row)
        if record.offset in records:
            records[record.offset][1].append(item)
        elif len(records) < most:
            records[record.offset] = record, [item], row
        else:
            rest.append(row)
    letters = []
    for record, items, first in records.values():
        numbers = ", ".join(map(str, sorted(items)[:_MOST_NUMBERS])) + (
            " ..." if len(items) > _MOST_NUMBERS else ""
        )
        reason = f"{_reason(block, [first], len(items))}; the letter has these items of the record alone: {numbers}"
        letters.append(DeadLetter(source.only(record, frozenset(items)), reason))
    return letters, rest


class _Writer:
    """Writes one block, in parts where it must be."""

    def __init__(self, sink: Sink, token: str) -> None:
        self._sink = sink
        self._token = token
        self._row = 0

    def write(self, block: Block) -> Iterator[Refused]:
        try:
            self._sink.write(block)
        except SinkRejected as error:
            if block.rows.num_rows > 1:
                for half in halves(block):
                    yield from self.write(half)
                return
            self._row += 1
            if self._row >= _IN_A_ROW:
                raise ProcessingFailed(
                    f"the database refuses {self._row} rows in a row of {self._token}: {error}. So many are a"
                    " fault of the table or of meshflow, not of the rows: compare the table with `meshflow"
                    " migrate`'s; nothing is lost, the next start goes on from here"
                ) from error
            yield Refused(block, str(error))
        else:
            self._row = 0


def halves(block: Block) -> tuple[Block, Block]:
    """A block of several rows as two, whose tokens say which half."""
    middle = block.rows.num_rows // 2
    parts = block.rows.slice(0, middle), block.rows.slice(middle)
    first, second = (
        replace(
            block,
            rows=rows,
            part=f"{block.part or '0'}.{number}",
            first_row=block.first_row + number * middle,
        )
        for number, rows in enumerate(parts)
    )
    return first, second


def _with_refused(ledger: Block, items: int) -> Block:
    """The ledger where so many items were not stored, but refused."""
    if not items:
        return ledger
    rows = ledger.rows
    for name, more in (("rejected", items), ("kept", -items), ("stored", -items)):
        at = rows.schema.get_field_index(name)
        counts = np.array(rows.column(name).to_pylist(), np.int64) + more
        rows = rows.set_column(at, rows.schema.field(at), pa.array(counts.astype(np.uint64)))
    return replace(ledger, rows=rows)


def _reason(block: Block, refused: Sequence[Refused], count: int | None = None) -> str:
    """Names rows: they may be of several records, or of no single one."""
    first = refused[0]
    row = str(first.block.rows.to_pylist()[0])[:_ROW_CHARACTERS]
    return (
        f"the database refuses {count or len(refused)} of {block.rows.num_rows} rows of {block.token}:"
        f" {first.reason[:_REASON_CHARACTERS]}; the first one: {row}"
    )

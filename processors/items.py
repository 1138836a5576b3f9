"""Data points and log records of one partition: each stored once, as it is, when its pane closes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from processors.ledger import Fates, ledger
from processors.panes import Emit, Pane, PaneClock, Panes, Step, surplus_letters, unpack
from processors.settings import ProcessorSettings
from schemas.errors import MalformedOtlp
from schemas.otlp.columns import Items
from schemas.records import Commit, DeadLetter, Record, TopicPartition
from schemas.tables import SCHEMAS, Block
from schemas.units import NS_PER_S

Decode = Callable[[Sequence[bytes]], Mapping[str, Items]]
"""Payloads -> items by table. Raises MalformedOtlp."""

_PORTION_BYTES = 8 << 20
_IDENTITY = ("identity_hi", "identity_lo")


class ItemProcessor:
    """Rows of ``otel_*`` tables and ledger of one partition.

    Feed it every record from :attr:`offset` on (None: from the log's beginning), in any portions; write the
    blocks of each Emit, then commit. Items with the identity of an earlier one of the pane or of the lookback
    before it are copies (invariant 8) and are left out.
    """

    def __init__(
        self,
        tp: TopicPartition,
        settings: ProcessorSettings,
        decode: Decode,
        order: Sequence[str],
        commit: Commit | None = None,
    ) -> None:
        """``order``: columns that rows are sorted by, before their identity, so that no order of arrival is
        left.
        """
        self._clock = PaneClock.of(tp, settings.partitions, settings.pane_ns)
        self._tp = tp
        self._decode = decode
        self._order = order
        # Nothing here depends on later panes, so there is no wait.
        self._panes = Panes(
            self._clock, 0, settings.lookback_panes, settings.pane_bytes, commit, count=self._count
        )
        self._seen: dict[int, pl.DataFrame] = {}

    @property
    def offset(self) -> int | None:
        """The offset to read first; None: the log's beginning."""
        return self._panes.offset

    def gap(self, wanted: int, beginning: int) -> None:
        """Retention removed [wanted, beginning) before it was read (OffsetGone)."""
        self._panes.gap(wanted, beginning)

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the partition's next records; what the panes that they closed give, in order."""
        steps = (self._panes.add(record) for record in records)
        return [self._close(step) for step in steps if step]

    def _close(self, step: Step) -> Emit:
        pane = step.closed
        tables, dead_letters = _decode_all(self._decode, pane.records) if pane.records else ({}, [])
        identities = {table: _identities(items) for table, items in tables.items()}
        blocks = []
        if step.emit_closed:
            blocks = self._blocks(pane, tables, identities, len(dead_letters) + pane.surplus_items)
            dead_letters += surplus_letters(pane)
        if identities:
            self._seen[pane.number] = pl.concat(
                [frame.select(_IDENTITY).unique() for frame in identities.values()]
            )
        self._seen = {number: seen for number, seen in self._seen.items() if number >= step.keep_from}
        return Emit(blocks, step.commit, dead_letters if step.emit_closed else [])

    def _count(self, payload: bytes) -> int:
        """Items of a payload; a malformed one counts as one."""
        try:
            return sum(items.rows.num_rows for items in self._decode([payload]).values())
        except MalformedOtlp:
            return 1

    def _blocks(
        self, pane: Pane, tables: Mapping[str, Items], identities: Mapping[str, pl.DataFrame], rejected: int
    ) -> list[Block]:
        received = sum(frame.height for frame in identities.values())
        blocks = []
        for table, items in tables.items():
            first = identities[table].unique(_IDENTITY, keep="first")
            for seen in self._seen.values():
                first = first.join(seen, on=_IDENTITY, how="anti")
            if first.height:
                blocks.append(
                    self._block(table, pane, self._rows(table, items, first, pane.start_ns // NS_PER_S))
                )
        kept = sum(block.rows.num_rows for block in blocks)
        row = ledger(
            self._tp, pane, Fates(rejected=rejected, duplicate=received - kept, kept=kept, stored=kept)
        )
        return [*blocks, self._block("ledger", pane, row)] if row.num_rows else blocks

    def _block(self, table: str, pane: Pane, rows: pa.Table) -> Block:
        return Block(table, self._tp, pane.number, rows, self._clock.name)

    def _rows(self, table: str, items: Items, first: pl.DataFrame, log_time_s: int) -> pa.Table:
        keys = pl.DataFrame(
            {
                name: pl.Series(items.rows.column(name))
                for name in self._order
                if name in items.rows.column_names
            }
        )
        ordered = first.with_columns(keys[first["row"]]).sort(*keys.columns, *_IDENTITY)
        rows = items.rows.take(ordered["row"].to_arrow())
        log_time = pa.array(np.full(rows.num_rows, log_time_s, dtype=np.uint32))
        return rows.append_column("LogTime", log_time).select(SCHEMAS[table].names).cast(SCHEMAS[table])


def _decode_all(decode: Decode, records: Sequence[Record]) -> tuple[dict[str, Items], list[DeadLetter]]:
    """The items of records (at least one) but for malformed ones, some at a time: Python objects take many
    times what Arrow does.
    """
    parts, malformed = [], []
    for portion in _portions(records):
        items, bad = _decode_portion(decode, portion)
        parts.append(items)
        malformed += bad
    joined = {
        table: Items(
            pa.concat_tables([part[table].rows for part in parts]),
            pa.concat_arrays([part[table].identities for part in parts]),
        )
        for table in parts[0]
    }
    return joined, malformed


def _portions(records: Sequence[Record]) -> list[list[Record]]:
    portions: list[list[Record]] = []
    room = 0
    for record in records:
        if record.size > room or not portions:
            portions.append([])
            room = _PORTION_BYTES
        portions[-1].append(record)
        room -= record.size
    return portions


def _decode_portion(
    decode: Decode, records: Sequence[Record]
) -> tuple[Mapping[str, Items], list[DeadLetter]]:
    payloads, letters = unpack(records)
    try:
        return decode(payloads), letters
    except MalformedOtlp:
        for number, record in enumerate(records):
            try:
                decode(payloads[number : number + 1])
            except MalformedOtlp as error:
                letters.append(DeadLetter(record, str(error)))
                payloads[number] = b""
        return decode(payloads), letters


def _identities(items: Items) -> pl.DataFrame:
    """``identity_hi``, ``identity_lo`` UInt64 and the ``row`` of each item."""
    data = (
        b"".join(items.identities.to_pylist()) if items.identities.offset else items.identities.buffers()[1]
    )
    words = np.frombuffer(data or b"", dtype=np.uint64, count=2 * len(items.identities)).reshape(-1, 2)
    return pl.DataFrame({"identity_hi": words[:, 0], "identity_lo": words[:, 1]}).with_row_index("row")

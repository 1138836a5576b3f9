"""The ledger: what became of every item of a pane."""

from dataclasses import dataclass

import pyarrow as pa

from processors.panes import Pane
from schemas.records import TopicPartition
from schemas.tables import SCHEMAS
from schemas.units import NS_PER_S


@dataclass(slots=True)
class Fates:
    """How many items of a pane's records came to what; stages add to it."""

    rejected: int = 0
    """Items found invalid by processing (those that ingest refused are in the pane's own count)."""
    duplicate: int = 0
    aggregated: int = 0
    """Data points that went into tables of counters."""
    left_out: int = 0
    """Data points that are neither in tables of counters nor stored: copies, and what nobody asked for."""
    unknown: int = 0
    """Of aggregated: counters that added nothing, as what their series had before is not known."""
    kept: int = 0
    dropped: int = 0
    late: int = 0
    stored: int = 0
    """Rows of otel_* tables."""
    cut: int = 0
    """Attribute sets, and texts of resources, scopes and metrics, that are stored but for what is over
    ``processing.attributes``.
    """
    repaired: int = 0
    """Texts that were not UTF-8 and values that nested too deep, in records that were not mended before."""
    redacted: int = 0
    """Attributes that were dropped, hashed or masked, and texts that were masked: of resources, scopes,
    attribute sets and texts that items share once in a pane, of spans' own attributes those of kept spans.
    """


def ledger(tp: TopicPartition, pane: Pane, fates: Fates) -> pa.Table:
    """The row of a pane; no row when nothing came and nothing was lost."""
    rejected = pane.rejected + fates.rejected
    row = {
        "time": pane.start_ns // NS_PER_S,
        "topic": tp.topic,
        "partition": tp.partition,
        "pane": pane.number,
        "received": rejected
        + fates.duplicate
        + fates.aggregated
        + fates.left_out
        + fates.kept
        + fates.dropped,
        "rejected": rejected,
        "refused": pane.refused,
        "duplicate": fates.duplicate,
        "aggregated": fates.aggregated,
        "left_out": fates.left_out,
        "unknown": fates.unknown,
        "kept": fates.kept,
        "dropped": fates.dropped,
        "late": fates.late,
        "stored": fates.stored,
        "lost": pane.lost,
        "bytes": pane.bytes,
        "cut": fates.cut,
        "repaired": pane.repaired + fates.repaired,
        "redacted": fates.redacted,
    }
    schema = SCHEMAS["ledger"]
    something = row["received"] or pane.refused or pane.lost or pane.bytes
    return pa.Table.from_pylist([row] if something else [], schema=schema)

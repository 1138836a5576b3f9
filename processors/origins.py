"""Where rows of ``otel_*`` tables come from: looked up for rows that the database refuses, for no others."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.records import Record

Numbers = npt.NDArray[np.uint32]
Pick = Callable[[bytes, Collection[int]], bytes]
"""``pick(payload, items)``: the payload with these of its items alone."""


class Items(NamedTuple):
    """The items of rows, row by row."""

    record: Numbers
    """Number of the record (PaneView.records)."""
    number: Numbers
    """Of the item within the record, in the order of decoding."""

    @classmethod
    def of(cls, record: Numbers, rows: npt.NDArray[np.integer]) -> "Items":
        """Of these ``rows`` of a batch; ``record``: of each item of the batch, ascending."""
        chosen = record[rows]
        return cls(chosen, (rows - np.searchsorted(record, chosen)).astype(np.uint32))


@dataclass(frozen=True, slots=True)
class Origins:
    """A pane's own note: table -> its rows' items, made when they are asked for."""

    of_table: Mapping[str, Callable[[], Items]]


class PaneSource:
    """schemas.tables.Source of one pane and table."""

    def __init__(self, records: Sequence[Record], items: Callable[[], Items], pick: Pick) -> None:
        self._records = records
        self._make = items
        self._pick = pick
        self._items: Items | None = None

    def at(self, row: int) -> tuple[Record, int]:
        """See schemas.tables.Source."""
        if self._items is None:
            self._items = self._make()
        return self._records[self._items.record[row]], int(self._items.number[row])

    def only(self, record: Record, items: Collection[int]) -> Record:
        """See schemas.tables.Source."""
        payload = self._pick(record.unpack(), items)
        return replace(record, payload=payload, size=len(payload), codec="")

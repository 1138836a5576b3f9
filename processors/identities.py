"""First copies of data points and log records (invariant 8): what a sender sends again is stored once.

An item is known by its identity, 128 bits of a hash of the part of a request that it stands in, and of its
place there. Equal items are two unless their request is one that was sent again. An item without a time is
never a copy: nothing tells a heartbeat from a repeated one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.stage import B, PaneView, Tables, Window

_IDENTITY = ("identity_hi", "identity_lo")


@dataclass(frozen=True, slots=True)
class FirstItems:
    """A pane's own note: which of its items are no copies."""

    rows: npt.NDArray[np.uint32]
    """Rows of the batch, ascending."""


@dataclass(frozen=True, slots=True)
class SeenItems:
    """A note for later panes: the identities of a pane's items that have a time, each once."""

    identities: pl.DataFrame
    """``identity_hi``, ``identity_lo`` UInt64."""
    first_ns: int
    last_ns: int
    """Times of the first and the last one."""


class Deduplicate(Generic[B]):
    """Leaves FirstItems and SeenItems; counts what is duplicate."""

    def __init__(self, items: Callable[[B], pa.RecordBatch], lookback: int) -> None:
        """``items``: the part of a batch that has ``time_ns``, ``identity_hi`` and ``identity_lo``;
        ``lookback``: copies are those of items of so many panes before.
        """
        self._items = items
        self._lookback = lookback

    def close(self, pane: PaneView[B]) -> Tables:
        """See processors.stage.Stage."""
        items = pl.DataFrame(self._items(pane.batch).select([*_IDENTITY, "time_ns"])).with_row_index("row")
        timed = items["time_ns"] != 0
        distinct = items.filter(timed).unique(_IDENTITY, keep="first")
        first = distinct.filter(self._is_first(distinct, pane))
        rows = pl.concat([first["row"], items["row"].filter(~timed)]).sort()
        pane.own.leave(FirstItems(rows.to_numpy()))
        if distinct.height:
            first_ns, last_ns = int(distinct["time_ns"].min()), int(distinct["time_ns"].max())  # type: ignore[arg-type]  # integers
            pane.seen.leave(SeenItems(distinct.select(_IDENTITY), first_ns, last_ns), self._lookback)
        pane.fates.duplicate += items.height - len(rows)
        return {}

    def _is_first(self, distinct: pl.DataFrame, pane: PaneView[B]) -> pl.Series:
        """Which items no earlier pane has. A copy has its item's time: panes without such are not asked."""
        time_ns = distinct["time_ns"].to_numpy()
        is_first = np.ones(len(time_ns), np.bool_)
        for seen in pane.looked_back(SeenItems, self._lookback):
            at = np.flatnonzero(is_first & (time_ns >= seen.first_ns) & (time_ns <= seen.last_ns))
            if len(at):
                asked = distinct[at].select(_IDENTITY).with_columns(at=at)
                is_first[asked.join(seen.identities, on=_IDENTITY, how="semi")["at"].to_numpy()] = False
        return pl.Series(is_first)

    def decide(self, pane: PaneView[B], window: Window) -> Tables:  # noqa: ARG002 - nothing to decide
        """See processors.stage.Stage."""
        return {}

"""The stage that makes increments of a pane's counters, for the stages of tables after it."""

from collections import deque

import numpy as np

from processors.points.claims import Claims
from processors.points.increments import increments
from processors.points.last_points import NOTHING_KNOWN, LastPoints
from processors.stage import PaneView, Tables, Window
from schemas.points import PointBatch


class CountIncrements:
    """Leaves Claims and Increments in the pane's own notes, and carries LastPoints."""

    def __init__(self, lookback: int) -> None:
        """``lookback``: in panes; the pane processor must look back as far."""
        self._lookback = lookback

    def close(self, pane: PaneView[PointBatch]) -> Tables:
        """See processors.stage.Stage."""
        claims = Claims.of(pane.batch)
        newest = deque(pane.looked_back(LastPoints), maxlen=1)
        gained, last = increments(
            pane.batch,
            np.flatnonzero(claims.family >= 0).astype(np.uint32),
            newest[0] if newest else NOTHING_KNOWN,
            pane=pane.number,
            lookback=self._lookback,
            time=pane.time,
        )
        pane.own.leave(claims)
        pane.own.leave(gained)
        pane.seen.carry(last)
        return {}

    def decide(self, pane: PaneView[PointBatch], window: Window) -> Tables:  # noqa: ARG002 - nothing to decide
        """See processors.stage.Stage."""
        return {}

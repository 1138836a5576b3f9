"""Which 10 s slot a row belongs to, and whether it comes after its hour was rolled up. Functions of log time
and span time alone.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.units import NS_PER_S

LEVELS = {"10s": 10, "1m": 60, "1h": 3600}
"""Widths of the levels, s."""

_PAST_NS = 7 * 24 * 3600 * NS_PER_S
_FUTURE_NS = 3600 * NS_PER_S


class PaneTime(NamedTuple):
    """When a pane was, and when roll-ups of hours begin (all ns)."""

    start_ns: int
    pane_ns: int
    rollup_grace_ns: int
    late_until_ns: int = 0
    """Rows of hours that ended until then are late in any case: a smaller grace was set before."""

    @property
    def start_s(self) -> int:
        """Start of the pane in whole seconds since 1970."""
        return self.start_ns // NS_PER_S

    def slots(self, end_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """The 10 s slot (s since 1970) of each time; times that no clock near ours shows are moved to the
        pane's own slot.
        """
        width_ns = LEVELS["10s"] * NS_PER_S
        first, last = self.start_ns - _PAST_NS, self.start_ns + self.pane_ns + _FUTURE_NS
        slot_ns = end_ns // width_ns * width_ns
        own_ns = self.start_ns // width_ns * width_ns
        slots: npt.NDArray[np.uint32] = (
            np.where((slot_ns < first) | (slot_ns > last), own_ns, slot_ns) // NS_PER_S
        ).astype(np.uint32)
        return slots

    def late(self, slots: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Which slots' hours were rolled up, or may have been, when this pane is written."""
        hour_end_s = slots.astype(np.int64) // 3600 * 3600 + 3600
        until_ns = max(self.start_ns - self.rollup_grace_ns, self.late_until_ns)
        late: npt.NDArray[np.bool_] = hour_end_s * NS_PER_S <= until_ns
        return late

    def few(self, slots: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Where rows over a limit stand, that they may be few: the pane's own slot, late ones the start of
        their hour.
        """
        own = self.slots(np.array([self.start_ns]))[0]
        few: npt.NDArray[np.uint32] = np.where(self.late(slots), slots // 3600 * 3600, own).astype(np.uint32)
        return few

"""The embedded log's clock: append times that processing can rely on."""

import logging
import time
from collections.abc import Callable

from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)

_TELL_NS = 5 * NS_PER_S
"""Steps of the wall clock that are told."""


class LogClock:
    """Wall time, but it neither goes back nor stands still: panes close by nothing else (invariant 5).

    Where the wall clock is set back (or a restart finds records of a later time), log time goes on at nine
    tenths of the machine's speed until the wall clock has caught up. Held at the newest record instead, as no
    pane would close meanwhile, the open one would take in everything, up to its limit, and reject the rest.
    """

    def __init__(
        self,
        newest_ns: int,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``newest_ns``: append time of the log's newest record, 0 without one."""
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._read_ns = monotonic_ns()
        self._time_ns = newest_ns
        self._told_ns = 0

    def now_ns(self) -> int:
        """Log time, ns since 1970; at least that of the last call."""
        wall_ns, monotonic_ns = self._wall_ns(), self._monotonic_ns()
        self._time_ns = max(wall_ns, self._time_ns + (monotonic_ns - self._read_ns) * 9 // 10)
        self._read_ns = monotonic_ns
        self._tell(self._time_ns - wall_ns)
        return self._time_ns

    def _tell(self, ahead_ns: int) -> None:
        if ahead_ns > self._told_ns + _TELL_NS:
            self._told_ns = ahead_ns
            _LOGGER.warning(
                "the clock is %.0f s behind the log's newest record: log time goes on more slowly until they meet",
                ahead_ns / NS_PER_S,
            )
        elif self._told_ns and not ahead_ns:
            self._told_ns = 0
            _LOGGER.info("the clock has caught up with the log")

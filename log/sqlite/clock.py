"""The embedded log's clock: append times that processing can rely on."""

import logging
import time
from collections.abc import Callable

from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)

_TELL_NS = 5 * NS_PER_S
"""Steps back of the wall clock that are logged."""

JUMP_NS = 24 * 3_600 * NS_PER_S
"""Log time may follow the wall clock so far ahead at once."""

CONFIRM_NS = 60 * NS_PER_S
"""How long the wall clock must stay further ahead than that until log time follows."""

_FAR_BEHIND = (
    "; if the clock was wrong before and is right now, stop meshflow once all is processed and move the log's folder"
    " away: a new log begins with the right time"
)


class LogClock:
    """Wall time, but it neither goes back nor stands still: panes close by nothing else (invariant 5).

    Where the wall clock is set back (or a restart finds records of a later time), log time goes on at nine
    tenths of the machine's speed until the wall clock has caught up. Held at the newest record instead, as no
    pane would close meanwhile, the open one would take in everything, up to its limit, and reject the rest.

    A wall clock that jumps ahead by more than JUMP_NS may be wrong, and log time could not go back: log time
    goes on by the machine's own clock, and follows once the jump has lasted for CONFIRM_NS. What a wrong
    clock stamped for longer than that stays: readers could not follow a log time that goes back.
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
        self._ahead_since_ns: int | None = None  # monotonic

    def now_ns(self) -> int:
        """Log time, ns since 1970; at least that of the last call."""
        wall_ns, monotonic_ns = self._wall_ns(), self._monotonic_ns()
        elapsed_ns, self._read_ns = monotonic_ns - self._read_ns, monotonic_ns
        if self._is_doubtful(wall_ns, self._time_ns + elapsed_ns, monotonic_ns):
            self._time_ns += elapsed_ns
        else:
            self._time_ns = max(wall_ns, self._time_ns + elapsed_ns * 9 // 10)
            self._tell(self._time_ns - wall_ns)
        return self._time_ns

    def _is_doubtful(self, wall_ns: int, own_ns: int, monotonic_ns: int) -> bool:
        """Whether the wall clock has jumped ahead of ``own_ns`` a moment ago."""
        if not self._time_ns or wall_ns - own_ns <= JUMP_NS:
            if self._ahead_since_ns is not None:
                _LOGGER.info("the clock is back from its jump ahead: log time did not follow it")
            self._ahead_since_ns = None
            return False
        if self._ahead_since_ns is None:
            self._ahead_since_ns = monotonic_ns
            _LOGGER.warning(
                "the clock is %.1f days ahead of the log's newest record: log time follows if it is still so in %d s",
                (wall_ns - own_ns) / (24 * 3_600 * NS_PER_S),
                CONFIRM_NS // NS_PER_S,
            )
        if monotonic_ns - self._ahead_since_ns < CONFIRM_NS:
            return True
        self._ahead_since_ns = None
        _LOGGER.warning("log time follows the clock ahead")
        return False

    def _tell(self, ahead_ns: int) -> None:
        if ahead_ns > self._told_ns + _TELL_NS:
            self._told_ns = ahead_ns
            _LOGGER.warning(
                "the clock is %.0f s behind the log's newest record: log time goes on more slowly until they meet%s",
                ahead_ns / NS_PER_S,
                _FAR_BEHIND if ahead_ns > JUMP_NS else "",
            )
        elif self._told_ns and not ahead_ns:
            self._told_ns = 0
            _LOGGER.info("the clock has caught up with the log")

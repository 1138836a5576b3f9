"""Clients say the same thing 60 times a second while brokers or the database are away: once in a while is
enough.
"""

import logging
import time
from collections.abc import Callable

EVERY_S = 10.0
_NOISY = ("aiokafka", "faust", "mode", "urllib3")


class Repetition(logging.Filter):
    """Lets a line of code log below CRITICAL once in ``every_s``, then with the number of times that were
    left out.
    """

    def __init__(self, every_s: float = EVERY_S, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._now_s = now_s
        self._seen: dict[
            tuple[str, int], tuple[float, int]
        ] = {}  # (file, line) -> when it was let through, and left out since

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter.filter."""
        if record.levelno >= logging.CRITICAL or not record.name.startswith(_NOISY):
            return True
        place, now_s = (record.pathname, record.lineno), self._now_s()
        at_s, left_out = self._seen.get(place, (float("-inf"), 0))
        if now_s < at_s + self._every_s:
            self._seen[place] = (at_s, left_out + 1)
            return False
        self._seen[place] = (now_s, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it)", ()
        return True


def install() -> None:
    """On every handler of the root logger."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repetition())

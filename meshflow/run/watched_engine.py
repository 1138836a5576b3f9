"""An engine of SQL, and a thread that notices when one of its calls does not come back."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from schemas.sql import Answer, Engine, Limits, Query

_LEAST_GRACE_S, _LONGEST_GRACE_S = 5.0, 15.0
_EVERY_S = 1.0


def grace_s(limit_s: float) -> float:
    """How long after its limit a query may go on: the engine looks at the clock between blocks of rows."""
    return min(_LONGEST_GRACE_S, max(_LEAST_GRACE_S, limit_s / 2))


@dataclass(slots=True, eq=False)
class _Call:
    limit_s: float
    took_s: float = 0.0


class WatchedEngine:
    """schemas.sql.Engine around another one.

    A query inside one long function call is ended by nothing short of the process. ``on_stuck`` gets the
    seconds that such a query took, once, in a thread of its own. Time is counted in rounds of that thread: a
    process that was stopped (SIGSTOP) for an hour has no query of an hour.
    """

    def __init__(
        self,
        engine: Engine,
        on_stuck: Callable[[float], None],
        grace_s: Callable[[float], float] = grace_s,
        every_s: float = _EVERY_S,
    ) -> None:
        self._engine = engine
        self._on_stuck = on_stuck
        self._grace_s = grace_s
        self._every_s = every_s
        self._calls: set[_Call] = set()
        self._guard = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watching queries", daemon=True).start()

    def execute(self, query: Query, limits: Limits) -> Answer:
        """See schemas.sql.Engine.execute."""
        call = _Call(limits.time_s)
        with self._guard:
            self._calls.add(call)
        try:
            return self._engine.execute(query, limits)
        finally:
            with self._guard:
                self._calls.remove(call)

    def interrupt(self) -> None:
        """See schemas.sql.Engine.interrupt."""
        self._engine.interrupt()

    def close(self) -> None:
        """See schemas.sql.Engine.close."""
        self._closed.set()
        self._engine.close()

    def _watch(self) -> None:
        while not self._closed.wait(self._every_s):
            with self._guard:
                for call in self._calls:
                    call.took_s += self._every_s
                stuck = [
                    call.took_s
                    for call in self._calls
                    if call.took_s > call.limit_s + self._grace_s(call.limit_s)
                ]
            if stuck:
                self._on_stuck(max(stuck))
                return

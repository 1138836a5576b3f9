"""Sessions of ClickHouse's HTTP interface (``session_id``): a connection of its own each, kept between
queries.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from schemas.errors import QueryFailed
from schemas.sql import Session

SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
TOO_MANY_SESSIONS = 658
MOST_SESSIONS = 64
LONGEST_TIMEOUT_S = 3_600.0


@dataclass
class _Kept:
    connection: Any
    busy: bool
    expires_s: float


class Sessions:
    """May be used from several threads at once. Times are of any clock that only goes forward."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._kept: dict[str, _Kept] = {}
        self._guard = threading.Lock()

    @contextmanager
    def borrow(self, session: Session, now_s: float) -> Iterator[Any]:
        """The session's connection, for one query.

        Raises QueryFailed: another query runs in it, it must be there and is not, or there are too many.
        """
        with self._guard:
            kept = self._take(session, now_s)
        try:
            yield kept.connection
        finally:
            with self._guard:
                kept.busy = False
                kept.expires_s = now_s + min(session.timeout_s, LONGEST_TIMEOUT_S)

    def close(self) -> None:
        """End all sessions; no query may run in them."""
        with self._guard:
            for kept in self._kept.values():
                kept.connection.close()
            self._kept.clear()

    def _take(self, session: Session, now_s: float) -> _Kept:
        for name in [name for name, kept in self._kept.items() if not kept.busy and kept.expires_s <= now_s]:
            self._kept.pop(name).connection.close()
        kept = self._kept.get(session.name)
        if kept is None:
            if session.must_exist:
                raise _failed(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", f"Session {session.name} not found")
            if len(self._kept) >= MOST_SESSIONS:
                reason = f"{MOST_SESSIONS} sessions are open; use session_timeout, or none"
                raise _failed(TOO_MANY_SESSIONS, "SESSION_LIMIT_EXCEEDED", reason)
            kept = self._kept[session.name] = _Kept(self._connect(), busy=False, expires_s=0)
        if kept.busy:
            raise _failed(
                SESSION_IS_LOCKED,
                "SESSION_IS_LOCKED",
                f"Session {session.name} is locked by a concurrent client",
            )
        kept.busy = True
        return kept


def _failed(code: int, name: str, reason: str) -> QueryFailed:
    return QueryFailed(code, f"Code: {code}. DB::Exception: {reason}. ({name})")

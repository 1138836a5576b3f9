"""What clients may hold of the server: bytes of all connections, and time. No I/O here."""

from typing import Self

from console.clickhouse import interface as clickhouse

_FREE = 64 << 10


class Room:
    """Bytes that all connections may hold together: at most ``limit``, but each holder 64 KiB in any case, so
    that small requests are answered while large ones take all the room.
    """

    def __init__(self, limit: int, setting: str) -> None:
        self._limit = limit
        self._setting = setting
        self.held = 0
        """Bytes that count against the limit."""

    def take(self, size: int) -> None:
        """Hold ``size`` bytes more. Raises QueryFailed (TOO_MANY_SIMULTANEOUS_QUERIES) where they do not
        fit.
        """
        if size > 0 and self.held + size > self._limit:
            raise clickhouse.failed(
                clickhouse.TOO_MANY_SIMULTANEOUS_QUERIES,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"clients hold {self.held:,} bytes of requests and answers already ({self._setting}); try again",
            )
        self.held += size


class Held:
    """The bytes of one holder, until the end of the ``with`` block or :meth:`close`."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._counted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resize(self, size: int) -> None:
        """Hold ``size`` bytes from now on. Raises QueryFailed where there is no room."""
        counted = max(size - _FREE, 0)
        self._room.take(counted - self._counted)
        self._counted = counted

    def close(self) -> None:
        """Hold nothing."""
        self.resize(0)


class Pace:
    """How long a client may take: ``timeout_s``, and the time that its bytes need at ``min_rate``."""

    def __init__(self, timeout_s: float, min_rate: int) -> None:
        self.timeout_s = timeout_s
        self._min_rate = min_rate

    def allowed_s(self, size: int) -> float:
        """For ``size`` bytes."""
        return self.timeout_s + size / self._min_rate

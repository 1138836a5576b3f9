"""Bytes of a bounded buffer, taken and given back by any thread."""

from threading import Lock


class Room:
    """At most ``limit_bytes`` are held."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._lock = Lock()

    def reserve(self, size: int) -> bool:
        """Hold ``size`` bytes more; False when there is no room."""
        with self._lock:
            if self.held_bytes + size > self.limit_bytes:
                return False
            self.held_bytes += size
            return True

    def release(self, size: int) -> None:
        """Give back what :meth:`reserve` held."""
        with self._lock:
            self.held_bytes -= size

"""Memory that processing has freed goes back to the system after each pane, so that it is there for receivers
and the database.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa


def _find_trim() -> Callable[[int], int] | None:
    """The C library's ``malloc_trim`` (malloc_trim(3)); None with another libc."""
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return trim
    return None


_trim = _find_trim()


def give_back() -> None:
    """Hand free pages of Arrow's pool and of malloc's heaps back; takes some milliseconds, so not for an
    event loop.
    """
    pa.default_memory_pool().release_unused()
    if _trim is not None:
        _trim(0)

"""The embedded engine's machine code in memory: starting it touches some 120 MiB, working some 50."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LIBRARY = "_chdb"
_DONT_NEED = 4  # madvise(2), MADV_DONTNEED


def forget_code() -> int:
    """Take the engine's code out of this process's memory; how many bytes of it are mapped.

    The pages stay in the system's cache of files and come back one by one as they are run. Code alone (mapped
    to be run, never written): other parts of the library were changed when it was loaded.
    """
    if not sys.platform.startswith("linux"):
        return 0
    mapped = 0
    with suppress(OSError, AttributeError, ValueError):
        advise = ctypes.CDLL(None).madvise
        for begin, end in _code():
            if advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _DONT_NEED) == 0:
                mapped += end - begin
    return mapped


def _code() -> Iterator[tuple[int, int]]:
    """Where the library's code lies (proc(5), maps)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _, _, _, *path = line.split(maxsplit=5)
        if path and rights == "r-xp" and Path(path[0]).name.startswith(_LIBRARY):
            begin, _, end = addresses.partition("-")
            yield int(begin, 16), int(end, 16)

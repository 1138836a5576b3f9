"""The kernel's own limit of memory for one process: a control group, which its out-of-memory killer keeps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.up import eventually

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryLimit:
    """A control group with processes in it."""

    folder: Path

    def kills(self) -> int:
        """How many processes the kernel has killed to keep the limit."""
        name = "memory.oom_control" if self.folder.is_relative_to(_V1) else "memory.events"
        lines = (self.folder / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def limited_memory(pid: int, spare_bytes: int) -> Iterator[MemoryLimit]:
    """Let a process take ``spare_bytes`` more than it has, and no more.

    Skips the test where control groups cannot be made (no root, or the kernel gives no memory controller).
    """
    folder = (_V1 if _V1.is_dir() else _V2) / f"meshflow-test-{uuid4().hex[:8]}"
    try:
        folder.mkdir()
        held = (
            0 if folder.is_relative_to(_V1) else _resident(pid)
        )  # version 1 counts what is taken from now on
        limit = "memory.limit_in_bytes" if folder.is_relative_to(_V1) else "memory.max"
        (folder / limit).write_text(str(held + spare_bytes))
        with suppress(OSError):  # without swap there is none to forbid
            swap = "memory.memsw.limit_in_bytes" if folder.is_relative_to(_V1) else "memory.swap.max"
            (folder / swap).write_text(str(held + spare_bytes) if folder.is_relative_to(_V1) else "0")
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"this machine lets nobody limit a process's memory: {error}")
    try:
        yield MemoryLimit(folder)
    finally:
        eventually(lambda: not (folder / "cgroup.procs").read_text(), "its processes are gone")
        folder.rmdir()


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

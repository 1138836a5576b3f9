"""A bounded queue of appends on disk: what is put in is durable (fsync), comes out in order, and survives
kill -9.

Segments of entries (``spool_format``), each named by the number of its first entry, and one file that says
how far they are drained (``spool_state``). Blocking: not for an event loop. Not thread-safe.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from log.spool import format as spool_format
from log.spool.format import Entry
from log.spool.state import Progress, ProgressFile
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition

_LOGGER = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
"""A segment takes no more entries from this size on; it goes when all of them are drained."""

COUNTS_BYTES = 1 << 20
"""Room beyond the limit for counts of what was refused (records without a value)."""

SUFFIX = ".spool"


class SpoolLocked(LogUnavailable):
    """Another process uses this folder."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Entries in order. With them all numbers below ``until`` are done, of which ``lost`` cannot be read."""

    entries: list[Entry]
    until: int
    lost: int = 0
    path: Path | None = None
    at: int = 0
    """The segment in which it ends, and where."""


@dataclass(slots=True)
class _Segment:
    first: int
    path: Path
    size: int


class Spool:
    """The queue in ``folder``, which is locked while this is open. ``size_bytes`` on disk never passes
    ``max_bytes`` (and COUNTS_BYTES).
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open, and cut what a crash left half-written. Raises SpoolLocked, LogUnavailable (the folder cannot
        be used).
        """
        self.folder = folder
        self.lost = 0
        """Entries that were found damaged since this was opened."""
        self.oldest_time_ns = 0
        """When the oldest entry was spooled; 0 where there is none."""
        self._max_bytes = max_bytes
        self._segments: list[_Segment] = []
        self._tail: int | None = None  # of the newest segment
        self._at = 0  # how much of the oldest segment is drained
        self._next = 0
        self._closed = False
        self.progress = Progress()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / "lock")
        except OSError as error:
            raise LogUnavailable(f"the spool in {folder} cannot be used: {error}") from error
        try:
            self._progress_file = ProgressFile(folder / "progress")
        except OSError as error:
            os.close(self._lock)
            raise LogUnavailable(f"the spool in {folder} cannot be used: {error}") from error
        try:
            self._recover()
        except OSError as error:
            self.close()
            raise LogUnavailable(f"the spool in {folder} cannot be read: {error}") from error

    @property
    def entries(self) -> int:
        """How many entries wait (damaged ones too, until they are met)."""
        return self._next - self.progress.drained

    @property
    def size_bytes(self) -> int:
        """Bytes of its segments."""
        return sum(segment.size for segment in self._segments)

    def append(self, appends: Sequence[Append], ids: Sequence[bytes], since: Sequence[int]) -> None:
        """Return when all are on disk; ``since`` as Entry has it.

        Raises LogUnavailable, and then none of them is in the spool: it is full, or the disk does not take
        it.
        """
        if self._closed:
            raise LogUnavailable(f"the spool in {self.folder} is closed")
        now_ns = time.time_ns()
        try:
            data = b"".join(
                spool_format.encode(Entry(self._next + i, append, id_, offset, now_ns))
                for i, (append, id_, offset) in enumerate(zip(appends, ids, since, strict=True))
            )
        except ValueError as error:
            raise LogUnavailable(str(error)) from error
        limit = self._max_bytes + (0 if any(append.value for append in appends) else COUNTS_BYTES)
        if self.size_bytes + len(data) > limit:
            raise LogUnavailable(
                f"the spool in {self.folder} is full ({self.size_bytes:,} of {self._max_bytes:,} bytes, spool.max_size)"
            )
        try:
            self._write(data)
        except OSError as error:
            raise LogUnavailable(
                f"the spool in {self.folder} cannot be written: {os.strerror(error.errno or errno.EIO)}"
            ) from error
        self._next += len(appends)
        self.oldest_time_ns = self.oldest_time_ns or now_ns

    def peek(self, max_bytes: int) -> Chunk:
        """What is next, about ``max_bytes`` of values (but one entry if there is one). Raises
        LogUnavailable.
        """
        try:
            chunk = self._peek(max_bytes)
        except OSError as error:
            raise LogUnavailable(f"the spool in {self.folder} cannot be read: {error}") from error
        if chunk.entries:
            self.oldest_time_ns = chunk.entries[0].time_ns
        return chunk

    def note_sending(self, until: int, ends: Mapping[TopicPartition, int]) -> None:
        """Before entries below ``until`` are sent: so a next process knows to look for them from ``ends`` on.
        Raises LogUnavailable.
        """
        self._note(Progress(self.progress.drained, max(until, self.progress.sent), ends))

    def drop(self, chunk: Chunk) -> None:
        """The chunk that was peeked last is in the log; what is damaged in it is given up. Raises
        LogUnavailable.
        """
        self._note(Progress(chunk.until, max(chunk.until, self.progress.sent), self.progress.ends))
        if chunk.lost:
            self.lost += chunk.lost
            _LOGGER.error(
                "the spool in %s: %d entries before number %d are damaged and lost",
                self.folder,
                chunk.lost,
                chunk.until,
            )
        self._forget()
        if self._segments and self._segments[0].path == chunk.path:
            self._at = chunk.at

    def close(self) -> None:
        """Let go of the folder; writes nothing."""
        self._closed = True
        if self._tail is not None:
            os.close(self._tail)
            self._tail = None
        self._progress_file.close()
        os.close(self._lock)

    def _recover(self) -> None:
        self.progress = self._progress_file.read()
        paths = sorted(self.folder.glob(f"*{SUFFIX}"))
        self._segments = [_Segment(int(path.stem), path, path.stat().st_size) for path in paths]
        self._next = self.progress.drained
        if self._segments:
            self._next = max(self._next, self._mend(self._segments[-1]))
        if (
            not self._progress_file.read_back
        ):  # it is new; or it went with the disk, and then anything may have been sent
            self.progress = Progress(self._segments[0].first if self._segments else 0, self._next)
            self._progress_file.write(self.progress)
        self._forget()
        if head := self._peek(1).entries:
            self.oldest_time_ns = head[0].time_ns

    def _mend(self, newest: _Segment) -> int:
        """Cut what is not whole from the end of the newest segment; the number that the next entry gets."""
        found = list(spool_format.frames(newest.path.read_bytes(), newest.first))
        end = found[-1].end if found else 0
        if end < newest.size:
            _LOGGER.info("%s: cut %d bytes that were not written to the end", newest.path, newest.size - end)
            os.truncate(newest.path, end)
            newest.size = end
        return found[-1].number + 1 if found else newest.first

    def _write(self, data: bytes) -> None:
        if self._tail is None or self._segments[-1].size >= SEGMENT_BYTES:
            self._roll()
        assert self._tail is not None
        newest = self._segments[-1]
        try:
            _write_all(self._tail, data, newest.size)
            os.fsync(self._tail)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._tail, newest.size)
            raise
        newest.size += len(data)

    def _roll(self) -> None:
        """Go on in a new segment, whose name is durable."""
        path = self.folder / f"{self._next:020d}{SUFFIX}"
        tail = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _sync_folder(self.folder)
        except OSError:
            os.close(tail)
            raise
        if self._tail is not None:
            os.close(self._tail)
        self._tail = tail
        if not self._segments or self._segments[-1].path != path:  # an empty one may have that name
            self._segments.append(_Segment(self._next, path, 0))

    def _peek(self, max_bytes: int) -> Chunk:
        entries: list[Entry] = []
        taken = lost = 0
        expected, at = self.progress.drained, self._at
        for segment, following in zip_longest(self._segments, self._segments[1:]):
            data = _read(segment.path, at, segment.size - at)
            for frame in spool_format.frames(data, expected):
                lost += frame.number - expected
                expected = frame.number + 1
                entries.append(spool_format.decode(data, frame))
                taken += len(entries[-1].append.value)
                if taken >= max_bytes:
                    return Chunk(entries, expected, lost, segment.path, at + frame.end)
            until = following.first if following else self._next
            lost += max(0, until - expected)
            expected, at = max(until, expected), 0
        if not self._segments:
            return Chunk(entries, expected, lost)
        return Chunk(entries, expected, lost, self._segments[-1].path, self._segments[-1].size)

    def _note(self, progress: Progress) -> None:
        try:
            self._progress_file.write(progress)
        except OSError as error:
            raise LogUnavailable(f"the spool in {self.folder} cannot note how far it is: {error}") from error
        self.progress = progress

    def _forget(self) -> None:
        """Remove segments that are drained."""
        drained = self.progress.drained
        while self._segments and drained >= (
            self._segments[1].first if len(self._segments) > 1 else self._next
        ):
            if len(self._segments) == 1 and self._tail is not None:
                os.close(self._tail)
                self._tail = None
            self._segments.pop(0).path.unlink(missing_ok=True)
            self._at = 0
        if not self._segments:
            self.oldest_time_ns = 0


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SpoolLocked(f"the spool in {path.parent} is in use by another process") from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _read(path: Path, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


def _write_all(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

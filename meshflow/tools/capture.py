"""Captured Export requests: ``[u32 big-endian length][request]``, repeated; files may be gzipped."""

import gzip
import heapq
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from schemas.errors import MalformedOtlp, MeshflowError
from schemas.otlp.shift import Captured, read
from schemas.topics import LOGS, METRICS, SPANS

_LENGTH = struct.Struct(">I")
_LARGEST = 256 << 20
_GZIP = b"\x1f\x8b"
_NAMES = {"trace": SPANS, "span": SPANS, "metric": METRICS, "log": LOGS}


class CaptureBroken(MeshflowError):
    """A file is not there, or is not a capture."""


def read_captures(
    paths: Sequence[Path], on_bytes: Callable[[int], None] = lambda _: None
) -> Iterator[Captured]:
    """The requests of all files, in the order in which they were sent; ``on_bytes`` gets the number of bytes
    of files that were read since its last call.

    Raises CaptureBroken, with the file and the place in it.
    """
    with ExitStack() as files:
        streams = [_read_file(path, files.enter_context(_open(path)), on_bytes) for path in paths]
        yield from heapq.merge(*streams, key=lambda captured: captured.newest_ns)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CaptureBroken(f"{path} cannot be read: {error.strerror}") from error


def _read_file(path: Path, file: BinaryIO, on_bytes: Callable[[int], None]) -> Iterator[Captured]:
    likely = next((topic for word, topic in _NAMES.items() if word in path.name.lower()), None)
    packed = file.read(2) == _GZIP
    file.seek(0)
    unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
    reported = 0
    number = 0
    while request := _next(path, unpacked, number):
        number += 1
        try:
            captured = read(request, likely)
        except MalformedOtlp as error:
            raise CaptureBroken(f"{path}: request {number} is {error}") from error
        likely = captured.topic
        on_bytes(file.tell() - reported)
        reported = file.tell()
        yield captured


def _next(path: Path, file: BinaryIO, number: int) -> bytes:
    """The next request; b"" at the end of the file (empty requests are left out)."""
    try:
        while head := file.read(_LENGTH.size):
            if len(head) < _LENGTH.size:
                raise CaptureBroken(f"{path} ends within the length of request {number + 1}")
            (length,) = _LENGTH.unpack(head)
            if length > _LARGEST:
                raise CaptureBroken(
                    f"{path} is not a capture: request {number + 1} would be {length} bytes long"
                )
            request = file.read(length)
            if len(request) < length:
                raise CaptureBroken(f"{path} ends within request {number + 1}")
            if request:
                return request
    except (OSError, EOFError) as error:
        raise CaptureBroken(f"{path} cannot be unpacked: {error}") from error
    return b""

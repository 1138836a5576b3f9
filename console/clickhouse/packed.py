"""Packed bodies of requests: gzip, deflate, zstd, lz4 (``Content-Encoding``), and ClickHouse's blocks,
unpacked piece by piece. No I/O here.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import lz4.frame
from backports.zstd import ZstdDecompressor, ZstdError

from console.clickhouse.compressed import Unpacker

ERRORS = (ValueError, RuntimeError, EOFError, zlib.error, ZstdError)
"""What unpacking raises: not packed so, or damaged."""

_PIECE = 1 << 20
_WINDOW = 16 << 10
"""A frame that ends copies what follows it: at most this much."""
_GZIP_WBITS, _ZLIB_WBITS = 31, 15


class Unpacking(Protocol):
    """Unpacks a body as it comes in."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Pieces of what ``chunk`` brings, each of bounded size and time. Raises :data:`ERRORS`."""

    def finish(self) -> None:
        """Raises ValueError: the body ends early."""

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for more to come."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Frames:
    """Any number of frames (members, with gzip), one after the other."""

    held_bytes = 0

    def __init__(self, make: Callable[[], _Decompressor]) -> None:
        self._make = make
        self._frame = make()
        self._whole = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """See :class:`Unpacking`."""
        for start in range(0, len(chunk), _WINDOW):
            rest = chunk[start : start + _WINDOW]
            while rest or not (self._whole or self._frame.needs_input):
                if self._whole:
                    self._frame, self._whole = self._make(), False
                if piece := self._frame.decompress(rest, _PIECE):
                    yield piece
                rest = b""
                if self._frame.eof:
                    rest, self._whole = self._frame.unused_data or b"", True

    def finish(self) -> None:
        """See :class:`Unpacking`."""
        if not self._whole:
            raise ValueError("it ends early")


class _Zlib:
    """zlib's decompressor as those of the other libraries are."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(unpacked) < max_length
        return unpacked


_FRAMES: dict[str, Callable[[], _Decompressor]] = {
    "gzip": lambda: _Zlib(_GZIP_WBITS),
    "deflate": lambda: _Zlib(_ZLIB_WBITS),
    "zstd": ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
}


def unpacking_of(encoding: str, compressed: bool, largest_block: int) -> Unpacking | None:
    """What unpacks a body with this Content-Encoding (lower case), or of ClickHouse's own compressed
    blocks; None for a plain one. Raises KeyError: an encoding that is not known.
    """
    if compressed:
        return Unpacker(largest_block)
    return None if encoding in {"", "identity"} else Frames(_FRAMES[encoding])

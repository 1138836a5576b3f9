"""ClickHouse's compressed blocks (``compress=1``, ``decompress=1``), after
src/Compression/CompressedWriteBuffer.cpp. No I/O here.

A block: CityHash128 (as of version 1.0.2) of what follows, a byte that names the method, the length of the
packed block with its nine bytes of header, the length unpacked, and the packed bytes.
"""

import struct
from collections.abc import Iterator

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

_LZ4, _NONE = 0x82, 0x02
_HASH = struct.Struct("<QQ")
_HEADER = struct.Struct("<BII")
_BEGIN = _HASH.size + _HEADER.size
_BLOCK = 1 << 20
_MASK = (1 << 64) - 1
LARGEST = 64 << 20
"""Of a block that a client sends: clickhouse-go makes one of all rows of an INSERT; others send 1 MiB."""


def pack(body: bytes) -> bytes:
    """The blocks of a body, in LZ4."""
    return b"".join(_pack(body[start : start + _BLOCK]) for start in range(0, len(body), _BLOCK))


class Unpacker:
    """Bodies of requests, as they come in; each block at most ``largest`` bytes, unpacked too."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._held = bytearray()
        self._needed = _BEGIN

    @property
    def held_bytes(self) -> int:
        """Bytes of blocks that are not whole yet."""
        return len(self._held)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What whole blocks hold. Raises ValueError: not such blocks, too large ones, or damaged.

        The time is that of the bytes, in however many chunks they come.
        """
        self._held += chunk
        while len(self._held) >= self._needed:
            if self._needed == _BEGIN:
                self._needed = _HASH.size + self._packed_size()
                continue
            block = bytes(self._held[: self._needed])
            del self._held[: self._needed]
            self._needed = _BEGIN
            yield _unpack(block)

    def finish(self) -> None:
        """Raises ValueError: the last block ends early."""
        if self._held:
            raise ValueError("the last compressed block ends early")

    def _packed_size(self) -> int:
        """Of the block that begins, with its header."""
        _, packed, unpacked = _HEADER.unpack_from(self._held, _HASH.size)
        if packed <= _HEADER.size or max(packed, unpacked) > self._largest:
            raise ValueError(
                f"a block of {packed} bytes, {unpacked} unpacked, is not one of ClickHouse's compressed blocks, "
                f"or larger than {self._largest} bytes"
            )
        return int(packed)


def _pack(chunk: bytes) -> bytes:
    packed: bytes = lz4.block.compress(chunk, store_size=False)
    block = _HEADER.pack(_LZ4, len(packed) + _HEADER.size, len(chunk)) + packed
    return _hash(block) + block


def _unpack(block: bytes) -> bytes:
    if _hash(block[_HASH.size :]) != block[: _HASH.size]:
        raise ValueError("the checksum of a compressed block is not that of its bytes")
    method, _, size = _HEADER.unpack_from(block, _HASH.size)
    packed = block[_BEGIN:]
    if method == _NONE:
        return packed
    if method != _LZ4:
        raise ValueError(f"compression method {method:#x} is not known here; use LZ4")
    try:
        unpacked: bytes = lz4.block.decompress(packed, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise ValueError(str(error)) from error
    return unpacked


def _hash(block: bytes) -> bytes:
    number: int = CityHash128(block)
    return _HASH.pack(number >> 64, number & _MASK)

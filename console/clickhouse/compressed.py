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
_BLOCK = 1 << 20
_MASK = (1 << 64) - 1
_LARGEST = 64 << 20
"""Of a block that a client sends; clients send 1 MiB."""


def pack(body: bytes) -> bytes:
    """The blocks of a body, in LZ4."""
    return b"".join(_pack(body[start : start + _BLOCK]) for start in range(0, len(body), _BLOCK))


class Unpacker:
    """Bodies of requests, as they come in."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What whole blocks hold. Raises ValueError: not such blocks, or damaged."""
        data = self._rest + chunk
        position = 0
        while len(data) - position >= _HASH.size + _HEADER.size:
            begin = position + _HASH.size
            method, packed, unpacked = _HEADER.unpack_from(data, begin)
            if not _HEADER.size <= packed <= _LARGEST or unpacked > _LARGEST:
                raise ValueError(
                    f"a block of {packed} bytes, {unpacked} unpacked, is not one of ClickHouse's compressed blocks"
                )
            if len(data) - begin < packed:
                break
            block = data[begin : begin + packed]
            if _hash(block) != data[position:begin]:
                raise ValueError("the checksum of a compressed block is not that of its bytes")
            yield _unpack(method, block[_HEADER.size :], unpacked)
            position = begin + packed
        self._rest = data[position:]

    def finish(self) -> None:
        """Raises ValueError: the last block ends early."""
        if self._rest:
            raise ValueError("the last compressed block ends early")


def _pack(chunk: bytes) -> bytes:
    packed: bytes = lz4.block.compress(chunk, store_size=False)
    block = _HEADER.pack(_LZ4, len(packed) + _HEADER.size, len(chunk)) + packed
    return _hash(block) + block


def _unpack(method: int, packed: bytes, size: int) -> bytes:
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

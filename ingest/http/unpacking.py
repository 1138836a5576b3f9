"""Packed bodies of requests (``Content-Encoding``), unpacked as far as a limit goes.

The encodings are those of the OpenTelemetry Collector's clients (confighttp): gzip, zstd (RFC 8878), zlib and
deflate (both RFC 1950 there; deflate without its header too, as some clients send), lz4 (frames), snappy
(framed by a Collector's client and as x-snappy-framed, one block of other clients).
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import lz4.frame
import pyarrow as pa
from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

from ingest.admission import RequestTooLarge
from schemas.errors import MalformedOtlp

MAX_MEMBERS = 1024
"""Of a gzip body (frames of zstd and lz4 too): an empty one has 20 bytes and costs as much as many
(``native/src/receive/inflate.rs`` has the same).
"""

_GZIP_WBITS, _ZLIB_WBITS, _RAW_WBITS = 31, 15, -15
_MAX_ZSTD_WINDOW = 25
"""log2 of the bytes that a frame may ask its reader to keep: 32 MiB, the most that Go's encoder asks for."""
_CHUNK_BYTES = 64 << 10  # zlib copies what follows the end of a member: never more than this
_SNAPPY_HEAD = b"\xff\x06\x00\x00sNaPpY"
_SNAPPY_CHUNK = 65_536
_CRC_BYTES = 4


class _Frame(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def gunzip(body: bytes, limit: int) -> bytes:
    """``body`` unpacked (RFC 1952, several members too), never making more than ``limit`` bytes and one.

    Raises RequestTooLarge beyond ``limit``, MalformedOtlp where it is not gzip, ends too early or has too
    many members.
    """
    return _frames("gzip", lambda: zlib.decompressobj(_GZIP_WBITS), body, limit)


def _inflate(body: bytes, limit: int) -> bytes:
    """The same for zlib, and for deflate without zlib's header."""
    has_head = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    return _frames(
        "deflate", lambda: zlib.decompressobj(_ZLIB_WBITS if has_head else _RAW_WBITS), body, limit
    )


def _unzstd(body: bytes, limit: int) -> bytes:
    options: dict[int, int] = {DecompressionParameter.window_log_max: _MAX_ZSTD_WINDOW}
    return _frames("zstd", lambda: ZstdDecompressor(options=options), body, limit)


def _unlz4(body: bytes, limit: int) -> bytes:
    return _frames("lz4", lz4.frame.LZ4FrameDecompressor, body, limit)


def _frames(name: str, make: Callable[[], _Frame], body: bytes, limit: int) -> bytes:
    """Frames (members, with gzip), one after the other."""
    unpacked: list[bytes] = []
    at, room, members = 0, limit, 0
    while at < len(body):
        members += 1
        if members > MAX_MEMBERS:
            raise MalformedOtlp(f"the {name} data has more than {MAX_MEMBERS:,} members")
        frame = make()
        while not frame.eof:
            chunk = body[at : at + _CHUNK_BYTES]
            if not chunk:
                raise MalformedOtlp(f"the {name} data ends too early")
            try:
                unpacked.append(frame.decompress(chunk, room + 1))
            except (zlib.error, ZstdError, RuntimeError, ValueError, EOFError) as error:
                raise MalformedOtlp(f"not {name}: {error}") from error
            room -= len(unpacked[-1])
            if room < 0:
                raise too_large(limit)
            at += len(chunk) - len(frame.unused_data or b"")
    return b"".join(unpacked)


def _unsnappy(body: bytes, limit: int) -> bytes:
    """One block, or chunks behind the stream identifier (google/snappy, ``framing_format.txt``; their
    checksums are not looked at).
    """
    if not body.startswith(_SNAPPY_HEAD):
        return _block(body, limit, limit)
    unpacked: list[bytes] = []
    at, room = 0, limit
    while at < len(body):
        kind, size = body[at], int.from_bytes(body[at + 1 : at + 4], "little")
        begin, at = at + 4, at + 4 + size
        if at > len(body):
            raise MalformedOtlp("the snappy data ends too early")
        if kind >= 0x80:  # the identifier again, padding, what may be skipped
            continue
        if kind > 1 or size < _CRC_BYTES:
            raise MalformedOtlp(f"not snappy: a chunk of kind {kind} and {size:,} bytes")
        data = body[begin + _CRC_BYTES : at]
        unpacked.append(_block(data, min(room, _SNAPPY_CHUNK), limit) if kind == 0 else data)
        room -= len(unpacked[-1])
        if room < 0:
            raise too_large(limit)
    return b"".join(unpacked)


def _block(data: bytes, room: int, limit: int) -> bytes:
    """A block of snappy: it begins with the size that it unpacks to."""
    size = 0
    for index, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    else:
        raise MalformedOtlp("not snappy: a block without its size")
    if size > room:
        raise too_large(limit)
    try:
        unpacked: bytes = pa.decompress(data, decompressed_size=size, codec="snappy", asbytes=True)
    except (OSError, ValueError) as error:
        raise MalformedOtlp(f"not snappy: {error}") from error
    return unpacked


def too_large(limit: int) -> RequestTooLarge:
    """What is raised beyond a limit."""
    return RequestTooLarge(f"the request unpacks to more than {limit:,} bytes")


UNPACKERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": gunzip,
    "x-gzip": gunzip,
    "zstd": _unzstd,
    "deflate": _inflate,
    "zlib": _inflate,
    "snappy": _unsnappy,
    "x-snappy-framed": _unsnappy,
    "lz4": _unlz4,
}
"""By Content-Encoding; arguments and errors as :func:`gunzip`."""

ACCEPTED = ", ".join(UNPACKERS)
"""The value of ``Accept-Encoding`` in an answer to one that is not read here (RFC 9110, 12.5.3)."""

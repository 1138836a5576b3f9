"""Packed requests as Collectors and other clients send them, on HTTP and gRPC; bombs and damage of each."""

import asyncio
import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import aiohttp
import lz4.frame
import pyarrow as pa
import pytest
from backports import zstd
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from ingest.admission import RequestTooLarge
from ingest.http.encoding import JSON, PROTOBUF
from ingest.http.unpacking import UNPACKERS
from ingest.server import IngestServer
from schemas.errors import MalformedOtlp
from tests.support.memory_log import MemoryLog
from tests.support.receiving import receiving, span_ids, traces
from tests.support.wire import EXPORT, Wire, message


def snappy(plain: bytes) -> bytes:
    """One block."""
    packed: bytes = pa.compress(plain, codec="snappy", asbytes=True)
    return packed


def framed_snappy(plain: bytes) -> bytes:
    """As Go's snappy.NewBufferedWriter has it; the checksums (which are not looked at over HTTP) are right
    for the native receiver, which does look.
    """
    out = b"\xff\x06\x00\x00sNaPpY"
    for at in range(0, len(plain), 65_536):
        piece = plain[at : at + 65_536]
        packed = snappy(piece)
        kind, data = (0, packed) if len(packed) < len(piece) else (1, piece)
        out += bytes([kind]) + (len(data) + 4).to_bytes(3, "little") + masked_crc32c(piece) + data
    return out


def masked_crc32c(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def raw_deflate(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(plain) + packer.flush()


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("zstd", zstd.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zlib", zlib.compress),
    ("snappy", snappy),
    ("snappy", framed_snappy),
    ("x-snappy-framed", framed_snappy),
    ("lz4", lz4.frame.compress),
]
every_packing = pytest.mark.parametrize(
    ("encoding", "pack"), PACKED, ids=[f"{name}-{pack.__name__}" for name, pack in PACKED]
)


async def post(
    server: IngestServer, body: bytes, encoding: str, content_type: str = PROTOBUF
) -> tuple[int, bytes, "dict[str, str]"]:
    headers = {"Content-Type": content_type, "Content-Encoding": encoding}
    address = f"http://127.0.0.1:{server.http_port}/v1/traces"
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, data=body, headers=headers) as response,
    ):
        return response.status, await response.read(), dict(response.headers)


@every_packing
async def test_a_packed_request_over_http(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    log = MemoryLog()
    async with receiving(log) as server:
        small, large = traces(0, 20), traces(20, 200, padding=1_000)
        for request in (small, large):
            assert (await post(server, pack(request), encoding))[:2] == (200, b"")
        json = b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "%032x", "spanId": "%016x"}]}]}]}'
        assert (await post(server, pack(json % (221, 221)), encoding, JSON))[:2] == (200, b"{}")
    assert sorted(log.span_ids()) == span_ids(0, 221)


@every_packing
async def test_a_bomb_is_refused_as_it_is_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = bombs(pack)
    async with receiving(MemoryLog(), max_message="1MiB") as server:
        tracemalloc.start()
        status, body, _ = await post(server, bomb, encoding)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (status, Status.FromString(body).code) == (413, 8), body
        assert peak_bytes < 24 << 20
        assert server.held_bytes == 0


_BOMBS: dict[Callable[[bytes], bytes], bytes] = {}


def bombs(pack: Callable[[bytes], bytes]) -> bytes:
    """50 MiB in as little as the packing makes of it, up to 1 MiB."""
    if pack is framed_snappy:
        return b"\xff\x06\x00\x00sNaPpY" + framed_snappy(bytes(65_536))[10:] * 300
    if pack not in _BOMBS:
        size = 19 << 20 if pack is snappy else 50 << 20
        _BOMBS[pack] = pack(bytes(size))
        assert len(_BOMBS[pack]) < 1 << 20
    return _BOMBS[pack]


@every_packing
async def test_what_is_damaged_is_refused(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(traces(0, 50))
    async with receiving(MemoryLog()) as server:
        for damaged in (packed[:-1], packed[: len(packed) // 2], b"not packed at all", packed[1:]):
            status, body, _ = await post(server, damaged, encoding)
            assert (status, Status.FromString(body).code) == (400, 3), damaged
        assert (await post(server, packed, encoding))[0] == 200


@pytest.mark.parametrize("encoding", ["br", "gzip, zstd", "compress"])
async def test_an_encoding_that_is_not_read_is_answered_with_those_that_are(encoding: str) -> None:
    async with receiving(MemoryLog()) as server:
        status, body, headers = await post(server, b"", encoding)
        assert status == 415
        assert headers["Accept-Encoding"].split(", ") == list(UNPACKERS)
        assert "send gzip, x-gzip, zstd" in Status.FromString(body).message
        status, _, headers = await post(server, b"", "", "text/html")
        assert (status, headers["Accept"]) == (415, f"{PROTOBUF}, {JSON}")


def test_frames_may_follow_one_another_and_not_too_many() -> None:
    for name, pack in (("zstd", zstd.compress), ("lz4", lz4.frame.compress), ("gzip", gzip.compress)):
        assert UNPACKERS[name](pack(b"a") + pack(b"bc"), 3) == b"abc"
        with pytest.raises(MalformedOtlp, match="members"):
            UNPACKERS[name](pack(b"") * 1_025, 100)


def test_a_frame_of_zstd_may_not_ask_for_a_window_without_bound() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b"x" * 100, mode=zstd.ZstdCompressor.FLUSH_BLOCK) + packer.flush()
    with pytest.raises(MalformedOtlp, match="not zstd"):
        UNPACKERS["zstd"](packed, 1_000)


@given(st.sampled_from(list(UNPACKERS)), st.binary(max_size=200), st.integers(0, 100))
def test_any_bytes_are_unpacked_or_refused(name: str, body: bytes, limit: int) -> None:
    for begun in (body, b"\xff\x06\x00\x00sNaPpY" + body):
        try:
            assert len(UNPACKERS[name](begun, limit)) <= limit
        except (MalformedOtlp, RequestTooLarge):
            continue


GRPC = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("zstd", zstd.compress),
    ("snappy", framed_snappy),
    ("snappy", snappy),
]


def call(port: int, body: bytes, encoding: str) -> tuple[str | None, dict[str, str]]:
    """The grpc-status and headers of an Export with a compressed message."""
    with Wire(port).begin() as wire:
        wire.send(wire.request(1, message(body, compressed=True), [*EXPORT, ("grpc-encoding", encoding)]))
        heard = wire.listen(1)
        return heard.status(1), heard.headers[1]


@pytest.mark.component("native")
@pytest.mark.parametrize(("encoding", "pack"), GRPC, ids=[f"{name}-{pack.__name__}" for name, pack in GRPC])
async def test_a_packed_request_over_grpc(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    log = MemoryLog()
    async with receiving(log, receiver="native", max_message="1MiB") as server:
        large = traces(20, 200, padding=1_000)
        for request in (traces(0, 20), large):
            status, _ = await asyncio.to_thread(call, server.grpc_port, pack(request), encoding)
            assert status == "0"
        over = pack(bytes((1 << 20) + 65_536))  # fits the window of a connection, which Wire does not look at
        bomb = await asyncio.to_thread(call, server.grpc_port, over, encoding)
        assert (bomb[0], "unpacks to more than" in bomb[1]["grpc-message"]) == ("8", True)
        for damaged in (pack(large)[:-1], b"not packed at all"):
            status, _ = await asyncio.to_thread(call, server.grpc_port, damaged, encoding)
            assert status == "13"
        assert server.held_bytes == 0
    assert sorted(log.span_ids()) == span_ids(0, 220)


@pytest.mark.component("native")
async def test_a_grpc_encoding_that_is_not_read_is_answered_with_those_that_are() -> None:
    """As gRPC's doc/compression.md asks."""
    async with receiving(MemoryLog(), receiver="native") as server:
        status, headers = await asyncio.to_thread(call, server.grpc_port, b"abc", "lz4")
    assert (status, headers["grpc-accept-encoding"]) == ("12", "identity,gzip,deflate,zstd,snappy")
    assert "send one of identity,gzip,deflate,zstd,snappy" in headers["grpc-message"]


@pytest.mark.parametrize("encoding", ["zstd", "snappy", "lz4"])
async def test_grpcio_itself_answers_encodings_that_it_does_not_read(encoding: str) -> None:
    """Its core fails to parse the header before a filter, an interceptor or a handler is asked: INTERNAL with
    the header's name, which OTLP's clients do not repeat. Other calls of the connection are taken.
    """
    log = MemoryLog()
    async with receiving(log, receiver="grpcio") as server:

        def calls() -> list[tuple[str | None, str, str]]:
            with Wire(server.grpc_port).begin() as wire:
                encoded = [*EXPORT, ("grpc-encoding", encoding)]
                wire.send(wire.request(1, message(b"abc", compressed=True), encoded))
                wire.send(wire.request(3, message(traces(0, 1)), EXPORT))
                refused, taken = wire.listen(1), wire.listen(3)
                headers = refused.headers[1]
                accepted = headers.get("grpc-accept-encoding", "")
                return [(refused.status(1), headers["grpc-message"], accepted), (taken.status(3), "", "")]

        answers = await asyncio.to_thread(calls)
    assert answers == [("13", "Error parsing 'grpc-encoding' metadata", ""), ("0", "", "")]
    assert log.span_ids() == span_ids(0, 1)

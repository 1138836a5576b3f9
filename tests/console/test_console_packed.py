"""Packed bodies: any cut gives the same, damage is an error, and hostile ones cost what their bytes cost."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import lz4.block
import lz4.frame
import pytest
from backports import zstd
from clickhouse_cityhash.cityhash import CityHash128
from hypothesis import given
from hypothesis import strategies as st

from console.clickhouse import compressed
from console.clickhouse.compressed import Unpacker
from console.clickhouse.insert import reads, split_insert
from console.clickhouse.packed import ERRORS, Unpacking, unpacking_of
from tests.console.plain_http import SameAnswer, ask, connect, eventually, request, serving

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
    "blocks": compressed.pack,
}
STATEMENT = 1 << 16
BOMB = 64 << 20


def unpacking(kind: str) -> Unpacking:
    found = unpacking_of("" if kind == "blocks" else kind, kind == "blocks", 1 << 26)
    assert found is not None
    return found


def unpack(kind: str, *chunks: bytes) -> bytes:
    unpacker = unpacking(kind)
    unpacked = b"".join(piece for chunk in chunks for piece in unpacker.feed(chunk))
    unpacker.finish()
    return unpacked


@given(
    st.sampled_from(sorted(PACK)),
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    st.lists(st.integers(0, 2000), max_size=6),
)
def test_any_cut_gives_the_same(kind: str, parts: list[bytes], cuts: list[int]) -> None:
    packed = b"".join(map(PACK[kind], parts)) if kind != "deflate" else PACK[kind](b"".join(parts))
    places = sorted({0, len(packed), *(cut % (len(packed) + 1) for cut in cuts)})
    chunks = [packed[begin:end] for begin, end in pairwise(places)]
    assert unpack(kind, *chunks) == b"".join(parts)


@given(st.sampled_from(sorted(PACK)), st.binary(min_size=1, max_size=200), st.data())
def test_what_ends_early_is_an_error(kind: str, plain: bytes, data: st.DataObject) -> None:
    packed = PACK[kind](plain)
    cut = data.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(ERRORS):
        unpack(kind, packed[:cut])


@given(st.sampled_from(sorted(PACK)), st.binary(max_size=100))
def test_junk_is_an_error_or_a_body(kind: str, junk: bytes) -> None:
    with suppress(*ERRORS):
        unpack(kind, junk)


@pytest.mark.timeout(60)  # as long as their bytes take, not as their square
def test_blocks_that_come_in_small_pieces_take_their_bytes_time() -> None:
    plain = os.urandom(16 << 20)
    packed = lz4.block.compress(plain, store_size=False)
    rest = struct.pack("<BII", 0x82, len(packed) + 9, len(plain)) + packed
    number = CityHash128(rest)
    block = struct.pack("<QQ", number >> 64, number & ((1 << 64) - 1)) + rest
    unpacker = Unpacker()
    pieces = [piece for at in range(0, len(block), 16) for piece in unpacker.feed(block[at : at + 16])]
    assert pieces == [plain]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4"])
def test_many_frames_take_their_bytes_time(kind: str) -> None:
    frames = PACK[kind](b"") * 200_000
    assert unpack(kind, frames) == b""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        b"'\\" * 500_000,
        b"/*" * 500_000,
        b'"\\' * 500_000 + b"x",
        b"`" * 999_999,
        b"''" * 500_000 + b"\\",
        b"(" * 1_000_000,
    ],
    ids=["escapes", "comments", "escapes and a letter", "names", "texts", "brackets"],
)
def test_hostile_statements_take_their_bytes_time(text: bytes) -> None:
    assert split_insert(b"INSERT INTO t " + text) in (None, 14 + len(text))
    assert not reads("INSERT " + text.decode())


@pytest.mark.parametrize("kind", sorted(PACK))
def test_a_bomb_comes_in_bounded_pieces(kind: str) -> None:
    sizes = [len(piece) for piece in unpacking(kind).feed(PACK[kind](bytes(BOMB)))]
    assert sum(sizes) == BOMB
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("kind", sorted(PACK))
async def test_bombs_are_refused(kind: str, tmp_path: Path) -> None:
    header = "X-None: 1" if kind == "blocks" else f"Content-Encoding: {kind}"
    url = f"/?decompress={int(kind == 'blocks')}"
    bomb = PACK[kind](b" " * BOMB)
    async with serving(max_request_size=STATEMENT) as server:
        reply = await ask(server, request(url, bomb, header))
        assert (reply.status, reply.headers["x-clickhouse-exception-code"]) in {(413, "229"), (400, "271")}
        assert (await ask(server, request(url, PACK[kind](b"SELECT 1"), header))).body == b"1\n"
    engine = SameAnswer()
    insert = url + "&query=INSERT+INTO+t+FORMAT+TSV"
    async with serving(engine, tmp_path, max_insert_size=1 << 20) as server:
        assert (await ask(server, request(insert, bomb, header))).status == 413
        assert (await ask(server, request(insert, PACK[kind](b"1\n2\n"), header))).status == 200
    assert engine.rows == [b"1\n2\n"]
    assert os.listdir(tmp_path) == []


async def test_a_body_without_an_end_that_unpacks_to_nothing_is_refused() -> None:
    empty = gzip.compress(b"") * 10_000
    async with serving(max_request_size=STATEMENT) as server:
        assert (await ask(server, request("/", empty, "Content-Encoding: gzip"))).status == 413
        chunked = request(
            "/",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(empty), empty),
            "Content-Encoding: gzip",
            "Transfer-Encoding: chunked",
        )
        assert (await ask(server, chunked)).status == 413


async def test_rows_of_all_together_are_bounded(tmp_path: Path) -> None:
    size = 1 << 20
    url = "/?query=INSERT+INTO+t+FORMAT+TSV"
    half = request(url, b"1" * (size // 2), f"Content-Length: {size}")
    bounds = {"max_insert_size": size, "max_writes": 1, "max_request_size": 4096}
    async with serving(SameAnswer(), tmp_path, **bounds) as server:
        with connect(server) as client:
            client.sendall(half)
            await eventually(lambda: _size(tmp_path) >= size // 4, "rows are in a file")
            refused = await ask(server, request(url, b"1" * size))
            assert refused.headers["x-clickhouse-exception-code"] == "202"
            assert b"console.max_insert_size" in refused.body
            assert (await ask(server, request(url, b"1\n"))).status == 200
        await eventually(lambda: _size(tmp_path) == 0, "rows of who is gone are removed")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())

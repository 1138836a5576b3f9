"""Native with block info, and ClickHouse's compressed blocks, on what the engine itself writes."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.clickhouse import compressed
from console.clickhouse import native_format as native
from schemas.errors import QueryFailed
from schemas.sql import Limits, Query
from storage.sql.chdb_engine import ChdbEngine

LIMITS = Limits(time_s=60, memory_bytes=1 << 30, threads=1, result_bytes=64 << 20)
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"

VALUES = (
    "number",
    "toString(number)",
    "repeat('x', number % 300)",
    "[number, number]",
    "arrayMap(n -> toString(n), range(number % 4))",
    "CAST([], 'Array(LowCardinality(String))')",
    "[toLowCardinality(toString(number % 3))]",
    "map('a', toLowCardinality('b'), toString(number), toLowCardinality('d'))",
    "CAST(map('k', 'v'), 'Map(LowCardinality(String), String)')",
    "tuple(1, 'x', [toLowCardinality('y')])",
    "CAST((number, 'a, (b'), 'Tuple(n UInt64, `a b` String)')",
    "toLowCardinality(if(number % 2, NULL, toString(number)))",
    "if(number % 2, NULL, number)",
    "if(number % 2, NULL, toString(number))",
    "NULL",
    "toDateTime64(number, 9, 'UTC')",
    "toDateTime(number, 'Asia/Tokyo')",
    "toDate(number)",
    "toDate32(number)",
    "toDecimal32(1.5, 3)",
    "toDecimal128(1.5, 3)",
    "toFixedString(toString(number % 10), 5)",
    "generateUUIDv4()",
    "toIPv4('1.2.3.4')",
    "toIPv6('::1')",
    "CAST('a', 'Enum8(\\'a\\' = 1, \\'b)(\\' = 2)')",
    "toInt256(number)",
    "toIntervalDay(number)",
    "true",
    "toFloat32(number)",
    "[[number], []]",
    "CAST((1, 2), 'Point')",
    "CAST([(1, 2), (3, 4)], 'Ring')",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbEngine]:
    engine = ChdbEngine(str(tmp_path_factory.mktemp("store")))
    yield engine
    engine.close()


def native_of(engine: ChdbEngine, sql: str) -> bytes:
    return engine.execute(Query(sql, "Native"), LIMITS).body


@pytest.mark.parametrize("value", VALUES)
def test_every_column_is_measured(engine: ChdbEngine, value: str) -> None:
    """A wrong measure of the first column would make nonsense of the second's name."""
    body = native_of(engine, f"SELECT {value} AS first, 'end' AS last FROM numbers(1000)")
    framed = native.frame(body, native.WITH_CUSTOM_SERIALIZATION)
    assert framed.startswith(BLOCK_INFO + b"\x02\xe8\x07\x05first")
    assert framed.endswith(b"\x04last\x06String\x00" + b"\x03end" * 1000)
    assert len(framed) == len(body) + len(BLOCK_INFO) + 2
    assert native.frame(body, native.WITH_BLOCK_INFO) == BLOCK_INFO + body
    assert native.frame(body, 0) == body


def test_every_block_gets_its_info(engine: ChdbEngine) -> None:
    body = native_of(
        engine,
        "SELECT number, toLowCardinality(toString(number % 7)) FROM numbers(200000) SETTINGS max_block_size = 50000",
    )
    framed = native.frame(body, native.WITH_BLOCK_INFO)
    count = (len(framed) - len(body)) // len(BLOCK_INFO)
    assert count >= 4
    assert framed.replace(BLOCK_INFO, b"", count).count(BLOCK_INFO) == 0
    assert framed.replace(BLOCK_INFO, b"") == body


def test_an_empty_answer_names_its_columns(engine: ChdbEngine) -> None:
    body = native_of(
        engine, "SELECT number AS n, map('a', toLowCardinality('b')) AS m FROM numbers(10) WHERE number > 10"
    )
    framed = native.frame(body, native.WITH_CUSTOM_SERIALIZATION)
    assert (
        framed == BLOCK_INFO + b"\x02\x00\x01n\x06UInt64\x00\x01m\x23Map(String, LowCardinality(String))\x00"
    )


def test_a_type_that_is_not_known_is_refused(engine: ChdbEngine) -> None:
    body = native_of(engine, "SELECT sumState(number) FROM numbers(10)")
    with pytest.raises(QueryFailed, match="type AggregateFunction cannot be sent in Native") as failed:
        native.frame(body, native.WITH_BLOCK_INFO)
    assert failed.value.code == 48


@given(st.binary(max_size=2000), st.lists(st.integers(1, 700), max_size=8))
def test_packed_blocks_unpack_however_they_are_cut(body: bytes, cuts: list[int]) -> None:
    packed = compressed.pack(body) + compressed.pack(body)
    unpacker = compressed.Unpacker()
    unpacked, start = b"", 0
    for cut in [*cuts, len(packed)]:
        unpacked += b"".join(unpacker.feed(packed[start : start + cut]))
        start += cut
    unpacker.finish()
    assert unpacked == body * 2


def test_large_bodies_are_several_blocks() -> None:
    body = bytes(range(256)) * 20_000
    packed = compressed.pack(body)
    assert len(packed) < len(body)
    assert b"".join(compressed.Unpacker().feed(packed)) == body


@pytest.mark.parametrize("position", [0, 15, 17, 30])
def test_a_damaged_block_is_refused(position: int) -> None:
    packed = bytearray(compressed.pack(b"some rows of a table" * 10))
    packed[position] ^= 1
    with pytest.raises(ValueError, match=r"checksum|ends early|is not one"):
        unpack_all(bytes(packed))
    with pytest.raises(ValueError, match="ends early"):
        unpack_all(compressed.pack(b"rows")[:-1])


def unpack_all(packed: bytes) -> None:
    unpacker = compressed.Unpacker()
    list(unpacker.feed(packed))
    unpacker.finish()

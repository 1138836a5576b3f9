"""Where the rows of an INSERT begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.clickhouse.insert import reads, split_insert

WITH_ROWS = (
    (b"INSERT INTO t (a, b) FORMAT Native\n", b"\x01\x02;\0rows"),
    (b"INSERT INTO t FORMAT CSV \t\r\n", b"\n1,2"),
    (b"insert into t values", b" (1, 'FORMAT CSV')"),
    (b"INSERT INTO t (a) VALUES", b"\n(1)"),
    (b'INSERT INTO `format` (`values`, "a FORMAT b") FORMAT TSV\n', b"1\t2"),
    (b"INSERT INTO db.format FORMAT TSV\n", b"1"),
    (
        b"-- why: FORMAT CSV\nINSERT /* VALUES */ INTO TABLE t SETTINGS x = 'it''s \\' FORMAT X' FORMAT JSONEachRow\n",
        b'{"a": 1}',
    ),
    (b"INSERT INTO t (format, values) FORMAT TSV\n", b"1\t2"),
    (b"INSERT INTO FUNCTION null('a FORMAT b') FORMAT TSV\n", b"1"),
)

WITHOUT_ROWS = (
    b"",
    b"SELECT 1 FORMAT Native",
    b"INSERT INTO t SELECT 1 FORMAT Null",
    b"INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x",
    b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
    b"INSERT INTO t",
    b"EXPLAIN INSERT INTO t VALUES (1)",
    b"CREATE TABLE t (a Int8) ENGINE = Memory",
)


@pytest.mark.parametrize(("statement", "rows"), WITH_ROWS)
def test_rows_begin_behind_the_format(statement: bytes, rows: bytes) -> None:
    cut = split_insert(statement + rows)
    assert cut is not None
    assert (statement + rows)[:cut] == statement
    assert (statement + rows)[cut:] == rows


@pytest.mark.parametrize("statement", WITHOUT_ROWS)
def test_other_statements_have_no_rows(statement: bytes) -> None:
    assert split_insert(statement) is None


@given(st.binary(max_size=300))
def test_rows_are_never_read(rows: bytes) -> None:
    statement = b"INSERT INTO t (a) FORMAT RowBinary\n"
    assert split_insert(statement + rows) == len(statement)


@given(st.binary(max_size=300))
def test_any_bytes_are_cut_within_themselves(text: bytes) -> None:
    cut = split_insert(b"INSERT INTO t " + text)
    assert cut is None or 14 <= cut <= 14 + len(text)


def test_what_only_reads() -> None:
    assert reads("/* x */ select 1")
    assert reads("(SELECT 1)")
    assert reads("WITH 1 AS x SELECT x")
    assert not reads("INSERT INTO t SELECT 1")
    assert not reads("OPTIMIZE TABLE t")
    assert not reads("")

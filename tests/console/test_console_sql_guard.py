"""What the read-only SQL engine lets through, on the real engine: nothing that writes, leaves the database,
or costs too much.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.errors import QueryFailed
from schemas.sql import Answer, Limits, Query
from storage import embedded
from storage.sql.chdb_engine import ChdbEngine

LIMITS = Limits(time_s=120, memory_bytes=256 << 20, threads=1, result_bytes=4 << 20)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbEngine]:
    folder = str(tmp_path_factory.mktemp("store"))
    connection = embedded.connect(folder)
    connection.query(
        "CREATE TABLE calls (n UInt64, name LowCardinality(String)) ENGINE = MergeTree ORDER BY n"
    )
    connection.query("INSERT INTO calls SELECT number, toString(number % 3) FROM numbers(1000)")
    engine = ChdbEngine(folder)
    connection.close()
    yield engine
    engine.close()


def ask(engine: ChdbEngine, sql: str, limits: Limits = LIMITS, **more: object) -> Answer:
    return engine.execute(Query(sql, **more), limits)  # type: ignore[arg-type]  # Query's own fields


@pytest.mark.parametrize(
    ("sql", "body"),
    [
        ("SELECT count() FROM calls", b"1000\n"),
        ("SELECT 1;", b"1\n"),
        ("SELECT 1 -- comment", b"1\n"),
        ("FROM calls SELECT max(n)", b"999\n"),
        ("WITH x AS (SELECT 2 AS two) SELECT two FROM x", b"2\n"),
        ("SELECT 1 UNION ALL SELECT 1", b"1\n1\n"),
        ("SELECT sum(number) FROM numbers(4)", b"6\n"),
        (
            "SELECT 'INTO OUTFILE file(', 'it\\'s; DROP TABLE calls'",
            b"INTO OUTFILE file(\tit\\'s; DROP TABLE calls\n",
        ),
        ("SELECT count() FROM merge('default', '^calls$')", b"1000\n"),
        ("SELECT getSetting('max_block_size') SETTINGS max_block_size = 7", b"7\n"),
        ("EXISTS calls", b"1\n"),
        ("SHOW TABLES", b"calls\n"),
        ("SELECT count() > 0 FROM (EXPLAIN SELECT 1)", b"1\n"),
        ("EXPLAIN SYNTAX SELECT  1", None),
        ("DESCRIBE TABLE calls FORMAT JSONEachRow SETTINGS describe_compact_output = 1", None),
        ("SHOW CREATE TABLE calls", None),
        ("SHOW COLUMNS FROM calls", None),
        ("EXPLAIN AST SELECT 1 FORMAT JSONEachRow", None),
    ],
)
def test_reading_is_answered(engine: ChdbEngine, sql: str, body: bytes | None) -> None:
    """``body`` None: anything but an empty answer."""
    answer = ask(engine, sql).body
    assert answer if body is None else answer == body


ACCESS_DENIED, READONLY, SYNTAX_ERROR = 497, 164, 62


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("DROP TABLE calls", ACCESS_DENIED),
        ("INSERT INTO calls VALUES (1, 'a')", ACCESS_DENIED),
        ("INSERT INTO FUNCTION file('out.tsv', 'TSV', 'n UInt8') SELECT 1", ACCESS_DENIED),
        ("WITH 1 AS one INSERT INTO calls SELECT one, ''", ACCESS_DENIED),
        ("CREATE TABLE other (n UInt8) ENGINE = Memory", ACCESS_DENIED),
        ("CREATE TEMPORARY TABLE other (n UInt8)", ACCESS_DENIED),
        ("ALTER TABLE calls DELETE WHERE 1", ACCESS_DENIED),
        ("SET max_threads = 8", ACCESS_DENIED),
        ("USE system", ACCESS_DENIED),
        ("KILL QUERY WHERE 1", ACCESS_DENIED),
        ("SYSTEM FLUSH LOGS", ACCESS_DENIED),
        ("BACKUP TABLE calls TO Disk('default', 'x')", ACCESS_DENIED),
        ("EXPLAIN TABLE OVERRIDE mysql('h:1', 'd', 't', 'u', 'p') COLUMNS (n UInt8)", ACCESS_DENIED),
        ("SELECT 1; SELECT 2", SYNTAX_ERROR),
        ("SELECT 1 INTO OUTFILE '/tmp/out'", ACCESS_DENIED),
        ("EXPLAIN SELECT 1 INTO OUTFILE '/tmp/out'", ACCESS_DENIED),
        ("SELECT 1 SETTINGS readonly = 0", READONLY),
        ("SELECT 1 SETTINGS max_threads = 8", READONLY),
        ("SELECT 1 SETTINGS `max_memory_usage` = 0", READONLY),
        ("SELECT (SELECT 1 SETTINGS max_execution_time = 121)", READONLY),
    ],
)
def test_what_is_not_reading_is_refused(engine: ChdbEngine, sql: str, code: int) -> None:
    with pytest.raises(QueryFailed) as failed:
        ask(engine, sql)
    assert failed.value.code == code
    assert ask(engine, "SELECT count() FROM calls").body == b"1000\n"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('{secret}', 'LineAsString')",
        "SELECT * FROM `file`('{secret}', 'LineAsString')",
        "SELECT file('{secret}')",
        "SELECT arrayMap(file, ['{secret}'])",
        "SELECT * APPLY file FROM (SELECT '{secret}')",
        "SELECT arrayMap(path -> file(path), ['{secret}'])",
        "SELECT * FROM default.`{secret}`",
        "SELECT * FROM default.`{secret}` SETTINGS max_block_size = 1",
        "SELECT * FROM `{secret}`",
        "SELECT * FROM calls WHERE name IN (SELECT line FROM file('{secret}', 'LineAsString'))",
        "WITH x AS (SELECT * FROM file('{secret}', 'LineAsString')) SELECT * FROM x",
        "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM file('{secret}', 'LineAsString')))",
        "DESCRIBE file('{secret}')",
        "SELECT * FROM sqlite('{secret}', 't')",
        "SELECT * FROM eval('SELECT file(''{secret}'')')",
        "SELECT * FROM executable('cat {secret}', 'TSV', 'a String')",
        "SELECT * FROM url('http://127.0.0.1:1/{secret}', 'TSV', 'a String')",
        "DESCRIBE url('http://127.0.0.1:1/{secret}')",
        "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
        "SELECT hasColumnInTable('127.0.0.1:1', 'system', 'one', 'dummy')",
        "SELECT * FROM Python(secret)",
        "SELECT * FROM secret_in_python",
    ],
)
def test_nothing_outside_the_database_is_reached(engine: ChdbEngine, sql: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden-treasure\n")
    secret_in_python = __import__("pyarrow").table({"line": ["hidden-treasure"]})
    with pytest.raises(QueryFailed) as failed:
        ask(engine, sql.format(secret=secret))
    assert "hidden-treasure" not in str(failed.value)
    del secret_in_python


def test_identifier_parameters_cannot_name_files(engine: ChdbEngine, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("hidden-treasure\n")
    sql = "SELECT * FROM {table:Identifier} LIMIT 1 SETTINGS max_block_size = 10"
    assert ask(engine, sql, parameters={"table": "calls"}).body == b"0\t0\n"
    with pytest.raises(QueryFailed):
        ask(engine, sql, parameters={"table": str(secret)})


@pytest.mark.parametrize(
    ("sql", "code", "time_s"),
    [
        ("SELECT sum(sipHash64(number)) FROM numbers(1e13)", 159, 1),
        ("SELECT groupArray(number) FROM numbers(1e9)", 241, 120),
        ("SELECT number, toString(number) FROM numbers(1e6)", 396, 120),
    ],
)
def test_what_a_query_may_cost_is_bounded(engine: ChdbEngine, sql: str, code: int, time_s: float) -> None:
    with pytest.raises(QueryFailed) as failed:
        ask(engine, sql, replace(LIMITS, time_s=time_s))
    assert failed.value.code == code


def test_settings_of_a_query_are_its_own_and_do_not_raise_limits(engine: ChdbEngine) -> None:
    sql = "SELECT getSetting('max_block_size'), getSetting('max_threads'), getSetting('max_execution_time')"
    asked = {
        "max_block_size": "7",
        "max_threads": "64",
        "max_execution_time": "1",
        "readonly": "0",
        "dialect": "kusto",
    }
    assert ask(engine, sql, settings=asked).body == b"7\t1\t1\n"
    assert ask(engine, sql).body != b"7\t1\t1\n"
    with pytest.raises(QueryFailed, match="Unknown setting") as failed:
        ask(engine, "SELECT 1", settings={"no_such_setting": "1"})
    assert failed.value.code == 115


def test_parameters_arrive_as_they_were_sent(engine: ChdbEngine) -> None:
    parameters = {"text": "it's\\ta \\\\ tab", "list": "['a','b\\'c']"}
    answer = ask(
        engine,
        "SELECT {text:String} AS t, {list:Array(String)} AS l FORMAT JSONCompactEachRow",
        parameters=parameters,
    )
    assert answer.body == b'["it\'s\\ta \\\\ tab", ["a","b\'c"]]\n'
    assert answer.format == "JSONCompactEachRow"


def test_errors_are_clickhouse_errors(engine: ChdbEngine) -> None:
    for sql, code, text in (
        ("SELEC 1", 62, "Syntax error"),
        ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE"),
        ("SELECT 1 FORMAT No", 73, "No"),
    ):
        with pytest.raises(QueryFailed, match=text) as failed:
            ask(engine, sql)
        assert failed.value.code == code
        assert str(failed.value).startswith(f"Code: {code}. DB::Exception: ")
        assert "formatQuery" not in str(failed.value)


def test_an_empty_answer_in_native_names_its_columns(engine: ChdbEngine) -> None:
    empty = ask(engine, "SELECT n, name FROM calls WHERE n > 5000", default_format="Native").body
    assert b"UInt64" in empty
    assert b"LowCardinality(String)" in empty
    assert ask(engine, "SELECT n FROM calls WHERE n > 5000 FORMAT Native").body == b"\x01\x00\x01n\x06UInt64"

"""What a store that may be written to lets through, and what it does not."""

from collections.abc import Iterator

import pytest

from schemas.errors import QueryFailed
from schemas.sql import Limits, Query
from storage.sql.chdb_engine import ChdbEngine
from storage.sql.write_guard import with_infile

LIMITS = Limits(time_s=60, memory_bytes=512 << 20, threads=1, result_bytes=4 << 20)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbEngine]:
    engine = ChdbEngine(str(tmp_path_factory.mktemp("store")), writable=True)
    engine.execute(Query("CREATE TABLE calls (n UInt64, name String) ENGINE = MergeTree ORDER BY n"), LIMITS)
    yield engine
    engine.close()


ALLOWED = (
    "CREATE DATABASE IF NOT EXISTS other",
    "CREATE TABLE other.t (a Int8, `SETTINGS x` String) ENGINE = ReplacingMergeTree ORDER BY a"
    " TTL toDate(a) + toIntervalDay(1) SETTINGS index_granularity = 10",
    "INSERT INTO other.t SELECT 1, 'x'",
    "INSERT INTO other.t SELECT number, '' FROM numbers(3) SETTINGS max_threads = 1, max_insert_threads = 1",
    "ALTER TABLE other.t ADD COLUMN b String DEFAULT 'x', MODIFY SETTING non_replicated_deduplication_window = 5",
    "ALTER TABLE other.t ADD COLUMN IF NOT EXISTS c UInt64 CODEC(T64, ZSTD(1))",
    "ALTER TABLE other.t DROP COLUMN IF EXISTS c",
    "ALTER TABLE other.t MODIFY TTL toDate(a) + toIntervalDay(2)",
    "ALTER TABLE other.t DELETE WHERE a = 1",
    "SYSTEM STOP MERGES other.t",
    "SYSTEM START MERGES other.t",
    "OPTIMIZE TABLE other.t FINAL",
    "CREATE OR REPLACE VIEW other.v AS SELECT a FROM other.t WHERE a IN (SELECT n FROM default.calls)",
    "CREATE MATERIALIZED VIEW other.mv TO other.t AS SELECT toInt8(n) AS a FROM default.calls",
    "CREATE OR REPLACE FUNCTION twice AS x -> x * 2",
    "TRUNCATE TABLE other.t",
    "RENAME TABLE other.t TO other.u",
    "DROP TABLE other.u",
    "DROP DATABASE other",
    "SELECT count() FROM calls",
)

REFUSED = (
    ("SELECT * FROM file('/etc/passwd', CSV)", "function file"),
    ("INSERT INTO calls SELECT 1, file('/etc/passwd')", "function file"),
    ("INSERT INTO calls SELECT * FROM url('http://127.0.0.1:1/', CSV)", "table function url"),
    ("INSERT INTO calls SELECT * FROM remote('127.0.0.1', default.calls)", "table function remote"),
    ("INSERT INTO calls SELECT number, line FROM `/etc/passwd`", "plain words"),
    ("INSERT INTO FUNCTION file('/tmp/x.csv', CSV, 'n UInt64') SELECT 1", "function file"),
    ("INSERT INTO calls FROM INFILE '/etc/passwd' FORMAT CSV", "INFILE"),
    ("SELECT 1 INTO OUTFILE '/tmp/x'", "OUTFILE"),
    ("CREATE TABLE x (a Int8) ENGINE = File(CSV)", "engine File"),
    ("CREATE TABLE x (a String) ENGINE = URL('http://127.0.0.1:1/', CSV)", "engine URL"),
    ("CREATE TABLE x AS url('http://127.0.0.1:1/', CSV, 'a String')", "table function url"),
    ("CREATE TABLE x ENGINE = Memory AS SELECT * FROM s3('http://127.0.0.1:1/x')", "table function s3"),
    ("CREATE VIEW x AS SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')", "table function url"),
    (
        "CREATE TABLE x (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = 'local', path = '/tmp/x/')",
        "SETTINGS",
    ),
    (
        "CREATE TABLE x (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS index_granularity = 8, storage_policy = 'x'",
        "setting storage_policy",
    ),
    ("CREATE DATABASE x ENGINE = MySQL('h', 'd', 'u', 'p')", "engine MySQL"),
    (
        "CREATE DICTIONARY x (a UInt64) PRIMARY KEY a SOURCE(FILE(path '/etc/passwd' format 'CSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "dictionaries",
    ),
    ("BACKUP TABLE calls TO File('x')", "BACKUP"),
    ("ALTER TABLE calls FREEZE", "FREEZE"),
    ("ALTER TABLE calls FETCH PARTITION 'x' FROM '/x'", "FETCH"),
    ("CREATE USER x", "CREATE USER"),
    ("SYSTEM SHUTDOWN", "SYSTEM SHUTDOWN"),
    ("SYSTEM DROP REPLICA 'x'", "SYSTEM DROP"),
    ("KILL QUERY WHERE 1", "KILL QUERY"),
    ("SET allow_introspection_functions = 1", "setting allow_introspection_functions"),
    ("SET max_threads = 1, format_schema = '/etc/passwd'", "setting format_schema"),
    ("ATTACH TABLE x FROM '/tmp/x' (a Int8) ENGINE = MergeTree ORDER BY a", "ATTACH"),
)


def test_the_stores_own_tables_may_be_changed(engine: ChdbEngine) -> None:
    for sql in ALLOWED:
        engine.execute(Query(sql), LIMITS)


@pytest.mark.parametrize(("sql", "reason"), REFUSED)
def test_nothing_reaches_outside(engine: ChdbEngine, sql: str, reason: str) -> None:
    with pytest.raises(QueryFailed, match=reason) as failed:
        engine.execute(Query(sql), LIMITS)
    assert failed.value.code == 497


def test_a_query_that_says_readonly_is_held_to_it(engine: ChdbEngine) -> None:
    with pytest.raises(QueryFailed, match="only reads"):
        engine.execute(Query("TRUNCATE TABLE calls", settings={"readonly": "1"}), LIMITS)


def test_settings_of_a_write_are_its_own(engine: ChdbEngine) -> None:
    with pytest.raises(QueryFailed, match="Cannot modify 'format_schema'"):
        engine.execute(Query("TRUNCATE TABLE calls", settings={"format_schema": "/etc/passwd"}), LIMITS)
    with pytest.raises(QueryFailed) as failed:
        engine.execute(Query("INSERT INTO calls SELECT 1, 'x'", settings={"no_such_setting": "1"}), LIMITS)
    assert failed.value.code == 115
    engine.execute(
        Query(
            "INSERT INTO calls SELECT 1, 'x'",
            settings={"max_threads": "1", "insert_deduplication_token": "it's"},
        ),
        LIMITS,
    )


@pytest.mark.parametrize(
    ("sql", "with_rows"),
    [
        ("INSERT INTO t FORMAT CSV", "INSERT INTO t FROM INFILE 'f' COMPRESSION 'none' FORMAT CSV"),
        (
            "INSERT INTO t (`a SETTINGS b = 1 FORMAT X`) SETTINGS x = ' FORMAT Y' FORMAT Native",
            "INSERT INTO t (`a SETTINGS b = 1 FORMAT X`) FROM INFILE 'f' COMPRESSION 'none' SETTINGS x = ' FORMAT Y' FORMAT Native",
        ),
    ],
)
def test_rows_come_from_their_file(sql: str, with_rows: str) -> None:
    assert with_infile(sql, "'f'") == with_rows
    with pytest.raises(QueryFailed):
        with_infile("INSERT INTO t SELECT 1", "'f'")

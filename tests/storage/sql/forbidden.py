"""Forbidden statements with random quoting around them, and a place where their effects would show."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from schemas.errors import QueryFailed
from schemas.sql import Limits, Query
from storage import embedded
from storage.sql.chdb_engine import ChdbEngine

LIMITS = Limits(time_s=20, memory_bytes=256 << 20, threads=1, result_bytes=1 << 20)
TREASURE = "hidden-treasure"
RAISED = "12345678901234"

EXPRESSIONS = (
    "file('{secret}')",
    "`file`('{secret}')",
    "arrayMap(file, ['{secret}'])",
    "arrayMap(\"file\", ['{secret}'])",
    "arrayMap(path -> file(path), ['{secret}'])",
    "(SELECT any(line) FROM file('{secret}', 'LineAsString', 'line String'))",
    "(SELECT * APPLY file FROM (SELECT '{secret}'))",
    "(SELECT * APPLY (x -> file(x)) FROM (SELECT '{secret}'))",
    "1 IN `{secret}`",
    "'x' IN \"{secret}\"",
    "'x' NOT IN (`treasure.csv`)",
    "'x' IN (treasure)",
    "'x' IN {{t:Identifier}}",
    "hasColumnInTable('127.0.0.1:{port}', 'system', 'one', 'dummy')",
    "formatRow('Template', 1)",
    "getSetting('max_memory_usage')",
    "(SELECT count() FROM system.errors)",
)
TABLES = (
    "`{secret}`",
    '"{secret}"',
    "default.`{secret}`",
    "`treasure.csv`",
    "treasure",
    "{{t:Identifier}}",
    "default.{{t:Identifier}}",
    "file('{secret}', 'LineAsString')",
    "`file`('{secret}', 'LineAsString')",
    "view(SELECT * FROM file('{secret}', 'LineAsString'))",
    "url('http://127.0.0.1:{port}/', 'LineAsString', 'line String')",
    "remote('127.0.0.1:{port}', 'system', 'one')",
    "mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "s3('http://127.0.0.1:{port}/b/k', 'CSV', 'line String')",
    "sqlite('{secret}', 't')",
    "executable('cat {secret}', 'LineAsString', 'line String')",
    "merge(`system`, 'errors')",
    "merge('system', 'stack_trace')",
    "system.stack_trace",
    "system.schema_inference_cache",
    "viewExplain('EXPLAIN', '', (SELECT file('{secret}')))",
)
CLAUSES = (
    "INTO OUTFILE '{out}'",
    "INTO OUTFILE '{out}' APPEND FORMAT CSV",
    "FORMAT Template SETTINGS format_template_row = '{secret}'",
    "FORMAT `Template` SETTINGS `format_template_resultset` = '{secret}'",
    "SETTINGS max_memory_usage = " + RAISED,
    "SETTINGS `max_memory_usage` = " + RAISED,
    "SETTINGS max_block_size = 7, max_memory_usage = " + RAISED,
    "SETTINGS additional_table_filters = {{'calls':'file(\\'{secret}\\') = \\'x\\''}}",
    "SETTINGS additional_table_filters = {{'calls':"
    "'n IN (SELECT * FROM url(\\'http://127.0.0.1:{port}/\\', CSV, \\'n UInt64\\'))'}}",
    "SETTINGS additional_result_filter = 'throwIf(1, file(\\'{secret}\\'))'",
    "SETTINGS send_logs_level = 'trace'",
)
WRITES = (
    "CREATE TABLE {fresh} (a String) ENGINE = `File`(CSV, '{secret}')",
    "CREATE TABLE {fresh} (a String) ENGINE = URL('http://127.0.0.1:{port}/', 'CSV')",
    "CREATE DATABASE {fresh} ENGINE = `SQLite`('{out}')",
    "CREATE FUNCTION {fresh} AS x -> file(x)",
    "CREATE VIEW {fresh} AS SELECT {noise}, file('{secret}')",
    "CREATE TABLE {fresh} (a String DEFAULT file('{secret}')) ENGINE = Memory",
    "CREATE TABLE {fresh} (a String, d Date TTL d + toIntervalDay(length(file('{secret}')))) ENGINE = MergeTree ORDER BY a",
    "INSERT INTO FUNCTION file('{out}', 'CSV', 'n UInt64') SELECT 1",
    "INSERT INTO calls FROM INFILE '{secret}' FORMAT LineAsString",
    "INSERT INTO calls SELECT n, file('{secret}') FROM calls LIMIT 1",
    "DROP DATABASE system",
    "DROP DATABASE default",
    "DROP TABLE `system`.one",
    "SYSTEM STOP MERGES",
    "SYSTEM SHUTDOWN",
    "SET max_block_size = 7, format_schema = '{secret}'",
    "USE system",
    "TRUNCATE DATABASE default",
    "BACKUP TABLE calls TO File('{out}')",
    "ATTACH TABLE {fresh} FROM '{secret}' (a String) ENGINE = Log",
)
SETTINGS = (
    ("format_template_row", "{secret}"),
    ("format_schema", "{secret}"),
    ("additional_table_filters", "{{'calls':'file(\\'{secret}\\') = \\'x\\''}}"),
    (
        "additional_table_filters",
        "{{'calls':'n IN (SELECT * FROM remote(\\'127.0.0.1:{port}\\', system.one))'}}",
    ),
    ("additional_result_filter", "throwIf(1, file('{secret}'))"),
    (
        "additional_result_filter",
        "n IN (SELECT * FROM url('http://127.0.0.1:{port}/', CSV, 'n UInt64'))",
    ),
    (
        "additional_result_filter",
        "n IN (SELECT * FROM mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p'))",
    ),
    ("send_logs_level", "trace"),
    ("max_memory_usage", RAISED),
    ("readonly", "0"),
    ("dialect", "prql"),
)
CODES = {46, 60, 62, 73, 115, 164, 497}
"""ClickHouse's codes of what is refused before it runs."""
FOUND = (
    "SELECT 1 AS `a'`, file('{secret}')",
    "SELECT 1 AS \"a'\", file('{secret}')",
    "WITH 1 AS `a'` SELECT file('{secret}')",
    "WITH `a'` AS (SELECT 1) SELECT *, file('{secret}') FROM `a'`",
    "SELECT 1 AS `a'` INTO OUTFILE '{out}' APPEND",
    "SELECT 1 AS `a'` SETTINGS max_memory_usage = 0",
    "SELECT 1 AS \"a'\" INTO OUTFILE '{out}' APPEND",
    'SELECT 1 AS "a\'" SETTINGS max_memory_usage = 0',
    "WITH `a'` AS (SELECT 1) SELECT * FROM `a'` INTO OUTFILE '{out}' APPEND",
    'WITH "a\'" AS (SELECT 1) SELECT * FROM "a\'" SETTINGS max_memory_usage = 0',
    "SELECT * FROM `treasure.csv`",
    'SELECT * FROM "{secret}"',
    "SELECT * FROM {{t:Identifier}}",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '{secret}'",
    "SELECT * FROM calls SETTINGS additional_table_filters = {{'calls':'file(\\'{secret}\\') = \\'\\''}}",
    "SELECT * FROM calls SETTINGS additional_table_filters = {{'calls':"
    "'n IN (SELECT * FROM url(\\'http://127.0.0.1:{port}/\\', CSV, \\'n UInt64\\'))'}}",
    "SELECT * FROM calls SETTINGS additional_table_filters = {{'calls':"
    "'n IN (SELECT * FROM remote(\\'127.0.0.1:{port}\\', system.one))'}}",
    "SELECT * FROM calls SETTINGS additional_result_filter = "
    "'n IN (SELECT * FROM mysql(\\'127.0.0.1:{port}\\', \\'d\\', \\'t\\', \\'u\\', \\'p\\'))'",
    "SELECT * FROM system.errors",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM system.schema_inference_cache",
    "SELECT * FROM system.processes",
    "SELECT 1 IN `{secret}`",
    "SELECT 1 IN {{t:Identifier}}",
    "EXISTS TABLE `{secret}`",
    "EXISTS `treasure.csv`",
    "SHOW CREATE TABLE `{secret}`",
    "SHOW COLUMNS FROM `{secret}`",
    "SHOW TABLES WHERE file('{secret}') = ''",
    "SHOW PROCESSLIST",
    "DESCRIBE `{secret}`",
    "SELECT 1 SETTINGS send_logs_level = 'trace'",
    "SELECT * APPLY (x -> file(x)) FROM (SELECT '{secret}')",
    "SELECT * FROM merge('system', 'stack_trace')",
)
FOUND_WRITING = (
    "CREATE TABLE x (a String) ENGINE = `File`(CSV)",
    "CREATE TABLE x (`a'` String) ENGINE = File(CSV)",
    "CREATE TABLE x (`a'` String) ENGINE = URL('http://127.0.0.1:{port}/', 'CSV')",
    "CREATE DATABASE `a'` ENGINE = SQLite('{secret}')",
    "CREATE FUNCTION f AS x -> file(x)",
    "CREATE FUNCTION `f'` AS x -> file(x)",
    "SYSTEM STOP MERGES",
    "DROP DATABASE system",
    "DROP DATABASE default",
    "USE system",
    "SET send_logs_level = 'trace'",
    "SET additional_result_filter = 'file(\\'{secret}\\') = \\'\\''",
    "SET additional_table_filters = {{'calls':'file(\\'{secret}\\') = \\'\\''}}",
)
NAMES = (
    "a'",
    "a`",
    'a"',
    "a\\",
    "-- a",
    "/* a",
    "$$",
    "SETTINGS x = 1",
    "FORMAT CSV",
    "a (children 1)",
    "it''s",
)
LITERALS = ("it's", '"', "`", "\\", "--", "/*", "$$ $$", "FORMAT JSON", "INTO OUTFILE 'x'", "SELECT 1")
BLANKS = (" ", "\n", "\t", " /* ' */ ", ' /* " ` */ ', " -- '\n", ' -- "`\n', " # it's\n", "  ")


@dataclass(frozen=True)
class Place:
    """An engine, and where forbidden effects would show."""

    engine: ChdbEngine
    secret: Path
    out: Path
    listener: socket.socket
    writable: bool

    def fill(self, template: str, random: Random) -> str:
        """A template with this place's files and port."""
        return template.format(
            secret=self.secret,
            out=self.out,
            port=self.listener.getsockname()[1],
            fresh=f"fresh_{random.getrandbits(32)}",
            noise=noise(random),
        )

    def run(self, query: Query) -> str:
        """What comes back: the answer, or the error's text."""
        try:
            return self.engine.execute(query, LIMITS).body.decode(errors="replace")
        except QueryFailed as failed:
            return str(failed)

    def check(self, query: Query) -> None:
        """Run a forbidden query; raise AssertionError if its effect shows."""
        said = self.run(query)
        assert TREASURE not in said, (query, said)
        assert RAISED not in said or "Exception" in said, (query, said)
        assert not self.out.exists(), query
        try:
            self.listener.accept()
        except BlockingIOError:
            return
        raise AssertionError(f"it connected: {query}")

    def refuse(self, query: Query) -> None:
        """Run a forbidden query; raise AssertionError if it is not refused."""
        try:
            answer = self.engine.execute(query, LIMITS)
        except QueryFailed as failed:
            code = failed.code
        else:
            raise AssertionError(f"{query} was answered: {answer}")
        assert code in CODES, (query, code)
        self.check(query)
        self.probe()

    def probe(self) -> None:
        """Raise AssertionError if ordinary reading no longer works."""
        assert (
            self.run(Query("SELECT count(), getSetting('max_memory_usage') FROM calls"))
            == f"3\t{LIMITS.memory_bytes}\n"
        )
        assert self.run(Query("SELECT count() FROM system.one")) == "1\n"


@contextmanager
def place(folder: Path, *, writable: bool) -> Iterator[Place]:
    """A place in an empty folder, which becomes the working directory meanwhile."""
    secret = folder / "treasure.csv"
    secret.write_text(f"{TREASURE}\n")
    (folder / "treasure").write_text(f"{TREASURE}\n")
    connection = embedded.connect(folder / "store")
    connection.query("CREATE TABLE calls (n UInt64, name String) ENGINE = MergeTree ORDER BY n")
    connection.query("INSERT INTO calls SELECT number, 'x' FROM numbers(3)")
    engine = ChdbEngine(str(folder / "store"), writable=writable)
    connection.close()
    before = Path.cwd()
    os.chdir(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        try:
            yield Place(engine, secret, folder / "out.csv", listener, writable)
        finally:
            os.chdir(before)
            engine.close()


def query(place: Place, random: Random) -> Query:
    """A random forbidden query."""
    statement, kind = "", random.randrange(5)
    if place.writable and kind == 0:
        return Query(place.fill(random.choice(WRITES), random), parameters=parameters(place, random))
    columns = [noise(random) for _ in range(random.randrange(3))]
    columns.insert(
        random.randrange(len(columns) + 1),
        random.choice(EXPRESSIONS) if kind in {0, 1} else f"{noise(random)}",
    )
    source = random.choice(TABLES) if kind == 2 else "calls"
    if random.random() < 0.3:
        statement += f"WITH {noise(random)}, {quoted_name(random)} AS (SELECT {noise(random)}) "
    statement += f"SELECT {', '.join(columns)} FROM {source}"
    if random.random() < 0.4:
        statement += f" WHERE {quoted_literal(random)} != {quoted_literal(random)} OR 1"
    if kind == 3:
        statement += f" {random.choice(CLAUSES)}"
    elif random.random() < 0.3:
        statement = f"SELECT * FROM ({statement}) AS {quoted_name(random)}"
    if random.random() < 0.1:
        statement = f"{random.choice(['EXPLAIN', 'EXPLAIN SYNTAX', 'DESCRIBE'])} ({statement})"
    if random.random() < 0.5:
        statement = statement.replace(" FROM ", f"{random.choice(BLANKS)}FROM{random.choice(BLANKS)}", 1)
    name, value = random.choice(SETTINGS)
    settings = {name: place.fill(value, random)} if kind == 4 else {}
    return Query(
        place.fill(statement, random) if "{" in statement else statement,
        default_format=random.choice(["TSV", "Template", "JSON"]) if kind == 4 else "TSV",
        parameters=parameters(place, random),
        settings=settings,
    )


def parameters(place: Place, random: Random) -> dict[str, str]:
    """A file's name where a table's should be."""
    return {
        "t": random.choice(
            [str(place.secret), "treasure.csv", "treasure", "system.errors", f"`{place.secret}`"]
        )
    }


def noise(random: Random) -> str:
    """A harmless expression with quotes in it."""
    literal = quoted_literal(random)
    return f"{literal} AS {quoted_name(random)}" if random.random() < 0.6 else literal


def quoted_name(random: Random) -> str:
    """A name in either kind of quotes."""
    quote = random.choice('`"')
    name = random.choice(NAMES).replace("{", "")
    return quote + name.replace("\\", "\\\\").replace(quote, random.choice([quote * 2, f"\\{quote}"])) + quote


def quoted_literal(random: Random) -> str:
    """A literal, or a heredoc."""
    text = random.choice(LITERALS)
    if random.random() < 0.2 and "$" not in text:
        return f"$tag${text}$tag$"
    return "'" + text.replace("\\", "\\\\").replace("'", random.choice(["''", "\\'"])) + "'"

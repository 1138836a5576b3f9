"""Where the cost of storing spans goes: ``python -m benchmarks.insert --breakdown``.

The same blocks go into copies of ``otel_traces`` that do more and more of what it does, in turns, so that
whatever else the machine does falls on all of them alike; merges are held off meanwhile. Then six blocks of
each copy are merged. Figures are the least of two rounds: CPU us for each row of ``otel_traces`` (CPU seconds
per million), user and system time of this whole process.
"""

import re
import resource
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.table import Table

from schemas.tables import SCHEMAS, Block
from storage import embedded
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import StorageSettings
from storage.sink import ChdbSink

ROUNDS = 2
MERGED_BLOCKS = 6

Change = Callable[[str], str]


class Step(NamedTuple):
    """A copy of ``otel_traces``: its name in the report, and what its CREATE TABLE has instead."""

    name: str
    changes: tuple[Change, ...]


def _sub(pattern: str, replacement: str) -> Change:
    return lambda ddl: re.sub(pattern, replacement, ddl)


_NO_INDEXES = _sub(r",\s*INDEX [^\n]*?(?=,?\n)", "")
_NO_CODECS = _sub(r" CODEC\((?:[^()]|\([^()]*\))*\)", " CODEC(NONE)")
_NO_ORDER = _sub(r"PRIMARY KEY .*\nORDER BY .*", "ORDER BY tuple()")
_NO_FSYNC = _sub(r", fsync_after_insert = 1, fsync_part_directory = 1", "")
_NO_NAMES = _sub(r"(non_replicated_deduplication_window) = \d+", r"\1 = 0")
_NULL = _sub(r"ENGINE = (?s:.*)", "ENGINE = Null")
_BY_ERROR = _sub(r"PARTITION BY .*", "PARTITION BY (toDate(LogTime), TraceError)")
_COMPACT = _sub(r"min_rows_for_wide_part = \d+", "min_rows_for_wide_part = 1000000000")

INSERTS = (
    Step("rows into the table's columns, nothing stored", (_NO_INDEXES, _NULL)),
    Step("+ a part on disk, neither packed nor ordered", (_NO_FSYNC, _NO_NAMES, _NO_ORDER, _NO_CODECS)),
    Step("+ codecs", (_NO_FSYNC, _NO_NAMES, _NO_ORDER)),
    Step("+ the sorting key", (_NO_FSYNC, _NO_NAMES)),
    Step("+ the block's name is remembered", (_NO_FSYNC,)),
    Step("+ fsync: otel_traces as it is", ()),
    Step("the same, also partitioned by TraceError", (_BY_ERROR,)),
)
MERGES = (
    Step("merge: otel_traces as it is", ()),
    Step("merge, no skip indexes", (_NO_INDEXES,)),
    Step("merge into a compact part", (_COMPACT,)),
)
TRACE_TIMES = "otel_traces_trace_id_ts"


def print_breakdown(blocks: dict[str, Sequence[Block]]) -> None:
    """``blocks``: of ``otel_traces`` and of its trace times, by how many spans each has, for a column
    each.
    """
    columns = {size: _measure(some) for size, some in blocks.items()}
    table = Table(title="Where inserts of stored spans go: CPU us a span", title_justify="left")
    table.add_column("what")
    for size in columns:
        table.add_column(size, justify="right")
    for name in next(iter(columns.values())):
        table.add_row(name, *(f"{column[name]:.2f}" for column in columns.values()))
    Console().print(table)


def _measure(blocks: Sequence[Block]) -> dict[str, float]:
    spans = [block for block in blocks if block.table == "otel_traces"]
    times = [block for block in blocks if block.table == TRACE_TIMES]
    rows = sum(block.rows.num_rows for block in spans)
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-", ignore_cleanup_errors=True) as folder:
        settings = StorageSettings(data=Path(folder))
        with closing(open_client(settings.store_place)) as client, closing(_Copies(settings)) as sink:
            migrate(client, settings)
            made = {step: _copy(client, step, number) for number, step in enumerate((*INSERTS, *MERGES))}
            client.command("SYSTEM STOP MERGES")
            least: dict[str, float] = {}

            def note(name: str, insert: Callable[[Block], None], some: Sequence[Block]) -> None:
                before_s = _cpu_s()
                for block in some:
                    insert(block)
                least[name] = min(least.get(name, float("inf")), (_cpu_s() - before_s) / rows * 1e6)

            for number in range(ROUNDS):
                note("rows read, as the engine gets them", sink.read, spans)
                for step in INSERTS:
                    note(step.name, partial(sink.insert, made[step], number), spans)
                note(TRACE_TIMES, partial(sink.insert, TRACE_TIMES, number), times)
            for step in MERGES:
                least[step.name] = _merge_us(client, sink, made[step], spans[:MERGED_BLOCKS])
    return least


def _merge_us(client: Client, sink: "_Copies", table: str, blocks: Sequence[Block]) -> float:
    """For each merged row; the least of the rounds."""
    rows = sum(block.rows.num_rows for block in blocks)
    least = float("inf")
    for number in range(ROUNDS):
        client.command(f"SYSTEM STOP MERGES {table}")
        client.command(f"TRUNCATE TABLE {table}")
        for block in blocks:
            sink.insert(table, number, block)
        client.command(f"SYSTEM START MERGES {table}")
        before_s = _cpu_s()
        client.command(f"OPTIMIZE TABLE {table} FINAL")
        least = min(least, (_cpu_s() - before_s) / rows * 1e6)
    return least


def _copy(client: Client, step: Step, number: int) -> str:
    name = f"copy_{number}"
    ddl = str(client.query("SHOW CREATE TABLE otel_traces").result_rows[0][0])
    for change in step.changes:
        changed = change(ddl)
        if changed == ddl:
            raise ValueError(f"{step.name}: otel_traces has nothing of the kind to change:\n{ddl}")
        ddl = changed
    client.command(re.sub(r"^CREATE TABLE \S+", f"CREATE TABLE {name}", ddl))
    return name


class _Copies(ChdbSink):
    """The sink, writing to any table."""

    def __init__(self, settings: StorageSettings) -> None:
        place = settings.store_place
        super().__init__(place)  # type: ignore[arg-type]
        self._plain = embedded.connect_again(place.directory)  # type: ignore[union-attr]

    def read(self, block: Block) -> None:
        """Let the engine read the rows, and nothing else."""
        meshflow_rows = block.rows
        assert meshflow_rows is not None
        self._plain.query("SELECT * FROM Python(meshflow_rows) SETTINGS max_threads = 1", "Null")

    def insert(self, table: str, number: int, block: Block) -> None:
        """Insert a block the way the sink does; ``number`` makes its name a new one."""
        SCHEMAS.setdefault(table, block.rows.schema)
        self.write(replace(block, table=table, pane=block.pane + number * 1_000_000_000))

    def close(self) -> None:
        self._plain.close()
        super().close()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

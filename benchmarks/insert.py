"""What it costs to store rows: real blocks of the processors, written by the sink into chdb, until the merges
they cause are done.

``stored spans``: rows of ``otel_traces`` (21 attributes) and ``otel_traces_trace_id_ts``, counted in spans.
``RED rows``: rows of ``red_10s``, counted in rows. Blocks of 20,000 spans show what a row costs, blocks of
1,250 (what one of four partitions keeps of 50,000 spans/s at 2 % in 5 s) what an insert costs by itself.
``roll-up``: RED rows of a closed hour, counted in rows of ``red_10s``. ``--breakdown`` shows where the cost
of stored spans goes, instead.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from clickhouse_connect.driver.client import Client

from benchmarks.insert_breakdown import print_breakdown
from benchmarks.load import make_requests
from benchmarks.report import Case, Measurement, main, measure
from processors.settings import ProcessorSettings
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.signal import span_processor
from schemas.records import Record, TopicPartition
from schemas.tables import Block
from schemas.topics import SPANS
from schemas.units import NS_PER_S
from schemas.watermark import Watermark
from storage.client import open_client
from storage.jobs.rollups import HOUR_S, RollUps
from storage.migrate import migrate
from storage.settings import StorageSettings
from storage.sink import open_sink

STORED = ("otel_traces", "otel_traces_trace_id_ts")
RED = ("red_10s",)
PANE_NS = 5 * NS_PER_S
SPANS_PER_REQUEST = 200


def insert(
    tables: tuple[str, ...], spans: int, services: int, operations: int, spans_per_pane: int
) -> Measurement:
    """Write the blocks of ``tables`` of ``spans`` spans that came in panes of ``spans_per_pane``."""
    blocks = [
        block
        for block in _blocks(spans, services, operations, spans_per_pane, _closed_hour_s())
        if block.table in tables
    ]
    rows = sum(block.rows.num_rows for block in blocks if block.table == tables[0])
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder:
        settings = StorageSettings(data=Path(folder))
        with (
            closing(open_client(settings.store_place)) as client,
            closing(open_sink(settings.store_place)) as sink,
        ):
            migrate(client, settings)
            with measure(rows) as measurement:
                for block in blocks:
                    sink.write(block)
                _wait_for_merges(client)
            measurement.note = f"{len(blocks)} blocks, {_bytes_a_row(client, tables)} bytes a row on disk"
    return measurement


def roll_up(spans: int, services: int, operations: int, spans_per_pane: int) -> Measurement:
    """Roll up the RED rows of ``spans`` spans that lie in one closed hour."""
    hour_s = _closed_hour_s()
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder:
        settings = StorageSettings(data=Path(folder))
        with (
            closing(open_client(settings.store_place)) as client,
            closing(open_sink(settings.store_place)) as sink,
        ):
            migrate(client, settings)
            for block in _blocks(spans, services, operations, spans_per_pane, hour_s):
                if block.table in RED:
                    sink.write(block)
            client.command("OPTIMIZE TABLE red_10s FINAL")
            rows = int(client.query("SELECT count() FROM red_10s").result_rows[0][0])
            with measure(rows) as measurement:
                closed_ns = (hour_s + HOUR_S) * NS_PER_S
                for _ in RollUps(client, settings).run(Watermark(closed_ns, closed_ns)):
                    pass
                _wait_for_merges(client)
            counts = [
                int(client.query(f"SELECT count() FROM red_{level}").result_rows[0][0])
                for level in ("1m", "1h")
            ]
            measurement.note = f"{rows} rows of 10 s -> {counts[0]} of 1 min -> {counts[1]} of 1 h"
    return measurement


def _blocks(spans: int, services: int, operations: int, spans_per_pane: int, begin_s: int) -> Iterator[Block]:
    """Every block of a partition that keeps all of its spans."""
    requests = make_requests(
        spans,
        services,
        operations,
        SPANS_PER_REQUEST,
        1,
        now_ns=begin_s * NS_PER_S,
        spans_per_s=spans_per_pane * NS_PER_S // PANE_NS,
    )
    settings = ProcessorSettings(partitions=1, wait=0, lookback=timedelta(seconds=5))
    sampling = SamplingSettings.model_validate({"policies": [{"name": "all", "type": "always_sample"}]})
    processor = span_processor(TopicPartition(SPANS, 0), settings, sampling)
    requests_per_pane = spans_per_pane // SPANS_PER_REQUEST or 1
    for number, request in enumerate([*requests, b""]):
        pane = number // requests_per_pane + (not request)
        record = Record(number, begin_s * NS_PER_S + pane * PANE_NS, request, len(request))
        for emit in processor.feed([record]):
            yield from emit.blocks


def _closed_hour_s() -> int:
    return int(time.time()) // HOUR_S * HOUR_S - 3 * HOUR_S


def _wait_for_merges(client: Client) -> None:
    quiet = 0
    while quiet < 3:
        quiet = 0 if client.query("SELECT count() FROM system.merges").result_rows[0][0] else quiet + 1
        time.sleep(0.1)


def _bytes_a_row(client: Client, tables: tuple[str, ...]) -> int:
    sql = (
        "SELECT sumIf(bytes_on_disk, table IN {tables:Array(String)}) / sumIf(rows, table = {first:String})"
        " FROM system.parts WHERE active"
    )
    return round(float(client.query(sql, {"tables": list(tables), "first": tables[0]}).result_rows[0][0]))


def _case(name: str, tables: tuple[str, ...], spans: int, services: int, spans_per_pane: int) -> Case:
    arguments = {
        "tables": tables,
        "spans": spans,
        "services": services,
        "operations": 10,
        "spans_per_pane": spans_per_pane,
    }
    return Case(f"insert {name}", "chdb", insert, arguments)


CASES = [
    _case("stored spans, 20,000 a block", STORED, 300_000, 100, 20_000),
    _case("stored spans, 1,250 a block", STORED, 100_000, 100, 1_250),
    _case("RED rows, 100 services x 10", RED, 1_000_000, 100, 60_000),
    _case("RED rows, 10,000 services x 10", RED, 1_000_000, 10_000, 60_000),
    Case(
        "roll-up of an hour's RED rows",
        "chdb",
        roll_up,
        {"spans": 1_000_000, "services": 2_000, "operations": 10, "spans_per_pane": 60_000},
    ),
]


def breakdown() -> None:
    """Blocks of both sizes, step by step."""
    sizes = {"20,000 a block": (120_000, 20_000), "1,250 a block": (20_000, 1_250)}
    print_breakdown({
        name: [block for block in _blocks(spans, 100, 10, spans_per_pane, _closed_hour_s()) if block.table in STORED]
        for name, (spans, spans_per_pane) in sizes.items()
    })  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["--breakdown"]:
        breakdown()
    else:
        main("Insert", CASES)

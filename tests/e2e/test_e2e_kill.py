"""Invariants 1 to 4 on the real process: killed at random moments under load, nothing acknowledged is lost or counted twice."""

import asyncio
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.load import make_requests
from schemas.otlp import decode_spans
from schemas.topics import SPANS
from storage.sqlite_log import SqliteLogReader
from tests.e2e.edges import assert_balanced
from tests.e2e.load import Load
from tests.e2e.up import KEEP_ALL, Up, eventually, running_up

KILLS = 20
QUICK = ("--pane", "200ms", "--wait", "2")
CONFIG = f"""
[processing]
lookback = "120s"  # longer than it can take until a request that was logged but not answered comes again
{KEEP_ALL}
"""


def span_ids(requests: list[bytes]) -> set[tuple[str, str]]:
    """(trace id, span id) of every span, as hex."""
    return {
        (span.trace_id.hex(), span.span_id.hex())
        for request in requests
        for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    }


async def spans_in(log: Path) -> int:
    """How many spans a log holds."""
    reader = SqliteLogReader(log)
    spans = 0
    for tp in await reader.partitions():
        offset = await reader.beginning(tp)
        while tp.topic == SPANS and (records := await reader.read(tp, offset, 1 << 24)):
            spans += len(decode_spans([record.unpack() for record in records]))
            offset = records[-1].offset + 1
    await reader.close()
    return spans


def assert_accounted_for(up: Up, acknowledged: list[bytes]) -> None:
    """Every acknowledged span is kept and stored, once; copies of retried requests are counted as such."""
    ids = span_ids(acknowledged)
    ledger = up.wait_for(asyncio.run(spans_in(up.data / "log")))
    assert ledger["received"] == asyncio.run(spans_in(up.data / "log"))
    assert_balanced(ledger)
    assert ledger["rejected"] == ledger["dropped"] == 0
    stored = up.sql("SELECT TraceId, SpanId FROM otel_traces")
    assert len(stored) == ledger["kept"] == ledger["stored"]
    assert len({(trace, span) for trace, span in stored}) == len(stored)
    assert ids <= {(trace, span) for trace, span in stored}


def forget_commits(log: Path) -> None:
    """Make a log look as if nobody had ever read it."""
    with closing(sqlite3.connect(log / "log.sqlite")) as connection, connection:
        connection.execute("UPDATE partitions SET committed_offset = NULL, committed_metadata = NULL")


@pytest.mark.timeout(900)
def test_killed_at_random_moments_gives_the_rows_of_an_undisturbed_reading(tmp_path: Path) -> None:
    moments = random.Random(4)
    requests = make_requests(40_000, 20, 5, 40, seed=4, spans_per_s=1_000)
    up = Up(tmp_path / "killed", CONFIG, *QUICK).start()
    try:
        with Load(up, requests, gap_s=0.05) as load:
            for number in range(KILLS):
                time.sleep(moments.uniform(0, 1))
                up.kill()
                up.launch()
                if number % 4:
                    eventually(lambda: bool(up.poll_ports()), "ready after kill -9")
                else:  # the next kill comes while it starts: reads the lookback again, stores what it did not commit
                    eventually(up.has_opened_store, "store opened after kill -9")
            eventually(lambda: bool(up.poll_ports()), "ready after the last kill -9")
            load.stop()
        assert len(load.acknowledged) > KILLS
        assert_accounted_for(up, load.acknowledged)
        killed = up.tables()
        assert up.stop() == 0
    finally:
        up.stop(signal.SIGKILL)

    shutil.copytree(up.data / "log", tmp_path / "undisturbed/data/log")
    forget_commits(tmp_path / "undisturbed/data/log")
    with running_up(tmp_path / "undisturbed", CONFIG, *QUICK) as undisturbed:
        assert_accounted_for(undisturbed, load.acknowledged)
        for table, rows in undisturbed.tables().items():
            assert rows == killed[table], table


def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    requests = make_requests(20_000, 20, 5, 20, seed=5)
    up = Up(tmp_path, KEEP_ALL, *QUICK).start()
    try:
        with Load(up, requests) as load:
            eventually(lambda: len(load.acknowledged) > 50, "some requests are acknowledged")
            assert up.stop() == 0
            load.stop()
        up.start()
        assert_accounted_for(up, load.acknowledged)
    finally:
        up.stop(signal.SIGKILL)

"""The distributed mode as an operator runs it: ingest -> Kafka -> process -> store, on the captured mesh,
with kill -9 of workers.
"""

import asyncio
import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meshflow.settings import load
from processors.readers.partition import watermark_of
from schemas.tables import SCHEMAS, Block
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import ChdbStore, StorageSettings
from storage.sink import open_sink
from tests.e2e.test_e2e_capture import CAPTURE, CAPTURED_CALLS, CAPTURED_LOGS, CAPTURED_SPANS, CAPTURED_UNSENT
from tests.support.kafka.broker import Cluster
from tests.support.kafka.core import Undisturbed, undisturbed, windows_close
from tests.support.kafka.fleet import Command, ingest, worker
from tests.support.kafka.place import KafkaPlace
from tests.support.up import LONG_S, MERGED, run_meshflow

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

KILLS = 3
CONFIG = """
[processing]
lookback = "5s"

[processing.kafka]
session_timeout = "5s"
"""


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(running: ExitStack, command: Command) -> Command:
    command.launch()
    running.callback(lambda: command.stop(signal.SIGKILL))
    return command


async def all_is_committed(place: KafkaPlace, expected: Undisturbed) -> None:
    """Wait until the workers' group is as far as the log is."""
    reader = await place.open_reader("meshflow")
    for tp, commit in expected.commits.items():
        end_s = time.monotonic() + LONG_S
        wanted_ns = watermark_of(commit).stored_until_ns
        while watermark_of(known := await reader.committed(tp)).stored_until_ns < wanted_ns:
            assert time.monotonic() < end_s, (tp, known, commit)
            await asyncio.sleep(0.1)
    await reader.close()


def metrics(command: Command) -> str:
    """/metrics of a running command, which a page of another site does not get."""
    url = command.wait_for(r"metrics +(\S+)")
    with pytest.raises(urllib.error.HTTPError, match="421"):
        urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "evil.example"}), timeout=LONG_S)
    with urllib.request.urlopen(url, timeout=LONG_S) as response:
        return str(response.read().decode())


def fill(folder: Path, blocks: Iterable[Block], settings: StorageSettings) -> None:
    """Make a store of these blocks."""
    place = ChdbStore(folder / "data/store")
    client = open_client(place)
    migrate(client, settings)
    client.close()
    sink = open_sink(place)
    for block in blocks:
        sink.write(block)
    sink.close()


def test_the_captured_mesh_through_kafka_gives_envoys_own_numbers_though_workers_are_killed(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place = KafkaPlace(broker)
    receiver = start(running, ingest(tmp_path, place.url, CONFIG))
    target = receiver.wait_for(r"OTLP/gRPC +(\S+)")
    moments = random.Random(5)
    consumer = worker(tmp_path, place.url, CONFIG)
    start(running, consumer)
    consumer.wait_for("(is running)")
    files = [str(CAPTURE), str(CAPTURE.with_name("logs.bin.gz"))]
    sending = start(
        running, Command(tmp_path, "replay", place.url, "replay", *files, "--target", target, "--speed", "8")
    )
    for _ in range(KILLS):
        time.sleep(moments.uniform(2.0, 3.5))
        consumer.kill()
        consumer.launch()
    assert sending.process is not None
    assert sending.process.wait(LONG_S) == 0, sending.output()
    settings = load(tmp_path / "meshflow.toml", {("processing", "pane"): "1s"}, {}).settings
    asyncio.run(windows_close(place, settings.processing, LONG_S))
    assert receiver.stop() == 0, receiver.output()
    expected = asyncio.run(undisturbed(place, settings.processing))
    asyncio.run(all_is_committed(place, expected))
    assert "meshflow_process_lag_records{" in metrics(consumer)
    assert consumer.stop() == 0, consumer.output()

    stored = facts(tmp_path, *CALLS_UNSENT_LEDGER, *FINGERPRINTS)
    assert {fact[1:]: n for fact, n in stored.items() if fact[0] == "calls"} == CAPTURED_CALLS
    assert {fact[1:]: n for fact, n in stored.items() if fact[0] == "unsent"} == CAPTURED_UNSENT
    for topic, items in (("otlp_spans", CAPTURED_SPANS), ("otlp_logs", CAPTURED_LOGS)):
        assert stored["ledger", topic, "received"] == stored["ledger", topic, "kept or dropped"] == items
        assert stored["ledger", topic, "anything else"] == 0

    fill(tmp_path / "undisturbed", expected.blocks.values(), settings.storage)
    expected_rows = facts(tmp_path / "undisturbed", *FINGERPRINTS)
    assert {fact: n for fact, n in stored.items() if fact[0] in {"rows", "hash"}} == expected_rows


def _fingerprint(table: str) -> str:
    """Rows of a table, and a sum of their hashes, merged as the table's engine merges them."""
    merged = table.endswith(MERGED)
    without = {"LogTime"} if table == "otel_traces_trace_id_ts" else set()  # after a merge any one's
    columns = [f"`{name}`" for name in SCHEMAS[table].names if name not in without]
    rows = (
        f"SELECT toJSONString(tuple({', '.join(columns)})) AS line FROM {table} {'FINAL' if merged else ''}"
    )
    return (
        f"SELECT [what, '{table}'] AS fact, n FROM"
        f" (SELECT [('rows', count()), ('hash', sum(cityHash64(line)))] AS counted FROM ({rows}))"
        " ARRAY JOIN counted.1 AS what, counted.2 AS n"
    )


FINGERPRINTS = tuple(_fingerprint(table) for table in SCHEMAS)
CALLS_UNSENT_LEDGER = (
    "SELECT ['calls', client_service, server_service, server_version] AS fact, sum(calls) AS n FROM edges_10s"
    " WHERE connection = 'service' AND calls > 0 GROUP BY ALL HAVING n > 0",
    "SELECT ['unsent', client_service, server_service] AS fact, sum(unsent) AS n FROM edges"
    " WHERE has(splitByChar(',', response_flags), 'UO') GROUP BY ALL HAVING n > 0",
    "SELECT ['ledger', topic, 'received'] AS fact, sum(received) AS n FROM ledger GROUP BY ALL",
    "SELECT ['ledger', topic, 'kept or dropped'] AS fact,"
    " sum(kept) + sum(dropped) + sum(aggregated) + sum(left_out) AS n FROM ledger GROUP BY ALL",
    "SELECT ['ledger', topic, 'anything else'] AS fact,"
    " sum(duplicate) + sum(rejected) + sum(lost) + sum(refused) AS n FROM ledger GROUP BY ALL",
)


def facts(folder: Path, *queries: str) -> dict[tuple[str, ...], int]:
    """What queries for ``fact`` (array of strings) and ``n`` give on the store at rest, in one go: each go
    starts the engine.
    """
    sql = " UNION ALL ".join(f"SELECT fact, toUInt64(n) FROM ({query})" for query in queries)
    output = run_meshflow("query", "--data", str(folder / "data"), "--format", "JSONCompactEachRow", sql)
    return {tuple(fact): int(n) for fact, n in map(json.loads, output.splitlines())}

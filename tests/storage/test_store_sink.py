"""Blocks into tables: stored once however often and in whatever state they are written."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from processors.storing import write_blocks
from schemas.errors import SinkRejected, SinkTooLarge, SinkUnavailable, SinkUnusable
from schemas.records import TopicPartition
from schemas.tables import SCHEMAS, Block
from schemas.units import NS_PER_S
from storage.client import classify, open_client
from storage.deduplication_log import repair
from storage.settings import ChdbStore, ClickHouseStore, StorageSettings
from storage.sink import RetryingSink, open_sink
from tests.support.stores import TP, Place, block, opened, scalar, settings_for, write

DAY = 86_400
NOW = int(time.time())  # what is older than its TTL would expire under the tests
NOON = NOW // DAY * DAY - DAY // 2
TIME_NS = NOW * NS_PER_S + 123_456_789


@pytest.fixture
def settings(place: Place) -> Iterator[StorageSettings]:
    made = place.settings()
    with opened(made):
        yield made


def red_rows(count: int, *, slot: int = NOON, days: int = 1) -> list[dict[str, object]]:
    return [
        {
            "slot": slot + i % days * DAY,
            "service": f"service-{i}",
            "requests": i,
            "duration_histogram": [(300, 1), (301, 2)],
            "exemplar_trace_id": f"{i:032x}",
        }
        for i in range(count)
    ]


def total(
    settings: StorageSettings, table: str = "red_10s", what: str = "count(), sum(requests)"
) -> tuple[Any, ...]:
    with closing(open_client(settings.store_place)) as client:
        return tuple(client.query(f"SELECT {what} FROM {table}").result_rows[0])


def test_a_repeated_block_is_dropped_also_after_a_restart(place: Place) -> None:
    settings = place.settings()
    rows = block("red_10s", red_rows(100, days=5))
    with opened(settings):
        write(settings, rows, rows)
    place.restart()
    with opened(settings):
        write(settings, rows)
        assert total(settings) == (100, 4950)
        write(settings, block("red_10s", red_rows(100, days=5), pane=2))
        assert total(settings)[1] == 9900


def test_the_token_names_the_block_not_its_rows(settings: StorageSettings) -> None:
    write(settings, block("red_10s", red_rows(10)), block("red_10s", red_rows(20)))
    assert total(settings)[0] == 10
    write(settings, block("red_10s", red_rows(20), tp=TopicPartition("otlp_spans", 1)))
    assert total(settings, what="sum(requests)") == (45 + 190,)


def test_every_table_takes_a_block(settings: StorageSettings) -> None:
    for table, schema in SCHEMAS.items():
        times = [name for name in schema.names if pa.types.is_timestamp(schema.field(name).type)]
        slots = [name for name in ("LogTime", "slot", "time", "log_time") if name in schema.names]
        values: dict[str, object] = {**dict.fromkeys(times, TIME_NS), **dict.fromkeys(slots, NOW)}
        write(settings, block(table, [values]))
        assert total(settings, table, "count()") == (1,), table
        if "Timestamp" in values:
            assert total(settings, table, "toUnixTimestamp64Nano(Timestamp)") == (TIME_NS,)


def test_nested_values_arrive_whole(settings: StorageSettings) -> None:
    row = {
        "LogTime": NOON,
        "TraceId": "ab" * 16,
        "SpanAttributes": [("k", "v"), ("é", "ü")],
        "Events.Timestamp": [5, 6],
        "Events.Name": ["first", "second"],
        "Events.Attributes": [[("a", "b")], []],
        "Links.TraceId": ["cd" * 16],
        "Links.SpanId": ["ef" * 8],
        "Links.TraceState": [""],
        "Links.Attributes": [[]],
        "SampleRate": 12.5,
    }
    write(settings, block("otel_traces", [row]))
    what = "TraceId, SpanAttributes, `Events.Name`, `Events.Attributes`, `Links.TraceId`, SampleRate"
    expected = ("ab" * 16, {"k": "v", "é": "ü"}, ["first", "second"], [{"a": "b"}, {}], ["cd" * 16], 12.5)
    assert total(settings, "otel_traces", what) == expected


@pytest.mark.parametrize("count", [3_000, 60_000])
def test_a_block_of_many_chunks_is_one_part_in_each_partition(settings: StorageSettings, count: int) -> None:
    """On either side of what goes as a file."""
    whole = block("red_10s", red_rows(count, days=3))
    chunks = pa.concat_tables([whole.rows.slice(start, 1_000) for start in range(0, count, 1_000)])
    with closing(open_client(settings.store_place)) as client:
        client.command("SYSTEM STOP MERGES red_10s")
    for _ in range(2):
        write(settings, Block("red_10s", TP, 1, chunks))
        assert total(
            settings,
            "system.parts WHERE database = currentDatabase() AND table = 'red_10s'",
            "count(), uniqExact(partition), sum(rows)",
        ) == (3, 3, count)


def test_blocks_sent_as_asynchronous_inserts_are_stored_once(place: Place) -> None:
    settings = place.settings(clickhouse={"async_insert": True})
    rows = block("red_10s", red_rows(100, days=3))
    with opened(settings):
        write(settings, rows, rows)
        write(settings, rows)
        assert total(settings) == (100, 4950)


def test_an_empty_block_is_nothing(settings: StorageSettings) -> None:
    write(settings, Block("red_10s", TP, 1, SCHEMAS["red_10s"].empty_table()))
    assert total(settings)[0] == 0


def test_what_no_block_can_pass_is_unusable_and_says_what_to_do(settings: StorageSettings) -> None:
    rows = block("red_10s", red_rows(1)).rows
    with pytest.raises(SinkUnusable, match="no table"):
        write(settings, Block("elsewhere", TP, 1, rows))
    with pytest.raises(SinkUnusable, match="not of the table's schema"):
        write(settings, Block("red_10s", TP, 1, rows.drop_columns(["version"])))
    client = open_client(settings.store_place)
    client.command("DROP TABLE red_10s")
    client.close()
    with pytest.raises(SinkUnusable, match=r"run `meshflow migrate`.*UNKNOWN_TABLE"):
        write(settings, Block("red_10s", TP, 1, rows))


def test_a_row_that_the_table_refuses_is_rejected_and_the_others_are_not(settings: StorageSettings) -> None:
    client = open_client(settings.store_place)
    client.command("ALTER TABLE red_10s ADD CONSTRAINT few CHECK requests < 1000")
    client.close()
    whole = block("red_10s", red_rows(4))
    requests = pa.array([1, 5000, 3, 4], pa.uint64())
    at = whole.rows.schema.get_field_index("requests")
    odd = replace(whole, rows=whole.rows.set_column(at, whole.rows.schema.field(at), requests))
    with pytest.raises(SinkRejected, match="VIOLATED_CONSTRAINT"):
        write(settings, odd)
    for _ in range(2):  # a second reader finds the same, and adds nothing
        with closing(open_sink(settings.store_place)) as sink:
            (letter,) = write_blocks(sink, [odd])
        assert "refuses 1 of 4 rows" in letter.reason
        assert letter.offset == odd.first_offset
    assert total(settings)[0] == 3


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (497, "Not enough privileges", SinkUnusable),
        (516, "Authentication failed", SinkUnusable),
        (60, "UNKNOWN_TABLE", SinkUnusable),
        (307, "TOO_MANY_BYTES", SinkTooLarge),
        (241, "Memory limit (for query) exceeded", SinkTooLarge),
        (241, "Memory limit (total) exceeded", SinkUnavailable),
        (252, "TOO_MANY_PARTS", SinkUnavailable),
        (321, "VALUE_IS_OUT_OF_RANGE", SinkRejected),
        (None, "Connection refused", SinkUnavailable),
    ],
)
def test_errors_that_mean_away_are_told_from_those_that_never_mend(
    code: int | None, text: str, kind: type[Exception]
) -> None:
    assert type(classify(DatabaseError(text, code=code), "an insert")) is kind


def test_a_folder_in_use_and_a_server_away_are_unavailable(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with opened(settings):
        _assert_in_use(settings)
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:9 cannot be opened"):
        open_sink(ClickHouseStore("127.0.0.1", 9, "default", "default", "", secure=False))


def _assert_in_use(settings: StorageSettings) -> None:
    code = "import sys; from storage import client, settings; client.open_client(settings.parse_store_url(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", code, settings.store_url], capture_output=True, text=True, check=False
    )
    assert "SinkUnavailable" in other.stderr
    assert "in use by another process (PID: " in other.stderr


class FailingSink:
    """Away for the first ``failures`` writes."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.written: list[str] = []

    def write(self, block: Block) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error
        self.written.append(block.token)

    def close(self) -> None: ...


def test_retries_wait_longer_and_longer() -> None:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    sink = FailingSink(6, SinkUnavailable("away"))
    retrying = RetryingSink(sink, first_delay_s=1, longest_delay_s=10, wait=wait)
    rows = block("red_10s", red_rows(1))
    retrying.write(rows)
    assert waits == [1, 2, 4, 8, 10, 10]
    assert sink.written == [rows.token]


def test_what_is_rejected_is_not_tried_again() -> None:
    retrying = RetryingSink(FailingSink(1, SinkRejected("no")), wait=lambda seconds: pytest.fail("waited"))
    with pytest.raises(SinkRejected):
        retrying.write(block("red_10s", red_rows(1)))


def test_stop_ends_the_wait() -> None:
    retrying = RetryingSink(FailingSink(10**9, SinkUnavailable("away")), first_delay_s=60)
    retrying.stop()
    with pytest.raises(SinkUnavailable):
        retrying.write(block("red_10s", red_rows(1)))


_CHILD = """
import sys
from storage.settings import parse_store_url
from storage.sink import open_sink
from tests.support.stores import block
from tests.storage.test_store_sink import red_rows, rows_of
sink = open_sink(parse_store_url(sys.argv[1]))
for pane in range(int(sys.argv[2]), 10_000):
    for table in ("red_10s", "otel_traces"):
        sink.write(block(table, rows_of(table, pane), pane))
        print(pane, flush=True)
"""


def rows_of(table: str, pane: int) -> list[dict[str, object]]:
    if table == "red_10s":
        return red_rows(50, slot=NOON + pane * 10, days=3)
    return [
        {"LogTime": NOON + pane % 2 * DAY, "TraceError": i % 2, "TraceId": f"{pane}-{i}"} for i in range(50)
    ]


def test_kill_9_leaves_each_block_whole_or_repeatable(place: Place) -> None:
    settings = place.settings()
    with opened(settings):
        pass
    chance = random.Random(5)
    begun = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, settings.store_url, str(begun)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        seen = [int(line) for line in child.stdout.read().splitlines() if line]
        child.stdout.close()
        child.wait()
        begun = max(
            [begun, *(pane - 1 for pane in seen)]
        )  # as after a commit: the last panes are written again
    with opened(settings):
        panes = range(begun + 3)
        write(
            settings,
            *(
                block(table, rows_of(table, pane), pane)
                for pane in panes
                for table in ("red_10s", "otel_traces")
            ),
        )
        assert total(settings, what="count(), sum(requests)") == (50 * len(panes), 1225 * len(panes))
        assert total(settings, "otel_traces", "count(), uniqExact(TraceId)") == (
            50 * len(panes),
            50 * len(panes),
        )


def test_a_name_without_its_part_is_forgotten(tmp_path: Path) -> None:
    """A kill between the name and the part: the folder is put into that state, as a timed kill hits it too
    rarely.
    """
    settings = settings_for(tmp_path)
    with opened(settings) as client:
        for pane in range(3):
            write(settings, block("red_10s", red_rows(10, days=2), pane))
        before = total(settings, what="sum(requests)")
        path = Path(
            scalar(
                client,
                "SELECT path FROM system.parts WHERE table = 'red_10s' AND active ORDER BY max_block_number DESC LIMIT 1",
            )
        )
        client.command("SYSTEM STOP MERGES")
    place = settings.store_place
    assert isinstance(place, ChdbStore)
    shutil.rmtree(path)
    (place.directory / "status").write_text("PID: 1\n")  # left by the killed process
    with opened(settings):
        assert total(settings, what="sum(requests)") < before
        for pane in range(3):
            write(settings, block("red_10s", red_rows(10, days=2), pane))
        assert total(settings, what="sum(requests)") == before
    assert repair(place.directory) == []

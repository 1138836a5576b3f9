"""Roll-ups, and the views over all levels: any sum over any time is right at any moment."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st

from schemas.counters import COUNTERS, UNSAID
from schemas.histogram import bucket_of
from schemas.tables import Block
from schemas.units import NS_PER_S
from schemas.watermark import Watermark
from storage.jobs import rollups
from storage.jobs.rollups import HOUR_S, RollUps, due_rollups, expired_partitions
from storage.migrate import migrate
from storage.settings import StorageSettings
from tests.support.stores import SHORT, Place, block, opened, scalar, write

THIS_HOUR_S = int(time.time()) // HOUR_S * HOUR_S


@pytest.fixture
def settings(place: Place) -> StorageSettings:
    return place.settings()


@pytest.fixture
def short(settings: StorageSettings) -> StorageSettings:
    """TTLs with which hours of today are already read from the coarser levels."""
    return settings.model_copy(update=SHORT)


@pytest.fixture
def client(settings: StorageSettings) -> Iterator[Client]:
    with opened(settings) as opened_client:
        yield opened_client


def closed(hours_ago: int) -> Watermark:
    """The watermark with which the hour that began ``hours_ago`` is just closed."""
    final_until_ns = (THIS_HOUR_S - hours_ago * HOUR_S + HOUR_S) * NS_PER_S
    return Watermark(final_until_ns + 900 * NS_PER_S, final_until_ns)


def roll_up(client: Client, watermark: Watermark, settings: StorageSettings) -> int:
    """What a job does that begins now; how many inserts it took."""
    return len(list(RollUps(client, settings).run(watermark)))


def red(slot_s: int, requests: int, late: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "slot": slot_s,
        "service": "shop",
        "requests": requests,
        "errors": 1,
        "duration_ns_sum": requests * 10,
        "duration_ns_max": requests,
        "duration_histogram": [(300, requests), (301, 1)],
        "exemplar_trace_id": f"{slot_s:032x}",
        "late": late,
    } | more


def late_red(slot_s: int, requests: int, pane: int) -> list[Block]:
    """As the processors write it: a late row goes to every level."""
    return [
        block(f"red_{level}", [red(slot_s // width * width, requests, late=1)], pane)
        for level, width in (("10s", 10), ("1m", 60), ("1h", HOUR_S))
    ]


def sums(client: Client, relation: str = "red", where: str = "1") -> tuple[Any, ...]:
    values = (
        "sum(requests), sum(errors), sum(duration_ns_sum), max(duration_ns_max), sumMap(duration_histogram)"
    )
    return tuple(client.query(f"SELECT {values} FROM {relation} WHERE {where}").result_rows[0])


@given(st.integers(0, 10**6), st.integers(0, 400))
def test_due_hours_are_closed_and_follow_the_done_ones(final_until_s: int, done_hours: int) -> None:
    due = due_rollups(final_until_s * NS_PER_S, done_hours * HOUR_S)
    assert due.start == done_hours * HOUR_S
    assert all(hour + HOUR_S <= final_until_s for hour in due)
    assert due.stop + HOUR_S > final_until_s


def test_days_go_once_rolled_up_and_old_enough() -> None:
    days = [date(2026, 9, day) for day in (1, 2, 3, 4)]
    now = datetime(2026, 9, 5, 3, tzinfo=UTC)
    until = int(datetime(2026, 9, 3, 12, tzinfo=UTC).timestamp())
    assert expired_partitions(days, until, timedelta(days=2), now) == days[:2], (
        "day 3 is not rolled up to its end"
    )
    assert expired_partitions(days, until * 2, timedelta(days=2), now) == days[:2]
    assert expired_partitions(days, until * 2, timedelta(hours=3), now) == days
    assert expired_partitions(days, 0, timedelta(0), now) == []


def test_rows_wait_for_their_roll_up_beyond_their_time(
    client: Client, settings: StorageSettings, short: StorageSettings
) -> None:
    migrate(client, short)
    days_ago = [red(THIS_HOUR_S - days * 24 * HOUR_S, days) for days in (2, 3, 4)]
    write(settings, block("red_10s", days_ago))
    client.command("OPTIMIZE TABLE red_10s FINAL")
    roll_up(client, closed(1), short)
    assert scalar(client, "SELECT count() FROM red_10s") == 0
    assert sums(client)[0] == 9


def test_sums_over_any_hours_are_right_before_during_and_after(
    client: Client, settings: StorageSettings, short: StorageSettings
) -> None:
    migrate(client, short)
    client.command("TRUNCATE TABLE rollups")  # forget that the TTLs were longer: nothing has expired yet
    chance = random.Random(3)
    expected = dict.fromkeys(range(9, -1, -1), 0)
    for hours_ago in expected:
        rows = [
            red(THIS_HOUR_S - hours_ago * HOUR_S + slot, chance.randrange(1, 100))
            for slot in range(0, HOUR_S, 300)
        ]
        expected[hours_ago] = sum(row["requests"] for row in rows)
        write(settings, block("red_10s", rows, hours_ago))
    check_hours(client, expected)
    for hours_ago in range(9, 0, -1):
        assert roll_up(client, closed(hours_ago), short) > 0
        requests = chance.randrange(1, 100)
        write(
            settings,
            *late_red(THIS_HOUR_S - hours_ago * HOUR_S + chance.randrange(HOUR_S), requests, 100 + hours_ago),
        )
        expected[hours_ago] += requests
        check_hours(client, expected)
    assert roll_up(client, closed(1), short) == 0
    levels = client.query("SELECT red_1m_until, red_1h_until FROM rollup_bounds").result_rows[0]
    hours_back = [(THIS_HOUR_S - int(level.timestamp())) // HOUR_S for level in levels]
    assert hours_back in ([2, 5], [1, 4]), (
        "each level answers for as long as its rows are surely there (3 h, 6 h)"
    )


def check_hours(client: Client, expected: dict[int, int]) -> None:
    hour = f"dateDiff('hour', slot, toDateTime({THIS_HOUR_S}, 'UTC'))"
    rows = client.query(f"SELECT {hour} AS hours_ago, sum(requests) FROM red GROUP BY hours_ago").result_rows
    assert {int(ago): int(requests) for ago, requests in rows} == expected


def test_a_rolled_up_hour_says_the_same_at_every_level(client: Client, settings: StorageSettings) -> None:
    start = THIS_HOUR_S - 8 * HOUR_S
    write(
        settings,
        *(
            block(
                "red_10s",
                [
                    red(start + 10 * slot, 1 + slot % 7, status_class=f"{1 + slot % 5}xx")
                    for slot in range(360)
                ],
                pane,
            )
            for pane in range(2)
        ),
    )
    fine = sums(client, "red_10s")
    exemplar = scalar(client, "SELECT max(exemplar_trace_id) FROM red_10s")
    roll_up(client, closed(8), settings)
    for table in ("red_1m", "red_1h", "red"):
        assert sums(client, table) == fine
        assert scalar(client, f"SELECT max(exemplar_trace_id) FROM {table}") == exemplar
    assert client.query("SELECT count(), uniqExact(slot) FROM red_1m").result_rows == [(300, 60)]
    assert client.query("SELECT count(), uniqExact(slot), min(slot) = max(slot) FROM red_1h").result_rows == [
        (5, 1, True)
    ]
    half = f"slot >= toDateTime({start + 1800}, 'UTC') AND slot < toDateTime({start + HOUR_S}, 'UTC')"
    assert sums(client, "red_1m", half) == sums(client, "red_10s", half)


def test_counters_say_the_same_at_every_level(client: Client, settings: StorageSettings) -> None:
    start = THIS_HOUR_S - 8 * HOUR_S
    slots = range(start, start + HOUR_S, 300)
    rows: dict[str, list[dict[str, Any]]] = {
        "traffic": [{"side": "client", "requests": 2, "duration_histogram": [(300, 2)]}] * len(slots),
        "upstreams": [
            {"upstream": "b", "retries": 3, "healthy_hosts": at % 7 + 1, "remaining_retries": UNSAID, "hosts": at % 7}
            for at in range(len(slots))
        ],
        "proxies": [{"instance": "i", "restarts": 1, "cpu_s": 0.5, "uptime_s": at} for at in range(len(slots))],
        "control_plane": [
            {"metric": "m", "labels": [("type", "cds")], "increment": 1.5, "value": float(at), "histogram": [(1, 1)]}
            for at in range(len(slots))
        ],
    }  # fmt: skip
    for table, values in rows.items():
        slotted = [{"slot": slot, "service": "a", **row} for slot, row in zip(slots, values, strict=True)]
        write(settings, block(f"{table}_10s", slotted))
    roll_up(client, closed(8), settings)
    wanted = {
        "traffic": ("sum(requests), sumMap(duration_histogram), any(side)", (24, {300: 24}, "client")),
        "upstreams": ("sum(retries), min(healthy_hosts), min(remaining_retries), max(hosts)", (36, 1, UNSAID, 6)),
        "proxies": ("sum(restarts), sum(cpu_s), max(uptime_s)", (12, 6.0, 11)),
        "control_plane": (
            "sum(increment), argMax(value, slot), sumMap(histogram), any(labels)", (18.0, 11.0, {1: 12}, {"type": "cds"})
        ),
    }  # fmt: skip
    for table, (columns, truth) in wanted.items():
        for name in (f"{table}_10s", f"{table}_1m", f"{table}_1h", table):
            assert client.query(f"SELECT {columns} FROM {name} WHERE service = 'a'").result_rows == [truth], (
                name
            )
        assert scalar(client, f"SELECT count() FROM {table}_1h") == 1


@pytest.mark.parametrize("table", COUNTERS)
def test_every_column_of_counters_says_the_same_at_every_level(
    client: Client, settings: StorageSettings, table: str
) -> None:
    columns, chance = COUNTERS[table], random.Random(table)
    start = THIS_HOUR_S - 8 * HOUR_S
    rows: list[dict[str, Any]] = []
    for slot in range(start, start + HOUR_S, 60):
        numbers = (*columns.sums, *columns.largest, *columns.smallest)
        rows.append(
            {"slot": slot + 10 * chance.randrange(6), "service": chance.choice("ab")}
            | {name: chance.randrange(1, 1_000) for name in numbers}
            | {name: chance.randrange(1, 1_000) / 4 for name in (*columns.totals, *columns.last)}
            | {name: [(chance.randrange(3), chance.randrange(1, 9))] for name in columns.histograms}
        )
    write(settings, block(f"{table}_10s", rows))
    roll_up(client, closed(8), settings)
    for service in "ab":
        own = [row for row in rows if row["service"] == service]
        truth: dict[str, Any] = {
            f"sum({name})": sum(row[name] for row in own) for name in (*columns.sums, *columns.totals)
        }
        truth |= {f"max({name})": max(row[name] for row in own) for name in columns.largest}
        truth |= {f"min({name})": min(row[name] for row in own) for name in columns.smallest}
        truth |= {f"argMax({name}, slot)": own[-1][name] for name in columns.last}
        for name in columns.histograms:
            buckets = [bucket for row in own for bucket in row[name]]
            truth[f"sumMap({name})"] = {
                at: sum(n for each, n in buckets if each == at) for at, _ in sorted(buckets)
            }
        for name in (f"{table}_10s", f"{table}_1m", f"{table}_1h", table):
            found = client.query(
                f"SELECT {', '.join(truth)} FROM {name} WHERE service = '{service}'"
            ).result_rows
            assert dict(zip(truth, found[0], strict=True)) == truth, name


def test_late_counters_are_at_each_level_once(client: Client, settings: StorageSettings) -> None:
    """Processors write late rows to every level at once, so roll-ups leave those of the finer level out."""
    start = THIS_HOUR_S - 8 * HOUR_S
    columns = {
        "traffic": "requests",
        "upstreams": "retries",
        "proxies": "restarts",
        "control_plane": "increment",
    }
    for table, column in columns.items():
        rows = [{"slot": start + 70, "service": "a", column: 2}]
        write(settings, block(f"{table}_10s", rows))
        for level, width in (("10s", 10), ("1m", 60), ("1h", HOUR_S)):
            late = {"slot": (start + 70) // width * width, "service": "a", "late": 1, column: 5}
            write(settings, block(f"{table}_{level}", [late], pane=2))
    roll_up(client, closed(8), settings)
    for table, column in columns.items():
        for name in (f"{table}_10s", f"{table}_1m", f"{table}_1h", table):
            assert scalar(client, f"SELECT sum({column}) FROM {name}") == 7, name


def test_all_of_it_again_changes_nothing(
    client: Client, settings: StorageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "SERVICES_PER_INSERT", 2)
    names = ["", "a'b", "back\\slash", "tab\tline\nend", "ünïcode", "z", "{first:String}"]
    start = THIS_HOUR_S - 8 * HOUR_S
    rows = [red(start + 10 * i, 1, service=name, operation=str(i)) for i, name in enumerate(names * 3)]
    edges = [
        {"slot": start + 10 * i, "client_service": name, "server_service": "x", "calls": 1}
        for i, name in enumerate(names * 3)
    ]
    write(settings, block("red_10s", rows), block("edges_10s", edges))
    assert roll_up(client, closed(8), settings) == 4 * 4 + 1  # and the learned servers
    before = [sums(client, table) for table in ("red_1m", "red_1h")]
    assert before[0][0] == len(rows)
    client.command("TRUNCATE TABLE rollups")  # as if a kill came before anything was recorded
    assert roll_up(client, closed(8), settings) == 4 * 4 + 1  # and the learned servers
    assert [sums(client, table) for table in ("red_1m", "red_1h")] == before
    assert (
        scalar(client, "SELECT sum(calls) FROM edges_1m")
        == scalar(client, "SELECT sum(calls) FROM edges_1h")
        == len(edges)
    )
    assert {row[0] for row in client.query("SELECT DISTINCT service FROM red_1h").result_rows} == set(names)


_CHILD = """
import sys
from schemas.watermark import Watermark
from storage.jobs import rollups
from storage.client import open_client
from storage.settings import StorageSettings
rollups.SERVICES_PER_INSERT = 3
settings = StorageSettings(store=sys.argv[1])
job = rollups.RollUps(open_client(settings.store_place), settings)
print("ready", flush=True)
for _ in job.run(Watermark(int(sys.argv[2]), int(sys.argv[2]))):
    pass
"""


def test_kill_9_at_any_moment_neither_loses_nor_doubles(settings: StorageSettings) -> None:
    start = THIS_HOUR_S - 8 * HOUR_S
    rows = [
        red(start + hour * HOUR_S + 10 * i, 1 + i, service=f"s{i % 20:02}")
        for hour in range(4)
        for i in range(360)
    ]
    calls = [
        edge(
            start + hour * HOUR_S + 10 * i,
            f"t{i % 7}",
            client_service=f"s{i % 20:02}",
            calls=1 + i,
            unsent=i % 3,
        )
        for hour in range(4)
        for i in range(360)
    ]
    with opened(settings) as client:
        write(settings, block("red_10s", rows), block("edges_10s", calls))
        fine, fine_calls = sums(client, "red_10s"), call_sums(client, "edges_10s")
    chance = random.Random(11)
    for _ in range(3):
        command = [sys.executable, "-c", _CHILD, settings.store_url, str(closed(5).final_until_ns)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0.02, 0.4))
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with opened(settings) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollups, "SERVICES_PER_INSERT", 3)
        for _ in range(2):
            roll_up(client, closed(5), settings)
            assert sums(client, "red_1m") == sums(client, "red_1h") == sums(client, "red") == fine
            assert (
                call_sums(client, "edges_1m")
                == call_sums(client, "edges_1h")
                == call_sums(client, "edges")
                == fine_calls
            )
            assert scalar(client, "SELECT sum(calls) FROM upstream_servers") == sum(
                row["calls"] for row in calls
            )
            client.command(
                "TRUNCATE TABLE rollups"
            )  # as if a kill had come before it was recorded: all of it again


def call_sums(client: Client, table: str) -> tuple[int, ...]:
    ((calls, unsent, servers),) = client.query(
        f"SELECT sum(calls), sum(unsent), uniqExact(server_service) FROM {table}"
    ).result_rows
    return calls, unsent, servers


def test_a_longer_ttl_does_not_send_the_view_where_rows_are_gone(
    client: Client, settings: StorageSettings, short: StorageSettings
) -> None:
    migrate(client, short)
    write(settings, *(block("red_10s", [red(THIS_HOUR_S - ago * HOUR_S, 1)], ago) for ago in range(1, 9)))
    roll_up(client, closed(1), short)
    client.command(
        f"ALTER TABLE red_10s DELETE WHERE slot < toDateTime({THIS_HOUR_S - 3 * HOUR_S}, 'UTC')",
        settings={"mutations_sync": 2},
    )
    assert sums(client)[0] == 8
    migrate(client, settings)
    assert sums(client)[0] == 8


def edge(slot_s: int, server: str, connection: str = "service", **more: Any) -> dict[str, Any]:
    return {
        "slot": slot_s,
        "client_service": "front",
        "server_service": server,
        "connection": connection,
        "upstream_cluster": "up",
    } | more


def test_calls_that_never_left_take_the_server_that_others_reached(
    client: Client, settings: StorageSettings
) -> None:
    old, fresh = THIS_HOUR_S - 2 * HOUR_S, THIS_HOUR_S
    unsent = edge(fresh, "up", "unknown", unsent=7, response_flags="UO")
    write(
        settings,
        block(
            "edges_10s", [unsent, edge(fresh, "other", "unknown", upstream_cluster="never-reached", unsent=2)]
        ),
    )
    by_server = "SELECT server_service, connection, sum(unsent) AS n FROM edges GROUP BY ALL HAVING n > 0 ORDER BY ALL"
    assert client.query(by_server).result_rows == [("other", "unknown", 2), ("up", "unknown", 7)]
    rows = [
        edge(old, "orders", calls=5, server_namespace="shop"),
        edge(old, "carts", calls=3),
        edge(old, "x", upstream_cluster="elsewhere", calls=99),
    ]
    write(settings, block("edges_10s", rows, 2))
    for _ in range(2):
        assert client.query(by_server).result_rows == [("orders", "service", 7), ("other", "unknown", 2)]
        roll_up(client, closed(1), settings)
    assert scalar(client, "SELECT server_namespace FROM edges WHERE unsent = 7") == "shop"
    assert client.query("SELECT sum(calls), sum(unsent) FROM edges").result_rows == [(107, 9)]
    write(settings, block("edges_10s", [edge(fresh, "carts", calls=10)], 3))
    assert client.query(by_server).result_rows == [("carts", "service", 7), ("other", "unknown", 2)]


def test_quantiles_are_within_a_bucket_of_the_exact_ones(client: Client, settings: StorageSettings) -> None:
    chance = random.Random(9)
    durations = sorted(int(chance.lognormvariate(16, 2)) + 1 for _ in range(3_000))
    rows = [
        red(THIS_HOUR_S + i % 6 * 10, 1, duration_histogram=[(bucket_of(ns), 1)], operation=str(i % 3))
        for i, ns in enumerate(durations)
    ]
    merged: dict[tuple[int, str], dict[int, int]] = {}
    for row in rows:
        counts = merged.setdefault((row["slot"], row["operation"]), {})
        counts[row["duration_histogram"][0][0]] = counts.get(row["duration_histogram"][0][0], 0) + 1
    write(
        settings,
        block(
            "red_10s",
            [
                red(slot, 1, operation=name, duration_histogram=list(counts.items()))
                for (slot, name), counts in merged.items()
            ],
        ),
    )
    for q in (0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
        found = scalar(client, f"SELECT quantileOfHistogram(sumMap(duration_histogram), {q}) FROM red")
        exact = durations[max(1, ceil(q * len(durations))) - 1]
        assert abs(found / exact - 1) <= 0.0222, q
    assert scalar(
        client,
        "SELECT isNaN(quantileOfHistogram(sumMap(duration_histogram), 0.5)) FROM red WHERE service = 'none'",
    )

"""Closed hours into coarser rows: ``red_10s`` -> ``red_1m`` -> ``red_1h``; edges and counters alike (ADR 13).

An hour (of slots) is closed once every partition of spans and metrics has committed that rows of the hour are
marked late from there on: processors write late rows to every level themselves. The rows of the hour with
``late = 0``, which are rolled up, do not change any more then, and each insert of them can have a token: a
kill at any moment is mended by doing all of it again. The grace is part of the commits
(``processing.rollup_grace``), so another grace, on one worker or on all, loses nothing.

Finer rows are dropped here, by day, and not by a TTL alone: only once they are rolled up, however far
processing was behind.

An hour of a big mesh does not fit into memory, so it goes in ranges of services. The ranges depend on nothing
but the rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from clickhouse_connect.driver.client import Client

from schemas.counters import COUNTERS
from schemas.tables import EDGE_KEYS, EDGE_VALUES, RED_KEYS, RED_VALUES
from schemas.units import NS_PER_S
from schemas.watermark import Watermark
from storage import shards
from storage.client import errors
from storage.settings import StorageSettings
from storage.sink import insert_settings

HOUR_S = 3_600
SERVICES_PER_INSERT = 256
"""Services (callers, for edges) of one insert: with 10 operations each, 150,000 rows of the minute level,
some 100 MB on their way.
"""

_AGGREGATES = {
    "duration_ns_max": "max",
    "duration_histogram": "sumMap",
    "client_histogram": "sumMap",
    "server_histogram": "sumMap",
    "overhead_histogram": "sumMap",
    **{name: "sumMap" for columns in COUNTERS.values() for name in columns.histograms},
    **{name: "max" for columns in COUNTERS.values() for name in columns.largest},
    **{name: "min" for columns in COUNTERS.values() for name in columns.smallest},
}
_LAST = frozenset(name for columns in COUNTERS.values() for name in columns.last)


@dataclass(frozen=True, slots=True)
class Step:
    """From a finer to a coarser table."""

    source: str
    target: str
    slot: str
    """The coarse slot, as an expression of ``source.slot``."""
    range_key: str
    """Second column of the source's sorting key: what an hour is cut into ranges by."""
    keys: tuple[str, ...]
    values: tuple[str, ...]


def _steps() -> tuple[Step, ...]:
    minute, hour = "toStartOfMinute(s.slot)", "toStartOfHour(s.slot)"
    return (
        Step("red_10s", "red_1m", minute, "service", RED_KEYS, RED_VALUES),
        Step("edges_10s", "edges_1m", minute, "client_service", EDGE_KEYS, EDGE_VALUES),
        Step("red_1m", "red_1h", hour, "service", RED_KEYS, RED_VALUES),
        Step("edges_1m", "edges_1h", hour, "client_service", EDGE_KEYS, EDGE_VALUES),
        *(_of_counters(table, "10s", "1m", minute) for table in COUNTERS),
        *(_of_counters(table, "1m", "1h", hour) for table in COUNTERS),
    )


def _of_counters(table: str, finer: str, coarser: str, slot: str) -> Step:
    columns = COUNTERS[table]
    values = tuple(name for name in columns.columns if name not in columns.keys and name != "late")
    return Step(f"{table}_{finer}", f"{table}_{coarser}", slot, "service", columns.keys, values)


def _aggregate(value: str) -> str:
    """How a value of several rows is one."""
    if value in _LAST:
        return f"argMax(s.{value}, s.slot)"
    name = _AGGREGATES.get(value, "max" if value.startswith("exemplar") else "sum")
    return f"{name}(s.{value})"


STEPS = _steps()


def due_rollups(final_until_ns: int, done_until_s: int) -> range:
    """Starts of the hours (s since 1970) that are closed and not rolled up yet.

    ``final_until_ns``: see :class:`schemas.watermark.Watermark`; hours that end until then are closed.
    ``done_until_s``: all hours before it are rolled up.
    """
    closed_until_s = final_until_ns // NS_PER_S // HOUR_S * HOUR_S
    return range(done_until_s, max(done_until_s, closed_until_s), HOUR_S)


class RollUps:
    """The job (:class:`storage.jobs.job.Job`): every closed hour, oldest first, a portion an insert; then
    finer rows go that are no longer needed.

    Portions that a kill or a second worker repeats have the same tokens. The table ``rollups`` says up to
    which hour each level is whole.
    """

    name = "roll-ups"

    def __init__(self, client: Client, settings: StorageSettings) -> None:
        """Takes the client over: closing the job closes it."""
        self._client = client
        self._settings = settings
        self._done: dict[str, int] | None = None
        """Level -> end of its last whole hour, s since 1970, as the last run left it; None before."""

    def due(self, watermark: Watermark) -> bool:
        """See :class:`storage.jobs.job.Job`."""
        done = self._done or {}
        return any(due_rollups(watermark.final_until_ns, done.get(step.target, 0)) for step in STEPS)

    def run(self, watermark: Watermark) -> Iterator[str]:
        """See :class:`storage.jobs.job.Job`."""
        client = self._client
        with errors("roll-up"):
            done = _done_until(client)
            for step in STEPS:
                due = due_rollups(watermark.final_until_ns, done.get(step.target, 0))
                if not due:
                    continue
                for hour_s in _hours_with_rows(client, step, due):
                    yield from _roll_up(client, step, hour_s)
                _record(client, step, due.stop)
                _drop_expired(client, step, due.stop, self._settings)
                done[step.target] = due.stop
        self._done = done

    def close(self) -> None:
        """See :class:`storage.jobs.job.Job`."""
        self._client.close()


def expired_partitions(
    days: Iterable[date], complete_until_s: int, life: timedelta, now: datetime
) -> list[date]:
    """Which partitions (days, UTC) of a finer level may go: rolled up to their end, and ended ``life``
    ago.
    """
    ends = {day: datetime.combine(day, time(), UTC) + timedelta(days=1) for day in days}
    return [day for day, end in ends.items() if end.timestamp() <= complete_until_s and end + life <= now]


def _drop_expired(client: Client, step: Step, complete_until_s: int, settings: StorageSettings) -> None:
    life = settings.rollup_10s_ttl if step.source.endswith("_10s") else settings.rollup_1m_ttl
    sql = f"SELECT DISTINCT partition FROM {shards.parts(settings, step.source)}"
    days = [date.fromisoformat(str(row[0])) for row in client.query(sql).result_rows]
    table = f"{shards.local_name(step.source, settings)} {shards.on_cluster(settings)}"
    for day in expired_partitions(days, complete_until_s, life, datetime.now(UTC)):
        client.command(f"ALTER TABLE {table} DROP PARTITION '{day.isoformat()}'")


def _roll_up(client: Client, step: Step, hour_s: int) -> Iterator[str]:
    for number, (first, last) in enumerate(_ranges(_services(client, step, hour_s))):
        token = f"rollup:{step.target}:{hour_s}:{number}"
        client.command(
            f"{insert_select(step, hour_s)} {insert_settings(token)}", {"first": first, "last": last}
        )
        yield token
    if step.target == "edges_1m":
        token = f"rollup:upstream_servers:{hour_s}"
        client.command(f"{_learn(hour_s)} {insert_settings(token)}")
        yield token


def insert_select(step: Step, hour_s: int) -> str:
    """SQL that adds one hour of a range of services (parameters ``first`` and ``last``) to the coarser
    table.
    """
    keys = [key for key in step.keys if key not in {"slot", "late"}]
    aggregates = [_aggregate(value) for value in step.values]
    return (
        f"INSERT INTO {step.target} (slot, {', '.join(keys)}, late, {', '.join(step.values)})"
        f" SELECT {step.slot} AS coarse_slot, {', '.join(f's.{key}' for key in keys)}, 0, {', '.join(aggregates)}"
        f" FROM {step.source} AS s"
        f" WHERE {_in_hour(hour_s)} AND s.late = 0 AND s.{step.range_key} BETWEEN {{first:String}} AND {{last:String}}"
        f" GROUP BY coarse_slot, {', '.join(f's.{key}' for key in keys)}"
    )


def _learn(hour_s: int) -> str:
    servers = "client_cluster, upstream_cluster, server_cluster, server_namespace, server_service"
    return (
        f"INSERT INTO upstream_servers (day, {servers}, calls) SELECT toDate(toDateTime({hour_s}, 'UTC')), {servers}, sum(s.calls) AS seen"
        f" FROM edges_10s AS s WHERE {_in_hour(hour_s)} AND late = 0 AND connection = 'service' AND upstream_cluster != ''"
        f" GROUP BY {servers} HAVING seen > 0"
    )


def _in_hour(hour_s: int) -> str:
    return f"s.slot >= toDateTime({hour_s}, 'UTC') AND s.slot < toDateTime({hour_s + HOUR_S}, 'UTC')"


def _ranges(services: Sequence[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(services), SERVICES_PER_INSERT):
        chunk = services[start : start + SERVICES_PER_INSERT]
        yield chunk[0], chunk[-1]


def _services(client: Client, step: Step, hour_s: int) -> list[str]:
    """In the order of ClickHouse's strings (bytes), which BETWEEN goes by."""
    sql = (
        f"SELECT DISTINCT toString(s.{step.range_key}) AS name FROM {step.source} AS s"
        f" WHERE {_in_hour(hour_s)} AND s.late = 0 ORDER BY name"
    )
    return [str(row[0]) for row in client.query(sql).result_rows]


def _hours_with_rows(client: Client, step: Step, due: range) -> list[int]:
    sql = (
        f"SELECT DISTINCT intDiv(toUnixTimestamp(slot), {HOUR_S}) * {HOUR_S} AS hour FROM {step.source}"
        f" WHERE slot >= toDateTime({due.start}, 'UTC') AND slot < toDateTime({due.stop}, 'UTC') AND late = 0 ORDER BY hour"
    )
    return [int(row[0]) for row in client.query(sql).result_rows]


def _done_until(client: Client) -> dict[str, int]:
    rows = client.query(
        "SELECT level, toUnixTimestamp(max(complete_until)) FROM rollups GROUP BY level"
    ).result_rows
    return {str(level): int(until_s) for level, until_s in rows}


def _record(client: Client, step: Step, until_s: int) -> None:
    client.command(
        f"INSERT INTO rollups (level, complete_until) SELECT '{step.target}', toDateTime({until_s}, 'UTC')"
    )

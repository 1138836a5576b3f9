"""Bring the tables to what this version needs: numbered migrations once, functions and views every time, TTLs
as the settings say.

A migration is a file of statements that may each be run again (IF NOT EXISTS), and it is recorded after its
last statement, so a kill in the middle is mended by running it again. What is recorded is the checksum of the
file before settings are filled in: settings may change, a migration may not.
"""

import hashlib
import re
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import resources
from string import Template

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from schemas.errors import MeshflowError
from schemas.tables import SCHEMAS
from storage import levels, shards
from storage.client import errors, open_client
from storage.settings import ClickHouseStore, StorageSettings

_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_NUMBERED = re.compile(r"(\d{4})_\w+\.sql")
_REPEATED = ("functions.sql", "views.sql", "views_mesh.sql")
_FINE_LEVELS = (*levels.tables("10s"), *levels.tables("1m"))
_BEING_REPLACED = {57, 60}
"""TABLE_ALREADY_EXISTS and UNKNOWN_TABLE: what two `CREATE OR REPLACE VIEW` at once may bring about."""
_TRIES, _TRY_AGAIN_S = 20, 0.1
_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_UPSTREAM_SERVERS_TTL = timedelta(days=8)
_UNROLLED = timedelta(days=7)
"""How long rows of the finer levels wait for their roll-up (a store that was away) beyond the time they are
kept for: storage.jobs.rollups drops them at that time, once they are rolled up, and the engine's TTL is only
what bounds the wait."""


class MigrationError(MeshflowError):
    """The database was migrated by a version of meshflow that this one cannot follow, or lost a table."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Of the text before settings are filled in."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrate(client: Client, settings: StorageSettings) -> list[str]:
    """Migrate, and return what was done (empty: nothing was needed). May run again, and at once with others.

    Raises MigrationError (a newer version was here, or a migration was changed), SinkUnavailable.
    """
    done = []
    with errors("migrate"):
        _run(client, _HISTORY, settings)
        rows = client.query("SELECT version, checksum FROM schema_migrations FINAL").result_rows
        applied = {int(version): str(checksum) for version, checksum in rows}
        known = migrations()
        _check(applied, known)
        for migration in known:
            if migration.version not in applied:
                _run(client, migration.text, settings)
                client.insert(
                    "schema_migrations",
                    [(migration.version, migration.name, migration.checksum)],
                    column_names=["version", "name", "checksum"],
                )
                done.append(migration.name)
        if missing := _missing_tables(client, settings):
            raise MigrationError(
                f"the store has no table {', '.join(missing)}, though it had: restore the store from a copy, or say"
                " `meshflow repair`, which makes what is missing anew, without its rows"
            )
        done += _alter_expiry(client, settings)
        for name in _REPEATED:
            _run_beside_others(client, _read(name), settings)
    return done


def remake(client: Client, settings: StorageSettings) -> list[str]:
    """Make tables anew, without rows, that were made before and are not there; their names.

    Raises SinkUnavailable.
    """
    with errors("make tables anew"):
        if not client.query("EXISTS TABLE schema_migrations").result_rows[0][0]:
            return []
        recorded = {int(row[0]) for row in client.query("SELECT version FROM schema_migrations").result_rows}
        missing = _missing_tables(client, settings)
        for migration in migrations():
            if missing and migration.version in recorded:
                _run(client, migration.text, settings)
        return sorted(set(missing) - set(_missing_tables(client, settings)))


def create_database(place: ClickHouseStore) -> bool:
    """Make the store's database, on every server of its cluster; False: it was there. Raises
    SinkUnavailable.
    """
    clause = f"ON CLUSTER {place.cluster}" if place.cluster else ""
    with (
        closing(open_client(replace(place, database=""))) as client,
        errors(f"create database {place.database}"),
    ):
        if client.command(f"EXISTS DATABASE `{place.database}`") == 1:
            return False
        client.command(f"CREATE DATABASE IF NOT EXISTS `{place.database}` {clause}")
        return True


def migrations() -> list[Migration]:
    """The numbered files, in order."""
    files = sorted(
        entry.name
        for entry in resources.files("storage.migrations").iterdir()
        if _NUMBERED.fullmatch(entry.name)
    )
    return [Migration(int(name[:4]), name, _read(name)) for name in files]


def statements_of_all(settings: StorageSettings) -> list[str]:
    """Every statement of every file as it is run, in order."""
    texts = [_HISTORY, *(migration.text for migration in migrations()), *map(_read, _REPEATED)]
    return [statement for text in texts for statement in statements(text, settings)]


def statements(text: str, settings: StorageSettings) -> list[str]:
    """The statements of a migration's text as they are run, one by one."""
    return [
        made
        for statement in _statements(_render(text, settings))
        for made in shards.spread(statement, settings)
    ]


def expiry(settings: StorageSettings) -> dict[str, str]:
    """Table -> TTL expression, spelled as the engine spells it."""
    ages = {
        "otel_traces_trace_id_ts": ("LogTime", settings.error_traces_ttl),
        "otel_logs": ("LogTime", settings.logs_ttl),
        **{
            table: ("LogTime", settings.metrics_ttl) for table in SCHEMAS if table.startswith("otel_metrics_")
        },
        **dict.fromkeys(levels.tables("10s"), ("slot", settings.rollup_10s_ttl + _UNROLLED)),
        **dict.fromkeys(levels.tables("1m"), ("slot", settings.rollup_1m_ttl + _UNROLLED)),
        **dict.fromkeys(levels.tables("1h"), ("slot", settings.rollup_1h_ttl)),
        "certificates": ("log_time", settings.rollup_1h_ttl),
        "upstream_servers": ("day", _UPSTREAM_SERVERS_TTL),
        "ledger": ("time", settings.ledger_ttl),
    }
    return {
        "otel_traces": _traces_expiry(settings),
        **{table: f"{column} + {_interval(age)}" for table, (column, age) in ages.items()},
    }


def _traces_expiry(settings: StorageSettings) -> str:
    """All rows of a day (an hour, where days are too coarse) and class at once: what expires before the
    errors is rewritten once.
    """
    unit, length = ("Day", _DAY) if settings.traces_ttl >= _DAY else ("Hour", _HOUR)
    error_s, other_s = (_seconds(age + length) for age in (settings.error_traces_ttl, settings.traces_ttl))
    return f"toStartOf{unit}(LogTime) + toIntervalSecond(if(TraceError = 1, {error_s}, {other_s}))"


def _check(applied: dict[int, str], known: list[Migration]) -> None:
    checksums = {migration.version: migration.checksum for migration in known}
    for version, checksum in applied.items():
        if version not in checksums:
            raise MigrationError(
                f"the database has migration {version}, which this meshflow does not know: a newer one was here"
            )
        if checksums[version] != checksum:
            raise MigrationError(f"migration {version} is not the one that the database was made with")


def _missing_tables(client: Client, settings: StorageSettings) -> list[str]:
    """Tables of the migrations that are not there."""
    rows = client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    made = {
        created[1]
        for migration in migrations()
        for statement in statements(migration.text, settings)
        if (created := _CREATE.match(statement))
    }
    return sorted(made - {str(name) for (name,) in rows})


def _alter_expiry(client: Client, settings: StorageSettings) -> list[str]:
    """Give tables the TTL and the deduplication window of the settings where they have another one."""
    rows = client.query(
        "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()"
    ).result_rows
    engines = {str(name): str(engine) for name, engine in rows}
    done = []
    for plain, wanted in expiry(settings).items():
        table = shards.local_name(plain, settings)
        current = re.search(r" TTL (.+?) SETTINGS ", engines[table])
        if current is None or current[1] != wanted:
            _note_kept(client, plain, current[1] if current else "")
            client.command(_render(f"ALTER TABLE {table} ${{on_cluster}} MODIFY TTL {wanted}", settings))
            done.append(f"{table}: TTL {wanted}")
        for setting in ("non_replicated_deduplication_window", "replicated_deduplication_window"):
            if f"{setting} = {settings.deduplication_window}" not in engines[table]:
                value = settings.deduplication_window
                client.command(
                    _render(
                        f"ALTER TABLE {table} ${{on_cluster}} MODIFY SETTING {setting} = {value}", settings
                    )
                )
                done.append(f"{table}: {setting} = {value}")
    return done


def _note_kept(client: Client, table: str, expression: str) -> None:
    """Remember from when on the level's rows are still there: a longer TTL brings nothing back (the views ask
    for it).
    """
    seconds = re.fullmatch(r"slot \+ toIntervalSecond\((\d+)\)", expression)
    if table in _FINE_LEVELS and seconds:
        kept_s = int(seconds[1]) - _seconds(_UNROLLED)
        client.command(f"INSERT INTO rollups (level, kept_from) SELECT '{table}', now('UTC') - {kept_s}")


def _run(client: Client, text: str, settings: StorageSettings) -> None:
    for statement in statements(text, settings):
        client.command(statement)


def _run_beside_others(client: Client, text: str, settings: StorageSettings) -> None:
    """Views that another process replaces are unknown for an instant: statements that may be run again are
    then run again.
    """
    for _ in range(_TRIES):
        try:
            return _run(client, text, settings)
        except ClickHouseError as error:
            if getattr(error, "code", None) not in _BEING_REPLACED:
                raise
            time.sleep(_TRY_AGAIN_S)
    return _run(client, text, settings)


def _statements(sql: str) -> list[str]:
    code = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    return [statement for part in code.split(";\n") if (statement := part.strip().rstrip(";"))]


def _render(text: str, settings: StorageSettings) -> str:
    window = settings.deduplication_window
    more = _REPLICATED_SETTINGS if settings.cluster else ""
    return Template(text).substitute(
        on_cluster=shards.on_cluster(settings),
        MergeTree=shards.engine("MergeTree", settings),
        AggregatingMergeTree=shards.engine("AggregatingMergeTree", settings),
        ReplacingMergeTree=shards.engine("ReplacingMergeTree", settings),
        settings=f"{_TABLE_SETTINGS}{more}".format(window=window),
        settings_otel_traces=f"{_TRACES_SETTINGS}{more}".format(window=window),
        life_10s=_interval(settings.rollup_10s_ttl),
        life_1m=_interval(settings.rollup_1m_ttl),
        **{f"health_{name}": str(value) for name, value in settings.health.model_dump().items()},
        **{f"ttl_{table}": expression for table, expression in expiry(settings).items()},
    )


def _seconds(age: timedelta) -> int:
    return int(age.total_seconds())


def _interval(age: timedelta) -> str:
    return f"toIntervalSecond({_seconds(age)})"


def _read(name: str) -> str:
    text = resources.files("storage.migrations").joinpath(name).read_text(encoding="utf-8")
    return levels.at_each_level(text)


_HISTORY = """\
CREATE TABLE IF NOT EXISTS schema_migrations ${on_cluster} (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime('UTC') DEFAULT now()
) ENGINE = ${ReplacingMergeTree}
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"""

_EACH_TABLE = (
    "index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1,"
    " non_replicated_deduplication_window = {window}, replicated_deduplication_window = {window},"
    " fsync_after_insert = 1, fsync_part_directory = 1"
)
_TABLE_SETTINGS = f"{_EACH_TABLE}, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1"
_TRACES_SETTINGS = (
    f"{_EACH_TABLE}, min_bytes_for_wide_part = 1, min_rows_for_wide_part = 32768,"
    " vertical_merge_algorithm_min_rows_to_activate = 1"
)
"""Blocks go in compact and are merged column by column into wide parts (docs/adr/0014)."""

_REPLICATED_SETTINGS = (
    ", replicated_deduplication_window_for_async_inserts = {window},"
    " replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800"
)
"""Names are remembered for a week, not for the servers' hour: a worker that was down for a day repeats blocks
of the day before.
"""

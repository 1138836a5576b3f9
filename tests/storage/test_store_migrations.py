"""Tables and migrations, on the engine itself."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.counters import COUNTERS
from schemas.tables import SCHEMAS
from storage import levels
from storage import migrate as migration
from storage.client import open_client
from storage.migrate import MigrationError, migrate, migrations, remake
from storage.settings import StorageSettings
from tests.storage import snapshots
from tests.support.store_server import StoreServer
from tests.support.stores import Place, opened, scalar

RELEASED = [
    (1, "ecb2f77b293d7b8e"),
    (2, "ce69f4b3950ccac5"),
    (3, "b994de45a88a5a58"),
    (4, "1ac3ab76eaeda1f3"),
    (5, "975b443fb89bcb5a"),
    (6, "ac18ce3747d0987d"),
    (7, "f2ff6168faff7c3e"),
    (8, "6d5b12d735ba9a12"),
    (9, "8cd6c795e6548b50"),
    (10, "c639ec437b2fec3f"),
    (11, "50c3d3570c535b13"),
    (12, "d5531fff17c328a8"),
]
"""Version and beginning of the checksum of each migration."""

_TYPES = {
    pa.string(): {"String", "LowCardinality(String)"},
    pa.uint8(): {"UInt8"},
    pa.uint16(): {"UInt16"},
    pa.uint32(): {"UInt32", "DateTime", "DateTime('UTC')"},
    pa.uint64(): {"UInt64"},
    pa.int16(): {"Int16"},
    pa.int32(): {"Int32"},
    pa.float64(): {"Float64"},
    pa.bool_(): {"Bool"},
    pa.timestamp("ns", tz="UTC"): {"DateTime64(9)"},
}


def _names(kind: pa.DataType) -> set[str]:
    if pa.types.is_map(kind):
        return {f"Map({key}, {item})" for key in _names(kind.key_type) for item in _names(kind.item_type)}
    if pa.types.is_list(kind):
        return {f"Array({item})" for item in _names(kind.value_type)}
    return _TYPES[kind]


def _plain(kind: str) -> str:
    return re.sub(r"^SimpleAggregateFunction\(\w+, (.*)\)$", r"\1", kind)


def test_columns_are_those_of_the_blocks(place: Place) -> None:
    with opened(place.settings()) as client:
        rows = client.query(
            "SELECT table, name, type, default_kind FROM system.columns WHERE database = currentDatabase() ORDER BY table, position"
        ).result_rows
    tables: dict[str, list[tuple[str, str]]] = {}
    for table, name, kind, default in rows:
        if default == "" or (default == "DEFAULT" and table in SCHEMAS and name in SCHEMAS[table].names):
            tables.setdefault(table, []).append((name, _plain(kind)))
    for table, schema in SCHEMAS.items():
        assert [name for name, _ in tables[table]] == schema.names, table
        wrong = [
            (field, kind)
            for field, (_, kind) in zip(schema, tables[table], strict=True)
            if kind not in _names(field.type)
        ]
        assert not wrong, table


@pytest.mark.parametrize("kind", snapshots.SETTINGS)
def test_what_makes_each_table_is_its_snapshot(kind: str) -> None:
    """To renew: `python -m tests.storage.snapshots`."""
    assert snapshots.made(snapshots.SETTINGS[kind]) == snapshots.kept(kind)


def test_a_released_migration_is_what_it_was() -> None:
    """The checksums that databases have recorded; a file may be written in another way, its text not."""
    assert [(each.version, each.checksum[:16]) for each in migrations()] == RELEASED


def test_migrating_again_does_nothing(place: Place) -> None:
    settings = place.settings()
    client = open_client(settings.store_place)
    assert [int(name[:4]) for name in migrate(client, settings)] == [version for version, _ in RELEASED]
    assert migrate(client, settings) == []
    client.close()
    client = open_client(settings.store_place)
    assert migrate(client, settings) == []
    assert scalar(client, "SELECT quantileOfHistogram(map(toInt16(0), toUInt64(1)), 0.5)") > 0, (
        "functions are there after a restart"
    )
    client.close()


def test_whole_sample_weights_of_rows_from_before_there_were_any(place: Place) -> None:
    settings = place.settings()
    client = open_client(settings.store_place)
    for each in migrations()[:7]:
        for text in migration.statements(each.text, settings):
            client.command(text)
    client.command(
        "INSERT INTO otel_traces (TraceId, SampleRate, LogTime) VALUES ('a', 12.5, now()), ('b', 0, now())"
    )
    migrate(client, settings)
    weights = client.query("SELECT TraceId, SampleWeight FROM otel_traces ORDER BY ALL").result_rows
    assert [tuple(row) for row in weights] == [("a", 13), ("b", 1)]
    client.close()


def test_a_store_from_before_counters_keeps_its_rows_and_takes_new_ones(place: Place) -> None:
    settings = place.settings()
    client = open_client(settings.store_place)
    for each in migrations()[:9]:
        for text in migration.statements(each.text, settings):
            client.command(text)
    client.command("INSERT INTO ledger (time, topic, received, kept) VALUES (now(), 'otlp_metrics', 7, 7)")
    client.command("INSERT INTO red_10s (slot, service, requests) VALUES (now(), 'a', 3)")
    migrate(client, settings)
    client.command(
        "INSERT INTO ledger (time, topic, received, aggregated, left_out) VALUES (now(), 'otlp_metrics', 5, 3, 2)"
    )
    sums = "sum(received), sum(kept), sum(aggregated), sum(left_out), sum(unknown)"
    assert client.query(f"SELECT {sums} FROM ledger").result_rows == [(12, 7, 3, 2, 0)]
    assert scalar(client, "SELECT sum(requests) FROM red") == 3
    for table in COUNTERS:
        for name in (*(f"{table}_{level.name}" for level in levels.LEVELS), table):
            assert scalar(client, f"SELECT count() FROM {name}") == 0, name
    client.close()


def test_certificates_go_when_nobody_has_seen_them_beside_those_that_stay(place: Place) -> None:
    with opened(place.settings()) as client:
        client.command(
            "INSERT INTO certificates (name, log_time) VALUES ('gone', now() - INTERVAL 91 DAY), ('there', now())"
        )  # in one part, as merges leave them
        client.command("OPTIMIZE TABLE certificates FINAL")
        assert client.query("SELECT name FROM certificates").result_rows == [("there",)]


@pytest.mark.parametrize("statements", [1, 4, 9])
def test_a_migration_that_was_killed_in_the_middle_is_finished(place: Place, statements: int) -> None:
    settings = place.settings()
    client = open_client(settings.store_place)
    everything = [
        text for each in migration.migrations() for text in migration.statements(each.text, settings)
    ]
    for text in everything[:statements]:
        client.command(text)
    assert len(migrate(client, settings)) == len(migration.migrations())
    assert (
        scalar(
            client,
            "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE 'otel%'",
        )
        == 8
    )
    client.close()


def test_workers_that_start_at_once_migrate_at_once(tmp_path: Path) -> None:
    server = StoreServer(tmp_path).start()
    settings = StorageSettings(store=server.url())

    def start(_: int) -> None:
        client = open_client(settings.store_place)
        migrate(client, settings)
        client.close()

    with ThreadPoolExecutor(6) as workers:
        list(workers.map(start, range(24)))
    assert server.stop() == 0


def test_a_changed_or_newer_migration_is_refused(place: Place) -> None:
    settings = place.settings()
    with opened(settings) as client:
        client.command("INSERT INTO schema_migrations (version, name, checksum) VALUES (9000, 'later', 'x')")
        with pytest.raises(MigrationError, match=r"9000.*newer"):
            migrate(client, settings)
        client.command("TRUNCATE TABLE schema_migrations")
        client.command("INSERT INTO schema_migrations (version, name, checksum) VALUES (1, 'other', 'x')")
        with pytest.raises(MigrationError, match="migration 1 is not the one"):
            migrate(client, settings)


def test_a_table_that_is_gone_is_named_and_made_anew_when_asked(place: Place) -> None:
    settings = place.settings()
    with opened(settings) as client:
        made = "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = 'otel_logs'"
        before = scalar(client, made)
        assert remake(client, settings) == []
        client.command("DROP TABLE otel_logs")
        client.command("DROP TABLE rollups")
        with pytest.raises(MigrationError, match=r"no table otel_logs, rollups, .* say `meshflow repair`"):
            migrate(client, settings)
        assert remake(client, settings) == ["otel_logs", "rollups"]
        assert migrate(client, settings) == []
        assert scalar(client, made) == before


def test_settings_that_changed_are_applied(place: Place) -> None:
    with opened(place.settings()) as client:
        changed = place.settings(
            error_traces_ttl=timedelta(days=30), rollup_10s_ttl=timedelta(days=3), deduplication_window=5_000
        )
        done = migrate(client, changed)
        assert any(line.startswith("otel_traces: TTL") for line in done)
        engine = scalar(
            client,
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'otel_traces'",
        )
        assert "if(TraceError = 1, 2678400, 691200)" in engine, "to the end of the day"
        assert "non_replicated_deduplication_window = 5000" in engine
        kept = client.query(
            "SELECT level, dateDiff('hour', max(kept_from), now('UTC')) FROM rollups GROUP BY level ORDER BY 1"
        ).result_rows
        assert kept == [(table, 48) for table in sorted(levels.tables("10s"))], (
            "rows older than the former TTL will not come back"
        )
        assert migrate(client, changed) == []


def test_expired_traces_go_by_class_and_by_whole_parts(place: Place) -> None:
    with opened(place.settings()) as client:
        client.command("SYSTEM STOP MERGES otel_traces")
        for error in (0, 1):
            for days in (1, 10, 20):
                client.command(
                    f"INSERT INTO otel_traces (TraceId, TraceError, LogTime) SELECT 'x', {error}, now() - INTERVAL {days} DAY"
                )
        client.command("SYSTEM START MERGES otel_traces")
        client.command("OPTIMIZE TABLE otel_traces FINAL")
        ages = "SELECT TraceError, dateDiff('day', LogTime, now()) AS days FROM otel_traces ORDER BY ALL"
        assert client.query(ages).result_rows == [(0, 1), (1, 1), (1, 10)]

"""What is run on a cluster. No Keeper runs here: the statements are held against a snapshot, and parsed by
the engine.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from schemas.errors import SinkUnusable
from schemas.tables import SCHEMAS
from schemas.watermark import Watermark
from storage import shards
from storage.client import open_client
from storage.jobs import rollups
from storage.migrate import expiry, migrations, statements, statements_of_all
from storage.settings import ClickHouseStore, StorageSettings
from tests.storage.snapshots import SETTINGS
from tests.support.stores import settings_for

ON_CLUSTER = SETTINGS["cluster"]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with closing(open_client(settings_for(tmp_path).store_place)) as opened:
        yield opened


def made() -> list[str]:
    return statements_of_all(ON_CLUSTER)


def test_every_statement_is_one_that_the_engine_parses(client: Client) -> None:
    for statement in made():
        tree = client.query(f"EXPLAIN AST {statement}").result_rows
        assert str(tree[0][0]).startswith(("CreateQuery", "CreateSQLFunctionQuery", "AlterQuery")), statement


def test_every_statement_goes_to_every_server() -> None:
    for statement in made():
        assert re.match(
            r"(CREATE (TABLE IF NOT EXISTS|OR REPLACE (VIEW|FUNCTION))|ALTER TABLE) \w+ ON CLUSTER mesh\b",
            statement,
        ), statement


def test_every_table_is_a_replicated_one_under_a_distributed_one() -> None:
    text = ";\n\n".join(made())
    local = re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)_local ", text)
    over = re.findall(
        r"CREATE TABLE IF NOT EXISTS (\w+) ON CLUSTER mesh AS (\w+)_local\nENGINE = Distributed\('mesh', 'meshflow', '(\w+)_local'",
        text,
    )
    assert set(SCHEMAS) <= set(local)
    assert over == [(table, table, table) for table in local]
    engines = re.findall(r"ENGINE = (\w+MergeTree)(\(.*\))?", text)
    assert len(engines) == len(local)
    assert set(engines) == {
        (f"Replicated{kind}MergeTree", "('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')")
        for kind in ("", "Aggregating", "Replacing")
    }


def test_rows_that_merge_meet_on_one_shard() -> None:
    """The sharding key is made of columns of the sorting key."""
    for statement in made():
        if "MergeTree(" not in statement:
            continue
        table = statement.split()[5].removesuffix("_local")
        sorting = statement[statement.index("ORDER BY") :].partition("\n")[0]
        columns = re.findall(r"\w+", shards.sharding_key(table, statement))[1:]
        if "AggregatingMergeTree" in statement or "ReplacingMergeTree" in statement:
            assert all(re.search(rf"\b{column}\b", sorting) for column in columns), table
        else:
            assert all(f" {column} " in statement for column in columns), table


def test_the_engine_knows_the_settings_of_the_tables(client: Client) -> None:
    known = {
        row[0] for row in client.query("SELECT name FROM system.replicated_merge_tree_settings").result_rows
    }
    used = {
        name
        for clause in re.findall(r"^SETTINGS (.*)", "\n".join(made()), re.MULTILINE)
        for name in re.findall(r"(\w+) =", clause)
    }
    assert used <= known
    assert "replicated_deduplication_window_seconds" in used


def test_an_alteration_is_made_of_local_tables_and_columns_of_both() -> None:
    spread = shards.spread(
        "ALTER TABLE red_10s ON CLUSTER mesh ADD COLUMN IF NOT EXISTS mesh String", ON_CLUSTER
    )
    assert [statement.split()[2] for statement in spread] == ["red_10s_local", "red_10s"]
    spread = shards.spread(
        "ALTER TABLE red_10s ON CLUSTER mesh MODIFY TTL slot + toIntervalDay(1)", ON_CLUSTER
    )
    assert [statement.split()[2] for statement in spread] == ["red_10s_local"]
    assert shards.spread("ALTER TABLE red_10s MODIFY TTL slot", StorageSettings()) == [
        "ALTER TABLE red_10s MODIFY TTL slot"
    ]


def test_a_migration_without_a_cluster_is_what_its_file_says() -> None:
    for migration in migrations():
        assert not re.search(
            r"_local|Distributed|Replicated", "\n".join(statements(migration.text, StorageSettings()))
        )


class Recorder:
    """A client that answers from a list and keeps what it was asked."""

    def __init__(self, answers: dict[str, list[tuple[Any, ...]]]) -> None:
        self._answers = answers
        self.commands: list[str] = []

    def query(self, sql: str) -> Any:
        rows = next((rows for part, rows in self._answers.items() if part in sql), [])
        return type("Answer", (), {"result_rows": rows})

    def command(self, sql: str, parameters: Any = None) -> None:
        self.commands.append(sql)


def test_roll_ups_read_and_write_all_shards_and_drop_local_partitions(client: Client) -> None:
    answers: dict[str, list[tuple[Any, ...]]] = {
        "SELECT level": [],
        "AS hour FROM red_10s": [(0,)],
        "SELECT DISTINCT toString": [("shop",)],
        "clusterAllReplicas('mesh', system.parts) WHERE database = 'meshflow' AND table = 'red_10s_local'": [
            ("1970-01-01",)
        ],
    }
    recorder = Recorder(answers)
    job = rollups.RollUps(recorder, ON_CLUSTER)  # type: ignore[arg-type]
    assert list(job.run(Watermark(10**18, 10**18)))
    drops = [sql for sql in recorder.commands if "DROP" in sql]
    assert drops == ["ALTER TABLE red_10s_local ON CLUSTER mesh DROP PARTITION '1970-01-01'"]
    inserts = [sql for sql in recorder.commands if sql.startswith("INSERT INTO red_1m ")]
    assert [re.findall(r"FROM (\w+)|insert_deduplication_token = '([^']+)'", sql) for sql in inserts] == [
        [("red_10s", ""), ("", "rollup:red_1m:0:0")]
    ]
    for sql in (*drops, *inserts):
        client.query(f"EXPLAIN AST {sql}", parameters={"first": "a", "last": "b"})


def test_asynchronous_inserts_go_to_the_local_tables_of_the_only_shard() -> None:
    place = ON_CLUSTER.store_place
    assert isinstance(place, ClickHouseStore)
    assert shards.gathering_suffix(Recorder({"system.clusters": [(1,)]}), place) == "_local"  # type: ignore[arg-type]
    with pytest.raises(SinkUnusable, match="cluster mesh has 3"):
        shards.gathering_suffix(Recorder({"system.clusters": [(3,)]}), place)  # type: ignore[arg-type]
    assert shards.gathering_suffix(Recorder({}), replace(place, cluster="")) == ""  # type: ignore[arg-type]


def test_ttls_are_those_of_local_tables() -> None:
    assert {shards.local_name(table, ON_CLUSTER) for table in expiry(ON_CLUSTER)} == {
        f"{table}_local" for table in expiry(ON_CLUSTER)
    }

"""What clients send goes on working on the port that reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.sql import Query
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import ChdbStore, StorageSettings
from storage.sql.chdb_engine import ChdbEngine
from tests.storage.sql.forbidden import LIMITS


def read_corpus() -> dict[str, str]:
    corpus: dict[str, str] = {}
    name = ""
    for line in Path(__file__).with_name("corpus.sql").read_text().splitlines()[1:]:
        if line.startswith("-- "):
            name = line.removeprefix("-- ")
        else:
            corpus[name] = f"{corpus.get(name, '')}{line}\n"
    return corpus


CORPUS = read_corpus()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbEngine]:
    folder = tmp_path_factory.mktemp("store")
    client = open_client(ChdbStore(folder))
    migrate(client, StorageSettings())
    client.command("CREATE TABLE seen (n UInt8, name String) ENGINE = MergeTree ORDER BY n")
    client.command("INSERT INTO seen VALUES (1, 'x'), (2, 'x')")
    client.command("CREATE VIEW seen_view AS SELECT * FROM seen")
    engine = ChdbEngine(str(folder))
    client.close()
    yield engine
    engine.close()


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("output_format", ["Native", "JSONCompactEachRow"])
def test_what_clients_send_is_answered(engine: ChdbEngine, name: str, output_format: str) -> None:
    parameters = {"database": "default", "table": "otel_traces"}
    asked = {
        "max_execution_time": "65",
        "limit": "1000",
        "date_time_output_format": "iso",
        "wait_end_of_query": "0",
    }
    answer = engine.execute(
        Query(CORPUS[name], output_format, database="default", parameters=parameters, settings=asked), LIMITS
    )
    assert answer.format in {output_format, "Native"}


@pytest.mark.parametrize("table", ["seen", "seen_view", "default.seen", "default.seen_view"])
def test_filters_of_grafana_filter(engine: ChdbEngine, table: str) -> None:
    filters = f"{{'{table}' : ' n = 1 AND name REGEXP \\'x\\' '}}"
    for asked in (
        Query(f"SELECT count() FROM {table} settings additional_table_filters={filters}"),
        Query(f"SELECT count() FROM {table} AS t", settings={"additional_table_filters": filters}),
    ):
        assert engine.execute(asked, LIMITS).body == b"1\n"

"""Where a store is, a migrated one, and rows to put into it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from schemas.records import TopicPartition
from schemas.tables import SCHEMAS, Block
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import StorageSettings
from storage.sink import open_sink
from tests.support.store_server import StoreServer

TP = TopicPartition("otlp_spans", 0)


def settings_for(folder: Path, **changes: Any) -> StorageSettings:
    return StorageSettings(data=folder, **changes)


class Place(Protocol):
    """Where the tables of a test are."""

    def settings(self, **changes: Any) -> StorageSettings:
        """Settings with this place as store."""

    def restart(self) -> None:
        """End the engine (nothing may have it open in this process) and start it again."""


class ChdbPlace:
    """A folder for chdb in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def settings(self, **changes: Any) -> StorageSettings:
        return settings_for(self._folder, **changes)

    def restart(self) -> None:
        """The engine ends with its last client."""


class HttpPlace:
    """A database of a running `meshflow store --writable`."""

    def __init__(self, folder: Path, server: StoreServer, database: str) -> None:
        self._folder = folder
        self._server = server
        self._database = database

    def settings(self, **changes: Any) -> StorageSettings:
        return settings_for(self._folder, store=self._server.url(self._database), **changes)

    def restart(self) -> None:
        assert self._server.stop() == 0
        self._server.start()


@contextmanager
def opened(settings: StorageSettings) -> Iterator[Client]:
    """A client of the migrated store; chdb takes one folder at a time, so it is closed again."""
    client = open_client(settings.store_place)
    try:
        migrate(client, settings)
        yield client
    finally:
        client.close()


def block(table: str, rows: list[dict[str, Any]], pane: int = 1, tp: TopicPartition = TP) -> Block:
    """Rows with what is not given left empty (0, "", an empty map)."""
    schema = SCHEMAS[table]
    empty = [
        row | {name: value for name, value in _defaults(schema).items() if name not in row} for row in rows
    ]
    return Block(table, tp, pane, pa.Table.from_pylist(empty, schema=schema))


def write(settings: StorageSettings, *blocks: Block) -> None:
    with closing(open_sink(settings.store_place)) as sink:
        for each in blocks:
            sink.write(each)


def scalar(client: Client, sql: str) -> Any:
    return client.query(sql).result_rows[0][0]


def _defaults(schema: pa.Schema) -> dict[str, Any]:
    return {field.name: _empty(field.type) for field in schema}


def _empty(kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_map(kind) or pa.types.is_list(kind):
        return []
    if pa.types.is_boolean(kind):
        return False
    return 0


SHORT = {"rollup_10s_ttl": timedelta(hours=3), "rollup_1m_ttl": timedelta(hours=6)}

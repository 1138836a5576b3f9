"""A migrated store in a folder, and rows to put into it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from schemas.log import TopicPartition
from schemas.tables import SCHEMAS, Block
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import StorageSettings
from storage.sink import open_sink

TP = TopicPartition("otlp_spans", 0)


def settings_for(folder: Path, **changes: Any) -> StorageSettings:
    return StorageSettings(data=folder, **changes)


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
    empty = [row | {name: value for name, value in _defaults(schema).items() if name not in row} for row in rows]
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

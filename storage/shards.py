"""The same statements for a cluster: local Replicated tables on every shard, and a Distributed one over them
under the plain name.

docs/adr/0018 says why rows go where they go.
"""

import re

from clickhouse_connect.driver.client import Client

from schemas.errors import SinkUnusable
from storage.client import errors
from storage.settings import ClickHouseStore, StorageSettings

LOCAL = "_local"

_PATH = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
"""Where Keeper has a table, by the macros of each server's configuration. Not by UUID: a replica that is
added later must find it.
"""

_SHARDED_BY = (
    (re.compile(r"otel_traces|otel_traces_trace_id_ts"), "cityHash64(TraceId)"),
    (re.compile(r"otel_logs"), "cityHash64(TraceId, ServiceName)"),
    (re.compile(r"otel_metrics_\w+"), "cityHash64(ServiceName, MetricName)"),
    (re.compile(r"red_\w+"), "cityHash64(service)"),
    (re.compile(r"edges_\w+"), "cityHash64(client_service)"),
    (re.compile(r"ledger"), "cityHash64(topic, partition)"),
)
_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_ALTER = re.compile(r"ALTER TABLE (\w+)")
_COLUMNS_CHANGE = re.compile(r"\b(ADD|DROP|MODIFY|RENAME) COLUMN\b")
_ORDER_CHANGE = re.compile(r",\s*MODIFY ORDER BY \(.*\)$", re.MULTILINE)
"""A Distributed table has no sorting key."""
_ORDER_BY = re.compile(r"^(?:PRIMARY KEY .*\n)?ORDER BY \(?(?:\w+\([^()]*\), )*(\w+)", re.MULTILINE)


def local_name(table: str, settings: StorageSettings) -> str:
    """The table that has the rows: what TTL, partitions and settings belong to."""
    return f"{table}{LOCAL}" if settings.cluster else table


def on_cluster(settings: StorageSettings) -> str:
    """The clause that takes a statement to all servers; "" without a cluster."""
    return f"ON CLUSTER {settings.cluster}" if settings.cluster else ""


def engine(kind: str, settings: StorageSettings) -> str:
    """An engine of the MergeTree family, as ``MergeTree`` or ``AggregatingMergeTree``."""
    return f"Replicated{kind}({_PATH})" if settings.cluster else kind


def spread(statement: str, settings: StorageSettings) -> list[str]:
    """What a rendered statement becomes: itself without a cluster; on one, statements about tables are made
    of the local ones.
    """
    if not settings.cluster:
        return [statement]
    if created := _CREATE.match(statement):
        table = created[1]
        local = f"{table}{LOCAL}"
        over = (
            f"CREATE TABLE IF NOT EXISTS {table} {on_cluster(settings)} AS {local}\n"
            f"ENGINE = Distributed('{settings.cluster}', '{database(settings)}', '{local}', {sharding_key(table, statement)})"
        )
        return [f"CREATE TABLE IF NOT EXISTS {local}{statement[created.end() :]}", over]
    if altered := _ALTER.match(statement):
        inner = f"ALTER TABLE {altered[1]}{LOCAL}{statement[altered.end() :]}"
        return [inner, _ORDER_CHANGE.sub("", statement)] if _COLUMNS_CHANGE.search(statement) else [inner]
    return [statement]


def sharding_key(table: str, statement: str) -> str:
    """What decides the shard of a row: columns of the sorting key, so that rows which merge meet. Raises
    ValueError: none is known.
    """
    for names, key in _SHARDED_BY:
        if names.fullmatch(table):
            return key
    if first := _ORDER_BY.search(statement):
        return f"cityHash64({first[1]})"
    raise ValueError(f"table {table} has no column to be sharded by: name one in storage.shards")


def database(settings: StorageSettings) -> str:
    """The database of the store."""
    return getattr(settings.store_place, "database", "default")


def parts(settings: StorageSettings, table: str) -> str:
    """The relation that has the parts of a table, on every server: FROM and WHERE of a query for
    ``partition``, ``rows``, ...
    """
    if not settings.cluster:
        return f"system.parts WHERE database = currentDatabase() AND table = '{table}' AND active"
    everywhere = f"clusterAllReplicas('{settings.cluster}', system.parts)"
    return f"{everywhere} WHERE database = '{database(settings)}' AND table = '{table}{LOCAL}' AND active"


def gathering_suffix(client: Client, place: ClickHouseStore) -> str:
    """What the names of the tables end with that asynchronous inserts go to.

    On a cluster it is the local ones, as blocks that were gathered for a Distributed table go on without
    their tokens; so there may be one shard only. Raises SinkUnusable: there are more.
    """
    if not place.cluster:
        return ""
    with errors("count the shards"):
        rows = client.query(
            f"SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = '{place.cluster}'"
        ).result_rows
    if rows[0][0] != 1:
        raise SinkUnusable(
            f"storage.clickhouse.async_insert goes with one shard, cluster {place.cluster} has {rows[0][0]}: set it to false"
        )
    return LOCAL

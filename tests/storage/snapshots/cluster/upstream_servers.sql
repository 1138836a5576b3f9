CREATE TABLE IF NOT EXISTS upstream_servers_local ON CLUSTER mesh (
    day Date CODEC(Delta(2), ZSTD(1)),
    client_cluster LowCardinality(String) CODEC(ZSTD(1)),
    upstream_cluster LowCardinality(String) CODEC(ZSTD(1)),
    server_cluster LowCardinality(String) CODEC(ZSTD(1)),
    server_namespace LowCardinality(String) CODEC(ZSTD(1)),
    server_service LowCardinality(String) CODEC(ZSTD(1)),
    calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(day)
ORDER BY (client_cluster, upstream_cluster, server_cluster, server_namespace, server_service, day)
TTL day + toIntervalSecond(691200)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS upstream_servers ON CLUSTER mesh AS upstream_servers_local
ENGINE = Distributed('mesh', 'meshflow', 'upstream_servers_local', cityHash64(client_cluster));

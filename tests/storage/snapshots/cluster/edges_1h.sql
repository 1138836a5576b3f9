CREATE TABLE IF NOT EXISTS edges_1h_local ON CLUSTER mesh (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    client_cluster LowCardinality(String) CODEC(ZSTD(1)),
    client_namespace LowCardinality(String) CODEC(ZSTD(1)),
    client_service LowCardinality(String) CODEC(ZSTD(1)),
    client_version LowCardinality(String) CODEC(ZSTD(1)),
    server_cluster LowCardinality(String) CODEC(ZSTD(1)),
    server_namespace LowCardinality(String) CODEC(ZSTD(1)),
    server_service LowCardinality(String) CODEC(ZSTD(1)),
    server_version LowCardinality(String) CODEC(ZSTD(1)),
    connection LowCardinality(String) CODEC(ZSTD(1)),
    upstream_cluster LowCardinality(String) CODEC(ZSTD(1)),
    response_flags LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    unsent SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retries SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    client_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    server_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    exemplar_trace_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(slot)
PRIMARY KEY (toDate(slot), client_service, server_service)
ORDER BY (toDate(slot), client_service, server_service, connection, upstream_cluster, response_flags, client_cluster, client_namespace, client_version, server_cluster, server_namespace, server_version, late, slot)
TTL slot + toIntervalSecond(7776000)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS edges_1h ON CLUSTER mesh AS edges_1h_local
ENGINE = Distributed('mesh', 'meshflow', 'edges_1h_local', cityHash64(client_service));
ALTER TABLE edges_1h_local ON CLUSTER mesh ADD COLUMN IF NOT EXISTS unanswered SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)) AFTER unsent;
ALTER TABLE edges_1h ON CLUSTER mesh ADD COLUMN IF NOT EXISTS unanswered SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)) AFTER unsent;
ALTER TABLE edges_1h_local ON CLUSTER mesh
    ADD COLUMN IF NOT EXISTS apart LowCardinality(String) CODEC(ZSTD(1)) AFTER late,
    ADD COLUMN IF NOT EXISTS protocol LowCardinality(String) CODEC(ZSTD(1)) AFTER apart,
    ADD COLUMN IF NOT EXISTS dimensions Map(LowCardinality(String), String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS calls_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS errors_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS overhead_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    MODIFY ORDER BY (toDate(slot), client_service, server_service, connection, upstream_cluster, response_flags, client_cluster, client_namespace, client_version, server_cluster, server_namespace, server_version, late, slot, apart, protocol, dimensions);
ALTER TABLE edges_1h ON CLUSTER mesh
    ADD COLUMN IF NOT EXISTS apart LowCardinality(String) CODEC(ZSTD(1)) AFTER late,
    ADD COLUMN IF NOT EXISTS protocol LowCardinality(String) CODEC(ZSTD(1)) AFTER apart,
    ADD COLUMN IF NOT EXISTS dimensions Map(LowCardinality(String), String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS calls_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS errors_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS overhead_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1));

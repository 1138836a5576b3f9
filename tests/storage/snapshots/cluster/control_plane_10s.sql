CREATE TABLE IF NOT EXISTS control_plane_10s_local ON CLUSTER mesh (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    instance LowCardinality(String) CODEC(ZSTD(1)),
    metric LowCardinality(String) CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    increment SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    value SimpleAggregateFunction(anyLast, Float64) CODEC(ZSTD(1)),
    histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(slot)
PRIMARY KEY (toStartOfHour(slot), service, metric)
ORDER BY (toStartOfHour(slot), service, metric, cluster, namespace, instance, kind, late, slot, labels)
TTL slot + toIntervalSecond(777600)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS control_plane_10s ON CLUSTER mesh AS control_plane_10s_local
ENGINE = Distributed('mesh', 'meshflow', 'control_plane_10s_local', cityHash64(service));

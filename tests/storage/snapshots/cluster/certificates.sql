CREATE TABLE IF NOT EXISTS certificates_local ON CLUSTER mesh (
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    instance LowCardinality(String) CODEC(ZSTD(1)),
    pod LowCardinality(String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    name LowCardinality(String) CODEC(ZSTD(1)),
    not_after DateTime('UTC') CODEC(ZSTD(1)),
    first_seen SimpleAggregateFunction(min, DateTime('UTC')) CODEC(ZSTD(1)),
    lifetime_s SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    log_time SimpleAggregateFunction(max, DateTime('UTC')) CODEC(ZSTD(1))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY (service, kind, name, cluster, namespace, instance, pod, not_after)
TTL log_time + toIntervalSecond(7776000)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS certificates ON CLUSTER mesh AS certificates_local
ENGINE = Distributed('mesh', 'meshflow', 'certificates_local', cityHash64(service));

CREATE TABLE IF NOT EXISTS proxies_1m_local ON CLUSTER mesh (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    instance LowCardinality(String) CODEC(ZSTD(1)),
    pod LowCardinality(String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    restarts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    updates_rejected SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    spans_sent SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    spans_dropped SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    downstream_requests SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    random_sampling SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    cpu_s SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    uptime_s SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    live SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    connections SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_allocated_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_heap_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_physical_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_working_set_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    version_number SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    cds_version SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    lds_version SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    xds_connected SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(slot)
PRIMARY KEY (toStartOfHour(slot), service, instance)
ORDER BY (toStartOfHour(slot), service, instance, cluster, namespace, version, pod, kind, late, slot)
TTL slot + toIntervalSecond(1209600)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS proxies_1m ON CLUSTER mesh AS proxies_1m_local
ENGINE = Distributed('mesh', 'meshflow', 'proxies_1m_local', cityHash64(service));

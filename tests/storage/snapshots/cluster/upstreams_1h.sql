CREATE TABLE IF NOT EXISTS upstreams_1h_local ON CLUSTER mesh (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    upstream LowCardinality(String) CODEC(ZSTD(1)),
    peer_cluster LowCardinality(String) CODEC(ZSTD(1)),
    peer_namespace LowCardinality(String) CODEC(ZSTD(1)),
    peer_service LowCardinality(String) CODEC(ZSTD(1)),
    peer_version LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    attempts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retries SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retry_success SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retry_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retry_limit_exceeded SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    timeouts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    per_try_timeouts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    pending_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    request_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    connection_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    connect_failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    resets_received SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    resets_sent SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ejections SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    health_check_failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    panic SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_handshakes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_sessions_reused SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_errors SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    connect_time_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    active_connections SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    active_requests SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    pending_requests SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    ejections_active SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    hosts SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    healthy_hosts SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_connections SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_requests SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_pending SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_retries SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toYYYYMM(slot)
PRIMARY KEY (toDate(slot), service, upstream)
ORDER BY (toDate(slot), service, upstream, cluster, namespace, version, peer_cluster, peer_namespace, peer_service, peer_version, late, slot)
TTL slot + toIntervalSecond(7776000)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS upstreams_1h ON CLUSTER mesh AS upstreams_1h_local
ENGINE = Distributed('mesh', 'meshflow', 'upstreams_1h_local', cityHash64(service));

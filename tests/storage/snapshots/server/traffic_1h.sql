CREATE TABLE IF NOT EXISTS traffic_1h  (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    side LowCardinality(String) CODEC(ZSTD(1)),
    source LowCardinality(String) CODEC(ZSTD(1)),
    peer_cluster LowCardinality(String) CODEC(ZSTD(1)),
    peer_namespace LowCardinality(String) CODEC(ZSTD(1)),
    peer_service LowCardinality(String) CODEC(ZSTD(1)),
    peer_version LowCardinality(String) CODEC(ZSTD(1)),
    protocol LowCardinality(String) CODEC(ZSTD(1)),
    response_code LowCardinality(String) CODEC(ZSTD(1)),
    response_flags LowCardinality(String) CODEC(ZSTD(1)),
    security LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    requests SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tcp_opened SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tcp_closed SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_opened SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tcp_sent_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tcp_received_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    duration_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1))
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(slot)
PRIMARY KEY (toDate(slot), service, side)
ORDER BY (toDate(slot), service, side, cluster, namespace, version, source, peer_cluster, peer_namespace, peer_service, peer_version, protocol, response_code, response_flags, security, late, slot)
TTL slot + toIntervalSecond(7776000)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

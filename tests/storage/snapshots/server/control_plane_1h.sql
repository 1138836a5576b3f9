CREATE TABLE IF NOT EXISTS control_plane_1h  (
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
) ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(slot)
PRIMARY KEY (toDate(slot), service, metric)
ORDER BY (toDate(slot), service, metric, cluster, namespace, instance, kind, late, slot, labels)
TTL slot + toIntervalSecond(7776000)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS red_10s  (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    operation LowCardinality(String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    status_class LowCardinality(String) CODEC(ZSTD(1)),
    http_status UInt16 CODEC(ZSTD(1)),
    response_flags LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    requests SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    duration_ns_sum SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    duration_ns_max SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    duration_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    exemplar_trace_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1))
) ENGINE = AggregatingMergeTree
PARTITION BY toDate(slot)
PRIMARY KEY (toStartOfHour(slot), service, operation)
ORDER BY (toStartOfHour(slot), service, operation, kind, status_class, http_status, response_flags, cluster, namespace, version, late, slot)
TTL slot + toIntervalSecond(777600)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;
ALTER TABLE red_10s 
    ADD COLUMN IF NOT EXISTS entered UInt8 CODEC(ZSTD(1)) AFTER late,
    ADD COLUMN IF NOT EXISTS apart LowCardinality(String) CODEC(ZSTD(1)) AFTER entered,
    ADD COLUMN IF NOT EXISTS protocol LowCardinality(String) CODEC(ZSTD(1)) AFTER apart,
    ADD COLUMN IF NOT EXISTS dimensions Map(LowCardinality(String), String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS requests_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS errors_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS roots SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    MODIFY ORDER BY (toStartOfHour(slot), service, operation, kind, status_class, http_status, response_flags, cluster, namespace, version, late, slot, entered, apart, protocol, dimensions);

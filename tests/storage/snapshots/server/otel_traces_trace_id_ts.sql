CREATE TABLE IF NOT EXISTS otel_traces_trace_id_ts  (
    TraceId String CODEC(ZSTD(1)),
    Start SimpleAggregateFunction(min, DateTime) CODEC(ZSTD(1)),
    End SimpleAggregateFunction(max, DateTime) CODEC(ZSTD(1)),
    LogTime SimpleAggregateFunction(max, DateTime('UTC')) CODEC(Delta(4), ZSTD(1))
) ENGINE = AggregatingMergeTree
PARTITION BY toDate(LogTime)
ORDER BY (TraceId)
TTL LogTime + toIntervalSecond(1209600)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1;

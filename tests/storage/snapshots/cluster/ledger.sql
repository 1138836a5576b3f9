CREATE TABLE IF NOT EXISTS ledger_local ON CLUSTER mesh (
    time DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    topic LowCardinality(String) CODEC(ZSTD(1)),
    partition UInt32 CODEC(ZSTD(1)),
    pane UInt64 CODEC(Delta(8), ZSTD(1)),
    received UInt64 CODEC(T64, ZSTD(1)),
    rejected UInt64 CODEC(T64, ZSTD(1)),
    refused UInt64 CODEC(T64, ZSTD(1)),
    duplicate UInt64 CODEC(T64, ZSTD(1)),
    kept UInt64 CODEC(T64, ZSTD(1)),
    dropped UInt64 CODEC(T64, ZSTD(1)),
    late UInt64 CODEC(T64, ZSTD(1)),
    stored UInt64 CODEC(T64, ZSTD(1)),
    lost UInt64 CODEC(T64, ZSTD(1)),
    bytes UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY toDate(time)
ORDER BY (topic, partition, pane)
TTL time + toIntervalSecond(2592000)
SETTINGS index_granularity = 8192, min_parts_to_merge_at_once = 10, materialize_ttl_recalculate_only = 1, non_replicated_deduplication_window = 20000, replicated_deduplication_window = 20000, fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 134217728, ttl_only_drop_parts = 1, replicated_deduplication_window_for_async_inserts = 20000, replicated_deduplication_window_seconds = 604800, replicated_deduplication_window_seconds_for_async_inserts = 604800;
CREATE TABLE IF NOT EXISTS ledger ON CLUSTER mesh AS ledger_local
ENGINE = Distributed('mesh', 'meshflow', 'ledger_local', cityHash64(topic, partition));
ALTER TABLE ledger_local ON CLUSTER mesh ADD COLUMN IF NOT EXISTS cut UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger ON CLUSTER mesh ADD COLUMN IF NOT EXISTS cut UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger_local ON CLUSTER mesh ADD COLUMN IF NOT EXISTS repaired UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger ON CLUSTER mesh ADD COLUMN IF NOT EXISTS repaired UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger_local ON CLUSTER mesh ADD COLUMN IF NOT EXISTS redacted UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger ON CLUSTER mesh ADD COLUMN IF NOT EXISTS redacted UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger_local ON CLUSTER mesh
    ADD COLUMN IF NOT EXISTS aggregated UInt64 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS left_out UInt64 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS unknown UInt64 CODEC(T64, ZSTD(1));
ALTER TABLE ledger ON CLUSTER mesh
    ADD COLUMN IF NOT EXISTS aggregated UInt64 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS left_out UInt64 CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS unknown UInt64 CODEC(T64, ZSTD(1));

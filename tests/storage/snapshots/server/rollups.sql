CREATE TABLE IF NOT EXISTS rollups  (
    level LowCardinality(String),
    complete_until SimpleAggregateFunction(max, DateTime('UTC')),
    kept_from SimpleAggregateFunction(max, DateTime('UTC'))
) ENGINE = AggregatingMergeTree
ORDER BY level
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS rollups_local ON CLUSTER mesh (
    level LowCardinality(String),
    complete_until SimpleAggregateFunction(max, DateTime('UTC')),
    kept_from SimpleAggregateFunction(max, DateTime('UTC'))
) ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY level
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
CREATE TABLE IF NOT EXISTS rollups ON CLUSTER mesh AS rollups_local
ENGINE = Distributed('mesh', 'meshflow', 'rollups_local', cityHash64(level));

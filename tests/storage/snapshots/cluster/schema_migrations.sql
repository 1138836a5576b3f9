CREATE TABLE IF NOT EXISTS schema_migrations_local ON CLUSTER mesh (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime('UTC') DEFAULT now()
) ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER mesh AS schema_migrations_local
ENGINE = Distributed('mesh', 'meshflow', 'schema_migrations_local', cityHash64(version));

-- RED and edges at three levels (docs/adr/0013). Rows of one key are added up by merges, so insert order and restarts do not matter, and sum() is right
-- over merged and unmerged parts alike. Sorted by hour first: a roll-up reads one hour, and of it a range of services.

CREATE TABLE IF NOT EXISTS red_${level} ${on_cluster} (
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
) ENGINE = ${AggregatingMergeTree}
PARTITION BY ${level_partition}
PRIMARY KEY (${level_range}, service, operation)
ORDER BY (${level_range}, service, operation, kind, status_class, http_status, response_flags, cluster, namespace, version, late, slot)
TTL ${ttl_red_${level}}
SETTINGS ${settings};

CREATE TABLE IF NOT EXISTS edges_${level} ${on_cluster} (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    client_cluster LowCardinality(String) CODEC(ZSTD(1)),
    client_namespace LowCardinality(String) CODEC(ZSTD(1)),
    client_service LowCardinality(String) CODEC(ZSTD(1)),
    client_version LowCardinality(String) CODEC(ZSTD(1)),
    server_cluster LowCardinality(String) CODEC(ZSTD(1)),
    server_namespace LowCardinality(String) CODEC(ZSTD(1)),
    server_service LowCardinality(String) CODEC(ZSTD(1)),
    server_version LowCardinality(String) CODEC(ZSTD(1)),
    connection LowCardinality(String) CODEC(ZSTD(1)),
    upstream_cluster LowCardinality(String) CODEC(ZSTD(1)),
    response_flags LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    unsent SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    errors SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retries SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    client_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    server_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    exemplar_trace_id SimpleAggregateFunction(max, String) CODEC(ZSTD(1))
) ENGINE = ${AggregatingMergeTree}
PARTITION BY ${level_partition}
PRIMARY KEY (${level_range}, client_service, server_service)
ORDER BY (${level_range}, client_service, server_service, connection, upstream_cluster, response_flags, client_cluster, client_namespace, client_version, server_cluster, server_namespace, server_version, late, slot)
TTL ${ttl_edges_${level}}
SETTINGS ${settings};

-- Which server the calls through an Envoy cluster reached, learned from edges at each roll-up: names the server of calls that never left.
CREATE TABLE IF NOT EXISTS upstream_servers ${on_cluster} (
    day Date CODEC(Delta(2), ZSTD(1)),
    client_cluster LowCardinality(String) CODEC(ZSTD(1)),
    upstream_cluster LowCardinality(String) CODEC(ZSTD(1)),
    server_cluster LowCardinality(String) CODEC(ZSTD(1)),
    server_namespace LowCardinality(String) CODEC(ZSTD(1)),
    server_service LowCardinality(String) CODEC(ZSTD(1)),
    calls SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
) ENGINE = ${AggregatingMergeTree}
PARTITION BY toYYYYMM(day)
ORDER BY (client_cluster, upstream_cluster, server_cluster, server_namespace, server_service, day)
TTL ${ttl_upstream_servers}
SETTINGS ${settings};

-- For each level's table: before which time its rolled-up rows are complete, and from which time on its rows were never expired.
CREATE TABLE IF NOT EXISTS rollups ${on_cluster} (
    level LowCardinality(String),
    complete_until SimpleAggregateFunction(max, DateTime('UTC')),
    kept_from SimpleAggregateFunction(max, DateTime('UTC'))
) ENGINE = ${AggregatingMergeTree}
ORDER BY level
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS ledger ${on_cluster} (
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
) ENGINE = ${MergeTree}
PARTITION BY toDate(time)
ORDER BY (topic, partition, pane)
TTL ${ttl_ledger}
SETTINGS ${settings};

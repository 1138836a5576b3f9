-- Requests where they enter a node, traffic that is counted apart, protocols, dimensions, estimates and bytes. Rows of before have 0 and "" in the
-- new keys and in estimates; views show their counts as estimates.

ALTER TABLE red_${level} ${on_cluster}
    ADD COLUMN IF NOT EXISTS entered UInt8 CODEC(ZSTD(1)) AFTER late,
    ADD COLUMN IF NOT EXISTS apart LowCardinality(String) CODEC(ZSTD(1)) AFTER entered,
    ADD COLUMN IF NOT EXISTS protocol LowCardinality(String) CODEC(ZSTD(1)) AFTER apart,
    ADD COLUMN IF NOT EXISTS dimensions Map(LowCardinality(String), String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS requests_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS errors_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS roots SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    MODIFY ORDER BY (${level_range}, service, operation, kind, status_class, http_status, response_flags, cluster, namespace, version, late, slot, entered, apart, protocol, dimensions);

ALTER TABLE edges_${level} ${on_cluster}
    ADD COLUMN IF NOT EXISTS apart LowCardinality(String) CODEC(ZSTD(1)) AFTER late,
    ADD COLUMN IF NOT EXISTS protocol LowCardinality(String) CODEC(ZSTD(1)) AFTER apart,
    ADD COLUMN IF NOT EXISTS dimensions Map(LowCardinality(String), String) CODEC(ZSTD(1)) AFTER protocol,
    ADD COLUMN IF NOT EXISTS calls_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS errors_estimated SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS request_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS overhead_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    MODIFY ORDER BY (${level_range}, client_service, server_service, connection, upstream_cluster, response_flags, client_cluster, client_namespace, client_version, server_cluster, server_namespace, server_version, late, slot, apart, protocol, dimensions);

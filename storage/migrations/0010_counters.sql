-- Tables of counters at three levels (docs/adr/0047). Rows of one key are added up by merges; of gauges the largest value stays, or the smallest
-- where little is bad: 2^64 - 1 is one that nobody said.

CREATE TABLE IF NOT EXISTS traffic_${level} ${on_cluster} (
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
) ENGINE = ${AggregatingMergeTree}
PARTITION BY ${level_partition}
PRIMARY KEY (${level_range}, service, side)
ORDER BY (${level_range}, service, side, cluster, namespace, version, source, peer_cluster, peer_namespace, peer_service, peer_version, protocol, response_code, response_flags, security, late, slot)
TTL ${ttl_traffic_${level}}
SETTINGS ${settings};

CREATE TABLE IF NOT EXISTS upstreams_${level} ${on_cluster} (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    upstream LowCardinality(String) CODEC(ZSTD(1)),
    peer_cluster LowCardinality(String) CODEC(ZSTD(1)),
    peer_namespace LowCardinality(String) CODEC(ZSTD(1)),
    peer_service LowCardinality(String) CODEC(ZSTD(1)),
    peer_version LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    attempts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retries SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retry_success SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retry_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    retry_limit_exceeded SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    timeouts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    per_try_timeouts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    pending_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    request_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    connection_overflow SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    connect_failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    resets_received SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    resets_sent SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    ejections SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    health_check_failures SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    panic SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_handshakes SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_sessions_reused SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    tls_errors SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    connect_time_histogram SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    active_connections SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    active_requests SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    pending_requests SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    ejections_active SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    hosts SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    healthy_hosts SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_connections SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_requests SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_pending SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1)),
    remaining_retries SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1))
) ENGINE = ${AggregatingMergeTree}
PARTITION BY ${level_partition}
PRIMARY KEY (${level_range}, service, upstream)
ORDER BY (${level_range}, service, upstream, cluster, namespace, version, peer_cluster, peer_namespace, peer_service, peer_version, late, slot)
TTL ${ttl_upstreams_${level}}
SETTINGS ${settings};

CREATE TABLE IF NOT EXISTS proxies_${level} ${on_cluster} (
    slot DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    version LowCardinality(String) CODEC(ZSTD(1)),
    instance LowCardinality(String) CODEC(ZSTD(1)),
    pod LowCardinality(String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    late UInt8 CODEC(ZSTD(1)),
    restarts SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    updates_rejected SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    spans_sent SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    spans_dropped SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    downstream_requests SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    random_sampling SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    cpu_s SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    uptime_s SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    live SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    connections SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_allocated_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_heap_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_physical_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    memory_working_set_bytes SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    version_number SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    cds_version SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    lds_version SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    xds_connected SimpleAggregateFunction(min, UInt64) CODEC(T64, ZSTD(1))
) ENGINE = ${AggregatingMergeTree}
PARTITION BY ${level_partition}
PRIMARY KEY (${level_range}, service, instance)
ORDER BY (${level_range}, service, instance, cluster, namespace, version, pod, kind, late, slot)
TTL ${ttl_proxies_${level}}
SETTINGS ${settings};

CREATE TABLE IF NOT EXISTS control_plane_${level} ${on_cluster} (
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
) ENGINE = ${AggregatingMergeTree}
PARTITION BY ${level_partition}
PRIMARY KEY (${level_range}, service, metric)
ORDER BY (${level_range}, service, metric, cluster, namespace, instance, kind, late, slot, labels)
TTL ${ttl_control_plane_${level}}
SETTINGS ${settings};

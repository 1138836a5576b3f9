-- Certificates of workloads: a row each until when one ends, written when it is met and again while it is there (docs/adr/0047).
CREATE TABLE IF NOT EXISTS certificates ${on_cluster} (
    cluster LowCardinality(String) CODEC(ZSTD(1)),
    namespace LowCardinality(String) CODEC(ZSTD(1)),
    service LowCardinality(String) CODEC(ZSTD(1)),
    instance LowCardinality(String) CODEC(ZSTD(1)),
    pod LowCardinality(String) CODEC(ZSTD(1)),
    kind LowCardinality(String) CODEC(ZSTD(1)),
    name LowCardinality(String) CODEC(ZSTD(1)),
    not_after DateTime('UTC') CODEC(ZSTD(1)),
    first_seen SimpleAggregateFunction(min, DateTime('UTC')) CODEC(ZSTD(1)),
    lifetime_s SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    log_time SimpleAggregateFunction(max, DateTime('UTC')) CODEC(ZSTD(1))
) ENGINE = ${AggregatingMergeTree}
ORDER BY (service, kind, name, cluster, namespace, instance, pod, not_after)
TTL ${ttl_certificates}
SETTINGS ${settings};

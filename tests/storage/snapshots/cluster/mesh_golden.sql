CREATE OR REPLACE VIEW mesh_golden ON CLUSTER mesh AS
SELECT
    toStartOfHour(u.at) AS slot, u.cluster AS cluster, u.namespace AS namespace, u.service AS service,
    multiIf(countIf(u.kind = 'istio') > 0, 'istio', countIf(u.kind = 'envoy') > 0, 'envoy', countIf(u.kind = 'spans') > 0, 'spans', '') AS source,
    multiIf(source = 'istio', sumIf(u.requests, u.kind = 'istio'), source = 'envoy', sumIf(u.requests, u.kind = 'envoy'), sumIf(u.requests, u.kind = 'spans')) AS requests,
    multiIf(source = 'istio', sumIf(u.errors, u.kind = 'istio'), source = 'envoy', sumIf(u.errors, u.kind = 'envoy'), sumIf(u.errors, u.kind = 'spans')) AS errors,
    multiIf(source = 'istio', sumIf(u.refused, u.kind = 'istio'), source = 'envoy', sumIf(u.refused, u.kind = 'envoy'), sumIf(u.refused, u.kind = 'spans')) AS client_errors,
    if(requests = 0, 0., round(100 * errors / requests, 4)) AS error_percent,
    multiIf(source = 'istio', sumMapIf(u.histogram, u.kind = 'istio'), source = 'envoy', sumMapIf(u.histogram, u.kind = 'envoy'),
        sumMapIf(u.histogram, u.kind = 'spans')) AS duration_histogram,
    round(quantileOfHistogram(duration_histogram, 0.5) / 1e6, 3) AS p50_ms,
    round(quantileOfHistogram(duration_histogram, 0.95) / 1e6, 3) AS p95_ms,
    round(quantileOfHistogram(duration_histogram, 0.99) / 1e6, 3) AS p99_ms,
    CAST(max(u.pending), 'UInt64') AS pending_requests,
    sum(u.overflow) AS overflow,
    sum(u.cpu) AS proxy_cpu_s,
    CAST(max(u.memory), 'UInt64') AS proxy_memory_bytes,
    mesh_health(requests, errors, client_errors) AS health
FROM (
    SELECT r.slot AS at, CAST(r.cluster, 'String') AS cluster, CAST(r.namespace, 'String') AS namespace, CAST(r.service, 'String') AS service, 'spans' AS kind,
        r.requests_estimated AS requests, r.errors_estimated AS errors, if(r.status_class = '4xx', r.requests_estimated, 0.) AS refused,
        CAST(r.duration_histogram, 'Map(Int16, UInt64)') AS histogram,
        toUInt64(0) AS pending, toUInt64(0) AS overflow, toFloat64(0) AS cpu, toUInt64(0) AS memory
    FROM red AS r WHERE r.entry = 1 AND r.apart = ''
    UNION ALL
    SELECT t.slot, CAST(t.cluster, 'String'), CAST(t.namespace, 'String'), CAST(t.service, 'String'), CAST(t.source, 'String'),
        toFloat64(t.requests), toFloat64(t.errors), if(startsWith(t.response_code, '4'), toFloat64(t.requests), 0.), CAST(t.duration_histogram, 'Map(Int16, UInt64)'),
        toUInt64(0), toUInt64(0), toFloat64(0), toUInt64(0)
    FROM traffic AS t WHERE t.side = 'server'
    UNION ALL
    SELECT p.slot, CAST(p.cluster, 'String'), CAST(p.namespace, 'String'), CAST(p.service, 'String'), 'upstream', 0., 0., 0., CAST(map(), 'Map(Int16, UInt64)'),
        p.pending_requests, p.pending_overflow + p.request_overflow + p.connection_overflow, 0., toUInt64(0)
    FROM upstreams AS p
    UNION ALL
    SELECT x.slot, CAST(x.cluster, 'String'), CAST(x.namespace, 'String'), CAST(x.service, 'String'), 'proxy', 0., 0., 0., CAST(map(), 'Map(Int16, UInt64)'),
        toUInt64(0), toUInt64(0), x.cpu_s, greatest(x.memory_working_set_bytes, x.memory_physical_bytes, x.memory_allocated_bytes)
    FROM proxies AS x
) AS u
GROUP BY toStartOfHour(u.at), u.cluster, u.namespace, u.service;

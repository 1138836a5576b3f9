-- Views that answer questions about the mesh, from counters (docs/adr/0051); made again by every migration. By whole hours, as the tables' keys are.

-- Spans, spans by weight, counters and kept traces by weight side by side, by hour and service. `missing` is the share of the counted requests that
-- spans by weight do not show (below 0: they show more).
CREATE OR REPLACE VIEW reconciliation ${on_cluster} AS
SELECT
    toStartOfHour(u.at) AS slot, u.cluster AS cluster, u.namespace AS namespace, u.service AS service,
    sum(u.spans) AS spans,
    sum(u.weighted) AS spans_estimated,
    sum(u.istio) AS istio_requests,
    sum(u.envoy) AS envoy_requests,
    sum(u.kept) AS kept_estimated,
    multiIf(istio_requests > 0, 'istio', envoy_requests > 0, 'envoy', 'spans') AS source,
    multiIf(istio_requests > 0, toFloat64(istio_requests), envoy_requests > 0, toFloat64(envoy_requests), spans_estimated) AS requests,
    if(requests = 0, 0., round(1 - spans_estimated / requests, 4)) AS missing,
    if(requests = 0, 0., round(1 - kept_estimated / requests, 4)) AS missing_kept
FROM (
    SELECT r.slot AS at, CAST(r.cluster, 'String') AS cluster, CAST(r.namespace, 'String') AS namespace, CAST(r.service, 'String') AS service,
        r.requests AS spans, r.requests_estimated AS weighted, toUInt64(0) AS istio, toUInt64(0) AS envoy, toFloat64(0) AS kept
    FROM red AS r WHERE r.entry = 1 AND r.apart = ''
    UNION ALL
    SELECT t.slot, CAST(t.cluster, 'String'), CAST(t.namespace, 'String'), CAST(t.service, 'String'), toUInt64(0), toFloat64(0),
        if(t.source = 'istio', t.requests, toUInt64(0)), if(t.source = 'envoy', t.requests, toUInt64(0)), toFloat64(0)
    FROM traffic AS t WHERE t.side = 'server'
    UNION ALL
    SELECT s.LogTime, CAST(s.ResourceAttributes['k8s.cluster.name'], 'String'), CAST(s.ResourceAttributes['service.namespace'], 'String'),
        CAST(s.ServiceName, 'String'), toUInt64(0), toFloat64(0), toUInt64(0), toUInt64(0), toFloat64(s.SampleRate)
    FROM otel_traces AS s WHERE s.SpanKind IN ('Server', 'Consumer')
) AS u
GROUP BY toStartOfHour(u.at), u.cluster, u.namespace, u.service;

-- Latency, traffic, errors, saturation of a service, by hour: from Istio's counters where there are any, else Envoy's, else spans by weight.
CREATE OR REPLACE VIEW mesh_golden ${on_cluster} AS
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

-- What callers' proxies do about failing upstreams, by hour, service and Envoy cluster. What nobody said (2^64 - 1 in the table) is -1.
CREATE OR REPLACE VIEW mesh_resilience ${on_cluster} AS
SELECT
    toStartOfHour(p.slot) AS slot,
    CAST(p.cluster, 'String') AS cluster, CAST(p.namespace, 'String') AS namespace, CAST(p.service, 'String') AS service,
    CAST(p.upstream, 'String') AS upstream, CAST(p.peer_namespace, 'String') AS peer_namespace, CAST(p.peer_service, 'String') AS peer_service,
    CAST(p.peer_version, 'String') AS peer_version,
    sum(p.attempts) AS attempts,
    sum(p.retries) AS retries,
    sum(p.retry_success) AS retry_success,
    sum(p.retry_overflow) AS retry_overflow,
    sum(p.retry_limit_exceeded) AS retry_limit_exceeded,
    sum(p.timeouts) AS timeouts,
    sum(p.per_try_timeouts) AS per_try_timeouts,
    sum(p.pending_overflow) AS pending_overflow,
    sum(p.request_overflow) AS request_overflow,
    sum(p.connection_overflow) AS connection_overflow,
    sum(p.connect_failures) AS connect_failures,
    sum(p.resets_received + p.resets_sent) AS resets,
    sum(p.ejections) AS ejections,
    CAST(max(p.ejections_active), 'UInt64') AS ejections_active,
    CAST(max(p.hosts), 'UInt64') AS hosts,
    if(min(p.healthy_hosts) = 18446744073709551615, toInt64(-1), toInt64(min(p.healthy_hosts))) AS healthy_hosts,
    sum(p.panic) AS panic,
    if(attempts = 0, 0., round(100 * retries / attempts, 4)) AS retry_percent,
    multiIf(healthy_hosts = 0 AND hosts > 0, 'failure',
        pending_overflow + request_overflow + connection_overflow + panic + ejections_active + retry_overflow + retry_limit_exceeded > 0, 'degraded',
        mesh_health(attempts, timeouts + connect_failures, 0)) AS health
FROM upstreams AS p
GROUP BY toStartOfHour(p.slot), p.cluster, p.namespace, p.service, p.upstream, p.peer_namespace, p.peer_service, p.peer_version;

-- istiod by hour and cluster: down where it served no proxy though it was seen, degraded by what it refused or was slow at.
CREATE OR REPLACE VIEW mesh_control_plane ${on_cluster} AS
SELECT
    toStartOfHour(c.slot) AS slot,
    CAST(c.cluster, 'String') AS cluster,
    uniqExact(c.instance) AS instances,
    sumIf(c.increment, c.metric = 'pilot_xds_pushes') AS pushes,
    sumIf(c.increment, c.metric IN ('pilot_total_xds_rejects', 'pilot_xds_cds_reject', 'pilot_xds_eds_reject', 'pilot_xds_lds_reject', 'pilot_xds_rds_reject'))
        + maxIf(c.value, c.kind = 'value' AND c.metric IN ('pilot_xds_cds_reject', 'pilot_xds_eds_reject', 'pilot_xds_lds_reject', 'pilot_xds_rds_reject')) AS rejects,
    sumIf(c.increment, c.metric = 'pilot_total_xds_internal_errors') AS internal_errors,
    sumIf(c.increment, c.metric = 'pilot_xds_write_timeout') AS write_timeouts,
    sumIf(c.increment, c.metric IN ('citadel_server_authentication_failure_count', 'citadel_server_csr_parsing_err_count', 'citadel_server_id_extraction_err_count',
        'citadel_server_csr_sign_err_count')) AS certificate_errors,
    sumIf(c.increment, c.metric = 'sidecar_injection_failure_total') AS injection_failures,
    CAST(maxIf(c.value, c.kind = 'value' AND startsWith(c.metric, 'pilot_conflict_')), 'Float64') AS conflicts,
    countIf(c.kind = 'value' AND c.metric = 'pilot_xds') AS said_connected,
    CAST(argMaxIf(c.value, c.slot, c.kind = 'value' AND c.metric = 'pilot_xds'), 'Float64') AS connected,
    sumMapIf(c.histogram, c.metric = 'pilot_proxy_convergence_time') AS convergence_histogram,
    round(quantileOfHistogram(convergence_histogram, 0.99) / 1e9, 3) AS convergence_p99_s,
    multiIf(said_connected > 0 AND connected = 0, 'down',
        rejects + internal_errors + write_timeouts + certificate_errors + injection_failures + conflicts > 0 OR convergence_p99_s > ${health_convergence_s}, 'degraded',
        'healthy') AS health,
    multiIf(health = 'down', 'no proxy is connected',
        rejects > 0, 'proxies rejected configuration',
        internal_errors > 0, 'internal errors of xDS',
        write_timeouts > 0, 'pushes to proxies timed out',
        certificate_errors > 0, 'certificates were not signed',
        injection_failures > 0, 'sidecars were not injected',
        conflicts > 0, 'listeners are in conflict',
        health = 'degraded', 'configuration takes long to reach proxies',
        '') AS reason
FROM control_plane AS c
GROUP BY toStartOfHour(c.slot), c.cluster;

-- Certificates that are in use (seen in the last hour before the newest sight of their cluster's) by what is left of their life. Istio's live 24 h
-- and are renewed at half of that: where the lifetime is unknown, one that ends within a day is taken for one of those.
CREATE OR REPLACE VIEW mesh_certificates ${on_cluster} AS
SELECT
    CAST(c.cluster, 'String') AS cluster, CAST(c.namespace, 'String') AS namespace, CAST(c.service, 'String') AS service, CAST(c.instance, 'String') AS instance,
    CAST(c.kind, 'String') AS kind, CAST(c.name, 'String') AS name,
    argMax(c.not_after, (c.log_time, c.not_after)) AS not_after,
    CAST(max(c.log_time), 'DateTime(\'UTC\')') AS last_seen,
    CAST(argMax(c.lifetime_s, (c.log_time, c.not_after)), 'UInt64') AS lifetime_said_s,
    count(DISTINCT c.not_after) - 1 AS rotations,
    dateDiff('second', now('UTC'), not_after) AS left_s,
    round(left_s / 86400, 2) AS days_left,
    multiIf(lifetime_said_s > 0, lifetime_said_s, kind = 'leaf' AND left_s <= 86400, toUInt64(86400), toUInt64(0)) AS lifetime_s,
    if(lifetime_s = 0, -1., round(greatest(0, left_s) / lifetime_s, 4)) AS share_left,
    multiIf(left_s <= 0, 'failure',
        lifetime_s > 0 AND share_left < ${health_certificate_failure}, 'failure',
        lifetime_s > 0 AND share_left < ${health_certificate_degraded}, 'degraded',
        lifetime_s = 0 AND days_left < ${health_certificate_days}, 'degraded',
        'healthy') AS health
FROM certificates AS c
GROUP BY c.cluster, c.namespace, c.service, c.instance, c.kind, c.name;

-- Requests and connections under mutual TLS, by hour and edge, as the server sees them (`side` server: Istio says it of each request; of Envoy the TLS
-- connections, whose caller is not known), and as callers' Envoys do (`side` client: their handshakes of the connections they made). Sides are never added.
CREATE OR REPLACE VIEW mesh_mtls ${on_cluster} AS
SELECT
    toStartOfHour(t.at) AS slot, t.side AS side, t.cluster AS cluster, t.namespace AS namespace, t.service AS service,
    t.peer_cluster AS peer_cluster, t.peer_namespace AS peer_namespace, t.peer_service AS peer_service,
    t.source AS source,
    sum(t.requests) AS requests,
    sumIf(t.requests, t.security = 'mutual_tls') AS mtls_requests,
    sumIf(t.requests, t.security = 'none') AS plain_requests,
    sum(t.opened) AS connections,
    least(connections, if(source = 'istio', sumIf(t.opened, t.security = 'mutual_tls'), sum(t.tls))) AS tls_connections,
    multiIf(source = 'istio' AND mtls_requests + plain_requests > 0, round(mtls_requests / (mtls_requests + plain_requests), 4),
        connections > 0, round(tls_connections / connections, 4), -1.) AS share,
    toUInt8(share >= 0 AND share < 1) AS plain_text
FROM (
    SELECT slot AS at, 'server' AS side, CAST(cluster, 'String') AS cluster, CAST(namespace, 'String') AS namespace, CAST(service, 'String') AS service,
        CAST(peer_cluster, 'String') AS peer_cluster, CAST(peer_namespace, 'String') AS peer_namespace, CAST(peer_service, 'String') AS peer_service,
        CAST(source, 'String') AS source, CAST(security, 'String') AS security, requests, tcp_opened AS opened, tls_opened AS tls
    FROM traffic WHERE traffic.side = 'server'
    UNION ALL
    SELECT slot, 'client', CAST(peer_cluster, 'String'), CAST(peer_namespace, 'String'), CAST(peer_service, 'String'),
        CAST(cluster, 'String'), CAST(namespace, 'String'), CAST(service, 'String'), 'envoy', '', requests, tcp_opened, toUInt64(0)
    FROM traffic WHERE traffic.side = 'client' AND traffic.source = 'envoy'
    UNION ALL
    SELECT slot, 'client', CAST(peer_cluster, 'String'), CAST(peer_namespace, 'String'), CAST(peer_service, 'String'),
        CAST(cluster, 'String'), CAST(namespace, 'String'), CAST(service, 'String'), 'envoy', '', toUInt64(0), toUInt64(0), tls_handshakes
    FROM upstreams WHERE tls_handshakes > 0
) AS t
GROUP BY toStartOfHour(t.at), t.side, t.cluster, t.namespace, t.service, t.peer_cluster, t.peer_namespace, t.peer_service, t.source
HAVING requests > 0 OR connections > 0;

-- Configuration that does not do what was meant, by hour and service: `problem`, how often, and where it shows.
CREATE OR REPLACE VIEW mesh_config ${on_cluster} AS
SELECT
    toStartOfHour(p.slot) AS slot, CAST(p.cluster, 'String') AS cluster, CAST(p.namespace, 'String') AS namespace, CAST(p.service, 'String') AS service,
    'updates rejected' AS problem, CAST(p.instance, 'String') AS detail, toFloat64(sum(p.updates_rejected)) AS occurrences
FROM proxies AS p GROUP BY toStartOfHour(p.slot), p.cluster, p.namespace, p.service, p.instance HAVING occurrences > 0
UNION ALL
SELECT toStartOfHour(p.slot), CAST(p.cluster, 'String'), CAST(p.namespace, 'String'), CAST(p.service, 'String'),
    'mixed versions', arrayStringConcat(arraySort(groupUniqArray(toString(p.version_number))), ', '), toFloat64(uniqExact(p.version_number)) AS n
FROM proxies AS p WHERE p.version_number > 0 GROUP BY toStartOfHour(p.slot), p.cluster, p.namespace, p.service HAVING n > 1
UNION ALL
SELECT toStartOfHour(t.slot), CAST(t.cluster, 'String'), CAST(t.namespace, 'String'), CAST(t.service, 'String'),
    multiIf(has(splitByChar(',', t.response_flags), 'NR'), 'no route (NR)', has(splitByChar(',', t.response_flags), 'UH'), 'no healthy upstream (UH)',
        'no connection (UF)') AS what, CAST(t.peer_service, 'String'), toFloat64(sum(t.requests))
FROM traffic AS t
WHERE t.source = 'istio' AND t.side = 'client' AND hasAny(splitByChar(',', t.response_flags), ['NR', 'UH', 'UF'])
GROUP BY toStartOfHour(t.slot), t.cluster, t.namespace, t.service, what, t.peer_service
UNION ALL
SELECT toStartOfHour(u.slot), CAST(u.cluster, 'String'), CAST(u.namespace, 'String'), CAST(u.service, 'String'),
    multiIf(u.upstream LIKE '%BlackHoleCluster', 'black hole', 'passthrough') AS what, CAST(u.upstream, 'String'),
    toFloat64(sum(u.attempts)) AS n
FROM upstreams AS u WHERE u.upstream LIKE '%BlackHoleCluster' OR u.upstream LIKE '%PassthroughCluster%'
GROUP BY toStartOfHour(u.slot), u.cluster, u.namespace, u.service, what, u.upstream HAVING n > 0
UNION ALL
SELECT toStartOfHour(u.slot), CAST(u.cluster, 'String'), CAST(u.namespace, 'String'), CAST(u.service, 'String'),
    'no healthy upstream', CAST(u.upstream, 'String'), toFloat64(max(u.hosts)) AS n
FROM upstreams AS u WHERE u.healthy_hosts = 0 AND u.hosts > 0
GROUP BY toStartOfHour(u.slot), u.cluster, u.namespace, u.service, u.upstream
UNION ALL
SELECT toStartOfHour(n.at), n.cluster, n.namespace, n.service, 'no proxy', '', sum(n.requests) AS served
FROM (
    SELECT r.slot AS at, CAST(r.cluster, 'String') AS cluster, CAST(r.namespace, 'String') AS namespace, CAST(r.service, 'String') AS service,
        toFloat64(r.requests) AS requests, toUInt8(0) AS proxy
    FROM red AS r WHERE r.entry = 1
    UNION ALL
    SELECT x.slot, CAST(x.cluster, 'String'), CAST(x.namespace, 'String'), CAST(x.service, 'String'), 0., toUInt8(1) FROM proxies AS x
) AS n
GROUP BY toStartOfHour(n.at), n.cluster, n.namespace, n.service HAVING served > 0 AND max(n.proxy) = 0;

-- Versions of a service beside each other, by hour: each one's share of the requests, errors, p99.
CREATE OR REPLACE VIEW mesh_versions ${on_cluster} AS
SELECT
    toStartOfHour(t.slot) AS slot,
    CAST(t.cluster, 'String') AS cluster, CAST(t.namespace, 'String') AS namespace, CAST(t.service, 'String') AS service,
    CAST(t.version, 'String') AS version, CAST(t.source, 'String') AS source,
    sum(t.requests) AS requests,
    sum(t.errors) AS errors,
    sumIf(t.requests, startsWith(t.response_code, '4')) AS client_errors,
    sum(requests) OVER (PARTITION BY slot, cluster, namespace, service, source) AS of_all,
    round(requests / of_all, 4) AS share,
    round(100 * errors / requests, 4) AS error_percent,
    sumMap(t.duration_histogram) AS duration_histogram,
    round(quantileOfHistogram(duration_histogram, 0.99) / 1e6, 3) AS p99_ms,
    mesh_health(requests, errors, client_errors) AS health
FROM (
    SELECT slot, cluster, namespace, service, version, source, response_code, requests, errors, duration_histogram FROM traffic WHERE side = 'server'
    UNION ALL
    SELECT r.slot, r.cluster, r.namespace, r.service, r.version, 'spans', if(r.status_class = '4xx', '4xx', ''), r.requests, r.errors, r.duration_histogram
    FROM red AS r WHERE r.entry = 1 AND r.apart = ''
) AS t
GROUP BY toStartOfHour(t.slot), t.cluster, t.namespace, t.service, t.version, t.source
HAVING requests > 0;

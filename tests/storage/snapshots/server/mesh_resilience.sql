CREATE OR REPLACE VIEW mesh_resilience  AS
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

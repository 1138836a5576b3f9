CREATE OR REPLACE VIEW mesh_versions ON CLUSTER mesh AS
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

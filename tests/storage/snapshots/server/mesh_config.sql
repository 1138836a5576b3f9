CREATE OR REPLACE VIEW mesh_config  AS
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

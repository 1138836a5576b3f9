-- Questions that are asked of every mesh (docs/sql.md). ${since} and ${until} bound the time, ${seconds} is its length, ${days} a number of days.
-- Each answers for every cluster, and added up over all of them as the cluster `*`.

-- requests_by_destination: requests and their rate, as the called services count them
SELECT c AS cluster, toString(t.namespace) AS namespace, toString(t.service) AS destination, sum(t.requests) AS increase, increase / ${seconds} AS per_s
FROM traffic AS t ARRAY JOIN [toString(t.cluster), '*'] AS c
WHERE t.side = 'server' AND t.source = '${source}' AND t.slot >= ${since} AND t.slot < ${until}
GROUP BY c, t.namespace, t.service ORDER BY cluster, increase DESC, destination;

-- requests_by_edge: requests and their rate by source and destination, as the callers count them
SELECT c AS cluster, toString(t.service) AS source_service, toString(t.peer_service) AS destination, sum(t.requests) AS increase, increase / ${seconds} AS per_s
FROM traffic AS t ARRAY JOIN [toString(t.cluster), '*'] AS c
WHERE t.side = 'client' AND t.source = '${source}' AND t.slot >= ${since} AND t.slot < ${until}
GROUP BY c, t.service, t.peer_service ORDER BY cluster, increase DESC, source_service, destination;

-- latency: median, 95th and 99th percentile in ms, as the called services measure it
SELECT c AS cluster, toString(t.service) AS destination, sumMap(t.duration_histogram) AS histogram,
    quantileOfHistogram(histogram, 0.5) / 1e6 AS p50_ms, quantileOfHistogram(histogram, 0.95) / 1e6 AS p95_ms, quantileOfHistogram(histogram, 0.99) / 1e6 AS p99_ms
FROM traffic AS t ARRAY JOIN [toString(t.cluster), '*'] AS c
WHERE t.side = 'server' AND t.source = '${source}' AND t.slot >= ${since} AND t.slot < ${until}
GROUP BY c, t.service ORDER BY cluster, p99_ms DESC, destination;

-- error_percent: failed requests (5xx, no answer) of all
SELECT c AS cluster, toString(t.service) AS destination, 100 * sum(t.errors) / sum(t.requests) AS percent
FROM traffic AS t ARRAY JOIN [toString(t.cluster), '*'] AS c
WHERE t.side = 'server' AND t.source = '${source}' AND t.slot >= ${since} AND t.slot < ${until}
GROUP BY c, t.service HAVING sum(t.requests) > 0 ORDER BY cluster, percent DESC, destination;

-- overflow_and_retries: by Envoy cluster
SELECT c AS cluster, toString(u.upstream) AS upstream, sum(u.pending_overflow) AS pending_overflow, sum(u.retries) AS retries
FROM upstreams AS u ARRAY JOIN [toString(u.cluster), '*'] AS c
WHERE u.slot >= ${since} AND u.slot < ${until}
GROUP BY c, u.upstream ORDER BY cluster, pending_overflow DESC, retries DESC, upstream;

-- certificates_below: that end within a number of days
SELECT c AS cluster, toString(x.service) AS service, toString(x.instance) AS instance, toString(x.kind) AS kind, toString(x.name) AS name,
    argMax(x.not_after, (x.log_time, x.not_after)) AS ends, dateDiff('second', ${until}, ends) / 86400 AS days_left
FROM certificates AS x ARRAY JOIN [toString(x.cluster), '*'] AS c
GROUP BY c, x.service, x.instance, x.kind, x.name HAVING days_left < ${days} ORDER BY cluster, days_left, service, name;

-- mtls_share: of requests of which the called side says it
SELECT c AS cluster, toString(t.service) AS destination,
    sumIf(t.requests, t.security = 'mutual_tls') / sum(t.requests) AS share
FROM traffic AS t ARRAY JOIN [toString(t.cluster), '*'] AS c
WHERE t.side = 'server' AND t.source = 'istio' AND t.security != 'unknown' AND t.slot >= ${since} AND t.slot < ${until}
GROUP BY c, t.service HAVING sum(t.requests) > 0 ORDER BY cluster, share, destination;

-- proxy_restarts: restarts of sidecars
SELECT c AS cluster, toString(p.pod) AS pod, sum(p.restarts) AS restarts
FROM proxies AS p ARRAY JOIN [toString(p.cluster), '*'] AS c
WHERE p.slot >= ${since} AND p.slot < ${until}
GROUP BY c, p.pod HAVING restarts > 0 ORDER BY cluster, restarts DESC, pod;

-- proxy_memory: bytes of sidecars at the end, by cAdvisor
SELECT cluster, pod, sum(bytes) AS bytes FROM (
    SELECT c AS cluster, toString(p.pod) AS pod, p.instance, argMax(p.memory_working_set_bytes, p.slot) AS bytes
    FROM proxies AS p ARRAY JOIN [toString(p.cluster), '*'] AS c
    WHERE p.slot >= ${since} AND p.slot < ${until} AND p.memory_working_set_bytes > 0
    GROUP BY c, p.pod, p.instance
) GROUP BY cluster, pod ORDER BY cluster, bytes DESC, pod;

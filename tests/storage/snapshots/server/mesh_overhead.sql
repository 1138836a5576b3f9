CREATE OR REPLACE VIEW mesh_overhead  AS
SELECT
    toStartOfHour(e.slot) AS slot,
    CAST(e.client_cluster, 'String') AS client_cluster,
    CAST(e.client_namespace, 'String') AS client_namespace,
    CAST(e.client_service, 'String') AS client_service,
    CAST(e.server_cluster, 'String') AS server_cluster,
    CAST(e.server_namespace, 'String') AS server_namespace,
    CAST(e.server_service, 'String') AS server_service,
    sumMap(e.overhead_histogram) AS overhead_histogram,
    arraySum(mapValues(overhead_histogram)) AS calls,
    round(quantileOfHistogram(overhead_histogram, 0.5) / 1e6, 3) AS p50_ms,
    round(quantileOfHistogram(overhead_histogram, 0.99) / 1e6, 3) AS p99_ms
FROM edges AS e
WHERE e.apart = '' AND e.connection = 'service'
GROUP BY toStartOfHour(e.slot), e.client_cluster, e.client_namespace, e.client_service, e.server_cluster, e.server_namespace, e.server_service
HAVING calls > 0;

CREATE OR REPLACE VIEW edge_traffic ON CLUSTER mesh AS
SELECT
    e.slot AS slot,
    CAST(e.client_cluster, 'String') AS client_cluster,
    CAST(e.client_namespace, 'String') AS client_namespace,
    CAST(e.client_service, 'String') AS client_service,
    CAST(e.client_version, 'String') AS client_version,
    CAST(e.server_cluster, 'String') AS server_cluster,
    CAST(e.server_namespace, 'String') AS server_namespace,
    CAST(e.server_service, 'String') AS server_service,
    CAST(e.server_version, 'String') AS server_version,
    CAST(e.connection, 'String') AS connection,
    sumIf(e.calls + e.unsent + e.unanswered, e.apart = '') AS attempts,
    sumIf(e.calls, e.apart = '') AS calls,
    sumIf(e.unsent, e.apart = '') AS unsent,
    sumIf(e.unanswered, e.apart = '') AS unanswered,
    sumIf(e.errors, e.apart = '') AS errors,
    sumIf(e.retries, e.apart = '') AS retries,
    sumIf(e.calls_estimated, e.apart = '') AS calls_estimated,
    sumIf(e.errors_estimated, e.apart = '') AS errors_estimated,
    sumIf(e.calls + e.unsent + e.unanswered, e.apart = 'injected') AS injected,
    sumIf(e.calls + e.unsent + e.unanswered, e.apart = 'mirrored') AS mirrored,
    sumIf(e.request_bytes, e.apart = '') AS request_bytes,
    sumIf(e.response_bytes, e.apart = '') AS response_bytes,
    sumMapIf(e.client_histogram, e.apart = '') AS client_histogram,
    sumMapIf(e.server_histogram, e.apart = '') AS server_histogram,
    sumMapIf(e.overhead_histogram, e.apart = '') AS overhead_histogram,
    CAST(maxIf(e.exemplar_trace_id, e.apart = ''), 'String') AS exemplar_trace_id
FROM edges AS e
GROUP BY e.slot, e.client_cluster, e.client_namespace, e.client_service, e.client_version, e.server_cluster, e.server_namespace,
    e.server_service, e.server_version, e.connection
HAVING attempts != 0 OR calls != 0 OR errors != 0 OR injected != 0 OR mirrored != 0;

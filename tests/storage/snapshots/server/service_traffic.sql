CREATE OR REPLACE VIEW service_traffic  AS
SELECT
    r.slot AS slot,
    CAST(r.cluster, 'String') AS cluster,
    CAST(r.namespace, 'String') AS namespace,
    CAST(r.service, 'String') AS service,
    CAST(r.version, 'String') AS version,
    sumIf(r.requests, r.apart = '') AS requests,
    sumIf(r.errors, r.apart = '') AS errors,
    sumIf(r.requests_estimated, r.apart = '') AS requests_estimated,
    sumIf(r.errors_estimated, r.apart = '') AS errors_estimated,
    sumIf(r.requests, r.apart = 'injected') AS injected,
    sumIf(r.requests, r.apart = 'mirrored') AS mirrored,
    sumIf(r.request_bytes, r.apart = '') AS request_bytes,
    sumIf(r.response_bytes, r.apart = '') AS response_bytes,
    sumIf(r.duration_ns_sum, r.apart = '') AS duration_ns_sum,
    CAST(maxIf(r.duration_ns_max, r.apart = ''), 'UInt64') AS duration_ns_max,
    sumMapIf(r.duration_histogram, r.apart = '') AS duration_histogram,
    CAST(maxIf(r.exemplar_trace_id, r.apart = ''), 'String') AS exemplar_trace_id
FROM red AS r
WHERE r.entry = 1
GROUP BY r.slot, r.cluster, r.namespace, r.service, r.version;

CREATE OR REPLACE VIEW mesh_propagation ON CLUSTER mesh AS
WITH r.kind IN ('Client', 'Producer') AND r.entry = 0 OR r.kind = 'Server' AND startsWith(r.operation, 'egress ') AS is_egress
SELECT
    toStartOfHour(r.slot) AS slot,
    CAST(r.cluster, 'String') AS cluster,
    CAST(r.namespace, 'String') AS namespace,
    CAST(r.service, 'String') AS service,
    sumIf(r.requests, r.entry = 1 AND NOT is_egress) AS requests,
    sumIf(r.requests, is_egress) AS egress,
    sumIf(r.roots, is_egress) AS egress_roots,
    round(egress_roots / egress, 4) AS share,
    CAST(maxIf(r.exemplar_trace_id, is_egress AND r.roots > 0), 'String') AS exemplar_trace_id,
    concat(
        toString(egress_roots), ' of ', toString(egress), ' outgoing calls of ', service, ' begin a trace of their own, although ',
        toString(requests), ' requests came in: copy traceparent and tracestate (with B3 also b3 or x-b3-*; behind Envoy also x-request-id)',
        ' from each request to the calls made for it, or let an OpenTelemetry SDK do so. Calls that no request causes (timers, workers) are right.'
    ) AS advice
FROM red AS r
WHERE r.entry = 1 OR r.kind IN ('Client', 'Producer')
GROUP BY toStartOfHour(r.slot), r.cluster, r.namespace, r.service
HAVING requests > 0 AND egress_roots > 0;

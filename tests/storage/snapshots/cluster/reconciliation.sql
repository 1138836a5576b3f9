CREATE OR REPLACE VIEW reconciliation ON CLUSTER mesh AS
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

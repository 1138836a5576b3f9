CREATE OR REPLACE VIEW mesh_mtls  AS
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

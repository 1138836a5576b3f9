CREATE OR REPLACE VIEW traffic ON CLUSTER mesh AS
    SELECT slot, cluster, namespace, service, version, side, source, peer_cluster, peer_namespace, peer_service, peer_version,
        protocol, response_code, response_flags, security, late, requests, errors, request_bytes, response_bytes, tcp_opened,
        tcp_closed, tls_opened, tcp_sent_bytes, tcp_received_bytes, duration_histogram
    FROM traffic_10s WHERE slot >= (SELECT traffic_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, side, source, peer_cluster, peer_namespace, peer_service, peer_version,
        protocol, response_code, response_flags, security, late, requests, errors, request_bytes, response_bytes, tcp_opened,
        tcp_closed, tls_opened, tcp_sent_bytes, tcp_received_bytes, duration_histogram
    FROM traffic_1m WHERE slot >= (SELECT traffic_1h_until FROM rollup_bounds) AND slot < (SELECT traffic_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, side, source, peer_cluster, peer_namespace, peer_service, peer_version,
        protocol, response_code, response_flags, security, late, requests, errors, request_bytes, response_bytes, tcp_opened,
        tcp_closed, tls_opened, tcp_sent_bytes, tcp_received_bytes, duration_histogram
    FROM traffic_1h WHERE slot < (SELECT traffic_1h_until FROM rollup_bounds);

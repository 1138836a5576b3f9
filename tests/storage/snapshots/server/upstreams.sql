CREATE OR REPLACE VIEW upstreams  AS
    SELECT slot, cluster, namespace, service, version, upstream, peer_cluster, peer_namespace, peer_service, peer_version, late,
        attempts, retries, retry_success, retry_overflow, retry_limit_exceeded, timeouts, per_try_timeouts, pending_overflow,
        request_overflow, connection_overflow, connect_failures, resets_received, resets_sent, ejections, health_check_failures,
        panic, tls_handshakes, tls_sessions_reused, tls_errors, connect_time_histogram, active_connections, active_requests,
        pending_requests, ejections_active, hosts, healthy_hosts, remaining_connections, remaining_requests, remaining_pending,
        remaining_retries
    FROM upstreams_10s WHERE slot >= (SELECT upstreams_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, upstream, peer_cluster, peer_namespace, peer_service, peer_version, late,
        attempts, retries, retry_success, retry_overflow, retry_limit_exceeded, timeouts, per_try_timeouts, pending_overflow,
        request_overflow, connection_overflow, connect_failures, resets_received, resets_sent, ejections, health_check_failures,
        panic, tls_handshakes, tls_sessions_reused, tls_errors, connect_time_histogram, active_connections, active_requests,
        pending_requests, ejections_active, hosts, healthy_hosts, remaining_connections, remaining_requests, remaining_pending,
        remaining_retries
    FROM upstreams_1m WHERE slot >= (SELECT upstreams_1h_until FROM rollup_bounds) AND slot < (SELECT upstreams_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, upstream, peer_cluster, peer_namespace, peer_service, peer_version, late,
        attempts, retries, retry_success, retry_overflow, retry_limit_exceeded, timeouts, per_try_timeouts, pending_overflow,
        request_overflow, connection_overflow, connect_failures, resets_received, resets_sent, ejections, health_check_failures,
        panic, tls_handshakes, tls_sessions_reused, tls_errors, connect_time_histogram, active_connections, active_requests,
        pending_requests, ejections_active, hosts, healthy_hosts, remaining_connections, remaining_requests, remaining_pending,
        remaining_retries
    FROM upstreams_1h WHERE slot < (SELECT upstreams_1h_until FROM rollup_bounds);

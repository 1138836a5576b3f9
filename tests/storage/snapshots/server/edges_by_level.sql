CREATE OR REPLACE VIEW edges_by_level  AS
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, calls, unsent, unanswered, errors, retries,
        client_histogram, server_histogram, exemplar_trace_id
    FROM edges_10s WHERE slot >= (SELECT edges_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, calls, unsent, unanswered, errors, retries,
        client_histogram, server_histogram, exemplar_trace_id
    FROM edges_1m
    WHERE slot >= (SELECT edges_1h_until FROM rollup_bounds) AND slot < (SELECT edges_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, calls, unsent, unanswered, errors, retries,
        client_histogram, server_histogram, exemplar_trace_id
    FROM edges_1h WHERE slot < (SELECT edges_1h_until FROM rollup_bounds);

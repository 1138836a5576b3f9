CREATE OR REPLACE VIEW red  AS
    SELECT slot, cluster, namespace, service, version, operation, kind, status_class, http_status, response_flags, late,
        requests, errors, duration_ns_sum, duration_ns_max, duration_histogram, exemplar_trace_id
    FROM red_10s WHERE slot >= (SELECT red_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, operation, kind, status_class, http_status, response_flags, late,
        requests, errors, duration_ns_sum, duration_ns_max, duration_histogram, exemplar_trace_id
    FROM red_1m
    WHERE slot >= (SELECT red_1h_until FROM rollup_bounds) AND slot < (SELECT red_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, operation, kind, status_class, http_status, response_flags, late,
        requests, errors, duration_ns_sum, duration_ns_max, duration_histogram, exemplar_trace_id
    FROM red_1h WHERE slot < (SELECT red_1h_until FROM rollup_bounds);

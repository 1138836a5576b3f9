CREATE OR REPLACE VIEW red  AS
    SELECT slot, cluster, namespace, service, version, operation, kind, status_class, http_status, response_flags, late,
        toUInt8(if(entered = 0, kind IN ('Server', 'Consumer'), entered = 1)) AS entry, apart, protocol, dimensions,
        requests, errors, duration_ns_sum, duration_ns_max, duration_histogram, exemplar_trace_id,
        if(requests_estimated = 0, toFloat64(requests), requests_estimated) AS requests_estimated,
        if(errors_estimated = 0, toFloat64(errors), errors_estimated) AS errors_estimated, request_bytes, response_bytes, roots
    FROM red_10s WHERE slot >= (SELECT red_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, operation, kind, status_class, http_status, response_flags, late,
        toUInt8(if(entered = 0, kind IN ('Server', 'Consumer'), entered = 1)) AS entry, apart, protocol, dimensions,
        requests, errors, duration_ns_sum, duration_ns_max, duration_histogram, exemplar_trace_id,
        if(requests_estimated = 0, toFloat64(requests), requests_estimated) AS requests_estimated,
        if(errors_estimated = 0, toFloat64(errors), errors_estimated) AS errors_estimated, request_bytes, response_bytes, roots
    FROM red_1m
    WHERE slot >= (SELECT red_1h_until FROM rollup_bounds) AND slot < (SELECT red_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, operation, kind, status_class, http_status, response_flags, late,
        toUInt8(if(entered = 0, kind IN ('Server', 'Consumer'), entered = 1)) AS entry, apart, protocol, dimensions,
        requests, errors, duration_ns_sum, duration_ns_max, duration_histogram, exemplar_trace_id,
        if(requests_estimated = 0, toFloat64(requests), requests_estimated) AS requests_estimated,
        if(errors_estimated = 0, toFloat64(errors), errors_estimated) AS errors_estimated, request_bytes, response_bytes, roots
    FROM red_1h WHERE slot < (SELECT red_1h_until FROM rollup_bounds);

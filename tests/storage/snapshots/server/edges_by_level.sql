CREATE OR REPLACE VIEW edges_by_level  AS
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, apart, protocol, dimensions,
        toInt64(calls) AS calls, toInt64(unsent) AS unsent, toInt64(unanswered) AS unanswered, toInt64(errors) AS errors,
        toInt64(retries) AS retries, client_histogram, server_histogram, exemplar_trace_id,
        if(calls_estimated = 0, toFloat64(calls), calls_estimated) AS calls_estimated,
        if(errors_estimated = 0, toFloat64(errors), errors_estimated) AS errors_estimated,
        toInt64(request_bytes) AS request_bytes, toInt64(response_bytes) AS response_bytes,
        overhead_histogram
    FROM edges_10s WHERE slot >= (SELECT edges_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, apart, protocol, dimensions,
        toInt64(calls) AS calls, toInt64(unsent) AS unsent, toInt64(unanswered) AS unanswered, toInt64(errors) AS errors,
        toInt64(retries) AS retries, client_histogram, server_histogram, exemplar_trace_id,
        if(calls_estimated = 0, toFloat64(calls), calls_estimated) AS calls_estimated,
        if(errors_estimated = 0, toFloat64(errors), errors_estimated) AS errors_estimated,
        toInt64(request_bytes) AS request_bytes, toInt64(response_bytes) AS response_bytes,
        overhead_histogram
    FROM edges_1m
    WHERE slot >= (SELECT edges_1h_until FROM rollup_bounds) AND slot < (SELECT edges_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, apart, protocol, dimensions,
        toInt64(calls) AS calls, toInt64(unsent) AS unsent, toInt64(unanswered) AS unanswered, toInt64(errors) AS errors,
        toInt64(retries) AS retries, client_histogram, server_histogram, exemplar_trace_id,
        if(calls_estimated = 0, toFloat64(calls), calls_estimated) AS calls_estimated,
        if(errors_estimated = 0, toFloat64(errors), errors_estimated) AS errors_estimated,
        toInt64(request_bytes) AS request_bytes, toInt64(response_bytes) AS response_bytes,
        overhead_histogram
    FROM edges_1h WHERE slot < (SELECT edges_1h_until FROM rollup_bounds);

-- Views over all levels; made again by every migration.

-- Which level answers for which hours: an hour is read from the coarser level once it was rolled up and the finer level's rows may be gone.
-- A scalar subquery is evaluated once for a query, so all branches of a view see the same bounds: no gap, nothing double.
CREATE OR REPLACE VIEW rollup_bounds ${on_cluster} AS
SELECT
    least(
        maxIf(complete_until, level = 'red_1m'),
        rollup_whole_hour(greatest(now('UTC') - ${life_10s}, maxIf(kept_from, level = 'red_10s')))) AS red_1m_until,
    least(
        red_1m_until,
        maxIf(complete_until, level = 'red_1h'),
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'red_1m')))) AS red_1h_until,
    least(
        maxIf(complete_until, level = 'edges_1m'),
        rollup_whole_hour(greatest(now('UTC') - ${life_10s}, maxIf(kept_from, level = 'edges_10s')))) AS edges_1m_until,
    least(
        edges_1m_until,
        maxIf(complete_until, level = 'edges_1h'),
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'edges_1m')))) AS edges_1h_until
FROM rollups;

CREATE OR REPLACE VIEW red ${on_cluster} AS
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

-- Counts of calls that are taken back (a child came late) are below zero: 2^64 - n in the tables.
CREATE OR REPLACE VIEW edges_by_level ${on_cluster} AS
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

-- The service that most calls through an Envoy cluster reached: of past hours as learned, of hours not rolled up yet from the 10 s rows.
CREATE OR REPLACE VIEW learned_servers ${on_cluster} AS
SELECT client_cluster, upstream_cluster, argMax((server_cluster, server_namespace, server_service), (seen, server_service)) AS server
FROM (
    SELECT client_cluster, upstream_cluster, server_cluster, server_namespace, server_service, sum(calls) AS seen
    FROM (
        SELECT client_cluster, upstream_cluster, server_cluster, server_namespace, server_service, calls FROM upstream_servers
        UNION ALL
        SELECT client_cluster, upstream_cluster, server_cluster, server_namespace, server_service, calls FROM edges_10s
        WHERE slot >= (SELECT max(complete_until) FROM rollups WHERE level = 'edges_1m') AND connection = 'service' AND upstream_cluster != ''
    )
    GROUP BY client_cluster, upstream_cluster, server_cluster, server_namespace, server_service
    HAVING seen > 0
)
GROUP BY client_cluster, upstream_cluster;

-- Calls of which nothing shows at a server ('unknown': never left, 'external': left) take the one that others reached through the same Envoy cluster.
CREATE OR REPLACE VIEW edges ${on_cluster} AS
    SELECT slot, client_cluster, client_namespace, client_service, client_version, server_cluster, server_namespace,
        server_service, server_version, connection, upstream_cluster, response_flags, late, apart, protocol, dimensions,
        calls, unsent, unanswered, errors, retries, client_histogram, server_histogram, exemplar_trace_id,
        calls_estimated, errors_estimated, request_bytes, response_bytes, overhead_histogram
    FROM edges_by_level WHERE NOT (connection IN ('unknown', 'external') AND upstream_cluster != '')
    UNION ALL
    SELECT e.slot AS slot,
        e.client_cluster AS client_cluster,
        e.client_namespace AS client_namespace,
        e.client_service AS client_service,
        e.client_version AS client_version,
        CAST(if(server.3 = '', e.server_cluster, server.1), 'LowCardinality(String)') AS server_cluster,
        CAST(if(server.3 = '', e.server_namespace, server.2), 'LowCardinality(String)') AS server_namespace,
        CAST(if(server.3 = '', e.server_service, server.3), 'LowCardinality(String)') AS server_service,
        CAST(if(server.3 = '', e.server_version, ''), 'LowCardinality(String)') AS server_version,
        CAST(if(server.3 = '', e.connection, 'service'), 'LowCardinality(String)') AS connection,
        e.upstream_cluster AS upstream_cluster,
        e.response_flags AS response_flags,
        e.late AS late,
        e.apart AS apart,
        e.protocol AS protocol,
        e.dimensions AS dimensions,
        e.calls AS calls,
        e.unsent AS unsent,
        e.unanswered AS unanswered,
        e.errors AS errors,
        e.retries AS retries,
        e.client_histogram AS client_histogram,
        e.server_histogram AS server_histogram,
        e.exemplar_trace_id AS exemplar_trace_id,
        e.calls_estimated AS calls_estimated,
        e.errors_estimated AS errors_estimated,
        e.request_bytes AS request_bytes,
        e.response_bytes AS response_bytes,
        e.overhead_histogram AS overhead_histogram
    FROM (SELECT * FROM edges_by_level WHERE connection IN ('unknown', 'external') AND upstream_cluster != '') AS e
    LEFT ANY JOIN learned_servers AS l ON e.client_cluster = l.client_cluster AND e.upstream_cluster = l.upstream_cluster;

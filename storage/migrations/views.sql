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
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'edges_1m')))) AS edges_1h_until,
    least(
        maxIf(complete_until, level = 'traffic_1m'),
        rollup_whole_hour(greatest(now('UTC') - ${life_10s}, maxIf(kept_from, level = 'traffic_10s')))) AS traffic_1m_until,
    least(
        traffic_1m_until,
        maxIf(complete_until, level = 'traffic_1h'),
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'traffic_1m')))) AS traffic_1h_until,
    least(
        maxIf(complete_until, level = 'upstreams_1m'),
        rollup_whole_hour(greatest(now('UTC') - ${life_10s}, maxIf(kept_from, level = 'upstreams_10s')))) AS upstreams_1m_until,
    least(
        upstreams_1m_until,
        maxIf(complete_until, level = 'upstreams_1h'),
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'upstreams_1m')))) AS upstreams_1h_until,
    least(
        maxIf(complete_until, level = 'proxies_1m'),
        rollup_whole_hour(greatest(now('UTC') - ${life_10s}, maxIf(kept_from, level = 'proxies_10s')))) AS proxies_1m_until,
    least(
        proxies_1m_until,
        maxIf(complete_until, level = 'proxies_1h'),
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'proxies_1m')))) AS proxies_1h_until,
    least(
        maxIf(complete_until, level = 'control_plane_1m'),
        rollup_whole_hour(greatest(now('UTC') - ${life_10s}, maxIf(kept_from, level = 'control_plane_10s')))) AS control_plane_1m_until,
    least(
        control_plane_1m_until,
        maxIf(complete_until, level = 'control_plane_1h'),
        rollup_whole_hour(greatest(now('UTC') - ${life_1m}, maxIf(kept_from, level = 'control_plane_1m')))) AS control_plane_1h_until
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

-- Counters of Envoy and Istio (docs/adr/0047). Client and server sides, and sources, of traffic are not to be added: views below choose.
CREATE OR REPLACE VIEW traffic ${on_cluster} AS
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

CREATE OR REPLACE VIEW upstreams ${on_cluster} AS
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

CREATE OR REPLACE VIEW proxies ${on_cluster} AS
    SELECT slot, cluster, namespace, service, version, instance, pod, kind, late, restarts, updates_rejected, spans_sent,
        spans_dropped, downstream_requests, random_sampling, cpu_s, uptime_s, live, connections, memory_allocated_bytes,
        memory_heap_bytes, memory_physical_bytes, memory_working_set_bytes, version_number, cds_version, lds_version,
        xds_connected
    FROM proxies_10s WHERE slot >= (SELECT proxies_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, instance, pod, kind, late, restarts, updates_rejected, spans_sent,
        spans_dropped, downstream_requests, random_sampling, cpu_s, uptime_s, live, connections, memory_allocated_bytes,
        memory_heap_bytes, memory_physical_bytes, memory_working_set_bytes, version_number, cds_version, lds_version,
        xds_connected
    FROM proxies_1m WHERE slot >= (SELECT proxies_1h_until FROM rollup_bounds) AND slot < (SELECT proxies_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, version, instance, pod, kind, late, restarts, updates_rejected, spans_sent,
        spans_dropped, downstream_requests, random_sampling, cpu_s, uptime_s, live, connections, memory_allocated_bytes,
        memory_heap_bytes, memory_physical_bytes, memory_working_set_bytes, version_number, cds_version, lds_version,
        xds_connected
    FROM proxies_1h WHERE slot < (SELECT proxies_1h_until FROM rollup_bounds);

CREATE OR REPLACE VIEW control_plane ${on_cluster} AS
    SELECT slot, cluster, namespace, service, instance, metric, labels, kind, late, increment, value, histogram
    FROM control_plane_10s WHERE slot >= (SELECT control_plane_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, instance, metric, labels, kind, late, increment, value, histogram
    FROM control_plane_1m WHERE slot >= (SELECT control_plane_1h_until FROM rollup_bounds) AND slot < (SELECT control_plane_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, instance, metric, labels, kind, late, increment, value, histogram
    FROM control_plane_1h WHERE slot < (SELECT control_plane_1h_until FROM rollup_bounds);

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


-- The numbers to show, with plain types. A request is counted where it enters a service (`entry`); what a mesh injects or mirrors stands beside.
CREATE OR REPLACE VIEW service_traffic ${on_cluster} AS
SELECT
    r.slot AS slot,
    CAST(r.cluster, 'String') AS cluster,
    CAST(r.namespace, 'String') AS namespace,
    CAST(r.service, 'String') AS service,
    CAST(r.version, 'String') AS version,
    sumIf(r.requests, r.apart = '') AS requests,
    sumIf(r.errors, r.apart = '') AS errors,
    sumIf(r.requests_estimated, r.apart = '') AS requests_estimated,
    sumIf(r.errors_estimated, r.apart = '') AS errors_estimated,
    sumIf(r.requests, r.apart = 'injected') AS injected,
    sumIf(r.requests, r.apart = 'mirrored') AS mirrored,
    sumIf(r.request_bytes, r.apart = '') AS request_bytes,
    sumIf(r.response_bytes, r.apart = '') AS response_bytes,
    sumIf(r.duration_ns_sum, r.apart = '') AS duration_ns_sum,
    CAST(maxIf(r.duration_ns_max, r.apart = ''), 'UInt64') AS duration_ns_max,
    sumMapIf(r.duration_histogram, r.apart = '') AS duration_histogram,
    CAST(maxIf(r.exemplar_trace_id, r.apart = ''), 'String') AS exemplar_trace_id
FROM red AS r
WHERE r.entry = 1
GROUP BY r.slot, r.cluster, r.namespace, r.service, r.version;

-- attempts = calls (reached the server) + unsent + unanswered. Rows whose calls were all taken back are left out.
CREATE OR REPLACE VIEW edge_traffic ${on_cluster} AS
SELECT
    e.slot AS slot,
    CAST(e.client_cluster, 'String') AS client_cluster,
    CAST(e.client_namespace, 'String') AS client_namespace,
    CAST(e.client_service, 'String') AS client_service,
    CAST(e.client_version, 'String') AS client_version,
    CAST(e.server_cluster, 'String') AS server_cluster,
    CAST(e.server_namespace, 'String') AS server_namespace,
    CAST(e.server_service, 'String') AS server_service,
    CAST(e.server_version, 'String') AS server_version,
    CAST(e.connection, 'String') AS connection,
    sumIf(e.calls + e.unsent + e.unanswered, e.apart = '') AS attempts,
    sumIf(e.calls, e.apart = '') AS calls,
    sumIf(e.unsent, e.apart = '') AS unsent,
    sumIf(e.unanswered, e.apart = '') AS unanswered,
    sumIf(e.errors, e.apart = '') AS errors,
    sumIf(e.retries, e.apart = '') AS retries,
    sumIf(e.calls_estimated, e.apart = '') AS calls_estimated,
    sumIf(e.errors_estimated, e.apart = '') AS errors_estimated,
    sumIf(e.calls + e.unsent + e.unanswered, e.apart = 'injected') AS injected,
    sumIf(e.calls + e.unsent + e.unanswered, e.apart = 'mirrored') AS mirrored,
    sumIf(e.request_bytes, e.apart = '') AS request_bytes,
    sumIf(e.response_bytes, e.apart = '') AS response_bytes,
    sumMapIf(e.client_histogram, e.apart = '') AS client_histogram,
    sumMapIf(e.server_histogram, e.apart = '') AS server_histogram,
    sumMapIf(e.overhead_histogram, e.apart = '') AS overhead_histogram,
    CAST(maxIf(e.exemplar_trace_id, e.apart = ''), 'String') AS exemplar_trace_id
FROM edges AS e
GROUP BY e.slot, e.client_cluster, e.client_namespace, e.client_service, e.client_version, e.server_cluster, e.server_namespace,
    e.server_service, e.server_version, e.connection
HAVING attempts != 0 OR calls != 0 OR errors != 0 OR injected != 0 OR mirrored != 0;

-- Services that do not hand trace headers on, by hour: their calls begin traces of their own although requests come in. A gateway's call is an
-- entry, so no egress. With spawn_upstream_span Envoy's egress span is a SERVER.
CREATE OR REPLACE VIEW mesh_propagation ${on_cluster} AS
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

-- The cost of the mesh itself, by hour and edge: the caller's latency less the callee's (network, proxies, TLS).
CREATE OR REPLACE VIEW mesh_overhead ${on_cluster} AS
SELECT
    toStartOfHour(e.slot) AS slot,
    CAST(e.client_cluster, 'String') AS client_cluster,
    CAST(e.client_namespace, 'String') AS client_namespace,
    CAST(e.client_service, 'String') AS client_service,
    CAST(e.server_cluster, 'String') AS server_cluster,
    CAST(e.server_namespace, 'String') AS server_namespace,
    CAST(e.server_service, 'String') AS server_service,
    sumMap(e.overhead_histogram) AS overhead_histogram,
    arraySum(mapValues(overhead_histogram)) AS calls,
    round(quantileOfHistogram(overhead_histogram, 0.5) / 1e6, 3) AS p50_ms,
    round(quantileOfHistogram(overhead_histogram, 0.99) / 1e6, 3) AS p99_ms
FROM edges AS e
WHERE e.apart = '' AND e.connection = 'service'
GROUP BY toStartOfHour(e.slot), e.client_cluster, e.client_namespace, e.client_service, e.server_cluster, e.server_namespace, e.server_service
HAVING calls > 0;

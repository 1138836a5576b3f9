CREATE OR REPLACE VIEW edges ON CLUSTER mesh AS
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

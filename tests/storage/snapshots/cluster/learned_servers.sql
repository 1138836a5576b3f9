CREATE OR REPLACE VIEW learned_servers ON CLUSTER mesh AS
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

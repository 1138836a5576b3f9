CREATE OR REPLACE VIEW mesh_control_plane ON CLUSTER mesh AS
SELECT
    toStartOfHour(c.slot) AS slot,
    CAST(c.cluster, 'String') AS cluster,
    uniqExact(c.instance) AS instances,
    sumIf(c.increment, c.metric = 'pilot_xds_pushes') AS pushes,
    sumIf(c.increment, c.metric IN ('pilot_total_xds_rejects', 'pilot_xds_cds_reject', 'pilot_xds_eds_reject', 'pilot_xds_lds_reject', 'pilot_xds_rds_reject'))
        + maxIf(c.value, c.kind = 'value' AND c.metric IN ('pilot_xds_cds_reject', 'pilot_xds_eds_reject', 'pilot_xds_lds_reject', 'pilot_xds_rds_reject')) AS rejects,
    sumIf(c.increment, c.metric = 'pilot_total_xds_internal_errors') AS internal_errors,
    sumIf(c.increment, c.metric = 'pilot_xds_write_timeout') AS write_timeouts,
    sumIf(c.increment, c.metric IN ('citadel_server_authentication_failure_count', 'citadel_server_csr_parsing_err_count', 'citadel_server_id_extraction_err_count',
        'citadel_server_csr_sign_err_count')) AS certificate_errors,
    sumIf(c.increment, c.metric = 'sidecar_injection_failure_total') AS injection_failures,
    CAST(maxIf(c.value, c.kind = 'value' AND startsWith(c.metric, 'pilot_conflict_')), 'Float64') AS conflicts,
    countIf(c.kind = 'value' AND c.metric = 'pilot_xds') AS said_connected,
    CAST(argMaxIf(c.value, c.slot, c.kind = 'value' AND c.metric = 'pilot_xds'), 'Float64') AS connected,
    sumMapIf(c.histogram, c.metric = 'pilot_proxy_convergence_time') AS convergence_histogram,
    round(quantileOfHistogram(convergence_histogram, 0.99) / 1e9, 3) AS convergence_p99_s,
    multiIf(said_connected > 0 AND connected = 0, 'down',
        rejects + internal_errors + write_timeouts + certificate_errors + injection_failures + conflicts > 0 OR convergence_p99_s > 30.0, 'degraded',
        'healthy') AS health,
    multiIf(health = 'down', 'no proxy is connected',
        rejects > 0, 'proxies rejected configuration',
        internal_errors > 0, 'internal errors of xDS',
        write_timeouts > 0, 'pushes to proxies timed out',
        certificate_errors > 0, 'certificates were not signed',
        injection_failures > 0, 'sidecars were not injected',
        conflicts > 0, 'listeners are in conflict',
        health = 'degraded', 'configuration takes long to reach proxies',
        '') AS reason
FROM control_plane AS c
GROUP BY toStartOfHour(c.slot), c.cluster;

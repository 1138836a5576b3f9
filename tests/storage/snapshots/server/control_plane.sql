CREATE OR REPLACE VIEW control_plane  AS
    SELECT slot, cluster, namespace, service, instance, metric, labels, kind, late, increment, value, histogram
    FROM control_plane_10s WHERE slot >= (SELECT control_plane_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, instance, metric, labels, kind, late, increment, value, histogram
    FROM control_plane_1m WHERE slot >= (SELECT control_plane_1h_until FROM rollup_bounds) AND slot < (SELECT control_plane_1m_until FROM rollup_bounds)
    UNION ALL
    SELECT slot, cluster, namespace, service, instance, metric, labels, kind, late, increment, value, histogram
    FROM control_plane_1h WHERE slot < (SELECT control_plane_1h_until FROM rollup_bounds);

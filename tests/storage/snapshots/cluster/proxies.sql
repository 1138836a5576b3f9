CREATE OR REPLACE VIEW proxies ON CLUSTER mesh AS
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

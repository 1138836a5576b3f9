CREATE OR REPLACE FUNCTION mesh_health ON CLUSTER mesh AS (requests, errors, client_errors) -> multiIf(
    requests = 0, 'idle',
    100 * errors / requests >= 10.0 OR 100 * client_errors / requests >= 20.0, 'failure',
    errors > 0 AND 100 * errors / requests >= 0.0 OR client_errors > 0 AND 100 * client_errors / requests >= 10.0, 'degraded',
    'healthy');

CREATE OR REPLACE VIEW mesh_certificates  AS
SELECT
    CAST(c.cluster, 'String') AS cluster, CAST(c.namespace, 'String') AS namespace, CAST(c.service, 'String') AS service, CAST(c.instance, 'String') AS instance,
    CAST(c.kind, 'String') AS kind, CAST(c.name, 'String') AS name,
    argMax(c.not_after, (c.log_time, c.not_after)) AS not_after,
    CAST(max(c.log_time), 'DateTime(\'UTC\')') AS last_seen,
    CAST(argMax(c.lifetime_s, (c.log_time, c.not_after)), 'UInt64') AS lifetime_said_s,
    count(DISTINCT c.not_after) - 1 AS rotations,
    dateDiff('second', now('UTC'), not_after) AS left_s,
    round(left_s / 86400, 2) AS days_left,
    multiIf(lifetime_said_s > 0, lifetime_said_s, kind = 'leaf' AND left_s <= 86400, toUInt64(86400), toUInt64(0)) AS lifetime_s,
    if(lifetime_s = 0, -1., round(greatest(0, left_s) / lifetime_s, 4)) AS share_left,
    multiIf(left_s <= 0, 'failure',
        lifetime_s > 0 AND share_left < 0.1, 'failure',
        lifetime_s > 0 AND share_left < 0.33, 'degraded',
        lifetime_s = 0 AND days_left < 14.0, 'degraded',
        'healthy') AS health
FROM certificates AS c
GROUP BY c.cluster, c.namespace, c.service, c.instance, c.kind, c.name;

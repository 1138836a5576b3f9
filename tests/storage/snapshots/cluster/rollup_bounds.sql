CREATE OR REPLACE VIEW rollup_bounds ON CLUSTER mesh AS
SELECT
    least(
        maxIf(complete_until, level = 'red_1m'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(172800), maxIf(kept_from, level = 'red_10s')))) AS red_1m_until,
    least(
        red_1m_until,
        maxIf(complete_until, level = 'red_1h'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'red_1m')))) AS red_1h_until,
    least(
        maxIf(complete_until, level = 'edges_1m'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(172800), maxIf(kept_from, level = 'edges_10s')))) AS edges_1m_until,
    least(
        edges_1m_until,
        maxIf(complete_until, level = 'edges_1h'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'edges_1m')))) AS edges_1h_until,
    least(
        maxIf(complete_until, level = 'traffic_1m'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(172800), maxIf(kept_from, level = 'traffic_10s')))) AS traffic_1m_until,
    least(
        traffic_1m_until,
        maxIf(complete_until, level = 'traffic_1h'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'traffic_1m')))) AS traffic_1h_until,
    least(
        maxIf(complete_until, level = 'upstreams_1m'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(172800), maxIf(kept_from, level = 'upstreams_10s')))) AS upstreams_1m_until,
    least(
        upstreams_1m_until,
        maxIf(complete_until, level = 'upstreams_1h'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'upstreams_1m')))) AS upstreams_1h_until,
    least(
        maxIf(complete_until, level = 'proxies_1m'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(172800), maxIf(kept_from, level = 'proxies_10s')))) AS proxies_1m_until,
    least(
        proxies_1m_until,
        maxIf(complete_until, level = 'proxies_1h'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'proxies_1m')))) AS proxies_1h_until,
    least(
        maxIf(complete_until, level = 'control_plane_1m'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(172800), maxIf(kept_from, level = 'control_plane_10s')))) AS control_plane_1m_until,
    least(
        control_plane_1m_until,
        maxIf(complete_until, level = 'control_plane_1h'),
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'control_plane_1m')))) AS control_plane_1h_until
FROM rollups;

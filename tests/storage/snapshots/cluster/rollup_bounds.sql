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
        rollup_whole_hour(greatest(now('UTC') - toIntervalSecond(604800), maxIf(kept_from, level = 'edges_1m')))) AS edges_1h_until
FROM rollups;

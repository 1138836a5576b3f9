CREATE OR REPLACE FUNCTION rollup_whole_hour  AS (t) -> toDateTime(intDiv(toUnixTimestamp(t) + 3599, 3600) * 3600, 'UTC');

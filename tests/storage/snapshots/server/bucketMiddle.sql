CREATE OR REPLACE FUNCTION bucketMiddle  AS (bucket) -> exp2((bucket + 0.5) / 16);

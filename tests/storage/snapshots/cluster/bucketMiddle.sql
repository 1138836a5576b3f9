CREATE OR REPLACE FUNCTION bucketMiddle ON CLUSTER mesh AS (bucket) -> exp2((bucket + 0.5) / 16);

-- SQL functions; made again by every migration. The server keeps them, chdb in its data folder.

-- Start of the first whole hour at or after a time.
CREATE OR REPLACE FUNCTION rollup_whole_hour ${on_cluster} AS (t) -> toDateTime(intDiv(toUnixTimestamp(t) + 3599, 3600) * 3600, 'UTC');

-- Nanoseconds in the middle of a bucket of schemas.histogram: at most 2.2 % from any duration in it (2^(1/32) = 1.0219).
CREATE OR REPLACE FUNCTION bucketMiddle ${on_cluster} AS (bucket) -> exp2((bucket + 0.5) / 16);

-- The q-quantile (0..1) in nanoseconds of merged duration histograms, as quantileOfHistogram(sumMap(duration_histogram), 0.99): the middle of the
-- bucket that holds the value of rank ceil(q * count), so within 2.2 % of that very value, however many rows were merged. NaN when empty.
CREATE OR REPLACE FUNCTION quantileOfHistogram ${on_cluster} AS (histogram, q) ->
    arrayElement(
        arrayMap(
            (buckets, counts) -> if(
                empty(buckets), nan,
                bucketMiddle(buckets[arrayFirstIndex(reached -> reached >= greatest(1, ceil(q * arraySum(counts))), arrayCumSum(counts))])),
            [mapKeys(mapSort(histogram))], [mapValues(mapSort(histogram))]),
        1);

-- The one rule of health, Kiali's: by percent of failed requests, and of those that the client is at fault for (4xx). [storage.health] sets it.
CREATE OR REPLACE FUNCTION mesh_health ${on_cluster} AS (requests, errors, client_errors) -> multiIf(
    requests = 0, 'idle',
    100 * errors / requests >= ${health_failure_percent} OR 100 * client_errors / requests >= ${health_client_failure_percent}, 'failure',
    errors > 0 AND 100 * errors / requests >= ${health_degraded_percent} OR client_errors > 0 AND 100 * client_errors / requests >= ${health_client_degraded_percent}, 'degraded',
    'healthy');

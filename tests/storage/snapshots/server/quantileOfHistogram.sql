CREATE OR REPLACE FUNCTION quantileOfHistogram  AS (histogram, q) ->
    arrayElement(
        arrayMap(
            (buckets, counts) -> if(
                empty(buckets), nan,
                bucketMiddle(buckets[arrayFirstIndex(reached -> reached >= greatest(1, ceil(q * arraySum(counts))), arrayCumSum(counts))])),
            [mapKeys(mapSort(histogram))], [mapValues(mapSort(histogram))]),
        1);

"""Duration buckets: a base-2 exponential histogram of scale 4 (base 2^(1/16), values within 2.2 % of a
bucket's middle).

As OpenTelemetry's exponential histogram data model (upper-inclusive): bucket i holds durations d with
2^(i/16) < d <= 2^((i+1)/16) nanoseconds. Computed in integers, so that every machine agrees; d <= 0 counts as
1 ns, bucket -1.
"""

from bisect import bisect_left
from math import isqrt

SCALE = 4
PER_OCTAVE = 1 << SCALE


def _floor_root(power: int) -> int:
    """floor(2^(power/16)): four integer square roots of 2^power (floors of nested square roots are exact)."""
    root = 1 << power
    for _ in range(SCALE):
        root = isqrt(root)
    return root


UPPER_NS: tuple[int, ...] = tuple(_floor_root(i) for i in range(63 * PER_OCTAVE + 1))
"""``UPPER_NS[i]``: the largest whole duration in bucket i - 1 (ns)."""


def bucket_of(duration_ns: int) -> int:
    """The bucket of one duration in ns (the reference; native code does the same)."""
    return bisect_left(UPPER_NS, max(duration_ns, 1)) - 1

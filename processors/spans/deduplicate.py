"""First copies (invariant 8): Envoy's retried exports bring a span several times; the first one in the
lookback counts.

A span is known by a 64-bit key of its trace and span id (within one trace, distinct span ids have distinct
keys). At 50K spans/s over 4 partitions and a lookback of 60 s two spans of different traces share a key, and
one is taken for a copy, about once in 15 years.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014):
    a bijection.
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def with_keys(spans: pl.DataFrame) -> pl.DataFrame:
    """Add ``key`` and ``parent_key`` (u64; a root's parent_key is 0) to spans with the id columns of
    SPAN_SCHEMA.
    """
    trace = _mix(_mix(spans["trace_hi"].to_numpy()) + spans["trace_lo"].to_numpy())
    parent_id = spans["parent_id"].to_numpy()
    parent_key = _mix(parent_id ^ trace)
    parent_key[parent_id == 0] = 0
    return spans.with_columns(
        pl.Series("key", _mix(spans["span_id"].to_numpy() ^ trace)), pl.Series("parent_key", parent_key)
    )


def drop_copies(spans: pl.DataFrame) -> pl.DataFrame:
    """The first row of each key."""
    first = spans["key"].is_first_distinct()
    return spans if first.all() else spans.filter(first)


def first_copies(keys: pl.Series, earlier: Iterable[pl.Series]) -> pl.Series:
    """Which of a pane's distinct keys are in none of the earlier panes' (bool, one for each key)."""
    before = pl.concat([keys.clear(), *earlier], rechunk=False)
    seen = before.filter(before.is_in(keys.implode()))
    return ~keys.is_in(seen.implode())

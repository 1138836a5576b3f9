"""Budgets: so many traces a second of each key, chosen by bottom-k sampling of one pane.

Source: Cohen and Kaplan, "Summarizing data using bottom-k sketches" (PODC 2007); Duffield, Lund and Thorup,
"Priority sampling" (JACM 2007) for the limit over all keys. Of a key's n traces in a pane the k of the
largest randomness are kept, and their threshold is the randomness of the one that follows, plus one; given
the other traces, each is kept exactly when its own randomness reaches its threshold, so the adjusted counts
are unbiased and the block is a pure function of the pane.
"""

from dataclasses import dataclass
from fractions import Fraction

import polars as pl

from processors.spans.sampling.policies import Budget
from processors.spans.sampling.threshold import NEVER
from schemas.units import NS_PER_S

_NEVER = pl.lit(NEVER, dtype=pl.UInt64)


@dataclass(frozen=True, slots=True)
class Quota:
    """How many traces of a key one pane of one partition may keep: the first ``traces``, each with this
    ``share``.
    """

    traces: int
    share: float

    @classmethod
    def of(cls, traces_per_second: float, pane: int, pane_ns: int, partitions: int) -> "Quota":
        """The part of a rate that falls to a pane; over many panes the rate is met exactly.

        Where it is less than one trace, the best trace of every pane is a candidate and kept with that
        probability (rather than the best of every tenth pane surely), so that no pane's traces are without a
        chance to be kept, and the weights stay unbiased.
        """
        rate = Fraction(str(traces_per_second)) * pane_ns / NS_PER_S / partitions
        if rate < 1:
            return cls(1, float(rate))
        return cls(int((pane + 1) * rate) - int(pane * rate), 1.0)


def budget_thresholds(
    entries: pl.DataFrame, policy: Budget, pane: int, pane_ns: int, partitions: int
) -> pl.Series:
    """The threshold of every trace of a pane (UInt64, in the rows' order).

    ``entries``: one row per trace with ``randomness`` (UInt64) and a column for each of the policy's keys.
    """
    options = policy.budget
    each = Quota.of(options.traces_per_second, pane, pane_ns, partitions)
    total = Quota.of(options.max_traces_per_second, pane, pane_ns, partitions)
    of_key = _bottom_k(entries, list(options.keys), each)
    return _limit(entries["randomness"], of_key, total)


def _thin(threshold: pl.Expr, share: float) -> pl.Expr:
    """A threshold whose probability is ``share`` of this one's."""
    return (
        threshold if share >= 1 else _NEVER - ((_NEVER - threshold).cast(pl.Float64) * share).cast(pl.UInt64)
    )


def _bottom_k(entries: pl.DataFrame, keys: list[str], quota: Quota) -> pl.Series:
    if not keys:
        keys, entries = ["all"], entries.with_columns(all=pl.lit(0, dtype=pl.UInt8))
    ranked = entries.select(*keys, "randomness").sort("randomness", descending=True)
    next_one = ranked.filter(pl.int_range(pl.len()).over(keys) == quota.traces).select(
        *keys, cut=pl.col("randomness") + 1
    )
    cut = entries.select(keys).join(next_one, on=keys, how="left", maintain_order="left", nulls_equal=True)[
        "cut"
    ]
    return (
        cut.to_frame()
        .select(_thin(pl.col("cut").fill_null(pl.lit(0, dtype=pl.UInt64)), quota.share))
        .to_series()
    )


def _limit(randomness: pl.Series, thresholds: pl.Series, quota: Quota) -> pl.Series:
    """Thresholds raised until at most ``quota.traces`` reach theirs: priority sampling with the same
    randomness.
    """
    frame = pl.DataFrame({"randomness": randomness, "threshold": thresholds})
    priority = (_NEVER - pl.col("randomness")).cast(pl.Float64) / (_NEVER - pl.col("threshold")).cast(
        pl.Float64
    )
    reached = frame.filter(pl.col("randomness") >= pl.col("threshold")).select(priority=priority)["priority"]
    scale = quota.share
    if len(reached) > quota.traces:
        # just below the first one left out: a float of 53 bits is the same for its neighbours among 2^56
        scale *= float(reached.sort()[quota.traces]) * (1 - 2.0**-50)
    return frame.select(_thin(pl.col("threshold"), scale)).to_series()

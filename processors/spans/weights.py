"""How many requests a span stands for where its trace was sampled before it came here (head sampling).

The probability that a span came with is, in this order: that of the first rule of
``[[processing.head_sampling]]`` that matches its resource, else the threshold that its sampler wrote into its
trace state (``ot=th:``), else 1. Its weight is the inverse.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.compute as pc

from processors.settings import HeadSampling
from processors.spans.sampling.threshold import NEVER, parse_head, randomness_of_id
from schemas.spans import SpanBatch

MOST = float(1 << 20)
"""No span stands for more: anyone can write a threshold, and one span must not stand for all requests there
are.
"""
STEPS = float(1 << 20)
"""Weights are multiples of 1 / STEPS."""


def weights_of(spans: pl.DataFrame, batch: SpanBatch, rules: Sequence[HeadSampling]) -> pl.Series:
    """``weight`` Float64 of each span, 1 to MOST, a multiple of 2^-20: sums of weights below 2^33 are exact,
    and so equal in whatever order they are added.

    ``spans``: ``resource``, ``trace_state`` and ``trace_lo`` of SPAN_SCHEMA, with the codes of ``batch``.
    Trace states are read once each, and only where there are some.
    """
    thresholds = head_thresholds(spans, batch)
    weights = None if thresholds is None else _rounded(NEVER / (np.uint64(NEVER) - thresholds.to_numpy()))
    ruled = rule_weights(spans, batch, rules)
    if ruled is not None:
        weights = np.where(np.isnan(ruled), 1.0 if weights is None else weights, ruled)
    if weights is None:
        return pl.repeat(1.0, spans.height, eager=True, dtype=pl.Float64).alias("weight")
    return pl.Series("weight", weights)


def head_thresholds(spans: pl.DataFrame, batch: SpanBatch) -> pl.Series | None:
    """The rejection threshold in [0, 2^56) that each span's trace state says (UInt64, 0 for none); None where
    no span has one.

    A threshold that the randomness (``ot=rv:`` beside it, else the trace id's) does not reach can't be true,
    and is none, as OpenTelemetry's specification asks.
    """
    if spans.is_empty() or not spans["trace_state"].max():
        return None
    codes = spans["trace_state"].unique().sort()
    parsed = parse_head(pl.Series(batch.strings.take(codes.to_arrow())))
    if not parsed["head"].max():
        return None
    place = np.searchsorted(codes.to_numpy(), spans["trace_state"].to_numpy())
    own = parsed[pl.Series(place)].with_columns(spans["trace_lo"])
    head, randomness = pl.col("head"), pl.coalesce("explicit", randomness_of_id(pl.col("trace_lo")))
    return own.select(head=pl.when(head <= randomness).then(head).otherwise(pl.lit(0, pl.UInt64)))["head"]


def rule_weights(
    spans: pl.DataFrame, batch: SpanBatch, rules: Sequence[HeadSampling]
) -> npt.NDArray[np.float64] | None:
    """The weight that the first rule which matches gives each span, NaN where none does; None where none
    matches any resource of the batch.
    """
    if not rules or spans.is_empty():
        return None
    texts = {name: batch.strings.take(batch.resources.column(name)) for name in ("service", "cluster")}
    weights = np.full(batch.resources.num_rows, np.nan)
    for rule in reversed(rules):
        matches = np.ones(len(weights), np.bool_)
        for name, column in texts.items():
            wanted = getattr(rule, name)
            if wanted is not None:
                matches &= pc.equal(column, wanted).to_numpy(zero_copy_only=False)
        weights[matches] = _rounded(np.array([1 / rule.probability]))
    return None if np.isnan(weights).all() else weights[spans["resource"].to_numpy()]


def _rounded(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest multiples of 1 / STEPS (halves upwards), MOST at most."""
    rounded: npt.NDArray[np.float64] = np.floor(np.minimum(weights, MOST) * STEPS + 0.5) / STEPS
    return rounded

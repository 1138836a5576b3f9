"""The two stages of tail sampling: summarize a pane's traces when it closes, decide them when the panes after
it have closed.

A summary has one row per trace and pane, and every column of it is an aggregate that copies of a span do not
change (max, min, any, unique ids). A decision groups the summaries of the window [pane - lookback, pane +
wait] by trace and gives each trace the smallest rejection threshold (``processors.spans.sampling.threshold``)
of all policies: no state, no cache, no random numbers.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from processors.lookup import NOWHERE, Index
from processors.spans.sampling.budget import budget_thresholds
from processors.spans.sampling.conditions import SpanPolicy, inverted, span_matches
from processors.spans.sampling.policies import (
    AlwaysSample,
    And,
    Budget,
    Drop,
    Latency,
    Not,
    Policy,
    Probabilistic,
    SpanCount,
    walk,
)
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.sampling.threshold import NEVER, parse_head, randomness_of_id, threshold_of
from schemas.spans import SpanBatch

_TRACE = ("trace_hi", "trace_lo")
_RESOURCE_KEYS = ("service", "namespace", "cluster", "version")
_STATUS_OK = 6  # after the classes 1xx .. 5xx
_NS_PER_MS = 1_000_000
_SPAN = pl.col("span_id") ^ (pl.col("kind").cast(pl.UInt64) * pl.lit(0x9E3779B97F4A7C15, pl.UInt64))
"""What tells spans of a trace apart: client and server of a call may have one id."""


class Sampler:
    """Tail sampling of one partition of ``otlp_spans``; holds settings only."""

    def __init__(self, settings: SamplingSettings, pane_ns: int, partitions: int) -> None:
        self.settings = settings
        self.attribute_keys = settings.attribute_keys()
        """To be given to ``decode_spans``."""
        self._pane_ns = pane_ns
        self._partitions = partitions
        leaves = [leaf for policy in settings.policies for leaf in walk(policy)]
        self._hits = {f"hit{i}": leaf for i, leaf in enumerate(leaves) if isinstance(leaf, SpanPolicy)}
        self._budgets = {f"budget{i}": leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Budget)}
        self._columns = {id(leaf): column for column, leaf in (*self._hits.items(), *self._budgets.items())}
        self._counts_spans = any(isinstance(leaf, SpanCount) for leaf in leaves)

    def summarize(self, batch: SpanBatch, spans: pl.DataFrame, pane: int) -> pl.DataFrame:
        """One row per trace of a pane.

        ``spans`` has SPAN_SCHEMA's columns and ``attr:KEY`` for :attr:`attribute_keys`, with the codes of
        ``batch``, each span once. Columns: ``pane`` Int64, ``trace_hi``, ``trace_lo`` UInt64,
        ``start_ns``, ``end_ns`` Int64, ``error`` Boolean, ``explicit`` UInt64 (randomness from the trace
        state, null without), then what the policies need; rows in no particular order.
        """
        stated = spans.height > 0 and bool(spans["trace_state"].max())
        matches = {column: span_matches(policy, batch, spans) for column, policy in self._hits.items()}
        rows = spans.select(
            *_TRACE, _begin(spans), "end_ns", "error", *(["span_id", "kind"] if self._counts_spans else []), **matches,
            explicit=_explicit_randomness(batch, spans) if stated else pl.lit(None, dtype=pl.UInt64),
        )  # fmt: skip
        traces = rows.group_by(_TRACE).agg(
            pl.col("start_ns").min(), pl.col("end_ns").max(), pl.col("error").any(),
            pl.col("explicit").max() if stated else pl.lit(None, dtype=pl.UInt64).alias("explicit"),
            *(pl.col(column).any() for column in self._hits),
            *([_SPAN.alias("span_ids")] if self._counts_spans else []),
        )  # fmt: skip
        traces = traces.insert_column(0, pl.lit(pane, dtype=pl.Int64).alias("pane"))
        return self._with_budgets(traces, batch, spans, pane) if self._budgets else traces

    def decide(self, window: Sequence[pl.DataFrame], pane: int) -> pl.DataFrame:
        """The traces of ``pane`` that are kept, given the summaries of its window, each of one pane (panes
        without spans may be absent).

        Columns: ``trace_hi``, ``trace_lo``, ``randomness``, ``threshold`` UInt64 (randomness >= threshold),
        ``reason`` String (the first of the policies with the smallest threshold; in a dry run what would have
        happened), ``error`` Boolean (some span of it failed).
        """
        traces = self._window_of(window, pane)
        keeping = [policy for policy in self.settings.policies if not isinstance(policy, Drop)]
        dropping = [policy for policy in self.settings.policies if isinstance(policy, Drop)]
        by_policy = {f"t{i}": self._threshold(policy) for i, policy in enumerate(keeping)}
        decided = traces.with_columns(**by_policy, least=_never() if not keeping else pl.min_horizontal(*by_policy.values())).select(
            *_TRACE, "error", "least",
            randomness=pl.coalesce("explicit", randomness_of_id(pl.col("trace_lo"))),
            # what a drop lets through has the rest of its probability
            threshold=pl.max_horizontal("least", *(_opposite(self._threshold(policy)) for policy in dropping)),
            reason=pl.coalesce(
                *(pl.when(pl.col(column) == pl.col("least")).then(pl.lit(policy.name))
                  for column, policy in zip(by_policy, keeping, strict=True)),
                pl.lit(""),
            ),
        )  # fmt: skip
        kept = pl.col("randomness") >= pl.col("threshold")
        if self.settings.dry_run:
            decided = decided.with_columns(
                reason=pl.lit("dry-run: ") + pl.when(kept).then("reason").otherwise(pl.lit("dropped")),
                threshold=pl.lit(0, dtype=pl.UInt64),
            )
        return decided.filter(kept).select(*_TRACE, "randomness", "threshold", "reason", "error")

    def _window_of(self, window: Sequence[pl.DataFrame], pane: int) -> pl.DataFrame:
        """One row per trace of ``pane``, aggregated over all panes of the window."""
        ours = pl.concat([traces for traces in window if traces["pane"].first() in (pane, None)])
        others = _met([traces for traces in window if traces["pane"].first() != pane], ours)
        if others.is_empty():
            return self._alone(ours)
        again = ours.join(others.select(_TRACE), on=_TRACE, how="semi")
        alone = self._alone(ours.join(again.select(_TRACE), on=_TRACE, how="anti"))
        count = pl.col("span_ids").explode(empty_as_null=True, keep_nulls=True).n_unique().alias("spans")
        met = pl.concat([again, others]).group_by(_TRACE).agg(
            pl.col("start_ns").min(), pl.col("end_ns").max(), pl.col("error").any(), pl.col("explicit").max(),
            *(pl.col(column).any() for column in self._hits),
            *(pl.col(column).min() for column in self._budgets),
            *([count] if self._counts_spans else []),
        )  # fmt: skip
        return pl.concat([alone.select(met.columns), met])

    def _alone(self, traces: pl.DataFrame) -> pl.DataFrame:
        """Traces that one pane has all spans of."""
        return traces.with_columns(spans=pl.col("span_ids").list.len()) if self._counts_spans else traces

    def _with_budgets(
        self, traces: pl.DataFrame, batch: SpanBatch, spans: pl.DataFrame, pane: int
    ) -> pl.DataFrame:
        keys = sorted({key for budget in self._budgets.values() for key in budget.budget.keys})
        randomness = traces.select(
            *_TRACE, randomness=pl.coalesce("explicit", randomness_of_id(pl.col("trace_lo")))
        )
        entries = randomness.join(
            _entries(batch, spans, traces, keys), on=_TRACE, how="left", maintain_order="left"
        )
        return traces.with_columns(
            **{
                column: budget_thresholds(entries, policy, pane, self._pane_ns, self._partitions)
                for column, policy in self._budgets.items()
            }
        )

    def _threshold(self, policy: Policy) -> pl.Expr:
        """A policy's rejection threshold of each trace of a window (UInt64)."""
        match policy:
            case AlwaysSample():
                return pl.lit(0, dtype=pl.UInt64)
            case Probabilistic():
                return pl.lit(threshold_of(policy.probabilistic.sampling_percentage / 100), dtype=pl.UInt64)
            case Budget():
                return pl.col(self._columns[id(policy)])
            case And():
                return pl.max_horizontal(*(self._threshold(below) for below in policy.children()))
            case Drop():
                return pl.max_horizontal(*(self._threshold(below) for below in policy.children()))
            case Not():
                return _opposite(self._threshold(policy.children()[0]))
            case Latency():
                low, high = policy.latency.threshold_ms, policy.latency.upper_threshold_ms
                duration_ms = (pl.col("end_ns") - pl.col("start_ns")) // _NS_PER_MS
                return _all_or_nothing(
                    (duration_ms > low) & (duration_ms <= high) if high else duration_ms >= low
                )
            case SpanCount():
                fewest, most = policy.span_count.min_spans, policy.span_count.max_spans
                return _all_or_nothing(
                    (pl.col("spans") >= fewest) & ((pl.col("spans") <= most) if most else pl.lit(value=True))
                )
            case _:
                hit = pl.col(self._columns[id(policy)])
                return _all_or_nothing(~hit if inverted(policy) else hit)


def _met(others: Sequence[pl.DataFrame], ours: pl.DataFrame) -> pl.DataFrame:
    """Those of the other traces that are among ours, which are few: first by half of their id."""
    index = Index(ours["trace_lo"].to_numpy())
    found = [np.flatnonzero(index.find(part["trace_lo"].to_numpy()) != NOWHERE) for part in others]
    near = [part[rows] for part, rows in zip(others, found, strict=True) if len(rows)]
    return pl.concat([ours.clear(), *near]).join(ours.select(_TRACE), on=_TRACE, how="semi")


def _begin(spans: pl.DataFrame) -> pl.Expr:
    """``start_ns``; of spans that do not say when they began, their end: from 1970 on every trace of theirs
    would be a slow one.
    """
    start = pl.col("start_ns")
    known = spans.is_empty() or bool(spans["start_ns"].min() > 0)  # type: ignore[operator]  # an integer column that is not empty
    return start if known else pl.when(start > 0).then(start).otherwise("end_ns").alias("start_ns")


def _never() -> pl.Expr:
    return pl.lit(NEVER, dtype=pl.UInt64)


def _opposite(threshold: pl.Expr) -> pl.Expr:
    """The threshold with the rest of this one's probability."""
    return _never() - threshold


def _all_or_nothing(kept: pl.Expr) -> pl.Expr:
    return pl.when(kept).then(pl.lit(0, dtype=pl.UInt64)).otherwise(_never())


def _explicit_randomness(batch: SpanBatch, spans: pl.DataFrame) -> pl.Expr:
    codes = spans["trace_state"].unique()
    explicit = parse_head(pl.Series(batch.strings.take(codes.to_arrow())))["explicit"]
    found = explicit.is_not_null()
    return pl.col("trace_state").replace_strict(
        codes.filter(found), explicit.filter(found), default=None, return_dtype=pl.UInt64
    )


def _entries(
    batch: SpanBatch, spans: pl.DataFrame, traces: pl.DataFrame, keys: Sequence[str]
) -> pl.DataFrame:
    """The span that stands for each trace of the pane in budgets, with ``keys`` as numbers that are equal
    where the texts are.

    It is the root; where the pane has none (its parent is outside the mesh, or came in another pane) the one
    that started first. Of two of one id it is the caller's.
    """
    known = {key: pl.Series(batch.resources.column(key)) for key in _RESOURCE_KEYS if key in keys}
    columns = {
        key: pl.col("resource").replace_strict(range(len(codes)), codes, return_dtype=pl.UInt32)
        for key, codes in known.items()
    }
    if "status" in keys:
        http = pl.col("http_status") // 100
        columns["status"] = (
            pl.when(http.is_between(1, 5)).then(http).otherwise(_STATUS_OK + pl.col("error").cast(pl.UInt16))
        )
    needed = spans.select(
        *_TRACE,
        "span_id",
        "parent_id",
        "start_ns",
        pl.col("kind").alias("side"),
        *(columns.get(key, pl.col(key)).alias(key) for key in keys),
    )
    roots = needed.filter(pl.col("parent_id") == 0)
    rootless = traces.select(_TRACE).join(roots.select(_TRACE), on=_TRACE, how="anti")
    candidates = (
        pl.concat([roots, needed.join(rootless, on=_TRACE, how="semi")]) if rootless.height else roots
    )
    if candidates.height > traces.height:
        candidates = candidates.sort(
            "start_ns", "span_id", "side", descending=[False, False, True], maintain_order=True
        ).unique(_TRACE, keep="first", maintain_order=True)
    return candidates.select(*_TRACE, *keys)

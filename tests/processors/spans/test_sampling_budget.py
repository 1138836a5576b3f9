"""Budgets and weights: sums over what is kept, weighted, are what there was."""

import random
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.spans.sampling.budget import Quota
from processors.spans.sampling.sampler import Sampler
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.sampling.threshold import NEVER, sample_rate
from tests.support.examples import examples
from tests.support.span_batches import frame, make_batch, random_traces

PANE_NS = 1_000_000_000


def sampler(*policies: dict[str, Any], partitions: int = 1) -> Sampler:
    named = [{"name": f"p{i}", **policy} for i, policy in enumerate(policies)]
    return Sampler(SamplingSettings.model_validate({"policies": named}), PANE_NS, partitions)


def budget(traces_per_second: float, **options: Any) -> dict[str, Any]:
    return {"type": "budget", "budget": {"traces_per_second": traces_per_second, **options}}


def decide(it: Sampler, columns: dict[str, Any], services: int = 3, pane: int = 10) -> pl.DataFrame:
    rows = len(columns["trace_lo"])
    batch = make_batch(rows, columns, [{"service": f"s{i}"} for i in range(services)])
    return it.decide([it.summarize(batch, frame(batch), pane)], pane).with_columns(
        rate=sample_rate(pl.col("threshold"))
    )


def roots(seed: int, traces: int, services: int) -> dict[str, Any]:
    return {
        **random_traces(seed, traces, spans_per_trace=1, services=services),
        "error": np.zeros(traces, dtype=bool),
    }


def test_the_k_best_of_each_key_are_kept_by_the_next_ones_randomness() -> None:
    columns = roots(1, 300, 3)
    decided = decide(sampler(budget(7)), columns)
    spans = pl.DataFrame({"trace_lo": columns["trace_lo"], "service": columns["resource"]}).with_columns(
        r=pl.col("trace_lo") & (NEVER - 1)
    )
    for (_,), of_key in spans.group_by("service"):
        ranked = of_key.sort("r", descending=True)
        ours = decided.filter(pl.col("trace_lo").is_in(ranked["trace_lo"].implode()))
        assert sorted(ours["trace_lo"]) == sorted(ranked["trace_lo"][:7])
        assert ours["threshold"].unique().to_list() == [ranked["r"][7] + 1]


def test_all_are_kept_surely_where_the_budget_is_not_used_up() -> None:
    decided = decide(sampler(budget(200)), roots(1, 300, 3))
    assert decided.height == 300
    assert decided["threshold"].unique().to_list() == [0]


def test_keys_are_the_roots_service_operation_and_status() -> None:
    columns = {
        "trace_lo": [1, 2, 3, 4, 5, 5],
        "span_id": [1, 2, 3, 4, 5, 6],
        "parent_id": [0, 0, 0, 0, 0, 5],
        "operation": ["a", "a", "b", "a", "a", "z"],
        "http_status": [200, 503, 200, 204, 200, 200],
        "resource": [0, 0, 0, 0, 1, 0],
    }
    assert sorted(decide(sampler(budget(1)), columns, services=2)["trace_lo"]) == [2, 3, 4, 5]
    assert sorted(decide(sampler(budget(1, keys=["service"])), columns, services=2)["trace_lo"]) == [4, 5]
    assert sorted(decide(sampler(budget(1, keys=[])), columns, services=2)["trace_lo"]) == [5]


def test_a_trace_without_its_root_counts_by_its_first_span() -> None:
    columns = {
        "trace_lo": [1, 1, 2],
        "span_id": [1, 2, 3],
        "parent_id": [9, 9, 0],
        "start_ns": [5, 4, 0],
        "operation": ["b", "a", "b"],
    }
    assert sorted(decide(sampler(budget(1)), columns)["trace_lo"]) == [1, 2]
    columns["start_ns"] = [4, 5, 0]
    assert sorted(decide(sampler(budget(1)), columns)["trace_lo"]) == [2]


def test_late_spans_follow_a_trace_that_a_budget_kept() -> None:
    it = sampler(budget(1, keys=[]))
    first = make_batch(1, {"trace_lo": [5], "span_id": [1]})
    later = make_batch(2, {"trace_lo": [5, 6], "span_id": [2, 3], "parent_id": [1, 0]})
    panes = [it.summarize(first, frame(first), 9), it.summarize(later, frame(later), 10)]
    assert sorted(it.decide(panes, 10)["trace_lo"]) == [5, 6]
    assert it.decide(panes[1:], 10)["trace_lo"].to_list() == [6]


@given(
    st.floats(0.001, 500).map(lambda rate: round(rate, 3)),
    st.integers(0, 400_000_000),
    st.sampled_from([1, 4, 8]),
)
def test_quotas_add_up_to_the_rate(rate: float, pane: int, partitions: int) -> None:
    quotas = [Quota.of(rate, number, PANE_NS, partitions) for number in range(pane, pane + 50)]
    assert all(quota.traces >= 1 for quota in quotas)
    assert sum(quota.traces * quota.share for quota in quotas) == pytest.approx(50 * rate / partitions, abs=1)


@pytest.mark.parametrize(
    "policies",
    [
        [{"type": "probabilistic", "probabilistic": {"sampling_percentage": 20}}],
        [budget(5)],
        [budget(4, keys=["service"], max_traces_per_second=9)],
        [
            budget(3),
            {"type": "probabilistic", "probabilistic": {"sampling_percentage": 5}},
            {"type": "error"},
        ],
    ],
)
def test_weighted_sums_are_unbiased(policies: list[dict[str, Any]]) -> None:
    """Over many seeds the mean of the estimates is within four standard errors of the truth, for all traces
    and for one service.
    """
    it, traces, seeds = sampler(*policies), 200, 250
    estimates = []
    for seed in range(seeds):
        columns = random_traces(seed, traces, spans_per_trace=1, services=4)
        decided = decide(it, columns, services=4)
        first = decided.join(
            pl.DataFrame({"trace_lo": columns["trace_lo"], "of": columns["resource"]}), on="trace_lo"
        ).filter(pl.col("of") == 0)
        estimates.append((decided["rate"].sum(), first["rate"].sum() / (columns["resource"] == 0).sum()))
    for of_seed, truth in zip(np.array(estimates).T, (traces, 1), strict=True):
        assert abs(of_seed.mean() - truth) < 4 * of_seed.std() / np.sqrt(seeds)


def test_a_rate_below_one_trace_a_pane_is_unbiased_in_every_pane() -> None:
    it, keys = sampler(budget(1, keys=["service"], max_traces_per_second=1e6), partitions=4), 400
    columns = roots(7, keys, keys)
    columns["resource"] = np.arange(keys)
    for pane in range(8):
        assert decide(it, columns, services=keys, pane=pane)["rate"].sum() == pytest.approx(keys, rel=0.35)
    kept = decide(it, columns, services=keys)
    assert kept["rate"].unique().to_list() == pytest.approx([4.0])


def test_all_keys_together_keep_to_the_limit() -> None:
    it = sampler(budget(2, keys=["service"], max_traces_per_second=30))
    columns = roots(3, 5_000, 100)
    decided = decide(it, columns, services=100)
    assert decided.height == 30
    assert decided["rate"].sum() == pytest.approx(5_000, rel=0.5)


def test_a_stricter_policy_keeps_a_subset() -> None:
    columns = roots(5, 2_000, 3)
    kept = [
        set(
            decide(
                sampler({"type": "probabilistic", "probabilistic": {"sampling_percentage": share}}), columns
            )["trace_lo"]
        )
        for share in (1, 10, 50, 100)
    ]
    assert all(fewer < more for fewer, more in pairwise(kept))


@examples(25)
@given(st.integers(0, 2**32))
def test_decisions_are_equal_on_replicas(seed: int) -> None:
    """Whatever the order of rows and of panes: the decision is a function of the spans."""
    chance = random.Random(seed)
    policies = [
        budget(3),
        {"type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
        {"type": "error"},
    ]
    it = sampler({"type": "span_count", "span_count": {"min_spans": 4, "max_spans": 4}}, *policies)
    columns = random_traces(seed, 60, spans_per_trace=4)
    rows = len(columns["span_id"])
    pane_of = [chance.randrange(8, 13) for _ in range(rows)]

    def summaries(order: list[int]) -> list[pl.DataFrame]:
        panes = []
        for pane in range(8, 13):
            ours = np.array([row for row in order if pane_of[row] == pane], dtype=int)
            batch = make_batch(
                len(ours),
                {name: values[ours] for name, values in columns.items()},
                [{"service": f"s{i}"} for i in range(3)],
            )
            panes.append(it.summarize(batch, frame(batch), pane))
        return panes

    order = list(range(rows))
    expected = it.decide(summaries(order), 10).sort("trace_hi", "trace_lo")
    for _ in range(2):
        chance.shuffle(order)
        panes = summaries(order)
        chance.shuffle(panes)
        assert it.decide(panes, 10).sort("trace_hi", "trace_lo").equals(expected)

"""What each policy keeps: four traces whose ids are their numbers from 1 on, in one or two panes."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from processors.spans.sampling.sampler import Sampler
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.sampling.threshold import NEVER
from tests.support.span_batches import frame, make_batch

MS = 1_000_000
PANE_NS = 1_000_000_000
TOP = NEVER - 1

Policy = dict[str, Any]


def sampler(*policies: Policy, dry_run: bool = False) -> Sampler:
    named = [{"name": f"p{i}", **policy} for i, policy in enumerate(policies)]
    return Sampler(SamplingSettings.model_validate({"policies": named, "dry_run": dry_run}), PANE_NS, 1)


def summary(sampler: Sampler, pane: Any = 10, resources: Any = None, **columns: Any) -> pl.DataFrame:
    """A pane with these spans; ids count up from 1 unless given."""
    rows = len(next(iter(columns.values())))
    ids = np.arange(1, rows + 1)
    for key in sampler.attribute_keys:
        columns.setdefault(f"attr:{key}", [None] * rows)
    if "end_ns" in columns and "start_ns" not in columns:  # after a start, as 0 is none
        columns |= {"start_ns": [MS] * rows, "end_ns": [end_ns + MS for end_ns in columns["end_ns"]]}
    batch = make_batch(rows, {"trace_lo": ids, "span_id": ids, **columns}, resources or [{"service": "shop"}])
    return sampler.summarize(batch, frame(batch), pane)


def kept(sampler: Sampler, *panes: pl.DataFrame, pane: int = 10) -> list[int]:
    return sorted(sampler.decide(panes, pane)["trace_lo"].to_list())


def attribute(kind: str, **options: Any) -> Policy:
    return {"type": kind, kind: {"key": "k", **options}}


ALWAYS: Policy = {"type": "always_sample"}
NONE: Policy = {"type": "not", "not": {"not_sub_policy": ALWAYS}}


@pytest.mark.parametrize(
    ("policy", "columns", "expected"),
    [
        (ALWAYS, {"kind": [0, 0]}, [1, 2]),
        (NONE, {"kind": [0, 0]}, []),
        (
            {"type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
            {"status_code": [0, 1, 2, 2]},
            [3, 4],
        ),
        (
            {"type": "status_code", "status_code": {"status_codes": ["OK", "UNSET"]}},
            {"status_code": [0, 1, 2]},
            [1, 2],
        ),
        ({"type": "error"}, {"error": [False, True], "status_code": [2, 0]}, [2]),
        ({"type": "trace_flags"}, {"flags": [0x100, 0x101]}, [2]),
        ({"type": "latency", "latency": {"threshold_ms": 5}}, {"end_ns": [4 * MS, 5 * MS - 1, 5 * MS]}, [3]),
        (
            {"type": "latency", "latency": {"threshold_ms": 5, "upper_threshold_ms": 7}},
            {"end_ns": [5 * MS, 6 * MS, 7 * MS, 8 * MS]},
            [2, 3],
        ),
        (
            {"type": "response_flag", "response_flag": {"flags": ["UO", "UT"]}},
            {"response_flags": ["", "URX,UT", "UO", "UOX"]},
            [2, 3],
        ),
        (
            {"type": "trace_state", "trace_state": {"key": "a@b", "values": ["x"]}},
            {"trace_state": ["a@b=x", "c=1, a@b=x ", "xa@b=x", ""]},
            [1, 2],
        ),
        (attribute("string_attribute", values=["a", ""]), {"attr:k": ["a", "ab", "", None]}, [1]),
        (
            attribute("string_attribute", values=["a"], invert_match=True),
            {"attr:k": ["a", "ab", "", None]},
            [2, 3, 4],
        ),
        (
            attribute("string_attribute", values=["^a+$", "z"], enabled_regex_matching=True),
            {"attr:k": ["aa", "ab", "xzx", None]},
            [1, 3],
        ),
        (
            attribute("numeric_attribute", min_value=400, max_value=599),
            {"attr:k": ["404", "600", "x", None]},
            [1],
        ),
        (
            attribute("numeric_attribute", min_value=2),
            {"attr:k": ["2.5", "1.5", "9007199254740993", "-3"]},
            [1, 3],
        ),
        (
            attribute("numeric_attribute", max_value=2, invert_match=True),
            {"attr:k": ["1", "3", None]},
            [2, 3],
        ),
        (attribute("boolean_attribute", value=True), {"attr:k": ["true", "false", "True", None]}, [1]),
        (attribute("boolean_attribute", value=False), {"attr:k": ["true", "false", None]}, [2]),
        ({"type": "span_count", "span_count": {"min_spans": 2}}, {"trace_lo": [1, 1, 2]}, [1]),
        (
            {"type": "span_count", "span_count": {"min_spans": 1, "max_spans": 1}},
            {"trace_lo": [1, 1, 2]},
            [2],
        ),
        ({"type": "probabilistic", "probabilistic": {"sampling_percentage": 100}}, {"kind": [0, 0]}, [1, 2]),
        ({"type": "probabilistic", "probabilistic": {"sampling_percentage": 0}}, {"kind": [0, 0]}, []),
        (
            {"type": "probabilistic", "probabilistic": {"sampling_percentage": 50}},
            {"trace_lo": [NEVER // 2 - 1, NEVER // 2, TOP]},
            [NEVER // 2, TOP],
        ),
    ],
)
def test_policy(policy: Policy, columns: dict[str, Any], expected: list[int]) -> None:
    it = sampler(policy)
    assert kept(it, summary(it, **columns)) == expected


@pytest.mark.parametrize(("of_span", "expected"), [([None, None], [1]), (["other", "a"], [1, 2])])
def test_a_resource_attribute_counts_even_where_the_span_has_another(
    of_span: list[str | None], expected: list[int]
) -> None:
    it = sampler(attribute("string_attribute", values=["a"]))
    assert (
        kept(it, summary(it, resources=[{"k": "a"}, {"k": "b"}], resource=[0, 1], **{"attr:k": of_span}))
        == expected
    )


def test_any_span_of_the_window_keeps_the_trace() -> None:
    it = sampler({"type": "error"})
    before, own = (
        summary(it, 8, trace_lo=[2], error=[True]),
        summary(it, 10, trace_lo=[1, 2, 3], error=[False] * 3),
    )
    after = summary(it, 12, trace_lo=[3, 4], error=[True, True])
    assert kept(it, before, own, after) == [2, 3]
    assert it.decide([before, own, after], 10)["error"].all()


def test_a_span_without_a_start_does_not_make_its_trace_slow() -> None:
    it = sampler({"type": "latency", "latency": {"threshold_ms": 5}})
    later = 10**6 * MS
    one = summary(
        it,
        trace_lo=[1, 1, 2, 2],
        start_ns=[0, later, 0, later],
        end_ns=[later + MS, later + MS, later, later + 5 * MS],
    )
    assert kept(it, one) == [2]
    assert kept(it, summary(it, trace_lo=[1], start_ns=[0], end_ns=[later])) == []


def test_latency_is_from_the_first_start_to_the_last_end_of_the_window() -> None:
    it = sampler({"type": "latency", "latency": {"threshold_ms": 100}})
    panes = (
        summary(it, 9, trace_lo=[1], start_ns=[MS], end_ns=[2 * MS]),
        summary(it, 10, trace_lo=[1], start_ns=[99 * MS], end_ns=[101 * MS]),
    )
    assert kept(it, *panes) == [1]
    assert kept(it, panes[1]) == []


def test_span_count_counts_copies_in_other_panes_once() -> None:
    it = sampler({"type": "span_count", "span_count": {"min_spans": 3}})
    own = summary(it, 10, trace_lo=[1, 1], span_id=[1, 2])
    assert kept(it, own, summary(it, 11, trace_lo=[1, 1], span_id=[1, 2])) == []
    assert kept(it, own, summary(it, 11, trace_lo=[1, 1], span_id=[2, 3])) == [1]


def test_the_first_of_the_strongest_policies_is_the_reason() -> None:
    it = sampler(
        {"type": "probabilistic", "probabilistic": {"sampling_percentage": 50}},
        {"type": "error"},
        {"type": "trace_flags"},
    )
    decided = it.decide([summary(it, trace_lo=[TOP - 1, TOP], error=[False, True], flags=[0, 1])], 10).sort(
        "trace_lo"
    )
    assert decided.select("reason", "threshold").rows() == [("p0", NEVER // 2), ("p1", 0)]


def test_and_keeps_what_all_keep() -> None:
    half: Policy = {"type": "probabilistic", "probabilistic": {"sampling_percentage": 50}}
    it = sampler({"type": "and", "and": {"and_sub_policy": [{"type": "error"}, half]}})
    decided = it.decide([summary(it, trace_lo=[1, 2, TOP - 1, TOP], error=[False, True, False, True])], 10)
    assert decided.select("trace_lo", "threshold").rows() == [(TOP, NEVER // 2)]


def test_not_of_a_probability_has_the_other_probability() -> None:
    it = sampler(
        {
            "type": "not",
            "not": {
                "not_sub_policy": {"type": "probabilistic", "probabilistic": {"sampling_percentage": 75}}
            },
        }
    )
    decided = it.decide([summary(it, trace_lo=[NEVER // 2, TOP])], 10)
    assert decided.select("trace_lo", "threshold").rows() == [(TOP, NEVER // 4 * 3)]


def test_drop_wins_over_all() -> None:
    drop = {
        "type": "drop",
        "drop": {
            "drop_sub_policy": [attribute("string_attribute", values=["/health"]), {"type": "trace_flags"}]
        },
    }
    it = sampler(ALWAYS, drop)
    assert kept(it, summary(it, **{"attr:k": ["/health", "/health", "/"], "flags": [1, 0, 1]})) == [2, 3]


def test_drop_of_a_share_lets_the_rest_through_with_its_weight() -> None:
    drop = {
        "type": "drop",
        "drop": {
            "drop_sub_policy": [{"type": "probabilistic", "probabilistic": {"sampling_percentage": 75}}]
        },
    }
    it = sampler(ALWAYS, drop)
    decided = it.decide([summary(it, trace_lo=[1, TOP])], 10)
    assert decided.select("trace_lo", "threshold").rows() == [(TOP, NEVER // 4 * 3)]


def test_dry_run_keeps_all_and_says_what_would_have_been() -> None:
    it = sampler({"type": "error"}, dry_run=True)
    decided = it.decide([summary(it, error=[False, True])], 10).sort("trace_lo")
    assert decided.select("reason", "threshold").rows() == [("dry-run: dropped", 0), ("dry-run: p0", 0)]


def test_randomness_of_the_trace_state_comes_before_the_id() -> None:
    it = sampler({"type": "probabilistic", "probabilistic": {"sampling_percentage": 50}})
    states = ["ot=rv:ffffffffffffff", "", "ot=rv:00000000000000"]
    panes = summary(it, 9, trace_lo=[1, 2, TOP], trace_state=states), summary(it, 10, trace_lo=[1, 2, TOP])
    assert kept(it, *panes) == [1]
    assert kept(it, panes[1]) == [TOP]


def test_no_policies_and_no_spans() -> None:
    it = sampler()
    assert kept(it, summary(it, kind=[0])) == []
    default = Sampler(SamplingSettings(), PANE_NS, 1)
    assert default.decide([summary(default, kind=np.zeros(0, int))], 10).is_empty()

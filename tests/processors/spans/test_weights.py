"""Weights of spans that were sampled at the head: rules, thresholds, bounds, and sums that are exact."""

import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.settings import HeadSampling, ProcessorSettings
from processors.spans import weights
from processors.spans.sampling import threshold
from processors.spans.sampling.threshold import NEVER, format_threshold
from processors.spans.weights import MOST, weights_of
from tests.support.span_batches import frame, make_batch

Rule = tuple[str | None, str | None, float]
Span = tuple[int, str, int]
"""A resource's number, a trace state, a trace id's lower half."""
RESOURCES = [
    {"service": "cart", "cluster": "east"},
    {"service": "cart", "cluster": "west"},
    {"service": "shop", "cluster": "east"},
    {"service": "shop"},
]
_RANDOM = NEVER - 1


def found(spans: Sequence[Span], rules: Sequence[Rule] = ()) -> list[float]:
    columns: dict[str, list[object] | np.ndarray] = {
        "resource": [resource for resource, _, _ in spans],
        "trace_state": [state for _, state, _ in spans],
        "trace_lo": np.array([trace for _, _, trace in spans], np.uint64),
    }
    batch = make_batch(len(spans), columns if spans else {}, RESOURCES)
    settings = ProcessorSettings(
        head_sampling=tuple(
            HeadSampling(service=service, cluster=cluster, probability=probability)
            for service, cluster, probability in rules
        )
    )
    series = weights_of(frame(batch), batch, settings.head_sampling)
    assert (series.name, len(series)) == ("weight", len(spans))
    assert series.dtype == pl.Float64
    return series.to_list()


def expected(span: Span, rules: Sequence[Rule]) -> Fraction:
    """One span's weight, not rounded: a slow and plain way."""
    resource, state, trace = span
    own = RESOURCES[resource]
    for service, cluster, probability in rules:
        if service in (None, own["service"]) and cluster in (None, own.get("cluster", "")):
            return 1 / Fraction(probability)
    stated = next((member[3:] for member in state.split(",") if member.startswith("ot=")), "")
    pairs = dict(pair.split(":") for pair in stated.split(";") if pair)
    threshold = int(pairs.get("th", "0").ljust(14, "0"), 16)
    randomness = int(pairs["rv"], 16) if "rv" in pairs else trace % NEVER
    return min(Fraction(NEVER, NEVER - threshold if threshold <= randomness else NEVER), Fraction(1 << 20))


thresholds = st.integers(0, NEVER - 1) | st.sampled_from([0, NEVER // 2, NEVER - 1, NEVER - (1 << 36)])
states = st.one_of(
    st.just(""),
    st.just("vendor=ot=th:c"),
    st.builds(
        lambda threshold, randomness, vendor: (
            f"{vendor}ot=th:{format_threshold(threshold)}"
            + ("" if randomness is None else f";rv:{randomness:014x}")
        ),
        thresholds,
        st.none() | st.integers(0, _RANDOM) | st.just(_RANDOM),
        st.sampled_from(["", "rojo=1,"]),
    ),
)
spans = st.tuples(st.integers(0, len(RESOURCES) - 1), states, st.integers(0, 2**64 - 1) | st.just(2**64 - 1))
rules = st.lists(
    st.tuples(
        st.sampled_from([None, "cart", "shop", "none"]),
        st.sampled_from([None, "east", "west"]),
        st.floats(1e-6, 1),
    ),
    unique_by=lambda rule: rule[:2],
    max_size=4,
).map(lambda some: sorted(some, key=lambda rule: (rule[0] is None) + (rule[1] is None)))


@given(st.lists(spans, max_size=8), rules)
def test_weights_are_those_of_the_first_rule_else_of_the_trace_state(
    some: list[Span], some_rules: list[Rule]
) -> None:
    for weight, span in zip(found(some, some_rules), some, strict=True):
        exact = expected(span, some_rules)
        assert (Fraction(weight) * (1 << 20)).denominator == 1
        assert 1 <= weight <= MOST
        assert abs(Fraction(weight) - exact) <= Fraction(1, 1 << 21) + exact / (1 << 50)


@given(st.lists(spans, min_size=2, max_size=50), st.integers(0, 2**32))
def test_sums_do_not_depend_on_the_order(some: list[Span], seed: int) -> None:
    in_order = found(some)
    mixed = random.Random(seed).sample(in_order, len(in_order))
    assert pl.Series(in_order).sum() == pl.Series(mixed).sum() == sum(map(Fraction, in_order))


@pytest.mark.parametrize(
    ("state", "trace", "weight"),
    [
        ("", 0, 1),
        ("ot=th:0", 0, 1),
        ("ot=th:8", NEVER // 2, 2),
        ("ot=th:8", NEVER // 2 - 1, 1),  # a trace of this id would not have been let through
        ("ot=th:8;rv:80000000000000", 0, 2),
        ("ot=th:fd70a3d70a3d7", _RANDOM, 100),  # 1 %, in 13 digits
        ("ot=th:ffffffffffffff", _RANDOM, MOST),
        ("ot=th:ffffffffffffff;rv:ffffffffffffff", 0, MOST),
        ("ot=th:10000000000000000", _RANDOM, 1),
        ("ot=th:-8", _RANDOM, 1),
        ("ot=th:" + "f" * 100_000, _RANDOM, 1),
    ],
)
def test_thresholds(state: str, trace: int, weight: float) -> None:
    assert found([(0, state, trace), (0, "", trace)]) == [pytest.approx(weight, rel=1e-9), 1]


def test_the_first_rule_that_matches_counts_before_the_trace_state() -> None:
    two = (("cart", "east", 0.5), ("cart", None, 0.01), (None, "east", 0.1))
    assert found([(number, "ot=th:c", _RANDOM) for number in range(4)], two) == [2, 100, 10, 4]
    assert found([(0, "", 0), (3, "", 0)], ((None, None, 0.25),)) == [4, 4]


def test_without_trace_states_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(weights, "parse_head")
    assert found([(0, "", 7), (1, "", 8)], (("shop", None, 0.5),)) == [1, 1]
    assert found([]) == []


def test_equal_trace_states_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = threshold.parse_head
    monkeypatch.setattr(weights, "parse_head", lambda texts: read.append(len(texts)) or original(texts))  # type: ignore[func-returns-value]  # append
    assert found([(0, "ot=th:8", _RANDOM)] * 50 + [(0, "", 0)] * 50) == [2] * 50 + [1] * 50
    assert read == [2]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([{"probability": 0}], "greater than or equal to"),
        ([{"probability": 1.5}], "less than or equal to"),
        ([{"probability": float("nan")}], "finite"),
        ([{"service": "a"}], "probability"),
        ([{"service": "", "probability": 1}], "at least 1 character"),
        ([{"namespace": "a", "probability": 1}], "namespace"),
        ([{"probability": 0.1}, {"service": "a", "probability": 1}], "table 2 never matches"),
        ([{"service": "a", "probability": 0.1}] * 2, "put the narrower one first"),
    ],
)
def test_rules_that_make_no_sense_are_refused(tables: list[dict[str, object]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ProcessorSettings.model_validate({"head_sampling": tables})

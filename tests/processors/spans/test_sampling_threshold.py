import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.spans.sampling.threshold import (
    NEVER,
    format_threshold,
    merge_threshold,
    parse_head,
    sample_rate,
    threshold_of,
)


@pytest.mark.parametrize(
    ("probability", "text"),  # the examples of OpenTelemetry's tracestate-probability-sampling.md
    [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.75, "4"), (1 / 3, "aaaaaaaaaaaaac")],
)
def test_thresholds_as_the_specification_writes_them(probability: float, text: str) -> None:
    assert format_threshold(threshold_of(probability)) == text


@pytest.mark.parametrize(("probability", "threshold"), [(0.0, NEVER), (-1.0, NEVER), (1.0, 0), (7.0, 0)])
def test_surely_and_never(probability: float, threshold: int) -> None:
    assert threshold_of(probability) == threshold


@given(st.integers(0, NEVER - 1))
def test_what_is_written_is_read_back(threshold: int) -> None:
    state = merge_threshold("vendor=a;th:1", threshold)
    assert state.endswith(",vendor=a;th:1")
    assert parse_head(pl.Series([state]))["head"].to_list() == [threshold]


@pytest.mark.parametrize(
    ("state", "head", "explicit"),
    [
        ("", None, None),
        ("ot=th:c", 0xC << 52, None),
        ("rojo=1, ot=rv:00000000000001;th:0 ,congo=2", 0, 1),
        ("ot=a:b;th:8;c:d", 0x8 << 52, None),
        ("not=th:8", None, None),
        ("ot=xth:8", None, None),
        ("ot=th:8g", None, None),
        ("ot=th:123456789abcdef", None, None),
        ("ot=rv:1", None, None),
        ("ot=TH:8", None, None),
        ("ot=th:4,ot=th:8", 0x4 << 52, None),
    ],
)
def test_reading_trace_states(state: str, head: int | None, explicit: int | None) -> None:
    assert parse_head(pl.Series([state])).rows() == [(head, explicit)]


@pytest.mark.parametrize(
    ("state", "merged"),
    [
        ("", "ot=th:8"),
        ("ot=th:c", "ot=th:8"),
        ("rojo=1,ot=rv:00000000000001;th:0;x:y,congo=2", "ot=th:8;rv:00000000000001;x:y,rojo=1,congo=2"),
        (" rojo=1 , ,congo=2", "ot=th:8,rojo=1,congo=2"),
    ],
)
def test_other_members_and_sub_keys_stay(state: str, merged: str) -> None:
    assert merge_threshold(state, 0x8 << 52) == merged


def test_a_trace_state_keeps_to_32_members() -> None:
    merged = merge_threshold(",".join(f"v{i}=1" for i in range(32)), 0).split(",")
    assert len(merged) == 32
    assert (merged[0], merged[-1]) == ("ot=th:0", "v30=1")


def test_adjusted_counts() -> None:
    rates = pl.DataFrame({"t": [0, NEVER // 2, threshold_of(0.01)]}, schema={"t": pl.UInt64}).select(
        sample_rate(pl.col("t"))
    )
    assert rates.to_series().to_list() == pytest.approx([1.0, 2.0, 100.0])

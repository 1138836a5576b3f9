"""Consistent probability sampling: rejection thresholds, randomness and their place in W3C trace state.

Source: OpenTelemetry specification, trace/tracestate-probability-sampling.md and
trace/tracestate-handling.md. A trace has a 56-bit randomness R (``ot=rv:`` in the trace state, else the low
56 bits of its id); a sampler has a rejection threshold T in [0, 2^56]; the trace is kept when R >= T. The
probability is 1 - T / 2^56, and a kept span stands for the inverse of that (its adjusted count).
"""

import polars as pl

RANDOMNESS_BITS = 56
NEVER = 1 << RANDOMNESS_BITS
"""The threshold that no randomness reaches; 0 is the one that every randomness does."""

_HEX_DIGITS = RANDOMNESS_BITS // 4
_MEMBERS_AT_MOST = 32  # W3C Trace Context 3.3.1.1: list members of a trace state


def threshold_of(probability: float) -> int:
    """The threshold in [0, 2^56] that keeps this share (0 to 1; beyond: the nearest) of all traces."""
    return NEVER - round(min(max(probability, 0.0), 1.0) * NEVER)


def randomness_of_id(trace_lo: pl.Expr) -> pl.Expr:
    """R of a trace without ``ot=rv:``: the low 56 bits of its id (UInt64)."""
    return trace_lo & pl.lit(NEVER - 1, dtype=pl.UInt64)


def parse_head(states: pl.Series) -> pl.DataFrame:
    """What samplers in front of us wrote into trace states (String, one row each).

    Columns ``head`` (UInt64, the threshold of ``ot=th:``) and ``explicit`` (UInt64, the randomness of
    ``ot=rv:``), null where absent or malformed; of two ``ot`` members the first counts.
    """
    member = pl.col("state").str.extract(r"(?:^|,)[ \t]*ot=([^,]*)")
    threshold = member.str.extract(r"(?:^|;)th:([0-9a-f]{1,14})[ \t]*(?:;|$)").str.pad_end(_HEX_DIGITS, "0")
    randomness = member.str.extract(r"(?:^|;)rv:([0-9a-f]{14})[ \t]*(?:;|$)")
    return (
        states.rename("state")
        .to_frame()
        .select(
            head=threshold.str.to_integer(base=16, dtype=pl.UInt64),
            explicit=randomness.str.to_integer(base=16, dtype=pl.UInt64),
        )
    )


def format_threshold(threshold: int) -> str:
    """The text of ``ot=th:``: hex digits without trailing zeros, "0" for 0; ``threshold`` in [0, 2^56)."""
    return f"{threshold:014x}".rstrip("0") or "0"


def merge_threshold(state: str, threshold: int) -> str:
    """A trace state with ``ot=th:`` set: other vendors' members, and other sub-keys of ``ot``, stay.

    As W3C asks, the changed member goes first; when that makes more than 32 members, the last goes.
    """
    members = [member.strip() for member in state.split(",") if member.strip()]
    ours = next((member[3:] for member in members if member.startswith("ot=")), "")
    sub_keys = [sub for sub in ours.split(";") if sub and not sub.startswith("th:")]
    others = [member for member in members if not member.startswith("ot=")][: _MEMBERS_AT_MOST - 1]
    return ",".join(["ot=" + ";".join([f"th:{format_threshold(threshold)}", *sub_keys]), *others])


def sample_rate(threshold: pl.Expr) -> pl.Expr:
    """Adjusted count of a span kept by a threshold below 2^56 (Float64, >= 1)."""
    return NEVER / (pl.lit(NEVER, dtype=pl.UInt64) - threshold).cast(pl.Float64)

"""Section ``[sampling]``: the policies, and what they keep where none are set."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from processors.spans.sampling.options import BudgetOptions, LatencyOptions, ProbabilisticOptions
from processors.spans.sampling.policies import (
    BooleanAttribute,
    Budget,
    Drop,
    Error,
    Latency,
    Not,
    NumericAttribute,
    Policy,
    Probabilistic,
    StringAttribute,
    walk,
)


def _default_policies() -> tuple[Policy, ...]:
    return (
        Error(name="errors", type="error"),
        Latency(name="slow", type="latency", latency=LatencyOptions(threshold_ms=1000)),
        Probabilistic(
            name="one-percent",
            type="probabilistic",
            probabilistic=ProbabilisticOptions(sampling_percentage=1),
        ),
        Budget(
            name="few-of-everything",
            type="budget",
            budget=BudgetOptions(traces_per_second=0.2, max_traces_per_second=10),
        ),
    )


class SamplingSettings(BaseModel):
    """Section ``[sampling]``: which traces are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policies: tuple[Policy, ...] = Field(
        default_factory=_default_policies,
        description="A trace is kept when any of these keeps it. Default: errors, slow ones, 1 % of the rest, a few of everything.",
    )
    dry_run: bool = Field(False, description="Keep everything; KeepReason says what would have happened.")
    trace_spans: int = Field(
        20_000,
        ge=1,
        description="Spans of one kept trace that a pane stores, the first ones by start; the ledger counts the rest as dropped.",
    )

    @field_validator("policies")
    @classmethod
    def _sound(cls, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
        names = [policy.name for policy in policies]
        if "" in names:
            raise ValueError("every policy needs a name (it becomes KeepReason)")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two policies are named {', '.join(twice)}; give each its own name")
        for policy in policies:
            _check_nesting(policy)
        return policies

    def attribute_keys(self) -> tuple[str, ...]:
        """Attribute keys that policies look at, for ``decode_spans(extra_keys=...)``: sorted, each once."""
        options = (
            leaf.string_attribute
            if isinstance(leaf, StringAttribute)
            else leaf.numeric_attribute
            if isinstance(leaf, NumericAttribute)
            else leaf.boolean_attribute
            for policy in self.policies
            for leaf in walk(policy)
            if isinstance(leaf, StringAttribute | NumericAttribute | BooleanAttribute)
        )
        return tuple(sorted({option.key for option in options}))


def _check_nesting(policy: Policy) -> None:
    for below in walk(policy):
        if below is not policy and isinstance(below, Drop):
            raise ValueError(
                f"policy {policy.name!r}: drop stands at the top of the list only; inside use not"
            )
        if isinstance(below, Not | Drop) and any(isinstance(leaf, Budget) for leaf in walk(below)):
            raise ValueError(
                f"policy {policy.name!r}: a budget can't be turned round; take it out of {below.type}"
            )

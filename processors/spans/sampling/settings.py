"""Sampling policies as ``meshflow.toml`` writes them: the names and options of the OpenTelemetry Collector's
tail_sampling processor.

Source: opentelemetry-collector-contrib, processor/tailsamplingprocessor (README.md, config.go). A Collector's
``policies`` list can be copied over; ``error``, ``response_flag`` and ``budget`` are meshflow's own. What
differs from the Collector, policy by policy:

- attributes are compared as text (a ``numeric_attribute`` reads Envoy's ``http.status_code = "503"`` as 503;
  the Collector does not);
- ``invert_match`` keeps a trace when none of its spans and resources match; it vetoes no other policy (the
  Collector deprecated that);
- regular expressions are Rust's ``regex`` (linear time, nearly Go's syntax); ``cache_max_size`` is accepted
  and not needed;
- ``probabilistic`` takes its randomness from the trace id (OpenTelemetry's consistent probability sampling),
  so ``hash_salt`` is accepted and without effect: policies, and collectors in a row, agree on the traces that
  they keep;
- ``not`` of a probability p keeps a trace with probability 1 - p, but not exactly those that p leaves out: a
  rejection threshold can only stand for the traces of the highest randomness. ``drop`` of a probability p
  lets a share 1 - p of its traces through, in the same way;
- ``and``, ``not`` and ``drop`` take any policy but ``drop``; no budget inside ``not`` or ``drop``; one inside
  ``and`` counts all traces.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

_ELSEWHERE = {
    "rate_limiting": 'write type = "budget", budget = {traces_per_second = 10}, which keeps its weights exact',
    "bytes_limiting": 'write type = "budget", budget = {traces_per_second = 10}, which keeps its weights exact',
    "composite": "list its sub-policies as policies, a budget for each",
    "ottl_condition": "write the condition with string_attribute, numeric_attribute, boolean_attribute, and, not",
}


class Table(BaseModel):
    """A table of options; an unknown one is an error that names those that exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = sorted(set(given) - set(names)) if isinstance(given, dict) else []
        if unknown:
            known = ", ".join(names) or "none"
            raise ValueError(f"unknown option {', '.join(map(repr, unknown))}; supported here: {known}")
        return given


class StatusCodeOptions(Table):
    """Options of ``status_code``."""

    status_codes: tuple[Literal["OK", "ERROR", "UNSET"], ...] = Field(
        min_length=1, description="Span statuses to keep."
    )


class LatencyOptions(Table):
    """Options of ``latency``; as in the Collector, an upper bound makes the lower one exclusive."""

    threshold_ms: int = Field(ge=0, description="Shortest duration to keep (ms).")
    upper_threshold_ms: int = Field(0, ge=0, description="Longest duration to keep (ms); 0: no bound.")


class StringAttributeOptions(Table):
    """Options of ``string_attribute``."""

    key: str = Field(min_length=1, description="Attribute of the span or its resource.")
    values: tuple[str, ...] = Field(
        (), description="Values, or regular expressions found anywhere in the value."
    )
    enabled_regex_matching: bool = Field(False, description="Whether values are regular expressions.")
    cache_max_size: int = Field(0, description="Accepted for the Collector's sake; not needed here.")
    invert_match: bool = Field(False, description="Keep when nothing of the trace matches.")

    @model_validator(mode="after")
    def _compiles(self) -> "StringAttributeOptions":
        if self.enabled_regex_matching:
            import polars as pl  # noqa: PLC0415  # only who uses regular expressions waits for this import

            for value in self.values:
                try:
                    pl.Series([""]).str.contains(value)
                except pl.exceptions.ComputeError as error:
                    raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return self


class NumericAttributeOptions(Table):
    """Options of ``numeric_attribute``; both bounds inclusive."""

    key: str = Field(min_length=1, description="Attribute of the span or its resource.")
    min_value: int | None = Field(None, description="Smallest value to keep.")
    max_value: int | None = Field(None, description="Largest value to keep.")
    invert_match: bool = Field(False, description="Keep when nothing of the trace matches.")

    @model_validator(mode="after")
    def _bounded(self) -> "NumericAttributeOptions":
        if self.min_value is None and self.max_value is None:
            raise ValueError("give min_value, max_value or both")
        return self


class BooleanAttributeOptions(Table):
    """Options of ``boolean_attribute``."""

    key: str = Field(min_length=1, description="Attribute of the span or its resource.")
    value: bool = Field(description="The value to keep.")
    invert_match: bool = Field(False, description="Keep when nothing of the trace matches.")


class ProbabilisticOptions(Table):
    """Options of ``probabilistic``."""

    sampling_percentage: float = Field(
        ge=0, allow_inf_nan=False, description="Per cent of traces to keep; 100 and more: all."
    )
    hash_salt: str = Field(
        "", description="Accepted for the Collector's sake; without effect (see the module)."
    )


class SpanCountOptions(Table):
    """Options of ``span_count``; both bounds inclusive."""

    min_spans: int = Field(0, ge=0, description="Fewest spans to keep.")
    max_spans: int = Field(0, ge=0, description="Most spans to keep; 0: no bound.")


class TraceStateOptions(Table):
    """Options of ``trace_state``."""

    key: str = Field(min_length=1, description="Member of the W3C trace state.")
    values: tuple[str, ...] = Field(min_length=1, description="Values to keep.")


class ResponseFlagOptions(Table):
    """Options of ``response_flag``."""

    flags: tuple[str, ...] = Field(
        min_length=1, description='Envoy\'s response flags to keep ("UO", "UT", ...).'
    )


BudgetKey = Literal[
    "service",
    "namespace",
    "cluster",
    "version",
    "operation",
    "kind",
    "status",
    "http_status",
    "response_flags",
    "upstream_cluster",
]


class BudgetOptions(Table):
    """Options of ``budget``; keys are read from the trace's root span (see
    ``processors.spans.sampling.budget``).
    """

    traces_per_second: float = Field(
        gt=0, allow_inf_nan=False, description="Traces a second to keep for each combination of the keys."
    )
    keys: tuple[BudgetKey, ...] = Field(
        ("service", "operation", "status"), description="What the budget is for each of."
    )
    max_traces_per_second: float = Field(
        1000, gt=0, allow_inf_nan=False, description="Traces a second that all keys get together."
    )


class _Policy(Table):
    name: str = Field("", description="Becomes the kept spans' KeepReason.")

    def children(self) -> tuple["Policy", ...]:
        """Policies that this one combines."""
        return ()


class AlwaysSample(_Policy):
    """Keeps every trace."""

    type: Literal["always_sample"]
    always_sample: Table | None = None


class StatusCode(_Policy):
    """Keeps traces with a span of one of these statuses (the OTLP status alone; ``error`` knows Envoy's
    attribute too).
    """

    type: Literal["status_code"]
    status_code: StatusCodeOptions


class Latency(_Policy):
    """Keeps traces by the time from the first start to the last end seen in the decision's window."""

    type: Literal["latency"]
    latency: LatencyOptions


class StringAttribute(_Policy):
    """Keeps traces with a span or resource attribute of one of these values."""

    type: Literal["string_attribute"]
    string_attribute: StringAttributeOptions


class NumericAttribute(_Policy):
    """Keeps traces with a span or resource attribute within bounds."""

    type: Literal["numeric_attribute"]
    numeric_attribute: NumericAttributeOptions


class BooleanAttribute(_Policy):
    """Keeps traces with a span or resource attribute that is true or false (or the text of it)."""

    type: Literal["boolean_attribute"]
    boolean_attribute: BooleanAttributeOptions


class Probabilistic(_Policy):
    """Keeps a share of all traces."""

    type: Literal["probabilistic"]
    probabilistic: ProbabilisticOptions


class SpanCount(_Policy):
    """Keeps traces by the number of their distinct spans seen in the decision's window."""

    type: Literal["span_count"]
    span_count: SpanCountOptions


class TraceState(_Policy):
    """Keeps traces with a span whose trace state has a member of one of these values."""

    type: Literal["trace_state"]
    trace_state: TraceStateOptions


class TraceFlags(_Policy):
    """Keeps traces with a span that has W3C's sampled flag."""

    type: Literal["trace_flags"]
    trace_flags: Table | None = None


class Error(_Policy):
    """meshflow's own: keeps traces with a failed span, as RED counts errors (Envoy's ``error`` attribute too;
    a client's 404 is none).
    """

    type: Literal["error"]
    error: Table | None = None


class ResponseFlag(_Policy):
    """meshflow's own: keeps traces with a span that has one of Envoy's response flags."""

    type: Literal["response_flag"]
    response_flag: ResponseFlagOptions


class Budget(_Policy):
    """meshflow's own: keeps so many traces a second of each service, operation and status."""

    type: Literal["budget"]
    budget: BudgetOptions


class AndOptions(Table):
    """Options of ``and``."""

    and_sub_policy: tuple["Policy", ...] = Field(
        min_length=1, description="Policies that all have to keep the trace."
    )


class And(_Policy):
    """Keeps traces that all sub-policies keep."""

    type: Literal["and"]
    options: AndOptions = Field(alias="and")

    model_config = ConfigDict(serialize_by_alias=True)

    def children(self) -> tuple["Policy", ...]:
        """Policies that this one combines."""
        return self.options.and_sub_policy


class NotOptions(Table):
    """Options of ``not``."""

    not_sub_policy: "Policy" = Field(description="The policy to turn round.")


class Not(_Policy):
    """Keeps traces that its sub-policy does not keep."""

    type: Literal["not"]
    options: NotOptions = Field(alias="not")

    model_config = ConfigDict(serialize_by_alias=True)

    def children(self) -> tuple["Policy", ...]:
        """Policies that this one combines."""
        return (self.options.not_sub_policy,)


class DropOptions(Table):
    """Options of ``drop``."""

    drop_sub_policy: tuple["Policy", ...] = Field(
        min_length=1, description="Policies that all have to match for the trace to be dropped."
    )


class Drop(_Policy):
    """Drops traces that all sub-policies match, whatever other policies say."""

    type: Literal["drop"]
    drop: DropOptions

    def children(self) -> tuple["Policy", ...]:
        """Policies that this one combines."""
        return self.drop.drop_sub_policy


_TYPES = (
    AlwaysSample | StatusCode | Latency | StringAttribute | NumericAttribute | BooleanAttribute | Probabilistic | SpanCount | TraceState
    | TraceFlags | And | Not | Drop | Error | ResponseFlag | Budget
)  # fmt: skip
POLICY_TYPES = tuple(get_args(member.model_fields["type"].annotation)[0] for member in get_args(_TYPES))
"""The values of ``type`` that a policy may have."""


def _supported(given: Any) -> Any:
    name = given.get("type") if isinstance(given, dict) else None
    if isinstance(given, dict) and name not in POLICY_TYPES:
        hint = f"; instead of {name}, {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        raise ValueError(f"unknown policy type {name!r}; supported: {', '.join(POLICY_TYPES)}{hint}")
    return given


Policy = Annotated[_TYPES, Field(discriminator="type"), BeforeValidator(_supported)]
"""Any policy, told apart by its ``type``."""

for _model in (AndOptions, NotOptions, DropOptions, And, Not, Drop):
    _model.model_rebuild()


def walk(policy: Policy) -> Iterator[Policy]:
    """A policy and all below it, in the order of the settings."""
    yield policy
    for child in policy.children():
        yield from walk(child)


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

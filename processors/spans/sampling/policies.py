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

from pydantic import BeforeValidator, ConfigDict, Field

from processors.spans.sampling.options import (
    BooleanAttributeOptions,
    BudgetOptions,
    LatencyOptions,
    NumericAttributeOptions,
    ProbabilisticOptions,
    ResponseFlagOptions,
    SpanCountOptions,
    StatusCodeOptions,
    StringAttributeOptions,
    Table,
    TraceStateOptions,
)

_ELSEWHERE = {
    "rate_limiting": 'write type = "budget", budget = {traces_per_second = 10}, which keeps its weights exact',
    "bytes_limiting": 'write type = "budget", budget = {traces_per_second = 10}, which keeps its weights exact',
    "composite": "list its sub-policies as policies, a budget for each",
    "ottl_condition": "write the condition with string_attribute, numeric_attribute, boolean_attribute, and, not",
}


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
"""Any policy; its ``type`` says which."""

for _model in (AndOptions, NotOptions, DropOptions, And, Not, Drop):
    _model.model_rebuild()


def walk(policy: Policy) -> Iterator[Policy]:
    """A policy and all below it, in the order of the settings."""
    yield policy
    for child in policy.children():
        yield from walk(child)

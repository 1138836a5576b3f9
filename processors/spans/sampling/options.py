"""Options of sampling policies, a table for each kind, as ``meshflow.toml`` writes them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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

"""Policies that look at single spans: which spans match, as expressions over a pane's span frame.

Texts are matched once per distinct string (or per resource), and the spans' codes against the matching codes.
"""

from collections.abc import Callable

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.spans.sampling.policies import (
    BooleanAttribute,
    Error,
    NumericAttribute,
    ResponseFlag,
    StatusCode,
    StringAttribute,
    TraceFlags,
    TraceState,
)
from schemas.spans import SpanBatch

SpanPolicy = (
    StatusCode
    | TraceState
    | TraceFlags
    | Error
    | ResponseFlag
    | StringAttribute
    | NumericAttribute
    | BooleanAttribute
)
"""Policies that hold for a trace when they hold for any of its spans (or, inverted, for none)."""

TextMatch = Callable[[pl.Series], pl.Series]

_STATUS = {"UNSET": 0, "OK": 1, "ERROR": 2}  # OTLP Status.StatusCode
_SAMPLED_FLAG = 1  # W3C Trace Context: trace-flags


def inverted(policy: SpanPolicy) -> bool:
    """Whether a match on a span speaks against the trace."""
    match policy:
        case StringAttribute():
            return policy.string_attribute.invert_match
        case NumericAttribute():
            return policy.numeric_attribute.invert_match
        case BooleanAttribute():
            return policy.boolean_attribute.invert_match
        case _:
            return False


def span_matches(policy: SpanPolicy, batch: SpanBatch, spans: pl.DataFrame) -> pl.Expr:
    """Which spans match (Boolean, before any ``invert_match``); ``spans`` has the codes of ``batch``."""
    match policy:
        case Error():
            return pl.col("error")
        case StatusCode():
            return pl.col("status_code").is_in([_STATUS[code] for code in policy.status_code.status_codes])
        case TraceFlags():
            return (pl.col("flags") & _SAMPLED_FLAG) != 0
        case ResponseFlag():
            flags = list(policy.response_flag.flags)
            return _codes_match(
                "response_flags",
                batch,
                spans,
                lambda texts: texts.str.split(",").list.set_intersection(flags).list.len() > 0,
            )
        case TraceState():
            key, values = policy.trace_state.key, list(policy.trace_state.values)
            return _codes_match(
                "trace_state", batch, spans, lambda texts: _trace_state_value(texts, key).is_in(values)
            )
        case StringAttribute():
            return _attribute_matches(policy.string_attribute.key, batch, spans, _string_match(policy))
        case NumericAttribute():
            return _attribute_matches(policy.numeric_attribute.key, batch, spans, _number_match(policy))
        case BooleanAttribute():
            wanted = "true" if policy.boolean_attribute.value else "false"
            return _attribute_matches(
                policy.boolean_attribute.key, batch, spans, lambda texts: texts == wanted
            )


def _string_match(policy: StringAttribute) -> TextMatch:
    options = policy.string_attribute
    if not options.enabled_regex_matching:
        return lambda texts: texts.is_in([value for value in options.values if value])
    pattern = "|".join(f"(?:{value})" for value in options.values) or "$^"
    return lambda texts: texts.str.contains(pattern)


def _number_match(policy: NumericAttribute) -> TextMatch:
    low, high = policy.numeric_attribute.min_value, policy.numeric_attribute.max_value

    def within(numbers: pl.Series) -> pl.Series:
        inside = numbers.is_not_null()
        inside = inside if low is None else inside & (numbers >= low)
        return inside if high is None else inside & (numbers <= high)

    def matches(texts: pl.Series) -> pl.Series:
        whole = within(texts.cast(pl.Int64, strict=False)).fill_null(value=False)
        return whole | within(texts.cast(pl.Float64, strict=False)).fill_null(value=False)

    return matches


def _trace_state_value(texts: pl.Series, key: str) -> pl.Series:
    escaped = "".join(character if character.isalnum() else f"\\x{{{ord(character):x}}}" for character in key)
    return texts.str.extract(rf"(?:^|,)[ \t]*{escaped}=([^,]*?)[ \t]*(?:,|$)")


def _codes_match(column: str, batch: SpanBatch, spans: pl.DataFrame, match: TextMatch) -> pl.Expr:
    codes = spans[column].unique().drop_nulls()
    texts = pl.Series(batch.strings.take(codes.to_arrow()))
    matching = codes.filter(match(texts).fill_null(value=False))
    return (
        pl.col(column).is_in(matching.implode()).fill_null(value=False)
        if len(matching)
        else pl.lit(value=False)
    )


def _attribute_matches(key: str, batch: SpanBatch, spans: pl.DataFrame, match: TextMatch) -> pl.Expr:
    """Of the span or of its resource (the ``attr:KEY`` column has the resource's value only where the span
    has none).
    """
    on_span = _codes_match(f"attr:{key}", batch, spans, match)
    values: pa.StringArray = pc.map_lookup(batch.resources.column("attributes"), pa.scalar(key), "first")
    if values.null_count == len(values):
        return on_span
    matched = match(pl.Series(values)).fill_null(value=False)
    resources = matched.gather(pl.Series(batch.resources.column("base"))).arg_true()
    return on_span | pl.col("resource").is_in(resources.implode()) if len(resources) else on_span

"""Redaction of a pane's batch as soon as it is decoded: rows, labels of RED and edges, and sampling are made
of what may be stored.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from processors.redaction.redaction import DROP, NOTHING, Redaction
from schemas.contexts import Contexts
from schemas.logs import LogBatch
from schemas.points import PointBatch
from schemas.spans import ATTRIBUTE_COLUMN, RESOURCE_CODES, SPAN_CODES, SpanBatch


def redact_spans(batch: SpanBatch, redaction: Redaction) -> SpanBatch:
    """Spans but for their details, which ``redact_details`` does for those that are kept. ``strings`` keep
    their codes; where masks make texts equal, the spans have the code of the first one.
    """
    strings, count = redaction.texts(batch.strings)
    spans, resources = batch.spans, batch.resources
    if count:
        names = [
            name for name in spans.schema.names if name in SPAN_CODES or name.startswith(ATTRIBUTE_COLUMN)
        ]
        first = _first_equal(strings)
        spans, resources = _with_codes(spans, names, first), _with_codes(resources, RESOURCE_CODES, first)
    spans, strings = _attribute_columns(spans, strings, redaction)
    resources, in_resources = _columns(resources, redaction, ("attributes",))
    scopes, in_scopes = _columns(batch.scopes, redaction, ("name", "version"))
    redacted = count + in_resources + in_scopes
    return replace(
        batch,
        spans=spans,
        resources=resources,
        scopes=scopes,
        strings=strings,
        redacted=batch.redacted + redacted,
    )


def redact_details(details: pa.Table, redaction: Redaction) -> tuple[pa.Table, int]:
    """Rows of DETAIL_SCHEMA, and how much of them was redacted."""
    total = 0
    for place, name in enumerate(details.schema.names):
        if name not in (
            "SpanAttributes",
            "Events.Name",
            "Events.Attributes",
            "Links.TraceState",
            "Links.Attributes",
        ):
            continue
        chunks, count = [], 0
        for chunk in details.column(name).chunks:
            apply = redaction.lists if pa.types.is_list(chunk.type) else redaction.maps
            redacted, found = apply(chunk)
            chunks.append(redacted)
            count += found
        if count:
            details = details.set_column(place, details.schema.field(place), pa.chunked_array(chunks))
            total += count
    return details, total


def redact_logs(batch: LogBatch, redaction: Redaction) -> LogBatch:
    """Log records: bodies, attributes, texts, resources and scopes."""
    logs, count = _columns(batch.logs, redaction, ("body",))
    return replace(batch, logs=logs, contexts=_contexts(batch.contexts, redaction, count))


def redact_points(batch: PointBatch, redaction: Redaction) -> PointBatch:
    """Data points: attributes, texts, exemplars, resources and scopes."""
    exemplars, count = _columns(batch.exemplars, redaction, ("attributes",))
    return replace(batch, exemplars=exemplars, contexts=_contexts(batch.contexts, redaction, count))


def _contexts(contexts: Contexts, redaction: Redaction, more: int) -> Contexts:
    strings, in_strings = redaction.texts(contexts.strings)
    resources, in_resources = _columns(contexts.resources, redaction, ("attributes",))
    scopes, in_scopes = _columns(contexts.scopes, redaction, ("name", "version", "schema_url", "attributes"))
    attributes, in_attributes = _columns(contexts.attributes, redaction, ("attributes",))
    redacted = contexts.redacted + more + in_strings + in_resources + in_scopes + in_attributes
    return replace(
        contexts,
        strings=strings,
        resources=resources,
        scopes=scopes,
        attributes=attributes,
        redacted=redacted,
    )


def _columns(
    rows: pa.RecordBatch, redaction: Redaction, names: tuple[str, ...]
) -> tuple[pa.RecordBatch, int]:
    total = 0
    for name in names:
        column = rows.column(name)
        apply: Callable[[pa.Array], tuple[pa.Array, int]] = (
            redaction.maps if pa.types.is_map(column.type) else redaction.texts
        )
        redacted, count = apply(column)
        if count:
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(place), redacted)
            total += count
    return rows, total


def _first_equal(strings: pa.StringArray) -> pa.Array:
    """Code -> the first code of an equal text."""
    _, first, number = np.unique(
        strings.dictionary_encode().indices.to_numpy(), return_index=True, return_inverse=True
    )
    return pa.array(first[number].astype(np.uint32))


def _with_codes(
    rows: pa.RecordBatch, names: "tuple[str, ...] | list[str]", codes: pa.Array
) -> pa.RecordBatch:
    for name in names:
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), codes.take(rows.column(place)))
    return rows


def _attribute_columns(
    spans: pa.RecordBatch, strings: pa.StringArray, redaction: Redaction
) -> tuple[pa.RecordBatch, pa.StringArray]:
    """``attr:KEY`` columns by their keys; new texts are added to ``strings``. They are counted where the
    attributes themselves are.
    """
    for place, name in enumerate(spans.schema.names):
        if not name.startswith(ATTRIBUTE_COLUMN):
            continue
        action = redaction.action(name.removeprefix(ATTRIBUTE_COLUMN))
        if action == NOTHING:
            continue
        codes = spans.column(place)
        if action == DROP:
            stored = pa.nulls(len(codes), codes.type)
        else:
            distinct = codes.dictionary_encode()
            texts = redaction.values(strings.take(distinct.dictionary), action).dictionary_encode()
            added = pa.array(texts.indices.to_numpy().astype(np.uint32) + np.uint32(len(strings)))
            strings = pa.concat_arrays([strings, texts.dictionary])
            stored = added.take(distinct.indices)
        spans = spans.set_column(place, spans.schema.field(place), stored)
    return spans, strings

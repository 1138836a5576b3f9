"""OTLP decode and split on opentelemetry-proto: what ``native/`` must equal, and what works where native code
cannot be built.

About 25 times slower than native. What counts as well-formed is what protobuf's own parser (upb) takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from schemas.histogram import bucket_of
from schemas.ids import is_valid
from schemas.otlp.identity import TAGS, authority_of, host_of, identity
from schemas.otlp.limits import DEFAULT_LIMITS, DETAIL_BYTES, ITEM_BYTES, Cutter, Left, Limits
from schemas.otlp.reference_contexts import Strings, first_text, parse, resource_texts
from schemas.otlp.reference_items import decode_logs, decode_points
from schemas.otlp.reference_mend import mend
from schemas.otlp.reference_split import split
from schemas.otlp.reference_weight import weigh
from schemas.otlp.semantics import (
    CLIENT_OPERATIONS,
    GRPC_SERVER_ERRORS,
    GRPC_STATUSES,
    MAX_BYTES,
    MAX_TIME_NS,
    MIRROR_NAME,
    NO_FLAGS,
    PROTOCOLS,
    RECEIVES,
    SENDS,
    SHADOW_SUFFIX,
    SPAN_KEYS,
    SPAN_PARTS,
)
from schemas.otlp.text import attribute_texts
from schemas.otlp.wire import joined, submessages
from schemas.spans import DETAIL_SCHEMA, RESOURCE_SCHEMA, SCOPE_SCHEMA, SPAN_SCHEMA

__all__ = ["decode_details", "decode_logs", "decode_points", "decode_spans", "mend", "split", "weigh"]


def decode_spans(
    payloads: Sequence[bytes],
    extra_keys: Sequence[str],
    clusters: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch, pa.StringArray, int]:
    """See ``schemas.otlp.decode_spans``."""
    batch = _Batch(extra_keys, limits)
    for record, payload in enumerate(payloads):
        cluster = clusters[record] if clusters else ""
        batch.add(record, payload, parse(TracesData, payload, record), cluster)
    return batch.finish()


def decode_details(
    payloads: Sequence[bytes],
    record: np.ndarray,
    offset: np.ndarray,
    length: np.ndarray,
    limits: Limits = DEFAULT_LIMITS,
) -> pa.RecordBatch:
    """See ``schemas.otlp.decode_details``; all uint32, of equal length."""
    positions = list(zip(record.tolist(), offset.tolist(), length.tolist(), strict=True))
    if any(index >= len(payloads) or begin + size > len(payloads[index]) for index, begin, size in positions):
        raise ValueError("a span's position lies outside of its payload")
    rows = [
        _details(parse(Span, payloads[index][begin : begin + size], index), Cutter(limits))
        for index, begin, size in positions
    ]
    return _record_batch(rows, DETAIL_SCHEMA)


@dataclass(slots=True)
class _Resource:
    number: int
    attributes: dict[str, str]
    texts: dict[str, str]
    cluster: str
    rows: dict[tuple[str, ...], int] = field(default_factory=dict)
    """By tags; the first one has the attributes."""

    @property
    def is_proxy(self) -> bool:
        return self.texts["sdk"] == "envoy"


class _Batch:
    """Collects rows of a SpanBatch."""

    def __init__(self, extra_keys: Sequence[str], limits: Limits) -> None:
        self._extra_keys = extra_keys
        self._cutter = Cutter(limits)
        self._strings = Strings()
        self._resources: dict[tuple[bytes, str, str], _Resource] = {}
        self._resource_rows: list[tuple[Any, ...]] = []
        self._scopes: dict[bytes, int] = {}
        self._scope_rows: list[tuple[str, str]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._details = 0

    def add(self, record: int, payload: bytes, message: TracesData, cluster: str) -> None:
        for resource_field, resource_spans in zip(
            submessages(payload, 0, len(payload), 1), message.resource_spans, strict=True
        ):
            _, _, _, begin, end = resource_field
            resource = self._resource(joined(payload, begin, end, 1), resource_spans.schema_url, cluster)
            for scope_field, scope_spans in zip(
                submessages(payload, begin, end, 2), resource_spans.scope_spans, strict=True
            ):
                _, _, _, begin_scope, end_scope = scope_field
                scope = self._scope(joined(payload, begin_scope, end_scope, 1))
                for span_field, span in zip(
                    submessages(payload, begin_scope, end_scope, 2), scope_spans.spans, strict=True
                ):
                    position = (record, span_field.value, span_field.end - span_field.value)
                    self._rows.append(self._span(span, resource, scope, position))
                    self._details += len(span.events) + len(span.links)
                    self._cutter.check(len(self._rows) * ITEM_BYTES + self._details * DETAIL_BYTES)

    def finish(self) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch, pa.StringArray, int]:
        schema = SPAN_SCHEMA
        for key in self._extra_keys:
            schema = schema.append(pa.field(f"attr:{key}", pa.uint32()))
        return (
            _record_batch(self._rows, schema),
            _record_batch(self._resource_rows, RESOURCE_SCHEMA),
            _record_batch(self._scope_rows, SCOPE_SCHEMA),
            pa.array(self._strings.codes, pa.string()),
            self._cutter.cut,
        )

    def _resource(self, data: bytes, schema_url: str, cluster: str) -> _Resource:
        known = self._resources.get((data, schema_url, cluster))
        if known:
            return known
        attributes = attribute_texts(Resource.FromString(data).attributes)
        resource = _Resource(len(self._resources), attributes, resource_texts(attributes), cluster)
        self._resources[data, schema_url, cluster] = resource
        return resource

    def _row(self, resource: _Resource, tags: dict[str, str]) -> int:
        """The row of a resource with a span's tags."""
        key = tuple(tags.values())
        if key not in resource.rows:
            *texts, gateway = identity(resource.texts, tags, resource.cluster)
            row = len(self._resource_rows)
            base = next(iter(resource.rows.values()), row)
            codes = [self._strings.code(self._cutter.text(text)) for text in texts]
            attributes = self._cutter.attributes(resource.attributes if base == row else {})
            self._resource_rows.append((*codes, gateway, base, list(attributes.items())))
            resource.rows[key] = row
        return resource.rows[key]

    def _scope(self, data: bytes) -> int:
        if data not in self._scopes:
            scope = InstrumentationScope.FromString(data)
            self._scopes[data] = len(self._scopes)
            self._scope_rows.append((self._cutter.text(scope.name), self._cutter.text(scope.version)))
        return self._scopes[data]

    def _span(
        self, span: Span, resource: _Resource, scope: int, position: tuple[int, int, int]
    ) -> tuple[Any, ...]:
        attributes = attribute_texts(span.attributes)
        texts = {name: first_text(attributes, keys) for name, keys in {**SPAN_KEYS, **SPAN_PARTS}.items()}
        row = self._row(resource, {name: texts[name] for name in TAGS})
        if span.kind == Span.SPAN_KIND_CLIENT:
            texts["peer"] = texts["peer"] or host_of(texts["url"]) or texts["peer_address"]
        code, unmarked = self._strings.code, Left()  # decode_details marks and counts what is left out
        name, trace_state, message = (
            self._cutter.own_text(text, unmarked)
            for text in (span.name, span.trace_state, span.status.message)
        )
        is_trace_id = len(span.trace_id) == 16
        start, end = min(span.start_time_unix_nano, MAX_TIME_NS), min(span.end_time_unix_nano, MAX_TIME_NS)
        duration = max(0, end - start)
        http_status = _number(texts["http_status"])
        is_proxy = resource.is_proxy or texts["component"] == "proxy"
        hosts = [authority_of(texts["url"]), *(attributes.get(key, "") for key in SPAN_PARTS["host"])]
        mirrors = is_proxy and span.kind == Span.SPAN_KIND_CLIENT and name == MIRROR_NAME
        failed = span.status.code == 2 and not (span.kind == Span.SPAN_KIND_CLIENT and http_status == 404)
        return (
            int.from_bytes(span.trace_id[:8], "big") if is_trace_id else 0,
            int.from_bytes(span.trace_id[8:], "big") if is_trace_id else 0,
            _id64(span.span_id),
            _id64(span.parent_span_id),
            start,
            end,
            duration,
            bucket_of(duration),
            span.kind if 0 <= span.kind <= 5 else 0,
            span.status.code if 0 <= span.status.code <= 2 else 0,
            span.flags,
            row,
            scope,
            code(name),
            code((is_proxy and texts["route"]) or name),
            code(trace_state),
            code(message),
            code("" if texts["response_flags"] == NO_FLAGS else texts["response_flags"]),
            *(
                code(texts[name])
                for name in (
                    "upstream_cluster",
                    "peer",
                    "db_system",
                    "db_name",
                    "messaging_system",
                    "messaging_destination",
                )
            ),
            http_status,
            _number(texts["retry_count"]),
            _messaging_role(span.kind, texts["messaging_operation"]),
            _protocol(texts),
            _bytes(texts["request_bytes"]),
            _bytes(texts["response_bytes"]),
            texts["error"] == "true" or failed,
            span.status.code not in (1, 2) and _code_error(span.kind, http_status, texts["grpc_status"]),
            is_proxy,
            mirrors or any(map(_is_shadow, hosts)),
            *position,
            *(self._extra(key, attributes, resource) for key in self._extra_keys),
        )

    def _extra(self, key: str, attributes: dict[str, str], resource: _Resource) -> int | None:
        text = attributes.get(key, resource.attributes.get(key))
        return None if text is None else self._strings.code(text)


def _record_batch(rows: list[tuple[Any, ...]] | list[tuple[str, str]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


def _number(text: str) -> int:
    """semantics.NUMBER_RULE."""
    is_number = len(text) <= 5 and text.isascii() and text.isdigit()
    number = int(text) if is_number else 0
    return number if number <= 65535 else 0


def _bytes(text: str) -> int:
    """semantics.BYTES_RULE."""
    is_number = len(text) <= 13 and text.isascii() and text.isdigit()
    number = int(text) if is_number else 0
    return number if number <= MAX_BYTES else 0


def _protocol(texts: dict[str, str]) -> int:
    """semantics.PROTOCOL_RULE."""
    if texts["rpc_system"] == "grpc" or texts["grpc"]:
        return PROTOCOLS.index("grpc")
    return PROTOCOLS.index("http" if texts["http"] or texts["http_status"] or texts["url"] else "")


def _is_shadow(authority: str) -> bool:
    """semantics.MIRROR_RULE: whether a host, with its port or without, ends with the suffix."""
    host, _, port = authority.rpartition(":")
    return (host if port.isascii() and port.isdigit() else authority).endswith(SHADOW_SUFFIX)


def _messaging_role(kind: int, operation: str) -> int:
    """semantics.MESSAGING_RULE."""
    match kind:
        case Span.SPAN_KIND_PRODUCER:
            return 0 if operation == "create" else SENDS
        case Span.SPAN_KIND_CONSUMER:
            return RECEIVES
        case Span.SPAN_KIND_CLIENT:
            return CLIENT_OPERATIONS.get(operation, 0)
        case _:
            return 0


def _code_error(kind: int, http_status: int, grpc_status: str) -> bool:
    """semantics.CODE_RULE, the status being UNSET."""
    grpc = GRPC_STATUSES.index(grpc_status) if grpc_status in GRPC_STATUSES else _number(grpc_status)
    match kind:
        case Span.SPAN_KIND_SERVER:
            return 500 <= http_status < 600 or grpc in GRPC_SERVER_ERRORS
        case Span.SPAN_KIND_CLIENT:
            return (400 <= http_status < 600 and http_status != 404) or 0 < grpc < len(GRPC_STATUSES)
        case _:
            return False


def _id64(data: bytes) -> int:
    return int.from_bytes(data, "big") if len(data) == 8 else 0


def _hex(data: bytes, length: int) -> str:
    return data.hex() if is_valid(data, length) else ""


def _details(span: Span, cutter: Cutter) -> tuple[Any, ...]:
    most = cutter.limits.list_entries
    events, links = span.events[:most], span.links[:most]
    left = Left(events=len(span.events) - len(events), links=len(span.links) - len(links))
    for text in (span.trace_state, span.name, span.status.message):
        cutter.own_text(text, left)
    of_events, of_links = [Left() for _ in events], [Left() for _ in links]
    names = [cutter.own_text(event.name, own) for event, own in zip(events, of_events, strict=True)]
    states = [cutter.own_text(link.trace_state, own) for link, own in zip(links, of_links, strict=True)]
    return (
        _cut(cutter, span, left),
        [min(event.time_unix_nano, MAX_TIME_NS) for event in events],
        names,
        [_cut(cutter, event, own) for event, own in zip(events, of_events, strict=True)],
        [_hex(link.trace_id, 16) for link in links],
        [_hex(link.span_id, 8) for link in links],
        states,
        [_cut(cutter, link, own) for link, own in zip(links, of_links, strict=True)],
    )


def _cut(cutter: Cutter, item: Any, left: Left) -> list[tuple[str, str]]:
    """The attributes of a span, event or link of which ``left`` was left out."""
    return list(cutter.attributes(attribute_texts(item.attributes), left).items())

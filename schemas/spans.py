"""SpanBatch: one pane's spans as columns.

Strings are interned once per batch: a ``code`` is a uint32 index into ``SpanBatch.strings`` and code 0 is the
empty string. Ids are unsigned integers of the big-endian bytes (0: absent), times int64 nanoseconds since
1970. Attributes, events and links stay bytes: (``record``, ``offset``, ``length``) say where the Span message
lies, and ``schemas.otlp.decode_details`` reads them for kept spans only.
"""

from dataclasses import dataclass

import pyarrow as pa

SPAN_SCHEMA = pa.schema(
    [
        pa.field("trace_hi", pa.uint64(), nullable=False),
        pa.field("trace_lo", pa.uint64(), nullable=False),
        pa.field("span_id", pa.uint64(), nullable=False),
        pa.field("parent_id", pa.uint64(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("end_ns", pa.int64(), nullable=False),
        pa.field("duration_ns", pa.int64(), nullable=False),  # max(0, end - start)
        pa.field(
            "bucket", pa.int16(), nullable=False
        ),  # schemas.histogram: exponential bucket of duration_ns, scale 4
        pa.field("kind", pa.uint8(), nullable=False),  # OTLP SpanKind; a number OTLP does not know: 0
        pa.field(
            "status_code", pa.uint8(), nullable=False
        ),  # OTLP Status.StatusCode; a number OTLP does not know: 0
        pa.field("flags", pa.uint32(), nullable=False),
        pa.field("resource", pa.uint32(), nullable=False),  # row of SpanBatch.resources
        pa.field("scope", pa.uint32(), nullable=False),  # row of SpanBatch.scopes
        pa.field("name", pa.uint32(), nullable=False),  # code, as every uint32 below up to status_message
        pa.field(
            "operation", pa.uint32(), nullable=False
        ),  # code: a proxy's route when it has one, else the span's name
        pa.field("trace_state", pa.uint32(), nullable=False),
        pa.field("status_message", pa.uint32(), nullable=False),
        pa.field(
            "response_flags", pa.uint32(), nullable=False
        ),  # code: Envoy's "UO", "URX,UT"; "-" reads as ""
        pa.field("upstream_cluster", pa.uint32(), nullable=False),
        pa.field("peer", pa.uint32(), nullable=False),  # code: see schemas.otlp.semantics.PEER_RULE
        pa.field("db_system", pa.uint32(), nullable=False),
        pa.field("db_name", pa.uint32(), nullable=False),
        pa.field("messaging_system", pa.uint32(), nullable=False),
        pa.field("messaging_destination", pa.uint32(), nullable=False),
        pa.field("http_status", pa.uint16(), nullable=False),  # 0: none (Envoy writes "0" for a reset)
        pa.field(
            "retry_count", pa.uint16(), nullable=False
        ),  # Envoy's retry.count, http.request.resend_count
        pa.field(
            "messaging_role", pa.uint8(), nullable=False
        ),  # 1: sends, 2: receives; see schemas.otlp.semantics.MESSAGING_RULE
        pa.field(
            "protocol", pa.uint8(), nullable=False
        ),  # index of schemas.otlp.semantics.PROTOCOLS; see PROTOCOL_RULE there
        pa.field("request_bytes", pa.uint64(), nullable=False),  # 0: unknown; see BYTES_RULE there
        pa.field("response_bytes", pa.uint64(), nullable=False),
        pa.field("error", pa.bool_(), nullable=False),  # see schemas.otlp.semantics.ERROR_RULE
        pa.field("code_error", pa.bool_(), nullable=False),  # see schemas.otlp.semantics.CODE_RULE
        pa.field(
            "proxy", pa.bool_(), nullable=False
        ),  # made by a sidecar or gateway: component=proxy or telemetry.sdk.name=envoy
        pa.field("mirrored", pa.bool_(), nullable=False),  # see schemas.otlp.semantics.MIRROR_RULE
        pa.field("record", pa.uint32(), nullable=False),  # index into the records given to decode_spans
        pa.field(
            "offset", pa.uint32(), nullable=False
        ),  # first byte of the Span message's body within that record
        pa.field("length", pa.uint32(), nullable=False),
    ]
)
"""One row per span, in the order of the records' bytes. Columns asked for by ``extra_keys`` follow as
``attr:KEY`` (uint32 code, nullable: null where neither the span nor, failing that, its resource has the
attribute; the value as text, see ``schemas.otlp``)."""

ATTRIBUTE_COLUMN = "attr:"
"""How names of the columns that ``extra_keys`` ask for begin."""

SPAN_CODES = (
    "name",
    "operation",
    "trace_state",
    "status_message",
    "response_flags",
    "upstream_cluster",
    "peer",
    "db_system",
    "db_name",
    "messaging_system",
    "messaging_destination",
)
"""The columns of SPAN_SCHEMA that are codes."""

ATTRIBUTES = pa.map_(pa.string(), pa.string())

RESOURCE_SCHEMA = pa.schema(
    [
        pa.field("service", pa.uint32(), nullable=False),  # codes
        pa.field("namespace", pa.uint32(), nullable=False),
        pa.field("cluster", pa.uint32(), nullable=False),
        pa.field("version", pa.uint32(), nullable=False),
        pa.field("instance", pa.uint32(), nullable=False),
        pa.field(
            "pod", pa.uint32(), nullable=False
        ),  # k8s.pod.name, else host.name, else of Istio's node id: where a sidecar and its app meet
        pa.field("address", pa.uint32(), nullable=False),  # the pod's IP
        pa.field("gateway", pa.uint8(), nullable=False),  # 1: an Istio gateway
        pa.field("base", pa.uint32(), nullable=False),  # the row that has the resource's attributes
        pa.field("attributes", ATTRIBUTES, nullable=False),  # empty where base is another row
    ]
)
"""One row per distinct resource of the batch (distinct by the bytes of its Resource message and schema URL,
and the cluster of its payload) and distinct tags of its spans that say who made them: see
``schemas.otlp.semantics.IDENTITY_RULE``. Resources without spans have none.
"""

RESOURCE_CODES = ("service", "namespace", "cluster", "version", "instance", "pod", "address")
"""The columns of RESOURCE_SCHEMA that are codes."""

SCOPE_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
"""One row per distinct scope of the batch (distinct by the bytes of its InstrumentationScope message)."""

_EVENT_TIME = pa.timestamp("ns", tz="UTC")

DETAIL_SCHEMA = pa.schema(
    [
        pa.field("SpanAttributes", ATTRIBUTES, nullable=False),
        pa.field("Events.Timestamp", pa.list_(_EVENT_TIME), nullable=False),
        pa.field("Events.Name", pa.list_(pa.string()), nullable=False),
        pa.field("Events.Attributes", pa.list_(ATTRIBUTES), nullable=False),
        pa.field("Links.TraceId", pa.list_(pa.string()), nullable=False),
        pa.field("Links.SpanId", pa.list_(pa.string()), nullable=False),
        pa.field("Links.TraceState", pa.list_(pa.string()), nullable=False),
        pa.field("Links.Attributes", pa.list_(ATTRIBUTES), nullable=False),
    ]
)
"""What ``decode_details`` reads of a kept span: the columns of ``otel_traces`` of these names."""


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """Spans of one pane of one partition."""

    spans: pa.RecordBatch
    """SPAN_SCHEMA, then the ``attr:KEY`` columns."""
    resources: pa.RecordBatch
    """RESOURCE_SCHEMA."""
    scopes: pa.RecordBatch
    """SCOPE_SCHEMA."""
    strings: pa.StringArray
    """code -> text; ``strings[0]`` is ""."""
    cut: int = 0
    """How many resources' attribute sets, and texts of resources and scopes, are not whole."""
    redacted: int = 0
    """How many attributes of resources, and texts, were redacted."""

    def __len__(self) -> int:
        return int(self.spans.num_rows)

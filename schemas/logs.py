"""LogBatch: one pane's log records as columns, no object for each."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.contexts import CODE, ROW, Contexts, batch_schema

LOG_SCHEMA = batch_schema(
    record=ROW,  # index into the records given to decode_logs
    resource=ROW,  # of Contexts.resources
    scope=ROW,  # of Contexts.scopes
    attributes=ROW,  # of Contexts.attributes
    time_ns=pa.int64(),  # when it happened, else when it was observed, else 0; later than int64 reaches: clamped
    trace_hi=pa.uint64(),  # 0: none
    trace_lo=pa.uint64(),
    span_id=pa.uint64(),
    flags=pa.uint8(),  # W3C trace flags: the low byte of what was sent
    severity=pa.uint8(),  # the low byte of OTLP's SeverityNumber
    severity_text=CODE,
    event_name=CODE,
    body=pa.string(),
    # hash of the ResourceLogs message that the record stands in, as it was sent, and of the cluster of its
    # resource, with the record's place in it added; equal messages of one payload are told apart by their
    # count: equal where a request is repeated
    identity_hi=pa.uint64(),
    identity_lo=pa.uint64(),
)
"""One row per log record, in the order of the records' bytes."""


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Log records of one pane of one partition."""

    logs: pa.RecordBatch
    """LOG_SCHEMA."""
    contexts: Contexts

    def __len__(self) -> int:
        return int(self.logs.num_rows)

"""Answers to Export requests: ``Export*ServiceResponse`` (opentelemetry-proto, ``collector/*/v1``), as
protobuf or JSON.
"""

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from schemas import topics

FULL_SUCCESS = b""
"""The response without ``partial_success``: an empty message, for every topic."""

FULL_SUCCESS_JSON = b"{}"


def partial_success(topic: str, rejected: int, reason: str) -> Message:
    """The response that tells how many spans, data points or log records were rejected, and why.

    OTLP specification, "Partial Success": the sender must not repeat the request.
    """
    match topic:
        case topics.SPANS:
            traces = ExportTraceServiceResponse()
            traces.partial_success.rejected_spans = rejected
            traces.partial_success.error_message = reason
            return traces
        case topics.METRICS:
            metrics = ExportMetricsServiceResponse()
            metrics.partial_success.rejected_data_points = rejected
            metrics.partial_success.error_message = reason
            return metrics
        case topics.LOGS:
            logs = ExportLogsServiceResponse()
            logs.partial_success.rejected_log_records = rejected
            logs.partial_success.error_message = reason
            return logs
        case _:
            raise ValueError(f"{topic} is no topic of OTLP requests")


def to_json(message: Message) -> bytes:
    """A response or ``google.rpc.Status`` in proto3 JSON, as OTLP/JSON has it (lowerCamelCase names)."""
    return MessageToJson(message, indent=None).encode()

"""What payloads take as rows, on opentelemetry-proto: the slow twin of native ``weigh``."""

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import topics
from schemas.otlp.limits import DETAIL_BYTES, ITEM_BYTES, NUMBER_BYTES, Weight
from schemas.otlp.reference_contexts import parse
from schemas.otlp.reference_items import numbers_of


def weigh(topic: str, payload: bytes) -> Weight:
    """See ``schemas.otlp.weigh``."""
    items = details = numbers = 0
    if topic == topics.SPANS:
        for of_resource in parse(TracesData, payload, None).resource_spans:
            for of_scope in of_resource.scope_spans:
                items += len(of_scope.spans)
                details += sum(len(span.events) + len(span.links) for span in of_scope.spans)
    elif topic == topics.LOGS:
        for of_resource in parse(LogsData, payload, None).resource_logs:
            items += sum(len(of_scope.log_records) for of_scope in of_resource.scope_logs)
    else:
        for of_resource in parse(MetricsData, payload, None).resource_metrics:
            for metric in (each for of_scope in of_resource.scope_metrics for each in of_scope.metrics):
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points if kind else ():
                    items += 1
                    details += len(getattr(point, "exemplars", ()))
                    numbers += numbers_of(point)
    return Weight(items, items * ITEM_BYTES + details * DETAIL_BYTES + numbers * NUMBER_BYTES)

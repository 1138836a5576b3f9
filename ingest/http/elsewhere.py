"""What senders get who speak something else, or to another path: which paths there are, and what to do."""

PATHS_TEXT = "POST /v1/traces, /v1/metrics or /v1/logs (OTLP as protobuf or JSON), GET /health"

_COLLECTOR = (
    "an OpenTelemetry Collector with the receiver {receiver} and the exporter otlp_http makes OTLP of it"
)

_CLIENTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("/api/v2/spans", "/api/v1/spans"), "Zipkin's spans", "zipkin"),
    (("/api/traces",), "Jaeger's spans", "jaeger"),
    (("/loki/api/v1/push", "/api/prom/push"), "Loki's log lines", "loki"),
    (("/api/v1/write", "/api/v1/push"), "Prometheus remote write", "prometheusremotewrite"),
    (("/api/v2/write", "/write"), "InfluxDB's line protocol", "influxdb"),
    (("/services/collector",), "Splunk's events", "splunk_hec"),
)
_PROFILES = "/v1development/profiles"
_GRPC = "/opentelemetry.proto.collector."


def not_found(path: str) -> str:
    """The text of a 404."""
    for begins, what, receiver in _CLIENTS:
        if path.rstrip("/").startswith(begins):
            return f"{what} are not taken here, OTLP is: {_COLLECTOR.format(receiver=receiver)}; {PATHS_TEXT}"
    if path.startswith(_GRPC):
        return f"OTLP/gRPC is taken on another port (ingest.grpc_port, 4317 by default); here: {PATHS_TEXT}"
    if path.startswith(_PROFILES):
        return f"profiles are not taken; here: {PATHS_TEXT}"
    return f"there is nothing at this path; here: {PATHS_TEXT}"

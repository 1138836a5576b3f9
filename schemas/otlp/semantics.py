"""Which attributes are promoted to columns: the one table that native and reference decoders read.

Sources: Envoy's tracing docs and OTLP tracer, Istio's telemetry (``istio.*``), OpenTelemetry's semantic
conventions 1.20 (old) to 1.37 (new) for HTTP, RPC, databases and messaging. Of a field's keys the first one
with a text other than "" counts, in the order written here.
"""

from collections.abc import Mapping
from types import MappingProxyType

SPAN_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "response_flags": ("response_flags",),
        "upstream_cluster": (
            "upstream_cluster.name",
            "upstream_cluster",
        ),  # alt_stat_name first: it has no generated parts
        "peer": ("peer.service", "server.address", "net.peer.name", "peer.address"),
        "db_system": ("db.system.name", "db.system"),
        "db_name": ("db.namespace", "db.name"),
        "messaging_system": ("messaging.system",),
        "messaging_destination": ("messaging.destination.name", "messaging.destination"),
        "http_status": ("http.response.status_code", "http.status_code"),
        "retry_count": ("retry.count", "http.request.resend_count", "http.resend_count"),
        "error": ("error",),
        "component": ("component",),
        "route": ("envoy.route", "route_name", "http.route"),
    }
)
"""Attributes of a span. ``component`` and ``route`` are not columns: see PROXY_RULE and OPERATION_RULE."""

RESOURCE_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "service": ("service.name", "istio.canonical_service"),
        "namespace": ("service.namespace", "k8s.namespace.name", "istio.namespace"),
        "cluster": ("k8s.cluster.name", "istio.cluster_id", "k8s.cluster.uid"),
        "version": ("service.version", "istio.canonical_revision"),
        "instance": ("service.instance.id", "k8s.pod.name", "host.name"),
        "pod": ("k8s.pod.name", "host.name"),
        "sdk": ("telemetry.sdk.name",),
    }
)
"""Attributes of a resource. ``sdk`` is not a column: see PROXY_RULE."""

UNKNOWN_SERVICE = "unknown_service"
"""The service of a resource that names none (as OpenTelemetry's resource conventions say)."""

REQUEST_ID_KEY = "guid:x-request-id"
"""Where Envoy writes the request id; looked up in stored attributes, not promoted."""

ERROR_RULE = "attribute error is 'true', or status ERROR unless the span is a CLIENT's with HTTP status 404"
"""Envoy sets ``error`` on timeouts and resets, whose status is UNSET; a CLIENT's 404 has status ERROR without
``error``.
"""

PROXY_RULE = "span attribute component=proxy, or resource attribute telemetry.sdk.name=envoy"
"""What makes a span one of a sidecar or gateway."""

OPERATION_RULE = "a proxy's route when it has one, else the span's name"
"""Proxies name their spans ``ingress`` and ``egress HOST``, which says little of what was called."""

NUMBER_RULE = "1 to 5 digits, at most 65535; anything else is 0"
"""How ``http_status`` and ``retry_count`` are read from an attribute's text (Envoy writes them as
strings).
"""

NO_FLAGS = "-"
"""What Envoy writes for no response flags; reads as ""."""

MAX_TIME_NS = 2**63 - 1
"""OTLP times are uint64; later ones (after 2262) are clamped to this."""

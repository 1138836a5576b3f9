"""Envoy bootstraps of a small mesh: tracing, access logs and metrics over OTLP as a mesh's control plane
would configure them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
_ZIPKIN = "zipkin"
_RESOURCE_DETECTOR = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig"


@dataclass(frozen=True)
class Upstream:
    """An Envoy cluster: where calls go. No ``ports``: a service without a healthy host (flag UH)."""

    name: str
    ports: tuple[int, ...]
    http2: bool = False
    max_requests: int = 1024
    """Circuit breaker: requests under way (HTTP/2), or connections and as many waiting requests (HTTP/1)."""


@dataclass(frozen=True)
class Route:
    """A prefix of the path, and the clusters (with weights) that serve it."""

    name: str
    prefix: str
    clusters: tuple[tuple[str, int], ...]
    timeout: str = "5s"
    retries: int = 0
    per_try_timeout: str = "0s"
    mirror: str = ""
    """A cluster that gets each request too."""


@dataclass(frozen=True)
class Listener:
    """A port of a proxy; ``direction`` INBOUND or OUTBOUND decides how Envoy names and kinds its spans."""

    port: int
    direction: str
    routes: tuple[Route, ...]
    spawn_upstream_span: bool = False


@dataclass(frozen=True)
class Proxy:
    """One Envoy: a sidecar or a gateway."""

    instance: str
    service: str
    version: str
    admin_port: int
    listeners: tuple[Listener, ...]
    upstreams: tuple[Upstream, ...] = field(default=())


@dataclass(frozen=True)
class Secure:
    """How Envoys export to a receiver that asks for a certificate and a token: files in PEM."""

    ca: Path
    certificate: Path
    key: Path
    token: str


def bootstrap(
    proxy: Proxy, otlp_port: int, secure: Secure | None = None, zipkin_port: int | None = None
) -> dict[str, Any]:
    """The whole configuration of one Envoy, exporting to ``127.0.0.1:otlp_port`` (OTLP gRPC), in plain text
    unless ``secure``; where there is a ``zipkin_port``, its spans go there, by Envoy's Zipkin tracer.
    """
    service = _collector(secure)
    tracers = {name: {"flush_interval_ms": 500} for name in ("opentelemetry", "zipkin")}
    return {
        "node": {"id": proxy.instance, "cluster": proxy.service, "locality": {"region": "r1", "zone": "z1"}},
        "admin": {"address": _address(proxy.admin_port)},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {"tracing": tracers}}]},
        "stats_flush_interval": "1s",
        "stats_sinks": [_stats_sink(proxy, service)],
        "static_resources": {
            "listeners": [
                _listener(
                    proxy, listener, service, _zipkin() if zipkin_port else _opentelemetry(proxy, service)
                )
                for listener in proxy.listeners
            ],
            "clusters": [
                *map(_cluster, proxy.upstreams),
                _receiver(otlp_port, secure),
                *([_cluster(Upstream(_ZIPKIN, (zipkin_port,)))] if zipkin_port else []),
            ],
        },
    }


def _receiver(otlp_port: int, secure: Secure | None) -> dict[str, Any]:
    """The cluster that everything is exported to."""
    cluster = _cluster(Upstream("otel_collector", (otlp_port,), http2=True))
    if secure:
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": str(secure.certificate)},
                            "private_key": {"filename": str(secure.key)},
                        }
                    ],
                    "validation_context": {"trusted_ca": {"filename": str(secure.ca)}},
                },
            },
        }
    return cluster


def _listener(
    proxy: Proxy, listener: Listener, service: dict[str, Any], tracer: dict[str, Any]
) -> dict[str, Any]:
    name = listener.direction.lower()
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "tracing": _tracing(proxy, listener, tracer),
        "access_log": [_access_log(proxy, name, service)],
        "generate_request_id": True,
        "route_config": {
            "name": f"{name}_routes",
            "virtual_hosts": [
                {
                    "name": f"{name}_vh",
                    "domains": ["*"],
                    "routes": [_route(route) for route in listener.routes],
                }
            ],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    return {
        "name": name,
        "address": _address(listener.port),
        "traffic_direction": listener.direction,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _tracing(proxy: Proxy, listener: Listener, tracer: dict[str, Any]) -> dict[str, Any]:
    all_of_them = {"value": 100}
    return {
        "random_sampling": all_of_them,
        "overall_sampling": all_of_them,
        "client_sampling": all_of_them,
        "spawn_upstream_span": listener.spawn_upstream_span,
        "custom_tags": [
            {"tag": "mesh.version", "literal": {"value": proxy.version}},
            {"tag": "envoy.route", "value": "%ROUTE_NAME%"},
            {"tag": "response.details", "value": "%RESPONSE_CODE_DETAILS%"},
        ],
        "provider": tracer,
    }


def _opentelemetry(proxy: Proxy, service: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": service,
            "service_name": proxy.service,
            "resource_detectors": [_resource(proxy)],
        },
    }


def _zipkin() -> dict[str, Any]:
    """Names the service by the node's cluster; a client and its server share a span id (the default)."""
    return {
        "name": "envoy.tracers.zipkin",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
            "collector_cluster": _ZIPKIN,
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": "HTTP_JSON",
            "trace_id_128bit": True,
        },
    }


def _access_log(proxy: Proxy, name: str, service: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "envoy.access_loggers.open_telemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            "grpc_service": service,
            "log_name": name,
            "buffer_flush_interval": "0.5s",
            "resource_attributes": {
                "values": [{"key": "service.name", "value": {"string_value": proxy.service}}]
            },
            "body": {"string_value": "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%"},
            "attributes": {
                "values": [{"key": "response_flags", "value": {"string_value": "%RESPONSE_FLAGS%"}}]
            },
        },
    }


def _stats_sink(proxy: Proxy, service: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "envoy.stat_sinks.open_telemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig",
            "grpc_service": service,
            "emit_tags_as_attributes": True,
            "use_tag_extracted_name": True,
            "resource_detectors": [_resource(proxy)],
        },
    }


def _resource(proxy: Proxy) -> dict[str, Any]:
    attributes = {
        "service.name": proxy.service,
        "service.namespace": "shop",
        "service.version": proxy.version,
        "service.instance.id": proxy.instance,
    }
    return {
        "name": "envoy.tracers.opentelemetry.resource_detectors.static_config",
        "typed_config": {"@type": _RESOURCE_DETECTOR, "attributes": attributes},
    }


def _route(route: Route) -> dict[str, Any]:
    action: dict[str, Any] = {
        "timeout": route.timeout,
        "weighted_clusters": {
            "clusters": [{"name": name, "weight": weight} for name, weight in route.clusters]
        },
    }
    if route.retries:
        action["retry_policy"] = {
            "retry_on": "5xx,reset,connect-failure",
            "num_retries": route.retries,
            "per_try_timeout": route.per_try_timeout,
            "retry_back_off": {"base_interval": "0.02s", "max_interval": "0.1s"},
        }
    if route.mirror:
        action["request_mirror_policies"] = [{"cluster": route.mirror}]
    return {"name": route.name, "match": {"prefix": route.prefix}, "route": action}


def _cluster(upstream: Upstream) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _address(port)}} for port in upstream.ports]
    cluster: dict[str, Any] = {
        "name": upstream.name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": upstream.name, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": upstream.max_requests,
                    "max_pending_requests": 2,
                    "max_requests": upstream.max_requests,
                }
            ]
        },
    }
    if upstream.max_requests == 1024:
        del cluster["circuit_breakers"]
    if upstream.http2:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return cluster


def _collector(secure: Secure | None) -> dict[str, Any]:
    """The ``grpc_service`` of tracer, access log and stat sink."""
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "otel_collector"}, "timeout": "5s"}
    if secure:
        service["initial_metadata"] = [{"key": "authorization", "value": f"Bearer {secure.token}"}]
    return service


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}

"""Which attributes are promoted to columns: the one table that native and reference decoders read.

Sources: Envoy's tracing docs and OTLP tracer, Istio's telemetry (``istio.*``), OpenTelemetry's semantic
conventions 1.20 (old) to 1.45 (new) for HTTP, RPC, databases and messaging, OpenTracing's ``db.type`` and
``db.instance``. Of a field's keys the first one
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
        "peer": (
            "peer.service",
            "server.address",
            "net.peer.name",
            "net.sock.peer.name",
            "peer.address",
        ),
        "db_system": ("db.system.name", "db.system", "db.type"),
        "db_name": ("db.namespace", "db.name", "db.instance"),
        "messaging_system": ("messaging.system",),
        "messaging_destination": ("messaging.destination.name", "messaging.destination"),
        "http_status": ("http.response.status_code", "http.status_code"),
        "retry_count": ("retry.count", "http.request.resend_count", "http.resend_count"),
        "error": ("error",),
        "component": ("component",),
        "route": ("envoy.route", "route_name", "http.route"),
        "messaging_operation": (
            "messaging.operation.type",
            "messaging.operation",
            "messaging.operation.name",
        ),
        "grpc_status": ("rpc.response.status_code", "rpc.grpc.status_code", "grpc.status_code"),
    }
)
"""Attributes of a span. The last four are not columns: see PROXY_RULE, OPERATION_RULE, MESSAGING_RULE and
CODE_RULE.
"""

SPAN_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "url": ("url.full", "http.url"),
        "peer_address": ("network.peer.address", "net.sock.peer.addr", "net.peer.ip"),
        "istio_service": ("istio.canonical_service",),
        "istio_version": ("istio.canonical_revision",),
        "istio_namespace": ("istio.namespace",),
        "istio_cluster": ("istio.cluster_id",),
        "istio_mesh": ("istio.mesh_id",),
        "node_id": ("node_id",),
        "host": ("http.host", "server.address", "net.host.name", "grpc.authority"),
        "rpc_system": ("rpc.system.name", "rpc.system"),
        "grpc": (
            "rpc.grpc.status_code",
            "grpc.status_code",
            "grpc.path",
            "grpc.authority",
            "grpc.content_type",
        ),
        "http": ("http.request.method", "http.method", "http.protocol", "http.flavor"),
        "request_bytes": (
            "request_size",
            "http.request.body.size",
            "http.request_content_length",
            "http.request.size",
        ),
        "response_bytes": (
            "response_size",
            "http.response.body.size",
            "http.response_content_length",
            "http.response.size",
        ),
    }
)
"""Attributes of a span that columns are made of, together with others: see PEER_RULE, IDENTITY_RULE,
PROTOCOL_RULE, BYTES_RULE and MIRROR_RULE.
"""

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

PROXY_KEYS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "address": ("k8s.pod.ip",),
        "mesh": ("istio.mesh_id",),
        "node": ("node_name",),
        "proxy_service": ("cluster_name",),
    }
)
"""Further attributes of a resource; the last two are Envoy's, of its access logs: see IDENTITY_RULE."""

IDENTITY_RULE = """\
Of service, namespace, cluster, version, instance, pod and address each by the first that names it:
1. the resource (RESOURCE_KEYS, PROXY_KEYS);
2. the span's own tags (istio_... of SPAN_PARTS);
3. the proxy's node id (the span's node_id, else the resource's node_name), where it is Istio's:
   TYPE~ADDRESS~POD.NAMESPACE~DOMAIN, TYPE sidecar, router, waypoint or ztunnel;
4. for an instance the pod; for a cluster the record's label, then the mesh.
A service name that begins with unknown_service is none, nor is istio-proxy where istio_service is there. Of spans with
a tag istio_..., and where the node id is Istio's, a service NAME.NAMESPACE is NAME in NAMESPACE, unless another
namespace is known. Where nothing names a service: the resource's cluster_name where it has a node_name, then the pod
without what Kubernetes appended to its workload's name.
A gateway is a router, or Istio's service istio-ingressgateway.
"""
"""Who made a span, or a log record. Istio's resource has a service name only, and one for all clusters."""

PEER_RULE = "peer, else of a CLIENT's span the host of its url, else its peer_address"
"""Whom a span names as its peer."""

UNKNOWN_SERVICE = "unknown_service"
"""The service of a resource that names none (as OpenTelemetry's resource conventions say)."""

REQUEST_ID_KEY = "guid:x-request-id"
"""Where Envoy writes the request id; looked up in stored attributes, not promoted."""

ERROR_RULE = "attribute error is 'true', or status ERROR unless the span is a CLIENT's with HTTP status 404"
"""Envoy sets ``error`` on timeouts and resets, whose status is UNSET; a CLIENT's 404 has status ERROR without
``error``.
"""

CODE_RULE = (
    "status UNSET, and: a SERVER or CLIENT with HTTP 5xx, a CLIENT with HTTP 4xx but 404, a CLIENT with a gRPC "
    "status other than OK, a SERVER with UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE or "
    "DATA_LOSS"
)
"""What ``code_error`` says: what the semantic conventions ask a status ERROR for (http/http-spans.md,
rpc/grpc.md); a CLIENT's 404 is left out as in ERROR_RULE. A status OK is the application's word, and
stays.
"""

GRPC_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""gRPC's status codes by number; an attribute has the name or the number."""

GRPC_SERVER_ERRORS = frozenset({2, 4, 12, 13, 14, 15})
"""Those that are the server's fault."""

SENDS, RECEIVES = 1, 2
MESSAGING_RULE = (
    "a PRODUCER sends unless it only creates, a CONSUMER receives; a CLIENT does what its operation says"
)
"""``messaging_role``: SENDS, RECEIVES or 0. Conventions since 1.27 make ``send`` and ``receive`` CLIENT
spans; a ``create`` span goes before that of its ``send``.
"""

CLIENT_OPERATIONS: Mapping[str, int] = MappingProxyType(
    {"send": SENDS, "publish": SENDS, "receive": RECEIVES, "poll": RECEIVES}
)
"""What a CLIENT's operation says."""

PROTOCOLS = ("", "http", "grpc")
"""``protocol`` is an index of these."""

PROTOCOL_RULE = "grpc where rpc_system is 'grpc' or a key of grpc has a text; else http where http, http_status or url has one"
"""Envoy writes ``grpc.path``, ``grpc.authority`` and ``grpc.content_type`` where the request is gRPC, and
``grpc.status_code`` where the response is; on the span of each attempt ``http.protocol`` alone
(``spawn_upstream_span``).
"""

BYTES_RULE = "1 to 13 digits, at most MAX_BYTES; anything else is 0: unknown"
"""How ``request_bytes`` and ``response_bytes`` are read from an attribute's text."""

MAX_BYTES = 2**40
"""More is no size of a request: sums of 2**23 of them stay below 2**63."""

MIRROR_RULE = (
    "the authority of its url, or any of its hosts, ends with -shadow before the port; or a proxy's CLIENT span is "
    "named mirror"
)
"""``mirrored``. Envoy appends ``-shadow`` to the Host of a mirrored request, before a port of digits
(``shadow_writer_impl.cc``), unless ``disable_shadow_host_suffix_append`` is set; the span that the mirroring
proxy makes of it has no host, and is named ``mirror`` (``router.cc``). A service whose own name ends like
that is taken for a mirror too.
"""

SHADOW_SUFFIX, MIRROR_NAME = "-shadow", "mirror"

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

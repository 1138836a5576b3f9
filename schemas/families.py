"""Families of metrics: which names mean which column of which table.

A family has one name here, and other spellings in what senders write:

- Envoy's OTLP stat sink with tags extracted (its default): ``cluster.upstream_rq_total``, the cluster in
  ``envoy.cluster_name``. Dots in a cluster's name break that: what is after the first one stands in the
  metric's name (``cluster.default.svc.cluster.local.upstream_rq_total``), and is put back.
- The same without (``use_tag_extracted_name: false``): ``cluster.NAME.upstream_rq_2xx``. Either may begin
  with the sink's prefix, ``envoy.``.
- Envoy's Prometheus page: ``envoy_cluster_upstream_rq_total{envoy_cluster_name}``.
- Istio's metrics, by Envoy's filter for Istio (``istiocustom.`` before the name over OTLP), ztunnel or a
  waypoint.

Names from Envoy 1.40.0's own export, Istio's dashboards and sources, cAdvisor and kube-state-metrics.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple


class Takes(Enum):
    """What of a point goes into the column."""

    INCREMENT = "increment"
    """What a counter gained."""
    SUM = "sum"
    """What the sum of a histogram gained."""
    BUCKETS = "buckets"
    """What the buckets of a histogram gained."""
    LAST = "last"
    """A gauge's last value."""
    MAX = "max"
    """A gauge's largest value."""


class Family(NamedTuple):
    """One metric."""

    name: str
    """Of Envoy's metrics the tag-extracted one."""
    table: str
    column: str
    takes: Takes


_COUNTERS: Mapping[str, Mapping[str, str]] = {
    "traffic": {
        "cluster.upstream_rq": "requests",  # by response code
        "http.downstream_rq_xx": "requests",  # by class of response code
        "cluster.upstream_cx_total": "tcp_opened",
        "cluster.upstream_cx_destroy": "tcp_closed",
        "cluster.upstream_cx_tx_bytes_total": "tcp_sent_bytes",
        "cluster.upstream_cx_rx_bytes_total": "tcp_received_bytes",
        "http.downstream_cx_total": "tcp_opened",
        "http.downstream_cx_ssl_total": "tls_opened",
        "http.downstream_cx_destroy": "tcp_closed",
        "http.downstream_cx_tx_bytes_total": "tcp_sent_bytes",
        "http.downstream_cx_rx_bytes_total": "tcp_received_bytes",
        "istio_requests_total": "requests",
        "istio_tcp_connections_opened_total": "tcp_opened",
        "istio_tcp_connections_closed_total": "tcp_closed",
        "istio_tcp_sent_bytes_total": "tcp_sent_bytes",
        "istio_tcp_received_bytes_total": "tcp_received_bytes",
    },
    "upstreams": {
        "cluster.upstream_rq_total": "attempts",  # retries too; none that overflowed
        "cluster.upstream_rq_retry": "retries",
        "cluster.upstream_rq_retry_success": "retry_success",
        "cluster.upstream_rq_retry_overflow": "retry_overflow",
        "cluster.upstream_rq_retry_limit_exceeded": "retry_limit_exceeded",
        "cluster.upstream_rq_timeout": "timeouts",
        "cluster.upstream_rq_per_try_timeout": "per_try_timeouts",
        "cluster.upstream_rq_pending_overflow": "pending_overflow",  # of HTTP/1
        "cluster.upstream_rq_active_overflow": "request_overflow",  # of HTTP/2
        "cluster.upstream_cx_overflow": "connection_overflow",
        "cluster.upstream_cx_connect_fail": "connect_failures",
        "cluster.upstream_rq_rx_reset": "resets_received",
        "cluster.upstream_rq_tx_reset": "resets_sent",
        "cluster.outlier_detection.ejections_enforced_total": "ejections",
        "cluster.health_check.failure": "health_check_failures",
        "cluster.lb_healthy_panic": "panic",
        "cluster.ssl.handshake": "tls_handshakes",
        "cluster.ssl.session_reused": "tls_sessions_reused",
        "cluster.ssl.connection_error": "tls_errors",
        "cluster.ssl.fail_verify_no_cert": "tls_errors",
        "cluster.ssl.fail_verify_error": "tls_errors",
        "cluster.ssl.fail_verify_san": "tls_errors",
        "cluster.ssl.fail_verify_cert_hash": "tls_errors",
    },
    "proxies": {
        "http.downstream_rq_total": "downstream_requests",
        "http.tracing.random_sampling": "random_sampling",
        "tracing.opentelemetry.spans_sent": "spans_sent",
        "tracing.opentelemetry.spans_dropped": "spans_dropped",
        "cluster_manager.cds.update_rejected": "updates_rejected",
        "listener_manager.lds.update_rejected": "updates_rejected",
        "http.rds.update_rejected": "updates_rejected",
        "cluster.update_rejected": "updates_rejected",
        "container_cpu_usage_seconds_total": "cpu_s",
        "kube_pod_container_status_restarts_total": "restarts",
    },
}
_LAST: Mapping[str, Mapping[str, str]] = {
    "upstreams": {
        "cluster.membership_healthy": "healthy_hosts",
        "cluster.membership_total": "hosts",
        "cluster.outlier_detection.ejections_active": "ejections_active",
        "cluster.circuit_breakers.default.remaining_cx": "remaining_connections",
        "cluster.circuit_breakers.default.remaining_rq": "remaining_requests",
        "cluster.circuit_breakers.default.remaining_pending": "remaining_pending",
        "cluster.circuit_breakers.default.remaining_retries": "remaining_retries",
    },
    "proxies": {
        "server.live": "live",
        "server.uptime": "uptime_s",
        "server.version": "version_number",
        "server.memory_allocated": "memory_allocated_bytes",
        "server.memory_heap_size": "memory_heap_bytes",
        "server.memory_physical_size": "memory_physical_bytes",
        "container_memory_working_set_bytes": "memory_working_set_bytes",
        "server.total_connections": "connections",
        "control_plane.connected_state": "xds_connected",
        "cluster_manager.cds.version": "cds_version",
        "listener_manager.lds.version": "lds_version",
    },
    "certificates": {
        "cluster.ssl.certificate.expiration_unix_time_seconds": "not_after_s",
        "listener.ssl.certificate.expiration_unix_time_seconds": "not_after_s",
        "citadel_server_root_cert_expiry_timestamp": "not_after_s",
        "citadel_server_cert_chain_expiry_timestamp": "not_after_s",
        "citadel_server_root_cert_expiry_seconds": "left_s",
        "citadel_server_cert_chain_expiry_seconds": "left_s",
        "cert_expiry_seconds": "left_s",  # the agent's
        "server.days_until_first_cert_expiring": "left_days",
    },
}
_MAX: Mapping[str, Mapping[str, str]] = {
    "upstreams": {
        "cluster.upstream_cx_active": "active_connections",
        "cluster.upstream_rq_active": "active_requests",
        "cluster.upstream_rq_pending_active": "pending_requests",
    },
}
_BUCKETS: Mapping[str, Mapping[str, str]] = {
    "traffic": {
        "cluster.upstream_rq_time": "duration",  # ms
        "http.downstream_rq_time": "duration",  # ms
        "istio_request_duration_milliseconds": "duration",
    },
    "upstreams": {"cluster.upstream_cx_connect_ms": "connect_time"},
}
_SUMS: Mapping[str, Mapping[str, str]] = {
    "traffic": {"istio_request_bytes": "request_bytes", "istio_response_bytes": "response_bytes"},
}

_CONTROL_PLANE: Mapping[Takes, str] = {
    Takes.BUCKETS: """
        pilot_proxy_convergence_time pilot_proxy_queue_time pilot_debounce_time pilot_pushcontext_init_seconds
        pilot_xds_push_time pilot_xds_send_time pilot_xds_config_size_bytes pilot_worker_queue_latency
        pilot_worker_queue_duration sidecar_injection_time_seconds
    """,
    Takes.LAST: """
        pilot_xds pilot_xds_cds_reject pilot_xds_eds_reject pilot_xds_lds_reject pilot_xds_rds_reject
        pilot_conflict_inbound_listener pilot_conflict_outbound_listener_tcp_over_current_tcp
        pilot_duplicate_envoy_clusters pilot_vservice_dup_domain pilot_destrule_subsets
        pilot_dns_cluster_without_endpoints pilot_eds_no_instances pilot_no_ip endpoint_no_pod
        pilot_endpoint_not_ready pilot_k8s_endpoints_pending_pod pilot_k8s_endpoints_with_no_pods
        pilot_k8s_proxies_with_no_service_targets pilot_envoy_filter_status pilot_services pilot_virt_services
        pilot_worker_queue_depth pilot_xds_recv_max xds_cache_size xds_cache_dependent_config_size
        istiod_managed_clusters istiod_remote_cluster_sync_status istio_cni_install_ready istiod_uptime_seconds
        pilot_info istio_build workload_manager_active_proxy_count workload_manager_pending_proxy_count
        istio_tcp_sockets_open
    """,
    Takes.INCREMENT: """
        pilot_xds_pushes pilot_push_triggers pilot_inbound_updates pilot_k8s_reg_events pilot_k8s_cfg_events
        pilot_total_xds_rejects pilot_total_xds_internal_errors pilot_xds_expired_nonce pilot_xds_write_timeout
        pilot_total_rejected_configs controller_sync_errors_total xds_cache_reads xds_cache_evictions
        provider_lookup_cluster_failures citadel_server_csr_count
        citadel_server_authentication_failure_count citadel_server_csr_parsing_err_count
        citadel_server_id_extraction_err_count citadel_server_csr_sign_err_count
        citadel_server_success_cert_issuance_count pilot_sds_certificate_errors_total
        pilot_jwks_resolver_network_fetch_success_total pilot_jwks_resolver_network_fetch_fail_total
        galley_validation_passed galley_validation_failed galley_validation_http_error
        galley_validation_config_load_error galley_validation_config_update_error galley_validation_config_updates
        sidecar_injection_requests_total sidecar_injection_success_total sidecar_injection_failure_total
        sidecar_injection_skip_total webhook_patch_attempts_total webhook_patch_retries_total
        webhook_patch_failures_total remote_cluster_sync_timeouts_total remote_cluster_secret_events_total
        istio_cni_installs_total istio_cni_plugin_requests_total istiod_connection_failures
        istiod_connection_terminations xds_proxy_requests xds_proxy_responses istio_dns_requests_total
        istio_xds_connection_terminations_total istio_xds_message_total
    """,
}
"""Of istiod, agents, the CNI plugin, ztunnel; a name is a value of the table's ``metric``."""
_CONTROL_COLUMNS = {Takes.BUCKETS: "histogram", Takes.LAST: "value", Takes.INCREMENT: "increment"}


def _families() -> Iterator[Family]:
    groups = {
        Takes.INCREMENT: _COUNTERS,
        Takes.LAST: _LAST,
        Takes.MAX: _MAX,
        Takes.BUCKETS: _BUCKETS,
        Takes.SUM: _SUMS,
    }
    for takes, tables in groups.items():
        for table, columns in tables.items():
            yield from (Family(name, table, column, takes) for name, column in columns.items())
    for takes, names in _CONTROL_PLANE.items():
        yield from (Family(name, "control_plane", _CONTROL_COLUMNS[takes], takes) for name in names.split())


FAMILIES: tuple[Family, ...] = tuple(_families())
"""A family's number is its place; new ones go anywhere, as numbers are not stored."""

LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "upstream": ("envoy.cluster_name", "envoy_cluster_name"),
        "manager": ("envoy.http_conn_manager_prefix", "envoy_http_conn_manager_prefix"),
        "listener": ("envoy.listener_address", "envoy_listener_address"),
        "certificate": ("envoy.tls_certificate", "envoy_tls_certificate"),
        "code": ("envoy.response_code", "envoy_response_code", "response_code"),
        "code_class": ("envoy.response_code_class", "envoy_response_code_class"),
        "flags": ("response_flags",),
        "reporter": ("reporter",),
        "protocol": ("request_protocol",),
        "grpc_status": ("grpc_response_status",),
        "security": ("connection_security_policy",),
        **{
            f"{side}_{field}": tuple(f"{side}_{label}" for label in labels)
            for side in ("source", "destination")
            for field, labels in {
                "service": ("canonical_service", "app", "workload"),
                "namespace": ("workload_namespace",),
                "cluster": ("cluster",),
                "version": ("canonical_revision", "version"),
                "principal": ("principal",),
            }.items()
        },
        "destination_host": ("destination_service",),
        "destination_name": ("destination_service_name",),
        "destination_name_namespace": ("destination_service_namespace",),
        "own_service": (
            "service_istio_io_canonical_name",
            "istio_canonical_service",
            "service.name",
            "service_name",
            "app",
        ),
        "own_namespace": ("k8s.namespace.name", "service.namespace", "service_namespace", "namespace"),
        "own_cluster": ("k8s.cluster.name", "k8s_cluster_name"),
        "own_version": ("service_istio_io_canonical_revision", "service.version", "service_version"),
        "own_pod": ("k8s.pod.name", "pod", "kubernetes_pod_name", "pod_name"),
        "container": ("container",),
    }
)
"""Label -> the attributes of a point that say it; the first that is there counts."""

REPORTERS: Mapping[str, str] = MappingProxyType(
    {"source": "client", "destination": "server", "waypoint": "client"}
)
"""Istio's ``reporter`` -> ``side``. A waypoint reports what no client's sidecar does (Istio's Mesh dashboard
adds the two).
"""

PROXY_CONTAINERS = frozenset({"istio-proxy"})
"""Containers of cAdvisor's and kube-state-metrics' numbers that are proxies."""

OWN_UPSTREAMS = frozenset({"xds-grpc", "sds-grpc", "xds_cluster", "prometheus_stats", "agent"})
"""Istio's names of clusters that lead to its own agent and control plane, not to a service of the mesh."""

OWN_MANAGERS = frozenset({"admin"})
"""Managers of HTTP connections whose traffic is not the mesh's."""

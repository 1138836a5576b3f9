"""A capture shaped as Istio's documentation prints its spans: Bookinfo in two clusters of equal names.

``python -m tests.support.istio`` writes ``tests/data/istio/traces.bin.gz``. Istio's resource has a service
name only; who made a span stands in its tags. In each cluster the gateway calls productpage, which has an
SDK behind its sidecar and calls reviews v1 (503 in cluster-b), a service outside, and ratings, which answers
nobody.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

FILE = Path(__file__).parents[1] / "data" / "istio" / "traces.bin.gz"
CLUSTERS = ("cluster-a", "cluster-b")
TRACES = 10
"""Of each cluster."""

_START_NS = 1_800_000_000 * 1_000_000_000
_MS = 1_000_000
_PORT = 9080


def requests() -> Iterator[bytes]:
    """An Export request for each trace."""
    for number in range(TRACES):
        for cluster in CLUSTERS:
            trace = _Trace(cluster, number)
            root = trace.proxy(
                "istio-ingressgateway",
                "istio-system",
                Span.SPAN_KIND_CLIENT,
                0,
                _to("productpage"),
                node="router",
            )
            page = trace.proxy("productpage", "bookinfo", Span.SPAN_KIND_SERVER, root, f"inbound|{_PORT}||")
            served = trace.app("productpage", Span.SPAN_KIND_SERVER, page)
            asks = trace.app("productpage", Span.SPAN_KIND_CLIENT, served)
            code = "503" if cluster == "cluster-b" else "200"
            call = trace.proxy(
                "productpage", "bookinfo", Span.SPAN_KIND_CLIENT, asks, _to("reviews", "v1"), code
            )
            trace.proxy("reviews", "bookinfo", Span.SPAN_KIND_SERVER, call, f"inbound|{_PORT}||", code)
            trace.proxy(
                "productpage", "bookinfo", Span.SPAN_KIND_CLIENT, served, "outbound|443||api.stripe.com"
            )
            trace.proxy("productpage", "bookinfo", Span.SPAN_KIND_CLIENT, served, "PassthroughCluster")
            trace.proxy(
                "productpage",
                "bookinfo",
                Span.SPAN_KIND_CLIENT,
                served,
                _to("ratings", "v2"),
                "503",
                "UF,URX",
            )
            yield trace.request.SerializeToString()


def _to(service: str, subset: str = "") -> str:
    return f"outbound|{_PORT}|{subset}|{service}.bookinfo.svc.cluster.local"


class _Trace:
    def __init__(self, cluster: str, number: int) -> None:
        self.request = ExportTraceServiceRequest()
        self._cluster = cluster
        self._id = (CLUSTERS.index(cluster) * 1000 + number + 1).to_bytes(16, "big")
        self._start_ns = _START_NS + number * 100 * _MS
        self._spans = 0

    def proxy(
        self, service: str, namespace: str, kind: int, parent: int, upstream: str,
        code: str = "200", flags: str = "-", *, node: str = "sidecar",
    ) -> int:  # fmt: skip
        """Add a span of a sidecar or gateway; its id."""
        tags = {
            "node_id": f"{node}~10.0.{CLUSTERS.index(self._cluster)}.7~{service}-v1-abc.{namespace}~{namespace}.svc.cluster.local",
            "component": "proxy",
            "upstream_cluster": upstream,
            "upstream_cluster.name": upstream,
            "http.status_code": code,
            "response_flags": flags,
            "istio.canonical_service": service,
            "istio.canonical_revision": "v1",
            "istio.mesh_id": "cluster.local",
            "istio.namespace": namespace,
            "istio.cluster_id": self._cluster,
            **({"error": "true"} if code == "503" else {}),
        }
        return self._add(
            {"service.name": f"{service}.{namespace}", "telemetry.sdk.name": "envoy"}, kind, parent, tags
        )

    def app(self, service: str, kind: int, parent: int) -> int:
        """Add a span of an application's SDK; its id."""
        resource = {
            "service.name": service,
            "k8s.pod.name": f"{service}-v1-abc",
            "k8s.namespace.name": "bookinfo",
        }
        return self._add(resource, kind, parent, {"server.address": "reviews", "http.request.method": "GET"})

    def _add(self, resource: dict[str, str], kind: int, parent: int, tags: dict[str, str]) -> int:
        self._spans += 1
        of_resource = self.request.resource_spans.add()
        of_resource.resource.attributes.extend(_attributes(resource))
        of_resource.scope_spans.add().spans.append(
            Span(
                trace_id=self._id,
                span_id=self._spans.to_bytes(8, "big"),
                parent_span_id=parent.to_bytes(8, "big") if parent else b"",
                name="request",
                kind=kind,  # type: ignore[arg-type]  # an enum's number
                start_time_unix_nano=self._start_ns + self._spans * _MS,
                end_time_unix_nano=self._start_ns + (40 - self._spans) * _MS,
                attributes=_attributes(tags),
            )
        )
        return self._spans


def _attributes(texts: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in texts.items()]


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(FILE, "wb", compresslevel=9, mtime=0) as file:
        for request in requests():
            file.write(len(request).to_bytes(4, "big") + request)

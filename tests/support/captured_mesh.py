"""What the captured mesh (``tests/data/envoy``) did, by its Envoys' own counters."""

from collections import Counter
from functools import cache
from typing import Any, NamedTuple

from meshflow.tools.capture import read_captures
from tests.support.up import ROOT

FOLDER = ROOT / "tests/data/envoy"
TRACES, METRICS = FOLDER / "traces.bin.gz", FOLDER / "metrics.bin.gz"
SPANS = 2195
_SERVER = {
    "order_service": "order-service",
    "product_v1": "product-service",
    "product_v2": "product-service",
}
"""What an Envoy cluster stands for."""
_OUTBOUND = ("outbound", "admin")
"""Connection managers that no request enters a service through."""
SHOWN_UNSENT = {
    ("front-proxy", "order-service"): 210,
    ("order-service", "product-service"): 6,
    ("front-proxy", "unknown"): 10,
}
"""Of requests refused at the caller those that have a span: Envoy counts 213 and 6 overflows, three of them
retries within a span; 10 requests had no route.
"""


class Truth(NamedTuple):
    """Counts of the whole capture."""

    requests: dict[str, int]
    """Service -> requests that entered it (``downstream_rq_total``)."""
    calls: dict[tuple[str, str], int]
    """(client, server) -> attempts that a connection took (``upstream_rq_total``), those from outside as the
    front proxy's requests."""


@cache
def truth() -> Truth:
    """Read from the last points of the captured counters."""
    last: Counter[tuple[str, str, str]] = Counter()
    services: dict[str, str] = {}
    for captured in read_captures([METRICS]):
        for resource in captured.message.resource_metrics:
            own = _texts(resource.resource.attributes)
            services[own["service.instance.id"]] = own["service.name"]
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.sum.data_points:
                    key = (own["service.instance.id"], metric.name, _part(point))
                    last[key] = max(last[key], point.as_int)
    requests: Counter[str] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for (instance, name, part), count in last.items():
        if name == "http.downstream_rq_total" and part not in _OUTBOUND:
            requests[services[instance]] += count
        if name == "cluster.upstream_rq_total" and part in _SERVER:
            calls[services[instance], _SERVER[part]] += count
    calls["outside", "front-proxy"] = requests["front-proxy"]
    return Truth(dict(requests), dict(calls))


def _part(point: Any) -> str:
    texts = _texts(point.attributes)
    return texts.get("envoy.http_conn_manager_prefix") or texts.get("envoy.cluster_name", "")


def _texts(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}

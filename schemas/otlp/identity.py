"""Who made a span or a log record, as ``semantics.IDENTITY_RULE`` says: what ``native/src/otlp/identity.rs``
must equal.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from schemas.otlp.semantics import UNKNOWN_SERVICE

TAGS = ("istio_service", "istio_version", "istio_namespace", "istio_cluster", "istio_mesh", "node_id")
"""The fields of SPAN_PARTS that say who made a span."""

NO_TAGS = dict.fromkeys(TAGS, "")

_NODE = re.compile(r"(sidecar|router|waypoint|ztunnel)~([^~]*)~([^~]*)~[^~]*", re.DOTALL)
_GENERATED = "[bcdfghjklmnpqrstvwxz2456789]"
_WORKLOAD = re.compile(rf"(.+?)(?:-{_GENERATED}{{8,10}})?-{_GENERATED}{{5}}", re.DOTALL)
_GATEWAY = "istio-ingressgateway"
_NAMELESS_PROXY = "istio-proxy"
_UNNAMED = "unknown_service"


class Identity(NamedTuple):
    """What a row of ``schemas.spans.RESOURCE_SCHEMA`` begins with, as texts."""

    service: str
    namespace: str
    cluster: str
    version: str
    instance: str
    pod: str
    address: str
    gateway: int


class _Node(NamedTuple):
    """Of an Istio proxy's node id."""

    gateway: bool = False
    address: str = ""
    pod: str = ""
    namespace: str = ""


def identity(resource: Mapping[str, str], tags: Mapping[str, str], cluster: str) -> Identity:
    """``resource``: the text of each field of RESOURCE_KEYS and PROXY_KEYS, "" for none; ``tags``: of each of
    TAGS; ``cluster``: the label of their record.
    """
    node = _node(tags["node_id"] or resource["node"])
    is_istio = node is not None or any(tags[name] for name in TAGS[:-1])
    known = node or _Node()
    namespace = resource["namespace"] or tags["istio_namespace"] or known.namespace
    canonical = tags["istio_service"]

    def short(name: str) -> tuple[str, str]:
        first, _, own = name.rpartition(".")
        if is_istio and first and own and namespace in ("", own):
            return first, own
        return name, namespace

    service = "" if resource["service"].startswith(_UNNAMED) else resource["service"]
    service, namespace = short(service)
    service = (canonical or service) if service == _NAMELESS_PROXY else (service or canonical)
    if not service and resource["node"]:
        service, namespace = short(resource["proxy_service"])
    service = service or _workload(known.pod) or resource["service"] or UNKNOWN_SERVICE
    pod = resource["pod"] or known.pod
    return Identity(
        service,
        namespace,
        resource["cluster"] or tags["istio_cluster"] or cluster or resource["mesh"] or tags["istio_mesh"],
        resource["version"] or tags["istio_version"],
        resource["instance"] or pod,
        pod,
        resource["address"] or known.address,
        int(known.gateway or (is_istio and service == _GATEWAY)),
    )


def authority_of(url: str) -> str:
    """Host and port of a URL, "" where it has none."""
    _, scheme, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0] if scheme else ""
    return authority.rpartition("@")[2]


def host_of(url: str) -> str:
    """PEER_RULE: the host of a URL, "" where it has none."""
    host = authority_of(url)
    if host.startswith("["):
        address, end, _ = host[1:].partition("]")
        return address if end else ""
    return host.partition(":")[0]


def _node(node_id: str) -> _Node | None:
    found = _NODE.fullmatch(node_id)
    if not found:
        return None
    pod, _, namespace = found[3].rpartition(".")
    return _Node(found[1] == "router", found[2], pod, namespace) if pod and namespace else None


def _workload(pod: str) -> str:
    """A pod's name without what Kubernetes appended to its workload's."""
    found = _WORKLOAD.fullmatch(pod)
    return found[1] if found else pod

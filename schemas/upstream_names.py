"""What Envoy's names of upstream clusters say.

Istio names a cluster ``outbound|PORT|SUBSET|HOST`` (``outbound_.PORT_.SUBSET_.HOST`` where it is a server
name too; newer ones end with ``;``), and a Kubernetes service's host is ``NAME.NAMESPACE.svc.DOMAIN``.
"""

import re
from typing import NamedTuple

PIPED = r"^outbound\|\d*\|([^|]*)\|([^|;]+);?$"
"""Subset, host."""
DOTTED = r"^outbound_\.\d*_\.(.*?)_\.([^;]+);?$"
"""Subset, host."""
SERVICE_HOST = r"^([^.]+)\.([^.]+)\.svc(?:\..*)?$"
"""Service, namespace."""
NOBODYS = ("PassthroughCluster", "BlackHoleCluster")
"""Istio's clusters of destinations that no service is known of."""


class Upstream(NamedTuple):
    """Whom a cluster leads to; "" is not said."""

    server: str
    """A Kubernetes service's name, else the host, else the cluster's name."""
    namespace: str
    subset: str


def read_upstream(name: str) -> Upstream:
    """One name; processors.spans.edges.targets reads a column of them by the same patterns."""
    istio = re.match(PIPED, name) or re.match(DOTTED, name)
    subset, host = istio.groups() if istio else ("", name)
    service = re.match(SERVICE_HOST, host)
    return Upstream(service[1], service[2], subset) if service else Upstream(host, "", subset)

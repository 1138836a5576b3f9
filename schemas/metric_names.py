"""Names of metrics -> families, whatever their spelling (schemas.families says which there are)."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from schemas.families import FAMILIES


class Reading(NamedTuple):
    """What a metric's name says by itself."""

    family: int
    """Place in FAMILIES; OTHER: none; COPY: what another family has already."""
    label: str = ""
    """The label that ``middle`` is of."""
    middle: str = ""
    """What stands between root and metric: the rest of the label's text, after a dot, or all of it where
    the point has no such attribute.
    """
    code: str = ""
    """A response code (``200``) or class of codes (``2xx``)."""
    certificate: str = ""


OTHER, COPY = -1, -2

_MOST_TEXT = 1_000  # longer names are of no family: no name takes long
_ROOTS = {"cluster": "upstream", "http": "manager", "listener": "listener"}
_NUMBERS = {family.name: number for number, family in enumerate(FAMILIES)}
_PROMETHEUS = {
    "envoy_" + name.replace(".", "_"): number for name, number in _NUMBERS.items() if "." in name
}  # Envoy's names have a dot each
_MOST_PARTS = 8
"""Dots and underscores of a metric's own name are fewer, in either spelling."""
_CODE = re.compile(r"stream_rq_(?:(\d{3})|([1-5]xx))$")
_CERTIFICATE, _EXPIRATION = "ssl.certificate.", ".expiration_unix_time_seconds"
_COPIED = frozenset({"upstream_rq", "upstream_rq_xx", "upstream_rq_completed", "upstream_rq_time"})
"""What a cluster counts once more by where a request came from, as a retry, for canaries and by zone."""
_COPY_OF = re.compile(r"(?:^|\.)(?:(?:internal|external|retry|canary)$|zone\.)")


def read_names(names: Sequence[str]) -> list[Reading]:
    """Each name of a batch, read beside the others: ``cluster.corp.internal.upstream_rq_time`` is a copy
    unless a cluster's name ends with ``corp.internal``, as other metrics of its say.
    """
    split = [_split(name) if len(name) <= _MOST_TEXT else (Reading(OTHER), "") for name in names]
    ends = {each.middle for each, stat in split if each.label == "upstream" and stat not in _COPIED}
    return [
        Reading(COPY)
        if stat in _COPIED and _COPY_OF.search(each.middle) and each.middle not in ends
        else each
        for each, stat in split
    ]


def _split(name: str) -> tuple[Reading, str]:
    """A name by itself, and its metric without root and middle."""
    name = name.removeprefix("istiocustom.")
    if name in _NUMBERS:
        return Reading(_NUMBERS[name]), ""
    if name.startswith("envoy_"):
        return _prometheus(name)
    root, _, rest = name.removeprefix("envoy.").partition(".")
    label = _ROOTS.get(root, "")
    if not label:
        return Reading(_NUMBERS.get(f"{root}.{rest}", OTHER)), ""
    rest, code = _without_code(rest)
    rest, certificate = _without_certificate(rest)
    parts = rest.split(".")
    for at in range(max(0, len(parts) - _MOST_PARTS), len(parts)):
        stat = ".".join(parts[at:])
        number = _NUMBERS.get(f"{root}.{stat}", OTHER)
        if number != OTHER or (stat in _COPIED and root == "cluster"):
            return Reading(number, label, ".".join(parts[:at]), code, certificate), stat
    return Reading(OTHER, label, ".".join(parts[:-1])), parts[-1]


def _without_code(rest: str) -> tuple[str, str]:
    """``X_rq_200`` and ``X_rq_2xx`` as their tag-extracted names have them: ``X_rq``, ``X_rq_xx``."""
    found = _CODE.search(rest)
    if not found:
        return rest, ""
    code, code_class = found.groups()
    return rest[: -len(code or code_class) - 1] + ("_xx" if code_class else ""), code or code_class


def _without_certificate(rest: str) -> tuple[str, str]:
    head, found, name = rest.removesuffix(_EXPIRATION).partition(_CERTIFICATE)
    if not found or not rest.endswith(_EXPIRATION):
        return rest, ""
    return head + _CERTIFICATE[:-1] + _EXPIRATION, name


def _prometheus(name: str) -> tuple[Reading, str]:
    if name in _PROMETHEUS:
        return Reading(_PROMETHEUS[name]), ""
    rest = name.removeprefix("envoy_cluster_")
    if rest == name:
        return Reading(OTHER), ""
    parts = rest.split("_")
    for at in range(max(1, len(parts) - _MOST_PARTS), len(parts)):
        stat = "_".join(parts[at:])
        number = _PROMETHEUS.get("envoy_cluster_" + stat, OTHER)
        if number != OTHER or stat in _COPIED:
            return Reading(number, "upstream", _dotted("_".join(parts[:at]))), stat
    return Reading(OTHER), ""


def _dotted(middle: str) -> str:
    """Dots and dashes are underscores in Prometheus' names. A Kubernetes namespace has no dots."""
    namespace, found, domain = middle.partition("_svc")
    if not found or (domain and domain[0] != "_"):
        return middle.replace("_", ".")
    return namespace.replace("_", "-") + ".svc" + domain.replace("_", ".")

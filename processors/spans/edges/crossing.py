"""Whether a child and its parent are two ends of a call: the rules of ``processors.spans.edges.edges``, over
arrays.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.grouping import U64, Flags
from processors.lookup import Places, rows_of
from processors.spans.edges.calls import CLIENT, SERVER
from schemas.otlp.semantics import RECEIVES, SENDS

U8 = npt.NDArray[np.uint8]

NODE_COLUMNS = ("node", "service", "name", "identity", "instance", "pod", "cluster", "namespace")


class Nodes(NamedTuple):
    """Nodes of ``Calls.nodes``, each once: hashes."""

    node: U64
    service: U64
    name: U64
    identity: U64
    instance: U64
    pod: U64
    cluster: U64
    namespace: U64

    @classmethod
    def of(cls, nodes: pl.DataFrame) -> "Nodes":
        """NODE_COLUMNS of a frame."""
        return cls(*(nodes[name].to_numpy() for name in NODE_COLUMNS))


class Ends(NamedTuple):
    """One end of each pair."""

    node: Places
    """Row of Nodes."""
    kind: U8
    role: U8
    queue: Flags
    proxy: Flags

    @classmethod
    def of(cls, frame: pl.DataFrame, nodes: Nodes, prefix: str = "") -> "Ends":
        """The ends that are in these columns."""
        node, *others = (frame[prefix + name].to_numpy() for name in cls._fields)
        return cls(rows_of(nodes.node, node), *others)

    def take(self, rows: npt.NDArray[np.integer]) -> "Ends":
        """Some of the ends."""
        return Ends(*(column[rows] for column in self))


def by_queue(children: Ends, parents: Ends) -> Flags:
    """Which pairs are who sends and who receives, with the queue between them."""
    queued: Flags = (parents.role == SENDS) & (children.role == RECEIVES) & children.queue
    return queued


def are_edges(children: Ends, parents: Ends, nodes: Nodes) -> Flags:
    """Which pairs are two ends of a call."""
    called = (parents.kind == CLIENT) & (children.kind == SERVER)
    found: Flags = ((children.node != parents.node) | called) & ~by_queue(children, parents)
    rows = np.flatnonzero(found)
    found[rows] = _cross(children.take(rows), parents.take(rows), nodes)
    return found


def _cross(children: Ends, parents: Ends, nodes: Nodes) -> Flags:
    one_proxy = children.proxy != parents.proxy
    same_service = nodes.service[children.node] == nodes.service[parents.node]
    pod, p_pod = nodes.pod[children.node], nodes.pod[parents.node]
    pods_known = (pod != 0) & (p_pod != 0)
    same_pod, other_pod = pods_known & (pod == p_pod), pods_known & (pod != p_pod)
    kin = one_proxy & ~same_service & ~other_pod
    at = np.flatnonzero(kin)
    kin[at] = _agree(nodes, children.node[at], parents.node[at])
    instance, p_instance = nodes.instance[children.node], nodes.instance[parents.node]
    other_instance = (instance != 0) & (p_instance != 0) & (instance != p_instance)
    itself = (instance == 0) & (p_instance == 0) & (parents.kind == CLIENT) & (children.kind == SERVER)
    within = np.where(one_proxy, other_pod, other_instance | itself)
    crosses: Flags = np.where(same_service, within, ~kin) & ~(one_proxy & same_pod)
    return crosses


def _agree(nodes: Nodes, node: Places, parent: Places) -> Flags:
    """Which are of one service, as far as both say: a sidecar and an app whose SDK says less of it."""
    agree: Flags = nodes.name[node] == nodes.name[parent]
    for part in (nodes.cluster, nodes.namespace):
        own, other = part[node], part[parent]
        agree &= (own == other) | (own == 0) | (other == 0)
    return agree

"""Where calls would have led that nothing came below of: by what other calls reached the same way, else by
the name on it.

A way is a client's service and a ``via``: Envoy's cluster, or the peer that a CLIENT's span names.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from processors.grouping import I64, U64, Flags, Groups, hash_rows, hash_texts
from processors.lookup import NOWHERE, Index, rows_of
from processors.spans.edges.calls import CLIENT, PEER_BIT, SERVER, Window
from processors.spans.edges.links import EXTERNAL
from processors.spans.edges.pairs import find_links, prefixed
from processors.spans.edges.targets import read_peers, read_upstreams
from processors.spans.edges.virtual import named_nodes, way_texts

_SERVICE_TEXTS = ("service_text", "namespace_text", "cluster_text")
_WAY = ["service", "via"]
_ASKED = 32
"""Callers of a node by a way that are asked whom they reached: traffic is told by few, and is the same for
all.
"""
_CHILD = ("key", "parent_key", "node", "kind", "role", "proxy", "queue")
_PARENT = ["key", "node", "via", "kind", "role", "queue", "proxy"]
_CALLER = (*_PARENT, "failed", "refused")
_NOBODY = 0
"""In place of a service."""


@dataclass(frozen=True)
class _Ways:
    """The ways of some callers, each once."""

    service: U64
    via: U64
    node: U64
    """Of a caller."""
    urgent: Flags
    """Some call failed, or was refused."""
    of_caller: I64

    @classmethod
    def of(cls, callers: pl.DataFrame) -> "_Ways":
        """Read the callers' ``service``, ``via``, ``node``, ``failed``, ``refused``."""
        service, via = callers["service"].to_numpy(), callers["via"].to_numpy()
        groups = Groups.by(hash_rows([service, via]))
        urgent = groups.sum((callers["failed"] | callers["refused"]).to_numpy()) > 0
        of_caller = np.empty(len(callers), np.int64)
        of_caller[groups.order] = groups.member
        first = groups.first
        return cls(service[first], via[first], callers["node"].to_numpy()[first], urgent, of_caller)

    def find(self, service: pl.Series, via: pl.Series) -> I64:
        """The ways that are these; NOWHERE: none is."""
        index = Index(hash_rows([self.service, self.via]))
        return index.find(hash_rows([service.to_numpy(), via.to_numpy()])).astype(np.int64)


def find_ways(callers: pl.DataFrame, near: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Where each of ``callers`` leads, row by row, and the nodes (``identity``, texts) that they lead to.
    ``near``: links within the pane.

    ``server``: an identity; ``reached``: other calls that way have reached it, or a peer's name is that of a
    service; ``meshed``: it is named as a service of the mesh; ``nameless``: only an Envoy cluster's own name
    is known, or none.
    """
    ways = _Ways.of(callers)
    targets = _targets(ways, window)
    service = _reached(ways, targets["nameless"].to_numpy(), near, window)
    _add_known_peers(service, ways, targets, window)
    reached = pl.Series(service != _NOBODY)
    of_node = pl.Series(rows_of(window.nodes["service"].to_numpy(), service)).replace(NOWHERE, None)
    placed = targets.select(
        *(window.nodes[name].gather(of_node).zip_with(reached, targets[name]) for name in _SERVICE_TEXTS),
        "version_text",
    )
    virtual = named_nodes(targets["service_text"], EXTERNAL)
    is_virtual = ~(reached | targets["meshed"])
    server = virtual["identity"].zip_with(is_virtual, _identities(placed, service))
    nodes = pl.DataFrame([server.alias("identity")]).hstack(
        [virtual[name].zip_with(is_virtual, placed[name]) for name in virtual.columns[1:]]
    )
    found = targets.select(server.alias("server"), reached.alias("reached"), "meshed", "nameless")
    return found[ways.of_caller], nodes


def _identities(placed: pl.DataFrame, service: U64) -> pl.Series:
    """As nodes that send spans have them."""
    hashes = {name: hash_texts(placed[name]) for name in placed.columns}
    named = hash_rows([hashes["cluster_text"], hashes["namespace_text"], hashes["service_text"]])
    return pl.Series(hash_rows([np.where(service != _NOBODY, service, named), hashes["version_text"]]))


def _targets(ways: _Ways, window: Window) -> pl.DataFrame:
    """What is written on each way: ``service_text``, ``namespace_text``, ``version_text``, ``meshed``,
    ``nameless``; and the client's ``cluster_text``, ``own_namespace``.
    """
    texts = way_texts(pl.Series(window.texts(pl.Series(ways.via))))
    peer = pl.Series((ways.via & PEER_BIT) != 0)
    order = np.concatenate([np.flatnonzero(~peer), np.flatnonzero(peer)])
    read = [read(texts.filter(of)) for of, read in ((~peer, read_upstreams), (peer, read_peers)) if of.any()]
    targets = pl.concat(read)[np.argsort(order)]
    nodes = window.calls.nodes
    client = nodes.select("cluster_text", own_namespace="namespace_text")
    return targets.hstack(client[rows_of(nodes["node"].to_numpy(), ways.node)])


def lead_out(callers: pl.DataFrame, near: pl.DataFrame) -> pl.Series:
    """Keys of callers that lead to another service, as other calls of the pane (``near``) show: SERVER spans
    of proxies where those of the same service and way are direct callers (a gateway's; a sidecar's lead to
    its own application), and attempts where others by the same way reached a service.
    """
    direct = (near["p_kind"] == SERVER) & near["p_proxy"]
    found = [callers["key"].clear()]
    for kind, evidence in ((SERVER, near.filter(direct)), (CLIENT, near)):
        asked = callers.filter(callers["kind"] == kind)
        if len(asked) and len(evidence):
            out = asked.join(evidence, left_on=_WAY, right_on=["p_service", "p_via"], how="semi")
            found.append(out["key"])
    return pl.concat(found)


def _reached(ways: _Ways, nameless: Flags, near: pl.DataFrame, window: Window) -> U64:
    """The service most reached by each way; _NOBODY: none is known.

    Asked in turn: this pane's calls of the same client; where calls failed, the window's of the same client,
    and of anyone, if all that is known is a cluster's own name. Ties by name.
    """
    way = ways.find(near["p_service"], near["p_via"])
    votes = np.flatnonzero((way != NOWHERE) & (ways.via[way] != 0))
    reached_calls = np.ones(len(votes), np.uint64)
    found = _most(way[votes], near["service"].to_numpy()[votes], reached_calls, len(ways.via), window)
    missing = (found == _NOBODY) & ways.urgent & (ways.via != 0)
    if not missing.any():
        return found
    around = _votes(pl.Series(np.unique(ways.via[missing])), window)
    server, calls = around["server_service"].to_numpy(), around["calls"].to_numpy()
    way = ways.find(around["service"], around["via"])
    votes = np.flatnonzero((way != NOWHERE) & missing[way])
    found |= _most(way[votes], server[votes], calls[votes], len(found), window)
    anyone = np.flatnonzero(missing & (found == _NOBODY) & nameless)
    vias, of_way = np.unique(ways.via[anyone], return_inverse=True)
    via = rows_of(vias, around["via"].to_numpy()).astype(np.int64)
    votes = np.flatnonzero(via != NOWHERE)
    found[anyone] = _most(via[votes], server[votes], calls[votes], len(vias), window)[of_way]
    return found


def _most(way: I64, service: U64, calls: U64, ways: int, window: Window) -> U64:
    """The service that has most calls of each way; _NOBODY where none has one. Rows: votes, each for so many
    calls.
    """
    most = np.full(ways, _NOBODY, np.uint64)
    groups = Groups.by(hash_rows([way.astype(np.uint64), service]))
    way, service, calls = way[groups.first], service[groups.first], groups.sum(calls)
    largest = np.zeros(ways, np.uint64)
    np.maximum.at(largest, way, calls)
    top = calls == largest[way]
    way, service = way[top], service[top]
    if len(np.unique(way)) < len(way):
        nodes = window.nodes
        texts = nodes.select(_SERVICE_TEXTS)[rows_of(nodes["service"].to_numpy(), service)]
        last_first = texts.with_row_index("row").sort(_SERVICE_TEXTS, descending=True)["row"].to_numpy()
        way, service = way[last_first], service[last_first]
    most[way] = service
    return most


def _add_known_peers(service: U64, ways: _Ways, targets: pl.DataFrame, window: Window) -> None:
    """Put in where peers lead that have a pod's address, or a service's name: to the one nearest to the
    client.
    """
    rows = np.flatnonzero(((ways.via & PEER_BIT) != 0) & (service == _NOBODY))
    if not len(rows):
        return
    names = targets["service_text"].gather(rows)
    asked = targets.select("own_namespace", named="namespace_text", own_cluster="cluster_text")[rows]
    asked = asked.hstack([pl.Series("name", hash_texts(names), dtype=pl.UInt64), pl.Series("way", rows)])
    around = window.nodes
    nodes = pl.concat(
        around.select("service", *_SERVICE_TEXTS, name=column).filter(
            around[column].is_in(asked["name"].implode())
        )
        for column in ("address", "name")
    )
    pairs = asked.join(nodes.unique(("service", "name")), on="name")
    ranked = pairs.filter((pl.col("named") == "") | (pl.col("named") == pl.col("namespace_text"))).sort(
        pl.col("own_cluster") != pl.col("cluster_text"),
        pl.col("own_namespace") != pl.col("namespace_text"),
        *_SERVICE_TEXTS,
    )
    nearest = ranked.unique("way", keep="first", maintain_order=True)
    service[nearest["way"].to_numpy()] = nearest["service"].to_numpy()


def _votes(vias: pl.Series, window: Window) -> pl.DataFrame:
    """How many ``calls`` led from each ``service`` by each of these ``via`` to each ``server_service``, as
    far as the first callers of each node and way show; those that failed are asked after all others.
    """
    callers = window.spans_where("via", vias, _CALLER)
    bad = callers["failed"] | callers["refused"]
    callers = callers[_PARENT]
    asked = pl.concat([callers.filter(~bad), callers.filter(bad)])
    asked = asked.group_by("node", "via", maintain_order=True).head(_ASKED).unique("key")
    below = window.spans_where("parent_key", asked["key"], _CHILD).unique("key")
    links = find_links(below.join(prefixed(asked), left_on="parent_key", right_on="p_key"), window)
    return links.group_by(service="p_service", via="p_via", server_service="service").len("calls")

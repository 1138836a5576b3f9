"""Where calls would have led that nothing came below of: by what other calls reached the same way, else by
the name on it.

A way is a client's service and a ``via``: Envoy's cluster, or the peer that a CLIENT's span names.
"""

import numpy as np
import polars as pl

from processors.grouping import hash_rows, hash_texts
from processors.spans.edges.calls import CLIENT, PEER_BIT, SERVER, Window
from processors.spans.edges.links import EXTERNAL
from processors.spans.edges.pairs import find_links
from processors.spans.edges.targets import read_peers, read_upstreams
from processors.spans.edges.virtual import named_nodes, way_texts

_SERVICE_TEXTS = ("service_text", "namespace_text", "cluster_text")
_WAY = ["service", "via"]
_ASKED = 32
"""Callers of a node by a way that are asked whom they reached: traffic is told by few, and is the same for
all.
"""


def find_ways(callers: pl.DataFrame, near: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row for each way of ``callers``, and the nodes (``identity``, texts) that they lead to. ``near``:
    links within the pane.

    ``service``, ``via``; ``server``: an identity; ``reached``: other calls that way have reached it, or a
    peer's name is that of a service; ``meshed``: it is named as a service of the mesh; ``nameless``: only an
    Envoy cluster's own name is known, or none.
    """
    ways = callers.group_by(_WAY).agg(
        pl.col("node").first(), (pl.col("failed") | pl.col("refused")).any().alias("urgent")
    )
    ways = _with_target(ways, window)
    found = _reached(ways, near, window)
    reached = pl.concat([found, _known_peers(ways, found, window)])
    ways = ways.join(reached, on=_WAY, how="left", suffix="_reached").with_columns(
        reached=pl.col("server_service").is_not_null()
    )
    placed = ways.filter(pl.col("reached") | pl.col("meshed")).with_columns(
        pl.when("reached").then(f"{name}_reached").otherwise(name).alias(name) for name in _SERVICE_TEXTS
    )
    placed = placed.with_columns(pl.Series("server", _identities(placed), dtype=pl.UInt64))
    virtual = ways.filter(~(pl.col("reached") | pl.col("meshed")))
    nodes = named_nodes(virtual["service_text"], EXTERNAL)
    virtual = virtual.with_columns(server=nodes["identity"])
    columns = (*_WAY, "server", "reached", "meshed", "nameless")
    placed_nodes = placed.select(
        pl.col("server").alias("identity"), *(pl.col(name) for name in nodes.columns[1:])
    )
    return pl.concat([placed.select(columns), virtual.select(columns)]), pl.concat([nodes, placed_nodes])


def _identities(placed: pl.DataFrame) -> np.ndarray:
    """As nodes that send spans have them."""
    hashes = {name: hash_texts(placed[name]) for name in (*_SERVICE_TEXTS, "version_text")}
    service = hash_rows([hashes["cluster_text"], hashes["namespace_text"], hashes["service_text"]])
    return hash_rows([service, hashes["version_text"]])


def _with_target(ways: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Add what is written on each way: ``service_text``, ``namespace_text``, ``version_text``, ``meshed``,
    ``nameless``; and the client's ``cluster_text``, ``own_namespace``.
    """
    texts = way_texts(ways, window.words(ways["via"]))
    peer = (ways["via"] & int(PEER_BIT)) != 0
    named = [
        ways.filter(of).hstack(read(texts.filter(of)))
        for of, read in ((~peer, read_upstreams), (peer, read_peers))
        if of.any()
    ]
    client = window.nodes_where("node", ways["node"], ("node", "cluster_text", "namespace_text"))
    return pl.concat(named).join(client.rename({"namespace_text": "own_namespace"}), on="node", how="left")


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


def _reached(ways: pl.DataFrame, near: pl.DataFrame, window: Window) -> pl.DataFrame:
    """``service``, ``via`` with the service most reached that way: ``server_service``, texts.

    Asked in turn: this pane's calls of the same client; where calls failed, the window's of the same client,
    and of anyone, if all that is known is a cluster's own name. Ties by name. Ways for which none knows are
    left out.
    """
    wanted = ways.filter(pl.col("via") != 0).select(*_WAY, "urgent", anyone="nameless")
    votes = _counted(near.join(wanted, left_on=["p_service", "p_via"], right_on=_WAY, how="semi"))
    found = wanted.join(_most(votes, window, _WAY), on=_WAY)
    missing = wanted.filter("urgent").join(votes, on=_WAY, how="anti")
    if missing.is_empty():
        return found.drop("anyone", "urgent")
    around = _votes(missing["via"].unique(), window.spans, window)
    same = missing.join(_most(around, window, _WAY), on=_WAY)
    others = missing.join(same, on=_WAY, how="anti").filter("anyone")
    anyone = around.group_by("via", "server_service").agg(pl.col("calls").sum())
    others = others.join(_most(anyone, window, ["via"]), on="via")
    return pl.concat([found, same, others.select(found.columns)]).drop("anyone", "urgent")


def _known_peers(ways: pl.DataFrame, found: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Peers that have a pod's address, or a service's name: the one nearest to the client; columns as of
    ``found``.
    """
    asked = ways.filter((pl.col("via") & int(PEER_BIT)) != 0).join(found, on=_WAY, how="anti")
    if asked.is_empty():
        return found.clear()
    asked = asked.with_columns(name=pl.Series(hash_texts(asked["service_text"]), dtype=pl.UInt64))
    around = window.nodes
    nodes = pl.concat(
        around.select("service", *_SERVICE_TEXTS, name=column).filter(
            around[column].is_in(asked["name"].implode())
        )
        for column in ("address", "name")
    )
    nodes = nodes.unique(("service", "name")).rename({"service": "server_service"})
    pairs = asked.select(*_WAY, "name", "own_namespace", named="namespace_text", own_cluster="cluster_text")
    pairs = pairs.join(nodes, on="name")
    ranked = pairs.filter((pl.col("named") == "") | (pl.col("named") == pl.col("namespace_text"))).sort(
        pl.col("own_cluster") != pl.col("cluster_text"),
        pl.col("own_namespace") != pl.col("namespace_text"),
        *_SERVICE_TEXTS,
    )
    return ranked.unique(_WAY, keep="first", maintain_order=True).select(found.columns)


def _votes(vias: pl.Series, spans: pl.DataFrame, window: Window) -> pl.DataFrame:
    """How many ``calls`` led from each ``service`` by each of these ``via`` to each ``server_service``."""
    return _counted(_links_of(spans.filter(spans["via"].is_in(vias.implode())), spans, window))


def _counted(links: pl.DataFrame) -> pl.DataFrame:
    return links.group_by(service="p_service", via="p_via", server_service="service").len("calls")


def _most(votes: pl.DataFrame, window: Window, by: list[str]) -> pl.DataFrame:
    """The ``server_service``, with its texts, that has most calls of each ``by``."""
    texts = window.nodes_where("service", votes["server_service"], ("service", *_SERVICE_TEXTS)).rename(
        {"service": "server_service"}
    )
    ranked = votes.join(texts, on="server_service").sort(
        "calls", *_SERVICE_TEXTS, descending=[True, False, False, False]
    )
    return ranked.unique(by, keep="first", maintain_order=True).select(*by, "server_service", *_SERVICE_TEXTS)


def _links_of(callers: pl.DataFrame, spans: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Links of ``spans`` whose callers are the first ones of each node and way; those that failed are asked
    after all others.
    """
    bad = callers["failed"] | callers["refused"]
    asked = callers.select("key", "node", "via", "kind", "role", "queue", "proxy")
    asked = pl.concat([asked.filter(~bad), asked.filter(bad)])
    asked = asked.group_by("node", "via", maintain_order=True).head(_ASKED).unique("key")
    below = spans.filter(spans["parent_key"].is_in(asked["key"].implode()))
    below = below.select("key", "parent_key", "node", "kind", "role", "proxy", "queue").unique("key")
    asked = asked.rename(lambda name: f"p_{name}")
    return find_links(below.join(asked, left_on="parent_key", right_on="p_key"), window)

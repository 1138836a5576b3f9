"""Parents and children: every pair that a pane is to count, once."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from processors.grouping import I64, Flags
from processors.lookup import NOWHERE, Index, Places, rows_of
from processors.spans.edges.calls import Window
from processors.spans.edges.crossing import NODE_COLUMNS, Ends, Nodes, are_edges, by_queue

SIZES = ("protocol", "request_bytes", "response_bytes")
_OF_BOTH = ("apart", "duration_ns", *SIZES)
CHILD = (
    *_OF_BOTH, "weight", "key", "parent_key", "start_ns", "slot", "node", "flags", "bucket", "kind", "proxy", "error", "queue",
    "role", "database",
)  # fmt: skip
"""What is asked of a callee."""
PARENT = (
    *_OF_BOTH, "pane", "key", "node", "via", "flags", "bucket", "kind", "proxy", "error", "retry", "queue", "role",
)  # fmt: skip
"""What is asked of a caller."""
_OF_PARENT = tuple(name for name in PARENT if name != "key")
_TRACE = ("trace_hi", "trace_lo")
_NODE = ("service", "identity")
_OF_LINKS = ("service", "identity", "p_service", "p_identity")


class Near(NamedTuple):
    """Pairs of which both ends are first copies of the pane: rows of ``own``."""

    child: I64
    parent: I64


@dataclass(frozen=True)
class Pairs:
    """Every (child, parent) that a pane is to count, once."""

    own: pl.DataFrame
    """The pane's first copies: what Calls has, ids of traces, and what its node has of ``_NODE``."""
    index: Index
    """Of ``key`` of ``own``."""
    near: Near
    far: pl.DataFrame
    """Those of which one end is in another pane: CHILD, the parent's as ``p_...``, the trace id."""
    window: Window

    @cached_property
    def ends(self) -> tuple[Ends, Ends]:
        """Children and parents of ``near``; their nodes are rows of ``nodes``."""
        whole = Ends.of(self.own, self.nodes)
        return whole.take(self.near.child), whole.take(self.near.parent)

    @cached_property
    def near_edges(self) -> Flags:
        """Which of ``near`` are edges."""
        return are_edges(*self.ends, self.nodes)

    @cached_property
    def _far_edges(self) -> tuple[Flags, Nodes]:
        return edges_among(self.far, self.window)

    @property
    def far_edges(self) -> Flags:
        """Which of ``far`` are edges."""
        return self._far_edges[0]

    @cached_property
    def near_within(self) -> Flags:
        """Which of ``near`` are in one node. A span that names itself as its parent is in none."""
        within: Flags = ~self.near_edges & ~by_queue(*self.ends) & (self.near.child != self.near.parent)
        return within

    def find(self, keys: pl.Series) -> Places:
        """Rows of ``own``; NOWHERE: of another pane."""
        return self.index.find(keys.to_numpy())

    @property
    def nodes(self) -> Nodes:
        """The pane's own."""
        return Nodes.of(self.window.calls.nodes)

    def links(self) -> tuple[pl.DataFrame, int]:
        """Those that are edges, with all columns of both spans, and ``service``, ``identity`` of both nodes;
        and how many of them are near: these come first.
        """
        at = np.flatnonzero(self.near_edges)
        child, parent = self.near.child[at], self.near.parent[at]
        children = self.own.select(*CHILD, *_TRACE, *_NODE)[child]
        near = children.hstack(prefixed(self.own.select(*_OF_PARENT, *_NODE)[parent]))
        if not self.far_edges.any():
            return near, len(near)
        return pl.concat([near, _links(self.far, *self._far_edges).select(near.columns)]), len(near)


def find_pairs(own: pl.DataFrame, window: Window) -> Pairs:
    """Every (child, parent) that the window's pane is to count, once.

    A child of the pane whose parent lies in the window is counted here, and so is a child that came so much
    earlier than a parent of this pane that its own pane could not wait. ``own``: the pane's first copies.
    """
    index, parent_key = Index(own["key"].to_numpy()), own["parent_key"].to_numpy()
    at = index.find(parent_key)
    child = np.flatnonzero((at != NOWHERE) & (parent_key != 0))
    near = Near(child, at[child].astype(np.int64))
    return Pairs(own, index, near, pl.concat(_far_pairs(own, index, window)), window)


def _far_pairs(own: pl.DataFrame, index: Index, window: Window) -> list[pl.DataFrame]:
    loose = own[[*CHILD, *_TRACE]].filter(own["loose"])
    parents = (
        once(window.spans_where("key", loose["parent_key"], PARENT))
        if len(loose)
        else own.select(PARENT).clear()
    )
    found = [loose.join(prefixed(parents), left_on="parent_key", right_on="p_key")]
    early = once(_early(index, window))
    if len(early):
        at = index.find(early["parent_key"].to_numpy())
        met = early.hstack(own.select(_TRACE)[at]).hstack(prefixed(own.select(_OF_PARENT)[at]))
        found.append(met.select(found[0].columns))
    return found


def _early(index: Index, window: Window) -> pl.DataFrame:
    """CHILD of the spans below the pane's that came so much earlier that their own panes could not wait."""
    wanted = list(CHILD)
    found = [window.calls.loose[wanted].clear()]
    for pane, part in sorted(window.panes.items()):
        if pane < window.pane - window.wait and len(part.loose):
            met = index.find(part.loose["parent_key"].to_numpy()) != NOWHERE
            if met.any():
                found.append(part.loose[wanted].filter(pl.Series(met)))
    return pl.concat(found)


def edges_among(pairs: pl.DataFrame, window: Window) -> tuple[Flags, Nodes]:
    """Which of any pairs are edges, and the nodes of all."""
    hashes = pl.concat([pairs["node"], pairs["p_node"]])
    nodes = Nodes.of(window.nodes_where("node", hashes, NODE_COLUMNS))
    return are_edges(Ends.of(pairs, nodes), Ends.of(pairs, nodes, "p_"), nodes), nodes


def find_links(pairs: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Those of any pairs that are edges, with ``service``, ``identity`` of both nodes."""
    return _links(pairs, *edges_among(pairs, window))


def _links(pairs: pl.DataFrame, is_edge: Flags, nodes: Nodes) -> pl.DataFrame:
    links = pairs.filter(pl.Series(is_edge))
    places = [rows_of(nodes.node, links[name].to_numpy()) for name in ("node", "p_node")]
    values = [column[at] for at in places for column in (nodes.service, nodes.identity)]
    return links.hstack([pl.Series(name, each) for name, each in zip(_OF_LINKS, values, strict=True)])


def once(spans: pl.DataFrame) -> pl.DataFrame:
    """Each key once: several panes may hold copies."""
    first = spans["key"].is_first_distinct()
    return spans if first.all() else spans.filter(first)


def prefixed(spans: pl.DataFrame) -> pl.DataFrame:
    """The columns of spans as those of parents."""
    return spans.rename(lambda name: f"p_{name}")

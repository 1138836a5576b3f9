"""Where requests enter a node (service, pod), from the parents and children in a window of panes.

A request enters with a SERVER or CONSUMER span that has no other one above it in its node: a sidecar's SERVER
span has its app's below it, perhaps with the sidecar's CLIENT span between, and a framework's SERVER span may
have another one's below it. A gateway's CLIENT span is an entry too, where nothing of the gateway is above it
(Istio's gateways make no SERVER span). What is one node, and what leaves it, is by the rules of edges: a span
stays in its parent's node where the two have no edge and no queue between them.

Spans above are looked for in the window of the pane, over at most DEPTH others. A parent that comes when its
child was decided as an entry is no entry itself, so that the two count once: where the child is its own, or
the spans between came in the parent's pane. Else, and where the late parent has several such children, each
is an entry.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from processors.grouping import I64, Flags
from processors.spans.edges.calls import CLIENT, CONSUMER, SERVER, Window
from processors.spans.edges.links import find_links
from schemas.otlp.semantics import RECEIVES, SENDS

DEPTH = 16
"""So many spans may be between an inner span and the one above it where the request entered; where there are
more, the inner one is an entry.
"""
_CHILD = ("key", "parent_key", "node", "kind", "proxy", "queue", "role")
_PAIR = ("key", "parent_key", "node", "kind", "queue", "role", "p_role", "p_pane", "p_kind")
"""The columns that are asked of pairs."""
_PARENT = {name: f"p_{name}" for name in ("pane", "key", "node", "kind", "proxy", "role")}


@dataclass(frozen=True, slots=True)
class Entries:
    """A decided pane's own note."""

    rows: Flags
    """Which of PaneSpans.frame are spans with which a request entered a node."""


def find_entries(
    own: pl.DataFrame,
    pairs: pl.DataFrame,
    links: pl.DataFrame,
    window: Window,
    *,
    first: pl.Series,
    ends: I64,
) -> Entries:
    """Of the window's pane.

    ``own``: its first copies, rows ``first`` of its spans; ``pairs``, ``links``: what find_pairs and
    find_links made of them; ``ends``: rows of spans that end what came unfinished in earlier panes.
    """
    spans = window.calls.spans
    entries = _called(spans["kind"]).to_numpy().copy()
    gateways = window.nodes.filter("gateway")["node"].unique()
    if len(gateways):
        entries |= ((spans["kind"] == CLIENT) & spans["node"].is_in(gateways.implode())).to_numpy()
    stays = _staying(_asking(pairs, gateways), links)
    early = pl.repeat(value=False, n=len(stays), dtype=pl.Boolean, eager=True)
    if (window.loose["pane"] < window.pane - window.wait).any():
        early = ~stays["key"].is_in(own["key"].implode())
    below = [_positions(stays, early)]
    if len(ends):
        ended = _pairs_of(spans[ends], window)
        ended = _staying(_asking(ended, gateways), find_links(ended, window))
        below.append(_positions(ended, pl.repeat(value=False, n=len(ended), dtype=pl.Boolean, eager=True)))
    positions = pl.concat(below)
    if positions.is_empty():
        return Entries(entries)
    inner = _climb(positions.unique("key", keep="first", maintain_order=True), pairs, links, window)
    late = inner["early"] & (inner["above_pane"] == window.pane)
    inside = pl.concat([inner["key"].filter(~inner["early"]), inner["above"].filter(late)])
    if inside.is_empty():
        return Entries(entries)
    counted = np.concatenate([np.flatnonzero(first.to_numpy()), ends])
    is_inside = spans["key"].gather(counted).is_in(inside.implode())
    entries[counted[is_inside.to_numpy()]] = False
    return Entries(entries)


def _called(kind: pl.Series) -> pl.Series:
    """Which kinds are of spans that are called."""
    return (kind == SERVER) | (kind == CONSUMER)


def _asking(pairs: pl.DataFrame, gateways: pl.Series) -> pl.DataFrame:
    """The pairs whose child may be an entry."""
    called = _called(pairs["kind"])
    if len(gateways):
        called |= (pairs["kind"] == CLIENT) & pairs["node"].is_in(gateways.implode())
    return pairs.select(_PAIR).filter(called)


def _staying(pairs: pl.DataFrame, links: pl.DataFrame) -> pl.DataFrame:
    """The pairs that are in one node; ``links``: which of them are edges. A span that names itself as its
    parent is in none.
    """
    queued = (pairs["p_role"] == SENDS) & (pairs["role"] == RECEIVES) & pairs["queue"]
    itself = pairs["key"] == pairs["parent_key"]
    return pairs.filter(~queued & ~itself & ~pairs["key"].is_in(links["key"].implode()))


def _positions(stays: pl.DataFrame, early: pl.Series) -> pl.DataFrame:
    """Children, and the span above that each has come to."""
    return stays.select(
        "key",
        early.alias("early"),
        caller=pl.col("kind") == CLIENT,
        above="parent_key",
        above_pane="p_pane",
        above_kind="p_kind",
    )


def _climb(positions: pl.DataFrame, pairs: pl.DataFrame, links: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The positions, moved up within their nodes, that have come to a SERVER or CONSUMER span; those of a
    gateway's CLIENT spans (``caller``) have come far enough anywhere.
    """
    found = []
    for steps_left in reversed(range(DEPTH + 1)):
        arrived = _called(positions["above_kind"]) | positions["caller"]
        found.append(positions.filter(arrived))
        positions = positions.filter(~arrived)
        if positions.is_empty() or not steps_left:
            break
        positions = (
            positions.join(_steps(positions, pairs, links, window), left_on="above", right_on="key")
            .drop("above", "above_pane", "above_kind")
            .rename({"parent_key": "above", "p_pane": "above_pane", "p_kind": "above_kind"})
        )
    return pl.concat([part.select(found[0].columns) for part in found])


def _steps(positions: pl.DataFrame, pairs: pl.DataFrame, links: pl.DataFrame, window: Window) -> pl.DataFrame:
    """From the spans above to those above these, within their nodes: ``key``, ``parent_key``, ``p_pane``,
    ``p_kind``.
    """
    step = ("key", "parent_key", "p_pane", "p_kind")
    here = positions["above_pane"] == window.pane
    asked = pairs.select(_PAIR).filter(pairs["key"].is_in(positions["above"].filter(here).implode()))
    found = [_staying(asked, links).select(step)]
    if not here.all():
        elsewhere = window.spans_where("key", positions["above"].filter(~here), _CHILD)
        more = _pairs_of(elsewhere, window)
        found.append(_staying(more, find_links(more, window)).select(step))
    return pl.concat(found).unique("key", keep="first", maintain_order=True)


def _pairs_of(children: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The children, each once, with their parents of the window."""
    asking = children.select(_CHILD).filter(pl.col("parent_key") != 0)
    parents = window.spans_where("key", asking["parent_key"], tuple(_PARENT)).rename(_PARENT)
    return asking.filter(asking["key"].is_first_distinct()).join(
        parents.filter(parents["p_key"].is_first_distinct()), left_on="parent_key", right_on="p_key"
    )

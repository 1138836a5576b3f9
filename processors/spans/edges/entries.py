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
from processors.lookup import NOWHERE
from processors.spans.edges.calls import CLIENT, CONSUMER, SERVER, Window
from processors.spans.edges.pairs import Pairs, edges_among
from schemas.otlp.semantics import RECEIVES, SENDS

DEPTH = 16
"""So many spans may be between an inner span and the one above it where the request entered; where there are
more, the inner one is an entry.
"""
_CHILD = ("key", "parent_key", "node", "kind", "proxy", "queue", "role")
_PARENT = {name: f"p_{name}" for name in ("pane", "key", "node", "kind", "proxy", "queue", "role")}
_STEP = ("key", "parent_key", "p_pane", "p_kind")


@dataclass(frozen=True, slots=True)
class Entries:
    """A decided pane's own note."""

    rows: Flags
    """Which of PaneSpans.frame are spans with which a request entered a node."""


def find_entries(pairs: Pairs, *, first: pl.Series, ends: I64) -> Entries:
    """Of the window's pane.

    ``first``: which of its spans are the first copies that ``pairs`` are of; ``ends``: rows of spans that end
    what came unfinished in earlier panes.
    """
    window, own = pairs.window, np.flatnonzero(first.to_numpy())
    spans = window.calls.spans
    gateways = window.nodes["node"].filter(window.nodes["gateway"]).unique()
    entries = _may_enter(spans, gateways)
    above = _above(pairs)
    inner, unclear = _climb_within(pairs, above, entries[own])
    entries[own[inner]] = False
    far = _within(pairs.far.filter(pl.Series(~pairs.far_edges)), gateways)
    early = pl.Series(pairs.find(far["key"]) == NOWHERE)
    below = [_positions(_own_steps(pairs, above, unclear)), _positions(far, early)]
    if len(ends):
        ended = _pairs_of(spans[ends], window)
        below.append(_positions(_within(ended.filter(pl.Series(~edges_among(ended, window)[0])), gateways)))
    positions = pl.concat(below)
    if positions.is_empty():
        return Entries(entries)
    found = _climb(positions.unique("key", keep="first", maintain_order=True), pairs, above)
    late = found["early"] & (found["above_pane"] == window.pane)
    inside = pl.concat([found["key"].filter(~found["early"]), found["above"].filter(late)])
    if len(inside):
        counted = np.concatenate([own, ends])
        is_inside = spans["key"].gather(counted).is_in(inside.implode())
        entries[counted[is_inside.to_numpy()]] = False
    return Entries(entries)


def _called(kind: pl.Series) -> pl.Series:
    """Which kinds are of spans that are called."""
    return (kind == SERVER) | (kind == CONSUMER)


def _may_enter(spans: pl.DataFrame, gateways: pl.Series) -> Flags:
    """With which spans a request may enter a node, by their kind."""
    may = _called(spans["kind"])
    if len(gateways):
        may |= (spans["kind"] == CLIENT) & spans["node"].is_in(gateways.implode())
    flags: Flags = may.to_numpy().copy()
    return flags


def _above(pairs: Pairs) -> I64:
    """The row of the span above each of the pane's first copies, in pane and node; NOWHERE: none."""
    above = np.full(len(pairs.own), NOWHERE)
    within = pairs.near_within
    above[pairs.near.child[within]] = pairs.near.parent[within]
    return above


def _climb_within(pairs: Pairs, above: I64, asking: Flags) -> tuple[I64, I64]:
    """Of the ``asking`` ones, rows of those that have a SERVER or CONSUMER span above them (a gateway's
    CLIENT span: any), within pane and node; and of those that this does not say of, as a span between has its
    parent in another pane.
    """
    called, loose = _called(pairs.own["kind"]).to_numpy(), pairs.own["loose"].to_numpy()
    child = np.flatnonzero(asking & (above != NOWHERE))
    at, caller = above[child], ~called[child]
    inner, unclear = [], []
    for steps_left in reversed(range(DEPTH + 1)):
        arrived = called[at] | caller
        inner.append(child[arrived])
        ends = ~arrived & (above[at] == NOWHERE)
        unclear.append(child[ends & loose[at]])
        goes_on = ~arrived & ~ends
        if not steps_left or not goes_on.any():
            break
        child, at, caller = child[goes_on], above[at[goes_on]], caller[goes_on]
    return np.concatenate(inner), np.concatenate(unclear)


def _own_steps(pairs: Pairs, above: I64, rows: I64) -> pl.DataFrame:
    """From these of the pane's first copies to the spans above them: _STEP, and their own ``kind``."""
    keys, kind = pairs.own["key"], pairs.own["kind"]
    at = above[rows]
    return pl.DataFrame([keys.gather(rows), keys.gather(at).alias("parent_key")]).with_columns(
        pl.lit(pairs.window.pane, pl.Int64).alias("p_pane"),
        kind.gather(at).alias("p_kind"),
        kind.gather(rows).alias("kind"),
    )


def _within(pairs: pl.DataFrame, gateways: pl.Series | None = None) -> pl.DataFrame:
    """The pairs, which are no edges, that are in one node; of ``gateways`` given those whose child may be an
    entry. A span that names itself as its parent is in none.
    """
    queued = (pairs["p_role"] == SENDS) & (pairs["role"] == RECEIVES) & pairs["queue"]
    found = ~queued & (pairs["key"] != pairs["parent_key"])
    if gateways is not None:
        found &= pl.Series(_may_enter(pairs, gateways))
    return pairs.filter(found)


def _positions(stays: pl.DataFrame, early: pl.Series | None = None) -> pl.DataFrame:
    """Children, and the span above that each has come to; ``early``: which children came in earlier panes."""
    return stays.select(
        "key",
        (pl.lit(value=False) if early is None else early).alias("early"),
        caller=pl.col("kind") == CLIENT,
        above="parent_key",
        above_pane="p_pane",
        above_kind="p_kind",
    )


def _climb(positions: pl.DataFrame, pairs: Pairs, above: I64) -> pl.DataFrame:
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
            positions.join(_steps(positions, pairs, above), left_on="above", right_on="key")
            .drop("above", "above_pane", "above_kind")
            .rename({"parent_key": "above", "p_pane": "above_pane", "p_kind": "above_kind"})
        )
    return pl.concat([part.select(found[0].columns) for part in found])


def _steps(positions: pl.DataFrame, pairs: Pairs, above: I64) -> pl.DataFrame:
    """From the spans above to those above these, within their nodes: _STEP."""
    window = pairs.window
    here = positions["above_pane"] == window.pane
    asked = positions["above"].filter(here)
    at = pairs.find(asked)
    at = at[at != NOWHERE]
    near = _own_steps(pairs, above, at[above[at] != NOWHERE]).select(_STEP)
    met = pl.Series(~pairs.far_edges) & pairs.far["key"].is_in(asked.implode())
    found = [near, _within(pairs.far.filter(met)).select(_STEP)]
    if not here.all():
        elsewhere = window.spans_where("key", positions["above"].filter(~here), _CHILD)
        more = _pairs_of(elsewhere, window)
        found.append(_within(more.filter(pl.Series(~edges_among(more, window)[0]))).select(_STEP))
    return pl.concat(found).unique("key", keep="first", maintain_order=True)


def _pairs_of(children: pl.DataFrame, window: Window) -> pl.DataFrame:
    """The children, each once, with their parents of the window."""
    asking = children.select(_CHILD).filter(pl.col("parent_key") != 0)
    parents = window.spans_where("key", asking["parent_key"], tuple(_PARENT)).rename(_PARENT)
    return asking.filter(asking["key"].is_first_distinct()).join(
        parents.filter(parents["p_key"].is_first_distinct()), left_on="parent_key", right_on="p_key"
    )

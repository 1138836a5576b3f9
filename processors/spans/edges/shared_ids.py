"""Spans of one id, told apart for edges: Zipkin's B3 gives the client and the server of a call one id, and a
sidecar may hand it on to its app.

Rules: a SERVER span's parent is the CLIENT span of its id (a CONSUMER's the PRODUCER), whatever parent it
names; an app's the SERVER span of its own service's proxy, and a proxy's CLIENT span's the app's. A span
whose parent several spans could be is below that of its own process, else of its own service, else below the
one that was called last. Where none of them is in the window of the span's pane, [pane - lookback, pane +
wait], the first that comes is taken, and a root stays one: what was decided once stays so, whenever the rest
comes.

Of a span that came unfinished, and whose end is in the window, the end says how it went.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.grouping import hash_rows
from processors.spans.deduplicate import SPAN, UNFINISHED, SeenSpans
from processors.spans.edges.calls import CLAIM, CLIENT, CONSUMER, PRODUCER, SERVER, Window

_OF_AN_END = (
    "slot", "flags", "bucket", "duration_ns", "apart", "protocol", "request_bytes", "response_bytes", "error", "refused",
    "failed", "broken", "status",
)  # fmt: skip
"""What a span says when it has ended."""
_COLUMNS = ("span", "key", "parent_key", "pane", "start_ns", "node", "kind", "proxy", "database")


def told_apart(window: Window, first: pl.Series, seen: Mapping[int, SeenSpans], lookback: int) -> Window:
    """The window with spans that share an id under keys of their own, their parents by the rules, and ends in
    place of what came unfinished.

    ``first``: which of the window's own spans are first copies; ``seen``: of all panes of the window;
    ``lookback``: how many panes back a span may find its parent.
    """
    notes = list(seen.values())
    shared, ends = (pl.concat([getattr(note, name) for note in notes]) for name in ("shared", "ends"))
    if shared.is_empty() and ends.is_empty():
        return window
    spans = window.spans.rechunk()
    if len(ends):
        spans = _ended(spans, ends)
    claims = window.claims
    if len(shared):
        spans, claims = _resolved(spans, shared.unique(), first, window, lookback)
    loose = spans.filter("loose")
    panes = {
        number: replace(
            part, spans=spans.filter(pl.col("pane") == number), loose=loose.filter(pl.col("pane") == number)
        )
        for number, part in window.panes.items()
    }
    return replace(window, panes=panes, claims=claims)


def _ended(spans: pl.DataFrame, ends: pl.Series) -> pl.DataFrame:
    """Unfinished spans with what their ends say."""
    keys = spans["span_key"].to_numpy()
    came = np.flatnonzero((keys & UNFINISHED) > 0)
    unfinished = pl.DataFrame({"span_key": keys[came] & SPAN, "row": came}).filter(
        pl.col("span_key").is_in(ends.implode())
    )
    ended = spans.select("span_key", *_OF_AN_END).filter(spans["span_key"].is_in(ends.implode()))
    said = unfinished.join(ended.unique("span_key", keep="first", maintain_order=True), on="span_key")
    return _put(spans, said["row"].to_numpy(), said.select(_OF_AN_END))


def _resolved(
    spans: pl.DataFrame, shared: pl.Series, first: pl.Series, window: Window, lookback: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The spans with ``key``, ``parent_key`` and ``loose`` of those that share an id or are below such; and
    the claims of callers whose children are another's.
    """
    spans = spans.with_columns(span=pl.Series(spans["span_key"].to_numpy() & SPAN))
    members = _versions_once(spans.filter(spans["key"].is_in(shared.implode())))
    members = members.filter(pl.col("key").is_duplicated())
    if members.is_empty():
        return spans.drop("span"), window.claims
    below = _versions_once(spans.filter(spans["parent_key"].is_in(members["key"].implode())))
    asking = pl.concat([members, below]).unique("span", keep="first", maintain_order=True)
    services = window.nodes_where("node", asking["node"], ("node", "service"))
    asking, members = (part.join(services, on="node", how="left") for part in (asking, members))
    own_keys = members.select("span", own_key=_own_key(members))
    ranked = _parents(asking, members, spans, window, lookback).join(
        own_keys.rename({"span": "p_span", "own_key": "p_own_key"}),
        on="p_span",
        how="left",
        maintain_order="left",
    )
    parents = ranked.unique("span", keep="first", maintain_order=True)
    found = (
        asking.select("span", "key", "parent_key")
        .join(own_keys, on="span", how="left")
        .join(parents.select("span", "p_key", "p_own_key"), on="span", how="left")
        .select(
            "span",
            key=pl.coalesce("own_key", "key"),
            parent_key=pl.coalesce("p_own_key", "p_key", "parent_key"),
        )
    )
    changed = spans.select("span").with_row_index("row").filter(spans["span"].is_in(found["span"].implode()))
    values = changed.join(found, on="span", how="left", maintain_order="left").with_columns(
        loose=pl.col("parent_key") != 0
    )
    rows = values["row"].to_numpy()
    spans = _put(spans, rows, values.select("key", "parent_key", "loose"))
    return _with_own_loose(spans, rows, first, window.pane).drop("span"), _claims(ranked, window.wait)


def _claims(ranked: pl.DataFrame, wait: int) -> pl.DataFrame:
    """Children of those who were the best parent when their own pane was decided, and are not any more: the
    better one came after that.
    """
    better = pl.col("p_pane").cum_min().shift(1).over("span")
    decided = pl.col("p_pane") + wait
    claims = ranked.filter((better > decided) & (pl.col("pane") <= decided))
    return claims.with_columns(parent_key=pl.coalesce("p_own_key", "p_key")).select(tuple(CLAIM))


def _with_own_loose(
    spans: pl.DataFrame, rows: npt.NDArray[np.integer], first: pl.Series, pane: int
) -> pl.DataFrame:
    """``loose`` of those of ``rows`` that are of the pane: their parent is not among its first copies."""
    ours = np.flatnonzero((spans["pane"] == pane).to_numpy())
    keys = spans["key"].gather(ours).filter(first)
    rows = rows[np.isin(rows, ours)]
    parents = spans["parent_key"].gather(rows)
    loose = (parents != 0) & ~parents.is_in(keys.implode())
    return _put(spans, rows, pl.DataFrame({"loose": loose}))


def _parents(
    asking: pl.DataFrame, members: pl.DataFrame, spans: pl.DataFrame, window: Window, lookback: int
) -> pl.DataFrame:
    """``span`` -> ``p_span``, ``p_key``, ``p_pane``: who could be the parent of each, of what came in
    time for it, the best first.
    """
    above = members.rename(lambda name: f"p_{name}")
    half = asking.join(above, left_on="key", right_on="p_key").filter(_is_above())
    half = half.with_columns(p_key=pl.col("key"), half=pl.lit(value=True))
    named = _versions_once(
        spans.filter(spans["key"].is_in(half["parent_key"].implode())).filter(pl.col("key") != 0)
    ).join(members.select("span"), on="span", how="anti")
    services = window.nodes_where("node", named["node"], ("node", "service"))
    others = named.join(services, on="node", how="left").select(members.columns)
    candidates = pl.concat([members, others]).rename(lambda name: f"p_{name}")
    by_id = asking.join(candidates, left_on="parent_key", right_on="p_key").with_columns(
        p_key=pl.col("parent_key"), half=pl.lit(value=False)
    )
    found = pl.concat([half, by_id.select(half.columns)])
    found = found.filter(
        (pl.col("p_pane") >= pl.col("pane") - lookback) & (pl.col("span") != pl.col("p_span"))
    )
    until = pl.max_horizontal(pl.col("pane") + window.wait, pl.col("p_pane").min().over("span"))
    in_time = (pl.col("p_pane") <= until) & (
        (pl.col("parent_key") != 0) | (until == pl.col("pane") + window.wait)
    )
    return found.filter(in_time).sort(
        "half", *_preference(), "p_span", descending=[True, *(True for _ in _preference()), False]
    )


def _is_above() -> pl.Expr:
    """Whether p_, of the same id, is the span's parent by the rules."""
    kind, p_kind = pl.col("kind"), pl.col("p_kind")
    same_service = pl.col("service") == pl.col("p_service")
    called = ((kind == SERVER) & (p_kind == CLIENT)) | ((kind == CONSUMER) & (p_kind == PRODUCER))
    in_app = (kind == SERVER) & (p_kind == SERVER) & pl.col("p_proxy") & ~pl.col("proxy")
    of_app = (kind == CLIENT) & (p_kind == CLIENT) & ~pl.col("p_proxy") & pl.col("proxy")
    return (called | ((in_app | of_app) & same_service)).fill_null(value=False)


def _preference() -> list[pl.Expr]:
    """What a parent that several spans could be is told by, the first counting most; larger is better."""
    callee = pl.col("kind").is_in([SERVER, CONSUMER]) & ~pl.col("proxy")
    p_called = pl.col("p_kind").is_in([SERVER, CONSUMER])
    before = pl.col("p_start_ns") <= pl.col("start_ns")
    return [
        pl.when("half").then(p_called).otherwise((pl.col("p_node") == pl.col("node")) & ~callee),
        pl.when("half").then("p_proxy").otherwise((pl.col("p_service") == pl.col("service")) & ~callee),
        p_called,
        pl.col("p_proxy") == pl.col("proxy"),
        before,
        pl.when(before).then("p_start_ns").otherwise(-pl.col("p_start_ns")),
    ]


def _own_key(members: pl.DataFrame) -> pl.Series:
    return pl.Series(hash_rows([members["key"].to_numpy(), members["span"].to_numpy()]))


def _versions_once(spans: pl.DataFrame) -> pl.DataFrame:
    """Each span's first version, in the order of the log."""
    return spans.select(_COLUMNS).unique("span", keep="first", maintain_order=True)


def _put(spans: pl.DataFrame, rows: npt.NDArray[np.integer], values: pl.DataFrame) -> pl.DataFrame:
    """The spans with other values in some rows."""
    changed = []
    for column in values:
        put = spans[column.name].to_numpy().copy()
        put[rows] = column.to_numpy()
        changed.append(pl.Series(column.name, put))
    return spans.with_columns(changed)

"""Parents and children -> links: calls from one service, or instance, to another that both ends have seen."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from processors.grouping import NO_BUCKET, hash_rows
from processors.lookup import NOWHERE
from processors.spans.edges.calls import CLAIM, CLIENT, CONSUMER, PEER_BIT, PRODUCER, SERVER, Window
from processors.spans.edges.pairs import CHILD, PARENT, SIZES, Pairs, find_links, once, prefixed

CONNECTIONS = ("service", "database", "queue", "outside", "unknown", "external")
SERVICE, DATABASE, QUEUE, OUTSIDE, UNKNOWN, EXTERNAL = range(6)

ROW: dict[str, pl.DataType] = {
    "client": pl.UInt64(), "server": pl.UInt64(), "connection": pl.UInt8(), "upstream": pl.UInt64(), "flags": pl.UInt64(),
    "slot": pl.UInt32(), "unsent": pl.Boolean(), "unanswered": pl.Boolean(), "error": pl.Boolean(),
    "retry": pl.Boolean(), "taken": pl.Boolean(),
    "client_bucket": pl.Int16(), "server_bucket": pl.Int16(), "trace_hi": pl.UInt64(), "trace_lo": pl.UInt64(),
    "apart": pl.UInt8(), "protocol": pl.UInt8(), "weight": pl.Float64(),
    "request_bytes": pl.UInt64(), "response_bytes": pl.UInt64(), "overhead_ns": pl.Int64(),
}  # fmt: skip
"""One call: ``client``, ``server``: identities; ``connection``: index of CONNECTIONS; ``upstream``,
``flags``: hashes; ``taken``: it was counted before, and is taken back; ``overhead_ns``: the caller's
duration less the callee's, not below 0; NO_OVERHEAD where one is not known. ``dimensions`` u64, as Calls has
it, where such are configured.
"""
_DIMENSIONS = ROW | {"dimensions": pl.UInt64()}

NO_OVERHEAD = -1
WAY_OF_LINK = ("p_service", "p_via", "p_kind", "p_proxy", "service")
"""What calls with nothing below them ask of links."""
_TOLD = {
    "pane": pl.Int64, "key": pl.UInt64, "parent_key": pl.UInt64, "slot": pl.UInt32, "node": pl.UInt64, "via": pl.UInt64,
    "flags": pl.UInt64, "bucket": pl.Int16, "kind": pl.UInt8, "retry": pl.UInt16, "proxy": pl.Boolean, "error": pl.Boolean,
    "database": pl.Boolean, "refused": pl.Boolean, "caller": pl.Boolean, "failed": pl.Boolean, "broken": pl.Boolean,
    "status": pl.Boolean, "routed": pl.Boolean, "apart": pl.UInt8, "protocol": pl.UInt8, "weight": pl.Float64,
    "request_bytes": pl.UInt64, "response_bytes": pl.UInt64, "service": pl.UInt64, "identity": pl.UInt64, "seen": pl.Int64,
}  # fmt: skip


def as_rows(frame: pl.DataFrame, **columns: pl.Expr | int | bool) -> pl.DataFrame:
    """A frame in the form of ROW; columns that are not given are taken from it, but for ``taken`` and
    ``overhead_ns``.
    """
    given = {"taken": pl.lit(value=False), "overhead_ns": pl.lit(NO_OVERHEAD)} | {
        name: value if isinstance(value, pl.Expr) else pl.lit(value) for name, value in columns.items()
    }
    kinds = _DIMENSIONS if "dimensions" in frame.columns else ROW
    return frame.select(given.get(name, pl.col(name)).cast(kind).alias(name) for name, kind in kinds.items())


def upstream_of(via: str) -> pl.Expr:
    """The Envoy cluster of a ``via``; 0 where it is a peer's name."""
    return pl.when((pl.col(via) & int(PEER_BIT)) == 0).then(pl.col(via)).otherwise(pl.lit(0, dtype=pl.UInt64))


def links_within(window: Window, ways: pl.DataFrame) -> pl.DataFrame:
    """The links of which both ends are first copies of the window's pane; of callers that went one of
    ``ways`` (``service``, ``via``).
    """
    spans = window.calls.spans.filter(window.calls.spans["first"])
    nodes = window.calls.nodes.select("node", "service")
    parents = spans.select(PARENT).join(nodes, on="node").join(ways, on=["service", "via"], how="semi")
    children = spans.select(CHILD).filter(spans["parent_key"].is_in(parents["key"].implode()))
    pairs = children.join(prefixed(parents.drop("service")), left_on="parent_key", right_on="p_key")
    return find_links(pairs, window)


def told_by_themselves(far: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Callers of ``far`` pairs that were counted by themselves, as their pane was decided before the child
    came: nothing (below a call to a database: nothing of another service, and no call to a database) had
    shown within the wait. Columns as _TOLD.

    ``seen``: the first pane before this one with a child of theirs that came too late, null for none.
    """
    late = far["parent_key"].filter(far["p_pane"] < window.pane - window.wait).unique()
    if late.is_empty():
        return pl.DataFrame(schema=_TOLD)
    callers = once(window.spans.filter(window.spans["key"].is_in(late.implode())))
    gateway = callers["proxy"] & (callers["kind"] == SERVER) & callers["failed"] & (callers["via"] != 0)
    callers = callers.filter(callers["database"] | callers["refused"] | callers["caller"] | gateway)
    callers = callers.join(
        window.nodes_where("node", callers["node"], ("node", "service", "identity")), on="node"
    )
    below = window.spans_where("parent_key", callers["key"], tuple(CLAIM))
    below = pl.concat(
        [below, window.claims.filter(window.claims["parent_key"].is_in(callers["key"].implode()))]
    )
    below = below.join(window.nodes_where("node", below["node"], ("node", "service")), on="node")
    below = below.join(
        prefixed(callers.select("pane", "key", "database", "service")),
        left_on="parent_key",
        right_on="p_key",
    ).filter(~pl.col("p_database") | pl.col("database") | (pl.col("service") != pl.col("p_service")))
    decided = pl.col("p_pane") + window.wait
    in_time = below.filter(pl.col("pane") <= decided)["parent_key"]
    seen = below.filter((pl.col("pane") > decided) & (pl.col("pane") < window.pane))
    seen = seen.group_by(key="parent_key").agg(seen=pl.col("pane").min())
    told = callers.filter(~callers["key"].is_in(in_time.implode()))
    return told.join(seen, on="key", how="left").select(*_TOLD)


def led_in(callers: pl.DataFrame, window: Window) -> pl.Series:
    """Keys of attempts that Envoy's router spawned below an ``ingress`` span of the same proxy: they lead to
    its own application, or a gateway's listener has no direction.

    ``callers``: ``pane``, ``key``, ``parent_key``, ``node``, ``routed``. Parents that come after their pane
    was decided are not asked.
    """
    routed = callers.filter(callers["routed"])
    if routed.is_empty():
        return routed["key"]
    parents = once(window.spans_where("key", routed["parent_key"], ("pane", "key", "node", "ingress")))
    found = routed.select("pane", "key", "parent_key", "node").join(
        prefixed(parents.filter(parents["ingress"])),
        left_on=["parent_key", "node"],
        right_on=["p_key", "p_node"],
    )
    return found.filter(pl.col("p_pane") <= pl.col("pane") + window.wait)["key"]


def link_rows(links: pl.DataFrame, pairs: Pairs) -> pl.DataFrame:
    """Rows of links among pairs; the slot is that of the callee's end."""
    attempt = pl.col("p_kind") == CLIENT
    calling = attempt | (pl.col("p_kind") == PRODUCER) | pl.col("p_proxy")
    repeated = _repeated(links, pairs)
    return as_rows(
        pairs.window.with_dimensions(links),
        client=pl.col("p_identity"),
        server=pl.col("identity"),
        connection=SERVICE,
        upstream=upstream_of("p_via"),
        flags=pl.when(attempt & pl.col("p_proxy")).then("p_flags").otherwise("flags"),
        unsent=False,
        unanswered=False,
        error=pl.col("error") | (attempt & pl.col("p_error")),
        retry=(attempt & (pl.col("p_retry") > 0)) | pl.col("key").is_in(repeated.implode()),
        client_bucket=pl.when(calling).then("p_bucket").otherwise(NO_BUCKET),
        server_bucket=pl.col("bucket"),
        apart=pl.max_horizontal("apart", "p_apart"),
        overhead_ns=_overhead_ns(),
        **{name: pl.when(pl.col(name) != 0).then(name).otherwise(f"p_{name}") for name in SIZES},
    )


def _overhead_ns() -> pl.Expr:
    """Of calls that wait for their answer: the caller is a CLIENT or a proxy, the callee no CONSUMER."""
    waits = ((pl.col("p_kind") == CLIENT) | pl.col("p_proxy")) & (pl.col("kind") != CONSUMER)
    known = (pl.col("p_bucket") > NO_BUCKET) & (pl.col("bucket") > NO_BUCKET)
    longer_ns = (pl.col("p_duration_ns") - pl.col("duration_ns")).clip(0)
    return pl.when(waits & known).then(longer_ns).otherwise(NO_OVERHEAD)


def _repeated(links: pl.DataFrame, pairs: Pairs) -> pl.Series:
    """Keys of callees that a proxy span called after another one of the same service, by start, then key (any
    fixed order of ids).

    A callee that came too late for its sibling's decision to see it is the later one, so that of n callees n
    - 1 count as retries however they are spread over panes.
    """
    window = pairs.window
    asked = links.select("parent_key", "p_pane").filter(links["p_proxy"] & (links["p_retry"] == 0))
    near = asked["p_pane"] == window.pane
    columns = ("pane", "parent_key", "key", "start_ns", "node")
    below = _of_several(asked["parent_key"].filter(near), pairs, columns)
    if not near.all():
        below = pl.concat([below, window.children_of_others(asked.filter(~near), columns)])
    several = once(below.filter(pl.col("parent_key").is_duplicated()).sort("pane"))
    if several.is_empty():
        return several["key"]
    service = window.nodes_where("node", several["node"], ("node", "service"))
    ordered = several.join(service, on="node").sort("start_ns", "key")
    siblings = ("parent_key", "service")
    seen_before = pl.col("pane").min().over(siblings) < pl.col("pane") - window.wait
    follows = pl.col("pane").cum_min().shift(1).over(siblings) <= pl.col("pane") + window.wait
    return ordered.filter(seen_before | follows.fill_null(value=False))["key"]


def _of_several(parents: pl.Series, pairs: Pairs, columns: Sequence[str]) -> pl.DataFrame:
    """Spans below those of the pane's parents that have several children of one service, or a child in
    another pane.
    """
    asked = np.zeros(len(pairs.own), np.bool_)
    asked[pairs.find(parents)] = True
    child, parent = (rows[asked[pairs.near.parent]] for rows in pairs.near)
    service = pairs.nodes.service[pairs.ends[0].node[asked[pairs.near.parent]]]
    siblings = hash_rows([parent.astype(np.uint64), service])
    order = np.argsort(siblings)
    siblings = siblings[order]
    several = np.zeros(len(asked), np.bool_)
    several[parent[order[1:][siblings[1:] == siblings[:-1]]]] = True
    loose = pairs.window.loose
    at = pairs.find(loose["parent_key"])
    is_below = at != NOWHERE
    is_below[is_below] = asked[at[is_below]]
    several[at[is_below]] = True
    near = pairs.own.select(columns)[child[several[parent]]]
    return pl.concat([near, loose.select(columns).filter(pl.Series(is_below))])

"""Parents and children -> links: calls from one service, or instance, to another that both ends have seen."""

import polars as pl

from processors.calls import CLIENT, CONSUMER, PRODUCER, Window

NO_BUCKET = -2
"""A histogram's bucket of a row that has no duration to show."""

CONNECTIONS = ("service", "database", "queue", "outside", "unknown")
SERVICE, DATABASE, QUEUE, OUTSIDE, UNKNOWN = range(5)

ROW: dict[str, pl.DataType] = {
    "client": pl.UInt64(), "server": pl.UInt64(), "connection": pl.UInt8(), "upstream": pl.UInt64(), "flags": pl.UInt64(),
    "slot": pl.UInt32(), "unsent": pl.Boolean(), "error": pl.Boolean(), "retry": pl.Boolean(),
    "client_bucket": pl.Int16(), "server_bucket": pl.Int16(), "trace_hi": pl.UInt64(), "trace_lo": pl.UInt64(),
}  # fmt: skip
"""One call: ``client``, ``server``: identities; ``connection``: index of CONNECTIONS; ``upstream``, ``flags``: hashes."""

_CHILD = ("key", "parent_key", "start_ns", "slot", "node", "flags", "bucket", "kind", "proxy", "error", "queue")
_PARENT = ("key", "node", "upstream", "flags", "bucket", "kind", "proxy", "error", "retry", "queue")
_TRACE = ("trace_hi", "trace_lo")


def as_rows(frame: pl.DataFrame, **columns: pl.Expr | int | bool) -> pl.DataFrame:
    """A frame in the form of ROW; columns that are not given are taken from it."""
    given = {name: value if isinstance(value, pl.Expr) else pl.lit(value) for name, value in columns.items()}
    return frame.select(given.get(name, pl.col(name)).cast(kind).alias(name) for name, kind in ROW.items())


def find_pairs(own: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Every (child, parent) that the window's pane is to count, once: the child's columns, then the parent's as ``p_...``.

    A child of the pane whose parent lies in the window is counted here, and so is a child that came so much earlier than a parent of
    this pane that its own pane could not wait. ``own``: the pane's first copies.
    """
    children = own.filter(pl.col("parent_key") != 0).select(*_CHILD, *_TRACE)
    parents = _once(window.spans_where("key", children["parent_key"], _PARENT))
    found = children.join(_prefixed(parents), left_on="parent_key", right_on="p_key")
    below = window.spans_where("parent_key", own["key"], ("pane", *_CHILD))
    early = _once(below.filter(pl.col("pane") < window.pane - window.wait).drop("pane"))
    waited = early.join(_prefixed(own.select(_PARENT)).hstack(own.select(_TRACE)), left_on="parent_key", right_on="p_key")
    return pl.concat([found, waited.select(found.columns)])


def find_links(pairs: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Pairs that are an edge (the rules: ``processors.edges``), with both ends' ``service`` and ``identity``."""
    told_by_queue = (pl.col("p_kind") == PRODUCER) & (pl.col("kind") == CONSUMER) & pl.col("queue")
    apart = pairs.filter((pl.col("node") != pl.col("p_node")) & ~told_by_queue)
    ends = pl.concat([apart["node"], apart["p_node"]])
    nodes = window.nodes_where("node", ends, ("node", "service", "identity", "instance", "pod"))
    named = apart.join(nodes, on="node").join(_prefixed(nodes), on="p_node")
    return named.filter(_crosses()).drop("instance", "pod", "p_instance", "p_pod")


def link_rows(links: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Rows of links; the slot is that of the callee's end."""
    attempt = pl.col("p_kind") == CLIENT
    calling = attempt | (pl.col("p_kind") == PRODUCER) | pl.col("p_proxy")
    repeated = _repeated(links, window)
    return as_rows(
        links,
        client=pl.col("p_identity"),
        server=pl.col("identity"),
        connection=SERVICE,
        upstream=pl.col("p_upstream"),
        flags=pl.when(attempt & pl.col("p_proxy")).then("p_flags").otherwise("flags"),
        unsent=False,
        error=pl.col("error") | (attempt & pl.col("p_error")),
        retry=(attempt & (pl.col("p_retry") > 0)) | pl.col("key").is_in(repeated.implode()),
        client_bucket=pl.when(calling).then("p_bucket").otherwise(NO_BUCKET),
        server_bucket=pl.col("bucket"),
    )


def _repeated(links: pl.DataFrame, window: Window) -> pl.Series:
    """Keys of callees that a proxy span called after another one of the same service, by start, then key (any fixed order of ids).

    A callee that came too late for its sibling's decision to see it is the later one, so that of n callees n - 1 count as retries however
    they are spread over panes.
    """
    asked = links.filter(pl.col("p_proxy") & (pl.col("p_retry") == 0))["parent_key"]
    below = window.spans_where("parent_key", asked, ("pane", "parent_key", "key", "start_ns", "node"))
    several = _once(below.filter(pl.col("parent_key").is_duplicated()))
    if several.is_empty():
        return several["key"]
    service = window.nodes_where("node", several["node"], ("node", "service"))
    ordered = several.join(service, on="node").sort("start_ns", "key")
    siblings = ("parent_key", "service")
    seen_before = pl.col("pane").min().over(siblings) < pl.col("pane") - window.wait
    follows = pl.col("pane").cum_min().shift(1).over(siblings) <= pl.col("pane") + window.wait
    return ordered.filter(seen_before | follows.fill_null(value=False))["key"]


def _crosses() -> pl.Expr:
    """Whether a child and its parent are two ends of a call."""
    one_proxy = pl.col("proxy") != pl.col("p_proxy")
    same_service = pl.col("service") == pl.col("p_service")
    pods_known = (pl.col("pod") != 0) & (pl.col("p_pod") != 0)
    same_pod = pods_known & (pl.col("pod") == pl.col("p_pod"))
    other_pod = pods_known & (pl.col("pod") != pl.col("p_pod"))
    instances_known = (pl.col("instance") != 0) & (pl.col("p_instance") != 0)
    other_instance = instances_known & (pl.col("instance") != pl.col("p_instance"))
    return (
        pl.when(one_proxy & same_pod)
        .then(pl.lit(value=False))
        .when(~same_service)
        .then(pl.lit(value=True))
        .when(one_proxy)
        .then(other_pod)
        .otherwise(other_instance)
    )


def _once(spans: pl.DataFrame) -> pl.DataFrame:
    """Each key once: several panes may hold copies."""
    first = spans["key"].is_first_distinct()
    return spans if first.all() else spans.filter(first)


def _prefixed(spans: pl.DataFrame) -> pl.DataFrame:
    return spans.rename(lambda name: f"p_{name}")

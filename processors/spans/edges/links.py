"""Parents and children -> links: calls from one service, or instance, to another that both ends have seen."""

from typing import NamedTuple

import polars as pl

from processors.grouping import NO_BUCKET
from processors.spans.edges.calls import CLAIM, CLIENT, CONSUMER, PEER_BIT, PRODUCER, SERVER, Window
from schemas.otlp.semantics import RECEIVES, SENDS

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
_SIZES = ("protocol", "request_bytes", "response_bytes")
"""Said by the callee's end, else the caller's; 0: unknown."""
_OF_BOTH = ("apart", "duration_ns", *_SIZES)

_CHILD = (
    *_OF_BOTH,
    "weight",
    "key",
    "parent_key",
    "start_ns",
    "slot",
    "node",
    "flags",
    "bucket",
    "kind",
    "proxy",
    "error",
    "queue",
    "role",
    "database",
)
_PARENT = (
    *_OF_BOTH,
    "pane",
    "key",
    "node",
    "via",
    "flags",
    "bucket",
    "kind",
    "proxy",
    "error",
    "retry",
    "queue",
    "role",
)
WAY_OF_LINK = ("p_service", "p_via", "p_kind", "p_proxy", "service")
"""What calls with nothing below them ask of links."""
_END_OF_CHILD = ("key", "parent_key", "node", "kind", "role", "queue", "proxy")
_END_OF_PARENT = ("pane", "node", "kind", "role", "queue", "proxy")
_ENDS = ("key", "node", "p_node", "kind", "p_kind", "role", "p_role", "queue", "proxy", "p_proxy")
"""What tells whether a pair is an edge."""
_MORE_OF_CHILD = tuple(name for name in _CHILD if name not in _END_OF_CHILD)
_MORE_OF_PARENT = tuple(name for name in _PARENT if name not in (*_END_OF_PARENT, "key"))
_TRACE = ("trace_hi", "trace_lo")
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


class Pairs(NamedTuple):
    """Every (child, parent) that a pane is to count, once."""

    ends: pl.DataFrame
    """What tells whether a pair is an edge: the child's columns, then the parent's as ``p_...``; ``near``:
    both are in the pane; ``row``, ``p_row``: their rows of ``own`` where they are near, else ``row`` of
    ``others``.
    """
    own: pl.DataFrame
    others: pl.DataFrame

    def whole(self, ends: pl.DataFrame) -> pl.DataFrame:
        """Rows of ``ends`` with all columns of both spans. Wide frames are gathered for edges only: to copy
        them costs more than to match pairs.
        """
        near = ends if ends["near"].all() else ends.filter("near")
        children = self.own.select(*_MORE_OF_CHILD, *_TRACE)[near["row"]]
        parents = _prefixed(self.own.select(_MORE_OF_PARENT)[near["p_row"]])
        found = near.hstack(children).hstack(parents)
        if len(near) == len(ends):
            return found
        far = ends.filter(~ends["near"])
        more = [name for name in found.columns if name not in far.columns]
        return pl.concat([found, far.hstack(self.others.select(more)[far["row"]])])


def find_pairs(own: pl.DataFrame, window: Window) -> Pairs:
    """Every (child, parent) that the window's pane is to count, once.

    A child of the pane whose parent lies in the window is counted here, and so is a child that came so much
    earlier than a parent of this pane that its own pane could not wait. ``own``: the pane's first copies.
    """
    children = own.select("parent_key").with_row_index("row").filter(pl.col("parent_key") != 0)
    parents = own.select(pl.col("key").alias("parent_key")).with_row_index("p_row")
    met = children.join(parents, on="parent_key")
    near = own.select(_END_OF_CHILD)[met["row"]].hstack(_prefixed(own.select(_END_OF_PARENT)[met["p_row"]]))
    near = near.hstack(met.select("row", "p_row", near=pl.lit(value=True)))
    others = pl.concat(_far_pairs(own, window))
    if others.is_empty():
        return Pairs(near, own, others)
    far = others.with_row_index("row").with_columns(p_row=pl.lit(0, pl.UInt32), near=pl.lit(value=False))
    return Pairs(pl.concat([near, far.select(near.columns)]), own, others)


def _far_pairs(own: pl.DataFrame, window: Window) -> list[pl.DataFrame]:
    """Those of which one end is in another pane, with all columns of both."""
    loose = own.filter(own["loose"]).select(*_CHILD, *_TRACE)
    parents = (
        _once(window.spans_where("key", loose["parent_key"], _PARENT))
        if len(loose)
        else own.select(_PARENT).clear()
    )
    found = [loose.join(_prefixed(parents), left_on="parent_key", right_on="p_key")]
    if len(before := window.loose.filter(window.loose["pane"] < window.pane - window.wait)):
        early = _once(before.select(_CHILD).filter(before["parent_key"].is_in(own["key"].implode())))
        parents = _prefixed(own.select(_PARENT)).hstack(own.select(_TRACE))
        met = early.join(parents, left_on="parent_key", right_on="p_key")
        found.append(met.select(found[0].columns))
    return found


def links_within(window: Window, ways: pl.DataFrame) -> pl.DataFrame:
    """The links of which both ends are first copies of the window's pane; of callers that went one of
    ``ways`` (``service``, ``via``).
    """
    spans = window.calls.spans.filter(window.calls.spans["first"])
    nodes = window.calls.nodes.select("node", "service")
    parents = spans.select(_PARENT).join(nodes, on="node").join(ways, on=["service", "via"], how="semi")
    children = spans.select(_CHILD).filter(spans["parent_key"].is_in(parents["key"].implode()))
    pairs = children.join(_prefixed(parents.drop("service")), left_on="parent_key", right_on="p_key")
    return find_links(pairs, window)


def told_by_themselves(pairs: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Callers of ``pairs`` that were counted by themselves, as their pane was decided before the child came:
    nothing (below a call to a database: nothing of another service, and no call to a database) had shown
    within the wait. Columns as _TOLD.

    ``seen``: the first pane before this one with a child of theirs that came too late, null for none.
    """
    late = pairs["parent_key"].filter(pairs["p_pane"] < window.pane - window.wait).unique()
    if late.is_empty():
        return pl.DataFrame(schema=_TOLD)
    callers = _once(window.spans.filter(window.spans["key"].is_in(late.implode())))
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
        _prefixed(callers.select("pane", "key", "database", "service")),
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
    parents = _once(window.spans_where("key", routed["parent_key"], ("pane", "key", "node", "ingress")))
    found = routed.select("pane", "key", "parent_key", "node").join(
        _prefixed(parents.filter(parents["ingress"])),
        left_on=["parent_key", "node"],
        right_on=["p_key", "p_node"],
    )
    return found.filter(pl.col("p_pane") <= pl.col("pane") + window.wait)["key"]


def find_links(pairs: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Pairs that are an edge (the rules: ``processors.spans.edges.edges``), with both ends' ``service`` and
    ``identity``.
    """
    queued = (pl.col("p_role") == SENDS) & (pl.col("role") == RECEIVES) & pl.col("queue")
    called = (pl.col("p_kind") == CLIENT) & (pl.col("kind") == SERVER)
    ends = pairs.select(_ENDS).with_row_index("row")
    apart = ends.filter(((pl.col("node") != pl.col("p_node")) | called) & ~queued)
    nodes = window.nodes_where(
        "node",
        pl.concat([apart["node"], apart["p_node"]]),
        ("node", "service", "name", "identity", "instance", "pod"),
    )
    named = apart.join(nodes, on="node").join(_prefixed(nodes), on="p_node")
    kin = _kin(named, window)
    crossing = _crosses() if kin.is_empty() else _crosses() & ~pl.col("key").is_in(kin.implode())
    links = named.filter(crossing)
    return pairs[links["row"]].hstack(links.select("service", "identity", "p_service", "p_identity"))


def _kin(named: pl.DataFrame, window: Window) -> pl.Series:
    """Keys of children that are of their parent's service, as far as both say: one of the two is a proxy, the
    services have one name, and clusters and namespaces that both name are equal. Not where both name a pod.
    """
    mixed = named.filter(
        (named["proxy"] != named["p_proxy"])
        & (named["service"] != named["p_service"])
        & (named["name"] == named["p_name"])
        & ((named["pod"] == 0) | (named["p_pod"] == 0) | (named["pod"] == named["p_pod"]))
    ).select("key", "service", "p_service")
    if mixed.is_empty():
        return mixed["key"]
    services = pl.concat([mixed["service"], mixed["p_service"]])
    parts = window.nodes_where("service", services, ("service", "cluster", "namespace"))
    both = mixed.join(parts, on="service").join(_prefixed(parts), on="p_service")
    agree = [
        (pl.col(part) == pl.col(f"p_{part}")) | (pl.col(part) == 0) | (pl.col(f"p_{part}") == 0)
        for part in ("cluster", "namespace")
    ]
    return both.filter(*agree)["key"]


def link_rows(links: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Rows of links; the slot is that of the callee's end."""
    attempt = pl.col("p_kind") == CLIENT
    calling = attempt | (pl.col("p_kind") == PRODUCER) | pl.col("p_proxy")
    repeated = _repeated(links, window)
    return as_rows(
        window.with_dimensions(links),
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
        **{name: pl.when(pl.col(name) != 0).then(name).otherwise(f"p_{name}") for name in _SIZES},
    )


def _overhead_ns() -> pl.Expr:
    """Of calls that wait for their answer: the caller is a CLIENT or a proxy, the callee no CONSUMER."""
    waits = ((pl.col("p_kind") == CLIENT) | pl.col("p_proxy")) & (pl.col("kind") != CONSUMER)
    known = (pl.col("p_bucket") > NO_BUCKET) & (pl.col("bucket") > NO_BUCKET)
    longer_ns = (pl.col("p_duration_ns") - pl.col("duration_ns")).clip(0)
    return pl.when(waits & known).then(longer_ns).otherwise(NO_OVERHEAD)


def _repeated(links: pl.DataFrame, window: Window) -> pl.Series:
    """Keys of callees that a proxy span called after another one of the same service, by start, then key (any
    fixed order of ids).

    A callee that came too late for its sibling's decision to see it is the later one, so that of n callees n
    - 1 count as retries however they are spread over panes.
    """
    asked = links.filter(pl.col("p_proxy") & (pl.col("p_retry") == 0)).select(
        "parent_key", near=pl.col("p_pane") == window.pane
    )
    columns = ("pane", "parent_key", "key", "start_ns", "node")
    below = window.children_of(asked["parent_key"].filter(asked["near"]), columns)
    if not asked["near"].all():
        below = pl.concat(
            [below, window.spans_where("parent_key", asked["parent_key"].filter(~asked["near"]), columns)]
        )
    several = _once(below.filter(pl.col("parent_key").is_duplicated()).sort("pane"))
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
    itself = (pl.col("instance") == 0) & (pl.col("p_instance") == 0)
    itself &= (pl.col("p_kind") == CLIENT) & (pl.col("kind") == SERVER)
    return (
        pl.when(one_proxy & same_pod)
        .then(pl.lit(value=False))
        .when(~same_service)
        .then(pl.lit(value=True))
        .when(one_proxy)
        .then(other_pod)
        .otherwise(other_instance | itself)
    )


def _once(spans: pl.DataFrame) -> pl.DataFrame:
    """Each key once: several panes may hold copies."""
    first = spans["key"].is_first_distinct()
    return spans if first.all() else spans.filter(first)


def _prefixed(spans: pl.DataFrame) -> pl.DataFrame:
    return spans.rename(lambda name: f"p_{name}")

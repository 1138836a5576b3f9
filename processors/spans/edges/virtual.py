"""Nodes that send no spans, and calls of which they are one end: queues and outside clients."""

from typing import NamedTuple

import numpy as np
import polars as pl

from processors.grouping import NO_BUCKET, hash_rows, hash_texts
from processors.limits import IDENTITY, OTHER, Labels
from processors.lookup import NOWHERE, rows_of
from processors.spans.edges.calls import CLIENT, PEER_BIT, SERVER, Calls
from processors.spans.edges.links import DATABASE, EXTERNAL, OUTSIDE, QUEUE, ROW, UNKNOWN, as_rows
from processors.spans.edges.pairs import Pairs
from processors.spans.edges.targets import read_peers, read_upstreams
from schemas.otlp.semantics import RECEIVES, SENDS

OUTSIDE_CLIENT = "outside"
"""The client of root SERVER spans."""
UNKNOWN_SERVER = "unknown"
"""The server of calls that failed before a route was found, and that name nobody."""

DATABASE_NAMES = ("db_system", ("db_name", "peer"))
_QUEUE_NAMES = ("messaging_system", ("messaging_destination",))
_TAGS = {
    connection: np.uint64(connection + 1) for connection in (DATABASE, QUEUE, OUTSIDE, UNKNOWN, EXTERNAL)
}


def way_texts(texts: pl.Series) -> pl.Series:
    """What is written on ways; ``texts``: of their ``via``."""
    return texts.replace("", UNKNOWN_SERVER)


class Found(NamedTuple):
    """Calls, and the names of their nodes that sent no span."""

    rows: pl.DataFrame
    """ROW."""
    names: pl.DataFrame
    """``identity`` -> IDENTITY's texts (``cluster_text``, ...)."""


def named_nodes(names: pl.Series, connection: int) -> pl.DataFrame:
    """Virtual nodes of these names: ``identity`` and texts, row by row."""
    identity = hash_rows([np.full(len(names), _TAGS[connection]), hash_texts(names)])
    texts = {
        f"{part}_text": names if part == "service" else pl.repeat("", len(names), eager=True)
        for part in IDENTITY
    }
    return pl.DataFrame({"identity": pl.Series(identity, dtype=pl.UInt64), **texts})


_OUTSIDE_NODE = named_nodes(pl.Series([OUTSIDE_CLIENT]), OUTSIDE)
OTHER_NODE = named_nodes(pl.Series([OTHER]), UNKNOWN)
"""What stands at both ends of calls over a limit."""


def virtual_ends(spans: pl.DataFrame, calls: Calls, labels: Labels) -> pl.Series:
    """The identities of the databases and queues that a pane's spans name, each once; ``calls`` are of these
    spans, row by row.
    """
    made = [
        _nodes_of(
            spans.select(parts[0], *parts[1]).filter(calls.spans[column]).unique(), labels, parts, connection
        )["identity"]
        for column, parts, connection in (
            ("database", DATABASE_NAMES, DATABASE),
            ("queue", _QUEUE_NAMES, QUEUE),
        )
        if calls.spans[column].any()
    ]
    return pl.concat([_OUTSIDE_NODE["identity"].clear(), *made]).unique()


def ways_out(calls: Calls) -> pl.Series:
    """What is written on the ways of a pane's spans that may lead out of the mesh (``via``), each once."""
    return calls.spans["via"].filter(calls.spans["refused"] | calls.spans["caller"]).unique()


def ends_of_ways(ways: pl.Series, calls: Calls) -> pl.Series:
    """The identities of the virtual nodes that ways lead to."""
    words = calls.words
    at = rows_of(words["hash"].to_numpy(), ways.to_numpy())
    texts = way_texts(words["text"].gather(pl.Series(at).replace(NOWHERE, None)).fill_null(""))
    peer = (ways & int(PEER_BIT)) != 0
    named = (read_upstreams(texts.filter(~peer)), read_peers(texts.filter(peer)))
    return pl.concat([named_nodes(each["service_text"], EXTERNAL)["identity"] for each in named]).unique()


_OF_CALLEE = ("identity", "bucket", "dimensions", *ROW)


def outside_calls(own: pl.DataFrame) -> Found:
    """Root SERVER spans, and CLIENT ones of gateways: nobody in the mesh says that they made the call."""
    entry = (own["kind"] == SERVER) | (own["gateway"] & (own["kind"] == CLIENT))
    wanted = [name for name in own.columns if name in _OF_CALLEE]
    roots = own[wanted].filter(entry & (own["parent_key"] == 0))
    rows = as_rows(
        roots, client=pl.lit(_OUTSIDE_NODE["identity"][0], dtype=pl.UInt64), server=pl.col("identity"), connection=OUTSIDE, upstream=0,
        unsent=False, unanswered=False, retry=False, client_bucket=NO_BUCKET, server_bucket=pl.col("bucket"),
    )  # fmt: skip
    return Found(rows, _OUTSIDE_NODE)


def queue_calls(pairs: Pairs, labels: Labels) -> list[Found]:
    """Who sends -> queue and queue -> who receives; of nested spans of one process that do the same (receive,
    process) the outer one counts.
    """
    own = pairs.own
    if not own["queue"].any():
        return []
    children, parents = pairs.ends
    inner = (children.role == parents.role) & parents.queue & (children.node == parents.node)
    nested = np.zeros(len(own), np.bool_)
    nested[pairs.near.child[inner]] = True
    far = pairs.far.filter(
        (pl.col("role") == pl.col("p_role")) & pl.col("p_queue") & (pl.col("node") == pl.col("p_node"))
    )["key"]
    spans = own.filter(pl.col("queue") & ~pl.Series(nested) & ~pl.col("key").is_in(far.implode()))
    if spans.is_empty():
        return []
    spans, nodes = with_node(spans, labels, _QUEUE_NAMES, QUEUE)
    fixed = {"connection": QUEUE, "upstream": 0, "unsent": False, "unanswered": False, "retry": False}
    sent = as_rows(
        spans.filter(pl.col("role") == SENDS), client=pl.col("identity"), server=pl.col("virtual"),
        client_bucket=pl.col("bucket"), server_bucket=NO_BUCKET, **fixed,
    )  # fmt: skip
    received = as_rows(
        spans.filter(pl.col("role") == RECEIVES), client=pl.col("virtual"), server=pl.col("identity"),
        client_bucket=NO_BUCKET, server_bucket=pl.col("bucket"), **fixed,
    )  # fmt: skip
    return [Found(sent, nodes), Found(received, nodes)]


def with_node(
    spans: pl.DataFrame, labels: Labels, parts: tuple[str, tuple[str, ...]], connection: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spans with the identity of their ``virtual`` node, and the nodes."""
    system, rests = parts
    distinct = spans.select(system, *rests).unique()
    nodes = _nodes_of(distinct, labels, parts, connection)
    virtual = distinct.with_columns(nodes["identity"].alias("virtual"))
    return spans.join(virtual, on=[system, *rests], how="left", maintain_order="left"), nodes


def _nodes_of(
    distinct: pl.DataFrame, labels: Labels, parts: tuple[str, tuple[str, ...]], connection: int
) -> pl.DataFrame:
    """The virtual nodes of codes of texts, row by row: named ``system:name``, or by the one of both that is
    known.
    """
    system, rests = parts
    texts = distinct.select(
        pl.Series(name, labels.text(labels.codes(distinct[name])), dtype=pl.String)
        for name in distinct.columns
    )
    name = pl.coalesce(pl.when(pl.col(part) != "").then(pl.col(part)) for part in rests).fill_null("")
    colon = pl.when((pl.col(system) != "") & (name != "")).then(pl.lit(":")).otherwise(pl.lit(""))
    return named_nodes(
        texts.select(pl.concat_str(pl.col(system), colon, name).alias("name"))["name"], connection
    )

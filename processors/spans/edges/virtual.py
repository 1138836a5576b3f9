"""Calls of which one end sent no span: databases, queues, outside clients, and requests that were refused at
the caller.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from processors.grouping import NO_BUCKET, hash_rows, hash_texts
from processors.limits import IDENTITY, OTHER, Labels
from processors.spans.edges.calls import CONSUMER, PRODUCER, SERVER, Calls, Window
from processors.spans.edges.links import (
    DATABASE,
    OUTSIDE,
    QUEUE,
    SERVICE,
    UNKNOWN,
    as_rows,
    find_links,
)

OUTSIDE_CLIENT = "outside"
"""The client of root SERVER spans."""
UNKNOWN_SERVER = "unknown"
"""The server of calls that were refused before a route was found."""

_DATABASE_NAMES = ("db_system", ("db_name", "peer"))
_QUEUE_NAMES = ("messaging_system", ("messaging_destination",))
_SERVICE_TEXTS = ("service_text", "namespace_text", "cluster_text")
_TAGS = {connection: np.uint64(connection + 1) for connection in (DATABASE, QUEUE, OUTSIDE, UNKNOWN)}


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
    """The identities of all virtual nodes that a pane's spans name, each once; ``calls`` are
    of these spans, row by row.
    """
    made = [
        _nodes_of(
            spans.select(parts[0], *parts[1]).filter(calls.spans[column]).unique(), labels, parts, connection
        )["identity"]
        for column, parts, connection in (
            ("database", _DATABASE_NAMES, DATABASE),
            ("queue", _QUEUE_NAMES, QUEUE),
        )
        if calls.spans[column].any()
    ]
    if calls.spans["refused"].any():
        clusters = calls.spans.filter("refused").select("upstream").unique()
        words = clusters.join(calls.words.rename({"hash": "upstream"}), on="upstream", how="left")["text"]
        made.append(named_nodes(words.fill_null("").replace("", UNKNOWN_SERVER), UNKNOWN)["identity"])
    return pl.concat([_OUTSIDE_NODE["identity"].clear(), *made]).unique()


def outside_calls(own: pl.DataFrame) -> Found:
    """Root SERVER spans: nobody in the mesh says that they made the call."""
    roots = own.filter((pl.col("kind") == SERVER) & (pl.col("parent_key") == 0))
    rows = as_rows(
        roots, client=pl.lit(_OUTSIDE_NODE["identity"][0], dtype=pl.UInt64), server=pl.col("identity"), connection=OUTSIDE, upstream=0,
        unsent=False, retry=False, client_bucket=NO_BUCKET, server_bucket=pl.col("bucket"),
    )  # fmt: skip
    return Found(rows, _OUTSIDE_NODE)


def queue_calls(own: pl.DataFrame, pairs: pl.DataFrame, labels: Labels) -> list[Found]:
    """PRODUCER -> queue and queue -> CONSUMER; of nested spans of one kind and process (receive, process) the
    outer one counts.
    """
    nested = pairs.filter(
        (pl.col("kind") == pl.col("p_kind")) & pl.col("p_queue") & (pl.col("node") == pl.col("p_node"))
    )["key"]
    spans = own.filter(pl.col("queue") & ~pl.col("key").is_in(nested.implode()))
    if spans.is_empty():
        return []
    spans, nodes = _with_node(spans, labels, _QUEUE_NAMES, QUEUE)
    fixed = {"connection": QUEUE, "upstream": 0, "unsent": False, "retry": False}
    sent = as_rows(
        spans.filter(pl.col("kind") == PRODUCER), client=pl.col("identity"), server=pl.col("virtual"),
        client_bucket=pl.col("bucket"), server_bucket=NO_BUCKET, **fixed,
    )  # fmt: skip
    received = as_rows(
        spans.filter(pl.col("kind") == CONSUMER), client=pl.col("virtual"), server=pl.col("identity"),
        client_bucket=NO_BUCKET, server_bucket=pl.col("bucket"), **fixed,
    )  # fmt: skip
    return [Found(sent, nodes), Found(received, nodes)]


def childless_calls(own: pl.DataFrame, links: pl.DataFrame, labels: Labels, window: Window) -> list[Found]:
    """Calls to databases and calls that were refused at the caller: both show in what does not follow a
    span.
    """
    callers = own.filter(own["refused"] | own["database"])
    if callers.is_empty():
        return []
    below = window.children_of(callers["key"], ("parent_key", "node"))
    childless = ~pl.col("key").is_in(below["parent_key"].implode())
    found = []
    refused_calls = callers.filter(pl.col("refused") & childless)
    if len(refused_calls):
        found.append(_unsent_calls(refused_calls, links, window))
    asked = callers.filter(pl.col("database") & ~(pl.col("refused") & childless))
    asked = asked.join(_other_services_below(asked, below, window), on="key", how="anti")
    if len(asked):
        asked, nodes = _with_node(asked, labels, _DATABASE_NAMES, DATABASE)
        rows = as_rows(
            asked, client=pl.col("identity"), server=pl.col("virtual"), connection=DATABASE, unsent=False, retry=pl.col("retry") > 0,
            client_bucket=pl.col("bucket"), server_bucket=NO_BUCKET,
        )  # fmt: skip
        found.append(Found(rows, nodes))
    return found


def _other_services_below(callers: pl.DataFrame, below: pl.DataFrame, window: Window) -> pl.DataFrame:
    """``key`` of callers with a child of another service."""
    service = window.nodes_where("node", below["node"], ("node", "service")).rename({"service": "p_service"})
    children = below.join(service, on="node").select(key="parent_key", p_service="p_service")
    return (
        callers.select("key", "service")
        .join(children, on="key")
        .filter(pl.col("service") != pl.col("p_service"))
        .select("key")
    )


def _unsent_calls(callers: pl.DataFrame, links: pl.DataFrame, window: Window) -> Found:
    """Calls to the service that the upstream cluster leads to; where that does not show, to a node of the
    cluster's name.
    """
    words = window.words(callers["upstream"]).select(upstream="hash", cluster_name="text")
    servers = _reached_through(
        callers.filter(pl.col("upstream") != 0).select("service", "upstream").unique(), links, window
    )
    known = callers.join(servers, on=["service", "upstream"], how="left").join(
        words, on="upstream", how="left"
    )
    nodes = named_nodes(known["cluster_name"].fill_null("").replace("", UNKNOWN_SERVER), UNKNOWN)
    rows = as_rows(
        known.with_columns(nodes["identity"].alias("virtual")), client=pl.col("identity"),
        server=pl.coalesce("server", "virtual"), connection=pl.when(pl.col("server").is_null()).then(UNKNOWN).otherwise(SERVICE),
        unsent=True, retry=pl.col("retry") > 0, client_bucket=pl.col("bucket"), server_bucket=NO_BUCKET,
    )  # fmt: skip
    unversioned = servers.select(pl.col("server").alias("identity"), *_SERVICE_TEXTS, version_text=pl.lit(""))
    return Found(rows, pl.concat([nodes, unversioned.select(nodes.columns)]))


def _reached_through(wanted: pl.DataFrame, links: pl.DataFrame, window: Window) -> pl.DataFrame:
    """``wanted`` (client's service, upstream) with the service most reached that way: ``server`` (its
    identity, of no version), texts.

    Asked in turn: this pane's calls of the same client, the window's of the same client, the window's of
    anyone; ties by name. Rows for which none knows are left out.
    """
    client = ["service", "upstream"]
    near = _votes(links, wanted["upstream"])
    found = wanted.join(_most(near, window, client), on=client)
    missing = wanted.join(near, on=client, how="anti")
    if len(missing):
        around = _votes(_links_through(missing["upstream"].unique(), window), missing["upstream"])
        same = missing.join(_most(around, window, client), on=client)
        anyone = around.group_by("upstream", "server_service").agg(pl.col("calls").sum())
        others = missing.join(same, on=client, how="anti").join(
            _most(anyone, window, ["upstream"]), on="upstream"
        )
        found = pl.concat([found, same.select(found.columns), others.select(found.columns)])
    hashes = found["server_service"].to_numpy()
    return found.with_columns(
        pl.Series("server", hash_rows([hashes, np.zeros_like(hashes)]), dtype=pl.UInt64)
    ).drop("server_service")


def _votes(links: pl.DataFrame, upstreams: pl.Series) -> pl.DataFrame:
    """How many ``calls`` led from each ``service`` through each of these ``upstream`` clusters to each
    ``server_service``.
    """
    through = links.filter(links["p_upstream"].is_in(upstreams.implode()))
    return through.group_by(service="p_service", upstream="p_upstream", server_service="service").len("calls")


def _most(votes: pl.DataFrame, window: Window, by: list[str]) -> pl.DataFrame:
    """The ``server_service``, with its texts, that has most calls of each ``by``."""
    texts = window.nodes_where("service", votes["server_service"], ("service", *_SERVICE_TEXTS)).rename(
        {"service": "server_service"}
    )
    ranked = votes.join(texts, on="server_service").sort(
        "calls", *_SERVICE_TEXTS, descending=[True, False, False, False]
    )
    return ranked.unique(by, keep="first").select(*by, "server_service", *_SERVICE_TEXTS)


def _links_through(upstreams: pl.Series, window: Window) -> pl.DataFrame:
    """The window's links whose caller names one of these upstream clusters, each once."""
    parents = window.spans_where("upstream", upstreams, ("key", "node", "upstream", "kind", "proxy")).unique(
        "key"
    )
    children = window.spans_where(
        "parent_key", parents["key"], ("key", "parent_key", "node", "kind", "proxy", "queue")
    ).unique("key")
    return find_links(
        children.join(parents.rename(lambda name: f"p_{name}"), left_on="parent_key", right_on="p_key"),
        window,
    )


def _with_node(
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

"""Calls that show by their caller alone, as nothing came below its span: to databases, refused at the caller,
failed on their way, or to what sends no spans.
"""

import numpy as np
import polars as pl

from processors.grouping import NO_BUCKET
from processors.limits import Labels
from processors.lookup import NOWHERE
from processors.spans.edges.calls import SERVER, Window
from processors.spans.edges.links import (
    DATABASE,
    EXTERNAL,
    SERVICE,
    UNKNOWN,
    as_rows,
    led_in,
    links_within,
    upstream_of,
)
from processors.spans.edges.pairs import Pairs
from processors.spans.edges.virtual import DATABASE_NAMES, Found, with_node
from processors.spans.edges.ways import find_ways, lead_out


def childless_calls(
    pairs: Pairs,
    labels: Labels,
    *,
    near: pl.DataFrame,
    told: pl.DataFrame,
    lookback: int,
) -> list[Found]:
    """Calls to databases, and calls with nothing below them. Of nested calls to databases (an ORM's above a
    driver's) the inner ones count.

    ``near``: the links within the pane; ``told``: parents of pairs that were counted by themselves;
    ``lookback``: panes.
    """
    own, window = pairs.own, pairs.window
    suspect = own["proxy"] & (own["kind"] == SERVER) & own["failed"] & (own["via"] != 0)
    asked = own["refused"] | own["database"] | own["caller"] | suspect
    recent = window.loose.filter(window.loose["pane"] >= window.pane - window.wait)
    answered = np.zeros(len(own), np.bool_)
    answered[pairs.near.parent] = True
    others = pl.concat([pairs.far["parent_key"], recent["parent_key"]])
    if len(others):
        at = pairs.find(others)
        answered[at[at != NOWHERE]] = True
    childless = asked & ~pl.Series(answered)
    found = []
    database = own["database"] & ~(own["refused"] & childless)
    if database.any():
        found += _database_calls(own.filter(database), told, labels, window)
    alone = own.filter(childless & ~database)
    if len(alone):
        found += _lone_calls(alone, near, window.about(window.pane, lookback // 2))
    return found


def taken_back(told: pl.DataFrame, window: Window, lookback: int) -> tuple[list[Found], pl.Series]:
    """What takes calls back that were counted by themselves before a child of theirs came; and the keys of
    callers that stay counted so, of which no child counts: calls to databases, refused ones, and those whose
    decision is too long ago to be made again.
    """
    reach = lookback - lookback // 2
    old = (told["pane"] < window.pane - reach) & (told["seen"] > told["pane"] + reach).fill_null(value=True)
    stays = told["database"] | told["refused"] | (old & told["caller"])
    back = told.filter(~stays & ~old & told["seen"].is_null()).with_columns(
        trace_hi=pl.lit(0, dtype=pl.UInt64), trace_lo=pl.lit(0, dtype=pl.UInt64)
    )
    found = []
    back = window.with_dimensions(back)
    for (pane,), callers in back.group_by("pane", maintain_order=True):
        about = window.about(int(str(pane)), lookback // 2)
        found += [
            Found(part.rows.with_columns(taken=pl.lit(value=True)), part.names)
            for part in _lone_calls(callers, links_within(about, callers.select("service", "via")), about)
        ]
    return found, told["key"].filter(stays)


def _database_calls(callers: pl.DataFrame, told: pl.DataFrame, labels: Labels, window: Window) -> list[Found]:
    below = window.children_of(callers["key"], ("parent_key", "node", "database"))
    asked = callers.join(_answered_below(callers, below, window), on="key", how="anti")
    above = told.filter("database").select("service", parent_key="key")
    asked = asked.join(above, on=["parent_key", "service"], how="anti", maintain_order="left")
    if asked.is_empty():
        return []
    asked, nodes = with_node(asked, labels, DATABASE_NAMES, DATABASE)
    rows = as_rows(
        asked, client=pl.col("identity"), server=pl.col("virtual"), connection=DATABASE, upstream=upstream_of("via"),
        unsent=False, unanswered=False, retry=pl.col("retry") > 0, client_bucket=pl.col("bucket"), server_bucket=NO_BUCKET,
    )  # fmt: skip
    return [Found(rows, nodes)]


def _answered_below(callers: pl.DataFrame, below: pl.DataFrame, window: Window) -> pl.DataFrame:
    """``key`` of callers with a child of another service, or one that calls a database itself."""
    service = window.nodes_where("node", below["node"], ("node", "service")).rename({"service": "p_service"})
    children = below.join(service, on="node").select("p_service", "database", key="parent_key")
    return (
        callers.select("key", "service")
        .join(children, on="key")
        .filter(pl.col("database") | (pl.col("service") != pl.col("p_service")))
        .select("key")
    )


def _lone_calls(callers: pl.DataFrame, near: pl.DataFrame, window: Window) -> list[Found]:
    """Calls with nothing below them, of the window's pane: a function of what the window has. ``near``: links
    within the pane, all those by the callers' ways among them.
    """
    inward = callers["key"].is_in(led_in(callers, window).implode())
    server = (callers["kind"] == SERVER) & ~callers["refused"]
    doubtful = (inward & ~callers["refused"]) | server
    if doubtful.any():
        sure = lead_out(callers.filter(doubtful & callers["failed"]), near)
        callers = callers.filter(~doubtful | callers["key"].is_in(sure.implode()))
    if callers.is_empty():
        return []
    ways, nodes = find_ways(callers, near, window)
    named = callers.hstack(ways)
    unsent = pl.col("refused") | (pl.col("proxy") & (pl.col("via") == 0))
    lost = pl.col("failed") & ~unsent
    external = ~pl.col("reached") & ~(pl.col("meshed") & (unsent | lost))
    connection = (
        pl.when(~external)
        .then(SERVICE)
        .when(pl.col("nameless") & (unsent | (pl.col("via") == 0)))
        .then(UNKNOWN)
        .otherwise(EXTERNAL)
    )
    heard = (connection == EXTERNAL) & pl.col("status") & ~pl.col("broken")
    rows = as_rows(
        named, client=pl.col("identity"), connection=connection, upstream=upstream_of("via"), unsent=unsent, unanswered=lost & ~heard,
        error=pl.col("error") | lost, retry=pl.col("retry") > 0, client_bucket=pl.col("bucket"), server_bucket=NO_BUCKET,
    )  # fmt: skip
    return [Found(rows, nodes)]
